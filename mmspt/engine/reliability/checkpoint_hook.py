"""Save checkpoints so that the last good one survives a kill, a full disk and a diverged training."""
import os.path as osp
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mmengine import dist
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.runner import Runner

from mmspt.files import atomic_backend, clear_unfinished, write_text
from mmspt.registry import HOOKS

from .disk import explain_disk_errors
from .saving import check_finite_weights, without_frozen_weights


def is_number(value: Any) -> bool:
    """Return whether a metric is one number, which can be compared; a confusion matrix and values by class are not."""
    return isinstance(value, int | float) or getattr(value, 'ndim', None) == 0


def find_best_metric(hook: MMEngineCheckpointHook, metrics: Mapping[str, Any]) -> str | None:
    """Return the first metric that ``save_best='auto'`` can follow: a number whose better direction is known."""
    keys = [key.lower() for key in (*hook.greater_keys, *hook.less_keys)]
    ours = isinstance(hook, CheckpointHook)
    return next((name for name, value in (list(metrics.items()) if ours else list(metrics.items())[:1])
                 if is_number(value) and (hook.rules != [None] or any(key in name.lower() for key in keys))), None)


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """MMEngine's hook, which removes a checkpoint only after the next is whole, and need not save the frozen backbone.

    MMEngine's removes the outdated checkpoint (or the last best) first; this one after the new one was written and
    ``last_checkpoint`` names it. It writes atomically. Trained weights that are not finite are not saved.
    ``save_best='auto'`` follows the first metric that is one number; recall and f1-score count as better if greater.

    Args:
        *args: As in MMEngine.
        save_frozen (bool): Whether checkpoints hold the frozen weights of a :class:`.FrozenViT`. False leaves them to
            ``init_cfg``'s checkpoint, which is read, and compared by its fingerprint, when weights are loaded. Weights
            that it would not restore are saved all the same. Defaults to True.
        **kwargs: As in MMEngine.

    Raises:
        FloatingPointError: Trained weights hold NaN or infinity.
        OSError: The checkpoint cannot be written; the message names the last good one.
    """
    out_dir: Any  # MMEngine sets these in before_train
    file_backend: Any
    best_ckpt_path: Any
    best_ckpt_path_dict: Any
    last_ckpt: Any
    keep_ckpt_ids: Any
    backend_args: Any
    _default_greater_keys = [*MMEngineCheckpointHook._default_greater_keys, 'recall', 'f1']
    _steps: Sequence[int] = ()  # steps whose files exist when a checkpoint is written

    def __init__(self, *args: Any, save_frozen: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.save_frozen = save_frozen

    def before_train(self, runner: Runner) -> None:
        """Remove half-written files of a kill. Look for earlier checkpoints in this folder: the run may have moved."""
        if self.backend_args is None and self.file_client_args is None:
            self.backend_args = atomic_backend(self.out_dir or runner.work_dir)
        super().before_train(runner)
        self.file_backend = _RemoveLater(self.file_backend)
        if dist.is_main_process():
            for folder in {self.out_dir, runner.work_dir}:
                clear_unfinished(folder)
        info = runner.message_hub.runtime_info
        for name, path in info.items():
            if path and name.startswith(('last_ckpt', 'best_ckpt')):
                info[name] = self.file_backend.join_path(self.out_dir, osp.basename(path))
        if runner.iter > 0:
            self.last_ckpt = info.get('last_ckpt')
        if self.save_best is None:
            return
        if len(self.key_indicators) == 1:
            self.best_ckpt_path = info.get('best_ckpt')
        else:
            self.best_ckpt_path_dict = {key: info.get(f'best_ckpt_{key}') for key in self.key_indicators}

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """MMEngine's steps in another order: save, name it in ``last_checkpoint``, remove the outdated."""
        self._remove_outdated(runner)  # the previous best, before a checkpoint that does not know it is saved
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
        with self._saving(runner):
            runner.save_checkpoint(
                self.out_dir, self.filename_tmpl.format(step), self.file_client_args, self.save_optimizer,
                self.save_param_scheduler, meta=meta, by_epoch=self.by_epoch, backend_args=self.backend_args,
                **self.args)
            if dist.is_main_process():
                write_text(osp.join(runner.work_dir, 'last_checkpoint'), self.last_ckpt)

    def _path(self, step: int) -> str:
        return self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Record the outdated checkpoints that still exist: MMEngine removes them if a kill prevents it here."""
        if self._steps:
            checkpoint['message_hub']['runtime_info']['keep_ckpt_ids'] = list(self._steps)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if self.save_best and 'auto' in self.key_indicators:
            best = find_best_metric(self, metrics)
            if best is None:
                runner.logger.warning(f"save_best='auto' finds no number among {', '.join(metrics)}: no best "
                                      'checkpoint is saved')
                return
            self._init_rule(self.rules, [best])
        with self._saving(runner):
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _saving(self, runner: Runner) -> Iterator[None]:
        """Check the weights, save inside, and only then remove outdated files."""
        check_finite_weights(runner)
        with explain_disk_errors(runner.work_dir, self.out_dir, 'a checkpoint'), without_frozen_weights(runner):
            yield
        self._remove_outdated(runner)

    def _remove_outdated(self, runner: Runner) -> None:
        if dist.is_main_process():
            current = {path for name, path in runner.message_hub.runtime_info.items()
                       if name.startswith(('last_ckpt', 'best_ckpt'))}
            self.file_backend.remove_outdated(current)


class _RemoveLater:
    """A file backend that keeps what it is told to remove until :meth:`remove_outdated`."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._outdated: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self._outdated.append(path)

    def remove_outdated(self, current: set[str]) -> None:
        """Remove them, except paths that were written anew."""
        while self._outdated:
            path = self._outdated.pop()
            if path not in current and self._backend.isfile(path):
                self._backend.remove(path)
