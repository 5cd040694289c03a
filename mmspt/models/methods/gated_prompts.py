r"""Shallow prompts that learn which blocks may change them: GateVPT (https://arxiv.org/abs/2306.05067)."""
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmspt.registry import MODELS

from .prompt_method import FoldedPrompts
from .token_prompts import TokenPrompts

TEMPERATURES = (0.01, 10.)
"""The range that temperatures are kept in."""


@MODELS.register_module()
class GatedPrompts(TokenPrompts):
    r"""Prompts for block 1, a gate behind each block but the last, and a temperature for each block's attention.

    Block i = 1..L reads the prompts P_{i-1} that the gates of the blocks before it let through,

    .. math::
        [c_i; \tilde P_i; E_i] &= B_i([c_{i-1}; P_{i-1}; E_{i-1}]; t_i), \\
        P_i &= g_i \tilde P_i + (1 - g_i) P_{i-1}, \quad g_i = sigmoid(l_i) \quad (i < L)

    where B_i(.; t_i) divides its attention logits by t_i. Source: the authors' code,
    https://github.com/ryongithub/GatedPromptTuning at a9200bb, ``src/models/vit_prompt/vit_mae.py``.

    Args:
        num_prompts (int): N_p. Defaults to 100.
        gate_start (float): l_i at the start; the more negative, the less a block changes the prompts. Defaults to -5.
        **kwargs: Those of :class:`.PromptMethod`, given by the network.

    Attributes:
        tokens (Parameter): (1, N_p, D), starts as VPT's uniform prompts.
        gate_logits (Parameter): l_i, (L - 1,).
        temperatures (Parameter): t_i, (L,), starts at 1. Before use, values outside of [0.01, 10] are replaced by its
            ends, in place while it trains: the gradient is that at the ends.

    Raises:
        ValueError: An argument out of its range, or a network of one block.
    """
    name: ClassVar[str | None] = 'GateVPT'
    deep: ClassVar[bool] = False
    usual_num_prompts: ClassVar[int] = 100

    def __init__(self, num_prompts: int = 100, gate_start: float = -5., **kwargs: Any) -> None:
        super().__init__(num_prompts, **kwargs)
        if self.num_layers < 2:
            raise ValueError(f'GatedPrompts need at least 2 blocks, got {self.num_layers}: gates stand between '
                             'blocks; one block is for mmspt.ShallowPrompts')
        if isinstance(gate_start, bool) or not isinstance(gate_start, (int, float)) or not abs(gate_start) <= 100:
            raise ValueError(f'gate_start must be a number from -100 to 100, got {gate_start!r}: the authors start at '
                             '-5, where 0.7 % of what a block changes goes on')
        self.gate_start = float(gate_start)
        self.gate_logits = nn.Parameter(torch.empty(self.num_layers - 1))
        self.temperatures = nn.Parameter(torch.empty(self.num_layers))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.constant_(self.gate_logits, self.gate_start)
        nn.init.ones_(self.temperatures)

    def forward(self) -> FoldedPrompts:
        temperatures: Tensor = self.temperatures
        if self.training and torch.is_grad_enabled():
            temperatures.data.clamp_(*TEMPERATURES)  # no write that a graph in the making would take note of
        else:
            temperatures = temperatures.clamp(*TEMPERATURES)
        return FoldedPrompts(self.tokens, temperatures.reciprocal(), self.gate_logits.sigmoid())

    def unfold(self, folded: FoldedPrompts) -> dict[str, Tensor]:
        scale = torch.ones(self.num_layers) if folded.logit_scale is None else folded.logit_scale
        gate = torch.ones(self.num_layers - 1) if folded.gate is None else folded.gate
        # a gate that was rounded to 1 or 0 has no finite logit
        return dict(tokens=folded.tokens, gate_logits=gate.logit(eps=1e-7), temperatures=scale.reciprocal())
