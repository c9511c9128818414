"""Workers on this machine: processes that each load the model once and then get one batch of items after the other.

They are started afresh (`spawn`), as Windows and macOS do it, since a copy of a process that ran torch may hang. A
worker that dies takes down nothing but the batch it was at, and is replaced. A worker whose parent dies, even by
SIGKILL, ends. Ctrl-C is for the parent, which ends the workers.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing import connection
from types import TracebackType
from typing import Any

from fromnoise.batch.items import Batch, Item, Record, Task, opened

_CONTEXT = multiprocessing.get_context("spawn")


class Pool:
    """`jobs` workers that do `task`, worker k on device k mod their number, each with so many threads."""

    def __init__(self, task: Task, jobs: int, devices: Sequence[str], threads: int) -> None:
        self.task, self.jobs, self.devices, self.threads = task, jobs, devices, threads
        self._workers: dict[int, _Worker] = {}

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for worker in self._workers.values():
            worker.end()

    def do(self, batches: Sequence[Batch]) -> Iterator[tuple[Item, Record]]:
        """Every item with its record, in the order in which they are finished."""
        waiting = deque(batches)
        while waiting or self._busy():
            self._hand_out(waiting)
            busy = self._busy()
            for pipe in connection.wait(list(busy)):
                place = busy[pipe]
                batch, records = self._workers[place].hear()
                if not batch:
                    continue
                if self._workers[place].batch:  # it died at these
                    self._workers.pop(place).end()
                yield from zip(batch, records, strict=True)

    def _busy(self) -> dict[Any, int]:
        """Pipe -> place of each worker that is at work."""
        return {worker.pipe: place for place, worker in self._workers.items() if worker.batch}

    def _hand_out(self, waiting: deque[Batch]) -> None:
        """Give every worker something to do, and start those that are missing."""
        for place in range(self.jobs):
            worker = self._workers.get(place)
            if not waiting or (worker is not None and worker.batch):
                continue
            if worker is None:
                worker = _Worker(self.task, self.devices[place % len(self.devices)], self.threads)
                self._workers[place] = worker
            if worker.give(waiting[0]):
                waiting.popleft()
            else:  # it died while it had nothing to do
                self._workers.pop(place).end()


class _Worker:
    """One process, and the batch it is at; empty where it has nothing to do."""

    def __init__(self, task: Task, device: str, threads: int) -> None:
        self.pipe, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=_serve, args=(theirs, task, device, threads), daemon=True)
        self.process.start()
        theirs.close()
        self.batch: Batch = ()
        self.ready = False

    def give(self, batch: Batch) -> bool:
        """Hand a batch over; False where the process is gone."""
        try:
            self.pipe.send(batch)
        except OSError:
            return False
        self.batch = batch
        return True

    def hear(self) -> tuple[Batch, list[Record]]:
        """What it says: the batch that is finished and its records, or nothing where it says only that it is ready.

        Where it died at the batch, that stays its own. Raises InputError where it could not load the model.
        """
        try:
            word, records = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            word, records = "died", [{"error": self._obituary(item)} for item in self.batch]
        if word == "ready":
            self.ready = True
            return (), []
        if word == "failed" or not self.ready:
            from fromnoise.types import InputError

            reason = records[0]["error"]
            raise InputError(f"a worker could not start: {reason}; try fewer --jobs, or another --device")
        batch = self.batch
        if word == "done":
            self.batch = ()
        return batch, records

    def _obituary(self, item: Item) -> str:
        code = self.process.exitcode or 0
        how = f"exit code {code}"
        if code < 0 and -code in set(signal.Signals):
            how = f"by {signal.Signals(-code).name}"
        return f"{item.source}: the process that worked on it ended ({how}), as by a crash or a lack of memory"

    def end(self) -> None:
        """End the process, whatever it is at."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(pipe: Any, task: Task, device: str, threads: int) -> None:
    """A worker's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        tool = opened(task, device, threads)
    except Exception as error:  # noqa: BLE001 (the parent says it)
        pipe.send(("failed", [{"error": str(error) or type(error).__name__}]))
        return
    with suppress(EOFError, OSError):  # the parent is gone
        pipe.send(("ready", []))
        while True:
            pipe.send(("done", task.run(tool, pipe.recv())))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
