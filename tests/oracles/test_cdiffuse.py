"""CDiffuSE's chain through the general step, against the published coefficients and runs (neillu23/CDiffuSE, 3fb384b).

No coefficient is written anywhere in the toolkit: the posterior step of the process "interpolating", read by the
prediction "combined", is linear in x, y, the network's output and the fresh noise, and its slopes are c1, c2, -c3 and
the root of delta_bar.
"""

from itertools import pairwise

import numpy as np
import pytest
import torch

from fromnoise.denoiser import Denoiser
from fromnoise.objectives import DiscreteTime, Objective
from fromnoise.predictions import Combined
from fromnoise.processes import Interpolating
from fromnoise.samplers import DDPM, Levels, Trained
from fromnoise.types import Condition
from tests.rules import fill
from tests.wave_chains import Chain, Draws, Formula, arrays_of, padded

SIX = (1e-4, 1e-3, 0.01, 0.05, 0.2, 0.35)
SETS = {"base": Interpolating(), "large": Interpolating(beta_max=0.0095, num_steps=200)}
GRIDS = {"fast": Levels(SIX), "full": Trained()}


def slopes(process, times):
    """Of each step, from the data on: the weights of x, y and the output, and the variance of the fresh noise."""
    run, basis = process.for_run(times), torch.eye(4, dtype=torch.float64)[:, :, None, None]
    x, y, out, fresh = basis.unbind(1)
    found = []
    for i, (t, s) in enumerate(pairwise(times.unbind())):
        t, s = t.expand(4), s.expand(4)
        last = i == len(times) - 2
        denoise = lambda x, t: Combined().to_clean(out, x, t, process)  # noqa: E731
        found.append(DDPM().step(x, t, s, None, denoise, run, y, lambda x: fresh, last)[0].flatten())
    c1, c2, c3, std = torch.stack(found).flip(0).unbind(1)
    return c1, c2, -c3, std**2


@pytest.mark.parametrize("mode", GRIDS)
@pytest.mark.parametrize("name", SETS)
def test_published_coefficients_are_those_of_the_posterior_step(name, mode):
    """Relative 1e-10, the vectors' own, 1e-6 where they say that the published code loses digits: it forms the variance
    as 1 - (1 + m^2) abar, whose rounding of 1e-16 is 2e-8 of the smallest variance and enters c2 and c3 through
    differences. At abar_T < 0.382 (the last step but one of `large` is above) m is held at 1 in both."""
    arrays, process = arrays_of("cdiffuse_coefficients"), SETS[name]
    wanted = {key: arrays[f"{name}_{mode}_{key}"] for key in ("T", "c1", "c2", "c3", "delta", "delta_bar")}
    times = GRIDS[mode].times(process, len(wanted["T"]))
    np.testing.assert_allclose(process.network_time(times[:-1]).flip(0), wanted["T"], rtol=1e-6, atol=1e-6)  # float32
    c1, c2, c3, variance = slopes(process, times)
    noise = process.for_run(times).weights(times[:-1].flip(0)).noise
    np.testing.assert_allclose(noise**2, wanted["delta"], rtol=1e-10, atol=2e-15)
    np.testing.assert_allclose(c1, wanted["c1"], rtol=1e-6)
    np.testing.assert_allclose(c3, wanted["c3"], rtol=1e-6)
    np.testing.assert_allclose(c2[1:], wanted["c2"][1:], rtol=1e-6)
    np.testing.assert_allclose(variance[1:], wanted["delta_bar"][1:], rtol=1e-6)
    late = slice(len(c1) // 2, None)
    for got, key in ((c1, "c1"), (c2, "c2"), (c3, "c3"), (variance, "delta_bar")):
        np.testing.assert_allclose(got[late], wanted[key][late], rtol=1e-10)


@pytest.mark.parametrize("mode", GRIDS)
def test_published_runs(mode):
    """Tolerance 1e-5, the vectors' own: the published run is float32."""
    arrays, process = arrays_of("cdiffuse_predict_analytic"), SETS["base"]
    chain = Chain(Formula(), process, Combined(), DDPM(), GRIDS[mode], len(arrays[f"{mode}_t"]))
    y, noise = padded(arrays["y"]), Draws(2010)
    final = chain.run(y, y, Condition(frames=arrays["spec"][None].float()), noise, mix=0.2)
    assert noise.draws == int(arrays[f"{mode}_ndraws"])
    np.testing.assert_allclose(chain.steps, arrays[f"{mode}_t"], rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(final[0], arrays[f"{mode}_final"], atol=1e-5)
    if mode == "fast":
        np.testing.assert_allclose(torch.stack(chain.states)[:, 0], arrays["fast_states"], atol=1e-5)


def test_published_training_input_and_target():
    """x_t to 5e-5 and the target to 5e-4, as the vector's JSON explains: the published code forms the variance from
    float32 products by subtraction."""
    arrays, process = arrays_of("cdiffuse_training_step"), SETS["base"]
    noise, clean, noisy = (torch.from_numpy(scale * fill([2, 1024], 2030 + i)) for i, scale in enumerate((1, 0.2, 0.3)))
    x0, y, z = (wave[:, None] for wave in (clean, noisy, noise))
    u = torch.tensor([3.5, 44.5], dtype=torch.float64) / 50  # steps 3 and 44
    objective = Objective(DiscreteTime(), norm="l1")
    draw = objective.draw(process, Combined(), x0, y, u=u, z=z)
    target = Combined().target(x0, z, draw.x_t, draw.t, process, y)
    assert process.network_time(draw.t).tolist() == pytest.approx([3, 44], abs=1e-9)
    np.testing.assert_allclose(draw.x_t[:, 0], arrays["x_t"], atol=5e-5)
    np.testing.assert_allclose(target[:, 0], arrays["target"], atol=5e-4)


def test_loss_is_the_mean_absolute_error_of_the_combined_noise():
    """By the paper's definition of e, which needs neither y nor the drawn noise."""
    process, (x0, y, z) = SETS["base"], (torch.from_numpy(fill([3, 1, 256], seed)) for seed in (1, 2, 3))
    objective, u = Objective(DiscreteTime(), norm="l1"), torch.tensor([0.11, 0.51, 0.99], dtype=torch.float64)
    draw = objective.draw(process, Combined(), x0, y, u=u, z=z)
    told = Condition(frames=torch.zeros(3, 2, 1, dtype=torch.float64))
    losses = objective.losses(Denoiser(Formula(), process, Combined()), x0, y, told, draw)
    steps = torch.tensor([5, 25, 49])
    abar = torch.from_numpy(process.abar)[steps].reshape(3, 1, 1)
    e = (draw.x_t - abar.sqrt() * x0) / (1 - abar).sqrt()
    out = 0.4 * draw.x_t + 0.05 * torch.sin(0.3 * steps.double())[:, None, None]
    torch.testing.assert_close(losses, (out - e).abs().mean((1, 2)), rtol=1e-9, atol=0)
