"""Recordings held in memory, cut into overlapping pieces as `fromnoise.tasks.chunked` cuts them, and other rates."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import soxr

Number = int | float
Process = Callable[[np.ndarray, int], np.ndarray]
"""(piece `c n`, its first sample's position) -> `k n`."""


def lengths(segment: Number, overlap: Number, context: int, align: int, sample_rate: Number) -> dict[str, int]:
    """The settings of `in_pieces` from seconds; `segment` counts what is kept, the context comes on top."""
    if not (0 < segment < math.inf and 0 <= overlap < math.inf):
        raise ValueError(f"expected segment > 0 and overlap >= 0 seconds, got {segment} and {overlap}")
    kept = max(round(segment * sample_rate), align)
    shared = max(min(round(overlap * sample_rate), kept - align), 0)
    return {"segment": kept + 2 * context + shared, "context": context, "overlap": shared, "align": align}


def in_pieces(
    process: Process,
    data: np.ndarray,
    cut: Mapping[str, int],
    match: Callable[[np.ndarray, np.ndarray], Sequence[int]] | None = None,
) -> np.ndarray:
    """What `process` makes of `c n`, piece by piece: contexts discarded, overlaps cross-faded.

    cut: see `lengths`. match: (earlier, later) results for the same samples -> the order of the later one's rows that
    follows the earlier.
    """
    segment, context, overlap, align = (cut[name] for name in ("segment", "context", "overlap", "align"))
    step = (segment - 2 * context - overlap) // align * align
    total = data.shape[1]
    count = 1 + max(0, math.ceil((total - segment) / step))
    rising = ((1 - np.cos(math.pi * (np.arange(overlap) + 0.5) / max(overlap, 1))) / 2).astype(np.float32)
    done: list[np.ndarray] = []
    tail: np.ndarray | None = None  # of the result before, what both have in common
    for k in range(count):
        start, last = k * step, k == count - 1
        result = process(data[:, start : start + segment], start)
        kept = result[:, 0 if tail is None else context : None if last else step + context]
        if tail is not None:
            if match is not None:
                order = list(match(tail, result[:, : segment - step]))
                result, kept = result[order], kept[order]
            earlier = tail[:, context:][:, :overlap]
            kept = np.concatenate([earlier + rising * (kept[:, :overlap] - earlier), kept[:, overlap:]], axis=1)
        done.append(kept)
        tail = result[:, step:]
    return np.concatenate(done, axis=1)


def follow(earlier: np.ndarray, later: np.ndarray) -> list[int]:
    """The order of the later sources in which they are most like the earlier."""
    likeness = earlier.astype(np.float64) @ later.T.astype(np.float64)
    rows = range(len(earlier))
    return list(max(itertools.permutations(rows), key=lambda order: sum(likeness[k, order[k]] for k in rows)))


def resample(wave: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """`c n` at another rate, round(n to/from) samples."""
    if from_rate == to_rate:
        return wave
    n = wave.shape[1]
    length = max((2 * n * to_rate + from_rate) // (2 * from_rate), min(n, 1))
    moved = soxr.resample(np.ascontiguousarray(wave.T), from_rate, to_rate, quality="VHQ")
    return fit(moved.T, length)


def fit(wave: np.ndarray, n: int) -> np.ndarray:
    """Cut or filled with silence to n samples."""
    return np.pad(wave, ((0, 0), (0, max(0, n - wave.shape[1]))))[:, :n]


def as_planes(recording: Any) -> np.ndarray:
    """What the user gave as float32 `c n`."""
    wave = np.asarray(recording)
    if wave.ndim not in (1, 2) or wave.size == 0 or wave.dtype.kind != "f":
        raise ValueError(
            f"expected a wave of shape (n) or (c, n), n >= 1, as floats in [-1, 1]; got {wave.dtype} {wave.shape}"
        )
    planes = np.atleast_2d(wave).astype(np.float32)
    if not np.isfinite(planes).all():
        raise ValueError("the recording holds NaN or infinite samples; repair or re-export it")
    return planes
