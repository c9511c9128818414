"""A mixture whose sources are known: how it is put together.

    mixture = sum_k s_k,     s_k[m] = gain_k clip_k[m - round(offset_k rate)]     on a common timeline

Clips are brought to the rate first, then placed, so that a list of mixtures means the same at every rate. Mode `max` is
the whole timeline, up to the end of the last source; `min` is the part where all sources are on.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32

from fromnoise.data.audio import read
from fromnoise.frontends.resample import resample
from fromnoise.types import InputError

Mode = Literal["min", "max"]


@dataclass(frozen=True)
class Part:
    """One source: `gain` times the first channel of `path`, less that of `less` if there is one, from `offset_s` on."""

    path: Path
    gain: float = 1.0
    offset_s: float = 0.0
    less: Path | None = None

    def wave(self, sample_rate: int) -> Float32[np.ndarray, " n"]:
        """The source at a rate, without its offset."""
        wave, rate = read(self.path)
        if self.less is not None:
            other, other_rate = read(self.less)
            if other_rate != rate:
                raise InputError(f"{self.path}: expected {other_rate} Hz like its clean partner, got {rate} Hz")
            n = min(wave.shape[1], other.shape[1])
            wave = wave[:, :n] - other[:, :n]
        return (self.gain * resample(wave[0], rate, sample_rate)).astype(np.float32)


@dataclass(frozen=True)
class Mixture:
    """Sources on one timeline. span_s: what of it counts, where a list says so; `mode` decides otherwise. recorded: the
    mixture's own file, where it holds more than the sources, such as noise."""

    name: str
    parts: tuple[Part, ...]
    sample_rate: int
    mode: Mode = "max"
    span_s: tuple[float, float] | None = None
    recorded: Path | None = None

    def load(self) -> Float32[np.ndarray, "k n"]:
        """The sources at `sample_rate`; the mixture is their sum, unless it was recorded (see `mixture`)."""
        rate = self.sample_rate
        waves = [part.wave(rate) for part in self.parts]
        starts = [round(part.offset_s * rate) for part in self.parts]
        ends = [start + len(wave) for start, wave in zip(starts, waves, strict=True)]
        if self.span_s is not None:
            begin, end = (round(second * rate) for second in self.span_s)
        elif self.mode == "min":
            begin, end = max(starts), min(ends)
        else:
            begin, end = 0, max(ends)
        if begin >= end:
            raise InputError(f"{self.name}: there is no moment at which all its sources are on; use mode max")
        line = np.zeros((len(waves), max(*ends, end)), np.float32)
        for row, start, wave in zip(line, starts, waves, strict=True):
            row[start : start + len(wave)] = wave
        return line[:, begin:end]

    def mixture(self, sources: Float32[np.ndarray, "k n"]) -> Float32[np.ndarray, " n"]:
        """The mixture of what `load` gave."""
        if self.recorded is None:
            return sources.sum(axis=0)
        wave = Part(self.recorded).wave(self.sample_rate)[: sources.shape[1]]
        return np.pad(wave, (0, sources.shape[1] - len(wave)))

    def files(self) -> list[Path]:
        """All files that are read."""
        own = [path for part in self.parts for path in (part.path, part.less) if path is not None]
        return own if self.recorded is None else [*own, self.recorded]
