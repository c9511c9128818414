"""Whether a sound that was gone on from, piece after piece, can be told from its joins.

    python -m benchmarks.seams --model sounds-small --text "rain on leaves" --seconds 30 -n 4 --threads 1

    level     |20 log10(rms after / rms before)|, dB             32 ms on either side of a place
    spectrum  mean over bins of |difference of the two spectra|, dB, no deeper than 60 dB below the sound's peak
    click     largest second difference within 2 samples, over its RMS in the 64 ms around

Each join has a rank among all other places of the same sound, from 0 (the smoothest) to 1. Without a seam ranks are
spread evenly: their mean is 0.5, give or take 0.29/sqrt(their number).
"""

import dataclasses
import math

import numpy as np
import torch
from jaxtyping import Float

import fromnoise
from benchmarks.harness import arguments, markdown, publish

WINDOW = 0.032  # seconds
Wave = Float[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True)
class Line:
    """A measure over all joins: their mean, the median and the 95th percentile elsewhere, and the mean rank."""

    measure: str
    joins: int
    at_joins: float
    elsewhere: float
    high: float
    rank: float
    expected: float


def jumps(wave: Wave, sample_rate: int, places: list[int]) -> dict[str, np.ndarray]:
    """Every measure at every place, a window's length from the ends at least."""
    n = round(WINDOW * sample_rate)
    shape = np.hanning(n)
    floor = 1e-3 * np.abs(np.fft.rfft(_frames(wave, n) * shape)).max(initial=1e-12)
    second = np.abs(np.diff(wave, 2, prepend=0.0, append=0.0))
    found: dict[str, list[float]] = {"level": [], "spectrum": [], "click": []}
    for p in places:
        before, after = wave[p - n : p], wave[p : p + n]
        levels = [math.sqrt(float(np.square(part).mean()) + 1e-12) for part in (before, after)]
        spectra = [20 * np.log10(np.maximum(np.abs(np.fft.rfft(part * shape)), floor)) for part in (before, after)]
        found["level"].append(abs(20 * math.log10(levels[1] / levels[0])))
        found["spectrum"].append(float(np.abs(spectra[1] - spectra[0]).mean()))
        around = math.sqrt(float(np.square(second[p - n : p + n]).mean()) + 1e-20)
        found["click"].append(float(second[p - 2 : p + 3].max()) / around)
    return {name: np.array(values) for name, values in found.items()}


def _frames(wave: Wave, n: int) -> Float[np.ndarray, "k n"]:
    return wave[: len(wave) // n * n].reshape(-1, n)


def seams(sounds: list[Wave], sample_rate: int, joins: list[int]) -> list[Line]:
    """The joins of all sounds beside the places between them, a window away from each at least."""
    n = round(WINDOW * sample_rate)
    inside = [p for p in joins if n <= p <= len(sounds[0]) - n]
    others = [p for p in range(n, len(sounds[0]) - n, n // 2) if all(abs(p - join) >= n for join in inside)]
    if not inside or len(others) < 10:
        raise ValueError(f"expected joins with sound around them, got {len(inside)} and {len(others)} other places")
    at = [jumps(wave, sample_rate, inside) for wave in sounds]
    rest = [jumps(wave, sample_rate, others) for wave in sounds]
    count = len(inside) * len(sounds)
    lines = []
    for name in ("level", "spectrum", "click"):
        here, there = np.concatenate([one[name] for one in at]), np.concatenate([one[name] for one in rest])
        ranks = [(b[name] < value).mean() for a, b in zip(at, rest, strict=True) for value in a[name]]
        high = float(np.quantile(there, 0.95))
        spread = 1 / math.sqrt(12 * count)
        lines.append(
            Line(name, count, float(here.mean()), float(np.median(there)), high, float(np.mean(ranks)), spread)
        )
    return lines


def table(lines: list[Line]) -> str:
    """Markdown."""
    columns = ("measure", "joins", "mean at joins", "median elsewhere", "95 % elsewhere", "mean rank of joins")
    rows = (
        (
            line.measure,
            f"{line.joins}",
            f"{line.at_joins:.2f}",
            f"{line.elsewhere:.2f}",
            f"{line.high:.2f}",
            f"{line.rank:.2f} (0.5 +- {line.expected:.2f} without a seam)",
        )
        for line in lines
    )
    return markdown(columns, rows)


def main() -> None:
    """Go on from generated clips, print the table, and write it."""
    parser = arguments(__doc__)
    parser.add_argument("--model", default="sounds-small", help="a generator")
    parser.add_argument("--text", help="what is to be heard")
    parser.add_argument("--label", help="likewise, of a model of labels")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--overlap", type=float, help="seconds that a piece is made to fit  [half a clip]")
    parser.add_argument("-n", "--count", type=int, default=4)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--sampler")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    generator = fromnoise.load(given.model)
    asked = {
        "label": given.label,
        "text": given.text,
        "seed": given.seed,
        "steps": given.steps,
        "sampler": given.sampler,
    }
    clip = generator(1, **asked)[0]
    editor = generator.editor(count=given.count, **asked)
    rate, length = generator.sample_rate, (given.seconds, given.overlap)
    sounds = editor.extend(clip, rate, *length)
    lines = seams([sound[0] for sound in sounds], rate, editor.joins(clip, rate, *length))
    what = f"{given.model}, {given.text or given.label or 'freely'}, {given.count} times {given.seconds:g} s"
    head = f"{what}, torch {torch.__version__}"
    publish(head, table(lines), [dataclasses.asdict(line) for line in lines], given.output)


if __name__ == "__main__":
    main()
