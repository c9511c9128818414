"""What is compared when sources are learnt: the loss of an estimate, and the strategies for the start and the order.

The sampler starts at x_1 = (parts of the mixture) + noise(1) z, but the path of training ends at the mean of x_1 given
the sources, which still holds exp(-gamma) of their differences; and at t = 1 nothing says which source is the first.
DiffSep (Scheibler et al., 2023, https://arxiv.org/abs/2210.17327, Section 3.3) answers both: a share of the batch
starts where the sampler starts, and there the best order counts. Its code numbers this and other answers `init_hack`:

| init_hack | here | what it does |
|---|---|---|
| false | `ordered` | the path itself; order="data", "power" (ascending variance) or "random" |
| false, order pit | `gated` with share=0 | the best order where orders differ by less than `mmnr_db` |
| 1 | `shifted` | for t >= 1 - near the state is moved to the sampler's mean, and its noise counts the move |
| 2 | `blended` | for t >= 1 - near the mean moves over to the sampler's, the noise to find stays |
| 3 | `blended_noise` | the same, and the noise counts the move |
| 4 | `switched` | a share of the items starts as the sampler does, in the order of the data |
| 5 | `permuted_end` | a share of the items starts as the sampler does, and the best order counts there: the paper |
| 6 | `gated` | as 5, elsewhere as "order pit" |
| 7 | `permuted_always` | as 5, elsewhere the best order of the path's state |
| - | `permuted` | the best order at every t, the sampler's start at t = 1; with `FixedTime(1)` plain regression |
| - | `rollout` | as 5, and then states made from what the network just answered, as a sampler's later calls see them |

For another order x0' of the sources the same state x_t holds the noise (x_t - clean x0' - cond y)/noise, which the
score must then find. (DiffSep's code of 6 adds the difference of the means where it should subtract it.)
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from fromnoise.processes.base import Process, Times, ratio, time_dtype
from fromnoise.tasks.sources import from_basis, permutations_of, to_basis
from fromnoise.types import expand

Order = Literal["data", "power", "random"]


class SourceLoss(ABC):
    """A loss of estimated waves, for every pair of an estimate and a target."""

    @abstractmethod
    def pairs(
        self, estimates: Float[Tensor, "b K n"], targets: Float[Tensor, "b K n"], mix: Float[Tensor, "b 1 n"]
    ) -> Float[Tensor, "b K K"]:
        """The loss of the i-th estimate against the j-th target."""


@dataclass(frozen=True)
class SNRLoss(SourceLoss):
    """-10 log10(|s|^2 / (|s - e|^2 + 10^(-threshold/10) |s|^2)) in dB: beyond the threshold nothing is gained.

    A silent source counts as one of `floor` times the mixture's energy, so that its estimate is drawn to silence.
    """

    threshold_db: float = 30.0
    floor: float = 1e-5

    def pairs(
        self, estimates: Float[Tensor, "b K n"], targets: Float[Tensor, "b K n"], mix: Float[Tensor, "b 1 n"]
    ) -> Float[Tensor, "b K K"]:
        least = self.floor * mix.square().sum(-1, keepdim=True) + torch.finfo(mix.dtype).tiny  # b 1 1
        energy = targets.square().sum(-1)[:, None] + least
        error = (estimates[:, :, None] - targets[:, None]).square().sum(-1)
        return 10 * torch.log10(error / energy + 10 ** (-self.threshold_db / 10))


SOURCE_LOSSES: dict[str, type[SourceLoss]] = {"snr": SNRLoss}


def in_order(pairs: Float[Tensor, "b K K"]) -> Float[Tensor, " b"]:
    """Each estimate against the target of its own place."""
    return pairs.diagonal(dim1=1, dim2=2).mean(1)


def in_best_order(pairs: Float[Tensor, "b K K"]) -> Float[Tensor, " b"]:
    """The mean over the sources in the order where it is least."""
    return _by_order(pairs).amin(0)


def best_order(pairs: Float[Tensor, "b K K"]) -> Int64[Tensor, "b K"]:
    """That order: for each estimate the number of its target."""
    orders = torch.tensor(permutations_of(pairs.shape[1]), device=pairs.device)
    return orders[_by_order(pairs).argmin(0)]


def _by_order(pairs: Float[Tensor, "b K K"]) -> Float[Tensor, "o b"]:
    count = pairs.shape[1]
    rows = range(count)
    return torch.stack([pairs[:, rows, order].mean(1) for order in permutations_of(count)])


def reordered(u: Float[Tensor, "b K n"], order: tuple[int, ...]) -> Float[Tensor, "b K n"]:
    """A state with its sources in another order; state and result are coordinates, see `to_basis`."""
    return to_basis(from_basis(u)[:, list(order)])


@dataclass(frozen=True)
class Chance:
    """All the randomness of one batch: uniform numbers for the times, for which items start as the sampler does, and
    for the order of the sources, and the unit noise."""

    u: Float[Tensor, " b"]
    start: Float[Tensor, " b"]
    order: Float[Tensor, "b K"]
    z: Float[Tensor, "b K n"]

    @classmethod
    def draw(cls, like: Float[Tensor, "b K n"], generator: torch.Generator | None = None) -> "Chance":
        """From `generator`, or torch's own."""
        device = like.device if generator is None else generator.device
        batch, count, _ = like.shape
        uniform = torch.rand(batch, 2 + count, generator=generator, device=device, dtype=time_dtype(device))
        z = torch.randn(like.shape, generator=generator, device=device, dtype=like.dtype).to(like.device)
        u, start, order = uniform.to(like.device, time_dtype(like.device)).split([1, 1, count], dim=1)
        return cls(u[:, 0], start[:, 0], order, z)


@dataclass(frozen=True)
class Example:
    """What the network is shown and should find: the state, its time, the noise in it for the order given, and the
    items where the best order counts."""

    x_t: Float[Tensor, "b K n"]
    t: Times
    z: Float[Tensor, "b K n"]
    any_order: Bool[Tensor, " b"]


class Strategy(ABC):
    """How states are made for training, and whether the order of the sources counts. States, x0, y and z are
    coordinates in the sources' basis."""

    order: Order = "data"

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            raise ValueError(f"expected order {', '.join(get_args(Order))}, got {self.order!r}; choose one of them")

    def arrange(self, sources: Float[Tensor, "b K n"], chance: Chance) -> Float[Tensor, "b K n"]:
        """The sources in the order that the network is to learn, where the order counts."""
        if self.order == "data":
            return sources
        keys = chance.order if self.order == "random" else sources.var(-1)
        return sources.gather(1, keys.argsort(1)[..., None].expand_as(sources))

    @abstractmethod
    def example(
        self, process: Process, x0: Float[Tensor, "b K n"], y: Float[Tensor, "b K n"], t: Times, chance: Chance
    ) -> Example:
        """A state for each item; t: the times drawn."""


def _none(t: Times) -> Bool[Tensor, " b"]:
    return torch.zeros_like(t, dtype=torch.bool)


@dataclass(frozen=True)
class Ordered(Strategy):
    """The path itself."""

    order: Order = "data"

    def example(self, process: Process, x0: Tensor, y: Tensor, t: Times, chance: Chance) -> Example:
        return Example(process.sample(x0, t, y, chance.z), t, chance.z, _none(t))


@dataclass(frozen=True)
class Shifted(Strategy):
    """Within `near` of t = 1 the mean is the sampler's, and the noise counts the move."""

    near: float = 0.03
    order: Order = "data"

    counts_move: ClassVar[bool] = True

    def amount(self, t: Times) -> Times:
        """How much of the way to the sampler's mean is gone at t."""
        return (t >= 1 - self.near).to(t.dtype)

    def example(self, process: Process, x0: Tensor, y: Tensor, t: Times, chance: Chance) -> Example:
        mean, std = process.marginal(x0, t, y)
        move = expand(self.amount(t), mean) * (process.prior(y, torch.zeros_like(y)) - mean)
        x_t = mean + move + expand(std, mean) * chance.z
        z = chance.z + ratio(move, expand(std, mean)) if self.counts_move else chance.z
        return Example(x_t, t, z, _none(t))


@dataclass(frozen=True)
class Blended(Shifted):
    """The mean moves from the path's to the sampler's over the last `near`; the noise to find stays."""

    counts_move: ClassVar[bool] = False

    def amount(self, t: Times) -> Times:
        return ((t - 1 + self.near) / self.near).clamp(0, 1)


@dataclass(frozen=True)
class BlendedNoise(Blended):
    """The same, and the noise counts the move."""

    counts_move: ClassVar[bool] = True


@dataclass(frozen=True)
class Switched(Strategy):
    """With probability `share`, and at t = 1, an item starts as the sampler does; 1/30 is DiffSep's for 30 steps."""

    share: float = 1 / 30
    order: Order = "data"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.share <= 1:
            raise ValueError(f"expected a share from 0 to 1, got {self.share}; choose within")

    def example(self, process: Process, x0: Tensor, y: Tensor, t: Times, chance: Chance) -> Example:
        starts = (chance.start < self.share) | (t >= 1)
        t = torch.where(starts, 1.0, t)
        at_start = process.prior(y, chance.z)
        x_t = torch.where(starts[:, None, None], at_start, process.sample(x0, t, y, chance.z))
        z = torch.where(starts[:, None, None], process.implied_noise(at_start, x0, t, y), chance.z)
        return Example(x_t, t, z, self.any_order(process, x0, t, starts, chance))

    def any_order(
        self, process: Process, x0: Tensor, t: Times, starts: Bool[Tensor, " b"], chance: Chance
    ) -> Bool[Tensor, " b"]:
        """The items where the best order counts."""
        return _none(t)


@dataclass(frozen=True)
class PermutedEnd(Switched):
    """The best order counts where an item starts as the sampler does; elsewhere the order is random, and shown by the
    state. A share of 0.1 is the paper's."""

    share: float = 0.1
    order: Order = "random"

    def any_order(
        self, process: Process, x0: Tensor, t: Times, starts: Bool[Tensor, " b"], chance: Chance
    ) -> Bool[Tensor, " b"]:
        return starts


@dataclass(frozen=True)
class Rollout(PermutedEnd):
    """A share of the items starts as the sampler does, the best order counting; then `again` of all items are shown at
    another time, in a state made from what the network just answered. A sampler's later calls see such states, never
    ones made from the truth. Needs a `SourceLoss`, since no drawn noise leads from the truth to such a state."""

    share: float = 1.0
    again: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.again <= 1:
            raise ValueError(f"expected again above 0, up to 1, got {self.again}; choose within, or 'permuted_end'")


@dataclass(frozen=True)
class PermutedAlways(Switched):
    """The best order counts everywhere."""

    share: float = 0.1
    order: Order = "random"

    def any_order(
        self, process: Process, x0: Tensor, t: Times, starts: Bool[Tensor, " b"], chance: Chance
    ) -> Bool[Tensor, " b"]:
        return torch.ones_like(starts)


@dataclass(frozen=True)
class Permuted(PermutedAlways):
    """The same without a share of starts, for times that are 1 themselves."""

    share: float = 0.0


@dataclass(frozen=True)
class Gated(Switched):
    """The best order counts at the sampler's start, and where the means of two orders differ, on average over the other
    orders, by less than `mmnr_db` (mismatch to noise) against the noise drawn."""

    share: float = 0.1
    mmnr_db: float = -10.0
    order: Order = "random"

    def any_order(
        self, process: Process, x0: Tensor, t: Times, starts: Bool[Tensor, " b"], chance: Chance
    ) -> Bool[Tensor, " b"]:
        w = process.weights(t)
        noise = (expand(w.noise, x0) * chance.z).square().mean((1, 2))
        others = permutations_of(x0.shape[1])[1:]
        moves = [(expand(w.clean, x0) * (reordered(x0, order) - x0)).square().mean((1, 2)) for order in others]
        mismatch = torch.stack(moves).mean(0) / noise.clamp(min=1e-5)
        return starts | (mismatch < 10 ** (self.mmnr_db / 10))


STRATEGIES: dict[str, type[Strategy]] = {
    "ordered": Ordered,
    "shifted": Shifted,
    "blended": Blended,
    "blended_noise": BlendedNoise,
    "switched": Switched,
    "permuted_end": PermutedEnd,
    "gated": Gated,
    "permuted_always": PermutedAlways,
    "permuted": Permuted,
    "rollout": Rollout,
}
