"""What a report is made of: rows of scores, sounds to hear, what was done, and the cells of the table.

A mean is over the files that have a number; the files that have none are counted and their reasons kept. The change
from the first row is paired over files. Rows of generated sounds hold files of their own, and scores of the set as a
whole.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fromnoise.evaluation.distances import SOUND_METRICS
from fromnoise.evaluation.generation import SET_METRICS, SetMetric
from fromnoise.evaluation.sources import SOURCE_METRICS, SourceMetric
from fromnoise.evaluation.speech import METRICS, Metric, Scores
from fromnoise.evaluation.statistics import Summary, paired_difference, summarise


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
