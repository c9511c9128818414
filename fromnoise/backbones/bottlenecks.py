"""What bounds the latent of an encoder, between its last layer and whoever reads it.

    tanh          z = tanh(h)
    noiser        z = h + sigma e                              in training only
    variational   [m, s] = W h,  mean = tanh(m),  std = 1 + tanh(s)     z = mean + std e in training, mean otherwise
                  loss = weight/2 mean(mean^2 + std^2 - 2 ln std - 1)   to N(0, 1), per item

e ~ N(0, I). In audio-encoders-pytorch the variational loss takes `std` for a log-variance and passes no gradient back;
here it is the divergence between the two Gaussians and is learnt from.
"""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor, nn

Bounded = tuple[Tensor, Tensor | None]
"""A latent `b c t`, and a loss `b` where the bottleneck has one."""
LEAST_STD = 1e-4  # float32's tanh reaches -1


@dataclasses.dataclass(frozen=True)
class Tanh:
    """It has no settings."""

    def build(self, channels: int) -> nn.Module:
        return TanhBottleneck()


@dataclasses.dataclass(frozen=True)
class Noiser:
    """sigma: of the noise."""

    sigma: float = 1.0

    def build(self, channels: int) -> nn.Module:
        return NoiserBottleneck(self.sigma)


@dataclasses.dataclass(frozen=True)
class Variational:
    """loss_weight: of the divergence."""

    loss_weight: float = 1.0

    def build(self, channels: int) -> nn.Module:
        return VariationalBottleneck(channels, self.loss_weight)


BOTTLENECKS: dict[str, type] = {"noiser": Noiser, "tanh": Tanh, "variational": Variational}


class TanhBottleneck(nn.Module):
    """See the module's text."""

    def forward(self, h: Float[Tensor, "b c t"], generator: torch.Generator | None = None) -> Bounded:
        return torch.tanh(h), None


class NoiserBottleneck(nn.Module):
    """See the module's text."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, h: Float[Tensor, "b c t"], generator: torch.Generator | None = None) -> Bounded:
        return (h + self.sigma * _noise(h, generator) if self.training else h), None


class VariationalBottleneck(nn.Module):
    """See the module's text."""

    def __init__(self, channels: int, loss_weight: float) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.both = nn.Conv1d(channels, 2 * channels, 1)

    def forward(self, h: Float[Tensor, "b c t"], generator: torch.Generator | None = None) -> Bounded:
        first, second = self.both(h).chunk(2, dim=1)
        mean, std = torch.tanh(first), (1 + torch.tanh(second)).clamp(min=LEAST_STD)
        divergence = (mean**2 + std**2 - 1) / 2 - std.log()
        z = mean + std * _noise(mean, generator) if self.training else mean
        return z, self.loss_weight * divergence.flatten(1).mean(dim=1)


def _noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)
