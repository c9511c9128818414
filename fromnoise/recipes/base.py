"""A recipe: one value that holds everything a training run decides, and the tree of plain values it is edited as.

The objects are the configuration: `Recipe(process=VP(1e-4, 0.05, 200), prediction=Noise(), ...)` reads like a paper's
table. A field that a model has is called as in the configuration of its task; a task sees only the fields that are its
own, and what belongs to another task is refused. `to_tree` writes a part as {"name": ..., field: value}, where the name
is that of its family's dict; `from_tree` is the border back, where every name, key and type is checked and an error
lists what may stand there.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from fromnoise.backbones import BACKBONES, ENCODERS
from fromnoise.conditioning import TEXTS
from fromnoise.data.clips import Clips
from fromnoise.data.latents import Latents
from fromnoise.data.mixtures import Mixtures
from fromnoise.data.paired import Paired
from fromnoise.data.separated import Separated
from fromnoise.data.synthetic import Synthetic, SyntheticVoices
from fromnoise.data.voices import Voices
from fromnoise.frontends import FRONTENDS, STFT, Mel
from fromnoise.objectives import TIMES, WEIGHTINGS, Objective, UniformTime, Unit
from fromnoise.predictions import PREDICTIONS
from fromnoise.processes import PROCESSES
from fromnoise.samplers import GRIDS, SAMPLERS
from fromnoise.tasks import TASKS
from fromnoise.tasks.classification import NETWORKS
from fromnoise.tasks.enhancement_model import REFINERS, SPECTRA
from fromnoise.tasks.losses import LOSSES
from fromnoise.tasks.source_losses import SOURCE_LOSSES, STRATEGIES, Ordered
from fromnoise.training.settings import Optimisation, TrainerSettings
from fromnoise.types import InputError, build, spec

DATA: dict[str, type] = {
    "mixtures": Mixtures,
    "paired": Paired,
    "synthetic": Synthetic,
    "clips": Clips,
    "latents": Latents,
    "separated": Separated,
    "voices": Voices,
    "synthetic_voices": SyntheticVoices,
}
GROUPS: dict[str, Mapping[str, type]] = {
    "frontend": FRONTENDS,
    "backbone": BACKBONES,
    "process": PROCESSES,
    "prediction": PREDICTIONS,
    "sampler": SAMPLERS,
    "grid": GRIDS,
    "generator": BACKBONES,
    "refiner": REFINERS,
    "spectrum": SPECTRA,
    "mel": {"mel": Mel},
    "network": NETWORKS,
    "text": TEXTS,
    "encoder": ENCODERS,
    "times": TIMES,
    "weighting": WEIGHTINGS,
    "loss": LOSSES,
    "strategy": STRATEGIES,
    "source_loss": SOURCE_LOSSES,
    "data": DATA,
}
OPTIONAL = ("generator", "refiner", "spectrum", "loss", "source_loss", "text", "latent")
VERBS = {"refine": "enhance"}
"""What is trained -> whose model it is, where that is not the same word."""
_DRAWN = ("times", "weighting", "norm")
TRAINED_WITH: dict[str, tuple[str, ...]] = {
    "enhance": (*_DRAWN, "loss", "drop_state", "mask_padding"),
    "refine": (*_DRAWN, "loss", "drop_state", "mask_padding", "refine_on", "through"),
    "vocode": _DRAWN,
    "generate": (*_DRAWN, "drop_label"),
    "autoencode": _DRAWN,
    "upsample": _DRAWN,
    "classify": (),
    "separate": (*_DRAWN, "strategy", "source_loss"),
}
"""What is trained -> the fields of its training that are no part of the model."""


@dataclasses.dataclass(frozen=True)
class Init:
    """From where weights come before the first step, per part: a model folder, a run folder or a checkpoint."""

    backbone: str = ""
    generator: str = ""
    refiner: str = ""
    autoencoder: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A complete run. See the configuration of each task (`TASKS`) for the model's fields and `Objective` for times,
    weighting and norm.

    task: "enhance", "separate", "vocode", "upsample" and "generate" train the backbone, "autoencode" that and its
    encoder, "refine" an enhancer's refiner on what the finished model gives, "classify" the network. loss: on the
    estimate of x0 in place of the objective's own, None for that; source_loss: the same for sources; strategy: see
    `fromnoise.tasks.source_losses`. drop_label: share of items whose label or text is hidden in training. scores:
    metrics of validation. logger: beside CSV. init: where weights come from. drop_state: see `Objective`. mask_padding:
    what fills short recordings counts neither in the loss nor in the level. refine_on, through: see
    `EnhancementModel.refinement_loss`. folder: the run folder, by default runs/<recipe>/<date>.
    """

    name: str
    task: Literal["enhance", "refine", "vocode", "generate", "classify", "separate", "autoencode", "upsample"] = (
        "enhance"
    )
    seed: int = 0
    frontend: Any = dataclasses.field(default_factory=STFT)
    mel: Any = None
    backbone: Any = None
    network: Any = None
    process: Any = None
    prediction: Any = None
    sampler: Any = None
    grid: Any = None
    num_steps: int | None = None
    start: Literal["prior", "condition", "noisy"] = "prior"
    generator: Any = None
    guidance: float = 0.0
    guidance_rule: Literal["constant", "zeta"] = "constant"
    guidance_level: Literal["left", "reached"] = "left"
    refiner: Any = None
    refine_with_noisy: float = 0.5
    shifts: int = 1
    unit: Literal["rms", "peak", "none"] = "rms"
    frame_multiple: int = 1
    frame_padding: Literal["zero", "reflection", "replication"] = "zero"
    leads_to: Literal["noisy", "generator"] = "noisy"
    condition: Literal["generator", "noisy", "both"] = "generator"
    joint: float = 0.0
    spectrum: Any = None
    keep_noisy: float = 0.0
    sources: int = 2
    names: tuple[str, ...] = ()
    level: Literal["none", "local"] = "none"
    level_window: int = 510
    consistent: bool = False
    levels: Literal["sum", "match", "none"] = "sum"
    center: bool = True
    prior: Literal["unit", "energy"] = "unit"
    loudest: float = 4.0
    observation: Literal["none", "mel"] = "none"
    clamp: bool = False
    labels: tuple[str, ...] = ()
    label_dim: int = 128
    text: Any = None
    latent: Any = None
    duration: bool = False
    encoder: Any = None
    segment: float = 0.0
    factor: int = 4
    splits: int = 0
    guidance_scale: float = 1.0
    guidance_rescale: float = 0.0
    seconds: float = 1.0
    drop_label: float = 0.0
    decibels: float = 80.0
    chance: float = 0.5
    gain: tuple[float, ...] = (0.7, 1.1)
    speed: float = 0.2
    stretch: float = 0.2
    shift: int = 8
    noise: float = 0.45
    times: Any = dataclasses.field(default_factory=UniformTime)
    weighting: Any = dataclasses.field(default_factory=Unit)
    norm: Literal["l2", "l1"] = "l2"
    drop_state: float = 0.0
    mask_padding: bool = False
    refine_on: tuple[Literal["mixed", "generated", "noisy"], ...] = ("mixed",)
    through: bool = False
    loss: Any = None
    strategy: Any = dataclasses.field(default_factory=Ordered)
    source_loss: Any = None
    data: Any
    scores: tuple[str, ...] = ("si_sdr",)
    optimisation: Optimisation
    trainer: TrainerSettings
    init: Init = dataclasses.field(default_factory=Init)
    logger: Literal["tensorboard", "wandb", "csv"] = "tensorboard"
    folder: str = ""
    model_name: str = ""
    licence: str = "not stated: it follows from the training data"

    @property
    def verb(self) -> str:
        """Whose model this is, a key of `TASKS`."""
        return verb_of(self.task)

    @property
    def sample_rate(self) -> int:
        """The rate in Hz of the waves that the model takes or gives."""
        return (self.frontend if "frontend" in fields_of(self.task) else self.mel).sample_rate

    def model_config(self) -> Any:
        """The model's part, as a card stores it. Raises InputError for what this task lacks or does not have."""
        own = fields_of(self.task)
        _require_given(self.task, {name: getattr(self, name) for name in own})
        for field in dataclasses.fields(self):
            if field.name not in own and getattr(self, field.name) != _default(field):
                raise InputError(f"task={self.task} has no {field.name}; leave it out of {self.name}")
        config = TASKS[self.verb][0]
        names = [field.name for field in dataclasses.fields(config)]
        return config(**{n: _spec(n, getattr(self, n)) if n in GROUPS else getattr(self, n) for n in names})

    def objective(self) -> Objective:
        """What is drawn in training."""
        return Objective(self.times, self.weighting, self.norm, self.drop_state)


def verb_of(task: str) -> str:
    """The key of `TASKS` for what is trained."""
    return VERBS.get(task, task)


def fields_of(task: str) -> list[str]:
    """The fields of a recipe for `task`, in order: what every run has, what the model has, what its training has."""
    if task not in TRAINED_WITH:
        raise InputError(f"task must be one of {', '.join(TRAINED_WITH)}, got {task!r}")
    own = {field.name for field in dataclasses.fields(TASKS[verb_of(task)][0])} | {*TRAINED_WITH[task]}
    others = {field.name for config, *_ in TASKS.values() for field in dataclasses.fields(config)}
    others |= {name for names in TRAINED_WITH.values() for name in names}
    return [field.name for field in dataclasses.fields(Recipe) if field.name in own or field.name not in others]


def _default(field: Any) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _require_given(task: str, values: Mapping[str, Any]) -> None:
    """Raises InputError unless everything without a default is there."""
    needed = [f.name for f in dataclasses.fields(Recipe) if f.name in fields_of(task) and f.name not in OPTIONAL]
    missing = [
        f.name
        for f in dataclasses.fields(Recipe)
        if f.name in needed and _default(f) in (None, dataclasses.MISSING) and values.get(f.name) is None
    ]
    if missing:
        raise InputError(f"a recipe needs {', '.join(missing)}; set it by {missing[0]}=VALUE")


def nested(group: str, part: Any) -> dict[str, Any]:
    """A part as the setting of another part: all its fields as plain values, to be changed one by one."""
    return _plain(spec(GROUPS[group], part))


def _spec(group: str, part: Any) -> dict[str, Any] | None:
    return None if part is None else spec(GROUPS[group], part)


def to_tree(recipe: Recipe) -> dict[str, Any]:
    """The fields of its task as nested plain values, lists for tuples."""
    tree = {}
    for name in fields_of(recipe.task):
        value = getattr(recipe, name)
        if name in GROUPS:
            value = _spec(name, value)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = dataclasses.asdict(value)
        tree[name] = _plain(value)
    return tree


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def from_tree(tree: Mapping[str, Any]) -> Recipe:
    """The recipe that a tree describes; what is left out has its default. Raises InputError for what does not fit."""
    task = str(tree.get("task", "enhance"))
    every = typing.get_type_hints(Recipe)
    hints = {name: every[name] for name in fields_of(task)}
    _require_known("", tree, hints)
    values: dict[str, Any] = {}
    for key, value in tree.items():
        if key in GROUPS:
            values[key] = None if value is None and key in OPTIONAL else _part(key, value)
        else:
            values[key] = convert(value, hints[key], key)
    _require_given(task, values)
    return Recipe(**values)


def _part(group: str, value: Any) -> Any:
    """A part of a family, every field converted to its type first."""
    choices = GROUPS[group]
    if isinstance(value, Mapping) and value.get("name") in choices:
        part = choices[value["name"]]
        hints = typing.get_type_hints(part) | {"name": str}
        fields = {field.name for field in dataclasses.fields(part)}
        _require_known(group, value, {"name": str} | {name: hints[name] for name in hints if name in fields})
        value = {key: convert(inner, hints[key], f"{group}.{key}") for key, inner in value.items()}
    return build(group, choices, value)


def _require_known(where: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for key in given:
        if key not in known:
            choices = ", ".join(name for name in known if name != "name")
            raise InputError(f"{where or 'a recipe'} has no setting {key!r}; choose one of: {choices}")


_WORDS = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}


def convert(value: Any, hint: Any, where: str) -> Any:
    """The value as the type that `hint` asks for. Raises InputError that says what was expected and what came."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return convert(value, next(a for a in arguments if a is not type(None)), where)
    if origin is Literal:
        if value not in arguments:
            raise InputError(f"{where} must be one of {', '.join(map(str, arguments))}, got {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise InputError(f"{where} must be a list like [a,b], got {value!r}")
        return tuple(convert(inner, arguments[0], f"{where}[{i}]") for i, inner in enumerate(value))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        hints = typing.get_type_hints(hint)
        if not isinstance(value, Mapping):
            raise InputError(f"{where} must hold settings like {where}.{next(iter(hints))}=..., got {value!r}")
        _require_known(where, value, hints)
        return hint(**{key: convert(inner, hints[key], f"{where}.{key}") for key, inner in value.items()})
    return _scalar(value, hint, where)


def _scalar(value: Any, hint: Any, where: str) -> Any:
    if hint not in _WORDS:
        return value
    if hint is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if hint is int and type(value) is float and value.is_integer():
        return int(value)  # 1e3 is a float to Hydra
    if type(value) is not hint or hint is float:
        raise InputError(f"{where} must be {_WORDS[hint]}, got {value!r}")
    return value
