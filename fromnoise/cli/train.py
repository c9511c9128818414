"""`fromnoise train`: a recipe, edited by key=value, to a run folder; or a run folder, to its end."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fromnoise.data.check import DataReport
    from fromnoise.recipes import Recipe
    from fromnoise.training.run import Report


def command(
    settings: Annotated[
        list[str] | None, typer.Argument(help="recipe=NAME and key=value ..., or the folder of a run to continue.")
    ] = None,
    multirun: Annotated[
        bool, typer.Option("--multirun", "-m", help="Run every combination of values given as key=a,b, in turn.")
    ] = False,
    cfg: Annotated[str | None, typer.Option("--cfg", metavar="job", help="Print the settings and stop.")] = None,
    list_recipes: Annotated[bool, typer.Option("--list", help="List the recipes and stop.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON on standard output.")] = False,
) -> None:
    """Train a model from a recipe.

    Settings are changed in Hydra's grammar: key=value, +key=value, ~key, another part by its name.

    Examples:

    fromnoise train recipe=drdiffuse/base_small data.root=DATA trainer.precision=bf16-mixed

    fromnoise train recipe=bridge/bridge_small data.root=DATA process=ouve init.backbone=enhance-base-small

    fromnoise train runs/drdiffuse/base_small/2026-01-31_12-00-00
    """
    from fromnoise.recipes import RECIPES
    from fromnoise.types import InputError

    if list_recipes:
        typer.echo("\n".join(RECIPES))
        return
    if cfg not in (None, "job"):
        raise InputError(f"--cfg shows 'job', got {cfg!r}")
    resume, arguments = _split(settings or [])
    jobs = _jobs(arguments, multirun) if resume is None else [arguments]
    reports = []
    for job in jobs:
        recipe, overrides = recipe_of(job, resume)
        if cfg:
            _show(recipe)
        else:
            if multirun and recipe.trainer.world_size > 1:
                raise InputError("--multirun runs on one device; start one command per combination instead")
            reports.append(_run(recipe, overrides, resume, quiet or as_json))
    if as_json and not cfg and _speaks():
        outcomes = [{"folder": str(r.folder), "steps": r.steps, "monitor": r.monitor, "best": r.best} for r in reports]
        typer.echo(json.dumps(outcomes if multirun else outcomes[0]))


def _split(settings: list[str]) -> tuple[Path | None, list[str]]:
    """The folder to continue, if any, and the rest: `FOLDER ...` or `resume=FOLDER ...`."""
    folders = [s for s in settings if "=" not in s and not s.startswith("~")]
    folders += [s.partition("=")[2] for s in settings if s.startswith("resume=")]
    rest = [s for s in settings if s not in folders and not s.startswith("resume=")]
    if not folders:
        return None, rest
    from fromnoise.types import InputError

    if len(folders) > 1:
        raise InputError(f"expected one run folder to continue, got {', '.join(folders)}")
    if not Path(folders[0]).is_dir():
        raise InputError(f"{folders[0]}: no such run folder; a new run needs recipe=NAME, settings are key=value")
    return Path(folders[0]), rest


def _jobs(arguments: list[str], multirun: bool) -> list[list[str]]:
    if not multirun:
        return [arguments]
    from fromnoise.recipes.compose import sweep

    return list(sweep(arguments))


def recipe_of(arguments: list[str], resume: Path | None) -> "tuple[Recipe, list[str]]":
    """The edited recipe, and all that was edited, also when the run was started."""
    from fromnoise.recipes import RECIPES
    from fromnoise.recipes.compose import compose
    from fromnoise.types import InputError

    names = [a.partition("=")[2] for a in arguments if a.startswith("recipe=")]
    edits = [a for a in arguments if not a.startswith("recipe=")]
    if resume is not None:
        from fromnoise.training.folder import read_run

        if names:
            raise InputError(f"{resume} has its recipe; leave out recipe={names[0]}")
        base, before = read_run(resume)
        return compose(base, edits) if edits else base, [*before, *edits]
    if len(names) != 1 or names[0] not in RECIPES:
        given = f"got {', '.join(map(repr, names))}" if names else "got none"
        raise InputError(f"expected one recipe=NAME, {given}; choose one of: {', '.join(RECIPES)}")
    return compose(RECIPES[names[0]], edits), edits


def _show(recipe: "Recipe") -> None:
    from omegaconf import OmegaConf

    from fromnoise.recipes import to_tree

    typer.echo(OmegaConf.to_yaml(OmegaConf.create(to_tree(recipe))), nl=False)


def _speaks() -> bool:
    """Whether this is the first process of a distributed run."""
    from fromnoise.training.run import is_first_process

    return is_first_process()


def _run(recipe: "Recipe", overrides: list[str], resume: Path | None, quiet: bool) -> "Report":
    from fromnoise.training.run import Interrupted, Voice, train

    quiet = quiet or not _speaks()
    say = (lambda text: None) if quiet else (lambda text: print(text, flush=True))
    bar = sys.stderr.isatty() and sys.stdout.isatty() and not quiet
    try:
        report = train(recipe, overrides, resume, Voice(say, lambda r: _show_data(r, quiet), bar))
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        raise typer.Exit(stop.code) from stop
    if report.best is not None:
        say(f"best {report.monitor} {report.best:.5f}")
    say(f"done: {report.folder} is a model folder now")
    return report


def _show_data(report: "DataReport", quiet: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    if report.sets and not quiet:
        table = Table("set", "files", "minutes", "seconds each", "Hz", "speakers")
        for line in report.sets:
            files = str(line.files) if line.opened == line.files else f"{line.files} ({line.opened} opened)"
            lengths = f"{line.shortest:.1f} - {line.longest:.1f}"
            rates, speakers = ", ".join(map(str, line.rates)), str(line.speakers or "")
            table.add_row(line.name, files, f"{line.seconds / 60:.1f}", lengths, rates, speakers)
        Console().print(table)
    for warning in report.warnings:
        print(f"Warning: {warning}", file=sys.stderr)
