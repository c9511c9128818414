"""Enhance noisy speech: the verb.

A recording is brought to the model's rate and level, enhanced in overlapping pieces, and brought back:

    y = E(g noisy),   x0' = `EnhancementModel.restore`(y),   out = D(x0') / g
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from fromnoise.backbones import BACKBONES
from fromnoise.samplers import PositionNoise
from fromnoise.tasks.base import MAX_CHANNELS, Ready, as_floats, cut, in_pieces, like, looked_at
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
    ) -> Callable[[np.ndarray, int], np.ndarray]:
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
        shifts = self.model.config.shifts
        delays = [i * self.align // shifts for i in range(shifts)]

        def enhance(wave: np.ndarray, start: int) -> np.ndarray:
            planes = [wave[c : c + 1] for c in range(len(wave))]
            return np.concatenate([x if level.rms[c] == 0 else one(x, start, c) for c, x in enumerate(planes)])

        def one(wave: np.ndarray, start: int, channel: int) -> np.ndarray:
            gain, peak = float(gains[channel]), (peaks * gains)[channel : channel + 1].to(self.device)
            noisy = torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32))[None].to(self.device)
            require_finite(noisy, "the recording")
            with torch.inference_mode():
                total = torch.zeros_like(noisy)
                for delay in delays:
                    moved = torch.nn.functional.pad(noisy * gain, (delay, 0))
                    noise = PositionNoise([seed + channel], start // self.model.frontend.hop)
                    x = self.model.restore(self.model.frontend.encode(moved), noise, run, callback, peak)
                    total += self.model.frontend.decode(x, moved.shape[-1])[..., delay:]
                return (total / (gain * len(delays)))[0].cpu().numpy()

        return enhance

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


def mix(clean: Float[np.ndarray, "..."], noisy: Float[np.ndarray, "..."], dry: float) -> Float[np.ndarray, "..."]:
    """(1 - dry) clean + dry noisy; exactly one of them at 0 and at 1."""
    if not 0 <= dry <= 1:
        raise InputError(f"dry must lie between 0 and 1, got {dry}")
    return clean if dry == 0 else noisy + np.float32(1 - dry) * (clean - noisy)
