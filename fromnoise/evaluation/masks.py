"""The best that a mask on the mixture's spectrogram can do, for the row beside the models.

    s_k' = istft(X |S_k| / sum_j |S_j|),   X, S the Hann STFT of mixture and sources, 32 ms every 8 ms

It knows the sources and keeps the mixture's phase: the "ideal ratio mask" that Y. Luo and N. Mesgarani list beside
Conv-TasNet (12.2 dB SI-SDR improvement on WSJ0-2mix), IEEE/ACM TASLP 2019, https://arxiv.org/abs/1809.07454.
"""

import numpy as np
import torch
from jaxtyping import Float

WINDOW_S = 0.032
LEAST = 1e-8  # of |S|: where all sources are silent the mixture is dealt out evenly


def ratio_masked(
    sources: Float[np.ndarray, "k n"], mixture: Float[np.ndarray, " n"], sample_rate: int
) -> Float[np.ndarray, "k n"]:
    """The mixture through the ratio mask of each source."""
    size = 4 * max(4, round(WINDOW_S * sample_rate / 4))
    window = torch.hann_window(size, dtype=torch.float64)
    waves = torch.from_numpy(np.concatenate([sources, mixture[None]]).astype(np.float64))
    spectra = torch.stft(waves, size, size // 4, window=window, pad_mode="constant", return_complex=True)
    levels = spectra[:-1].abs() + LEAST
    masked = spectra[-1] * levels / levels.sum(0)
    return torch.istft(masked, size, size // 4, window=window, length=len(mixture)).numpy().astype(np.float32)
