"""What comes to a page and what goes from it: limits of what is taken, files that are made, steps that are told."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fromnoise.data.audio import AudioReader, AudioWriter, resample, resampled_length
from fromnoise.evaluation.plots import png, spectrogram_figure
from fromnoise.tasks.chunked import Chunking
from fromnoise.types import InputError

Tell = Callable[[int, int], object]
Number = int | float
SEGMENT = 30.0  # seconds that are worked on at a time, as on the command line


@dataclass(frozen=True)
class Limits:
    """What a page takes: seconds of sound and megabytes (10^6 bytes) of a file."""

    seconds: Number = 120.0
    megabytes: Number = 50.0

    def __post_init__(self) -> None:
        if not (self.seconds > 0 and self.megabytes > 0):
            raise InputError(f"limits must be above 0, got {self.seconds} seconds and {self.megabytes} megabytes")

    def given_file(self, sound: str | Path | None) -> Path:
        """The file that was dropped. Raises InputError for none, which is also what becomes of too long a recording."""
        if not sound:
            most = f"{self.seconds:g} s and {self.megabytes:g} MB"
            raise InputError(f"there is no sound yet; drop a file or record one, of up to {most}")
        path = Path(sound)
        if not path.is_file():
            raise InputError(f"{path.name}: no such file; upload it again")
        return path

    def check_size(self, path: Path) -> None:
        """Raises InputError for a file that is too large."""
        size = path.stat().st_size / 1e6
        if size > self.megabytes:
            raise InputError(f"{path}: has {size:.1f} MB; this page takes up to {self.megabytes:g} MB")

    def check_seconds(self, seconds: Number, what: str) -> None:
        """Raises InputError for a sound that is too long."""
        if seconds > self.seconds:
            raise InputError(
                f"{what}: {seconds:.1f} s is too long; this page takes up to {self.seconds:g} s. Cut it, or use the "
                "command line, which has no limit"
            )


@dataclass(frozen=True)
class Result:
    """files: what was made, titles: what each is called. picture: spectrograms on one scale. notes: warnings."""

    files: tuple[Path, ...]
    titles: tuple[str, ...]
    picture: Path
    command: str
    python: str
    notes: tuple[str, ...] = ()


class Meter:
    """A sampler's callback that counts the steps of `runs` runs together."""

    def __init__(self, tell: Tell | None, runs: int) -> None:
        self._tell, self._runs, self._done = tell, runs, 0

    def __call__(self, i: int, n: int, _: Any) -> None:
        if self._tell is not None:
            self._tell(min(self._done + i + 1, self._runs * n), self._runs * n)
        if i + 1 == n:
            self._done += n


def whole(value: Any, what: str, least: int, most: int) -> int:
    """A whole number within bounds; an empty field of a form is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or value % 1:
        raise InputError(f"{what} must be a whole number from {least} to {most}, got {value!r}")
    if not least <= value <= most:
        raise InputError(f"{what} must lie between {least} and {most}, got {int(value)}")
    return int(value)


def subtype_of(path: Path) -> str:
    """How a file stores its samples."""
    with AudioReader(path) as reader:
        return reader.info.subtype


def pieces(wave: np.ndarray, rate: int, ready: Any, overlap: float, options: Mapping[str, Any]) -> int:
    """How many pieces a recording is worked on in. overlap: seconds that neighbours share."""
    chunking = ready.chunking(SEGMENT, overlap, ready.network_calls(options["steps"], options["sampler"]))
    return Chunking(**chunking).count(resampled_length(wave.shape[1], rate, ready.sample_rate))


def resampled(wave: np.ndarray, rate: int, to: int) -> np.ndarray:
    """The wave at another rate."""
    return np.asarray(resample(wave, rate, to))


def write_alike(targets: Sequence[Path], waves: Sequence[np.ndarray], rate: int, subtype: str | None) -> None:
    """Waves `c n` as files; where one goes beyond full scale in a format that has one, all are scaled down alike."""
    with ExitStack() as stack:
        writers = [
            stack.enter_context(AudioWriter(target, rate, len(wave), subtype, "rescale"))
            for target, wave in zip(targets, waves, strict=True)
        ]
        for writer, wave in zip(writers, waves, strict=True):
            writer.write(np.ascontiguousarray(wave, dtype=np.float32))
        peak = max(writer.peak for writer in writers)
        for writer in writers:
            writer.peak = peak


def draw(target: Path, waves: Mapping[str, np.ndarray], rate: int) -> Path:
    """The spectrograms of the waves on one scale, beside the result."""
    path = target.with_suffix(".png")
    path.write_bytes(png(spectrogram_figure(waves, rate), dpi=80, transparent=False))
    return path
