"""`evaluate` over a corpus, by the workers of `fromnoise.batch`: in parts, and gone on with after any end.

    REPORT/scores/NAME.json    what came of one pair or mixture: the scores of every row, and seconds of work
    REPORT/manifest.jsonl      which of them are done

Every worker opens all models once, and does every row of a pair with its scores. The run that finds all pairs done,
its own and those of other parts, makes the report of what they found.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from fromnoise.cli import common, contest, corpus, work

if TYPE_CHECKING:
    from fromnoise.batch import Item, Manifest
    from fromnoise.cli.asked import Items
    from fromnoise.evaluation.found import Found
    from fromnoise.evaluation.run import Evaluation
    from fromnoise.evaluation.trial import Trial

FORBIDDEN = frozenset('<>:"|?*\\\0')  # in names of files, on one system or another


@dataclass(frozen=True)
class Answer:
    """How a run went: the report's content, None where `waiting` pairs are not done, and failures of this run."""

    result: "Evaluation | None"
    waiting: int = 0
    failed: list[work.Record] = field(default_factory=list)


def check(asked: corpus.Asked) -> list[str]:
    """The devices of the workers. Raises InputError for options that contradict one another."""
    from fromnoise.types import InputError

    if asked.output is None:
        raise InputError(
            "--shard, --engine and --address keep scores and a manifest in the report's folder; name one by -o REPORT"
        )
    asked.check()
    if asked.address is not None:  # a cluster's devices are not those of this machine
        return asked.devices
    return [str(common.choose_device(name)) for name in asked.devices]


def run(items: "Items", load: Callable[[str], list[Any]], asked: corpus.Asked, voice: common.Voice) -> Answer:
    """Score what is not done of this part; the report's content if nothing is left anywhere.

    load: device -> the models once more. asked.output: the folder of the report.
    """
    import fromnoise
    from fromnoise.batch import Manifest, Task
    from fromnoise.evaluation.report import versions

    assert asked.output is not None
    trial = items.make(items.models)
    models = [corpus.fingerprint(one) if hasattr(one, "card") else os.path.abspath(one.folder) for one in items.models]
    named = [[one.name, content] for one, content in zip(items.models, models, strict=True)]
    settings = {"models": named, **items.decisive, "packages": versions()}
    every = _listed(trial, asked.output)
    token = Manifest(asked.output, settings, fromnoise.__version__, asked.part).run
    task = Task(partial(_open, items.make, load, os.path.abspath(asked.output)), partial(_score, token))
    outcome, _, _ = asked.go_through(every, task, settings, voice, False)
    with Manifest(asked.output, settings, fromnoise.__version__, asked.part) as manifest:
        waiting = sum(not _settled(item, manifest) for item in every)
        found = [] if waiting else list(_gathered(trial, every, manifest))
    if waiting:
        return Answer(None, waiting, outcome.failed)
    heard = []
    if items.examples:
        place = common.choose_device("auto" if asked.address else asked.devices[0])
        for one in items.models:
            if hasattr(one, "card"):
                one.to(place)
        heard = trial.examples(items.examples)
    return Answer(trial.evaluation(found, heard), 0, outcome.failed)


def _listed(trial: "Trial[Any]", folder: Path) -> "list[Item]":
    """The items: every pair with all its files, and where its scores go. Raises InputError for two of one name."""
    from fromnoise.batch import Item
    from fromnoise.batch.items import states
    from fromnoise.types import InputError

    items: dict[str, Item] = {}
    for index in range(len(trial.subject)):
        name, files = trial.subject.name(index), trial.subject.files(index)
        place = str(_place(folder, name))
        if place in items:
            raise InputError(f"two recordings are called {name!r}, and scores are kept by name; rename one of them")
        of_each = states(files)
        state = sum(size for size, _ in of_each), sum(changed for _, changed in of_each)
        items[place] = Item(str(files[0]), (place,), state)
    return list(items.values())


def _place(folder: Path, name: str) -> Path:
    """Where the scores of a pair go: by its name, or, where no file can be called so, by the name's SHA-256."""
    parts = PurePosixPath(name).parts
    odd = FORBIDDEN & set(name) or any(part in ("..", "/") or len(part.encode()) > 200 for part in parts)
    return folder / "scores" / f"{sha256(name.encode()).hexdigest() if odd or not parts else name}.json"


@dataclass(frozen=True)
class _Desk:
    """What a worker opens: the trial with models of its own, and which number an output has."""

    trial: "Trial[Any]"
    numbers: Mapping[str, int]


def _open(
    make: Callable[[Sequence[Any]], "Trial[Any]"], load: Callable[[str], list[Any]], folder: str, device: str
) -> _Desk:
    """What a worker does first."""
    trial = make(load(device))
    names = [trial.subject.name(index) for index in range(len(trial.subject))]
    return _Desk(trial, {str(_place(Path(folder), name)): index for index, name in enumerate(names)})


def _score(token: str, desk: _Desk, item: "Item") -> work.Record:
    """Every row on one pair; a pair that has no score at all in some row is a failure, though it is written."""
    from fromnoise.files import write_whole

    trial, target = desk.trial, os.path.abspath(item.outputs[0])
    found = trial.find(desk.numbers[target])
    write_whole(target, json.dumps({"run": token, **found.plain(trial.labels)}, allow_nan=False).encode())
    spent = sum(cost.seconds for cost in found.costs if cost is not None)
    record = {"output": item.outputs[0], "seconds": found.seconds or 0.0, "work_seconds": spent, "error": None}
    lacking = [(label, one) for label, one in zip(trial.labels, found.scores, strict=True) if contest.lacks(one)]
    if lacking:
        label, scores = lacking[0]
        more = f" (as in {len(lacking) - 1} more rows)" if len(lacking) > 1 else ""
        record["error"] = f"{label}: {found.name} has no score: {next(iter(scores.reasons.values()))}{more}"
    return record


def _settled(item: "Item", manifest: "Manifest") -> bool:
    """Whether an item is done, or given up as it is now, by whatever part."""
    line = manifest.last.get(manifest.key(item), {})
    given_up = line.get("error") and line.get("run") == manifest.run and line.get("state") == list(item.state)
    return bool(given_up) or manifest.is_done(item)


def _gathered(trial: "Trial[Any]", items: "Sequence[Item]", manifest: "Manifest") -> "Iterator[Found[Any]]":
    """What was found of every item."""
    for index, item in enumerate(items):
        plain = _read(Path(item.outputs[0]))
        if plain.get("run") == manifest.run:
            yield trial.restored(plain)
        else:  # of an item that was given up there may be older scores, or none
            yield trial.missed(index, str(manifest.last[manifest.key(item)].get("error")))


def _read(path: Path) -> dict[str, Any]:
    """The content of a file of scores, empty where there is none: the process that was to write it may have ended."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
