"""The composite measures of speech enhancement and the three distances they are made of.

Frames of 30 ms (N samples) every 7.5 ms (hop), window 0.5 (1 - cos(2 pi k / (N + 1))), k = 1..N; the last N/hop hops of
a file start no frame, so that a file of L samples has int(L/hop - N/hop) frames. s is the reference, e the estimate;
"lowest 95 %" is the mean over those frames.

    SSNR = mean of clip(10 log10(|s|^2 / |s - e|^2), -10, 35) dB
    LLR  = lowest 95 % of ln(a_e' R a_e / a_s' R a_s), a = linear prediction of a frame, R = autocorrelation of s
    WSS  = lowest 95 % of sum_i w_i (slope_s - slope_e)^2 / sum_i w_i over the 24 slopes between 25 critical bands
    CSIG = 3.093 - 1.029 LLR + 0.603 PESQ - 0.009 WSS
    CBAK = 1.634 + 0.478 PESQ - 0.007 WSS + 0.063 SSNR
    COVL = 1.594 + 0.805 PESQ - 0.512 LLR - 0.007 WSS          each clipped to 1..5

Y. Hu, P. Loizou, "Evaluation of objective quality measures for speech enhancement", IEEE TASLP 2008,
https://doi.org/10.1109/TASL.2007.911054; D. Klatt, "Prediction of perceived phonetic distance from critical-band
spectra", ICASSP 1982, for the slopes.

Two published programs compute "the" composites and disagree. `variant="loizou"` (ours, and that of the DR-DiffuSE and
DOSE tables) scores the signals as they are. `variant="diffsep"` (the DiffSep tables) removes the means and scales the
estimate to the reference's peak inside its SSNR, and then hands those changed signals to PESQ as well.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float

Wave = Float[np.ndarray, " n"]
Frames = Float[np.ndarray, "frames samples"]
PerFrame = Float[np.ndarray, " frames"]
Variant = Literal["loizou", "diffsep"]

EPS = float(np.finfo(np.float64).eps)
CENTRES = np.array(
    [50, 120, 190, 260, 330, 400, 470, 540, 617.372, 703.378, 798.717, 904.128, 1020.38, 1148.30, 1288.72, 1442.54,
     1610.70, 1794.16, 1993.93, 2211.08, 2446.71, 2701.97, 2978.04, 3276.17, 3597.63]
)  # fmt: skip
BANDWIDTHS = np.array(
    [70, 70, 70, 70, 70, 70, 70, 77.3724, 86.0056, 95.3398, 105.411, 116.256, 127.914, 140.423, 153.823, 168.154,
     183.457, 199.776, 217.153, 235.631, 255.255, 276.072, 298.126, 321.465, 346.136]
)  # fmt: skip


@dataclass(frozen=True)
class Composite:
    """The parts and the three ratings of one file: PESQ as used, LLR, WSS, SSNR in dB, and CSIG, CBAK, COVL in 1..5."""

    pesq: float
    llr: float
    wss: float
    ssnr: float
    csig: float
    cbak: float
    covl: float


def frames(wave: Wave, sample_rate: int) -> Frames:
    """Windowed 30 ms frames, 7.5 ms apart. Raises ValueError when the wave is shorter than one of them."""
    size, hop = frame_size(sample_rate)
    count = int(len(wave) / hop - size / hop)
    if count < 1:
        raise ValueError(f"too short: expected at least {(size + hop) / sample_rate:.4f} s, got {len(wave)} samples")
    window = 0.5 * (1 - np.cos(2 * np.pi * np.arange(1, size + 1) / (size + 1)))
    return np.lib.stride_tricks.sliding_window_view(wave.astype(np.float64), size)[: count * hop : hop] * window


def frame_size(sample_rate: int) -> tuple[int, int]:
    """Samples of a 30 ms frame and of its hop, a quarter of it."""
    return round(0.03 * sample_rate), int(0.25 * 0.03 * sample_rate + 1e-9)


@lru_cache(maxsize=4)
def critical_bands(sample_rate: int) -> Float[np.ndarray, "25 bins"]:
    """The 25 Gaussian-shaped critical-band filters over the lower half of an FFT of at least two frames."""
    half = fft_size(sample_rate) // 2
    centre, width = (band[:, None] * half / (sample_rate / 2) for band in (CENTRES, BANDWIDTHS))
    equal_area = np.log(BANDWIDTHS[0] / BANDWIDTHS)[:, None]
    gain = np.exp(-11 * ((np.arange(half) - np.floor(centre)) / width) ** 2 + equal_area)
    return np.where(gain > math.exp(-30 / (2 * 2.303)), gain, 0.0)


def fft_size(sample_rate: int) -> int:
    """The power of two at or above two frames."""
    return 2 ** math.ceil(math.log2(2 * frame_size(sample_rate)[0]))


def lowest_95(distances: PerFrame) -> float:
    """Mean of the lowest 95 % (count rounded) of the frames' distances."""
    return float(np.sort(distances)[: max(1, round(0.95 * len(distances)))].mean())


def ssnr(reference: Wave, estimate: Wave, sample_rate: int, variant: Variant = "loizou") -> float:
    """Segmental signal-to-noise ratio in dB, in -10..35; see the head of the module for `variant`."""
    if variant == "diffsep":
        reference, estimate = levelled(reference, estimate)
    clean, error = frames(reference, sample_rate), frames(reference - estimate, sample_rate)
    floor = 1e-10 if variant == "diffsep" else EPS
    ratio = (clean**2).sum(1) / ((error**2).sum(1) + floor) + floor
    return float(np.clip(10 * np.log10(ratio), -10, 35).mean())


def levelled(reference: Wave, estimate: Wave) -> tuple[Wave, Wave]:
    """Both waves without their means, the estimate scaled to the reference's peak, as DiffSep's SSNR does in place."""
    reference = reference - reference.mean()
    estimate = estimate - estimate.mean()
    return reference, estimate * (np.abs(reference).max() / np.abs(estimate).max())


def lag_products(windowed: Frames, order: int) -> Float[np.ndarray, "frames lags"]:
    """Autocorrelation of each frame at lags 0..order."""
    n = windowed.shape[1]
    return np.stack([(windowed[:, : n - lag] * windowed[:, lag:]).sum(1) for lag in range(order + 1)], axis=1)


def levinson(lags: Float[np.ndarray, "frames lags"]) -> Float[np.ndarray, "frames lags"]:
    """Prediction-error filters (1, -a_1, ..., -a_p) of all frames at once, by the Levinson-Durbin recursion."""
    count, order = lags.shape[0], lags.shape[1] - 1
    filters = np.zeros((count, order + 1))
    filters[:, 0] = 1
    error = np.maximum(lags[:, 0], EPS)
    for i in range(1, order + 1):
        reflection = -(filters[:, :i] * lags[:, i:0:-1]).sum(1) / error
        filters[:, 1 : i + 1] += reflection[:, None] * filters[:, i - 1 :: -1][:, :i]
        error = np.maximum(error * (1 - reflection**2), EPS)
    return filters


def llr_frames(reference: Wave, estimate: Wave, sample_rate: int, variant: Variant = "loizou") -> PerFrame:
    """Log-likelihood ratio of each frame in which the reference sounds (a frame of zeros predicts nothing)."""
    order = 10 if sample_rate < 10000 else 16
    clean = lag_products(frames(reference, sample_rate), order)
    other = lag_products(frames(estimate, sample_rate), order)
    sounding = clean[:, 0] > 0
    # Both programs round the filters to 32 bits; DiffSep's also multiplies in 32 bits, worth up to 0.02 in a frame.
    kind = np.float32 if variant == "diffsep" else np.float64
    a_clean, a_other = (levinson(lags[sounding]).astype(np.float32).astype(kind) for lags in (clean, other))
    matrices = clean[sounding].astype(kind)[:, np.abs(np.subtract.outer(np.arange(order + 1), np.arange(order + 1)))]
    bottom, top = (_quadratic(filters, matrices) for filters in (a_clean, a_other))
    if variant == "diffsep":
        return np.log(np.maximum(top, 1e-10) / np.maximum(bottom, 1e-10))
    ratio = top / np.where(bottom == 0, np.nan, bottom)
    return np.log(np.where(ratio > 0, ratio, 1000.0))


def _quadratic(filters: Float[np.ndarray, "k p"], matrices: Float[np.ndarray, "k p p"]) -> Float[np.ndarray, " k"]:
    """a' R a of each frame, in the precision of the arguments, row times matrix first."""
    matrices = np.ascontiguousarray(matrices)
    return np.array([a @ matrix @ a for a, matrix in zip(filters, matrices, strict=True)], np.float64)


def llr(reference: Wave, estimate: Wave, sample_rate: int, variant: Variant = "loizou") -> float:
    """Log-likelihood ratio of the linear predictions, 0 for equal spectra; not capped."""
    distances = llr_frames(reference, estimate, sample_rate, variant)
    if not len(distances):
        raise ValueError("no frame of the reference sounds")
    return lowest_95(distances)


def band_levels(wave: Wave, sample_rate: int, variant: Variant) -> Float[np.ndarray, "frames 25"]:
    """Critical-band levels in dB, not below -100 dB."""
    offset = EPS if variant == "loizou" else 0.0
    spectrum = np.fft.rfft(frames(wave + offset, sample_rate), fft_size(sample_rate))[:, :-1]
    power = (spectrum.real**2 + spectrum.imag**2) @ critical_bands(sample_rate).T
    return 10 * np.log10(np.maximum(power, 1e-10))


def slope_weights(levels: Float[np.ndarray, "frames 25"]) -> Float[np.ndarray, "frames 24"]:
    """Klatt's weights: large near the loudest band and near the local peak that a band's slope points to."""
    rising = np.diff(levels) > 0
    up, down = levels[:, :-1].copy(), levels[:, :-1].copy()  # level at the local peak, one band short of it when rising
    for i in range(22, -1, -1):
        up[:, i] = np.where(rising[:, i + 1], up[:, i + 1], up[:, i])
    for i in range(1, 24):
        down[:, i] = np.where(rising[:, i - 1], down[:, i], down[:, i - 1])
    level, peak = levels[:, :-1], np.where(rising, up, down)
    return 20 / (20 + levels.max(1, keepdims=True) - level) / (1 + peak - level)


def wss_frames(reference: Wave, estimate: Wave, sample_rate: int, variant: Variant = "loizou") -> PerFrame:
    """Weighted spectral slope distance of each frame."""
    clean, other = band_levels(reference, sample_rate, variant), band_levels(estimate, sample_rate, variant)
    weights = (slope_weights(clean) + slope_weights(other)) / 2
    return (weights * (np.diff(clean) - np.diff(other)) ** 2).sum(1) / weights.sum(1)


def wss(reference: Wave, estimate: Wave, sample_rate: int, variant: Variant = "loizou") -> float:
    """Weighted spectral slope distance, 0 for equal spectra."""
    return lowest_95(wss_frames(reference, estimate, sample_rate, variant))


def fwssnr(reference: Wave, estimate: Wave, sample_rate: int) -> float:
    """Frequency-weighted segmental SNR in dB, -10..35: magnitudes of unit sum in a frame, weights magnitude^0.2."""
    bands = []
    for wave in (reference, estimate):
        magnitude = np.abs(np.fft.rfft(frames(wave, sample_rate), fft_size(sample_rate))[:, :-1])
        bands.append((magnitude / np.maximum(magnitude.sum(1, keepdims=True), EPS)) @ critical_bands(sample_rate).T)
    clean, other = bands
    weights = clean**0.2
    ratio = 10 * np.log10(np.maximum(clean**2, EPS * EPS) / np.maximum((clean - other) ** 2, EPS))
    per_frame = (weights * ratio).sum(1) / np.maximum(weights.sum(1), EPS)
    return float(np.clip(per_frame, -10, 35).mean())


def ratings(pesq: float, llr: float, wss: float, ssnr: float) -> Composite:
    """CSIG, CBAK and COVL from their parts."""
    raw = (
        3.093 - 1.029 * llr + 0.603 * pesq - 0.009 * wss,
        1.634 + 0.478 * pesq - 0.007 * wss + 0.063 * ssnr,
        1.594 + 0.805 * pesq - 0.512 * llr - 0.007 * wss,
    )
    csig, cbak, covl = (min(max(value, 1.0), 5.0) for value in raw)
    return Composite(pesq, llr, wss, ssnr, csig, cbak, covl)
