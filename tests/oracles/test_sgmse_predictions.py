"""SGMSE+'s preconditionings and training losses (sp-uhh/sgmse at ae690e8), against arrays of its code.

Its arrays are complex, with unit noise of variance 1/2 per component. Here re and im are channels, so that the
process's sigmas are divided by sqrt(2) (c and eps by 2), `noise_unit` brings sigma back to the published one, and a
published score is half of the real one. Sums over complex bins become means over 2 F T numbers.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fromnoise.denoiser import Denoiser
from fromnoise.frontends import STFT
from fromnoise.objectives import SNR, Objective, UniformTime, Unit, Variance
from fromnoise.predictions import SGMSE
from fromnoise.processes import OUVE, Bridge
from fromnoise.tasks.losses import SpectralLoss
from fromnoise.types import Condition, expand

# The bridge's std is sigma sigma_bar/(sigma_T + eps), where eps = 1e-8 does not scale with c: 3e-9 of the noise.
EPS = {"rtol": 1e-8, "atol": 2e-9}
VECTORS = Path(__file__).parents[1] / "vectors"
ROOT = math.sqrt(2)
NAME = "sgmse_v2_preconditioning_losses"


class Toy(nn.Module):
    """F(x, y, t) of the vectors; 0.1 t is real."""

    def forward(self, x, t, condition):
        real = torch.tensor([1.0, 0.0], dtype=x.dtype)[:, None, None]
        return 0.5 * x - 0.2 * condition.signal + 0.1 * expand(t, x) * real


class Vector:
    def __init__(self):
        self.facts = json.loads((VECTORS / f"{NAME}.json").read_text())
        self.arrays = np.load(VECTORS / f"{NAME}.npz")
        self.x, self.y, self.t = (self[f"in_{key}"] for key in "xyt")
        config = self.facts["config"]
        ou, sb = config["sde_score"], config["sde_sb"]
        self.ouve = OUVE(ou["theta"], ou["sigma_min"] / ROOT, ou["sigma_max"] / ROOT)
        self.bridge = Bridge(sb["k"], sb["c"] / 2, sb["eps"] / 2)

    def __getitem__(self, key):
        """Complex arrays `b 1 f t` as real ones `b 2 f t`."""
        array = torch.as_tensor(self.arrays[key])
        return torch.cat([array.real, array.imag], 1) if array.is_complex() else array

    def check(self, actual, key, **tolerance):
        torch.testing.assert_close(actual, self[key], **(self.facts["tolerance"]["float64"] | tolerance))

    def noise(self):
        """Upstream's first draw, as unit noise per component."""
        rule = self.facts["noise"]
        k = torch.arange(self.x.numel() // 2, dtype=torch.float64)
        shape = (2, 1, *self.x.shape[2:])
        parts = [torch.sin(rule[b] * k + rule[d]).reshape(shape) for b, d in (("b", "d"), ("b2", "d2"))]
        return ROOT * torch.cat(parts, 1)

    def setting(self, process, **fields):
        """The denoiser, the drawn state with t = in_t, and the number of bins of an item."""
        prediction = SGMSE(**fields, noise_unit=ROOT, sigma_data=self.facts["config"]["sigma_data"])
        denoiser = Denoiser(Toy(), process, prediction)
        draw = lambda weighting: Objective(UniformTime(0.0), weighting).draw(  # noqa: E731
            process, prediction, self.x, self.y, u=self.t, z=self.noise()
        )
        return denoiser, draw


@pytest.fixture
def vector():
    return Vector()


def bins(vector):
    return vector.x[0, 0].numel()


def score_of(denoiser, x_t, t, y):
    """The published score, -z/sigma with complex z, from the estimate of x0."""
    told = Condition(signal=y)
    z = denoiser.process.implied_noise(x_t, denoiser(x_t, t, y, told), t, y)
    return -z / expand(denoiser.process.weights(t).noise, z) / 2


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("sm", {}),
        ("sm_1sigma", {"network_scaling": "1/sigma"}),
        ("sm_1t", {"network_scaling": "1/t"}),
        ("sm_csigma", {"c_out": "1/sigma"}),
    ],
)
def test_score_matching(vector, name, fields):
    assert vector.facts["config"]["variants"][name] == fields | {"sde": "OUVESDE"}
    denoiser, draw = vector.setting(vector.ouve, reads="score", **fields)
    drawn = draw(SNR())
    vector.check(drawn.x_t, "x_t_ouve")
    vector.check(score_of(denoiser, drawn.x_t, drawn.t, vector.y), f"{name}_forward")
    told = Condition(signal=vector.y)
    loss = Objective(UniformTime(0.0), SNR()).loss(denoiser, vector.x, vector.y, told, draw=drawn)
    # 0.5 sum |score sigma + z|^2 over bins = 0.5 (2 F T mean of squares) / 2, complex noise being 1/sqrt(2) of ours
    vector.check(loss * bins(vector) / 2, f"{name}_loss")


@pytest.mark.parametrize(("name", "weighting", "unit"), [("den_1", Unit(), 1.0), ("den_s2", Variance(), 2.0)])
def test_mean_prediction(vector, name, weighting, unit):
    """`denoiser` compares F with the mean of x_t; sigma^2 is twice the variance of a component."""
    denoiser, draw = vector.setting(vector.ouve, reads="mean")
    drawn = draw(weighting)
    vector.check(score_of(denoiser, drawn.x_t, drawn.t, vector.y), f"{name}_forward")
    told = Condition(signal=vector.y)
    loss = Objective(UniformTime(0.0), weighting).loss(denoiser, vector.x, vector.y, told, draw=drawn)
    vector.check(loss * bins(vector) * unit, f"{name}_loss")


@pytest.mark.parametrize(("name", "fields"), [("dp", {}), ("dp_edm", {"c_in": "edm", "c_out": "edm", "c_skip": "edm"})])
def test_data_prediction(vector, name, fields):
    """The bridge's loss: 0.5/(F T) sum |x0' - x0|^2 + l1_weight 0.5/L sum |wave' - wave|."""
    config = vector.facts["config"]
    denoiser, draw = vector.setting(vector.bridge, reads="clean", **fields)
    drawn = draw(Unit())
    estimate = denoiser(drawn.x_t, drawn.t, vector.y, Condition(signal=vector.y))
    vector.check(estimate, f"{name}_forward", **EPS)
    spectral = SpectralLoss(magnitude=0.0, wave=0.5 * config["l1_weight"])
    stft = STFT(
        n_fft=config["n_fft"],
        hop=config["hop_length"],
        factor=config["spec_factor"],
        exponent=config["spec_abs_exponent"],
    )
    n = (config["num_frames"] - 1) * config["hop_length"]
    waves = (stft.decode(value, n) for value in (estimate, vector.x))
    loss = spectral(estimate, vector.x) + spectral.wave * (next(waves) - next(waves)).abs().mean((1, 2))
    vector.check(loss.mean(), f"{name}_loss", **EPS)


@pytest.mark.parametrize(("field", "value"), [("reads", "noise"), ("c_in", "2"), ("sigma_data", 0.0)])
def test_unknown_settings_are_errors(field, value):
    with pytest.raises((ValueError, TypeError), match=field):  # TypeError from the type checker of the tests
        SGMSE(**{field: value})
