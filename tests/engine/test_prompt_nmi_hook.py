"""PromptNMIHook inside MMEngine's Runner: its values, where they go, state that it keeps, and two processes."""
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import digit_runs
from digit_runs import (
    AUGMENTED,
    DATA,
    PLAIN,
    SEED,
    STEPS,
    STILL,
    STOCK,
    FailOnLastRank,
    Probe,
    failure_of,
    images_of,
    join_group,
    log_text,
    stock_copy,
    written,
)
from helpers import ROOT, nmi_by_definition, scalars, spawn_two
from mmspt.engine.hooks import PromptNMIHook
from toy import StopAfterOne

RANDOM_SAMPLE = dict(initializer=dict(type='mmspt.RandomSampleInit'))
KEYS = ['nmi/layer_01', 'nmi/layer_02']
pytestmark = pytest.mark.usefixtures('unformatted_configs')


class StrongWeights(Hook):
    """Frozen weights that make similarities large enough to measure; the same in every run."""
    priority = 'VERY_HIGH'

    def before_train(self, runner):
        generator = torch.Generator().manual_seed(0)
        for name, parameter in sorted(runner.model.named_parameters()):
            if 'backbone' in name and not name.endswith('prompts.tokens'):
                drawn = 0.2 * torch.randn(parameter.shape, generator=generator)
                parameter.data.copy_(drawn)


def build_runner(work_dir, nmi=None, backbone=None, pipeline=PLAIN, init=None, **changes):
    """A Runner whose prompts learn fast; ``nmi`` and ``init``: options of the hooks, None leaves one out."""
    runner = digit_runs.build_runner(work_dir, init, backbone, pipeline, nmi, **dict(
        dict(optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1))), **changes))
    runner.register_hook(StrongWeights())
    return runner


def train(work_dir, *args, **kwargs):
    """Train; return the Runner, and the probe that ran last."""
    runner, probe = build_runner(work_dir, *args, **kwargs), Probe()
    runner.register_hook(probe, 'VERY_LOW')
    runner.train()
    return runner, probe


def records(work_dir):
    """PromptNMIHook's lines of the run's newest scalars.json, by step."""
    found = [record for record in scalars(Path(work_dir)) if any(key.startswith('nmi/') for key in record)]
    assert len({record['step'] for record in found}) == len(found), 'one measurement a step'
    return {record['step']: record for record in found}


def layers_of(record):
    return [record[key] for key in KEYS]


def measured(work_dir):
    return {step: layers_of(record) for step, record in records(work_dir).items()}


@torch.no_grad()
def stock_values(runner, prompts, normalizer='geometric'):
    """For each layer the mean NMI over all images of the training set, with the blocks of MMPretrain's own ViT."""
    stock, values = stock_copy(runner), []
    patches = stock.patch_embed(images_of())[0]
    x = torch.cat((stock.cls_token.expand(len(patches), -1, -1), patches), dim=1) + stock.pos_embed
    travelling = None
    for i, block in enumerate(stock.layers):
        read = prompts[i].expand(len(x), -1, -1) if i < len(prompts) else travelling
        values.append(np.mean([nmi_by_definition(p, e, normalizer) for p, e in zip(read, patches, strict=True)]))
        x = block(torch.cat((x[:, :1], read, x[:, 1:]), dim=1))
        travelling, patches = x[:, 1:5], x[:, 5:]
        x = torch.cat((x[:, :1], patches), dim=1)
    return values


# ---------------------------------------------------------------------------------------------- what is measured


@pytest.mark.parametrize(('prompt_type', 'interval', 'normalizer', 'expected'), [
    ('deep', 1, 'geometric', [0, 1, 2, 3, 4, 5, 6]),
    ('shallow', 4, 'min', [0, 4, 6]),
])
def test_values(tmp_path, prompt_type, interval, normalizer, expected):
    """Of the prompts before the first step, every so many steps, and after the last."""
    hook = dict(interval=interval, num_images=100, normalizer=normalizer)
    runner, probe = train(tmp_path, hook, dict(prompt_type=prompt_type), init=RANDOM_SAMPLE, epochs=2)
    found = records(tmp_path)
    assert list(found) == expected
    assert torch.equal(written(tmp_path), probe.prompts)
    for step, record in found.items():
        assert set(record) == {*KEYS, 'nmi/mean', 'nmi/epoch', 'step'}
        values = stock_values(runner, probe.steps[step][0], normalizer)
        assert min(values) > 1e-3
        assert layers_of(record) == pytest.approx(values, rel=1e-3)
        assert record['nmi/mean'] == pytest.approx(sum(values) / 2, rel=1e-3)
        assert record['nmi/epoch'] == pytest.approx(step / STEPS)
    assert layers_of(found[6]) != pytest.approx(layers_of(found[0]), rel=1e-2)
    assert 'NMI of prompts and patches after 6 iterations: mean' in log_text(tmp_path)


def test_images_stay_the_same_and_the_seed_chooses_them(tmp_path):
    """Nothing learns, so nothing may change; augmentation is part of the images."""
    runs = dict(default=dict(interval=1), seed=dict(seed=SEED), other=dict(seed=SEED + 1), fewer=dict(num_images=7))
    for name, options in runs.items():
        train(tmp_path / name, options, pipeline=AUGMENTED, optim_wrapper=STILL)
    train(tmp_path / 'plain', {}, optim_wrapper=STILL)
    first = measured(tmp_path / 'default')
    assert len(first) == 4 and all(values == first[0] for values in first.values())
    same = {name: measured(tmp_path / name)[0] == first[0] for name in (*runs, 'plain')}
    assert same == dict(default=True, seed=True, other=False, fewer=False, plain=False)


@pytest.mark.parametrize(('batch_size', 'options', 'expected'), [
    (8, {}, 16), (3, {}, 6), (3, dict(num_images=9), 9), (8, dict(num_images=100), 20)])
def test_a_small_batch_is_not_slowed_down(tmp_path, batch_size, options, expected):
    """Twice the batch, up to 16 images, unless told otherwise; never more than there are."""
    runner, _ = train(tmp_path, options, batch_size=batch_size)
    hook, = (hook for hook in runner.hooks if isinstance(hook, PromptNMIHook))
    assert len(hook._images) == expected


def by_iterations(batch_size):
    """Changes that make a run one of 5 iterations, without epochs."""
    loader = dict(batch_size=batch_size, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True),
                  dataset=DATA)
    return dict(train_dataloader=loader, train_cfg=dict(by_epoch=False, max_iters=5))


def test_iterations(tmp_path):
    runner, probe = train(tmp_path, dict(interval=2, num_images=100), **by_iterations(8))
    found = records(tmp_path)
    assert list(found) == [0, 2, 4, 5]
    for step, record in found.items():
        assert layers_of(record) == pytest.approx(stock_values(runner, probe.steps[step][0]), rel=1e-3)
        assert record['nmi/epoch'] == pytest.approx(step * 8 / 20)  # batches of 8 of 20 images, without a break


def test_a_training_that_is_stopped_early(tmp_path):
    """The last step is the last one done."""
    runner = build_runner(tmp_path, dict(interval=50, num_images=100), epochs=4)
    runner.register_hook(StopAfterOne())
    runner.train()
    assert runner.iter == 3 and list(records(tmp_path)) == [0, 3]


def test_mixed_precision(tmp_path):
    """The network runs in bf16, as it trains; the measure itself does not."""
    wrapper = dict(type='mmspt.AmpOptimWrapper', dtype='bfloat16')
    for name, kind in (('fp32', {}), ('bf16', wrapper)):
        train(tmp_path / name, dict(num_images=100), optim_wrapper=STILL | kind)
    exact, mixed = (layers_of(records(tmp_path / name)[0]) for name in ('fp32', 'bf16'))
    assert mixed == pytest.approx(exact, rel=0.1)
    assert mixed != exact


# ---------------------------------------------------------------------------------------------- where it goes


def history(hub):
    """Layer -> all values, of a message hub's state."""
    buffers = hub['log_scalars'] if isinstance(hub, dict) else hub.log_scalars
    return {key: buffers[key].data[0].tolist() for key in [*KEYS, 'nmi/mean']}


def test_history_is_saved_and_resumed(tmp_path):
    """One epoch, then none, then a second: one start, and no second measurement of the same step."""
    first, _ = train(tmp_path, dict(interval=2))
    values, kept = measured(tmp_path), history(first.message_hub)
    assert list(values) == [0, 2, 3]
    assert kept[KEYS[0]] == pytest.approx([row[0] for row in values.values()])
    saved = torch.load(tmp_path / 'epoch_1.pth', map_location='cpu', weights_only=False)
    assert history(saved['message_hub']) == kept

    time.sleep(1)  # MMEngine names a run's logs by the second
    runner, probe = train(tmp_path, dict(interval=2), resume=True)
    assert not probe.losses and history(runner.message_hub) == kept
    time.sleep(1)
    second, _ = train(tmp_path, dict(interval=2), resume=True, epochs=2)
    assert list(records(tmp_path)) == [4, 6]
    for key, found in history(second.message_hub).items():
        assert len(found) == 5 and found[:3] == kept[key]


def test_tensorboard_is_one_switch_away_and_gets_it_too(tmp_path):
    """configs/_base_/default_runtime.py names the backend without a folder, which MMEngine leaves out."""
    cfg, events = Config.fromfile(ROOT / 'configs/_base_/default_runtime.py'), tmp_path / 'events'
    runner, _ = train(tmp_path / 'off', dict(interval=2), visualizer=cfg.visualizer.to_dict())
    assert list(runner.visualizer._vis_backends) == ['LocalVisBackend']
    cfg.merge_from_dict({'visualizer.vis_backends.1.save_dir': str(events)})
    runner, _ = train(tmp_path / 'run', dict(interval=2), visualizer=cfg.visualizer.to_dict())
    runner.visualizer.close()
    expected = records(tmp_path / 'run')
    assert list(expected) == list(records(tmp_path / 'off')) == [0, 2, 3]
    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    for key in [*KEYS, 'nmi/mean', 'nmi/epoch']:
        assert [event.step for event in accumulator.Scalars(key)] == [0, 2, 3]
        assert [event.value for event in accumulator.Scalars(key)] == pytest.approx(
            [record[key] for record in expected.values()], rel=1e-6)


# ---------------------------------------------------------------------------------------------- what is left alone


@pytest.mark.parametrize('backbone', [dict(prompt_drop_rate=0.3), dict(frozen=False)], ids=str)
def test_the_training_is_the_same_with_and_without(tmp_path, backbone):
    """Modes stay; order of the images, augmentation and dropout come from generators that the hook leaves alone."""
    probes = [train(tmp_path / str(i), hook, backbone, AUGMENTED, RANDOM_SAMPLE)[1]
              for i, hook in enumerate((None, dict(interval=1)))]
    assert len(probes[0].losses) == STEPS and probes[0].losses == probes[1].losses
    for (prompts, modes), (others, their_modes) in zip(*(probe.steps for probe in probes), strict=True):
        assert torch.equal(prompts, others) and modes == their_modes
    assert any(probes[1].steps[-1][1].values())
    assert records(tmp_path / '1') and not records(tmp_path / '0')


def test_no_dropout_while_measuring(tmp_path):
    for name, rate in (('plain', 0.), ('dropped', 0.5)):
        train(tmp_path / name, dict(interval=1, num_images=5), dict(
            prompt_type='shallow', frozen=False, drop_rate=rate, prompt_drop_rate=rate), optim_wrapper=STILL)
    assert measured(tmp_path / 'dropped') == measured(tmp_path / 'plain')


@pytest.mark.parametrize(('options', 'changes'), [
    (dict(interval=1), dict(backbone=dict(num_prompts=0))), (dict(interval=1), dict(model=STOCK)),
    (dict(interval=0), {})], ids=['no prompts', 'stock ViT', 'switched off'])
def test_nothing_to_measure(tmp_path, options, changes):
    runner, probe = train(tmp_path, options, **changes)
    assert len(probe.losses) == STEPS and not records(tmp_path)
    assert not any(key.startswith('nmi/') for key in runner.message_hub.log_scalars)


@pytest.mark.parametrize(('options', 'message'), [
    (dict(interval=-1), 'interval of PromptNMIHook must be a whole number of at least 0, got -1'),
    (dict(interval=None), 'interval .*got None'),
    (dict(num_images='all'), "num_images .*got 'all'"),
    (dict(seed=-1), 'seed .* at least 0, got -1'),
    (dict(normalizer='mean'), "normalizer must be one of .*, got 'mean'"),
], ids=str)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        PromptNMIHook(**options)


# ---------------------------------------------------------------------------------------------- two processes


COUNTS = (7, 1)


def _two_processes(rank, folder):
    join_group(rank, folder)
    for count in COUNTS:
        runner = build_runner(f'{folder}/{count}', dict(interval=2, num_images=count), pipeline=AUGMENTED,
                              launcher='pytorch', optim_wrapper=STILL, batch_size=4)
        runner.train()
        torch.save(history(runner.message_hub), f'{folder}/{count}/{rank}.pt')
    build_runner(f'{folder}/iterations', dict(interval=2), launcher='pytorch', **by_iterations(4)).train()
    runner = build_runner(f'{folder}/broken', dict(num_images=7), pipeline=[FailOnLastRank(), *PLAIN],
                          launcher='pytorch')
    Path(folder, 'broken', f'rank_{rank}.txt').write_text(failure_of(runner))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope='module')
def two_processes(tmp_path_factory):
    """Folder in which two processes left their values and their errors."""
    folder = tmp_path_factory.mktemp('two_processes')
    spawn_two(_two_processes, folder)
    return folder


@pytest.mark.parametrize('count', COUNTS)
def test_two_processes_measure_what_one_does(tmp_path, two_processes, count):
    train(tmp_path, dict(interval=2, num_images=count), pipeline=AUGMENTED, optim_wrapper=STILL)
    expected, found = measured(tmp_path), measured(two_processes / str(count))
    assert list(found) == list(expected) == [0, 2, 3]
    for step, values in expected.items():
        assert min(values) > 1e-4 and found[step] == pytest.approx(values, rel=1e-3, abs=0)
    epochs = [record['nmi/epoch'] for record in records(two_processes / str(count)).values()]
    assert epochs == pytest.approx([0, 2 / STEPS, 1])
    first, second = (torch.load(two_processes / str(count) / f'{rank}.pt') for rank in range(2))
    assert first == second
    assert first[KEYS[0]] == pytest.approx([values[0] for values in found.values()])


def test_epochs_of_two_processes_without_epochs(two_processes):
    """An endless sampler's length is that of the data set, which the processes share nonetheless."""
    found = records(two_processes / 'iterations')
    assert list(found) == [0, 2, 4, 5]
    assert [record['nmi/epoch'] for record in found.values()] == pytest.approx(
        [0, 2 / STEPS, 4 / STEPS, 5 / STEPS], abs=0.4)  # 2.5 or 3 iterations of 2 x 4 of the 20 images


def test_failure_of_one_process_stops_both(two_processes):
    first, second = ((two_processes / 'broken' / f'rank_{rank}.txt').read_text() for rank in range(2))
    assert first == ('RuntimeError: loading the images of PromptNMIHook failed on another process: '
                     "{'rank 1': 'OSError: this image is on a broken disk'}")
    assert second == 'OSError: this image is on a broken disk'
    assert not any('nmi/' in path.read_text() for path in two_processes.glob('broken/*/vis_data/scalars.json'))
