"""What the loop trains: a loss on a batch, an estimate to listen to, and which weights move.

A batch holds `clean` and `noisy` waves, `b 1 n`. Two stages of an enhancer: its denoiser (or regression network), and
its refiner, which learns on what the finished rest samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fromnoise.objectives import Objective
from fromnoise.samplers import PositionNoise
from fromnoise.tasks.enhancement import EnhancementModel
from fromnoise.tasks.losses import SpectralLoss

Batch = dict[str, Tensor]


@runtime_checkable
class Trainable(Protocol):
    """What a recipe hands to the loop."""

    @property
    def model(self) -> Any: ...
    @property
    def trained(self) -> str: ...
    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor: ...
    def valid_loss(self, batch: Batch, generator: torch.Generator, seeds: Sequence[int]) -> Tensor: ...
    def estimate(self, batch: Batch, seeds: Sequence[int]) -> Tensor: ...


@dataclass(frozen=True)
class EnhanceTask:
    """Trains the backbone; a generator and a refiner, where there are, stay as they are."""

    model: EnhancementModel
    objective: Objective
    spectral: SpectralLoss | None = None
    trained: str = "denoiser"

    def loss(self, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        """Loss of each item, drawn with `generator`."""
        return self.model.loss(batch["clean"], batch["noisy"], self.objective, self.spectral, generator)

    def valid_loss(self, batch: Batch, generator: torch.Generator, seeds: Sequence[int]) -> Float[Tensor, " b"]:
        """The same on fixed draws."""
        return self.loss(batch, generator)

    def estimate(self, batch: Batch, seeds: Sequence[int]) -> Float[Tensor, "b 1 n"]:
        """Enhanced waves by the model's own run, at the level of the input; one seed an item."""
        return restore(self.model, batch["noisy"], seeds)


@dataclass(frozen=True)
class RefineTask:
    """Trains the refiner on samples of the frozen rest."""

    model: EnhancementModel
    spectral: SpectralLoss
    trained: str = "refiner"

    def loss(self, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        """Loss of each item; the sample is drawn with seeds from `generator`."""
        seeds = torch.randint(2**62, (len(batch["clean"]),), generator=generator).tolist()
        return self.model.refinement_loss(batch["clean"], batch["noisy"], self.spectral, seeds)

    def valid_loss(self, batch: Batch, generator: torch.Generator, seeds: Sequence[int]) -> Float[Tensor, " b"]:
        """The same on fixed draws, without touching the refiner's statistics."""
        x0, y = self.model.encode_pair(batch["clean"], batch["noisy"])
        return self.spectral(self.model.restore(y, PositionNoise(seeds), self.model.default_run()), x0)

    def estimate(self, batch: Batch, seeds: Sequence[int]) -> Float[Tensor, "b 1 n"]:
        """Enhanced and refined waves; one seed an item."""
        return restore(self.model, batch["noisy"], seeds)


def restore(model: EnhancementModel, noisy: Float[Tensor, "b 1 n"], seeds: Sequence[int]) -> Float[Tensor, "b 1 n"]:
    """Noisy waves through the model's own run, and back to their level."""
    gain = 1 / noisy.square().mean(dim=(1, 2), keepdim=True).sqrt().clamp(min=1e-7)
    x = model.restore(model.frontend.encode(noisy * gain), PositionNoise(seeds), model.default_run())
    return model.frontend.decode(x.float(), noisy.shape[-1]) / gain


def freeze(model: nn.Module, trained: str) -> None:
    """Only the weights below `trained` move."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(f"{trained}."))
