"""Single recordings for training: what a vocoder, a generator and a classifier learn from.

    item = 10^(g/20) a s(v t),     g ~ U(gain_db),     v ~ U(speed),     a: the gain that brings the clip to `level`

`fixed` items begin where the clip begins and are cut or filled with silence at the end; the others are a crop from a
drawn place, and a short clip is filled with silence, never dropped. Item k lies in pass p = k div N over the N clips
and is clip perm_p[k mod N], perm_p drawn from (seed, p); everything else is drawn from (seed, k). So an item does not
depend on workers, batches or restarts. Decoded clips stay in memory as long as they fit into `cache_mb`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from fromnoise.data.audio import AudioReader
from fromnoise.data.captions import captions_of, joined, to_bytes, without_words
from fromnoise.data.mixtures import active_level, rms
from fromnoise.data.places import VALID_SHARE, Clip, Layout, find_clips
from fromnoise.data.streaming import Stream, clip_of, few, files_of, require_in_place, streams
from fromnoise.frontends.resample import resample
from fromnoise.types import InputError

__all__ = ["Clip", "ClipSet", "Clips", "find_clips", "label_index"]

Wave = Float[np.ndarray, "c _"]
MARGIN = 64  # samples beyond a crop, so that the resampling filter starts on sound
JOIN = 0.05  # seconds in which a clip fades into itself
PEAK = 0.99  # no level makes a clip louder than this


@dataclass(frozen=True)
class Clips:
    """A folder or table of recordings (layouts: see `places`), resampled to `sample_rate`.

    root, extra: one place, and more of them, which are for training alone. valid_root: another one for validation; by
    default it is what the layout of root holds out (`valid_share` of a flat folder).
    seconds: length of an item; valid_seconds of a validation item, 0 for the same. fixed: see above; validation crops
    are taken from the middle. labels: the names of the classes; a clip's label is one of them or its number. level:
    what of each clip is brought to `level_db` (dB below full scale): nothing, its peak, its RMS, or the RMS of its loud
    frames. speed: a factor on pitch and tempo, in steps of 1 %. gain_db: see above. balanced: every class equally
    often. valid_items: 0 for all. cache_mb: memory for decoded clips, per loading process.
    captions: the columns with what is said of a clip (see `captions`), one caption drawn for each item; drop_words:
    share of its words left out in training. without_licence: rows of a table whose column licence holds this word are
    not used. fill: what follows a clip that is too short. channels: the first so many; that of a mono file stands for
    all.
    window: how many tar shards are mixed, where root names shards (see `streaming`).
    """

    gives: ClassVar[tuple[str, ...]] = ("clean", "label", "band_hz", "duration", "text")

    root: str = ""
    extra: tuple[str, ...] = ()
    valid_root: str = ""
    layout: Layout = "auto"
    sample_rate: int = 16000
    seconds: float = 1.0
    valid_seconds: float = 0.0
    fixed: bool = True
    labels: tuple[str, ...] = ()
    level: Literal["none", "peak", "rms", "active"] = "none"
    level_db: float = -23.0
    speed: tuple[float, ...] = (1.0, 1.0)
    gain_db: tuple[float, ...] = (0.0, 0.0)
    balanced: bool = False
    valid_share: float = VALID_SHARE
    valid_items: int = 0
    cache_mb: int = 1024
    captions: tuple[str, ...] = ()
    drop_words: float = 0.0
    without_licence: str = ""
    fill: Literal["silence", "repeat"] = "silence"
    channels: int = 1
    window: int = 8

    def __post_init__(self) -> None:
        for name in ("speed", "gain_db"):
            value = getattr(self, name)
            if len(value) != 2 or value[0] > value[1]:
                raise ValueError(f"data.{name} must be [lowest,highest], got {list(value)}")
        if not 0.25 <= self.speed[0] <= self.speed[1] <= 4:
            raise ValueError(f"data.speed must lie between 0.25 and 4, got {list(self.speed)}")
        if self.seconds <= 0 or self.valid_seconds < 0 or not 0 < self.valid_share < 1:
            raise ValueError("expected data.seconds > 0, data.valid_seconds >= 0 and data.valid_share between 0 and 1")
        if not 1 <= self.channels <= 64:
            raise ValueError(f"expected data.channels from 1 to 64, got {self.channels}")
        if self.balanced and not self.labels:
            raise ValueError("data.balanced=true needs data.labels=[NAME,...]")
        if not 0 <= self.drop_words < 1 or (self.drop_words and not self.captions):
            raise ValueError("expected data.drop_words from 0 to below 1, and 0 without data.captions=[COLUMN,...]")

    def clips(self) -> tuple[Sequence[Clip], Sequence[Clip]]:
        """(training, validation). Raises InputError when one of them would be empty, or for a label without a name."""
        if not self.root:
            raise InputError("expected a folder of recordings, got none; set data.root=PATH")
        packed = streams(self.root, self.valid_root, clip_of, self.window)
        if packed is not None:
            own = {name: getattr(self, name) for name in ("extra", "without_licence", "balanced")}
            require_in_place(self.root, **own)
            return packed
        train = find_clips(self.root, "train", self.layout, self.valid_share)
        train += [clip for place in self.extra for clip in find_clips(place, "train")]
        valid = find_clips(self.valid_root or self.root, "valid", self.layout, self.valid_share)
        return self._usable(train, "train"), self._usable(valid, "valid")

    def _usable(self, found: list[Clip], split: str) -> list[Clip]:
        """The clips whose licence may be used, each file once where it has captions."""
        word = self.without_licence
        found = [clip for clip in found if not word or word not in str(clip.facts.get("licence", ""))]
        if not found:
            raise InputError(f"{self.root}: no clip for {split!r} is left without the licence {word!r}")
        if self.captions:
            found = joined(found)
        for clip in found:
            label_index(clip, self.labels)
            if self.captions:
                captions_of(clip, self.captions)
        return found

    def sources(self) -> dict[str, list[Path]]:
        """The files of both sets."""
        train, valid = self.clips()
        return {"train clips": files_of(train, _path), "valid clips": files_of(valid, _path)}

    def speakers(self) -> dict[Path, str]:
        """Whose voice each file holds."""
        return {clip.path: clip.speaker for found in self.clips() for clip in few(found)}

    def train(self, seed: int) -> "ClipSet":
        """Endless items for training."""
        return ClipSet(self, self.clips()[0], seed)

    def valid(self) -> "ClipSet":
        """The held-out clips, always the same; an even choice when there are too many."""
        found = self.clips()[1]
        count = min(self.valid_items or len(found), len(found))
        return ClipSet(self, [found[int(i)] for i in np.linspace(0, len(found) - 1, count).round()], None)


def _path(clip: Clip) -> Path:
    return clip.path


def label_index(clip: Clip, labels: tuple[str, ...]) -> int:
    """The number of a clip's class, -1 when there are no classes. Raises InputError that lists the choices."""
    if not labels:
        return -1
    if clip.label in labels:
        return labels.index(clip.label)
    if clip.label.isdecimal() and int(clip.label) < len(labels):
        return int(clip.label)
    raise InputError(
        f"{clip.path}: its label is {clip.label!r}; expected one of data.labels: {', '.join(labels)} "
        f"(or a number below {len(labels)})"
    )


class ClipSet(Dataset[dict[str, Tensor]]):
    """Item k: {"clean": `c n` float32, "label": int64, "band_hz": float32, "duration": float32}, with captions also
    "text"; seed None gives clip k as it is, with its first caption.

    band_hz: up to where a clip of a lower rate (or played slower) holds sound, infinity for the others. duration:
    seconds of it before the silence that fills a short one.
    """

    def __init__(self, config: Clips, found: Sequence[Clip], seed: int | None) -> None:
        self.config, self.found, self.seed = config, found, seed
        seconds = (config.valid_seconds or config.seconds) if seed is None else config.seconds
        self.n = round(seconds * config.sample_rate)
        labels = [label_index(clip, config.labels) for clip in found] if config.balanced else []
        self.groups: list[Sequence[int]] = [
            [i for i, label in enumerate(labels) if label == c] for c in sorted(set(labels))
        ] or [range(len(found))]
        self._kept: dict[int, tuple[Wave, int]] = {}
        self._room = config.cache_mb * 2**20

    def __len__(self) -> int:
        return len(self.found) if self.seed is None else 2**62

    def __getitem__(self, k: int) -> dict[str, Tensor]:
        index = k if self.seed is None else self.chosen(k)
        clip = self.found[index]
        wave, rate = self.decoded(index, clip)
        speed, text = 1.0, ""
        captions = captions_of(clip, self.config.captions) if self.config.captions else ("",)
        if self.seed is None:
            item, text = self._cut(wave, 0.5), captions[0]
        else:
            draw = np.random.default_rng([self.seed, 1, k])
            speed = round(float(draw.uniform(self.config.speed[0], self.config.speed[1])), 2)
            item = self._moved(wave, speed, float(draw.random()))
            gain = draw.uniform(self.config.gain_db[0], self.config.gain_db[1])
            item = item * np.float32(10 ** (gain / 20))
            text = captions[int(draw.integers(len(captions)))]
            text = without_words(text, self.config.drop_words, draw) if self.config.drop_words else text
        label = torch.tensor(label_index(clip, self.config.labels), dtype=torch.int64)
        band = min(rate, self.config.sample_rate) * speed
        band = band / 2 if band < self.config.sample_rate else math.inf
        heard = self.n if self.config.fill == "repeat" else min(self.n, wave.shape[1] / speed)
        given = {"clean": torch.from_numpy(item), "label": label, "band_hz": torch.tensor(band)}
        given["duration"] = torch.tensor(heard / self.config.sample_rate)
        return given | ({"text": to_bytes(text)} if self.config.captions else {})

    def chosen(self, k: int) -> int:
        """Which clip item k of the training is; with `balanced` the classes take turns."""
        if isinstance(self.found, Stream):
            return self.found.chosen(self.seed or 0, k)
        group = self.groups[k % len(self.groups)]
        turn, place = divmod(k // len(self.groups), len(group))
        return group[int(_permutation(self.seed or 0, k % len(self.groups), turn, len(group))[place])]

    def decoded(self, index: int, clip: Clip) -> tuple[Wave, int]:
        """A whole clip at the rate and level of the model, float32, and the rate it was stored at."""
        if index in self._kept:
            return self._kept[index]
        with AudioReader(clip.path) as reader:
            wave = self._channels(reader.read(reader.frames))
            wave = resample(wave, reader.sample_rate, self.config.sample_rate)
        wave = np.asarray(wave * self._gain(wave), dtype=np.float32)
        if wave.nbytes <= self._room:
            self._room -= wave.nbytes
            self._kept[index] = wave, reader.sample_rate
        return wave, reader.sample_rate

    def _channels(self, wave: Float[np.ndarray, "k _"]) -> Wave:
        """The first so many channels, or the lone one as often. Raises InputError where some are missing."""
        wanted = self.config.channels
        if len(wave) == 1:
            return np.repeat(wave, wanted, axis=0)
        if len(wave) < wanted:
            raise InputError(f"expected clips of 1 or at least {wanted} channels, got {len(wave)}; set data.channels")
        return wave[:wanted]

    def _gain(self, wave: Wave) -> float:
        """One for all channels, by the loudest."""
        wave = wave[int(np.square(wave, dtype=np.float64).sum(1).argmax())]
        peak = float(np.abs(wave).max(initial=0))
        if self.config.level == "none" or peak < 1e-7:
            return 1.0
        frame = max(1, self.config.sample_rate // 50)
        now = {"peak": lambda: peak, "rms": lambda: rms(wave), "active": lambda: active_level(wave, frame)}
        return min(10 ** (self.config.level_db / 20) / now[self.config.level](), PEAK / peak)

    def _moved(self, wave: Wave, speed: float, place: float) -> Wave:
        """A crop at `place`, played faster by `speed`."""
        tempo = round(100 * speed)
        if tempo == 100:
            return self._cut(wave, place)
        need = -(-self.n * tempo // 100) + 2 * MARGIN
        wave = self._filled(wave, need)
        start = 0 if self.config.fixed else int(place * max(1, wave.shape[1] - need + 1))
        moved = resample(wave[:, start : start + need], 100 * tempo, 100 * 100)
        lead = min(MARGIN, max(0, moved.shape[1] - self.n)) if not self.config.fixed else 0
        return _fit(moved[:, lead:], self.n)

    def _cut(self, wave: Wave, place: float) -> Wave:
        wave = self._filled(wave, self.n)
        start = 0 if self.config.fixed else int(place * max(1, wave.shape[1] - self.n + 1))
        return _fit(wave[:, start:], self.n)

    def _filled(self, wave: Wave, need: int) -> Wave:
        """The wave, or itself again and again with cross-fades of JOIN seconds until it is long enough."""
        if self.config.fill == "silence" or wave.shape[1] >= need or wave.shape[1] == 0:
            return wave
        shared = min(round(JOIN * self.config.sample_rate), wave.shape[1] // 2)
        fade = np.sin(np.linspace(0, np.pi / 2, shared, dtype=np.float32)) if shared else np.ones(0, np.float32)
        whole = wave
        while whole.shape[1] < need:
            kept = whole.shape[1] - shared
            both = whole[:, kept:] * fade[::-1] + wave[:, :shared] * fade
            whole = np.concatenate([whole[:, :kept], both, wave[:, shared:]], axis=1)
        return whole


def _fit(wave: Wave, n: int) -> Wave:
    """Cut or filled with silence at the end, a copy."""
    return np.pad(wave[:, :n], ((0, 0), (0, max(0, n - wave.shape[1])))).astype(np.float32)


@lru_cache(maxsize=64)
def _permutation(seed: int, group: int, turn: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, 0, group, turn]).permutation(count)
