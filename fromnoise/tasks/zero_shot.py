"""Denoise recordings with a generator that never saw noise, from the middle of its chain.

    x_t = [1 or clean(t)] y + [0 or noise(t)] e,      x0' = sampler(x_t, t -> 0)

The plain form, x_t = y, takes the noise in the recording for that of the process at t (Kong et al., "DiffWave", 2021,
https://arxiv.org/abs/2009.09761, Sec. 5.4: t = 25 of 200, where noise(t) = 0.18). With both parts x_t has the
distribution that the network was trained on. Levels are left as they are: the network knows those of its training.

The network gets pieces as long as the clips of its training, shorter ones filled with silence at the end. They look
at up to a quarter of a piece beyond their own edges and are cross-faded; silence stays silence.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fromnoise.backbones import BACKBONES
from fromnoise.processes.base import time_dtype
from fromnoise.samplers import PositionNoise
from fromnoise.tasks.base import MAX_CHANNELS, Run, in_pieces, like
from fromnoise.tasks.chunked import Level
from fromnoise.tasks.generation_model import GenerationModel, Number, item_seed
from fromnoise.types import InputError, build, expand, require_finite


class ZeroShot:
    """A generator as a cleaner of recordings, with what the chunked work and `fromnoise denoise` need of one.

    start: the time t. label: number of the class that the sound is told to be of, or a text, None for none;
    guidance: towards it.
    scale, add_noise: the two parts in brackets above.
    """

    def __init__(
        self,
        model: GenerationModel,
        start: float,
        label: int | str | None = None,
        guidance: Number | None = None,
        scale: bool = False,
        add_noise: bool = False,
        name: str = "generator",
    ) -> None:
        self.model, self.name, self.start = model, name, start
        self.label, self.guidance, self.scale, self.add_noise = label, guidance, scale, add_noise

    @property
    def sample_rate(self) -> int:
        """The rate in Hz that the model works at."""
        return self.model.frontend.sample_rate

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def clip(self) -> int:
        """Samples of the clips in training."""
        return max(1, round(self.model.config.seconds * self.sample_rate))

    def network_calls(self, steps: int | None = None, sampler: str | None = None) -> int:
        """Network calls of one run over one piece of sound."""
        run = self.model.run_from(self.start, steps, sampler)
        return run.sampler.evaluations(run.num_steps)

    def chunking(self, segment: Number, overlap: Number, calls: int = 1) -> dict[str, Any]:
        """Settings of `run_chunked` in samples, from seconds. segment: what the network gets, the clip's at least.

        Pieces begin at multiples of what the front end asks for (`align`), where they are long enough, else of its hop.
        """
        if not (segment < math.inf and 0 <= overlap < math.inf and round(segment * self.sample_rate) >= self.clip):
            raise InputError(
                f"expected overlap >= 0 and segment >= {self.clip / self.sample_rate:g} seconds, the length that the "
                f"model was trained on; got {overlap} and {segment}"
            )
        whole, frontend = round(segment * self.sample_rate), self.model.frontend
        reach = build("backbone", BACKBONES, self.model.config.backbone).reach * frontend.hop
        context = min(calls * reach + frontend.reach, whole // 4)
        shared = min(round(overlap * self.sample_rate), whole // 8)
        align = getattr(frontend, "align", frontend.hop)
        align = align if whole - 2 * context - shared >= align else frontend.hop
        return {"segment": whole, "context": context, "overlap": shared, "align": align}

    def piece(
        self,
        level: Level,
        steps: int | None = None,
        sampler: str | None = None,
        seed: int = 0,
        callback: Callable[[int, int, Tensor], object] | None = None,
    ) -> Callable[[np.ndarray, int], np.ndarray]:
        """The function (wave `c n`, first sample's position) -> wave `c n` for pieces of one recording.

        level: of the whole recording, per channel: a silent one stays as it is. Channel c draws the noise of item c.
        """
        run = self.model.run_from(self.start, steps, sampler)
        if len(level.rms) > MAX_CHANNELS:
            raise InputError(f"expected at most {MAX_CHANNELS} channels, got {len(level.rms)}; split the recording")

        def clean(wave: np.ndarray, start: int) -> np.ndarray:
            planes = [wave[c : c + 1] for c in range(len(wave))]
            parts = [
                x if level.rms[c] == 0 else self._clean(x, start, item_seed(seed, c), run, callback)
                for c, x in enumerate(planes)
            ]
            return np.concatenate(parts)

        return clean

    def _clean(
        self,
        wave: np.ndarray,
        position: int,
        seed: int,
        run: Run,
        callback: Callable[[int, int, Tensor], object] | None,
    ) -> np.ndarray:
        weight = next(self.model.parameters())
        noisy = torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32))[None].to(weight)
        require_finite(noisy, "the recording")
        n = noisy.shape[-1]
        length = max(n, self.clip)
        with torch.inference_mode():
            y = self.model.frontend.encode(torch.nn.functional.pad(noisy, (0, length - n)))
            noise = PositionNoise([seed], position // self.model.frontend.hop)
            told = self.model.told(self.label, 1)
            x = self.model.sample(self.begin(y, noise), told, noise, run, self.guidance, self.start, callback)
            return self.model.frontend.decode(x, length)[0, :, :n].float().cpu().numpy()

    def begin(self, y: Tensor, noise: PositionNoise) -> Tensor:
        """The state at `start`."""
        w = self.model.process.weights(torch.full((len(y),), self.start, dtype=time_dtype(y.device), device=y.device))
        x = expand(w.clean, y) * y if self.scale else y
        return x + expand(w.noise, y) * noise(y) if self.add_noise else x

    def __call__(
        self,
        noisy: Any,
        sample_rate: int,
        steps: int | None = None,
        sampler: str | None = None,
        seed: int = 0,
        segment: Number | None = None,
        overlap: Number = 0.05,
    ) -> Any:
        """Denoise a recording held in memory: floats `n` or `c n`, numpy or torch, of which kind and rate stay.

        segment: seconds, by default as in training. Raises InputError for a recording that cannot be used.
        """
        length = self.clip / self.sample_rate if segment is None else segment
        chunking = self.chunking(length, overlap, self.network_calls(steps, sampler))
        piece = lambda level: self.piece(level, steps, sampler, seed)  # noqa: E731
        return like(in_pieces(noisy, sample_rate, self.sample_rate, piece, chunking), noisy)
