"""Pictures of `collapse`: the curves over t, and the eight panels of one item.

The panels are DR-DiffuSE's (Tai et al., AAAI 2023): the start of sampling, condition, generated and label, real parts
above imaginary ones, or, for other front ends, magnitudes alone. Each row has one colour scale, taken from its label;
the start has its own.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from fromnoise.evaluation.collapse import Report, Subject
from fromnoise.evaluation.plots import COLOURS, GREY, spectrogram
from fromnoise.frontends import STFT, Frontend

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {
    "gain": "gain: 0 means C does not help",
    "move": "response, in units of the error",
    "share": "share of C in the response to small changes",
    "loss": "error of the noise: 1 means none is predicted",
}
Image = Float[np.ndarray, "bins frames"]


def curves_figure(reports: Sequence[Report]) -> "Figure":
    """Gain, response, share and loss over t, a colour for each model, with 95 % intervals as bands."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = dict(zip(TITLES, figure.subplots(2, 2).flat, strict=True))
    for k, report in enumerate(reports):
        colour, name = COLOURS[k % len(COLOURS)], report.model
        rows = report.rows()
        _line(axes["gain"], rows, "gain", colour, name)
        _line(axes["gain"], rows, "total", colour, f"{name}, state and all", "--")
        _line(axes["move"], rows, "swap", colour, f"{name}, swapped")
        _line(axes["move"], rows, "silence", colour, f"{name}, silenced", "--")
        _line(axes["share"], rows, "share", colour, name)
        _line(axes["loss"], rows, "loss_true", colour, f"{name}, true")
        _line(axes["loss"], rows, "loss_swapped", colour, f"{name}, swapped", "--")
    for name, axis in axes.items():
        axis.set_title(TITLES[name], fontsize=10)
        axis.set_xlabel("t, from data to noise", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(color=GREY, alpha=0.25)
        axis.set_xlim(-0.03, 1.03)
        if not axis.lines:
            axis.text(0.5, 0.5, "nothing to show: no noise", ha="center", transform=axis.transAxes, color=GREY)
            continue
        axis.legend(fontsize=7)
        if name in ("move", "loss"):
            axis.set_yscale("log")
    axes["gain"].axhline(0, color=GREY, linewidth=1)
    return figure


def _line(axis: "Axes", rows: Sequence[dict[str, float]], name: str, colour: str, label: str, style: str = "-") -> None:
    """One curve and its band, where there are finite points."""
    t, value, low, high = (np.array([row[key] for row in rows]) for key in ("t", name, f"{name}_low", f"{name}_high"))
    if name not in ("gain", "total", "share"):  # the others stand on logarithmic axes
        value, low, high = (np.where(x > 0, x, np.nan) for x in (value, low, high))
    if np.isfinite(value).any():
        axis.plot(t, value, style, marker="o", markersize=3, color=colour, label=label)
        axis.vlines(t, low, high, color=colour, alpha=0.3)
        axis.fill_between(t, low, high, color=colour, alpha=0.15, linewidth=0)


def panels_figure(subject: Subject, frontend: Frontend, start: Tensor, generated: Tensor, item: int = 0) -> "Figure":
    """Start, condition, generated, label of one item; a condition in words stands above.

    start, generated: states of that item, `*d`.
    """
    from matplotlib.figure import Figure

    condition = subject.shown.get("condition")
    label = subject.shown.get("label", subject.clean)[item]
    columns: dict[str, list[Image]] = {"start": images(start, frontend)}
    if condition is not None:
        columns[f"condition: {subject.what}"] = images(condition[item], frontend)
    columns |= {"generated": images(generated, frontend), "label": images(label, frontend)}
    height = max(len(parts) for parts in columns.values())
    figure = Figure(figsize=(3 * len(columns), 0.6 + 2.3 * height), layout="constrained")
    axes = figure.subplots(height, len(columns), squeeze=False)
    names = ["real", "imaginary"] if isinstance(frontend, STFT) else [""] * height
    for j, (title, parts) in enumerate(columns.items()):
        axes[0][j].set_title(title, fontsize=9)
        for i in range(height):
            if i >= len(parts):
                axes[i][j].set_axis_off()
                continue
            own = title.startswith("start") or parts[i].shape != columns["label"][min(i, height - 1)].shape
            low, high = _range(parts[i] if own else columns["label"][i])
            axes[i][j].imshow(parts[i], origin="lower", aspect="auto", cmap="magma", vmin=low, vmax=high)
            axes[i][j].tick_params(labelsize=7)
            axes[i][0].set_ylabel(names[i] if i < len(names) else "", fontsize=9)
    word = f", condition: {subject.words[item]}" if subject.words else ""
    figure.suptitle(subject.names[item] + word, fontsize=10)
    return figure


def _range(image: Image) -> tuple[float, float]:
    """Colours from the first to the last percent."""
    low, high = np.percentile(image, [1, 99])
    return float(low), float(max(high, low + 1e-9))


def images(x: Tensor, frontend: Frontend) -> list[Image]:
    """A state `c f t` or waves `c n` as at most two images; waves as levels in dB."""
    plain = x.detach().float().cpu().numpy()[:2]
    return list(plain) if plain.ndim == 3 else [spectrogram(row, frontend.sample_rate) for row in plain]
