"""How few steps of which sampler give sounds as near to real ones: Frechet distances of sets, one for each setting.

    python -m benchmarks.solvers runs/latent DATA --settings ddim/100+ddim/100,dpmpp_2m/25+dpmpp_2m/25 -e logmel
    python -m benchmarks.solvers sounds-small DATA --settings ddim/100,dpmpp_2m/25,heun/13,ddim/25

A setting is SAMPLER/STEPS, and after a + that of the decoding of latents. Every set has a sound for each clip of DATA,
from its caption, its seeds the same in every setting. "half by half" is the distance of two halves of the real sounds:
what chance alone gives, in sets of half the size. Distances of sets are extrapolated to endless ones (`fad_inf`), too.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

import fromnoise
from benchmarks.harness import arguments, markdown, publish
from fromnoise.evaluation.embedders import embedder_of
from fromnoise.evaluation.run import Evaluation
from fromnoise.evaluation.sound_sets import Tools
from fromnoise.evaluation.sounds import evaluate_sounds, real_clips
from fromnoise.tasks import Generator

DEFAULT = "ddim/100,dpmpp_2m/25,heun/13,ddim/25"


class Setting:
    """A generator that samples, and decodes, in one way; a contestant of `evaluate_sounds`."""

    def __init__(self, generator: Generator, text: str) -> None:
        own, _, decoding = text.partition("+")
        self.sampler, self.steps = _pair(own)
        self.name, self.generator = text, generator
        if decoding:
            sampler, steps = _pair(decoding)
            self.generator = generator.decoding(steps, sampler)
        self.sample_rate, self.labels, self.reads_text = generator.sample_rate, generator.labels, generator.reads_text

    def network_calls(self, steps: int | None, sampler: str | None) -> int:
        return self.generator.network_calls(self.steps, self.sampler)

    def batches(self, count: int, **asked: Any) -> Iterator[np.ndarray]:
        return self.generator.batches(count, **asked | {"steps": self.steps, "sampler": self.sampler})


def _pair(text: str) -> tuple[str, int]:
    sampler, slash, steps = text.rpartition("/")
    if not (slash and steps.isdecimal()):
        raise SystemExit(f"expected SAMPLER/STEPS, got {text!r}")
    return sampler, int(steps)


def rows_of(found: Evaluation) -> list[dict[str, Any]]:
    """What the tables say of an evaluation of sets."""
    return [
        {
            "setting": row.label if row.model == "data" else row.model,
            "network_calls": row.network_calls,
            "real_time_factor": row.real_time_factor,
            "scores": {name: summary.mean for name, summary in row.whole.items()},
        }
        for row in found.rows
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    names = list(dict.fromkeys(name for row in rows for name in row["scores"]))
    lines = (
        [row["setting"], str(row["network_calls"] or "-"), f"{row['real_time_factor']:.2f}"]
        + [f"{row['scores'].get(name, float('nan')):.3f}" for name in names]
        for row in rows
    )
    return markdown(["setting", "network calls", "real-time factor", *names], lines)


def main() -> None:
    """Print the table, and write it."""
    parser = arguments(__doc__)
    parser.add_argument("model", help="a generator")
    parser.add_argument("data", help="real sounds, with captions or labels")
    parser.add_argument("--settings", default=DEFAULT, help="with commas between them")
    parser.add_argument("-e", "--embedder", action="append", help="as of fromnoise evaluate; may be repeated")
    parser.add_argument("--split", default="test", choices=("train", "valid", "test"))
    parser.add_argument("--limit", type=int, help="so many clips of DATA")
    parser.add_argument("--without-licence", metavar="WORD")
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    generator = fromnoise.load(given.model)
    settings = [Setting(generator, text) for text in given.settings.split(",")]
    tools = Tools(tuple(embedder_of(name) for name in given.embedder or ["logmel"]), None)
    clips = real_clips(given.data, given.split, given.without_licence, given.limit)
    found = evaluate_sounds(settings, clips, tools, guidance=[given.guidance], seed=given.seed, examples=0)
    rows = rows_of(found)
    head = f"{given.model} on {len(clips)} clips of {given.split}, {given.threads} thread(s), torch {torch.__version__}"
    publish(head, table(rows), rows, given.output)


if __name__ == "__main__":
    main()
