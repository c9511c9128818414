"""Generators of sounds or of latents: freely, of a class or by a text."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fromnoise.backbones import ENCODERS
from fromnoise.data.captions import from_bytes
from fromnoise.frontends import FRONTENDS
from fromnoise.recipes.base import Recipe
from fromnoise.samplers import PositionNoise
from fromnoise.tasks.autoencoding import channels_of
from fromnoise.tasks.generation_model import GenerationModel, Told
from fromnoise.training.tasks.base import (
    Batch,
    Judged,
    Trainable,
    require_channels,
    require_equal_labels,
    require_scores,
)
from fromnoise.types import InputError, build


def _channels(recipe: Recipe) -> int:
    """Of the waves that the model makes."""
    if recipe.latent is None:
        return 1
    frontend = build("frontend", FRONTENDS, recipe.latent["frontend"])
    return channels_of(frontend, build("encoder", ENCODERS, recipe.latent["encoder"]))


class GenerateTask(Trainable[GenerationModel]):
    """Trains a generator and its table of classes or its own reader of texts; a label or text is hidden with
    probability `drop_label`. Batches hold waves `clean`, or a `latent` that was made of them before."""

    needs = ("label",)

    @staticmethod
    def require(recipe: Recipe) -> None:
        require_scores(recipe, ())
        require_encoded(recipe)
        require_channels(recipe, _channels(recipe))
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
        return self._loss(batch, generator, self.recipe.drop_label)

    def valid_loss(self, batch: Batch, generator: torch.Generator, seeds: Sequence[int]) -> Float[Tensor, " b"]:
        """The same on fixed draws, every label or text told."""
        return self._loss(batch, generator, 0.0)

    def _loss(self, batch: Batch, generator: torch.Generator, drop_label: float) -> Float[Tensor, " b"]:
        x0 = batch["latent"] if "latent" in batch else self.model.frontend.encode(batch["clean"])
        told, seconds = self.told(batch), batch.get("duration")
        return self.model.encoded_loss(x0, told, self.recipe.objective(), generator, drop_label, seconds)

    def judge(self, batch: Batch, seeds: Sequence[int], scores: Sequence[str], rate: int) -> Judged:
        """Sounds of the labels or captions of the clips, one seed an item; what they are worth is a matter of many (see
        `fromnoise evaluate`), so there are no scores."""
        model, noise = self.model, PositionNoise(seeds)
        n = batch["clean"].shape[-1] if "clean" in batch else round(model.config.seconds * rate)
        x = model.prior(noise, len(seeds), n)
        x = model.sample(x, self.told(batch), noise, model.default_run(), seconds=batch.get("duration"))
        estimate = model.frontend.decode(x, n)[:, :1].float()
        return {}, {"estimate": estimate} | ({"clean": batch["clean"][:, :1]} if "clean" in batch else {})


def require_encoded(recipe: Recipe) -> None:
    """Raises InputError unless the data holds waves, or latents for a model of latents."""
    given = recipe.data.gives
    if "clean" not in given and "latent" not in given:
        raise InputError(f"task={recipe.task} needs data with clean in it; choose data=clips")
    if "clean" not in given and recipe.latent is None:
        raise InputError("data=latents is for a model that generates latents; choose data=clips, or set latent")
