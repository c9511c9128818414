"""A network of spectrograms as a network of waves: for processes that live on waveforms.

    X = E([x, 0]),  S = E([signal, 0])          each channel alone, `tail` appending n_fft - hop zeros
    out = D(N([X, 0], t, [S, 0]))               frames filled with zeros to a multiple, the result cut to the input

E is the short-time Fourier transform with compressed magnitudes and D its inverse. DiffSep's score network (Scheibler
et al., "Diffusion-based Generative Speech Source Separation", 2023, https://arxiv.org/abs/2210.17327) is `ncsnpp`
with K + 1 waves of n_fft 510, hop 128, exponent 0.5, factor 0.15, silence beyond the ends. N's channels are re_0, im_0,
re_1, im_1, ... of the waves; DiffSep's own order, all real parts first, is the importer's concern.

This is the one backbone that knows a front end.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

import fromnoise.backbones as family
from fromnoise.frontends.base import pad_frames
from fromnoise.frontends.stft import STFT
from fromnoise.types import Condition, build


@dataclasses.dataclass(frozen=True)
class SpectralConfig:
    """network: spec of the backbone inside, x `b 2k f t`. stft: spec of the front end "stft"; its sample_rate says
    nothing here. multiple: of which the frames become, as U-Nets need. tail: n_fft - hop zeros after the wave's end,
    so that all windows over it are whole.
    """

    network: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"name": "maskconv"})
    stft: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: {"name": "stft", "n_fft": 256, "hop": 64, "padding": "constant", "transform": "none"}
    )
    multiple: int = 64
    tail: bool = True

    def __post_init__(self) -> None:
        if self.multiple < 1:
            raise ValueError(f"spectral: expected frames in a multiple of at least 1, got {self.multiple}")
        if self.network.get("name") == "spectral":
            raise ValueError("spectral: expected a network of spectrograms inside, got 'spectral' itself; name another")
        _ = self.inner, self.front  # wrong settings are an error here

    @cached_property
    def inner(self) -> Any:
        """The configuration of the network inside."""
        return build("network", family.BACKBONES, self.network)

    @cached_property
    def front(self) -> STFT:
        """The front end around it."""
        return build("front end of spectral", {"stft": STFT}, self.stft)

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return self.front.hop

    @property
    def reach(self) -> int:
        """Samples on either side that one output sample depends on."""
        return self.inner.reach * self.front.hop + self.front.reach

    def build(self) -> nn.Module:
        """The network with fresh weights."""
        return Spectral(self)


class Spectral(nn.Module):
    """See the module's text. x `b k n`, the condition's signal `b c n`; what else the condition holds is handed on."""

    def __init__(self, config: SpectralConfig) -> None:
        super().__init__()
        self.config = config
        self.network = config.inner.build()

    def forward(
        self, x: Float[Tensor, "b k n"], t: Float[Tensor, " b"], condition: Condition
    ) -> Float[Tensor, "b k n"]:
        return self.bind(condition)(x, t)

    def bind(self, condition: Condition) -> Callable[[Tensor, Tensor], Tensor]:
        """The network for one condition, whose spectrum is made once."""
        signal = condition.signal
        told = condition if signal is None else dataclasses.replace(condition, signal=self.encode(signal))
        bind = getattr(self.network, "bind", None)
        inner = bind(told) if bind is not None else lambda x, t: self.network(x, t, told)

        def network(x: Tensor, t: Tensor) -> Tensor:
            if signal is not None and signal.shape[-1] != x.shape[-1]:
                raise ValueError(
                    f"spectral: expected a state as long as the condition's signal, {signal.shape[-1]} samples, "
                    f"got {x.shape[-1]}"
                )
            return self.decode(inner(self.encode(x), t), x.shape[-1])

        return network

    def encode(self, wave: Float[Tensor, "b c n"]) -> Float[Tensor, "b c2 f t"]:
        """The spectra, with zeros after the last frame."""
        front = self.config.front
        tail = front.n_fft - front.hop if self.config.tail else 0
        return pad_frames(front.encode(nn.functional.pad(wave, (0, tail))), self.config.multiple)

    def decode(self, x: Float[Tensor, "b c2 f t"], n: int) -> Float[Tensor, "b c n"]:
        """The n samples of the spectra's frames, without those that `encode` added."""
        front = self.config.front
        frames = front.frames(n + (front.n_fft - front.hop if self.config.tail else 0))
        return front.decode(x[..., :frames], n)
