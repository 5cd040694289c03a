"""Stream the frozen backbone's patch tokens, layer by layer, into a bounded sample."""
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from mmengine import dist
from mmengine.logging import MMLogger
from torch import Tensor

T = TypeVar('T')

USES = ('images', 'augmentation', 'positions', 'initializer', 'nmi', 'inserted')
"""Append only: a use's place is part of its seed."""


def derive_seed(seed: int, use: str, index: int = 0) -> int:
    """Mix a run's seed, what it is used for (one of USES) and an index into 63 bits, so that no two uses share one."""
    return int(np.random.SeedSequence((seed, USES.index(use), index)).generate_state(1, np.uint64)[0]) >> 1


def choose_positions(seed: int, image: int, num_tokens: int, keep: int) -> Tensor:
    """Choose which of an image's tokens to keep, the same at every layer.

    The choice depends on nothing but these arguments, so that a sample does not depend on batch size, workers or
    number of processes.

    Args:
        seed (int): Seed of the run.
        image (int): Index of the image in the data set.
        num_tokens (int): N_e.
        keep (int): How many; all if not below N_e.

    Returns:
        Tensor: (min(keep, N_e),) positions, ascending.
    """
    if keep >= num_tokens:
        return torch.arange(num_tokens)
    generator = torch.Generator().manual_seed(derive_seed(seed, 'positions', image))
    return torch.randperm(num_tokens, generator=generator)[:keep].sort().values


def plan_sample(num_images: int, num_layers: int, embed_dims: int,
                max_bytes: float | None) -> tuple[int, int | None]:
    """Say how many images and tokens per image fit: every image gives tokens as long as one token each fits.

    Args:
        num_images (int): Images at hand.
        num_layers (int): Layers whose tokens are kept.
        embed_dims (int): Width D.
        max_bytes (float | None): The bound, for fp32 tokens of all layers together; None is no bound.

    Returns:
        tuple[int, int | None]: Images, tokens per image and layer; the second may exceed N_e, and None is all of them.

    Raises:
        ValueError: Not even one token fits.
    """
    if max_bytes is None:
        return num_images, None
    tokens = int(max_bytes // (4 * num_layers * embed_dims))
    if tokens < 1:
        least = 4 * num_layers * embed_dims / 2**30
        raise ValueError(f'max_memory must hold at least one token of every layer, {least:.2g} GiB, got '
                         f'{max_bytes / 2**30:.2g}: raise it')
    images = min(num_images, tokens)
    return images, tokens // images


def available_memory() -> float:
    """Bytes of main memory that Linux can give without swapping; infinity where the system does not say."""
    try:
        with open('/proc/meminfo', encoding='ascii') as file:
            return next(int(line.split()[1]) * 1024. for line in file if line.startswith('MemAvailable:'))
    except (OSError, StopIteration):
        return float('inf')


def check_memory(num_bytes: float) -> None:
    """Raise ValueError if the tokens, and a quarter more for what works on them, need more memory than there is."""
    available = available_memory()
    num_bytes *= 1.25  # K-means copies a layer of twelve or more, and scikit-learn a second time
    if num_bytes > available:
        raise ValueError(f'max_memory=None keeps all tokens, which must fit into memory: they need '
                         f'{num_bytes / 2**30:.2f} GiB, {available / 2**30:.2f} GiB are available. Set max_memory '
                         '(GiB) to keep a sample of them')


def all_finite(tokens: Tensor) -> bool:
    """Whether tokens of any shape hold neither NaN nor infinity; no copy is made."""
    return bool(torch.stack(tokens.aminmax()).isfinite().all())


class ImageStream(Protocol):
    """Training images for an initializer; :class:`mmspt.engine.training_images.TrainingImages` is one."""
    wanted: int
    """Images of all processes."""
    own: int
    """Images of this process, once read; if there is none, one comes nonetheless, to know shapes."""
    seed: int
    """Of the run, the same on every process."""
    max_bytes: float | None
    """Bound on the tokens of all layers; None is no bound."""
    device: torch.device
    """Where the work may be done."""

    def read(self, consume: Callable[[Iterable[tuple[list[int], Tensor]], int], T], count: int | None = None) -> T:
        """Pass this process's batches of indices and images, and their number, to a function; return its result.

        Every process must call it. If the function fails on one, all raise.
        """
        ...


def gather_tokens(network: Any, images: ImageStream, num_layers: int) -> list[Tensor]:
    """Take E_0, ..., E_{num_layers-1} of the images of all processes, a bounded sample of them, in one pass.

    Args:
        network (FrozenViT): In eval mode.
        images (ImageStream): Its ``max_bytes`` bounds the sample.
        num_layers (int): L.

    Returns:
        list[Tensor]: L times (N, D), fp32, on the CPU of the main process; empty on the others.

    Raises:
        ValueError: Images of different numbers of patches, or more tokens than memory.
    """
    logger = MMLogger.get_current_instance()
    count, keep = plan_sample(images.wanted, num_layers, network.embed_dims, images.max_bytes)
    if count < images.wanted:
        logger.warning(f'max_memory holds one token for each of {count:,} images of {images.wanted:,}: the others are '
                       'left out; raise max_memory to take them in')
    # the processes' shares, taken for those of one machine, and all of them again where the main process gathers
    copies = 1 if dist.get_world_size() == 1 else 2 * dist.get_world_size()
    tokens = images.read(lambda batches, number: collect_tokens(
        batches, network.patch_tokens, number, num_layers, keep, images.seed, copies), count)
    layers = _gather(tokens[:, :images.own], count)
    if layers:
        logger.info(f'{count:,} images, {len(layers[0]):,} tokens kept for each of {num_layers} layers')
    return layers


def _gather(tokens: Tensor, num_images: int) -> list[Tensor]:
    """Bring every process's tokens (L, B_rank, kept, D) to the main one, a layer at a time: L times (N, D)."""
    if dist.get_world_size() == 1:
        return [layer.flatten(0, 1) for layer in tokens]
    most = -(-num_images // dist.get_world_size())
    layers: list[Tensor] = []
    error: Exception | None = None
    for layer in tokens:
        padded = torch.zeros(most, *layer.shape[1:])
        padded[:len(layer)] = layer
        parts = dist.all_gather(padded)
        if dist.is_main_process() and error is None:
            sizes = [(r + 1) * num_images // len(parts) - r * num_images // len(parts) for r in range(len(parts))]
            try:
                images = torch.cat([part[:size].cpu() for part, size in zip(parts, sizes, strict=True)])
                layers.append(images.flatten(0, 1))
            except Exception as caught:  # such as too little memory; the others still send theirs
                error = caught
    if error is not None:
        raise error
    return layers


@torch.no_grad()
def collect_tokens(batches: Iterable[tuple[list[int], Tensor]],
                   patch_tokens: Callable[[Tensor, int], Iterator[Tensor]],
                   num_images: int,
                   num_layers: int,
                   keep: int | None,
                   seed: int,
                   copies: int = 1) -> Tensor:
    """Gather tokens of all layers in one pass.

    Args:
        batches (Iterable): Pairs of the images' indices and the images (B, 3, H, W); ``num_images`` images in all.
        patch_tokens (Callable): ``PromptedViT.patch_tokens``.
        num_images (int): Images that will come.
        num_layers (int): L.
        keep (int | None): Tokens kept per image and layer; None keeps all, if the memory at hand suffices.
        seed (int): Seed of the positions.
        copies (int): How many times this process's tokens the memory must hold, where all are kept. Defaults to 1.

    Returns:
        Tensor: (L, num_images, min(keep, N_e), D), fp32, on the CPU, in the order of arrival.

    Raises:
        ValueError: Images of different numbers of patches, or more tokens than memory.
    """
    sample, done, expected = torch.empty(0), 0, None
    for indices, images in batches:
        kept: list[Tensor] = []
        for layer, tokens in enumerate(patch_tokens(images, num_layers)):
            if layer == 0:
                num_tokens, embed_dims = tokens.shape[1:]
                if keep is None and expected is None:
                    check_memory(4. * num_layers * num_images * num_tokens * embed_dims * copies)
                expected = expected or num_tokens
                if num_tokens != expected:
                    raise ValueError(f'images must have one size while tokens are gathered: {expected} patches, then '
                                     f'{num_tokens}. Give PromptInitHook a pipeline that crops')
                positions = [choose_positions(seed, i, num_tokens, keep or num_tokens) for i in indices]
                columns = torch.stack(positions).to(tokens.device)  # (B, kept)
                rows = torch.arange(len(indices))[:, None].to(tokens.device)
                if not done:
                    sample = torch.empty(num_layers, num_images, columns.shape[1], embed_dims)
            chosen = tokens[rows, columns].float()  # (B, kept, D)
            if chosen.is_cpu:
                sample[layer, done:done + len(indices)] = chosen
            else:
                kept.append(chosen)
        if kept:
            sample[:, done:done + len(indices)] = torch.stack(kept).cpu()  # one transfer
        done += len(indices)
    if not done:
        raise ValueError('there must be at least one image to take tokens from: check the data folder')
    return sample[:, :done]
