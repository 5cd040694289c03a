"""Methods side by side: validation accuracy by epoch at each one's best learning rate, and by learning rate."""
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .groups import add_legend, plot_spread, spread
from .picture import Picture, label_log_axis, styled


def draw_rates(curves: Mapping[str, Sequence[Mapping[int, float]]], rates: Mapping[str, Mapping[float, float]],
               chosen: Mapping[str, float]) -> Picture:
    """Draw a line a method; the second panel is left out where no method has two rates.

    Args:
        curves (Mapping): Method -> for each seed, epoch -> validation accuracy in percent at the chosen rate.
        rates (Mapping): Method -> learning rate -> last validation accuracy in percent, one seed.
        chosen (Mapping): Method -> learning rate of ``curves``.
    """
    several = any(len(values) > 1 for values in rates.values())
    rows: list[tuple] = []
    with styled():
        figure = Figure(figsize=(12 if several else 7, 4.2))
        left, *right = figure.subplots(1, 1 + several, squeeze=False)[0]
        for name, lines in curves.items():
            points = spread(lines, name)
            plot_spread(left, points, f'{name}, rate {chosen[name]:g}', len(lines))
            rows += [(name, chosen[name], epoch, *point, len(lines)) for epoch, point in points.items()]
        left.set(xlabel='epoch', ylabel='validation accuracy (%)', xlim=(0, None))
        left.xaxis.set_major_locator(MaxNLocator(integer=True))
        add_legend(figure, left)
        for axes in right:
            for name, values in rates.items():
                ordered = sorted(values)
                axes.plot(ordered, [values[rate] for rate in ordered], label=name)
                last = max(epoch for line in curves[name] for epoch in line)
                rows += [(name, rate, last, values[rate], values[rate], values[rate], 1) for rate in ordered]
            axes.set(xscale='log', xlabel='learning rate', ylabel='last validation accuracy (%)')
            label_log_axis(axes.xaxis)
    seeds = any(len(lines) > 1 for lines in curves.values())
    caption = 'Left: validation accuracy by epoch at the rate that was chosen by it'
    caption += '; the band goes from the lowest to the highest seed.' if seeds else ', one seed.'
    caption += ' Right: the last validation of each rate that was tried, one seed.' if several else ''
    return Picture('quickstart', 'Methods and learning rates', caption, figure,
                   ('method', 'rate', 'epoch', 'mean', 'lowest', 'highest', 'seeds'), rows)
