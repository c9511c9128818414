"""Unit noise that depends on what it is for, not on the run that draws it.

    value = Box-Muller(h),    h = mix(... mix(mix(seed) + draw) ... + channel) + position * golden)

`mix` is the output function of SplitMix64 (Steele et al., "Fast Splittable Pseudorandom Number Generators", 2014,
https://doi.org/10.1145/2660193.2660195): a counter goes in and 64 random bits come out. The two halves of h are the
two uniforms of a Box-Muller normal. Position counts along the last axis from the start of the recording, so that the
overlap of two chunks draws the same noise in both; an item draws the same whatever batch or device it is on.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15


def _signed(n: int) -> int:
    """The int64 with the low 64 bits of n: torch multiplies and adds int64 modulo 2^64."""
    return (n + 2**63) % 2**64 - 2**63


def _shift(x: Tensor, bits: int) -> Tensor:
    """A right shift that fills with zeros, where torch's own copies the sign."""
    return (x >> bits) & (2 ** (64 - bits) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift(x, 31)


class PositionNoise:
    """The noise of one run: the n-th call is its n-th draw.

    seeds: one per item of the batch. offset: position of the tensor's first entry on the last axis in the whole
    recording.

        >>> noise = PositionNoise([0, 1])
        >>> noise(torch.zeros(2, 1, 4)).shape
        torch.Size([2, 1, 4])
    """

    def __init__(self, seeds: Sequence[int], offset: int = 0) -> None:
        self.seeds = tuple(seeds)
        self.offset = offset
        self.draws = 0

    def __call__(self, like: Tensor) -> Tensor:
        if like.ndim < 2 or len(like) != len(self.seeds):
            raise ValueError(f"expected a batch of {len(self.seeds)}, one item per seed, got shape {tuple(like.shape)}")
        device = torch.device("cpu") if like.device.type == "mps" else like.device  # MPS has no float64
        seeds = torch.tensor([_signed(seed) for seed in self.seeds], device=device)
        rows = torch.arange(math.prod(like.shape[1:-1]), device=device)
        places = torch.arange(self.offset, self.offset + like.shape[-1], device=device)
        key = _mix(_mix(seeds + _signed(GOLDEN)) + self.draws)
        self.draws += 1
        key = _mix(key[:, None] + rows)  # b, channels and bins
        bits = _mix(key[..., None] + (places + 1) * _signed(GOLDEN))
        first = (_shift(bits, 32).double() + 0.5) / 2**32
        second = (bits & (2**32 - 1)).double() / 2**32
        normal = (-2 * first.log()).sqrt() * (2 * math.pi * second).cos()
        return normal.reshape(like.shape).to(like)
