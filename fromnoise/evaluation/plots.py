"""Pictures: spectrograms on one scale, before and after, and quality against network calls.

A spectrogram is 20 log10 |STFT| (Hann, 32 ms every 8 ms), channels averaged in power, drawn from the loudest bin of all
pictures down to 80 dB below it, so that colours compare across pictures. matplotlib is imported on use and
without pyplot: no window, no global state.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from fromnoise.files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RANGE_DB = 80.0
STATES_DB = 75.0
GREY = "#808080"  # legible on white and on black
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MAX_COLUMNS = 1500


def spectrogram(wave: np.ndarray, sample_rate: int) -> Float[np.ndarray, "bins frames"]:
    """Level in dB of a wave `n` or `c n`; short waves are padded to one frame, NaN and infinity drawn as silence."""
    size = max(16, 2 ** round(np.log2(0.032 * sample_rate)))
    wave = np.nan_to_num(np.atleast_2d(wave).astype(np.float64), posinf=0.0, neginf=0.0)
    padded = np.pad(wave, ((0, 0), (size // 2, size // 2 + max(0, size - wave.shape[1]))))
    hop = max(size // 4, wave.shape[1] // MAX_COLUMNS)
    views = np.lib.stride_tricks.sliding_window_view(padded, size, axis=1)[:, ::hop]
    window = np.hanning(size + 1)[:-1]
    spectrum = np.fft.rfft(views * (window * 2 / window.sum()))  # a sine of full scale peaks at 0 dB
    return 10 * np.log10(np.maximum((np.abs(spectrum) ** 2).mean(0).T, 1e-12))


def spectrogram_figure(
    waves: Mapping[str, np.ndarray], sample_rate: int, top_db: float | None = None, width: float = 8.0
) -> "Figure":
    """One spectrogram under the other, a title each, all on one colour scale.

    waves: title -> wave `n` or `c n`, floats. top_db: level of the brightest colour, the loudest bin when None.
    width: inches.
    """
    from matplotlib.figure import Figure

    if not waves:
        raise ValueError("expected at least one wave to draw, got none")
    levels = {title: spectrogram(wave, sample_rate) for title, wave in waves.items()}
    top = max(float(level.max()) for level in levels.values()) if top_db is None else top_db
    figure = Figure(figsize=(width, 0.4 + 1.9 * len(levels)), layout="constrained", facecolor="none")
    axes = figure.subplots(len(levels), 1, sharex=True, squeeze=False)[:, 0]
    images = []
    for axis, (title, level) in zip(axes, levels.items(), strict=True):
        seconds = np.atleast_2d(waves[title]).shape[1] / sample_rate
        images.append(axis.imshow(
            level, origin="lower", aspect="auto", cmap="magma", vmin=top - RANGE_DB, vmax=top,
            extent=(0, max(seconds, 1e-3), 0, sample_rate / 2000), interpolation="nearest",
        ))  # fmt: skip
        axis.set_title(title, fontsize=9, color=GREY, parse_math=False)
        axis.set_ylabel("kHz", fontsize=8, color=GREY)
        axis.tick_params(labelsize=8, colors=GREY)
    axes[-1].set_xlabel("s", fontsize=8, color=GREY)
    bar = figure.colorbar(images[0], ax=axes, pad=0.01)
    bar.set_label("dB", fontsize=8, color=GREY)
    bar.ax.tick_params(labelsize=8, colors=GREY)
    return figure


def states_figure(rows: Sequence[Mapping[str, np.ndarray]], sample_rate: int, range_db: float = STATES_DB) -> "Figure":
    """Spectrograms side by side, one row a source, all on one colour scale: from noise to what should come out.

    rows: for each source the same titles -> wave `n`.
    """
    from matplotlib.figure import Figure

    if not rows or not rows[0]:
        raise ValueError("expected at least one wave to draw, got none")
    levels = [{title: spectrogram(wave, sample_rate) for title, wave in row.items()} for row in rows]
    top = max(float(level.max()) for row in levels for level in row.values())
    columns = len(rows[0])
    figure = Figure(figsize=(0.8 + 2.2 * columns, 0.5 + 1.6 * len(rows)), layout="constrained", facecolor="none")
    axes = figure.subplots(len(rows), columns, sharex=True, sharey=True, squeeze=False)
    images = []
    for line, row in zip(axes, levels, strict=True):
        for axis, (title, level) in zip(line, row.items(), strict=True):
            seconds = max(len(rows[0][title]) / sample_rate, 1e-3)
            images.append(axis.imshow(
                level - top, origin="lower", aspect="auto", cmap="magma", vmin=-range_db, vmax=0,
                extent=(0, seconds, 0, sample_rate / 2000), interpolation="nearest",
            ))  # fmt: skip
            axis.tick_params(labelsize=8, colors=GREY)
        line[0].set_ylabel("kHz", fontsize=8, color=GREY)
    for axis, title in zip(axes[0], rows[0], strict=True):
        axis.set_title(title, fontsize=9, color=GREY, parse_math=False)
    axes[-1][0].set_xlabel("s", fontsize=8, color=GREY)
    bar = figure.colorbar(images[0], ax=axes, pad=0.01)
    bar.set_label("dB", fontsize=8, color=GREY)
    bar.ax.tick_params(labelsize=8, colors=GREY)
    return figure


def thumbnail(wave: np.ndarray, sample_rate: int, top_db: float) -> "Figure":
    """The spectrogram of a wave `n` or `c n` alone, without axes, for a page of many."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.0, 1.2), facecolor="none")
    axis = figure.add_axes((0, 0, 1, 1))
    axis.imshow(
        spectrogram(wave, sample_rate), origin="lower", aspect="auto", cmap="magma", vmin=top_db - RANGE_DB, vmax=top_db
    )
    axis.set_axis_off()
    return figure


def png(figure: "Figure", dpi: int = 80, transparent: bool = True) -> bytes:
    """The figure as a PNG file, drawn by Agg."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="none" if transparent else "white")
    return buffer.getvalue()


def save_before_after(path: str | os.PathLike[str], noisy: np.ndarray, enhanced: np.ndarray, sample_rate: int) -> None:
    """Write a PNG with the spectrograms of a recording before and after, on one scale; the file appears whole."""
    figure = spectrogram_figure({"before": noisy, "after": enhanced}, sample_rate)
    write_whole(path, png(figure, dpi=110, transparent=False))


@dataclass(frozen=True)
class Point:
    """One row of a comparison in the plane: network calls, mean, and the interval of the mean (NaN: none drawn)."""

    calls: int
    mean: float
    low: float
    high: float


def calls_svg(title: str, curves: Mapping[str, Sequence[Point]], level: float | None = None) -> str:
    """Quality against network calls as inline SVG that takes its ink from the page (light or dark).

    curves: label -> points. level: the score of the untouched input, a dashed line. Calls are on a logarithmic axis.
    """
    kept = {name: [p for p in points if np.isfinite(p.mean)] for name, points in curves.items()}
    heights = [v for points in kept.values() for p in points for v in (p.mean, p.low, p.high)]
    heights = [v for v in [*heights, *([] if level is None else [level])] if np.isfinite(v)]
    calls = sorted({p.calls for points in kept.values() for p in points if p.calls > 0})
    if not heights or not calls:
        return ""
    frame = _Axes(calls[0], calls[-1], min(heights), max(heights))
    body = [frame.grid(calls), f'<text x="{frame.left}" y="16" class="name">{escape(title)}</text>']
    if level is not None and np.isfinite(level):
        y = frame.y(level)
        body.append(f'<path d="M{frame.left} {y:.1f}H{frame.right}" class="input"/>')
        body.append(f'<text x="{frame.right}" y="{y - 4:.1f}" text-anchor="end">input</text>')
    for k, (name, points) in enumerate(kept.items()):
        body.append(_curve(frame, escape(name), sorted(points, key=lambda p: p.calls), COLOURS[k % len(COLOURS)], k))
    height = frame.bottom + 44 + 18 * len(kept)
    label = escape(f"{title} against network calls")
    return f'<svg viewBox="0 0 460 {height}" role="img" aria-label="{label}">{"".join(body)}</svg>'


@dataclass(frozen=True)
class _Axes:
    """Calls (logarithmic) and scores to points of the picture."""

    first: int
    last: int
    lowest: float
    highest: float
    left: float = 52.0
    right: float = 445.0
    top: float = 28.0
    bottom: float = 220.0

    def x(self, calls: int) -> float:
        if self.first == self.last:
            return (self.left + self.right) / 2
        share = np.log(calls / self.first) / np.log(self.last / self.first)
        return float(self.left + 14 + share * (self.right - self.left - 28))

    def y(self, score: float) -> float:
        span = (self.highest - self.lowest) or 1.0
        return float(self.bottom - 10 - (score - self.lowest) / span * (self.bottom - self.top - 20))

    def grid(self, calls: Sequence[int]) -> str:
        lines = []
        for score in np.linspace(self.lowest, self.highest, 5 if self.highest > self.lowest else 1):
            y = self.y(score)
            lines.append(f'<path d="M{self.left} {y:.1f}H{self.right}" class="rule"/>')
            lines.append(f'<text x="{self.left - 6}" y="{y + 4:.1f}" text-anchor="end">{score:.3g}</text>')
        shown = calls if len(calls) <= 8 else [calls[i] for i in np.linspace(0, len(calls) - 1, 8).round().astype(int)]
        for n in shown:
            lines.append(f'<text x="{self.x(n):.1f}" y="{self.bottom + 16}" text-anchor="middle">{n}</text>')
        middle = (self.left + self.right) / 2
        lines.append(f'<text x="{middle}" y="{self.bottom + 34}" text-anchor="middle">network calls per file</text>')
        return "".join(lines)


def _curve(axes: _Axes, name: str, points: Sequence[Point], colour: str, index: int) -> str:
    """One polyline with its interval bars, and its line of the legend."""
    points = [p for p in points if p.calls > 0]
    shift = 2.5 * (index % 6 - 2.5)  # bars of curves that meet stay apart
    dash = ' stroke-dasharray="7 4"' if index >= len(COLOURS) else ""  # the colours begin again
    path = " ".join(f"{axes.x(p.calls) + shift:.1f},{axes.y(p.mean):.1f}" for p in points)
    marks = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>']
    for p in points:
        x = axes.x(p.calls) + shift
        if np.isfinite(p.low) and np.isfinite(p.high):
            marks.append(f'<path d="M{x:.1f} {axes.y(p.low):.1f}V{axes.y(p.high):.1f}" stroke="{colour}"/>')
        note = f"<title>{name}: {p.calls} calls, {p.mean:.4g}</title>"
        marks.append(f'<circle cx="{x:.1f}" cy="{axes.y(p.mean):.1f}" r="4" fill="{colour}">{note}</circle>')
    y = axes.bottom + 54 + 18 * index
    marks.append(f'<rect x="{axes.left}" y="{y - 10}" width="12" height="12" fill="{colour}"/>')
    marks.append(f'<text x="{axes.left + 18}" y="{y}">{name}</text>')
    return "".join(marks)
