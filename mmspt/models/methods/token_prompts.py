"""Prompt tokens that are tuned themselves: VPT (https://arxiv.org/abs/2203.12119), SPT (https://arxiv.org/abs/2402.02382)."""
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmspt.registry import MODELS

from .prompt_method import FoldedPrompts, PromptMethod


class TokenPrompts(PromptMethod):
    """The tuned parameter is the prompt tokens; it starts as VPT's U(-v, v), or as prototypes.

    Attributes:
        tokens (Parameter): (L, N_p, D) if deep, (1, N_p, D) if shallow.
    """

    def __init__(self, num_prompts: int = 20, **kwargs: Any) -> None:
        super().__init__(num_prompts, **kwargs)
        self.tokens = nn.Parameter(torch.empty(self.shape))

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.tokens, -self.bound, self.bound)

    def forward(self) -> FoldedPrompts:
        return FoldedPrompts(self.tokens)

    @torch.no_grad()
    def start_from(self, prototypes: Tensor) -> None:
        self.tokens.copy_(prototypes)

    def unfold(self, folded: FoldedPrompts) -> dict[str, Tensor]:
        if folded.logit_scale is not None or folded.gate is not None:
            raise ValueError(f'{type(self).__name__} holds prompt tokens alone, but this pack has gates or logit '
                             'scales as well: set model.backbone.prompts to the method that it was tuned by, such as '
                             "dict(type='mmspt.GatedPrompts')")
        return dict(tokens=folded.tokens)


@MODELS.register_module()
class DeepPrompts(TokenPrompts):
    """VPT-Deep and SPT-Deep: prompts of its own for every block. See :class:`TokenPrompts`.

    Args:
        num_prompts (int): N_p. Defaults to 20.
        **kwargs: Those of :class:`.PromptMethod`, given by the network.
    """


@MODELS.register_module()
class ShallowPrompts(TokenPrompts):
    """VPT-Shallow and SPT-Shallow: prompts for block 1, which travel through all. See :class:`TokenPrompts`.

    Args:
        num_prompts (int): N_p. Defaults to 20.
        **kwargs: Those of :class:`.PromptMethod`, given by the network.
    """
    deep: ClassVar[bool] = False
    usual_num_prompts: ClassVar[int] = 100
