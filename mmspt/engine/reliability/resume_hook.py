"""Resume from a checkpoint as if nothing had happened."""
import json
import operator
import os.path as osp
from collections.abc import Iterator
from itertools import islice
from typing import Any

from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import Sampler

from mmspt.config import name_classes
from mmspt.evaluation.description import recipe_of
from mmspt.registry import HOOKS

from .last_checkpoint import find_latest, named_checkpoint
from .resumed_settings import compare, describe, follow, progress, refuse

EPOCH_LENGTH = 'mmspt_epoch_length'
RECIPE = 'mmspt_recipe'  # in a checkpoint, and in the message hub of a run with nothing left to train
RESUMED = 'mmspt_resumed'  # both read by ResultHook
VALIDATED = 'mmspt_validated'


@HOOKS.register_module()
class ResumeHook(Hook):
    """Add what MMEngine's ``--resume`` lacks; a run that is not resumed is left alone.

    * The latest checkpoint is searched in the work directory, so a moved one is found, and a file that is cut off is
      skipped.
    * A checkpoint from the middle of an epoch (:class:`PreemptionHook` saves them) goes on with the next batch.
    * The validation that was due after the checkpoint, and may have been cut short, is done (again) first.
    * With another number of iterations an epoch (other processes or batch size) the run goes on from the same share of
      its epochs, and its schedules with it.
    * What the config changes beside the length of an epoch is obeyed from there on, or refused by name; the log and the
      run's record name it.
    """
    priority = 'LOWEST'  # validates when all other hooks are ready

    def __init__(self) -> None:
        self._recipe: dict[str, Any] = {}
        self._changes: dict[str, list] = {}
        self._trained: dict[str, Any] | None = None  # recipe of a run with nothing left to train

    def before_run(self, runner: Runner) -> None:
        """Choose the checkpoint for a bare ``--resume``."""
        recipe = recipe_of(name_classes(runner.cfg), dist.get_world_size())
        self._recipe = json.loads(json.dumps(recipe))  # a checkpoint is read without unpickling anybody's class
        if not runner._resume or runner._load_from is not None:
            return
        path = find_latest(runner.work_dir)
        if path is not None:
            runner._load_from = path
            runner.logger.info(f'Resuming from {path}')
        elif not named_checkpoint(runner.work_dir):
            runner._resume = False
            runner.logger.info(f"No checkpoint in '{runner.work_dir}' yet: the run begins anew")

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save the recipe and the number of iterations an epoch."""
        checkpoint['meta'][RECIPE] = self._recipe
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            checkpoint['meta'][EPOCH_LENGTH] = len(runner.train_dataloader)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Convert the position to epochs of another length, before MMEngine reads it; drop ``meta['config']``, which
        MMEngine would evaluate as Python (it writes ``meta['cfg']`` itself).

        Raises:
            ValueError: The checkpoint has no position in a training, or the config changes what cannot be obeyed.
        """
        (checkpoint.get('meta') or {}).pop('config', None)
        if not runner._resume:
            return
        meta = checkpoint.get('meta', {})
        epoch, done = meta.get('epoch'), meta.get('iter')
        if epoch is None or done is None:
            raise ValueError(f"'{runner._load_from}' has no position to resume from (epoch={epoch!r}, iter={done!r}): "
                             'to begin with its weights, name it in load_from without --resume')
        before = meta.get(RECIPE)  # absent from MMEngine's own checkpoints
        over = operator.eq(*progress(runner, meta)[1:])
        changes = compare(before, self._recipe) if before else {}
        refuse(runner, checkpoint, changes)
        if isinstance(runner._train_loop, EpochBasedTrainLoop):
            self._convert_position(runner, meta)
        schedules = any(key.startswith('param_scheduler') for key in changes)
        found = follow(runner, checkpoint, meta['iter'] != done, schedules)
        if not before:
            refuse(runner, checkpoint, found)
        self._changes, self._trained = ({}, before) if over else (changes if before else found, None)
        if self._changes:
            runner.logger.warning(f'Resumed with other settings from epoch {epoch}, iteration {meta["iter"]} on: '
                                  f'{describe(self._changes)}')

    def _convert_position(self, runner: Runner, meta: dict[str, Any]) -> None:
        epoch, done = meta['epoch'], meta['iter']
        length = len(runner.train_dataloader)
        # MMEngine's own checkpoints lack the length: those of epochs have whole epochs, those of iterations may not
        whole = epoch and done % epoch == 0 and not osp.basename(runner._load_from).startswith('iter_')
        saved = meta.get(EPOCH_LENGTH) or (done // epoch if whole else 0) or length
        begun = done - epoch * saved  # iterations of the epoch that was cut short
        if saved != length:
            begun = int(begun * length / saved)
            runner.logger.warning(f'Resumed with {length} iterations an epoch instead of {saved:g}: the run goes on '
                                  f'from epoch {epoch}, iteration {begun} of the next')
        if begun and not _can_skip(runner.train_dataloader):
            runner.logger.warning(f'{type(runner.train_dataloader.batch_sampler).__name__} cannot begin in the middle '
                                  'of an epoch: the epoch that was cut short begins anew')
            begun = 0
        meta['iter'] = epoch * length + begun

    def before_train(self, runner: Runner) -> None:
        """Record what changed; validate if the checkpoint was saved before its validation was over."""
        if self._trained:
            runner.message_hub.update_info(RECIPE, self._trained)
        if self._changes:
            part = dict(epoch=runner.epoch, iteration=runner.iter, changed=self._changes)
            runner.message_hub.update_info(RESUMED, [*runner.message_hub.get_info(RESUMED, []), part])
        loop = runner.train_loop
        moment = _moment(runner)
        if not moment or runner.val_loop is None or runner.message_hub.get_info(VALIDATED, 0) >= moment:
            return
        loop._decide_current_val_interval()
        end = runner.max_epochs if isinstance(loop, EpochBasedTrainLoop) else runner.max_iters
        if moment >= loop.val_begin and (moment % loop.val_interval == 0 or moment == end):
            runner.logger.info('The validation after this checkpoint is done first')
            runner.val_loop.run()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Record that this validation is over."""
        if runner._train_loop is not None and not isinstance(runner._train_loop, dict):
            runner.message_hub.update_info(VALIDATED, _moment(runner))

    def before_train_epoch(self, runner: Runner) -> None:
        """Skip the batches that were trained on before the run was cut short, in that epoch alone."""
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            return  # MMEngine's other loop skips them itself
        loader = runner.train_dataloader
        begun = runner.iter - runner.epoch * len(loader)
        batches = loader.batch_sampler
        if isinstance(getattr(batches, 'sampler', None), _Rest):  # MMEngine skips after_train_epoch after an error
            batches.sampler = loader.sampler
        if begun and _can_skip(loader):
            batches.sampler = _Rest(loader.sampler, begun * batches.batch_size)


class _Rest(Sampler):
    """The indices of another sampler without the first ``start``; its length is the whole epoch's, for MMEngine."""

    def __init__(self, sampler: Any, start: int) -> None:
        self.sampler, self.start = sampler, start

    def __iter__(self) -> Iterator:
        return islice(iter(self.sampler), self.start, None)

    def __len__(self) -> int:
        return len(self.sampler)


def _can_skip(loader: Any) -> bool:
    batches = loader.batch_sampler
    return getattr(batches, 'sampler', None) is loader.sampler and hasattr(batches, 'batch_size')


def _moment(runner: Runner) -> int:
    """Epochs done, or iterations where the run counts these."""
    return runner.epoch if isinstance(runner.train_loop, EpochBasedTrainLoop) else runner.iter
