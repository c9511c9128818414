"""Conversion between rates a : b by a short windowed sinc, as a differentiable convolution.

    out[b k + p] = sum_m x[a k + m] h(m/a - p/b),   -W <= m < W + a,   W = ceil(width a / f),   f = rolloff min(a, b)
    h(s) = f/a sinc(f s) cos(pi f s / (2 width))^2   where |f s| <= width, else 0

Smith, "Digital audio resampling", https://ccrma.stanford.edu/~jos/resample/. What networks that upsample were trained
with: it lets a little through beyond half the rate and dampens a little below, which `resample` does not.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Sinc:
    """From rate a to rate b, in any unit. rolloff: where the low pass lies, as a share of half the lower rate. width:
    zeros of the sinc on either side."""

    a: int
    b: int
    rolloff: float = 0.99
    width: int = 6

    def __post_init__(self) -> None:
        if min(self.a, self.b, self.width) < 1 or not 0 < self.rolloff <= 1:
            raise ValueError(f"expected rates and width of at least 1 and 0 < rolloff <= 1, got {self}")

    @property
    def reach(self) -> int:
        """Samples of the input on either side that a sample is made of."""
        return math.ceil(self.width * self.a / (self.rolloff * min(self.a, self.b)))

    def kernel(self) -> Float[Tensor, "b k"]:
        """h at all m for each phase p, in float64."""
        f = self.rolloff * min(self.a, self.b)
        m = torch.arange(-self.reach, self.reach + self.a, dtype=torch.float64)
        p = torch.arange(self.b, dtype=torch.float64)[:, None]
        s = (f * (m / self.a - p / self.b)).clamp(-self.width, self.width)
        return torch.sinc(s) * (math.pi / 2 * s / self.width).cos().square() * (f / self.a)

    def __call__(self, x: Float[Tensor, "*c n"]) -> Float[Tensor, "*c m"]:
        """floor(n b / a) samples; silence before and after."""
        n = x.shape[-1]
        filled = F.pad(x.reshape(-1, 1, n), (self.reach, self.reach + self.a))
        phases = F.conv1d(filled, self.kernel().to(x)[:, None], stride=self.a)
        return phases.transpose(1, 2).reshape(*x.shape[:-1], -1)[..., : n * self.b // self.a]
