"""The release's sampler with a closed-form network: plain, guided, refined, 200 steps (judiebig/DR-DiffuSE at 842f9c0).

Tolerance 1e-6, the vectors' own: the published code passes two factors through float32.
"""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fromnoise.samplers import PositionNoise
from fromnoise.tasks.enhancement import EnhancementConfig, EnhancementModel
from fromnoise.types import Condition
from tests.rules import VECTORS, bins_first, fill


class Formula(nn.Module):
    """eps = 0.5 x + 0.25 tanh(c) + 0.1 sin(0.05 step), noting what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[np.ndarray] = []
        self.steps: list[np.ndarray] = []

    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        assert condition.signal is not None
        self.states.append(x.transpose(2, 3).numpy())
        self.steps.append(t.numpy())
        return 0.5 * x + 0.25 * torch.tanh(condition.signal) + 0.1 * torch.sin(0.05 * t)[:, None, None, None]


class Regression(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return self.function(x)  # pyright: ignore


class GivenNoise(PositionNoise):
    """Draw j = fill(shape, 40 + j)."""

    def __init__(self) -> None:
        super().__init__([0])

    def __call__(self, like: Tensor) -> Tensor:
        b, c, f, t = like.shape
        self.draws += 1
        return bins_first(fill((b, c, t, f), 40 + self.draws - 1))


def run(
    guidance: float, generated: bool, refined: bool, full: bool, shape: tuple[int, ...]
) -> tuple[Formula, Tensor, GivenNoise]:
    config = EnhancementConfig(
        process={"name": "vp", "beta_min": 1e-4, "beta_max": 0.05, "num_steps": 200},
        prediction={"name": "noise"},
        sampler={"name": "ddpm"},
        grid={"name": "trained" if full else "levels"},
        num_steps=200 if full else 6,
        start="condition",
        guidance=guidance,
    )
    model, network, noise = EnhancementModel(config), Formula(), GivenNoise()
    model.denoiser.backbone = network
    model.generator = Regression(lambda x: 0.8 * x) if generated else None
    model.refiner = Regression(torch.tanh) if refined else None
    spectrum = torch.view_as_complex(torch.from_numpy(1.5 * fill(shape, 30)).movedim(1, -1).contiguous())
    y = torch.view_as_real(model.frontend.compress(spectrum)).movedim(-1, 1).transpose(2, 3)
    return network, model.restore(y, noise, model.default_run()).transpose(2, 3), noise


@pytest.mark.parametrize(
    ("variant", "guidance", "generated", "refined"),
    [
        ("plain", 0.0, True, False),
        ("guided", 0.5, True, False),
        ("guided_refined", 0.5, True, True),
        ("noisycond", 0.0, False, False),
    ],
)
def test_six_steps(variant: str, guidance: float, generated: bool, refined: bool) -> None:
    arrays = np.load(VECTORS / "drdiffuse_sampling_analytic.npz")
    network, final, noise = run(guidance, generated, refined, False, (2, 2, 4, 5))
    np.testing.assert_allclose(np.stack(network.steps), arrays[f"{variant}_t"], rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(np.stack(network.states), arrays[f"{variant}_states"], atol=1e-6)
    np.testing.assert_allclose(final.numpy(), arrays[f"{variant}_final"], atol=2e-6)
    assert noise.draws >= int(arrays[f"{variant}_ndraws"])


def test_all_trained_steps_guided() -> None:
    arrays = np.load(VECTORS / "drdiffuse_sampling_analytic.npz")
    network, final, _ = run(0.5, True, False, True, (1, 2, 3, 5))
    np.testing.assert_allclose(np.stack(network.states[:3]), arrays["full_guided_states_first3"], atol=1e-6)
    np.testing.assert_allclose(final.numpy(), arrays["full_guided_final"], atol=1e-6)
