"""The package on a Python without what only Unix has."""
import os
import sys

import pytest

from helpers import ROOT, command, make_job

HIDE = """
import importlib, os, pkgutil, platform, re, signal, sys
platform.system = lambda: 'Windows'  # for MMEngine, which brings the package regex there
sys.modules['regex'] = re
os.environ['USERNAME'] = 'me'
for name in ('fcntl', 'resource', 'pwd', 'grp', 'termios'):
    sys.modules[name] = None  # an import raises ModuleNotFoundError, as there
for name in ('SIGKILL', 'SIGUSR1', 'SIGUSR2', 'SIGHUP', 'sigwaitinfo', 'pthread_sigmask'):
    delattr(signal, name)
for name in ('fork', 'killpg', 'sysconf', 'sched_getaffinity', 'setsid'):
    delattr(os, name)
os.fsync = lambda number, fsync=os.fsync: fsync(number if os.write(number, b'') == 0 else None)  # no read-only file
"""
LOOK = """
import mmspt
names = [module.name for module in pkgutil.walk_packages(mmspt.__path__, 'mmspt.')]
for name in names:
    importlib.import_module(name)
from mmspt.search import processes
processes.LIBC = None
trial = processes.TrainProcess([sys.executable, '-c', 'import time; time.sleep(60)'], sys.argv[1], {})
trial.stop()
print(len(names), trial.poll())
"""
TRAIN = """
import runpy
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def python(code, *args):
    return command(sys.executable, '-W', 'ignore', '-c', HIDE + code, *args)


def test_every_module_is_imported_and_a_trial_is_ended(tmp_path):
    modules, status = python(LOOK, tmp_path / 'log.txt').split()[-2:]
    assert int(modules) > 80 and int(status) != 0


@pytest.mark.slow
def test_a_run_trains_and_saves(tmp_path):
    job = make_job(tmp_path)
    python(TRAIN, ROOT / 'tools/train.py', job.config, '--work-dir', tmp_path / 'run',
           '--cfg-options', 'train_cfg.max_epochs=1', 'param_scheduler.end=1', 'param_scheduler.warmup=0')
    assert {'epoch_1.pth', 'initial_prompts.safetensors', 'result.json'} <= set(os.listdir(tmp_path / 'run'))
