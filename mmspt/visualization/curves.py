"""Accuracy and loss while runs train."""
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import mean

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmspt.evaluation import METRIC, read_records, read_scalars

from .groups import add_legend, group_runs, name_cut, plot_spread, read_all, spread
from .picture import Picture, styled
from .run_folder import RunFolder

QUANTITIES = {'accuracy': 'validation accuracy (%)', 'loss': 'training loss (nats)'}


def counts_epochs(run: RunFolder) -> bool:
    """Return whether a run counts in epochs, not in iterations."""
    return (run.config.get('train_cfg') or {}).get('max_epochs') is not None


def read_loss(run: RunFolder) -> dict[int, float]:
    """Return epoch -> mean of the losses logged in it, or iteration -> loss; ValueError if there are none."""
    unit = 'epoch' if counts_epochs(run) else 'iter'
    logged: dict[int, list[float]] = defaultdict(list)
    for record in read_records(run.folder):
        if {'loss', unit} <= record.keys():
            logged[int(record[unit])].append(float(record['loss']))
    if not logged:
        raise ValueError(f"curves need a logged loss, but '{run.folder}' has none in */vis_data/scalars.json: wait for "
                         f'its first, or train it again in another folder: {run.command_to_retrain("again")}')
    return {moment: mean(logged[moment]) for moment in sorted(logged)}


def draw_curves(runs: Sequence[RunFolder]) -> Picture:
    """Draw validation accuracy, where there is one, and training loss: a line a setting, a band over its seeds.

    Raises:
        ValueError: No run with a logged loss, seeds without common moments, or runs of which some count epochs and
            others iterations.
    """
    losses, left_out = read_all(runs, read_loss)
    if len({counts_epochs(run) for run in losses}) > 1:
        raise ValueError('curves need runs that all count epochs or all iterations (train_cfg.max_epochs or '
                         'max_iters): draw them apart')
    unit = 'epoch' if counts_epochs(next(iter(losses))) else 'iteration'
    groups = group_runs(list(losses))
    curves: dict[str, dict[str, list[Mapping[int, float]]]] = dict(
        accuracy={name: list(filter(None, (read_scalars(run.folder, METRIC) for run in members)))
                  for name, members in groups.items()},
        loss={name: [losses[run] for run in members] for name, members in groups.items()})
    shown = [quantity for quantity in QUANTITIES if any(curves[quantity].values())]
    rows, cut = [], ''
    with styled():
        figure = Figure(figsize=(6 * len(shown), 4.2))
        for axes, quantity in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            for name, lines in curves[quantity].items():
                points = spread(lines, name) if lines else {}
                plot_spread(axes, points, name, len(groups[name]))
                rows += [(name, QUANTITIES[quantity], x, *point, len(lines)) for x, point in points.items()]
                cut += name_cut(lines, name, unit) if quantity == 'loss' else ''
            axes.set(xlabel=unit, ylabel=QUANTITIES[quantity], xlim=(0, None))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        add_legend(figure, axes)
    silent = [name for name, lines in curves['accuracy'].items() if len(lines) < len(groups[name])]
    means = 'mean of what was logged in the epoch' if unit == 'epoch' else 'as logged'
    caption = f'Lines are means over seeds, bands go from the lowest to the highest seed; loss: {means}.{cut}'
    if silent:
        caption += f' Without validation in some or all seeds: {"; ".join(silent)}.'
    return Picture('curves', 'Accuracy and loss', caption + left_out, figure,
                   ('setting', 'quantity', unit, 'mean', 'lowest', 'highest', 'seeds'), rows)
