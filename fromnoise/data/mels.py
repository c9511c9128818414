"""Mel spectrograms on disk, and of recordings, in pieces: float32 `m w`, bands before frames.

    ours       one safetensors tensor, `mel`, and the definition (every field of `Mel`) as JSON in the metadata
    others'    .npy, or .pt with one tensor: numbers alone. LMNT writes x.wav.spec.npy, Tacotron 2's kin x.wav.pt

A file is opened for a definition. Its own, if it has one, must be the same; the numbers must be finite and possible.
Nothing in a file is executed, and no more of it is in memory than was asked for.
"""

import dataclasses
import json
import math
import os
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from jaxtyping import Float, Float32
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fromnoise.data.audio import AudioReader
from fromnoise.data.layouts import SUFFIXES
from fromnoise.files import WholeFile
from fromnoise.frontends.mel import Mel
from fromnoise.frontends.resample import Resampler, resampled_length
from fromnoise.types import InputError, build

MEL_SUFFIXES = (".safetensors", ".npy", ".pt")
DEFINITION = "mel_definition"  # key of the metadata
UNDEFINED = (
    "mel files without a definition are taken for mels of the model's own; only shape and range could be checked"
)
_BLOCK = 4096  # frames looked at at a time
_DAMAGED = (SafetensorError, pickle.UnpicklingError, OSError, RuntimeError, ValueError, EOFError, KeyError, TypeError)


class Frames(Protocol):
    """A mel, read in order."""

    frames: int
    samples: int  # of the sound it stands for

    def read(self, count: int) -> np.ndarray: ...
    def close(self) -> None: ...


def is_mel(path: Path) -> bool:
    """Whether a name is that of a mel file."""
    return path.suffix.lower() in MEL_SUFFIXES


def mel_stem(name: str) -> str:
    """'x.wav.spec.npy', 'x.wav.pt', 'x.safetensors', 'x.wav' -> 'x'."""
    audio = "|".join(re.escape(suffix) for suffix in SUFFIXES)
    mel = "|".join(re.escape(suffix) for suffix in MEL_SUFFIXES)
    return re.sub(rf"(?i)(?<=.)((({audio})?(\.spec|\.mel)?({mel}))|{audio})$", "", name)


def open_frames(path: str | os.PathLike[str], definition: Mel) -> "MelReader | SoundMel":
    """The mel of a recording, or a mel file that is of this definition. Raises InputError where either cannot be."""
    if not is_mel(Path(path)):
        return SoundMel(path, definition)
    reader = MelReader(path)
    try:
        reader.require(definition)
    except BaseException:
        reader.close()
        raise
    return reader


def differences(found: Mel, wanted: Mel) -> list[str]:
    """'hop is 300, expected 256', for each field in which two definitions make other numbers."""
    own, other = _explicit(found), _explicit(wanted)
    return [f"{key} is {own[key]}, expected {other[key]}" for key in other if own[key] != other[key]]


def _explicit(mel: Mel) -> dict[str, Any]:
    return dataclasses.asdict(mel) | {"fmax": mel.sample_rate / 2 if mel.fmax is None else mel.fmax}


class MelReader:
    """A mel file, opened.

    bands, frames: its shape. definition: what the file says of itself, None where it says nothing.

    >>> with MelReader("speech.safetensors") as reader:    # doctest: +SKIP
    ...     mel = reader.read(reader.frames)                # (80, frames)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(f"{self.path}: {'is a folder' if self.path.is_dir() else 'no such file'}; expected a mel")
        openers = {".safetensors": self._safetensors, ".npy": self._numpy, ".pt": self._torch}
        if self.path.suffix.lower() not in openers:
            raise InputError(f"{self.path}: expected a mel file, {', '.join(MEL_SUFFIXES)}")
        self.definition: Mel | None = None
        self._position = 0
        self.samples = 0  # of the sound, known once `require` said how long a frame lasts
        try:
            shape, floating, self._cut = openers[self.path.suffix.lower()]()
        except InputError:
            raise
        except _DAMAGED as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"{self.path}: cannot be read as a mel ({reason[:120]}); it is truncated, of another kind, or holds "
                "code, which is never run"
            ) from error
        if len(shape) == 3 and shape[0] == 1:
            shape = shape[1:]
        if len(shape) != 2 or not floating:
            kind = "floating point" if floating else "whole or complex"
            raise InputError(f"{self.path}: expected floats of shape (bands, frames), got {kind} numbers of {shape}")
        self.bands, self.frames = shape

    def require(self, definition: Mel) -> None:
        """Raises InputError unless the mel is of this definition as far as it can be known; warns of odd values."""
        if self.definition is not None and (found := differences(self.definition, definition)):
            raise InputError(
                f"{self.path}: is another mel than the model's: {'; '.join(found)}. Make it anew with `fromnoise mel` "
                "for this model, or convert or train a model for it"
            )
        definition.check_shape(self.bands, self.frames, str(self.path))
        least, most = math.inf, -math.inf
        for start in range(0, self.frames, _BLOCK):
            block = self._cut(start, min(start + _BLOCK, self.frames))
            if not np.isfinite(block).all():
                raise InputError(f"{self.path}: holds NaN or infinite values; make it anew")
            least, most = min(least, float(block.min())), max(most, float(block.max()))
        definition.check_values(least, most, str(self.path))
        if self.definition is None:
            warnings.warn(UNDEFINED, stacklevel=2)
        self.samples = self.frames * definition.hop

    def read(self, count: int) -> Float32[np.ndarray, "m w"]:
        """The next `count` frames; fewer only at the end."""
        start = self._position
        self._position = min(start + count, self.frames)
        return self._cut(start, self._position)

    def _safetensors(self) -> tuple[tuple[int, ...], bool, Callable[[int, int], np.ndarray]]:
        file = safe_open(self.path, "pt")
        if "mel" not in file.keys():  # noqa: SIM118 (no mapping)
            raise InputError(f"{self.path}: holds no tensor 'mel', but {', '.join(list(file.keys())[:3]) or 'none'}")
        said = (file.metadata() or {}).get(DEFINITION)
        if said is not None:
            try:
                self.definition = build("mel", {"mel": Mel}, {"name": "mel", **json.loads(said)})
            except (ValueError, TypeError, RecursionError) as error:
                raise InputError(f"{self.path}: its mel definition cannot be read: {error}") from error
        view: Any = file.get_slice("mel")
        shape = tuple(view.get_shape())
        cut = lambda a, b: view[..., a:b].reshape(-1, b - a).float().numpy()  # noqa: E731
        return shape, view.get_dtype() in ("F16", "BF16", "F32", "F64"), cut

    def _numpy(self) -> tuple[tuple[int, ...], bool, Callable[[int, int], np.ndarray]]:
        array = np.load(self.path, mmap_mode="r")  # pickles are refused by default
        if not isinstance(array, np.ndarray):
            raise InputError(f"{self.path}: is an archive; expected one array (bands, frames)")
        cut = lambda a, b: np.array(array[..., a:b], dtype=np.float32).reshape(-1, b - a)  # noqa: E731
        return array.shape, array.dtype.kind == "f", cut

    def _torch(self) -> tuple[tuple[int, ...], bool, Callable[[int, int], np.ndarray]]:
        mapped = zipfile.is_zipfile(self.path)  # the form before that cannot be
        tensor = torch.load(self.path, map_location="cpu", weights_only=True, mmap=mapped)
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise InputError(f"{self.path}: holds a {type(tensor).__name__}; expected one dense tensor (bands, frames)")
        cut = lambda a, b: tensor.detach()[..., a:b].reshape(-1, b - a).float().numpy()  # noqa: E731
        return tuple(tensor.shape), tensor.is_floating_point(), cut

    def close(self) -> None:
        """Let go of the file."""
        self._cut = _closed

    def __enter__(self) -> "MelReader":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _closed(start: int, stop: int) -> np.ndarray:
    raise ValueError("the mel file is closed")


class SoundMel:
    """The mel of a recording of any rate, channels averaged, piece by piece: what `Mel.encode` gives of the whole."""

    def __init__(self, path: str | os.PathLike[str], definition: Mel) -> None:
        self._reader = AudioReader(path)
        self._definition = definition
        rate, channels = self._reader.sample_rate, self._reader.channels
        self.channels = channels
        self.samples = resampled_length(self._reader.frames, rate, definition.sample_rate)
        self.frames = definition.frames(self.samples)
        self._resampler = Resampler(rate, definition.sample_rate, 1, self.samples)
        self._position = 0  # frames given
        self._wave, self._start = np.zeros(0, np.float32), 0  # samples at hand, and the first one's place
        self._beside = -(-definition.n_fft // definition.hop) + 1  # frames that share samples with a frame

    def read(self, count: int) -> Float32[np.ndarray, "m w"]:
        """The next `count` frames; fewer only at the end."""
        hop, begin = self._definition.hop, self._position
        end = min(begin + count, self.frames)
        first = max(begin - self._beside, 0)
        stop = self.samples if end == self.frames else min((end + self._beside) * hop, self.samples)
        self._hold(first * hop, stop)
        wave = torch.from_numpy(self._wave[: stop - self._start])[None, None]
        with torch.inference_mode():
            mel = self._definition.encode(wave)[0, :, begin - first : end - first]
        self._position = end
        return mel.numpy()

    def _hold(self, start: int, stop: int) -> None:
        """Have the samples from start to stop at hand, and none before."""
        pieces, have = [self._wave], self._start + len(self._wave)
        while have < stop:
            block = self._reader.read(1 << 14)
            fresh = self._resampler.push(block.mean(0, keepdims=True)) if block.size else self._resampler.finish()
            pieces.append(fresh[0])
            have += fresh.shape[1]
            if not block.size and have < stop:
                raise InputError(f"{self._reader.path}: ended early, {stop - have} samples before its header says")
        self._wave = np.concatenate(pieces)[start - self._start :]
        self._start = start

    def close(self) -> None:
        """Close the recording."""
        self._reader.close()

    def __enter__(self) -> "SoundMel":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class MelWriter(WholeFile):
    """A mel file of known length, written in pieces; it appears under its name only when all frames came."""

    def __init__(self, path: str | os.PathLike[str], definition: Mel, frames: int) -> None:
        super().__init__(path)
        self.frames, self.written = frames, 0
        if self.path.suffix.lower() != ".safetensors":
            raise InputError(f"{self.path}: mels are written as .safetensors, got {self.path.suffix or 'no suffix'!r}")
        self._bands = definition.n_mels
        entry = {"dtype": "F32", "shape": [self._bands, frames], "data_offsets": [0, 4 * self._bands * frames]}
        told = {DEFINITION: json.dumps(dataclasses.asdict(definition))}
        header = json.dumps({"__metadata__": told, "mel": entry}).encode()
        header += b" " * (-len(header) % 8)
        self._begin = 8 + len(header)
        self._file: BinaryIO | None = None
        try:
            self._file = self._temporary.open("xb")
            self._file.write(struct.pack("<Q", len(header)) + header)
        except OSError as error:
            raise self._failed(error) from error

    def write(self, block: Float32[np.ndarray, "m w"]) -> None:
        """Append frames. Raises InputError when they cannot be stored."""
        if self._file is None:
            raise ValueError(f"{self.path}: already closed")
        if len(block) != self._bands or self.written + block.shape[1] > self.frames:
            raise ValueError(f"{self.path}: expected {self._bands} bands and {self.frames} frames in all")
        try:
            for band, row in enumerate(block):  # a band's frames lie together
                self._file.seek(self._begin + 4 * (band * self.frames + self.written))
                self._file.write(np.ascontiguousarray(row, dtype="<f4").tobytes())
        except OSError as error:
            raise self._failed(error) from error
        self.written += block.shape[1]

    def close(self) -> None:
        """Give the file its name. Raises ValueError when frames are missing."""
        if self._file is None:
            return
        if self.written != self.frames:
            self.abort()
            raise ValueError(f"{self.path}: expected {self.frames} frames, got {self.written}")
        try:
            self._file.close()
            os.replace(self._temporary, self.path)
        except OSError as error:
            raise self._failed(error) from error
        self._file = None

    def abort(self) -> None:
        """Leave no file."""
        if self._file is not None:
            with suppress(OSError):  # a full disk, once more
                self._file.close()
            self._file = None
            self._temporary.unlink(missing_ok=True)

    def _failed(self, error: OSError) -> InputError:
        self.abort()
        return InputError(f"{self.path}: cannot be written: {error.strerror or error}")


def save_mel(
    path: str | os.PathLike[str], mel: Float[np.ndarray, "m w"] | Float[Tensor, "m w"], definition: Mel
) -> None:
    """Write a whole mel, with its definition."""
    values = np.asarray(mel.detach().cpu() if isinstance(mel, Tensor) else mel, dtype=np.float32)
    with MelWriter(path, definition, values.shape[1]) as writer:
        writer.write(values)


def load_mel(path: str | os.PathLike[str]) -> tuple[Float32[np.ndarray, "m w"], Mel | None]:
    """A whole mel, and its definition where the file says it."""
    with MelReader(path) as reader:
        return reader.read(reader.frames), reader.definition
