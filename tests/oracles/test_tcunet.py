"""DR-DiffuSE's three networks at full size against outputs of the published code (judiebig/DR-DiffuSE at 842f9c0).

float64: 1e-10 (the two programs add the same terms in another order; seen 2e-14). float32: 1e-5 relative to outputs of
order 1 (24-bit sums over up to 1024 terms and about 60 layers; seen below 3e-6).
"""

import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from fromnoise.backbones.tcunet import Base, Conditional, TCUNetConfig, step_table
from fromnoise.denoiser import Denoiser
from fromnoise.predictions import Noise
from fromnoise.processes import VP
from fromnoise.types import Condition
from tests.rules import VECTORS, bins_first, fill, fill_parameters

SHAPE = (2, 2, 16, 161)
FILES = {"concat": "drdiffuse_diffusec_forward", "dual": "drdiffuse_diffuse_forward"}


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def base(dtype: torch.dtype) -> Base:
    return fill_parameters(TCUNetConfig().build().to(dtype)).eval()


def x(seed: int, dtype: torch.dtype) -> torch.Tensor:
    return bins_first(0.7 * fill(SHAPE, seed)).to(dtype)


def max_error(result: torch.Tensor, expected: np.ndarray) -> float:
    return float((result.double() - bins_first(expected.astype(np.float64))).abs().max())


def assert_statistics(arrays: np.lib.npyio.NpzFile, prefix: str, features: list[torch.Tensor]) -> None:
    """Mean and population standard deviation of every level."""
    for i, level in enumerate(features):
        got = [float(level.mean()), float(level.std(correction=0))]
        np.testing.assert_allclose(got, arrays[f"{prefix}{i}_mean_std"], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("dtype", "key", "limit"), [(torch.float64, "est_f64", 1e-10), (torch.float32, "est_f32", 1e-5)]
)
def test_base_equals_the_published_network(dtype: torch.dtype, key: str, limit: float) -> None:
    arrays = np.load(VECTORS / "drdiffuse_base_forward.npz")
    given = x(10, dtype)
    assert max_error(given, arrays["x"]) < 1e-7  # the input rule, stored in float32
    assert max_error(base(dtype)(given, torch.zeros(2, dtype=dtype), Condition()), arrays[key]) < limit


def test_every_level_of_base() -> None:
    arrays = np.load(VECTORS / "drdiffuse_base_forward.npz")
    _, encoder, real, imag = base(torch.float64).run(x(10, torch.float64).transpose(2, 3))
    for prefix, features in (("en", encoder), ("de_real", real), ("de_imag", imag)):
        assert_statistics(arrays, prefix, features)
    np.testing.assert_allclose(encoder[4][0].numpy(), arrays["en4_f64_item0"], rtol=1e-10, atol=1e-12)


def test_batch_norm_in_training_mode() -> None:
    arrays = np.load(VECTORS / "drdiffuse_base_forward.npz")
    network = base(torch.float64).train()
    estimate = network(x(10, torch.float64), torch.zeros(2, dtype=torch.float64), Condition())
    assert max_error(estimate, arrays["est_trainmode_f64"]) < 1e-9  # batch statistics divide by small variances
    norm = network.en.en1[0]
    np.testing.assert_allclose(norm.running_mean.numpy(), arrays["en1_running_mean_after"], rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(norm.running_var.numpy(), arrays["en1_running_var_after"], rtol=1e-10)


@pytest.mark.parametrize("wiring", FILES)
def test_diffusion_networks_equal_the_published_ones(wiring: str) -> None:
    arrays = np.load(VECTORS / f"{FILES[wiring]}.npz")
    network: Conditional = fill_parameters(TCUNetConfig(wiring=wiring).build().double()).eval()
    told = Condition(signal=x(11, torch.float64))
    assert max_error(x(10, torch.float64), arrays["x"]) < 1e-7
    assert max_error(x(11, torch.float64), arrays["c"]) < 1e-7
    for kind in ("int", "float"):
        step = torch.from_numpy(arrays[f"t_{kind}"].astype(np.float64))
        np.testing.assert_allclose(network.time_embedding(step).numpy(), arrays[f"temb_{kind}"], rtol=1e-10, atol=1e-13)
        assert max_error(network(x(10, torch.float64), step, told), arrays[f"eps_{kind}_f64"]) < 1e-10
    stacked = network.preprocess.conv(torch.cat([x(10, torch.float64), told.signal], dim=1).transpose(2, 3))
    step = network.time_embedding(torch.from_numpy(arrays["t_int"].astype(np.float64)))
    mix = network.c_deliver.run(told.signal.transpose(2, 3)) if wiring == "dual" else None
    _, encoder, real, _ = network.run(stacked, step, mix)
    assert_statistics(arrays, "en", encoder)
    assert_statistics(arrays, "de_real", real)


@pytest.mark.parametrize("wiring", FILES)
def test_diffusion_networks_in_float32(wiring: str) -> None:
    arrays = np.load(VECTORS / f"{FILES[wiring]}.npz")
    network = fill_parameters(TCUNetConfig(wiring=wiring).build().double()).float().eval()
    for kind in ("int", "float"):
        step = torch.from_numpy(arrays[f"t_{kind}"].astype(np.float32))
        result = network(x(10, torch.float32), step, Condition(signal=x(11, torch.float32)))
        expected = bins_first(arrays[f"eps_{kind}_f32_slice"]).double()
        scale = float(expected.abs().max())
        assert float((result[..., :3] - expected).abs().max()) < 1e-5 * max(1.0, scale)


def test_step_table_keeps_the_float32_roundings() -> None:
    table = np.load(VECTORS / "drdiffuse_schedule.npz")["table"]
    # sin and cos of angles up to 2e6 in float32: equal angles, then the libraries' last bit
    np.testing.assert_allclose(step_table(200).numpy(), table, atol=2e-7)


@pytest.mark.parametrize(
    ("wiring", "parameters", "entries"), [("base", 1662565, 726), ("concat", 1894001, 762), ("dual", 3556566, 1488)]
)
def test_key_lists_of_the_published_checkpoints(wiring: str, parameters: int, entries: int) -> None:
    network = TCUNetConfig(wiring=wiring).build()
    expected = json.loads((VECTORS / "keys_drdiffuse.json").read_text())[wiring]
    assert {k: list(v.shape) for k, v in network.state_dict().items()} == expected
    assert (len(expected), sum(p.numel() for p in network.parameters())) == (entries, parameters)


def test_condition_path_runs_once_for_all_calls_of_a_run() -> None:
    network = TCUNetConfig(wiring="dual").build().eval()
    denoiser = Denoiser(network, VP(), Noise())
    signal, t = torch.randn(1, 2, 161, 4), torch.ones(1, dtype=torch.float64)
    calls: list[int] = []
    network.c_deliver.en.register_forward_hook(lambda *_: calls.append(1))
    denoise = denoiser.bind(None, Condition(signal=signal))
    first, again = denoise(torch.ones(1, 2, 161, 4), t), denoise(torch.ones(1, 2, 161, 4), t)
    assert len(calls) == 1
    assert torch.equal(first, again)
    assert torch.equal(first, denoiser(torch.ones(1, 2, 161, 4), t, None, Condition(signal=signal)))
    assert not torch.equal(first, denoiser.bind(None, Condition(signal=signal + 1))(torch.ones(1, 2, 161, 4), t))


@pytest.mark.parametrize(
    "config", [TCUNetConfig("dual", "instance", "conv_add", "concat"), TCUNetConfig("concat", fusion="concat")]
)
def test_the_papers_choices_run_and_depend_on_the_condition(config: TCUNetConfig) -> None:
    network, given = config.build().eval(), torch.randn(1, 2, 161, 12)
    out = network(given, torch.zeros(1), Condition(signal=given))
    assert out.shape == given.shape
    assert not torch.allclose(out, network(given, torch.zeros(1), Condition(signal=-given)))


def test_wrong_bins_say_what_to_set() -> None:
    with pytest.raises(ValueError, match=r"161 bins .*got 129.*n_fft"):
        TCUNetConfig().build()(torch.zeros(1, 2, 129, 4), torch.zeros(1), Condition())
