"""Stream the frozen backbone's patch tokens, layer by layer, into a bounded sample."""
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

USES = ('images', 'augmentation', 'positions', 'initializer')


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


def plan_sample(num_images: int, num_layers: int, embed_dims: int, max_bytes: float) -> tuple[int, int]:
    """Say how many images and tokens per image fit: every image gives tokens as long as one token each fits.

    Args:
        num_images (int): Images at hand.
        num_layers (int): Layers whose tokens are kept.
        embed_dims (int): Width D.
        max_bytes (float): The bound, for fp32 tokens of all layers together.

    Returns:
        tuple[int, int]: Images, tokens per image and layer; the second may exceed N_e.

    Raises:
        ValueError: Not even one token fits.
    """
    tokens = int(max_bytes // (4 * num_layers * embed_dims))
    if tokens < 1:
        least = 4 * num_layers * embed_dims / 2**30
        raise ValueError(f'max_memory must hold at least one token of every layer, {least:.2g} GiB, got '
                         f'{max_bytes / 2**30:.2g}: raise it')
    images = min(num_images, tokens)
    return images, tokens // images


@torch.no_grad()
def collect_tokens(batches: Iterable[tuple[list[int], Tensor]],
                   patch_tokens: Callable[[Tensor, int], Iterator[Tensor]],
                   num_images: int,
                   num_layers: int,
                   keep: int,
                   seed: int) -> Tensor:
    """Gather tokens of all layers in one pass.

    Args:
        batches (Iterable): Pairs of the images' indices and the images (B, 3, H, W); ``num_images`` images in all.
        patch_tokens (Callable): ``PromptedViT.patch_tokens``.
        num_images (int): Images that will come.
        num_layers (int): L.
        keep (int): Tokens kept per image and layer.
        seed (int): Seed of the positions.

    Returns:
        Tensor: (L, num_images, min(keep, N_e), D), fp32, on the CPU, in the order of arrival.

    Raises:
        ValueError: Images of different numbers of patches.
    """
    sample, done = None, 0
    for indices, images in batches:
        for layer, tokens in enumerate(patch_tokens(images, num_layers)):
            if layer == 0:
                num_tokens = tokens.shape[1]
                positions = torch.stack([choose_positions(seed, i, num_tokens, keep) for i in indices])
                rows = torch.arange(len(indices))[:, None].to(tokens.device)
                columns = positions.to(tokens.device)  # (B, kept)
            if sample is None:
                sample = torch.empty(num_layers, num_images, columns.shape[1], tokens.shape[-1])
                expected = num_tokens
            if num_tokens != expected:
                raise ValueError(f'images must have one size while tokens are gathered: {expected} patches, then '
                                 f'{num_tokens}. Give PromptInitHook a pipeline that crops')
            sample[layer, done:done + len(indices)] = tokens[rows, columns].float().cpu()
        done += len(indices)
    if sample is None:
        raise ValueError('there must be at least one image to take tokens from: check the data folder')
    return sample[:, :done]
