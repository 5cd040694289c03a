"""PromptNMIHook inside MMEngine's Runner: what it measures, where it goes, what it leaves alone, and two processes."""
import os
import time
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import VISBACKENDS, VISUALIZERS
from mmengine.runner import Runner
from mmengine.visualization import BaseVisBackend
from mmpretrain.models import VisionTransformer
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers import ROOT, scalars, spawn_two
from mmspt.datasets import Digits
from mmspt.engine.hooks import PromptNMIHook
from mmspt.engine.start import init_cpu_distributed

ARCH = dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64)
VIT = dict(arch=ARCH, img_size=16, patch_size=4, out_type='avg_featmap', final_norm=False)
PLAIN = [dict(type='Resize', scale=16), dict(type='PackInputs')]
AUGMENTED = [dict(type='RandomResizedCrop', scale=16, crop_ratio_range=(0.3, 1.0)), dict(type='PackInputs')]
NUM_IMAGES, STEPS, SEED = 20, 3, 3  # images in the training set, iterations of an epoch
STILL = dict(optimizer=dict(type='SGD', lr=0.))
INIT = dict(type='mmspt.PromptInitHook', initializer=dict(type='mmspt.RandomSampleInit'))
KEYS = [f'nmi/layer_{i:02d}' for i in (1, 2, 3)]


@pytest.fixture(autouse=True)
def _unformatted_configs(monkeypatch):
    """YAPF takes more time than a tiny run."""
    monkeypatch.setattr(Config, 'pretty_text', property(lambda self: ''))


class StrongWeights(Hook):
    """Frozen weights that make similarities large enough to measure; the same in every run."""
    priority = 'VERY_HIGH'

    def before_train(self, runner):
        generator = torch.Generator().manual_seed(0)
        for name, parameter in sorted(runner.model.named_parameters()):
            if 'backbone' in name and not name.endswith('prompts.tokens'):
                drawn = 0.2 * torch.randn(parameter.shape, generator=generator)
                parameter.data.copy_(drawn)


class Probe(Hook):
    """Runs last. Keeps the prompts, losses and modes of every step."""
    priority = 'VERY_LOW'

    def __init__(self):
        self.prompts, self.losses, self.modes = [], [], []

    def look(self, runner):
        prompts = getattr(runner.model.backbone, 'prompts', None)
        self.prompts.append(None if prompts is None else prompts.tokens.detach().cpu().clone())
        self.modes.append([module.training for module in runner.model.modules()])

    def before_train(self, runner):
        self.look(runner)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.look(runner)
        self.losses.append(outputs['loss'].item())


def build_runner(work_dir, nmi=None, backbone=None, pipeline=PLAIN, hooks=(INIT, ), epochs=1, batch_size=8, **changes):
    """A Runner with a tiny backbone on two digits of each class; ``nmi=None`` leaves PromptNMIHook out."""
    defaults = dict(checkpoint=dict(type='CheckpointHook', interval=1))
    if nmi is not None:
        defaults['nmi'] = dict(type='mmspt.PromptNMIHook') | nmi
    cfg = dict(
        default_scope='mmpretrain',
        model=dict(
            type='ImageClassifier',
            backbone=dict(type='mmspt.PromptedViT', num_prompts=4, allow_random_backbone=True) | VIT | (backbone or {}),
            head=dict(type='LinearClsHead', num_classes=10, in_channels=32)),
        data_preprocessor=dict(num_classes=10, mean=[127.5] * 3, std=[127.5] * 3),
        train_dataloader=dict(
            batch_size=batch_size, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
            dataset=dict(type='mmspt.Digits', images_per_class=2, pipeline=pipeline, serialize_data=False)),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        default_hooks=defaults,
        custom_hooks=list(hooks),
        randomness=dict(seed=SEED),
        work_dir=str(work_dir),
        experiment_name=f'test_prompt_nmi_{uuid4().hex}')
    cfg = Config(cfg | changes)
    init_cpu_distributed(cfg)
    runner = Runner.from_cfg(cfg)
    runner.register_hook(StrongWeights())
    return runner


def train(work_dir, *args, **kwargs):
    """Train; return the Runner and the probe."""
    runner, probe = build_runner(work_dir, *args, **kwargs), Probe()
    runner.register_hook(probe)
    runner.train()
    return runner, probe


def records(work_dir):
    """What PromptNMIHook wrote to the run's newest scalars.json, by step."""
    found = [record for record in scalars(Path(work_dir)) if any(key.startswith('nmi/') for key in record)]
    assert len({record['step'] for record in found}) == len(found), 'one measurement a step'
    return {record['step']: record for record in found}


def layers_of(record):
    return [record[key] for key in KEYS]


def measured(work_dir):
    """Step -> values of the layers."""
    return {step: layers_of(record) for step, record in records(work_dir).items()}


MEANS = dict(geometric=lambda p, e: np.sqrt(p * e), arithmetic=lambda p, e: (p + e) / 2, min=min, max=max)


def nmi(prompts, patches, normalizer):
    """Of one image, in float64, after the definition."""
    prompts, patches = prompts.double().numpy(), patches.double().numpy()
    weights = 1 / (1 + np.exp(-prompts @ patches.T / np.sqrt(prompts.shape[1])))
    joint = weights / weights.sum()
    p, e = joint.sum(1), joint.sum(0)
    information = (joint * np.log(joint / np.outer(p, e))).sum()
    return information / MEANS[normalizer](-(p * np.log(p)).sum(), -(e * np.log(e)).sum())


def stock_values(runner, prompts, normalizer='geometric'):
    """For each layer the mean NMI over all images of the training set, with the blocks of MMPretrain's own ViT."""
    stock = VisionTransformer(**VIT)
    stock.eval()  # returns nothing
    stock.load_state_dict({k: v.cpu() for k, v in runner.model.backbone.state_dict().items() if 'prompts' not in k})
    dataset = Digits(split='train', images_per_class=2, pipeline=PLAIN, serialize_data=False)
    images = (torch.stack([item['inputs'] for item in dataset]).float() - 127.5) / 127.5
    values = []
    with torch.no_grad():
        patches = stock.patch_embed(images)[0]
        x = torch.cat((stock.cls_token.expand(len(x := patches), -1, -1), x), dim=1) + stock.pos_embed
        travelling = None
        for i, block in enumerate(stock.layers):
            read = prompts[i].expand(len(x), -1, -1) if i < len(prompts) else travelling
            values.append(np.mean([nmi(p, e, normalizer) for p, e in zip(read, patches, strict=True)]))
            x = block(torch.cat((x[:, :1], read, x[:, 1:]), dim=1))
            travelling, patches = x[:, 1:5], x[:, 5:]
            x = torch.cat((x[:, :1], patches), dim=1)
    return values


# ---------------------------------------------------------------------------------------------- what is measured


@pytest.mark.parametrize(('prompt_type', 'interval', 'normalizer', 'expected'), [
    ('deep', 1, 'geometric', [0, 1, 2, 3, 4, 5, 6]),
    ('shallow', 2, 'arithmetic', [0, 2, 4, 6]),
    ('deep', 4, 'min', [0, 4, 6]),
    ('shallow', 50, 'max', [0, 6]),
])
def test_values(tmp_path, prompt_type, interval, normalizer, expected):
    """Of the prompts before the first step, every so many steps, and after the last."""
    hook = dict(interval=interval, num_images=100, normalizer=normalizer)
    runner, probe = train(tmp_path, hook, dict(prompt_type=prompt_type), epochs=2)
    found = records(tmp_path)
    assert list(found) == expected
    initial = load_file(tmp_path / 'initial_prompts.safetensors')['prompts']
    assert torch.equal(initial, probe.prompts[0])
    for step, record in found.items():
        assert set(record) == {*KEYS, 'nmi/mean', 'nmi/epoch', 'step'}
        values = stock_values(runner, initial if step == 0 else probe.prompts[step], normalizer)
        assert min(values) > 1e-3
        assert layers_of(record) == pytest.approx(values, rel=1e-3)
        assert record['nmi/mean'] == pytest.approx(sum(values) / 3, rel=1e-3)
        assert record['nmi/epoch'] == pytest.approx(step / STEPS)
    assert layers_of(found[6]) != pytest.approx(layers_of(found[0]), rel=1e-2)
    assert 'NMI of prompts and patches after 6 iterations: mean' in ''.join(
        path.read_text() for path in tmp_path.glob('*/*.log'))


def test_same_images_every_time(tmp_path):
    """Nothing learns, so nothing may change; augmentation is part of the images."""
    train(tmp_path / 'a', dict(interval=1), pipeline=AUGMENTED, epochs=2, optim_wrapper=STILL)
    found = measured(tmp_path / 'a')
    assert len(found) == 7 and all(values == found[0] for values in found.values())
    train(tmp_path / 'b', dict(), pipeline=PLAIN, optim_wrapper=STILL)
    assert measured(tmp_path / 'b')[0] != pytest.approx(found[0], rel=1e-4)


@pytest.mark.parametrize(('options', 'same'), [
    (dict(seed=SEED), True), (dict(seed=SEED + 1), False), (dict(num_images=17), False), (dict(interval=1), True)
], ids=str)
def test_seed_and_number_choose_the_images(tmp_path, options, same):
    values = []
    for name, hook in (('default', {}), ('changed', options)):
        train(tmp_path / name, hook, pipeline=AUGMENTED, optim_wrapper=STILL, hooks=())
        values.append(measured(tmp_path / name)[0])
    assert (values[0] == values[1]) == same


@pytest.mark.parametrize(('batch_size', 'options', 'expected'), [
    (8, {}, 16), (3, {}, 6), (3, dict(num_images=9), 9), (8, dict(num_images=100), 20)])
def test_a_small_batch_is_not_slowed_down(tmp_path, batch_size, options, expected):
    """Twice the batch, up to 16 images, unless told otherwise; never more than there are."""
    runner, _ = train(tmp_path, options, hooks=(), batch_size=batch_size)
    hook, = (hook for hook in runner.hooks if isinstance(hook, PromptNMIHook))
    assert len(hook._images) == expected


def test_an_interval_of_zero_switches_it_off(tmp_path):
    train(tmp_path, dict(interval=0), hooks=())
    assert not records(tmp_path)


def by_iterations(batch_size):
    """What makes a run one of 5 iterations, without epochs."""
    loader = dict(
        batch_size=batch_size, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True),
        dataset=dict(type='mmspt.Digits', images_per_class=2, pipeline=PLAIN, serialize_data=False))
    return dict(train_dataloader=loader, train_cfg=dict(by_epoch=False, max_iters=5))


def test_iterations(tmp_path):
    runner, probe = train(tmp_path, dict(interval=2, num_images=100), **by_iterations(8))
    found = records(tmp_path)
    assert list(found) == [0, 2, 4, 5]
    for step, record in found.items():
        assert layers_of(record) == pytest.approx(stock_values(runner, probe.prompts[step]), rel=1e-3)
        assert record['nmi/epoch'] == pytest.approx(step * 8 / 20)  # batches of 8 of 20 images, without a break


class StopAfterOne(Hook):
    """Early stopping."""

    def after_train_epoch(self, runner):
        runner.train_loop.stop_training = True


def test_a_training_that_is_stopped_early(tmp_path):
    """The last step is the last one done."""
    runner, probe = build_runner(tmp_path, dict(interval=50, num_images=100), epochs=4), Probe()
    runner.register_hook(StopAfterOne())
    runner.register_hook(probe)
    runner.train()
    assert runner.iter == 3 and list(records(tmp_path)) == [0, 3]


def test_mixed_precision(tmp_path):
    """The network runs in bf16, as it trains; the measure itself does not."""
    wrapper = dict(type='mmspt.AmpOptimWrapper', dtype='bfloat16')
    for name, kind in (('fp32', {}), ('bf16', wrapper)):
        train(tmp_path / name, dict(num_images=100), hooks=(), optim_wrapper=STILL | kind)
    exact, mixed = (layers_of(records(tmp_path / name)[0]) for name in ('fp32', 'bf16'))
    assert mixed == pytest.approx(exact, rel=0.1)
    assert mixed != exact


# ---------------------------------------------------------------------------------------------- where it goes


def history(hub):
    """Layer -> all values, of a message hub's state."""
    buffers = hub['log_scalars'] if isinstance(hub, dict) else hub.log_scalars
    return {key: buffers[key].data[0].tolist() for key in [*KEYS, 'nmi/mean']}


def test_history_is_saved_and_resumed(tmp_path):
    """Two epochs at a stretch, and one and one: the same history, with one start."""
    whole, _ = train(tmp_path / 'whole', dict(interval=2), epochs=2)
    first, _ = train(tmp_path / 'parts', dict(interval=2))
    assert list(records(tmp_path / 'parts')) == [0, 2, 3]
    values = measured(tmp_path / 'parts')
    kept = history(first.message_hub)
    assert kept[KEYS[0]] == pytest.approx([row[0] for row in values.values()])
    saved = torch.load(tmp_path / 'parts' / 'epoch_1.pth', map_location='cpu', weights_only=False)
    assert history(saved['message_hub']) == kept

    time.sleep(1)  # MMEngine names a run's logs by the second
    second, _ = train(tmp_path / 'parts', dict(interval=2), resume=True, epochs=2)
    assert list(records(tmp_path / 'parts')) == [4, 6]
    resumed = history(second.message_hub)
    for key, found in resumed.items():
        assert len(found) == 5 and found[:3] == kept[key]
    assert len(history(whole.message_hub)[KEYS[0]]) == 4  # steps 0, 2, 4, 6: step 3 was no end


def test_resumed_at_its_end(tmp_path):
    train(tmp_path, dict(interval=2))
    time.sleep(1)
    runner, probe = train(tmp_path, dict(interval=2), resume=True)
    assert not probe.losses and len(history(runner.message_hub)[KEYS[0]]) == 3


@VISBACKENDS.register_module()
class RecordingBackend(BaseVisBackend):
    """Keeps the scalars that it is given."""
    seen: list = []

    experiment = None

    def _init_env(self):
        pass

    def add_scalars(self, scalar_dict, step=0, file_path=None, **kwargs):
        self.seen.append((step, dict(scalar_dict)))


def test_every_backend_gets_it(tmp_path):
    RecordingBackend.seen.clear()
    events = tmp_path / 'events'
    visualizer = dict(type='UniversalVisualizer', vis_backends=[
        dict(type='LocalVisBackend'), dict(type='RecordingBackend'),
        dict(type='TensorboardVisBackend', save_dir=str(events))])
    runner, _ = train(tmp_path / 'run', dict(interval=2), visualizer=visualizer)
    runner.visualizer.close()
    expected = records(tmp_path / 'run')
    seen = {step: values for step, values in RecordingBackend.seen if 'nmi/mean' in values}
    assert list(seen) == list(expected) == [0, 2, 3]
    for step, values in seen.items():
        assert {**values, 'step': step} == pytest.approx(expected[step])
    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    for key in [*KEYS, 'nmi/mean', 'nmi/epoch']:
        assert [event.step for event in accumulator.Scalars(key)] == [0, 2, 3]
        assert [event.value for event in accumulator.Scalars(key)] == pytest.approx(
            [record[key] for record in expected.values()], rel=1e-6)


@pytest.mark.parametrize('switched_on', [False, True])
def test_tensorboard_is_one_switch_away(tmp_path, switched_on):
    """configs/_base_/default_runtime.py names the backend without a folder, which MMEngine leaves out."""
    cfg = Config.fromfile(ROOT / 'configs/_base_/default_runtime.py')
    folder = tmp_path / 'tensorboard'
    if switched_on:
        cfg.merge_from_dict({'visualizer.vis_backends.1.save_dir': str(folder)})
    visualizer = VISUALIZERS.build({**cfg.visualizer, 'name': uuid4().hex, 'save_dir': str(tmp_path / 'run')})
    visualizer.add_scalars({'nmi/layer_01': 0.5}, step=7)
    visualizer.close()
    assert list(visualizer._vis_backends) == ['LocalVisBackend', 'TensorboardVisBackend'][:1 + switched_on]
    assert (tmp_path / 'run/vis_data/scalars.json').exists() and folder.exists() == switched_on
    if switched_on:
        accumulator = EventAccumulator(str(folder))
        accumulator.Reload()
        assert [(event.step, event.value) for event in accumulator.Scalars('nmi/layer_01')] == [(7, 0.5)]


# ---------------------------------------------------------------------------------------------- what is left alone


def test_the_training_is_the_same_with_and_without(tmp_path):
    """Order of the images, augmentation and dropout of prompts come from generators that the hook leaves alone."""
    probes = [train(tmp_path / str(i), hook, dict(prompt_drop_rate=0.3), AUGMENTED, epochs=2)[1]
              for i, hook in enumerate((None, dict(interval=1)))]
    assert len(probes[0].losses) == 6 and probes[0].losses == probes[1].losses
    assert all(torch.equal(a, b) for a, b in zip(*(probe.prompts for probe in probes), strict=True))
    assert records(tmp_path / '1') and not records(tmp_path / '0')


@pytest.mark.parametrize('backbone', [dict(), dict(frozen=False)], ids=str)
def test_modes_are_left_alone(tmp_path, backbone):
    with_hook, without = (train(tmp_path / str(i), hook, backbone)[1].modes for i, hook in enumerate((
        dict(interval=1), None)))
    assert with_hook == without and any(with_hook[-1])


@pytest.mark.parametrize('backbone', [
    dict(prompt_drop_rate=0.5), dict(prompt_drop_rate=0.5, prompt_type='shallow'), dict(frozen=False, drop_rate=0.5)
], ids=str)
def test_no_dropout_while_measuring(tmp_path, backbone):
    plain = {key: 0. if key.endswith('drop_rate') else value for key, value in backbone.items()}
    for name, changes in (('plain', plain), ('dropped', backbone)):
        train(tmp_path / name, dict(interval=1, num_images=5), changes, optim_wrapper=STILL)
    assert measured(tmp_path / 'dropped') == measured(tmp_path / 'plain')


@pytest.mark.parametrize('model', [
    None, dict(type='ImageClassifier', backbone=dict(type='VisionTransformer', **VIT),
               head=dict(type='LinearClsHead', num_classes=10, in_channels=32))], ids=['no prompts', 'stock ViT'])
def test_no_prompts(tmp_path, model):
    changes = dict(model=model) if model else dict(backbone=dict(num_prompts=0))
    runner, probe = train(tmp_path, dict(interval=1), hooks=(), **changes)
    assert len(probe.losses) == STEPS and not records(tmp_path)
    assert not any(key.startswith('nmi/') for key in runner.message_hub.log_scalars)


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(('options', 'message'), [
    (dict(interval=-1), 'interval of PromptNMIHook must be a whole number of at least 0, got -1'),
    (dict(interval=-1), 'interval .*got -1'),
    (dict(interval=1.5), 'interval .*got 1.5'),
    (dict(interval=True), 'interval .*got True'),
    (dict(interval=None), 'interval .*got None'),
    (dict(num_images=0), 'num_images .* at least 1, got 0'),
    (dict(num_images='all'), "num_images .*got 'all'"),
    (dict(seed=-1), 'seed .* at least 0, got -1'),
    (dict(seed=0.5), 'seed .*got 0.5'),
    (dict(normalizer='mean'), "normalizer must be one of .*, got 'mean'"),
], ids=str)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        PromptNMIHook(**options)


class FailOnRank1:

    def __call__(self, results):
        if dist.get_rank() == dist.get_world_size() - 1:
            raise OSError('this image is on a broken disk')
        return results


def test_image_that_cannot_be_read(tmp_path):
    runner, probe = build_runner(tmp_path, {}, pipeline=[FailOnRank1(), *PLAIN], hooks=()), Probe()
    runner.register_hook(probe)
    with pytest.raises(OSError, match='broken disk'):
        runner.train()
    assert not probe.losses and not records_or_none(tmp_path)


def records_or_none(work_dir):
    return any('nmi/' in path.read_text() for path in Path(work_dir).glob('*/vis_data/scalars.json'))


# ---------------------------------------------------------------------------------------------- two processes


COUNTS = (16, 7, 1)


def _two_processes(rank, folder):
    torch.set_num_threads(1)
    Config.pretty_text = property(lambda self: '')
    os.environ.update(CUDA_VISIBLE_DEVICES='', LOCAL_RANK=str(rank))
    torch.distributed.init_process_group('gloo', f'file://{folder}/rendezvous', timedelta(seconds=60), 2, rank)
    for count in COUNTS:
        runner = build_runner(f'{folder}/{count}', dict(interval=2, num_images=count), pipeline=AUGMENTED,
                              launcher='pytorch', optim_wrapper=STILL, hooks=(), batch_size=4)
        runner.train()
        torch.save(history(runner.message_hub), f'{folder}/{count}/{rank}.pt')
    build_runner(f'{folder}/iterations', dict(interval=2), launcher='pytorch', hooks=(), **by_iterations(4)).train()
    runner = build_runner(f'{folder}/broken', dict(num_images=7), pipeline=[FailOnRank1(), *PLAIN], hooks=(),
                          launcher='pytorch')
    message = 'finished'
    try:
        runner.train()
    except Exception as error:
        message = f'{type(error).__name__}: {error}'
    Path(folder, 'broken', f'rank_{rank}.txt').write_text(message)
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
    train(tmp_path, dict(interval=2, num_images=count), pipeline=AUGMENTED, optim_wrapper=STILL, hooks=())
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
    assert not records_or_none(two_processes / 'broken')
