"""The report of an evaluation: results.csv (per file), summary.csv, summary.json, and report.html to read and hear.

Every number comes with its definition, the version of the package that made it, the sample rate, the fingerprint of the
files, the seed and the settings; means with a 95 % bootstrap interval.
"""

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fromnoise.evaluation.page import page
from fromnoise.evaluation.rows import Cell, Example, Meta, Row, about, cells, group_rows
from fromnoise.evaluation.statistics import RESAMPLES
from fromnoise.files import write_whole

PACKAGES = ("fromnoise", "torch", "numpy", "scipy", "soxr", "pesq", "pystoi", "onnxruntime", "speechmos")
FILES = ("results.csv", "summary.csv", "summary.json", "report.html")


def write_report(folder: str | os.PathLike[str], rows: Sequence[Row], examples: Sequence[Example], meta: Meta) -> Path:
    """Write results.csv, summary.csv, summary.json and report.html; returns the path of the page.

    Each file appears whole or not at all; files of an earlier report in the folder are replaced.
    """
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
