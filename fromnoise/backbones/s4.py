"""State-space convolutions: S4D, and the two published generations of S4, run over a whole clip in both directions.

A linear system per channel, x' = A x + B u, y = Re C x, sampled with step Delta, is a convolution with the kernel
K_l = C Ab^l Bb. A clip u is convolved with K over past samples and with a second kernel over future ones, by FFT:

    y_k = sum_j K_j u_{k-j} + sum_j K'_j u_{k+1+j} + D u_k          (s4_paper keeps the sums apart, K' from lag 0)
    out = GLU(W gelu(y) + b)                                        (s4_paper: W gelu([y; y']) + b)

S4D (Gu et al., "On the Parameterization and Initialization of Diagonal State Space Models", 2022,
https://arxiv.org/abs/2206.11893), A diagonal, one of each conjugate pair stored, B = 1, X_n = Ab_n:

    K_l = 2 Re sum_n C'_n X_n^l
    zoh:       X = e^(Delta A),                          C' = C (X - 1)/A
    bilinear:  X = (1 + Delta A/2)/(1 - Delta A/2),      C' = C Delta/(1 - Delta A/2)
    two levels, l = i m + j, m ~ sqrt(L):   K[i, j] = 2 Re sum_n (C'_n X_n^(i m)) X_n^j      one matrix product

S4 (Gu et al., "Efficiently Modeling Long Sequences with Structured State Spaces", 2022), A diagonal plus rank one, in
its two published generations: see `dplr`. Their C is "C-tilde", valid for one kernel length: the kernel is made at that
length and cut. The published code keeps C-tilde once the network has run; s4_v3's buffer `L` says whether it has.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor, nn

from fromnoise.backbones.dplr import as_complex, as_pairs, dplr_kernel, legs, length_corrected

DT_MIN, DT_MAX = 0.001, 0.1  # Delta of a fresh layer, log-uniform


def no_autocast(like: Tensor) -> torch.autocast:
    """Kernels and FFTs run in float32 or float64: half precision has no complex numbers."""
    return torch.autocast(like.device.type, enabled=False)


def working(x: Tensor) -> Tensor:
    """x in float32, or float64 if it is that already."""
    return x if x.dtype == torch.float64 else x.float()


def exact(x: Tensor) -> Tensor:
    """x in float64, or in float32 on a device that has no float64."""
    return x.float() if x.device.type == "mps" else x.double()


def powers(rate: Complex[Tensor, "h s"], step: int, count: int, dtype: torch.dtype) -> Complex[Tensor, "h s count"]:
    """e^(rate step k), k < count, in `dtype`: log2(count) exponentials, the rest by doubling the table."""
    table = torch.ones(*rate.shape, 1, dtype=dtype, device=rate.device)
    while table.shape[-1] < count:
        factor = torch.exp(rate * (step * table.shape[-1])).to(dtype)
        table = torch.cat([table, table * factor[..., None]], dim=-1)
    return table[..., :count]


def two_level_kernel(
    c: Complex[Tensor, "k h s"], rate: Complex[Tensor, "h s"], n: int, dtype: torch.dtype
) -> Float[Tensor, "k h n"]:
    """2 Re sum_s c_s e^(rate_s l), l < n, as one matrix product of about 2 sqrt(n) rows and columns."""
    width = math.isqrt(max(n - 1, 0)) + 1
    rows = -(-n // width)
    coarse = 2 * c.to(dtype)[..., None] * powers(rate, width, rows, dtype)  # k h s rows
    fine = powers(rate, 1, width, dtype)  # h s width
    left = torch.cat([coarse.real, -coarse.imag], dim=2).permute(1, 0, 3, 2).flatten(1, 2)  # h (k rows) 2s
    right = torch.cat([fine.real, fine.imag], dim=1)
    kernel = (left @ right).reshape(len(left), len(c), rows * width)
    return kernel[..., :n].transpose(0, 1)


def random_log_dt(width: int) -> Float[Tensor, " h"]:
    """log Delta, uniform."""
    return torch.empty(width).uniform_(math.log(DT_MIN), math.log(DT_MAX))


def random_c(*shape: int) -> Float[Tensor, "*d 2"]:
    """Complex standard normal: variance 1/2 a part."""
    return torch.randn(*shape, 2) * 0.5**0.5


def state_space(values: Tensor) -> nn.Parameter:
    """A parameter of the system (A, B, P, Delta), marked for the optimiser; see `state_space_parameters`."""
    parameter = nn.Parameter(values)
    parameter.state_space = True  # pyright: ignore[reportAttributeAccessIssue]
    return parameter


class Kernel(nn.Module, ABC):
    """The kernels of a layer, in k directions. STATE_SPACE: the names of its parameters A, B, P, Delta."""

    STATE_SPACE: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, n: int) -> Float[Tensor, "k h l"]:
        """The first n values, fewer if the system was stored for fewer."""


class S4DKernel(Kernel):
    """S4D-Lin: A_n = -1/2 + i pi n at the start. Any length at run time. rule: see the module's text."""

    STATE_SPACE = ("log_dt", "log_A_real", "A_imag")

    def __init__(
        self, width: int, num_states: int = 64, directions: int = 2, rule: Literal["zoh", "bilinear"] = "zoh"
    ) -> None:
        super().__init__()
        self.rule = rule
        half = num_states // 2
        self.C = nn.Parameter(random_c(directions, width, half))
        self.log_dt = state_space(random_log_dt(width))
        self.log_A_real = state_space(torch.full((width, half), math.log(0.5)))
        self.A_imag = state_space((math.pi * torch.arange(half)).repeat(width, 1))

    def system(self) -> tuple[Complex[Tensor, "k h s"], Complex[Tensor, "h s"]]:
        """(C', log X) in double precision: X_n^l is taken with l in the thousands."""
        a = torch.complex(-exact(self.log_A_real).exp(), exact(self.A_imag))
        dt = exact(self.log_dt).exp()[:, None]
        c = as_complex(exact(self.C))
        if self.rule == "zoh":
            return c * (torch.exp(dt * a) - 1) / a, dt * a
        return c * dt / (1 - dt * a / 2), torch.log((1 + dt * a / 2) / (1 - dt * a / 2))

    def forward(self, n: int) -> Float[Tensor, "k h n"]:
        """The kernels of length n."""
        with no_autocast(self.C):
            c, rate = self.system()
            dtype = torch.complex128 if self.C.dtype == torch.float64 else torch.complex64
            return two_level_kernel(c, rate, n, dtype)


class S4v3Kernel(Kernel):
    """The fork's second generation: all of A, B, C, P and Delta trained, one system a channel, Q = conj(P).

    `L` is 0 while `C` is C itself; `settle` turns it into C-tilde for good, as the published code does at its first
    call. Unsettled, C-tilde is computed for every kernel anew, which costs a matrix power a channel.
    """

    STATE_SPACE = ("log_dt", "B", "P", "inv_w_real", "w_imag")

    def __init__(self, width: int, num_states: int = 64, length: int = 16000) -> None:
        super().__init__()
        self.length = length
        w, p, b = legs(num_states)
        self.C = nn.Parameter(random_c(2, width, num_states // 2))
        self.log_dt = state_space(random_log_dt(width))
        self.B = state_space(as_pairs(b.repeat(1, width, 1)))
        self.P = state_space(as_pairs(p.repeat(1, width, 1)))
        self.inv_w_real = state_space((-w.real).log().float().repeat(width, 1))
        self.w_imag = state_space(w.imag.float().repeat(width, 1))
        self.register_buffer("L", torch.zeros((), dtype=torch.int64))

    def system(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """(w, B, C, P, Q, Delta)."""
        w = torch.complex(-working(self.inv_w_real).exp(), working(self.w_imag))
        b, c, p = (as_complex(working(pairs)) for pairs in (self.B, self.C, self.P))
        return w, b[0], c, p[0], p[0].conj(), working(self.log_dt).exp()

    def c_tilde(self) -> Complex[Tensor, "2 h s"]:
        """C (I - Ab^length) of a C that is not yet that."""
        w, _, c, p, q, dt = self.system()
        return length_corrected(w, c, p, q, dt, self.length).to(c.dtype)

    @torch.no_grad()
    def settle(self) -> None:
        """Store C-tilde in place of C, once."""
        if int(self.get_buffer("L")) == 0:
            with no_autocast(self.C):
                self.C.copy_(torch.view_as_real(self.c_tilde()))
            self.get_buffer("L").fill_(self.length)

    def forward(self, n: int) -> Float[Tensor, "2 h l"]:
        """The first n of the stored length's values."""
        with no_autocast(self.C):
            stored = int(self.get_buffer("L"))
            w, b, c, p, q, dt = self.system()
            c = c if stored else self.c_tilde()
            return dplr_kernel(w, b, c, p, q, dt, stored or self.length)[..., :n]


class PaperKernel(Kernel):
    """One direction of the first generation: w, B, P and Delta fixed buffers; C is C-tilde and trained, and so is Q.

    `C` holds (C, Q) and `B` holds (B, P); C and Q enter conjugated.
    """

    def __init__(self, width: int, num_states: int = 64, length: int = 16000) -> None:
        super().__init__()
        self.length = length
        w, p, b = legs(num_states)
        rows = [random_c(width, num_states // 2), as_pairs(p.repeat(width, 1))]
        self.C = nn.Parameter(torch.stack(rows, dim=1))  # h 2 s 2
        self.register_buffer("w", as_pairs(w))
        self.register_buffer("B", as_pairs(torch.stack([b, p])))
        self.register_buffer("log_dt", random_log_dt(width))

    def forward(self, n: int) -> Float[Tensor, "1 h l"]:
        """The first n of `length` values."""
        with no_autocast(self.C):
            c, q = as_complex(working(self.C)).conj().unbind(1)
            w, b, p = (
                as_complex(working(pairs)).expand_as(q)
                for pairs in (self.get_buffer("w"), *self.get_buffer("B").unbind(0))
            )
            dt = working(self.get_buffer("log_dt")).exp()
            return dplr_kernel(w, b, c[None], p, q, dt, self.length)[..., :n]


def state_space_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters of every system inside. Their mark `state_space` is lost by copy.deepcopy; this is not."""
    for kernel in module.modules():
        if isinstance(kernel, Kernel):
            yield from (kernel.get_parameter(name) for name in kernel.STATE_SPACE)


def fft_length(least: int) -> int:
    """An even length that FFTs are fast at, at least `least`: 16, 18, 20 or 24 times a power of two."""
    return min(m << max(0, -(-least // m) - 1).bit_length() for m in (16, 18, 20, 24))


def convolve(u: Float[Tensor, "b h n"], response: Complex[Tensor, "k h f"]) -> Float[Tensor, "b kh n"]:
    """u through k filters a channel; `response` is the filters' rfft at the even length 2(f - 1)."""
    size = 2 * (response.shape[-1] - 1)
    with no_autocast(u):
        spectrum = torch.fft.rfft(working(u), size)[:, None]
        if len(response) == 1 and not torch.is_grad_enabled():
            spectrum *= response
        else:
            spectrum = spectrum * response
        return torch.fft.irfft(spectrum, size)[..., : u.shape[-1]].flatten(1, 2)


class S4Layer(nn.Module, ABC):
    """Convolution, GELU and a 1x1: `b h n` -> `b h n`. GATED: the 1x1 makes twice the channels, for a GLU.

    `response(n)`, the filters' spectrum, depends on the parameters and n alone: compute it once a run.
    """

    GATED: bool
    D: nn.Parameter
    output_linear: nn.Conv1d

    @abstractmethod
    def response(self, n: int) -> Complex[Tensor, "k h f"]:
        """For `convolve` of a clip of n."""

    def forward(self, u: Float[Tensor, "b h n"]) -> Float[Tensor, "b h n"]:
        """The layer as a whole."""
        y = self.output_linear(F.gelu(convolve(u, self.response(u.shape[-1]))))
        return F.glu(y, dim=1) if self.GATED else y


class SummedS4(S4Layer):
    """One filter a channel: the kernel's first direction over lags >= 0, its second, if it has one, over lags < 0."""

    GATED = True

    def __init__(self, width: int, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel
        self.D = nn.Parameter(torch.randn(width))
        self.output_linear = nn.Conv1d(width, 2 * width, 1)

    def response(self, n: int) -> Complex[Tensor, "1 h f"]:
        """See `S4Layer`."""
        kernel = self.kernel(n)
        rest = (size := fft_length(n + kernel.shape[-1])) - kernel.shape[-1]
        lags = F.pad(kernel[0], (0, rest))
        if len(kernel) == 2:
            lags = lags + F.pad(kernel[1].flip(-1), (rest, 0))
        with no_autocast(lags):
            return (torch.fft.rfft(lags, size) + working(self.D)[:, None])[None]  # a unit impulse's spectrum is 1


class SplitS4(S4Layer):
    """Two filters a channel, lags >= 0 and lags <= 0, whose outputs are stacked."""

    GATED = False

    def __init__(self, width: int, kernel: PaperKernel, kernel2: PaperKernel) -> None:
        super().__init__()
        self.kernel, self.kernel2 = kernel, kernel2
        self.D = nn.Parameter(torch.randn(width))
        self.output_linear = nn.Conv1d(2 * width, width, 1)

    def response(self, n: int) -> Complex[Tensor, "2 h f"]:
        """See `S4Layer`."""
        kernels = torch.cat([self.kernel(n), self.kernel2(n)])
        with no_autocast(kernels):
            ahead, behind = torch.fft.rfft(kernels, fft_length(n + kernels.shape[-1]))
            return torch.stack([ahead, behind.conj()]) + working(self.D)[:, None]


def s4d(width: int, num_states: int, length: int) -> S4Layer:
    """The default for new models. length: not read."""
    return SummedS4(width, S4DKernel(width, num_states))


def s4_v3(width: int, num_states: int, length: int) -> S4Layer:
    """The fork's `master` branch."""
    return SummedS4(width, S4v3Kernel(width, num_states, length))


def s4_paper(width: int, num_states: int, length: int) -> S4Layer:
    """The paper's weights, the fork's `checkpoints` branch."""
    return SplitS4(width, PaperKernel(width, num_states, length), PaperKernel(width, num_states, length))


LAYERS = {"s4d": s4d, "s4_paper": s4_paper, "s4_v3": s4_v3}
