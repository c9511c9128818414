"""`fromnoise export` and the filter of `fromnoise models`: what is written, said and refused."""

import json

import pytest

import fromnoise.export
from fromnoise import hub
from fromnoise.cli import main


@pytest.fixture
def untraced(monkeypatch):
    """Networks are not written, which takes seconds."""
    monkeypatch.setattr("fromnoise.export.traced", lambda called, what: (None, None))
    monkeypatch.setattr("fromnoise.export.write", lambda program, called, path: path.touch())


def test_a_torch_program_is_written_checked_and_not_replaced_unasked(tiny_models, tmp_path, capsys):
    out = str(tmp_path / "out")
    args = ["export", str(tiny_models["regression"]), "--format", "torch", "-o", out]
    assert main([*args, "--check", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["files"] == ["network.pt2", "runner.json"]
    assert len(told["differences"]) == 3
    assert max(told["differences"].values()) < 1e-5
    assert main(args) == 2
    assert "holds an export already; choose another folder, or --overwrite" in capsys.readouterr().err


def test_the_lines_say_what_was_written_and_how_to_use_it(tiny_models, tmp_path, capsys, untraced):
    out = tmp_path / "out"
    assert main(["export", str(tiny_models["bridge"]), "-o", str(out), "--steps", "2", "--sampler", "ddim"]) == 0
    said = capsys.readouterr().out
    assert f"{out}/runner.json" in said
    assert f"use: python -m fromnoise.runner {out} noisy.wav -o clean.wav" in said
    facts = json.loads((out / "runner.json").read_text())
    calls = [step for step in facts["runs"]["default"]["steps"] if step["op"] == "call"]
    assert len(calls) == 2
    assert facts["licence"] == "MIT"


def test_a_difference_is_a_failure(tiny_models, tmp_path, capsys, untraced, monkeypatch):
    monkeypatch.setattr(fromnoise.export, "check", lambda *args: {"sound": 2e-3})
    assert main(["export", str(tiny_models["bridge"]), "-o", str(tmp_path / "out"), "--check"]) == 1
    told = capsys.readouterr()
    assert "sound: differs by at most 0.002" in told.out
    assert "does not do what tiny-bridge does: a difference above 0.001" in told.err


@pytest.mark.parametrize(
    ("args", "fault"),
    [
        (["--format", "tflite"], "--format must be onnx or torch, got 'tflite'"),
        (["--check", "--engine", "tpu"], "--engine must be onnxruntime or openvino, got 'tpu'"),
        (["-o", __file__], "--output must be a folder, got the file"),
        (["--guidance", "2"], "--guidance is for generators"),
        (["--sampler", "pc:corrector=langevin"], "cannot be exported: between two network calls it uses"),
        (["--steps", "0"], "steps must lie between 1 and"),
    ],
)
def test_what_cannot_be_exported_is_said_and_nothing_written(args, fault, tiny_models, tmp_path, capsys):
    assert main(["export", str(tiny_models["bridge"]), "-o", str(tmp_path / "out"), *args]) == 2
    assert fault in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_models_are_listed_with_hash_and_filtered_by_licence(make_model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hub, "BUNDLED", tmp_path)
    for kind, licence in {"regression": "CC BY 4.0", "bridge": "CC BY-NC 4.0"}.items():
        folder = make_model(kind, tmp_path / f"tiny-{kind}")
        card = json.loads((folder / "card.json").read_text())
        (folder / "card.json").write_text(json.dumps(card | {"licence": licence}))
        assert len(card["sha256"]) == 64
    assert main(["models", "--json"]) == 0
    found = {model["name"]: model for model in json.loads(capsys.readouterr().out)}
    assert {name: model["commercial"] for name, model in found.items()} == {
        "tiny-regression": True,
        "tiny-bridge": False,
    }
    assert all(model["sha256"] and model["bytes"] > 1000 for model in found.values())
    assert main(["models", "--commercial", "--json"]) == 0
    assert [model["name"] for model in json.loads(capsys.readouterr().out)] == ["tiny-regression"]
    assert main(["models", str(tmp_path / "tiny-bridge")]) == 0
    assert f"sha256: {found['tiny-bridge']['sha256']} (as the card states)" in capsys.readouterr().out
    assert main(["models", "tiny-regression", "--commercial"]) == 0
    assert main(["models", "tiny-bridge", "--commercial"]) == 2
    assert "the licence 'CC BY-NC 4.0' does not allow commercial use" in capsys.readouterr().err
    with (tmp_path / "tiny-bridge/model.safetensors").open("ab") as file:
        file.write(b"x")
    assert main(["models", "tiny-bridge", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["intact"] is False
