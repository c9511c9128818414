"""The report of an evaluation: results.csv (per file), summary.csv, summary.json, and report.html to read and hear.

Every number comes with its definition, the version of the package that made it, the sample rate, the fingerprint of the
files, the seed and the settings. A mean is over the files that have a number, with a 95 % bootstrap interval; the files
that have none are counted and their reasons kept. The change from the first row is paired over files. Rows of generated
sounds hold files of their own, and scores of the set as a whole.
"""

import csv
import io
import json
import math
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from fromnoise.evaluation.distances import SOUND_METRICS
from fromnoise.evaluation.files import write_whole
from fromnoise.evaluation.generation import SET_METRICS, SetMetric
from fromnoise.evaluation.sources import SOURCE_METRICS, SourceMetric
from fromnoise.evaluation.speech import METRICS, Metric, Scores
from fromnoise.evaluation.statistics import RESAMPLES, Summary, paired_difference, summarise

PACKAGES = ("fromnoise", "torch", "numpy", "scipy", "soxr", "pesq", "pystoi", "onnxruntime", "speechmos")
FILES = ("results.csv", "summary.csv", "summary.json", "report.html")


@dataclass(frozen=True)
class Row:
    """One model with one sampler and number of steps (None: its own choice), its cost, and its scores file by file.

    network_calls: per file. real_time_factor: seconds of work per second of sound. files and scores: in one order.
    variant: what else sets the row apart. whole: scores of the set of files; reasons_whole: why one of them is NaN.
    alone: the files are the row's own, and nobody else's, though it has no scores of the set.
    """

    model: str
    sampler: str | None
    steps: int | None
    network_calls: int
    real_time_factor: float
    files: tuple[str, ...]
    scores: tuple[Scores, ...]
    variant: str = ""
    whole: Mapping[str, Summary] = field(default_factory=dict)
    reasons_whole: Mapping[str, str] = field(default_factory=dict)
    alone: bool = False

    @property
    def label(self) -> str:
        """What the report calls the row."""
        steps = None if self.steps is None else f"{self.steps} step{'s' if self.steps != 1 else ''}"
        return ", ".join(part for part in (self.model, self.variant, self.sampler, steps) if part)

    def column(self, metric: str) -> list[float]:
        """The metric file by file, NaN where there is none."""
        return [scores.values.get(metric, math.nan) for scores in self.scores]

    def reasons(self, metric: str) -> dict[str, int]:
        """Why files have no number, and how many for each reason."""
        if metric in self.reasons_whole:
            return {self.reasons_whole[metric]: len(self.files)}
        return dict(Counter(s.reasons[metric] for s in self.scores if metric in s.reasons).most_common())

    def only(self, names: Collection[str]) -> "Row":
        """The same over some of the files."""
        kept = [i for i, name in enumerate(self.files) if name in names]
        files, scores = tuple(self.files[i] for i in kept), tuple(self.scores[i] for i in kept)
        return replace(self, files=files, scores=scores)


@dataclass(frozen=True)
class Example:
    """Sounds to compare: one file as it came, as each row made it and as it should be; or the sounds of one class.

    Waves `n` or `c n`; estimates by their label. small: many short sounds, drawn small.
    """

    name: str
    sample_rate: int
    noisy: np.ndarray | None
    clean: np.ndarray | None
    estimates: dict[str, np.ndarray]
    small: bool = False

    @property
    def waves(self) -> dict[str, np.ndarray]:
        """All by their label, in order."""
        every = {"noisy": self.noisy, **self.estimates, "clean": self.clean}
        return {label: wave for label, wave in every.items() if wave is not None}


@dataclass(frozen=True)
class Meta:
    """What was done: metrics in order, rates of the files in Hz, their fingerprint, seed, settings, files left out.

    groups: name -> files that get a table of their own.
    """

    metrics: tuple[str, ...]
    sample_rates: tuple[int, ...]
    file_list_sha256: str
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One metric of one row: summary, change from the first row (None there), and why files are missing."""

    summary: Summary
    change: Summary | None
    reasons: dict[str, int]


def about(name: str) -> Metric | SourceMetric | SetMetric:
    """What a metric of a file, of a mixture's sources or of a set is."""
    every: Mapping[str, Metric | SourceMetric | SetMetric] = {
        **SET_METRICS,
        **SOUND_METRICS,
        **SOURCE_METRICS,
        **METRICS,
    }
    return every[name]


def cells(rows: Sequence[Row], metrics: Sequence[str], seed: int) -> list[dict[str, Cell]]:
    """The table: one mapping metric -> Cell for each row. The first row is what the others are compared with.

    A row with scores of its whole set stands for itself; the others must hold the files of the first.
    """
    table = []
    for r, row in enumerate(rows):
        alone = bool(row.whole or row.reasons_whole or row.alone)
        if (not alone and row.files != rows[0].files) or len(row.scores) != len(row.files):
            raise ValueError(f"expected every row to score the files of {rows[0].label!r}, {row.label!r} scores others")
        line = {}
        for name in metrics:
            column = row.column(name)
            found = row.whole[name] if name in row.whole else summarise(column, seed)
            change = None if alone or not r else paired_difference(column, rows[0].column(name), seed)
            line[name] = Cell(found, change, row.reasons(name))
        table.append(line)
    return table


def group_rows(rows: Sequence[Row], meta: Meta) -> dict[str, list[Row]]:
    """The rows over the files of each group."""
    return {group: [row.only(set(names)) for row in rows] for group, names in meta.groups.items()}


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
    groups = {name: (some, cells(some, meta.metrics, meta.seed)) for name, some in group_rows(rows, meta).items()}
    lines = summary_lines(rows, table, meta.metrics)
    for name, (some, part) in groups.items():
        lines += summary_lines(some, part, meta.metrics, name)[1:]
    write_whole(target / "summary.csv", _csv(lines).encode())
    write_whole(target / "summary.json", (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode())
    write_whole(target / "report.html", page(rows, table, examples, summary, groups).encode())
    return target / "report.html"


def results_csv(rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """One line per row and file; an empty cell where there is no number, and why in the last column.

    Without the metrics that no file has by itself.
    """
    metrics = [name for name in metrics if any(name not in {*row.whole, *row.reasons_whole} for row in rows)]
    lines: list[list[Any]] = [["model", "sampler", "steps", "file", *metrics, "reasons"]]
    for row in rows:
        for name, scores in zip(row.files, row.scores, strict=True):
            why = "; ".join(f"{metric}: {scores.reasons[metric]}" for metric in metrics if metric in scores.reasons)
            numbers = [_plain(scores.values.get(metric, math.nan)) for metric in metrics]
            model = ", ".join(part for part in (row.model, row.variant) if part)
            lines.append([model, row.sampler, row.steps, name, *numbers, why])
    return _csv(lines)


def summary_lines(
    rows: Sequence[Row], table: Sequence[Mapping[str, Cell]], metrics: Sequence[str], group: str = ""
) -> list[list[Any]]:
    """The heading, and a line per row: cost, then mean, interval, deviation and missing files of each metric."""
    parts = ("mean", "low", "high", "deviation", "missing")
    head = ["model", "variant", "sampler", "steps", "group", "network_calls", "real_time_factor", "files"]
    lines: list[list[Any]] = [head + [f"{metric}_{part}" for metric in metrics for part in parts]]
    for row, line in zip(rows, table, strict=True):
        cost = [row.network_calls, _plain(row.real_time_factor), len(row.files)]
        numbers = [_plain(getattr(line[metric].summary, part)) for metric in metrics for part in parts]
        lines.append([row.model, row.variant, row.sampler, row.steps, group, *cost, *numbers])
    return lines


def summary_json(rows: Sequence[Row], table: Sequence[Mapping[str, Cell]], meta: Meta) -> dict[str, Any]:
    """Everything needed to say what the numbers are; NaN becomes null."""
    chosen = [about(name) for name in meta.metrics]
    groups = {
        group: {"files": len(some[0].files), "rows": _rows_json(some, cells(some, meta.metrics, meta.seed))}
        for group, some in group_rows(rows, meta).items()
    }
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
        "rows": _rows_json(rows, table),
    }
    return jsonable(summary | ({"groups": groups} if groups else {}))


def _rows_json(rows: Sequence[Row], table: Sequence[Mapping[str, Cell]]) -> list[dict[str, Any]]:
    return [
        {"label": row.label, "model": row.model, "variant": row.variant, "sampler": row.sampler, "steps": row.steps}
        | {"network_calls": row.network_calls, "real_time_factor": row.real_time_factor, "files": len(row.files)}
        | {
            "scores": {
                name: asdict(cell.summary)
                | {"change_from_input": None if cell.change is None else asdict(cell.change)}
                | {"reasons": cell.reasons}
                for name, cell in line.items()
            }
        }
        for row, line in zip(rows, table, strict=True)
    ]


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


def jsonable(value: Any) -> Any:
    """The value with NaN and infinity as None, tuples as lists, and anything unknown as its text."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [jsonable(item) for item in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)
