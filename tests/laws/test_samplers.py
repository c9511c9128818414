"""Laws of every sampler, over every process.

Where data are Gaussian, N(mean, variance), the ideal denoiser is a formula and the marginal of x_t is known; a sampler
is then linear in its start and its noises, and unit noises read off its exact output distribution. A process whose axes
have weights of their own is measured on each.
"""

import dataclasses
import math

import pytest
import torch

from fromnoise.processes import OUVE, PROCESSES, VP, Bridge, Flow, Interpolating
from fromnoise.samplers import (
    DDIM,
    DDPM,
    DOSE,
    SAMPLERS,
    Ancestral,
    Euler,
    Heun,
    PositionNoise,
    PredictorCorrector,
    Supportive,
    Trained,
    Uniform,
)
from fromnoise.types import build, expand, spec

MEAN, OBSERVED = 0.4, 0.7
SMOOTH = [Flow("observation", sigma=0.3), Flow("observation", sigma=0.0)]
EXTRA = [
    Ancestral(eta=0.5),
    Ancestral(denoise=False),
    PredictorCorrector("probability_flow", "none"),
    PredictorCorrector(corrector="ald2", corrector_steps=2),
    PredictorCorrector(corrector="langevin"),
    PredictorCorrector(corrector="langevin", batch_norms=True),
    PredictorCorrector(step_rule="even"),
    Supportive(support=0.6),
    Supportive(support=0.6, rest="variance"),
    DOSE(clamp=0.5),
]
ALL = [*(part() for part in SAMPLERS.values()), *EXTRA]


@pytest.fixture(params=ALL, ids=str)
def sampler(request):
    return request.param


def ideal(process, y, variance):
    """E[x0 | x_t] for data N(MEAN, variance)."""

    def denoise(x, t):
        w = process.weights(t)
        clean, noise = expand(w.clean, x), expand(w.noise, x)
        gain = clean * variance / (clean**2 * variance + noise**2) if variance else 0.0
        return MEAN + gain * (x - clean * MEAN - expand(w.cond, x) * y)

    return denoise


def marginal(process, t, variance):
    w = process.weights(torch.tensor([t], dtype=torch.float64))
    mean = w.clean * MEAN + w.cond * OBSERVED
    return mean.flatten(), (w.clean**2 * variance + w.noise**2).sqrt().flatten()


def output(sampler, process, times, variance):
    """The exact mean and standard deviation of a run that starts in the marginal at times[0].

    Item 0 of the batch draws zeros; item k draws a 1 as its k-th noise (the start is number 1) and zeros otherwise.
    """
    path = process if sampler.follows else process.for_run(times)
    start_mean, start_std = marginal(path, float(times[0]), variance)
    draws = 1 + sampler.evaluations(len(times) - 1)
    y = torch.full((draws + 1, len(start_mean), 1), OBSERVED, dtype=torch.float64)
    x, count = start_mean[:, None].expand_as(y).clone(), iter(range(2, draws + 1))
    x[1] += start_std[:, None]

    def noise(like):
        unit = torch.zeros_like(like)
        unit[next(count)] = 1.0
        return unit

    result = sampler.sample(ideal(path, y, variance), process, x, times, y, noise)[..., 0]
    return result[0], (result[1:] - result[0]).square().sum(0).sqrt()


def refined(process):
    """A discrete process with the same levels on many more steps: its weights bend at steps, and a solver's order
    shows where they are smooth. A start at the observation is a jump, which no number of steps resolves."""
    if process.trained_times() is None:
        return process
    factor = 200000 / process.num_steps
    fine = {"beta_min": process.beta_min / factor, "beta_max": process.beta_max / factor, "num_steps": 200000}
    still = {"starts_at_observation": False} if isinstance(process, Interpolating) else {}
    return dataclasses.replace(process, **fine, **still)


def for_order(sampler):
    """With the last noise, since the law is about the distribution at the end, and without a corrector: one of a fixed
    size leaves a bias that no number of steps removes, so the order is the predictor's."""
    fields = {"denoise": False, "corrector": "none", "corrector_steps": 1, "batch_norms": False, "step_rule": "exact"}
    return dataclasses.replace(sampler, **{k: v for k, v in fields.items() if hasattr(sampler, k)})


ORDERED = dict.fromkeys(for_order(part) for part in ALL if part.order > 0)


@pytest.mark.parametrize("process", [*(refined(part()) for part in PROCESSES.values()), *SMOOTH], ids=str)
@pytest.mark.parametrize("sampler", ORDERED, ids=str)
def test_error_shrinks_with_the_claimed_order(sampler, process):
    """Errors of mean and deviation together, for narrow and for wide data: one alone may cross zero."""
    counts, errors = (48, 96), []
    for count in counts:
        parts = []
        for variance in (0.02, 4.0):
            mean, std = marginal(process, 0.3, variance)
            times = torch.linspace(0.9, 0.3, count + 1, dtype=torch.float64)
            got_mean, got_std = output(sampler, process, times, variance)
            parts += [*(got_mean - mean).tolist(), *(got_std - std).tolist()]
        errors.append(math.hypot(*parts))
    if max(errors) < 1e-12:
        return  # exact: a path without noise is straight
    order = math.log(errors[0] / errors[1]) / math.log(counts[1] / counts[0])
    assert abs(order - sampler.order) < 0.2, errors


@pytest.mark.parametrize("num_steps", [1, 2, 7])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ancestral_variance_is_exact_for_known_data(process, eta, num_steps):
    """However few steps: with x0 known each one lands in the process's marginal."""
    times = torch.linspace(0.95, 0.1, num_steps + 1, dtype=torch.float64)
    mean, std = marginal(process, 0.1, 0.0)
    got_mean, got_std = output(Ancestral(eta, denoise=False), process, times, 0.0)
    torch.testing.assert_close(got_mean, mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(got_std, std, rtol=0, atol=1e-12)


def test_last_mean_leaves_out_the_last_noise(process):
    times = torch.linspace(0.95, 0.1, 4, dtype=torch.float64)
    _, std = marginal(process, 0.1, 0.0)
    fresh = Ancestral().fresh(process, times[-2:-1], times[-1:]).flatten()
    _, got = output(Ancestral(), process, times, 0.0)
    torch.testing.assert_close(got**2, std**2 - fresh**2, rtol=0, atol=1e-12)


@pytest.mark.parametrize("corrector_steps", [0, 1, 3])
def test_variance_of_predictor_and_corrector_in_closed_form(corrector_steps):
    """OU-VE with x0 known: per corrector var <- (1 - e/s^2)^2 var + 2 e; per predictor var <- k^2 var + G^2 with
    k = 1 + theta dt - G^2/s^2."""
    process, snr = OUVE(), 0.3
    times = torch.linspace(0.9, 0.3, 9, dtype=torch.float64)
    var = marginal(process, 0.9, 0.0)[1].item() ** 2
    for t, s in zip(times.tolist(), times.tolist()[1:], strict=False):
        s2 = 0.05**2 * (100**t - math.exp(-3 * t)) * math.log(10) / (1.5 + math.log(10))
        size, G2 = 2 * snr**2 * s2, 0.05**2 * 100**t * 2 * math.log(10) * (t - s)
        for _ in range(corrector_steps):
            var = (1 - size / s2) ** 2 * var + 2 * size
        var = (1 + 1.5 * (t - s) - G2 / s2) ** 2 * var + G2
    sampler = PredictorCorrector(corrector_steps=corrector_steps, snr=snr, denoise=False)
    assert output(sampler, process, times, 0.0)[1].item() == pytest.approx(math.sqrt(var), rel=1e-11)


def start_below_one(sampler, process, times):
    """Clean = 0 makes a stochastic predictor's drift infinite, noise(1) = 0 a bridge's flow and score."""
    flows = isinstance(sampler, Euler | Heun) or getattr(sampler, "predictor", "") == "probability_flow"
    unsure = flows or getattr(sampler, "corrector", "") == "langevin"
    forgets = not bool(process.weights(torch.ones(1, dtype=torch.float64)).clean.all())
    infinite = forgets and isinstance(sampler, PredictorCorrector)
    inside = infinite or (isinstance(process, Bridge) and unsure)
    return torch.cat([times.new_tensor([0.99]), times[1:]]) if inside else times


def run(sampler, process, x, y, seeds, num_steps=2, calls=None, **options):
    """A run with a denoiser that is nonlinear and treats items apart."""

    def denoise(x, t):
        if calls is not None:
            calls.append(t)
        return torch.tanh(x + y) * (1 + 0.1 * expand(t, x))

    times = start_below_one(sampler, process, Uniform().times(process, num_steps))
    return sampler.sample(denoise, process, process.prior(y, x), times, y, PositionNoise(seeds), **options)


def start(count):
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(count, 2, 4, generator=generator, dtype=torch.float64) for _ in range(2)]


def test_result_of_an_item_does_not_depend_on_its_batch(sampler, process):
    if getattr(sampler, "batch_norms", False):
        pytest.skip("batch_norms is SGMSE's dependence on the batch")
    x, y = start(3)
    together = run(sampler, process, x, y, [11, 12, 13])
    alone = [run(sampler, process, x[i : i + 1], y[i : i + 1], [11 + i]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-12, atol=1e-12)
    assert bool(together.isfinite().all())


def test_batch_norms_depend_on_the_batch():
    x, y = start(2)
    sampler = PredictorCorrector(corrector="langevin", batch_norms=True)
    together = run(sampler, OUVE(), x, y, [1, 2])
    alone = run(sampler, OUVE(), x[:1], y[:1], [1])
    assert (together[:1] - alone).abs().max().item() > 1e-4


def test_evaluations_are_counted_right(sampler):
    x, y = start(1)
    for num_steps in (1, 4):
        calls = []
        run(sampler, OUVE(), x, y, [1], num_steps, calls)
        assert len(calls) == sampler.evaluations(num_steps)


@pytest.mark.parametrize("process", [VP(), OUVE()], ids=lambda p: type(p).__name__)
def test_inference_mode_changes_nothing(sampler, process):
    x, y = start(2)
    expected = run(sampler, process, x, y, [1, 2])
    with torch.inference_mode():
        actual = run(sampler, process, x.clone(), y.clone(), [1, 2])
    assert actual.tolist() == expected.tolist()


@pytest.mark.parametrize("process", [VP(), OUVE(), Bridge()], ids=lambda p: type(p).__name__)
def test_float32_run_is_the_float64_run_rounded(sampler, process):
    if isinstance(process, Bridge) and getattr(sampler, "step_rule", "") == "even":
        pytest.skip("a step of 1/2 from t = 1e-4 integrates far beyond the data")
    x, y = start(2)
    short = run(sampler, process, x.float(), y.float(), [1, 2])
    assert short.dtype == torch.float32
    torch.testing.assert_close(short.double(), run(sampler, process, x, y, [1, 2]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["ancestral", "ddpm", "ddim", "dpmpp_2m"])
def test_step_to_time_zero_returns_the_estimate(process, name):
    x, y = start(2)
    times = torch.tensor([0.95, 0.2, 0.0], dtype=torch.float64)
    said = []

    def denoise(x, t):
        said.append(torch.tanh(x))
        return said[-1]

    result = SAMPLERS[name]().sample(denoise, process, x, times, y, PositionNoise([1, 2]))
    torch.testing.assert_close(result, said[-1], rtol=1e-12, atol=1e-12)


def test_run_from_the_observation_is_at_the_path_of_training_after_one_step(batch):
    """Interpolating, from x_1 = a y + noise z without x0: with x0 known, one step leads into the marginal of training;
    samplers that follow the path's slope begin where training does."""
    process, times = Interpolating(), torch.tensor([1.0, 0.6], dtype=torch.float64)
    mean, std = marginal(process, 0.6, 0.0)
    got_mean, got_std = output(Ancestral(denoise=False), process, times, 0.0)
    torch.testing.assert_close(got_mean, mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(got_std, std, rtol=0, atol=1e-12)
    x0, y, z = batch(1)
    x, t, to = process.sample(x0, times[:1], y, z), times[:1], times[1:]
    euler = Euler().sample(lambda x, t: x0, process, x, times, y)
    one, _ = Euler().step(x, t, to, None, lambda x, t: x0, process, y, torch.zeros_like, True)
    assert euler.tolist() == one.tolist()


def test_supportive_step_in_closed_form(batch):
    """(1 - g) mu / sqrt(alpha) + g y / sqrt(alpha), mu = x - beta/sqrt(1 - abar) z', with support = 0.6 of nu."""
    process, (x, y, e) = VP(beta_max=0.05, num_steps=50), batch(1)
    n, x0 = 30, 0.3 * x
    beta, abar = process.schedule[n], process.abar[n]
    nu = (beta * (1 - process.abar[n - 1]) / (1 - abar)) ** 0.5
    mu = x - beta / (1 - abar) ** 0.5 * (x - abar**0.5 * x0) / (1 - abar) ** 0.5
    g, root = 0.6 * nu, (1 - beta) ** 0.5
    mean = ((1 - g) * mu + g * y) / root
    t = process.trained_times()
    for rest, std in (("deviation", nu - g / root), ("variance", (nu**2 - (g / root) ** 2) ** 0.5)):
        sampler = Supportive(support=0.6, rest=rest)
        got, _ = sampler.step(x, t[n : n + 1], t[n - 1 : n], None, lambda x, t: x0, process, y, lambda x: e, False)
        torch.testing.assert_close(got, mean + std * e, rtol=1e-9, atol=1e-12)


def test_published_support_leaves_no_noise_and_none_is_the_posterior():
    x, y = start(2)
    process = VP(beta_max=0.05, num_steps=50)
    times = Trained().times(process, 50)
    denoise = lambda x, t: torch.tanh(x + y)  # noqa: E731
    quiet = Supportive().sample(denoise, process, x, times, y)  # would raise if it drew any
    assert bool(quiet.isfinite().all())
    plain = DDPM().sample(denoise, process, x, times, y, PositionNoise([1, 2]))
    unsupported = Supportive(support=0.0, final=0.0).sample(denoise, process, x, times, y, PositionNoise([1, 2]))
    torch.testing.assert_close(unsupported, plain, rtol=1e-12, atol=1e-12)


def test_dose_takes_up_the_path_from_estimate_and_observation(batch):
    process, (x, y, e) = VP(beta_max=0.035, num_steps=50), batch(2)
    times = torch.tensor([0.72, 0.32, 0.0], dtype=torch.float64)
    seen = []

    def denoise(x, t):
        seen.append(x)
        return 2 * torch.tanh(x)

    result = DOSE(clamp=1.0).sample(denoise, process, x, times, y, lambda like: e)
    estimate = (2 * torch.tanh(x)).clamp(-1, 1)
    abar = process.abar[15]
    second = abar**0.5 * (estimate + y) / 2 + (1 - abar) ** 0.5 * e
    torch.testing.assert_close(seen[1], second, rtol=1e-12, atol=1e-12)
    assert result.tolist() == (2 * torch.tanh(seen[1])).clamp(-1, 1).tolist()


@pytest.mark.parametrize("name", ["supportive", "dose"])
def test_samplers_that_mix_in_y_say_that_they_need_it(name):
    x, _ = start(1)
    with pytest.raises(ValueError, match=f"'{name}' mixes in an observation y, got None"):
        SAMPLERS[name]().sample(lambda x, t: x, VP(), x, Uniform().times(VP(), 2))


@pytest.mark.parametrize("sampler", [Euler(), Heun(), DDIM()], ids=str)
def test_one_step_of_the_noiseless_flow_is_a_predictive_network(sampler):
    x, y = start(2)
    process = Flow("observation", sigma=0.0)
    result = sampler.sample(lambda x, t: torch.tanh(x), process, process.prior(y, x), Uniform().times(process, 1), y)
    torch.testing.assert_close(result, torch.tanh(y), rtol=1e-15, atol=1e-15)


def test_ddpm_is_eta_one_and_ddim_eta_zero():
    x, y = start(2)
    for name, eta in (("ddpm", 1.0), ("ddim", 0.0)):
        expected = run(Ancestral(eta), OUVE(), x, y, [1, 2])
        assert run(SAMPLERS[name](), OUVE(), x, y, [1, 2]).tolist() == expected.tolist()


def test_first_bridge_step_is_exact_in_float32():
    """x_1 = y, noise(1) = 1e-4: rounding there would be multiplied by 5000."""
    process, times = Bridge(), torch.tensor([1.0, 0.8])
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(1, 1, 100, generator=generator, dtype=torch.float64)
    y = y.float().double()
    step = lambda y: DDIM().sample(lambda x, t: 0.3 * x, process, y, times, y)  # noqa: E731
    torch.testing.assert_close(step(y.float()).double(), step(y), rtol=0, atol=5e-4)


def test_hook_and_callback_see_every_step():
    seen, x = [], torch.ones(1, 1, 1, dtype=torch.float64)
    times = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    result = Euler().sample(
        lambda x, t: 0 * x,
        Flow(),
        x,
        times,
        callback=lambda i, n, x: seen.append((i, n, x.item())),
        after_step=lambda x, i, t, s: x + 10 * (i + 1) + t.item() + s.item(),
    )
    # a step of the straight flow to 0 scales by s/t; then come 10 + 1 + 0.5 and 20 + 0.5 + 0
    assert seen == [(0, 2, 12.0), (1, 2, 20.5)]
    assert result.item() == 20.5


def test_even_steps_are_one_over_their_number_whatever_the_grid():
    """DiffSep's rule: two steps from 0.7 through 0.6 to 0.5 integrate by 1/2 each."""
    x, y = start(1)
    denoise = lambda x, t: torch.tanh(x)  # noqa: E731
    times = torch.tensor([0.7, 0.6, 0.5], dtype=torch.float64)
    even = PredictorCorrector(corrector="none", step_rule="even")
    expected = x
    for t in times[:-1].split(1):
        expected, _ = even.predict(expected, t, t - 0.5, denoise, OUVE(), y, torch.zeros_like)
    result = even.sample(denoise, OUVE(), x, times, y, torch.zeros_like)
    torch.testing.assert_close(result, expected, rtol=1e-14, atol=1e-14)


def test_noise_must_be_given_where_it_is_drawn():
    x, y = start(1)
    times = Uniform().times(OUVE(), 2)
    with pytest.raises(ValueError, match="pass noise"):
        Ancestral().sample(lambda x, t: x, OUVE(), x, times, y)
    assert bool(DDIM().sample(lambda x, t: x, OUVE(), x, times, y).isfinite().all())


@pytest.mark.parametrize("times", [[0.5], [0.1, 0.5], [0.5, 0.5]])
def test_times_must_decrease(times):
    with pytest.raises(ValueError, match="decreasing times"):
        DDIM().sample(lambda x, t: x, OUVE(), *start(1)[:1], torch.tensor(times, dtype=torch.float64))


def test_predictor_says_where_its_drift_is_infinite():
    x, _ = start(1)
    with pytest.raises(ValueError, match="no finite drift at t = 1"):
        PredictorCorrector().sample(lambda x, t: x, Flow(), x, torch.tensor([1.0, 0.5]), None, PositionNoise([1]))


@pytest.mark.parametrize("sampler", [Euler(), Heun(), PredictorCorrector("probability_flow", "none")], ids=str)
def test_flow_of_a_bridge_is_singular_at_its_start(sampler):
    y, _ = start(1)
    with pytest.raises(ValueError, match="singular at t = 1"):
        sampler.sample(lambda x, t: x, Bridge(), y, torch.tensor([1.0, 0.5]), y)
    inside = sampler.sample(lambda x, t: x, Bridge(), y, torch.tensor([0.99, 0.5]), y)
    assert bool(inside.isfinite().all())


@pytest.mark.parametrize(
    "make",
    [
        lambda: Ancestral(eta=1.5),
        lambda: PredictorCorrector(predictor="euler"),
        lambda: PredictorCorrector(corrector="no"),
        lambda: PredictorCorrector(step_rule="odd"),
        lambda: Supportive(support=1.5),
        lambda: Supportive(rest="none"),
        lambda: DOSE(clamp=-1.0),
    ],
)
def test_unknown_settings_are_errors(make):
    with pytest.raises((ValueError, TypeError), match="xpected"):  # TypeError from the type checker of the tests
        make()


def test_spec_names_the_object_again(sampler):
    assert build("sampler", SAMPLERS, spec(SAMPLERS, sampler)) == sampler
