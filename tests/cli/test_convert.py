"""`fromnoise convert`: a folder that loads, or one sentence, exit code 2 and nothing written."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch

import fromnoise
from fromnoise import hub
from fromnoise.backbones import TCUNetConfig
from fromnoise.backbones.ncsnpp import NCSNppConfig
from fromnoise.cli import main
from fromnoise.importers import ncsnpp
from tests import published
from tests.score_files import write

SMALL = published.philsyn(8, 8, 3, 80)
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 96451975\n"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "ch64_T50_betaT0.05" / "1000000.pkl"
    path.parent.mkdir()
    torch.save({"model_state_dict": published.filled(SMALL), "optimizer_state_dict": {"state": {}}}, path)
    return path


class Payload:
    """What would run if the file were unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_checkpoint_becomes_a_model_that_vocodes(checkpoint: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "vocoder"
    assert main(["convert", str(checkpoint), "-o", str(out), "--steps", "2"]) == 0
    shown = capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "card.json", "model.safetensors"]
    card = hub.read_card(out)
    assert f"{out}: vocode, {hub.human_size(published.num_parameters(SMALL))} parameters, layout philsyn" in shown
    assert [f"assumed: {note}" in shown for note in card["origin"]["assumed"]] == [True, True, True]
    assert card["origin"]["files"][0]["file"] == "1000000.pkl"
    assert all(note in (out / "README.md").read_text(encoding="utf-8") for note in card["origin"]["assumed"])
    assert f"fromnoise vocode MEL_OR_SOUND -m {out}" in shown
    vocoder = fromnoise.load(out)
    wave = vocoder(torch.full((80, 4), -5.0), seed=1)
    assert wave.shape == (4 * 256,)
    assert bool(wave.isfinite().all())
    assert float(wave.std()) > 0.1


def test_json_tells_what_was_made(checkpoint: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "m"
    assert main(["convert", str(checkpoint), "-o", str(out), "--json", "--set", "dilation_cycle=2"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["task"], facts["layout"], facts["output"]) == ("vocode", "philsyn", str(out))
    assert facts["parameters"] == published.num_parameters(SMALL)
    assert len(facts["files"][0]["sha256"]) == 64
    assert hub.read_card(out)["config"]["backbone"]["dilation_cycle"] == 2


def test_options_reach_the_card(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "m"
    options = ["--schedule", "40,0.04", "--betas", "1e-4, 0.001,0.1", "--set", "residual_includes_step=false", "-q"]
    assert main(["convert", str(checkpoint), "-o", str(out), "--layout", "philsyn", *options]) == 0
    config = hub.read_card(out)["config"]
    assert config["process"] == {"name": "vp", "num_steps": 40, "beta_min": 1e-4, "beta_max": 0.04}
    assert (config["grid"], config["num_steps"]) == ({"name": "levels", "betas": [1e-4, 1e-3, 0.1]}, 3)
    assert config["backbone"]["residual_includes_step"] is False


def test_the_mean_of_checkpoints(tmp_path: Path) -> None:
    shapes = published.lmnt(4, 2)
    for i in range(2):
        torch.save({"model": published.filled(shapes, float(i))}, tmp_path / f"{i}.pt")
    files = [str(tmp_path / f"{i}.pt") for i in range(2)]
    assert main(["convert", *files, "--average", "-o", str(tmp_path / "m"), "-q"]) == 0
    assert main(["convert", *files, "-o", str(tmp_path / "n")]) == 2
    assert not (tmp_path / "n").exists()
    bias = hub.read_weights(tmp_path / "m")["denoiser.backbone.embed.first.bias"]
    states = [published.filled(shapes, float(i))["diffusion_embedding.projection1.bias"] for i in range(2)]
    torch.testing.assert_close(bias, (states[0] + states[1]) / 2)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BAD = {
    "pointer": (
        lambda path, _: path.write_text(POINTER),
        "Git LFS pointer to a file of 96451975 bytes; fetch that with",
    ),
    "truncated": (lambda path, _: cut(path), "cannot be read as a checkpoint of tensors"),
    "empty": (lambda path, _: path.write_bytes(b""), "cannot be read as a checkpoint of tensors"),
    "text": (lambda path, _: path.write_text("<html>not found</html>"), "cannot be read as a checkpoint of tensors"),
    "payload": (lambda path, mark: torch.save({"model": Payload(mark)}, path), "holds code, which is never run"),
    "bare pickle": (lambda path, mark: path.write_bytes(pickle.dumps(Payload(mark))), "holds code, which is never run"),
    "a whole model": (
        lambda path, _: torch.save(torch.nn.Linear(2, 2), path),
        "holds a Linear; expected a dictionary of",
    ),
    "a list": (lambda path, _: torch.save([torch.ones(1)], path), "holds a list; expected a dictionary of tensors"),
    "foreign": (lambda path, _: torch.save({"unet.weight": torch.ones(1)}, path), "is of no known layout"),
    "absent": (lambda path, _: path.unlink(), "cannot be read (No such file or directory)"),
    "a folder": (lambda path, _: (path.unlink(), path.mkdir()), "is a folder; expected a checkpoint file"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_is_no_checkpoint(case: str, checkpoint: Path, tmp_path: Path, capsys) -> None:
    spoil, sentence = BAD[case]
    mark, out = tmp_path / "executed", tmp_path / "out"
    spoil(checkpoint, mark)
    assert main(["convert", str(checkpoint), "-o", str(out)]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("Error: ")
    assert (shown.err.count("\n"), shown.out) == (1, "")
    assert str(checkpoint) in shown.err
    assert sentence in shown.err
    assert not out.exists()
    assert not mark.exists()


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.2, 0.6, 0.9, 0.97, 0.999])
@pytest.mark.parametrize("zipped", [True, False])
def test_wherever_a_file_ends_it_is_refused(
    kept: float, zipped: bool, checkpoint: Path, tmp_path: Path, capsys
) -> None:
    torch.save({"model_state_dict": published.filled(SMALL)}, checkpoint, _use_new_zipfile_serialization=zipped)
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[: int(kept * len(data))])
    assert main(["convert", str(checkpoint), "-o", str(tmp_path / "out")]) == 2
    assert "cannot be read as a checkpoint of tensors" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--layout", "lmnt"], "is not of the layout 'lmnt' but of 'philsyn'"),
        (["--layout", "torch"], "unknown layout 'torch'; choose one of: auto, philsyn, lmnt, sashimi"),
        (["--schedule", "50"], "--schedule takes the number of steps and the last beta, got '50'"),
        (["--schedule", "inf,0.1"], "--schedule takes the number of steps and the last beta, got 'inf,0.1'"),
        (["--schedule", "0,0.1"], "expected 1 to 10000 steps of training, got 0"),
        (["--schedule", "many,0.1"], "--schedule takes numbers with commas between them, got 'many'"),
        (["--betas", "0.1;0.2"], "--betas takes numbers with commas between them, got '0.1;0.2'"),
        (["--set", "dilation_cycle"], "--set takes KEY=VALUE, got 'dilation_cycle'"),
        (["--set", "dilation_cycle=0"], "a dilation cycle of 1 to 24"),
        (["--steps", "0"], "--steps must be above 0, got 0"),
        (["--config", "nowhere.json"], "nowhere.json cannot be read"),
    ],
)
def test_a_wrong_request(options: list[str], sentence: str, checkpoint: Path, tmp_path: Path, capsys) -> None:
    assert main(["convert", str(checkpoint), "-o", str(tmp_path / "out"), *options]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_in_the_way_stays(checkpoint: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "m"
    assert main(["convert", str(checkpoint), "-o", str(out), "-q"]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert main(["convert", str(checkpoint), "-o", str(out), "--steps", "3"]) == 2
    assert "holds a model already; name another folder, or add --overwrite" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert main(["convert", str(checkpoint), "-o", str(out), "--steps", "3", "--overwrite", "-q"]) == 0
    assert hub.read_card(out)["config"]["num_steps"] == 3
    assert main(["convert", str(checkpoint), "-o", str(checkpoint)]) == 2
    assert "is a file; name a folder for the model" in capsys.readouterr().err
    assert main(["convert", str(checkpoint), "-o", str(checkpoint.parent), "--overwrite"]) == 2
    assert "holds other files, e.g. 1000000.pkl" in capsys.readouterr().err


@pytest.fixture(scope="module")
def score_model(tmp_path_factory) -> tuple[Path, dict[str, torch.Tensor]]:
    """An enhancer's checkpoint with averaged weights, which differ from those of the last step, and these."""
    config = NCSNppConfig(16, 4, 2, 4, (1, 2), 1, (), centered=True)
    inner = ncsnpp.to_published(config.build().state_dict(), config)
    state = {f"dnn.{key}": value for key, value in inner.items()}
    settings = {"backbone": "ncsnpp", "sde": "ouve", "n_fft": 30, "hop_length": 8, "spec_factor": 0.15, "sr": 8000}
    shadow = [value + 0.01 for value in state.values()]
    return write(tmp_path_factory.mktemp("sgmse") / "vb.ckpt", state, settings, shadow), state


def test_averaged_weights_are_taken_unless_raw_ones_are_asked_for(score_model, tmp_path: Path, capsys) -> None:
    path, state = score_model
    assert main(["convert", str(path), "-o", str(tmp_path / "m")]) == 0
    shown = capsys.readouterr().out
    assert "weights: averaged over training (decay 0.999, updates 10)" in shown
    assert f"use: fromnoise enhance FILE_OR_FOLDER -m {tmp_path / 'm'}" in shown
    assert main(["convert", str(path), "-o", str(tmp_path / "n"), "--raw", "--json", "--steps", "3"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["task"], facts["layout"], facts["weights"]) == ("enhance", "sgmse", "those of the last step")
    key, bias = "denoiser.backbone.enter.bias", state["dnn.all_modules.3.bias"]
    torch.testing.assert_close(hub.read_weights(tmp_path / "m")[key], bias + 0.01)
    assert torch.equal(hub.read_weights(tmp_path / "n")[key], bias)
    assert "averaged over training" in (tmp_path / "m" / "README.md").read_text(encoding="utf-8")


def test_a_model_goes_back_to_its_layout(score_model, tmp_path: Path, capsys) -> None:
    path, state = score_model
    assert main(["convert", str(path), "-o", str(tmp_path / "m"), "--raw", "-q"]) == 0
    out = tmp_path / "new" / "back.ckpt"
    assert main(["convert", str(tmp_path / "m"), "--to", "sgmse", "-o", str(out)]) == 0
    assert f"{out}: {len(state)} entries, layout sgmse" in capsys.readouterr().out
    content = torch.load(out, weights_only=True)
    assert all(torch.equal(content["state_dict"][key], value) for key, value in state.items())
    assert all(map(torch.equal, content["ema"]["shadow_params"], state.values()))
    for options, sentence in (
        (["--to", "sgmse"], "exists already; name a new file"),
        (["--to", "diffsep", "--output", str(tmp_path / "x")], "the layout 'diffsep' is for a separator"),
        (["--to", "philsyn", "--output", str(tmp_path / "x")], "the layout 'philsyn' is for a wavenet"),
        (["--to", "torch", "--output", str(tmp_path / "x")], "unknown layout 'torch'; choose one of: philsyn"),
    ):
        assert main(["convert", str(tmp_path / "m"), "-o", str(out), *options]) == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_vocoder_goes_back_to_its_layout(checkpoint: Path, tmp_path: Path) -> None:
    assert main(["convert", str(checkpoint), "-o", str(tmp_path / "m"), "-q"]) == 0
    out = tmp_path / "back.pkl"
    assert main(["convert", str(tmp_path / "m"), "--to", "philsyn", "-o", str(out), "-q"]) == 0
    content = torch.load(out, weights_only=True)["model_state_dict"]
    assert all(torch.equal(content[key], value) for key, value in published.filled(SMALL).items())


def test_networks_in_files_of_their_own_become_one_model(tmp_path: Path, capsys) -> None:
    torch.manual_seed(0)
    for name, wiring in (("ddpm", "concat"), ("c_gen", "base")):
        torch.save({"model_state_dict": TCUNetConfig(wiring).build().state_dict()}, tmp_path / f"{name}.pth")
    main_file, generator = str(tmp_path / "ddpm.pth"), str(tmp_path / "c_gen.pth")
    options = ["--steps", "7", "--set", "run.start=prior", "--set", "run.guidance=0"]
    assert main(["convert", main_file, "--generator", generator, "-o", str(tmp_path / "m"), *options]) == 0
    assert f"fromnoise enhance FILE_OR_FOLDER -m {tmp_path / 'm'}" in capsys.readouterr().out
    config = hub.read_card(tmp_path / "m")["config"]
    assert (config["generator"], config["refiner"]) == ({"name": "tcunet", "wiring": "base"}, None)
    assert (config["start"], config["guidance"], config["num_steps"]) == ("prior", 0, 7)
    assert main(["convert", main_file, "--refiner", main_file, "-o", str(tmp_path / "n")]) == 2
    assert "its refiner is a diffusion network; expected a regression network" in capsys.readouterr().err
    assert not (tmp_path / "n").exists()


def test_a_failed_write_leaves_no_folder(checkpoint: Path, tmp_path: Path, monkeypatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device", "model.safetensors")

    monkeypatch.setattr("fromnoise.hub.save_file", full)
    assert main(["convert", str(checkpoint), "-o", str(tmp_path / "out")]) == 1
    assert not (tmp_path / "out").exists()


def test_a_pointer_in_place_of_a_model_s_weights(checkpoint: Path, tmp_path: Path) -> None:
    assert main(["convert", str(checkpoint), "-o", str(tmp_path / "m"), "-q"]) == 0
    (tmp_path / "m" / "model.safetensors").write_text(POINTER)
    with pytest.raises(fromnoise.types.InputError, match="Git LFS pointer"):
        fromnoise.load(tmp_path / "m")
