"""A set of sounds as a classifier hears it, and the scores of the set (see `generation`) as a row of the report.

Sounds are cut, or filled with silence, to the classifier's length, judged in batches and forgotten, but for a few of
each class to listen to. One that is empty or not finite is counted with the reason and left out.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int64

from fromnoise.evaluation import generation as g
from fromnoise.evaluation.rows import Row
from fromnoise.evaluation.speech import INSTALL, Scores
from fromnoise.evaluation.statistics import Summary
from fromnoise.tasks.classification import BATCH, Classifier

NO_CLASS = "no class was asked for"


@dataclass
class Judged:
    """A set of sounds as the classifier hears it.

    files: every sound's name; bad: the reason of those that could not be judged. Of the others, in order:
    probabilities, features and `asked`, the number of the class each should be (-1: none). kept: class -> sounds to
    hear, (caption, wave `n`, Hz).
    """

    classifier: Classifier
    name: str
    variant: str = ""
    sampler: str | None = None
    steps: int | None = None
    network_calls: int = 0
    real_time_factor: float = 0.0
    examples: int = 0
    files: list[str] = field(default_factory=list)
    bad: dict[str, str] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)
    kept: dict[str, list[tuple[str, np.ndarray, int]]] = field(default_factory=dict)
    _waiting: list[tuple[np.ndarray, int]] = field(default_factory=list)
    _found: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def add(self, name: str, wave: Float[np.ndarray, " n"], sample_rate: int, asked: int = -1) -> None:
        """One sound more."""
        if wave.size == 0 or not np.isfinite(wave).all():
            self.fail(name, "the sound is empty" if wave.size == 0 else "the sound holds NaN or infinite samples")
            return
        self.files.append(name)
        self.asked.append(asked)
        self._waiting.append((wave, sample_rate))
        if len(self._waiting) == BATCH:
            self._judge()

    def fail(self, name: str, reason: str) -> None:
        """One sound that is none."""
        self.files.append(name)
        self.bad[name] = reason

    def _judge(self) -> None:
        if not self._waiting:
            return
        clips = np.stack([self.classifier.fixed(wave, rate) for wave, rate in self._waiting])
        probabilities, features = self.classifier(clips, self.classifier.sample_rate)
        self._found.append((probabilities, features))
        first = len(self.asked) - len(self._waiting)
        for i, (wave, rate) in enumerate(self._waiting):
            heard = int(probabilities[i].argmax())
            asked = self.asked[first + i] if self.asked[first + i] >= 0 else heard
            self._keep(self.classifier.labels[asked], heard == asked, self.classifier.labels[heard], wave, rate)
        self._waiting.clear()

    def _keep(self, label: str, right: bool, heard: str, wave: np.ndarray, rate: int) -> None:
        some = self.kept.setdefault(label, [])
        if len(some) < self.examples:
            caption = ", ".join(part for part in (self.name, self.variant) if part)
            some.append((f"{caption} {len(some) + 1}" + ("" if right else f" (heard as {heard})"), wave, rate))

    @property
    def probabilities(self) -> g.Probabilities:
        """Of every sound that could be judged."""
        self._judge()
        return (
            np.concatenate([p for p, _ in self._found]) if self._found else np.zeros((0, len(self.classifier.labels)))
        )

    @property
    def features(self) -> g.Features:
        """Of every sound that could be judged."""
        self._judge()
        return np.concatenate([f for _, f in self._found]) if self._found else np.zeros((0, 1))

    @property
    def labels(self) -> Int64[np.ndarray, " i"] | None:
        """What was asked for; None where some sound has no class."""
        return None if not self.asked or min(self.asked) < 0 else np.array(self.asked, dtype=np.int64)

    def row(self, data: "Judged", metrics: Sequence[str]) -> Row:
        """The row of the report."""
        whole, reasons = set_scores(data, self, [name for name in metrics if name != "accuracy"])
        right = iter(()) if self.labels is None else iter(g.accuracy(self.probabilities, self.labels).tolist())
        scores = []
        for name in self.files:
            if "accuracy" not in metrics:
                scores.append(Scores())
            elif name in self.bad or self.labels is None:
                reason = self.bad.get(name, NO_CLASS)
                scores.append(Scores({"accuracy": math.nan}, {"accuracy": reason}))
            else:
                scores.append(Scores({"accuracy": next(right)}))
        return Row(
            self.name, self.sampler, self.steps, self.network_calls, self.real_time_factor, tuple(self.files),
            tuple(scores), self.variant, whole, reasons, alone=True,
        )  # fmt: skip


def label_place(label: str, labels: Sequence[str]) -> int | None:
    """Which of the labels it is, by its words ("Sea_waves" and "sea-waves" are one), else by its number."""
    plain = [" ".join(re.split(r"[\s_-]+", one.strip().casefold())) for one in (label, *labels)]
    if plain[0] in plain[1:]:
        return plain.index(plain[0], 1) - 1
    return int(label) if label.isdecimal() and int(label) < len(labels) else None


def set_scores(data: Judged, made: Judged, metrics: Sequence[str]) -> tuple[dict[str, Summary], dict[str, str]]:
    """Scores of the set by name, and the reasons of those that there are not."""
    whole: dict[str, Summary] = {}
    reasons: dict[str, str] = {}
    count, missing = len(made.files) - len(made.bad), len(made.bad)
    for name in metrics:
        try:
            if count == 0:
                raise ValueError(next(iter(made.bad.values()), "the set is empty"))
            mean, deviation = _FUNCTIONS[name](data, made)
            whole[name] = Summary(mean, math.nan, math.nan, deviation, count, missing)
        except ImportError as error:
            reasons[name] = f"package {error.name!r} is missing; {INSTALL}"
        except ValueError as error:
            reasons[name] = str(error)
    return whole, reasons


def _fid_class(data: Judged, made: Judged) -> tuple[float, float]:
    if data.labels is None or made.labels is None:
        raise ValueError(NO_CLASS if made.labels is None else "the training set has no classes")
    found = list(g.fid_by_class(data.features, data.labels, made.features, made.labels).values())
    return float(np.mean(found)), float(np.std(found))


def _alone(function: Callable[..., float]) -> Callable[[Judged, Judged], tuple[float, float]]:
    return lambda data, made: (function(made.probabilities), math.nan)


_FUNCTIONS: dict[str, Callable[[Judged, Judged], tuple[float, float]]] = {
    "fid": lambda data, made: (g.fid(data.features, made.features), math.nan),
    "is": _alone(g.inception_score),
    "is_repo": _alone(g.inception_score_repo),
    "mis": _alone(g.modified_inception_score),
    "mis_repo": _alone(g.modified_inception_score_repo),
    "am": lambda data, made: (g.am_score(data.probabilities, made.probabilities), math.nan),
    "ndb": lambda data, made: (g.ndb_over_k(data.features, made.features), math.nan),
    "fid_class": _fid_class,
}
