"""The networks that can be measured: one entry of `NETWORKS` each.

An entry builds the network once (`build`, seeded by the caller), makes inputs of a given sound length, and names its
variants: functions from the built network to a callable on those inputs. All variants of one run share the weights of
one build. `plain` is the variant that the others are compared with: eager, in the form in which the paper publishes it.
"""

import dataclasses
import math
import types
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.backbones.crn import CRNConfig
from fromnoise.backbones.ncsnpp import FIR, NCSNpp, NCSNppConfig, ResBlock
from fromnoise.backbones.s4 import S4DKernel
from fromnoise.backbones.sashimi import SashimiConfig
from fromnoise.backbones.tcunet import Encoder, GatedBlock, TCUNetConfig
from fromnoise.backbones.wavenet import WaveNet, WaveNetConfig
from fromnoise.recipes.drdiffuse import diffuse_small
from fromnoise.samplers import PositionNoise
from fromnoise.tasks.enhancement import EnhancementModel
from fromnoise.types import Condition

Inputs = tuple[object, ...]
Forward = Callable[..., Tensor]
Variant = Callable[[nn.Module], Forward]


@dataclasses.dataclass(frozen=True)
class Network:
    """How to build one network and call it. inputs: (seconds of sound, generator) -> the arguments of a call."""

    build: Callable[[], nn.Module]
    inputs: Callable[[float, torch.Generator], Inputs]
    variants: Mapping[str, Variant]
    plain: str = "eager"


def eager(module: nn.Module) -> Forward:
    """The module as it stands."""
    return module


def autocast_bf16(module: nn.Module) -> Forward:
    """Matrix products and convolutions in bfloat16, weights kept in float32."""

    def call(*inputs: object) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return module(*inputs).float()

    return call


def compiled(module: nn.Module) -> Forward:
    """torch.compile for the very shapes of the run. The first call takes a minute; it falls into the warm-up."""
    return torch.compile(module, dynamic=False)


COMMON: dict[str, Variant] = {"eager": eager, "bf16": autocast_bf16, "compile": compiled}


def _standin() -> nn.Module:
    """Three convolutions: enough to try the harness itself."""
    return nn.Sequential(nn.Conv2d(2, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 2, 3, padding=1)).eval()


def _spectrogram(seconds: float, generator: torch.Generator, num_bins: int = 161, hop_seconds: float = 0.01) -> Tensor:
    """A random spectrogram `1 2 f t` of a sound of that length."""
    num_frames = round(seconds / hop_seconds) + 1
    return torch.randn(1, 2, num_bins, num_frames, generator=generator)


def _gated_as_published(block: GatedBlock, x: Tensor) -> Tensor:
    """The gated block layer by layer: two wide convolutions, four of 1x1; a decoder then drops its last frame."""
    h = block.conv1(x)
    left, right = block.l(h), block.r(h)
    out = block.conv2(left * torch.sigmoid(block.r_conv(right)) + right * torch.sigmoid(block.l_conv(left)))
    return out[:, :, :-1] if block.transposed else out


def _channels_first(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0].contiguous(), *inputs[1:])


def tcunet_layer_by_layer(module: nn.Module) -> Forward:
    """Every layer a call of its own, channels first. The condition path's features are kept, as in the library."""
    for block in module.modules():
        if isinstance(block, GatedBlock):
            block.forward = types.MethodType(_gated_as_published, block)
        if isinstance(block, Encoder):
            block.register_forward_pre_hook(_channels_first)
    return module


def tcunet_as_published(module: nn.Module) -> Forward:
    """Layer by layer, and the condition path run anew in every call."""
    plain = tcunet_layer_by_layer(module)
    return lambda x, t, condition: plain(x, t, condition.map(torch.clone))


TCUNET: dict[str, Variant] = {"published": tcunet_as_published, "layers": tcunet_layer_by_layer}


def _spectral(config: TCUNetConfig | CRNConfig, time: float, own: Mapping[str, Variant] | None = None) -> Network:
    """A network that cleans a spectrogram `1 2 161 t`, told the noisy one.

    time: what it receives as network time. own: its variants beside the common ones; the first is the plain one.
    """

    def inputs(seconds: float, generator: torch.Generator) -> Inputs:
        noisy, x = (_spectrogram(seconds, generator) for _ in range(2))
        return x, torch.tensor([time]), Condition(signal=noisy)

    variants = dict(own or {}) | COMMON
    return Network(lambda: config.build().eval(), inputs, variants, plain=next(iter(variants)))


def bound(module: nn.Module) -> Forward:
    """`bind` once per condition, at its first call: the later calls of a run."""
    kept: dict[int, Forward] = {}

    def call(x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        if id(condition) not in kept:
            kept[id(condition)] = module.bind(condition)  # pyright: ignore[reportCallIssue]
        return kept[id(condition)](x, t)

    return call


def bound_bf16(module: nn.Module) -> Forward:
    """`bound` in bfloat16 where the network has such a path."""
    forward = bound(module)

    def call(*inputs: object) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return forward(*inputs).float()

    return call


def diffwave_as_published(module: nn.Module) -> Forward:
    """Convolutions over the whole sound; the mel upsampled and projected anew in every call and every block."""
    assert isinstance(module, WaveNet)
    blocks: list[Any] = list(module.blocks)
    both = [  # lmnt's one convolution C -> 2C for the residual and the skip
        (torch.cat([b.residual.weight, b.skip.weight]), torch.cat([b.residual.bias, b.skip.bias])) for b in blocks
    ]

    def upsampled(upsampler: Any, mel: Tensor) -> Tensor:
        mel = mel[:, None]
        for layer in upsampler.layers:
            mel = F.leaky_relu(layer(mel), 0.4)
        return mel[:, 0]

    def call(x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        mel = condition.frames
        assert mel is not None
        shared = module.upsampler and upsampled(module.upsampler, mel)
        e, h, total = module.embed(t), F.relu(module.input(x)), 0
        for block, (weight, bias) in zip(blocks, both, strict=True):
            u = h + block.step(e)[:, :, None]
            up = upsampled(block.upsampler, mel) if shared is None else shared
            value, gate = (block.dilated(u) + block.mel(up[:, :, : x.shape[-1]])).chunk(2, dim=1)
            residual, skip = F.conv1d(torch.tanh(value) * torch.sigmoid(gate), weight, bias).chunk(2, dim=1)
            h = ((u if module.config.residual_includes_step else h) + residual) * 0.5**0.5
            total = total + skip
        return module.output(F.relu(module.skip(total * len(blocks) ** -0.5)))

    return call


WAVENET: dict[str, Variant] = {
    "published": diffwave_as_published,
    "eager": eager,
    "bound": bound,
    "bf16": bound_bf16,
}
LMNT = WaveNetConfig(mel_bands=80, shared_upsampler=True, rising_steps=True, weight_norm=False)


def six_steps(variant: Variant) -> Variant:
    """Six calls in a row, as the published short schedules have."""

    def of(module: nn.Module) -> Forward:
        def call(x: Tensor, t: Tensor, condition: Condition) -> Tensor:
            forward = variant(module)
            for step in range(6):
                x = x - 0.1 * forward(x, t - 5 * step, condition)
            return x

        return call

    return of


def _diffwave(config: WaveNetConfig, own: Mapping[str, Variant]) -> Network:
    """A vocoder of 22050 Hz sound with hop 256."""

    def inputs(seconds: float, generator: torch.Generator) -> Inputs:
        n = round(22050 * seconds)
        mel = torch.rand(1, 80, n // 256 + 1, generator=generator)
        return torch.randn(1, 1, n, generator=generator), torch.tensor([40.0]), Condition(frames=mel)

    return Network(lambda: config.build().eval(), inputs, own, plain="published")


def direct_kernel(module: nn.Module) -> Forward:
    """S4D's kernel as one sum over a table of all powers, `channels states n`."""
    assert isinstance(module, S4DKernel)
    dtype = torch.complex128 if module.C.dtype == torch.float64 else torch.complex64

    def call(n: int) -> Tensor:
        c, rate = (part.to(dtype) for part in module.system())
        return 2 * torch.einsum("khs,hsn->khn", c, torch.exp(rate[..., None] * torch.arange(n))).real

    return call


SASHIMI: dict[str, Variant] = {"eager": eager, "bound": bound, "bf16": bound_bf16}


def _sashimi(config: SashimiConfig) -> Network:
    """A generator of 16 kHz sound."""

    def inputs(seconds: float, generator: torch.Generator) -> Inputs:
        x = torch.randn(1, 1, round(16000 * seconds), generator=generator)
        return x, torch.tensor([100.0]), Condition()

    return Network(lambda: config.build().eval(), inputs, SASHIMI)


class FIRAsPublished(nn.Module):
    """The filter over every position of every channel alone: with zeros put between them to double, or leaving every
    second one out to halve."""

    def __init__(self, fir: FIR) -> None:
        super().__init__()
        self.length = len(fir.taps)
        self.register_buffer("plane", fir.get_buffer("plane"))

    def filtered(self, x: Tensor, gain: float, before: int, after: int) -> Tensor:
        b, c, f, t = x.shape
        alone = F.pad(x.reshape(b * c, 1, f, t), (before, after, before, after))
        y = F.conv2d(alone, gain * self.get_buffer("plane").flip(-2, -1))
        return y.reshape(b, c, *y.shape[2:])

    def up(self, x: Tensor) -> Tensor:
        b, c, f, t = x.shape
        spread = F.pad(x.reshape(b, c, f, 1, t, 1), (0, 1, 0, 0, 0, 1)).reshape(b, c, 2 * f, 2 * t)
        p = self.length - 2
        return self.filtered(spread, 4, (p + 1) // 2 + 1, p // 2)

    def down(self, x: Tensor) -> Tensor:
        p = self.length - 2
        return self.filtered(x, 1, (p + 1) // 2, p // 2)[:, :, ::2, ::2]


def ncsnpp_as_published(module: nn.Module) -> Forward:
    """Channels first, and resampling by filters over every position, which torch runs channel by channel."""
    assert isinstance(module, NCSNpp)
    fir: Any = FIRAsPublished(module.fir)
    module.fir = fir
    for block in module.modules():
        if isinstance(block, ResBlock) and block.resample is not None:
            block.resample = {"up": fir.up, "down": fir.down}[block.resample.__name__]
    for parameter in module.parameters():
        parameter.data = parameter.data.contiguous()
    module.enter.register_forward_pre_hook(_channels_first)
    return module


def _ncsnpp(config: NCSNppConfig, sample_rate: int) -> Network:
    """A score network over spectrograms of hop 128, frames in a multiple of 64.

    The weights of layers that start at almost nothing are drawn as all others: else much of the network would not show.
    """

    def build() -> nn.Module:
        network = config.build().eval()
        for parameter in network.parameters():
            if parameter.ndim > 1 and float(parameter.detach().abs().max()) < 1e-4:
                nn.init.kaiming_uniform_(parameter, a=math.sqrt(5))
        return network

    def inputs(seconds: float, generator: torch.Generator) -> Inputs:
        frames = 64 * math.ceil(seconds * sample_rate / 128 / 64)
        x = torch.randn(1, config.channels_out, config.bins, frames, generator=generator)
        told = torch.randn(1, config.channels_in - config.channels_out, config.bins, frames, generator=generator)
        return x, torch.tensor([0.5]), Condition(signal=told)

    return Network(build, inputs, {"published": ncsnpp_as_published} | COMMON, plain="published")


class Anew(nn.Module):
    """A network without its `bind`: what depends on the condition alone is computed in every call."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return self.network(x, t, condition)


def guided_run(module: nn.Module) -> Forward:
    """DR-DiffuSE's guided sampler in six steps, from the noisy spectrogram."""
    assert isinstance(module, EnhancementModel)
    return lambda y: module.sample(y, PositionNoise([0]), module.default_run())


def guided_anew(module: nn.Module) -> Forward:
    """The same with the condition path run in every step."""
    assert isinstance(module, EnhancementModel)
    module.denoiser.backbone = Anew(module.denoiser.backbone)
    return guided_run(module)


def guided_as_published(module: nn.Module) -> Forward:
    """The same, and every layer a call of its own."""
    tcunet_layer_by_layer(module)
    return guided_anew(module)


def _drdiffuse_guided() -> Network:
    config = dataclasses.replace(diffuse_small.model_config(), refiner=None)
    variants = {"published": guided_as_published, "anew": guided_anew, "bound": guided_run}
    return Network(
        lambda: EnhancementModel(config).eval(),
        lambda seconds, generator: (_spectrogram(seconds, generator),),
        variants,
        plain="published",
    )


NETWORKS: dict[str, Network] = {
    "standin": Network(_standin, lambda seconds, generator: (_spectrogram(seconds, generator),), COMMON),
    "tcunet": _spectral(TCUNetConfig(wiring="dual"), 100.0, TCUNET),
    "tcunet-base": _spectral(TCUNetConfig(wiring="base"), 100.0, TCUNET),
    "tcunet-concat": _spectral(TCUNetConfig(wiring="concat"), 100.0, TCUNET),
    "drdiffuse-guided": _drdiffuse_guided(),
    "crn": _spectral(CRNConfig(), 0.5),
    "ncsnpp": _ncsnpp(NCSNppConfig(), 8000),
    "wavenet": _diffwave(LMNT, WAVENET),
    "wavenet-philsyn": _diffwave(WaveNetConfig(mel_bands=80, residual_includes_step=True), WAVENET),
    "wavenet-six-steps": _diffwave(
        LMNT,
        {"published": six_steps(diffwave_as_published), "bound": six_steps(bound), "bf16": six_steps(bound_bf16)},
    ),
    "sashimi": _sashimi(SashimiConfig(64)),
    "sashimi-128": _sashimi(SashimiConfig(128)),
    "s4d-kernel": Network(
        lambda: S4DKernel(64),
        lambda seconds, generator: (round(16000 * seconds),),
        {"direct": direct_kernel, "two levels": eager},
        plain="direct",
    ),
}
