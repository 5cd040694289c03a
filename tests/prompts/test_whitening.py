"""BPT's start: whitening matrices against NumPy and by what they are for, and bases of them."""
import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS

from helpers import tiny_backbone
from mmspt.prompts import DrawnInit, KMeansInit, RandomSampleInit, UniformInit, WhitenedInit
from mmspt.prompts.whitening import draw_basis, whitening_matrix


class Images:
    """An image stream of given batches."""
    max_bytes, seed, device = None, 3, torch.device('cpu')

    def __init__(self, batches):
        self.batches = batches
        self.wanted = self.own = sum(map(len, batches))

    def read(self, consume, count=None):
        start, pairs = 0, []
        for batch in self.batches:
            pairs.append((list(range(start, start + len(batch))), batch))
            start += len(batch)
        return consume(iter(pairs), start)


def build(kind='Deep', **kwargs):
    vit = MODELS.build(tiny_backbone('mae_deep', num_prompts=None, prompts=dict(
        type=f'mmspt.{kind}BilinearPrompts', num_prompts=5, rank=6, **kwargs)))
    vit.init_weights()
    return vit.eval()


def parts(tokens=10, dims=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, dims, generator=generator, dtype=torch.float64) for rows in (tokens, dims, dims)]


def test_against_numpy():
    tokens, query, key = parts()
    mixed = query.numpy() @ key.numpy().T @ tokens.numpy().T
    u, s, _ = np.linalg.svd(mixed @ mixed.T / 16)
    expected = u @ np.diag((s + 1e-3 * s[0])**-0.5) @ u.T
    np.testing.assert_allclose(whitening_matrix(tokens, query, key, 1e-3), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize('rank', [10, 16])
def test_it_whitens_where_there_is_variance(rank):
    """W S W is the identity on the directions of the tokens, 0 on the others; and finite."""
    tokens, query, key = parts(rank)
    mixed = query @ key.T @ tokens.T
    s = mixed @ mixed.T / 16
    w = whitening_matrix(tokens, query, key, 1e-11)
    assert (w.isfinite().all() and torch.equal(w, w.T)) or torch.allclose(w, w.T)
    projection = mixed @ torch.linalg.pinv(mixed)  # onto the directions
    torch.testing.assert_close(w @ s @ w, projection, rtol=0, atol=1e-3)
    assert int(torch.linalg.matrix_rank(projection)) == rank


def test_a_constant_bounds_the_other_directions():
    tokens, query, key = parts(4)
    values = torch.linalg.eigvalsh(whitening_matrix(tokens, query, key, 1e-4))
    assert values.max() / values.min() == pytest.approx(np.sqrt((1 + 1e-4) / 1e-4), rel=1e-6)


def test_entries_of_each_row():
    matrix = torch.arange(64.).view(8, 8)
    basis = draw_basis(matrix, 5, torch.Generator().manual_seed(0))
    assert basis.shape == (8, 5)
    rows = [sorted(int(value) % 8 for value in row) for row in basis]
    assert all(int(value) // 8 == i for i, row in enumerate(basis) for value in row)
    assert all(len(set(row)) == 5 for row in rows) and len({tuple(row) for row in rows}) > 1


@pytest.mark.parametrize('kind', ['Deep', 'Shallow'])
def test_factors_of_the_network(kind):
    """By forward hooks on MMPretrain's blocks, whatever the batches: B is entries of W; A is normal."""
    vit = build(kind)
    images = torch.randn(12, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    one, two = (WhitenedInit().start(vit, Images(images.split(size)), torch.Generator().manual_seed(5))
                for size in (12, 5))
    assert one.keys() == vit.prompts.state_dict().keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-3 * float(one[name].abs().max()))
    assert one['coefficients'].std() == pytest.approx(0.02, rel=0.2)
    read = []
    hooks = [layer.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0].double().mean(dim=0)))
             for layer in vit.layers]
    plain = MODELS.build(tiny_backbone('mae_deep', num_prompts=0))
    plain.layers, plain.pos_embed, plain.cls_token, plain.patch_embed = (
        vit.layers, vit.pos_embed, vit.cls_token, vit.patch_embed)
    with torch.no_grad():
        plain.eval()(images)
    for hook in hooks:
        hook.remove()
    for i in range(vit.prompts.shape[0]):
        query, key, _ = vit.layers[i].attn.qkv.weight.detach().double().chunk(3)
        w = whitening_matrix(read[i], query, key, 1e-5)
        distance = (one[f'bases.{i}'][:, :, None].double() - w[:, None]).abs().min(dim=2).values
        assert distance.max() <= 1e-3 * w.abs().max()
    vit.prompts.load_state_dict(one)


def test_drawn_as_the_method_draws():
    vit = build()
    state, before = torch.get_rng_state(), vit.prompts.coefficients.detach().clone()
    one, two = (DrawnInit().start(vit, Images([]), torch.Generator().manual_seed(seed)) for seed in (1, 1))
    assert all(torch.equal(one[name], two[name]) for name in one) and torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(one['coefficients'], before)
    assert one['bases.0'].abs().max() <= np.sqrt(6 / (64 + 6)) and one['coefficients'].std() < 0.03


def test_other_prompts_have_no_factors():
    vit = MODELS.build(tiny_backbone('mae_deep'))
    with pytest.raises(ValueError, match='WhitenedInit starts factors, but DeepPrompts has none'):
        WhitenedInit().start(vit, Images([]), torch.Generator())
    for eps in (0, -1., float('inf'), True, 'a'):
        with pytest.raises(ValueError, match='eps must be a positive number'):
            WhitenedInit(eps)


@pytest.mark.parametrize('initializer', [RandomSampleInit, KMeansInit, UniformInit])
def test_prototypes_of_any_initializer(initializer):
    """Rank 6 holds 5 prompts."""
    vit = build()
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    prototypes = initializer().start(vit, Images([images]), torch.Generator().manual_seed(5))
    vit.prompts.start_from(prototypes)
    torch.testing.assert_close(vit.prompts().tokens.detach(), prototypes, rtol=1e-3, atol=1e-3)
