"""Time grids: the num_steps + 1 decreasing times of one run.

    uniform     t evenly from 1 to t_min
    quadratic   sqrt(t) evenly: finer near the data
    log         ln t evenly: DiffSep's `log`, which is its `revlog` too
    karras      sigma^(1/rho) evenly, sigma = noise/clean (Karras et al., 2022, https://arxiv.org/abs/2206.00364, Eq. 5)
    log_snr     log(sigma) evenly
    trained     steps of a discrete process, evenly chosen, the last one included
    levels      the noise levels of a short schedule of betas, placed on (fractional) times of the process; Kong et al.,
                "DiffWave", 2021, https://arxiv.org/abs/2009.09761
    steps       trained steps by their numbers, counted from 0: DOSE's two (Tai et al., NeurIPS 2023)

`end` says where a grid ends. "data": num_steps times down to t_min, then 0, where a step returns the estimate of x0;
SGMSE+'s rule that the last step goes on by t_min. "t_min": num_steps + 1 times down to t_min; the bridge's rule. The
two agree for a process whose t_min is 0. A sigma of 0 or infinity has no logarithm: karras and log_snr then start or
end their even spacing at MARGIN from that time.

A run that starts in the middle, at `start` < 1, as zero-shot denoising does, begins there exactly. Trained, levels and
steps keep those of their times that lie below it; the others space [t_min, start] as they space [t_min, 1].
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fromnoise.processes.base import Process

MARGIN = 1e-3
Grid1D = Float[Tensor, " n"]


class Grid(ABC):
    """A rule for the times of a run. Subclasses are frozen dataclasses that write `times`."""

    @property
    def length(self) -> int | None:
        """The only number of steps that a whole run over this grid can have; None where any number will do."""
        return None

    @abstractmethod
    def times(self, process: Process, num_steps: int, start: float = 1.0) -> Grid1D:
        """num_steps + 1 decreasing times, float64, from `start` to t_min or 0; levels begin with their own first for 1.

        Raises ValueError where the grid has not so many.
        """


@dataclass(frozen=True)
class Spaced(Grid):
    """Evenly spaced in some function of time, which a subclass writes as `spread`."""

    end: Literal["data", "t_min"] = "data"

    def __post_init__(self) -> None:
        if self.end not in ("data", "t_min"):
            raise ValueError(f"expected end 'data' or 't_min', got {self.end!r}; choose one of them")

    @abstractmethod
    def spread(self, process: Process, even: Grid1D, start: float) -> Grid1D:
        """The times of `even`, which runs from 0 (t = start) to 1 (t = t_min)."""

    @final
    def times(self, process: Process, num_steps: int, start: float = 1.0) -> Grid1D:
        if num_steps < 1:
            raise ValueError(f"expected at least one step, got {num_steps}; ask for 1 or more")
        _require_start(process, start)
        to_zero = self.end == "data" and process.t_min > 0
        inner = num_steps if to_zero else num_steps + 1
        if inner > 1 and start <= process.t_min:
            raise ValueError(
                f"there is one step from t_min = {process.t_min:g} to the data, got {num_steps}; ask for 1"
            )
        times = self.spread(process, torch.linspace(0, 1, inner, dtype=torch.float64), start)
        times[0] = start
        times[1:][-1:] = process.t_min  # exact; a lone time stays the start
        return torch.cat([times, times.new_zeros(1)]) if to_zero else times


@dataclass(frozen=True)
class Uniform(Spaced):
    """Even in t."""

    def spread(self, process: Process, even: Grid1D, start: float) -> Grid1D:
        return start + (process.t_min - start) * even


@dataclass(frozen=True)
class Quadratic(Spaced):
    """Even in sqrt(t)."""

    def spread(self, process: Process, even: Grid1D, start: float) -> Grid1D:
        return (math.sqrt(start) + (math.sqrt(process.t_min) - math.sqrt(start)) * even) ** 2


@dataclass(frozen=True)
class Log(Spaced):
    """Even in ln t."""

    def spread(self, process: Process, even: Grid1D, start: float) -> Grid1D:
        if process.t_min <= 0:
            raise ValueError("expected a process whose t_min is above 0, which has a logarithm; use the grid 'uniform'")
        return start * (process.t_min / start) ** even


@dataclass(frozen=True)
class Karras(Spaced):
    """Even in sigma^(1/rho)."""

    rho: float = 7.0

    def spread(self, process: Process, even: Grid1D, start: float) -> Grid1D:
        high, low = (sigma_range(process, start) ** (1 / self.rho)).unbind()
        return process.time_of((high + even * (low - high)) ** self.rho)


@dataclass(frozen=True)
class LogSNR(Spaced):
    """Even in log(sigma)."""

    def spread(self, process: Process, even: Grid1D, start: float) -> Grid1D:
        high, low = sigma_range(process, start).log().unbind()
        return process.time_of((high + even * (low - high)).exp())


@dataclass(frozen=True)
class Trained(Grid):
    """Steps that a discrete process was trained on, ending with the data."""

    def times(self, process: Process, num_steps: int, start: float = 1.0) -> Grid1D:
        trained = _trained(process)
        _require_start(process, start)
        steps = torch.cat([_below(trained, start), trained.new_tensor([start])])
        if not 1 <= num_steps <= len(steps):
            where = "" if start == 1 else f" below t = {start:g}"
            raise ValueError(f"expected 1 to {len(steps)} steps, as many as were trained{where}, got {num_steps}")
        chosen = torch.linspace(len(steps) - 1, 0, num_steps, dtype=torch.float64).round().long()
        return torch.cat([steps[chosen], steps.new_zeros(1)])


@dataclass(frozen=True)
class Levels(Grid):
    """The levels prod(1 - beta) of a short schedule, ending with the data; num_steps must be its length."""

    betas: tuple[float, ...] = (1e-4, 1e-3, 0.01, 0.05, 0.2, 0.35)

    @property
    def length(self) -> int:
        return len(self.betas)

    def times(self, process: Process, num_steps: int, start: float = 1.0) -> Grid1D:
        _require_start(process, start)
        return _listed(self._placed(process), num_steps, start, "beta of this grid", "level")

    def _placed(self, process: Process) -> Grid1D:
        """The times of the levels, decreasing. Raises ValueError for a level that the process never trained."""
        level = torch.as_tensor(np.cumprod(1 - np.asarray(self.betas)))  # abar of the short schedule
        sigma = ((1 - level) / level).sqrt()
        smallest, largest = process.noise_level(torch.tensor([process.t_min, 1.0], dtype=torch.float64)).unbind()
        outside = ~((sigma >= smallest * (1 - 1e-9)) & (sigma <= largest * (1 + 1e-9)))  # also without any noise, 0/0
        if bool(outside.any()):
            low, high = 1 / (1 + largest**2), 1 / (1 + smallest**2)
            raise ValueError(
                f"expected levels within the trained range {low:.6g} to {high:.6g}, got {level[outside].tolist()}; "
                "change the betas of the short schedule"
            )
        return process.time_of(sigma).flip(0)


@dataclass(frozen=True)
class Steps(Grid):
    """Chosen steps of a discrete process, numbered from 0 and decreasing, ending with the data; num_steps must be their
    count."""

    steps: tuple[int, ...] = (35, 15)

    def __post_init__(self) -> None:
        if not self.steps or any(a <= b for a, b in pairwise(self.steps)):
            raise ValueError(f"expected decreasing steps, at least one, got {list(self.steps)}; put the noisiest first")

    @property
    def length(self) -> int:
        return len(self.steps)

    def times(self, process: Process, num_steps: int, start: float = 1.0) -> Grid1D:
        trained = _trained(process)
        _require_start(process, start)
        outside = [step for step in self.steps if not 0 <= step < len(trained)]
        if outside:
            raise ValueError(f"expected steps from 0 to {len(trained) - 1}, as trained, got {outside}; choose within")
        return _listed(trained[list(self.steps)], num_steps, start, "listed one", "listed one")


def _trained(process: Process) -> Grid1D:
    trained = process.trained_times()
    if trained is None:
        raise ValueError(f"expected a process with discrete steps, got {type(process).__name__}; use 'uniform'")
    return trained


def _listed(times: Float[Tensor, " m"], num_steps: int, start: float, each: str, kept: str) -> Grid1D:
    """A grid of these times alone, decreasing, cut at `start` and followed by the data. each, kept: what one step
    stands for, in words, over the whole and below the start."""
    if start < 1:
        times = torch.cat([times.new_tensor([start]), _below(times, start)])
    if num_steps != len(times):
        where = each if start == 1 else f"{kept} below t = {start:g} and one more"
        raise ValueError(f"expected {len(times)} steps, one per {where}, got {num_steps}")
    return torch.cat([times, times.new_zeros(1)])


def steps_from(grid: Grid, process: Process, num_steps: int, start: float) -> int:
    """How many steps are left from `start` of a run of num_steps over the whole grid: the one that begins at `start`,
    and those that begin below it."""
    if start == 1:
        return num_steps
    return 1 + len(_below(grid.times(process, num_steps)[:-1], start))


def _below(times: Grid1D, start: float) -> Float[Tensor, " k"]:
    """Those times that lie below the start; one that is the start but for rounding does not."""
    return times[times < start * (1 - 1e-9)]


def _require_start(process: Process, start: float) -> None:
    if not process.t_min <= start <= 1 or start == 0:
        raise ValueError(f"a run starts at a time from t_min = {process.t_min:g} (above 0) to 1, got {start}")


def sigma_range(process: Process, start: float = 1.0) -> Float[Tensor, "2"]:
    """The largest and the smallest level sigma of a process up to `start`, taken MARGIN inside where it is
    infinite or 0."""
    ends = torch.tensor([start, process.t_min], dtype=torch.float64)
    inside = torch.tensor([start - MARGIN, process.t_min + MARGIN], dtype=torch.float64)
    sigma = process.noise_level(ends)
    sigma = torch.where(sigma.isfinite() & (sigma > 0), sigma, process.noise_level(inside))
    if not bool((sigma > 0).all()):
        raise ValueError("this process has no noise, hence no log-SNR; use the grid 'uniform'")
    return sigma


GRIDS: dict[str, type[Grid]] = {
    "uniform": Uniform,
    "quadratic": Quadratic,
    "log": Log,
    "karras": Karras,
    "log_snr": LogSNR,
    "trained": Trained,
    "levels": Levels,
    "steps": Steps,
}
