"""A chain whose mean moves from clean to noisy speech: Lu et al., "Conditional Diffusion Probabilistic Model for Speech
Enhancement" (CDiffuSE), ICASSP 2022, https://arxiv.org/abs/2202.05256. With a = sqrt(abar) of a chain of betas, placed
on the time axis as in `fromnoise.processes.betas`, and m = sqrt((1 - a^2)/a), never above 1:

    clean = (1 - m) a,    cond = m a,    noise^2 = 1 - (1 + m^2) a^2
                                                 = (1 - a^2) (1 - a)    where m < 1, free of cancellation
                                                 = 1 - 2 a^2            where m = 1

clean + cond = a and cond^2 + noise^2 = 1 - a^2: x_t is that of the plain chain for a noise that y has a part in, which
is what the prediction "combined" asks of the network.

A published run takes m = 1 at its first time, however far m has come there, so that it starts at the observation,
x = a y + noise z without x0; 1 - 2 a^2 must then be positive. `for_run` says so to a run; training knows nothing of it.
"""

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fromnoise.processes.base import Prior, Times, Weights
from fromnoise.processes.betas import Betas


@dataclass(frozen=True)
class Interpolating(Betas):
    """CDiffuSE's process. end: the time from which on m is 1, nowhere by default. starts_at_observation: whether a run
    takes its first time for `end`."""

    beta_max: float = 0.035
    num_steps: int = 50
    end: float | None = None
    starts_at_observation: bool = True

    def weights(self, t: Times) -> Weights:
        deficit = self.deficit(t)
        a = 1 - deficit
        rest = deficit * (2 - deficit)  # 1 - a^2
        full = rest >= a  # m >= 1
        if self.end is not None:
            full = full | (t >= self.end)
        left = 1 - 2 * a**2
        noise = torch.where(full, torch.where(left > 0, left, 1.0).sqrt() * (left > 0), deficit * (2 - deficit).sqrt())
        cond = torch.where(full, a, (a * rest).sqrt())
        return Weights(a - cond, cond, noise)

    def prior_weights(self, t: Times) -> Prior:
        """The start of a run: y in the place of x0, so that its weight is a."""
        if self.end is not None:
            t = torch.full_like(t, self.end)
        w = self.weights(t)
        return Prior(w.clean + w.cond, w.noise)

    def for_run(self, times: Float[Tensor, " n"]) -> "Interpolating":
        """This process with m = 1 at the run's first time. Raises ValueError where that leaves no noise."""
        if not self.starts_at_observation:
            return self
        first = float(times[0])
        left = float(1 - 2 * (1 - self.deficit(times[:1].double().cpu())) ** 2)
        if left <= 0:
            raise ValueError(
                f"expected a run of the process 'interpolating' to start where prod(1 - beta) is below 0.5, got "
                f"{(1 - left) / 2:.6g} at t = {first:g}; start later or with larger betas, or say "
                "starts_at_observation=False"
            )
        return dataclasses.replace(self, end=first)
