"""The paper's tables from the user's results: a row a method, a column a task, the mean of a group, published rows."""
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev

from mmspt.datasets.tasks import GROUPS, TASKS

from .method_names import unusual
from .published import PUBLISHED, SOURCES
from .settings import Run, find_caveat, name_setting, split_settings

METRIC = 'accuracy/top1'
METHODS = ('Full', 'Linear', 'VPT-Shallow', 'VPT-Deep', 'GateVPT', 'SPT-Shallow', 'SPT-Deep', 'BPT-Shallow',
           'BPT-Deep', 'VIPAMIN', 'VIPAMIN-Shallow', 'VIPAMIN-Deep')


@dataclass(frozen=True)
class Cell:
    """Accuracies of one task, or of a group's mean, in percent: one a seed."""
    values: tuple[float, ...]
    seeds: tuple[int | None, ...] = ()
    caveat: str | None = None  # why it is not comparable with the benchmark's numbers
    trained_on: str | None = None  # split of the training
    global_batch: int | None = None  # images an optimizer step, of all processes

    @property
    def mean(self) -> float:
        return mean(self.values)

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1); None for one value."""
        return stdev(self.values) if len(self.values) > 1 else None


@dataclass
class Row:
    """One method on one backbone."""
    method: str
    arch: str
    pretraining: str
    details: str = ''  # differences from the method's usual form
    source: str | None = None  # where the numbers were published; None for the user's own
    cells: dict[str, Cell] = field(default_factory=dict)
    mean: Cell | None = None
    tasks: str = ''  # 'n of m tasks' for the user's own
    lacking: dict[str, str] = field(default_factory=dict)  # task -> how far an unfinished plan is there
    hours: float | None = None  # of the runs of a plan

    @property
    def label(self) -> str:
        return f'{self.method} ({self.source})' if self.source else ', '.join(filter(None, (self.method, self.details)))


@dataclass
class Table:
    """One group."""
    group: str
    tasks: dict[str, str]  # columns: key -> title
    rows: list[Row]
    notes: list[str]


def build_tables(runs: Iterable[Run]) -> list[Table]:
    """Make a table for every group that has a finished run with the metric 'accuracy/top1'.

    A cell holds the seeds of one setting: same method, backbone, initializer, number of prompts, config, recipe and
    test. Settings of one task that differ in the last three get rows of their own: choosing one of them would be
    choosing by the test. A run that was only tested has no recipe, and a row of its own. A group has a mean if all of
    its tasks were tested as in the benchmark.
    """
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.result.group].append(run)
    return [_table(group, groups[group]) for group in (*GROUPS, 'Other') if group in groups]


def _table(group: str, runs: list[Run]) -> Table:
    notes: list[str] = []
    tasks = {key: task.name for key, task in TASKS.items() if task.group == group}
    tasks = tasks or {name: name for name in sorted({run.result.task for run in runs})}
    bases: dict[tuple, list[Run]] = defaultdict(list)
    for run in runs:
        r = run.result
        bases[r.method, r.arch, r.pretraining, r.initializer, r.num_prompts, r.recipe is None].append(run)
    rows = [row for base in sorted(bases, key=str) for row in _rows(bases[base], tasks, notes)]
    if group in GROUPS:
        for row in rows:
            add_mean(row, list(tasks))
        rows += published_rows(group, {(row.arch, row.pretraining) for row in rows})
        if any(row.pretraining == 'unknown' for row in rows):
            notes.append("pre-training unknown: set `pretraining = 'MAE'` (or 'MoCo-v3', ...) in the config, and "
                         'published rows are added')
    notes += _batches(rows)
    notes += [f'{run.folder}: {run.note}' for run in runs if run.note]
    notes += [f'{source}: {SOURCES[source]}' for source in dict.fromkeys(row.source for row in rows) if source]
    return Table(group, tasks, sorted(rows, key=_order), notes)


def _rows(runs: list[Run], tasks: dict[str, str], notes: list[str]) -> list[Row]:
    """Return the rows of one method on one backbone: the main one, then settings that share a task with another."""
    first = runs[0].result
    details = [*(['only tested'] if first.recipe is None else []),
               *unusual(first.method, first.initializer, first.num_prompts)]
    main = Row(first.method, first.arch, first.pretraining, ', '.join(details))
    others: dict[str, Row] = {}
    for task in tasks:
        settings = split_settings([run for run in runs if run.result.task == task])
        comparable = [members for members in settings if find_caveat(members[0].result) is None]
        chosen = comparable if len(comparable) == 1 else settings if len(settings) == 1 else []
        for members in settings:
            if members in chosen:
                row = main
            else:
                name = ', '.join([*details, name_setting(members, settings)])
                row = others.setdefault(name, Row(main.method, main.arch, main.pretraining, name))
            row.cells[task] = _cell(members, f'{row.label}, {tasks[task]}', notes)
        if len(comparable) > 1:
            notes.append(f'{main.label}, {tasks[task]}: {len(comparable)} settings, in rows of their own; report the '
                         "folders of one alone to have it in the method's row")
    rows = [main, *others.values()] if main.cells else list(others.values())
    for row in rows:
        splits: dict[str, list[str]] = defaultdict(list)
        for task, cell in row.cells.items():
            if task in TASKS and cell.trained_on is not None:
                splits[cell.trained_on].append(tasks[task])
        if len(splits) > 1:
            parts = [f"'{split}' ({', '.join(names)})" for split, names in sorted(splits.items())]
            notes.append(f'{row.label}: trained on different splits: {"; ".join(parts)}')
    return rows


def _cell(runs: Sequence[Run], name: str, notes: list[str]) -> Cell:
    """Return one value a seed; runs of the same seed count once, as their mean."""
    seeds: dict[int | None, list[Run]] = defaultdict(list)
    for run in runs:
        seeds[run.result.seed].append(run)
    for seed, same in seeds.items():
        if len(same) > 1:
            notes.append(f"{name}: seed {seed} {len(same)} times ({', '.join(run.folder for run in same)}); it counts "
                         'once, as their mean')
    if len(runs) > 1 and runs[0].result.recipe is None:
        notes.append(f'{name}: only tested, so whether these were trained alike is not known '
                     f"({', '.join(run.folder for run in runs)})")
    first = runs[0].result
    caveat = find_caveat(first)
    if caveat:
        notes.append(f'* {name}: {caveat}; not in a mean')
    ordered = sorted(seeds, key=str)
    values = tuple(mean(run.result.metrics[METRIC] for run in seeds[seed]) for seed in ordered)
    return Cell(values, tuple(ordered), caveat, (first.trained_on or {}).get('split'),
                (first.recipe or {}).get('global_batch'))


def _batches(rows: list[Row]) -> list[str]:
    """Return a note on the global batches: one number, or the rows of each."""
    found: dict[int, list[str]] = defaultdict(list)
    for row in rows:
        for batch in sorted({cell.global_batch for cell in row.cells.values() if cell.global_batch}):
            found[batch].append(f'{row.label} ({row.arch}, {row.pretraining})')
    shown = [str(batch) if len(found) == 1 else f'{batch}: {", ".join(labels)}'
             for batch, labels in sorted(found.items())]
    return [f'Global batch: {"; ".join(shown)}'] if shown else []


def add_mean(row: Row, tasks: list[str]) -> None:
    """Set the mean over all tasks, seed by seed if they share seeds, and 'n of m tasks'."""
    cells = [row.cells[task] for task in tasks if task in row.cells and row.cells[task].caveat is None]
    row.tasks = f'{len(cells)} of {len(tasks)} tasks'
    if len(cells) == len(tasks):
        same = len({cell.seeds for cell in cells}) == 1
        by_seed = tuple(mean(values) for values in zip(*(cell.values for cell in cells), strict=True)) if same else None
        row.mean = Cell(by_seed, cells[0].seeds) if by_seed else Cell((mean(cell.mean for cell in cells), ))


def published_rows(group: str, backbones: set[tuple[str, str]]) -> list[Row]:
    """Return the published rows of a group on these (arch, pretraining)."""
    rows: dict[tuple, Row] = {}
    for p in PUBLISHED:
        if p.group == group and (p.arch, p.pretraining) in backbones:
            row = rows.setdefault((p.method, p.arch, p.pretraining, p.source),
                                  Row(p.method, p.arch, p.pretraining, source=p.source))
            if p.task is None:
                row.mean = Cell(p.values)
            else:
                row.cells[p.task] = Cell(p.values)
    return list(rows.values())


def _order(row: Row) -> tuple:
    place = METHODS.index(row.method) if row.method in METHODS else len(METHODS)
    return row.arch, row.pretraining, place, row.method, row.source or '', row.details
