"""Recordings of a low rate to a high one, with what lies above the low rate's band made by diffusion.

    low = S(x0),   y = L(low),   x0' = sampler(x_1, 1 -> 0), the network told y

S and L are the windowed sinc of `fromnoise.frontends.sinc`, down and up by `factor`. As in the upsampler of
audio-diffusion-pytorch (Schneider et al., "Mousai", 2023, https://arxiv.org/abs/2301.11757), y is stacked under the
noisy state. A process that leads to an observation gets y as that, too.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fromnoise.backbones import BACKBONES
from fromnoise.denoiser import Denoiser
from fromnoise.frontends import FRONTENDS
from fromnoise.frontends.resample import check_rate, resample, resampled_length
from fromnoise.frontends.sinc import Sinc
from fromnoise.objectives import Objective
from fromnoise.predictions import PREDICTIONS
from fromnoise.processes import PROCESSES
from fromnoise.samplers import PositionNoise
from fromnoise.samplers.base import Noise
from fromnoise.tasks.base import Ready, Run, Spec, as_floats, cut, default_run, fit, joined, like, looked_at
from fromnoise.tasks.chunked import Level
from fromnoise.tasks.enhancement_model import unit_gain
from fromnoise.types import Condition, InputError, build, require_finite

Callback = Callable[[int, int, Tensor], object]


@dataclasses.dataclass(frozen=True)
class UpsamplingConfig:
    """The parts of an upsampler as specs; it is what a card stores.

    factor: the high rate, which is the front end's, over the low. backbone: told the lifted recording as the
    condition's signal. unit: the recording at the low rate is scaled to a unit RMS or peak, or left as it is. sampler,
    grid, num_steps: the default run.
    """

    factor: int = 4
    frontend: Spec = dataclasses.field(default_factory=lambda: {"name": "wave", "sample_rate": 48000})
    backbone: Spec = dataclasses.field(default_factory=lambda: {"name": "unet1d", "signal_channels": 2})
    process: Spec = dataclasses.field(default_factory=lambda: {"name": "vp_angular"})
    prediction: Spec = dataclasses.field(default_factory=lambda: {"name": "velocity"})
    sampler: Spec = dataclasses.field(default_factory=lambda: {"name": "ddim"})
    grid: Spec = dataclasses.field(default_factory=lambda: {"name": "uniform"})
    num_steps: int = 50
    unit: Literal["rms", "peak", "none"] = "rms"


class UpsamplingModel(nn.Module):
    """The network of an upsampler: its training loss, and the sampling of a wave from one at the low rate."""

    def __init__(self, config: UpsamplingConfig) -> None:
        super().__init__()
        self.config = config
        self.frontend = build("frontend", FRONTENDS, config.frontend)
        if config.factor < 2 or self.frontend.sample_rate % config.factor:
            raise ValueError(
                f"expected a factor of at least 2 that divides the rate {self.frontend.sample_rate} Hz, got "
                f"{config.factor}"
            )
        network = build("backbone", BACKBONES, config.backbone)
        self.channels = getattr(network, "in_channels", 1) if self.frontend.hop == 1 else 1
        if self.frontend.hop == 1 and getattr(network, "signal_channels", self.channels) != self.channels:
            raise ValueError(
                f"the network is shown the lifted recording beside the state: set signal_channels={self.channels} of "
                f"the backbone {config.backbone['name']!r}, got {network.signal_channels}"
            )
        self.process = build("process", PROCESSES, config.process)
        prediction = build("prediction", PREDICTIONS, config.prediction)
        self.denoiser = Denoiser(network.build(), self.process, prediction)
        self.down, self.up = Sinc(config.factor, 1), Sinc(1, config.factor)
        self.reach, self.multiple = network.reach, getattr(network, "multiple", 1)
        self.default_run()

    @property
    def low_rate(self) -> int:
        """The rate in Hz of the waves that it takes."""
        return self.frontend.sample_rate // self.config.factor

    def lower(self, wave: Float[Tensor, "b c n"]) -> Float[Tensor, "b c m"]:
        """The wave at the low rate, one sample for every `factor` begun."""
        return self.down(nn.functional.pad(wave, (0, -wave.shape[-1] % self.config.factor)))

    def gain_of(self, low: Float[Tensor, "b c m"]) -> Float[Tensor, "b 1 1"]:
        """The gain to a unit level, one for all channels, or 1."""
        if self.config.unit == "none":
            return low.new_ones(len(low), 1, 1)
        flat = low.flatten(1)
        level = flat.abs().amax(1) if self.config.unit == "peak" else flat.square().mean(1).sqrt()
        return unit_gain(level)[:, None, None]

    def loss(
        self, clean: Float[Tensor, "b c n"], objective: Objective, generator: torch.Generator | None = None
    ) -> Float[Tensor, " b"]:
        """The objective's loss of each item, its low version made from the clip itself; one channel stands for all."""
        clean = clean.expand(-1, self.channels, -1)
        low = self.lower(clean)
        gain = self.gain_of(low)
        x0 = self.frontend.encode(clean * gain)
        y = self.frontend.encode(self.up(low * gain)[..., : clean.shape[-1]])
        draw = objective.draw(self.process, self.denoiser.prediction, x0, y, generator)
        return objective.losses(self.denoiser, x0, y, Condition(signal=y), draw)

    def default_run(self, num_steps: int | None = None, sampler: str | None = None) -> Run:
        """The run that the configuration asks for, with another number of steps or another sampler by its name."""
        return default_run(self.config, num_steps, sampler)

    def restore(
        self, low: Float[Tensor, "b c m"], noise: Noise, run: Run, callback: Callback | None = None
    ) -> Float[Tensor, "b c n"]:
        """Waves at the high rate, `factor` samples for each of `low`, which is of unit level already."""
        lifted = self.up(low)
        y = self.frontend.encode(lifted)
        x = self.process.prior(y, noise(y))
        denoise = self.denoiser.bind(y, Condition(signal=y))
        times = run.grid.times(self.process, run.num_steps)
        x = run.sampler.sample(denoise, self.process, x, times, y, noise, callback)
        return self.frontend.decode(x, lifted.shape[-1])


class Upsampler(Ready[UpsamplingModel]):
    """A ready model: a recording in, the same at the model's rate with a full band out.

    >>> upsampler = fromnoise.load("runs/my-upsampler")                         # doctest: +SKIP
    >>> wide = upsampler(narrow, sample_rate=8000, seed=0)                      # doctest: +SKIP
    """

    task = "upsample"

    @property
    def sample_rate(self) -> int:
        """The rate in Hz of the sound it makes."""
        return self.model.frontend.sample_rate

    @property
    def low_rate(self) -> int:
        """The rate in Hz that recordings are brought to first; half of it is the band that is kept."""
        return self.model.low_rate

    def network_calls(self, steps: int | None = None, sampler: str | None = None) -> int:
        """Network calls of one run over one piece of sound."""
        run = self.model.default_run(steps, sampler)
        return run.sampler.evaluations(run.num_steps)

    @property
    def align(self) -> int:
        """Pieces of a recording must begin at multiples of this many samples of the low rate."""
        factor = self.model.config.factor
        return math.lcm(self.model.frontend.hop * self.model.multiple, factor) // factor

    def context(self, calls: int = 1) -> int:
        """Low samples on either side that `calls` network calls in a row look at (`looked_at`), a multiple of align."""
        frontend = self.model.frontend
        seen = looked_at(calls, self.model.reach * frontend.hop, self.sample_rate) + frontend.reach
        low = math.ceil(seen / self.model.config.factor) + self.model.up.reach
        return math.ceil(low / self.align) * self.align

    def chunking(self, segment: float, overlap: float, calls: int = 1) -> dict[str, Any]:
        """Settings of `run_chunked` in samples of the low rate, from seconds; `segment` counts what is kept."""
        return cut(segment, overlap, self.context(calls), self.align, self.low_rate)

    def require_rate(self, sample_rate: int) -> None:
        """Raises InputError for a rate that no sound is stored at, or one above the model's."""
        check_rate(sample_rate, "the recording")
        if sample_rate > self.sample_rate:
            raise InputError(
                f"the recording has {sample_rate} Hz, the model makes {self.sample_rate} Hz of {self.low_rate} Hz; "
                "choose another model, or resample the recording if it holds no more than the low band"
            )

    def require_channels(self, channels: int) -> None:
        """Raises InputError unless the network takes so many; one of a single channel takes any, one by one."""
        if self.model.channels not in (1, channels):
            raise InputError(f"expected {self.model.channels} channels, got {channels}; choose or mix as many")

    def piece(
        self,
        level: Level,
        steps: int | None = None,
        sampler: str | None = None,
        seed: int = 0,
        callback: Callback | None = None,
    ) -> Callable[[np.ndarray, int], np.ndarray]:
        """The function (low wave `c m`, first sample's position) -> `factor c m`, sample k for each low one in row
        `factor c + k`: see `interleaved`.

        level: of the whole recording at the low rate, by which pieces are scaled alike. Noise belongs to absolute
        positions, so that a recording sounds the same however it is cut. What is silent stays silent.
        """
        run = self.model.default_run(steps, sampler)
        factor, width = self.model.config.factor, self.model.channels
        self.require_channels(len(level.rms))

        def one(low: np.ndarray, start: int, first: int) -> np.ndarray:
            own = slice(first, first + width)
            peak, rms = float(level.peak[own].max()), math.sqrt(float(np.square(level.rms[own]).mean()))
            if peak == 0:
                return np.zeros((width, low.shape[1] * factor), np.float32)
            measured = {"rms": rms, "peak": peak, "none": 1.0}[self.model.config.unit]
            gain = float(unit_gain(torch.tensor([measured]))[0])
            wave = torch.from_numpy(np.ascontiguousarray(low[own], dtype=np.float32))[None].to(self.device)
            require_finite(wave, "the recording")
            noise = PositionNoise([seed + first], start * factor // self.model.frontend.hop)
            with torch.inference_mode():
                return (self.model.restore(wave * gain, noise, run, callback) / gain)[0].cpu().numpy()

        def upsample(low: np.ndarray, start: int) -> np.ndarray:
            wide = np.concatenate([one(low, start, first) for first in range(0, len(low), width)])
            return wide.reshape(len(low), -1, factor).transpose(0, 2, 1).reshape(-1, low.shape[1])

        return upsample

    def interleaved(self, rows: Float[np.ndarray, "k m"]) -> Float[np.ndarray, "c n"]:
        """The waves at the high rate that rows as `piece` gives them stand for."""
        factor, (k, m) = self.model.config.factor, rows.shape
        return rows.reshape(k // factor, factor, m).transpose(0, 2, 1).reshape(k // factor, m * factor)

    def __call__(
        self,
        wave: Any,
        sample_rate: int,
        steps: int | None = None,
        sampler: str | None = None,
        seed: int = 0,
        segment: float = 10.0,
        overlap: float = 0.05,
    ) -> Any:
        """A recording `n` or `c n` at `sample_rate` Hz as one of the same duration at `self.sample_rate` Hz.

        Of the same kind, numpy or torch. What it holds above half of `low_rate` is made anew. steps, sampler: other
        than the model's own. segment, overlap: seconds, as `fromnoise upsample`. Raises InputError for an empty,
        non-finite or oddly shaped recording, more channels than the network takes, or a rate above the model's.
        """
        given = as_floats(wave)
        planes = np.atleast_2d(given).astype(np.float32)
        require_finite(torch.from_numpy(planes), "the recording")
        self.require_rate(sample_rate)
        low = np.asarray(resample(planes, sample_rate, self.low_rate))
        chunking = self.chunking(segment, overlap, self.network_calls(steps, sampler))
        process = partial(self.piece, steps=steps, sampler=sampler, seed=seed)(Level.of(low))
        n = resampled_length(planes.shape[1], sample_rate, self.sample_rate)
        wide = fit(self.interleaved(joined(process, low, chunking)), n)
        return like(wide.reshape(*given.shape[:-1], n), wave)
