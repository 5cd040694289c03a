"""All pictures, results, settings and environments of some runs, in the order of the report's page."""
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice

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


def draw_all(runs: Sequence[RunFolder], images: Sequence[str] = (),
             num_images: int | None = None) -> Iterator[tuple[str, Picture | Absent]]:
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


def _plan(runs: Sequence[RunFolder], images: Sequence[str],
          num_images: int | None) -> Iterator[tuple[str, str, Callable[[], Picture]]]:
    """Yield setting, title and function of each picture."""
    prompted = [run for run in runs if run.description['num_prompts']]
    yield '', 'Accuracy and loss', partial(draw_curves, runs, lenient=True)
    if prompted:
        yield '', 'Mutual information of prompts and patches', partial(draw_nmi, prompted, lenient=True)
    for name, (run, *_) in group_runs(runs).items():
        if run not in prompted:
            continue
        yield name, 'How far the prompts moved', partial(draw_drift, run)
        try:
            depth = len(run.tuned_prompts)
        except (OSError, ValueError, RuntimeError):
            depth = 1  # the pictures will say why
        for layer in sorted({1, (depth + 1) // 2, depth}):
            yield (name, f'What the prompts of block {layer} stand for',
                   partial(draw_prototypes, run, layer, num_images=num_images))
        yield name, 'Patches and prompts on a map', partial(draw_token_map, run)
        split = 'val' if run.config.get('val_dataloader') else 'test'
        for image in images or [f'{split}:{i}' for i in range(IMAGES)]:
            yield name, f'Attention, {image}', partial(draw_attention, run, image)


def lay_out(runs: Sequence[RunFolder], drawn: Sequence[tuple[str, Picture | Absent]]) -> list[Section]:
    """Put results, pictures, settings and environments in order.

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
        items += [f'{table.group}: top-1 accuracy (%), of the last weights, tested once; ± is the sample standard '
                  'deviation over seeds.', Table(*grid(table)), *table.notes]
    items += [f'{folder}: {lacks}. Remedy: {remedy}' for folder, lacks, remedy in found.unfinished]
    items += [f'{item.folder}: without a test.' for item in found.untested]
    return items


def _runs(groups: Mapping[str, Sequence[RunFolder]], found: Found) -> Table:
    results = {run.folder: run.result for run in found.runs}
    rows = []
    for name, run in ((name, run) for name, members in groups.items() for run in members):
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
    """Return a table with a column for each environment that differs from the others in more than the seed."""
    columns: dict[tuple, list[str]] = {}
    for run in runs:
        items = [(key, value) for key, value in read_environment(run.folder).items() if 'seed' not in key]
        columns.setdefault(tuple(items), []).append(run.folder)
    environments = [dict(items) for items in columns]
    keys = dict.fromkeys(key for environment in environments for key in environment)
    if not keys:
        return ['No log of these runs has it.']
    header = ['all runs'] if len(columns) == 1 else [
        ', '.join(islice(folders, 3)) + (f' and {len(folders) - 3} more' if len(folders) > 3 else '')
        for folders in columns.values()]
    return [Table(['', *header], [[key, *(environment.get(key, 'not said') for environment in environments)]
                                  for key in keys])]
