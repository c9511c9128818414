"""An exported enhancer against torch: a whole recording through front end, network and back, all candidates in turns.

    python -m benchmarks.exported --model enhance-small --seconds 4 --rounds 7 --threads 1 [-o results/NAME]

torch is `fromnoise.load(MODEL)(wave, rate)`; onnxruntime, and OpenVINO where it is installed, run the folder that
`fromnoise export` wrote, through `fromnoise.runner`. A speed-up is
the median ratio of torch's seconds to the candidate's in the same round.
"""

import dataclasses
import importlib.util
import statistics
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

import fromnoise
from benchmarks.harness import Timing, arguments, interleave, markdown, publish
from fromnoise import runner
from fromnoise.export import export
from fromnoise.export.check import example
from fromnoise.runner.engine import ENGINES


@dataclasses.dataclass(frozen=True)
class Row:
    """One candidate: median seconds, spread, median speed-up over torch in the same round, largest difference."""

    engine: str
    seconds: float
    spread: float
    speed_up: float
    difference: float


def engines() -> list[str]:
    """Those that are installed."""
    return [name for name in ENGINES if importlib.util.find_spec(name) is not None]


def compare(model: str, seconds: float, rounds: int, threads: int) -> list[Row]:
    """Export the model and run everything in turns."""
    torch.set_num_threads(threads)
    ready = fromnoise.load(model)
    wave = example(seconds, ready.sample_rate)
    with tempfile.TemporaryDirectory() as folder:
        export(ready, folder)
        others: dict[str, Any] = {name: runner.load(folder, name, threads) for name in engines()}
    calls: dict[str, Callable[[], Any]] = {"torch": lambda: ready(wave, ready.sample_rate)}
    calls |= {name: lambda other=other: other(wave, ready.sample_rate) for name, other in others.items()}
    wanted = calls["torch"]()
    differences = {name: float(np.abs(call() - wanted).max()) for name, call in calls.items()}
    return rows(interleave(calls, rounds), differences)


def rows(timings: Mapping[str, Timing], differences: Mapping[str, float]) -> list[Row]:
    """The table's rows."""
    plain = timings["torch"].seconds
    return [
        Row(
            name,
            timing.median,
            timing.spread,
            statistics.median(a / b for a, b in zip(plain, timing.seconds, strict=True)),
            differences[name],
        )
        for name, timing in timings.items()
    ]


def table(found: list[Row]) -> str:
    """Markdown."""
    columns = ("engine", "seconds", "spread", "speed-up over torch", "largest difference")
    return markdown(
        columns,
        (
            (r.engine, f"{r.seconds:.3f}", f"{100 * r.spread:.0f} %", f"{r.speed_up:.2f}", f"{r.difference:.1g}")
            for r in found
        ),
    )


def main() -> None:
    """Print the table, and write it."""
    parser = arguments(__doc__)
    parser.add_argument("--model", default="enhance-small", help="an enhancer")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    found = compare(asked.model, asked.seconds, asked.rounds, asked.threads)
    sizes = f"{asked.seconds:g} s, {asked.threads} thread(s), {asked.rounds} rounds"
    head = f"{asked.model}, {sizes}, torch {torch.__version__}"
    publish(head, table(found), [dataclasses.asdict(row) for row in found], asked.output)


if __name__ == "__main__":
    main()
