"""Run the tools in processes forked from one that has imported everything, so that they start at once."""
import gc
import multiprocessing
import os
import runpy
import signal
import socket
import sys
import time
from pathlib import Path

import torch
from mmengine.config import config
from mmengine.runner import runner

ROOT = Path(__file__).parents[1]
CONTEXT = multiprocessing.get_context('forkserver')
CONTEXT.set_forkserver_preload(['mmspt.models', 'mmspt.datasets', 'mmspt.engine.hooks', 'mmspt.engine.optimizers',
                                'mmspt.engine.schedulers', 'mmspt.prompts', 'mmpretrain.datasets', 'mmpretrain.models',
                                'mmpretrain.engine', 'mmpretrain.evaluation', 'mmpretrain.visualization',
                                'matplotlib.pyplot', 'torch.utils.tensorboard'])


def start(name, arguments, log, before=None, *given, environment=None, cwd=None):
    """Start ``tools/<name>`` in a process group of its own, its output in ``log``; ``before(*given)`` runs first.

    The exit code is the command's: 0, 1 after an error, -9 after a kill. An absolute path may stand for ``name``.
    """
    process = CONTEXT.Process(target=_run, args=(
        str(name), [str(argument) for argument in arguments], str(log), dict(os.environ, **(environment or {})), cwd,
        before, given))
    process.start()
    return process


def run(name, arguments, log, before=None, *given, seconds=300, **kwargs):
    """:func:`start`, and wait; return exit code and output."""
    process = start(name, arguments, log, before, *given, **kwargs)
    process.join(seconds)
    output = Path(log).read_text(errors='replace') if Path(log).exists() else ''
    if process.is_alive():
        kill_group(process)
        raise AssertionError(f'no end after {seconds} s:\n{output[-3000:]}')
    return process.exitcode, output


def train(arguments, log, before=None, *given):
    """:func:`run` of ``tools/train.py``."""
    return run('train.py', arguments, log, before, *given)


def train_ranks(world_size, arguments, log, before=None, *given, seconds=120):
    """:func:`train` on several processes, as torchrun starts them; return their exit codes and outputs."""
    return wait_for_ranks(start_ranks(world_size, arguments, log, before, *given), log, seconds)


def start_ranks(world_size, arguments, log, before=None, *given):
    """Start the processes; ``before`` finds RANK in the environment."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    common = dict(WORLD_SIZE=str(world_size), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    return [start('train.py', [*arguments, '--launcher', 'pytorch'], f'{log}.{rank}', before, *given,
                  environment=dict(common, RANK=str(rank), LOCAL_RANK=str(rank)))
            for rank in range(world_size)]


def wait_for_ranks(processes, log, seconds=120):
    """Wait for the end of all; return their exit codes and outputs."""
    end = time.monotonic() + seconds
    for process in processes:
        process.join(max(end - time.monotonic(), 0))
    outputs = [Path(f'{log}.{rank}').read_text() for rank in range(len(processes))]
    hanging = [rank for rank, process in enumerate(processes) if process.is_alive()]
    for rank in hanging:
        kill_group(processes[rank])
    assert not hanging, f'ranks {hanging} did not end within {seconds} s:\n{outputs[hanging[0]][-3000:]}'
    return [process.exitcode for process in processes], outputs


def kill_group(process, number=signal.SIGKILL):
    """Send a signal to the command and to its data loaders' workers, as a cluster does."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        os.kill(process.pid, number)  # before it had made its group
    if number == signal.SIGKILL:
        process.join()


def _run(name, arguments, log, environment, cwd, before, given):
    os.setpgid(0, 0)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd or os.getcwd())
    multiprocessing.set_start_method(None, force=True)  # the tool's own processes are started as ever
    gc.freeze()  # what was imported need not be searched for garbage each time a data set is built
    # YAPF takes longer than a tiny run, and so do the versions of compilers
    config.FormatCode = lambda text, **kwargs: (text, True)
    runner.collect_env = lambda: dict(Python=sys.version.replace('\n', ''), PyTorch=torch.__version__)
    path = ROOT / 'tools' / name
    sys.argv = [str(path), *arguments]
    sys.path[:0] = filter(None, environment.get('PYTHONPATH', '').split(os.pathsep))  # a user's own modules
    if before is not None:
        before(*given)
    runpy.run_path(str(path), run_name='__main__')
