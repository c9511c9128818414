"""The wave itself as the network's domain: x = scale * wave."""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from fromnoise.frontends.base import Frontend


@dataclass(frozen=True)
class Wave(Frontend):
    """sample_rate in Hz. scale: what full scale becomes, e.g. for the level that the noise schedule expects."""

    sample_rate: int = 16000
    scale: float = 1.0
    hop: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        if self.sample_rate <= 0 or self.scale <= 0:
            raise ValueError(f"sample_rate and scale must be positive, got {self.sample_rate} and {self.scale}")

    @property
    def reach(self) -> int:
        return 0

    def shape(self, channels: int, n: int) -> tuple[int, ...]:
        return (channels, n)

    def encode(self, wave: Float[Tensor, "b c n"]) -> Float[Tensor, "b c n"]:
        return wave * self.scale

    def decode(self, x: Float[Tensor, "b c m"], n: int) -> Float[Tensor, "b c n"]:
        if x.shape[-1] < n:
            raise ValueError(f"expected at least {n} samples to decode, got {x.shape[-1]}")
        return x[..., :n] / self.scale
