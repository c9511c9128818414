"""The scores of K estimated sources against the true ones, in the order that fits best.

    order = the permutation with the largest mean SI-SDR; each score = the mean over the sources in that order

One order serves all scores of a mixture. Where the sources have roles (speech, then noise) it is the given one. The
ratios that only exist among several sources (see `separation` for the formulas):

    si_sdri, sdri   SI-SDR, SDR (512 taps) of the estimate minus that of the mixture itself
    si_sir, si_sar  interference is what the other sources explain, artefact what no source explains

Every score of one recording (`speech.METRICS`) may be asked for besides. A source that cannot be judged, or that is
silent, leaves the mixture without that score, with the reason: a mean over fewer sources would be another number.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float

from fromnoise.evaluation import separation
from fromnoise.evaluation.speech import INSTALL, METRICS, SILENCE_RMS, Scores, measure

Wave = Float[np.ndarray, " n"]
Waves = Float[np.ndarray, "k n"]

DEFAULT_METRICS = ("si_sdr", "si_sdri", "sdr", "si_sir", "si_sar", "pesq_nb", "estoi")
ENHANCED_METRICS = ("pesq_wb", "estoi", "si_sdr", "si_sdri", "si_sir", "si_sar", "csig", "cbak", "covl")


@dataclass(frozen=True)
class Heard:
    """One mixture: references and estimates `k n`, in one order, and the mixture `n`."""

    references: np.ndarray
    estimates: np.ndarray
    mixture: np.ndarray

    @cached_property
    def ratios(self) -> separation.EnergyRatios:
        """SI-SDR, SI-SIR and SI-SAR in the order as it is."""
        return separation.si_bss_eval(self.references, self.estimates, ordered=True)

    def each(self, score: Callable[[Wave, Wave], float]) -> list[float]:
        """The score of every source."""
        return [score(r, e) for r, e in zip(self.references, self.estimates, strict=True)]

    def gains(self, score: Callable[[Wave, Wave], float]) -> list[float]:
        """The score of every source less that of the mixture."""
        return [after - score(r, self.mixture) for after, r in zip(self.each(score), self.references, strict=True)]


@dataclass(frozen=True)
class SourceMetric:
    """A score that needs all sources of a mixture; `function` gives one number a source. See `speech.Metric`."""

    name: str
    definition: str
    function: Callable[[Heard], Sequence[float]]
    unit: str = "dB"
    higher_is_better: bool = True
    rates: tuple[int, ...] = ()
    package: str | None = None


_LIST = (
    SourceMetric(
        "si_sdri",
        "SI-SDR less the SI-SDR of the mixture against the same source.",
        lambda heard: heard.gains(separation.si_sdr),
    ),
    SourceMetric("sdr", "BSS-EVAL v3 SDR: a filter of 512 taps is forgiven.", lambda heard: heard.each(separation.sdr)),
    SourceMetric(
        "sdri", "That SDR less the SDR of the mixture against the same source.", lambda h: h.gains(separation.sdr)
    ),
    SourceMetric(
        "si_sir",
        "Scale-invariant ratio of a source to what the other sources explain of its estimate, clamped to 100 dB.",
        lambda heard: heard.ratios.si_sir.tolist(),
    ),
    SourceMetric(
        "si_sar",
        "Scale-invariant ratio of what the sources explain of an estimate to what none explains, clamped to 100 dB.",
        lambda heard: heard.ratios.si_sar.tolist(),
    ),
)
SOURCE_METRICS: dict[str, SourceMetric] = {metric.name: metric for metric in _LIST}


@dataclass(frozen=True)
class SourceScores(Scores):
    """The scores of one mixture; `parts`: of each source, in the references' order. order: estimates[order] fit."""

    parts: dict[str, tuple[float, ...]] = field(default_factory=dict)
    order: tuple[int, ...] = ()


def unscored(names: Iterable[str], reason: str) -> SourceScores:
    """No number at all, and why."""
    return SourceScores(dict.fromkeys(names, math.nan), dict.fromkeys(names, reason))


def check_source_names(names: Iterable[str]) -> tuple[str, ...]:
    """The names without repeats; raises ValueError for an unknown one and lists the choices."""
    chosen = tuple(dict.fromkeys(names))
    choices = [*DEFAULT_METRICS, *(name for name in (*SOURCE_METRICS, *METRICS) if name not in DEFAULT_METRICS)]
    for name in chosen:
        if name not in choices:
            raise ValueError(f"unknown metric {name!r}; choose from: {', '.join(choices)}")
    return chosen


def fitting_order(references: Waves, estimates: Waves) -> tuple[int, ...]:
    """The order of the estimates with the largest mean SI-SDR; what is silent fits nothing."""

    def score(reference: Wave, estimate: Wave) -> float:
        try:
            return separation.si_sdr(reference, estimate)
        except ValueError:
            return -100.0

    pairwise = np.array([[score(reference, estimate) for estimate in estimates] for reference in references])
    return tuple(int(k) for k in separation.best_order(pairwise))


def measure_sources(
    references: Waves,
    estimates: Float[np.ndarray, "_ _"],
    mixture: Wave,
    sample_rate: int,
    names: Iterable[str] = DEFAULT_METRICS,
    roles: bool = False,
    only: int | None = None,
) -> SourceScores:
    """The named scores of one mixture.

    references, estimates: floats `k n` in [-1, 1], at `sample_rate` Hz. roles: the estimates' order is the references'.
    only: judge this source alone, from 0, of all that are there (DiffSep's tables of enhancement judge the speech).

    >>> rng = np.random.default_rng(0)
    >>> s = rng.standard_normal((2, 800))
    >>> measure_sources(s, s[::-1] + 0.1 * rng.standard_normal((2, 800)), s.sum(0), 8000, ["si_sdr"]).order
    (1, 0)
    """
    chosen = check_source_names(names)
    fault = _fault(references, estimates)
    if fault is not None:
        return unscored(chosen, fault)
    order = tuple(range(len(references))) if roles else fitting_order(references, estimates)
    heard = Heard(references, estimates[list(order)], mixture)
    kept = range(len(references)) if only is None else (only,)
    scores = SourceScores(order=order)
    plain = [name for name in chosen if name not in SOURCE_METRICS]
    single = {k: measure(heard.references[k], heard.estimates[k], sample_rate, plain) for k in kept}
    for name in chosen:
        try:
            parts = _parts(name, heard, single, kept)
        except ImportError as error:
            scores.reasons[name] = f"package {error.name!r} is missing; {INSTALL}"
        except ValueError as error:
            scores.reasons[name] = str(error)
        else:
            scores.parts[name] = parts
        scores.values[name] = float(np.mean(scores.parts[name])) if name in scores.parts else math.nan
    return scores


def _parts(name: str, heard: Heard, single: dict[int, Scores], kept: Sequence[int]) -> tuple[float, ...]:
    """The score of each source that counts; raises ValueError with the reason where one has none."""
    if name in SOURCE_METRICS:
        _require_sound(heard)
        every = SOURCE_METRICS[name].function(heard)
        return tuple(float(every[k]) for k in kept)
    for k in kept:
        if name in single[k].reasons:
            raise ValueError(f"source {k + 1}: {single[k].reasons[name]}")
    return tuple(single[k][name] for k in kept)


def _fault(references: Float[np.ndarray, "_ _"], estimates: Float[np.ndarray, "_ _"]) -> str | None:
    """Why nothing at all can be scored."""
    (count, n), (got, m) = references.shape, estimates.shape
    if count != got:
        return f"wrong number of sources: expected {count}, got {got}"
    if n != m:
        return f"wrong length: expected {n} samples as in the mixture, got {m}"
    for what, waves in (("references hold", references), ("estimates hold", estimates)):
        if not np.isfinite(waves).all():
            return f"the {what} NaN or infinite samples"
    return "the mixture is empty" if n == 0 else None


def _require_sound(heard: Heard) -> None:
    for what, waves in (("reference", heard.references), ("estimate", heard.estimates)):
        for k, wave in enumerate(waves, 1):
            if np.sqrt(np.mean(wave.astype(np.float64) ** 2)) < SILENCE_RMS:
                raise ValueError(f"source {k}: the {what} is silent")
