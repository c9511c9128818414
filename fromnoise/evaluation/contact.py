"""A contact sheet: many short sounds on one page as spectrograms, a row for each group, all on one colour scale."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fromnoise.evaluation.plots import GREY, RANGE_DB, spectrogram

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_ROWS = 40


def contact_sheet(groups: Mapping[str, Sequence[np.ndarray]], sample_rate: int, width: float = 10.0) -> "Figure":
    """groups: title of a row -> waves `n`, floats; the first MAX_ROWS rows are drawn. width: inches."""
    from matplotlib.figure import Figure

    rows = {title: [spectrogram(w, sample_rate) for w in waves] for title, waves in list(groups.items())[:MAX_ROWS]}
    columns = max((len(levels) for levels in rows.values()), default=0)
    if columns == 0:
        raise ValueError("expected at least one sound to draw, got none")
    top = max(float(level.max()) for levels in rows.values() for level in levels)
    figure = Figure(figsize=(width, 0.3 + 0.9 * width / 8 * len(rows)), layout="constrained", facecolor="none")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row, (title, levels) in zip(axes, rows.items(), strict=True):
        for axis, level in zip(row, levels, strict=False):
            axis.imshow(level, origin="lower", aspect="auto", cmap="magma", vmin=top - RANGE_DB, vmax=top)
        for axis in row:
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_frame_on(False)
        row[0].set_ylabel(title, fontsize=9, color=GREY, parse_math=False)
    return figure
