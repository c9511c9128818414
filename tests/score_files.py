"""The score models' vectors: arrays, weights by their rule, key lists, and checkpoints as their trainers write them."""

import json
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.rules import VECTORS


def facts_of(name: str) -> dict[str, Any]:
    return json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))


def arrays_of(name: str) -> dict[str, Tensor]:
    """The arrays of a vector; complex ones `b 1 f t` as `b 2 f t`."""
    with np.load(VECTORS / f"{name}.npz") as file:
        arrays = {key: torch.as_tensor(file[key]) for key in file.files}
    return {k: torch.view_as_real(v).movedim(-1, 2).flatten(1, 2) if v.is_complex() else v for k, v in arrays.items()}


def weights_of(rule: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """offset + scale a sin(b k + c i), float64; the JSON's list says i, offset and scale of every name."""
    found = {}
    for key, shape, i, offset, scale in rule["parameters"]:
        wave = rule["a"] * np.sin(rule["b"] * np.arange(math.prod(shape)) + rule["c"] * i)
        found[prefix + key] = torch.from_numpy(offset + scale * wave).reshape(shape)
    return found


def listed(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published state dict, in its order."""
    return {key: tuple(shape) for key, shape in facts_of(name)["state_dict_in_module_order"]}


def hollow(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """The same without memory, but for windows."""
    return {
        key: torch.hann_window(shape[0]) if key.endswith("window") else torch.empty(tuple(shape), device="meta")
        for key, shape in shapes.items()
    }


def write(
    path: Path, state: Mapping[str, Tensor], settings: Any = None, shadow: Sequence[Tensor] = (), **more: Any
) -> Path:
    """A checkpoint as Lightning writes it, with torch_ema's entry and the trainer's settings where there are any."""
    content: dict[str, Any] = {"epoch": 1, "global_step": 10, "state_dict": OrderedDict(state), **more}
    if shadow:
        ema = {"decay": 0.999, "num_updates": 10, "shadow_params": list(shadow), "collected_params": []}
        content["ema"] = ema
    if settings is not None:
        content["hyper_parameters"] = settings
    torch.save(content, path)
    return path
