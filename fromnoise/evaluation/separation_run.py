"""Run separators over mixtures whose sources are known, score every result, and keep what was asked for.

The rows: the mixture itself (each source's estimate is the mixture), an oracle ratio mask (`masks`), every model with
every sampler and number of steps, and folders of sources that were separated elsewhere. How rows and mixtures are gone
through, with which seeds, and how cost is counted, says `trial`.

A model on several devices is several copies, which take turns by the mixtures' numbers; the results are the same.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from fromnoise.data.sources import Mixture
from fromnoise.evaluation.fingerprints import mixtures_fingerprint
from fromnoise.evaluation.kept import Kept
from fromnoise.evaluation.masks import ratio_masked
from fromnoise.evaluation.rows import Example, Meta
from fromnoise.evaluation.run import SLACK
from fromnoise.evaluation.separated import Item, SourceResults
from fromnoise.evaluation.sources import DEFAULT_METRICS, SourceScores, check_source_names, measure_sources, unscored
from fromnoise.evaluation.trial import Entry, Evaluation, Progress, Subject, Trial, trimmed
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
class _MixtureSubject(Subject[SourceScores]):
    """Mixtures of known sources; results: the folders whose files are judged; see `separation_trial` for the rest."""

    mixtures: Sequence[Mixture]
    metrics: tuple[str, ...]
    roles: bool
    only: int | None
    facts: Mapping[str, Any]
    results: tuple[SourceResults, ...]

    def __len__(self) -> int:
        return len(self.mixtures)

    def name(self, index: int) -> str:
        return self.mixtures[index].name

    def files(self, index: int) -> list[Path]:
        mixture = self.mixtures[index]
        found = mixture.files()
        for results in self.results:
            with suppress(InputError):
                found += results.files(mixture.name, len(mixture.parts), index)
        return found

    def load(self, index: int) -> Item:
        mixture = self.mixtures[index]
        sources = mixture.load()
        return Item(index, mixture.name, sources, mixture.mixture(sources), mixture.sample_rate)

    def call(self, item: Item, estimate: np.ndarray) -> tuple[Callable[..., SourceScores], tuple[Any, ...]]:
        waves = trimmed(SLACK, item.sources, estimate, item.wave)
        return measure_sources, (*waves, item.sample_rate, self.metrics, self.roles, self.only)

    def lost(self, reason: str) -> SourceScores:
        return unscored(self.metrics, reason)

    def example(self, item: Item, labels: Sequence[str], estimates: Sequence[np.ndarray | str]) -> Example:
        waves = {MIXTURE: item.wave}
        for label, estimate in list(zip(labels, estimates, strict=True))[1:]:
            if isinstance(estimate, np.ndarray):
                waves |= {f"{label}: {k}": wave for k, wave in enumerate(estimate, 1)}
        waves |= {f"truth: {k}": wave for k, wave in enumerate(item.sources, 1)}
        return Example(item.name, item.sample_rate, None, None, waves)

    def meta(self, sample_rates: tuple[int, ...], seed: int) -> Meta:
        rates = tuple(sorted({mixture.sample_rate for mixture in self.mixtures}))
        return Meta(self.metrics, rates, mixtures_fingerprint(self.mixtures), seed, dict(self.facts))


def evaluate_separation(
    models: Sequence[Contestant],
    mixtures: Sequence[Mixture],
    *,
    jobs: int = 1,
    examples: int = 4,
    progress: Progress | None = None,
    **asked: Any,
) -> Evaluation:
    """Score mixture, oracle mask and every model with every sampler and number of steps; `SourceResults` once each.

    jobs, examples, progress: as `run.evaluate`. The rest as `separation_trial`.
    """
    return separation_trial(models, mixtures, **asked).run(jobs, examples, progress)


def separation_trial(
    models: Sequence[Contestant],
    mixtures: Sequence[Mixture],
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    steps: Sequence[int | None] = (None,),
    samplers: Sequence[str | None] = (None,),
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    roles: bool = False,
    only: int | None = None,
    kept: Kept | None = None,
    devices: Sequence[Any] = (),
) -> Trial[SourceScores]:
    """What `evaluate_separation` does, before it is done.

    mixtures: from `find_mixtures`. roles, only: see `measure_sources`. kept: where to put sounds, figures and lists of
    single scores. devices: of copies that work at once; none: the models where they are. The rest as `run.pair_trial`.
    """
    names = check_source_names(metrics)
    if not mixtures:
        raise ValueError("expected at least one mixture, got none")
    _require_fit(models, mixtures)
    entries = [Entry(MIXTURE, given=_repeated, factor=0.0), Entry(MASK, given=_masked, factor=0.0)]
    for model in models:
        if isinstance(model, SourceResults):
            entries.append(Entry(model.name, given=model.load))
            continue
        copies = _copies(model, devices)
        entries += [Entry(model.name, copies, sampler, count) for sampler, count in product(samplers, steps)]
    facts = {"models": [m.name for m in models], "samplers": list(samplers), "steps": list(steps)}
    facts |= {"order": "as given" if roles else "largest mean SI-SDR", "judged": "all" if only is None else only + 1}
    facts |= dict(settings or {})
    results = tuple(model for model in models if isinstance(model, SourceResults))
    subject = _MixtureSubject(mixtures, names, roles, only, facts, results)
    trial = Trial(subject, entries, seed, kept, max(1, len(devices)))
    if kept is not None:
        kept.begin([(e.name, next(iter(e.copies), None), e.sampler, e.steps) for e in entries], roles)
    return trial


def _require_fit(models: Sequence[Contestant], mixtures: Sequence[Mixture]) -> None:
    """Raises InputError for a model of another number of sources than the mixtures have."""
    for mixture in mixtures:
        for model in models:
            if not isinstance(model, SourceResults) and model.sources != len(mixture.parts):
                raise InputError(
                    f"the model {model.name!r} separates {model.sources} sources, but {mixture.name} has "
                    f"{len(mixture.parts)}; choose a model or a list that fits"
                )


def _copies(model: SourceModel, devices: Sequence[Any]) -> list[SourceModel]:
    """The model on every device; the model itself on the first."""
    others = [copy.deepcopy(model) for _ in devices[1:]]
    for one, device in zip((model, *others), devices, strict=False):
        one.to(device)  # type: ignore[attr-defined]
    return [model, *others]


def _repeated(item: Item) -> np.ndarray:
    """The mixture as the estimate of every source."""
    return np.repeat(item.wave[None], len(item.sources), axis=0)


def _masked(item: Item) -> np.ndarray:
    """By masks that know the sources."""
    return ratio_masked(item.sources, item.wave, item.sample_rate)
