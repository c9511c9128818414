"""What every layout of published checkpoints shares; `assemble` makes the model of it.

A layout turns the published entries into a `Draft` (a DiffWave: a backbone's sizes, read from the shapes, and its
weights under our names) or into a `Plan` (any task: its whole configuration and weights). What no shape tells (the
dilation cycle, the noise schedule, the mel definition) comes, in this order, from what the user asked, from a
configuration (in the file or beside it), from the name of the published folder, and from the publication; each such
assumption becomes a note.
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

from fromnoise.frontends.mel import MELS, Mel
from fromnoise.importers.foreign import settings
from fromnoise.tasks import TASKS
from fromnoise.types import InputError, require_type

State = Mapping[str, Tensor]
MOST = 10_000  # layers of a network, steps of a training
PREFIX = "denoiser.backbone."  # of the backbone's names in a task's model


@dataclass(frozen=True)
class Asked:
    """What the user says beyond the file; what is empty or None is found out or assumed.

    settings: fields of the network, of other parts as "mel.hop" or "process.theta", and of the whole model (where the
    layout gives a plan) as "run.guidance". schedule: T and the last beta of training. betas: a short schedule that the
    default run follows. steps: so many evenly chosen trained steps instead. mel: a preset's name. sample_rate: Hz.
    seconds: of a generated sound. raw: the weights of the last step, also where the file holds averaged ones.
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
    """What stands around the weights: the checkpoint's other entries, a configuration file, the path's names, what the
    user says of the network and its training, and the weights of the model's other networks where they are files of
    their own. raw: whether the user wants the weights of the last step rather than averaged ones."""

    path: Path
    content: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, State] = field(default_factory=dict)
    told: "Schedule | None" = None
    raw: bool = False

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

    def process(self, name: str = "vp") -> dict[str, Any]:
        """The spec of the process."""
        if self.betas:
            return {"name": name, "betas": list(self.betas)}
        return {"name": name, "num_steps": self.num_steps, "beta_min": self.beta_min, "beta_max": self.beta_max}


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

    files: the checkpoint, or those that were averaged; parts: of the model's other networks. taken: which weights of
    the file these are.
    """

    layout: str
    task: str
    config: Any
    weights: dict[str, Tensor]
    notes: tuple[str, ...]
    files: tuple[Path, ...] = ()
    parts: Mapping[str, Path] = field(default_factory=dict)
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
    names, whether an entry is in that list; its order is that of the entries. claims: of layouts whose names another
    one has too, whether the checkpoint's other entries say that it is this one. parts: of layouts with a file for each
    network, a network of the model -> its file ("": the first one's). whole: whether `export` takes the model, not its
    network. others: the entries of a whole model's networks but the first, by the keys of `parts`. wrapper: under which
    the file holds the entries.
    """

    what: str
    recognises: Callable[[State], bool]
    draft: Callable[[State, Clues], Draft | Plan]
    export: Callable[[nn.Module], dict[str, Tensor]]
    averaged: Callable[[str], bool] | None = None
    claims: Callable[[Mapping[str, Any]], bool] | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    whole: bool = False
    others: Callable[[nn.Module], dict[str, dict[str, Tensor]]] = lambda model: {}
    wrapper: str = "model_state_dict"


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
