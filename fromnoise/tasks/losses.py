"""Losses on an estimate of clean data in the compressed spectral domain.

DR-DiffuSE's regression loss (release, `com_mag_mse_loss`), with M = 1 on real frames, |.| over each (re, im) pair:

    L = 1/2 [ sum M (x' - x)^2 / (2 sum M)  +  sum M (|x'| - |x|)^2 / sum M ]  (+ 1e-7, a constant offset, left out)
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def complex_mse(
    estimate: Float[Tensor, "b c f t"], target: Float[Tensor, "b c f t"], mask: Bool[Tensor, "b t"] | None = None
) -> Float[Tensor, " b"]:
    """Mean square over channels, bins and the frames that `mask` keeps: one value an item."""
    return _frame_mean((estimate - target).square().mean(1), mask)


def magnitude_mse(
    estimate: Float[Tensor, "b c f t"], target: Float[Tensor, "b c f t"], mask: Bool[Tensor, "b t"] | None = None
) -> Float[Tensor, " b"]:
    """The same for the magnitudes of (re, im) channel pairs; its gradient at magnitude 0 is 0."""
    return _frame_mean((_magnitude(estimate) - _magnitude(target)).square().mean(1), mask)


def negative_si_sdr(estimate: Float[Tensor, "b c n"], target: Float[Tensor, "b c n"]) -> Float[Tensor, " b"]:
    """Minus the scale-invariant SDR in dB, means left in, mean over channels; floored for silent targets."""
    energy = target.square().sum(-1, keepdim=True)
    scaled = (estimate * target).sum(-1, keepdim=True) / energy.clamp(min=1e-8) * target
    ratio = scaled.square().sum(-1).clamp(min=1e-8) / (estimate - scaled).square().sum(-1).clamp(min=1e-8)
    return -10 * torch.log10(ratio).mean(-1)


def by_length(losses: Float[Tensor, " b"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, " b"]:
    """Items' masked means, weighed so that their mean is the mean over all that the masks keep."""
    kept = mask.sum(1).to(losses)
    return losses * kept / kept.mean()


def _magnitude(x: Float[Tensor, "b c f t"]) -> Float[Tensor, "b p f t"]:
    return torch.linalg.vector_norm(x.unflatten(1, (-1, 2)), dim=2)


def _frame_mean(values: Float[Tensor, "b f t"], mask: Bool[Tensor, "b t"] | None) -> Float[Tensor, " b"]:
    per_frame = values.mean(1)
    if mask is None:
        return per_frame.mean(1)
    kept = mask.to(values.dtype)
    return (per_frame * kept).sum(1) / kept.sum(1).clamp(min=1)


@dataclass(frozen=True)
class SpectralLoss:
    """(1 - magnitude) complex MSE + magnitude * magnitude MSE on the estimate of x0; 0.5 is DR-DiffuSE's.

    wave: weight of the mean absolute error of the decoded waves, at the noisy wave's unit RMS, which the task adds
    (Richter et al., "Investigating Training Objectives for Generative Speech Enhancement", 2024,
    https://arxiv.org/abs/2409.10753): compressed spectra alone say little about the level of loud bins.
    si_sdr: weight of minus the scale-invariant SDR of the decoded waves in dB, which counts hard items like easy ones.
    """

    magnitude: float = 0.5
    wave: float = 0.0
    si_sdr: float = 0.0

    def __call__(self, estimate: Tensor, target: Tensor, mask: Tensor | None = None) -> Float[Tensor, " b"]:
        m = self.magnitude
        return (1 - m) * complex_mse(estimate, target, mask) + m * magnitude_mse(estimate, target, mask)


LOSSES: dict[str, type] = {"spectral": SpectralLoss}
