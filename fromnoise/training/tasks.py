"""What the loop trains: a loss on a batch, what to hear and to score in validation, and which weights move.

A batch holds the waves `clean` and, as the task needs, `noisy`, `b 1 n`, the classes `label`, `b`, captions `text` as
bytes, or `sources`, `b K n`, with the `mixture`, `b 1 n`, where that is more than their sum. An enhancer has two
stages: its denoiser (or regression network), and its refiner, which learns on what the finished rest samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fromnoise.data.captions import from_bytes
from fromnoise.evaluation.separation import ordered_si_sdr
from fromnoise.evaluation.speech import check_names, measure
from fromnoise.objectives import Objective
from fromnoise.recipes.base import Recipe
from fromnoise.samplers import PositionNoise
from fromnoise.tasks.autoencoding import AutoencodingModel
from fromnoise.tasks.classification import ClassificationModel
from fromnoise.tasks.enhancement_model import EnhancementModel, Input
from fromnoise.tasks.generation_model import GenerationModel, Told
from fromnoise.tasks.losses import SpectralLoss, by_length
from fromnoise.tasks.separation_model import SeparationModel
from fromnoise.tasks.source_losses import SourceLoss, Strategy
from fromnoise.tasks.upsampling import UpsamplingModel
from fromnoise.tasks.vocoding import VocodingModel
from fromnoise.types import InputError

Batch = dict[str, Tensor]
Judged = tuple[dict[str, float], dict[str, Tensor]]


@runtime_checkable
class Trainable(Protocol):
    """What a recipe hands to the loop. needs: what a batch must hold. trained: prefix of the weights that move.

    `judge` gives the named scores of a validation batch, and waves `b 1 n` to listen to, by name; `require` raises
    InputError for a recipe that cannot be trained so.
    """

    needs: ClassVar[tuple[str, ...]]

    @property
    def model(self) -> Any: ...
    @property
    def trained(self) -> str: ...
    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor: ...
    def valid_loss(self, batch: Batch, generator: torch.Generator, seeds: Sequence[int]) -> Tensor: ...
    def judge(self, batch: Batch, seeds: Sequence[int], scores: Sequence[str], rate: int) -> Judged: ...
    @classmethod
    def of(cls, recipe: Recipe, model: Any) -> "Trainable": ...
    @staticmethod
    def require(recipe: Recipe) -> None: ...


@dataclass(frozen=True)
class EnhanceTask:
    """Trains the backbone, and with it a generator that learns jointly; others, and a refiner, stay as they are.

    mask_padding: the batch's `length` says how many samples are no filling, and only those count.
    """

    needs: ClassVar[tuple[str, ...]] = ("clean", "noisy")

    model: EnhancementModel
    objective: Objective
    spectral: SpectralLoss | None = None
    trained: str = "denoiser"
    mask_padding: bool = False

    @classmethod
    def of(cls, recipe: Recipe, model: Any) -> "EnhanceTask":
        trained = "" if recipe.joint else "denoiser"
        return cls(model, recipe.objective(), recipe.loss, trained, recipe.mask_padding)

    @staticmethod
    def require(recipe: Recipe) -> None:
        check_names(recipe.scores)
        require_lengths(recipe)
        if recipe.joint and recipe.refiner is not None:
            raise InputError("a refiner is not trained jointly; leave out refiner, or set joint=0")

    def loss(self, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        """Loss of each item, drawn with `generator`."""
        length = batch["length"] if self.mask_padding else None
        return self.model.loss(batch["clean"], batch["noisy"], self.objective, self.spectral, generator, length)

    def valid_loss(self, batch: Batch, generator: torch.Generator, seeds: Sequence[int]) -> Float[Tensor, " b"]:
        """The same on fixed draws."""
        return self.loss(batch, generator)

    def judge(self, batch: Batch, seeds: Sequence[int], scores: Sequence[str], rate: int) -> Judged:
        """Waves enhanced by the model's own run, at the level of the input, one seed an item."""
        return judge_restored(self.model, batch, seeds, scores, rate)


@dataclass(frozen=True)
class RefineTask:
    """Trains the refiner on samples of the frozen rest, or all networks through the sampler."""

    needs: ClassVar[tuple[str, ...]] = ("clean", "noisy")

    model: EnhancementModel
    spectral: SpectralLoss
    trained: str = "refiner"
    inputs: Sequence[Input] = ("mixed",)
    through: bool = False
    mask_padding: bool = False

    @classmethod
    def of(cls, recipe: Recipe, model: Any) -> "RefineTask":
        trained = "" if recipe.through else "generator" if model.reuses_generator else "refiner"
        return cls(model, recipe.loss, trained, recipe.refine_on, recipe.through, recipe.mask_padding)

    @staticmethod
    def require(recipe: Recipe) -> None:
        check_names(recipe.scores)
        require_lengths(recipe)
        if recipe.refiner is None or recipe.loss is None:
            raise InputError("task=refine needs a refiner and a loss; choose them by refiner=NAME and loss=spectral")
        if recipe.loss.wave or recipe.loss.si_sdr:
            raise InputError("the refiner's loss is spectral alone; set loss.wave=0 and loss.si_sdr=0")
        if not recipe.refine_on:
            raise InputError("refine_on names no input; set refine_on=[mixed], or more of mixed, generated and noisy")
        if recipe.through and "noisy" in recipe.refine_on:
            raise InputError("through=true trains on samples; leave noisy out of refine_on")

    def loss(self, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        """Loss of each item; the sample is drawn with seeds from `generator`."""
        seeds = torch.randint(2**62, (len(batch["clean"]),), generator=generator).tolist()
        length = batch["length"] if self.mask_padding else None
        return self.model.refinement_loss(
            batch["clean"], batch["noisy"], self.spectral, seeds, self.inputs, self.through, length
        )

    def valid_loss(self, batch: Batch, generator: torch.Generator, seeds: Sequence[int]) -> Float[Tensor, " b"]:
        """The same of refined samples on fixed draws, without touching the refiner's statistics."""
        length = batch["length"] if self.mask_padding else None
        x0, y = self.model.encode_pair(batch["clean"], batch["noisy"], length)
        mask = None if length is None else self.model.mask_of(x0, length)
        loss = self.spectral(self.model.restore(y, PositionNoise(seeds), self.model.default_run()), x0, mask)
        return loss if mask is None else by_length(loss, mask)

    def judge(self, batch: Batch, seeds: Sequence[int], scores: Sequence[str], rate: int) -> Judged:
        """Enhanced and refined waves; one seed an item."""
        return judge_restored(self.model, batch, seeds, scores, rate)


@dataclass(frozen=True)
class VocodeTask:
    """Trains a vocoder's backbone; the mel is made from the clip itself."""

    needs: ClassVar[tuple[str, ...]] = ("clean",)

    model: VocodingModel
    objective: Objective
    trained: str = "denoiser"

    @classmethod
    def of(cls, recipe: Recipe, model: Any) -> "VocodeTask":
        return cls(model, recipe.objective())

    @staticmethod
    def require(recipe: Recipe) -> None:
        check_names(recipe.scores)
        require_channels(recipe, 1)

    def loss(self, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        """Loss of each item, drawn with `generator`; what lies above a clip's own band does not count."""
        return self.model.loss(batch["clean"], self.objective, generator, batch.get("band_hz"))

    def valid_loss(self, batch: Batch, generator: torch.Generator, seeds: Sequence[int]) -> Float[Tensor, " b"]:
        """The same on fixed draws."""
        return self.loss(batch, generator)

    def judge(self, batch: Batch, seeds: Sequence[int], scores: Sequence[str], rate: int) -> Judged:
        """Waves from the clips' mels by the model's own run, one seed an item."""
        clean = batch["clean"]
        wave = self.model.sample(self.model.mel.encode(clean), PositionNoise(seeds), self.model.default_run())
        sounds = {"estimate": wave[..., : clean.shape[-1]].float(), "clean": clean}
        return speech_scores(clean, sounds["estimate"], scores, rate), sounds


@dataclass(frozen=True)
class GenerateTask:
    """Trains a generator and its table of classes or its own reader of texts; a label or text is hidden with
    probability `drop_label`. Batches hold waves `clean`, or a `latent` that was made of them before."""

    needs: ClassVar[tuple[str, ...]] = ("label",)

    model: GenerationModel
    objective: Objective
    drop_label: float = 0.0
    trained: str = ""

    @classmethod
    def of(cls, recipe: Recipe, model: Any) -> "GenerateTask":
        return cls(model, recipe.objective(), recipe.drop_label)

    @staticmethod
    def require(recipe: Recipe) -> None:
        require_scores(recipe, ())
        require_encoded(recipe)
        require_channels(recipe, 1 if recipe.latent is None else recipe.latent["encoder"]["in_channels"])
        if recipe.duration and "duration" not in recipe.data.gives:
            raise InputError("duration=true needs data that tells durations; choose data=clips, or set duration=false")
        if recipe.labels:
            require_equal_labels(recipe)
        if recipe.text is not None and not getattr(recipe.data, "captions", ()):
            raise InputError("a model of texts needs captions; set data.captions=[COLUMN,...], e.g. [caption]")
        told = bool(recipe.labels) or recipe.text is not None
        if not 0 <= recipe.drop_label <= 1 or (recipe.drop_label and not told):
            raise InputError(
                f"drop_label must lie between 0 and 1, and be 0 without labels or text, got {recipe.drop_label}"
            )

    def told(self, batch: Batch) -> Told:
        """The captions of the batch, for a model that reads texts, or its labels."""
        return batch["label"] if self.model.text is None else from_bytes(batch["text"])

    def loss(self, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        """Loss of each item, drawn with `generator`, which also hides labels and texts."""
        return self._loss(batch, generator, self.drop_label)

    def valid_loss(self, batch: Batch, generator: torch.Generator, seeds: Sequence[int]) -> Float[Tensor, " b"]:
        """The same on fixed draws, every label or text told."""
        return self._loss(batch, generator, 0.0)

    def _loss(self, batch: Batch, generator: torch.Generator, drop_label: float) -> Float[Tensor, " b"]:
        x0 = batch["latent"] if "latent" in batch else self.model.frontend.encode(batch["clean"])
        told, seconds = self.told(batch), batch.get("duration")
        return self.model.encoded_loss(x0, told, self.objective, generator, drop_label, seconds)

    def judge(self, batch: Batch, seeds: Sequence[int], scores: Sequence[str], rate: int) -> Judged:
        """Sounds of the labels or captions of the clips, one seed an item; what they are worth is a matter of many (see
        `fromnoise evaluate`), so there are no scores."""
        model, noise = self.model, PositionNoise(seeds)
        n = batch["clean"].shape[-1] if "clean" in batch else round(model.config.seconds * rate)
        x = model.prior(noise, len(seeds), n)
        x = model.sample(x, self.told(batch), noise, model.default_run(), seconds=batch.get("duration"))
        estimate = model.frontend.decode(x, n)[:, :1].float()
        return {}, {"estimate": estimate} | ({"clean": batch["clean"][:, :1]} if "clean" in batch else {})


@dataclass(frozen=True)
class AutoencodeTask:
    """Trains an autoencoder, encoder and decoder at once."""

    needs: ClassVar[tuple[str, ...]] = ("clean",)

    model: AutoencodingModel
    objective: Objective
    trained: str = ""

    @classmethod
    def of(cls, recipe: Recipe, model: Any) -> "AutoencodeTask":
        return cls(model, recipe.objective())

    @staticmethod
    def require(recipe: Recipe) -> None:
        require_scores(recipe, ())
        require_channels(recipe, recipe.encoder.in_channels)

    def loss(self, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        """Loss of each item, drawn with `generator`."""
        return self.model.loss(batch["clean"], self.objective, generator)

    def valid_loss(self, batch: Batch, generator: torch.Generator, seeds: Sequence[int]) -> Float[Tensor, " b"]:
        """The same on fixed draws."""
        return self.loss(batch, generator)

    def judge(self, batch: Batch, seeds: Sequence[int], scores: Sequence[str], rate: int) -> Judged:
        """The clips there and back by the model's own run, one seed an item, their first channel."""
        clean = batch["clean"]
        latent = self.model.encode(clean.expand(-1, self.model.channels, -1))
        noise = partial(PositionNoise, seeds)
        wave = self.model.decode(latent, clean.shape[-1], noise, self.model.default_run())
        return {}, {"estimate": wave[:, :1].float(), "clean": clean[:, :1]}


@dataclass(frozen=True)
class UpsampleTask:
    """Trains an upsampler's backbone; the low version is made from the clip itself."""

    needs: ClassVar[tuple[str, ...]] = ("clean",)

    model: UpsamplingModel
    objective: Objective
    trained: str = "denoiser"

    @classmethod
    def of(cls, recipe: Recipe, model: Any) -> "UpsampleTask":
        return cls(model, recipe.objective())

    @staticmethod
    def require(recipe: Recipe) -> None:
        check_names(recipe.scores)
        require_channels(recipe, getattr(recipe.backbone, "in_channels", 1))

    def loss(self, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        """Loss of each item, drawn with `generator`."""
        return self.model.loss(batch["clean"], self.objective, generator)

    def valid_loss(self, batch: Batch, generator: torch.Generator, seeds: Sequence[int]) -> Float[Tensor, " b"]:
        """The same on fixed draws."""
        return self.loss(batch, generator)

    def judge(self, batch: Batch, seeds: Sequence[int], scores: Sequence[str], rate: int) -> Judged:
        """The clips brought to the low rate and back by the model's own run, one seed an item, their first channel."""
        clean = batch["clean"]
        low = self.model.lower(clean.expand(-1, self.model.channels, -1))
        gain = self.model.gain_of(low)
        wave = self.model.restore(low * gain, PositionNoise(seeds), self.model.default_run()).float() / gain
        lifted = self.model.up(low)[:, :1, : clean.shape[-1]]
        sounds = {"lifted": lifted, "estimate": wave[:, :1, : clean.shape[-1]], "clean": clean[:, :1]}
        return speech_scores(sounds["clean"], sounds["estimate"], scores, rate), sounds


@dataclass(frozen=True)
class SeparateTask:
    """Trains a separator's backbone. Scores: `si_sdr` and its improvement `si_sdri` over the sources in their best
    order, without means and clamped to 30 dB as in DiffSep's validation, and metrics of speech."""

    needs: ClassVar[tuple[str, ...]] = ("sources",)

    model: SeparationModel
    objective: Objective
    strategy: Strategy
    source_loss: SourceLoss | None = None
    trained: str = "denoiser"

    @classmethod
    def of(cls, recipe: Recipe, model: Any) -> "SeparateTask":
        return cls(model, recipe.objective(), recipe.strategy, recipe.source_loss)

    @staticmethod
    def require(recipe: Recipe) -> None:
        check_names([name for name in recipe.scores if name != "si_sdri"])
        if recipe.data.voices != recipe.sources:
            raise InputError(
                f"expected as many sources in the data as in the model, got data.voices={recipe.data.voices} and "
                f"sources={recipe.sources}; set both"
            )

    def loss(self, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        """Loss of each item, drawn with `generator`."""
        mixture = batch.get("mixture")
        return self.model.loss(batch["sources"], self.objective, self.strategy, self.source_loss, generator, mixture)

    def valid_loss(self, batch: Batch, generator: torch.Generator, seeds: Sequence[int]) -> Float[Tensor, " b"]:
        """The same on fixed draws."""
        return self.loss(batch, generator)

    def judge(self, batch: Batch, seeds: Sequence[int], scores: Sequence[str], rate: int) -> Judged:
        """Sources by the model's own run, one seed an item; those called noise are not judged as speech."""
        sources = batch["sources"]
        mixture = batch.get("mixture", sources.sum(1, keepdim=True))
        normal, gain, mean = self.model.normalise(mixture)
        found = self.model.separate(normal, PositionNoise(seeds), self.model.default_run())
        estimates = self.model.restore(mixture, found.float(), gain, mean)
        spoken = [k for k, name in enumerate(self.model.names) if name != "noise"]
        values, estimates = separation_scores(sources, estimates, mixture, scores, rate, spoken)
        sounds = {"mixture": mixture}
        for k, name in enumerate(self.model.names):
            sounds |= {f"estimate of {name}": estimates[:, k : k + 1], name: sources[:, k : k + 1]}
        return values, sounds


@dataclass(frozen=True)
class ClassifyTask:
    """Trains a classifier; its score is the accuracy."""

    needs: ClassVar[tuple[str, ...]] = ("clean", "label")

    model: ClassificationModel
    trained: str = "network"

    @classmethod
    def of(cls, recipe: Recipe, model: Any) -> "ClassifyTask":
        return cls(model)

    @staticmethod
    def require(recipe: Recipe) -> None:
        require_scores(recipe, ("accuracy",))
        require_equal_labels(recipe)
        require_channels(recipe, 1)

    def loss(self, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        """Cross entropy of each item, of a copy changed by draws with `generator`."""
        return self.model.loss(batch["clean"], batch["label"], generator)

    def valid_loss(self, batch: Batch, generator: torch.Generator, seeds: Sequence[int]) -> Float[Tensor, " b"]:
        """Cross entropy of the clips as they are."""
        return self.loss(batch, generator)

    def judge(self, batch: Batch, seeds: Sequence[int], scores: Sequence[str], rate: int) -> Judged:
        """The share of right answers; nothing to hear."""
        right = float(self.model.accuracy(batch["clean"], batch["label"]).mean())
        return dict.fromkeys(scores, right), {}


def require_lengths(recipe: Recipe) -> None:
    """Raises InputError when padding is to be masked in data that never says how much of an item it is."""
    if recipe.mask_padding and "length" not in recipe.data.gives:
        raise InputError("mask_padding needs data that tells lengths; choose data=paired, or set mask_padding=false")


def require_scores(recipe: Recipe, known: Sequence[str]) -> None:
    """Raises InputError unless every score is one that the task knows."""
    for name in recipe.scores:
        if name not in known:
            raise InputError(f"task={recipe.task} knows the scores {list(known)}, got {name!r}; correct scores=[...]")


def require_channels(recipe: Recipe, most: int) -> None:
    """Raises InputError where clips have more than one channel and not as many as the model."""
    given = getattr(recipe.data, "channels", 1)
    if given not in (1, most):
        raise InputError(f"expected clips of 1 channel{f' or {most}' * (most > 1)}, got data.channels={given}; set it")


def require_encoded(recipe: Recipe) -> None:
    """Raises InputError unless the data holds waves, or latents for a model of latents."""
    given = recipe.data.gives
    if "clean" not in given and "latent" not in given:
        raise InputError(f"task={recipe.task} needs data with clean in it; choose data=clips")
    if "clean" not in given and recipe.latent is None:
        raise InputError("data=latents is for a model that generates latents; choose data=clips, or set latent")


def require_equal_labels(recipe: Recipe) -> None:
    """Raises InputError unless the data counts the classes as the model does."""
    if tuple(recipe.data.labels) != tuple(recipe.labels):
        raise InputError(
            f"expected the same classes twice, got labels={list(recipe.labels)} and data.labels="
            f"{list(recipe.data.labels)}; set both, or data.labels='${{labels}}'"
        )


def judge_restored(
    model: EnhancementModel, batch: Batch, seeds: Sequence[int], scores: Sequence[str], rate: int
) -> Judged:
    """Scores of enhanced waves, and the three waves of each item."""
    sounds = {"noisy": batch["noisy"], "estimate": restore(model, batch["noisy"], seeds), "clean": batch["clean"]}
    return speech_scores(batch["clean"], sounds["estimate"], scores, rate), sounds


def speech_scores(
    clean: Float[Tensor, "b 1 n"], estimate: Float[Tensor, "b 1 n"], scores: Sequence[str], rate: int
) -> dict[str, float]:
    """The mean of each score over the items that can be judged; NaN when none can."""
    pairs = zip(clean.float().cpu().numpy(), estimate.float().cpu().numpy(), strict=True)
    judged = [measure(c, e, rate, scores).values for c, e in pairs] if scores else []
    columns = {name: np.array([values[name] for values in judged]) for name in scores}
    return {n: float(np.nanmean(c)) if np.isfinite(c).any() else float("nan") for n, c in columns.items()}


def separation_scores(
    sources: Float[Tensor, "b K n"],
    estimates: Float[Tensor, "b K n"],
    mixture: Float[Tensor, "b 1 n"],
    scores: Sequence[str],
    rate: int,
    spoken: Sequence[int],
) -> tuple[dict[str, float], Float[Tensor, "b K n"]]:
    """(the mean of each score over items and sources, the estimates in their best order). An item that cannot be
    judged, for silence, counts nowhere and keeps its order; speech is judged where the sources are `spoken`."""
    rows: list[dict[str, float]] = []
    ordered = estimates.clone()
    for i, (truth, found, mix) in enumerate(zip(sources, estimates, mixture, strict=True)):
        truth, found, mix = (wave.double().cpu().numpy() for wave in (truth, found, mix))
        try:
            values, order = ordered_si_sdr(truth, found, zero_mean=True, clamp_db=30.0)
            before, _ = ordered_si_sdr(truth, mix.repeat(len(truth), 0), zero_mean=True, clamp_db=30.0)
        except ValueError:
            continue
        ordered[i] = estimates[i, torch.from_numpy(order).to(estimates.device)]
        rows.append({"si_sdr": values.mean(), "si_sdri": (values - before).mean()})
    rest = [name for name in scores if name not in ("si_sdr", "si_sdri")]
    speech = [speech_scores(sources[:, k : k + 1], ordered[:, k : k + 1], rest, rate) for k in spoken] if rest else []
    means = {name: _mean([row[name] for row in rows]) for name in ("si_sdr", "si_sdri") if name in scores}
    return means | {name: _mean([one[name] for one in speech]) for name in rest}, ordered


def _mean(values: Sequence[float]) -> float:
    """NaN when there is nothing finite."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def restore(model: EnhancementModel, noisy: Float[Tensor, "b 1 n"], seeds: Sequence[int]) -> Float[Tensor, "b 1 n"]:
    """Noisy waves through the model's own run, and back to their level."""
    gain = model.gain_of(noisy)
    x = model.restore(model.frontend.encode(noisy * gain), PositionNoise(seeds), model.default_run())
    return model.frontend.decode(x.float(), noisy.shape[-1]) / gain


def freeze(model: nn.Module, trained: str) -> None:
    """Only the weights below `trained` move, or all where it is empty; but none that a network itself holds still."""
    for name, parameter in model.named_parameters():
        if trained and not name.startswith(f"{trained}."):
            parameter.requires_grad_(False)


TRAINABLES: dict[str, type[Trainable]] = {
    "autoencode": AutoencodeTask,
    "enhance": EnhanceTask,
    "refine": RefineTask,
    "vocode": VocodeTask,
    "generate": GenerateTask,
    "classify": ClassifyTask,
    "separate": SeparateTask,
    "upsample": UpsampleTask,
}
"""What a recipe's `task` may be."""
