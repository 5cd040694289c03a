"""Damaged and hostile packs: a clear error or a right pack, in bounded memory, and nothing that they hold runs."""
import json
import os
import random
import re
import runpy
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from mmpretrain import get_model

from foreign import safetensors as made_file
from helpers import ROOT, environment, golden_checkpoint
from mmspt.checkpoint_files import load_from_local
from mmspt.packs.make import make_pack
from mmspt.packs.merge import merge
from mmspt.packs.pack import RULES, Pack

NAN, INF = float('nan'), float('inf')


@pytest.fixture(autouse=True)
def _alarm():
    """No file takes long."""
    def too_long(*_):
        raise BaseException('a pack took more than 20 seconds')

    before = signal.signal(signal.SIGPROF, too_long)
    signal.setitimer(signal.ITIMER_PROF, 20)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)


def refused(path, words=''):
    """Pack.load names the file and what to do; MMEngine's loaders refuse it too."""
    with pytest.raises(ValueError, match=f'(?s){words}') as caught:
        Pack.load(path)
    message = str(caught.value)
    assert str(path) in message and 'is refused' in message and len(message) < 1000
    with pytest.raises(RuntimeError, match=f'(?s){path}.*{words}'):
        load_from_local(str(path))
    return message


@pytest.fixture
def right(card, tensors, write):
    """The bytes of a right pack."""
    return write(card, tensors).read_bytes()


def test_truncated(right, tmp_path):
    rng, path = random.Random(0), tmp_path / 'cut.safetensors'
    header = 8 + int.from_bytes(right[:8], 'little')
    lengths = {0, 1, 7, 8, 9, header - 1, header, header + 1, len(right) - 1, *rng.sample(range(len(right)), 60)}
    for length in sorted(lengths):
        path.write_bytes(right[:length])
        refused(path)


@pytest.mark.parametrize('extra', [b'\0', b'more', bytes(4096)], ids=len)
def test_something_behind_its_end(extra, right, tmp_path):
    (tmp_path / 'a.safetensors').write_bytes(right + extra)
    refused(tmp_path / 'a.safetensors')


@pytest.mark.parametrize('length', [0, 1, 100, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1])
def test_lengths_that_lie(length, right, tmp_path):
    path = tmp_path / 'a.safetensors'
    path.write_bytes(struct.pack('<Q', length) + right[8:])
    refused(path)


@pytest.mark.parametrize('seed', range(4))
def test_flipped_bytes(seed, right, tmp_path):
    """Anywhere in the file: an error, or a pack that can be written and read again."""
    rng, path = random.Random(seed), tmp_path / 'a.safetensors'
    header = 8 + int.from_bytes(right[:8], 'little')
    outcomes = dict(read=0, refused=0)
    for _ in range(150):
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
            assert load_from_local(str(path))['meta']['dataset_meta']['classes'] == pack.classes
            outcomes['read'] += 1
    assert min(outcomes.values()) >= 1


WRONG = dict.fromkeys(RULES, ()) | dict(
    version=[0, 2, 1., True, '1', None], task=['', 'x' * 201, 1, None, [], {}, '\udc80'],
    classes=[[], {}, 'abc', None, ['a', 'b', ''], ['a', 'b', None], ['a', 'b', ['c']], ['a', 'b', 'c' * 1001],
             ['a', 'b', '\ud800'], [1, 2, 3]],
    fingerprint=['', '0' * 63, '0' * 65, 'A' * 64, 'g' * 64, '0x' + '0' * 62, ' ' * 64, None, 0, [0] * 64,
                 '\uff10' * 64],
    checkpoint=[None, 1, 'x' * 1001, ['a']], backbone=[None, [], 'x', 1], preprocessing=[None, [], 'x', 1],
    recipe=[None, 1, [], dict(a=1), 'x' * (2**20 + 1)],
    metrics=[None, [], 'x', dict(a='1'), dict(a=None), dict(a=True), dict(a=[1]), dict(a=NAN), dict(a=INF),
             dict(a=-INF), dict(a=10**400), {'': 1}, {'x' * 201: 1}, {f'{i}': i for i in range(101)}],
    versions=[None, [], 'x', dict(a=1), dict(a=''), {'': '1'}, dict(a='x' * 201), {f'{i}': '1' for i in range(101)}])
assert all(WRONG.values())  # a new field needs values of its own


@pytest.mark.parametrize(('name', 'value'), [(name, value) for name, values in WRONG.items() for value in values],
                         ids=lambda value: ascii(value)[:12])
def test_values_against_their_rules(name, value, card, tensors, write):
    message = refused(write(card | {name: value}, tensors), 'must be|would take')
    assert name in message or 'would take' in message
    assert 'export it anew' in message


@pytest.mark.parametrize('name', RULES)
def test_fields_that_are_missing(name, card, tensors, write):
    del card[name]
    refused(write(card, tensors), f"must have '{name}'")


@pytest.mark.parametrize('part', [None, 'backbone', 'preprocessing'])
@pytest.mark.parametrize('name', ['__class__', 'type', 'init_cfg', '', 'x' * 5000])
def test_fields_that_are_unknown(part, name, card, tensors, write):
    (card if part is None else card[part])[name] = dict(type='os.system', command='x')
    refused(write(card, tensors), 'knows no|just the keys')


@pytest.mark.parametrize('text', [
    '', ' ', 'null', 'true', '1', '"x"', '[]', '{', '{}x', "{'version': 1}", 'NaN', '\0', '{"a": 1,}',
    '[' * 100_000, '[' * 100_000 + ']' * 100_000, '{"a":' * 100_000, '{"version":' * 900 + '1' + '}' * 900,
    '9' * 5000, '{"version": ' + '9' * 5000 + '}', '1e999999999',
], ids=lambda text: text[:12])
def test_what_is_no_card(text, tensors, write):
    assert 'export it anew' in refused(write(text, tensors), 'must (be|have)|would take')


def test_of_two_values_one_counts_and_must_hold(card, tensors, write):
    text = json.dumps(card)
    refused(write(text[:-1] + ', "version": 2}', tensors), 'version')
    refused(write(text[:-1] + ', "classes": ["a"]}', tensors), 'head.fc')
    assert Pack.load(write('{"version": 2, ' + text[1:], tensors)).task == 'birds'


def header(card, **entries):
    return dict(__metadata__=dict(mmspt_pack=json.dumps(card))) | entries


def entry(dtype, shape, start, end):
    return dict(dtype=dtype, shape=shape, data_offsets=[start, end])


SHAPES = {
    'far beyond': [2**40, 8], 'overflowing': [2**32, 2**32], 'empty and huge': [0, 2**62],
    'empty and beyond': [0, 2**63], 'empty and at the end': [0, 2**64 - 1], 'of many axes': [3, 8] + [1] * 70,
    'negative': [-3, -8], 'of fractions': [3., 8.], 'no list': 24, 'scalar': [], 'beyond 64 bits': [2**64, 8],
}


@pytest.mark.parametrize('shape', SHAPES)
def test_shapes_that_lie(shape, card, tmp_path):
    shape = SHAPES[shape]
    end = 12 if str(shape).startswith('[0,') else 108 if shape != [] else 16
    entries = {'head.fc.bias': entry('F32', [3], 0, 12), 'head.fc.weight': entry('F32', shape, 12, end),
               'backbone.prompts': entry('F32', [2, 3, 8], end, end + 192)}
    path = tmp_path / 'a.safetensors'
    path.write_bytes(made_file(header(card, **entries), bytes(end + 192)))
    refused(path)


@pytest.mark.parametrize(('dtype', 'size'), [
    ('I64', 8), ('U64', 8), ('C64', 8), ('F64', 8), ('BOOL', 1), ('U16', 2), ('F8_E4M3', 1), ('F8_E8M0', 1),
    ('F4', 0.5), ('F6_E2M3', 0.75), ('C128', 16), ('\x1b[31mF32', 4), ('', 4), (None, 4)])
def test_types_that_are_none(dtype, size, card, tmp_path):
    end = 12 + int(24 * size)
    entries = {'head.fc.bias': entry('F32', [3], 0, 12), 'head.fc.weight': entry(dtype, [3, 8], 12, end),
               'backbone.prompts': entry('F32', [2, 3, 8], end, end + 192)}
    path = tmp_path / 'a.safetensors'
    path.write_bytes(made_file(header(card, **entries), bytes(end + 192)))
    assert '\x1b' not in refused(path)


@pytest.mark.parametrize('offsets', [[0, 12], [-1, 12], [200, 12], [0, 2**63], [300, 396], None, [12.]], ids=str)
def test_weights_that_lie_elsewhere(offsets, card, tmp_path):
    entries = {'head.fc.bias': entry('F32', [3], 0, 12),
               'head.fc.weight': dict(dtype='F32', shape=[3, 8], data_offsets=offsets),
               'backbone.prompts': entry('F32', [2, 3, 8], 108, 300)}
    path = tmp_path / 'a.safetensors'
    path.write_bytes(made_file(header(card, **entries), bytes(300)))
    refused(path)


def test_metadata_of_other_types(tmp_path):
    for value in (1, None, [], dict(mmspt_pack=1), dict(mmspt_pack=None), dict(mmspt_pack={})):
        path = tmp_path / 'a.safetensors'
        path.write_bytes(made_file(dict(__metadata__=value, a=entry('F32', [1], 0, 4)), bytes(4)))
        with pytest.raises(ValueError, match='is refused'):
            Pack.load(path)


_MEASURE = """
import json, os, resource, sys
from mmspt.checkpoint_files import load_from_local
from mmspt.packs.pack import Pack

def memory(field):
    return int(next(line for line in open('/proc/self/status') if line.startswith(field)).split()[1]) * 1024

warm, *paths = sys.argv[1:]
for path in paths:
    for load in (Pack.load, load_from_local):
        sys.stdout.flush()
        if os.fork() == 0:
            load(warm)
            open('/proc/self/clear_refs', 'w').write('5')
            resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
            before = memory('VmRSS')
            try:
                error = load(path) and None
            except (RuntimeError, ValueError) as caught:
                error = str(caught)
            record = dict(path=path, load=load.__qualname__, grown=memory('VmHWM') - before, error=error)
            print(json.dumps(record), flush=True)
            os._exit(0)
        assert os.wait()[1] == 0, f'{path} ended the process'
"""


def filled(unit, size):
    return '[' + ','.join([unit] * (size // (len(unit.encode()) + 1))) + ']'


CARDS = {  # what grows most when it is read
    'lists in lists': lambda size: filled('[' * 400 + ']' * 400, size),
    'lists of lists': lambda size: filled('[[]]', size),
    'objects': lambda size: filled('{}', size), 'fractions': lambda size: filled('0.1', size),
    'objects in objects': lambda size: filled('{"a":' * 300 + '1' + '}' * 300, size // 2),
    'names': lambda size: '{' + ','.join(f'"{i:x}":{{}}' for i in range(size // 30)) + '}',
    'classes': lambda size: '{"classes":' + filled('"a"', size // 2) + '}',
    'astral': lambda size: filled('"\U0001f600"', size // 3), 'spaces': lambda size: ' ' * size,
}


@pytest.mark.parametrize('load', [Pack.load, load_from_local])
def test_names_first(load, card, tensors, tmp_path, monkeypatch):
    """A foreign name is refused before a tensor is made."""
    monkeypatch.setattr(safetensors.torch, 'load_file', lambda *args: pytest.fail("tensors were made"))
    path = tmp_path / 'many.safetensors'
    path.write_bytes(made_file(header(card, **{f'{i}': entry('F32', [0], 0, 0) for i in range(9)})))
    with pytest.raises((RuntimeError, ValueError), match=r"a pack must hold .* got '0, 1, 2"):
        load(str(path))


def test_memory(card, tensors, write, tmp_path):
    """At most twice the file and 16 MiB, whoever reads it, refused or not."""
    warm, paths = write(card, tensors, 'warm.safetensors'), []
    for name, text in CARDS.items():
        paths.append(write(text(600_000), tensors, f'{name}.safetensors'))  # near what a header may be today
    large = card | dict(classes=[f'{i}' for i in range(40_000)], backbone=card['backbone'] | dict(embed_dims=256))
    weights = {'backbone.prompts': torch.ones(2, 3, 256), 'head.fc.weight': torch.ones(40_000, 256),
               'head.fc.bias': torch.ones(40_000)}
    paths.append(write(large, weights, 'large.safetensors'))
    entries = {f'{i}': entry('F32', [0], 0, 0) for i in range(10_000)}
    (tmp_path / 'many tensors.safetensors').write_bytes(made_file(header(card, **entries)))
    paths.append(tmp_path / 'many tensors.safetensors')
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', _MEASURE, warm, *paths], env=environment(),
                          capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(records) == 2 * len(paths)
    large = {record['load']: record['error'] for record in records if 'large' in record['path']}
    assert large == {'Pack.load': None, 'load_from_local': None}
    greedy = {f'{Path(record["path"]).stem}, {record["load"]}': record['grown'] / allowed for record in records
              if record['grown'] > (allowed := 2 * os.path.getsize(record['path']) + (16 << 20))}
    assert not greedy


def payloads(planted):
    """Texts that would make a folder if anything ran, imported, formatted or evaluated them."""
    return [f'__import__("os").mkdir({str(planted)!r})', f'$(mkdir {planted})',
            f'!!python/object/apply:os.mkdir [{planted}]',
            f'{{{{_base_.__import__("os").mkdir({str(planted)!r})}}}}',
            f'{{0.__class__.__init__.__globals__}} {planted}',
            f'import os\nos.mkdir({str(planted)!r})\n', f'[link=file://{planted}]x[/link]', f'| mkdir {planted}',
            f"_base_ = ['{planted}']", f'file://{planted}', f'cos\nmkdir\n(S{str(planted)!r}\ntR.']


@pytest.fixture
def real(tuned):
    """A tuned classifier of three classes, and its config."""
    return tuned()


def card_of(path):
    with safetensors.safe_open(path, 'pt') as file:
        return json.loads(file.metadata()['mmspt_pack']), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def run_tool(monkeypatch, *arguments):
    """Run tools/pack.py in this process; return what it would end with."""
    monkeypatch.setattr(sys, 'argv', ['pack.py', *map(str, arguments)])
    try:
        runpy.run_path(str(ROOT / 'tools' / 'pack.py'), run_name='__main__')
    except SystemExit as end:
        return str(end.code)
    return ''


def use(path, run, out, monkeypatch):
    """A pack in every way that a user has."""
    origin = golden_checkpoint('mae_deep')
    torch.save(merge(Pack.load(path), origin), out)
    get_model(run.config, pretrained=str(path))
    load_checkpoint(run.model, str(path))
    for arguments in (['inspect', path], ['inspect', '--recipe', path], ['verify', path],
                      ['verify', path, '--backbone', origin], ['merge', path, out, '--backbone', origin]):
        assert run_tool(monkeypatch, *arguments) == ''
    Config.fromfile(out.with_suffix('.py'))


@pytest.mark.parametrize('index', range(len(payloads(''))))
def test_nothing_runs(index, real, write, tmp_path, monkeypatch, capsys):
    """Recipe, task, classes, checkpoint, metrics, versions and the tool's output are text and stay text."""
    make_pack(real.model, real.config, 'birds', list('abc'), {}).save(tmp_path / 'right.safetensors')
    planted, (card, tensors) = tmp_path / 'planted', card_of(tmp_path / 'right.safetensors')
    payload = payloads(planted)[index]
    assert len(payload) <= 200
    card |= dict(recipe=payload, task=payload, classes=[payload] * 3, checkpoint=payload, metrics={payload: 1.},
                 versions={payload: payload})
    path, out = write(card, tensors), tmp_path / 'merged.pth'
    out.with_suffix('.py').write_text('a = 1\n')
    pack = Pack.load(path)
    assert pack.recipe == pack.task == pack.classes[2] == pack.checkpoint == payload
    use(path, real, out, monkeypatch)
    assert payload.split('\n')[0] in capsys.readouterr().out.replace('\n', '') or '\n' in payload
    assert not planted.exists()
    merged = torch.load(out, weights_only=True)
    assert list(merged['meta']['dataset_meta']['classes']) == [payload] * 3


@pytest.mark.parametrize('kind', ['os.mkdir', 'os.system', 'builtins.exec', 'mmspt.LoadImageFromFile', 'Albumentations',
                                  'mmpretrain.RandAugment', 'tests.foreign.Call', '__main__.x', 'pathlib.Path.touch'])
def test_transforms_import_nothing(kind, card, tensors, write, tmp_path):
    planted = tmp_path / 'planted'
    card['preprocessing']['transforms'] = [dict(type=kind, path=str(planted), command=f'mkdir {planted}', name='x')]
    refused(write(card, tensors), 'a transform must be one of')
    assert not planted.exists() and 'albumentations' not in sys.modules


def test_the_hint_is_not_read(real, write, tmp_path, monkeypatch):
    """The pack's checkpoint is for people: neither opened nor fetched."""
    make_pack(real.model, real.config, 'birds', list('abc'), {}).save(tmp_path / 'right.safetensors')
    card, tensors = card_of(tmp_path / 'right.safetensors')
    hint = tmp_path / 'hint.pth'
    os.mkfifo(hint)  # who opens it waits for ever
    path = write(card | dict(checkpoint=str(hint)), tensors)
    (tmp_path / 'merged.py').write_text('a = 1\n')
    use(path, real, tmp_path / 'merged.pth', monkeypatch)


ESCAPES = ['\x1b[31mred', '\x1b]0;title\x07', '\x9b31m', '\r\x1b[2K', 'a\x08b', '\x7f', '\x00']


@pytest.mark.parametrize('escape', ESCAPES, ids=ascii)
@pytest.mark.parametrize('field', ['task', 'classes', 'checkpoint', 'recipe', 'metrics', 'versions'])
def test_no_escape_reaches_the_terminal(field, escape, card, tensors, write, monkeypatch, capsys):
    """Neither what is shown nor an error."""
    card[field] = dict(task=escape, classes=[escape] * 3, checkpoint=escape, recipe=escape, metrics={escape: 1.},
                       versions={escape: escape})[field]
    path = write(card, tensors)
    end = run_tool(monkeypatch, 'inspect', '--recipe', path)
    said = end + run_tool(monkeypatch, 'verify', path, '--backbone', golden_checkpoint('mae_deep'))
    shown = capsys.readouterr()
    assert not (set(said + shown.out + shown.err) & {*map(chr, range(32)), *map(chr, range(127, 160))}) - {'\n'}


@pytest.mark.parametrize('field', ['task', 'classes', 'recipe', 'metrics'])
def test_errors_show_no_escape(field, card, tensors, write):
    card[field] = {'\x1b[31m': ['\x1b[31m']}
    with pytest.raises(ValueError) as caught:
        Pack.load(write(card, tensors))
    assert '\x1b' not in str(caught.value)


def test_the_wrong_backbones_error_shows_no_escape(real, write, tmp_path, monkeypatch):
    make_pack(real.model, real.config, 'birds', list('abc'), {}).save(tmp_path / 'right.safetensors')
    card, tensors = card_of(tmp_path / 'right.safetensors')
    path = write(card | dict(fingerprint='0' * 64, checkpoint='\x1b[31mhint.pth'), tensors)
    end = run_tool(monkeypatch, 'merge', path, tmp_path / 'm.pth', '--backbone', golden_checkpoint('mae_deep'))
    assert '0' * 64 in end and 'hint.pth' in end and '\x1b' not in end and not (tmp_path / 'm.pth').exists()


@pytest.mark.parametrize('text', ['[red]x[/red]', '[/]', ':dog:', '[bold', '[link=http://x]y[/link]'])
def test_what_is_shown_is_what_is_there(text, card, tensors, write, monkeypatch, capsys):
    """Rich's markup and names of emoji in a pack, and in its path, are plain text."""
    card |= dict(task=text, recipe=f'a = {text!r}')
    path = write(card, tensors, f'{text.replace("/", "")}.safetensors')
    assert run_tool(monkeypatch, 'inspect', '--recipe', path) == ''
    shown = capsys.readouterr().out
    assert f' {text}\n' in shown and f'a = {text!r}' in shown and path.name in re.sub(r'\s', '', shown)


def test_a_network_of_any_size_is_not_built(card, tensors, write, tmp_path):
    """A linear probe's tensors are small whatever the depth it names."""
    card['backbone'] |= dict(embed_dims=64, num_prompts=0, num_layers=256, feedforward_channels=2**17, num_heads=4,
                             img_size=[4096, 4096])
    card['preprocessing'] |= dict(size=[4096, 4096])
    tensors = {'head.fc.weight': torch.ones(3, 64), 'head.fc.bias': torch.ones(3)}
    pack = Pack.load(write(card, tensors))
    with pytest.raises(ValueError, match=r'num_layers 256 instead of 4, feedforward_channels 131072 instead of 256'):
        merge(pack, golden_checkpoint('mae_deep'))


@pytest.mark.parametrize('kind', ['missing', 'folder', 'pipe', 'socket-like device', 'dangling link', 'empty'])
def test_paths_that_are_no_packs(kind, tmp_path, monkeypatch):
    path = tmp_path / 'a.safetensors'
    if kind == 'folder':
        path.mkdir()
    elif kind == 'pipe':
        os.mkfifo(path)
    elif kind == 'socket-like device':
        path = Path('/dev/null')
    elif kind == 'dangling link':
        path.symlink_to(tmp_path / 'nowhere')
    elif kind == 'empty':
        path.touch()
    with pytest.raises((FileNotFoundError, ValueError), match=rf"{path}'? is (none|refused).*"):
        Pack.load(path)
    for arguments in (['inspect', path], ['verify', path],
                      ['merge', path, tmp_path / 'o.pth', '--backbone', golden_checkpoint('mae_deep')]):
        assert str(path) in run_tool(monkeypatch, *arguments)
    assert not (tmp_path / 'o.pth').exists()


@pytest.mark.parametrize('kind', ['a pack named .pth', 'a checkpoint named .safetensors'])
def test_names_that_lie(kind, card, tensors, write, tmp_path):
    path = tmp_path / ('a.pth' if kind == 'a pack named .pth' else 'a.safetensors')
    if kind == 'a pack named .pth':
        write(card, tensors).rename(path)
    else:
        torch.save(tensors, path)
        with pytest.raises(ValueError, match='is refused'):
            Pack.load(path)
    with pytest.raises(RuntimeError, match=f'{path}.*cannot be read'):
        load_from_local(str(path))


def test_a_link_to_a_pack_is_one(card, tensors, write, tmp_path):
    (tmp_path / 'link.safetensors').symlink_to(write(card, tensors))
    assert Pack.load(tmp_path / 'link.safetensors').task == 'birds'
