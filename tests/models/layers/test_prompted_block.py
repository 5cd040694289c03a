"""A block with prompts as keys and values against the stock block on prompts and tokens side by side."""
import pytest
import torch
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from torch.utils.flop_counter import FlopCounterMode

from mmspt.models.layers import PromptedBlock
from mmspt.models.layers.prompted_block import prompt_keys_values

B, N, N_P, D = 3, 7, 5, 32
KINDS = [dict(layer_scale_init_value=0.1, norm_cfg=dict(type='LN', eps=1e-2)), dict(qkv_bias=False, num_fcs=3),
         dict(ffn_type='swiglu_fused')]


def blocks(**kwargs):
    """The stock block and ours with the same random weights."""
    torch.manual_seed(0)
    pair = [TransformerEncoderLayer(D, 4, 2 * D, **kwargs) for _ in range(2)]
    for parameter in pair[0].parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    pair[1].load_state_dict(pair[0].state_dict())
    PromptedBlock.adopt(pair[1])
    return pair


def prompted(block, x, prompts, num_queries=None, pool_from=None):
    return block(x, prompt_keys_values(block, prompts), None, num_queries, pool_from)


def side_by_side(block, x, prompts):
    """[x; prompts] through the stock block; its outputs in the places of x."""
    return block(torch.cat([x, prompts.expand(len(x), N_P, D)], 1))[:, :x.shape[1]]


@pytest.mark.parametrize('kwargs', KINDS, ids=str)
@pytest.mark.parametrize(('num_queries', 'pool_from'), [(None, None), (1, None), (None, 0), (None, 1)])
@pytest.mark.parametrize('shape', [(N_P, D), (B, N_P, D)], ids=['shared', 'by image'])
@pytest.mark.parametrize('training', [False, True])
def test_outputs_and_gradients(kwargs, num_queries, pool_from, shape, training):
    stock, ours = blocks(**kwargs)
    x, prompts = torch.randn(B, N, D, requires_grad=True), torch.randn(shape, requires_grad=True)
    expected = side_by_side(stock, x, prompts)[:, :num_queries]
    expected = expected if pool_from is None else expected[:, pool_from:].mean(1)
    actual = prompted(ours.train(training), x, prompts, num_queries, pool_from)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    weight = torch.randn_like(expected)
    for a, e in zip(torch.autograd.grad((actual * weight).sum(), [x, prompts, *ours.parameters()]),
                    torch.autograd.grad((expected * weight).sum(), [x, prompts, *stock.parameters()]), strict=True):
        assert (a - e).abs().max() <= 1e-5 * e.abs().max()


def test_mean_under_dropout_is_the_mean_of_what_is_dropped():
    _, ours = blocks(drop_rate=0.5)
    x = torch.randn(B, N, D)
    torch.manual_seed(1)
    expected = ours(x).mean(1)
    torch.manual_seed(1)
    torch.testing.assert_close(ours(x, None, None, None, 0), expected)


def test_dropout_of_attention_and_path_follow_the_mode():
    _, ours = blocks(attn_drop_rate=0.5, drop_path_rate=0.5, drop_rate=0.5)
    x, prompts = torch.randn(B, N, D), torch.randn(N_P, D)
    assert not torch.equal(prompted(ours.train(), x, prompts), prompted(ours, x, prompts))
    assert torch.equal(prompted(ours.eval(), x, prompts), prompted(ours, x, prompts))


def products(call):
    """Floating-point operations of the matrix products outside attention."""
    with FlopCounterMode(display=False) as counter:
        call()
    return sum(count for op, count in counter.get_flop_counts()['Global'].items() if 'mm' in str(op))


def test_cost():
    """Prompts cost N_p rows times D x 2D, whatever the batch size; one query saves rows of queries, projection and MLP,
    a mean rows of the MLP's last map."""
    _, ours = blocks()
    x, prompts = torch.randn(B, N, D), torch.randn(N_P, D)
    whole = products(lambda: ours.eval()(x))
    assert products(lambda: prompted(ours, x, prompts)) - whole == 2 * N_P * D * 2 * D
    rows = 2 * B * (N - 1)
    assert whole - products(lambda: ours(x, None, None, 1)) == rows * (D * D + D * D + 2 * D * 2 * D)
    assert whole - products(lambda: ours(x, None, None, None, 0)) == rows * 2 * D * D
