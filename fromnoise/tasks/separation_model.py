"""The networks of a separator: their training loss, and the way from a mixture to its sources.

With the mixture m at zero mean and unit deviation, and u the coordinates of K sources in their orthonormal basis
(`fromnoise.tasks.sources`), in which y = (m/sqrt(K), 0, ...) stands for K equal parts of the mixture:

    u_1 from the process's prior given y,    u_0' = sampler(u_1, 1 -> 0),    sources = basis' u_0'

The backbone is a network of waves: it is shown the sources `b K n` that a state stands for, is told the mixture
`b 1 n`, and answers with K waves. DiffSep (Scheibler et al., 2023, https://arxiv.org/abs/2210.17327) is the process
"mixing" with the prediction "score". With level "local" all this happens to u/l, l[n] being the mixture's local level:
noise then follows the sound, as in DiffSep's PriorMixSDE, which separates speech from noise. The network still sees
waves and answers as it would without: a score is multiplied by l, waves are divided by it.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fromnoise.backbones import BACKBONES
from fromnoise.denoiser import Denoiser, Network
from fromnoise.frontends import FRONTENDS, Wave
from fromnoise.objectives import Draw, Objective
from fromnoise.predictions import PREDICTIONS, Prediction
from fromnoise.processes import PROCESSES, Mixing
from fromnoise.samplers import Denoise, Noise
from fromnoise.tasks.base import Run, Spec, default_run
from fromnoise.tasks.source_losses import (
    Chance,
    Example,
    Ordered,
    Rollout,
    SourceLoss,
    Strategy,
    best_order,
    in_best_order,
    in_order,
    reordered,
)
from fromnoise.tasks.sources import from_basis, local_level, match_levels, permutations_of, shared, to_basis
from fromnoise.types import Condition, build

Level = Literal["none", "local"]
Levels = Literal["sum", "match", "none"]
LEAST_DEVIATION = 1e-5


@dataclasses.dataclass(frozen=True)
class SeparationConfig:
    """The parts of a separator as specs; it is what a card stores.

    sampler, grid, num_steps: the default run. sources: K. names: of the sources, for file names; none: s1, s2, ...
    level: "local" for noise that follows the mixture's level in `level_window` samples. consistent: every estimate is
    moved, evenly, to where the sources add up to the mixture. center: the mixture's mean is taken off before.
    levels: how the result gets back to the recording's level: "none" undoes the normalisation; "sum" also spreads what
    the sources lack evenly over them, so that they add up to the recording; "match" fits each source's level to the
    recording instead (DiffSep's script). shifts: the result is the mean over so many runs, each with other noise and
    the mixture moved by another part of the network's frame.
    """

    frontend: Spec = dataclasses.field(default_factory=lambda: {"name": "wave", "sample_rate": 8000})
    backbone: Spec = dataclasses.field(default_factory=lambda: {"name": "spectral"})
    process: Spec = dataclasses.field(default_factory=lambda: {"name": "mixing"})
    prediction: Spec = dataclasses.field(default_factory=lambda: {"name": "clean"})
    sampler: Spec = dataclasses.field(default_factory=lambda: {"name": "ddim"})
    grid: Spec = dataclasses.field(default_factory=lambda: {"name": "uniform"})
    num_steps: int = 4
    sources: int = 2
    names: tuple[str, ...] = ()
    level: Level = "none"
    level_window: int = 510
    consistent: bool = False
    levels: Levels = "sum"
    center: bool = True
    shifts: int = 1


class SeparationModel(nn.Module):
    """The networks of a separator: its training loss, and the sampling of sources at the normalised level."""

    def __init__(self, config: SeparationConfig) -> None:
        super().__init__()
        _require_possible(config)
        self.config = config
        self.frontend = build("frontend", FRONTENDS, config.frontend)
        if not isinstance(self.frontend, Wave) or self.frontend.scale != 1:
            raise ValueError(
                f"a separator works on waves at scale 1, got the front end {dict(config.frontend)}; choose 'wave', "
                "and a backbone like 'spectral' for networks of spectrograms"
            )
        self.process = build("process", PROCESSES, config.process)
        if isinstance(self.process, Mixing) and self.process.sources != config.sources:
            raise ValueError(
                f"expected a process of {config.sources} sources as the model has, got {self.process.sources}; "
                "make them agree"
            )
        prediction = build("prediction", PREDICTIONS, config.prediction)
        backbone = build("backbone", BACKBONES, config.backbone)
        self.delays = [i * getattr(backbone, "hop", 1) // config.shifts for i in range(config.shifts)]
        network = backbone.build()
        window = config.level_window if config.level == "local" else None
        self.denoiser = Denoiser(network, self.process, prediction, Between(prediction, window))
        self.default_run()  # a sampler or grid that does not exist is an error here, not at the first mixture

    @property
    def names(self) -> tuple[str, ...]:
        """What the sources are called."""
        return tuple(self.config.names) or tuple(f"s{k + 1}" for k in range(self.config.sources))

    def default_run(self, num_steps: int | None = None, sampler: str | None = None) -> Run:
        """The run that the configuration asks for, with another number of steps or another sampler by its name."""
        return default_run(self.config, num_steps, sampler)

    def normalise(
        self, mix: Float[Tensor, "b 1 n"]
    ) -> tuple[Float[Tensor, "b 1 n"], Float[Tensor, "b 1 1"], Float[Tensor, "b 1 1"]]:
        """(gain (mix - mean), gain, mean): each item at zero mean, if `center` asks for it, and unit deviation."""
        mean = mix.mean((1, 2), keepdim=True)
        deviation = (mix - mean).square().sum((1, 2), keepdim=True) / max(mix.shape[-1] - 1, 1)
        gain = 1 / deviation.sqrt().clamp(min=LEAST_DEVIATION)
        if not self.config.center:
            mean = torch.zeros_like(mean)
        return (mix - mean) * gain, gain, mean

    def restore(
        self,
        mix: Float[Tensor, "b 1 n"],
        estimates: Float[Tensor, "b K n"],
        gain: Float[Tensor, "b 1 1"],
        mean: Float[Tensor, "b 1 1"],
    ) -> Float[Tensor, "b K n"]:
        """Normalised estimates at the level of the recording `mix`, as `levels` says."""
        if self.config.levels == "match":
            return match_levels(mix, estimates)
        sources = estimates / gain + mean / self.config.sources
        return add_up(sources, mix) if self.config.levels == "sum" else sources

    def separate(
        self,
        mix: Float[Tensor, "b 1 n"],
        noise: Noise,
        run: Run,
        callback: Callable[[int, int, Tensor], object] | None = None,
    ) -> Float[Tensor, "b K n"]:
        """The sources of a normalised mixture, in the mean over the `shifts`, each in the order of the first.

        callback(i, n, sources): the state after step i of n, as waves.
        """
        n, runs = mix.shape[-1], len(self.delays)
        found: list[Tensor] = []
        for r, delay in enumerate(self.delays):
            told = None if callback is None else partial(_tell, callback, r, runs, delay)
            moved = torch.nn.functional.pad(mix, (delay, 0))
            estimate = self._separate(moved, noise, run, told)[..., delay : delay + n]
            found.append(estimate if r == 0 else in_order_of(found[0], estimate))
        return torch.stack(found).mean(0)

    def _separate(
        self, mix: Tensor, noise: Noise, run: Run, callback: Callable[[int, int, Tensor], object] | None
    ) -> Float[Tensor, "b K n"]:
        """One run."""
        y, level = self.observed(mix)
        x = self.process.prior(y, noise(y))
        times = run.grid.times(self.process, run.num_steps)
        told = None if callback is None else lambda i, n, x: callback(i, n, self._waves(x, level))
        x = run.sampler.sample(self.estimator(mix, y), self.process, x, times, y, noise, told)
        return self._waves(x, level)

    def estimator(self, mix: Float[Tensor, "b 1 n"], y: Float[Tensor, "b K n"]) -> Denoise:
        """The function (state, t) -> estimate of the clean state that a sampler calls."""
        denoise = self.denoiser.bind(y, Condition(signal=mix))
        return lambda x, t: self.consistent(denoise(x, t), y)

    def loss(
        self,
        sources: Float[Tensor, "b K n"],
        objective: Objective,
        strategy: Strategy | None = None,
        loss: SourceLoss | None = None,
        generator: torch.Generator | None = None,
        mixture: Float[Tensor, "b 1 n"] | None = None,
        chance: Chance | None = None,
    ) -> Float[Tensor, " b"]:
        """The loss of each item: the objective's own, or, with `loss`, that one on the estimate of the sources.

        strategy: "ordered" by default. mixture: the sum of the sources unless given. chance: drawn unless given. What
        "rollout" shows twice counts twice.
        """
        strategy, chance = strategy or Ordered(), chance or Chance.draw(sources, generator)
        mix, sources = self.normal_pair(sources, mixture)
        sources = strategy.arrange(sources, chance)
        y, level = self.observed(mix)
        x0 = to_basis(sources) / level
        example = strategy.example(self.process, x0, y, objective.times.times(chance.u, self.process), chance)
        if loss is None:
            if isinstance(strategy, Rollout):
                raise ValueError("the strategy 'rollout' needs a loss of the sources; set source_loss.name=snr")
            out = self.denoiser.raw(example.x_t, example.t, y, Condition(signal=mix)).to(x0.dtype)
            return self._objective_loss(objective, out, x0, y, example)
        estimate = self._answer(example.x_t, example.t, mix, y, level)
        pairs = loss.pairs(estimate, sources, mix)
        losses = torch.where(example.any_order, in_best_order(pairs), in_order(pairs))
        if not isinstance(strategy, Rollout):
            return losses
        order = torch.where(
            example.any_order[:, None], best_order(pairs), torch.arange(sources.shape[1]).to(sources.device)
        )
        sources = sources.gather(1, order[..., None].expand_as(sources))
        count = math.ceil(strategy.again * len(sources))
        again, y, level, mix = Chance.draw(sources[:count], generator), y[:count], level[:count], mix[:count]
        t = objective.times.times(again.u, self.process)
        x_t = self.process.sample(to_basis(estimate.detach()[:count]) / level, t, y, again.z)
        more = in_order(loss.pairs(self._answer(x_t, t, mix, y, level), sources[:count], mix))
        return losses + torch.nn.functional.pad(more, (0, len(losses) - count))

    def _answer(self, x_t: Tensor, t: Tensor, mix: Tensor, y: Tensor, level: Tensor) -> Float[Tensor, "b K n"]:
        """The estimate of the sources, as waves."""
        return self._waves(self.consistent(self.denoiser(x_t, t, y, Condition(signal=mix)).to(x_t.dtype), y), level)

    def normal_pair(
        self, sources: Float[Tensor, "b K n"], mixture: Float[Tensor, "b 1 n"] | None = None
    ) -> tuple[Float[Tensor, "b 1 n"], Float[Tensor, "b K n"]]:
        """(mixture, sources), normalised together: the mean goes off each source in equal parts."""
        mix, gain, mean = self.normalise(sources.sum(1, keepdim=True) if mixture is None else mixture)
        return mix, (sources - mean / self.config.sources) * gain

    def _objective_loss(
        self, objective: Objective, out: Tensor, x0: Tensor, y: Tensor, example: Example
    ) -> Float[Tensor, " b"]:
        """The error of the network's output, for the best order of the sources where it counts."""
        weight = objective.weighting.weight(example.t, self.process, self.denoiser.prediction)
        drawn = Draw(example.x_t, example.t, example.z, weight)
        losses = objective.compare(self.denoiser, out, x0, y, drawn)
        if not bool(example.any_order.any()):
            return losses
        for order in permutations_of(self.config.sources)[1:]:
            other = reordered(x0, order)
            z = self.process.implied_noise(example.x_t, other, example.t, y)
            found = objective.compare(self.denoiser, out, other, y, dataclasses.replace(drawn, z=z))
            losses = torch.where(example.any_order, torch.minimum(losses, found), losses)
        return losses

    def observed(self, mix: Float[Tensor, "b 1 n"]) -> tuple[Tensor, Tensor]:
        """y and the level that states are divided by."""
        level = local_level(mix, self.config.level_window) if self.config.level == "local" else mix.new_ones(1, 1, 1)
        return shared(mix, self.config.sources) / level, level

    def _waves(self, x: Float[Tensor, "b K n"], level: Tensor) -> Float[Tensor, "b K n"]:
        return from_basis(x) * level

    def consistent(self, x0: Tensor, y: Tensor) -> Tensor:
        """The estimate moved to where the sources add up to the mixture: its first coordinate is then y's."""
        return torch.cat([y[:, :1], x0[:, 1:]], 1) if self.config.consistent else x0


@dataclasses.dataclass(frozen=True)
class Between:
    """What stands between states and the network: the sources' basis, and the local level in a window, if there is one.

    The network answers in waves: clean sources are divided by the level as states are, a score is multiplied by it.
    """

    prediction: Prediction
    window: int | None

    def __call__(self, network: Network, condition: Condition) -> Network:
        if self.window is None:
            return lambda x, t: to_basis(network(from_basis(x), t))
        if condition.signal is None:
            raise ValueError("a local level is that of the mixture; expected it as the condition's signal, got none")
        level = local_level(condition.signal, self.window)
        return lambda x, t: to_basis(network(from_basis(x) * level, t)) * level**-self.prediction.degree


def _tell(
    callback: Callable[[int, int, Tensor], object], r: int, runs: int, delay: int, i: int, n: int, waves: Tensor
) -> None:
    """Step i of n of run r of `runs` to a callback that counts them all."""
    callback(r * n + i, runs * n, waves[..., delay:])


def in_order_of(first: Float[Tensor, "b K n"], later: Float[Tensor, "b K n"]) -> Float[Tensor, "b K n"]:
    """The later estimates, each item's in the order in which they are most like the first."""
    likeness = -torch.einsum("bkn,bjn->bkj", first, later)
    return later.gather(1, best_order(likeness)[..., None].expand_as(later))


def add_up(sources: Float[Tensor, "b K n"], mix: Float[Tensor, "b 1 n"]) -> Float[Tensor, "b K n"]:
    """The sources, each moved by the same amount so that they add up to the mixture."""
    return sources + (mix - sources.sum(1, keepdim=True)) / sources.shape[1]


def _require_possible(config: SeparationConfig) -> None:
    if not 1 <= config.shifts <= 64:
        raise ValueError(f"expected 1 to 64 shifts, got {config.shifts}; choose within")
    if config.sources < 2:
        raise ValueError(f"expected 2 sources or more, got {config.sources}")
    names = config.names
    if names and (len(names) != config.sources or len(set(names)) < len(names) or not all(names)):
        raise ValueError(f"expected {config.sources} names that differ, or none, got {list(names)}")
    if config.level not in get_args(Level) or config.levels not in get_args(Levels):
        raise ValueError(
            f"expected level {' or '.join(get_args(Level))} and levels {', '.join(get_args(Levels))}, got "
            f"{config.level!r} and {config.levels!r}"
        )
    if config.level_window < 1:
        raise ValueError(f"expected a level_window of at least 1 sample, got {config.level_window}")
