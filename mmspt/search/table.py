"""The paper's tables of a plan, filled as its cells are done, beside published numbers."""
import json
from collections.abc import Mapping, Sequence
from typing import Any

from mmspt.datasets.tasks import GROUPS, TASKS
from mmspt.evaluation.rendering import csv_rows, html, markdown, plain
from mmspt.evaluation.tables import Cell as TableCell
from mmspt.evaluation.tables import Row, Table, add_mean, published_rows
from mmspt.files import write_text

from .states import State, budgets, estimate, plain_states


def make_tables(states: Sequence[State]) -> list[Table]:
    """Make a table for every group of tasks; rows are checkpoint and method, in the plan's order."""
    groups = dict.fromkeys(state.cell.row['group'] for state in states)
    return [_table(group, [state for state in states if state.cell.row['group'] == group])
            for group in sorted(groups, key=lambda group: ([*GROUPS, group].index(group), group))]


def _table(group: str, states: Sequence[State]) -> Table:
    tasks = {_task(state): state.cell.row.get('task_title', _task(state)) for state in states}
    if group in GROUPS:
        tasks = {key: task.name for key, task in TASKS.items() if task.group == group}
    rows: dict[tuple[str, str, str], Row] = {}
    for state in states:
        line = state.cell.row
        method, checkpoint = line.get('method_title', line['method']), line.get('checkpoint_title', line['pretraining'])
        row = rows.setdefault((method, line['arch'], checkpoint), Row(method, line['arch'], checkpoint))
        if _task(state) in row.cells or _task(state) in row.lacking:  # another cell's: a task in two forms
            method = f"{method}, {line.get('task_title', state.cell.name)}"
            row = rows.setdefault((method, line['arch'], checkpoint), Row(method, line['arch'], checkpoint))
        if state.tests:
            row.cells[_task(state)] = TableCell(tuple(test['metrics'][state.cell.metric]
                                                      for test in state.tests.values()), tuple(state.tests))
        if state.text != 'done':
            row.lacking[_task(state)] = state.text
        row.hours = (row.hours or 0.) + state.seconds / 3600
    if group in GROUPS:
        for row in rows.values():
            if not row.lacking:
                add_mean(row, list(tasks))
        known = {(state.cell.row['arch'], state.cell.row['pretraining']) for state in states}
        published = published_rows(group, known)
    else:
        published = []
    notes = [f'{state.cell.name}: {state.failure}' for state in states if state.failure is not None]
    notes += [f'{state.cell.name} cannot be run on {host}: {why}' for state in states if not state.over
              for host, why in state.skipped.items()]
    notes += [f'{state.cell.name}: {state.ended} trials; {state.stopped}' for state in states if state.stopped]
    return Table(group, tasks, [*rows.values(), *published], notes)


def _task(state: State) -> str:
    """Column of a cell: the benchmark's task, or the plan's."""
    return state.cell.row['task'] if state.cell.row['group'] in GROUPS else state.cell.row.get(
        'task_title', state.cell.row['task'])


def progress(states: Sequence[State]) -> str:
    """Say in a line how far a plan is, what it cost, and what is left."""
    done, failed = (sum(state.text == text for state in states) for text in ('done', 'failed'))
    left = estimate(states)
    spent = sum(state.seconds for state in states) / 3600
    parts = [f'{done} of {len(states)} cells are done', *([f'{failed} failed'] if failed else []),
             f'{sum(state.running for state in states)} runs under way', f'{spent:.2f} hours of runs spent']
    if left != 0.:
        parts.append('nothing has ended yet, so what is left is not known' if left is None
                     else f'about {left / 3600:.2f} left')
    return ', '.join(parts) + '.'


def write_tables(states: Sequence[State], folder: str, title: str) -> list[Table]:
    """Write table.md, table.csv, table.json and table.html into the plan's folder, each atomically."""
    tables = make_tables(states)
    head = [progress(states), budgets(states)]
    content: Mapping[str, Any] = dict(title=title, tables=[plain(table) for table in tables],
                                      cells=plain_states(states, folder))
    for name, text in dict(
            md='\n'.join([f'# {title}\n', *(f'{line}\n' for line in head), *map(markdown, tables)]),
            csv=csv_rows(tables), html=html(tables, title, head, refresh=any(not state.over for state in states)),
            json=json.dumps(content, indent=1, allow_nan=False) + '\n').items():
        write_text(f'{folder}/table.{name}', text)
    return tables
