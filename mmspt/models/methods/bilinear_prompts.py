r"""Prompts that are a product of two thin factors: BPT (https://arxiv.org/abs/2506.22908)."""
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmspt.registry import MODELS

from .prompt_method import FoldedPrompts, PromptMethod

FIT = 5e-3
"""The share of a block's folded prompts, by norm, that factors may miss when a pack is loaded: bf16's rounding."""
TINY = 1e-6
"""Singular values below this share of the largest count as none."""


class BilinearPrompts(PromptMethod):
    r"""Prompts of block i are A_i B_i^T, with coefficients A_i (N_p, p) and a basis B_i (D, p).

    Source: the paper, and the authors' code, https://github.com/WangYZ1608/BPT at 2f1ca0c.

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
        with torch.autocast(self.coefficients.device.type, enabled=False):  # tokens of other methods are not rounded
            return FoldedPrompts(self.coefficients @ torch.stack(list(self.bases)).mT)

    @torch.no_grad()
    def start_from(self, prototypes: Tensor) -> None:
        r"""Take the best fit of this rank, ``U_p S_p V_p^T``, its singular values shared between the factors.

        Where the prompts have a rank below p, the coefficients that are left over start at 0, their basis as it is, so
        that a gradient reaches them.
        """
        for i, (coefficients, basis) in enumerate(map(self._factorize, prototypes)):
            self.coefficients[i].zero_()[:, :basis.shape[1]].copy_(coefficients)
            self.bases[i][:, :basis.shape[1]].copy_(basis)

    def unfold(self, folded: FoldedPrompts) -> dict[str, Tensor]:
        if folded.logit_scale is not None or folded.gate is not None:
            raise ValueError(f'{type(self).__name__} holds prompt tokens alone, but this pack has gates or logit '
                             'scales as well: set model.backbone.prompts to the method that it was tuned by')
        parameters = {'coefficients': torch.zeros(self.coefficients.shape, dtype=folded.tokens.dtype)}
        for i, tokens in enumerate(folded.tokens.cpu()):
            coefficients, basis = self._factorize(tokens)
            missed = (tokens - coefficients @ basis.T).norm() / tokens.norm().clamp(min=1e-30)
            if missed > FIT:
                raise ValueError(f'prompts of a pack must be products of rank {self.rank}, but of those of block '
                                 f'{i + 1} {missed:.1%} are left over: set model.backbone.prompts to the method that '
                                 'they were tuned by, or raise its rank')
            parameters['coefficients'][i, :, :basis.shape[1]] = coefficients
            parameters[f'bases.{i}'] = self.bases[i].detach().to('cpu', tokens.dtype, copy=True)
            parameters[f'bases.{i}'][:, :basis.shape[1]] = basis
        return parameters

    def _factorize(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the best factors of one block's tokens (N_p, D), (N_p, q) and (D, q), q at most p and their rank."""
        u, s, vh = torch.linalg.svd(tokens.double(), full_matrices=False)
        count = min(self.rank, int((s > TINY * s[0]).sum()))
        root = s[:count].sqrt()
        return (u[:, :count] * root).to(tokens.dtype), (vh[:count].T * root).to(tokens.dtype)


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
