"""Laws of every process: its weights, and what follows from them."""

import math

import pytest
import torch

from fromnoise.processes import OUVE, PROCESSES, VE, VP, Bridge, Flow, Interpolating, Mixing, VPAngular
from fromnoise.types import build, expand, spec

FIELDS = ("clean", "cond", "noise")
# Central differences of order 8: the coefficients of f(t + k h) - f(t - k h), k = 1 .. 4.
STENCIL = (4 / 5, -1 / 5, 4 / 105, -1 / 280)


def slope(function, t, h):
    return sum(c * (function(t + k * h) - function(t - k * h)) for k, c in enumerate(STENCIL, 1)) / h


def step_width(process):
    """Small enough for a segment of a discrete process and for the growth of the others."""
    return min(1e-3, 0.02 * process.t_min) if process.trained_times() is not None else 1e-3


def close(actual, expected, rtol=1e-10):
    """To rtol of the largest entry: float64 with the rounding of a difference quotient."""
    scale = float(expected.abs().max().clamp(min=1.0))
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=rtol * scale)


def test_time_zero_is_the_data(process):
    w = process.weights(torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(w.clean, torch.ones_like(w.clean), rtol=0, atol=1e-15)
    assert not w.cond.any()
    assert not w.noise.any()


def test_path_is_noisier_with_time(process):
    t = torch.linspace(process.t_min or 0.01, 0.999, 500, dtype=torch.float64)
    level = process.noise_level(t)
    assert bool((level.diff(dim=0) > 0).all()) or bool((level == 0).all())


@pytest.mark.parametrize("name", FIELDS)
def test_derivatives_equal_difference_quotients(process, inner, name):
    quotient = slope(lambda t: getattr(process.weights(t), name), inner, step_width(process))
    close(getattr(process.derivatives(inner), name), quotient)


def test_drift_moves_the_mean(process, inner, batch):
    x0, y, _ = batch(len(inner))
    moved = slope(lambda t: process.marginal(x0, t, y)[0], inner, step_width(process))
    close(process.drift(process.marginal(x0, inner, y)[0], inner, y), moved)


def test_diffusion_and_drift_move_the_variance(process, inner, batch):
    """(noise^2)' = 2 (df/dx) noise^2 + g^2."""
    x, y, _ = batch(len(inner))
    variance = process.weights(inner).noise ** 2
    slopes = (process.drift(x + 1, inner, y) - process.drift(x, inner, y))[..., 0]  # of each axis
    steepness = slopes if variance.ndim == 2 else slopes[:, 0]
    moved = slope(lambda t: process.weights(t).noise ** 2, inner, step_width(process))
    close(2 * steepness * variance + process.diffusion(inner) ** 2, moved)


def test_probability_flow_carries_a_sample(process, inner, batch):
    """With the true x0 the velocity is the motion of x_t at fixed z."""
    x0, y, z = batch(len(inner))
    moved = slope(lambda t: process.sample(x0, t, y, z), inner, step_width(process))
    close(process.velocity(process.sample(x0, inner, y, z), x0, inner, y), moved)


def test_implied_noise_is_the_noise(process, inner, batch):
    x0, y, z = batch(len(inner))
    implied = process.implied_noise(process.sample(x0, inner, y, z), x0, inner, y)
    close(implied, z if bool(process.weights(inner).noise.any()) else torch.zeros_like(z))


def test_without_noise_none_is_implied(batch):
    x0, y, z = batch(2)
    implied = Flow("observation", sigma=0.0).implied_noise(z, x0, torch.tensor([0.0, 1.0]), y)
    assert implied.tolist() == torch.zeros_like(z).tolist()


def test_time_of_inverts_the_noise_level(process):
    low = max(process.t_min, 0.01)
    t = torch.linspace(low, 0.99, 20, dtype=torch.float64)
    if bool(process.weights(t).noise.any()):
        close(process.time_of(process.noise_level(t)), t, 1e-12)


@pytest.mark.parametrize("process", [VP(), VPAngular(), VE(), OUVE(), Flow(sigma=0.5)], ids=lambda p: type(p).__name__)
def test_noise_level_is_the_noise_in_units_of_the_clean_data(process):
    t = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    w = process.weights(t)
    torch.testing.assert_close(process.noise_level(t), w.noise / w.clean, rtol=1e-12, atol=0)


def test_float32_weights_agree_with_float64(process):
    """Relative to t's own rounding, 6e-8 times the sensitivity of the weight (at most 10 here)."""
    t = torch.linspace(process.t_min or 0.01, 0.9, 50, dtype=torch.float32)
    short, long = process.weights(t), process.weights(t.double())
    for name in FIELDS:
        assert getattr(short, name).dtype == torch.float32
        torch.testing.assert_close(getattr(short, name).double(), getattr(long, name), rtol=5e-6, atol=1e-9)


def test_missing_observation_is_an_error_only_where_it_matters(process, batch):
    x0, _, z = batch(2)
    t = torch.tensor([0.3, 0.6], dtype=torch.float64)
    if process.needs_observation:
        with pytest.raises(ValueError, match="pass y"):
            process.sample(x0, t, None, z)
    else:
        torch.testing.assert_close(process.sample(x0, t, None, z), process.sample(x0, t, z, z))
    if bool(process.prior_weights(torch.ones(1, dtype=torch.float64)).cond.any()):
        with pytest.raises(ValueError, match="pass y"):
            process.prior(None, z)
    else:
        torch.testing.assert_close(process.prior(None, z), process.prior(x0, z))


def test_inference_mode_changes_nothing(process, inner):
    with torch.inference_mode():
        rates = process.derivatives(inner.clone())
        g = process.diffusion(inner.clone())
    assert rates.noise.tolist() == process.derivatives(inner).noise.tolist()
    assert g.tolist() == process.diffusion(inner).tolist()


def test_spec_names_the_object_again(process):
    assert build("process", PROCESSES, spec(PROCESSES, process)) == process


def prior_of(process, y, z):
    one = torch.ones(1, dtype=torch.float64)
    mean, std = {
        VP: lambda: (0 * y, 1.0),
        VPAngular: lambda: (0 * y, 1.0),
        VE: lambda: (0 * y, process.sigma_max),
        OUVE: lambda: (y, process.weights(one).noise),
        Bridge: lambda: (y, 0.0),
        Interpolating: lambda: (process.abar[-1] ** 0.5 * y, process.weights(one).noise),
        Flow: lambda: (y if process.start == "observation" else 0 * y, process.sigma),
        Mixing: lambda: (y, expand(process.weights(one).noise, z)),
    }[type(process)]()
    return mean + std * z


def test_prior_is_the_start_of_the_paper(process, batch):
    _, y, z = batch(3)
    torch.testing.assert_close(process.prior(y, z), prior_of(process, y, z), rtol=1e-14, atol=1e-14)


def test_discrete_step_is_one_application_of_its_beta():
    process = VP(beta_min=1e-4, beta_max=0.05, num_steps=200)
    clean = process.weights(process.trained_times()).clean
    beta = torch.linspace(1e-4, 0.05, 200, dtype=torch.float64)
    torch.testing.assert_close(clean, (1 - beta).cumprod(0).sqrt(), rtol=1e-13, atol=0)


def test_given_betas_equal_the_same_betas_by_rule():
    linear = VP(beta_min=0.01, beta_max=0.03, num_steps=3)
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    torch.testing.assert_close(
        VP(betas=(0.01, 0.02, 0.03)).weights(t).noise, linear.weights(t).noise, rtol=1e-14, atol=0
    )


def test_clean_weight_is_linear_between_steps():
    process = VP(betas=(0.1, 0.2, 0.3, 0.4))
    clean = process.weights(torch.tensor([0.25, 0.3, 0.5], dtype=torch.float64)).clean
    assert clean[1].item() == pytest.approx(0.8 * clean[0].item() + 0.2 * clean[2].item(), abs=1e-15)


def test_network_of_a_discrete_process_hears_the_step():
    process = VP(num_steps=200)
    told = process.network_time(process.trained_times())
    assert told.float().tolist() == list(range(200))
    assert process.network_time(torch.tensor([0.0128125])).item() == pytest.approx(1.5625)


SHORT = Interpolating(betas=(1e-4, 1e-3, 0.01, 0.05, 0.2, 0.35))


@pytest.mark.parametrize("process", [Interpolating(), Interpolating(beta_max=0.05), SHORT])
def test_interpolation_leaves_the_noise_of_the_plain_chain_to_y_and_z(process):
    """clean + cond = sqrt(abar), cond^2 + noise^2 = 1 - abar, in training and in a run; no weight is negative."""
    t = process.trained_times()
    for path in (process, process.for_run(t.flip(0))):
        w = path.weights(t)
        torch.testing.assert_close((w.clean + w.cond) ** 2, torch.from_numpy(process.abar), rtol=1e-12, atol=0)
        torch.testing.assert_close(w.cond**2 + w.noise**2, torch.from_numpy(1 - process.abar), rtol=1e-9, atol=0)
        assert min(w.clean.min().item(), w.cond.min().item(), w.noise.min().item()) >= 0
    assert w.clean[-1].item() == 0  # the run starts without x0


def test_interpolation_is_closed_only_from_the_start_of_the_run():
    process, times = Interpolating(), torch.tensor([0.96, 0.5, 0.0], dtype=torch.float64)
    run, inside = process.for_run(times), torch.tensor([0.1, 0.5, 0.95], dtype=torch.float64)
    for name in FIELDS:
        assert getattr(run.weights(inside), name).tolist() == getattr(process.weights(inside), name).tolist()
    assert run.weights(times[:1]).clean.item() == 0
    assert process.weights(times[:1]).clean.item() > 0.01
    still = Interpolating(starts_at_observation=False)
    assert still.for_run(times) is still
    assert VP().for_run(times) == VP()


def test_start_of_an_interpolated_run_is_its_first_marginal(batch):
    _, y, z = batch(2)
    run = SHORT.for_run(torch.tensor([1.0, 0.0], dtype=torch.float64))
    abar = SHORT.abar[-1]  # 0.4885
    expected = abar**0.5 * y + (1 - 2 * abar) ** 0.5 * z
    torch.testing.assert_close(run.prior(y, z), expected, rtol=1e-12, atol=1e-12)


def test_interpolated_run_that_starts_too_early_is_an_error():
    """abar at step 40 of 50 is 0.568: y alone would take more than the variance there is."""
    with pytest.raises(ValueError, match=r"below 0\.5, got 0\.568421 at t = 0\.8"):
        Interpolating().for_run(torch.tensor([0.8, 0.0], dtype=torch.float64))
    forced = Interpolating(end=0.1).weights(torch.linspace(0, 1, 30))  # nobody's run, but no NaN either
    assert bool(forced.noise.isfinite().all())


@pytest.mark.parametrize(
    ("process", "drift", "diffusion"),
    [
        (VE(), lambda x, y, t: 0 * x, lambda t: 5e-4 * 1e4**t * (2 * math.log(1e4)) ** 0.5),
        (OUVE(), lambda x, y, t: 1.5 * (y - x), lambda t: 0.05 * 10**t * (2 * math.log(10)) ** 0.5),
        (
            Bridge(eps=1e-20),
            lambda x, y, t: 0.4 * 2.6 ** (2 * t) * (y - x) * 2 * math.log(2.6) / (0.4 * (2.6**2 - 2.6 ** (2 * t))),
            lambda t: 0.4**0.5 * 2.6**t,
        ),
        (
            VPAngular(),
            lambda x, y, t: -math.pi / 2 * torch.tan(math.pi * t / 2) * x,
            lambda t: (math.pi * torch.tan(math.pi * t / 2)) ** 0.5,
        ),
        (Flow(), lambda x, y, t: -x / (1 - t), lambda t: (2 * t / (1 - t)) ** 0.5),
        (Flow("observation", 0.0), lambda x, y, t: (y - x) / (1 - t), lambda t: 0 * t),
    ],
    ids=lambda value: str(value) if not callable(value) else "",
)
def test_drift_and_diffusion_in_closed_form(process, drift, diffusion, batch):
    t = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    x, y, _ = batch(7)
    close(process.drift(x, t, y), drift(x, y, expand(t, x)))
    close(process.diffusion(t), diffusion(t))


def test_flow_from_the_observation_without_noise_starts_at_it(batch):
    _, y, z = batch(2)
    assert Flow("observation", sigma=0.0).prior(y, z).tolist() == y.tolist()


@pytest.mark.parametrize(
    "make",
    [
        lambda: VP(betas=()),
        lambda: VP(beta_max=1.5),
        lambda: VE(sigma_min=1.0, sigma_max=0.5),
        lambda: OUVE(theta=0.0),
        lambda: Bridge(k=1.0),
        lambda: Flow("noise", sigma=0.0),
        lambda: Flow("observation", sigma=-1.0),
        lambda: Mixing(sources=1),
        lambda: Mixing(gamma=0.0),
        lambda: Mixing(sigma_min=0.6),
    ],
)
def test_settings_without_a_path_are_errors(make):
    with pytest.raises(ValueError, match="expected"):
        make()
