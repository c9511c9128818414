"""Log-magnitude spectrogram, and the way back: phases by the fast Griffin-Lim algorithm.

    x[f, t] = (ln max(|X[f, t]|, floor) - mean) / scale,   X the STFT with a periodic Hann window

The phases are lost. The inverse seeks a wave whose STFT has the magnitudes A = max(exp(scale x + mean) - floor, 0), so
that the floor is silence, by alternating between "has these magnitudes" and "is the STFT of a wave", with momentum
(Griffin and Lim, 1984; Perraudin, Balazs and Sondergaard, "A fast Griffin-Lim algorithm", 2013, Algorithm 2):

    C_n = P(A exp(i arg T_(n-1))),   T_n = C_n + m (C_n - C_(n-1)),   P(C) = STFT(inverse STFT(C))

It starts from phases that a fixed hash draws for (bin, frame modulo PERIOD), so a result depends on no seed, and
pieces of a recording that begin at multiples of PERIOD frames get the phases of the whole.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from fromnoise.frontends.base import Frontend, pad_wave
from fromnoise.frontends.mel import Mel, filterbank

PERIOD = 32  # frames after which the first phases repeat
PIECE = 32 * PERIOD  # frames that are made at a time


@dataclass(frozen=True)
class Magnitude(Frontend):
    """Log-magnitudes `b c f t` of a wave `b c n`; decode is approximate.

    sample_rate in Hz; n_fft and hop in samples, frame t is centred on sample t hop, 1 + n // hop frames. floor, mean,
    scale: see the module. iterations and momentum of the inverse.
    """

    sample_rate: int = 22050
    n_fft: int = 1024
    hop: int = 256
    floor: float = 1e-4
    mean: float = -4.0
    scale: float = 3.0
    iterations: int = 32
    momentum: float = 0.99

    def __post_init__(self) -> None:
        if self.sample_rate <= 0 or self.n_fft < 4 or self.n_fft % 2 or not 1 <= self.hop <= self.n_fft // 2:
            raise ValueError(
                f"expected sample_rate > 0, an even n_fft and 1 <= hop <= n_fft / 2, got {self.sample_rate}, "
                f"{self.n_fft} and {self.hop}"
            )
        if self.floor <= 0 or self.scale <= 0 or self.iterations < 0 or not 0 <= self.momentum <= 1:
            raise ValueError(
                f"expected floor > 0, scale > 0, iterations >= 0 and 0 <= momentum <= 1, got {self.floor}, "
                f"{self.scale}, {self.iterations} and {self.momentum}"
            )

    @property
    def bins(self) -> int:
        return self.n_fft // 2 + 1

    @property
    def reach(self) -> int:
        """Every iteration of the inverse carries a change one window further."""
        return self.n_fft * (1 + self.iterations)

    @property
    def align(self) -> int:
        """Pieces must begin at multiples of this many samples to get the same first phases."""
        return PERIOD * self.hop

    def shape(self, channels: int, n: int) -> tuple[int, ...]:
        return (channels, self.bins, 1 + n // self.hop)

    def encode(self, wave: Float[Tensor, "b c n"]) -> Float[Tensor, "b c f t"]:
        return self.scaled(self.magnitudes(wave))

    def decode(self, x: Float[Tensor, "b c f t"], n: int) -> Float[Tensor, "b c n"]:
        if x.shape[2] != self.bins:
            raise ValueError(f"expected {self.bins} bins, got {x.shape[2]}")
        return self.wave(x, n, lambda piece: self.unscaled(piece.float())).to(x.dtype)

    def magnitudes(self, wave: Float[Tensor, "b c n"]) -> Float[Tensor, "b c f t"]:
        """|X|."""
        frames = 1 + wave.shape[-1] // self.hop
        right = (frames - 1) * self.hop + self.n_fft // 2 - wave.shape[-1]
        padded = pad_wave(wave, self.n_fft // 2, right, "reflect")
        return self._stft(padded.flatten(0, 1)).abs().unflatten(0, wave.shape[:2])

    def wave(
        self, x: Float[Tensor, "b c m t"], n: int, magnitudes: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "b c n"]:
        """n samples whose STFT has nearly the magnitudes of x. What is long is made in pieces that see as far as it
        takes to give the samples of the whole, so that memory does not grow with the length.

        magnitudes: some frames of x -> A of these, `b c f u`.
        """
        frames = x.shape[-1]
        beside = -(-self.reach // self.align) * PERIOD  # frames
        step = PIECE if frames > PIECE + 2 * beside else frames
        pieces = []
        for start in range(0, frames, step):
            low = max(0, start - beside)
            seen = magnitudes(x[..., low : start + step + beside])
            wave = griffin_lim(seen.flatten(0, 1), self.n_fft, self.hop, self.iterations, self.momentum)
            wave = wave[..., self.n_fft // 2 + (start - low) * self.hop :]
            pieces.append(wave if start + step >= frames else wave[..., : step * self.hop])
        wave = torch.cat(pieces, -1)[..., :n]
        return torch.nn.functional.pad(wave, (0, n - wave.shape[-1])).unflatten(0, x.shape[:2])

    def scaled(self, magnitude: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """|X| -> x."""
        return (magnitude.clamp(min=self.floor).log() - self.mean) / self.scale

    def unscaled(self, x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """x -> A."""
        return (torch.exp(self.scale * x + self.mean) - self.floor).clamp(min=0)

    def from_mel(self, definition: Mel, mel: Float[Tensor, "b m w"]) -> Float[Tensor, "b 1 f w"]:
        """An estimate of x by a straight line between the bands, each taken as flat; above the last band, constant.

        definition: of a mel with this front end's rate, n_fft and hop. Raises ValueError for another one.
        """
        same = ("sample_rate", "n_fft", "hop")
        if any(getattr(self, name) != getattr(definition, name) for name in same) or not definition.centered:
            raise ValueError(f"expected a centred mel with the magnitudes' {', '.join(same)}; change one of the two")
        level = log_magnitude(definition, mel)  # of the sum over each triangle
        bank = torch.tensor(filterbank(definition), dtype=mel.dtype, device=mel.device)  # m f
        share = bank.sum(1)
        keep = share > 0  # a band between two bins has none
        centre = (bank * torch.arange(self.bins, dtype=mel.dtype, device=mel.device)).sum(1)[keep] / share[keep]
        bins = torch.arange(self.bins, dtype=mel.dtype, device=mel.device)
        right = torch.searchsorted(centre, bins).clamp(1, len(centre) - 1)
        place = ((bins - centre[right - 1]) / (centre[right] - centre[right - 1])).clamp(0, 1)[:, None]
        flat = level[:, keep] - share[keep].log()[:, None]
        line = torch.lerp(flat[:, right - 1], flat[:, right], place)
        return ((line.clamp(min=math.log(self.floor)) - self.mean) / self.scale)[:, None]

    def _stft(self, wave: Float[Tensor, "b n"]) -> Complex[Tensor, "b f t"]:
        return _stft(wave, self.n_fft, self.hop)


def log_magnitude(definition: Mel, mel: Float[Tensor, "b m w"]) -> Float[Tensor, "b m w"]:
    """ln of the sum over each triangle of |X|, undoing base, multiplier, range and the window's norm."""
    if definition.power != 1:
        raise ValueError(f"expected a mel of magnitudes (power 1), got power {definition.power}")
    level = definition.invert_range(mel)
    if definition.log == "none":
        level = level.clamp(min=definition.floor).log()
    else:
        level = level / definition.multiplier * (1.0 if definition.log == "e" else math.log(10))
    if definition.normalized:
        window = torch.hann_window(definition.win, dtype=torch.float64)
        level = level + 0.5 * math.log(float(window.square().sum()))
    return level


def _stft(wave: Float[Tensor, "b n"], n_fft: int, hop: int) -> Complex[Tensor, "b f t"]:
    window = torch.hann_window(n_fft, dtype=wave.dtype, device=wave.device)
    return torch.stft(wave, n_fft, hop, window=window, center=False, return_complex=True)


def griffin_lim(
    magnitude: Float[Tensor, "b f t"], n_fft: int, hop: int, iterations: int = 32, momentum: float = 0.99
) -> Float[Tensor, "b n"]:
    """A wave of (t - 1) hop + n_fft samples whose STFT, not padded, has nearly the given magnitudes."""
    window = torch.hann_window(n_fft, dtype=magnitude.dtype, device=magnitude.device)
    frames = magnitude.shape[-1]
    weight = torch.nn.functional.fold(
        window.square()[None, :, None].expand(1, n_fft, frames), (1, (frames - 1) * hop + n_fft), (1, n_fft), stride=hop
    )[0, 0].clamp(min=1e-8)  # fmt: skip

    def invert(spectrum: Tensor) -> Tensor:
        pieces = torch.fft.irfft(spectrum, n_fft, dim=1) * window[:, None]
        whole = torch.nn.functional.fold(pieces, (1, weight.shape[-1]), (1, n_fft), stride=hop)[:, 0, 0]
        return whole / weight

    spectrum = torch.polar(magnitude, first_phases(magnitude))
    previous = torch.zeros_like(spectrum)
    for _ in range(iterations):
        consistent = _stft(invert(spectrum), n_fft, hop)
        ahead = consistent + momentum * (consistent - previous)
        spectrum = magnitude * ahead / ahead.abs().clamp(min=1e-16)
        previous = consistent
    return invert(spectrum)


def first_phases(magnitude: Float[Tensor, "b f t"]) -> Float[Tensor, "b f t"]:
    """The same phases in [0, 2 pi) for every item, with period PERIOD in time."""
    _, bins, frames = magnitude.shape
    phase = np.random.default_rng(0).random((bins, PERIOD)) * 2 * math.pi
    tile = torch.tensor(phase, dtype=magnitude.dtype, device=magnitude.device)
    return tile.repeat(1, -(-frames // PERIOD))[:, :frames].expand_as(magnitude)
