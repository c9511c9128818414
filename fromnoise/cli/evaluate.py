"""`fromnoise evaluate`: score models, or folders of finished results, in the way of their task."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from fromnoise.cli import common, contest, corpus, scored
from fromnoise.cli.asked import Asked, Mixtures

if TYPE_CHECKING:
    from fromnoise.cli.asked import Items
    from fromnoise.evaluation.run import Evaluation

CLASSIFIER = "digits-classifier"


def _list_embedders(wanted: bool) -> bool:
    """Print what each embedder is and needs, when asked for, and end."""
    if not wanted:
        return False
    from rich.console import Console
    from rich.table import Table

    from fromnoise.evaluation.embedders import EMBEDDERS, form

    table = Table("--embedder", "what it is", "what it needs", "default")
    for name, known in EMBEDDERS.items():
        table.add_row(form(name), known.what, known.needs, known.default or "-")
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    raise typer.Exit


def command(
    what: Annotated[
        list[str], typer.Argument(metavar="[MODEL_OR_FOLDER] DATA", help="What to score, and the recordings.")
    ],
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", metavar="MODEL", help="One more; may be repeated.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="REPORT", help="Folder for the CSV, JSON and HTML report.")
    ] = None,
    steps: Annotated[
        str | None, typer.Option("--steps", "-N", metavar="1,2,4", help="Numbers of steps, each a row.")
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option("--sampler", "--sampler-type", metavar="A,B", help="Samplers, each a row: ddim,pc:snr=0.3@log."),
    ] = None,
    guidance: Annotated[
        str | None, typer.Option(metavar="1,2,3", help="Of a generator: pulls towards the label, each a row.")
    ] = None,
    metrics: Annotated[str | None, typer.Option(metavar="A,B", help="Scores; 'all' for every one.")] = None,
    split: Annotated[
        str,
        typer.Option(
            "--split",
            "--splits",
            metavar="train|valid|test",
            help="Which part of DATA; several with commas. Of mixtures also a folder's name, such as train-100.",
        ),
    ] = "test",
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", "-l", metavar="N", min=1, help="Only the first N recordings by name.  (Generation: any N.)"
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option("--count", "-n", metavar="N", min=1, help="Of a generator: sounds of each label.  [500]"),
    ] = None,
    classifier: Annotated[
        str | None, typer.Option(metavar="MODEL", help=f"Who judges generated sounds.  [{CLASSIFIER}]")
    ] = None,
    embedder: Annotated[
        list[str] | None,
        typer.Option(
            "--embedder",
            "-e",
            metavar="E",
            help="Compare sets of sounds by this embedder; may be repeated, or with commas: logmel,vggish:FILE.",
        ),
    ] = None,
    birdnet: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Judge sounds of birds by BirdNET's network, .tflite or .onnx."),
    ] = None,
    without_licence: Annotated[
        str | None,
        typer.Option(
            "--without-licence",
            metavar="WORD",
            help="With --embedder: leave out sounds of DATA whose column licence holds this word, such as NC.",
        ),
    ] = None,
    list_embedders: Annotated[
        bool,
        typer.Option(
            "--list-embedders", is_eager=True, callback=_list_embedders, help="Say which there are, and exit."
        ),
    ] = False,
    batch_size: Annotated[int, typer.Option(metavar="B", min=1, help="Of a generator: sounds made at once.")] = 16,
    task: Annotated[
        str | None, typer.Option(metavar="|".join(contest.TASKS), help="Of folders alone.  [default: the models']")
    ] = None,
    examples: Annotated[
        int, typer.Option(metavar="N", min=0, help="Recordings to hear in the report (generation: of each label).")
    ] = 4,
    save_n: Annotated[
        int | None,
        typer.Option(
            "--save-n", metavar="N", min=-1, help="Of separators: write sounds and figures of the first N; -1: of all."
        ),
    ] = None,
    tag: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of separators: in place of the model in the folders' names.")
    ] = None,
    enhance: Annotated[
        bool, typer.Option("--enhance", help="Of separators: judge the first source alone, the speech.")
    ] = False,
    mode: Annotated[
        str | None,
        typer.Option(metavar="min|max", help="Of mixtures: where all speak, or to the end of the last.  [min]"),
    ] = None,
    mix: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Of mixtures: recorded ones, such as mix_both of LibriMix.")
    ] = None,
    sample_rate: Annotated[
        int | None, typer.Option(metavar="HZ", min=100, help="Of mixtures.  [the lowest of the models', else 8000]")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-j", "--workers", "-w", metavar="N", min=1, help="Processes that compute scores; or see --shard."
        ),
    ] = None,
    shard: common.Shard = None,
    engine: common.Engine = None,
    address: common.Address = None,
    retries: common.Retries = 1,
    seed: common.Seed = 0,
    device: Annotated[
        str,
        typer.Option(
            "--device",
            "-d",
            metavar="DEVICE",
            help="As elsewhere; of separators several, which work at once: cuda:0,cuda:1.",
        ),
    ] = "auto",
    checkpoint: common.Checkpoint = "best",
    quiet: common.Quiet = False,
    as_json: common.AsJson = False,
) -> None:
    """Score models on recordings, each in the way of its task.

    MODEL_OR_FOLDER: bundled names, model or run folders, hub ids, or folders of finished files, one or several with
    commas between. DATA: a folder, in one of the layouts of the documentation; several, with commas, make a table each.

    An enhancer hears noisy recordings and is scored against the clean ones (DATA has `noisy` and `clean` inside); the
    first row is the input, the model `noisy`. A separator hears mixtures whose sources are known (DATA is a CSV list,
    wsj0_mix, LibriMix, or pairs); the first rows are the input, the model `mixture`, and an oracle ratio mask. A
    vocoder gets the mel of each recording; the first row is Griffin-Lim from the same mel. An autoencoder makes its
    latent and comes back; the first row is its front end alone. A generator's sounds are judged by a classifier and
    compared with DATA's training set; with --embedder or --birdnet, beside the sounds of DATA: distances by each
    embedder, and whether each sound is what was asked for.

    With --shard, --engine or --address the --jobs processes do whole recordings, all models and scores, and keep what
    they found in REPORT: killed and run again, it goes on, and the run that finds all parts done makes the report.

    The exit code is 1 when some file has no score at all.

    Examples:

    fromnoise evaluate enhance-small DATA -o report --steps 1,2,4

    fromnoise evaluate runs/mine,results/theirs DATA --metrics pesq_wb,estoi,si_sdr --limit 50

    fromnoise evaluate separate-small test_mixtures.csv -o report --sampler ddim,pc --steps 1,4,30 --jobs 2 --save-n 5

    fromnoise evaluate vocode-small DATA -o report --jobs 2

    fromnoise evaluate sounds-autoencoder RECORDINGS -o report

    fromnoise evaluate enhance-small DATA -o report --jobs 8 --shard 3/10

    fromnoise evaluate digits-small DATA -o report -n 500 --classifier digits-classifier --guidance 1,2,3

    fromnoise evaluate sounds-small,results/theirs DATA --embedder logmel,classifier --guidance 1,3
    """
    from fromnoise.evaluation.report import summary_json, write_report
    from fromnoise.evaluation.rows import cells
    from fromnoise.types import InputError

    if len(what) > 2 or (len(what) == 1 and not model):
        raise InputError(f"expected MODEL_OR_FOLDER and DATA, got {' '.join(what)}; join several models by commas")
    splits = list(dict.fromkeys(common.comma_separated(split)))
    voice, seed = common.Voice(quiet, as_json), common.choose_seed(seed)
    spread = corpus.Asked([], output, device, False, jobs, shard, engine, address, retries)
    elsewhere = any(option is not None for option in (shard, engine, address))
    workers = scored.check(spread) if elsewhere else []
    given = ["cpu"] if elsewhere else common.comma_separated(device) or [device]  # out of the workers' way
    places = [common.choose_device(name) for name in given]
    names = [name for text in what[:-1] for name in contest.names_of(text)] + (model or [])
    found = contest.contestants(names, places[0], checkpoint)
    beside = embedder is not None or birdnet is not None
    kind = contest.task_of(list(found.values()), task or contest.task_of_input(names), classifier is not None or beside)
    contest.require_splits(splits, kind)
    if elsewhere and kind == "generate":
        raise InputError(
            "--shard, --engine and --address divide recordings, and scores of generators are those of a whole set of "
            "sounds; make the sounds before, by as many `fromnoise generate` as you like, and name their folder"
        )
    if kind != "generate" and (guidance or count or classifier):
        raise InputError(f"--guidance, --count and --classifier are for generators; {kind} models take none of them")
    if beside and (kind != "generate" or count or classifier):
        raise InputError(
            "--embedder and --birdnet judge sets of sounds, made one for each sound of DATA: leave out --count and "
            f"--classifier (it is --embedder classifier:MODEL), and models other than generators; got {kind} models"
        )
    if without_licence and not beside:
        raise InputError("--without-licence chooses the sounds of DATA for --embedder and --birdnet; leave it out")
    mixtures = Mixtures(save_n, tag, enhance, mode, mix, sample_rate, [] if elsewhere else places, output)
    if kind != "separate":
        mixtures.require_unused(kind)
    asked = Asked(
        kind,
        contest.as_results(list(found.values()), kind),
        metrics,
        contest.whole_numbers(steps, "--steps"),
        common.comma_separated(sampler) or [None],
        seed,
        examples if output else 0,
        {"limit": limit, "device": ",".join(workers or map(str, places))}
        | ({"engine": engine or "local"} if elsewhere else {}),
        jobs or 1,
        elsewhere,
    )
    if beside:
        judges = [name for text in embedder or [] for name in common.comma_separated(text)]
        weights = contest.numbers(guidance, "--guidance")
        prepared = asked.sounds(judges, birdnet, without_licence, places[0], weights, batch_size)
    elif kind == "generate":
        prepared = asked.generation(
            classifier or CLASSIFIER, places[0], contest.numbers(guidance, "--guidance"), count or 500, batch_size
        )
    elif kind == "separate":
        prepared = asked.separation(mixtures)
    else:
        other = {"vocode": asked.vocoding, "autoencode": asked.autoencoding}
        prepared = other.get(kind, asked.enhancement)()
    wanted = [(data, part) for data in contest.names_of(what[-1]) for part in splits]
    mixtures.several = len({data for data, _ in wanted}) > 1
    runs = {(data, part): prepared(data, part) for data, part in wanted}  # what is missing is said before any work
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    load = partial(contest.again, contest.anywhere(found), kind, checkpoint)
    answers: dict[str, Any] = {}
    for (data, part), run in runs.items():
        label = f"{data}, {part}" if len(splits) > 1 else data
        folder = contest.folder_of(output, data, mixtures.several) if output is not None else None
        if folder is not None and len(splits) > 1:
            folder /= part
        with common.spoken_warnings(voice):
            if elsewhere:
                answer = scored.run(cast("Items", run), load, replace(spread, output=folder), voice)
            else:
                with voice.progress(f"evaluating {Path(data).name}") as progress:
                    answer = scored.Answer(run(lambda done, total, _, progress=progress: progress(done, total)))
        if answer.result is None:
            voice.say(f"recordings that are not done yet: {answer.waiting}; the run that finds none makes the report")
            answers[label] = {"waiting": answer.waiting, "failed": answer.failed}
            continue
        result = answer.result
        table = cells(result.rows, result.meta.metrics, seed)
        failed = contest.unscored(result.rows) if kind != "generate" else _bad(result)
        answers[label] = summary_json(result.rows, table, result.meta) | {"failed": failed}
        if not (quiet or as_json):
            contest.show(result, table, label if len(runs) > 1 else "")
        if folder is not None:
            voice.say(f"report: {write_report(folder, result.rows, result.examples, result.meta)}")
        _complain(voice, result.meta.skipped, [] if elsewhere else failed)  # workers' failures are said by then
    if as_json:
        voice.hand_over(answers if len(runs) > 1 else next(iter(answers.values())))
    if any(answer["failed"] for answer in answers.values()):
        raise typer.Exit(1)


def _bad(result: "Evaluation") -> list[dict[str, str]]:
    """The sounds of a set that could not be judged, and why."""
    from fromnoise.evaluation.judged import NO_CLASS

    return [one for one in contest.unscored(result.rows) if one["reason"] != NO_CLASS]


def _complain(voice: common.Voice, skipped: Sequence[str], failed: Sequence[dict[str, str]]) -> None:
    for reason in skipped:
        voice.complain(f"Warning: left out: {reason}")
    for one in failed:
        voice.complain(f"Error: {one['row']}: {one['file']} has no score: {one['reason']}")
