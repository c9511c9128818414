"""`fromnoise evaluate` by the corpus engine: in parts, killed and gone on with; the report is that of one run."""

import csv
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fromnoise.cli import main
from tests import tiny_vocoders
from tests.cli.test_corpus import ROOT, RUN, finished, one_thread
from tests.tiny_separators import voices

__all__ = ["one_thread"]  # a fixture

RATE = 16000


def wave(index: int, n: int) -> np.ndarray:
    return (0.2 * np.sin(np.arange(n) * (0.05 + 0.01 * index))).astype(np.float32)


def make_pairs(folder: Path, count: int, n: int) -> Path:
    for i in range(count):
        clean, name = wave(i, n + 100 * i), f"{'room/' if i % 2 else ''}{i}.wav"
        noise = 0.05 * np.random.default_rng(i).standard_normal(clean.shape)
        for side, sound in {"clean": clean, "noisy": clean + noise}.items():
            (folder / side / name).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / side / name, sound, RATE)
    return folder


def evaluate(*arguments: object) -> int:
    return main(["evaluate", *map(str, arguments), "-d", "cpu"])


def report(folder: Path) -> tuple[str, dict]:
    """Every score as it was written, and the summary without what no two runs share."""
    summary = json.loads((folder / "summary.json").read_text())
    for row in summary["rows"]:
        row.pop("real_time_factor")
    summary["settings"].pop("engine", None)
    return (folder / "results.csv").read_text(), summary


def test_two_parts_make_the_report_of_one_run(tiny_models, tmp_path, capsys):
    data = make_pairs(tmp_path / "data", 4, 4000)
    (data / "noisy/2.wav").write_bytes(b"no sound")
    (tmp_path / "theirs/room").mkdir(parents=True)
    for i, name in enumerate(["0", "room/1", "2"]):
        soundfile.write(tmp_path / f"theirs/{name}.wav", wave(i, 4000 + 100 * i), RATE)
    models = f"{tiny_models['bridge']},{tmp_path / 'theirs'}"
    options = [models, data, "--metrics", "si_sdr,wss", "-N", "1,2", "--examples", 1, "--seed", 5]
    parts = [*options, "-o", tmp_path / "parts", "--jobs", 1, "--retries", 0]
    assert evaluate(*parts, "--shard", "2/2") == 1
    said = capsys.readouterr()
    assert "theirs: room/3 has no score: the model failed: InputError: expected one result for room/3" in said.err
    assert "recordings that are not done yet: 2; the run that finds none makes the report" in said.out
    assert not (tmp_path / "parts/report.html").exists()
    assert evaluate(*parts, "--shard", "1/2", "--json") == 1
    failed = [one["file"] for one in json.loads(capsys.readouterr().out)["failed"]]
    assert failed == [*["2"] * 4, "room/3"]  # nowhere a noisy file, and no result
    assert evaluate(*options, "-o", tmp_path / "alone") == 1
    assert report(tmp_path / "parts") == report(tmp_path / "alone")
    assert "<audio" in (tmp_path / "parts/report.html").read_text()
    rows = json.loads((tmp_path / "parts/summary.json").read_text())["rows"]
    assert [row["real_time_factor"] is not None for row in rows] == [True, True, True, False]  # theirs had none


def test_a_recording_that_was_given_up_is_in_the_report_with_its_reason(tmp_path):
    data = make_pairs(tmp_path / "data", 2, 4000)
    command = ["noisy", data, "--metrics", "si_sdr", "-o", tmp_path / "data/../out", "--jobs", 1]
    assert evaluate(*command, "--shard", "1/2") == 0
    manifest = tmp_path / "out/manifest-1-of-2.jsonl"
    *before, line = manifest.read_text().splitlines()
    line = json.loads(line) | {"error": "0.wav: its process ended"}
    manifest.write_text("\n".join([*before, json.dumps(line)]) + "\n")
    scores = tmp_path / "out/scores/0.json"
    scores.write_text(scores.read_text().replace(line["run"], "another"))  # left by a run with other settings
    assert evaluate(*command, "--shard", "2/2") == 1
    with (tmp_path / "out/results.csv").open() as file:
        found = {line["file"]: (line["si_sdr"], line["reasons"]) for line in csv.DictReader(file)}
    assert found["0"] == ("", "si_sdr: 0.wav: its process ended")
    assert np.isfinite(float(found["room/1"][0]))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals that end a process so")
def test_a_run_killed_goes_on_and_what_changed_is_done_again(tiny_models, tmp_path, capsys):
    data = make_pairs(tmp_path / "data", 6, 80000)
    options = [tiny_models["bridge"], data, "--metrics", "si_sdr,mr_stft", "--examples", 0, "-d", "cpu"]
    command = [str(one) for one in ["evaluate", *options, "-o", tmp_path / "out", "--engine", "local"]]
    run = subprocess.Popen([*RUN, *command], cwd=ROOT, stdout=subprocess.DEVNULL)
    while finished(tmp_path / "out") < 2:
        assert run.poll() is None
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    assert run.wait(300) == -signal.SIGKILL
    before = finished(tmp_path / "out")
    assert 2 <= before < 6
    assert main(command) == 0
    assert f"{6 - before} files made, {before} done before, 0 failed" in capsys.readouterr().out
    soundfile.write(data / "clean/0.wav", wave(9, 80000), RATE)
    assert main(command) == 0
    assert "1 files made, 5 done before, 0 failed" in capsys.readouterr().out
    assert main([str(one) for one in ["evaluate", *options, "-o", tmp_path / "alone"]]) == 0
    assert report(tmp_path / "out") == report(tmp_path / "alone")


def test_separators_by_workers_leave_the_same_lists_and_sounds(tmp_path):
    for i in range(2):
        for k, voice in enumerate(voices(1.0, 8000, seed=i, pauses=False), 1):
            (tmp_path / f"data/2speakers/wav8k/min/tt/s{k}").mkdir(parents=True, exist_ok=True)
            soundfile.write(tmp_path / f"data/2speakers/wav8k/min/tt/s{k}/m{i}.wav", voice, 8000)
    options = ["separate-small", tmp_path / "data", "-N", 1, "--metrics", "si_sdr,si_sir", "--save-n", 1]
    assert evaluate(*options, "-o", tmp_path / "out", "--engine", "local") == 0
    assert evaluate(*options, "-o", tmp_path / "alone") == 0
    assert report(tmp_path / "out") == report(tmp_path / "alone")
    wavs = sorted(path.relative_to(tmp_path / "alone") for path in (tmp_path / "alone").rglob("*.wav"))
    assert len(wavs) == 3 * 5
    for path in wavs:
        assert (tmp_path / "out" / path).read_bytes() == (tmp_path / "alone" / path).read_bytes()
    for path in (tmp_path / "alone").rglob("test.json"):
        lists = [
            json.loads((tmp_path / name / path.relative_to(tmp_path / "alone")).read_text())
            for name in ("out", "alone")
        ]
        plain = [[{k: v for k, v in one.items() if k not in ("runtime", "rtf")} for one in found] for found in lists]
        assert plain[0] == plain[1]


def test_vocoders_by_workers_score_as_in_one_process(tmp_path):
    (tmp_path / "data").mkdir()
    for i in range(2):
        soundfile.write(tmp_path / f"data/{i}.wav", wave(i, 3000), tiny_vocoders.RATE)
    options = [tiny_vocoders.save("wavenet", tmp_path / "model"), tmp_path / "data", "--metrics", "si_sdr", "-N", 2]
    assert evaluate(*options, "-o", tmp_path / "out", "--engine", "local") == 0
    assert evaluate(*options, "-o", tmp_path / "alone") == 0
    assert report(tmp_path / "out") == report(tmp_path / "alone")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["noisy", "data", "--shard", "1/2"], "keep scores and a manifest in the report's folder; name one by -o"),
        (["noisy", "data", "-o", "out", "--shard", "3/2"], "--shard takes I/N with I from 1 to N"),
        (["noisy", "data", "-o", "out", "--address", "auto"], "say --engine ray beside it"),
        (["noisy", "twins.jsonl", "-o", "out", "--engine", "local"], "two recordings are called 'a'"),
        (["digits-small", "data", "-o", "out", "--engine", "local"], "scores of generators are those of a whole set"),
    ],
)
def test_bad_requests(tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    make_pairs(tmp_path / "data", 1, 4000)
    lines = [json.dumps({"noisy": f"{side}/a.wav", "clean": "data/clean/0.wav"}) for side in ("x", "y")]
    (tmp_path / "twins.jsonl").write_text("\n".join(lines))
    assert evaluate(*arguments) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out/scores").exists()
