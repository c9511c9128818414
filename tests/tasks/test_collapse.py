"""Condition collapse as a number: 0 for what ignores its condition, the closed forms for what uses it exactly.

The toy: x0 ~ N(0, 1), C = x0 + tau e, x_t = a x0 + s z. The posterior mean of x0 is V (a x_t/s^2 + C/tau^2) with
V = 1/(1 + a^2/s^2 + 1/tau^2); every number of the module is a second moment of it. Averages over 8 items of 2000
entries each have a relative error near sqrt(2/16000) = 1.1 %, of which 5 % is more than four.
"""

import dataclasses
import math

import numpy as np
import pytest
import torch

from fromnoise.evaluation import collapse
from fromnoise.evaluation.collapse import ARMS, NUDGE, Curve, Estimate, Report, Subject, measure_curve, measure_samples
from fromnoise.evaluation.collapse_words import meaning
from fromnoise.processes import VP, Bridge, Flow
from fromnoise.samplers import PositionNoise
from fromnoise.types import Condition, expand

TAU, ITEMS, N = 0.5, 8, 2000
TIMES = (0.15, 0.5, 0.9)
PROCESS = VP(num_steps=50, beta_max=0.1)


def toy(denoise, process=PROCESS, sample=None, items=ITEMS, **parts) -> Subject:
    """Items whose condition is the clean wave with noise of deviation TAU."""
    generator = torch.Generator().manual_seed(0)
    clean, e = torch.randn(2, items, 1, N, generator=generator, dtype=torch.float64)
    told = clean + TAU * e
    return Subject(
        name="toy",
        names=tuple(f"item {i}" for i in range(items)),
        what="the condition",
        process=process,
        clean=clean,
        observation=told if process.needs_observation else None,
        told=Condition(signal=told),
        silent=Condition(signal=torch.zeros_like(told)),
        partner=torch.arange(items).roll(-1),
        denoise=denoise,
        sample=sample or (lambda rows, seeds: (clean[rows], clean[rows])),
        features=lambda waves: waves,
        label=clean,
        reference=told,
        sample_rate=8000,
        **parts,
    )


def weights(t, like, process=PROCESS):
    w = process.weights(t)
    return expand(w.clean, like), expand(w.noise, like)


def exact(rows, condition):
    """The posterior mean."""

    def denoise(x, t):
        a, s = weights(t, x)
        variance = 1 / (1 + a**2 / s**2 + 1 / TAU**2)
        return variance * (a * x / s**2 + condition.signal / TAU**2)

    return denoise


def deaf(rows, condition):
    """The posterior mean without the condition."""

    def denoise(x, t):
        a, s = weights(t, x)
        return a * x / (a**2 + s**2)

    return denoise


def closed_form(t: float) -> dict[str, float]:
    a, s = (float(w) for w in weights(torch.tensor([t], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)))
    v, b = 1 / (1 + a**2 / s**2 + 1 / TAU**2), 1 + TAU**2  # b: the condition's variance
    swapped = (v * a**2 / s**2 - 1) ** 2 + v**2 * a**2 / s**2 + v**2 * b / TAU**4
    told, state = (v * NUDGE / TAU**2) ** 2 * b, (v * NUDGE * a / s**2) ** 2 * (a**2 + s**2)
    return {
        "gain": 1 - v / swapped,
        "swap": 2 * v * b / TAU**4,
        "silence": v * b / TAU**4,
        "share": told / (told + state),
        "loss": v * a**2 / s**2,
        "loss_swapped": swapped * a**2 / s**2,
    }


@pytest.fixture(scope="module")
def posterior() -> Curve:
    return measure_curve(toy(exact), TIMES)


@pytest.fixture(scope="module")
def collapsed() -> Curve:
    return measure_curve(toy(deaf), TIMES)


def test_a_network_that_ignores_its_condition_has_no_gain_at_all(collapsed):
    curve = collapsed
    for k in range(len(TIMES)):
        for name in ("gain", "swap", "silence", "share"):
            assert curve.at(name, k) == Estimate(0.0, 0.0, 0.0)
    assert curve.mean("gain").value == 0
    text = meaning(Report("toy", "the condition", ("a", "b"), 0, curve, None))
    assert "collapsed" in text


@pytest.mark.parametrize("k", range(len(TIMES)))
def test_the_exact_posterior_has_the_numbers_of_the_closed_form(posterior, k):
    curve, expected = posterior, closed_form(TIMES[k])
    for name in ("gain", "swap", "silence", "share"):
        found = curve.at(name, k)
        assert found.value == pytest.approx(expected[name], rel=0.05), name
        assert found.low <= found.value <= found.high
    assert curve.loss("true", k).value == pytest.approx(expected["loss"], rel=0.05)
    assert curve.loss("swapped", k).value == pytest.approx(expected["loss_swapped"], rel=0.05)
    assert expected["gain"] > 0.05


def test_the_gain_grows_towards_the_noise_and_the_sentence_says_so(posterior):
    curve = posterior
    gains = [curve.at("gain", k).value for k in range(len(TIMES))]
    assert gains == sorted(gains)
    text = meaning(Report("toy", "the condition", ("a", "b"), 0, curve, None))
    assert "uses the condition" in text
    assert "more of it near the noise" in text


@pytest.mark.parametrize("process", [Bridge(), Flow(start="observation", sigma=0.3)])
def test_a_state_that_holds_the_observation_counts_in_total_alone(process):
    """The network passes on what the state holds: nothing of its condition, all of y."""
    curve = measure_curve(toy(lambda rows, condition: lambda x, t: x, process), (0.8,))
    assert curve.at("gain", 0).value == 0
    assert curve.at("total", 0).value > 0.1
    text = meaning(Report("toy", "the condition", ("a", "b"), 0, curve, None))
    assert "counts besides" in text
    assert "collapsed" not in text


def test_the_gap_of_two_models_is_that_of_their_means_with_less_doubt(posterior, collapsed):
    found, alone = collapse.gap(posterior, collapsed, "gain"), posterior.mean("gain")
    assert found.value == pytest.approx(alone.value)
    assert 0 < found.low < found.value < found.high
    assert collapse.gap(posterior, posterior, "swap") == Estimate(0.0, 0.0, 0.0)


def test_a_process_without_observation_has_no_total(posterior):
    assert math.isnan(posterior.at("total", 0).value)


def test_draws_belong_to_the_items_names():
    """So two models, or the same items in another order, see the same states."""
    subject = toy(exact, items=11)  # more than one batch
    order = torch.tensor([3, 10, 0, 7, 1, 9, 2, 8, 4, 6, 5])
    moved = dataclasses.replace(
        subject,
        names=tuple(subject.names[i] for i in order.tolist()),
        clean=subject.clean[order],
        told=subject.told.map(lambda x: x[order]),
        silent=subject.silent,
    )
    one, other = measure_curve(subject, TIMES, seed=4), measure_curve(moved, TIMES, seed=4)
    first = ARMS.index("true")
    np.testing.assert_allclose(other.values[:, :, first], one.values[:, order.numpy(), first], rtol=1e-12)
    assert not np.allclose(measure_curve(subject, TIMES, seed=5).values, one.values)


def test_what_belongs_to_the_state_is_not_swapped():
    subject = toy(exact, kept=frozenset({"signal"}))
    curve = measure_curve(subject, (0.5,))
    assert curve.at("gain", 0).value == 0
    assert curve.at("silence", 0).value == 0


def test_times_of_a_discrete_process_are_its_own():
    trained = PROCESS.trained_times()
    assert trained is not None
    assert set(collapse.times_between(PROCESS, 10)) <= set(trained.tolist())
    assert len(collapse.times_between(PROCESS, 10)) == 10
    assert collapse.times_between(Flow(), 4) == [0.125, 0.375, 0.625, 0.875]


# -- samples ------------------------------------------------------------------------------------------------------


def copying(told):
    return lambda rows, seeds: (told[rows], told[rows])


def test_a_sampler_that_copies_its_condition_is_as_faithful_as_that_and_no_better():
    subject = toy(exact)
    samples = measure_samples(dataclasses.replace(subject, sample=copying(subject.told.signal)))
    assert samples.faithfulness().value == 1
    assert samples.likeness("g_c").value == pytest.approx(1, abs=1e-12)
    assert samples.dispersion().value == pytest.approx(0, abs=1e-12)
    found = dataclasses.replace(subject, sample=copying(subject.clean))
    assert measure_samples(found).faithfulness().value > 1.05


def test_a_sampler_that_ignores_its_condition_is_not_faithful_and_its_seeds_differ_like_items(collapsed):
    """r of independent waves has deviation 1/sqrt(2000) = 0.022, over sqrt(8) items 0.008; 0.05 is six of these."""

    def sample(rows, seeds):
        wave = PositionNoise(seeds)(torch.zeros(len(rows), 1, N, dtype=torch.float64))
        return wave, wave

    samples = measure_samples(toy(deaf, sample=sample), seeds=3)
    assert abs(samples.faithfulness().value) < 0.05
    assert samples.dispersion().value == pytest.approx(1, abs=0.05)
    report = Report("toy", "the condition", ("a", "b"), 0, collapsed, samples)
    assert "hardly follow" in meaning(report)
    assert "seeds differ as much as items do" in meaning(report)


def test_one_seed_says_nothing_of_dispersion(posterior):
    report = Report("toy", "C", ("a",), 0, posterior, measure_samples(toy(exact), seeds=1))
    assert "dispersion" not in report.summary()
    assert report.summary()["faithfulness"].value > 1


def test_likeness_takes_the_sources_in_their_best_order():
    a = torch.randn(3, 2, 500, generator=torch.Generator().manual_seed(1))
    assert collapse.likeness(a, 2 * a.flip(1) + 1).tolist() == pytest.approx([1, 1, 1], abs=1e-6)


def test_an_interval_holds_its_value_and_needs_two_items():
    values = np.random.default_rng(0).uniform(1, 2, (40, 2))
    found = collapse.estimate(values, lambda means: means[..., 0] / means[..., 1])
    assert found.low < found.value < found.high
    assert found.value == pytest.approx(values[:, 0].mean() / values[:, 1].mean())
    assert math.isnan(collapse.estimate(values[:1], lambda means: means[..., 0]).low)
