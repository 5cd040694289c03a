"""Data loader workers that outlive a signal to the whole job."""
import os
import signal
import threading
from collections.abc import Callable, Sequence


def ignore_job_signals(worker_id: int, signals: Sequence[int] = (signal.SIGTERM, ),
                       init: Callable[[int], None] | None = None) -> None:
    """Let a data loader's worker ignore these signals unless its parent sends them; a ``worker_init_fn``.

    A cluster sends SIGTERM to every process of a job. It would end the workers, and the training with them, before the
    training has saved a checkpoint. A worker still ends when its parent asks for it or is gone.

    Args:
        worker_id (int): Of the worker that calls it.
        signals (Sequence[int]): The signals. Defaults to SIGTERM.
        init (Callable | None): The loader's own ``worker_init_fn``. Defaults to None.
    """
    if hasattr(signal, 'sigwaitinfo'):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        threading.Thread(target=_exit_when_parent_asks, args=(signals, ), daemon=True).start()
    if init is not None:
        init(worker_id)


def _exit_when_parent_asks(signals: Sequence[int]) -> None:
    while signal.sigwaitinfo(signals).si_pid != os.getppid():
        pass
    os._exit(0)
