"""Tar shards as training data: a few shards open at a time, their samples mixed, every sample once a pass.

The order of a pass p over all shards is drawn from (seed, p). `window` of them after another are open together, and the
order of all samples of window w is drawn from (seed, p, w). So item k of a run is a function of (seed, k) alone,
whatever the number of devices, workers and restarts; and of a million samples only the members' names of the shards in
use are in memory.

What a sample is made of, the part after the first dot of its members' names (`layouts` of WebDataset's users):

    flac                            one recording; json, or cls and txt: what is said of it, its class, its caption
    noisy.flac  clean.flac          a pair
    s1.flac  s2.flac ...            sources, and perhaps a recorded mixture under a name of its own

Any suffix of a sound may stand in the place of flac.
"""

import itertools
import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np

from fromnoise.data.layouts import SUFFIXES, Pair, speaker_of
from fromnoise.data.places import Clip
from fromnoise.data.shards import counts, find_shards, is_shards, read_member, samples
from fromnoise.data.timeline import Mixture, Mode, Part
from fromnoise.types import InputError

T = TypeVar("T")
FEW = 64
"""How many samples of a stream are looked at before a training."""


@dataclass(frozen=True)
class Sample:
    """One sample. parts: what follows the first dot of a member's name -> where it lies, as a path into the shard."""

    key: str
    shard: Path
    parts: Mapping[str, Path]

    @property
    def sounds(self) -> dict[str, Path]:
        """Name of each sound without its suffix, "" for the only one -> its path."""
        split = {part: part.rpartition(".") for part in self.parts}
        return {name: self.parts[part] for part, (name, _, last) in split.items() if f".{last}" in SUFFIXES}

    def text(self, part: str) -> str:
        """A part that is text; "" where there is none."""
        return read_member(self.parts[part]).decode("utf-8", "replace").strip() if part in self.parts else ""

    def lacks(self, wanted: str) -> InputError:
        return InputError(f"{self.shard}: sample {self.key!r}: expected {wanted}, it has {', '.join(self.parts)}")


def clip_of(sample: Sample) -> Clip:
    """One recording and what is said of it."""
    if len(sample.sounds) != 1:
        raise sample.lacks("one sound, such as flac")
    path = next(iter(sample.sounds.values()))
    try:
        facts = json.loads(sample.text("json") or "{}")
    except json.JSONDecodeError as error:
        raise InputError(f"{sample.shard}: sample {sample.key!r}: its json cannot be read ({error})") from error
    if not isinstance(facts, dict):
        raise sample.lacks("an object in json")
    label = str(facts.pop("label", None) or sample.text("cls"))
    speaker = str(facts.pop("speaker", None) or speaker_of(path))
    caption = sample.text("txt")
    return Clip(path, label, speaker, {"caption": caption} | facts if caption else facts)


def pair_of(sample: Sample) -> Pair:
    """A noisy recording and its clean reference."""
    sounds = sample.sounds
    if "noisy" not in sounds or "clean" not in sounds:
        raise sample.lacks("the parts noisy.flac and clean.flac")
    return Pair(sample.key, sounds["noisy"], sounds["clean"])


def mixture_of(sample: Sample, sample_rate: int, mode: Mode, voices: int, mix: str) -> Mixture:
    """Sources, or speech and the noise of a pair."""
    sounds = sample.sounds
    if "noisy" in sounds and "clean" in sounds:
        parts = (Part(sounds["clean"]), Part(sounds["noisy"], less=sounds["clean"]))
    else:
        names = itertools.takewhile(lambda name: name in sounds, (f"s{k}" for k in itertools.count(1)))
        parts = tuple(Part(sounds[name]) for name in names)
    if len(parts) != voices or (mix and mix not in sounds):
        raise sample.lacks(f"the sources s1.flac to s{voices}.flac" + (f" and {mix}.flac" if mix else ""))
    return Mixture(sample.key, parts, sample_rate, mode, recorded=sounds[mix] if mix else None)


class Stream(Sequence[T]):
    """The samples of shards as a sequence that holds none of them; `make` says what a sample is."""

    def __init__(self, shards: Sequence[Path], make: Callable[[Sample], T], window: int) -> None:
        if window < 1:
            raise ValueError(f"data.window must be at least 1, got {window}")
        self.make, self.window = make, window
        held = [(shard, count) for shard, count in zip(shards, counts(shards), strict=True) if count]
        self.shards, self.counts = [shard for shard, _ in held], [count for _, count in held]
        self.ends: list[int] = np.cumsum(self.counts).tolist()

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self.ends, index)
        shard = self.shards[number]
        listed = _listed(shard)
        if len(listed) != self.counts[number]:
            raise InputError(
                f"{shard}: expected {self.counts[number]} samples, it has {len(listed)}; remove index.json beside it"
            )
        key, parts = listed[index - self.ends[number] + self.counts[number]]
        return self.make(Sample(key, shard, {part: shard / name for part, name in parts.items()}))

    def some(self, count: int = FEW) -> list[T]:
        """An even choice of at most `count`."""
        return [self[int(i)] for i in np.linspace(0, len(self) - 1, min(count, len(self))).round()]

    def chosen(self, seed: int, k: int) -> int:
        """Which sample item k of a training is."""
        turn, place = divmod(k, len(self))
        order = _permutation((seed, 0, turn), len(self.shards))
        ends = np.cumsum(np.asarray(self.counts)[order])
        window = int(np.searchsorted(ends, place, "right")) // self.window
        first = window * self.window
        begin = int(ends[first - 1]) if first else 0
        inside = ends[first : first + self.window] - begin
        mixed = int(_permutation((seed, 0, turn, window), int(inside[-1]))[place - begin])
        number = int(np.searchsorted(inside, mixed, "right"))
        shard = int(order[first + number])
        return self.ends[shard] - int(inside[number]) + mixed


class Some(list[Path]):
    """An even choice of the files of a stream; total: how many there are."""

    def __init__(self, paths: Iterable[Path], total: int) -> None:
        super().__init__(paths)
        self.total = total


def files_of(found: Sequence[T], path: Callable[[T], Path]) -> list[Path]:
    """The files of `found`, of a stream an even choice."""
    chosen = [path(one) for one in few(found)]
    return Some(chosen, len(found)) if isinstance(found, Stream) else chosen


def few(found: Sequence[T]) -> Sequence[T]:
    """What of `found` is looked at beforehand: all, of a stream an even choice."""
    return found.some() if isinstance(found, Stream) else found


def streams(root: str, valid_root: str, make: Callable[[Sample], T], window: int) -> tuple[Stream[T], Stream[T]] | None:
    """(training, validation) of shards; None where `root` names none.

    Validation is `valid_root`, or the folder's own `valid/` beside its `train/`, or else the last shard.
    """
    own = Path(root, "train")
    if not root or not (is_shards(root) or is_shards(own)):
        return None
    train = find_shards(own if is_shards(own) else root)
    if valid_root or is_shards(Path(root, "valid")):
        inner = Path(valid_root, "valid")
        valid = find_shards(inner if valid_root and is_shards(inner) else valid_root or Path(root, "valid"))
    elif len(train) < 2:
        raise InputError(f"{root}: one shard alone leaves nothing to validate on; set data.valid_root=SHARDS")
    else:
        train, valid = train[:-1], train[-1:]
    found = tuple(Stream(shards, make, window) for shards in (train, valid))
    for place, stream in zip((root, valid_root or root), found, strict=True):
        if not stream.shards:
            raise InputError(f"{place}: its shards hold no samples")
        stream[0]  # what is no sample of this kind is said here, not in a worker in the middle of training
    return found[0], found[1]


def require_in_place(place: str, **settings: Any) -> None:
    """Raises InputError for settings that need a look at every sample beforehand."""
    for name, value in settings.items():
        if value:
            raise InputError(
                f"{place}: data.{name} needs a look at every sample, and shards are read one after another; leave it "
                "out, or set it when the shards are packed"
            )


@lru_cache(maxsize=64)
def _listed(shard: Path) -> list[tuple[str, dict[str, str]]]:
    return [*samples(shard).items()]


@lru_cache(maxsize=16)
def _permutation(numbers: tuple[int, ...], count: int) -> np.ndarray:
    return np.random.default_rng(numbers).permutation(count)
