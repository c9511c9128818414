"""State-space layers against outputs of the published codes, dense discretisations, and the recurrence itself.

S4 in complex64: 1e-3 of the largest value, as the vectors' JSON says; in float64 against the dense form: 1e-8 of it.
S4D: rtol 1e-9 with atol 1e-10 in float64, 1e-4 with 1e-5 in float32.
"""

import copy
import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fromnoise.backbones.dplr import legs
from fromnoise.backbones.s4 import (
    LAYERS,
    S4DKernel,
    S4v3Kernel,
    SummedS4,
    convolve,
    fft_length,
    s4_paper,
    s4d,
    state_space_parameters,
)
from fromnoise.importers.sashimi_fork import ours
from tests import published
from tests.rules import VECTORS

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])


def arrays_of(name: str) -> dict[str, Tensor]:
    with np.load(VECTORS / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def ruled(name: str) -> dict[str, Tensor]:
    """The entries that are filled by the rule, in float64."""
    shapes = {key: tuple(shape) for key, shape in json.loads((VECTORS / f"{name}.json").read_text())["parameters"]}
    return {key: torch.from_numpy(value) for key, value in published.rule(shapes)}


def error(result: Tensor, expected: Tensor) -> float:
    """The largest deviation over the largest value."""
    return float((result.detach() - expected).abs().max() / expected.abs().max())


def drawn(module: torch.nn.Module, dtype: torch.dtype = torch.float64):
    """The module with its weights rounded to float32 and held in `dtype`."""
    return module.float().to(dtype)


# The published generations of S4


def v3_kernel() -> S4v3Kernel:
    kernel, arrays = S4v3Kernel(4, 64, 128), arrays_of("s4_nplr_kernel")
    start = "param.kernel."
    kernel.load_state_dict({key.removeprefix(start): value for key, value in arrays.items() if key.startswith(start)})
    return kernel


def test_legs_start_values():
    arrays = arrays_of("s4_nplr_kernel")
    w, p, b = legs(64)
    torch.testing.assert_close(w.to(torch.complex64), arrays["legs_w"], rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(p.abs().float(), arrays["legs_absP"][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(b.abs().float(), arrays["legs_absB"], rtol=1e-5, atol=1e-5)
    # eigenvectors are defined up to a unit factor, which falls out of this product; float32 in the original
    assert float(((p * b.conj()).to(torch.complex64) - arrays["legs_PconjB"]).abs().max()) < 1e-5 * float(
        arrays["legs_absB"].max() * arrays["legs_absP"].max()
    )


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-8), (torch.float32, 1e-3)])
def test_v3_kernel_equals_the_dense_discretisation(dtype, limit):
    kernel, arrays = v3_kernel().to(dtype), arrays_of("s4_nplr_kernel")
    assert error(kernel(128), arrays["kernel_dense_f64"].to(dtype)) < limit
    assert error(kernel(128), arrays["kernel_f32"].to(dtype)) < 1e-3


def test_v3_kernel_that_ran_and_one_that_did_not_are_the_same():
    kernel, arrays = v3_kernel(), arrays_of("s4_nplr_kernel")
    before, c = kernel(128).detach(), kernel.C.detach().clone()
    kernel(100)
    assert int(kernel.L) == 0
    torch.testing.assert_close(kernel.C.detach(), c, rtol=0, atol=0)  # a call changes nothing
    kernel.settle()
    assert int(kernel.L) == int(arrays["after.kernel.L"]) == 128
    assert error(kernel.C, arrays["after.kernel.C"]) < 1e-3
    settled = kernel.C.detach().clone()
    assert float((settled - c).abs().max()) > 0.01
    kernel.settle()
    torch.testing.assert_close(kernel.C.detach(), settled, rtol=0, atol=0)  # never twice
    assert error(kernel(128), before) < 1e-6
    reloaded = S4v3Kernel(4, 64, 64)  # made for another length: the stored one counts
    reloaded.load_state_dict(kernel.state_dict())
    torch.testing.assert_close(reloaded(128), kernel(128), rtol=0, atol=0)
    torch.testing.assert_close(reloaded(50), kernel(128)[..., :50], rtol=0, atol=0)


def paper_layer(dtype: torch.dtype) -> torch.nn.Module:
    layer, arrays = s4_paper(4, 64, 128), arrays_of("s4_paper_layer")
    state = {key.removeprefix("param."): value for key, value in arrays.items() if key.startswith("param.")}
    state = {key: value for key, value in state.items() if not key.endswith((".nodes", ".z"))} | ruled("s4_paper_layer")
    state = {key.replace("krylov.", ""): ours(f"0.layer.{key}", value) for key, value in state.items()}
    layer.to(dtype).load_state_dict(state)
    return layer


@DTYPES
def test_paper_layer(dtype):
    layer, arrays = paper_layer(dtype), arrays_of("s4_paper_layer")
    assert error(layer(arrays["u"].to(dtype)), arrays["y_f32"].to(dtype)) < 1e-3
    assert error(layer.kernel(128)[0], arrays["kernel_fwd_f32"].to(dtype)) < 1e-3
    assert error(layer.kernel2(128)[0], arrays["kernel_bwd_f32"].to(dtype)) < 1e-3
    limit = 1e-8 if dtype == torch.float64 else 1e-3
    assert error(layer.kernel(128)[0], arrays["kernel_fwd_dense_f64"].to(dtype)) < limit


def test_paper_layer_knows_only_its_length_and_cuts_or_ends_there():
    layer = paper_layer(torch.float64)
    torch.testing.assert_close(layer.kernel(40), layer.kernel(128)[..., :40], rtol=0, atol=0)
    assert layer.kernel(500).shape[-1] == 128
    impulse = torch.zeros(1, 4, 400, dtype=torch.float64)
    impulse[..., 200] = 1
    ahead, behind = convolve(impulse, layer.response(400)).detach()[0].chunk(2)
    torch.testing.assert_close(ahead[:, 200:328], layer.kernel(128)[0] + layer.D[:, None] * impulse[0, :, 200:328])
    assert float(ahead[:, :200].abs().max()) < 1e-12
    assert float(ahead[:, 328:].abs().max()) < 1e-12
    torch.testing.assert_close(behind[:, 73:200].flip(-1), layer.kernel2(128)[0, :, 1:])
    torch.testing.assert_close(behind[:, 200], layer.kernel2(128)[0, :, 0] + layer.D)


# S4D


def s4d_kernel(rule: str, dtype: torch.dtype) -> S4DKernel:
    kernel, arrays = S4DKernel(6, 16, directions=1, rule=rule).to(dtype), arrays_of("s4d_layer")
    state = {key: arrays[key] for key in ("log_dt", "log_A_real", "A_imag")} | {"C": arrays["C"][None]}
    kernel.load_state_dict(state)
    return kernel


@pytest.mark.parametrize(
    ("rule", "dtype", "key"),
    [
        ("zoh", torch.float64, "kernel_zoh_f64"),
        ("zoh", torch.float32, "kernel_zoh_f32"),
        ("bilinear", torch.float64, "kernel_bilinear_f64"),
        ("bilinear", torch.float32, "kernel_bilinear_f64"),
    ],
)
def test_s4d_kernels(rule, dtype, key):
    rtol, atol = (1e-9, 1e-10) if dtype == torch.float64 else (1e-4, 1e-5)
    expected = arrays_of("s4d_layer")[key].to(dtype)
    torch.testing.assert_close(s4d_kernel(rule, dtype)(96)[0].detach(), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize(("dtype", "suffix"), [(torch.float64, "f64"), (torch.float32, "f32")])
def test_s4d_layer(dtype, suffix):
    arrays, state = arrays_of("s4d_layer"), ruled("s4d_layer")
    layer = SummedS4(6, s4d_kernel("zoh", dtype)).to(dtype)
    own = {key.replace("output_linear.0", "output_linear"): value.to(dtype) for key, value in state.items()}
    layer.load_state_dict(own | {key: value for key, value in layer.state_dict().items() if key.startswith("kernel")})
    rtol, atol = (1e-9, 1e-10) if dtype == torch.float64 else (1e-3, 1e-5)
    result = layer(arrays["u"].to(dtype)).detach()
    torch.testing.assert_close(result, arrays[f"y_{suffix}"], rtol=rtol, atol=atol)


@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
def test_s4d_convolution_equals_the_recurrence(rule):
    """x_k = X x_{k-1} + u_k step by step, forward and, from the end, over the samples that are still to come."""
    torch.manual_seed(0)
    n, kernel = 53, drawn(S4DKernel(3, 8, rule=rule))
    layer = drawn(SummedS4(3, kernel))
    u = torch.randn(2, 3, n, dtype=torch.float64)
    with torch.no_grad():
        c, rate = kernel.system()
        x_step = rate.exp()

        def run(samples: Tensor, c: Tensor) -> Tensor:
            state, out = torch.zeros(2, 3, 4, dtype=torch.complex128), []
            for k in range(n):
                state = x_step * state + samples[..., k, None]
                out.append(2 * (c * state).sum(-1).real)
            return torch.stack(out, dim=-1)

        ahead = run(u, c[0])
        coming = run(u.flip(-1), c[1]).flip(-1)  # at k: lags 0, -1, ...; the layer's begin at -1
        expected = ahead + torch.cat([coming[..., 1:], torch.zeros(2, 3, 1)], dim=-1) + layer.D[:, None] * u
        result = convolve(u, layer.response(n))
    torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-11)


def test_two_levels_are_as_exact_as_the_direct_form_at_16000_samples():
    torch.manual_seed(0)
    kernel = S4DKernel(3)
    with torch.no_grad():
        c, rate = kernel.system()
        direct = 2 * (c[..., None] * torch.exp(rate[..., None] * torch.arange(16000))).sum(2).real
        assert error(kernel(16000), direct) < 2e-6  # float32: rounding of the powers and of 64 terms
        for n in (1, 2, 3, 17, 100):
            torch.testing.assert_close(
                kernel(n), direct[..., :n].float(), rtol=0, atol=2e-6 * float(direct.abs().max())
            )


def test_fresh_s4d_is_linear_in_frequency():
    kernel = S4DKernel(5, 16).requires_grad_(False)
    torch.testing.assert_close(kernel.log_A_real.exp(), torch.full((5, 8), 0.5))
    torch.testing.assert_close(kernel.A_imag, (math.pi * torch.arange(8)).repeat(5, 1))
    assert float(kernel.log_dt.exp().min()) >= 0.00099
    assert float(kernel.log_dt.exp().max()) <= 0.101
    assert abs(float(S4DKernel(200).C.detach().var()) - 0.5) < 0.03


# All three


@pytest.mark.parametrize("kind", LAYERS)
def test_a_shifted_input_shifts_the_output(kind):
    """The signal stays inside the clip; the filters are longer than it, so only the edges could tell."""
    torch.manual_seed(0)
    layer, n, shift = drawn(LAYERS[kind](3, 8, 256)), 256, 37
    u = torch.zeros(1, 3, n, dtype=torch.float64)
    u[..., 60:160] = torch.randn(1, 3, 100, dtype=torch.float64)
    with torch.no_grad():
        before, after = layer(u), layer(u.roll(shift, -1))
    torch.testing.assert_close(before[..., :-shift], after[..., shift:], rtol=1e-8, atol=1e-9)
    assert float(before[..., :60].std(dim=-1).max()) > 1e-3  # it looks ahead


@pytest.mark.parametrize("kind", LAYERS)
def test_kernels_stay_in_float32_under_autocast(kind):
    torch.manual_seed(0)
    layer, u = LAYERS[kind](3, 8, 64), torch.randn(1, 3, 64)
    with torch.no_grad():
        plain, whole = layer.response(64), layer(u)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(layer.response(64), plain)
            assert error(layer(u.bfloat16()).float(), whole) < 0.05  # 8-bit mantissa
    assert plain.dtype == torch.complex64


@pytest.mark.parametrize(("kind", "num"), [("s4d", 3), ("s4_v3", 5), ("s4_paper", 0)])
def test_the_optimiser_finds_the_systems_parameters_in_a_copy_too(kind, num):
    layer = LAYERS[kind](3, 8, 64)
    marked = {name for name, p in layer.named_parameters() if getattr(p, "state_space", False)}
    assert len(marked) == num
    copied = copy.deepcopy(layer)
    ids = {id(p) for p in state_space_parameters(copied)}
    assert {name for name, p in copied.named_parameters() if id(p) in ids} == marked


@pytest.mark.parametrize("kind", LAYERS)
def test_every_parameter_gets_a_gradient(kind):
    torch.manual_seed(0)
    layer = LAYERS[kind](3, 8, 64)
    layer(torch.randn(1, 3, 64)).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert float(parameter.grad.abs().max()) > 0, name


def test_s4d_gradient_is_that_of_the_direct_form():
    torch.manual_seed(0)
    kernel = drawn(S4DKernel(2, 4))
    weight = torch.randn(2, 2, 30, dtype=torch.float64)
    c, rate = kernel.system()
    direct = 2 * (c[..., None] * torch.exp(rate[..., None] * torch.arange(30))).sum(2).real
    parameters = list(kernel.parameters())
    expected = torch.autograd.grad((direct * weight).sum(), parameters)
    result = torch.autograd.grad((kernel(30) * weight).sum(), parameters)
    for one, other in zip(result, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_fft_lengths_are_even_and_never_much_too_long():
    for least in [*range(1, 200), 31999, 32769, 44101]:
        length = fft_length(least)
        assert length >= least
        assert length % 2 == 0
        assert length <= max(16, 1.34 * least)


def test_s4d_serves_any_length():
    layer = s4d(2, 8, 16)
    long, short = layer.kernel(100).detach(), layer.kernel(33).detach()
    torch.testing.assert_close(long[..., :33], short, rtol=1e-5, atol=1e-6)  # another split of the powers
