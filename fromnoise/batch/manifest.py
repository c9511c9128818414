"""What is done, in the output folder: lines of JSON, one for each file and one for the settings of each run.

    {"run": "5f0c…", "settings": {…}, "version": "0.1.0"}
    {"run": "5f0c…", "key": "room/a.wav", "at": 1767…, "state": […], "written": [[…]], "error": null, …}

`key` is the first output below the folder, so that folder and corpus may be moved. A file counts as done where its last
line has no error and is of a run with the same settings, and its input and outputs are as they were then (bytes, and
time of the last change). Each part of a corpus (`--shard 3/10`) has a file of its own and reads those of all, so no
two processes write one file; a lock, which ends with its process, holds off a second run of the same part. A line is
one write; the end of a line that a dying machine cut off is not taken for one.
"""

import errno
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from fromnoise.batch.items import Item, Record, states

_PART = re.compile(r"\.(.+)[-.][0-9a-f]{8}\.part")


class Manifest:
    """The manifest of one part of a corpus, open for writing; see the module.

    settings: all that decides what is written; `part` is (i, n), from 1.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], version: str, part: tuple[int, int] = (1, 1)) -> None:
        i, n = part
        self.folder = folder
        self.path = folder / ("manifest.jsonl" if n == 1 else f"manifest-{i:0{len(str(n))}}-of-{n}.jsonl")
        self.settings: dict[str, Any] = json.loads(json.dumps(settings, default=str))
        self.version = version
        text = json.dumps([self.settings, version], sort_keys=True)
        self.run = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.last: dict[str, Record] = {}
        self.runs: dict[str, Record] = {}
        self._file: FileIO | None = None

    def __enter__(self) -> "Manifest":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "a+b", buffering=0)
        try:
            _lock(self._file, self.path)
            self._read()
            if not _ends_a_line(self._file):
                self._file.write(b"\n")
            if self.run not in self.runs:
                self._write({"run": self.run, "settings": self.settings, "version": self.version})
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def _read(self) -> None:
        """All lines of all parts; of a file the last in time."""
        for line in (line for path in sorted(self.folder.glob("manifest*.jsonl")) for line in _lines(path)):
            key = line.get("key")
            if "settings" in line:
                self.runs.setdefault(str(line.get("run")), line)
            elif isinstance(key, str) and line.get("at", 0) >= self.last.get(key, {}).get("at", 0):
                self.last[key] = {name: line.get(name) for name in ("run", "at", "error", "state", "written")}

    def key(self, item: Item) -> str:
        """What an item is called: its first output, below the folder."""
        return Path(os.path.relpath(item.outputs[0], self.folder)).as_posix()

    def is_done(self, item: Item) -> bool:
        """Whether its outputs are there, made of this input with these settings."""
        line = self.last.get(self.key(item))
        if line is None or line.get("error") or line.get("run") != self.run:
            return False
        return line.get("state") == list(item.state) and line.get("written") == [list(s) for s in states(item.outputs)]

    def other_settings(self, items: Iterable[Item]) -> tuple[int, list[str]]:
        """How many of the items another run made with other settings, and which settings differ."""
        lines = [line for line in (self.last.get(self.key(item)) for item in items) if line and not line.get("error")]
        other = [line["run"] for line in lines if line.get("run") != self.run]
        flat = _flat(self.settings) | {"version": self.version}
        names: dict[str, None] = {}
        for run in dict.fromkeys(other):
            known = self.runs.get(run, {})
            then = _flat(known.get("settings", {})) | {"version": known.get("version")}
            names |= dict.fromkeys(name for name in flat if flat[name] != then.get(name))
        return len(other), list(names)

    def add(self, item: Item, record: Record) -> None:
        """Note how an item went."""
        self._write({"run": self.run, "key": self.key(item), "at": time.time(), "state": item.state} | record)

    def _write(self, line: Record) -> None:
        assert self._file is not None
        self._file.write(json.dumps(line, default=str).encode() + b"\n")


def remove_parts(mine: Iterable[Item], others: Iterable[Item] = ()) -> int:
    """Remove what runs that are dead left half-written for these items, and count it.

    Files are written under temporary names made of their own (`AudioWriter`, `TarWriter`, `write_whole`); where such a
    name could be that of one of the `others`, which another process may be writing, it is left alone.
    """
    wanted, kept = _temporary_names(mine), _temporary_names(others)
    removed = 0
    for folder, stems in wanted.items():
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                found = _PART.fullmatch(entry.name)
                if found and found[1] in stems and found[1] not in kept.get(folder, ()):
                    with suppress(OSError):
                        os.unlink(entry.path)
                        removed += 1
    return removed


def _temporary_names(items: Iterable[Item]) -> dict[Path, set[str]]:
    """Folder -> how temporary names of the outputs in it begin, a picture beside an output included."""
    found: dict[Path, set[str]] = {}
    for path in (Path(name) for item in items for name in item.outputs):
        found.setdefault(path.parent, set()).update((path.stem[:40], path.name[:40]))
    return found


def _lines(path: Path) -> Iterator[Record]:
    """The whole lines of a manifest that are objects."""
    with path.open("rb") as file:
        for line in file:
            with suppress(ValueError):
                found = json.loads(line) if line.endswith(b"\n") else None
                if isinstance(found, dict):
                    yield found


def _ends_a_line(file: FileIO) -> bool:
    if not file.seek(0, os.SEEK_END):
        return True
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """{"a": 1, "settings": {"b": 2}} -> {"a": 1, "b": 2}."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= _flat(value) if isinstance(value, dict) else {name: value}
    return found


def _lock(file: FileIO, path: Path) -> None:
    """Hold the file until this process ends. Raises InputError where another holds it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(1 << 40)  # behind all that is written: others may read
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            from fromnoise.types import InputError

            raise InputError(
                f"{path} is held by another run; wait for it, name another -o, or divide the work by --shard"
            ) from error
        # A file system without locks: two runs of one part would do the work twice, and nothing worse.
