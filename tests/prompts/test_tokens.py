"""Which tokens are kept, and that memory stays bounded."""
import pytest
import torch

from helpers import rng, stream
from mmspt.prompts.tokens import USES, choose_positions, collect_tokens, derive_seed, plan_sample

NUM_IMAGES, NUM_TOKENS, NUM_LAYERS = 10, 12, 3
IMAGES = torch.randn(NUM_IMAGES, 3, NUM_TOKENS, 1, generator=rng())


def patch_tokens(images, num_layers):
    """A network whose token t of layer l depends on image and pixel t alone."""
    pixels = images.flatten(2).transpose(1, 2)  # (B, N_e, 3)
    for layer in range(num_layers):
        yield torch.cat((pixels * (layer + 1), pixels[..., :1] - layer), dim=2)


def collect(batch_size=4, keep=NUM_TOKENS, seed=0, order=None, network=patch_tokens):
    return collect_tokens(stream(IMAGES, batch_size, order), network, NUM_IMAGES, NUM_LAYERS, keep, seed)


@pytest.mark.parametrize('keep', [1, 5, NUM_TOKENS, 1000])
def test_the_same_positions_at_every_layer(keep):
    everything = torch.stack(list(patch_tokens(IMAGES, NUM_LAYERS)))
    expected = torch.stack([everything[:, i, choose_positions(7, i, NUM_TOKENS, keep)] for i in range(NUM_IMAGES)], 1)
    assert expected.shape == (NUM_LAYERS, NUM_IMAGES, min(keep, NUM_TOKENS), 4)
    assert torch.equal(expected, everything) == (keep >= NUM_TOKENS)
    for batch_size in (1, 3, 64):
        torch.testing.assert_close(collect(batch_size, keep, 7), expected, rtol=0, atol=0)


def test_order_of_arrival_moves_images_only():
    order = [3, 1, 9, 0, 2, 8, 7]  # three of those announced do not come
    torch.testing.assert_close(collect(keep=5, order=order), collect(keep=5)[:, order], rtol=0, atol=0)


def test_tokens_become_fp32_without_gradient():
    weight = torch.ones((), requires_grad=True)
    tokens = collect(network=lambda images, num_layers: (
        (weight * layer).half() for layer in patch_tokens(images, num_layers)))
    assert tokens.dtype == torch.float32 and not tokens.requires_grad


@pytest.mark.parametrize(('sizes', 'message'), [
    ([12, 15], r'one size .* 12 patches, then 15\. Give .* a pipeline that crops'),
    ([], r'at least one image.*check the data folder')])
def test_sizes_that_change_and_no_images(sizes, message):
    images = [([i], torch.zeros(1, 3, size, 1)) for i, size in enumerate(sizes)]
    with pytest.raises(ValueError, match=message):
        collect_tokens(images, patch_tokens, len(images), NUM_LAYERS, 5, 0)


@pytest.mark.parametrize('args, expected', [
    # 1 GiB / (4 * 12 * 768) = 29,127.1 tokens a layer: 4 for each of CUB's 5,994 images
    ((5994, 12, 768, 2**30), (5994, 4)),
    # all 196 tokens of a batch of 32 would be 231 MB: 910 a image are allowed
    ((32, 12, 768, 2**30), (32, 910)),
    # 10 tokens for 100 images: one token from each of 10
    ((100, 2, 32, 2560), (10, 1)),
    ((10, 2, 32, 2559), (9, 1)),
    ((10, 2, 32, 5120 - 1), (10, 1)),
    ((10, 2, 32, 5120), (10, 2)),
])
def test_plan_sample(args, expected):
    num_images, num_layers, dims, max_bytes = args
    images, keep = plan_sample(*args)
    assert (images, keep) == expected
    assert images * keep * num_layers * dims * 4 <= max_bytes and images <= num_images


def test_plan_sample_without_room():
    with pytest.raises(ValueError, match=r'max_memory must hold at least one .* 2.4e-07 GiB, got 1.9e-07: raise'):
        plan_sample(10, 2, 32, 200)


def test_positions_depend_on_seed_and_image():
    state = torch.get_rng_state()
    choices = {tuple(choose_positions(seed, image, 100, 10).tolist()) for seed in range(5) for image in range(5)}
    assert len(choices) == 25
    first, second = (choose_positions(2, 3, 100, 10).tolist() for _ in range(2))
    assert first == second == sorted(set(first)) and len(first) == 10
    assert torch.equal(torch.get_rng_state(), state)


def test_no_two_uses_share_a_seed():
    seeds = {derive_seed(seed, use, index) for seed in range(3) for use in USES for index in range(3)}
    assert len(seeds) == 3 * len(USES) * 3
    assert all(0 <= seed < 2**63 for seed in seeds)


# A use's place in USES is part of its seed. If these values change, runs and published results change with their seed:
# append a new use, never reorder or remove one.
SEEDS = dict(images=7896617691693857887, augmentation=2918264622725855778, positions=8597659618385908031,
             initializer=3291213472928352369, nmi=2494635221133837528, inserted=6102389744414414618)


def test_seeds_stay_what_they_are():
    assert {use: derive_seed(0, use) for use in SEEDS} == SEEDS
    assert derive_seed(7, 'augmentation', 3) == 7964965305340474863
