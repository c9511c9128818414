"""DNSMOS: what listeners would say, estimated by two published networks without a reference.

P.835 network: 9.01 s of wave at 16 kHz -> raw (sig, bak, ovrl), then per rating a polynomial a x^2 + b x + c.
P.808 network: 120 mel bands of the same wave less its last 160 samples -> one rating, `p808`.
Mel: Hann window 321, hop 160, centred with zeros; power; Slaney filters to 8 kHz, each of unit area; dB below the
loudest bin, not under -80; (dB + 40) / 40.
A file is repeated (doubled) until it fills one window; windows start every second; ratings are means over windows.

C. Reddy et al., "DNSMOS P.835: a non-intrusive perceptual objective speech quality metric to evaluate noise
suppressors", ICASSP 2022, https://arxiv.org/abs/2110.01763; the P.808 network: https://arxiv.org/abs/2010.15258.
The networks (by Microsoft, CC BY 4.0) are files inside the `speechmos` package; they are read where they lie, and that
package's code, with its larger needs, is never imported.
"""

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

Wave = Float[np.ndarray, " n"]

SAMPLE_RATE = 16000
SECONDS = 9.01
FFT, HOP, MELS = 321, 160, 120
POLYNOMIALS = {
    "sig": (-0.08397278, 1.22083953, 0.0052439),
    "bak": (-0.13166888, 1.60915514, -0.39604546),
    "ovrl": (-0.06766283, 1.11546468, 0.04602535),
}


@dataclass(frozen=True)
class Ratings:
    """Speech (sig), background (bak) and overall (ovrl) of P.835, and P.808: each about 1 to 5."""

    sig: float
    bak: float
    ovrl: float
    p808: float


@lru_cache(maxsize=2)
def slaney_mel(sample_rate: int = SAMPLE_RATE, n_fft: int = FFT, mels: int = MELS) -> Float[np.ndarray, "mels bins"]:
    """Triangular mel filters of unit area: 200/3 Hz a mel below 1 kHz, logarithmic above, 27 for a factor 6.4."""
    top = sample_rate / 2
    knee, step = 15.0, np.log(6.4) / 27
    highest = knee + np.log(top / 1000) / step if top > 1000 else top * 3 / 200
    points = np.linspace(0, highest, mels + 2)
    hertz = np.where(points < knee, points * 200 / 3, 1000 * np.exp(step * (points - knee)))
    bins = np.fft.rfftfreq(n_fft, 1 / sample_rate)
    width = np.diff(hertz)[:, None]
    rise = (bins - hertz[:-2, None]) / width[:-1]
    fall = (hertz[2:, None] - bins) / width[1:]
    return np.maximum(0, np.minimum(rise, fall)) * (2 / (hertz[2:] - hertz[:-2]))[:, None]


def mel_features(wave: Wave) -> Float[np.ndarray, "frames 120"]:
    """What the P.808 network sees of a wave at 16 kHz."""
    padded = np.pad(wave.astype(np.float64), FFT // 2)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)
    spectrum = np.fft.rfft(np.lib.stride_tricks.sliding_window_view(padded, FFT)[::HOP] * window)
    power = (spectrum.real**2 + spectrum.imag**2) @ slaney_mel().T
    level = 10 * np.log10(np.maximum(power, 1e-10))
    below = np.maximum(level - level.max(), -80.0)
    return (below + 40) / 40


@lru_cache(maxsize=1)
def networks() -> tuple[Any, Any]:
    """ONNX sessions of the P.835 and P.808 networks, one thread each. Raises ImportError when a package is missing."""
    import onnxruntime

    found = find_spec("speechmos")
    if found is None or not found.submodule_search_locations:
        raise ImportError("No module named 'speechmos'", name="speechmos")
    folder = Path(found.submodule_search_locations[0]) / "dnsmos_models"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    sessions = [
        onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
        for name in ("sig_bak_ovr.onnx", "model_v8.onnx")
    ]
    return sessions[0], sessions[1]


def window_starts(n: int) -> list[int]:
    """First samples of the windows of a file of n samples.

    The published script computes a window's end in floating point, gets one sample too few for the 8th to the 24th (and
    some past the 119th), and drops those. We follow it, because the published numbers did.
    """
    size = int(SECONDS * SAMPLE_RATE)
    count = int(n // SAMPLE_RATE - SECONDS) + 1
    ends = [min(int((i + SECONDS) * SAMPLE_RATE), n) for i in range(count)]
    return [i * SAMPLE_RATE for i, end in enumerate(ends) if end - i * SAMPLE_RATE >= size]


def dnsmos(estimate: Wave, sample_rate: int) -> Ratings:
    """The four ratings of a wave at 16 kHz. Raises ValueError at another rate, ImportError without the packages."""
    if sample_rate != SAMPLE_RATE:
        raise ValueError(f"DNSMOS expects {SAMPLE_RATE} Hz, got {sample_rate} Hz; resample first")
    return _rate(np.ascontiguousarray(estimate, np.float32).tobytes())


@lru_cache(maxsize=2)
def _rate(estimate: bytes) -> Ratings:
    """The ratings of a float32 wave; remembers the last, since four metrics ask for them."""
    wave, size = np.frombuffer(estimate, np.float32), int(SECONDS * SAMPLE_RATE)
    while len(wave) < size:
        wave = np.concatenate([wave, wave])
    p835, p808 = networks()
    raw, overall = [], []
    for start in window_starts(len(wave)):
        part = wave[start : start + size]
        raw.append(p835.run(None, {"input_1": part[None]})[0][0])
        features = mel_features(part[:-HOP]).astype(np.float32)
        overall.append(p808.run(None, {"input_1": features[None]})[0][0][0])
    columns = dict(zip(POLYNOMIALS, np.asarray(raw, np.float64).T, strict=True))
    means = {name: float(np.polyval(POLYNOMIALS[name], columns[name]).mean()) for name in POLYNOMIALS}
    return Ratings(**means, p808=float(np.mean(overall)))
