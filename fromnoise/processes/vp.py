"""Variance-preserving processes: clean^2 + noise^2 = 1, cond = 0.

`VP`, discrete betas: Ho et al., "Denoising Diffusion Probabilistic Models", 2020, https://arxiv.org/abs/2006.11239

    abar_n = prod_{m <= n} (1 - beta_m),  n = 0 .. T-1;    clean = sqrt(abar),  noise = sqrt(1 - abar)

Step n lies at t = (n + 1)/T and t = 0 is the data (abar = 1). Between steps clean is linear in t, which is how
DiffWave (Kong et al., 2021, https://arxiv.org/abs/2009.09761) places the noise levels of a short schedule.

`VPAngular`: Salimans and Ho, "Progressive Distillation", 2022, https://arxiv.org/abs/2202.00512

    clean = cos(pi t/2),  noise = sin(pi t/2)
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fromnoise.processes.base import Prior, Process, Times, Weights


@dataclass(frozen=True)
class VP(Process):
    """DDPM's process: `num_steps` betas evenly from `beta_min` to `beta_max`, or the given `betas`, which rule."""

    beta_min: float = 1e-4
    beta_max: float = 0.02
    num_steps: int = 1000
    betas: tuple[float, ...] | None = None

    variance_preserving: ClassVar[bool] = True

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
    def _deficit(self) -> np.ndarray:
        """1 - sqrt(abar) at t = 0, 1/T .. 1: keeps the digits that 1 - clean^2 would lose in float32."""
        return np.concatenate([[0.0], -np.expm1(np.log1p(-self.schedule).cumsum() / 2)])

    @property
    def t_min(self) -> float:
        return 1 / len(self.schedule)

    def weights(self, t: Times) -> Weights:
        table = torch.as_tensor(self._deficit, device=t.device, dtype=t.dtype)
        n = t * (len(table) - 1)
        low = (n.detach().ceil().long() - 1).clamp(0, len(table) - 2)  # at a step, the segment that leads to the data
        deficit = table[low] + (n - low) * (table[low + 1] - table[low])
        return Weights(1 - deficit, torch.zeros_like(t), (deficit * (2 - deficit)).sqrt())

    def prior_weights(self, t: Times) -> Prior:
        """x_1 = z: chains start from N(0, I) also where clean(1) of a short schedule is not 0."""
        return Prior(torch.zeros_like(t), torch.ones_like(t))

    def network_time(self, t: Times) -> Times:
        """The fractional step, 0 .. T-1."""
        return t * len(self.schedule) - 1

    def trained_times(self) -> Float[Tensor, " n"]:
        steps = len(self.schedule)
        return torch.arange(1, steps + 1, dtype=torch.float64) / steps


@dataclass(frozen=True)
class VPAngular(Process):
    """The process of v-diffusion."""

    t_min: float = 0.0

    variance_preserving: ClassVar[bool] = True

    def weights(self, t: Times) -> Weights:
        quarter = math.pi / 2
        # cos(pi t/2) written as a sine, which is exactly 0 at t = 1
        return Weights(torch.sin(quarter * (1 - t)), torch.zeros_like(t), torch.sin(quarter * t))
