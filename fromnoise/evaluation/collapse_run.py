"""Diagnose a model on data: the numbers of `collapse`, the scores of what was heard, and a folder with all of it.

collapse.json   everything      collapse.csv   one row for each time      items.csv   one row for each item
collapse.png    the curves      panels.png     start noise, condition, generated, label of one item
"""

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fromnoise.evaluation.collapse import (
    PARTS,
    Estimate,
    Report,
    Samples,
    Subject,
    estimate,
    measure_curve,
    measure_samples,
    times_between,
)
from fromnoise.evaluation.collapse_plots import curves_figure, panels_figure
from fromnoise.evaluation.collapse_subjects import subject_of
from fromnoise.evaluation.collapse_words import IMPROVEMENT, plain
from fromnoise.evaluation.plots import png
from fromnoise.evaluation.run import item_seed
from fromnoise.evaluation.speech import measure
from fromnoise.files import write_whole
from fromnoise.samplers import PositionNoise
from fromnoise.tasks.base import Run
from fromnoise.types import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS = ("pesq_wb", "estoi", "si_sdr")
Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Diagnosis:
    """A report, and what its pictures show."""

    report: Report
    subject: Subject
    panels: "Figure | None"


def diagnose(
    public: Any,
    data: str,
    *,
    split: str = "test",
    limit: int = 24,
    seconds: float = 4.0,
    bins: int | None = 10,
    seeds: int = 2,
    steps: int | None = None,
    sampler: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Diagnosis:
    """Everything about one model.

    limit, seconds: items, and how long they are at most. bins: times between data and noise; None for those that the
    model's own run visits, as always where that is one only. seeds: samples of each item, 0 to measure the estimates
    alone. Raises InputError for a model or data that cannot be diagnosed.
    """
    if (bins is not None and bins < 1) or seeds < 0:
        raise InputError(f"expected at least one time and no negative number of seeds, got {bins} and {seeds}")
    with torch.inference_mode():
        subject, run = subject_of(public, data, split, limit, seconds, steps, sampler)
        visited = run.grid.times(subject.process, run.num_steps)[:-1].tolist()
        times = visited if bins is None or len(visited) == 1 else times_between(subject.process, bins)
        told = _Told(len(subject.names) * (1 + seeds), progress)
        curve = measure_curve(subject, sorted(times), seed, told.tell)
        samples = measure_samples(subject, seeds, seed, told.tell) if seeds else None
        scores = _scores(subject, samples, seed) if public.task == "enhance" else {}
        report = Report(public.name, subject.what, subject.names, seed, curve, samples, scores)
        panels = None if samples is None else _panels(public, subject, samples, run, seed)
    return Diagnosis(report, subject, panels)


class _Told:
    """Counts items for the progress bar."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def tell(self, done: int) -> None:
        """So many more."""
        self.done += done
        if self.progress is not None:
            self.progress(self.done, self.total)


def _scores(subject: Subject, samples: Samples | None, seed: int) -> dict[str, dict[str, Estimate]]:
    """Means of METRICS over items, for the noisy input, the condition alone, the sample, and what it has more than the
    condition; what is missing is left out."""
    heard = {"noisy": subject.waves["noisy"], "condition": subject.waves["condition"]}
    if subject.waves["condition"] is subject.waves["noisy"]:
        del heard["condition"]
    heard |= {} if samples is None else {"sample": samples.waves}
    clean = subject.waves["label"].cpu().numpy()
    found = {}
    for name, waves in heard.items():
        pairs = zip(clean, waves.cpu().numpy(), strict=True)
        lines = [measure(a, b, subject.sample_rate, METRICS).values for a, b in pairs]
        found[name] = {metric: np.array([line[metric] for line in lines]) for metric in METRICS}
    if samples is not None:
        baseline = found.get("condition", found["noisy"])
        found[IMPROVEMENT] = {metric: found["sample"][metric] - baseline[metric] for metric in METRICS}
    means = {name: {metric: _mean(values, seed) for metric, values in line.items()} for name, line in found.items()}
    return {
        name: {metric: mean for metric, mean in line.items() if math.isfinite(mean.value)}
        for name, line in means.items()
    }


def _mean(values: np.ndarray, seed: int) -> Estimate:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return Estimate(math.nan, math.nan, math.nan)
    return estimate(finite[:, None], lambda means: means[..., 0], seed)


def _panels(public: Any, subject: Subject, samples: Samples, run: Run, seed: int) -> "Figure":
    """The picture of the first item."""
    y = None if subject.observation is None else subject.observation[:1]
    noise = PositionNoise([item_seed(seed, subject.names[0])])
    process = subject.process.for_run(run.grid.times(subject.process, run.num_steps))
    start = process.prior(y, noise(subject.clean[:1]))
    return panels_figure(subject, public.model.frontend, start[0], samples.states[0])


def write_diagnosis(folder: Path, found: Sequence[Diagnosis]) -> Path:
    """The files of the module's head; one folder for several models, whose curves share a picture."""
    reports = [one.report for one in found]
    write_whole(folder / "collapse.png", png(curves_figure(reports), dpi=110, transparent=False))
    content = [plain(report) for report in reports]
    text = json.dumps(_finite(content if len(content) > 1 else content[0]), indent=2, allow_nan=False)
    write_whole(folder / "collapse.json", text.encode())
    rows = [{"model": report.model} | row for report in reports for row in report.rows()]
    write_whole(folder / "collapse.csv", _table(rows))
    items = [row for report in reports for row in _items(report)]
    if items:
        write_whole(folder / "items.csv", _table(items))
    for k, one in enumerate(found):
        if one.panels is not None:
            name = "panels.png" if len(found) == 1 else f"panels_{k + 1}.png"
            write_whole(folder / name, png(one.panels, dpi=110, transparent=False))
    return folder


def _items(report: Report) -> list[dict[str, Any]]:
    """What was measured on each item's samples."""
    if report.samples is None:
        return []
    lines = zip(report.items, report.samples.values.tolist(), strict=True)
    return [{"model": report.model, "item": name} | dict(zip(PARTS, line, strict=True)) for name, line in lines]


def _table(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: "" if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()})
    return text.getvalue().encode()


def _finite(value: Any) -> Any:
    """The value with NaN and infinity as None."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
