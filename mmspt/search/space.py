"""What a search varies: keys of `--cfg-options`, each with a range or a list of values."""
import ast
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmengine.config import Config

from mmspt.config import type_name

SHORT = {
    'lr': 'optim_wrapper.optimizer.lr',
    'prompt_decay': 'optim_wrapper.optimizer.weight_decay',
    'head_decay': 'optim_wrapper.paramwise_cfg.head_decay',
}
FIXED = re.compile(r'(train_dataloader\.dataset(?!\.pipeline\.)|train_dataloader$|(val|test)_|default_hooks|randomness|'
                   r'work_dir|resume|launcher|default_scope)')
CONSTRUCTOR = 'TrainableOnlyOptimWrapperConstructor'
DEFAULT = ('lr=1e-3:1e-1:log', 'prompt_decay=1e-4:1e-1:log', 'head_decay=1e-3:5:log')
FORM = ('KEY=LOW:HIGH, KEY=LOW:HIGH:log or KEY=A,B,C, where KEY is lr, prompt_decay, head_decay or any key of '
        '--cfg-options but those that say which data are read')
FIELD = 'search_space'
"""Variable of a config with a space of its own."""


class Parameter(NamedTuple):
    """One varied setting: ``choices``, or a range from ``low`` to ``high``, of whole numbers if both are."""
    key: str
    """Key of `--cfg-options`."""
    choices: tuple | None = None
    low: float = 0.
    high: float = 0.
    log: bool = False

    def suggest(self, trial: Any) -> Any:
        """Ask an Optuna trial for a value."""
        if self.choices is not None:
            return trial.suggest_categorical(self.key, self.choices)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(self.key, self.low, self.high, log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, log=self.log)


def read_space(cfg: Config, given: Sequence[str] | None, own: Any) -> list[Parameter]:
    """Read what a search of a config varies: what was given, or else the config's own space, or else the default.

    Args:
        cfg (Config): The config that the settings change.
        given (Sequence[str] | None): The texts after `--search`; None if there are none.
        own (Any): The config's variable ``search_space``, None if it has none: a list of texts as after `--search`.

    Raises:
        ValueError: As in :func:`parse_space` and :func:`check_keys`, or ``own`` is no list.
    """
    specs = given or own or DEFAULT
    if not isinstance(specs, list | tuple):
        raise ValueError(f"{FIELD} of {cfg.filename} must be a list of texts, for example ['lr=1e-3:1e-1:log'], got "
                         f'{own!r}: correct it, set it to None for the default space, or give --search')
    space = parse_space(specs)
    check_keys(cfg, space)
    return space


def parse_space(specs: Sequence[str]) -> list[Parameter]:
    """Read specifications, for example 'lr=1e-4:1e-1:log' or 'model.backbone.num_prompts=10,20,50'.

    Raises:
        ValueError: Another form, an empty or wrong range, a key given twice.
    """
    space: list[Parameter] = []
    for spec in specs:
        key, _, values = (part.strip() for part in spec.partition('='))
        key = SHORT.get(key, key)
        if not key or not values:
            raise ValueError(f'a search setting must be {FORM}, got {spec!r}')
        if any(parameter.key == key for parameter in space):
            raise ValueError(f"a setting must be given once, but '{key}' comes twice: merge them")
        is_range = ':' in values and '://' not in values
        space.append(_parse_range(key, spec, values) if is_range else Parameter(key, _parse_list(spec, values)))
    return space


def _parse_list(spec: str, values: str) -> tuple:
    """Split at the commas outside brackets; texts are read by `--cfg-options`."""
    choices = tuple(_literal(text) for text in re.split(r',(?![^(\[]*[)\]])', values))
    if '' in choices:
        raise ValueError(f'a search setting must be {FORM}, got {spec!r}')
    if len(set(choices)) < len(choices):
        raise ValueError(f'a list must have each value once, but {spec!r} has one twice: leave one out')
    return choices


def _parse_range(key: str, spec: str, values: str) -> Parameter:
    low, high, *rest = (_literal(part) for part in values.split(':'))
    log = rest == ['log']
    if (rest and not log) or not all(_is_number(value) for value in (low, high)):
        raise ValueError(f'a search setting must be {FORM}, got {spec!r}')
    if not low < high or (log and low <= 0):
        raise ValueError(f'a range must rise{", from above 0" if log else ""}, got {spec!r}')
    return Parameter(key, None, low, high, log)


def _literal(text: str) -> Any:
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return text.strip()
    return value if isinstance(value, bool | int | float | None) else text.strip()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_keys(cfg: Config, space: Sequence[Parameter]) -> None:
    """Make sure that the config has a place for every varied setting; `--cfg-options` would make one that nobody reads.

    Raises:
        ValueError: A key's place is not in the config, it says which data are read or how they are judged, or the
            head's decay is set for a constructor that has none.
    """
    for parameter in space:
        key = parameter.key
        if FIXED.match(key):
            raise ValueError("a search must not vary which data it trains on or how it is judged, but '"
                             f"{key}' is a part of that: leave it out, or set it for all with --cfg-options")
        gap = _find_gap(cfg, key)
        if gap is not None:
            raise ValueError(f"a varied setting must be one of the config's, but {cfg.filename} has no '{gap}' where "
                             f"'{key}' would be: correct the key, or add its place")
        constructor = type_name(cfg.optim_wrapper.get('constructor'))
        if key == SHORT['head_decay'] and constructor != CONSTRUCTOR:
            raise ValueError(f"head_decay is read by constructor='mmspt.{CONSTRUCTOR}' alone, but {cfg.filename} has "
                             f'{constructor}: leave it out of --search, or take that one')


def _find_gap(cfg: Config, key: str) -> str | None:
    """Return the first part of a key that the config lacks, None if the key has a place."""
    *parents, last = key.split('.')
    place: Any = cfg
    for depth, part in enumerate(parents, 1):
        try:
            place = place[int(part) if isinstance(place, list | tuple) else part]
        except (KeyError, IndexError, ValueError):
            place = None
        if not isinstance(place, Mapping | list | tuple):
            return '.'.join(parents[:depth])
    return last if not parents and last not in cfg else None


def as_options(settings: dict[str, Any]) -> list[str]:
    """Write settings as arguments of `--cfg-options`, exactly."""
    return [f'{key}={value!r}' if not isinstance(value, str) else f'{key}={value}' for key, value in settings.items()]


def describe(settings: dict[str, Any]) -> str:
    """Write settings for people, with short names and three digits."""
    short = {key: name for name, key in SHORT.items()}
    return ', '.join(f'{short.get(key, key)} {f"{value:.3g}" if isinstance(value, float) else value}'
                     for key, value in settings.items())
