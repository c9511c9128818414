"""The magnitudes that DiffuSE, CDiffuSE and their kin show a waveform network as its condition.

    S[f, t] = ln(1 + |STFT(wave / max|wave|)|[f, t]),    a symmetric Hamming window of n_fft samples, f = 0 .. n_fft/2

Lu et al., "A Study on Speech Enhancement Based on Diffusion Probabilistic Model", APSIPA 2021,
https://arxiv.org/abs/2107.11876, and "Conditional Diffusion Probabilistic Model for Speech Enhancement", ICASSP 2022,
https://arxiv.org/abs/2202.05256. Frame t is centred on sample t hop and is upsampled to the samples t hop ..
(t + 1) hop - 1. The wave itself, which the network diffuses, keeps its level: only the spectrum is of the scaled one.

Beyond the ends the wave is mirrored, as librosa did when the published models were trained; "constant" is silence, as
librosa does since version 0.10.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fromnoise.frontends.base import Frontend, pad_wave

SILENCE = 1e-7  # peaks below it count as this


@dataclass(frozen=True)
class Spectrum(Frontend):
    """`encode` gives `b (c f) t`, n_fft / 2 + 1 bins a channel and 1 + n // hop frames; there is no inverse.

    sample_rate in Hz, n_fft and hop in samples; padding: "reflect" or "constant".
    """

    sample_rate: int = 16000
    n_fft: int = 1024
    hop: int = 256
    padding: str = "reflect"

    def __post_init__(self) -> None:
        if self.padding not in ("reflect", "constant"):
            raise ValueError(f"padding must be one of reflect, constant, got {self.padding!r}")
        if min(self.sample_rate, self.n_fft, self.hop) < 1 or self.n_fft % 2:
            raise ValueError(
                "expected a positive sample_rate and hop and an even n_fft, "
                f"got sample_rate={self.sample_rate}, n_fft={self.n_fft}, hop={self.hop}"
            )

    @property
    def bins(self) -> int:
        return self.n_fft // 2 + 1

    @property
    def reach(self) -> int:
        return self.n_fft // 2

    def frames(self, n: int) -> int:
        """Frames for n samples."""
        return 1 + n // self.hop

    def shape(self, channels: int, n: int) -> tuple[int, ...]:
        return (channels * self.bins, self.frames(n))

    def encode(self, wave: Float[Tensor, "b c n"], peak: Float[Tensor, "b c"] | None = None) -> Float[Tensor, "b cf t"]:
        """peak: the largest magnitude in the recording that the wave is a piece of; None for that of the wave."""
        if peak is None:
            peak = wave.abs().amax(dim=-1)
        scaled = wave / peak.to(wave).clamp(min=SILENCE)[..., None]
        padded = pad_wave(scaled, self.n_fft // 2, self.n_fft // 2, self.padding).flatten(0, 1)
        window = torch.hamming_window(self.n_fft, periodic=False, dtype=wave.dtype, device=wave.device)
        bins = torch.stft(padded, self.n_fft, self.hop, window=window, center=False, return_complex=True)
        return bins.abs().log1p().reshape(len(wave), -1, bins.shape[-1])

    def decode(self, x: Float[Tensor, "b cf t"], n: int) -> Float[Tensor, "b c n"]:
        raise ValueError(
            "this spectrum has neither phase nor level, so it has no inverse; choose another front end to sample in"
        )
