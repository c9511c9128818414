"""`fromnoise enhance`: rate, channels, length and kind stay; what it says; what repeats."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from fromnoise import hub
from fromnoise.cli import common, main


def sound(n: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """`n c` of noise with a slow swell."""
    swell = 0.5 + 0.5 * np.sin(np.arange(n) / 3000)[:, None]
    return (0.1 * swell * np.random.default_rng(seed).standard_normal((n, channels))).astype(np.float32)


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    path = tmp_path / "in.wav"
    soundfile.write(path, sound(9000), 16000)
    return path


@pytest.fixture
def enhance(tiny_models, tmp_path: Path):
    """Run the command on arguments and return its exit code."""

    def run(*arguments: object, kind: str = "regression") -> int:
        return main(["enhance", *map(str, arguments), "-m", str(tiny_models[kind]), "-d", "cpu"])

    return run


def samples(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32", always_2d=True)[0]


@pytest.mark.parametrize(
    ("name", "rate", "channels", "subtype", "n"),
    [
        ("a.wav", 44100, 2, "PCM_16", 10001),
        ("a.wav", 8000, 1, "PCM_24", 4001),
        ("a.wav", 96000, 1, "FLOAT", 9999),
        ("a.wav", 16000, 8, "PCM_16", 3000),
        ("a.FLAC", 22050, 1, "PCM_24", 5003),
        ("a.ogg", 32000, 2, "VORBIS", 7001),
        ("a.opus", 48000, 2, "OPUS", 12345),
        ("a.mp3", 44100, 1, "MPEG_LAYER_III", 9001),
    ],
)
def test_rate_channels_length_and_kind_stay(enhance, tmp_path, name, rate, channels, subtype, n):
    kind = {".opus": "OGG", ".wav": "WAV"}.get(Path(name).suffix, Path(name).suffix[1:].upper())
    soundfile.write(tmp_path / name, sound(n, channels), rate, subtype, format=kind)
    assert enhance(tmp_path / name, "-o", tmp_path / "out") == 0
    made = soundfile.info(tmp_path / "out" / name)
    assert (made.samplerate, made.channels, made.frames, made.subtype) == (rate, channels, n, subtype)
    assert np.abs(samples(tmp_path / "out" / name) - samples(tmp_path / name)).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "name", "subtype"),
    [
        (["--format", "flac"], "in.flac", "PCM_16"),
        (["--format", "mp3"], "in.mp3", "MPEG_LAYER_III"),
        (["--subtype", "float"], "in.wav", "FLOAT"),
        (["--format", "FLAC", "--subtype", "PCM_24"], "in.flac", "PCM_24"),
    ],
)
def test_format_and_subtype_can_be_chosen(enhance, wav, tmp_path, options, name, subtype):
    assert enhance(wav, "-o", tmp_path / "out", *options) == 0
    assert soundfile.info(tmp_path / "out" / name).subtype == subtype


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for i, name in enumerate(["a.wav", "b/a.wav", "b/c/d.flac", ".hidden/x.wav", "b/.y.wav", "notes.txt"]):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".txt":
            path.write_text("not sound")
        else:
            soundfile.write(path, sound(2000, seed=i), 16000)
    return tmp_path / "tree"


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_folder_keeps_its_tree(enhance, tree, tmp_path):
    assert enhance(tree, "-o", tmp_path / "out") == 0
    assert files(tmp_path / "out") == ["a.wav", "b/a.wav", "b/c/d.flac"]


def test_an_output_folder_inside_the_input_is_not_searched(enhance, tree):
    for _ in range(2):
        assert enhance(tree, "-o", tree / "out") == 0
    assert files(tree / "out") == ["a.wav", "b/a.wav", "b/c/d.flac"]


def test_without_output_results_lie_beside_and_are_no_input_next_time(enhance, tree, capsys):
    for _ in range(2):
        assert enhance(tree) == 0
    assert [name for name in files(tree) if "enhanced" in name] == [
        "a_enhanced.wav",
        "b/a_enhanced.wav",
        "b/c/d_enhanced.flac",
    ]
    assert "left out 3 files" in capsys.readouterr().out


def test_patterns_and_suffix(enhance, tree, tmp_path):
    assert enhance(tree / "**" / "*.wav", tree / "b/c", "-o", tmp_path / "out", "--suffix", "-x") == 2  # a.wav twice
    assert enhance(tree / "b" / "*.wav", tree / "b/c", "-o", tmp_path / "out", "--suffix", "-x") == 0
    assert files(tmp_path / "out") == ["a-x.wav", "d-x.flac"]


def test_a_file_named_twice_is_done_once(enhance, wav, tmp_path, capsys):
    assert enhance(wav, wav, "-o", tmp_path / "out", "--json") == 0
    assert json.loads(capsys.readouterr().out)["written"] == 1


def test_a_name_that_is_no_text_is_handled(enhance, wav, tmp_path):
    strange = Path(f"{tmp_path}/caf\udce9 [x] $.wav")
    try:
        shutil.copy(wav, strange)
    except (OSError, UnicodeError):
        pytest.skip("this file system takes no such name")
    assert enhance(strange, "-o", tmp_path / "out") == 0
    assert len(samples_of_only(tmp_path / "out")) == 9000


def samples_of_only(folder: Path) -> np.ndarray:
    (path,) = folder.iterdir()
    with path.open("rb") as file:
        return soundfile.read(file)[0]


def test_the_same_seed_gives_the_same_bytes_alone_and_among_others(enhance, wav, tmp_path):
    soundfile.write(tmp_path / "other.wav", sound(3000, 2, seed=5), 22050)
    assert enhance(wav, "-o", tmp_path / "one.wav", "--seed", 7, kind="bridge") == 0
    assert enhance(tmp_path / "other.wav", wav, "-o", tmp_path / "two", "--seed", 7, kind="bridge") == 0
    assert enhance(wav, "-o", tmp_path / "three.wav", "--seed", 8, kind="bridge") == 0
    assert (tmp_path / "one.wav").read_bytes() == (tmp_path / "two/in.wav").read_bytes()
    assert (tmp_path / "one.wav").read_bytes() != (tmp_path / "three.wav").read_bytes()


@pytest.mark.parametrize("rate", [16000, 44100])
def test_the_length_of_segments_is_not_heard(enhance, tmp_path, rate):
    soundfile.write(tmp_path / "long.wav", sound(7 * rate, 2), rate)
    made = []
    for segment in (30, 2, 0.7):
        assert enhance(tmp_path / "long.wav", "-o", tmp_path / "x.wav", "--segment", segment, kind="bridge") == 0
        made.append(soundfile.read(tmp_path / "x.wav", dtype="int16")[0].astype(int))
    for other in made[1:]:
        # Kernels that take the end of a vector register one by one may round the last bit of a float32 otherwise.
        assert np.abs(other - made[0]).max() <= 1
        assert (other != made[0]).mean() < 1e-4


def test_seed_minus_one_is_drawn_and_told(enhance, wav, tmp_path, capsys):
    seeds = []
    for name in "ab":
        assert enhance(wav, "-o", tmp_path / f"{name}.wav", "--seed", -1, "--json") == 0
        seeds.append(json.loads(capsys.readouterr().out)["files"][0]["seed"])
    assert seeds[0] != seeds[1]
    assert min(seeds) >= 0


def test_all_dry_gives_the_input_back(enhance, tmp_path):
    soundfile.write(tmp_path / "in.wav", sound(10000, 2), 44100)
    assert enhance(tmp_path / "in.wav", "-o", tmp_path / "dry.wav", "--dry", 1) == 0
    np.testing.assert_array_equal(samples(tmp_path / "dry.wav"), samples(tmp_path / "in.wav"))


def test_dry_is_linear_and_atten_lim_is_its_decibels(enhance, wav, tmp_path):
    for name, options in {"wet": [], "dry": ["--dry", 0.1], "limit": ["--atten-lim", 20]}.items():
        assert enhance(wav, "-o", tmp_path / f"{name}.wav", "--subtype", "FLOAT", *options) == 0
    expected = 0.9 * samples(tmp_path / "wet.wav") + 0.1 * samples(wav)
    np.testing.assert_allclose(samples(tmp_path / "dry.wav"), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(samples(tmp_path / "limit.wav"), samples(tmp_path / "dry.wav"), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mode", ["rescale", "clamp"])
def test_beyond_full_scale(enhance, tmp_path, mode):
    soundfile.write(tmp_path / "in.wav", 30 * sound(4000), 16000, "FLOAT")
    for name, options in {"free": ["--subtype", "FLOAT"], "kept": ["--subtype", "PCM_16", "--clip-mode", mode]}.items():
        assert enhance(tmp_path / "in.wav", "-o", tmp_path / f"{name}.wav", *options) == 0
    free, kept = samples(tmp_path / "free.wav"), samples(tmp_path / "kept.wav")
    assert np.abs(free).max() > 1
    expected = free / np.abs(free).max() if mode == "rescale" else np.clip(free, -1, 1)
    np.testing.assert_allclose(kept, expected, rtol=0, atol=2 / 32768)


def test_json_says_what_was_done(enhance, wav, tmp_path, capsys):
    out = tmp_path / "out.wav"
    assert enhance(wav, "-o", out, "--json", "--segment", 0.3, "--steps", 2, kind="bridge") == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert captured.err == ""
    assert (found["model"], found["device"], found["written"], found["failed"]) == ("tiny-bridge", "cpu", 1, 0)
    assert (found["settings"]["steps"], found["settings"]["segment"]) == (2, 0.3)
    (file,) = found["files"]
    assert (file["input"], file["output"], file["error"], file["seed"]) == (str(wav), str(out), None, 0)
    assert file["seconds"] == 9000 / 16000
    assert file["rtf"] == pytest.approx(file["work_seconds"] / file["seconds"])
    assert file["network_calls"] == 2  # one piece: the context makes it longer than the recording


def test_network_calls_count_every_piece(enhance, tmp_path, capsys):
    soundfile.write(tmp_path / "in.wav", sound(3 * 16000), 16000)
    assert enhance(tmp_path / "in.wav", "-o", tmp_path / "o.wav", "--json", "--segment", 1, "--overlap", 0) == 0
    assert json.loads(capsys.readouterr().out)["files"][0]["network_calls"] == 3


def test_plain_lines_name_the_files_and_the_factor_and_quiet_says_nothing(enhance, wav, tmp_path, capsys):
    assert enhance(wav, "-o", tmp_path / "out.wav") == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{wav} -> {tmp_path / 'out.wav'}: 0.6 s in ")
    assert "real-time factor " in shown.out
    assert shown.err == ""
    assert enhance(wav, "-o", tmp_path / "out.wav", "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_the_bar_goes_to_standard_error(enhance, wav, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert enhance(wav, "-o", tmp_path / "out.wav") == 0
    shown = capsys.readouterr()
    assert "in.wav" in shown.err and "%" in shown.err
    assert shown.out.count("\n") == 1


def test_a_log_hears_of_a_long_file_from_time_to_time(capsys, monkeypatch):
    monkeypatch.setattr(common.Voice, "PAUSE", 0.0)
    with common.Voice().progress("long.wav") as update:
        update(1, 4)
        update(4, 4)
    assert capsys.readouterr().out == "long.wav: 25 %\n"


def test_existing_outputs_can_be_skipped(enhance, tree, tmp_path, capsys):
    (tmp_path / "out/b").mkdir(parents=True)
    (tmp_path / "out/b/a.wav").write_text("mine")
    assert enhance(tree, "-o", tmp_path / "out", "--skip-existing") == 0
    assert (tmp_path / "out/b/a.wav").read_text() == "mine"
    assert "is there already, skipped" in capsys.readouterr().out
    assert enhance(tree, "-o", tmp_path / "out") == 0
    assert len(samples(tmp_path / "out/b/a.wav")) == 2000


def test_plot_writes_a_picture_beside_the_output(enhance, wav, tmp_path):
    assert enhance(wav, "-o", tmp_path / "out.wav", "--plot") == 0
    assert (tmp_path / "out.wav.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "options",
    [
        ["--nfe", "2", "--sampler-type", "ddim"],
        ["--N", "2", "--sampler_type", "ddim"],
        ["--N=2", "--sampler=ddim", "--out_dir"],
    ],
    ids=" ".join,
)
def test_other_names_of_options(enhance, wav, tmp_path, options):
    assert enhance(wav, "-o", tmp_path / "a", "--steps", 2, "--sampler", "ddim", kind="bridge") == 0
    place = [tmp_path / "b"] if options[-1] == "--out_dir" else ["--output", tmp_path / "b"]
    assert enhance(wav, *options, *place, kind="bridge") == 0
    assert (tmp_path / "a/in.wav").read_bytes() == (tmp_path / "b/in.wav").read_bytes()


def test_a_run_folder_is_a_model_with_a_best_and_a_last_checkpoint(make_model, wav, tmp_path):
    run = make_model("regression", tmp_path / "run")
    (run / "checkpoints").mkdir()
    for name, seed in {"best": 1, "last": 2}.items():
        weights = hub.read_weights(make_model("regression", tmp_path / name, seed))
        state = {f"model.{key}": value for key, value in weights.items()}
        torch.save({"state_dict": state}, run / "checkpoints" / f"{name}.ckpt")
    (run / "model.safetensors").unlink()
    for name in ("best", "last"):
        for model, extra in ((run, ["--checkpoint", name]), (tmp_path / name, [])):
            arguments = ["enhance", wav, "-o", tmp_path / f"{model.name}-{name}.wav", "-n", model, "-d", "cpu", *extra]
            assert main([str(argument) for argument in arguments]) == 0
    for name, other in (("best", "last"), ("last", "best")):
        made = (tmp_path / f"run-{name}.wav").read_bytes()
        assert made == (tmp_path / f"{name}-{name}.wav").read_bytes()
        assert made != (tmp_path / f"{other}-{other}.wav").read_bytes()


@pytest.mark.parametrize(("available", "chosen"), [(2, "cuda:0"), (0, "cpu")])
def test_auto_takes_cuda_when_there_is_one(monkeypatch, available, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: available)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert str(common.choose_device("auto")) == chosen
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert str(common.choose_device("auto")) == (chosen if available else "mps")
