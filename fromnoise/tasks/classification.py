"""Say which of a few sounds a clip is; the classifier behind the scores of generated digits.

    L[m, t] = log-mel of the clip, cut or filled with silence to `seconds`
    a = max(L - max L, -decibels),   probabilities = softmax(logits(a)),   features = what the last layer reads

The level of the clip falls out. The published scores on spoken digits (Goel et al., "It's Raw! Audio Generation with
State-Space Models", 2022, https://arxiv.org/abs/2202.09729) were computed with the defaults: 32 mel bands, 32 frames of
a second at 16 kHz, in dB, mirrored at the ends (`padding`: later versions of their mel program fill with zeros).

In training each clip is changed in each of five ways with probability `chance`: louder or softer, played faster or
slower (the pitch moves), shifted, mixed with noise, and stretched in time (the pitch stays). The published recipe
mixes in recordings of background noise; ours draws noise whose spectrum falls by 0 to 6 dB an octave, at the clip's
level. It stretches by a phase vocoder; since a mel reads no phases, ours interpolates between frames of L.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from fromnoise.backbones.resnext import ResNeXtConfig
from fromnoise.frontends import Mel
from fromnoise.frontends.mel import DEFINITIONS
from fromnoise.frontends.resample import check_rate, resample
from fromnoise.tasks.base import Ready
from fromnoise.types import InputError, build, require_finite, spec

Spec = Mapping[str, Any]
NETWORKS: dict[str, type] = {"resnext": ResNeXtConfig}
FRONTENDS: dict[str, type] = {"mel": Mel}
BATCH = 64  # clips that go through the network at once


@dataclasses.dataclass(frozen=True)
class ClassificationConfig:
    """The parts of a classifier.

    mel: a logarithmic mel without a range of its own; decibels: how far below the loudest point it is read, in the unit
    of the mel's logarithm. labels: the classes by name. seconds: of a clip.
    Of training: chance of each change of a clip; gain: from, to; speed, stretch: largest change; shift: largest, in
    frames; noise: its largest share in the mix. 0 (and gain 1 to 1) turns a change off.
    """

    mel: Spec = dataclasses.field(default_factory=lambda: spec(FRONTENDS, DEFINITIONS["sc09-16k"]))
    network: Spec = dataclasses.field(default_factory=lambda: {"name": "resnext"})
    labels: tuple[str, ...] = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    seconds: float = 1.0
    decibels: float = 80.0
    chance: float = 0.5
    gain: tuple[float, ...] = (0.7, 1.1)
    speed: float = 0.2
    stretch: float = 0.2
    shift: int = 8
    noise: float = 0.45


class ClassificationModel(nn.Module):
    """The network, what it reads of a clip, and its training loss."""

    def __init__(self, config: ClassificationConfig) -> None:
        super().__init__()
        self.config = config
        self.labels = tuple(config.labels)
        _require_possible(config)
        self.mel: Mel = build("mel", FRONTENDS, config.mel)
        if self.mel.log == "none" or self.mel.low is not None:
            raise ValueError(
                "a classifier reads a logarithmic mel without a range; set log to 'e' or '10', low to null"
            )
        self.num_samples = round(config.seconds * self.mel.sample_rate)
        if not 1 <= self.num_samples <= 1 << 24:
            raise ValueError(f"expected clips of 1 to {1 << 24} samples, got seconds = {config.seconds}")
        self.network = build("network", NETWORKS, config.network).build(len(self.labels))

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.mel.sample_rate

    def image(self, wave: Float[Tensor, "b 1 n"]) -> Float[Tensor, "b 1 m w"]:
        """What the network reads of waves at the model's rate, of any length."""
        return self._relative(self.mel.encode(fixed(wave, self.num_samples)))

    def _relative(self, level: Float[Tensor, "b m w"]) -> Float[Tensor, "b 1 m w"]:
        level = level - level.amax(dim=(1, 2), keepdim=True)
        return level.clamp(min=-self.config.decibels)[:, None]

    def forward(self, wave: Float[Tensor, "b 1 n"]) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b d"]]:
        """(logits, features) of waves at the model's rate."""
        return self.network(self.image(wave))

    def loss(
        self, clean: Float[Tensor, "b 1 n"], labels: Int64[Tensor, " b"], generator: torch.Generator | None = None
    ) -> Float[Tensor, " b"]:
        """Cross entropy of each item; in training mode of a changed copy of each clip, drawn with `generator`."""
        if bool((labels < 0).any()) or bool((labels >= len(self.labels)).any()):
            raise InputError(f"a classifier learns from labels 0 to {len(self.labels) - 1}, got {labels.tolist()}")
        image = self.changed(clean, generator) if self.training else self.image(clean)
        return functional.cross_entropy(self.network(image)[0], labels, reduction="none")

    def accuracy(self, clean: Float[Tensor, "b 1 n"], labels: Int64[Tensor, " b"]) -> Float[Tensor, " b"]:
        """1 where the likeliest class is the label, else 0."""
        return (self(clean)[0].argmax(dim=1) == labels).float()

    def changed(self, wave: Float[Tensor, "b 1 n"], generator: torch.Generator | None) -> Float[Tensor, "b 1 m w"]:
        """The images of changed copies of the clips, see the module's text."""
        config, draw = self.config, _Draws(generator, wave)
        with torch.no_grad():
            low, high = (float(end) for end in config.gain)
            wave = wave * draw.some(low, high, config.chance, 1.0)[:, None, None]
            wave = at_speed(fixed(wave, self.num_samples), draw.some(1 - config.speed, 1 + config.speed, config.chance))
            frames = draw.some(-float(config.shift), float(config.shift), config.chance, 0.0).round()
            wave = shifted(wave, (frames * self.mel.hop).long())
            share = draw.some(0.0, config.noise, config.chance, 0.0)[:, None, None]
            wave = (1 - share) * wave + share * draw.noise(wave) if config.noise else wave
            level = self.mel.encode(wave)
            level = at_speed(
                level, draw.some(1 - config.stretch, 1 + config.stretch, config.chance), float(self.mel.range[0])
            )
            return self._relative(level)


def _require_possible(config: ClassificationConfig) -> None:
    if len(config.labels) < 2 or len(set(config.labels)) < len(config.labels):
        raise ValueError(f"expected at least two labels, all different, got {config.labels}")
    if not (0 <= config.chance <= 1 and 0 <= config.speed < 1 and 0 <= config.stretch < 1 and 0 <= config.noise <= 1):
        raise ValueError(
            f"expected chance and noise from 0 to 1, speed and stretch from 0 to below 1, got {config.chance}, "
            f"{config.noise}, {config.speed} and {config.stretch}"
        )
    if len(config.gain) != 2 or not 0 < config.gain[0] <= config.gain[1] or config.shift < 0 or config.decibels <= 0:
        raise ValueError(
            f"expected gain as two positive numbers, the lower first, shift >= 0 and decibels > 0, got {config.gain}, "
            f"{config.shift} and {config.decibels}"
        )


class _Draws:
    """Random numbers for each item of a batch, from a generator on its own device."""

    def __init__(self, generator: torch.Generator | None, wave: Tensor) -> None:
        self.generator, self.wave = generator, wave
        self.device = wave.device if generator is None else generator.device

    def some(self, low: float, high: float, chance: float, otherwise: float = 1.0) -> Float[Tensor, " b"]:
        """Uniform from low to high with probability `chance`, else `otherwise`."""
        u = torch.rand(2, len(self.wave), generator=self.generator, device=self.device).to(self.wave.device)
        return torch.where(u[0] < chance, low + (high - low) * u[1], torch.full_like(u[1], otherwise))

    def noise(self, wave: Float[Tensor, "b 1 n"]) -> Float[Tensor, "b 1 n"]:
        """Noise with a spectrum f^-a, a from 0 to 1 (amplitude), at each item's level."""
        white = torch.randn(wave.shape, generator=self.generator, device=self.device).to(wave.device)
        slope = self.some(0.0, 1.0, 1.0)[:, None, None]
        spectrum = torch.fft.rfft(white)
        ramp = torch.arange(spectrum.shape[-1], device=wave.device).clamp(min=1).to(white.dtype) ** -slope
        coloured = torch.fft.irfft(spectrum * ramp, wave.shape[-1])
        return coloured * _rms(wave) / _rms(coloured).clamp(min=1e-12)


def _rms(wave: Float[Tensor, "b 1 n"]) -> Float[Tensor, "b 1 1"]:
    return wave.square().mean(dim=-1, keepdim=True).sqrt()


def fixed(wave: Float[Tensor, "b 1 n"], n: int) -> Float[Tensor, "b 1 m"]:
    """Cut, or filled with silence, at the end."""
    return functional.pad(wave, (0, max(0, n - wave.shape[-1])))[..., :n]


def at_speed(x: Float[Tensor, "b c n"], speed: Float[Tensor, " b"], fill: float = 0.0) -> Float[Tensor, "b c n"]:
    """x read at places k speed by linear interpolation, `fill` beyond its end; each item at its own speed."""
    place = torch.arange(x.shape[-1], device=x.device) * speed[:, None]  # b n
    left = place.long()
    share = (place - left)[:, None].to(x.dtype)
    padded = functional.pad(x, (0, 2), value=fill)
    left = left.clamp(max=x.shape[-1])[:, None].expand(x.shape)
    return torch.lerp(padded.gather(-1, left), padded.gather(-1, left + 1), share)


def shifted(x: Float[Tensor, "b c n"], by: Int64[Tensor, " b"]) -> Float[Tensor, "b c n"]:
    """Each item later by its own number of samples (earlier when negative), silence where nothing came."""
    n = x.shape[-1]
    place = torch.arange(n, device=x.device) - by[:, None]  # b n
    kept = (place >= 0) & (place < n)
    moved = x.gather(-1, place.clamp(0, n - 1)[:, None].expand(x.shape))
    return moved * kept[:, None]


class Classifier(Ready[ClassificationModel]):
    """A ready classifier: clips in, probabilities and features out.

    >>> classifier = fromnoise.load("digits-classifier")                        # doctest: +SKIP
    >>> probabilities, features = classifier(waves, sample_rate=8000)           # doctest: +SKIP
    >>> classifier.labels[probabilities[0].argmax()]                            # doctest: +SKIP
    'seven'
    """

    task = "classify"

    @property
    def sample_rate(self) -> int:
        """The rate in Hz that the model works at."""
        return self.model.sample_rate

    @property
    def labels(self) -> tuple[str, ...]:
        return self.model.labels

    def index(self, label: str | int) -> int:
        """The number of a label given by name, or by number (also as text, where no label is called so)."""
        text = str(label)
        if text in self.labels:
            return self.labels.index(text)
        if text.isdecimal() and int(text) < len(self.labels):
            return int(text)
        raise InputError(f"unknown label {text!r}; choose one of: {', '.join(self.labels)}")

    def __call__(self, waves: Any, sample_rate: int) -> tuple[Any, Any]:
        """(probabilities `b k`, features `b d`) of waves `b n`, or of one, `n`, without the axis b.

        waves: floats, numpy or torch, the same comes out; of any length, cut or filled with silence to the model's.
        sample_rate: Hz. Raises InputError for an empty, non-finite or oddly shaped input, or a rate out of range.
        """
        given = waves if isinstance(waves, Tensor) else torch.from_numpy(np.array(waves, copy=True))
        if given.ndim not in (1, 2) or given.numel() == 0 or not given.is_floating_point():
            raise InputError(
                f"expected waves of shape (n) or (b, n) as floats in [-1, 1], got {given.dtype} {tuple(given.shape)}"
            )
        check_rate(sample_rate, "the waves")
        planes = require_finite(given.detach().float().reshape(-1, given.shape[-1]), "the waves")
        parts = [
            self._run(resample(planes[i : i + BATCH], sample_rate, self.sample_rate))
            for i in range(0, len(planes), BATCH)
        ]
        found = [torch.cat(side).reshape(*given.shape[:-1], -1) for side in zip(*parts, strict=True)]
        probabilities, features = (x.to(given.device) if isinstance(waves, Tensor) else x.cpu().numpy() for x in found)
        return probabilities, features

    def _run(self, planes: Float[Tensor, "b n"]) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b d"]]:
        with torch.inference_mode():
            logits, features = self.model(planes[:, None].to(self.device))
            return logits.double().softmax(dim=1).float(), features.float()

    def fixed(self, wave: Float[np.ndarray, " n"], sample_rate: int) -> Float[np.ndarray, " m"]:
        """One clip at the model's rate and length: what a batch of clips is stacked of."""
        moved = np.asarray(resample(wave, sample_rate, self.sample_rate), dtype=np.float32)[: self.model.num_samples]
        return np.pad(moved, (0, self.model.num_samples - len(moved)))


def stack(classifier: Classifier, waves: Sequence[tuple[np.ndarray, int]]) -> Float[np.ndarray, "b n"]:
    """Clips of any rate and length (wave `n`, Hz) as one batch at the classifier's."""
    return np.stack([classifier.fixed(wave, rate) for wave, rate in waves])
