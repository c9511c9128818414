"""S4's system: diagonal plus rank one. Its kernel through the frequency domain, and HiPPO-LegS, where it starts.

Gu et al., "Efficiently Modeling Long Sequences with Structured State Spaces", 2022, https://arxiv.org/abs/2111.00396.
A = diag(w) - P Q^T with both of each conjugate pair (one is stored), sampled with step Delta by the bilinear rule,
Ab = (I - Delta A/2)^-1 (I + Delta A/2), Bb = Delta (I - Delta A/2)^-1 B, K_l = C Ab^l Bb. With C-tilde = C (I - Ab^L),
omega = e^(-2 pi i k/L) and theta = pi k/L,

    rho(v) = Delta sum_n [v_n / (2(1 - omega) - Delta w_n (1 + omega)) + the conjugate pair]
           = Delta e^(i theta) sum_n (i S Re v_n - G Re(v_n conj w_n)) / (G^2 |w_n|^2 - S^2 - 2 i S G Re w_n),
    S = 2 sin theta,  G = Delta cos theta
    rfft(K)_k = 2 (rho(BC) - (1 + omega) rho(BQ) rho(PC) / (1 + (1 + omega) rho(PQ)))        C is C-tilde here

The paper's form has z = 2(1 - omega)/(1 + omega) in it, infinite at omega = -1; this one is finite there.
"""

import functools
import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

CAUCHY_ELEMENTS = 1 << 22  # of the table (channel, state, frequency) that is held at once


def as_complex(pairs: Float[Tensor, "*d 2"]) -> Complex[Tensor, "*d"]:
    """Stored (real, imaginary) pairs as complex numbers."""
    return torch.view_as_complex(pairs.contiguous())


def as_pairs(z: Complex[Tensor, "*d"]) -> Float[Tensor, "*d 2"]:
    """Complex numbers as float32 pairs to be stored."""
    return torch.view_as_real(z.to(torch.complex64)).contiguous()


def dplr_kernel(
    w: Complex[Tensor, "h s"],
    b: Complex[Tensor, "h s"],
    c: Complex[Tensor, "k h s"],
    p: Complex[Tensor, "h s"],
    q: Complex[Tensor, "h s"],
    dt: Float[Tensor, " h"],
    length: int,
) -> Float[Tensor, "k h length"]:
    """The kernels of diag(w) - p q^T; c is C-tilde for `length`. In pieces of channels, to bound the memory."""
    numerators = torch.cat([b * c, (b * q)[None], p * c, (p * q)[None]])  # 2k+2 h s
    channels = max(1, CAUCHY_ELEMENTS // (w.shape[1] * (length // 2 + 1)))
    pieces = [slice(i, i + channels) for i in range(0, len(w), channels)]
    return torch.cat([_dplr_kernel(w[i], numerators[:, i].transpose(0, 1), dt[i], length) for i in pieces], dim=1)


def _dplr_kernel(
    w: Complex[Tensor, "h s"], v: Complex[Tensor, "h r s"], dt: Float[Tensor, " h"], length: int
) -> Float[Tensor, "k h length"]:
    theta = torch.arange(length // 2 + 1, device=dt.device, dtype=torch.float64 if dt.dtype == torch.float64 else None)
    theta = theta.to(dt.dtype) * (math.pi / length)
    s, g = 2 * theta.sin(), dt[:, None, None] * theta.cos()  # f, h 1 f
    size = w.abs()[..., None] * g  # h s f
    real, imag = (size - s) * (size + s), -2 * s * g * w.real[..., None]
    square = real.square() + imag.square()
    inverse = torch.cat([real / square, -imag / square], dim=-1)  # h s 2f
    odd = torch.complex(*(v.real @ inverse).chunk(2, dim=-1))  # h r f
    even = torch.complex(*(-(v * w.conj()[:, None]).real @ inverse).chunk(2, dim=-1))
    turn = torch.polar(torch.ones_like(theta), theta)
    rho = dt[:, None, None] * turn * (1j * s * odd + g * even)
    k = v.shape[1] // 2 - 1
    bc, bq, pc, pq = rho[:, :k], rho[:, k : k + 1], rho[:, k + 1 : -1], rho[:, -1:]
    one_plus_omega = 2 * theta.cos() * turn.conj()
    spectrum = 2 * (bc - one_plus_omega * bq * pc / (1 + one_plus_omega * pq))
    return torch.fft.irfft(spectrum, length).transpose(0, 1)


def length_corrected(
    w: Complex[Tensor, "h s"],
    c: Complex[Tensor, "k h s"],
    p: Complex[Tensor, "h s"],
    q: Complex[Tensor, "h s"],
    dt: Float[Tensor, " h"],
    length: int,
) -> Complex[Tensor, "k h s"]:
    """C-tilde = C (I - Ab^length), in complex128."""
    w, c, p, q = (torch.cat([z, z.conj()], dim=-1).to(torch.complex128) for z in (w, c, p, q))
    half = dt[:, None, None].double() / 2 * (torch.diag_embed(w) - p[..., :, None] * q[..., None, :])
    eye = torch.eye(w.shape[-1], dtype=half.dtype, device=half.device)
    power, row = torch.linalg.solve(eye - half, eye + half), c[..., None, :]  # h s s, k h 1 s
    for bit in reversed(f"{length:b}"):
        row = row @ power if bit == "1" else row
        power = power @ power
    return (c - row[..., 0, :])[..., : w.shape[-1] // 2]


@functools.cache
def _legs(num_states: int) -> tuple[Tensor, Tensor, Tensor]:
    n = torch.arange(num_states, dtype=torch.float64, device="cpu")
    scale = (2 * n + 1).sqrt()
    a = -torch.tril(scale[:, None] * scale, -1) - torch.diag(n + 1)
    p = (n + 0.5).sqrt()
    # A + P P^T = -1/2 + skew, and -i skew is Hermitian: real eigenvalues, orthonormal eigenvectors
    half = 0.5 * torch.eye(num_states, dtype=a.dtype, device="cpu")
    values, vectors = torch.linalg.eigh(-1j * (a + p[:, None] * p + half))
    keep, basis = values < 0, vectors.conj().T.contiguous()
    w = torch.complex(torch.full_like(values, -0.5), values)
    return w[keep], (basis @ p.to(basis.dtype))[keep], (basis @ scale.to(basis.dtype))[keep]


def legs(num_states: int) -> tuple[Complex[Tensor, " s"], Complex[Tensor, " s"], Complex[Tensor, " s"]]:
    """(w, P, B) of HiPPO-LegS, s = num_states/2: the eigenvalues with a negative imaginary part, ascending."""
    device = torch.get_default_device()
    w, p, b = _legs(num_states)
    return w.to(device), p.to(device), b.to(device)
