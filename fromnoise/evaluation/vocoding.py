"""How near a vocoder's wave comes to the recording whose mel spectrogram it was given.

x is the reference, y the estimate, of one length; nothing is aligned, nothing is scaled. X and Y are magnitudes.

    log_mel_l1  mean |ln X_mel - ln Y_mel|: 80 Slaney bands to 8 kHz, windows of 1024 every 256 samples, floor 1e-5
                ("tacotron2-22k", the mel that most vocoders read)
    mr_stft     mean over three resolutions of |X - Y|_F / |X|_F + mean |ln X - ln Y|, each X^2 at least 1e-7: FFT, hop
                and Hann window of (1024, 120, 600), (2048, 240, 1200), (512, 50, 240) samples. The loss of Yamamoto,
                Song and Kim, "Parallel WaveGAN", ICASSP 2020, https://arxiv.org/abs/1910.11480, Eq. 4 to 7
    mcd         mel-cepstral distortion in dB, mean over frames of 10/ln 10 sqrt(2 sum_d (c_d - c'_d)^2), d = 1..13
                (Kubichek, 1993), where ln X_mel = c_0 / 2 + sum_d c_d cos(pi d (m + 1/2) / 80) over the bands above:
                the distance of the smoothed envelopes without their level. Cepstra of other analyses (SPTK's, WORLD's),
                other orders and time warping give other numbers
    f0_rmse     root mean square of f0 - f0' in Hz over the frames that are voiced in both
    vuv_f1      F1 of "voiced", 2 TP / (2 TP + FP + FN), the reference's frames being right

f0 comes from `pitch.track`, our pYIN, at 16 kHz. Each function takes (reference, estimate, sample_rate).
"""

import math
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from fromnoise.evaluation import pitch

Wave = Float[np.ndarray, " n"]
Frames = Float[np.ndarray, "frames bins"]

RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))  # FFT, hop, window
CEPSTRA = 13
MEL_RATES = (16000, 22050)  # Hz; the bands end at 8 kHz
DEFAULT_METRICS = ("pesq_wb", "stoi", "mr_stft", "log_mel_l1", "mcd", "f0_rmse", "vuv_f1")
SOUND_METRICS = ("mr_stft", "log_mel_l1", "mcd")  # of sounds that need not be speech


def log_mel_l1(reference: Wave, estimate: Wave, sample_rate: int) -> float:
    """Mean distance of log-mel spectrograms, natural logarithms; sample_rate: at least 16000."""
    return float(np.abs(log_mel(reference, sample_rate) - log_mel(estimate, sample_rate)).mean())


def mr_stft(reference: Wave, estimate: Wave, sample_rate: int = 0) -> float:
    """Multi-resolution STFT distance; the windows are samples, whatever the rate."""
    return float(np.mean([sum(stft_distance(reference, estimate, *sizes)) for sizes in RESOLUTIONS]))


def stft_distance(reference: Wave, estimate: Wave, n_fft: int, hop: int, win: int) -> tuple[float, float]:
    """(spectral convergence, log-magnitude distance) of one resolution."""
    _require_length(reference, estimate, n_fft)
    x, y = (np.sqrt(np.maximum(power(wave, n_fft, hop, win), 1e-7)) for wave in (reference, estimate))
    return float(np.linalg.norm(x - y) / np.linalg.norm(x)), float(np.abs(np.log(x) - np.log(y)).mean())


def mcd(reference: Wave, estimate: Wave, sample_rate: int) -> float:
    """Mel-cepstral distortion in dB, 13 coefficients, no warping; sample_rate: at least 16000."""
    difference = (log_mel(reference, sample_rate) - log_mel(estimate, sample_rate)) @ _cosines()
    return float(10 / math.log(10) * np.sqrt(2 * np.square(difference).sum(axis=1)).mean())


def f0_rmse(reference: Wave, estimate: Wave, sample_rate: int = pitch.RATE) -> float:
    """Difference of the fundamental frequency in Hz where both are voiced; sample_rate: 16000."""
    ours, theirs = pitch.track(reference, sample_rate), pitch.track(estimate, sample_rate)
    both = np.isfinite(ours) & np.isfinite(theirs)
    if not both.any():
        raise ValueError("F0: no frame is voiced in both recordings")
    return float(np.sqrt(np.square(ours[both] - theirs[both]).mean()))


def vuv_f1(reference: Wave, estimate: Wave, sample_rate: int = pitch.RATE) -> float:
    """F1 score of the voiced frames; sample_rate: 16000."""
    ours, theirs = (np.isfinite(pitch.track(wave, sample_rate)) for wave in (reference, estimate))
    if not (ours | theirs).any():
        raise ValueError("V/UV: no frame of either recording is voiced")
    return float(2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()))


def log_mel(wave: Wave, sample_rate: int) -> Frames:
    """ln of the 80 bands, one row a frame."""
    if sample_rate < min(MEL_RATES):
        raise ValueError(f"the mel bands end at 8000 Hz, expected at least {min(MEL_RATES)} Hz, got {sample_rate} Hz")
    _require_length(wave, wave, 1024)
    return np.log(np.maximum(np.sqrt(power(wave, 1024, 256, 1024)) @ _bands(sample_rate).T, 1e-5))


def power(wave: Wave, n_fft: int, hop: int, win: int) -> Frames:
    """|STFT|^2: frame t centred on sample t hop, mirrored at the ends, Hann window in the middle of the FFT."""
    window = np.zeros(n_fft)
    window[(n_fft - win) // 2 :][:win] = np.hanning(win + 1)[:-1]
    padded = np.pad(wave.astype(np.float64), n_fft // 2, mode="reflect")
    spectrum = np.fft.rfft(np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop] * window)
    return spectrum.real**2 + spectrum.imag**2


def _require_length(reference: Wave, estimate: Wave, n_fft: int) -> None:
    if len(reference) != len(estimate):
        raise ValueError(f"wrong length: expected {len(reference)} samples as in the reference, got {len(estimate)}")
    if len(reference) <= n_fft // 2:
        raise ValueError(f"too short: expected more than {n_fft // 2} samples, got {len(reference)}")


@lru_cache(maxsize=4)
def _bands(sample_rate: int) -> Float[np.ndarray, "80 bins"]:
    from fromnoise.frontends.mel import (
        Mel,
        filterbank,
    )  # here, because it imports torch, which other metrics do without

    return filterbank(Mel(sample_rate=sample_rate))


def _cosines() -> Float[np.ndarray, "80 d"]:
    """From ln mel to c_1..c_13."""
    band, order = np.arange(80)[:, None] + 0.5, np.arange(1, CEPSTRA + 1)
    return 2 / 80 * np.cos(np.pi * order * band / 80)
