"""The chain of betas that discrete processes are made of, and how its steps lie on the time axis.

    abar_n = prod_{m <= n} (1 - beta_m),  n = 0 .. T-1

(Ho et al., "Denoising Diffusion Probabilistic Models", 2020, https://arxiv.org/abs/2006.11239.) Step n lies at
t = (n + 1)/T and t = 0 is the data (abar = 1). Between steps sqrt(abar) is linear in t, which is how DiffWave (Kong et
al., 2021, https://arxiv.org/abs/2009.09761) places the noise levels of a short schedule. The weights of a process are
functions of the deficit 1 - sqrt(abar), which keeps the digits that 1 - abar would lose in float32.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fromnoise.processes.base import Process, Times


@dataclass(frozen=True)
class Betas(Process):
    """A discrete process: `num_steps` betas evenly from `beta_min` to `beta_max`, or the given `betas`, which rule."""

    beta_min: float = 1e-4
    beta_max: float = 0.02
    num_steps: int = 1000
    betas: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        schedule = self.schedule
        if len(schedule) < 1 or not ((schedule > 0) & (schedule < 1)).all():
            raise ValueError(f"expected at least one beta, all between 0 and 1, got {schedule[:4]} ...; mend them")

    @cached_property
    def schedule(self) -> np.ndarray:
        """The betas, float64."""
        if self.betas is not None:
            return np.asarray(self.betas, dtype=np.float64)
        return np.linspace(self.beta_min, self.beta_max, self.num_steps)

    @cached_property
    def abar(self) -> np.ndarray:
        """The cumulative products of 1 - beta, float64."""
        return np.cumprod(1 - self.schedule)

    @cached_property
    def _deficits(self) -> np.ndarray:
        """1 - sqrt(abar) at t = 0, 1/T .. 1."""
        return np.concatenate([[0.0], -np.expm1(np.log1p(-self.schedule).cumsum() / 2)])

    def deficit(self, t: Times) -> Times:
        """1 - sqrt(abar) at t."""
        table = torch.as_tensor(self._deficits, device=t.device, dtype=t.dtype)
        n = t * (len(table) - 1)
        low = (n.detach().ceil().long() - 1).clamp(0, len(table) - 2)  # at a step, the segment that leads to the data
        return table[low] + (n - low) * (table[low + 1] - table[low])

    @property
    def t_min(self) -> float:
        return 1 / len(self.schedule)

    def noise_level(self, t: Times) -> Tensor:
        """sqrt((1 - abar)/abar): the noise level of the chain, whatever else its noise is mixed with."""
        deficit = self.deficit(t)
        return (deficit * (2 - deficit)).sqrt() / (1 - deficit)

    def network_time(self, t: Times) -> Times:
        """The fractional step, 0 .. T-1."""
        return t * len(self.schedule) - 1

    def trained_times(self) -> Float[Tensor, " n"]:
        steps = len(self.schedule)
        return torch.arange(1, steps + 1, dtype=torch.float64) / steps
