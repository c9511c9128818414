"""A network as a file: ONNX by torch's exporter, or a program of `torch.export` (.pt2), for any batch and any length.

    out = network(x, t, signal | frames | vector ...)          what the condition holds, by name

Both come from one trace, in which torch decides which sizes may vary; `differences` proves that they do, by calling
the file with sizes that were not traced.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fromnoise.export.plans import Called
from fromnoise.types import Condition, InputError

FORMATS = {"onnx": ".onnx", "torch": ".pt2"}
CHANGING = ("signal", "frames")  # what has the time axis that x has


class Plain(nn.Module):
    """A backbone whose condition is a list of tensors."""

    def __init__(self, network: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, x: Tensor, t: Tensor, *told: Tensor) -> Tensor:
        """Tensor like x."""
        return self.network(x, t, Condition(**dict(zip(self.names, told, strict=True))))


def traced(called: Called, what: str) -> tuple[ExportedProgram, int | None]:
    """The network's graph, and the number of items that it takes, None for any.

    Raises InputError where torch cannot make a graph, or only one for a fixed length.
    """
    try:
        items, program = None, _traced(called, len(called.x))
        if any(_is_fixed(size[0]) for size in _sizes(program, called).values()):  # it became a number on the way
            items, program = 1, _traced(called, 1)
    except Exception as error:
        raise InputError(
            f"{what}: torch cannot trace this network ({_first_line(error)}); it can only be used by fromnoise itself"
        ) from error
    if any(_is_fixed(size[-1]) for name, size in _sizes(program, called).items() if name in ("x", *CHANGING)):
        raise InputError(
            f"{what}: this network can be traced for one length only; it can only be used by fromnoise itself"
        )
    return program, items


def _traced(called: Called, items: int) -> ExportedProgram:
    """Traced as in training, but for norms: networks may take other ways where no gradients are asked for."""
    module = Plain(called.network, tuple(called.told)).eval()
    batch = () if items == 1 else (0,)
    axes: dict[str, tuple[int, ...]] = dict.fromkeys(CHANGING, (*batch, -1))
    x = called.x[:items]
    told = {name: value[:items].clone() for name, value in called.told.items()}  # one tensor twice is one input
    free: dict[str, Any] = {"x": _free(x, *batch, -1), "t": _free(torch.zeros(items), *batch)}
    if told:
        free |= {"told": tuple(_free(value, *axes.get(name, batch)) for name, value in told.items())}
    inputs = (x, torch.full((items,), 0.5), *told.values())
    with torch.enable_grad(), _quiet():
        module(*inputs)  # fills caches; those of a trace would hold tensors without numbers
        return torch.export.export(module, inputs, dynamic_shapes=free, strict=False)


def _sizes(program: ExportedProgram, called: Called) -> dict[str, Sequence[int | torch.SymInt]]:
    """Those of each input."""
    inputs = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    return {name: node.meta["val"].shape for name, node in zip(("x", "t", *called.told), inputs, strict=True)}


def _is_fixed(size: int | torch.SymInt) -> bool:
    return str(size).isdigit()  # torch has symbols that can have one value only


def _free(x: Tensor, *axes: int) -> dict[int, Any]:
    return {axis % x.ndim: Dim.AUTO for axis in axes}


def write(program: ExportedProgram, called: Called, path: Path) -> None:
    """The graph as a file of the suffix's kind."""
    if path.suffix == FORMATS["torch"]:
        torch.export.save(program, path)
        return
    try:
        with _quiet():
            made = torch.onnx.export(
                program, dynamo=True, input_names=["x", "t", *called.told], output_names=["out"], verbose=False
            )
    except ModuleNotFoundError:
        raise
    except Exception as error:
        raise InputError(f"{path.stem}: ONNX has no words for this network ({_first_line(error)})") from error
    assert made is not None
    made.save(str(path))


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's advice to its own developers."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
