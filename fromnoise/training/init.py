"""Weights before the first step: what a network takes from one that was trained before.

Tensors are taken by name where the shapes agree. The conditional networks of tcunet contain the body of the regression
network, so a trained base starts them, and what the base lacks is set so that at step 0 they compute exactly what the
base computes from the condition alone:

    preprocess.conv (4 -> 2 channels: x_t, condition)   W[:, 0:2] = 0, W[:, 2:4] = 1, b = 0: passes the condition
    tp* (projections of the diffusion time)             0: the time is not heard yet
    c_deliver.* (the condition path of the dual form)   a second copy of the base

A generator and a refiner are networks of their own: they take the part of that name where the source has it, and its
backbone where it has not; an autoencoder is a whole model. A source that cannot be read or fits nowhere is an error:
nothing starts from scratch silently.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fromnoise import hub
from fromnoise.types import InputError

PREFIX = {"backbone": "denoiser.backbone."} | {part: f"{part}." for part in ("generator", "refiner", "autoencoder")}


@dataclass(frozen=True)
class Taken:
    """What a part took: `count` of its `total` tensors from `source`; the others are named in `fresh`."""

    part: str
    source: str
    count: int
    total: int
    fresh: tuple[str, ...]

    def __str__(self) -> str:
        rest = f"; fresh: {', '.join(self.fresh[:4])}{', ...' if len(self.fresh) > 4 else ''}" if self.fresh else ""
        return f"{self.part}: {self.count} of {self.total} tensors from {self.source}{rest}"


def initialise(model: nn.Module, sources: Mapping[str, str]) -> list[Taken]:
    """Load every part of `sources` (part -> bundled name, model folder, run folder or checkpoint) into the model.

    Raises InputError when a source cannot be read, fits nowhere, or when the model has a generator that stays as
    it is and no source for it. A refiner without a source starts as the generator.
    """
    given = {part: source for part, source in sources.items() if source}
    if "refiner" not in given and "generator" in given and getattr(model, "refiner", None) is not None:
        given["refiner"] = given["generator"]
    for part, prefix in PREFIX.items():
        there = any(name.startswith(prefix) for name in model.state_dict())
        if part in given and not there:
            raise InputError(f"init.{part}={given[part]}: this recipe has no {part}; choose one by {part}=NAME")
        learns = part == "backbone" or (part == "generator" and getattr(getattr(model, "config", None), "joint", 0))
        if there and part not in given and not learns:
            raise InputError(f"this recipe needs a trained {part}; set init.{part}=FOLDER_OR_CHECKPOINT")
    return [_take(model, part, source) for part, source in given.items()]


def _take(model: nn.Module, part: str, source: str) -> Taken:
    try:
        weights = read_source(source)
    except InputError as error:
        raise InputError(f"init.{part}={source}: {error}") from error
    prefix = PREFIX[part]
    if not any(name.startswith(prefix) for name in weights):
        prefix = "" if part == "autoencoder" else PREFIX["backbone"]  # a whole model, or its network
    found = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    network = model.get_submodule(PREFIX[part].removesuffix("."))
    count, fresh = fit(network, found)
    if count == 0:
        raise InputError(
            f"init.{part}={source}: none of its {len(weights)} tensors fits; expected weights of this network"
        )
    return Taken(part, source, count, count + len(fresh), tuple(fresh))


def fit(network: nn.Module, weights: Mapping[str, Tensor]) -> tuple[int, list[str]]:
    """Load what fits by name and shape; returns how many tensors did, and the names of the others."""
    own = network.state_dict()
    if not any(name.startswith("c_deliver.") for name in weights):
        weights = dict(weights) | {f"c_deliver.{name}": value for name, value in weights.items()}
    taken = {k: v.to(own[k].dtype) for k, v in weights.items() if k in own and v.shape == own[k].shape}
    fresh = [name for name in own if name not in taken]
    network.load_state_dict(taken, strict=False)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name in fresh:
                _pass_condition(name, value)
    return len(taken), fresh


def _pass_condition(name: str, value: Tensor) -> None:
    """Make a layer that the source lacks hand on the condition, or be silent; see the module's text."""
    if name == "preprocess.conv.weight":
        value.zero_()
        value[:, 2:4, 0, 0] = torch.eye(2)
    elif name == "preprocess.conv.bias" or re.search(r"(^|\.)tp\d?\.", name):
        value.zero_()


def read_source(source: str) -> dict[str, Tensor]:
    """The weights of a bundled model, a model folder, a run folder or a checkpoint file, by the model's names."""
    path = Path(source).expanduser()
    if path.is_file() and path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} is not a readable safetensors file ({error}); fetch it again") from error
    if path.is_file():
        state = hub.read_checkpoint(path).get("state_dict", {})
        return {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
    return hub.read_weights(hub.locate(source))
