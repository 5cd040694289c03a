"""Which results are seeds of one setting, and which are comparable with the benchmark's."""
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mmspt.datasets.tasks import TASKS

from .result import Result

UNSAID = 'default'  # a key that a recipe lacks, which is not None


class Run(NamedTuple):
    """A finished run."""
    folder: str
    result: Result
    note: str | None = None
    """For the reader of its result."""


def find_caveat(result: Result) -> str | None:
    """Return why a result is not comparable with the benchmark's; None if it is."""
    task = TASKS.get(result.task)
    if result.leak:
        return result.leak
    if (result.trained_on or {}).get('split') == 'test':
        return "trained on the split 'test'"
    if task is not None and result.split != 'test':
        return f"tested on the split '{result.split}', not on 'test'"
    if task is not None and result.num_images != task.sizes['test']:
        return f"tested on {result.num_images:,} images of the benchmark's {task.sizes['test']:,}"
    return 'with test-time augmentation' if result.tta else None


def split_settings(runs: list[Run]) -> list[list[Run]]:
    """Group the runs of one task by setting."""
    settings: dict[tuple, list[Run]] = defaultdict(list)
    for run in runs:
        r = run.result
        trained = _text([r.recipe, r.resumed])
        settings[r.config or '', trained, r.leak or '', r.split or '', r.num_images, r.tta].append(run)
    return [settings[key] for key in sorted(settings)]


def _text(plain: Any) -> str:
    return json.dumps(plain, sort_keys=True)


def name_setting(setting: Sequence[Run], settings: Sequence[Sequence[Run]]) -> str:
    """Name a setting by its config and its differences from other settings of its config and task."""
    result = setting[0].result
    rivals = [members for members in settings if members[0].result.config == result.config]
    differ = differing_keys([members[0].result.recipe for members in rivals if members[0].result.recipe is not None])
    parts = [] if result.recipe is None else name_values(result.recipe, differ[:3])
    if len({members[0].result.split for members in rivals}) > 1:
        parts.append(f'split {result.split}')
    if len({members[0].result.num_images for members in rivals}) > 1:
        parts.append(f'{result.num_images:,} images')
    if result.resumed:
        parts.append('resumed with other settings')
    if result.leak:
        parts.append('trained on its test')
    if result.tta:
        parts.append('TTA')
    if len(differ) > 3:  # the three that are named may be the same in another setting
        parts.append(f'... ({next(i for i, members in enumerate(rivals, 1) if members is setting)})')
    return ' '.join([result.config or 'no config', *parts])


def differing_keys(recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Dotted keys of settings that not all recipes share, sorted."""
    return [key for key in sorted(set().union(*recipes))
            if len({_text({key: r.get(key, UNSAID)}) for r in recipes}) > 1]


def name_values(recipe: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    """Return texts like 'optimizer.lr=0.05', each key by its last two names, without places in lists."""
    short = {key: '.'.join([part for part in key.split('.') if not part.isdigit()][-2:]) for key in keys}
    return [f'{name}={recipe.get(key, UNSAID)}' for key, name in short.items()]
