"""Mixtures with known sources for training: the same random crop of all sources of a mixture.

Item k lies in pass p = k div N over the N mixtures and is mixture perm_p[k mod N], perm_p a permutation drawn from
(seed, p); its crop is drawn from (seed, k). So every mixture is seen once a pass, and an item does not depend on
workers, batches or restarts. Where the mixtures lie, see `sources`; of pairs the sources are the speech and the noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fromnoise.data.layouts import speaker_of
from fromnoise.data.paired import chosen
from fromnoise.data.sources import Mixture, Mode, find_mixtures, has_mixtures
from fromnoise.data.streaming import Sample, Stream, files_of, mixture_of, require_in_place, streams
from fromnoise.types import InputError


@dataclass(frozen=True)
class Separated:
    """A folder or list of mixtures whose sources are known.

    root: the folder or list. valid_root: another one for validation; by default the folder's own, or else, as in
    VoiceBank-DEMAND, the mixtures whose first source is one of `valid_speakers`. split, valid_split: "train", "valid",
    or a folder's name such as "train-100". mode: "max", the whole recordings, or "min". voices: how many sources. mix:
    the folder of recorded mixtures, if they hold more than the sources. seconds: length of a crop, valid_seconds of a
    validation crop, which lies in the middle. short: shorter recordings get silence on both sides, or are repeated.
    items, valid_items: how many mixtures are used, 0 for all. window: how many tar shards are mixed, where root
    names shards.
    """

    gives: ClassVar[tuple[str, ...]] = ("sources",)

    root: str = ""
    valid_root: str = ""
    split: str = "train"
    valid_split: str = "valid"
    valid_speakers: tuple[str, ...] = ("p226", "p287")
    mode: Mode = "max"
    voices: int = 2
    mix: str = ""
    sample_rate: int = 8000
    seconds: float = 5.0
    valid_seconds: float = 5.0
    short: Literal["silence", "repeat"] = "silence"
    items: int = 0
    valid_items: int = 0
    window: int = 8

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.valid_seconds <= 0 or min(self.items, self.valid_items) < 0:
            raise ValueError("expected data.seconds and valid_seconds above 0, items and valid_items of at least 0")

    def mixtures(self) -> tuple[Sequence[Mixture], Sequence[Mixture]]:
        """(training, validation). Raises InputError when one of them would be empty."""
        if not self.root:
            raise InputError("expected a folder or list of mixtures, got none; set data.root=PATH")
        packed = streams(self.root, self.valid_root, self._packed, self.window)
        if packed is not None:
            require_in_place(self.root, items=self.items)
            return packed[0], _even(packed[1], self.valid_items)
        train = self._find(self.root, self.split)
        if self.valid_root:
            return _even(train, self.items), _even(self._find(self.valid_root, self.valid_split), self.valid_items)
        if has_mixtures(self.root, self.valid_split):
            return _even(train, self.items), _even(self._find(self.root, self.valid_split), self.valid_items)
        held = [one for one in train if _speaker(one) in self.valid_speakers]
        rest = [one for one in train if _speaker(one) not in self.valid_speakers]
        if not held or not rest:
            raise InputError(
                f"{self.root}: nothing to {'validate' if not held else 'train'} on: it has no part {self.valid_split!r}"
                f", and data.valid_speakers={list(self.valid_speakers)} leaves {len(rest)} mixtures for training and "
                f"{len(held)} for validation; set data.valid_root=PATH, or other speakers"
            )
        return _even(rest, self.items), _even(held, self.valid_items)

    def _packed(self, sample: Sample) -> Mixture:
        return mixture_of(sample, self.sample_rate, self.mode, self.voices, self.mix)

    def _find(self, place: str, split: str) -> list[Mixture]:
        return find_mixtures(place, split, self.mode, self.sample_rate, self.voices, self.mix)

    def sources(self) -> dict[str, list[Path]]:
        """The files of each source of both sets."""
        found: dict[str, list[Path]] = {}
        for name, mixtures in zip(("train", "valid"), self.mixtures(), strict=True):
            for k in range(self.voices):
                paths = files_of(mixtures, lambda one, k=k: one.parts[k].path)
                found[f"{name} source {k + 1}"] = paths if isinstance(mixtures, Stream) else sorted({*paths})
        return found

    def train(self, seed: int) -> "SeparatedSet":
        """Endless items for training."""
        return SeparatedSet(self, self.mixtures()[0], seed)

    def valid(self) -> "SeparatedSet":
        """The held-out mixtures, always the same."""
        return SeparatedSet(self, self.mixtures()[1], None)


def _speaker(mixture: Mixture) -> str:
    return speaker_of(mixture.parts[0].path)


def _even(mixtures: Sequence[Mixture], count: int) -> list[Mixture]:
    """An even choice of at most `count`; 0 for all."""
    count = min(count or len(mixtures), len(mixtures))
    return [mixtures[int(i)] for i in np.linspace(0, len(mixtures) - 1, count).round()]


class SeparatedSet(Dataset[dict[str, Tensor]]):
    """Item k: {"sources": `K n`} and, of recorded mixtures, {"mixture": `1 n`}, float32; seed None gives mixture k."""

    def __init__(self, config: Separated, mixtures: Sequence[Mixture], seed: int | None) -> None:
        self.config, self.found, self.seed = config, mixtures, seed
        self.n = round((config.valid_seconds if seed is None else config.seconds) * config.sample_rate)

    def __len__(self) -> int:
        return len(self.found) if self.seed is None else 2**62

    def __getitem__(self, k: int) -> dict[str, Tensor]:
        if self.seed is None:
            return self._crop(self.found[k], 0.5)
        mixture = self.found[chosen(self.found, self.seed, k)]
        return self._crop(mixture, float(np.random.default_rng([self.seed, 1, k]).random()))

    def _crop(self, mixture: Mixture, place: float) -> dict[str, Tensor]:
        """The part that starts at the fraction `place` of what may be left out."""
        sources = mixture.load()
        waves = sources if mixture.recorded is None else np.concatenate([sources, mixture.mixture(sources)[None]])
        if self.config.short == "repeat" and waves.shape[1] < self.n:
            waves = np.tile(waves, -(-self.n // waves.shape[1]))[:, : self.n]
        start = int(place * max(1, waves.shape[1] - self.n + 1))
        waves = waves[:, start : start + self.n]
        missing = self.n - waves.shape[1]
        waves = torch.from_numpy(np.pad(waves, ((0, 0), (missing // 2, missing - missing // 2))))
        item = {"sources": waves[: len(sources)]}
        return item if mixture.recorded is None else item | {"mixture": waves[len(sources) :]}
