"""`fromnoise vocode`: mels, or recordings by way of their mels, to sound, in memory that does not depend on the length.

A mel file is read twice, once to see that it is of the model's definition and sound, once to be heard.
"""

import time
import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fromnoise.cli import common, corpus, work
from fromnoise.cli.enhance import PLOT_SECONDS
from fromnoise.cli.generate import Format, Subtype
from fromnoise.cli.together import Joint, Length

if TYPE_CHECKING:
    import numpy as np

    from fromnoise.cli.jobs import Job, Kinds
    from fromnoise.data.audio import AudioWriter
    from fromnoise.tasks.chunked import Asking
    from fromnoise.tasks.vocoding import Vocoder


@dataclass(frozen=True)
class Settings:
    """How every file is vocoded and written."""

    steps: int | None
    sampler: str | None
    seed: int
    segment: float
    clip_mode: str
    subtype: str | None
    plot: bool


def command(
    inputs: Annotated[
        list[str], typer.Argument(metavar="FILE_OR_FOLDER...", help="Mels (.safetensors, .npy, .pt) or recordings.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            "--out",
            metavar="OUT",
            help="A folder, or a file for one file.  [default: NAME_vocoded.wav beside the input]",
        ),
    ] = None,
    model: common.ModelName = "vocode-small",
    steps: common.Steps = None,
    sampler: common.SamplerName = None,
    seed: common.Seed = 0,
    device: common.Device = "auto",
    segment: common.Segment = 30.0,
    suffix: common.Suffix = None,
    file_format: Format = None,
    subtype: Subtype = None,
    clip_mode: common.ClipMode = "rescale",
    skip_existing: common.SkipExisting = False,
    plot: Annotated[bool, typer.Option("--plot", help="Write the result's spectrogram, OUTPUT.png.")] = False,
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
    """Vocode mel spectrograms: one channel at the model's rate. Of a recording the mel is made first.

    Results are 32-bit float WAV. In a format with a full scale, a result beyond it is scaled down as a whole, and said.
    A mel of another definition than the model's is refused; numbers without one are checked by their shape and range.

    Examples:

    fromnoise vocode mels/ -o spoken/

    fromnoise vocode speech.wav -o again.flac --steps 6 --seed 1

    fromnoise vocode "tts/*.npy" -o spoken --model runs/mine

    fromnoise vocode mels/ -o spoken/ --jobs 8 --shard 3/10
    """  # fmt: skip
    from fromnoise.cli.jobs import plan

    clip_mode = common.choose_clip_mode(clip_mode)
    if plot:
        import matplotlib  # noqa: F401 (absent: an error with the command that adds it)
    asked = corpus.Asked(inputs, output, device, skip_existing, jobs, shard, engine, address, retries, batch_size)
    planned = partial(plan, suffix=suffix, kind=file_format, verb="vocoded", kinds=kinds())
    todo = asked.plan(planned, plot)
    seed, voice = common.choose_seed(seed), common.Voice(quiet, as_json)
    settings = Settings(steps, sampler, seed, segment, clip_mode, subtype and subtype.upper(), plot)
    with common.spoken_warnings(voice):
        vocoder = asked.load(model, "vocode", checkpoint)
        vocoder.chunking(segment, vocoder.network_calls(steps, sampler))  # what fails for every file fails here
        if seed != 0:
            voice.say(f"seed {seed}")
        if asked.corpus:
            load = asked.loader(model, "vocode", checkpoint)
            one = asked.on_members(partial(vocode_file, settings=settings), planned, kinds().reads)
            decisive = corpus.decisive("vocode", settings, format=file_format, suffix=suffix)
            joint = Joint(partial(vocoding, settings=settings), partial(length_of, vocoder, settings))
            asked.run(todo, vocoder, load, one, decisive, voice, as_json, joint)
            return
        records = work.run(todo, partial(vocode_file, vocoder, settings=settings), skip_existing, voice)
    facts = {"model": vocoder.name, "device": str(vocoder.device), "settings": vars(settings)}
    work.finish(records, facts, voice, as_json)


def kinds() -> "Kinds":
    """Mels and recordings in, sound out."""
    from fromnoise.cli.jobs import Kinds
    from fromnoise.data.formats import FORMATS
    from fromnoise.data.layouts import SUFFIXES
    from fromnoise.data.mels import MEL_SUFFIXES, mel_stem

    return Kinds("mel or audio file", (*SUFFIXES, *MEL_SUFFIXES), FORMATS, ".wav", mel_stem)


def vocode_file(vocoder: "Vocoder", job: "Job", progress: Any, settings: Settings) -> dict[str, Any]:
    """Vocode one file; the record says what was done, and how long the sound and the work were in seconds."""
    from fromnoise.tasks.chunked import answered

    return answered(vocoding(vocoder, job, progress, settings))


def length_of(vocoder: "Vocoder", settings: Settings, path: Path) -> Length | None:
    """The frames of a mel, twice; None where it is cut into several pieces."""
    from fromnoise.data.mels import open_frames
    from fromnoise.tasks.chunked import Chunking

    calls = vocoder.network_calls(settings.steps, settings.sampler)
    with open_frames(path, vocoder.definition) as mel:
        whole = Chunking(**vocoder.chunking(settings.segment, calls)).count(mel.frames) == 1
        return (mel.frames, mel.frames) if whole else None


def vocoding(vocoder: "Vocoder", job: "Job", progress: Any, settings: Settings) -> "Asking[dict[str, Any]]":
    """The work of `vocode_file`; it asks for its pieces to be vocoded."""
    from fromnoise.data.audio import AudioWriter
    from fromnoise.data.formats import FLOAT_SUBTYPES
    from fromnoise.data.mels import open_frames
    from fromnoise.tasks.chunked import Chunking, pieces

    started, rate = time.perf_counter(), vocoder.sample_rate
    calls = vocoder.network_calls(settings.steps, settings.sampler)
    chunking = Chunking(**vocoder.chunking(settings.segment, calls))
    with ExitStack() as stack:
        mel = stack.enter_context(open_frames(job.source, vocoder.definition))
        length = min(mel.samples, mel.frames * vocoder.definition.hop)
        process = vocoder.piece(settings.steps, settings.sampler, settings.seed)
        job.target.parent.mkdir(parents=True, exist_ok=True)
        subtype = settings.subtype or floating(job.target)
        writer = stack.enter_context(AudioWriter(job.target, rate, 1, subtype, settings.clip_mode))
        yield from pieces(process, mel.read, Joined(writer, length).write, mel.frames, chunking, progress=progress)
    if settings.plot:
        draw(job.target)
    beyond = writer.peak > 1 and writer.subtype not in FLOAT_SUBTYPES
    if beyond:
        ending = "so it was scaled down" if settings.clip_mode == "rescale" else "where this format cuts it off"
        warnings.warn(f"{job.target}: its peak of {writer.peak:.2f} was beyond full scale, {ending}", stacklevel=1)
    rest = {
        "network_calls": calls * chunking.count(mel.frames),
        "seed": settings.seed,
        "peak": writer.peak,
        "gain": 1 / writer.peak if beyond and settings.clip_mode == "rescale" else 1.0,
    }
    return work.done(job, {"sample_rate": rate}, started, length / rate, **rest)


def floating(target: Path) -> str | None:
    """32-bit float where the format has it, which keeps what lies beyond full scale; else the format's default."""
    import soundfile

    from fromnoise.data.formats import FORMATS

    kind = FORMATS.get(target.suffix.lower(), ("", ""))[0]
    return "FLOAT" if kind and soundfile.check_format(kind, "FLOAT") else None


class Joined:
    """A writer of pieces `hop w`, sample k of frame j at [k, j], as one channel of `length` samples."""

    def __init__(self, writer: "AudioWriter", length: int) -> None:
        self.writer, self.left = writer, length

    def write(self, block: "np.ndarray") -> None:
        wave = block.T.reshape(1, -1)[:, : self.left]
        self.left -= wave.shape[1]
        self.writer.write(wave)


def draw(target: Path) -> Path:
    """The spectrogram of the first PLOT_SECONDS of a result, beside it; returns the picture's path."""
    from fromnoise.data.audio import AudioReader
    from fromnoise.evaluation.plots import png, spectrogram_figure
    from fromnoise.files import write_whole

    with AudioReader(target) as reader:
        wave = reader.read(PLOT_SECONDS * reader.sample_rate)
        picture = png(spectrogram_figure({target.name: wave}, reader.sample_rate), dpi=110, transparent=False)
    path = target.with_name(f"{target.name}.png")
    write_whole(path, picture)
    return path
