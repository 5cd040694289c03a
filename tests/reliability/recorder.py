"""Record what each process of a training saw: its losses, and its exchanges with the others."""
import json
import os
from collections import Counter
from math import prod

import torch
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmspt.engine.hooks import FiniteLossHook

COLLECTIVES, STEP = ('gloo:', 'nccl:'), 'a training step'


def record(folder: str) -> None:
    """Let this process write ``<folder>/<rank>.json``: losses by iteration, exchanges in and outside of iterations.

    An exchange is [collective, elements, times].
    """
    rank, losses = os.environ.get('RANK', '0'), []
    look, train, step = FiniteLossHook.after_train_iter, Runner.train, EpochBasedTrainLoop.run_iter

    def marked(self, *args):
        with torch.profiler.record_function(STEP):
            step(self, *args)

    def noting(self, runner, batch_idx, data_batch=None, outputs=None):
        losses.append(outputs['loss'].item())
        look(self, runner, batch_idx, data_batch, outputs)

    def profiled(self):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profiler:
            train(self)
        events = profiler.events()
        steps = [event.time_range for event in events if event.name == STEP]
        seen = dict(inside=Counter(), outside=Counter())
        for event in events:
            if event.name.startswith(COLLECTIVES):
                inside = any(span.start <= event.time_range.start <= span.end for span in steps)
                elements = sum(prod(shape) for shape in event.input_shapes)
                seen['inside' if inside else 'outside'][event.name, elements] += 1
        seen = {place: [[*key, times] for key, times in counter.items()] for place, counter in seen.items()}
        with open(os.path.join(folder, f'{rank}.json'), 'w', encoding='utf-8') as file:
            json.dump(dict(losses=losses, **seen), file)

    FiniteLossHook.after_train_iter = noting
    Runner.train = profiled
    EpochBasedTrainLoop.run_iter = marked


def remove_nothing_unless_first() -> None:
    """Let a process other than rank 0 fail if it removes a file."""
    remove = os.remove

    def refused(path, *args, **kwargs):
        if str(path).endswith('.pth'):
            raise ZeroDivisionError(f'rank {os.environ["RANK"]} removes {path}')
        remove(path, *args, **kwargs)

    if os.environ['RANK'] != '0':
        os.remove = refused
