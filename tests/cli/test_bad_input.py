"""Whatever is wrong with a file, a model or a request: one sentence, an exit code, and nothing half-written."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from fromnoise.cli import main

ROOT = Path(__file__).parents[2]


def sound(n: int = 4000, channels: int = 1) -> np.ndarray:
    return (0.1 * np.random.default_rng(n).standard_normal((n, channels))).astype(np.float32)


def wave_header(rate: int) -> bytes:
    """A complete 16-bit mono wav of 100 samples that claims a rate."""
    data = b"\1\0" * 100
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 236, b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", 200
    )
    return head + data


def write_nan(path: Path) -> None:
    wave = sound()
    wave[2000] = np.nan
    soundfile.write(path, wave, 16000, "FLOAT")


def write_infinite(path: Path) -> None:
    wave = sound()
    wave[3999] = np.inf
    soundfile.write(path, wave, 16000, "FLOAT")


def write_cut(path: Path) -> None:
    whole = path.with_name(f"whole{path.suffix}")
    soundfile.write(whole, sound(20000), 16000)
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])


BAD = {
    "empty": ("x.wav", lambda path: path.write_bytes(b""), "is empty (0 bytes)"),
    "no audio": ("x.wav", lambda path: path.write_bytes(b"these are words"), "is not audio that can be read"),
    "no samples": ("x.wav", lambda path: soundfile.write(path, sound()[:0], 16000), "holds no samples"),
    "cut wav": ("x.wav", write_cut, "truncated"),
    "cut flac": ("x.flac", write_cut, "truncated"),
    "nan": ("x.wav", write_nan, "NaN or infinite samples near sample 0"),
    "infinity": ("x.wav", write_infinite, "NaN or infinite samples"),
    "1 Hz": (
        "x.wav",
        lambda path: path.write_bytes(wave_header(1)),
        "sample rate from 100 to 768000 Hz, got 1 Hz",
    ),
    "1 MHz": ("x.wav", lambda path: path.write_bytes(wave_header(10**6)), "got 1000000 Hz"),
    "a folder's name": ("x.wav", lambda path: path.mkdir(), "holds no audio file"),
}


@pytest.fixture
def enhance(tiny_models):
    """Run the command on arguments and return its exit code."""

    def run(*arguments: object, model: Path = tiny_models["regression"]) -> int:
        return main(["enhance", *map(str, arguments), "-m", str(model), "-d", "cpu"])

    return run


@pytest.fixture
def good(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "good.wav", sound(), 16000)
    return tmp_path / "good.wav"


def one_sentence(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said on standard error: a single line, no traceback."""
    said = capsys.readouterr().err.strip()
    assert said.startswith("Error: ")
    assert said.count("\n") == 0
    assert "Traceback" not in said
    assert "unexpected" not in said
    return said


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_named_with_its_fault(enhance, tmp_path, capsys, case):
    name, make, fault = BAD[case]
    make(tmp_path / name)
    assert enhance(tmp_path / name, "-o", tmp_path / "out") == 1
    said = one_sentence(capsys)
    assert str(tmp_path / name) in said
    assert fault in said
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_missing_file_and_an_empty_pattern(enhance, tmp_path, capsys):
    assert enhance(tmp_path / "none.wav", "-o", tmp_path / "out") == 1
    assert "none.wav: no such file" in one_sentence(capsys)
    assert enhance(tmp_path / "*.wav", "-o", tmp_path / "out") == 1
    assert "*.wav: no file has such a name" in one_sentence(capsys)


def test_the_others_are_still_done_and_the_failures_named(enhance, good, tmp_path, capsys):
    (tmp_path / "bad.wav").write_text("words")
    files = [tmp_path / "bad.wav", good, tmp_path / "none.wav"]
    assert enhance(*files, "-o", tmp_path / "out", "--json") == 1
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert (found["written"], found["failed"]) == (1, 2)
    assert [bool(file["error"]) for file in found["files"]] == [True, False, True]
    assert shown.err.splitlines()[-1] == f"2 of 3 failed: {files[0]}, {files[2]}"
    assert soundfile.info(tmp_path / "out/good.wav").frames == 4000


def test_one_sample_works(enhance, tmp_path):
    soundfile.write(tmp_path / "x.wav", sound(1), 44100)
    assert enhance(tmp_path / "x.wav", "-o", tmp_path / "out") == 0
    assert soundfile.info(tmp_path / "out/x.wav").frames == 1


@pytest.mark.parametrize("kind", ["regression", "bridge"])
def test_silence_stays_silence(enhance, tiny_models, tmp_path, kind):
    soundfile.write(tmp_path / "x.wav", np.zeros((9000, 2), np.float32), 44100)
    assert enhance(tmp_path / "x.wav", "-o", tmp_path / "out", model=tiny_models[kind]) == 0
    assert not soundfile.read(tmp_path / "out/x.wav")[0].any()


def test_a_silent_channel_stays_silent_beside_a_loud_one(enhance, tmp_path):
    soundfile.write(tmp_path / "x.wav", np.concatenate([sound(), 0 * sound()], axis=1), 16000)
    assert enhance(tmp_path / "x.wav", "-o", tmp_path / "out") == 0
    made = soundfile.read(tmp_path / "out/x.wav")[0]
    assert made[:, 0].any()
    assert not made[:, 1].any()


def test_too_many_channels(enhance, tmp_path, capsys):
    soundfile.write(tmp_path / "x.wav", sound(100, 65), 16000)
    assert enhance(tmp_path / "x.wav", "-o", tmp_path / "out") == 1
    assert "at most 64 channels, got 65" in one_sentence(capsys)


def test_an_output_folder_that_cannot_be_made(enhance, good, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for output in (tmp_path / "file/below", tmp_path / "file/out.wav"):
        assert enhance(good, "-o", output) == 1
        assert "file" in one_sentence(capsys)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, where nobody may make files")
def test_a_file_system_that_takes_nothing(enhance, good, capsys):
    assert enhance(good, "-o", "/proc") == 1
    assert "cannot be written" in one_sentence(capsys)


def test_output_that_is_a_file_or_a_device(enhance, good, tmp_path, capsys):
    (tmp_path / "taken").write_text("mine")
    outputs = [tmp_path / "taken"] + [Path("/dev/full")] * Path("/dev/full").exists()
    for output in outputs:
        assert enhance(good, "-o", output) == 2
        assert f"-o {output} is a file; expected a folder" in one_sentence(capsys)


@pytest.mark.parametrize("form", ["the same", "by a link", "in its folder"])
def test_the_input_is_never_overwritten(enhance, good, tmp_path, capsys, form):
    before = good.read_bytes()
    (tmp_path / "link.wav").symlink_to(good)
    output = {"the same": good, "by a link": tmp_path / "link.wav", "in its folder": tmp_path}[form]
    assert enhance(good, "-o", output) == 2
    assert f"would overwrite the input {good}" in one_sentence(capsys)
    assert good.read_bytes() == before


def test_two_inputs_for_one_output_are_refused_before_any_work(enhance, good, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    shutil.copy(good, tmp_path / "other/good.wav")
    assert enhance(good, tmp_path / "other", "-o", tmp_path / "out") == 2
    assert "would both be written to" in one_sentence(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--steps", "0"], "steps must lie between 1 and 10000, got 0"),
        (["--steps", "1000000000"], "steps must lie between 1 and 10000"),
        (["--sampler", "magic"], "unknown sampler 'magic'; choose one of: ancestral, "),
        (["--segment", "0"], "expected segment > 0"),
        (["--segment", "nan"], "expected segment > 0"),
        (["--overlap", "-1"], "overlap >= 0"),
        (["--dry", "1.5"], "--dry must lie between 0 and 1"),
        (["--dry", "nan"], "--dry must lie between 0 and 1"),
        (["--dry", "0.5", "--atten-lim", "6"], "no --dry beside it"),
        (["--format", "doc"], "unknown --format 'doc'; choose one of: wav, flac"),
        (["--clip-mode", "wrap"], "--clip-mode must be rescale, clamp or none"),
        (["--suffix", "../x"], "--suffix is part of a file name"),
        (["--checkpoint", "first"], "checkpoint must be best or last"),
        (["-d", "cuda:99"], "no device 'cuda:99' on this machine; choose one of: auto, cpu"),
        (["-d", "toaster"], "unknown device 'toaster'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_request_exits_with_2_before_any_work(tiny_models, make_model, good, tmp_path, capsys, options, fault):
    model = tiny_models["regression"]
    if "--checkpoint" in options:
        model = make_model("regression", tmp_path / "run")
        (model / "model.safetensors").unlink()
    arguments = ["enhance", str(good), "-o", str(tmp_path / "out"), "-m", str(model), "-d", "cpu", *options]
    assert main(arguments) == 2
    assert fault in one_sentence(capsys)
    assert not (tmp_path / "out").exists()


def test_an_output_that_does_not_fit_the_inputs(enhance, good, tmp_path, capsys):
    shutil.copy(good, tmp_path / "second.wav")
    for arguments, fault in (
        ([good, tmp_path / "second.wav", "-o", tmp_path / "one.wav"], "names one file, but the input is more than one"),
        ([tmp_path, "-o", tmp_path / "one.wav"], "names one file, but the input is more than one"),
        ([good, "-o", tmp_path / "one.wav", "--format", "flac"], "contradict each other"),
    ):
        assert enhance(*arguments) == 2
        assert fault in one_sentence(capsys)
    assert enhance(good, "-o", tmp_path / "one.m4a") == 1
    assert "cannot write .m4a; expected one of .wav" in one_sentence(capsys)


def test_formats_that_cannot_hold_the_sound(enhance, tmp_path, capsys):
    soundfile.write(tmp_path / "x.wav", sound(channels=8), 44100)
    for kind, fault in {"opus": "48000 Hz only, got 44100 Hz", "mp3": "1 to 2 channels, got 8"}.items():
        assert enhance(tmp_path / "x.wav", "-o", tmp_path / f"x.{kind}") == 1
        assert fault in one_sentence(capsys)


@pytest.fixture
def small_disk(tmp_path: Path):
    """A disk of 128 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(place)], capture_output=True
    )
    if not made or made.returncode:
        pytest.skip("this user may not mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("options", [[], ["--clip-mode", "clamp"], ["--format", "flac"]], ids=" ".join)
def test_a_full_disk_is_named_and_nothing_stays(enhance, small_disk, tmp_path, capsys, options):
    soundfile.write(tmp_path / "x.wav", sound(150_000), 16000)
    (small_disk / "x.wav").write_text("old")
    (small_disk / "x.flac").write_text("old")
    assert enhance(tmp_path / "x.wav", "-o", small_disk, *options) == 1
    assert f"the disk that holds {small_disk} is full" in one_sentence(capsys)
    assert sorted(os.listdir(small_disk)) == ["x.flac", "x.wav"]
    assert (small_disk / "x.wav").read_text() == (small_disk / "x.flac").read_text() == "old"


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
def test_interrupt_in_mid_file_leaves_the_old_file(tiny_models, tmp_path):
    soundfile.write(tmp_path / "x.wav", sound(60 * 16000), 16000)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/x.wav").write_text("old")
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from fromnoise.cli import main; sys.exit(main())"
    )
    options = ["-o", str(tmp_path / "out"), "-m", str(tiny_models["bridge"]), "-d", "cpu", "--segment", "0.05"]
    run = subprocess.Popen(
        [sys.executable, "-c", code, "enhance", str(tmp_path / "x.wav"), *options],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    patience = time.monotonic() + 120
    while not list((tmp_path / "out").glob(".*.part")) and run.poll() is None and time.monotonic() < patience:
        time.sleep(0.02)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=120)
    assert run.returncode == 130, err
    assert "interrupted: 0 of 1 files are written" in err
    assert "Traceback" not in err
    assert out == ""
    assert os.listdir(tmp_path / "out") == ["x.wav"]
    assert (tmp_path / "out/x.wav").read_text() == "old"


class Hostile:
    """Unpickled, it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_code_in_a_checkpoint_is_not_run(enhance, make_model, good, tmp_path, capsys):
    run = make_model("regression", tmp_path / "run")
    (run / "model.safetensors").unlink()
    (run / "checkpoints").mkdir()
    torch.save({"state_dict": Hostile(tmp_path / "owned")}, run / "checkpoints/best.ckpt")
    assert enhance(good, "-o", tmp_path / "out", model=run) == 2
    assert "code, which is never run" in one_sentence(capsys)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"process": {"name": "teleport"}}, "unknown process 'teleport'; choose one of: bridge, "),
        ({"backbone": {"name": "crn", "colour": 3}}, "backbone 'crn' has no setting 'colour'; it has: bins, channels"),
        ({"sampler": {"name": "magic"}}, "unknown sampler 'magic'"),
        ({"flavour": 1}, "unknown setting 'flavour'; known: backbone, "),
        ({"num_steps": "three"}, "num_steps must be a whole number, got 'three'"),
        ({"process": {"name": "bridge", "k": "2.6"}}, "process 'bridge': k must be a number, got '2.6'"),
        ({"backbone": {"name": "crn", "channels": [4, "4"]}}, "channels must be a list, each a whole number"),
        ({"backbone": "crn"}, "backbone must be a mapping with a 'name', got 'crn'"),
        ({"guidance": float("nan")}, "guidance must be a number, got nan"),
        ({"num_steps": 0}, "steps must lie between 1 and 10000, got 0"),
        ({"backbone": {"name": "crn", "channels": [10**9]}}, "a card's numbers go up to 1000000"),
        ({"backbone": {"name": "crn", "channels": [4] * 10**5}}, "a card's lists have up to 10000"),
        ({"backbone": {"name": "crn", "groups": 10**6}}, "at most 16 levels and 256 residual units"),
        ({"backbone": {"name": "crn", "channels": [10**6, 10**6], "hidden": 10**6}}, "the weights do not fit the card"),
        ({"backbone": {"name": "tcunet", "wiring": "concat", "num_steps": 10**6}}, "num_steps must lie between 1 and"),
        ({"backbone": {"name": "tcunet"}}, "the weights do not fit the card"),
    ],
    ids=lambda value: json.dumps(value)[:50] if isinstance(value, dict) else "",
)
def test_a_bad_card_is_refused_with_its_fault(enhance, make_model, good, tmp_path, capsys, change, fault):
    model = make_model("regression", tmp_path / "model")
    card = json.loads((model / "card.json").read_text())
    card["config"].update(change)
    (model / "card.json").write_text(json.dumps(card))
    assert enhance(good, "-o", tmp_path / "out", model=model) == 2
    assert fault in one_sentence(capsys)


def test_weights_that_are_cut_or_not_finite(enhance, make_model, good, tmp_path, capsys):
    model = make_model("regression", tmp_path / "model")
    weights = model / "model.safetensors"
    whole = weights.read_bytes()
    for size in (len(whole) - 100, 20, 4, 0):
        weights.write_bytes(whole[:size])
        assert enhance(good, "-o", tmp_path / "out", model=model) == 2
        assert "model.safetensors is not a readable safetensors file" in one_sentence(capsys)
    weights.write_bytes(whole[:-4] + struct.pack("<f", float("nan")))
    assert enhance(good, "-o", tmp_path / "out", model=model) == 2
    assert "holds NaN or infinity" in one_sentence(capsys)


def test_a_model_that_is_not_there(enhance, good, tmp_path, capsys):
    for model, fault in {
        "no-such-model": "no model 'no-such-model'",
        str(good): "is a file; expected a model folder",
        str(tmp_path): "holds no card.json",
    }.items():
        assert enhance(good, "-o", tmp_path / "out", model=Path(model)) == 2
        assert fault in one_sentence(capsys)
