"""What stands between a wave and a network: an invertible map to a real tensor whose last axis is time.

encode: wave `b c n` -> x `b ... t`, decode: x and n -> wave `b c n`. Position i of x's last axis stands at sample
i hop, so a piece of a recording that begins at a multiple of `hop` has the positions of the whole recording, moved.
`reach` is how many samples on either side of its own one position of x can see; a long recording that is cut into
pieces needs at least that much context at each cut, plus what the network sees.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int64
from torch import Tensor


class Frontend(ABC):
    """A frozen dataclass per kind; it holds settings only, devices and dtypes follow the input."""

    sample_rate: int
    """Rate in Hz of the waves it takes and gives."""
    hop: int
    """Samples per position of the last axis."""

    @property
    @abstractmethod
    def reach(self) -> int:
        """Samples on either side that one position depends on."""

    @abstractmethod
    def shape(self, channels: int, n: int) -> tuple[int, ...]:
        """Shape of x, without the batch axis, for a wave of `channels` and `n` samples."""

    @abstractmethod
    def encode(self, wave: Float[Tensor, "b c n"]) -> Float[Tensor, "b *x"]:
        """The network's view of the wave; differentiable, any n >= 1."""

    @abstractmethod
    def decode(self, x: Float[Tensor, "b *x"], n: int) -> Float[Tensor, "b c n"]:
        """The wave of n samples that x stands for."""


def reflected(n: int, left: int, right: int, device: torch.device | None = None) -> Int64[Tensor, "m"]:
    """Indices that mirror n >= 1 samples at both ends (the end sample once), as often as the padding asks."""
    index = torch.arange(-left, n + right, device=device)
    if n == 1:
        return torch.zeros_like(index)
    period = 2 * (n - 1)
    index = index.remainder(period)
    return torch.minimum(index, period - index)


def pad_wave(wave: Float[Tensor, "... n"], left: int, right: int, padding: str) -> Float[Tensor, "... m"]:
    """The wave continued at both ends by mirroring ("reflect") or silence ("constant"). right < 0 cuts."""
    if padding == "reflect":
        return wave[..., reflected(wave.shape[-1], left, right, wave.device)]
    return torch.nn.functional.pad(wave, (left, right))


def pad_frames(x: Float[Tensor, "... t"], multiple: int, padding: str = "zero") -> Float[Tensor, "... u"]:
    """x with its last axis lengthened to the next multiple, as U-Nets that halve it need.

    padding: what the new frames hold: "zero", "reflection" (mirrored about the last frame), "replication" (that frame).
    """
    t = x.shape[-1]
    missing = -t % multiple
    if padding == "zero":
        return torch.nn.functional.pad(x, (0, missing))
    if padding == "reflection":
        return x[..., reflected(t, 0, missing, x.device)]
    if padding == "replication":
        return x[..., torch.arange(t + missing, device=x.device).clamp(max=t - 1)]
    raise ValueError(f"padding must be zero, reflection or replication, got {padding!r}")
