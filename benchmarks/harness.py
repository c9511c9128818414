"""How a network call is measured: time over the floor, over the plain form, output error, and peak memory.

    floor   = fewest FLOPs of any variant / best rate
    best rate = max over (large matrix product, large 2-D convolution) of FLOPs / seconds
    ratio   = seconds(variant) / seconds(plain)
    SNR     = 10 log10( sum reference^2 / sum (output - reference)^2 )  in dB

A shared machine drifts, so nothing is compared across runs: in every round each candidate, the two rate probes
included, runs once, in an order that turns by one from round to round (A B C, B C A, ...). Times are medians over
rounds; the best rate takes the fastest round, which makes the floor as hard as the machine allows.

FLOPs are counted by torch's dispatcher: matrix products, convolutions and attention. Elementwise work, FFTs and fused
recurrent layers count as nothing, so the floor is a lower bound.
"""

import argparse
import dataclasses
import json
import math
import platform
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

Call = Callable[[], Tensor]


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of one candidate, one number per round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle round, seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Distance between the quartiles over the median: how far to trust the number."""
        if len(self.seconds) < 4:
            return (max(self.seconds) - min(self.seconds)) / self.median
        low, _, high = statistics.quantiles(self.seconds, n=4)
        return (high - low) / self.median


def interleave(candidates: Mapping[str, Call], rounds: int, warmup: int = 1) -> dict[str, Timing]:
    """Run every candidate once a round, the order turned by one each round; warm-up rounds are not counted."""
    names = list(candidates)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for i in range(warmup + rounds):
        shift = i % len(names)
        for name in names[shift:] + names[:shift]:
            start = time.perf_counter()
            candidates[name]()
            if i >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def count_flops(call: Call) -> int:
    """Floating-point operations of one call, a multiply-add as two; without what it reuses from earlier ones."""
    with warnings.catch_warnings(), FlopCounterMode(display=False) as counter:
        warnings.filterwarnings("ignore", message="Using `torch.compile", category=UserWarning)  # the counter's hooks
        call()
    return counter.get_total_flops()


def rate_probes(size: int = 1536, channels: int = 128, side: int = 96) -> dict[str, Call]:
    """The two kernels that this machine runs best: a square fp32 matrix product and a 3x3 convolution."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator) for _ in range(2))
    image = torch.randn(4, channels, side, side, generator=generator)
    kernel = torch.randn(channels, channels, 3, 3, generator=generator)
    return {"matrix product": lambda: a @ b, "convolution": lambda: F.conv2d(image, kernel, padding=1)}


def best_rate(timings: Mapping[str, Timing], probes: Mapping[str, Call]) -> float:
    """FLOPs per second of the faster probe in its fastest round."""
    return max(count_flops(call) / min(timings[name].seconds) for name, call in probes.items())


@dataclasses.dataclass(frozen=True)
class Error:
    """How far an output lies from its reference. snr_db is infinite when both are equal."""

    snr_db: float
    max_abs: float


def compare(output: Tensor, reference: Tensor) -> Error:
    """The error of `output` against `reference`, both of the same shape, computed in float64."""
    if output.shape != reference.shape:
        raise ValueError(f"expected an output of shape {tuple(reference.shape)}, got {tuple(output.shape)}")
    difference = output.double() - reference.double()
    noise = difference.square().sum().item()
    signal = reference.double().square().sum().item()
    snr = math.inf if noise == 0 else 10 * math.log10(signal / noise) if signal > 0 else -math.inf
    return Error(snr, difference.abs().max().item())


def peak_mib() -> float:
    """The largest resident set of this process so far, MiB.

    Linux carries ru_maxrss over from the process that started us, hence its own high-water mark where there is one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def arguments(about: str | None) -> argparse.ArgumentParser:
    """The command line of a benchmark that `publish` ends; `about` is the module's own text."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="of the processor")
    parser.add_argument("-o", "--output", type=Path, help="without a suffix: .json and .md are written")
    return parser


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def publish(head: str, table: str, rows: Sequence[Mapping[str, Any]], output: Path | None) -> None:
    """Print a run's table; `output`, without a suffix, gets it as .md and all numbers as .json."""
    print(f"{head}\n\n{table}")
    if output is not None:
        record = {"run": head, "machine": machine(), "rows": list(rows)}
        output.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        output.with_suffix(".md").write_text(f"{head}\n\n{table}\n", encoding="utf-8")


def processor() -> str:
    """The processor's name as the system gives it."""
    table = Path("/proc/cpuinfo")
    if table.exists():
        for line in table.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine() -> dict[str, str | int]:
    """What a reader must know to judge a time."""
    return {
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
