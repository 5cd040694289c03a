"""BPT through every tool: nothing but its own file, its start and its recipes know of it."""
import json

import mmengine
import pytest
import torch
from safetensors.torch import load_file

from forked import train_ranks
from helpers import DATA, finished_run, scalars, tool

OWN = """
model['backbone'].update(prompts=dict(type='mmspt.DeepBilinearPrompts', num_prompts=5, rank=3, trained_bases=2))
custom_hooks = [
    dict(type='mmspt.PromptInitHook', initializer=dict(type='mmspt.WhitenedInit'), num_images=10),
    dict(type='EMAHook', momentum=0.1)]
train_cfg = dict(max_epochs=2, val_interval=1)
param_scheduler = dict(warmup=1, end=2)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
"""
GATED = """
_base_ = './job.py'
model = dict(backbone=dict(prompts=dict(_delete_=True, type='mmspt.GatedPrompts', num_prompts=5)))
custom_hooks = [dict(type='mmspt.PromptInitHook', initializer=dict(type='mmspt.UniformInit'))]
"""


@pytest.fixture(scope='module')
def own(tmp_path_factory):
    """The job, and a finished run."""
    return finished_run(tmp_path_factory.mktemp('own'), OWN)


def factors(path):
    state = torch.load(path, weights_only=False)['state_dict']
    return {name.removeprefix('backbone.prompts.'): value for name, value in state.items() if '.prompts.' in name}


def folded(state):
    return torch.stack([a @ state[f'bases.{i}'].T for i, a in enumerate(state['coefficients'])])


def test_it_starts_whitened_and_trains_what_it_says(own):
    first, last = load_file(own.run / 'initial_prompts.safetensors')['prompts'], factors(own.run / 'epoch_2.pth')
    assert first.shape == folded(last).shape == (4, 5, 64) and not torch.allclose(first, folded(last))
    for layer in range(4):  # a frozen basis still spans what the prompts started from
        span = torch.linalg.qr(last[f'bases.{layer}']).Q
        missed = float((first[layer] - first[layer] @ span @ span.T).norm() / first[layer].norm())
        assert missed < 3e-6 if layer < 2 else missed > 2e-5, (layer, missed)
    assert any('nmi/mean' in record for record in scalars(own.run))
    result = json.loads((own.run / 'result.json').read_text())
    assert (result['method'], result['initializer'], result['num_prompts']) == ('BPT-Deep', 'WhitenedInit', 5)


@pytest.mark.slow
def test_resume_and_two_processes(own, tmp_path):
    arguments = [own.job.config, '--work-dir', tmp_path / 'run']
    tool('train.py', *arguments, '--cfg-options', 'train_cfg.max_epochs=1')
    tool('train.py', *arguments, '--resume')
    for part in ('state_dict', 'ema_state_dict'):
        ours, theirs = (torch.load(run / 'epoch_2.pth', weights_only=False)[part]
                        for run in (tmp_path / 'run', own.run))
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    arguments = [own.job.config, '--work-dir', str(tmp_path / 'two'), '--cfg-options', 'train_dataloader.batch_size=2']
    codes, outputs = train_ranks(2, arguments, tmp_path / 'log')
    assert codes == [0, 0], outputs
    initial = [load_file(run / 'initial_prompts.safetensors')['prompts'] for run in (own.run, tmp_path / 'two')]
    assert (initial[0] - initial[1]).abs().max() <= 1e-4 * initial[0].abs().max()
    losses = [[record['loss'] for record in scalars(run) if 'loss' in record] for run in (own.run, tmp_path / 'two')]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3) and len(losses[0]) == 6
    ours, theirs = (folded(factors(run / 'epoch_2.pth')) for run in (tmp_path / 'two', own.run))
    assert (ours - theirs).abs().max() <= 1e-3 * theirs.abs().max()


@pytest.mark.slow
def test_packs_are_unfolded_and_served_among_others(own, runs, tmp_path):
    """One batch for BPT, SPT and GateVPT; the classifier's own scores."""
    pack, out = tmp_path / 'own.safetensors', tmp_path / 'out.jsonl'
    tool('pack.py', 'export', own.run / 'epoch_2.pth', '--out', pack)
    torch.testing.assert_close(load_file(pack)['prompts'], folded(factors(own.run / 'epoch_2.pth')),
                               rtol=1e-5, atol=1e-5)
    accuracies = [tool('test.py', own.job.config, weights, '--work-dir', tmp_path).split('accuracy/top1:')[1].split()[0]
                  for weights in (own.run / 'epoch_2.pth', pack)]
    assert accuracies[0] == accuracies[1]
    (own.job.root / 'gated.py').write_text(GATED)
    tool('train.py', own.job.root / 'gated.py', '--work-dir', tmp_path / 'gated')
    for name, run in (('spt', runs.spt), ('gated', tmp_path / 'gated')):
        tool('pack.py', 'export', run, '--out', tmp_path / f'{name}.safetensors')
    image = own.job.data / 'images' / 'class_1' / '006.png'
    tool('predict.py', image, '--packs', f'own={pack}', f'spt={tmp_path / "spt.safetensors"}',
         f'gated={tmp_path / "gated.safetensors"}', '--backbone', DATA / 'mae_deep_pretrain.pth', '--out', out)
    scores = {line['task']: line['score'] for line in map(json.loads, out.read_text().splitlines())}
    tool('test.py', own.job.config, own.run / 'epoch_2.pth', '--work-dir', tmp_path, '--out', tmp_path / 'p.pkl')
    sample = next(s for s in mmengine.load(tmp_path / 'p.pkl') if s['img_path'].endswith('class_1/006.png'))
    assert scores['own'] == pytest.approx(float(sample['pred_score'].max()), abs=1e-5)
    assert len(set(scores.values())) == 3


@pytest.mark.slow
def test_export_report_and_pictures(own, tmp_path):
    said = tool('export.py', own.job.config, own.run / 'epoch_2.pth', tmp_path / 'model.pt2')
    assert float(said.split('greatest difference from PyTorch ')[1].split()[0].rstrip('.,')) <= 1e-4
    assert 'BPT-Deep' in tool('report.py', own.run, '--out', tmp_path / 'report')
    tool('analyze.py', 'report', own.run, '--out', tmp_path / 'pictures')
    page = next((tmp_path / 'pictures').glob('*.html')).read_text()
    assert 'BPT-Deep' in page and page.count('data:image/png') >= 6
