"""`fromnoise interpolate A B`: sounds on the way from one recording to another, OUT/A_B_WEIGHT.wav."""

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fromnoise.cli import common, work
from fromnoise.cli.denoise import Label
from fromnoise.cli.generate import (
    BatchSize,
    Format,
    Guidance,
    ModelName,
    Subtype,
    draw,
    hand_over,
    place,
    summarise,
    tell,
)

if TYPE_CHECKING:
    import numpy as np

    from fromnoise.tasks.generation import Generator

MARGIN_SECONDS = 0.1  # read beyond the clip, so that the resampling filter ends on sound


def command(
    a: Annotated[Path, typer.Argument(metavar="A", help="A recording: weight 0.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another: weight 1.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", "--out", metavar="OUT", help="A folder, or a file for one sound.")
    ] = Path("interpolated"),
    weights: Annotated[
        str, typer.Option("--weights", "-w", metavar="W,W,...", help="Shares of B, each from 0 to 1.")
    ] = "0.25,0.5,0.75",
    model: ModelName = "digits-small",
    start_step: Annotated[
        float | None,
        typer.Option("--start-step", metavar="K", help="Where they are mixed: 1 to T.  [T/4: 50 of 200]"),
    ] = None,
    label: Label = None,
    noise: Annotated[
        str, typer.Option(metavar="independent|shared", help="Draws of noise: one for each, or one for both.")
    ] = "independent",
    spherical: Annotated[
        bool, typer.Option("--spherical", help="Mix independent noises so that they stay as strong.")
    ] = False,
    guidance: Guidance = None,
    steps: common.Steps = None,
    sampler: common.SamplerName = None,
    seed: common.Seed = 0,
    device: common.Device = "auto",
    batch_size: BatchSize = 16,
    file_format: Format = None,
    subtype: Subtype = None,
    plot: Annotated[bool, typer.Option("--plot", help="Draw the spectrograms of all, OUT/contact_sheet.png.")] = False,
    checkpoint: common.Checkpoint = "best",
    quiet: common.Quiet = False,
    as_json: common.AsJson = False,
) -> None:
    """Mix two recordings among the states of a generator, and let it finish each mixture.

    Recordings of any rate and length: the first channel, cut or filled with silence to the length of the training's
    clips. The results have the model's rate.

    Examples:

    fromnoise interpolate one.wav two.wav

    fromnoise interpolate a.wav b.wav --label seven --weights 0,0.2,0.4,0.6,0.8,1 --noise shared -o path
    """  # fmt: skip
    from fromnoise.types import InputError

    shares = list(dict.fromkeys(share(text) for text in common.comma_separated(weights)))
    if plot:
        import matplotlib  # noqa: F401 (absent: an error with the command that adds it)
    seed, voice = common.choose_seed(seed), common.Voice(quiet, as_json)
    generator: Generator = work.load(model, "generate", device, checkpoint)
    where = place(output, len(shares), file_format, subtype, generator.sample_rate)
    stems = [f"{a.stem}_{b.stem}_{weight:g}" for weight in shares]
    targets = [where.target(stem) for stem in stems]
    if len(set(targets)) < len(shares):
        raise InputError(f"--weights {weights} would write one file twice; take weights that differ in six digits")
    for target in targets:
        if target.resolve() in (a.resolve(), b.resolve()):
            raise InputError(f"{target} would overwrite an input; choose another -o")
    if seed != 0:
        voice.say(f"seed {seed}")
    began = time.perf_counter()
    with common.spoken_warnings(voice), common.explained_memory("--batch-size"):
        first, last = read_clip(a, generator, voice), read_clip(b, generator, voice)
        made = generator.interpolate(
            first, last, generator.sample_rate, shares, start_step, label, noise, spherical, seed, steps, sampler,
            guidance, batch_size,
        )  # fmt: skip
    records: list[dict[str, Any]] = []
    for weight, stem, wave in zip(shares, stems, made, strict=True):
        records.append(where.write(stem, wave, {"weight": weight, "label": label, "seed": seed}))
        tell(records[-1], voice)
    summarise(f"{a.name}, {b.name}", records, time.perf_counter() - began, voice)
    if plot:
        draw({f"{a.stem} to {b.stem}": [first, *made[:, 0], last]}, where, voice)
    settings = {"start_step": start_step, "noise": noise, "spherical": spherical, "steps": steps, "sampler": sampler}
    hand_over(generator, records, settings | {"guidance": guidance}, voice, as_json)


def share(text: str) -> float:
    """One of --weights."""
    from fromnoise.types import InputError

    try:
        return float(text)
    except ValueError:
        raise InputError(f"--weights takes numbers from 0 to 1 with commas between them, got {text!r}") from None


def read_clip(path: Path, generator: "Generator", voice: common.Voice) -> "np.ndarray":
    """The start of a recording's first channel at the model's rate, `n`; says what was left out."""
    import numpy as np

    from fromnoise.data.audio import AudioReader, resample

    seconds = generator.num_samples() / generator.sample_rate
    with AudioReader(path) as reader:
        count = math.ceil((seconds + MARGIN_SECONDS) * reader.sample_rate)
        if reader.channels > 1:
            voice.say(f"{path}: the first of {reader.channels} channels is taken")
        if reader.frames > seconds * reader.sample_rate:
            voice.say(f"{path}: cut to its first {seconds:g} s")
        wave = reader.read(count)[0]
        return np.asarray(resample(wave, reader.sample_rate, generator.sample_rate))[: generator.num_samples()]
