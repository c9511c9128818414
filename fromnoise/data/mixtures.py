"""Noisy speech made on the fly: clean recordings plus noise at a drawn signal-to-noise ratio.

    noisy = a (s + v 10^(-SNR/20) L(s) / rms(v)),     clean = a s,     SNR ~ U(snr_min, snr_max) in dB

L(s) is the active speech level: the RMS over the 20 ms frames within 35 dB of the loudest one, so that pauses do not
count. v is a recording, two of them, babble (several other speech files at equal level) or, each with its own chance,
one of these with its spectrum reshaped by a smooth random curve and its level moving slowly. Item k of a set is a
function of (seed, k) alone: workers, batches and restarts do not change it.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from fromnoise.data.audio import FORMATS, AudioReader
from fromnoise.data.layouts import Split, read_manifest
from fromnoise.frontends.resample import resample
from fromnoise.types import InputError

Wave = Float[np.ndarray, " n"]


@dataclass(frozen=True)
class Mixtures:
    """Where speech and noise lie (see `files`), and how they are mixed.

    root: relative places are looked for here. seconds: length of one item. snr_min, snr_max in dB. babble: share of
    items whose noise is made of other speech. shaping: share of noises with a reshaped spectrum (up to +-shaping_db)
    and a moving level. gain_db: items are turned down by up to this. valid_items: size of the validation set, which is
    the same in every epoch.
    """

    gives: ClassVar[tuple[str, ...]] = ("clean", "noisy")

    root: str = ""
    speech: tuple[str, ...] = ()
    noise: tuple[str, ...] = ()
    valid_speech: tuple[str, ...] = ()
    valid_noise: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    sample_rate: int = 16000
    seconds: float = 2.0
    valid_seconds: float = 4.0
    snr_min: float = -3.0
    snr_max: float = 18.0
    babble: float = 0.3
    shaping: float = 0.4
    shaping_db: float = 12.0
    gain_db: float = 12.0
    valid_items: int = 36

    def sources(self) -> dict[str, list[Path]]:
        """The files of each of the four sets. Raises InputError when one is missing or empty."""
        return {
            "train speech": self._files("speech", "train"),
            "train noise": self._files("noise", "train"),
            "valid speech": self._files("valid_speech", "valid"),
            "valid noise": self._files("valid_noise", "valid"),
        }

    def _files(self, name: str, split: Split) -> list[Path]:
        places = getattr(self, name)
        if not places:
            raise InputError(f"no {name} to mix; set data.{name}=[FOLDER,...]")
        return files([str(Path(self.root, place)) for place in places], self.exclude, split)

    def train(self, seed: int, items: int = 2**62) -> "MixtureSet":
        """Items for training; `items` of them, each different."""
        found = self.sources()
        return MixtureSet(self, found["train speech"], found["train noise"], self.seconds, seed, items)

    def valid(self) -> "MixtureSet":
        """Items for validation, always the same."""
        found = self.sources()
        speech, noise = found["valid speech"], found["valid noise"]
        return MixtureSet(self, speech, noise, self.valid_seconds, 2**31, self.valid_items)


def files(places: Sequence[str], exclude: Sequence[str] = (), split: Split = "train") -> list[Path]:
    """The sound files under `places`, in sorted order.

    A place is a folder, which is walked; a sound file; a `.txt` file with one path a line; a `.jsonl` manifest with one
    {"speech": path} a line; or a `.csv` table with a column `file`, of which the rows whose column `split` (if there is
    one) equals `split` count. Paths in lists start at the list's folder. exclude: glob patterns on the file name.
    Raises InputError when a place is missing or holds no sound.
    """
    found: list[Path] = []
    for place in map(Path, places):
        inside = _inside(place, split)
        if not inside:
            raise InputError(f"{place}: holds no sound files{_of(place, split)}; correct data.root or the data paths")
        found += [path for path in inside if not any(path.match(pattern) for pattern in exclude)]
    if not found:
        raise InputError(f"data.exclude={list(exclude)} leaves no sound file of {', '.join(map(str, places))}")
    return sorted(found)


def _inside(place: Path, split: Split) -> list[Path]:
    if place.is_dir():
        return [path for path in place.rglob("*") if path.suffix.lower() in FORMATS and path.name[0] != "."]
    if not place.is_file():
        raise InputError(f"{place}: no such folder, sound file or list; correct data.root or the data paths")
    if place.suffix == ".txt":
        lines = (line.strip() for line in place.read_text(encoding="utf-8").splitlines())
        return [place.parent / line for line in lines if line]
    if place.suffix == ".jsonl":
        return [line["speech"] for line in read_manifest(place, ("speech",))]
    if place.suffix == ".csv":
        with place.open(encoding="utf-8", newline="") as table:
            rows = list(csv.DictReader(table))
        if rows and "file" not in rows[0]:
            raise InputError(f"{place}: expected a column 'file', it has: {', '.join(rows[0])}")
        return [place.parent / row["file"] for row in rows if row.get("split", split) == split]
    return [place]


def _of(place: Path, split: Split) -> str:
    return f" of split {split!r}" if place.suffix == ".csv" else ""


class MixtureSet(Dataset[dict[str, Tensor]]):
    """Item k: {"clean": `1 n`, "noisy": `1 n`}, float32."""

    def __init__(
        self, config: Mixtures, speech: list[Path], noise: list[Path], seconds: float, seed: int, items: int
    ) -> None:
        self.config, self.speech, self.noise = config, speech, noise
        self.n, self.seed, self.items = round(seconds * config.sample_rate), seed, items

    def __len__(self) -> int:
        return self.items

    def __getitem__(self, k: int) -> dict[str, Tensor]:
        draw = np.random.default_rng([self.seed, k])
        clean = self._speech(draw)
        noise = self._noise(draw)
        snr = draw.uniform(self.config.snr_min, self.config.snr_max)
        clean, noisy = mix(clean, noise, snr)
        gain = 10 ** (-draw.uniform(0, self.config.gain_db) / 20) / max(1.0, np.abs(noisy).max())
        waves = {"clean": clean, "noisy": noisy}
        return {name: torch.from_numpy((gain * wave).astype(np.float32))[None] for name, wave in waves.items()}

    def _speech(self, draw: np.random.Generator) -> Wave:
        """A crop; short recordings are followed by another one. Crops that are nearly silent are drawn again."""
        wave = np.zeros(0)
        for _ in range(8):
            pieces, have = [], 0
            while have < self.n:
                path = self.speech[draw.integers(len(self.speech))]
                pieces.append(crop(path, self.n - have, self.config.sample_rate, draw))
                have += len(pieces[-1])
            wave = np.concatenate(pieces)
            if rms(wave) > 1e-3:
                break
        return wave

    def _noise(self, draw: np.random.Generator) -> Wave:
        if draw.random() < self.config.babble:
            voices = (self._speech(draw) for _ in range(draw.integers(3, 9)))
            noise = sum((v / (rms(v) + 1e-9) for v in voices), np.zeros(self.n))
        else:
            noise = np.zeros(self.n)
            for _ in range(1 + (draw.random() < 0.3)):
                one = self._recorded(draw)
                noise = noise + one / (rms(one) + 1e-9) * draw.uniform(0.3, 1.0)
        if draw.random() < self.config.shaping:
            noise = move_level(reshape_spectrum(noise, self.config.shaping_db, draw), self.config.sample_rate, draw)
        return noise

    def _recorded(self, draw: np.random.Generator) -> Wave:
        wave = crop(self.noise[draw.integers(len(self.noise))], self.n, self.config.sample_rate, draw)
        return np.resize(wave, self.n)  # a short noise goes round


def crop(path: Path, n: int, sample_rate: int, draw: np.random.Generator) -> Wave:
    """Up to n samples at `sample_rate` from a drawn place of a file, first channel; only that place is read."""
    with AudioReader(path) as reader:
        need = -(-n * reader.sample_rate // sample_rate)
        reader.seek(int(draw.integers(max(1, reader.frames - need + 1))))
        return resample(reader.read(need)[0], reader.sample_rate, sample_rate)[:n]


def rms(wave: Wave) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))


def active_level(wave: Wave, frame: int = 320, depth_db: float = 35.0) -> float:
    """RMS over the frames that lie within `depth_db` of the loudest."""
    count = max(1, len(wave) // frame)
    power = np.square(np.resize(wave, count * frame), dtype=np.float64).reshape(count, frame).mean(axis=1)
    return float(np.sqrt(power[power >= power.max() * 10 ** (-depth_db / 10)].mean()))


def mix(clean: Wave, noise: Wave, snr_db: float) -> tuple[Wave, Wave]:
    """(clean, clean + noise at that ratio of active speech level to noise RMS)."""
    level = rms(noise)
    scale = active_level(clean) / level * 10 ** (-snr_db / 20) if level > 0 else 0.0
    return clean, clean + scale * noise


def reshape_spectrum(wave: Wave, depth_db: float, draw: np.random.Generator) -> Wave:
    """The wave through a smooth random filter, piecewise linear in dB over eight bands."""
    spectrum = np.fft.rfft(wave)
    bands = np.linspace(0, 1, 8) ** 2
    curve = np.interp(np.linspace(0, 1, len(spectrum)), bands, draw.uniform(-depth_db, depth_db, 8))
    return np.fft.irfft(spectrum * 10 ** (curve / 20), len(wave))


def move_level(wave: Wave, sample_rate: int, draw: np.random.Generator) -> Wave:
    """The wave with a level that wanders by up to 6 dB either way, about four points a second."""
    points = max(2, round(4 * len(wave) / sample_rate))
    curve = np.interp(np.linspace(0, points - 1, len(wave)), np.arange(points), draw.uniform(-6, 6, points))
    return wave * 10 ** (curve / 20)
