"""What the runner has to know of a model: its run as a program, its settings, and how its network is called.

One function a task. A configuration that asks for what the runner does not do is an InputError that names it.
"""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fromnoise.backbones.spectral import Spectral
from fromnoise.denoiser import Denoiser
from fromnoise.export.tape import Given, Recorded, Settling, Tape
from fromnoise.frontends.mel import filterbank
from fromnoise.tasks.base import Run
from fromnoise.tasks.enhancement import Enhancer
from fromnoise.tasks.generation import Generator
from fromnoise.tasks.separation import Separator
from fromnoise.tasks.vocoding import Vocoder
from fromnoise.types import Condition, InputError

FRONTENDS = ("wave", "stft", "magnitude")


@dataclass(frozen=True)
class Called:
    """A network as it is called: examples of x and of what it is told, batch first, for tracing."""

    network: nn.Module
    x: Tensor
    told: Mapping[str, Tensor]


@dataclass(frozen=True)
class Plan:
    """All that goes into a folder. networks: by role. runs: programs by name. tables: arrays."""

    networks: Mapping[str, Called]
    runs: Mapping[str, Any]
    settings: Mapping[str, Any]
    tables: Mapping[str, np.ndarray] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


def plan(ready: Any, steps: int | None = None, sampler: str | None = None, guidance: int | float | None = None) -> Plan:
    """The plan of a ready model. Raises InputError for one that the runner cannot run."""
    config = ready.model.config
    if ready.task not in PLANS:
        raise InputError(
            f"the model {ready.name!r} is for the task {ready.task!r}, which has no exported runner; there is one for: "
            f"{', '.join(PLANS)}"
        )
    if guidance is not None and ready.task != "generate":
        raise InputError(f"--guidance is for generators, and {ready.name!r} is for the task {ready.task!r}")
    if config.frontend["name"] not in FRONTENDS:
        raise InputError(
            f"the runner has the front ends {', '.join(FRONTENDS)}; {ready.name!r} needs {config.frontend['name']!r}"
        )
    return PLANS[ready.task](ready, ready.model.default_run(steps, sampler), guidance)


def recorded(model: Any, run: Run, inputs: int, axes: int = 1, waves: bool = False) -> tuple[Any, Tape, Run]:
    """A copy of the model whose networks write on a tape, the tape, and the run that settles its states there."""
    tape = Tape(inputs, 16 + 6 * (run.num_steps + run.sampler.evaluations(run.num_steps)), axes, waves)
    shadow = copy.copy(model)
    shadow._modules = dict(model._modules)
    shadow.denoiser = Denoiser(Recorded(tape), model.process, model.denoiser.prediction)
    if getattr(model, "generator", None) is not None:
        shadow.generator = Given(tape, 1)
    return shadow, tape, dataclasses.replace(run, sampler=Settling(run.sampler, tape))


def require_known(config: Any, known: set[str], name: str) -> None:
    """Raises InputError for settings beyond these that are not as by default."""
    parts = {"frontend", "backbone", "process", "prediction", "sampler", "grid", "num_steps"}
    default = type(config)()
    fields = [f.name for f in dataclasses.fields(config)]
    others = [f for f in fields if f not in known | parts and getattr(config, f) != getattr(default, f)]
    if others:
        raise InputError(f"the exported runner cannot do what {name!r} asks for by: {', '.join(others)}")


def enhance_plan(ready: Enhancer, run: Run, guidance: int | float | None) -> Plan:
    model, config = ready.model, ready.model.config
    known = {"generator", "refiner", "start", "guidance", "refine_with_noisy", "shifts", "unit", "frame_multiple"}
    known |= {
        "frame_padding",
        "leads_to",
        "condition",
        "joint",
        "guidance_rule",
        "guidance_level",
        "clamp",
        "keep_noisy",
    }
    require_known(config, known, ready.name)
    shadow, tape, settling = recorded(model, run, 2)
    with tape, torch.no_grad():
        x = shadow.sample(tape.value(0), tape.noise, settling)
        program = tape.finished(x)
    calls = run.sampler.evaluations(run.num_steps)
    like = _frames(model.frontend, 2 * config.frame_multiple, 64)
    pairs = {"both": torch.cat([like, like], 1)}
    networks = {"network": Called(model.denoiser.backbone, like, {"signal": pairs.get(_told(config), like)})}
    for role in ("generator", "refiner"):
        network = getattr(model, role)
        if network is not None:
            networks[role] = Called(network, like, {"signal": like})
    names = ("shifts", "unit", "frame_multiple", "frame_padding", "condition", "refine_with_noisy")
    extra = (model.generator is not None) + (model.refines is not None)
    settings = {name: getattr(config, name) for name in names}
    settings |= {"context": ready.context(calls + extra), "align": ready.align}
    settings |= {"reuses_generator": model.reuses_generator}
    return Plan(networks, {"default": program}, settings)


def _told(config: Any) -> str:
    return config.condition if config.generator else "noisy"


def _frames(front: Any, multiple: int, least: int) -> Tensor:
    """Two items of noise as the network sees them, of `least` frames or the next multiple."""
    frames = -(-least // multiple) * multiple
    shape = (2, *front.shape(1, max((frames - 1) * front.hop, 1))[:-1], frames)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def separate_plan(ready: Separator, run: Run, guidance: int | float | None) -> Plan:
    model, config = ready.model, ready.model.config
    known = {"sources", "names", "level", "level_window", "consistent", "levels", "center", "shifts"}
    require_known(config, known, ready.name)
    shadow, tape, settling = recorded(model, run, 1, config.sources, waves=True)
    with tape, torch.no_grad():
        y = tape.value(0)
        x = model.process.prior(y, tape.noise(y))
        times = run.grid.times(model.process, run.num_steps)
        denoise = shadow.estimator(torch.ones(1, 1, tape.size, dtype=torch.float64), y)
        program = tape.finished(settling.sampler.sample(denoise, model.process, x, times, y, tape.noise))
    backbone, spectral = model.denoiser.backbone, None
    waves = torch.randn(2, config.sources + 1, 16384, generator=torch.Generator().manual_seed(0))
    x, told, network = waves[:, 1:], waves[:, :1], backbone
    if isinstance(backbone, Spectral):
        inside = backbone.config
        spectral = {"stft": _plain(inside.front), "multiple": inside.multiple, "tail": inside.tail}
        x, told, network = backbone.encode(x), backbone.encode(told), backbone.network
    calls = run.sampler.evaluations(run.num_steps)
    names = ("level", "level_window", "levels", "center")
    settings = {name: getattr(config, name) for name in names}
    settings |= {"names": list(ready.names), "delays": model.delays, "spectral": spectral}
    settings |= {"degree": model.denoiser.prediction.degree, "context": ready.context(calls * len(model.delays))}
    return Plan({"network": Called(network, x, {"signal": told})}, {"default": program}, settings)


def vocode_plan(ready: Vocoder, run: Run, guidance: int | float | None) -> Plan:
    model, config = ready.model, ready.model.config
    require_known(config, {"mel", "observation", "clamp", "loudest"}, ready.name)
    shadow, tape, settling = recorded(model, run, 1)
    with tape, torch.no_grad():
        y = tape.value(0) if config.observation == "mel" else None
        x = model.process.prior(y, tape.noise(tape.value(0)))
        times = run.grid.times(model.process, run.num_steps)
        keep = (lambda x, i, t, s: x.clamp(-1, 1)) if config.clamp else None
        denoise = shadow.denoiser.bind(y, Condition())
        program = tape.finished(settling.sampler.sample(denoise, model.process, x, times, y, tape.noise, None, keep))
    frames, hop = 64, model.mel.hop
    n = frames * hop if model.frontend.hop == 1 else (frames - 1) * hop
    random = torch.Generator().manual_seed(0)
    x = torch.randn((2, *model.frontend.shape(1, n)), generator=random)
    told = torch.randn(2, model.mel.n_mels, frames, generator=random)
    calls = run.sampler.evaluations(run.num_steps)
    settings = {"context": ready.context(calls), "align": ready.align, "observation": config.observation}
    return Plan(
        {"network": Called(model.denoiser.backbone, x, {"frames": told})},
        {"default": program},
        settings,
        {"filterbank": np.array(filterbank(model.mel))},
        {"mel": _plain(model.mel)},
    )


def generate_plan(ready: Generator, run: Run, guidance: int | float | None) -> Plan:
    model, config = ready.model, ready.model.config
    require_known(config, {"labels", "label_dim", "guidance_scale", "seconds", "clamp"}, ready.name)
    runs = {"default": _generated(model, run, 0 if model.labels else -1, guidance)}
    tables: dict[str, np.ndarray] = {}
    told: dict[str, Tensor] = {}
    if model.embedding is not None:
        runs["free"] = _generated(model, run, -1, guidance)
        with torch.no_grad():
            rows = model.embedding(torch.tensor([*range(len(model.labels)), -1]))
        tables["labels"] = rows.numpy()
        told["vector"] = rows[:2].clone()
    settings = {"labels": list(model.labels), "seconds": config.seconds}
    like = _frames(model.frontend, 1, 64 if model.frontend.hop > 1 else 4096)
    return Plan({"network": Called(model.denoiser.backbone, like, told)}, runs, settings, tables)


def _generated(model: Any, run: Run, label: int, guidance: int | float | None) -> dict[str, Any]:
    """The run for a label, -1 for none."""
    shadow, tape, settling = recorded(model, run, 0)
    with tape, torch.no_grad():
        x = model.process.prior(None, tape.noise(tape.value(0)))
        x = shadow.sample(x, torch.tensor([label]), tape.noise, settling, guidance)
        program = tape.finished(x)
    scale = model.config.guidance_scale if guidance is None else guidance
    both = ["label", "none"]
    return program | {"told": both[1:] if label < 0 or scale == 0 else both[:1] if scale == 1 else both}


def _plain(part: Any) -> dict[str, Any]:
    return {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}


PLANS: dict[str, Callable[[Any, Run, int | float | None], Plan]] = {
    "enhance": enhance_plan,
    "separate": separate_plan,
    "vocode": vocode_plan,
    "generate": generate_plan,
}
