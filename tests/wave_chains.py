"""What the vectors of CDiffuSE, DiffuSE 2021 and DOSE share: a closed-form network, given draws, a noted run."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fromnoise.denoiser import Denoiser
from fromnoise.predictions import Prediction
from fromnoise.processes import Process
from fromnoise.samplers import Grid, PositionNoise, Sampler
from fromnoise.types import Condition
from tests.rules import VECTORS, fill


def arrays_of(name: str) -> dict[str, Tensor]:
    with np.load(VECTORS / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


class Draws(PositionNoise):
    """Draw j = fill(shape, seed + j)."""

    def __init__(self, seed: int) -> None:
        super().__init__([0])
        self.seed = seed

    def __call__(self, like: Tensor) -> Tensor:
        self.draws += 1
        return torch.from_numpy(fill(like.shape, self.seed + self.draws - 1)).to(like)


class Formula(torch.nn.Module):
    """0.4 x + 0.2 tanh(u) + 0.05 sin(0.3 step): u is the mean over the bins of `frames`, each held for 256 samples."""

    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        assert condition.frames is not None
        u = condition.frames.mean(1, keepdim=True).repeat_interleave(256, dim=-1)
        return 0.4 * x + 0.2 * torch.tanh(u) + 0.05 * torch.sin(0.3 * t)[:, None, None]


def padded(y: Tensor, n: int = 1024) -> Tensor:
    """The vectors' wave as `1 1 n`, zeros on the right."""
    return torch.nn.functional.pad(y, (0, n - y.shape[-1])).reshape(1, 1, n)


@dataclass
class Chain:
    """A run with a network, and what the network was given on the way."""

    network: torch.nn.Module
    process: Process
    prediction: Prediction
    sampler: Sampler
    grid: Grid
    num_steps: int
    states: list[Tensor] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)

    def run(self, x: Tensor, y: Tensor | None, told: Condition, noise: PositionNoise, mix: float = 0.0) -> Tensor:
        """The published loop: every state within +-1, `mix` of y in the last one."""
        times = self.grid.times(self.process, self.num_steps)
        denoise = Denoiser(self.network, self.process, self.prediction).bind(y, told)

        def clamp(x: Tensor, i: int, t: Tensor, s: Tensor) -> Tensor:
            if mix and i == self.num_steps - 1:
                assert y is not None
                x = torch.lerp(x, y, mix)
            return x.clamp(-1, 1)

        noted = self._noted(denoise)
        return self.sampler.sample(noted, self.process, x, times, y, noise, after_step=clamp)

    def _noted(self, denoise: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        def noted(x: Tensor, t: Tensor) -> Tensor:
            self.states.append(x)
            self.steps.append(float(self.process.network_time(t)))
            return denoise(x, t)

        return noted
