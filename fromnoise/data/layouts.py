"""Where pairs of recordings lie: folder layouts, manifests, and whose voice a file name names.

A pair is one noisy recording and its clean reference with the same path below their two folders (the suffix may
differ). Read as they are, for a split of `train`, `valid` or `test`:

    <split>/noisy/       <split>/clean/            SGMSE and most others
    noisy_trainset_28spk_wav/  clean_...           VoiceBank-DEMAND (also trainset, trainset_56spk, testset)
    isolated/et05_*_simu/  isolated_ext/...        CHiME-4's simulated sets, channel 5: X.CH5.wav and X.CH5.Clean.wav
    noisy/               clean/                    one set without a split
    pairs.jsonl                                    one {"noisy": path, "clean": path} a line

No torch here: a process that only measures starts faster without it.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".w64", ".caf", ".m4a", ".webm")
Split = Literal["train", "valid", "test"]
CHIME4 = {"train": "tr05", "valid": "dt05", "test": "et05"}
VOICEBANK = {"train": ("trainset_28spk", "trainset", "trainset_56spk"), "valid": (), "test": ("testset",)}


@dataclass(frozen=True)
class Pair:
    """A noisy recording and its clean reference; `name` is the path below the folder, without suffix, with slashes."""

    name: str
    noisy: Path
    clean: Path


@dataclass(frozen=True)
class Pairs(Sequence[Pair]):
    """Pairs in the order of their names, and the files that found no partner, each as one sentence."""

    items: tuple[Pair, ...]
    skipped: tuple[str, ...] = ()

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> "Pairs": ...
    def __getitem__(self, index: int | slice) -> "Pair | Pairs":
        return Pairs(self.items[index], self.skipped) if isinstance(index, slice) else self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.items)


def layouts(split: Split = "test") -> list[tuple[str, str]]:
    """The names of (noisy, clean) folders that are looked for, in order."""
    named = [(f"noisy_{name}_wav", f"clean_{name}_wav") for name in VOICEBANK[split]]
    return [(f"{split}/noisy", f"{split}/clean"), *named, ("noisy", "clean")]


def has_split(folder: str | os.PathLike[str], split: Split) -> bool:
    """Whether a folder has a part of its own for a split."""
    root = Path(folder)
    named = any((root / noisy).is_dir() and (root / clean).is_dir() for noisy, clean in layouts(split)[:-1])
    return named or any(_chime4(root, split))


def find_pairs(folder: str | os.PathLike[str], split: Split = "test") -> Pairs:
    """The pairs of a folder (or of a `.jsonl` manifest), in the first of the layouts of `split` that is there.

    Files without a partner are named in `skipped`. Raises InputError when the folder is not laid out so, or holds no
    pair at all.
    """
    root = Path(folder)
    if root.suffix == ".jsonl":
        return _listed(root)
    found = [(root / noisy, root / clean) for noisy, clean in layouts(split)]
    found = [(noisy, clean) for noisy, clean in found if noisy.is_dir() and clean.is_dir()]
    if found:
        noisy, clean = (_by_name(side) for side in found[0])
        return _matched(root, noisy, clean, [side.relative_to(root).as_posix() for side in found[0]])
    noisy, clean = _chime4(root, split)
    if noisy or clean:
        return _matched(root, noisy, clean, ["isolated", "isolated_ext"])
    names = "; ".join(f"{noisy}/ and {clean}/" for noisy, clean in layouts(split))
    raise input_error(
        f"{root}: expected a folder with pairs, one of: {names}; or CHiME-4's isolated/ and isolated_ext/"
    )


def _matched(root: Path, noisy: dict[str, Path], clean: dict[str, Path], sides: Sequence[str]) -> Pairs:
    """Files of equal names; raises InputError when there is none."""
    alone = [f"{sides[0]}/{name} has no partner in {sides[1]}/" for name in sorted(noisy.keys() - clean.keys())]
    alone += [f"{sides[1]}/{name} has no partner in {sides[0]}/" for name in sorted(clean.keys() - noisy.keys())]
    both = sorted(noisy.keys() & clean.keys())
    if not both:
        detail = f"; {alone[0]}" if alone else ""
        raise input_error(f"{root}: no pair of audio files with equal names in {sides[0]}/ and {sides[1]}/{detail}")
    return Pairs(tuple(Pair(name, noisy[name], clean[name]) for name in both), tuple(alone))


def _chime4(root: Path, split: Split) -> tuple[dict[str, Path], dict[str, Path]]:
    """Noisy and clean files of channel 5 of a simulated set by names like et05_bus_simu/F05_440C0201_BUS."""

    def side(name: str, ending: str) -> dict[str, Path]:
        files = sorted((root / name).glob(f"{CHIME4[split]}_*_simu/*{ending}"))
        return {f"{path.parent.name}/{path.name.removesuffix(ending)}": path for path in files}

    return side("isolated", ".CH5.wav"), side("isolated_ext", ".CH5.Clean.wav")


def _listed(manifest: Path) -> Pairs:
    lines = read_manifest(manifest, ("noisy", "clean"))
    pairs = [Pair(line["noisy"].stem, line["noisy"], line["clean"]) for line in lines]
    if not pairs:
        raise input_error(f'{manifest}: expected lines like {{"noisy": "a.wav", "clean": "b.wav"}}, it is empty')
    return Pairs(tuple(pairs))


def read_manifest(path: Path, keys: Sequence[str]) -> list[dict[str, Path]]:
    """The paths under `keys` of each line of a JSON-lines file; relative ones start at the manifest's folder."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        values: Any = None
        try:
            values = json.loads(line)
            found.append({key: path.parent / values[key] for key in keys})
        except (ValueError, KeyError, TypeError) as error:
            wanted = ", ".join(f'"{key}": path' for key in keys)
            raise input_error(f"{path}: line {number}: expected {{{wanted}}}, got {line.strip()[:80]}") from error
    return found


def speaker_of(path: str | os.PathLike[str]) -> str:
    """Whose voice a file holds, by the customs of corpora: the name up to the first `_`, or, where only digits and
    hyphens stand (LibriSpeech), up to the first `-`.

    >>> speaker_of("wav/p226_001.wav"), speaker_of("ls-1034_121119-0000.flac"), speaker_of("84-121123-0001.flac")
    ('p226', 'ls-1034', '84')
    """
    stem = Path(path).stem
    return stem.split("-")[0] if re.fullmatch(r"\d+(-\d+)+", stem) else stem.split("_")[0]


def _by_name(side: Path) -> dict[str, Path]:
    """Audio files below a folder by relative name without suffix; hidden files are not audio."""
    files: dict[str, Path] = {}
    for path in sorted(side.rglob("*")):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file():
            name = path.relative_to(side).with_suffix("").as_posix()
            if name in files:
                raise input_error(f"{path}: has the same name as {files[name].name}; keep one of the two")
            files[name] = path
    return files


def input_error(message: str) -> ValueError:
    from fromnoise.types import InputError  # here, so that a process that only measures does not import torch

    return InputError(message)
