"""Nearest patches against NumPy, which sees all tokens at once."""
import numpy as np
import pytest
import torch

from mmspt.prompts.nearest import nearest_patches

NUM_IMAGES, NUM_TOKENS, DIMS, M = 11, 6, 4, 5


def make_images(num_tokens=NUM_TOKENS):
    return torch.randn(NUM_IMAGES, 3, num_tokens, 1, generator=torch.Generator().manual_seed(0))


def make_prompts():
    return torch.randn(M, DIMS, generator=torch.Generator().manual_seed(1))


def patch_tokens(images, num_layers):
    """A network whose token t of layer l depends on image and pixel t alone."""
    pixels = images.flatten(2).transpose(1, 2)  # (B, N_e, 3)
    for layer in range(num_layers):
        yield torch.cat((pixels - layer, pixels[..., :1]**2), dim=2)


def batches(batch_size=4, order=range(NUM_IMAGES), images=None):
    images = make_images() if images is None else images
    for start in range(0, len(order), batch_size):
        indices = list(order[start:start + batch_size])
        yield indices, images[indices]


def brute_force(prompts, layer, k, metric):
    """Lists of (score, image, position), for each prompt."""
    tokens = list(patch_tokens(make_images(), layer))[layer - 1].double().numpy()  # (images, N_e, D)
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
@pytest.mark.parametrize('layer', [1, 3])
@pytest.mark.parametrize('k', [1, 4, NUM_IMAGES, 100])
def test_against_brute_force(k, layer, metric):
    found = nearest_patches(batches(), patch_tokens, make_prompts(), layer, k, metric)
    expected = brute_force(make_prompts(), layer, k, metric)
    assert all(part.shape == (M, min(k, NUM_IMAGES)) for part in found)
    assert found[0].dtype == torch.float32
    np.testing.assert_allclose(found[0], expected[..., 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(torch.stack(found[1:], dim=-1), expected[..., 1:])


@pytest.mark.parametrize('metric', ['cosine', 'euclidean'])
@pytest.mark.parametrize('batch_size, order', [(1, range(NUM_IMAGES)), (3, range(NUM_IMAGES)), (64, range(NUM_IMAGES)),
                                               (3, [3, 1, 9, 0, 10, 2, 8, 7, 4, 6, 5])])
def test_batches_and_order_do_not_matter(batch_size, order, metric):
    found, expected = (nearest_patches(stream, patch_tokens, make_prompts(), 2, 4, metric)
                       for stream in (batches(batch_size, order), batches(4)))
    torch.testing.assert_close(found, expected)


def test_one_patch_of_each_image():
    images = make_images()
    images[7] = make_prompts()[0, :3, None, None]  # all of an image's patches are nearer than any other's
    prompts = torch.cat((images[7, :, 0, 0], images[7, :1, 0, 0]**2))[None]
    _, found, _ = nearest_patches(batches(images=images), patch_tokens, prompts, 1, 5)
    assert found[0, 0] == 7 and len(set(found[0].tolist())) == 5


@pytest.mark.parametrize('metric', ['cosine', 'euclidean'])
@pytest.mark.parametrize('batch_size', [1, 4, 64])
@pytest.mark.parametrize('order', [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]])
def test_of_equals_the_lower_image_and_position(order, batch_size, metric):
    images = torch.ones(6, 3, NUM_TOKENS, 1)
    images[2, :, 3:] = 2.
    prompts = torch.tensor([[2., 2., 2., 4.]])  # the later tokens of image 2
    _, found, positions = nearest_patches(batches(batch_size, order, images), patch_tokens, prompts, 1, 4, metric)
    assert found.tolist() == [[2, 0, 1, 3]]
    assert positions.tolist() == [[3, 0, 0, 0]]


@pytest.mark.parametrize('metric, expected', [('cosine', 1.), ('euclidean', 0.)])
def test_a_token_finds_itself(metric, expected):
    tokens = list(patch_tokens(make_images(), 2))[1]
    scores, images, positions = nearest_patches(batches(), patch_tokens, tokens[:, 4], 2, 1, metric)
    torch.testing.assert_close(scores, torch.full((NUM_IMAGES, 1), expected))
    assert images[:, 0].tolist() == list(range(NUM_IMAGES)) and set(positions.tolist()[0]) == {4}


def test_small_distances_of_long_tokens_are_exact():
    images = make_images() + 3000.
    tokens = next(patch_tokens(images, 1))
    prompts = tokens[3, 2][None] + torch.tensor([0.5, 0., 0., 0.])
    scores, found, _ = nearest_patches(batches(images=images), patch_tokens, prompts, 1, 1, 'euclidean')
    assert found.item() == 3 and scores.item() == pytest.approx(0.5)


def test_half_precision_becomes_fp32():
    def half(images, num_layers):
        return (tokens.half() for tokens in patch_tokens(images, num_layers))

    with torch.autocast('cpu', torch.bfloat16):
        scores, *_ = nearest_patches(batches(), half, make_prompts(), 1, 3)
    assert scores.dtype == torch.float32
    np.testing.assert_allclose(scores, brute_force(make_prompts(), 1, 3, 'cosine')[..., 0], atol=1e-3)


def test_layers_beyond_are_not_computed():
    def network(images, num_layers):
        for layer, tokens in enumerate(patch_tokens(images, 9)):
            assert layer < num_layers == 2
            yield tokens
            if layer + 1 == num_layers:
                return

    nearest_patches(batches(), network, make_prompts(), 2, 3)


@pytest.mark.parametrize('options, message', [
    (dict(layer=0), 'layer must be the number of a block, at least 1, got 0'),
    (dict(k=0), 'number of patches a prompt must be at least 1, got 0'),
    (dict(metric='dot'), "metric must be one of cosine, euclidean, got 'dot'"),
    (dict(prompts=torch.zeros(2, 3, DIMS)), r'shape \(M, D\), not empty, got \(2, 3, 4\): give those of one'),
    (dict(prompts=torch.zeros(0, DIMS)), r'not empty, got \(0, 4\)'),
    (dict(prompts=torch.zeros(2, DIMS + 1)), 'as wide as the tokens, got 5 and 4'),
    (dict(prompts=torch.tensor([[0.] * 4, [float('nan')] * 4])), '1 of 2 hold NaN or infinity: train with a lower'),
    (dict(batches=[]), 'at least one image .*: check the data folder'),
    (dict(batches=[([0], make_images()[:1]), ([1], make_images(8)[:1])]), '6 patches, then 8. Give'),
    (dict(batches=[([0], torch.full((1, 3, 6, 1), float('nan')))]), '6 of 6 hold NaN or infinity: check the check'),
])
def test_errors(options, message):
    arguments = dict(batches=batches(), patch_tokens=patch_tokens, prompts=make_prompts(), layer=1, k=2) | options
    with pytest.raises(ValueError, match=message):
        nearest_patches(**arguments)
