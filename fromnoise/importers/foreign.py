"""Checkpoints whose pickles name classes of other projects, read without those classes and without running anything.

torch's weights-only reader makes tensors and plain values, and refuses every other name in the file. Here each such
name is first given a stand-in: a class of ours that keeps what it is called with or filled with, and does nothing. So
the tensors beside a trainer's settings can be read, and so can the settings themselves where they are plain underneath:

    an OmegaConf tree   DictConfig, ListConfig: `_content`; a leaf: `_val`; "${a.b}" is looked up from the root
    a class, a path, a function's result          None

Nothing in `sys`, `os`, `posix` and `nt` is read even so: such a file is refused.
"""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fromnoise import hub
from fromnoise.types import InputError

DEPTH = 32  # of nested settings
DICTIONARIES = ("defaultdict", "AttributeDict")  # of trainers: what is put into them is put into a plain one


class StandIn:
    """In place of an object of an unknown class: what it was made from, and what was put into it."""

    def __new__(cls, *given: Any) -> Any:
        made = object.__new__(cls)
        made.given, made.state = given, None
        return made

    def __init__(self, *given: Any) -> None:
        self.given: tuple[Any, ...]
        self.state: Any

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Dictionary:
    """In place of a subclass of dict: a plain one."""

    def __new__(cls, *given: Any) -> Any:
        return {}


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, with stand-ins for foreign objects. Raises InputError where nothing can be read."""
    hub.require_not_a_pointer(path)
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError):
        names = []  # the reader below says what is wrong
    stand_ins: list[Any] = [(_stand_in(name), name) for name in names]
    with torch.serialization.safe_globals(stand_ins):
        content = hub.read_checkpoint(path)
    if names and not any(_holds_tensors(value) for value in [content, *content.values()]):
        raise InputError(
            f"{path} cannot be read as a checkpoint of tensors (it names {names[0]}); it is damaged, or holds code, "
            "which is never run"
        )
    return content


def _stand_in(name: str) -> type:
    last = name.rpartition(".")[2]
    return type(last, (Dictionary if last in DICTIONARIES else StandIn,), {})


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(inner, Tensor) for inner in value.values())


def settings(value: Any) -> dict[str, Any]:
    """The plain settings of a checkpoint's entry; empty where it has none."""
    tree = _plain(value)
    return tree if isinstance(tree, dict) else {}


def _plain(value: Any, depth: int = 0, inside: bool = False) -> Any:
    """What is plain of it; None for the rest. inside: of a tree of settings, whose references its root resolves."""
    if depth > DEPTH:
        return None
    if isinstance(value, StandIn):
        state = value.state if isinstance(value.state, Mapping) else {}
        tree = _plain(state.get("_content", state.get("_val")), depth + 1, True)
        return tree if inside else _resolved(tree, tree, 0)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, depth + 1, inside) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, depth + 1, inside) for inner in value]
    if isinstance(value, Tensor):
        return value.item() if value.numel() == 1 else None
    return value if isinstance(value, str | int | float | bool) else None


def _resolved(value: Any, root: Any, depth: int) -> Any:
    """The same with the value that "${a.b}" names in its place; None where it names nothing."""
    if depth > DEPTH:
        return None
    if isinstance(value, dict):
        return {key: _resolved(inner, root, depth + 1) for key, inner in value.items()}
    if isinstance(value, list):
        return [_resolved(inner, root, depth + 1) for inner in value]
    match = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
    if match is None:
        return value
    found = root
    for key in match[1].split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return _resolved(found, root, depth + 1)
