"""Gates between prompts before and after a block (GateVPT, https://arxiv.org/abs/2306.05067)."""
import torch
from torch import Tensor


def gate_prompts(before: Tensor, after: Tensor, gate: Tensor, first: int, count: int) -> Tensor:
    r"""Let only a part of what a block makes of prompts go on:

    .. math:: P_i = g_i B_i(P_{i-1}) + (1 - g_i) P_{i-1}

    Args:
        before (Tensor): Tokens before the block, (B, N, D).
        after (Tensor): The same behind it.
        gate (Tensor): g_i, () or (B,).
        first (int): Where the prompts begin.
        count (int): How many there are.

    Returns:
        Tensor: (B, N, D).
    """
    extra, out, patches = after.split((first, count, after.shape[1] - first - count), dim=1)
    prompts = before[:, first:first + count]
    return torch.cat((extra, prompts + gate.to(out.dtype).reshape(-1, 1, 1) * (out - prompts), patches), dim=1)
