"""Run models over pairs of recordings, score every result, and count what it cost.

A row of the report is one model with one sampler and one number of steps; the first row is what the others are compared
with: the input itself, as the model "noisy", or a model given for this (a vocoder's input has no sound). The seed that
a model receives for a file is drawn from (seed, name of the file), so that a file's result does not depend on the
others, on their order or on the row.

Real-time factor = seconds of work / seconds of sound, over all files but the first (which pays for warming up) when
there are several. A file that cannot be read or enhanced is NaN with a reason in its row, like one that a metric cannot
judge.
"""

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from fromnoise.data.layouts import SUFFIXES, Pair, Pairs, find_pairs
from fromnoise.evaluation.files import fingerprint
from fromnoise.evaluation.report import Example, Meta, Row
from fromnoise.evaluation.scoring import Scoring
from fromnoise.evaluation.speech import DEFAULT_METRICS, Scores, check_names, measure
from fromnoise.types import InputError

__all__ = ["INPUT", "Evaluation", "Model", "Results", "evaluate", "find_pairs", "item_seed"]

INPUT = "noisy"  # the name of the row that scores the input itself
SLACK = 16  # samples by which lengths may differ before a file counts as misaligned: a codec's rounding, not a shift
Progress = Callable[[int, int, str], None]
Reader = Callable[[Path], tuple[np.ndarray, int]]
EXPECTED = (ValueError, RuntimeError, OSError, ArithmeticError)  # what a bad file may raise; anything else is a bug


@runtime_checkable
class Model(Protocol):
    """What can be evaluated: a task of the toolkit, or anything with the same three members."""

    @property
    def name(self) -> str: ...

    def __call__(
        self, wave: np.ndarray, *, sample_rate: int, steps: int | None, sampler: str | None, seed: int
    ) -> np.ndarray: ...

    def network_calls(self, steps: int | None, sampler: str | None) -> int: ...


@dataclass(frozen=True)
class Results:
    """A folder of results made before, of anything: for the pair `room/a` the file `room/a` or `room/a_enhanced`.

    endings: what may stand behind the name. flat: where there is none, `a` in the folder itself.
    """

    name: str
    folder: Path
    endings: tuple[str, ...] = ("", "_enhanced")
    flat: bool = False

    def path_of(self, pair: Pair) -> Path:
        """The result for a pair. Raises InputError when there is none, or more than one."""
        found = self._found(pair.name) or (self._found(Path(pair.name).name) if self.flat else [])
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "none"
            raise InputError(f"expected one result for {pair.name} in {self.folder}, found {names}")
        return found[0]

    def _found(self, name: str) -> list[Path]:
        places = [self.folder / f"{name}{end}" for end in self.endings]
        return [f for f in (p.with_name(p.name + suffix) for p in places for suffix in SUFFIXES) if f.is_file()]


@dataclass(frozen=True)
class Evaluation:
    """What `write_report` takes: rows, examples to hear, and what was done."""

    rows: tuple[Row, ...]
    examples: tuple[Example, ...]
    meta: Meta


@dataclass(frozen=True)
class _Setup:
    """One row to be: how to call the model (None: the input), and the seconds that it worked, per file."""

    model: Model | Results | None
    sampler: str | None
    steps: int | None
    reader: Reader
    work: dict[int, float] = field(default_factory=dict)

    def run(self, index: int, pair: Pair, wave: np.ndarray, sample_rate: int, seed: int) -> np.ndarray:
        if self.model is None:
            return wave
        if isinstance(self.model, Results):
            result, rate = self.reader(self.model.path_of(pair))
            if rate != sample_rate:
                raise InputError(f"wrong rate: the result has {rate} Hz, the recording {sample_rate} Hz")
            return result
        started = time.perf_counter()
        result = self.model(wave, sample_rate=sample_rate, steps=self.steps, sampler=self.sampler, seed=seed)
        self.work[index] = time.perf_counter() - started
        return np.asarray(result)

    @property
    def calls(self) -> int:
        if self.model is None or isinstance(self.model, Results):
            return 0
        return self.model.network_calls(self.steps, self.sampler)

    def row(self, pairs: Sequence[Pair], scores: Sequence[Scores], seconds: Mapping[int, float]) -> Row:
        name = INPUT if self.model is None else self.model.name
        files = tuple(pair.name for pair in pairs)
        return Row(name, self.sampler, self.steps, self.calls, self.real_time_factor(seconds), files, tuple(scores))

    def real_time_factor(self, seconds: Mapping[int, float]) -> float:
        if self.model is None:
            return 0.0
        counted = sorted(self.work)[1:] or sorted(self.work)
        return sum(self.work[i] for i in counted) / sum(seconds[i] for i in counted) if counted else math.nan


def evaluate(
    models: Sequence[Model | Results],
    pairs: Sequence[Pair],
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    steps: Sequence[int | None] = (None,),
    samplers: Sequence[str | None] = (None,),
    seed: int = 0,
    jobs: int = 1,
    examples: int = 4,
    progress: Progress | None = None,
    reader: Reader | None = None,
    settings: Mapping[str, Any] | None = None,
    baseline: Model | None = None,
    slack: int = SLACK,
    groups: Mapping[str, tuple[str, ...]] | None = None,
) -> Evaluation:
    """Score the input and every model with every sampler and number of steps on every pair; `Results` once each.

    pairs: from `find_pairs`. metrics: names of METRICS. steps, samplers: None is the model's own choice. jobs: how many
    processes compute metrics while the models work (1: none, in turn). examples: how many files to keep for listening.
    progress: called with (done, total, what was done). reader: path -> (float32 `c n`, rate in Hz), by default
    `fromnoise.data.audio.read`. settings: more facts for the report (device, version of a card, ...). baseline: in
    place of the input. slack: samples by which lengths may differ. groups: name -> pairs that get a table of their own.

    With jobs > 1 the metrics run in fresh processes, which know only the METRICS of the package as it is on disk.
    """
    names = check_names(metrics)
    if not pairs:
        raise ValueError("expected at least one pair of recordings, got none")
    if jobs < 1 or examples < 0:
        raise ValueError(f"expected jobs >= 1 and examples >= 0, got {jobs} and {examples}")
    reader = reader or _default_reader()
    setups = [_Setup(baseline, None, None, reader)]
    for model in models:
        runs = [(None, None)] if isinstance(model, Results) else product(samplers, steps)
        setups += [_Setup(model, sampler, count, reader) for sampler, count in runs]
    # Asked once before any file: an unknown sampler or a wrong count of steps ends the run here, not in every file.
    labels = [setup.row((), (), {}).label for setup in setups]
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise ValueError(f"expected rows with different names, got {twice!r} twice; rename one of the models")
    listen = {round(i) for i in np.linspace(0, len(pairs) - 1, min(examples, len(pairs)))}
    seconds: dict[int, float] = {}
    rates: set[int] = set()
    kept: list[Example] = []
    with Scoring[Scores](jobs, partial(_without, names)) as scoring:
        for index, pair in enumerate(pairs):
            recording = _read_pair(pair, reader)
            estimates: dict[str, np.ndarray] = {}
            for r, setup in enumerate(setups):
                done = _apply(setup, index, pair, recording, seed)
                _score(scoring, (r, index), recording, done, names, slack)
                if isinstance(done, np.ndarray) and setup.model is not None:
                    estimates[labels[r]] = done
                if progress is not None:
                    progress(index * len(setups) + r + 1, len(pairs) * len(setups), f"{labels[r]}: {pair.name}")
            if isinstance(recording, _Recording):
                rates.add(recording.sample_rate)
                seconds[index] = recording.noisy.shape[1] / recording.sample_rate
                if index in listen:
                    noisy, clean = recording.noisy if baseline is None else None, recording.clean
                    kept.append(Example(pair.name, recording.sample_rate, noisy, clean, estimates))
        table = scoring.results()
    rows = tuple(setup.row(pairs, [table[r, i] for i in range(len(pairs))], seconds) for r, setup in enumerate(setups))
    facts = {"models": [m.name for m in models], "samplers": list(samplers), "steps": list(steps), "slack": slack}
    skipped = pairs.skipped if isinstance(pairs, Pairs) else ()
    meta = Meta(
        names, tuple(sorted(rates)), fingerprint(pairs), seed, facts | dict(settings or {}), skipped, groups or {}
    )
    return Evaluation(rows, tuple(kept), meta)


def item_seed(seed: int, name: str) -> int:
    """The seed of one file: 31 bits of SHA-256 over seed and name."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:4], "big") >> 1


@dataclass(frozen=True)
class _Recording:
    noisy: np.ndarray  # c n
    clean: np.ndarray
    sample_rate: int


def _default_reader() -> Reader:
    from fromnoise.data.audio import read  # here, because it needs libsndfile, and a reader may be given instead

    return read


def _read_pair(pair: Pair, read: Reader) -> _Recording | str:
    """Both recordings, or the reason why there are none."""
    try:
        noisy, rate = read(pair.noisy)
        clean, clean_rate = read(pair.clean)
    except EXPECTED as error:
        return str(error)
    if rate != clean_rate:
        return f"wrong rate: the noisy file has {rate} Hz, the clean one {clean_rate} Hz"
    return _Recording(noisy, clean, rate)


def _apply(setup: _Setup, index: int, pair: Pair, recording: _Recording | str, seed: int) -> np.ndarray | str:
    """The estimate of one file, or the reason why there is none."""
    if isinstance(recording, str):
        return recording
    try:
        return setup.run(index, pair, recording.noisy, recording.sample_rate, item_seed(seed, pair.name))
    except EXPECTED as error:
        return f"the model failed: {type(error).__name__}: {error}"


def _without(names: tuple[str, ...], reason: str) -> Scores:
    """No number at all, and why."""
    return Scores(dict.fromkeys(names, math.nan), dict.fromkeys(names, reason))


def _score(
    scoring: Scoring[Scores],
    key: tuple[int, int],
    recording: _Recording | str,
    estimate: np.ndarray | str,
    names: tuple[str, ...],
    slack: int,
) -> None:
    """Have one file scored, or note why it cannot be."""
    if isinstance(recording, str) or isinstance(estimate, str):
        reason = recording if isinstance(recording, str) else str(estimate)
        scoring.put(key, scoring.lost(reason))
        return
    clean, heard = _trimmed(recording.clean, estimate, slack)
    scoring.add(key, measure, clean, heard, recording.sample_rate, names)


def _trimmed(clean: np.ndarray, estimate: np.ndarray, slack: int) -> tuple[np.ndarray, np.ndarray]:
    """Both to the shorter length when they differ by a few samples only; else as they are, and `measure` refuses."""
    n, m = clean.shape[-1], estimate.shape[-1]
    if n == m or abs(n - m) > slack:
        return clean, estimate
    return clean[..., : min(n, m)], estimate[..., : min(n, m)]
