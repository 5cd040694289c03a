"""Records of the study, one JSON a cell in benchmarks/results/study, and numbers computed from them."""
import json
import math
import os.path as osp
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from scipy.stats import t as student

from study_plan import PLAN, Cell, cells

RESULTS = osp.join(osp.dirname(osp.abspath(__file__)), 'results', 'study')
RATE = 'optim_wrapper.optimizer.lr'
Record = Mapping[str, Any]
Records = Mapping[Cell, Record]


def path_of(cell: Cell) -> str:
    """Return the path of a cell's record."""
    return osp.join(RESULTS, f'{cell.name}.json')


def pack_of(cell: Cell) -> str:
    """Return the path of a cell's pack; only the best cell of a backbone and a task has one."""
    return osp.join(RESULTS, 'packs', f'{cell.name}.safetensors')


def read_records() -> dict[Cell, Record]:
    """Read the records of the planned cells that ran, in the plan's order."""
    paths = {cell: Path(path_of(cell)) for cell in cells()}
    return {cell: json.loads(path.read_text(encoding='utf-8')) for cell, path in paths.items() if path.is_file()}


def best_cells(records: Records) -> list[Cell]:
    """Return the cell with the best validation of each backbone and task, the first of equals; controls and full
    fine-tuning, whose networks do not stay frozen, are left out."""
    best: dict[tuple[str, str], Cell] = {}
    for cell, record in records.items():
        place = cell.backbone, cell.task
        if cell.method in PLAN['controls'] or cell.method == 'Full':
            continue
        if place not in best or record['best']['validation'] > records[best[place]]['best']['validation']:
            best[place] = cell
    return list(best.values())


def accuracies(record: Record) -> list[float]:
    """Return the test accuracy of each seed, in percent."""
    return list(record['test']['by_seed'].values())


def subtract(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """Return the difference of each seed."""
    return [a - b for a, b in zip(first, second, strict=True)]


def final(curve: Mapping[str, float]) -> float:
    """Return the value of a curve's last epoch."""
    return curve[max(curve, key=int)]


def epochs_to_own(record: Record, share: float = 0.95) -> list[int]:
    """Return, for each seed's curve, the first epoch with this share of the last one's validation accuracy."""
    return [min(int(epoch) for epoch, value in curve.items() if value >= share * final(curve))
            for curve in record['curves'].values()]


def nmi_ends(record: Record) -> tuple[list[float], list[float]]:
    """Return 1000 x NMI of each seed before the first step, and after the last."""
    series = [sorted((int(step), 1000 * value) for step, value in values.items()) for values in record['nmi'].values()]
    return [values[0][1] for values in series], [values[-1][1] for values in series]


def ranges(records: Sequence[Record]) -> list[float]:
    """Return each seed's highest test accuracy less its lowest, over several records."""
    return [max(seed) - min(seed) for seed in zip(*map(accuracies, records), strict=True)]


def spread(values: Sequence[float]) -> str:
    """Format mean and sample standard deviation."""
    return f'{fmean(values):.2f} ±{stdev(values):.2f}'


def interval(differences: Sequence[float]) -> float:
    """Return half the width of the 95 % confidence interval of a mean, by Student's t."""
    return float(student.ppf(0.975, len(differences) - 1)) * stdev(differences) / math.sqrt(len(differences))


def with_interval(differences: Sequence[float]) -> str:
    """Format mean and 95 % interval, bold where the interval leaves zero out."""
    half = interval(differences)
    text = f'{fmean(differences):+.2f} ±{half:.2f}'
    return f'**{text}**' if abs(fmean(differences)) > half else text


def hits(record: Record, images: int) -> np.ndarray:
    """Return which test images each seed's model gets right, (seeds, images), bool."""
    packed = [list(bytes.fromhex(text)) for text in record['test']['hits'].values()]
    return np.unpackbits(np.array(packed, np.uint8), axis=1, count=images).astype(bool)


def interval_of_images(first: Sequence[Record], second: Sequence[Record], images: int) -> float:
    """Return half the width, in percent, of the 95 % interval of a difference of accuracies over draws of test images.

    The difference is the sum of the first records' accuracies less that of the second ones'. All were tested on the
    same images, so it is paired by image: a record's value for an image is the share of seeds that get it right.
    """
    one, other = (sum(hits(record, images).mean(0) for record in records) for records in (first, second))
    return float(196 * np.std(one - other, ddof=1) / math.sqrt(images))
