"""One file after the other: every job's record, what is said of it, and going on when one fails.

A record is plain data: input, output (or, of work that makes several files, outputs), `error` (None when all went well)
and, of work that was done, `seconds` of sound, `work_seconds` and their ratio `rtf`, the real-time factor.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fromnoise.cli import common

if TYPE_CHECKING:
    from fromnoise.cli.jobs import Job, Plan

Record = dict[str, Any]
Progress = Callable[[int, int], None]
Work = Callable[["Job", Progress], Record]
FileWork = Callable[[Any, "Job", Progress], Record]
"""The same with the model before the job, for whoever has one to tell."""
Planned = Callable[[Sequence[str], Path | None], "Plan"]
"""(inputs, output) -> the jobs: `jobs.plan` with everything else of the command filled in."""
EXPECTED = (ValueError, OSError, RuntimeError, MemoryError, ArithmeticError)
"""What a file may do to the work on it; anything else is a fault of the program."""


def load(name: str, task: str, device: str, checkpoint: str) -> Any:
    """The model by its name. Raises InputError for a model of another task."""
    from fromnoise import hub
    from fromnoise.types import InputError

    loaded = hub.load(name, common.choose_device(device), checkpoint)
    if loaded.task != task:
        raise InputError(f"the model {loaded.name!r} is for the task {loaded.task!r}; expected one for {task!r}")
    return loaded


def run(todo: "Plan", work: Work, skip_existing: bool, voice: common.Voice) -> list[Record]:
    """Do every job; one record for each, and for each input that stands for no file."""
    records: list[Record] = [{"input": name, "output": None, "error": reason} for name, reason in todo.empty]
    if todo.left_out:
        voice.say(f"left out {todo.left_out} files that are results of an earlier run")
    for record in records:
        voice.complain(f"Error: {record['input']}: {record['error']}")
    try:
        for job in todo.jobs:
            if skip_existing and all(path.exists() for path in job.targets):
                record = names(job) | {"error": None, "skipped": True}
            else:
                with voice.progress(job.source.name) as progress:
                    record = attempt(job, work, progress)
            records.append(record)
            if record["error"]:
                voice.complain(f"Error: {record['error']}")
            else:
                voice.say(_line(record))
    except KeyboardInterrupt:
        done = sum(not record["error"] for record in records)
        voice.complain(f"interrupted: {done} of {len(todo.jobs)} files are written, the rest is as it was")
        raise
    _summarise(records, voice)
    return records


def finish(records: list[Record], facts: Record, voice: common.Voice, as_json: bool) -> None:
    """The JSON object with `facts` and all records, and exit code 1 when something failed."""
    failed = sum(bool(record["error"]) for record in records)
    if as_json:
        voice.hand_over(facts | {"written": len(records) - failed, "failed": failed, "files": records})
    if failed:
        raise typer.Exit(1)


def names(job: "Job") -> Record:
    """A record's first part: input, and output or outputs."""
    made = {"outputs": [str(path) for path in job.targets]} if job.further else {"output": str(job.target)}
    return {"input": str(job.source)} | made


def done(job: "Job", about: Record, started: float, seconds: float, **rest: Any) -> Record:
    """The record of a file that is done: so many seconds of sound since `started`, `about` them before and the rest
    after the times."""
    spent = time.perf_counter() - started
    times = {"seconds": seconds, "work_seconds": spent, "rtf": spent / seconds}
    return names(job) | about | times | rest | {"error": None}


def attempt(job: "Job", work: Work, progress: Progress) -> Record:
    """The record of one file, with the reason in `error` when it failed."""
    try:
        return work(job, progress)
    except EXPECTED as error:
        return failure(job, error)


def failure(job: "Job", error: Exception) -> Record:
    """The record of a file that failed."""
    reason = common.sentence(error)
    named = any(str(path) in reason for path in (job.source, *job.targets))
    return names(job) | {"error": reason if named else f"{job.source}: {reason}"}


def _line(record: Mapping[str, Any]) -> str:
    made = " and ".join(record["outputs"]) if "outputs" in record else record["output"]
    if record.get("skipped"):
        return f"{made} {'are' if 'outputs' in record else 'is'} there already, skipped"
    return (
        f"{record['input']} -> {made}: {record['seconds']:.1f} s in {record['work_seconds']:.1f} s, "
        f"real-time factor {record['rtf']:.3f}"
    )


def _summarise(records: list[Record], voice: common.Voice) -> None:
    failed = [record["input"] for record in records if record["error"]]
    fresh = [record for record in records if "seconds" in record]
    if len(fresh) > 1:
        sound, spent = (sum(record[key] for record in fresh) for key in ("seconds", "work_seconds"))
        voice.say(f"{len(fresh)} files, {sound:.1f} s in {spent:.1f} s, real-time factor {spent / sound:.3f}")
    if failed and len(records) > 1:
        voice.complain(f"{len(failed)} of {len(records)} failed: {', '.join(failed)}")
