"""The benchmarks run on a toy network, and their figures follow from their measurements. Nothing is judged by time."""
import json
import shutil
import statistics
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.models import VisionTransformer
from PIL import Image

import bilinear
import checkpoints
import loader
import nmi
import photographs
import plot
import prototypes
import serve
import step
import vipamin
from helpers import DATA, ROOT, make_images
from measure import record
from mmspt.models import PromptedViT


@pytest.fixture
def run(monkeypatch, tmp_path, capfd):
    """Run a benchmark with arguments; return its numbers. What it prints names their file."""
    for network in (VisionTransformer, PromptedViT):
        monkeypatch.setitem(network.arch_zoo, 'toy', dict(
            embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64))

    def run_module(module, *arguments):
        path = tmp_path / 'numbers.json'
        monkeypatch.setattr(sys, 'argv', [module.__name__, '--out', *map(str, (path, *arguments))])
        record(module.parse_args(), module.measure, module.show)
        text = path.read_text()
        assert str(path) in capfd.readouterr().out
        assert str(tmp_path) not in text
        return json.loads(text)
    return run_module


TOY = ('--arch', 'toy', '--img-size', 32)


def median_ratio(above, below):
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def test_step(run, tmp_path, monkeypatch):
    content = run(step, *TOY, '--batch-size', 2, '--prompts', 3, '--rounds', 2, '--outputs', 'mae')
    assert content['machine']['versions']['mmspt'] and content['settings']['rounds'] == 2
    assert [(case['kind'], case['dtype']) for case in content['cases']] == [
        (kind, dtype) for kind in ('step', 'forward') for dtype in ('float32', 'bfloat16')]
    paths = {f'{path}, 3' for path in (
        'keys and values', 'concatenation', 'shallow', 'gated', 'gated (written out)', 'bilinear')}
    for case in content['cases']:
        rows = case['variants']
        assert 0 < case['difference'] < dict(float32=1e-5, bfloat16=0.1)[case['dtype']]  # the same work
        assert set(rows) - {'full fine-tuning'} == paths | {'no prompts', 'no prompts (short end)'}
        assert ('full fine-tuning' in rows) == (case['kind'] == 'step')
        assert ('over_float32' in rows['no prompts']) == (case['dtype'] == 'bfloat16')
        none, slow, fast = (rows[name] for name in ('no prompts', 'concatenation, 3', 'keys and values, 3'))
        assert slow['over_none'] == median_ratio(slow['seconds'], none['seconds'])
        assert slow['over_keys_values'] == median_ratio(slow['seconds'], fast['seconds'])
        assert fast['median'] == statistics.median(fast['seconds'])
        # prompts of width 32 in 3 blocks; 2 gates and 3 temperatures; 3 x 3 coefficients of 3 blocks, 1 basis
        assert {name: row['tuned'] for name, row in rows.items() if name != 'full fine-tuning'} == {
            'no prompts': 0, 'no prompts (short end)': 0, 'keys and values, 3': 3 * 3 * 32,
            'concatenation, 3': 3 * 3 * 32, 'shallow, 3': 3 * 32, 'gated, 3': 3 * 32 + 5,
            'gated (written out), 3': 3 * 32 + 5, 'bilinear, 3': 3 * 3 * 3 + 32 * 3}
    picture = tmp_path / 'picture.png'
    monkeypatch.setattr(sys, 'argv', ['plot.py', str(tmp_path / 'numbers.json'), str(picture)])
    plot.main()
    with Image.open(picture) as image:
        assert len(image.convert('RGB').getcolors(2**24)) > 20


def test_step_without_a_pair_to_compare(run):
    content = run(step, *TOY, '--batch-size', 2, '--prompts', 3, '--rounds', 1, '--dtypes', 'float32', '--types',
                  'shallow', '--outputs', 'mocov3', '--passes', 'forward')
    assert [case['difference'] for case in content['cases']] == [None]


def test_a_variant_that_fails_is_a_row(run, monkeypatch):
    def work(model, *args):
        if getattr(model.backbone, 'concatenate', False):
            raise torch.OutOfMemoryError('no room\nin the house')
        real(model, *args)

    real = step.work
    monkeypatch.setattr(step, 'work', work)
    case, = run(step, *TOY, '--batch-size', 2, '--prompts', 3, '--rounds', 2, '--dtypes', 'float32', '--types', 'deep',
                '--outputs', 'mae', '--passes', 'forward', '--references', 'no prompts')['cases']
    assert list(case['variants']) == ['concatenation, 3', 'no prompts', 'keys and values, 3']
    failed, none, fast = case['variants'].values()
    assert failed == dict(error='OutOfMemoryError: no room') and case['difference'] is None
    assert fast['over_none'] == median_ratio(fast['seconds'], none['seconds'])


def test_prototypes(run, tmp_path):
    items = make_images(tmp_path / 'images', 3)
    (tmp_path / 'list.txt').write_text(''.join(f'{name} {label}\n' for name, label in items))
    content = run(prototypes, *TOY, '--batch-size', 4, '--num-workers', 0, '--prompts', 2, '--sizes', 6, 20, '--exact',
                  '--max-memory', 0.00001, '--data-root', tmp_path, '--ann-file', 'list.txt', '--data-prefix', 'images')
    assert [(row['init'], row['images']) for row in content['rows']] == [
        (init, size) for size in (6, 20) for init in ('random', 'mean', 'max', 'kmeans', 'vipamin')]
    assert all(row['seconds'] > 0 and row['forward'] > 0 for row in content['rows'])
    for row in content['rows']:
        assert min(row['parts'].values()) > 0 and sum(row['parts'].values()) == pytest.approx(row['seconds'])
    exact, = content['exact']
    assert exact['tokens'] == 20 * 4 and len(exact['ratios']) == 3
    # of 80 tokens K-means finds one optimum or another, so neither is always the better
    assert all(0.5 < ratio < 2 for ratio in exact['ratios']) and any(ratio != 1 for ratio in exact['ratios'])


def test_vipamin(run):
    content = run(vipamin, '--num-images', 8, '--k', 2)
    rows = {(row['block'], row['part']): row for row in content['rows']}
    assert len(rows) == 6 * 5 and content['images'] == 8
    for block in range(1, 7):
        assert rows[block, 'orthogonal, exact']['share'] < 1e-3 < 0.3 < rows[block, 'orthogonal, released']['share'] < 1
        assert abs(rows[block, 'uniform']['norm'] - (6 / (3 * 2 * 2 + 128) * 128 / 3)**0.5) < 0.1


def test_bilinear(run, tmp_path, monkeypatch):
    """On a network of random weights: ranks and shares follow from each other; no rank misses less than a lower one."""
    items = make_images(tmp_path / 'images', 3)
    (tmp_path / 'list.txt').write_text(''.join(f'{name} {label}\n' for name, label in items))
    text = (ROOT / 'configs/bpt/vit-s_dinov2_flowers17.py').as_posix()
    config = tmp_path / 'config.py'
    config.write_text(f"""_base_ = {text!r}
model = dict(head=dict(in_channels=32), backbone=dict(
    arch='toy', patch_size=8, img_size=32, prompts=dict(rank=4), init_cfg=None, allow_random_backbone=True))
train_dataloader = dict(dataset=dict(data_prefix='images', ann_file='list.txt'))
""")
    work_dir = tmp_path / 'runs' / 'one' / 'logs' / 'vis_data'
    work_dir.mkdir(parents=True)
    (work_dir / 'scalars.json').write_text('{"accuracy/top1": 50.0, "step": 2}\n')
    Config.fromfile(config).dump(tmp_path / 'runs' / 'one' / 'vit.py')
    monkeypatch.chdir(tmp_path)
    content = run(bilinear, '--config', 'config.py', '--data-root', '.', '--sizes', 32, 48, '--prompts', 4, '--ranks',
                  1, 3, 4, 5, '--runs', 'runs')
    assert [(row['size'], row['block'], row['tokens']) for row in content['spectra']] == [
        (size, block, tokens) for size, tokens in ((32, 17), (48, 37)) for block in (1, 2, 3)]
    for row in content['spectra']:
        assert 1 <= row['rank_99'] <= row['rank_9999'] <= min(row['tokens'], 32)
        whitened = row['weakest'] / (row['weakest'] + content['eps'])
        assert row['whitened_9999'] == pytest.approx(whitened, rel=1e-6)
        assert row['off'] <= row['whitened_9999'] <= row['whitened_99'] < 1
    for row in content['fits']:
        one, three, *enough = row['missed'].values()
        assert 0 < three < one < 1 and max(enough) < 1e-6
    (one, ) = content['runs']
    assert one['validations'] == {'2': 50.} and (one['start'], one['test']) == ('mmspt.WhitenedInit', None)


def test_serve(run):
    content = run(serve, *TOY, '--batch-size', 6, '--tasks', 3, '--packs', 5, '--rounds', 3, '--prompts', 3,
                  '--classes', 7, '--calls', 2)
    assert [case['outputs'] for case in content['cases']] == ['mae', 'mocov3']
    for case in content['cases']:
        assert max(case['difference'].values()) < 1e-5 and case['memory']['task_over_pack'] <= 2
        assert case['memory']['pack_file'] > case['memory']['pack']
        for times, ratios in (('seconds', 'ratios'), ('cpu_seconds', 'cpu_ratios')):
            assert all(len(values) == 3 for values in case[times].values())
            assert case[ratios]['mixed / one task'] == median_ratio(case[times]['mixed'], case[times]['one task'])


def test_checkpoints(run):
    content = run(checkpoints, *TOY, '--rounds', 2)
    # 3 blocks of width 32 (4 D^2 in attention, 2 * 64 D in the MLP) and 3 * 16^2 * 32 of the patch embedding, fp32
    assert content['bytes']['whole'] - content['bytes']['trained only'] > 4 * (3 * (4 * 32**2 + 128 * 32) + 768 * 32)
    tuned = 3 * 20 * 32 + 33 * 200
    assert 3 * 4 * tuned < content['bytes']['trained only'] < 3 * 4 * tuned + 100_000
    assert all(len(values) == 2 and min(values) > 0 for values in content['seconds'].values())


@pytest.mark.parametrize(('options', 'interval', 'images'), [
    ((), 50, 16), (('--interval', 10, '--num-images', 3, '--dtype', 'bfloat16', '--prompt-type', 'shallow'), 10, 3)
], ids=str)
def test_nmi(run, options, interval, images):
    content = run(nmi, *TOY, '--batch-sizes', 4, 2, '--prompts', 3, '--rounds', 3, *options)
    assert content['settings']['interval'] == interval and content['images'] == images
    assert [row['batch_size'] for row in content['steps']] == [4, 2]
    measured = content['measure']['seconds']
    assert len(measured) == 3 and content['measure']['median'] == statistics.median(measured)
    for row in content['steps']:
        shares = sorted(a / (interval * b) for a, b in zip(measured, row['seconds'], strict=True))
        assert [row['least'], row['share'], row['most']] == pytest.approx(shares)


def test_loader(run, tmp_path):
    for name, _ in make_images(tmp_path / 'images', 5, classes=2, size=300):
        with Image.open(tmp_path / 'images' / name) as image:
            image.save((tmp_path / 'images' / name).with_suffix('.jpg'))
    shutil.copy(DATA / 'hub/vit.safetensors', tmp_path)
    (tmp_path / 'config.json').write_text(json.dumps(dict(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, model_type='vit')))
    content = run(loader, *TOY, '--data-root', tmp_path / 'images', '--checkpoint', tmp_path / 'vit.safetensors',
                  '--probe-size', 16, '--tested', 4, '--images', 3, '--rounds', 2, '--workers', 1, '--epoch', 6,
                  '--batch-size', 2, '--steps', 1)
    assert [(row['kind'], row['phase']) for row in content['core']] == [
        (kind, phase) for kind in ('as they are', 'enlarged', 'mosaic') for phase in ('train', 'test')]
    for row in content['core']:
        assert row['mean_difference'] < 0.1 and row['largest_difference'] <= 2
        host, cached = row['variants']['MMPretrain'], row['variants']['ours, cached']
        assert cached['over_mmpretrain'] == median_ratio(host['seconds'], cached['seconds'])
        assert cached['images_per_second'] == 3 / statistics.median(cached['seconds'])
    assert all(value > 0 for parts in content['parts'].values() for value in parts.values())
    assert [row['workers'] for row in content['workers']] == [1] and len(content['options']) == 5
    assert content['memory']['cache'] > 3 * 500 * 666 * 3 and content['memory']['cached_over_ours'] > 0
    waiting = content['waiting']
    assert waiting['fetched_ahead'] == 2 * waiting['workers']
    assert all(0 <= row['share'] < 1 for row in waiting['variants'].values())
    accuracy = content['accuracy']
    assert accuracy['tested'] == 4 and accuracy['trained'] == 3 * 6
    assert accuracy['accuracy'] == {'MMPretrain': 1., 'ours': 1., 'ours, scaled': 1.}
    assert accuracy['other_answers'] == accuracy['other_answers_scaled'] == 0
    for row in content['scaled']:  # 18 pixels are needed of 300 or 500
        assert row['min_edge'] == 18 and 0 < row['mean_difference'] < 10
        assert row['over_whole'] == median_ratio(row['seconds']['whole'], row['seconds']['scaled'])


def test_batches_that_were_fetched_ahead_say_nothing_of_waiting(monkeypatch, tmp_path):
    """Loading takes 4 s a batch, of which two are ready at the first step; a step takes 1 s."""
    now = [0.]

    def batches(args, *_, **__):
        for i in range(args.epoch // args.batch_size):
            now[0] += 4. if i > 2 else 0.
            yield i

    def take(runner, batch):
        now[0] += 1.
    for name, fake in dict(num_cores=lambda: 1, make_loader=batches, step=take, classifier_config=lambda *_, **__: {},
                           build_runner=lambda *_: SimpleNamespace(build_optim_wrapper=id, optim_wrapper=None),
                           pipelines=lambda *_: dict(ours=None),
                           time=SimpleNamespace(perf_counter=lambda: now[0])).items():
        monkeypatch.setattr(loader, name, fake)
    args = SimpleNamespace(batch_size=2, steps=3, epoch=2, img_size=32)
    assert loader.measure_waiting(args, [], '', str(tmp_path))['variants'] == {
        'ours': dict(share=0.8, seconds_per_step=5.)}


def test_photographs(tmp_path):
    """Of one size, upright in colour; a mosaic of their own pixels, an enlargement without detail."""
    noise = np.random.default_rng(0).integers(0, 256, (250, 333), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / 'a.png')
    Image.fromarray(noise.T).save(tmp_path / 'b.png')
    made = photographs.write([str(tmp_path / f'{name}.png') for name in 'ab'], 2, str(tmp_path))
    assert {kind: [Image.open(path).size for path in paths] for kind, paths in made.items()} == {
        'as they are': [(333, 250), (250, 333)], 'enlarged': [(666, 500)] * 2, 'mosaic': [(666, 500)] * 2}
    mosaic, enlarged = (np.asarray(Image.open(made[kind][0]), int) for kind in ('mosaic', 'enlarged'))
    assert np.abs(mosaic[:250, :333] - noise[..., None]).mean() < 20  # of JPEG
    assert np.abs(np.diff(mosaic, axis=1)).mean() > 1.5 * np.abs(np.diff(enlarged, axis=1)).mean()
