"""The fingerprint of the pairs, or mixtures, that were evaluated.

The fingerprint of a list of pairs is the SHA-256 of one line per pair, sorted by name:
`<name> <sha256 of the noisy file> <sha256 of the clean file>`, so that two reports with one fingerprint judged the same
sound.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fromnoise.data.layouts import Pair

if TYPE_CHECKING:
    from fromnoise.data.timeline import Mixture


def fingerprint(pairs: Iterable[Pair]) -> str:
    """SHA-256 over names and contents of the pairs, whatever their order."""
    lines = sorted(f"{pair.name} {sha256(pair.noisy)} {sha256(pair.clean)}\n" for pair in pairs)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def mixtures_fingerprint(mixtures: "Iterable[Mixture]") -> str:
    """The same of mixtures: names, how each is put together, and the contents of its files."""
    mixtures = list(mixtures)
    contents = {path: sha256(path) for path in {path for mixture in mixtures for path in mixture.files()}}
    lines = []
    for mixture in mixtures:
        own = [contents[path] for path in mixture.files()]
        made = [f"{part.gain!r}@{part.offset_s!r}" for part in mixture.parts]
        facts = (mixture.name, mixture.mode, mixture.sample_rate, mixture.span_s, *made, *own)
        lines.append(" ".join(map(str, facts)) + "\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, "unreadable" when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "unreadable"
