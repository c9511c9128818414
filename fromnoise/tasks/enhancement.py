"""Enhance noisy speech: the verb.

A recording is brought to the model's rate and level, enhanced in overlapping pieces, and brought back:

    y = E(g noisy),   x0' = `EnhancementModel.restore`(y),   out = D(x0') / g
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from fromnoise.backbones import BACKBONES
from fromnoise.samplers import PositionNoise
from fromnoise.tasks.base import MAX_CHANNELS, Ready, Run, as_floats, cut, in_batches, in_pieces, like, looked_at
from fromnoise.tasks.chunked import Level
from fromnoise.tasks.enhancement_model import Callback, EnhancementConfig, EnhancementModel, unit_gain
from fromnoise.types import InputError, build, require_finite

__all__ = ["EnhancementConfig", "EnhancementModel", "Enhancer", "mix"]


class Enhancer(Ready[EnhancementModel]):
    """A ready model: noisy speech in, clean speech out, at the rate, length, channels and level of the input.

    >>> enhancer = fromnoise.load("enhance-small")                              # doctest: +SKIP
    >>> clean = enhancer(noisy, sample_rate=44100, steps=1, seed=0)             # doctest: +SKIP
    """

    task = "enhance"

    @property
    def sample_rate(self) -> int:
        """The rate in Hz that the model works at."""
        return self.model.frontend.sample_rate

    def network_calls(self, steps: int | None = None, sampler: str | None = None) -> int:
        """Network calls of one run over one piece of sound, generator and refiner included."""
        run = self.model.default_run(steps, sampler)
        extra = (self.model.generator is not None) + (self.model.refines is not None)
        return self.model.config.shifts * (run.sampler.evaluations(run.num_steps) + extra)

    @property
    def align(self) -> int:
        """Pieces of a recording must begin at multiples of this many samples."""
        spectrum = self.model.spectrum
        return math.lcm(self.model.frontend.hop, 1 if spectrum is None else spectrum.hop)

    def context(self, calls: int = 1) -> int:
        """Samples on either side that `calls` network calls in a row look at (`looked_at`), a multiple of `align`."""
        reach = build("backbone", BACKBONES, self.model.config.backbone).reach * self.model.frontend.hop
        seen = looked_at(calls, reach, self.sample_rate) + self.model.frontend.reach
        seen += 0 if self.model.spectrum is None else self.model.spectrum.reach
        return math.ceil(seen / self.align) * self.align

    def piece(
        self,
        level: Level,
        steps: int | None = None,
        sampler: str | None = None,
        seed: int = 0,
        callback: Callback | None = None,
    ) -> "Piece":
        """The function (wave `c n`, first sample's position) -> wave `c n` for pieces of one recording.

        level: of the whole recording, per channel, at the model's rate; pieces are scaled by it, and noise belongs to
        absolute positions, so that a recording sounds the same however it is cut. Channels run one by one: how a batch
        is multiplied depends on its size, which would show in the last bits. A silent channel stays silent.
        """
        run = self.model.default_run(steps, sampler)
        if len(level.rms) > MAX_CHANNELS:
            raise InputError(f"expected at most {MAX_CHANNELS} channels, got {len(level.rms)}; split the recording")
        peaks, rms = (torch.as_tensor(measured, dtype=torch.float32) for measured in (level.peak, level.rms))
        gains = {"rms": unit_gain(rms), "peak": unit_gain(peaks), "none": torch.ones_like(rms)}[self.model.config.unit]
        return Piece(self, level, gains, peaks * gains, run, seed, callback)

    def positions(self, n: int) -> int:
        """How long n samples are in the model; what is equally long can be done at once."""
        return self.model.frontend.shape(1, n)[-1]

    def together(self, requests: Sequence[tuple["Piece", np.ndarray, int]], at_once: int) -> list[np.ndarray]:
        """The answers to what several recordings ask for, by functions of `piece` with one run.

        Channels are done at once, at most `at_once`, where they are equally long in the model and begin at the same
        position. Each is encoded and decoded by itself: from doing it alone it differs by the order of sums within the
        networks, a few units of the last place.
        """
        results = [np.array(wave, dtype=np.float32) for _, wave, _ in requests]
        rows = [
            Row(i, piece, c, torch.from_numpy(results[i][None, c : c + 1]).to(self.device), start)
            for i, (piece, _, start) in enumerate(requests)
            for c in range(len(results[i]))
            if piece.level.rms[c] != 0
        ]
        shifts = self.model.config.shifts
        with torch.inference_mode():
            totals = [torch.zeros_like(require_finite(row.noisy, "the recording")) for row in rows]
            for delay in (i * self.align // shifts for i in range(shifts)):
                alike = partial(self._place, delay=delay)
                done = in_batches(rows, alike, at_once, partial(self._delayed, delay=delay))
                for total, wave in zip(totals, done, strict=True):
                    total += wave
            for row, total in zip(rows, totals, strict=True):
                results[row.request][row.channel] = (total / (row.gain * shifts))[0, 0].cpu().numpy()
        return results

    def _place(self, row: "Row", delay: int) -> tuple[int, int]:
        return self.positions(row.noisy.shape[-1] + delay), row.start

    def _delayed(self, rows: list["Row"], delay: int) -> list[Tensor]:
        """One run with the rows moved by `delay`; they are of one place then. Clean waves at the level of the model."""
        first = rows[0].piece
        moved = [pad(row.noisy * row.gain, (delay, 0)) for row in rows]
        peaks = torch.stack([row.piece.peaks[row.channel] for row in rows]).to(self.device)
        seeds = [row.piece.seed + row.channel for row in rows]
        noise = PositionNoise(seeds, rows[0].start // self.model.frontend.hop)
        y = torch.cat([self.model.frontend.encode(wave) for wave in moved])
        x = self.model.restore(y, noise, first.run, first.callback if len(rows) == 1 else None, peaks)
        waves = zip(x.split(1), moved, strict=True)
        return [self.model.frontend.decode(one, wave.shape[-1])[..., delay:] for one, wave in waves]

    def __call__(
        self,
        noisy: Any,
        sample_rate: int,
        steps: int | None = None,
        sampler: str | None = None,
        seed: int = 0,
        dry: float = 0.0,
        segment: float = 30.0,
        overlap: float = 0.05,
        callback: Callback | None = None,
    ) -> Any:
        """Enhance a recording held in memory.

        noisy: numpy or torch, `n` or `c n`, full scale at 1; the result is of the same kind, shape and level.
        sample_rate: Hz. steps, sampler: other than the model's own. dry: share of the input kept, 1 gives it back as
        it is. segment, overlap: seconds, as `fromnoise enhance`. callback(i, n, x): after every step of
        every piece. Raises InputError for an empty, non-finite or oddly shaped recording, or a rate out of range.
        """
        wave = as_floats(noisy)
        piece = partial(self.piece, steps=steps, sampler=sampler, seed=seed, callback=callback)
        chunking = self.chunking(segment, overlap, self.network_calls(steps, sampler))
        clean = in_pieces(wave, sample_rate, self.sample_rate, piece, chunking)
        return like(mix(clean, wave, dry), noisy)

    def chunking(self, segment: float, overlap: float, calls: int = 1) -> dict[str, Any]:
        """Settings of `run_chunked` in samples, from seconds; `segment` counts what is kept, the context comes on top.

        calls: network calls in a row, see `context`.
        """
        context = self.context(calls // self.model.config.shifts)  # the shifts' runs do not see one another
        return cut(segment, overlap, context, self.align, self.sample_rate)


@dataclass(frozen=True)
class Piece:
    """`Enhancer.piece`: what the pieces of one recording share. gains and peaks (after the gain): of each channel."""

    enhancer: Enhancer
    level: Level
    gains: Tensor
    peaks: Tensor
    run: Run
    seed: int
    callback: Callback | None

    def __call__(self, wave: np.ndarray, start: int) -> np.ndarray:
        return self.enhancer.together([(self, wave, start)], 1)[0]


@dataclass(frozen=True)
class Row:
    """A channel of a piece: of which request, and its noisy wave `1 1 n`."""

    request: int
    piece: Piece
    channel: int
    noisy: Tensor
    start: int

    @property
    def gain(self) -> float:
        """What brings it to its unit."""
        return float(self.piece.gains[self.channel])


def mix(clean: Float[np.ndarray, "..."], noisy: Float[np.ndarray, "..."], dry: float) -> Float[np.ndarray, "..."]:
    """(1 - dry) clean + dry noisy; exactly one of them at 0 and at 1."""
    if not 0 <= dry <= 1:
        raise InputError(f"dry must lie between 0 and 1, got {dry}")
    return clean if dry == 0 else noisy + np.float32(1 - dry) * (clean - noisy)
