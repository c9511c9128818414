"""One input with its outputs as plain data that any process on any machine can be told, and what is done to it.

An item is done once all its outputs are there; a record says how that went. Records are plain data too: `error` is None
or the reason, `written` the states of the outputs, `by` the machine and process that made them.
"""

import dataclasses
import json
import os
import socket
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Record = dict[str, Any]
Batch = tuple["Item", ...]
"""Items that one worker does together; mostly one."""


@dataclasses.dataclass(frozen=True)
class Item:
    """An input, its outputs, and the state that the input was in when it was listed."""

    source: str
    outputs: tuple[str, ...]
    state: tuple[int, int]

    @classmethod
    def of(cls, source: Path, outputs: Iterable[Path]) -> "Item":
        """The item for a file as it is now."""
        return cls(str(source), tuple(str(path) for path in outputs), states([source])[0])

    @property
    def size(self) -> int:
        """Bytes of the input, at least 1."""
        return max(self.state[0], 1)

    def absolute(self) -> "Item":
        """The same for a process that works in another folder."""
        outputs = tuple(os.path.abspath(name) for name in self.outputs)
        return dataclasses.replace(self, source=os.path.abspath(self.source), outputs=outputs)

    def text(self) -> str:
        """As ASCII, whatever the file names hold."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_text(cls, text: str) -> "Item":
        """Back from `text`."""
        fields = json.loads(text)
        return cls(fields["source"], tuple(fields["outputs"]), tuple(fields["state"]))


@dataclasses.dataclass(frozen=True)
class Task:
    """What a worker does: `open(device)` once, then `work(what it opened, item)` for each.

    together: the same for several items, with a record of each; for runs with batches. All must be picklable.
    """

    open: Callable[[str], Any]
    work: Callable[[Any, Item], Record]
    together: Callable[[Any, Batch], Sequence[Record]] | None = None

    def run(self, tool: Any, batch: Batch) -> list[Record]:
        """The record of each item. Warnings of the work go into it, and so does whatever it raises; what is said of a
        batch as a whole goes into the first."""
        records: list[Record]
        with noted_warnings() as said:
            try:
                if len(batch) > 1 and self.together is not None:
                    records = list(self.together(tool, batch))
                else:
                    records = [self.work(tool, item) for item in batch]
            except Exception as error:  # noqa: BLE001 (a worker outlives what one file does to it)
                reason = f"unexpected {type(error).__name__}: {error}"
                records = [{"error": f"{item.source}: {reason}"} for item in batch]
        said += records[0].get("warnings", [])
        records[0] |= {"warnings": said} if said else {}
        for item, record in zip(batch, records, strict=True):
            record |= {"input": item.source, "by": f"{socket.gethostname()}:{os.getpid()}"}
            if not record["error"]:
                record["written"] = states(item.outputs)
        return records


@contextmanager
def noted_warnings() -> Iterator[list[str]]:
    """A list that holds, at the end, what was warned of, each once."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield said
    said += dict.fromkeys(str(one.message) for one in caught if issubclass(one.category, UserWarning))


def states(paths: Iterable[str | Path]) -> list[tuple[int, int]]:
    """Of each file its bytes and the nanoseconds of its last change; (-1, 0) where there is none."""
    return [_state(path) for path in paths]


def _state(path: str | Path) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return -1, 0
    return found.st_size, found.st_mtime_ns


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_for(jobs: int) -> int:
    """Threads of each of so many workers: OMP_NUM_THREADS where that is set, else an equal share of the cores."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) else max(1, cores() // jobs)


def opened(task: Task, device: str, threads: int) -> Any:
    """What a worker's task opens, where torch and all that reads the environment use so many threads."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    tool = task.open(device)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    return tool
