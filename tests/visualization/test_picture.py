"""A picture and its numbers as files: three kinds, one style, the same bytes each time."""
import csv
from itertools import pairwise
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image

from mmspt.visualization import Picture, save_picture, styled
from mmspt.visualization.picture import label_log_axis

HEADER = ('iterations', 'accuracy, %', 'a "name"')
ROWS = [(np.int64(0), 12.3456789012, 'plain'), (50, np.float64(1e-9), 'with, comma'), (100, float('nan'), 'two\nlines'),
        (150, None, 'ä "q"')]
SVG = '{http://www.w3.org/2000/svg}'


def make(title='Accuracy'):
    """A picture of a line with a label and a legend, and of an image, which SVG clips and embeds."""
    with styled():
        figure = Figure()
        left, right = figure.subplots(1, 2)
        left.plot([0, 50, 100], [1., 2., 4.], label='SPT-Deep')
        left.set_title(title)
        left.legend()
        right.imshow(np.arange(12.).reshape(3, 4))
    return Picture('curves', title, 'What it shows.', figure, HEADER, ROWS)


@pytest.fixture
def saved(tmp_path):
    """Folder of a picture's three files."""
    folder = tmp_path / 'new' / 'folder'
    paths = save_picture(make(), str(folder))
    assert paths == [str(folder / f'curves.{kind}') for kind in ('png', 'svg', 'csv')]
    assert sorted(map(str, folder.iterdir())) == sorted(paths)
    return folder


def test_files_are_whole(saved):
    with Image.open(saved / 'curves.png') as image:
        image.load()
        assert image.format == 'PNG' and image.size == (7 * 160, round(4.2 * 160))
        colours = {colour for _, colour in image.convert('RGB').getcolors(2**24)}
    assert {(0x00, 0x72, 0xB2), (255, 255, 255)} <= colours and len(colours) > 20
    root = ElementTree.parse(saved / 'curves.svg').getroot()
    assert {'Accuracy', 'SPT-Deep'} <= {''.join(node.itertext()).strip() for node in root.iter(f'{SVG}text')}
    assert not any(node.tag.endswith('}date') for node in root.iter())


def test_csv_reads_back(saved):
    with open(saved / 'curves.csv', newline='', encoding='utf-8') as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == HEADER
    assert [(row[0], row[2]) for row in rows] == [(str(row[0]), row[2]) for row in ROWS]
    assert [row[1] for row in rows] == ['12.34568', '1e-09', 'nan', '']
    assert '\r' not in (saved / 'curves.csv').read_bytes().decode()


def test_drawn_twice(saved, tmp_path):
    """The same bytes, even after settings of one's own, which stay, and from one figure."""
    with matplotlib.rc_context({'lines.linewidth': 9, 'savefig.dpi': 40, 'svg.fonttype': 'path', 'font.size': 30}):
        before = dict(matplotlib.rcParams)
        picture = make()
        for _ in range(2):
            save_picture(picture, str(tmp_path / 'again'))
        assert dict(matplotlib.rcParams) == before
    for kind in ('png', 'svg', 'csv'):
        assert (tmp_path / 'again' / f'curves.{kind}').read_bytes() == (saved / f'curves.{kind}').read_bytes()
    assert make(title='Another').render('png') != picture.render('png')
    assert not pyplot.get_fignums(), 'a figure that pyplot holds is never freed'


@pytest.mark.parametrize(('low', 'high', 'shown'), [
    (1e-3, 3e-2, ['0.001', '0.002', '0.005', '0.01', '0.02']), (1e-4, 1e-1, ['0.0001', '0.001', '0.01', '0.1'])])
def test_numbers_of_a_logarithmic_axis_do_not_overlap(low, high, shown):
    figure = Figure(figsize=(4.8, 3.4))
    axes = figure.subplots()
    axes.plot([low, high], [0, 1])
    axes.set_xscale('log')
    label_log_axis(axes.xaxis)
    figure.draw_without_rendering()
    inside = [label for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
    assert [label.get_text() for label in inside] == shown
    boxes = [label.get_window_extent() for label in inside]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
