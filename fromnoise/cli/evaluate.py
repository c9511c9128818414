"""`fromnoise evaluate`: score models, or folders of finished results, on pairs of noisy and clean recordings."""

import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from fromnoise.cli import common

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fromnoise.data.layouts import Pairs, Split
    from fromnoise.evaluation.report import Cell, Row
    from fromnoise.evaluation.run import Evaluation


def command(
    what: Annotated[
        list[str], typer.Argument(metavar="[MODEL_OR_FOLDER] DATA", help="What to score, and the folder of pairs.")
    ],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", "-n", metavar="MODEL", help="One more; may be repeated."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="REPORT", help="Folder for the CSV, JSON and HTML report.")
    ] = None,
    steps: Annotated[str | None, typer.Option(metavar="1,2,4", help="Numbers of steps, each a row.")] = None,
    sampler: Annotated[
        str | None, typer.Option("--sampler", "--sampler-type", metavar="A,B", help="Samplers, each a row.")
    ] = None,
    metrics: Annotated[str | None, typer.Option(metavar="A,B", help="Scores; 'all' for every one.")] = None,
    split: Annotated[str, typer.Option(metavar="train|valid|test", help="Which part of DATA.")] = "test",
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N pairs by name.")] = None,
    examples: Annotated[int, typer.Option(metavar="N", min=0, help="Recordings to hear in the report.")] = 4,
    jobs: Annotated[int, typer.Option("--jobs", "-j", metavar="N", min=1, help="Processes that compute scores.")] = 1,
    seed: common.Seed = 0,
    device: common.Device = "auto",
    checkpoint: common.Checkpoint = "best",
    quiet: common.Quiet = False,
    as_json: common.AsJson = False,
) -> None:
    """Score models on noisy recordings with clean references.

    MODEL_OR_FOLDER: bundled names, model or run folders, hub ids, or folders of files that are enhanced already, one or
    several with commas between; `noisy` for the input alone, which is always the first row. DATA: a folder with `noisy`
    and `clean` inside, or one of the other layouts in the documentation; several, with commas, make a table each.

    The exit code is 1 when some file has no score at all.

    Examples:

    fromnoise evaluate enhance-small DATA -o report --steps 1,2,4

    fromnoise evaluate runs/mine,results/theirs DATA --metrics pesq_wb,estoi,si_sdr --limit 50
    """
    from fromnoise.data.layouts import VOICEBANK, find_pairs
    from fromnoise.evaluation.report import cells, summary_json, write_report
    from fromnoise.evaluation.run import evaluate
    from fromnoise.evaluation.speech import DEFAULT_METRICS, METRICS, check_names
    from fromnoise.types import InputError

    if len(what) > 2 or (len(what) == 1 and not model):
        raise InputError(f"expected MODEL_OR_FOLDER and DATA, got {' '.join(what)}; join several models by commas")
    if split not in VOICEBANK:
        raise InputError(f"--split must be one of {', '.join(VOICEBANK)}, got {split!r}")
    chosen = {None: list(DEFAULT_METRICS), "all": list(METRICS)}.get(metrics) or common.comma_separated(metrics)
    check_names(chosen)
    part = cast("Split", split)
    sets = {place: find_pairs(place, part)[:limit] for place in _names(what[-1])}
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    voice, seed = common.Voice(quiet, as_json), common.choose_seed(seed)
    names = [name for text in what[:-1] for name in _names(text)] + (model or [])
    place = common.choose_device(device)
    contestants = _contestants(names, place, checkpoint)
    answers: dict[str, Any] = {}
    for data, pairs in sets.items():
        with voice.progress(f"evaluating {Path(data).name}") as progress:
            result = evaluate(
                contestants,
                pairs,
                metrics=chosen,
                steps=_counts(steps),
                samplers=common.comma_separated(sampler) or [None],
                seed=seed,
                jobs=jobs,
                examples=examples if output else 0,
                progress=lambda done, total, _, progress=progress: progress(done, total),
                settings={"data": data, "split": split, "limit": limit, "device": str(place)},
            )
        table = cells(result.rows, result.meta.metrics, seed)
        failed = unscored(result.rows)
        answers[data] = summary_json(result.rows, table, result.meta) | {"failed": failed}
        if not (quiet or as_json):
            print_table(result, table, data if len(sets) > 1 else "")
        if output is not None:
            folder = output if len(sets) == 1 else output / Path(data).name
            voice.say(f"report: {write_report(folder, result.rows, result.examples, result.meta)}")
        _complain(voice, pairs, failed)
    if as_json:
        voice.hand_over(answers if len(sets) > 1 else next(iter(answers.values())))
    if any(answer["failed"] for answer in answers.values()):
        raise typer.Exit(1)


def _names(text: str) -> list[str]:
    """'a,b' as two names, unless a folder is called so."""
    return [text] if Path(os.path.expanduser(text)).is_dir() else common.comma_separated(text)


def _counts(text: str | None) -> list[int | None]:
    """'1,2,4' -> [1, 2, 4]; nothing -> [None]."""
    from fromnoise.types import InputError

    try:
        return [int(part) for part in common.comma_separated(text)] or [None]
    except ValueError:
        raise InputError(f"--steps takes whole numbers with commas between, got {text!r}") from None


def _contestants(names: Sequence[str], device: Any, checkpoint: str) -> list[Any]:
    """Models and folders of results, with different names; 'noisy' adds nothing, it is there already."""
    from fromnoise import hub
    from fromnoise.evaluation.run import INPUT, Results

    found: list[Any] = []
    for text in dict.fromkeys(names):
        folder = Path(os.path.expanduser(text))
        if text == INPUT:
            continue
        if folder.is_dir() and not (folder / "card.json").exists():
            label = text if any(other.name == folder.name for other in found) else folder.name
            found.append(Results(label, folder))
        else:
            enhancer = hub.load(text, device, checkpoint)
            if any(other.name == enhancer.name for other in found):
                enhancer.name = text
            found.append(enhancer)
    return found


def unscored(rows: Sequence["Row"]) -> list[dict[str, str]]:
    """The files that have no score at all in some row, and why."""
    return [
        {"row": row.label, "file": name, "reason": next(iter(scores.reasons.values()))}
        for row in rows
        for name, scores in zip(row.files, row.scores, strict=True)
        if scores.reasons and not any(math.isfinite(value) for value in scores.values.values())
    ]


def print_table(result: "Evaluation", table: Sequence["Mapping[str, Cell]"], data: str = "") -> None:
    """Means with half their 95 % interval, for people."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fromnoise.evaluation.speech import METRICS

    count = len(result.rows[0].files)
    title = f"{data}{': ' if data else ''}{count} files; mean ± half the 95 % interval of the mean"
    shown = Table(title=Text(title), title_justify="left")
    headings = ["model", "calls", "RTF"]
    for name in result.meta.metrics:
        unit = f" ({METRICS[name].unit})" if METRICS[name].unit else ""
        headings.append(f"{name}{unit} {'↑' if METRICS[name].higher_is_better else '↓'}")
    for heading in headings:
        shown.add_column(Text(heading), justify="left" if heading == "model" else "right", overflow="fold")
    for row, line in zip(result.rows, table, strict=True):
        factor = f"{row.real_time_factor:.3f}" if math.isfinite(row.real_time_factor) else "-"
        scores = [_score(line[name]) for name in result.meta.metrics]
        shown.add_row(*(Text(cell) for cell in (row.label, str(row.network_calls), factor, *scores)))
    Console(width=None if sys.stdout.isatty() else 60 + 16 * len(result.meta.metrics)).print(shown)


def _score(cell: "Cell") -> str:
    """'2.31 ± 0.12', and how many files are missing."""
    found = cell.summary
    if not math.isfinite(found.mean):
        return f"none ({found.missing} missing)"
    half = f" ± {(found.high - found.low) / 2:.2f}" if math.isfinite(found.high) else ""
    return f"{found.mean:.2f}{half}" + (f" ({found.missing} missing)" if found.missing else "")


def _complain(voice: common.Voice, pairs: "Pairs", failed: Sequence[dict[str, str]]) -> None:
    for skipped in pairs.skipped:
        voice.complain(f"Warning: left out: {skipped}")
    for one in failed:
        voice.complain(f"Error: {one['row']}: {one['file']} has no score: {one['reason']}")
