"""Change a recording with a generator: vary the whole, fill a gap, go on where it ends.

    vary       x_t = clean(t) x0 + noise(t) e, t the strength;           x0' = sampler(x_t, t -> 0)
    inpaint    x_1 from the prior, known outside the gap at every step    (see `samplers.inpainting`)
    extend     x_1 from the prior, known where it overlaps what is there, again and again

vary is SDEdit (Meng et al., 2021, https://arxiv.org/abs/2108.01073). The network sees pieces as long as the clips of
its training. What is joined is joined in the encoded domain, where a piece continues the very numbers of the one before
it; the recording itself is laid over the decoded result with a cross-fade of equal power, for its correlation r with
it:

    (1 - u) a + u b, divided by sqrt((1 - u)^2 + u^2 + 2 r u (1 - u)),    u from 0 to 1
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from fromnoise.frontends.resample import check_rate, resample
from fromnoise.processes.base import time_dtype
from fromnoise.samplers import PositionNoise
from fromnoise.samplers.inpainting import Inpainting
from fromnoise.tasks.base import Run, as_floats
from fromnoise.tasks.generation_model import MAX_SAMPLES, Asked, GenerationModel, Number, item_seed
from fromnoise.types import InputError, require_finite

Sounds = Float32[np.ndarray, "count 1 n"]
Wave = Float32[np.ndarray, "_"]
Kind = Literal["repaint", "adp"]
FADE = 0.02  # seconds in which the recording gives way to what is made
FRAMES = 8  # of spectra and latents, likewise


@dataclasses.dataclass(frozen=True)
class Editor:
    """A generator that changes one recording, `count` times; see `Generator.editor`.

    Variant i depends on (seed, first + i) alone. progress(done, total) hears of every step.
    """

    model: GenerationModel
    asked: Asked
    count: int = 1
    seed: int = 0
    first: int = 0
    steps: int | None = None
    sampler: str | None = None
    batch_size: int = 16
    progress: Callable[[int, int], object] | None = None

    def __post_init__(self) -> None:
        if self.count < 1 or self.first < 0 or self.batch_size < 1:
            raise InputError(
                f"expected count >= 1, first >= 0 and batch_size >= 1, got {self.count}, {self.first} and "
                f"{self.batch_size}"
            )

    @property
    def rate(self) -> int:
        """The rate in Hz of the results."""
        return self.model.frontend.sample_rate

    @property
    def clip(self) -> int:
        """Samples of the clips in training."""
        return max(1, round(self.model.config.seconds * self.rate))

    def vary(self, wave: Any, sample_rate: int, strength: Number = 0.5) -> Sounds:
        """Sounds that begin from the recording with noise added; strength near 0 keeps it, 1 forgets it."""
        if not 0 < strength <= 1:
            raise InputError(f"strength must lie above 0 and up to 1, got {strength}")
        given = self._read(wave, sample_rate)
        start = max(float(strength), self.model.process.t_min)
        run = self.model.run_from(start, self.steps, self.sampler)

        def made(batch: range, tell: Callable[[int, int, Tensor], object]) -> Float[Tensor, "b c n"]:
            noise = self._noise(batch)
            x0 = self._encoded(given, len(batch))
            t = torch.full((len(batch),), start, dtype=time_dtype(x0.device), device=x0.device)
            x = self.model.process.sample(x0, t, None, noise(x0))
            asked = dataclasses.replace(self.asked, seconds=len(given) / self.rate)
            x = self.model.sample_asked(x, asked, noise, run, start, tell)
            return self.model.frontend.decode(x, len(given))

        return self._all(made, run.sampler.evaluations(run.num_steps))

    def inpaint(
        self,
        wave: Any,
        sample_rate: int,
        start: Number,
        stop: Number,
        resamples: int = 4,
        kind: Kind = "repaint",
    ) -> Sounds:
        """The recording with what lies between start and stop, in seconds, made anew; the rest stays as it is."""
        given = self._read(wave, sample_rate)
        known = 0 <= start < stop < math.inf  # not so where one of them is no number
        a, b = (round(start * self.rate), round(stop * self.rate)) if known else (0, 0)
        if not 0 <= a < b <= len(given) or b - a == len(given):
            raise InputError(
                f"expected a gap within the {len(given) / self.rate:g} s of the recording and less than all of it, "
                f"got {start:g} to {stop:g} s"
            )
        low, high = self._window(a, b, len(given))
        piece, run = given[low:high], self.model.run_from(1.0, self.steps, self.sampler)

        def made(batch: range, tell: Callable[[int, int, Tensor], object]) -> Float[Tensor, "b c n"]:
            source = self._encoded(piece, len(batch))
            free = self._touched(a - low, b - low, source.shape[-1], len(piece))
            x = self._filled(source, ~free, self._noise(batch), run, resamples, kind, tell)
            found = self.model.frontend.decode(x, len(piece)).float().cpu().numpy()
            return torch.from_numpy(np.stack([self._patched(given, one[0], low, a, b) for one in found])[:, None])

        return self._all(made, self._inpainter(run, resamples, kind))

    def extend(
        self,
        wave: Any,
        sample_rate: int,
        seconds: Number,
        overlap: Number | None = None,
        resamples: int = 1,
        kind: Kind = "repaint",
    ) -> Sounds:
        """The recording and what may follow it, `seconds` long in all.

        overlap: seconds of what is there that a new piece is made to fit, by default half a clip of the training, or
        the whole recording where it is shorter. A model with splits goes on split by split from half a clip, always.
        """
        given = self._read(wave, sample_rate)
        total, shared = self._lengths(given, seconds, overlap)
        run = self.model.run_from(1.0, self.steps, self.sampler)
        length = self.model.frontend.shape(1, total)[-1]
        if self.model.config.splits:
            there = self._sizes(given, shared)[0]
            calls = self.model.ladder_calls(length - there, there, run)
        else:
            calls = self._inpainter(run, resamples, kind) * self._passes(given, length, shared)
        return self._all(
            lambda batch, tell: self._extended(given, total, shared, batch, run, resamples, kind, tell), calls
        )

    def joins(self, wave: Any, sample_rate: int, seconds: Number, overlap: Number | None = None) -> list[int]:
        """The samples at which `extend` joins what it makes, at the model's rate; see it for the arguments."""
        given = self._read(wave, sample_rate)
        total, shared = self._lengths(given, seconds, overlap)
        there, clip, known = self._sizes(given, shared)
        step = clip // self.model.config.splits if self.model.config.splits else clip - known
        length = self.model.frontend.shape(1, total)[-1]
        return [place * self.model.frontend.hop for place in range(there, length, step)]

    def _lengths(self, given: Wave, seconds: Number, overlap: Number | None) -> tuple[int, int]:
        """Samples in all, and those that a new piece is made to fit. Raises InputError for what cannot be."""
        if not seconds < MAX_SAMPLES / self.rate:
            raise InputError(f"expected at most {MAX_SAMPLES / self.rate:.0f} s at {self.rate} Hz, got {seconds:g}")
        total = round(seconds * self.rate)
        if total <= len(given):
            raise InputError(
                f"expected more seconds than the {len(given) / self.rate:g} s that are there, got {seconds:g}"
            )
        wanted = self.clip // 2 if overlap is None else overlap * self.rate
        shared = min(round(wanted), len(given)) if 0 <= wanted < math.inf else 0
        if not self.model.frontend.hop <= shared < self.clip:
            raise InputError(
                f"expected an overlap of {self.model.frontend.hop / self.rate:g} s at least and less than the "
                f"{self.clip / self.rate:g} s of a clip in training, got {shared / self.rate:g} s"
            )
        return total, shared

    def _passes(self, given: Wave, length: int, shared: int) -> int:
        """How many pieces follow the recording."""
        there, clip, known = self._sizes(given, shared)
        return max(1, math.ceil((length - there) / (clip - known)))

    def _sizes(self, given: Wave, shared: int) -> tuple[int, int, int]:
        """Positions: of the recording that no silence behind it touches, of a clip, of the overlap."""
        shape = lambda n: self.model.frontend.shape(1, n)[-1]  # noqa: E731
        edge = -(-self._edge() // self.model.frontend.hop)
        there = max(1, shape(len(given)) - edge)
        clip = shape(self.clip)
        return there, clip, max(1, min(shape(shared) - edge, there, clip - 1))

    def _extended(
        self,
        given: Wave,
        total: int,
        shared: int,
        batch: range,
        run: Run,
        resamples: int,
        kind: Kind,
        tell: Callable[[int, int, Tensor], object],
    ) -> Float[Tensor, "b 1 n"]:
        there, clip, known = self._sizes(given, shared)
        length = self.model.frontend.shape(1, total)[-1]
        whole = self._encoded(given, len(batch))[..., :there]
        noise = self._noise(batch, 1)  # not that of the clip with this seed, which would come again
        if self.model.config.splits:
            whole = self.model.go_on(whole, length, self.asked, noise, run, tell)
        while whole.shape[-1] < length:
            tail = whole[..., -known:]
            source = torch.nn.functional.pad(tail, (0, clip - known))
            keep = torch.arange(clip, device=source.device) < known
            x = self._filled(source, keep, noise, run, resamples, kind, tell, self._share(known, clip))
            whole = torch.cat([whole[..., :-known], x], -1)
        found = self.model.frontend.decode(whole[..., :length], total).float().cpu().numpy()
        end = min(there * self.model.frontend.hop, len(given))
        return torch.from_numpy(np.stack([self._patched(given, one[0], 0, end, total) for one in found])[:, None])

    def _filled(
        self,
        source: Tensor,
        keep: Bool[Tensor, " t"],
        noise: PositionNoise,
        run: Run,
        resamples: int,
        kind: Kind,
        tell: Callable[[int, int, Tensor], object],
        share: Float[Tensor, " t"] | None = None,
    ) -> Tensor:
        """A run from noise that keeps the source where `keep` says so, by that share in the end."""
        axes = (1,) * (source.ndim - 1) + (-1,)
        share = None if share is None else share.reshape(axes).to(source)
        sampler = Inpainting(run.sampler, source, keep.reshape(axes), resamples, kind, share)
        filled = dataclasses.replace(run, sampler=sampler)
        return self.model.sample_asked(
            self.model.process.prior(None, noise(source)), self.asked, noise, filled, 1.0, tell
        )

    def _share(self, known: int, clip: int) -> Float[Tensor, " t"]:
        """Of what is gone on from: its last samples, or frames, fade into what the network, which sees what follows,
        makes of them."""
        wanted = round(FADE * self.rate) if self.model.frontend.hop == 1 else FRAMES
        fade = max(1, min(wanted, known // 2))
        place = torch.arange(clip, dtype=torch.float32)
        return ((known - place) / (fade + 1)).clamp(0, 1)

    def _inpainter(self, run: Run, resamples: int, kind: Kind) -> int:
        """Network calls of one run."""
        blank = torch.zeros(1)
        return Inpainting(run.sampler, blank, blank.bool(), resamples, kind).evaluations(run.num_steps)

    def _edge(self) -> int:
        """Samples on either side of its own that a position's numbers are made from; an inverse's reach is longer."""
        frontend = self.model.frontend
        return getattr(frontend, "n_fft", 2 * frontend.hop) // 2 if frontend.hop > 1 else 0

    def _window(self, a: int, b: int, n: int) -> tuple[int, int]:
        """The part of the recording that the network sees: a clip's length, or the gap and as much around it."""
        hop = self.model.frontend.hop
        wanted = min(max(self.clip, 2 * (b - a)), n)
        low = min(max(0, (a + b - wanted) // 2), n - wanted) // hop * hop
        return low, min(n, low + wanted + (hop if low else 0))

    def _touched(self, a: int, b: int, positions: int, n: int) -> Bool[Tensor, " t"]:
        """Which positions see a sample of the gap; where it is open to an end, all up to that end."""
        hop, edge = self.model.frontend.hop, self._edge()
        centre = torch.arange(positions, device=next(self.model.parameters()).device) * hop
        low = -math.inf if a == 0 else a - edge
        high = math.inf if b == n else b + edge
        return (centre + hop > low) & (centre < high)

    def _patched(self, given: Wave, made: Wave, low: int, a: int, b: int) -> Wave:
        """The recording, from a to b what was made (which begins at `low`), fading over outside of the gap."""
        n = max(len(given), low + len(made))
        whole = np.zeros(n, np.float32)
        whole[: len(given)] = given
        whole[a:b] = made[a - low : b - low]
        fade = round(FADE * self.rate)
        left = min(fade, a - low)
        whole[a - left : a] = crossed(given[a - left : a], made[a - left - low : a - low])
        right = min(fade, max(0, min(len(given), low + len(made)) - b))
        whole[b : b + right] = crossed(made[b - low : b + right - low], given[b : b + right])
        return whole

    def _all(
        self, made: Callable[[range, Callable[[int, int, Tensor], object]], Float[Tensor, "b c n"]], calls: int
    ) -> Sounds:
        return np.concatenate(list(self._batches(made, calls)))

    def _batches(
        self, made: Callable[[range, Callable[[int, int, Tensor], object]], Tensor], calls: int
    ) -> Iterator[np.ndarray]:
        done = 0
        for low in range(0, self.count, self.batch_size):
            batch = range(self.first + low, self.first + min(low + self.batch_size, self.count))

            def tell(i: int, n: int, x: Tensor, size: int = len(batch)) -> None:
                nonlocal done
                done += size
                if self.progress is not None:
                    self.progress(min(done, self.count * calls), self.count * calls)

            with torch.inference_mode():
                yield made(batch, tell).float().cpu().numpy()

    def _noise(self, batch: range, stream: int = 0) -> PositionNoise:
        return PositionNoise([item_seed(self.seed, i, stream) for i in batch])

    def _encoded(self, wave: Wave, batch: int) -> Tensor:
        """The recording as the network sees it, once for each variant."""
        like = next(self.model.parameters())
        x = self.model.frontend.encode(torch.from_numpy(wave).to(like)[None, None])
        return x.expand(batch, *x.shape[1:])

    def _read(self, wave: Any, sample_rate: int) -> Wave:
        """One channel at the model's rate. Raises InputError for what cannot be used."""
        samples = np.atleast_2d(as_floats(wave))
        check_rate(sample_rate, "the recording")
        if len(samples) != 1:
            raise InputError(f"expected one channel, got {len(samples)}; choose one")
        require_finite(torch.from_numpy(samples), "the recording")
        if not samples.any():
            raise InputError("the recording is silent; expected a sound")
        return np.asarray(resample(samples.astype(np.float32), sample_rate, self.rate))[0]


def crossed(a: Wave, b: Wave) -> Wave:
    """From a to b at equal power; see the module."""
    if len(a) == 0:
        return a
    u = np.linspace(0, 1, len(a) + 2, dtype=np.float32)[1:-1]
    power = math.sqrt(float(np.square(a).sum()) * float(np.square(b).sum()))
    r = max(0.0, float((a * b).sum()) / power) if power > 0 else 1.0
    return ((1 - u) * a + u * b) / np.sqrt((1 - u) ** 2 + u**2 + 2 * r * u * (1 - u))
