"""Laws of every time grid, over every process."""

import math

import pytest
import torch

from fromnoise.processes import OUVE, VE, VP, Bridge, Flow, Interpolating, VPAngular
from fromnoise.samplers import GRIDS, Karras, Levels, Log, LogSNR, Quadratic, Steps, Trained, Uniform
from fromnoise.types import build, spec

ENDS = [
    *(part() for part in GRIDS.values()),
    *(part(end="t_min") for part in (Uniform, Quadratic, Log, Karras, LogSNR)),
]


@pytest.mark.parametrize("num_steps", [1, 2, 6, 25])
@pytest.mark.parametrize("grid", ENDS, ids=str)
def test_times_decrease_from_one_to_the_end(grid, process, num_steps):
    try:
        times = grid.times(process, num_steps)
    except ValueError as error:
        # discrete steps, a list of levels or a logarithm that this process does not have: said in one sentence
        assert "expected" in str(error) or "no log-SNR" in str(error)
        assert isinstance(grid, Trained | Levels | Steps | Karras | Log | LogSNR)
        return
    assert times.dtype == torch.float64
    assert len(times) == num_steps + 1
    assert bool((times.diff() < 0).all())
    assert times[-1].item() == (0.0 if getattr(grid, "end", "data") == "data" else process.t_min)
    if grid.length is None:
        assert times[0].item() == 1.0
        assert num_steps == 1 or times[-2].item() >= process.t_min


@pytest.mark.parametrize("part", [Uniform, Quadratic, Karras, LogSNR])
@pytest.mark.parametrize(
    "process", [VP(), VPAngular(), VE(), OUVE(), Bridge(), Flow(), Interpolating()], ids=lambda p: type(p).__name__
)
def test_spaced_grids_serve_every_process(part, process):
    assert len(part().times(process, 5)) == 6


def test_uniform_grid_is_that_of_sgmse():
    """linspace(1, t_eps, N), the last step going on by t_eps; and for the bridge linspace(1, t_eps, N + 1)."""
    times = Uniform().times(OUVE(), 30)
    expected = torch.cat([torch.linspace(1, 0.03, 30, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
    torch.testing.assert_close(times, expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(
        Uniform(end="t_min").times(Bridge(), 50), torch.linspace(1, 1e-4, 51, dtype=torch.float64), rtol=0, atol=1e-15
    )


def test_one_step_goes_from_start_to_data():
    assert Uniform().times(Flow("observation", 0.0), 1).tolist() == [1.0, 0.0]
    assert Uniform().times(OUVE(), 1).tolist() == [1.0, 0.0]


def test_quadratic_grid_is_even_in_the_root():
    roots = Quadratic(end="t_min").times(OUVE(), 7).sqrt()
    torch.testing.assert_close(roots.diff(), roots.diff().mean().expand(7), rtol=1e-12, atol=0)


def test_karras_grid_has_the_levels_of_the_paper():
    """Karras et al., Eq. 5, with sigma_N = 0."""
    process, n = VE(sigma_min=0.002, sigma_max=80.0, t_min=1e-9), 18
    i = torch.arange(n, dtype=torch.float64)
    high, low = 80 ** (1 / 7), 0.002 ** (1 / 7)
    levels = (high + i / (n - 1) * (low - high)) ** 7
    noise = process.weights(Karras().times(process, n)).noise
    torch.testing.assert_close(noise[:-1], levels, rtol=1e-7, atol=0)  # t_min is a little above sigma_min
    assert noise[-1].item() == 0.0


def test_log_grid_is_even_in_the_logarithm_of_time():
    """DiffSep: logspace(0, log10(t_min), N + 1)."""
    expected = torch.logspace(0, math.log10(0.03), 9, dtype=torch.float64)
    torch.testing.assert_close(Log(end="t_min").times(OUVE(), 8), expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("process", [VP(), VE(), OUVE(), Bridge()], ids=lambda p: type(p).__name__)
def test_log_snr_grid_is_even_in_the_log_snr(process):
    w = process.weights(LogSNR(end="t_min").times(process, 9))
    steps = (w.clean / w.noise).log().diff()
    torch.testing.assert_close(steps, steps.mean().expand(9), rtol=1e-6, atol=0)


def test_all_trained_steps_are_the_steps_in_reverse():
    process = VP(num_steps=50)
    assert Trained().times(process, 50)[:-1].tolist() == process.trained_times().flip(0).tolist()
    assert process.network_time(Trained().times(process, 3)[:-1]).round().tolist() == [49, 24, 0]


def test_listed_steps_are_counted_from_zero():
    process = VP(beta_max=0.035, num_steps=50)
    times = Steps((40, 15, 0)).times(process, 3)
    assert process.network_time(times[:-1]).tolist() == pytest.approx([40, 15, 0], abs=1e-12)
    assert times[-1].item() == 0


@pytest.mark.parametrize("steps", [(), (15, 35), (3, 3)])
def test_listed_steps_must_decrease(steps):
    with pytest.raises(ValueError, match="expected decreasing steps"):
        Steps(steps)


def test_only_lists_have_a_length_of_their_own():
    assert (Levels().length, Steps().length) == (6, 2)
    assert {grid.length for grid in ENDS if not isinstance(grid, Levels | Steps)} == {None}


@pytest.mark.parametrize("end", ["data", "t_min"])
@pytest.mark.parametrize("part", [Karras, LogSNR])
def test_levels_count_the_observation_as_noise_where_it_takes_its_place(part, end):
    """Interpolating shares the chain of VP, so the grids by noise level are the same, x_t's clean weight 0 or not."""
    times = part(end=end).times(Interpolating(), 6)
    torch.testing.assert_close(times, part(end=end).times(VP(beta_max=0.035, num_steps=50), 6), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("grid", "process", "num_steps", "message"),
    [
        (Uniform(), VP(), 0, "at least one step"),
        (Trained(), VP(num_steps=10), 11, "1 to 10 steps"),
        (Trained(), OUVE(), 5, "discrete steps"),
        (Levels((0.1, 0.2)), VP(), 3, "expected 2 steps"),
        (Levels((1e-9, 0.2)), VP(), 2, "trained range"),
        (Levels((1e-4, 0.7)), Interpolating(), 2, r"range 0.411466 to 0.9999, got \[0.29997"),
        (Steps((50, 3)), VP(num_steps=50), 2, r"steps from 0 to 49, as trained, got \[50\]"),
        (Steps((3, -1)), VP(num_steps=50), 2, r"got \[-1\]"),
        (Steps((35, 15)), VP(num_steps=50), 3, "expected 2 steps, one per listed one"),
        (Steps(), OUVE(), 2, "discrete steps"),
        (Karras(), Flow("observation", 0.0), 5, "no log-SNR"),
        (Log(), Flow(), 5, "t_min is above 0"),
    ],
)
def test_impossible_grids_are_errors(grid, process, num_steps, message):
    with pytest.raises(ValueError, match=message):
        grid.times(process, num_steps)


def test_unknown_end_is_an_error():
    with pytest.raises((ValueError, TypeError), match="t_min"):  # TypeError from the type checker of the tests
        Uniform(end="zero")


@pytest.mark.parametrize("name", GRIDS)
def test_spec_names_the_object_again(name):
    assert build("grid", GRIDS, spec(GRIDS, GRIDS[name]())) == GRIDS[name]()
