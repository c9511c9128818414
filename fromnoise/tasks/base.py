"""What tasks share: how one run samples, and recordings in memory, taken as they come and given back the same way.

    n or c n, numpy or torch, any rate  ->  float32 `c m` at the model's rate  ->  run_chunked  ->  the same way back

The file's reader and writer in place of the array make it `fromnoise.tasks.chunked.stream`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fromnoise.frontends.resample import check_rate, resample
from fromnoise.samplers import GRIDS, SAMPLERS, Grid, Levels, Sampler, Trained
from fromnoise.tasks.chunked import run_chunked
from fromnoise.types import InputError, build, require_finite

Spec = Mapping[str, Any]
Process = Callable[[np.ndarray, int], np.ndarray]

CONTEXT_SECONDS = 8.0
"""Beyond this the influence of a sample is small; a piece looks no further unless one network call does."""
MAX_CHANNELS = 64
MAX_STEPS = 10_000


@dataclasses.dataclass(frozen=True)
class Run:
    """How one run samples: the sampler, the grid and the number of steps."""

    sampler: Sampler
    grid: Grid
    num_steps: int


@runtime_checkable
class Sampled(Protocol):
    """The part of a task's configuration that says how it samples by default."""

    @property
    def sampler(self) -> Spec: ...
    @property
    def grid(self) -> Spec: ...
    @property
    def num_steps(self) -> int: ...


def default_run(config: Sampled, num_steps: int | None = None, sampler: str | None = None) -> Run:
    """The run that a configuration asks for, with another number of steps or another sampler by its name.

    A short list of noise levels serves as many steps as it has; any other number is chosen evenly among the trained.
    """
    chosen = build("sampler", SAMPLERS, {"name": sampler} if sampler else config.sampler)
    steps = config.num_steps if num_steps is None else num_steps
    if not 1 <= steps <= MAX_STEPS:
        raise InputError(f"steps must lie between 1 and {MAX_STEPS}, got {steps}")
    grid = build("grid", GRIDS, config.grid)
    if isinstance(grid, Levels) and steps != len(grid.betas):
        grid = Trained()
    return Run(chosen, grid, steps)


def in_pieces(
    recording: Any, sample_rate: int, rate: int, piece: Callable[[np.ndarray], Process], chunking: Mapping[str, Any]
) -> np.ndarray:
    """A recording `n` or `c n` of `sample_rate` Hz through a process at `rate` Hz, as an array of the same shape.

    piece: the RMS of each channel -> the process, see `run_chunked`, which `chunking` is for. Raises InputError for an
    empty, non-finite or oddly shaped recording, or a rate out of range.
    """
    wave = as_floats(recording)
    check_rate(sample_rate, "the recording")
    planes = np.atleast_2d(wave).astype(np.float32)
    require_finite(torch.from_numpy(planes), "the recording")
    inside = np.asarray(resample(planes, sample_rate, rate))
    rms = np.sqrt(np.square(inside, dtype=np.float64).mean(axis=1))
    result = joined(piece(rms), inside, chunking)
    return fit(np.asarray(resample(result, rate, sample_rate)), planes.shape[1]).reshape(wave.shape)


def joined(process: Process, data: Float[np.ndarray, "c n"], chunking: Mapping[str, Any]) -> Float[np.ndarray, "k n"]:
    """What `run_chunked` makes of data that is in memory."""
    position, pieces = 0, []

    def read(count: int) -> np.ndarray:
        nonlocal position
        position += count
        return data[:, position - count : position]

    run_chunked(process, read, pieces.append, data.shape[1], **chunking)
    return np.concatenate(pieces, axis=1)


def like(result: np.ndarray, given: Any) -> Any:
    """The result in the kind, precision and place of what the user gave: numpy or torch."""
    if isinstance(given, Tensor):
        return torch.from_numpy(result).to(given.device, given.dtype)
    return result.astype(np.asarray(given).dtype)


def as_floats(recording: Any) -> np.ndarray:
    """What the user gave, as an array of floats `n` or `c n` with at least one sample."""
    if isinstance(recording, Tensor):
        plain = recording.detach().cpu()
        wave = (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()  # numpy has no bfloat16
    else:
        wave = np.asarray(recording)
    if wave.dtype.kind in "iu":
        raise InputError(f"expected floats in [-1, 1], got {wave.dtype}; divide by {np.iinfo(wave.dtype).max}")
    if wave.ndim not in (1, 2) or wave.size == 0 or wave.dtype.kind != "f":
        raise InputError(
            f"expected a wave of shape (n) or (c, n), n >= 1, as floats in [-1, 1]; got {wave.dtype} {wave.shape}"
        )
    if wave.ndim == 2 and len(wave) > MAX_CHANNELS:
        raise InputError(
            f"expected at most {MAX_CHANNELS} channels, got shape {wave.shape}; if that is (samples, channels), "
            "transpose it"
        )
    return wave


def fit(wave: np.ndarray, n: int) -> np.ndarray:
    """Cut or filled with silence to n samples: two resamplings may differ by one."""
    return np.pad(wave, ((0, 0), (0, max(0, n - wave.shape[1]))))[:, :n]
