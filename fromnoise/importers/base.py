"""From a published checkpoint to a model folder's card and weights: what every layout shares.

A layout turns the published entries into a `Draft` (a DiffWave: a backbone's sizes, read from the shapes, and its
weights under our names) or into a `Plan` (any task: its whole configuration and weights). What no shape tells (the
dilation cycle, the noise schedule, the mel definition) comes, in this order, from what the user asked, from a
configuration (in the file or beside it), from the name of the published folder, and from the publication; each such
assumption becomes a note. `assemble` joins draft and requests to a task's configuration:

    draft with a mel input   -> "vocode",   the published process, noise prediction, the trained chain
    draft without            -> "generate", likewise
    plan                     -> its task, with the steps and settings that were asked for
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.backbones import BACKBONES
from fromnoise.frontends.mel import MELS, Mel
from fromnoise.importers.foreign import settings
from fromnoise.processes import PROCESSES
from fromnoise.samplers import GRIDS
from fromnoise.tasks import TASKS
from fromnoise.types import InputError, build, require_type

State = Mapping[str, Tensor]
MOST = 10_000  # layers of a network, steps of a training
PREFIX = "denoiser.backbone."  # of the backbone's names in a task's model


@dataclass(frozen=True)
class Asked:
    """What the user says beyond the file; what is empty or None is found out or assumed.

    settings: fields of the network, and of other parts as "mel.hop" or "process.theta". schedule: T and the last beta
    of training. betas: a short schedule that the default run follows. steps: so many evenly chosen trained steps
    instead. mel: a preset's name. sample_rate: Hz. seconds: of a generated sound. raw: the weights of the last step,
    also where the file holds averaged ones.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    schedule: "Schedule | None" = None
    betas: tuple[float, ...] = ()
    steps: int | None = None
    mel: str | None = None
    sample_rate: int | None = None
    seconds: float | None = None
    raw: bool = False


@dataclass(frozen=True)
class Clues:
    """What stands around the weights: the checkpoint's other entries, a configuration file, the path's names, and what
    the user says of the network."""

    path: Path
    content: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def trained_with(self) -> dict[str, Any]:
        """The plain part of the settings that a Lightning checkpoint keeps."""
        return settings(self.content.get("hyper_parameters", {}))

    def schedule(self) -> "Schedule | None":
        """The evenly spaced betas of the configuration, or of a folder such as ch64_T50_betaT0.05."""
        said = self.config.get("diffusion_config", {})
        if "T" in said and "beta_T" in said:
            first, last = number(said.get("beta_0", 1e-4), "beta_0"), number(said["beta_T"], "beta_T")
            return Schedule(whole(said["T"], "T"), last, first)
        match = self._named(r"_T(\d{1,6})_betaT(\d+(?:\.\d+)?(?:e-?\d+)?)")
        return Schedule(int(match[1]), float(match[2])) if match else None

    def length_and_hop(self) -> tuple[int, int] | None:
        """Samples of a training segment and of a mel frame, of a folder such as ..._L16000_hop256_cond."""
        match = self._named(r"_L(\d{1,6})_hop(\d{1,6})")
        return (int(match[1]), int(match[2])) if match else None

    def _named(self, pattern: str) -> re.Match[str] | None:
        found = (re.search(pattern, part) for part in reversed(self.path.absolute().parts))
        return next(filter(None, found), None)


@dataclass(frozen=True)
class Schedule:
    """The betas of a training: evenly spaced, or, where `betas` has any, those."""

    num_steps: int
    beta_max: float
    beta_min: float = 1e-4
    betas: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.num_steps <= MOST:
            raise InputError(f"expected 1 to {MOST} steps of training, got {self.num_steps}")

    def process(self) -> dict[str, Any]:
        """The spec of the process."""
        if self.betas:
            return {"name": "vp", "betas": list(self.betas)}
        return {"name": "vp", "num_steps": self.num_steps, "beta_min": self.beta_min, "beta_max": self.beta_max}


@dataclass
class Draft:
    """A network and what is known of its training. notes: setting -> what was assumed about it and why."""

    backbone: dict[str, Any]
    weights: dict[str, Tensor]
    schedule: Schedule
    mel: Mel | None = None
    sample_rate: int = 16000
    seconds: float = 1.0
    clamp: bool = False
    notes: dict[str, str] = field(default_factory=dict)


@dataclass
class Plan:
    """A model of any task: the fields of the task's configuration, the weights under the model's names, and notes:
    setting -> what was assumed about it and why."""

    task: str
    config: dict[str, Any]
    weights: dict[str, Tensor]
    notes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Imported:
    """A model: its task, the task's configuration, the weights under the model's names, and what was assumed.

    taken: which weights of the file these are.
    """

    layout: str
    task: str
    config: Any
    weights: dict[str, Tensor]
    notes: tuple[str, ...]
    files: tuple[Path, ...] = ()
    taken: str = "those of the file"

    def outline(self) -> nn.Module:
        """The model without memory."""
        with torch.device("meta"):
            return TASKS[self.task][1](self.config)

    @property
    def sample_rate(self) -> int:
        return self.config.frontend["sample_rate"]


@dataclass(frozen=True)
class Layout:
    """What the file of a layout offers. what: the publications in words.

    recognises: whether these are the layout's names. draft: sizes, weights under our names, and what is known of the
    training. export: the published entries of a network of ours (of a whole model, where the draft is a plan), which
    imported again give the same network. averaged: of layouts whose files hold averaged weights as a list without
    names, whether an entry is in that list; its order is that of the entries.
    """

    what: str
    recognises: Callable[[State], bool]
    draft: Callable[[State, Clues], Draft | Plan]
    export: Callable[[nn.Module], dict[str, Tensor]]
    averaged: Callable[[str], bool] | None = None


def entry(state: State, key: str, num_axes: int) -> tuple[int, ...]:
    """The shape of an entry. Raises InputError when it is missing or has another number of axes."""
    if key not in state:
        raise InputError(f"the checkpoint lacks the entry {key!r}; the file is incomplete or of a modified network")
    shape = tuple(state[key].shape)
    if len(shape) != num_axes or 0 in shape:
        raise InputError(f"the entry {key!r} has the shape {list(shape)}; expected {num_axes} axes, none empty")
    return shape


def count(state: State, pattern: str) -> int:
    """One more than the largest number that the group of `pattern` matches at a key's beginning; 0 without any."""
    numbers = [int(match[1]) for match in map(re.compile(pattern).match, state) if match]
    if max(numbers, default=0) >= MOST:
        raise InputError(f"an entry is number {max(numbers)} of its kind; expected fewer than {MOST}")
    return max(numbers, default=-1) + 1


def collect(state: State, names: Mapping[str, str]) -> dict[str, Tensor]:
    """The entries under our names. names: our name -> the published one. Raises InputError unless they are all."""
    lost = [published for published in names.values() if published not in state]
    if lost:
        raise InputError(
            f"the checkpoint lacks {len(lost)} entries, e.g. {lost[0]!r}; the file is incomplete or of a modified "
            "network"
        )
    foreign = sorted(state.keys() - set(names.values()))
    if foreign:
        raise InputError(
            f"the checkpoint holds {len(foreign)} entries that the published network has not, e.g. {foreign[0]!r}; "
            "it is of a modified network"
        )
    return {own: state[published] for own, published in names.items()}


def normed(own: str, published: str) -> dict[str, str]:
    """Our names of a weight-normed layer -> those of the old form of weight norm."""
    weight = f"{own}.parametrizations.weight.original"
    kinds = {f"{own}.bias": "bias", f"{weight}0": "weight_g", f"{weight}1": "weight_v"}
    return {key: f"{published}.{kind}" for key, kind in kinds.items()}


def plain(own: str, published: str) -> dict[str, str]:
    """Our names of a layer without weight norm -> the published ones."""
    return {f"{own}.{kind}": f"{published}.{kind}" for kind in ("weight", "bias")}


def schedule_of(clues: Clues, default: Schedule, notes: dict[str, str]) -> Schedule:
    """What anything says, or the publication's schedule, with a note."""
    found = clues.schedule()
    if found is None:
        notes["schedule"] = (
            f"trained on T={default.num_steps} steps, betas from 1e-4 to {default.beta_max:g}, as published for this "
            "kind; no configuration and no folder name such as ch64_T50_betaT0.05 says it (--schedule T,BETA_T)"
        )
    return found or default


def sound_of(draft: Draft, clues: Clues) -> None:
    """Write the sound's side into a draft of philsyn's and the fork's kind: the mel, or rate and length."""
    said = {key: value for key, value in clues.config.get("trainset_config", {}).items() if value is not None}
    bands, factors = draft.backbone["mel_bands"], draft.backbone["mel_upsample"]
    if not bands:
        draft.sample_rate = whole(said.get("sampling_rate", 16000), "sampling_rate")
        draft.seconds = number(said.get("segment_length", draft.sample_rate), "segment_length") / draft.sample_rate
        if "sampling_rate" not in said:
            draft.notes["sample_rate"] = "16000 Hz, as the published models of spoken digits (--sample-rate HZ)"
        if "segment_length" not in said:
            draft.notes["seconds"] = "sounds of one second, as those models (--seconds S)"
        return
    hop = math.prod(factors)
    named = clues.length_and_hop()
    if named is not None and named[1] != hop:
        raise InputError(f"the folder's name says a hop of {named[1]}, the mel upsampler of the checkpoint makes {hop}")
    fields = {"sampling_rate": "sample_rate", "filter_length": "n_fft", "hop_length": "hop", "win_length": "win"}
    window = 1024 if hop == 256 else 4 * hop
    mel: dict[str, Any] = {"n_mels": bands, "hop": hop, "n_fft": window, "win": window}
    mel |= {ours: whole(said[theirs], theirs) for theirs, ours in fields.items() if theirs in said}
    mel |= {ours: number(said[f"mel_{ours}"], ours) for ours in ("fmin", "fmax") if f"mel_{ours}" in said}
    if mel["hop"] != hop:
        raise InputError(
            f"the configuration says a hop of {mel['hop']}, the mel upsampler of the checkpoint makes {hop}"
        )
    draft.mel = dataclasses.replace(MELS["tacotron2-22k"], **mel)
    if "filter_length" not in said:
        draft.notes["mel"] = f"mels as tacotron2-22k, {bands} bands, hop {hop}, window {window}"


def whole(value: Any, what: str) -> int:
    """A whole number of a configuration."""
    require_type(value, int, what)
    return value


def number(value: Any, what: str) -> float:
    """A finite number of a configuration."""
    require_type(value, float, what)
    return float(value)


def schedule_from(betas: Sequence[float]) -> Schedule:
    """The schedule of a list of betas, in short where they are evenly spaced, as all published ones are."""
    count, first, last = len(betas), float(betas[0]), float(betas[-1])
    given, line = torch.tensor(betas, dtype=torch.float64), torch.linspace(first, last, count, dtype=torch.float64)
    is_even = torch.allclose(given, line, rtol=1e-9, atol=0)
    return Schedule(count, last, first, () if is_even else tuple(map(float, betas)))


def network_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Those without a dot, which are the network's."""
    return {key: value for key, value in given.items() if "." not in key}


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
    for name in ("schedule", "betas", "mel", "seconds"):
        if getattr(asked, name):
            raise InputError(f"a checkpoint of the layout {layout!r} has no {name}; leave --{name} away")
    config, notes = dict(plan.config), dict(plan.notes)
    if asked.sample_rate is not None:
        config["frontend"] = {**config["frontend"], "sample_rate": asked.sample_rate}
        notes.pop("sample_rate", None)
    if asked.steps is not None:
        config["num_steps"] = asked.steps
    for key, value in asked.settings.items():
        part, dot, field_name = key.partition(".")
        notes.pop(key if dot else part, None)
        if dot and not isinstance(config.get(part), Mapping):
            parts = ", ".join(name for name, spec in config.items() if isinstance(spec, Mapping))
            raise InputError(f"--set {key}: this model has no part {part!r}; its parts are: {parts}")
        if dot:
            config[part] = {**config[part], field_name: value}
    made = TASKS[plan.task][0](**config)
    return Imported(layout, plan.task, made, plan.weights, tuple(notes.values()))


def _process_and_run(draft: Draft, asked: Asked) -> dict[str, Any]:
    """The trained process, and the default run: the whole chain, some of its steps, or a short schedule."""
    schedule = asked.schedule or draft.schedule
    process = schedule.process()
    grid: dict[str, Any] = {"name": "levels", "betas": list(asked.betas)} if asked.betas else {"name": "trained"}
    num_steps = len(asked.betas) or asked.steps or schedule.num_steps
    if asked.betas and asked.steps not in (None, len(asked.betas)):
        raise InputError(f"--betas names {len(asked.betas)} steps and --steps {asked.steps}; give one of them")
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
