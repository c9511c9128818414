"""The fundamental frequency of a voice by pYIN.

Mauch and Dixon, "pYIN: A Fundamental Frequency Estimator Using Probabilistic Threshold Distributions", ICASSP 2014,
https://doi.org/10.1109/ICASSP.2014.6853678. Frames of W samples every `HOP`:

    d(k) = sum_{j < W} (x_j - x_{j+k})^2,    d'(k) = k d(k) / sum_{i <= k} d(i)                      YIN's difference
    a threshold s ~ Beta(2, 18) picks the first valley of d' below s, or, with weight 0.01, the lowest of all valleys

so that a valley of height h behind valleys of least height m has the probability P(h < s <= m) = F(m) - F(h), where
F(s) = 1 - (1 - s)^18 (1 + 18 s). A path of states (pitch in steps of 0.1 semitone, voiced or not) is found by Viterbi:
a voiced state sees the probability of its pitch, every unvoiced one an equal part of what is left. Pitch moves by up to
two semitones a frame, with triangular weights; voicing switches with probability 0.01.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int64

RATE = 16000  # Hz
HOP = 160  # 10 ms
WINDOW = 768  # 48 ms
LOWEST, HIGHEST = 60.0, 500.0  # Hz
STEPS = 120  # pitches an octave
SWITCH = 0.01
NO_VALLEY = 0.01
REACH = 20  # steps that the pitch may move in a frame, up or down
SHORTEST, LONGEST = int(RATE / HIGHEST), int(np.ceil(RATE / LOWEST))  # lags in samples
BINS = int(STEPS * np.log2(HIGHEST / LOWEST)) + 1


def track(wave: Float[np.ndarray, " n"], sample_rate: int = RATE) -> Float[np.ndarray, " frames"]:
    """f0 in Hz every 10 ms, NaN where the frame is unvoiced; frame t is centred on sample 160 t.

    sample_rate: 16000. Raises ValueError for another one.
    """
    if sample_rate != RATE:
        raise ValueError(f"pYIN expects {RATE} Hz, got {sample_rate} Hz; resample first")
    kind = np.ascontiguousarray(wave, np.float64)
    return _track(kind.tobytes())


@lru_cache(maxsize=4)
def _track(samples: bytes) -> Float[np.ndarray, " frames"]:
    """Remembered, since two metrics ask for the same two waves."""
    seen = observations(difference(np.frombuffer(samples)))
    states = viterbi(seen)
    pitches = LOWEST * 2 ** (np.arange(BINS) / STEPS)
    return np.where(states < BINS, pitches[states % BINS], np.nan)


def difference(wave: Float[np.ndarray, " n"]) -> Float[np.ndarray, "frames lags"]:
    """d' of each frame at the lags 0..LONGEST + 1."""
    lags = LONGEST + 2
    size = WINDOW + lags
    lead = (WINDOW + RATE // 150) // 2  # what is compared at 150 Hz lies around the frame's time
    padded = np.pad(wave, (lead, size - lead))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::HOP]
    n_fft = 1 << (size + WINDOW - 1).bit_length()
    head = np.fft.rfft(frames[:, :WINDOW], n_fft)
    cross = np.fft.irfft(np.fft.rfft(frames, n_fft) * head.conj(), n_fft)[:, :lags]
    energy = np.cumsum(np.pad(np.square(frames), ((0, 0), (1, 0))), axis=1)
    moved = energy[:, WINDOW : WINDOW + lags] - energy[:, :lags]
    d = np.maximum(moved[:, :1] + moved - 2 * cross, 0)
    total = np.cumsum(d[:, 1:], axis=1)
    normal = np.ones_like(d)
    normal[:, 1:] = np.arange(1, lags) * d[:, 1:] / np.maximum(total, 1e-12 * np.maximum(moved[:, :1], 1e-30))
    normal[(total[:, -1] <= 1e-12) | (energy[:, -1] <= 1e-12)] = 1.0  # silence has no period
    return normal


def observations(normal: Float[np.ndarray, "frames lags"]) -> Float[np.ndarray, "frames bins"]:
    """Probability of every pitch in every frame; what is missing to 1 is unvoiced."""
    valley = np.zeros(normal.shape, dtype=bool)
    valley[:, 1:-1] = (normal[:, 1:-1] < normal[:, :-2]) & (normal[:, 1:-1] <= normal[:, 2:])
    valley[:, :SHORTEST] = valley[:, LONGEST + 1 :] = False
    height = np.where(valley, np.clip(normal, 0, 1), 1.0)
    least = np.minimum.accumulate(height, axis=1)
    before = np.pad(least[:, :-1], ((0, 0), (1, 0)), constant_values=1.0)
    chance = np.where(valley & (height < before), _below(before) - _below(height), 0.0)
    lowest = height.argmin(axis=1)
    rows = np.arange(len(normal))
    chance[rows, lowest] += np.where(valley[rows, lowest], NO_VALLEY * _below(height[rows, lowest]), 0.0)
    return _by_pitch(normal, valley, chance)


def _below(threshold: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Distribution function of Beta(2, 18)."""
    return 1 - (1 - threshold) ** 18 * (1 + 18 * threshold)


def _by_pitch(
    normal: Float[np.ndarray, "frames lags"],
    valley: Bool[np.ndarray, "frames lags"],
    chance: Float[np.ndarray, "frames lags"],
) -> Float[np.ndarray, "frames bins"]:
    """Chances of lags as chances of pitches; a valley lies at the vertex of the parabola through its three points."""
    frame, lag = np.nonzero(valley & (chance > 0))
    left, middle, right = (normal[frame, lag + i] for i in (-1, 0, 1))
    curvature = left - 2 * middle + right
    offset = np.where(curvature > 0, 0.5 * (left - right) / np.where(curvature > 0, curvature, 1), 0)
    bins = np.round(STEPS * np.log2(RATE / (lag + offset) / LOWEST)).astype(np.int64).clip(0, BINS - 1)
    seen = np.zeros((len(normal), BINS))
    np.add.at(seen, (frame, bins), chance[frame, lag])
    return seen


def viterbi(seen: Float[np.ndarray, "frames bins"]) -> Int64[np.ndarray, " frames"]:
    """The likeliest states: a pitch's number, plus BINS where it is unvoiced."""
    weights = np.log(_moves())  # to each bin, from its neighbours
    stay, switch = np.log(1 - SWITCH), np.log(SWITCH)
    voiced = np.log(np.maximum(seen, 1e-300))
    unvoiced = np.log(np.maximum(1 - seen.sum(axis=1), 1e-300) / BINS)
    score = np.stack([voiced[0], np.full(BINS, unvoiced[0])])
    back = np.zeros((len(seen), 2, BINS), dtype=np.int32)
    neighbours = np.arange(BINS)[:, None] + np.arange(2 * REACH + 1)  # into the padded scores
    base = np.arange(BINS)
    for t in range(1, len(seen)):
        padded = np.pad(score, ((0, 0), (REACH, REACH)), constant_values=-np.inf)
        moved = padded[:, neighbours] + weights  # 2, to, from
        best = moved.argmax(axis=2)
        value = np.take_along_axis(moved, best[..., None], axis=2)[..., 0]
        source = base + best - REACH  # 2, to
        kept, crossed = value + stay, value[::-1] + switch
        crosses = crossed > kept
        back[t] = np.where(crosses, source[::-1] + np.array([[BINS], [0]]), source + np.array([[0], [BINS]]))
        score = np.where(crosses, crossed, kept)
        score[0] += voiced[t]
        score[1] += unvoiced[t]
    path = np.empty(len(seen), dtype=np.int64)
    path[-1] = score.argmax()
    for t in range(len(seen) - 1, 0, -1):
        path[t - 1] = back[t].reshape(-1)[path[t]]
    return path


@lru_cache(maxsize=1)
def _moves() -> Float[np.ndarray, "bins offsets"]:
    """Probability of coming to each bin from the bin `offset - REACH` away; the moves from every bin sum to 1."""
    offsets = np.arange(-REACH, REACH + 1)
    triangle = (REACH + 1 - np.abs(offsets)).astype(np.float64)
    source = np.arange(BINS)[:, None] + offsets
    inside = (source >= 0) & (source < BINS)
    total = np.convolve(np.ones(BINS), triangle, mode="same")  # of each source
    return np.where(inside, triangle / total[source.clip(0, BINS - 1)], 1e-300)
