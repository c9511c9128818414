"""From a layout's draft or plan, and what the user asked for, to a task's configuration and weights.

draft with a mel input   -> "vocode",   the published process, noise prediction, the trained chain
draft without            -> "generate", likewise
plan                     -> its task, with the steps, schedule and settings that were asked for
"""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from fromnoise.backbones import BACKBONES
from fromnoise.frontends.mel import MELS, Mel
from fromnoise.importers.base import PREFIX, Asked, Draft, Imported, Plan
from fromnoise.processes import PROCESSES
from fromnoise.samplers import GRIDS
from fromnoise.tasks import TASKS
from fromnoise.types import InputError, build, require_type

DISCRETE = ("vp", "interpolating")  # processes of a trained chain of betas


def assemble(layout: str, draft: Draft | Plan, asked: Asked) -> Imported:
    """The task's configuration and weights. Raises InputError for requests that the network cannot follow."""
    if isinstance(draft, Plan):
        return _planned(layout, draft, asked)
    notes = dict(draft.notes)
    for name in [name for name, said in vars(asked).items() if said]:
        notes.pop(name, None)
    changes = {key: value for key, value in asked.settings.items() if not key.startswith("mel.")}
    backbone = draft.backbone | changes
    for name in asked.settings:
        notes.pop(name.partition(".")[0], None)
    build("backbone", BACKBONES, backbone)
    mel = _mel(draft, asked)
    common = {"backbone": backbone, "prediction": {"name": "noise"}, **_process_and_run(draft, asked)}
    weights = {PREFIX + key: value for key, value in draft.weights.items()}
    if mel is None:
        front = {"name": "wave", "sample_rate": asked.sample_rate or draft.sample_rate}
        config = TASKS["generate"][0](
            frontend=front, seconds=asked.seconds or draft.seconds, clamp=draft.clamp, **common
        )
        return Imported(layout, "generate", config, weights, tuple(notes.values()))
    front = {"name": "wave", "sample_rate": mel.sample_rate}
    spec = {"name": "mel", **dataclasses.asdict(mel)}
    config = TASKS["vocode"][0](mel=spec, frontend=front, clamp=draft.clamp, **common)
    return Imported(layout, "vocode", config, weights, tuple(notes.values()))


def _planned(layout: str, plan: Plan, asked: Asked) -> Imported:
    """The plan with what was asked for."""
    config, notes = dict(plan.config), dict(plan.notes)
    discrete = config["process"]["name"] in DISCRETE
    for name in ("mel", "seconds") if discrete else ("schedule", "betas", "mel", "seconds"):
        if getattr(asked, name):
            raise InputError(f"a checkpoint of the layout {layout!r} has no {name}; leave --{name} away")
    for name in [name for name, said in vars(asked).items() if said]:
        notes.pop(name, None)
    if asked.sample_rate is not None:
        config |= _at_rate(config, asked.sample_rate)
    if asked.steps is not None:
        config["num_steps"] = asked.steps
    if discrete:
        config |= _chain(config, asked)
        if asked.betas or asked.steps or any(key.startswith("grid.") for key in asked.settings):
            notes.pop("grid", None)
    for key, value in asked.settings.items():
        notes.pop(key, None)
        config |= _changed(config, plan.task, key, value)
    if discrete:
        _require_steps(config)
    made = TASKS[plan.task][0](**config)
    return Imported(layout, plan.task, made, plan.weights, tuple(notes.values()))


def _at_rate(config: Mapping[str, Any], sample_rate: int) -> dict[str, Any]:
    """The front ends with this rate."""
    parts = {name: config[name] for name in ("frontend", "spectrum", "mel") if config.get(name)}
    found = {name: {**part, "sample_rate": sample_rate} for name, part in parts.items()}
    if config.get("latent"):  # an autoencoder inside has a front end of its own
        found["latent"] = {**config["latent"], **_at_rate(config["latent"], sample_rate)}
    return found


def _changed(config: Mapping[str, Any], task: str, key: str, value: Any) -> dict[str, Any]:
    """What one setting changes; one of the network (without a dot) has been followed when the network was made."""
    part, dot, name = key.partition(".")
    if not dot:
        return {}
    if part == "run":
        hints = typing.get_type_hints(TASKS[task][0])
        if name not in hints:
            raise InputError(f"--set {key}: unknown setting {name!r}; known: {', '.join(sorted(hints))}")
        require_type(value, hints[name], name)
        return {name: float(value) if hints[name] is float else value}
    if not isinstance(config.get(part), Mapping):
        parts = ", ".join(name for name, spec in config.items() if isinstance(spec, Mapping))
        raise InputError(f"--set {key}: this model has no part {part!r}; its parts are: {parts}")
    return {part: {**config[part], name: value}}


def _chain(config: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
    """Process, grid and number of steps of a plan with a trained chain, as asked for."""
    found: dict[str, Any] = {}
    if asked.schedule:
        found["process"] = asked.schedule.process(config["process"]["name"])
    if asked.betas:
        found |= {"grid": {"name": "levels", "betas": list(asked.betas)}, "num_steps": len(asked.betas)}
        _require_one_count(asked)
    elif asked.steps:
        found["grid"] = {"name": "trained"}
    return found


def _require_steps(config: dict[str, Any]) -> None:
    """Set num_steps to what a grid of fixed length has, and raise ValueError where no run could follow the grid."""
    grid = build("grid", GRIDS, config["grid"])
    config["num_steps"] = grid.length or config["num_steps"]
    grid.times(build("process", PROCESSES, config["process"]), config["num_steps"])


def _require_one_count(asked: Asked) -> None:
    if asked.steps not in (None, len(asked.betas)):
        raise InputError(f"--betas names {len(asked.betas)} steps and --steps {asked.steps}; give one of them")


def _process_and_run(draft: Draft, asked: Asked) -> dict[str, Any]:
    """The trained process, and the default run: the whole chain, some of its steps, or a short schedule."""
    schedule = asked.schedule or draft.schedule
    process = schedule.process()
    grid: dict[str, Any] = {"name": "levels", "betas": list(asked.betas)} if asked.betas else {"name": "trained"}
    num_steps = len(asked.betas) or asked.steps or schedule.num_steps
    if asked.betas:
        _require_one_count(asked)
    build("grid", GRIDS, grid).times(build("process", PROCESSES, process), num_steps)  # raises what no run could follow
    return {"process": process, "sampler": {"name": "ddpm"}, "grid": grid, "num_steps": num_steps}


def _mel(draft: Draft, asked: Asked) -> Mel | None:
    """The mel definition of a vocoder, with its hop and bands checked against the network's."""
    changes = {key.removeprefix("mel."): value for key, value in asked.settings.items() if key.startswith("mel.")}
    if draft.mel is None:
        if asked.mel or changes:
            raise InputError("this checkpoint takes no mel spectrogram; leave --mel and --set mel.KEY away")
        return None
    if asked.seconds is not None:
        raise InputError("this checkpoint is a vocoder, its mel says how long the sound is; leave --seconds away")
    if asked.mel is not None and asked.mel not in MELS:
        raise InputError(f"unknown mel {asked.mel!r}; choose one of: {', '.join(MELS)}")
    start = MELS[asked.mel] if asked.mel else draft.mel
    mel = build("mel", {"mel": Mel}, {"name": "mel", **dataclasses.asdict(start), **changes})
    if asked.sample_rate is not None:
        mel = dataclasses.replace(mel, sample_rate=asked.sample_rate)
    for what, own, other in (("hop", draft.mel.hop, mel.hop), ("n_mels", draft.mel.n_mels, mel.n_mels)):
        if own != other:
            raise InputError(f"the network was made for mels with {what} {own}, the definition asked for has {other}")
    return mel
