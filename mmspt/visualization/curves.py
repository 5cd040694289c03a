"""Curves of finished or running trainings, from the scalars that MMEngine's LocalVisBackend writes."""
import json
import os
import os.path as osp
from collections.abc import Iterator, Mapping
from glob import escape, glob

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind readers can tell apart, and a marker each
STYLES = (('#0072B2', 'o'), ('#D55E00', 's'), ('#009E73', '^'), ('#CC79A7', 'D'), ('#E69F00', 'v'), ('#56B4E9', 'P'))


def read_scalars(work_dir: str, key: str) -> dict[int, float]:
    """Read one validated quantity of a run.

    Args:
        work_dir (str): Work directory of a run; a resumed run's parts are joined, the later one counts.
        key (str): Name as logged, such as 'accuracy/top1'.

    Returns:
        dict[int, float]: Epoch -> value, in the order of epochs; empty before the first validation.
    """
    values = {int(record['step']): float(record[key]) for record in _records(work_dir) if key in record}
    return dict(sorted(values.items()))


def read_epoch(work_dir: str) -> int:
    """Read the last epoch that a run's log knows of; 0 before the first record."""
    return max((int(record['epoch']) for record in _records(work_dir) if 'epoch' in record), default=0)


def _records(work_dir: str) -> Iterator[dict]:
    for path in sorted(glob(osp.join(escape(work_dir), '*', 'vis_data', 'scalars.json'))):
        with open(path, encoding='utf-8') as file:
            for line in file:
                if line.endswith('\n'):  # else it is still being written
                    yield json.loads(line)


def plot_accuracy(runs: Mapping[str, Mapping[int, float]], path: str, title: str) -> None:
    """Draw validation accuracy over epochs, a line for each run, into a PNG.

    Args:
        runs (Mapping[str, Mapping[int, float]]): Name of a run -> epoch -> accuracy in percent.
        path (str): File to write, beside and renamed.
        title (str): What is compared.
    """
    figure = Figure(figsize=(7, 4.2), dpi=120, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for (name, values), (colour, marker) in zip(runs.items(), STYLES, strict=False):
        axes.plot(list(values), list(values.values()), color=colour, marker=marker, markersize=5, linewidth=2,
                  label=name)
    axes.set_xlabel('epoch')
    axes.set_ylabel('validation accuracy (%)')
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False, loc='lower right')
    figure.savefig(f'{path}.tmp', format='png')
    os.replace(f'{path}.tmp', path)
