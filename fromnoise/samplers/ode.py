"""Deterministic samplers.

`Euler`, `Heun`: the probability flow dx/dt = v(x, t), v = clean' x0' + cond' y + noise' z', in the process's own time.
Heun's last step is Euler's, since v is not defined at noise = 0 (Karras et al., 2022, https://arxiv.org/abs/2206.00364,
Algorithm 1).

`DPMpp2M`: DPM-Solver++ (Lu et al., 2022, https://arxiv.org/abs/2211.01095, Algorithm 2), multistep of order 2, on
u = x - cond y, with lam = log(clean/noise) and h = lam_s - lam_t:

    u_s = (noise_s/noise_t) u_t + clean_s (1 - exp(-h)) D,
    D   = x0'_t + (h / (2 h_before)) (x0'_t - x0'_before)

The first step, and one to or from an infinite lam (pure data, pure noise), takes D = x0'_t.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fromnoise.processes.base import Process, State, Times, Weights, ratio
from fromnoise.samplers.base import Denoise, Noise, Sampler, flow_velocity
from fromnoise.types import expand


@dataclass(frozen=True)
class Euler(Sampler):
    """One call per step."""

    order: ClassVar[int] = 1
    follows: ClassVar[bool] = True

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
        return x + expand(s - t, x) * flow_velocity(process, x, denoise(x, t), t, y), None


@dataclass(frozen=True)
class Heun(Sampler):
    """Two calls per step, one in the last."""

    order: ClassVar[int] = 2
    follows: ClassVar[bool] = True

    def evaluations(self, num_steps: int) -> int:
        return 2 * num_steps - 1

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
        dt = expand(s - t, x)
        v = flow_velocity(process, x, denoise(x, t), t, y)
        ahead = x + dt * v
        if last:
            return ahead, None
        return x + dt * (v + flow_velocity(process, ahead, denoise(ahead, s), s, y)) / 2, None


@dataclass(frozen=True)
class DPMpp2M(Sampler):
    """One call per step; the state is the previous estimate and its log-SNR."""

    order: ClassVar[int] = 2

    def step(
        self,
        x: State,
        t: Times,
        s: Times,
        state: tuple[Tensor, Tensor] | None,
        denoise: Denoise,
        process: Process,
        y: State | None,
        noise: Noise,
        last: bool,
    ) -> tuple[State, tuple[Tensor, Tensor]]:
        at, to, x0 = process.weights(t), process.weights(s), denoise(x, t)
        lam = _half_log_snr(at)
        estimate = x0
        if state is not None:
            before, lam_before = state
            lead = (_half_log_snr(to) - lam) / (lam - lam_before) / 2
            estimate = x0 + expand(torch.where(lead.isfinite(), lead, 0.0), x) * (x0 - before)
        kept = ratio(to.noise, at.noise)
        u = expand(kept, x) * (x - process.observe(at.cond, y)) + expand(to.clean - kept * at.clean, x) * estimate
        return u + process.observe(to.cond, y), (x0, lam)


def _half_log_snr(w: Weights) -> Tensor:
    return w.clean.log() - w.noise.log()
