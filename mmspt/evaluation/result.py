"""The record of a tested run, ``result.json`` in its work directory."""
import json
import os
import os.path as osp
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from itertools import count
from operator import methodcaller
from typing import Any, get_type_hints

from mmspt.files import write_text

RESULT_FILE = 'result.json'


@dataclass(frozen=True)
class Result:
    """The tested setting, see :func:`mmspt.evaluation.describe_run`, how far it was trained, and the metrics."""
    config: str | None
    """Name of the config file."""
    task: str
    """Key of ``mmspt.datasets.tasks.TASKS``, or '<data set type> <folder>'."""
    group: str
    """'FGVC', 'Natural', 'Specialized', 'Structured' or 'Other'."""
    split: str | None
    """Split, list file or folder that was tested."""
    num_images: int
    """Images tested."""
    trained_on: dict | None
    """``dataset`` (type), ``split``, and ``tested=True`` if it was tested on the same; None if the run only tested."""
    method: str
    """'SPT-Deep', 'SPT-Shallow', 'VPT-Deep', 'VPT-Shallow', 'Linear', 'Full'."""
    initializer: str | None
    """Class that made the prompts; None without prompts."""
    num_prompts: int
    """N_p, prompts a block."""
    arch: str
    """'ViT-B', ...; 'custom' for sizes of its own."""
    pretraining: str
    """'MAE', 'MoCo-v3', 'supervised', ...; 'unknown' if the config does not say."""
    tta: bool
    """Whether test-time augmentation was on."""
    recipe: dict | None
    """Dotted config key -> value, of the settings that seeds share; None if the run only tested."""
    seed: int | None
    """Seed of the training; of the test if the checkpoint does not say."""
    epoch: int | None
    """Epoch of the tested weights; None if the config counts iterations, or the checkpoint does not say."""
    max_epochs: int | None
    """Epochs that the config asks for; None if it counts iterations."""
    finished: bool
    """Whether the tested weights are the last of their training, which may have been stopped early."""
    metrics: dict
    """Name -> value; accuracies in percent."""
    checkpoint: str | None
    """File of the tested weights; None if they were not saved."""
    versions: dict
    """Package -> version."""
    iteration: int | None = None
    """Iteration of the tested weights; None if the config counts epochs."""
    max_iters: int | None = None
    """Iterations that the config asks for; None if it counts epochs."""

    @property
    def progress(self) -> str:
        """How far the tested weights were trained."""
        unit, reached, wanted = ('epoch', self.epoch, self.max_epochs) if self.max_iters is None else (
            'iteration', self.iteration, self.max_iters)
        if reached is None:
            return f'an unknown {unit}'
        return f'{unit} {reached}' + ('' if wanted is None else f' of {wanted}')


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
    """Read a result; keys that a later version added are ignored.

    Raises:
        ValueError: The file is not JSON, or a key is missing or of another type.
    """
    remedy = 'delete it and test the run again'
    try:
        with open(path, encoding='utf-8') as file:
            content = dict(json.load(file))
    except (TypeError, ValueError) as error:
        raise ValueError(f"a result must be whole JSON, but '{path}' is not ({error}): {remedy}") from error
    for field in fields(Result):
        kind = get_type_hints(Result)[field.name]
        if not isinstance(content.setdefault(field.name, field.default), kind):
            raise ValueError(f"'{field.name}' of a result must be {getattr(kind, '__name__', kind)}, but '{path}' has "
                             f'{"none" if content[field.name] is MISSING else repr(content[field.name])}: {remedy}')
    recipe = content['recipe'] or {}
    if 'batch_size' in recipe:  # its name before November 2026
        recipe['global_batch'] = recipe.pop('batch_size')
    return Result(**{field.name: content[field.name] for field in fields(Result)})
