"""An enhancer's networks: what they are told, how they are trained, how clean data is sampled in the encoded domain.

A noisy wave is brought to a unit level and encoded to y, and clean data x0 is sampled given y:

    y = E(g noisy),   x_1 by `start`,   x0' = sampler(...),   refined by `refiner`

One part more serves DR-DiffuSE (Tai et al., AAAI 2023): a *generator*, a regression network whose output C = G(y) is
what the denoiser is told in place of y; *guidance*, which pulls every state towards C diffused to a level nearby,

    x_s <- (1 - w) x_s + w C_t,    C_t = clean C + noise e at the level just left, or at the one reached
    w = guidance, as in the release,  or  2 guidance nu^2, nu^2 the variance of the posterior step (the paper's Eq. 14)

and a *refiner*, a regression network applied to (1 - b) x0' + b y at the end.

With a generator the process can also lead to C in place of y, and the denoiser be told both: stochastic regeneration
(Lemercier et al., "StoRM", TASLP 2023, https://arxiv.org/abs/2212.11851), whose two networks learn together by

    L = w |C - x0|^2 + (1 - w) (the objective's loss),     gradients running through C into both

Networks of waves (Lu et al., "CDiffuSE", ICASSP 2022, https://arxiv.org/abs/2202.05256, and its kin) are told the
noisy speech as frames of a *spectrum*, start at y itself, and keep a share of it in the end.
"""

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fromnoise.backbones import BACKBONES
from fromnoise.denoiser import Denoiser
from fromnoise.frontends import FRONTENDS, Spectrum, pad_frames
from fromnoise.objectives import Objective, masked_mean
from fromnoise.predictions import PREDICTIONS
from fromnoise.processes import PROCESSES
from fromnoise.processes.base import Process
from fromnoise.samplers import Ancestral, Noise, PositionNoise
from fromnoise.tasks.base import Run, Spec, default_run
from fromnoise.tasks.losses import SpectralLoss, by_length, negative_si_sdr
from fromnoise.types import Condition, build, expand

SILENCE = 1e-7
Callback = Callable[[int, int, Tensor], object]
Input = Literal["mixed", "generated", "noisy"]


@dataclasses.dataclass(frozen=True)
class TheGenerator:
    """The generator once more, with its weights: DR-DiffuSE's reuse of it as the refiner."""


REFINERS: dict[str, type] = {**BACKBONES, "generator": TheGenerator}
SPECTRA: dict[str, type] = {"spectrum": Spectrum}


@dataclasses.dataclass(frozen=True)
class EnhancementConfig:
    """The parts of an enhancement model as specs; it is what a card stores.

    sampler, grid, num_steps: the default run. start: "prior"; "condition", the condition diffused to the first time of
    the grid; "noisy", y itself. guidance, guidance_rule, guidance_level: w above, 0 for none. refiner: a network, or
    {"name": "generator"} for the generator's weights; refine_with_noisy: b above. unit: what of the noisy wave becomes
    1, its "rms", its "peak", or "none". frame_multiple: of which the frames become before sampling, the new ones filled
    as frame_padding says. With a generator: leads_to: the y of the process; condition: what the denoiser is told,
    "both" as channels y, C; joint: w of the joint loss, 0 for a generator that stays as it is. For networks of waves:
    spectrum: a one-way front end whose frames of the noisy wave the denoiser is told; clamp: keep the state within
    [-1, 1] after each step; keep_noisy: share of y in the result of the last step, mixed in before that.
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
    start: Literal["prior", "condition", "noisy"] = "prior"
    guidance: float = 0.0
    guidance_rule: Literal["constant", "zeta"] = "constant"
    guidance_level: Literal["left", "reached"] = "left"
    refine_with_noisy: float = 0.5
    shifts: int = 1
    unit: Literal["rms", "peak", "none"] = "rms"
    frame_multiple: int = 1
    frame_padding: Literal["zero", "reflection", "replication"] = "zero"
    leads_to: Literal["noisy", "generator"] = "noisy"
    condition: Literal["generator", "noisy", "both"] = "generator"
    joint: float = 0.0
    spectrum: Spec | None = None
    clamp: bool = False
    keep_noisy: float = 0.0


@dataclasses.dataclass(frozen=True)
class Given:
    """What is known of an item. estimate: C, or y without a generator; observation: the y of the process; told and
    frames: the denoiser's condition."""

    estimate: Tensor
    observation: Tensor
    told: Tensor
    frames: Tensor | None = None

    @property
    def condition(self) -> Condition:
        """All that the denoiser is told."""
        return Condition(signal=self.told, frames=self.frames)


class EnhancementModel(nn.Module):
    """The networks of an enhancer: its training loss, and the sampling of clean speech in the encoded domain."""

    def __init__(self, config: EnhancementConfig) -> None:
        super().__init__()
        self.config = config
        self.frontend = build("frontend", FRONTENDS, config.frontend)
        self.spectrum = build("spectrum", SPECTRA, config.spectrum) if config.spectrum else None
        _require_possible(config, self.frontend.hop)
        self.process = build("process", PROCESSES, config.process)
        prediction = build("prediction", PREDICTIONS, config.prediction)
        self.denoiser = Denoiser(build("backbone", BACKBONES, config.backbone).build(), self.process, prediction)
        self.generator = build("generator", BACKBONES, config.generator).build() if config.generator else None
        refiner = build("refiner", REFINERS, config.refiner) if config.refiner else None
        self.reuses_generator = isinstance(refiner, TheGenerator)
        if self.reuses_generator and self.generator is None:
            raise ValueError("refiner 'generator' means the generator's weights; name a generator")
        self.refiner = None if refiner is None or self.reuses_generator else refiner.build()
        self.default_run()  # a sampler or grid that does not exist is an error here, not at the first recording

    @property
    def refines(self) -> nn.Module | None:
        """The network that refines, if any."""
        return self.generator if self.reuses_generator else self.refiner

    def given(
        self, y: Tensor, peak: Tensor | None = None, learns: bool | None = None, filled: int | None = None
    ) -> Given:
        """What the generator makes of y, and what process and denoiser get of the two.

        peak: `b`, of the recordings that y are pieces of, for the spectrum; by default of y. learns: whether gradients
        reach the generator, by default as in training. filled: positions of y that hold data, by default all.
        """
        frames = None
        if self.spectrum is not None:
            wave = self.frontend.decode(y, filled or y.shape[-1])
            frames = self.spectrum.encode(wave, None if peak is None else peak[:, None])
        if self.generator is None:
            return Given(y, y, y, frames)
        learns = self.config.joint > 0 if learns is None else learns
        with nullcontext() if learns else torch.no_grad():
            estimate = regress(self.generator if self.config.joint else self.generator.eval(), y)
        told = {"generator": estimate, "noisy": y, "both": torch.cat([y, estimate], dim=1)}
        observation = estimate if self.config.leads_to == "generator" else y
        return Given(estimate, observation, told[self.config.condition], frames)

    def encode_pair(
        self, clean: Float[Tensor, "b 1 n"], noisy: Float[Tensor, "b 1 n"], length: Int64[Tensor, " b"] | None = None
    ) -> tuple[Tensor, Tensor]:
        """(x0, y), both at the gain that brings the noisy wave to its unit."""
        gain = self.gain_of(noisy, length)
        return self.frontend.encode(clean * gain), self.frontend.encode(noisy * gain)

    def gain_of(
        self, noisy: Float[Tensor, "b 1 n"], length: Int64[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b 1 1"]:
        """The gain to a unit RMS or peak, or 1. length: samples of each item that are sound, the rest is filling."""
        if self.config.unit == "none":
            return noisy.new_ones(len(noisy), 1, 1)
        if self.config.unit == "peak":
            level = noisy.abs().amax(dim=(1, 2))
        else:
            samples = noisy.shape[-1] if length is None else length.to(noisy)
            level = (noisy.square().sum(dim=(1, 2)) / samples).sqrt()
        return unit_gain(level)[:, None, None]

    def mask_of(self, x: Tensor, length: Int64[Tensor, " b"]) -> Bool[Tensor, "b t"]:
        """True on the positions of x that stand on sound."""
        places = torch.arange(x.shape[-1], device=x.device) * self.frontend.hop
        return (
            places <= length.to(x.device)[:, None] if self.frontend.hop > 1 else places < length.to(x.device)[:, None]
        )

    def loss(
        self,
        clean: Float[Tensor, "b 1 n"],
        noisy: Float[Tensor, "b 1 n"],
        objective: Objective,
        spectral: SpectralLoss | None = None,
        generator: torch.Generator | None = None,
        length: Int64[Tensor, " b"] | None = None,
    ) -> Float[Tensor, " b"]:
        """Loss of each item: the objective's own, or, with `spectral`, that loss on the estimate of x0; and, where the
        generator learns too, its part. length: as `gain_of`; then filling does not count, and the items' losses weigh
        by their lengths, so that their mean is the mean over all that is sound."""
        x0, noisy_x = self.encode_pair(clean, noisy, length)
        given = self.given(noisy_x)
        y, told, mask = given.observation, given.condition, None if length is None else self.mask_of(x0, length)
        draw = objective.draw(self.process, self.denoiser.prediction, x0, y, generator)
        if spectral is None:
            loss = objective.losses(self.denoiser, x0, y, told, draw, mask)
        else:
            estimate = self.denoiser(draw.x_t, draw.t, y, told)
            loss = spectral(estimate, x0, mask) + self._wave_loss(estimate, clean, noisy, spectral, length)
        if self.config.joint:
            loss = torch.lerp(loss, masked_mean((given.estimate - x0).square(), mask), self.config.joint)
        return loss if mask is None else by_length(loss, mask)

    def _wave_loss(
        self, estimate: Tensor, clean: Tensor, noisy: Tensor, spectral: SpectralLoss, length: Tensor | None
    ) -> Float[Tensor, " b"] | float:
        """What `spectral` asks of each item's estimate as a wave."""
        if not (spectral.wave or spectral.si_sdr):
            return 0.0
        wave = self.frontend.decode(estimate.to(clean.dtype), clean.shape[-1])
        true = clean * self.gain_of(noisy, length)
        if length is not None:
            sound = torch.arange(clean.shape[-1], device=clean.device) < length.to(clean.device)[:, None, None]
            wave, true = wave * sound, true * sound
        error = (wave - true).abs().mean(dim=(1, 2))
        return spectral.wave * error + spectral.si_sdr * negative_si_sdr(wave, true)

    def refinement_loss(
        self,
        clean: Float[Tensor, "b 1 n"],
        noisy: Float[Tensor, "b 1 n"],
        spectral: SpectralLoss,
        seeds: Sequence[int],
        inputs: Sequence[Input] = ("mixed",),
        through: bool = False,
        length: Int64[Tensor, " b"] | None = None,
    ) -> Float[Tensor, " b"]:
        """Loss of the refiner on what the rest samples, drawn with `seeds` (DR-DiffuSE).

        inputs: what it is given, each as often as it is named: the sample "mixed" with y, the "generated" or the
        "noisy" one alone; seed k of the batch takes input k modulo their number. through: gradients run through the
        sampler into all three networks (option i), whose activations are computed twice in place of being kept;
        otherwise the rest is frozen (option ii).
        """
        network = self.refines
        if network is None:
            raise ValueError("this model has no refiner; set `refiner` in its configuration")
        x0, y = self.encode_pair(clean, noisy, length)
        with nullcontext() if through else torch.no_grad():
            x = self.eval().sample(y, PositionNoise(seeds), self.default_run(), learns=through)
        shown = {"mixed": self._with_noisy(x, y), "generated": x, "noisy": y}
        chosen = [shown[inputs[seed % len(inputs)]][i] for i, seed in enumerate(seeds)]
        mask = None if length is None else self.mask_of(x0, length)
        loss = spectral(regress(network.train(), torch.stack(chosen)), x0, mask)
        return loss if mask is None else by_length(loss, mask)

    def default_run(self, num_steps: int | None = None, sampler: str | None = None) -> Run:
        """The run that the configuration asks for, with another number of steps or another sampler by its name."""
        return default_run(self.config, num_steps, sampler)

    def sample(
        self,
        y: Tensor,
        noise: Noise,
        run: Run,
        callback: Callback | None = None,
        peak: Tensor | None = None,
        learns: bool = False,
    ) -> Tensor:
        """Clean data given the encoded observation, before refinement. peak: see `given`. learns: gradients run through
        the whole chain."""
        frames, config = y.shape[-1], self.config
        given = self.given(pad_frames(y, config.frame_multiple, config.frame_padding), peak, learns, frames)
        y, times = given.observation, run.grid.times(self.process, run.num_steps)
        process = self.process.for_run(times)
        denoise = self.denoiser.bind(y, given.condition)
        x = run.sampler.sample(
            partial(checkpoint, denoise, use_reentrant=False) if learns else denoise,
            self.process,
            self._start(given, process, times, noise),
            times,
            y,
            noise,
            None if callback is None else lambda i, n, x: callback(i, n, x[..., :frames]),
            self._between(given, process, noise, run.num_steps),
        )
        return x[..., :frames]

    def _start(self, given: Given, process: Process, times: Float[Tensor, " n"], noise: Noise) -> Tensor:
        y = given.observation
        if self.config.start == "noisy":
            return y
        if self.config.start == "condition":
            return process.sample(given.estimate, times[:1].to(y.device).expand(len(y)), y, noise(y))
        return process.prior(y, noise(y))

    def _between(
        self, given: Given, process: Process, noise: Noise, num_steps: int
    ) -> Callable[[Tensor, int, Tensor, Tensor], Tensor] | None:
        """What changes the state after each step: the guidance, never after the last; then y is mixed in; the clamp."""
        config = self.config
        if not (config.guidance or config.keep_noisy or config.clamp):
            return None

        def change(x: Tensor, i: int, t: Tensor, s: Tensor) -> Tensor:
            last = i == num_steps - 1
            if config.guidance and not last:
                weight = torch.full_like(t, config.guidance)
                if config.guidance_rule == "zeta":
                    weight = (2 * weight * Ancestral().fresh(process, t, s) ** 2).clamp(max=1)
                level = t if config.guidance_level == "left" else s
                x = torch.lerp(x, process.sample(given.estimate, level, given.observation, noise(x)), expand(weight, x))
            if config.keep_noisy and last:
                x = torch.lerp(x, given.observation, config.keep_noisy)
            return x.clamp(-1, 1) if config.clamp else x

        return change

    def restore(
        self, y: Tensor, noise: Noise, run: Run, callback: Callback | None = None, peak: Tensor | None = None
    ) -> Tensor:
        """Clean data given the encoded observation: sampled, then refined where there is a refiner."""
        x, network = self.sample(y, noise, run, callback, peak), self.refines
        return x if network is None else regress(network, self._with_noisy(x, y))

    def _with_noisy(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.lerp(x, y, self.config.refine_with_noisy)


def _require_possible(config: EnhancementConfig, hop: int) -> None:
    if not 1 <= config.shifts <= 64:
        raise ValueError(f"expected 1 to 64 shifts, got {config.shifts}; choose within")
    if not 1 <= config.frame_multiple <= 4096:
        raise ValueError(f"expected a frame_multiple of 1 to 4096, got {config.frame_multiple}; choose within")
    if not 0 <= config.joint < 1:
        raise ValueError(f"expected 0 <= joint < 1, the generator's share of the loss, got {config.joint}")
    if not 0 <= config.keep_noisy <= 1:
        raise ValueError(f"expected keep_noisy from 0 to 1, a share, got {config.keep_noisy}; choose within")
    if config.guidance < 0 or (config.guidance > 1 and config.guidance_rule == "constant"):
        raise ValueError(f"expected a guidance of 0 to 1, a weight, got {config.guidance}; choose within")
    if config.generator is None and (config.joint or config.leads_to != "noisy" or config.condition == "both"):
        raise ValueError(
            "leads_to 'generator', condition 'both' and joint > 0 need a generator; name one, or leave them away"
        )
    if hop != 1 and (config.clamp or config.spectrum):
        raise ValueError(
            "clamp and spectrum are for networks of waves; set the front end to 'wave', or leave them away"
        )
    if config.clamp and config.unit == "rms":
        raise ValueError("clamp would cut the peaks of a wave of unit RMS; set unit to 'peak' or 'none'")


def regress(network: nn.Module, x: Tensor) -> Tensor:
    """A regression network's estimate from x alone."""
    return network(x, x.new_ones(len(x)), Condition(signal=x))


def unit_gain(level: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """1 / level, and 1 for silence."""
    return torch.where(level > SILENCE, 1 / level.clamp(min=SILENCE), torch.ones_like(level))
