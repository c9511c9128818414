"""`fromnoise models`: what is bundled, and the card of one model."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fromnoise.cli import common


def command(
    name: Annotated[str | None, typer.Argument(help="A bundled name, a folder, or a hub id: print its card.")] = None,
    commercial: Annotated[
        bool, typer.Option("--commercial", help="Only models whose licence allows commercial use.")
    ] = False,
    as_json: common.AsJson = False,
) -> None:
    """List the bundled models, or show one model's card: its parts, licence, data and scores.

    Examples:

    fromnoise models

    fromnoise models --commercial

    fromnoise models enhance-small --json
    """
    from fromnoise import hub
    from fromnoise.types import InputError

    if name is None:
        found = [overview(card, hub.BUNDLED / card["name"]) for card in hub.list_models()]
        found = [model for model in found if model["commercial"] or not commercial]
        if as_json:
            common.Voice.hand_over(found)
        else:
            print_list(found)
        return
    folder = hub.locate(name)
    card = hub.read_card(folder)
    facts = overview(card, folder)
    if commercial and not facts["commercial"]:
        allowed = "does not allow" if facts["commercial"] is False else "is not known to allow"
        raise InputError(f"{name}: the licence {facts['licence']!r} {allowed} commercial use")
    if as_json:
        common.Voice.hand_over(card | {key: facts[key] for key in ("commercial", "bytes", "sha256", "intact")})
    else:
        print_card(card, folder, facts)


def overview(card: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """What the list says of a model. where: its folder."""
    from fromnoise.hub import commercial_use
    from fromnoise.remote import WEIGHTS, sha256_of

    weights, licence = where / WEIGHTS, card.get("licence", "not stated")
    found, stated = sha256_of(weights) if weights.is_file() else None, card.get("sha256")
    return {
        "name": card["name"],
        "task": card["task"],
        "licence": licence,
        "commercial": commercial_use(licence),
        "parameters": card.get("parameters"),
        "bytes": weights.stat().st_size if weights.is_file() else None,
        "sha256": found,
        "intact": found == stated if found and stated else None,  # None: nothing to compare
        "sample_rate": card.get("sample_rate"),
        "scores": card.get("scores", {}),
    }


def print_list(found: Sequence[Mapping[str, Any]]) -> None:
    """The list for people."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fromnoise.hub import human_size

    table = Table()
    for heading in ("name", "task", "licence", "parameters", "size", "sha256", "rate", "scores"):
        table.add_column(heading, overflow="fold")
    for model in found:
        parameters = human_size(model["parameters"]) if isinstance(model["parameters"], int) else "?"
        size = f"{model['bytes'] / 1e6:.1f} MB" if model["bytes"] else "absent"
        rate = f"{model['sample_rate']} Hz" if model["sample_rate"] else "?"
        start = (model["sha256"] or "-")[:12] + (" (damaged)" if model["intact"] is False else "")
        row = (
            model["name"],
            model["task"],
            str(model["licence"]),
            parameters,
            size,
            start,
            rate,
            _scores(model["scores"]),
        )
        table.add_row(*(Text(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    if not found:
        print("no such model is bundled with this installation; --model takes a folder or a hub id")


def _scores(scores: Any) -> str:
    """Numbers in one line; of nested scores the first group."""
    if not isinstance(scores, Mapping):
        return str(scores)
    plain = {key: value for key, value in scores.items() if isinstance(value, int | float)}
    nested = [value for value in scores.values() if isinstance(value, Mapping)]
    if not plain and nested:
        return _scores(nested[0])
    return ", ".join(f"{key} {value:.3g}" for key, value in plain.items()) or "-"


def print_card(card: Mapping[str, Any], folder: Path, facts: Mapping[str, Any]) -> None:
    """The README of a model folder, if there is one, and its card."""
    readme = folder / "README.md"
    if readme.is_file():
        print(readme.read_text(encoding="utf-8", errors="replace").rstrip() + "\n")
    intact = {True: " (as the card states)", False: " (NOT what the card states: fetch it again)", None: ""}
    print(f"folder: {folder}\nbytes: {facts['bytes']}\nsha256: {facts['sha256']}{intact[facts['intact']]}")
    print(json.dumps(card, indent=2, ensure_ascii=False))
