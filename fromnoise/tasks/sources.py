"""K sources that add up to a mixture: their orthonormal basis, the mixture's local level, orders and levels.

    u_0 = (s_1 + ... + s_K)/sqrt(K),    u_k = (s_1 + ... + s_k - k s_(k+1))/sqrt(k (k + 1)),   k = 1 .. K-1

is orthonormal (Helmert), so unit noise stays unit noise, and a mixture fixes u_0 alone. In it the matrices of DiffSep
(see `fromnoise.processes.mixing`) are diagonal.
"""

import itertools

import torch
from jaxtyping import Float
from torch import Tensor

LEAST_POWER = 1e-4
"""The local power of a mixture of unit variance never counts as less (DiffSep)."""


def to_basis(sources: Float[Tensor, "b K n"]) -> Float[Tensor, "b K n"]:
    """The sources' coordinates: sqrt(K) times their mean first, then their differences."""
    count = sources.shape[1]
    sums, k = sources.cumsum(1), _ranks(count, sources)
    differences = (sums[:, :-1] - k * sources[:, 1:]) / (k * (k + 1)).sqrt()
    return torch.cat([sums[:, -1:] / count**0.5, differences], 1)


def from_basis(u: Float[Tensor, "b K n"]) -> Float[Tensor, "b K n"]:
    """The sources of these coordinates: the transpose of `to_basis`."""
    count = u.shape[1]
    k = _ranks(count, u)
    parts = u[:, 1:] / (k * (k + 1)).sqrt()
    after = parts.flip(1).cumsum(1).flip(1)  # what the k-th and all later differences give to each earlier source
    none = torch.zeros_like(u[:, :1])
    return u[:, :1] / count**0.5 + torch.cat([after, none], 1) - torch.cat([none, k * parts], 1)


def _ranks(count: int, like: Tensor) -> Float[Tensor, "k 1"]:
    return torch.arange(1, count, device=like.device, dtype=like.dtype)[:, None]


def shared(mix: Float[Tensor, "b 1 n"], count: int) -> Float[Tensor, "b K n"]:
    """The coordinates of `count` equal parts of the mixture: (mix/sqrt(K), 0, ...)."""
    return torch.cat([mix / count**0.5, mix.new_zeros(len(mix), count - 1, mix.shape[-1])], 1)


def local_level(mix: Float[Tensor, "b 1 n"], window: int = 510) -> Float[Tensor, "b 1 n"]:
    """Half the root of the mixture's power in a window around each sample, silence beyond the ends counted in.

    The window covers n - window//2 ... n - window//2 + window - 1.
    """
    power = torch.nn.functional.avg_pool1d(mix.square(), window, stride=1, padding=window // 2)
    return 0.5 * power[..., : mix.shape[-1]].clamp(min=LEAST_POWER).sqrt()


def match_levels(mix: Float[Tensor, "b 1 n"], estimates: Float[Tensor, "b K n"]) -> Float[Tensor, "b K n"]:
    """Each estimate times <mix, estimate>/<estimate, estimate>, so that it fits the mixture best (DiffSep's script)."""
    energy = estimates.square().sum(-1, keepdim=True) + 1e-10 * mix.shape[-1]
    return estimates * (mix * estimates).sum(-1, keepdim=True) / energy


def permutations_of(count: int) -> list[tuple[int, ...]]:
    """All orders of `count` sources, the given one first."""
    return list(itertools.permutations(range(count)))
