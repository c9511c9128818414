"""What came of one item of an evaluation, as plain data for a file: read back, it is the same to the last bit.

    {"name": "room/a", "seconds": 2.5, "sample_rate": 16000,
     "rows": [{"row": "noisy", "cost": null, "scores": {"values": {"si_sdr": 8.1}, "reasons": {}}}, ...]}

A number that is not there is null, and NaN again when it is read.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from fromnoise.evaluation.report import jsonable
from fromnoise.evaluation.speech import Scores

S = TypeVar("S", bound=Scores)


@dataclass(frozen=True)
class Cost:
    """Seconds that a model worked on an item; first: nothing before it, so that it paid for warming up."""

    seconds: float
    first: bool


@dataclass(frozen=True)
class Found(Generic[S]):
    """What came of one item; costs and scores: row by row, None where no model worked.

    seconds, sample_rate: of the sound, None where it could not be read.
    """

    name: str
    seconds: float | None
    sample_rate: int | None
    costs: tuple[Cost | None, ...]
    scores: tuple[S, ...] = ()

    def plain(self, labels: Sequence[str]) -> dict[str, Any]:
        """All of it for JSON; labels: what the rows are called."""
        rows = [
            {"row": label, "cost": None if cost is None else asdict(cost), "scores": asdict(scores)}
            for label, cost, scores in zip(labels, self.costs, self.scores, strict=True)
        ]
        return jsonable({"name": self.name, "seconds": self.seconds, "sample_rate": self.sample_rate, "rows": rows})


def restored(plain: Mapping[str, Any], kind: type[S]) -> Found[S]:
    """Back from `plain`; kind: of the scores."""
    costs = tuple(None if row["cost"] is None else Cost(**row["cost"]) for row in plain["rows"])
    scores = tuple(kind(**_numbers(row["scores"])) for row in plain["rows"])
    return Found(plain["name"], plain["seconds"], plain["sample_rate"], costs, scores)


def _numbers(value: Any) -> Any:
    """The value with NaN for None and tuples for lists."""
    if isinstance(value, dict):
        return {key: _numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return tuple(_numbers(inner) for inner in value)
    return math.nan if value is None else value
