"""Tar shards in and out: every sound inside is worked on like a file, everything else goes along as it is.

    shards/000000.tar   a.wav a.json b.wav ...   ->   out/000000.tar   a.wav a.json b.wav ...

One shard is one piece of work: it appears under its name when all of it is there. A sound that fails is left out, and
its shard counts as failed, so the next run makes it again.
"""

import os
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from fromnoise.cli import work
from fromnoise.cli.jobs import Job, Plan, require_safe
from fromnoise.cli.work import FileWork, Planned


def plan_tars(inputs: Sequence[str], output: Path | None) -> Plan:
    """A job for each shard, into the folder or the one shard that `output` names."""
    from fromnoise.data.shards import find_shards
    from fromnoise.types import InputError

    found = list(dict.fromkeys(path for text in inputs for path in find_shards(os.path.expanduser(text))))
    if output is None:
        raise InputError("tar shards need -o: a folder, or the name of one shard")
    if output.suffix == ".tar":
        if len(found) != 1:
            raise InputError(f"-o {output} names one shard, but the input is {len(found)}; name a folder instead")
        jobs = [Job(found[0], output)]
    else:
        jobs = [Job(path, output / path.name) for path in found]
    require_safe(jobs)
    return Plan(tuple(jobs), ())


def tar_work(file_work: FileWork, planned: Planned, reads: Sequence[str]) -> FileWork:
    """The work on a whole shard, from that on one file."""
    return partial(_do_tar, file_work, planned, tuple(reads))


def _do_tar(
    file_work: FileWork, planned: Planned, reads: Sequence[str], tool: Any, job: Job, progress: work.Progress
) -> work.Record:
    """Every member of a shard, in order; the record adds up those of the sounds."""
    from fromnoise.data.shards import TarWriter, members, read_member

    started = time.perf_counter()
    records, names = [], list(members(job.source))
    with TarWriter(job.target) as tar:
        for count, name in enumerate(names, 1):
            if PurePosixPath(name).suffix.lower() not in reads:
                tar.write(name, read_member(job.source / name))
                continue
            with tempfile.TemporaryDirectory(prefix="fromnoise-") as scratch:
                record, made = _do_member(file_work, planned, tool, job.source, name, Path(scratch))
                for path in made:
                    tar.write(path.relative_to(Path(scratch) / "out").as_posix(), path.read_bytes())
            records.append(record)
            progress(count, len(names))
    failed = [record["error"] for record in records if record["error"]]
    seconds, spent = sum(record.get("seconds", 0.0) for record in records), time.perf_counter() - started
    reason = f"{job.source}: {len(failed)} of {len(records)} sounds failed and were left out: {'; '.join(failed[:3])}"
    return work.names(job) | {
        "sounds": len(records) - len(failed),
        "seconds": seconds,
        "work_seconds": spent,
        "rtf": spent / seconds if seconds else None,
        "error": reason if failed else None,
    }


def _do_member(
    file_work: FileWork, planned: Planned, tool: Any, shard: Path, name: str, scratch: Path
) -> tuple[work.Record, list[Path]]:
    """The record of one sound, and the files that were made of it below `scratch`/out."""
    from fromnoise.data.shards import read_member

    inside, outside = scratch / "in", scratch / "out"
    path = inside / name
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        return {"error": f"{shard}/{name}: a name that leads out of the shard"}, []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(read_member(shard / name))
    todo = planned([str(inside)], outside)
    if not todo.jobs:
        return {"error": f"{shard}/{name}: a hidden file"}, []
    record = work.attempt(todo.jobs[0], partial(file_work, tool), lambda *_: None)
    if record["error"]:
        return record | {"error": record["error"].replace(str(inside), str(shard))}, []
    return record, list(todo.jobs[0].targets)
