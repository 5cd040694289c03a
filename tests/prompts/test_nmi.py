"""NMI of prompts and patches against its definition in NumPy, scikit-learn, and cases that are known beforehand."""
import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from sklearn.metrics import mutual_info_score, normalized_mutual_info_score

from helpers import NMI_MEANS, nmi_by_definition, rng
from mmspt.prompts.nmi import normalized_mutual_information

KINDS = sorted(NMI_MEANS)
CONTINGENCY = np.array([[8, 1, 3, 0, 2], [1, 9, 0, 4, 1], [2, 2, 7, 1, 6]])


def of_norm(generator, norm, *shape):
    tokens = torch.randn(*shape, generator=generator)
    return tokens / tokens.norm(dim=-1, keepdim=True) * norm


def make(num_prompts=4, num_patches=9, dims=16, norm=5., shift=0., images=2, seed=0):
    """Prompts (N_p, D) and patches (B, N_e, D) of a norm; ``shift`` is added to their similarities, about."""
    generator = rng(seed)
    common = of_norm(generator, abs(shift * math.sqrt(dims))**0.5, dims)
    return (of_norm(generator, norm, num_prompts, dims) + math.copysign(1, shift) * common,
            of_norm(generator, norm, images, num_patches, dims) + common)


@pytest.mark.parametrize('normalizer', KINDS)
@pytest.mark.parametrize('case', [
    dict(), dict(num_prompts=7, num_patches=3, dims=1), dict(num_prompts=20, num_patches=49, dims=128, norm=25.),
    dict(dims=128, norm=25., shift=-200.), dict(dims=64, shift=200.)], ids=str)
def test_definition(case, normalizer):
    """In [0, 1], for prompts of all images and of each."""
    prompts, patches = make(**case)
    actual = normalized_mutual_information(prompts, patches, normalizer)
    assert actual.shape == (2, ) and actual.dtype == torch.float32
    assert actual.tolist() == pytest.approx(
        [nmi_by_definition(prompts, image, normalizer) for image in patches], rel=1e-4, abs=1e-5)
    assert actual.min() >= -1e-6 and actual.max() <= 1 + 1e-6
    own = torch.stack((prompts, prompts.flip(1)))
    assert normalized_mutual_information(own, patches, normalizer).tolist() == pytest.approx(
        [nmi_by_definition(p, image, normalizer) for p, image in zip(own, patches, strict=True)], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize('normalizer', KINDS)
def test_weak_dependence(normalizer):
    """VPT's prompts start like this, and curves of NMI rise from there: the values must be more than rounding."""
    prompts, patches = make(num_prompts=20, num_patches=49, dims=768, norm=1., images=1)
    expected = nmi_by_definition(prompts, patches[0], normalizer)
    assert 0 < expected < 1e-3
    assert float(normalized_mutual_information(prompts, patches, normalizer)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize('normalizer', KINDS)
@pytest.mark.parametrize('similarity', [-8., -20.])
def test_one_prompt_takes_nearly_all(similarity, normalizer):
    """The prompts' entropy is next to nothing, by which the minimum divides."""
    prompts, patches = make(num_prompts=5, num_patches=20, dims=64, norm=0.8, images=1)
    direction = of_norm(rng(1), 8., 64)
    patches += direction
    prompts[1:] += similarity / 8 * direction
    expected = nmi_by_definition(prompts, patches[0], normalizer)
    actual = float(normalized_mutual_information(prompts, patches, normalizer))
    assert actual == pytest.approx(expected, rel=1e-2, abs=1e-9)


def from_counts(counts):
    """Prompts (N_p, D) and patches (1, D, D) for which sigmoid(S) is proportional to the counts (N_p, D)."""
    dims = counts.shape[1]
    share = torch.from_numpy(counts / (1.25 * counts.max()))
    prompts = torch.where(share > 0, share.logit(), torch.full_like(share, -200.))
    return prompts.float(), math.sqrt(dims) * torch.eye(dims)[None]


@pytest.mark.parametrize('normalizer', KINDS)
@pytest.mark.parametrize('counts', [CONTINGENCY, CONTINGENCY.T, np.eye(6, dtype=int)], ids=str)
def test_scikit_learn(counts, normalizer):
    rows, columns = np.repeat(np.indices(counts.shape).reshape(2, -1), counts.ravel(), axis=1)
    actual = float(normalized_mutual_information(*from_counts(counts), normalizer))
    assert actual == pytest.approx(normalized_mutual_info_score(rows, columns, average_method=normalizer), abs=1e-6)
    entropies = entropy(counts.sum(1)), entropy(counts.sum(0))
    information = mutual_info_score(None, None, contingency=counts)
    assert actual * NMI_MEANS[normalizer](*entropies) == pytest.approx(information, abs=1e-6)


@pytest.mark.parametrize('normalizer', KINDS)
def test_independence(normalizer):
    """One prompt or patch, or all the same: the joint distribution is the product of its marginals."""
    prompts, patches = make(norm=25.)
    for one in ((prompts[:1], patches), (prompts[:1].expand(2, -1, -1), patches), (prompts, patches[:, :1])):
        assert normalized_mutual_information(*one, normalizer).tolist() == [0, 0]
    for same in ((prompts[:1].expand(4, -1), patches), (prompts, patches[:, :1].expand(-1, 9, -1))):
        torch.testing.assert_close(normalized_mutual_information(*same, normalizer), torch.zeros(2), rtol=0, atol=1e-6)


@pytest.mark.parametrize('dtypes', [(torch.float16, torch.float16), (torch.float32, torch.bfloat16)], ids=str)
def test_precision_of_the_input(dtypes):
    """The values alone count, neither their type nor autocast; the default is the geometric mean."""
    prompts, patches = (tokens.to(dtype) for tokens, dtype in zip(make(), dtypes, strict=True))
    with torch.autocast('cpu', torch.bfloat16):
        actual = normalized_mutual_information(torch.nn.Parameter(prompts), patches)
    assert actual.dtype == torch.float32
    expected = normalized_mutual_information(prompts.float(), patches.float(), 'geometric')
    torch.testing.assert_close(actual.detach(), expected, rtol=0, atol=0)


@pytest.mark.parametrize(('prompts', 'patches'), [
    ((4, 16), (9, 16)), ((4, 16), (2, 9, 15)), ((3, 4, 16), (2, 9, 16)), ((1, 2, 4, 16), (2, 9, 16)),
    ((0, 16), (2, 9, 16)), ((4, 16), (2, 0, 16)), ((0, 4, 16), (0, 9, 16))
], ids=str)
def test_shapes_that_do_not_fit(prompts, patches):
    with pytest.raises(ValueError, match=r'prompts must have shape \(N_p, D\) or \(B, N_p, D\)') as error:
        normalized_mutual_information(torch.ones(prompts), torch.ones(patches))
    assert f'got {prompts} and {patches}' in str(error.value)


@pytest.mark.parametrize('normalizer', ['mean', None])
def test_unknown_normalizer(normalizer):
    with pytest.raises(ValueError, match=rf'one of .*geometric.*, got {normalizer!r}'):
        normalized_mutual_information(*make(), normalizer)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_infinite_values_are_not_taken_for_independence(value):
    prompts, patches = torch.randn(3, 8), torch.randn(2, 5, 8)
    prompts[1, 2] = value
    assert normalized_mutual_information(prompts, patches).isnan().all()
