"""Complex spectrogram with compressed magnitude, as real channels.

    X[f, t] = sum_k w[k] x[t hop + k - n_fft/2] exp(-2 pi i f k / n_fft)
    exponent:  Y = factor |X|^exponent       X/|X|     inverse  (|Y| / factor)^(1 / exponent)  Y/|Y|
    log:       Y = factor ln(1 + |X|)        X/|X|     inverse  (exp(|Y| / factor) - 1)        Y/|Y|
    none:      Y = factor X

with a periodic Hann window w or its root. DR-DiffuSE: n_fft 320, hop 160, exponent 0.5; SGMSE+ (Richter et al., 2023,
https://arxiv.org/abs/2208.05830): n_fft 510, hop 128, exponent 0.5, factor 0.15 at 16 kHz.

Layout: `b 2c f t`, channels re_0, im_0, re_1, im_1, ... of the wave's channels. Frame t is centred on sample t hop.
Published code makes 1 + floor(n / hop) frames; where hop is close to n_fft / 2 the last samples then lie where the
last window fades, and are lost or noisy after the inverse. Here one frame more is made when the last sample lies
further than n_fft / 4 from the last centre, so that the inverse is exact for every n >= 1.

Below |X| = 1e-12 the compression is linear, which keeps its gradient finite at silence and its inverse exact.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from fromnoise.frontends.base import Frontend, pad_wave

_LINEAR_BELOW = 1e-12


@dataclass(frozen=True)
class STFT(Frontend):
    """sample_rate in Hz, n_fft and hop in samples; the window, "hann" or "sqrt_hann", spans n_fft.

    padding: "reflect" or "constant" (silence) beyond the ends. transform: "exponent", "log" or "none", see the module.
    """

    sample_rate: int = 16000
    n_fft: int = 320
    hop: int = 160
    window: str = "hann"
    padding: str = "reflect"
    transform: str = "exponent"
    exponent: float = 0.5
    factor: float = 1.0

    def __post_init__(self) -> None:
        for field, choices in _CHOICES.items():
            if getattr(self, field) not in choices:
                raise ValueError(f"{field} must be one of {', '.join(choices)}, got {getattr(self, field)!r}")
        if self.sample_rate <= 0 or self.n_fft < 2 or not 1 <= self.hop <= self.n_fft // 2:
            raise ValueError(
                f"expected a positive sample_rate and 1 <= hop <= n_fft / 2, "
                f"got sample_rate={self.sample_rate}, n_fft={self.n_fft}, hop={self.hop}"
            )
        if self.exponent <= 0 or self.factor <= 0:
            raise ValueError(f"exponent and factor must be positive, got {self.exponent} and {self.factor}")

    @property
    def bins(self) -> int:
        return self.n_fft // 2 + 1

    @property
    def reach(self) -> int:
        return self.n_fft

    def frames(self, n: int) -> int:
        """Frames for n samples."""
        usual = 1 + (n + 2 * (self.n_fft // 2) - self.n_fft) // self.hop
        beyond = n - 1 - (usual - 1) * self.hop
        return usual + (4 * beyond > self.n_fft)

    def shape(self, channels: int, n: int) -> tuple[int, ...]:
        return (2 * channels, self.bins, self.frames(n))

    def encode(self, wave: Float[Tensor, "b c n"]) -> Float[Tensor, "b c2 f t"]:
        b, c, n = wave.shape
        frames, left = self.frames(n), self.n_fft // 2
        right = (frames - 1) * self.hop + self.n_fft - left - n
        padded = pad_wave(wave, left, right, self.padding).flatten(0, 1)
        spectrum = torch.stft(
            padded, self.n_fft, self.hop, window=self._window(wave), center=False, return_complex=True
        )
        y = torch.view_as_real(self.compress(spectrum))  # (b c) f t 2
        return y.movedim(-1, 1).reshape(b, 2 * c, self.bins, frames)

    def decode(self, x: Float[Tensor, "b c2 f t"], n: int) -> Float[Tensor, "b c n"]:
        b, c2, f, t = x.shape
        if c2 % 2 or f != self.bins:
            raise ValueError(f"expected pairs of channels and {self.bins} bins, got {c2} channels and {f} bins")
        pairs = x.reshape(b * (c2 // 2), 2, f, t)
        spectrum = self.expand(torch.complex(pairs[:, 0], pairs[:, 1]))
        wave = torch.istft(spectrum, self.n_fft, self.hop, window=self._window(x), center=True, length=n)
        return wave.reshape(b, c2 // 2, n)

    def compress(self, spectrum: Complex[Tensor, "..."]) -> Complex[Tensor, "..."]:
        """X -> Y."""
        if self.transform == "none":
            return self.factor * spectrum
        magnitude = spectrum.abs().clamp(min=_LINEAR_BELOW)
        if self.transform == "exponent":
            return spectrum * (self.factor * magnitude ** (self.exponent - 1))
        return spectrum * (self.factor * torch.log1p(magnitude) / magnitude)

    def expand(self, compressed: Complex[Tensor, "..."]) -> Complex[Tensor, "..."]:
        """Y -> X, the inverse of `compress`."""
        y = compressed / self.factor
        if self.transform == "none":
            return y
        if self.transform == "exponent":
            return y * y.abs().clamp(min=_LINEAR_BELOW**self.exponent) ** (1 / self.exponent - 1)
        magnitude = y.abs().clamp(min=_LINEAR_BELOW)
        return y * (torch.expm1(magnitude) / magnitude)

    def _window(self, like: Tensor) -> Tensor:
        hann = torch.hann_window(self.n_fft, periodic=True, dtype=like.dtype, device=like.device)
        return hann if self.window == "hann" else hann.sqrt()


_CHOICES = {
    "window": ("hann", "sqrt_hann"),
    "padding": ("reflect", "constant"),
    "transform": ("exponent", "log", "none"),
}
