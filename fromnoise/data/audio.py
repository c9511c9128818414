"""Audio files in and out, block by block.

A wave is float32 `c n` (channels, samples) with full scale at 1, and never travels without its rate in Hz
(`fromnoise.frontends.resample` converts it).

Reading goes through libsndfile (wav, flac, ogg, opus, mp3, aiff, ...); containers it does not know (m4a, webm, ...) go
through PyAV when the extra `formats` is installed. A sound inside a tar shard is named like a file in a folder,
`shards/000000.tar/a.flac`. Writing goes to a temporary name beside the target, renamed at the
end: a run that fails or is interrupted leaves the old file or none. Everything that can be wrong with a user's file is
an `InputError` in one sentence.

Lengths: wav, flac, aiff, ogg, opus and mp3 come back with exactly the samples written (libsndfile stores the padding of
the lossy codecs and removes it). AAC in m4a holds no exact length: it may come back up to two milliseconds longer.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
from jaxtyping import Float, Float32
from torch import Tensor

from fromnoise.data.containers import decode_container
from fromnoise.data.formats import FORMATS, keep_subtype, native
from fromnoise.data.shards import member_of, open_member
from fromnoise.data.writer import AudioWriter
from fromnoise.frontends.resample import Resampler, check_rate, resample, resampled_length
from fromnoise.types import InputError

__all__ = [
    "FORMATS",
    "AudioInfo",
    "AudioReader",
    "AudioWriter",
    "Resampler",
    "info",
    "keep_subtype",
    "read",
    "resample",
    "resampled_length",
    "write",
]

PathLike = str | os.PathLike[str]

BLOCK = 1 << 16  # samples per channel read at a time


@dataclass(frozen=True)
class AudioInfo:
    """What a file says about itself; `frames` counts samples per channel."""

    path: Path
    sample_rate: int
    channels: int
    frames: int
    format: str
    subtype: str

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate


def info(path: PathLike) -> AudioInfo:
    """Rate, channels, length and kind of a file. Raises InputError where `AudioReader` would."""
    with AudioReader(path) as reader:
        return reader.info


def read(path: PathLike) -> tuple[Float32[np.ndarray, "c n"], int]:
    """A whole file as float32 `c n` and its rate in Hz. Raises InputError when it cannot be used."""
    with AudioReader(path) as reader:
        return np.concatenate(list(reader.blocks()), axis=1), reader.sample_rate


def write(
    path: PathLike,
    wave: Float[np.ndarray, "c n"] | Float[Tensor, "c n"],
    sample_rate: int,
    subtype: str | None = None,
    clip: str = "rescale",
) -> None:
    """Write a whole wave `c n`. See `AudioWriter` for what the suffix, `subtype` and `clip` mean."""
    samples = np.asarray(wave.detach().cpu() if isinstance(wave, Tensor) else wave, dtype=np.float32)
    with AudioWriter(path, sample_rate, samples.shape[0], subtype, clip) as writer:
        writer.write(samples)


class AudioReader:
    """A file opened for reading in blocks.

    >>> with AudioReader("speech.wav") as reader:          # doctest: +SKIP
    ...     for block in reader.blocks(16000):              # float32 (channels, up to 16000)
    ...         print(block.shape, reader.sample_rate)
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        self._member = None if self.path.exists() or member_of(self.path) is None else open_member(self.path)
        self._spool: BinaryIO | None = None
        head = _head(self.path)
        try:
            self._file = soundfile.SoundFile(self._member or native(self.path))
        except soundfile.LibsndfileError as error:
            self._spool = decode_container(self.path, head, error, self._member)
            self._file = soundfile.SoundFile(self._spool)
        self._spooled = self._spool is not None
        self._position = 0
        self._rest: np.ndarray | None = None  # decoded ahead, see _pull
        self._last_packet = self._file.samplerate * 120 // 1000 if self._file.subtype == "OPUS" else 0
        try:
            self._check(head)
        except BaseException:
            self.close()
            raise

    def _check(self, head: bytes) -> None:
        if self._file.frames > 1 << 62:  # a stream whose header was never filled in; libsndfile loses its last block
            raise InputError(
                f"{self.path}: its header does not say how long it is (a stream saved from a pipe); "
                "convert it to wav once, then use that"
            )
        check_rate(self._file.samplerate, str(self.path))
        if _is_cut(self.path, head, self._file):
            raise InputError(f"{self.path}: truncated: it ends before its header says; copy or download it again")
        if self._file.frames == 0:
            raise InputError(f"{self.path}: holds no samples (0 s of sound); expected at least one")

    @property
    def sample_rate(self) -> int:
        return self._file.samplerate

    @property
    def channels(self) -> int:
        return self._file.channels

    @property
    def frames(self) -> int:
        """Samples per channel."""
        return self._file.frames

    @property
    def info(self) -> AudioInfo:
        kind = self.path.suffix.lstrip(".").upper() if self._spooled else self._file.format
        subtype = "AV" if self._spooled else self._file.subtype
        return AudioInfo(self.path, self.sample_rate, self.channels, self.frames, kind, subtype)

    def read(self, count: int) -> Float32[np.ndarray, "c n"]:
        """The next `count` samples; fewer only at the end. Raises InputError for damage, NaN or infinity."""
        start = self._position
        expected = min(count, self.frames - start)
        try:
            block = self._pull(expected)
        except soundfile.LibsndfileError as error:
            raise InputError(f"{self.path}: damaged or truncated near sample {start}: {error.error_string}") from error
        if len(block) < expected:
            raise InputError(
                f"{self.path}: truncated: expected {self.frames} samples, it ends after {start + len(block)}; "
                "copy or download it again"
            )
        if not np.isfinite(block).all():
            raise InputError(f"{self.path}: holds NaN or infinite samples near sample {start}; repair or re-export it")
        self._position += expected
        return np.ascontiguousarray(block.T)

    def _pull(self, count: int) -> np.ndarray:
        """`n c` from libsndfile, which decodes the rest wrongly after a read that ends inside the last Opus packet."""
        if self._rest is None and self._position + count < self.frames - self._last_packet:
            return self._file.read(count, dtype="float32", always_2d=True)
        if self._rest is None:
            self._rest = self._file.read(self.frames - self._position, dtype="float32", always_2d=True)
        block, self._rest = self._rest[:count], self._rest[count:]
        return block

    def seek(self, position: int) -> None:
        """Continue at sample `position`, exactly."""
        if not 0 <= position <= self.frames:
            raise ValueError(f"position {position} lies outside 0..{self.frames}")
        # A codec's packet leans on those before it, which libsndfile forgets on a jump: read into the place instead.
        lead = min(position, 8192) if self._file.subtype in ("VORBIS", "OPUS") else 0
        self._file.seek(position - lead)
        self._position, self._rest = position - lead, None
        self.read(lead)

    def blocks(self, size: int = BLOCK) -> Iterator[Float32[np.ndarray, "c n"]]:
        """From here to the end in blocks of `size` samples (the last may be shorter)."""
        while self._position < self.frames:
            yield self.read(size)

    def close(self) -> None:
        self._file.close()
        for other in (self._spool, self._member):
            if other is not None:
                other.close()

    def __enter__(self) -> "AudioReader":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _head(path: Path) -> bytes:
    """The first bytes of a regular file or a member of a shard; InputError where there is none."""
    inside = None if path.exists() else member_of(path)
    if inside is None and not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; expected an audio file")
    if inside is None and not path.is_file():
        raise InputError(f"{path}: is not a regular file; save the sound to a file first")
    try:
        with _open(path) as file:
            head = file.read(64)
    except OSError as error:
        raise InputError(f"{path}: cannot be opened: {error.strerror}") from error
    if not head:
        raise InputError(f"{path}: is empty (0 bytes); expected an audio file")
    return head


def _open(path: Path) -> BufferedReader:
    return path.open("rb") if path.exists() else open_member(path)


def _is_cut(path: Path, head: bytes, file: soundfile.SoundFile) -> bool:
    """Whether a wav or ogg file stops before its end. (flac and mp3 show it when they are read.)"""
    if head[:4] == b"OggS":  # the last page of a complete stream carries the end-of-stream flag
        with _open(path) as raw:
            raw.seek(max(0, raw.seek(0, os.SEEK_END) - (1 << 17)))
            tail = raw.read()
        page = tail[tail.rfind(b"OggS") :]
        whole = len(page) > 26 and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
        return not whole or not page[5] & 4
    cut = re.search(r"^data : (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
    # Recorders that write to a pipe leave 0 or a number near 2^31 or 2^32: unknown, not cut.
    return cut is not None and int(cut[2]) < int(cut[1]) and int(cut[1]) < (1 << 31) - (1 << 16)
