"""A guided step as one pass over a batch of both halves, against two passes: each with label or text, and without.

    python -m benchmarks.guided --model digits-small --label seven --batches 1,4,16 --rounds 15 --threads 1

The two take turns in one run; the speed-up is the median over rounds of two passes' seconds over the one's.
"""

import dataclasses
import statistics
from collections.abc import Callable

import torch
from torch import Tensor

import fromnoise
from benchmarks.harness import Timing, arguments, interleave, markdown, publish
from fromnoise.processes.base import time_dtype
from fromnoise.tasks import GenerationModel, Generator
from fromnoise.tasks.generation_model import Asked

GUIDANCE = 3.0


@dataclasses.dataclass(frozen=True)
class Line:
    """So many sounds at once: median seconds of a step each way, spread, speed-up, largest difference."""

    batch: int
    one_pass: float
    two_passes: float
    spread: float
    speed_up: float
    difference: float


def two_passes(model: GenerationModel, asked: Asked, batch: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The guided estimate by a pass with and a pass without, one after the other."""
    told = model.denoiser.bind(None, model.condition(model.told(asked.what, batch)))
    free = model.denoiser.bind(None, model.condition(model.told(None, batch)))

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return torch.lerp(free(x, t), told(x, t), GUIDANCE)

    return denoise


def line_of(generator: Generator, asked: Asked, batch: int, seconds: float | None, rounds: int) -> Line:
    """Both ways in turns."""
    model = generator.model
    x = torch.randn(
        model.blank(batch, generator.num_samples(seconds)).shape, generator=torch.Generator().manual_seed(0)
    )
    t = torch.full((batch,), 0.5, dtype=time_dtype(x.device))
    with torch.inference_mode():
        one = model.guided(model.told(asked.what, batch), GUIDANCE)
        two = two_passes(model, asked, batch)
        difference = float((one(x, t) - two(x, t)).abs().max())
        timings = interleave({"one": lambda: one(x, t), "two": lambda: two(x, t)}, rounds)
    a, b = timings["one"], timings["two"]
    return Line(batch, a.median, b.median, *_compared(a, b), difference)


def _compared(one: Timing, two: Timing) -> tuple[float, float]:
    ratios = [b / a for a, b in zip(one.seconds, two.seconds, strict=True)]
    return max(one.spread, two.spread), statistics.median(ratios)


def table(lines: list[Line]) -> str:
    """Markdown."""
    columns = ("sounds", "one pass, ms", "two passes, ms", "spread", "speed-up", "largest difference")
    rows = (
        (
            f"{line.batch}",
            f"{1e3 * line.one_pass:.1f}",
            f"{1e3 * line.two_passes:.1f}",
            f"{line.spread:.0%}",
            f"{line.speed_up:.2f}",
            f"{line.difference:.1e}",
        )
        for line in lines
    )
    return markdown(columns, rows)


def main() -> None:
    """Print the table, and write it."""
    parser = arguments(__doc__)
    parser.add_argument("--model", default="digits-small", help="a generator of labels or texts")
    parser.add_argument("--label", help="what the first half is told")
    parser.add_argument("--text", help="likewise, of a model of texts")
    parser.add_argument("--seconds", type=float, help="length of a sound")
    parser.add_argument("--batches", default="1,4,16")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    generator = fromnoise.load(given.model)
    asked = generator.asked(given.label, GUIDANCE, given.text)
    sizes = [int(size) for size in given.batches.split(",")]
    lines = [line_of(generator, asked, size, given.seconds, given.rounds) for size in sizes]
    seconds = given.seconds or generator.model.config.seconds
    head = f"{given.model}, {seconds:g} s, {given.threads} thread(s), {given.rounds} rounds, torch {torch.__version__}"
    publish(head, table(lines), [dataclasses.asdict(line) for line in lines], given.output)


if __name__ == "__main__":
    main()
