"""DiffSep's processes, samplers and losses (fakufaku/diffusion-separation at d1855e9), against arrays of its code.

Upstream's states are sources; here they are coordinates in the sources' basis, so that inputs, noises and what networks
say go through `to_basis`, and results back. Upstream's PriorMixSDE is the same process on states over the local level.
"""

import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from fromnoise.backbones import BACKBONES
from fromnoise.objectives import SNR, Objective, UniformTime, VarianceTime
from fromnoise.predictions import Score
from fromnoise.processes import Mixing
from fromnoise.samplers import Log, PredictorCorrector, Uniform
from fromnoise.tasks.separation_model import SeparationConfig, SeparationModel
from fromnoise.tasks.source_losses import STRATEGIES, Chance, Gated, Ordered, PermutedEnd, reordered
from fromnoise.tasks.sources import from_basis, local_level, match_levels, permutations_of, shared, to_basis
from fromnoise.types import Condition, expand

VECTORS = Path(__file__).parents[1] / "vectors"
KINDS = {"f64": torch.float64, "f32": torch.float32}


class Vector:
    """The arrays of one file, its settings and its tolerances."""

    def __init__(self, name):
        self.facts = json.loads((VECTORS / f"{name}.json").read_text())
        self.arrays = np.load(VECTORS / f"{name}.npz")
        config = self.facts["config"]
        self.settings = config
        if "ndim" in config:
            self.process = Mixing(config["ndim"], config["d_lambda"], config["sigma_min"], config["sigma_max"])

    def __getitem__(self, key):
        return torch.as_tensor(self.arrays[key])

    def check(self, actual, key, **tolerance):
        expected = self[key]
        kind = "float32" if expected.dtype == torch.float32 else "float64"
        assert actual.dtype == expected.dtype
        torch.testing.assert_close(actual, expected, **(self.facts["tolerance"][kind] | tolerance))

    def noise(self, waves=True):
        """Upstream's n-th draw by rule, as coordinates unless `waves`."""
        rule, count = self.facts["noise"], itertools.count()

        def draw(like):
            k = torch.arange(like.numel(), dtype=torch.float64)
            z = math.sqrt(2) * torch.sin(rule["b"] * k + rule["c"] * next(count) + rule["d"])
            z = z.reshape(like.shape).to(like)
            return z if waves else to_basis(z)

        return draw


def times_matrix(weight, waves):
    """A diagonal matrix of the basis applied to sources."""
    return from_basis(expand(weight, waves) * to_basis(waves))


def matrix(weight):
    """The same as a matrix `b K K`."""
    unit = torch.eye(weight.shape[1], dtype=weight.dtype).expand(len(weight), -1, -1)
    return times_matrix(weight, unit)


def test_basis_is_orthonormal_and_begins_with_the_mean():
    for count in (2, 3, 5):
        basis = to_basis(torch.eye(count, dtype=torch.float64)[None])[0]
        torch.testing.assert_close(basis @ basis.T, torch.eye(count, dtype=torch.float64), rtol=0, atol=1e-15)
        torch.testing.assert_close(basis[0], torch.full((count,), count**-0.5, dtype=torch.float64))
        torch.testing.assert_close(from_basis(basis[None])[0], torch.eye(count, dtype=torch.float64))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [2, 3])
def test_mixing(count, kind):
    vector = Vector(f"diffsep_mixsde_K{count}")
    process, step = vector.process, 1 / vector.settings["N"]
    x0, t, mix = (vector[f"in_{key}"].to(KINDS[kind]) for key in ("x0", "t", "mix"))
    u, w = to_basis(x0), process.weights(t)
    vector.check(from_basis(process.marginal(u, t)[0]), f"mean_{kind}")
    vector.check(matrix(w.clean), f"mean_mat_{kind}")
    vector.check(matrix(w.noise), f"L_{kind}")
    vector.check(w.noise[:, 0] ** 2, f"ev1_{kind}")
    vector.check(w.noise[:, -1] ** 2, f"ev2_{kind}")
    vector.check(times_matrix(w.noise, x0), f"L_times_x_{kind}")
    vector.check(times_matrix(1 / w.noise, x0), f"Linv_times_x_{kind}")
    drift, diffusion = from_basis(process.drift(u, t)), process.diffusion(t)
    vector.check(drift, f"drift_{kind}")
    vector.check(drift * step, f"disc_f_{kind}")
    for axis in range(count):  # g is the same on all axes
        vector.check(diffusion[:, axis], f"diffusion_{kind}")
        vector.check(diffusion[:, axis] * math.sqrt(step), f"disc_G_{kind}")
    vector.check((w.noise[:, 0] ** 2 + w.noise[:, -1] ** 2) / 2, f"var_{kind}")
    if count == 2:  # upstream crashes for three
        vector.check(from_basis(process.prior(shared(mix, 2), vector.noise(waves=False)(x0))), f"prior_{kind}")


def test_variance_times_are_upstreams_rejection_sampling():
    """A density in proportion to sqrt((lam1 + lam2)/2): compared as a distribution function, by a finer quadrature."""
    process = Mixing()
    t = VarianceTime().times(torch.linspace(0.05, 0.95, 7, dtype=torch.float64), process)
    fine = torch.linspace(0.03, 1, 100001, dtype=torch.float64)
    density = process.weights(fine).noise.square().mean(1).sqrt()
    mass = torch.cumulative_trapezoid(density, fine)
    below = mass[torch.searchsorted(fine, t) - 1] / mass[-1]
    torch.testing.assert_close(below, torch.linspace(0.05, 0.95, 7, dtype=torch.float64), rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["K2_avg510", "K2_avg8", "K3_avg9"])
def test_mixing_under_the_local_level(name, kind):
    vector = Vector(f"diffsep_priormix_{name}")
    process, count = vector.process, vector.settings["ndim"]
    x0, t, mix = (vector[f"in_{key}"].to(KINDS[kind]) for key in ("x0", "t", "mix"))
    level = local_level(mix, vector.settings["avg_len"])
    u, w = to_basis(x0) / level, process.weights(t)
    vector.check(level, f"sigma_mix_{kind}")
    vector.check(from_basis(process.marginal(u, t)[0]) * level, f"mean_{kind}")
    vector.check(matrix(w.noise)[..., None] * level[:, :, None], f"L_{kind}")
    vector.check(from_basis(process.drift(u, t)) * level, f"drift_{kind}")
    vector.check(process.diffusion(t)[..., None] * level, f"diffusion_{kind}")
    vector.check(times_matrix(w.noise, x0) * level, f"L_times_x_{kind}")
    vector.check(times_matrix(1 / w.noise, x0) / level, f"Linv_times_x_{kind}")
    if f"prior_{kind}" in vector.arrays:
        start = process.prior(shared(mix, count) / level, vector.noise(waves=False)(x0))
        vector.check(from_basis(start) * level, f"prior_{kind}")


def toy_score(x, t, mix):
    return -0.8 * torch.tanh(x) + 0.3 * mix - 0.1 * expand(t, x)


def read_score(process, score):
    """The denoiser in the basis that a score of waves stands for."""
    return lambda u, t: Score().to_clean(to_basis(score(from_basis(u), t)), u, t, process)


@pytest.fixture
def single():
    vector = Vector("diffsep_pc_single_steps")
    return vector, vector["in_x"], vector["in_mix"], vector["in_t"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", ["mix", "priormix"])
@pytest.mark.parametrize("predictor", ["reverse_diffusion", "euler_maruyama"])
def test_predictors(single, predictor, level, kind):
    vector, x, mix, t = single
    x, mix, t = (value.to(KINDS[kind]) for value in (x, mix, t))
    scale = local_level(mix, vector.settings["avg_len"]) if level == "priormix" else torch.ones_like(mix)
    denoise = read_score(vector.process, lambda u, t: scale * toy_score(u * scale, t, mix))
    after, mean = PredictorCorrector(predictor).predict(
        to_basis(x) / scale, t, t - 1 / vector.settings["N"], denoise, vector.process, None, vector.noise(waves=False)
    )
    vector.check(from_basis(after) * scale, f"{level}_{predictor}_x_{kind}")
    vector.check(from_basis(mean) * scale, f"{level}_{predictor}_mean_{kind}")


@pytest.mark.parametrize("level", ["mix", "priormix"])
def test_probability_flow(single, level):
    vector, x, mix, t = single
    scale = local_level(mix, vector.settings["avg_len"]) if level == "priormix" else torch.ones_like(mix)
    denoise = read_score(vector.process, lambda u, t: scale * toy_score(u * scale, t, mix))
    sampler, u = PredictorCorrector("probability_flow", "none"), to_basis(x) / scale
    after, mean = sampler.predict(u, t, t - 1 / vector.settings["N"], denoise, vector.process, None, torch.zeros_like)
    vector.check(from_basis(u - after) * scale, f"{level}_pf_discretize_f_f64")
    assert after is mean


# Upstream's langevin on the PriorMixSDE takes its one size from scores and noises of the waves, which is langevin
# without a level. Under a level ours takes it from u, where noise is even; `ald2` is the same either way.
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("key", "corrector", "leveled"),
    [
        ("mix_ald2", "ald2", False),
        ("mix_ald", "ald", False),
        ("mix_langevin", "langevin", False),
        ("priormix_ald2", "ald2", True),
        ("priormix_langevin", "langevin", False),
    ],
)
def test_correctors(single, key, corrector, leveled, kind):
    vector, x, mix, t = single
    x, mix, t = (value.to(KINDS[kind]) for value in (x, mix, t))
    scale = local_level(mix, vector.settings["avg_len"]) if leveled else torch.ones_like(mix)
    denoise = read_score(vector.process, lambda u, t: scale * toy_score(u * scale, t, mix))
    sampler = PredictorCorrector(corrector=corrector, snr=vector.settings["snr"], batch_norms=True)
    u, mean, draw = to_basis(x) / scale, None, vector.noise(waves=False)
    for _ in range(vector.settings["corrector_steps"]):
        u, mean = sampler.correct(u, t, denoise, vector.process, None, draw)
    loose = {"rtol": 1e-3, "atol": 1e-5} if kind == "f32" else {}  # the score is read off x0, and so loses digits
    vector.check(from_basis(u) * scale, f"{key}_x_{kind}", **loose)
    vector.check(from_basis(mean) * scale, f"{key}_mean_{kind}", **loose)


def reverse_run(vector, sampler, times, level, seen=None):
    """A run of the sampler with the exact score of the known target, which is a denoiser that says the target."""
    target, mix = vector["in_target"], vector["in_mix"]
    truth, draw = to_basis(target) / level, vector.noise(waves=False)
    x = vector.process.prior(shared(mix, 2) / level, draw(target))
    calls = []

    def denoise(x, t):
        calls.append(x)
        return truth

    x = sampler.sample(denoise, vector.process, x, times, None, draw)
    if seen is not None:
        seen += [from_basis(call) * level for call in calls[1::2]]  # what the predictors saw: the correctors' results
    assert len(calls) == int(vector["nfe"]) == sampler.evaluations(len(times) - 1)
    return from_basis(x) * level


@pytest.mark.parametrize("name", ["mixsde", "priormix"])
@pytest.mark.parametrize("denoise", [True, False])
def test_reverse_run(name, denoise):
    vector = Vector(f"diffsep_reverse_run_{name}")
    mix = vector["in_mix"]
    level = local_level(mix, vector.settings["avg_len"]) if name == "priormix" else torch.ones_like(mix)
    sampler = PredictorCorrector(corrector="ald2", snr=vector.settings["snr"], denoise=denoise, step_rule="even")
    times, seen = Uniform().times(vector.process, vector.settings["N"]), []
    vector.check(reverse_run(vector, sampler, times, level, seen), f"result_denoise_{denoise}")
    vector.check(torch.stack(seen), "intermediate_x")
    if "time_grid" in vector.arrays:
        vector.check(times[:-1], "time_grid")


@pytest.mark.parametrize(("name", "grid"), [("linear", Uniform), ("log", Log), ("revlog", Log)])
def test_reverse_run_over_a_schedule(name, grid):
    vector = Vector("diffsep_reverse_run_mixsde")
    times = grid(end="t_min").times(vector.process, vector.settings["N"])
    vector.check(times, f"grid_{name}")
    sampler = PredictorCorrector(corrector="ald2", snr=vector.settings["snr"], step_rule="even")
    vector.check(reverse_run(vector, sampler, times, torch.ones_like(vector["in_mix"])), f"scheduled_{name}")


def test_exact_steps_differ_from_upstreams_only_by_their_length():
    """On a grid whose steps are 1/N the two rules are one; upstream's own grid has steps of (1 - t_min)/(N - 1)."""
    vector = Vector("diffsep_reverse_run_mixsde")
    level, n = torch.ones_like(vector["in_mix"]), vector.settings["N"]
    times = torch.linspace(1, 0, n + 1, dtype=torch.float64)
    even, exact = (
        reverse_run(vector, PredictorCorrector(corrector="ald2", step_rule=rule), times, level)
        for rule in ("even", "exact")
    )
    torch.testing.assert_close(even, exact, rtol=1e-12, atol=1e-12)


def test_output_levels_of_the_script():
    vector = Vector("diffsep_scale_output")
    vector.check(match_levels(vector["in_mix"], vector["in_est"]), "scaled")


class Toy(torch.nn.Module):
    """The network of the vectors, which is also asked only once per batch."""

    calls = 0

    def forward(self, x, t, condition):
        self.calls += 1
        return toy_score(x, t, condition.signal)


@dataclass(frozen=True)
class ToyConfig:
    def build(self):
        return Toy()


def model_of(monkeypatch, count, **settings):
    monkeypatch.setitem(BACKBONES, "toy", ToyConfig)
    config = SeparationConfig(
        backbone={"name": "toy"},
        process={"name": "mixing", "sources": count},
        prediction={"name": "score"},
        sources=count,
        **settings,
    )
    return SeparationModel(config)


@pytest.fixture(params=[2, 3])
def training(request, monkeypatch):
    vector = Vector(f"diffsep_training_losses_K{request.param}")
    return vector, model_of(monkeypatch, request.param)


OBJECTIVE = Objective(times=UniformTime(t_min=0.0), weighting=SNR())  # t = u; E |noise score + z|^2


def chance(vector, selected=1.0):
    """The vectors' times and noise; `selected` fixes which items start as the sampler does."""
    sources, t = vector["sources_norm"], vector["in_t"]
    picks = vector["in_select_uniform"] if selected is None else torch.full_like(t, selected)
    return Chance(t, picks, torch.zeros(sources.shape[:2], dtype=t.dtype), vector.noise(waves=False)(sources))


def loss_of(vector, model, strategy, selected=1.0, t=None):
    """The items' losses of the published normalisation: its mixture is at zero mean and unit deviation already."""
    drawn = chance(vector, selected)
    drawn = drawn if t is None else Chance(torch.full_like(drawn.u, t), drawn.start, drawn.order, drawn.z)
    return model.loss(vector["sources_norm"], OBJECTIVE, strategy, mixture=vector["mix_norm"], chance=drawn)


def test_normalisation(training):
    """Upstream takes the mixture's whole mean off each source, we a K-th part: they still add up to the mixture."""
    vector, model = training
    mix, gain, mean = model.normalise(vector["in_mix_raw"])
    vector.check(mix, "mix_norm")
    vector.check(mean, "norm_mean")
    vector.check(1 / gain, "norm_std")
    same, sources = model.normal_pair(vector["in_sources_raw"])
    torch.testing.assert_close(same, mix, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sources.sum(1, keepdim=True), mix, rtol=1e-12, atol=1e-12)
    vector.check(sources - mean * (1 - 1 / model.config.sources) * gain, "sources_norm")
    back = model.restore(vector["in_mix_raw"], sources, gain, mean)
    torch.testing.assert_close(back, vector["in_sources_raw"], rtol=1e-12, atol=1e-12)


def test_order_by_power(training):
    vector, _ = training
    vector.check(Ordered("power").arrange(vector["sources_norm"], chance(vector)), "power_ordered")


@pytest.mark.parametrize(
    ("hack", "name"), [(0, "ordered"), (1, "shifted"), (2, "blended"), (3, "blended_noise"), (4, "switched")]
)
def test_loss_of_each_answer_to_the_mismatch(training, hack, name):
    vector, model = training
    strategy, drawn = STRATEGIES[name](), chance(vector, None)
    y = shared(vector["mix_norm"], model.config.sources)
    example = strategy.example(model.process, to_basis(vector["sources_norm"]), y, drawn.u, drawn)
    vector.check(from_basis(example.x_t), f"xt_hack{hack}")
    vector.check(from_basis(example.z), f"z_hack{hack}")
    vector.check(example.t, f"time_hack{hack}")
    vector.check(loss_of(vector, model, strategy, None), f"loss_hack{hack}")


def test_loss_of_the_paper(training):
    """init_hack 5: at t = 1 from the sampler's start, every order of the sources against one answer of the network."""
    vector, model = training
    vector.check(loss_of(vector, model, PermutedEnd(order="data"), selected=0.0), "loss_hack5_pit")
    assert model.denoiser.backbone.calls == 1
    vector.check(loss_of(vector, model, PermutedEnd(order="data"), selected=1.0), "loss_hack0")
    start = chance(vector)
    terms = []
    for order in permutations_of(model.config.sources):
        y, x0 = shared(vector["mix_norm"], model.config.sources), to_basis(vector["sources_norm"][:, list(order)])
        one = torch.ones_like(start.u)
        x = model.process.prior(y, start.z)
        z = model.process.implied_noise(x, x0, one, y)
        score = model.denoiser.raw(x, one, y, Condition(signal=vector["mix_norm"]))
        terms.append((expand(model.process.weights(one).noise, x) * score + z).square().mean((1, 2)))
    vector.check(torch.stack(terms, 1), "hack5_terms")


def test_loss_of_the_best_order_at_every_time(training):
    vector, model = training
    for name in ("permuted", "permuted_always"):
        strategy = STRATEGIES[name](order="data")
        vector.check(loss_of(vector, model, strategy), "loss_pit_alltime")


def test_gate_opens_where_orders_drown_in_noise(monkeypatch):
    """Upstream adds the difference of two orders' means where it should subtract it, which its numbers for the open
    items contain; with that sign the loss is its own, and the open items are the same."""
    vector = Vector("diffsep_training_losses_K2")
    model, drawn = model_of(monkeypatch, 2), chance(vector)
    strategy = Gated(share=0.0, order="data")
    y, x0 = shared(vector["mix_norm"], 2), to_basis(vector["sources_norm"])
    example = strategy.example(model.process, x0, y, drawn.u, drawn)
    assert example.any_order.tolist() == [False, False, True, True]
    w = model.process.weights(example.t)
    clean, noise = expand(w.clean, x0), expand(w.noise, x0)
    score = model.denoiser.raw(example.x_t, example.t, y, Condition(signal=vector["mix_norm"]))
    plain, wrong, right = (
        (noise * score + example.z + sign * clean / noise * (reordered(x0, (1, 0)) - x0)).square().mean((1, 2))
        for sign in (0, 1, -1)
    )
    upstream = torch.cat([torch.minimum(plain, wrong)[2:], plain[:2]])
    vector.check(upstream, "loss_pit_mmnr")
    ours = loss_of(vector, model, strategy)
    torch.testing.assert_close(ours, torch.cat([plain[:2], torch.minimum(plain, right)[2:]]), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("hack", "name"), [(0, "ordered"), (1, "shifted"), (4, "switched")])
def test_losses_under_the_local_level(monkeypatch, hack, name):
    vector = Vector("diffsep_training_losses_K2")
    model = model_of(monkeypatch, 2, level="local", level_window=8)
    vector.check(loss_of(vector, model, STRATEGIES[name](), None), f"priormix_loss_hack{hack}")
