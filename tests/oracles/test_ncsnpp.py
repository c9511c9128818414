"""NCSN++ and its layers against outputs of the published codes: DiffSep's, SGMSE+'s three, StoRM's two.

float64: rtol 1e-9 with atol 1e-11, as the vectors' JSON says; float32: rtol 2e-4 with atol 1e-5 of the largest value,
since outputs are divided by t = 0.04 and another order of summation alone moves them by 4e-6. Every network runs twice:
with gradients and without, where it works in place.
"""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.backbones import BACKBONES
from fromnoise.backbones.layers import step_sinusoids
from fromnoise.backbones.ncsnpp import FIR, Attention, NCSNppConfig, ResBlock, TimeEmbedding
from fromnoise.importers import ncsnpp
from fromnoise.types import Condition, InputError, build
from tests.rules import VECTORS

TAPS = [(1, 3, 3, 1), (1, 2, 1), (1, 4, 6, 4, 1), (1, 2, 4, 1)]
TINY = {"bins": 16, "width": 8, "res_blocks": 1}
SGMSE = {**TINY, "channels_in": 4, "channels_out": 2, "centered": True}
STORM = {**TINY, "channels_out": 2, "multipliers": (1, 2), "attention": ()}
CONFIGS = {
    "diffsep_ncsnpp_default": NCSNppConfig(**TINY, multipliers=(1, 2, 2), attention=(8,)),
    "diffsep_ncsnpp_input_residual": NCSNppConfig(
        **TINY, multipliers=(1, 2), attention=(8,), progressive_input="residual", centered=True
    ),
    "diffsep_ncsnpp_none_nofir": NCSNppConfig(
        **TINY,
        multipliers=(1, 2),
        progressive="none",
        progressive_input="none",
        taps=(1, 1),
        centered=True,
        divide="none",
        rescale=False,
    ),
    "diffsep_ncsnpp_three_spk": NCSNppConfig(
        **TINY, channels_in=8, channels_out=6, multipliers=(1, 1, 2), attention=(4,)
    ),
    "sgmse_ncsnpp": NCSNppConfig(**SGMSE, multipliers=(1, 2, 2), attention=(8,)),
    "sgmse_ncsnpp_v2": NCSNppConfig(**SGMSE, multipliers=(1, 2), attention=(8,), divide="none"),
    "sgmse_ncsnpp_48k": NCSNppConfig(
        **SGMSE, multipliers=(1, 2), attention=(), progressive="none", progressive_input="none", divide="after"
    ),
}
STORM_DENOISER = NCSNppConfig(**STORM, channels_in=2, divide="none", timed=False)
STORM_SCORE = NCSNppConfig(**STORM)
DTYPES = pytest.mark.parametrize(("dtype", "suffix"), [(torch.float64, "f64"), (torch.float32, "f32")])


@pytest.fixture(params=["gradients", "in place"])
def form(request):
    with torch.set_grad_enabled(request.param == "gradients"):
        yield request.param


def arrays_of(name: str) -> dict[str, Tensor]:
    """The arrays of a vector; complex ones as `... c f t` with re and im of a channel side by side."""
    with np.load(VECTORS / f"{name}.npz") as file:
        return {key: pairs(torch.from_numpy(file[key])) for key in file.files}


def pairs(x: Tensor) -> Tensor:
    return torch.view_as_real(x).movedim(-1, 2).flatten(1, 2) if x.is_complex() else x


def weights_of(name: str, *inside: str) -> dict[str, Tensor]:
    """offset + scale a sin(b k + c i), float64; `inside`: the network's or layer's place in the JSON."""
    rule = json.loads((VECTORS / f"{name}.json").read_text())["weights"]
    for key in inside:
        rule = rule[key]
    found = {}
    for key, shape, i, offset, scale in rule["parameters"]:
        wave = rule["a"] * np.sin(rule["b"] * np.arange(math.prod(shape)) + rule["c"] * i)
        found[key] = torch.from_numpy(offset + scale * wave).reshape(shape)
    return found


def network_of(config: NCSNppConfig, weights: dict[str, Tensor], dtype: torch.dtype = torch.float64) -> nn.Module:
    network = config.build().to(dtype)
    network.load_state_dict(ncsnpp.to_ours(weights, config))
    return network


def assert_published(actual: Tensor, expected: Tensor) -> None:
    assert actual.dtype == expected.dtype
    rtol, atol = (1e-9, 1e-11) if expected.dtype == torch.float64 else (2e-4, 1e-5 * float(expected.abs().max()))
    torch.testing.assert_close(actual.detach(), expected, rtol=rtol, atol=atol)


@DTYPES
@pytest.mark.parametrize("name", CONFIGS)
def test_network(name, dtype, suffix, form):
    arrays, config = arrays_of(name), CONFIGS[name]
    network = network_of(config, weights_of(name), dtype)
    if name.startswith("diffsep"):  # the weights here are not permuted, so the channels are taken as they come
        x, told = arrays["in_x"].split([config.channels_out, config.channels_in - config.channels_out], dim=1)
        t = arrays["in_time_cond"]
    else:
        x, told, t = arrays["in_x"], arrays["in_y"], arrays["in_t"]
    out = network(x.to(dtype), t.to(dtype), Condition(signal=told.to(dtype)))
    assert_published(out, arrays[f"out_{suffix}"])


def test_storm_denoiser_and_score_network(form):
    arrays = arrays_of("storm_networks_and_regeneration")
    denoiser = network_of(STORM_DENOISER, weights_of("storm_networks_and_regeneration", "denoiser_net"))
    score = network_of(STORM_SCORE, weights_of("storm_networks_and_regeneration", "score_net"))
    y = arrays["in_y"]
    denoised = denoiser(y, torch.zeros(2, dtype=y.dtype), Condition(signal=y))
    assert_published(denoised, arrays["denoised"])
    told = Condition(signal=torch.cat([y, arrays["denoised"]], dim=1))
    assert_published(-score(arrays["x_t"], arrays["in_t"], told), arrays["score"])


def test_three_speakers_in_the_published_channel_order(form):
    """DiffSep's order of channels, real parts first: the permuted weights give the permuted output."""
    name = "diffsep_ncsnpp_three_spk"
    arrays, config = arrays_of(name), CONFIGS[name]
    network = config.build().double()
    network.load_state_dict(ncsnpp.to_ours(weights_of(name), config, stacked=True))
    given = arrays["in_x"].unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2)  # re_0 im_0 re_1 ...
    out = network(given[:, :6], arrays["in_time_cond"], Condition(signal=given[:, 6:]))
    assert_published(out.unflatten(1, (3, 2)).transpose(1, 2).flatten(1, 2), arrays["out_f64"])


@pytest.mark.parametrize("number", range(4))
def test_fir_resampling(number):
    arrays, fir = arrays_of("diffsep_fir_resampling"), FIR(TAPS[number]).double()
    for key, x in (("", arrays["in_x"]), ("odd_", arrays["in_x_odd"])):
        assert_published(fir.up(x), arrays[f"up_{key}k{number}"])
        assert_published(fir.down(x), arrays[f"down_{key}k{number}"])


def test_fir_with_a_strided_convolution_and_with_a_gain():
    arrays, fir = arrays_of("diffsep_fir_resampling"), FIR().double()
    conv = nn.Conv2d(3, 4, 3, bias=False).double()
    conv.weight.data = arrays["in_conv_weight"]
    assert_published(fir.conv_down(arrays["in_x"], conv), arrays["conv_down_k0"])
    assert_published(2 * fir.up(arrays["in_x"]), arrays["up_gain2_k0"])


def test_taps_of_two_ones_are_the_mean_and_repetition():
    arrays, fir = arrays_of("diffsep_fir_resampling"), FIR((1, 1)).double()
    assert_published(fir.up(arrays["in_x"]), arrays["naive_up"])
    assert_published(fir.down(arrays["in_x"]), arrays["naive_down"])


def loaded(layer: nn.Module, key: str, names: dict[str, str]) -> nn.Module:
    """A layer with the published weights of a block; a NIN's W is `in out`, a 1x1 convolution's weight `out in 1 1`."""
    state = layer.double().state_dict()
    for name, value in weights_of("ncsnpp_blocks", key).items():
        module, _, kind = name.rpartition(".")
        own = f"{names[module]}.{ {'W': 'weight', 'b': 'bias'}.get(kind, kind) }"
        state[own] = (value.T if kind == "W" else value).reshape(state[own].shape)
    layer.load_state_dict(state)
    return layer


BLOCK_NAMES = {
    "GroupNorm_0": "norm1",
    "Conv_0": "conv1",
    "Dense_0": "time",
    "GroupNorm_1": "norm2",
    "Conv_1": "conv2",
    "Conv_2": "shortcut",
    "NIN_0": "shortcut",
}


@pytest.mark.parametrize(
    ("key", "num_out", "resample", "rescale"),
    [
        ("biggan_same", 8, None, True),
        ("biggan_chg", 16, None, True),
        ("biggan_down", 8, "down", True),
        ("biggan_up", 8, "up", True),
        ("biggan_noskiprescale", 8, None, False),
        ("ddpm_chg", 16, None, True),  # no network of the papers has it; the same map with a NIN as its shortcut
    ],
)
def test_residual_block(key, num_out, resample, rescale):
    arrays = arrays_of("ncsnpp_blocks")
    block = loaded(ResBlock(8, num_out, 32, FIR(), resample, rescale), key, BLOCK_NAMES)
    assert_published(block(arrays["in_h"], F.silu(arrays["in_temb"])), arrays[key])


@pytest.mark.parametrize(("key", "rescale"), [("attn", True), ("attn_noskip", False)])
def test_attention(key, rescale):
    arrays, attention = arrays_of("ncsnpp_blocks"), Attention(8, rescale).double()
    weights = weights_of("ncsnpp_blocks", key)
    attention.norm.load_state_dict({kind: weights[f"GroupNorm_0.{kind}"] for kind in ("weight", "bias")})
    attention.out.load_state_dict({"weight": weights["NIN_3.W"].T, "bias": weights["NIN_3.b"]})
    weight, bias = (torch.cat([weights[f"NIN_{i}.{kind}"].t() for i in range(3)]) for kind in "Wb")
    attention.qkv.load_state_dict({"weight": weight, "bias": bias})
    assert_published(attention(arrays["in_h"]), arrays[key])


def test_what_joins_the_levels_with_the_input():
    arrays, join = arrays_of("ncsnpp_blocks"), nn.Conv2d(4, 8, 1).double()
    weights = weights_of("ncsnpp_blocks", "combine_sum")
    join.load_state_dict({key.removeprefix("Conv_0."): value for key, value in weights.items()})
    joined, h = join(arrays["in_pyr"]), arrays["in_h"]
    assert_published(joined + h, arrays["combine_sum"])
    assert_published(torch.cat([joined, h], dim=1), arrays["combine_cat"])
    strided = nn.Conv2d(8, 16, 3).double()
    weights = weights_of("ncsnpp_blocks", "downsample_conv")
    strided.load_state_dict({key.removeprefix("Conv2d_0."): value for key, value in weights.items()})
    assert_published(FIR().double().conv_down(h, strided), arrays["downsample_conv"])


def test_time_layers():
    """The sinusoids of a step (no network of the papers has them) are those of `layers`, the ninth column zero."""
    arrays = arrays_of("ncsnpp_blocks")
    embed = TimeEmbedding(6).double()
    embed.frequencies.data = weights_of("ncsnpp_blocks", "gfp")["W"]
    assert_published(embed.sinusoids(arrays["in_t"].log()), arrays["gfp"])
    positions = F.pad(step_sinusoids(torch.tensor([0.0, 3.0, 11.5]), 8), (0, 1))
    torch.testing.assert_close(positions, arrays["timestep_embedding"], rtol=1e-6, atol=1e-6)


PUBLISHED = {"channels_in": 4, "channels_out": 2}
FULL_48K = {"bins": 768, "attention": (), "progressive": "none", "progressive_input": "none", "divide": "after"}
FULL_STORM = {"channels_out": 2, "res_blocks": 1, "attention": ()}
COUNTS = [
    ({"width": 64}, 16_456_390),
    ({}, 65_623_366),
    ({"channels_in": 8, "channels_out": 6}, 65_655_918),
    (PUBLISHED, 65_590_822),
    (PUBLISHED | FULL_48K, 64_739_854),
    (FULL_STORM | {"multipliers": (1, 2, 2, 2)}, 27_776_038),
    (FULL_STORM | {"channels_in": 4, "width": 96, "multipliers": (1, 2, 2, 1)}, 11_675_546),
    (FULL_STORM | {"channels_in": 4, "width": 96, "multipliers": (1, 1, 1, 1)}, 5_216_762),
    (FULL_STORM | {"channels_in": 2, "multipliers": (1, 2, 2, 2), "timed": False}, 27_342_350),
]


@pytest.mark.parametrize(("fields", "count"), COUNTS)
def test_parameter_counts_are_the_published_ones(fields, count):
    """Of the published entries, those that nothing reads included; ours are fewer only without time."""
    config = NCSNppConfig(**fields)
    assert sum(math.prod(entry.shape) for entry in ncsnpp.entries(config)) == count
    with torch.device("meta"):
        own = sum(p.numel() for p in config.build().parameters())
    assert own == count if config.timed else own < count


KEYS = [
    ("keys_diffsep_icassp_separation", "score_model.backbone.", {}),
    ("keys_sgmse_ncsnpp", "dnn.", PUBLISHED),
    ("keys_sgmse_ncsnpp_v2", "dnn.", PUBLISHED | {"divide": "none"}),
    ("keys_sgmse_ncsnpp_48k", "dnn.", PUBLISHED | FULL_48K),
    ("keys_storm_regen", "score_net.", FULL_STORM | {"multipliers": (1, 2, 2, 2)}),
    (
        "keys_storm_regen",
        "denoiser_net.",
        FULL_STORM | {"channels_in": 2, "multipliers": (1, 2, 2, 2), "timed": False},
    ),
]


def config_of(state: dict[str, Tensor], publication: NCSNppConfig) -> NCSNppConfig:
    """The sizes that the entries tell, the rest from the publication's configuration."""
    rest = {key: getattr(publication, key) for key in ("taps", "centered", "divide", "rescale")}
    return build("backbone", BACKBONES, {"name": "ncsnpp"} | ncsnpp.sizes_of(state, publication.bins) | rest)


def published_entries(name: str, prefix: str) -> list[tuple[str, tuple[int, ...]]]:
    listed = json.loads((VECTORS / f"{name}.json").read_text())["state_dict_in_module_order"]
    return [(key.removeprefix(prefix), tuple(shape)) for key, shape in listed if key.startswith(prefix)]


@pytest.mark.parametrize(("name", "prefix", "fields"), KEYS)
def test_published_names_shapes_and_order(name, prefix, fields):
    config = NCSNppConfig(**fields)
    listed = published_entries(name, prefix)
    assert [(entry.name, entry.shape) for entry in ncsnpp.entries(config)] == listed
    state = {key: torch.empty(shape, device="meta") for key, shape in listed}
    with torch.device("meta"):
        network = config.build()
    network.load_state_dict(ncsnpp.to_ours(state, config), assign=True)
    assert config_of(state, config) == config


SHAPES = [
    *CONFIGS.values(),
    STORM_DENOISER,
    NCSNppConfig(**TINY, multipliers=(1, 2, 1), attention=(16, 4), combine="cat"),
    NCSNppConfig(**TINY | {"res_blocks": 2}, multipliers=(2,), attention=(16,), progressive_input="none"),
    NCSNppConfig(**TINY | {"res_blocks": 2}, multipliers=(1, 2), attention=(8,), progressive_input="none"),
]


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("config", SHAPES, ids=str)
def test_names_go_both_ways_and_tell_the_sizes(config, stacked):
    own = config.build().state_dict()
    published = ncsnpp.to_published(own, config, stacked)
    back = ncsnpp.to_ours(published, config, stacked)
    assert back.keys() == own.keys()
    assert all(torch.equal(back[key], own[key]) for key in own)
    assert dataclasses.replace(config_of(published, config), progressive=config.progressive) == config


def test_another_networks_entries_are_refused():
    config = SHAPES[0]
    published = ncsnpp.to_published(config.build().state_dict(), config)
    lacking = {key: value for key, value in published.items() if "all_modules.7" not in key}
    with pytest.raises(InputError, match=r"lacks \d+ entries, e.g. 'all_modules.7"):
        ncsnpp.to_ours(lacking, config)
    with pytest.raises(InputError, match="has 1 entries"):
        ncsnpp.to_ours(published | {"more": torch.zeros(1)}, config)
    with pytest.raises(InputError, match=r"shape \[2\], expected \[8\]"):
        ncsnpp.to_ours(published | {"all_modules.0.W": torch.zeros(2)}, config)
    w = {"all_modules.0.W": torch.zeros(2)}
    for state in ({}, w, {"residual": torch.zeros(1)}, w | {"all_modules.1.Conv_1.weight": torch.zeros(2, 2, 3, 3)}):
        with pytest.raises(InputError, match=r"not those of an NCSN|lacks the entry 'Conv_0.weight'"):
            ncsnpp.sizes_of(state)
