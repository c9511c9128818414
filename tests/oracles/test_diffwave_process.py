"""DiffWave's process, its short schedules and its reverse chains against the published codes' numbers.

Schedules: rtol 1e-5, deviations atol 2e-6; chains in float32: atol 2e-4 (lmnt) and 5e-4 (philsyn), the loss rtol 1e-4,
as the vectors' JSON says. The networks are built from the published names by the vectors' filling rule, and read by
the importers.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fromnoise.importers import Asked, Imported, import_checkpoints
from fromnoise.importers.base import Schedule
from fromnoise.objectives import DiscreteTime, Objective
from fromnoise.processes import VP
from fromnoise.samplers import DDPM, Levels, PositionNoise, Trained
from fromnoise.tasks import TASKS
from tests import published
from tests.rules import VECTORS

SCHEDULES = {"T20_0.05": VP(1e-4, 0.05, 20), "T40_0.05": VP(1e-4, 0.05, 40), "T50_0.05": VP(1e-4, 0.05, 50)}
SCHEDULES |= {"T200_0.02": VP(1e-4, 0.02, 200)}
FULL = 12  # steps of the philsyn chain
START = 5  # 0-based step at which its shortened chain begins


def arrays_of(name: str) -> dict[str, Tensor]:
    with np.load(VECTORS / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def facts_of(name: str) -> dict:
    return json.loads((VECTORS / f"{name}.json").read_text())


class Stored(PositionNoise):
    """Given draws, in order."""

    def __init__(self, draws: Tensor) -> None:
        super().__init__(range(draws.shape[1]))
        self.given = iter(draws)

    def __call__(self, like: Tensor) -> Tensor:
        return next(self.given).to(like).reshape(like.shape)


# -- schedules ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name):
    arrays, process = arrays_of("diffusion_process"), SCHEDULES[name]
    near = {"rtol": 1e-5, "atol": 0.0, "check_dtype": False}
    torch.testing.assert_close(torch.from_numpy(process.schedule), arrays[f"{name}_Beta"], **near)
    weights = process.weights(process.trained_times())
    torch.testing.assert_close(weights.clean**2, arrays[f"{name}_Alpha_bar"], **near)
    torch.testing.assert_close(weights.noise**2, 1 - torch.from_numpy(process.abar), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_fresh_noise_of_each_step(name):
    """The first entry stands for no step: the last step adds none."""
    sigma, process = arrays_of("diffusion_process")[f"{name}_Sigma"], SCHEDULES[name]
    t = process.trained_times()
    fresh = DDPM().fresh(process, t, t - 1 / len(t))
    torch.testing.assert_close(fresh[1:].float(), sigma[1:], rtol=1e-5, atol=2e-6)
    assert float(fresh[0]) == pytest.approx(0, abs=1e-12)


def test_levels_stated_for_denoising_and_interpolation():
    """Steps 25 and 50 of 200, counted from 1."""
    weights = SCHEDULES["T200_0.02"].weights(torch.tensor([25 / 200, 50 / 200], dtype=torch.float64))
    assert weights.clean.tolist() == pytest.approx([0.983868, 0.938139], abs=1e-6)
    assert weights.noise.tolist() == pytest.approx([0.178898, 0.346260], abs=1e-6)


# -- short schedules ----------------------------------------------------------------------------------------------


def aligned_cases() -> list[tuple[str, tuple[float, ...], list[float]]]:
    cases = facts_of("diffusion_process")["aligned"]
    return [
        (key.split("|")[0], tuple(map(float, key.split("|")[1].split(","))), places) for key, places in cases.items()
    ]


@pytest.mark.parametrize(("name", "betas", "places"), aligned_cases())
def test_levels_lie_on_the_published_fractional_steps(name, betas, places):
    """Where the published code finds no place, which is above the trained range, the levels are refused."""
    process = SCHEDULES[name]
    outside = sum(np.isnan(place) for place in places)
    if outside:
        with pytest.raises(
            ValueError, match=r"expected levels within the trained range 0\.6\S+ to 0\.9999, got \[0\.3"
        ):
            Levels(betas).times(process, len(betas))
        betas, places = betas[:-outside], places[:-outside]
    times = Levels(betas).times(process, len(betas))
    assert times[-1] == 0
    steps = process.network_time(times[:-1]).flip(0)
    np.testing.assert_allclose(steps.numpy(), places, rtol=0, atol=1e-6)


def test_the_training_schedule_as_a_short_one_is_the_full_chain():
    process = SCHEDULES["T50_0.05"]
    times = Levels(tuple(process.schedule.tolist())).times(process, 50)
    torch.testing.assert_close(times, Trained().times(process, 50), rtol=0, atol=1e-9)


# -- reverse chains -----------------------------------------------------------------------------------------------


def imported(name: str, shapes: published.Shapes, wrapper: str, folder: Path, asked: Asked, **rest: object) -> Imported:
    """The vector's network through a checkpoint file of its layout."""
    listed = {key: tuple(shape) for key, shape in facts_of(name)["parameters"]}
    assert shapes == listed
    state = {key: torch.from_numpy(value) for key, value in published.rule(shapes)}
    torch.save({wrapper: state, **rest}, folder / "1000.pkl")
    return import_checkpoints([folder / "1000.pkl"], asked=asked)


def model_of(found: Imported, dtype: torch.dtype) -> torch.nn.Module:
    model = TASKS[found.task][1](found.config).to(dtype).eval()
    model.load_state_dict({key: value.to(dtype) for key, value in found.weights.items()})
    return model


@pytest.mark.parametrize(("dtype", "key", "atol"), [("float32", "audio_f32", 2e-4), ("float64", "audio_f64_net", 1e-5)])
def test_lmnt_six_steps_with_clamp(tmp_path, dtype, key, atol):
    """float64: 1e-5, because its noise was stored in float32."""
    arrays, facts = arrays_of("reverse_lmnt_fast"), facts_of("reverse_lmnt_fast")["config"]
    params = {"noise_schedule": facts["noise_schedule"], "dilation_cycle_length": 3, "n_mels": 6, "hop_samples": 256}
    asked = Asked(betas=tuple(facts["inference_noise_schedule"]))
    found = imported("reverse_lmnt_fast", published.lmnt(8, 5, 6), "model", tmp_path, asked, params=params)
    assert found.task == "vocode"
    assert found.config.clamp
    model = model_of(found, getattr(torch, dtype))
    run = model.default_run()
    steps = model.process.network_time(run.grid.times(model.process, 6)[:-1])
    torch.testing.assert_close(steps.float(), arrays["aligned_steps"], rtol=1e-5, atol=1e-5)
    states = []
    with torch.inference_mode():
        mel = arrays["mel"].to(getattr(torch, dtype))
        wave = model.sample(mel, Stored(arrays["noise"][:, None]), run, lambda i, n, x: states.append(x))
    torch.testing.assert_close(wave[0], arrays[key], rtol=0, atol=atol)
    assert len(states) == 6
    assert all(float(x.abs().max()) <= 1 for x in states)
    assert float(states[0].abs().max()) == 1  # the clamp was needed


@pytest.fixture
def philsyn(tmp_path):
    """The function `residual_includes_step` -> model."""
    shapes = published.philsyn(8, 8, 6, embed=(128, 64, 48))

    def build(includes: bool) -> torch.nn.Module:
        settings = {"dilation_cycle": 4, "residual_includes_step": includes}
        asked = Asked(settings, schedule=Schedule(FULL, 0.05))
        found = imported("reverse_philsyn_full", shapes, "model_state_dict", tmp_path, asked)
        assert found.task == "generate"
        return model_of(found, torch.float32)

    return build


@pytest.mark.parametrize(("includes", "key"), [(True, "out_inplace_f32"), (False, "out_fixed_f32")])
def test_philsyn_full_chain(philsyn, includes, key):
    arrays, model = arrays_of("reverse_philsyn_full"), philsyn(includes)
    noise = Stored(arrays["noise"])
    none = torch.full((2,), -1)
    with torch.inference_mode():
        wave = model.sample(model.prior(noise, 2, 600), none, noise, model.default_run())
    torch.testing.assert_close(wave, arrays[key], rtol=0, atol=5e-4)


def test_philsyn_chain_started_midway(philsyn):
    """The recording is taken for the state at step 6 of 12, as it is; the draw after step n is the stored n-th."""
    arrays = arrays_of("reverse_philsyn_full")
    start = (START + 1) / FULL
    draws = arrays["noise"][1 : START + 1].flip(0)
    model = philsyn(True)
    run = model.run_from(start)
    assert run.num_steps == START + 1
    with torch.inference_mode():
        wave = model.sample(arrays["audio0"], torch.full((2,), -1), Stored(draws), run, start=start)
    torch.testing.assert_close(wave, arrays["partial_f32"], rtol=0, atol=5e-4)


def test_philsyn_constants_and_loss(philsyn):
    arrays, process = arrays_of("reverse_philsyn_full"), VP(1e-4, 0.05, FULL)
    torch.testing.assert_close(torch.from_numpy(1 - process.schedule).float(), arrays["alpha"], rtol=1e-5, atol=0)
    torch.testing.assert_close(torch.from_numpy(process.abar).float(), arrays["alpha_bar"], rtol=1e-5, atol=0)
    t = process.trained_times()
    fresh = DDPM().fresh(process, t, t - 1 / FULL)
    torch.testing.assert_close(fresh[1:].float(), arrays["sigma"][1:], rtol=1e-5, atol=2e-6)

    x0, noise = arrays["audio0"], arrays["noise"][0]
    u = (arrays["loss_steps"] + 0.5) / FULL
    objective = Objective(DiscreteTime())
    model = philsyn(True)
    draw = objective.draw(model.process, model.denoiser.prediction, x0, None, None, u.double(), noise)
    with torch.inference_mode():
        losses = objective.losses(model.denoiser, x0, None, model.condition(torch.full((2,), -1)), draw)
    assert float(losses.mean()) == pytest.approx(float(arrays["loss_f32"]), rel=1e-4)
