"""Laws of every prediction, over every process: reading an output inverts making its target."""

import math

import pytest
import torch
from torch import nn

from fromnoise.denoiser import Denoiser
from fromnoise.predictions import PREDICTIONS, SGMSE, Combined, Karras, Noise, Velocity
from fromnoise.processes import OUVE, VE, VP, Flow, Interpolating, VPAngular
from fromnoise.types import Condition, build, expand, spec

EXTRA = [
    SGMSE("score", c_out="1/sigma", noise_unit=2**0.5),
    SGMSE("mean", network_scaling="1/t"),
    SGMSE("clean", c_in="edm", c_out="edm", c_skip="edm"),
]


@pytest.fixture(params=[*(part() for part in PREDICTIONS.values()), *EXTRA], ids=str)
def prediction(request):
    return request.param


def skip_undefined(process, prediction):
    """Without noise there is no score, and nothing to weigh an output with."""
    needs_noise = prediction.degree == -1 or getattr(prediction, "c_out", "1") == "edm"
    if needs_noise and not bool(process.weights(torch.full((1,), 0.5)).noise.any()):
        pytest.skip("a path without noise has no score")


def test_reading_the_target_gives_the_clean_data(process, inner, prediction, batch):
    skip_undefined(process, prediction)
    x0, y, z = batch(len(inner))
    x_t = process.sample(x0, inner, y, z)
    read = prediction.to_clean(prediction.target(x0, z, x_t, inner, process, y), x_t, inner, process, y)
    w = process.weights(inner)
    lost = float((w.noise / w.clean).max().clamp(min=1))  # digits of x0 that x_t itself does not hold
    torch.testing.assert_close(read, x0, rtol=0, atol=1e-11 * lost)


def test_gain_is_the_slope_of_the_reading(process, inner, prediction, batch):
    x0, y, z = batch(len(inner))
    x_t = process.sample(x0, inner, y, z)
    moved = prediction.to_clean(z + 1, x_t, inner, process, y) - prediction.to_clean(z, x_t, inner, process, y)
    gain = expand(prediction.gain(inner, process), x0).expand_as(x0)
    torch.testing.assert_close(moved, gain, rtol=1e-9, atol=1e-10 * float(gain.abs().max().clamp(min=1)))


def test_reading_is_finite_at_the_start(process, prediction, batch):
    x0, y, z = batch(2)
    one = torch.ones(2, dtype=torch.float64)
    assert bool(prediction.to_clean(x0, process.prior(y, z), one, process, y).isfinite().all())


def test_velocity_is_data_to_noise_for_a_straight_flow(batch):
    x0, y, z = batch(2)
    t = torch.tensor([0.2, 0.7], dtype=torch.float64)
    torch.testing.assert_close(Velocity().target(x0, z, x0, t, Flow()), z - x0)
    torch.testing.assert_close(Velocity().target(x0, z, x0, t, Flow("observation", 0.0), y), y - x0)


@pytest.mark.parametrize("process", [VP(), VPAngular()])
def test_velocity_is_per_angle_for_variance_preserving_processes(process, batch):
    """v = clean z - noise x0, Salimans and Ho, Section 4."""
    x0, _, z = batch(2)
    t = torch.tensor([0.2, 0.7], dtype=torch.float64)
    w = process.weights(t)
    v = Velocity().target(x0, z, process.sample(x0, t, None, z), t, process)
    torch.testing.assert_close(v, expand(w.clean, z) * z - expand(w.noise, x0) * x0)


@pytest.mark.parametrize("process", [VP(num_steps=50), VE(), VPAngular()], ids=lambda p: type(p).__name__)
def test_combined_noise_is_the_noise_where_y_has_no_part(process, batch):
    x0, _, z = batch(2)
    t = torch.tensor([0.2, 0.7], dtype=torch.float64)
    x_t = process.sample(x0, t, None, z)
    torch.testing.assert_close(Combined().target(x0, z, x_t, t, process), z)
    torch.testing.assert_close(Combined().to_clean(x0, x_t, t, process), Noise().to_clean(x0, x_t, t, process))


@pytest.mark.parametrize("process", [Interpolating(), OUVE()], ids=lambda p: type(p).__name__)
def test_combined_noise_needs_no_observation_to_be_read(process, batch):
    x0, y, z = batch(2)
    t = torch.tensor([0.2, 0.7], dtype=torch.float64)
    x_t = process.sample(x0, t, y, z)
    e = Combined().target(x0, z, x_t, t, process, y)
    torch.testing.assert_close(Combined().to_clean(e, x_t, t, process), x0)
    with pytest.raises(ValueError, match="pass y"):
        Combined().target(x0, z, x_t, t, process)


def test_combined_noise_is_that_of_the_paper(batch):
    """Lu et al.: e = (m sqrt(abar) (y - x0) + sqrt(delta) z)/sqrt(1 - abar), at step 30 of 50, by their own symbols."""
    process, (x0, y, z) = Interpolating(), batch(1)
    abar = process.abar[30]
    m = ((1 - abar) / abar**0.5) ** 0.5
    delta = 1 - (1 + m**2) * abar
    expected = (m * abar**0.5 * (y - x0) + delta**0.5 * z) / (1 - abar) ** 0.5
    t = torch.tensor([31 / 50], dtype=torch.float64)
    target = Combined().target(x0, z, process.sample(x0, t, y, z), t, process, y)
    torch.testing.assert_close(target, expected, rtol=1e-12, atol=1e-12)


def test_preconditioning_is_that_of_the_table():
    """Karras et al., Table 1: c_skip, c_out, c_in and c_noise at sigma = 0.8, sigma_data = 0.5."""
    process, sigma, d = VE(sigma_min=0.002, sigma_max=80.0), 0.8, 0.5
    t = process.time_of(torch.tensor([sigma], dtype=torch.float64))
    x, out = torch.full((1, 1, 1), 3.0).double(), torch.full((1, 1, 1), 2.0).double()
    karras, total = Karras(d), sigma**2 + d**2
    read = karras.to_clean(out, x, t, process).item()
    assert read == pytest.approx(d**2 / total * 3 + sigma * d / math.sqrt(total) * 2, rel=1e-12)
    assert karras.network_input(x, t, process).item() == pytest.approx(3 / math.sqrt(total), rel=1e-12)
    assert karras.network_time(t, process).item() == pytest.approx(math.log(sigma) / 4, rel=1e-12)


def test_preconditioned_input_and_target_have_unit_variance(process, inner):
    x0, y, z = (scale * torch.randn(len(inner), 2, 10000).double() for scale in (0.5, 1.0, 1.0))
    x_t = process.sample(x0, inner, y, z)
    for values in (
        Karras(0.5).network_input(x_t, inner, process, y),
        Karras(0.5).target(x0, z, x_t, inner, process, y),
    ):
        # five standard errors of a variance over 20000 draws
        torch.testing.assert_close(values.var(dim=(1, 2)), torch.ones(len(inner)).double(), rtol=0, atol=5 * 1e-2)


@pytest.mark.parametrize("name", PREDICTIONS)
def test_spec_names_the_object_again(name):
    assert build("prediction", PREDICTIONS, spec(PREDICTIONS, PREDICTIONS[name]())) == PREDICTIONS[name]()


class Echo(nn.Module):
    """Returns what it is shown plus the time and the condition it is told."""

    def forward(self, x, t, condition):
        return x + expand(t, x) + condition.signal


def test_denoiser_reads_what_its_backbone_says(process, prediction, batch):
    skip_undefined(process, prediction)
    x_t, y, signal = (x.float() for x in batch(3))
    t = torch.tensor([0.3, 0.5, 0.9], dtype=torch.float64)
    denoiser = Denoiser(Echo(), process, prediction)
    shown = prediction.network_input(x_t, t, process, y)
    gain = prediction.signal_gain(t, process)
    heard = signal if gain is None else expand(gain, signal) * signal
    out = shown + expand(prediction.network_time(t, process), shown) + heard
    estimate = denoiser(x_t, t, y, Condition(signal=signal))
    torch.testing.assert_close(estimate, prediction.to_clean(out, x_t, t, process, y))
    assert estimate.dtype == torch.float32
    assert denoiser.bind(y, Condition(signal=signal))(x_t, t).tolist() == estimate.tolist()
