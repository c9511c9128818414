"""Tar shards as WebDataset lays them out: members whose names agree up to the first dot are one sample.

    train/000000.tar     a.flac a.json   b.flac b.json   ...
    train/index.json     how many samples each shard holds, in the form of webdataset's `widsindex`; not needed

A place is one shard, a folder of them, or a pattern: `shards/{000000..000009}.tar`, `shards/{a,b}.tar`, `shards/*.tar`.
A member is named as a file in a folder would be, `shards/000000.tar/a.flac`, and is read at its place in the shard;
nothing is unpacked. Only the headers of a shard are read for the list of its members. No torch here.
"""

import glob
import io
import itertools
import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fromnoise.files import WholeFile
from fromnoise.types import InputError

INDEX = "index.json"
_NOTES = (".json", ".txt", ".md")
_END = 2 * tarfile.BLOCKSIZE  # that many zeros
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


@dataclass(frozen=True)
class Member:
    """Where the content of a member lies in its shard, in bytes."""

    offset: int
    size: int


def is_shards(place: str | Path) -> bool:
    """Whether a place names tar shards: a pattern or name ending in .tar, or a folder of nothing else (but notes)."""
    if str(place).endswith(".tar"):
        return True
    if not Path(place).is_dir():
        return False
    found = False
    for path in Path(place).iterdir():  # left at the first recording, however many there are
        if path.name[0] != "." and path.suffix not in _NOTES:
            if path.suffix != ".tar":
                return False
            found = True
    return found


def find_shards(place: str | Path) -> list[Path]:
    """The shards that a place names, in sorted order. Raises InputError when one is missing, or there is none."""
    if not str(place).endswith(".tar"):
        found = [path for path in Path(place).glob("*.tar") if path.name[0] != "."]
    else:
        named = [str(name) for name in braced(str(place))]
        magic = any(map(glob.has_magic, named))
        found = [Path(p) for name in named for p in (glob.glob(name) if magic else [name])]
    missing = [path for path in found if not path.is_file()]
    if missing:
        raise InputError(
            f"{missing[0]}: no such shard ({len(missing)} of {len(found)} are missing); correct the pattern"
        )
    if not found:
        raise InputError(
            f"{place}: no tar shards; expected a folder with *.tar or a pattern like {{000000..000009}}.tar"
        )
    return sorted(set(found))


def braced(pattern: str) -> Iterator[str]:
    """Every name that a pattern with braces stands for.

    >>> list(braced("{a,b}-{08..10}.tar"))[:4]
    ['a-08.tar', 'a-09.tar', 'a-10.tar', 'b-08.tar']
    """
    pieces = _BRACES.split(pattern)
    choices = [[piece] if i % 2 == 0 else _choices(piece) for i, piece in enumerate(pieces)]
    yield from map("".join, itertools.product(*choices))


def _choices(inside: str) -> list[str]:
    limits = _RANGE.fullmatch(inside)
    if limits is None:
        return inside.split(",")
    first, last = limits.groups()
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]


def members(shard: Path) -> Mapping[str, Member]:
    """The regular files of a shard by name, in its order. Raises InputError for a shard that is cut or is none."""
    try:
        state = shard.stat()
    except OSError as error:
        raise InputError(f"{shard}: cannot be read: {error.strerror or error}") from error
    return _members(shard, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _members(shard: Path, size: int, changed: int) -> Mapping[str, Member]:
    found: dict[str, Member] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for entry in tar:
                if entry.isreg() and not entry.issparse():
                    found[entry.name.removeprefix("./")] = Member(entry.offset_data, entry.size)
    except (tarfile.TarError, OSError) as error:
        raise InputError(
            f"{shard}: is not a tar file that can be read ({error}); expected a whole one that is not compressed"
        ) from error
    if not _has_end(shard, size) or any(one.offset + one.size > size for one in found.values()):
        raise InputError(f"{shard}: truncated: the mark of a tar file's end is missing; copy or download it again")
    return found


def _has_end(shard: Path, size: int) -> bool:
    with shard.open("rb") as file:
        file.seek(max(0, size - _END))
        return file.read() == bytes(_END)


def samples(shard: Path) -> dict[str, dict[str, str]]:
    """Key of each sample -> what follows its first dot -> name of the member; in the order of the shard.

    `dir/a.clean.flac` is the part `clean.flac` of the sample `dir/a`.
    """
    found: dict[str, dict[str, str]] = {}
    for name in members(shard):
        folder, slash, last = name.rpartition("/")
        stem, dot, part = last.partition(".")
        if stem and dot:
            found.setdefault(folder + slash + stem, {})[part.lower()] = name
    return found


def member_of(path: Path) -> tuple[Path, Member] | None:
    """(shard, place) of a path that leads into a shard; None for every other path."""
    for shard in path.parents:
        if shard.suffix == ".tar" and shard.is_file():
            one = members(shard).get(path.relative_to(shard).as_posix())
            if one is None:
                raise InputError(f"{path}: {shard.name} has no such member")
            return shard, one
    return None


def read_member(path: Path) -> bytes:
    """The whole content of a member."""
    with open_member(path) as file:
        return file.read()


def open_member(path: Path) -> io.BufferedReader:
    """A member as a file to read and to seek in. Raises InputError where there is none."""
    found = member_of(path)
    if found is None:
        raise InputError(f"{path}: is no member of a shard")
    return io.BufferedReader(_Slice(*found))


class _Slice(io.RawIOBase):
    """A part of a file as a file."""

    def __init__(self, shard: Path, place: Member) -> None:
        super().__init__()
        self._file = shard.open("rb", buffering=0)
        self._place, self._at = place, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._place.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: max(0, self._place.size - self._at)]
        self._file.seek(self._place.offset + self._at)
        count = self._file.readinto(view) or 0
        self._at += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def counts(shards: Sequence[Path]) -> list[int]:
    """How many samples each shard holds: by the index beside it where that fits, or else by its headers."""
    listed = {path: count for folder in {shard.parent for shard in shards} for path, count in _index(folder).items()}
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda shard: listed.get(shard) or len(samples(shard)), shards))


def _index(folder: Path) -> dict[Path, int]:
    """Shards of a folder -> counts, as its index has them; shards that have changed since are left out."""
    try:
        listed = json.loads((folder / INDEX).read_text(encoding="utf-8"))["shardlist"]
        found = {folder / one["url"]: (int(one["nsamples"]), int(one["filesize"])) for one in listed}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {path: count for path, (count, size) in found.items() if path.is_file() and path.stat().st_size == size}


class TarWriter(WholeFile):
    """One shard, which appears under its name only when everything went well.

    >>> with TarWriter(Path("out.tar")) as writer:   # doctest: +SKIP
    ...     writer.write("a.flac", content)
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.size, self.names = 0, set[str]()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._tar = tarfile.open(self._temporary, "w", format=tarfile.PAX_FORMAT)

    def write(self, name: str, content: bytes) -> None:
        """Add a member; equal members make equal shards, whoever writes them and when."""
        if name in self.names:
            raise InputError(f"{self.path}: would hold {name!r} twice; give the files different names")
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        self._tar.addfile(entry, io.BytesIO(content))
        self.names.add(name)
        self.size += len(content)

    def close(self) -> None:
        """Finish the shard and give it its name."""
        self._tar.close()
        self._temporary.replace(self.path)

    def abort(self) -> None:
        """Leave no output."""
        self._tar.close()
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)
