"""Save checkpoints so that the last good one outlives a kill, a full disk and a diverged training."""
import os.path as osp
from collections import deque
from collections.abc import Sequence
from typing import Any

from mmengine import dist
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.runner import Runner

from mmspt.files import clear_unfinished, write_text
from mmspt.registry import HOOKS

from ..disk import explain
from ..finite_weights import check_finite_weights
from ..frozen_left_out import frozen_left_out


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """MMEngine's; it never lets go of a checkpoint before the next is whole, and need not save the frozen backbone.

    MMEngine's removes the outdated checkpoint (or the last best) first; this one after the new one was written and
    ``last_checkpoint`` names it. Trained weights that are not finite are not saved. (That a checkpoint is written
    beside and renamed is :class:`mmspt.files.LocalBackend`'s work.)

    Args:
        *args: MMEngine's.
        save_frozen (bool): Whether checkpoints hold the frozen weights of a :class:`.FrozenViT`. False leaves them to
            ``init_cfg``'s checkpoint, which is read, and compared by its fingerprint, when weights are loaded. What
            that checkpoint would not bring back is saved all the same. Defaults to True.
        **kwargs: MMEngine's.

    Raises:
        FloatingPointError: Trained weights hold NaN or infinity.
        OSError: The checkpoint cannot be written; the message names the last good one.
    """
    out_dir: Any  # MMEngine fills it in before_train
    file_backend: Any
    best_ckpt_path: Any
    best_ckpt_path_dict: Any
    last_ckpt: Any
    keep_ckpt_ids: Any
    _steps: Sequence[int] = ()  # those whose files are there when a checkpoint is written

    def __init__(self, *args: Any, save_frozen: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.save_frozen = save_frozen

    def before_train(self, runner: Runner) -> None:
        """Clear away what a kill left half-written. Forget best checkpoints of another folder: the run was moved."""
        super().before_train(runner)
        self.file_backend = _RemoveLater(self.file_backend)
        if dist.is_main_process():
            for folder in {self.out_dir, runner.work_dir}:
                clear_unfinished(folder)
        if runner.iter > 0:
            self.last_ckpt = self._here(runner.message_hub.get_info('last_ckpt'))
        if self.save_best is None:
            return
        if len(self.key_indicators) == 1:
            self.best_ckpt_path = self._here(self.best_ckpt_path)
        else:
            self.best_ckpt_path_dict = {key: self._here(path) for key, path in self.best_ckpt_path_dict.items()}

    def _here(self, path: str | None) -> str | None:
        return path and self.file_backend.join_path(self.out_dir, osp.basename(path))

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """MMEngine's, in another order: save, name it in ``last_checkpoint``, remove the outdated."""
        self._remove_outdated()  # the best before the one that was just saved, before a checkpoint forgets it
        self._steps = []
        if self.max_keep_ckpts > 0:
            self._steps = [kept for kept in self.keep_ckpt_ids if kept != step] + [step]
            self.keep_ckpt_ids = deque(self._steps, self.max_keep_ckpts)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
            if dist.is_main_process():
                for outdated in self._steps[:-self.max_keep_ckpts]:
                    self.file_backend.remove(self._path(outdated))
        self.last_ckpt = self._path(step)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        self._save(runner, self._write, step, meta)

    def _write(self, runner: Runner, step: int, meta: dict) -> None:
        runner.save_checkpoint(
            self.out_dir, self.filename_tmpl.format(step), self.file_client_args, self.save_optimizer,
            self.save_param_scheduler, meta=meta, by_epoch=self.by_epoch, backend_args=self.backend_args, **self.args)
        if dist.is_main_process():
            write_text(osp.join(runner.work_dir, 'last_checkpoint'), self._path(step))

    def _path(self, step: int) -> str:
        return self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Let the checkpoint know of the outdated ones that are still there: MMEngine removes them after a kill."""
        if self._steps:
            checkpoint['message_hub']['runtime_info']['keep_ckpt_ids'] = list(self._steps)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        self._save(runner, super()._save_best_checkpoint, metrics)

    def _save(self, runner: Runner, save: Any, *args: Any) -> None:
        """Look at the weights, save, and only then remove what is outdated."""
        check_finite_weights(runner)
        try:
            with frozen_left_out(runner):
                save(runner, *args)
        except OSError as error:
            if isinstance(error.__cause__, OSError):  # the best checkpoint's saving saves the last one again
                raise
            raise explain(error, self.out_dir, runner.work_dir, 'a checkpoint') from error
        self._remove_outdated()

    def _remove_outdated(self) -> None:
        best = [] if self.save_best is None else [self.best_ckpt_path] if len(self.key_indicators) == 1 else (
            self.best_ckpt_path_dict.values())
        if dist.is_main_process():
            self.file_backend.remove_outdated({self.last_ckpt, *best})


class _RemoveLater:
    """A file backend that keeps what it is told to remove until :meth:`remove_outdated`."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._outdated: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self._outdated.append(path)

    rmtree = remove  # checkpoints of DeepSpeed are folders

    def remove_outdated(self, current: set[str | None]) -> None:
        """Remove them, but not what was written anew under the same name."""
        while self._outdated:
            path = self._outdated.pop()
            if path in current:
                continue
            if self._backend.isdir(path):
                self._backend.rmtree(path)
            elif self._backend.isfile(path):
                self._backend.remove(path)
