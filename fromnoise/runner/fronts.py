"""The front ends in numpy: wave, compressed spectra, log-magnitudes with Griffin-Lim, mels. Equations stand in
`fromnoise.frontends`; every array here is float32 (spectra complex64), a wave `b c n`."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

LINEAR_BELOW = 1e-12
PERIOD = 32
Settings = Mapping[str, Any]


def front(settings: Settings) -> "Front":
    """The front end that a spec of the export names."""
    name = settings["name"]
    if name not in FRONTS:
        raise ValueError(f"the runner has no front end {name!r}; it has: {', '.join(FRONTS)}")
    return FRONTS[name](settings)


def hann(n: int, root: bool = False) -> np.ndarray:
    window = 0.5 - 0.5 * np.cos(2 * math.pi * np.arange(n) / n)
    return (np.sqrt(window) if root else window).astype(np.float32)


def pad(wave: np.ndarray, left: int, right: int, padding: str) -> np.ndarray:
    """Continued at both ends by mirroring ("reflect") or by silence ("constant"); right < 0 cuts."""
    n = wave.shape[-1]
    if padding == "reflect":
        return wave[..., mirrored(n, left, right)]
    room = [(0, 0)] * (wave.ndim - 1) + [(left, max(right, 0))]
    return np.pad(wave, room)[..., : left + n + right]


def mirrored(n: int, left: int, right: int) -> np.ndarray:
    """Indices that mirror n samples at both ends, the end sample once."""
    index = np.arange(-left, n + right)
    if n == 1:
        return np.zeros_like(index)
    index = index % (2 * (n - 1))
    return np.minimum(index, 2 * (n - 1) - index)


def pad_frames(x: np.ndarray, multiple: int, padding: str) -> np.ndarray:
    """The last axis lengthened to a multiple: with zeros, mirrored frames, or the last frame."""
    t = x.shape[-1]
    missing = -t % multiple
    if missing == 0:
        return x
    if padding == "zero":
        return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)])
    return x[..., mirrored(t, 0, missing) if padding == "reflection" else np.arange(t + missing).clip(max=t - 1)]


def stft(wave: np.ndarray, n_fft: int, hop: int, window: np.ndarray) -> np.ndarray:
    """`b n` -> `b f t`, not padded."""
    frames = np.lib.stride_tricks.sliding_window_view(wave, n_fft, axis=-1)[..., ::hop, :]
    kind = np.complex64 if window.dtype == np.float32 else np.complex128
    return np.fft.rfft(frames * window, axis=-1).astype(kind).swapaxes(-1, -2)


def overlap_add(frames: np.ndarray, hop: int) -> np.ndarray:
    """`b t k` -> `b (t - 1) hop + k`."""
    b, t, k = frames.shape
    blocks = -(-k // hop)
    pieces = np.pad(frames, ((0, 0), (0, 0), (0, blocks * hop - k))).reshape(b, t, blocks, hop)
    total = np.zeros((b, t + blocks - 1, hop), frames.dtype)
    for j in range(blocks):
        total[:, j : j + t] += pieces[:, :, j]
    return total.reshape(b, -1)[:, : (t - 1) * hop + k]


def inverse_stft(spectrum: np.ndarray, n_fft: int, hop: int, window: np.ndarray, least: float) -> np.ndarray:
    """`b f t` -> `b (t - 1) hop + n_fft`, divided by the windows' energy, never less than `least`."""
    pieces = np.fft.irfft(spectrum.swapaxes(-1, -2), n_fft, axis=-1).astype(window.dtype) * window
    energy = np.broadcast_to(np.square(window), (1, spectrum.shape[-1], n_fft))
    return overlap_add(pieces, hop) / np.maximum(overlap_add(energy, hop), window.dtype.type(least))


class Front:
    """encode: wave `b c n` -> x `b ... t`; decode: x and n -> wave `b c n`; shape: of x for n samples."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.hop: int = settings.get("hop", 1)

    def encode(self, wave: np.ndarray) -> np.ndarray:
        return wave * np.float32(self.settings["scale"])

    def decode(self, x: np.ndarray, n: int) -> np.ndarray:
        return x[..., :n] / np.float32(self.settings["scale"])

    def shape(self, n: int) -> tuple[int, ...]:
        return (1, n)


class STFT(Front):
    """Compressed complex spectra, re and im as channels."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.n_fft: int = settings["n_fft"]
        self.window = hann(self.n_fft, settings["window"] == "sqrt_hann")

    def frames(self, n: int) -> int:
        usual = 1 + (n + 2 * (self.n_fft // 2) - self.n_fft) // self.hop
        return usual + (4 * (n - 1 - (usual - 1) * self.hop) > self.n_fft)

    def shape(self, n: int) -> tuple[int, ...]:
        return (2, self.n_fft // 2 + 1, self.frames(n))

    def encode(self, wave: np.ndarray) -> np.ndarray:
        b, c, n = wave.shape
        left = self.n_fft // 2
        right = (self.frames(n) - 1) * self.hop + self.n_fft - left - n
        padded = pad(wave, left, right, self.settings["padding"]).reshape(b * c, -1)
        y = self.compress(stft(padded, self.n_fft, self.hop, self.window))
        return np.stack([np.real(y), np.imag(y)], 1).reshape(b, 2 * c, *y.shape[1:])

    def decode(self, x: np.ndarray, n: int) -> np.ndarray:
        b, c2, f, t = x.shape
        pairs = x.reshape(b * c2 // 2, 2, f, t)
        spectrum = self.expand(pairs[:, 0] + 1j * pairs[:, 1])
        wave = inverse_stft(spectrum, self.n_fft, self.hop, self.window, 1e-11)[:, self.n_fft // 2 :][:, :n]
        return np.pad(wave, ((0, 0), (0, n - wave.shape[1]))).reshape(b, c2 // 2, n)

    def compress(self, spectrum: np.ndarray) -> np.ndarray:
        kind, exponent, factor = (self.settings[k] for k in ("transform", "exponent", "factor"))
        if kind == "none":
            return spectrum * np.float32(factor)
        size = np.maximum(np.abs(spectrum), np.float32(LINEAR_BELOW))
        scale = size ** np.float32(exponent - 1) if kind == "exponent" else np.log1p(size) / size
        return spectrum * (np.float32(factor) * scale)

    def expand(self, compressed: np.ndarray) -> np.ndarray:
        kind, exponent, factor = (self.settings[k] for k in ("transform", "exponent", "factor"))
        y = compressed / np.float32(factor)
        if kind == "none":
            return y
        size = np.abs(y)
        if kind == "exponent":
            return y * np.maximum(size, np.float32(LINEAR_BELOW**exponent)) ** np.float32(1 / exponent - 1)
        size = np.maximum(size, np.float32(LINEAR_BELOW))
        return y * (np.expm1(size) / size)


class Magnitude(Front):
    """Log-magnitudes; the way back by the fast Griffin-Lim algorithm."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.n_fft: int = settings["n_fft"]
        self.window = hann(self.n_fft)

    def shape(self, n: int) -> tuple[int, ...]:
        return (1, self.n_fft // 2 + 1, 1 + n // self.hop)

    def encode(self, wave: np.ndarray) -> np.ndarray:
        b, c, n = wave.shape
        right = n // self.hop * self.hop + self.n_fft // 2 - n
        padded = pad(wave, self.n_fft // 2, right, "reflect").reshape(b * c, -1)
        magnitude = np.abs(stft(padded, self.n_fft, self.hop, self.window))
        return self.scaled(np.log(np.maximum(magnitude, np.float32(self.settings["floor"])))).reshape(
            b, c, *magnitude.shape[1:]
        )

    def scaled(self, level: np.ndarray) -> np.ndarray:
        return (level - np.float32(self.settings["mean"])) / np.float32(self.settings["scale"])

    def decode(self, x: np.ndarray, n: int) -> np.ndarray:
        b, c, f, t = x.shape
        s = self.settings
        level = np.exp(np.float32(s["scale"]) * x + np.float32(s["mean"])) - np.float32(s["floor"])
        wave = self._griffin_lim(np.maximum(level, 0).reshape(b * c, f, t))[:, self.n_fft // 2 :][:, :n]
        return np.pad(wave, ((0, 0), (0, n - wave.shape[1]))).reshape(b, c, n)

    def _griffin_lim(self, magnitude: np.ndarray) -> np.ndarray:
        """In float64: the iterations amplify rounding, and so only torch's own is heard."""
        window, n_fft, hop = self.window.astype(np.float64), self.n_fft, self.hop
        phase = np.random.default_rng(0).random((magnitude.shape[1], PERIOD)) * 2 * math.pi
        phase = np.tile(phase.astype(np.float32), (1, -(-magnitude.shape[2] // PERIOD)))[:, : magnitude.shape[2]]
        spectrum = magnitude * np.exp(1j * phase.astype(np.float64))
        previous = np.zeros_like(spectrum)
        for _ in range(self.settings["iterations"]):
            consistent = stft(inverse_stft(spectrum, n_fft, hop, window, 1e-8), n_fft, hop, window)
            ahead = consistent + self.settings["momentum"] * (consistent - previous)
            spectrum = magnitude * ahead / np.maximum(np.abs(ahead), 1e-16)
            previous = consistent
        return inverse_stft(spectrum, n_fft, hop, window, 1e-8).astype(np.float32)

    def from_mel(self, mel: "Mel", values: np.ndarray) -> np.ndarray:
        """An estimate of x `b 1 f w` from a mel `b m w`, by a straight line between the bands."""
        bins = np.arange(self.n_fft // 2 + 1, dtype=np.float32)
        share = mel.bank.sum(1)
        keep = share > 0
        centre = (mel.bank * bins).sum(1)[keep] / share[keep]
        right = np.searchsorted(centre, bins).clip(1, len(centre) - 1)
        place = ((bins - centre[right - 1]) / (centre[right] - centre[right - 1])).clip(0, 1)[:, None]
        flat = mel.log_magnitude(values)[:, keep] - np.log(share[keep])[:, None]
        line = flat[:, right - 1] + place * (flat[:, right] - flat[:, right - 1])
        return self.scaled(np.maximum(line, np.float32(math.log(self.settings["floor"]))))[:, None]


class Mel:
    """A definition of a mel with its triangles `m f`."""

    def __init__(self, settings: Settings, bank: np.ndarray) -> None:
        self.settings, self.bank = settings, bank.astype(np.float32)
        self.hop: int = settings["hop"]
        window = hann(settings["win"])
        room = settings["n_fft"] - settings["win"]
        self.window = np.pad(window, (room // 2, room - room // 2))

    def encode(self, wave: np.ndarray) -> np.ndarray:
        """`b n` -> `b m t`."""
        s = self.settings
        n_fft, n = s["n_fft"], wave.shape[-1]
        left = n_fft // 2 if s["centered"] else (n_fft - self.hop) // 2
        frames = 1 + (n + 2 * left - n_fft) // self.hop if n + 2 * left >= n_fft else 1
        padded = pad(wave, left, (frames - 1) * self.hop + n_fft - left - n, s["padding"])
        spectrum = np.abs(stft(padded, n_fft, self.hop, self.window))
        if s["normalized"]:
            spectrum = spectrum / np.sqrt(np.square(self.window).sum())
        mel = self.bank @ spectrum ** np.float32(s["power"])
        if s["log"] != "none":
            log: Callable[[np.ndarray], np.ndarray] = np.log if s["log"] == "e" else np.log10
            mel = np.float32(s["multiplier"]) * log(np.maximum(mel, np.float32(s["floor"])))
        if s["low"] is None:
            return mel
        return ((mel - np.float32(s["low"])) / np.float32(s["high"] - s["low"])).clip(0, 1)

    def log_magnitude(self, mel: np.ndarray) -> np.ndarray:
        """ln of the sum over each triangle of |X|."""
        s = self.settings
        level = mel if s["low"] is None else mel * np.float32(s["high"] - s["low"]) + np.float32(s["low"])
        if s["log"] == "none":
            level = np.log(np.maximum(level, np.float32(s["floor"])))
        else:
            level = level / np.float32(s["multiplier"] / (1.0 if s["log"] == "e" else math.log(10)))
        if s["normalized"]:
            level = level + np.float32(0.5 * math.log(float(np.square(hann(s["win"]), dtype=np.float64).sum())))
        return level


FRONTS: dict[str, type[Front]] = {"wave": Front, "stft": STFT, "magnitude": Magnitude}
