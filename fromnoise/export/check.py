"""Whether an exported folder does what the model does: its networks at sizes that were not traced, and its sound."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fromnoise import runner
from fromnoise.export.networks import CHANGING, FORMATS, Plain
from fromnoise.export.plans import Called, Plan
from fromnoise.runner.engine import Folder
from fromnoise.types import InputError

TOLERANCE = 1e-3
"""The largest difference in samples, full scale being 1, that counts as the same sound."""
SIZES = ((1, 1), (1, 2), (3, 3))
"""(items, times the traced length) of the calls that are compared; two items of the length itself were traced."""


def check(
    ready: Any,
    made: Plan,
    folder: Path,
    steps: int | None = None,
    sampler: str | None = None,
    guidance: int | float | None = None,
    engine: str = "onnxruntime",
) -> dict[str, float]:
    """What was compared -> the largest difference. steps, sampler, guidance: as they were exported."""
    found: dict[str, float] = {}
    opened = Folder(folder, engine)
    for role, called in made.networks.items():
        path = folder / opened.facts["networks"][role]["file"]
        network = _torch(path) if path.suffix == FORMATS["torch"] else opened.network(role)
        assert network is not None
        for items, times in SIZES:
            if opened.facts["networks"][role]["items"] not in (None, items):
                continue
            found[f"{path.name}, {items} x {times} lengths"] = difference(network, called, items, times)
    if all(entry["file"].endswith(FORMATS["onnx"]) for entry in opened.facts["networks"].values()):
        found |= sounds(ready, runner.load(folder, engine), steps, sampler, guidance)
    return found


def _torch(path: Path) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    program = torch.export.load(path).module()
    return lambda given: program(*(torch.from_numpy(value) for value in given.values())).numpy()


def difference(
    network: Callable[[Mapping[str, np.ndarray]], np.ndarray], called: Called, items: int, times: int
) -> float:
    """Largest difference of one network call, for so many items of so many times the traced length."""
    generator = torch.Generator().manual_seed(items)

    def other(like: Tensor, longer: bool) -> Tensor:
        shape = (items, *like.shape[1:-1], like.shape[-1] * (times if longer else 1))
        return torch.randn(shape, generator=generator)

    x = other(called.x, True)
    told = {name: other(value, name in CHANGING) for name, value in called.told.items()}
    t = torch.rand(items, generator=generator)
    with torch.inference_mode():
        wanted = Plain(called.network, tuple(told))(x, t, *told.values()).numpy()
        got = network({"x": x.numpy(), "t": t.numpy(), **{name: value.numpy() for name, value in told.items()}})
    return float(np.abs(np.asarray(got) - wanted).max())


def sounds(
    ready: Any, other: runner.Runner, steps: int | None, sampler: str | None, guidance: int | float | None
) -> dict[str, float]:
    """Largest difference in samples between model and runner for a sound made here."""
    rate, chosen = ready.sample_rate, {"steps": steps, "sampler": sampler}
    wave = example(2.0, rate)
    if isinstance(other, runner.Generator):
        names = [ready.labels[0], None] if ready.labels else [None]
        if guidance is not None:
            chosen |= {"guidance": guidance}
        seconds = min(ready.model.config.seconds, 2.0)
        wanted = [
            ready(1, label, seconds=seconds, **(chosen if label else {**chosen, "guidance": None})) for label in names
        ]
        got = [other(1, label, seconds=seconds) for label in names]
    elif isinstance(other, runner.Vocoder):
        mel = ready.mel(wave, rate)
        found = {"mel": _largest(other.mel(wave, rate), mel)}
        return found | {"sound": _largest(other(mel), ready(mel, **chosen))}
    elif isinstance(other, runner.Enhancer | runner.Separator):
        wanted, got = [ready(wave, rate, **chosen)], [other(wave, rate)]
    else:
        raise InputError(f"there is no comparison of sounds for the task {ready.task!r}")
    return {"sound": max(_largest(a, b) for a, b in zip(got, wanted, strict=True))}


def _largest(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(np.asarray(a) - np.asarray(b)).max())


def example(seconds: float, rate: int) -> np.ndarray:
    """Something like two voices in noise: gliding harmonics with pauses, the same on every machine."""
    t = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal(len(t)) * 0.02
    for pitch, pace in ((110.0, 3.1), (190.0, 2.3)):
        phase = 2 * math.pi * np.cumsum(pitch * (1 + 0.1 * np.sin(2 * math.pi * 0.7 * pace * t))) / rate
        voice = sum(np.sin(h * phase) / h for h in range(1, 16) if h * 1.1 * pitch < rate / 2)
        noise = noise + 0.08 * voice * np.maximum(np.sin(2 * math.pi * pace * t), 0)
    return noise.astype(np.float32)
