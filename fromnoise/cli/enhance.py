"""`fromnoise enhance`: noisy recordings to clean ones, file by file, in memory that does not depend on their length.

A file is read twice: once for its level, by which every piece is scaled alike, and once to be enhanced. A file that
fails is named, and the others are still done.
"""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fromnoise.cli import common, corpus, work
from fromnoise.cli.together import Joint, Length, audio_length

if TYPE_CHECKING:
    import numpy as np

    from fromnoise.cli.jobs import Job, Plan
    from fromnoise.data.audio import AudioReader, AudioWriter
    from fromnoise.tasks.chunked import Asking
    from fromnoise.tasks.enhancement import Enhancer

PLOT_SECONDS = 120  # a picture shows this much of a recording


@dataclass(frozen=True)
class Settings:
    """How every file is enhanced and written."""

    steps: int | None
    sampler: str | None
    seed: int
    segment: float
    overlap: float
    dry: float
    clip_mode: str
    subtype: str | None
    skip_existing: bool
    plot: bool


def command(
    inputs: common.Inputs,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            "--out",
            "--output-dir",
            "--out-dir",
            "--enhanced-dir",
            metavar="OUT",
            help="A folder, or a file for one file.  [default: NAME_enhanced beside the input]",
        ),
    ] = None,
    model: common.ModelName = "enhance-small",
    steps: common.Steps = None,
    sampler: common.SamplerName = None,
    seed: common.Seed = 0,
    device: common.Device = "auto",
    segment: common.Segment = 30.0,
    overlap: common.Overlap = 0.05,
    dry: Annotated[float, typer.Option(metavar="SHARE", help="Share of the input to keep, 0 to 1.")] = 0.0,
    atten_lim: Annotated[
        float | None, typer.Option("--atten-lim", "-a", metavar="DB", help="Attenuate noise by at most so many dB.")
    ] = None,
    suffix: common.Suffix = None,
    file_format: common.SameFormat = None,
    subtype: common.SameSubtype = None,
    clip_mode: common.ClipMode = "rescale",
    skip_existing: common.SkipExisting = False,
    plot: Annotated[bool, typer.Option("--plot", help="Write spectrograms before and after, OUTPUT.png.")] = False,
    jobs: common.Jobs = None,
    shard: common.Shard = None,
    engine: common.Engine = None,
    address: common.Address = None,
    retries: common.Retries = 1,
    batch_size: common.BatchSize = 1,
    checkpoint: common.Checkpoint = "best",
    quiet: common.Quiet = False,
    as_json: common.AsJson = False,
) -> None:
    """Enhance noisy speech. Rate, channels, length and level of every file stay.

    The exit code is 0 when everything asked for was written, 1 when something failed, 2 when the request was wrong.

    Examples:

    fromnoise enhance interview.wav

    fromnoise enhance recordings/ -o clean/ --format flac

    fromnoise enhance "talks/*.mp3" -o clean --model runs/mine --checkpoint last --steps 4 --seed 1

    fromnoise enhance corpus/ -o clean/ --jobs 8 --shard 3/10

    fromnoise enhance clips/ -o clean/ --device cuda --batch-size 32
    """  # fmt: skip
    from fromnoise.cli.jobs import AUDIO, plan

    kept = kept_share(dry, atten_lim)
    seed = common.choose_seed(seed)
    clip_mode, subtype = clip_mode.lower(), subtype and subtype.upper()
    settings = Settings(steps, sampler, seed, segment, overlap, kept, clip_mode, subtype, skip_existing, plot)
    asked = corpus.Asked(inputs, output, device, skip_existing, jobs, shard, engine, address, retries, batch_size)
    planned = partial(plan, suffix=suffix, kind=file_format, verb="enhanced")
    todo = asked.plan(planned, plot)
    check(settings)
    voice = common.Voice(quiet, as_json)
    enhancer = asked.load(model, "enhance", checkpoint)
    calls = enhancer.network_calls(steps, sampler)  # an unknown sampler ends the run here, not in every file
    enhancer.chunking(segment, overlap, calls)
    if seed != 0:
        voice.say(f"seed {seed}")
    if asked.corpus:
        load = asked.loader(model, "enhance", checkpoint)
        one = asked.on_members(partial(enhance_file, settings=settings), planned, AUDIO.reads)
        facts = corpus.decisive("enhance", settings, format=file_format, suffix=suffix)
        joint = Joint(partial(enhancing, settings=settings), partial(length_of, enhancer, settings))
        asked.run(todo, enhancer, load, one, facts, voice, as_json, joint)
        return
    records = run(enhancer, todo, settings, voice)
    facts = {"model": enhancer.name, "device": str(enhancer.device), "settings": vars(settings)}
    work.finish(records, facts, voice, as_json)


def kept_share(dry: float, atten_lim: float | None) -> float:
    """The share of the input to keep: `dry`, or 10^(-dB/20) from a limit of the attenuation."""
    from fromnoise.types import InputError

    if atten_lim is None:
        if not 0 <= dry <= 1:
            raise InputError(f"--dry must lie between 0 and 1, got {dry}")
        return dry
    if dry or not atten_lim >= 0:
        raise InputError(f"--atten-lim takes decibels >= 0 and no --dry beside it, got {atten_lim} and --dry {dry}")
    return 10 ** (-atten_lim / 20)


def check(settings: Settings) -> None:
    """What would fail for every file fails here."""
    common.choose_clip_mode(settings.clip_mode)
    if settings.plot:
        import matplotlib  # noqa: F401 (absent: an error with the command that adds it)


def run(enhancer: "Enhancer", todo: "Plan", settings: Settings, voice: common.Voice) -> list[dict[str, Any]]:
    """Do every job; one record for each, and for each input that stands for no file."""
    return work.run(todo, partial(enhance_file, enhancer, settings=settings), settings.skip_existing, voice)


def enhance_file(enhancer: "Enhancer", job: "Job", progress: Any, settings: Settings) -> dict[str, Any]:
    """Enhance one file; the record says what was done, and how long the sound and the work were in seconds."""
    from fromnoise.tasks.chunked import answered

    return answered(enhancing(enhancer, job, progress, settings))


def length_of(enhancer: "Enhancer", settings: Settings, path: Path) -> Length | None:
    """How long a file is in the model, and in samples; None where it is cut into several pieces."""
    calls = enhancer.network_calls(settings.steps, settings.sampler)
    return audio_length(enhancer, enhancer.chunking(settings.segment, settings.overlap, calls), path)


def enhancing(enhancer: "Enhancer", job: "Job", progress: Any, settings: Settings) -> "Asking[dict[str, Any]]":
    """The work of `enhance_file`; it asks for its pieces to be enhanced."""
    from fromnoise.data.audio import AudioReader, AudioWriter, keep_subtype, resampled_length
    from fromnoise.tasks.chunked import Chunking, measure, streamed

    started = time.perf_counter()
    rate, calls = enhancer.sample_rate, enhancer.network_calls(settings.steps, settings.sampler)
    chunking = Chunking(**enhancer.chunking(settings.segment, settings.overlap, calls))
    with ExitStack() as stack:
        reader = stack.enter_context(AudioReader(job.source))
        subtype = settings.subtype or keep_subtype(job.target, reader.info.subtype)
        process = enhancer.piece(measure(reader, rate), settings.steps, settings.sampler, settings.seed)
        reader.seek(0)
        job.target.parent.mkdir(parents=True, exist_ok=True)
        writer = stack.enter_context(
            AudioWriter(job.target, reader.sample_rate, reader.channels, subtype, settings.clip_mode)
        )
        untouched = stack.enter_context(AudioReader(job.source)) if settings.dry else None
        sink = writer if untouched is None else Blend(writer, untouched, settings.dry)
        yield from streamed(reader, sink, process, rate, chunking, progress=progress)
        frames, sample_rate = reader.frames, reader.sample_rate
    if settings.plot:
        draw(job)
    about, calls = {"sample_rate": sample_rate}, calls * chunking.count(resampled_length(frames, sample_rate, rate))
    return work.done(job, about, started, frames / sample_rate, network_calls=calls, seed=settings.seed)


class Blend:
    """A writer that mixes the untouched input, read alongside, back into what is written."""

    def __init__(self, writer: "AudioWriter", untouched: "AudioReader", dry: float) -> None:
        self.writer, self.untouched, self.dry = writer, untouched, dry
        self.sample_rate = writer.sample_rate

    def write(self, block: "np.ndarray") -> None:
        from fromnoise.tasks.enhancement import mix

        if block.shape[1]:
            self.writer.write(mix(block, self.untouched.read(block.shape[1]), self.dry))


def draw(job: "Job") -> Path:
    """The spectrograms of the first PLOT_SECONDS before and after, beside the output; returns the picture's path."""
    from fromnoise.data.audio import AudioReader
    from fromnoise.evaluation.plots import save_before_after

    with AudioReader(job.source) as before, AudioReader(job.target) as after:
        count = PLOT_SECONDS * before.sample_rate
        path = job.target.with_name(f"{job.target.name}.png")
        save_before_after(path, before.read(count), after.read(count), before.sample_rate)
    return path
