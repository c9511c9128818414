"""The noise of `fromnoise.samplers.noise`, number for number, in numpy.

    value = Box-Muller(h),    h = mix(... mix(mix(seed) + draw) ... + channel) + position * golden)

It is a function of seed, draw, channel and position, so a runner without torch hears the same noise as torch does.
"""

import math
from collections.abc import Sequence

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def position_noise(seeds: Sequence[int], draw: int, shape: tuple[int, ...], offset: int = 0) -> np.ndarray:
    """Unit noise float32 of `shape`, one seed per item of its first axis.

    draw: which draw of the run this is, from 0. offset: position of the first entry of the last axis in the recording.
    """
    if len(shape) < 2 or shape[0] != len(seeds):
        raise ValueError(f"expected a batch of {len(seeds)}, one item per seed, got shape {shape}")
    items = np.array([seed % 2**64 for seed in seeds], dtype=np.uint64)
    rows = np.arange(math.prod(shape[1:-1]), dtype=np.uint64)
    places = np.arange(offset + 1, offset + 1 + shape[-1], dtype=np.uint64)
    key = _mix(_mix(items + GOLDEN) + np.uint64(draw))
    bits = _mix(_mix(key[:, None] + rows)[..., None] + places * GOLDEN)
    first = ((bits >> np.uint64(32)).astype(np.float64) + 0.5) / 2**32
    second = (bits & np.uint64(2**32 - 1)).astype(np.float64) / 2**32
    return (np.sqrt(-2 * np.log(first)) * np.cos(2 * math.pi * second)).reshape(shape).astype(np.float32)
