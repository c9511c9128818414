"""`fromnoise separate`: a mixture to one file per source, file by file, in memory that does not depend on their length.

The sources of a file are scaled alike where one of them would go beyond full scale, so that they still add up to the
mixture but for that one factor. A file that fails is named, and the others are still done.
"""

import re
import string
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fromnoise.cli import common, corpus, work
from fromnoise.cli.enhance import PLOT_SECONDS
from fromnoise.cli.together import Joint, Length, audio_length

if TYPE_CHECKING:
    from fromnoise.cli.jobs import Job
    from fromnoise.tasks.chunked import Asking
    from fromnoise.tasks.separation import Separator

BUNDLED = "separate-small"
TEMPLATE = "{name}_{source}"
FIELDS = ("name", "source", "index")


@dataclass(frozen=True)
class Settings:
    """How every file is separated and written."""

    steps: int | None
    sampler: str | None
    seed: int
    segment: float
    overlap: float
    template: str
    clip_mode: str
    subtype: str | None
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
            metavar="OUT",
            help="A folder, or a file's name for one mixture.  [default: beside the input]",
        ),
    ] = None,
    speakers: Annotated[
        int | None,
        typer.Option("--speakers", "--sources", "-k", metavar="K", help="How many there are.  [default: the model's]"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", metavar="MODEL", help=f"A bundled name, a model or run folder, or a hub id.  [{BUNDLED}]"
        ),
    ] = None,
    steps: common.Steps = None,
    sampler: common.SamplerName = None,
    seed: common.Seed = 0,
    device: common.Device = "auto",
    segment: common.Segment = 30.0,
    overlap: common.Overlap = 2.0,
    template: Annotated[
        str,
        typer.Option(
            "--template", metavar="T", help="Names of the outputs, of {name}, {source} and {index}; / is a folder."
        ),
    ] = TEMPLATE,
    file_format: common.SameFormat = None,
    subtype: common.SameSubtype = None,
    clip_mode: common.ClipMode = "rescale",
    skip_existing: common.SkipExisting = False,
    plot: Annotated[
        bool, typer.Option("--plot", help="Write spectrograms of mixture and sources, OUTPUT.png.")
    ] = False,
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
    """Separate the speakers of recordings, one file each: NAME_s1.wav, NAME_s2.wav. Rate, length and level stay.

    What the files of one recording hold adds up to it, as far as the model's rate goes. Several channels are averaged
    to one. In a long recording the speakers keep their files; where that is in doubt, it is said.

    Examples:

    fromnoise separate call.wav

    fromnoise separate mixtures/ -o separated/ --speakers 2 --template "{source}/{name}"

    fromnoise separate "talks/*.mp3" -o out --model runs/mine -N 30 --sampler pc:corrector=ald2:snr=0.5

    fromnoise separate corpus/ -o separated/ --jobs 8 --shard 3/10
    """  # fmt: skip
    from fromnoise.cli.jobs import AUDIO, plan

    clip_mode = common.choose_clip_mode(clip_mode)
    if plot:
        import matplotlib  # noqa: F401 (absent: an error with the command that adds it)
    require_template(template)
    seed, voice = common.choose_seed(seed), common.Voice(quiet, as_json)
    inputs, output = two_folders(inputs, output)
    settings = Settings(steps, sampler, seed, segment, overlap, template, clip_mode, subtype and subtype.upper(), plot)
    asked = corpus.Asked(inputs, output, device, skip_existing, jobs, shard, engine, address, retries, batch_size)
    with common.spoken_warnings(voice):
        name = model or bundled(speakers)
        separator: Separator = asked.load(name, "separate", checkpoint)
        separator.require_sources(speakers)
        separator.chunking(segment, overlap, separator.network_calls(steps, sampler))  # what fails for all fails here
        parts = partial(file_names, template, separator.names)
        planned = partial(plan, suffix=None, kind=file_format, verb="separated", parts=parts)
        todo = asked.plan(planned, plot)
        if seed != 0:
            voice.say(f"seed {seed}")
        if asked.corpus:
            load = asked.loader(name, "separate", checkpoint)
            one = asked.on_members(partial(separate_file, settings=settings), planned, AUDIO.reads)
            decisive = corpus.decisive("separate", settings, format=file_format)
            joint = Joint(partial(separating, settings=settings), partial(length_of, separator, settings))
            asked.run(todo, separator, load, one, decisive, voice, as_json, joint)
            return
        records = work.run(todo, partial(separate_file, separator, settings=settings), skip_existing, voice)
    facts = {"model": separator.name, "sources": separator.names, "device": str(separator.device)}
    work.finish(records, facts | {"settings": vars(settings)}, voice, as_json)


def two_folders(inputs: Sequence[str], output: Path | None) -> tuple[list[str], Path | None]:
    """`IN OUT` without -o, as DiffSep's script takes them: a folder, and a second that is not there or is empty."""
    if output is None and len(inputs) == 2 and Path(inputs[0]).expanduser().is_dir():
        second = Path(inputs[1]).expanduser()
        empty = second.is_dir() and not any(second.iterdir())
        if empty or not (second.exists() or second.suffix):
            return [inputs[0]], second
    return list(inputs), output


def require_template(template: str) -> None:
    """Raises InputError for a template that names no file, or the same for all sources, or one outside the output."""
    from fromnoise.types import InputError

    try:
        parsed = list(string.Formatter().parse(template))
        shown = template.format(name="n", source="s", index=1)
    except (ValueError, LookupError, AttributeError) as error:
        raise InputError(f"--template {template!r} cannot be filled in ({error}); its fields are {_fields()}") from None
    fields = [field for _, field, _, _ in parsed if field is not None]
    if not set(fields) <= set(FIELDS):
        raise InputError(f"--template {template!r} has an unknown field; its fields are {_fields()}")
    if not {"source", "index"} & set(fields):
        raise InputError(f"--template {template!r} gives all sources one name; put {{source}} or {{index}} into it")
    if shown.startswith(("/", "\\")) or ".." in Path(shown).parts or "\0" in shown or shown.endswith("/"):
        raise InputError(f"--template {template!r} must name a file below the output, e.g. {TEMPLATE!r}")


def _fields() -> str:
    return ", ".join(f"{{{field}}}" for field in FIELDS)


def file_names(template: str, sources: Sequence[str], name: str) -> list[str]:
    """The files of one mixture, without endings. What a card calls its sources may be no part of a file's name."""
    names = [re.sub(r"[^\w.-]+", "-", source).strip(".-") for source in sources]
    safe = [text if text and names.count(text) == 1 else f"s{k}" for k, text in enumerate(names, 1)]
    return [template.format(name=name, source=source, index=k) for k, source in enumerate(safe, 1)]


def bundled(speakers: int | None) -> str:
    """The bundled model for so many speakers. Raises InputError that lists what there is."""
    from fromnoise import hub
    from fromnoise.types import InputError

    if speakers is None:
        return BUNDLED
    there = {card["name"]: card["config"].get("sources", 2) for card in hub.list_models() if card["task"] == "separate"}
    fitting = [name for name, count in there.items() if count == speakers]
    if not fitting:
        listed = ", ".join(f"{name}: {count}" for name, count in there.items()) or "none"
        raise InputError(
            f"no bundled model separates {speakers} speakers (those there are: {listed}); name one by --model, "
            "or train one, as the recipe diffsep/wsj0_3mix does"
        )
    return fitting[0]


def separate_file(separator: "Separator", job: "Job", progress: work.Progress, settings: Settings) -> dict[str, Any]:
    """Separate one file; the record says what was done, and how long the sound and the work were in seconds."""
    from fromnoise.tasks.chunked import answered

    return answered(separating(separator, job, progress, settings))


def length_of(separator: "Separator", settings: Settings, path: Path) -> Length | None:
    """How long a file is in the model, and in samples; None where it is cut into several pieces."""
    calls = separator.network_calls(settings.steps, settings.sampler)
    return audio_length(separator, separator.chunking(settings.segment, settings.overlap, calls), path)


def separating(
    separator: "Separator", job: "Job", progress: work.Progress, settings: Settings
) -> "Asking[dict[str, Any]]":
    """The work of `separate_file`; it asks for its pieces to be separated."""
    from fromnoise.data.audio import AudioReader, AudioWriter, keep_subtype, resampled_length
    from fromnoise.data.formats import FLOAT_SUBTYPES
    from fromnoise.tasks.chunked import Averaged, Chunking, streamed
    from fromnoise.tasks.following import Follower
    from fromnoise.tasks.separation import averaged, in_doubt

    started = time.perf_counter()
    rate, calls = separator.sample_rate, separator.network_calls(settings.steps, settings.sampler)
    chunking = separator.chunking(settings.segment, settings.overlap, calls)
    follow = Follower(separator.sources)
    with ExitStack() as stack:
        reader = stack.enter_context(AudioReader(job.source))
        if reader.channels > 1:
            warnings.warn(f"{job.source}: {averaged(reader.channels)}", stacklevel=1)
        pieces = Chunking(**chunking).count(resampled_length(reader.frames, reader.sample_rate, rate))
        steps = Steps(progress, pieces)
        process = separator.piece(settings.steps, settings.sampler, settings.seed, steps.within)
        writers: list[AudioWriter] = []
        for path in job.targets:
            path.parent.mkdir(parents=True, exist_ok=True)
            subtype = settings.subtype or keep_subtype(path, reader.info.subtype)
            writers.append(stack.enter_context(AudioWriter(path, reader.sample_rate, 1, subtype, settings.clip_mode)))
        asking = streamed(Averaged(reader), writers, process, rate, Chunking(**chunking), follow, steps.piece)
        yield from follow.overhear(asking)
        peak = max(writer.peak for writer in writers)
        for writer in writers:
            writer.peak = peak  # one factor for all, or they would no longer add up to the mixture
        frames, sample_rate = reader.frames, reader.sample_rate
        beyond = peak > 1 and writers[0].subtype not in FLOAT_SUBTYPES
    if beyond:
        ending = "so all were scaled down" if settings.clip_mode == "rescale" else "where this format cuts it off"
        warnings.warn(f"{job.target}: a source's peak of {peak:.2f} was beyond full scale, {ending}", stacklevel=1)
    doubts = separator.doubtful_seconds(follow, chunking)
    if doubts:
        warnings.warn(f"{job.source}: {in_doubt(doubts)}", stacklevel=1)
    if settings.plot:
        draw(job, separator.names)
    rest = {
        "network_calls": calls * pieces,
        "seed": settings.seed,
        "peak": peak,
        "gain": 1 / peak if beyond and settings.clip_mode == "rescale" else 1.0,
        "doubtful_seconds": doubts,
    }
    return work.done(job, {"sample_rate": sample_rate}, started, frames / sample_rate, **rest)


class Steps:
    """Progress in sampling steps over all pieces: one piece of a large model takes long."""

    def __init__(self, progress: work.Progress, pieces: int) -> None:
        self._progress, self._pieces, self._done = progress, pieces, 0

    def within(self, i: int, n: int, _: Any) -> None:
        self._progress(self._done * n + i + 1, self._pieces * n)

    def piece(self, done: int, total: int) -> None:
        self._done = done
        self._progress(done, total)


def draw(job: "Job", names: Sequence[str]) -> Path:
    """The spectrograms of the first PLOT_SECONDS of mixture and sources, beside the first source's file."""
    from fromnoise.data.audio import AudioReader
    from fromnoise.evaluation.plots import png, spectrogram_figure
    from fromnoise.files import write_whole

    waves, rate = {}, 0
    for name, path in zip(("mixture", *names), (job.source, *job.targets), strict=True):
        with AudioReader(path) as reader:
            rate = reader.sample_rate
            waves[name] = reader.read(PLOT_SECONDS * rate)
    picture = png(spectrogram_figure(waves, rate), dpi=110, transparent=False)
    path = job.target.with_name(f"{job.target.name}.png")
    write_whole(path, picture)
    return path
