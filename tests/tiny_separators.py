"""Separators whose truth is known: two voices in bands, and a network that splits them in an order of its own.

Registered as the backbone "bands" while a test runs, the network is exact on sounds made by `voices`, but which band
comes out first is a toss that depends on the piece of sound it is given, as it is with networks that are trained.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import firwin
from torch import nn

from fromnoise import hub
from fromnoise.backbones import BACKBONES
from fromnoise.tasks.separation_model import SeparationConfig, SeparationModel

CARD = {"task": "separate", "licence": "MIT"}


@dataclasses.dataclass(frozen=True)
class Bands:
    """sources: 2 or 3 bands of equal width. taps: of the filters. toss: whether the order is a toss."""

    sources: int = 2
    taps: int = 129
    toss: bool = True

    @property
    def reach(self) -> int:
        return self.taps // 2

    def build(self) -> nn.Module:
        return Split(self)


class Split(nn.Module):
    """x `b k n` is left aside: the signal alone tells the bands."""

    def __init__(self, config: Bands) -> None:
        super().__init__()
        self.config = config
        edges = np.arange(1, config.sources) / config.sources
        below = [torch.from_numpy(firwin(config.taps, edge)).float() for edge in edges]
        self.below = nn.Parameter(torch.stack(below)[:, None])
        self.calls = 0

    def forward(self, x: torch.Tensor, t: torch.Tensor, condition: Any) -> torch.Tensor:
        self.calls += 1
        mix = condition.signal
        below = self.filtered(mix)
        steps = torch.cat([torch.zeros_like(mix), below, mix], 1)
        bands = steps[:, 1:] - steps[:, :-1]
        order = list(range(self.config.sources))
        if self.config.toss:
            toss = np.random.default_rng(int(1e6 * float(mix.abs().mean())))
            order = toss.permutation(self.config.sources).tolist()
        return bands[:, order]

    def filtered(self, mix: torch.Tensor) -> torch.Tensor:
        """`b 1 n` -> `b k-1 n`."""
        n, size = mix.shape[-1], 1 << (mix.shape[-1] + self.config.taps).bit_length()
        spectrum = torch.fft.rfft(mix, size) * torch.fft.rfft(self.below[:, 0].to(mix.dtype), size)
        start = self.config.taps // 2
        return torch.fft.irfft(spectrum, size)[..., start : start + n]


def config_of(**settings: Any) -> SeparationConfig:
    """A configuration that samples in one step; `sources`, `sample_rate` and `bands` fill in the parts."""
    sources, rate = settings.pop("sources", 2), settings.pop("sample_rate", 8000)
    parts = {
        "frontend": {"name": "wave", "sample_rate": rate},
        "backbone": {"name": "bands", "sources": sources} | settings.pop("bands", {}),
        "process": {"name": "mixing", "sources": sources},
        "prediction": {"name": "clean"},
        "sampler": {"name": "ddim"},
        "num_steps": 1,
    }
    return SeparationConfig(**(parts | settings), sources=sources)


@pytest.fixture
def make_separator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """The function (name, settings of `config_of`) -> model folder."""
    monkeypatch.setitem(BACKBONES, "bands", Bands)

    def make(name: str = "tiny", **settings: Any) -> Path:
        config = config_of(**settings)
        card = CARD | {"name": name, "config": hub.config_dict(config)}
        hub.save(SeparationModel(config), card | {"sample_rate": config.frontend["sample_rate"]}, tmp_path / name)
        return tmp_path / name

    return make


def voices(seconds: float, rate: int, sources: int = 2, seed: int = 0, pauses: bool = True) -> np.ndarray:
    """`k n`: noise in well separated bands, each coming and going over a few seconds."""
    rng, n = np.random.default_rng(seed), round(seconds * rate)
    out = np.empty((sources, n), np.float32)
    for k in range(sources):
        low, high = (k + 0.25) / sources, (k + 0.75) / sources
        taps = firwin(255, [low, high], pass_zero=False).astype(np.float32)
        size = 2 ** int(np.ceil(np.log2(n + 254)))
        voice = np.fft.irfft(np.fft.rfft(rng.standard_normal(n), size) * np.fft.rfft(taps, size), size)
        talk = rng.random(max(2, round(seconds / 3))) < 0.6 if pauses else np.ones(2)
        level = np.interp(np.arange(n) / rate, np.arange(len(talk)) * 3.0, talk.astype(np.float64))
        out[k] = 0.2 * voice[:n] * (0.01 + level)
    return out


def si_sdr(reference: np.ndarray, estimate: np.ndarray) -> float:
    """dB."""
    target = (estimate @ reference) / (reference @ reference) * reference
    return float(10 * np.log10((target @ target) / np.square(target - estimate).sum()))
