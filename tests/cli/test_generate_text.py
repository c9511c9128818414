"""`fromnoise generate` from texts, and with a recording: which files there are, what is said, and what is refused."""

import json
import os

import numpy as np
import pytest
import soundfile
import torch

from fromnoise import hub
from fromnoise.cli import main
from fromnoise.tasks import GenerationConfig, GenerationModel

RATE = 1000
CLIP = 64


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config = GenerationConfig(
        frontend={"name": "wave", "sample_rate": RATE, "scale": 100.0},
        backbone={"name": "convnext", "features": 1, "width": 8, "layers": 1, "kernel": 3, "vector": 8},
        process={"name": "vp_angular"},
        prediction={"name": "velocity"},
        sampler={"name": "ddim"},
        grid={"name": "uniform"},
        num_steps=3,
        text={"name": "bytes", "dim": 8, "layers": 1, "heads": 2, "max_bytes": 40},
        seconds=CLIP / RATE,
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = GenerationModel(config)
        network.denoiser.backbone.last.weight.normal_(std=0.3)
    folder = tmp_path_factory.mktemp("generators") / "texts"
    card = {"task": "generate", "name": "texts", "config": hub.config_dict(config), "sample_rate": RATE}
    hub.save(network, card, folder)
    return folder


@pytest.fixture
def run(model, tmp_path, monkeypatch):
    """Run `fromnoise generate` in a folder that holds one recording, and return its exit code."""
    monkeypatch.chdir(tmp_path)
    wave = 0.2 * np.random.default_rng(0).standard_normal((100, 2))
    soundfile.write("given.wav", wave, RATE, subtype="FLOAT")
    return lambda *words: main(["generate", *map(str, words), "-m", str(model), "-d", "cpu"])


def samples(path: str) -> np.ndarray:
    return soundfile.read(path, dtype="float32")[0]


def test_files_are_called_by_their_text(run, capsys):
    assert run("--text", "rain on leaves", "-t", "a dog", "-n", 2, "-o", "out", "--negative", "wind", "--json") == 0
    assert sorted(os.listdir("out")) == ["a-dog_0.wav", "a-dog_1.wav", "rain-on-leaves_0.wav", "rain-on-leaves_1.wav"]
    files = json.loads(capsys.readouterr().out)["files"]
    assert [record["text"] for record in files] == ["rain on leaves"] * 2 + ["a dog"] * 2
    assert run("--text", "a dog", "-o", "alone", "--start", 1, "--negative", "wind") == 0
    np.testing.assert_allclose(samples("alone/a-dog_1.wav"), samples("out/a-dog_1.wav"), rtol=0, atol=2**-14)
    assert run("--text", "雨" * 90, "-o", "one.wav") == 0


def test_a_recording_is_varied_filled_and_continued(run):
    """The mean of its channels is taken; what is kept is kept to the sample (32 bits: to their last)."""
    mono = samples("given.wav").mean(1)
    tail = ("--text", "rain", "--subtype", "FLOAT", "-o")
    assert run("--inpaint", "given.wav", "--from", 0.04, "--to", 0.06, "-n", 2, *tail, "filled") == 0
    for i in range(2):
        made = samples(f"filled/rain_{i}.wav")
        np.testing.assert_array_equal(np.delete(made, range(20, 80)), np.delete(mono, range(20, 80)))
        assert np.abs(made - mono)[40:60].max() > 1e-4
    assert run("--continue", "given.wav", "--seconds", 0.3, *tail, "long.wav") == 0
    assert len(samples("long.wav")) == 300
    np.testing.assert_array_equal(samples("long.wav")[:80], mono[:80])
    assert run("--init", "given.wav", "--strength", 0.01, *tail, "varied.wav") == 0
    assert 0 < np.abs(samples("varied.wav") - mono).max() < 0.05


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--text", ""], "the text is empty"),
        (["--text", "rain", "--label", "dog"], "--label and --text exclude each other"),
        (["--label", "dog"], "reads texts and has no labels; write --text 'dog' instead"),
        (["--text", "rain", "--guidance", "-1"], "guidance must be a number from 0"),
        (["--text", "rain", "--seconds", "0"], "expected a sound of 1 to"),
        (["--init", "given.wav", "--continue", "given.wav"], "--init and --continue exclude each other"),
        (["--from", "1"], "add --inpaint SOUND"),
        (["--overlap", "1"], "add --continue SOUND"),
        (["--inpaint", "given.wav", "--from", "0.01"], "--inpaint needs --from and --to"),
        (["--continue", "given.wav"], "--continue needs --seconds"),
        (["--init", "given.wav", "--seconds", "2"], "keeps the length of the recording"),
        (["--init", "given.wav", "--strength", "2"], "strength must lie above 0"),
        (["--text", "rain", "--seconds", "inf"], "expected a sound of 1 to"),
        (["--text", "rain", "--decode-steps", "5"], "makes sounds without an autoencoder"),
        (["--continue", "given.wav", "--seconds", "nan"], "expected at most"),
        (["--continue", "given.wav", "--seconds", "1", "--overlap", "nan"], "expected an overlap of 0.001 s"),
        (["--inpaint", "given.wav", "--from", "nan", "--to", "0.05"], "expected a gap within the 0.1 s"),
        (["--init", "gone.wav"], "gone.wav: no such file"),
        (["--continue", "given.wav", "--seconds", "0.05"], "more seconds than the 0.1 s that are there"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_is_one_sentence(run, capsys, words, fault):
    assert run(*words) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("Error: ")
    assert said.count("\n") == 0
    assert fault in said
