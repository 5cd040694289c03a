"""Runs of tools/train.py side by side, one on each worker; none outlives the search."""
import ctypes
import os
import os.path as osp
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import IO, Any, Protocol

import torch


class Stopped(SystemExit):
    """Ctrl-C or SIGTERM: end the runs, then the tool."""


def stop_on_signals() -> None:
    """Let Ctrl-C and SIGTERM raise :class:`Stopped`, so that the runs are ended first."""
    def stop(number: int, frame: Any) -> None:
        raise Stopped(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


class Stoppable(Protocol):
    """What can be ended."""

    def stop(self) -> None: ...


LIBC = ctypes.CDLL(None) if sys.platform == 'linux' else None


class TrainProcess:
    """One run of tools/train.py.

    Args:
        command (Sequence[str]): Interpreter, script and arguments.
        log (str): File to which the command and its output are appended.
        env (dict[str, str]): Variables added to our environment.
        cwd (str | None): Where it runs. Defaults to None, our own directory.
    """

    def __init__(self, command: Sequence[str], log: str, env: dict[str, str], cwd: str | None = None) -> None:
        self.command, self.log = list(command), log
        os.makedirs(osp.dirname(log), exist_ok=True)
        self._output: IO[bytes] = open(log, 'ab')  # noqa: SIM115 (open as long as the run)
        self._output.write(f'$ {shlex.join(self.command)}\n'.encode())
        self._output.flush()
        self._process = subprocess.Popen(
            self.command, stdout=self._output, stderr=subprocess.STDOUT, env=os.environ | env, stdin=subprocess.DEVNULL,
            cwd=cwd, start_new_session=True, preexec_fn=end_with_us())

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""
        return self._process.poll()

    def stop(self, patience: float = 10.) -> None:
        """End the run and its data loader's workers: SIGTERM, and after ``patience`` seconds SIGKILL.

        On Windows the run ends at once, and its workers when they find it gone.
        """
        for sign in ('SIGTERM', 'SIGKILL'):
            if self._process.poll() is not None:
                break
            try:
                if hasattr(os, 'killpg'):
                    os.killpg(self._process.pid, signal.Signals[sign])
                else:
                    self._process.terminate()
                self._process.wait(patience)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        self._output.close()

    def tail(self, lines: int = 12) -> str:
        """Return the last lines of its output."""
        with open(self.log, encoding='utf-8', errors='replace') as file:
            return ''.join(file.readlines()[-lines:]).strip()


def stop_all(processes: Sequence[Stoppable]) -> None:
    """End runs at once, side by side: each may finish an iteration and save."""
    if processes:
        with ThreadPoolExecutor(len(processes)) as pool:
            list(pool.map(lambda process: process.stop(), processes))


def end_with_us() -> Callable[[], None] | None:
    """Return a ``preexec_fn`` for Popen, by which the child is killed when this process ends; None outside Linux."""
    return partial(_die_with, os.getpid()) if LIBC else None


def _die_with(parent: int) -> None:
    LIBC.prctl(1, signal.SIGKILL)  # type: ignore[union-attr]  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it died before
        os._exit(1)


def worker_environments(workers: int | None) -> list[dict[str, str]]:
    """Return each worker's environment: GPUs in turn, or a share of the threads. None: a worker a GPU, or one."""
    gpus = torch.cuda.device_count()
    count = workers or max(gpus, 1)
    if gpus:
        visible = os.environ.get('CUDA_VISIBLE_DEVICES')
        names = visible.split(',')[:gpus] if visible else [str(i) for i in range(gpus)]
        return [dict(CUDA_VISIBLE_DEVICES=names[i % gpus]) for i in range(count)]
    threads = str(max(1, (os.cpu_count() or 1) // count))
    return [dict(OMP_NUM_THREADS=os.environ.get('OMP_NUM_THREADS', threads)) for _ in range(count)]
