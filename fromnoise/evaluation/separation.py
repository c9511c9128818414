"""Scale-invariant and filter-invariant energy ratios, for one source and for K sources in unknown order.

    a = <e, r> / <r, r>      SI-SDR = 10 log10(|a r|^2 / |a r - e|^2)                                        dB
    P = projection on the span of all references:   SI-SIR = |a r|^2 / |P e - a r|^2,   SI-SAR = |P e|^2 / |e - P e|^2
    SDR (BSS-EVAL v3) = the same with r filtered by the best of all filters of 512 taps

No means are removed unless `zero_mean`. Values are clamped to +-clamp_db, so that a perfect estimate stays finite.
J. Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019, https://arxiv.org/abs/1811.02508; E. Vincent et al.,
"Performance measurement in blind audio source separation", IEEE TASLP 2006. The order of K estimates is the one with
the largest mean: of SI-SIR in `si_bss_eval` (as DiffSep's tables), of the ratio itself elsewhere.
"""

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from jaxtyping import Float, Int

Wave = Float[np.ndarray, " n"]
Waves = Float[np.ndarray, "k n"]
Ratios = Float[np.ndarray, " k"]
Order = Int[np.ndarray, " k"]


@dataclass(frozen=True)
class EnergyRatios:
    """SI-SDR, SI-SIR and SI-SAR in dB, one per reference, and the order: estimates[order] lines up with references."""

    si_sdr: Ratios
    si_sir: Ratios
    si_sar: Ratios
    order: Order


def decibel(signal: float, error: float, clamp_db: float) -> float:
    """10 log10(signal / error), clamped; a ratio of nothing to nothing is an error of the caller's signals."""
    if signal <= 0 and error <= 0:
        raise ValueError("expected a signal with energy, got zeros in reference or estimate")
    with np.errstate(divide="ignore"):
        return float(np.clip(10 * (np.log10(signal) - np.log10(error)), -clamp_db, clamp_db))


def si_sdr(reference: Wave, estimate: Wave, zero_mean: bool = False, clamp_db: float = 100.0) -> float:
    """Scale-invariant signal-to-distortion ratio in dB."""
    r, e = reference.astype(np.float64), estimate.astype(np.float64)
    if zero_mean:
        r, e = r - r.mean(), e - e.mean()
    power = float(r @ r)
    if power == 0 or not e.any():
        raise ValueError("SI-SDR expects a reference and an estimate with energy, got zeros")
    target = (float(e @ r) / power) * r
    return decibel(float(target @ target), float(((target - e) ** 2).sum()), clamp_db)


def noise_ratios(reference: Wave, estimate: Wave, noise: Wave, clamp_db: float = 100.0) -> tuple[float, float, float]:
    """SI-SDR, SI-SIR and SI-SAR when the noise that was added is known, as SGMSE's evaluation computes them.

    Signal and noise parts are projected one at a time, not on their common span as in `si_bss_eval`.
    """
    x, n, e = (wave.astype(np.float64) for wave in (reference, noise, estimate))
    target = (float(e @ x) / float(x @ x)) * x
    heard = (float(e @ n) / float(n @ n)) * n
    artefact = e - target - heard
    signal = float(target @ target)
    errors = (heard + artefact, heard, artefact)
    sdr, sir, sar = (decibel(signal, float(error @ error), clamp_db) for error in errors)
    return sdr, sir, sar


def best_order(pairwise: Float[np.ndarray, "k k"]) -> Order:
    """The order with the largest sum: pairwise[i, order[i]], i over references. Enumerates to K = 3, then assigns."""
    count = len(pairwise)
    if count <= 3:
        rows = np.arange(count)
        return np.array(max(permutations(range(count)), key=lambda order: pairwise[rows, list(order)].sum()))
    from scipy.optimize import linear_sum_assignment

    return np.asarray(linear_sum_assignment(pairwise, maximize=True)[1])


def ordered_si_sdr(
    references: Waves, estimates: Waves, zero_mean: bool = False, clamp_db: float = 100.0
) -> tuple[Ratios, Order]:
    """SI-SDR of each reference with the order of the estimates that has the largest mean.

    DiffSep's validation is `zero_mean=True, clamp_db=30`.
    """
    pairs = [[si_sdr(reference, estimate, zero_mean, clamp_db) for estimate in estimates] for reference in references]
    return _pick(np.array(pairs))


def _pick(pairwise: Float[np.ndarray, "k k"]) -> tuple[Ratios, Order]:
    order = best_order(pairwise)
    return pairwise[np.arange(len(order)), order], order


def si_bss_eval(references: Waves, estimates: Waves, clamp_db: float = 100.0, ordered: bool = False) -> EnergyRatios:
    """SI-SDR, SI-SIR and SI-SAR of K estimates, ordered by the largest mean SI-SIR; `ordered`: they are in order.

    Raises ValueError where a reference is silent or made of the others, since then they span less than K dimensions.
    """
    r, e = references.astype(np.float64), estimates.astype(np.float64)
    count = len(r)
    basis, corner = np.linalg.qr(r.T)
    if (np.abs(np.diag(corner)) <= 1e-9 * np.linalg.norm(r, axis=1)).any():
        raise ValueError("the references are not independent of one another, so interference has no meaning")
    inside = (e @ basis) @ basis.T
    artefact = ((e - inside) ** 2).sum(1)
    sdr, sir, sar = (np.full((count, len(e)), np.nan) for _ in range(3))
    for i, j in ((i, j) for i in range(count) for j in range(len(e)) if i == j or not ordered):
        target = (float(e[j] @ r[i]) / float(r[i] @ r[i])) * r[i]
        signal = float(target @ target)
        sdr[i, j] = decibel(signal, float(((target - e[j]) ** 2).sum()), clamp_db)
        sir[i, j] = decibel(signal, float(((inside[j] - target) ** 2).sum()), clamp_db)
        sar[i, j] = decibel(float(inside[j] @ inside[j]), float(artefact[j]), clamp_db)
    rows = np.arange(count)
    order = rows if ordered else best_order(sir)
    return EnergyRatios(sdr[rows, order], sir[rows, order], sar[rows, order], order)


def sdr(reference: Wave, estimate: Wave, taps: int = 512, clamp_db: float = 100.0) -> float:
    """BSS-EVAL v3 SDR in dB: any filter of `taps` taps on the reference is forgiven."""
    from scipy.linalg import solve, toeplitz

    r, e = reference.astype(np.float64), estimate.astype(np.float64)
    r, e = r / np.linalg.norm(r), e / np.linalg.norm(e)
    size = 2 ** int(np.ceil(np.log2(len(r) + taps)))
    spectrum = np.fft.rfft(r, size)
    auto = np.fft.irfft(np.abs(spectrum) ** 2, size)[:taps]
    cross = np.fft.irfft(np.conj(spectrum) * np.fft.rfft(e, size), size)[:taps]
    explained = float(cross @ solve(toeplitz(auto), cross, assume_a="sym"))
    return decibel(explained, 1 - explained, clamp_db)


def ordered_sdr(references: Waves, estimates: Waves, taps: int = 512) -> tuple[Ratios, Order]:
    """BSS-EVAL v3 SDR of each reference with the order of the estimates that has the largest mean."""
    return _pick(np.array([[sdr(reference, estimate, taps) for estimate in estimates] for reference in references]))
