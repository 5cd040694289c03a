"""Loaders' workers that do not die of a signal that was meant for the whole job."""
import os
import signal
import threading
from collections.abc import Callable, Sequence


class PatientWorkers:
    """A ``worker_init_fn``: the worker heeds its parent's signals alone.

    A cluster's SIGTERM reaches every process of a job. torch's workers die of it, and the training with them, before it
    has saved. These end when their parent says so, or is gone.

    Args:
        signals (Sequence[int]): Which. Defaults to SIGTERM.
        init (Callable | None): The loader's own ``worker_init_fn``. Defaults to None.
    """

    def __init__(self, signals: Sequence[int] = (signal.SIGTERM, ), init: Callable[[int], None] | None = None) -> None:
        self.signals, self.init = signals, init

    def __call__(self, worker_id: int) -> None:
        if hasattr(signal, 'sigwaitinfo'):  # not on macOS
            signal.pthread_sigmask(signal.SIG_BLOCK, self.signals)
            threading.Thread(target=_heed_parent, args=(self.signals, ), daemon=True).start()
        if self.init is not None:
            self.init(worker_id)


def _heed_parent(signals: Sequence[int]) -> None:
    while signal.sigwaitinfo(signals).si_pid != os.getppid():
        pass
    os._exit(0)
