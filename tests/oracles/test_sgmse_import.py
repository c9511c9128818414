"""SGMSE+ checkpoints of its three networks (sp-uhh/sgmse at ae690e8), in and out, and files that name foreign classes.

Networks are filled by the vectors' rule, so their outputs are known; the key lists are those of the published sizes.
"""

import collections
import dataclasses
import math
import os
import pathlib

import lightning.fabric.utilities.data
import pytest
import torch

import fromnoise
from fromnoise.importers import LAYOUTS, Asked, foreign, import_checkpoints, save, sgmse
from fromnoise.importers.assemble import assemble
from fromnoise.importers.base import PREFIX, Clues
from fromnoise.predictions import PREDICTIONS, SGMSE
from fromnoise.tasks.enhancement import EnhancementConfig, EnhancementModel
from fromnoise.types import Condition, InputError, build
from tests.score_files import arrays_of, facts_of, hollow, listed, weights_of, write

EXACT = {"rtol": 1e-9, "atol": 1e-11}
COMMON = {"sde": "ouve", "theta": 1.5, "sigma_min": 0.05, "sigma_max": 0.5, "t_eps": 0.03, "n_fft": 30, "hop_length": 8}
COMMON |= {"spec_factor": 0.15, "spec_abs_exponent": 0.5, "window": "hann", "transform_type": "exponent"}
BRIDGE = COMMON | {"sde": "sbve", "k": 2.6, "c": 0.4, "loss_type": "data_prediction", "sr": 16000}
SETTINGS = {
    "sgmse_ncsnpp": COMMON | {"backbone": "ncsnpp"},
    "sgmse_ncsnpp_48k": COMMON | {"backbone": "ncsnpp_48k", "sr": 48000},
    "sgmse_ncsnpp_v2": BRIDGE | {"backbone": "ncsnpp_v2"},
}


class DataModule:
    """What a trainer's settings name; its class is not there when the file is read."""


def state_of(name):
    return weights_of(facts_of(name)["weights"], "dnn.")


def single(state):
    return {key: value.float() for key, value in state.items()}


@pytest.mark.parametrize("name", SETTINGS)
def test_networks_give_the_published_scores(name, tmp_path):
    arrays = arrays_of(name)
    imported = assemble(
        "sgmse", sgmse.draft(state_of(name), Clues(tmp_path, {"hyper_parameters": SETTINGS[name]})), Asked()
    )
    model = EnhancementModel(imported.config).double().eval()
    model.load_state_dict(imported.weights)
    x, y, t = arrays["in_x"], arrays["in_y"], arrays["in_t"]
    with torch.no_grad():
        out = model.denoiser.backbone(x, t, Condition(signal=y))
        estimate = model.denoiser(x, t, y, Condition(signal=y))
    torch.testing.assert_close(out, arrays["out_f64"], **EXACT)
    if name.endswith("v2"):
        torch.testing.assert_close(estimate, out, **EXACT)  # data prediction
        return
    # Tweedie with the published numbers: mean = x + std^2 score, score = -out, and mean = e^-theta t x0 + (1 - ...) y
    decay = torch.exp(-1.5 * t)[:, None, None, None]
    std = model.process.weights(t).noise[:, None, None, None] * math.sqrt(2)
    torch.testing.assert_close(estimate, (x - std**2 * out - (1 - decay) * y) / decay, **EXACT)


@pytest.mark.parametrize("name", SETTINGS)
def test_import_export_import_is_the_identity(name, tmp_path):
    state = single(state_of(name))
    first = import_checkpoints([write(tmp_path / "a.ckpt", state, SETTINGS[name])])
    model = EnhancementModel(first.config)
    model.load_state_dict(first.weights)
    exported = LAYOUTS["sgmse"].export(model)
    assert exported.keys() == state.keys()
    assert [key for key in state if not torch.equal(exported[key], state[key])] == []
    second = import_checkpoints([write(tmp_path / "b.ckpt", exported, SETTINGS[name])])
    assert second.config == first.config


@pytest.mark.parametrize("name", ["sgmse_ncsnpp", "sgmse_ncsnpp_v2"])
def test_a_model_that_predicts_the_score_itself_is_exported_as_theirs(name, tmp_path):
    """Its estimate of clean speech stays, whichever way its last layer is read."""
    settings = COMMON | {"backbone": name.removeprefix("sgmse_"), "loss_type": "score_matching"}
    imported = import_checkpoints([write(tmp_path / "a.ckpt", single(state_of(name)), settings)])
    own = EnhancementModel(dataclasses.replace(imported.config, prediction={"name": "score"})).double()
    own.load_state_dict(imported.weights)
    again = import_checkpoints([write(tmp_path / "b.ckpt", LAYOUTS["sgmse"].export(own), settings)])
    theirs = EnhancementModel(again.config).double()
    theirs.load_state_dict(again.weights)
    arrays = arrays_of(name)
    x, y, t = arrays["in_x"], arrays["in_y"], arrays["in_t"]
    with torch.no_grad():
        estimates = [model.denoiser(x, t, y, Condition(signal=y)) for model in (own, theirs)]
    torch.testing.assert_close(*estimates, **EXACT)


SIZES = {
    "keys_sgmse_ncsnpp": ({}, "ouve", "before", 30),
    "keys_sgmse_ncsnpp_48k": ({}, "ouve", "after", 30),
    "keys_sgmse_ncsnpp_v2": ({"backbone": "ncsnpp_v2", "sde": "sbve"}, "bridge", "none", 50),
}


@pytest.mark.parametrize("name", SIZES)
def test_published_sizes(name, tmp_path):
    settings, process, divide, steps = SIZES[name]
    state = hollow(listed(name))
    imported = assemble("sgmse", sgmse.draft(state, Clues(tmp_path, {"hyper_parameters": settings})), Asked())
    model = imported.outline()
    own = model.state_dict()
    assert {key: value.shape for key, value in own.items()} == {k: v.shape for k, v in imported.weights.items()}
    assert sum(p.numel() for p in model.parameters()) == facts_of(name)["n_parameters"]
    config = imported.config
    assert (config.process["name"], config.backbone["divide"], config.num_steps) == (process, divide, steps)
    assert (config.unit, config.frame_multiple) == ("peak", 64)
    assert config.frame_padding == ("zero" if name == "keys_sgmse_ncsnpp" else "reflection")
    exported = LAYOUTS["sgmse"].export(model)
    assert [(key, tuple(value.shape)) for key, value in exported.items()] == list(listed(name).items())


def test_full_band_settings_are_those_of_the_48k_model(tmp_path):
    imported = assemble("sgmse", sgmse.draft(hollow(listed("keys_sgmse_ncsnpp_48k")), Clues(tmp_path, {})), Asked())
    config = imported.config
    front = {key: config.frontend[key] for key in ("sample_rate", "n_fft", "hop", "exponent", "factor")}
    assert front == {"sample_rate": 48000, "n_fft": 1534, "hop": 384, "exponent": 0.667, "factor": 0.065}
    assert config.process["theta"] == 2.0
    assert config.process["sigma_max"] == pytest.approx(1 / math.sqrt(2))


@pytest.mark.parametrize("c_skip", ["0", "edm"])
def test_training_objectives_of_v2_become_predictions(c_skip, tmp_path):
    state = single(state_of("sgmse_ncsnpp_v2"))
    settings = BRIDGE | {
        "backbone": "ncsnpp_v2",
        "c_in": "edm",
        "c_out": "edm",
        "c_skip": c_skip,
        "network_scaling": "1/sigma",
    }
    imported = import_checkpoints([write(tmp_path / "a.ckpt", state, settings)])
    wanted = SGMSE("clean", "edm", "edm", c_skip, "1/sigma", 0.1, math.sqrt(2))
    assert build("prediction", PREDICTIONS, imported.config.prediction) == wanted


def test_what_a_bare_file_does_not_say_can_be_said(tmp_path):
    path = write(tmp_path / "a.ckpt", single(state_of("sgmse_ncsnpp_v2")))
    front = {"frontend.hop": 8, "frontend.factor": 0.2}
    plain = sgmse.draft(hollow(listed("keys_sgmse_ncsnpp_v2")), Clues(path, {}))
    assert "(--set divide=none for that)" in plain.notes["backbone"]
    said = sgmse.draft(hollow(listed("keys_sgmse_ncsnpp_v2")), Clues(path, {}, settings={"divide": "none"}))
    assert said.config["backbone"]["divide"] == "none"
    assert said.config["frame_padding"] == "reflection"
    assert said.config["prediction"]["c_out"] == "1"
    made = assemble("sgmse", plain, Asked(front, sample_rate=24000))
    assert made.config.frontend["sample_rate"] == 24000
    assert (made.config.frontend["hop"], made.config.frontend["factor"]) == (8, 0.2)
    assert not [note for note in made.notes if "sample-rate" in note or "frontend.factor" in note]


@pytest.fixture
def foreign_file(tmp_path):
    """As Lightning writes it: the settings name the class of a data module, paths, defaults; with averaged weights."""
    state = single(state_of("sgmse_ncsnpp"))
    settings = {**SETTINGS["sgmse_ncsnpp"], "data_module_cls": DataModule, "base_dir": pathlib.Path("data")}
    hyper = lightning.fabric.utilities.data.AttributeDict(settings)
    states = collections.defaultdict(dict, {0: {"step": 3}})
    path = write(tmp_path / "a.ckpt", state, hyper, [value + 1 for value in state.values()], optimizer_states=[states])
    return path, state


def test_foreign_classes_do_not_keep_a_file_from_being_read(foreign_file, monkeypatch):
    path, state = foreign_file
    monkeypatch.delattr("tests.oracles.test_sgmse_import.DataModule", raising=False)
    imported = import_checkpoints([path])
    assert imported.taken.startswith("averaged")
    assert imported.config.process["theta"] == 1.5
    key = "dnn.all_modules.3.bias"
    torch.testing.assert_close(imported.weights[f"{PREFIX}enter.bias"], state[key] + 1)
    raw = import_checkpoints([path], asked=Asked(raw=True))
    assert torch.equal(raw.weights[f"{PREFIX}enter.bias"], state[key])
    assert "hyper_parameters" not in " ".join(imported.notes)


def test_what_stands_in_keeps_and_does_nothing(foreign_file):
    before = set(torch.serialization.get_safe_globals())  # a set to torch too: its order is of no account
    content = foreign.read(foreign_file[0])
    assert issubclass(content["hyper_parameters"]["data_module_cls"], foreign.StandIn)
    assert content["hyper_parameters"]["base_dir"].given == ("data",)
    assert foreign.settings(content["hyper_parameters"])["data_module_cls"] is None
    assert content["optimizer_states"] == [{0: {"step": 3}}]
    assert set(torch.serialization.get_safe_globals()) == before


class Payload:
    """What would run if the file were unpickled."""

    def __init__(self, function, mark):
        self.function, self.mark = function, mark

    def __reduce__(self):
        return self.function, (str(self.mark),)


@pytest.mark.parametrize("function", [os.mkdir, os.system, pathlib.Path.touch, eval])
def test_nothing_in_a_file_runs(function, tmp_path):
    mark = tmp_path / "executed"
    given = f"open({str(mark)!r}, 'w')" if function is eval else mark
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": single(state_of("sgmse_ncsnpp")), "more": Payload(function, given)}, path)
    try:
        assert import_checkpoints([path]).task == "enhance"
    except InputError as error:  # a name in the system's own modules
        assert "which is never run" in str(error)
    assert not mark.exists()


def test_a_converted_model_enhances(tmp_path):
    path = write(tmp_path / "a.ckpt", single(state_of("sgmse_ncsnpp")), SETTINGS["sgmse_ncsnpp"])
    save(import_checkpoints([path], asked=Asked({"sampler.snr": 0.33}, steps=2)), tmp_path / "enhancer")
    enhancer = fromnoise.load(tmp_path / "enhancer")
    assert enhancer.card["config"]["sampler"]["snr"] == 0.33
    noisy = 0.1 * torch.sin(0.3 * torch.arange(700.0))
    clean = enhancer(noisy, sample_rate=16000, seed=3)
    assert clean.shape == noisy.shape
    assert bool(clean.isfinite().all())


@pytest.mark.parametrize(
    ("settings", "asked", "fault"),
    [
        ({"backbone": "dcunet"}, Asked(), "backbone is 'dcunet'; fromnoise reads ncsnpp"),
        ({"sde": "vesde"}, Asked(), "process is 'vesde'"),
        ({"transform_type": "cube"}, Asked(), "the transform 'cube'"),
        ({"backbone": "ncsnpp_v2", "loss_type": "huber"}, Asked(), "loss_type is 'huber'"),
        ({"theta": "fast"}, Asked(), "theta must be a number, got 'fast'"),
        ({"n_fft": 60}, Asked(), "bins"),
        ({}, Asked({"depth": 3}), "backbone 'ncsnpp' has no setting 'depth'"),
        ({}, Asked({"mel.hop": 3}), "has no part 'mel'; its parts are: frontend, backbone"),
        ({}, Asked({"process.gamma": 3}), "process 'ouve' has no setting 'gamma'"),
        ({}, Asked(betas=(0.1,)), "has no betas; leave --betas away"),
    ],
)
def test_what_cannot_be_followed_is_refused(settings, asked, fault, tmp_path):
    path = write(tmp_path / "a.ckpt", single(state_of("sgmse_ncsnpp")), SETTINGS["sgmse_ncsnpp"] | settings)
    with pytest.raises(InputError, match=fault):
        import_checkpoints([path], asked=asked)


def test_other_models_are_not_exported():
    other = EnhancementModel(EnhancementConfig(backbone={"name": "crn", "channels": (4,), "hidden": 8, "squeeze": 4}))
    for model in (other, torch.nn.Linear(2, 2)):
        with pytest.raises(InputError, match="the layout 'sgmse' is for an enhancer"):
            LAYOUTS["sgmse"].export(model)
    with pytest.raises(InputError, match="not written as StoRM's"):
        LAYOUTS["storm"].export(other)
