"""Straight paths of flow matching: Liu et al., "Flow Straight and Fast", 2023, https://arxiv.org/abs/2209.03003;
Lipman et al., "Flow Matching for Generative Modeling", 2023, https://arxiv.org/abs/2210.02747. In our time, 1 = noise:

    start "noise":        clean = 1 - t,  cond = 0,  noise = sigma t
    start "observation":  clean = 1 - t,  cond = t,  noise = sigma t      so that x_1 = y + sigma z

The second is the path of Lee et al., "FlowSE: Flow Matching-based Speech Enhancement", 2025. With sigma = 0 it is
deterministic: x_1 = y, and one Euler step returns the denoiser's estimate from y, a plain predictive network.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from fromnoise.processes.base import Process, Times, Weights


@dataclass(frozen=True)
class Flow(Process):
    """A straight line from data to noise, or to the observation plus noise."""

    start: Literal["noise", "observation"] = "noise"
    sigma: float = 1.0
    t_min: float = 0.0

    def __post_init__(self) -> None:
        if self.start not in ("noise", "observation"):
            raise ValueError(f"expected start 'noise' or 'observation', got {self.start!r}; choose one of them")
        if self.sigma < 0 or (self.sigma == 0 and self.start == "noise"):
            raise ValueError(f"expected sigma > 0, or 0 with start 'observation', got {self.sigma}; correct it")

    def weights(self, t: Times) -> Weights:
        return Weights(1 - t, t if self.start == "observation" else torch.zeros_like(t), self.sigma * t)
