"""The two stages of an enhancer: its denoiser (or regression network), and its refiner, which learns on what the
finished rest samples.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fromnoise.evaluation.speech import check_names
from fromnoise.recipes.base import Recipe
from fromnoise.samplers import PositionNoise
from fromnoise.tasks.enhancement_model import EnhancementModel
from fromnoise.tasks.losses import by_length
from fromnoise.training.tasks.base import Batch, Judged, OnFixedDraws, Trainable, speech_scores
from fromnoise.types import InputError


class Restoring(Trainable[EnhancementModel]):
    """Noisy waves to clean ones, through the model's own run."""

    needs = ("clean", "noisy")

    def length(self, batch: Batch) -> Tensor | None:
        """How many samples of each item are no filling, where only those are to count."""
        return batch["length"] if self.recipe.mask_padding else None

    def judge(self, batch: Batch, seeds: Sequence[int], scores: Sequence[str], rate: int) -> Judged:
        """Waves restored at the level of the input."""
        clean, noisy, model = batch["clean"], batch["noisy"], self.model
        gain = model.gain_of(noisy)
        x = model.restore(model.frontend.encode(noisy * gain), PositionNoise(seeds), model.default_run())
        estimate = model.frontend.decode(x.float(), noisy.shape[-1]) / gain
        return speech_scores(clean, estimate, scores, rate), {"noisy": noisy, "estimate": estimate, "clean": clean}


class EnhanceTask(Restoring, OnFixedDraws[EnhancementModel]):
    """Trains the backbone, and with it a generator that learns jointly; others, and a refiner, stay as they are."""

    @property
    def trained(self) -> str:
        return "" if self.recipe.joint else "denoiser"

    @staticmethod
    def require(recipe: Recipe) -> None:
        check_names(recipe.scores)
        require_lengths(recipe)
        if recipe.joint and recipe.refiner is not None:
            raise InputError("a refiner is not trained jointly; leave out refiner, or set joint=0")

    def loss(self, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        objective, length = self.recipe.objective(), self.length(batch)
        return self.model.loss(batch["clean"], batch["noisy"], objective, self.recipe.loss, generator, length)


class RefineTask(Restoring):
    """Trains the refiner on samples of the frozen rest, or all networks through the sampler."""

    @property
    def trained(self) -> str:
        return "" if self.recipe.through else "generator" if self.model.reuses_generator else "refiner"

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
        how, length = (self.recipe.refine_on, self.recipe.through), self.length(batch)
        return self.model.refinement_loss(batch["clean"], batch["noisy"], self.recipe.loss, seeds, *how, length)

    def valid_loss(self, batch: Batch, generator: torch.Generator, seeds: Sequence[int]) -> Float[Tensor, " b"]:
        """The same of refined samples on fixed draws, without touching the refiner's statistics."""
        length = self.length(batch)
        x0, y = self.model.encode_pair(batch["clean"], batch["noisy"], length)
        mask = None if length is None else self.model.mask_of(x0, length)
        loss = self.recipe.loss(self.model.restore(y, PositionNoise(seeds), self.model.default_run()), x0, mask)
        return loss if mask is None else by_length(loss, mask)


def require_lengths(recipe: Recipe) -> None:
    """Raises InputError when padding is to be masked in data that never says how much of an item it is."""
    if recipe.mask_padding and "length" not in recipe.data.gives:
        raise InputError("mask_padding needs data that tells lengths; choose data=paired, or set mask_padding=false")
