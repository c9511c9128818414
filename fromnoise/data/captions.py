"""What is said about recordings: captions from the columns of a table, or from the names of classes and folders.

A table (CSV, or JSON lines: one object a line) names the clip in `file`; any column may hold a caption, one or, in
JSON, a list of them. `label` is always there: "sea_waves", of a table or of a folder, is read as "sea waves". Rows that
name one file twice are one clip with the captions of both.

In a batch a caption travels as the bytes of its UTF-8 form, filled with zeros to ROOM.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from fromnoise.data.places import Clip
from fromnoise.types import InputError

ROOM = 512
"""Bytes of a caption; what is beyond is cut off."""


def captions_of(clip: Clip, columns: Sequence[str]) -> tuple[str, ...]:
    """Every caption that the columns hold. Raises InputError where they hold none."""
    found = [words for column in columns for words in _texts(clip, column) if words]
    if not found:
        raise InputError(
            f"{clip.path}: no caption in {', '.join(columns)}; it has: {', '.join(['label', *clip.facts])} "
            "(choose by data.captions=[COLUMN,...])"
        )
    return tuple(dict.fromkeys(found))


def _texts(clip: Clip, column: str) -> list[str]:
    if column == "label":
        return [" ".join(clip.label.replace("_", " ").replace("-", " ").split())]
    value = clip.facts.get(column) or ""
    return [" ".join(str(text).split()) for text in (value if isinstance(value, list) else [value])]


def joined(clips: Sequence[Clip]) -> list[Clip]:
    """Each file once; of rows that name the same one, the texts of both. Raises InputError for missing files."""
    missing = [clip.path for clip in clips if not clip.path.is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(clips)} files with captions are missing, e.g. {missing[0]}; restore them, or take "
            "their rows out of the table"
        )
    found: dict[Path, Clip] = {}
    for clip in clips:
        before = found.get(clip.path)
        found[clip.path] = clip if before is None else replace(before, facts=_both(before.facts, clip.facts))
    return list(found.values())


def _both(facts: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    as_list = lambda value: value if isinstance(value, list) else [value]  # noqa: E731
    return {key: [*as_list(facts.get(key, "")), *as_list(more.get(key, ""))] for key in {**facts, **more}}


def without_words(text: str, share: float, draw: np.random.Generator) -> str:
    """The text with each word left out by that probability; one word at least stays."""
    words = text.split()
    kept = [word for word, u in zip(words, draw.random(len(words)), strict=True) if u >= share]
    return " ".join(kept) or max(words, key=len)


def to_bytes(text: str) -> UInt8[Tensor, " room"]:
    """A caption for a batch."""
    row = np.zeros(ROOM, np.uint8)
    raw = text.encode()[:ROOM]
    row[: len(raw)] = np.frombuffer(raw, np.uint8)
    return torch.from_numpy(row)


def from_bytes(rows: UInt8[Tensor, "b room"]) -> list[str]:
    """The captions of a batch."""
    return [bytes(row.tolist()).rstrip(b"\0").decode(errors="ignore") for row in rows.cpu()]
