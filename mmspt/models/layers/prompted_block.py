"""A Transformer block that reads prompts as keys and values.

Where a block's outputs in the prompts' places are not read, prompts act through their keys and values alone: their
queries, projections and MLPs need not be computed, and their keys and values do not depend on the image.
"""
import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from mmcv.cnn.bricks.transformer import FFN
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from mmpretrain.models.utils import MultiheadAttention
from torch import Tensor, nn

SHORT = 200
"""Keys up to which attention in bf16 trains on a CPU in fp32: torch's bf16 kernel has a slow backward pass there."""


def project(attn: MultiheadAttention, x: Tensor, first: int, last: int) -> Tensor:
    """Project to queries (part 0), keys (1) and values (2), of which parts ``first`` to ``last - 1``.

    Args:
        attn (MultiheadAttention): H heads of d = D / H features.
        x (Tensor): Normalized tokens, (..., N, D).
        first (int): First part.
        last (int): Past the last part.

    Returns:
        Tensor: (..., N, last - first, H, d).
    """
    if type(attn.qkv) is nn.Linear and (first, last) != (0, 3):
        rows = slice(first * attn.embed_dims, last * attn.embed_dims)
        projected = F.linear(x, attn.qkv.weight[rows], None if attn.qkv.bias is None else attn.qkv.bias[rows])
    else:  # LoRA, quantized and the like know all three parts or nothing
        projected = attn.qkv(x)[..., first * attn.embed_dims:last * attn.embed_dims]
    return projected.unflatten(-1, (last - first, attn.num_heads, attn.head_dims))


@torch.no_grad()
def linear_map(attn: MultiheadAttention, part: int) -> tuple[Tensor, Tensor]:
    """Return weight (D, D) and bias (D, ) of queries (part 0), keys (1) or values (2), heads side by side; zeros where
    there is no bias."""
    qkv, dims = attn.qkv, attn.embed_dims
    if type(qkv) is nn.Linear:
        rows = slice(part * dims, (part + 1) * dims)
        weight = qkv.weight[rows].detach()
        return weight, weight.new_zeros(dims) if qkv.bias is None else qkv.bias[rows].detach()
    probe = next(qkv.parameters())
    inputs = torch.cat((probe.new_zeros(1, dims), torch.eye(dims, dtype=probe.dtype, device=probe.device)))
    with torch.autocast(inputs.device.type, enabled=False):
        outputs = project(attn, inputs, part, part + 1).flatten(1)  # (1 + D, D)
    return (outputs[1:] - outputs[0]).T, outputs[0]


def prompt_keys_values(block: TransformerEncoderLayer, prompts: Tensor) -> Tensor:
    """Compute the prompts' keys and values, once for all images.

    Args:
        block (TransformerEncoderLayer): The block that reads them.
        prompts (Tensor): (N_p, D), or (B, N_p, D) where they differ among images (dropout).

    Returns:
        Tensor: (N_p, 2, H, d) or (B, N_p, 2, H, d).
    """
    return project(block.attn, block.ln1(prompts), 1, 3)


def gather_values(attn: MultiheadAttention, x: Tensor, keys_values: Tensor | None = None,
                  num_queries: int | None = None, logit_scale: Tensor | None = None) -> Tensor:
    """Mean of all tokens' and prompts' values, weighted by attention: what the output projection reads.

    Args:
        attn (MultiheadAttention): H heads of d features.
        x (Tensor): Normalized tokens without prompts, (B, N, D).
        keys_values (Tensor | None): The prompts', (N_p, 2, H, d) or (B, N_p, 2, H, d).
        num_queries (int | None): How many of the N tokens ask, the others being keys and values only; None: all.
        logit_scale (Tensor | None): Factor of the attention logits, () or (B,).

    Returns:
        Tensor: (B, num_queries or N, D), heads side by side.
    """
    if num_queries is None:
        query, own = project(attn, x, 0, 3).split((1, 2), dim=2)  # one copy in the backward pass, indexing takes three
    else:
        query, own = project(attn, x[:, :num_queries], 0, 1), project(attn, x, 1, 3)
    query = query.squeeze(2).transpose(1, 2)  # (B, H, queries, d)
    if logit_scale is not None:
        query = query * logit_scale.to(query.dtype).reshape(-1, 1, 1, 1)
    if keys_values is not None:
        if torch.is_grad_enabled():
            query = query.contiguous()  # a view would keep the whole projection, beside its copy with the prompts
        own = torch.cat((keys_values.to(own.dtype).expand(x.shape[0], *keys_values.shape[-4:]), own), dim=1)
    keys, values = own.unbind(2)  # (B, N_p + N, H, d)
    dropout = attn.attn_drop if attn.training else 0.
    heads = query, keys.transpose(1, 2), values.transpose(1, 2)
    trains = torch.is_grad_enabled() and not torch.compiler.is_compiling()
    if trains and x.device.type == 'cpu' and query.dtype == torch.bfloat16 and own.shape[1] <= SHORT:
        with torch.autocast('cpu', enabled=False):
            out = attn.scaled_dot_product_attention(*(part.float() for part in heads), dropout_p=dropout)
    else:
        out = attn.scaled_dot_product_attention(*heads, dropout_p=dropout)
    return out.to(query.dtype).transpose(1, 2).flatten(2)


def attend(attn: MultiheadAttention, x: Tensor, keys_values: Tensor | None, num_queries: int | None = None,
           logit_scale: Tensor | None = None) -> Tensor:
    """Self-attention of the first tokens over all tokens and the prompts: :func:`gather_values`, projected.

    Returns:
        Tensor: (B, num_queries or N, D).
    """
    out = attn.proj(gather_values(attn, x, keys_values, num_queries, logit_scale))
    return attn.out_drop(attn.gamma1(attn.proj_drop(out)))


def pools_early(block: TransformerEncoderLayer) -> bool:
    """Whether :func:`mean_of_mlp` holds for a block: its MLP ends in one linear map, and nothing is dropped."""
    ffn = block.ffn
    return type(ffn) is FFN and ffn.add_identity and not any(
        module.training for module in (ffn.layers[-1], ffn.dropout_layer) if not isinstance(module, nn.Identity))


def mean_of_mlp(block: TransformerEncoderLayer, x: Tensor, first: int) -> Tensor:
    """Mean over tokens of ``x + MLP(LN(x))``, the MLP's last linear map applied to the mean: a third of a block less.

    Args:
        block (TransformerEncoderLayer): :func:`pools_early` holds for it.
        x (Tensor): Tokens after the attention, (B, N, D).
        first (int): Where the mean begins.

    Returns:
        Tensor: (B, D).
    """
    x = x[:, first:]
    hidden = block.ln2(x)
    for layer in block.ffn.layers[:-2]:
        hidden = layer(hidden)
    return x.mean(dim=1) + block.ffn.gamma2(block.ffn.layers[-2](hidden.mean(dim=1)))


class PromptedBlock(TransformerEncoderLayer):
    """MMPretrain's ViT block, with prompts as keys and values on demand; called with ``x`` alone it is the stock block.

    With tokens X (N of them) and prompts P, and LN, W_q, W_k, W_v, W_o, MLP the block's:

    .. math::
        K = LN([P; X]) W_k, V = LN([P; X]) W_v, A = softmax(LN(X) W_q K^T / \\sqrt{d}) V,
        X' = X + A W_o, X'' = X' + MLP(LN(X')),

    which is what VPT's block (https://arxiv.org/abs/2203.12119, eq. 5) on [P; X] outputs in the places of X.
    """

    @classmethod
    def adopt(cls, block: TransformerEncoderLayer) -> None:
        """Turn a stock block, in place, into this one: the same weights under the same names."""
        block.__class__ = cls
        for module in block.modules():
            if isinstance(module, DropPath):
                module.drop_prob = float(module.drop_prob)  # a NumPy scalar breaks torch.compile's graph at each call

    def forward(self, x: Tensor, keys_values: Tensor | None = None, logit_scale: Tensor | None = None,
                num_queries: int | None = None, pool_from: int | None = None) -> Tensor:
        """Compute the block. Arguments are passed by position: MMEngine's activation checkpointing knows no others.

        Args:
            x (Tensor): Tokens, (B, N, D).
            keys_values (Tensor | None): :func:`prompt_keys_values` of the prompts.
            logit_scale (Tensor | None): Factor of the attention logits, () or (B,).
            num_queries (int | None): Output the first so many tokens only; None outputs all.
            pool_from (int | None): Output the mean of the tokens from here on.

        Returns:
            Tensor: (B, num_queries or N, D); (B, D) if pooled.
        """
        if all(part is None for part in (keys_values, logit_scale, num_queries, pool_from)):
            return super().forward(x)
        asking = x if num_queries is None else x[:, :num_queries]
        x = asking + attend(self.attn, self.ln1(x), keys_values, num_queries, logit_scale)
        if pool_from is None:
            return self.ffn(self.ln2(x), identity=x)
        if pools_early(self):
            return mean_of_mlp(self, x, pool_from)
        return self.ffn(self.ln2(x), identity=x)[:, pool_from:].mean(dim=1)
