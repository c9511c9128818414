"""The form of what the loop trains, and what the tasks share: a recipe's requirements, and scores of speech.

A batch holds the waves `clean` and, as the task needs, `noisy`, `b 1 n`, the classes `label`, `b`, captions `text` as
bytes, or `sources`, `b K n`, with the `mixture`, `b 1 n`, where that is more than their sum.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fromnoise.evaluation.speech import measure
from fromnoise.recipes.base import Recipe
from fromnoise.types import InputError

Batch = dict[str, Tensor]
Judged = tuple[dict[str, float], dict[str, Tensor]]
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Trainable(ABC, Generic[M]):
    """A recipe's model as the loop trains it. needs: what a batch must hold."""

    recipe: Recipe
    model: M
    needs: ClassVar[tuple[str, ...]] = ("clean",)

    @staticmethod
    @abstractmethod
    def require(recipe: Recipe) -> None:
        """Raises InputError for a recipe that cannot be trained so."""

    @property
    def trained(self) -> str:
        """Prefix of the weights that move, or nothing: all."""
        return ""

    @abstractmethod
    def loss(self, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        """Loss of each item, drawn with `generator`."""

    @abstractmethod
    def valid_loss(self, batch: Batch, generator: torch.Generator, seeds: Sequence[int]) -> Float[Tensor, " b"]:
        """That of validation: on fixed draws, or on samples with a seed an item."""

    @abstractmethod
    def judge(self, batch: Batch, seeds: Sequence[int], scores: Sequence[str], rate: int) -> Judged:
        """The named scores of a validation batch, and waves `b 1 n` to listen to, by name; one seed an item."""


class OnFixedDraws(Trainable[M]):
    """What has the loss of training in validation too."""

    def valid_loss(self, batch: Batch, generator: torch.Generator, seeds: Sequence[int]) -> Float[Tensor, " b"]:
        return self.loss(batch, generator)


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


def require_equal_labels(recipe: Recipe) -> None:
    """Raises InputError unless the data counts the classes as the model does."""
    if tuple(recipe.data.labels) != tuple(recipe.labels):
        raise InputError(
            f"expected the same classes twice, got labels={list(recipe.labels)} and data.labels="
            f"{list(recipe.data.labels)}; set both, or data.labels='${{labels}}'"
        )


def speech_scores(
    clean: Float[Tensor, "b 1 n"], estimate: Float[Tensor, "b 1 n"], scores: Sequence[str], rate: int
) -> dict[str, float]:
    """The mean of each score over the items that can be judged; NaN when none can."""
    pairs = zip(clean.float().cpu().numpy(), estimate.float().cpu().numpy(), strict=True)
    judged = [measure(c, e, rate, scores).values for c, e in pairs] if scores else []
    columns = {name: np.array([values[name] for values in judged]) for name in scores}
    return {n: float(np.nanmean(c)) if np.isfinite(c).any() else float("nan") for n, c in columns.items()}


def freeze(model: nn.Module, trained: str) -> None:
    """Only the weights below `trained` move, or all where it is empty; but none that a network itself holds still."""
    for name, parameter in model.named_parameters():
        if trained and not name.startswith(f"{trained}."):
            parameter.requires_grad_(False)
