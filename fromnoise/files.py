"""Files that appear under their name whole or not at all: they are written beside it, hidden, and renamed at the end.

A run that fails or is interrupted leaves the old file or none, never half a one.
"""

import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TypeVar

Self = TypeVar("Self", bound="WholeFile")


def beside(path: Path, suffix: str = ".part") -> Path:
    """A hidden name in the same folder that nobody else has.

    >>> beside(Path("made/out.wav"))   # doctest: +SKIP
    PosixPath('made/.out-5f0c9a1e.part')
    """
    return path.with_name(f".{path.stem[:40]}-{secrets.token_hex(4)}{suffix}")


@contextmanager
def whole(path: str | os.PathLike[str], suffix: str = ".part") -> Iterator[Path]:
    """The name to write to, which becomes `path` at the end of the block, or is removed where that fails.

    suffix: for writers that look at it. Missing folders are made.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = beside(target, suffix)
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file at once."""
    with whole(path) as temporary:
        temporary.write_bytes(content)


class WholeFile(ABC):
    """A writer of one file in pieces: at the end of its block the file gets its name, after an error nothing stays."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._temporary = beside(self.path)

    @abstractmethod
    def close(self) -> None:
        """Finish the file and give it its name."""

    @abstractmethod
    def abort(self) -> None:
        """Leave no output."""

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()
