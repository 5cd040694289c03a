"""Small networks with drawn weights, and the methods written out on MMPretrain's own modules as an oracle."""
import copy

import torch
from mmpretrain.models import VisionTransformer
from mmpretrain.models.utils import resize_pos_embed
from mmpretrain.registry import MODELS

from helpers import SMALL

METHODS = dict(deep=dict(prompt_type='deep'), shallow=dict(prompt_type='shallow'),
               gated=dict(prompts=dict(type='mmspt.GatedPrompts')))
READERS = [dict(out_type='cls_token'), dict(out_type='avg_featmap', final_norm=False)]
CASES = [
    *READERS,
    dict(out_type='cls_token', out_indices=[0, 1]),
    dict(out_type='avg_featmap', final_norm=False, num_registers=3, layer_scale_init_value=0.1),
    dict(out_type='raw', num_registers=2, out_indices=[0, 2]),
    dict(out_type='cls_avg_featmap', num_registers=2, layer_scale_init_value=0.1),
    dict(out_type='raw', out_indices=[0, 2], layer_scale_init_value=0.1, pre_norm=True),
    dict(out_type='featmap', with_cls_token=False),
    dict(out_type='avg_featmap', final_norm=False, out_indices=[0, 1, 2]),
    dict(out_type='avg_featmap', final_norm=False, with_cls_token=False, pool_prompts=False, qkv_bias=False,
         frozen=False),
]


def build(method='deep', **kwargs):
    """A PromptedViT of 3 blocks, width 32 and 4 prompts, in training mode; all its parameters are drawn."""
    net = MODELS.build(dict(type='mmspt.PromptedViT', num_prompts=4, allow_random_backbone=True) | SMALL |
                       METHODS[method] | copy.deepcopy(kwargs))
    torch.manual_seed(3)
    for name, parameter in net.named_parameters():
        torch.nn.init.normal_(parameter, std=2. if name == 'prompts.gate_logits' else 0.2)
    if method == 'gated':
        torch.nn.init.uniform_(net.prompts.temperatures, 0.3, 3.)
    return net.train()


def written_out(net, images, with_cls_token=True, pre_norm=False, layer_scale_init_value=0., qkv_bias=True,
                num_registers=0, **others):
    """The network's outputs, and the tokens that each block reads, prompts being tokens of every block.

    Returns:
        tuple: Tensors for ``out_indices``, and L times (CLS and registers (B, n, D), prompts (B, N_p, D), patches
            (B, N_e, D)).
    """
    stock = VisionTransformer(**SMALL, with_cls_token=with_cls_token, pre_norm=pre_norm, qkv_bias=qkv_bias,
                              layer_scale_init_value=layer_scale_init_value, out_type='raw', final_norm=False)
    own = dict(net.named_parameters())
    for name, _ in list(stock.named_parameters()):
        *path, last = name.split('.')
        setattr(stock.get_submodule('.'.join(path)), last, own[name])
    n, count = int(with_cls_token), net.prompts.tokens.shape[1]
    temperatures = getattr(net.prompts, 'temperatures', torch.ones(3))
    patches, resolution = stock.patch_embed(images)
    x = torch.cat((stock.cls_token.expand(len(images), -1, -1), patches), dim=1) if n else patches
    x = x + resize_pos_embed(stock.pos_embed, stock.patch_resolution, resolution, 'bicubic', n)
    if num_registers:  # without position
        x = torch.cat((x[:, :n], net.register_tokens.expand(len(images), -1, -1), x[:, n:]), dim=1)
        n += num_registers
    x = stock.pre_norm(x)
    cls, prompts, patches = x[:, :n], None, x[:, n:]
    outs, read = [], []
    for i, layer in enumerate(stock.layers):
        if i < len(net.prompts.tokens):
            prompts = net.prompts.tokens[i].expand(len(images), -1, -1)
        read.append((cls, prompts, patches))
        x = torch.cat(read[-1], dim=1)
        mixed = []
        for query, key, value in zip(*(part.chunk(layer.attn.num_heads, dim=-1) for part in
                                       layer.attn.qkv(layer.ln1(x)).chunk(3, dim=-1)), strict=True):
            logits = query @ key.transpose(1, 2) / query.shape[-1]**0.5 / temperatures[i]
            mixed.append(logits.softmax(dim=-1) @ value)
        x = x + layer.attn.gamma1(layer.attn.proj(torch.cat(mixed, dim=-1)))
        x = layer.ffn(layer.ln2(x), identity=x)
        last = i == len(stock.layers) - 1
        if last and net.final_norm:
            x = net.ln1(x)
        cls, after, patches = x.split((n, count, x.shape[1] - n - count), dim=1)
        if hasattr(net.prompts, 'gate_logits') and not last:
            gate = 1 / (1 + torch.exp(-net.prompts.gate_logits[i]))
            after = gate * after + (1 - gate) * prompts
        prompts, x = after, torch.cat((cls, after, patches), dim=1)
        if i in net.out_indices:
            outs.append(dict(
                cls_token=lambda x=x: x[:, 0],
                cls_avg_featmap=lambda cls=cls, patches=patches: torch.cat((cls[:, 0], patches.mean(dim=1)), dim=1),
                raw=lambda cls=cls, patches=patches: torch.cat((cls, patches), dim=1),
                featmap=lambda patches=patches: patches.transpose(1, 2).unflatten(2, resolution),
                avg_featmap=lambda x=x, patches=patches: net.ln2(
                    (x[:, n:] if net.pool_prompts else patches).mean(dim=1)))[net.out_type]())
    return outs, read


def gradients(net, outs):
    """The gradients of a random linear function of all outputs, by the parameter's name."""
    torch.manual_seed(2)
    net.zero_grad()
    sum((out * torch.randn_like(out)).sum() for out in outs).backward()
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


def assert_close(actual, expected, relative):
    """Largest difference, relative to the largest expected value."""
    assert (actual - expected).abs().max() <= relative * expected.abs().max()


class LowRank(torch.nn.Module):
    """A projection that is not nn.Linear: it has neither weight nor bias of its own."""

    def __init__(self, linear):
        super().__init__()
        self.linear, self.down = linear, torch.nn.Parameter(torch.randn(2, linear.in_features))
        self.up = torch.nn.Parameter(torch.randn(linear.out_features, 2) / 10)

    def forward(self, x):
        return self.linear(x) + x @ self.down.T @ self.up.T
