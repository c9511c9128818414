"""Sound inside containers that libsndfile does not know (m4a, mp4, webm, mka, ...), through the optional PyAV.

The track is decoded once, block by block, into an unnamed temporary W64 file, so that it can be read, counted and
searched like any other file, with memory independent of its length.
"""

import importlib.util
import io
import math
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import soundfile

from fromnoise.types import InputError

_CONTAINERS = {b"ftyp": "MPEG-4 (m4a, mp4)", b"\x1aE\xdf\xa3": "Matroska/WebM", b"0&\xb2u": "Windows Media"}


def decode_container(
    path: Path, head: bytes, error: soundfile.LibsndfileError, opened: io.BufferedReader | None = None
) -> BinaryIO:
    """A temporary W64 file with the sound that PyAV finds in `path`, or in the file that stands for it."""
    found = _CONTAINERS.get(head[4:8]) or _CONTAINERS.get(head[:4])
    if importlib.util.find_spec("av") is None:
        if found:
            raise InputError(
                f"{path}: is {found}, which needs the extra 'formats': pip install 'fromnoise[formats]'; "
                "or convert it to wav or flac"
            ) from error
        raise InputError(f"{path}: is not audio that can be read ({error.error_string.rstrip('.').lower()})") from error
    import av
    from av.error import FFmpegError

    spool = cast(BinaryIO, tempfile.TemporaryFile())
    if opened is not None:
        opened.seek(0)
    try:
        with av.open(opened or str(path)) as container:
            if not container.streams.audio:
                raise InputError(f"{path}: holds no audio track")
            _spool_stream(container, container.streams.audio[0], spool)
    except (FFmpegError, OSError) as failure:
        spool.close()
        raise InputError(f"{path}: is not audio that can be read ({failure})") from failure
    except BaseException:
        spool.close()
        raise
    spool.seek(0)
    return spool


def _spool_stream(container: Any, stream: Any, spool: BinaryIO) -> None:
    """Decode one PyAV audio stream to float32 W64, without the codec's padding beyond the duration it states, if any.

    Writers of m4a round that duration to milliseconds, so one more is kept: a little silence, not a lost end.
    """
    rate, channels = stream.rate, stream.codec_context.channels
    left = (
        math.inf if stream.duration is None else round((stream.duration * stream.time_base + Fraction(1, 1000)) * rate)
    )
    import av

    converter = av.AudioResampler(format="flt", layout=stream.codec_context.layout, rate=rate)
    with soundfile.SoundFile(spool, "w", rate, channels, "FLOAT", format="W64") as file:
        for decoded in container.decode(stream):
            for frame in converter.resample(decoded):
                samples = np.asarray(frame.to_ndarray(), dtype=np.float32).reshape(-1, channels)[
                    : int(min(left, frame.samples))
                ]
                file.write(samples)
                left -= len(samples)
