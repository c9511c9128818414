"""A look at the data before the first step: what is there, and what would spoil hours of training.

Every file's header is read (an even choice of MAX_OPENED of each set when there are more) and the level of a few. What
makes training impossible is an InputError. What makes it doubtful is a warning: rates other than the model's, files
much shorter than an item, silence, files without a partner, speakers in training and validation alike (of single
clips, which may be all of one voice, only files).
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from fromnoise.data.audio import AudioInfo, AudioReader, info
from fromnoise.data.clips import Clips
from fromnoise.data.layouts import Pair, speaker_of
from fromnoise.data.separated import Separated
from fromnoise.data.streaming import few
from fromnoise.data.timeline import Mixture
from fromnoise.data.voices import Voices
from fromnoise.types import InputError

MAX_OPENED = 2000
MAX_LISTENED = 24
SILENCE = 1e-4  # RMS of the first seconds, -80 dB


@runtime_checkable
class DataConfig(Protocol):
    """What a recipe's `data` is: a frozen dataclass that makes the two sets of items; `gives`: what each item holds."""

    @property
    def gives(self) -> tuple[str, ...]: ...
    @property
    def sample_rate(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    def sources(self) -> dict[str, list[Path]]: ...
    def train(self, seed: int) -> Any: ...
    def valid(self) -> Any: ...


@dataclass(frozen=True)
class SetReport:
    """One set of files. seconds: total, estimated when not all were opened; shortest and longest in seconds."""

    name: str
    files: int
    opened: int
    seconds: float
    shortest: float
    longest: float
    rates: tuple[int, ...]
    speakers: int


@dataclass(frozen=True)
class DataReport:
    """One line a set, and what is doubtful, in sentences."""

    sets: tuple[SetReport, ...]
    warnings: tuple[str, ...]


def check(data: DataConfig) -> DataReport:
    """Look at the files of `data`. Raises InputError when nothing can be trained or validated with them."""
    sources = data.sources()
    if len(data.valid()) == 0:
        raise InputError("no batches to validate on: data.valid_items must be at least 1")
    headers = {name: _headers(paths) for name, paths in sources.items()}
    voices = data.speakers() if isinstance(data, Clips | Voices) else {}
    reports = tuple(_report(name, sources[name], headers[name], voices) for name in sources)
    warnings = [warning for name in sources for warning in _doubts(name, headers[name], data)]
    warnings += _shared(sources, voices)
    if isinstance(data, Separated):
        warnings += [doubt for found in data.mixtures() for doubt in _unequal(few(found))]
    pairs = getattr(data, "pairs", None)
    if pairs is not None:
        for found in pairs():
            warnings += _unpaired(getattr(found, "skipped", ()))
            _require_equal_lengths(few(found))
    return DataReport(reports, tuple(warnings))


def _even(paths: Sequence[Any], count: int) -> list[Any]:
    """An even choice of at most `count`."""
    return [paths[int(i)] for i in np.linspace(0, len(paths) - 1, min(count, len(paths))).round()]


def _headers(paths: Sequence[Path]) -> list[AudioInfo]:
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(info, _even(paths, MAX_OPENED)))


def _report(name: str, paths: Sequence[Path], headers: Sequence[AudioInfo], voices: Mapping[Path, str]) -> SetReport:
    lengths = [header.seconds for header in headers]
    count = getattr(paths, "total", len(paths))
    total = sum(lengths) * count / len(headers)
    rates = tuple(sorted({header.sample_rate for header in headers}))
    speakers = 0 if "noise" in name else len({voices.get(path) or speaker_of(path) for path in paths})
    return SetReport(name, count, len(headers), total, min(lengths), max(lengths), rates, speakers)


def _doubts(name: str, headers: Sequence[AudioInfo], data: DataConfig) -> list[str]:
    found = []
    other = [header for header in headers if header.sample_rate != data.sample_rate]
    lower = [header for header in other if header.sample_rate < data.sample_rate]
    if other:
        kind = f", {len(lower)} of them lack the upper band" if lower else ""
        found.append(f"{name}: {len(other)} files are resampled to {data.sample_rate} Hz{kind} ({_names(other)})")
    short = [header for header in headers if header.seconds < data.seconds / 4]
    if short:
        found.append(f"{name}: {len(short)} files are shorter than a quarter of data.seconds ({_names(short)})")
    cut = [header for header in headers if isinstance(data, Clips) and data.fixed and header.seconds > data.seconds]
    if cut:
        found.append(f"{name}: {len(cut)} files are longer than data.seconds and are cut at the end ({_names(cut)})")
    silent = [header for header in _even(headers, MAX_LISTENED) if _level(header.path) < SILENCE]
    if silent:
        found.append(f"{name}: {len(silent)} files begin with silence ({_names(silent)})")
    return found


def _names(headers: Sequence[AudioInfo]) -> str:
    return ", ".join(header.path.name for header in headers[:3]) + (", ..." if len(headers) > 3 else "")


def _level(path: Path) -> float:
    """RMS of the first ten seconds."""
    with AudioReader(path) as reader:
        wave = reader.read(10 * reader.sample_rate)
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))


def _shared(sources: Mapping[str, Sequence[Path]], speakers: Mapping[Path, str]) -> list[str]:
    """Files and speakers on both sides."""
    found = []
    for kind in {name.split(" ", 1)[1] for name in sources}:
        train, valid = sources[f"train {kind}"], sources[f"valid {kind}"]
        same = sorted({path.resolve() for path in train} & {path.resolve() for path in valid})
        if same:
            found.append(f"{kind}: {len(same)} files are in training and in validation ({same[0].name})")
        elif kind not in ("noise", "clips"):
            train, valid = ({speakers.get(path) or speaker_of(path) for path in side} for side in (train, valid))
            voices = sorted(train & valid)
            if voices:
                names = ", ".join(voices[:5]) + (", ..." if len(voices) > 5 else "")
                found.append(f"{kind}: {len(voices)} speakers are in training and in validation ({names})")
    return sorted(found)


def _unequal(mixtures: Sequence[Mixture]) -> list[str]:
    """Mixtures whose sources should be of one length and are not."""
    even = [one for one in _even(mixtures, MAX_OPENED) if one.span_s is None and not any(p.offset_s for p in one.parts)]
    found = []
    for one in even:
        seconds = [info(path).seconds for path in one.files()]
        if max(seconds) - min(seconds) > 0.01:
            found.append(one.name)
    names = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
    return [f"{len(found)} mixtures have sources of unequal length, filled with silence ({names})"] if found else []


def _unpaired(skipped: Sequence[str]) -> list[str]:
    rest = len(skipped) - 3
    return [*skipped[:3], *([f"... and {rest} more files without a partner"] if rest > 0 else [])]


def _require_equal_lengths(pairs: Sequence[Pair]) -> None:
    """Raises InputError for the first pair whose halves differ in rate or by more than 10 ms."""
    for pair in _even(pairs, MAX_OPENED):
        clean, noisy = info(pair.clean), info(pair.noisy)
        if clean.sample_rate != noisy.sample_rate or abs(clean.seconds - noisy.seconds) > 0.01:
            raise InputError(
                f"{pair.noisy}: expected the length and rate of its clean partner ({clean.frames} samples at "
                f"{clean.sample_rate} Hz), got {noisy.frames} at {noisy.sample_rate} Hz; remove or repair the pair"
            )
