"""Moments of a training at which a process is disturbed: run in the process before the training begins."""
import importlib
import os
import signal
import time
from types import ModuleType

LOOPS = 'mmengine.runner.loops'
HOOKS = 'mmspt.engine.hooks'

STAGES = {  # name: (module, attribute, the call at which the process dies, before it or after)
    'data': ('mmengine.dataset', 'BaseDataset.full_init', 2, 'before'),
    'tokens': ('mmpretrain.models', 'ClsDataPreprocessor.forward', 1, 'after'),
    'initial prompts': (HOOKS, 'PromptInitHook.before_train', 1, 'after'),
    'first step': (LOOPS, 'EpochBasedTrainLoop.run_iter', 1, 'before'),
    'mid-epoch': (LOOPS, 'EpochBasedTrainLoop.run_iter', 5, 'after'),
    'next but one iteration': (LOOPS, 'EpochBasedTrainLoop.run_iter', 5, 'before'),
    'iteration': (LOOPS, 'IterBasedTrainLoop.run_iter', 5, 'before'),
    'next iteration': (LOOPS, 'EpochBasedTrainLoop.run_iter', 1, 'before'),
    'in epoch 3': (LOOPS, 'EpochBasedTrainLoop.run_iter', 8, 'before'),
    **{f'file {call} not renamed': ('os', 'replace', call, 'before') for call in range(1, 7)},
    'last_checkpoint not written': ('mmengine.runner', 'Runner.save_checkpoint', 4, 'after'),
    **{f'outdated {call} not removed': (HOOKS, 'CheckpointHook._remove_outdated', call, 'before')
       for call in range(2, 7)},
    'validation': (LOOPS, 'ValLoop.run_iter', 3, 'before'),
    'last validation': (LOOPS, 'ValLoop.run_iter', 8, 'before'),
    'best checkpoint': (HOOKS, 'CheckpointHook._save_best_checkpoint', 2, 'before'),
    'after the last epoch': (LOOPS, 'EpochBasedTrainLoop.run_epoch', 4, 'after'),
    'test': (LOOPS, 'TestLoop.run_iter', 1, 'after'),
    'end': (HOOKS, 'ResultHook.after_train', 1, 'after'),
}


def die_at(stage: str, number: int = signal.SIGKILL, rank: int | None = None) -> None:
    """Send this process a signal at a stage of its training, if it has this rank; 0 is an error instead."""
    if rank is not None and os.environ['RANK'] != str(rank):
        return
    module, attribute, call, when = STAGES[stage]
    owner: type | ModuleType = importlib.import_module(module)
    *parents, name = attribute.split('.')
    for parent in parents:
        owner = getattr(owner, parent)
    function, calls = getattr(owner, name), 0

    def dying(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == call and when == 'before':
            die(number)
        result = function(*args, **kwargs)
        if calls == call and when == 'after':
            die(number)
        return result

    setattr(owner, name, dying)


def die(number: int) -> None:
    if not number:
        raise ZeroDivisionError('an error in the middle of a training')
    os.kill(os.getpid(), number)


def take_time() -> None:
    """Half a second for each step, so that a test can do something meanwhile."""
    from mmengine.hooks import IterTimerHook

    after = IterTimerHook.after_train_iter

    def slow(*args, **kwargs):
        time.sleep(0.5)
        after(*args, **kwargs)

    IterTimerHook.after_train_iter = slow
