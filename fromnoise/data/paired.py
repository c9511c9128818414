"""Recordings that exist as pairs: the same random crop of the noisy and of the clean file.

Item k lies in pass p = k div N over the N pairs and is pair perm_p[k mod N], perm_p a permutation drawn from (seed, p);
its crop is drawn from (seed, k). So every pair is seen once a pass, and an item does not depend on workers, batches or
restarts. Tar shards have an order of their own, see `streaming`. Validation speakers are held out by name: p226 and
p287 of VoiceBank-DEMAND, as CDiffuSE does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fromnoise.data.audio import AudioReader
from fromnoise.data.layouts import Pair, Pairs, find_pairs, has_split, speaker_of
from fromnoise.data.streaming import Stream, files_of, pair_of, streams
from fromnoise.frontends.resample import resample, resampled_length
from fromnoise.types import InputError


@dataclass(frozen=True)
class Paired:
    """A folder or manifest of pairs (see `layouts`).

    root: the folder, or a `.jsonl` file. valid_root: another one for validation; by default the folder's own `valid/`,
    or else the pairs of `valid_speakers`. seconds: length of a training crop (a shorter recording is filled with
    silence), valid_seconds of a validation crop, which starts at the beginning. valid_items: 0 for all. window: how
    many tar shards are mixed, where root names shards.
    """

    gives: ClassVar[tuple[str, ...]] = ("clean", "noisy", "length")

    root: str = ""
    valid_root: str = ""
    valid_speakers: tuple[str, ...] = ("p226", "p287")
    sample_rate: int = 16000
    seconds: float = 3.0
    valid_seconds: float = 3.0
    valid_items: int = 0
    window: int = 8

    def pairs(self) -> tuple[Sequence[Pair], Sequence[Pair]]:
        """(training, validation). Raises InputError when one of them would be empty."""
        if not self.root:
            raise InputError("expected a folder of pairs, got none; set data.root=PATH")
        packed = streams(self.root, self.valid_root, pair_of, self.window)
        if packed is not None:
            return packed
        if not Path(self.root).exists():
            raise InputError(f"{self.root}: no such folder or manifest; correct data.root")
        train = find_pairs(self.root, "train")
        if self.valid_root:
            return train, find_pairs(self.valid_root, "valid")
        if has_split(self.root, "valid"):
            return train, find_pairs(self.root, "valid")
        held = tuple(pair for pair in train if speaker_of(pair.clean) in self.valid_speakers)
        rest = tuple(pair for pair in train if speaker_of(pair.clean) not in self.valid_speakers)
        if not held or not rest:
            there = sorted({speaker_of(pair.clean) for pair in train})
            raise InputError(
                f"{self.root}: nothing to {'validate' if not held else 'train'} on: it has no valid/ folder, and "
                f"data.valid_speakers={list(self.valid_speakers)} leaves {len(rest)} pairs for training and "
                f"{len(held)} for validation; choose among the speakers {', '.join(there[:12])}, "
                "or set data.valid_root=PATH"
            )
        return Pairs(rest, train.skipped), Pairs(held)

    def sources(self) -> dict[str, list[Path]]:
        """The files of both sides of both sets."""
        train, valid = self.pairs()
        return {
            "train clean": files_of(train, lambda pair: pair.clean),
            "train noisy": files_of(train, lambda pair: pair.noisy),
            "valid clean": files_of(valid, lambda pair: pair.clean),
            "valid noisy": files_of(valid, lambda pair: pair.noisy),
        }

    def train(self, seed: int) -> "PairedSet":
        """Endless items for training."""
        return PairedSet(self, self.pairs()[0], seed)

    def valid(self) -> "PairedSet":
        """The held-out pairs from their beginning, always the same; an even choice when there are too many."""
        pairs = self.pairs()[1]
        count = min(self.valid_items or len(pairs), len(pairs))
        chosen = tuple(pairs[int(i)] for i in np.linspace(0, len(pairs) - 1, count).round())
        return PairedSet(self, Pairs(chosen), None)


class PairedSet(Dataset[dict[str, Tensor]]):
    """Item k: {"clean": `1 n`, "noisy": `1 n`, "length": how many samples are no filling}, waves in float32; seed None
    gives pair k from its beginning."""

    def __init__(self, config: Paired, pairs: Sequence[Pair], seed: int | None) -> None:
        self.config, self.found, self.seed = config, pairs, seed
        self.n = round((config.valid_seconds if seed is None else config.seconds) * config.sample_rate)

    def __len__(self) -> int:
        return len(self.found) if self.seed is None else 2**62

    def __getitem__(self, k: int) -> dict[str, Tensor]:
        if self.seed is None:
            return self._crop(self.found[k], 0.0)
        pair = self.found[chosen(self.found, self.seed, k)]
        return self._crop(pair, float(np.random.default_rng([self.seed, 1, k]).random()))

    def _crop(self, pair: Pair, place: float) -> dict[str, Tensor]:
        """The part that starts at the fraction `place` of what may be left out."""
        rate = self.config.sample_rate
        with AudioReader(pair.clean) as clean, AudioReader(pair.noisy) as noisy:
            if clean.sample_rate != noisy.sample_rate:
                raise InputError(
                    f"{pair.noisy}: expected {clean.sample_rate} Hz like its clean partner, got {noisy.sample_rate} Hz"
                )
            need = -(-self.n * clean.sample_rate // rate)
            start = int(place * max(1, min(clean.frames, noisy.frames) - need + 1))
            length = min(self.n, *(resampled_length(r.frames - start, r.sample_rate, rate) for r in (clean, noisy)))
            item = {name: self._read(reader, start, need) for name, reader in (("clean", clean), ("noisy", noisy))}
            return item | {"length": torch.tensor(length)}

    def _read(self, reader: AudioReader, start: int, need: int) -> Tensor:
        reader.seek(start)
        wave = resample(reader.read(need)[0], reader.sample_rate, self.config.sample_rate)[: self.n]
        return torch.from_numpy(np.pad(wave, (0, self.n - len(wave))).astype(np.float32))[None]


def chosen(found: Sequence[Any], seed: int, k: int) -> int:
    """Which of `found` item k of a training is."""
    if isinstance(found, Stream):
        return found.chosen(seed, k)
    turn, place = divmod(k, len(found))
    return int(permutation(seed, turn, len(found))[place])


@lru_cache(maxsize=2)
def permutation(seed: int, turn: int, count: int) -> np.ndarray:
    """The order of `count` items in a pass."""
    return np.random.default_rng([seed, 0, turn]).permutation(count)
