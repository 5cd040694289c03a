"""tools/pack.py as a user types it: from a training to one small file, and back to a full checkpoint."""
import json
import re
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

import mmspt
from helpers import golden_checkpoint, load_tool, tool
from mmspt.visualization.run_folder import RunFolder

ACCURACY = 'accuracy/top1'
NAMES = dict(prompts='backbone.prompts.tokens')
"""Of a pack's tensors that a checkpoint names otherwise."""


def read(path):
    """A pack's card and tensors, without the code under test."""
    with safetensors.safe_open(path, 'pt') as file:
        return json.loads(file.metadata()['mmspt_pack']), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def flat(text):
    """Text without white space and the lines of tables, which break it."""
    return re.sub(r'[\s│]', '', text)


@pytest.fixture
def run(runs, tmp_path):
    """A copy of a training's work directory, whose last checkpoint was tested."""
    return Path(shutil.copytree(runs.spt, tmp_path / 'run'))


@pytest.fixture(scope='module')
def pack(runs, tmp_path_factory):
    """A pack of that training."""
    path = tmp_path_factory.mktemp('packs') / 'spt.safetensors'
    tool('pack.py', 'export', runs.spt, '--out', path)
    return path


def test_export_of_a_work_dir(run):
    """Its newest checkpoint, named by the task, beside it; what is shown is what was tuned."""
    said = tool('pack.py', 'export', run)
    path, = set(run.glob('*.safetensors')) - {run / 'initial_prompts.safetensors'}
    card, tensors = read(path)
    state = torch.load(run / 'epoch_2.pth', weights_only=False)['state_dict']
    assert set(tensors) == {'prompts', 'head.fc.weight', 'head.fc.bias'}
    assert all(torch.equal(value, state[NAMES.get(name, name)]) for name, value in tensors.items())
    assert bytes(state['backbone.fingerprint'].tolist()).hex() == card['fingerprint']
    assert card['metrics'] == json.loads((run / 'result.json').read_text())['metrics']
    assert card['versions']['mmspt'] == mmspt.__version__
    assert path.stem == card['task'].replace(' ', '_') and card['checkpoint'] == 'mae_deep_pretrain.pth'
    for shown in (card['task'], card['fingerprint'], ACCURACY, 'deep, 4 x 5 x 64', 'mae_deep_pretrain.pth', str(path)):
        assert flat(shown) in flat(said)
    assert str(run) not in card['recipe'] and str(run.parent) not in card['recipe']


def test_export_of_an_earlier_checkpoint(run):
    """From within the folder; the run's result is not that of this checkpoint."""
    tool('pack.py', 'export', 'epoch_1.pth', '--task', '../my task', cwd=run)
    card, tensors = read(run / '.._my_task.safetensors')
    state = torch.load(run / 'epoch_1.pth', weights_only=False)['state_dict']
    assert torch.equal(tensors['prompts'], state['backbone.prompts.tokens'])
    assert card['metrics'] == {} and card['task'] == '../my task'


def test_names_of_classes_and_precision(runs, tmp_path):
    """A name a line, in UTF-8, as any editor writes it."""
    (tmp_path / 'names.txt').write_bytes('\ufeff鳥\r\na\u2028b\r\nowl, barn\r\n'.encode())
    said = tool('pack.py', 'export', runs.spt, '--classes', tmp_path / 'names.txt', '--dtype', 'float16', '--out',
                tmp_path / 'a.safetensors')
    card, tensors = read(tmp_path / 'a.safetensors')
    assert card['classes'] == ['鳥', 'a\u2028b', 'owl, barn'] and 'float16' in said
    state = torch.load(Path(runs.spt) / 'epoch_2.pth', weights_only=False)['state_dict']
    assert all(torch.equal(value, state[NAMES.get(name, name)].half()) for name, value in tensors.items())
    (tmp_path / 'names.txt').write_text('wren\ncrow\n')
    assert 'outputs, 3, got 2' in tool('pack.py', 'export', runs.spt, '--classes', tmp_path / 'names.txt', fails=True)


def test_names_of_classes_in_another_order(runs, tmp_path, monkeypatch):
    """Names that the training knew keep their labels; others are for display."""
    pack_tool, run = load_tool('pack'), RunFolder(runs.spt, device='cpu')
    meta = dict(dataset_meta=dict(classes=['rose', 'iris', 'lily']))
    monkeypatch.setattr(pack_tool, 'load_file', lambda path: dict(meta=meta))
    path = tmp_path / 'names.txt'
    for names, fits in (('rose iris lily', True), ('a b c', True), ('rose Iris c', True), ('iris rose lily', False),
                        ('lily b c', False), ('a b Rose', False)):
        path.write_text(names.replace(' ', '\n'))
        if fits:
            assert pack_tool.class_names(str(path), run) == names.split()
        else:
            with pytest.raises(ValueError, match=r'order of their labels, but .* at another place'):
                pack_tool.class_names(str(path), run)


def test_inspect_and_verify_several(pack, runs, tmp_path):
    other, damaged = tmp_path / 'b.safetensors', tmp_path / 'c.safetensors'
    tool('pack.py', 'export', runs.linear, '--out', other)
    said = tool('pack.py', 'inspect', pack, other)
    assert flat(str(pack)) in flat(said) and 'b.safetensors' in flat(said)
    assert 'a linear probe' in said and 'deep, 4 x 5 x 64' in said and 'optim_wrapper' not in said
    assert f'{4 * 5 * 64 + 3 * 65:,} numbers of float32' in said
    assert 'optim_wrapper' in tool('pack.py', 'inspect', '--recipe', pack)
    assert f"{pack}: whole; of the backbone {read(pack)[0]['fingerprint']}" in tool('pack.py', 'verify', pack)
    said = tool('pack.py', 'verify', pack, other, '--backbone', golden_checkpoint('mae_deep'))
    assert said.count('tuned on') == 2
    damaged.write_bytes(pack.read_bytes()[:-1])
    assert 'c.safetensors' in tool('pack.py', 'verify', pack, damaged, fails=True)


@pytest.mark.parametrize(('arguments', 'words'), [
    (['export', '{run}', '--out', '{out}/a.pth'], ['.safetensors', 'a.pth']),
    (['export', '{out}'], ['work directory', '{out}']),
    (['inspect', '{run}/epoch_2.pth'], ['epoch_2.pth', 'refused']),
    (['inspect', '{run}/initial_prompts.safetensors'], ['mmspt_pack']),
    (['verify', '{pack}', '--backbone', '{out}/vit.pth'], ['vit.pth', 'can not be found']),
    (['merge', '{pack}', '{out}/m.pth', '--backbone', '{pack}'], ['spt.safetensors', 'must hold a ViT']),
    (['merge', '{pack}', '{out}/m.safetensors', '--backbone', '{vit}'], ['.pth', 'm.safetensors']),
], ids=lambda value: ' '.join(value)[:60])
def test_mistakes(arguments, words, pack, runs, tmp_path):
    """Said without a traceback, and nothing is written."""
    names = dict(run=runs.spt, out=tmp_path, pack=pack, vit=golden_checkpoint('mae_deep'))
    said = tool('pack.py', *(argument.format(**names) for argument in arguments), fails=True)
    assert all(word.format(**names) in said for word in words) and 'Traceback' not in said
    assert not list(tmp_path.iterdir())


def test_the_tools_take_a_pack_and_what_was_merged(pack, runs, tmp_path):
    """tools/test.py gives the result of the run's own checkpoint with both."""
    run, merged = Path(runs.spt), tmp_path / 'folder/merged.pth'
    said = tool('pack.py', 'merge', pack, merged, '--backbone', golden_checkpoint('mae_deep'))
    assert f'{merged}: {merged.stat().st_size:,} bytes' in said
    expected = json.loads((run / 'result.json').read_text())['metrics']
    for file in (pack, merged):
        out = tmp_path / file.stem
        tool('test.py', run / 'job.py', file, '--work-dir', out)
        assert json.loads((out / 'result.json').read_text())['metrics'] == expected
        said = tool('test.py', run / 'job.py', file, '--work-dir', tmp_path / 'other', '--cfg-options',
                    'test_dataloader.dataset.pipeline.1.interpolation=nearest', fails=True)
        assert 'interpolation=bilinear (the config nearest)' in said and not list(tmp_path.glob('other/result.json'))


def test_training_goes_on_from_a_pack(pack, runs, tmp_path):
    """load_from: its prompts and head are where the training starts."""
    tool('train.py', runs.job.config, '--work-dir', tmp_path / 'on', '--cfg-options', f'load_from={pack}',
         'train_cfg.max_epochs=1', 'param_scheduler.end=1', 'param_scheduler.warmup=0',
         'custom_hooks=[]', 'optim_wrapper.optimizer.lr=1e-12', 'optim_wrapper.optimizer.weight_decay=0')
    state = torch.load(tmp_path / 'on/epoch_1.pth', weights_only=False)['state_dict']
    for name, value in read(pack)[1].items():
        torch.testing.assert_close(state[NAMES.get(name, name)], value, rtol=1e-4, atol=1e-6)


def test_a_backbone_that_has_moved(run, tmp_path):
    """A work directory comes from another machine; the error says what to give."""
    config, = run.glob('*.py')
    moved = shutil.copy(golden_checkpoint('mae_deep'), tmp_path / 'moved.pth')
    config.write_text(config.read_text().replace(golden_checkpoint('mae_deep'), '/old/place/mae.pth'))
    said = tool('pack.py', 'export', run, '--out', tmp_path / 'a.safetensors', fails=True)
    assert '/old/place/mae.pth can not be found' in said and '--backbone PATH' in said and 'name one of' not in said
    tool('pack.py', 'export', run, '--out', tmp_path / 'a.safetensors', '--backbone', moved, '--no-recipe')
    assert read(tmp_path / 'a.safetensors')[0]['recipe'] == ''
