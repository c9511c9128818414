"""Where single recordings lie, what is said in them, and which of them are for training.

    csv        a table with the columns file, and if there are label, speaker, split (train, valid, test; rows of any
               other split are never used); others may hold captions and the licence
    jsonl      the same as JSON lines
    ljspeech   metadata.csv and wavs/; LJ001* are for testing and LJ002* for validation, so that what LMNT's DiffWave
               holds out is held out here
    sc09       the ten digit folders of Speech Commands, files with `_nohash_` in their name; validation_list.txt and
               testing_list.txt where they are, or else the rule that made them: by the hash of the speaker's name
    flat       sound files anywhere below a folder. With train/, valid/ and test/ these are the splits. Without, the
               files whose names hash lowest are held out, `valid_share` of them, and the test set is all of them. The
               label is the name of the first folder on the way.

"Speech Commands": Warden, 2018, https://arxiv.org/abs/1804.03209. No torch here.
"""

import csv
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fromnoise.data.layouts import SUFFIXES, Split, input_error, speaker_of

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
Layout = Literal["auto", "flat", "sc09", "ljspeech", "csv", "jsonl"]
VALID_SHARE = 0.02
_HASH_SPAN = 2**27  # the rule of Speech Commands: sha1(speaker) modulo this, as percent
_LISTS = {"valid": "validation_list.txt", "test": "testing_list.txt"}


@dataclass(frozen=True)
class Clip:
    """One recording; label "" where nothing says what it holds. facts: the other columns of its row in a table."""

    path: Path
    label: str = ""
    speaker: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)


def find_clips(
    root: str | os.PathLike[str], split: Split = "train", layout: Layout = "auto", valid_share: float = VALID_SHARE
) -> list[Clip]:
    """The recordings of a split, in the order of their paths. Raises InputError when there is none."""
    place = Path(root)
    if not place.exists():
        raise input_error(f"{place}: no such folder or table; correct the path (in a recipe: data.root)")
    kind = _layout(place) if layout == "auto" else layout
    found = _flat(place, split, valid_share) if kind == "flat" else _READERS[kind](place, split)
    if not found:
        raise input_error(f"{place}: no sound files for {split!r} in the layout {kind!r}; see docs/data.md")
    return sorted(found, key=lambda clip: clip.path.as_posix())


def _layout(place: Path) -> str:
    if place.suffix == ".jsonl":
        return "jsonl"
    if place.suffix == ".csv" or "file" in _columns(place / "metadata.csv"):
        return "csv"
    if (place / "wavs").is_dir() and (place / "metadata.csv").is_file():
        return "ljspeech"
    return "sc09" if all((place / digit).is_dir() for digit in DIGITS) else "flat"


def _columns(table: Path) -> list[str]:
    """The first row of a table; empty where there is none."""
    if not table.is_file():
        return []
    with table.open(encoding="utf-8", newline="") as file:
        return next(csv.reader(file), [])


def _table(place: Path, split: Split) -> list[Clip]:
    path = place if place.suffix == ".csv" else place / "metadata.csv"
    if "file" not in _columns(path):
        raise input_error(f"{path}: expected a table with a column 'file' (and label, speaker, split)")
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("split", split) == split]
    return [_row(path.parent / row["file"], row) for row in rows]


def _lines(place: Path, split: Split) -> list[Clip]:
    found = []
    for number, line in enumerate(place.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise input_error(f"{place}, line {number} is not JSON ({error}); expected one object a line") from error
        if not isinstance(row, dict) or not isinstance(row.get("file"), str):
            raise input_error(f"{place}, line {number}: expected an object with 'file' (and caption, label, split)")
        if row.get("split", split) == split:
            found.append(_row(place.parent / row["file"], row))
    return found


def _row(path: Path, row: Mapping[str, Any]) -> Clip:
    facts = {key: value for key, value in row.items() if key not in ("file", "label", "speaker", "split")}
    return Clip(path, str(row.get("label") or ""), str(row.get("speaker") or speaker_of(path)), facts)


def _ljspeech(place: Path, split: Split) -> list[Clip]:
    held: dict[str, Split] = {"LJ001": "test", "LJ002": "valid"}
    sounds = _sounds(place / "wavs")
    return [Clip(path, "", "ljspeech") for path in sounds if held.get(path.stem[:5], "train") == split]


def _sc09(place: Path, split: Split) -> list[Clip]:
    files = [path for digit in DIGITS for path in _sounds(place / digit) if "_nohash_" in path.name]
    split_of = _by_list(place, split) or hashed_split
    return [
        Clip(path, path.parent.name, path.name.split("_nohash_")[0])
        for path in files
        if split_of(f"{path.parent.name}/{path.name}") == split
    ]


def _by_list(place: Path, split: Split) -> Callable[[str], str] | None:
    """The rule "what the lists say", None where there are no lists."""
    there = {kind: place / name for kind, name in _LISTS.items() if (place / name).is_file()}
    if not there:
        return None
    if split in _LISTS and split not in there:
        raise input_error(f"{place}: has no {_LISTS[split]} beside its other list; copy it from Speech Commands")
    listed = {line.strip(): kind for kind, path in there.items() for line in path.read_text("utf-8").splitlines()}
    return lambda name: listed.get(name, "train")


def hashed_split(name: str) -> Split:
    """Speech Commands' own rule: all clips of a speaker fall together, 10 % of the hashes each to valid and test.

    >>> hashed_split("seven/3f45hg12_nohash_0.wav") == hashed_split("one/3f45hg12_nohash_4.wav")
    True
    """
    speaker = name.rsplit("/", 1)[-1].split("_nohash_")[0]
    percent = int(hashlib.sha1(speaker.encode(), usedforsecurity=False).hexdigest(), 16) % _HASH_SPAN
    percent = percent * 100 / (_HASH_SPAN - 1)
    return "valid" if percent < 10 else "test" if percent < 20 else "train"


def _flat(place: Path, split: Split, valid_share: float) -> list[Clip]:
    own = place / split
    if own.is_dir() and (split != "train" or (place / "valid").is_dir()):
        return [_below(path, own) for path in _sounds(own)]
    base = place / "train" if (place / "train").is_dir() and split != "test" else place
    clips = [_below(path, base) for path in _sounds(base)]
    return clips if split == "test" else _held(clips, base, split, valid_share)


def _held(clips: list[Clip], place: Path, split: Split, share: float) -> list[Clip]:
    """The training or the validation part of clips that nobody split."""
    ranked = sorted(clips, key=lambda clip: hashlib.sha1(clip.path.relative_to(place).as_posix().encode()).digest())
    held = math.ceil(share * len(clips))
    return ranked[:held] if split == "valid" else ranked[held:]


def _below(path: Path, place: Path) -> Clip:
    folders = path.relative_to(place).parts[:-1]
    return Clip(path, folders[0] if folders else "", speaker_of(path))


def _sounds(folder: Path) -> list[Path]:
    """Sound files anywhere below a folder that may be missing; hidden files are none."""
    return [p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.name[0] != "." and p.is_file()]


_READERS: dict[str, Callable[[Path, Split], list[Clip]]] = {
    "csv": _table,
    "jsonl": _lines,
    "ljspeech": _ljspeech,
    "sc09": _sc09,
}
