"""`fromnoise diagnose`: how much a model depends on its condition."""

import math
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fromnoise.cli import common, contest

if TYPE_CHECKING:
    from fromnoise.evaluation.collapse import Report


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Bundled names, folders or hub ids, commas between.")],
    data: Annotated[str, typer.Argument(metavar="DATA", help="Recordings, as `fromnoise evaluate` takes them.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="REPORT", help="Folder for CSV, JSON and pictures.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-l", metavar="N", min=2, help="So many recordings, an even choice.")
    ] = 24,
    bins: Annotated[
        str,
        typer.Option(metavar="N|run", help="So many times between data and noise, or those of the model's own run."),
    ] = "10",
    seeds: Annotated[
        int, typer.Option(metavar="N", min=0, help="Samples of each recording; 0: the estimates alone, much faster.")
    ] = 2,
    seconds: Annotated[float, typer.Option(metavar="S", help="Only the middle of recordings that are longer.")] = 4.0,
    split: Annotated[str, typer.Option(metavar="train|valid|test", help="Which part of DATA.")] = "test",
    steps: common.Steps = None,
    sampler: common.SamplerName = None,
    seed: common.Seed = 0,
    device: common.Device = "auto",
    checkpoint: common.Checkpoint = "best",
    quiet: common.Quiet = False,
    as_json: common.AsJson = False,
) -> None:
    """Say how much a conditional model depends on its condition, or whether that has collapsed.

    At times from data to noise the network's estimate is compared with what it is when told another recording's
    condition, silence, or a slightly changed one; and the model's samples with the label and the condition. The gain is
    0 where the condition does not help and nears 1 where nothing goes without. For enhancers (condition: the noisy
    recording), separators (the mixture), vocoders (the mel) and generators (the label or text).

    Examples:

    fromnoise diagnose enhance-small DATA -o report

    fromnoise diagnose runs/concat,runs/dual DATA -o report --limit 40 --seeds 3

    fromnoise diagnose digits-small DATA --seeds 0 --bins run
    """
    from fromnoise import hub
    from fromnoise.evaluation.collapse_run import diagnose, write_diagnosis
    from fromnoise.types import InputError

    if bins != "run" and not (bins.isdecimal() and 1 <= int(bins) <= 1000):
        raise InputError(f"--bins must be a number from 1 to 1000, or 'run', got {bins!r}")
    contest.require_splits([split], "diagnose")
    voice, seed = common.Voice(quiet, as_json), common.choose_seed(seed)
    place = common.choose_device(device)
    loaded = [hub.load(name, place, checkpoint) for name in contest.names_of(model)]
    if len({one.name for one in loaded}) < len(loaded):
        for one, name in zip(loaded, contest.names_of(model), strict=True):
            one.name = name
    found = []
    for one in loaded:
        with voice.progress(f"diagnosing {one.name}") as progress, common.spoken_warnings(voice):
            found.append(
                diagnose(
                    one,
                    data,
                    split=split,
                    limit=limit,
                    seconds=seconds,
                    bins=None if bins == "run" else int(bins),
                    seeds=seeds,
                    steps=steps,
                    sampler=sampler,
                    seed=seed,
                    progress=progress,
                )
            )
    reports = [one.report for one in found]
    if not voice.silent:
        for report in reports:
            _show(report)
        if len(reports) > 1:
            _compare(reports)
    if output is not None:
        voice.say(f"report: {write_diagnosis(output, found)}")
    if as_json:
        from fromnoise.evaluation.collapse_words import plain

        content = [plain(report) for report in reports]
        voice.hand_over(content if len(content) > 1 else content[0])


def _show(report: "Report") -> None:
    """The table over t, the numbers of the whole, and the sentence."""
    from fromnoise.evaluation.collapse_words import meaning

    rows = report.rows()
    wanted = ("gain", "total", "swap", "silence", "share", "loss_true", "loss_swapped")
    columns = [name for name in wanted if any(math.isfinite(row[name]) for row in rows)]
    lines = [[f"{row['t']:.3f}", *(f"{row[name]:.4g}" for name in columns)] for row in rows]
    _print(f"{report.model}: {len(report.items)} items, condition: {report.what}", ("t", *columns), lines)
    for name, value in report.summary().items():
        print(f"{name:>26} {value}")
    for name, line in report.scores.items():
        print(f"{name:>26} " + ", ".join(f"{metric} {value.value:.2f}" for metric, value in line.items()))
    print(f"{report.model}: {meaning(report)}", flush=True)


def _compare(reports: Sequence["Report"]) -> None:
    """One line a model, most dependent first, and how far each is from the next, item by item."""
    from fromnoise.evaluation.collapse import gap

    names = ("gain", "total", "swap", "silence", "share", "faithfulness", "dispersion", "likeness_sample_label")
    ranked = sorted(reports, key=lambda report: -report.summary()["gain"].value)
    found = [(report.model, report.summary()) for report in ranked]
    lines = [[model, *(str(line[name]) if name in line else "-" for name in names)] for model, line in found]
    _print("means over t, with 95 % intervals", ("model", *names), lines)
    for one, other in pairwise(ranked):
        if one.items == other.items and len(one.curve.times) == len(other.curve.times):
            print(f"gain of {one.model} over {other.model}: {gap(one.curve, other.curve, 'gain', one.seed)}")


def _print(title: str, headings: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    print(title)
    table = Table()
    for heading in headings:
        table.add_column(Text(heading), justify="left" if heading == "model" else "right", overflow="fold")
    for line in lines:
        table.add_row(*map(Text, line))
    Console(width=None if sys.stdout.isatty() else 24 * len(headings) + 20).print(table)
