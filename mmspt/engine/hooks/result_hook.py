"""Test a run when its training ends, and write its result to the work directory."""
import os
import os.path as osp
import re
from collections.abc import Mapping
from typing import Any

import mmengine
import mmpretrain
import torch
from mmengine import dist
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import BaseLoop, Runner

import mmspt
from mmspt.config import name_classes
from mmspt.datasets.overlap import count_shared
from mmspt.evaluation import RESULT_FILE, Result, describe_run, plain_metrics, read_result, set_aside, write_result
from mmspt.evaluation.description import recipe_of
from mmspt.registry import HOOKS

from ..checks import check_data_folder, check_labels
from ..model import unwrap
from ..optimizers.paramwise import check_paramwise
from ..reliability.resume_hook import RECIPE, RESUMED
from ..reliability.resumed_settings import compare, describe
from ..training_images import seeded
from .class_names_hook import checks_labels

ACTS = re.compile(r'data_preprocessor\.(mean|std|to_rgb)|model\.(neck|backbone)(?!.*(init_cfg|frozen|random|drop))')
"""Of a recipe's keys: those that act when nothing is trained."""


@HOOKS.register_module()
class ResultHook(Hook):
    """Write ``result.json`` to the work directory after every test, and test once when training ends.

    The last weights are tested, never the best on the test set. Before training the test set is built and its labels
    are checked, so that an error in it is found before work is lost. A run without a test loader is left alone. Neither
    a mere test (``tools/test.py``) nor an unfinished training replaces a finished training's result. A result of
    another recipe or seed is renamed to ``result.1.json`` and so on.

    Args:
        after_train (bool): Whether training ends with a test; False leaves testing to ``tools/test.py``.
            Defaults to True.

    Raises:
        OSError, ValueError: Before training, a test set that cannot be read or does not fit the head, or an option of
            ``paramwise_cfg`` that does nothing.
    """
    priority = 'NORMAL'  # as a default hook before PromptInitHook, which comes from custom_hooks

    def __init__(self, after_train: bool = True) -> None:
        self.after_training = after_train
        self._loaded: dict[str, Any] | None = None  # meta of the checkpoint whose weights the model has

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember the epoch and seed of the weights; say what a test changes of their normalization and network."""
        self._loaded = checkpoint.get('meta') or {}
        if isinstance(runner._train_loop, BaseLoop):
            return
        differ = differences(self._loaded.get(RECIPE), name_classes(runner.cfg))
        if differ:
            runner.logger.warning(f"'{runner._load_from}' was trained otherwise than it is tested: {describe(differ)}. "
                                  'Set these as in training, unless you mean to change them')

    def before_train(self, runner: Runner) -> None:
        """Build the test loop and check its labels; check that what the record will state acts."""
        self._loaded = None
        check_paramwise(runner.cfg.get('optim_wrapper') or {})
        if not self.after_training or runner._test_loop is None:
            return
        dataset = (runner.cfg.get('test_dataloader') or {}).get('dataset')
        try:
            if isinstance(dataset, dict):
                check_data_folder(dataset, 'test_dataloader')
            with seeded():  # the run's random numbers are those of a run without a test
                loop = runner.test_loop
            if not checks_labels(runner):
                check_labels(loop.dataloader.dataset, unwrap(runner.model))
        except (OSError, ValueError) as error:
            kind = next(kind for kind in (FileNotFoundError, OSError, ValueError) if isinstance(error, kind))
            raise kind(f'{error} (training ends with a test; to train without one, set '
                       'default_hooks.result.after_train=False)') from error

    def after_train(self, runner: Runner) -> None:
        """Test the last weights."""
        if self.after_training and runner._test_loop is not None:
            runner.test_loop.run()

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the result, on rank 0."""
        if not dist.is_main_process():
            return
        path = osp.join(runner.work_dir, RESULT_FILE)
        try:
            plain = plain_metrics(metrics)
        except ValueError as error:
            runner.logger.warning(f'{RESULT_FILE} is not written: {error}')
            return
        result = make_result(runner, plain, self._loaded)
        kept = _finished(path)
        if kept is not None and (not result.finished or (result.trained_on is None and kept.trained_on is not None)):
            runner.logger.warning(f"'{path}' keeps its finished result ({kept.progress}, {kept.checkpoint}), not this "
                                  f'one ({result.progress}); to replace it, delete it first, or name another '
                                  '--work-dir')
            return
        if kept is not None and (kept.recipe, kept.seed) != (result.recipe, result.seed):
            aside = set_aside(path)
            runner.logger.warning(f"'{path}' was of another recipe or seed; it is kept as '{aside}', which no report "
                                  'counts; name another --work-dir for each')
        os.makedirs(runner.work_dir, exist_ok=True)
        write_result(result, path)
        if result.leak:
            runner.logger.warning(f'This run was {result.leak}')
        runner.logger.info(f"Result of {result.progress} written to '{path}'")


def differences(before: Mapping[str, Any] | None, cfg: Mapping[str, Any]) -> dict[str, list]:
    """Return dotted key -> [in a checkpoint's recipe, in a config] of what changes a network's answers."""
    model = cfg.get('model') or {}
    own = recipe_of({**cfg, 'model': model.get('module') or model})  # of test-time augmentation
    return {key: pair for key, pair in compare(before, own).items() if ACTS.match(key)} if before else {}


def make_result(runner: Runner, metrics: dict[str, Any], loaded: dict[str, Any] | None) -> Result:
    """Build the record of a test; ``loaded`` is the ``meta`` of the checkpoint that was tested, None after training."""
    trained = loaded is None and isinstance(runner._train_loop, BaseLoop)
    at = dict(epoch=runner.epoch, iter=runner.iter, seed=runner.seed) if trained else loaded or {}
    plan = runner.cfg.get('train_cfg') or {}
    iterations = plan.get('max_iters') is not None
    reached, wanted = at.get('iter' if iterations else 'epoch'), plan.get('max_iters' if iterations else 'max_epochs')
    stopped = trained and getattr(runner.train_loop, 'stop_training', False)  # by EarlyStoppingHook and the like
    tested = runner.test_loop.dataloader.dataset
    description = describe_run(runner.cfg, trained, dist.get_world_size(), unwrap(runner.model))
    if trained:  # a resumed run may have had nothing left to train
        description['recipe'] = runner.message_hub.get_info(RECIPE, None) or description['recipe']
    shared = count_shared(runner.train_dataloader.dataset, tested) if trained else None
    if shared is not None:  # the images tell more than the config
        description['trained_on'].pop('tested', None)
        description['trained_on'].update(dict(tested=shared) if shared else {})
    return Result(
        **description,
        num_images=len(tested),
        seed=at.get('seed', runner.seed),
        epoch=None if iterations else reached,
        max_epochs=None if iterations else wanted,
        iteration=reached if iterations else None,
        max_iters=wanted if iterations else None,
        resumed=runner.message_hub.get_info(RESUMED, None) if trained else None,
        finished=stopped or (wanted is not None and reached == wanted),
        metrics=metrics,
        checkpoint=_saved(runner) if trained else runner._load_from,
        versions=dict(mmspt=mmspt.__version__, torch=torch.__version__, mmengine=mmengine.__version__,
                      mmpretrain=mmpretrain.__version__))


def _saved(runner: Runner) -> str | None:
    """Return the name of the checkpoint that holds the current weights, if one was saved."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            name = hook.filename_tmpl.format(runner.epoch if hook.by_epoch else runner.iter)
            return name if hook.file_backend.exists(hook.file_backend.join_path(hook.out_dir, name)) else None
    return None


def _finished(path: str) -> Result | None:
    try:
        result = read_result(path)
    except (OSError, ValueError):
        return None
    return result if result.finished else None
