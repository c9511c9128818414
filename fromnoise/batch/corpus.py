"""A corpus from start to end: what is left of it, longest first, by a pool or a cluster, noted as it is finished.

The longest first, so that the workers finish at the same time: the last file to be given out is the shortest. What
fails is done again at the end of the run, `retries` times, and then noted with its reason; the next run tries again.

Items of one length may be done together. Who is in a batch follows from all items of the run, whatever is left of
them, and a batch of which anything is left is done again as a whole: so a run that was resumed gives what an
undisturbed one gives, to the last bit. An item that failed in a batch is done alone then, which is not counted.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Protocol

from fromnoise.batch.items import Batch, Item, Record
from fromnoise.batch.manifest import Manifest, remove_parts


class Hands(Protocol):
    """Workers: a `Pool` or a `Cluster`, entered."""

    def do(self, batches: Sequence[Batch]) -> Iterator[tuple[Item, Record]]: ...


@dataclass
class Outcome:
    """How it went: how many were done before and how many now, the records of failures, seconds of the run."""

    done_before: int
    made: int = 0
    failed: list[Record] = field(default_factory=list)
    seconds: float = 0.0


def alone(items: Sequence[Item]) -> list[Batch]:
    """Every item by itself."""
    return [(item,) for item in items]


def buckets(items: Sequence[Item], length: Callable[[Item], tuple[int, int] | None], size: int) -> list[Batch]:
    """Batches of at most `size` items of one length, neighbours in what is finer; those whose length is None are alone.

    length: (what must be the same, what is finer), such as frames and samples.
    """
    found: dict[int, list[tuple[int, Item]]] = {}
    single: list[Batch] = []
    for item in items:
        if (long := length(item)) is None:
            single.append((item,))
        else:
            found.setdefault(long[0], []).append((long[1], item))
    groups = [[item for _, item in sorted(group, key=itemgetter(0))] for group in found.values()]
    return single + [tuple(group[i : i + size]) for group in groups for i in range(0, len(group), size)]


def run(
    items: Sequence[Item],
    others: Sequence[Item],
    hands: Callable[[], AbstractContextManager[Hands]],
    manifest: Manifest,
    retries: int = 1,
    told: Callable[[Record, int, int], None] | None = None,
    batched: Callable[[Sequence[Item]], Sequence[Batch]] = alone,
) -> Outcome:
    """Do all items that are not done; `others` are those of other parts, which other processes may be at.

    told(record, done, total): after each item; done and total count bytes of the inputs. A record with an error is
    told once nothing more is tried. batched: which items are done together, from all of them.
    """
    left = _longest_first(_left(items, manifest, batched))
    chances = {item: retries + (len(batch) > 1) for batch in left for item in batch}
    outcome = Outcome(len(items) - len(chances))
    total, started = sum(item.size for item in chances), time.perf_counter()
    if not left:
        return outcome
    remove_parts(chances, others)
    done = 0
    try:
        with hands() as ready:
            while left:
                again: list[Item] = []
                for item, record in ready.do(left):
                    if record["error"] and chances[item]:
                        chances[item] -= 1
                        again.append(item)
                        continue
                    manifest.add(item, record)
                    if record["error"]:
                        outcome.failed.append(record)
                    else:
                        outcome.made += 1
                    done += item.size
                    if told is not None:
                        told(record, done, total)
                left = _longest_first(alone(again))
    finally:
        remove_parts(items, others)  # of workers that were ended, or died
        outcome.seconds = time.perf_counter() - started
    return outcome


def _left(
    items: Sequence[Item], manifest: Manifest, batched: Callable[[Sequence[Item]], Sequence[Batch]]
) -> list[Batch]:
    """The batches of which an item is not done."""
    done = {item for item in items if manifest.is_done(item)}
    return [] if len(done) == len(items) else [batch for batch in batched(items) if not done.issuperset(batch)]


def _longest_first(batches: Sequence[Batch]) -> list[Batch]:
    return sorted(batches, key=lambda batch: (-sum(item.size for item in batch), batch[0].source))
