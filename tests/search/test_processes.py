"""Real processes: their output, their end, and that none outlives the search."""
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from helpers import ROOT
from mmspt.search.processes import TrainProcess, worker_environments

linux = pytest.mark.skipif(sys.platform != 'linux', reason='asks the Linux kernel to end children')


def start(tmp_path, code, **env):
    return TrainProcess([sys.executable, '-c', code], str(tmp_path / 'new' / 'log.txt'), env)


def wait_for(true, seconds=20.):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(0.01)


def printed(log):
    """The numbers in a log, each on a line."""
    return [line for line in log.read_text().splitlines() if line.isdigit()]


def alive(pid):
    """Neither gone nor a zombie."""
    try:
        with open(f'/proc/{pid}/stat', encoding='utf-8') as file:
            return file.read().rpartition(')')[2].split()[0] not in 'ZX'
    except FileNotFoundError:
        return False


@pytest.mark.parametrize('status', [0, 3])
def test_output_and_status(tmp_path, status):
    """Both streams, appended to what a run before this one wrote."""
    code = f'import os, sys\nfor i in range(30): print(i)\nsys.exit({status} or print(os.environ["X"]))'
    for _ in range(2):
        process = start(tmp_path, code, X='ours')
        wait_for(lambda process=process: process.poll() is not None)
        process.stop()
        assert process.poll() == status
    assert process.tail(2).splitlines()[-1] == ('29' if status else 'ours')
    lines = (tmp_path / 'new/log.txt').read_text().splitlines()
    assert lines.count('29') == 2
    assert lines[0].startswith(f'$ {sys.executable} -c ')  # what was run


@pytest.mark.parametrize('stubborn', [False, True])
@linux
def test_stop_ends_the_group(tmp_path, stubborn):
    """Children too, and one that does not listen."""
    ignore = 'signal.signal(signal.SIGTERM, signal.SIG_IGN)' if stubborn else ''
    process = start(tmp_path, f'import os, signal, time\n{ignore}\npid = os.fork()\nprint(os.getpid(), flush=True)\n'
                    'time.sleep(60)')
    log = tmp_path / 'new/log.txt'
    wait_for(lambda: len(printed(log)) == 2)
    process.stop(patience=0.3)
    assert process.poll() == -(signal.SIGKILL if stubborn else signal.SIGTERM)
    wait_for(lambda: not any(alive(pid) for pid in printed(log)))
    process.stop()  # a second time


@linux
def test_no_run_outlives_its_search(tmp_path):
    code = (f'import runpy, sys, time\n'
            f'TrainProcess = runpy.run_path({str(ROOT / "mmspt/search/processes.py")!r})["TrainProcess"]\n'
            f'TrainProcess([sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"], '
            f'{str(tmp_path / "log.txt")!r}, dict())\ntime.sleep(60)')
    search = subprocess.Popen([sys.executable, '-c', code])
    log = tmp_path / 'log.txt'
    wait_for(lambda: log.exists() and printed(log), 60)
    assert alive(printed(log)[0])
    search.kill()
    search.wait()
    wait_for(lambda: not alive(printed(log)[0]))


@pytest.mark.parametrize(('gpus', 'visible', 'workers', 'expected'), [
    (2, None, None, ['0', '1']), (2, '3,GPU-ab', 3, ['3', 'GPU-ab', '3']), (4, None, 2, ['0', '1'])])
def test_a_gpu_for_each_worker(monkeypatch, gpus, visible, workers, expected):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: gpus)
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    if visible is not None:
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
    assert worker_environments(workers) == [dict(CUDA_VISIBLE_DEVICES=name) for name in expected]


@pytest.mark.parametrize(('workers', 'threads', 'expected'), [
    (None, None, ['8']), (20, None, ['1'] * 20), (2, '3', ['3', '3'])])
def test_threads_are_shared_without_gpus(monkeypatch, workers, threads, expected):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    monkeypatch.setattr(os, 'cpu_count', lambda: 8)
    monkeypatch.delenv('OMP_NUM_THREADS')
    if threads is not None:
        monkeypatch.setenv('OMP_NUM_THREADS', threads)
    assert worker_environments(workers) == [dict(OMP_NUM_THREADS=count) for count in expected]
