"""One Lightning module for every task: a loss, an optimiser, a learning-rate curve, fixed validation draws.

A batch's randomness comes from the seed and its running number over all devices, a validation batch's from that number
alone: an interrupted and resumed run equals an uninterrupted one, W devices draw what one draws that accumulates W
times as many batches, and validation curves of different runs can be compared point by point.
"""

from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor, nn

from fromnoise.backbones.s4 import state_space_parameters
from fromnoise.training.settings import Optimisation
from fromnoise.training.tasks.base import Batch, Trainable, freeze

VALIDATION = 2**31  # the seed of every validation


class TrainingModule(L.LightningModule):
    """See the module's text. The state is the task's model under `model.`; scores are names that the task knows.

    monitor, mode: the validation value that the plateau schedule follows. sounds: items to listen to in validation.
    score_batches: so many batches of it are scored, 0 for all. valid_batches: how many there are, over all devices.
    """

    def __init__(
        self,
        task: Trainable,
        optimisation: Optimisation,
        seed: int,
        max_steps: int,
        scores: tuple[str, ...],
        rate: int,
        monitor: str = "valid/loss",
        mode: Literal["min", "max"] = "min",
        sounds: int = 2,
        score_batches: int = 0,
        valid_batches: int = 2**62,
    ) -> None:
        super().__init__()
        self.monitor, self.sounds, self.score_batches = monitor, sounds, score_batches
        self.valid_batches = valid_batches
        self.mode: Literal["min", "max"] = mode
        self.task, self.optimisation, self.seed, self.max_steps = task, optimisation, seed, max_steps
        self.scores, self.rate = scores, rate
        self.rates_before = optimisation.rates
        self.model = task.model
        freeze(self.model, task.trained)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["rates"] = self.optimisation.rates

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.rates_before = checkpoint.get("rates", self.optimisation.rates)

    def on_train_start(self) -> None:
        """A learning rate that was changed on resuming counts from here on: the checkpoint has restored the old one."""
        factors = [now / before for now, before in zip(self.optimisation.rates, self.rates_before, strict=True)]
        for scheduler in (config.scheduler for config in self.trainer.lr_scheduler_configs):
            if isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR):
                scheduler.base_lrs = [lr * factor for lr, factor in zip(scheduler.base_lrs, factors, strict=False)]
        for group, factor in zip(self.trainer.optimizers[0].param_groups, factors, strict=False):
            group["lr"] *= factor  # exactly 1 when nothing was changed

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        accumulate = self.trainer.accumulate_grad_batches
        number = self.number(self.global_step * accumulate + batch_index % accumulate)
        loss = self.task.loss(batch, generator(self.seed, number, 0)).mean()
        self.log("train/loss", loss, prog_bar=True, sync_dist=True)
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> dict[str, Tensor]:
        """Logs the loss and the scores; returns waves by name, for whoever wants to listen."""
        size, number = len(next(iter(batch.values()))), self.number(batch_index)
        seeds = [VALIDATION + number * size + i for i in range(size)]
        losses = self.task.valid_loss(batch, generator(VALIDATION, number, 0), seeds)
        values = {"loss": losses.mean().item()}
        sounds: dict[str, Tensor] = {}
        scored = bool(self.scores) and (self.score_batches == 0 or batch_index < self.score_batches)
        heard = size if scored else self.sounds if batch_index == 0 else 0
        if heard:  # an estimate costs a whole run of the sampler
            few = {name: value[:heard] for name, value in batch.items()}
            scores, sounds = self.task.judge(few, seeds[:heard], self.scores, self.rate)
            values |= scores
        # What fills up a device's share does not count. A float, because Lightning averages these over the devices too.
        counted: Any = float(size) if number < self.valid_batches else 0.0
        for name, value in values.items():
            self.log(f"valid/{name}", value, prog_bar=True, on_epoch=True, sync_dist=True, batch_size=counted)
        return sounds

    def number(self, batch_index: int) -> int:
        """A batch's running number over all devices."""
        return batch_index * self.trainer.world_size + self.global_rank

    def configure_optimizers(self) -> Any:
        o = self.optimisation
        optimiser = make_optimiser(self, o)
        if o.schedule == "halving":  # a callback's matter: it follows the validation
            return optimiser
        if o.schedule == "plateau":
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, self.mode, factor=0.1, patience=5)
            every = self.trainer.check_val_every_n_epoch or 1
            return {
                "optimizer": optimiser,
                "lr_scheduler": {"scheduler": plateau, "monitor": self.monitor, "frequency": every},
            }
        curve = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: o.factor(step, self.max_steps))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": curve, "interval": "step"}}


def make_optimiser(module: nn.Module, o: Optimisation) -> torch.optim.Optimizer:
    """The optimiser of all that moves; state-space parameters are a group of their own."""
    systems = {id(parameter): parameter for parameter in state_space_parameters(module) if parameter.requires_grad}
    rest = [p for p in module.parameters() if p.requires_grad and id(p) not in systems]
    groups: list[dict[str, Any]] = [{"params": rest}]
    if systems:
        groups.append({"params": [*systems.values()], "lr": o.state_space_rate, "weight_decay": 0.0})
    if o.optimiser == "sgd":
        return torch.optim.SGD(groups, o.learning_rate, momentum=0.9, weight_decay=o.weight_decay)
    kind = torch.optim.AdamW if o.optimiser == "adamw" else torch.optim.Adam
    return kind(groups, o.learning_rate, (o.beta1, o.beta2), o.epsilon, o.weight_decay)


def generator(*numbers: int) -> torch.Generator:
    """A generator for a tuple of whole numbers."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 6364136223846793005 + number + 1442695040888963407) % 2**63
    return torch.Generator().manual_seed(mixed)
