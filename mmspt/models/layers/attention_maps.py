"""Where each token of a prompted block looks: the attention weights, which the network itself never writes down."""
import torch
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from torch import Tensor

from .prompted_block import project


@torch.no_grad()
def attention_maps(block: TransformerEncoderLayer, tokens: Tensor, prompts: Tensor,
                   num_extra_tokens: int = 1, logit_scale: Tensor | None = None) -> Tensor:
    r"""Attention weights of a block on [CLS; prompts; patches], in fp32.

    With X = LN([CLS; P; E]), head by head,

    .. math:: A = softmax(X W_q (X W_k)^T / \sqrt{d})

    as in the network of VPT (https://arxiv.org/abs/2203.12119, eq. 5), where prompts are tokens like all others. Row q
    tells how token q shares its attention among the keys, and sums to 1. In a deep model
    :class:`.PromptedBlock` never asks with the prompts, since what they would output is thrown away: their rows tell
    what they would look at; their columns, which tokens read them, are what acts.

    Args:
        block (TransformerEncoderLayer): With H heads of d features.
        tokens (Tensor): What the block reads beside prompts, (B, n + N_e, D).
        prompts (Tensor): (N_p, D), or (B, N_p, D) where they travelled.
        num_extra_tokens (int): n, CLS and registers: the prompts stand behind them. Defaults to 1.
        logit_scale (Tensor | None): Factor of the attention logits, (); None is 1.

    Returns:
        Tensor: (B, H, queries, keys), both n + N_p + N_e.
    """
    prompts = prompts.to(tokens.dtype).expand(len(tokens), *prompts.shape[-2:])
    x = torch.cat((tokens[:, :num_extra_tokens], prompts, tokens[:, num_extra_tokens:]), dim=1)
    query, keys = project(block.attn, block.ln1(x), 0, 2).float().permute(2, 0, 3, 1, 4)  # (B, H, n + N_p + N_e, d)
    scale = query.shape[-1]**-0.5 if logit_scale is None else query.shape[-1]**-0.5 * logit_scale
    return torch.softmax(scale * (query @ keys.transpose(-2, -1)), dim=-1)
