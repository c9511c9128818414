"""Run separators over mixtures whose sources are known, score every result, and keep what was asked for.

The rows: the mixture itself (each source's estimate is the mixture), an oracle ratio mask (`masks`), every model with
every sampler and number of steps, and folders of sources that were separated elsewhere. As in `run`, the seed of a
mixture is drawn from (seed, its name), and what cannot be read, separated or scored is NaN with a reason.

A model on several devices is several copies, which take turns by the mixtures' numbers; the results are the same.
"""

import copy
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any, Protocol, runtime_checkable

import numpy as np

from fromnoise.data.sources import Mixture
from fromnoise.evaluation.files import mixtures_fingerprint
from fromnoise.evaluation.kept import Kept, Trace
from fromnoise.evaluation.masks import ratio_masked
from fromnoise.evaluation.report import Example, Meta, Row
from fromnoise.evaluation.run import EXPECTED, SLACK, Evaluation, Progress, item_seed
from fromnoise.evaluation.scoring import Scoring
from fromnoise.evaluation.separated import Item, SourceResults
from fromnoise.evaluation.sources import DEFAULT_METRICS, SourceScores, check_source_names, measure_sources, unscored
from fromnoise.types import InputError

MIXTURE = "mixture"
MASK = "oracle ratio mask"


@runtime_checkable
class SourceModel(Protocol):
    """What can be evaluated: a separator, or anything with the same members."""

    @property
    def name(self) -> str: ...
    @property
    def sources(self) -> int: ...
    @property
    def sample_rate(self) -> int: ...
    def network_calls(self, steps: int | None, sampler: str | None) -> int: ...
    def __call__(
        self, wave: np.ndarray, *, sample_rate: int, steps: int | None, sampler: str | None, seed: int
    ) -> np.ndarray: ...


Contestant = SourceModel | SourceResults


@dataclass(frozen=True)
class _Entry:
    """One row to be: its name, copies of the model (one a device), and the seconds that they worked, per mixture."""

    name: str
    copies: Sequence[Contestant]
    sampler: str | None = None
    steps: int | None = None
    work: dict[int, float] = field(default_factory=dict)

    @property
    def model(self) -> SourceModel | None:
        first = self.copies[0] if self.copies else None
        return None if isinstance(first, SourceResults) else first

    @property
    def calls(self) -> int:
        return 0 if self.model is None else self.model.network_calls(self.steps, self.sampler)

    def separate(self, item: Item, lane: int, seed: int, trace: Trace | None) -> np.ndarray:
        """The estimates of one mixture; `trace` is shown the states on the way."""
        if not self.copies:
            if self.name == MASK:
                return ratio_masked(item.sources, item.wave, item.sample_rate)
            return np.repeat(item.wave[None], len(item.sources), axis=0)
        model = self.copies[lane % len(self.copies)]
        if isinstance(model, SourceResults):
            return model.load(item)
        begun = time.perf_counter()
        given = {"sample_rate": item.sample_rate, "steps": self.steps, "sampler": self.sampler, "seed": seed}
        made = None if trace is None else trace.separate(model, item.wave, **given)
        found = np.asarray(model(item.wave, **given) if made is None else made)
        self.work[item.index] = time.perf_counter() - begun
        return found

    def row(self, names: Sequence[str], scores: Sequence[SourceScores], seconds: Mapping[int, float]) -> Row:
        counted = sorted(self.work)[1:] or sorted(self.work)
        factor = 0.0 if not self.copies else math.nan
        if counted:
            factor = sum(self.work[i] for i in counted) / sum(seconds[i] for i in counted)
        return Row(self.name, self.sampler, self.steps, self.calls, factor, tuple(names), tuple(scores))


@dataclass(frozen=True)
class _Done:
    """What one mixture became: estimates `k n` or a reason for each row, and the states of those that were traced."""

    index: int
    item: Item | str
    estimates: list[np.ndarray | str]
    traces: dict[int, Trace]


def evaluate_separation(
    models: Sequence[Contestant],
    mixtures: Sequence[Mixture],
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    steps: Sequence[int | None] = (None,),
    samplers: Sequence[str | None] = (None,),
    seed: int = 0,
    jobs: int = 1,
    examples: int = 4,
    progress: Progress | None = None,
    settings: Mapping[str, Any] | None = None,
    roles: bool = False,
    only: int | None = None,
    kept: Kept | None = None,
    devices: Sequence[Any] = (),
) -> Evaluation:
    """Score mixture, oracle mask and every model with every sampler and number of steps; `SourceResults` once each.

    mixtures: from `find_mixtures`. roles, only: see `measure_sources`. kept: where to put sounds, figures and lists of
    single scores. devices: of copies that work at once; none: the models where they are. The rest as `run.evaluate`.
    """
    names = check_source_names(metrics)
    if not mixtures:
        raise ValueError("expected at least one mixture, got none")
    if jobs < 1 or examples < 0:
        raise ValueError(f"expected jobs >= 1 and examples >= 0, got {jobs} and {examples}")
    _require_fit(models, mixtures)
    entries = _entries(models, samplers, steps, devices)
    if kept is not None:
        kept.begin([(entry.name, entry.model, entry.sampler, entry.steps) for entry in entries])
    listen = {round(i) for i in np.linspace(0, len(mixtures) - 1, min(examples, len(mixtures)))}
    labels = [entry.row((), (), {}).label for entry in entries]
    told = _Told(len(mixtures) * len(entries), progress)
    seconds: dict[int, float] = {}
    heard: list[Example] = []

    def work(index: int, lane: int) -> _Done:
        item = _load(mixtures[index], index)
        done = _Done(index, item, [], {})
        for r, entry in enumerate(entries):
            trace = None if kept is None or entry.model is None else kept.trace(index)
            done.estimates.append(_apply(entry, item, lane, seed, trace))
            if trace is not None:
                done.traces[r] = trace
            told.tell(f"{labels[r]}: {mixtures[index].name}")
        return done

    with Scoring[SourceScores](jobs, partial(unscored, names)) as scoring:
        for done in _in_lanes(len(mixtures), max(1, len(devices)), work):
            item = done.item
            for r, estimate in enumerate(done.estimates):
                key = r, done.index
                if isinstance(item, str) or isinstance(estimate, str):
                    reason = item if isinstance(item, str) else str(estimate)
                    scoring.put(key, unscored(names, reason))
                    continue
                parts = (*_trimmed(item, estimate), item.sample_rate, names, roles, only)
                scoring.add(key, measure_sources, *parts)
                if kept is not None:
                    kept.keep(r, item, estimate, done.traces.get(r), roles)
            if not isinstance(item, str):
                seconds[done.index] = len(item.wave) / item.sample_rate
                if done.index in listen:
                    heard.append(_example(item, labels, done.estimates))
        table = scoring.results()
    files = [mixture.name for mixture in mixtures]
    rows = tuple(e.row(files, [table[r, i] for i in range(len(files))], seconds) for r, e in enumerate(entries))
    facts = {"models": [m.name for m in models], "samplers": list(samplers), "steps": list(steps)}
    facts |= {"order": "as given" if roles else "largest mean SI-SDR", "judged": "all" if only is None else only + 1}
    rates = tuple(sorted({mixture.sample_rate for mixture in mixtures}))
    meta = Meta(names, rates, mixtures_fingerprint(mixtures), seed, facts | dict(settings or {}))
    if kept is not None:
        kept.finish(rows, [entry.work for entry in entries], seconds, seed)
    return Evaluation(rows, tuple(heard), meta)


def _require_fit(models: Sequence[Contestant], mixtures: Sequence[Mixture]) -> None:
    """Raises InputError for a model of another number of sources than the mixtures have."""
    for mixture in mixtures:
        for model in models:
            if not isinstance(model, SourceResults) and model.sources != len(mixture.parts):
                raise InputError(
                    f"the model {model.name!r} separates {model.sources} sources, but {mixture.name} has "
                    f"{len(mixture.parts)}; choose a model or a list that fits"
                )


def _entries(
    models: Sequence[Contestant], samplers: Sequence[str | None], steps: Sequence[int | None], devices: Sequence[Any]
) -> list[_Entry]:
    """All rows. Raises for a setting that a model does not know, and for two rows of one name."""
    found = [_Entry(MIXTURE, ()), _Entry(MASK, ())]
    for model in models:
        if isinstance(model, SourceResults):
            found.append(_Entry(model.name, (model,)))
            continue
        copies = _copies(model, devices)
        found += [_Entry(model.name, copies, sampler, count) for sampler, count in product(samplers, steps)]
    labels = [entry.row((), (), {}).label for entry in found]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise InputError(f"expected rows with different names, got {twice!r} twice; rename one of the models")
    return found


def _copies(model: SourceModel, devices: Sequence[Any]) -> list[SourceModel]:
    """The model on every device; the model itself on the first."""
    others = [copy.deepcopy(model) for _ in devices[1:]]
    for one, device in zip((model, *others), devices, strict=False):
        one.to(device)  # type: ignore[attr-defined]
    return [model, *others]


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


def _in_lanes(count: int, lanes: int, work: Callable[[int, int], _Done]) -> Iterator[_Done]:
    """work(index, lane) for every index, in order; lane index mod lanes, each in a thread if there are several."""
    if lanes == 1:
        yield from (work(index, 0) for index in range(count))
        return
    pools = [ThreadPoolExecutor(1) for _ in range(lanes)]
    ahead: deque[Future[_Done]] = deque()
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


def _load(mixture: Mixture, index: int) -> Item | str:
    """The mixture in memory, or the reason why it cannot be."""
    try:
        sources = mixture.load()
        return Item(index, mixture.name, sources, mixture.mixture(sources), mixture.sample_rate)
    except EXPECTED as error:
        return str(error)


def _apply(entry: _Entry, item: Item | str, lane: int, seed: int, trace: Trace | None) -> np.ndarray | str:
    if isinstance(item, str):
        return item
    try:
        return entry.separate(item, lane, item_seed(seed, item.name), trace)
    except EXPECTED as error:
        return f"the model failed: {type(error).__name__}: {error}"


def _trimmed(item: Item, estimate: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sources, estimates and mixture to one length where they differ by a few samples; else as they are."""
    n, m = item.sources.shape[1], estimate.shape[1]
    if n == m or abs(n - m) > SLACK:
        return item.sources, estimate, item.wave
    return item.sources[:, : min(n, m)], estimate[:, : min(n, m)], item.wave[: min(n, m)]


def _example(item: Item, labels: Sequence[str], estimates: Sequence[np.ndarray | str]) -> Example:
    """What there is to hear of one mixture."""
    waves = {MIXTURE: item.wave}
    for label, estimate in list(zip(labels, estimates, strict=True))[1:]:
        if isinstance(estimate, np.ndarray):
            waves |= {f"{label}: {k}": wave for k, wave in enumerate(estimate, 1)}
    waves |= {f"truth: {k}": wave for k, wave in enumerate(item.sources, 1)}
    return Example(item.name, item.sample_rate, None, None, waves)
