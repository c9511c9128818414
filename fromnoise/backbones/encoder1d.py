"""The encoder of Mousai's diffusion autoencoder: a wave, or its magnitudes, to a short latent `b c t`.

Schneider et al., "Mousai", 2023, https://arxiv.org/abs/2301.11757, as audio-encoders-pytorch builds it. With
block(h) = R h + C2 silu(GN C1 silu(GN h)), convolutions of 3, and R a 1x1 convolution where the widths differ:

    front       none: the wave;  magnitude: |STFT|/sqrt(n_fft) or its logarithm, bins as channels;  mel: its bands
    h_0         block(front), patch_size neighbours as channels (c patch + p)
    h_l         blocks_l(C_l h_(l-1)),   C_l: kernel 2 f_l + 1, stride f_l
    latent      bottleneck(W h_L)

A latent stands for `downsample_factor` samples; the wave is filled with zeros to a multiple of it. An odd n_fft gives
one frame per hop of such a wave. Made for latents, not for noise: there is no time and no condition.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fromnoise.backbones.bottlenecks import BOTTLENECKS, Bounded
from fromnoise.frontends.mel import Mel
from fromnoise.frontends.stft import STFT
from fromnoise.types import build


@dataclasses.dataclass(frozen=True)
class Magnitudes:
    """|STFT| / sqrt(n_fft) of windows of n_fft samples every `hop`; log: its natural logarithm, at least ln floor."""

    n_fft: int = 1023
    hop: int = 256
    log: bool = False
    floor: float = 1e-8

    def __post_init__(self) -> None:
        if self.floor <= 0:
            raise ValueError(f"magnitude: expected floor > 0, got {self.floor}")
        _ = self.stft

    @property
    def stft(self) -> STFT:
        """The complex spectrum of it; its sample_rate says nothing here."""
        return STFT(n_fft=self.n_fft, hop=self.hop, transform="none", factor=self.n_fft**-0.5)

    def shape(self, channels: int, n: int) -> tuple[int, int]:
        """Of the encoding of a wave."""
        return channels * self.stft.bins, self.stft.frames(n)

    def encode(self, wave: Float[Tensor, "b c n"]) -> Float[Tensor, "b cf t"]:
        """One frame per hop, for a multiple of it."""
        real, imaginary = self.stft.encode(wave).unflatten(1, (-1, 2)).unbind(2)
        magnitude = torch.complex(real, imaginary).abs().flatten(1, 2)
        return magnitude.clamp(min=self.floor).log() if self.log else magnitude


FRONTS: dict[str, type] = {"magnitude": Magnitudes, "mel": Mel}


@dataclasses.dataclass(frozen=True)
class Encoder1dConfig:
    """Names as in audio-encoders-pytorch; the defaults are Mousai's.

    in_channels: of the wave. channels: C, multipliers: of every stage, one more than there are factors; factors: f_l;
    num_blocks: per level. out_channels: of the latent, 0 for those of the last level. bottleneck: spec, see
    `bottlenecks`. front: spec of `FRONTS`, None for the wave itself.
    """

    in_channels: int = 2
    channels: int = 512
    multipliers: tuple[int, ...] = (1, 1, 1)
    factors: tuple[int, ...] = (2, 2)
    num_blocks: tuple[int, ...] = (4, 8)
    patch_size: int = 1
    resnet_groups: int = 8
    out_channels: int = 32
    bottleneck: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"name": "tanh"})
    front: Mapping[str, Any] | None = dataclasses.field(default_factory=lambda: {"name": "magnitude"})

    def __post_init__(self) -> None:
        if not len(self.multipliers) - 1 == len(self.factors) == len(self.num_blocks):
            raise ValueError(
                "encoder1d: expected as many num_blocks as factors and one more multiplier, got "
                f"{self.num_blocks}, {self.factors} and {self.multipliers}"
            )
        sizes = (self.in_channels, self.channels, self.patch_size, self.resnet_groups, *self.multipliers)
        if min(*sizes, *self.factors, *self.num_blocks) < 1 or self.out_channels < 0 or len(self.factors) > 24:
            raise ValueError(f"encoder1d: expected positive sizes (out_channels may be 0), got {self}")
        if max(sizes) * self.channels > 2**20 or max(self.num_blocks) > 256:
            raise ValueError("encoder1d: expected at most 2^20 channels and 256 blocks per level")
        odd = next((width for width in self.widths[1:] if width % self.resnet_groups), None)
        if odd is not None or self.channels * self.multipliers[0] % self.patch_size:
            raise ValueError(
                f"encoder1d: expected channels in multiples of resnet_groups={self.resnet_groups} and "
                f"patch_size={self.patch_size}, got {odd or self.widths[0]}"
            )
        _ = build("bottleneck", BOTTLENECKS, self.bottleneck)
        front = self.made_front
        if front is not None and front.shape(1, 16 * front.hop)[-1] != 16:
            raise ValueError(
                "encoder1d: expected a front with one frame per hop: an odd n_fft for magnitudes, centered=False for a "
                f"mel; got {front}"
            )

    @property
    def made_front(self) -> Magnitudes | Mel | None:
        """The front as an object."""
        return None if self.front is None else build("front of encoder1d", FRONTS, self.front)

    @property
    def widths(self) -> list[int]:
        """Channels of h_0, h_1, ..."""
        return [self.channels * multiplier for multiplier in self.multipliers]

    @property
    def latent_channels(self) -> int:
        """Of the latent."""
        return self.out_channels or self.widths[-1]

    @property
    def downsample_factor(self) -> int:
        """Samples per latent."""
        front = self.made_front
        return self.patch_size * math.prod(self.factors) * (1 if front is None else front.hop)

    @property
    def reach(self) -> int:
        """Samples on either side that the convolutions and the front see; norms see all."""
        front = self.made_front
        step = 1 if front is None else front.hop
        reach = 2 * step + (0 if front is None else front.n_fft)
        step *= self.patch_size
        for factor, count in zip(self.factors, self.num_blocks, strict=True):
            reach += step * factor * (1 + 2 * count)
            step *= factor
        return reach

    def build(self) -> nn.Module:
        """The encoder with fresh weights."""
        return Encoder1d(self)


class Block(nn.Module):
    """See the module's text."""

    def __init__(self, num_in: int, num_out: int, groups_in: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups_in, num_in), nn.Conv1d(num_in, num_out, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(groups, num_out), nn.Conv1d(num_out, num_out, 3, padding=1)
        self.skip = nn.Conv1d(num_in, num_out, 1) if num_in != num_out else None

    def forward(self, x: Float[Tensor, "b c t"]) -> Float[Tensor, "b d t"]:
        y = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return y + (x if self.skip is None else self.skip(x))


class Encoder1d(nn.Module):
    """A wave `b c n` -> its latent `b d t`, t = n / downsample_factor, rounded up."""

    def __init__(self, config: Encoder1dConfig) -> None:
        super().__init__()
        self.config = config
        front, widths, groups = config.made_front, config.widths, config.resnet_groups
        shown = config.in_channels if front is None else front.shape(config.in_channels, front.hop)[0]
        # published: as many groups in the first block as samples in a patch, so one by default
        few = min(config.patch_size, shown)
        self.enter = Block(shown, widths[0] // config.patch_size, few, few)
        self.levels = nn.ModuleList()
        for (num_in, num_out), factor, count in zip(
            itertools.pairwise(widths), config.factors, config.num_blocks, strict=True
        ):
            down = nn.Conv1d(num_in, num_out, 2 * factor + 1, factor, factor)
            self.levels.append(nn.Sequential(down, *(Block(num_out, num_out, groups, groups) for _ in range(count))))
        self.out = nn.Conv1d(widths[-1], config.out_channels, 1) if config.out_channels else None
        self.bottleneck = build("bottleneck", BOTTLENECKS, config.bottleneck).build(config.latent_channels)

    def forward(self, wave: Float[Tensor, "b c n"]) -> Float[Tensor, "b d t"]:
        return self.encode(wave)[0]

    def encode(self, wave: Float[Tensor, "b c n"], generator: torch.Generator | None = None) -> Bounded:
        """The latent, and the bottleneck's loss `b`, None where it has none. generator: of a noisy bottleneck."""
        h = self.enter(self.shown(wave).to(self.enter.conv1.weight.dtype))
        h = h.unflatten(2, (-1, self.config.patch_size)).movedim(3, 2).flatten(1, 2)
        for level in self.levels:
            h = level(h)
        return self.bottleneck(h if self.out is None else self.out(h), generator)

    def shown(self, wave: Float[Tensor, "b c n"]) -> Float[Tensor, "b d t"]:
        """What the first block reads."""
        if wave.ndim != 3 or wave.shape[1] != self.config.in_channels:
            raise ValueError(
                f"encoder1d: expected a wave with a batch and {self.config.in_channels} channels, "
                f"got {tuple(wave.shape)}"
            )
        filled = F.pad(wave, (0, -wave.shape[-1] % self.config.downsample_factor))
        front = self.config.made_front
        return filled if front is None else front.encode(filled)
