"""Schroedinger bridge between clean data and the observation, over the reference dx = sqrt(c) k^t dw.

    s2 = sigma(t)^2 = c (k^(2t) - 1)/(2 ln k),    S = s2 at t = 1
    clean = (S - s2)/S,    cond = s2/S,    noise = sqrt(s2 (S - s2)/S)

Jukic et al., "Schroedinger Bridge for Generative Speech Enhancement", 2024, https://arxiv.org/abs/2407.16074. The path
starts at x_1 = y exactly. `eps` stands where SGMSE's code has it, so that noise(1), about 1e-4, has a
derivative.
With complex unit noise, as in SGMSE, c enters divided by 2 (see `ou.py`).
"""

import math
from dataclasses import dataclass

import torch

from fromnoise.processes.base import Prior, Process, Times, Weights


@dataclass(frozen=True)
class Bridge(Process):
    """From clean data at t = 0 to the observation at t = 1, noisy in between."""

    k: float = 2.6
    c: float = 0.4
    eps: float = 1e-8
    t_min: float = 1e-4

    def __post_init__(self) -> None:
        if self.k <= 1 or self.c <= 0 or self.eps <= 0:
            raise ValueError(f"expected k > 1, c > 0 and eps > 0, got {self.k}, {self.c} and {self.eps}; correct them")

    def weights(self, t: Times) -> Weights:
        growth = 2 * math.log(self.k)
        end = self.c * math.expm1(growth) / growth
        s2 = self.c * torch.expm1(growth * t) / growth
        rest = (end - s2).clamp(min=0) + self.eps
        clean, cond = rest / (end + self.eps), s2 / (end + self.eps) / (1 + self.eps)
        return Weights(clean, cond, (s2 * rest).sqrt() / (math.sqrt(end) + self.eps))

    def prior_weights(self, t: Times) -> Prior:
        return Prior(torch.ones_like(t), torch.zeros_like(t))
