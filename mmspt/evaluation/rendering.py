"""Tables as text: a grid of cells, Markdown, HTML, CSV, and plain data for JSON."""
import csv
import io
from collections.abc import Sequence
from html import escape
from typing import Any

from .tables import Cell, Row, Table


def grid(table: Table) -> tuple[list[str], list[list[str]]]:
    """Header and rows as text; accuracies in percent with two digits, '±' the sample standard deviation over seeds."""
    means = any(row.mean or row.tasks for row in table.rows)
    hours = any(row.hours is not None for row in table.rows)
    header = ['method', 'backbone', *table.tasks.values(), *(['mean'] if means else []), 'seeds',
              *(['hours'] if hours else [])]
    return header, [_line(row, table, means) + [_hours(row)] * hours for row in table.rows]


def markdown(table: Table) -> str:
    """The table as a Markdown section, its notes below it."""
    header, rows = grid(table)
    aligned = ['---', '---', *['---:'] * (len(header) - 2)]
    lines = [f'| {" | ".join(line)} |' for line in (header, aligned, *rows)]
    notes = [f'- {note.replace("*", chr(92) + "*")}' for note in table.notes]
    return '\n'.join([f'## {table.group}', '', *lines, *(['', *notes] if notes else []), ''])


def plain(table: Table) -> dict[str, Any]:
    """The table with all its numbers, for JSON."""
    rows = [dict(method=row.method, arch=row.arch, pretraining=row.pretraining, details=row.details,
                 source=row.source, cells={task: _plain(cell) for task, cell in row.cells.items()},
                 mean=row.mean and _plain(row.mean), tasks=row.tasks, lacking=row.lacking, hours=row.hours)
            for row in table.rows]
    return dict(group=table.group, tasks=table.tasks, rows=rows, notes=table.notes)


def csv_rows(tables: Sequence[Table]) -> str:
    """One line a method, backbone and task: accuracies in percent, their number and deviation, what is lacking."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['group', 'task', 'method', 'arch', 'pretraining', 'source', 'n', 'mean', 'std', 'lacking'])
    for table in tables:
        for row in table.rows:
            for task, cell in {**dict.fromkeys(row.lacking), **row.cells, **({'mean': row.mean} if row.mean else {})
                               }.items():
                numbers = [0, '', ''] if cell is None else [
                    len(cell.values), f'{cell.mean:.4f}', '' if cell.std is None else f'{cell.std:.4f}']
                writer.writerow([table.group, task, row.method, row.arch, row.pretraining, row.source or '', *numbers,
                                 row.lacking.get(task, '')])
    return text.getvalue()


STYLE = """body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 90em; padding: 0 1em;
  color: CanvasText; background: Canvas; color-scheme: light dark }
div { overflow-x: auto } table { border-collapse: collapse } tr { border-bottom: 1px solid #8886 }
th, td { padding: .3em .8em; text-align: right; white-space: nowrap }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left } .published { opacity: .75; font-style: italic }"""


def html(tables: Sequence[Table], title: str, head: Sequence[str], refresh: bool = False) -> str:
    """A page of its own, which needs no network; ``refresh`` lets a browser read it again every minute."""
    parts = [f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
             '<meta name="viewport" content="width=device-width">',
             *(['<meta http-equiv="refresh" content="60">'] if refresh else []), f'<style>{STYLE}</style></head><body>',
             f'<h1>{escape(title)}</h1>', *(f'<p>{escape(line)}</p>' for line in head)]
    for table in tables:
        header, rows = grid(table)
        parts += [f'<h2>{escape(table.group)}: top-1 accuracy (%)</h2><div><table>', _tags(header, 'th'),
                  *(_tags(line, 'td', ' class="published"' if row.source else '')
                    for row, line in zip(table.rows, rows, strict=True)), '</table></div>',
                  *(f'<p>{escape(note)}</p>' for note in table.notes)]
    return '\n'.join([*parts, '</body></html>', ''])


def _tags(texts: Sequence[str], tag: str, attributes: str = '') -> str:
    return f'<tr{attributes}>{"".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)}</tr>'


def _line(row: Row, table: Table, means: bool) -> list[str]:
    cells = [' · '.join(filter(None, (_text(row.cells[task]) if task in row.cells else '', row.lacking.get(task))))
             for task in table.tasks]
    total = [_text(row.mean) if row.mean else row.tasks] if means else []
    counts = sorted({len(cell.values) for cell in row.cells.values()})
    seeds = '-'.join(str(count) for count in dict.fromkeys([counts[0], counts[-1]])) if counts else ''
    return [row.label, f'{row.arch} {row.pretraining}', *cells, *total, seeds]


def _hours(row: Row) -> str:
    return '' if row.hours is None else f'{row.hours:.2f}'


def _text(cell: Cell) -> str:
    spread = '' if cell.std is None else f' ±{cell.std:.2f}'
    return f'{cell.mean:.2f}{spread}{"*" if cell.caveat else ""}'


def _plain(cell: Cell) -> dict[str, Any]:
    return dict(mean=cell.mean, std=cell.std, values=list(cell.values), seeds=list(cell.seeds), mark=cell.caveat)
