"""A run folder: everything about one training, which every command accepts as a model.

card.json            what the model is, from the start on
recipe.json          {"format": 1, "recipe": name, "overrides": [...], "settings": the whole tree}
checkpoints/         best.ckpt, last.ckpt: Lightning's, with the averaged weights as `state_dict`
logs/                csv-0 (csv-1 after a restart, ...), tensorboard
model.safetensors    the best weights in float32, when the run has ended
"""

import json
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from fromnoise import hub
from fromnoise.files import write_whole
from fromnoise.recipes.base import Recipe, from_tree, to_tree
from fromnoise.tasks import TASKS
from fromnoise.types import InputError

FORMAT = 1
LOCAL = ("data.root=", "data.valid_root=", "folder=", "init.")  # paths of one machine, no part of a card


def new_folder(recipe: Recipe) -> Path:
    """Where a new run goes: `folder` of the recipe, or runs/<recipe>/<date-time>, made free by a counter.

    Raises InputError when the folder of the recipe holds a run already.
    """
    if recipe.folder:
        folder = Path(recipe.folder)
        if (folder / "recipe.json").exists():
            raise InputError(f"{folder} holds a run already; continue it by: fromnoise train {folder}")
    else:
        stem = Path("runs", *recipe.name.split("/"), datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
        folder = next(
            f for f in (stem, *(stem.with_name(f"{stem.name}-{i}") for i in range(1, 10**6))) if not f.exists()
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def describe(folder: Path, recipe: Recipe, overrides: Sequence[str]) -> None:
    """Write recipe.json and card.json."""
    tree = to_tree(recipe)
    _write(
        folder / "recipe.json", {"format": FORMAT, "recipe": recipe.name, "overrides": [*overrides], "settings": tree}
    )
    _write(folder / "card.json", card_of(recipe, overrides))


def card_of(recipe: Recipe, overrides: Sequence[str]) -> dict[str, Any]:
    """The card of the model that a recipe trains; where the data lay is nobody's business."""
    data = {key: value for key, value in to_tree(recipe)["data"].items() if key not in ("root", "valid_root")}
    return {
        "format": hub.CARD_FORMAT,
        "task": recipe.verb,
        "name": recipe.model_name or recipe.name.replace("/", "-"),
        "sample_rate": recipe.sample_rate,
        "config": hub.config_dict(recipe.model_config()),
        "recipe": {
            "name": recipe.name,
            "overrides": [o for o in overrides if not o.lstrip("+").startswith(LOCAL)],
        },
        "licence": recipe.licence,
        "data": data,
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_run(folder: Path) -> tuple[Recipe, list[str]]:
    """The recipe and the overrides of a run folder. Raises InputError when it is none."""
    path = folder / "recipe.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return from_tree(content["settings"]), list(content["overrides"])
    except FileNotFoundError:
        raise InputError(f"{folder} is no run folder: it holds no recipe.json; a new run needs recipe=NAME") from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}); restore it") from error


def last_checkpoint(folder: Path) -> Path | None:
    """From where a run continues; None when no epoch was finished."""
    path = folder / "checkpoints" / "last.ckpt"
    return path if path.is_file() else None


def count_starts(folder: Path) -> int:
    """How often the run was started before."""
    return len(list((folder / "logs").glob("csv-*")))


def export(folder: Path, recipe: Recipe, overrides: Sequence[str]) -> Path:
    """Write model.safetensors beside card.json from the best checkpoint (the last one, if none was best)."""
    model = TASKS[recipe.verb][1](recipe.model_config())
    target = folder / "model.safetensors"
    if target.exists():  # of an earlier end of this run: the checkpoints are newer
        os.unlink(target)
    hub.weights_into(model, hub.read_weights(folder, "best"), folder)
    hub.save(model, card_of(recipe, overrides), folder)
    return target
