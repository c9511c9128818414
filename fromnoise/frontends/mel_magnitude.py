"""Log-magnitudes in overlapping bands of the mel scale, and the way back.

    x[m, t] = (ln max(a[m, t], floor) - mean) / scale,    a = sum_f w[m, f] |X[f, t]| / sum_f w[m, f]

w are triangles of height 1 that sum to 1 at every bin between the first and the last centre, so the inverse
A[f, t] = sum_m w[m, f] max(exp(scale x + mean) - floor, 0) is a straight line between the bands' means, never negative,
and exact where the magnitudes are flat. Phases come from `Magnitude`. The bands of high frequencies are wide, as those
of the ear: a third of the numbers of a spectrogram, at the price of its fine structure there.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fromnoise.frontends.base import Frontend
from fromnoise.frontends.magnitude import Magnitude
from fromnoise.frontends.mel import Mel, filterbank


@dataclass(frozen=True)
class MelMagnitude(Frontend):
    """Log-magnitudes `b c m t` of a wave `b c n` in `bands` bands from 0 Hz to half the rate; decode is approximate.

    The rest is as in `Magnitude`. Raises ValueError for bands so narrow that no bin lies in one of them.
    """

    sample_rate: int = 16000
    n_fft: int = 1024
    hop: int = 256
    bands: int = 160
    floor: float = 1e-4
    mean: float = -4.0
    scale: float = 3.0
    iterations: int = 32
    momentum: float = 0.99

    def __post_init__(self) -> None:
        if self.bands < 1 or not (filterbank(self._mel()).sum(1) > 0).all():
            raise ValueError(f"expected bands that hold a bin each, got {self.bands} for n_fft={self.n_fft}; ask fewer")

    @property
    def linear(self) -> Magnitude:
        """The same with a number a bin."""
        settings = (self.floor, self.mean, self.scale, self.iterations, self.momentum)
        return Magnitude(self.sample_rate, self.n_fft, self.hop, *settings)

    @property
    def reach(self) -> int:
        return self.linear.reach

    @property
    def align(self) -> int:
        return self.linear.align

    def shape(self, channels: int, n: int) -> tuple[int, ...]:
        return (channels, self.bands, 1 + n // self.hop)

    def encode(self, wave: Float[Tensor, "b c n"]) -> Float[Tensor, "b c m t"]:
        weights = self._weights().to(wave)
        return self.linear.scaled(weights / weights.sum(1, keepdim=True) @ self.linear.magnitudes(wave))

    def decode(self, x: Float[Tensor, "b c m t"], n: int) -> Float[Tensor, "b c n"]:
        if x.shape[2] != self.bands:
            raise ValueError(f"expected {self.bands} bands, got {x.shape[2]}")
        weights = self._weights().to(x.device, torch.float32).T
        return self.linear.wave(x, n, lambda piece: weights @ self.linear.unscaled(piece.float())).to(x.dtype)

    def _mel(self) -> Mel:
        size = (self.sample_rate, self.n_fft, self.hop, self.n_fft, self.bands)
        return Mel(*size, fmax=None, scale="slaney", norm="none")

    def _weights(self) -> Float[Tensor, "m f"]:
        return torch.tensor(filterbank(self._mel()))
