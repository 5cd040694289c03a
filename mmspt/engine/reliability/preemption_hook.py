"""Save a checkpoint and exit when the cluster asks for it."""
import os
import os.path as osp
import signal
import threading
import time
import weakref
from collections.abc import Sequence
from functools import partial
from types import FrameType
from typing import Any

import torch
from mmengine import dist
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, Runner

from mmspt.files import atomic_backend, write_text
from mmspt.registry import HOOKS

from .last_checkpoint import named_checkpoint
from .saving import check_finite_weights, without_frozen_weights
from .worker_signals import ignore_job_signals

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: not finished, try again."""
INTERRUPTED = 'interrupted.pth'
PATIENCE = 25.
"""Seconds that a run has to end after a signal, before the next one ends it."""


@HOOKS.register_module()
class PreemptionHook(Hook):
    """On SIGTERM, which Slurm sends before it takes a job's nodes, save a checkpoint and exit with code 75.

    The hook finishes the current iteration, with its accumulated gradients, saves ``interrupted.pth`` and names it in
    ``last_checkpoint``, so the same command with ``--resume`` goes on with the next batch (:class:`ResumeHook`). A
    validation or test stops after the current batch and is done again; with several processes, or with MMEngine's
    EMAHook, which swaps weights meanwhile, after the last batch. Before the first iteration, and right after a
    checkpoint, there is nothing to save. Several processes exchange one number every ``agree_every`` iterations, so a
    signal to one process is enough. A run that does not end within ``PATIENCE`` seconds is ended by the next signal.
    After the run, also one that raised, a signal goes to the earlier handler.

    Args:
        signals (Sequence[str]): Names of the signals; ``('SIGTERM', 'SIGUSR1')`` goes with
            ``#SBATCH --signal=USR1@60``. Defaults to ``('SIGTERM', )``.
        agree_every (int): Iterations between the exchanges of several processes; a single process checks after every
            iteration. Defaults to 10.

    Raises:
        ValueError: An unknown signal, or ``agree_every`` is no positive whole number.
        SystemExit: With code 75, after a signal.
    """
    priority = 'LOWEST'  # after the checkpoint that is due in the same iteration

    def __init__(self, signals: Sequence[str] = ('SIGTERM', ), agree_every: int = 10) -> None:
        if isinstance(signals, str) or not set(signals) <= set(signal.Signals.__members__):
            raise ValueError(f"signals must be a list of names such as ['SIGTERM'], got {signals!r}")
        if type(agree_every) is not int or agree_every < 1:
            raise ValueError(f'agree_every must be a whole number of at least 1, got {agree_every!r}')
        self.signals = [signal.Signals[name] for name in signals]
        self.agree_every = agree_every
        self._earlier: dict[int, Any] = {}  # the handlers that ours replace
        self._run: Any = None  # weak reference to the runner whose train, val or test installed our handlers
        self._asked = False
        self._asked_at = 0.
        self._training = False
        self._whole_validations = False
        self._saved = -1  # iterations done when the last checkpoint to resume from was saved

    def before_run(self, runner: Runner) -> None:
        """Install the handlers if this is the main thread; Python allows it in no other."""
        self._asked = self._training = False
        if threading.current_thread() is threading.main_thread():
            self._restore_handlers()  # of an earlier run that raised
            self._run = weakref.ref(runner)
            self._earlier = {number: signal.signal(number, self._on_signal) for number in self.signals}

    def after_run(self, runner: Runner) -> None:
        """Restore the earlier handlers; MMEngine does not call it if the run raised."""
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        while self._earlier:
            signal.signal(*self._earlier.popitem())

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        hangs = self._asked and time.monotonic() - self._asked_at > PATIENCE
        if hangs or not self._is_running(frame):
            self._restore_handlers()
            os.kill(os.getpid(), number)
        elif not self._training:
            raise SystemExit(EXIT_CODE)
        elif not self._asked:
            self._asked, self._asked_at = True, time.monotonic()

    def _is_running(self, frame: FrameType | None) -> bool:
        """Whether the run's train, val or test is among the calls that the signal interrupted."""
        runner = self._run()
        while runner is not None and frame is not None:
            if frame.f_code.co_name in ('train', 'val', 'test') and frame.f_locals.get('self') is runner:
                return True
            frame = frame.f_back
        return False

    def before_train(self, runner: Runner) -> None:
        """From now on there is something to save; the loaders' workers, which get the signal too, must not die."""
        self._training = True
        self._whole_validations = dist.get_world_size() > 1 or any(isinstance(hook, EMAHook) for hook in runner.hooks)
        for loop in (runner.train_loop, runner.val_loop, runner._test_loop):
            if isinstance(loop, BaseLoop):
                loop.dataloader.worker_init_fn = partial(ignore_job_signals, signals=self.signals,
                                                         init=loop.dataloader.worker_init_fn)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Record the iteration of a checkpoint that can be resumed from."""
        if 'optimizer' in checkpoint:
            self._saved = checkpoint['meta']['iter']

    def after_train(self, runner: Runner) -> None:
        """Exit if asked: the last checkpoint and the result are written."""
        self._training = False
        self._remove_replaced(runner)
        if self._agreed():
            raise SystemExit(EXIT_CODE)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict | None = None) -> None:
        """Save and exit after this iteration, if asked and if no accumulated gradients wait for the next."""
        wrapper = runner.optim_wrapper
        waiting = isinstance(wrapper, OptimWrapper) and not wrapper.should_update()
        if not waiting and self._agreed(runner.iter + 1):
            self._save_and_exit(runner, runner.iter + 1)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Save what was trained and exit, if asked."""
        if self._training and not self._whole_validations and self._asked:
            self._save_and_exit(runner, runner.iter)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Save and exit, if asked: all processes are together again."""
        if self._training and self._agreed():
            self._save_and_exit(runner, runner.iter)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """As in a validation."""
        self.after_val_iter(runner, batch_idx)

    def after_train_epoch(self, runner: Runner) -> None:
        """Remove ``interrupted.pth`` once a later checkpoint has replaced it."""
        self._remove_replaced(runner)

    def _agreed(self, count: int = 0) -> bool:
        """Whether to exit; several processes decide together, where ``count`` is a multiple of ``agree_every``."""
        if dist.get_world_size() == 1:
            return self._asked
        if count % self.agree_every:
            return False
        asked = torch.tensor(int(self._asked))
        dist.all_reduce(asked, 'max')
        return bool(asked)

    def _save_and_exit(self, runner: Runner, iterations: int) -> None:
        """Save the state after ``iterations`` and exit."""
        path = osp.join(runner.work_dir, INTERRUPTED)
        if dist.is_main_process() and self._saved != iterations:
            check_finite_weights(runner)
            with without_frozen_weights(runner):
                runner.save_checkpoint(runner.work_dir, INTERRUPTED, meta=dict(epoch=runner.epoch, iter=iterations),
                                       backend_args=atomic_backend(runner.work_dir))
            write_text(osp.join(runner.work_dir, 'last_checkpoint'), path)
            runner.logger.info(f"Saved '{path}'")
        runner.logger.warning(f'Asked to stop after iteration {iterations}, which is saved: the same command with '
                              '--resume goes on from there')
        dist.barrier()  # a process that exits first would take the others down before the file is written
        raise SystemExit(EXIT_CODE)

    def _remove_replaced(self, runner: Runner) -> None:
        path, named = osp.join(runner.work_dir, INTERRUPTED), named_checkpoint(runner.work_dir)
        if dist.is_main_process() and osp.isfile(path) and osp.basename(named) != INTERRUPTED and osp.isfile(named):
            os.remove(path)
