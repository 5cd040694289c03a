"""Everything there is to see of some runs, on one page."""
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

from mmspt.evaluation import METRIC, Found, build_tables, find_runs
from mmspt.evaluation.environment import read_environment
from mmspt.evaluation.rendering import grid
from mmspt.evaluation.settings import UNSAID, differing_keys

from .attention import draw_attention
from .curves import draw_curves
from .drift import draw_drift
from .groups import group_runs
from .nmi import draw_nmi
from .page import Absent, Section, Table
from .picture import Picture
from .prototypes import draw_prototypes
from .run_folder import RunFolder
from .token_map import draw_token_map

IMAGES = 2
"""Validation images on which attention is shown unless others are named."""


def draw_all(runs: Sequence[RunFolder], images: Sequence[str] = (), num_images: int | None = None
             ) -> Iterator[tuple[str, Picture | Absent]]:
    """Draw every picture: curves and NMI of all runs, the others of the first run with prompts of each setting.

    Args:
        runs (Sequence[RunFolder]): One or more.
        images (Sequence[str]): For :func:`draw_attention`. Defaults to the first two of validation, or of the test.
        num_images (int | None): Training images to look through for prototypes; None is all. Defaults to None.

    Yields:
        tuple[str, Picture | Absent]: Name of the setting, '' for all, and the picture or why there is none.
    """
    for setting, title, draw in _plan(runs, images, num_images):
        try:
            yield setting, draw()
        except (OSError, ValueError, RuntimeError) as error:
            yield setting, Absent(title, str(error))


class _Job(NamedTuple):
    setting: str
    title: str
    draw: Callable[[], Picture]


def _plan(runs: Sequence[RunFolder], images: Sequence[str], num_images: int | None) -> Iterator[_Job]:
    prompted = [run for run in runs if run.description['num_prompts']]
    yield _Job('', 'Accuracy and loss', partial(draw_curves, runs, lenient=True))
    if prompted:
        yield _Job('', 'Mutual information of prompts and patches', partial(draw_nmi, prompted, lenient=True))
    for name, (run, *_) in group_runs(runs).items():
        if run not in prompted:
            continue
        yield _Job(name, 'How far the prompts moved', partial(draw_drift, run))
        depth = _own_layers(run)
        for layer in sorted({1, (depth + 1) // 2, depth}):
            yield _Job(name, f'What the prompts of block {layer} stand for',
                       partial(draw_prototypes, run, layer, num_images=num_images))
        yield _Job(name, 'Patches and prompts on a map', partial(draw_token_map, run))
        split = 'val' if run.config.get('val_dataloader') else 'test'
        for image in images or [f'{split}:{i}' for i in range(IMAGES)]:
            yield _Job(name, f'Attention, {image}', partial(draw_attention, run, image))


def _own_layers(run: RunFolder) -> int:
    """How many blocks have prompts of their own; 1 if the run cannot say, and its pictures will tell why."""
    try:
        return len(run.tuned_prompts)
    except (OSError, ValueError, RuntimeError):
        return 1


def lay_out(runs: Sequence[RunFolder], drawn: Sequence[tuple[str, Picture | Absent]]) -> list[Section]:
    """Put results, pictures, settings and environment in order.

    Args:
        runs (Sequence[RunFolder]): One or more.
        drawn (Sequence[tuple[str, Picture | Absent]]): As :func:`draw_all` yields them.
    """
    groups, found = group_runs(runs), find_runs(run.folder for run in runs)
    sections = [Section('Results', _results(found)),
                Section('Training', [item for name, item in drawn if not name])]
    for name, (run, *others) in groups.items():
        items = [item for setting, item in drawn if setting == name]
        if items:
            which = f'Of {run.folder}' + (f', one of {1 + len(others)} seeds.' if others else '.')
            sections.append(Section(f'Prompts of {name}', [which, *items]))
    return [*sections, Section('Runs', [_runs(groups, found)]), Section('Settings', _settings(groups)),
            Section('Environment', _environments(runs))]


def _results(found: Found) -> list[str | Table]:
    items: list[str | Table] = []
    for table in build_tables(found.runs):
        header, rows = grid(table)
        items += [f'{table.group}: top-1 accuracy (%), of the last weights, tested once; ± is the sample standard '
                  'deviation over seeds.', Table(header, rows), *table.notes]
    items += [f'{folder}: {lacks}. Remedy: {remedy}' for folder, lacks, remedy in found.unfinished]
    items += [f'{item.folder}: without a test.' for item in found.untested]
    return items


def _runs(groups: Mapping[str, Sequence[RunFolder]], found: Found) -> Table:
    results = {run.folder: run.result for run in found.runs}
    rows = []
    for name, members in groups.items():
        for run in members:
            result = results.get(run.folder)
            done = ['', '', 'unfinished'] if result is None else [
                str(result.seed), result.progress, f'{result.metrics[METRIC]:.2f}']
            rows.append([run.folder, str(run.description['config']), name, *done])
    return Table(['folder', 'config', 'setting', 'seed', 'weights', 'test accuracy (%)'], rows)


def _settings(groups: Mapping[str, Sequence[RunFolder]]) -> list[str | Table]:
    recipes = {name: members[0].description['recipe'] for name, members in groups.items()}
    differ = differing_keys(list(recipes.values()))
    items: list[str | Table] = []
    if differ:
        items += ['What differs between the settings:', Table(['key', *recipes], [
            [key, *(str(recipe.get(key, UNSAID)) for recipe in recipes.values())] for key in differ])]
    shared = [[key, str(value)] for key, value in next(iter(recipes.values())).items() if key not in differ]
    return [*items, 'What all share:', Table(['key', 'value'], shared)]


def _environments(runs: Sequence[RunFolder]) -> list[str | Table]:
    """A column for each environment that differs from the others in more than the seed."""
    columns: dict[tuple, list[str]] = {}
    for run in runs:
        environment = {key: value for key, value in read_environment(run.folder).items() if 'seed' not in key}
        columns.setdefault(tuple(environment.items()), []).append(run.folder)
    environments = [(dict(items), folders) for items, folders in columns.items()]
    keys = list(dict.fromkeys(key for environment, _ in environments for key in environment))
    if not keys:
        return ['No log of these runs tells it.']
    header = ['all runs'] if len(environments) == 1 else [
        ', '.join(islice(folders, 3)) + (f' and {len(folders) - 3} more' if len(folders) > 3 else '')
        for _, folders in environments]
    return [Table(['', *header], [[key, *(environment.get(key, 'not said') for environment, _ in environments)]
                                  for key in keys])]
