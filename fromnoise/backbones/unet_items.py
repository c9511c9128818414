"""What the levels of `unet1d` are made of. x is `b c ...` with 1 to 3 axes of space, f the features `b m` of time.

    ResNet        x + C2 silu(GN C1 silu(GN x))                      convolutions of 3
    Modulation    LN(x) (1 + scale) + shift,  [scale, shift] = L silu(f)       LN over channels, without weights
    Inject        x + W [x, frames] + b
    Attention     x + Wo softmax(q k / sqrt(d)) v,   q = Wq LN_a(x),  [k, v] = Wkv LN_b(x or context)
    FeedForward   x + W2 gelu(W1 x)

What depends on the condition alone, the keys and values of a context and W frames, is made once per `bind` and `kept`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
FUNCTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@dataclass(frozen=True)
class Told:
    """What the items are told. features: silu(f). kept: what an item has made of the condition. mask: of the context,
    `b 1 1 l`, True where it is real."""

    features: Float[Tensor, "b m"] | None = None
    kept: Mapping[nn.Module, tuple[Tensor, ...]] = field(default_factory=dict)
    mask: Bool[Tensor, "b 1 1 l"] | None = None


def conv(dim: int, num_in: int, num_out: int, kernel: int = 1, stride: int = 1) -> Convolution:
    """A convolution that keeps the length (odd kernel, stride 1), or one of kernel = stride."""
    return CONVOLUTIONS[dim](num_in, num_out, kernel, stride, padding=kernel // 2 if stride == 1 else 0)


def over_channels(values: Float[Tensor, "b c"], like: Tensor) -> Tensor:
    """`b c` -> `b c 1 ..`, to be broadcast over `like`."""
    return values.reshape(*values.shape, *(1 for _ in like.shape[2:]))


def lengthen(x: Float[Tensor, "b c *n"], sizes: tuple[int, ...]) -> Float[Tensor, "b c *m"]:
    """x with zeros after the end of every axis of space, up to these sizes."""
    missing = [size - own for size, own in zip(sizes, x.shape[2:], strict=True)]
    return F.pad(x, [side for count in reversed(missing) for side in (0, count)]) if any(missing) else x


class TimeFeatures(nn.Module):
    """t `b`, or `b k` -> f `b m`; `unet1d` gives the formula."""

    def __init__(self, features: int, tied: bool) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.randn(128))
        self.embed = nn.Linear(257, features)
        self.first = nn.Linear(features, features)
        self.second = None if tied else nn.Linear(features, features)

    def embedded(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b m"]:
        """L [t, sin, cos]."""
        angle = 2 * math.pi * t[..., None] * self.frequencies
        return self.embed(torch.cat([t[..., None], angle.sin(), angle.cos()], dim=-1))

    def forward(self, t: Float[Tensor, "b *k"]) -> Float[Tensor, "b m"]:
        f = F.gelu(self.embedded(t.to(self.frequencies.dtype)))
        f = F.gelu(self.first(f))
        f = F.gelu((self.second or self.first)(f))
        return f if t.ndim == 1 else f.sum(dim=1)


class ResNet(nn.Module):
    """See the module's text."""

    def __init__(self, dim: int, channels: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, channels), conv(dim, channels, channels, 3)
        self.norm2, self.conv2 = nn.GroupNorm(groups, channels), conv(dim, channels, channels, 3)

    def forward(self, x: Float[Tensor, "b c *n"], told: Told) -> Float[Tensor, "b c *n"]:
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class Modulation(nn.Module):
    """See the module's text."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 2 * channels)

    def forward(self, x: Float[Tensor, "b c *n"], told: Told) -> Float[Tensor, "b c *n"]:
        assert told.features is not None
        scale, shift = self.linear(told.features).chunk(2, dim=1)
        variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
        gain = torch.rsqrt(variance + 1e-6) * (1 + over_channels(scale, x))
        return torch.addcmul(over_channels(shift, x), x - mean, gain)


class Inject(nn.Module):
    """See the module's text; the frames are those of `condition.frames`, one per position of x."""

    def __init__(self, dim: int, channels: int, frames: int) -> None:
        super().__init__()
        self.channels, self.convolve = channels, FUNCTIONS[dim]
        self.mix = conv(dim, channels + frames, channels)

    def keep(self, frames: Float[Tensor, "b m *t"]) -> tuple[Tensor]:
        """The frames' share of the sum."""
        return (self.convolve(frames, self.mix.weight[:, self.channels :]),)

    def forward(self, x: Float[Tensor, "b c *n"], told: Told) -> Float[Tensor, "b c *n"]:
        own = self.convolve(x, self.mix.weight[:, : self.channels], self.mix.bias)
        return x + own + lengthen(told.kept[self][0], tuple(x.shape[2:]))


class Attention(nn.Module):
    """See the module's text; over the positions of x, or of a context of `context` numbers each."""

    def __init__(self, channels: int, features: int, heads: int, context: int = 0) -> None:
        super().__init__()
        self.heads, self.crosses = heads, bool(context)
        inner, source = features * heads, context or channels
        self.norm, self.norm_context = nn.LayerNorm(channels), nn.LayerNorm(source)
        self.queries = nn.Linear(channels, inner, bias=False)
        self.pairs = nn.Linear(source, 2 * inner, bias=False)
        self.out = nn.Linear(inner, channels, bias=False)

    def keep(self, source: Float[Tensor, "b l d"]) -> tuple[Tensor, Tensor]:
        """Keys and values `b heads l d`."""
        keys, values = self.pairs(self.norm_context(source)).chunk(2, dim=-1)
        return self._split(keys), self._split(values)

    def _split(self, tokens: Float[Tensor, "b l hd"]) -> Float[Tensor, "b h l d"]:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Float[Tensor, "b c *n"], told: Told) -> Float[Tensor, "b c *n"]:
        tokens = x.flatten(2).transpose(1, 2)
        keys, values = told.kept[self] if self.crosses else self.keep(tokens)
        mask = told.mask if self.crosses else None
        if len(keys) != len(x):  # one item's context serves all
            keys, values = (part.expand(len(x), -1, -1, -1) for part in (keys, values))
        mixed = F.scaled_dot_product_attention(self._split(self.queries(self.norm(tokens))), keys, values, mask)
        return x + self.out(mixed.transpose(1, 2).flatten(2)).transpose(1, 2).reshape(x.shape)


class FeedForward(nn.Module):
    """See the module's text; position by position."""

    def __init__(self, dim: int, channels: int, multiplier: int) -> None:
        super().__init__()
        self.wide = conv(dim, channels, multiplier * channels)
        self.narrow = conv(dim, multiplier * channels, channels)

    def forward(self, x: Float[Tensor, "b c *n"], told: Told) -> Float[Tensor, "b c *n"]:
        return x + self.narrow(F.gelu(self.wide(x)))


class Concatenated(nn.Module):
    """Merge of a level's skip and result:  W [skip / sqrt 2, y] + b."""

    def __init__(self, dim: int, channels: int) -> None:
        super().__init__()
        self.mix = conv(dim, 2 * channels, channels)

    def forward(self, skip: Tensor, y: Tensor, told: Told) -> Tensor:
        return self.mix(torch.cat([skip * 2**-0.5, y], dim=1))


class Modulated(nn.Module):
    """Merge of a level's skip and result:  skip + s y,  s = L silu(f), one number per channel."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, channels)

    def forward(self, skip: Tensor, y: Tensor, told: Told) -> Tensor:
        assert told.features is not None
        return torch.addcmul(skip, over_channels(self.linear(told.features), y), y)


class Added(nn.Module):
    """Merge of a level's skip and result:  skip + y."""

    def forward(self, skip: Tensor, y: Tensor, told: Told) -> Tensor:
        return skip + y
