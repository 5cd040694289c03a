"""Numbers of the study's records: accuracies, epochs, NMI, and how far they can be trusted."""
import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np
from scipy.stats import t as student

from study_plan import Cell

Records = Mapping[Cell, Mapping[str, Any]]
RATE = 'optim_wrapper.optimizer.lr'


def accuracies(record: Mapping[str, Any]) -> list[float]:
    """Test accuracies by seed, in percent."""
    return list(record['test']['by_seed'].values())


def best_rates(record: Mapping[str, Any], count: int = 3) -> float:
    """Mean of the last validation accuracies of the best settings: less a matter of luck than the best one's."""
    return fmean(sorted(trial['value'] for trial in record['trials'] if trial['value'] is not None)[-count:])


def epochs_to(curve: Mapping[str, float], level: float) -> int | None:
    """The first epoch whose validation accuracy is at least ``level``; None if there is none."""
    return next((epoch for epoch, value in sorted((int(key), value) for key, value in curve.items())
                 if value >= level), None)


def epochs_to_own(record: Mapping[str, Any]) -> list[int]:
    """Of each seed's curve, the first epoch with 95 % of the last one's validation accuracy."""
    found = (epochs_to(curve, 0.95 * final(curve)) for curve in record['curves'].values())
    return [epoch for epoch in found if epoch is not None]  # the last one itself, at the latest


def final(curve: Mapping[str, float]) -> float:
    """The last epoch's."""
    return curve[max(curve, key=int)]


def nmi_ends(record: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """1000 x NMI of each seed before the first step, and after the last."""
    series = [sorted((int(step), 1000 * value) for step, value in values.items()) for values in record['nmi'].values()]
    return [values[0][1] for values in series], [values[-1][1] for values in series]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean and sample standard deviation, as text."""
    text = f'{fmean(values):.{digits}f}'
    return f'{text} ± {stdev(values):.{digits}f}' if len(values) > 1 else text


def with_interval(differences: Sequence[float]) -> str:
    """Mean and 95 % interval."""
    return f'{fmean(differences):+.2f} ± {interval(differences):.2f}'


def interval(differences: Sequence[float]) -> float:
    """Half the width of the 95 % confidence interval of a mean, by Student's t."""
    return float(student.ppf(0.975, len(differences) - 1)) * stdev(differences) / math.sqrt(len(differences))


def hits(record: Mapping[str, Any], images: int) -> np.ndarray:
    """Which test images each seed's model gets right, (seeds, images), bool."""
    packed = [list(bytes.fromhex(text)) for text in record['test']['hits'].values()]
    return np.unpackbits(np.array(packed, np.uint8), axis=1, count=images).astype(bool)


def interval_of_images(more: Sequence[Mapping[str, Any]], less: Sequence[Mapping[str, Any]], images: int) -> float:
    """Half the width of the 95 % interval of a difference of accuracies over draws of test images, in percent: of the
    sum of some records' less the sum of others'.

    All were tested on the same ones: per image, the difference of the shares of seeds that get it right."""
    first, second = (sum(hits(record, images).mean(0) for record in records) for records in (more, less))
    return float(196 * np.std(first - second, ddof=1) / math.sqrt(images))
