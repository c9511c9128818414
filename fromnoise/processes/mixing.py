"""Sources that flow together: Scheibler et al., "Diffusion-based Generative Speech Source Separation" (DiffSep), ICASSP
2023, https://arxiv.org/abs/2210.17327. With K sources, A = 11'/K and P = I - A the paper's SDE is

    dx = -gamma P x dt + sigma_min rho^t sqrt(2 L) dw,    rho = sigma_max/sigma_min,  L = ln rho
    mean of x_t = (A + exp(-gamma t) P) x0,    covariance = lam1 A + lam2 P
    lam1 = sigma_min^2 (rho^(2t) - 1),         lam2 = sigma_min^2 (rho^(2t) - exp(-2 gamma t)) L/(gamma + L)

In an orthonormal basis of the sources whose first axis is their scaled mean, A and P are diagonal, so the path is

    clean = (1, exp(-gamma t), ...),   cond = 0,   noise = (sqrt(lam1), sqrt(lam2), ...)

with weights of its own for each of the K channels of the state: no matrix and no root of one, for any K. The start puts
the mixture in the place of the mean that x_1 has: x_1 = y + noise(1) z, where y is K equal parts of the mixture in
that basis, (mixture/sqrt(K), 0, ...).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fromnoise.processes.base import Prior, Process, Times, Weights


@dataclass(frozen=True)
class Mixing(Process):
    """The sources' mean stays, their differences decay at the rate gamma, noise grows on both."""

    sources: int = 2
    gamma: float = 2.0
    sigma_min: float = 0.05
    sigma_max: float = 0.5
    t_min: float = 0.03

    def __post_init__(self) -> None:
        if self.sources < 2:
            raise ValueError(f"expected 2 sources or more, got {self.sources}; one source needs no separation")
        if not (0 < self.sigma_min < self.sigma_max and self.gamma > 0):
            raise ValueError(
                f"expected 0 < sigma_min < sigma_max and gamma > 0, got {self.sigma_min}, {self.sigma_max} and "
                f"{self.gamma}; correct them"
            )

    def weights(self, t: Times) -> Weights:
        growth = math.log(self.sigma_max / self.sigma_min)
        decay = torch.exp(-self.gamma * t)
        first = self.sigma_min * torch.expm1(2 * growth * t).sqrt()
        spread = decay**2 * torch.expm1(2 * (growth + self.gamma) * t)  # = rho^(2t) - decay^2
        rest = self.sigma_min * math.sqrt(growth / (self.gamma + growth)) * spread.sqrt()
        clean = self._axes(torch.ones_like(t), decay)
        return Weights(clean, torch.zeros_like(clean), self._axes(first, rest))

    def prior_weights(self, t: Times) -> Prior:
        """x_1 = y + noise(1) z: the paper puts the mixture where the path still holds some of the differences."""
        w = self.weights(t)
        return Prior(torch.ones_like(w.clean), w.noise)

    def _axes(self, first: Tensor, rest: Tensor) -> Tensor:
        """`b K`: one weight for the mean, one for all differences."""
        return torch.stack([first, *[rest] * (self.sources - 1)], dim=-1)
