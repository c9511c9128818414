"""Training steps and a whole run through the enhancement task, by the recipes' own settings: DR-DiffuSE's DDPM (three
modes), refiner and regression (judiebig/DR-DiffuSE at 842f9c0), and CDiffuSE (neillu23/CDiffuSE at 3fb384b).

Float64 to 1e-6 relative, the vectors' own: the published code rounds its cumulative products to float32.
"""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fromnoise.objectives import DiscreteTime, Draw, Objective
from fromnoise.recipes import RECIPES
from fromnoise.tasks import enhancement_model
from fromnoise.tasks.enhancement_model import EnhancementModel
from fromnoise.types import Condition
from tests import published
from tests.oracles.test_cdiffuse_net import network as cdiffuse_network
from tests.rules import VECTORS, bins_first, fill, fill_parameters

FRAMES = torch.tensor([10, 7])
LENGTHS = (FRAMES - 1) * 160
MODES = {
    "diffusec_noisy": "drdiffuse/vctk_demand_concat",
    "diffusec_cgen": "drdiffuse/vctk_demand_concat_gen",
    "diffuse_cgen": "drdiffuse/vctk_demand_dual",
}


class GivenDraws(Objective):
    """An objective whose times and noise are given."""

    def given(self, u: Tensor, z: Tensor) -> "GivenDraws":
        object.__setattr__(self, "chance", {"u": u, "z": z})
        return self

    def draw(self, process, prediction, x0, y=None, generator=None, **_) -> Draw:  # pyright: ignore
        return super().draw(process, prediction, x0, y, **self.chance)  # pyright: ignore


class GivenNoise:
    """Draw j = fill(shape, seed + j), frames before bins."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, like: Tensor) -> Tensor:
        b, c, f, t = like.shape
        self.seed += 1
        return bins_first(fill((b, c, t, f), self.seed - 1)).to(like)


class Formula(nn.Module):
    """eps = 0.5 x + 0.25 tanh(c) + 0.1 sin(0.05 step)."""

    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        assert condition.signal is not None
        return 0.5 * x + 0.25 * torch.tanh(condition.signal) + 0.1 * torch.sin(0.05 * t)[:, None, None, None]


def arrays_of(name: str) -> dict[str, np.ndarray]:
    with np.load(VECTORS / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def model_of(recipe: str, dtype: torch.dtype = torch.float64) -> EnhancementModel:
    model = EnhancementModel(RECIPES[recipe].model_config()).to(dtype)
    fill_parameters(model.denoiser.backbone)
    for network, offset in ((model.generator, 1000), (model.refiner, 2000)):
        if network is not None:
            fill_parameters(network, offset)
    return model


def compressed(model: EnhancementModel, spectrum: np.ndarray) -> Tensor:
    """`b 2 f t` of the vectors' `b 2 t f`."""
    complex_ = torch.view_as_complex(torch.from_numpy(spectrum).movedim(1, -1).contiguous())
    return torch.view_as_real(model.frontend.compress(complex_)).movedim(-1, 1).transpose(2, 3)


def with_features(model: EnhancementModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vectors begin at the spectra."""
    pair = tuple(compressed(model, 1.5 * fill((2, 2, 10, 161), seed)) for seed in (81, 80))
    monkeypatch.setattr(model, "encode_pair", lambda clean, noisy, length: pair)


def gradient_norm(module: nn.Module) -> float:
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    return float(torch.stack([g.square().sum() for g in gradients]).sum().sqrt())


@pytest.mark.parametrize("mode", MODES)
def test_a_step_of_the_ddpm(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays, model = arrays_of("drdiffuse_training_steps"), model_of(MODES[mode]).train()
    with_features(model, monkeypatch)
    u = (torch.tensor([5.0, 120.0], dtype=torch.float64) + 0.5) / 200
    objective = GivenDraws(DiscreteTime()).given(u, bins_first(fill((2, 2, 10, 161), 82)))
    silent = torch.zeros(2, 1, 1440, dtype=torch.float64)
    loss = model.loss(silent, silent, objective, length=LENGTHS).mean()
    loss.backward()
    np.testing.assert_allclose(loss.item(), arrays[f"{mode}_loss"], rtol=1e-6)
    np.testing.assert_allclose(gradient_norm(model.denoiser), arrays[f"{mode}_gradnorm"], rtol=1e-6)
    parameters = dict(model.denoiser.backbone.named_parameters())
    gradient = parameters["preprocess.conv.weight"].grad
    np.testing.assert_allclose(gradient, arrays[f"{mode}_grad_preprocess"], rtol=1e-5, atol=1e-8)
    idle = sum(parameter.grad is None for parameter in parameters.values())
    assert idle == int(arrays[f"{mode}_n_without_grad"])
    if model.generator is not None:
        assert all(parameter.grad is None for parameter in model.generator.parameters())


def test_a_step_of_the_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays, recipe = arrays_of("drdiffuse_training_steps"), RECIPES["drdiffuse/vctk_demand_base"]
    model = model_of(recipe.name).train()
    with_features(model, monkeypatch)
    silent = torch.zeros(2, 1, 1440, dtype=torch.float64)
    loss = model.loss(silent, silent, recipe.objective(), recipe.loss, length=LENGTHS).mean()
    loss.backward()
    np.testing.assert_allclose(loss.item() + 1e-7, arrays["base_loss"], rtol=1e-6)
    np.testing.assert_allclose(gradient_norm(model.denoiser), arrays["base_gradnorm"], rtol=1e-6)


def test_a_step_of_the_refiner(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays, recipe = arrays_of("drdiffuse_training_steps"), RECIPES["drdiffuse/vctk_demand_refiner"]
    model = model_of(recipe.name).train()
    with_features(model, monkeypatch)
    model.denoiser.backbone = Formula()
    monkeypatch.setattr(enhancement_model, "PositionNoise", lambda seeds: GivenNoise(90))
    silent = torch.zeros(2, 1, 1440, dtype=torch.float64)
    loss = model.refinement_loss(silent, silent, recipe.loss, [0, 1], length=LENGTHS).mean()
    loss.backward()
    assert model.refiner is not None
    np.testing.assert_allclose(loss.item() + 1e-7, arrays["refiner_loss"], rtol=1e-6)
    np.testing.assert_allclose(gradient_norm(model.refiner), arrays["refiner_gradnorm"], rtol=1e-6)


def test_six_guided_refined_steps_of_the_real_networks() -> None:
    """Float32, to 1e-3 of values of order 1 as the vector says: rounding grows over eight networks in a row."""
    arrays, states = arrays_of("drdiffuse_fast_sampling_net"), []
    model = model_of("drdiffuse/vctk_demand_refiner", torch.float32).eval()
    y = compressed(model, 1.5 * fill((1, 2, 8, 161), 60)).float()
    torch.testing.assert_close(y, bins_first(arrays["y"]), rtol=0, atol=1e-5)
    with torch.no_grad():
        condition = model.given(y).estimate
        final = model.restore(y, GivenNoise(70), model.default_run(), lambda i, n, x: states.append(x))
    torch.testing.assert_close(condition, bins_first(arrays["condition"]), rtol=0, atol=1e-4)
    for state, expected in zip(states[:-1], arrays["states"][1:], strict=True):
        torch.testing.assert_close(state, bins_first(expected), rtol=0, atol=1e-3)
    torch.testing.assert_close(final, bins_first(arrays["final"]), rtol=0, atol=1e-3)


def test_a_step_of_cdiffuse() -> None:
    """Loss to 1e-4 and gradient norm to 1e-4 relative, as the vector's JSON explains: the published variance is a
    difference of float32 products."""
    arrays, given = arrays_of("cdiffuse_training_step"), arrays_of("cdiffuse_net_forward")
    recipe = RECIPES["cdiffuse/base"]
    small = dataclasses.replace(recipe.backbone, residual_channels=8, skip_channels=8, num_layers=4)
    small = dataclasses.replace(small, dilation_cycle=2, mel_bands=9)
    config = dataclasses.replace(recipe, backbone=small).model_config()
    model = EnhancementModel(config).double().train()
    weights = cdiffuse_network("cdiffuse", published.cdiffuse(8, 4, 9), torch.float64).state_dict()
    model.denoiser.backbone.load_state_dict(weights)
    model.spectrum = SimpleNamespace(encode=lambda wave, peak: torch.from_numpy(given["spec"]))
    noise, clean, noisy = (torch.from_numpy(k * fill((2, 1, 1024), 2030 + i)) for i, k in enumerate((1, 0.2, 0.3)))
    u = (torch.tensor([3.0, 44.0], dtype=torch.float64) + 0.5) / 50
    loss = model.loss(clean, noisy, GivenDraws(DiscreteTime(), norm="l1").given(u, noise)).mean()
    loss.backward()
    np.testing.assert_allclose(loss.item(), arrays["loss"], atol=1e-4)
    np.testing.assert_allclose(gradient_norm(model.denoiser), arrays["gradnorm"], rtol=1e-4)
