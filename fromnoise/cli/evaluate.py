"""`fromnoise evaluate`: score models, or folders of finished results, in the way of their task."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from fromnoise.cli import common, contest

if TYPE_CHECKING:
    from fromnoise.data.layouts import Split
    from fromnoise.evaluation.run import Evaluation

CLASSIFIER = "digits-classifier"


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
    steps: Annotated[str | None, typer.Option(metavar="1,2,4", help="Numbers of steps, each a row.")] = None,
    sampler: Annotated[
        str | None, typer.Option("--sampler", "--sampler-type", metavar="A,B", help="Samplers, each a row.")
    ] = None,
    guidance: Annotated[
        str | None, typer.Option(metavar="1,2,3", help="Of a generator: pulls towards the label, each a row.")
    ] = None,
    metrics: Annotated[str | None, typer.Option(metavar="A,B", help="Scores; 'all' for every one.")] = None,
    split: Annotated[str, typer.Option(metavar="train|valid|test", help="Which part of DATA.")] = "test",
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only the first N recordings by name.  (Generation: any N.)")
    ] = None,
    count: Annotated[
        int | None,
        typer.Option("--count", "-n", metavar="N", min=1, help="Of a generator: sounds of each label.  [500]"),
    ] = None,
    classifier: Annotated[
        str | None, typer.Option(metavar="MODEL", help=f"Who judges generated sounds.  [{CLASSIFIER}]")
    ] = None,
    batch_size: Annotated[int, typer.Option(metavar="B", min=1, help="Of a generator: sounds made at once.")] = 16,
    task: Annotated[
        str | None, typer.Option(metavar="|".join(contest.TASKS), help="Of folders alone.  [default: the models']")
    ] = None,
    examples: Annotated[
        int, typer.Option(metavar="N", min=0, help="Recordings to hear in the report (generation: of each label).")
    ] = 4,
    jobs: Annotated[int, typer.Option("--jobs", "-j", metavar="N", min=1, help="Processes that compute scores.")] = 1,
    seed: common.Seed = 0,
    device: common.Device = "auto",
    checkpoint: common.Checkpoint = "best",
    quiet: common.Quiet = False,
    as_json: common.AsJson = False,
) -> None:
    """Score models on recordings: enhancers, vocoders and generators, each in the way of its task.

    MODEL_OR_FOLDER: bundled names, model or run folders, hub ids, or folders of finished files, one or several with
    commas between. DATA: a folder, in one of the layouts of the documentation; several, with commas, make a table each.

    An enhancer hears noisy recordings and is scored against the clean ones (DATA has `noisy` and `clean` inside); the
    first row is the input, the model `noisy`. A vocoder gets the mel of each recording; the first row is Griffin-Lim
    from the same mel. A generator's sounds are judged by a classifier and compared with DATA's training set.

    The exit code is 1 when some file has no score at all.

    Examples:

    fromnoise evaluate enhance-small DATA -o report --steps 1,2,4

    fromnoise evaluate runs/mine,results/theirs DATA --metrics pesq_wb,estoi,si_sdr --limit 50

    fromnoise evaluate vocode-small DATA -o report --jobs 2

    fromnoise evaluate digits-small DATA -o report -n 500 --classifier digits-classifier --guidance 1,2,3
    """
    from fromnoise.data.layouts import VOICEBANK
    from fromnoise.evaluation.report import cells, summary_json, write_report
    from fromnoise.types import InputError

    if len(what) > 2 or (len(what) == 1 and not model):
        raise InputError(f"expected MODEL_OR_FOLDER and DATA, got {' '.join(what)}; join several models by commas")
    if split not in VOICEBANK:
        raise InputError(f"--split must be one of {', '.join(VOICEBANK)}, got {split!r}")
    voice, seed = common.Voice(quiet, as_json), common.choose_seed(seed)
    place = common.choose_device(device)
    names = [name for text in what[:-1] for name in contest.names_of(text)] + (model or [])
    found = contest.contestants(names, place, checkpoint)
    kind = contest.task_of(found, task, classifier is not None)
    if kind != "generate" and (guidance or count or classifier):
        raise InputError(f"--guidance, --count and --classifier are for generators; {kind} models take none of them")
    asked = Asked(
        kind,
        contest.as_results(found, kind),
        metrics,
        contest.whole_numbers(steps, "--steps"),
        common.comma_separated(sampler) or [None],
        seed,
        examples if output else 0,
        {"split": split, "limit": limit, "device": str(place)},
    )
    if kind == "generate":
        prepared = asked.generation(
            classifier or CLASSIFIER, place, contest.numbers(guidance, "--guidance"), count or 500, batch_size
        )
    else:
        prepared = asked.vocoding(jobs) if kind == "vocode" else asked.enhancement(jobs)
    runs = {data: prepared(data) for data in contest.names_of(what[-1])}  # what is missing is said before any work
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    answers: dict[str, Any] = {}
    for data, run in runs.items():
        with voice.progress(f"evaluating {Path(data).name}") as progress:
            result = run(lambda done, total, _, progress=progress: progress(done, total))
        table = cells(result.rows, result.meta.metrics, seed)
        failed = contest.unscored(result.rows) if kind != "generate" else _bad(result)
        answers[data] = summary_json(result.rows, table, result.meta) | {"failed": failed}
        if not (quiet or as_json):
            contest.show(result, table, data if len(runs) > 1 else "")
        if output is not None:
            folder = output if len(runs) == 1 else output / Path(data).name
            voice.say(f"report: {write_report(folder, result.rows, result.examples, result.meta)}")
        _complain(voice, result.meta.skipped, failed)
    if as_json:
        voice.hand_over(answers if len(runs) > 1 else next(iter(answers.values())))
    if any(answer["failed"] for answer in answers.values()):
        raise typer.Exit(1)


Run = Callable[[Callable[[int, int, str], None]], "Evaluation"]


class Asked:
    """What was asked for, and how each task prepares it: a function DATA -> run, which checks DATA."""

    def __init__(
        self,
        task: str,
        models: list[Any],
        metrics: str | None,
        steps: Sequence[int | None],
        samplers: Sequence[str | None],
        seed: int,
        examples: int,
        settings: dict[str, Any],
    ) -> None:
        self.task, self.models, self.metrics, self.settings = task, models, metrics, settings
        self.common = {"steps": steps, "samplers": samplers, "seed": seed, "examples": examples}

    @property
    def split(self) -> "Split":
        return cast("Split", self.settings["split"])

    def chosen(self, default: Sequence[str], every: Sequence[str]) -> list[str]:
        """The metrics by name."""
        return {None: list(default), "all": list(every)}.get(self.metrics) or common.comma_separated(self.metrics)

    def enhancement(self, jobs: int) -> Callable[[str], Run]:
        """Pairs of noisy and clean."""
        from fromnoise.data.layouts import find_pairs
        from fromnoise.evaluation.run import evaluate
        from fromnoise.evaluation.speech import DEFAULT_METRICS, METRICS, check_names

        names = check_names(self.chosen(DEFAULT_METRICS, list(METRICS)))

        def prepare(data: str) -> Run:
            pairs = find_pairs(data, self.split)[: self.settings["limit"]]
            settings = {"data": data, **self.settings}
            return lambda progress: evaluate(
                self.models, pairs, metrics=names, jobs=jobs, progress=progress, settings=settings, **self.common
            )

        return prepare

    def vocoding(self, jobs: int) -> Callable[[str], Run]:
        """Recordings, each against its resynthesis."""
        from fromnoise.evaluation import resynthesis, vocoding
        from fromnoise.evaluation.run import Results, evaluate
        from fromnoise.evaluation.speech import METRICS, check_names
        from fromnoise.frontends import MELS

        names = check_names(self.chosen(vocoding.DEFAULT_METRICS, list(METRICS)))
        vocoders = [model for model in self.models if not isinstance(model, Results)]
        mels = [vocoder.definition for vocoder in vocoders] or [MELS["tacotron2-22k"]]
        models = [m if isinstance(m, Results) else resynthesis.Resynthesis(m) for m in self.models]
        reader = resynthesis.FirstChannel(min(mel.sample_rate for mel in mels))

        def prepare(data: str) -> Run:
            pairs, groups = resynthesis.find_recordings(data, self.split)
            pairs = pairs[: self.settings["limit"]]
            kept = {pair.name for pair in pairs}
            groups = {name: tuple(n for n in files if n in kept) for name, files in groups.items()}
            settings = {"data": data, **self.settings, "griffin_lim_iterations": resynthesis.ITERATIONS}
            return lambda progress: evaluate(
                models,
                pairs,
                metrics=names,
                jobs=jobs,
                progress=progress,
                reader=reader,
                settings=settings,
                baseline=resynthesis.GriffinLim(mels[0]),
                slack=resynthesis.slack_of(mels),
                groups={name: files for name, files in groups.items() if files},
                **self.common,
            )

        return prepare

    def generation(
        self, judge: str, device: Any, guidance: Sequence[float | None], count: int, batch_size: int
    ) -> Callable[[str], Run]:
        """Sets of sounds, judged by a classifier."""
        from fromnoise import hub
        from fromnoise.evaluation import sets
        from fromnoise.evaluation.generation import SET_METRICS, check_set_names
        from fromnoise.types import InputError

        names = check_set_names(self.chosen(sets.DEFAULT_METRICS, list(SET_METRICS)))
        classifier = hub.load(judge, device)
        if classifier.task != "classify":
            raise InputError(f"the model {judge!r} is for the task {classifier.task!r}; expected a classifier")

        def prepare(data: str) -> Run:
            train, test = sets.find_sets(data, self.settings["limit"])
            settings = {"data": data, **self.settings}
            return lambda progress: sets.evaluate_sets(
                self.models,
                train,
                test,
                classifier,
                metrics=names,
                count=count,
                guidance=guidance,
                batch_size=batch_size,
                progress=progress,
                settings=settings,
                **self.common,
            )

        return prepare


def _bad(result: "Evaluation") -> list[dict[str, str]]:
    """The sounds of a set that could not be judged, and why."""
    from fromnoise.evaluation.judged import NO_CLASS

    return [one for one in contest.unscored(result.rows) if one["reason"] != NO_CLASS]


def _complain(voice: common.Voice, skipped: Sequence[str], failed: Sequence[dict[str, str]]) -> None:
    for reason in skipped:
        voice.complain(f"Warning: left out: {reason}")
    for one in failed:
        voice.complain(f"Error: {one['row']}: {one['file']} has no score: {one['reason']}")
