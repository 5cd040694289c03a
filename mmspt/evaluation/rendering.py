"""Tables as text: a grid of cells, Markdown, and plain data for JSON."""
from typing import Any

from .tables import Cell, Row, Table


def grid(table: Table) -> tuple[list[str], list[list[str]]]:
    """Header and rows as text; accuracies in percent with two digits, '±' the sample standard deviation over seeds."""
    means = any(row.mean or row.tasks for row in table.rows)
    header = ['method', 'backbone', *table.tasks.values(), *(['mean'] if means else []), 'seeds']
    return header, [_line(row, table, means) for row in table.rows]


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
                 mean=row.mean and _plain(row.mean), tasks=row.tasks) for row in table.rows]
    return dict(group=table.group, tasks=table.tasks, rows=rows, notes=table.notes)


def _line(row: Row, table: Table, means: bool) -> list[str]:
    cells = [_text(row.cells[task]) if task in row.cells else '' for task in table.tasks]
    total = [_text(row.mean) if row.mean else row.tasks] if means else []
    counts = sorted({len(cell.values) for cell in row.cells.values()})
    seeds = '-'.join(str(count) for count in dict.fromkeys([counts[0], counts[-1]])) if counts else ''
    return [row.label, f'{row.arch} {row.pretraining}', *cells, *total, seeds]


def _text(cell: Cell) -> str:
    spread = '' if cell.std is None else f' ±{cell.std:.2f}'
    return f'{cell.mean:.2f}{spread}{"*" if cell.caveat else ""}'


def _plain(cell: Cell) -> dict[str, Any]:
    return dict(mean=cell.mean, std=cell.std, values=list(cell.values), seeds=list(cell.seeds), mark=cell.caveat)
