"""SaShiMi's whole network against outputs of the published code, both generations, with and without a mel.

Outputs within 1e-3 of the largest (complex64 sums in the original); the vectors' JSON allows 2e-3. Every vector runs
twice: over the whole clip (with gradients) and in tiles of 64 samples (without).
"""

import copy
import dataclasses
import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.backbones import sashimi
from fromnoise.backbones.s4 import Kernel, S4Layer, convolve
from fromnoise.backbones.sashimi import Block, Given, Norm, SashimiConfig
from fromnoise.importers.sashimi_fork import names, ours
from fromnoise.types import Condition, InputError
from tests import published
from tests.rules import VECTORS

PUBLISHED = SashimiConfig(
    4, 1, kernel_length=256, mel_upsample=(4, 8), guarded_norm=False, embed_in=32, embed_mid=48, kind="s4_v3"
)
CASES = {
    "sashimi_paper_uncond": dataclasses.replace(PUBLISHED, kind="s4_paper"),
    "sashimi_v3_uncond": PUBLISHED,
    "sashimi_v3_cond": dataclasses.replace(PUBLISHED, mel_bands=80),
}
SHIFTS = {"sashimi_v3_cond": 4.0}
SMALL = SashimiConfig(6, 1, (2, 4), embed_in=8, embed_mid=6, embed_out=5, d_state=8, kernel_length=64)


def arrays_of(name: str) -> dict[str, Tensor]:
    with np.load(VECTORS / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def network_of(name: str, dtype: torch.dtype) -> nn.Module:
    listed = json.loads((VECTORS / f"{name}.json").read_text())["parameters"]
    ruled = published.rule({key: tuple(shape) for key, shape in listed}, SHIFTS.get(name, 0.1))
    state = {key: torch.from_numpy(value) for key, value in ruled}
    state |= {key.removeprefix("param."): value for key, value in arrays_of(name).items() if key.startswith("param.")}
    network = CASES[name].build().to(dtype)
    network.load_state_dict({here: ours(here, state[there]) for here, there in names(vars(CASES[name])).items()})
    return network


def given_of(name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, Condition]:
    arrays = arrays_of(name)
    b, m, w = (torch.arange(float(n), dtype=torch.float64) for n in (2, 80, 8))
    mel = (-2 + 1.5 * torch.sin(0.4 * m[:, None] + 0.9 * w + 0.7 * b[:, None, None])).to(dtype)
    told = Condition(frames=mel if CASES[name].mel_bands else None)
    return arrays["audio"].to(dtype), arrays["steps"][:, 0].to(dtype), told


def error(result: Tensor, expected: Tensor) -> float:
    """The largest deviation over the largest value."""
    return float((result.detach().double() - expected).abs().max() / expected.abs().max())


@pytest.fixture(params=["whole", "tiles"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(sashimi, "TILE_ELEMENTS", 1)
    with torch.set_grad_enabled(request.param == "whole"):
        yield request.param


def drawn(config: SashimiConfig) -> nn.Module:
    """A network in float64 whose last layer is not zero."""
    torch.manual_seed(0)
    network = config.build().double()
    nn.init.normal_(network.final_conv[2].weight)
    return network


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", CASES)
def test_networks_equal_the_published_ones(name, dtype, form):
    arrays, network = arrays_of(name), network_of(name, dtype)
    x, t, told = given_of(name, dtype)
    assert error(network(x, t, told), arrays["out_f32"]) < 1e-3
    seen: dict[str, Tensor] = {}
    network.d_layers[0].register_forward_hook(lambda module, inputs, output: seen.update(block=output))
    network(x, t, told)
    assert error(seen["block"], arrays["block0_out_f32"]) < 1e-3


@pytest.mark.parametrize("name", CASES)
def test_the_first_layers_parts_equal_the_published_ones(name):
    arrays, network = arrays_of(name), network_of(name, torch.float32)
    block = network.d_layers[0]
    x, t, _ = given_of(name, torch.float32)
    entering = block.norm1(network.init_conv(x)) + block.fc_t(network.embed(t))[:, :, None]
    assert error(entering, arrays["s4_0_in_f32"]) < 1e-4
    assert error(block.layer(arrays["s4_0_in_f32"]), arrays["s4_0_out_f32"]) < 1e-3
    if name == "sashimi_paper_uncond":
        assert error(block.layer.kernel(256)[0], arrays["kernel_fwd_f32"]) < 1e-3
        assert error(block.layer.kernel2(256)[0], arrays["kernel_bwd_f32"]) < 1e-3
    else:
        assert error(block.layer.kernel(256), arrays["kernel_f32"]) < 1e-3
        block.layer.kernel.settle()
        assert error(block.layer.kernel.C, arrays["after.d_layers.0.layer.kernel.kernel.C"]) < 1e-3


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (SashimiConfig(128, kind="s4_paper"), 22_964_091),
        (SashimiConfig(64, kind="s4_paper"), 7_480_827),
        (SashimiConfig(128, kind="s4_v3"), 23_470_971),
        (SashimiConfig(64, kind="s4_v3"), 7_734_267),
        (SashimiConfig(32, kind="s4_v3", mel_bands=80), 3_153_459),
        (SashimiConfig(64, kind="s4_v3", mel_bands=80), 8_055_027),
        (SashimiConfig(128, kind="s4_v3", mel_bands=80), 24_106_611),
        (SashimiConfig(128), 22_487_931),  # 22.49 M: v3 without B and P
    ],
    ids=str,
)
def test_sizes_of_the_published_networks(config, parameters):
    with torch.device("meta"):
        network = config.build()
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("kind", ["s4d", "s4_v3"])
def test_without_unet_the_way_down_has_pools_only(kind):
    config = dataclasses.replace(SMALL, n_layers=2, kind=kind)
    whole, short = (dataclasses.replace(config, unet=unet).build() for unet in (True, False))
    down = lambda network: {key for key in network.state_dict() if key.startswith("d_layers.")}  # noqa: E731
    assert {key.split(".")[1] for key in down(whole)} == {"0", "1", "2", "3", "4", "5"}
    assert {key.split(".")[2] for key in down(whole) if key.split(".")[1] in "25"} == {"linear"}
    assert {(key.split(".")[1], key.split(".")[2]) for key in down(short)} == {("0", "linear"), ("1", "linear")}
    assert set(whole.state_dict()) - down(whole) == set(short.state_dict()) - down(short)
    assert sum(isinstance(module, Block) for module in short.modules()) == 6


def test_skips_without_unet():
    """With blocks that pass on what they get, the way down and up is pools and three sums."""
    network = drawn(dataclasses.replace(SMALL, unet=False))
    x, t = torch.randn(1, 1, 16, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for block in [*network.c_layers, network.u_layers[1], network.u_layers[3]]:
        block.forward = lambda x, e, terms: x
    down, up = network.d_layers, [network.u_layers[0], network.u_layers[2]]
    pool = lambda layer, h: layer(h, h, layer.prepare(Given(0, None, None), 0))  # noqa: E731
    with torch.no_grad():
        first = network.init_conv(x)
        second = pool(down[0], first)
        centre = 2 * pool(down[1], second)
        h = pool(up[1], pool(up[0], centre) + second) + first
        expected = network.final_conv(network.norm(h))
        torch.testing.assert_close(network(x, t, Condition()), expected)


def test_pools_fold_samples_into_channels_and_back():
    network = drawn(SMALL)
    layer, x = network.d_layers[1], torch.randn(2, 6, 8, dtype=torch.float64)
    given = Given(8, None, None)
    folded = x.reshape(2, 6, 4, 2).permute(0, 1, 3, 2).reshape(2, 12, 4)  # h p + i
    torch.testing.assert_close(layer(x, x, layer.prepare(given, 1)), layer.linear(folded))
    layer, x = network.u_layers[2], torch.randn(2, 12, 4, dtype=torch.float64)
    wide = layer.linear(x)
    expected = wide.reshape(2, 6, 2, 4).permute(0, 1, 3, 2).reshape(2, 6, 8)
    torch.testing.assert_close(layer(x, x, layer.prepare(given, 1)), expected)


@pytest.mark.parametrize("kind", ["s4d", "s4_paper", "s4_v3"])
@pytest.mark.parametrize("align", ["crop", "pool"])
def test_tiles_change_nothing(kind, align, monkeypatch):
    monkeypatch.setattr(sashimi, "TILE_ELEMENTS", 1)
    config = dataclasses.replace(SMALL, kind=kind, mel_bands=3, mel_upsample=(4, 4), mel_align=align, vector_dim=2)
    network = drawn(dataclasses.replace(config, kernel_length=256))
    draw = lambda *shape: torch.randn(shape, dtype=torch.float64)  # noqa: E731
    x, t, told = draw(2, 1, 150), draw(2), Condition(frames=draw(2, 3, 10), vector=draw(2, 2))
    whole = network(x, t, told).detach()
    with torch.no_grad():
        torch.testing.assert_close(network(x, t, told), whole, rtol=1e-9, atol=1e-10)


def test_a_clip_of_any_length_is_padded_with_zeros_and_cut_back():
    network, x = drawn(SMALL), torch.randn(1, 1, 21, dtype=torch.float64)
    t = torch.zeros(1, dtype=torch.float64)
    with torch.no_grad():
        short, padded = network(x, t, Condition()), network(F.pad(x, (0, 3)), t, Condition())
    assert short.shape == x.shape
    torch.testing.assert_close(short, padded[..., :21])


def test_crop_gives_an_inner_scale_the_beginning_of_the_mel_and_pool_its_average():
    torch.manual_seed(0)
    config = dataclasses.replace(SMALL, mel_bands=3, mel_upsample=(2, 4))
    block = Block(6, 64, config).double()
    mel = torch.randn(1, 3, 4, dtype=torch.float64)
    long = block.mel_conv(block.upsample(mel))
    assert long.shape[-1] == 32
    crop = block.prepare(Given(8, mel, None), 4).added
    torch.testing.assert_close(crop, long[..., :8])
    block.align = "pool"
    pool = block.prepare(Given(8, mel, None), 4).added
    torch.testing.assert_close(pool, long.unflatten(-1, (8, 4)).mean(-1))
    block.align = "crop"  # one position beyond the mel: its last value goes on
    torch.testing.assert_close(block.prepare(Given(34, mel, None), 1).added, F.pad(long, (0, 2), mode="replicate"))


def test_the_class_is_added_where_the_mel_is():
    block = Block(6, 64, dataclasses.replace(SMALL, vector_dim=2)).double()
    vector = torch.randn(3, 2, dtype=torch.float64)
    added = block.prepare(Given(8, None, vector), 1).added
    torch.testing.assert_close(added, block.fc_vector(vector)[:, :, None].expand(3, 6, 8))


def test_a_run_makes_its_filters_once():
    network, calls = drawn(SMALL).eval(), []
    kernels = [module for module in network.modules() if isinstance(module, Kernel)]
    for kernel in kernels:
        kernel.register_forward_hook(lambda *_: calls.append(1))
    x, t = torch.randn(1, 1, 24, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    with torch.no_grad():
        call = network.bind(Condition())
        first, again = call(x, t), call(x, t)
        assert len(calls) == len(kernels) == 5
        call(x[..., :16], t)
        assert len(calls) == 2 * len(kernels)  # another length: other filters
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, call(x, t + 1))


def test_equal_channels_give_nan_in_the_published_norm_and_never_in_the_guarded_one():
    for guarded in (False, True):
        x = torch.ones(1, 4, 3).requires_grad_()
        norm = Norm(guarded)
        y = norm(x)
        y.sum().backward()
        assert bool(torch.isfinite(y).all()) == guarded
        assert bool(torch.isfinite(x.grad).all()) == guarded


def test_silence_and_a_constant_train_a_fresh_network():
    torch.manual_seed(0)
    network = dataclasses.replace(SMALL, mel_bands=0).build()
    nn.init.zeros_(network.init_conv[0].bias)  # silence then gives every channel zero
    nn.init.normal_(network.final_conv[2].weight)
    for value in (0.0, 0.3):
        network(torch.full((1, 1, 32), value), torch.zeros(1), Condition()).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name


def test_the_guard_hardly_changes_a_norm():
    x = torch.randn(1, 64, 10)
    torch.testing.assert_close(Norm(True)(x), Norm(False)(x), rtol=1e-4, atol=1e-5)


def test_a_fresh_network_predicts_zero_and_copies_work():
    network = copy.deepcopy(SMALL.build())
    out = network(torch.randn(2, 1, 16), torch.rand(2), Condition())
    assert out.shape == (2, 1, 16)
    assert not bool(out.any())


def test_bfloat16_autocast_stays_close():
    network = drawn(SMALL).float()
    x, t = torch.randn(1, 1, 32), torch.full((1,), 7.0)
    with torch.no_grad():
        plain = network(x, t, Condition())
        with torch.autocast("cpu", torch.bfloat16):
            low = network(x, t, Condition())
    assert float((low - plain).norm() / plain.norm()) < 0.05  # 8-bit mantissa


def test_two_sided_layers_see_both_ways():
    network = drawn(SMALL)
    layer = network.d_layers[0].layer
    assert isinstance(layer, S4Layer)
    impulse = torch.zeros(1, 6, 32, dtype=torch.float64)
    impulse[..., 16] = 1
    seen = convolve(impulse, layer.response(32)).detach().abs()[0].amin(dim=0)
    assert float(seen[:16].max()) > 1e-4
    assert float(seen[17:].max()) > 1e-4


def test_users_are_told_what_the_condition_lacks():
    x, t = torch.zeros(1, 1, 64), torch.zeros(1)
    network = dataclasses.replace(SMALL, mel_bands=3, mel_upsample=(4, 4)).build()
    with pytest.raises(InputError, match=r"needs mel frames .*got none"):
        network(x, t, Condition())
    with pytest.raises(InputError, match=r"needs mel frames \(batch, 3, frames\), got shape \(1, 4, 4\)"):
        network(x, t, Condition(frames=torch.zeros(1, 4, 4)))
    with pytest.raises(InputError, match="3 frames of 16 samples, too few for a clip of 64"):
        network(x, t, Condition(frames=torch.zeros(1, 3, 3)))
    labelled = dataclasses.replace(SMALL, vector_dim=2).build()
    with pytest.raises(InputError, match=r"needs a condition vector .*got none"):
        labelled(x, t, Condition())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pool": (4, 0)}, "every size at least 1"),
        ({"d_state": 7}, "d_state must be even"),
        ({"pool": (2,) * 20}, "at most 16 pools"),
        ({"kernel_length": 8, "pool": (4, 4)}, "kernel_length 8 is below the product of pool, 16"),
    ],
)
def test_impossible_configurations_say_why(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(SMALL, **change)
