"""Waves to a short sequence of numbers, and back by diffusion.

    latent = encoder(wave)       b c t, one position for `hop` samples
    wave   = sampler(x_1, 1 -> 0), the network told the latent at one of its levels

Schneider et al., "Mousai", 2023, https://arxiv.org/abs/2301.11757: encoder and network learn together, by the loss of
the diffusion alone (and of the bottleneck, where it has one). The latent keeps what the encoder is shown, magnitudes in
Mousai; phases are made anew.

Over a front end other than the wave itself, such as log-magnitudes in bands, encoder and network work on its frames,
bins as channels: far fewer positions than samples, and no phases to make.

A long latent is decoded in pieces that overlap and fade into one another linearly: the noise at a place depends on the
seed and its place alone, so neighbours agree where they overlap. Memory does not grow with the length.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fromnoise.backbones import BACKBONES, ENCODERS
from fromnoise.denoiser import Denoiser
from fromnoise.frontends import FRONTENDS
from fromnoise.frontends.base import Frontend
from fromnoise.frontends.resample import check_rate, resample
from fromnoise.objectives import Objective
from fromnoise.predictions import PREDICTIONS
from fromnoise.processes import PROCESSES
from fromnoise.samplers import PositionNoise
from fromnoise.samplers.base import Noise
from fromnoise.tasks.base import Ready, Run, Spec, as_floats, default_run, fit, like
from fromnoise.types import Condition, InputError, build, require_finite

OVERLAP = 8  # latents that two pieces share


@dataclasses.dataclass(frozen=True)
class AutoencodingConfig:
    """The parts of an autoencoder as specs; it is what a card stores.

    frontend: of waves. encoder: the wave, or frames of the front end, -> latent; its in_channels are those of the wave
    times the bins of a frame. backbone: told the latent as the condition's frames. sampler, grid, num_steps: the
    default decoding. seconds: length of the clips in training.
    segment: seconds that are decoded at a time, 0 for everything at once.
    """

    frontend: Spec = dataclasses.field(default_factory=lambda: {"name": "wave", "sample_rate": 48000})
    encoder: Spec = dataclasses.field(default_factory=lambda: {"name": "encoder1d"})
    backbone: Spec = dataclasses.field(default_factory=lambda: {"name": "unet1d"})
    process: Spec = dataclasses.field(default_factory=lambda: {"name": "vp_angular"})
    prediction: Spec = dataclasses.field(default_factory=lambda: {"name": "velocity"})
    sampler: Spec = dataclasses.field(default_factory=lambda: {"name": "ddim"})
    grid: Spec = dataclasses.field(default_factory=lambda: {"name": "uniform"})
    num_steps: int = 100
    seconds: float = 1.0
    segment: float = 0.0


class AutoencodingModel(nn.Module):
    """Encoder and diffusing decoder."""

    def __init__(self, config: AutoencodingConfig) -> None:
        super().__init__()
        self.config = config
        if not (0 < config.seconds < math.inf and 0 <= config.segment < math.inf):
            raise ValueError(f"expected seconds > 0 and segment >= 0, got {config.seconds} and {config.segment}")
        self.frontend = build("frontend", FRONTENDS, config.frontend)
        encoder = build("encoder", ENCODERS, config.encoder)
        network = build("backbone", BACKBONES, config.backbone)
        self.channels = channels_of(self.frontend, encoder)
        _require_joined(encoder, network, config.backbone["name"])
        self.process = build("process", PROCESSES, config.process)
        prediction = build("prediction", PREDICTIONS, config.prediction)
        self.encoder = encoder.build()
        self.denoiser = Denoiser(network.build(), self.process, prediction)
        self.latent_channels, self.factor = encoder.latent_channels, encoder.downsample_factor
        self.hop = self.frontend.hop * self.factor
        self.reach = self.frontend.reach + self.frontend.hop * encoder.reach
        self.default_run()

    def encode(self, wave: Float[Tensor, "b c n"]) -> Float[Tensor, "b d t"]:
        """The latent; one position for every `factor` frames begun, `hop` samples."""
        return self.encoder(self.shown(wave))

    def shown(self, wave: Float[Tensor, "b c n"]) -> Float[Tensor, "b f t"]:
        """What encoder and network work on: the wave, or its frames, bins as channels."""
        return self.frontend.encode(wave).flatten(1, -2)

    def positions(self, n: int) -> int:
        """Latents that stand for n samples."""
        return -(-self.frontend.shape(self.channels, n)[-1] // self.factor)

    def samples(self, positions: int) -> int:
        """What so many latents stand for: of a front end with a frame on either edge, the samples between these."""
        edge = self.frontend.shape(self.channels, self.frontend.hop)[-1] - 1
        return (positions * self.factor - edge) * self.frontend.hop

    def loss(
        self, clean: Float[Tensor, "b c n"], objective: Objective, generator: torch.Generator | None = None
    ) -> Float[Tensor, " b"]:
        """The objective's loss of each item, and the bottleneck's where it has one; one channel stands for all."""
        x0 = self.shown(clean.expand(-1, self.channels, -1))
        latent, extra = self.encoder.encode(x0, generator)
        draw = objective.draw(self.process, self.denoiser.prediction, x0, None, generator)
        losses = objective.losses(self.denoiser, x0, None, Condition(frames=latent), draw)
        return losses if extra is None else losses + extra

    def default_run(self, num_steps: int | None = None, sampler: str | None = None) -> Run:
        """The run that the configuration asks for, with another number of steps or another sampler by its name."""
        return default_run(self.config, num_steps, sampler)

    def decode(
        self,
        latent: Float[Tensor, "b d t"],
        n: int,
        noise: Callable[[int], Noise],
        run: Run,
        callback: Callable[[int, int, Tensor], object] | None = None,
    ) -> Float[Tensor, "b c n"]:
        """A wave of n samples. noise: the place at which a piece begins, on the front end's last axis -> its noise."""
        if self.positions(n) != latent.shape[-1]:
            raise ValueError(f"expected {self.positions(n)} latents for {n} samples, got {latent.shape[-1]}")
        length = round(self.config.segment * self.frontend.sample_rate / self.hop)
        length = latent.shape[-1] if length == 0 else max(length, 2 * OVERLAP)
        shape = self.frontend.shape(self.channels, n)
        whole = latent.new_empty(len(latent), math.prod(shape[:-1]), shape[-1])
        low = done = 0
        while True:
            high, start = min(low + length, latent.shape[-1]), low * self.factor
            count = min(high * self.factor, shape[-1]) - start
            piece = self._piece(latent[..., low:high], whole[..., start : start + count], noise(start), run, callback)
            whole[..., start : start + count] = faded(whole[..., start:done], piece, 0)
            if high == latent.shape[-1]:
                return self.frontend.decode(whole.unflatten(1, shape[:-1]), n)
            low, done = high - OVERLAP, start + count

    def _piece(
        self,
        latent: Float[Tensor, "b d t"],
        like: Float[Tensor, "b f m"],
        noise: Noise,
        run: Run,
        callback: Callable[[int, int, Tensor], object] | None,
    ) -> Float[Tensor, "b f m"]:
        x = self.process.prior(None, noise(torch.zeros_like(like)))
        denoise = self.denoiser.bind(None, Condition(frames=latent))
        times = run.grid.times(self.process, run.num_steps)
        return run.sampler.sample(denoise, self.process, x, times, None, noise, callback)


def channels_of(frontend: Frontend, encoder: Any) -> int:
    """Of the waves: the encoder's, where it works on frames divided by their bins. Raises ValueError where they do not
    fit."""
    bins = math.prod(frontend.shape(1, frontend.hop)[:-1])
    if encoder.in_channels % bins or (frontend.hop > 1 and encoder.front is not None):
        raise ValueError(
            f"the front end gives {bins} numbers a frame for each channel; expected in_channels of the encoder in "
            f"multiples of that, and no front of its own (front=null), got {encoder.in_channels} and {encoder.front}"
        )
    return encoder.in_channels // bins


def _require_joined(encoder: Any, network: Any, name: str) -> None:
    """Raises ValueError unless the network takes the encoder's latents at their rate."""
    depth = getattr(network, "inject_depth", None)
    wanted = (encoder.latent_channels, encoder.downsample_factor)
    found = None if depth is None else (network.context_channels[depth], network.frame_hop)
    if found != wanted:
        raise ValueError(
            f"the encoder gives {wanted[0]} numbers for every {wanted[1]} positions, the backbone {name!r} takes "
            f"{'none' if found is None else f'{found[0]} for every {found[1]}'}; change context_channels or factors"
        )
    if network.in_channels != encoder.in_channels:
        raise ValueError(
            f"expected one number of channels, got in_channels {encoder.in_channels} of the encoder and "
            f"{network.in_channels} of the backbone"
        )


def faded(whole: Float[Tensor, "b c n"], piece: Float[Tensor, "b c m"], low: int) -> Float[Tensor, "b c k"]:
    """The piece laid over the end of the whole from sample `low` on, fading in over what they share."""
    shared = whole.shape[-1] - low
    u = (torch.arange(shared, device=piece.device, dtype=piece.dtype) + 0.5) / shared
    both = torch.lerp(whole[..., low:], piece[..., :shared], u)
    return torch.cat([whole[..., :low], both, piece[..., shared:]], -1)


@dataclasses.dataclass(frozen=True, eq=False)
class Latent(Frontend):
    """An autoencoder as a front end: its weights stand still, its inverse draws the noise of seed 0. run: how it is
    decoded, None for the autoencoder's own way."""

    model: AutoencodingModel
    sample_rate: int
    hop: int
    run: Run | None = None

    @classmethod
    def of(cls, model: AutoencodingModel) -> "Latent":
        """The front end that an autoencoder is."""
        return cls(model, model.frontend.sample_rate, model.hop)

    @property
    def reach(self) -> int:
        return self.model.reach

    def shape(self, channels: int, n: int) -> tuple[int, ...]:
        return (self.model.latent_channels, self.model.positions(n))

    def encode(self, wave: Float[Tensor, "b c n"]) -> Float[Tensor, "b d t"]:
        """One channel stands for all of the autoencoder's."""
        with torch.no_grad():
            return self.model.encode(wave.expand(-1, self.model.channels, -1))

    def decode(self, x: Float[Tensor, "b d t"], n: int) -> Float[Tensor, "b c n"]:
        with torch.no_grad():
            run = self.run or self.model.default_run()
            return self.model.decode(x, n, lambda place: PositionNoise([0] * len(x), place), run)


class Autoencoder(Ready[AutoencodingModel]):
    """A ready model: recordings to latents and back.

    >>> model = fromnoise.load("runs/my-autoencoder")                           # doctest: +SKIP
    >>> latent = model.encode(wave, sample_rate=48000)                          # doctest: +SKIP
    >>> again = model.decode(latent, steps=25, seed=0)                          # doctest: +SKIP
    """

    task = "autoencode"

    @property
    def sample_rate(self) -> int:
        """The rate in Hz of the waves."""
        return self.model.frontend.sample_rate

    def network_calls(self, steps: int | None = None, sampler: str | None = None) -> int:
        """Network calls of decoding one piece."""
        run = self.model.default_run(steps, sampler)
        return run.sampler.evaluations(run.num_steps)

    def encode(self, wave: Any, sample_rate: int) -> Float[np.ndarray, "d t"]:
        """The latent of a recording `n` or `c n`, one channel standing for all of the model's."""
        given = np.atleast_2d(as_floats(wave)).astype(np.float32)
        check_rate(sample_rate, "the recording")
        require_finite(torch.from_numpy(given), "the recording")
        if len(given) not in (1, self.model.channels):
            raise InputError(f"expected 1 or {self.model.channels} channels, got {len(given)}; choose some")
        inside = np.asarray(resample(given, sample_rate, self.sample_rate))
        inside = np.repeat(inside, self.model.channels, 0) if len(inside) == 1 else inside
        weight = next(self.model.parameters())
        with torch.inference_mode():
            latent = self.model.encode(torch.from_numpy(np.ascontiguousarray(inside)).to(weight)[None])
        return latent[0].float().cpu().numpy()

    def decode(
        self,
        latent: Float[np.ndarray, "d t"],
        n: int | None = None,
        steps: int | None = None,
        sampler: str | None = None,
        seed: int = 0,
    ) -> Float[np.ndarray, "c n"]:
        """A recording for a latent, of n samples, by default all that the latent stands for."""
        given = np.asarray(latent)
        if given.ndim != 2 or len(given) != self.model.latent_channels or given.shape[1] == 0:
            raise InputError(f"expected a latent of shape ({self.model.latent_channels}, t), got {given.shape}")
        weight = next(self.model.parameters())
        with torch.inference_mode():
            wave = self.model.decode(
                torch.from_numpy(given).to(weight)[None],
                self.model.samples(given.shape[1]) if n is None else n,
                lambda place: PositionNoise([seed], place),
                self.model.default_run(steps, sampler),
            )
        return wave[0].float().cpu().numpy()

    def __call__(
        self, wave: Any, sample_rate: int, steps: int | None = None, sampler: str | None = None, seed: int = 0
    ) -> Any:
        """A recording there and back; its kind, rate and length stay, its channels are the model's."""
        n = np.atleast_2d(as_floats(wave)).shape[1]
        inside = resample(np.zeros((1, n), np.float32), sample_rate, self.sample_rate).shape[1]
        made = self.decode(self.encode(wave, sample_rate), inside, steps, sampler, seed)
        return like(fit(np.asarray(resample(made, self.sample_rate, sample_rate)), n), wave)
