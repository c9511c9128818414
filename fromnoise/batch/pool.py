"""Workers on this machine: processes that each load the model once and then get one item after the other.

They are started afresh (`spawn`), as Windows and macOS do it, since a copy of a process that ran torch may hang. A
worker that dies takes down nothing but the item it was at, and is replaced. A worker whose parent dies, even by
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

from fromnoise.batch.items import Item, Record, Task, opened

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

    def do(self, items: Sequence[Item]) -> Iterator[tuple[Item, Record]]:
        """Every item with its record, in the order in which they are finished."""
        waiting = deque(items)
        while waiting or self._busy():
            self._hand_out(waiting)
            busy = self._busy()
            for pipe in connection.wait(list(busy)):
                place = busy[pipe]
                item, record = self._workers[place].hear()
                if item is None:
                    continue
                if self._workers[place].item is not None:  # it died at this item
                    self._workers.pop(place).end()
                yield item, record

    def _busy(self) -> dict[Any, int]:
        """Pipe -> place of each worker that is at an item."""
        return {worker.pipe: place for place, worker in self._workers.items() if worker.item}

    def _hand_out(self, waiting: deque[Item]) -> None:
        """Give every worker something to do, and start those that are missing."""
        for place in range(self.jobs):
            worker = self._workers.get(place)
            if not waiting or (worker is not None and worker.item is not None):
                continue
            if worker is None:
                worker = _Worker(self.task, self.devices[place % len(self.devices)], self.threads)
                self._workers[place] = worker
            if worker.give(waiting[0]):
                waiting.popleft()
            else:  # it died while it had nothing to do
                self._workers.pop(place).end()


class _Worker:
    """One process, and the item it is at."""

    def __init__(self, task: Task, device: str, threads: int) -> None:
        self.pipe, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=_serve, args=(theirs, task, device, threads), daemon=True)
        self.process.start()
        theirs.close()
        self.item: Item | None = None
        self.ready = False

    def give(self, item: Item) -> bool:
        """Hand an item over; False where the process is gone."""
        try:
            self.pipe.send(item)
        except OSError:
            return False
        self.item = item
        return True

    def hear(self) -> tuple[Item | None, Record]:
        """What it says: the item that is finished and its record, or no item where it says only that it is ready.

        Where it died at the item, that stays its own. Raises InputError where it could not load the model.
        """
        try:
            word, record = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            word, record = "died", {"error": self._obituary()}
        if word == "ready":
            self.ready = True
            return None, {}
        if word == "failed" or not self.ready:
            from fromnoise.types import InputError

            raise InputError(f"a worker could not start: {record['error']}; try fewer --jobs, or another --device")
        item = self.item
        if word == "done":
            self.item = None
        return item, record

    def _obituary(self) -> str:
        code = self.process.exitcode or 0
        how = f"exit code {code}"
        if code < 0 and -code in set(signal.Signals):
            how = f"by {signal.Signals(-code).name}"
        source = self.item.source if self.item else "?"
        return f"{source}: the process that worked on it ended ({how}), as by a crash or a lack of memory"

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
        pipe.send(("failed", {"error": str(error) or type(error).__name__}))
        return
    with suppress(EOFError, OSError):  # the parent is gone
        pipe.send(("ready", {}))
        while True:
            pipe.send(("done", task.run(tool, pipe.recv())))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
