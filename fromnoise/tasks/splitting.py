"""A network that is told a noise level for every position: time differs along a sound, split by split.

    out = network([x, level]),   level `b 1 n` as the condition's signal, constant over each split

Whole states `b c n` come with one time an item, or as splits that follow one another in the batch, `(b k) c n/k`, with
one time each (`fromnoise.samplers.ladder`).
"""

import dataclasses
from collections.abc import Callable

from torch import Tensor, nn

from fromnoise.samplers.ladder import folded, unfolded
from fromnoise.types import Condition


class Leveled(nn.Module):
    """splits: k. width: positions of one, by which folded states are known."""

    def __init__(self, network: nn.Module, splits: int, width: int) -> None:
        super().__init__()
        self.network, self.splits, self.width = network, splits, width

    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Tensor like x."""
        return self.bind(condition)(x, t)

    def bind(self, condition: Condition) -> Callable[[Tensor, Tensor], Tensor]:
        """The function (x, t) for one condition, that of whole items."""

        def whole(x: Tensor, levels: Tensor, t: Tensor) -> Tensor:
            return self.network(x, t, dataclasses.replace(condition, signal=levels[:, None].to(x.dtype)))

        def network(x: Tensor, t: Tensor) -> Tensor:
            if x.shape[-1] != self.width:
                return whole(x, t[:, None].expand(-1, x.shape[-1]), t)
            times = t.reshape(-1, self.splits)
            levels = times.repeat_interleave(self.width, 1)
            return folded(whole(unfolded(x, self.splits), levels, times.mean(1)), self.splits)

        return network
