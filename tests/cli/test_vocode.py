"""`fromnoise mel` and `fromnoise vocode`: which files there are, what is said, and what is refused."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from fromnoise.cli import main
from fromnoise.data import mels
from fromnoise.data.mels import MelReader, load_mel, save_mel
from fromnoise.frontends import MELS
from tests import tiny_vocoders
from tests.tiny_vocoders import MEL, RATE


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("vocoders")
    return {kind: tiny_vocoders.save(kind, root / kind) for kind in tiny_vocoders.configs()}


@pytest.fixture
def run(models, tmp_path, monkeypatch):
    """Run a command in an empty folder and return its exit code."""
    monkeypatch.chdir(tmp_path)

    def command(name: str, *arguments: object, kind: str = "wavenet") -> int:
        device = ["-d", "cpu"] if name == "vocode" else []
        return main([name, *map(str, arguments), "-m", str(models[kind]), *device])

    return command


def sound(path: str, n: int = 3000, rate: int = RATE, channels: int = 1, scale: float = 0.2) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    samples = scale * np.random.default_rng(0).standard_normal((n, channels))
    soundfile.write(path, samples.astype(np.float32), rate, "FLOAT")
    return Path(path)


def samples(path: Path | str) -> np.ndarray:
    return soundfile.read(path, dtype="float32")[0]


def names(folder: Path | str) -> list[str]:
    return sorted(os.listdir(folder))


def test_mels_and_recordings_give_the_same_sound(run, tmp_path):
    sound("in/a.wav")
    sound("in/b/c.wav", 2000, 2 * RATE, 2)
    assert run("mel", "in", "-o", "mels") == 0
    mel, definition = load_mel("mels/a.safetensors")
    assert definition == MEL
    np.testing.assert_allclose(mel, tiny_vocoders.vocoder("wavenet").mel(samples("in/a.wav"), RATE), rtol=0, atol=1e-5)
    assert run("vocode", "mels", "-o", "from_mels", "--seed", 2) == 0
    assert run("vocode", "in", "-o", "from_sound", "--seed", 2) == 0
    assert names("from_sound") == names("from_mels") == ["a.wav", "b"]
    for name, n in (("a.wav", 3000), ("b/c.wav", 1000)):
        heard = samples(f"from_sound/{name}")
        assert heard.shape == (n,)  # cut to the recording's length
        np.testing.assert_allclose(heard, samples(f"from_mels/{name}")[:n], rtol=0, atol=1e-5)
    facts = soundfile.info("from_mels/a.wav")
    assert (facts.samplerate, facts.channels, facts.subtype) == (RATE, 1, "FLOAT")
    assert facts.frames == mel.shape[1] * MEL.hop


def test_python_and_the_command_give_the_same(run):
    save_mel("a.safetensors", load_mel_of("x.wav"), MEL)
    assert run("vocode", "a.safetensors", "-o", "a.wav", "--seed", 4, "--steps", 2, "--sampler", "ddim") == 0
    expected = tiny_vocoders.vocoder("wavenet")(load_mel("a.safetensors")[0], seed=4, steps=2, sampler="ddim")
    np.testing.assert_array_equal(samples("a.wav"), expected)


def load_mel_of(name: str, n: int = 3000) -> np.ndarray:
    return tiny_vocoders.vocoder("wavenet").mel(samples(sound(name, n)), RATE)


@pytest.mark.parametrize("kind", ["wavenet", "magnitude"])
def test_only_a_segment_is_held_at_a_time(run, monkeypatch, kind):
    """A long mel is asked for in pieces no longer than segment and context, each frame once for the check and once
    for the sound, and the sound is written as it comes: memory does not grow with the mel."""
    frames = 1200
    mel = np.tile(load_mel_of("x.wav"), (1, 22))[:, :frames]
    save_mel("long.safetensors", mel, MEL)
    asked: list[int] = []
    written: list[int] = []
    read, write = MelReader.read, soundfile.SoundFile.write
    monkeypatch.setattr(MelReader, "read", lambda self, count: asked.append(count) or read(self, count))
    monkeypatch.setattr(mels, "_BLOCK", 100)
    monkeypatch.setattr(soundfile.SoundFile, "write", lambda self, x: written.append(len(x)) or write(self, x))
    assert run("vocode", "long.safetensors", "-o", "long.wav", "--segment", 0.5, kind=kind) == 0
    made = tiny_vocoders.vocoder(kind)
    chunking = made.chunking(0.5, made.network_calls())
    assert sum(asked) == frames
    assert len(asked) > 8
    assert max(asked) <= chunking["segment"] < frames / 4
    assert sum(written) == frames * MEL.hop
    assert max(written) <= chunking["segment"] * MEL.hop


def test_formats_and_peaks(run, capsys):
    """A float file keeps what lies beyond full scale; another is turned down as a whole, and said."""
    sound("a.wav", scale=2.0)
    assert run("vocode", "a.wav", "-o", "b.wav") == 0
    kept = samples("b.wav")
    peak = float(np.abs(kept).max())
    assert peak > 1
    capsys.readouterr()
    assert run("vocode", "a.wav", "-o", "out", "--format", "flac", "--subtype", "pcm_24") == 0
    assert soundfile.info("out/a.flac").subtype == "PCM_24"
    np.testing.assert_allclose(samples("out/a.flac") * peak, kept, rtol=0, atol=1e-5)
    assert f"peak of {peak:.2f} was beyond full scale, so it was scaled down" in capsys.readouterr().err


def test_what_is_said_and_handed_over(run, capsys):
    sound("a.wav")
    assert run("vocode", "a.wav", "-o", "out", "--plot", "--seed", 1) == 0
    said = capsys.readouterr().out
    assert "seed 1" in said
    assert "real-time factor" in said
    assert names("out") == ["a.wav", "a.wav.png"]
    assert run("vocode", "a.wav", "-o", "out", "--skip-existing") == 0
    assert "skipped" in capsys.readouterr().out
    assert run("vocode", "a.wav", "-o", "quiet.wav", "--quiet") == 0
    assert capsys.readouterr().out == ""
    assert run("vocode", "a.wav", "-o", "j.wav", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    record = result["files"][0]
    assert (result["written"], result["failed"], result["model"]) == (1, 0, "tiny-wavenet")
    assert record["network_calls"] == 3
    assert record["rtf"] == pytest.approx(record["work_seconds"] / record["seconds"])
    assert run("vocode", "a.wav") == 0
    assert Path("a_vocoded.wav").exists()


def test_names_of_other_programs(run, capsys):
    """Without a definition: taken for the model's, which is said once."""
    mel = load_mel_of("x.wav")
    np.save("one.wav.spec.npy", mel)
    torch.save(torch.from_numpy(mel), "two.wav.pt")
    capsys.readouterr()
    assert run("vocode", "one.wav.spec.npy", "two.wav.pt", "-o", "out") == 0
    assert names("out") == ["one.wav", "two.wav"]
    assert capsys.readouterr().err.count("without a definition") == 1
    np.testing.assert_array_equal(samples("out/one.wav"), samples("out/two.wav"))


def test_one_bad_file_is_named_and_the_others_are_done(run, capsys):
    good = load_mel_of("x.wav")
    os.mkdir("in")
    save_mel("in/good.safetensors", good, MEL)
    save_mel("in/other.safetensors", np.full((80, 4), 0.5, np.float32), MELS["diffwave-lmnt-22k"])
    save_mel("in/cut.safetensors", good, MEL)
    Path("in/cut.safetensors").write_bytes(Path("in/cut.safetensors").read_bytes()[:-99])
    np.save("in/nan.npy", np.full_like(good, np.nan))
    np.save("in/turned.npy", good.T)
    np.save("in/none.npy", good[:, :0])
    torch.save({"state": torch.zeros(3)}, "in/network.pt")
    Path("in/text.wav").write_text("no sound")
    Path("in/notes.txt").write_text("not asked for")
    capsys.readouterr()
    assert run("vocode", "in", "-o", "out") == 1
    assert names("out") == ["good.wav"]
    said = capsys.readouterr().err
    words = {
        "other.safetensors": "n_mels is 80, expected 8",
        "cut.safetensors": "truncated",
        "nan.npy": "NaN",
        "turned.npy": "transposed",
        "none.npy": "no frames",
        "network.pt": "holds a dict",
        "text.wav": "text.wav",
    }
    for name, reason in words.items():
        (line,) = [line for line in said.splitlines() if line.startswith("Error: ") and f"in/{name}" in line]
        assert reason in line
    assert "7 of 8 failed" in said
    assert "notes.txt" not in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["vocode", "a.wav", "--steps", "9"], "as many as were trained"),
        (["vocode", "a.wav", "--sampler", "best"], "unknown sampler 'best'"),
        (["vocode", "a.wav", "--segment", "0"], "segment > 0"),
        (["vocode", "a.wav", "--format", "txt"], "unknown --format 'txt'"),
        (["vocode", "a.wav", "--clip-mode", "hard"], "--clip-mode must be"),
        (["vocode", "a.wav", "-o", "a.wav"], "overwrite the input"),
        (["vocode", "a.wav", "a.npy", "-o", "out"], "would both be written"),
        (["mel", "a.wav", "--set", "hop"], "--set takes FIELD=VALUE"),
        (["mel", "a.wav", "--set", "hops=2"], "no setting 'hops'"),
        (["mel", "a.wav", "--definition", "tacotron2-22k"], "leave one out"),
    ],
)
def test_wrong_requests_are_one_sentence_and_code_2(run, capsys, arguments, words):
    sound("a.wav")
    np.save("a.npy", np.zeros((8, 3), np.float32))
    assert run(*arguments) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("Error: ")
    assert words in said
    assert said.count("\n") == 0
    assert names(".") == ["a.npy", "a.wav"]


def test_a_model_of_another_task_is_refused(tiny_models, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sound("a.wav")
    folder = str(tiny_models["regression"])
    assert main(["vocode", "a.wav", "-m", folder]) == 2
    assert "is for the task 'enhance'; expected one for 'vocode'" in capsys.readouterr().err
    assert main(["mel", "a.wav", "-m", folder]) == 2
    assert "takes no mel" in capsys.readouterr().err


def test_mels_by_preset_with_changes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sound("a.wav", 3000, 8000)
    assert (
        main(["mel", "a.wav", "-o", "b.safetensors", "--definition", "tacotron2-22k", "--set", "hop=300", "--json"])
        == 0
    )
    facts = json.loads(capsys.readouterr().out)
    mel, definition = load_mel("b.safetensors")
    assert definition is not None
    assert (definition.hop, definition.fmax, facts["definition"]["hop"]) == (300, 8000.0, 300)
    assert mel.shape == (80, facts["files"][0]["frames"]) == (80, 1 + round(3000 * 22050 / 8000) // 300)
    assert main(["mel", "a.wav", "--definition", "tacotron3"]) == 2
    assert "choose one of: tacotron2-22k, diffwave-lmnt-22k, diffuse-16k, sc09-16k" in capsys.readouterr().err
    assert main(["mel", "a.wav", "-o", "b.npy", "--definition", "tacotron2-22k"]) == 2
    assert "written as .safetensors" in capsys.readouterr().err
    assert names(".") == ["a.wav", "b.safetensors"]
