"""Variance-preserving processes: clean^2 + noise^2 = 1, cond = 0.

`VP`, discrete betas: Ho et al., "Denoising Diffusion Probabilistic Models", 2020, https://arxiv.org/abs/2006.11239,
with abar placed on the time axis as in `fromnoise.processes.betas`

    clean = sqrt(abar),  noise = sqrt(1 - abar)

`VPAngular`: Salimans and Ho, "Progressive Distillation", 2022, https://arxiv.org/abs/2202.00512

    clean = cos(pi t/2),  noise = sin(pi t/2)
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from fromnoise.processes.base import Prior, Process, Times, Weights
from fromnoise.processes.betas import Betas


@dataclass(frozen=True)
class VP(Betas):
    """DDPM's process."""

    variance_preserving: ClassVar[bool] = True

    def weights(self, t: Times) -> Weights:
        deficit = self.deficit(t)
        return Weights(1 - deficit, torch.zeros_like(t), (deficit * (2 - deficit)).sqrt())

    def prior_weights(self, t: Times) -> Prior:
        """x_1 = z: chains start from N(0, I) also where clean(1) of a short schedule is not 0."""
        return Prior(torch.zeros_like(t), torch.ones_like(t))


@dataclass(frozen=True)
class VPAngular(Process):
    """The process of v-diffusion."""

    t_min: float = 0.0

    variance_preserving: ClassVar[bool] = True

    def weights(self, t: Times) -> Weights:
        quarter = math.pi / 2
        # cos(pi t/2) written as a sine, which is exactly 0 at t = 1
        return Weights(torch.sin(quarter * (1 - t)), torch.zeros_like(t), torch.sin(quarter * t))
