"""A corpus by Ray Data on this machine: two workers, one killed in the middle; every file once, none lost."""

import json
import os
import signal
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("ray", reason="Ray is not installed: pip install 'fromnoise[scale]'")

from fromnoise.batch import buckets
from fromnoise.batch.cluster import Cluster
from fromnoise.cli import main
from tests.slow_work import items, task, work


@pytest.fixture(scope="module")
def cluster():
    """Ray as a run starts it; all tests here share it, since it takes ten seconds."""
    with Cluster(task(0.3), 2, "cpu", None) as started:
        yield started


def test_every_file_once_though_a_worker_is_killed(cluster, tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(12):
        (tmp_path / "in" / f"{i}.txt").write_text({7: "fail", 3: "die die"}.get(i, "x" * (i + 1)))
    killed = []

    def kill_one(record: dict, done: int, total: int) -> None:
        if not killed:
            killed.append(int(record["by"].split(":")[1]))
            os.kill(killed[0], signal.SIGKILL)

    outcome, manifest = work(
        tmp_path / "in", tmp_path / "out", hands=lambda: nullcontext(cluster), told=kill_one, retries=0
    )
    assert killed
    lines = [json.loads(line) for line in manifest.path.read_text().splitlines()]
    assert sorted(line["key"] for line in lines if "key" in line) == sorted(f"{i}.txt" for i in range(12))
    assert {line["by"].split(":")[1] for line in lines if "by" in line} > {str(killed[0])}
    reasons = {Path(record["input"]).name: record["error"] for record in outcome.failed}
    assert reasons == {
        "7.txt": f"{tmp_path / 'in/7.txt'}: fails",
        "3.txt": f"{tmp_path / 'in/3.txt'}: 3 workers ended at it, as by a lack of memory",
    }
    for item in items(tmp_path / "in", tmp_path / "out"):
        if Path(item.source).name not in reasons:
            assert Path(item.outputs[0]).read_bytes() == 2 * Path(item.source).read_bytes()
    assert not [path for path in (tmp_path / "out").iterdir() if path.suffix == ".part"]


def test_a_batch_that_ends_its_worker_is_done_file_by_file(cluster, tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(4):
        (tmp_path / "in" / f"{i}.txt").write_text("die" if i == 1 else "x")
    batched = partial(buckets, length=lambda item: (1, 1), size=2)
    outcome, _ = work(tmp_path / "in", tmp_path / "out", hands=lambda: nullcontext(cluster), batched=batched, retries=0)
    assert (sorted(Path(record["input"]).stem for record in outcome.made), outcome.failed) == ([*"0123"], [])


def test_the_command_by_ray_writes_what_it_writes_by_itself(cluster, tiny_models, tmp_path):
    for i in range(2):
        noise = 0.1 * np.random.default_rng(i).standard_normal(3000 + 500 * i)
        (tmp_path / "in").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "in" / f"{i}.wav", noise, 16000)
    options = ["-m", str(tiny_models["bridge"]), "-d", "cpu"]
    assert main(["enhance", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--engine", "ray", *options]) == 0
    assert main(["enhance", str(tmp_path / "in"), "-o", str(tmp_path / "alone"), *options]) == 0
    for i in range(2):
        assert (tmp_path / "out" / f"{i}.wav").read_bytes() == (tmp_path / "alone" / f"{i}.wav").read_bytes()


def test_evaluate_by_ray_writes_the_scores_of_a_run_by_itself(cluster, tiny_models, tmp_path):
    for i in range(2):
        clean = 0.2 * np.sin(np.arange(3000 + 500 * i) * 0.05)
        for side, noise in {"clean": 0.0, "noisy": 0.05 * np.random.default_rng(i).standard_normal(len(clean))}.items():
            (tmp_path / "data" / side).mkdir(parents=True, exist_ok=True)
            soundfile.write(tmp_path / "data" / side / f"{i}.wav", clean + noise, 16000)
    options = [str(tiny_models["bridge"]), str(tmp_path / "data"), "--metrics", "si_sdr", "-d", "cpu"]
    assert main(["evaluate", *options, "-o", str(tmp_path / "out"), "--engine", "ray"]) == 0
    assert main(["evaluate", *options, "-o", str(tmp_path / "alone")]) == 0
    assert (tmp_path / "out/results.csv").read_bytes() == (tmp_path / "alone/results.csv").read_bytes()
