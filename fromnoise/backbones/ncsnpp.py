"""NCSN++: the U-Net of DiffSep, SGMSE+ and StoRM over a spectrogram's bins and frames.

Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", ICLR 2021,
https://arxiv.org/abs/2011.13456, as used by Scheibler et al., "Diffusion-based Generative Speech Source Separation",
ICASSP 2023, https://arxiv.org/abs/2210.17327, Richter et al., "Speech Enhancement and Dereverberation with
Diffusion-based Generative Models", TASLP 2023, https://arxiv.org/abs/2208.05830, and Lemercier et al., "StoRM", TASLP
2023, https://arxiv.org/abs/2212.11851. With a = SiLU, GN = group norm, r = 1/sqrt(2) or 1 (`rescale`), s = x and the
condition's signal, stacked:

    e = a(E2 a(E1 [sin 2 pi w ln t, cos 2 pi w ln t]))                w: fixed random frequencies
    block(h) = r (R h + Conv a(GN(Conv F a(GN h) + D e)))             F: resampling or nothing, R: F and 1x1, or nothing
    attention(h) = r (h + O softmax(q k / sqrt c) v)                  over all bins and frames
    h_0 = Conv(2 s - 1, or s if centered)
    down, level l:   blocks (attention), all kept;  next level: block with F, joined with what F makes of s, kept
    bottom:          block, attention, block
    up, level l:     one block more, each with the last one kept (attention);  p = Conv a(GN h) + F p;  block with F
    out = 1x1(p),   divided by t before or after the 1x1, or not

F halves or doubles bins and frames through a FIR filter, in each axis k/sum(k) (doubling: twice that) with zeros beyond
the ends. Filter and 1x1 convolution commute. For the taps 1 3 3 1 doubling is linear interpolation whose outermost
values are 3/4 of what a repeated edge would give.

Frames are filled with zeros to a multiple of 2^(levels - 1) and cut again.
"""

import dataclasses
import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fromnoise.types import Condition, expand

LOWEST_TIME = 1e-6  # ln t and 1/t stay finite
TINY = 1e-10  # variance scale of layers that start at almost nothing


@dataclasses.dataclass(frozen=True)
class NCSNppConfig:
    """The defaults are DiffSep's for two speakers.

    bins: of the spectrogram, a multiple of 2^(levels - 1). channels_out: real channels of x. channels_in: of x and the
    condition's signal together; where both are equal, the signal is not read. width: channels of the first level;
    multipliers: of every level. res_blocks: per level. attention: heights (bins of a level) with attention beside the
    bottom's. progressive: "output_skip" sums an output of every level, "none" makes one of the last. progressive_input:
    how the levels see the input: "input_skip" by 1x1 convolutions, `combine`d by "sum" or "cat"; "residual" by strided
    3x3 ones; or "none". taps: of the FIR filter; (1, 1) is the mean of two and repetition. centered: take the input as
    it is, not as 2 s - 1. divide: the output by t, "before" or "after" the last 1x1 convolution. rescale: divide every
    sum by sqrt(2). timed: read t.
    """

    bins: int = 256
    channels_in: int = 6
    channels_out: int = 4
    width: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 2, 2, 2)
    res_blocks: int = 2
    attention: tuple[int, ...] = (16,)
    progressive: Literal["output_skip", "none"] = "output_skip"
    progressive_input: Literal["input_skip", "residual", "none"] = "input_skip"
    combine: Literal["sum", "cat"] = "sum"
    taps: tuple[int, ...] = (1, 3, 3, 1)
    centered: bool = False
    divide: Literal["none", "before", "after"] = "before"
    rescale: bool = True
    timed: bool = True

    def __post_init__(self) -> None:
        sizes = (self.bins, self.channels_in, self.channels_out, self.res_blocks, *self.multipliers)
        if self.channels_in < self.channels_out:
            raise ValueError(
                f"ncsnpp: expected channels_in to hold the {self.channels_out} of x, got {self.channels_in}"
            )
        if not self.multipliers or min(sizes) < 1 or self.width < 4:
            raise ValueError(
                f"ncsnpp: expected a level, a width of at least 4 and other sizes of at least 1, got {self}"
            )
        if len(self.multipliers) > 16 or self.res_blocks > 64 or self.width * max(self.multipliers) > 65536:
            raise ValueError("ncsnpp: expected at most 16 levels, 64 blocks per level and 65536 channels")
        if self.bins % self.multiple:
            raise ValueError(
                f"ncsnpp: expected bins in a multiple of {self.multiple} for {len(self.multipliers)} levels, "
                f"got {self.bins}"
            )
        lost = [height for height in self.attention if height not in self.heights]
        if lost:
            raise ValueError(f"ncsnpp: no level has {lost[0]} bins for attention; the levels have {self.heights}")
        choices = {
            "progressive": ("output_skip", "none"),
            "progressive_input": ("input_skip", "residual", "none"),
            "combine": ("sum", "cat"),
            "divide": ("none", "before", "after"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"ncsnpp: {name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if not 2 <= len(self.taps) <= 64 or sum(self.taps) <= 0:
            raise ValueError(f"ncsnpp: expected 2 to 64 taps with a positive sum, got {self.taps}")

    @property
    def multiple(self) -> int:
        """Of which bins and frames must be."""
        return 2 ** (len(self.multipliers) - 1)

    @property
    def heights(self) -> list[int]:
        """Bins of every level."""
        return [self.bins >> level for level in range(len(self.multipliers))]

    @property
    def reach(self) -> int:
        """Frames on either side that matter in practice: norms and attention see all, training sees 256 in a crop."""
        return 128

    def build(self) -> nn.Module:
        """The network with fresh weights."""
        return NCSNpp(self)


class FIR(nn.Module):
    """Halving and doubling of bins and frames through the filter with these taps; it has no weights."""

    def __init__(self, taps: tuple[int, ...] = (1, 3, 3, 1)) -> None:
        super().__init__()
        self.taps = taps
        k = torch.tensor(taps, dtype=torch.float64)
        plane = torch.outer(k, k) / k.sum() ** 2
        self.register_buffer("plane", plane.to(torch.get_default_dtype())[None, None], persistent=False)

    def _kernel(self, x: Tensor) -> Float[Tensor, "c 1 k k"]:
        return self.get_buffer("plane").to(x.dtype).expand(x.shape[1], -1, -1, -1)

    def filtered(self, x: Float[Tensor, "b c f t"], further: int, stride: int) -> Float[Tensor, "b c g u"]:
        """x through the filter, with `further` zeros more around it than make halving begin at the first bin."""
        p = len(self.taps) - 2 + further
        before, after = (p + 1) // 2, p // 2
        if before == after:
            return F.conv2d(x, self._kernel(x).flip(-2, -1), stride=stride, padding=before, groups=x.shape[1])
        x = F.pad(x, (before, after, before, after))
        return F.conv2d(x, self._kernel(x).flip(-2, -1), stride=stride, groups=x.shape[1])

    def down(self, x: Float[Tensor, "b c f t"]) -> Float[Tensor, "b c g u"]:
        """Half as many bins and frames."""
        return self.filtered(x, 0, 2)

    def up(self, x: Float[Tensor, "b c f t"]) -> Float[Tensor, "b c g u"]:
        """Twice as many bins and frames."""
        if self.taps == (1, 3, 3, 1):
            return _doubled(x)
        offset = len(self.taps) - 2 - (len(self.taps) - 1) // 2
        height, width = 2 * x.shape[2], 2 * x.shape[3]
        y = F.conv_transpose2d(x, 4 * self._kernel(x), stride=2, groups=x.shape[1])
        y = F.pad(y, (0, 1, 0, 1))
        return y[:, :, offset : offset + height, offset : offset + width]

    def conv_down(self, x: Float[Tensor, "b c f t"], conv: nn.Conv2d) -> Float[Tensor, "b d g u"]:
        """The filter and a convolution in steps of two."""
        return F.conv2d(self.filtered(x, conv.kernel_size[0] - 1, 1), conv.weight, conv.bias, stride=2)


def _doubled(x: Float[Tensor, "b c f t"]) -> Float[Tensor, "b c g u"]:
    """The taps 1 3 3 1: linear interpolation, then the edges that it repeats and the filter does not see."""
    y = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    for axis in (2, 3):
        for end in (0, -1):
            y.select(axis, end).mul_(0.75)
    return y


def group_norm(channels: int) -> nn.GroupNorm:
    """min(channels / 4, 32) groups, or the next smaller number that divides the channels."""
    most = max(1, min(channels // 4, 32))
    return nn.GroupNorm(next(groups for groups in range(most, 0, -1) if channels % groups == 0), channels, eps=1e-6)


def normed_silu(norm: nn.Module, x: Float[Tensor, "b c f t"]) -> Float[Tensor, "b c f t"]:
    return F.silu(norm(x), inplace=not torch.is_grad_enabled())


def conv3x3(num_in: int, num_out: int) -> nn.Conv2d:
    return nn.Conv2d(num_in, num_out, 3, padding=1)


class TimeEmbedding(nn.Module):
    """t `b` -> e `b 4w`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(16 * torch.randn(width), requires_grad=False)
        self.first = nn.Linear(2 * width, 4 * width)
        self.second = nn.Linear(4 * width, 4 * width)

    def sinusoids(self, u: Float[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """Of u = ln t."""
        angle = u[:, None] * self.frequencies * 2 * math.pi
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    def forward(self, t: Float[Tensor, " b"]) -> Float[Tensor, "b d"]:
        return F.silu(self.second(F.silu(self.first(self.sinusoids(t.log())))))


class ResBlock(nn.Module):
    """See the module's text. embed: width of e, or 0 without time."""

    def __init__(
        self,
        num_in: int,
        num_out: int,
        embed: int,
        fir: FIR,
        resample: Literal["up", "down"] | None = None,
        rescale: bool = True,
    ) -> None:
        super().__init__()
        self.resample = {"up": fir.up, "down": fir.down}[resample] if resample else None
        self.scale = math.sqrt(0.5) if rescale else 1.0
        self.norm1, self.conv1 = group_norm(num_in), conv3x3(num_in, num_out)
        self.time = nn.Linear(embed, num_out) if embed else None
        self.norm2, self.conv2 = group_norm(num_out), conv3x3(num_out, num_out)
        self.shortcut = nn.Conv2d(num_in, num_out, 1) if resample or num_in != num_out else None

    def forward(self, x: Float[Tensor, "b c f t"], e: Float[Tensor, "b w"] | None) -> Float[Tensor, "b d g u"]:
        h = normed_silu(self.norm1, x)
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.conv1(h)
        if self.time is not None and e is not None:
            h += self.time(e)[:, :, None, None]
        h = self.conv2(normed_silu(self.norm2, h))
        h += x if self.shortcut is None else self.shortcut(x)
        return h.mul_(self.scale)


class Attention(nn.Module):
    """Every place of `b c f t` attends to all."""

    def __init__(self, channels: int, rescale: bool = True) -> None:
        super().__init__()
        self.scale = math.sqrt(0.5) if rescale else 1.0
        self.norm = group_norm(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Float[Tensor, "b c f t"]) -> Float[Tensor, "b c f t"]:
        places = self.norm(x).flatten(2).transpose(1, 2)  # b n c
        q, k, v = self.qkv(places)[:, None].chunk(3, dim=-1)  # b 1 n c
        h = self.out(F.scaled_dot_product_attention(q, k, v)[:, 0])
        return self.scale * (x + h.transpose(1, 2).reshape(x.shape))


class Down(nn.Module):
    """One level on the way down. attentions: one a block, or none. resample, join: to the next level, if there is
    one.
    """

    def __init__(
        self, blocks: list[ResBlock], attentions: list[Attention], resample: ResBlock | None, join: nn.Conv2d | None
    ) -> None:
        super().__init__()
        self.blocks, self.attentions = nn.ModuleList(blocks), nn.ModuleList(attentions)
        self.resample, self.join = resample, join

    def forward(
        self, h: Float[Tensor, "b c f t"], e: Float[Tensor, "b w"] | None, kept: list[Tensor]
    ) -> Float[Tensor, "b d g u"]:
        """h after this level, at the next one's resolution; what every block gives is added to `kept`."""
        for i, block in enumerate(self.blocks):
            h = block(h, e)
            h = self.attentions[i](h) if self.attentions else h
            kept.append(h)
        return h if self.resample is None else self.resample(h, e)


class Up(nn.Module):
    """One level on the way up. norm, output: make its part of the output. resample: to the next level above."""

    def __init__(
        self,
        blocks: list[ResBlock],
        attention: Attention | None,
        norm: nn.GroupNorm | None,
        output: nn.Conv2d | None,
        resample: ResBlock | None,
    ) -> None:
        super().__init__()
        self.blocks, self.attention = nn.ModuleList(blocks), attention
        self.norm, self.output = norm, output
        self.resample = resample

    def forward(
        self, h: Float[Tensor, "b c f t"], e: Float[Tensor, "b w"] | None, kept: list[Tensor]
    ) -> Float[Tensor, "b d f t"]:
        """h after this level, before `resample`; takes what its blocks read from the end of `kept`."""
        for block in self.blocks:
            h = block(torch.cat([h, kept.pop()], dim=1), e)
        return h if self.attention is None else self.attention(h)

    def part(self, h: Float[Tensor, "b c f t"]) -> Float[Tensor, "b d f t"] | None:
        """What this level adds to the output."""
        return None if self.output is None or self.norm is None else self.output(normed_silu(self.norm, h))


class NCSNpp(nn.Module):
    """See the module's text. x `b c f t`; the condition's signal, where channels_in asks for it, `b d f t`."""

    def __init__(self, config: NCSNppConfig) -> None:
        super().__init__()
        self.config = config
        embed = 4 * config.width if config.timed else 0
        self.fir = FIR(config.taps)
        self.embed = TimeEmbedding(config.width) if config.timed else None

        def block(num_in: int, num_out: int, resample: Literal["up", "down"] | None = None) -> ResBlock:
            return ResBlock(num_in, num_out, embed, self.fir, resample, config.rescale)

        channels = [config.width * multiplier for multiplier in config.multipliers]
        last = len(channels) - 1
        self.enter = conv3x3(config.channels_in, config.width)
        kept, c, seen, downs = [config.width], config.width, config.channels_in, []
        for level, own in enumerate(channels):
            blocks = [block(num_in, own) for num_in in (c, *[own] * (config.res_blocks - 1))]
            num_attentions = config.res_blocks if config.heights[level] in config.attention else 0
            attentions = [Attention(own, config.rescale) for _ in range(num_attentions)]
            kept += [own] * config.res_blocks
            c, resample, join = own, None, None
            if level < last:
                resample = block(c, c, "down")
                if config.progressive_input == "input_skip":
                    join = nn.Conv2d(seen, c, 1)
                    c *= 2 if config.combine == "cat" else 1
                elif config.progressive_input == "residual":
                    join, seen = nn.Conv2d(seen, c, 3), c
                kept.append(c)
            downs.append(Down(blocks, attentions, resample, join))
        self.down = nn.ModuleList(downs)
        self.bottom = nn.ModuleList([block(c, c), Attention(c, config.rescale), block(c, c)])
        ups = []
        for level in range(last, -1, -1):
            own = channels[level]
            blocks = [block(num_in + kept.pop(), own) for num_in in (c, *[own] * config.res_blocks)]
            c = own
            attention = Attention(c, config.rescale) if config.heights[level] in config.attention else None
            speaks = config.progressive == "output_skip" or level == 0
            norm, output = (group_norm(c), conv3x3(c, config.channels_in)) if speaks else (None, None)
            ups.append(Up(blocks, attention, norm, output, block(c, c, "up") if level else None))
        self.up = nn.ModuleList(ups)
        self.leave = nn.Conv2d(config.channels_in, config.channels_out, 1)
        self._draw()
        for parameter in self.parameters():
            if parameter.ndim == 4:  # the layout in which convolutions on a processor need no copy of their weights
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def _draw(self) -> None:
        """Uniform weights of variance 1/mean(fan in, fan out), biases 0; a block's, an attention's and an output's last
        layer almost 0. `leave` stays as the framework draws it."""
        scales: dict[nn.Module, float] = {}
        for module in self.modules():
            if isinstance(module, ResBlock):
                scales[module.conv2] = TINY
            elif isinstance(module, Attention):
                scales[module.out], scales[module.qkv] = TINY, 0.1
            elif isinstance(module, Up) and module.output is not None:
                scales[module.output] = TINY
        for module in self.modules():
            if not isinstance(module, nn.Conv2d | nn.Linear) or module is self.leave or module.bias is None:
                continue
            num_out, num_in, *field = module.weight.shape
            if scales.get(module) == 0.1:
                num_out = num_in  # three layers in one
            bound = math.sqrt(6 * scales.get(module, 1.0) / (math.prod(field) * (num_in + num_out)))
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.zeros_(module.bias)

    def forward(
        self, x: Float[Tensor, "b c f t"], t: Float[Tensor, " b"], condition: Condition
    ) -> Float[Tensor, "b c f t"]:
        seen = self._input(x, condition)
        t = t.to(seen.dtype).clamp(min=LOWEST_TIME)
        e = None if self.embed is None else self.embed(t)
        h = self.enter(seen)
        kept = [h]
        for down in self.down:
            assert isinstance(down, Down)
            h = down(h, e, kept)
            if down.resample is not None:
                h, seen = self._join(h, seen, down.join)
                kept.append(h)
        for part in self.bottom:
            h = part(h) if isinstance(part, Attention) else part(h, e)
        out: Tensor | None = None
        for up in self.up:
            assert isinstance(up, Up)
            h = up(h, e, kept)
            part = up.part(h)
            if part is not None:
                out = part if out is None else part.add_(self.fir.up(out))
            h = h if up.resample is None else up.resample(h, e)
        assert out is not None
        return self._output(out, t)[..., : x.shape[-1]].to(x.dtype)

    def _join(self, h: Tensor, seen: Tensor, layer: nn.Conv2d | None) -> tuple[Tensor, Tensor]:
        """h told the input at its resolution, and what the level after it sees of the input."""
        if layer is None:
            return h, seen
        if self.config.progressive_input == "residual":
            h = self.fir.conv_down(seen, layer).add_(h)
            h = h.mul_(math.sqrt(0.5)) if self.config.rescale else h
            return h, h
        seen = self.fir.down(seen)
        joined = layer(seen)
        return torch.cat([joined, h], dim=1) if self.config.combine == "cat" else joined.add_(h), seen

    def _input(self, x: Float[Tensor, "b c f t"], condition: Condition) -> Float[Tensor, "b d f u"]:
        """x and the signal as the first layer takes them, checked, in this network's dtype."""
        config = self.config
        parts = [x]
        if config.channels_in > config.channels_out:
            if condition.signal is None:
                raise ValueError("this ncsnpp needs a condition signal with the bins and frames of x; got none")
            parts.append(condition.signal)
        if sum(part.shape[1] for part in parts) != config.channels_in or x.shape[1] != config.channels_out:
            raise ValueError(
                f"ncsnpp was made for a state of {config.channels_out} channels and a condition signal of "
                f"{config.channels_in - config.channels_out}, got {' and '.join(str(part.shape[1]) for part in parts)}"
            )
        if x.shape[2] != config.bins:
            raise ValueError(f"ncsnpp was made for {config.bins} bins, got {x.shape[2]}; set `bins` to the frontend's")
        s = torch.cat([part.to(self.enter.weight.dtype) for part in parts], dim=1)
        s = F.pad(s, (0, -x.shape[-1] % config.multiple)).contiguous(memory_format=torch.channels_last)
        return s if config.centered else 2 * s - 1

    def _output(self, out: Float[Tensor, "b d f u"], t: Float[Tensor, " b"]) -> Float[Tensor, "b c f u"]:
        if self.config.divide == "before":
            return self.leave(out / expand(t, out))
        out = self.leave(out)
        return out / expand(t, out) if self.config.divide == "after" else out
