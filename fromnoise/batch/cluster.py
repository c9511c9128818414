"""Workers by Ray Data, on this machine or on those of a Ray cluster, where all see the files under the same paths.

    from_items -> map (a pool of actors; each loads the model once) -> records, which the driver notes

Batches of items lie in blocks of a few; a block whose worker or machine dies is done again by another worker, and its
records come once. That is Ray's own recovery, which knows no end: so a worker leaves a mark beside the output of the
item it is at, and an item whose marks say that it ended MAX_DEATHS workers is a failure like others. A batch of several
that ended one worker has failed at once: its items are then done alone.
"""

import json
import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from fromnoise.batch.items import Batch, Item, Record, Task, cores, opened, threads_for

MAX_BLOCKS = 2000
MAX_DEATHS = 3
STORE_BYTES = 200 << 20  # Ray's shared memory on a machine where we start it: only names and records pass through


class Cluster:
    """Actors of a Ray Data pool; jobs: how many, None for one a GPU, or one a core where there is none.

    address: of a running cluster ("auto" finds the one on this machine); None starts one here and ends it. device:
    what each asks for; a GPU is shared where there are more actors than GPUs.
    """

    def __init__(self, task: Task, jobs: int | None, device: str, address: str | None) -> None:
        self.task, self.jobs, self.device, self.address = task, jobs, device, address
        self._ours = False

    def __enter__(self) -> "Cluster":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray
        import ray.data

        logging.getLogger("ray").setLevel(logging.ERROR)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = -1  # items without a record are failures, and the others still count
        if not ray.is_initialized():
            quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
            if self.address is None:
                jobs = self.jobs or 1
                quiet |= {"num_cpus": jobs + 1, "include_dashboard": False, "object_store_memory": STORE_BYTES}
            ray.init(self.address or "local", **quiet)
            self._ours = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        import ray

        if self._ours:
            ray.shutdown()

    def do(self, batches: Sequence[Batch]) -> Iterator[tuple[Item, Record]]:
        """Every item with its record, in the order in which blocks are finished."""
        import ray.data

        by_name = {json.dumps([item.absolute().text() for item in batch]): batch for batch in batches}
        rows = ray.data.from_items(
            [{"batch": text} for text in by_name], override_num_blocks=min(len(batches), MAX_BLOCKS)
        )
        share, jobs = self._share(len(batches))
        threads = threads_for(jobs if self.address is None else cores())
        hand: Any = _Hand  # Ray takes a class of callables for a function
        made = rows.map(
            hand,
            fn_constructor_args=(self.task, self.device, threads),
            concurrency=jobs,
            **share,
        )
        for row in made.iter_rows():
            for item, record in zip(by_name.pop(row["batch"]), json.loads(row["records"]), strict=True):
                yield item, record | {"input": item.source}
        for item in (item for batch in by_name.values() for item in batch):
            yield item, {"input": item.source, "error": f"{item.source}: its worker on the Ray cluster was lost"}

    def _share(self, count: int) -> tuple[dict[str, Any], int]:
        """What each actor asks Ray for, and how many there are."""
        import ray

        there = ray.cluster_resources()
        gpus = 0 if self.device == "cpu" else int(there.get("GPU", 0))
        jobs = min(self.jobs or gpus or max(1, int(there.get("CPU", 1)) - 1), count)
        return {"num_cpus": 1} | ({"num_gpus": min(1.0, gpus / jobs)} if gpus else {}), jobs


class _Hand:
    """An actor: the model, and one row after the other."""

    def __init__(self, task: Task, device: str, threads: int) -> None:
        self.task, self.tool = task, opened(task, device, threads)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        batch = tuple(Item.from_text(text) for text in json.loads(row["batch"]))
        target, deaths = Path(batch[0].outputs[0]), MAX_DEATHS if len(batch) == 1 else 1
        mark = target.with_name(f".{target.stem[:40]}-{zlib.crc32(target.name.encode(errors='replace')):08x}.part")
        target.parent.mkdir(parents=True, exist_ok=True)
        with mark.open("ab") as file:
            file.write(b".")
        if mark.stat().st_size > deaths:
            reason = f"{deaths} workers ended at it, as by a lack of memory"
            records: list[Record] = [{"error": f"{item.source}: {reason}"} for item in batch]
        else:
            records = self.task.run(self.tool, batch)
        mark.unlink(missing_ok=True)
        return {"batch": row["batch"], "records": json.dumps(records, default=str)}
