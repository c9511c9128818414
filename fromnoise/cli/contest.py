"""What `evaluate` shares between its tasks: who competes, at which task, and the table for people."""

import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fromnoise.cli import common, corpus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fromnoise.evaluation.rows import Cell, Row
    from fromnoise.evaluation.run import Evaluation
    from fromnoise.evaluation.speech import Scores

ENDINGS = {"enhance": ("", "_enhanced"), "vocode": ("", "_vocoded"), "generate": ("",), "autoencode": ("",)}
TASKS = ("enhance", "separate", "vocode", "generate", "autoencode")
INPUTS = {"noisy": "enhance", "mixture": "separate", "__no_proc__": "separate"}
"""Names of the untouched input -> the task in which it has a row of its own."""


def names_of(text: str) -> list[str]:
    """'a,b' as two names, unless a folder is called so."""
    return [text] if Path(os.path.expanduser(text)).is_dir() else common.comma_separated(text)


def whole_numbers(text: str | None, option: str) -> list[int | None]:
    """'1,2,4' -> [1, 2, 4]; nothing -> [None]."""
    from fromnoise.types import InputError

    try:
        return [int(part) for part in common.comma_separated(text)] or [None]
    except ValueError:
        raise InputError(f"{option} takes whole numbers with commas between, got {text!r}") from None


def numbers(text: str | None, option: str) -> list[float | None]:
    """'1,2.5' -> [1.0, 2.5]; nothing -> [None]."""
    from fromnoise.types import InputError

    try:
        found: list[float | None] = [float(part) for part in common.comma_separated(text)] or [None]
    except ValueError:
        found = [math.nan]
    if any(number is not None and not math.isfinite(number) for number in found):
        raise InputError(f"{option} takes numbers with commas between, got {text!r}")
    return found


def contestants(names: Sequence[str], device: Any, checkpoint: str) -> dict[str, Any]:
    """Models and folders of results by what the user calls them, with different names; the input adds nothing, it is
    there already."""
    from fromnoise import hub
    from fromnoise.evaluation.run import Results

    found: dict[str, Any] = {}
    for text in dict.fromkeys(names):
        folder = Path(os.path.expanduser(text))
        if text in INPUTS:
            continue
        if folder.is_dir() and not (folder / "card.json").exists():
            label = text if any(other.name == folder.name for other in found.values()) else folder.name
            found[text] = Results(label, folder)
        else:
            model = hub.load(text, device, checkpoint)
            if any(other.name == model.name for other in found.values()):
                model.name = text
            found[text] = model
    return found


def again(found: "Mapping[str, Any]", task: str, checkpoint: str, device: str) -> list[Any]:
    """The same for a worker: folders as they are, and in place of a name the model, on the device.

    found: what `anywhere` gave, by the names that the contestants have.
    """
    from fromnoise import hub

    entered: list[Any] = []
    for name, one in found.items():
        if isinstance(one, str):
            one = hub.load(one, common.choose_device(device), checkpoint)
            one.name = name
        entered.append(one)
    return as_results(entered, task)


def anywhere(found: "Mapping[str, Any]") -> dict[str, Any]:
    """What a process in another folder needs for `again`."""
    from dataclasses import replace

    from fromnoise.evaluation.run import Results

    return {
        one.name: replace(one, folder=one.folder.absolute()) if isinstance(one, Results) else corpus.anywhere(text)
        for text, one in found.items()
    }


def task_of_input(names: Sequence[str]) -> str | None:
    """The task that the name of an input belongs to, where one is given that says more than the default."""
    return next((INPUTS[name] for name in names if INPUTS.get(name) == "separate"), None)


def require_splits(splits: Sequence[str], task: str) -> None:
    """Raises InputError for a split that data of the task do not have."""
    from fromnoise.data.layouts import VOICEBANK
    from fromnoise.types import InputError

    wrong = [split for split in splits if split not in VOICEBANK and task != "separate"]
    if wrong or not splits:
        raise InputError(f"--split must be one of {', '.join(VOICEBANK)}, got {', '.join(map(repr, wrong)) or 'none'}")


def folder_of(output: Path, data: str, several: bool) -> Path:
    """Where the report on one of the data sets goes."""
    path = Path(data)
    return output / (path.stem if path.suffix in (".csv", ".jsonl") else path.name) if several else output


def task_of(found: Sequence[Any], wanted: str | None, judged: bool) -> str:
    """The task of all models; of folders alone what `wanted` says, else generation where they are `judged`.

    Raises InputError for models of several tasks, or of one that cannot be evaluated.
    """
    from fromnoise.types import InputError

    if wanted is not None and wanted not in TASKS:
        raise InputError(f"--task must be one of {', '.join(TASKS)}, got {wanted!r}")
    tasks = {model.name: model.task for model in found if hasattr(model, "task")}
    for name, task in tasks.items():
        if task not in TASKS:
            hint = "; name it by --classifier" if task == "classify" else ""
            raise InputError(f"the model {name!r} is for the task {task!r}, which is not evaluated{hint}")
        if wanted is not None and task != wanted:
            raise InputError(f"the model {name!r} is for the task {task!r}, expected one for {wanted!r}")
    if len(set(tasks.values())) > 1:
        listed = ", ".join(f"{name} ({task})" for name, task in tasks.items())
        raise InputError(f"expected models of one task, got {listed}; evaluate them one after the other")
    return wanted or next(iter(tasks.values()), "generate" if judged else "enhance")


def as_results(found: Sequence[Any], task: str) -> list[Any]:
    """The same with folders that know how files of the task are called."""
    from dataclasses import replace

    from fromnoise.evaluation.run import Results

    if task == "separate":
        from fromnoise.evaluation.separated import SourceResults

        return [SourceResults(one.name, one.folder) if isinstance(one, Results) else one for one in found]
    known = {"endings": ENDINGS[task], "flat": task == "vocode"}
    return [replace(one, **known) if isinstance(one, Results) else one for one in found]


def lacks(scores: "Scores") -> bool:
    """Whether there is no score at all."""
    return bool(scores.reasons) and not any(math.isfinite(value) for value in scores.values.values())


def unscored(rows: Sequence["Row"]) -> list[dict[str, str]]:
    """The files that have no score at all in some row, and why."""
    return [
        {"row": row.label, "file": name, "reason": next(iter(scores.reasons.values()))}
        for row in rows
        for name, scores in zip(row.files, row.scores, strict=True)
        if lacks(scores)
    ]


def print_table(
    rows: Sequence["Row"], table: Sequence["Mapping[str, Cell]"], metrics: Sequence[str], title: str
) -> None:
    """Means with half their 95 % interval, for people."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fromnoise.evaluation.rows import about

    shown = Table(title=Text(title), title_justify="left")
    headings = ["model", "calls", "RTF"]
    for name in metrics:
        metric = about(name)
        unit = f" ({metric.unit})" if metric.unit else ""
        headings.append(f"{name}{unit} {'↑' if metric.higher_is_better else '↓'}")
    for heading in headings:
        shown.add_column(Text(heading), justify="left" if heading == "model" else "right", overflow="fold")
    for row, line in zip(rows, table, strict=True):
        factor = f"{row.real_time_factor:.3f}" if math.isfinite(row.real_time_factor) else "-"
        scores = [_score(line[name], name in row.whole or name in row.reasons_whole) for name in metrics]
        shown.add_row(*(Text(cell) for cell in (row.label, str(row.network_calls), factor, *scores)))
    Console(width=None if sys.stdout.isatty() else 60 + 16 * len(metrics)).print(shown)


def _score(cell: "Cell", whole: bool) -> str:
    """'2.31 ± 0.12', and how many files are missing; of a set as a whole more digits, and the parts' deviation."""
    found = cell.summary
    if not math.isfinite(found.mean):
        return "none" if whole or found.missing == 0 else f"none ({found.missing} missing)"
    if whole:
        return f"{found.mean:.3f}" + (f" ± {found.deviation:.3f}" if math.isfinite(found.deviation) else "")
    half = f" ± {(found.high - found.low) / 2:.2f}" if math.isfinite(found.high) else ""
    return f"{found.mean:.2f}{half}" + (f" ({found.missing} missing)" if found.missing else "")


def show(result: "Evaluation", table: Sequence["Mapping[str, Cell]"], data: str = "") -> None:
    """The table of everything, and one for each group."""
    from fromnoise.evaluation.rows import cells, group_rows

    start = f"{data}: " if data else ""
    metrics, count = result.meta.metrics, len(result.rows[0].files)
    if any(row.whole or row.alone for row in result.rows):
        files = ", ".join(f"{len(row.files)}" for row in result.rows)
        print_table(result.rows, table, metrics, f"{start}sets of {files} sounds; means ± half the 95 % interval")
        return
    print_table(result.rows, table, metrics, f"{start}{count} files; mean ± half the 95 % interval of the mean")
    for group, rows in group_rows(result.rows, result.meta).items():
        part = cells(rows, metrics, result.meta.seed)
        print_table(rows, part, metrics, f"{start}{group}: {len(rows[0].files)} files")
