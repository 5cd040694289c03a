"""Measure, while a model trains, how much its prompts and the patches know of each other."""
from typing import Any

import torch
from mmengine import dist
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from mmspt.fail_together import fail_together
from mmspt.models import PromptedViT
from mmspt.prompts.nmi import check_normalizer, normalized_mutual_information
from mmspt.prompts.tokens import derive_seed
from mmspt.registry import HOOKS

from ..global_batch import batch_of
from ..model import autocast_as_trained, eval_mode, find_prompted_vit, unwrap
from ..training_images import SeededImages, choose_images, iterate_images, share

PREFIX = 'nmi/'
IMAGES = 16


@HOOKS.register_module()
class PromptNMIHook(Hook):
    """Log the NMI of prompts and patches (SPT, https://arxiv.org/abs/2402.02382, figure 2).

    Before the first step, every ``interval`` steps and after the last, training images that stay the same throughout,
    with their augmentation, pass the network with its prompts, in eval mode and in the run's precision. For each block
    i the mean over these images of NMI(P_{i-1}, E_{i-1}) goes to the message hub and to all visualization backends
    as ``nmi/layer_<i>``, the mean over blocks as ``nmi/mean``, and the epochs done so far as ``nmi/epoch``; the step is
    the number of iterations done. Processes share the images. The run's random numbers are left as they were. A
    model without prompts is left alone.

    Args:
        interval (int): Iterations between measurements; 0 switches the hook off. Defaults to 50.
        num_images (int | None): Images of all processes together; None is 16, or twice the global batch if that is
            less, so that a measurement costs less than two steps. Defaults to None.
        normalizer (str): As in :func:`mmspt.prompts.nmi.normalized_mutual_information`. Defaults to 'geometric'.
        seed (int | None): Chooses images and augmentation; None takes the run's. Defaults to None.

    Raises:
        ValueError: An option out of its range.
    """
    priority = 'LOW'  # prompts are filled before, checkpoints with the hub's history are saved after

    def __init__(self, interval: int = 50, num_images: int | None = None, normalizer: str = 'geometric',
                 seed: int | None = None) -> None:
        for name, value, least in (('interval', interval, 0), ('num_images', num_images, 1), ('seed', seed, 0)):
            if (value is not None or name == 'interval') and (type(value) is not int or value < least):
                raise ValueError(f'{name} of PromptNMIHook must be a whole number of at least {least}, got {value!r}')
        check_normalizer(normalizer)
        self.interval = interval
        self.num_images = num_images
        self.normalizer = normalizer
        self.seed = seed
        self._backbone: PromptedViT | None = None
        self._images = torch.empty(0)
        self._measured = 0  # iterations done at the last measurement

    def before_train(self, runner: Runner) -> None:
        """Load the images; measure the initial prompts unless the run was resumed."""
        model = unwrap(runner.model)
        self._backbone = find_prompted_vit(model)
        if self._backbone is None or self._backbone.prompts is None or not self.interval:
            self._backbone = None
            return
        with fail_together('loading the images of PromptNMIHook'):
            self._images = self._load(runner, model.data_preprocessor)
        self._measured = runner.iter
        if runner.iter == 0:
            self._log(runner)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        """Measure if it is time."""
        if self._backbone is not None and (self.every_n_train_iters(runner, self.interval) or
                                           self.is_last_train_iter(runner)):
            self._log(runner, 1)

    def after_train(self, runner: Runner) -> None:
        """Measure once more if something stopped the training early."""
        if self._backbone is not None and self._measured < runner.iter:
            self._log(runner)

    def _load(self, runner: Runner, data_preprocessor: Any) -> Tensor:
        """This process's share of the images, (B, 3, H, W) on the model's device; B may be 0."""
        seed = torch.tensor(runner.seed if self.seed is None else self.seed, dtype=torch.int64)
        dist.broadcast(seed)  # with diff_rank_seed each rank has its own
        dataset = runner.train_dataloader.dataset
        batch = batch_of(runner.train_dataloader) or IMAGES
        num_images = self.num_images or min(IMAGES, 2 * batch * dist.get_world_size())
        mine = share(choose_images(num_images, len(dataset), derive_seed(int(seed), 'nmi')))
        if not mine:
            return torch.empty(0)
        images = SeededImages(dataset, mine, int(seed))
        return next(iterate_images(images, data_preprocessor, len(mine), 0))[1]

    def _log(self, runner: Runner, more: int = 0) -> None:
        """Measure and log; ``more`` is 1 inside an iteration, which MMEngine counts when it is over."""
        assert self._backbone is not None
        self._measured = done = runner.iter + more
        values = self.measure(runner, self._backbone).tolist()
        scalars = {f'{PREFIX}layer_{i:02d}': value for i, value in enumerate(values, 1)}
        scalars[f'{PREFIX}mean'] = sum(values) / len(values)
        runner.message_hub.update_scalars(scalars)
        runner.visualizer.add_scalars({**scalars, f'{PREFIX}epoch': done / _iterations_per_epoch(runner)}, step=done)
        runner.logger.info(f'NMI of prompts and patches after {done} iterations: mean {scalars[f"{PREFIX}mean"]:.3g}, '
                           f'blocks 1 to {len(values)}: {" ".join(f"{value:.3g}" for value in values)}')

    def measure(self, runner: Runner, backbone: PromptedViT) -> Tensor:
        """Compute the mean over the images of all processes, for each block: (L,)."""
        sums = torch.zeros(backbone.num_layers + 1, device=backbone.patch_embed.projection.weight.device)
        with fail_together('measuring NMI'), eval_mode(backbone), torch.no_grad(), autocast_as_trained(runner):
            if len(self._images):
                values = [normalized_mutual_information(block.prompts, block.patches, self.normalizer).sum()
                          for block in backbone.block_inputs(self._images)]
                sums[:-1] = torch.stack(values)
                sums[-1] = len(self._images)
        dist.all_reduce(sums)
        return (sums[:-1] / sums[-1]).cpu()


def _iterations_per_epoch(runner: Runner) -> float:
    """Of all processes together; MMEngine's InfiniteSampler does not count its own share."""
    loader = runner.train_dataloader
    own_share = not isinstance(loader.sampler, InfiniteSampler) or loader.batch_size is None
    return len(loader) if own_share else len(loader.dataset) / (loader.batch_size * dist.get_world_size())
