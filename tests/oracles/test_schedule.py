"""DR-DiffuSE's training and six-step schedules (judiebig/DR-DiffuSE at 842f9c0), against arrays that its code computed.

The file's step table belongs to the test of the backbone that holds it.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fromnoise.processes import VP
from fromnoise.samplers import DDPM, Levels, Trained

VECTORS = Path(__file__).parents[1] / "vectors"
TRAINED = VP(beta_min=1e-4, beta_max=0.05, num_steps=200)


@pytest.fixture
def arrays():
    return np.load(VECTORS / "drdiffuse_schedule.npz")


def six():
    return tuple(json.loads((VECTORS / "drdiffuse_schedule.json").read_text())["inference_schedule"]["default"])


@pytest.mark.parametrize("which", ["full", "fast"])
def test_coefficients(arrays, which):
    process = TRAINED if which == "full" else VP(betas=six())
    np.testing.assert_allclose(process.schedule, arrays[f"{which}_beta"], rtol=1e-12)
    np.testing.assert_allclose(1 - process.schedule, arrays[f"{which}_alpha"], rtol=1e-12)
    np.testing.assert_allclose(process.abar, arrays[f"{which}_alpha_cum"], rtol=1e-12)
    np.testing.assert_allclose(process.weights(process.trained_times()).clean ** 2, process.abar, rtol=1e-12)


@pytest.mark.parametrize("which", ["full", "fast"])
def test_noise_of_a_step(arrays, which):
    process = TRAINED if which == "full" else VP(betas=six())
    times = process.trained_times()
    sigma = DDPM().fresh(process, times[1:], times[:-1])
    np.testing.assert_allclose(sigma, arrays[f"{which}_sigma"][1:], rtol=1e-12)
    # entry 0, unused upstream, takes abar of the step "before the first" from the end of the schedule
    wrapped = np.sqrt((1 - process.abar[-1]) / (1 - process.abar[0]) * process.schedule[0])
    np.testing.assert_allclose(wrapped, arrays[f"{which}_sigma"][0], rtol=1e-12)


@pytest.mark.parametrize(("which", "grid"), [("full", Trained()), ("fast", Levels(six()))])
def test_alignment(arrays, which, grid):
    """The grid's times, as the network hears them, are the aligned steps; upstream keeps them in float32."""
    aligned = arrays[f"{which}_T"]
    times = grid.times(TRAINED, len(aligned))
    assert times[-1].item() == 0.0
    told = TRAINED.network_time(times[:-1].flip(0))
    np.testing.assert_allclose(told.numpy(), aligned, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("process", "betas", "aligned"),
    [
        (VP(beta_max=0.035, num_steps=50), six(), (0, 1.1232, 4.9597, 12.5767, 27.5819, 43.9722)),
        (VP(beta_max=0.05, num_steps=50), (*six()[:-1], 0.5), (0, 0.8941, 4.0867, 10.4519, 22.9925, 42.9186)),
    ],
    ids=["cdiffuse", "diffuse"],
)
def test_alignment_of_the_parents(process, betas, aligned):
    told = process.network_time(Levels(betas).times(process, 6)[:-1].flip(0))
    np.testing.assert_allclose(told.numpy(), aligned, atol=1e-4)  # printed to four decimals


def test_level_outside_the_trained_range_is_an_error():
    with pytest.raises(ValueError, match="trained range"):
        Levels((*six(), 0.999)).times(TRAINED, 7)
    with pytest.raises(ValueError, match="trained range"):
        Levels((1e-5, *six())).times(TRAINED, 7)


def test_fast_step_is_the_ddpm_step_of_the_short_schedule():
    """x <- (x - beta/sqrt(1 - gamma) eps)/sqrt(1 - beta) + sigma e, on fractional times of the trained process."""
    betas, short = np.asarray(six()), VP(betas=six())
    times = Levels(six()).times(TRAINED, 6)
    x, eps, e = (torch.randn(1, 4, generator=torch.Generator().manual_seed(k), dtype=torch.float64) for k in range(3))
    for n in range(5, -1, -1):
        t, s = times[5 - n].reshape(1), times[6 - n].reshape(1)
        w = TRAINED.weights(t)
        result, _ = DDPM().step(
            x, t, s, None, lambda x, t, w=w: (x - w.noise * eps) / w.clean, TRAINED, None, lambda x: e, False
        )
        before = short.abar[n - 1] if n else 1.0
        sigma = np.sqrt((1 - before) / (1 - short.abar[n]) * betas[n])
        expected = (x - betas[n] / np.sqrt(1 - short.abar[n]) * eps) / np.sqrt(1 - betas[n]) + sigma * e
        torch.testing.assert_close(result, expected, rtol=1e-11, atol=1e-11)
