"""benchmarks/gpu.py on a CPU, with a tiny network and a few images."""
import json
import statistics
import sys

import numpy as np
import pytest
import torch
from mmpretrain.models import VisionTransformer
from PIL import Image

import gpu
import made_photographs as photographs
from helpers import ROOT, command
from mmspt.datasets import image_cache
from mmspt.models import PromptedViT

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason='make gpu does it')
SMALL = ('--small', '--device', 'cpu')


@pytest.fixture
def run(monkeypatch, tmp_path, unformatted_configs):
    """Run it with arguments; return its numbers and its page."""
    for network in (VisionTransformer, PromptedViT):
        monkeypatch.setitem(network.arch_zoo, 'toy', gpu.TOY)

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['gpu.py', *SMALL, *arguments, '--out', str(tmp_path / 'gpu.json')])
        gpu.main()
        return read(tmp_path)
    return run


def read(folder):
    text = (folder / 'gpu.json').read_text()
    assert str(folder) not in text and str(ROOT) not in text
    return json.loads(text), (folder / 'gpu.md').read_text()


def check_kmeans(rows):
    row, failed = rows
    assert (row['backend'], row['prompts'], row['images']) == ('torch', 2, 6)
    assert list(row['parts']) == ['loader', 'forward', 'prompts'] and min(row['parts'].values()) > 0
    assert sum(row['parts'].values()) == pytest.approx(row['seconds'])
    assert failed['case'] == 'flash, 2'
    assert failed['error'].startswith("ValueError: backend='flash' needs a CUDA device")


def check_loader(rows):
    alone, fed, cached = rows
    assert alone['images_per_second'] == pytest.approx(statistics.median(2 / value for value in alone['seconds']))
    assert (fed['workers'], fed['cache'], len(fed['epochs'])) == (1, None, 2)
    for epoch in fed['epochs']:
        assert epoch['images_per_second'] == pytest.approx(6 / epoch['seconds']) and 0 < epoch['waiting'] < 1
    assert fed['over_alone'] == fed['epochs'][1]['images_per_second'] / alone['images_per_second']
    assert (cached['workers'], cached['cache'], cached['pin_memory']) == (1, 'memory', False)
    assert len(cached['epochs']) == 2 and cached['cache_state'] == 'used' and 'cache_state' not in fed


def check_steps(rows):
    variants = ['no prompts', 'full fine-tuning', 'keys and values, 2', 'concatenation, 2']
    assert [(row['compiled'], row['variant']) for row in rows] == [
        (compiled, variant) for compiled in (False, True) for variant in variants]
    for case in (rows[:4], rows[4:]):
        for row in case:
            assert row['over_none'] == statistics.median(
                a / b for a, b in zip(row['seconds'], case[0]['seconds'], strict=True))
            assert row['peak_bytes'] > 0
        assert case[3]['over_keys_values'] == statistics.median(
            a / b for a, b in zip(case[3]['seconds'], case[2]['seconds'], strict=True))
    assert [row['over_eager'] for row in rows[4:]] == [
        compiled['median'] / eager['median'] for eager, compiled in zip(rows[:4], rows[4:], strict=True)]


@pytest.mark.parametrize(('state', 'pages', 'where'), [('refused', 100, 'absent'), ('full', 0.5, '')])
def test_a_cache_that_is_not_used(run, tmp_path, monkeypatch, state, pages, where):
    """The row says so, instead of passing for one with a cache."""
    monkeypatch.setattr(image_cache, 'MEMORY', str(tmp_path / where))
    monkeypatch.setattr(image_cache, '_half_of_memory', lambda: pages * image_cache.PAGE)
    content, page = run('--parts', 'loader')
    *_, cached = content['parts']['loader']
    assert cached['cache_state'] == state and f'memory ({state})' in page


@pytest.mark.slow
def test_kmeans_and_loader(run):
    content, page = run('--parts', 'loader', 'kmeans')
    assert list(content['parts']) == ['loader', 'kmeans'] and content['skipped'] == []
    check_kmeans(content['parts']['kmeans'])
    check_loader(content['parts']['loader'])
    assert content['photographs']['images'] == 6 and content['photographs']['mean_bytes'] > 600
    assert '## steps' not in page
    assert all(text in page for text in ('## kmeans', '| torch, 2 |', '* flash, 2: ValueError', '## loader'))


def test_cases_that_fail_are_rows_and_late_ones_are_named(run, monkeypatch):
    def no_room(self, batch, compiled):
        if compiled:
            clock.append(1e6)
        raise torch.OutOfMemoryError('CUDA out of memory.\nTried to allocate 2 GiB')

    clock = [0.]
    monkeypatch.setattr(gpu.time, 'monotonic', lambda: clock[-1])
    monkeypatch.setattr(gpu.Bench, 'steps', no_room)
    monkeypatch.setattr(gpu.Bench, 'tests', lambda self: clock.append(599.) or [])
    monkeypatch.setitem(gpu.SIZES, 'small', gpu.SIZES['small'] | dict(batches=(2, 4)))
    content, page = run('--parts', 'tests', 'steps')
    error = 'OutOfMemoryError: CUDA out of memory.'
    assert content['parts'] == dict(tests=[], steps=[
        dict(case=name, error=error) for name in ('batch 2', 'batch 4', 'batch 2, compiled')])
    assert content['skipped'] == ['steps: batch 4, compiled'] and content['seconds'] == 1e6
    assert 'Left out for lack of time: steps: batch 4, compiled.' in page and f'* batch 4: {error}' in page


@pytest.mark.slow
def test_all_of_it(tmp_path):
    """As a user runs it, in a process of its own."""
    output = command(sys.executable, ROOT / 'benchmarks' / 'gpu.py', *SMALL, '--out', tmp_path / 'gpu.json')
    content, page = read(tmp_path)
    parts = content['parts']
    assert list(parts) == list(gpu.PARTS) and content['skipped'] == []
    assert {row['outcome'] for row in parts['tests']} == {'passed', 'skipped'}
    assert {row.get('message') for row in parts['tests'] if row['outcome'] == 'skipped'} == {'needs a GPU'}
    check_steps(parts['steps'])
    check_kmeans(parts['kmeans'])
    check_loader(parts['loader'])
    assert str(tmp_path / 'gpu.json') in output and all(f'## {part}' in page for part in gpu.PARTS)
    with Image.open(tmp_path / 'gpu.png') as image:
        assert len(image.convert('RGB').getcolors(2**24)) > 20


def test_photographs_are_seeded_and_differ(tmp_path):
    for name in 'ab':
        (tmp_path / name).mkdir()
        assert photographs.write_photographs(str(tmp_path / name), 3, 40, 60) > 3 * 600
    first, again = ([path.read_bytes() for path in sorted((tmp_path / name).iterdir())] for name in 'ab')
    assert first == again and len(set(first)) == 4
    assert (tmp_path / 'a' / 'train.txt').read_text() == '00000.jpg 0\n00001.jpg 1\n00002.jpg 2\n'
    with Image.open(tmp_path / 'a' / '00001.jpg') as image:
        assert (image.size, image.mode) == ((60, 40), 'RGB')


def test_their_spectrum_falls_as_that_of_nature():
    """The logarithm of the amplitude, by that of the frequency."""
    field = photographs.natural_noise(np.random.default_rng(1), 256)
    assert abs(field.mean()) < 1e-3 and field.std() == pytest.approx(1, abs=1e-3)
    amplitudes = np.abs(np.fft.fft2(field))[0, 2:100]
    slope = np.polyfit(np.log(np.arange(2, 100)), np.log(amplitudes), 1)[0]
    assert -1.7 < slope < -1.1


@pytest.mark.parametrize(('arguments', 'message'), [
    ((), 'needs a GPU: try --small --device cpu'), (('--parts', 'none'), "invalid choice: 'none'")])
def test_refuses(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['gpu.py', *arguments])
    with pytest.raises(SystemExit):
        gpu.parse_args()
    assert message in capsys.readouterr().err
