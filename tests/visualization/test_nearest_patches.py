"""Nearest patches against NumPy, which sees all tokens at once."""
import numpy as np
import pytest
import torch

from helpers import rng, stream
from mmspt.visualization.nearest_patches import nearest_patches

NUM_IMAGES, NUM_TOKENS, DIMS, M = 11, 6, 4, 5
IMAGES = torch.randn(NUM_IMAGES, 3, NUM_TOKENS, 1, generator=rng())
PROMPTS = torch.randn(M, DIMS, generator=rng(1))


def patch_tokens(images, num_layers):
    """A network whose token t of layer l depends on image and pixel t alone."""
    pixels = images.flatten(2).transpose(1, 2)  # (B, N_e, 3)
    for layer in range(num_layers):
        yield torch.cat((pixels - layer, pixels[..., :1]**2), dim=2)


def brute_force(prompts, layer, k, metric):
    """Lists of (score, image, position), for each prompt."""
    tokens = list(patch_tokens(IMAGES, layer))[layer - 1].double().numpy()  # (images, N_e, D)
    prompts = prompts.double().numpy()
    found = []
    for prompt in prompts:
        if metric == 'cosine':
            table = tokens @ prompt / np.linalg.norm(tokens, axis=2) / np.linalg.norm(prompt)
            nearest = [(-row.max(), i, row.argmax()) for i, row in enumerate(table)]
            found.append([(-score, i, p) for score, i, p in sorted(nearest)[:k]])
        else:
            table = np.linalg.norm(tokens - prompt, axis=2)
            found.append(sorted((row.min(), i, row.argmin()) for i, row in enumerate(table))[:k])
    return np.array(found)


@pytest.mark.parametrize('metric', ['cosine', 'euclidean'])
@pytest.mark.parametrize(('k', 'layer', 'batch_size', 'order'), [
    (1, 1, 4, None), (4, 3, 1, None), (4, 3, 3, [3, 1, 9, 0, 10, 2, 8, 7, 4, 6, 5]), (100, 1, 64, None)])
def test_against_brute_force(k, layer, batch_size, order, metric):
    found = nearest_patches(stream(IMAGES, batch_size, order), patch_tokens, PROMPTS, layer, k, metric)
    expected = brute_force(PROMPTS, layer, k, metric)
    assert all(part.shape == (M, min(k, NUM_IMAGES)) for part in found)
    assert found[0].dtype == torch.float32
    np.testing.assert_allclose(found[0], expected[..., 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(torch.stack(found[1:], dim=-1), expected[..., 1:])


@pytest.mark.parametrize('metric', ['cosine', 'euclidean'])
@pytest.mark.parametrize('batch_size', [1, 64])
@pytest.mark.parametrize('order', [None, [5, 4, 3, 2, 1, 0]])
def test_of_equals_the_lower_image_and_position(order, batch_size, metric):
    images = torch.ones(6, 3, NUM_TOKENS, 1)
    images[2, :, 3:] = 2.
    prompts = torch.tensor([[2., 2., 2., 4.]])  # the later tokens of image 2
    _, found, positions = nearest_patches(stream(images, batch_size, order), patch_tokens, prompts, 1, 4, metric)
    assert found.tolist() == [[2, 0, 1, 3]]
    assert positions.tolist() == [[3, 0, 0, 0]]


def test_small_distances_of_long_tokens_are_exact():
    images = IMAGES + 3000.
    tokens = next(patch_tokens(images, 1))
    prompts = tokens[3, 2][None] + torch.tensor([0.5, 0., 0., 0.])
    scores, found, _ = nearest_patches(stream(images), patch_tokens, prompts, 1, 1, 'euclidean')
    assert found.item() == 3 and scores.item() == pytest.approx(0.5)


@pytest.mark.parametrize('options, message', [
    (dict(layer=0), 'layer must be the number of a block, at least 1, got 0'),
    (dict(k=0), 'number of patches a prompt must be at least 1, got 0'),
    (dict(metric='dot'), "metric must be one of cosine, euclidean, got 'dot'"),
    (dict(prompts=torch.zeros(2, 3, DIMS)), r'shape \(M, D\), not empty, got \(2, 3, 4\): give those of one'),
    (dict(prompts=torch.zeros(2, DIMS + 1)), 'as wide as the tokens, got 5 and 4'),
    (dict(prompts=torch.tensor([[0.] * 4, [float('nan')] * 4])), '1 of 2 hold NaN or infinity: train with a lower'),
    (dict(batches=[]), 'at least one image .*: check the data folder'),
    (dict(batches=[([0], IMAGES[:1]), ([1], torch.zeros(1, 3, 8, 1))]), '6 patches, then 8. Give'),
    (dict(batches=[([0], torch.full((1, 3, 6, 1), float('nan')))]), '6 of 6 hold NaN or infinity: check the check'),
])
def test_errors(options, message):
    arguments = dict(batches=stream(IMAGES), patch_tokens=patch_tokens, prompts=PROMPTS, layer=1, k=2) | options
    with pytest.raises(ValueError, match=message):
        nearest_patches(**arguments)
