"""Runs from the middle: where they start, which times they keep, and how many steps they have by default."""

import pytest
import torch

from fromnoise.processes import VE, VP, Flow, VPAngular
from fromnoise.samplers import GRIDS, Karras, Levels, Log, LogSNR, Quadratic, Steps, Trained, Uniform
from fromnoise.samplers.grids import steps_from

PAPER = VP(num_steps=200)  # the schedule of DiffWave's generators
SIX = Levels((1e-4, 1e-3, 0.01, 0.05, 0.2, 0.7))


@pytest.mark.parametrize("num_steps", [1, 3, 8])
@pytest.mark.parametrize("end", ["data", "t_min"])
@pytest.mark.parametrize("part", [Uniform, Quadratic, Karras, LogSNR])
@pytest.mark.parametrize("process", [PAPER, VPAngular(), VE()], ids=lambda p: type(p).__name__)
def test_a_spaced_run_begins_at_its_start_and_ends_like_the_whole(process, part, end, num_steps):
    times = part(end=end).times(process, num_steps, 0.3)
    assert len(times) == num_steps + 1
    assert times[0].item() == 0.3
    assert bool((times.diff() < 0).all())
    assert times[-1].item() == part(end=end).times(process, num_steps)[-1].item()


def test_spacing_follows_the_rule_of_the_whole():
    flow = Flow()
    torch.testing.assert_close(Uniform().times(flow, 4, 0.4).diff(), torch.full((4,), -0.1, dtype=torch.float64))
    roots = Quadratic(end="t_min").times(PAPER, 5, 0.36).sqrt()
    torch.testing.assert_close(roots.diff(), roots.diff().mean().expand(5), rtol=1e-12, atol=0)
    ratios = Log(end="t_min").times(PAPER, 5, 0.36).log()
    torch.testing.assert_close(ratios.diff(), ratios.diff().mean().expand(5), rtol=1e-12, atol=0)
    w = PAPER.weights(LogSNR(end="t_min").times(PAPER, 6, 0.25))
    logs = (w.noise / w.clean).log().diff()
    torch.testing.assert_close(logs, logs.mean().expand(6), rtol=1e-6, atol=0)
    w = PAPER.weights(Karras(end="t_min").times(PAPER, 6, 0.25))
    powers = ((w.noise / w.clean) ** (1 / 7)).diff()
    torch.testing.assert_close(powers, powers.mean().expand(6), rtol=1e-6, atol=0)


def test_the_paper_s_start_keeps_the_25_steps_that_are_left():
    """t = 25 of 200: network steps 24 ... 0."""
    times = Trained().times(PAPER, 25, 25 / 200)
    assert PAPER.network_time(times[:-1]).round().tolist() == list(range(24, -1, -1))
    assert times[-1].item() == 0
    few = Trained().times(PAPER, 4, 25 / 200)
    assert PAPER.network_time(few[:-1]).round().tolist() == [24, 16, 8, 0]


def test_a_start_between_two_trained_steps_is_a_step_of_its_own():
    told = PAPER.network_time(Trained().times(PAPER, 4, 3.5 / 200)[:-1])
    torch.testing.assert_close(told, torch.tensor([2.5, 2, 1, 0], dtype=torch.float64), rtol=0, atol=1e-9)


def test_levels_keep_what_lies_below():
    """Aligned steps of the six levels: 0, 3.2, 13.4, 33.8, 74.0, 170.6 (counted from 0)."""
    told = PAPER.network_time(SIX.times(PAPER, 4, 25 / 200)[:-1]).tolist()
    assert told == pytest.approx([24, 13.430277, 3.200680, 0], abs=1e-5)
    whole = SIX.times(PAPER, 6)
    from_a_level = SIX.times(PAPER, 4, whole[2].item())
    assert from_a_level.tolist() == whole[2:].tolist()  # the start is that level, not one more


def test_listed_steps_keep_what_lies_below():
    grid = Steps((35, 15, 5))
    assert PAPER.network_time(grid.times(PAPER, 3, 20 / 200)[:-1]).tolist() == pytest.approx([19, 15, 5], abs=1e-9)
    assert grid.times(PAPER, 2, 16 / 200).tolist() == grid.times(PAPER, 3)[1:].tolist()  # step 15 is at 16/200


@pytest.mark.parametrize("name", GRIDS)
def test_the_whole_is_the_run_from_one(name):
    grid = GRIDS[name]()
    process = VP(num_steps=50, beta_max=0.05)
    if name == "levels":
        grid = Levels((1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5))
    if name == "steps":
        grid = Steps((49, 30, 20, 10, 5, 0))
    assert grid.times(process, 6, 1.0).tolist() == grid.times(process, 6).tolist()
    assert steps_from(grid, process, 6, 1.0) == 6


@pytest.mark.parametrize(
    ("grid", "num_steps", "start", "left"),
    [
        (Trained(), 200, 25 / 200, 25),
        (Trained(), 200, 1 / 200, 1),
        (Trained(), 20, 25 / 200, 4),  # of 20 over 0 ... 199, those below 24 are 21, 10 and 0
        (SIX, 6, 25 / 200, 4),
        (Uniform(), 20, 0.5, 11),
        (Uniform(), 1, 0.5, 1),
    ],
)
def test_by_default_a_run_has_the_steps_of_the_whole_that_are_left(grid, num_steps, start, left):
    assert steps_from(grid, PAPER, num_steps, start) == left
    assert len(grid.times(PAPER, left, start)) == left + 1


def test_one_step_leads_from_the_last_trained_step_to_the_data():
    for grid in (Uniform(), Trained(), LogSNR()):
        assert grid.times(PAPER, 1, 1 / 200).tolist() == [1 / 200, 0]


@pytest.mark.parametrize(
    ("grid", "num_steps", "start", "message"),
    [
        (Uniform(), 3, 0.0, "a run starts at a time from t_min = 0.005"),
        (Trained(), 3, 1.5, "to 1, got 1.5"),
        (SIX, 3, float("nan"), "got nan"),
        (Uniform(), 2, 1 / 200, "there is one step from t_min"),
        (Trained(), 26, 25 / 200, "1 to 25 steps, as many as were trained below t = 0.125, got 26"),
        (Steps((9, 6, 3)), 3, 5 / 200, "expected 2 steps, one per listed one below t = 0.025 and one more, got 3"),
        (SIX, 6, 25 / 200, "expected 4 steps, one per level below t = 0.125 and one more"),
    ],
)
def test_impossible_starts_are_errors(grid, num_steps, start, message):
    with pytest.raises(ValueError, match=message):
        grid.times(PAPER, num_steps, start)
