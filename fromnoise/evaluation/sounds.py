"""Sets of sounds beside real ones, by embedders and by what was asked for: made from labels, from texts, or freely.

Rows of the report, each compared with the data (the sounds of DATA):

    data, half by half    one half of the data, drawn by file, beside the other half: what real sounds get in sets of
                          half the size
    a folder              finished sounds, as they are
    a generator           a sound for every clip of the data, from the clip's caption, its label, or nothing, as the
                          model can; so the set made has the composition of the real one

Scores of a set are the distances of each embedder; scores of a sound say whether it is what was asked for. That is read
from a table in the folder (columns label, caption), else from the clip of DATA with the same name, else from the file's
own name: `rain-on-leaves_3` was asked for as "rain on leaves", `dog_3` as "dog". Nothing is matched by order. A sound
that an embedder cannot take is counted, with the reason, in the scores of that embedder.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from fromnoise.data.audio import read, resample
from fromnoise.data.captions import captions_of
from fromnoise.data.layouts import Pair, Split
from fromnoise.data.places import Clip, find_clips
from fromnoise.evaluation.distances import SOUND_METRICS
from fromnoise.evaluation.fingerprints import fingerprint
from fromnoise.evaluation.judged import label_place
from fromnoise.evaluation.rows import Example, Meta
from fromnoise.evaluation.run import EXPECTED, Evaluation, Progress, Results, item_seed
from fromnoise.evaluation.sets import even
from fromnoise.evaluation.sound_sets import SoundSet, Tools, Wish
from fromnoise.types import InputError

FREE = "free"  # how files without label and text are called
MADE_NAME = re.compile(r"(.+)_\d+")  # of a file that `fromnoise generate` has written
NOTES = 5  # kinds of missing scores that are told of a set
EVERY_METRIC = (*SOUND_METRICS, "accuracy")


@runtime_checkable
class Generator(Protocol):
    """What can make a set: a task of the toolkit, or anything with the same members."""

    @property
    def name(self) -> str: ...
    @property
    def sample_rate(self) -> int: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def reads_text(self) -> bool: ...
    def network_calls(self, steps: int | None, sampler: str | None) -> int: ...
    def batches(
        self,
        count: int,
        *,
        label: str | None,
        text: str | None,
        seed: int,
        steps: int | None,
        sampler: str | None,
        guidance: float | None,
        batch_size: int,
    ) -> Iterator[Float[np.ndarray, "b 1 n"]]: ...


def evaluate_sounds(
    contestants: Sequence[Generator | Results],
    data: Sequence[Clip],
    tools: Tools,
    *,
    metrics: Sequence[str] = (),
    guidance: Sequence[float | None] = (None,),
    steps: Sequence[int | None] = (None,),
    samplers: Sequence[str | None] = (None,),
    seed: int = 0,
    batch_size: int = 16,
    examples: int = 4,
    progress: Progress | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Score every folder and every generator with every setting beside the data.

    metrics: of those that the tools can give, all by default. examples: wishes to hear. progress: called with (done,
    total, what was done).
    """
    names = chosen_metrics(metrics, tools)
    folders = {one.name: find_clips(one.folder, "test") for one in contestants if isinstance(one, Results)}
    plans = [
        plan
        for one in contestants
        if not isinstance(one, Results)
        for plan in _plans(one, data, guidance, samplers, steps)
    ]
    wishes = {clip.path.stem: wish_of(clip) for clip in data}
    hear = list(dict.fromkeys(wish.title for wish in wishes.values()))[:examples]
    total = len(data) + sum(map(len, folders.values())) + sum(plan.count for plan in plans)
    done = 0

    def tell(what: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total, what)

    real = SoundSet(tools, "data", hear=hear)
    _read_into(real, data, {}, tell)
    sets = []
    for one in contestants:
        if isinstance(one, Results):
            sets.append(SoundSet(tools, one.name, hear=hear))
            _read_into(sets[-1], folders[one.name], wishes, tell)
        else:
            sets += [plan.run(tools, seed, batch_size, hear, tell) for plan in plans if plan.model is one]
    rows = (_half_by_half(real, names, seed), *(made.row(real, names, seed) for made in sets))
    pairs = [Pair(clip.path.as_posix(), clip.path, clip.path) for clip in data]
    facts = {"embedders": [one.name for one in tools.embedders], "sounds_of_data": len(data)}
    facts |= {"models": [one.name for one in contestants], "samplers": list(samplers), "steps": list(steps)}
    skipped = tuple(
        f"{made.name}: {count} of {len(made.files)} sounds: {note}"
        for made in (real, *sets)
        for note, count in made.notes.most_common(NOTES)
    )
    meta = Meta(names, tools.rates, fingerprint(pairs), seed, facts | dict(settings or {}), skipped)
    return Evaluation(rows, _gallery(real, sets, hear), meta)


def chosen_metrics(metrics: Sequence[str], tools: Tools) -> tuple[str, ...]:
    """The names without repeats, all by default. Raises InputError for one that these tools cannot give."""
    for name in metrics:
        if name not in tools.metrics:
            why = "is not among the embedders" if name in EVERY_METRIC else "does not exist"
            raise InputError(f"the score {name!r} {why}; there are: {', '.join(tools.metrics)} (add one by --embedder)")
    return tuple(dict.fromkeys(metrics)) or tools.metrics


def real_clips(place: str, split: Split, without_licence: str | None, limit: int | None) -> list[Clip]:
    """The clips of DATA, an even choice of `limit`. Raises InputError where the licence leaves none."""
    found = find_clips(place, split)
    if without_licence:
        found = [clip for clip in found if without_licence not in str(clip.facts.get("licence", ""))]
        if not found:
            raise InputError(f"{place}: no clip for {split!r} is left without the licence {without_licence!r}")
    return even(found, limit)


def wish_of(clip: Clip, named: Mapping[str, Wish] | None = None) -> Wish:
    """What a sound should be: see the module's text. named: what the clips of DATA are, by name."""
    known = (named or {}).get(clip.path.stem, Wish())
    called = MADE_NAME.fullmatch(clip.path.stem) if named is not None and known == Wish() else None
    words = "" if called is None or called[1] == FREE else " ".join(re.split(r"[\s_-]+", called[1]))
    caption = captions_of(clip, ("caption",))[0] if clip.facts.get("caption") else ""
    label = clip.label or known.label or words
    return Wish(label, caption or known.text or " ".join(re.split(r"[\s_-]+", label)))


def _read_into(made: SoundSet, clips: Sequence[Clip], named: Mapping[str, Wish], tell: Callable[[str], None]) -> None:
    """Every clip, or the reason why not."""
    for clip in clips:
        name = clip.path.as_posix()
        try:
            wave, rate = read(clip.path)
        except EXPECTED as error:
            made.fail(name, str(error))
        else:
            made.add(name, wave, rate, wish_of(clip, named))
        tell(f"{made.name}: {clip.path.name}")


def _half_by_half(real: SoundSet, metrics: Sequence[str], seed: int) -> Any:
    """The row of one half of the data beside the other; single sounds are judged all."""
    order = np.random.default_rng(seed).permutation(len(real.files)).tolist()
    half = len(order) // 2
    row = real.part(order[:half]).row(real.part(order[half:]), metrics, seed)
    single = real.row(real, [name for name in metrics if name not in row.whole and name not in row.reasons_whole], seed)
    return replace(row, variant="half by half", files=single.files, scores=single.scores)


class _Plan:
    """One row of a generator: a sound for each clip of the data."""

    def __init__(
        self, model: Generator, wishes: Counter[Wish], guidance: float | None, sampler: str | None, steps: int | None
    ) -> None:
        self.model, self.wishes = model, wishes
        self.guidance, self.sampler, self.steps = guidance, sampler, steps

    @property
    def count(self) -> int:
        return self.wishes.total()

    def run(
        self, tools: Tools, seed: int, batch_size: int, hear: Sequence[str], tell: Callable[[str], None]
    ) -> SoundSet:
        """Make the sounds and judge them."""
        calls = self.model.network_calls(self.steps, self.sampler)
        variant = "" if self.guidance is None else f"guidance {self.guidance:g}"
        made = SoundSet(tools, self.model.name, variant, self.sampler, self.steps, calls, hear=hear)
        work = sound = 0.0
        for wish, count in self.wishes.items():
            told = {"text": wish.text} if self.model.reads_text else {"label": wish.label or None}
            begun = time.perf_counter()
            batches = self.model.batches(
                count, **{"label": None, "text": None, **told}, seed=item_seed(seed, wish.title), steps=self.steps,
                sampler=self.sampler, guidance=self.guidance, batch_size=batch_size,
            )  # fmt: skip
            waves = [wave for batch in batches for wave in batch]
            work += time.perf_counter() - begun
            sound += sum(wave.shape[-1] for wave in waves) / self.model.sample_rate
            for i, wave in enumerate(waves):
                made.add(f"{wish.title}_{i}", wave, self.model.sample_rate, wish)
                tell(f"{self.model.name}: {wish.title}")
        made.real_time_factor = work / sound
        return made


def _plans(
    model: Generator,
    data: Sequence[Clip],
    guidance: Sequence[float | None],
    samplers: Sequence[str | None],
    steps: Sequence[int | None],
) -> list[_Plan]:
    """The rows of one generator. Raises InputError, before anything is made, for what it does not know."""
    found = [wish_of(clip) for clip in data]
    if not model.reads_text:
        found = [_by_label(wish, model.labels) for wish in found]
    lost = sorted({wish.label for wish in found if model.labels and wish.label and wish.label not in model.labels})
    silent = sum(not (wish.text if model.reads_text else wish.label) for wish in found)
    if not model.reads_text and lost:
        raise InputError(f"the data has the labels {', '.join(lost[:8])}, which {model.name!r} cannot make; it makes: "
                         f"{', '.join(model.labels)}. Leave their rows out of a copy of the table")  # fmt: skip
    if silent and (model.reads_text or model.labels):
        raise InputError(f"the data says of {silent} sounds nothing that {model.name!r} could make them from; expected "
                         "a column caption or label, or folders with the labels' names")  # fmt: skip
    for sampler, count in product(samplers, steps):
        model.network_calls(count, sampler)
    wishes = Counter(found)
    weights = guidance if model.reads_text or model.labels else (None,)
    return [
        _Plan(model, wishes, weight, sampler, count) for sampler, count, weight in product(samplers, steps, weights)
    ]


def _by_label(wish: Wish, labels: Sequence[str]) -> Wish:
    """What a model of these labels is told: its own name of the label, nothing where it has none."""
    place = label_place(wish.label, labels)
    return Wish(wish.label if place is None else labels[place]) if labels else Wish()


def _gallery(real: SoundSet, sets: Sequence[SoundSet], hear: Sequence[str]) -> tuple[Example, ...]:
    """For each title the real sound and those of every set, at the highest rate among them."""
    found = []
    for title in hear:
        sounds = {
            ", ".join(filter(None, (one.name, one.variant))): one.kept[title]
            for one in (real, *sets)
            if title in one.kept
        }
        if sounds:
            rate = max(own for _, own in sounds.values())
            waves = {label: np.asarray(resample(wave, own, rate)) for label, (wave, own) in sounds.items()}
            found.append(Example(title, rate, None, None, waves, small=True))
    return tuple(found)
