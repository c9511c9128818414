"""Predictor-corrector sampling: Song et al., 2021, https://arxiv.org/abs/2011.13456, App. G, as in SGMSE+ and DiffSep.

With score = -z'/noise, f and g of the forward SDE, dt = t - s and G = g sqrt(dt), the predictor goes from t to s:

    reverse_diffusion, euler_maruyama   x_mean = x - f dt + G^2 score,       x = x_mean + G e
    probability_flow                    x_mean = x - f dt + G^2 score / 2,   x = x_mean

and before it the corrector makes `corrector_steps` Langevin steps at t, each with a fresh score:

    x_mean = x + size score,   x = x_mean + sqrt(2 size) e
    ald, ald2   size = 2 (snr noise)^2;  where an axis has weights of its own, ald uses the first for all
    langevin    size = 2 (snr |e|/|score|)^2

The two named SDE predictors are the same algebra for every process here, where g does not depend on x. With `denoise`
the run returns the x_mean of its last predictor. `step_rule` "even" is what DiffSep's and StoRM's code does: the
predictor's dt is 1/num_steps, whatever the grid. The code writes f - g^2 score as v + g^2 z'/(2 noise), v being the
velocity: at a bridge's start f alone would lose every digit of float32. g is infinite where clean = 0, so that flow
and angular processes start a stochastic run below t = 1.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from fromnoise.processes.base import Process, State, Times, ratio
from fromnoise.samplers.base import Denoise, Noise, Sampler, flow_velocity
from fromnoise.types import expand

PredictorName = Literal["reverse_diffusion", "euler_maruyama", "probability_flow"]
CorrectorName = Literal["none", "ald", "ald2", "langevin"]
StepRule = Literal["exact", "even"]


@dataclass(frozen=True)
class PredictorCorrector(Sampler):
    """Alternates Langevin steps at t with a step to s.

    batch_norms: average the two norms of `langevin` over the batch, as SGMSE does; an item's result then depends on
    its batch.
    """

    predictor: PredictorName = "reverse_diffusion"
    corrector: CorrectorName = "ald"
    corrector_steps: int = 1
    snr: float = 0.5
    denoise: bool = True
    batch_norms: bool = False
    step_rule: StepRule = "exact"

    order: ClassVar[int] = 1
    follows: ClassVar[bool] = True

    def __post_init__(self) -> None:
        settings = {self.predictor: PredictorName, self.corrector: CorrectorName, self.step_rule: StepRule}
        for value, choices in ((value, get_args(hint)) for value, hint in settings.items()):
            if value not in choices:
                raise ValueError(f"expected one of {', '.join(choices)}, got {value!r}; choose one of them")

    def evaluations(self, num_steps: int) -> int:
        return num_steps * (1 if self.corrector == "none" else 1 + self.corrector_steps)

    def init(self, x: State, times: Float[Tensor, " n"]) -> float | None:
        """The dt of every step, where all are the same."""
        return 1 / (len(times) - 1) if self.step_rule == "even" else None

    def step(
        self,
        x: State,
        t: Times,
        s: Times,
        state: float | None,
        denoise: Denoise,
        process: Process,
        y: State | None,
        noise: Noise,
        last: bool,
    ) -> tuple[State, float | None]:
        if self.corrector != "none":
            for _ in range(self.corrector_steps):
                x, _ = self.correct(x, t, denoise, process, y, noise)
        x, mean = self.predict(x, t, s if state is None else t - state, denoise, process, y, noise)
        return (mean if last and self.denoise else x), state

    def correct(
        self, x: State, t: Times, denoise: Denoise, process: Process, y: State | None, noise: Noise
    ) -> tuple[State, State]:
        """One Langevin step at t: the new x and its mean."""
        score, e = _score(x, t, denoise, process, y), noise(x)
        size = self._size(score, e, process.weights(t).noise)
        mean = x + expand(size, x) * score
        return mean + expand((2 * size).sqrt(), x) * e, mean

    def _size(self, score: Tensor, e: Tensor, std: Tensor) -> Tensor:
        if self.corrector == "ald":
            std = std.reshape(len(std), -1)[:, 0]
        if self.corrector == "langevin":
            length, steepness = e.flatten(1).norm(dim=1), score.flatten(1).norm(dim=1)
            if self.batch_norms:
                length, steepness = length.mean().expand_as(length), steepness.mean().expand_as(length)
            std = ratio(length, steepness)
        return 2 * (self.snr * std) ** 2

    def predict(
        self, x: State, t: Times, s: Times, denoise: Denoise, process: Process, y: State | None, noise: Noise
    ) -> tuple[State, State]:
        """One step from t to s: the new x and its mean."""
        x0 = denoise(x, t)
        dt = expand(t - s, x)
        if self.predictor == "probability_flow":
            mean = x - dt * flow_velocity(process, x, x0, t, y)
            return mean, mean
        g = process.diffusion(t)
        if not bool(torch.isfinite(g).all()):
            raise ValueError(f"{type(process).__name__} has no finite drift at t = {float(t[0]):g}; start below 1")
        pull = expand(ratio(g**2, 2 * process.weights(t).noise), x) * process.implied_noise(x, x0, t, y)
        mean = x - dt * (process.velocity(x, x0, t, y) + pull)
        return mean + expand(g, x) * dt.sqrt() * noise(x), mean


def _score(x: Tensor, t: Tensor, denoise: Denoise, process: Process, y: Tensor | None) -> Tensor:
    z = process.implied_noise(x, denoise(x, t), t, y)
    return -ratio(z, expand(process.weights(t).noise, x))
