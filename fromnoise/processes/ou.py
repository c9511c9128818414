"""Variance-exploding processes, with and without a pull towards the observation; rho = sigma_max/sigma_min, L = ln rho.

`VE`: Song et al., 2021, https://arxiv.org/abs/2011.13456

    clean = 1,  noise = sigma_min rho^t   for t > 0, and 0 at t = 0, the data: sigma_min is the smallest level a network
    is shown, and the step from it to t = 0 is the final denoising of Karras et al., 2022, https://arxiv.org/abs/2206.00364

`OUVE`: Richter et al., "Speech Enhancement and Dereverberation with Diffusion-based Generative Models" (SGMSE+), 2023,
https://arxiv.org/abs/2208.05830: dx = theta (y - x) dt + sigma_min rho^t sqrt(2 L) dw gives

    clean = exp(-theta t),  cond = 1 - exp(-theta t),
    noise^2 = sigma_min^2 (rho^(2t) - exp(-2 theta t)) L/(theta + L)

SGMSE+ draws complex unit noise on a complex spectrogram, of variance 1/2 per component. Here spectrograms are real with
re and im as channels, so its published sigmas enter divided by sqrt(2).
"""

import math
from dataclasses import dataclass

import torch

from fromnoise.processes.base import Prior, Process, Times, Weights


def _check(sigma_min: float, sigma_max: float) -> None:
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"expected 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}; swap or correct them")


@dataclass(frozen=True)
class VE(Process):
    """Growing noise on clean data."""

    sigma_min: float = 5e-4
    sigma_max: float = 5.0
    t_min: float = 1e-4

    def __post_init__(self) -> None:
        _check(self.sigma_min, self.sigma_max)

    def weights(self, t: Times) -> Weights:
        noise = self.sigma_min * torch.exp(t * math.log(self.sigma_max / self.sigma_min))
        return Weights(torch.ones_like(t), torch.zeros_like(t), torch.where(t > 0, noise, 0.0))


@dataclass(frozen=True)
class OUVE(Process):
    """Growing noise while the mean drifts from clean data to the observation."""

    theta: float = 1.5
    sigma_min: float = 0.05
    sigma_max: float = 0.5
    t_min: float = 0.03

    def __post_init__(self) -> None:
        _check(self.sigma_min, self.sigma_max)
        if self.theta <= 0:
            raise ValueError(f"expected theta > 0, got {self.theta}; without a pull to y use the process 've'")

    def weights(self, t: Times) -> Weights:
        growth = math.log(self.sigma_max / self.sigma_min)
        clean = torch.exp(-self.theta * t)
        spread = clean**2 * torch.expm1(2 * (growth + self.theta) * t)  # = rho^(2t) - clean^2
        scale = self.sigma_min * math.sqrt(growth / (self.theta + growth))
        return Weights(clean, -torch.expm1(-self.theta * t), scale * spread.sqrt())

    def prior_weights(self, t: Times) -> Prior:
        """x_1 = y + noise(1) z: the paper puts y where the path still holds exp(-theta) x0."""
        return Prior(torch.ones_like(t), self.weights(t).noise)
