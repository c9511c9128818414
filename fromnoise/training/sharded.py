"""Models in slices: of every weight, gradient, average and optimiser state a device keeps one W-th (FSDP2).

For a step the weights are gathered and given up again, and gradients are averaged into slices. They are gathered all at
once, not block by block: many networks here reach into a block's parts, to compute for all steps of a run what does not
change, and would find slices there. Checkpoints hold whole tensors under the usual names: a run in slices ends as the
same model folder as any other. Zhao et al., "PyTorch FSDP", 2023, https://arxiv.org/abs/2304.11277.
"""

from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from fromnoise.training.module import TrainingModule

STEPS = ("training_step", "validation_step")


def make_strategy(world_size: int) -> ModelParallelStrategy:
    """Lightning's strategy for FSDP2, with whole checkpoints."""
    return ModelParallelStrategy(world_size, 1, save_distributed_checkpoint=False)


def slice_up(module: nn.Module, mesh: DeviceMesh) -> None:
    """Cut the weights of a module into slices over the devices of `mesh`, in place."""
    fully_shard(module, mesh=mesh, reshard_after_forward=True)
    for name in STEPS:
        register_fsdp_forward_method(module, name)


class SlicedModule(TrainingModule):
    """The training module whose weights are cut into slices once the processes know one another."""

    def configure_model(self) -> None:
        if not isinstance(self, FSDPModule):
            assert self.device_mesh is not None
            slice_up(self, self.device_mesh["data_parallel"])


class SlicedAveraging(Callback):
    """The averages of another callback, kept in slices like the weights; checkpoints are as that one writes them."""

    def __init__(self, rule: WeightAveraging, first: int = 0) -> None:
        self.rule, self.count, self.latest = rule, first, 0
        self.averages: list[Tensor] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.averages = [tensor.detach().clone() for tensor in _state(pl_module)]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step > self.latest and self.rule.should_update(step_idx=step - 1):
            self.latest = step
            self.update(pl_module)

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take the weights of now into the average; running statistics too, and counters as they are."""
        mean = self.rule._kwargs["avg_fn"]
        for average, now in zip(self.averages, _state(module), strict=True):
            fresh = self.count == 0 or not average.is_floating_point()
            average.copy_(now if fresh else mean(average, now.detach(), self.count))
        self.count += 1

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Exchange weights and averages."""
        for average, now in zip(self.averages, _state(module), strict=True):
            before = now.detach().clone()
            now.copy_(average)
            average.copy_(before)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.swap(pl_module)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.swap(pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {"latest_update_step": self.latest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.latest = state_dict["latest_update_step"]

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["current_model_state"] = checkpoint["state_dict"]
        self.swap(pl_module)
        checkpoint["state_dict"] = trainer.strategy.lightning_module_state_dict()
        self.swap(pl_module)
        checkpoint["averaging_state"] = {"n_averaged": torch.tensor(self.count)}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """The strategy has put the averages into the model; they go where they belong, and the weights come back."""
        self.averages = [tensor.detach().clone() for tensor in _state(pl_module)]
        if "averaging_state" not in checkpoint:  # the run has begun without averages
            return
        self.count = int(checkpoint["averaging_state"]["n_averaged"])
        set_model_state_dict(
            pl_module, checkpoint["current_model_state"], options=StateDictOptions(full_state_dict=True)
        )


def _state(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
