"""BPT's factors: their product acts as prompts, gradients follow the chain rule, prototypes start them."""
import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS

from helpers import DATA, tiny_backbone
from mmspt.models.methods import DeepBilinearPrompts, FoldedPrompts, ShallowBilinearPrompts

KINDS = dict(deep='mmspt.DeepBilinearPrompts', shallow='mmspt.ShallowBilinearPrompts')
NETWORK = dict(num_layers=12, embed_dims=768, patch_size=(16, 16))


def trained(method):
    return sum(p.numel() for p in method.parameters() if p.requires_grad)


@pytest.mark.parametrize(('method', 'count'), [
    (ShallowBilinearPrompts, 65_100), (DeepBilinearPrompts, 183_600)])
def test_as_many_parameters_as_published(method, count):
    """https://arxiv.org/abs/2506.22908, ViT-B."""
    assert trained(method(**NETWORK)) == count


@pytest.mark.parametrize(('given', 'blocks'), [
    (None, {3, 4, 5}), (0, set()), (1, {5}), (6, set(range(6)))])
def test_which_bases_train(given, blocks):
    method = DeepBilinearPrompts(4, 2, trained_bases=given, num_layers=6 + 3 * (given is None), embed_dims=8,
                                 patch_size=(4, 4))
    offset = 3 if given is None else 0
    assert {i - offset for i, basis in enumerate(method.bases) if basis.requires_grad} == blocks
    assert method.coefficients.requires_grad


def plain(method):
    """The prompts, entry by entry."""
    tokens = torch.zeros(method.shape, dtype=torch.float64)
    for layer, (a, b) in enumerate(zip(method.coefficients, method.bases, strict=True)):
        for i in range(len(a)):
            for d in range(len(b)):
                tokens[layer, i, d] = sum(float(a[i, k]) * float(b[d, k]) for k in range(method.rank))
    return tokens


@pytest.mark.parametrize('kind', KINDS)
def test_a_plain_loop(kind):
    method = MODELS.build(dict(type=KINDS[kind], num_prompts=3, rank=2, num_layers=2, embed_dims=6, patch_size=(4, 4)))
    method.reset_parameters()
    torch.testing.assert_close(method().tokens.double(), plain(method), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('ssl', ['mae', 'mocov3'])
def test_golden_gradients_by_the_chain_rule(ssl, kind):
    """The factors of the prompts that SPT's authors' code had: logits, and gradients G B and G^T A of its own, G."""
    case = f'{ssl}_{kind}'
    with np.load(DATA / f'{case}.npz') as content:
        golden = {name: torch.from_numpy(content[name]) for name in content.files}
    vit = MODELS.build(tiny_backbone(case, num_prompts=None, prompts=dict(
        type=KINDS[kind], num_prompts=5, rank=5, trained_bases=4 if kind == 'deep' else 1)))
    vit.init_weights()
    vit.prompts.start_from(golden['prompt'])
    out = vit(golden['x'])[-1] @ golden['head_weight'].T + golden['head_bias']
    torch.testing.assert_close(out, golden['logits'], rtol=1e-4, atol=1e-5)
    torch.nn.functional.cross_entropy(out, golden['y']).backward()
    for layer, gradient in enumerate(golden['grad_prompt']):
        a, b = vit.prompts.coefficients[layer].detach(), vit.prompts.bases[layer].detach()
        for own, expected in ((vit.prompts.coefficients.grad[layer], gradient @ b),
                              (vit.prompts.bases[layer].grad, gradient.T @ a)):
            assert (own - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize(('rank', 'missed'), [(2, True), (4, False), (6, False)])
def test_prototypes_start_the_factors(rank, missed):
    """By the best fit (Eckart and Young): what is missed is the other singular values; the factors are as long."""
    generator = torch.Generator().manual_seed(0)
    prototypes = torch.randn(3, 4, 16, generator=generator)
    method = DeepBilinearPrompts(4, rank, num_layers=3, embed_dims=16, patch_size=(4, 4))
    method.reset_parameters()
    drawn = [basis.detach().clone() for basis in method.bases]
    method.start_from(prototypes)
    for layer, tokens in enumerate(method().tokens):
        values = np.linalg.svd(prototypes[layer].numpy(), compute_uv=False)
        error = (tokens - prototypes[layer]).norm().item()
        assert error == pytest.approx(np.sqrt((values[rank:]**2).sum()), abs=1e-4) and (error > 0.1) == missed
        a, b = method.coefficients[layer], method.bases[layer]
        kept = np.sqrt(values[:rank])
        for factor in (a[:, :len(kept)], b[:, :len(kept)]):
            np.testing.assert_allclose(factor.detach().norm(dim=0), kept, rtol=1e-4)
        if rank > 4:  # more columns than prompts
            assert not a[:, 4:].any() and torch.equal(b[:, 4:], drawn[layer][:, 4:])


def test_prompts_that_are_alike_leave_no_dead_column():
    """Of rank 1: the other columns start at a product of 0, and a gradient reaches them."""
    method = DeepBilinearPrompts(4, 3, num_layers=1, embed_dims=16, patch_size=(4, 4))
    method.reset_parameters()
    alike = torch.randn(1, 1, 16).expand(1, 4, 16)
    method.start_from(alike)
    tokens = method().tokens
    torch.testing.assert_close(tokens.detach(), alike, rtol=1e-4, atol=1e-5)
    (tokens * torch.randn(1, 4, 16)).sum().backward()
    assert method.coefficients.grad.abs().amin(dim=(0, 1)).min() > 1e-4


def test_autocast_rounds_no_prompts():
    method = DeepBilinearPrompts(4, 3, num_layers=2, embed_dims=16, patch_size=(4, 4))
    method.reset_parameters()
    with torch.autocast('cpu', torch.bfloat16):
        tokens = method().tokens
    assert tokens.dtype == torch.float32 and torch.equal(tokens, method().tokens)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_a_pack_is_unfolded(dtype):
    method = DeepBilinearPrompts(4, 3, num_layers=2, embed_dims=16, patch_size=(4, 4))
    method.reset_parameters()
    folded = method().tokens.detach()
    parameters = method.unfold(FoldedPrompts(folded.to(dtype).float()))
    other = DeepBilinearPrompts(4, 3, num_layers=2, embed_dims=16, patch_size=(4, 4))
    other.load_state_dict(parameters)
    torch.testing.assert_close(other().tokens, folded, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-3)
    weak = folded.clone()
    weak[1] = 1e-3 * torch.randn(4, 16)  # one block alone, and a small one
    with pytest.raises(ValueError, match=r'products of rank 3, but of those of block 2 \d'):
        method.unfold(FoldedPrompts(weak))
    with pytest.raises(ValueError, match='gates or logit scales'):
        method.unfold(FoldedPrompts(folded, gate=torch.ones(1)))


@pytest.mark.parametrize(('kwargs', 'says'), [
    (dict(rank=0), 'rank must be .* from 1 to the width 8'), (dict(rank=9), 'from 1 to the width 8, got 9'),
    (dict(rank=2, trained_bases=3), 'trained_bases must be .* from 0 to 2'), (dict(num_prompts=0), 'num_prompts')])
def test_arguments_out_of_range(kwargs, says):
    with pytest.raises(ValueError, match=says):
        DeepBilinearPrompts(**{**dict(num_prompts=2, num_layers=2, embed_dims=8, patch_size=(4, 4), rank=2), **kwargs})
