"""The record of a tested run, ``result.json`` in its work directory: written whole, checked when it is read."""
import json
import math
import os
import os.path as osp
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from itertools import count
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
    """Dotted config key -> value, of what a seed must share with another; None if the run only tested."""
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
    """Metrics as JSON holds them: numbers and text, and nested lists for tensors and arrays.

    Raises:
        ValueError: There are none, or one is or holds None, what is not finite, or what JSON has no form for.
    """
    if not metrics:
        raise ValueError(f'a result must have metrics, got {metrics!r}: set test_evaluator')
    return {str(name): _plain(value, str(name)) for name, value in metrics.items()}


def _plain(value: Any, name: str) -> Any:
    value = value.tolist() if hasattr(value, 'tolist') else value
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, f'{name}.{key}') for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, f'{name}.{i}') for i, inner in enumerate(value)]
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"a result's metrics must be finite, but '{name}' is {value}: look at the losses in the log")
    if not isinstance(value, str | int | float):
        raise ValueError(f"a result's metrics must be numbers or text, but '{name}' is a {type(value).__name__}: "
                         'change what test_evaluator gives')
    return value


def write_result(result: Result, path: str) -> None:
    """Write beside ``path`` and rename, so that no half-written file is ever found there."""
    write_text(path, json.dumps(asdict(result), indent=2, allow_nan=False) + '\n')


def set_aside(path: str) -> str:
    """Rename a result to the first free of result.1.json, result.2.json, ..., which no report reads; say to which."""
    stem, ending = osp.splitext(path)
    aside = next(name for name in (f'{stem}.{i}{ending}' for i in count(1)) if not osp.exists(name))
    os.replace(path, aside)
    return aside


def read_result(path: str) -> Result:
    """Read what :func:`write_result` wrote; keys that a later version added are passed by.

    Raises:
        ValueError: The file is not JSON, or a key is missing or of another type.
    """
    remedy = 'delete it and test the run again'
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file, parse_constant=_refuse)
    except ValueError as error:
        raise ValueError(f"a result must be whole JSON, but '{path}' is not ({error}): {remedy}") from error
    keys = [field.name for field in fields(Result) if field.default is MISSING]
    missing = sorted(set(keys) - set(content)) if isinstance(content, dict) else keys
    if missing:
        raise ValueError(f"a result must have all of its keys, but '{path}' lacks {', '.join(missing)}: {remedy}")
    for key, kind in get_type_hints(Result).items():
        if key in content and not isinstance(content[key], kind):
            raise ValueError(f"'{key}' of a result must be {getattr(kind, '__name__', kind)}, but '{path}' has "
                             f'{content[key]!r}: {remedy}')
    recipe = content['recipe'] or {}
    if 'batch_size' in recipe:  # its name before November 2026
        recipe['global_batch'] = recipe.pop('batch_size')
    return Result(**{field.name: content[field.name] for field in fields(Result) if field.name in content})


def _refuse(constant: str) -> None:
    raise ValueError(f'{constant} is no number')
