"""Sounds from a formula, for tests, documentation and a first run without any data.

    clean = envelope(t) sum_h h^-1 sin(2 pi h F(t)),   F' = f0 (1 + gliding),   noisy = clean + coloured noise
    sources: several such voices, each with a pitch of its own

A "voice" is a handful of harmonics whose pitch glides and whose level opens and closes a few times a second; the noise
is white noise with a drawn spectral tilt. Item k is a function of (seed, k) alone.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

Wave = Float[np.ndarray, " n"]


@dataclass(frozen=True)
class Synthetic:
    """seconds: length of one item. snr_min, snr_max in dB. valid_items: size of the validation set."""

    gives: ClassVar[tuple[str, ...]] = ("clean", "noisy")

    sample_rate: int = 16000
    seconds: float = 0.25
    snr_min: float = 0.0
    snr_max: float = 10.0
    valid_items: int = 2

    def sources(self) -> dict[str, list[Path]]:
        """No files."""
        return {}

    def train(self, seed: int) -> "SyntheticSet":
        """Endless items for training."""
        return SyntheticSet(self, seed)

    def valid(self) -> "SyntheticSet":
        """Items for validation, always the same."""
        return SyntheticSet(self, 2**31, self.valid_items)


class SyntheticSet(Dataset[dict[str, Tensor]]):
    """Item k: {"clean": `1 n`, "noisy": `1 n`}, float32."""

    def __init__(self, config: Synthetic, seed: int, items: int = 2**62) -> None:
        self.config, self.seed, self.items = config, seed, items

    def __len__(self) -> int:
        return self.items

    def __getitem__(self, k: int) -> dict[str, Tensor]:
        c, draw = self.config, np.random.default_rng([self.seed, k])
        n = round(c.seconds * c.sample_rate)
        clean, noise = voice(n, c.sample_rate, draw), coloured_noise(n, draw)
        level = np.sqrt(np.mean(clean**2)) / np.sqrt(np.mean(noise**2))
        noisy = clean + noise * level * 10 ** (-draw.uniform(c.snr_min, c.snr_max) / 20)
        waves = {"clean": clean, "noisy": noisy}
        return {name: torch.from_numpy(wave.astype(np.float32))[None] for name, wave in waves.items()}


@dataclass(frozen=True)
class SyntheticVoices:
    """seconds: length of one item. voices: how many sources. valid_items: size of the validation set."""

    gives: ClassVar[tuple[str, ...]] = ("sources",)

    voices: int = 2
    sample_rate: int = 8000
    seconds: float = 0.25
    valid_items: int = 2

    def sources(self) -> dict[str, list[Path]]:
        """No files."""
        return {}

    def train(self, seed: int) -> "SyntheticVoiceSet":
        """Endless items for training."""
        return SyntheticVoiceSet(self, seed)

    def valid(self) -> "SyntheticVoiceSet":
        """Items for validation, always the same."""
        return SyntheticVoiceSet(self, 2**31, self.valid_items)


class SyntheticVoiceSet(Dataset[dict[str, Tensor]]):
    """Item k: {"sources": `K n`}, float32."""

    def __init__(self, config: SyntheticVoices, seed: int, items: int = 2**62) -> None:
        self.config, self.seed, self.items = config, seed, items

    def __len__(self) -> int:
        return self.items

    def __getitem__(self, k: int) -> dict[str, Tensor]:
        c, draw = self.config, np.random.default_rng([self.seed, k])
        n = round(c.seconds * c.sample_rate)
        waves = [voice(n, c.sample_rate, draw) for _ in range(c.voices)]
        return {"sources": torch.from_numpy(np.stack(waves).astype(np.float32))}


def voice(n: int, sample_rate: int, draw: np.random.Generator) -> Wave:
    """Eight harmonics with a gliding pitch, opening and closing; RMS near 0.1."""
    t = np.arange(n) / sample_rate
    pitch = draw.uniform(90, 250) * (1 + 0.1 * np.sin(2 * np.pi * draw.uniform(0.5, 3) * t + draw.uniform(0, 6)))
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    harmonics = sum(np.sin(h * phase + draw.uniform(0, 6)) / h for h in range(1, 9))
    syllables = 0.55 + 0.45 * np.sin(2 * np.pi * draw.uniform(2, 5) * t + draw.uniform(0, 6))
    return 0.15 * syllables * harmonics


def coloured_noise(n: int, draw: np.random.Generator) -> Wave:
    """White noise through f^-tilt, tilt from 0 (white) to 1 (brown)."""
    spectrum = np.fft.rfft(draw.standard_normal(n))
    shape = np.arange(1, len(spectrum) + 1) ** -draw.uniform(0, 1)
    return np.fft.irfft(spectrum * shape, n)
