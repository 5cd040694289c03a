"""The record of a tested run, ``result.json`` in its work directory."""
import json
import os
import os.path as osp
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import count
from operator import methodcaller
from typing import Any

from mmspt.files import write_text

RESULT_FILE = 'result.json'


@dataclass(frozen=True)
class Result:
    """The tested setting, see :func:`mmspt.evaluation.describe_run`, how far it was trained, and the metrics.

    ``recipe`` is the settings that seeds share (dotted config key -> value), ``trained_on`` has ``dataset``, ``split``
    and ``tested``, the number of tested images among them, or True for a number that is not known; both are None if the
    run only tested. Epochs are None where the config counts iterations, and the other way round.
    """
    config: str | None  # name of the file
    task: str  # key of mmspt.datasets.tasks.TASKS, or '<data set type> <folder>'
    group: str  # 'FGVC', 'Natural', 'Specialized', 'Structured' or 'Other'
    split: str | None  # split, list file or folder that was tested
    num_images: int  # tested
    trained_on: dict | None
    method: str  # 'SPT-Deep', 'VPT-Shallow', 'Linear', 'Full', ...
    initializer: str | None  # class that made the prompts
    num_prompts: int  # N_p, prompts a block
    arch: str  # 'ViT-B', ...; 'custom' for sizes of its own
    pretraining: str  # 'MAE', 'MoCo-v3', 'supervised', ...; 'unknown' if the config does not say
    tta: bool  # test-time augmentation
    recipe: dict | None
    seed: int | None  # of the training; of the test if the checkpoint does not say
    epoch: int | None  # of the tested weights; None too if the checkpoint does not say
    max_epochs: int | None
    finished: bool  # the weights are the last of their training, which may have been stopped early
    metrics: dict  # accuracies in percent
    checkpoint: str | None  # file of the tested weights; None if they were not saved
    versions: dict  # package -> version
    iteration: int | None = None
    max_iters: int | None = None
    resumed: list | None = None  # changed settings: {epoch, iteration, changed: key -> [before, from there on]}

    @property
    def progress(self) -> str:
        """How far the tested weights were trained."""
        unit, reached, wanted = ('epoch', self.epoch, self.max_epochs) if self.max_iters is None else (
            'iteration', self.iteration, self.max_iters)
        if reached is None:
            return f'an unknown {unit}'
        return f'{unit} {reached}' + ('' if wanted is None else f' of {wanted}')

    @property
    def leak(self) -> str | None:
        """How many of the tested images it was trained on, in words; None if on none."""
        shared = (self.trained_on or {}).get('tested')
        if not shared:
            return None
        which = 'the' if shared is True or shared == self.num_images else f'{shared:,} of the {self.num_images:,}'
        return f'trained on {which} images it was tested on'


def plain_metrics(metrics: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return metrics as JSON holds them: numbers and text, and nested lists for tensors and arrays.

    Raises:
        ValueError: There are none, or one is None, not finite, or of a type that JSON has not.
    """
    if not metrics:
        raise ValueError(f'a result must have metrics, got {metrics!r}: set test_evaluator')
    plain = {}
    for name, value in metrics.items():
        try:
            if value is None:
                raise ValueError('no value')
            plain[str(name)] = json.loads(json.dumps(value, default=methodcaller('tolist'), allow_nan=False))
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"a result's metrics must be finite numbers or text, but '{name}' is {value!s:.200} "
                             f'({error}): look at the losses in the log, or change test_evaluator') from error
    return plain


def write_result(result: Result, path: str) -> None:
    """Write a result atomically."""
    write_text(path, json.dumps(asdict(result), indent=2, allow_nan=False) + '\n')


def set_aside(path: str) -> str:
    """Rename a result to the first free of result.1.json, result.2.json, ..., which no report reads; return it."""
    stem, ending = osp.splitext(path)
    aside = next(name for name in (f'{stem}.{i}{ending}' for i in count(1)) if not osp.exists(name))
    os.replace(path, aside)
    return aside


def read_result(path: str) -> Result:
    """Read a result, without keys that a later version added; ValueError if it is broken."""
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
        return Result(**{field.name: content[field.name] for field in fields(Result) if field.name in content})
    except (TypeError, ValueError) as error:
        raise ValueError(f"a result must be whole JSON, but '{path}' is not ({error}): delete it and test the run "
                         'again') from error
