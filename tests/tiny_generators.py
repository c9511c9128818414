"""Generators of a few hundred random weights, with and without labels."""

import numpy as np
import torch

from fromnoise.tasks import GenerationConfig, GenerationModel, Generator

RATE = 1000
CLIP = 64  # samples of a clip
DIGITS = ("zero", "one", "two")
VP = {"name": "vp", "num_steps": 20, "beta_max": 0.2}


def network(features: int, vector: int = 0) -> dict:
    sizes = {"features": features, "width": 8, "layers": 2, "expansion": 2, "kernel": 3}
    return {"name": "convnext", "vector": vector, **sizes}


def make(labels: tuple[str, ...] = (), seed: int = 0, **parts: object) -> Generator:
    """A generator with random weights, the last layer's too (it begins at zero)."""
    label_dim = 6
    config = GenerationConfig(**{
        "frontend": {"name": "wave", "sample_rate": RATE},
        "backbone": network(1, label_dim if labels else 0),
        "process": VP,
        "num_steps": 20,
        "labels": labels,
        "label_dim": label_dim,
        "seconds": CLIP / RATE,
        **parts,
    })  # fmt: skip
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = GenerationModel(config)
        for weight in model.parameters():
            weight.normal_(std=0.3)
    return Generator(model)


def sound(*shape: int, seed: int = 0) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


class Watched(torch.nn.Module):
    """A network that notes how often, how many at once, and at which steps it is called."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner, self.steps, self.sizes = inner, [], []

    def forward(self, x, t, condition):
        self.steps.append(round(float(t[0]), 4))
        self.sizes.append(len(x))
        return self.inner(x, t, condition)


def watch(generator: Generator) -> Watched:
    generator.model.denoiser.backbone = Watched(generator.model.denoiser.backbone)
    return generator.model.denoiser.backbone
