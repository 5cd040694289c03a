r"""Prompts that are a product of two thin factors: BPT (https://arxiv.org/abs/2506.22908)."""
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmspt.registry import MODELS

from .prompt_method import FoldedPrompts, PromptMethod

FIT = 0.02
"""The share of folded prompts, by norm, that factors of a rank may miss when a pack is loaded: half precision's."""


class BilinearPrompts(PromptMethod):
    r"""Prompts of block i are A_i B_i^T, with coefficients A_i (N_p, p) and a basis B_i (D, p).

    Source: the paper, and the authors' code, https://github.com/WangYZ1608/BPT at 9fc3c78.

    Args:
        num_prompts (int): N_p.
        rank (int): p.
        trained_bases (int | None): How many of the last blocks train their basis; 0 none, as the paper's fWhiten.
            Defaults to None: all of a shallow method's, of a deep one's those of the last third of the blocks.
        **kwargs: Those of :class:`.PromptMethod`, given by the network.

    Attributes:
        coefficients (Parameter): A, (L, N_p, p) if deep, (1, N_p, p) if shallow; starts normal, with deviation 0.02.
        bases (ParameterList): B of each block, (D, p); starts as Xavier's uniform numbers.

    Raises:
        ValueError: An argument out of its range.
    """
    usual_start: ClassVar[str] = 'WhitenedInit'

    def __init__(self, num_prompts: int, rank: int, trained_bases: int | None = None, **kwargs: Any) -> None:
        super().__init__(num_prompts, **kwargs)
        layers = self.shape[0]
        if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= self.embed_dims:
            raise ValueError(f'rank must be a whole number from 1 to the width {self.embed_dims}, got {rank!r}: the '
                             'authors take 50 (deep) and 75 (shallow)')
        if trained_bases is not None and (isinstance(trained_bases, bool) or not isinstance(trained_bases, int)
                                          or not 0 <= trained_bases <= layers):
            raise ValueError(f'trained_bases must be a whole number from 0 to {layers}, the number of blocks with '
                             f'prompts of their own, or None, got {trained_bases!r}')
        if trained_bases is None:
            trained_bases = max(1, layers // 3) if self.deep else 1
        self.rank = rank
        self.coefficients = nn.Parameter(torch.empty(layers, num_prompts, rank))
        self.bases = nn.ParameterList(
            nn.Parameter(torch.empty(self.embed_dims, rank), requires_grad=i >= layers - trained_bases)
            for i in range(layers))

    def reset_parameters(self) -> None:
        nn.init.normal_(self.coefficients, std=0.02)
        for basis in self.bases:
            nn.init.xavier_uniform_(basis)

    def forward(self) -> FoldedPrompts:
        return FoldedPrompts(self.coefficients @ torch.stack(list(self.bases)).mT)

    @torch.no_grad()
    def start_from(self, prototypes: Tensor) -> None:
        r"""Take the best fit of this rank, :math:`U_p S_p V_p^T`, its singular values shared between the factors.

        Where there are fewer prompts than p, the coefficients that are left over start at 0, their basis as it is.
        """
        coefficients, bases = self._factorize(prototypes)
        count = coefficients.shape[-1]
        self.coefficients.zero_()[..., :count].copy_(coefficients)
        for own, basis in zip(self.bases, bases, strict=True):
            own[:, :count].copy_(basis)

    def unfold(self, folded: FoldedPrompts) -> dict[str, Tensor]:
        if folded.logit_scale is not None or folded.gate is not None:
            raise ValueError(f'{type(self).__name__} holds prompt tokens alone, but this pack has gates or logit '
                             'scales as well: set model.backbone.prompts to the method that it was tuned by')
        coefficients, bases = self._factorize(folded.tokens)
        missed = (folded.tokens - coefficients @ bases.mT).norm() / folded.tokens.norm().clamp(min=1e-30)
        if missed > FIT:
            raise ValueError(f'prompts of a pack must be products of rank {self.rank}, but of these {missed:.1%} are '
                             'left over: set model.backbone.prompts to the method that they were tuned by, or raise '
                             'its rank')
        pad = (0, self.rank - coefficients.shape[-1])
        return dict(coefficients=nn.functional.pad(coefficients, pad)) | {
            f'bases.{i}': nn.functional.pad(basis, pad) for i, basis in enumerate(bases)}

    def _factorize(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the best factors of tokens (L, N_p, D), (L, N_p, q) and (L, D, q), q at most p and N_p."""
        u, s, vh = torch.linalg.svd(tokens.double(), full_matrices=False)
        u, s, vh = u[..., :self.rank], s[..., :self.rank].sqrt(), vh[:, :self.rank]
        return (u * s[:, None]).to(tokens.dtype), (vh.mT * s[:, None]).to(tokens.dtype)


@MODELS.register_module()
class DeepBilinearPrompts(BilinearPrompts):
    """BPT-Deep: prompts of its own for every block; the last third of the blocks trains the basis. See
    :class:`BilinearPrompts`.

    Args:
        num_prompts (int): N_p. Defaults to 50.
        rank (int): p. Defaults to 50.
        **kwargs: Those of :class:`BilinearPrompts`.
    """
    name: ClassVar[str | None] = 'BPT-Deep'
    usual_num_prompts: ClassVar[int] = 50

    def __init__(self, num_prompts: int = 50, rank: int = 50, **kwargs: Any) -> None:
        super().__init__(num_prompts, rank, **kwargs)


@MODELS.register_module()
class ShallowBilinearPrompts(BilinearPrompts):
    """BPT-Shallow: prompts for block 1, which travel through all. See :class:`BilinearPrompts`.

    Args:
        num_prompts (int): N_p. Defaults to 100.
        rank (int): p. Defaults to 75.
        **kwargs: Those of :class:`BilinearPrompts`.
    """
    name: ClassVar[str | None] = 'BPT-Shallow'
    deep: ClassVar[bool] = False
    usual_num_prompts: ClassVar[int] = 100
    usual_start: ClassVar[str] = 'DrawnInit'

    def __init__(self, num_prompts: int = 100, rank: int = 75, **kwargs: Any) -> None:
        super().__init__(num_prompts, rank, **kwargs)
