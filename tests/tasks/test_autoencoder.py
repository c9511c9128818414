"""Autoencoders whose decoder is a diffusion, and generators of their latents: shapes, pieces, training, refusals.

The networks are tiny and random. That they are the published ones is asserted in tests/oracles/test_text_to_audio.py.
"""

import dataclasses

import numpy as np
import pytest
import soundfile
import torch

from fromnoise import hub
from fromnoise.backbones import ConvNeXtConfig, UNet1dConfig
from fromnoise.backbones.encoder1d import Encoder1dConfig
from fromnoise.conditioning import Bytes
from fromnoise.data.clips import Clips
from fromnoise.frontends import Wave
from fromnoise.predictions import Velocity
from fromnoise.processes import VPAngular
from fromnoise.recipes import RECIPES, Recipe
from fromnoise.recipes.text_to_audio import latent_of
from fromnoise.samplers import DDIM, PositionNoise, Uniform
from fromnoise.tasks import TASKS, Autoencoder, AutoencodingModel, Generator
from fromnoise.tasks.autoencoding import OVERLAP, faded
from fromnoise.training.run import Voice, train
from fromnoise.training.settings import Optimisation, TrainerSettings
from fromnoise.types import InputError

RATE = 1000
ENCODER = Encoder1dConfig(
    1, 8, (1, 1), (2,), (1,), resnet_groups=4, out_channels=4, front={"name": "magnitude", "n_fft": 15, "hop": 4}
)
NETWORK = UNet1dConfig(
    in_channels=1, channels=(8, 8), factors=(2, 4), items=(1, 1), resnet_groups=4, modulation_features=16,
    context_channels=(0, 4),
)  # fmt: skip
SETTINGS = TrainerSettings(
    accelerator="cpu", max_epochs=1, steps_per_epoch=2, batch_size=2, num_workers=0, log_every_n_steps=1, samples=1
)
AUTOENCODE = Recipe(
    name="test/autoencode",
    task="autoencode",
    frontend=Wave(RATE),
    encoder=ENCODER,
    backbone=NETWORK,
    process=VPAngular(),
    prediction=Velocity(),
    sampler=DDIM(),
    grid=Uniform(),
    num_steps=2,
    seconds=0.064,
    data=Clips(sample_rate=RATE, seconds=0.064, fixed=False),
    scores=(),
    optimisation=Optimisation(ema=0.5),
    trainer=SETTINGS,
    logger="csv",
)
GENERATE = dataclasses.replace(
    AUTOENCODE,
    name="test/latents",
    task="generate",
    encoder=None,
    backbone=ConvNeXtConfig(4, 8, 1, kernel=3, vector=8),
    text=Bytes(8, 1, 2),
    latent=latent_of(AUTOENCODE),
    drop_label=0.2,
    data=dataclasses.replace(AUTOENCODE.data, captions=("label",)),
)


SPECTRAL = {  # 8 samples a frame, 2 frames a latent
    "frontend": {"name": "mel_magnitude", "sample_rate": RATE, "n_fft": 32, "hop": 8, "bands": 6, "iterations": 2},
    "encoder": {
        "name": "encoder1d", "in_channels": 6, "channels": 8, "multipliers": (1, 1), "factors": (2,),
        "num_blocks": (1,), "resnet_groups": 4, "out_channels": 4, "front": None,
    },
    "backbone": {
        "name": "unet1d", "in_channels": 6, "channels": (8,), "factors": (2,), "items": (1,), "resnet_groups": 4,
        "modulation_features": 16, "context_channels": (4,),
    },
}  # fmt: skip


def sound(n: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).standard_normal((channels, n))).astype(np.float32)


def make(**parts: object) -> Autoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Autoencoder(AutoencodingModel(dataclasses.replace(AUTOENCODE.model_config(), **parts)))


@pytest.fixture(scope="module")
def model() -> Autoencoder:
    return make()


@pytest.mark.parametrize("n", [1, 7, 8, 15, 16, 100])
def test_an_autoencoder_of_frames_takes_any_length_too(n):
    """One latent for every 2 frames begun, and there are 1 + n // 8 of these."""
    spectral, wave = make(**SPECTRAL), sound(n)
    assert (spectral.model.channels, spectral.model.hop) == (1, 16)
    latent = spectral.encode(wave, RATE)
    assert latent.shape == (4, -(-(1 + n // 8) // 2))
    again = spectral(wave, RATE, seed=1)
    assert again.shape == wave.shape
    assert np.isfinite(again).all()
    np.testing.assert_array_equal(spectral.decode(latent, n, seed=1), again)
    whole = spectral.decode(latent)
    assert spectral.encode(whole, RATE).shape == latent.shape  # no latent more, none less
    with pytest.raises(ValueError, match=rf"expected {latent.shape[1] + 1} latents for {whole.shape[1] + 8} samples"):
        spectral.decode(latent, whole.shape[1] + 8)


def test_the_diffusion_of_frames_runs_on_what_the_front_end_gives():
    """x_0 is the mean-free log-magnitude itself, bins as channels: a network that knew it would make its wave."""
    spectral, wave = make(**SPECTRAL), sound(100)
    with torch.inference_mode():
        shown = spectral.model.shown(torch.from_numpy(wave)[None])
        torch.testing.assert_close(shown, spectral.model.frontend.encode(torch.from_numpy(wave)[None])[:, 0])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(spectral.model, "_piece", lambda latent, like, *rest: shown)
            made = spectral(wave, RATE)
    np.testing.assert_array_equal(made, spectral.model.frontend.decode(shown[:, None], 100)[0].numpy())


@pytest.mark.parametrize("n", [1, 7, 8, 9, 100])
def test_any_length_goes_there_and_back(model, n):
    """No power of two, no multiple: one latent for every 8 samples begun, and as many samples back as came."""
    wave = sound(n)
    latent = model.encode(wave, RATE)
    assert latent.shape == (4, -(-n // 8))
    assert np.abs(latent).max() < 1  # tanh
    again = model(wave, RATE, seed=1)
    assert again.shape == wave.shape
    assert np.isfinite(again).all()
    np.testing.assert_array_equal(model.decode(latent, n, seed=1), again)
    assert np.abs(model.decode(latent, n, seed=2) - again).max() > 1e-3


def test_rate_kind_and_channels(model):
    wave = torch.from_numpy(sound(90)[0].astype(np.float64))
    assert model(wave, 1500).shape == (1, 90)
    with pytest.raises(InputError, match="expected 1 or 1 channels, got 2"):
        model.encode(sound(64, 2), RATE)
    with pytest.raises(InputError, match=r"latent of shape \(4, t\), got \(5, 3\)"):
        model.decode(np.zeros((5, 3), np.float32))
    with pytest.raises(ValueError, match="expected 4 latents for 30 samples, got 3"):
        model.decode(np.zeros((4, 3), np.float32), 30)


def test_pieces_fade_into_one_another_without_a_step():
    """Memory follows the piece. A piece's network sees no further than its own ends, but draws the noise of its place:
    equal pieces of equal latents join to a wave that no sample of the fade tells from either."""
    cut = make(segment=0.2)
    latent = np.tile(0.3 * np.ones((4, 1), np.float32), (1, 100))
    seen: list[int] = []
    noise = lambda place: (seen.append(place), PositionNoise([0], place))[1]  # noqa: E731
    with torch.inference_mode():
        wave = cut.model.decode(torch.from_numpy(latent)[None], 800, noise, cut.model.default_run())
    step = (round(0.2 * RATE / 8) - OVERLAP) * 8
    assert seen[:3] == [0, step, 2 * step]
    assert wave.shape == (1, 1, 800)
    whole = make().decode(latent)
    # off the ends of the pieces the two decodings are close; the largest difference lies where a piece begins
    difference = np.abs(wave[0, 0].numpy() - whole[0])
    assert np.median(difference) < 0.1 * whole.std()


def test_a_fade_of_what_agrees_changes_nothing():
    wave = torch.randn(2, 1, 50)
    torch.testing.assert_close(faded(wave[..., :30], wave[..., 20:], 20), wave)


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        ({"frontend": {"name": "stft", "sample_rate": RATE, "n_fft": 32, "hop": 8}}, "gives 34 numbers a frame"),
        (SPECTRAL | {"encoder": SPECTRAL["encoder"] | {"front": ENCODER.front}}, "no front of its own"),
        ({"backbone": {"name": "convnext"}}, "4 numbers for every 8 positions, the backbone 'convnext' takes none"),
        ({"segment": -1.0}, "segment >= 0"),
        ({"seconds": 0.0}, "seconds > 0"),
        ({"encoder": {"name": "words"}}, "unknown encoder 'words'"),
    ],
    ids=str,
)
def test_parts_that_do_not_fit_are_refused(parts, fault):
    with pytest.raises(ValueError, match=fault):
        make(**parts)


def of_frames(recipe: Recipe) -> Recipe:
    """The same over log-magnitudes."""
    config = AutoencodingModel(dataclasses.replace(AUTOENCODE.model_config(), **SPECTRAL))
    parts = {
        "frontend": config.frontend,
        "encoder": config.encoder.config,
        "backbone": config.denoiser.backbone.config,
    }
    first = dataclasses.replace(AUTOENCODE, **parts)
    return first if recipe.task == "autoencode" else dataclasses.replace(recipe, latent=latent_of(first))


@pytest.fixture(scope="module", params=["wave", "frames"])
def trained(request, tmp_path_factory):
    """The pair, trained for two steps each as a user would: the autoencoder, then the generator of its latents."""
    root = tmp_path_factory.mktemp("latents")
    for i in range(8):
        path = root / "clips" / ("train" if i < 4 else "valid") / ("dog", "rain")[i % 2] / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, sound(100, seed=i)[0], RATE)
    quiet = Voice(lambda text: None)
    for name, recipe in (("first", AUTOENCODE), ("second", GENERATE)):
        recipe = recipe if request.param == "wave" else of_frames(recipe)
        data = dataclasses.replace(recipe.data, root=str(root / "clips"))
        init = dataclasses.replace(recipe.init, autoencoder="" if name == "first" else str(root / "first"))
        train(dataclasses.replace(recipe, data=data, init=init, folder=str(root / name)), voice=quiet)
    return root


def test_a_pair_is_trained_and_becomes_one_model(trained):
    first, second = hub.load(trained / "first"), hub.load(trained / "second")
    assert (first.task, second.task) == ("autoencode", "generate")
    assert isinstance(second, Generator)
    own = first.model.state_dict()
    held = second.model.autoencoder.state_dict()
    assert all(torch.equal(value, held[name]) for name, value in own.items())  # it stood still
    sounds = second(count=2, text="a dog", seed=1)
    assert sounds.shape == (2, 1, 64)
    np.testing.assert_allclose(second(text="a dog", seed=1, first=1)[0], sounds[1], rtol=0, atol=1e-5)
    longer = second.editor(text="rain").extend(sound(64), RATE, 0.2)
    assert longer.shape == (1, 1, 200)


def test_a_generator_of_latents_needs_its_autoencoder(trained, tmp_path):
    data = dataclasses.replace(GENERATE.data, root=str(trained / "clips"))
    lacking = dataclasses.replace(GENERATE, data=data, folder=str(tmp_path / "run"))
    with pytest.raises(InputError, match=r"needs a trained autoencoder; set init\.autoencoder="):
        train(lacking, voice=Voice(lambda text: None))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("seed_diffae", 185_107_872),
        ("seed_diffgen", 562_606_400),
        ("sounds_autoencoder", 5_782_536),  # docs/text.md says so
        ("sounds_small", 5_740_608),
    ],
)
def test_both_pairs_have_their_sizes(name, parameters):
    recipe = RECIPES[f"text_to_audio/{name}"]
    with torch.device("meta"):
        model = TASKS[recipe.verb][1](recipe.model_config())
    learns = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert learns == parameters
