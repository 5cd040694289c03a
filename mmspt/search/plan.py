"""A plan: tasks, checkpoints and methods, each combination a cell. MMEngine reads it as a config, with ``_base_``."""
import argparse
import os
import os.path as osp
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import product
from typing import Any, NamedTuple

from mmengine.config import Config, DictAction

from .cell import Budget, Cell, make_cell

PACKAGE = osp.dirname(osp.dirname(osp.abspath(__file__)))
AXES = ('checkpoints', 'tasks', 'methods')
BUDGET = ('trials', 'seeds', 'prune_after', 'curves', 'stop_within')
SHARED = ('config', 'options', 'search', 'environment', 'amp', *BUDGET)
"""Keys that a plan, a checkpoint, a task and a method may have; a method's count most, a plan's least; options add
up."""
KEYS = {*AXES, *SHARED, 'title', 'cells', 'metric', 'seed'}


class Plan(NamedTuple):
    """What a file plans."""
    name: str
    """Of the file."""
    title: str
    entries: list[dict[str, Any]]
    """Arguments of :func:`make`, one for each cell, in the order of their worth."""

    def cells(self) -> Iterator[Cell]:
        """Make the cells, one after the other.

        Raises:
            ValueError: A cell's config cannot be read or searched; the message names the cell.
        """
        for entry in self.entries:
            try:
                yield make(entry)
            except (OSError, ValueError, KeyError) as error:
                raise ValueError(f"every cell of a plan must have a config that can be searched, but '{entry['name']}' "
                                 f'of {self.name} has not: {error}') from error


def read_plan(path: str) -> Plan:
    """Read a plan.

    Its variables: ``tasks``, ``checkpoints`` and ``methods`` (name -> keys of :data:`SHARED`, ``title`` and fields for
    ``config``), ``config`` (path of a cell's config, relative to the plan's file, or 'mmspt::...', with fields such as
    {task}, {checkpoint} and those of the entries), ``cells`` (a list of groups with names of each; all combinations
    by default), and defaults for the keys of :data:`SHARED` and for fields.

    Raises:
        ValueError: A key that no plan has, or a group names a task, checkpoint or method that the plan has not.
    """
    content = Config.fromfile(path).to_dict()
    _check_keys(content, KEYS, path)
    axes: dict[str, dict[str, dict[str, Any]]] = {}
    for axis in AXES:
        entries = content.get(axis)
        if not isinstance(entries, Mapping) or not entries or not all(
                isinstance(entry, Mapping | None) for entry in entries.values()):
            raise ValueError(f'a plan must have {axis}, name -> keys, but {path} has {entries!r}: correct {axis}')
        axes[axis] = {str(name): dict(entry or {}) for name, entry in entries.items()}
        for name, entry in axes[axis].items():
            _check_keys(entry, {*SHARED, 'title'}, f"'{name}' of {path}")
    cells = list(dict.fromkeys(_combinations(content.get('cells') or [{}], axes, path)))
    entries = [_entry(cell, axes, content, path) for cell in cells]
    for what, of in (('folder', lambda entry: entry['name']), ('place in the table',
                                                               lambda entry: tuple(entry['titles'].values()))):
        twice = [value for value, number in Counter(map(of, entries)).items() if number > 1]
        if twice:
            raise ValueError(f'every cell of a plan must have a {what} of its own, but {path} has two with '
                             f'{twice[0]!r}: give one another name or title')
    name = osp.splitext(osp.basename(path))[0]
    return Plan(name, content.get('title', name), entries)


def _check_keys(content: Mapping[str, Any], known: set[str], where: str) -> None:
    """Raise ValueError for a misspelt key, and for values that are of no use."""
    for key, value in content.items():
        if key in ('options', 'search') and not (isinstance(value, list | tuple) and all(
                isinstance(text, str) and text.partition('=')[2] for text in value)):
            raise ValueError(f"{key} must be a list of texts KEY=VALUE, but {where} has {value!r}: correct it")
        if key in known:
            continue
        near = get_close_matches(key, known, 1, 0.75)
        if near or not isinstance(value, str):
            raise ValueError(f"a plan's variables must be fields, which are texts, or of {', '.join(sorted(known))}, "
                             f"but {where} has '{key}': {f'write {near[0]}' if near else 'take it out'}")


def _combinations(groups: Sequence[Mapping[str, Any]], axes: Mapping[str, Mapping[str, Any]],
                  path: str) -> Iterator[tuple[str, ...]]:
    for group in groups:
        for key, names in group.items():
            known = axes.get(key)
            unknown = [key] if known is None else [name for name in names if name not in known]
            if unknown:
                raise ValueError(f"a group of cells must name {', '.join(AXES)} of the plan, but {path} names "
                                 f"'{unknown[0]}'; known are {', '.join(known or AXES)}: correct it, or add it")
        yield from product(*(group.get(axis) or list(axes[axis]) for axis in AXES))


def _entry(cell: tuple[str, ...], axes: Mapping[str, Mapping[str, Any]], content: Mapping[str, Any],
           path: str) -> dict[str, Any]:
    """Merge what the plan, the checkpoint, the task and the method say of a cell."""
    own = [axes[axis][name] for axis, name in zip(AXES, cell, strict=True)]
    merged = {key: value for part in (content, *own) for key, value in part.items() if key not in KEYS - {*SHARED}}
    fields = merged | dict(zip(('checkpoint', 'task', 'method'), cell, strict=True))

    def fill(text: str) -> str:
        try:
            return text.format_map(fields)
        except (KeyError, ValueError, IndexError) as error:
            raise ValueError(f"a plan's fields must be given, but '{text}' of {path} names {error}, which "
                             f'{", ".join(cell)} do not have: add it to one of them') from error

    if 'config' not in merged:
        raise ValueError(f'a plan must say which config a cell has, but {path} does not: add config, a path relative '
                         'to the plan, such as ../{method}/vit-b_{checkpoint}_{task}.py')
    titles = [part.get('title', name) for part, name in zip(own, cell, strict=True)]
    return dict(
        name=osp.join(*map(slug, cell)),
        config=config_path(fill(merged['config']), path),
        options=[fill(option) for part in (content, *own) for option in part.get('options') or []],
        search=merged.get('search'), amp=merged.get('amp'),
        environment={key: fill(value) for key, value in (merged.get('environment') or {}).items()},
        metric=content.get('metric', 'accuracy/top1'), seed=content.get('seed', 0),
        budget={key: merged[key] for key in BUDGET if key in merged},
        titles=dict(checkpoint_title=titles[0], task_title=titles[1], method_title=titles[2]))


def make(entry: Mapping[str, Any]) -> Cell:
    """Make a cell of an entry of a plan."""
    options: dict[str, Any] = {}
    for option in entry['options']:
        key, _, value = option.partition('=')
        options[key] = read_value(value)
    with variables(entry['environment']):
        return make_cell(entry['config'], options, entry['search'], entry['name'], entry['metric'], entry['amp'],
                         entry['seed'], Budget(**entry['budget']), entry['titles'])


def config_path(config: str, plan: str) -> str:
    """Return the path of a cell's config: 'mmspt::...' is one of ours, any other is relative to the plan's file."""
    if not config.startswith('mmspt::'):
        return osp.normpath(osp.join(osp.dirname(plan), config))
    roots = (osp.join(PACKAGE, '.mim'), osp.dirname(PACKAGE))
    paths = [osp.join(root, 'configs', config.removeprefix('mmspt::')) for root in roots]
    return next(filter(osp.isfile, paths), paths[-1])


def read_value(text: str) -> Any:
    """Read a value as ``--cfg-options`` does."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--value', nargs=1, action=DictAction)
    return parser.parse_args(['--value', f'value={text}']).value['value']


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment, which configs may read, for a block."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


def slug(name: str) -> str:
    """Return a name as a part of a path: 'SPT-Deep, K-means' -> 'spt-deep-k-means'."""
    return re.sub(r'[^\w.]+', '-', name.lower()).strip('-')
