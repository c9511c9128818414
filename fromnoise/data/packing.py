"""What a recipe's data finds in folders and tables, packed into tar shards that the same recipe trains on.

    FOLDER/train/000000.tar ... index.json     FOLDER/valid/...

The recordings go in as they are, byte for byte, with what is said of a clip as json beside it; the forms are those of
`streaming`. Samples lie in a drawn order, always the same, so that neighbours in a shard are no neighbours in the
corpus. A split appears under its name when all of it is written.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fromnoise.data.clips import Clips
from fromnoise.data.layouts import Pair
from fromnoise.data.paired import Paired
from fromnoise.data.places import Clip
from fromnoise.data.separated import Separated
from fromnoise.data.shards import INDEX, TarWriter
from fromnoise.data.streaming import Stream
from fromnoise.data.timeline import Mixture
from fromnoise.files import beside
from fromnoise.types import InputError

Parts = Mapping[str, Path | bytes]


def pack(
    data: Any,
    folder: Path,
    megabytes: float = 512.0,
    most: int = 10_000,
    tell: Callable[[str, int, int], None] = lambda split, done, total: None,
) -> dict[str, tuple[int, int]]:
    """Write the splits of a recipe's data as shards of up to so many megabytes and samples.

    tell: is told (split, samples written, samples in all). Returns split -> (samples, shards). Raises InputError for
    data that cannot be packed, or a folder that holds shards already.
    """
    found = dict(zip(("train", "valid"), _splits(data), strict=True))
    for split in found:
        if (folder / split).exists():
            raise InputError(f"{folder / split} is there already; choose another folder, or remove it first")
    done = {}
    for split, items in found.items():
        done[split] = _write(items, folder, split, megabytes, most, tell)
    return done


def _splits(data: Any) -> tuple[Sequence[Any], Sequence[Any]]:
    if isinstance(data, Clips):
        found = data.clips()
    elif isinstance(data, Paired):
        found = data.pairs()
    elif isinstance(data, Separated):
        found = data.mixtures()
    else:
        raise InputError("only recordings, pairs and mixtures are packed: choose data=clips, paired or separated")
    if any(isinstance(one, Stream) for one in found):
        raise InputError(f"{data.root}: holds shards already; expected folders or tables to pack")
    return found


def _write(
    items: Sequence[Any], folder: Path, split: str, megabytes: float, most: int, tell: Callable[[str, int, int], None]
) -> tuple[int, int]:
    temporary = beside(folder / split)
    writer: TarWriter | None = None
    listed: list[dict[str, Any]] = []
    try:
        for number, index in enumerate(np.random.default_rng(0).permutation(len(items))):
            if writer is not None and (writer.size >= megabytes * 1e6 or listed[-1]["nsamples"] >= most):
                _finish(writer, listed)
                writer = None
            if writer is None:
                writer = TarWriter(temporary / f"{len(listed):06d}.tar")
                listed.append({"url": writer.path.name, "nsamples": 0})
            name, parts = _parts(items[int(index)])
            for part, content in parts.items():
                key = f"{name.replace('.', '_')}-{number:07d}"
                writer.write(f"{key}.{part}", content if isinstance(content, bytes) else _content(content))
            listed[-1]["nsamples"] += 1
            tell(split, number + 1, len(items))
        if writer is not None:
            _finish(writer, listed)
            writer = None
        index_file = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": listed}
        (temporary / INDEX).write_text(json.dumps(index_file, indent=1) + "\n", encoding="utf-8")
        temporary.replace(folder / split)
    except BaseException:
        if writer is not None:
            writer.abort()
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return len(items), len(listed)


def _finish(writer: TarWriter, listed: list[dict[str, Any]]) -> None:
    writer.close()
    listed[-1]["filesize"] = writer.path.stat().st_size


def _parts(item: Clip | Pair | Mixture) -> tuple[str, Parts]:
    """(name of a sample, its members by the part of their names after the first dot)."""
    if isinstance(item, Clip):
        said = {"label": item.label, "speaker": item.speaker, **item.facts}
        said = {name: value for name, value in said.items() if value not in ("", None)}
        return item.path.stem, {_suffix(item.path): item.path, "json": json.dumps(said, ensure_ascii=False).encode()}
    if isinstance(item, Pair):
        return item.noisy.stem, {f"{side}.{_suffix(path)}": path for side, path in _sides(item.noisy, item.clean)}
    if any(part.gain != 1 or part.offset_s for part in item.parts) or item.span_s is not None:
        raise InputError(f"{item.name}: a list that places or scales its sources is not packed; train from it directly")
    if any(part.less for part in item.parts):
        sides = _sides(item.parts[1].path, item.parts[0].path)
        return item.parts[1].path.stem, {f"{side}.{_suffix(path)}": path for side, path in sides}
    sources = {f"s{k + 1}.{_suffix(part.path)}": part.path for k, part in enumerate(item.parts)}
    own = item.recorded
    return item.parts[0].path.stem, sources | ({f"{own.parent.name}.{_suffix(own)}": own} if own else {})


def _sides(noisy: Path, clean: Path) -> list[tuple[str, Path]]:
    return [("noisy", noisy), ("clean", clean)]


def _suffix(path: Path) -> str:
    return path.suffix.lower().lstrip(".")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
