"""CDiffuSE's and DOSE's networks, through their importers, and CDiffuSE's spectrum, against the published codes
(neillu23/CDiffuSE at 3fb384b, ICDM-UESTC/DOSE at 840f634).

float64: 1e-9; float32: 2e-6, as the vectors' JSON says; the spectrum, which the published code makes from float32 waves
by librosa, 1e-4. Networks run twice: as convolutions (with gradients) and in tiles (without).
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fromnoise.backbones import tiled
from fromnoise.backbones.wavenet import WaveNet
from fromnoise.frontends import Spectrum
from fromnoise.importers import cdiffuse, dose
from fromnoise.importers.assemble import assemble
from fromnoise.importers.base import Asked, Clues
from fromnoise.tasks import TASKS
from fromnoise.types import Condition
from tests import published
from tests.rules import VECTORS, fill, filled

PARAMS = {"params": {"dilation_cycle_length": 2, "residual_channels": 8, "residual_layers": 4, "n_mels": 80}}
CASES = pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-9), (torch.float32, 2e-6)])


@pytest.fixture(params=["convolutions", "tiles"], autouse=True)
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The network's two forms; tiles of 128 samples, so that there are several, the last of them shorter."""
    monkeypatch.setattr(tiled, "TILE_VALUES", 1)
    with torch.set_grad_enabled(request.param == "convolutions"):
        yield request.param


def network(layout: str, shapes: published.Shapes, dtype: torch.dtype) -> WaveNet:
    draft = {"cdiffuse": cdiffuse.draft_cdiffuse, "dose": dose.draft}[layout]
    imported = assemble(layout, draft(filled(shapes), Clues(Path(), PARAMS)), Asked())
    model = TASKS[imported.task][1](imported.config).to(dtype).eval()
    model.load_state_dict({key: value.to(dtype) for key, value in imported.weights.items()})
    return model.denoiser.backbone


def arrays_of(name: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The vector's arrays; floats as of this dtype."""
    with np.load(VECTORS / f"{name}.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    return {key: a.to(dtype) if a.dtype == torch.float64 else a for key, a in arrays.items()}


def close(result: Tensor, expected: Tensor, limit: float) -> None:
    torch.testing.assert_close(result.detach().double(), expected.double(), rtol=0, atol=limit)


@CASES
def test_cdiffuse_equals_the_published_network(dtype: torch.dtype, limit: float) -> None:
    arrays, net = arrays_of("cdiffuse_net_forward", dtype), network("cdiffuse", published.cdiffuse(8, 4, 9), dtype)
    close(torch.from_numpy(0.3 * fill((2, 1024), 2001)), arrays["x"], 1e-7)
    x, steps, told = arrays["x"][:, None], arrays["t_int"].to(dtype), Condition(frames=arrays["spec"])
    close(net(x, steps, told), arrays[f"out_{'f64' if dtype == torch.float64 else 'f32'}"], limit)
    one, step = told.map(lambda part: part[:1]), torch.tensor([12.5767], dtype=dtype)
    close(net(x[:1], step, one), arrays["out_frac_f64"], limit)


def test_its_condition_and_step_embedding() -> None:
    arrays = arrays_of("cdiffuse_net_forward", torch.float64)
    net = network("cdiffuse", published.cdiffuse(8, 4, 9), torch.float64)
    assert net.upsampler is not None
    close(net.upsampler(arrays["spec"]), arrays["upsampled_f64"], 1e-9)
    close(net.embed(arrays["t_int"].double()), arrays["embedding_f64"], 1e-9)


@CASES
def test_dose_equals_the_published_network(dtype: torch.dtype, limit: float) -> None:
    arrays, net = arrays_of("dose_net_forward", dtype), network("dose", published.dose(8, 4), dtype)
    x, told = arrays["x"][:, None], Condition(signal=arrays["c"][:, None])
    out = net(x, arrays["t_int"].to(dtype), told)
    close(out, arrays[f"out_{'f64' if dtype == torch.float64 else 'f32'}"], limit)
    one, step = told.map(lambda part: part[:1]), torch.tensor([35.0], dtype=dtype)
    close(net(x[:1], step, one), arrays["out_float_step_f64"], limit)
    close(net(x, arrays["t_int"].to(dtype), one)[:1], out[:1], limit)  # one condition serves all items


@pytest.mark.parametrize(("padding", "key"), [("reflect", "spec_reflect_pad"), ("constant", "spec_zero_pad")])
def test_the_spectrum_equals_the_published_one(padding: str, key: str) -> None:
    arrays = arrays_of("cdiffuse_spectrum", torch.float32)
    frontend = Spectrum(padding=padding)
    spectrum = frontend.encode(arrays["wave"][None, None])
    assert spectrum.shape[1:] == tuple(arrays["shape"]) == frontend.shape(1, 5000)
    close(spectrum[0, ::4], arrays[key], 1e-4)
