"""The HTML page, read by the standard library's parser; a real browser reads it in tests/tools/test_analyze.py."""
import csv
import io
from base64 import b64decode
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure
from PIL import Image

from mmspt.visualization.page import Absent, Table, make_page
from mmspt.visualization.picture import Picture, styled

VOID = {'meta', 'link', 'img', 'br'}
HOSTILE = '<script>alert("x")</script> & \'quoted\' "twice"'


class Reader(HTMLParser):
    """Elements with their attributes and text; fails on elements that do not close in order."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        element = dict(attributes, tag=tag, text='')
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop()['tag'] == tag

    def handle_data(self, data):
        for element in self.open:
            element['text'] += data

    def all(self, tag):
        return [element for element in self.elements if element['tag'] == tag]


def picture(title, caption='caption'):
    with styled():
        figure = Figure(figsize=(3, 2))
        figure.add_subplot().plot([0, 1])
    return Picture('name', title, caption, figure, ('a', 'b, "c"'), [(1, HOSTILE), (0.5, '')])


@pytest.fixture
def page():
    return Reader(make_page(HOSTILE, [
        ('One', [HOSTILE, Table([HOSTILE, 'n'], [[HOSTILE, '1,234.5'], ['x', '80.1 ±0.2*']]),
                 picture('Same title', HOSTILE)]),
        ('One', [picture('Same title'), Absent('Missing', HOSTILE)]),
    ]))


def test_nothing_is_taken_for_markup(page):
    """Folder names, config values and error messages come from elsewhere. Links lead to elements of one name."""
    ids = [element['id'] for element in page.elements if 'id' in element]
    targets = [link['href'][1:] for link in page.all('a') if link['href'].startswith('#')]
    assert len(set(ids)) == len(ids) and len(targets) == 2 and set(targets) <= set(ids)
    assert not page.all('script')
    assert page.all('h1')[0]['text'] == page.all('title')[0]['text'] == HOSTILE
    assert page.all('th')[0]['text'] == page.all('td')[0]['text'] == HOSTILE
    assert [cell.get('class') for cell in page.all('td')] == [None, 'number', None, 'number']  # to the right
    assert page.all('p')[0]['text'] == HOSTILE
    assert page.all('p')[1]['text'] == f'Missing: {HOSTILE}'
    assert HOSTILE in page.all('figcaption')[0]['text']


def test_pictures_and_numbers_are_in_the_page(page):
    images, links = page.all('img'), [link for link in page.all('a') if 'download' in link]
    assert len(images) == len(links) == len(page.all('figure')) == 2
    for image, link in zip(images, links, strict=True):
        assert image['alt'] == 'Same title'
        kind, _, content = image['src'].partition(',')
        assert kind == 'data:image/png;base64'
        assert Image.open(io.BytesIO(b64decode(content))).size == (480, 320)  # 3 x 2 inches, 160 dots an inch
        text = b64decode(link['href'].partition(',')[2]).decode()
        assert list(csv.reader(io.StringIO(text))) == [['a', 'b, "c"'], ['1', HOSTILE], ['0.5', '']]
