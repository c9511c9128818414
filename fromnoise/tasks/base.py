"""What tasks share: how one run samples, and recordings in memory, taken as they come and given back the same way.

    n or c n, numpy or torch, any rate  ->  float32 `c m` at the model's rate  ->  run_chunked  ->  the same way back

The file's reader and writer in place of the array make it `fromnoise.tasks.chunked.stream`.
"""

import dataclasses
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fromnoise.frontends.resample import check_rate, resample
from fromnoise.samplers import GRIDS, SAMPLERS, Grid, Sampler, Trained
from fromnoise.tasks.chunked import Level, run_chunked
from fromnoise.types import InputError, build, require_finite

Spec = Mapping[str, Any]
Process = Callable[[np.ndarray, int], np.ndarray]

CONTEXT_SECONDS = 8.0
"""Beyond this the influence of a sample is small; a piece looks no further unless one network call does."""
MAX_CHANNELS = 64
MAX_STEPS = 10_000


Model = TypeVar("Model", bound=nn.Module)
Itself = TypeVar("Itself", bound="Ready[Any]")
Row = TypeVar("Row")
Done = TypeVar("Done")


class Ready(Generic[Model]):
    """A trained model behind a verb: the networks in evaluation mode, what it is called, and its card."""

    task: ClassVar[str]

    def __init__(self, model: Model, name: str = "", card: Mapping[str, Any] | None = None) -> None:
        self.model = model.eval()
        self.name, self.card = name or type(self).__name__.lower(), dict(card or {})

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.model.parameters()).device

    def to(self: Itself, device: str | torch.device) -> Itself:
        """Move the networks."""
        self.model.to(device)
        return self


@dataclasses.dataclass(frozen=True)
class Run:
    """How one run samples: the sampler, the grid and the number of steps."""

    sampler: Sampler
    grid: Grid
    num_steps: int


@runtime_checkable
class Sampled(Protocol):
    """The part of a task's configuration that says how it samples by default."""

    @property
    def sampler(self) -> Spec: ...
    @property
    def grid(self) -> Spec: ...
    @property
    def num_steps(self) -> int: ...


def default_run(config: Sampled, num_steps: int | None = None, sampler: str | None = None) -> Run:
    """The run that a configuration asks for, with another number of steps or another sampler.

    sampler: a name, its settings and a grid, as `fromnoise ... --sampler` takes them: "heun", "pc:snr=0.3", "@karras",
    "pc:snr=0.3:corrector=ald2@karras:rho=5". What is not said is as the configuration says of that part, or the part's
    default. A short list of levels or steps serves as many steps as it has; any other number is chosen evenly among the
    trained.
    """
    name, _, place = (sampler or "").partition("@")
    chosen = build("sampler", SAMPLERS, spec_of(name, config.sampler))
    steps = config.num_steps if num_steps is None else num_steps
    if not 1 <= steps <= MAX_STEPS:
        raise InputError(f"steps must lie between 1 and {MAX_STEPS}, got {steps}")
    grid = build("grid", GRIDS, spec_of(place, config.grid))
    if grid.length not in (None, steps):
        grid = Trained()
    return Run(chosen, grid, steps)


def spec_of(text: str, otherwise: Spec) -> Spec:
    """The spec that "name:setting=value:..." stands for; settings that it leaves out are those of the same part in
    `otherwise`, and no text at all stands for that."""
    name, *settings = text.split(":")
    if not name:
        if settings:
            raise InputError(f"expected a name before the settings {':'.join(settings)!r}; write name:setting=value")
        return otherwise
    found: dict[str, Any] = dict(otherwise) if otherwise.get("name") == name else {"name": name}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not (key and equals and value):
            raise InputError(f"expected {name}:setting=value, got {setting!r} in {text!r}")
        found[key] = _value(value)
    return found


def _value(text: str) -> str | int | float | bool:
    """A number or a truth value where the text is one."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def looked_at(calls: int, reach: int, sample_rate: int) -> int:
    """Samples on either side that so many network calls in a row look at, each with a reach of its own.

    Every call sees as far as the one before it saw, and its reach on top. Beyond CONTEXT_SECONDS this is cut off (never
    below one call's reach): so far away the influence is small, and the cost would be many times the piece's.
    """
    return min(calls * reach, max(reach, round(CONTEXT_SECONDS * sample_rate)))


def cut(segment: float, overlap: float, context: int, align: int, sample_rate: int) -> dict[str, Any]:
    """Settings of `run_chunked` in samples, from seconds; `segment` counts what is kept, the context comes on top."""
    if not (0 < segment < math.inf and 0 <= overlap < math.inf):
        raise InputError(f"expected segment > 0 and overlap >= 0 seconds, got {segment} and {overlap}")
    kept = max(round(segment * sample_rate), align)
    shared = max(min(round(overlap * sample_rate), kept - align), 0)
    return {"segment": kept + 2 * context + shared, "context": context, "overlap": shared, "align": align}


def in_pieces(
    recording: Any, sample_rate: int, rate: int, piece: Callable[[Level], Process], chunking: Mapping[str, Any]
) -> np.ndarray:
    """A recording `n` or `c n` of `sample_rate` Hz through a process at `rate` Hz, as an array of the same shape.

    piece: the levels of its channels -> the process, see `run_chunked`, which `chunking` is for. Raises InputError for
    an empty, non-finite or oddly shaped recording, or a rate out of range.
    """
    wave = as_floats(recording)
    check_rate(sample_rate, "the recording")
    planes = np.atleast_2d(wave).astype(np.float32)
    require_finite(torch.from_numpy(planes), "the recording")
    inside = np.asarray(resample(planes, sample_rate, rate))
    result = joined(piece(Level.of(inside)), inside, chunking)
    return fit(np.asarray(resample(result, rate, sample_rate)), planes.shape[1]).reshape(wave.shape)


def joined(process: Process, data: Float[np.ndarray, "c n"], chunking: Mapping[str, Any]) -> Float[np.ndarray, "k n"]:
    """What `run_chunked` makes of data that is in memory."""
    position, pieces = 0, []

    def read(count: int) -> np.ndarray:
        nonlocal position
        position += count
        return data[:, position - count : position]

    run_chunked(process, read, pieces.append, data.shape[1], **chunking)
    return np.concatenate(pieces, axis=1)


def in_batches(
    rows: Sequence[Row], alike: Callable[[Row], Hashable], at_once: int, work: Callable[[list[Row]], Sequence[Done]]
) -> list[Done]:
    """What `work` makes of every row, in their order, where it is given those that are alike, at most `at_once`."""
    groups: dict[Hashable, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(alike(row), []).append(i)
    done: dict[int, Done] = {}
    for group in groups.values():
        for start in range(0, len(group), at_once):
            chosen = group[start : start + at_once]
            done |= zip(chosen, work([rows[i] for i in chosen]), strict=True)
    return [done[i] for i in range(len(rows))]


def like(result: np.ndarray, given: Any) -> Any:
    """The result in the kind, precision and place of what the user gave: numpy or torch."""
    if isinstance(given, Tensor):
        return torch.from_numpy(result).to(given.device, given.dtype)
    return result.astype(np.asarray(given).dtype)


def as_floats(recording: Any) -> np.ndarray:
    """What the user gave, as an array of floats `n` or `c n` with at least one sample."""
    if isinstance(recording, Tensor):
        plain = recording.detach().cpu()
        wave = (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()  # numpy has no bfloat16
    else:
        wave = np.asarray(recording)
    if wave.dtype.kind in "iu":
        raise InputError(f"expected floats in [-1, 1], got {wave.dtype}; divide by {np.iinfo(wave.dtype).max}")
    if wave.ndim not in (1, 2) or wave.size == 0 or wave.dtype.kind != "f":
        raise InputError(
            f"expected a wave of shape (n) or (c, n), n >= 1, as floats in [-1, 1]; got {wave.dtype} {wave.shape}"
        )
    if wave.ndim == 2 and len(wave) > MAX_CHANNELS:
        raise InputError(
            f"expected at most {MAX_CHANNELS} channels, got shape {wave.shape}; if that is (samples, channels), "
            "transpose it"
        )
    return wave


def fit(wave: np.ndarray, n: int) -> np.ndarray:
    """Cut or filled with silence to n samples: two resamplings may differ by one."""
    return np.pad(wave, ((0, 0), (0, max(0, n - wave.shape[1]))))[:, :n]
