"""The verbs of the tasks, as in `fromnoise.tasks`, with numpy around exported networks."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from fromnoise.runner import fronts
from fromnoise.runner.engine import Folder, Network
from fromnoise.runner.noise import position_noise
from fromnoise.runner.pieces import Number, as_planes, fit, follow, in_pieces, lengths, resample
from fromnoise.runner.program import Call, execute

SILENCE = 1e-7
LEAST_DEVIATION = 1e-5
LEAST_POWER = 1e-4


class Runner:
    """What the tasks share: the facts of an export, its network and its run."""

    task: str

    def __init__(self, folder: Folder) -> None:
        self.facts = folder.facts
        self.name: str = self.facts["name"]
        self.sample_rate: int = self.facts["sample_rate"]
        self.settings: Mapping[str, Any] = self.facts["settings"]
        self.front = fronts.front(self.facts["frontend"])
        network = folder.network("network")
        if network is None:
            raise ValueError(f"the export of {self.name!r} holds no network; export the model again")
        self.network: Network = network
        self.tables = folder.tables

    def sampled(
        self,
        call: Call,
        shape: tuple[int, ...],
        seed: int,
        offset: int,
        given: Sequence[np.ndarray | None],
        run: str = "default",
        earlier: int = 0,
    ) -> np.ndarray:
        """The result of a run for states of `shape`; `earlier` runs drew from the same noise before."""
        program = self.facts["runs"][run]
        before = earlier * program["draws"]
        return execute(program, given, call, lambda draw: position_noise([seed], before + draw, shape, offset))

    def answer(self, x: np.ndarray, time: float, **told: np.ndarray) -> np.ndarray:
        """One network call."""
        return self.network({"x": x, "t": np.full(len(x), time, np.float32), **told})


class Enhancer(Runner):
    """Noisy speech in, clean speech out, at the rate, length, channels and level of the input."""

    task = "enhance"

    def __init__(self, folder: Folder) -> None:
        super().__init__(folder)
        self.generator = folder.network("generator")
        self.refiner = self.generator if self.settings["reuses_generator"] else folder.network("refiner")

    def __call__(
        self, noisy: Any, sample_rate: int, seed: int = 0, segment: Number = 30.0, overlap: Number = 0.05
    ) -> np.ndarray:
        """noisy: `n` or `c n`, full scale at 1. segment, overlap: seconds, as `fromnoise enhance`."""
        planes = as_planes(noisy)
        inside = resample(planes, sample_rate, self.sample_rate)
        cut = lengths(segment, overlap, self.settings["context"], self.settings["align"], self.sample_rate)
        rows = [
            in_pieces(self._channel(row, seed + c), row, cut) for c, row in enumerate(np.split(inside, len(inside)))
        ]
        clean = resample(np.concatenate(rows), self.sample_rate, sample_rate)
        return fit(clean, planes.shape[1]).reshape(np.asarray(noisy).shape)

    def _channel(self, row: np.ndarray, seed: int) -> Any:
        """The process of one channel, scaled by the level of the whole."""
        if not row.any():
            return lambda wave, start: wave
        level = {"rms": np.sqrt(np.square(row, dtype=np.float64).mean()), "peak": np.abs(row).max(), "none": 1.0}
        measured = float(level[self.settings["unit"]])
        gain = np.float32(1 / measured if measured > SILENCE else 1)
        shifts, align = self.settings["shifts"], self.settings["align"]
        delays = [i * align // shifts for i in range(shifts)]

        def enhance(wave: np.ndarray, start: int) -> np.ndarray:
            total = np.zeros_like(wave)
            for delay in delays:
                moved = np.pad(wave * gain, ((0, 0), (delay, 0)))[None]
                x = self._restore(self.front.encode(moved), seed, start // self.front.hop)
                total += self.front.decode(x, moved.shape[-1])[0, :, delay:]
            return total / (gain * np.float32(len(delays)))

        return enhance

    def _restore(self, y: np.ndarray, seed: int, offset: int) -> np.ndarray:
        s, frames, whole = self.settings, y.shape[-1], y
        y = fronts.pad_frames(y, s["frame_multiple"], s["frame_padding"])
        estimate = None if self.generator is None else regress(self.generator, y)
        told = y if estimate is None or s["condition"] == "noisy" else estimate
        if s["condition"] == "both" and estimate is not None:
            told = np.concatenate([y, estimate], 1)
        call = lambda x, time, gain: [self.answer(x, time, signal=told * np.float32(gain))]  # noqa: E731
        x = self.sampled(call, y.shape, seed, offset, [y, estimate])[..., :frames]
        if self.refiner is None:
            return x
        return regress(self.refiner, x + np.float32(s["refine_with_noisy"]) * (whole - x))


def regress(network: Network, x: np.ndarray) -> np.ndarray:
    """A regression network's estimate from x alone."""
    return network({"x": x, "t": np.ones(len(x), np.float32), "signal": x})


class Separator(Runner):
    """A mixture in, its sources `k n` out."""

    task = "separate"

    def __init__(self, folder: Folder) -> None:
        super().__init__(folder)
        self.names: list[str] = self.settings["names"]
        spectral = self.settings["spectral"]
        self.inner = None if spectral is None else fronts.STFT(spectral["stft"])

    def __call__(
        self, mixture: Any, sample_rate: int, seed: int = 0, segment: Number = 30.0, overlap: Number = 2.0
    ) -> np.ndarray:
        """mixture: `n` or `c n`; several channels are averaged to one. segment, overlap: seconds."""
        mono = as_planes(mixture).mean(axis=0, keepdims=True)
        inside = resample(mono, sample_rate, self.sample_rate)
        cut = lengths(segment, overlap, self.settings["context"], 1, self.sample_rate)
        result = in_pieces(partial(self._piece, seed), inside, cut, follow)
        return fit(resample(result, self.sample_rate, sample_rate), mono.shape[1])

    def _piece(self, seed: int, mix: np.ndarray, start: int) -> np.ndarray:
        s, k = self.settings, len(self.names)
        if float(mix.max() - mix.min()) < SILENCE:
            return np.repeat(mix / k, k, axis=0)
        mean = mix.mean()
        gain = 1 / max(float(np.sqrt(np.square(mix - mean).sum() / max(mix.shape[1] - 1, 1))), LEAST_DEVIATION)
        mean = mean if s["center"] else np.float32(0)
        normal = (mix - mean) * np.float32(gain)
        found: list[np.ndarray] = []
        for earlier, delay in enumerate(s["delays"]):
            moved = np.pad(normal, ((0, 0), (delay, 0)))
            estimate = self._separate(moved[None], seed, start, earlier)[0, :, delay:]
            found.append(estimate[follow(found[0], estimate)] if found else estimate)
        estimate = np.mean(found, axis=0)
        if s["levels"] == "match":
            energy = np.square(estimate).sum(-1, keepdims=True) + 1e-10 * mix.shape[-1]
            return estimate * (mix * estimate).sum(-1, keepdims=True) / energy
        sources = estimate / np.float32(gain) + mean / np.float32(k)
        return sources + (mix - sources.sum(0, keepdims=True)) / k if s["levels"] == "sum" else sources

    def _separate(self, mix: np.ndarray, seed: int, start: int, earlier: int) -> np.ndarray:
        """The sources `1 k n` of a normalised mixture `1 1 n`."""
        s, k, n = self.settings, len(self.names), mix.shape[-1]
        level = local_level(mix, s["level_window"]) if s["level"] == "local" else np.float32(1)
        basis = helmert(k)
        y = np.concatenate([mix / np.float32(k**0.5), np.zeros((1, k - 1, n), np.float32)], 1) / level

        def call(x: np.ndarray, time: float, gain: float) -> list[np.ndarray]:
            answer = self._on_waves(basis.T @ x * level, time, mix * np.float32(gain))
            return [basis @ answer * level ** -s["degree"]]

        return basis.T @ self.sampled(call, y.shape, seed, start, [y], earlier=earlier) * level

    def _on_waves(self, x: np.ndarray, time: float, mix: np.ndarray) -> np.ndarray:
        """The network on waves, by their spectra where it is one of spectrograms."""
        spectral, inner, n = self.settings["spectral"], self.inner, x.shape[-1]
        if spectral is None or inner is None:
            return self.answer(x, time, signal=mix)
        tail = inner.n_fft - inner.hop if spectral["tail"] else 0

        def spectra(wave: np.ndarray) -> np.ndarray:
            return fronts.pad_frames(inner.encode(fronts.pad(wave, 0, tail, "constant")), spectral["multiple"], "zero")

        answer = self.answer(spectra(x), time, signal=spectra(mix))
        return inner.decode(answer[..., : inner.frames(n + tail)], n)


def helmert(k: int) -> np.ndarray:
    """The orthonormal basis of k sources, first their scaled mean (`fromnoise.tasks.sources`)."""
    basis = np.zeros((k, k))
    basis[0] = k**-0.5
    for i in range(1, k):
        basis[i, :i], basis[i, i] = 1, -i
        basis[i] /= (i * (i + 1)) ** 0.5
    return basis.astype(np.float32)


def local_level(mix: np.ndarray, window: int) -> np.ndarray:
    """Half the root of the power in a window around each sample (`fromnoise.tasks.sources`)."""
    room = [(0, 0), (0, 0), (window // 2 + 1, window // 2)]
    total = np.cumsum(np.pad(np.square(mix, dtype=np.float64), room), axis=-1)
    power = ((total[..., window:] - total[..., :-window]) / window)[..., : mix.shape[-1]]
    return (0.5 * np.sqrt(np.maximum(power, LEAST_POWER))).astype(np.float32)


class Vocoder(Runner):
    """Mel spectrograms in, sound out."""

    task = "vocode"

    def __init__(self, folder: Folder) -> None:
        super().__init__(folder)
        self.definition = fronts.Mel(self.facts["mel"], self.tables["filterbank"])

    def mel(self, wave: Any, sample_rate: int) -> np.ndarray:
        """The mel `m w` of a recording `n`."""
        return self.definition.encode(resample(as_planes(wave)[:1], sample_rate, self.sample_rate))[0]

    def __call__(self, mel: Any, seed: int = 0, segment: Number = 30.0) -> np.ndarray:
        """`n` samples for a mel `m w`."""
        given, bands = np.asarray(mel, np.float32), len(self.definition.bank)
        if given.ndim != 2 or len(given) != bands or given.shape[1] == 0 or not np.isfinite(given).all():
            raise ValueError(f"expected a finite mel of shape ({bands}, frames), got {given.shape}")
        s, hop = self.settings, self.definition.hop
        cut = lengths(segment, 0.0, s["context"], s["align"], self.sample_rate / hop)
        return in_pieces(partial(self._piece, seed), given, cut).T.reshape(-1)

    def _piece(self, seed: int, mel: np.ndarray, start: int) -> np.ndarray:
        hop, frames = self.definition.hop, mel.shape[-1]
        n = frames * hop
        shape = (1, *self.front.shape(n if self.front.hop == 1 else (frames - 1) * hop))
        y = None
        if self.settings["observation"] == "mel" and isinstance(self.front, fronts.Magnitude):
            y = self.front.from_mel(self.definition, mel[None])
        call = lambda x, time, gain: [self.answer(x, time, frames=mel[None])]  # noqa: E731
        x = self.sampled(call, shape, seed, start * hop // self.front.hop, [y])
        return self.front.decode(x, n)[0, 0].reshape(frames, hop).T


class Generator(Runner):
    """Sounds from noise, freely or by label."""

    task = "generate"

    @property
    def labels(self) -> list[str]:
        """The classes by name."""
        return self.settings["labels"]

    def __call__(
        self, count: int = 1, label: str | None = None, seed: int = 0, seconds: Number | None = None, first: int = 0
    ) -> np.ndarray:
        """Items first, first + 1, ... of the run with `seed`, `count 1 n`."""
        if label is not None and label not in self.labels:
            raise ValueError(f"no label {label!r}; this model has: {', '.join(self.labels) or 'none'}")
        n = round((self.settings["seconds"] if seconds is None else seconds) * self.sample_rate)
        if n < 1 or count < 1:
            raise ValueError(f"expected a count and a length of at least one sample, got {count} and {n}")
        return np.concatenate([self._one(label, item_seed(seed, first + i), n) for i in range(count)])

    def _one(self, label: str | None, seed: int, n: int) -> np.ndarray:
        table = self.tables.get("labels")  # a row for each label, the last one for none
        run = "free" if label is None and table is not None else "default"
        rows = {"label": -1 if label is None else self.labels.index(label), "none": -1}
        told = [{} if table is None else {"vector": table[[rows[w]]]} for w in self.facts["runs"][run]["told"]]

        def call(x: np.ndarray, time: float, gain: float) -> list[np.ndarray]:
            return [self.answer(x, time, **vector) for vector in told]

        return self.front.decode(self.sampled(call, (1, *self.front.shape(n)), seed, 0, [], run), n)


def item_seed(seed: int, index: int) -> int:
    """The seed of item `index` of a run with `seed`."""
    return int(np.random.SeedSequence([seed % 2**64, index]).generate_state(1, np.uint64)[0])


TASKS: dict[str, type[Runner]] = {kind.task: kind for kind in (Enhancer, Separator, Vocoder, Generator)}
