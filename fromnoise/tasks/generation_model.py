"""The networks of a generator: freely, by label or by text with guidance; whole runs, and runs from the middle.

    x_1 from the prior,                     x0' = sampler(x_1, 1 -> 0)
    x_t from something that is there,       x0' = sampler(x_t, t -> 0)

Classifier-free guidance g (Ho and Salimans, 2022, https://arxiv.org/abs/2207.12598) calls the network with the label
or text and without, in one batch:   x0' = x0'_free + g (x0'_told - x0'_free);   g = 1 needs the first alone, 0 the
second. A negative text takes the place of "without". Large g raises the level; rescaling by a share r (Lin et al.,
2023, https://arxiv.org/abs/2305.08891) brings each item's deviation back:   x0' (1 - r + r std(x0'_told)/std(x0')).

A step of a middle start is counted as in the paper, from 1, next to the data, to T: t = step/T.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from fromnoise.backbones import BACKBONES
from fromnoise.conditioning import NOTHING, TEXTS, DurationEmbedding, TextConfig
from fromnoise.conditioning.base import drop_texts, tidy
from fromnoise.conditioning.labels import NONE, LabelEmbedding, drop_labels
from fromnoise.denoiser import Denoiser
from fromnoise.frontends import FRONTENDS
from fromnoise.objectives import Objective
from fromnoise.predictions import PREDICTIONS
from fromnoise.processes import PROCESSES
from fromnoise.samplers import PositionNoise
from fromnoise.samplers.ancestral import Ancestral
from fromnoise.samplers.base import Noise
from fromnoise.samplers.grids import steps_from
from fromnoise.samplers.inpainting import Inpainting
from fromnoise.samplers.ladder import Ladder, folded
from fromnoise.tasks.autoencoding import AutoencodingConfig, AutoencodingModel, Latent
from fromnoise.tasks.base import Run, default_run
from fromnoise.tasks.generation_config import (
    GenerationConfig,
    require_possible,
    require_splits,
    require_told,
    vector_of,
)
from fromnoise.tasks.splitting import Leveled
from fromnoise.types import Condition, InputError, build

Number = int | float
Told = Int64[Tensor, "_"] | Sequence[str]
"""What each item of a batch is to be: numbers of labels, -1 for none, or texts, "" for none."""
MAX_SAMPLES = 1 << 26
"""Samples of one generated sound at most."""
STEPS = 200
"""How many steps a continuous process counts between data and noise, where a discrete one has its own."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """What every sound of a run is to be: the number of a label or a text, None for none; a text to guide away from,
    None for none; guidance, None for the model's own; seconds that a model which is told them hears of, None for those
    of a clip."""

    what: int | str | None = None
    away: str | None = None
    guidance: Number | None = None
    seconds: Number | None = None


class GenerationModel(nn.Module):
    """The networks of a generator: its training loss, and the way from a state in the encoded domain to clean data."""

    def __init__(self, config: GenerationConfig) -> None:
        super().__init__()
        self.config = config
        self.labels = tuple(config.labels)
        require_possible(config)
        self.autoencoder = None if config.latent is None else AutoencodingModel(AutoencodingConfig(**config.latent))
        self.frontend = build("frontend", FRONTENDS, config.frontend)
        if self.autoencoder is not None:
            self.autoencoder.requires_grad_(False)
            self.frontend = Latent.of(self.autoencoder)
        self.process = build("process", PROCESSES, config.process)
        prediction = build("prediction", PREDICTIONS, config.prediction)
        network = build("backbone", BACKBONES, config.backbone)
        reader: TextConfig | None = build("text", TEXTS, config.text) if config.text is not None else None
        require_told(network, config, reader)
        if config.clamp and self.frontend.hop != 1:
            raise ValueError("clamp keeps waves within full scale; it needs a wave front end")
        self.clip = self.frontend.shape(1, max(1, round(config.seconds * self.frontend.sample_rate)))[-1]
        built = network.build()
        if config.splits:
            require_splits(network, config, self.clip)
            built = Leveled(built, config.splits, self.clip // config.splits)
        self.denoiser = Denoiser(built, self.process, prediction)
        self.embedding = LabelEmbedding(len(self.labels), config.label_dim) if self.labels else None
        self.network_knows_nothing = bool(getattr(network, "embedding_max_length", 0))
        self.text = None if reader is None else reader.build(not self.network_knows_nothing)
        self.duration = DurationEmbedding(config.seconds, vector_of(network)[1]) if config.duration else None
        self.default_run()  # a sampler or grid that does not exist is an error here, not at the first sound

    def train(self, mode: bool = True) -> "GenerationModel":
        """An autoencoder stays as in use: its bottleneck draws no noise."""
        super().train(mode)
        if self.autoencoder is not None:
            self.autoencoder.eval()
        return self

    def condition(self, told: Told, seconds: Float[Tensor, " b"] | None = None) -> Condition:
        """What the network is told; a model without labels and texts is told nothing. seconds: of each sound, for a
        model that is told durations; None for a whole clip."""
        condition = self._worded(told)
        if self.duration is None:
            return condition
        whole = torch.full((len(told),), self.config.seconds, device=next(self.parameters()).device)
        vector = self.duration(whole if seconds is None else seconds)
        return dataclasses.replace(condition, vector=vector if condition.vector is None else condition.vector + vector)

    def _worded(self, told: Told) -> Condition:
        if isinstance(told, Tensor):
            return Condition() if self.embedding is None else Condition(vector=self.embedding(told))
        assert self.text is not None, "texts are for models that read them"
        condition = self.text(told)
        if not self.network_knows_nothing or condition.mask is None:
            return condition
        real = torch.tensor([tidy(text) != NOTHING for text in told], device=condition.mask.device)
        return dataclasses.replace(condition, mask=condition.mask & real[:, None])

    def told(self, what: int | str | None, batch: int) -> Told:
        """The same label or text for every item of a batch; None for none."""
        if self.text is not None:
            return [what if isinstance(what, str) else NOTHING] * batch
        number = what if isinstance(what, int) else NONE
        return torch.full((batch,), number, device=next(self.parameters()).device)

    def loss(
        self,
        clean: Float[Tensor, "b 1 n"],
        told: Told,
        objective: Objective,
        generator: torch.Generator | None = None,
        drop_label: float = 0.0,
        seconds: Float[Tensor, " b"] | None = None,
    ) -> Float[Tensor, " b"]:
        """`encoded_loss` of waves."""
        return self.encoded_loss(self.frontend.encode(clean), told, objective, generator, drop_label, seconds)

    def encoded_loss(
        self,
        x0: Float[Tensor, "b *x"],
        told: Told,
        objective: Objective,
        generator: torch.Generator | None = None,
        drop_label: float = 0.0,
        seconds: Float[Tensor, " b"] | None = None,
    ) -> Float[Tensor, " b"]:
        """The objective's loss of each encoded item; each label or text is left out with probability `drop_label`.
        seconds: how long each sound is within its clip, None for all of it."""
        splits = self.config.splits
        if splits:
            if x0.shape[-1] != self.clip:
                raise InputError(
                    f"expected clips of {self.config.seconds:g} s, as many as seconds; set data.seconds to it"
                )
            x0 = folded(x0, splits)
        draw = objective.draw(self.process, self.denoiser.prediction, x0, None, generator)
        if isinstance(told, Tensor):
            told = drop_labels(told, drop_label, generator)
        else:
            told = drop_texts(told, drop_label, generator)
        losses = objective.losses(self.denoiser, x0, None, self.condition(told, seconds), draw)
        return losses.reshape(-1, splits).mean(1) if splits else losses

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

    def guided(
        self,
        told: Told,
        guidance: Number,
        away: Told | None = None,
        rescale: Number = 0,
        seconds: Float[Tensor, " b"] | None = None,
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """The function (x, t) -> estimate of x0, guided towards what is told and away from nothing told, or `away`;
        a duration is told in both."""
        free = self.told(None, len(told)) if away is None else away
        if guidance == 1 or _same(told, free):
            return self.denoiser.bind(None, self.condition(told, seconds))
        if guidance == 0:
            return self.denoiser.bind(None, self.condition(free, seconds))
        twice = None if seconds is None else torch.cat([seconds, seconds])
        network = self.denoiser.bind(None, self.condition(_after(told, free), twice))

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            here, there = network(torch.cat([x, x]), torch.cat([t, t])).chunk(2)
            return rescaled(torch.lerp(there, here, guidance), here, rescale)

        return denoise

    def sample(
        self,
        x: Tensor,
        told: Told,
        noise: Noise,
        run: Run,
        guidance: Number | None = None,
        start: float = 1.0,
        callback: Callable[[int, int, Tensor], object] | None = None,
        away: Told | None = None,
        rescale: Number | None = None,
        seconds: Float[Tensor, " b"] | None = None,
    ) -> Tensor:
        """Clean data from the state x at time `start`; `run` counts the steps from there. See `guided`."""
        config = self.config
        scale = config.guidance_scale if guidance is None else guidance
        guided = self.guided(told, scale, away, config.guidance_rescale if rescale is None else rescale, seconds)
        times = run.grid.times(self.process, run.num_steps, start)
        if config.splits and x.shape[-1] * config.splits == self.clip:
            raise InputError("a sound as long as one split is taken for a part of one; ask for a little more")
        if config.splits and x.shape[-1] > self.clip and start == 1 and not isinstance(run.sampler, Inpainting):
            return self._ladder(guided, run).sample(x, None, noise, callback)
        keep = (lambda x, i, t, s: x.clamp(-self._full, self._full)) if config.clamp else None
        return run.sampler.sample(guided, self.process, x, times, None, noise, callback, keep)

    def go_on(
        self,
        known: Tensor,
        length: int,
        asked: Asked,
        noise: PositionNoise,
        run: Run,
        callback: Callable[[int, int, Tensor], object] | None = None,
    ) -> Tensor:
        """Encoded data of a model with splits, and what follows it, `length` positions in all."""
        fresh = noise(known[..., :1].expand(*known.shape[:-1], length - known.shape[-1]))
        what, away = self.told(asked.what, len(known)), asked.away
        scale = self.config.guidance_scale if asked.guidance is None else asked.guidance
        free = None if away is None else self.told(away, len(known))
        guided = self.guided(what, scale, free, self.config.guidance_rescale)
        return torch.cat([known, self._ladder(guided, run).sample(fresh, known, noise, callback)], -1)

    def ladder_calls(self, fresh: int, known: int, run: Run) -> int:
        """Network calls for so many new positions after those that are known."""
        return self._ladder(lambda x, t: x, run).evaluations(fresh, known)

    def _ladder(self, denoise: Callable[[Tensor, Tensor], Tensor], run: Run) -> Ladder:
        if not isinstance(run.sampler, Ancestral):
            raise InputError("sounds longer than a clip are made split by split; choose --sampler ddim or ancestral")
        times = run.grid.times(self.process, run.num_steps)
        return Ladder(denoise, self.process, run.sampler, self.config.splits, self.clip // self.config.splits, times)

    def sample_asked(
        self,
        x: Tensor,
        asked: Asked,
        noise: PositionNoise,
        run: Run,
        start: float = 1.0,
        callback: Callable[[int, int, Tensor], object] | None = None,
    ) -> Tensor:
        """`sample` with the same wish for every item."""
        away = None if asked.away is None else self.told(asked.away, len(x))
        seconds = None if asked.seconds is None else x.new_full((len(x),), asked.seconds)
        told = self.told(asked.what, len(x))
        return self.sample(x, told, noise, run, asked.guidance, start, callback, away, seconds=seconds)

    @property
    def _full(self) -> float:
        """Full scale in the encoded domain of a wave front end."""
        return float(self.frontend.encode(torch.ones(1, 1, 1)))


def _after(told: Told, free: Told) -> Told:
    """The two halves of a guided batch."""
    if isinstance(told, Tensor) or isinstance(free, Tensor):
        assert isinstance(told, Tensor) and isinstance(free, Tensor)
        return torch.cat([told, free])
    return [*told, *free]


def _same(told: Told, free: Told) -> bool:
    if isinstance(told, Tensor) and isinstance(free, Tensor):
        return torch.equal(told, free)
    return list(told) == list(free)


def rescaled(guided: Tensor, told: Tensor, share: Number) -> Tensor:
    """The guided estimate with each item's standard deviation brought towards that of the plain one."""
    if share == 0:
        return guided
    over = tuple(range(1, guided.ndim))
    factor = told.std(over, keepdim=True) / guided.std(over, keepdim=True).clamp(min=1e-12)
    return guided * (1 - share + share * factor)


def item_seed(seed: int, index: int, stream: int = 0) -> int:
    """The seed of item `index` of a run with `seed`; another one for each stream of its noise."""
    mixed = np.random.SeedSequence([seed % 2**64, index, *([stream] if stream else [])])
    return int(mixed.generate_state(1, np.uint64)[0])
