"""Ways to die: run in the process before the training begins."""
import importlib
import os
import signal
from types import ModuleType

LOOPS = 'mmengine.runner.loops'
HOOKS = 'mmspt.engine.hooks'

STAGES = {  # name: (module, attribute, the call at which the process dies, before it or after)
    'data': ('mmengine.dataset', 'BaseDataset.full_init', 2, 'before'),
    'tokens': (f'{HOOKS}.prompt_init_hook', 'collect_tokens', 1, 'after'),
    'initial prompts': (f'{HOOKS}.prompt_init_hook', 'save_prompts', 1, 'after'),
    'first step': (LOOPS, 'EpochBasedTrainLoop.run_iter', 1, 'before'),
    'mid-epoch': (LOOPS, 'EpochBasedTrainLoop.run_iter', 5, 'after'),
    'in epoch 3': (LOOPS, 'EpochBasedTrainLoop.run_iter', 8, 'before'),
    **{f'file {call} half written': ('mmspt.files', 'write_bytes', call, 'half') for call in range(1, 8)},
    'initial prompts half written': (f'{HOOKS}.prompt_init_hook', 'write_bytes', 1, 'half'),
    'checkpoint not renamed': ('os', 'replace', 5, 'before'),
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


def die_as(rank: int, stage: str) -> None:
    """Kill one of several processes at a stage."""
    if os.environ['RANK'] == str(rank):
        die_at(stage)


def die(number: int) -> None:
    if not number:
        raise RuntimeError('an error in the middle of a training')
    os.kill(os.getpid(), number)
