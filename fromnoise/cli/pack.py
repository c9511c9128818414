"""`fromnoise pack`: what a recipe would train on, as tar shards that the same recipe trains on."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def command(
    settings: Annotated[
        list[str] | None, typer.Argument(help="recipe=NAME and data.key=value ..., as `fromnoise train` takes them.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for train/ and valid/ with their shards.")
    ] = None,
    megabytes: Annotated[float, typer.Option("--megabytes", help="Begin a new shard beyond this size.")] = 512.0,
    samples: Annotated[int, typer.Option("--samples", help="Begin a new shard after so many samples.")] = 10_000,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON on standard output.")] = False,
) -> None:
    """Pack training data into tar shards (WebDataset's form).

    Which recordings, which are held out, and what is said of them, is what the recipe's data settings say; the
    recordings themselves are copied byte for byte. Train from the shards by data.root=FOLDER.

    Examples:

    fromnoise pack recipe=diffwave/sc09_class data.root=SpeechCommands -o shards

    fromnoise train recipe=diffwave/sc09_class data.root=shards
    """
    from fromnoise.cli.train import recipe_of
    from fromnoise.data.check import check
    from fromnoise.data.packing import pack
    from fromnoise.types import InputError

    if output is None:
        raise InputError("expected a folder to write to; give one by -o FOLDER")
    if megabytes <= 0 or samples < 1:
        raise InputError(f"expected --megabytes above 0 and --samples of at least 1, got {megabytes:g} and {samples}")
    recipe, _ = recipe_of(settings or [], None)
    for warning in check(recipe.data).warnings:
        print(f"Warning: {warning}", file=sys.stderr)

    def tell(split: str, done: int, total: int) -> None:
        if not (quiet or as_json) and (done == total or done % 10_000 == 0):
            print(f"{split}: {done} of {total}", flush=True)

    written = pack(recipe.data, output, megabytes, samples, tell)
    if as_json:
        typer.echo(json.dumps({split: {"samples": n, "shards": s} for split, (n, s) in written.items()}))
    elif not quiet:
        for split, (n, s) in written.items():
            print(f"{output / split}: {n} samples in {s} shard{'' if s == 1 else 's'}")
