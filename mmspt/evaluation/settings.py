"""Which results are seeds of one setting, and which may stand beside the benchmark's."""
import json
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from mmspt.datasets.tasks import TASKS

from .result import Result


class Run(NamedTuple):
    """A finished run."""
    folder: str
    result: Result


def why_apart(result: Result) -> str | None:
    """Say what keeps a result from standing beside the benchmark's; None if nothing does."""
    task = TASKS.get(result.task)
    if task is None:
        return 'with test-time augmentation' if result.tta else None
    if result.split != 'test':
        return f"tested on the split '{result.split}', not on 'test'"
    if result.num_images != task.sizes['test']:
        return f"tested on {result.num_images:,} images of the benchmark's {task.sizes['test']:,}"
    return 'with test-time augmentation' if result.tta else None


def part_settings(runs: list[Run]) -> list[list[Run]]:
    """Part the runs of one task into settings; a mere test has no recipe and goes with the only one of its config."""
    recipes: dict[str | None, set[str]] = defaultdict(set)
    for run in runs:
        if run.result.recipe is not None:
            recipes[run.result.config].add(_text(run.result.recipe))
    settings: dict[tuple, list[Run]] = defaultdict(list)
    for run in runs:
        r = run.result
        known = recipes[r.config]
        recipe = _text(r.recipe) if r.recipe is not None else next(iter(known)) if len(known) == 1 else ''
        settings[r.config or '', recipe, r.split or '', r.num_images, r.tta].append(run)
    return [settings[key] for key in sorted(settings)]


def _text(recipe: dict) -> str:
    return json.dumps(recipe, sort_keys=True)


def name_setting(setting: Sequence[Run], settings: Sequence[Sequence[Run]]) -> str:
    """Name a setting by its config and by what sets it apart from the others of its config and task."""
    result = setting[0].result
    rivals = [members for members in settings if members[0].result.config == result.config]
    recipes = [members[0].result.recipe or {} for members in rivals]
    differ = [key for key in sorted(set().union(*recipes)) if len({_text({key: r.get(key)}) for r in recipes}) > 1]
    parts = [f"{'.'.join(key.split('.')[-2:])}={(result.recipe or {}).get(key, 'unknown')}" for key in differ[:3]]
    if len({members[0].result.split for members in rivals}) > 1:
        parts.append(f'split {result.split}')
    if len({members[0].result.num_images for members in rivals}) > 1:
        parts.append(f'{result.num_images:,} images')
    if result.tta:
        parts.append('TTA')
    if len(differ) > 3:  # the three that are named may be the same in another setting
        parts.append(f'... ({next(i for i, members in enumerate(rivals, 1) if members is setting)})')
    return ' '.join([result.config or 'no config', *parts])
