"""What `evaluate` was asked for, and how each task prepares it: a function (DATA, split) -> run, which checks DATA."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fromnoise.cli import common, contest, corpus

if TYPE_CHECKING:
    import torch

    from fromnoise.data.layouts import Split
    from fromnoise.data.timeline import Mode
    from fromnoise.evaluation.run import Evaluation
    from fromnoise.evaluation.trial import Trial

Run = Callable[[Callable[[int, int, str], None]], "Evaluation"]
Prepare = Callable[[str, str], Run]


@dataclasses.dataclass(frozen=True)
class Items:
    """The run of a task whose scores are those of single items, so that it has parts.

    make: models -> the trial; it can be told to other processes, which load models of their own. decisive: what decides
    the scores besides models and files.
    """

    make: "Callable[[Sequence[Any]], Trial[Any]]"
    models: Sequence[Any]
    examples: int
    jobs: int
    decisive: dict[str, Any]

    def __call__(self, progress: Callable[[int, int, str], None]) -> "Evaluation":
        return self.make(self.models).run(self.jobs, self.examples, progress)


@dataclasses.dataclass
class Mixtures:
    """The options that only separators have."""

    save_n: int | None
    tag: str | None
    enhance: bool
    mode: str | None
    mix: str | None
    sample_rate: int | None
    devices: "list[torch.device]"
    output: Path | None
    several: bool = False

    def require_unused(self, kind: str) -> None:
        """Raises InputError for an option that models of this kind do not have."""
        from fromnoise.types import InputError

        names = {"save_n": "--save-n", "tag": "--tag", "enhance": "--enhance", "mode": "--mode", "mix": "--mix"}
        names["sample_rate"] = "--sample-rate"
        used = [option for field, option in names.items() if getattr(self, field) not in (None, False)]
        if used or len(self.devices) > 1:
            what = ", ".join(used) or "several devices"
            raise InputError(f"{what}: for separators only, and {kind} models are evaluated; leave it out")

    def require_possible(self) -> None:
        """Raises InputError where something is to be saved and no place is named, or for another mode."""
        from fromnoise.types import InputError

        if self.mode not in (None, "min", "max"):
            raise InputError(f"--mode must be min or max, got {self.mode!r}")
        if (self.save_n or self.tag) and self.output is None:
            raise InputError("--save-n and --tag are about the files of -o REPORT; name a folder by -o")


class Asked:
    """The request: models, metrics (None: the task's own), and what all tasks take.

    jobs: processes that compute scores. elsewhere: workers do it, which may stand in another folder.
    """

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
        jobs: int = 1,
        elsewhere: bool = False,
    ) -> None:
        self.task, self.models, self.metrics, self.settings, self.jobs = task, models, metrics, settings, jobs
        self.examples, self.elsewhere = examples, elsewhere
        self.common = {"steps": steps, "samplers": samplers, "seed": seed}

    def chosen(self, default: Sequence[str], every: Sequence[str]) -> list[str]:
        """The metrics by name."""
        return {None: list(default), "all": list(every)}.get(self.metrics) or common.comma_separated(self.metrics)

    def place(self, data: str) -> str:
        """DATA as those who read it have to say it."""
        return corpus.anywhere(data) if self.elsewhere else data

    def _items(self, make: "Callable[..., Trial[Any]]", names: Sequence[str], more: dict[str, Any]) -> Items:
        """The run; names: the metrics; more: what else decides the scores."""
        decisive = {"command": "evaluate", "task": self.task, "metrics": list(names), **self.common, **more}
        return Items(partial(make, metrics=names, **self.common), self.models, self.examples, self.jobs, decisive)

    def enhancement(self) -> Prepare:
        """Pairs of noisy and clean."""
        from fromnoise.data.layouts import find_pairs
        from fromnoise.evaluation.run import pair_trial
        from fromnoise.evaluation.speech import DEFAULT_METRICS, METRICS, check_names

        names = check_names(self.chosen(DEFAULT_METRICS, list(METRICS)))

        def prepare(data: str, split: str) -> Run:
            pairs = find_pairs(self.place(data), cast("Split", split))[: self.settings["limit"]]
            settings = {"data": data, "split": split, **self.settings}
            return self._items(partial(pair_trial, pairs=pairs, settings=settings), names, {})

        return prepare

    def separation(self, options: Mixtures) -> Prepare:
        """Mixtures and their sources."""
        from fromnoise.data.sources import find_mixtures
        from fromnoise.evaluation import sources
        from fromnoise.evaluation.kept import Kept
        from fromnoise.evaluation.separated import SourceResults
        from fromnoise.evaluation.speech import METRICS

        separators = [model for model in self.models if not isinstance(model, SourceResults)]
        names = {tuple(model.model.config.names) for model in separators}
        roles = bool(names) and () not in names
        speech = options.enhance or names == {("speech", "noise")}
        default = sources.ENHANCED_METRICS if speech else sources.DEFAULT_METRICS
        chosen = sources.check_source_names(self.chosen(default, [*sources.SOURCE_METRICS, *METRICS]))
        rate = options.sample_rate or min((model.sample_rate for model in separators), default=8000)
        counts = {model.sources for model in separators}
        options.require_possible()
        for model in separators:  # asked before anything is read: the rows would fail one by one
            for steps, sampler in product(self.common["steps"], self.common["samplers"]):
                model.network_calls(steps, sampler)

        def prepare(data: str, split: str) -> Run:
            mode = cast("Mode", options.mode or "min")
            wanted = next(iter(counts)) if len(counts) == 1 else None
            found = find_mixtures(self.place(data), split, mode, rate, wanted, options.mix or "")
            found = found[: self.settings["limit"]]
            named = next(iter(names)) if len(names) == 1 else ()
            kept = None
            if options.output is not None:
                count = None if options.save_n == -1 else options.save_n or 0
                folder = contest.folder_of(options.output, data, options.several)
                kept = Kept(folder.absolute(), split, count, options.tag)
            judged = {"roles": roles or speech, "only": 0 if speech else None}
            make = partial(
                _separation,
                named=named,
                split=split,
                mixtures=found,
                settings={"data": data, "split": split, **self.settings, "mode": mode, "mix": options.mix},
                kept=kept,
                devices=options.devices,
                **judged,
            )
            more = {"mode": mode, "mix": options.mix, "rate": rate, "save_n": options.save_n, "tag": options.tag}
            return self._items(make, chosen, judged | more | {"split": split})

        return prepare

    def vocoding(self) -> Prepare:
        """Recordings, each against its resynthesis."""
        from fromnoise.evaluation import resynthesis, vocoding
        from fromnoise.evaluation.run import Results
        from fromnoise.frontends import MELS

        vocoders = [model for model in self.models if not isinstance(model, Results)]
        mels = [vocoder.definition for vocoder in vocoders] or [MELS["tacotron2-22k"]]
        return self._resynthesis(
            vocoding.DEFAULT_METRICS,
            min(mel.sample_rate for mel in mels),
            {"griffin_lim_iterations": resynthesis.ITERATIONS},
            wrap=resynthesis.Resynthesis,
            baseline=resynthesis.GriffinLim(mels[0]),
            slack=resynthesis.slack_of(mels),
        )

    def autoencoding(self) -> Prepare:
        """Recordings, each against what is left of it after a trip to the latent."""
        from fromnoise.evaluation import resynthesis, vocoding
        from fromnoise.evaluation.run import SLACK, Results
        from fromnoise.types import InputError

        models = [model for model in self.models if not isinstance(model, Results)]
        if not models:
            raise InputError("expected an autoencoder among the models: its front end is what the others stand beside")
        return self._resynthesis(
            vocoding.SOUND_METRICS,
            min(model.sample_rate for model in models),
            {},
            wrap=resynthesis.Reconstruction,
            baseline=resynthesis.FrontEnd(models[0].model.frontend),
            slack=SLACK,
        )

    def _resynthesis(self, metrics: Sequence[str], limit: int, facts: Mapping[str, Any], **given: Any) -> Prepare:
        """What both share; metrics: where none are asked for. limit: the highest rate in Hz."""
        from fromnoise.evaluation import resynthesis
        from fromnoise.evaluation.speech import METRICS, check_names

        names = check_names(self.chosen(metrics, list(METRICS)))

        def prepare(data: str, split: str) -> Run:
            pairs, groups = resynthesis.find_recordings(self.place(data), split)
            pairs = pairs[: self.settings["limit"]]
            kept = {pair.name for pair in pairs}
            groups = {name: tuple(n for n in files if n in kept) for name, files in groups.items()}
            make = partial(
                _resynthesised,
                pairs=pairs,
                reader=resynthesis.FirstChannel(limit),
                settings={"data": data, "split": split, **self.settings, **facts},
                groups={name: files for name, files in groups.items() if files},
                **given,
            )
            return self._items(make, names, {})

        return prepare

    def sounds(
        self,
        embedders: Sequence[str],
        birdnet: Path | None,
        without_licence: str | None,
        device: Any,
        guidance: Sequence[float | None],
        batch_size: int,
    ) -> Prepare:
        """Sets of sounds beside those of DATA."""
        from fromnoise.evaluation import sounds
        from fromnoise.evaluation.birdnet import BirdNET
        from fromnoise.evaluation.embedders import embedder_of
        from fromnoise.evaluation.sound_sets import Tools

        judges = tuple(embedder_of(name, device) for name in embedders)
        tools = Tools(judges, None if birdnet is None else BirdNET(birdnet.expanduser()))
        names = sounds.chosen_metrics([] if self.metrics is None else self.chosen([], tools.metrics), tools)

        def prepare(data: str, split: str) -> Run:
            clips = sounds.real_clips(data, cast("Split", split), without_licence, self.settings["limit"])
            settings = {"data": data, "split": split, "embedders": list(embedders), **self.settings}
            settings |= {"without_licence": without_licence} if without_licence else {}
            return lambda progress: sounds.evaluate_sounds(
                self.models,
                clips,
                tools,
                metrics=names,
                guidance=guidance,
                batch_size=batch_size,
                progress=progress,
                settings=settings,
                examples=self.examples,
                **self.common,
            )

        return prepare

    def generation(
        self, judge: str, device: Any, guidance: Sequence[float | None], count: int, batch_size: int
    ) -> Prepare:
        """Sets of sounds, judged by a classifier."""
        from fromnoise import hub
        from fromnoise.evaluation import sets
        from fromnoise.evaluation.generation import SET_METRICS, check_set_names
        from fromnoise.types import InputError

        names = check_set_names(self.chosen(sets.DEFAULT_METRICS, list(SET_METRICS)))
        classifier = hub.load(judge, device)
        if classifier.task != "classify":
            raise InputError(f"the model {judge!r} is for the task {classifier.task!r}; expected a classifier")

        def prepare(data: str, split: str) -> Run:
            train, test = sets.find_sets(data, self.settings["limit"])
            settings = {"data": data, "split": split, **self.settings}
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
                examples=self.examples,
                **self.common,
            )

        return prepare


def _separation(models: Sequence[Any], named: Sequence[str], split: str, **given: Any) -> "Trial[Any]":
    """Separators and folders of sources; named: how the sources may be called in the folders."""
    from fromnoise.evaluation.separated import SourceResults
    from fromnoise.evaluation.separation_run import separation_trial

    entered = [
        dataclasses.replace(one, names=tuple(named), split=split) if isinstance(one, SourceResults) else one
        for one in models
    ]
    return separation_trial(entered, **given)


def _resynthesised(models: Sequence[Any], wrap: Callable[[Any], Any], **given: Any) -> "Trial[Any]":
    """Models that make a recording anew, each in what makes one of them for `run.evaluate`."""
    from fromnoise.evaluation.run import Results, pair_trial

    return pair_trial([one if isinstance(one, Results) else wrap(one) for one in models], **given)
