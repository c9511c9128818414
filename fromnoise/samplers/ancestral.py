"""One step of any Gaussian path, from t to an earlier s, for the estimate x0' and the noise z' it implies:

    x_s = clean_s x0' + cond_s y + sqrt(noise_s^2 - nu^2) z' + nu e,    e ~ N(0, I)
    nu  = eta noise_s sqrt(1 - (clean_t noise_s / (clean_s noise_t))^2)

eta = 1 is the posterior q(x_s | x_t, x0'): DDPM (Ho et al., 2020, https://arxiv.org/abs/2006.11239, Eq. 7) and the
stochastic sampler of the Schroedinger bridge; eta = 0 is DDIM (Song et al., 2021, https://arxiv.org/abs/2010.02502,
Eq. 12) and the bridge's ODE. For every eta, x_s has the process's marginal when x0' is right.
"""

from dataclasses import dataclass
from typing import ClassVar

from fromnoise.processes.base import PerItem, Process, State, Times, ratio
from fromnoise.samplers.base import Denoise, Noise, Sampler
from fromnoise.types import expand


@dataclass(frozen=True)
class Ancestral(Sampler):
    """eta scales the fresh noise; with `denoise` the last step returns its mean, nu e left out."""

    eta: float = 1.0
    denoise: bool = True

    order: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"expected eta from 0 (deterministic) to 1 (posterior), got {self.eta}; choose within")

    def fresh(self, process: Process, t: Times, s: Times) -> PerItem:
        """nu, the standard deviation of the fresh noise."""
        at, to = process.weights(t), process.weights(s)
        kept = ratio(at.clean * to.noise, to.clean * at.noise)
        return self.eta * to.noise * (1 - kept**2).clamp(min=0).sqrt()

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
        x0 = denoise(x, t)
        z = process.implied_noise(x, x0, t, y)
        to, nu = process.weights(s), self.fresh(process, t, s)
        kept = (to.noise**2 - nu**2).clamp(min=0).sqrt()
        x = expand(to.clean, x) * x0 + process.observe(to.cond, y) + expand(kept, x) * z
        if self.eta > 0 and not (last and self.denoise):
            x = x + expand(nu, x) * noise(x)
        return x, None


@dataclass(frozen=True)
class DDPM(Ancestral):
    """The posterior: eta = 1."""

    eta: float = 1.0


@dataclass(frozen=True)
class DDIM(Ancestral):
    """The deterministic limit: eta = 0."""

    eta: float = 0.0
