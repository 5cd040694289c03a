#!/usr/bin/env python
"""The paper's tables from finished runs, beside published numbers (docs/published.md says how to compare)."""
import argparse
import json
import sys
from dataclasses import asdict

from rich.console import Console
from rich.table import Table as RichTable

from mmspt.evaluation import METRIC, Found, Table, build_tables, find_runs
from mmspt.evaluation.rendering import grid, markdown, plain
from mmspt.files import write_text

WIDTH = 200  # columns where the output is no terminal


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Accuracy by task and by group, beside published numbers; the exit '
                                     'status is 1 if a run is unfinished')
    parser.add_argument('work_dirs', nargs='+', metavar='WORK_DIR', help='a run, or a folder with runs below it')
    parser.add_argument('--out', metavar='PREFIX', help='write PREFIX.md and PREFIX.json as well')
    return parser.parse_args()


def show(tables: list[Table], console: Console) -> None:
    """Print each table with its notes; published rows are dim."""
    for table in tables:
        header, rows = grid(table)
        shown = RichTable(title=f'{table.group}: top-1 accuracy (%)')
        for i, name in enumerate(header):
            shown.add_column(name, justify='left' if i < 2 else 'right')
        for row, line in zip(table.rows, rows, strict=True):
            shown.add_row(*line, style='dim' if row.source else None)
        console.print(shown)
        for note in table.notes:
            console.print(note)
        console.print()


def report(found: Found, tables: list[Table]) -> str:
    """Return the report in Markdown: tables, their runs, unfinished runs, runs without a test."""
    parts = ['# Results\n\nTop-1 accuracy (%), of the last weights, tested once; ± is the sample standard deviation '
             'over seeds.\n', *(markdown(table) for table in tables), '## Runs\n']
    rows = [['folder', 'config', 'task', 'seed', 'weights', 'trained on', 'tested on', 'accuracy']]
    for folder, r, _ in found.runs:
        trained = '{dataset} {split}'.format(**r.trained_on) if r.trained_on else 'only tested'
        rows.append([folder, str(r.config), r.task, str(r.seed), r.progress, trained,
                     f'{r.split}, {r.num_images:,} images', f'{r.metrics[METRIC]:.2f}'])
    parts.append('\n'.join(f'| {" | ".join(row)} |' for row in (rows[0], ['---'] * len(rows[0]), *rows[1:])) + '\n')
    if found.unfinished:
        parts.append('## Unfinished\n')
        lines = [f'- `{folder}`: {lacks}. Remedy: `{remedy}`' for folder, lacks, remedy in found.unfinished]
        parts.append('\n'.join(lines) + '\n')
    if found.untested:
        parts.append('## Without a test\n')
        parts.append('\n'.join(f'- `{folder}`' for folder in found.untested))
    return '\n'.join(parts).rstrip() + '\n'


def write(prefix: str, found: Found, tables: list[Table]) -> None:
    """Write PREFIX.md and PREFIX.json, each atomically."""
    content = dict(tables=[plain(table) for table in tables],
                   runs=[dict(folder=run.folder, note=run.note, **asdict(run.result)) for run in found.runs],
                   unfinished=[item._asdict() for item in found.unfinished],
                   untested=found.untested)
    for path, text in ((f'{prefix}.md', report(found, tables)),
                       (f'{prefix}.json', json.dumps(content, indent=2, allow_nan=False) + '\n')):
        write_text(path, text)


def main() -> None:
    args = parse_args()
    found = find_runs(args.work_dirs)
    console = Console(width=None if sys.stdout.isatty() else WIDTH, markup=False, highlight=False)
    if found.runs:
        tables = build_tables(found.runs)
        show(tables, console)
        if args.out:
            write(args.out, found, tables)
    for folder in found.untested:
        console.print(f"skipped, since its config has no test_dataloader: '{folder}'", soft_wrap=True)
    lines = [f"'{folder}': {lacks}\n    {remedy}" for folder, lacks, remedy in found.unfinished]
    if not found.runs:
        raise SystemExit('\n'.join(['a report needs a finished run, there is none; these lack something:', *lines]
                                   if lines else ['a report needs a finished run that was tested, there is none']))
    if lines:
        raise SystemExit('\n'.join([f'{len(found.runs)} finished run(s) reported; not these, which lack something:',
                                    *lines]))


if __name__ == '__main__':
    main()
