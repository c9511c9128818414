"""Where mixtures with known sources lie (see `timeline` for what a mixture is).

{2,3}speakers/wav{8,16}k/{min,max}/{tr,cv,tt}/{s1,s2,...}               wsj0_mix
Libri{2,3}Mix/wav{8,16}k/{min,max}/{train-360,dev,test}/{s1,s2,...}     LibriMix
s1/ s2/ ...                              one set, equal names; any of the upper folders may be left out
<split>/noisy/ and <split>/clean/ ...    pairs of `layouts`: the sources are the speech and noisy - clean
list.csv                                 see `lists`
list.jsonl                               pairs: one {"noisy": path, "clean": path} a line
"""

import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fromnoise.data.layouts import SUFFIXES, Pair, Split, find_pairs, has_split, layouts
from fromnoise.data.lists import raise_all, read_list
from fromnoise.data.timeline import Mixture, Mode, Part
from fromnoise.types import InputError

__all__ = ["SPLITS", "Mixture", "Mode", "Part", "find_mixtures", "has_mixtures"]

SPLITS = {
    "train": ("train", "tr", "train-360", "train-100"),
    "valid": ("valid", "cv", "dev"),
    "test": ("test", "tt"),
}
"""The names that the folder of a split may have, the preferred one first."""
_SETS = ("", "2speakers", "3speakers", "Libri2Mix", "Libri3Mix")
_RATES = {"wav8k": 8000, "wav16k": 16000}


def find_mixtures(
    place: str | os.PathLike[str],
    split: str = "test",
    mode: Mode = "min",
    sample_rate: int = 8000,
    speakers: int | None = None,
    mix: str = "",
) -> list[Mixture]:
    """The mixtures of a list, or of a split of a folder, in the order of the list or of their names.

    split: "train", "valid", "test", or the name of a folder such as "train-100". speakers: how many sources, where a
    folder holds sets of several sizes; anything else is an error. mix: the folder of the recorded mixtures (`mix_both`
    of LibriMix: with noise; for a list of LibriMix, anything), "" for the sum of the sources. Raises InputError that
    names everything that is wrong.
    """
    root = Path(place)
    if not root.exists():
        raise InputError(f"{root}: no such folder or list of mixtures; correct the path (in a recipe: data.root)")
    if mode not in ("min", "max"):
        raise InputError(f"mode must be min or max, got {mode!r}")
    if root.suffix == ".csv":
        found = read_list(root, mode, sample_rate, mix)
    elif root.suffix == ".jsonl" or _holds_pairs(root, split):
        found = [_pair(pair, sample_rate) for pair in find_pairs(root, _kind(split))]
    elif root.is_dir():
        found = _laid_out(_choose(root, split, mode, sample_rate, speakers), mode, sample_rate, mix)
    else:
        raise InputError(f"{root}: expected a folder, a .csv list of mixtures or a .jsonl list of pairs")
    if speakers is not None and len(found[0].parts) != speakers:
        raise InputError(f"{root}: expected mixtures of {speakers} sources, got {len(found[0].parts)}; choose others")
    return found


def has_mixtures(place: str | os.PathLike[str], split: str) -> bool:
    """Whether a folder has a part of its own for a split."""
    root = Path(place)
    pairs = split in SPLITS and has_split(root, _kind(split))
    return root.is_dir() and (pairs or any(found.split for found in _sets(root, split)))


def _kind(split: str) -> Split:
    """Which of the three kinds a split is; a folder's own name that is none of theirs counts as training."""
    return "valid" if split in SPLITS["valid"] else "test" if split in SPLITS["test"] else "train"


def _holds_pairs(root: Path, split: str) -> bool:
    return any((root / noisy).is_dir() and (root / clean).is_dir() for noisy, clean in layouts(_kind(split)))


def _pair(pair: Pair, sample_rate: int) -> Mixture:
    return Mixture(pair.name, (Part(pair.clean), Part(pair.noisy, less=pair.clean)), sample_rate)


@dataclass(frozen=True)
class _Set:
    """One folder with s1, s2, ... and where it stands in the layout; "" for what is left out."""

    folder: Path
    rate: str
    mode: str
    split: str

    @property
    def speakers(self) -> int:
        return next(k for k in itertools.count(1) if not (self.folder / f"s{k + 1}").is_dir())


def _sets(root: Path, split: str) -> Iterator[_Set]:
    """Every set of a split below a folder, and the folder itself if it is one."""
    names = SPLITS.get(split, (split,))
    for name, rate, mode, part in itertools.product(_SETS, ("", *_RATES), ("", "min", "max"), (*names, "")):
        folder = root / name / rate / mode / part
        if (folder / "s1").is_dir() and (folder / "s2").is_dir():
            yield _Set(folder, rate, mode, part)


def _choose(root: Path, split: str, mode: Mode, sample_rate: int, speakers: int | None) -> Path:
    """The one set that is meant."""
    there = list(_sets(root, split))
    there = [found for found in there if found.split] or there
    if not there:
        raise InputError(_no_set(root, split))
    if speakers is not None:
        fitting = [found for found in there if found.speakers == speakers]
        if not fitting:
            raise InputError(f"{root}: expected mixtures of {speakers} sources, got {_any(f.speakers for f in there)}")
        there = fitting
    fitting = [found for found in there if found.mode in ("", mode)]
    if not fitting:
        raise InputError(f"{root}: has no folder {mode!r}, but {_any(f.mode for f in there)}; choose that mode")
    rates = [_RATES.get(found.rate, sample_rate) for found in fitting]
    usable = [rate for rate in rates if rate >= sample_rate]
    if not usable:
        raise InputError(f"{root}: expected sounds of {sample_rate} Hz or more, got {_any(rates)} Hz")
    there = [found for found, rate in zip(fitting, rates, strict=True) if rate == min(usable)]
    sizes = {found.speakers for found in there}
    if len(sizes) > 1:
        raise InputError(f"{root}: holds mixtures of {_any(sizes)} sources; name one of its folders")
    return there[0].folder


def _no_set(root: Path, split: str) -> str:
    lists = sorted(path.name for path in root.glob("*.csv"))
    hint = f"; it holds lists, name one of them: {', '.join(lists[:5])}" if lists else ""
    names = ", ".join(SPLITS.get(split, (split,)))
    return (
        f"{root}: expected folders s1/ and s2/ with equal names in them (below {names}, as in wsj0_mix and LibriMix), "
        f"or pairs in noisy/ and clean/{hint}; see docs/data.md"
    )


def _any(values: Iterable[object]) -> str:
    return " or ".join(sorted({str(value) for value in values}))


def _laid_out(folder: Path, mode: Mode, sample_rate: int, mix: str) -> list[Mixture]:
    sides = [f"s{k + 1}" for k in range(_Set(folder, "", "", "").speakers)]
    if mix and not (folder / mix).is_dir():
        raise InputError(f"{folder}: has no folder {mix!r} with recorded mixtures; correct mix, or leave it empty")
    files = {side: _by_name(folder / side) for side in [*sides, *([mix] if mix else [])]}
    names = sorted(set().union(*files.values()))
    problems = [f"{side}/ has no {name}" for name in names for side, found in files.items() if name not in found]
    if not names:
        problems = ["no sound files in s1/"]
    raise_all(folder, problems)
    return [
        Mixture(
            name,
            tuple(Part(files[side][name]) for side in sides),
            sample_rate,
            mode,
            recorded=files[mix][name] if mix else None,
        )
        for name in names
    ]


def _by_name(side: Path) -> dict[str, Path]:
    return {p.stem: p for p in side.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != "."}
