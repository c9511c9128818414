"""Enhance noisy speech: the verb, its model and its loss.

A noisy wave is brought to unit RMS, encoded to y, and clean data x0 is sampled given y by any process and sampler:

    y = E(g noisy),   x_1 from the process's prior (or the diffused condition),   x0' = sampler(...),   out = D(x0') / g

One part more serves DR-DiffuSE (Tai et al., AAAI 2023): a *generator*, a regression network whose output C = G(y) is
what the denoiser is told in place of y; *guidance*, which pulls every state towards C diffused to the level just
left, x <- (1 - w) x + w C_t; and a *refiner*, a regression network applied to (1 - b) x0' + b y at the end.
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
from fromnoise.frontends import FRONTENDS
from fromnoise.objectives import Objective
from fromnoise.predictions import PREDICTIONS
from fromnoise.processes import PROCESSES
from fromnoise.samplers import PositionNoise
from fromnoise.tasks.base import (
    CONTEXT_SECONDS,
    MAX_CHANNELS,
    Run,
    Spec,
    as_floats,
    default_run,
    in_pieces,
    like,
)
from fromnoise.tasks.losses import SpectralLoss, negative_si_sdr
from fromnoise.types import Condition, InputError, build, require_finite


@dataclasses.dataclass(frozen=True)
class EnhancementConfig:
    """The parts of an enhancement model as specs; it is what a card stores.

    sampler, grid, num_steps: the default run. start: "prior", or "condition" to start from the condition diffused to
    the first time of the grid. guidance: w above, 0 for none. refine_with_noisy: b above.
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


class EnhancementModel(nn.Module):
    """The networks of an enhancer: its training loss, and the sampling of clean speech in the encoded domain."""

    def __init__(self, config: EnhancementConfig) -> None:
        super().__init__()
        if not 1 <= config.shifts <= 64:
            raise ValueError(f"expected 1 to 64 shifts, got {config.shifts}; choose within")
        self.config = config
        self.frontend = build("frontend", FRONTENDS, config.frontend)
        self.process = build("process", PROCESSES, config.process)
        prediction = build("prediction", PREDICTIONS, config.prediction)
        self.denoiser = Denoiser(build("backbone", BACKBONES, config.backbone).build(), self.process, prediction)
        self.generator = build("generator", BACKBONES, config.generator).build() if config.generator else None
        self.refiner = build("refiner", BACKBONES, config.refiner).build() if config.refiner else None
        self.default_run()  # a sampler or grid that does not exist is an error here, not at the first recording

    def condition_of(self, y: Tensor) -> Tensor:
        """What the denoiser is told: y, or the frozen generator's estimate."""
        if self.generator is None:
            return y
        with torch.no_grad():
            return regress(self.generator.eval(), y)

    def encode_pair(self, clean: Float[Tensor, "b 1 n"], noisy: Float[Tensor, "b 1 n"]) -> tuple[Tensor, Tensor]:
        """(x0, y), both at the gain that brings the noisy wave to unit RMS."""
        gain = self.gain_of(noisy)
        return self.frontend.encode(clean * gain), self.frontend.encode(noisy * gain)

    def gain_of(self, noisy: Float[Tensor, "b 1 n"]) -> Float[Tensor, "b 1 1"]:
        """The gain to unit RMS."""
        return unit_gain(noisy.square().mean(dim=(1, 2)).sqrt())[:, None, None]

    def loss(
        self,
        clean: Float[Tensor, "b 1 n"],
        noisy: Float[Tensor, "b 1 n"],
        objective: Objective,
        spectral: SpectralLoss | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, " b"]:
        """Loss of each item: the objective's own, or, with `spectral`, that loss on the estimate of x0."""
        x0, y = self.encode_pair(clean, noisy)
        told = Condition(signal=self.condition_of(y))
        draw = objective.draw(self.process, self.denoiser.prediction, x0, y, generator)
        if spectral is None:
            return objective.losses(self.denoiser, x0, y, told, draw)
        estimate = self.denoiser(draw.x_t, draw.t, y, told)
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
        self, y: Tensor, noise: PositionNoise, run: Run, callback: Callable[[int, int, Tensor], object] | None = None
    ) -> Tensor:
        """Clean data given the encoded observation, before refinement."""
        told = self.condition_of(y)
        times = run.grid.times(self.process, run.num_steps)
        if self.config.start == "condition":
            first = times[:1].to(y.device).expand(len(y))
            x = self.process.sample(told, first, y, noise(y))
        else:
            x = self.process.prior(y, noise(y))

        def guide(x: Tensor, i: int, t: Tensor, s: Tensor) -> Tensor:
            """x <- (1 - w) x + w C_t, C diffused afresh to the level just left; never after the last step."""
            if i == run.num_steps - 1:
                return x
            return torch.lerp(x, self.process.sample(told, t, y, noise(x)), self.config.guidance)

        return run.sampler.sample(
            self.denoiser.bind(y, Condition(signal=told)),
            self.process,
            x,
            times,
            y,
            noise,
            callback,
            guide if self.config.guidance else None,
        )

    def restore(
        self, y: Tensor, noise: PositionNoise, run: Run, callback: Callable[[int, int, Tensor], object] | None = None
    ) -> Tensor:
        """Clean data given the encoded observation: sampled, then refined where there is a refiner."""
        x = self.sample(y, noise, run, callback)
        return x if self.refiner is None else regress(self.refiner, self._with_noisy(x, y))

    def _with_noisy(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.lerp(x, y, self.config.refine_with_noisy)


def regress(network: nn.Module, x: Tensor) -> Tensor:
    """A regression network's estimate from x alone."""
    return network(x, x.new_ones(len(x)), Condition(signal=x))


def unit_gain(rms: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """1 / rms, and 1 for silence."""
    return torch.where(rms > SILENCE, 1 / rms.clamp(min=SILENCE), torch.ones_like(rms))


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
        """Samples on either side that `calls` network calls in a row look at, a multiple of `align`.

        Every call sees as far as the one before it saw, and its own reach on top. Beyond CONTEXT_SECONDS this is cut
        off (never below one call's reach): so far away the influence is small, and the cost would be many times the
        piece's.
        """
        reach = build("backbone", BACKBONES, self.model.config.backbone).reach * self.model.frontend.hop
        seen = min(calls * reach, max(reach, round(CONTEXT_SECONDS * self.sample_rate)))
        return math.ceil((seen + self.model.frontend.reach) / self.align) * self.align

    def piece(
        self,
        rms: Float[np.ndarray, " c"],
        steps: int | None = None,
        sampler: str | None = None,
        seed: int = 0,
        callback: Callable[[int, int, Tensor], object] | None = None,
    ) -> Callable[[np.ndarray, int], np.ndarray]:
        """The function (wave `c n`, first sample's position) -> wave `c n` for pieces of one recording.

        rms: of the whole recording, per channel, at the model's rate; every piece is scaled by it, and noise belongs to
        absolute positions, so that a recording sounds the same however it is cut. Channels run one by one: how a batch
        is multiplied depends on its size, which would show in the last bits. A silent channel stays silent.
        """
        run = self.model.default_run(steps, sampler)
        if len(rms) > MAX_CHANNELS:
            raise InputError(f"expected at most {MAX_CHANNELS} channels, got {len(rms)}; split the recording")
        gains = unit_gain(torch.as_tensor(rms, dtype=torch.float32)).tolist()
        shifts = self.model.config.shifts
        delays = [i * self.align // shifts for i in range(shifts)]

        def enhance(wave: np.ndarray, start: int) -> np.ndarray:
            planes = [wave[c : c + 1] for c in range(len(wave))]
            return np.concatenate(
                [x if rms[c] == 0 else one(x, start, gains[c], seed + c) for c, x in enumerate(planes)]
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
        if not (0 < segment < math.inf and 0 <= overlap < math.inf):
            raise InputError(f"expected segment > 0 and overlap >= 0 seconds, got {segment} and {overlap}")
        kept = max(round(segment * self.sample_rate), self.align)
        shared = max(min(round(overlap * self.sample_rate), kept - self.align), 0)
        context = self.context(calls // self.model.config.shifts)  # the shifts' runs do not see one another
        return {"segment": kept + 2 * context + shared, "context": context, "overlap": shared, "align": self.align}


def mix(clean: Float[np.ndarray, "..."], noisy: Float[np.ndarray, "..."], dry: float) -> Float[np.ndarray, "..."]:
    """(1 - dry) clean + dry noisy; exactly one of them at 0 and at 1."""
    if not 0 <= dry <= 1:
        raise InputError(f"dry must lie between 0 and 1, got {dry}")
    return clean if dry == 0 else noisy + np.float32(1 - dry) * (clean - noisy)
