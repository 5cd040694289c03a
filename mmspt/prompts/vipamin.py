"""VIPAMIN (https://arxiv.org/abs/2510.16446): prompts from patches that attention tells apart, and from directions that
the frozen network leaves unused.
"""
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine import dist
from mmengine.logging import MMLogger
from torch import Tensor

from mmspt.models.layers.prompted_block import gather_values, linear_map, project
from mmspt.models.methods.prompt_method import uniform_bound
from mmspt.registry import TASK_UTILS

from .block_means import average, block_inputs, checked, sum_images
from .initializers import PromptInitializer, check_prompts, draw_uniform
from .tokens import ImageStream, derive_seed

PULL_BACKS = ('exact', 'released')


class Matchable(NamedTuple):
    """What matching reads of a block, in the network with uniform prompts. Means are over images, and keys' over heads
    as well."""
    patches: Tensor
    """Mean patch tokens that the block reads, (N_e, D)."""
    patch_keys: Tensor
    """Mean keys of these, (N_e, d)."""
    prompt_keys: Tensor
    """Keys of the uniform prompts, (N_p, d)."""


class Attended(NamedTuple):
    """What the orthogonal part reads of a block, in the network without prompts."""
    outputs: Tensor
    """Mean over images of the attention outputs before their projection, CLS included, (n + N_e, D)."""
    value_weight: Tensor
    """W_V, (D, D)."""
    value_bias: Tensor
    """b_V, (D, )."""


class BlockMeans(NamedTuple):
    """What VIPAMIN reads of one block; a part that it does not take may be None."""
    matchable: Matchable | None = None
    attended: Attended | None = None


def match(block: Matchable, k: int) -> Tensor:
    """Give each prompt the mean of the k patches whose keys are nearest to its own, by cosine similarity.

    Args:
        block (Matchable): Of N_p prompts and N_e patches.
        k (int): At most N_e.

    Returns:
        Tensor: (N_p, D).
    """
    similarity = F.normalize(block.prompt_keys, dim=1) @ F.normalize(block.patch_keys, dim=1).T  # (N_p, N_e)
    return block.patches[similarity.topk(k, dim=1).indices].mean(dim=1)  # (N_p, k, D) to (N_p, D)


def orthogonalize(drawn: Tensor, block: Attended, pull_back: str = 'exact') -> Tensor:
    r"""Project random prompts so that their values are orthogonal to the attention outputs.

    With O the outputs, (n + N_e, D), and r a random prompt,

    .. math:: O^T = Q R, \quad t = (I - Q Q^T) (W_V r + b_V), \quad p = W_V^+ (t - b_V)

    so that ``W_V p + b_V = t``, as far as W_V has an inverse: its pseudo-inverse leaves out singular values below
    D times the precision of fp32, in which weights come, relative to the largest.

    Args:
        drawn (Tensor): Random prompts r, (N_p, D).
        block (Attended): n + N_e < D.
        pull_back (str): 'exact' as above, or 'released': the authors' code, whose ``(W_V^+)^T (t - b_V)`` is
            orthogonal for an orthogonal W_V only. Defaults to 'exact'.

    Returns:
        Tensor: (N_p, D).
    """
    outputs, weight, bias = block
    basis = torch.linalg.qr(outputs.T).Q  # (D, n + N_e)
    values = drawn @ weight.T + bias
    targets = values - values @ basis @ basis.T
    inverse = torch.linalg.pinv(weight, rtol=len(weight) * torch.finfo(torch.float32).eps)
    return (targets - bias) @ (inverse.T if pull_back == 'exact' else inverse)


@TASK_UTILS.register_module()
class VIPAMINInit(PromptInitializer):
    r"""Mix of :func:`match` and :func:`orthogonalize`, block by block:

    .. math:: P = (1 - \lambda) P_{match} + \lambda P_{orth}

    P_match starts from prompts U(-v, v) of VPT, inserted in place of the model's own; P_orth from others of that
    kind. Source: the paper and the authors' code, https://github.com/iamjaekyun/vipamin at 6fd8df3,
    ``load_match.py``, ``load_match_deep.py``, ``load_orth.py``, ``load_orth_deep.py``.

    As in the paper, the algebra passes over the LayerNorm in front of W_V: W_V p + b_V is orthogonal to the attention
    outputs of the average image, the value that the network makes of p, W_V LN(p) + b_V, is not; and P, for
    0 < lambda < 1, is neither.

    Args:
        k (int): Patches for each prompt; the authors try 2, 8, 32 and 128. Defaults to 32.
        lam (float): lambda, from 0 to 1; the authors try 0, 0.5 and 1. Defaults to 0.5.
        orthogonal (str): 'exact' or 'released', see :func:`orthogonalize`. Defaults to 'exact'.

    Raises:
        ValueError: An option out of its range.
    """
    images = 256
    method = 'VIPAMIN'

    def __init__(self, k: int = 32, lam: float = 0.5, orthogonal: str = 'exact') -> None:
        if not isinstance(k, int) or isinstance(k, bool) or k < 1:
            raise ValueError(f'k must be a whole number of at least 1, got {k!r}: the authors try 2, 8, 32 and 128')
        if isinstance(lam, bool) or not isinstance(lam, (int, float)) or not 0 <= lam <= 1:
            raise ValueError(f'lam must lie in [0, 1], got {lam!r}: 0 takes matched prompts alone, 1 orthogonal ones')
        if orthogonal not in PULL_BACKS:
            raise ValueError(f'orthogonal must be one of {PULL_BACKS}, got {orthogonal!r}')
        self.k = k
        self.lam = lam
        self.orthogonal = orthogonal

    def start(self, network: Any, images: ImageStream, generator: torch.Generator) -> Tensor | None:
        blocks = self.read_blocks(network, images)
        if not dist.is_main_process():
            return None
        bound = _bound(network)
        return self.mix(blocks, network.prompts.shape, bound, generator, images.device)

    def read_blocks(self, network: Any, images: ImageStream) -> list[BlockMeans]:
        """Average over the images of all processes what the first L' blocks read; every process must call it.

        Args:
            network (PromptedViT): In eval mode; L' is the number of its prompts' blocks.
            images (ImageStream): Of one size.

        Returns:
            list[BlockMeans]: L' times, in double precision.

        Raises:
            ValueError: No image, images of different numbers of patches, or sizes that give no prompts.
        """
        shape = network.prompts.shape
        draw = torch.Generator().manual_seed(derive_seed(images.seed, 'inserted'))
        inserted = draw_uniform(shape, _bound(network), draw).to(network.pos_embed)
        own_keys: list[Tensor] = []

        def sums_of(batch: Tensor) -> Iterator[tuple[tuple[str, int], Tensor]]:
            if self.lam < 1:
                if not own_keys:  # here, in the precision of the patches' keys
                    own_keys.extend(_mean_keys(layer, own) for layer, own in zip(network.layers, inserted,
                                                                                 strict=False))
                for i, (patches, keys) in enumerate(patch_and_key_sums(network, batch, inserted)):
                    self._check_patches(len(patches))
                    yield ('patches', i), patches
                    yield ('keys', i), keys
            if self.lam > 0:
                for i, outputs in enumerate(attended_sums(network, batch, shape[0])):
                    _check_tokens(*outputs.shape)
                    yield ('outputs', i), outputs

        sums = average(images, sums_of)
        return [BlockMeans(
            Matchable(sums['patches', i], sums['keys', i], own_keys[i]) if self.lam < 1 else None,
            Attended(sums['outputs', i], *linear_map(network.layers[i].attn, 2)) if self.lam > 0 else None)
            for i in range(shape[0])]

    def mix(self, blocks: Iterable[BlockMeans], shape: Sequence[int], bound: float, generator: torch.Generator,
            device: torch.device | str = 'cpu') -> Tensor:
        """Compute the prompts of all blocks, in double precision.

        Args:
            blocks (Iterable[BlockMeans]): L' times what it reads of the block.
            shape (Sequence[int]): (L', N_p, D).
            bound (float): v of the random prompts that P_orth starts from.
            generator (torch.Generator): Source of randomness, on the CPU.
            device (torch.device | str): Where the work may be done. Defaults to 'cpu'.

        Returns:
            Tensor: (L', N_p, D), fp32, finite.

        Raises:
            ValueError: Means or prompts that are not as they must be.
        """
        device = device if torch.device(device).type in ('cpu', 'cuda') else 'cpu'  # others may lack double precision
        prompts = []
        for number, block in enumerate(blocks, 1):
            mixed, norms = torch.zeros(*shape[1:], dtype=torch.float64, device=device), {}
            if block.matchable is not None and self.lam < 1:
                seen = Matchable(*checked(block.matchable, number, device))
                self._check_patches(len(seen.patches))
                matched = match(seen, self.k)
                mixed += (1 - self.lam) * matched
                norms['matched'] = matched.norm(dim=1).mean()
            if block.attended is not None and self.lam > 0:
                attended = Attended(*checked(block.attended, number, device))
                _check_tokens(*attended.outputs.shape)
                orthogonal = orthogonalize(draw_uniform((1, *shape[1:]), bound, generator)[0].to(mixed), attended,
                                           self.orthogonal)
                mixed += self.lam * orthogonal
                norms['orthogonal'] = orthogonal.norm(dim=1).mean()
            prompts.append(mixed.float().cpu())
            listed = ', '.join(f'{name} prompts {norm:.3g}' for name, norm in norms.items())
            MMLogger.get_current_instance().info(f'VIPAMIN, block {number}: mean norm of {listed}')
        return check_prompts(torch.stack(prompts), tuple(shape), type(self).__name__)

    def _check_patches(self, num_patches: int) -> None:
        if self.k > num_patches:
            raise ValueError(f'k must not exceed the number of patches of an image, {num_patches}, got {self.k}: '
                             'lower k, or take larger images')


def patch_and_key_sums(network: Any, images: Tensor, prompts: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Sum patch tokens and their keys in the network that reads given prompts, as deep ones where they are many.

    A method's gates and logit scales do not act.

    Args:
        network (PromptedViT): In eval mode. Its own prompts are left aside.
        images (Tensor): (B, 3, H, W).
        prompts (Tensor): (L', N_p, D), for blocks 1, ..., L' in place of its own.

    Yields:
        tuple[Tensor, Tensor]: For block i, sums over images of the patch tokens that it reads, (N_e, D), and of their
        keys, mean over heads, (N_e, d).
    """
    for layer, x in block_inputs(network, images, len(prompts), prompts):
        patches = x[:, network.num_extra_tokens:]
        yield sum_images(patches), sum_images(_mean_keys(layer, patches))


def attended_sums(network: Any, images: Tensor, num_blocks: int) -> Iterator[Tensor]:
    """Sum the attention outputs, before their projection, in the network without prompts.

    Args:
        network (PromptedViT): In eval mode. Its own prompts, gates and logit scales are left aside.
        images (Tensor): (B, 3, H, W).
        num_blocks (int): How many blocks.

    Yields:
        Tensor: For block i, the sum over images, heads side by side, (n + N_e, D), n the number of CLS and
            registers.
    """
    for layer, x in block_inputs(network, images, num_blocks):
        yield sum_images(gather_values(layer.attn, layer.ln1(x)))


def _mean_keys(layer: Any, x: Tensor) -> Tensor:
    """Keys of tokens, mean over heads: (..., N, D) to (..., N, d)."""
    return project(layer.attn, layer.ln1(x), 1, 2).mean(dim=(-3, -2))


def _bound(network: Any) -> float:
    return uniform_bound(network.patch_size, network.embed_dims, network.patch_embed.projection.in_channels)


def _check_tokens(num_tokens: int, embed_dims: int) -> None:
    """Raise ValueError if an image's n + N_e tokens leave none of D directions orthogonal to them."""
    if num_tokens >= embed_dims:
        raise ValueError('the tokens of an image must be fewer than their features, got '
                         f'{num_tokens} tokens of {embed_dims} features: the attention outputs then span all '
                         'directions. Set lam=0, or take smaller images or a wider model')
