"""What each audio format that can be written holds: sample rates, channels, kinds of sample.

libsndfile refuses some of these with a bare error and crashes on others, so they are checked before it is asked.
"""

import os
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from fromnoise.frontends.resample import MAX_RATE, check_rate
from fromnoise.types import InputError

# suffix -> (libsndfile format, its default subtype)
FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".aiff": ("AIFF", "PCM_16"),
    ".aif": ("AIFF", "PCM_16"),
    ".w64": ("W64", "PCM_16"),
    ".caf": ("CAF", "PCM_16"),
}
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
# Subtypes that say something about how finely the samples were stored; the others (ADPCM, codecs) pad or lose.
_KEPT_SUBTYPES = {"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"}
_FINE_SUBTYPES = {"PCM_24", "PCM_32", "FLOAT", "DOUBLE"}
FLOAT_SUBTYPES = {"FLOAT", "DOUBLE"}
# Steps from silence to full scale; 32 bits are finer than the float32 that is written.
PCM_STEPS = {
    "PCM_S8": np.float32(2**7),
    "PCM_U8": np.float32(2**7),
    "PCM_16": np.float32(2**15),
    "PCM_24": np.float32(2**23),
}
BYTES_PER_SAMPLE = {"PCM_S8": 1, "PCM_U8": 1, "ULAW": 1, "ALAW": 1, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}


def native(path: Path) -> Any:
    """A path for libsndfile's binding: on POSIX bytes, which its stubs leave out, for names that are no text."""
    return str(path) if os.name == "nt" else os.fsencode(path)


def _format_of(path: Path) -> tuple[str, str]:
    if path.suffix.lower() not in FORMATS:
        known = ", ".join(FORMATS)
        raise InputError(f"{path}: cannot write {path.suffix or 'a name without suffix'}; expected one of {known}")
    return FORMATS[path.suffix.lower()]


def kind_for(path: Path, sample_rate: int, channels: int, subtype: str | None) -> tuple[str, str]:
    """Format and subtype to write, after checking that the codec takes this rate and channel count."""
    kind, default = _format_of(path)
    subtype = subtype or default
    check_rate(sample_rate, str(path))
    if not soundfile.check_format(kind, subtype):
        choices = ", ".join(soundfile.available_subtypes(kind))
        raise InputError(f"{path}: {kind} cannot store {subtype}; choose one of {choices}")
    rates = {"OPUS": _OPUS_RATES, "MPEG_LAYER_III": _MP3_RATES}.get(subtype)
    if rates is not None and sample_rate not in rates:
        listed = ", ".join(str(r) for r in rates)
        raise InputError(
            f"{path}: {path.suffix} holds {listed} Hz only, got {sample_rate} Hz; write .flac or .wav instead"
        )
    most = {"VORBIS": 192_000, "PCM_16": 655_350, "PCM_24": 655_350, "PCM_S8": 655_350}.get(subtype, MAX_RATE)
    if kind in ("FLAC", "OGG") and sample_rate > most:  # libsndfile's Vorbis encoder crashes the process above this
        raise InputError(f"{path}: {path.suffix} holds at most {most} Hz, got {sample_rate} Hz; write .wav instead")
    limit = {"MP3": 2, "FLAC": 8, "OGG": 255}.get(kind, 1024)
    if not 1 <= channels <= limit:
        raise InputError(f"{path}: {path.suffix} holds 1 to {limit} channels, got {channels}; write .wav instead")
    return kind, subtype


def keep_subtype(path: str | PathLike[str], subtype: str) -> str:
    """The subtype for writing `path` that stores samples as finely as an input of `subtype`.

    The same one where the format has it, 24 bit for a finer input the format cannot hold, else the format's default.
    """
    kind, default = _format_of(Path(path))
    wanted = (subtype if subtype in _KEPT_SUBTYPES else default, "PCM_24" if subtype in _FINE_SUBTYPES else default)
    return next((s for s in wanted if soundfile.check_format(kind, s)), default)
