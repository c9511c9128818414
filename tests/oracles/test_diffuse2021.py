"""DiffuSE 2021's reverse processes with a closed-form network (neillu23/DiffuSE at 7438992).

Tolerance 1e-5, the vectors' own: the published runs are float32.
"""

import numpy as np
import pytest
import torch

from fromnoise.predictions import Noise
from fromnoise.processes import VP
from fromnoise.samplers import DDPM, Ancestral, Levels, Supportive, Trained
from fromnoise.types import Condition
from tests.rules import fill
from tests.wave_chains import Chain, Draws, Formula, arrays_of, padded

PROCESS = VP(beta_max=0.05, num_steps=50)
FAST = Levels((1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5))
NAME = "diffuse2021_predict_analytic"


def run(sampler, grid, num_steps, from_noise=False, mix=0.0):
    arrays = arrays_of(NAME)
    chain, y = Chain(Formula(), PROCESS, Noise(), sampler, grid, num_steps), padded(arrays["y"])
    x = torch.from_numpy(fill([1, 1, 1024], 2049)).float() if from_noise else y
    return chain, chain.run(x, y, Condition(frames=arrays["spec"][None].float()), Draws(2050), mix)


@pytest.mark.parametrize(("mode", "grid", "num_steps"), [("fast", FAST, 6), ("full", Trained(), 50)])
def test_supportive_run(mode, grid, num_steps):
    """The published code draws and multiplies by 0; here nothing is drawn, and the run is the same."""
    arrays = arrays_of(NAME)
    chain, final = run(Supportive(), grid, num_steps)
    np.testing.assert_allclose(final[0], arrays[f"supportive_{mode}_final"], atol=1e-5)
    if mode == "fast":
        np.testing.assert_allclose(chain.steps, arrays["fast_T"].flip(0), rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(torch.stack(chain.states)[:, 0], arrays["supportive_fast_states"], atol=1e-5)


def test_deviations_of_the_short_schedule():
    """Of step 0 the published entry is not used: its predecessor wraps to the last of the list."""
    times = FAST.times(PROCESS, 6).flip(0)
    fresh = Ancestral().fresh(PROCESS, times[1:], times[:-1])
    np.testing.assert_allclose(fresh[1:], arrays_of(NAME)["fast_sigma"][1:], rtol=1e-9)


@pytest.mark.parametrize(("mode", "mix"), [("noisy_in", 0.0), ("noisy_out", 0.2), ("noisy_inout", 0.2)])
def test_runs_that_begin_or_end_with_the_noisy_wave(mode, mix):
    _, final = run(DDPM(), FAST, 6, from_noise=mode == "noisy_out", mix=mix)
    np.testing.assert_allclose(final[0], arrays_of(NAME)[f"{mode}_fast_final"], atol=1e-5)
