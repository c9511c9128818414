"""Lists of mixtures: tables with one mixture a row.

    file_a, file_b, ...         required; offset_a_s, ... and gain_a, ... are 0 and 1 by default; id names the row
    min_start_s, min_end_s      the part that mode `min` takes, by default where all sources are on
    max_len_s                   the length of mode `max`, by default up to the end of the last source
    source_1_path, ...          in place of file_a, ...: the tables of LibriMix, with mixture_ID and mixture_path

Paths start at the table's folder. All that is wrong is said at once, before a sound is read: cells, names that stand
there twice, missing and damaged files, rates below the wanted one, sources that end past the end.
"""

import csv
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fromnoise.data.audio import AudioInfo, info
from fromnoise.data.timeline import Mixture, Mode, Part
from fromnoise.types import InputError

SLACK = 0.01  # s by which times in a list may be rounded


def read_list(table: Path, mode: Mode, sample_rate: int, mix: str) -> list[Mixture]:
    """The mixtures of a list; `mix` says whether those were recorded. Raises InputError with all that is wrong."""
    columns, cells = _open(table)
    sides = _sides(columns)
    if len(sides) < 2:
        raise InputError(
            f"{table}: expected columns file_a, file_b, ... or source_1_path, source_2_path, ..., "
            f"got {', '.join(columns) or 'an empty file'}"
        )
    if not cells:
        raise InputError(f"{table}: holds no mixtures, only the names of its columns")
    rows = [_Row(table.parent, line, values) for line, values in enumerate(cells, start=2)]
    found = [row.read(sides, mode, sample_rate, mix) for row in rows]
    _check(table, rows, found)
    return found


def _open(table: Path) -> tuple[list[str], list[dict[str, str | None]]]:
    """(names of the columns, rows)."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            return list(reader.fieldnames or ()), [*reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: is no table of text ({error}); expected a CSV file in UTF-8") from error


def _sides(columns: Sequence[str]) -> list[tuple[str, str, str]]:
    """The columns (file, offset, gain) of each source."""
    letters = itertools.takewhile(lambda c: f"file_{c}" in columns, "abcdefghijklmnopqrstuvwxyz")
    found = [(f"file_{c}", f"offset_{c}_s", f"gain_{c}") for c in letters]
    numbers = itertools.takewhile(lambda k: f"source_{k}_path" in columns, itertools.count(1))
    return found or [(f"source_{k}_path", f"source_{k}_offset_s", f"source_{k}_gain") for k in numbers]


class _Row:
    """A row of a list, and what is wrong with it."""

    def __init__(self, folder: Path, line: int, values: Mapping[str, str | None]) -> None:
        self.folder, self.line, self.values = folder, line, values
        self.name = next((values[c] for c in ("id", "mixture_ID") if values.get(c)), None) or f"row{line - 1}"
        self.length = 0.0  # s, 0 where the row does not say
        self.problems: list[str] = []

    def read(self, sides: Sequence[tuple[str, str, str]], mode: Mode, sample_rate: int, mix: str) -> Mixture:
        """The mixture, as far as the row can be understood; what cannot stands in `problems`."""
        self.length = self._number("max_len_s", 0.0)
        start, end = self._number("min_start_s", 0.0), self._number("min_end_s", 0.0)
        if self.length and end > self.length + SLACK:
            self.problems.append(f"min_end_s={end} lies after max_len_s={self.length}")
        if end and start >= end:
            self.problems.append(f"min_start_s={start} does not lie before min_end_s={end}")
        begin, finish = (start, end) if mode == "min" else (0.0, self.length)
        parts = tuple(part for side in sides if (part := self._part(*side)) is not None)
        recorded = self._path("mixture_path") if mix else None
        return Mixture(self.name, parts, sample_rate, mode, (begin, finish) if finish else None, recorded)

    def _part(self, file: str, offset: str, gain: str) -> Part | None:
        path, start, factor = self._path(file), self._number(offset, 0.0), self._number(gain, 1.0)
        if start < 0:
            self.problems.append(f"{offset}={start} must not be negative")
        if self.length and start >= self.length:
            self.problems.append(f"{offset}={start} lies past the end, max_len_s={self.length}")
        if factor == 0:
            self.problems.append(f"{gain}=0 makes a source silent")
        return None if path is None else Part(path, factor, start)

    def _path(self, column: str) -> Path | None:
        text = (self.values.get(column) or "").strip()
        if not text:
            self.problems.append(f"{column} is empty")
            return None
        return self.folder / text

    def _number(self, column: str, default: float) -> float:
        text = (self.values.get(column) or "").strip()
        if not text:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isfinite(value):
            return value
        self.problems.append(f"{column} must be a finite number, got {text!r}")
        return default


def _check(table: Path, rows: Sequence[_Row], found: Sequence[Mixture]) -> None:
    """Raises InputError with everything that is wrong with the rows and with their files."""
    paths = sorted({path for mixture in found for path in mixture.files()})
    with ThreadPoolExecutor(4) as pool:
        headers = dict(zip(paths, pool.map(_header, paths), strict=True))
    seen: dict[str, int] = {}
    problems = []
    for row, mixture in zip(rows, found, strict=True):
        first = seen.setdefault(row.name, row.line)
        own = [*row.problems, *([] if first == row.line else [f"has the name of line {first}"])]
        own += _file_problems(mixture, row.length, headers)
        problems += [f"line {row.line} ({row.name}): {problem}" for problem in own]
    raise_all(table, problems)


def _file_problems(mixture: Mixture, length: float, headers: Mapping[Path, AudioInfo | str]) -> Iterator[str]:
    for path in mixture.files():
        header = headers[path]
        if isinstance(header, str):
            yield header
        elif header.sample_rate < mixture.sample_rate:
            yield f"{path}: expected {mixture.sample_rate} Hz or more, got {header.sample_rate} Hz"
    for part in mixture.parts:
        header = headers[part.path]
        if isinstance(header, str):
            continue
        end = part.offset_s + header.seconds
        if length and end > length + SLACK:
            yield f"{part.path}: from {part.offset_s} s on, it ends at {end:.3f} s, past the end max_len_s={length}"
        if mixture.mode == "min" and mixture.span_s is not None:
            begin, finish = mixture.span_s
            if part.offset_s > begin + SLACK or end < finish - SLACK:
                yield (
                    f"{part.path}: on from {part.offset_s} s to {end:.3f} s, "
                    f"not all the time from min_start_s={begin} to min_end_s={finish}"
                )


def _header(path: Path) -> AudioInfo | str:
    """The header of a file, or what is wrong with it."""
    try:
        return info(path)
    except InputError as error:
        return str(error)


def raise_all(place: Path, problems: Sequence[str]) -> None:
    """Raises InputError that names all problems."""
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise InputError(f"{place}: {count}, nothing was run:\n  " + ";\n  ".join(problems))
