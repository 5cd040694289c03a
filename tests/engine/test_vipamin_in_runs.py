"""VIPAMIN through PromptInitHook in MMEngine's Runner, against MMPretrain's own ViT, image by image."""
import math

import pytest
import torch
from mmengine.hooks import Hook

from digit_runs import (
    ARCH,
    AUGMENTED,
    NUM_IMAGES,
    PLAIN,
    SEED,
    STILL,
    VIT,
    build_runner,
    images_of,
    log_text,
    stock_copy,
    train,
    written,
)
from mmspt.engine.hooks import PromptInitHook
from mmspt.engine.training_images import choose_images
from mmspt.prompts.tokens import derive_seed

pytestmark = pytest.mark.usefixtures('unformatted_configs')
N_P, D, PATCHES = 4, 32, 16
BOUND = math.sqrt(6 / (3 * 16 + D))


def vipamin(**kwargs):
    return dict(type='mmspt.VIPAMINInit', k=3) | kwargs


def uniform(use, num_layers):
    """L times VPT's uniform prompts."""
    generator = torch.Generator().manual_seed(derive_seed(SEED, use))
    return [(2 * torch.rand(N_P, D, generator=generator) - 1) * BOUND for _ in range(num_layers)]


@torch.no_grad()
def walk(stock, images, inserted=None):
    """Yield each block's input, and queries, keys and values of each image and head: lists of (N, D) and of three
    (N, d)."""
    n, caught = stock.num_extra_tokens, []
    hook = stock.layers[0].register_forward_pre_hook(lambda module, args: caught.append(args[0]))
    stock(images)
    hook.remove()
    x = caught.pop()
    for i, layer in enumerate(stock.layers):
        if inserted is not None:
            x = torch.cat([x[:, :n], inserted[i].repeat(len(x), 1, 1), x[:, -PATCHES:]], dim=1)
        rows = layer.attn.qkv(layer.ln1(x)).double()
        width = D // layer.attn.num_heads
        yield x.double(), [[[row[:, part * D + h * width:part * D + (h + 1) * width] for part in range(3)]
                            for h in range(layer.attn.num_heads)] for row in rows]
        x = layer(x)


def oracle(stock, images, num_layers, k=3, lam=0.5, orthogonal='exact'):
    """Prompts (L, N_p, D), by plain loops; the blocks' deep or shallow prompts are ``num_layers``."""
    n, prompts = stock.num_extra_tokens, []
    inserted = uniform('inserted', num_layers)
    with_prompts, without = walk(stock, images, inserted + 9 * [inserted[0]]), walk(stock, images)
    for i, drawn in enumerate(uniform('initializer', num_layers)):
        x, heads = next(with_prompts)
        keys = sum(key for image in heads for _, key, _ in image) / len(images) / len(heads[0])
        patches = (sum(x) / len(images))[n + N_P:]
        own, others = keys[n:n + N_P], keys[n + N_P:]
        matched = []
        for key in own:
            order = sorted(range(PATCHES), key=lambda j: -float(torch.cosine_similarity(key, others[j], 0)))
            matched.append(sum(patches[j] for j in order[:k]) / k)

        x, heads = next(without)
        outputs = sum(torch.cat([torch.softmax(q @ key.T / math.sqrt(key.shape[1]), 1) @ v for q, key, v in image], 1)
                      for image in heads) / len(images)
        qkv = stock.layers[i].attn.qkv
        weight, bias = qkv.weight[2 * D:].detach().double(), torch.zeros(D, dtype=torch.float64)
        if qkv.bias is not None:
            bias = qkv.bias[2 * D:].detach().double()
        complement = torch.linalg.svd(outputs).Vh[len(outputs):]
        orthogonals = []
        for r in drawn.double():
            target = complement.T @ (complement @ (weight @ r + bias))
            inverse = torch.linalg.inv(weight)
            orthogonals.append(inverse @ (target - bias) if orthogonal == 'exact' else (target - bias) @ inverse)
        prompts.append((1 - lam) * torch.stack(matched) + lam * torch.stack(orthogonals))
    return torch.stack(prompts).float()


def assert_prompts(runner, prompts, count=6, num_layers=2, vit=VIT, **options):
    """The prompts that the plain loops give for so many images."""
    images = images_of(choose_images(count, NUM_IMAGES, SEED))
    expected = oracle(stock_copy(runner, vit), images, num_layers, **options)
    torch.testing.assert_close(prompts, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(('vit', 'options', 'prompt_type'), [
    (dict(), dict(), 'deep'),
    (dict(), dict(), 'shallow'),
    (dict(out_type='cls_token', final_norm=True), dict(lam=0.25, orthogonal='released'), 'shallow'),
    (dict(arch=dict(ARCH, num_heads=4), with_cls_token=False), dict(lam=0.5, k=8), 'deep'),
    (dict(arch=dict(ARCH, num_heads=4), qkv_bias=False, pre_norm=True), dict(lam=1), 'deep'),
    (dict(arch=dict(ARCH, num_heads=8)), dict(lam=0), 'deep'),
], ids=str)
def test_prompts_of_a_run(tmp_path, vit, options, prompt_type):
    hook = dict(initializer=vipamin(**options), num_images=6, batch_size=4)
    runner, before, after = train(tmp_path, hook, dict(vit, prompt_type=prompt_type))
    assert_prompts(runner, after.prompts, 6, dict(deep=2, shallow=1)[prompt_type], VIT | vit, **options)
    assert torch.equal(written(tmp_path), after.prompts)
    assert after.parameter is runner.model.backbone.prompts.tokens and len(after.losses) == 3
    assert before.rng_states == after.rng_states
    assert 'Prompts from VIPAMINInit: 6 images' in log_text(tmp_path)


def test_gates_do_not_matter_at_the_start(tmp_path):
    hook, gated = dict(initializer=vipamin(), num_images=6), dict(prompts=dict(type='mmspt.GatedPrompts'))
    runner, _, after = train(tmp_path, hook, gated)
    assert_prompts(runner, after.prompts, 6, 1)
    assert not torch.equal(after.parameter.detach().cpu(), after.prompts), 'they are trained'


def test_means_come_in_eval_mode(tmp_path):
    hook, dropout = dict(initializer=vipamin(), num_images=6), dict(frozen=False, drop_rate=0.5, prompt_drop_rate=0.5)
    runner, before, after = train(tmp_path, hook, dropout, optim_wrapper=STILL)
    assert_prompts(runner, after.prompts)
    assert before.modes == after.modes and after.modes['backbone.layers.0']


class FillPrompts(Hook):

    def before_train(self, runner):
        runner.model.backbone.prompts.tokens.data.fill_(3.)


def test_seed_decides_and_neither_batch_size_nor_the_models_own_prompts(tmp_path):
    found = []
    for name, size, seed in (('a', 2, None), ('b', 7, SEED), ('c', 7, SEED + 1)):
        runner = build_runner(tmp_path / name, dict(initializer=vipamin(), num_images=7, batch_size=size, seed=seed),
                              pipeline=AUGMENTED)
        if name == 'b':
            runner.register_hook(FillPrompts(), 'ABOVE_NORMAL')
        runner.train()
        found.append(written(tmp_path / name))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6 * float(found[0].abs().max()))
    assert not torch.allclose(found[0], found[2])


@pytest.mark.parametrize(('num_images', 'count'), [(None, 20), ('batch', 8)])
def test_number_of_images(tmp_path, num_images, count):
    """256 are wanted, 20 are there; the bound on tokens' memory does not count."""
    hook = dict(initializer=vipamin(), num_images=num_images, max_memory=1e-9)
    runner, _, after = train(tmp_path, hook, dict(prompt_type='shallow'))
    assert_prompts(runner, after.prompts, count, 1)


def test_mixed_precision_is_near(tmp_path):
    """The mean of all patches: a choice of them, or a pull-back through small values, would differ more."""
    initializer = vipamin(k=PATCHES, lam=0)
    adamw = dict(type='AdamW', lr=1e-3)
    plain, mixed = (train(tmp_path / kind, dict(initializer=initializer, num_images=6),
                          optim_wrapper=dict(type=kind, optimizer=adamw))[2].prompts
                    for kind in ('OptimWrapper', 'mmspt.AmpOptimWrapper'))
    difference = float((plain - mixed).norm() / plain.norm())
    assert 1e-5 < difference < 0.02, difference
    assert written(tmp_path / 'mmspt.AmpOptimWrapper').dtype == torch.float32


def test_sizes_are_refused_before_any_block_runs(tmp_path):
    runner, ran = build_runner(tmp_path, dict(initializer=vipamin(k=17))), []
    for layer in runner.model.backbone.layers:
        layer.register_forward_hook(lambda *args: ran.append(args))
    with pytest.raises(ValueError, match='k must not exceed the number of patches of an image, 16, got 17'):
        runner.train()
    assert not ran and not (tmp_path / 'initial_prompts.safetensors').exists()
    assert runner.model.backbone.training


class OtherSize:
    """Every second image is wider."""

    def __init__(self):
        self.calls = 0

    def __call__(self, results):
        self.calls += 1
        results['inputs'] = torch.zeros(3, 16, 16 + 4 * (self.calls % 2 == 0))
        return results


def test_images_of_several_sizes(tmp_path):
    runner = build_runner(tmp_path)
    runner.register_hook(PromptInitHook(initializer=vipamin(lam=1), batch_size=1, pipeline=[*PLAIN, OtherSize()]))
    with pytest.raises(ValueError, match=r'one size while blocks are read, got \[17, 21\] tokens: .* crops'):
        runner.train()
