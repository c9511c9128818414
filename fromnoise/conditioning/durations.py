"""How long a sound is to be, so that a short one is made whole and not as the beginning of a longer one.

    u = min(seconds / longest, 1),    vector = W [u, sin k pi u, cos k pi u],    k = 1 .. 8

Systems of text to audio tell the duration as a number beside the text (Evans et al., "Fast Timing-Conditioned Latent
Audio Diffusion", 2024, https://arxiv.org/abs/2402.04825). W begins at zero: at first nothing is said.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

NUM_WAVES = 8


class DurationEmbedding(nn.Module):
    """`dim` numbers for a duration in seconds; all from `longest` on are alike."""

    def __init__(self, longest: float, dim: int) -> None:
        super().__init__()
        self.longest = longest
        self.out = nn.Linear(1 + 2 * NUM_WAVES, dim, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, seconds: Float[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """One row for each duration."""
        u = (seconds.to(self.out.weight) / self.longest).clamp(0, 1)[:, None]
        angle = math.pi * torch.arange(1, NUM_WAVES + 1, device=u.device) * u
        return self.out(torch.cat([u, angle.sin(), angle.cos()], -1))
