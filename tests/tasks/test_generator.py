"""The generator in Python: what a sound depends on, guidance, and the chain entered in the middle.

The networks have a few hundred random weights; the chains are compared with loops written out from the papers.
"""

import math
import warnings

import numpy as np
import pytest
import torch

from fromnoise import hub
from fromnoise.samplers import PositionNoise
from fromnoise.tasks import Generator
from fromnoise.tasks.generation_model import item_seed
from fromnoise.types import Condition, InputError
from tests.tiny_generators import CLIP, DIGITS, RATE, make, network, sound, watch


@pytest.fixture(scope="module")
def free() -> Generator:
    return make()


@pytest.fixture(scope="module")
def digits() -> Generator:
    return make(DIGITS)


FRONTENDS = {
    "wave": ({"name": "wave", "sample_rate": RATE}, 1),
    "stft": ({"name": "stft", "sample_rate": RATE, "n_fft": 16, "hop": 8}, 18),
    "magnitude": ({"name": "magnitude", "sample_rate": RATE, "n_fft": 16, "hop": 4, "iterations": 2}, 9),
}


@pytest.mark.parametrize("kind", FRONTENDS)
def test_any_front_end_gives_sounds_of_the_length_asked_for(kind):
    frontend, features = FRONTENDS[kind]
    generator = make(frontend=frontend, backbone=network(features), num_steps=2)
    for n in (CLIP, CLIP - 3, 1):
        sounds = generator(count=3, seconds=n / RATE)
        assert (sounds.shape, sounds.dtype) == ((3, 1, n), np.float32)
        assert np.isfinite(sounds).all()
    assert generator.denoise(sound(2, 100), 1500).shape == (2, 100)
    assert generator.interpolate(sound(90), sound(30), RATE, (0.3, 0.6)).shape == (2, 1, CLIP)


def test_a_sound_depends_on_the_seed_and_its_number_alone(digits):
    """Not on how many there are, nor on the batch; the last bits are those of sums of another size."""
    whole = digits(count=5, label="two", seed=3, guidance=2.0)
    assert np.abs(whole[1:] - whole[:-1]).max(axis=(1, 2)).min() > 0.1
    for first, count, batch in ((0, 2, 16), (3, 2, 16), (0, 5, 2), (4, 1, 1)):
        part = digits(count=count, label="two", seed=3, guidance=2.0, first=first, batch_size=batch)
        np.testing.assert_allclose(part, whole[first : first + count], rtol=0, atol=2e-5 * np.abs(whole).max())
    np.testing.assert_array_equal(whole, digits(count=5, label="two", seed=3, guidance=2.0))
    assert np.abs(digits(seed=4) - digits(seed=3)).max() > 0.1


def test_streams_of_seed_and_number_do_not_meet():
    pairs = [(seed, i) for seed in (-1, 0, 1, 2, 2**31) for i in range(50)]
    assert len({item_seed(*pair) for pair in pairs}) == len(pairs)


def predicted_noise(generator: Generator, x: torch.Tensor, step: int, vector: torch.Tensor | None = None):
    """The network itself, told the step counted from 0."""
    return generator.model.denoiser.backbone(x, torch.full((len(x),), float(step)).to(x), Condition(vector=vector))


def reverse(generator: Generator, x: torch.Tensor, start: int, draw) -> torch.Tensor:
    """DiffWave's chain from index start - 1 to 0, Algorithm 2, in its own letters."""
    beta = np.linspace(1e-4, 0.2, 20)
    alpha, abar = 1 - beta, np.cumprod(1 - beta)
    for t in range(start - 1, -1, -1):
        x = (x - beta[t] / math.sqrt(1 - abar[t]) * predicted_noise(generator, x, t)) / math.sqrt(alpha[t])
        if t > 0:
            x = x + math.sqrt(beta[t] * (1 - abar[t - 1]) / (1 - abar[t])) * draw(x)
    return x


@pytest.fixture(scope="module")
def exact() -> Generator:
    generator = make(seed=1)
    generator.model.double()
    return generator


def test_generation_is_the_chain_of_the_paper(exact):
    """From unit noise. float64 throughout; the result is handed out as float32."""
    draw = PositionNoise([item_seed(7, 0), item_seed(7, 1)])
    with torch.no_grad():
        expected = reverse(exact, draw(torch.zeros(2, 1, CLIP, dtype=torch.float64)), 20, draw)
    np.testing.assert_allclose(exact(count=2, seed=7), expected.numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("start", [1, 2, 7, 20])
@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("add_noise", [False, True])
def test_denoising_is_the_chain_entered_at_a_step(exact, start, scale, add_noise):
    """x_t := y, counted from 1; or sqrt(abar) y, or + sqrt(1 - abar) e, or both. To 1e-12 before it is float32."""
    y = torch.from_numpy(sound(1, 1, CLIP)).double()
    abar = np.cumprod(1 - np.linspace(1e-4, 0.2, 20))[start - 1]
    draw = PositionNoise([item_seed(5, 0)])
    with torch.no_grad():
        x = math.sqrt(abar) * y if scale else y
        x = x + math.sqrt(1 - abar) * draw(y) if add_noise else x
        expected = reverse(exact, x, start, draw)
        cleaner, noise = exact.zero_shot(start, add_noise, scale), PositionNoise([item_seed(5, 0)])
        run = exact.model.run_from(start / 20)
        inner = exact.model.sample(cleaner.begin(y, noise), torch.tensor([-1]), noise, run, None, start / 20)
    torch.testing.assert_close(inner, expected, rtol=1e-12, atol=1e-12)
    found = exact.denoise(y[0].numpy(), RATE, start, add_noise, scale, seed=5)
    np.testing.assert_allclose(found, expected[0].numpy(), rtol=1e-6, atol=1e-6)


def test_by_default_denoising_starts_at_an_eighth_and_mixing_at_a_quarter():
    """The paper's 25 and 50 of 200; a continuous process is counted as 200 steps."""
    paper = make(process={"name": "vp", "num_steps": 200}, num_steps=200)
    assert paper.zero_shot().start == 25 / 200
    assert paper.zero_shot().network_calls() == 25
    assert paper.model.time_of_step(None, 1 / 4) == 50 / 200
    assert make().zero_shot().start == 2 / 20
    angular = make(process={"name": "vp_angular"}, grid={"name": "uniform"}, num_steps=16)
    assert angular.zero_shot(30).start == 30 / 200
    assert angular.zero_shot().network_calls() == 2  # of 1, 15/16 ... 1/16 the last two: 1/8 is the start


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp_2m", "euler"])
@pytest.mark.parametrize(
    ("grid", "num_steps", "asked", "told"),
    [
        ({"name": "trained"}, 20, 4, [10, 7, 3, 0]),
        ({"name": "trained"}, 5, None, [10, 5, 0]),  # of 19, 14, 10, 5, 0
        ({"name": "levels", "betas": [1e-4, 0.02, 0.1, 0.3]}, 4, None, [10, 4.7204, 1.0447, 0]),
        ({"name": "uniform"}, 20, 3, [10, 5, 0]),
    ],
)
def test_every_sampler_runs_on_the_grid_below_the_start(sampler, grid, num_steps, asked, told):
    """Steps as the network is told them, counted from 0: the 11th of 20 first, then those of the grid."""
    generator = make(grid=grid, num_steps=num_steps)
    watched = watch(generator)
    result = generator.denoise(sound(CLIP), RATE, start_step=11, steps=asked, sampler=sampler)
    assert np.isfinite(result).all()
    if grid["name"] == "levels":
        beta = np.linspace(1e-4, 0.2, 20)
        abar = np.sqrt(np.cumprod(1 - beta))
        levels = np.sqrt(np.cumprod(1 - np.array(grid["betas"])))[::-1]
        aligned = np.interp(levels, abar[::-1], np.arange(19.0, -1, -1))
        told = [10, *(step for step in aligned if step < 10 - 1e-9)]
    assert watched.steps == pytest.approx(told, abs=1e-3)
    assert generator.zero_shot(11).network_calls(asked, sampler) == len(told)


class Gaussian(torch.nn.Module):
    """The estimate of x0 where the data are N(0, d^2) and the process is angular."""

    def __init__(self, d: float) -> None:
        super().__init__()
        self.d = torch.nn.Parameter(torch.tensor(d, dtype=torch.float64))

    def forward(self, x, t, condition):
        clean, noise = torch.cos(math.pi * t / 2), torch.sin(math.pi * t / 2)
        share = clean * self.d**2 / ((clean * self.d) ** 2 + noise**2)
        return share[:, None, None] * x


@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("dpmpp_2m", 1.5), ("heun", 2)])
def test_the_flow_from_a_middle_start_ends_where_it_must(sampler, order):
    """x_0 = x_t d / sqrt(clean^2 d^2 + noise^2): half the steps' length, half or a quarter of the error.

    DPM-Solver++ ends with a step of order 1, since the log-SNR of the data is infinite.
    """
    parts = {"process": {"name": "vp_angular"}, "grid": {"name": "uniform"}, "prediction": {"name": "clean"}}
    generator = make(**parts)
    generator.model.denoiser.backbone = Gaussian(0.5)
    wave = sound(CLIP).astype(np.float64)
    exact = wave * 0.5 / math.hypot(0.5 * math.cos(0.2 * math.pi), math.sin(0.2 * math.pi))
    errors = [
        np.abs(generator.denoise(wave, RATE, 80, sampler=sampler, steps=steps) - exact).max() for steps in (32, 64)
    ]
    assert errors[1] < 1.15 * errors[0] / 2**order
    assert errors[0] < 0.05 * np.abs(exact).max()


def test_a_mix_is_that_of_the_paper(exact):
    """x_t of each clip by q, their line, and the chain from there; all weights with the same draws."""
    a, b = sound(CLIP, seed=1), sound(CLIP, seed=2)
    abar = np.cumprod(1 - np.linspace(1e-4, 0.2, 20))[7]
    shares = (0.25, 0.5, 0.75)
    draw = PositionNoise([item_seed(9, 0)] * 3)
    ends = [torch.from_numpy(x).double().expand(3, 1, CLIP) for x in (a, b)]
    with torch.no_grad():
        x_a, x_b = (math.sqrt(abar) * x + math.sqrt(1 - abar) * draw(x) for x in ends)
        share = torch.tensor(shares, dtype=torch.float64)[:, None, None]
        expected = reverse(exact, (1 - share) * x_a + share * x_b, 8, draw).numpy()
    found = exact.interpolate(a, b, RATE, shares, start_step=8, seed=9)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    one_by_one = exact.interpolate(torch.from_numpy(a), torch.from_numpy(b), RATE, shares, 8, seed=9, batch_size=1)
    np.testing.assert_allclose(one_by_one, found, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("shared", "spherical", "variance"),
    [(False, False, 0.5), (True, False, 1.0), (False, True, 1.0), (True, True, 1.0)],
)
def test_what_is_left_of_the_noise_s_variance_halfway(exact, shared, spherical, variance):
    n = 40_000
    silence = torch.zeros(1, 1, n, dtype=torch.float64)
    share = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    x = exact._between(silence, silence, share, 0.5, PositionNoise([0] * 3), shared, spherical)
    full = 1 - np.cumprod(1 - np.linspace(1e-4, 0.2, 20))[9]
    left = x.square().mean((1, 2)) / full
    assert left.tolist() == pytest.approx([1, variance, 1], abs=5 * math.sqrt(2 / n))  # of a mean of squares


def test_spherical_mixing_mixes_the_clips_on_a_line(exact):
    """What the noise leaves of 1 and 0, by the mean of many: 3/4 of clean(t) at a quarter of the way."""
    n = 40_000
    a, b = torch.ones(1, 1, n, dtype=torch.float64), torch.zeros(1, 1, n, dtype=torch.float64)
    x = exact._between(a, b, torch.tensor([0.25], dtype=torch.float64), 0.5, PositionNoise([0]), False, True)
    clean = math.sqrt(np.cumprod(1 - np.linspace(1e-4, 0.2, 20))[9])
    assert float(x.mean()) == pytest.approx(0.75 * clean, abs=4 / math.sqrt(n))


def test_ends_are_resampled_cut_and_filled(free):
    long, short = sound(4 * CLIP, seed=1), sound(CLIP // 2, seed=2)
    filled = np.pad(short, (0, CLIP - len(short)))
    found = free.interpolate(long, short, RATE)
    np.testing.assert_array_equal(found, free.interpolate(long[:CLIP], filled[None], RATE))
    assert free.interpolate(sound(3000), sound(40), 8 * RATE).shape == (1, 1, CLIP)


def test_a_clip_is_denoised_as_one_and_a_short_one_as_if_silence_followed(free):
    wave = sound(CLIP // 2)
    padded = np.pad(wave, (0, CLIP - len(wave)))
    np.testing.assert_array_equal(free.denoise(wave, RATE), free.denoise(padded, RATE)[: len(wave)])
    assert free.denoise(wave[:1], RATE).shape == (1,)


def test_pieces_of_a_long_recording_are_as_the_whole():
    """Where the context covers what the network sees; two steps see twice as far as one (2 x 3 samples)."""
    generator = make(seed=2)
    wave = sound(10 * CLIP)
    options = {"start_step": 10, "steps": 2, "add_noise": True, "seed": 1}
    whole = generator.denoise(wave, RATE, **options, segment=1.0)
    cut = generator.denoise(wave, RATE, **options, overlap=0.004)
    np.testing.assert_allclose(cut, whole, rtol=0, atol=1e-5 * np.abs(whole).max())
    assert generator.zero_shot().chunking(CLIP / RATE, 0.0, 2)["segment"] == CLIP


@pytest.mark.parametrize("rate", [RATE, 4410])
@pytest.mark.parametrize("shape", [(150,), (1, 150), (3, 151)])
def test_denoising_keeps_kind_shape_and_rate(free, rate, shape):
    wave = sound(*shape).astype(np.float64)
    result = free.denoise(wave, rate, steps=1)
    assert (type(result), result.dtype, result.shape) == (np.ndarray, np.float64, shape)
    tensor = free.denoise(torch.from_numpy(wave).float(), rate, steps=1)
    assert (tensor.dtype, tuple(tensor.shape)) == (torch.float32, shape)
    np.testing.assert_allclose(tensor.numpy(), result, rtol=0, atol=1e-5)


def test_a_silent_channel_stays_silent(free):
    wave = sound(2, 200)
    wave[1] = 0
    result = free.denoise(wave, RATE)
    assert result[0].any()
    assert not result[1].any()


def test_denoising_can_be_told_the_label_and_guided(digits):
    wave = sound(CLIP)
    plain = digits.denoise(wave, RATE, 10)
    named, guided = digits.denoise(wave, RATE, 10, label="two"), digits.denoise(wave, RATE, 10, label="two", guidance=3)
    assert min(np.abs(named - plain).max(), np.abs(guided - named).max()) > 1e-4


def test_what_is_longer_than_the_training_is_said(free):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        free(steps=1)
        free(steps=1, seconds=CLIP / RATE / 2)
    with pytest.warns(UserWarning, match=r"0\.128 s is longer than the 0\.064 s of the training.*sees 0\.003 s"):
        assert free(steps=1, seconds=2 * CLIP / RATE).shape == (1, 1, 2 * CLIP)


def test_nothing_is_clipped_or_scaled(free):
    loud = make(frontend={"name": "wave", "sample_rate": RATE, "scale": 0.01})
    np.testing.assert_allclose(loud(), 100 * free(), rtol=1e-5)
    assert np.abs(loud()).max() > 1


def test_a_process_that_preserves_variance_starts_from_unit_noise_and_others_by_themselves(free):
    noise = PositionNoise([0])
    unit = free.model.prior(noise, 1, 20_000)
    assert float(unit.var()) == pytest.approx(1, abs=0.05)
    wide = make(process={"name": "ve"}, grid={"name": "uniform"}, num_steps=2).model
    assert float(wide.prior(PositionNoise([0]), 1, 20_000).std() / unit.std()) == pytest.approx(
        float(wide.process.weights(torch.ones(1)).noise)
    )


def test_a_saved_model_generates_the_same(digits, tmp_path):
    card = {"task": "generate", "name": "tiny", "config": hub.config_dict(digits.model.config)}
    hub.save(digits.model, card, tmp_path / "tiny")
    loaded = hub.load(tmp_path / "tiny")
    assert (loaded.task, loaded.labels, loaded.sample_rate) == ("generate", DIGITS, RATE)
    np.testing.assert_array_equal(loaded(count=2, label="one", seed=1), digits(count=2, label="one", seed=1))


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        ({"labels": ("a", "a")}, "labels that all differ"),
        ({"labels": ("a", "")}, "have a name"),
        ({"labels": ("a", "b"), "backbone": network(1)}, "reads a vector of 0.*set vector=6"),
        ({"backbone": network(1, 4)}, "reads a vector of 4, the model has 0 labels"),
        ({"labels": ("a", "b"), "backbone": {"name": "crn"}}, "choose a backbone that reads a vector"),
        ({"seconds": 0.0}, "seconds > 0"),
        ({"guidance_scale": -1.0}, "guidance_scale >= 0"),
        ({"sampler": {"name": "magic"}}, "unknown sampler 'magic'"),
        ({"process": {"name": "bridge"}}, "Bridge needs an observation"),
    ],
    ids=str,
)
def test_a_configuration_that_cannot_be_is_refused(parts, fault):
    with pytest.raises(ValueError, match=fault):
        make(**parts)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"count": 0}, "count >= 1"),
        ({"count": -3}, "count >= 1"),
        ({"first": -1}, "first >= 0"),
        ({"batch_size": 0}, "batch_size >= 1"),
        ({"steps": 0}, "steps must lie between 1 and 10000"),
        ({"steps": 21}, "1 to 20 steps, as many as were trained, got 21"),
        ({"sampler": "magic"}, "unknown sampler 'magic'"),
        ({"guidance": -1.0}, "guidance must be a number from 0"),
        ({"guidance": float("nan")}, "guidance must be a number from 0"),
        ({"seconds": 0.0}, "expected a sound of 1 to"),
        ({"seconds": -1.0}, "expected a sound of 1 to"),
        ({"seconds": float("inf")}, "expected a sound of 1 to"),
        ({"seconds": 1e9}, "67108864 samples"),
    ],
    ids=str,
)
def test_what_cannot_be_generated_is_refused(digits, options, fault):
    with pytest.raises(ValueError, match=fault):
        digits(**options)


@pytest.mark.parametrize(
    ("wave", "options", "fault"),
    [
        (np.zeros(0, np.float32), {}, "n >= 1"),
        (np.array([0.1, np.nan], np.float32), {}, "NaN or infinite"),
        (np.zeros(10, np.int16), {}, "divide by 32767"),
        (sound(10), {"start_step": 0}, "start step must lie between 1.0 and 20, got 0"),
        (sound(10), {"start_step": 21}, "between 1.0 and 20, got 21"),
        (sound(10), {"start_step": float("nan")}, "got nan"),
        (sound(10), {"start_step": 3, "steps": 4}, "1 to 3 steps, as many as were trained below t = 0.15, got 4"),
        (sound(10), {"segment": 0.01}, "segment >= 0.064 seconds, the length that the model was trained on"),
        (sound(10), {"overlap": -1.0}, "overlap >= 0"),
        (sound(10), {"label": "nine"}, "unknown label 'nine'"),
        (sound(65, 10), {}, "at most 64 channels"),
    ],
)
def test_what_cannot_be_denoised_is_refused(digits, wave, options, fault):
    with pytest.raises(ValueError, match=fault):
        digits.denoise(wave, RATE, **options)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"a": np.zeros(10, np.float32)}, "recording A is silent within its first 0.064 s"),
        ({"b": np.array([np.inf], np.float32)}, "recording B holds NaN or infinite"),
        ({"b": sound(2, 10)}, "recording B: expected one channel, got 2"),
        ({"a": np.zeros(0, np.float32)}, "n >= 1"),
        ({"weights": ()}, "one or more weights"),
        ({"weights": (0.5, 1.1)}, "from 0 \\(all A\\) to 1 \\(all B\\)"),
        ({"weights": (float("nan"),)}, "got \\[nan\\]"),
        ({"noise": "none"}, "noise must be independent or shared"),
        ({"start_step": 0.5}, "start step must lie between"),
        ({"sample_rate": 1}, "recording A: expected a sample rate"),
    ],
)
def test_what_cannot_be_mixed_is_refused(digits, changes, fault):
    with pytest.raises(InputError, match=fault):
        digits.interpolate(**{"a": sound(10), "b": sound(10, seed=1), "sample_rate": RATE} | changes)


def test_clamp_keeps_every_state_within_full_scale():
    """LMNT's rule; the last state is the sound, so it too stays within, and more than its end changes."""
    plain, clamped = make()(count=2), make(clamp=True)(count=2)
    assert np.abs(plain).max() > 1 >= np.abs(clamped).max()
    assert np.abs(clamped - plain.clip(-1, 1)).max() > 1e-3
    louder = make(clamp=True, frontend={"name": "wave", "sample_rate": RATE, "scale": 3.0})
    assert louder.model._full == 3.0
    with pytest.raises(ValueError, match="needs a wave front end"):
        make(clamp=True, frontend=FRONTENDS["stft"][0], backbone=network(18))
