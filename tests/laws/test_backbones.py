"""Laws of every backbone: shape, precision, independence of items, reach; over every member of BACKBONES."""

import dataclasses
import math
from typing import Any

import pytest
import torch

from fromnoise.backbones import (
    BACKBONES,
    CDiffuSEConfig,
    ConvNeXtConfig,
    CRNConfig,
    MaskConvConfig,
    NCSNppConfig,
    SashimiConfig,
    SpectralConfig,
    TCUNetConfig,
    UNet1dConfig,
    WaveNetConfig,
)
from fromnoise.backbones.unet1d_mel import MelUNet1dConfig
from fromnoise.types import Condition

NCSNPP = {"name": "ncsnpp", "bins": 16, "width": 8, "multipliers": [1, 2], "res_blocks": 1, "attention": [8]}
STFT = {"name": "stft", "n_fft": 30, "hop": 8, "padding": "constant", "factor": 0.5}
UNET: dict[str, Any] = {"resnet_groups": 2, "modulation_features": 8, "signal_channels": 1}
PLAIN: dict[str, Any] = {"use_modulation": False, "use_time_conditioning": False}
SMALL = {
    "cdiffuse": [CDiffuSEConfig(3, 2, 6, 4, 3, embed_in=8, embed_mid=6, embed_out=5)],
    "convnext": [
        ConvNeXtConfig(2 * 161, 16, 3, 2, dilation_cycle=2, signal=True),
        ConvNeXtConfig(2 * 161, 16, 2, 2, signal=True, gated=True, fold=2),
    ],
    "crn": [
        CRNConfig(channels=(6, 8), hidden=16, squeeze=8, groups=1, dilations=(1, 2)),
        CRNConfig(conditional=False, timed=False),
    ],
    "maskconv": [MaskConvConfig(10, 2, 8, 3, 2, 3, 2, 2), MaskConvConfig(9, 3, 8, 2, 2, 5, 1, 0)],
    "ncsnpp": [
        NCSNppConfig(16, 6, 4, 8, (1, 2), 1, (8,)),
        NCSNppConfig(12, 4, 2, 8, (1, 1, 2), 1, (), "none", "none", divide="after"),
        NCSNppConfig(8, 4, 2, 8, (1, 2), 2, (8, 4), progressive_input="residual", centered=True, divide="none"),
        NCSNppConfig(8, 2, 2, 6, (2, 1), 1, (), combine="cat", taps=(1, 1), rescale=False, timed=False, divide="none"),
    ],
    "spectral": [
        SpectralConfig(NCSNPP, STFT, 4),
        SpectralConfig({"name": "maskconv", "bins": 16, "width": 8, "layers": 2}, STFT, 1, False),
    ],
    "sashimi": [
        SashimiConfig(4, 1, (2, 2), d_state=4, embed_in=8, embed_mid=6, embed_out=5),
        SashimiConfig(4, 1, (2,), d_state=4, mel_bands=7, mel_upsample=(2, 4), mel_align="pool", vector_dim=3),
        SashimiConfig(4, 1, (2, 2), unet=False, kind="s4_paper", kernel_length=16, d_state=4, guarded_norm=False),
        SashimiConfig(4, 1, (2,), kind="s4_v3", kernel_length=16, d_state=4, mel_bands=7, mel_upsample=(2, 4)),
    ],
    "unet1d": [
        UNet1dConfig(3, 2, 1, (4, 4), (1, 2), (1, 1), (0, 1), skip="added", resnet_groups=4, modulation_features=8),
        UNet1dConfig(1, 2, 0, (4, 8), (2, 3), (1, 2), (0, 1), (1, 1), (0, 3), (0, 1), 2, 2, 6, 4, **UNET, vector_dim=3),
        UNet1dConfig(1, 1, 2, (4,), (2,), (1,), **PLAIN, num_filters=4, window_length=8, stride=4, resnet_groups=2),
        UNet1dConfig(
            1, 2, 0, (4,), (1,), (1,), (), (1,), (), (), 2, 2, 5, 0, **UNET, tied_time=False, skip="concatenated"
        ),
    ],
    "unet1d_mel": [
        MelUNet1dConfig(
            1, 1, 0, (4, 4), (1, 2), (1, 1), **UNET, mel_bands=3, mel_window=8, mel_hop=4, skip="concatenated"
        )
    ],
    "wavenet": [
        WaveNetConfig(8, 6, 4, 3, embed_in=8, embed_mid=6, embed_out=5, residual_includes_step=True),
        WaveNetConfig(8, 8, 4, 3, 7, (3, 4), True, rising_steps=True, weight_norm=False, embed_mid=6, embed_out=5),
        WaveNetConfig(8, 6, 3, 2, 7, (2, 4), embed_in=8, embed_mid=6, embed_out=5, vector_dim=3),
        WaveNetConfig(6, 6, 3, 2, rising_steps=True, weight_norm=False, embed_mid=6, embed_out=5, signal_channels=1),
    ],
    "tcunet": [TCUNetConfig("base"), TCUNetConfig("concat", time_scale=199.0), TCUNetConfig("dual", time_scale=199.0)],
}
CASES = [pytest.param(config, id=str(config)) for configs in SMALL.values() for config in configs]


def randomised(config):
    """The network in float64 with every parameter drawn: fresh zeros would hide a term."""
    network = config.build().double().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        scale = 0.5 / max(1, parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.3
        parameter.data = scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return network


WAVES = (SashimiConfig, WaveNetConfig)
SEE_ALL = (SashimiConfig, NCSNppConfig, MaskConvConfig, SpectralConfig, UNet1dConfig)


def shapes(config, length: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """An item of x and of the condition's signal."""
    match config:
        case NCSNppConfig():
            signal = config.channels_in - config.channels_out
            return (config.channels_out, config.bins, length), (signal, config.bins, length)
        case MaskConvConfig():
            return (2 * config.sources, config.bins, length), (2, config.bins, length)
        case SpectralConfig():
            return (2, length), (1, length)
        case CDiffuSEConfig():
            return (config.sources, length), (config.signals, length)
    return (2, 161, length), (2, 161, length)


def given(config, batch: int, length: int, seed: int = 1):
    """x, t and a condition: waves `b 1 n` with mel frames and a class vector, or x and a signal as `shapes` says."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    t = torch.rand(batch, generator=generator, dtype=torch.float64)
    if isinstance(config, MelUNet1dConfig):
        frames = draw(batch, config.mel_bands, -(-length // config.mel_hop))
        return draw(batch, config.in_channels, length), t, Condition(frames=frames)
    if isinstance(config, UNet1dConfig):
        space, frames = (2,) * (config.dim - 1) + (length,), -(-length // config.frame_hop)
        told = torch.arange(4) < torch.tensor([4, 2, 0])[:batch, None]
        width = config.context_channels[config.inject_depth] if config.inject_depth is not None else 0
        return (
            draw(batch, config.in_channels, *space),
            t,
            Condition(
                signal=draw(batch, config.signal_channels, *space) if config.signal_channels else None,
                frames=draw(batch, width, frames) if width else None,
                context=draw(batch, 4, config.context) if config.context else None,
                mask=told if config.context else None,
                vector=draw(batch, config.vector_dim) if config.vector_dim else None,
            ),
        )
    if not isinstance(config, WAVES):
        state, signal = shapes(config, length)
        return draw(batch, *state), t, Condition(signal=draw(batch, *signal))
    frames = draw(batch, config.mel_bands, -(-length // span(config)))
    signal = isinstance(config, WaveNetConfig) and config.signal_channels
    told = Condition(
        signal=draw(batch, signal, length) if signal else None,
        frames=frames if config.mel_bands else None,
        vector=draw(batch, config.vector_dim) if config.vector_dim else None,
    )
    return draw(batch, 1, length), t, told


def span(config) -> int:
    """Positions of x under the first position of its condition."""
    return math.prod(config.mel_upsample) if isinstance(config, WAVES) and config.mel_bands else 1


def nudged(x):
    """Another value at the first position."""
    changed = x.clone()
    changed[..., 0] += 1
    return changed


def test_every_backbone_is_covered():
    assert set(SMALL) == set(BACKBONES)


@pytest.mark.parametrize("config", CASES)
def test_items_do_not_depend_on_their_batch(config):
    network, (x, t, told) = randomised(config), given(config, 3, 7)
    with torch.no_grad():
        together = network(x, t, told)
        items = [slice(i, i + 1) for i in range(3)]
        alone = torch.cat([network(x[i], t[i], told.map(lambda part, i=i: part[i])) for i in items])
    assert together.shape == (3, getattr(config, "out_channels", 0) or x.shape[1], *x.shape[2:])
    assert float(together.std()) > 0
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("config", [c for c in CASES if not isinstance(c.values[0], SEE_ALL)])
def test_reach_bounds_what_a_frame_sees(config):
    frames = 2 * config.reach + 40 if config.reach < 100 else config.reach + 30
    network, (x, t, told) = randomised(config), given(config, 1, frames)
    other = dataclasses.replace(told.map(nudged), vector=told.vector)  # a vector has no position
    with torch.no_grad():
        before = network(x, t, told)
        after = network(nudged(x), t, other)
    moved = (before - after).abs().flatten(0, -2).amax(dim=0) > 1e-12
    assert bool(moved[0])
    assert not bool(moved[config.reach + span(config) :].any())


@pytest.mark.parametrize("config", CASES)
def test_every_parameter_learns_and_one_frame_is_enough(config):
    network, (x, t, told) = randomised(config).train(), given(config, 2, 1)
    network(x, t, told).square().sum().backward()
    still = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    # published: the last decoder layer of the dual network's condition path is never used
    assert all(name.startswith("c_deliver.de_") and ".de1." in name for name in still), still


CONDITIONAL = [
    SMALL["crn"][0],
    *SMALL["tcunet"][1:],
    *SMALL["ncsnpp"][:3],
    *SMALL["maskconv"],
    *SMALL["cdiffuse"],
    *SMALL["spectral"],
    SMALL["wavenet"][3],
    SMALL["unet1d"][1],
]


@pytest.mark.parametrize("config", CONDITIONAL, ids=str)
def test_conditional_networks_say_what_is_missing(config):
    x, t, _ = given(config, 1, 3)
    with pytest.raises(ValueError, match=r"condition('s)? signal"):
        config.build().double()(x, t, Condition())
