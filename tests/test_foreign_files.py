"""A planted pickle, in each form that a file can take and each way that a user can name it, never runs."""
import os
import pickle
import runpy
import sys
import warnings
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from foreign import Call, saved
from helpers import ROOT, make_job, tool

IMAGE = 'train:0'
PACK = next((ROOT / 'benchmarks' / 'results').rglob('*.safetensors'))


def plant(planted: Path) -> Call:
    return Call(os.mkdir, str(planted))


def checkpoint(**parts):
    """A right checkpoint with other parts."""
    return dict(meta=dict(epoch=1, iter=3), state_dict=dict(weight=torch.ones(1)), optimizer={}) | parts


# name -> (content of the file, given the folder that running it would make)
FORMS = {
    'zip': lambda planted: saved(checkpoint(extra=plant(planted))),
    'legacy': lambda planted: saved(checkpoint(extra=plant(planted)), _use_new_zipfile_serialization=False),
    'meta': lambda planted: saved(checkpoint(meta=dict(epoch=plant(planted), iter=1))),
    'eval': lambda planted: saved(checkpoint(extra=Call(eval, f'__import__("os").mkdir({str(planted)!r})'))),
    'plain pickle': lambda planted: pickle.dumps(checkpoint(state_dict={}, extra=plant(planted))),
}


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A run of one epoch; ``config``, ``run`` and ``root``."""
    job = make_job(tmp_path_factory.mktemp('job'))
    job.write(extra="work_dir = 'nowhere'\n")
    job.run = job.root / 'run'
    tool('train.py', job.config, '--work-dir', job.run, '--cfg-options', 'train_cfg.max_epochs=1',
         'param_scheduler.end=1', 'param_scheduler.warmup=0')
    return job


# way -> tool, and its arguments given config, run, folder to write into and file
WAYS = {
    'init_cfg': ('train.py', lambda config, run, out, file: [
        config, '--work-dir', out, '--cfg-options', f'model.backbone.init_cfg.checkpoint={file}']),
    'load_from': ('train.py', lambda config, run, out, file: [
        config, '--work-dir', out, '--cfg-options', f'load_from={file}', 'train_cfg.max_epochs=1']),
    'resume': ('train.py', lambda config, run, out, file: [
        config, '--work-dir', out, '--resume', file, '--cfg-options', 'train_cfg.max_epochs=2']),
    'test': ('test.py', lambda config, run, out, file: [config, file, '--work-dir', out]),
    'init_prompts': ('init_prompts.py', lambda config, run, out, file: [
        config, '--work-dir', out, '--cfg-options', f'model.backbone.init_cfg.checkpoint={file}']),
    'FileInit': ('init_prompts.py', lambda config, run, out, file: [
        config, '--work-dir', out, '--cfg-options', 'custom_hooks.0.initializer.type=mmspt.FileInit',
        f'custom_hooks.0.initializer.path={file}']),
    'analyze': ('analyze.py', lambda config, run, out, file: [
        'attention', run, IMAGE, '--checkpoint', file, '--out', out]),
    'pack': ('predict.py', lambda config, run, out, file: [file, '--packs', file, '--backbone', file]),
    'backbone': ('pack.py', lambda config, run, out, file: ['merge', PACK, out / 'a.pth', '--backbone', file]),
    'export': ('export_backbone.py', lambda config, run, out, file: [file, out / 'a.safetensors']),
}


def run(name, arguments, monkeypatch):
    """Run a tool's file in this process, as python would."""
    monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
    monkeypatch.setattr(os, 'environ', os.environ.copy())
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        runpy.run_path(str(ROOT / 'tools' / name), run_name='__main__')


@pytest.mark.parametrize('form', FORMS)
def test_the_attacks_are_real(form, tmp_path):
    """Unpickled, each form makes the folder; torch's own loader does it unless it is told not to."""
    planted = tmp_path / 'planted'
    (tmp_path / 'a.pth').write_bytes(FORMS[form](planted))
    if form == 'plain pickle':
        pickle.loads((tmp_path / 'a.pth').read_bytes())
    else:
        torch.load(tmp_path / 'a.pth', weights_only=False)
    assert planted.exists()


@pytest.mark.parametrize(('way', 'form'), [*((way, 'zip') for way in WAYS if way != 'export'),
                                           *(('export', form) for form in FORMS)])
def test_a_planted_pickle_never_runs(way, form, trained, tmp_path, monkeypatch, capfd):
    planted, file = tmp_path / 'planted', tmp_path / 'evil.pth'
    file.write_bytes(FORMS[form](planted))
    name, arguments = WAYS[way]
    with pytest.raises((pickle.UnpicklingError, RuntimeError, ValueError, SystemExit)) as caught:
        run(name, arguments(trained.config, trained.run, tmp_path, file), monkeypatch)
    assert 'evil.pth' in f'{caught.value}{capfd.readouterr()}'
    assert not planted.exists()


@pytest.mark.parametrize('way', ['resume', 'load_from'])
def test_config_text_in_a_checkpoint_never_runs(way, trained, tmp_path, monkeypatch):
    """MMEngine's Runner.resume evaluates meta['config']; all else about this file is right."""
    planted, file = tmp_path / 'planted', tmp_path / 'evil.pth'
    content = torch.load(trained.run / 'epoch_1.pth', weights_only=False)  # our own
    code = f'__import__("os").mkdir({str(planted)!r})'
    torch.save(content | dict(meta=content.get('meta', {}) | dict(config=code)), file)
    name, arguments = WAYS[way]
    run(name, arguments(trained.config, trained.run, tmp_path, file), monkeypatch)
    assert not planted.exists()
    with pytest.raises(AttributeError):  # the text is no config, and would have run all the same
        Config.fromstring(code, '.py').nothing  # noqa: B018
    assert planted.exists()
