"""Data loader workers that outlive a signal to the whole job."""
import os
import signal
import threading
from collections.abc import Callable, Sequence


class IgnoreJobSignals:
    """A ``worker_init_fn``: the worker ignores these signals unless its parent sends them.

    A cluster sends SIGTERM to every process of a job. It would end the workers, and the training with them, before the
    training has saved a checkpoint. A worker still ends when its parent asks for it or is gone.

    Args:
        signals (Sequence[int]): The signals. Defaults to SIGTERM.
        init (Callable | None): The loader's own ``worker_init_fn``. Defaults to None.
    """

    def __init__(self, signals: Sequence[int] = (signal.SIGTERM, ), init: Callable[[int], None] | None = None) -> None:
        self.signals, self.init = signals, init

    def __call__(self, worker_id: int) -> None:
        if hasattr(signal, 'sigwaitinfo'):  # not on macOS
            signal.pthread_sigmask(signal.SIG_BLOCK, self.signals)
            threading.Thread(target=_exit_when_parent_asks, args=(self.signals, ), daemon=True).start()
        if self.init is not None:
            self.init(worker_id)


def _exit_when_parent_asks(signals: Sequence[int]) -> None:
    while signal.sigwaitinfo(signals).si_pid != os.getppid():
        pass
    os._exit(0)
