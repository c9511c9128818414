"""The metrics of a recording by name, and `measure`, which asks them about one file and never crashes.

A name says everything that changes the number: `pesq_wb` and `pesq_nb`, `stoi` and `estoi`, the four ratings of DNSMOS.
Each metric takes (reference, estimate, sample_rate), two mono waves of one length, and gives one float. Where a metric
cannot judge a file (silence, too short, not finite, other length, too low a rate, an error of its package, or no
package) `measure` gives NaN and a reason: never 0, which would be a score, and never an exception.

A metric lists the rates that its definition knows. At any other rate both signals are resampled (soxr, HQ) to the
highest listed rate below; when there is none, the recording lacks the band that is judged, and the answer is NaN.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache, partial

import numpy as np
from jaxtyping import Float

from fromnoise.evaluation import composite as parts
from fromnoise.evaluation import dnsmos as dns
from fromnoise.evaluation import perceptual, pitch, vocoding
from fromnoise.evaluation.separation import si_sdr as scale_invariant_sdr

Wave = Float[np.ndarray, " n"]
Function = Callable[[np.ndarray, np.ndarray, int], float]

SILENCE_RMS = 1e-6  # -120 dB below full scale, a thirtieth of the last bit of a 16-bit file
INSTALL = "pip install 'fromnoise[metrics]'"


@dataclass(frozen=True)
class Metric:
    """One metric: its name, unit ("" for a rating), direction, one sentence of definition, and the function itself.

    rates: sample rates in Hz that the definition knows, empty for any. package: whose number it is, None for ours.
    needs_reference: False for a metric that listens to the estimate alone.
    """

    name: str
    unit: str
    higher_is_better: bool
    definition: str
    function: Function
    rates: tuple[int, ...] = ()
    package: str | None = None
    needs_reference: bool = True


@dataclass(frozen=True)
class Scores:
    """The answers for one file: name -> number or NaN, and the reason of each NaN."""

    values: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> float:
        return self.values[name]


def pesq_wb(reference: Wave, estimate: Wave, sample_rate: int) -> float:
    """Wide-band PESQ (16 kHz) as MOS-LQO."""
    return perceptual.pesq(reference, estimate, sample_rate, "wb")


def pesq_nb(reference: Wave, estimate: Wave, sample_rate: int) -> float:
    """Narrow-band PESQ (8 or 16 kHz) as MOS-LQO."""
    return perceptual.pesq(reference, estimate, sample_rate, "nb")


def stoi(reference: Wave, estimate: Wave, sample_rate: int) -> float:
    """Short-time objective intelligibility."""
    return perceptual.stoi(reference, estimate, sample_rate)


def estoi(reference: Wave, estimate: Wave, sample_rate: int) -> float:
    """Extended short-time objective intelligibility."""
    return perceptual.stoi(reference, estimate, sample_rate, extended=True)


def si_sdr(reference: Wave, estimate: Wave, sample_rate: int) -> float:
    """Scale-invariant signal-to-distortion ratio in dB, no means removed."""
    return scale_invariant_sdr(reference, estimate)


def composite(reference: Wave, estimate: Wave, sample_rate: int, variant: parts.Variant = "loizou") -> parts.Composite:
    """PESQ, LLR, WSS, SSNR, CSIG, CBAK and COVL of one pair of waves.

    sample_rate: 16000 (wide-band PESQ), or 8000, where DR-DiffuSE's tables put narrow-band PESQ on its raw scale.
    variant: "loizou", ours, or "diffsep", whose PESQ hears the signals that its SSNR has changed in place.
    """
    if sample_rate not in (8000, 16000):
        raise ValueError(f"the composites expect 16000 or 8000 Hz, got {sample_rate} Hz; resample first")
    kind = np.result_type(reference, estimate, np.float32)
    waves = (np.ascontiguousarray(wave, kind).tobytes() for wave in (reference, estimate))
    return _composite(*waves, kind.str, sample_rate, variant)


@lru_cache(maxsize=2)
def _composite(ref: bytes, deg: bytes, kind: str, sample_rate: int, variant: parts.Variant) -> parts.Composite:
    """The composites of two waves; remembers the last, since three metrics ask for them."""
    reference, estimate = np.frombuffer(ref, kind), np.frombuffer(deg, kind)
    heard = parts.levelled(reference, estimate) if variant == "diffsep" else (reference, estimate)
    rate = perceptual.pesq_raw if sample_rate == 8000 else pesq_wb
    return parts.ratings(
        rate(*heard, sample_rate),
        parts.llr(reference, estimate, sample_rate, variant),
        parts.wss(reference, estimate, sample_rate, variant),
        parts.ssnr(reference, estimate, sample_rate, variant),
    )


def _rating(name: str, reference: Wave, estimate: Wave, sample_rate: int) -> float:
    return getattr(composite(reference, estimate, sample_rate), name)


def _heard(name: str, reference: Wave, estimate: Wave, sample_rate: int) -> float:
    return getattr(dns.dnsmos(estimate, sample_rate), name)


def _heard_narrow(name: str, reference: Wave, estimate: Wave, sample_rate: int) -> float:
    return getattr(dns.dnsmos(perceptual.resample(estimate, sample_rate, 16000), 16000), name)


csig, cbak, covl = (partial(_rating, name) for name in ("csig", "cbak", "covl"))
dnsmos_sig, dnsmos_bak, dnsmos_ovrl, dnsmos_p808 = (partial(_heard, name) for name in ("sig", "bak", "ovrl", "p808"))
dnsmos_sig_nb, dnsmos_bak_nb, dnsmos_ovrl_nb = (partial(_heard_narrow, name) for name in ("sig", "bak", "ovrl"))


def _metric(
    name: str,
    definition: str,
    function: Function,
    rates: tuple[int, ...] = (),
    package: str | None = None,
    unit: str = "",
    higher: bool = True,
) -> Metric:
    return Metric(name, unit, higher, definition, function, rates, package)


def _dnsmos_metric(name: str, about: str, function: Function, rate: int = 16000) -> Metric:
    """DNSMOS has four ratings that differ in what the listeners were asked."""
    definition = f"DNSMOS {about}, 1 to 5: mean over 9.01 s windows every second at 16 kHz, no reference"
    definition += "." if rate == 16000 else f", of the sound at {rate} Hz brought up to 16 kHz."
    return Metric(name, "", True, definition, function, (rate,), "speechmos", needs_reference=False)


_BOTH = (8000, 16000)
_HU = "Hu and Loizou 2008, 1 to 5, from wide-band PESQ, LLR and WSS as published (LLR not capped)"
_LIST = (
    _metric("pesq_wb", "Wide-band PESQ, ITU-T P.862.2 MOS-LQO at 16 kHz, 1.0 to 4.64.", pesq_wb, (16000,), "pesq"),
    _metric("pesq_nb", "Narrow-band PESQ, ITU-T P.862.1 MOS-LQO, 1.0 to 4.55.", pesq_nb, _BOTH, "pesq"),
    _metric("stoi", "Short-time objective intelligibility (Taal 2011), not extended, to 1.", stoi, (), "pystoi"),
    _metric("estoi", "Extended STOI (Jensen and Taal 2016), to 1.", estoi, (), "pystoi"),
    _metric("si_sdr", "Scale-invariant SDR, means kept, clamped to -100..100 dB.", si_sdr, unit="dB"),
    _metric("ssnr", "Segmental SNR: mean over 30 ms frames, each clipped to -10..35 dB.", parts.ssnr, _BOTH, unit="dB"),
    _metric("csig", f"Signal distortion rating of {_HU}.", csig, (16000,), "pesq"),
    _metric("cbak", f"Background rating of {_HU}, and SSNR.", cbak, (16000,), "pesq"),
    _metric("covl", f"Overall rating of {_HU}.", covl, (16000,), "pesq"),
    _metric(
        "llr", "Log-likelihood ratio of linear predictions, lowest 95 % of frames.", parts.llr, _BOTH, higher=False
    ),
    _metric("wss", "Klatt's weighted spectral slope distance, lowest 95 % of frames.", parts.wss, _BOTH, higher=False),
    _metric("fwssnr", "Frequency-weighted segmental SNR of 25 bands, -10..35 dB.", parts.fwssnr, _BOTH, unit="dB"),
    _dnsmos_metric("dnsmos_ovrl", "overall quality (P.835)", dnsmos_ovrl),
    _dnsmos_metric("dnsmos_sig", "speech quality (P.835)", dnsmos_sig),
    _dnsmos_metric("dnsmos_bak", "background quality (P.835)", dnsmos_bak),
    _dnsmos_metric("dnsmos_p808", "quality (P.808)", dnsmos_p808),
    _dnsmos_metric("dnsmos_ovrl_nb", "overall quality (P.835)", dnsmos_ovrl_nb, 8000),
    _dnsmos_metric("dnsmos_sig_nb", "speech quality (P.835)", dnsmos_sig_nb, 8000),
    _dnsmos_metric("dnsmos_bak_nb", "background quality (P.835)", dnsmos_bak_nb, 8000),
    _metric(
        "mr_stft",
        "Multi-resolution STFT distance (Parallel WaveGAN's three), spectral convergence + log magnitude.",
        vocoding.mr_stft,
        higher=False,
    ),
    _metric(
        "log_mel_l1",
        "Mean |difference| of ln mel, 80 bands to 8 kHz, 1024 samples every 256.",
        vocoding.log_mel_l1,
        vocoding.MEL_RATES,
        higher=False,
    ),
    _metric(
        "mcd",
        "Mel-cepstral distortion, c_1 to c_13 of the cosine transform of those bands, frame by frame, no warping.",
        vocoding.mcd,
        vocoding.MEL_RATES,
        unit="dB",
        higher=False,
    ),
    _metric(
        "f0_rmse",
        "Root mean square difference of f0 (pYIN, 60 to 500 Hz, every 10 ms) where both are voiced.",
        vocoding.f0_rmse,
        (pitch.RATE,),
        unit="Hz",
        higher=False,
    ),
    _metric("vuv_f1", "F1 score of the frames that pYIN calls voiced, to 1.", vocoding.vuv_f1, (pitch.RATE,)),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _LIST}
DEFAULT_METRICS = ("pesq_wb", "estoi", "si_sdr", "stoi", "ssnr", "csig", "cbak", "covl")


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """The names as a tuple without repeats; raises ValueError for an unknown one and lists the choices."""
    chosen = tuple(dict.fromkeys(names))
    for name in chosen:
        if name not in METRICS:
            raise ValueError(f"unknown metric {name!r}; choose from: {', '.join(METRICS)}")
    return chosen


def measure(
    reference: np.ndarray, estimate: np.ndarray, sample_rate: int, names: Iterable[str] = DEFAULT_METRICS
) -> Scores:
    """Ask the named metrics about one file.

    reference, estimate: floats in [-1, 1], `n` or `c n`; channels are judged one by one and averaged.
    sample_rate: Hz, of both. Raises ValueError only for a misuse: an unknown name, or samples that are not floats.

    >>> wave = np.sin(np.arange(16000) / 7.0)
    >>> round(measure(wave, wave + 0.1 * np.cos(np.arange(16000) / 7.0), 16000, ["si_sdr"])["si_sdr"])
    20
    """
    for what, wave in (("reference", reference), ("estimate", estimate)):
        if not np.issubdtype(wave.dtype, np.floating) or wave.ndim not in (1, 2):
            raise ValueError(f"expected {what} as floats of shape n or (c, n), got {wave.dtype} {wave.shape}")
    scores = Scores()
    waves = np.atleast_2d(reference), np.atleast_2d(estimate)
    for name in check_names(names):
        try:
            scores.values[name] = _over_channels(METRICS[name], *waves, sample_rate)
        except ImportError as error:
            scores.reasons[name] = f"package {error.name!r} is missing; {INSTALL}"
        except Exception as error:  # noqa: BLE001 (packages may raise anything; one file must not end the run)
            known = isinstance(error, ValueError)
            scores.reasons[name] = str(error) if known else f"{type(error).__name__}: {error}"
        scores.values.setdefault(name, math.nan)
    return scores


def _over_channels(metric: Metric, reference: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """The mean over channels; raises ValueError with the reason when a channel cannot be judged."""
    if metric.needs_reference:
        _require_same_shape(reference, estimate)
        _require_sound("reference", reference)
    _require_sound("estimate", estimate)
    rate = _rate_for(metric, sample_rate)
    pairs = zip(reference, estimate, strict=True) if metric.needs_reference else ((row, row) for row in estimate)
    at_rate = [tuple(perceptual.resample(row, sample_rate, rate) for row in pair) for pair in pairs]
    value = float(np.mean([metric.function(r, e, rate) for r, e in at_rate]))
    if not math.isfinite(value):
        raise ValueError(f"{metric.name} gave no finite number")
    return value


def _require_same_shape(reference: np.ndarray, estimate: np.ndarray) -> None:
    (channels, n), (got_channels, m) = reference.shape, estimate.shape
    if n != m:
        raise ValueError(f"wrong length: expected {n} samples as in the reference, got {m}")
    if channels != got_channels:
        raise ValueError(f"wrong channels: expected {channels} as in the reference, got {got_channels}")


def _require_sound(what: str, wave: np.ndarray) -> None:
    if wave.size == 0:
        raise ValueError(f"the {what} is empty")
    if not np.isfinite(wave).all():
        raise ValueError(f"the {what} holds NaN or infinite samples")
    if (np.sqrt(np.mean(wave.astype(np.float64) ** 2, axis=1)) < SILENCE_RMS).any():
        raise ValueError(f"the {what} is silent")


def _rate_for(metric: Metric, sample_rate: int) -> int:
    """The rate at which the metric is computed for a recording of `sample_rate`."""
    if not metric.rates or sample_rate in metric.rates:
        return sample_rate
    below = [rate for rate in metric.rates if rate < sample_rate]
    if not below:
        raise ValueError(f"needs at least {min(metric.rates)} Hz, got {sample_rate} Hz")
    return max(below)
