"""benchmarks/nmi.py runs, on a tiny size, and its shares follow from its measurements. Nothing is judged by time."""
import json
import statistics
import sys

import pytest

from helpers import ROOT, command


def benchmark(*args, **kwargs):
    return command(sys.executable, ROOT / 'benchmarks' / 'nmi.py', *args, **kwargs)


@pytest.mark.parametrize(('options', 'interval', 'images'), [
    ((), 50, 16), (('--interval', 10, '--num-images', 3, '--dtype', 'bfloat16', '--prompt-type', 'shallow'), 10, 3)
], ids=str)
def test_nmi(tmp_path, options, interval, images):
    numbers = tmp_path / 'nmi.json'
    output = benchmark('--arch', 'deit-tiny', '--img-size', 32, '--batch-sizes', 4, 2, '--prompts', 3, '--rounds', 3,
                       '--out', numbers, *options)
    content = json.loads(numbers.read_text())
    assert content['machine']['versions']['mmspt'] and content['settings']['interval'] == interval
    assert content['images'] == images and [row['batch_size'] for row in content['steps']] == [4, 2]
    measured = content['measure']['seconds']
    assert len(measured) == 3 and min(measured) > 0 and content['measure']['median'] == statistics.median(measured)
    for row in content['steps']:
        assert len(row['seconds']) == 3 and min(row['seconds']) > 0
        assert row['median'] == statistics.median(row['seconds'])
        shares = sorted(a / (interval * b) for a, b in zip(measured, row['seconds'], strict=True))
        assert [row['least'], row['share'], row['most']] == pytest.approx(shares)
    text = output.replace('\n', '')
    assert f'every {interval} iterations' in text and str(numbers) in text
    assert str(tmp_path) not in numbers.read_text()
