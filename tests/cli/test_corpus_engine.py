"""The corpus engine by itself: what is done once stays done, whoever dies; what fails is tried again and named."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fromnoise.batch import Manifest
from fromnoise.batch.items import Item
from fromnoise.batch.manifest import remove_parts
from fromnoise.types import InputError
from tests.slow_work import items, work

ROOT = Path(__file__).parents[2]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for i in range(12):
        path = tmp_path / "in" / ("sub" if i % 2 else "") / f"{i}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x" * (i + 1))
    return tmp_path / "in"


def lines(out: Path) -> list[dict]:
    """The records of all manifests."""
    found = [line for path in sorted(out.glob("manifest*")) for line in path.read_text().splitlines()]
    return [line for line in map(json.loads, found) if "key" in line]


def require_all_doubled(corpus: Path, out: Path) -> None:
    for item in items(corpus, out):
        assert Path(item.outputs[0]).read_bytes() == 2 * Path(item.source).read_bytes()
    assert not [path for path in out.rglob("*") if path.suffix == ".part"]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_run_killed_twice_goes_on_and_its_workers_end_with_it(corpus, tmp_path):
    out, pids = tmp_path / "out", set()
    for enough in (2, 6):
        command = [sys.executable, "-m", "tests.slow_work", str(corpus), str(out), "2", "0.1"]
        run = subprocess.Popen(command, cwd=ROOT)
        while len(lines(out)) < enough:
            assert run.poll() is None
            time.sleep(0.01)
        run.kill()
        run.wait()
        pids |= {int(line["by"].split(":")[1]) for line in lines(out)}
    (out / "sub" / ".3-0123abcd.part").write_text("half")
    before = {line["key"] for line in lines(out)}
    deadline = time.monotonic() + 60
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, pids))
    outcome, _ = work(corpus, out, jobs=2)
    assert (outcome.done_before, len(outcome.made)) == (len(before), 12 - len(before))
    assert sorted(line["key"] for line in lines(out)) == sorted(
        path.relative_to(corpus).as_posix() for path in corpus.rglob("*.txt")
    )
    require_all_doubled(corpus, out)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_worker_that_dies_costs_one_attempt_and_no_file(corpus, tmp_path):
    (corpus / "5.txt").write_text("die")
    outcome, _ = work(corpus, tmp_path / "out", jobs=2)
    assert (len(outcome.made), outcome.failed) == (13, [])
    for one in corpus.glob("*.died"):
        one.unlink()
    (tmp_path / "out" / "5.txt").unlink()
    outcome, _ = work(corpus, tmp_path / "out", jobs=2, retries=0)
    assert "5.txt: the process that worked on it ended (by SIGKILL)" in outcome.failed[0]["error"]
    assert (outcome.done_before, len(outcome.made)) == (12, 0)


def test_failures_are_named_once_and_tried_again_by_the_next_run(corpus, tmp_path):
    (corpus / "2.txt").write_text("fail")
    (corpus / "4.txt").write_text("warn")
    told = []
    outcome, _ = work(corpus, tmp_path / "out", retries=2, told=lambda *what: told.append(what))
    assert [record["error"] for record in outcome.failed] == [f"{corpus / '2.txt'}: fails"]
    assert [record["warnings"] for record, _, _ in told if "warnings" in record] == [[f"{corpus / '4.txt'} warns"]]
    assert (len(told), told[-1][1]) == (12, told[-1][2])
    (corpus / "2.txt").write_text("well")
    outcome, _ = work(corpus, tmp_path / "out")
    assert (outcome.done_before, [record["input"] for record in outcome.made]) == (11, [str(corpus / "2.txt")])
    require_all_doubled(corpus, tmp_path / "out")


def test_the_longest_come_first(corpus, tmp_path):
    outcome, _ = work(corpus, tmp_path / "out")
    sizes = [Path(record["input"]).stat().st_size for record in outcome.made]
    assert sizes == sorted(sizes, reverse=True)


def test_changed_inputs_outputs_and_settings_are_done_again(corpus, tmp_path):
    out = tmp_path / "out"
    work(corpus, out)
    (corpus / "0.txt").write_text("y")  # as long as it was
    (out / "sub/1.txt").unlink()
    (out / "2.txt").write_text("zzzzzz")  # as long as it was: another program's
    assert len(work(corpus, out)[0].made) == 3
    with Manifest(out, {"factor": 2, "steps": 4}, "1") as manifest:
        assert manifest.other_settings(items(corpus, out)) == (12, ["steps"])
    assert len(work(corpus, out, settings={"factor": 3})[0].made) == 12
    assert len(work(corpus, out)[0].made) == 12, "what was made since with other settings is not what was asked for"


def test_parts_are_disjoint_and_complete_and_know_of_one_another(corpus, tmp_path):
    out = tmp_path / "out"
    made = [work(corpus, out, part=(i, 5))[0].made for i in range(1, 6)]
    assert sorted(len(records) for records in made) == [2, 2, 2, 3, 3]
    assert sorted(path.name for path in out.glob("manifest*")) == [f"manifest-{i}-of-5.jsonl" for i in range(1, 6)]
    assert work(corpus, out)[0].done_before == 12
    require_all_doubled(corpus, out)


def test_one_run_at_a_time_writes_a_manifest(tmp_path):
    with Manifest(tmp_path, {}, "1"), pytest.raises(InputError, match="is held by another run"):
        Manifest(tmp_path, {}, "1").__enter__()
    with Manifest(tmp_path, {}, "1"), Manifest(tmp_path, {}, "1", (1, 2)):
        pass


def test_a_line_that_was_cut_off_is_none(corpus, tmp_path):
    _, manifest = work(corpus, tmp_path / "out")
    whole = manifest.path.read_bytes()
    manifest.path.write_bytes(whole[:-5])
    outcome, _ = work(corpus, tmp_path / "out")
    assert (outcome.done_before, len(outcome.made)) == (11, 1)
    assert work(corpus, tmp_path / "out")[0].done_before == 12


def test_temporary_files_of_other_parts_stay(tmp_path):
    names = [".a-00000000.part", ".b-00000000.part", ".a.wav-00000000.part", ".a-0000000x.part", "a-00000000.part"]
    for name in names:
        (tmp_path / name).touch()
    mine = [Item("a", (str(tmp_path / f"{stem}.wav"),), (1, 1)) for stem in "ab"]
    assert remove_parts(mine, [mine[1]]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([names[1], *names[3:]])


def test_a_worker_that_cannot_start_ends_the_run_with_the_reason(corpus, tmp_path):
    from fromnoise.batch import Task, run
    from fromnoise.batch.pool import Pool

    task = Task(int, print)  # int("cpu") raises
    with (
        Manifest(tmp_path / "out", {}, "1") as manifest,
        pytest.raises(InputError, match=re.escape("a worker could not start: invalid literal for int()")),
    ):
        run(items(corpus, tmp_path / "out"), [], lambda: Pool(task, 2, ["cpu"], 1), manifest)
