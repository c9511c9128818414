"""`fromnoise generate`: sounds from noise, freely, by label or from text, into a folder, batch by batch as made.

Item i of a label or text depends on (seed, i) alone, so `--start 100 -n 50` goes on where `-n 100` ended.
"""

import errno
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fromnoise.cli import common, work
from fromnoise.cli.changing import Change

if TYPE_CHECKING:
    import numpy as np

    from fromnoise.tasks.generation import Generator

SHEET_COLUMNS = 8  # sounds of a label in the picture
FREE = "free"
MAX_NAME = 60  # letters of a text in a file's name

OF_CLASSES, OF_TEXTS = "digits-small", "sounds-small"
ModelName = Annotated[
    str, typer.Option("--model", "-m", metavar="MODEL", help="A bundled name, a model or run folder, or a hub id.")
]
Guidance = Annotated[
    float | None,
    typer.Option(
        "--guidance", "-g", metavar="G", help="Pull towards label or text: 1 none, 0 ignores it.  [the model's]"
    ),
]
Format = Annotated[
    str | None, typer.Option("--format", metavar="F", help="wav, flac, ogg, opus, mp3, ...  [default: wav]")
]
Subtype = Annotated[
    str | None, typer.Option(metavar="T", help="PCM_16, PCM_24, FLOAT, ...; FLOAT keeps peaks beyond full scale.")
]
BatchSize = Annotated[int, typer.Option(metavar="B", help="Sounds made at once: fewer need less memory.")]


def command(
    output: Annotated[
        Path, typer.Option("--output", "-o", "--out", metavar="OUT", help="A folder, or a file for one sound.")
    ] = Path("generated"),
    count: Annotated[
        int, typer.Option("--count", "-n", "--n-samples", metavar="N", help="Sounds, of each label or text.")
    ] = 1,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", "-l", metavar="L", help="A class by name or number, or all; may be repeated.  [none]"),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", "-t", metavar="TEXT", help="What is to be heard; may be repeated.  [none]"),
    ] = None,
    negative: Annotated[
        str | None, typer.Option("--negative", metavar="TEXT", help="What is not to be heard: guidance leads away.")
    ] = None,
    guidance: Guidance = None,
    seconds: Annotated[
        float | None, typer.Option(metavar="S", help="Length of a sound.  [default: as in training]")
    ] = None,
    start: Annotated[int, typer.Option("--start", metavar="I", help="Number of the first sound.")] = 0,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help=f"A bundled name, a model or run folder, or a hub id.  [{OF_CLASSES}; of a text {OF_TEXTS}]",
        ),
    ] = None,
    steps: common.Steps = None,
    sampler: common.SamplerName = None,
    seed: common.Seed = 0,
    device: common.Device = "auto",
    batch_size: BatchSize = 16,
    file_format: Format = None,
    subtype: Subtype = None,
    init: Annotated[
        Path | None, typer.Option("--init", metavar="SOUND", help="Begin from this recording, see --strength.")
    ] = None,
    strength: Annotated[
        float, typer.Option(metavar="S", help="Of --init: near 0 keeps the recording, 1 forgets it.")
    ] = 0.5,
    inpaint: Annotated[
        Path | None, typer.Option("--inpaint", metavar="SOUND", help="Make a part anew, see --from and --to.")
    ] = None,
    from_seconds: Annotated[
        float | None, typer.Option("--from", metavar="S", help="Of --inpaint: where it begins.")
    ] = None,
    to_seconds: Annotated[float | None, typer.Option("--to", metavar="S", help="Of --inpaint: where it ends.")] = None,
    go_on: Annotated[
        Path | None, typer.Option("--continue", metavar="SOUND", help="Go on where it ends, to --seconds in all.")
    ] = None,
    overlap: Annotated[
        float | None,
        typer.Option(metavar="S", help="Of --continue: seconds that a piece is made to fit.  [half a clip]"),
    ] = None,
    decode_steps: Annotated[
        int | None, typer.Option(metavar="N", help="Of a model of latents: steps of the decoding.  [the model's]")
    ] = None,
    decode_sampler: Annotated[
        str | None, typer.Option(metavar="S", help="Likewise, its sampler.  [the model's]")
    ] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Draw the spectrograms of all, OUT/contact_sheet.png.")] = False,
    checkpoint: common.Checkpoint = "best",
    quiet: common.Quiet = False,
    as_json: common.AsJson = False,
) -> None:
    """Generate sounds, freely, of a class or from a text: OUT/NAME_INDEX.wav, NAME that of the class or the text.

    A sound beyond full scale is scaled down to it as a whole, and said; nothing is clipped.

    Examples:

    fromnoise generate --label seven -n 8 -o sevens

    fromnoise generate --label all -n 500 --guidance 2 --plot -o digits

    fromnoise generate --text "rain on leaves" --negative wind --guidance 3 -n 4

    fromnoise generate --text "rain" --continue rain.wav --seconds 30 -o longer.wav

    fromnoise generate --text "a dog" --inpaint street.wav --from 1.2 --to 2.0 -n 4

    fromnoise generate -n 4 --model runs/mine --steps 25 --sampler dpmpp_2m --seed 1
    """  # fmt: skip
    from fromnoise.types import InputError

    if count < 1:
        raise InputError(f"expected -n of at least 1 sound, got {count}")
    if plot:
        import matplotlib  # noqa: F401 (absent: an error with the command that adds it)
    seed, voice = common.choose_seed(seed), common.Voice(quiet, as_json)
    change = Change.of(init, strength, inpaint, from_seconds, to_seconds, go_on, seconds, overlap)
    model = model or (OF_TEXTS if text or negative else OF_CLASSES)
    generator: Generator = work.load(model, "generate", device, checkpoint)
    if decode_steps is not None or decode_sampler is not None:
        generator = generator.decoding(decode_steps, decode_sampler)
    wishes = chosen(generator, label or [], text or [])
    where = place(output, count * len(wishes), file_format, subtype, generator.sample_rate)
    records: list[dict[str, Any]] = []
    sheet: dict[str, list[np.ndarray]] = {}
    if seed != 0:
        voice.say(f"seed {seed}")
    try:
        with common.spoken_warnings(voice), common.explained_memory("--batch-size or --seconds"):
            for wish, name in zip(wishes, file_names([word for _, word in wishes]), strict=True):
                began, before = time.perf_counter(), len(records)
                with voice.progress(name) as progress:
                    asked = {"steps": steps, "sampler": sampler, "guidance": guidance, "negative": negative}
                    asked |= {"count": count, "seed": seed, "first": start, "batch_size": batch_size, **dict([wish])}
                    if change is None:
                        batches = generator.batches(**asked, seconds=seconds, progress=progress)
                    else:
                        batches = [change.made(generator.editor(**asked, progress=progress))]
                    for index, wave in enumerate((wave for batch in batches for wave in batch), start):
                        facts = {**dict([wish]), "index": index, "seed": seed}
                        records.append(where.write(f"{name}_{index}", wave, facts))
                        tell(records[-1], voice)
                        if plot and index - start < SHEET_COLUMNS:
                            sheet.setdefault(name, []).append(wave[0])
                summarise(name, records[before:], time.perf_counter() - began, voice)
    except (KeyboardInterrupt, OSError):
        done = sum(not record["error"] for record in records)
        voice.complain(f"stopped: {done} of {count * len(wishes)} sounds are written")
        raise
    if plot:
        draw(sheet, where, voice)
    settings = {"steps": steps, "sampler": sampler, "guidance": guidance}
    settings |= {"decode_steps": decode_steps, "decode_sampler": decode_sampler}
    hand_over(generator, records, settings, voice, as_json)


def chosen_labels(generator: "Generator", given: Sequence[str]) -> list[str | None]:
    """The labels by their names, each once; [None] for none. Raises InputError that lists the choices."""
    from fromnoise.conditioning.labels import label_number

    names: dict[str | None, None] = {}
    for text in given:
        every = text == "all" and text not in generator.labels and len(generator.labels) > 0
        for name in generator.labels if every else [generator.labels[label_number(text, generator.labels)]]:
            names[name] = None
    return list(names) or [None]


def chosen(generator: "Generator", labels: Sequence[str], texts: Sequence[str]) -> list[tuple[str, str | None]]:
    """What is asked for, ("label", name) or ("text", text), each once. Raises InputError for both kinds at a time."""
    from fromnoise.types import InputError

    if labels and texts:
        raise InputError("--label and --text exclude each other; a model is told one or the other")
    if labels and generator.reads_text:
        raise InputError(f"this model reads texts and has no labels; write --text {labels[0]!r} instead")
    if texts:
        return [("text", text) for text in dict.fromkeys(texts)]
    return [("label", name) for name in chosen_labels(generator, labels)]


def file_names(wishes: Sequence[str | None]) -> list[str]:
    """What the files of each label or text are called: what is left of it in a file's name."""
    names = [FREE if wish is None else re.sub(r"[^\w.-]+", "-", wish).strip(".-")[:MAX_NAME] for wish in wishes]
    return [name if name and names.count(name) == 1 else f"{name}class{i}" for i, name in enumerate(names)]


@dataclass(frozen=True)
class Place:
    """Where sounds of one rate go: a folder, or the one file `single`."""

    folder: Path
    single: Path | None
    ending: str
    subtype: str | None
    sample_rate: int

    def target(self, stem: str) -> Path:
        """The file of that name."""
        return self.single or self.folder / f"{stem}{self.ending}"

    def write(self, stem: str, wave: "np.ndarray", facts: dict[str, Any]) -> dict[str, Any]:
        """Write one sound `c n`, as a whole scaled down to full scale where it goes beyond.

        Returns a record of `facts` and how it went. Raises OSError where the next file could not be written either.
        """
        import numpy as np

        from fromnoise.data.audio import AudioWriter
        from fromnoise.data.formats import FLOAT_SUBTYPES
        from fromnoise.types import InputError

        target = self.target(stem)
        record = {"output": str(target), **facts, "sample_rate": self.sample_rate}
        if not np.isfinite(wave).all():
            return record | {"error": f"{target}: the result holds NaN or infinite samples; nothing was written"}
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with AudioWriter(target, self.sample_rate, len(wave), self.subtype, "rescale") as writer:
                writer.write(wave)
        except InputError as error:
            raise OSError(errno.EIO, str(error).removeprefix(f"{target}: "), str(target)) from error
        kept = writer.subtype in FLOAT_SUBTYPES
        how = {"seconds": wave.shape[1] / self.sample_rate, "peak": writer.peak}
        return record | how | {"gain": 1.0 if kept else 1 / max(writer.peak, 1.0), "error": None}


def place(output: Path, count: int, file_format: str | None, subtype: str | None, sample_rate: int) -> Place:
    """Where `count` sounds go. Raises InputError for a request that contradicts itself or a format that cannot be."""
    from fromnoise.data.formats import FORMATS, kind_for
    from fromnoise.types import InputError

    ending = f".{(file_format or 'wav').lower().lstrip('.')}"
    if ending not in FORMATS:
        raise InputError(f"unknown --format {file_format!r}; choose one of: {', '.join(name[1:] for name in FORMATS)}")
    named = output.suffix.lower() in FORMATS and not output.is_dir()
    if named and count != 1:
        raise InputError(f"-o {output} names one file, but {count} sounds are asked for; name a folder instead")
    if named and file_format and FORMATS[output.suffix.lower()] != FORMATS[ending]:
        raise InputError(f"-o {output} and --format {file_format} contradict each other; leave one out")
    folder = output.parent if named else output
    if folder.exists() and not folder.is_dir():
        raise InputError(f"-o {output}: {folder} is a file; expected a folder")
    where = Place(folder, output if named else None, ending, subtype and subtype.upper(), sample_rate)
    kind_for(where.target("sound"), sample_rate, 1, where.subtype)
    return where


def tell(record: dict[str, Any], voice: common.Voice) -> None:
    """Say what there is to say of one written sound."""
    if record["error"]:
        voice.complain(f"Error: {record['error']}")
    elif record["gain"] < 1:
        voice.say(f"{record['output']}: its peak of {record['peak']:.2f} was beyond full scale, so it was scaled down")


def summarise(name: str, records: Sequence[dict[str, Any]], work: float, voice: common.Voice) -> None:
    """The line of one label."""
    written = [record for record in records if not record["error"]]
    if written:
        sound = sum(record["seconds"] for record in written)
        many = f"{len(written)} sounds, {written[0]['output']} to {Path(written[-1]['output']).name}"
        what = many if len(written) > 1 else written[0]["output"]
        voice.say(f"{name}: {what}: {sound:.1f} s in {work:.1f} s, real-time factor {work / sound:.3f}")


def hand_over(
    generator: "Generator", records: Sequence[dict[str, Any]], settings: dict[str, Any], voice: common.Voice, json: bool
) -> None:
    """The JSON object, and exit code 1 when something failed."""
    failed = sum(bool(record["error"]) for record in records)
    if json:
        facts = {"model": generator.name, "device": str(generator.device), "settings": settings}
        voice.hand_over(facts | {"written": len(records) - failed, "failed": failed, "files": list(records)})
    if failed:
        raise typer.Exit(1)


def draw(sheet: "dict[str, list[np.ndarray]]", where: Place, voice: common.Voice) -> None:
    """The picture of the first sounds of every label, beside them."""
    from fromnoise.evaluation.contact import contact_sheet
    from fromnoise.evaluation.plots import png
    from fromnoise.files import write_whole

    path = where.folder / "contact_sheet.png"
    write_whole(path, png(contact_sheet(sheet, where.sample_rate), dpi=110, transparent=False))
    voice.say(str(path))
