"""The images' patches that lie nearest to each prompt: what a prompt stands for."""
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Metric(NamedTuple):
    """How near two tokens are."""
    function: Callable[[Tensor, Tensor], Tensor]
    """(M, D), (N, D) -> (M, N)."""
    descending: bool
    """Whether a large value is near."""
    label: str
    """For axes and headings."""


def _cosine(prompts: Tensor, tokens: Tensor) -> Tensor:
    return F.normalize(prompts, dim=-1) @ F.normalize(tokens, dim=-1).T


def _euclidean(prompts: Tensor, tokens: Tensor) -> Tensor:
    # not by way of |p|^2 + |e|^2 - 2 p e, which loses the small distances
    return torch.cdist(prompts, tokens, compute_mode='donot_use_mm_for_euclid_dist')


METRICS: dict[str, Metric] = dict(cosine=Metric(_cosine, True, 'cosine similarity'),
                                  euclidean=Metric(_euclidean, False, 'Euclidean distance'))


@torch.no_grad()
def nearest_patches(batches: Iterable[tuple[list[int], Tensor]],
                    patch_tokens: Callable[[Tensor, int], Iterator[Tensor]],
                    prompts: Tensor,
                    layer: int,
                    k: int,
                    metric: str = 'cosine') -> tuple[Tensor, Tensor, Tensor]:
    """Find, for each prompt, the k images that hold the patches nearest to it, and these patches, in one pass.

    No more than a batch's tokens and the best k are held. An image gives a prompt its nearest patch alone, so that
    neighbours within one image do not fill the list.

    Args:
        batches (Iterable): Pairs of the images' indices and the images (B, 3, H, W).
        patch_tokens (Callable): ``FrozenViT.patch_tokens``; the network is in eval mode.
        prompts (Tensor): (M, D).
        layer (int): Number i = 1..L of the block that reads the prompts: they are compared with E_{i-1}.
        k (int): Images a prompt.
        metric (str): 'cosine' or 'euclidean'. Defaults to 'cosine'.

    Returns:
        tuple[Tensor, Tensor, Tensor]: Scores, fp32, images (their indices) and positions (0..N_e-1), each
        (M, min(k, number of images)), on the CPU, the nearest first. Of equals, the lower index of the image, then the
        lower position.

    Raises:
        ValueError: An option out of its range, prompts or tokens that are not finite, of another width, or images of
            different sizes.
    """
    if layer < 1:
        raise ValueError(f'layer must be the number of a block, at least 1, got {layer!r}')
    if k < 1:
        raise ValueError(f'the number of patches a prompt must be at least 1, got {k!r}')
    if metric not in METRICS:
        raise ValueError(f'metric must be one of {", ".join(METRICS)}, got {metric!r}')
    if prompts.ndim != 2 or 0 in prompts.shape:
        raise ValueError(f'prompts must have shape (M, D), not empty, got {tuple(prompts.shape)}: give those of one '
                         'layer')
    if not prompts.isfinite().all():
        raise ValueError(f'prompts must be finite, but {_broken(prompts)} of {len(prompts)} hold NaN or infinity: '
                         'train with a lower learning rate, or look at an earlier checkpoint')
    chosen = METRICS[metric]
    none = torch.empty(len(prompts), 0, dtype=torch.int64)
    best = torch.empty(len(prompts), 0), none, none
    num_tokens = None
    for indices, images in batches:
        tokens = deque(patch_tokens(images, layer), maxlen=1).pop()  # E_{layer-1}, (B, N_e, D)
        num_tokens = num_tokens or tokens.shape[1]
        _check_tokens(tokens, num_tokens, prompts.shape[1])
        with torch.autocast(tokens.device.type, enabled=False):
            # in fp64, so that equal tokens score the same wherever they stand in a batch
            values = chosen.function(prompts.to(tokens.device).double(), tokens.double().flatten(0, 1)).float()
        values = values.unflatten(1, tokens.shape[:2])  # (M, B, N_e)
        nearest = values.max(dim=2) if chosen.descending else values.min(dim=2)  # of equals, the first
        numbers = torch.tensor(indices).expand(len(prompts), -1)
        best = _keep_best(torch.cat((best[0], nearest.values.cpu()), 1), torch.cat((best[1], numbers), 1),
                          torch.cat((best[2], nearest.indices.cpu()), 1), k, chosen.descending)
    if num_tokens is None:
        raise ValueError('there must be at least one image to compare prompts with: check the data folder')
    return best


def _keep_best(scores: Tensor, images: Tensor, positions: Tensor, k: int,
               descending: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Sort (M, n) by score, then by image, and keep the first k."""
    by_image = images.argsort(dim=1, stable=True)
    by_score = scores.gather(1, by_image).argsort(dim=1, stable=True, descending=descending)
    order = by_image.gather(1, by_score)[:, :k]
    return scores.gather(1, order), images.gather(1, order), positions.gather(1, order)


def _check_tokens(tokens: Tensor, num_tokens: int, embed_dims: int) -> None:
    if tokens.shape[1] != num_tokens:
        raise ValueError(f'images must have one size: {num_tokens} patches, then {tokens.shape[1]}. Give the training '
                         'data, or PromptInitHook, a pipeline that crops')
    if tokens.shape[2] != embed_dims:
        raise ValueError(f'prompts must be as wide as the tokens, got {embed_dims} and {tokens.shape[2]}: give the '
                         "backbone's own")
    if not tokens.isfinite().all():
        flat = tokens.flatten(0, 1)
        raise ValueError(f'tokens must be finite, but {_broken(flat)} of {len(flat)} hold NaN or infinity: check the '
                         'checkpoint, and the mean and std of the data preprocessor')


def _broken(rows: Tensor) -> int:
    return len(rows) - int(rows.isfinite().all(dim=1).sum())

