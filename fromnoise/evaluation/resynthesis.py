"""Vocoders and autoencoders judged like enhancers: from a recording to its mel or its latent, and back.

    wave -> mel -> vocoder -> wave, at the recording's rate and length
    wave -> latent -> wave

An autoencoder stands beside its front end alone, into frames and back. A vocoder stands beside Griffin-Lim: the
magnitudes whose mel is the given one in the sense of least squares, none negative (50 multiplicative updates, Lee and
Seung, 2001: S <- S (B' M) / (B' B S), from the pseudoinverse), and phases by the fast Griffin-Lim algorithm, 32
iterations with momentum 0.99.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32

from fromnoise.data.audio import read, resample
from fromnoise.data.layouts import Pair, Pairs
from fromnoise.data.places import find_clips
from fromnoise.frontends.base import Frontend
from fromnoise.frontends.magnitude import griffin_lim, log_magnitude
from fromnoise.frontends.mel import MELS, Mel, filterbank
from fromnoise.types import InputError

ITERATIONS = 32
UPDATES = 50
MAX_GROUPS = 20


@runtime_checkable
class Vocoder(Protocol):
    """What is judged: a task of the toolkit, or anything with the same members."""

    @property
    def name(self) -> str: ...
    @property
    def sample_rate(self) -> int: ...
    def mel(self, wave: Any, sample_rate: int) -> Any: ...
    def __call__(self, mel: Any, seed: int = 0, steps: int | None = None, sampler: str | None = None) -> Any: ...
    def network_calls(self, steps: int | None, sampler: str | None) -> int: ...


class Resynthesis:
    """A vocoder as a model of `run.evaluate`."""

    def __init__(self, vocoder: Vocoder) -> None:
        self.vocoder, self.name = vocoder, vocoder.name

    def __call__(
        self, wave: Float[np.ndarray, "c n"], *, sample_rate: int, steps: int | None, sampler: str | None, seed: int
    ) -> Float[np.ndarray, "c n"]:
        """Every channel through mel and vocoder; the first has `seed`."""
        made = [self.vocoder(self.vocoder.mel(x, sample_rate), seed + i, steps, sampler) for i, x in enumerate(wave)]
        return _at(np.stack([np.asarray(x) for x in made]), self.vocoder.sample_rate, sample_rate, wave.shape[1])

    def network_calls(self, steps: int | None, sampler: str | None) -> int:
        """Of one recording."""
        return self.vocoder.network_calls(steps, sampler)


class Reconstruction:
    """An autoencoder as a model of `run.evaluate`."""

    def __init__(self, autoencoder: Any) -> None:
        self.autoencoder, self.name = autoencoder, autoencoder.name

    def __call__(
        self, wave: Float[np.ndarray, "c n"], *, sample_rate: int, steps: int | None, sampler: str | None, seed: int
    ) -> Float[np.ndarray, "c n"]:
        """Every channel alone, the mean of what a model of several makes of it; the first has `seed`."""
        made = [self.autoencoder(x[None], sample_rate, steps, sampler, seed + i) for i, x in enumerate(wave)]
        return np.stack([np.asarray(channels).mean(axis=0) for channels in made])

    def network_calls(self, steps: int | None, sampler: str | None) -> int:
        """Of one piece."""
        return self.autoencoder.network_calls(steps, sampler)


class FrontEnd:
    """Into a front end's frames and back, with no network, as a model of `run.evaluate`."""

    name = "front end"

    def __init__(self, frontend: Frontend) -> None:
        self.frontend = frontend

    def __call__(
        self, wave: Float[np.ndarray, "c n"], *, sample_rate: int, steps: int | None, sampler: str | None, seed: int
    ) -> Float[np.ndarray, "c n"]:
        """Every channel; steps, sampler and seed are not used."""
        rate = self.frontend.sample_rate
        inside = torch.from_numpy(np.asarray(resample(wave.astype(np.float32), sample_rate, rate)))[:, None]
        with torch.inference_mode():
            made = self.frontend.decode(self.frontend.encode(inside), inside.shape[-1])[:, 0]
        return _at(made.numpy(), rate, sample_rate, wave.shape[1])

    def network_calls(self, steps: int | None, sampler: str | None) -> int:
        """None."""
        return 0


class GriffinLim:
    """Griffin-Lim from a mel, as a model of `run.evaluate`."""

    def __init__(self, mel: Mel = MELS["tacotron2-22k"], name: str = "griffin-lim") -> None:
        self.mel, self.name = mel, name

    def __call__(
        self, wave: Float[np.ndarray, "c n"], *, sample_rate: int, steps: int | None, sampler: str | None, seed: int
    ) -> Float[np.ndarray, "c n"]:
        """Every channel through the mel and back; steps, sampler and seed are not used."""
        inside = np.asarray(resample(wave.astype(np.float32), sample_rate, self.mel.sample_rate))
        mel = self.mel.encode(torch.from_numpy(inside)[:, None])  # c m w
        lead = self.mel.n_fft // 2 if self.mel.centered else (self.mel.n_fft - self.mel.hop) // 2
        made = griffin_lim(magnitudes(mel, self.mel), self.mel.n_fft, self.mel.hop, ITERATIONS)
        return _at(made.numpy()[:, lead:], self.mel.sample_rate, sample_rate, wave.shape[1])

    def network_calls(self, steps: int | None, sampler: str | None) -> int:
        """None."""
        return 0


def magnitudes(mel: Float[torch.Tensor, "b m w"], definition: Mel) -> Float[torch.Tensor, "b f w"]:
    """The non-negative |X| whose mel comes nearest to `mel`."""
    bank = torch.tensor(filterbank(definition), dtype=mel.dtype)  # m f
    wanted = log_magnitude(definition, mel).exp()
    found = (torch.linalg.pinv(bank) @ wanted).clamp(min=1e-6)
    target = bank.T @ wanted
    for _ in range(UPDATES):
        found = found * target / (bank.T @ (bank @ found)).clamp(min=1e-12)
    return found


def _at(wave: Float[np.ndarray, "c _"], from_rate: int, to_rate: int, n: int) -> Float[np.ndarray, "c n"]:
    """At another rate, cut or filled with silence to n samples."""
    moved = np.asarray(resample(wave.astype(np.float32), from_rate, to_rate))[:, :n]
    return np.pad(moved, ((0, 0), (0, n - moved.shape[1])))


def find_recordings(root: str | Path, split: Any = "test") -> tuple[Pairs, dict[str, tuple[str, ...]]]:
    """The recordings of a folder or table (see `data.places`), each as the pair with itself, and those of each speaker.

    Speakers are given where there are 2 to MAX_GROUPS of them. Raises InputError where there is no recording, or two of
    one name.
    """
    clips = find_clips(root, split)
    base = Path(root).parent if Path(root).is_file() else Path(root)
    names = [_name(clip.path, base) for clip in clips]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise InputError(f"{root}: two recordings are called {twice!r}; keep one of them")
    groups: dict[str, tuple[str, ...]] = {}
    for clip, name in zip(clips, names, strict=True):
        groups[clip.speaker] = (*groups.get(clip.speaker, ()), name)
    several = 2 <= len(groups) <= min(MAX_GROUPS, len(clips) - 1)
    pairs = tuple(Pair(name, clip.path, clip.path) for clip, name in zip(clips, names, strict=True))
    return Pairs(pairs), groups if several else {}


def _name(path: Path, base: Path) -> str:
    inside = path.relative_to(base) if path.is_relative_to(base) else path
    return inside.with_suffix("").as_posix()


class FirstChannel:
    """A reader of `run.evaluate`: the first channel, at no more than `limit` Hz, the models' own rate."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def __call__(self, path: Path) -> tuple[Float32[np.ndarray, "1 n"], int]:
        """(wave, Hz)."""
        wave, rate = read(path)
        if rate <= self.limit:
            return wave[:1], rate
        return np.asarray(resample(wave[:1], rate, self.limit)), self.limit


def slack_of(mels: Sequence[Mel]) -> int:
    """Samples by which a vocoder's result may be longer than the recording: a hop and what rounding adds."""
    return max((mel.hop for mel in mels), default=256) + 16
