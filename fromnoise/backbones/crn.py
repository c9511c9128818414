"""A convolutional U-Net over frequency with a temporal convolution bottleneck, made for few operations per second.

After Tan and Wang, "A Convolutional Recurrent Neural Network for Real-Time Speech Enhancement", Interspeech 2018, with
the recurrence replaced by dilated residual convolutions (Bai et al., "An Empirical Evaluation of Generic Convolutional
and Recurrent Networks for Sequence Modeling", 2018, https://arxiv.org/abs/1803.01271).

    h_0 = [x, signal],   h_{l+1} = act(norm(conv(h_l)) + e_l(t))      5 bins x 3 frames, stride 2 over the bins
    d_L = bottleneck(h_L, channels and bins flattened)
    d_l = act(norm(up([d_{l+1}, h_{l+1}])) + e'_l(t))                 3 bins, even and odd output bins as channels
    m_x, m_s, r = head([d_0, x, signal]),     out = m_x x + m_s signal + r       complex products, bin by bin

The masks start at 1/2 each and the residual r at 0: the network starts as the mean of what it is given.
t enters as a Fourier embedding, added per channel; without `timed` it is not read.
"""

import dataclasses
import itertools
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fromnoise.types import Condition


@dataclasses.dataclass(frozen=True)
class CRNConfig:
    """bins: of the spectrogram. channels: per level, the first reads the input. hidden: width of the bottleneck;
    groups x len(dilations) residual units. conditional: read `condition.signal` beside x. timed: read t.
    """

    bins: int = 161
    channels: tuple[int, ...] = (32, 48, 64, 64)
    hidden: int = 320
    squeeze: int = 96
    groups: int = 2
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    conditional: bool = True
    timed: bool = True

    def __post_init__(self) -> None:
        sizes = (self.bins, *self.channels, self.hidden, self.squeeze, self.groups, *self.dilations)
        if not self.channels or not self.dilations or min(sizes) < 1:
            raise ValueError(f"crn: expected at least one channel and dilation, and every size at least 1, got {self}")
        if len(self.channels) > 16 or self.groups * len(self.dilations) > 256:
            raise ValueError("crn: expected at most 16 levels and 256 residual units (groups x dilations)")

    @property
    def reach(self) -> int:
        """Frames on either side that one output frame depends on."""
        return 2 * self.groups * sum(self.dilations) + len(self.channels) + 1  # the head looks one frame further

    def build(self) -> nn.Module:
        """The network with fresh weights."""
        return CRN(self)


class TimeEmbedding(nn.Module):
    """t in [0, 1], `b` -> `b d`: sines and cosines of 32 log-spaced frequencies, then two layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, t: Float[Tensor, " b"]) -> Float[Tensor, "b d"]:
        frequency = torch.exp(torch.linspace(0, math.log(1000.0), 32, device=t.device, dtype=t.dtype))
        angle = t[:, None] * frequency
        return self.layers(torch.cat([angle.sin(), angle.cos()], dim=1).to(next(self.parameters()).dtype))


class Level(nn.Module):
    """Convolution (down or up over the bins), norm, time bias, activation."""

    def __init__(self, num_in: int, num_out: int, up: bool, width: int) -> None:
        super().__init__()
        self.up = up
        if up:  # even and odd bins as two sets of channels
            self.conv = nn.Conv2d(num_in, 2 * num_out, (3, 1), padding=(1, 0))
        else:
            self.conv = nn.Conv2d(num_in, num_out, (5, 3), (2, 1), padding=(2, 1))
        self.norm = nn.BatchNorm2d(num_out)
        self.act = nn.PReLU(num_out)
        self.time = nn.Linear(width, num_out) if width else None

    def forward(self, x: Float[Tensor, "b c f t"], e: Tensor | None, bins: int) -> Float[Tensor, "b d f2 t"]:
        x = self.conv(x)
        if self.up:
            b, d, f, t = x.shape
            x = x.reshape(b, d // 2, 2, f, t).transpose(2, 3).reshape(b, d // 2, 2 * f, t)[:, :, :bins]
        x = self.norm(x)
        if self.time is not None and e is not None:
            x = x + self.time(e)[:, :, None, None]
        return self.act(x)


class Unit(nn.Module):
    """Residual unit of the bottleneck: 1x1 down, dilated gated convolution, 1x1 up."""

    def __init__(self, hidden: int, squeeze: int, dilation: int, width: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv1d(hidden, squeeze, 1), nn.BatchNorm1d(squeeze), nn.PReLU())
        self.look = nn.Conv1d(squeeze, 2 * squeeze, 5, padding=2 * dilation, dilation=dilation)
        self.leave = nn.Sequential(nn.BatchNorm1d(squeeze), nn.Conv1d(squeeze, hidden, 1))
        self.time = nn.Linear(width, squeeze) if width else None

    def forward(self, x: Float[Tensor, "b c t"], e: Tensor | None) -> Float[Tensor, "b c t"]:
        h = self.enter(x)
        if self.time is not None and e is not None:
            h = h + self.time(e)[:, :, None]
        value, gate = self.look(h).chunk(2, dim=1)
        return x + self.leave(value * torch.sigmoid(gate))


class CRN(nn.Module):
    """See the module's text. Input and output `b 2 f t`."""

    def __init__(self, config: CRNConfig) -> None:
        super().__init__()
        self.config = config
        width = 128 if config.timed else 0
        self.embed = TimeEmbedding(width) if config.timed else None
        num_in = 4 if config.conditional else 2
        self.num_in = num_in
        sizes = [num_in, *config.channels]
        self.bins = [config.bins]
        for _ in config.channels:
            self.bins.append((self.bins[-1] + 1) // 2)
        self.down = nn.ModuleList(Level(a, b, False, width) for a, b in itertools.pairwise(sizes))
        flat = sizes[-1] * self.bins[-1]
        self.enter, self.leave = nn.Conv1d(flat, config.hidden, 1), nn.Conv1d(config.hidden, flat, 1)
        dilations = config.dilations * config.groups
        self.units = nn.ModuleList(Unit(config.hidden, config.squeeze, d, width) for d in dilations)
        outs = [config.channels[0], *config.channels[:-1]]
        self.lift = nn.ModuleList(
            Level(2 * config.channels[i], outs[i], True, width) for i in range(len(config.channels) - 1, -1, -1)
        )
        self.head = nn.Conv2d(config.channels[0] + num_in, num_in + 2, (5, 3), padding=(2, 1))
        nn.init.zeros_(self.head.weight)
        pairs = num_in // 2  # the masks start as the mean of the given pairs, the residual at zero
        self.head.bias = nn.Parameter(torch.tensor([1 / pairs, 0.0] * pairs + [0.0, 0.0]))

    def forward(
        self, x: Float[Tensor, "b 2 f t"], t: Float[Tensor, " b"], condition: Condition
    ) -> Float[Tensor, "b 2 f t"]:
        if x.shape[2] != self.config.bins:
            raise ValueError(
                f"crn was made for {self.config.bins} bins, got {x.shape[2]}; set `bins` to the frontend's"
            )
        if self.config.conditional:
            if condition.signal is None:
                raise ValueError("crn with conditional=true needs a condition signal in the layout of x; got none")
            x = torch.cat([x, condition.signal.to(x.dtype)], dim=1)
        e = self.embed(t.to(x.dtype)) if self.embed is not None else None
        h, skips = x, []
        for level in self.down:
            h = level(h, e, 0)
            skips.append(h)
        b, c, f, n = h.shape
        z = self.enter(h.reshape(b, c * f, n))
        for unit in self.units:
            z = unit(z, e)
        h = self.leave(z).reshape(b, c, f, n)
        for level, skip, bins in zip(self.lift, reversed(skips), reversed(self.bins[:-1]), strict=True):
            h = level(torch.cat([h, skip], dim=1), e, bins)
        out = self.head(torch.cat([h, x], dim=1))
        mask, residual = out[:, : self.num_in].unflatten(1, (-1, 2)), out[:, self.num_in :]
        given = x.unflatten(1, (-1, 2))  # b pairs 2 f t
        real = (mask[:, :, 0] * given[:, :, 0] - mask[:, :, 1] * given[:, :, 1]).sum(1)
        imag = (mask[:, :, 0] * given[:, :, 1] + mask[:, :, 1] * given[:, :, 0]).sum(1)
        return torch.stack([real, imag], dim=1) + residual
