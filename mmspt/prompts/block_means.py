"""Means over training images of what blocks read and compute, in one pass, the same on any number of processes.

Sums over images are of double precision, so that they do not depend on how the images come in batches, up to the
rounding of the network itself.
"""
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from mmengine import dist
from torch import Tensor

from mmspt.models.layers.prompted_block import prompt_keys_values

from .tokens import ImageStream, all_finite

Key = TypeVar('Key')


@torch.no_grad()
def average(images: ImageStream, sums_of: Callable[[Tensor], Iterable[tuple[Key, Tensor]]]) -> dict[Key, Tensor]:
    """Average over the images of all processes; every process must call it.

    Args:
        images (ImageStream): Of one size.
        sums_of (Callable): Takes images (B, 3, H, W), gives keys and sums over them, see :func:`sum_images`.

    Returns:
        dict[Key, Tensor]: The means by key, in double precision.

    Raises:
        ValueError: No image, or images of different sizes.
    """
    sums: dict[Key, Tensor] = {}

    def consume(batches: Iterable[tuple[list[int], Tensor]], number: int) -> None:
        for _, batch in batches:
            for key, values in sums_of(batch):
                own = sums.setdefault(key, torch.zeros_like(values))
                if own.shape != values.shape:
                    raise _sizes_differ([len(own), len(values)])
                own += values
        if not sums:
            raise ValueError('there must be at least one image to take tokens from: check the data folder')

    images.read(consume)
    sizes = dist.all_gather_object({key: len(own) for key, own in sums.items()})
    if any(size != sizes[0] for size in sizes):
        raise _sizes_differ([min(size.values()) for size in sizes])
    for own in sums.values():
        own *= images.own > 0  # a process without images looked at one to know the shapes
        dist.all_reduce(own)
        own /= images.wanted
    return sums


def block_inputs(network: Any, images: Tensor, num_blocks: int,
                 prompts: Tensor | None = None) -> Iterator[tuple[Any, Tensor]]:
    """Yield the first blocks and what they read beside prompts, (B, n + N_e, D), n the number of CLS and registers.

    The network's own prompts, gates and logit scales are left aside; ``prompts`` (L', N_p, D) stand in their place.
    """
    x, _, _ = network._embed(images)
    for i, layer in enumerate(network.layers[:num_blocks]):
        yield layer, x
        if i + 1 < num_blocks:
            x = layer(x, None if prompts is None else prompt_keys_values(layer, prompts[i]))


def sum_images(x: Tensor) -> Tensor:
    """Sum (B, ...) over images, in double precision."""
    x = x if x.device.type in ('cpu', 'cuda') else x.cpu()  # others may lack double precision
    return x.sum(dim=0, dtype=torch.float64)


def checked(means: Iterable[Tensor], block: int, device: torch.device | str) -> list[Tensor]:
    """Bring means to the device in double precision; refuse what is not finite."""
    means = [mean.to(device, torch.float64) for mean in means]
    if not all(all_finite(mean) for mean in means):
        raise ValueError(f'what block {block} reads and computes must be finite, but its means hold NaN or infinity: '
                         'check the checkpoint, and the mean and std of the data preprocessor')
    return means


def _sizes_differ(sizes: Sequence[int]) -> ValueError:
    return ValueError(f'images must have one size while blocks are read, got {sizes} tokens: give PromptInitHook a '
                      'pipeline that crops')
