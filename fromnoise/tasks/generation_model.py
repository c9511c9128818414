"""The networks of a generator: freely, or by label with guidance; whole runs, and runs from the middle.

    x_1 from the prior,                     x0' = sampler(x_1, 1 -> 0)
    x_t from something that is there,       x0' = sampler(x_t, t -> 0)

Classifier-free guidance g (Ho and Salimans, 2022, https://arxiv.org/abs/2207.12598) calls the network with the label
and without, in one batch:   x0' = x0'_free + g (x0'_label - x0'_free);   g = 1 needs the first alone, 0 the second.

A step of a middle start is counted as in the paper, from 1, next to the data, to T: t = step/T.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from fromnoise.backbones import BACKBONES
from fromnoise.conditioning.labels import NONE, LabelEmbedding, drop_labels
from fromnoise.denoiser import Denoiser
from fromnoise.frontends import FRONTENDS
from fromnoise.objectives import Objective
from fromnoise.predictions import PREDICTIONS
from fromnoise.processes import PROCESSES
from fromnoise.samplers import PositionNoise
from fromnoise.samplers.grids import steps_from
from fromnoise.tasks.base import Run, Spec, default_run
from fromnoise.types import Condition, InputError, build

Number = int | float
STEPS = 200
"""How many steps a continuous process counts between data and noise, where a discrete one has its own."""


@dataclasses.dataclass(frozen=True)
class GenerationConfig:
    """The parts of a generator as specs; it is what a card stores.

    sampler, grid, num_steps: the default run. labels: the classes by name, none for a model that only generates freely.
    label_dim: numbers that stand for a class, what the backbone must expect as its vector. guidance_scale: g above.
    seconds: length of the clips in training, and of what is generated. clamp: keep the wave within [-1, 1] after each
    step, as LMNT's code.
    """

    frontend: Spec = dataclasses.field(default_factory=lambda: {"name": "wave", "sample_rate": 16000})
    backbone: Spec = dataclasses.field(default_factory=lambda: {"name": "wavenet"})
    process: Spec = dataclasses.field(default_factory=lambda: {"name": "vp", "num_steps": 200})
    prediction: Spec = dataclasses.field(default_factory=lambda: {"name": "noise"})
    sampler: Spec = dataclasses.field(default_factory=lambda: {"name": "ddpm"})
    grid: Spec = dataclasses.field(default_factory=lambda: {"name": "trained"})
    num_steps: int = 200
    labels: tuple[str, ...] = ()
    label_dim: int = 128
    guidance_scale: float = 1.0
    seconds: float = 1.0
    clamp: bool = False


class GenerationModel(nn.Module):
    """The networks of a generator: its training loss, and the way from a state in the encoded domain to clean data."""

    def __init__(self, config: GenerationConfig) -> None:
        super().__init__()
        self.config = config
        self.labels = tuple(config.labels)
        _require_possible(config)
        self.frontend = build("frontend", FRONTENDS, config.frontend)
        self.process = build("process", PROCESSES, config.process)
        prediction = build("prediction", PREDICTIONS, config.prediction)
        network = build("backbone", BACKBONES, config.backbone)
        _require_told(network, config)
        if config.clamp and self.frontend.hop != 1:
            raise ValueError("clamp keeps waves within full scale; it needs a wave front end")
        self.denoiser = Denoiser(network.build(), self.process, prediction)
        self.embedding = LabelEmbedding(len(self.labels), config.label_dim) if self.labels else None
        self.default_run()  # a sampler or grid that does not exist is an error here, not at the first sound

    def condition(self, labels: Int64[Tensor, " b"]) -> Condition:
        """What the network is told of labels, -1 for none; a model without labels is told nothing."""
        return Condition() if self.embedding is None else Condition(vector=self.embedding(labels))

    def loss(
        self,
        clean: Float[Tensor, "b 1 n"],
        labels: Int64[Tensor, " b"],
        objective: Objective,
        generator: torch.Generator | None = None,
        drop_label: float = 0.0,
    ) -> Float[Tensor, " b"]:
        """The objective's loss of each item. labels: -1 for none; each is left out with probability `drop_label`."""
        x0 = self.frontend.encode(clean)
        draw = objective.draw(self.process, self.denoiser.prediction, x0, None, generator)
        told = self.condition(drop_labels(labels, drop_label, generator))
        return objective.losses(self.denoiser, x0, None, told, draw)

    def default_run(self, num_steps: int | None = None, sampler: str | None = None) -> Run:
        """The run that the configuration asks for, with another number of steps or another sampler by its name."""
        return default_run(self.config, num_steps, sampler)

    def run_from(self, start: float, num_steps: int | None = None, sampler: str | None = None) -> Run:
        """A run from time `start`; by default with the steps that the default run has from there.

        Raises ValueError where the grid has not so many steps, before anything is sampled.
        """
        run = self.default_run(num_steps, sampler)
        if num_steps is None:
            run = dataclasses.replace(run, num_steps=steps_from(run.grid, self.process, run.num_steps, start))
        run.grid.times(self.process, run.num_steps, start)
        return run

    def time_of_step(self, step: Number | None, share: float) -> float:
        """The time of a step counted from 1 to T; None: that share of T. Raises InputError outside."""
        trained = self.process.trained_times()
        total = STEPS if trained is None else len(trained)
        t = (max(round(share * total), 1) if step is None else step) / total
        if not (self.process.t_min <= t <= 1 and t > 0):
            lowest = self.process.t_min * total or "above 0"
            raise InputError(f"the start step must lie between {lowest} and {total}, got {step}")
        return t

    def blank(self, batch: int, n: int) -> Tensor:
        """Zeros in the layout of `batch` encoded waves of n samples."""
        like = next(self.parameters())
        return like.new_zeros((batch, *self.frontend.shape(1, n)))

    def prior(self, noise: Callable[[Tensor], Tensor], batch: int, n: int) -> Tensor:
        """The start of a run from noise alone."""
        return self.process.prior(None, noise(self.blank(batch, n)))

    def guided(self, labels: Int64[Tensor, " b"], guidance: Number) -> Callable[[Tensor, Tensor], Tensor]:
        """The function (x, t) -> estimate of x0, guided towards the labels."""
        none = torch.full_like(labels, NONE)
        if self.embedding is None or guidance in (0, 1) or bool((labels == NONE).all()):
            return self.denoiser.bind(None, self.condition(none if guidance == 0 else labels))
        network = self.denoiser.bind(None, self.condition(torch.cat([labels, none])))

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            told, free = network(torch.cat([x, x]), torch.cat([t, t])).chunk(2)
            return torch.lerp(free, told, guidance)

        return denoise

    def sample(
        self,
        x: Tensor,
        labels: Int64[Tensor, " b"],
        noise: PositionNoise,
        run: Run,
        guidance: Number | None = None,
        start: float = 1.0,
        callback: Callable[[int, int, Tensor], object] | None = None,
    ) -> Tensor:
        """Clean data from the state x at time `start`; `run` counts the steps from there. labels: -1 for none."""
        guided = self.guided(labels, self.config.guidance_scale if guidance is None else guidance)
        times = run.grid.times(self.process, run.num_steps, start)
        keep = (lambda x, i, t, s: x.clamp(-self._full, self._full)) if self.config.clamp else None
        return run.sampler.sample(guided, self.process, x, times, None, noise, callback, keep)

    @property
    def _full(self) -> float:
        """Full scale in the encoded domain of a wave front end."""
        return float(self.frontend.encode(torch.ones(1, 1, 1)))


def _require_possible(config: GenerationConfig) -> None:
    if len(set(config.labels)) < len(config.labels) or not all(config.labels):
        raise ValueError(f"expected labels that all differ and have a name, got {list(config.labels)}")
    if not (0 < config.seconds < math.inf and 0 <= config.guidance_scale < math.inf):
        raise ValueError(
            f"expected seconds > 0 and guidance_scale >= 0, got {config.seconds} and {config.guidance_scale}"
        )


def _require_told(network: Any, config: GenerationConfig) -> None:
    """Raises ValueError unless the network's vector has the size of a label, or there is neither."""
    name = next((n for n in ("vector_dim", "vector") if hasattr(network, n)), None)
    size = getattr(network, name) if name else 0
    wanted = config.label_dim if config.labels else 0
    if size != wanted:
        kind, what = config.backbone["name"], f"{len(config.labels)} labels of {config.label_dim} numbers each"
        mend = f"set {name}={wanted}" if name else "choose a backbone that reads a vector"
        raise ValueError(f"the backbone {kind!r} reads a vector of {size}, the model has {what}; {mend}")


def item_seed(seed: int, index: int) -> int:
    """The seed of item `index` of a run with `seed`."""
    return int(np.random.SeedSequence([seed % 2**64, index]).generate_state(1, np.uint64)[0])
