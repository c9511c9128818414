"""The path every process is: a Gaussian from clean data x0, with an optional observation y, to noise.

    x_t = clean(t) x0 + cond(t) y + noise(t) z,    z ~ N(0, I),    t from 0 (data) to 1 (noise)

Everything else follows from the three weights:

    f(x, t, y) = (clean'/clean) (x - cond y) + cond' y          drift of the forward SDE dx = f dt + g dw
    g(t)^2     = (noise^2)' - 2 (clean'/clean) noise^2          its diffusion, squared
    v          = clean' x0 + cond' y + noise' z                 velocity of the probability flow, given x0

(Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2021,
https://arxiv.org/abs/2011.13456, with the cond term added.) So a new process writes one method, `weights`.
At t = 0 the weights are (1, 0, 0): time 0 is the data itself, and a step to it returns the denoiser's estimate.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from fromnoise.types import expand

State = Float[Tensor, "b *d"]  # x_t, x0, y, z: batch first, time last
Times = Float[Tensor, " b"]  # one t per item
PerItem = Float[Tensor, "b *k"]  # a weight: of t's shape, or `b k` where the first axis of x has weights of its own


@dataclass(frozen=True)
class Weights:
    """The three weights at times t."""

    clean: PerItem
    cond: PerItem
    noise: PerItem


class Prior(NamedTuple):
    """Weights of y and z in the start x_1, from which sampling begins."""

    cond: PerItem
    noise: PerItem


def ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where b is 0: a process without noise implies no noise."""
    zero = b == 0
    return torch.where(zero, 0.0, a / torch.where(zero, 1.0, b))


def pooled(weight: PerItem) -> Times:
    """One weight an item: the root mean square over the axes that have weights of their own."""
    return weight if weight.ndim == 1 else weight.square().flatten(1).mean(1).sqrt()


def _rate(weight: Tensor, t: Tensor) -> Tensor:
    """d weight / dt. Items are independent, so the gradient of a sum over them holds each one's derivative; forward
    differentiation would need no sum, but costs fifty times as much here."""
    if not weight.requires_grad:
        return torch.zeros_like(weight)
    columns = weight.reshape(len(t), -1).unbind(1)
    rates = [torch.autograd.grad(column.sum(), t, retain_graph=True)[0] for column in columns]
    return torch.stack(rates, 1).reshape(weight.shape)


def time_dtype(device: torch.device) -> torch.dtype:
    """float64, for differences of weights near t = 0; float32 where the device (MPS) knows no other."""
    return torch.float32 if device.type == "mps" else torch.float64


class Process(ABC):
    """A Gaussian path. Subclasses are frozen dataclasses that write `weights` and carry or compute `t_min`.

    The hooks `network_time`, `trained_times`, `prior_weights`, `noise_level` and `for_run` have defaults; everything
    else is finished.
    """

    t_min: Any  # float: the smallest time at which a network is trained and called; a field or a property
    variance_preserving: ClassVar[bool] = False  # clean^2 + noise^2 = 1 and cond = 0: velocity is read by angle

    @abstractmethod
    def weights(self, t: Times) -> Weights:
        """The weights at t in [0, 1]: differentiable in t, in t's dtype and on its device."""

    def network_time(self, t: Times) -> Times:
        """What the backbone is told in place of t."""
        return t

    def trained_times(self) -> Float[Tensor, " n"] | None:
        """The times of a discrete process in increasing order; None for a continuous one."""
        return None

    def prior_weights(self, t: Times) -> Prior:
        """Weights of y and z at the start, for t = 1. x0 is unknown there, so a paper whose clean(1) is not 0 says here
        by what it replaces clean(1) x0; the default drops it."""
        w = self.weights(t)
        return Prior(w.cond, w.noise)

    def noise_level(self, t: Times) -> Times:
        """The noise level in units of the clean data, by which grids are spaced: noise/clean, which grows with t in
        every process here; noise alone does not (a bridge). Axes with weights of their own are pooled."""
        w = self.weights(t)
        return pooled(w.noise) / pooled(w.clean)

    def for_run(self, times: Float[Tensor, " n"]) -> "Process":
        """The process that a run through these times follows; another than this one only where a paper's path depends
        on where the run starts."""
        return self

    @cached_property
    def needs_observation(self) -> bool:
        """Whether y enters the path."""
        return bool(self.weights(torch.full((1,), 0.5, dtype=torch.float64, device="cpu")).cond.any())

    @final
    def derivatives(self, t: Times) -> Weights:
        """d weights / dt, exact, by automatic differentiation; works inside `torch.inference_mode` too."""
        with torch.inference_mode(False), torch.enable_grad():
            t = t.detach().clone().requires_grad_()
            w = self.weights(t)
            return Weights(_rate(w.clean, t), _rate(w.cond, t), _rate(w.noise, t))

    @final
    def observe(self, cond: PerItem, y: State | None) -> Tensor | float:
        """The term cond y; 0 without y. Raises ValueError when this process needs a y and got none."""
        if y is not None:
            return expand(cond, y) * y
        if self.needs_observation:
            raise ValueError(f"{type(self).__name__} mixes an observation y into its path, got None; pass y")
        return 0.0

    @final
    def marginal(self, x0: State, t: Times, y: State | None = None) -> tuple[State, PerItem]:
        """Mean (like x0) and standard deviation (like the weights) of x_t."""
        w = self.weights(t)
        return expand(w.clean, x0) * x0 + self.observe(w.cond, y), w.noise

    @final
    def sample(
        self,
        x0: State,
        t: Times,
        y: State | None,
        z: State,
    ) -> State:
        """x_t for the unit noise z."""
        mean, std = self.marginal(x0, t, y)
        return mean + expand(std, z) * z

    @final
    def prior(self, y: State | None, z: State) -> State:
        """x_1, the start of sampling, for the unit noise z. Raises ValueError without the y that it starts from."""
        w = self.prior_weights(torch.ones(z.shape[0], dtype=time_dtype(z.device), device=z.device))
        if y is None and bool(w.cond.any()):
            raise ValueError(f"{type(self).__name__} starts from an observation y, got None; pass y")
        return expand(w.noise, z) * z + self.observe(w.cond, y)

    @final
    def drift(self, x: State, t: Times, y: State | None = None) -> State:
        """f of the forward SDE; infinite where clean(t) = 0."""
        w, d = self.weights(t), self.derivatives(t)
        return expand(d.clean / w.clean, x) * (x - self.observe(w.cond, y)) + self.observe(d.cond, y)

    @final
    def diffusion(self, t: Times) -> PerItem:
        """g of the forward SDE (not squared); infinite where clean(t) = 0."""
        w, d = self.weights(t), self.derivatives(t)
        return (2 * w.noise * (d.noise - d.clean / w.clean * w.noise)).clamp(min=0).sqrt()

    @final
    def implied_noise(
        self,
        x_t: State,
        x0: State,
        t: Times,
        y: State | None = None,
    ) -> State:
        """The z that leads from x0 to x_t; 0 where the process has no noise.

        y is taken off first: a bridge starts at x_1 = y, and there only this order keeps float32 exact.
        """
        w = self.weights(t)
        return ratio((x_t - self.observe(w.cond, y)) - expand(w.clean, x_t) * x0, expand(w.noise, x_t))

    @final
    def velocity(
        self,
        x_t: State,
        x0: State,
        t: Times,
        y: State | None = None,
    ) -> State:
        """dx/dt of the probability flow for the estimate x0; finite also where clean(t) = 0."""
        d = self.derivatives(t)
        z = self.implied_noise(x_t, x0, t, y)
        return expand(d.clean, x_t) * x0 + self.observe(d.cond, y) + expand(d.noise, x_t) * z

    @final
    def time_of(self, sigma: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The times at which the level is sigma, by bisection in [t_min, 1]; outside, the nearer end."""
        low, high = torch.full_like(sigma, self.t_min), torch.ones_like(sigma)
        for _ in range(60):
            middle = (low + high) / 2
            below = self.noise_level(middle) < sigma
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return high
