"""`fromnoise mel`: recordings to mel spectrograms that carry their definition, file by file and piece by piece."""

import json
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fromnoise.cli import common, work

if TYPE_CHECKING:
    from fromnoise.cli.jobs import Job
    from fromnoise.frontends import Mel

BLOCK = 2048  # frames made at a time
BUNDLED = "vocode-small"


def command(
    inputs: Annotated[list[str], typer.Argument(metavar="FILE_OR_FOLDER...", help="Files, folders or patterns.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            "--out",
            metavar="OUT",
            help="A folder, or a .safetensors file for one file.  [default: NAME_mel.safetensors beside the input]",
        ),
    ] = None,
    definition: Annotated[
        str | None,
        typer.Option("--definition", metavar="NAME", help="A preset: tacotron2-22k, diffwave-lmnt-22k, sc09-16k."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="MODEL", help=f"The mel that this model takes.  [default: {BUNDLED}]"),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Another value, e.g. hop=300; may be repeated."),
    ] = None,
    suffix: common.Suffix = None,
    skip_existing: common.SkipExisting = False,
    quiet: common.Quiet = False,
    as_json: common.AsJson = False,
) -> None:
    """Make mel spectrograms of recordings: safetensors, `mel` (bands, frames), with the whole definition inside.

    Any rate is converted to the definition's, channels are averaged, levels stay.

    Examples:

    fromnoise mel speech.wav -o mels/

    fromnoise mel recordings/ -o mels --model runs/mine

    fromnoise mel speech.wav -o speech.safetensors --definition tacotron2-22k --set hop=300
    """  # fmt: skip
    from fromnoise.cli.jobs import Kinds, plan
    from fromnoise.data.layouts import SUFFIXES
    from fromnoise.data.mels import MEL_SUFFIXES
    from fromnoise.types import InputError

    if output is not None and output.suffix.lower() in MEL_SUFFIXES[1:] and not output.is_dir():
        raise InputError(f"-o {output}: mels are written as .safetensors, which holds their definition too")
    kinds = Kinds("audio file", SUFFIXES, {".safetensors": "safetensors"}, ".safetensors")
    todo = plan(inputs, output, suffix, None, "mel", kinds)
    chosen = choose(definition, model, change or [])
    voice = common.Voice(quiet, as_json)
    records = work.run(todo, partial(write_mel, chosen), skip_existing, voice)
    work.finish(records, {"definition": vars(chosen)}, voice, as_json)


def choose(name: str | None, model: str | None, changes: list[str]) -> "Mel":
    """The definition of a preset, or of a model's card, with changes. Raises InputError that lists the choices."""
    from dataclasses import asdict

    from fromnoise import hub
    from fromnoise.frontends import Mel
    from fromnoise.frontends.mel import DEFINITIONS
    from fromnoise.types import InputError, build

    if name is not None and model is not None:
        raise InputError("--definition and --model both say which mel; leave one out")
    if name is not None and name not in DEFINITIONS:
        raise InputError(f"unknown --definition {name!r}; choose one of: {', '.join(DEFINITIONS)}")
    if name is not None:
        fields: dict[str, Any] = asdict(DEFINITIONS[name])
    else:
        card = hub.read_card(hub.locate(model or BUNDLED))
        given = getattr(hub.config_of(card), "mel", None)
        if given is None:
            raise InputError(f"the model {card['name']!r} is for the task {card['task']!r}, which takes no mel")
        fields = asdict(build("mel", {"mel": Mel}, given))
    for text in changes:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set takes FIELD=VALUE, got {text!r}")
        fields[key.strip()] = _value(value.strip())
    return build("mel", {"mel": Mel}, {"name": "mel", **fields})


def _value(text: str) -> Any:
    """A number, true, false or null as JSON has them; anything else is text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def write_mel(definition: "Mel", job: "Job", progress: Any) -> dict[str, Any]:
    """Make the mel of one recording; the record says its size, and how long the sound and the work were in seconds."""
    from fromnoise.data.mels import MelWriter, SoundMel

    started = time.perf_counter()
    with SoundMel(job.source, definition) as mel:
        job.target.parent.mkdir(parents=True, exist_ok=True)
        with MelWriter(job.target, definition, mel.frames) as writer:
            while writer.written < mel.frames:
                writer.write(mel.read(BLOCK))
                progress(writer.written, mel.frames)
        seconds = mel.samples / definition.sample_rate
    return work.done(job, {"bands": definition.n_mels, "frames": mel.frames}, started, seconds)
