"""The networks that can be measured: one entry of `NETWORKS` each.

An entry builds the network once (`build`, seeded by the caller), makes inputs of a given sound length, and names its
variants: functions from the built network to a callable on those inputs. All variants of one run share the weights of
one build. `plain` is the variant that the others are compared with: eager, in the form in which the paper publishes it.
"""

import dataclasses
import types
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from fromnoise.backbones.crn import CRNConfig
from fromnoise.backbones.tcunet import Encoder, GatedBlock, TCUNetConfig
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


NETWORKS: dict[str, Network] = {
    "standin": Network(_standin, lambda seconds, generator: (_spectrogram(seconds, generator),), COMMON),
    "tcunet": _spectral(TCUNetConfig(wiring="dual"), 100.0, TCUNET),
    "tcunet-base": _spectral(TCUNetConfig(wiring="base"), 100.0, TCUNET),
    "tcunet-concat": _spectral(TCUNetConfig(wiring="concat"), 100.0, TCUNET),
    "crn": _spectral(CRNConfig(), 0.5),
}
