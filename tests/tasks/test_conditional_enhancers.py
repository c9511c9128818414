"""What DR-DiffuSE, CDiffuSE, DiffuSE and DOSE ask of the enhancement task: starts, guidance, spectra, clamps, masks,
the reuse of the generator, and training of the refiner through the sampler."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from fromnoise import hub
from fromnoise.backbones.wavenet import WaveNetConfig
from fromnoise.data.layouts import find_pairs, has_split
from fromnoise.data.paired import Paired
from fromnoise.frontends import Spectrum
from fromnoise.objectives import FixedTime, Objective
from fromnoise.recipes import RECIPES
from fromnoise.samplers import Ancestral, PositionNoise
from fromnoise.tasks import EnhancementConfig, Enhancer, VocodingModel, enhancement_model
from fromnoise.tasks.enhancement_model import EnhancementModel
from fromnoise.tasks.losses import SpectralLoss
from fromnoise.training.init import initialise
from fromnoise.training.run import task_of
from fromnoise.types import InputError

WAVENET = WaveNetConfig(
    4, 4, 3, 3, mel_bands=17, mel_upsample=(4, 4), shared_upsampler=True, rising_steps=True, weight_norm=False
)
TINY = {"name": "crn", "channels": [4, 4], "hidden": 8, "squeeze": 4, "groups": 1, "dilations": [1, 2]}
GUIDED = EnhancementConfig(
    backbone=TINY,
    process={"name": "vp", "beta_min": 1e-4, "beta_max": 0.05, "num_steps": 200},
    prediction={"name": "noise"},
    sampler={"name": "ddpm"},
    grid={"name": "levels"},
    num_steps=6,
    generator=TINY,
    start="condition",
    guidance=0.5,
)


def waves(recipe: str, **changes) -> EnhancementModel:
    """A recipe of waves with a tiny network whose output is not zero."""
    chosen = dataclasses.replace(RECIPES[recipe], **changes)
    told = chosen.backbone.signal_channels
    small = dataclasses.replace(WAVENET, signal_channels=told, mel_bands=0 if chosen.spectrum is None else 17)
    spectrum = None if chosen.spectrum is None else Spectrum(n_fft=32, hop=16)
    torch.manual_seed(0)
    model = EnhancementModel(dataclasses.replace(chosen, backbone=small, spectrum=spectrum).model_config()).eval()
    torch.nn.init.normal_(model.denoiser.backbone.output.weight, std=0.1)
    return model


def guided(**changes) -> EnhancementModel:
    torch.manual_seed(0)
    model = EnhancementModel(dataclasses.replace(GUIDED, **changes)).eval()
    for network in (model.denoiser.backbone, model.generator, model.refiner):
        if network is not None:
            torch.nn.init.normal_(network.head.weight, std=1e-3)  # more, and errors of the noise grow over the steps
    return model


def sound(n: int, seed: int = 0) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def encoded(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 2, 161, 5, generator=torch.Generator().manual_seed(seed))


def states_of(model: EnhancementModel, y: torch.Tensor) -> list[torch.Tensor]:
    states: list[torch.Tensor] = []
    with torch.no_grad():
        model.sample(y, PositionNoise([3, 4][: len(y)]), model.default_run(), lambda i, n, x: states.append(x))
    return states


# Networks of waves.


@pytest.mark.parametrize("recipe", ["cdiffuse/small", "dose/small", "diffuse/small"])
def test_a_recording_sounds_the_same_however_it_is_cut(recipe):
    """The spectrum of each piece is scaled by the whole recording's peak, which lies in the last piece here."""
    enhancer = Enhancer(waves(recipe))
    wave = sound(9001)
    wave[8500] = 0.9
    whole = enhancer(wave, 16000, segment=10.0)
    cut = enhancer(wave, 16000, segment=0.12, overlap=0.0)
    assert enhancer.chunking(0.12, 0.0, 6)["segment"] < 9001
    np.testing.assert_allclose(cut, whole, rtol=0, atol=1e-5)
    assert np.abs(whole - wave).max() > 1e-2


def test_the_level_of_a_wave_is_left_alone_with_unit_none():
    model = waves("cdiffuse/small")
    wave = torch.from_numpy(sound(640))[None, None]
    assert torch.equal(model.encode_pair(wave, 3 * wave)[1], 3 * wave)


def test_a_run_may_start_at_the_noisy_speech_itself(monkeypatch):
    model, given = waves("cdiffuse/small"), []
    real = model.denoiser.bind
    monkeypatch.setattr(model.denoiser, "bind", lambda *a: lambda x, t: given.append(x) or real(*a)(x, t))
    y = torch.from_numpy(sound(640))[None, None]
    with torch.no_grad():
        model.sample(y, PositionNoise([0]), model.default_run())
    assert torch.equal(given[0], y)
    assert len(given) == 6


def test_the_network_is_bound_once_a_recording(monkeypatch):
    model, times = waves("cdiffuse/small"), []
    real = model.denoiser.backbone.bind
    monkeypatch.setattr(model.denoiser.backbone, "bind", lambda told: times.append(1) or real(told))
    Enhancer(model)(sound(2000), 16000)
    assert len(times) == 1


def test_the_noisy_share_and_the_clamp_come_last():
    y = 4 * torch.from_numpy(sound(640))[None, None]
    plain = states_of(waves("cdiffuse/small", clamp=False, keep_noisy=0.0), y)
    mixed = states_of(waves("cdiffuse/small", clamp=False, keep_noisy=0.2), y)
    torch.testing.assert_close(mixed[-1], 0.8 * plain[-1] + 0.2 * y)
    assert torch.equal(mixed[0], plain[0])
    clamped = states_of(waves("cdiffuse/small", keep_noisy=1.0), y)
    assert max(float(x.abs().max()) for x in clamped) == 1.0
    assert torch.equal(clamped[-1], y.clamp(-1, 1))


def test_silence_stays_silence_and_needs_no_level():
    assert not Enhancer(waves("cdiffuse/small"))(np.zeros(500, np.float32), 16000).any()


# Guidance.


def test_full_guidance_is_the_condition_diffused_to_the_level_left_or_reached():
    y = encoded()
    for place, level in ((0, "left"), (1, "reached")):
        model = guided(guidance=1.0, guidance_level=level)
        run, noise = model.default_run(), PositionNoise([3, 4])
        times = run.grid.times(model.process, 6)
        with torch.no_grad():
            condition = model.given(y).estimate
        noise(y), noise(y)  # the start and the first step draw before the guidance
        expected = model.process.sample(condition, times[place].expand(2), y, noise(y))
        torch.testing.assert_close(states_of(model, y)[0], expected)


def test_zeta_weighs_by_the_variance_of_the_step():
    """With zeta = 1/(4 nu^2) of the first step its weight is the release's 0.5; later ones differ."""
    constant, y = guided(), encoded()
    times = constant.default_run().grid.times(constant.process, 6)
    nu = Ancestral().fresh(constant.process, times[:1], times[1:2])
    assert float(nu**2) == pytest.approx(0.17, abs=1e-4)  # (1 - 0.7516)/(1 - 0.4885) 0.35 of the published schedule
    zeta = guided(guidance=float(1 / (4 * nu**2)), guidance_rule="zeta")
    first, second = states_of(constant, y), states_of(zeta, y)
    torch.testing.assert_close(first[0], second[0])
    assert float((first[1] - second[1]).abs().max()) > 1e-3


# The refiner.


def test_the_generator_can_be_the_refiner_and_is_stored_once(tmp_path: Path):
    model = guided(refiner={"name": "generator"}, refine_with_noisy=0.0)
    assert not any(name.startswith("refiner") for name in model.state_dict())
    card = {"task": "enhance", "name": "tiny", "config": hub.config_dict(model.config), "sample_rate": 16000}
    hub.save(model, card | {"licence": "MIT"}, tmp_path / "model")
    enhancer = hub.load(tmp_path / "model")
    assert enhancer.network_calls() == 8
    y = encoded()
    with torch.no_grad():
        x = model.sample(y, PositionNoise([3, 4]), model.default_run())
        expected = enhancement_model.regress(model.generator, x)
        result = enhancer.model.restore(y, PositionNoise([3, 4]), model.default_run())
    torch.testing.assert_close(result, expected)


def pair(n: int = 800) -> tuple[torch.Tensor, torch.Tensor]:
    clean = torch.from_numpy(np.stack([sound(n, 1), sound(n, 2)]))[:, None]
    return clean, clean + torch.from_numpy(np.stack([sound(n, 3), sound(n, 4)]))[:, None]


def test_through_the_sampler_all_three_networks_learn_and_only_the_refiner_otherwise(monkeypatch):
    clean, noisy = pair()

    def gradients(through: bool) -> dict[str, torch.Tensor]:
        model = guided(refiner=TINY)
        model.refinement_loss(clean, noisy, SpectralLoss(), [3, 4], through=through).mean().backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}

    parts = lambda found: {name.split(".")[0] for name in found}  # noqa: E731
    assert parts(gradients(False)) == {"refiner"}
    kept = gradients(True)
    assert parts(kept) == {"refiner", "generator", "denoiser"}
    monkeypatch.setattr(enhancement_model, "checkpoint", lambda f, *a, use_reentrant: f(*a))
    for name, gradient in gradients(True).items():
        torch.testing.assert_close(kept[name], gradient, rtol=1e-4, atol=1e-7)


def test_the_refiner_may_learn_on_the_sample_the_noisy_speech_or_their_mean(monkeypatch):
    model, shown = guided(refiner=TINY), []
    real = enhancement_model.regress
    monkeypatch.setattr(enhancement_model, "regress", lambda net, x: shown.append(x) or real(net, x))
    clean, noisy = pair()
    y = model.encode_pair(clean, noisy)[1]
    for inputs in (("mixed",), ("generated",), ("noisy",), ("generated", "noisy")):
        model.refinement_loss(clean, noisy, SpectralLoss(), [3, 4], inputs)
    mixed, generated, alone, both = shown[1::2]  # before each, the generator is given y
    torch.testing.assert_close(mixed, 0.5 * generated + 0.5 * y)
    assert torch.equal(alone, y)
    torch.testing.assert_close(both[0], y[0])  # seed 3 takes the second, seed 4 the first
    torch.testing.assert_close(both[1], generated[1])


# Filling.


def test_filling_counts_neither_in_the_level_nor_in_the_loss():
    """With a network that sees each frame alone, a filled batch has the loss of its items' real frames together."""

    class Doubled(torch.nn.Module):
        def forward(self, x, t, condition):
            return 2 * condition.signal

    model = guided(generator=None, guidance=0.0)
    model.denoiser.backbone = Doubled()
    clean, noisy = pair(1600)
    length = torch.tensor([1600, 640])
    clean[1, :, 640:] = noisy[1, :, 640:] = 0
    gain = model.gain_of(noisy, length)
    torch.testing.assert_close(gain[1], model.gain_of(noisy[1:, :, :640])[0])
    chance = torch.Generator().manual_seed(5)
    objective = Objective(FixedTime(0.5))
    losses = model.loss(clean, noisy, objective, generator=chance, length=length)
    x0, y = model.encode_pair(clean, noisy, length)
    draw = objective.draw(model.process, model.denoiser.prediction, x0, y, torch.Generator().manual_seed(5))
    squares = (2 * y - draw.z).square().mean((1, 2))
    together = (squares[0].sum() + squares[1, :5].sum()) / (11 + 5)  # frames at 0, 160, ..., 640 are real
    torch.testing.assert_close(losses.mean(), together)


def test_paired_data_says_how_long_each_item_is(tmp_path: Path):
    for side in ("noisy", "clean"):
        (tmp_path / side).mkdir()
        for name, n in (("p226_001", 700), ("p300_001", 5000)):
            soundfile.write(tmp_path / side / f"{name}.wav", sound(n), 8000)
    data = Paired(root=str(tmp_path), seconds=0.1, valid_seconds=0.1)
    assert [int(item["length"]) for item in (data.valid()[0], data.train(0)[0])] == [1400, 1600]
    item = data.valid()[0]
    assert not item["noisy"][0, 1400:].any()
    assert item["noisy"][0, 1399] != 0


# Training.


def test_the_second_phase_of_diffuse_takes_over_all_but_the_projections_of_the_condition(tmp_path: Path):
    first = dataclasses.replace(
        RECIPES["diffuse/base_vocoder"], backbone=dataclasses.replace(WAVENET, mel_bands=80, mel_upsample=(16, 16))
    )
    second = waves("diffuse/base")
    vocoder = VocodingModel(first.model_config())
    save_file(vocoder.state_dict(), tmp_path / "vocoder.safetensors")
    (taken,) = initialise(second, {"backbone": str(tmp_path / "vocoder.safetensors")})
    fresh = [name for name in taken.fresh if not name.startswith("upsampler")]  # other factors in these tiny networks
    assert fresh == [f"blocks.{i}.mel.weight" for i in range(3)]
    torch.testing.assert_close(second.denoiser.backbone.input.weight, vocoder.denoiser.backbone.input.weight)


def test_dose_drops_the_state_of_every_second_item():
    assert RECIPES["dose/vctk_demand"].objective().drop_state == 0.5
    assert RECIPES["cdiffuse/base"].objective().drop_state == 0


@pytest.mark.parametrize("recipe", ["cdiffuse/small", "dose/small", "diffuse/small"])
def test_every_weight_of_a_network_of_waves_learns(recipe):
    """All but the last residual layer, which feeds nothing."""
    model = waves(recipe)
    clean, noisy = pair()
    chance = torch.Generator().manual_seed(7)
    task_of(RECIPES[recipe], model).loss({"clean": clean, "noisy": noisy}, chance).mean().backward()
    still = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert {name.removeprefix("denoiser.backbone.") for name in still} == {
        "blocks.2.residual.weight",
        "blocks.2.residual.bias",
    }


# What cannot be.


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"clamp": True}, "set the front end to 'wave'"),
        ({"spectrum": {"name": "spectrum"}}, "set the front end to 'wave'"),
        ({"frontend": {"name": "wave"}, "clamp": True}, "set unit to 'peak' or 'none'"),
        ({"keep_noisy": 1.5}, "expected keep_noisy from 0 to 1"),
        ({"guidance": 1.5}, "expected a guidance of 0 to 1"),
        ({"guidance": -1.0, "guidance_rule": "zeta"}, "expected a guidance of 0 to 1"),
        ({"refiner": {"name": "generator"}}, "name a generator"),
        ({"spectrum": {"name": "mel"}}, "unknown spectrum 'mel'; choose one of: spectrum"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(changes, fault):
    with pytest.raises(ValueError, match=fault):
        EnhancementModel(EnhancementConfig(backbone=TINY, **changes))


@pytest.mark.parametrize(
    ("name", "changes", "fault"),
    [
        ("drdiffuse/vctk_demand_base", {"data": RECIPES["drdiffuse/base_small"].data}, "data that tells lengths"),
        ("drdiffuse/vctk_demand_refiner", {"refine_on": ()}, "set refine_on="),
        ("drdiffuse/vctk_demand_joint", {"refine_on": ("noisy",)}, "leave noisy out"),
    ],
)
def test_a_recipe_that_cannot_be_trained_is_refused(name, changes, fault):
    recipe = dataclasses.replace(RECIPES[name], **changes)
    with torch.device("meta"):
        model = EnhancementModel(recipe.model_config())
    with pytest.raises(InputError, match=fault):
        type(task_of(recipe, model)).require(recipe)


@pytest.mark.parametrize("source", ["", "nowhere/c_gen"])
def test_a_missing_generator_is_named(source):
    model = EnhancementModel(dataclasses.replace(GUIDED, refiner=None))
    with pytest.raises(InputError, match=r"set init\.generator=|nowhere/c_gen"):
        initialise(model, {"backbone": "", "generator": source, "refiner": ""})


# Folders.


def test_simulated_sets_of_chime4_are_found_by_their_names(tmp_path: Path):
    for folder, ending in (("isolated", ".CH5.wav"), ("isolated_ext", ".CH5.Clean.wav"), ("isolated", ".CH1.wav")):
        for part in ("et05_bus_simu", "dt05_str_simu"):
            place = tmp_path / folder / part
            place.mkdir(parents=True, exist_ok=True)
            (place / f"F05_440C0201_BUS{ending}").touch()
    (tmp_path / "isolated/et05_bus_simu/F06_440C0202_BUS.CH5.wav").touch()
    pairs = find_pairs(tmp_path, "test")
    assert [pair.name for pair in pairs] == ["et05_bus_simu/F05_440C0201_BUS"]
    assert pairs[0].noisy.name == "F05_440C0201_BUS.CH5.wav"
    assert pairs[0].clean == tmp_path / "isolated_ext/et05_bus_simu/F05_440C0201_BUS.CH5.Clean.wav"
    assert pairs.skipped == ("isolated/et05_bus_simu/F06_440C0202_BUS has no partner in isolated_ext/",)
    assert has_split(tmp_path, "valid")
    assert not has_split(tmp_path, "train")


def test_a_folder_without_partners_is_refused(tmp_path: Path):
    (tmp_path / "isolated/et05_bus_simu").mkdir(parents=True)
    (tmp_path / "isolated/et05_bus_simu/F05_440C0201_BUS.CH5.wav").touch()
    with pytest.raises(InputError, match=r"no pair of audio files .* has no partner in isolated_ext/"):
        find_pairs(tmp_path, "test")
