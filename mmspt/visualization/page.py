"""A page of pictures and tables that is one file and needs no network."""
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import NamedTuple

from .picture import Picture

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 72rem; margin: 0 auto;
       padding: 1rem 2rem 4rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.3rem; margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
nav ul { columns: 2; padding-left: 1.2rem; }
figure { margin: 1.2rem 0 2rem; } figure img { max-width: 100%; height: auto; display: block; }
figcaption { color: #333; max-width: 60rem; } figcaption strong { display: block; }
div.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 0.9rem; margin: 0.8rem 0; }
th, td { border: 1px solid #ccc; padding: 0.25rem 0.6rem; text-align: left; vertical-align: top; }
th { background: #f2f2f2; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
p.absent { border-left: 4px solid #d55e00; padding-left: 0.8rem; } code, pre { font-size: 0.9rem; }
a:focus-visible, summary:focus-visible { outline: 3px solid #0072b2; }
"""
NUMBER = re.compile(r'[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?%?( ±\d+(\.\d+)?)?\*?')


class Table(NamedTuple):
    """Rows of text under a header."""
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class Absent(NamedTuple):
    """A picture that could not be drawn."""
    title: str
    reason: str


class Section(NamedTuple):
    """A heading and what stands below it: text, tables, pictures."""
    title: str
    items: Sequence[str | Table | Picture | Absent]


def make_page(title: str, sections: Iterable[Section]) -> str:
    """Build the page: HTML without scripts, pictures as PNG inside it, each with a link to its numbers as CSV.

    Args:
        title (str): Of the page.
        sections (Iterable[Section]): In their order.
    """
    sections = list(sections)
    ids = _unique(section.title for section in sections)
    figures = _unique(f'figure {item.title}' for section in sections for item in section.items
                      if isinstance(item, Picture))
    places = iter(figures)
    parts = [f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
             '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
             # a page without an icon makes a browser ask for one
             f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n'
             '<body>',
             f'<h1>{escape(title)}</h1>', '<nav aria-label="Contents"><ul>']
    parts += [f'<li><a href="#{name}">{escape(section.title)}</a></li>'
              for name, section in zip(ids, sections, strict=True)]
    parts.append('</ul></nav>\n<main>')
    for name, section in zip(ids, sections, strict=True):
        parts.append(f'<section id="{name}" aria-labelledby="{name}-title">\n'
                     f'<h2 id="{name}-title">{escape(section.title)}</h2>')
        parts += [_item(item, places) for item in section.items]
        parts.append('</section>')
    return '\n'.join([*parts, '</main>\n</body>\n</html>\n'])


def _item(item: str | Table | Picture | Absent, places: Iterator[str]) -> str:
    if isinstance(item, str):
        return f'<p>{escape(item)}</p>'
    if isinstance(item, Table):
        return _table(item)
    if isinstance(item, Absent):
        return f'<p class="absent"><strong>{escape(item.title)}</strong>: {escape(item.reason)}</p>'
    png, numbers = b64encode(item.render('png')).decode(), b64encode(item.csv.encode()).decode()
    return (f'<figure id="{next(places)}">\n<img src="data:image/png;base64,{png}" alt="{escape(item.title)}">\n'
            f'<figcaption><strong>{escape(item.title)}</strong> {escape(item.caption)} '
            f'<a download="{escape(item.name)}.csv" href="data:text/csv;base64,{numbers}">The numbers (CSV)</a>'
            '</figcaption>\n</figure>')


def _table(table: Table) -> str:
    head = ''.join(f'<th scope="col">{escape(name)}</th>' for name in table.header)
    body = '\n'.join('<tr>' + ''.join(
        f'<td{" class=" + chr(34) + "number" + chr(34) if NUMBER.fullmatch(cell) else ""}>{escape(cell)}</td>'
        for cell in row) + '</tr>' for row in table.rows)
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def slug(text: str) -> str:
    """Letters, digits and hyphens: a name for a link or a folder."""
    return re.sub(r'[^a-z0-9]+', '-', text.lower()).strip('-') or 'part'


def _unique(titles: Iterable[str]) -> list[str]:
    names: list[str] = []
    for title in titles:
        name = slug(title)
        names.append(name if name not in names else f'{name}-{len(names)}')
    return names
