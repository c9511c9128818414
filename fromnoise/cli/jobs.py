"""From what the user names (files, folders, patterns, an output) to a list of (input, output) pairs that is safe to do.

Settled before anything is read: no output is an input, no two inputs share an output, folders keep their tree.
"""

import glob
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fromnoise.data.formats import FORMATS
from fromnoise.data.layouts import SUFFIXES
from fromnoise.types import InputError


def _stem(name: str) -> str:
    return Path(name).stem


@dataclass(frozen=True)
class Kinds:
    """Which files a command reads and writes.

    what: the word for those it reads, by whose suffix a folder is searched. writes: suffix -> format. ending: of the
    outputs where no --format is asked for, None for the input's own. stem: a file's name -> what its result is called.
    """

    what: str
    reads: tuple[str, ...]
    writes: Mapping[str, object]
    ending: str | None = None
    stem: Callable[[str], str] = _stem

    @property
    def known(self) -> set[str]:
        """Suffixes that make a name that of a file."""
        return {*self.reads, *self.writes}


AUDIO = Kinds("audio file", SUFFIXES, FORMATS)


@dataclass(frozen=True)
class Job:
    """One file to make from another, or several; then `further` are those after the first."""

    source: Path
    target: Path
    further: tuple[Path, ...] = ()

    @property
    def targets(self) -> tuple[Path, ...]:
        return (self.target, *self.further)


@dataclass(frozen=True)
class Plan:
    """What to do; `empty` names the inputs that stand for no file, with the reason; `left_out` counts older results."""

    jobs: tuple[Job, ...]
    empty: tuple[tuple[str, str], ...]
    left_out: int = 0


def plan(
    inputs: Sequence[str],
    output: Path | None,
    suffix: str | None,
    kind: str | None,
    verb: str,
    kinds: Kinds = AUDIO,
    parts: Callable[[str], Sequence[str]] | None = None,
) -> Plan:
    """The jobs for `inputs`: files, folders (searched, hidden files left out) and patterns like 'a/*.wav'.

    output: a file for one file, else a folder; None writes beside the input. suffix: appended to the names; by default
    `_<verb>` beside the input and nothing in a folder. kind: format of the outputs, by default the input's. parts: in
    place of suffix and verb, what the several files are called that are made of one (its name, below what the user
    named, without its ending -> names without theirs).
    Raises InputError for a request that would overwrite an input or write one file twice.
    """
    end = suffix if suffix is not None else ("" if output else f"_{verb}")
    if any(sign in end for sign in "/\\\0"):
        raise InputError(f"--suffix is part of a file name, got {suffix!r}")
    if kind is not None and f".{kind.lower()}" not in kinds.writes:
        raise InputError(f"unknown --format {kind!r}; choose one of: {', '.join(name[1:] for name in kinds.writes)}")
    if output is not None and output.suffix.lower() in kinds.known and not output.is_dir():
        return Plan((_one(inputs, output, kind, kinds, parts),), ())
    if output is not None and output.exists() and not output.is_dir():
        raise InputError(f"-o {output} is a file; expected a folder, or a name that ends in {', '.join(kinds.writes)}")
    jobs: dict[Job, None] = {}
    empty, left_out = [], 0
    for text in inputs:
        found = list(_files(text, output, kinds))
        if parts is not None:
            own = _made(found, output, kinds, parts)
        else:
            own = [] if output or not end else [file for file, _ in found if kinds.stem(file.name).endswith(end)]
        if Path(text).is_dir() or parts is not None:  # beside its inputs lie the results of an earlier run
            found, left_out = [pair for pair in found if pair[0] not in own], left_out + len(own)
        if not found:
            what = f"holds no {kinds.what}" if Path(text).is_dir() else "no file has such a name"
            results = f" ({len(own)} already end in {end})" if own and parts is None else ""
            empty.append((text, what + results))
        for source, relative in found:
            ending = f".{kind.lower()}" if kind else _ending(source, kinds)
            stems = _stems(source, relative, output, kinds, parts or (lambda name: (f"{name}{end}",)))
            target, *further = (stem.with_name(f"{stem.name}{ending}") for stem in stems)
            jobs[Job(source, target, tuple(further))] = None
    require_safe(list(jobs))
    return Plan(tuple(jobs), tuple(empty), left_out)


def _stems(
    source: Path, relative: Path, output: Path | None, kinds: Kinds, parts: Callable[[str], Sequence[str]]
) -> list[Path]:
    """The files made of one, without their endings."""
    stem = kinds.stem(relative.name)
    if output is None:
        return [source.parent / name for name in parts(stem)]
    return [output / name for name in parts((relative.parent / stem).as_posix())]


def _made(
    found: Sequence[tuple[Path, Path]], output: Path | None, kinds: Kinds, parts: Callable[[str], Sequence[str]]
) -> list[Path]:
    """Those of the files that would be made of others among them: the results of an earlier run."""
    made = {_place(stem) for source, relative in found for stem in _stems(source, relative, output, kinds, parts)}
    return [source for source, _ in found if _place(source.with_name(kinds.stem(source.name))) in made]


def _ending(source: Path, kinds: Kinds) -> str:
    """The command's, else the input's, or .wav where that format is only read."""
    return kinds.ending or (source.suffix if source.suffix.lower() in kinds.writes else ".wav")


def _one(
    inputs: Sequence[str], output: Path, kind: str | None, kinds: Kinds, parts: Callable[[str], Sequence[str]] | None
) -> Job:
    """The job of `IN -o OUT.wav`."""
    if len(inputs) != 1 or Path(inputs[0]).is_dir():
        raise InputError(f"-o {output} names one file, but the input is more than one; name a folder instead")
    if kind is not None and kinds.writes.get(f".{kind.lower()}") != kinds.writes.get(output.suffix.lower()):
        raise InputError(f"-o {output} and --format {kind} contradict each other; leave one out")
    names = parts(output.stem) if parts else (output.stem,)
    target, *further = (output.parent / f"{name}{output.suffix}" for name in names)
    job = Job(Path(os.path.expanduser(inputs[0])), target, tuple(further))
    require_safe([job])
    return job


def _files(text: str, output: Path | None, kinds: Kinds) -> Iterator[tuple[Path, Path]]:
    """(file, its place below what the user named)."""
    path = Path(os.path.expanduser(text))
    if path.is_dir():
        inside = None if output is None else output.resolve()
        for file in sorted(path.rglob("*")):
            relative = file.relative_to(path)
            hidden = any(part.startswith(".") for part in relative.parts)
            ours = inside is not None and inside != path.resolve() and inside in file.resolve().parents
            if file.suffix.lower() in kinds.reads and not hidden and not ours and file.is_file():
                yield file, relative
    elif path.exists() or not glob.has_magic(text):
        yield path, Path(path.name)  # a file that is missing fails like one that cannot be read
    else:
        for name in sorted(glob.glob(os.path.expanduser(text), recursive=True)):
            if Path(name).is_file():
                yield Path(name), Path(Path(name).name)


def require_safe(jobs: Sequence[Job]) -> None:
    """Raises InputError where an output is an input, or two inputs share an output."""
    sources = {_place(job.source): job.source for job in jobs}
    targets: dict[str, Path] = {}
    for source, target in [(job.source, target) for job in jobs for target in job.targets]:
        place = _place(target)
        if place in sources:
            raise InputError(f"{target} would overwrite the input {sources[place]}; choose another -o or other names")
        if targets.setdefault(place, source) != source:
            raise InputError(
                f"{targets[place]} and {source} would both be written to {target}; choose another -o for one, "
                "or leave -o out to write beside each"
            )


def _place(path: Path) -> str:
    """One text for all names of one place."""
    return os.path.normcase(path.resolve())
