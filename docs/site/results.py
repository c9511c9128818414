"""The page of results: every bundled model with what its card says, and what its README says of it in full."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HEAD = """# Results of the bundled models

Made from the models' cards when the site is built; `fromnoise models` prints the same. Each model's page states its
data, the command that printed the scores, their intervals, and its limits. [What the names mean](metrics.md).
"""
SCORE = re.compile(r"^(?P<name>.+?) \((?P<where>[^()]+)\)$")


def page(cards: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: one table of all models, then the scores of each."""
    rows = [
        f"| [{card['name']}](models/{card['name']}.md) | `{card['task']}` | {card['sample_rate']} Hz | "
        f"{card['parameters']:,} | {card['licence']} |"
        for card in cards
    ]
    table = "\n".join(["| Model | Task | Rate | Parameters | Licence |", "|---|---|---|---|---|", *rows])
    return "\n\n".join([HEAD.rstrip(), table, *(scores(card) for card in cards)]) + "\n"


def scores(card: Mapping[str, Any]) -> str:
    """A model's scores: a row for each set that was judged, a column for each score."""
    sets: dict[str, dict[str, float]] = {}
    for key, value in card.get("scores", {}).items():
        found = SCORE.match(key)
        name, where = (found["name"], found["where"]) if found else (key, "")
        sets.setdefault(where, {})[name] = value
    names = list(dict.fromkeys(name for row in sets.values() for name in row))
    head = [f"## {card['name']}", f"Trained on: {card['data']}. Run: {run_of(card)}"]
    if not names:
        return "\n\n".join(head)
    lines = ["| Set | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for where, row in sets.items():
        cells = (f"{row[name]:g}" if name in row else "" for name in names)
        lines.append(f"| {where or 'see the page'} | " + " | ".join(cells) + " |")
    return "\n\n".join([*head, "\n".join(lines)])


def run_of(card: Mapping[str, Any]) -> str:
    """Process, sampler and steps of a card, in words; a classifier has none."""
    config = card["config"]
    if "process" not in config:
        return "one call of the network."
    steps, process, sampler = config["num_steps"], config["process"]["name"], config["sampler"]["name"]
    return f"process `{process}`, sampler `{sampler}`, {steps} step{'s' if steps > 1 else ''}."


def read_cards(models: Path) -> list[dict[str, Any]]:
    """The cards of the bundled models, by name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(models.glob("*/card.json"))]
