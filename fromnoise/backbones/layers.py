"""Layers that the waveform networks share: step embedding, mel upsampler, convolutions with weight norm.

Step embedding of DiffWave (Kong et al., 2021, https://arxiv.org/abs/2009.09761), t the 0-based diffusion step:

    s(t) = [sin(w_j t), cos(w_j t)],  j = 0 .. h-1,  h = dim_in/2;    E(t) = silu(B silu(A s(t)))
    falling:  w_j = 10^(-4j/(h-1))     defined for any real t
    rising:   w_j = 10^( 4j/(h-1))     for whole t only; in between, the rows s(floor t) and s(ceil t) are interpolated

The rising form reaches arguments of 2e6 that float32 cannot hold: a trained network has learnt the rounded values. They
are therefore formed in float32 whatever the dtype of the run.

Mel upsampler: for each factor s a transposed convolution over (bands, frames) with one channel, kernel (3, 2s), stride
(1, s), padding (1, s // 2), then LeakyReLU(0.4). Every output sees two frames of three bands: for frame q, phase p < s,

    full[m, q s + p] = bias + sum_j K[j, p] x[m+1-j, q] + K[j, s+p] x[m+1-j, q-1],   j = 0 .. 2

is an ordinary convolution 1 -> s channels over (bands, frames), its channels laid out in time, cut by s // 2 in front:
the same map, many times faster on a processor.

Weight norm (Salimans and Kingma, 2016, https://arxiv.org/abs/1602.07868): w = g v/|v|, the norm over all axes but the
first. As a parametrization, so that copies and averages of a network work.
"""

import functools
import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

Layer = TypeVar("Layer", bound=nn.Module)


@functools.cache
def step_frequencies(num: int, rising: bool) -> Float[Tensor, " num"]:
    """The w_j in float32, made on the CPU: another device's power function may round another way."""
    j = torch.arange(num, dtype=torch.float32, device="cpu")
    if rising:
        return 10.0 ** (j * 4.0 / max(num - 1, 1))
    return torch.exp(j * -(math.log(10_000.0) / max(num - 1, 1)))


def step_sinusoids(t: Float[Tensor, " b"], dim: int, rising: bool = False) -> Float[Tensor, "b dim"]:
    """s(t) in the dtype of t; see the module's text."""
    w = step_frequencies(dim // 2, rising).to(t.device)
    if not rising:
        angle = t[:, None] * w.to(t.dtype)
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    def row(step: Tensor) -> Tensor:
        angle = step.float()[:, None] * w
        return torch.cat([angle.sin(), angle.cos()], dim=1).to(t.dtype)

    low = t.floor()
    first = row(low)
    return first + (row(t.ceil()) - first) * (t - low)[:, None]


class StepEmbedding(nn.Module):
    """E(t): network time `b` -> `b dim_out`."""

    def __init__(self, dim_in: int = 128, dim_mid: int = 512, dim_out: int = 512, rising: bool = False) -> None:
        super().__init__()
        if dim_in < 2 or dim_in % 2:
            raise ValueError(f"expected an even width of the step's sinusoids, got {dim_in}")
        self.dim_in = dim_in
        self.rising = rising
        self.first = nn.Linear(dim_in, dim_mid)
        self.second = nn.Linear(dim_mid, dim_out)

    def forward(self, t: Float[Tensor, " b"]) -> Float[Tensor, "b d"]:
        s = step_sinusoids(t, self.dim_in, self.rising).to(self.first.weight.dtype)
        return F.silu(self.second(F.silu(self.first(s))))


class MelUpsampler(nn.Module):
    """A mel spectrogram `b m w` -> `b m n`, n = w times all factors (one more per odd factor)."""

    def __init__(self, factors: tuple[int, ...] = (16, 16), weight_norm: bool = False) -> None:
        super().__init__()
        self.factors = factors
        self.layers = nn.ModuleList(
            normed(nn.ConvTranspose2d(1, 1, (3, 2 * s), stride=(1, s), padding=(1, s // 2)), weight_norm)
            for s in factors
        )

    def forward(self, mel: Float[Tensor, "b m w"]) -> Float[Tensor, "b m n"]:
        for layer, factor in zip(self.layers, self.factors, strict=True):
            assert isinstance(layer, nn.ConvTranspose2d) and layer.bias is not None
            mel = F.leaky_relu(_lengthen(mel, layer.weight[0, 0], layer.bias, factor), 0.4, inplace=True)
        return mel


def _lengthen(
    x: Float[Tensor, "b m w"], kernel: Float[Tensor, "3 k"], bias: Float[Tensor, " 1"], factor: int
) -> Float[Tensor, "b m n"]:
    """The transposed convolution of one stage, before its activation: the s phases of a frame are made as channels."""
    b, m, w = x.shape
    phases = kernel.reshape(3, 2, factor).flip(0, 1).permute(2, 0, 1)[:, None]  # s 1 bands frames
    one = x[:, None].contiguous(memory_format=torch.channels_last)  # the phases then come out side by side in memory
    weight = phases.contiguous(memory_format=torch.channels_last)
    full = F.conv2d(one, weight, bias.expand(factor).contiguous(), padding=(1, 1))  # b s m w+1
    full = full.permute(0, 2, 3, 1).reshape(b, m, (w + 1) * factor)
    return full[:, :, factor // 2 : factor // 2 + w * factor + factor % 2]


def normed(layer: Layer, weight_norm: bool = True) -> Layer:
    """The layer with its weight as g v/|v|, or, without weight_norm, as it is."""
    if weight_norm:
        parametrizations.weight_norm(layer, "weight")
    return layer


def normed_conv1d(num_in: int, num_out: int, kernel: int = 1, dilation: int = 1, weight_norm: bool = True) -> nn.Conv1d:
    """A convolution that keeps the length (odd kernel)."""
    conv = nn.Conv1d(num_in, num_out, kernel, dilation=dilation, padding=kernel // 2 * dilation)
    return normed(conv, weight_norm)


def fold_weight_norm(module: Layer) -> Layer:
    """Turn every weight-normed layer inside into a plain one, in place; the outputs stay.

    The keys of the state dict become those of a network built without weight norm.
    """
    for layer in list(module.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return module
