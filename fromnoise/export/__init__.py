"""Export: the networks of a model as files that need no fromnoise to be called, and all else a run needs as plain data.

    folder = runner.json     task, front end, the run as sums (`fromnoise.runner.program`), inputs of each network
             network.onnx    (x, t, condition) -> output; generator.onnx and refiner.onnx where the model has them
             tables.npz      filter banks, embeddings of labels

`fromnoise.runner` makes sound of such a folder by numpy and onnxruntime alone. Front end and sampler stay outside the
network: an inverse STFT in ONNX is rejected by runtimes, and a sampler in it would fix batch and length of its noise.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fromnoise
from fromnoise.export.check import TOLERANCE, check
from fromnoise.export.networks import FORMATS, traced, write
from fromnoise.export.plans import Plan, plan
from fromnoise.files import whole, write_whole
from fromnoise.runner.engine import FORMAT
from fromnoise.types import InputError

__all__ = ["FORMATS", "TOLERANCE", "Plan", "check", "export", "plan"]


def export(
    ready: Any,
    folder: str | os.PathLike[str],
    format: str = "onnx",
    steps: int | None = None,
    sampler: str | None = None,
    guidance: int | float | None = None,
    say: Callable[[str], object] = lambda text: None,
) -> Plan:
    """Write a ready model's networks and what its runner needs to `folder`.

    format: "onnx" or "torch". steps, sampler, guidance: other than the model's own; they are fixed in the folder.
    Raises InputError for what cannot be exported, with the reason.
    """
    if format not in FORMATS:
        raise InputError(f"format must be {' or '.join(FORMATS)}, got {format!r}")
    made = plan(ready, steps, sampler, guidance)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    entries = {}
    for role, called in made.networks.items():
        name = f"{role}{FORMATS[format]}"
        say(f"{name}: tracing and writing")
        program, items = traced(called, ready.name)
        with whole(target / name, FORMATS[format]) as temporary:
            write(program, called, temporary)
        entries[role] = {"file": name, "inputs": ["x", "t", *called.told], "items": items}
    write_whole(target / "runner.json", json.dumps(_facts(ready, made, entries), indent=1, allow_nan=False).encode())
    (target / "tables.npz").unlink(missing_ok=True)
    if made.tables:
        np.savez(target / "tables.npz", allow_pickle=False, **made.tables)
    return made


def _facts(ready: Any, made: Plan, entries: dict[str, Any]) -> dict[str, Any]:
    front = ready.model.frontend
    settings = {k: v for k, v in vars(front).items() if not k.startswith("_")}
    return {
        "format": FORMAT,
        "made_by": f"fromnoise {fromnoise.__version__}, torch {torch.__version__}",
        "task": ready.task,
        "name": ready.name,
        "licence": ready.card.get("licence", "not stated"),
        "sample_rate": ready.sample_rate,
        "frontend": {"name": ready.model.config.frontend["name"], **settings},
        "networks": entries,
        "runs": dict(made.runs),
        "settings": dict(made.settings),
        **made.facts,
    }
