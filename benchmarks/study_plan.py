"""What the study of docs/results.md runs: its cells, in the order of their worth, and the commands behind each."""
import os.path as osp
import shlex
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
BACKBONES = dict(mae='MAE', mocov3='MoCo-v3')
TASKS = dict(flowers17_area_32='Flowers-17', cifar10_1k='CIFAR-10-1k', digits_32='digits',
             flowers17_area_64='Flowers-17, 64 px')
TEST_IMAGES = dict(flowers17_area_32=340, cifar10_1k=10_000, digits_32=500, flowers17_area_64=340)
SIZES = dict(flowers17_area_64=64)
"""Pixels, where they are not the backbone's own 32: positions are resized."""
INITIALIZER = 'custom_hooks.0.initializer.type=mmspt.'


class Method(NamedTuple):
    """A way to tune: a recipe of configs/study and what is changed of it."""
    config: str
    options: tuple[str, ...] = ()
    prompts: bool = True
    """Whether it has any, so that their number can vary."""
    search: tuple[str, ...] = ()
    """Replaces the recipe's own space."""


METHODS = {
    'Linear': Method('linear', prompts=False),
    'Full': Method('finetune', prompts=False),
    'VPT-Deep': Method('vpt'),
    'SPT-Deep, random sample': Method('spt'),
    'SPT-Deep, K-means': Method('spt', (f'{INITIALIZER}KMeansInit', )),
    'SPT-Deep, mean': Method('spt', (f'{INITIALIZER}MeanPoolInit', )),
    'SPT-Deep, max': Method('spt', (f'{INITIALIZER}MaxPoolInit', )),
    'VPT-Shallow': Method('vpt_shallow'),
    'SPT-Shallow, random sample': Method('spt_shallow'),
    'SPT-Shallow, K-means': Method('spt_shallow', (f'{INITIALIZER}KMeansInit', )),
    'SPT-Shallow, mean': Method('spt_shallow', (f'{INITIALIZER}MeanPoolInit', )),
    'SPT-Shallow, max': Method('spt_shallow', (f'{INITIALIZER}MaxPoolInit', )),
    'GateVPT': Method('gatevpt'),
    'VIPAMIN-Deep': Method('vipamin'),
}
PAPER = tuple(METHODS)
OWN_RATE = 'optim_wrapper.paramwise_cfg.custom_keys.prompts.lr_mult'
PAIR = {'VPT-Deep': 'vpt', 'SPT-Deep, random sample': 'spt'}
METHODS |= {f'{name}, own rate': Method(config, (f'{OWN_RATE}=10', ),
                                        search=('lr=0.01,0.03,0.1', f'{OWN_RATE}=10,100'))
            for name, config in PAIR.items()}
METHODS |= {'VPT-Deep, long': Method('vpt', (f'{INITIALIZER}NormalInit', 'custom_hooks.0.initializer.std=tokens')),
            'SPT-Deep, random sample, short': Method('spt', ('custom_hooks.0.initializer.norm=1.2', ))}
METHODS |= {f'{name}, {change}': Method(config, options) for change, options in {
    'no decay': ('optim_wrapper.optimizer.weight_decay=0', ),
    'not pooled': ('model.backbone.pool_prompts=False', ),
    '100 epochs': ('train_cfg.max_epochs=100', 'param_scheduler.end=100', 'param_scheduler.warmup=10'),
}.items() for name, config in PAIR.items()}
LONG = tuple(name for name in METHODS if '100 epochs' in name)
CONTROLS = tuple(name for name in METHODS if name not in PAPER)
"""Beyond the paper, to find out why, on photographs with MAE alone: prompts at 10 or 100 times the head's rate; normal
prompts as long as tokens, which hold nothing else of them; tokens as short as VPT's prompts (sqrt(2 D / (3 p^2 + D)) =
1.2); prompts that do not decay; prompts that are left out of the mean which the head reads; five times the epochs."""
FIRST = ('VPT-Deep', 'SPT-Deep, random sample', 'SPT-Deep, K-means', 'Linear', 'Full')
WATCHED = tuple(name for name in METHODS if 'Deep' in name and name not in CONTROLS)
"""Their best setting is trained on train with two seeds more, validated after every epoch: how fast they converge."""
COUNTS = (5, 50, 100)


class Budget(NamedTuple):
    """How much is spent on a cell, the same for every method."""
    trials: int = 6
    seeds: int = 3
    options: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    """Replaces the recipes' and the methods' own space."""


FULL = Budget()
QUICK = Budget(
    trials=2, seeds=1,
    options=('train_cfg.max_epochs=5', 'param_scheduler.end=5', 'param_scheduler.warmup=1'),
    search=('lr=0.03,0.3', ))


class Cell(NamedTuple):
    """One number of the tables: a method on a task with a backbone."""
    backbone: str
    task: str
    method: str
    num_prompts: int = 20

    @property
    def name(self) -> str:
        """As files are named."""
        method = self.method.lower().replace(', ', '-').replace(' ', '-')
        count = f'_{self.num_prompts}' if METHODS[self.method].prompts else ''
        return f'{self.backbone}_{self.task}_{method}{count}'

    @property
    def title(self) -> str:
        """For people."""
        count = f', {self.num_prompts} prompts' if METHODS[self.method].prompts else ''
        return f'{BACKBONES[self.backbone]}, {TASKS[self.task]}: {self.method}{count}'

    @property
    def checkpoint(self) -> str:
        """Path of the backbone's weights."""
        return osp.join(ROOT, 'configs', 'pretrain', f'vit-8x128_{self.backbone}_cifar10.safetensors')

    @property
    def config(self) -> str:
        """Path of the recipe, from the project's root."""
        return f'configs/study/{METHODS[self.method].config}.py'

    @property
    def environment(self) -> dict[str, str]:
        """Variables that choose the recipe's backbone and task."""
        return dict(MMSPT_BACKBONE=self.backbone, MMSPT_TASK=self.task)

    def options(self, budget: Budget = FULL) -> list[str]:
        """What is changed of the recipe."""
        method = METHODS[self.method]
        options = [*method.options, *budget.options]
        if method.prompts and self.num_prompts != 20:
            options.append(f'model.backbone.num_prompts={self.num_prompts}')
        if self.task in SIZES:
            options.append(f'model.backbone.img_size={SIZES[self.task]}')
        return ['--cfg-options', *options] if options else []

    def arguments(self, budget: Budget = FULL) -> list[str]:
        """Of tools/sweep.py."""
        search = budget.search or METHODS[self.method].search
        # no trial is ended early: a large rate is behind in the middle of a schedule, and may be ahead at its end
        return [self.config, '--trials', str(budget.trials), '--seeds', str(budget.seeds), '--prune-after', '99',
                *(('--search', *search) if search else ()), *self.options(budget)]

    def command(self, budget: Budget = FULL) -> str:
        """What does the same by hand, in a folder of its own."""
        folder = f'work_dirs/by_hand/{self.name}' + (f'_{budget.trials}' if budget.trials != FULL.trials else '')
        return self._by_hand('sweep', *self.arguments(budget), '--work-dir', folder)

    def test_command(self, checkpoint: str) -> str:
        """What tests a tuned model of this cell."""
        return self._by_hand('test', self.config, checkpoint, *self.options())

    def _by_hand(self, tool: str, *arguments: str) -> str:
        variables = ' '.join(f'{key}={value}' for key, value in self.environment.items())
        return f'{variables} python tools/{tool}.py {shlex.join(arguments)}'


def cells() -> list[Cell]:
    """All of them, without repetition: MAE on two tasks, what the issue's budget is for, then the rest."""
    return list(dict.fromkeys(_ordered()))


def _ordered() -> Iterator[Cell]:
    photographs = ('flowers17_area_32', 'cifar10_1k')
    yield from (Cell('mae', task, method) for method, task in product(FIRST, photographs))
    yield from (Cell('mocov3', task, method) for method, task in product(FIRST, photographs))
    yield from (Cell('mae', task, method) for task, method in product(photographs, (*CONTROLS, *METHODS))
                if method not in LONG)
    prompted = ('VPT-Deep', 'SPT-Deep, random sample', 'SPT-Deep, K-means')
    yield from (Cell('mae', task, method, count) for task, count, method in product(photographs, COUNTS, prompted))
    yield from (Cell('mae', 'digits_32', method) for method in PAPER)
    yield from (Cell('mae', 'digits_32', method, count) for count, method in product(COUNTS, prompted))
    small = tuple(task for task in TASKS if task not in SIZES)
    yield from (Cell('mocov3', task, method) for task, method in product(small, PAPER))
    yield from (Cell('mocov3', task, method, count) for task, count, method in product(small, COUNTS, prompted))
    yield from (Cell(backbone, task, method) for backbone, task, method in product(BACKBONES, SIZES, FIRST))
    yield from (Cell('mae', task, method) for task, method in product(photographs, LONG))


def quick_cells() -> list[Cell]:
    """A form of minutes: the three that the paper is about, on the smaller task."""
    return [Cell('mae', 'flowers17_area_32', method) for method in ('Linear', 'VPT-Deep', 'SPT-Deep, random sample')]
