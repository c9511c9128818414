"""DR-DiffuSE's two regression losses with gradients, float64 to 1e-12 (judiebig/DR-DiffuSE at 842f9c0)."""

import numpy as np
import torch

from fromnoise.evaluation.speech import METRICS
from fromnoise.tasks.losses import SpectralLoss, complex_mse, negative_si_sdr
from tests.rules import VECTORS, bins_first, fill

SHAPE = (2, 2, 9, 7)


def masked(frames: np.ndarray) -> torch.Tensor:
    return torch.arange(SHAPE[2])[None] < torch.from_numpy(frames)[:, None]


def batch_mean(items: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The published losses divide by the frames of the whole batch: items weighted by their frames."""
    weight = mask.sum(1).to(items.dtype)
    return (items * weight).sum() / weight.sum()


def check(loss: object, value: str, gradient: str, offset: float) -> None:
    arrays = np.load(VECTORS / "drdiffuse_losses.npz")
    np.testing.assert_allclose(fill(SHAPE, 20), arrays["est"], rtol=1e-12)
    np.testing.assert_allclose(fill(SHAPE, 21), arrays["label"], rtol=1e-12)
    estimate, mask = bins_first(fill(SHAPE, 20)).requires_grad_(), masked(arrays["frames"])
    total = batch_mean(loss(estimate, bins_first(fill(SHAPE, 21)), mask), mask)  # pyright: ignore
    total.backward()
    np.testing.assert_allclose(total.item() + offset, arrays[value], rtol=1e-12)
    assert estimate.grad is not None
    np.testing.assert_allclose(estimate.grad.transpose(2, 3).numpy(), arrays[gradient], rtol=1e-10, atol=1e-14)


def test_complex_loss() -> None:
    check(complex_mse, "com_mse", "grad_com_mse", 0.0)


def test_complex_and_magnitude_loss() -> None:
    check(SpectralLoss(), "com_mag_mse", "grad_com_mag_mse", 1e-7)  # half of the two constants 1e-7


def test_gradient_at_a_silent_bin_is_finite() -> None:
    estimate = torch.zeros(1, 2, 3, 4, requires_grad=True)
    SpectralLoss()(estimate, torch.ones(1, 2, 3, 4)).sum().backward()
    assert estimate.grad is not None
    assert bool(torch.isfinite(estimate.grad).all())


def test_si_sdr_term_equals_the_metric() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(2, 1, 500, generator=generator, dtype=torch.float64)
    estimate = 0.7 * target + 0.2 * torch.randn(target.shape, generator=generator, dtype=torch.float64)
    expected = [
        -METRICS["si_sdr"].function(t[0].numpy(), e[0].numpy(), 16000) for t, e in zip(target, estimate, strict=True)
    ]
    np.testing.assert_allclose(negative_si_sdr(estimate, target).numpy(), expected, rtol=1e-9)
