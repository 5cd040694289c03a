"""A picture and its numbers as files: three kinds, the house's style, the same bytes each time."""
import csv
import io
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image

from mmspt.visualization import Picture, save_picture, styled

HEADER = ('iterations', 'accuracy, %', 'a "name"')
ROWS = [(0, 12.3456789012, 'plain'), (50, 1e-9, 'with, comma'), (100, float('nan'), 'two\nlines'), (150, None, 'ä "q"')]
SVG = '{http://www.w3.org/2000/svg}'


def make(name='curves', title='Accuracy'):
    """A picture of a line with a label and a legend, and of an image, which SVG clips and embeds."""
    with styled():
        figure = Figure()
        left, right = figure.subplots(1, 2)
        left.plot([0, 50, 100], [1., 2., 4.], label='SPT-Deep')
        left.set_title(title)
        left.legend()
        right.imshow(np.arange(12.).reshape(3, 4))
    return Picture(name, title, 'What it shows.', figure, HEADER, ROWS)


def paths_of(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file())


@pytest.fixture
def saved(tmp_path):
    """Folder of a picture's three files."""
    save_picture(make(), str(tmp_path))
    return tmp_path


def test_three_files(tmp_path):
    folder = tmp_path / 'new' / 'folder'
    paths = save_picture(make(), str(folder))
    assert paths == [str(folder / f'curves.{kind}') for kind in ('png', 'svg', 'csv')]
    assert paths_of(tmp_path) == ['new/folder/curves.csv', 'new/folder/curves.png', 'new/folder/curves.svg']


def test_png_is_an_image_in_the_house_style(saved):
    with Image.open(saved / 'curves.png') as image:
        image.load()
        assert image.format == 'PNG' and image.size == (7 * 160, round(4.2 * 160))
        colours = {colour for _, colour in image.convert('RGB').getcolors(2**24)}
    assert {(0x00, 0x72, 0xB2), (255, 255, 255)} <= colours and len(colours) > 20


def test_svg_is_xml_whose_text_is_text(saved):
    root = ElementTree.parse(saved / 'curves.svg').getroot()
    assert root.tag == f'{SVG}svg'
    assert {'Accuracy', 'SPT-Deep'} <= {''.join(node.itertext()).strip() for node in root.iter(f'{SVG}text')}
    assert not any(node.tag.endswith('}date') for node in root.iter())


def test_csv_reads_back(saved):
    with open(saved / 'curves.csv', newline='', encoding='utf-8') as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == HEADER
    assert [(row[0], row[2]) for row in rows] == [(str(row[0]), row[2]) for row in ROWS]
    assert [row[1] for row in rows] == ['12.34568', '1e-09', 'nan', '']
    assert '\r' not in (saved / 'curves.csv').read_bytes().decode()


def test_csv_of_numpy_numbers():
    """The numbers themselves, not how NumPy shows them."""
    picture = Picture('a', 'a', 'a', Figure(), ('x', 'y'), [(np.int64(3), np.float64(0.5)), (np.float32(0.25), True)])
    assert list(csv.reader(io.StringIO(picture.csv))) == [['x', 'y'], ['3', '0.5'], ['0.25', 'True']]


def test_drawn_twice(saved, tmp_path):
    """Even after settings of one's own."""
    with matplotlib.rc_context({'lines.linewidth': 9, 'savefig.dpi': 40, 'svg.fonttype': 'path', 'font.size': 30}):
        save_picture(make(), str(tmp_path / 'again'))
    for kind in ('png', 'svg', 'csv'):
        assert (tmp_path / 'again' / f'curves.{kind}').read_bytes() == (saved / f'curves.{kind}').read_bytes()
    save_picture(make(title='Another'), str(tmp_path / 'other'))
    for kind in ('png', 'svg'):
        assert (tmp_path / 'other' / f'curves.{kind}').read_bytes() != (saved / f'curves.{kind}').read_bytes()


def test_saved_twice_from_one_figure(saved):
    """Drawing leaves the figure as it was."""
    picture = make()
    assert [picture.render('png'), picture.render('svg')] == [picture.render('png'), picture.render('svg')]
    assert picture.render('png') == (saved / 'curves.png').read_bytes()


def test_style_is_applied_inside_alone(tmp_path):
    with matplotlib.rc_context({'lines.linewidth': 9, 'font.size': 30}):
        before = dict(matplotlib.rcParams)
        with styled():
            inside = {key: matplotlib.rcParams[key] for key in ('lines.linewidth', 'font.size', 'svg.hashsalt')}
            colours = [entry['color'] for entry in matplotlib.rcParams['axes.prop_cycle']]
        save_picture(make(), str(tmp_path))
        assert dict(matplotlib.rcParams) == before
    assert inside == {'lines.linewidth': 2, 'font.size': 13, 'svg.hashsalt': 'mmspt'}
    assert colours[0].lstrip('#') == '0072B2' and len(set(colours)) == 6
    assert not pyplot.get_fignums(), 'a figure that pyplot holds is never freed'


def test_failure_keeps_the_old_picture(saved):
    """A picture that cannot be drawn leaves neither half a file nor a temporary one."""
    before = {name: (saved / name).read_bytes() for name in paths_of(saved)}
    with pytest.raises(ValueError):
        save_picture(make(title='$\\nonsense$'), str(saved))
    assert {name: (saved / name).read_bytes() for name in paths_of(saved)} == before
