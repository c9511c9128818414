"""The report of an evaluation: results.csv (per file), summary.csv, summary.json, and report.html to read and hear.

Every number comes with its definition, the version of the package that made it, the sample rate, the fingerprint of the
files, the seed and the settings. A mean is over the files that have a number, with a 95 % bootstrap interval; the files
that have none are counted and their reasons kept. The change from the input is paired over files.
"""

import csv
import io
import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from fromnoise.evaluation.files import write_whole
from fromnoise.evaluation.speech import METRICS, Scores
from fromnoise.evaluation.statistics import RESAMPLES, Summary, paired_difference, summarise

PACKAGES = ("fromnoise", "torch", "numpy", "scipy", "soxr", "pesq", "pystoi", "onnxruntime", "speechmos")
FILES = ("results.csv", "summary.csv", "summary.json", "report.html")


@dataclass(frozen=True)
class Row:
    """One model with one sampler and number of steps (None: its own choice), its cost, and its scores file by file.

    network_calls: per file. real_time_factor: seconds of work per second of sound. files and scores: in one order.
    """

    model: str
    sampler: str | None
    steps: int | None
    network_calls: int
    real_time_factor: float
    files: tuple[str, ...]
    scores: tuple[Scores, ...]

    @property
    def label(self) -> str:
        """What the report calls the row."""
        steps = None if self.steps is None else f"{self.steps} step{'s' if self.steps != 1 else ''}"
        return ", ".join(part for part in (self.model, self.sampler, steps) if part)

    def column(self, metric: str) -> list[float]:
        """The metric file by file, NaN where there is none."""
        return [scores.values.get(metric, math.nan) for scores in self.scores]

    def reasons(self, metric: str) -> dict[str, int]:
        """Why files have no number, and how many for each reason."""
        return dict(Counter(s.reasons[metric] for s in self.scores if metric in s.reasons).most_common())


@dataclass(frozen=True)
class Example:
    """One file to listen to: waves `c n`, the estimates by the label of their row."""

    name: str
    sample_rate: int
    noisy: np.ndarray
    clean: np.ndarray
    estimates: dict[str, np.ndarray]


@dataclass(frozen=True)
class Meta:
    """What was done: metrics in order, rates of the files in Hz, their fingerprint, seed, settings, files left out."""

    metrics: tuple[str, ...]
    sample_rates: tuple[int, ...]
    file_list_sha256: str
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One metric of one row: summary, change from the first row (None there), and why files are missing."""

    summary: Summary
    change: Summary | None
    reasons: dict[str, int]


def cells(rows: Sequence[Row], metrics: Sequence[str], seed: int) -> list[dict[str, Cell]]:
    """The table: one mapping metric -> Cell for each row. The first row is what the others are compared with."""
    table = []
    for r, row in enumerate(rows):
        if row.files != rows[0].files or len(row.scores) != len(row.files):
            raise ValueError(f"expected every row to score the files of {rows[0].label!r}, {row.label!r} scores others")
        line = {}
        for name in metrics:
            column = row.column(name)
            change = paired_difference(column, rows[0].column(name), seed) if r else None
            line[name] = Cell(summarise(column, seed), change, row.reasons(name))
        table.append(line)
    return table


def write_report(folder: str | os.PathLike[str], rows: Sequence[Row], examples: Sequence[Example], meta: Meta) -> Path:
    """Write results.csv, summary.csv, summary.json and report.html; returns the path of the page.

    Each file appears whole or not at all; files of an earlier report in the folder are replaced.
    """
    from fromnoise.evaluation.page import page

    if not rows:
        raise ValueError("expected at least one row to report, got none")
    target = Path(folder)
    table = cells(rows, meta.metrics, meta.seed)
    summary = summary_json(rows, table, meta)
    write_whole(target / "results.csv", results_csv(rows, meta.metrics).encode())
    write_whole(target / "summary.csv", summary_csv(rows, table, meta.metrics).encode())
    write_whole(target / "summary.json", (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode())
    write_whole(target / "report.html", page(rows, table, examples, summary).encode())
    return target / "report.html"


def results_csv(rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """One line per row and file; an empty cell where there is no number, and why in the last column."""
    lines: list[list[Any]] = [["model", "sampler", "steps", "file", *metrics, "reasons"]]
    for row in rows:
        for name, scores in zip(row.files, row.scores, strict=True):
            why = "; ".join(f"{metric}: {scores.reasons[metric]}" for metric in metrics if metric in scores.reasons)
            numbers = [_plain(scores.values.get(metric, math.nan)) for metric in metrics]
            lines.append([row.model, row.sampler, row.steps, name, *numbers, why])
    return _csv(lines)


def summary_csv(rows: Sequence[Row], table: Sequence[Mapping[str, Cell]], metrics: Sequence[str]) -> str:
    """One line per row: cost, then mean, interval, deviation and missing files of each metric."""
    parts = ("mean", "low", "high", "deviation", "missing")
    head = ["model", "sampler", "steps", "network_calls", "real_time_factor", "files"]
    lines: list[list[Any]] = [head + [f"{metric}_{part}" for metric in metrics for part in parts]]
    for row, line in zip(rows, table, strict=True):
        cost = [row.network_calls, _plain(row.real_time_factor), len(row.files)]
        numbers = [_plain(getattr(line[metric].summary, part)) for metric in metrics for part in parts]
        lines.append([row.model, row.sampler, row.steps, *cost, *numbers])
    return _csv(lines)


def summary_json(rows: Sequence[Row], table: Sequence[Mapping[str, Cell]], meta: Meta) -> dict[str, Any]:
    """Everything needed to say what the numbers are; NaN becomes null."""
    chosen = [METRICS[name] for name in meta.metrics]
    summary = {
        "packages": versions(),
        "seed": meta.seed,
        "sample_rates_hz": list(meta.sample_rates),
        "files": len(rows[0].files),
        "file_list_sha256": meta.file_list_sha256,
        "skipped": list(meta.skipped),
        "settings": meta.settings,
        "interval": f"95 % percentile bootstrap of the mean over files, {RESAMPLES} resamples",
        "metrics": {
            m.name: {"definition": m.definition, "unit": m.unit, "higher_is_better": m.higher_is_better}
            | {"computed_at_hz": list(m.rates) or "the file's rate", "package": m.package}
            for m in chosen
        },
        "rows": [
            {"label": row.label, "model": row.model, "sampler": row.sampler, "steps": row.steps}
            | {"network_calls": row.network_calls, "real_time_factor": row.real_time_factor}
            | {
                "scores": {
                    name: asdict(cell.summary)
                    | {"change_from_input": None if cell.change is None else asdict(cell.change)}
                    | {"reasons": cell.reasons}
                    for name, cell in line.items()
                }
            }
            for row, line in zip(rows, table, strict=True)
        ],
    }
    return _jsonable(summary)


def versions() -> dict[str, str | None]:
    """Version of each package that touches a number, None where it is not installed."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    if found["fromnoise"] is None:  # run from a checkout
        from fromnoise import __version__

        found["fromnoise"] = __version__
    return found


def _plain(value: float | int) -> float | int | str:
    """A number for a table, nothing where there is none."""
    return value if math.isfinite(value) else ""


def _csv(lines: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _jsonable(value: Any) -> Any:
    """The value with NaN and infinity as None, tuples as lists, and anything unknown as its text."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_jsonable(item) for item in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)
