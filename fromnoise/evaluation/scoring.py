"""Scores that are computed while models work: in turn, or by a bounded number of processes."""

import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Generic, TypeVar

from fromnoise.evaluation.speech import Scores

Found = TypeVar("Found", bound=Scores)
Key = tuple[int, int]


@dataclass(frozen=True)
class _Call(Generic[Found]):
    """What is to be computed."""

    key: Key
    function: Callable[..., Found]
    given: tuple[object, ...]


class Scoring(Generic[Found]):
    """The scores of (row, file).

    jobs: how many processes; 1: none. At most four calls for each wait with their arrays in memory. lost: the scores
    where the process ended that computed them (a package's C code may crash), from the reason. What other processes
    were at is then computed again.
    """

    def __init__(self, jobs: int, lost: Callable[[str], Found]) -> None:
        self.jobs, self.lost = jobs, lost
        self.done: dict[Key, Found] = {}
        self.pending: dict[Future[Found], _Call[Found]] = {}
        self.pool = _pool(jobs) if jobs > 1 else None

    def __enter__(self) -> "Scoring[Found]":
        return self

    def __exit__(self, *error: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def put(self, key: Key, scores: Found) -> None:
        """Scores that are known."""
        self.done[key] = scores

    def add(self, key: Key, function: Callable[..., Found], *given: object) -> None:
        """The scores `function(*given)`, now or later; in processes the function is found by its name."""
        if self.pool is None:
            self.done[key] = function(*given)
            return
        while len(self.pending) >= 4 * self.jobs:  # arrays wait in memory until they are scored
            self._collect(wait(self.pending, return_when=FIRST_COMPLETED).done)
        try:
            future = self.pool.submit(function, *given)
        except BrokenProcessPool:
            self._collect(wait(self.pending).done)
            self.pool = _pool(self.jobs)
            future = self.pool.submit(function, *given)
        self.pending[future] = _Call(key, function, given)

    def _collect(self, finished: Iterable[Future[Found]]) -> None:
        for future in finished:
            call = self.pending.pop(future)
            try:
                self.done[call.key] = future.result()
            except BrokenProcessPool:
                self.done[call.key] = self._alone(call)

    def _alone(self, call: _Call[Found]) -> Found:
        """In a process of its own, since nobody knows which call ended the others'."""
        with _pool(1) as pool:
            try:
                return pool.submit(call.function, *call.given).result()
            except BrokenProcessPool:
                return self.lost("the process that computed the scores ended, as by a crash or a lack of memory")

    def results(self) -> dict[Key, Found]:
        """All scores, when the last is there."""
        self._collect(wait(self.pending).done)
        return self.done


def _pool(jobs: int) -> ProcessPoolExecutor:
    # spawn: a forked copy of a process that runs torch threads may hang
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))
