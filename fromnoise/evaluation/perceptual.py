"""PESQ and STOI from their reference packages, with every way in which those fail turned into one sentence.

PESQ (ITU-T P.862) is reported as MOS-LQO: narrow band by P.862.1, y = 0.999 + 4 / (1 + exp(-1.4945 x + 4.6607)) of the
raw score x; wide band by P.862.2. The two scales are not comparable. STOI correlates the short-time envelopes of 15
third-octave bands at 10 kHz over 384 ms (Taal et al., "An Algorithm for Intelligibility Prediction of Time-Frequency
Weighted Noisy Speech", IEEE TASLP 2011); ESTOI normalises over bands too (Jensen, Taal, IEEE TASLP 2016).

What surprised us: the `pesq` package keeps its utterances in a table of 50 and writes past its end on recordings with
more, which ends the whole Python process. Files of more than 15 s are therefore scored in a process of their own.
"""

import math
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float

Wave = Float[np.ndarray, " n"]
Mode = Literal["wb", "nb"]

SECONDS_IN_PROCESS = 15.0
STOI_SECONDS = (29 * 128 + 256) / 10000  # 30 frames of 256 samples, 128 apart, at 10 kHz
ISOLATED = (
    "import sys, numpy as np, pesq\n"
    "ref, deg = np.frombuffer(sys.stdin.buffer.read(), sys.argv[1]).reshape(2, -1)\n"
    "print(float(pesq.pesq(int(sys.argv[2]), ref, deg, sys.argv[3])))\n"
)


def resample(wave: Wave, sample_rate: int, target_rate: int) -> Float[np.ndarray, " m"]:
    """The wave at another rate, by soxr's high-quality filter."""
    if sample_rate == target_rate:
        return wave
    import soxr

    return np.asarray(soxr.resample(wave, sample_rate, target_rate, quality="HQ"))


def pesq(reference: Wave, estimate: Wave, sample_rate: int, mode: Mode = "wb") -> float:
    """PESQ as MOS-LQO, about 1.0 to 4.64 (wb, 16 kHz) or 4.55 (nb, 8 or 16 kHz).

    Raises ValueError where PESQ cannot judge (no speech found, under a quarter of a second, wrong rate) and ImportError
    where the package is missing.
    """
    if sample_rate not in ((16000,) if mode == "wb" else (8000, 16000)):
        raise ValueError(f"PESQ {mode} expects {'16000' if mode == 'wb' else '8000 or 16000'} Hz, got {sample_rate} Hz")
    kind = np.result_type(reference, estimate, np.float32)
    ref, deg = (np.ascontiguousarray(wave, kind).tobytes() for wave in (reference, estimate))
    return _pesq(ref, deg, kind.str, sample_rate, mode)


@lru_cache(maxsize=2)
def _pesq(ref: bytes, deg: bytes, kind: str, sample_rate: int, mode: Mode) -> float:
    """PESQ of two waves in the precision given (32 bits can move it by 3e-4); remembered, since CSIG etc. ask again."""
    import pesq as package

    clean, other = np.frombuffer(ref, kind), np.frombuffer(deg, kind)
    if len(clean) > SECONDS_IN_PROCESS * sample_rate:
        return _pesq_alone(ref + deg, kind, sample_rate, mode)
    try:
        score = float(package.pesq(sample_rate, clean, other, mode))
    except package.PesqError as error:
        raise ValueError(f"PESQ: {_text(error)}") from error
    if not math.isfinite(score):
        raise ValueError("PESQ gave no finite number")
    return score


def _pesq_alone(both: bytes, kind: str, sample_rate: int, mode: Mode) -> float:
    """PESQ in a process of its own, so that a crash of its C code is a sentence and not our end."""
    command = [sys.executable, "-c", ISOLATED, kind, str(sample_rate), mode]
    done = subprocess.run(command, input=both, capture_output=True, check=False)
    if done.returncode == 1:
        raise ValueError(f"PESQ: {done.stderr.decode(errors='replace').strip().splitlines()[-1]}")
    if done.returncode != 0:
        raise ValueError(
            "PESQ crashed: it holds 50 utterances and this long recording has more; cut it into parts of 10 s"
        )
    return float(done.stdout)


def _text(error: Exception) -> str:
    """The message of an error that carries bytes."""
    message = error.args[0] if error.args else type(error).__name__
    return message.decode(errors="replace") if isinstance(message, bytes) else str(message)


def pesq_raw(reference: Wave, estimate: Wave, sample_rate: int) -> float:
    """Narrow-band PESQ on the raw P.862 scale (-0.5 to 4.5): the inverse of P.862.1, as DR-DiffuSE uses at 8 kHz."""
    score = pesq(reference, estimate, sample_rate, "nb")
    return (4.6607 - math.log(4 / (score - 0.999) - 1)) / 1.4945


def stoi(reference: Wave, estimate: Wave, sample_rate: int, extended: bool = False) -> float:
    """Short-time objective intelligibility, up to 1; the package brings any rate to 10 kHz itself.

    Raises ValueError where fewer than 30 frames of speech remain (the package would return 1e-5 and warn).
    """
    from pystoi import stoi as package

    too_short = f"STOI: fewer than 30 frames ({STOI_SECONDS:.1f} s) of speech"
    if len(reference) < STOI_SECONDS * sample_rate:
        raise ValueError(too_short)
    with warnings.catch_warnings(), _fixed_draws():
        warnings.filterwarnings("error", message=".*STFT frames.*", category=RuntimeWarning)
        try:
            score = float(package(reference, estimate, sample_rate, extended=extended))
        except RuntimeWarning as warning:
            raise ValueError(too_short) from warning
    if not math.isfinite(score):
        raise ValueError("STOI gave no finite number")
    return score


@contextmanager
def _fixed_draws() -> Iterator[None]:
    """The same draws from numpy's global generator each time: the package's ESTOI adds noise of 2e-16 from it, by which
    its last digits would differ from run to run."""
    before = np.random.get_state()  # noqa: NPY002 (the one that the package uses)
    np.random.seed(0)  # noqa: NPY002 (the one that the package uses)
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002 (the one that the package uses)
