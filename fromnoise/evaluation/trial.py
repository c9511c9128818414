"""Every row on every item: what the evaluations of enhancers and vocoders (`run`) and of separators share.

    item     a pair of recordings, or a mixture and its sources
    row      one model with one sampler and one number of steps, or what the models are compared with
    found    what came of one item: the scores of every row, and what they cost (see `found`)

`Trial.run` does all items in turn. Elsewhere, a worker does `Trial.find` for one item after the other, and
`Trial.evaluation` makes of all that was found what `run` would have made.

The seed that a model receives for an item is drawn from (seed, name of the item), so that an item's result does not
depend on the others, on their order or on the row.

Real-time factor = seconds of work / seconds of sound, over all items but the first of each copy of the model (which
pays for warming up), if there are others. An item that cannot be read, worked on or judged is NaN with a reason.
"""

import dataclasses
import hashlib
import math
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

import numpy as np

from fromnoise.evaluation.found import Cost, Found, S, restored
from fromnoise.evaluation.rows import Example, Meta, Row
from fromnoise.evaluation.scoring import Scoring
from fromnoise.evaluation.speech import Scores
from fromnoise.types import InputError

if TYPE_CHECKING:
    from fromnoise.evaluation.kept import Kept, Trace

Progress = Callable[[int, int, str], None]
EXPECTED = (ValueError, RuntimeError, OSError, ArithmeticError)  # what a bad file may raise; anything else is a bug


@dataclass(frozen=True)
class Evaluation:
    """What `write_report` takes: rows, examples to hear, and what was done."""

    rows: tuple[Row, ...]
    examples: tuple[Example, ...]
    meta: Meta


class Subject(ABC, Generic[S]):
    """The items, and what is particular to their kind. An item in memory has `wave` (time last) and `sample_rate`."""

    @abstractmethod
    def __len__(self) -> int:
        """How many items there are."""

    @abstractmethod
    def name(self, index: int) -> str:
        """What an item is called."""

    @abstractmethod
    def files(self, index: int) -> list[Path]:
        """All files that decide an item's scores; the first stands for it where one has to."""

    @abstractmethod
    def load(self, index: int) -> Any:
        """An item in memory; raises one of EXPECTED where that cannot be."""

    @abstractmethod
    def call(self, item: Any, estimate: np.ndarray) -> tuple[Callable[..., S], tuple[Any, ...]]:
        """A function, which any process can be told by name, and arguments: what scores an estimate."""

    @abstractmethod
    def lost(self, reason: str) -> S:
        """No number at all, and why."""

    @abstractmethod
    def example(self, item: Any, labels: Sequence[str], estimates: Sequence[np.ndarray | str]) -> Example:
        """What there is to hear of an item."""

    @abstractmethod
    def meta(self, sample_rates: tuple[int, ...], seed: int) -> Meta:
        """What the report says of the run."""


@dataclass(frozen=True)
class Entry:
    """One row to be. copies: of the model, one a device; given: in place of a model, the result for an item.

    factor: the real-time factor where no model works.
    """

    name: str
    copies: Sequence[Any] = ()
    sampler: str | None = None
    steps: int | None = None
    given: Callable[[Any], np.ndarray] | None = None
    factor: float = math.nan
    warm: set[int] = field(default_factory=set)

    @property
    def calls(self) -> int:
        """Of the network, for one item. Raises for a setting that the model does not know."""
        return self.copies[0].network_calls(self.steps, self.sampler) if self.copies else 0

    def work(self, item: Any, lane: int, seed: int, trace: "Trace | None") -> tuple[np.ndarray, Cost | None]:
        """The estimate for an item, and what it cost; `trace` is shown the states on the way."""
        if self.given is not None:
            return self.given(item), None
        place = lane % len(self.copies)
        settings = {"sample_rate": item.sample_rate, "steps": self.steps, "sampler": self.sampler, "seed": seed}
        begun = time.perf_counter()
        traced = None if trace is None else trace.separate(self.copies[place], item.wave, **settings)
        made = np.asarray(self.copies[place](item.wave, **settings) if traced is None else traced)
        cost = Cost(time.perf_counter() - begun, place not in self.warm)
        self.warm.add(place)
        return made, cost

    def row(self, files: Sequence[str] = (), scores: Sequence[Scores] = (), factor: float = math.nan) -> Row:
        """The row of the report."""
        return Row(self.name, self.sampler, self.steps, self.calls, factor, tuple(files), tuple(scores))


@dataclass(frozen=True)
class _Tried:
    """One item in memory, or the reason why it is not; estimates or reasons row by row, and states where traced."""

    index: int
    item: Any
    estimates: list[np.ndarray | str] = field(default_factory=list)
    costs: list[Cost | None] = field(default_factory=list)
    traces: "dict[int, Trace]" = field(default_factory=dict)


class Trial(Generic[S]):
    """All rows on all items. lanes: how many items are worked on at once, each by a copy of the models of its own."""

    def __init__(
        self, subject: Subject[S], entries: Sequence[Entry], seed: int, kept: "Kept | None" = None, lanes: int = 1
    ) -> None:
        self.subject, self.entries, self.seed, self.kept, self.lanes = subject, entries, seed, kept, lanes
        # Asked once before any file: an unknown sampler or a wrong count of steps ends the run here, not in every file.
        self.labels = [entry.row().label for entry in entries]
        twice = next((label for label in self.labels if self.labels.count(label) > 1), None)
        if twice is not None:
            raise InputError(f"expected rows with different names, got {twice!r} twice; rename one of the models")

    def run(self, jobs: int = 1, examples: int = 4, progress: Progress | None = None) -> Evaluation:
        """All items in turn; `jobs` processes compute scores meanwhile. examples: how many to keep for listening."""
        if jobs < 1 or examples < 0:
            raise ValueError(f"expected jobs >= 1 and examples >= 0, got {jobs} and {examples}")
        count, listen = len(self.subject), self._listened(examples)
        told = _Told(count * len(self.entries), progress)
        found: list[Found[S]] = []
        heard: list[Example] = []
        with Scoring[S](jobs, self.subject.lost) as scoring:
            for tried in _in_lanes(count, self.lanes, partial(self._try, tell=told.tell)):
                found.append(self._score(tried, scoring))
                if tried.index in listen:
                    heard += self._heard(tried)
            table = scoring.results()
        rows = range(len(self.entries))
        found = [dataclasses.replace(one, scores=tuple(table[r, i] for r in rows)) for i, one in enumerate(found)]
        return self.evaluation(found, heard)

    def find(self, index: int) -> Found[S]:
        """All rows on one item."""
        with Scoring[S](1, self.subject.lost) as scoring:
            found = self._score(self._try(index, 0), scoring)
            table = scoring.results()
        return dataclasses.replace(found, scores=tuple(table[r, index] for r in range(len(self.entries))))

    def restored(self, plain: Mapping[str, Any]) -> Found[S]:
        """What another process found, from `Found.plain`."""
        return restored(plain, type(self.subject.lost("")))

    def missed(self, index: int, reason: str) -> Found[S]:
        """An item of which nothing came."""
        rows = len(self.entries)
        return Found(self.subject.name(index), None, None, (None,) * rows, (self.subject.lost(reason),) * rows)

    def examples(self, count: int) -> list[Example]:
        """Some items anew, spread over all, to hear."""
        return [one for index in sorted(self._listened(count)) for one in self._heard(self._try(index, 0))]

    def evaluation(self, found: Sequence[Found[S]], examples: Sequence[Example]) -> Evaluation:
        """The report's rows of what was found of every item, in the items' order."""
        rows = tuple(self._row(r, found) for r in range(len(self.entries)))
        if self.kept is not None:
            work = [{i: one.costs[r] for i, one in enumerate(found)} for r in range(len(rows))]
            spent = [{i: cost.seconds for i, cost in costs.items() if cost is not None} for costs in work]
            seconds = {i: one.seconds for i, one in enumerate(found) if one.seconds is not None}
            self.kept.finish(rows, spent, seconds, self.seed)
        rates = sorted({one.sample_rate for one in found if one.sample_rate is not None})
        return Evaluation(rows, tuple(examples), self.subject.meta(tuple(rates), self.seed))

    def _row(self, r: int, found: Sequence[Found[S]]) -> Row:
        costs = [(one.costs[r], one.seconds) for one in found]
        worked = [(cost, seconds) for cost, seconds in costs if cost is not None and seconds is not None]
        counted = [(cost, seconds) for cost, seconds in worked if not cost.first] or worked
        factor = self.entries[r].factor
        if counted:
            factor = sum(cost.seconds for cost, _ in counted) / sum(seconds for _, seconds in counted)
        return self.entries[r].row([one.name for one in found], [one.scores[r] for one in found], factor)

    def _listened(self, count: int) -> set[int]:
        items = len(self.subject)
        return {round(i) for i in np.linspace(0, items - 1, min(count, items))}

    def _heard(self, tried: _Tried) -> list[Example]:
        """What there is to hear: nothing of an item that could not be read."""
        if isinstance(tried.item, str):
            return []
        return [self.subject.example(tried.item, self.labels, tried.estimates)]

    def _try(self, index: int, lane: int, tell: Callable[[str], None] | None = None) -> _Tried:
        """Every row's estimate of one item."""
        name = self.subject.name(index)
        try:
            tried = _Tried(index, self.subject.load(index))
        except EXPECTED as error:
            tried = _Tried(index, str(error))
        for r, entry in enumerate(self.entries):
            trace = self.kept.trace(index) if self.kept is not None and entry.copies else None
            estimate, cost = self._apply(entry, tried.item, lane, item_seed(self.seed, name), trace)
            tried.estimates.append(estimate)
            tried.costs.append(cost)
            if trace is not None:
                tried.traces[r] = trace
            if tell is not None:
                tell(f"{self.labels[r]}: {name}")
        return tried

    @staticmethod
    def _apply(
        entry: Entry, item: Any, lane: int, seed: int, trace: "Trace | None"
    ) -> tuple[np.ndarray | str, Cost | None]:
        """The estimate of one item, or the reason why there is none."""
        if isinstance(item, str):
            return item, None
        try:
            return entry.work(item, lane, seed, trace)
        except EXPECTED as error:
            return f"the model failed: {type(error).__name__}: {error}", None

    def _score(self, tried: _Tried, scoring: Scoring[S]) -> Found[S]:
        """Have the rows scored, or note why they cannot be; the scores come later."""
        item, costs = tried.item, tuple(tried.costs)
        for r, estimate in enumerate(tried.estimates):
            if isinstance(estimate, str):
                scoring.put((r, tried.index), self.subject.lost(estimate))
                continue
            function, given = self.subject.call(item, estimate)
            scoring.add((r, tried.index), function, *given)
            if self.kept is not None:
                self.kept.keep(r, item, estimate, tried.traces.get(r))
        name = self.subject.name(tried.index)
        if isinstance(item, str):
            return Found(name, None, None, costs)
        return Found(name, item.wave.shape[-1] / item.sample_rate, item.sample_rate, costs)


def item_seed(seed: int, name: str) -> int:
    """The seed of one file: 31 bits of SHA-256 over seed and name."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:4], "big") >> 1


def trimmed(slack: int, *waves: np.ndarray) -> tuple[np.ndarray, ...]:
    """All to the shortest length where they differ by a few samples only; else as they are, and no score takes them."""
    lengths = [wave.shape[-1] for wave in waves]
    if max(lengths) - min(lengths) > slack:
        return waves
    return tuple(wave[..., : min(lengths)] for wave in waves)


class _Told:
    """Counts for the progress bar, from any thread."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self.progress, self.lock = 0, total, progress, threading.Lock()

    def tell(self, what: str) -> None:
        """One more is finished."""
        with self.lock:
            self.done += 1
            if self.progress is not None:
                self.progress(self.done, self.total, what)


def _in_lanes(count: int, lanes: int, work: Callable[[int, int], _Tried]) -> Iterator[_Tried]:
    """work(index, lane) for every index, in order; lane index mod lanes, each in a thread if there are several."""
    if lanes == 1:
        yield from (work(index, 0) for index in range(count))
        return
    pools = [ThreadPoolExecutor(1) for _ in range(lanes)]
    ahead: deque[Future[_Tried]] = deque()
    try:
        for index in range(count):
            ahead.append(pools[index % lanes].submit(work, index, index % lanes))
            if len(ahead) > 2 * lanes:  # results wait in memory
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)
