"""The gated convolution U-Nets with a temporal bottleneck of DR-DiffuSE.

Tai et al., "Revisiting Denoising Diffusion Probabilistic Models for Speech Enhancement: Condition Collapse,
Efficiency and Refinement", AAAI 2023 (figures 2 and 3). Complex spectrograms with 161 bins; three wirings of one body:

- `base`: estimate = net(x). Regression (condition generator, refiner).
- `concat`: estimate = net(squeeze([x_t, c]), step). Both stacked and squeezed to two channels by a 1x1 convolution.
- `dual`: as `concat`, and every level is averaged with the same level of a complete `base` that reads c alone.
  That second path depends on neither x_t nor the step: `bind` runs it once for all calls of a run.

Gated block, kernels l and r side by side:   L = l(h), R = r(h),   out = W (L s(r'(R)) + R s(l'(L))),   s = sigmoid.
Frames are looked at one step back per level; the bottleneck's dilated convolutions look both ways.

Parameter names are those of the published checkpoints, so that these load as they are.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fromnoise.types import Condition

NUM_BINS = 161
Features = tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]


@dataclasses.dataclass(frozen=True)
class TCUNetConfig:
    """Which of the three wirings, and the release's or the paper's choices where they differ.

    wiring: "base", "concat" or "dual". norm: "batch" (release) or "instance" (paper). inject: how the dual path's
    condition features enter, "average" (release) or "conv_add" (paper: added through a 1x1 convolution).
    fusion: "squeeze" (4 -> 2 channels at the input, release) or "concat" (the first block reads 4 channels).
    num_steps: rows of the step table; network times in [0, num_steps - 1] are interpolated between its rows.
    time_scale: from the process's network time to a row of the step table: 1 for discrete processes, num_steps - 1
    for processes whose time runs over [0, 1].
    """

    wiring: Literal["base", "concat", "dual"] = "base"
    norm: Literal["batch", "instance"] = "batch"
    inject: Literal["average", "conv_add"] = "average"
    fusion: Literal["squeeze", "concat"] = "squeeze"
    num_steps: int = 200
    time_scale: float = 1.0

    @property
    def reach(self) -> int:
        """Frames on either side that one output frame depends on: the bottleneck both ways, ten levels one back."""
        return 3 * 2 * 63 + 10

    def __post_init__(self) -> None:
        choices = {"wiring": ("base", "concat", "dual"), "norm": ("batch", "instance")}
        choices |= {"inject": ("average", "conv_add"), "fusion": ("squeeze", "concat")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"tcunet: {name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if not 1 <= self.num_steps <= 100_000:
            raise ValueError(f"tcunet: num_steps must lie between 1 and 100000, got {self.num_steps}")

    def build(self) -> nn.Module:
        """The network with fresh weights."""
        return Base(self.norm) if self.wiring == "base" else Conditional(self)


def step_table(num_steps: int) -> Float[Tensor, "steps 128"]:
    """Rows sin(n 10^(4d/63)), cos(...), d = 0..63, in float32 arithmetic throughout.

    The order of the float32 roundings is part of the published networks: a float64 table differs by up to 0.11.
    """
    exponent = torch.arange(64, dtype=torch.float32) * 4.0 / 63.0
    angle = torch.arange(num_steps, dtype=torch.float32)[:, None] * 10.0 ** exponent[None, :]
    return torch.cat([torch.sin(angle), torch.cos(angle)], dim=1)


class StepEmbedding(nn.Module):
    """Network time `b` -> `b 128`: a table row (linear between rows for fractional steps), then two SiLU layers."""

    def __init__(self, num_steps: int) -> None:
        super().__init__()
        self.register_buffer("table", step_table(num_steps), persistent=False)
        self.projection1 = nn.Linear(128, 128)
        self.projection2 = nn.Linear(128, 128)

    def forward(self, step: Float[Tensor, " b"]) -> Float[Tensor, "b 128"]:
        table = self.get_buffer("table")
        low = step.floor().long().clamp(0, len(table) - 1)
        high = step.ceil().long().clamp(0, len(table) - 1)
        dtype = self.projection1.weight.dtype
        rows, fraction = table.to(dtype), (step - low).to(dtype).clamp(0, 1)[:, None]
        row = rows[low] + (rows[high] - rows[low]) * fraction
        return F.silu(self.projection2(F.silu(self.projection1(row))))


class GatedBlock(nn.Module):
    """1x1 to 32 channels, two cross-gated kernels with stride 2 over the bins, 1x1 out.

    transposed: the decoder's form, all six convolutions transposed (also the 1x1 ones, stored `in out 1 1`).
    with_step: add a projection of the step embedding to the input.
    """

    def __init__(
        self, num_in: int, num_out: int, width: int, transposed: bool = False, with_step: bool = False
    ) -> None:
        super().__init__()
        conv = nn.ConvTranspose2d if transposed else nn.Conv2d
        self.transposed = transposed
        self.conv1 = conv(num_in, 32, 1)
        self.l = conv(32, 32, (2, width), stride=(1, 2))
        self.r = conv(32, 32, (2, width), stride=(1, 2))
        self.l_conv, self.r_conv = conv(32, 32, 1), conv(32, 32, 1)
        self.conv2 = conv(32, num_out, 1)
        if with_step and transposed:
            self.tp = nn.Linear(128, num_in)

    def forward(self, x: Float[Tensor, "b c t f"]) -> Float[Tensor, "b d t2 f2"]:
        """The published wiring in fewer passes: l and r run as one convolution; `_double_bins` serves the decoder."""
        h = _pointwise(self.conv1, x)
        pair_axis = 1 if self.transposed else 0  # the output-channel axis of the stored weight
        weight = torch.cat([self.l.weight, self.r.weight], pair_axis)
        bias = torch.cat([self.l.bias, self.r.bias])  # pyright: ignore[reportArgumentType]
        both = _double_bins(h, weight, bias) if self.transposed else F.conv2d(h, weight, bias, stride=(1, 2))
        left, right = both.chunk(2, dim=1)
        gate_of_left, gate_of_right = _pointwise(self.r_conv, right), _pointwise(self.l_conv, left)
        return _pointwise(self.conv2, left * torch.sigmoid(gate_of_left) + right * torch.sigmoid(gate_of_right))


def _pointwise(layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """A 1x1 convolution, stored either way round; PyTorch runs a transposed one without its fast kernels."""
    weight = layer.weight
    return F.conv2d(x, weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else weight, layer.bias)


def _double_bins(x: Float[Tensor, "b c t f"], weight: Float[Tensor, "c d 2 k"], bias: Float[Tensor, " d"]) -> Tensor:
    """The transposed convolution with stride (1, 2), cut to the frames of x, as one ordinary convolution.

    Even and odd output bins are two sets of channels: out[2i + p] = sum_j weight[2j + p] x[i - j], and in time
    out[t] = weight[0] x[t] + weight[1] x[t - 1]. The last frame, which the decoder drops, is never made.
    """
    c, d, _, k = weight.shape
    taps = (k + 1) // 2
    phases = F.pad(weight, (0, 2 * taps - k)).reshape(c, d, 2, taps, 2)  # c d time j p
    kernel = phases.flip(2, 3).permute(1, 4, 0, 2, 3).reshape(2 * d, c, 2, taps)
    out = F.conv2d(F.pad(x, (taps - 1, taps - 1, 1, 0)), kernel, bias.repeat_interleave(2))
    b, _, t, f = out.shape
    out = out.reshape(b, d, 2, t, f).permute(0, 1, 3, 4, 2).reshape(b, d, t, 2 * f)
    return out[..., : 2 * x.shape[-1] - 2 + k]


def _norm(kind: str, num_channels: int, axes: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(num_channels) if axes == 2 else nn.BatchNorm1d(num_channels)
    return nn.InstanceNorm2d(num_channels, affine=True) if axes == 2 else nn.InstanceNorm1d(num_channels, affine=True)


class Encoder(nn.Module):
    """Five gated blocks, bins 161 -> 79, 39, 19, 9, 4."""

    def __init__(self, norm: str, with_step: bool, num_in: int = 2) -> None:
        super().__init__()
        for level in range(1, 6):
            channels, width = (num_in, 5) if level == 1 else (64, 3)
            setattr(self, f"conv{level}", GatedBlock(channels, 64, width))
            setattr(self, f"en{level}", nn.Sequential(_norm(norm, 64, 2), nn.PReLU()))
            if with_step:
                setattr(self, f"tp{level}", nn.Linear(128, channels))

    def forward(
        self, x: Tensor, step: Tensor | None, mix: list[Tensor] | None, blend: "Blend"
    ) -> tuple[Tensor, list[Tensor]]:
        """x `b c t f`; step: embedding or None; mix: features of the condition path per level or None."""
        skips = []
        for level in range(1, 6):
            x = F.pad(x, (0, 0, 1, 0))
            if step is not None:
                x = x + getattr(self, f"tp{level}")(step)[:, :, None, None]
            x = getattr(self, f"en{level}")(getattr(self, f"conv{level}")(x))
            skips.append(x)
            if mix is not None:
                x = blend(f"en{level}", x, mix[level - 1])
        return x, skips


class Decoder(nn.Module):
    """Five transposed gated blocks back to 161 bins, for the real or the imaginary part."""

    def __init__(self, norm: str, with_step: bool) -> None:
        super().__init__()
        for level in range(5, 0, -1):
            num_out, width = (1, 5) if level == 1 else (64, 3)
            layers: list[nn.Module] = [GatedBlock(128, num_out, width, True, with_step), nn.Identity()]
            if level > 1:
                layers += [_norm(norm, 64, 2), nn.PReLU()]
            setattr(self, f"de{level}", nn.Sequential(*layers))

    def forward(
        self, x: Tensor, skips: list[Tensor], step: Tensor | None, mix: list[Tensor] | None, blend: "Blend"
    ) -> tuple[Tensor, list[Tensor]]:
        features = []
        for level in range(5, 0, -1):
            layers = getattr(self, f"de{level}")
            x = torch.cat([x, skips[level - 1]], dim=1)
            if step is not None:
                x = x + layers[0].tp(step)[:, :, None, None]
            x = layers(x)
            features.append(x)
            if mix is not None and level > 1:
                x = blend(f"de{level}", x, mix[5 - level])
        return x, features


class ResidualUnit(nn.Module):
    """Squeezed temporal convolution with a gating mask: x + W(main(h) s(mask(h))), h = V x."""

    def __init__(self, dilation: int, norm: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(256, 64, 1)
        self.mainbranch, self.maskbranch = (
            nn.Sequential(nn.PReLU(), _norm(norm, 64, 1), nn.Conv1d(64, 64, 5, padding=2 * dilation, dilation=dilation))
            for _ in range(2)
        )
        self.conv2 = nn.Sequential(nn.PReLU(), _norm(norm, 64, 1), nn.Conv1d(64, 256, 1))

    def forward(self, x: Float[Tensor, "b 256 t"]) -> Float[Tensor, "b 256 t"]:
        h = self.conv1(x)
        return x + self.conv2(self.mainbranch(h) * torch.sigmoid(self.maskbranch(h)))


class Group(nn.Module):
    """Six residual units with dilations 1 to 32."""

    def __init__(self, norm: str) -> None:
        super().__init__()
        for i in range(6):
            setattr(self, f"residual{i + 1}", ResidualUnit(2**i, norm))

    def forward(self, x: Tensor) -> Tensor:
        for i in range(6):
            x = getattr(self, f"residual{i + 1}")(x)
        return x


class Blend(nn.Module):
    """How features of the condition path enter the diffusion path: average (release) or an added 1x1 (paper)."""

    def __init__(self, inject: str) -> None:
        super().__init__()
        self.inject = inject
        if inject == "conv_add":
            for name in [f"en{i}" for i in range(1, 6)] + [f"de{i}" for i in range(2, 6)]:
                setattr(self, name, nn.Conv2d(64, 64, 1))

    def forward(self, place: str, x: Tensor, condition: Tensor) -> Tensor:
        return x + getattr(self, place)(condition) if self.inject == "conv_add" else (x + condition) / 2


class Body(nn.Module):
    """Encoder, bottleneck and the two decoders; x is `b c t f` here."""

    def __init__(self, norm: str, with_step: bool, num_in: int = 2, inject: str = "average") -> None:
        super().__init__()
        self.en = Encoder(norm, with_step, num_in)
        self.de_real, self.de_imag = Decoder(norm, with_step), Decoder(norm, with_step)
        self.TCMs = nn.ModuleList(Group(norm) for _ in range(3))
        self.blend = Blend(inject)

    def run(self, x: Tensor, step: Tensor | None = None, mix: Features | None = None) -> Features:
        """(estimate `b 2 t f`, encoder features, real and imaginary decoder features)."""
        mix_en, mix_real, mix_imag = mix[1:] if mix is not None else (None, None, None)
        x, skips = self.en(x, step, mix_en, self.blend)
        b, c, t, f = x.shape
        h = x.transpose(2, 3).reshape(b, c * f, t)
        for group in self.TCMs:
            h = group(h)
        x = h.reshape(b, c, f, t).transpose(2, 3)
        real, real_features = self.de_real(x, skips, step, mix_real, self.blend)
        imag, imag_features = self.de_imag(x, skips, step, mix_imag, self.blend)
        return torch.cat([real, imag], dim=1), skips, real_features, imag_features


def _time_first(x: Tensor) -> Tensor:
    """`b c f t` -> `b c t f`, the order of the published weights; stored channels-last, where oneDNN is fastest."""
    if x.shape[2] != NUM_BINS:
        raise ValueError(f"tcunet reads {NUM_BINS} bins (n_fft 320), got {x.shape[2]}; set the frontend's n_fft to 320")
    return x.transpose(2, 3).contiguous(memory_format=torch.channels_last)


class Base(Body):
    """Regression: the estimate from x alone; step and condition are not used."""

    def __init__(self, norm: str = "batch") -> None:
        super().__init__(norm, with_step=False)

    def forward(
        self, x: Float[Tensor, "b 2 f t"], t: Float[Tensor, " b"], condition: Condition
    ) -> Float[Tensor, "b 2 f t"]:
        return self.run(_time_first(x))[0].transpose(2, 3)


class Squeeze(nn.Module):
    """x_t and the condition, stacked, to two channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 2, 1)

    def forward(self, stacked: Float[Tensor, "b 4 t f"]) -> Float[Tensor, "b 2 t f"]:
        return self.conv(stacked)


class Conditional(Body):
    """Diffusion: x_t, the condition's signal (layout of x) and the network time -> estimate."""

    def __init__(self, config: TCUNetConfig) -> None:
        super().__init__(config.norm, True, 2 if config.fusion == "squeeze" else 4, config.inject)
        self.config = config
        self.time_embedding = StepEmbedding(config.num_steps)
        if config.fusion == "squeeze":
            self.preprocess = Squeeze()
        if config.wiring == "dual":
            self.c_deliver = Base(config.norm)

    def bind(self, condition: Condition) -> Callable[[Tensor, Tensor], Tensor]:
        """The function (x, t) -> estimate for one condition: what depends on the condition alone is computed here."""
        if condition.signal is None:
            raise ValueError("tcunet concat/dual needs a condition signal in the layout of x; got none")
        signal = condition.signal
        mix = self.c_deliver.run(_time_first(signal)) if self.config.wiring == "dual" else None

        def estimate(x: Tensor, t: Tensor) -> Tensor:
            stacked = _time_first(torch.cat([x, signal.to(x.dtype)], dim=1))
            if self.config.fusion == "squeeze":
                stacked = self.preprocess(stacked)
            step = self.time_embedding(t * self.config.time_scale)
            return self.run(stacked, step, mix)[0].transpose(2, 3)

        return estimate

    def forward(
        self, x: Float[Tensor, "b 2 f t"], t: Float[Tensor, " b"], condition: Condition
    ) -> Float[Tensor, "b 2 f t"]:
        return self.bind(condition)(x, t)
