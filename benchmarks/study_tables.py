#!/usr/bin/env python
"""Write the tables of docs/results.md from the study's records: python benchmarks/study_tables.py"""
import os.path as osp
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from statistics import fmean

from rich.console import Console

from mmspt.files import write_text
from study_plan import BACKBONES, METHODS, NUM_PROMPTS, ROOT, TASKS, TEST_IMAGES, Cell, cells
from study_records import (
    RATE,
    Record,
    Records,
    accuracies,
    best_cells,
    epochs_to_own,
    interval_of_images,
    nmi_ends,
    pack_of,
    ranges,
    read_records,
    spread,
    subtract,
    with_interval,
)

PAGE = osp.join(ROOT, 'docs', 'results.md')
EMPTY = '·'
STARTS = ('random sample', 'K-means', 'mean', 'max')
SPT = tuple(f'SPT-Deep, {start}' for start in STARTS)
COUNTS = (5, 50, 100)
DIFFERENCES = [
    *((spt, 'VPT-Deep', NUM_PROMPTS) for spt in SPT), *((SPT[0], 'VPT-Deep', count) for count in COUNTS),
    *((SPT[1], SPT[i], NUM_PROMPTS) for i in (0, 2, 3)),
    *((spt, 'Full', NUM_PROMPTS) for spt in SPT), (SPT[0], 'Full', 5),
    *((f'{changed}, {how}', other, NUM_PROMPTS) for how, changed in (('long', 'VPT-Deep'), ('short', SPT[0]))
      for other in ('VPT-Deep', SPT[0]))]
"""(method, less this method, number of prompts)."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format Markdown; the first column is text, the others are numbers."""
    lines = [header, ['---', *['---:'] * (len(header) - 1)], *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def by_place(records: Records, title: str, rows: Mapping[str, tuple], show: Callable[..., str | None]) -> str:
    """Make a table with a column for each backbone and task that ran.

    Args:
        records (Records): Of all cells.
        title (str): Of the first column.
        rows (Mapping): Title -> arguments of ``show``. Rows without any text are left out.
        show (Callable): Return the text for backbone, task and a row's arguments; None where there is none.
    """
    places = [place for place in product(BACKBONES, TASKS) if any(place == cell[:2] for cell in records)]
    texts = {name: [show(*place, *arguments) for place in places] for name, arguments in rows.items()}
    return table([title, *(f'{BACKBONES[backbone]}, {TASKS[task]}' for backbone, task in places)],
                 [[name, *(text or EMPTY for text in found)] for name, found in texts.items() if any(found)])


def label(method: str, num_prompts: int) -> str:
    """Name a method and a number of prompts."""
    return method if num_prompts == NUM_PROMPTS else f'{method}, {num_prompts} prompts'


def by_method(records: Records, show: Callable[[Records, Cell], str | None]) -> str:
    """Make a table with a row for each method and number of prompts."""
    kinds = sorted({(cell.method, cell.num_prompts) for cell in records},
                   key=lambda kind: (kind[1] != NUM_PROMPTS, list(METHODS).index(kind[0]), kind[1]))
    return by_place(records, 'method', {label(*kind): kind for kind in kinds},
                    lambda *key: show(records, Cell(*key)) if Cell(*key) in records else None)


def over_images(first: Sequence[Record], second: Sequence[Record], task: str) -> str:
    """Format the interval over test images."""
    return f' (±{interval_of_images(first, second, TEST_IMAGES[task]):.2f})'


def accuracy(records: Records, cell: Cell) -> str:
    """Format test accuracy and, in brackets, the share of the parameters that train, in percent."""
    counts = records[cell]['parameters']
    return f'{spread(accuracies(records[cell]))} ({100 * counts["trained"] / counts["total"]:.2f})'


def chosen(records: Records, cell: Cell) -> str:
    """Format the rate that the search chose, marked if it is the least or largest tried, and its validation."""
    rate = records[cell]['best']['settings'][RATE]
    tried = [trial['settings'][RATE] for trial in records[cell]['trials']]
    edge = '*' * (rate in (min(tried), max(tried)))
    return f'{rate:g}{edge}: {records[cell]["best"]["validation"]:.2f}'


def less_vpt(records: Records, cell: Cell, read: Callable[[Record], Sequence[float]]) -> str:
    """Format what a cell's seeds have more than VPT-Deep's in its place; '' for VPT-Deep itself."""
    vpt = records.get(cell._replace(method='VPT-Deep'))
    if vpt is None or cell.method == 'VPT-Deep':
        return ''
    return f' ({with_interval(subtract(read(records[cell]), read(vpt)))})'


def epochs(records: Records, cell: Cell) -> str | None:
    """Format the epochs to 95 % of the last validation accuracy, by seed, and how many more than VPT-Deep's."""
    if len(records[cell]['curves']) < 2 or cell.num_prompts != NUM_PROMPTS:
        return None
    return f'{", ".join(map(str, epochs_to_own(records[cell])))}{less_vpt(records, cell, epochs_to_own)}'


def nmi(records: Records, cell: Cell) -> str | None:
    """Format 1000 x NMI before and after, and VPT-Deep's rise or how much more than VPT-Deep's it is before."""
    if not records[cell]['nmi'] or cell.num_prompts != NUM_PROMPTS:
        return None
    before, after = nmi_ends(records[cell])
    rise = f' ({with_interval(subtract(after, before))})'
    more = rise if cell.method == 'VPT-Deep' else less_vpt(records, cell, lambda record: nmi_ends(record)[0])
    return f'{fmean(before):.2f}, {fmean(after):.2f}{more}'


def moved(records: Records, cell: Cell) -> str | None:
    """Format the prompts' length before and after, cosine to their start, and the cosine of two of them before."""
    if not records[cell]['prompts'] or cell.num_prompts != NUM_PROMPTS:
        return None
    before, after, cosine, pairs = (fmean(seed[key] for seed in records[cell]['prompts'].values())
                                    for key in ('before', 'after', 'cosine', 'pairs_before'))
    return f'{before:.1f}, {after:.1f}; {cosine:.2f}; {round(pairs, 2) + 0:.2f}'


def cost(records: Records, cell: Cell) -> str | None:
    """Format the seconds of SPT's initial prompts, and their share of the training's."""
    if cell.method not in SPT or cell.num_prompts != NUM_PROMPTS:
        return None
    first, training = (fmean(times[key] for times in records[cell]['prototypes'].values())
                       for key in ('initialization', 'training'))
    return f'{first:.1f} s, {100 * first / training:.1f} %'


def differences(records: Records) -> str:
    """Make the table of differences of test accuracies, with both intervals."""
    def show(backbone: str, task: str, first: str, second: str, count: int) -> str | None:
        one = records.get(Cell(backbone, task, first, count))
        other = records.get(Cell(backbone, task, second, NUM_PROMPTS if second == 'Full' else count))
        if one is None or other is None:
            return None
        return with_interval(subtract(accuracies(one), accuracies(other))) + over_images([one], [other], task)

    rows = {f'{label(first, count)} - {second}': (first, second, count) for first, second, count in DIFFERENCES}
    return by_place(records, 'test accuracy, difference', rows, show)


def by_backbone(records: Records) -> str:
    """Make the table of what SPT-Deep gains on VPT-Deep under MAE, less what it gains under MoCo-v3."""
    rows = []
    for task, spt in product(TASKS, SPT):
        a, b, c, d = (records.get(Cell(backbone, task, method)) for backbone in BACKBONES
                      for method in (spt, 'VPT-Deep'))
        if a and b and c and d:
            gains = [subtract(accuracies(one), accuracies(other)) for one, other in ((a, b), (c, d))]
            rows.append([f'{TASKS[task]}, {spt}', with_interval(subtract(*gains)) + over_images([a, d], [b, c], task)])
    return table(['gain under MAE - gain under MoCo-v3', 'difference'], rows)


def robustness(records: Records) -> str:
    """Make the table of ranges over numbers of prompts that ran for both, and of their difference."""
    rows = []
    for backbone, task, spt in product(BACKBONES, TASKS, SPT):
        pairs = [(records.get(Cell(backbone, task, 'VPT-Deep', count)), records.get(Cell(backbone, task, spt, count)))
                 for count in (NUM_PROMPTS, *COUNTS)]
        both = [(vpt, own) for vpt, own in pairs if vpt and own]
        if len(both) > 1:
            sides = [sorted(side, key=lambda record: fmean(accuracies(record))) for side in zip(*both, strict=True)]
            (vpt_low, *_, vpt_high), (low, *_, high) = sides
            rows.append([f'{BACKBONES[backbone]}, {TASKS[task]}: {spt}',
                         *(f'{fmean(ranges(side)):.2f}' for side in sides),
                         with_interval(subtract(*map(ranges, sides)))
                         + over_images([vpt_high, low], [vpt_low, high], task)])
    return table(['range over numbers of prompts', 'VPT-Deep', 'SPT-Deep', 'difference'], rows)


def packs(records: Records) -> str:
    """Make the table of the packs beside the records, and their test accuracies."""
    return table(['pack in benchmarks/results/study/packs', 'test accuracy (%)'], [
        [f'`{osp.basename(pack_of(cell))}`', f'{accuracies(records[cell])[0]:.2f}'] for cell in best_cells(records)])


def ran(records: Records) -> str:
    """Make the table of cells that ran, cells that are planned, and hours."""
    rows = []
    for place in product(BACKBONES, TASKS):
        planned = [cell for cell in cells() if cell[:2] == place]
        found = [records[cell] for cell in planned if cell in records]
        rows.append([f'{BACKBONES[place[0]]}, {TASKS[place[1]]}', str(len(found)), str(len(planned)),
                     f'{sum(record["seconds"] for record in found) / 3600:.2f}'])
    total = sum(record['seconds'] for record in records.values()) / 3600
    return table(['cells of', 'ran', 'planned', 'hours'],
                 [*rows, ['all', str(len(records)), str(len(cells())), f'{total:.2f}']])


TABLES: dict[str, Callable[[Records], str]] = {
    **{show.__name__: partial(by_method, show=show) for show in (accuracy, epochs, nmi, cost, moved, chosen)},
    **{make.__name__: make for make in (differences, by_backbone, robustness, packs, ran)}}


def fill(page: str, records: Records) -> str:
    """Put each table between its marks, ``<!-- table: NAME -->`` and ``<!-- end -->``."""
    return re.sub(r'(<!-- table: (.+?) -->\n).*?(<!-- end -->)', lambda match: (
        f'{match[1]}{TABLES[match[2]](records)}\n{match[3]}'), page, flags=re.DOTALL)


def main() -> None:
    with open(PAGE, encoding='utf-8') as file:
        page = file.read()
    records = read_records()
    write_text(PAGE, fill(page, records))
    Console().print(f'{PAGE}: {len(records)} cells', soft_wrap=True)


if __name__ == '__main__':
    main()
