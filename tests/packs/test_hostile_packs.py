"""Damaged and hostile packs: a clear error or a right pack, and nothing in them runs."""
import json
import os
import random
import runpy
import sys

import pytest
import safetensors.torch
import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from mmpretrain import get_model

from helpers import ROOT, golden_checkpoint
from mmspt.packs.backbone import merge
from mmspt.packs.make import make_pack
from mmspt.packs.pack import Pack


def refused(path, words=''):
    """Pack.load names the file and what to do; MMEngine's loaders refuse it too."""
    with pytest.raises(ValueError, match=f'(?s){words}') as caught:
        Pack.load(path)
    message = str(caught.value)
    assert str(path) in message and 'is refused' in message and len(message) < 1000
    with pytest.raises(RuntimeError, match=f'(?s){path}.*{words}'):
        CheckpointLoader.load_checkpoint(str(path), logger='silent')
    return message


def test_truncated_and_extended(card, tensors, write, tmp_path):
    right, path = write(card, tensors).read_bytes(), tmp_path / 'cut.safetensors'
    header = 8 + int.from_bytes(right[:8], 'little')
    for content in (b'', right[:header - 1], right[:-1], right + b'more', (2**63).to_bytes(8, 'little') + right[8:]):
        path.write_bytes(content)
        refused(path)


def test_flipped_bytes(card, tensors, write, tmp_path):
    """Anywhere in the file: an error, or a pack that can be written and read again."""
    right, rng, path = write(card, tensors).read_bytes(), random.Random(0), tmp_path / 'a.safetensors'
    header = 8 + int.from_bytes(right[:8], 'little')
    outcomes = dict(read=0, refused=0)
    for _ in range(200):
        data = bytearray(right)
        for _ in range(rng.choice((1, 1, 2, 8))):
            data[rng.randrange(rng.choice((header, len(data))))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            pack = Pack.load(path)
        except ValueError as error:
            assert 'is refused' in str(error)
            outcomes['refused'] += 1
        else:
            pack.save(path)
            again = Pack.load(path)
            assert again.classes == pack.classes and torch.equal(again.weight, pack.weight)
            outcomes['read'] += 1
    assert min(outcomes.values()) >= 1


WRONG = dict(
    version=[3, True], task=[None], classes=['abc', ['a', 'b', 1]], fingerprint=['g' * 64, '00' * 31],
    checkpoint=[None], backbone=[[]], preprocessing=[None], recipe=[1],
    metrics=[[], dict(a='1'), dict(a=float('nan')), dict(a=10**400)], versions=[dict(a=1)])


@pytest.mark.parametrize('name', WRONG)
def test_fields_of_another_type(name, card, tensors, write):
    for value in WRONG[name]:
        refused(write(card | {name: value}, tensors), f'{name}.* must be |fromhex')
    del card[name]
    refused(write(card, tensors), f"must have '{name}'")


def test_what_is_no_card(tensors, write):
    for text in ('', 'null', '{', '[' * 100_000):
        assert 'export it anew' in refused(write(text, tensors), 'cannot be read')


def test_files_that_are_no_packs(card, tensors, write, tmp_path):
    (tmp_path / 'folder.safetensors').mkdir()
    os.mkfifo(tmp_path / 'pipe.safetensors')
    for name in ('absent', 'folder', 'pipe'):
        with pytest.raises(FileNotFoundError, match=f"{name}.safetensors' is none: make one"):
            Pack.load(tmp_path / f'{name}.safetensors')
    safetensors.torch.save_file(tensors, tmp_path / 'weights.safetensors')
    torch.save(tensors, tmp_path / 'checkpoint.safetensors')
    for name in ('weights', 'checkpoint'):
        with pytest.raises(ValueError, match=f'{name}.safetensors.* is refused'):
            Pack.load(tmp_path / f'{name}.safetensors')
    (tmp_path / 'link.safetensors').symlink_to(write(card, tensors))
    assert Pack.load(tmp_path / 'link.safetensors').task == 'birds'


# ------------------------------------------------------------------------------------------------------- nothing runs

def run_tool(monkeypatch, *arguments):
    """Run tools/pack.py in this process; return what it would end with."""
    monkeypatch.setattr(sys, 'argv', ['pack.py', *map(str, arguments)])
    try:
        runpy.run_path(str(ROOT / 'tools' / 'pack.py'), run_name='__main__')
    except SystemExit as end:
        return str(end.code)
    return ''


def test_nothing_runs(tuned, write, tmp_path, monkeypatch, capsys):
    """Recipe, task, classes, checkpoint, metrics, versions and the tool's output are text, wherever a pack goes.

    The checkpoint is a hint for people: neither opened nor fetched.
    """
    real, right = tuned(), tmp_path / 'right.safetensors'
    make_pack(real.model, real.config, 'birds', list('abc'), {}).save(right)
    with safetensors.safe_open(right, 'pt') as file:
        card = json.loads(file.metadata()['mmspt_pack'])
    planted, hint, tensors = tmp_path / 'planted', tmp_path / 'hint.pth', safetensors.torch.load_file(right)
    os.mkfifo(hint)  # who opens it waits for ever
    origin, out = golden_checkpoint('mae_deep'), tmp_path / 'merged.pth'
    out.with_suffix('.py').write_text('a = 1\n')
    for payload in (f'__import__("os").mkdir({str(planted)!r})', f'$(mkdir {planted})',
                    f'{{{{_base_.__import__("os").mkdir({str(planted)!r})}}}}', f'[link=file://{planted}]x[/link]'):
        path = write(card | dict(recipe=payload, task=payload, classes=[payload] * 3,
                                 checkpoint=str(hint) if payload.startswith('$') else payload,
                                 metrics={payload: 1.}, versions={payload: payload}), tensors)
        torch.save(merge(Pack.load(path), origin), out)
        get_model(real.config, pretrained=str(path))
        load_checkpoint(real.model, str(path))
        for arguments in (['inspect', '--recipe', path], ['verify', path, '--backbone', origin],
                          ['merge', path, out, '--backbone', origin]):
            assert run_tool(monkeypatch, *arguments) == ''
        Config.fromfile(out.with_suffix('.py'))
        assert payload in capsys.readouterr().out
        assert list(torch.load(out, weights_only=True)['meta']['dataset_meta']['classes']) == [payload] * 3
        assert not planted.exists()


def test_no_escape_reaches_the_terminal(card, tensors, write, monkeypatch, capsys):
    """Neither what is shown nor an error; markup and names of emoji are plain text."""
    escape = '\x1b[31mred \x9b31m \r \x7f \x00'
    card |= dict(task=escape, classes=[escape] * 3, checkpoint='[red]:dog:[/red]', recipe=escape, metrics={escape: 1.},
                 versions={escape: escape})
    path = write(card, tensors)
    said = run_tool(monkeypatch, 'inspect', '--recipe', path)
    assert '[red]:dog:[/red]' in capsys.readouterr().out
    said += run_tool(monkeypatch, 'verify', path, '--backbone', golden_checkpoint('mae_deep'))
    said += refused(write(card | dict(classes={escape: 1}), tensors))
    shown = capsys.readouterr()
    assert not (set(said + shown.out + shown.err) & {*map(chr, range(32)), *map(chr, range(127, 160))}) - {'\n'}
