"""From a recipe's data to batches: item k of a run is the same whatever the number of devices, workers and restarts.

Epoch e covers items [e L, (e + 1) L), L = steps x accumulation x batch x devices. Step n of an epoch takes the next
`batch x devices` of them; device r the r-th slice. So W devices with batch B see what one sees with batch W B.
Validation batch g goes to device g mod W. Where the last ones are left without, they get batch 0, which does not count:
devices that exchange something in each batch must have equally many.
"""

from collections.abc import Iterator
from typing import Any

import lightning as L
from torch.utils.data import BatchSampler, DataLoader, Sampler

from fromnoise.training.settings import TrainerSettings


class EpochSampler(Sampler[int]):
    """The items of one device; Lightning tells it the epoch, also after resuming."""

    def __init__(self, settings: TrainerSettings, rank: int, epoch: int = 0) -> None:
        self.settings, self.rank, self.epoch = settings, rank, epoch

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.settings.items_per_epoch // self.settings.world_size

    def __iter__(self) -> Iterator[int]:
        batch = self.settings.batch_size
        wide = batch * self.settings.world_size
        begin = self.epoch * self.settings.items_per_epoch
        for start in range(begin + self.rank * batch, begin + self.settings.items_per_epoch, wide):
            yield from range(start, start + batch)


class RecipeData(L.LightningDataModule):
    """The loaders of one process; Lightning asks for them once it knows which process this is."""

    def __init__(self, train_items: Any, valid_items: Any, settings: TrainerSettings) -> None:
        super().__init__()
        self.train_items, self.valid_items, self.settings = train_items, valid_items, settings

    @property
    def rank(self) -> int:
        return 0 if self.trainer is None else self.trainer.global_rank

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of one epoch, `steps_per_epoch` optimiser steps of them."""
        batches = BatchSampler(EpochSampler(self.settings, self.rank), self.settings.batch_size, drop_last=True)
        return DataLoader(self.train_items, batch_sampler=batches, **_workers(self.settings))

    def val_dataloader(self) -> DataLoader[Any]:
        """Every device-th validation batch."""
        size, world = self.settings.valid_batch_size, self.settings.world_size
        every = [list(range(len(self.valid_items))[i : i + size]) for i in range(0, len(self.valid_items), size)]
        rounds = -(-len(every) // world)
        batches = [every[g] if g < len(every) else every[0] for g in range(self.rank, rounds * world, world)]
        return DataLoader(self.valid_items, batch_sampler=batches, **_workers(self.settings))


def _workers(settings: TrainerSettings) -> dict[str, Any]:
    some = settings.num_workers > 0
    pinned = settings.accelerator not in ("cpu", "auto")
    return {"num_workers": settings.num_workers, "persistent_workers": some, "pin_memory": pinned}
