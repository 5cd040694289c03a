"""Tables of published accuracies: Sphinx puts them in place of the markers ``<!-- table: NAME -->`` of published.md."""
import os.path as osp
import re
from collections.abc import Sequence
from typing import Any

from mmspt.datasets.tasks import GROUPS, TASKS
from mmspt.evaluation import PUBLISHED, Published
from mmspt.evaluation import published as reader
from mmspt.evaluation.tables import METHODS

CSV = osp.join(osp.dirname(reader.__file__), 'published.csv')
MARKER = re.compile(r'^<!-- table: (.*) -->$', re.MULTILINE)
MISSING = '·'


def columns_of(group: str) -> dict[tuple[str, str | None], str]:
    """Return (group, task) -> title for the tasks of a group."""
    return {(group, key): task.name for key, task in TASKS.items() if task.group == group}


COLUMNS = {
    'fgvc': columns_of('FGVC') | {('FGVC', None): 'FGVC'},
    'vtab groups': {(group, None): group for group in GROUPS if group != 'FGVC'},
    'vtab natural': columns_of('Natural'),
    'vtab specialized': columns_of('Specialized'),
    'vtab structured': columns_of('Structured'),
}
"""Name of a table -> the columns between 'pre-training' and 'source': (group, task) -> title; task None is the mean."""


def render_table(columns: dict[tuple[str, str | None], str], published: Sequence[Published] = PUBLISHED) -> str:
    """Return a Markdown table: a row for each pre-training, method and source that has one of the columns.

    Methods are in the order of :data:`mmspt.evaluation.tables.METHODS`. All numbers have as many decimals as the number
    with the most, so none is rounded. Seeds are separated by '/'.
    """
    found = [p for p in published if (p.group, p.task) in columns]
    cells = {(p.pretraining, p.method, p.source, (p.group, p.task)): p.values for p in found}
    digits = max(len(str(value).partition('.')[2]) for p in found for value in p.values)

    def text(values: Sequence[float]) -> str:
        return ' / '.join(f'{value:.{digits}f}' for value in values) or MISSING

    lines = [['method', 'pre-training', *columns.values(), 'source'], ['---', '---', *['---:'] * len(columns), '---']]
    rows = {key[:3] for key in cells}
    for row in sorted(rows, key=lambda row: (row[0], METHODS.index(row[1]), row[2])):
        pretraining, method, source = row
        lines.append([method, pretraining, *(text(cells.get((*row, column), ())) for column in columns), source])
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def fill_markers(text: str) -> str:
    """Replace each marker of a page by its table.

    Raises:
        ValueError: A marker names no table.
    """
    def table(marker: re.Match) -> str:
        if marker[1] not in COLUMNS:
            raise ValueError(f"'{marker[0]}' must name one of {', '.join(COLUMNS)}: correct docs/published.md")
        return render_table(COLUMNS[marker[1]])

    return MARKER.sub(table, text)


def fill_page(app: Any, docname: str, source: list[str]) -> None:
    """Fill the markers of published.md, and read the page again whenever published.csv changes."""
    if docname == 'published':
        app.env.note_dependency(CSV)
        source[0] = fill_markers(source[0])


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect('source-read', fill_page)
    return dict(parallel_read_safe=True, parallel_write_safe=True)
