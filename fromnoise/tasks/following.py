"""Which source is which from piece to piece: a separator does not know what it called the first in the piece before.

Neighbouring pieces are both computed where they meet, so the later one's sources are put into the order in which they
repeat the earlier one's there, the one with the least squared difference.
"""

import itertools

import numpy as np
from jaxtyping import Float

from fromnoise.tasks.chunked import Asking, ProcessChunk, Wave, advanced


def match_sources(earlier: Wave, later: Wave, num_sources: int) -> tuple[list[int], float]:
    """The order of `later`'s rows that follows `earlier`, and how sure that is; rows are sources, or channels within.

    The order is the one with the least squared difference. For a and b, two sources of `earlier`, and their partners
    a', b', the cosine of a - b and a' - b' is what decides against an exchange of the two, whatever they have in
    common and however loud they are; the least of all pairs is returned, 0 where there is nothing to go by.
    """
    channels = len(earlier) // num_sources
    a, b = (x.reshape(num_sources, -1).astype(np.float64) for x in (earlier, later))
    alike = a @ b.T
    # Ties go to the first, which is to leave the order as it is.
    best = max(itertools.permutations(range(num_sources)), key=lambda order: alike[np.arange(num_sources), order].sum())
    b = b[list(best)]
    sure = min(
        (_cosine(a[i] - a[j], b[i] - b[j]) for i, j in itertools.combinations(range(num_sources), 2)), default=1.0
    )
    return [source * channels + c for source in best for c in range(channels)], sure


def _cosine(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else 0.0


class Follower:
    """The `Match` of a recording of several sources, which knows of the joins where they could not be told apart.

    Sources that change places are not heard as a fault, so where it cannot be excluded it has to be said: a join is in
    doubt where `match_sources` is hardly sure, and where what both pieces share is all but silent beside the pieces.

    >>> follow = Follower(2)                                                    # doctest: +SKIP
    >>> run_chunked(follow.listen(process), read, write, n, segment, match=follow)   # doctest: +SKIP
    """

    SURE = 0.2
    SILENT = 1e-5  # of the loudest piece's power: 50 dB below

    def __init__(self, num_sources: int) -> None:
        self.num_sources, self.loudest = num_sources, 0.0
        self.joins: list[tuple[float, float]] = []
        """Of each join how sure the order is, and the power of what is shared."""

    def listen(self, process: ProcessChunk) -> ProcessChunk:
        """The same process, heard for how loud its results are."""

        return lambda wave, start: self._hear(process(wave, start))

    def overhear(self, asking: Asking[None]) -> Asking[None]:
        """The same as `listen` for a loop that asks: the answers are heard."""
        request, _ = advanced(asking)
        while request is not None:
            request, _ = advanced(asking, self._hear((yield request)))

    def _hear(self, result: np.ndarray) -> np.ndarray:
        self.loudest = max(self.loudest, _power(result))
        return result

    def __call__(self, earlier: Wave, later: Wave) -> list[int]:
        order, sure = match_sources(earlier, later, self.num_sources)
        self.joins.append((sure, _power(later)))
        return order

    @property
    def doubts(self) -> list[int]:
        """The later pieces' numbers, from 1."""
        silent = self.SILENT * self.loudest
        return [k for k, (sure, power) in enumerate(self.joins, 1) if sure < self.SURE or power <= silent]


def _power(wave: np.ndarray) -> float:
    return float(np.square(wave, dtype=np.float64).mean()) if wave.size else 0.0
