"""Enhance noisy speech: the verb, its model and its loss.

A noisy wave is brought to unit RMS, encoded to y, and clean data x0 is sampled given y by any process and sampler:

    y = E(g noisy),   x_1 from the process's prior (or the diffused condition),   x0' = sampler(...),   out = D(x0') / g

One part more serves DR-DiffuSE (Tai et al., AAAI 2023): a *generator*, a regression network whose output C = G(y) is
what the denoiser is told in place of y; *guidance*, which pulls every state towards C diffused to the level just
left, x <- (1 - w) x + w C_t; and a *refiner*, a regression network applied to (1 - b) x0' + b y at the end.

With a generator the process can also lead to C in place of y, and the denoiser be told both: stochastic regeneration
(Lemercier et al., "StoRM", TASLP 2023, https://arxiv.org/abs/2212.11851), whose two networks learn together by

    L = w |C - x0|^2 + (1 - w) (the objective's loss),     gradients running through C into both
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fromnoise.backbones import BACKBONES
from fromnoise.denoiser import Denoiser
from fromnoise.frontends import FRONTENDS, pad_frames
from fromnoise.objectives import Objective
from fromnoise.predictions import PREDICTIONS
from fromnoise.processes import PROCESSES
from fromnoise.samplers import Noise, PositionNoise
from fromnoise.tasks.base import MAX_CHANNELS, Run, Spec, as_floats, cut, default_run, in_pieces, like, looked_at
from fromnoise.tasks.chunked import Level
from fromnoise.tasks.losses import SpectralLoss, negative_si_sdr
from fromnoise.types import Condition, InputError, build, require_finite


@dataclasses.dataclass(frozen=True)
class EnhancementConfig:
    """The parts of an enhancement model as specs; it is what a card stores.

    sampler, grid, num_steps: the default run. start: "prior", or "condition" to start from the condition diffused to
    the first time of the grid. guidance: w above, 0 for none. refine_with_noisy: b above. unit: what of the noisy wave
    becomes 1, its "rms" or its "peak". frame_multiple: of which the frames become before sampling, the new ones filled
    as frame_padding says. With a generator: leads_to: the y of the process; condition: what the denoiser is
    told, "both" as channels y, C; joint: w of the joint loss, 0 for a generator that stays as it is.
    """

    frontend: Spec = dataclasses.field(default_factory=lambda: {"name": "stft"})
    backbone: Spec = dataclasses.field(default_factory=lambda: {"name": "tcunet"})
    process: Spec = dataclasses.field(default_factory=lambda: {"name": "flow", "start": "observation", "sigma": 0.0})
    prediction: Spec = dataclasses.field(default_factory=lambda: {"name": "clean"})
    sampler: Spec = dataclasses.field(default_factory=lambda: {"name": "euler"})
    grid: Spec = dataclasses.field(default_factory=lambda: {"name": "uniform"})
    num_steps: int = 1
    generator: Spec | None = None
    refiner: Spec | None = None
    start: Literal["prior", "condition"] = "prior"
    guidance: float = 0.0
    refine_with_noisy: float = 0.5
    shifts: int = 1
    unit: Literal["rms", "peak"] = "rms"
    frame_multiple: int = 1
    frame_padding: Literal["zero", "reflection", "replication"] = "zero"
    leads_to: Literal["noisy", "generator"] = "noisy"
    condition: Literal["generator", "noisy", "both"] = "generator"
    joint: float = 0.0


class EnhancementModel(nn.Module):
    """The networks of an enhancer: its training loss, and the sampling of clean speech in the encoded domain."""

    def __init__(self, config: EnhancementConfig) -> None:
        super().__init__()
        _require_possible(config)
        self.config = config
        self.frontend = build("frontend", FRONTENDS, config.frontend)
        self.process = build("process", PROCESSES, config.process)
        prediction = build("prediction", PREDICTIONS, config.prediction)
        self.denoiser = Denoiser(build("backbone", BACKBONES, config.backbone).build(), self.process, prediction)
        self.generator = build("generator", BACKBONES, config.generator).build() if config.generator else None
        self.refiner = build("refiner", BACKBONES, config.refiner).build() if config.refiner else None
        self.default_run()  # a sampler or grid that does not exist is an error here, not at the first recording

    def given(self, y: Tensor) -> "Given":
        """What the generator makes of y, and what process and denoiser get of the two."""
        if self.generator is None:
            return Given(y, y, y)
        if self.config.joint:
            estimate = regress(self.generator, y)
        else:
            with torch.no_grad():
                estimate = regress(self.generator.eval(), y)
        told = {"generator": estimate, "noisy": y, "both": torch.cat([y, estimate], dim=1)}
        return Given(estimate, estimate if self.config.leads_to == "generator" else y, told[self.config.condition])

    def encode_pair(self, clean: Float[Tensor, "b 1 n"], noisy: Float[Tensor, "b 1 n"]) -> tuple[Tensor, Tensor]:
        """(x0, y), both at the gain that brings the noisy wave to unit RMS, or peak."""
        gain = self.gain_of(noisy)
        return self.frontend.encode(clean * gain), self.frontend.encode(noisy * gain)

    def gain_of(self, noisy: Float[Tensor, "b 1 n"]) -> Float[Tensor, "b 1 1"]:
        """The gain to unit RMS, or to a peak of 1."""
        peak = self.config.unit == "peak"
        level = noisy.abs().amax(dim=(1, 2)) if peak else noisy.square().mean(dim=(1, 2)).sqrt()
        return unit_gain(level)[:, None, None]

    def loss(
        self,
        clean: Float[Tensor, "b 1 n"],
        noisy: Float[Tensor, "b 1 n"],
        objective: Objective,
        spectral: SpectralLoss | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, " b"]:
        """Loss of each item: the objective's own, or, with `spectral`, that loss on the estimate of x0; and, where the
        generator learns too, its part."""
        x0, noisy_x = self.encode_pair(clean, noisy)
        given = self.given(noisy_x)
        y, told = given.observation, Condition(signal=given.told)
        draw = objective.draw(self.process, self.denoiser.prediction, x0, y, generator)
        if spectral is None:
            loss = objective.losses(self.denoiser, x0, y, told, draw)
        else:
            loss = self._estimate_loss(self.denoiser(draw.x_t, draw.t, y, told), x0, clean, noisy, spectral)
        if not self.config.joint:
            return loss
        return torch.lerp(loss, (given.estimate - x0).square().flatten(1).mean(1), self.config.joint)

    def _estimate_loss(
        self, estimate: Tensor, x0: Tensor, clean: Tensor, noisy: Tensor, spectral: SpectralLoss
    ) -> Float[Tensor, " b"]:
        """Loss of each item's estimate of x0, as spectrum and as wave."""
        loss = spectral(estimate, x0)
        if spectral.wave or spectral.si_sdr:
            wave = self.frontend.decode(estimate.to(clean.dtype), clean.shape[-1])
            true = clean * self.gain_of(noisy)
            loss = loss + spectral.wave * (wave - true).abs().mean(dim=(1, 2))
            loss = loss + spectral.si_sdr * negative_si_sdr(wave, true)
        return loss

    def refinement_loss(
        self, clean: Float[Tensor, "b 1 n"], noisy: Float[Tensor, "b 1 n"], spectral: SpectralLoss, seeds: Sequence[int]
    ) -> Float[Tensor, " b"]:
        """Loss of the refiner on samples of the frozen rest, drawn with `seeds` (DR-DiffuSE's option ii)."""
        if self.refiner is None:
            raise ValueError("this model has no refiner; set `refiner` in its configuration")
        x0, y = self.encode_pair(clean, noisy)
        with torch.no_grad():
            x = self.eval().sample(y, PositionNoise(seeds), self.default_run())
        return spectral(regress(self.refiner.train(), self._with_noisy(x, y)), x0)

    def default_run(self, num_steps: int | None = None, sampler: str | None = None) -> Run:
        """The run that the configuration asks for, with another number of steps or another sampler by its name."""
        return default_run(self.config, num_steps, sampler)

    def sample(
        self, y: Tensor, noise: Noise, run: Run, callback: Callable[[int, int, Tensor], object] | None = None
    ) -> Tensor:
        """Clean data given the encoded observation, before refinement."""
        frames = y.shape[-1]
        given = self.given(pad_frames(y, self.config.frame_multiple, self.config.frame_padding))
        y, times = given.observation, run.grid.times(self.process, run.num_steps)
        if self.config.start == "condition":
            first = times[:1].to(y.device).expand(len(y))
            x = self.process.sample(given.estimate, first, y, noise(y))
        else:
            x = self.process.prior(y, noise(y))

        def guide(x: Tensor, i: int, t: Tensor, s: Tensor) -> Tensor:
            """x <- (1 - w) x + w C_t, C diffused afresh to the level just left; never after the last step."""
            if i == run.num_steps - 1:
                return x
            return torch.lerp(x, self.process.sample(given.estimate, t, y, noise(x)), self.config.guidance)

        x = run.sampler.sample(
            self.denoiser.bind(y, Condition(signal=given.told)),
            self.process,
            x,
            times,
            y,
            noise,
            None if callback is None else lambda i, n, x: callback(i, n, x[..., :frames]),
            guide if self.config.guidance else None,
        )
        return x[..., :frames]

    def restore(
        self, y: Tensor, noise: Noise, run: Run, callback: Callable[[int, int, Tensor], object] | None = None
    ) -> Tensor:
        """Clean data given the encoded observation: sampled, then refined where there is a refiner."""
        x = self.sample(y, noise, run, callback)
        return x if self.refiner is None else regress(self.refiner, self._with_noisy(x, y))

    def _with_noisy(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.lerp(x, y, self.config.refine_with_noisy)


@dataclasses.dataclass(frozen=True)
class Given:
    """What is known of an item. estimate: C, or y without a generator; observation: the y of the process; told: the
    denoiser's condition."""

    estimate: Tensor
    observation: Tensor
    told: Tensor


def _require_possible(config: EnhancementConfig) -> None:
    if not 1 <= config.shifts <= 64:
        raise ValueError(f"expected 1 to 64 shifts, got {config.shifts}; choose within")
    if not 1 <= config.frame_multiple <= 4096:
        raise ValueError(f"expected a frame_multiple of 1 to 4096, got {config.frame_multiple}; choose within")
    if not 0 <= config.joint < 1:
        raise ValueError(f"expected 0 <= joint < 1, the generator's share of the loss, got {config.joint}")
    if config.generator is None and (config.joint or config.leads_to != "noisy" or config.condition == "both"):
        raise ValueError(
            "leads_to 'generator', condition 'both' and joint > 0 need a generator; name one, or leave them away"
        )


def regress(network: nn.Module, x: Tensor) -> Tensor:
    """A regression network's estimate from x alone."""
    return network(x, x.new_ones(len(x)), Condition(signal=x))


def unit_gain(level: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """1 / level, and 1 for silence."""
    return torch.where(level > SILENCE, 1 / level.clamp(min=SILENCE), torch.ones_like(level))


SILENCE = 1e-7


class Enhancer:
    """A ready model: noisy speech in, clean speech out, at the rate, length, channels and level of the input.

    >>> enhancer = fromnoise.load("enhance-small")                              # doctest: +SKIP
    >>> clean = enhancer(noisy, sample_rate=44100, steps=1, seed=0)             # doctest: +SKIP
    """

    task = "enhance"

    def __init__(self, model: EnhancementModel, name: str = "enhancer", card: Mapping[str, Any] | None = None) -> None:
        self.model = model.eval()
        self.name, self.card = name, dict(card or {})

    @property
    def sample_rate(self) -> int:
        """The rate in Hz that the model works at."""
        return self.model.frontend.sample_rate

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def to(self, device: str | torch.device) -> "Enhancer":
        """Move the networks."""
        self.model.to(device)
        return self

    def network_calls(self, steps: int | None = None, sampler: str | None = None) -> int:
        """Network calls of one run over one piece of sound, generator and refiner included."""
        run = self.model.default_run(steps, sampler)
        extra = (self.model.generator is not None) + (self.model.refiner is not None)
        return self.model.config.shifts * (run.sampler.evaluations(run.num_steps) + extra)

    @property
    def align(self) -> int:
        """Pieces of a recording must begin at multiples of this many samples."""
        return self.model.frontend.hop

    def context(self, calls: int = 1) -> int:
        """Samples on either side that `calls` network calls in a row look at (`looked_at`), a multiple of `align`."""
        reach = build("backbone", BACKBONES, self.model.config.backbone).reach * self.model.frontend.hop
        seen = looked_at(calls, reach, self.sample_rate) + self.model.frontend.reach
        return math.ceil(seen / self.align) * self.align

    def piece(
        self,
        level: Level,
        steps: int | None = None,
        sampler: str | None = None,
        seed: int = 0,
        callback: Callable[[int, int, Tensor], object] | None = None,
    ) -> Callable[[np.ndarray, int], np.ndarray]:
        """The function (wave `c n`, first sample's position) -> wave `c n` for pieces of one recording.

        level: of the whole recording, per channel, at the model's rate; pieces are scaled by it, and noise belongs to
        absolute positions, so that a recording sounds the same however it is cut. Channels run one by one: how a batch
        is multiplied depends on its size, which would show in the last bits. A silent channel stays silent.
        """
        run = self.model.default_run(steps, sampler)
        if len(level.rms) > MAX_CHANNELS:
            raise InputError(f"expected at most {MAX_CHANNELS} channels, got {len(level.rms)}; split the recording")
        measured = level.peak if self.model.config.unit == "peak" else level.rms
        gains = unit_gain(torch.as_tensor(measured, dtype=torch.float32)).tolist()
        shifts = self.model.config.shifts
        delays = [i * self.align // shifts for i in range(shifts)]

        def enhance(wave: np.ndarray, start: int) -> np.ndarray:
            planes = [wave[c : c + 1] for c in range(len(wave))]
            return np.concatenate(
                [x if level.rms[c] == 0 else one(x, start, gains[c], seed + c) for c, x in enumerate(planes)]
            )

        def one(wave: np.ndarray, start: int, gain: float, seed: int) -> np.ndarray:
            noisy = torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32))[None].to(self.device)
            require_finite(noisy, "the recording")
            with torch.inference_mode():
                total = torch.zeros_like(noisy)
                for delay in delays:
                    moved = torch.nn.functional.pad(noisy * gain, (delay, 0))
                    noise = PositionNoise([seed], start // self.align)
                    x = self.model.restore(self.model.frontend.encode(moved), noise, run, callback)
                    total += self.model.frontend.decode(x, moved.shape[-1])[..., delay:]
                return (total / (gain * len(delays)))[0].cpu().numpy()

        return enhance

    def __call__(
        self,
        noisy: Any,
        sample_rate: int,
        steps: int | None = None,
        sampler: str | None = None,
        seed: int = 0,
        dry: float = 0.0,
        segment: float = 30.0,
        overlap: float = 0.05,
    ) -> Any:
        """Enhance a recording held in memory.

        noisy: numpy or torch, `n` or `c n`, full scale at 1; the result is of the same kind, shape and level.
        sample_rate: Hz. steps, sampler: other than the model's own. dry: share of the input kept, 1 gives it back as
        it is. segment, overlap: seconds, as `fromnoise enhance`. Raises InputError for an empty, non-finite or oddly
        shaped recording, or a rate out of range.
        """
        wave = as_floats(noisy)
        piece = partial(self.piece, steps=steps, sampler=sampler, seed=seed)
        chunking = self.chunking(segment, overlap, self.network_calls(steps, sampler))
        clean = in_pieces(wave, sample_rate, self.sample_rate, piece, chunking)
        return like(mix(clean, wave, dry), noisy)

    def chunking(self, segment: float, overlap: float, calls: int = 1) -> dict[str, Any]:
        """Settings of `run_chunked` in samples, from seconds; `segment` counts what is kept, the context comes on top.

        calls: network calls in a row, see `context`.
        """
        context = self.context(calls // self.model.config.shifts)  # the shifts' runs do not see one another
        return cut(segment, overlap, context, self.align, self.sample_rate)


def mix(clean: Float[np.ndarray, "..."], noisy: Float[np.ndarray, "..."], dry: float) -> Float[np.ndarray, "..."]:
    """(1 - dry) clean + dry noisy; exactly one of them at 0 and at 1."""
    if not 0 <= dry <= 1:
        raise InputError(f"dry must lie between 0 and 1, got {dry}")
    return clean if dry == 0 else noisy + np.float32(1 - dry) * (clean - noisy)
