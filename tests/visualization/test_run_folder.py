"""A run's work directory as pictures see it: what it holds, and what is said where something is missing."""
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.models import ClsDataPreprocessor
from safetensors.torch import load_file, save_file

from helpers import golden_checkpoint
from mmspt.visualization import RunFolder
from mmspt.visualization.images import preprocess, to_pixels

PROMPTS = 'initial_prompts.safetensors'


@pytest.fixture
def copy(runs, tmp_path):
    """Path of a copy of a run, by name, which may be broken."""

    def make(name='spt', to='copy'):
        return Path(shutil.copytree(getattr(runs, name), tmp_path / to))

    return make


def prompts_in(checkpoint):
    state = torch.load(checkpoint, map_location='cpu', weights_only=False)['state_dict']
    return state['backbone.prompts.tokens']


def test_the_global_batch_is_of_all_processes(copy):
    """The config has the batch of one. A later test on one process has a log of its own, so the result comes first."""
    folder = copy()
    result = json.loads((folder / 'result.json').read_text())
    assert RunFolder(str(folder)).description['recipe']['global_batch'] == result['recipe']['global_batch'] == 4
    result['recipe']['global_batch'] = 32
    (folder / 'result.json').write_text(json.dumps(result))
    assert RunFolder(str(folder)).description['recipe']['global_batch'] == 32
    (folder / 'result.json').write_text('{')
    log = max(folder.glob('*/*.log'))
    log.write_text(log.read_text().replace('GPU number: 1\n', 'GPU number: 3\n'))
    assert RunFolder(str(folder)).description['recipe']['global_batch'] == 12
    (folder / 'result.json').unlink()
    assert RunFolder(str(folder)).description['recipe']['global_batch'] == 12


@pytest.mark.parametrize(('name', 'label', 'layers', 'seed'), [
    ('spt_seed1', 'SPT-Deep, 5 prompts', 4, 1), ('shallow', 'SPT-Shallow, 5 prompts', 1, 0)])
def test_prompts_before_and_after(runs, name, label, layers, seed):
    folder = getattr(runs, name)
    run = RunFolder(folder)
    assert (run.label, run.seed) == (label, seed)
    assert run.checkpoint == os.path.join(folder, 'epoch_2.pth')
    tuned, initial = run.tuned_prompts, run.initial_prompts
    assert tuned.shape == initial.shape == (layers, 5, 64) and tuned.dtype == initial.dtype == torch.float32
    assert torch.equal(tuned, prompts_in(run.checkpoint)) and not tuned.requires_grad
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
    folder = copy()
    for name in ('epoch_1.pth', 'epoch_2.pth'):
        (folder / name).unlink()
    for time, name in enumerate(['iter_1000.pth', 'iter_3000.pth.tmp', 'best_iter_2000.pth', 'iter_900.pth']):
        (folder / name).write_bytes(b'')
        os.utime(folder / name, (time, time))
    assert RunFolder(str(folder)).checkpoint == str(folder / 'iter_1000.pth')


def test_moved_folder(runs, copy):
    """Nothing leads back to where the run was."""
    folder = copy(to='moved to/elsewhere')
    run = RunFolder(f'{folder}/')
    assert (run.folder, run.checkpoint) == (str(folder), str(folder / 'epoch_2.pth'))
    assert torch.equal(run.tuned_prompts, RunFolder(runs.spt).tuned_prompts)


def test_the_backbone_is_read_only_where_the_checkpoint_lacks_it(copy, tmp_path):
    """The pre-trained checkpoint may be gone if the run's checkpoint is whole."""
    folder = copy()
    content = torch.load(folder / 'epoch_2.pth', map_location='cpu', weights_only=False)
    whole = RunFolder(str(folder)).model.state_dict()
    config = Config.fromfile(folder / 'job.py')
    config.model.backbone.init_cfg.checkpoint = str(tmp_path / 'gone.pth')
    config.dump(folder / 'job.py')
    with pytest.raises(ValueError, match=r"gone\.pth can not be found.*--backbone"):
        _ = RunFolder(str(folder)).model
    given = RunFolder(str(folder), backbone=golden_checkpoint('mae_deep'))
    torch.save(content | dict(state_dict=whole), folder / 'epoch_2.pth')
    for run in (given, RunFolder(str(folder))):
        assert torch.equal(run.tuned_prompts, content['state_dict']['backbone.prompts.tokens'])


@pytest.mark.parametrize(('split', 'count'), [('train', 12), ('test', 6)])
def test_images(runs, split, count):
    run = RunFolder(runs.spt)
    images = run.images(split)
    assert len(images) == count
    chosen = run.images(split, [count - 1, 0])
    assert len(chosen) == 2
    for position, index in enumerate([count - 1, 0]):
        assert chosen[position]['prompt_index'] == index
        assert torch.equal(chosen[position]['inputs'], images[index]['inputs'])
    batch = preprocess([chosen[i] for i in range(2)], run.model.data_preprocessor)
    assert batch.shape == (2, 3, 32, 32) and batch.dtype == torch.float32
    pixels = to_pixels(batch, run.model.data_preprocessor)
    bgr = torch.stack([chosen[i]['inputs'] for i in range(2)]).permute(0, 2, 3, 1)
    torch.testing.assert_close(pixels, bgr.flip(-1) / 255, rtol=0, atol=1e-5)
    assert pixels[0].mean(dim=(0, 1)).argmax() == 2 and pixels[1].mean(dim=(0, 1)).argmax() == 0  # make_images' colours


@pytest.mark.parametrize('to_rgb', [True, False])
@pytest.mark.parametrize('normalize', [dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]), dict()],
                         ids=str)
def test_to_pixels_inverts_the_preprocessor(to_rgb, normalize):
    rgb = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    inputs = [torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1) for image in rgb]  # loaded as BGR
    preprocessor = ClsDataPreprocessor(to_rgb=to_rgb, **normalize)
    pixels = to_pixels(preprocess([dict(inputs=image) for image in inputs], preprocessor), preprocessor)
    assert pixels.shape == (2, 5, 4, 3)
    torch.testing.assert_close(pixels, torch.from_numpy(rgb) / 255, rtol=0, atol=1e-5)


def lose(pattern):
    """Remove files of a run."""
    def harm(folder):
        for path in folder.glob(pattern):
            path.unlink()
    return harm


def truncate_prompts(folder):
    (folder / PROMPTS).write_bytes((folder / PROMPTS).read_bytes()[:500])


def shrink_prompts(folder):
    save_file({'prompts': torch.ones(4, 3, 64)}, folder / PROMPTS)


@pytest.mark.parametrize(('harm', 'message', 'tool'), [
    (lose('*.py'), "must hold the config .* '{folder}' has none", 'train.py CONFIG --work-dir {folder}'),
    (lose(PROMPTS), "must have its initial prompts, but '{folder}/{prompts}' does not hold them .No such", None),
    (truncate_prompts, "'{folder}/{prompts}' does not hold them", None),
    (shrink_prompts, r"= \(4, 5, 64\), '{folder}/{prompts}' gives \(4, 3, 64\)", None),
    (lose('*.pth'), r"must have a checkpoint .*, but '{folder}' has none",
     'train.py {folder}/job.py --work-dir {folder}_again'),
])
def test_what_is_missing(copy, harm, message, tool):
    """Each message says where, and names the command that would make it."""
    folder = copy()
    harm(folder)
    with pytest.raises(ValueError, match=message.format(folder=folder, prompts=PROMPTS)) as error:
        _ = RunFolder(str(folder)).initial_prompts
    remedy = (tool or 'init_prompts.py {folder}/job.py --work-dir {folder}').format(folder=folder)
    assert f'python tools/{remedy}' in str(error.value)


def test_the_best_checkpoint_is_offered_where_the_last_is_gone(copy):
    folder = copy()
    lose('epoch_*.pth')(folder)
    with pytest.raises(ValueError, match=r'name --checkpoint (.*)') as error:
        _ = RunFolder(str(folder)).tuned_prompts
    best = re.search(r'--checkpoint (.*)', str(error.value))[1]
    assert RunFolder(str(folder), best).tuned_prompts.shape == (4, 5, 64)


def test_names_in_commands_are_quoted(copy, tmp_path):
    """A user pastes them."""
    folder = tmp_path / 'a b [x] <ü>'
    copy().rename(folder)
    lose(PROMPTS)(folder)
    with pytest.raises(ValueError, match='init_prompts') as error:
        _ = RunFolder(str(folder)).initial_prompts
    command = shlex.split(str(error.value)[str(error.value).index('python tools'):])
    assert command == ['python', 'tools/init_prompts.py', str(folder / 'job.py'), '--work-dir', str(folder)]


@pytest.mark.parametrize(('name', 'other'), [('spt', 'linear'), ('shallow', 'spt')])
def test_checkpoint_of_another_model(runs, name, other):
    """No prompts may stay random in silence."""
    with pytest.raises(ValueError, match='prompts'):
        _ = RunFolder(getattr(runs, name), os.path.join(getattr(runs, other), 'epoch_2.pth')).tuned_prompts


@pytest.mark.parametrize(('split', 'indices', 'message'), [
    ('predict', None, "images of 'predict' need a predict_dataloader.* train, val, test"),
    ('train', [0, 12], "images of 'train' are numbered from 0 to 11, got 12"),
])
def test_unknown_images(runs, split, indices, message):
    with pytest.raises(ValueError, match=message):
        RunFolder(runs.spt).images(split, indices)


def test_newest_config_counts(copy):
    """A run that was resumed with another config has two; a test's and init_prompts' are not the run's."""
    folder = copy()
    text = (folder / 'job.py').read_text()
    for i, name in enumerate(('old.py', '20261121_120000.py', 'job_test.py', 'job_init_prompts.py')):
        (folder / name).write_text(text)
        os.utime(folder / name, (2 * 10**9 + i, 2 * 10**9 + i))
    assert RunFolder(str(folder)).config_path == str(folder / '20261121_120000.py')
