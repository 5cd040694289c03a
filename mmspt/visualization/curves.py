"""Accuracy and loss while runs train."""
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import mean

from matplotlib.figure import Figure

from mmspt.evaluation import METRIC, read_records, read_scalars

from .groups import count_seeds, group_runs, plot_spread, spread
from .picture import Picture, styled
from .run_folder import RunFolder

QUANTITIES = {'accuracy': 'validation accuracy (%)', 'loss': 'training loss (nats)'}


def counts_epochs(run: RunFolder) -> bool:
    """Whether a run counts in epochs rather than iterations."""
    return (run.config.get('train_cfg') or {}).get('max_epochs') is not None


def read_loss(run: RunFolder) -> dict[int, float]:
    """Epoch -> mean of the losses logged in it (each a mean over the iterations before); or iteration -> loss."""
    logged = {int(record['iter']): record for record in read_records(run.folder) if {'loss', 'iter'} <= record.keys()}
    if not counts_epochs(run):
        return {iteration: float(record['loss']) for iteration, record in sorted(logged.items())}
    epochs: dict[int, list[float]] = defaultdict(list)
    for record in logged.values():
        epochs[int(record['epoch'])].append(float(record['loss']))
    return {epoch: mean(epochs[epoch]) for epoch in sorted(epochs)}


def draw_curves(runs: Sequence[RunFolder]) -> Picture:
    """Draw validation accuracy, where there is one, and training loss: a line a setting, a band over its seeds.

    Args:
        runs (Sequence[RunFolder]): One or more.

    Raises:
        ValueError: A run without a logged loss, or runs of which some count epochs and others iterations.
    """
    if len({counts_epochs(run) for run in runs}) > 1:
        raise ValueError('curves need runs that all count epochs or all iterations (train_cfg.max_epochs or '
                         'max_iters): draw them apart')
    unit = 'epoch' if counts_epochs(runs[0]) else 'iteration'
    curves: dict[str, dict[str, list[Mapping[int, float]]]] = {name: {} for name in QUANTITIES}
    groups = group_runs(runs)
    for name, members in groups.items():
        for run in members:
            loss = read_loss(run)
            if not loss:
                raise ValueError(f"curves need a logged loss, but '{run.folder}' has none in */vis_data/scalars.json: "
                                 f'{run.train_command}')
            curves['loss'].setdefault(name, []).append(loss)
            accuracy = read_scalars(run.folder, METRIC)
            if accuracy:
                curves['accuracy'].setdefault(name, []).append(accuracy)
    shown = [quantity for quantity in QUANTITIES if curves[quantity]]
    rows = []
    with styled():
        figure = Figure(figsize=(6 * len(shown), 4.2))
        for axes, quantity in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            for name, members in groups.items():
                points = spread(curves[quantity][name]) if name in curves[quantity] else {}
                plot_spread(axes, points, count_seeds(name, members))
                rows += [(name, QUANTITIES[quantity], x, *point, len(curves[quantity][name]))
                         for x, point in points.items()]
            axes.set(xlabel=unit, ylabel=QUANTITIES[quantity], xlim=(0, None))
        axes.legend()
    silent = sorted(set(groups) - set(curves['accuracy']))
    caption = f'Lines are means over seeds, bands go from the lowest to the highest seed; loss: mean of the {unit}.'
    if silent:
        caption += f' Without validation, so without accuracy: {"; ".join(silent)}.'
    return Picture('curves', 'Accuracy and loss', caption, figure,
                   ('setting', 'quantity', unit, 'mean', 'lowest', 'highest', 'seeds'), rows)
