"""``--amp`` of the tools: the command line, the config that it makes, and whole runs on a CPU."""
import re
import sys
from pathlib import Path

import mmengine
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors.torch import load_file

from helpers import load_tool, scalars, tool
from mmspt.engine.launch import use_amp


def load(path):
    return CheckpointLoader.load_checkpoint(str(path), map_location='cpu')


def losses(work_dir):
    return [record['loss'] for record in scalars(work_dir) if 'loss' in record]


@pytest.mark.parametrize(('argv', 'amp'), [
    (['job.py'], None), (['--amp', 'job.py'], 'bfloat16'), (['job.py', '--amp', '--work-dir', 'run'], 'bfloat16'),
    (['job.py', '--amp', 'float16'], 'float16')], ids=str)
def test_command_line(argv, amp, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['tool', *argv])
    args = load_tool('train').parse_args()
    assert (args.config, args.amp) == ('job.py', amp)


@pytest.mark.parametrize(('wrapper', 'kept'), [
    ({}, {}), (dict(type='AmpOptimWrapper', loss_scale=512., dtype='bfloat16'), dict(loss_scale=512.))], ids=str)
def test_config(wrapper, kept):
    cfg = Config(dict(optim_wrapper=wrapper))
    use_amp(cfg, 'float16')
    assert cfg.optim_wrapper.to_dict() == dict(type='mmspt.AmpOptimWrapper', dtype='float16') | kept


@pytest.fixture(autouse=True)
def _cpu(monkeypatch):
    """For the tools too."""
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')


def test_train_stop_resume_test(job):
    """bfloat16 on a CPU, bare --amp before the config; resumed it ends where an uninterrupted run ends, to the bit."""
    whole, parts, plain = (job.root / name for name in ('whole', 'parts', 'plain'))
    output = tool('train.py', '--amp', job.config, '--work-dir', whole)
    assert 'FutureWarning' not in output and 'GradScaler' not in output
    slow = not re.search(r'avx512bw|avx_ne_convert|\bbf16\b', Path('/proc/cpuinfo').read_text())
    assert ('leave out --amp' in output) == slow
    tool('train.py', job.config, '--amp', 'bfloat16', '--work-dir', parts, '--cfg-options', 'train_cfg.max_epochs=2')
    tool('train.py', job.config, '--amp', '--work-dir', parts, '--resume')
    tool('train.py', job.config, '--work-dir', plain)

    assert Config.fromfile(whole / 'job.py').optim_wrapper.dtype == 'bfloat16'
    ends = [load(folder / 'epoch_4.pth') for folder in (whole, parts)]
    for key, value in ends[0]['state_dict'].items():
        kind = torch.uint8 if key == 'backbone.fingerprint' else torch.float32
        assert value.dtype == kind and torch.equal(value, ends[1]['state_dict'][key])
    states = ends[0]['optimizer']['state']
    assert {value.dtype for state in states.values() for value in state.values()} == {torch.float32}
    tool('init_prompts.py', '--amp', job.config, '--work-dir', job.root / 'init')
    started = [load_file(folder / 'initial_prompts.safetensors')['prompts']
               for folder in (whole, plain, job.root / 'init')]
    assert torch.equal(started[0], started[2]) and started[0].dtype == torch.float32
    assert 1e-4 < (started[0] - started[1]).norm() / started[1].norm() < 1e-2
    np.testing.assert_allclose(losses(whole), losses(plain), rtol=0.05)
    assert losses(whole) != losses(plain) and np.mean(losses(whole)[-3:]) < np.mean(losses(whole)[:3])

    for precision in ([], ['--amp']):
        output = tool('test.py', job.config, whole / 'epoch_4.pth', '--work-dir', whole, '--out',
                      whole / f'scores{len(precision)}.pkl', *precision)
        assert ('leave out --amp' in output) == (slow and bool(precision))
    scores = [torch.stack([sample['pred_score'] for sample in mmengine.load(whole / f'scores{i}.pkl')]) for i in (0, 1)]
    assert not torch.equal(*(score.float() for score in scores))
    torch.testing.assert_close(*(score.float() for score in scores), atol=0.02, rtol=0)


def test_resume_in_another_precision(job):
    """fp32, then bfloat16, then fp32: each goes on from the other's checkpoint."""
    for epochs, precision in enumerate(([], ['--amp'], []), start=1):
        output = tool('train.py', job.config, '--work-dir', job.root / 'run', '--resume', *precision, '--cfg-options',
                      f'train_cfg.max_epochs={epochs}')
        assert ('loss_scaler' in load(job.root / f'run/epoch_{epochs}.pth')['optimizer']) == bool(precision)
    assert 'Resumed: prompts come from the checkpoint' in output


@pytest.mark.slow
def test_compiled_and_checkpointed_runs_are_the_others(job, tmp_path):
    """MMEngine's cfg.compile and cfg.activation_checkpointing together."""
    both = "compile = dict(backend='aot_eager')\n" \
           "activation_checkpointing = [f'backbone.layers.{i}' for i in range(4)]\n"
    for name, extra in (('plain', ''), ('both', both)):
        job.write(extra=extra + "train_cfg = dict(max_epochs=1)\n")
        tool('train.py', job.config, '--no-validate', '--work-dir', tmp_path / name)
    assert len(losses(tmp_path / 'plain')) == 3
    np.testing.assert_allclose(losses(tmp_path / 'both'), losses(tmp_path / 'plain'), rtol=1e-5)
