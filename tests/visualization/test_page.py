"""The HTML page, which is XML too: no element stays open. A real browser reads it in tests/tools/test_analyze.py."""
import csv
import io
from base64 import b64decode
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure
from PIL import Image

from mmspt.visualization.page import Absent, Table, make_page
from mmspt.visualization.picture import Picture, styled

HOSTILE = '<script>alert("x")</script> & \'quoted\' "twice"'


def picture(title, caption='caption'):
    with styled():
        figure = Figure(figsize=(3, 2))
        figure.add_subplot().plot([0, 1])
    return Picture('name', title, caption, figure, ('a', 'b, "c"'), [(1, HOSTILE), (0.5, '')])


@pytest.fixture
def page():
    return ElementTree.fromstring(make_page(HOSTILE, [
        ('One', [HOSTILE, Table([HOSTILE, 'n'], [[HOSTILE, '1,234.5'], ['x', '80.1 ±0.2*']]),
                 picture('Same title', HOSTILE)]),
        ('One', [picture('Same title'), Absent('Missing', HOSTILE)]),
    ]))


def texts(page, tag):
    return [''.join(element.itertext()) for element in page.iter(tag)]


def test_nothing_is_taken_for_markup(page):
    """Folder names, config values and error messages come from elsewhere. Links lead to elements of one name."""
    ids = [element.get('id') for element in page.iter() if element.get('id')]
    targets = [link.get('href')[1:] for link in page.iter('a') if link.get('href').startswith('#')]
    assert len(set(ids)) == len(ids) and len(targets) == 2 and set(targets) <= set(ids)
    assert not texts(page, 'script') and texts(page, 'h1') == texts(page, 'title') == [HOSTILE]
    assert texts(page, 'th')[0] == texts(page, 'td')[0] == HOSTILE
    assert [cell.get('class') for cell in page.iter('td')] == [None, 'number', None, 'number']  # to the right
    assert texts(page, 'p') == [HOSTILE, f'Missing: {HOSTILE}']
    assert HOSTILE in texts(page, 'figcaption')[0]


def test_pictures_and_numbers_are_in_the_page(page):
    images, links = list(page.iter('img')), [link for link in page.iter('a') if link.get('download')]
    assert len(images) == len(links) == 2
    for image, link in zip(images, links, strict=True):
        assert image.get('alt') == 'Same title'
        kind, _, content = image.get('src').partition(',')
        assert kind == 'data:image/png;base64'
        assert Image.open(io.BytesIO(b64decode(content))).size == (480, 320)  # 3 x 2 inches, 160 dots an inch
        text = b64decode(link.get('href').partition(',')[2]).decode()
        assert list(csv.reader(io.StringIO(text))) == [['a', 'b, "c"'], ['1', HOSTILE], ['0.5', '']]
