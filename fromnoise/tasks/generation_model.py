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
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from fromnoise.backbones import BACKBONES
from fromnoise.conditioning import NOTHING, TEXTS, TextConfig
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
from fromnoise.tasks.base import Run, Spec, default_run
from fromnoise.tasks.splitting import Leveled
from fromnoise.types import Condition, InputError, build

Number = int | float
Told = Int64[Tensor, "_"] | Sequence[str]
"""What each item of a batch is to be: numbers of labels, -1 for none, or texts, "" for none."""
STEPS = 200
"""How many steps a continuous process counts between data and noise, where a discrete one has its own."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """What every sound of a run is to be: the number of a label or a text, None for none; a text to guide away from,
    None for none; guidance, None for the model's own."""

    what: int | str | None = None
    away: str | None = None
    guidance: Number | None = None


@dataclasses.dataclass(frozen=True)
class GenerationConfig:
    """The parts of a generator as specs; it is what a card stores.

    sampler, grid, num_steps: the default run. labels: the classes by name, none for a model that only generates freely.
    label_dim: numbers that stand for a class, what the backbone must expect as its vector. text: the encoder of what is
    to be heard (`TEXTS`), of a model that reads texts in place of labels; its dim is what the backbone must expect as
    its context or vector. A network with a table for no text of its own is shown a mask that is False throughout.
    latent: the configuration of an autoencoder, of a model that generates its latents; the autoencoder's weights are
    the model's, and stand still. guidance_scale, guidance_rescale: g and r above. seconds: length of the clips in
    training, and of what is generated. clamp: keep the wave within [-1, 1] after each step, as LMNT's code. splits: an
    even number of parts of a clip that have noise levels of their own, which the network reads as a channel; longer
    sounds are then made part by part (`samplers.ladder`). 0 for one level a clip.
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
    text: Spec | None = None
    latent: Mapping[str, Any] | None = None
    guidance_scale: float = 1.0
    guidance_rescale: float = 0.0
    seconds: float = 1.0
    clamp: bool = False
    splits: int = 0


class GenerationModel(nn.Module):
    """The networks of a generator: its training loss, and the way from a state in the encoded domain to clean data."""

    def __init__(self, config: GenerationConfig) -> None:
        super().__init__()
        self.config = config
        self.labels = tuple(config.labels)
        _require_possible(config)
        self.autoencoder = None if config.latent is None else AutoencodingModel(AutoencodingConfig(**config.latent))
        self.frontend = build("frontend", FRONTENDS, config.frontend)
        if self.autoencoder is not None:
            self.autoencoder.requires_grad_(False)
            self.frontend = Latent.of(self.autoencoder)
        self.process = build("process", PROCESSES, config.process)
        prediction = build("prediction", PREDICTIONS, config.prediction)
        network = build("backbone", BACKBONES, config.backbone)
        reader: TextConfig | None = build("text", TEXTS, config.text) if config.text is not None else None
        _require_told(network, config, reader)
        if config.clamp and self.frontend.hop != 1:
            raise ValueError("clamp keeps waves within full scale; it needs a wave front end")
        self.clip = self.frontend.shape(1, max(1, round(config.seconds * self.frontend.sample_rate)))[-1]
        built = network.build()
        if config.splits:
            _require_splits(network, config, self.clip)
            built = Leveled(built, config.splits, self.clip // config.splits)
        self.denoiser = Denoiser(built, self.process, prediction)
        self.embedding = LabelEmbedding(len(self.labels), config.label_dim) if self.labels else None
        self.network_knows_nothing = bool(getattr(network, "embedding_max_length", 0))
        self.text = None if reader is None else reader.build(not self.network_knows_nothing)
        self.default_run()  # a sampler or grid that does not exist is an error here, not at the first sound

    def train(self, mode: bool = True) -> "GenerationModel":
        """An autoencoder stays as in use: its bottleneck draws no noise."""
        super().train(mode)
        if self.autoencoder is not None:
            self.autoencoder.eval()
        return self

    def condition(self, told: Told) -> Condition:
        """What the network is told; a model without labels and texts is told nothing."""
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
    ) -> Float[Tensor, " b"]:
        """The objective's loss of each item; each label or text is left out with probability `drop_label`."""
        x0, splits = self.frontend.encode(clean), self.config.splits
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
        losses = objective.losses(self.denoiser, x0, None, self.condition(told), draw)
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
        self, told: Told, guidance: Number, away: Told | None = None, rescale: Number = 0
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """The function (x, t) -> estimate of x0, guided towards what is told and away from nothing told, or `away`."""
        free = self.told(None, len(told)) if away is None else away
        if guidance == 1 or _same(told, free):
            return self.denoiser.bind(None, self.condition(told))
        if guidance == 0:
            return self.denoiser.bind(None, self.condition(free))
        network = self.denoiser.bind(None, self.condition(_after(told, free)))

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
    ) -> Tensor:
        """Clean data from the state x at time `start`; `run` counts the steps from there. See `guided`."""
        config = self.config
        scale = config.guidance_scale if guidance is None else guidance
        guided = self.guided(told, scale, away, config.guidance_rescale if rescale is None else rescale)
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
        return self.sample(x, self.told(asked.what, len(x)), noise, run, asked.guidance, start, callback, away)

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


def _require_possible(config: GenerationConfig) -> None:
    if len(set(config.labels)) < len(config.labels) or not all(config.labels):
        raise ValueError(f"expected labels that all differ and have a name, got {list(config.labels)}")
    if config.labels and config.text is not None:
        raise ValueError("a generator is told labels or texts, not both; leave out labels, or text")
    if not (0 < config.seconds < math.inf and 0 <= config.guidance_scale < math.inf):
        raise ValueError(
            f"expected seconds > 0 and guidance_scale >= 0, got {config.seconds} and {config.guidance_scale}"
        )
    if not 0 <= config.guidance_rescale <= 1:
        raise ValueError(f"guidance_rescale must lie between 0 and 1, got {config.guidance_rescale}")


def _require_splits(network: Any, config: GenerationConfig, clip: int) -> None:
    n = config.splits
    if n < 2 or n % 2 or clip % n or clip == n or config.clamp:
        raise ValueError(f"expected an even number of splits of the {clip} positions of a clip, and no clamp, got {n}")
    if getattr(network, "signal_channels", 0) != 1:
        raise ValueError("splits: the network reads the level as a channel; set signal_channels=1 of its backbone")


def _require_told(network: Any, config: GenerationConfig, text: TextConfig | None) -> None:
    """Raises ValueError unless the network's vector has the size of a label, or its vector or context that of a text,
    or there is nothing to be told."""
    name = next((n for n in ("vector_dim", "vector") if hasattr(network, n)), None)
    size = getattr(network, name) if name else 0
    kind = config.backbone["name"]
    if text is not None:
        _require_text(kind, {name or "vector": size, "context": getattr(network, "context", 0)}, text.dim)
        return
    wanted = config.label_dim if config.labels else 0
    if size != wanted:
        what = f"{len(config.labels)} labels of {config.label_dim} numbers each"
        mend = f"set {name}={wanted}" if name else "choose a backbone that reads a vector"
        raise ValueError(f"the backbone {kind!r} reads a vector of {size}, the model has {what}; {mend}")


def _require_text(kind: str, sizes: dict[str, int], dim: int) -> None:
    if set(sizes.values()) - {0} != {dim}:
        found = ", ".join(f"{name}={size}" for name, size in sizes.items())
        raise ValueError(
            f"the backbone {kind!r} has {found}, the text encoder gives {dim} numbers; set one of them to {dim}, the "
            "other to that or 0, or choose a backbone that reads a context or a vector"
        )


def item_seed(seed: int, index: int) -> int:
    """The seed of item `index` of a run with `seed`."""
    return int(np.random.SeedSequence([seed % 2**64, index]).generate_state(1, np.uint64)[0])
