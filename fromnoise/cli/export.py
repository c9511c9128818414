"""`fromnoise export`: a model as ONNX or a torch program, for machines without torch or without fromnoise."""

from pathlib import Path
from typing import Annotated

import typer

from fromnoise.cli import common


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A bundled name, a model or run folder, or a hub id.")],
    output: Annotated[Path, typer.Option("--output", "-o", "--out", metavar="FOLDER", help="The folder to write.")],
    format: Annotated[
        str, typer.Option("--format", metavar="onnx|torch", help="What the networks become: .onnx, or .pt2 for torch.")
    ] = "onnx",
    steps: common.Steps = None,
    sampler: common.SamplerName = None,
    guidance: Annotated[
        float | None, typer.Option(metavar="G", help="Of a generator by label.  [default: the model's own]")
    ] = None,
    checked: Annotated[
        bool, typer.Option("--check", help="Compare with the model, and fail where they differ by more than 1e-3.")
    ] = False,
    engine: Annotated[
        str, typer.Option(metavar="onnxruntime|openvino", help="What runs the ONNX files in the check.")
    ] = "onnxruntime",
    checkpoint: common.Checkpoint = "best",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an export that is in the folder.")] = False,
    quiet: common.Quiet = False,
    as_json: common.AsJson = False,
) -> None:
    """Export a model: its networks as files, and all else that a run needs as plain data.

    Steps, sampler and guidance are fixed in the export; length and number of sounds are not. What was exported as ONNX
    runs without torch, by `python -m fromnoise.runner FOLDER IN -o OUT`.

    Examples:

    fromnoise export enhance-small -o exported --check

    fromnoise export digits-small --steps 6 --sampler ddim -o digits-onnx

    fromnoise export runs/my-enhancer --format torch -o my-enhancer-pt2
    """
    from fromnoise import hub
    from fromnoise.export import FORMATS, TOLERANCE, check, export
    from fromnoise.runner.engine import ENGINES
    from fromnoise.types import InputError

    for name, given, known in (("--format", format, FORMATS), ("--engine", engine, ENGINES)):
        if given not in known:
            raise InputError(f"{name} must be {' or '.join(known)}, got {given!r}")
    if output.is_file():
        raise InputError(f"--output must be a folder, got the file {output}")
    if (output / "runner.json").exists() and not overwrite:
        raise InputError(f"{output} holds an export already; choose another folder, or --overwrite")
    voice = common.Voice(quiet, as_json)
    ready = hub.load(model, checkpoint=checkpoint)
    made = export(ready, output, format, steps, sampler, guidance, voice.say)
    files = sorted(path for path in output.iterdir() if path.is_file())
    for path in files:
        voice.say(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    found = check(ready, made, output, steps, sampler, guidance, engine) if checked else {}
    for what, difference in found.items():
        voice.say(f"{what}: differs by at most {difference:.2g}")
    same = all(difference <= TOLERANCE for difference in found.values())
    if as_json:
        voice.hand_over({"output": str(output), "files": [path.name for path in files], "differences": found})
    if not same:
        voice.complain(f"{output} does not do what {ready.name} does: a difference above {TOLERANCE:g}")
        raise typer.Exit(1)
    if format == "onnx":
        voice.say(f"use: python -m fromnoise.runner {output} {USE[ready.task]}")


USE = {
    "enhance": "noisy.wav -o clean.wav",
    "separate": "mixture.wav -o source.wav",
    "vocode": "mel.npy -o sound.wav",
    "generate": "-o sound.wav",
}
