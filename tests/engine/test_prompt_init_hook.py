"""PromptInitHook inside MMEngine's Runner: the prompts that it writes, state that it keeps, and two processes."""
import threading
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine import dist
from safetensors import safe_open

from digit_runs import (
    AUGMENTED,
    DATA,
    NUM_IMAGES,
    NUM_TOKENS,
    PLAIN,
    SEED,
    STEPS,
    STOCK,
    FailOnLastRank,
    Probe,
    build_runner,
    failure_of,
    images_of,
    join_group,
    log_text,
    stock_copy,
    train,
    written,
)
from helpers import spawn_two
from mmspt.datasets import Digits
from mmspt.engine.hooks import PromptInitHook
from mmspt.engine.training_images import choose_images
from mmspt.prompts import tokens as tokens_module
from mmspt.prompts.tokens import available_memory

MEAN_POOL = dict(type='mmspt.MeanPoolInit')
pytestmark = pytest.mark.usefixtures('unformatted_configs')


def stock_tokens(runner, indices, num_layers=2):
    """E_0, ..., E_{L-1} (N, D) of MMPretrain's own ViT, caught by hooks on its patch embedding and blocks."""
    stock, caught = stock_copy(runner), []
    stock.patch_embed.register_forward_hook(lambda module, args, output: caught.append(output[0]))
    for layer in stock.layers:
        layer.register_forward_hook(lambda module, args, output: caught.append(output[:, 1:]))
    with torch.no_grad():
        stock(images_of(indices))
    return [tokens.flatten(0, 1) for tokens in caught[:num_layers]]


def pooled(runner, count, num_layers=2):
    """The prompts (L, 4, D) that mean pooling of so many images' tokens gives."""
    tokens = stock_tokens(runner, choose_images(count, NUM_IMAGES, SEED), num_layers)
    return torch.stack([F.avg_pool1d(layer.T[None], count * NUM_TOKENS // 4)[0].T for layer in tokens])


def assert_tokens(prompts, layers):
    """Prompts are different tokens of their layer."""
    for own, tokens in zip(prompts, layers, strict=True):
        distances, rows = torch.cdist(own, tokens, compute_mode='donot_use_mm_for_euclid_dist').min(dim=1)
        assert len(set(rows.tolist())) == 4 and float(distances.max()) < 1e-5


# ---------------------------------------------------------------------------------------------- what is written


@pytest.mark.parametrize('prompt_type, num_images, count', [
    ('deep', None, 8), ('shallow', 'all', 20), ('deep', 5, 5), ('shallow', 500, 20)])
def test_prompts_are_prototypes(tmp_path, prompt_type, num_images, count):
    """Written in place, into the parameter that the optimizer holds, and to the work directory."""
    hook = dict(initializer=MEAN_POOL, num_images=num_images)
    runner, before, after = train(tmp_path, hook, dict(prompt_type=prompt_type))
    num_layers = dict(deep=2, shallow=1)[prompt_type]
    expected = pooled(runner, count, num_layers)
    torch.testing.assert_close(after.prompts, expected)
    assert not torch.allclose(before.prompts, expected)
    assert torch.equal(written(tmp_path), after.prompts)
    assert f'{count} images, {count * NUM_TOKENS} tokens kept for each of {num_layers} layers' in log_text(tmp_path)
    held = [p for group in runner.optim_wrapper.optimizer.param_groups for p in group['params']]
    assert before.parameter is after.parameter is runner.model.backbone.prompts.tokens
    assert any(p is after.parameter for p in held)
    assert not torch.equal(after.parameter.detach().cpu(), after.prompts), 'the optimizer must have moved the prompts'


@pytest.mark.parametrize('max_memory, images, tokens', [
    (None, 20, 320), (0.75, 20, 320), (119 * 256 / 2**30, 20, 100), (7 * 256 / 2**30, 7, 7)])
def test_random_sample_of_a_bounded_memory(tmp_path, max_memory, images, tokens):
    """The default; a token of both layers takes 2 * 32 * 4 bytes."""
    runner, _, after = train(tmp_path, dict(num_images='all', max_memory=max_memory))
    assert f'{images} images, {tokens} tokens kept for each of 2 layers' in log_text(tmp_path)
    assert_tokens(after.prompts, stock_tokens(runner, range(NUM_IMAGES)))


def test_kmeans_wants_all_images(tmp_path):
    runner, _, after = train(tmp_path, dict(initializer=dict(type='mmspt.KMeansInit', max_iter=500)))
    for tokens, prompts in zip(stock_tokens(runner, range(NUM_IMAGES)), after.prompts, strict=True):
        nearest = torch.cdist(tokens, prompts).argmin(dim=1)
        means = torch.stack([tokens[nearest == k].mean(dim=0) for k in range(4)])
        torch.testing.assert_close(prompts, means, rtol=0, atol=0.02)


def test_file_gives_them_back(tmp_path):
    first = train(tmp_path / 'a', dict(initializer=dict(type='mmspt.UniformInit')))[2].prompts
    path = tmp_path / 'a' / 'initial_prompts.safetensors'
    assert [file.name for file in path.parent.glob('initial_prompts*')] == [path.name]
    with safe_open(path, 'pt') as file:
        assert (file.metadata()['initializer'], file.metadata()['seed']) == ('UniformInit', str(SEED))
    again = train(tmp_path / 'b', dict(initializer=dict(type='mmspt.FileInit', path=str(path))))[2].prompts
    torch.testing.assert_close(again, first, rtol=0, atol=0)


@pytest.mark.parametrize('initializer', ['RandomSampleInit', 'UniformInit'])
def test_hook_seed_decides(tmp_path, initializer):
    def prompts(name, **hook):
        return train(tmp_path / name, dict(initializer=dict(type=f'mmspt.{initializer}')) | hook)[2].prompts

    run_seed = prompts('a')
    torch.testing.assert_close(prompts('b', seed=SEED), run_seed, rtol=0, atol=0)
    assert not torch.allclose(prompts('c', seed=SEED + 1), run_seed)


def test_batch_size_and_batch_sampler_do_not_change_the_tokens(tmp_path):
    """A loader with a batch sampler has no batch size of its own. The run's random numbers are left alone."""
    loader = dict(batch_size=8, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
                  batch_sampler=dict(type='torch.utils.data.BatchSampler', drop_last=False),
                  dataset=DATA | dict(pipeline=AUGMENTED))
    found = []
    for name, size, changes in (('two', 2, {}), ('seven', 7, {}), ('sampler', None, dict(train_dataloader=loader))):
        hook = dict(initializer=MEAN_POOL, num_images=7, batch_size=size)
        _, before, after = train(tmp_path / name, hook, pipeline=AUGMENTED, **changes)
        assert before.rng_states == after.rng_states
        found.append(after.prompts)
    torch.testing.assert_close(found[1:], 2 * found[:1])


def test_own_pipeline(tmp_path):
    hook = dict(initializer=MEAN_POOL, num_images=6)
    runner, _, after = train(tmp_path / 'own', hook | dict(pipeline=PLAIN), pipeline=AUGMENTED)
    torch.testing.assert_close(after.prompts, pooled(runner, 6))
    assert type(runner.train_dataloader.dataset.pipeline.transforms[0]).__name__ == 'RandomResizedCrop'
    augmented = train(tmp_path / 'augmented', hook, pipeline=AUGMENTED)[2].prompts
    assert not torch.allclose(augmented, after.prompts)


@pytest.mark.parametrize(('amp', 'run_is_amp'), [(None, True), (False, True), (True, False)])
def test_precision_of_the_tokens(tmp_path, amp, run_is_amp):
    """Under autocast the tokens are near those of fp32, and kept in fp32 either way."""
    kind, seen, mixed = 'mmspt.AmpOptimWrapper' if run_is_amp else 'OptimWrapper', [], amp is not False
    runner = build_runner(tmp_path, dict(initializer=MEAN_POOL, amp=amp),
                          optim_wrapper=dict(type=kind, optimizer=dict(type='AdamW', lr=1e-3)))
    runner.model.backbone.patch_embed.register_forward_hook(
        lambda module, args, output: seen.append(output[0].dtype))
    runner.train()
    half = torch.float16 if torch.cuda.is_available() else torch.bfloat16
    assert seen == [half if mixed else torch.float32] + [half if run_is_amp else torch.float32] * STEPS
    difference = (written(tmp_path) - pooled(runner, 8)).abs().max()
    assert written(tmp_path).dtype == torch.float32
    assert (1e-5 < difference < 1e-2) if mixed else (difference < 1e-6), difference


# ---------------------------------------------------------------------------------------------- what is left alone


def test_no_prompts(tmp_path):
    _, before, after = train(tmp_path, {}, dict(num_prompts=0))
    assert before.prompts is after.prompts is None
    assert len(after.losses) == STEPS
    assert not (tmp_path / 'initial_prompts.safetensors').exists()


def test_resumed_run_is_left_alone(tmp_path):
    first = train(tmp_path, dict(initializer=MEAN_POOL))[0].model.backbone.prompts.tokens.detach().cpu()
    (tmp_path / 'initial_prompts.safetensors').unlink()
    runner, before, after = train(tmp_path, dict(initializer=MEAN_POOL), resume=True, epochs=2)
    assert runner.epoch == 2 and len(after.losses) == STEPS
    torch.testing.assert_close((before.prompts, after.prompts), (first, first), rtol=0, atol=0)
    assert not (tmp_path / 'initial_prompts.safetensors').exists()
    assert 'Resumed: prompts come from the checkpoint' in log_text(tmp_path)


def test_prompts_of_load_from_are_replaced_and_gates_stay(tmp_path):
    """``load_from`` starts a new run, which PromptInitHook initializes as any other, and says so."""
    gated = [dict(prompts=dict(type='mmspt.GatedPrompts', gate_start=start)) for start in (1., -5.)]
    first = train(tmp_path / 'a', dict(initializer=MEAN_POOL), gated[0])[0].model.backbone.prompts.tokens.detach().cpu()
    runner, before, after = train(tmp_path / 'b', dict(initializer=MEAN_POOL), gated[1],
                                  load_from=str(tmp_path / 'a' / 'epoch_1.pth'))
    torch.testing.assert_close(before.prompts, first, rtol=0, atol=0)
    assert not torch.allclose(after.prompts, first, atol=1e-6)
    assert 'prompts that load_from or init_cfg brought are replaced' in log_text(tmp_path / 'b')
    assert 'are replaced' not in log_text(tmp_path / 'a')
    assert runner.model.backbone.prompts.gate_logits.item() == pytest.approx(1., abs=0.1)


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize('spare', [-1, 0])
def test_memory_of_the_machine(tmp_path, monkeypatch, spare):
    """``spare``: bytes more than 320 tokens of both layers take, and a quarter for the work."""
    monkeypatch.setattr(tokens_module, 'available_memory', lambda: 1.25 * 320 * 256 + spare)
    end = failure_of(build_runner(tmp_path, dict(num_images='all', max_memory=None)))
    message = 'they need 0.00 GiB, 0.00 GiB are available. Set max_memory'
    assert (message in end, end == 'finished') == (spare < 0, spare >= 0)
    assert (tmp_path / 'initial_prompts.safetensors').exists() == (spare >= 0)


def test_available_memory_is_linuxs(monkeypatch):
    fields = dict(line.split(':') for line in Path('/proc/meminfo').read_text().splitlines())
    assert 0 < available_memory() < int(fields['MemTotal'].split()[0]) * 1024
    monkeypatch.setattr('builtins.open', lambda *args, **kwargs: (_ for _ in ()).throw(FileNotFoundError()))
    assert available_memory() == float('inf')


@pytest.mark.parametrize('kwargs, message', [
    (dict(num_images='some'), "num_images must be a whole number of at least 1, got 'some'"),
    (dict(seed=-1), 'seed .*got -1'),
    (dict(max_memory=0), r'max_memory must be positive and finite \(GiB\), or None for no bound, got 0'),
])
def test_options_out_of_range(kwargs, message):
    with pytest.raises(ValueError, match=message):
        PromptInitHook(**kwargs)


BELOW_NINE = DATA | dict(indices=[i for i, label in enumerate(
    Digits(images_per_class=2, pipeline=[], serialize_data=False).get_gt_labels()) if label < 9])
LOADER = dict(batch_size=8, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
OUTSIDE = r'lie in \[0, 9\), .*from 0 to 9: set model\.head\.num_classes=10'


@pytest.mark.parametrize(('changes', 'error', 'message'), [
    (dict(backbone=dict(allow_random_backbone=False)), RuntimeError,
     r'every frozen weight must come .*patch_embed.*init_cfg=.*load_from='),
    (dict(backbone=dict(allow_random_backbone=False, num_prompts=0)), RuntimeError, 'every frozen weight must come'),
    (dict(num_classes=9), ValueError, OUTSIDE),
    (dict(num_classes=9, val_cfg=dict(), val_evaluator=dict(type='Accuracy'),
          train_dataloader=dict(LOADER, dataset=BELOW_NINE), val_dataloader=dict(LOADER, dataset=DATA)),
     ValueError, OUTSIDE),
    (dict(model=STOCK), ValueError,
     r'needs a mmspt\.PromptedViT, ImageClassifier has none: set model\.backbone'),
], ids=['random weights', 'and no prompts', 'labels', 'labels of validation', 'stock ViT'])
def test_refused_before_the_first_step(tmp_path, changes, error, message):
    runner, probe = build_runner(tmp_path, {}, **changes), Probe()
    runner.register_hook(probe)
    with pytest.raises(error, match=message):
        runner.train()
    assert not probe.losses and not (tmp_path / 'initial_prompts.safetensors').exists()


def test_failure_leaves_no_progress_bar(tmp_path):
    """A thread that goes on drawing can hang the next run, and abort Python when it ends."""
    threads = set(threading.enumerate())
    runner = build_runner(tmp_path)
    runner.register_hook(PromptInitHook(pipeline=[FailOnLastRank()]))
    with pytest.raises(OSError, match='broken disk') as raised:
        runner.train()
    assert raised.traceback, 'which holds the frames alive'
    started = set(threading.enumerate()) - threads
    for thread in started:
        thread.join(timeout=5)
    assert not any(thread.is_alive() for thread in started)
    assert not (tmp_path / 'initial_prompts.safetensors').exists()


# ---------------------------------------------------------------------------------------------- two processes


VIPAMIN = dict(initializer=dict(type='mmspt.VIPAMINInit', k=3), batch_size=2)


class SizeOfRank:

    def __call__(self, results):
        results['inputs'] = torch.zeros(3, 16, 16 + 4 * dist.get_rank())
        return results


def _two_processes(rank, folder):
    join_group(rank, folder)
    hook = dict(initializer=MEAN_POOL, num_images=7, batch_size=2)
    runner = build_runner(folder, hook, pipeline=AUGMENTED, launcher='pytorch')
    probe = Probe()
    probe.before_train = lambda runner: torch.save(
        runner.model.module.backbone.prompts.tokens.detach(), f'{folder}/{rank}.pt')
    probe.after_train_iter = lambda *args, **kwargs: None
    runner.register_hook(probe, 'BELOW_NORMAL')
    runner.train()
    for name, hook in [('broken_disk', dict(num_images=7, pipeline=[FailOnLastRank(), *PLAIN])),
                       ('too_few_tokens', dict(max_memory=3 * 256 / 2**30)), ('one_image', dict(num_images=1)),
                       ('vipamin_7', dict(VIPAMIN, num_images=7)), ('vipamin_1', dict(VIPAMIN, num_images=1)),
                       ('vipamin_sizes', dict(VIPAMIN, num_images=4, pipeline=[*PLAIN, SizeOfRank()]))]:
        runner = build_runner(f'{folder}/{name}', launcher='pytorch')
        runner.register_hook(PromptInitHook(**hook))
        Path(folder, name, f'rank_{rank}.txt').write_text(failure_of(runner))
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


def test_failure_of_one_process_stops_both(two_processes):
    first, second = ends(two_processes / 'broken_disk')
    assert first.startswith('RuntimeError: prompt initialization failed on another process')
    assert "'rank 1': 'OSError: this image is on a broken disk'" in first
    assert second == 'OSError: this image is on a broken disk'
    assert not (two_processes / 'broken_disk' / 'initial_prompts.safetensors').exists()
    first, second = ends(two_processes / 'too_few_tokens')
    assert first.startswith('ValueError: there must be at least as many tokens as prompts') and 'max_memory' in first
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
