"""Ways to die: run in the process before the training begins."""
import importlib
import os
import signal
import time
from types import ModuleType

LOOPS = 'mmengine.runner.loops'
HOOKS = 'mmspt.engine.hooks'

STAGES = {  # name: (module, attribute, the call at which the process dies, before it or after)
    'data': ('mmengine.dataset', 'BaseDataset.full_init', 2, 'before'),
    'tokens': (f'{HOOKS}.prompt_init_hook', 'collect_tokens', 1, 'after'),
    'initial prompts': (f'{HOOKS}.prompt_init_hook', 'save_prompts', 1, 'after'),
    'first step': (LOOPS, 'EpochBasedTrainLoop.run_iter', 1, 'before'),
    'mid-epoch': (LOOPS, 'EpochBasedTrainLoop.run_iter', 5, 'after'),
    'next but one iteration': (LOOPS, 'EpochBasedTrainLoop.run_iter', 5, 'before'),
    'iteration': (LOOPS, 'IterBasedTrainLoop.run_iter', 5, 'before'),
    'next iteration': (LOOPS, 'EpochBasedTrainLoop.run_iter', 1, 'before'),
    'end of an epoch': (LOOPS, 'EpochBasedTrainLoop.run_iter', 6, 'before'),
    'next epoch': (LOOPS, 'EpochBasedTrainLoop.run_epoch', 2, 'before'),
    'in epoch 3': (LOOPS, 'EpochBasedTrainLoop.run_iter', 8, 'before'),
    **{f'file {call} half written': ('mmspt.files', 'write_bytes', call, 'half') for call in range(1, 13)},
    'initial prompts half written': (f'{HOOKS}.prompt_init_hook', 'write_bytes', 1, 'half'),
    'checkpoint not renamed': ('os', 'replace', 6, 'before'),
    'last_checkpoint not written': ('mmengine.runner', 'Runner.save_checkpoint', 4, 'after'),
    **{f'outdated {call} not removed': (f'{HOOKS}.checkpoint_hook', '_RemoveLater.remove_outdated', call, 'before')
       for call in range(2, 9)},
    'validation': (LOOPS, 'ValLoop.run_iter', 3, 'before'),
    'last validation': (LOOPS, 'ValLoop.run_iter', 8, 'before'),
    'best checkpoint': (f'{HOOKS}.checkpoint_hook', 'CheckpointHook._save_best_checkpoint', 2, 'before'),
    'after the last epoch': (LOOPS, 'EpochBasedTrainLoop.run_epoch', 4, 'after'),
    'test': (LOOPS, 'TestLoop.run_iter', 1, 'after'),
    'result': (f'{HOOKS}.result_hook', 'write_result', 1, 'before'),
    'end': (f'{HOOKS}.result_hook', 'ResultHook.after_train', 1, 'after'),
}


def die_at(stage: str, number: int = signal.SIGKILL) -> None:
    """Let this process get a signal at a stage of its training; 0 is an error instead."""
    module, attribute, call, when = STAGES[stage]
    owner: type | ModuleType = importlib.import_module(module)
    *parents, name = attribute.split('.')
    for parent in parents:
        owner = getattr(owner, parent)
    function, calls = getattr(owner, name), 0

    def dying(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == call and when == 'half':
            path, content = args
            with open(f'{path}.0a1b2c3d.tmp', 'wb') as file:
                file.write(content[:len(content) // 2])
        if calls == call and when != 'after':
            die(number)
        result = function(*args, **kwargs)
        if calls == call and when == 'after':
            die(number)
        return result

    setattr(owner, name, dying)


def take_time() -> None:
    """Half a second for each step, so that a test can do something meanwhile."""
    from mmengine.hooks import IterTimerHook

    after = IterTimerHook.after_train_iter

    def slow(*args, **kwargs):
        time.sleep(0.5)
        after(*args, **kwargs)

    IterTimerHook.after_train_iter = slow


def die_as(rank: int, stage: str, number: int = signal.SIGKILL) -> None:
    """:func:`die_at` for one of several processes."""
    if os.environ['RANK'] == str(rank):
        die_at(stage, number)


def die(number: int) -> None:
    if not number:
        raise RuntimeError('an error in the middle of a training')
    os.kill(os.getpid(), number)
