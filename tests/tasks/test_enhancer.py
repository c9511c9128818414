"""The enhancer in Python: kinds, shapes, rates and levels stay; a result depends on its own sound and seed alone."""

import dataclasses

import numpy as np
import pytest
import torch

from fromnoise import hub
from fromnoise.backbones import BACKBONES, CRNConfig
from fromnoise.samplers import PositionNoise
from fromnoise.tasks import EnhancementConfig, Enhancer
from fromnoise.tasks.chunked import Level
from fromnoise.tasks.enhancement import EnhancementModel
from fromnoise.types import Condition, InputError

LEVEL = Level(np.array([0.4]), np.array([0.1]))


def sound(*shape: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


@pytest.fixture(scope="module")
def regression(tiny_models) -> Enhancer:
    return hub.load(tiny_models["regression"])


@pytest.fixture(scope="module")
def bridge(tiny_models) -> Enhancer:
    return hub.load(tiny_models["bridge"])


@pytest.mark.parametrize("shape", [(5000,), (1, 5000), (2, 5001), (8, 1600), (1,), (2, 1)])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_shape_stays_at_every_rate(regression, shape, rate):
    result = regression(sound(*shape), rate)
    assert result.shape == shape
    assert np.isfinite(result).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numpy_in_numpy_out_of_the_same_kind(regression, dtype):
    wave = sound(2, 3000).astype(dtype)
    kept = wave.copy()
    result = regression(wave, 16000)
    assert type(result) is np.ndarray
    assert result.dtype == dtype
    np.testing.assert_allclose(result, regression(wave.astype(np.float32), 16000), rtol=0, atol=1e-3)
    np.testing.assert_array_equal(wave, kept)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_torch_in_torch_out_of_the_same_kind(regression, dtype):
    wave = torch.from_numpy(sound(2, 3000)).to(dtype).requires_grad_()
    result = regression(wave, 16000)
    assert (result.dtype, result.device, result.shape) == (dtype, wave.device, wave.shape)
    assert not result.requires_grad
    expected = regression(wave.detach().float().numpy(), 16000)
    np.testing.assert_allclose(result.float().numpy(), expected, rtol=0, atol=1e-2 if dtype == torch.bfloat16 else 1e-3)


def test_one_channel_is_the_same_as_none(bridge):
    wave = sound(4000)
    np.testing.assert_array_equal(bridge(wave, 16000), bridge(wave[None], 16000)[0])


def test_a_channel_does_not_hear_the_others(bridge):
    wave = sound(3, 6000)
    other = wave.copy()
    other[1:] = 10 * sound(2, 6000, seed=9)
    np.testing.assert_array_equal(bridge(wave, 22050)[0], bridge(other, 22050)[0])
    np.testing.assert_array_equal(bridge(wave, 22050)[0], bridge(wave[0], 22050))


def test_the_level_goes_through(bridge):
    wave = sound(6000)
    np.testing.assert_allclose(bridge(wave / 64, 16000) * 64, bridge(wave, 16000), rtol=0, atol=1e-5)


def test_the_seed_decides(bridge, regression):
    wave = sound(4000)
    np.testing.assert_array_equal(bridge(wave, 16000, seed=3), bridge(wave, 16000, seed=3))
    assert np.abs(bridge(wave, 16000, seed=3) - bridge(wave, 16000, seed=4)).max() > 1e-3
    np.testing.assert_array_equal(regression(wave, 16000, seed=3), regression(wave, 16000, seed=4))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_all_dry_is_the_input_and_half_dry_lies_between(bridge, rate, dtype):
    wave = sound(2, 5000).astype(dtype) + dtype(1e-9)
    np.testing.assert_array_equal(bridge(wave, rate, dry=1.0), wave)
    middle = (bridge(wave, rate) + wave) / 2
    np.testing.assert_allclose(bridge(wave, rate, dry=0.5), middle, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rate", [16000, 48000])
def test_silence_gives_silence(bridge, rate):
    wave = sound(2, 5000)
    wave[1] = 0
    result = bridge(wave, rate)
    assert result[0].any()
    assert not result[1].any()
    assert not bridge(0 * wave, rate).any()


@pytest.mark.parametrize("segment", [0.2, 1.0, 2.0])
def test_the_length_of_segments_changes_only_the_last_bits(bridge, segment):
    wave = sound(5 * 16000 + 77)
    whole, cut = bridge(wave, 16000), bridge(wave, 16000, segment=segment)
    np.testing.assert_allclose(cut, whole, rtol=0, atol=2e-6 * np.abs(whole).max())
    assert (cut != whole).mean() < 0.05


@pytest.mark.parametrize("side", ["left", "right"])
def test_nothing_beyond_the_context_is_heard(bridge, side):
    """Three steps see three times as far as one; what lies further changes no bit."""
    wave = sound(1, 2 * bridge.context(3) + 1600)
    other = wave.copy()
    edge = slice(0, 160) if side == "left" else slice(-160, None)
    other[:, edge] *= 1000
    process = bridge.piece(LEVEL)
    same = (process(wave, 0) == process(other, 0))[0]
    reach = bridge.context(3) + 160
    beyond = same[reach:] if side == "left" else same[:-reach]
    assert beyond.all()
    within_one_call = bridge.context(1) + 160
    assert not (same[within_one_call:] if side == "left" else same[:-within_one_call]).all()


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(CRNConfig(channels=(4, 6), hidden=8, squeeze=4, groups=2, dilations=(1, 3)), id="crn"),
        pytest.param(BACKBONES["tcunet"]("base"), id="tcunet", marks=pytest.mark.slow),
    ],
)
def test_the_reach_of_a_backbone_is_how_far_its_gradient_goes(config):
    torch.manual_seed(0)
    network = config.build().double().eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    frames = 2 * config.reach + 11
    middle = frames // 2
    x = torch.randn(1, 2, 161, frames, dtype=torch.float64, requires_grad=True)
    y = torch.randn(1, 2, 161, frames, dtype=torch.float64)
    out = network(x, torch.full((1,), 0.3, dtype=torch.float64), Condition(signal=y))
    (gradient,) = torch.autograd.grad(out[..., middle].sum(), x)
    seen = gradient.abs().sum((0, 1, 2)).nonzero().ravel()
    assert max(middle - int(seen.min()), int(seen.max()) - middle) == config.reach


def test_context_is_cut_off_for_many_calls_but_never_below_one(regression):
    one = regression.context(1)
    assert regression.context(3) - regression.context(2) == regression.context(2) - one
    assert regression.context(1000) == regression.context(2000) == 8 * 16000 + 320


def test_steps_and_sampler_can_be_chosen(bridge):
    wave = sound(4000)
    assert [bridge.network_calls(), bridge.network_calls(5), bridge.network_calls(5, "heun")] == [3, 5, 9]
    assert np.abs(bridge(wave, 16000, steps=5) - bridge(wave, 16000)).max() > 1e-3
    ddim = bridge(wave, 16000, sampler="ddim", seed=1)
    np.testing.assert_array_equal(ddim, bridge(wave, 16000, sampler="ddim", seed=1))
    assert np.abs(ddim - bridge(wave, 16000, seed=1)).max() > 1e-3


class Doubled(torch.nn.Module):
    """A network that doubles the signal it is told, whatever x is."""

    def forward(self, x, t, condition):
        return 2 * condition.signal


def test_generator_and_refiner_run_around_the_denoiser(tiny_models):
    """With networks that double: C = 2y, x0' = 2C = 4y, refined = 2 (0.5 x0' + 0.5 y) = 5y; decoding squares."""
    config = hub.config_of(hub.read_card(tiny_models["regression"]))
    parts = vars(config) | {"generator": config.backbone, "refiner": config.backbone}
    model = EnhancementModel(EnhancementConfig(**parts))
    model.denoiser.backbone, model.generator, model.refiner = Doubled(), Doubled(), Doubled()
    enhancer = Enhancer(model)
    enhancer.model.register_buffer("anything", torch.zeros(1))
    assert enhancer.network_calls() == 3
    y = torch.randn(1, 2, 161, 9)
    result = model.restore(y, PositionNoise([0]), model.default_run())
    torch.testing.assert_close(result, 5 * y)


@pytest.mark.parametrize(
    ("wave", "fault"),
    [
        (np.zeros(10, np.int16), "expected floats in \\[-1, 1\\], got int16; divide by 32767"),
        (torch.zeros(10, dtype=torch.int32), "divide by 2147483647"),
        (np.zeros((10, 2), bool), "got bool"),
        (np.zeros(10, complex), "got complex128"),
        (np.zeros((0,), np.float32), "n >= 1"),
        (np.zeros((2, 0), np.float32), "n >= 1"),
        (np.zeros((1, 2, 10), np.float32), "shape \\(n\\) or \\(c, n\\)"),
        (np.float32(0.5), "shape \\(n\\) or \\(c, n\\)"),
        (np.zeros((16000, 2), np.float32), "transpose it"),
        (np.array([0.0, np.nan]), "NaN or infinite"),
        (np.array([0.0, 1e300]), "NaN or infinite"),
        (torch.tensor([0.0, torch.inf]), "NaN or infinite"),
        ("speech.wav", "as floats"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_a_wave_that_cannot_be_used_is_refused_with_the_reason(regression, wave, fault):
    with pytest.raises(InputError, match=fault):
        regression(wave, 16000)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"sample_rate": 1}, "from 100 to 768000 Hz, got 1 Hz"),
        ({"sample_rate": 10**6}, "got 1000000 Hz"),
        ({"steps": 0}, "steps must lie between 1 and 10000"),
        ({"sampler": "magic"}, "unknown sampler 'magic'"),
        ({"dry": -0.1}, "dry must lie between 0 and 1"),
        ({"dry": float("nan")}, "dry must lie between 0 and 1"),
        ({"segment": 0.0}, "segment > 0"),
        ({"segment": float("inf")}, "segment > 0"),
        ({"overlap": -1.0}, "overlap >= 0"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_used_is_refused_with_the_reason(regression, options, fault):
    with pytest.raises(InputError, match=fault):
        regression(sound(100), **{"sample_rate": 16000} | options)


def test_shifts_are_the_mean_of_runs_on_delayed_sound(regression):
    model = EnhancementModel(dataclasses.replace(regression.model.config, shifts=2))
    model.load_state_dict(regression.model.state_dict())
    shifted = Enhancer(model)
    wave = sound(1, 4000)
    delayed = regression.piece(LEVEL)(np.pad(wave, ((0, 0), (80, 0))), 0)[:, 80:]
    mean = (regression.piece(LEVEL)(wave, 0) + delayed) / 2
    # two orders of float32 sums
    np.testing.assert_allclose(shifted.piece(LEVEL)(wave, 0), mean, atol=1e-6)
    assert np.abs(delayed - mean).max() > 1e-5
    assert (regression.network_calls(), shifted.network_calls()) == (1, 2)
    assert regression.chunking(1.0, 0.0, 1) == shifted.chunking(1.0, 0.0, 2)
