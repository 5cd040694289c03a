"""VIPAMIN's algebra; tests/engine/test_vipamin_in_runs.py compares whole prompts with plain loops."""
import math

import numpy as np
import pytest
import torch
from mmpretrain.models.utils import MultiheadAttention

from helpers import rng
from mmspt.models.layers.prompted_block import linear_map
from mmspt.prompts import VIPAMINInit
from mmspt.prompts.vipamin import Attended, BlockMeans, Matchable, match, orthogonalize
from written_out import LowRank

N_E, N_P, D, HEAD = 12, 5, 24, 6
SHAPE = 2, N_P, D
BOUND = math.sqrt(6 / (3 * 64 + D))


def make_block(seed=0, num_patches=N_E, bias=True):
    """Random means of a block with CLS, in fp64."""
    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    generator = rng(seed)
    return BlockMeans(
        Matchable(draw(num_patches, D), draw(num_patches, HEAD), draw(N_P, HEAD)),
        Attended(draw(1 + num_patches, D), draw(D, D), draw(D) if bias else torch.zeros(D, dtype=torch.float64)))


def loop_orthogonal(drawn, block):
    """Prompt by prompt with NumPy: Gram-Schmidt for the projection, the inverse for the way back."""
    outputs, weight, bias = (part.numpy() for part in block)
    basis = []
    for row in outputs:
        for direction in 2 * basis:
            row = row - (row @ direction) * direction
        basis.append(row / np.linalg.norm(row))
    inverse, prompts = np.linalg.inv(weight), []
    for r in drawn.numpy():
        value = np.array([sum(weight[i, j] * r[j] for j in range(D)) + bias[i] for i in range(D)])
        for direction in basis:
            value = value - (value @ direction) * direction
        prompts.append(inverse @ (value - bias))
    return torch.from_numpy(np.stack(prompts))


def in_span(values, outputs):
    """Largest share of a vector's length that lies in the span of ``outputs``' rows, by least squares."""
    solution = np.linalg.lstsq(outputs.numpy().T, values.numpy().T, rcond=None)[0]
    inside = outputs.numpy().T @ solution
    return float((np.linalg.norm(inside, axis=0) / np.linalg.norm(values.numpy().T, axis=0)).max())


def test_prompts_never_match_prompts():
    """Keys of all prompts are one and the same, and far from every patch's: they still get patches."""
    block = make_block().matchable
    direction = torch.ones(HEAD, dtype=torch.float64)
    patch_keys = block.patch_keys - block.patch_keys @ direction[:, None] * direction / HEAD - 0.1 * direction
    prompts = match(Matchable(block.patches, patch_keys, direction.repeat(N_P, 1)), 3)
    torch.testing.assert_close(prompts, prompts[:1].expand(N_P, -1))
    assert any(torch.allclose(prompts[0], block.patches[[i, j, h]].mean(dim=0))
               for i in range(N_E) for j in range(i) for h in range(j))


@pytest.mark.parametrize('num_tokens', [2, D - 2])
def test_exact_is_orthogonal_and_released_is_not(num_tokens):
    block = make_block(0, num_tokens).attended
    drawn = torch.randn(N_P, D, generator=rng(7), dtype=torch.float64)
    shares = {pull_back: in_span(orthogonalize(drawn, block, pull_back) @ block.value_weight.T + block.value_bias,
                                 block.outputs) for pull_back in ('exact', 'released')}
    assert shares['exact'] < 1e-10
    assert shares['released'] > 0.1


def test_directions_that_fp32_cannot_tell_are_left_out():
    """A value direction with a weight of rounding noise would need a prompt of astronomic length."""
    block = make_block(bias=False).attended
    left, values, right = torch.linalg.svd(block.value_weight)
    values[-1] = 1e-9 * values[0]
    noisy = Attended(block.outputs, left * values @ right, block.value_bias)
    drawn = torch.randn(N_P, D, generator=rng(7), dtype=torch.float64)
    unbounded = loop_orthogonal(drawn, noisy)
    assert float((unbounded @ right[-1]).abs().min()) > 1e4
    expected = unbounded - (unbounded @ right[-1])[:, None] * right[-1]
    torch.testing.assert_close(orthogonalize(drawn, noisy), expected, rtol=1e-5, atol=1e-5)


def fill(blocks=None, seed=0, **kwargs):
    blocks = [make_block(0), make_block(1)] if blocks is None else blocks
    return VIPAMINInit(**dict(dict(k=4), **kwargs)).mix(iter(blocks), SHAPE, BOUND, rng(seed))


@pytest.mark.parametrize(('lam', 'unread'), [(0, 'attended'), (1, 'matchable')])
def test_parts_that_lambda_leaves_out_are_not_read(lam, unread):
    blocks = [make_block(0), make_block(1)]
    prompts = fill(blocks, lam=lam)
    assert torch.equal(fill([block._replace(**{unread: None}) for block in blocks], lam=lam), prompts)
    assert torch.equal(fill(blocks, seed=1, lam=lam), prompts) == (lam == 0), 'matching draws nothing of its own'


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('wrapped', [True, False])
def test_value_projection_is_the_values_map(bias, wrapped):
    attn, x = MultiheadAttention(32, 2, qkv_bias=bias), torch.randn(7, 32)
    if wrapped:
        attn.qkv = LowRank(attn.qkv)
    with torch.autocast('cpu'):
        weight, offset = linear_map(attn, 2)
    assert weight.shape == (32, 32) and offset.shape == (32, ) and not weight.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(x @ weight.T + offset, attn.qkv(x)[:, 64:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(('kwargs', 'message'), [
    (dict(k=0), 'k must be a whole number of at least 1, got 0: the authors try 2, 8, 32 and 128'),
    (dict(lam=-0.1), r'lam must lie in \[0, 1\], got -0.1: 0 takes matched prompts alone'),
    (dict(lam=float('nan')), r'lam must lie in \[0, 1\], got nan'),
    (dict(orthogonal='transpose'), r"orthogonal must be one of \('exact', 'released'\), got 'transpose'"),
])
def test_options_out_of_range(kwargs, message):
    with pytest.raises(ValueError, match=message):
        VIPAMINInit(**kwargs)


@pytest.mark.parametrize('lam', [0, 0.5])
def test_more_patches_wanted_than_there_are(lam):
    with pytest.raises(ValueError, match='k must not exceed the number of patches of an image, 12, got 13: lower k'):
        fill(k=N_E + 1, lam=lam)
    assert fill(k=N_E + 1, lam=1).isfinite().all()  # orthogonal prompts match no patches


@pytest.mark.parametrize('lam', [0.5, 1])
def test_no_direction_left(lam):
    blocks = [make_block(0, D - 1), make_block(1, D - 1)]
    with pytest.raises(ValueError, match=f'got {D} tokens of {D} features: .* Set lam=0, or take smaller'):
        fill(blocks, lam=lam)
    assert fill(blocks, lam=0).isfinite().all()


@pytest.mark.parametrize(('half', 'part', 'value'), [(0, 2, float('inf')), (1, 1, float('nan'))])
def test_means_that_are_not_finite(half, part, value):
    blocks = [make_block(0), make_block(1)]
    blocks[1][half][part][-1] = value
    with pytest.raises(ValueError, match=r'what block 2 reads .* must be finite, .*: check the checkpoint, and'):
        fill(blocks)


def test_wrong_number_of_blocks():
    with pytest.raises(ValueError, match=r'= \(2, 5, 24\), VIPAMINInit gives \(3, 5, 24\)'):
        fill([make_block()] * 3)
