"""What the commands share: the options every sampling verb takes, the choice of device and seed, and the voice.

The voice is one of four: a progress bar on a terminal, plain lines in a log, nothing (`--quiet`), or one JSON object
(`--json`). Results go to standard output, the bar and all complaints to standard error.
"""

import io
import json
import os
import secrets
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import torch

ModelName = Annotated[
    str,
    typer.Option("--model", "-m", "-n", metavar="MODEL", help="A bundled name, a model or run folder, or a hub id."),
]
Steps = Annotated[
    int | None,
    typer.Option("--steps", "--nfe", "--N", "-N", metavar="N", help="Sampling steps.  [default: the model's own]"),
]
SamplerName = Annotated[
    str | None,
    typer.Option(
        "--sampler",
        "--sampler-type",
        metavar="NAME",
        help="Sampler, with settings and time grid if wanted: pc:snr=0.3@karras.  [default: the model's own]",
    ),
]
Seed = Annotated[int, typer.Option("--seed", metavar="K", min=-1, help="Seed of the noise; -1 draws one and says it.")]
Device = Annotated[
    str, typer.Option("--device", "-d", metavar="DEVICE", help="auto (CUDA, then MPS, then the CPU), cpu, cuda:1, mps.")
]
Inputs = Annotated[list[str], typer.Argument(metavar="FILE_OR_FOLDER...", help="Files, folders or patterns.")]
Segment = Annotated[float, typer.Option(metavar="S", help="Seconds that are worked on at a time.")]
Overlap = Annotated[float, typer.Option(metavar="S", help="Seconds that neighbouring segments share.")]
Suffix = Annotated[str | None, typer.Option(metavar="TEXT", help="Appended to the names of the outputs.")]
SameFormat = Annotated[
    str | None, typer.Option("--format", metavar="F", help="wav, flac, ogg, opus, mp3, ...  [default: the input's]")
]
SameSubtype = Annotated[
    str | None, typer.Option(metavar="T", help="PCM_16, PCM_24, FLOAT, ...  [default: as fine as the input's]")
]
ClipMode = Annotated[
    str, typer.Option(metavar="rescale|clamp|none", help="What happens to a result beyond full scale.")
]
SkipExisting = Annotated[bool, typer.Option("--skip-existing", help="Leave outputs alone that are there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output instead.")]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs", "-j", "--workers", metavar="N", min=1, help="Work by N processes, and keep a manifest to resume from."
    ),
]
Shard = Annotated[
    str | None, typer.Option("--shard", metavar="I/N", help="Do the Ith of N parts, 1/N to N/N; others do the others.")
]
Engine = Annotated[
    str | None, typer.Option("--engine", metavar="local|ray", help="Who works: processes here, or Ray Data.  [local]")
]
Address = Annotated[
    str | None, typer.Option("--address", metavar="RAY", help="With ray: of a running cluster.  [one is started here]")
]
BatchSize = Annotated[
    int,
    typer.Option("--batch-size", metavar="N", min=1, help="Of a corpus: N short files of one length run at once."),
]
Retries = Annotated[
    int, typer.Option("--retries", metavar="N", min=0, help="Of a corpus: how often a failed file is tried again.")
]
Checkpoint = Annotated[str, typer.Option("--checkpoint", metavar="best|last", help="Of a run folder: which weights.")]


def choose_device(name: str) -> "torch.device":
    """The torch device that a name stands for. Raises InputError for one that is not there, with those that are."""
    import torch

    from fromnoise.types import InputError

    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0))]
    if torch.backends.mps.is_available():
        there.append("mps")
    if name == "auto":
        name = next((kind for kind in ("cuda:0", "mps") if kind in there), "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"unknown device {name!r}; choose one of: auto, {', '.join(there)}") from None
    wanted = f"cuda:{device.index or 0}" if device.type == "cuda" else device.type
    if wanted not in there:
        raise InputError(f"no device {name!r} on this machine; choose one of: auto, {', '.join(there)}")
    return device


def choose_seed(seed: int) -> int:
    """The seed itself, or a fresh one for -1."""
    return secrets.randbelow(1 << 31) if seed == -1 else seed


def choose_clip_mode(text: str) -> str:
    """The name in small letters. Raises InputError for one that there is not."""
    from fromnoise.types import InputError

    if text.lower() not in ("rescale", "clamp", "none"):
        raise InputError(f"--clip-mode must be rescale, clamp or none, got {text!r}")
    return text.lower()


def comma_separated(text: str | None) -> list[str]:
    """'a, b' -> ['a', 'b'], None -> []."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def sentence(error: BaseException) -> str:
    """An expected error as one sentence for people."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError) or "out of memory" in text.lower() or "allocate memory" in text:
        return "not enough memory; try a smaller --segment, or another --device"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"


class Voice:
    """How a command speaks while it works."""

    PAUSE = 30.0  # seconds between two lines of progress in a log

    def __init__(self, quiet: bool = False, as_json: bool = False) -> None:
        self.silent = quiet or as_json
        self.bar = not quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        for stream in (sys.stdout, sys.stderr):  # a file name may hold what the terminal's encoding cannot say
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")

    def say(self, text: str) -> None:
        """A line for people; not with --quiet or --json."""
        if not self.silent:
            print(text, flush=True)

    def complain(self, text: str) -> None:
        """A line on standard error, always."""
        print(text, file=sys.stderr, flush=True)

    @staticmethod
    def hand_over(result: Any) -> None:
        """The JSON object of --json; what is not finite becomes null."""
        print(json.dumps(_finite(result), indent=2, allow_nan=False), flush=True)

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """A function (done, total) to call while `what` goes on."""
        if not self.bar:
            yield self._lines(what)
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
        with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def _lines(self, what: str) -> Callable[[int, int], None]:
        spoken = time.monotonic()

        def update(done: int, total: int) -> None:
            nonlocal spoken
            if done < total and time.monotonic() - spoken >= self.PAUSE:
                spoken = time.monotonic()
                self.say(f"{what}: {100 * done // total} %")

        return update


def _finite(value: Any) -> Any:
    """The value with NaN and infinity as None and paths as text."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float):
        return value if value - value == 0 else None
    return str(value) if isinstance(value, Path) else value


@contextmanager
def spoken_warnings(voice: Voice) -> Iterator[None]:
    """Warnings of the library as lines on standard error, each once."""
    said: set[str] = set()

    def say(message: Warning | str, *_: Any, **__: Any) -> None:
        if str(message) not in said:
            said.add(str(message))
            voice.complain(f"Warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = say
        yield


@contextmanager
def explained_memory(mend: str) -> Iterator[None]:
    """A lack of memory as a sentence with what would need less."""
    from fromnoise.types import InputError

    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "memory" in str(error).lower():
            raise InputError(f"not enough memory; try a smaller {mend}, or another --device") from error
        raise
