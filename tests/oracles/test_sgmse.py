"""SGMSE+'s SDEs and samplers (sp-uhh/sgmse at ae690e8), against arrays that its code computed.

Upstream states are complex and its unit noise has variance 1/2 per component; here they are real, re and im on an
axis of their own. So a process that draws unit noise per component has its sigmas divided by sqrt(2) (c by 2), and an
upstream draw enters times sqrt(2). Marginals and diffusion coefficients are compared as published.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from fromnoise.processes import OUVE, Bridge
from fromnoise.samplers import Ancestral, PredictorCorrector, Uniform
from fromnoise.types import expand

VECTORS = Path(__file__).parents[1] / "vectors"
STEP = 0.04


class Vector:
    """The arrays of one file, complex ones as real tensors with a last axis of 2, and its tolerances."""

    def __init__(self, name):
        self.facts = json.loads((VECTORS / f"{name}.json").read_text())
        self.arrays = np.load(VECTORS / f"{name}.npz")

    def __getitem__(self, key):
        array = torch.as_tensor(self.arrays[key])
        return torch.view_as_real(array) if array.is_complex() else array

    def check(self, actual, key, **tolerance):
        kind = "float32" if key.endswith("_f32") else "float64"
        expected = self[key]
        assert actual.dtype == expected.dtype
        torch.testing.assert_close(actual, expected, **(self.facts["tolerance"][kind] | tolerance))

    def noise(self, first=0):
        """Upstream's n-th draw by rule, n counted from `first`, as unit noise per component."""
        rule, count = self.facts["noise"], iter(range(first, 1000))

        def draw(like):
            k = torch.arange(like.numel() // 2, dtype=torch.float64)
            n = next(count)
            parts = (torch.sin(rule[b] * k + rule["c"] * n + rule[d]) for b, d in (("b", "d"), ("b2", "d2")))
            return math.sqrt(2) * torch.stack(list(parts), -1).reshape(like.shape).to(like)

        return draw


def ouve(config, per_component=False):
    scale = math.sqrt(0.5) if per_component else 1.0
    return OUVE(config["theta"], config["sigma_min"] * scale, config["sigma_max"] * scale, config.get("eps", 0.03))


@pytest.mark.parametrize("kind", ["f64", "f32"])
@pytest.mark.parametrize("name", ["sgmse_ouve_16k", "sgmse_ouve_48k"])
def test_ouve(name, kind):
    vector = Vector(name)
    process = ouve(vector.facts["config"])
    dtype = torch.float64 if kind == "f64" else torch.float32
    x0, y, t = (vector[key].to(dtype) for key in ("in_x0", "in_y", "in_t"))
    mean, std = process.marginal(x0, t, y)
    drift, diffusion = process.drift(x0, t, y), process.diffusion(t)
    vector.check(mean, f"mean_{kind}")
    vector.check(std, f"std_{kind}")
    vector.check(drift, f"drift_{kind}")
    vector.check(diffusion, f"diffusion_{kind}")
    vector.check(drift * STEP, f"disc_f_{kind}")
    vector.check(diffusion * math.sqrt(STEP), f"disc_G_{kind}")
    vector.check(process.weights(t).clean, f"alpha_{kind}")
    vector.check(ouve(vector.facts["config"], per_component=True).prior(y, vector.noise()(y)), f"prior_{kind}")


@pytest.fixture
def pc():
    vector = Vector("sgmse_pc")
    return vector, ouve(vector.facts["config"], per_component=True)


def single(pc):
    vector, process = pc
    # the exact score of a known target is that of a denoiser that always says the target
    return (
        vector,
        process,
        lambda x, t: vector["in_target"],
        vector["in_x_single"],
        vector["in_t_single"],
        vector["in_y"],
    )


@pytest.mark.parametrize(
    ("predictor", "key", "dt"), [("reverse_diffusion", "pred_rd", STEP), ("euler_maruyama", "pred_em", 0.2)]
)
def test_predictor_step(pc, predictor, key, dt):
    vector, process, denoise, x, t, y = single(pc)
    after, mean = PredictorCorrector(predictor).predict(x, t, t - dt, denoise, process, y, vector.noise())
    vector.check(after, f"{key}_x")
    vector.check(mean, f"{key}_mean")


@pytest.mark.parametrize("corrector", ["ald", "langevin"])
def test_corrector_steps(pc, corrector):
    vector, process, denoise, x, t, y = single(pc)
    sampler = PredictorCorrector(corrector=corrector, snr=vector.facts["config"]["snr"], batch_norms=True)
    draw = vector.noise()
    x, _ = sampler.correct(x, t, denoise, process, y, draw)
    x, mean = sampler.correct(x, t, denoise, process, y, draw)
    vector.check(x, f"corr_{corrector}_x")
    vector.check(mean, f"corr_{corrector}_mean")


def test_probability_flow_drift(pc):
    vector, process, denoise, x, t, y = single(pc)
    vector.check(process.velocity(x, denoise(x, t), t, y), "pf_drift")
    sampler = PredictorCorrector("probability_flow", "none")
    after, mean = sampler.predict(x, t, t - STEP, denoise, process, y, vector.noise())
    torch.testing.assert_close(after, x - STEP * vector["pf_drift"])
    assert after is mean


@pytest.mark.parametrize(
    ("key", "sampler"),
    [
        ("run_ald", PredictorCorrector()),
        ("run_none", PredictorCorrector(corrector="none")),
        ("run_ald_nodenoise", PredictorCorrector(denoise=False)),
    ],
)
def test_complete_run(pc, key, sampler):
    vector, process = pc
    num_steps, y, draw, calls = vector.facts["config"]["N"], vector["in_y"], vector.noise(), []

    def denoise(x, t):
        calls.append(t)
        return vector["in_target"]

    times = Uniform().times(process, num_steps)
    result = sampler.sample(denoise, process, process.prior(y, draw(y)), times, y, draw)
    vector.check(result, key)
    assert len(calls) == sampler.evaluations(num_steps)
    if f"{key}_nfe" in vector.arrays:
        assert len(calls) == int(vector[f"{key}_nfe"])


@pytest.fixture
def sb():
    vector = Vector("sgmse_sbve_default")
    config = vector.facts["config"]
    return vector, Bridge(config["k"], config["c"], config["eps"], config["eps_time"])


def test_bridge_marginals(sb):
    vector, process = sb
    x0, y, t = vector["in_x0"], vector["in_y"], vector["in_t"]
    mean, std = process.marginal(x0, t, y)
    vector.check(mean, "mean")
    vector.check(std, "std")
    vector.check(process.diffusion(t), "g", rtol=1e-6)  # upstream's g, sqrt(c) k^t, is that of eps = 0
    torch.testing.assert_close(Bridge(eps=1e-20).diffusion(t[:-1]), vector["g"][:-1], rtol=1e-9, atol=0)
    vector.check(Uniform(end="t_min").times(process, vector.facts["config"]["N"]), "time_grid")


def test_bridge_schedule_behind_the_weights(sb):
    vector, process = sb
    eps, w = process.eps, process.weights(vector["in_t"])
    end = vector["sigma_T"] ** 2
    vector.check((w.clean * (end + eps)).sqrt(), "sigma_bar")
    vector.check((w.cond * (end + eps) * (1 + eps)).sqrt(), "sigma_t")
    vector.check(w.cond / (1 - w.clean), "alpha_bar")
    half_log = torch.as_tensor(2 * math.log(process.k), dtype=torch.float64)
    vector.check((process.c * torch.expm1(half_log) / half_log).sqrt(), "sigma_T")
    assert vector["alpha_t"].tolist() == vector["alpha_T"].tolist() == [1.0] * 5  # the VE bridge, which ours is


# Upstream adds eps = 1e-8 to each denominator, we to (S - s2) alone: they agree to eps/sigma, except in the first ODE
# step, which divides by sigma_bar(1) = 1e-4. There upstream's weights of x, x0 and y sum to 1.047 instead of 1.
EPS = {"rtol": 1e-7, "atol": 2e-8}


def probe(process, sampler, t, s, **units):
    """The weights of one step: its result for a 1 in x, the estimate or y, and 0 elsewhere."""
    zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    pick = lambda name: one if units.get(name) else zero  # noqa: E731
    x, _ = sampler.step(
        pick("x"), t, s, None, lambda *_: pick("x0"), process, pick("y"), lambda like: pick("e"), last=False
    )
    return x.item()


@pytest.mark.parametrize(("key", "eta", "last"), [("ode_weights", 0.0, "y"), ("sde_weights", 1.0, "e")])
def test_bridge_step_weights(sb, key, eta, last):
    vector, process = sb
    times = vector["time_grid"]
    rows = [
        [probe(process, Ancestral(eta), t, s, **{name: True}) for name in ("x", "x0", last)]
        for t, s in zip(times.split(1), times[1:].split(1), strict=False)
    ]
    rows = torch.tensor(rows, dtype=torch.float64)
    torch.testing.assert_close(rows[1:], vector[key][1:], **EPS)
    torch.testing.assert_close(rows[0], vector[key][0], **(EPS if eta else {"rtol": 2e-4, "atol": 0}))
    if not eta:
        assert rows[0].sum().item() == pytest.approx(1, abs=2e-4)
        assert vector[key][0].sum().item() == pytest.approx(1.0475, abs=1e-3)


def data_predictor(vector):
    """The stated predictor, told the time that the step goes to, as upstream tells it."""
    times, y = vector["time_grid"], vector["in_y"]
    target_time = dict(zip(times.tolist(), times[1:].tolist(), strict=False))
    real = torch.tensor([1.0, 0.0], dtype=torch.float64)  # t enters the real part

    def denoise(x, t):
        s = torch.tensor([target_time[value] for value in t.tolist()], dtype=torch.float64)
        return 0.6 * x + 0.3 * y + 0.05 * expand(s, x) * real

    return denoise


def test_bridge_ode_run(sb):
    """After upstream's own first step (see EPS) the deterministic sampler gives upstream's result."""
    vector, process = sb
    denoise, y, times = data_predictor(vector), vector["in_y"], vector["time_grid"]
    w_prev, w_x, w_y = vector["ode_weights"][0]
    first = w_prev * y + w_x * denoise(y, times[:1].expand(len(y))) + w_y * y
    result = Ancestral(0.0).sample(denoise, process, first, times[1:], y)
    vector.check(result, "ode_result", **EPS)


def test_bridge_sde_run(sb):
    vector, process = sb
    # complex unit noise: c by 2; upstream's start is y itself, so its draw 0 belongs to the first step
    process = Bridge(process.k, process.c / 2, process.eps, process.t_min)
    y, draw = vector["in_y"], vector.noise()
    result = Ancestral(1.0).sample(
        data_predictor(vector), process, process.prior(y, torch.zeros_like(y)), vector["time_grid"], y, draw
    )
    vector.check(result, "sde_result", **EPS)


def test_bridge_runs_report_their_evaluations(sb):
    """Upstream reports 50 whatever the number of steps."""
    vector, _ = sb
    assert Ancestral().evaluations(vector.facts["config"]["N"]) == 5
    assert int(vector["ode_reported_nfe"]) == int(vector["sde_reported_nfe"]) == 50
