"""A figure with its numbers, in the style of ``mmspt.mplstyle``, as files."""
import csv
import io
import os.path as osp
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import matplotlib.style
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from mmspt.files import write_bytes, write_text

STYLE = osp.join(osp.dirname(__file__), 'mmspt.mplstyle')
# no date, so that a picture drawn twice is the same file
METADATA: dict[str, dict[str, Any]] = dict(png={}, svg=dict(Date=None))


def styled() -> AbstractContextManager:
    """Return a context with the style of ``mmspt.mplstyle``, to make figures in."""
    return matplotlib.style.context(['default', STYLE])


def label_log_axis(axis: Axis) -> None:
    """Put plain numbers on a logarithmic axis with all its lines: three for each power of ten where there are few."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1, )))
    axis.set_major_formatter(FuncFormatter(lambda value, place: f'{value:g}'))
    axis.set_minor_locator(NullLocator())


@dataclass(frozen=True)
class Picture:
    """A figure, what it shows, and its numbers."""
    name: str  # of the files, without ending; may hold folders
    title: str  # heading on a page
    caption: str  # how to read it: axes, units, what was measured on what
    figure: Figure
    header: Sequence[str]  # columns of the numbers, with units
    rows: Sequence[Sequence[Any]]  # the numbers

    def __post_init__(self) -> None:
        """Lay the figure out once: each drawing moves things a little, and SVG and PNG would differ."""
        with styled():
            self.figure.draw_without_rendering()
        self.figure.set_layout_engine('none')

    @property
    def csv(self) -> str:
        """The numbers as CSV."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator='\n')
        writer.writerow(self.header)
        writer.writerows([f'{value:.7g}' if isinstance(value, float) else value for value in row] for row in self.rows)
        return text.getvalue()

    def render(self, kind: str) -> bytes:
        """The figure as a 'png' or 'svg' file."""
        content = io.BytesIO()
        with styled():
            self.figure.savefig(content, format=kind, metadata=METADATA[kind])
        return content.getvalue()


def save_picture(picture: Picture, folder: str) -> list[str]:
    """Write PNG, SVG and CSV into a folder, made if it is missing, each atomically; return their paths."""
    stem = osp.join(folder, picture.name)
    for kind in METADATA:
        write_bytes(f'{stem}.{kind}', picture.render(kind))
    write_text(f'{stem}.csv', picture.csv)
    return [f'{stem}.{kind}' for kind in (*METADATA, 'csv')]
