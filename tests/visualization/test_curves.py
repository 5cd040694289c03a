"""Scalars of runs, resumed and running, and the picture of them."""
import json

import numpy as np
from PIL import Image

from mmspt.visualization import plot_accuracy, read_scalars


def write(folder, records, end='\n'):
    (folder / 'vis_data').mkdir(parents=True)
    (folder / 'vis_data/scalars.json').write_text('\n'.join(json.dumps(record) for record in records) + end)


def test_a_resumed_run_is_joined_and_the_later_part_counts(tmp_path):
    run = tmp_path / 'run [1]'
    write(run / '20260101_000000', [dict(loss=1., step=7), dict(acc=10., step=1), dict(acc=20., step=2)])
    write(run / '20260102_000000', [dict(acc=25., step=2), dict(acc=30., step=3)])
    assert read_scalars(str(run), 'acc') == {1: 10., 2: 25., 3: 30.}
    assert read_scalars(str(run), 'other') == {}
    assert read_scalars(str(tmp_path / 'absent'), 'acc') == {}


def test_a_line_that_is_being_written_waits(tmp_path):
    write(tmp_path / '20260101_000000', [dict(acc=10., step=1), dict(acc=20., step=2)], end='\n{"acc": 3')
    assert read_scalars(str(tmp_path), 'acc') == {1: 10., 2: 20.}


def test_every_run_is_drawn(tmp_path):
    """A second run puts its own colour onto the picture; nothing half-written is left beside it."""
    path = tmp_path / 'curves.png'

    def pixels(runs):
        plot_accuracy(runs, str(path), 'title')
        return {tuple(pixel) for pixel in np.asarray(Image.open(path).convert('RGB')).reshape(-1, 3)}

    blue, orange = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)
    one = pixels(dict(first={1: 10., 2: 20.}))
    two = pixels(dict(first={1: 10., 2: 20.}, second={1: 5., 2: 30.}))
    assert blue in one and orange not in one
    assert blue in two and orange in two
    assert [p.name for p in tmp_path.iterdir()] == ['curves.png']
