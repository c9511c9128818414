"""`--jobs`, `--shard` and tar shards of `enhance`, `separate`, `vocode`: the results are those of one run in turn."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from fromnoise.cli import main
from tests import tiny_vocoders

ROOT = Path(__file__).parents[2]
RUN = [sys.executable, "-c", "import sys\nfrom fromnoise.cli import main\nif __name__ == '__main__': sys.exit(main())"]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Here as in the workers, so that results can be compared to the last bit."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def noise(n: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal((n, channels))).astype(np.float32)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for i in range(12):
        path = tmp_path / "in" / ("room" if i % 3 else "") / f"{i}.{'flac' if i % 2 else 'wav'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, noise(80000 + 2000 * i, 1 + i // 11, i), 16000 if i else 22050)
    return tmp_path / "in"


def contents(folder: Path) -> dict[str, bytes]:
    """Names and bytes of all files but manifests."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".jsonl")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def finished(out: Path) -> int:
    path = out / "manifest.jsonl"
    return path.read_text().count('"key"') if path.exists() else 0


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals that end a process so")
def test_a_run_ended_twice_and_resumed_equals_one_in_turn(tiny_models, corpus, tmp_path, capsys):
    options = ["-m", str(tiny_models["bridge"]), "-d", "cpu", "--seed", "3"]
    command = ["enhance", str(corpus), "-o", str(tmp_path / "out"), *options, "--jobs", "2"]
    for enough, how, code in ((2, signal.SIGTERM, 143), (5, signal.SIGKILL, -9)):
        run = subprocess.Popen([*RUN, *command], cwd=ROOT, stdout=subprocess.DEVNULL)
        while finished(tmp_path / "out") < enough:
            assert run.poll() is None
            time.sleep(0.02)
        run.send_signal(how)
        assert run.wait(300) == code
        if how == signal.SIGTERM:
            assert not [name for name in contents(tmp_path / "out") if name.endswith(".part")]
    before = finished(tmp_path / "out")
    assert 5 <= before < 12
    assert main([*command, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["done_before"], said["written"], said["failed"]) == (before, 12 - before, 0)
    assert main(["enhance", str(corpus), "-o", str(tmp_path / "alone"), *options]) == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")


def test_separate_in_parts_equals_separate_and_a_failure_is_said(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for i in range(3):
        soundfile.write(tmp_path / "in" / f"{i}.wav", noise(1600, 2, i), 8000)
    (tmp_path / "in" / "1.wav").write_text("no sound")
    options = ["-N", "1", "-d", "cpu", "--template", "{source}/{name}"]
    commands = [["separate", str(tmp_path / "in"), "-o", str(tmp_path / name), *options] for name in ("out", "alone")]
    assert main([*commands[0], "--shard", "1/2"]) == 0
    assert "channels" in capsys.readouterr().err, "what a worker warns of is said"
    assert main([*commands[0], "--shard", "2/2", "--retries", "0"]) == 1
    said = capsys.readouterr()
    assert "1.wav: is not audio" in said.err
    assert "0 files made, 0 done before, 1 failed" in said.out
    assert main(commands[1]) == 1
    assert len(contents(tmp_path / "out")) == 4
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")


def test_vocode_by_jobs_equals_vocode_and_another_setting_does_all_again(tmp_path, capsys):
    model = tiny_vocoders.save("wavenet", tmp_path / "model")
    (tmp_path / "in").mkdir()
    for i in range(2):
        soundfile.write(tmp_path / "in" / f"{i}.wav", noise(3000, 1, i), tiny_vocoders.RATE)
    command = ["vocode", str(tmp_path / "in"), "-m", str(model), "-d", "cpu"]
    assert main([*command, "-o", str(tmp_path / "out"), "--jobs", "1", "--seed", "4"]) == 0
    assert main([*command, "-o", str(tmp_path / "out"), "--jobs", "1", "--seed", "5"]) == 0
    assert "2 files were made with another seed; they are made again" in capsys.readouterr().out
    assert main([*command, "-o", str(tmp_path / "alone"), "--seed", "5"]) == 0
    for name in ("0.wav", "1.wav"):  # the samples: a float WAV file also holds the second of its making
        ours, theirs = (soundfile.read(tmp_path / folder / name)[0] for folder in ("out", "alone"))
        assert np.array_equal(ours, theirs)


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def test_tar_shards_in_and_out(tiny_models, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    sounds = {f"{i}{j}": noise(3000 + 100 * j, 1, 10 * i + j) for i in range(2) for j in range(2)}
    for i in range(2):
        with tarfile.open(tmp_path / "in" / f"{i:03}.tar", "w") as tar:
            for key in (f"{i}{j}" for j in range(2)):
                soundfile.write(tmp_path / "one.wav", sounds[key], 16000)
                add(tar, f"speech/{key}.json", json.dumps({"key": key}).encode())
                add(tar, f"speech/{key}.wav", (tmp_path / "one.wav").read_bytes())
    with tarfile.open(tmp_path / "in" / "001.tar", "a") as tar:
        add(tar, "speech/bad.wav", b"no sound")
    options = ["-m", str(tiny_models["bridge"]), "-d", "cpu", "--format", "flac"]
    command = ["enhance", str(tmp_path / "in" / "{000..001}.tar"), "-o", str(tmp_path / "out"), *options]
    assert main([*command, "--retries", "0"]) == 1
    said = capsys.readouterr()
    assert f"{tmp_path / 'in' / '001.tar'}/speech/bad.wav: is not audio" in said.err
    assert "1 of 3 sounds failed and were left out" in said.err
    (tmp_path / "files").mkdir()
    for key, wave in sounds.items():
        soundfile.write(tmp_path / "files" / f"{key}.wav", wave, 16000)
    assert main(["enhance", str(tmp_path / "files"), "-o", str(tmp_path / "alone"), *options]) == 0
    for i in range(2):
        with tarfile.open(tmp_path / "out" / f"{i:03}.tar") as tar:
            found = {entry.name: tar.extractfile(entry).read() for entry in tar}
        keys = [f"{i}{j}" for j in range(2)]
        assert list(found) == [f"speech/{key}.{kind}" for key in keys for kind in ("json", "flac")]
        for key in keys:
            assert found[f"speech/{key}.flac"] == (tmp_path / "alone" / f"{key}.flac").read_bytes()
            assert json.loads(found[f"speech/{key}.json"]) == {"key": key}


def test_webdataset_reads_our_shards(tiny_models, tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    soundfile.write(tmp_path / "one.wav", noise(2000), 16000)
    with webdataset.TarWriter(str(tmp_path / "in.tar")) as tar:
        tar.write({"__key__": "a", "wav": (tmp_path / "one.wav").read_bytes(), "txt": "hello"})
    command = [
        "enhance",
        str(tmp_path / "in.tar"),
        "-o",
        str(tmp_path / "out.tar"),
        "-m",
        str(tiny_models["regression"]),
    ]
    assert main([*command, "-d", "cpu"]) == 0
    (sample,) = webdataset.WebDataset(str(tmp_path / "out.tar"), shardshuffle=False)
    assert (sample["__key__"], sample["txt"]) == ("a", b"hello")
    assert soundfile.info(io.BytesIO(sample["wav"])).frames == 2000


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["in", "-o", "out", "--shard", "0/3"], "--shard takes I/N with I from 1 to N"),
        (["in", "-o", "out", "--shard", "third"], "--shard takes I/N"),
        (["in", "--jobs", "2"], "name one by -o, got none"),
        (["in/a.wav", "-o", "b.wav", "--jobs", "2"], "name one by -o, got b.wav"),
        (["in", "-o", "out", "--engine", "spark"], "--engine must be local or ray, got 'spark'"),
        (["in", "-o", "out", "--address", "auto"], "say --engine ray beside it"),
        (["in", "x.tar", "-o", "out"], "expected tar shards or other files, got both"),
        (["in/{0..3}.tar", "-o", "out"], "no such shard (4 of 4 are missing)"),
        (["in/s.tar"], "tar shards need -o"),
        (["in/s.tar", "in/t.tar", "-o", "out.tar"], "names one shard, but the input is 2"),
        (["in/s.tar", "-o", "in"], "would overwrite the input"),
        (["in/s.tar", "-o", "out", "--plot"], "--plot writes pictures beside files"),
        (["in", "-o", "out", "-d", "cpu,cpu"], "with --jobs N only, got --device cpu,cpu"),
        (["in", "-o", "out", "--jobs", "2", "-d", "cpu,cuda:77"], "no device 'cuda:77' on this machine"),
    ],
)
def test_bad_requests(tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "a.wav", noise(100), 16000)
    for name in ("s", "t"):
        tarfile.open(tmp_path / "in" / f"{name}.tar", "w").close()
    assert main(["enhance", *arguments]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
