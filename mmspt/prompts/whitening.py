r"""How BPT (https://arxiv.org/abs/2506.22908) starts: bases of factored prompts from whitening matrices of the data."""
import copy
import math
from typing import Any

import torch
from mmengine import dist
from mmengine.logging import MMLogger
from torch import Tensor

from mmspt.models.layers.prompted_block import linear_map
from mmspt.models.methods import BilinearPrompts, PromptMethod
from mmspt.registry import TASK_UTILS

from .block_means import average, block_inputs, checked, sum_images
from .initializers import PromptInitializer
from .tokens import ImageStream


def whitening_matrix(tokens: Tensor, query: Tensor, key: Tensor, eps: float) -> Tensor:
    r"""Compute W of a block.

    With X the mean tokens and M = W_q W_k^T X^T (weights out x in, without bias),

    .. math:: S = M M^T / D = U s U^T, \quad W = U (s + \epsilon s_1)^{-1/2} U^T

    so that W S W^T is the identity in the directions whose share of the variance s / s_1 is far above epsilon. The
    released code has no constant, and divides by the rounding of the other directions.

    Args:
        tokens (Tensor): X, mean over images of what the block reads, CLS and registers included, (N, D).
        query (Tensor): W_q, (D, D).
        key (Tensor): W_k, (D, D).
        eps (float): epsilon, relative to the largest variance s_1.

    Returns:
        Tensor: (D, D), symmetric.
    """
    mixed = query @ key.T @ tokens.T  # (D, N)
    variances, directions = torch.linalg.eigh(mixed @ mixed.T / len(query))
    largest = variances[-1].clamp(min=torch.finfo(variances.dtype).tiny)
    return directions * (variances.clamp(min=0) + eps * largest).rsqrt() @ directions.T


def draw_basis(matrix: Tensor, rank: int, generator: torch.Generator) -> Tensor:
    """Take ``rank`` entries of each row of a matrix (D, D), drawn anew for every row: (D, rank)."""
    columns = torch.stack([torch.randperm(len(matrix), generator=generator)[:rank] for _ in matrix])
    return matrix.gather(1, columns.to(matrix.device))


@TASK_UTILS.register_module()
class WhitenedInit(PromptInitializer):
    r"""BPT's start: normal coefficients, and for each block a basis of entries of :func:`whitening_matrix`.

    Source: the paper, and the authors' code, https://github.com/WangYZ1608/BPT at 2f1ca0c. Whether a basis trains is
    the method's ``trained_bases``: the paper's fWhiten and tWhiten.

    Args:
        eps (float): See :func:`whitening_matrix`. By default 1e-5, about the variance, relative to the largest, of the
            weakest direction among those that hold 99.99 % of it in a DINOv2 ViT-S/14: 5e-6 to 4e-5 over its blocks, at
            224 and 112 pixels (``benchmarks/results/bilinear_epyc.json``).

    Raises:
        ValueError: ``eps`` is no positive number; other prompts than bilinear ones.
    """
    images = 100
    method = 'BPT'

    def __init__(self, eps: float = 1e-5) -> None:
        if isinstance(eps, bool) or not isinstance(eps, (int, float)) or not 0 < eps < math.inf:
            raise ValueError(f'eps must be a positive number, got {eps!r}: the default is 1e-5 of the largest variance')
        self.eps = eps

    def start(self, network: Any, images: ImageStream, generator: torch.Generator) -> dict[str, Tensor] | None:
        prompts = network.prompts
        if not isinstance(prompts, BilinearPrompts):
            raise ValueError(f'WhitenedInit starts factors, but {type(prompts).__name__} has none: set '
                             "model.backbone.prompts=dict(type='mmspt.DeepBilinearPrompts')")
        means = average(images, lambda batch: (
            (i, sum_images(x)) for i, (_, x) in enumerate(block_inputs(network, batch, prompts.shape[0]))))
        if not dist.is_main_process():
            return None
        device = images.device if torch.device(images.device).type in ('cpu', 'cuda') else 'cpu'
        factors = dict(coefficients=0.02 * torch.randn(prompts.coefficients.shape, generator=generator))
        for i, tokens in sorted(means.items()):
            attn = network.layers[i].attn
            own = (tokens, linear_map(attn, 0)[0], linear_map(attn, 1)[0])
            seen, query, key = checked(own, i + 1, device)
            basis = draw_basis(whitening_matrix(seen, query, key, self.eps), prompts.rank, generator).float().cpu()
            factors[f'bases.{i}'] = basis
            MMLogger.get_current_instance().info(
                f'Whitening, block {i + 1}: {len(tokens)} mean tokens, root mean square of the basis '
                f'{basis.square().mean().sqrt():.3g}')
        return factors


@TASK_UTILS.register_module()
class DrawnInit(PromptInitializer):
    """Leave the parameters to the method: each starts as it draws them itself (of BPT: normal and Xavier's uniform)."""
    images = 'none'
    method = 'VPT'

    def start(self, network: Any, images: ImageStream, generator: torch.Generator) -> dict[str, Tensor]:
        method: PromptMethod = copy.deepcopy(network.prompts).cpu()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator.initial_seed())
            method.reset_parameters()
        return {name: value.detach() for name, value in method.state_dict().items()}
