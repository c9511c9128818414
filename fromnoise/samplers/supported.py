"""Samplers that mix the observation y into each state. Their results do not follow the process's marginals.

`Supportive`: Lu et al., "A Study on Speech Enhancement Based on Diffusion Probabilistic Model" (DiffuSE), APSIPA 2021,
https://arxiv.org/abs/2107.11876. With mean and nu of the posterior step (`fromnoise.samplers.ancestral`, eta = 1) and
r = clean_s/clean_t, which in a chain of betas is 1/sqrt(1 - beta),

    x_s = (1 - g) mean + g r y + rest e,     g = support nu, in the last step `final`
    rest = max(0, nu - g r)  as released,  or  sqrt(max(0, nu^2 - (g r)^2)),  as independent noises add up

Since r > 1, rest is 0 in both for the published support = 1: the released sampler is deterministic.

`DOSE`: Tai et al., "DOSE: Diffusion Dropout with Adaptive Prior for Speech Enhancement", NeurIPS 2023,
https://openreview.net/forum?id=8qG1SmeVLE. Each step takes up the path anew, from half the estimate and half of y:

    x_s = clean_s z + cond_s y + noise_s e,    z = (x0' + y)/2;    at the data x0' itself
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from fromnoise.processes.base import Process, State, Times, ratio
from fromnoise.samplers.ancestral import Ancestral
from fromnoise.samplers.base import Denoise, Noise, Sampler
from fromnoise.types import expand


@dataclass(frozen=True)
class Supportive(Sampler):
    """The posterior's mean, supported by y."""

    support: float = 1.0
    final: float = 0.2
    rest: Literal["deviation", "variance"] = "deviation"

    order: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if not (0 <= self.support <= 1 and 0 <= self.final <= 1):
            raise ValueError(f"expected support and final from 0 to 1, got {self.support} and {self.final}; choose so")
        if self.rest not in ("deviation", "variance"):
            raise ValueError(f"expected rest 'deviation' or 'variance', got {self.rest!r}; choose one of them")

    def step(
        self,
        x: State,
        t: Times,
        s: Times,
        state: None,
        denoise: Denoise,
        process: Process,
        y: State | None,
        noise: Noise,
        last: bool,
    ) -> tuple[State, None]:
        y = observed(y, "supportive")
        posterior = Ancestral()
        mean, _ = posterior.step(x, t, s, None, denoise, process, y, noise, True)
        growth = ratio(process.weights(s).clean, process.weights(t).clean)
        nu = posterior.fresh(process, t, s)
        g = self.final + 0 * nu if last else self.support * nu
        x = expand(1 - g, x) * mean + expand(g * growth, x) * y
        if last or self.support == 1:
            return x, None
        if self.rest == "variance":
            std = (nu**2 - (g * growth) ** 2).clamp(min=0).sqrt()
        else:
            std = (nu - g * growth).clamp(min=0)
        return x + expand(std, x) * noise(x), None


@dataclass(frozen=True)
class DOSE(Sampler):
    """Diffuses estimate and y afresh for every step. clamp: bound on the magnitude of each estimate, 0 for none."""

    clamp: float = 0.0

    order: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if self.clamp < 0:
            raise ValueError(f"expected clamp of 0 (none) or more, got {self.clamp}; give the largest magnitude")

    def step(
        self,
        x: State,
        t: Times,
        s: Times,
        state: None,
        denoise: Denoise,
        process: Process,
        y: State | None,
        noise: Noise,
        last: bool,
    ) -> tuple[State, None]:
        y, x0 = observed(y, "dose"), denoise(x, t)
        if self.clamp:
            x0 = x0.clamp(-self.clamp, self.clamp)
        if not bool(s.any()):
            return x0, None
        return process.sample((x0 + y) / 2, s, y, noise(x)), None


def observed(y: State | None, name: str) -> State:
    """y itself; raises ValueError where there is none."""
    if y is None:
        raise ValueError(f"the sampler {name!r} mixes in an observation y, got None; pass y, or use 'ddpm'")
    return y
