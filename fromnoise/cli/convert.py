"""`fromnoise convert`: a published checkpoint becomes a model folder that every other command takes."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fromnoise.cli import common

if TYPE_CHECKING:
    from fromnoise.importers.base import Asked

USE = {
    "vocode": "fromnoise vocode MEL_OR_SOUND -m {0}",
    "generate": "fromnoise generate -m {0}",
    "enhance": "fromnoise enhance FILE_OR_FOLDER -m {0}",
    "separate": "fromnoise separate FILE_OR_FOLDER -m {0}",
    "upsample": "fromnoise upsample FILE_OR_FOLDER -m {0}",
    "autoencode": 'fromnoise.load("{0}") in Python',
}


def command(
    checkpoints: Annotated[
        list[Path],
        typer.Argument(
            metavar="CHECKPOINT...", help="A published file; several with --average; a folder of DR-DiffuSE's."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", "--out", metavar="FOLDER", help="The model folder to write.")
    ],
    layout: Annotated[
        str,
        typer.Option(
            metavar="auto|NAME",
            help="Whose names the file uses: philsyn, lmnt, sashimi, diffsep, sgmse, storm, drdiffuse, cdiffuse, "
            "diffuse, dose, adp.",
        ),
    ] = "auto",
    generator: Annotated[
        Path | None, typer.Option(metavar="FILE", help="DR-DiffuSE: the condition generator of the network, c_gen.pth.")
    ] = None,
    refiner: Annotated[
        Path | None, typer.Option(metavar="FILE", help="DR-DiffuSE: the network that refines its result, refiner.pth.")
    ] = None,
    autoencoder: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="audio-diffusion-pytorch: the autoencoder of a latent generator."),
    ] = None,
    average: Annotated[bool, typer.Option("--average", help="Mean of the weights of all the checkpoints.")] = False,
    config: Annotated[
        Path | None,
        typer.Option(metavar="JSON", help="Its published configuration.  [default: config.json beside it, if there]"),
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(metavar="T,BETA_T", help="Steps and last beta of the training, such as 50,0.05.")
    ] = None,
    betas: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Noise levels of the default run, such as 1e-4,1e-3,.01,.05,.2,.5."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(metavar="N", help="Steps of the default run.  [default: all of the training's]")
    ] = None,
    mel: Annotated[
        str | None, typer.Option(metavar="PRESET", help="Mel definition.  [default: the publication's]")
    ] = None,
    sample_rate: Annotated[
        int | None, typer.Option(metavar="HZ", help="Rate of the sound.  [default: likewise]")
    ] = None,
    seconds: Annotated[float | None, typer.Option(metavar="S", help="Length of a generated sound.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="What shapes do not tell: dilation_cycle=12, process.theta=2.0, run.guidance=0, ...",
        ),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="The weights of the last step, also where the file holds averaged ones.")
    ] = False,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="LAYOUT",
            help="The other way: a model (name or folder) becomes a checkpoint, -o names the file.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model that is in the folder.")] = False,
    quiet: common.Quiet = False,
    as_json: common.AsJson = False,
) -> None:
    """Convert a published checkpoint of DiffWave, SaShiMi, DiffSep, SGMSE+, StoRM, DR-DiffuSE, CDiffuSE, DiffuSE,
    DOSE or audio-diffusion-pytorch (Mousai) to a model folder.

    Nothing inside the file is executed. Sizes come from its shapes; what they do not tell is assumed as published, and
    every assumption is printed.

    Examples:

    fromnoise convert ch64_T50_betaT0.05/logs/checkpoint/1000000.pkl -o vocoder

    fromnoise convert weights.pt --layout lmnt --betas 1e-4,1e-3,0.01,0.05,0.2,0.5 -o vocoder-fast

    fromnoise convert sgmse.ckpt -o enhancer --steps 50 --set sampler.snr=0.33

    fromnoise convert ddpm.pth --generator c_gen.pth --refiner refiner.pth -o drdiffuse

    fromnoise convert runs/my-separator --to diffsep -o separator.ckpt

    fromnoise convert 480000.pkl 490000.pkl 500000.pkl --average --set residual_includes_step=false -o mean
    """  # fmt: skip
    from fromnoise import hub, importers
    from fromnoise.types import InputError

    voice = common.Voice(quiet, as_json)
    if to is not None:
        if len(checkpoints) != 1:
            raise InputError(f"expected one model with --to, got {len(checkpoints)}")
        entries = importers.export(hub.load(str(checkpoints[0])).model, to, output)
        if as_json:
            voice.hand_over({"output": output, "layout": to, "entries": entries})
        voice.say(f"{output}: {entries} entries, layout {to}")
        return
    asked = request(settings or [], schedule, betas, steps, mel, sample_rate, seconds, raw)
    importers.require_free(output, overwrite)
    files = {"generator": generator, "refiner": refiner, "autoencoder": autoencoder}
    parts = {name: path for name, path in files.items() if path is not None}
    imported = importers.import_checkpoints(checkpoints, layout, asked, config, average, parts)
    facts = importers.save(imported, output)
    if as_json:
        voice.hand_over({"output": output, **facts})
    voice.say(f"{output}: {facts['task']}, {hub.human_size(facts['parameters'])} parameters, layout {facts['layout']}")
    voice.say(f"weights: {imported.taken}")
    for note in imported.notes:
        voice.say(f"assumed: {note}")
    voice.say(f"use: {USE[imported.task].format(output)}")


def request(
    settings: list[str],
    schedule: str | None,
    betas: str | None,
    steps: int | None,
    mel: str | None,
    sample_rate: int | None,
    seconds: float | None,
    raw: bool,
) -> "Asked":
    """The options as one value."""
    from fromnoise.importers import Asked, Schedule
    from fromnoise.types import InputError

    levels = tuple(_float(text, "--betas") for text in common.comma_separated(betas))
    pair = [_float(text, "--schedule") for text in common.comma_separated(schedule)]
    if schedule is not None and (len(pair) != 2 or not pair[0].is_integer()):
        raise InputError(f"--schedule takes the number of steps and the last beta, got {schedule!r}")
    trained = Schedule(int(pair[0]), pair[1]) if schedule is not None else None
    chosen = dict(_setting(text) for text in settings)
    for what, value in (("--steps", steps), ("--sample-rate", sample_rate), ("--seconds", seconds)):
        if value is not None and not value > 0:
            raise InputError(f"{what} must be above 0, got {value}")
    return Asked(chosen, trained, levels, steps, mel, sample_rate, seconds, raw)


def _float(text: str, option: str) -> float:
    from fromnoise.types import InputError

    try:
        return float(text)
    except ValueError:
        raise InputError(f"{option} takes numbers with commas between them, got {text!r}") from None


def _setting(text: str) -> tuple[str, Any]:
    """'pool=[4,4]' -> ('pool', [4, 4]); a value that is no JSON is text."""
    from fromnoise.types import InputError

    key, equals, value = text.partition("=")
    if not key or not equals:
        raise InputError(f"--set takes KEY=VALUE, got {text!r}")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value
