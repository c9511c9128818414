"""Dynamic mixing: mixtures made on the fly from recordings of single speakers, never the same one twice.

    s_k = 10^(g_k/20) w_k / rms(w_k),    w_k[m] = v_k(speed_k m),    g_k ~ U(-level_db, level_db)

The speakers of a mixture are different ones, drawn in proportion to the seconds there are of each, up to a cap. v_k is
a crop of one of the speaker's recordings, followed by others of theirs where it is too short; speed changes tempo and
pitch together. Some sources begin late, so that the sources overlap only in part. Item k of a set is a function of
(seed, k) alone.
"""

import csv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from fromnoise.data.audio import AudioReader, info
from fromnoise.data.layouts import Split, speaker_of
from fromnoise.data.mixtures import files, rms
from fromnoise.frontends.resample import resample
from fromnoise.types import InputError

Wave = Float[np.ndarray, " n"]
LEVEL = 0.05  # RMS of a source at 0 dB: -26 dB below full scale
PEAK = 0.99  # no mixture is louder than this
FAINT = 1e-3  # RMS below which a crop is drawn again


@dataclass(frozen=True)
class Voices:
    """Where single speakers were recorded, and how they are mixed.

    root: relative places are looked for here. speech, valid_speech: places as in `mixtures.files`; whose voice a file
    holds says a table's column `speaker`, or the first folder on the way to it, or its name (see `speaker_of`). voices:
    how many speak. seconds: length of one item. level_db: how far each may be above or below the common level. speed:
    lowest and highest factor on tempo and pitch. late, late_s: share of sources that begin late, and by how much at
    most. speaker_seconds: the cap on a speaker's weight, 0 for all speakers equally often. Validation items have the
    same levels but their own speed, no late sources, and are the same in every epoch.
    """

    gives: ClassVar[tuple[str, ...]] = ("sources",)

    root: str = ""
    speech: tuple[str, ...] = ()
    valid_speech: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    voices: int = 2
    sample_rate: int = 8000
    seconds: float = 4.0
    valid_seconds: float = 4.0
    level_db: float = 2.5
    speed: tuple[float, ...] = (0.85, 1.18)
    late: float = 0.0
    late_s: float = 1.0
    speaker_seconds: float = 20.0
    valid_items: int = 40

    def __post_init__(self) -> None:
        if len(self.speed) != 2 or not 0.25 <= self.speed[0] <= self.speed[1] <= 4:
            raise ValueError(f"data.speed must be [lowest,highest] between 0.25 and 4, got {list(self.speed)}")
        if self.voices < 2 or self.seconds <= 0 or self.valid_seconds <= 0 or self.level_db < 0:
            raise ValueError("expected data.voices of at least 2, seconds above 0 and level_db of at least 0")
        if not 0 <= self.late <= 1 or (self.late and not 0 <= self.late_s < self.seconds) or self.speaker_seconds < 0:
            raise ValueError("expected data.late from 0 to 1, late_s below seconds and speaker_seconds of at least 0")

    def sources(self) -> dict[str, list[Path]]:
        """The files of both sets. Raises InputError when one is missing or empty."""
        return {
            f"{split} speech": [path for paths in self._voices(split).values() for path in paths]
            for split in ("train", "valid")
        }

    def speakers(self) -> dict[Path, str]:
        """Whose voice each file holds."""
        both = [*self._voices("train").items(), *self._voices("valid").items()]
        return {path: name for name, paths in both for path in paths}

    def train(self, seed: int) -> "VoiceSet":
        """Endless items for training."""
        return VoiceSet(self, self._voices("train"), seed, False)

    def valid(self) -> "VoiceSet":
        """Items for validation, always the same."""
        return VoiceSet(self, self._voices("valid"), 2**31, True)

    def _voices(self, split: Split) -> dict[str, list[Path]]:
        """Speaker -> files."""
        name = "speech" if split == "train" else "valid_speech"
        places = getattr(self, name)
        if not places:
            raise InputError(f"no {name} to mix; set data.{name}=[FOLDER,...]")
        found: dict[str, list[Path]] = {}
        for place in places:
            for path, speaker in _speakers(Path(self.root, place), self.exclude, split):
                found.setdefault(speaker, []).append(path)
        if len(found) < self.voices:
            raise InputError(
                f"data.{name}: expected at least {self.voices} speakers, got {len(found)} ({', '.join(found)}); "
                "add recordings of others"
            )
        return dict(sorted(found.items()))


def _speakers(place: Path, exclude: tuple[str, ...], split: Split) -> list[tuple[Path, str]]:
    """The files of a place and whose voice each holds."""
    named: dict[Path, str] = {}
    if place.suffix == ".csv" and place.is_file():
        with place.open(encoding="utf-8-sig", newline="") as table:
            named = {place.parent / (row.get("file") or ""): row.get("speaker") or "" for row in csv.DictReader(table)}
    return [(path, named.get(path) or _speaker(place, path)) for path in files([str(place)], exclude, split)]


def _speaker(place: Path, path: Path) -> str:
    inside = path.relative_to(place).parts[:-1] if place.is_dir() else ()
    return inside[0] if inside else speaker_of(path)


class VoiceSet(Dataset[dict[str, Tensor]]):
    """Item k: {"sources": `K n`}, float32."""

    def __init__(self, config: Voices, speakers: dict[str, list[Path]], seed: int, fixed: bool) -> None:
        self.config, self.speakers, self.seed, self.fixed = config, list(speakers.values()), seed, fixed
        self.n = round((config.valid_seconds if fixed else config.seconds) * config.sample_rate)
        self.chance = self._chances()

    def _chances(self) -> Float[np.ndarray, " s"]:
        """How often each speaker is drawn."""
        cap = self.config.speaker_seconds
        if cap == 0:
            return np.full(len(self.speakers), 1 / len(self.speakers))
        with ThreadPoolExecutor(4) as pool:
            seconds = [sum(one.seconds for one in pool.map(info, paths)) for paths in self.speakers]
        weights = np.minimum(seconds, cap)
        return weights / weights.sum()

    def __len__(self) -> int:
        return self.config.valid_items if self.fixed else 2**62

    def __getitem__(self, k: int) -> dict[str, Tensor]:
        draw, c = np.random.default_rng([self.seed, k]), self.config
        who = draw.choice(len(self.speakers), c.voices, replace=False, p=self.chance)
        waves = np.stack([self._source(self.speakers[i], draw) for i in who])
        peak = np.abs(waves.sum(axis=0)).max()
        return {"sources": torch.from_numpy((waves * min(1.0, PEAK / max(peak, PEAK))).astype(np.float32))}

    def _source(self, paths: list[Path], draw: np.random.Generator) -> Wave:
        """One speaker at a drawn level, perhaps late."""
        c = self.config
        wave = self._voice(paths, draw)
        gain = LEVEL * 10 ** (draw.uniform(-c.level_db, c.level_db) / 20)
        late = draw.random() < c.late and not self.fixed
        start = round(draw.uniform(0, c.late_s) * c.sample_rate) if late else 0
        wave = gain * wave / max(rms(wave), FAINT)
        return np.concatenate([np.zeros(start), wave[: self.n - start]])

    def _voice(self, paths: list[Path], draw: np.random.Generator) -> Wave:
        """A crop at a drawn speed. Crops that are nearly silent are drawn again."""
        low, high = self.config.speed
        speed = 1.0 if self.fixed else round(draw.uniform(low, high), 2)
        wave = np.zeros(self.n)
        for _ in range(8):
            pieces, have = [], 0
            while have < self.n:
                path = paths[draw.integers(len(paths))]
                pieces.append(_crop(path, self.n - have, self.config.sample_rate, speed, draw))
                have += len(pieces[-1])
            wave = np.concatenate(pieces)
            if rms(wave) > FAINT:
                break
        return wave


def _crop(path: Path, n: int, sample_rate: int, speed: float, draw: np.random.Generator) -> Wave:
    """Up to n samples at `sample_rate`, played `speed` times as fast, from a drawn place; only that place is read."""
    with AudioReader(path) as reader:
        played = round(reader.sample_rate * speed)
        need = -(-n * played // sample_rate)
        reader.seek(int(draw.integers(max(1, reader.frames - need + 1))))
        return resample(reader.read(need)[0], played, sample_rate)[:n]
