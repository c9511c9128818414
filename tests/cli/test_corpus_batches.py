"""`--batch-size`: files of one length run at once give what each gives alone, whoever is broken, killed or resumed."""

import dataclasses
import json
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from fromnoise import hub
from fromnoise.batch import Item, buckets
from fromnoise.cli import main, separate
from fromnoise.cli.jobs import Job
from fromnoise.cli.together import do_jobs
from fromnoise.tasks.chunked import Level
from fromnoise.tasks.enhancement import EnhancementModel, Enhancer
from tests import tiny_vocoders
from tests.slow_work import work
from tests.tiny_separators import voices

TOLERANCE = 1e-6  # of full scale: 16 units of the last place of float32 at 1, for sums in another order
FLOAT = ("--subtype", "FLOAT", "--clip-mode", "none")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Here as in the workers, so that results can be compared to the last bit."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write(path: Path, n: int, rate: int = 16000, channels: int = 1, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).standard_normal((n, channels))
    soundfile.write(path, (0.1 * noise).astype(np.float32), rate, subtype="FLOAT")


def sounds(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: soundfile.read(path, dtype="float32")[0] for path in sorted(folder.glob("*.wav"))}


def lines(out: Path) -> list[dict]:
    """The manifest's whole lines of files."""
    path = out / "manifest.jsonl"
    whole = [line for line in path.read_bytes().splitlines(True) if line.endswith(b"\n")] if path.exists() else []
    return [line for line in map(json.loads, whole) if "key" in line]


def require_close(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, wave in one.items():
        np.testing.assert_allclose(wave, other[name], rtol=0, atol=TOLERANCE, err_msg=name)


def test_each_file_gives_what_it_gives_alone_and_a_broken_one_fails_alone(tiny_models, tmp_path, capsys):
    # 3762 to 3921 samples at 16 kHz make 25 frames, as do 5400 at 22.05 kHz: a to f, of which d cannot be read to its
    # end; g has other frames, and h is cut into pieces.
    lengths = {"a": 3762, "b": 3921, "c": 3900, "d": 3900, "e": 5400, "f": 3900, "g": 3922, "h": 24000}
    for seed, (name, n) in enumerate(lengths.items()):
        rate, channels = 22050 if name == "e" else 16000, 2 if name == "c" else 1
        write(tmp_path / "in" / f"{name}.wav", n, rate, channels, seed)
    wave, _ = soundfile.read(tmp_path / "in" / "c.wav", dtype="float32")
    soundfile.write(tmp_path / "in" / "c.wav", wave * [1, 0], 16000, subtype="FLOAT")
    wave, _ = soundfile.read(tmp_path / "in" / "d.wav", dtype="float32")
    soundfile.write(tmp_path / "in" / "d.wav", np.where(np.arange(3900) == 3000, np.nan, wave), 16000, subtype="FLOAT")
    options = ["-m", str(tiny_models["bridge"]), "-d", "cpu", "--seed", "3", "--dry", "0.2", "--segment", "0.5", *FLOAT]
    assert main(["enhance", str(tmp_path / "in"), "-o", str(tmp_path / "alone"), *options]) == 1
    command = ["enhance", str(tmp_path / "in"), "-o", str(tmp_path / "out"), *options, "--batch-size", "4"]
    capsys.readouterr()
    assert main([*command, "--retries", "0"]) == 1
    assert "d.wav: holds NaN" in capsys.readouterr().err
    require_close(sounds(tmp_path / "out"), sounds(tmp_path / "alone"))
    assert not sounds(tmp_path / "out")["c.wav"][:, 1].any()
    together = {line["key"][0]: line.get("batch") for line in lines(tmp_path / "out")}
    assert together == {"a": 4, "b": 2, "c": 4, "d": None, "e": 2, "f": 4, "g": None, "h": None}


def test_shifts_by_which_the_lengths_come_to_differ_are_no_matter(tiny_models):
    drawn = hub.load(str(tiny_models["bridge"]), torch.device("cpu")).model
    model = EnhancementModel(dataclasses.replace(drawn.config, shifts=4))
    model.load_state_dict(drawn.state_dict())
    enhancer = Enhancer(model)
    waves = [
        0.1 * np.random.default_rng(n).standard_normal((2, n)).astype(np.float32) for n in (3770, 3850, 3860, 3920)
    ]
    assert [len({enhancer.positions(w.shape[1] + delay) for w in waves}) for delay in (0, 40, 80, 120)] == [1, 2, 2, 2]
    pieces = [enhancer.piece(Level.of(wave), seed=5) for wave in waves]
    found = enhancer.together([(piece, wave, 0) for piece, wave in zip(pieces, waves, strict=True)], 3)
    for piece, wave, together in zip(pieces, waves, found, strict=True):
        np.testing.assert_allclose(together, piece(wave, 0), rtol=0, atol=TOLERANCE)


def test_a_run_killed_and_resumed_equals_an_undisturbed_one_to_the_last_bit(tiny_models, tmp_path):
    for i in range(9):
        write(tmp_path / "in" / f"{i}.wav", 3200 + 160 * (i % 2), seed=i)
    command = ["enhance", str(tmp_path / "in"), "-m", str(tiny_models["bridge"]), "-d", "cpu", "--batch-size", "3"]
    command += [*FLOAT, "-o"]
    assert main([*command, str(tmp_path / "whole")]) == 0
    assert [line["key"][0] for line in lines(tmp_path / "whole")] == [*"135", *"024", *"68", "7"]
    # What SIGKILL leaves in the middle of the second batch: an output and its line, and another output without.
    shutil.copytree(tmp_path / "whole", tmp_path / "out")
    for i in (4, 6, 7, 8):
        (tmp_path / "out" / f"{i}.wav").unlink()
    manifest = tmp_path / "out" / "manifest.jsonl"
    manifest.write_bytes(b"".join(manifest.read_bytes().splitlines(True)[:5]))
    assert main([*command, str(tmp_path / "out")]) == 0
    assert [line["key"][0] for line in lines(tmp_path / "out")[4:]] == [*"024", *"68", "7"]
    ours, theirs = sounds(tmp_path / "out"), sounds(tmp_path / "whole")
    assert len(ours) == 9
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_sources_of_files_at_once_are_those_of_each_alone(tmp_path):
    separator = hub.load("separate-small", torch.device("cpu"))
    settings = separate.Settings(1, None, 5, 30.0, 2.0, separate.TEMPLATE, "rescale", "FLOAT", False)
    waves = [voices(0.25, 8000, seed=k).sum(0) for k in range(3)]
    (tmp_path / "alone").mkdir()
    for k, wave in enumerate([*waves, np.zeros(2000, np.float32)]):
        soundfile.write(tmp_path / f"{k}.wav", wave, 8000, subtype="FLOAT")

    def jobs(out: Path) -> list[Job]:
        return [Job(tmp_path / f"{k}.wav", out / f"{k}_s1.wav", (out / f"{k}_s2.wav",)) for k in range(4)]

    for job in jobs(tmp_path / "alone"):
        separate.separate_file(separator, job, lambda *_: None, settings)
    begin = partial(separate.separating, settings=settings)
    records = do_jobs(begin, 4, separator, jobs(tmp_path / "out"))
    assert [record["error"] for record in records] == [None] * 4
    assert {separate.length_of(separator, settings, job.source) for job in jobs(tmp_path)} == {(2000, 2000)}
    require_close(sounds(tmp_path / "out"), sounds(tmp_path / "alone"))


def test_mels_at_once_sound_as_each_alone(tmp_path):
    model = tiny_vocoders.save("wavenet", tmp_path / "model")
    for i in range(3):
        write(tmp_path / "in" / f"{i}.wav", 3000 - 5 * i, tiny_vocoders.RATE, seed=i)
    command = ["vocode", str(tmp_path / "in"), "-m", str(model), "-d", "cpu", "--seed", "5", "-o"]
    assert main([*command, str(tmp_path / "alone")]) == 0
    assert main([*command, str(tmp_path / "out"), "--batch-size", "3"]) == 0
    assert [line["batch"] for line in lines(tmp_path / "out")] == [3, 3, 3]
    require_close(sounds(tmp_path / "out"), sounds(tmp_path / "alone"))


def test_batches_hold_equal_lengths_and_the_nearest_of_them():
    items = [Item(str(k), (str(k),), (1, 1)) for k in range(9)]
    lengths = [(5, 2), (7, 1), (5, 3), None, (5, 1), (7, 1), (5, 1), None, (5, 2)]
    found = buckets(items, lambda item: lengths[int(item.source)], 2)
    names = sorted("".join(item.source for item in batch) for batch in found)
    assert names == ["08", "15", "2", "3", "46", "7"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_batch_whose_worker_dies_is_done_file_by_file(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(6):
        (tmp_path / "in" / f"{i}.txt").write_text({1: "die die die"}.get(i, "x"))
    batched = partial(buckets, length=lambda item: (1, 1), size=3)
    outcome, _ = work(tmp_path / "in", tmp_path / "out", batched=batched, retries=0)
    assert sorted(Path(record["input"]).name for record in outcome.made) == [f"{i}.txt" for i in (0, 2, 3, 4, 5)]
    (failed,) = outcome.failed
    assert "1.txt: the process that worked on it ended (by SIGKILL)" in failed["error"]


def test_tar_shards_have_no_batches(tmp_path, capsys):
    (tmp_path / "a.tar").touch()
    assert main(["enhance", str(tmp_path / "a.tar"), "-o", str(tmp_path / "out"), "--batch-size", "2"]) == 2
    assert "--batch-size joins files" in capsys.readouterr().err
