"""Sounds of any length from a network whose noise level may differ along time: splits of equal length, one level each.

A window holds n splits. Its earlier half is done (level 0), the later half climbs a ladder, the nearest split first:

    level of split n/2 + r at step q = g[(n/2 - 1 - r) i + q],    g = linspace(1, 0, i n/2),    r = 0 .. n/2 - 1

After i = steps // n steps every split has reached the level that its earlier neighbour began at, the first is done, and
the window moves on by one split, with unit noise entering. Autoregressive diffusion of audio-diffusion-pytorch
(Schneider, "ArchiSound: Audio Generation with Diffusion", 2023, https://arxiv.org/abs/2301.13267).
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fromnoise.processes.base import Process, time_dtype
from fromnoise.samplers.ancestral import Ancestral
from fromnoise.samplers.base import Denoise, Noise
from fromnoise.types import InputError

Tell = Callable[[int, int, Tensor], object]


def folded(x: Tensor, splits: int) -> Tensor:
    """`b ... (n l)` -> `(b n) ... l`: the splits of an item become items."""
    return x.reshape(*x.shape[:-1], splits, -1).movedim(-2, 1).flatten(0, 1)


def unfolded(x: Tensor, splits: int) -> Tensor:
    """The inverse of `folded`."""
    return x.unflatten(0, (-1, splits)).movedim(1, -2).flatten(-2)


def ladder(splits: int, steps: int) -> Float[Tensor, "i n"]:
    """The level of each split before each step of a shift, and after the last."""
    half = splits // 2
    if splits < 2 or splits % 2 or steps < splits:
        raise InputError(f"expected an even number of splits and at least as many steps, got {splits} and {steps}")
    levels = torch.linspace(1, 0, steps // splits * half, dtype=torch.float64).reshape(half, -1).flip(0).T
    closing = torch.cat([levels.new_zeros(1), levels[0, :-1]])
    return torch.cat([levels.new_zeros(len(levels) + 1, half), torch.cat([levels, closing[None]])], dim=1)


@dataclass(frozen=True)
class Ladder:
    """A run of `sampler` over a sound of many splits. width: positions of a split. times: of the start, decreasing;
    their number less one is that of the steps. denoise: of folded states, one time each."""

    denoise: Denoise
    process: Process
    sampler: Ancestral
    splits: int
    width: int
    times: Float[Tensor, " k"]

    @property
    def steps(self) -> int:
        """Of the start."""
        return len(self.times) - 1

    def shifts(self, fresh: int, known: int = 0) -> int:
        """Moves of the window after the start, for so many new positions after those that are known."""
        half = self.splits // 2
        first = half if known else self.splits  # done by the start
        count = -(-fresh // self.width)
        return 0 if count <= first else count - first + half

    def evaluations(self, fresh: int, known: int = 0) -> int:
        """Network calls."""
        return self.steps + self.shifts(fresh, known) * (self.steps // self.splits)

    def sample(self, x: Tensor, known: Tensor | None, noise: Noise, callback: Tell | None = None) -> Tensor:
        """Clean data after `known`, of which the last n/2 splits are seen, from unit noise x of the same layout."""
        half, there = self.splits // 2 * self.width, 0 if known is None else known.shape[-1]
        if known is not None and there < half:
            raise InputError(f"expected half a clip to go on from, {half} positions, got {there}")
        fresh, shifts = x.shape[-1], self.shifts(x.shape[-1], there)
        rungs = ladder(self.splits, self.steps) if shifts else None  # too few steps are an error before any is made
        tell = _counted(callback, self.evaluations(fresh, there))
        seen = 0 if known is None else half
        state = x if known is None else torch.cat([known[..., -half:], x], -1)
        start = self.times[:, None].repeat(1, self.splits)
        start[:, : seen // self.width] = 0
        state = self._climbed(self._lengthened(state, self.splits, noise), 0, start, noise, tell)
        if rungs is not None:
            state = self._lengthened(self._noised(state, rungs[0], noise), shifts - 1 + self.splits, noise)
            for k in range(shifts):
                state = self._climbed(state, k, rungs, noise, tell)
        return state[..., seen : seen + fresh]

    def _lengthened(self, state: Tensor, splits: int, noise: Noise) -> Tensor:
        """The state with noise behind it, so many splits at least."""
        missing = splits * self.width - state.shape[-1]
        return state if missing <= 0 else torch.cat([state, noise(state.new_zeros(*state.shape[:-1], missing))], -1)

    def _noised(self, state: Tensor, levels: Tensor, noise: Noise) -> Tensor:
        """The first window at these levels, one each split."""
        window, rest = state.tensor_split([self.splits * self.width], -1)
        clean, draw = folded(window, self.splits), self._per_split(noise)
        noisy = self.process.sample(clean, self._times(levels, window), None, draw(clean))
        return torch.cat([unfolded(noisy, self.splits), rest], -1)

    def _climbed(self, state: Tensor, k: int, rows: Tensor, noise: Noise, tell: Callable[[Tensor], None]) -> Tensor:
        """The state after the steps from row to row of the window that begins at split k."""
        before, window, after = state.tensor_split([k * self.width, (k + self.splits) * self.width], -1)
        flat, draw = folded(window, self.splits), self._per_split(noise)
        for here, there in itertools.pairwise(rows):
            t, s = self._times(here, window), self._times(there, window)
            flat, _ = self.sampler.step(flat, t, s, None, self.denoise, self.process, None, draw, False)
            tell(flat)
        return torch.cat([before, unfolded(flat, self.splits), after], -1)

    def _times(self, levels: Tensor, like: Tensor) -> Tensor:
        """One time for each split of every item."""
        return levels.to(like.device, time_dtype(like.device)).repeat(len(like))

    def _per_split(self, noise: Noise) -> Noise:
        """Noise that belongs to whole items, for folded states."""
        return lambda flat: folded(noise(unfolded(flat, self.splits)), self.splits)


def _counted(callback: Tell | None, total: int) -> Callable[[Tensor], None]:
    """The callback of a run of so many steps, told which one it is."""
    steps = itertools.count()

    def tell(x: Tensor) -> None:
        if callback is not None:
            callback(next(steps), total, x)

    return tell
