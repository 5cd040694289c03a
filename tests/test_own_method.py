"""A prompt method that the package does not have, in a file of its user's own, through every tool."""
import json
import os

import mmengine
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from forked import train_ranks
from helpers import DATA, finished_run, scalars, tool

OWN = """
custom_imports = dict(imports=['fourier_prompts'], allow_failed_imports=False)
model['backbone'].update(prompts=dict(type='FourierPrompts', share=0.4))
custom_hooks = [
    dict(type='mmspt.PromptInitHook'), dict(type='EMAHook', momentum=0.1)]
train_cfg = dict(max_epochs=2, val_interval=1)
param_scheduler = dict(warmup=1, end=2)
"""
TUNED = 'backbone.prompts.plain'


def fold(plain):
    """The prompts that blocks read, by NumPy: (L, 5, D), of which the first two are transformed."""
    plain = plain.double().numpy()
    return torch.from_numpy(np.concatenate([np.fft.fft2(plain[:, :2]).real, plain[:, 2:]], axis=1)).float()


@pytest.fixture(scope='module', autouse=True)
def _path():
    """The user's file is found by PYTHONPATH."""
    before = os.environ.get('PYTHONPATH')
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [str(DATA), before]))
    yield
    os.environ.pop('PYTHONPATH') if before is None else os.environ.update(PYTHONPATH=before)


@pytest.fixture(scope='module')
def own(_path, tmp_path_factory):
    """The job, and a finished run of the method."""
    return finished_run(tmp_path_factory.mktemp('own'), OWN)


def weights(path):
    return torch.load(path, weights_only=False)['state_dict']


def test_it_starts_from_tokens_and_trains(own):
    initial = load_file(own.run / 'initial_prompts.safetensors')['prompts']
    tuned = weights(own.run / 'epoch_2.pth')[TUNED]
    assert tuned.shape == initial.shape == (4, 5, 64) and not torch.allclose(tuned, initial)
    result = json.loads((own.run / 'result.json').read_text())
    assert (result['method'], result['initializer'], result['num_prompts']) == ('VFPT', 'RandomSampleInit', 5)
    assert result['recipe']['model.backbone.prompts.share'] == 0.4


def test_resume(own, tmp_path):
    arguments = [own.job.config, '--work-dir', tmp_path / 'run']
    tool('train.py', *arguments, '--cfg-options', 'train_cfg.max_epochs=1')
    tool('train.py', *arguments, '--resume')
    for part in ('state_dict', 'ema_state_dict'):
        ours, theirs = (torch.load(run / 'epoch_2.pth', weights_only=False)[part]
                        for run in (tmp_path / 'run', own.run))
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.slow
def test_two_processes(own, tmp_path):
    arguments = [own.job.config, '--work-dir', str(tmp_path / 'run'), '--cfg-options', 'train_dataloader.batch_size=2']
    codes, outputs = train_ranks(2, arguments, tmp_path / 'log')
    assert codes == [0, 0], outputs
    ours, theirs = (weights(run / 'epoch_2.pth')[TUNED] for run in (tmp_path / 'run', own.run))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    losses = [[record['loss'] for record in scalars(run) if 'loss' in record] for run in (own.run, tmp_path / 'run')]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4) and len(losses[0]) == 6


@pytest.fixture(scope='module')
def pack(own):
    path = own.job.root / 'own.safetensors'
    tool('pack.py', 'export', own.run / 'epoch_2.pth', '--out', path)
    return path


def test_a_pack_holds_what_the_blocks_read(own, pack, tmp_path):
    state = weights(own.run / 'epoch_2.pth')
    torch.testing.assert_close(load_file(pack)['prompts'], fold(state[TUNED]), rtol=1e-5, atol=1e-5)
    said = tool('test.py', own.job.config, pack, '--work-dir', tmp_path, fails=True)
    assert 'the parameters of FourierPrompts cannot be' in said and 'set model.backbone.prompts=None' in said
    said = tool('test.py', own.job.config, pack, '--work-dir', tmp_path, '--cfg-options', 'model.backbone.prompts=None',
                'model.head.num_classes=5', fails=True)
    assert 'a pack must fit' in said and 'set model.head.num_classes=3' in said
    accuracies = []
    for weights_, options in ((own.run / 'epoch_2.pth', []),
                              (pack, ['--cfg-options', 'model.backbone.prompts=None'])):
        said = tool('test.py', own.job.config, weights_, '--work-dir', tmp_path, *options)
        accuracies.append(said.split('accuracy/top1:')[1].split()[0])
    assert accuracies[0] == accuracies[1]


def test_predict_among_others(own, pack, runs, tmp_path):
    """One pass for this pack and SPT's; scores are those of the classifier."""
    spt, out = tmp_path / 'spt.safetensors', tmp_path / 'out.jsonl'
    tool('pack.py', 'export', runs.spt, '--out', spt)
    image = own.job.data / 'images' / 'class_1' / '006.png'
    tool('predict.py', image, '--packs', f'own={pack}', f'spt={spt}', '--backbone', DATA / 'mae_deep_pretrain.pth',
         '--out', out)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    predictions = tmp_path / 'predictions.pkl'
    tool('test.py', own.job.config, own.run / 'epoch_2.pth', '--work-dir', tmp_path, '--out', predictions)
    sample = next(s for s in mmengine.load(predictions) if s['img_path'].endswith('class_1/006.png'))
    scores = {line['task']: line['score'] for line in lines}
    assert scores['own'] == pytest.approx(float(sample['pred_score'].max()), abs=1e-5)
    assert scores['own'] != scores['spt']


def test_export(own, tmp_path):
    said = tool('export.py', own.job.config, own.run / 'epoch_2.pth', tmp_path / 'model.pt2')
    assert float(said.split('greatest difference from PyTorch ')[1].split()[0].rstrip('.,')) <= 1e-4


@pytest.mark.slow
def test_report_and_pictures(own, tmp_path):
    assert 'VFPT' in tool('report.py', own.run, '--out', tmp_path / 'report')
    tool('analyze.py', 'report', own.run, '--out', tmp_path / 'pictures')
    page = next((tmp_path / 'pictures').glob('*.html')).read_text()
    assert 'VFPT' in page and page.count('data:image/png') >= 6
