"""Types that every room shares: the condition bundle, the user's errors, and the border where a name becomes an object.

A part (process, prediction, sampler, grid, frontend, backbone configuration) is a frozen dataclass with working
defaults. Its *spec* is a plain mapping `{"name": ..., field: value}` as a card or a recipe holds it; `build` turns the
mapping into the object and `spec` turns it back. Nothing here evaluates text or imports by path.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor


class InputError(ValueError):
    """Input that cannot be used: a file, a recording, a card. It says what was expected, what came and what to do."""


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
    known = [f.name for f in dataclasses.fields(part) if f.init]
    hints = typing.get_type_hints(part)
    for key, value in fields.items():
        if key not in known:
            raise InputError(f"{kind} {name!r} has no setting {key!r}; it has: {', '.join(known) or 'none'}")
        require_type(value, hints[key], f"{kind} {name!r}: {key}")
        fields[key] = tuple(value) if isinstance(value, list) else value
    try:
        return part(**fields)
    except (TypeError, AssertionError) as error:
        raise InputError(f"{kind} {name!r} cannot be made from {fields}: {error}") from error


def require_type(value: Any, hint: Any, where: str) -> None:
    """Raises InputError unless a plain value may stand where `hint` is declared; see `_fits`."""
    if not _fits(value, hint):
        raise InputError(f"{where} must be {_words(hint)}, got {value!r:.80}")


def _fits(value: Any, hint: Any) -> bool:
    """Numbers must be finite, a whole number passes for a float, a list for a tuple; other hints take anything."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is Literal:
        return value in arguments
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_fits(inner, arguments[0]) for inner in value)
    if origin is Mapping:
        return isinstance(value, Mapping)
    if hint in (int, float):
        kinds = (int, float) if hint is float else int
        return isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, hint) if hint in (str, bool, types.NoneType) else True


def _words(hint: Any) -> str:
    """A hint for people."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(argument) for argument in arguments)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is tuple:
        return f"a list, each {_words(arguments[0])}"
    if origin is Mapping:
        return "a mapping with a 'name'"
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", types.NoneType: "nothing"}
    return words.get(hint, "something else")


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
