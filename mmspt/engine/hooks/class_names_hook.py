"""Compare the class names of training, validation, test, checkpoint and head."""
from collections.abc import Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner
from mmpretrain.models import BaseRetriever

from mmspt.datasets.class_names import compare_names, find_folders, follow_names, moved_names, names_of, quote
from mmspt.datasets.custom import EXTENSIONS, scan_folders
from mmspt.datasets.nested_configs import parts
from mmspt.datasets.overlap import count_shared
from mmspt.registry import HOOKS

from ..checks import check_labels, check_loaded
from ..model import unwrap


def checks_labels(runner: Runner) -> bool:
    """Whether a run has :class:`ClassNamesHook`, so that other hooks need not read all labels once more."""
    return any(isinstance(hook, ClassNamesHook) for hook in runner.hooks)


@HOOKS.register_module()
class ClassNamesHook(Hook):
    """Make sure that a label means one class everywhere, before training and before a test.

    The names of the training set count: a validation or test set with others is an error, or is numbered anew if it is
    a :class:`mmspt.datasets.CustomDataset` of folders that lacks some of them. In a test, and in a resumed training,
    those in the checkpoint count. A checkpoint in ``load_from`` that has others is a warning. Data sets without names
    are not compared, nor are retrievers, whose galleries have classes of their own. A pack may name its classes for
    display. Labels (:func:`mmspt.engine.checks.check_labels`) and, in a test, the checkpoint
    (:func:`mmspt.engine.checks.check_loaded`) are checked too.

    Raises:
        ValueError: Names or labels that do not agree; the message says how.
    """
    priority = 'NORMAL'  # as a default hook after ResultHook, which builds the test set, before PromptInitHook

    def __init__(self) -> None:
        self._saved: Sequence[str] = ()
        self._packed = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember the names in the checkpoint, unless they are numbers that a pack gave; check what a test loads."""
        meta = checkpoint.get('meta') or {}
        names = list((meta.get('dataset_meta') or {}).get('classes') or ())
        self._packed = 'preprocessing' in meta
        if not isinstance(runner._train_loop, BaseLoop):
            check_loaded(checkpoint, unwrap(runner.model), runner.cfg)
        self._saved = names if names != [f'class {label}' for label in range(len(names))] else ()

    def before_train(self, runner: Runner) -> None:
        """Compare the three data sets with each other, and with the checkpoint."""
        dataset, model = runner.train_loop.dataloader.dataset, unwrap(runner.model)
        if self._saved and runner._resume:
            self._follow(runner, 'train', self._saved, 'the checkpoint')
        elif self._saved and names_of(dataset) and compare_names(names_of(dataset), self._saved):
            runner.logger.warning('The weights of load_from were trained on other classes: train '
                                  f'{compare_names(names_of(dataset), self._saved)}, compared with them')
        if names_of(dataset):
            self._follow(runner, 'train', names_of(dataset), 'its first data set')  # of those concatenated
        trained = check_labels(dataset, model, train=True)
        names, outputs = names_of(dataset), getattr(getattr(model, 'head', None), 'num_classes', None)
        if names and outputs is not None and len(names) < outputs:
            runner.logger.warning(f'The head has {outputs} outputs, but train names {len(names)} classes: set '
                                  f'model.head.num_classes={len(names)} unless that is meant')
        absent = [label for label in range(len(names) or outputs or 0) if label not in trained]
        if trained and absent:
            runner.logger.warning(f'train has no image of {len(absent)} of {len(names) or outputs} classes: '
                                  f'{quote([str(names[label] if names else label) for label in absent])}'
                                  + ('; does its list count from 1? Labels start at 0' if absent == [0] else ''))
        for part in parts(dataset):
            if getattr(part, 'folder_to_idx', None) and not hasattr(part, 'number_anew'):
                left_out = scan_folders(part.img_prefix, part.is_valid_file)[2]
                if left_out:
                    runner.logger.warning(f"MMPretrain's CustomDataset passes over in '{part.img_prefix}': {left_out}; "
                                          f"type='mmspt.CustomDataset' reads {', '.join(EXTENSIONS)}")
        for split in ('val', 'test'):
            if isinstance(getattr(runner, f'_{split}_loop'), BaseLoop):
                self._follow(runner, split, names, 'train')
                found = check_labels(getattr(runner, f'{split}_loop').dataloader.dataset, model)
                unseen = [str(names[label] if label < len(names) else label) for label in sorted(found - trained)]
                if unseen and trained:
                    runner.logger.warning(f'{split} has images of classes that train has none of: {quote(unseen)}')
        if isinstance(runner._val_loop, BaseLoop):
            shared = count_shared(dataset, runner.val_loop.dataloader.dataset)
            if shared:
                runner.logger.warning(f'val has {shared:,} images that train has too, and the best epoch would be '
                                      'chosen by them: hold out others')

    def before_val(self, runner: Runner) -> None:
        """Compare with the checkpoint if nothing is trained."""
        self._without_training(runner, 'val')

    def before_test(self, runner: Runner) -> None:
        """Compare with the checkpoint if nothing is trained, else with the training set."""
        self._without_training(runner, 'test')
        if isinstance(runner._train_loop, BaseLoop):
            self._follow(runner, 'test', names_of(runner.train_loop.dataloader.dataset), 'train')

    def _without_training(self, runner: Runner, split: str) -> None:
        if not isinstance(runner._train_loop, BaseLoop):
            dataset = getattr(runner, f'{split}_loop').dataloader.dataset
            own, whose = names_of(dataset), f"the checkpoint '{runner._load_from}'"
            if not self._packed or len(own) != len(self._saved) or moved_names(own, self._saved):
                self._follow(runner, split, self._saved, whose)
            elif compare_names(own, self._saved):
                runner.logger.warning(f'{split} {compare_names(own, self._saved)}, compared with {whose}: the names of '
                                      'a pack are taken to be for display, of the same labels')
            check_labels(dataset, unwrap(runner.model))

    def _follow(self, runner: Runner, split: str, names: Sequence[Any], whose: str) -> None:
        loop = getattr(runner, f'{split}_loop')
        dataset = loop.dataloader.dataset
        if isinstance(unwrap(runner.model), BaseRetriever):
            return
        differed = follow_names(dataset, names, split, whose) if names else ''
        labels = find_folders(runner.train_loop.dataloader.dataset) if whose == 'train' else {}
        for folder, label in find_folders(dataset).items():
            if labels.get(folder, label) != label:
                raise ValueError(f"a class folder must have one label, but '{folder}' has {labels[folder]} in train "
                                 f'and {label} in {split}: list the names of the folders in metainfo.classes, or give '
                                 'both the same folders')
        if differed:
            if isinstance(loop, IterBasedTrainLoop) and loop.dataloader.num_workers:  # they have the labels already
                raise ValueError(f'{split} {differed}, compared with {whose}: set its metainfo.classes to the names of '
                                 f'{whose}, {quote(list(names))}')
            runner.logger.warning(f'{split} {differed}, compared with {whose}: its labels follow the names of {whose}')
            runner.visualizer.dataset_meta = dataset.metainfo
            if split != 'train':
                loop.evaluator.dataset_meta = dataset.metainfo
