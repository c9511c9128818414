"""Means with their uncertainty: the percentile bootstrap over files, and paired differences.

Draw n of n files with replacement, take the mean, repeat; the interval holds the middle `level` of those means
(B. Efron, "Better bootstrap confidence intervals", JASA 1987, Section 1). A paired difference resamples the files' own
differences, so that what both models find hard cancels. Files without a score are counted, never averaged in.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Values = Sequence[float] | np.ndarray

RESAMPLES = 2000
BLOCK = 2**22  # resampled values held at once


@dataclass(frozen=True)
class Summary:
    """Mean over the finite values, its interval low..high, their deviation, how many, and how many are missing."""

    mean: float
    low: float
    high: float
    deviation: float
    count: int
    missing: int


def summarise(values: Values, seed: int = 0, resamples: int = RESAMPLES, level: float = 0.95) -> Summary:
    """Mean and bootstrap interval of the finite values. With fewer than two of them the interval is NaN."""
    given = np.asarray(values, np.float64)
    finite = given[np.isfinite(given)]
    missing = len(given) - len(finite)
    if len(finite) < 2:
        mean = float(finite.mean()) if len(finite) else math.nan
        return Summary(mean, math.nan, math.nan, math.nan, len(finite), missing)
    low, high = np.quantile(bootstrap_means(finite, seed, resamples), [(1 - level) / 2, (1 + level) / 2])
    return Summary(float(finite.mean()), float(low), float(high), float(finite.std(ddof=1)), len(finite), missing)


def bootstrap_means(values: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Means of `resamples` draws with replacement, files first; memory stays bounded for any number of files."""
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK // values.size)
    sizes = [min(block, resamples - done) for done in range(0, resamples, block)]
    return np.concatenate([values[generator.integers(0, len(values), (size, len(values)))].mean(1) for size in sizes])


def paired_difference(
    ours: Values, theirs: Values, seed: int = 0, resamples: int = RESAMPLES, level: float = 0.95
) -> Summary:
    """Summary of ours - theirs, file by file in one order; a file that either lacks is missing."""
    if len(ours) != len(theirs):
        raise ValueError(f"expected two lists over the same files, got {len(ours)} and {len(theirs)} values")
    return summarise(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64), seed, resamples, level)
