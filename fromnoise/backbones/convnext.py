"""Residual network over frames: depthwise convolutions in time, wide linear layers over all bins of a frame at once.

    h = Conv(x, signal) + Linear(frames)                                  b d t
    h = h + gamma Linear(GELU(Linear((1 + a) Norm(DepthwiseConv(h)) + c)))   each layer, (a, c) from time and vector
    out = Linear(Norm(h)) + Linear(Norm(h)) * x                              the second term where `gated`

The block is ConvNeXt's (Liu et al., 2022, https://arxiv.org/abs/2201.03545), its use on spectrogram frames Vocos'
(Siuzdak, 2023, https://arxiv.org/abs/2306.00814), the modulation DiT's (Peebles and Xie, 2022,
https://arxiv.org/abs/2212.09748). A second of sound costs as much as its frames, some 90: far less than its samples.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fromnoise.types import Condition


@dataclass(frozen=True)
class ConvNeXtConfig:
    """x is `b ... t` with `features` numbers a frame (channels times bins).

    width, layers, expansion: of the blocks. kernel (odd), dilations 1, 2, 4, ... of `dilation_cycle` layers in turn.
    signal: the condition has one in the layout of x. frames: numbers a frame of the condition's frames, at the rate of
    x, 0 for none. vector: size of the condition's vector, 0 for none. attention: every so many layers a
    self-attention over all frames follows, 0 for never. gated: a share of x itself, bin by bin, is part of the output:
    where a frame has more numbers than the width, the rest of its noise has no other way through. fold: so many
    frames are taken as one, at that share of the cost; the last is filled with zeros.
    """

    features: int = 513
    width: int = 256
    layers: int = 8
    expansion: int = 3
    kernel: int = 7
    dilation_cycle: int = 1
    signal: bool = False
    frames: int = 0
    vector: int = 0
    attention: int = 0
    gated: bool = False
    fold: int = 1

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise ValueError(f"expected an odd kernel, got {self.kernel}; add 1")
        sizes = (self.features, self.width, self.layers, self.expansion, self.dilation_cycle, self.fold)
        if min(sizes) < 1 or self.width % 2:
            raise ValueError(f"expected positive sizes and an even width, got {self}")

    @property
    def reach(self) -> int:
        """Frames seen on either side; with attention, those that matter in practice are taken as many."""
        positions = self.kernel // 2 * (1 + sum(2 ** (i % self.dilation_cycle) for i in range(self.layers)))
        return self.fold * (positions + 1) - 1

    def build(self) -> nn.Module:
        return ConvNeXt(self)


class ConvNeXt(nn.Module):
    """See `ConvNeXtConfig`."""

    def __init__(self, config: ConvNeXtConfig) -> None:
        super().__init__()
        self.config = config
        d = config.width
        inputs, told = config.features * config.fold * (2 if config.signal else 1), config.frames * config.fold
        self.first = nn.Conv1d(inputs, d, config.kernel, padding=config.kernel // 2)
        self.frames = nn.Conv1d(told, d, config.kernel, padding=config.kernel // 2) if told else None
        self.vector = nn.Linear(config.vector, d) if config.vector else None
        self.time = nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, d))
        self.blocks = nn.ModuleList(
            Block(d, config.expansion, config.kernel, 2 ** (i % config.dilation_cycle), 1 / config.layers)
            for i in range(config.layers)
        )
        self.attentions = nn.ModuleDict(
            {str(i): Attention(d) for i in range(config.layers) if config.attention and not (i + 1) % config.attention}
        )
        self.norm = nn.LayerNorm(d, elementwise_affine=False)
        self.last = nn.Linear(d, config.features * config.fold)
        self.gate = nn.Linear(d, config.features * config.fold) if config.gated else None
        for layer in (self.last, self.gate):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(
        self, x: Float[Tensor, "b *f t"], t: Float[Tensor, " b"], condition: Condition
    ) -> Float[Tensor, "b *f t"]:
        """Tensor like x; condition.signal, .frames and .vector as configured."""
        return self.bind(condition)(x, t)

    def bind(self, condition: Condition) -> Callable[[Tensor, Tensor], Tensor]:
        """The function (x, t) for one condition; the frames' projection is made once."""
        config = self.config
        for name, wanted in (("signal", config.signal), ("frames", config.frames), ("vector", config.vector)):
            if wanted and getattr(condition, name) is None:
                raise ValueError(f"this network expects the condition's {name}, got none; pass Condition({name}=...)")
        frames = None
        if self.frames is not None:
            assert condition.frames is not None
            frames = self.frames(fold(condition.frames, config.fold))
        told = None if self.vector is None else self.vector(condition.vector)

        def network(x: Tensor, t: Tensor) -> Tensor:
            own = flat = fold(x.flatten(1, -2), config.fold)
            if config.signal:
                assert condition.signal is not None
                flat = torch.cat([own, fold(condition.signal.flatten(1, -2), config.fold)], 1)
            h = self.first(flat)
            if frames is not None:
                if frames.shape[-1] != h.shape[-1]:
                    each = f", {config.fold} frames as one" if config.fold > 1 else ""
                    raise ValueError(f"expected {h.shape[-1]} frames like x, got {frames.shape[-1]}{each}")
                h = h + frames
            e = self.time(sinusoids(t, config.width))
            if told is not None:
                e = e + told
            e = nn.functional.silu(e)
            h = h.transpose(1, 2)  # b t d
            for i, block in enumerate(self.blocks):
                h = block(h, e)
                if str(i) in self.attentions:
                    h = self.attentions[str(i)](h)
            h = self.norm(h)
            out = self.last(h).transpose(1, 2)
            if self.gate is not None:
                out = out + self.gate(h).transpose(1, 2) * own
            return unfold(out, config.fold)[..., : x.shape[-1]].reshape(x.shape)

        return network


def fold(x: Float[Tensor, "b f t"], count: int) -> Float[Tensor, "b g s"]:
    """`count` frames as one, the last filled with zeros: s = ceil(t / count), g = f count."""
    x = nn.functional.pad(x, (0, -x.shape[-1] % count))
    return x.unflatten(-1, (-1, count)).transpose(2, 3).flatten(1, 2)


def unfold(x: Float[Tensor, "b g s"], count: int) -> Float[Tensor, "b f t"]:
    """The way back, filling included: t = s count."""
    return x.unflatten(1, (-1, count)).transpose(2, 3).flatten(2)


class Block(nn.Module):
    """One residual layer; h `b t d`, e `b d`."""

    def __init__(self, width: int, expansion: int, kernel: int, dilation: int, gamma: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(
            width, width, kernel, padding=kernel // 2 * dilation, dilation=dilation, groups=width
        )
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.wide = nn.Linear(width, expansion * width)
        self.narrow = nn.Linear(expansion * width, width)
        self.gamma = nn.Parameter(torch.full((width,), gamma))

    def forward(self, h: Float[Tensor, "b t d"], e: Float[Tensor, "b d"]) -> Float[Tensor, "b t d"]:
        scale, shift = self.modulation(e)[:, None].chunk(2, -1)
        y = self.norm(self.depthwise(h.transpose(1, 2)).transpose(1, 2)) * (1 + scale) + shift
        return h + self.gamma * self.narrow(nn.functional.gelu(self.wide(y)))


class Attention(nn.Module):
    """Self-attention over all frames with rotary positions (Su et al., 2021), residual; h `b t d`."""

    def __init__(self, width: int, head: int = 64) -> None:
        super().__init__()
        self.heads = max(1, width // head)
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, h: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        b, t, d = h.shape
        q, k, v = self.mix(self.norm(h)).reshape(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(rotated(q), rotated(k), v)
        return h + self.out(y.transpose(1, 2).reshape(b, t, d))


def rotated(q: Float[Tensor, "b h t d"]) -> Float[Tensor, "b h t d"]:
    """Pairs of channels turned by angles that grow with the position."""
    half = q.shape[-1] // 2
    rate = torch.exp(torch.arange(half, device=q.device, dtype=torch.float32) * (-math.log(1e3) / half))
    angle = torch.arange(q.shape[-2], device=q.device, dtype=torch.float32)[:, None] * rate
    cos, sin = angle.cos().to(q.dtype), angle.sin().to(q.dtype)
    a, b = q[..., :half], q[..., half : 2 * half]
    return torch.cat([a * cos - b * sin, a * sin + b * cos, q[..., 2 * half :]], -1)


def sinusoids(t: Float[Tensor, " b"], size: int, fastest: float = 1000.0) -> Float[Tensor, "b d"]:
    """Sines and cosines of a time in 0..1 (or a step) at `size`/2 rates from 1 to `fastest` rad, evenly in the log."""
    rate = torch.exp(torch.linspace(0, math.log(fastest), size // 2, device=t.device, dtype=t.dtype))
    angle = t[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], -1)
