"""`fromnoise diagnose` of every task's models: numbers, files, and what it refuses."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from fromnoise import hub
from fromnoise.cli import main
from fromnoise.tasks import EnhancementConfig, EnhancementModel, GenerationConfig, GenerationModel
from tests import tiny_vocoders
from tests.conftest import make_tiny
from tests.tiny_separators import make_separator

__all__ = ["make_separator"]  # a fixture

RATE = 16000
LEVELS = (1e-3, 0.05, 0.35)
DUAL = {
    "backbone": {"name": "tcunet", "wiring": "dual"},
    "generator": {"name": "tcunet"},
    "refiner": {"name": "tcunet"},
    "process": {"name": "vp", "beta_max": 0.05, "num_steps": 200},
    "prediction": {"name": "noise"},
    "sampler": {"name": "ddpm"},
    "grid": {"name": "levels", "betas": list(LEVELS)},
    "num_steps": len(LEVELS),
    "start": "condition",
    "guidance": 0.5,
}


def sound(index: int, n: int, rate: int = RATE) -> np.ndarray:
    t = np.arange(n) / rate
    wave = np.sin(2 * np.pi * (150 + 60 * index) * t) * np.sin(2 * np.pi * (2 + index) * t) ** 2
    return (0.3 * wave).astype(np.float32)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    """Three pairs of 0.3 s and one too short to be used."""
    root = tmp_path_factory.mktemp("pairs")
    for i, n in enumerate([5000, 5600, 5000, 900]):
        clean = sound(i, n)
        noise = 0.05 * np.random.default_rng(i).standard_normal(n)
        for side, wave in {"clean": clean, "noisy": clean + noise}.items():
            (root / side).mkdir(exist_ok=True)
            soundfile.write(root / side / f"{i}.wav", wave, RATE)
    return root


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Four recordings each of two classes."""
    root = tmp_path_factory.mktemp("clips")
    for label in ("low", "high"):
        (root / label).mkdir()
        for i in range(4):
            soundfile.write(root / label / f"{label}_{i}.wav", sound(i + 4 * (label == "high"), 4000, 8000), 8000)
    return root


@pytest.fixture(scope="module")
def generator(tmp_path_factory) -> Path:
    return save_generator(tmp_path_factory.mktemp("generator"), ("low", "high"))


def save_generator(folder: Path, labels: tuple[str, ...]) -> Path:
    network = {"name": "convnext", "features": 1, "width": 8, "layers": 2, "expansion": 2, "kernel": 3}
    config = GenerationConfig(
        frontend={"name": "wave", "sample_rate": 2000},
        backbone=network | {"vector": 6 if labels else 0},
        process={"name": "vp", "num_steps": 20, "beta_max": 0.2},
        num_steps=20,
        labels=labels,
        label_dim=6,
        seconds=0.25,
    )
    torch.manual_seed(0)
    model = GenerationModel(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.3)
    return save("generate", model, folder, 2000)


def save(task: str, model: torch.nn.Module, folder: Path, rate: int) -> Path:
    card = {"task": task, "name": folder.name, "config": hub.config_dict(model.config), "licence": "MIT"}
    hub.save(model, card | {"sample_rate": rate}, folder)
    return folder


def diagnose(*arguments: object) -> int:
    return main(["diagnose", *map(str, arguments), "-d", "cpu"])


def found(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out)


def test_a_report_of_a_dual_network_with_generator_and_guidance(pairs, tmp_path, capsys):
    torch.manual_seed(0)
    model = save("enhance", EnhancementModel(EnhancementConfig(**DUAL)), tmp_path / "dual", RATE)
    assert diagnose(model, pairs, "-o", tmp_path / "report", "--bins", 1, "--seeds", 2, "--limit", 3, "--json") == 0
    shown = capsys.readouterr()
    assert "left out, silent or shorter than 0.25 s: 3" in shown.err
    result = json.loads(shown.out)
    assert result["items"] == ["0", "2"]
    assert result["condition"] == "the generator's estimate"
    assert result["meaning"].endswith(".")
    assert [len(result["curve"]), *(result["curve"][0][k] is None for k in ("total", "gain"))] == [1, True, False]
    assert set(result["scores"]) == {"noisy", "condition", "sample", "sample - condition"}
    assert {"gain", "swap", "silence", "share", "faithfulness", "dispersion"} <= set(result["summary"])
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names == {"collapse.json", "collapse.csv", "items.csv", "collapse.png", "panels.png"}
    assert json.loads((tmp_path / "report/collapse.json").read_text()) == result
    with (tmp_path / "report/collapse.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["gain"]) == result["curve"][0]["gain"]
    assert (tmp_path / "report/panels.png").read_bytes().startswith(b"\x89PNG")


def test_models_are_compared_on_the_same_draws(tiny_models, pairs, tmp_path, capsys):
    other = make_tiny("bridge", tmp_path / "other", seed=1)
    both = f"{tiny_models['bridge']},{other}"
    assert diagnose(both, pairs, "--bins", "run", "--seeds", 0, "-o", tmp_path / "report") == 0
    text = capsys.readouterr().out
    results = json.loads((tmp_path / "report/collapse.json").read_text())
    gains = [one["summary"]["gain"]["value"] for one in results]
    assert f": {max(gains) - min(gains):.3f} [" in text.split("gain of ")[1]
    assert [len(one["curve"]) for one in results] == [3, 3]
    assert (tmp_path / "report/collapse.png").is_file()
    assert not (tmp_path / "report/panels.png").exists()


def test_one_step_is_measured_where_it_is_taken_and_total_counts_the_state(tiny_models, pairs, capsys):
    assert diagnose(tiny_models["regression"], pairs, "--seeds", 0, "--json") == 0
    result = found(capsys)
    assert [row["t"] for row in result["curve"]] == [1.0]
    assert result["summary"]["total"]["value"] > 0
    assert result["curve"][0]["loss_true"] is None  # this process has no noise


def test_the_seed_decides(tiny_models, pairs, capsys):
    gains = []
    for seed in (0, 0, 1):
        assert diagnose(tiny_models["bridge"], pairs, "--seeds", 0, "--bins", 2, "--seed", seed, "--json") == 0
        gains.append(found(capsys)["curve"][0]["gain"])
    assert gains[0] == gains[1] != gains[2]


@pytest.mark.parametrize("kind", ["wavenet", "magnitude"])
def test_a_vocoder_is_told_mels(kind, clips, tmp_path, capsys):
    model = tiny_vocoders.save(kind, tmp_path / "vocoder")
    assert diagnose(model, clips, "--bins", 2, "--limit", 3, "--json", "-o", tmp_path / "report") == 0
    result = found(capsys)
    assert result["summary"]["likeness_condition_label"]["value"] == pytest.approx(1)
    assert math.isfinite(result["summary"]["gain"]["value"])


@pytest.mark.parametrize("level", ["none", "local"])
def test_a_separator_is_told_the_mixture(level, make_separator, pairs, tmp_path, capsys):
    """The network splits the mixture and leaves the state aside: all of its response is to what it is told."""
    model = make_separator(level=level, bands={"toss": False}, num_steps=2)
    assert diagnose(model, pairs, "--bins", 2, "--seeds", 1, "--json", "-o", tmp_path / "report") == 0
    result = found(capsys)
    assert result["condition"] == "the mixture"
    assert "dispersion" not in result["summary"]
    assert result["summary"]["share"]["value"] == 1
    assert result["summary"]["gain"]["value"] > 0


def test_a_generator_is_told_labels(generator, clips, tmp_path, capsys):
    assert diagnose(generator, clips, "--bins", 2, "--limit", 4, "--steps", 2, "--json", "-o", tmp_path) == 0
    result = found(capsys)
    assert result["condition"] == "the label"
    assert len(result["items"]) == 4
    assert "faithfulness" in result["summary"]


def test_what_cannot_be_diagnosed_is_said(generator, clips, pairs, tiny_models, tmp_path, capsys):
    free = save_generator(tmp_path / "free", ())
    said = {
        (free, clips): "no condition",
        (generator, clips / "low"): "with labels",
        (generator, clips, "--limit", 8): "lower --limit",
        (tiny_models["bridge"], pairs, "--bins", "0"): "--bins",
        (tiny_models["bridge"], clips): "expected a folder with pairs",
        ("digits-classifier", clips): "classify",
    }
    for arguments, sentence in said.items():
        assert diagnose(*arguments) == 2, arguments
        assert sentence in capsys.readouterr().err
