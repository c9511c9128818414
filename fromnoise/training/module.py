"""One Lightning module for every task: a loss, an optimiser, a learning-rate curve, fixed validation draws.

A step's randomness comes from (seed, step, rank), a validation batch's from its index alone: an interrupted and resumed
run equals an uninterrupted one, and validation curves of different runs can be compared point by point.
"""

from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from fromnoise.evaluation.speech import measure
from fromnoise.training.settings import Optimisation
from fromnoise.training.tasks import Batch, Trainable, freeze

VALIDATION = 2**31  # the seed of every validation


class TrainingModule(L.LightningModule):
    """See the module's text. The state is the task's model under `model.`; scores are names of evaluation's metrics."""

    def __init__(
        self, task: Trainable, optimisation: Optimisation, seed: int, max_steps: int, scores: tuple[str, ...], rate: int
    ) -> None:
        super().__init__()
        self.task, self.optimisation, self.seed, self.max_steps = task, optimisation, seed, max_steps
        self.scores, self.rate = scores, rate
        self.model = task.model
        freeze(self.model, task.trained)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        # the running number of the micro-batch, so that accumulated batches draw afresh
        accumulate = self.trainer.accumulate_grad_batches
        number = self.global_step * accumulate + batch_index % accumulate
        loss = self.task.loss(batch, generator(self.seed, number, self.global_rank)).mean()
        self.log("train/loss", loss, prog_bar=True, sync_dist=True)
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Logs the loss and the scores; returns the estimate, for whoever wants to listen."""
        size = len(batch["clean"])
        seeds = [VALIDATION + 10_000 * self.global_rank + batch_index * size + i for i in range(size)]
        losses = self.task.valid_loss(batch, generator(VALIDATION, batch_index, self.global_rank), seeds)
        estimate = self.task.estimate(batch, seeds)
        values = {"loss": losses.mean().item()} | self._scores(batch["clean"], estimate)
        for name, value in values.items():
            self.log(f"valid/{name}", value, prog_bar=True, on_epoch=True, sync_dist=True, batch_size=size)
        return estimate

    def _scores(self, clean: Tensor, estimate: Tensor) -> dict[str, float]:
        """The mean of each score over the items that can be judged; NaN when none can."""
        pairs = zip(clean.float().cpu().numpy(), estimate.float().cpu().numpy(), strict=True)
        judged = [measure(c, e, self.rate, self.scores).values for c, e in pairs]
        columns = {name: np.array([values[name] for values in judged]) for name in self.scores}
        return {n: float(np.nanmean(c)) if np.isfinite(c).any() else float("nan") for n, c in columns.items()}

    def configure_optimizers(self) -> Any:
        o = self.optimisation
        kind = torch.optim.AdamW if o.optimiser == "adamw" else torch.optim.Adam
        moving = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimiser = kind(moving, o.learning_rate, (0.9, o.beta2), weight_decay=o.weight_decay)
        if o.schedule == "halving":  # a callback's matter: it follows the validation
            return optimiser
        curve = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: o.factor(step, self.max_steps))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": curve, "interval": "step"}}


def generator(*numbers: int) -> torch.Generator:
    """A generator for a tuple of whole numbers."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 6364136223846793005 + number + 1442695040888963407) % 2**63
    return torch.Generator().manual_seed(mixed)
