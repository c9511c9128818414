"""The model behind the separator: basis, levels, strategies and losses, with networks whose answer is known."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from fromnoise.backbones import BACKBONES
from fromnoise.denoiser import Denoiser
from fromnoise.objectives import SNR, FixedTime, Objective
from fromnoise.predictions import PREDICTIONS, SGMSE
from fromnoise.processes import Flow, Mixing
from fromnoise.samplers import PositionNoise
from fromnoise.tasks.separation_model import Between, SeparationConfig, SeparationModel, add_up
from fromnoise.tasks.source_losses import (
    SOURCE_LOSSES,
    STRATEGIES,
    Chance,
    Gated,
    Ordered,
    Permuted,
    PermutedEnd,
    Rollout,
    SNRLoss,
    Switched,
    in_best_order,
    in_order,
    reordered,
)
from fromnoise.tasks.sources import from_basis, local_level, permutations_of, shared, to_basis
from fromnoise.types import Condition, InputError, build, expand, spec


class Answer(nn.Module):
    """Says what it was given, whatever it sees; without, a part of the mixture that differs from source to source."""

    def __init__(self, said=None):
        super().__init__()
        self.said, self.scale = said, nn.Parameter(torch.tensor(1.0))

    def forward(self, x, t, condition):
        if self.said is not None:
            return self.said.to(x)
        parts = torch.arange(1, x.shape[1] + 1, device=x.device, dtype=x.dtype)[:, None]
        return self.scale * (0.1 * parts * condition.signal + 0.05 * torch.tanh(x) * parts)


@dataclass(frozen=True)
class AnswerConfig:
    def build(self):
        return Answer()


@pytest.fixture(autouse=True)
def answer(monkeypatch):
    monkeypatch.setitem(BACKBONES, "answer", AnswerConfig)


def model(said=None, **settings):
    count = settings.get("sources", 2)
    settings = {"process": {"name": "mixing", "sources": count}} | settings
    made = SeparationModel(SeparationConfig(backbone={"name": "answer"}, **settings))
    made.denoiser.backbone.said = said
    return made


def waves(count=2, batch=3, n=400, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, count, n, generator=generator, dtype=torch.float64)


def test_weights_of_the_noise_and_their_inverse_give_the_identity_for_four_sources():
    """A and P are projectors, so that L(t) L(t)^-1 = 1, and L commutes with every order of the sources."""
    w = Mixing(4).weights(torch.tensor([0.03, 0.4, 1.0], dtype=torch.float64))
    x = waves(4)
    root = lambda x, weight: from_basis(expand(weight, x) * to_basis(x))  # noqa: E731
    torch.testing.assert_close(root(root(x, w.noise), 1 / w.noise), x, rtol=1e-12, atol=1e-12)
    for order in permutations_of(4):
        torch.testing.assert_close(root(x[:, list(order)], w.noise), root(x, w.noise)[:, list(order)])


def test_mixing_keeps_the_mean_and_takes_each_difference_down():
    x0 = to_basis(waves(3))
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    mean = from_basis(Mixing(3, gamma=2.5).marginal(x0, t)[0])
    sources = from_basis(x0)
    average = sources.mean(1, keepdim=True)
    torch.testing.assert_close(mean, average + torch.exp(-2.5 * t)[:, None, None] * (sources - average))


def test_a_mixture_is_the_first_coordinate():
    sources = waves(3)
    mix = sources.sum(1, keepdim=True)
    torch.testing.assert_close(to_basis(sources)[:, :1], shared(mix, 3)[:, :1])
    torch.testing.assert_close(from_basis(shared(mix, 3)), (mix / 3).expand(-1, 3, -1))


def test_order_of_a_state_is_the_order_of_its_sources():
    sources = waves(3)
    torch.testing.assert_close(from_basis(reordered(to_basis(sources), (2, 0, 1))), sources[:, [2, 0, 1]])


def test_local_level_is_the_mean_over_its_window_with_silence_beyond_the_ends():
    mix = waves(1, n=9)
    for window in (4, 5):
        for i in range(9):
            seen = [mix[:, :, j] ** 2 for j in range(i - window // 2, i - window // 2 + window) if 0 <= j < 9]
            expected = 0.5 * (sum(seen) / window).clamp(min=1e-4).sqrt()
            torch.testing.assert_close(local_level(mix, window)[..., i], expected)


PROCESS_SPECS = [
    {"name": "mixing", "sources": 3},
    {"name": "ouve"},
    {"name": "bridge"},
    {"name": "ve", "sigma_max": 0.5},
    {"name": "flow", "start": "observation"},
]


@pytest.mark.parametrize("level", ["none", "local"])
@pytest.mark.parametrize("process", PROCESS_SPECS, ids=lambda p: p["name"])
@pytest.mark.parametrize("sampler", ["ddim", "ancestral", "dpmpp_2m"])
def test_a_network_that_knows_the_sources_gives_them(process, level, sampler):
    truth = waves(3)
    known = model(truth, sources=3, process=process, level=level)
    result = known.separate(truth.sum(1, keepdim=True), PositionNoise([1, 2, 3]), known.default_run(3, sampler))
    torch.testing.assert_close(result, truth, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("window", [None, 20])
@pytest.mark.parametrize("part", [*(part() for part in PREDICTIONS.values()), SGMSE("score")], ids=str)
def test_the_level_reaches_the_network_as_waves_and_its_answer_as_the_prediction_asks(part, window):
    """What a network should say of sources and of noise at the mixture's level is read as those very sources."""
    sources, z = waves(), waves(seed=2)
    mix, process = sources.sum(1, keepdim=True), Mixing()
    level = torch.ones_like(mix) if window is None else local_level(mix, window)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    x0 = to_basis(sources) / level
    x_t = process.sample(x0, t, None, to_basis(z))
    said = part.target(x0, to_basis(z), x_t, t, process) / level**-part.degree
    denoiser = Denoiser(Answer(from_basis(said)), process, part, Between(part, window))
    estimate = denoiser(x_t, t, None, Condition(signal=mix))
    torch.testing.assert_close(from_basis(estimate) * level, sources, rtol=1e-9, atol=1e-9)


def test_the_network_sees_waves():
    sources, seen = waves(), []
    made = model(level="local", level_window=30)
    made.denoiser.backbone.forward = lambda x, t, condition: seen.append((x, condition.signal)) or x
    mix = sources.sum(1, keepdim=True)
    states = []
    made.separate(mix, PositionNoise([1, 2, 3]), made.default_run(2, "ddim"), lambda i, n, x: states.append((i, n, x)))
    assert [(i, n) for i, n, _ in states] == [(0, 2), (1, 2)]
    torch.testing.assert_close(states[0][2], seen[1][0])  # the callback is told the state as waves too
    assert all(signal.equal(mix) for _, signal in seen)


def test_result_of_an_item_does_not_depend_on_its_batch():
    made, mix = model(level="local"), waves(1)
    together = made.separate(mix, PositionNoise([5, 6, 7]), made.default_run(3, "ancestral"))
    for i in range(3):
        alone = made.separate(mix[i : i + 1], PositionNoise([5 + i]), made.default_run(3, "ancestral"))
        torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("level", ["none", "local"])
@pytest.mark.parametrize("sampler", ["ddim", "heun", "pc:corrector=none"])
def test_consistent_estimates_add_up_to_the_mixture(level, sampler):
    made, mix = model(level=level, consistent=True, sources=3), waves(1)
    estimate = made.separate(mix, PositionNoise([1, 2, 3]), made.default_run(2, "ddim"))
    torch.testing.assert_close(estimate.sum(1, keepdim=True), mix, rtol=1e-9, atol=1e-9)
    x, y = to_basis(waves(3, seed=4)), shared(mix, 3)
    read = made.denoiser(x, torch.ones(3, dtype=torch.float64), y, Condition(signal=mix))
    moved = made.consistent(read, y)
    torch.testing.assert_close(from_basis(moved), add_up(from_basis(read), mix), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", [1.0, 0.003])
def test_levels_of_the_result(scale):
    sources = scale * waves() + 0.1 * scale
    mix = sources.sum(1, keepdim=True)
    normal, gain, mean = model().normalise(mix)
    torch.testing.assert_close(normal.mean(-1), torch.zeros(3, 1).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(normal.std(-1), torch.ones(3, 1).double())
    off = (sources - mean / 2) * gain * torch.tensor([[0.5], [1.0]])
    plain = model(levels="none").restore(mix, off, gain, mean)
    torch.testing.assert_close(plain[:, 1], sources[:, 1])
    summed = model(levels="sum").restore(mix, off, gain, mean)
    torch.testing.assert_close(summed.sum(1, keepdim=True), mix)
    matched = model(levels="match").restore(mix, off, gain, mean)
    correlation = (matched * (mix - matched)).sum(-1)  # the rest of the mixture is orthogonal to a matched source
    assert bool((correlation.abs() < 1e-6 * matched.square().sum(-1)).all())


def test_without_centring_the_mean_stays():
    mix = waves(1) + 3
    normal, gain, mean = model(center=False).normalise(mix)
    assert not mean.any()
    torch.testing.assert_close(normal, mix * gain)


def test_silence_is_normalised_to_silence():
    normal, gain, _ = model().normalise(torch.zeros(1, 1, 50))
    assert not normal.any()
    assert bool(gain.isfinite().all())
    assert model().normalise(torch.ones(1, 1, 1))[0].item() == 0


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("loss", [None, SNRLoss()], ids=["objective", "snr"])
@pytest.mark.parametrize("settings", [{"sources": 3}, {"level": "local", "consistent": True}], ids=str)
def test_losses_are_finite_reach_the_network_and_repeat(name, loss, settings):
    if name == "rollout" and loss is None:
        return  # refused, below
    made = model(**settings)
    sources = waves(made.config.sources).float()
    objective = Objective(weighting=SNR())
    run = lambda: made.loss(sources, objective, STRATEGIES[name](), loss, torch.Generator().manual_seed(3))  # noqa: E731
    losses = run()
    assert losses.shape == (3,)
    assert losses.tolist() == run().tolist()
    losses.mean().backward()
    assert made.denoiser.backbone.scale.grad.abs().item() > 0


def chance_of(sources, start=1.0, order=None):
    batch, count, _ = sources.shape
    keys = torch.zeros(batch, count).double() if order is None else order
    return Chance(torch.full((batch,), 0.5).double(), torch.full((batch,), start).double(), keys, waves(count, seed=9))


@pytest.mark.parametrize("name", ["permuted_end", "gated", "permuted_always"])
@pytest.mark.parametrize("loss", [None, SNRLoss()], ids=["objective", "snr"])
def test_at_the_samplers_start_the_order_of_the_sources_does_not_count(name, loss):
    sources, made = waves(3), model(sources=3)
    strategy = STRATEGIES[name](order="data")
    losses = [
        made.loss(sources[:, list(order)], Objective(weighting=SNR()), strategy, loss, chance=chance_of(sources, 0.0))
        for order in permutations_of(3)
    ]
    for other in losses[1:]:
        torch.testing.assert_close(other, losses[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("settings", [{"sources": 3}, {"level": "local", "consistent": True}], ids=str)
def test_a_rollout_shows_again_what_the_network_answered(settings):
    made = model(**settings)
    sources = waves(made.config.sources)
    calls = []
    made.denoiser.register_forward_hook(lambda _, given, answer: calls.append((*given[:3], answer)))
    losses = made.loss(
        sources,
        Objective(),
        Rollout(again=0.5),
        SNRLoss(),
        torch.Generator().manual_seed(3),
        chance=chance_of(sources, 0.0),
    )
    (x, t, y, answer), (x_again, t_again, y_again, _) = calls
    assert t.tolist() == [1.0] * 3
    torch.testing.assert_close(x, made.process.prior(y, chance_of(sources, 0.0).z))
    drawn = Chance.draw(sources[:2], torch.Generator().manual_seed(3))
    answered = made.consistent(answer, y).detach()[:2]
    torch.testing.assert_close(t_again, made.process.t_min + (1 - made.process.t_min) * drawn.u)
    torch.testing.assert_close(x_again, made.process.sample(answered, t_again, y_again, drawn.z))
    once = made.loss(sources, Objective(), PermutedEnd(share=1.0), SNRLoss(), chance=chance_of(sources, 0.0))
    assert losses[2].item() == pytest.approx(once[2].item())
    assert (losses[:2] - once[:2]).abs().min().item() > 0


def test_a_rollout_compares_in_the_order_that_was_best_at_the_start():
    made = model(sources=3)
    sources = waves(3)
    found = [
        made.loss(
            sources[:, list(order)], Objective(), Rollout(order="data"), SNRLoss(), torch.Generator().manual_seed(3),
            chance=chance_of(sources, 0.0),
        )
        for order in permutations_of(3)
    ]  # fmt: skip
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-10, atol=1e-10)


def test_a_rollout_without_a_loss_of_sources_says_so():
    with pytest.raises(ValueError, match=r"source_loss\.name=snr"):
        model().loss(waves(2), Objective(), Rollout())


@pytest.mark.parametrize("process", PROCESS_SPECS, ids=lambda p: p["name"])
def test_items_that_start_as_the_sampler_does_are_its_start(process):
    made = model(process=process, sources=3)
    sources = waves(3)
    chance, y = chance_of(sources, start=0.0), shared(sources.sum(1, keepdim=True), 3)
    drawn = Switched(share=0.5).example(made.process, to_basis(sources), y, chance.u, chance)
    torch.testing.assert_close(drawn.x_t, made.process.prior(y, chance.z))
    assert drawn.t.tolist() == [1.0] * 3
    if process["name"] != "bridge":  # whose noise at 1 is 1e-4: it has no room for a difference
        torch.testing.assert_close(made.process.sample(to_basis(sources), drawn.t, y, drawn.z), drawn.x_t)


def test_only_a_share_starts_as_the_sampler_does():
    sources = waves()
    chance = chance_of(sources)
    chance.start[1] = 0.05
    drawn = PermutedEnd(0.1).example(
        Mixing(), to_basis(sources), shared(sources.sum(1, keepdim=True), 2), chance.u, chance
    )
    assert drawn.any_order.tolist() == [False, True, False]
    assert drawn.t.tolist() == [0.5, 1.0, 0.5]


def test_regression_is_fixed_time_and_the_best_order():
    """The noiseless flow from the observation: it sees equal parts of the mixture, and either order is right."""
    sources = waves()
    made = model(process={"name": "flow", "start": "observation", "sigma": 0.0})
    made.denoiser.backbone.said = made.normal_pair(sources)[1].flip(1)
    objective = Objective(FixedTime(1.0))
    best = made.loss(sources, objective, Permuted(), chance=chance_of(sources))
    assert best.max().item() < 1e-20
    assert made.loss(sources, objective, Ordered(), chance=chance_of(sources)).min().item() > 0.1
    snr = made.loss(sources, objective, Permuted(), SNRLoss(), chance=chance_of(sources))
    torch.testing.assert_close(snr, torch.full((3,), -30.0).double(), rtol=0, atol=1e-3)


def test_random_order_is_an_order_and_power_is_ascending():
    sources = waves(3) * torch.tensor([[3.0], [1.0], [2.0]])
    keys = torch.tensor([[0.2, 0.9, 0.1]] * 3).double()
    shuffled = PermutedEnd().arrange(sources, chance_of(sources, order=keys))
    assert shuffled.tolist() == sources[:, [2, 0, 1]].tolist()
    assert Ordered("power").arrange(sources, chance_of(sources)).tolist() == sources[:, [1, 2, 0]].tolist()


def test_gate_counts_the_mean_over_the_other_orders():
    sources = waves(3) * torch.tensor([1.0, 0.2, 0.02])[:, None, None].double()
    chance, process = chance_of(sources), Mixing(3)
    x0 = to_basis(sources)
    w = process.weights(chance.u)
    moves = [from_basis(expand(w.clean, x0) * (x0 - reordered(x0, order))) for order in permutations_of(3)[1:]]
    mismatch = torch.stack([move.square().mean((1, 2)) for move in moves]).mean(0)
    noise = from_basis(expand(w.noise, x0) * chance.z).square().mean((1, 2))
    ratio = 10 * torch.log10(mismatch / noise)
    for threshold in (ratio[0].item() - 1, ratio[1].item() - 1, ratio[2].item() - 1):
        gate = Gated(share=0.0, mmnr_db=threshold).example(
            process, x0, shared(sources.sum(1, keepdim=True), 3), chance.u, chance
        )
        assert gate.any_order.tolist() == (ratio < threshold).tolist()


def test_snr_loss_is_the_snr_up_to_the_threshold():
    target = waves(batch=1)
    estimate = target + 0.1 * waves(batch=1, seed=2)
    pairs = SNRLoss(threshold_db=60.0, floor=0.0).pairs(estimate, target, target.sum(1, keepdim=True))
    for i in range(2):
        for j in range(2):
            error = (estimate[0, i] - target[0, j]).square().sum()
            expected = -10 * torch.log10(target[0, j].square().sum() / error)
            assert pairs[0, i, j].item() == pytest.approx(expected.item(), abs=0.01)
    exact = in_order(SNRLoss(30.0).pairs(target, target, target.sum(1, keepdim=True)))
    assert exact.item() == pytest.approx(-30, abs=1e-3)
    assert in_best_order(pairs.flip(2)).item() == pytest.approx(in_order(pairs).item())


def test_silent_sources_draw_their_estimate_to_silence():
    target = torch.stack([waves(1)[:, 0], torch.zeros(3, 400).double()], 1)
    estimate = (0.5 * target + 0.01).requires_grad_()
    pairs = SNRLoss().pairs(estimate, target, target.sum(1, keepdim=True))
    in_order(pairs).sum().backward()
    assert bool(estimate.grad.isfinite().all())
    assert bool((estimate.grad[:, 1] > 0).all())
    silence = SNRLoss().pairs(torch.zeros(1, 2, 9), torch.zeros(1, 2, 9), torch.zeros(1, 1, 9))
    assert bool(silence.isfinite().all())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sources": 1}, "2 sources or more"),
        ({"sources": 3, "process": {"name": "mixing"}}, "a process of 3 sources"),
        ({"names": ("voice",)}, "2 names that differ"),
        ({"names": ("voice", "voice")}, "2 names that differ"),
        ({"level_window": 0}, "at least 1 sample"),
        ({"frontend": {"name": "stft"}}, "works on waves"),
        ({"sampler": {"name": "none"}}, "unknown sampler"),
        ({"frontend": {"name": "wave", "scale": 2.0}}, "scale"),
    ],
)
def test_impossible_configurations_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        model(**settings)


@pytest.mark.parametrize("field", ["level", "levels"])
def test_unknown_choices_are_errors(field):
    with pytest.raises((ValueError, TypeError), match=field):  # TypeError from the type checker of the tests
        model(**{field: "some"})


@pytest.mark.parametrize("make", [lambda: Switched(share=1.5), lambda: Ordered(order="loud")])
def test_impossible_strategies_are_errors(make):
    with pytest.raises((ValueError, TypeError), match=r"xpected|order"):  # TypeError from the type checker of the tests
        make()


@pytest.mark.parametrize(
    ("choices", "name"),
    [(c, n) for c in (STRATEGIES, SOURCE_LOSSES) for n in c],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_spec_names_the_object_again(choices, name):
    part = choices[name]()
    assert build("part", choices, spec(choices, part)) == part


def test_names_are_s1_s2_unless_given():
    assert model(sources=3).names == ("s1", "s2", "s3")
    assert model(names=("voice", "noise")).names == ("voice", "noise")
    with pytest.raises(InputError, match="unknown process"):
        model(process={"name": "mixed"})


def test_the_adapter_has_no_weights_and_a_model_can_be_copied():
    import copy

    made = model()
    assert list(made.state_dict()) == ["denoiser.backbone.scale"]
    assert copy.deepcopy(made).config == made.config
    assert isinstance(Flow(), type(model(process={"name": "flow"}).process))


def test_shifts_average_runs_of_the_moved_mixture_in_one_order():
    """The fake network answers with its state in a random order: the mean must not mix the sources up."""
    backbone = {"name": "spectral", "network": {"name": "maskconv", "width": 4, "layers": 1, "attention": 0}}
    single, several = (SeparationModel(SeparationConfig(backbone=backbone, shifts=k)) for k in (1, 4))
    assert several.delays == [0, 16, 32, 48]  # a hop of 64
    several.load_state_dict(single.state_dict())
    truth = waves(2).float()
    calls = []

    def answer(moved, noise, run, callback):
        delay = several.delays[len(calls)]
        assert not moved[..., :delay].any()
        torch.testing.assert_close(moved[..., delay:], truth.sum(1, keepdim=True))
        estimate = torch.nn.functional.pad(truth, (delay, 0))
        calls.append(delay)
        return estimate.flip(1) if len(calls) % 2 else estimate

    several._separate = answer
    mix = truth.sum(1, keepdim=True)
    found = several.separate(mix, PositionNoise([0, 1, 2]), several.default_run())
    assert calls == several.delays
    torch.testing.assert_close(found, truth.flip(1))
    heard = []
    one = single.separate(mix, PositionNoise([0, 1, 2]), single.default_run(), lambda i, n, x: heard.append((i, n)))
    del several._separate
    more = several.separate(
        mix, PositionNoise([0, 1, 2]), several.default_run(), lambda i, n, x: heard.append((i, n, x.shape))
    )
    assert one.shape == more.shape == truth.shape
    assert [n for _, n, *_ in heard] == [single.default_run().num_steps] * single.default_run().num_steps + [
        4 * single.default_run().num_steps
    ] * (4 * single.default_run().num_steps)
    assert all(shape == truth.shape for *_, shape in heard[single.default_run().num_steps :])
