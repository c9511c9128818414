"""Turn mel spectrograms into sound: the verb, its model and its loss.

    m = mel,   y = E's estimate from m, or none,   x_1 from the process's prior,   x0' = sampler(...; m),   out = D(x0')

PriorGrad (Lee et al., 2022, https://arxiv.org/abs/2106.06406) shapes the noise of the prior by the energy of the mel's
frames, N(0, diag(s^2)). Divided by s, everything is plain diffusion again: the process runs in u = x / s, the network
is shown x = s u and its estimate of the noise is divided by s. The error in u is PriorGrad's weighted error.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fromnoise.backbones import BACKBONES
from fromnoise.denoiser import Denoiser
from fromnoise.frontends import FRONTENDS, Magnitude, Mel
from fromnoise.frontends.resample import check_rate, resample
from fromnoise.objectives import Objective
from fromnoise.predictions import PREDICTIONS
from fromnoise.processes import PROCESSES
from fromnoise.samplers import PositionNoise
from fromnoise.samplers.base import Noise
from fromnoise.tasks.base import Ready, Run, Spec, default_run, in_batches, joined, looked_at
from fromnoise.types import Condition, InputError, build, require_finite

LEAST_ENERGY = 0.1  # PriorGrad's floor of s


@dataclasses.dataclass(frozen=True)
class VocodingConfig:
    """The parts of a vocoder as specs; it is what a card stores.

    mel: the definition of what it takes. sampler, grid, num_steps: the default run. prior: "energy" for PriorGrad's,
    where `loudest` is the frame energy sqrt(sum_m exp(2 L_m)) that counts as 1, L the logarithm of magnitudes.
    observation: "mel" gives the process the front end's estimate from the mel as y. clamp: keep the wave within [-1, 1]
    after each step, as LMNT's code.
    """

    mel: Spec = dataclasses.field(default_factory=lambda: {"name": "mel"})
    frontend: Spec = dataclasses.field(default_factory=lambda: {"name": "wave", "sample_rate": 22050})
    backbone: Spec = dataclasses.field(default_factory=lambda: {"name": "wavenet", "mel_bands": 80})
    process: Spec = dataclasses.field(
        default_factory=lambda: {"name": "vp", "beta_min": 1e-4, "beta_max": 0.05, "num_steps": 50}
    )
    prediction: Spec = dataclasses.field(default_factory=lambda: {"name": "noise"})
    sampler: Spec = dataclasses.field(default_factory=lambda: {"name": "ddpm"})
    grid: Spec = dataclasses.field(default_factory=lambda: {"name": "trained"})
    num_steps: int = 50
    prior: Literal["unit", "energy"] = "unit"
    loudest: float = 4.0
    observation: Literal["none", "mel"] = "none"
    clamp: bool = False


class VocodingModel(nn.Module):
    """The network of a vocoder: its training loss, and the sampling of the encoded wave for a mel."""

    def __init__(self, config: VocodingConfig) -> None:
        super().__init__()
        self.config = config
        self.mel: Mel = build("mel", {"mel": Mel}, config.mel)
        self.frontend = build("frontend", FRONTENDS, config.frontend)
        if self.frontend.sample_rate != self.mel.sample_rate:
            raise ValueError(
                f"expected a front end at the mel's rate {self.mel.sample_rate} Hz, got {self.frontend.sample_rate} Hz"
            )
        if config.observation == "mel" and not isinstance(self.frontend, Magnitude):
            raise ValueError("observation 'mel' needs the front end 'magnitude', which can be estimated from a mel")
        if config.prior == "energy" and (config.prediction.get("name") != "noise" or self.frontend.hop != 1):
            raise ValueError("prior 'energy' needs the prediction 'noise' and a wave front end")
        if config.prior == "energy" and self.mel.log == "none":
            raise ValueError("prior 'energy' needs a logarithmic mel; set the mel's log to 'e' or '10'")
        if config.clamp and self.frontend.hop != 1:
            raise ValueError("clamp keeps waves within full scale; it needs a wave front end")
        if config.loudest <= 0:
            raise ValueError(f"expected loudest > 0, got {config.loudest}")
        self.process = build("process", PROCESSES, config.process)
        if self.process.needs_observation and config.observation == "none":
            raise ValueError(f"the process {config.process['name']!r} needs observation='mel'")
        network = build("backbone", BACKBONES, config.backbone).build()
        prediction = build("prediction", PREDICTIONS, config.prediction)
        self.denoiser = Denoiser(Shaped(network) if config.prior == "energy" else network, self.process, prediction)
        self.default_run()  # a sampler or grid that does not exist is an error here, not at the first mel

    def loss(
        self,
        clean: Float[Tensor, "b 1 n"],
        objective: Objective,
        generator: torch.Generator | None = None,
        band_hz: Float[Tensor, " b"] | None = None,
    ) -> Float[Tensor, " b"]:
        """The objective's loss of each item, its mel made from the clip itself.

        band_hz: up to where a clip holds sound (it was recorded at a lower rate): bins above do not count. Only for
        front ends with bins.
        """
        mel = self.mel.encode(clean)
        y, told, scale = self.given(mel, clean.shape[-1])
        x0 = self.frontend.encode(clean)
        x0 = x0 if scale is None else x0 / scale
        draw = objective.draw(self.process, self.denoiser.prediction, x0, y, generator)
        return objective.losses(self.denoiser, x0, y, told, draw, self._heard(band_hz))

    def _heard(self, band_hz: Tensor | None) -> Tensor | None:
        """True for the bins `b 1 f 1` up to each item's band."""
        if band_hz is None or not isinstance(self.frontend, Magnitude):
            return None
        width = self.frontend.sample_rate / self.frontend.n_fft
        bins = torch.arange(self.frontend.bins, device=band_hz.device)
        return (bins[None] * width <= 0.97 * band_hz[:, None])[:, None, :, None]  # the resampler's edge is not sound

    def given(self, mel: Float[Tensor, "b m w"], n: int) -> tuple[Tensor | None, Condition, Tensor | None]:
        """The observation, what the network is told, and PriorGrad's s, for states that stand for n samples."""
        y = None
        if self.config.observation == "mel":
            assert isinstance(self.frontend, Magnitude)
            y = self.frontend.from_mel(self.mel, mel)
        if self.config.prior == "unit":
            return y, Condition(frames=mel), None
        scale = self.energy(mel).repeat_interleave(self.mel.hop, -1)[:, None, :n]
        return y, Condition(frames=mel, signal=scale), scale

    def energy(self, mel: Float[Tensor, "b m w"]) -> Float[Tensor, "b w"]:
        """PriorGrad's s of each frame, from LEAST_ENERGY to 1."""
        level = self.mel.invert_range(mel) / self.mel.multiplier
        level = level if self.mel.log == "e" else level * math.log(10)
        return ((2 / self.mel.power * level).exp().sum(1).sqrt() / self.config.loudest).clamp(LEAST_ENERGY, 1)

    def default_run(self, num_steps: int | None = None, sampler: str | None = None) -> Run:
        """The run that the configuration asks for, with another number of steps or another sampler by its name."""
        run = default_run(self.config, num_steps, sampler)
        with torch.device("cpu"):  # also while the model is outlined without memory
            run.grid.times(self.process, run.num_steps)  # a wrong number of steps is an error now
        return run

    def sample(
        self,
        mel: Float[Tensor, "b m w"],
        noise: Noise,
        run: Run,
        callback: Callable[[int, int, Tensor], object] | None = None,
    ) -> Float[Tensor, "b 1 n"]:
        """Waves of w hop samples."""
        frames, hop = mel.shape[-1], self.mel.hop
        n = frames * hop
        held = n if self.frontend.hop == 1 else (frames - 1) * hop  # so that the state has the mel's frames
        y, told, scale = self.given(mel, n)
        like = mel.new_zeros((len(mel), *self.frontend.shape(1, held)))
        x = self.process.prior(y, noise(like))
        keep = None
        if self.config.clamp:
            full = torch.ones_like(x) if scale is None else 1 / scale  # of the state, which may be u
            keep = lambda x, i, t, s: x.clamp(-full, full)  # noqa: E731
        times = run.grid.times(self.process, run.num_steps)
        denoise = self.denoiser.bind(y, told)
        x = run.sampler.sample(denoise, self.process, x, times, y, noise, callback, keep)
        return self.frontend.decode(x if scale is None else x * scale, n)


class Shaped(nn.Module):
    """A network for noise of local deviation s, which is the condition's signal: out(u) = network(s u) / s."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Tensor like x."""
        return self.bind(condition)(x, t)

    def bind(self, condition: Condition) -> Callable[[Tensor, Tensor], Tensor]:
        """The function (x, t) for one condition."""
        scale = condition.signal
        if scale is None:
            raise ValueError("a shaped network expects the deviation of its noise as the condition's signal, got none")
        told = dataclasses.replace(condition, signal=None)
        bind = getattr(self.network, "bind", None)
        network = bind(told) if bind is not None else lambda x, t: self.network(x, t, told)
        return lambda x, t: network(x * scale, t) / scale


class Vocoder(Ready[VocodingModel]):
    """A ready model: mel spectrograms in, sound out.

    >>> vocoder = fromnoise.load("vocode-small")                                # doctest: +SKIP
    >>> wave = vocoder(vocoder.mel(recording, sample_rate=44100), seed=0)       # doctest: +SKIP
    """

    task = "vocode"

    @property
    def sample_rate(self) -> int:
        """The rate in Hz of the sound it makes."""
        return self.model.mel.sample_rate

    @property
    def definition(self) -> Mel:
        """The mel that it takes."""
        return self.model.mel

    def network_calls(self, steps: int | None = None, sampler: str | None = None) -> int:
        """Network calls of one run."""
        run = self.model.default_run(steps, sampler)
        return run.sampler.evaluations(run.num_steps)

    def mel(self, wave: Any, sample_rate: int) -> Any:
        """The mel of a recording `n`, or of each of `b n`: `m w` or `b m w`, of the same kind (numpy or torch).

        Raises InputError for an empty, non-finite or oddly shaped recording, or a rate out of range.
        """
        check_rate(sample_rate, "the recording")
        given = wave.detach().cpu().numpy() if isinstance(wave, Tensor) else np.asarray(wave)
        if given.ndim not in (1, 2) or given.size == 0 or given.dtype.kind != "f":
            raise InputError(
                f"expected a wave of shape (n) or (b, n), n >= 1, as floats in [-1, 1]; got {given.dtype} {given.shape}"
            )
        planes = np.atleast_2d(given).astype(np.float32)
        require_finite(torch.from_numpy(planes), "the recording")
        inside = torch.from_numpy(np.asarray(resample(planes, sample_rate, self.sample_rate)))
        with torch.inference_mode():
            mel = self.model.mel.encode(inside[:, None])
        mel = mel[0] if given.ndim == 1 else mel
        return mel.clone().to(wave.device) if isinstance(wave, Tensor) else mel.numpy()

    @property
    def align(self) -> int:
        """Pieces of a mel must begin at multiples of this many frames."""
        network = build("backbone", BACKBONES, self.model.config.backbone)
        step = math.lcm(getattr(self.model.frontend, "align", 1), getattr(network, "multiple", 1), self.model.mel.hop)
        return step // self.model.mel.hop

    def context(self, calls: int = 1) -> int:
        """Frames on either side that `calls` network calls in a row look at (`looked_at`), a multiple of `align`."""
        reach = build("backbone", BACKBONES, self.model.config.backbone).reach * self.model.frontend.hop
        samples = looked_at(calls, reach, self.sample_rate) + self.model.frontend.reach
        return (math.ceil(samples / self.model.mel.hop / self.align) + 1) * self.align

    def chunking(self, segment: float, calls: int = 1) -> dict[str, Any]:
        """Settings of `run_chunked` in frames; `segment` counts the seconds kept, the context comes on top."""
        if not 0 < segment < math.inf:
            raise InputError(f"expected segment > 0 seconds, got {segment}")
        kept = max(round(segment * self.sample_rate / self.model.mel.hop), self.align)
        context = self.context(calls)
        return {"segment": kept + 2 * context, "context": context, "overlap": 0, "align": self.align}

    def piece(
        self,
        steps: int | None = None,
        sampler: str | None = None,
        seed: int = 0,
        callback: Callable[[int, int, Tensor], object] | None = None,
    ) -> "VocodePiece":
        """The function (mel `m w`, position of its first frame) -> samples `hop w`, sample k of frame j at [k, j].

        In this layout a mel is cut and joined by `run_chunked` like a recording whose samples are the frames. Noise
        belongs to absolute positions, so that a mel sounds the same however it is cut.
        """
        return VocodePiece(self, self.model.default_run(steps, sampler), seed, callback)

    def together(self, requests: Sequence[tuple["VocodePiece", np.ndarray, int]], at_once: int) -> list[np.ndarray]:
        """The answers to what several mels ask for, by functions of `piece` with one run: those of as many frames that
        begin at the same one at once, at most `at_once`."""
        return in_batches(requests, lambda request: (request[1].shape[1], request[2]), at_once, self._vocoded)

    def _vocoded(self, requests: Sequence[tuple["VocodePiece", np.ndarray, int]]) -> list[np.ndarray]:
        first, _, start = requests[0]
        mels = np.stack([mel for _, mel, _ in requests]).astype(np.float32)
        hop, seeds = self.model.mel.hop, [piece.seed for piece, _, _ in requests]
        noise = PositionNoise(seeds, start * hop // self.model.frontend.hop)
        with torch.inference_mode():
            callback = first.callback if len(requests) == 1 else None
            waves = self.model.sample(torch.from_numpy(mels).to(self.device), noise, first.run, callback)
        return [wave[0].reshape(-1, hop).T.cpu().numpy() for wave in waves]

    def __call__(
        self,
        mel: Any,
        seed: int = 0,
        steps: int | None = None,
        sampler: str | None = None,
        length: int | None = None,
        segment: float = 30.0,
        callback: Callable[[int, int, Tensor], object] | None = None,
    ) -> Any:
        """Sound for a mel `m w`, or for each of `b m w`: `n` or `b n` samples, numpy or torch as the mel was.

        length: samples wanted, by default w hop. steps, sampler: other than the model's own. segment: seconds, as
        `fromnoise vocode`. callback(i, n, x): after every step of every piece. Item i of a batch has seed + i. Raises
        InputError for a mel of another definition.
        """
        given = mel.detach().cpu().float().numpy() if isinstance(mel, Tensor) else np.asarray(mel)
        if given.ndim not in (2, 3) or given.dtype.kind != "f":
            raise InputError(f"expected a mel of shape (bands, frames) as floats, got {given.dtype} {given.shape}")
        items = given[None] if given.ndim == 2 else given
        if items.shape[-1] == 0 or len(items) == 0:
            raise InputError(f"expected a mel with at least one frame, got shape {given.shape}")
        if length is not None and length < 1:
            raise InputError(f"expected a length of at least one sample, got {length}")
        self.model.mel.check(torch.from_numpy(np.ascontiguousarray(items, dtype=np.float32)))
        waves = np.stack([self._one(item, seed + i, steps, sampler, segment, callback) for i, item in enumerate(items)])
        if length is not None:
            waves = np.pad(waves, ((0, 0), (0, max(0, length - waves.shape[1]))))[:, :length]
        waves = waves[0] if given.ndim == 2 else waves
        return torch.from_numpy(waves).to(mel.device) if isinstance(mel, Tensor) else waves

    def _one(
        self,
        mel: np.ndarray,
        seed: int,
        steps: int | None,
        sampler: str | None,
        segment: float,
        callback: Callable[[int, int, Tensor], object] | None,
    ) -> np.ndarray:
        chunking = self.chunking(segment, self.network_calls(steps, sampler))
        return joined(self.piece(steps, sampler, seed, callback), mel, chunking).T.reshape(-1)


@dataclasses.dataclass(frozen=True)
class VocodePiece:
    """`Vocoder.piece`: what the pieces of one mel share."""

    vocoder: Vocoder
    run: Run
    seed: int
    callback: Callable[[int, int, Tensor], object] | None

    def __call__(self, mel: np.ndarray, start: int) -> np.ndarray:
        return self.vocoder.together([(self, mel, start)], 1)[0]
