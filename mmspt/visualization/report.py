"""All pictures, results, settings and environments of some runs, in the order of the report's page."""
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

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

    ``images`` are for attention, by default the first two of validation, or of the test; ``num_images`` for prototypes.

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
    yield '', 'Accuracy and loss', partial(draw_curves, runs)
    if prompted:
        yield '', 'Mutual information of prompts and patches', partial(draw_nmi, prompted)
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
    """Put results, pictures (of :func:`draw_all`), settings and environments in order."""
    groups, found = group_runs(runs), find_runs(run.folder for run in runs)
    sections: list[Section] = [('Results', _results(found)),
                               ('Training', [item for name, item in drawn if not name])]
    results = {run.folder: run.result for run in found.runs}
    rows = []
    for name, members in groups.items():
        items = [item for setting, item in drawn if setting == name]
        if items:
            which = f'Of {members[0].folder}' + (f', one of {len(members)} seeds.' if len(members) > 1 else '.')
            sections.append((f'Prompts of {name}', [which, *items]))
        for run in members:
            result = results.get(run.folder)
            done = ['', '', 'unfinished'] if result is None else [
                str(result.seed), result.progress, f'{result.metrics[METRIC]:.2f}']
            rows.append([run.folder, str(run.description['config']), name, *done])
    table = Table(['folder', 'config', 'setting', 'seed', 'weights', 'test accuracy (%)'], rows)
    return [*sections, ('Runs', [table]), ('Settings', _settings(groups)), ('Environment', _environments(runs))]


def _results(found: Found) -> list[str | Table]:
    items: list[str | Table] = []
    for table in build_tables(found.runs):
        items += [f'{table.group}: top-1 accuracy (%), of the last weights, tested once; ± is the sample standard '
                  'deviation over seeds.', Table(*grid(table)), *table.notes]
    items += [f'{folder}: {lacks}. Remedy: {remedy}' for folder, lacks, remedy in found.unfinished]
    items += [f'{folder}: without a test.' for folder in found.untested]
    return items


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
    keys = dict.fromkeys(key for items in columns for key, _ in items)
    if not keys:
        return ['No log of these runs has it.']
    header = ['all runs'] if len(columns) == 1 else [
        ', '.join(folders[:3]) + (f' and {len(folders) - 3} more' if len(folders) > 3 else '')
        for folders in columns.values()]
    return [Table(['', *header], [[key, *(dict(items).get(key, 'not said') for items in columns)] for key in keys])]
