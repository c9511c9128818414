"""Several short files through the model at once (`--batch-size`), where each is as long as the others.

A command's work on a file is a generator that asks for its pieces to be processed (`fromnoise.tasks.chunked`). Here
those of several files are begun, and what they ask for is answered at once:

    file 1   read ---> asks |                         | is answered ---> written
    file 2   read ---> asks | the model's `together`  | is answered ---> written
    file 3   read, fails    |                         |

So a file is read, scaled, mixed, written and reported on as it is alone, and one that fails does so alone.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fromnoise.cli import work

if TYPE_CHECKING:
    import numpy as np

    from fromnoise.cli.jobs import Job
    from fromnoise.tasks.chunked import Asking, Request

Length = tuple[int, int]
Begin = Callable[[Any, "Job", work.Progress], "Asking[work.Record]"]


@dataclass(frozen=True)
class Joint:
    """How a command works on several files at once.

    begin(tool, job, progress): its work on one, as a generator. length(path): how long a file is in the model, and
    in samples, or None for one that is cut into several pieces; raises what reading it would.
    """

    begin: Begin
    length: Callable[[Path], Length | None]

    def key(self, path: Path) -> Length | None:
        """The length; None also for a file that cannot be read: alone it fails with the reason."""
        try:
            return self.length(path)
        except (ValueError, OSError, RuntimeError):
            return None


def audio_length(tool: Any, chunking: Mapping[str, Any], path: Path) -> Length | None:
    """How long a recording is in a model, and in samples; None where it is cut into several pieces."""
    from fromnoise.data.audio import info, resampled_length
    from fromnoise.tasks.chunked import Chunking

    found = info(path)
    n = resampled_length(found.frames, found.sample_rate, tool.sample_rate)
    return (tool.positions(n), n) if Chunking(**chunking).count(n) == 1 else None


def do_jobs(begin: Begin, at_once: int, tool: Any, jobs: Sequence["Job"]) -> list[work.Record]:
    """The record of each job; those that are done at once share the time that they took by their seconds of sound."""
    started = time.perf_counter()
    runs = [_Run(job, begin(tool, job, lambda *_: None)) for job in jobs]
    for run in runs:
        run.go_on()
    while asking := [run for run in runs if run.request is not None]:
        answers: list[np.ndarray] = []
        try:
            answers = tool.together([run.request for run in asking], at_once)
        except work.EXPECTED as error:
            for run in asking:
                run.fail(error)
        for run, answer in zip(asking, answers, strict=False):
            run.go_on(answer)
    records = [run.record for run in runs]
    sound, spent = sum(record.get("seconds", 0.0) for record in records), time.perf_counter() - started
    for record in records:
        if not record["error"]:
            record |= {"work_seconds": spent * record["seconds"] / sound, "rtf": spent / sound, "batch": len(runs)}
    return records


class _Run:
    """The work on one file: what it asks for now, or its record."""

    def __init__(self, job: "Job", asking: "Asking[work.Record]") -> None:
        self.job, self.asking = job, asking
        self.request: Request | None = None
        self.record: work.Record = {}

    def go_on(self, answer: "np.ndarray | None" = None) -> None:
        """Up to what it asks for next, or to its end."""
        from fromnoise.batch.items import noted_warnings
        from fromnoise.tasks.chunked import advanced

        self.request = None
        with noted_warnings() as said:
            try:
                self.request, record = advanced(self.asking, answer)
            except work.EXPECTED as error:
                record = work.failure(self.job, error)
        self.record |= record or {}
        if said:
            self.record["warnings"] = [*self.record.get("warnings", []), *said]

    def fail(self, error: Exception) -> None:
        """End it; what it has opened is closed."""
        self.request = None
        self.asking.close()
        self.record |= work.failure(self.job, error)
