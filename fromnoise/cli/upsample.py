"""`fromnoise upsample`: recordings of a low rate to a high one, file by file, in memory that does not depend on length.

A file is read twice: once for its level, by which every piece is scaled alike, and once to be upsampled. A file that
fails is named, and the others are still done.
"""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fromnoise.cli import common, work

if TYPE_CHECKING:
    import numpy as np

    from fromnoise.cli.jobs import Job
    from fromnoise.data.audio import AudioWriter
    from fromnoise.tasks.upsampling import Upsampler


@dataclass(frozen=True)
class Settings:
    """How every file is upsampled and written."""

    steps: int | None
    sampler: str | None
    seed: int
    segment: float
    overlap: float
    clip_mode: str
    subtype: str | None


def command(
    inputs: common.Inputs,
    model: common.ModelName,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            "--out",
            metavar="OUT",
            help="A folder, or a file for one file.  [default: NAME_upsampled beside the input]",
        ),
    ] = None,
    steps: common.Steps = None,
    sampler: common.SamplerName = None,
    seed: common.Seed = 0,
    device: common.Device = "auto",
    segment: common.Segment = 10.0,
    overlap: common.Overlap = 0.05,
    suffix: common.Suffix = None,
    file_format: common.SameFormat = None,
    subtype: common.SameSubtype = None,
    clip_mode: common.ClipMode = "rescale",
    skip_existing: common.SkipExisting = False,
    checkpoint: common.Checkpoint = "best",
    quiet: common.Quiet = False,
    as_json: common.AsJson = False,
) -> None:
    """Upsample recordings: what lies above the band of a low rate is made anew. Duration, channels and level stay.

    A recording of another rate, up to the model's, is brought to the model's low rate first. Results have its high one.

    Examples:

    fromnoise upsample telephone.wav --model runs/upsampler

    fromnoise upsample old/ -o wide/ --model runs/upsampler --steps 25 --seed 1
    """  # fmt: skip
    from fromnoise.cli.jobs import plan

    settings = Settings(
        *(steps, sampler, common.choose_seed(seed), segment, overlap),
        *(common.choose_clip_mode(clip_mode), subtype and subtype.upper()),
    )
    todo = plan(inputs, output, suffix, file_format, "upsampled")
    voice = common.Voice(quiet, as_json)
    upsampler = work.load(model, "upsample", device, checkpoint)
    upsampler.chunking(segment, overlap, upsampler.network_calls(steps, sampler))  # fails here, not in every file
    voice.say(f"{upsampler.low_rate} Hz -> {upsampler.sample_rate} Hz")
    if settings.seed != 0:
        voice.say(f"seed {settings.seed}")
    records = work.run(todo, partial(upsample_file, upsampler, settings=settings), skip_existing, voice)
    facts = {"model": upsampler.name, "device": str(upsampler.device), "settings": vars(settings)}
    work.finish(records, facts, voice, as_json)


def upsample_file(upsampler: "Upsampler", job: "Job", progress: Any, settings: Settings) -> dict[str, Any]:
    """Upsample one file; the record says what was done, and how long the sound and the work were in seconds."""
    from fromnoise.data.audio import AudioReader, AudioWriter, keep_subtype, resampled_length
    from fromnoise.tasks.chunked import Chunking, measure, stream

    started = time.perf_counter()
    rate, calls = upsampler.low_rate, upsampler.network_calls(settings.steps, settings.sampler)
    chunking = upsampler.chunking(settings.segment, settings.overlap, calls)
    with ExitStack() as stack:
        reader = stack.enter_context(AudioReader(job.source))
        upsampler.require_rate(reader.sample_rate)
        upsampler.require_channels(reader.channels)
        subtype = settings.subtype or keep_subtype(job.target, reader.info.subtype)
        process = upsampler.piece(measure(reader, rate), settings.steps, settings.sampler, settings.seed)
        reader.seek(0)
        length = resampled_length(reader.frames, reader.sample_rate, upsampler.sample_rate)
        job.target.parent.mkdir(parents=True, exist_ok=True)
        writer = stack.enter_context(
            AudioWriter(job.target, upsampler.sample_rate, reader.channels, subtype, settings.clip_mode)
        )
        sink = Interleaved(writer, upsampler, length)
        stream(reader, sink, process, rate, progress=progress, **chunking)
        sink.finish()
        low, seconds = resampled_length(reader.frames, reader.sample_rate, rate), reader.frames / reader.sample_rate
    about, calls = {"sample_rate": upsampler.sample_rate}, calls * Chunking(**chunking).count(low)
    return work.done(job, about, started, seconds, network_calls=calls, seed=settings.seed)


class Interleaved:
    """A writer of an upsampler's rows, which pass at the low rate, as waves of `length` samples at the high one."""

    def __init__(self, writer: "AudioWriter", upsampler: "Upsampler", length: int) -> None:
        self.writer, self.upsampler, self.left = writer, upsampler, length
        self.sample_rate = upsampler.low_rate

    def write(self, block: "np.ndarray") -> None:
        wave = self.upsampler.interleaved(block)[:, : self.left]
        self.left -= wave.shape[1]
        self.writer.write(wave)

    def finish(self) -> None:
        """Silence for the few samples by which the duration at the two rates may differ."""
        import numpy as np

        self.writer.write(np.zeros((self.writer.channels, self.left), np.float32))
