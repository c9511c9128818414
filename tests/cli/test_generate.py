"""`fromnoise generate`, `denoise` and `interpolate`: which files there are, what is said, and what is refused."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from fromnoise import hub
from fromnoise.cli import main
from fromnoise.tasks import GenerationConfig, GenerationModel

RATE = 1000
CLIP = 64
KINDS = {"free": (), "digits": ("zero", "one", "two")}


def make_model(labels: tuple[str, ...], folder: Path, scale: float = 1.0) -> Path:
    config = GenerationConfig(
        frontend={"name": "wave", "sample_rate": RATE, "scale": scale},
        backbone={"name": "convnext", "features": 1, "width": 8, "layers": 1, "kernel": 3, "vector": 4 * bool(labels)},
        process={"name": "vp", "num_steps": 8, "beta_max": 0.3},
        num_steps=8,
        labels=labels,
        label_dim=4,
        seconds=CLIP / RATE,
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = GenerationModel(config)
        model.denoiser.backbone.last.weight.normal_(std=0.3)
    card = {"task": "generate", "name": "tiny", "config": hub.config_dict(config), "licence": "MIT"}
    hub.save(model, card | {"sample_rate": RATE}, folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """Kind -> model folder. "quiet" never reaches full scale, the others do."""
    root = tmp_path_factory.mktemp("generators")
    made = {kind: make_model(labels, root / kind) for kind, labels in KINDS.items()}
    return made | {"quiet": make_model((), root / "quiet", 100.0)}


@pytest.fixture
def run(models, tmp_path, monkeypatch):
    """Run a command in an empty folder and return its exit code."""
    monkeypatch.chdir(tmp_path)

    def command(name: str, *arguments: object, kind: str = "digits") -> int:
        return main([name, *map(str, arguments), "-m", str(models.get(kind, kind)), "-d", "cpu"])

    return command


def samples(path: Path | str) -> np.ndarray:
    return soundfile.read(path, dtype="float32")[0]


def names(folder: Path | str) -> list[str]:
    return sorted(os.listdir(folder))


def sound(path: Path, n: int = 200, rate: int = RATE, channels: int = 1, seed: int = 0) -> Path:
    wave = 0.2 * np.random.default_rng(seed).standard_normal((n, channels))
    soundfile.write(path, wave.astype(np.float32), rate)
    return path


def error(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said on standard error: one line that is no traceback."""
    said = capsys.readouterr().err.strip()
    assert said.startswith("Error: ")
    assert said.count("\n") == 0
    assert "unexpected" not in said
    return said


def test_sounds_are_named_by_label_and_number(run):
    assert run("generate", "-n", 2, "--label", "two", "-l", "0", "-o", "out") == 0
    assert names("out") == ["two_0.wav", "two_1.wav", "zero_0.wav", "zero_1.wav"]
    facts = soundfile.info("out/two_1.wav")
    assert (facts.samplerate, facts.channels, facts.frames, facts.subtype) == (RATE, 1, CLIP, "PCM_16")
    assert run("generate", "-o", "all", "--label", "all") == 0
    assert names("all") == ["one_0.wav", "two_0.wav", "zero_0.wav"]
    assert run("generate") == 0
    assert names("generated") == ["free_0.wav"]


def test_a_run_goes_on_where_another_ended(run):
    """Same seed, same number, same sound, in whatever batch; 16 bits hide the last bits of sums."""
    assert run("generate", "-n", 4, "-o", "whole", "--seed", 5, kind="quiet") == 0
    assert run("generate", "-n", 2, "-o", "part", "--seed", 5, "--start", 2, "--batch-size", 1, kind="quiet") == 0
    assert names("part") == ["free_2.wav", "free_3.wav"]
    for name in names("part"):
        np.testing.assert_allclose(samples(f"part/{name}"), samples(f"whole/{name}"), rtol=0, atol=2**-15)
    assert run("generate", "-n", 1, "-o", "other", "--seed", 6, kind="quiet") == 0
    assert np.abs(samples("other/free_0.wav") - samples("whole/free_0.wav")).max() > 1e-3


def test_length_steps_sampler_guidance_and_format_can_be_chosen(run, capsys):
    options = ["--seconds", 0.05, "--steps", 3, "--sampler", "dpmpp_2m", "--label", "one", "--guidance", 2]
    assert run("generate", *options, "--format", "flac", "--subtype", "pcm_24", "-o", "out") == 0
    facts = soundfile.info("out/one_0.flac")
    assert (facts.frames, facts.subtype) == (50, "PCM_24")
    assert run("generate", "-o", "a.wav", "--subtype", "float") == 0
    assert names(".") == ["a.wav", "out"]
    assert "real-time factor" in capsys.readouterr().out


def test_a_peak_beyond_full_scale_is_scaled_down_and_said(run, capsys):
    """As a whole, not clipped; a float file keeps it."""
    assert run("generate", "-o", "float.wav", "--subtype", "FLOAT", "--seed", 1) == 0
    wave = samples("float.wav")
    assert np.abs(wave).max() > 1.2
    capsys.readouterr()
    assert run("generate", "-o", "out", "--seed", 1) == 0
    assert f"its peak of {np.abs(wave).max():.2f} was beyond full scale, so it was scaled" in capsys.readouterr().out
    np.testing.assert_allclose(samples("out/free_0.wav"), wave / np.abs(wave).max(), rtol=0, atol=2**-15)


def test_what_json_says(run, capsys):
    assert run("generate", "-n", 2, "-l", "one", "-o", "out", "--seed", 3, "--json", "--steps", 2) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["written"], found["failed"], found["model"]) == (2, 0, "tiny")
    assert [file["output"] for file in found["files"]] == ["out/one_0.wav", "out/one_1.wav"]
    assert [(file["label"], file["index"], file["seed"]) for file in found["files"]] == [("one", 0, 3), ("one", 1, 3)]
    for file in found["files"]:
        assert file["gain"] == pytest.approx(1 / max(1, file["peak"]))


def test_quiet_says_nothing_and_a_longer_sound_a_warning(run, capsys):
    assert run("generate", "-o", "out", "--quiet") == 0
    shown = capsys.readouterr()
    assert shown.out == shown.err == ""
    assert run("generate", "-n", 2, "-o", "out", "--seconds", 0.1, "--batch-size", 1) == 0
    warning = capsys.readouterr().err
    assert warning.startswith("Warning: 0.1 s is longer than the 0.064 s of the training")
    assert warning.count("\n") == 1
    assert run("generate", "-o", "out", "--guidance", 3) == 0
    assert "guidance has no effect without a label" in capsys.readouterr().err


def test_the_contact_sheet_is_a_picture(run):
    assert run("generate", "-n", 2, "-l", "all", "-o", "out", "--plot") == 0
    assert Path("out/contact_sheet.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_label_that_is_no_file_name_stays_inside_the_folder(run, tmp_path):
    labels = ("../up", "a b", "a:b", "..", "naïve")
    folder = make_model(labels, tmp_path / "odd")
    assert run("generate", "-l", "all", "-o", "out", kind=str(folder)) == 0
    assert len(names("out")) == 5
    assert names(".") == ["odd", "out"]
    assert "naïve_0.wav" in names("out")


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["-n", 0], "-n of at least 1 sound, got 0"),
        (["-n", -5], "-n of at least 1 sound, got -5"),
        (["--label", "seven"], "unknown label 'seven'; choose one of: zero, one, two (or a number below 3)"),
        (["--label", "3"], "unknown label '3'"),
        (["--start", -1], "first >= 0"),
        (["--batch-size", 0], "batch_size >= 1"),
        (["--steps", 0], "steps must lie between 1 and 10000, got 0"),
        (["--steps", 9], "1 to 8 steps, as many as were trained, got 9"),
        (["--sampler", "magic"], "unknown sampler 'magic'; choose one of:"),
        (["--guidance", "nan"], "guidance must be a number from 0"),
        (["--seconds", 0], "expected a sound of 1 to"),
        (["--seconds", "inf"], "expected a sound of 1 to"),
        (["--format", "soup"], "unknown --format 'soup'; choose one of: wav"),
        (["--subtype", "PCM_99"], "PCM_99"),
        (["-o", "one.wav", "-n", 2], "names one file, but 2 sounds are asked for"),
        (["-o", "one.wav", "--format", "flac"], "contradict each other"),
        (["-o", "taken"], "taken is a file; expected a folder"),
        (["--checkpoint", "worst"], "checkpoint must be best or last"),
    ],
    ids=str,
)
def test_a_request_that_cannot_be_met_leaves_nothing(run, capsys, options, fault):
    Path("taken").write_text("mine")
    command = ["generate", *options] if "-o" in options else ["generate", "-o", "out", *options]
    assert run(*command) == 2
    assert fault in error(capsys)
    assert names(".") == ["taken"]


def test_labels_of_a_model_without(run, capsys):
    for command in (["generate"], ["denoise", "x.wav"], ["interpolate", sound(Path("x.wav")), sound(Path("y.wav"))]):
        assert run(*command, "--label", "one", "-o", "out", kind="free") == 2
        assert "trained without labels and generates freely; leave out the label 'one'" in error(capsys)
    assert run("generate", "--label", "all", kind="free") == 2
    assert "leave out the label 'all'" in error(capsys)


def test_a_model_of_another_task_or_none(run, tiny_models, capsys):
    sound(Path("x.wav"))
    for command in (["generate"], ["denoise", "x.wav"], ["interpolate", "x.wav", "x.wav", "-o", "out"]):
        assert run(*command, kind=str(tiny_models["regression"])) == 2
        assert "is for the task 'enhance'; expected one for 'generate'" in error(capsys)
        assert run(*command, kind="nowhere") == 2
        assert "no model 'nowhere'" in error(capsys)


def test_a_result_that_is_not_finite_is_a_failure_and_no_file(run, models, tmp_path, capsys):
    weights = hub.read_weights(models["digits"])
    model = GenerationModel(hub.config_of(hub.read_card(models["digits"])))
    hub.weights_into(model, weights, tmp_path)
    with torch.no_grad():
        model.denoiser.backbone.last.weight.fill_(1e38)
    hub.save(model, hub.read_card(models["digits"]), tmp_path / "broken")
    assert run("generate", "-n", 2, "-o", "out", kind=str(tmp_path / "broken")) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert all("NaN or infinite" in line for line in said)
    assert not Path("out").exists()


def test_a_file_that_cannot_be_written_ends_the_run(run, capsys):
    Path("out/free_2.wav").mkdir(parents=True)
    assert run("generate", "-n", 9, "-o", "out", "--steps", 1) == 1
    said = capsys.readouterr().err.splitlines()
    assert said == ["stopped: 2 of 9 sounds are written", said[1]]
    assert said[1].startswith("Error: out/free_2.wav: is a folder")
    assert names("out") == ["free_0.wav", "free_1.wav", "free_2.wav"]
    Path("file").write_text("mine")
    assert run("generate", "-o", "file/below") == 1
    assert "file/below: Not a directory" in capsys.readouterr().err


@pytest.mark.parametrize(("rate", "channels", "n"), [(RATE, 1, 200), (4410, 2, 801), (RATE, 1, 1)])
def test_denoised_files_keep_rate_channels_and_length(run, rate, channels, n):
    sound(Path("x.wav"), n, rate, channels)
    assert run("denoise", "x.wav", "--start-step", 3, "--seed", 1) == 0
    made = soundfile.info("x_denoised.wav")
    assert (made.samplerate, made.channels, made.frames) == (rate, channels, n)


def test_denoise_is_what_the_library_does(run, models):
    sound(Path("x.wav"), 300)
    options = ["--start-step", 4, "--add-noise", "--scale", "--label", "one", "--guidance", 2, "--seed", 3]
    assert run("denoise", "x.wav", "-o", "y.wav", *options, "--subtype", "FLOAT", "--segment", 0.1) == 0
    generator = hub.load(models["digits"])
    expected = generator.denoise(
        samples("x.wav"), RATE, 4, add_noise=True, scale=True, label="one", guidance=2, seed=3, segment=0.1
    )
    np.testing.assert_allclose(samples("y.wav"), expected, rtol=0, atol=1e-5)
    assert run("denoise", "x.wav", "-o", "z.wav", "--start-step", 4, "--subtype", "FLOAT") == 0
    assert np.abs(samples("z.wav") - samples("y.wav")).max() > 1e-3


def test_denoise_takes_folders_and_other_samplers(run, capsys):
    Path("in/sub").mkdir(parents=True)
    sound(Path("in/a.wav"))
    sound(Path("in/sub/b.flac"))
    assert run("denoise", "in", "-o", "out", "--sampler", "ddim", "--steps", 1, "--json") == 0
    assert names("out") == ["a.wav", "sub"]
    found = json.loads(capsys.readouterr().out)
    assert (found["written"], found["settings"]["start"]) == (2, 1 / 8)
    assert found["files"][0]["network_calls"] == 4  # 200 samples in pieces of 64, of which 16 + 16 are context


def test_silence_stays_silence(run):
    soundfile.write("x.wav", np.zeros(300, np.float32), RATE)
    assert run("denoise", "x.wav", "-o", "out") == 0
    assert not samples("out/x.wav").any()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--start-step", 0], "the start step must lie between 1.0 and 8, got 0"),
        (["--start-step", 9], "the start step must lie between 1.0 and 8, got 9"),
        (["--start-step", 3, "--steps", 4], "1 to 3 steps, as many as were trained below t = 0.375, got 4"),
        (["--segment", 0.01], "segment >= 0.064 seconds"),
        (["--overlap", -1], "overlap >= 0"),
        (["--dry", 2], "--dry must lie between 0 and 1"),
        (["--clip-mode", "hide"], "--clip-mode must be rescale, clamp or none"),
        (["-o", "x.wav"], "would overwrite the input x.wav"),
        (["--label", "nine"], "unknown label 'nine'"),
    ],
    ids=str,
)
def test_a_denoising_that_cannot_be_asked_for(run, capsys, options, fault):
    sound(Path("x.wav"))
    assert run("denoise", "x.wav", *options) == 2
    assert fault in error(capsys)
    assert names(".") == ["x.wav"]


def bad_files() -> dict[str, str]:
    """Name -> what must be said of it; made in the working folder, but for the missing one."""
    Path("empty.wav").write_bytes(b"")
    Path("words.wav").write_text("these are words")
    wave = np.zeros(100, np.float32)
    soundfile.write("none.wav", wave[:0], RATE)
    wave[50] = np.nan
    soundfile.write("nan.wav", wave, RATE, "FLOAT")
    return {
        "missing.wav": "no such file",
        "empty.wav": "is empty (0 bytes)",
        "words.wav": "is not audio that can be read",
        "none.wav": "holds no samples",
        "nan.wav": "holds NaN or infinite samples",
    }


def test_bad_files_are_named_with_their_fault(run, capsys):
    """One of many to denoise: 1, and the others are done. One of two to mix: 2, and nothing is."""
    sound(Path("good.wav"))
    for name, fault in bad_files().items():
        assert run("denoise", name, "-o", "out") == 1
        said = error(capsys)
        assert fault in said
        assert name in said
        for pair in ((name, "good.wav"), ("good.wav", name)):
            assert run("interpolate", *pair, "-o", "mixed") == 2
            said = error(capsys)
            assert fault in said
            assert name in said
    assert not Path("mixed").exists()
    assert run("denoise", "nan.wav", "good.wav", "-o", "out") == 1
    assert names("out") == ["good.wav"]


def test_mixtures_are_named_by_their_weights(run, models):
    a, b = sound(Path("a.wav"), 90, seed=1), sound(Path("b.wav"), 40, seed=2)
    options = ["--label", "two", "--noise", "shared", "--start-step", 3, "--seed", 2, "--subtype", "FLOAT"]
    assert run("interpolate", a, b, "-w", "0, 0.5,1,0.5", "-o", "out", *options, "--plot") == 0
    assert names("out") == ["a_b_0.5.wav", "a_b_0.wav", "a_b_1.wav", "contact_sheet.png"]
    expected = hub.load(models["digits"]).interpolate(
        samples(a)[:CLIP], samples(b), RATE, (0, 0.5, 1), 3, "two", "shared", seed=2
    )
    for weight, wave in zip(("0", "0.5", "1"), expected[:, 0], strict=True):
        np.testing.assert_allclose(samples(f"out/a_b_{weight}.wav"), wave, rtol=0, atol=1e-5)


def test_mixtures_of_other_rates_channels_and_lengths(run, capsys):
    a, b = sound(Path("a.wav"), 8000, 44100, 2), sound(Path("b.wav"), 20, 800, seed=2)
    assert run("interpolate", a, b, "--spherical", "--json", "--quiet") == 0
    found = json.loads(capsys.readouterr().out)
    assert [file["weight"] for file in found["files"]] == [0.25, 0.5, 0.75]
    assert {(file["sample_rate"], file["seconds"]) for file in found["files"]} == {(RATE, CLIP / RATE)}
    assert run("interpolate", a, b, "-w", "0.5", "-o", "one.wav") == 0
    said = capsys.readouterr().out
    assert "a.wav: the first of 2 channels is taken" in said
    assert "a.wav: cut to its first 0.064 s" in said
    assert soundfile.info("one.wav").frames == CLIP


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--weights", "0.5,x"], "--weights takes numbers from 0 to 1 with commas between them, got 'x'"),
        (["--weights", "1.5"], "weights from 0 (all A) to 1 (all B), got [1.5]"),
        (["--weights", ","], "expected one or more weights"),
        (["--weights", "0.5,0.50000001"], "would write one file twice"),
        (["--noise", "none"], "noise must be independent or shared"),
        (["--start-step", 99], "the start step must lie between 1.0 and 8, got 99"),
        (["-o", "one.wav"], "names one file, but 3 sounds are asked for"),
        (["-o", "a.wav", "-w", "0.5"], "a.wav would overwrite an input"),
        (["--steps", 3], "1 to 2 steps"),
    ],
    ids=str,
)
def test_a_mixture_that_cannot_be_asked_for(run, capsys, options, fault):
    a, b = sound(Path("a.wav")), sound(Path("b.wav"), seed=1)
    assert run("interpolate", a, b, *options) == 2
    assert fault in error(capsys)
    assert names(".") == ["a.wav", "b.wav"]


def test_silence_cannot_be_mixed(run, capsys):
    soundfile.write("a.wav", np.zeros(100, np.float32), RATE)
    assert run("interpolate", "a.wav", sound(Path("b.wav"))) == 2
    assert "recording A is silent within its first 0.064 s; expected a sound" in error(capsys)
    assert run("interpolate", sound(Path("c.wav"), 1), "b.wav", "-w", "0.5") == 0
    assert names("interpolated") == ["c_b_0.5.wav"]
