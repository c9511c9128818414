"""The closed-form inputs and parameters from which the DR-DiffuSE vectors were computed.

r(k, s) = 2 ((7919 (k^2 + 1) + 31 k + 104729 (s + 1)) mod 10007) / 10007 - 1, exact in integers, k the flat index.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

VECTORS = Path(__file__).parent / "vectors"


def sequence(n: int, seed: int) -> np.ndarray:
    k = np.arange(n, dtype=np.int64)
    return 2 * ((7919 * (k * k + 1) + 31 * k + 104729 * (seed + 1)) % 10007) / 10007 - 1


def fill(shape: Sequence[int], seed: int) -> np.ndarray:
    """Unit variance, float64, C order."""
    return (math.sqrt(3) * sequence(math.prod(shape), seed)).reshape(shape)


def fill_parameters(module: nn.Module, offset: int = 0) -> nn.Module:
    """Every entry of the state dict by the parameter rule: keys sorted, the seed of a key is its number and offset."""
    state = module.state_dict()
    for seed, key in enumerate(sorted(state), start=offset):
        state[key] = _entry(key, state[key], seed)
    module.load_state_dict(state)
    return module


def filled(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Entries of these names and shapes by the same rule, float64."""
    empty = {key: torch.empty(tuple(shape), dtype=torch.float64) for key, shape in shapes.items()}
    return {key: _entry(key, empty[key], seed) for seed, key in enumerate(sorted(empty))}


def _entry(key: str, old: Tensor, seed: int) -> Tensor:
    r = sequence(old.numel(), seed).reshape(old.shape)
    if key.endswith("num_batches_tracked"):
        return torch.zeros_like(old)
    if key.endswith("running_mean") or key.endswith("bias"):
        value = 0.1 * r
    elif key.endswith("running_var"):
        value = 1 + 0.3 * r
    elif old.ndim == 1:
        value = 0.25 + 0.1 * r if old.numel() == 1 else 1 + 0.2 * r
    else:
        value = r * math.sqrt(3 * old.shape[0] / old.numel())
    return torch.from_numpy(value).to(old.dtype)


def bins_first(array: np.ndarray) -> Tensor:
    """`b c t f` of the vectors -> `b c f t` of the toolkit."""
    return torch.from_numpy(np.ascontiguousarray(np.swapaxes(array, 2, 3)))
