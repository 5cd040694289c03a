"""List the images that a run left out."""
import os
import os.path as osp

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from mmspt.datasets.skip_bad_images import find_bad_images
from mmspt.files import write_text
from mmspt.registry import HOOKS

BAD_IMAGES = 'bad_images.txt'
MAX_LOGGED = 20


@HOOKS.register_module()
class BadImagesHook(Hook):
    """List the images that ``mmspt.SkipBadImages`` left out of a run's data sets, when the run ends.

    One warning names the first 20. The file ``bad_images.txt`` in the work directory has all, a line
    '<split> <path> (<reason>)' each. Lines of splits that this run did not build stay in it, so a test keeps the lines
    of its training. Without bad images there is neither warning nor file.
    """
    priority = 'VERY_LOW'

    @master_only
    def after_run(self, runner: Runner) -> None:
        """Log the warning and write the file."""
        loops = {split: getattr(runner, f'_{split}_loop') for split in ('train', 'val', 'test')}
        built = {split: loop.dataloader.dataset for split, loop in loops.items() if isinstance(loop, BaseLoop)}
        lines = [f'{split} {path} ({reason})' for split, dataset in built.items()
                 for path, reason in dict.fromkeys(find_bad_images(dataset))]
        file = osp.join(runner.work_dir, BAD_IMAGES)
        kept = []
        if osp.exists(file):
            with open(file, encoding='utf-8') as before:
                kept = [line for line in before.read().splitlines() if line.partition(' ')[0] not in built]
        if lines or kept:
            write_text(file, '\n'.join([*kept, *lines, '']))
        elif osp.exists(file):
            os.remove(file)
        if lines:
            more = [f'... and {len(lines) - MAX_LOGGED:,} more'] if len(lines) > MAX_LOGGED else []
            runner.logger.warning('\n    '.join([
                f"Images left out because they could not be loaded: {len(lines):,} (all are in '{file}')",
                *lines[:MAX_LOGGED], *more]))
