"""Separators: waves of several sources, and their scores in the order that fits best."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fromnoise.evaluation.separation import ordered_si_sdr
from fromnoise.evaluation.speech import check_names
from fromnoise.recipes.base import Recipe
from fromnoise.samplers import PositionNoise
from fromnoise.tasks.separation_model import SeparationModel
from fromnoise.training.tasks.base import Batch, Judged, OnFixedDraws, speech_scores
from fromnoise.types import InputError


class SeparateTask(OnFixedDraws[SeparationModel]):
    """Trains a separator's backbone. Scores: `si_sdr` and its improvement `si_sdri` over the sources in their best
    order, without means and clamped to 30 dB as in DiffSep's validation, and metrics of speech."""

    needs = ("sources",)

    @property
    def trained(self) -> str:
        return "denoiser"

    @staticmethod
    def require(recipe: Recipe) -> None:
        check_names([name for name in recipe.scores if name != "si_sdri"])
        if recipe.data.voices != recipe.sources:
            raise InputError(
                f"expected as many sources in the data as in the model, got data.voices={recipe.data.voices} and "
                f"sources={recipe.sources}; set both"
            )

    def loss(self, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        how = (self.recipe.objective(), self.recipe.strategy, self.recipe.source_loss)
        return self.model.loss(batch["sources"], *how, generator, batch.get("mixture"))

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
