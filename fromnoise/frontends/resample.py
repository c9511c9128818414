"""Conversion between sample rates, whole or piece by piece.

From rate a to rate b time is kept: n samples become `round(n b / a)` (at least 1), and sample k lies at k / rate
seconds before and after. The filter is soxr's VHQ, a linear-phase low pass just below the lower of the two Nyquist
frequencies, so nothing is delayed. `Resampler` gives the same samples as `resample`, in pieces of any size.
"""

import math
from typing import overload

import numpy as np
import soxr
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from fromnoise.types import InputError

MIN_RATE, MAX_RATE = 100, 768_000


def resampled_length(n: int, from_rate: int, to_rate: int) -> int:
    """round(n to/from), halves up; at least 1 for n >= 1."""
    return max((2 * n * to_rate + from_rate) // (2 * from_rate), min(n, 1))


@overload
def resample(wave: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray: ...
@overload
def resample(wave: Tensor, from_rate: int, to_rate: int) -> Tensor: ...
def resample(
    wave: Float[np.ndarray, "... n"] | Float[Tensor, "... n"], from_rate: int, to_rate: int
) -> Float[np.ndarray, "... m"] | Float[Tensor, "... m"]:
    """The wave at another rate, last axis time, `resampled_length` samples; numpy or torch in, the same out."""
    check_rate(from_rate, "resample")
    check_rate(to_rate, "resample")
    if from_rate == to_rate:
        return wave
    if isinstance(wave, Tensor):
        moved = resample(
            np.asarray(wave.detach().to("cpu", torch.promote_types(wave.dtype, torch.float32))), from_rate, to_rate
        )
        return torch.as_tensor(moved).to(wave.device, wave.dtype)
    flat = wave.reshape(-1, wave.shape[-1]).T.astype(np.float64 if wave.dtype == np.float64 else np.float32)
    length = resampled_length(wave.shape[-1], from_rate, to_rate)
    moved = soxr.resample(np.ascontiguousarray(flat), from_rate, to_rate, quality="VHQ")
    return _fit(moved, length).T.reshape(*wave.shape[:-1], length)


class Resampler:
    """`resample` in pieces: what `push` and `finish` return, joined, equals the one-shot result.

    length: how many samples to give in all (cut or filled with silence), `resampled_length` of the input when None.
    """

    def __init__(self, from_rate: int, to_rate: int, channels: int, length: int | None = None) -> None:
        check_rate(from_rate, "resample")
        check_rate(to_rate, "resample")
        self._rates, self._length, self._channels = (from_rate, to_rate), length, channels
        self._taken = self._given = 0
        same = from_rate == to_rate
        self._stream = None if same else soxr.ResampleStream(from_rate, to_rate, channels, "float32", "VHQ")

    def push(self, wave: Float32[np.ndarray, "c n"]) -> Float32[np.ndarray, "c m"]:
        self._taken += wave.shape[1]
        samples = np.ascontiguousarray(wave.T)
        return self._give(samples if self._stream is None else self._stream.resample_chunk(samples))

    def finish(self) -> Float32[np.ndarray, "c m"]:
        """The rest, once the last piece was pushed."""
        natural = resampled_length(self._taken, *self._rates)
        total = natural if self._length is None else self._length
        tail = np.zeros((0, self._channels), np.float32)
        if self._stream is not None:
            missing = max(total - natural, 0) * self._rates[0] / self._rates[1]
            silence = np.zeros((math.ceil(missing) + 1 if missing else 0, self._channels), np.float32)
            tail = self._stream.resample_chunk(silence, last=True)
        return self._give(_fit(tail, total - self._given))

    def _give(self, samples: Float32[np.ndarray, "n c"]) -> Float32[np.ndarray, "c m"]:
        if self._length is not None:
            samples = samples[: self._length - self._given]
        self._given += len(samples)
        return np.ascontiguousarray(samples.T)


def check_rate(rate: int, what: str) -> None:
    """Raises InputError unless `rate` is one that sound is stored at."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise InputError(f"{what}: expected a sample rate from {MIN_RATE} to {MAX_RATE} Hz, got {rate} Hz")


def _fit(samples: np.ndarray, length: int) -> np.ndarray:
    """`n c` cut, or filled with silence, to `length` rows."""
    if len(samples) >= length:
        return samples[: max(length, 0)]
    return np.concatenate([samples, np.zeros((length - len(samples), samples.shape[1]), samples.dtype)])
