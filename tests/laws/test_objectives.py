"""Laws of training: time samplers, weightings, and the loss as a mean over independent items."""

import math

import pytest
import torch
from torch import nn

from fromnoise.denoiser import Denoiser
from fromnoise.objectives import (
    SNR,
    TIMES,
    WEIGHTINGS,
    DiscreteTime,
    FixedTime,
    KarrasWeight,
    LogNormalTime,
    MinSNR,
    Objective,
    UniformTime,
    Unit,
    VarianceTime,
)
from fromnoise.predictions import PREDICTIONS, Clean, Karras, Noise, Score
from fromnoise.processes import OUVE, VE, VP, Flow, VPAngular
from fromnoise.types import Condition, build, expand, spec

EVEN = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000  # every quantile once


@pytest.fixture(params=TIMES.values(), ids=TIMES.keys())
def times(request):
    return request.param()


@pytest.fixture(params=WEIGHTINGS.values(), ids=WEIGHTINGS.keys())
def weighting(request):
    return request.param()


def draw_times(times, u, process):
    if isinstance(times, DiscreteTime) and process.trained_times() is None:
        pytest.skip("a continuous process has no steps")
    if isinstance(times, VarianceTime | LogNormalTime) and not process.weights(torch.full((1,), 0.5)).noise.any():
        pytest.skip("a path without noise")
    return times.times(u, process)


def test_times_lie_in_range_and_grow_with_u(times, process):
    t = draw_times(times, EVEN[::10], process)
    assert t.dtype == torch.float64
    assert t.min().item() >= process.t_min
    assert t.max().item() <= 1
    assert bool((t.diff() >= 0).all())


def test_time_of_an_item_does_not_depend_on_the_others(times, process):
    u = torch.tensor([0.1, 0.5, 0.93], dtype=torch.float64)
    together = draw_times(times, u, process)
    assert together.tolist() == [times.times(one, process).item() for one in u.split(1)]


def test_uniform_times_are_uniform():
    assert UniformTime().times(EVEN, OUVE()).mean().item() == pytest.approx(0.515)
    assert UniformTime(t_min=0.5).times(EVEN[:1], OUVE()).item() == pytest.approx(0.5, abs=1e-4)


def test_each_discrete_step_is_equally_frequent():
    process = VP(num_steps=50)
    values, counts = DiscreteTime().times(EVEN, process).unique(return_counts=True)
    assert values.tolist() == process.trained_times().tolist()
    assert set(counts.tolist()) == {400}


def test_fixed_time_is_fixed():
    assert FixedTime().times(EVEN[:3], OUVE()).tolist() == [1.0, 1.0, 1.0]
    assert FixedTime(0.25).times(EVEN[:1], OUVE()).item() == 0.25


def test_log_normal_levels_have_the_stated_mean_and_deviation():
    process = VE(sigma_min=1e-6, sigma_max=1e4, t_min=1e-9)
    logs = process.weights(LogNormalTime(-1.0, 0.7).times(EVEN, process)).noise.log()
    assert logs.mean().item() == pytest.approx(-1.0, abs=1e-3)
    assert logs.std().item() == pytest.approx(0.7, abs=1e-3)


def test_variance_times_have_a_density_like_the_noise():
    """The mass below t equals the integral of the noise up to it, by a finer quadrature."""
    process = OUVE()
    t = VarianceTime().times(EVEN[99::2000], process)
    fine = torch.linspace(0.03, 1, 200001, dtype=torch.float64)
    mass = torch.cumulative_trapezoid(process.weights(fine).noise, fine)
    below = mass[torch.searchsorted(fine, t) - 1] / mass[-1]
    torch.testing.assert_close(below, EVEN[99::2000], rtol=0, atol=1e-5)


def test_discrete_times_need_a_discrete_process():
    with pytest.raises(ValueError, match="discrete steps"):
        DiscreteTime().times(EVEN, OUVE())


@pytest.mark.parametrize("process", [VP(), OUVE(), VE()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("name", [name for name in WEIGHTINGS if name != "unit"])
def test_weight_counts_the_error_of_x0_alike_for_all_predictions(name, process):
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    part = WEIGHTINGS[name]()
    for prediction in (kind() for kind in PREDICTIONS.values()):
        weight = part.weight(t, process, prediction) / prediction.gain(t, process) ** 2
        torch.testing.assert_close(weight, part.weight(t, process, Clean()), rtol=1e-10, atol=0)


def test_weights_of_the_papers():
    process, t = VP(), torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    w = process.weights(t)
    snr = (w.clean / w.noise) ** 2
    torch.testing.assert_close(SNR().weight(t, process, Clean()), snr)
    torch.testing.assert_close(SNR().weight(t, process, Noise()), torch.ones_like(t))
    torch.testing.assert_close(SNR().weight(t, process, Score()), w.noise**2)  # sigma^2, weighted score matching
    torch.testing.assert_close(MinSNR(5.0).weight(t, process, Clean()), snr.clamp(max=5))
    torch.testing.assert_close(KarrasWeight(0.3).weight(t, process, Karras(0.3)), torch.ones_like(t))
    sigma = w.noise / w.clean
    torch.testing.assert_close(KarrasWeight(0.3).weight(t, process, Clean()), (sigma**2 + 0.09) / (sigma * 0.3) ** 2)
    assert Unit().weight(t, process, Score()).tolist() == [1.0] * 5


class Backbone(nn.Module):
    """A nonlinear function of everything that an item is told."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.4, dtype=torch.float64))

    def forward(self, x, t, condition):
        heard = 0 if condition.signal is None else condition.signal
        return torch.tanh(self.weight * x + 0.01 * expand(t, x)) + 0.1 * heard


def setting(process, prediction, count=4):
    generator = torch.Generator().manual_seed(3)
    x0, y, z = (torch.randn(count, 2, 6, generator=generator, dtype=torch.float64) for _ in range(3))
    u = torch.rand(count, generator=generator, dtype=torch.float64)
    return Denoiser(Backbone(), process, prediction), x0, y, z, u


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_loss_of_a_batch_is_the_mean_of_its_items(process, prediction, norm, weighting):
    if prediction == "score" and not process.weights(torch.full((1,), 0.5)).noise.any():
        pytest.skip("a path without noise has no score")
    denoiser, x0, y, z, u = setting(process, PREDICTIONS[prediction]())
    objective = Objective(weighting=weighting, norm=norm)
    draw = lambda i: objective.draw(process, denoiser.prediction, x0[i], y[i], u=u[i], z=z[i])  # noqa: E731
    everything = slice(None)
    loss = objective.loss(denoiser, x0, y, Condition(signal=y), draw=draw(everything))
    alone = [
        objective.loss(denoiser, x0[i], y[i], Condition(signal=y[i]), draw=draw(i))
        for i in (slice(k, k + 1) for k in range(4))
    ]
    torch.testing.assert_close(loss, torch.stack(alone).mean(), rtol=1e-12, atol=1e-12)
    loss.backward()
    assert math.isfinite(denoiser.backbone.weight.grad.item())


def test_draw_is_the_path_at_the_drawn_time():
    process = OUVE()
    _, x0, y, z, u = setting(process, Score())
    draw = Objective().draw(process, Score(), x0, y, u=u, z=z)
    torch.testing.assert_close(draw.t, 0.03 + 0.97 * u)
    torch.testing.assert_close(draw.x_t, process.sample(x0, draw.t, y, z))
    assert draw.z is z


def test_draws_repeat_with_their_generator():
    _, x0, y, _, _ = setting(OUVE(), Score())
    draw = lambda seed: Objective().draw(OUVE(), Score(), x0, y, torch.Generator().manual_seed(seed))  # noqa: E731
    assert draw(1).x_t.tolist() == draw(1).x_t.tolist()
    assert draw(1).x_t.tolist() != draw(2).x_t.tolist()
    assert draw(1).x_t.dtype == torch.float64
    assert Objective().draw(OUVE(), Score(), x0.float(), y.float()).x_t.dtype == torch.float32


def test_score_matching_loss_is_that_of_sgmse():
    """mean |noise score + z|^2: SGMSE's loss without its factor 1/2 and its sum over bins."""
    process = OUVE()
    denoiser, x0, y, z, u = setting(process, Score())
    objective = Objective(weighting=SNR())
    draw = objective.draw(process, Score(), x0, y, u=u, z=z)
    score = denoiser.raw(draw.x_t, draw.t, y)
    std = expand(process.weights(draw.t).noise, z)
    torch.testing.assert_close(objective.loss(denoiser, x0, y, draw=draw), (std * score + z).square().mean())


def test_plain_norms_are_the_plain_means():
    process = VPAngular()
    denoiser, x0, _, z, u = setting(process, Noise())
    draw = Objective().draw(process, Noise(), x0, u=u, z=z)
    error = denoiser.raw(draw.x_t, draw.t) - z
    torch.testing.assert_close(Objective().loss(denoiser, x0, draw=draw), error.square().mean())
    torch.testing.assert_close(Objective(norm="l1").loss(denoiser, x0, draw=draw), error.abs().mean())


def test_mask_keeps_padding_out_of_an_items_loss():
    process = Flow()
    denoiser, x0, _, z, u = setting(process, Clean(), count=2)
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    objective = Objective()
    draw = objective.draw(process, Clean(), x0, u=u, z=z)
    losses = objective.losses(denoiser, x0, None, None, draw, mask)
    error = (denoiser.raw(draw.x_t, draw.t) - x0).square()
    torch.testing.assert_close(losses, torch.stack([error[0].mean(), error[1, :, :4].mean()]))


def test_dropped_state_holds_noise_while_the_target_stays():
    """DOSE: x_t of a dropped item is N(0, I), the others' are as ever, and all are asked for their x0."""
    process = VP(beta_max=0.035, num_steps=50)
    x0 = 3 + torch.arange(400, dtype=torch.float64)[:, None, None].expand(400, 1, 50)
    objective = Objective(DiscreteTime(), drop_state=0.3, norm="l1")
    draw = objective.draw(process, Clean(), x0, None, torch.Generator().manual_seed(0))
    kept = draw.x_t.flatten(1).sub(process.sample(x0, draw.t, None, draw.z).flatten(1)).abs().amax(1) < 1e-12
    assert (~kept).double().mean().item() == pytest.approx(0.3, abs=5 * (0.3 * 0.7 / 400) ** 0.5)
    dropped = draw.x_t[~kept]
    errors = 5 * (2 / dropped.numel()) ** 0.5  # five standard errors of a variance
    assert dropped.mean().item() == pytest.approx(0, abs=errors)
    assert dropped.var().item() == pytest.approx(1, abs=errors)
    losses = objective.losses(Denoiser(Zero(), process, Clean()), x0, None, None, draw)
    torch.testing.assert_close(losses, x0[:, 0, 0])


class Zero(nn.Module):
    def forward(self, x, t, condition):
        return 0 * x


def test_without_dropping_the_draws_are_those_of_ever():
    x0 = torch.randn(3, 1, 5, generator=torch.Generator().manual_seed(1))
    again = lambda objective: objective.draw(VP(), Noise(), x0, None, torch.Generator().manual_seed(2))  # noqa: E731
    plain, all_dropped = again(Objective()), again(Objective(drop_state=1.0))
    assert plain.z.tolist() == all_dropped.z.tolist()
    assert plain.t.tolist() == all_dropped.t.tolist()
    torch.testing.assert_close(plain.x_t, VP().sample(x0, plain.t, None, plain.z))
    assert Objective().shown(x0) is x0


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_share_of_dropped_states_is_a_probability(share):
    with pytest.raises(ValueError, match="drop_state from 0 to 1"):
        Objective(drop_state=share)


def test_one_step_regression_is_an_objective_too():
    """Fixed t = 1 on the noiseless flow from the observation: the network sees y and is asked for x0."""
    process = Flow("observation", sigma=0.0)
    _, x0, y, z, u = setting(process, Clean())
    draw = Objective(FixedTime(1.0)).draw(process, Clean(), x0, y, u=u, z=z)
    assert draw.x_t.tolist() == y.tolist()


def test_unknown_norm_is_an_error():
    with pytest.raises((ValueError, TypeError), match="l1"):  # TypeError from the type checker of the tests
        Objective(norm="l3")


@pytest.mark.parametrize(("choices", "name"), [(c, n) for c in (TIMES, WEIGHTINGS) for n in c])
def test_spec_names_the_object_again(choices, name):
    part = choices[name]()
    assert build("part", choices, spec(choices, part)) == part
