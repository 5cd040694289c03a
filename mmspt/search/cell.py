"""A cell: one method on one task with one checkpoint, searched on train -> val, its best setting tested with seeds."""
import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmspt.config import read_config
from mmspt.engine.checks import check_config
from mmspt.engine.launch import merge_options
from mmspt.engine.optimizers.paramwise import check_paramwise
from mmspt.evaluation.description import CACHE, config_name, describe_run, recipe_of

from .space import FIELD, Parameter, read_space
from .splits import check_overlap, final_config, search_config

ROW = ('task', 'group', 'method', 'arch', 'pretraining')
"""What says where a cell stands in a table, keys of :func:`mmspt.evaluation.describe_run`."""
BATCH_KEYS = ('train_dataloader.batch_size', 'optim_wrapper.accumulative_counts')


@dataclass(frozen=True)
class Budget:
    """What a cell may cost; it may change, and what was run stays."""
    trials: int = 30
    """Settings to try, pruned ones counted."""
    seeds: int = 3
    """Seeds of the best setting, each trained on train + val and tested once; 0: search only."""
    prune_after: int = 5
    """Trials that run to their end before others are pruned."""
    curves: bool = False
    """Whether the best setting is also trained on train with each seed, for its validations."""
    stop_within: float | None = None
    """Bound, in units of the metric, on what more trials could gain, below which a cell stops; None: it does not."""

    def __post_init__(self) -> None:
        for name, least in (('trials', 1), ('seeds', 0), ('prune_after', 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f'{name} must be a whole number from {least} on, got {value!r}: correct it')
        if not isinstance(self.curves, bool) or not isinstance(self.stop_within, int | float | None):
            raise ValueError(f'curves must be true or false and stop_within a number, got {self.curves!r} and '
                             f'{self.stop_within!r}: correct them')


@dataclass(frozen=True)
class Cell:
    """What every worker must know to run a part of a cell; all of it is JSON."""
    name: str
    """Folder of its runs below the plan's; '' for the plan's own."""
    recipe: str
    """Name of the config's file."""
    trial_config: str
    """The config of a trial, in full."""
    final_config: str | None
    """The config of a last run, in full; None if none is tested."""
    space: list[Parameter]
    metric: str
    amp: str | None
    seed: int
    """Of the search."""
    length: int
    """Epochs of a run, or iterations."""
    unit: str
    """'epoch' or 'iteration'."""
    warmup: int
    """First epoch (or iteration) whose validation may prune a trial, after its warm-up and its first fifth."""
    identity: str
    """:func:`digest` of all that two runs of one cell share: trial's config, space, metric, precision."""
    final_identity: str | None
    """The same of the last runs."""
    global_batch: int | None
    """Images an optimizer step; None if trials differ."""
    row: dict[str, Any]
    """Values of :data:`ROW`, and titles that a plan gives."""
    budget: Budget = field(default_factory=Budget)

    @property
    def key(self) -> str:
        """Name and identity: a cell that is defined anew has another."""
        return f'{self.name or self.recipe}@{self.identity}'

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON holds them."""
        return asdict(self) | dict(space=[list(parameter) for parameter in self.space])

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> 'Cell':
        """Read :meth:`to_json`."""
        space = [Parameter(key, None if choices is None else tuple(choices), *rest)
                 for key, choices, *rest in content['space']]
        return cls(**{**content, 'space': space, 'budget': Budget(**content['budget'])})


def make_cell(path: str, options: Mapping[str, Any] | None = None, search: Sequence[str] | None = None, name: str = '',
              metric: str = 'accuracy/top1', amp: str | None = None, seed: int = 0, budget: Budget = Budget(),
              titles: Mapping[str, str] | None = None) -> Cell:
    """Make a cell of a recipe.

    Args:
        path (str): Of the config.
        options (Mapping | None): As after ``--cfg-options``. Defaults to None.
        search (Sequence[str] | None): As after ``--search``; None: the config's own space, or the default.
        name (str): Its folder below the plan's. Defaults to ''.
        metric (str): Validated quantity, the higher the better. Defaults to 'accuracy/top1'.
        amp (str | None): Precision, as after ``--amp``. Defaults to None.
        seed (int): Of the search. Defaults to 0.
        budget (Budget): Trials and seeds.
        titles (Mapping | None): Replace parts of its row. Defaults to None.

    Raises:
        ValueError: The config cannot be searched, or a setting has no place in it; see
            :mod:`mmspt.search.splits`, :mod:`mmspt.search.space` and :mod:`mmspt.engine.checks`.
    """
    cfg = read_config(path)
    merge_options(cfg, options)
    own_space = cfg.pop(FIELD, None)  # the space counts, not where it was given
    trial, final = search_config(cfg), final_config(cfg) if budget.seeds else None
    space = read_space(cfg, search, own_space)
    for key, value in [(None, None), *((p.key, value) for p in space for value in p.choices or (p.low, ))]:
        tried = copy.deepcopy(trial)
        tried.merge_from_dict({} if key is None else {key: value})
        check_paramwise(tried.optim_wrapper)
    described = describe_run(final or trial)
    epochs = cfg.train_cfg.get('max_epochs')
    length = epochs or cfg.train_cfg.get('max_iters', 0)
    searched = {parameter.key for parameter in space} & set(BATCH_KEYS)
    return Cell(
        name=name, recipe=config_name(path) or '', trial_config=trial.pretty_text,
        final_config=None if final is None else final.pretty_text, space=space, metric=metric, amp=amp, seed=seed,
        length=length, unit='epoch' if epochs else 'iteration', warmup=max(length // 5, warmup_of(cfg) + 1),
        identity=identify(trial, space, metric, amp),
        final_identity=None if final is None else identify(final, space, metric, amp),
        global_batch=None if searched else recipe_of(trial)['global_batch'],
        row={key: described[key] for key in ROW} | dict(titles or {}), budget=budget)


def warmup_of(cfg: Config) -> int:
    """Return the epochs (or iterations, where the config counts them) in which the rate still rises."""
    schedulers = cfg.get('param_scheduler') or []
    schedulers = schedulers if isinstance(schedulers, list | tuple) else [schedulers]
    by_epoch = bool(cfg.train_cfg.get('max_epochs'))
    warmups = [scheduler.get('warmup') or (scheduler.get('end') or 0 if 'Linear' in str(scheduler.get('type')) else 0)
               for scheduler in schedulers if scheduler.get('by_epoch', True) == by_epoch]
    return int(max(warmups, default=0))


def identify(cfg: Config, space: Sequence[Parameter], metric: str, amp: str | None) -> str:
    """Return a :func:`digest` of what makes two searches the same: config, space, metric and precision; not
    workers and caches, which depend on the machine."""
    ignored = ('work_dir', 'resume', 'launcher', 'workers')
    settings = {key: _without_machine(value) if key.endswith('_dataloader') else value
                for key, value in cfg.to_dict().items() if key not in ignored}
    return digest(settings, sorted(space, key=lambda parameter: parameter.key), metric, amp)


def _without_machine(part: Any) -> Any:
    """Leave out of a data loader's config what depends on the machine: workers, and the cache of images."""
    if isinstance(part, dict):
        return {key: None if key == 'num_workers' else _without_machine(value) for key, value in part.items()
                if key not in CACHE}
    return [_without_machine(value) for value in part] if isinstance(part, list | tuple) else part


def digest(*content: Any) -> str:
    """Return ten hexadecimal digits: the same for the same content, whatever the order of keywords."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=repr).encode()).hexdigest()[:10]


def check_files(cell: Cell, work_dir: str) -> None:
    """Check a cell's files on this machine, as a run would; no image may be in two of train, val and test.

    Raises:
        OSError, ValueError: See :func:`mmspt.engine.checks.check_config`, :func:`mmspt.search.splits.check_overlap`.
    """
    trial = Config.fromstring(cell.trial_config, '.py')
    final = None if cell.final_config is None else Config.fromstring(cell.final_config, '.py')
    trial.work_dir = work_dir
    check_config(trial)
    with DefaultScope.overwrite_default_scope(trial.get('default_scope', 'mmpretrain')):
        check_overlap(trial, final)
