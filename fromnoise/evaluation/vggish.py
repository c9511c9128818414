"""VGGish: 128 numbers for 0.96 s of sound, the embedding behind published Frechet audio distances.

Sound at 16 kHz, one channel. Frames of 400 samples every 160, not padded, periodic Hann window, |FFT| of 512; 64
triangles B, linear in mel = 1127 ln(1 + f/700), corners equally spaced from 125 to 7,500 Hz, no area norm;

    L = ln(|FFT| B + 0.01)                     examples: 96 frames each, side by side, the rest of them left out
    e = 6 convolutions 3x3, 4 poolings, 3 linear layers; no ReLU behind the last

Hershey et al., "CNN Architectures for Large-Scale Audio Classification", ICASSP 2017, https://arxiv.org/abs/1609.09430.
The names of the weights are those of torchvggish's file vggish-10086976.pth (288 MB), which is read from where the user
has it. Frechet audio distances take e itself, without the principal components and the 8 bits of AudioSet's release.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fromnoise.importers.convert import read, state_of
from fromnoise.types import InputError

SAMPLE_RATE = 16000
FRAME, HOP, FFT, BANDS, LOW, HIGH, OFFSET = 400, 160, 512, 64, 125.0, 7500.0, 0.01
EXAMPLE = 96  # frames
LEAST = (EXAMPLE - 1) * HOP + FRAME
"""Samples of the shortest sound with an example."""


@lru_cache(maxsize=1)
def mel_bank() -> Float[np.ndarray, "257 64"]:
    """B: triangles over the bins of the FFT, linear in mel; nothing of the zeroth bin."""
    mel = 1127 * np.log1p(np.fft.rfftfreq(FFT, 1 / SAMPLE_RATE) / 700)
    low, high = 1127 * np.log1p(np.array([LOW, HIGH]) / 700)
    corner = np.linspace(low, high, BANDS + 2)
    rise = (mel[:, None] - corner[:-2]) / np.diff(corner)[:-1]
    fall = (corner[2:] - mel[:, None]) / np.diff(corner)[1:]
    bank = np.maximum(0, np.minimum(rise, fall))
    bank[0] = 0
    return bank


def log_mel(wave: Float[np.ndarray, " n"]) -> Float[np.ndarray, "t 64"]:
    """L of a sound at 16 kHz; no frames of one with less than 400 samples."""
    if len(wave) < FRAME:
        return np.zeros((0, BANDS))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)
    frames = np.lib.stride_tricks.sliding_window_view(wave.astype(np.float64), FRAME)[::HOP]
    return np.log(np.abs(np.fft.rfft(frames * window, FFT)) @ mel_bank() + OFFSET)


def examples(wave: Float[np.ndarray, " n"]) -> Float[np.ndarray, "e 96 64"]:
    """L in pieces of 0.96 s. Raises ValueError for a sound that has none."""
    level = log_mel(wave)
    count = len(level) // EXAMPLE
    if count == 0:
        raise ValueError(f"VGGish needs {LEAST / SAMPLE_RATE:g} s, the sound has {len(wave) / SAMPLE_RATE:.3g} s")
    return level[: count * EXAMPLE].reshape(count, EXAMPLE, BANDS)


class VGGishNetwork(nn.Module):
    """The layers under their published names."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 1
        for size in (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool"):
            if isinstance(size, str):
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(width, size, 3, padding=1), nn.ReLU()]
                width = size
        self.features = nn.Sequential(*layers)
        sizes = (512 * 4 * 6, 4096, 4096, 128)
        linear = [part for i in range(3) for part in (nn.Linear(sizes[i], sizes[i + 1]), nn.ReLU())]
        self.embeddings = nn.Sequential(*linear[:-1])

    def forward(self, level: Float[Tensor, "e 96 64"]) -> Float[Tensor, "e 128"]:
        """e of examples; the last map is read time by time, band by band, channel by channel."""
        return self.embeddings(self.features(level[:, None]).permute(0, 2, 3, 1).flatten(1))


class VGGish:
    """The embedder `vggish`; weights: torchvggish's file, or the same as safetensors."""

    name = "vggish"
    sample_rate = SAMPLE_RATE

    def __init__(self, weights: Path, device: str | torch.device = "cpu") -> None:
        tensors = state_of(read(weights), weights)
        with torch.device("meta"):
            self.network = VGGishNetwork()
        expected = {name: tuple(tensor.shape) for name, tensor in self.network.state_dict().items()}
        wrong = sorted(name for name, shape in expected.items() if name not in tensors or tensors[name].shape != shape)
        if wrong:
            raise InputError(
                f"{weights}: not the weights of VGGish: {len(wrong)} of {len(expected)} tensors are missing or "
                f"of another shape, e.g. {wrong[0]}; expected torchvggish's vggish-10086976.pth"
            )
        self.network.load_state_dict({name: tensors[name].float() for name in expected}, assign=True)
        self.network.to(device).eval()

    def __call__(self, wave: Float[np.ndarray, " n"]) -> Float[np.ndarray, "e 128"]:
        """e of every 0.96 s. Raises ValueError for a sound of less than 0.975 s."""
        level = torch.from_numpy(examples(wave).astype(np.float32))
        device = next(self.network.parameters()).device
        with torch.inference_mode():
            parts = [self.network(part.to(device)).cpu() for part in level.split(32)]
        return torch.cat(parts).numpy()
