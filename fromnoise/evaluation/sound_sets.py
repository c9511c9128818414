"""A set of sounds as embedders hear it, and its row of the report: distances to the data, and whether each sound is
what was asked for.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from fromnoise.data.audio import resample
from fromnoise.evaluation import distances
from fromnoise.evaluation.birdnet import THRESHOLD, BirdNET
from fromnoise.evaluation.clap import CLAP
from fromnoise.evaluation.embedders import ClassifierFeatures, Embedder
from fromnoise.evaluation.judged import NO_CLASS, label_place
from fromnoise.evaluation.rows import Row
from fromnoise.evaluation.speech import Scores
from fromnoise.evaluation.statistics import Summary
from fromnoise.types import InputError

BIRDS = ("bird_top1", "bird_found", "bird_confidence")


@dataclass(frozen=True)
class Wish:
    """What a sound should be: a label, a text, or "" for neither."""

    label: str = ""
    text: str = ""

    @property
    def title(self) -> str:
        """For people."""
        return self.text or self.label or "free"


@dataclass(frozen=True)
class Tools:
    """Who judges: embedders with different names, and BirdNET where there is one."""

    embedders: tuple[Embedder, ...]
    birds: BirdNET | None = None
    _texts: dict[str, Float[np.ndarray, "1 d"]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [one.name for one in self.embedders]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None or not (names or self.birds):
            what = f"got {twice!r} twice" if twice else "got none"
            raise InputError(f"expected embedders of different names, because the scores are called by them, {what}")

    @property
    def metrics(self) -> tuple[str, ...]:
        """All scores that these can give."""
        names = [f"{kind}_{one.name}" for one in self.embedders for kind in DISTANCES]
        names += ["accuracy"] * any(isinstance(one, ClassifierFeatures) for one in self.embedders)
        names += ["clap_score"] * any(isinstance(one, CLAP) for one in self.embedders)
        return (*names, *(BIRDS if self.birds else ()))

    @property
    def rates(self) -> tuple[int, ...]:
        """Hz, of what they take."""
        return tuple(sorted({one.sample_rate for one in (*self.embedders, *([self.birds] if self.birds else []))}))

    def text(self, clap: CLAP, text: str) -> Float[np.ndarray, "1 d"]:
        """CLAP's embedding of a text; remembered."""
        if text not in self._texts:
            self._texts[text] = clap.texts([text])
        return self._texts[text]


@dataclass
class SoundSet:
    """The rows of every embedder, and the scores of every sound.

    rows, owners: embedder -> rows, and for each the number of its file. failed: embedder -> reasons of the files that
    it could not take. notes: which scores some sounds lack, why, and how many sounds. hear, kept: titles of wishes, and
    of each its first sound, (wave `n`, Hz).
    """

    tools: Tools
    name: str
    variant: str = ""
    sampler: str | None = None
    steps: int | None = None
    network_calls: int = 0
    real_time_factor: float = math.nan
    hear: Sequence[str] = ()
    files: list[str] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)
    rows: dict[str, list[np.ndarray]] = field(default_factory=dict)
    owners: dict[str, list[int]] = field(default_factory=dict)
    failed: dict[str, dict[int, str]] = field(default_factory=dict)
    kept: dict[str, tuple[np.ndarray, int]] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, wave: Float[np.ndarray, "c n"], sample_rate: int, wish: Wish) -> None:
        """One sound more; its channels are averaged."""
        if wave.size == 0 or not np.isfinite(wave).all():
            self.fail(name, "the sound is empty" if wave.size == 0 else "the sound holds NaN or infinite samples")
            return
        mono = wave.mean(axis=0)
        heard: dict[int, Float[np.ndarray, " n"]] = {}
        scores = Scores()
        for embedder in self.tools.embedders:
            rate = embedder.sample_rate
            heard[rate] = heard[rate] if rate in heard else np.asarray(resample(mono, sample_rate, rate))
            self._embed(embedder, heard[rate], wish, scores)
        if self.tools.birds is not None:
            self._listen(
                self.tools.birds, np.asarray(resample(mono, sample_rate, self.tools.birds.sample_rate)), wish, scores
            )
        self.files.append(name)
        self.scores.append(scores)
        if wish.title in self.hear and wish.title not in self.kept:
            self.kept[wish.title] = mono, sample_rate

    def fail(self, name: str, reason: str) -> None:
        """One sound that is none."""
        for embedder in self.tools.embedders:
            self.failed.setdefault(embedder.name, {})[len(self.files)] = reason
        judged = self.tools.metrics
        self.files.append(name)
        self.scores.append(Scores(dict.fromkeys(judged, math.nan), dict.fromkeys(judged, reason)))

    def _embed(self, embedder: Embedder, wave: Float[np.ndarray, " n"], wish: Wish, scores: Scores) -> None:
        try:
            if isinstance(embedder, ClassifierFeatures):
                probabilities, rows = embedder.judge(wave)
                self._score(scores, ("accuracy",), lambda: [_right(embedder, probabilities, wish)])
            else:
                rows = embedder(wave)
        except InputError:
            raise
        except ValueError as error:
            self.failed.setdefault(embedder.name, {})[len(self.files)] = str(error)
            self.notes[f"the embedder {embedder.name}: {error}"] += 1
            return
        if isinstance(embedder, CLAP):
            self._score(scores, ("clap_score",), lambda: [self._match(embedder, rows, wish)])
        self.rows.setdefault(embedder.name, []).append(rows)
        self.owners.setdefault(embedder.name, []).extend([len(self.files)] * len(rows))

    def _match(self, clap: CLAP, rows: Float[np.ndarray, "e d"], wish: Wish) -> float:
        if not wish.text:
            raise ValueError("no text was asked for")
        return float(distances.cosines(self.tools.text(clap, wish.text), rows.mean(0, keepdims=True))[0])

    def _listen(self, birds: BirdNET, wave: Float[np.ndarray, " n"], wish: Wish, scores: Scores) -> None:
        def judge() -> list[float]:
            if not wish.label:
                raise ValueError("no species was asked for")
            species, best = birds.index(wish.label), birds(wave).max(axis=0)
            return [float(best.argmax() == species), float(best[species] >= THRESHOLD), float(best[species])]

        self._score(scores, BIRDS, judge)

    def _score(self, scores: Scores, names: Sequence[str], judge: Callable[[], Sequence[float]]) -> None:
        """What `judge` says, or NaN and a note."""
        try:
            scores.values.update(zip(names, judge(), strict=True))
        except InputError:
            raise
        except ValueError as error:
            scores.values.update(dict.fromkeys(names, math.nan))
            self.notes[f"{names[0]}: {error}"] += 1

    def part(self, numbers: Sequence[int]) -> "SoundSet":
        """The same with some of the files."""
        place = {number: i for i, number in enumerate(numbers)}
        some = SoundSet(
            self.tools, self.name, files=[self.files[i] for i in numbers], scores=[self.scores[i] for i in numbers]
        )
        for name, owners in self.owners.items():
            rows = np.concatenate(self.rows[name])
            mine = [i for i, owner in enumerate(owners) if owner in place]
            some.rows[name], some.owners[name] = [rows[mine]], [place[owners[i]] for i in mine]
        for name, failed in self.failed.items():
            some.failed[name] = {place[i]: reason for i, reason in failed.items() if i in place}
        return some

    def row(self, data: "SoundSet", metrics: Sequence[str], seed: int) -> Row:
        """The row of the report."""
        whole: dict[str, Summary] = {}
        reasons: dict[str, str] = {}
        for metric in metrics:
            kind, _, embedder = metric.rpartition("_")
            if kind in DISTANCES:
                try:
                    value = DISTANCES[kind](*data.numbers(embedder), *self.numbers(embedder), seed)
                    missing = len(self.failed.get(embedder, {}))
                    whole[metric] = Summary(value, math.nan, math.nan, math.nan, len(self.files) - missing, missing)
                except ValueError as error:
                    reasons[metric] = str(error)
        scores = tuple(
            Scores(
                {name: value for name, value in one.values.items() if name in metrics},
                {name: reason for name, reason in one.reasons.items() if name in metrics},
            )
            for one in self.scores
        )
        return Row(
            self.name, self.sampler, self.steps, self.network_calls, self.real_time_factor, tuple(self.files), scores,
            self.variant, whole, reasons, alone=True,
        )  # fmt: skip

    def numbers(self, embedder: str) -> tuple[Float[np.ndarray, "e d"], np.ndarray]:
        """All rows of an embedder, and the file of each. Raises ValueError, with a reason, where there are none."""
        if not self.rows.get(embedder):
            raise ValueError(next(iter(self.failed.get(embedder, {}).values()), "the set is empty"))
        return np.concatenate(self.rows[embedder]), np.array(self.owners[embedder])


def _right(embedder: ClassifierFeatures, probabilities: Float[np.ndarray, " k"], wish: Wish) -> float:
    if not wish.label:
        raise ValueError(NO_CLASS)
    expected = label_place(wish.label, embedder.classifier.labels)
    if expected is None:
        raise ValueError(f"the classifier has no label {wish.label!r}")
    return float(probabilities.argmax() == expected)


DISTANCES: Mapping[str, Callable[..., float]] = {
    "fad": lambda x, _, y, __, seed: distances.frechet(x, y),
    "fad_inf": distances.frechet_unbiased,
    "kad": lambda x, _, y, __, seed: distances.kernel_distance(x, y),
}
