"""How a network's output is read. With the weights a = clean, c = cond, s = noise of the process at t and x = x_t:

    clean      out = x0                            x0 = out
    noise      out = z                             x0 = (x - c y - s out)/a
    score      out = -z/s                          x0 = (x - c y + s^2 out)/a
    velocity   out = a' x0 + c' y + s' z           x0 = (s (out - c' y) - s' (x - c y))/(s a' - s' a)
    karras     out = (s x0 - d^2 a z)/(d S)        x0 = (d^2 a (x - c y) + s d S out)/S^2,   S^2 = s^2 + d^2 a^2

velocity is dx/dt along the path (flow matching). A variance-preserving process counts it per angle instead of per
time, a' = -s and s' = a: the v of Salimans and Ho, 2022, https://arxiv.org/abs/2202.00512.
karras is the preconditioning of Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models",
2022, https://arxiv.org/abs/2206.00364, Table 1, with sigma = s/a and d = sigma_data, multiplied out so that nothing
divides by a or s: the network receives (x - c y)/S and ln(sigma)/4.

`to_clean` and `target` invert each other; `gain` is d x0 / d out, which turns a weight on the error of x0 into one on
the error of the output. Where a = 0 an estimate of the noise says nothing of x0: it is read as 0, the data's mean.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from fromnoise.processes.base import PerItem, Process, State, Times, Weights, ratio
from fromnoise.types import expand


class Prediction(ABC):
    """How an output becomes an estimate of x0. Subclasses are frozen dataclasses."""

    @abstractmethod
    def to_clean(self, out: State, x_t: State, t: Times, process: Process, y: State | None = None) -> State:
        """The estimate of x0 that the output stands for."""

    @abstractmethod
    def target(self, x0: State, z: State, x_t: State, t: Times, process: Process, y: State | None = None) -> State:
        """What the network's output should be, for x_t made from x0 and z."""

    @abstractmethod
    def gain(self, t: Times, process: Process) -> PerItem:
        """d x0 / d out."""

    def network_input(self, x_t: State, t: Times, process: Process, y: State | None = None) -> State:
        """What the network receives in place of x_t."""
        return x_t

    def network_time(self, t: Times, process: Process) -> PerItem:
        """What the network is told about the time."""
        return process.network_time(t)


@dataclass(frozen=True)
class Clean(Prediction):
    """The output is x0."""

    def to_clean(self, out: State, x_t: State, t: Times, process: Process, y: State | None = None) -> State:
        return out

    def target(self, x0: State, z: State, x_t: State, t: Times, process: Process, y: State | None = None) -> State:
        return x0

    def gain(self, t: Times, process: Process) -> PerItem:
        return torch.ones_like(t)


@dataclass(frozen=True)
class Noise(Prediction):
    """The output is z."""

    def to_clean(self, out: State, x_t: State, t: Times, process: Process, y: State | None = None) -> State:
        w = process.weights(t)
        return ratio(x_t - process.observe(w.cond, y) - expand(w.noise, x_t) * out, expand(w.clean, x_t))

    def target(self, x0: State, z: State, x_t: State, t: Times, process: Process, y: State | None = None) -> State:
        return z

    def gain(self, t: Times, process: Process) -> PerItem:
        w = process.weights(t)
        return -ratio(w.noise, w.clean)


@dataclass(frozen=True)
class Score(Prediction):
    """The output is the gradient of log p(x_t)."""

    def to_clean(self, out: State, x_t: State, t: Times, process: Process, y: State | None = None) -> State:
        w = process.weights(t)
        return ratio(x_t - process.observe(w.cond, y) + expand(w.noise**2, x_t) * out, expand(w.clean, x_t))

    def target(self, x0: State, z: State, x_t: State, t: Times, process: Process, y: State | None = None) -> State:
        return -z / expand(process.weights(t).noise, z)

    def gain(self, t: Times, process: Process) -> PerItem:
        w = process.weights(t)
        return ratio(w.noise**2, w.clean)


@dataclass(frozen=True)
class Velocity(Prediction):
    """The output is the path's velocity."""

    def to_clean(self, out: State, x_t: State, t: Times, process: Process, y: State | None = None) -> State:
        w, d = _path(process, t)
        moved = expand(w.noise, x_t) * (out - process.observe(d.cond, y))
        still = expand(d.noise, x_t) * (x_t - process.observe(w.cond, y))
        return (moved - still) / expand(_wronskian(w, d), x_t)

    def target(self, x0: State, z: State, x_t: State, t: Times, process: Process, y: State | None = None) -> State:
        d = _rates(process, t)
        return expand(d.clean, x0) * x0 + process.observe(d.cond, y) + expand(d.noise, z) * z

    def gain(self, t: Times, process: Process) -> PerItem:
        w, d = _path(process, t)
        return w.noise / _wronskian(w, d)


def _rates(process: Process, t: Tensor) -> Weights:
    if not process.variance_preserving:
        return process.derivatives(t)
    w = process.weights(t)
    return Weights(-w.noise, w.cond, w.clean)


def _path(process: Process, t: Tensor) -> tuple[Weights, Weights]:
    """Weights and rates to solve for x0. Without any noise (s = s' = 0) x0 follows from the velocity alone, and
    s = 1, s' = 0 makes the formula say so."""
    w, d = process.weights(t), _rates(process, t)
    still = (w.noise == 0) & (d.noise == 0)
    return Weights(w.clean, w.cond, torch.where(still, 1.0, w.noise)), d


def _wronskian(w: Weights, d: Weights) -> Tensor:
    return w.noise * d.clean - d.noise * w.clean


@dataclass(frozen=True)
class Karras(Prediction):
    """The output is the unit-variance residual of Karras et al.; sigma_data is the data's standard deviation."""

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if self.sigma_data <= 0:
            raise ValueError(f"expected sigma_data > 0, got {self.sigma_data}; give the data's standard deviation")

    def _scale(self, w: Weights) -> Tensor:
        return (w.noise**2 + (self.sigma_data * w.clean) ** 2).sqrt()

    def to_clean(self, out: State, x_t: State, t: Times, process: Process, y: State | None = None) -> State:
        w = process.weights(t)
        skip = ratio(self.sigma_data**2 * w.clean, self._scale(w) ** 2)
        return expand(skip, x_t) * (x_t - process.observe(w.cond, y)) + expand(self.gain(t, process), x_t) * out

    def target(self, x0: State, z: State, x_t: State, t: Times, process: Process, y: State | None = None) -> State:
        w = process.weights(t)
        below = self.sigma_data * self._scale(w)
        return expand(ratio(w.noise, below), x0) * x0 - expand(ratio(self.sigma_data**2 * w.clean, below), z) * z

    def gain(self, t: Times, process: Process) -> PerItem:
        w = process.weights(t)
        return ratio(w.noise * self.sigma_data, self._scale(w))

    def network_input(self, x_t: State, t: Times, process: Process, y: State | None = None) -> State:
        w = process.weights(t)
        return ratio(x_t - process.observe(w.cond, y), expand(self._scale(w), x_t))

    def network_time(self, t: Times, process: Process) -> PerItem:
        w = process.weights(t)
        tiny = torch.finfo(t.dtype).tiny
        return (w.noise.clamp(min=tiny).log() - w.clean.clamp(min=tiny).log()) / 4


PREDICTIONS: dict[str, type[Prediction]] = {
    "clean": Clean,
    "noise": Noise,
    "score": Score,
    "velocity": Velocity,
    "karras": Karras,
}
