"""How a network's output is read. With the weights a = clean, c = cond, s = noise of the process at t and x = x_t:

    clean      out = x0                            x0 = out
    noise      out = z                             x0 = (x - c y - s out)/a
    combined   out = (c (y - x0) + s z)/S          x0 = (x - S out)/(a + c),         S^2 = s^2 + c^2
    score      out = -z/s                          x0 = (x - c y + s^2 out)/a
    velocity   out = a' x0 + c' y + s' z           x0 = (s (out - c' y) - s' (x - c y))/(s a' - s' a)
    karras     out = (s x0 - d^2 a z)/(d S)        x0 = (d^2 a (x - c y) + s d S out)/S^2,   S^2 = s^2 + d^2 a^2
    sgmse      value = c_skip x + c_out out        x0 from the value, which is x0, the score or the mean a x0 + c y

velocity is dx/dt along the path (flow matching). A variance-preserving process counts it per angle instead of per
time, a' = -s and s' = a: the v of Salimans and Ho, 2022, https://arxiv.org/abs/2202.00512.
combined takes y's part in x for noise, as CDiffuSE does (see `fromnoise.processes.interpolating`, where a + c and S are
sqrt(abar) and sqrt(1 - abar)); the network need not be told y. Without y it is the noise.
karras is the preconditioning of Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models",
2022, https://arxiv.org/abs/2206.00364, Table 1, with sigma = s/a and d = sigma_data, multiplied out so that nothing
divides by a or s: the network receives (x - c y)/S and ln(sigma)/4.
sgmse is the preconditioning of SGMSE+'s code (Richter et al., "Investigating Training Objectives for Generative Speech
Enhancement", 2024, https://arxiv.org/abs/2409.10753), see `SGMSE`.

`to_clean` and `target` invert each other; `gain` is d x0 / d out, which turns a weight on the error of x0 into one on
the error of the output. Where a = 0 an estimate of the noise says nothing of x0: it is read as 0, the data's mean; so
is a velocity where s a' = s' a.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from fromnoise.processes.base import PerItem, Process, State, Times, Weights, pooled, ratio
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

    def signal_gain(self, t: Times, process: Process) -> Times | None:
        """By what the condition's signal is multiplied at each call; None: it is told as it is."""
        return None

    @property
    def degree(self) -> int:
        """The power of the data's scale that the output grows with: unit noise, 0, has no scale."""
        return 0


@dataclass(frozen=True)
class Clean(Prediction):
    """The output is x0."""

    @property
    def degree(self) -> int:
        return 1

    def to_clean(self, out: State, x_t: State, t: Times, process: Process, y: State | None = None) -> State:
        return out

    def target(self, x0: State, z: State, x_t: State, t: Times, process: Process, y: State | None = None) -> State:
        return x0

    def gain(self, t: Times, process: Process) -> PerItem:
        return torch.ones_like(process.weights(t).clean)


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
class Combined(Prediction):
    """The output is all of x_t that is not x0, y's share included, in units of S."""

    def to_clean(self, out: State, x_t: State, t: Times, process: Process, y: State | None = None) -> State:
        w = process.weights(t)
        return ratio(x_t - expand(self._scale(w), x_t) * out, expand(w.clean + w.cond, x_t))

    def target(self, x0: State, z: State, x_t: State, t: Times, process: Process, y: State | None = None) -> State:
        w = process.weights(t)
        moved = process.observe(w.cond, y) - expand(w.cond, x0) * x0
        return ratio(moved + expand(w.noise, z) * z, expand(self._scale(w), z))

    def gain(self, t: Times, process: Process) -> PerItem:
        w = process.weights(t)
        return -ratio(self._scale(w), w.clean + w.cond)

    def _scale(self, w: Weights) -> Tensor:
        return (w.noise**2 + w.cond**2).sqrt()


@dataclass(frozen=True)
class Score(Prediction):
    """The output is the gradient of log p(x_t)."""

    @property
    def degree(self) -> int:
        return -1

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

    @property
    def degree(self) -> int:
        return 1

    def to_clean(self, out: State, x_t: State, t: Times, process: Process, y: State | None = None) -> State:
        w, d = _path(process, t)
        moved = expand(w.noise, x_t) * (out - process.observe(d.cond, y))
        still = expand(d.noise, x_t) * (x_t - process.observe(w.cond, y))
        return ratio(moved - still, expand(_wronskian(w, d), x_t))

    def target(self, x0: State, z: State, x_t: State, t: Times, process: Process, y: State | None = None) -> State:
        d = _rates(process, t)
        return expand(d.clean, x0) * x0 + process.observe(d.cond, y) + expand(d.noise, z) * z

    def gain(self, t: Times, process: Process) -> PerItem:
        w, d = _path(process, t)
        return ratio(w.noise, _wronskian(w, d))


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
        return (pooled(w.noise).clamp(min=tiny).log() - pooled(w.clean).clamp(min=tiny).log()) / 4


Reading = Literal["clean", "score", "mean"]
InputScale = Literal["1", "edm"]
OutputScale = Literal["1", "-1", "sigma", "1/sigma", "edm"]
SkipScale = Literal["0", "edm"]
NetworkScale = Literal["none", "1/sigma", "1/t"]


@dataclass(frozen=True)
class SGMSE(Prediction):
    """The output F is read as value = c_skip x + c_out F, with F divided by sigma or t where `network_scaling` says so.

    reads: what the value is: "clean", "score", or "mean", the mean of x_t, which the published loss "denoiser" has in
    place of x0 and where c_out and c_skip do not count. With d = sigma_data and R^2 = sigma^2 + d^2, "edm" means
    c_in = 1/R, for x and the condition's signal, c_out = sigma d/R and c_skip = d^2/R^2. noise_unit: sigma is so many
    times the process's noise: sqrt(2) for published models, which count complex noise (see `fromnoise.processes.ou`);
    their score is then that of complex data. c_out "-1" is the first networks' score = -F.
    """

    reads: Reading = "clean"
    c_in: InputScale = "1"
    c_out: OutputScale = "1"
    c_skip: SkipScale = "0"
    network_scaling: NetworkScale = "none"
    sigma_data: float = 0.1
    noise_unit: float = 1.0

    def __post_init__(self) -> None:
        settings = {"reads": Reading, "c_in": InputScale, "c_out": OutputScale, "c_skip": SkipScale}
        for name, hint in (settings | {"network_scaling": NetworkScale}).items():
            if getattr(self, name) not in get_args(hint):
                raise ValueError(
                    f"expected {name} {', '.join(get_args(hint))}, got {getattr(self, name)!r}; choose one"
                )
        if self.sigma_data <= 0 or self.noise_unit <= 0:
            raise ValueError(
                f"expected sigma_data > 0 and noise_unit > 0, got {self.sigma_data} and {self.noise_unit}; correct them"
            )

    def to_clean(self, out: State, x_t: State, t: Times, process: Process, y: State | None = None) -> State:
        w = process.weights(t)
        skip, scale = self._scales(t, w)
        value = expand(skip, x_t) * x_t + expand(scale, x_t) * out
        if self.reads == "clean":
            return value
        mean = value if self.reads == "mean" else x_t + expand(self._sigma(w) ** 2, x_t) * value
        return ratio(mean - process.observe(w.cond, y), expand(w.clean, x_t))

    def target(self, x0: State, z: State, x_t: State, t: Times, process: Process, y: State | None = None) -> State:
        w = process.weights(t)
        skip, scale = self._scales(t, w)
        value = {
            "clean": lambda: x0,
            "mean": lambda: expand(w.clean, x0) * x0 + process.observe(w.cond, y),
            "score": lambda: -ratio(expand(w.noise, z) * z, expand(self._sigma(w) ** 2, z)),
        }[self.reads]()
        return ratio(value - expand(skip, x_t) * x_t, expand(scale, x_t))

    def gain(self, t: Times, process: Process) -> PerItem:
        w = process.weights(t)
        _, scale = self._scales(t, w)
        if self.reads == "clean":
            return scale
        return ratio(scale if self.reads == "mean" else self._sigma(w) ** 2 * scale, w.clean)

    def network_input(self, x_t: State, t: Times, process: Process, y: State | None = None) -> State:
        scale = self.signal_gain(t, process)
        return x_t if scale is None else expand(scale, x_t) * x_t

    def signal_gain(self, t: Times, process: Process) -> Times | None:
        return None if self.c_in == "1" else 1 / self._root(self.noise_unit * pooled(process.weights(t).noise))

    @property
    def degree(self) -> int:
        return -1 if self.reads == "score" else 1

    def _sigma(self, w: Weights) -> Tensor:
        return self.noise_unit * w.noise

    def _root(self, sigma: Tensor) -> Tensor:
        return (sigma**2 + self.sigma_data**2).sqrt()

    def _scales(self, t: Tensor, w: Weights) -> tuple[Tensor, Tensor]:
        """c_skip, and by what the network's own output is multiplied."""
        sigma = self._sigma(w)
        one, root = torch.ones_like(sigma), self._root(sigma)
        scale = {
            "1": one,
            "-1": -one,
            "sigma": sigma,
            "1/sigma": ratio(one, sigma),
            "edm": sigma * self.sigma_data / root,
        }[self.c_out if self.reads != "mean" else "1"]
        if self.network_scaling != "none":
            scale = ratio(scale, sigma if self.network_scaling == "1/sigma" else expand(t, sigma))
        skips = self.c_skip == "edm" and self.reads != "mean"
        return (self.sigma_data / root) ** 2 if skips else torch.zeros_like(sigma), scale


PREDICTIONS: dict[str, type[Prediction]] = {
    "clean": Clean,
    "noise": Noise,
    "combined": Combined,
    "score": Score,
    "velocity": Velocity,
    "karras": Karras,
    "sgmse": SGMSE,
}
