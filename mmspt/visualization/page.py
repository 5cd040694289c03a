"""A page of pictures and tables in one HTML file, which needs no network."""
import os.path as osp
import re
from base64 import b64encode
from collections.abc import Sequence
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader

from .picture import Picture

NUMBER = re.compile(r'[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?%?( ±\d+(\.\d+)?)?\*?')  # cells that stand to the right


class Table(NamedTuple):
    """Rows of text under a header."""
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class Absent(NamedTuple):
    """A picture that could not be drawn."""
    title: str
    reason: str


Section = tuple[str, Sequence[str | Table | Picture | Absent]]
"""A heading and what stands below it."""


def make_page(title: str, sections: Sequence[Section]) -> str:
    """Return the page: HTML without scripts, pictures as PNG inside it, each with a link to its numbers as CSV."""
    environment = Environment(loader=FileSystemLoader(osp.dirname(__file__)), autoescape=True, trim_blocks=True)
    environment.filters['base64'] = lambda content: b64encode(content).decode()
    environment.tests['number'] = NUMBER.fullmatch
    return environment.get_template('page.html').render(title=title, sections=sections)


def slug(text: str) -> str:
    """Return the letters and digits of a text, with hyphens between words: a name for a folder."""
    return re.sub(r'[^a-z0-9]+', '-', text.lower()).strip('-') or 'part'
