"""Judge sets of sounds by a classifier: a generator's, a folder's, and for comparison the real ones.

Rows of the report, each with the scores of `generation`, the training set being the data:

    train                 the training set itself
    test                  what was held out: how near another draw of the real thing comes
    train, 20 dB noise    the training set with white noise at 20 dB below each recording's power
    a model               by label: `count` sounds of every class, for each guidance; free: `count` without a label

A sound is cut, or filled with silence, to the classifier's length. The sounds of label l are drawn with a seed from
(seed, l), so that classes do not share their noise. A sound that cannot be read or is not finite is counted with the
reason and left out.
"""

import math
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from fromnoise.data.audio import read, resample
from fromnoise.data.layouts import Pair
from fromnoise.data.places import Clip, find_clips
from fromnoise.evaluation import generation as g
from fromnoise.evaluation.fingerprints import fingerprint
from fromnoise.evaluation.judged import Judged, label_place
from fromnoise.evaluation.rows import Example, Meta
from fromnoise.evaluation.run import EXPECTED, Evaluation, Progress, Results, item_seed
from fromnoise.tasks.classification import Classifier
from fromnoise.types import InputError

NOISE_DB = 20.0
DEFAULT_METRICS = ("fid", "is", "is_repo", "mis", "mis_repo", "am", "ndb", "accuracy", "fid_class")


@runtime_checkable
class Generator(Protocol):
    """What is judged: a task of the toolkit, or anything with the same members."""

    @property
    def name(self) -> str: ...
    @property
    def sample_rate(self) -> int: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    def network_calls(self, steps: int | None, sampler: str | None) -> int: ...
    def batches(
        self,
        count: int,
        label: str | None,
        seed: int,
        *,
        steps: int | None,
        sampler: str | None,
        guidance: float | None,
        batch_size: int,
        progress: Callable[[int, int], object] | None,
    ) -> Iterator[Float[np.ndarray, "b 1 n"]]: ...


def evaluate_sets(
    contestants: Sequence[Generator | Results],
    train: Sequence[Clip],
    test: Sequence[Clip],
    classifier: Classifier,
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    count: int = 500,
    guidance: Sequence[float | None] = (None,),
    steps: Sequence[int | None] = (None,),
    samplers: Sequence[str | None] = (None,),
    seed: int = 0,
    batch_size: int = 16,
    examples: int = 4,
    progress: Progress | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Score the real sounds, every generator with every setting, and every folder.

    train, test: from `find_clips`. count: sounds of every class, and without. examples: to hear, of each class and row.
    progress: called with (done, total, what was done).
    """
    names = g.check_set_names(metrics)
    _require_possible(contestants, train, test, count, guidance)
    folders = {
        model.name: find_clips(model.folder, "test", "flat") for model in contestants if isinstance(model, Results)
    }
    plans = [plan for model in contestants if not isinstance(model, Results)
             for plan in _plans(model, classifier, guidance, samplers, steps)]  # fmt: skip
    work = len(train) + len(test) + sum(map(len, folders.values())) + sum(count * len(plan.labels) for plan in plans)
    told = _Told(work, progress)
    data, noisy = Judged(classifier, "train", examples=examples), Judged(classifier, "train", f"{NOISE_DB:g} dB noise")
    _read_into([data, noisy], train, told, seed)
    held = Judged(classifier, "test")
    _read_into([held], test, told, seed)
    sets = [data, held, noisy]
    for model in contestants:
        if isinstance(model, Results):
            sets.append(Judged(classifier, model.name, real_time_factor=math.nan, examples=examples))
            _read_into(sets[-1:], folders[model.name], told, seed)
        else:
            mine = [plan for plan in plans if plan.model is model]
            sets += [plan.run(classifier, count, seed, batch_size, examples, told) for plan in mine]
    rows = tuple(made.row(data, names) for made in sets)
    facts = {"classifier": classifier.name, "count": count, "guidance": list(guidance), "noise_db": NOISE_DB}
    facts |= {"models": [m.name for m in contestants], "samplers": list(samplers), "steps": list(steps)}
    pairs = [Pair(clip.path.as_posix(), clip.path, clip.path) for clip in (*train, *test)]
    rates = tuple(sorted({m.sample_rate for m in contestants if not isinstance(m, Results)} | {classifier.sample_rate}))
    meta = Meta(names, rates, fingerprint(pairs), seed, facts | dict(settings or {}))
    return Evaluation(rows, _gallery(sets, classifier), meta)


def _require_possible(
    contestants: Sequence[Generator | Results],
    train: Sequence[Clip],
    test: Sequence[Clip],
    count: int,
    guidance: Sequence[float | None],
) -> None:
    """Raises InputError before anything is read for what cannot be scored."""
    if not train or not test or count < 1:
        raise InputError(
            f"expected clips to train and to test on and count >= 1, got {len(train)}, {len(test)}, {count}"
        )
    names = ["train", "test", *(model.name for model in contestants)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(
            f"expected rows with different names, got {twice!r} twice; rename one of the models or folders"
        )
    labelled = any(getattr(model, "labels", ()) for model in contestants)
    if any(weight is not None for weight in guidance) and not labelled:
        raise InputError("guidance pulls towards a label, and no model here has labels; leave it out")


class _Told:
    """Counts sounds for the progress bar."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def tell(self, done: int, what: str) -> None:
        """`done` sounds more are finished."""
        self.done += done
        if self.progress is not None:
            self.progress(self.done, self.total, what)


def _read_into(sets: Sequence[Judged], clips: Sequence[Clip], told: _Told, seed: int) -> None:
    """Every clip into every set, with noise where the set is of that kind."""
    labels = labels_of(clips, sets[0].classifier)
    for clip, label in zip(clips, labels, strict=True):
        name = clip.path.as_posix()
        try:
            wave, rate = read(clip.path)
        except EXPECTED as error:
            for made in sets:
                made.fail(name, str(error))
        else:
            for made in sets:
                made.add(name, _noisy(wave[0], item_seed(seed, name)) if made.variant else wave[0], rate, label)
        told.tell(1, f"{sets[0].name}: {clip.path.name}")


def _noisy(wave: Float[np.ndarray, " n"], seed: int) -> Float[np.ndarray, " n"]:
    """With white noise NOISE_DB below its power."""
    level = math.sqrt(float(np.square(wave, dtype=np.float64).mean())) * 10 ** (-NOISE_DB / 20)
    return wave + np.float32(level) * np.random.default_rng(seed).standard_normal(len(wave), dtype=np.float32)


def labels_of(clips: Sequence[Clip], classifier: Classifier) -> list[int]:
    """The class of each clip by its label, or else by its name without its number or up to the first of `_-. `; all -1
    where one has none."""
    found = []
    for clip in clips:
        stem = clip.path.stem
        words = [clip.label] if clip.label else [re.sub(r"_\d+$", "", stem), re.split(r"[_\-. ]", stem)[0]]
        known = [place for word in words if (place := label_place(word, classifier.labels)) is not None]
        if not known:
            return [-1] * len(clips)
        found.append(known[0])
    return found


@dataclass(frozen=True)
class _Plan:
    """One row of a generator: which labels, how."""

    model: Generator
    labels: tuple[str | None, ...]
    variant: str
    guidance: float | None
    sampler: str | None
    steps: int | None

    def run(self, classifier: Classifier, count: int, seed: int, batch_size: int, examples: int, told: _Told) -> Judged:
        """Make the sounds and judge them."""
        calls = self.model.network_calls(self.steps, self.sampler)
        made = Judged(classifier, self.model.name, self.variant, self.sampler, self.steps, calls, examples=examples)
        spent: list[tuple[float, float]] = []
        for label in self.labels:
            asked = -1 if label is None else classifier.index(label)
            begun, done = time.perf_counter(), 0
            for batch in self._batches(label, count, seed, batch_size):
                spent.append((time.perf_counter() - begun, batch.shape[0] * batch.shape[-1] / self.model.sample_rate))
                for i, wave in enumerate(batch[:, 0], done):
                    made.add(f"{label or 'free'}_{i}", wave, self.model.sample_rate, asked)
                done += len(batch)
                told.tell(len(batch), f"{self.model.name}: {label or 'free'}")
                begun = time.perf_counter()
        counted = spent[1:] or spent  # the first pays for warming up
        made.real_time_factor = sum(work for work, _ in counted) / sum(sound for _, sound in counted)
        return made

    def _batches(self, label: str | None, count: int, seed: int, batch_size: int) -> Iterator[np.ndarray]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="guidance has no effect without a label")
            yield from self.model.batches(
                count, label, item_seed(seed, label or ""), steps=self.steps, sampler=self.sampler,
                guidance=self.guidance, batch_size=batch_size, progress=None,
            )  # fmt: skip


def _plans(
    model: Generator,
    classifier: Classifier,
    guidance: Sequence[float | None],
    samplers: Sequence[str | None],
    steps: Sequence[int | None],
) -> list[_Plan]:
    """The rows of one generator. Raises InputError, before anything is made, for a setting that it does not know."""
    found = []
    for sampler, count in product(samplers, steps):
        model.network_calls(count, sampler)
        if model.labels:
            for label in model.labels:
                classifier.index(label)
            for weight in guidance:
                variant = "by label" if weight is None else f"by label, guidance {weight:g}"
                found.append(_Plan(model, model.labels, variant, weight, sampler, count))
        found.append(_Plan(model, (None,), "free", None, sampler, count))
    return found


def _gallery(sets: Sequence[Judged], classifier: Classifier) -> tuple[Example, ...]:
    """The sounds to hear, class by class, all at the highest rate among them."""
    found = []
    for label in classifier.labels:
        sounds = [sound for made in sets for sound in made.kept.get(label, [])]
        if sounds:
            rate = max(rate for _, _, rate in sounds)
            waves = {caption: np.asarray(resample(wave, own, rate)) for caption, wave, own in sounds}
            found.append(Example(label, rate, None, None, waves, small=True))
    return tuple(found)


def find_sets(root: str | Path, limit: int | None = None) -> tuple[list[Clip], list[Clip]]:
    """(training, test) clips of a folder or table, an even choice of `limit` of each."""
    return even(find_clips(root, "train"), limit), even(find_clips(root, "test"), limit)


def even(clips: list[Clip], limit: int | None) -> list[Clip]:
    """At most `limit` of the clips, evenly chosen."""
    if limit is None or limit >= len(clips):
        return clips
    return [clips[int(i)] for i in np.linspace(0, len(clips) - 1, limit).round()]
