"""Run models over pairs of recordings, score every result, and count what it cost.

A row of the report is one model with one sampler and one number of steps; the first row is what the others are compared
with: the input itself, as the model "noisy", or a model given for this (a vocoder's input has no sound). How rows and
pairs are gone through, with which seeds, and how cost is counted, says `trial`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from fromnoise.data.layouts import SUFFIXES, Pair, Pairs, find_pairs
from fromnoise.evaluation.fingerprints import fingerprint
from fromnoise.evaluation.rows import Example, Meta
from fromnoise.evaluation.speech import DEFAULT_METRICS, Scores, check_names, measure
from fromnoise.evaluation.trial import EXPECTED, Entry, Evaluation, Progress, Subject, Trial, item_seed, trimmed
from fromnoise.types import InputError

__all__ = [
    "EXPECTED",
    "INPUT",
    "Evaluation",
    "Model",
    "Progress",
    "Results",
    "evaluate",
    "find_pairs",
    "item_seed",
    "pair_trial",
]

INPUT = "noisy"  # the name of the row that scores the input itself
SLACK = 16  # samples by which lengths may differ before a file counts as misaligned: a codec's rounding, not a shift
Reader = Callable[[Path], tuple[np.ndarray, int]]


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
        found = self.files(pair)
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "none"
            raise InputError(f"expected one result for {pair.name} in {self.folder}, found {names}")
        return found[0]

    def files(self, pair: Pair) -> list[Path]:
        """All files that are there for a pair."""
        return self._found(pair.name) or (self._found(Path(pair.name).name) if self.flat else [])

    def _found(self, name: str) -> list[Path]:
        places = [self.folder / f"{name}{end}" for end in self.endings]
        return [f for f in (p.with_name(p.name + suffix) for p in places for suffix in SUFFIXES) if f.is_file()]


@dataclass(frozen=True)
class _Recording:
    """A pair in memory."""

    pair: Pair
    wave: np.ndarray  # c n, the noisy one
    clean: np.ndarray
    sample_rate: int


@dataclass(frozen=True)
class _PairSubject(Subject[Scores]):
    """Pairs of recordings; results: the folders whose files are judged; see `evaluate` for the rest."""

    pairs: Sequence[Pair]
    metrics: tuple[str, ...]
    reader: Reader
    baseline: Model | None
    slack: int
    groups: Mapping[str, tuple[str, ...]]
    facts: Mapping[str, Any]
    results: tuple[Results, ...]

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        return self.pairs[index].name

    def files(self, index: int) -> list[Path]:
        pair = self.pairs[index]
        return [pair.noisy, pair.clean, *(path for results in self.results for path in results.files(pair))]

    def load(self, index: int) -> _Recording:
        pair = self.pairs[index]
        noisy, rate = self.reader(pair.noisy)
        clean, clean_rate = self.reader(pair.clean)
        if rate != clean_rate:
            raise InputError(f"wrong rate: the noisy file has {rate} Hz, the clean one {clean_rate} Hz")
        return _Recording(pair, noisy, clean, rate)

    def call(self, item: _Recording, estimate: np.ndarray) -> tuple[Callable[..., Scores], tuple[Any, ...]]:
        return measure, (*trimmed(self.slack, item.clean, estimate), item.sample_rate, self.metrics)

    def lost(self, reason: str) -> Scores:
        return Scores(dict.fromkeys(self.metrics, math.nan), dict.fromkeys(self.metrics, reason))

    def example(self, item: _Recording, labels: Sequence[str], estimates: Sequence[np.ndarray | str]) -> Example:
        made = dict(zip(labels, estimates, strict=True))
        if self.baseline is None:
            del made[labels[0]]
        noisy = item.wave if self.baseline is None else None
        sounds = {label: wave for label, wave in made.items() if not isinstance(wave, str)}
        return Example(item.pair.name, item.sample_rate, noisy, item.clean, sounds)

    def meta(self, sample_rates: tuple[int, ...], seed: int) -> Meta:
        skipped = self.pairs.skipped if isinstance(self.pairs, Pairs) else ()
        files = fingerprint(self.pairs)
        return Meta(self.metrics, sample_rates, files, seed, dict(self.facts), skipped, self.groups)


def evaluate(
    models: Sequence[Model | Results],
    pairs: Sequence[Pair],
    *,
    jobs: int = 1,
    examples: int = 4,
    progress: Progress | None = None,
    **asked: Any,
) -> Evaluation:
    """Score the input and every model with every sampler and number of steps on every pair; `Results` once each.

    jobs: how many processes compute metrics while the models work (1: none, in turn). examples: how many files to keep
    for listening. progress: called with (done, total, what was done). The rest as `pair_trial`.

    With jobs > 1 the metrics run in fresh processes, which know only the METRICS of the package as it is on disk.
    """
    return pair_trial(models, pairs, **asked).run(jobs, examples, progress)


def pair_trial(
    models: Sequence[Model | Results],
    pairs: Sequence[Pair],
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    steps: Sequence[int | None] = (None,),
    samplers: Sequence[str | None] = (None,),
    seed: int = 0,
    reader: Reader | None = None,
    settings: Mapping[str, Any] | None = None,
    baseline: Model | None = None,
    slack: int = SLACK,
    groups: Mapping[str, tuple[str, ...]] | None = None,
) -> Trial[Scores]:
    """What `evaluate` does, before it is done.

    pairs: from `find_pairs`. metrics: names of METRICS. steps, samplers: None is the model's own choice. reader: path
    -> (float32 `c n`, rate in Hz), by default `fromnoise.data.audio.read`. settings: more facts for the report (device,
    version of a card, ...). baseline: in place of the input. slack: samples by which lengths may differ. groups: name
    -> pairs that get a table of their own.
    """
    names = check_names(metrics)
    if not pairs:
        raise ValueError("expected at least one pair of recordings, got none")
    reader = reader or _default_reader()
    entries = [Entry(INPUT, given=_untouched, factor=0.0) if baseline is None else Entry(baseline.name, (baseline,))]
    for model in models:
        if isinstance(model, Results):
            entries.append(Entry(model.name, given=partial(_read_result, model, reader)))
        else:
            entries += [Entry(model.name, (model,), sampler, count) for sampler, count in product(samplers, steps)]
    facts = {"models": [m.name for m in models], "samplers": list(samplers), "steps": list(steps), "slack": slack}
    results = tuple(model for model in models if isinstance(model, Results))
    facts |= dict(settings or {})
    subject = _PairSubject(pairs, names, reader, baseline, slack, groups or {}, facts, results)
    return Trial(subject, entries, seed)


def _default_reader() -> Reader:
    from fromnoise.data.audio import read  # here, because it needs libsndfile, and a reader may be given instead

    return read


def _untouched(recording: _Recording) -> np.ndarray:
    """The input itself."""
    return recording.wave


def _read_result(results: Results, reader: Reader, recording: _Recording) -> np.ndarray:
    """What another program made of a recording."""
    result, rate = reader(results.path_of(recording.pair))
    if rate != recording.sample_rate:
        raise InputError(f"wrong rate: the result has {rate} Hz, the recording {recording.sample_rate} Hz")
    return result
