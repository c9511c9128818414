"""Types that every room shares: the condition bundle, the user's errors, and the border where a name becomes an object.

A part (process, prediction, sampler, grid, frontend, backbone configuration) is a frozen dataclass with working
defaults. Its *spec* is a plain mapping `{"name": ..., field: value}` as a card or a recipe holds it; `build` turns the
mapping into the object and `spec` turns it back. Nothing here evaluates text or imports by path.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


class InputError(ValueError):
    """Input that cannot be used: a file, a recording, a card. The message says what was expected, what came, what to do."""


@dataclasses.dataclass(frozen=True)
class Condition:
    """What a backbone is told besides the state x_t and the time. Every field is optional.

    signal: in the layout of x (batch first, time last), e.g. the noisy spectrogram.
    frames: `b m t`, features at their own frame rate, e.g. a mel spectrogram.
    context: `b l d`, a sequence to attend to, e.g. text embeddings; mask: `b l`, True where context is real.
    vector: `b d`, one embedding for the whole item, e.g. a class.
    """

    signal: Tensor | None = None
    frames: Tensor | None = None
    context: Tensor | None = None
    mask: Tensor | None = None
    vector: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> "Condition":
        """Apply `function` to every tensor that is present."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return Condition(**{k: None if v is None else function(v) for k, v in values.items()})


def expand(weight: Tensor, like: Tensor) -> Tensor:
    """Append axes to a per-item weight `b` until it broadcasts over `like` (`b ...`), in the dtype of `like`."""
    return weight.to(like.dtype).reshape(weight.shape + (1,) * (like.ndim - weight.ndim))


def build(kind: str, choices: Mapping[str, type], given: Mapping[str, Any]) -> Any:
    """The object that a spec names.

    kind: the word for messages ("process"). choices: name -> frozen dataclass. given: `{"name": ..., field: value}`.
    Raises InputError for an unknown name or field, or a value of the wrong type, and lists what may stand there.
    """
    if not isinstance(given, Mapping):
        raise InputError(f"expected a {kind} as a mapping with a 'name', got {type(given).__name__}")
    fields = dict(given)
    name = fields.pop("name", None)
    if name not in choices:
        raise InputError(f"unknown {kind} {name!r}; choose one of: {', '.join(sorted(choices))}")
    part = choices[name]
    known = {f.name: f for f in dataclasses.fields(part) if f.init}
    for key, value in fields.items():
        if key not in known:
            raise InputError(f"{kind} {name!r} has no setting {key!r}; it has: {', '.join(known) or 'none'}")
        fields[key] = tuple(value) if isinstance(value, list) else value
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{kind} {name!r}: {key} must be a finite number, got {value}")
    try:
        return part(**fields)
    except (TypeError, AssertionError) as error:
        raise InputError(f"{kind} {name!r} cannot be made from {fields}: {error}") from error


def spec(choices: Mapping[str, type], part: Any) -> dict[str, Any]:
    """The spec that `build` turns back into `part`. Raises ValueError when its class is not in `choices`."""
    for name, choice in choices.items():
        if type(part) is choice:
            return {"name": name} | {f.name: getattr(part, f.name) for f in dataclasses.fields(part) if f.init}
    raise ValueError(f"{type(part).__name__} is not one of: {', '.join(choices)}")


def require_finite(x: Tensor, what: str) -> Tensor:
    """x itself; raises InputError when it holds NaN or infinity."""
    if not bool(torch.isfinite(x).all()):
        raise InputError(f"{what} holds NaN or infinite samples; expected finite numbers: repair or re-export it")
    return x
