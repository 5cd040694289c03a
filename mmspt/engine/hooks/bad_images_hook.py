"""Say at the end of a run which images it was without."""
import os
import os.path as osp

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from mmspt.datasets.skip_bad_images import find_bad_images
from mmspt.files import write_text
from mmspt.registry import HOOKS

FILE_NAME = 'bad_images.txt'
MOST = 20
"""So many are named in the log."""


@HOOKS.register_module()
class BadImagesHook(Hook):
    """List what :class:`mmspt.datasets.SkipBadImages` left out of a run's data sets, when the run ends.

    One warning in the log names them; all stand in ``bad_images.txt`` in the work directory, a line
    '<split> <path> (<reason>)' each. There the lines of splits that this run did not build stay as they were, so that
    a test keeps those of its training. Without bad images nothing is said, and no file is left.
    """
    priority = 'VERY_LOW'

    @master_only
    def after_run(self, runner: Runner) -> None:
        """Warn and write."""
        loops = {split: getattr(runner, f'_{split}_loop') for split in ('train', 'val', 'test')}
        built = {split: loop.dataloader.dataset for split, loop in loops.items() if isinstance(loop, BaseLoop)}
        lines = [f'{split} {path} ({reason})' for split, dataset in built.items()
                 for path, reason in dict.fromkeys(find_bad_images(dataset))]
        file = osp.join(runner.work_dir, FILE_NAME)
        kept = []
        if osp.exists(file):
            with open(file, encoding='utf-8') as before:
                kept = [line for line in before.read().splitlines() if line.partition(' ')[0] not in built]
        if lines or kept:
            write_text(file, '\n'.join([*kept, *lines, '']))
        elif osp.exists(file):
            os.remove(file)
        if lines:
            more = [f'... and {len(lines) - MOST:,} more'] if len(lines) > MOST else []
            runner.logger.warning('\n    '.join([
                f"Images left out because they could not be loaded: {len(lines):,} (all are in '{file}')",
                *lines[:MOST], *more]))
