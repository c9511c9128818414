"""Writing audio files in blocks, all or nothing."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import soundfile
from jaxtyping import Float32

from fromnoise.data.formats import BYTES_PER_SAMPLE, FLOAT_SUBTYPES, PCM_STEPS, kind_for, native
from fromnoise.files import WholeFile
from fromnoise.types import InputError

_BLOCK = 1 << 16  # samples per channel stored at a time
_PAGE = 1 << 12  # bytes that a disk hands out at a time


class AudioWriter(WholeFile):
    """A file written in blocks, which appears under its name only when everything went well.

    path: the suffix chooses the format (see FORMATS). subtype: how samples are stored, e.g. "PCM_24" or "FLOAT";
    None takes the format's default, `keep_subtype` the input's. clip: what happens to a result beyond full scale in a
    format that has one: "clamp" cuts the samples off, "rescale" turns the whole file down until it fits (never up; it
    waits in a temporary file until the end), "none" leaves it to the codec. FLOAT and DOUBLE keep every value.

    >>> with AudioWriter("out.flac", 16000, 1) as writer:   # doctest: +SKIP
    ...     writer.write(np.zeros((1, 16000), np.float32))
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sample_rate: int,
        channels: int,
        subtype: str | None = None,
        clip: str = "clamp",
    ) -> None:
        super().__init__(path)
        self.sample_rate, self.channels, self.written, self.peak = sample_rate, channels, 0, 0.0
        self._file: soundfile.SoundFile | None = None
        self._spool: BinaryIO | None = None
        if clip not in ("rescale", "clamp", "none"):
            raise InputError(f"clip must be rescale, clamp or none, got {clip!r}")
        kind, self.subtype = kind_for(self.path, sample_rate, channels, subtype)
        self._clip = "none" if self.subtype in FLOAT_SUBTYPES else clip
        self._room = (1 << 32) - 4096 if kind in ("WAV", "AIFF") else None
        if self.path.is_dir():
            raise InputError(f"{self.path}: is a folder; expected the name of a file to write")
        if not self.path.parent.is_dir():
            raise InputError(f"{self.path.parent}: no such folder; make it first or choose another output")
        with self._explained():
            self._file = soundfile.SoundFile(
                native(self._temporary), "x", sample_rate, channels, format=kind, subtype=self.subtype
            )
            if self._clip == "rescale":
                self._spool = cast(BinaryIO, tempfile.TemporaryFile(dir=self.path.parent))

    def write(self, block: Float32[np.ndarray, "c n"]) -> None:
        """Append a block. Raises InputError for NaN or infinity, and when the format's size limit is reached."""
        if self._file is None:
            raise ValueError(f"{self.path}: already closed")
        if block.shape[0] != self.channels:
            raise ValueError(f"{self.path}: expected {self.channels} channels, got {block.shape[0]}")
        if not np.isfinite(block).all():
            raise InputError(f"{self.path}: the result holds NaN or infinite samples; nothing was written")
        if not block.shape[1]:
            return
        self.written += block.shape[1]
        if self._room is not None and self.written * self.channels * BYTES_PER_SAMPLE.get(self.subtype, 2) > self._room:
            raise InputError(f"{self.path}: would exceed the 4 GiB that this format holds; write .flac or .w64 instead")
        self.peak = max(self.peak, float(np.abs(block).max()))
        with self._explained():
            if self._spool is not None:
                self._spool.write(np.ascontiguousarray(block.T).tobytes())
            else:
                self._store(block.T)

    def _store(self, samples: Float32[np.ndarray, "n c"]) -> None:
        assert self._file is not None
        if self._clip == "clamp":
            samples = np.clip(samples, -1.0, 1.0)
        if self.subtype in PCM_STEPS:  # libsndfile rounds down for some formats, which would add an offset
            samples = np.rint(samples * PCM_STEPS[self.subtype]) / PCM_STEPS[self.subtype]
        for start in range(0, len(samples), _BLOCK):  # libsndfile crashes on one huge Vorbis block
            self._file.write(samples[start : start + _BLOCK])

    def _drain(self, spool: BinaryIO) -> None:
        gain = np.float32(1.0 / max(self.peak, 1.0))
        spool.seek(0)
        while data := spool.read(4 * self.channels * _BLOCK):
            self._store(np.frombuffer(data, np.float32).reshape(-1, self.channels) * gain)

    def close(self) -> None:
        """Finish the file and give it its name. Does nothing a second time, or after `abort`."""
        if self._file is None:
            return
        try:
            with self._explained():
                if self._spool is not None:
                    self._drain(self._spool)
                self._file.close()
                if _free(self.path.parent) < _PAGE:  # libsndfile loses the end of an mp3 without a word
                    raise OSError(errno.ENOSPC, "no space left")
                os.replace(self._temporary, self.path)
        except BaseException:
            self.abort()
            raise
        self._file = None
        self.abort()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What the system or libsndfile raises becomes an InputError, and nothing half-written stays."""
        try:
            yield
        except (soundfile.LibsndfileError, OSError) as error:
            # libsndfile says no more than "System error": look while the disk is still as full as it was.
            full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or _free(self.path.parent) < _PAGE
            self.abort()
            reason = f"cannot be written: {error}"
            if full:
                reason = f"the disk that holds {self.path.parent} is full; make room or choose another output"
            raise InputError(f"{self.path}: {reason}") from error

    def abort(self) -> None:
        """Leave no output: remove what was written so far. Does nothing after `close`."""
        if self._spool is not None:
            with suppress(OSError):  # on a full disk its last samples cannot be stored, nor are they wanted
                self._spool.close()
            self._spool = None
        if self._file is not None:
            with suppress(soundfile.LibsndfileError):
                self._file.close()
            self._file = None
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)

    def __del__(self) -> None:
        if getattr(self, "_temporary", None) is not None:
            self.abort()


def _free(folder: Path) -> int:
    """Bytes that are free on the disk of a folder; _PAGE where that cannot be asked, or there is no disk (/proc)."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return _PAGE
    return usage.free if usage.total else _PAGE
