"""The vectors of audio-diffusion-pytorch: published names filled by the closed form that their JSON gives.

    n = ((A + E i) k + B k^2 + C i + D) mod M,   u = (2 n + 1 - M)/M,   value = base + amplitude u

i: rank of the name in ASCII order, k: flat index, modulo M. Matrices have amplitude sqrt(3 / (numbers per row)).
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fromnoise.backbones import UNet1dConfig

VECTORS = Path(__file__).parent / "vectors"
AUTOENCODER = UNet1dConfig(
    channels=(256, 512, 512, 512, 1024, 1024, 1024),
    factors=(1, 2, 2, 2, 2, 2, 2),
    items=(1, 2, 2, 2, 2, 2, 2),
    context_channels=(0, 0, 0, 0, 32, 0, 0),
    num_filters=128,
)
GENERATOR = UNet1dConfig(
    in_channels=32,
    channels=(128, 256, 512, 512, 1024, 1024),
    factors=(1, 2, 2, 2, 2, 2),
    items=(2, 2, 2, 4, 8, 8),
    attentions=(0, 0, 1, 1, 1, 1),
    cross_attentions=(1, 1, 1, 1, 1, 1),
    attention_heads=12,
    embedding_features=768,
    embedding_max_length=128,
)


class Vector:
    """The arrays of one file and the state dict that they were computed with."""

    def __init__(self, name: str, folder: Path = VECTORS) -> None:
        self.facts = json.loads((folder / f"{name}.json").read_text())
        self.config = self.facts["config"]
        self.arrays = np.load(folder / f"{name}.npz")

    def __getitem__(self, key: str) -> Tensor:
        return torch.as_tensor(self.arrays[key])

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the parameters, tied ones once."""
        return {part["name"]: tuple(part["shape"]) for part in self.facts["params"]}

    def state(self, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
        """The parameters under their published names."""
        found = filled(self.shapes, self.facts["rule"]["constants"], dtype)
        for part in self.facts["params"]:
            assert abs(float(found[part["name"]].sum(dtype=torch.float64)) - part["sum"]) < 1e-6 * (
                1 + abs(part["sum"])
            )
        return found

    def load(self, network: nn.Module, names: Mapping[str, str], prefix: str = "") -> nn.Module:
        """The network with the published weights under `prefix`, all of which it must have."""
        state = self.state(next(network.parameters()).dtype)
        inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        assert set(names.values()) == set(inside)
        network.load_state_dict({own: inside[there] for own, there in names.items()})
        return network.eval()

    def check(self, actual: Tensor, key: str, scale: float = 1) -> None:
        """float64 as the file says: atol 1e-9, rtol 1e-7, times 10 for chains of steps."""
        assert actual.dtype == torch.float64
        torch.testing.assert_close(actual, self[f"out.{key}"], rtol=1e-7 * scale, atol=1e-9 * scale)


def filled(
    shapes: Mapping[str, tuple[int, ...]], rule: Mapping[str, float], dtype: torch.dtype = torch.float64, first: int = 0
) -> dict[str, Tensor]:
    """Tensors of these names and shapes by the rule; first: rank of the first name."""
    return {name: _value(name, shapes[name], i, rule).to(dtype) for i, name in enumerate(sorted(shapes), first)}


def _value(name: str, shape: tuple[int, ...], i: int, rule: Mapping[str, float]) -> Tensor:
    u = uniform(shape, i, rule)
    if len(shape) > 1:
        return u.mul_(rule["g_w"] * math.sqrt(3 / math.prod(shape[1:])))
    base, gain = {"weight": (1, "g_n"), "bias": (0, "g_b"), "weights": (0, "g_f")}[name.rpartition(".")[2]]
    return u.mul_(rule[gain]).add_(base)


def uniform(shape: Iterable[int], i: int, rule: Mapping[str, float]) -> Tensor:
    """u for the tensor of rank i; repeats after M numbers."""
    shape = tuple(shape)
    a, b, c, d, e, m = (int(rule[key]) for key in "ABCDEM")
    k = np.arange(min(math.prod(shape), m), dtype=np.int64)
    n = ((a + e * i) % m * k % m + b * k % m * k + (c * i + d) % m) % m
    return torch.from_numpy(np.resize((2 * n + 1 - m) / m, math.prod(shape))).reshape(shape)


def noise(shape: Iterable[int], j: int, rule: Mapping[str, float]) -> Tensor:
    """The noise input of number j: unit variance."""
    return math.sqrt(3) * uniform(shape, 1000 + j, rule)


def outputs(network: nn.Module, parts: Mapping[str, nn.Module], run: Callable[[], Tensor]) -> dict[str, Tensor]:
    """What the named parts give while `run` runs."""
    found: dict[str, Tensor] = {}
    handles = [
        part.register_forward_hook(lambda module, given, out, name=name: found.__setitem__(name, out))
        for name, part in parts.items()
    ]
    run()
    for handle in handles:
        handle.remove()
    return found
