"""Mel spectrograms, each defined down to the last constant: the one thing that vocoders and their users must share.

    S[f, t] = |STFT(wave)|^power                        (divided by sqrt(sum w^2)^power when normalized)
    M[m, t] = sum_f B[m, f] S[f, t]                      triangles B, corners equally spaced on the mel scale
    L       = multiplier log_base(max(M, floor))         (log = "none": M itself)
    out     = clip((L - low) / (high - low), 0, 1)       (when a range is given)

Mel scales: HTK  mel = 2595 log10(1 + f/700);  Slaney  mel = 3 f/200 below 1 kHz, 15 + 27 ln(f/1000)/ln(6.4) above.
Slaney's norm divides each triangle by half its width in Hz. `DEFINITIONS` names: "tacotron2-22k" (Shen et al., 2018,
https://arxiv.org/abs/1712.05884, as the DiffWave and SaShiMi code computes it), "diffwave-lmnt-22k" (the mels that the
published LMNT DiffWave vocoders expect), "diffuse-16k" (the same at 16 kHz, on which DiffuSE and CDiffuSE are
pre-trained) and "sc09-16k" (decibels, of which the classifier of spoken digits reads the 80 below each clip's maximum).
A definition belongs in the card of every model that takes a mel.
"""

import math
import warnings
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from fromnoise.frontends.base import Frontend, pad_wave
from fromnoise.types import InputError

ODD, IMPOSSIBLE = 0.05, 0.5  # how far beyond the range, as a share of its width, values are warned of and refused


@dataclass(frozen=True)
class Mel(Frontend):
    """One definition of a mel spectrogram: `encode` gives `b (c m) t`; there is no inverse but a vocoder.

    sample_rate, fmin, fmax in Hz; n_fft, hop, win in samples. fmax None: half the rate. centered: frame t stands at
    sample t hop, 1 + n//hop frames; otherwise frame t begins there, (n_fft - hop)/2 padded at both ends.
    scale: "slaney" or "htk". norm: "slaney" or "none". log: "e", "10" or "none". padding: "reflect" or "constant".
    low and high: the range of L that becomes 0..1, or both None. With a range `invert_range` gives L back.
    """

    sample_rate: int = 22050
    n_fft: int = 1024
    hop: int = 256
    win: int = 1024
    n_mels: int = 80
    fmin: float = 0.0
    fmax: float | None = 8000.0
    scale: str = "slaney"
    norm: str = "slaney"
    power: float = 1.0
    normalized: bool = False
    log: str = "e"
    multiplier: float = 1.0
    floor: float = 1e-5
    low: float | None = None
    high: float | None = None
    padding: str = "reflect"
    centered: bool = True

    def __post_init__(self) -> None:
        for field, choices in _CHOICES.items():
            if getattr(self, field) not in choices:
                raise ValueError(f"{field} must be one of {', '.join(choices)}, got {getattr(self, field)!r}")
        if not (self.sample_rate > 0 and self.n_mels > 0 and self.hop > 0 and 2 <= self.win <= self.n_fft):
            raise ValueError(f"expected positive sizes and 2 <= win <= n_fft, got {self}")
        if not 0 <= self.fmin < self._top <= self.sample_rate / 2:
            raise ValueError(
                f"expected 0 <= fmin < fmax <= {self.sample_rate / 2:g} Hz (half the sample rate), "
                f"got fmin={self.fmin:g}, fmax={self._top:g}"
            )
        if (self.low is None) != (self.high is None) or (self.low is not None and self.low >= self._high):
            raise ValueError(f"low and high must both be given, low < high, or neither; got {self.low} and {self.high}")
        if self.floor <= 0:
            raise ValueError(f"floor must be positive, got {self.floor}")

    @property
    def _top(self) -> float:
        return self.sample_rate / 2 if self.fmax is None else self.fmax

    @property
    def _high(self) -> float:
        return math.inf if self.high is None else self.high

    @property
    def reach(self) -> int:
        return self.n_fft

    def frames(self, n: int) -> int:
        """Frames for n samples."""
        return 1 + (n + 2 * self._pad - self.n_fft) // self.hop if n + 2 * self._pad >= self.n_fft else 1

    def shape(self, channels: int, n: int) -> tuple[int, ...]:
        return (channels * self.n_mels, self.frames(n))

    @property
    def _pad(self) -> int:
        return self.n_fft // 2 if self.centered else (self.n_fft - self.hop) // 2

    @property
    def range(self) -> tuple[float, float]:
        """The least and the largest value that a wave within full scale can give."""
        if self.low is not None:
            return (0.0, 1.0)
        window = np.hanning(self.win + 1)[:-1]
        peak = window.sum() / (math.sqrt((window**2).sum()) if self.normalized else 1.0)
        top = float(peak**self.power * filterbank(self).sum(axis=1).max())
        return (0.0, top) if self.log == "none" else (self._log_of(self.floor), self._log_of(max(top, self.floor)))

    def _log_of(self, value: float) -> float:
        return self.multiplier * (math.log(value) if self.log == "e" else math.log10(value))

    def encode(self, wave: Float[Tensor, "b c n"]) -> Float[Tensor, "b cm t"]:
        b, c, n = wave.shape
        frames = self.frames(n)
        right = (frames - 1) * self.hop + self.n_fft - self._pad - n
        padded = pad_wave(wave, self._pad, right, self.padding).flatten(0, 1)
        window = torch.hann_window(self.win, periodic=True, dtype=wave.dtype, device=wave.device)
        spectrum = torch.stft(
            padded, self.n_fft, self.hop, self.win, window, center=False, return_complex=True
        ).abs()  # (b c) f t
        if self.normalized:
            spectrum = spectrum / window.square().sum().sqrt()
        if self.power != 1:
            spectrum = spectrum**self.power
        bank = torch.tensor(filterbank(self), dtype=wave.dtype, device=wave.device)
        return self._compress(bank @ spectrum).reshape(b, c * self.n_mels, frames)

    def _compress(self, mel: Tensor) -> Tensor:
        if self.log != "none":
            mel = mel.clamp(min=self.floor)
            mel = self.multiplier * (mel.log() if self.log == "e" else mel.log10())
        if self.low is None:
            return mel
        return ((mel - self.low) / (self._high - self.low)).clamp(0, 1)

    def decode(self, x: Float[Tensor, "b cm t"], n: int) -> Float[Tensor, "b c n"]:
        raise ValueError("a mel spectrogram has no phase, so it has no inverse; use a vocoder: fromnoise vocode")

    def invert_range(self, mel: Float[Tensor, "... t"]) -> Float[Tensor, "... t"]:
        """L for the given output: undoes the mapping to 0..1 (what was clipped stays clipped)."""
        return mel if self.low is None else mel * (self._high - self.low) + self.low

    def check(self, mel: Float[Tensor, "b m t"], what: str = "mel") -> Float[Tensor, "b m t"]:
        """mel itself; raises InputError, with what was expected and what came, when another definition made it.

        Warns of values that are possible but odd.
        """
        self.check_shape(mel.shape[1], mel.shape[2], what)
        if not mel.isfinite().all():
            raise InputError(f"{what}: holds NaN or infinite values; make it anew")
        self.check_values(float(mel.min()), float(mel.max()), what)
        return mel

    def check_shape(self, bands: int, frames: int, what: str = "mel") -> None:
        """Raises InputError unless a mel of this definition can have so many bands and frames."""
        if bands != self.n_mels:
            turned = "; it looks transposed: expected bands before frames" if frames == self.n_mels else ""
            raise InputError(f"{what}: expected {self.n_mels} mel bands, got {bands}{turned}")
        if frames < 1:
            raise InputError(f"{what}: holds no frames; expected at least one")

    def check_values(self, least: float, most: float, what: str = "mel") -> None:
        """Raises InputError for extremes that no mel of this definition has, not even one that a model predicted;
        warns of those that no sound within full scale has."""
        low, high = self.range
        hint = "it was made by another mel definition; make it with `fromnoise mel` for this model"
        beyond = max(low - least, most - high) / (high - low)
        if beyond > IMPOSSIBLE:
            raise InputError(
                f"{what}: expected values from {low:.2f} to {high:.2f}, got {least:.2f} to {most:.2f}; {hint}"
            )
        if low < -1 and least >= 0:  # every band of every frame above 0 dB: no sound is so loud throughout
            raise InputError(f"{what}: expected mostly negative logarithms, got {least:.2f} to {most:.2f}; {hint}")
        if beyond > ODD:
            warnings.warn(
                f"{what}: values from {least:.2f} to {most:.2f}, where {low:.2f} to {high:.2f} are usual; "
                "was it made by another mel definition?",
                stacklevel=2,
            )


_CHOICES = {
    "scale": ("slaney", "htk"),
    "norm": ("slaney", "none"),
    "log": ("e", "10", "none"),
    "padding": ("reflect", "constant"),
}

_LMNT = Mel(
    fmin=20.0, fmax=None, scale="htk", norm="none", normalized=True, log="10", multiplier=20.0, low=-80.0, high=20.0
)
MELS: dict[str, Mel] = {
    "tacotron2-22k": Mel(),
    "diffwave-lmnt-22k": _LMNT,
    "diffuse-16k": replace(_LMNT, sample_rate=16000),
}
"""The mels of published vocoders."""

DEFINITIONS: dict[str, Mel] = MELS | {
    "sc09-16k": Mel(16000, 2048, 512, 2048, 32, power=2.0, log="10", multiplier=10.0, floor=1e-10),
}
"""All that have a name."""


@lru_cache(maxsize=32)
def filterbank(mel: Mel) -> Float64[np.ndarray, "m f"]:
    """The triangles of a definition over the bins of its STFT, float64, read-only."""
    to_mel, to_hz = (_slaney_from_hz, _slaney_to_hz) if mel.scale == "slaney" else (_htk_from_hz, _htk_to_hz)
    lowest, highest = to_mel(np.array([mel.fmin, mel._top]))
    corners = to_hz(np.linspace(lowest, highest, mel.n_mels + 2))
    frequencies = np.linspace(0, mel.sample_rate / 2, mel.n_fft // 2 + 1)
    left, centre, right = (corners[i : i + mel.n_mels, None] for i in range(3))
    rising = (frequencies - left) / (centre - left)
    falling = (right - frequencies) / (right - centre)
    bank = np.maximum(0.0, np.minimum(rising, falling))
    if mel.norm == "slaney":
        bank *= 2 / (right - left)
    bank.setflags(write=False)
    return bank


def _htk_from_hz(f: np.ndarray) -> np.ndarray:
    return 2595 * np.log10(1 + f / 700)


def _htk_to_hz(mel: np.ndarray) -> np.ndarray:
    return 700 * (10 ** (mel / 2595) - 1)


def _slaney_from_hz(f: np.ndarray) -> np.ndarray:
    return np.where(f < 1000, 3 * f / 200, 15 + 27 * np.log(np.maximum(f, 1000) / 1000) / math.log(6.4))


def _slaney_to_hz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, 200 * mel / 3, 1000 * np.exp((np.maximum(mel, 15) - 15) * math.log(6.4) / 27))
