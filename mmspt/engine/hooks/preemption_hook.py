"""Save and leave when the cluster asks for it."""
import os
import os.path as osp
import signal
import threading
import time
from collections.abc import Sequence
from typing import Any

import torch
from mmengine import dist
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, Runner

from mmspt.files import write_text
from mmspt.registry import HOOKS

from ..finite_weights import check_finite_weights
from ..frozen_left_out import frozen_left_out
from ..last_checkpoint import named_checkpoint
from ..patient_workers import PatientWorkers

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: not finished, try again."""
FILE_NAME = 'interrupted.pth'
PATIENCE = 25.
"""Seconds after a signal in which the same signal changes nothing; torchrun kills after 30."""


@HOOKS.register_module()
class PreemptionHook(Hook):
    """On SIGTERM, which Slurm sends before it takes a job's nodes, save a checkpoint and exit with code 75.

    The iteration at hand is finished, with its accumulated gradients, ``interrupted.pth`` saved, and
    ``last_checkpoint`` names it, so that the same command with ``--resume`` goes on with the next batch
    (:class:`ResumeHook`). A validation or test is left after the batch at hand and done again; with MMEngine's EMAHook,
    which swaps weights meanwhile, after the last. Before the first iteration, and right after a checkpoint, there is
    nothing to save. Several processes agree: every ``agree_every`` iterations they exchange one number, so one
    process's signal is enough. A process that does not end within ``PATIENCE`` seconds is ended by the next signal.

    Args:
        signals (Sequence[str]): Which signals; ``('SIGTERM', 'SIGUSR1')`` goes with ``#SBATCH --signal=USR1@60``.
            Defaults to ``('SIGTERM', )``.
        agree_every (int): Iterations between the exchanges of several processes; one process looks after every
            iteration. Defaults to 10.

    Raises:
        ValueError: An unknown signal, or ``agree_every`` is no positive whole number.
        SystemExit: With code 75, after a signal.
    """
    priority = 'LOWEST'  # after the checkpoint that is due in the same iteration

    def __init__(self, signals: Sequence[str] = ('SIGTERM', ), agree_every: int = 10) -> None:
        unknown = [name for name in signals if name not in signal.Signals.__members__]
        if isinstance(signals, str) or unknown:
            raise ValueError(f"signals must be a list of names such as 'SIGTERM', got {signals!r}")
        if type(agree_every) is not int or agree_every < 1:
            raise ValueError(f'agree_every must be a whole number of at least 1, got {agree_every!r}')
        self.signals = [signal.Signals[name] for name in signals]
        self.agree_every = agree_every
        self._before: dict[int, Any] = {}  # the handlers that were there
        self._asked = 0.  # when the first signal came
        self._training = False
        self._swaps = False
        self._common = 0  # batches that every process has
        self._saved = -1  # iterations done when the last checkpoint to resume from was saved

    def before_run(self, runner: Runner) -> None:
        """Listen, if this is the main thread, the only one that may."""
        self._asked, self._training = 0., False
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in self.signals}

    def after_run(self, runner: Runner) -> None:
        """Put the earlier handlers back."""
        while self._before:
            signal.signal(*self._before.popitem())

    def _hear(self, number: int, frame: Any) -> None:
        if not self._training:
            raise SystemExit(EXIT_CODE)
        if not self._asked:
            self._asked = time.monotonic()
        elif time.monotonic() - self._asked > PATIENCE:  # it hangs, or an error has ended the training
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def before_train(self, runner: Runner) -> None:
        """From now on there is something to save, and the loaders' workers, which get the signal too, must help."""
        self._training = True
        self._swaps = any(isinstance(hook, EMAHook) for hook in runner.hooks)
        loops = [runner.train_loop, runner.val_loop, runner._test_loop]
        for loop in loops:
            if isinstance(loop, BaseLoop):
                loop.dataloader.worker_init_fn = PatientWorkers(self.signals, loop.dataloader.worker_init_fn)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note what need not be saved again."""
        if 'optimizer' in checkpoint:
            self._saved = checkpoint['meta']['iter']

    def after_train(self, runner: Runner) -> None:
        """The last checkpoint and the result are written: leave now if asked."""
        self._training = False
        self._tidy_up(runner)
        if self._agreed():
            raise SystemExit(EXIT_CODE)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict | None = None) -> None:
        """Save and leave after this iteration, if asked and if no gradients wait for the next."""
        wrapper = runner.optim_wrapper
        waiting = isinstance(wrapper, OptimWrapper) and not wrapper.should_update()
        if not waiting and self._agreed(runner.iter + 1):
            self._leave(runner, runner.iter + 1)

    def before_val_epoch(self, runner: Runner) -> None:
        """Find out how many batches all processes have, after each of which they may agree."""
        self._common = self._fewest(runner.val_loop.dataloader)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Save what was trained and leave, if asked."""
        if self._training and not self._swaps and batch_idx < self._common and self._agreed(batch_idx + 1):
            self._leave(runner, runner.iter)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Do so at the latest when all processes are together again."""
        if self._training and self._agreed():
            self._leave(runner, runner.iter)

    def before_test_epoch(self, runner: Runner) -> None:
        """As before a validation."""
        self._common = self._fewest(runner.test_loop.dataloader)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """As in a validation."""
        self.after_val_iter(runner, batch_idx)

    def after_train_epoch(self, runner: Runner) -> None:
        """Remove the checkpoint of an interruption that a later one has replaced."""
        self._tidy_up(runner)

    def _fewest(self, loader: Any) -> int:
        count = torch.tensor(len(loader))
        dist.all_reduce(count, 'min')
        return int(count)

    def _agreed(self, count: int = 0) -> bool:
        """Whether to leave; several processes look together, where ``count`` is a multiple of ``agree_every``."""
        if dist.get_world_size() == 1:
            return self._asked > 0
        if count % self.agree_every:
            return False
        asked = torch.tensor(int(self._asked > 0))
        dist.all_reduce(asked, 'max')
        return bool(asked)

    def _leave(self, runner: Runner, iterations: int) -> None:
        """Save the state after ``iterations`` and exit."""
        path = osp.join(runner.work_dir, FILE_NAME)
        if dist.is_main_process() and self._saved != iterations:
            check_finite_weights(runner)
            with frozen_left_out(runner):
                runner.save_checkpoint(runner.work_dir, FILE_NAME, meta=dict(epoch=runner.epoch, iter=iterations))
            write_text(osp.join(runner.work_dir, 'last_checkpoint'), path)
            runner.logger.info(f"Saved '{path}'")
        runner.logger.warning(f'Asked to stop after iteration {iterations}, which is saved: the same command with '
                              '--resume goes on from there')
        dist.barrier()  # one that goes first would take the others down before the file is written
        raise SystemExit(EXIT_CODE)

    def _tidy_up(self, runner: Runner) -> None:
        path, named = osp.join(runner.work_dir, FILE_NAME), named_checkpoint(runner.work_dir)
        if dist.is_main_process() and osp.isfile(path) and osp.basename(named) != FILE_NAME and osp.isfile(named):
            os.remove(path)
