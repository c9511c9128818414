"""DiffWave's network and its layers against outputs of the published codes, philsyn's and lmnt's.

float64: rtol 1e-9 with atol 1e-10; float32: rtol 1e-4 with atol 1e-5, as the vectors' JSON says. Every case runs twice:
as convolutions (with gradients) and in tiles (without).
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

from fromnoise.backbones import tiled, wavenet
from fromnoise.backbones.layers import MelUpsampler, StepEmbedding, fold_weight_norm, normed_conv1d, step_sinusoids
from fromnoise.backbones.wavenet import WaveNetConfig
from fromnoise.types import Condition
from tests import published
from tests.rules import VECTORS

SMALL_STEPS = {"embed_in": 16, "embed_mid": 24, "embed_out": 20}
PHILSYN = {
    "philsyn_vocoder_wavenet": WaveNetConfig(8, 6, 5, 3, mel_bands=80, **SMALL_STEPS),
    "philsyn_uncond_wavenet": WaveNetConfig(8, 8, 6, 4, embed_mid=64, embed_out=48),
}
PLAIN_LAYERS = {"weight_norm": False, "rising_steps": True, "shared_upsampler": True}
LMNT = {
    "lmnt_diffwave_cond": WaveNetConfig(8, 8, 5, 3, mel_bands=6, **PLAIN_LAYERS),
    "lmnt_diffwave_uncond": WaveNetConfig(8, 8, 5, 3, **PLAIN_LAYERS),
}
PHILSYN_NAMES = {
    "init_conv.0.conv": "input",
    "final_conv.0.conv": "skip",
    "final_conv.2.conv": "output",
    "residual_layer.fc_t": "embed.",
    "embed.1": "embed.first",
    "embed.2": "embed.second",
    "residual_layer.residual_blocks": "blocks",
    "dilated_conv_layer.conv": "dilated",
    "fc_t": "step",
    "upsample_conv2d": "upsampler.layers",
    "mel_conv.conv": "mel",
    "res_conv": "residual",
    "skip_conv": "skip",
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
}
LMNT_NAMES = {
    "input_projection": "input",
    "skip_projection": "skip",
    "diffusion_embedding.projection1": "embed.first",
    "diffusion_embedding.projection2": "embed.second",
    "spectrogram_upsampler.conv1": "upsampler.layers.0",
    "spectrogram_upsampler.conv2": "upsampler.layers.1",
    "residual_layers": "blocks",
    "dilated_conv": "dilated",
    "diffusion_projection": "step",
    "conditioner_projection": "mel",
    "output_projection": "output",
}


def arrays_of(name: str) -> dict[str, Tensor]:
    with np.load(VECTORS / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def renamed(key: str, names: dict[str, str]) -> str:
    for there, here in names.items():
        key = key.replace(there, here)
    return key


def network_of(name: str, config: WaveNetConfig, dtype: torch.dtype) -> nn.Module:
    """The published weights of a vector; lmnt's gate halves swapped, its C -> 2C output convolutions split."""
    shapes = {key: tuple(shape) for key, shape in json.loads((VECTORS / f"{name}.json").read_text())["parameters"]}
    names, state = PHILSYN_NAMES if name in PHILSYN else LMNT_NAMES, {}
    for key, array in published.rule(shapes):
        own, value = renamed(key, names), torch.from_numpy(array)
        if name in PHILSYN:
            state[own] = value
        elif own.startswith("blocks.") and ".output." in own:
            state[own.replace("output", "residual")], state[own.replace("output", "skip")] = value.chunk(2)
        else:
            swap = ".dilated." in own or ".mel." in own
            state[own] = torch.cat(value.chunk(2)[::-1]) if swap else value
    network = config.build().to(dtype)
    network.load_state_dict({key: value.to(dtype) for key, value in state.items()})
    return network


@pytest.fixture(params=["convolutions", "tiles"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The network's two forms; tiles of 128 samples, so that there are several, the last of them shorter."""
    monkeypatch.setattr(tiled, "TILE_VALUES", 1)
    with torch.set_grad_enabled(request.param == "convolutions"):
        yield request.param


def assert_published(result: Tensor, expected: Tensor) -> None:
    assert result.dtype == expected.dtype
    rtol, atol = (1e-9, 1e-10) if result.dtype == torch.float64 else (1e-4, 1e-5)
    torch.testing.assert_close(result.detach(), expected, rtol=rtol, atol=atol)


DTYPES = pytest.mark.parametrize(("dtype", "suffix"), [(torch.float64, "f64"), (torch.float32, "f32")])


@DTYPES
@pytest.mark.parametrize(("includes", "which"), [(True, "inplace"), (False, "fixed")])
@pytest.mark.parametrize("name", PHILSYN)
def test_philsyn_with_and_without_the_in_place_step(name, includes, which, dtype, suffix, form):
    config, arrays = dataclasses.replace(PHILSYN[name], residual_includes_step=includes), arrays_of(name)
    b, m, w = (torch.arange(float(n), dtype=torch.float64) for n in (2, 80, 3))
    mel = -2 + 1.5 * torch.sin(0.4 * m[:, None] + 0.9 * w + 0.7 * b[:, None, None])
    told = Condition(frames=mel.to(dtype)) if config.mel_bands else Condition()
    x, steps = arrays["audio"].to(dtype), arrays["steps"][:, 0].to(dtype)
    assert_published(network_of(name, config, dtype)(x, steps, told), arrays[f"out_{which}_{suffix}"])


@DTYPES
def test_lmnt_with_whole_and_fractional_steps(dtype, suffix, form):
    arrays = arrays_of("lmnt_diffwave_cond")
    network = network_of("lmnt_diffwave_cond", LMNT["lmnt_diffwave_cond"], dtype)
    call = network.bind(Condition(frames=arrays["mel"].to(dtype)))
    x = arrays["audio"][:, None].to(dtype)
    assert_published(call(x, arrays["steps_int"].to(dtype)), arrays[f"out_int_{suffix}"])
    assert_published(call(x, arrays["step_fractional"].to(dtype).expand(2)), arrays[f"out_frac_{suffix}"])


@DTYPES
def test_lmnt_without_mel(dtype, suffix, form):
    arrays = arrays_of("lmnt_diffwave_uncond")
    network = network_of("lmnt_diffwave_uncond", LMNT["lmnt_diffwave_uncond"], dtype)
    x, steps = arrays["audio"][:, None].to(dtype), arrays["steps_int"].to(dtype)
    assert_published(network(x, steps, Condition()), arrays[f"out_{suffix}"])


def test_lmnt_upsampler_and_step_layers():
    arrays = arrays_of("lmnt_diffwave_cond")
    network = network_of("lmnt_diffwave_cond", LMNT["lmnt_diffwave_cond"], torch.float64)
    assert_published(network.upsampler(arrays["mel"])[..., :64], arrays["mel_up_f64"])
    assert_published(network.embed(arrays["steps_int"].double()), arrays["step_emb_f64"])


def test_step_sinusoids_falling_and_rising():
    """1e-5, where the float32 arguments are formed as the published code does; exact arithmetic is 0.1 off."""
    arrays = arrays_of("diffusion_process")
    steps = arrays["emb_t"][:, 0].float()
    torch.testing.assert_close(step_sinusoids(steps, 128), arrays["emb_philsyn"], rtol=0, atol=1e-5)
    torch.testing.assert_close(step_sinusoids(steps, 128, rising=True), arrays["emb_lmnt"], rtol=0, atol=1e-5)
    between = step_sinusoids(torch.tensor([3.25]), 128, rising=True)
    torch.testing.assert_close(between, arrays["emb_lmnt_frac"], rtol=0, atol=1e-5)
    table = arrays_of("lmnt_diffwave_cond")["embedding_table_f32"]
    torch.testing.assert_close(step_sinusoids(torch.arange(50.0), 128, rising=True), table, rtol=0, atol=1e-5)
    few = arrays_of("philsyn_vocoder_wavenet")
    torch.testing.assert_close(step_sinusoids(few["steps"][:, 0], 16), few["step_sinusoid_f64"], rtol=0, atol=1e-12)


def test_rising_steps_are_rounded_to_float32_in_every_dtype():
    steps = torch.tensor([49.0, 7.5, 120.25], dtype=torch.float64)
    double = StepEmbedding(rising=True).double()
    torch.manual_seed(0)
    single = copy.deepcopy(double).float()
    torch.testing.assert_close(double(steps).float(), single(steps.float()), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(double(steps)[1:2], double(steps[1:2]), rtol=1e-12, atol=1e-12)  # item by item


BASE = {"mel_bands": 80}
LARGE = {"residual_channels": 128, "skip_channels": 128}
WIDE = {"residual_channels": 256, "skip_channels": 256, "num_layers": 36, "dilation_cycle": 12}
PLAIN = {"weight_norm": False, "shared_upsampler": True}


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        (BASE, 2_637_305),
        (BASE | LARGE, 6_914_297),
        (WIDE, 24_071_681),
        (LARGE | {"skip_channels": 256}, 6_827_393),
        (LARGE, 6_278_657),
        (LARGE | {"num_layers": 48}, 9_838_337),
        (PLAIN | BASE, 2_619_971),
        (PLAIN | BASE | LARGE, 6_885_315),
        (PLAIN, 2_308_737),
        (PLAIN | WIDE, 24_034_305),
        (WIDE | {"vector_dim": 128}, 24_071_681 + 36 * 512 * 129),  # with the table of 10 x 128: the paper's 26.5 M
    ],
)
def test_parameter_counts_are_the_published_ones(fields, count):
    with torch.device("meta"):
        network = WaveNetConfig(**fields).build()
    assert sum(p.numel() for p in network.parameters()) == count


def drawn(config: WaveNetConfig, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Weights of which none is zero."""
    torch.manual_seed(0)
    network = config.build().to(dtype)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        nn.init.normal_(network.output.weight)
    return network


VOCODER = WaveNetConfig(16, 12, 12, 10, 5, (4, 8), **SMALL_STEPS)


@pytest.mark.parametrize("shared", [True, False])
def test_tiles_equal_convolutions_across_their_seams(shared, monkeypatch):
    """Dilations up to 512 over tiles of 128 samples; float32 to 1e-5 of the output's spread."""
    monkeypatch.setattr(tiled, "TILE_VALUES", 1)
    config = WaveNetConfig(16, 12, 12, 10, 5, (4, 8), shared, vector_dim=3, **SMALL_STEPS)
    network = drawn(config, torch.float32)
    x, t = torch.randn(2, 1, 1501), torch.tensor([3.5, 41.0])
    told = Condition(frames=torch.randn(2, 5, 47), vector=torch.randn(2, 3))
    with torch.inference_mode():
        tiles = network(x, t, told)
    plain = network(x, t, told).detach()
    spread = float(plain.std())
    assert spread > 0.01
    torch.testing.assert_close(tiles, plain, rtol=1e-5, atol=1e-5 * spread)


def test_the_mel_is_upsampled_once_a_run_and_serves_any_number_of_items(form):
    network = drawn(VOCODER)
    calls = []
    network.blocks[3].upsampler.register_forward_hook(lambda *_: calls.append(1))
    mel, x, t = torch.randn(1, 5, 4).double(), torch.randn(3, 1, 128).double(), torch.tensor([0.0, 4.0, 9.0]).double()
    call = network.bind(Condition(frames=mel))
    results = [call(x, t), call(x, t)]
    assert len(calls) == (1 if form == "tiles" else 2)
    for i in range(3):
        alone = network(x[i : i + 1], t[i : i + 1], Condition(frames=mel))
        torch.testing.assert_close(results[1][i : i + 1], alone, rtol=1e-10, atol=1e-12)


def test_beyond_the_cache_the_mel_terms_are_made_anew(monkeypatch):
    network = drawn(VOCODER)
    mel, x, t = torch.randn(2, 5, 40).double(), torch.randn(2, 1, 1200).double(), torch.tensor([2.0, 5.0]).double()
    with torch.inference_mode():
        kept = network(x, t, Condition(frames=mel))
        monkeypatch.setattr(wavenet, "CACHE_BYTES", 1000)
        calls = []
        network.blocks[3].upsampler.register_forward_hook(lambda *_: calls.append(1))
        call = network.bind(Condition(frames=mel))
        made = [call(x, t), call(x, t)]
    assert len(calls) == 2
    assert all(torch.equal(kept, result) for result in made)


@pytest.mark.parametrize("factors", [(16, 16), (3, 4), (11, 25), (2,)])
@pytest.mark.parametrize("weight_norm", [True, False])
def test_upsampler_is_the_published_transposed_convolution(factors, weight_norm):
    upsampler = MelUpsampler(factors, weight_norm).double()
    mel = torch.randn(2, 6, 4, dtype=torch.float64)
    expected = mel[:, None]
    for layer in upsampler.layers:
        expected = F.leaky_relu(layer(expected), 0.4)
    torch.testing.assert_close(upsampler(mel), expected[:, 0], rtol=1e-12, atol=1e-14)


def test_folded_weight_norm_gives_the_plain_network_of_the_same_map():
    network, config = drawn(VOCODER), dataclasses.replace(VOCODER, weight_norm=False)
    mel, x, t = torch.randn(1, 5, 4).double(), torch.randn(1, 1, 100).double(), torch.tensor([7.0]).double()
    before = network(x, t, Condition(frames=mel))
    plain = config.build().double()
    plain.load_state_dict(fold_weight_norm(copy.deepcopy(network)).state_dict())
    torch.testing.assert_close(plain(x, t, Condition(frames=mel)), before, rtol=1e-12, atol=1e-13)


def test_weight_norm_is_over_all_axes_but_the_first():
    conv = normed_conv1d(3, 4, 5, dilation=2)
    gain, direction = conv.parametrizations.weight.original0, conv.parametrizations.weight.original1
    assert gain.shape == (4, 1, 1)
    torch.testing.assert_close(conv.weight, gain * direction / direction.flatten(1).norm(dim=1)[:, None, None])
    assert conv(torch.randn(1, 3, 20)).shape == (1, 4, 20)


def test_fresh_network_gives_zero_and_its_last_residual_stays(form):
    network = WaveNetConfig(8, 8, 2, 2).build()
    assert not network(torch.randn(1, 1, 50), torch.tensor([3.0]), Condition()).any()
    assert "blocks.1.residual.bias" in network.state_dict()
    still = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    assert still and all(name.startswith("blocks.1.residual.") for name in still)


def test_what_is_missing_or_does_not_fit_is_said():
    network = drawn(WaveNetConfig(8, 8, 2, 2, 5, (2, 4), vector_dim=3), torch.float32)
    x, t, mel, label = torch.randn(2, 1, 16), torch.zeros(2), torch.randn(2, 5, 2), torch.randn(2, 3)
    cases = [
        (Condition(vector=label), "condition's frames"),
        (Condition(frames=mel), "condition's vector"),
        (Condition(frames=mel.mT, vector=label), r"\(batch, 5, frames\)"),
        (Condition(frames=mel, vector=label[:, :2]), r"\(batch, 3\)"),
        (Condition(frames=mel[..., :1], vector=label), "1 mel frames serve 8 samples, got 16"),
        (Condition(frames=torch.randn(3, 5, 2), vector=label), "the same items, got 3 and 2"),
        (Condition(frames=torch.randn(3, 5, 2), vector=label[:1]), "a mel of one item or of all 2"),
        (Condition(frames=mel[:1], vector=torch.randn(3, 3)), "a vector of one item or of all 2"),
    ]
    for told, words in cases:
        for grad in (True, False):
            with torch.set_grad_enabled(grad), pytest.raises(ValueError, match=words):
                network(x, t, told)


@pytest.mark.parametrize(
    "fields",
    [
        {"residual_channels": 0},
        {"dilation_cycle": 25},
        {"num_layers": 2000},
        {"embed_in": 7},
        {"mel_bands": 3, "mel_upsample": ()},
        {"mel_bands": -1},
        {"skip_channels": 10**6},
    ],
)
def test_sizes_that_cannot_be_are_refused(fields):
    with pytest.raises(ValueError, match="wavenet: expected"):
        WaveNetConfig(**fields)
