"""PromptInitHook inside MMEngine's Runner: what it writes, what it leaves alone, and two processes."""
import os
import random
import threading
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine import dist
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.models import VisionTransformer
from safetensors import safe_open
from safetensors.torch import load_file

from helpers import spawn_two
from mmspt.datasets import Digits
from mmspt.engine.hooks import PromptInitHook
from mmspt.engine.start import init_cpu_distributed
from mmspt.engine.token_loader import choose_images
from mmspt.prompts import tokens as tokens_module
from mmspt.prompts.tokens import available_memory

ARCH = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
VIT = dict(arch=ARCH, img_size=16, patch_size=4, out_type='avg_featmap', final_norm=False)
PLAIN = [dict(type='Resize', scale=16), dict(type='PackInputs')]
AUGMENTED = [dict(type='RandomResizedCrop', scale=16, crop_ratio_range=(0.3, 1.0)), dict(type='PackInputs')]
NUM_IMAGES, NUM_TOKENS, SEED = 20, 16, 3  # images in the training set, patches of an image
MEAN_POOL = dict(type='mmspt.MeanPoolInit')


@pytest.fixture(autouse=True)
def _unformatted_configs(monkeypatch):
    """YAPF takes more time than a tiny run."""
    monkeypatch.setattr(Config, 'pretty_text', property(lambda self: ''))


def build_runner(work_dir, hook=None, backbone=None, pipeline=PLAIN, num_classes=10, **changes):
    """A Runner with a tiny random backbone on two digits of each class; ``hook=None`` leaves PromptInitHook out."""
    cfg = dict(
        default_scope='mmpretrain',
        model=dict(
            type='ImageClassifier',
            backbone=dict(type='mmspt.PromptedViT', num_prompts=4, allow_random_backbone=True) | VIT | (backbone or {}),
            head=dict(type='LinearClsHead', num_classes=num_classes, in_channels=32)),
        data_preprocessor=dict(num_classes=num_classes, mean=[127.5] * 3, std=[127.5] * 3),
        train_dataloader=dict(
            batch_size=8, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
            dataset=dict(type='mmspt.Digits', images_per_class=2, pipeline=pipeline, serialize_data=False)),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
        custom_hooks=[] if hook is None else [dict(type='mmspt.PromptInitHook') | hook],
        randomness=dict(seed=SEED),
        work_dir=str(work_dir),
        experiment_name=f'test_prompt_init_{uuid4().hex}')
    cfg = Config(cfg | changes)
    init_cpu_distributed(cfg)
    return Runner.from_cfg(cfg)


def rng_states():
    name, keys, *rest = np.random.get_state()
    return random.getstate(), (name, keys.tolist(), *rest), torch.get_rng_state().tolist()


class Probe(Hook):
    """Notes what it finds before training: registered with the right priority, right before or after PromptInitHook."""

    def __init__(self):
        self.steps = 0

    def before_train(self, runner):
        method = runner.model.backbone.prompts
        self.parameter = None if method is None else method.tokens
        self.prompts = None if self.parameter is None else self.parameter.detach().cpu().clone()
        self.rng_states = rng_states()
        self.modes = {name: module.training for name, module in runner.model.named_modules()}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.steps += 1


def train(work_dir, *args, **kwargs):
    """Train for an epoch; return the Runner and the probes before and after PromptInitHook."""
    runner = build_runner(work_dir, *args, **kwargs)
    probes = Probe(), Probe()
    runner.register_hook(probes[0], 'ABOVE_NORMAL')
    runner.register_hook(probes[1], 'BELOW_NORMAL')
    runner.train()
    return runner, *probes


def written(work_dir):
    return load_file(Path(work_dir) / 'initial_prompts.safetensors')['prompts']


def log_text(work_dir):
    return ''.join(path.read_text() for path in sorted(Path(work_dir).glob('*/*.log')))


def stock_tokens(runner, indices, num_layers):
    """E_0, ..., E_{L-1} (N, D) of MMPretrain's own ViT, caught by hooks on its patch embedding and blocks."""
    stock = VisionTransformer(**VIT)
    stock.eval()
    state = runner.model.backbone.state_dict()
    stock.load_state_dict({name: w.cpu() for name, w in state.items() if not name.startswith('prompts')})
    caught = []
    stock.patch_embed.register_forward_hook(lambda module, args, output: caught.append(output[0]))
    for layer in stock.layers:
        layer.register_forward_hook(lambda module, args, output: caught.append(output[:, 1:]))
    dataset = Digits(split='train', images_per_class=2, pipeline=PLAIN, serialize_data=False)
    images = torch.stack([dataset[i]['inputs'] for i in indices]).float()
    with torch.no_grad():
        stock((images - 127.5) / 127.5)
    return [tokens.flatten(0, 1) for tokens in caught[:num_layers]]


def rows_of(tokens, prompts):
    """Positions among ``tokens`` (N, D) of the rows ``prompts`` (N_p, D), by nearest distance, and that distance."""
    distances, rows = torch.cdist(prompts, tokens, compute_mode='donot_use_mm_for_euclid_dist').min(dim=1)
    return rows.tolist(), float(distances.max())


# ---------------------------------------------------------------------------------------------- what is written


@pytest.mark.parametrize('prompt_type, num_layers', [('deep', 2), ('shallow', 1)])
@pytest.mark.parametrize('num_images, count', [(None, 8), ('all', 20), (5, 5), (500, 20)])
def test_prompts_are_prototypes(tmp_path, prompt_type, num_layers, num_images, count):
    hook = dict(initializer=MEAN_POOL, num_images=num_images)
    runner, before, after = train(tmp_path, hook, dict(prompt_type=prompt_type))
    tokens = stock_tokens(runner, choose_images(count, NUM_IMAGES, SEED), num_layers)
    width = count * NUM_TOKENS // 4
    expected = torch.stack([F.avg_pool1d(layer.T[None], width)[0].T for layer in tokens])
    torch.testing.assert_close(after.prompts, expected)
    assert not torch.allclose(before.prompts, expected)
    assert f'{count} images, {count * NUM_TOKENS} tokens kept for each of {num_layers} layers' in log_text(tmp_path)


@pytest.mark.parametrize('hook', [{}, dict(initializer=dict(type='mmspt.RandomSampleInit'))], ids=['default', 'named'])
def test_random_sample_takes_tokens(tmp_path, hook):
    runner, _, after = train(tmp_path, hook)
    layers = stock_tokens(runner, choose_images(8, NUM_IMAGES, SEED), 2)
    found = [rows_of(tokens, prompts) for tokens, prompts in zip(layers, after.prompts, strict=True)]
    assert [len(set(rows)) for rows, _ in found] == [4, 4]
    assert max(distance for _, distance in found) < 1e-5


def test_kmeans_wants_all_images(tmp_path):
    runner, _, after = train(tmp_path, dict(initializer=dict(type='mmspt.KMeansInit', max_iter=500)))
    for tokens, prompts in zip(stock_tokens(runner, range(NUM_IMAGES), 2), after.prompts, strict=True):
        nearest = torch.cdist(tokens, prompts).argmin(dim=1)
        means = torch.stack([tokens[nearest == k].mean(dim=0) for k in range(4)])
        torch.testing.assert_close(prompts, means, rtol=0, atol=0.02)


def test_file_gives_them_back(tmp_path):
    first = train(tmp_path / 'a', dict(initializer=MEAN_POOL))[2].prompts
    path = str(tmp_path / 'a' / 'initial_prompts.safetensors')
    again = train(tmp_path / 'b', dict(initializer=dict(type='mmspt.FileInit', path=path)))[2].prompts
    torch.testing.assert_close(again, first, rtol=0, atol=0)


@pytest.mark.parametrize('initializer', [MEAN_POOL, dict(type='mmspt.UniformInit'), dict(type='mmspt.NormalInit')])
def test_work_dir_holds_exactly_the_prompts(tmp_path, initializer):
    after = train(tmp_path, dict(initializer=initializer))[2]
    torch.testing.assert_close(written(tmp_path), after.prompts, rtol=0, atol=0)
    assert [path.name for path in tmp_path.glob('initial_prompts*')] == ['initial_prompts.safetensors']
    with safe_open(tmp_path / 'initial_prompts.safetensors', 'pt') as file:
        assert file.metadata()['initializer'] == initializer['type'].removeprefix('mmspt.')
        assert file.metadata()['seed'] == str(SEED)


def test_parameter_is_written_in_place(tmp_path):
    runner, before, after = train(tmp_path, {})
    held = [p for group in runner.optim_wrapper.optimizer.param_groups for p in group['params']]
    assert before.parameter is after.parameter is runner.model.backbone.prompts.tokens
    assert any(p is after.parameter for p in held)
    assert not torch.equal(after.parameter.detach().cpu(), after.prompts), 'the optimizer must have moved the prompts'


@pytest.mark.parametrize('initializer', ['RandomSampleInit', 'KMeansInit', 'UniformInit', 'NormalInit'])
def test_hook_seed_decides(tmp_path, initializer):
    def prompts(name, **hook):
        return train(tmp_path / name, dict(initializer=dict(type=f'mmspt.{initializer}')) | hook)[2].prompts

    run_seed = prompts('a')
    torch.testing.assert_close(prompts('b', seed=SEED), run_seed, rtol=0, atol=0)
    assert not torch.allclose(prompts('c', seed=SEED + 1), run_seed)


def test_batch_size_of_the_hook_does_not_change_the_tokens(tmp_path):
    first, second = (train(tmp_path / str(size), dict(initializer=MEAN_POOL, num_images=7, batch_size=size),
                           pipeline=AUGMENTED)[2].prompts for size in (2, 7))
    torch.testing.assert_close(first, second)


# ---------------------------------------------------------------------------------------------- options


def test_batch_sampler(tmp_path):
    """A loader with a batch sampler has no batch size of its own."""
    train(tmp_path / 'plain', {})
    loader = dict(
        batch_size=8, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
        batch_sampler=dict(type='torch.utils.data.BatchSampler', drop_last=False),
        dataset=dict(type='mmspt.Digits', images_per_class=2, pipeline=PLAIN, serialize_data=False))
    train(tmp_path / 'sampler', {}, train_dataloader=loader)
    assert torch.equal(written(tmp_path / 'plain'), written(tmp_path / 'sampler'))


def test_own_pipeline(tmp_path):
    hook = dict(initializer=MEAN_POOL, pipeline=PLAIN, num_images=6)
    runner, _, after = train(tmp_path, hook, pipeline=AUGMENTED)
    tokens = stock_tokens(runner, choose_images(6, NUM_IMAGES, SEED), 2)
    expected = torch.stack([F.avg_pool1d(layer.T[None], 6 * NUM_TOKENS // 4)[0].T for layer in tokens])
    torch.testing.assert_close(after.prompts, expected)
    assert type(runner.train_dataloader.dataset.pipeline.transforms[0]).__name__ == 'RandomResizedCrop'


def test_training_pipeline_augments(tmp_path):
    plain, augmented = (train(tmp_path / name, dict(initializer=MEAN_POOL), pipeline=pipeline)[2].prompts
                        for name, pipeline in [('a', PLAIN), ('b', AUGMENTED)])
    assert not torch.allclose(plain, augmented)


@pytest.mark.parametrize('room, images, tokens', [(100, 20, 100), (119, 20, 100), (7, 7, 7), (10**6, 20, 320)])
def test_memory_bound(tmp_path, room, images, tokens):
    """``room``: how many tokens of both layers fit, 2 * 32 * 4 bytes each."""
    hook = dict(num_images='all', max_memory=room * 256 / 2**30)
    runner, _, after = train(tmp_path, hook)
    assert f'{images} images, {tokens} tokens kept for each of 2 layers' in log_text(tmp_path)
    layers = stock_tokens(runner, range(NUM_IMAGES), 2)
    assert max(rows_of(t, p)[1] for t, p in zip(layers, after.prompts, strict=True)) < 1e-5


def test_no_memory_bound(tmp_path):
    _, _, after = train(tmp_path, dict(initializer=MEAN_POOL, num_images='all', max_memory=None))
    bounded = train(tmp_path / 'bounded', dict(initializer=MEAN_POOL, num_images='all', max_memory=1.))[2]
    assert '20 images, 320 tokens kept for each of 2 layers' in log_text(tmp_path)
    assert torch.equal(after.prompts, bounded.prompts)


@pytest.mark.parametrize('spare', [-1, 0])
def test_memory_of_the_machine(tmp_path, monkeypatch, spare):
    """``spare``: bytes more than 320 tokens of both layers take, and a quarter for the work."""
    monkeypatch.setattr(tokens_module, 'available_memory', lambda: 1.25 * 320 * 256 + spare)
    runner = build_runner(tmp_path, dict(num_images='all', max_memory=None))
    if spare < 0:
        with pytest.raises(ValueError, match=r'must fit into memory: they need 0\.00 GiB, 0\.00 GiB are available\. '
                                             r'Set max_memory'):
            runner.train()
        assert not (tmp_path / 'initial_prompts.safetensors').exists()
    else:
        runner.train()


def test_available_memory_is_linuxs(monkeypatch):
    fields = dict(line.split(':') for line in Path('/proc/meminfo').read_text().splitlines())
    total = int(fields['MemTotal'].split()[0]) * 1024
    assert 0 < available_memory() < total
    monkeypatch.setattr('builtins.open', lambda *args, **kwargs: (_ for _ in ()).throw(FileNotFoundError()))
    assert available_memory() == float('inf')


def test_too_few_tokens(tmp_path):
    runner = build_runner(tmp_path, dict(max_memory=3 * 256 / 2**30))
    with pytest.raises(ValueError, match=r'got 3 tokens for 4 prompts: take more images .*max_memory'):
        runner.train()
    assert not (tmp_path / 'initial_prompts.safetensors').exists()


@pytest.mark.parametrize('kwargs, message', [
    (dict(num_images=0), "at least 1, 'batch', 'all' or None, got 0"),
    (dict(num_images='some'), "got 'some'"),
    (dict(batch_size=0), 'batch_size .*got 0'),
    (dict(seed=-1), 'seed .*got -1'),
    (dict(max_memory=0), r'max_memory must be positive and finite \(GiB\), or None for no bound, got 0'),
    (dict(amp='float16'), "amp must be True, False or None, got 'float16': the dtype is that of optim_wrapper"),
])
def test_options_out_of_range(kwargs, message):
    with pytest.raises(ValueError, match=message):
        PromptInitHook(**kwargs)


@pytest.mark.parametrize(('amp', 'run_is_amp', 'mixed'), [
    (None, True, True), (False, True, False), (True, False, True)])
def test_precision_of_the_tokens(tmp_path, amp, run_is_amp, mixed):
    """Under autocast the tokens are near those of fp32, and kept in fp32 either way."""
    kind = 'mmspt.AmpOptimWrapper' if run_is_amp else 'OptimWrapper'
    seen = []

    class Watch(Probe):

        def before_train(self, runner):
            runner.model.backbone.patch_embed.register_forward_hook(
                lambda module, args, output: seen.append(output[0].dtype))

    runner = build_runner(tmp_path, dict(initializer=MEAN_POOL, amp=amp),
                          optim_wrapper=dict(type=kind, optimizer=dict(type='AdamW', lr=1e-3)))
    runner.register_hook(Watch(), 'ABOVE_NORMAL')
    runner.train()
    half = torch.float16 if torch.cuda.is_available() else torch.bfloat16
    assert seen == [half if mixed else torch.float32] + [half if run_is_amp else torch.float32] * 3
    tokens = stock_tokens(runner, choose_images(8, NUM_IMAGES, SEED), 2)
    expected = torch.stack([F.avg_pool1d(layer.T[None], 8 * NUM_TOKENS // 4)[0].T for layer in tokens])
    difference = (written(tmp_path) - expected).abs().max()
    assert written(tmp_path).dtype == torch.float32
    assert (1e-5 < difference < 1e-2) if mixed else (difference < 1e-6), difference


# ---------------------------------------------------------------------------------------------- what is left alone


def test_global_generators_are_left_alone(tmp_path):
    _, before, after = train(tmp_path, {}, pipeline=AUGMENTED)
    assert before.rng_states == after.rng_states


def test_modes_are_left_alone(tmp_path):
    _, before, after = train(tmp_path, {}, dict(frozen=False))
    assert before.modes == after.modes
    assert after.modes['backbone.layers.0']


def test_tokens_come_in_eval_mode(tmp_path):
    """Dropout while the tokens are taken would change them."""
    hook, dropout = dict(initializer=MEAN_POOL), dict(frozen=False, drop_rate=0.5)
    runner, _, after = train(tmp_path, hook, dropout, optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.)))
    tokens = stock_tokens(runner, choose_images(8, NUM_IMAGES, SEED), 2)
    expected = torch.stack([F.avg_pool1d(layer.T[None], 8 * NUM_TOKENS // 4)[0].T for layer in tokens])
    torch.testing.assert_close(after.prompts, expected)


def test_no_prompts(tmp_path):
    runner, before, after = train(tmp_path, {}, dict(num_prompts=0))
    assert before.prompts is after.prompts is None
    assert after.steps == len(runner.train_dataloader) == 3
    assert not (tmp_path / 'initial_prompts.safetensors').exists()


def test_resumed_run_is_left_alone(tmp_path):
    first = train(tmp_path, dict(initializer=MEAN_POOL))[0].model.backbone.prompts.tokens.detach().cpu()
    (tmp_path / 'initial_prompts.safetensors').unlink()
    runner, before, after = train(tmp_path, dict(initializer=MEAN_POOL), resume=True,
                                  train_cfg=dict(by_epoch=True, max_epochs=2))
    assert runner.epoch == 2 and after.steps == 3
    torch.testing.assert_close(before.prompts, first, rtol=0, atol=0)
    torch.testing.assert_close(after.prompts, first, rtol=0, atol=0)
    assert not (tmp_path / 'initial_prompts.safetensors').exists()
    assert 'Resumed: prompts come from the checkpoint' in log_text(tmp_path)


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize('num_prompts', [4, 0])
def test_random_frozen_weights(tmp_path, num_prompts):
    runner = build_runner(tmp_path, {}, dict(allow_random_backbone=False, num_prompts=num_prompts))
    probe = Probe()
    runner.register_hook(probe)
    with pytest.raises(RuntimeError, match=r'every frozen weight must come .*patch_embed.*init_cfg=.*load_from='):
        runner.train()
    assert probe.steps == 0
    assert not (tmp_path / 'initial_prompts.safetensors').exists()


def test_label_outside_the_head(tmp_path):
    runner = build_runner(tmp_path, {}, num_classes=9)
    probe = Probe()
    runner.register_hook(probe)
    with pytest.raises(ValueError, match=r'lie in \[0, 9\), .*from 0 to 9: set model\.head\.num_classes=10'):
        runner.train()
    assert probe.steps == 0


def test_validation_label_outside_the_head(tmp_path):
    labels = Digits(images_per_class=2, pipeline=[], serialize_data=False).get_gt_labels()
    data = dict(type='mmspt.Digits', images_per_class=2, pipeline=PLAIN, serialize_data=False)
    below_nine = dict(indices=[i for i, label in enumerate(labels) if label < 9])
    sampler = dict(type='DefaultSampler', shuffle=False)
    runner = build_runner(
        tmp_path, {}, num_classes=9, val_cfg=dict(), val_evaluator=dict(type='Accuracy'),
        train_dataloader=dict(batch_size=8, num_workers=0, sampler=sampler, dataset=data | below_nine),
        val_dataloader=dict(batch_size=8, num_workers=0, sampler=sampler, dataset=data))
    with pytest.raises(ValueError, match=r'lie in \[0, 9\), .*from 0 to 9: set model\.head\.num_classes=10'):
        runner.train()


def test_prompts_of_load_from_are_replaced_and_said_so(tmp_path):
    """``load_from`` starts a new run, which PromptInitHook initializes as any other."""
    first = train(tmp_path / 'a', dict(initializer=MEAN_POOL))[0].model.backbone.prompts.tokens.detach().cpu()
    _, before, after = train(tmp_path / 'b', dict(initializer=MEAN_POOL), load_from=str(tmp_path / 'a' / 'epoch_1.pth'))
    torch.testing.assert_close(before.prompts, first, rtol=0, atol=0)
    assert not torch.allclose(after.prompts, first, atol=1e-6)
    assert 'prompts that load_from or init_cfg brought are replaced' in log_text(tmp_path / 'b')
    assert 'are replaced' not in log_text(tmp_path / 'a')


def test_gates_of_load_from_stay(tmp_path):
    gated = dict(prompts=dict(type='mmspt.GatedPrompts', gate_start=1.))
    train(tmp_path / 'a', backbone=gated)
    runner, _, _ = train(tmp_path / 'b', dict(initializer=MEAN_POOL), dict(prompts=dict(type='mmspt.GatedPrompts')),
                         load_from=str(tmp_path / 'a' / 'epoch_1.pth'))
    assert runner.model.backbone.prompts.gate_logits.item() == pytest.approx(1., abs=0.1)


def test_model_without_prompted_vit(tmp_path):
    runner = build_runner(tmp_path, {}, model=dict(
        type='ImageClassifier', backbone=dict(type='VisionTransformer', **VIT),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=32)))
    with pytest.raises(ValueError, match=r"needs a mmspt\.PromptedViT, ImageClassifier has none: set model\.backbone"):
        runner.train()


class BreakWeights(Hook):

    def before_train(self, runner):
        with torch.no_grad():
            runner.model.backbone.layers[0].ffn.layers[1].bias.fill_(float('nan'))


def test_tokens_that_are_not_finite(tmp_path):
    runner = build_runner(tmp_path, {})
    runner.register_hook(BreakWeights(), 'HIGH')
    with pytest.raises(ValueError, match=r'128 of 128 hold NaN or infinity: check the checkpoint'):
        runner.train()


class Broken:

    def __call__(self, results):
        raise OSError('this image is on a broken disk')


@pytest.mark.parametrize('hook, message', [(dict(pipeline=[Broken()]), 'broken disk'),
                                           (dict(max_memory=3 * 256 / 2**30), 'got 3 tokens')])
def test_failure_leaves_no_progress_bar(tmp_path, hook, message):
    """A thread that goes on drawing can hang the next run, and abort Python when it ends."""
    threads = set(threading.enumerate())
    runner = build_runner(tmp_path)
    runner.register_hook(PromptInitHook(**hook))
    with pytest.raises((OSError, ValueError), match=message) as raised:
        runner.train()
    assert raised.traceback, 'what holds the frames alive'
    started = set(threading.enumerate()) - threads
    for thread in started:
        thread.join(timeout=5)
    assert not any(thread.is_alive() for thread in started)


# ---------------------------------------------------------------------------------------------- two processes


VIPAMIN = dict(initializer=dict(type='mmspt.VIPAMINInit', k=3), batch_size=2)


class SizeOfRank:

    def __call__(self, results):
        results['inputs'] = torch.zeros(3, 16, 16 + 4 * dist.get_rank())
        return results


class FailOnRank1:

    def __call__(self, results):
        if dist.get_rank() == 1:
            raise OSError('this image is on a broken disk')
        return results


def _two_processes(rank, folder):
    torch.set_num_threads(1)
    os.environ.update(CUDA_VISIBLE_DEVICES='', LOCAL_RANK=str(rank))
    torch.distributed.init_process_group('gloo', f'file://{folder}/rendezvous', timedelta(seconds=60), 2, rank)
    hook = dict(initializer=MEAN_POOL, num_images=7, batch_size=2)
    runner = build_runner(folder, hook, pipeline=AUGMENTED, launcher='pytorch')
    probe = Probe()
    probe.before_train = lambda runner: torch.save(
        runner.model.module.backbone.prompts.tokens.detach(), f'{folder}/{rank}.pt')
    runner.register_hook(probe, 'BELOW_NORMAL')
    runner.train()

    for name, hook in [('broken_disk', dict(num_images=7, pipeline=[FailOnRank1(), *PLAIN])),
                       ('too_few_tokens', dict(max_memory=3 * 256 / 2**30)), ('one_image', dict(num_images=1)),
                       ('vipamin_7', dict(VIPAMIN, num_images=7)), ('vipamin_1', dict(VIPAMIN, num_images=1)),
                       ('vipamin_sizes', dict(VIPAMIN, num_images=4, pipeline=[*PLAIN, SizeOfRank()]))]:
        runner = build_runner(f'{folder}/{name}', launcher='pytorch')
        runner.register_hook(PromptInitHook(**hook))
        message = 'finished'
        try:
            runner.train()
        except Exception as error:
            message = f'{type(error).__name__}: {error}'
        Path(folder, name, f'rank_{rank}.txt').write_text(message)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope='module')
def two_processes(tmp_path_factory):
    """Folder in which two processes left their prompts and their errors."""
    folder = tmp_path_factory.mktemp('two_processes')
    spawn_two(_two_processes, folder)
    return folder


def test_two_processes_get_the_same_prompts(tmp_path, two_processes):
    first, second = (torch.load(two_processes / f'{rank}.pt') for rank in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    torch.testing.assert_close(first, written(two_processes), rtol=0, atol=0)
    alone = train(tmp_path, dict(initializer=MEAN_POOL, num_images=7, batch_size=2), pipeline=AUGMENTED)[2].prompts
    torch.testing.assert_close(first, alone)


def ends(folder):
    """How the two processes ended."""
    return [(folder / f'rank_{rank}.txt').read_text() for rank in range(2)]


def test_failure_of_rank_1_stops_both(two_processes):
    first, second = ends(two_processes / 'broken_disk')
    assert first.startswith('RuntimeError: prompt initialization failed on another process')
    assert "'rank 1': 'OSError: this image is on a broken disk'" in first
    assert second == 'OSError: this image is on a broken disk'
    assert not (two_processes / 'broken_disk' / 'initial_prompts.safetensors').exists()


def test_failure_of_rank_0_stops_both(two_processes):
    first, second = ends(two_processes / 'too_few_tokens')
    assert first.startswith('ValueError: there must be at least as many tokens as prompts')
    assert second.startswith("RuntimeError: prompt initialization failed on another process: {'rank 0': 'ValueError")


def test_fewer_images_than_processes(two_processes):
    assert ends(two_processes / 'one_image') == ['finished', 'finished']
    assert written(two_processes / 'one_image').shape == (2, 4, 32)


@pytest.mark.parametrize('num_images', [7, 1])
def test_two_processes_make_vipamins_prompts_of_one(tmp_path, two_processes, num_images):
    alone = train(tmp_path, dict(VIPAMIN, num_images=num_images))[2].prompts
    together = written(two_processes / f'vipamin_{num_images}')
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6 * float(alone.abs().max()))
    assert ends(two_processes / f'vipamin_{num_images}') == ['finished', 'finished']


def test_processes_with_images_of_other_sizes_stop(two_processes):
    assert ends(two_processes / 'vipamin_sizes') == 2 * [
        'ValueError: images must have one size while blocks are read, got [16, 20] tokens: give PromptInitHook a '
        'pipeline that crops']
