"""The cells that benchmarks/study.yml plans."""
import os.path as osp
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import mmengine

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
PLAN: dict[str, Any] = mmengine.load(osp.join(ROOT, 'benchmarks', 'study.yml'))
BACKBONES: dict[str, str] = PLAN['backbones']
TASKS: dict[str, str] = {name: task['title'] for name, task in PLAN['tasks'].items()}
TEST_IMAGES: dict[str, int] = {name: task['test_images'] for name, task in PLAN['tasks'].items()}
METHODS: dict[str, dict[str, Any]] = PLAN['methods'] | PLAN['controls']
NUM_PROMPTS = 20  # of the recipes in configs/study


class Cell(NamedTuple):
    """One number of the tables: a method on a task with a backbone."""
    backbone: str
    task: str
    method: str
    num_prompts: int = NUM_PROMPTS

    @property
    def name(self) -> str:
        """Name of its files."""
        method = self.method.lower().replace(', ', '-').replace(' ', '-')
        count = f'_{self.num_prompts}' if METHODS[self.method].get('prompts', True) else ''
        return f'{self.backbone}_{self.task}_{method}{count}'

    @property
    def checkpoint(self) -> str:
        """Path of the backbone's weights."""
        return osp.join(ROOT, PLAN['checkpoint'].format(backbone=self.backbone))

    @property
    def config(self) -> str:
        """Path of the recipe, from the project's root."""
        return f'configs/study/{METHODS[self.method]["config"]}.py'

    @property
    def environment(self) -> dict[str, str]:
        """Variables that choose the recipe's backbone and task."""
        return dict(MMSPT_BACKBONE=self.backbone, MMSPT_TASK=self.task)

    @property
    def options(self) -> list[str]:
        """What --cfg-options changes of the recipe."""
        count = [f'model.backbone.num_prompts={self.num_prompts}'] * (self.num_prompts != NUM_PROMPTS)
        return [*METHODS[self.method].get('options', []), *count, *PLAN['tasks'][self.task].get('options', [])]


def cells() -> list[Cell]:
    """Return every planned cell once, in the plan's order."""
    return list(dict.fromkeys(_ordered()))


def _ordered() -> Iterator[Cell]:
    for group in PLAN['cells']:
        methods = group['methods']
        names = PLAN[methods] if isinstance(methods, str) else methods
        yield from map(Cell._make, product(
            group['backbones'], group['tasks'], names, group.get('num_prompts', [NUM_PROMPTS])))
