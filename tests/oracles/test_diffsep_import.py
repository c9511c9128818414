"""DiffSep checkpoints as its trainer writes them: settings as an OmegaConf tree, averaged weights as a bare list."""

import math

import omegaconf
import pytest
import torch

import fromnoise
from fromnoise.backbones.cdiffuse import PRESETS
from fromnoise.frontends import STFT
from fromnoise.importers import LAYOUTS, Asked, diffsep, import_checkpoints, save
from fromnoise.importers.assemble import assemble
from fromnoise.importers.base import Clues
from fromnoise.tasks import TASKS
from fromnoise.tasks.separation_model import SeparationModel
from fromnoise.types import Condition, InputError
from tests.score_files import arrays_of, facts_of, hollow, listed, write

NAME = "diffsep_checkpoint_import"


@pytest.fixture(scope="module")
def arrays():
    return arrays_of(NAME)


@pytest.fixture(scope="module")
def settings():
    """The tree as the published experiments have it, with the vector's small network; references are not resolved."""
    model = {
        "n_speakers": 2,
        "fs": 8000,
        "t_eps": 0.03,
        "score_model": facts_of(NAME)["config"] | {"num_sources": "${model.n_speakers}"},
        "sde": {"_target_": "sdes.sdes.MixSDE", "ndim": "${model.n_speakers}", "d_lambda": 1.5, "sigma_max": 0.4},
        "sampler": {"N": 20, "snr": 0.4, "corrector_steps": 1},
    }
    return {"config": omegaconf.OmegaConf.create({"seed": 64736289, "model": model})}


@pytest.fixture(scope="module")
def state(arrays):
    return {key.removeprefix("sd::"): value for key, value in arrays.items() if key.startswith("sd::")}


@pytest.fixture(scope="module")
def shadow(arrays):
    return [arrays[key] for key in sorted(key for key in arrays if key.startswith("ema::"))]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, state, settings, shadow):
    return write(tmp_path_factory.mktemp("diffsep") / "epoch-644_si_sdr-10.970.ckpt", state, settings, shadow)


def network_of(imported, dtype):
    model = TASKS[imported.task][1](imported.config).to(dtype).eval()
    model.load_state_dict({key: value.to(dtype) for key, value in imported.weights.items()})
    return model.denoiser.backbone


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("raw", "key"), [(False, "out_ema"), (True, "out_raw")])
def test_both_kinds_of_weights_give_the_published_outputs(checkpoint, arrays, raw, key, dtype, monkeypatch):
    """In float64 with the float32 window of the file: the square root magnifies the smallest bins, where the difference
    is heard. float32 in parts of the largest value, for the same reason."""

    def window(self, like):
        return torch.hann_window(self.n_fft, periodic=True).to(like.dtype)

    monkeypatch.setattr(STFT, "_window", window)
    network = network_of(import_checkpoints([checkpoint], asked=Asked(raw=raw)), dtype)
    x, mix, t = (arrays[name].to(dtype) for name in ("in_xt", "in_mix", "in_t"))
    with torch.no_grad():
        out = network(x, t, Condition(signal=mix))
    expected = arrays[f"{key}_f64"] if dtype == torch.float64 else arrays[key]
    largest = float(expected.abs().max())
    assert float((out - expected).abs().max()) <= (1e-5 if dtype == torch.float64 else 2e-3) * largest


def test_settings_become_the_configuration(checkpoint):
    imported = import_checkpoints([checkpoint])
    config = imported.config
    assert (imported.layout, imported.task) == ("diffsep", "separate")
    assert imported.taken == "averaged over training (decay 0.999, updates 10)"
    assert config.frontend == {"name": "wave", "sample_rate": 8000}
    assert (config.process["gamma"], config.process["sigma_min"], config.process["sigma_max"]) == (1.5, 0.05, 0.4)
    assert (config.num_steps, config.sampler["snr"], config.sampler["corrector"]) == (20, 0.4, "ald2")
    assert (config.backbone["stft"]["n_fft"], config.backbone["stft"]["hop"]) == (30, 8)
    assert (config.sources, config.names, config.level, config.levels) == (2, (), "none", "match")
    assert imported.notes == ()


def test_a_converted_model_separates(checkpoint, tmp_path):
    save(import_checkpoints([checkpoint], asked=Asked(steps=2)), tmp_path / "separator")
    separator = fromnoise.load(tmp_path / "separator")
    mixture = 0.1 * torch.sin(0.3 * torch.arange(400.0))
    sources = separator(mixture, sample_rate=8000, seed=1)
    assert sources.shape == (2, 400)
    assert bool(sources.isfinite().all())
    assert separator.card["origin"]["weights"].startswith("averaged")


def test_without_averaged_weights_those_of_the_last_step_are_taken(tmp_path, state, settings):
    path = write(tmp_path / "a.ckpt", state, settings)
    taken = import_checkpoints([path]).taken
    assert taken == "those of the last step; the file holds no averaged ones (ema)"


def test_averaged_weights_of_another_network_are_refused(tmp_path, state, settings, shadow):
    for wrong in (shadow[:-1], shadow[::-1]):
        path = write(tmp_path / "a.ckpt", state, settings, wrong)
        with pytest.raises(InputError, match=r"a.ckpt: its \d+ averaged weights \(ema\) are not of its 163 entries"):
            import_checkpoints([path])
        assert import_checkpoints([path], asked=Asked(raw=True)).taken == "those of the last step"


@pytest.mark.parametrize("averaged", [False, True])
def test_import_export_import_is_the_identity(tmp_path, state, settings, shadow, averaged):
    first = import_checkpoints([write(tmp_path / "a.ckpt", state, settings, shadow if averaged else ())])
    model = SeparationModel(first.config)
    model.load_state_dict(first.weights)
    exported = LAYOUTS["diffsep"].export(model)
    assert list(exported) == list(state)
    names = [key for key in state if not key.endswith("window")]
    expected = state | (dict(zip(names, shadow, strict=True)) if averaged else {})
    assert [key for key in state if not torch.equal(exported[key], expected[key])] == []
    second = import_checkpoints([write(tmp_path / "b.ckpt", exported, settings)])
    assert second.config == first.config
    assert [key for key in first.weights if not torch.equal(first.weights[key], second.weights[key])] == []


KEYS = {
    "keys_diffsep_icassp_separation": ("MixSDE", 8000, "none", ()),
    "keys_diffsep_noise_reduction": ("PriorMixSDE", 16000, "local", ("speech", "noise")),
}


@pytest.mark.parametrize("name", KEYS)
def test_published_sizes(name, tmp_path):
    """Names and shapes of the published files, without memory."""
    sde, rate, level, names = KEYS[name]
    settings = {"config": {"model": {"fs": rate, "sde": {"_target_": f"sdes.sdes.{sde}"}}}}
    state = hollow(listed(name))
    assert diffsep.recognises(state)
    imported = assemble("diffsep", diffsep.draft(state, Clues(tmp_path, {"hyper_parameters": settings})), Asked())
    model = imported.outline()
    assert {key: value.shape for key, value in model.state_dict().items()} == {
        key: value.shape for key, value in imported.weights.items()
    }
    assert sum(parameter.numel() for parameter in model.parameters()) == facts_of(name)["n_parameters"] == 65_623_366
    config = imported.config
    assert (config.frontend["sample_rate"], config.level, config.names) == (rate, level, names)
    assert config.backbone["network"]["attention"] == [16]
    averaged = [key for key in state if LAYOUTS["diffsep"].averaged(key)]
    assert (len(averaged), len(state)) == (647, 649)
    exported = LAYOUTS["diffsep"].export(model)
    assert [(key, tuple(value.shape)) for key, value in exported.items()] == list(listed(name).items())


def test_a_file_of_weights_alone_is_taken_as_published(tmp_path, state):
    imported = import_checkpoints([write(tmp_path / "a.ckpt", state)], asked=Asked(sample_rate=16000, steps=5))
    assert (imported.config.frontend["sample_rate"], imported.config.num_steps) == (16000, 5)
    assert any("the file has none" in note for note in imported.notes)
    assert imported.config.backbone["stft"]["n_fft"] == 30  # as the stored window says


def test_learnt_numbers_of_the_spectrum_are_taken(tmp_path, state, settings):
    learnt = {"score_model.spec_abs_exponent": torch.tensor(-0.6), "score_model.spec_factor": torch.tensor(0.2)}
    imported = import_checkpoints([write(tmp_path / "a.ckpt", learnt | state, settings)])
    stft = imported.config.backbone["stft"]
    assert (stft["exponent"], stft["factor"]) == pytest.approx((0.6, 0.2))


def test_a_cdiffuse_goes_in_and_out(tmp_path):
    network = PRESETS["base"].__class__(channels=4, num_layers=3, embed_mid=6, embed_out=5, embed_in=8).build()
    names = diffsep.cdiffuse_names(3)
    own = network.state_dict()
    state = {diffsep.SCORE + there: own[here] for here, there in names.items()}
    imported = import_checkpoints([write(tmp_path / "a.ckpt", state)], asked=Asked({"dilation_cycle": 2}))
    assert imported.config.backbone["extrapolates"] is True
    model = SeparationModel(imported.config)
    model.load_state_dict(imported.weights)
    exported = LAYOUTS["diffsep"].export(model)
    assert [key for key in state if not torch.equal(exported[key], state[key])] == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            lambda s: s.pop("score_model.backbone.all_modules.5.Conv_0.bias"),
            "lacks 1 entries, e.g. 'all_modules.5.Conv_0",
        ),
        (lambda s: s.update({"score_model.backbone.all_modules.99.weight": torch.ones(2)}), "NCSN"),
        (lambda s: s.update({"score_model.stft.window": torch.ones(30)}), "no Hann window of 30 samples"),
        (lambda s: s.update({"score_model.backbone.output_layer.bias": torch.full((4,), math.nan)}), "NaN"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(change, fault, tmp_path, state, settings):
    changed = dict(state)
    change(changed)
    with pytest.raises(InputError, match=rf"a\.ckpt.*{fault}"):
        import_checkpoints([write(tmp_path / "a.ckpt", changed, settings)])


def test_other_models_are_not_exported(tmp_path):
    with pytest.raises(InputError, match="the layout 'diffsep' is for a separator"):
        LAYOUTS["diffsep"].export(torch.nn.Linear(2, 2))
