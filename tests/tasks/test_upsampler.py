"""Upsamplers: rates, lengths, channels, pieces, training, the command, and refusals.

The networks are tiny and random. That they compute what is published is asserted in tests/oracles/test_t2a_wrappers.py.
"""

import dataclasses
import json

import numpy as np
import pytest
import soundfile
import torch

from fromnoise import hub
from fromnoise.backbones import CRNConfig, UNet1dConfig
from fromnoise.cli import main
from fromnoise.data.clips import Clips
from fromnoise.frontends import STFT, Wave
from fromnoise.frontends.sinc import Sinc
from fromnoise.predictions import Velocity
from fromnoise.processes import VPAngular
from fromnoise.recipes import RECIPES, Recipe
from fromnoise.samplers import DDIM, Uniform
from fromnoise.tasks import TASKS, Upsampler, UpsamplingModel
from fromnoise.training.run import Voice, train
from fromnoise.training.settings import Optimisation, TrainerSettings
from fromnoise.types import InputError

RATE = 1200
NETWORK = UNet1dConfig(
    in_channels=1, signal_channels=1, channels=(8, 8), factors=(2, 2), items=(1, 1), resnet_groups=4,
    modulation_features=16,
)  # fmt: skip
UPSAMPLE = Recipe(
    name="test/upsample",
    task="upsample",
    factor=3,
    frontend=Wave(RATE),
    backbone=NETWORK,
    process=VPAngular(),
    prediction=Velocity(),
    sampler=DDIM(),
    grid=Uniform(),
    num_steps=2,
    data=Clips(sample_rate=RATE, seconds=0.1, fixed=False),
    scores=(),
    optimisation=Optimisation(ema=0.5),
    trainer=TrainerSettings(
        accelerator="cpu", max_epochs=1, steps_per_epoch=2, batch_size=2, num_workers=0, log_every_n_steps=1, samples=1
    ),
    logger="csv",
)


def sound(*shape: int, seed: int = 0) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def make(**parts: object) -> Upsampler:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Upsampler(UpsamplingModel(dataclasses.replace(UPSAMPLE, **parts).model_config()))


@pytest.fixture(scope="module")
def upsampler() -> Upsampler:
    return make()


@pytest.mark.parametrize("a, b", [(4, 1), (1, 4), (3, 2), (2, 3)])
def test_the_sinc_keeps_a_slow_sine_where_it_is_in_time(a, b):
    """Sample k lies at k / rate before and after. The short filter's ripple is below 1 % at a tenth of the band."""
    rate = 600 * a
    t = np.arange(rate) / rate
    x = np.sin(2 * np.pi * 20 * t)
    y = Sinc(a, b)(torch.from_numpy(x)).numpy()
    assert len(y) == rate * b // a
    expected = np.sin(2 * np.pi * 20 * np.arange(len(y)) * a / (rate * b))
    inside = slice(len(y) // 10, -len(y) // 10)
    np.testing.assert_allclose(y[inside], expected[inside], atol=1e-2)


def test_the_sinc_removes_what_the_low_rate_cannot_hold():
    t = torch.arange(4800, dtype=torch.float64) / 4800
    low = Sinc(4, 1)(torch.sin(2 * torch.pi * 1000 * t))  # the low rate holds up to 600 Hz
    assert low[100:-100].abs().max() < 1e-2


@pytest.mark.parametrize("n", [1, 2, 3, 7, 100])
def test_the_lowered_wave_covers_every_length(upsampler, n):
    low = upsampler.model.lower(torch.randn(1, 1, n))
    assert low.shape[-1] == -(-n // 3)
    assert upsampler.model.up(low).shape[-1] >= n


@pytest.mark.parametrize(("rate", "n"), [(400, 50), (400, 1), (1200, 151), (600, 77), (441, 100)])
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_duration_and_channels_stay(upsampler, rate, n, channels):
    shape = (n,) if channels is None else (channels, n)
    wide = upsampler(sound(*shape), rate)
    assert wide.shape == (*shape[:-1], max((2 * n * RATE + rate) // (2 * rate), 1))
    assert wide.dtype == np.float32
    assert np.isfinite(wide).all()


def test_torch_in_torch_out_and_seeds(upsampler):
    wave = torch.from_numpy(sound(2, 90)).double()
    wide = upsampler(wave, 400, seed=3)
    assert isinstance(wide, torch.Tensor)
    assert wide.dtype == torch.float64
    assert torch.equal(wide, upsampler(wave, 400, seed=3))
    assert (wide - upsampler(wave, 400, seed=4)).abs().max() > 1e-3
    # channel c has seed + c, and is its own recording
    torch.testing.assert_close(upsampler(wave[1], 400, seed=4), wide[1], rtol=0, atol=1e-6)


def test_level_follows_the_recording_and_silence_stays(upsampler):
    wave = sound(80)
    np.testing.assert_allclose(upsampler(0.01 * wave, 400), 0.01 * upsampler(wave, 400), rtol=0, atol=1e-6)
    assert not upsampler(np.zeros(50, np.float32), 400).any()
    both = upsampler(np.stack([wave, 0 * wave]), 400)
    assert not both[1].any()
    assert both[0].any()


def test_two_channels_go_through_a_network_of_two_together():
    stereo = make(backbone=dataclasses.replace(NETWORK, in_channels=2, signal_channels=2))
    wave = sound(2, 60)
    wide = stereo(wave, 400)
    changed = stereo(np.stack([wave[0], 0.5 * wave[1]]), 400)
    assert np.abs(wide[0] - changed[0]).max() > 1e-3  # the left hears the right
    with pytest.raises(InputError, match="expected 2 channels, got 1"):
        stereo(wave[0], 400)


def test_pieces_join_without_a_step(upsampler):
    """Norms see a whole piece, so pieces are not equal to the whole, but their noise and cuts lie in the same places:
    no jump at a join is larger than the whole has anywhere."""
    wave = sound(600)
    whole, cut = upsampler(wave, 400, segment=10.0), upsampler(wave, 400, segment=0.2, overlap=0.02)
    assert whole.shape == cut.shape
    assert np.abs(np.diff(cut)).max() < 1.3 * np.abs(np.diff(whole)).max()
    assert np.corrcoef(whole, cut)[0, 1] > 0.95


def test_networks_of_spectra_serve_as_well():
    spectral = make(frontend=STFT(RATE, 64, 16), backbone=CRNConfig(33, (8, 8), 16, 8, 1, (1,)))
    assert spectral(sound(100), 400).shape == (300,)
    assert spectral.align * 3 % 16 == 0


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        ({"factor": 1}, "factor of at least 2 that divides the rate 1200 Hz, got 1"),
        ({"factor": 7}, "divides the rate 1200 Hz, got 7"),
        ({"backbone": dataclasses.replace(NETWORK, signal_channels=0)}, "set signal_channels=1 of the backbone"),
    ],
    ids=str,
)
def test_parts_that_do_not_fit_are_refused(parts, fault):
    with pytest.raises(ValueError, match=fault):
        make(**parts)


@pytest.mark.parametrize(
    ("wave", "rate", "fault"),
    [
        (np.zeros(0, np.float32), 400, "n >= 1"),
        (np.full(9, np.nan, np.float32), 400, "NaN or infinite samples"),
        (np.zeros(9, np.int16), 400, "divide by 32767"),
        (np.zeros(9, np.float32), 2400, "the recording has 2400 Hz, the model makes 1200 Hz of 400 Hz; choose another"),
        (np.zeros(9, np.float32), 0, "expected a sample rate from 100"),
        (np.zeros((1, 1, 9), np.float32), 400, "shape"),
    ],
    ids=str,
)
def test_recordings_that_cannot_be_used_are_refused(upsampler, wave, rate, fault):
    with pytest.raises(InputError, match=fault):
        upsampler(wave, rate)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two steps as a user would start it."""
    root = tmp_path_factory.mktemp("upsample")
    for i in range(6):
        path = root / "clips" / ("train" if i < 4 else "valid") / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, sound(200, seed=i), RATE)
    data = dataclasses.replace(UPSAMPLE.data, root=str(root / "clips"))
    train(dataclasses.replace(UPSAMPLE, data=data, folder=str(root / "run")), voice=Voice(lambda text: None))
    return root / "run"


def test_a_run_becomes_a_model(trained):
    model = hub.load(trained)
    assert isinstance(model, Upsampler)
    assert (model.sample_rate, model.low_rate) == (RATE, 400)
    assert model(sound(40), 400).shape == (120,)


def test_the_loss_is_that_of_the_clip_and_its_lowered_self(upsampler):
    """Scale alone changes nothing, as the level is unit; what the clip holds above the low band does."""
    clip = torch.from_numpy(sound(1, 1, 100))
    objective = UPSAMPLE.objective()
    losses = [
        upsampler.model.loss(x, objective, torch.Generator().manual_seed(0)).item()
        for x in (clip, 3 * clip, upsampler.model.up(upsampler.model.lower(clip))[..., :100])
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert abs(losses[2] - losses[0]) > 1e-3


def test_the_command(trained, tmp_path, capsys):
    soundfile.write(tmp_path / "a.wav", sound(101, 2), 441, subtype="PCM_16")
    assert main(["upsample", str(tmp_path / "a.wav"), "-m", str(trained), "-d", "cpu", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)["files"][0]
    wide, rate = soundfile.read(record["output"])
    assert record["output"].endswith("a_upsampled.wav")
    assert (rate, wide.shape) == (RATE, (275, 2))  # round(101 1200 / 441)
    assert soundfile.info(record["output"]).subtype == "PCM_16"
    expected = hub.load(trained)(soundfile.read(tmp_path / "a.wav", dtype="float32")[0].T, 441)
    np.testing.assert_allclose(wide.T, expected, rtol=0, atol=1e-3)  # 16 bits, and the resampler in pieces


def test_the_command_goes_on_after_a_file_that_fails(trained, tmp_path, capsys):
    soundfile.write(tmp_path / "fast.wav", sound(100), 8000)
    soundfile.write(tmp_path / "slow.wav", sound(100), 400)
    assert main(["upsample", str(tmp_path), "-o", str(tmp_path / "out"), "-m", str(trained), "-d", "cpu"]) == 1
    shown = capsys.readouterr()
    assert "fast.wav: the recording has 8000 Hz, the model makes 1200 Hz of 400 Hz" in shown.err
    assert "400 Hz -> 1200 Hz" in shown.out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["slow.wav"]


def test_the_command_wants_a_model_of_its_task(tiny_models, tmp_path, capsys):
    soundfile.write(tmp_path / "a.wav", sound(100), 400)
    assert main(["upsample", str(tmp_path / "a.wav")]) == 2
    assert "--model" in capsys.readouterr().err
    assert main(["upsample", str(tmp_path / "a.wav"), "-m", str(tiny_models["regression"])]) == 2
    assert "is for the task 'enhance'; expected one for 'upsample'" in capsys.readouterr().err


def test_the_recipes_have_the_sizes_that_the_page_states():
    sizes = {}
    for name in ("upsampler", "sounds_upsampler", "vocoder"):
        recipe = RECIPES[f"text_to_audio/{name}"]
        with torch.device("meta"):
            sizes[name] = sum(p.numel() for p in TASKS[recipe.verb][1](recipe.model_config()).parameters())
    assert sizes == {"upsampler": 238_408_982, "sounds_upsampler": 3_058_464, "vocoder": 175_493_349}
