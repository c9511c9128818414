"""Training objectives: draw a time and a noise, form x_t, weigh the error of the network's output.

    L = mean over items of  mean over entries of  | sqrt(w(t)) (out - target) |^p,    p = 2 or 1,
    x_t = clean(t) x0 + cond(t) y + noise(t) z,    t = T(u),  u ~ U(0, 1),  z ~ N(0, I)

A time sampler is the map T, so that u and z are all the randomness there is. A weighting gives w on the squared error
of the network's own target; one that a paper states for the error of x0 is multiplied by gain^2 = (d x0/d out)^2.
Losses that need the estimate in another domain (a wave, a permutation of sources) take `draw` and do the rest
themselves.

drop_state is DOSE's dropout (Tai et al., NeurIPS 2023, https://openreview.net/forum?id=8qG1SmeVLE): with that
probability unit noise stands in x_t in the place of x0, so that only the condition can tell the target, which stays.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fromnoise.denoiser import Denoiser
from fromnoise.predictions import Prediction
from fromnoise.processes.base import PerItem, Process, State, Times, pooled, ratio, time_dtype
from fromnoise.types import Condition, expand


class TimeSampler(ABC):
    """The inverse distribution function of t."""

    @abstractmethod
    def times(self, u: Times, process: Process) -> Times:
        """The times for uniform u in [0, 1)."""


@dataclass(frozen=True)
class UniformTime(TimeSampler):
    """t uniform on [t_min, 1]; t_min defaults to the process's."""

    t_min: float | None = None

    def times(self, u: Times, process: Process) -> Times:
        low = process.t_min if self.t_min is None else self.t_min
        return low + (1 - low) * u


@dataclass(frozen=True)
class DiscreteTime(TimeSampler):
    """One of the trained steps of a discrete process, each equally often."""

    def times(self, u: Times, process: Process) -> Times:
        steps = process.trained_times()
        if steps is None:
            raise ValueError(f"expected a process with discrete steps, got {type(process).__name__}; use 'uniform'")
        return steps.to(u)[(u * len(steps)).long()]


@dataclass(frozen=True)
class LogNormalTime(TimeSampler):
    """sigma = noise/clean log-normal, ln sigma ~ N(mean, std^2), cut to the process's range (Karras et al., 2022)."""

    mean: float = -1.2
    std: float = 1.2

    def times(self, u: Times, process: Process) -> Times:
        tiny = torch.finfo(u.dtype).eps
        return process.time_of(torch.exp(self.mean + self.std * torch.special.ndtri(u.clamp(min=tiny))))


@dataclass(frozen=True)
class FixedTime(TimeSampler):
    """Always the same t; t = 1 trains the first step alone."""

    t: float = 1.0

    def times(self, u: Times, process: Process) -> Times:
        return torch.full_like(u, self.t)


@dataclass(frozen=True)
class VarianceTime(TimeSampler):
    """t with a density in proportion to the noise's standard deviation, on [t_min, 1]: DiffSep's `varprop`. Every axis
    counts; DiffSep's code counts mean and differences alike, which is the same for two sources."""

    num_cells: int = 4096

    def times(self, u: Times, process: Process) -> Times:
        edges = torch.linspace(process.t_min, 1, self.num_cells + 1, device=u.device, dtype=u.dtype)
        noise = pooled(process.weights(edges).noise)
        mass = torch.cat([noise.new_zeros(1), (noise[1:] + noise[:-1]).cumsum(0)])
        mass = mass / mass[-1]
        cell = (torch.searchsorted(mass, u.contiguous(), right=True) - 1).clamp(0, self.num_cells - 1)
        part = (u - mass[cell]) / (mass[cell + 1] - mass[cell])
        return edges[cell] + part * (edges[cell + 1] - edges[cell])


class Weighting(ABC):
    """The weight on the squared error of the network's own target."""

    @abstractmethod
    def weight(self, t: Times, process: Process, prediction: Prediction) -> PerItem:
        """w(t)."""


@dataclass(frozen=True)
class Unit(Weighting):
    """1: the plain error of whatever the network predicts."""

    def weight(self, t: Times, process: Process, prediction: Prediction) -> PerItem:
        return torch.ones_like(t)


@dataclass(frozen=True)
class SNR(Weighting):
    """(clean/noise)^2 on the error of x0: the error of the noise, and sigma^2-weighted score matching,
    E |noise score + z|^2, whatever the network predicts."""

    def weight(self, t: Times, process: Process, prediction: Prediction) -> PerItem:
        return _snr(t, process) * prediction.gain(t, process) ** 2


@dataclass(frozen=True)
class MinSNR(Weighting):
    """min(SNR, gamma) on the error of x0 (Hang et al., "Efficient Diffusion Training via Min-SNR Weighting", 2023,
    https://arxiv.org/abs/2303.09556)."""

    gamma: float = 5.0

    def weight(self, t: Times, process: Process, prediction: Prediction) -> PerItem:
        return _snr(t, process).clamp(max=self.gamma) * prediction.gain(t, process) ** 2


@dataclass(frozen=True)
class KarrasWeight(Weighting):
    """(sigma^2 + d^2)/(sigma d)^2 on the error of x0, sigma = noise/clean, d = sigma_data (Karras et al., 2022): unit
    for the prediction "karras" with the same sigma_data."""

    sigma_data: float = 0.5

    def weight(self, t: Times, process: Process, prediction: Prediction) -> PerItem:
        return (self.sigma_data**-2 + _snr(t, process)) * prediction.gain(t, process) ** 2


@dataclass(frozen=True)
class Variance(Weighting):
    """noise^2 on the error of the mean clean x0 + cond y: SGMSE's weighting "sigma^2" of its loss "denoiser"."""

    def weight(self, t: Times, process: Process, prediction: Prediction) -> PerItem:
        w = process.weights(t)
        return (w.noise * w.clean * prediction.gain(t, process)) ** 2


def _snr(t: Tensor, process: Process) -> Tensor:
    w = process.weights(t)
    return ratio(w.clean, w.noise) ** 2


TIMES: dict[str, type[TimeSampler]] = {
    "uniform": UniformTime,
    "discrete": DiscreteTime,
    "log_normal": LogNormalTime,
    "fixed": FixedTime,
    "variance": VarianceTime,
}
WEIGHTINGS: dict[str, type[Weighting]] = {
    "unit": Unit,
    "snr": SNR,
    "score": SNR,
    "min_snr": MinSNR,
    "karras": KarrasWeight,
    "variance": Variance,
}


@dataclass(frozen=True)
class Draw:
    """One random training example: the state, its time, the unit noise in it and the weight of its squared error."""

    x_t: State
    t: Times
    z: State
    weight: PerItem


@dataclass(frozen=True)
class Objective:
    """What is drawn and how errors count. The process and the prediction come with the denoiser."""

    times: TimeSampler = field(default_factory=UniformTime)
    weighting: Weighting = field(default_factory=Unit)
    norm: Literal["l2", "l1"] = "l2"
    drop_state: float = 0.0

    def __post_init__(self) -> None:
        if self.norm not in ("l2", "l1"):
            raise ValueError(f"expected norm 'l2' or 'l1', got {self.norm!r}; choose one of them")
        if not 0 <= self.drop_state <= 1:
            raise ValueError(f"expected drop_state from 0 to 1, a probability, got {self.drop_state}; choose within")

    def draw(
        self,
        process: Process,
        prediction: Prediction,
        x0: State,
        y: State | None = None,
        generator: torch.Generator | None = None,
        u: Times | None = None,
        z: State | None = None,
        shown: State | None = None,
    ) -> Draw:
        """Times and noise from `generator` or torch's own, unless the uniform `u` and the unit noise `z` are given, or
        what is `shown` of x0 in x_t."""
        device = x0.device if generator is None else generator.device
        if u is None:
            u = torch.rand(len(x0), generator=generator, device=device, dtype=time_dtype(device))
        if z is None:
            z = torch.randn(x0.shape, generator=generator, device=device, dtype=x0.dtype).to(x0.device)
        t = self.times.times(u.to(x0.device, time_dtype(x0.device)), process)
        shown = self.shown(x0, generator) if shown is None else shown
        return Draw(process.sample(shown, t, y, z), t, z, self.weighting.weight(t, process, prediction))

    def shown(self, x0: State, generator: torch.Generator | None = None) -> State:
        """x0, with unit noise for the items whose state is dropped."""
        if self.drop_state == 0:
            return x0
        device = x0.device if generator is None else generator.device
        dropped = torch.rand(len(x0), generator=generator, device=device) < self.drop_state
        noise = torch.randn(x0.shape, generator=generator, device=device, dtype=x0.dtype)
        return torch.where(expand(dropped.to(x0.device), x0).bool(), noise.to(x0.device), x0)

    def losses(
        self,
        denoiser: Denoiser,
        x0: State,
        y: State | None,
        condition: Condition | None,
        draw: Draw,
        mask: Bool[Tensor, "b *m"] | None = None,
    ) -> Float[Tensor, " b"]:
        """The loss of each item; `mask` is True on what counts, see `masked_mean`."""
        return self.compare(denoiser, denoiser.raw(draw.x_t, draw.t, y, condition), x0, y, draw, mask)

    def compare(
        self,
        denoiser: Denoiser,
        out: State,
        x0: State,
        y: State | None,
        draw: Draw,
        mask: Bool[Tensor, "b *m"] | None = None,
    ) -> Float[Tensor, " b"]:
        """The loss of each item, for the network's output; `out` is known where it serves several targets."""
        target = denoiser.prediction.target(x0, draw.z, draw.x_t, draw.t, denoiser.process, y)
        error = expand(draw.weight.sqrt(), out) * (out - target)
        return masked_mean(error.square() if self.norm == "l2" else error.abs(), mask)

    def loss(
        self,
        denoiser: Denoiser,
        x0: State,
        y: State | None = None,
        condition: Condition | None = None,
        generator: torch.Generator | None = None,
        mask: Bool[Tensor, "b *m"] | None = None,
        draw: Draw | None = None,
    ) -> Float[Tensor, ""]:
        """The mean of the items' losses, over a fresh draw unless one is given."""
        draw = draw or self.draw(denoiser.process, denoiser.prediction, x0, y, generator)
        return self.losses(denoiser, x0, y, condition, draw, mask).mean()


def masked_mean(values: State, mask: Bool[Tensor, "b *m"] | None = None) -> Float[Tensor, " b"]:
    """The mean of each item over everything but the batch, or over what the mask keeps.

    mask: `b t` for frames of the last axis, or as many axes as the values, where an axis of size 1 stands for all.
    """
    if mask is None:
        return values.flatten(1).mean(1)
    if mask.ndim == 2 < values.ndim:
        mask = mask.reshape(len(mask), *(1,) * (values.ndim - 2), -1)
    keep = mask.to(values.dtype).expand_as(values)
    return (values * keep).flatten(1).sum(1) / keep.flatten(1).sum(1).clamp(min=1)
