"""How a recipe trains: optimiser, learning-rate curve, averaging, and the trainer's settings under Lightning's names.

cosine     lr(n) = warm(n) (final + (1 - final) (1 + cos(pi n/N))/2),   warm(n) = min(1, (n + 1)/warmup)
constant   lr(n) = warm(n)
halving    lr halves when the validation loss failed to fall below the previous epoch's in exactly 3 epochs in a
           row, and training stops at 5 in a row: the rule of the DR-DiffuSE release. No warm-up.
plateau    lr becomes a tenth when `trainer.monitor` was no better than its best for more than 5 validations in a
           row: the rule of the classifier behind the published scores of generated digits. No warm-up.
"""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Optimisation:
    """Adam (weight decay as an L2 term, as published recipes have it), AdamW or SGD with momentum 0.9, a schedule, and
    averaged weights.

    final: the last learning rate of the cosine over the first. ema: decay of the average that is validated and kept, 0
    for none. ema_warmup: in the n-th step the decay is at most (1 + n)/(10 + n), and the average begins with the first
    weights, as in the package torch-ema. ema_power: the decay rises with it, see `PowerAveraging`. ssm_lr: the learning
    rate of state-space parameters (S4's A, B and step size), which have no weight decay; by default the smaller of
    learning_rate and 1e-3.
    """

    optimiser: Literal["adam", "adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    schedule: Literal["cosine", "constant", "halving", "plateau"] = "cosine"
    warmup_steps: int = 100
    final: float = 0.01
    ema: float = 0.995
    ema_warmup: bool = False
    ema_power: float = 0.0
    ssm_lr: float | None = None

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or not 0 <= self.ema < 1:
            raise ValueError(f"expected learning_rate > 0 and 0 <= ema < 1, got {self.learning_rate} and {self.ema}")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1 and self.epsilon > 0 and self.ema_power >= 0):
            raise ValueError("expected beta1 and beta2 from 0 to below 1, epsilon > 0 and ema_power >= 0")
        if self.ema_power and self.ema_warmup:
            raise ValueError("ema_power and ema_warmup are two rules for one average; choose one")
        if self.ssm_lr is not None and self.ssm_lr <= 0:
            raise ValueError(f"expected ssm_lr > 0, or null for the default, got {self.ssm_lr}")

    @property
    def state_space_rate(self) -> float:
        """The learning rate of state-space parameters."""
        return min(self.learning_rate, 1e-3) if self.ssm_lr is None else self.ssm_lr

    @property
    def rates(self) -> list[float]:
        """The learning rates of the optimiser's groups: of everything, and of state-space parameters."""
        return [self.learning_rate, self.state_space_rate]

    def factor(self, step: int, max_steps: int) -> float:
        """Learning rate at `step` over `learning_rate`."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        if self.schedule == "constant":
            return warm
        progress = min(1.0, step / max_steps)
        return warm * (self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress)))


@dataclass(frozen=True)
class TrainerSettings:
    """Lightning's names and meanings; an epoch is `steps_per_epoch` optimiser steps, validation, and a checkpoint.

    devices, num_nodes: processes of each machine, and machines. strategy: "auto" and "ddp" keep all weights on each
    device, "fsdp" a slice of them. batch_size, valid_batch_size: items per device and forward pass. gradient_clip_val:
    largest gradient norm, 0 for none. gradient_clip_percentile: in its place that percentile of all norms so far
    (AutoClip), 0 for none. monitor, mode: the validation value by which the best checkpoint is chosen. keep_top: so
    many of the best checkpoints are kept beside it, named by epoch and value. patience: training stops after so many
    validations without a better value, 0 for never. score_batches: how many validation batches a device scores, 0 for
    all. samples: how many validation items are logged as sound and picture.
    """

    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true", "fsdp"] = "auto"
    precision: Literal["32-true", "16-mixed", "bf16-mixed", "bf16-true", "64-true"] = "32-true"
    deterministic: bool = False
    max_epochs: int = 20
    steps_per_epoch: int = 100
    batch_size: int = 8
    valid_batch_size: int = 4
    accumulate_grad_batches: int = 1
    gradient_clip_val: float = 5.0
    gradient_clip_percentile: float = 0.0
    check_val_every_n_epoch: int = 1
    log_every_n_steps: int = 10
    num_workers: int = 1
    monitor: str = "valid/loss"
    mode: Literal["min", "max"] = "min"
    keep_top: int = 0
    patience: int = 0
    score_batches: int = 0
    samples: int = 2

    def __post_init__(self) -> None:
        counts = ("devices", "num_nodes", "max_epochs", "steps_per_epoch", "batch_size", "valid_batch_size")
        for name in (*counts, "accumulate_grad_batches", "check_val_every_n_epoch", "log_every_n_steps"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"trainer.{name} must be at least 1, got {getattr(self, name)}: there would be no batches"
                )
        for name in ("num_workers", "samples", "gradient_clip_val", "keep_top", "patience", "score_batches"):
            if getattr(self, name) < 0:
                raise ValueError(f"trainer.{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.gradient_clip_percentile <= 100:
            raise ValueError(
                f"trainer.gradient_clip_percentile must lie between 0 and 100, got {self.gradient_clip_percentile}"
            )

    @property
    def max_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.max_epochs * self.steps_per_epoch

    @property
    def world_size(self) -> int:
        return self.devices * self.num_nodes

    @property
    def items_per_epoch(self) -> int:
        """Training items of one epoch, over all devices."""
        return self.steps_per_epoch * self.accumulate_grad_batches * self.batch_size * self.world_size
