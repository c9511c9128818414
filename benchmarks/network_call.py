"""Measure one network call: `python -m benchmarks.network_call --network tcunet --seconds 3 --threads 1`.

Prints a table and writes it with all numbers to benchmarks/results/ as JSON and Markdown. Memory is measured per
sound length, each in a process of its own: `--lengths 1,10,60` (empty: not at all).
"""

import argparse
import copy
import dataclasses
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks import harness
from benchmarks.networks import NETWORKS, Forward, Inputs, Network

RESULTS = Path(__file__).parent / "results"
SLOW_TO_BUILD = {"compile"}
SEED = 0
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Settings:
    """One run. reference: "float64" (the plain form in double precision) or "plain"."""

    network: str = "standin"
    seconds: float = 3.0
    threads: int = 1
    rounds: int = 9
    variants: tuple[str, ...] = ()
    reference: str = "float64"
    lengths: tuple[float, ...] = ()


def to_double(value: object) -> object:
    """Floating-point tensors in double precision, also those inside a dataclass; everything else unchanged."""
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_double(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return value


def prepare(network: Network, seconds: float) -> tuple[nn.Module, Inputs]:
    """The network and its inputs, the same in every process.

    Weights that start at zero are drawn instead: a network that starts as the identity would show no error.
    """
    torch.manual_seed(SEED)
    module = network.build().requires_grad_(False)  # torch's FLOP counter fails on weight norm that would learn
    for parameter in module.parameters():
        if parameter.ndim > 1 and not bool(parameter.any()):
            nn.init.kaiming_uniform_(parameter, a=math.sqrt(5))
    return module, network.inputs(seconds, torch.Generator().manual_seed(SEED))


def choose(network: Network, wanted: Sequence[str]) -> list[str]:
    """The variants of a run, the plain one always first. Without a wish: all but those that take a minute to build."""
    unknown = [name for name in wanted if name not in network.variants]
    if unknown:
        raise ValueError(f"unknown variants {', '.join(unknown)}; choose from: {', '.join(network.variants)}")
    names = list(wanted or [name for name in network.variants if name not in SLOW_TO_BUILD])
    return [network.plain, *(name for name in names if name != network.plain)]


def reference_output(network: Network, module: nn.Module, inputs: Inputs, kind: str) -> Tensor:
    """What every variant's output is compared with."""
    if kind == "plain":
        return network.variants[network.plain](module)(*inputs)
    double = network.variants[network.plain](copy.deepcopy(module).double())
    return double(*(to_double(value) for value in inputs))


def measure(settings: Settings, network: Network) -> dict[str, Any]:
    """Time and error of every variant, as the values that are written to JSON."""
    torch.set_num_threads(settings.threads)
    module, inputs = prepare(network, settings.seconds)
    with torch.inference_mode():
        # A copy each: what a network keeps between its calls must not pass from one variant to another.
        names = choose(network, settings.variants)
        forwards = {name: network.variants[name](copy.deepcopy(module)) for name in names}
        reference = reference_output(network, module, inputs, settings.reference)
        errors = {name: harness.compare(forward(*inputs), reference) for name, forward in forwards.items()}
        probes = harness.rate_probes()
        calls = {name: _bind(forward, inputs) for name, forward in forwards.items()}
        timings = harness.interleave(calls | probes, settings.rounds)
        flops = {name: harness.count_flops(call) for name, call in calls.items()}
    rate = harness.best_rate(timings, probes)
    fewest = min(flops.values())  # a variant that computes more than it must gets no easier floor
    plain_seconds = timings[network.plain].median
    rows: list[Row] = [
        {
            "variant": name,
            "seconds": timings[name].median,
            "spread": timings[name].spread,
            "gflop": flops[name] / 1e9,
            "over_floor": timings[name].median * rate / fewest if fewest else math.inf,
            "speed_up": plain_seconds / timings[name].median,
            "snr_db": errors[name].snr_db,
            "max_abs": errors[name].max_abs,
        }
        for name in forwards
    ]
    return {
        "settings": dataclasses.asdict(settings),
        "machine": harness.machine(),
        "best_gflop_per_second": rate / 1e9,
        "floor_seconds": fewest / rate,
        "plain": network.plain,
        "variants": rows,
    }


def _bind(forward: Forward, inputs: Inputs) -> harness.Call:
    return lambda: forward(*inputs)


def memory_of_this_process(settings: Settings, variant: str) -> dict[str, float]:
    """Peak before and after one call, MiB. Run in a fresh process: the peak never comes down again."""
    network = NETWORKS[settings.network]
    torch.set_num_threads(settings.threads)
    module, inputs = prepare(network, settings.seconds)
    before = harness.peak_mib()
    with torch.inference_mode():
        network.variants[variant](module)(*inputs)
    return {"before_mib": before, "peak_mib": harness.peak_mib()}


def measure_memory(settings: Settings, network: Network) -> list[Row]:
    """Peak memory of one call for every variant and length, each in a fresh process."""
    rows: list[Row] = []
    for seconds in settings.lengths:
        for variant in choose(network, settings.variants):
            command = [sys.executable, "-m", "benchmarks.network_call", "--network", settings.network]
            command += ["--seconds", str(seconds), "--threads", str(settings.threads), "--memory-of", variant]
            root = Path(__file__).parents[1]
            done = subprocess.run(command, cwd=root, env=os.environ, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"measuring {variant} at {seconds} s failed:\n{done.stderr}")
            found = json.loads(done.stdout)
            call = found["peak_mib"] - found["before_mib"]
            rows.append({"variant": variant, "seconds": seconds, "peak_mib": found["peak_mib"], "call_mib": call})
    return rows


HEADINGS = {
    "variant": ("variant", "{}"),
    "seconds": ("seconds", "{:.4g}"),
    "spread": ("spread", "{:.0%}"),
    "gflop": ("GFLOP", "{:.4g}"),
    "over_floor": ("x floor", "{:.2f}"),
    "speed_up": ("speed-up", "{:.2f}"),
    "snr_db": ("SNR dB", "{:.1f}"),
    "max_abs": ("max error", "{:.1e}"),
    "peak_mib": ("peak MiB", "{:.0f}"),
    "call_mib": ("of which the call", "{:.0f}"),
}


def cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Headings and formatted cells of a list of rows."""
    keys = list(rows[0])
    return [HEADINGS[key][0] for key in keys], [[HEADINGS[key][1].format(row[key]) for key in keys] for row in rows]


def summary(found: dict[str, Any]) -> str:
    """The line that goes above the table."""
    settings, machine = found["settings"], found["machine"]
    return (
        f"{settings['network']}, {settings['seconds']:g} s of sound, {settings['threads']} thread(s): "
        f"best rate {found['best_gflop_per_second']:.0f} GFLOP/s, floor {found['floor_seconds']:.4g} s, "
        f"plain form '{found['plain']}'; "
        f"{machine['processor']}, torch {machine['torch']}, "
        f"median of {settings['rounds']} rounds, error against {settings['reference']}"
    )


def markdown(found: dict[str, Any]) -> str:
    """The result as a Markdown page."""
    parts = [f"# {found['settings']['network']}", "", summary(found)]
    for rows in (found["variants"], found.get("memory") or []):
        if rows:
            headings, body = cells(rows)
            lines = [headings, ["---"] * len(headings), *body]
            parts += ["", *(f"| {' | '.join(line)} |" for line in lines)]
    return "\n".join(parts) + "\n"


def show(found: dict[str, Any]) -> None:
    """The result on the terminal."""
    console = Console()
    console.print(summary(found), highlight=False)
    for rows in (found["variants"], found.get("memory") or []):
        if rows:
            headings, body = cells(rows)
            table = Table(*headings)
            for line in body:
                table.add_row(*line)
            console.print(table)


def finite(value: Any) -> Any:
    """The value with infinities as text, which JSON has no number for."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def write(found: dict[str, Any], folder: Path) -> Path:
    """Write JSON and Markdown; returns the path of the latter."""
    settings = found["settings"]
    stem = f"{settings['network']}-{settings['seconds']:g}s-{settings['threads']}threads"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stem}.json").write_text(json.dumps(finite(found), indent=2) + "\n", encoding="utf-8")
    page = folder / f"{stem}.md"
    page.write_text(markdown(found), encoding="utf-8")
    return page


def _parser() -> argparse.ArgumentParser:
    defaults = Settings()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.network_call", description=__doc__)
    parser.add_argument("--network", choices=sorted(NETWORKS), default=defaults.network)
    parser.add_argument("--seconds", type=float, default=defaults.seconds, help="length of the sound")
    parser.add_argument("--threads", type=int, default=defaults.threads)
    parser.add_argument("--rounds", type=int, default=defaults.rounds)
    parser.add_argument("--variants", default="", help="comma-separated; empty: all")
    parser.add_argument("--reference", choices=["float64", "plain"], default=defaults.reference)
    parser.add_argument("--lengths", default="", help="seconds of sound for the memory table, comma-separated")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for JSON and Markdown")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)  # one variant, in the process that is measured
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    given = _parser().parse_args(arguments)
    variants = tuple(filter(None, given.variants.split(",")))
    lengths = tuple(float(item) for item in given.lengths.split(",") if item)
    settings = Settings(given.network, given.seconds, given.threads, given.rounds, variants, given.reference, lengths)
    if given.memory_of:
        print(json.dumps(memory_of_this_process(settings, given.memory_of)))
        return
    network = NETWORKS[settings.network]
    memory = measure_memory(settings, network)
    found = measure(settings, network) | {"memory": memory}
    show(found)
    print(f"written to {write(found, given.output)}")


if __name__ == "__main__":
    main()
