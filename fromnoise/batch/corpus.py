"""A corpus from start to end: what is left of it, longest first, by a pool or a cluster, noted as it is finished.

The longest first, so that the workers finish at the same time: the last file to be given out is the shortest. What
fails is done again at the end of the run, `retries` times, and then noted with its reason; the next run tries again.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from fromnoise.batch.items import Item, Record
from fromnoise.batch.manifest import Manifest, remove_parts


class Hands(Protocol):
    """Workers: a `Pool` or a `Cluster`, entered."""

    def do(self, items: Sequence[Item]) -> Iterator[tuple[Item, Record]]: ...


@dataclass
class Outcome:
    """How it went: how many were done before and how many now, the records of failures, seconds of the run."""

    done_before: int
    made: int = 0
    failed: list[Record] = field(default_factory=list)
    seconds: float = 0.0


def run(
    items: Sequence[Item],
    others: Sequence[Item],
    hands: Callable[[], AbstractContextManager[Hands]],
    manifest: Manifest,
    retries: int = 1,
    told: Callable[[Record, int, int], None] | None = None,
) -> Outcome:
    """Do all items that are not done; `others` are those of other parts, which other processes may be at.

    told(record, done, total): after each item; done and total count bytes of the inputs. A record with an error is
    told once nothing more is tried.
    """
    left = sorted((item for item in items if not manifest.is_done(item)), key=lambda item: (-item.size, item.source))
    outcome = Outcome(len(items) - len(left))
    total, started = sum(item.size for item in left), time.perf_counter()
    if not left:
        return outcome
    remove_parts(left, others)
    done = 0
    try:
        with hands() as ready:
            for attempt in range(retries + 1):
                again: list[Item] = []
                for item, record in ready.do(left):
                    if record["error"] and attempt < retries:
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
                left = again
                if not left:
                    break
    finally:
        remove_parts(items, others)  # of workers that were ended, or died
        outcome.seconds = time.perf_counter() - started
    return outcome
