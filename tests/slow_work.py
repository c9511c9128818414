"""A task for the corpus engine that needs no torch: outputs are the inputs doubled, in pieces, with pauses.

    python -m tests.slow_work IN OUT JOBS SECONDS       what a run of a command does; it can be killed

An input that holds "fail" fails, one that holds "warn" warns. One that holds "die" ends its process at the first
attempt, one that holds it twice at every one.
"""

import os
import signal
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from fromnoise.batch import Item, Manifest, Task, run
from fromnoise.batch.pool import Pool


def opened(seconds: float, device: str) -> float:
    return seconds


def doubled(seconds: float, item: Item) -> dict:
    content = Path(item.source).read_bytes()
    time.sleep(seconds)
    if b"warn" in content:
        warnings.warn(f"{item.source} warns", stacklevel=1)
    if b"fail" in content:
        return {"error": f"{item.source}: fails"}
    died = Path(item.source + ".died")
    if content.count(b"die") > died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    target = Path(item.outputs[0])
    target.parent.mkdir(parents=True, exist_ok=True)
    half = target.with_name(f".{target.stem}-{os.getpid():08x}.part")
    half.write_bytes(2 * content)
    half.replace(target)
    return {"error": None, "output": item.outputs[0]}


def task(seconds: float = 0.0) -> Task:
    return Task(partial(opened, seconds), doubled)


def items(source: Path, out: Path) -> list[Item]:
    found = sorted(path for path in source.rglob("*.txt") if path.is_file())
    return [Item.of(path, [out / path.relative_to(source)]) for path in found]


def work(source: Path, out: Path, jobs=1, seconds=0.0, part=(1, 1), settings=None, hands=None, told=None, **options):
    """(outcome with the records of what was made, manifest) of a run; hands: other workers than a pool."""
    every = items(source, out)
    mine = every[part[0] - 1 :: part[1]]
    others = [item for item in every if item not in mine]
    made = []

    def note(record: dict, done: int, total: int) -> None:
        if not record["error"]:
            made.append(record)
        if told is not None:
            told(record, done, total)

    with Manifest(out, settings or {"factor": 2}, "1", part) as manifest:
        hands = hands or (lambda: Pool(task(seconds), jobs, ["cpu"], 1))
        outcome = run(mine, others, hands, manifest, told=note, **options)
    assert outcome.made == len(made)
    return SimpleNamespace(done_before=outcome.done_before, made=made, failed=outcome.failed), manifest


if __name__ == "__main__":
    work(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
