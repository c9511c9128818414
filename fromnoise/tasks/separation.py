"""Separate a mixture into its sources: the verb.

Each piece of a recording is brought to the level that the model was trained at, separated, and brought back:

    u = g (mix - mean),   e = sampler(u),   s_k = e_k / g + mean / K,   then as the configuration's `levels` says

A model has no way to know which of its outputs was the first speaker in the piece before. Neighbouring pieces are both
computed where they meet, so the order of the later one is the one in which it repeats the earlier (`Follower`); where
the two are silent there, or alike, that is in doubt and said.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fromnoise.backbones import BACKBONES
from fromnoise.frontends.resample import check_rate, resample
from fromnoise.samplers import PositionNoise
from fromnoise.tasks.base import Ready, Run, as_floats, cut, fit, in_batches, joined, like, looked_at
from fromnoise.tasks.chunked import Chunking
from fromnoise.tasks.following import Follower
from fromnoise.tasks.separation_model import SeparationModel
from fromnoise.types import InputError, build, require_finite

SILENCE = 1e-7
"""A piece whose samples differ by less has nothing in it to separate."""


class Separator(Ready[SeparationModel]):
    """A ready model: a mixture in, its sources out, at the rate, length and level of the mixture.

    >>> separator = fromnoise.load("separate-small")                            # doctest: +SKIP
    >>> first, second = separator(mixture, sample_rate=8000, seed=0)            # doctest: +SKIP
    """

    task = "separate"

    @property
    def sample_rate(self) -> int:
        """The rate in Hz that the model works at."""
        return self.model.frontend.sample_rate

    @property
    def sources(self) -> int:
        """How many sources come out."""
        return self.model.config.sources

    @property
    def names(self) -> tuple[str, ...]:
        """What the sources are called: s1, s2, ... where the model does not say, as for speakers."""
        return self.model.names

    def require_sources(self, wanted: int | None) -> None:
        """Raises InputError unless the model separates so many sources."""
        if wanted is not None and wanted != self.sources:
            raise InputError(
                f"the model {self.name!r} separates {self.sources} sources, but {wanted} are asked for; choose a model "
                f"that was trained for {wanted}"
            )

    def network_calls(self, steps: int | None = None, sampler: str | None = None) -> int:
        """Network calls of one run over one piece of sound."""
        run = self.model.default_run(steps, sampler)
        return len(self.model.delays) * run.sampler.evaluations(run.num_steps)

    def context(self, calls: int = 1) -> int:
        """Samples on either side that `calls` network calls in a row look at (`looked_at`)."""
        in_a_row = calls // len(self.model.delays)  # the shifts' runs do not see one another
        return looked_at(in_a_row, build("backbone", BACKBONES, self.model.config.backbone).reach, self.sample_rate)

    def chunking(self, segment: float, overlap: float, calls: int = 1) -> dict[str, Any]:
        """Settings of `run_chunked` in samples, from seconds; `segment` counts what is kept, the context comes on top.

        calls: network calls in a row, see `context`. A `Follower`, new for each recording, belongs to them as `match`.
        """
        return cut(segment, overlap, self.context(calls), 1, self.sample_rate)

    def piece(
        self,
        steps: int | None = None,
        sampler: str | None = None,
        seed: int = 0,
        callback: Callable[[int, int, Tensor], object] | None = None,
    ) -> "SeparatePiece":
        """The function (wave `c n`, first sample's position) -> sources `k n` for pieces of one recording.

        Channels are averaged to one. A piece's level is taken from the piece, as in training; its noise belongs to
        absolute positions. Silence is dealt out evenly, and the network is not asked.
        """
        return SeparatePiece(self, self.model.default_run(steps, sampler), seed, callback)

    def positions(self, n: int) -> int:
        """How long n samples are in the model; what is equally long can be done at once."""
        return n

    def together(self, requests: Sequence[tuple["SeparatePiece", np.ndarray, int]], at_once: int) -> list[np.ndarray]:
        """The answers to what several recordings ask for, by functions of `piece` with one run: those of one length
        that begin at the same position at once, at most `at_once`. Each is scaled by itself."""
        rows = [
            Row(
                piece,
                torch.from_numpy(np.ascontiguousarray(wave, np.float32)).mean(0)[None, None].to(self.device),
                start,
            )
            for piece, wave, start in requests
        ]
        return in_batches(rows, lambda row: (row.silent, row.mix.shape[-1], row.start), at_once, self._separated)

    def _separated(self, rows: Sequence["Row"]) -> list[np.ndarray]:
        """The rows, all of one length and position, and all silent or none."""
        if rows[0].silent:
            return [(row.mix / self.sources).expand(1, self.sources, -1)[0].cpu().numpy() for row in rows]
        first = rows[0].piece
        with torch.inference_mode():
            noise = PositionNoise([row.piece.seed for row in rows], rows[0].start)
            normal, gain, mean = zip(*(self.model.normalise(row.mix) for row in rows), strict=True)
            callback = first.callback if len(rows) == 1 else None
            estimates = self.model.separate(torch.cat(normal), noise, first.run, callback).split(1)
            return [
                self.model.restore(row.mix, estimates[i], gain[i], mean[i])[0].cpu().numpy()
                for i, row in enumerate(rows)
            ]

    def __call__(
        self,
        mixture: Any,
        sample_rate: int,
        steps: int | None = None,
        sampler: str | None = None,
        seed: int = 0,
        segment: float = 30.0,
        overlap: float = 2.0,
        callback: Callable[[int, int, Tensor], object] | None = None,
    ) -> Any:
        """Separate a recording held in memory.

        mixture: numpy or torch, `n` or `c n`, full scale at 1; several channels are averaged to one. sample_rate: Hz.
        Returns the sources `k n` of the same kind, in the order of `names`. steps, sampler: other than the model's own.
        segment, overlap: seconds, as `fromnoise separate`. callback(i, n, x): after every step of every piece. Raises
        InputError for an empty, non-finite or oddly shaped recording, or a rate out of range.
        """
        wave = np.atleast_2d(as_floats(mixture)).astype(np.float32)
        check_rate(sample_rate, "the recording")
        require_finite(torch.from_numpy(wave), "the recording")
        if len(wave) > 1:
            warnings.warn(averaged(len(wave)), stacklevel=2)
        mono = wave.mean(axis=0, keepdims=True)
        chunking = self.chunking(segment, overlap, self.network_calls(steps, sampler))
        follow = Follower(self.sources)
        process = follow.listen(self.piece(steps, sampler, seed, callback))
        inside = np.asarray(resample(mono, sample_rate, self.sample_rate))
        result = joined(process, inside, chunking | {"match": follow})
        if follow.doubts:
            warnings.warn(in_doubt(self.doubtful_seconds(follow, chunking)), stacklevel=2)
        return like(fit(np.asarray(resample(result, self.sample_rate, sample_rate)), mono.shape[1]), mixture)

    def doubtful_seconds(self, follow: Follower, chunking: Mapping[str, Any]) -> list[float]:
        """Where the sources may have changed places, in seconds of the recording."""
        return [Chunking(**chunking).join(k) / self.sample_rate for k in follow.doubts]


@dataclass(frozen=True)
class SeparatePiece:
    """`Separator.piece`: what the pieces of one recording share."""

    separator: Separator
    run: Run
    seed: int
    callback: Callable[[int, int, Tensor], object] | None

    def __call__(self, wave: np.ndarray, start: int) -> np.ndarray:
        return self.separator.together([(self, wave, start)], 1)[0]


@dataclass(frozen=True)
class Row:
    """A piece's mixture `1 1 n`, and where it begins."""

    piece: SeparatePiece
    mix: Tensor
    start: int

    @property
    def silent(self) -> bool:
        """Whether there is nothing in it to separate."""
        require_finite(self.mix, "the recording")
        return float(self.mix.max() - self.mix.min()) < SILENCE


def averaged(channels: int) -> str:
    """The sentence that says it."""
    return f"{channels} channels were averaged to one; a separator hears one channel"


def in_doubt(seconds: Sequence[float], shown: int = 5) -> str:
    """The sentence that says where sources may have changed places."""
    places = ", ".join(f"{int(s) // 60}:{int(s) % 60:02d}" for s in seconds[:shown])
    more = f" and {len(seconds) - shown} more places" if len(seconds) > shown else ""
    return (
        f"the sources cannot be told apart where two pieces meet at {places}{more} (min:s), so they may change places "
        "there; another length of the segments moves the joins"
    )
