"""A run's work directory as pictures see it: what it holds, and what is said where something is missing."""
import json
import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.models import ClsDataPreprocessor
from safetensors.torch import load_file, save

from helpers import golden_checkpoint
from mmspt.visualization import RunFolder
from mmspt.visualization.images import preprocess, to_pixels

PROMPTS = 'initial_prompts.safetensors'
INIT = ['init_prompts.py', '{}/job.py', '--work-dir', '{}']


@pytest.fixture
def copy(runs, tmp_path):
    """A copy of a run, which may be broken, in a folder whose name must be quoted."""
    return Path(shutil.copytree(runs.spt, tmp_path / 'a b [x] <ü>' / 'run'))


def test_the_global_batch_is_of_all_processes(copy):
    """The config has the batch of one. A later test on one process has a log of its own, so the result comes first."""
    result = json.loads((copy / 'result.json').read_text())
    assert RunFolder(str(copy)).description['recipe']['global_batch'] == result['recipe']['global_batch'] == 4
    result['recipe']['global_batch'] = 32
    (copy / 'result.json').write_text(json.dumps(result))
    assert RunFolder(str(copy)).description['recipe']['global_batch'] == 32
    (copy / 'result.json').write_text('{')
    log = max(copy.glob('*/*.log'))
    log.write_text(log.read_text().replace('GPU number: 1\n', 'GPU number: 3\n'))
    assert RunFolder(str(copy)).description['recipe']['global_batch'] == 12
    (copy / 'result.json').unlink()
    assert RunFolder(str(copy)).description['recipe']['global_batch'] == 12


@pytest.mark.parametrize(('name', 'label', 'layers', 'seed'), [
    ('spt_seed1', 'SPT-Deep, 5 prompts', 4, 1), ('shallow', 'SPT-Shallow, 5 prompts', 1, 0)])
def test_prompts_before_and_after(runs, name, label, layers, seed):
    folder = getattr(runs, name)
    run = RunFolder(folder)
    assert (run.label, run.seed) == (label, seed)
    assert run.checkpoint == os.path.join(folder, 'epoch_2.pth')
    tuned, initial = run.tuned_prompts, run.initial_prompts
    assert tuned.shape == initial.shape == (layers, 5, 64) and tuned.dtype == initial.dtype == torch.float32
    assert torch.equal(tuned, run.model.state_dict()['backbone.prompts.tokens']) and not tuned.requires_grad
    assert torch.equal(initial, load_file(os.path.join(folder, PROMPTS))['prompts'])
    assert not torch.equal(tuned, initial)


@pytest.mark.parametrize('name', ['spt', 'linear'])
def test_model_is_the_tuned_one(runs, name):
    """What was tuned is the checkpoint's, the rest its backbone's; in eval mode; linear probes have a model too."""
    model = RunFolder(getattr(runs, name)).model
    saved = torch.load(os.path.join(getattr(runs, name), 'epoch_2.pth'), map_location='cpu', weights_only=False)
    own = model.state_dict()
    assert not any(module.training for module in model.modules())
    tuned = {key: value for key, value in saved['state_dict'].items() if key != 'backbone.fingerprint'}
    assert set(tuned) == {key for key in own if key.startswith('head.') or key == 'backbone.prompts.tokens'}
    assert all(torch.equal(own[key], value) for key, value in tuned.items())
    frozen = torch.load(golden_checkpoint('mae_deep'), weights_only=True)['model']
    for ours, fairs in {'patch_embed.projection.bias': 'patch_embed.proj.bias', 'ln2.weight': 'norm.weight',
                        'layers.3.attn.qkv.weight': 'blocks.3.attn.qkv.weight'}.items():
        assert torch.equal(own[f'backbone.{ours}'], frozen[fairs])


def test_newest_checkpoint_by_number(copy):
    """Whatever the files' times say."""
    for name in ('epoch_1.pth', 'epoch_2.pth'):
        (copy / name).unlink()
    for time, name in enumerate(['iter_1000.pth', 'iter_3000.pth.tmp', 'best_iter_2000.pth', 'iter_900.pth']):
        (copy / name).write_bytes(b'')
        os.utime(copy / name, (time, time))
    assert RunFolder(str(copy)).checkpoint == str(copy / 'iter_1000.pth')


def test_the_backbone_is_read_only_where_the_checkpoint_lacks_it(copy, tmp_path):
    """The pre-trained checkpoint may be gone if the run's checkpoint is whole."""
    content = torch.load(copy / 'epoch_2.pth', map_location='cpu', weights_only=False)
    whole = RunFolder(str(copy)).model.state_dict()
    config = Config.fromfile(copy / 'job.py')
    config.model.backbone.init_cfg.checkpoint = str(tmp_path / 'gone.pth')
    config.dump(copy / 'job.py')
    with pytest.raises(ValueError, match=r"gone\.pth can not be found.*--backbone"):
        _ = RunFolder(str(copy)).model
    given = RunFolder(str(copy), backbone=golden_checkpoint('mae_deep'))
    torch.save(content | dict(state_dict=whole), copy / 'epoch_2.pth')
    for run in (given, RunFolder(str(copy))):
        assert torch.equal(run.tuned_prompts, content['state_dict']['backbone.prompts.tokens'])


def test_images(runs):
    run = RunFolder(runs.spt)
    images = run.images('train')
    chosen = run.images('train', [11, 0])
    assert (len(images), len(chosen), len(run.images('test'))) == (12, 2, 6)
    for position, index in enumerate([11, 0]):
        assert chosen[position]['prompt_index'] == index
        assert torch.equal(chosen[position]['inputs'], images[index]['inputs'])
    batch = preprocess([chosen[i] for i in range(2)], run.model.data_preprocessor)
    pixels = to_pixels(batch, run.model.data_preprocessor)
    assert pixels[0].mean(dim=(0, 1)).argmax() == 2 and pixels[1].mean(dim=(0, 1)).argmax() == 0  # make_images' colours


@pytest.mark.parametrize(('to_rgb', 'normalize'), [
    (True, dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])), (False, {})], ids=str)
def test_to_pixels_inverts_the_preprocessor(to_rgb, normalize):
    rgb = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    inputs = [torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1) for image in rgb]  # loaded as BGR
    preprocessor = ClsDataPreprocessor(to_rgb=to_rgb, **normalize)
    pixels = to_pixels(preprocess([dict(inputs=image) for image in inputs], preprocessor), preprocessor)
    assert pixels.shape == (2, 5, 4, 3)
    torch.testing.assert_close(pixels, torch.from_numpy(rgb) / 255, rtol=0, atol=1e-5)


@pytest.mark.parametrize(('pattern', 'content', 'message', 'command'), [
    ('*.py', None, 'must hold the config .* has none', ['train.py', 'CONFIG', '--work-dir', '{}']),
    (PROMPTS, None, 'must have its initial prompts, but .* does not hold them .No such', INIT),
    (PROMPTS, b'cut off', 'does not hold them', INIT),
    (PROMPTS, save({'prompts': torch.ones(4, 3, 64)}), r'= \(4, 5, 64\), .* gives \(4, 3, 64\)', INIT),
    ('epoch_*.pth', None, 'must have a checkpoint .* has none', ['train.py', '{}/job.py', '--work-dir', '{}_again']),
])
def test_what_is_missing(copy, pattern, content, message, command):
    """Each message says where, and names the command that would make it, to be pasted."""
    for path in copy.glob(pattern):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        _ = RunFolder(str(copy)).initial_prompts
    pasted = shlex.split(str(error.value).partition('python tools/')[2])
    assert pasted == [part.format(copy) for part in command] and str(copy) in str(error.value)


@pytest.mark.parametrize(('name', 'other'), [('spt', 'linear'), ('shallow', 'spt')])
def test_checkpoint_of_another_model(runs, name, other):
    """No prompts may stay random in silence."""
    with pytest.raises(ValueError, match='prompts'):
        _ = RunFolder(getattr(runs, name), os.path.join(getattr(runs, other), 'epoch_2.pth')).tuned_prompts


@pytest.mark.parametrize(('split', 'indices', 'message'), [
    ('predict', None, "images of 'predict' need a predict_dataloader.* train, val, test"),
    ('train', [0, 12], "images of 'train' are numbered from 0 to 11, got 12"),
    ('train', [-1], "images of 'train' are numbered from 0 to 11, got -1"),
])
def test_unknown_images(runs, split, indices, message):
    with pytest.raises(ValueError, match=message):
        RunFolder(runs.spt).images(split, indices)


def test_newest_config_counts(copy):
    """A run that was resumed with another config has two; a test's and init_prompts' are not the run's."""
    text = (copy / 'job.py').read_text()
    for i, name in enumerate(('old.py', '20261121_120000.py', 'job_test.py', 'job_init_prompts.py')):
        (copy / name).write_text(text)
        os.utime(copy / name, (2 * 10**9 + i, 2 * 10**9 + i))
    assert RunFolder(str(copy)).config_path == str(copy / '20261121_120000.py')
