"""`fromnoise denoise`: recordings through a generator from the middle of its chain, file by file as `enhance` does."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fromnoise.cli import common, enhance, work
from fromnoise.cli.generate import Guidance, ModelName

Label = Annotated[
    str | None, typer.Option("--label", "-l", metavar="L", help="The class that is heard, by name or number.  [none]")
]


def command(
    inputs: common.Inputs,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            "--out",
            metavar="OUT",
            help="A folder, or a file for one file.  [default: NAME_denoised beside the input]",
        ),
    ] = None,
    model: ModelName = "digits-small",
    start_step: Annotated[
        float | None,
        typer.Option("--start-step", metavar="K", help="Where the chain is entered: 1 (least) to T.  [T/8: 25 of 200]"),
    ] = None,
    add_noise: Annotated[
        bool, typer.Option("--add-noise", help="Add the noise that belongs to the start step first.")
    ] = False,
    scale: Annotated[
        bool, typer.Option("--scale", help="Scale the input to its part at the start step first.")
    ] = False,
    label: Label = None,
    guidance: Guidance = None,
    steps: common.Steps = None,
    sampler: common.SamplerName = None,
    seed: common.Seed = 0,
    device: common.Device = "auto",
    segment: Annotated[
        float | None, typer.Option(metavar="S", help="Seconds worked on at a time.  [default: as in training]")
    ] = None,
    overlap: common.Overlap = 0.05,
    dry: Annotated[float, typer.Option(metavar="SHARE", help="Share of the input to keep, 0 to 1.")] = 0.0,
    suffix: common.Suffix = None,
    file_format: common.SameFormat = None,
    subtype: common.SameSubtype = None,
    clip_mode: common.ClipMode = "rescale",
    skip_existing: common.SkipExisting = False,
    plot: Annotated[bool, typer.Option("--plot", help="Write spectrograms before and after, OUTPUT.png.")] = False,
    checkpoint: common.Checkpoint = "best",
    quiet: common.Quiet = False,
    as_json: common.AsJson = False,
) -> None:
    """Clean recordings with a generator that never saw noise: zero-shot, from a step in the middle of its chain.

    The recording is taken for the state at the start step as it is; --scale --add-noise make it one. Rate, channels
    and length of every file stay.

    Examples:

    fromnoise denoise noisy.wav

    fromnoise denoise noisy/ -o clean --start-step 40 --add-noise --scale --sampler dpmpp_2m --steps 8
    """  # fmt: skip
    from fromnoise.cli.jobs import plan

    kept, seed = enhance.kept_share(dry, None), common.choose_seed(seed)
    todo = plan(inputs, output, suffix, file_format, "denoised")
    voice = common.Voice(quiet, as_json)
    generator = work.load(model, "generate", device, checkpoint)
    with common.spoken_warnings(voice):
        cleaner: Any = generator.zero_shot(start_step, add_noise, scale, label, guidance)
        length = cleaner.clip / cleaner.sample_rate if segment is None else segment
        settings = enhance.Settings(
            steps,
            sampler,
            seed,
            length,
            overlap,
            kept,
            clip_mode.lower(),
            subtype and subtype.upper(),
            skip_existing,
            plot,
        )
        enhance.check(settings)
        cleaner.chunking(length, overlap, cleaner.network_calls(steps, sampler))  # ends here, not in every file
        if seed != 0:
            voice.say(f"seed {seed}")
        records = enhance.run(cleaner, todo, settings, voice)
    failed = [record for record in records if record["error"]]
    if as_json:
        chain = {"start": cleaner.start, "add_noise": add_noise, "scale": scale, "label": label, "guidance": guidance}
        facts = {"model": cleaner.name, "device": str(cleaner.device), "settings": vars(settings) | chain}
        voice.hand_over(facts | {"written": len(records) - len(failed), "failed": len(failed), "files": records})
    if failed:
        raise typer.Exit(1)
