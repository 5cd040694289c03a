"""A picture with the numbers behind it, in the house's style, as files."""
import csv
import io
import os
import os.path as osp
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import matplotlib.style
from matplotlib.figure import Figure

from mmspt.files import write_text

STYLE = osp.join(osp.dirname(__file__), 'mmspt.mplstyle')
# no date, so that a picture drawn twice is the same file
METADATA: dict[str, dict[str, Any]] = dict(png={}, svg=dict(Date=None))


def styled() -> AbstractContextManager:
    """The house's style inside; figures are made in it, and saved by :func:`save_picture`, which is in it too."""
    return matplotlib.style.context(['default', STYLE])


@dataclass(frozen=True)
class Picture:
    """A figure, what it shows, and its numbers."""
    name: str
    """Of the files, without ending; may hold folders."""
    title: str
    """What is shown, for a page's heading."""
    caption: str
    """How to read it: axes, units, what was measured on what."""
    figure: Figure
    header: Sequence[str]
    """Columns of the numbers, with units."""
    rows: Sequence[Sequence[Any]]
    """The numbers."""

    def __post_init__(self) -> None:
        """Lay the figure out once: each drawing would move things a little, and SVG and PNG would differ."""
        with styled():
            self.figure.draw_without_rendering()
        self.figure.set_layout_engine('none')

    @property
    def csv(self) -> str:
        """The numbers as CSV."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator='\n')
        writer.writerow(self.header)
        writer.writerows([_short(value) for value in row] for row in self.rows)
        return text.getvalue()

    def render(self, kind: str) -> bytes:
        """The figure as a 'png' or 'svg' file."""
        content = io.BytesIO()
        with styled():
            self.figure.savefig(content, format=kind, metadata=METADATA[kind])
        return content.getvalue()


def save_picture(picture: Picture, folder: str) -> list[str]:
    """Write PNG, SVG and CSV into a folder, which is made if need be, each beside and renamed; return their paths."""
    stem = osp.join(folder, picture.name)
    os.makedirs(osp.dirname(stem) or '.', exist_ok=True)
    for kind in METADATA:
        content = picture.render(kind)
        with open(f'{stem}.{kind}.tmp', 'wb') as file:
            file.write(content)
        os.replace(f'{stem}.{kind}.tmp', f'{stem}.{kind}')
    write_text(f'{stem}.csv', picture.csv)
    return [f'{stem}.{kind}' for kind in (*METADATA, 'csv')]


def _short(value: Any) -> Any:
    return f'{value:.7g}' if isinstance(value, float) else value
