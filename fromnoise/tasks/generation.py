"""Generate sounds freely, by label or from text, clean recordings with a generator, and walk between two sounds.

    generate      x_1 from the prior,                                     x0' = sampler(x_1, 1 -> 0)
    denoise       x_t = the recording (see `zero_shot`),                  x0' = sampler(x_t, t -> 0)
    interpolate   x_t = clean(t) ((1 - l) a + l b) + noise(t) e_l,        x0' = sampler(x_t, t -> 0)

a and b are encoded clips; e_l = (1 - l) e_a + l e_b (Kong et al., "DiffWave", 2021, https://arxiv.org/abs/2009.09761,
Sec. 5.4, t = 50 of 200). Two independent draws, as there, shrink the noise's variance to (1 - l)^2 + l^2, less than
the network expects at t; one shared draw keeps it, and so do the weights cos(pi l/2) and sin(pi l/2) ("spherical").

Item i of a run draws its noise from a stream of its own, by (seed, i): neither the number of items nor the size of the
batches changes it, but for the last bits of sums.
"""

import copy
import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from fromnoise.backbones import BACKBONES
from fromnoise.conditioning import TEXTS
from fromnoise.conditioning.base import tidy
from fromnoise.conditioning.labels import NONE, label_number
from fromnoise.frontends.resample import check_rate, resample
from fromnoise.processes.base import time_dtype
from fromnoise.samplers import PositionNoise
from fromnoise.tasks.autoencoding import Latent
from fromnoise.tasks.base import Ready, Run, as_floats, fit
from fromnoise.tasks.editing import Editor
from fromnoise.tasks.generation_model import MAX_SAMPLES, Asked, GenerationConfig, GenerationModel, Number, item_seed
from fromnoise.tasks.zero_shot import ZeroShot
from fromnoise.types import InputError, build, expand, require_finite

__all__ = ["GenerationConfig", "GenerationModel", "Generator"]

Progress = Callable[[int, int], object]
NOISES = ("independent", "shared")
BATCH = 16
"""Sounds that go through the network at once."""


class Generator(Ready[GenerationModel]):
    """A ready model: sounds from noise, freely, by label or from text, as float32 that is neither clipped nor scaled.

    >>> generator = fromnoise.load("digits-small")                              # doctest: +SKIP
    >>> sounds = generator(count=8, label="seven", seed=0)                      # doctest: +SKIP
    >>> sounds.shape                                                            # doctest: +SKIP
    (8, 1, 8000)
    >>> rain = fromnoise.load("sounds-small")("rain on leaves", seconds=4)      # doctest: +SKIP
    """

    task = "generate"

    def __init__(self, model: GenerationModel, name: str = "", card: Mapping[str, Any] | None = None) -> None:
        if model.process.needs_observation:
            raise ValueError(f"{type(model.process).__name__} needs an observation, and a generator has none")
        super().__init__(model, name, card)

    @property
    def sample_rate(self) -> int:
        """The rate in Hz of the sounds."""
        return self.model.frontend.sample_rate

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes by name."""
        return self.model.labels

    def network_calls(self, steps: int | None = None, sampler: str | None = None) -> int:
        """Network calls of one run; a guided one holds both halves."""
        run = self.model.default_run(steps, sampler)
        return run.sampler.evaluations(run.num_steps)

    def num_samples(self, seconds: Number | None = None) -> int:
        """Samples of a sound of so many seconds, by default as in training. Raises InputError for none or too many."""
        n = (self.model.config.seconds if seconds is None else seconds) * self.sample_rate
        if not 0.5 <= n <= MAX_SAMPLES:
            raise InputError(
                f"expected a sound of 1 to {MAX_SAMPLES} samples ({MAX_SAMPLES / self.sample_rate:.0f} s at "
                f"{self.sample_rate} Hz), got {seconds} s"
            )
        return max(round(n), 1)

    def decoding(self, steps: int | None = None, sampler: str | None = None) -> "Generator":
        """This generator of latents with another run of its autoencoder's decoder: steps and sampler, None as they are.

        >>> quick = generator.decoding(steps=10)                                # doctest: +SKIP
        """
        if not isinstance(self.model.frontend, Latent) or self.model.autoencoder is None:
            raise InputError("this model makes sounds without an autoencoder; there is no decoding to choose steps for")
        model = copy.copy(self.model)  # the same networks
        run = self.model.autoencoder.default_run(steps, sampler)
        model.frontend = dataclasses.replace(self.model.frontend, run=run)
        return Generator(model, self.name, self.card)

    @property
    def reads_text(self) -> bool:
        """Whether it is told texts; otherwise labels, if any."""
        return self.model.text is not None

    def __call__(
        self,
        count: int | str | Sequence[str] = 1,
        label: str | int | None = None,
        seed: int = 0,
        steps: int | None = None,
        sampler: str | None = None,
        guidance: Number | None = None,
        seconds: Number | None = None,
        first: int = 0,
        batch_size: int = BATCH,
        text: str | None = None,
        negative: str | None = None,
    ) -> Float32[np.ndarray, "count c n"]:
        """Items first, first + 1, ... of the run with `seed`.

        count: how many; or the text, for one sound of it, or several, for one of each. label: name or number of a
        class, text: what is to be heard; None to generate freely. negative: a text to guide away from. steps, sampler,
        guidance, seconds: other than the model's own; a model that is told durations hears of seconds. batch_size:
        sounds made at once, for memory. Raises InputError for what cannot be made.
        """
        if isinstance(count, str):
            count, text = 1, count
        if isinstance(count, Sequence):
            options = (None, seed, steps, sampler, guidance, seconds, first, batch_size, None, negative)
            return np.concatenate([self(one, *options) for one in count])
        batches = self.batches(
            count, label, seed, steps, sampler, guidance, seconds, first, batch_size, None, text, negative
        )
        return np.concatenate(list(batches))

    def batches(
        self,
        count: int = 1,
        label: str | int | None = None,
        seed: int = 0,
        steps: int | None = None,
        sampler: str | None = None,
        guidance: Number | None = None,
        seconds: Number | None = None,
        first: int = 0,
        batch_size: int = BATCH,
        progress: Progress | None = None,
        text: str | None = None,
        negative: str | None = None,
    ) -> Iterator[Float32[np.ndarray, "b c n"]]:
        """The same, batch by batch as they are made; progress(done, total) hears of every step."""
        if count < 1 or first < 0 or batch_size < 1:
            raise InputError(
                f"expected count >= 1, first >= 0 and batch_size >= 1, got {count}, {first} and {batch_size}"
            )
        n, run = self.num_samples(seconds), self.model.run_from(1.0, steps, sampler)
        asked = dataclasses.replace(self.asked(label, guidance, text, negative), seconds=seconds)
        self._warn_of_length(n)
        return self._batches(range(first, first + count), batch_size, n, asked, seed, run, progress)

    def _batches(
        self, items: range, size: int, n: int, asked: Asked, seed: int, run: Run, progress: Progress | None
    ) -> Iterator[Float32[np.ndarray, "b c n"]]:
        # told that it is short, a sound ends within its clip: the clip is made, as in training, and cut
        made = n if self.model.duration is None else max(n, self.num_samples())
        for done in range(0, len(items), size):
            batch = items[done : done + size]

            def tell(i: int, steps: int, x: Tensor, done: int = done, count: int = len(batch)) -> None:
                if progress is not None:
                    progress(done * steps + (i + 1) * count, len(items) * steps)

            with torch.inference_mode():
                noise = PositionNoise([item_seed(seed, i) for i in batch])
                x = self.model.prior(noise, len(batch), made)
                x = self.model.sample_asked(x, asked, noise, run, callback=tell)
                wave = self.model.frontend.decode(x, made)[..., :n].float().cpu().numpy()
            yield wave

    def asked(
        self,
        label: str | int | None = None,
        guidance: Number | None = None,
        text: str | None = None,
        negative: str | None = None,
    ) -> Asked:
        """What is to be heard, checked. Raises InputError for what this model cannot be told, and warns of guidance
        that has nothing to guide to and of texts that are not read to their end."""
        if guidance is not None and not 0 <= guidance < math.inf:
            raise InputError(
                f"guidance must be a number from 0 (no label) upwards, 1 for the plain label; got {guidance}"
            )
        asked = Asked(self._words(text, "text"), self._words(negative, "negative text"), guidance)
        if not self.reads_text:
            asked = Asked(label_number(label, self.labels), None, guidance)
        elif label is not None:
            raise InputError(f"this model reads texts and has no labels; give the text {str(label)!r} instead")
        if guidance not in (None, 1) and asked.what in (None, NONE) and asked.away is None:
            warnings.warn(f"guidance has no effect without a {'text' if self.reads_text else 'label'}", stacklevel=3)
        if asked.away is not None and (self.model.config.guidance_scale if guidance is None else guidance) == 1:
            warnings.warn("a negative text has no effect with guidance 1; raise it", stacklevel=3)
        return asked

    def _words(self, text: str | None, name: str) -> str | None:
        """A text fit to be read, None for none."""
        if text is None:
            return None
        if self.model.text is None:
            known = f"the labels {', '.join(self.labels)}" if self.labels else "no labels: it generates freely"
            raise InputError(f"this model reads no {name}; it has {known}. Choose a model of texts, e.g. sounds-small")
        if not tidy(text):
            raise InputError(f"the {name} is empty; say what is to be heard, or leave it out to generate freely")
        if self.model.text.is_cut(text):
            most, unit = build("text", TEXTS, self.model.config.text or {}).max_words
            warnings.warn(f"the {name} is too long, only its first {most} {unit} are read", stacklevel=4)
        return tidy(text)

    def _warn_of_length(self, n: int) -> None:
        trained = self.num_samples()
        if n > trained and not self.model.config.splits:
            reach = build("backbone", BACKBONES, self.model.config.backbone).reach * self.model.frontend.hop
            warnings.warn(
                f"{n / self.sample_rate:g} s is longer than the {trained / self.sample_rate:g} s of the training, a "
                f"call of the network sees {reach / self.sample_rate:.2g} s to either side; parts may not fit together",
                stacklevel=3,
            )

    def editor(
        self,
        label: str | int | None = None,
        guidance: Number | None = None,
        text: str | None = None,
        negative: str | None = None,
        count: int = 1,
        seed: int = 0,
        first: int = 0,
        steps: int | None = None,
        sampler: str | None = None,
        batch_size: int = BATCH,
        progress: Progress | None = None,
    ) -> Editor:
        """This model as a changer of recordings: `vary`, `inpaint` and `extend`, each `count` times.

        >>> longer = generator.editor(text="rain").extend(wave, 16000, seconds=30)      # doctest: +SKIP
        """
        asked = self.asked(label, guidance, text, negative)
        return Editor(self.model, asked, count, seed, first, steps, sampler, batch_size, progress)

    def zero_shot(
        self,
        start_step: Number | None = None,
        add_noise: bool = False,
        scale: bool = False,
        label: str | int | None = None,
        guidance: Number | None = None,
        text: str | None = None,
    ) -> ZeroShot:
        """This model as a cleaner of recordings; see `denoise`."""
        asked = self.asked(label, guidance, text)
        start = self.model.time_of_step(start_step, 1 / 8)
        return ZeroShot(self.model, start, asked.what, guidance, scale, add_noise, self.name)

    def denoise(
        self,
        wave: Any,
        sample_rate: int,
        start_step: Number | None = None,
        add_noise: bool = False,
        scale: bool = False,
        label: str | int | None = None,
        seed: int = 0,
        steps: int | None = None,
        sampler: str | None = None,
        guidance: Number | None = None,
        segment: Number | None = None,
        overlap: Number = 0.05,
        text: str | None = None,
    ) -> Any:
        """Clean a recording held in memory by the chain from `start_step` on; its kind, shape, rate and level stay.

        start_step: as counted in the paper, 1 to the process's T; by default an eighth of T, its 25 of 200.
        scale, add_noise: bring y to its part in x_t; add the noise that x_t should hold. Both: as the network learned.
        steps: from there on. segment: seconds that the network gets at a time, by default its clips' length.
        """
        cleaner = self.zero_shot(start_step, add_noise, scale, label, guidance, text)
        return cleaner(wave, sample_rate, steps, sampler, seed, segment, overlap)

    def interpolate(
        self,
        a: Any,
        b: Any,
        sample_rate: int,
        weights: Sequence[Number] = (0.5,),
        start_step: Number | None = None,
        label: str | int | None = None,
        noise: str = "independent",
        spherical: bool = False,
        seed: int = 0,
        steps: int | None = None,
        sampler: str | None = None,
        guidance: Number | None = None,
        batch_size: int = BATCH,
        text: str | None = None,
    ) -> Float32[np.ndarray, "l c n"]:
        """Sounds between two, one for each weight of b, 0 to 1, at the model's rate and the length of its clips.

        a, b: waves `n` or `1 n`, numpy or torch, at `sample_rate`; cut, or filled with silence, at the end. start_step:
        as for `denoise`, by default a quarter of T, the paper's 50 of 200. noise, spherical: see the module. All
        weights share one draw of noise, so that they lie on one path.
        """
        shares = [float(weight) for weight in weights]
        if not shares or not all(0 <= share <= 1 for share in shares):
            raise InputError(f"expected one or more weights from 0 (all A) to 1 (all B), got {shares}")
        if noise not in NOISES or batch_size < 1:
            raise InputError(
                f"noise must be {' or '.join(NOISES)} and batch_size at least 1, got {noise!r} and {batch_size}"
            )
        asked, start = self.asked(label, guidance, text), self.model.time_of_step(start_step, 1 / 4)
        run = self.model.run_from(start, steps, sampler)
        x_a, x_b = self._encoded(a, sample_rate, "A"), self._encoded(b, sample_rate, "B")
        made = []
        for i in range(0, len(shares), batch_size):
            share = torch.tensor(shares[i : i + batch_size], dtype=torch.float64, device=self.device)
            draw = PositionNoise([item_seed(seed, 0)] * len(share))
            with torch.inference_mode():
                x = self._between(x_a, x_b, share, start, draw, noise == "shared", spherical)
                x = self.model.sample_asked(x, asked, draw, run, start)
                made.append(self.model.frontend.decode(x, self.num_samples()).float().cpu().numpy())
        return np.concatenate(made)

    def _encoded(self, wave: Any, sample_rate: int, name: str) -> Float[Tensor, "1 *x"]:
        """One clip as the network sees it."""
        samples = as_floats(wave)
        check_rate(sample_rate, f"recording {name}")
        if samples.ndim == 2 and len(samples) != 1:
            raise InputError(f"recording {name}: expected one channel, got {len(samples)}; choose one")
        n, like = self.num_samples(), next(self.model.parameters())
        clip = fit(np.asarray(resample(np.atleast_2d(samples), sample_rate, self.sample_rate)), n)
        x = require_finite(torch.from_numpy(np.ascontiguousarray(clip)), f"recording {name}")
        if not bool(x.any()):
            raise InputError(
                f"recording {name} is silent within its first {n / self.sample_rate:g} s; expected a sound"
            )
        return self.model.frontend.encode(x[None].to(like))

    def _between(
        self,
        a: Float[Tensor, "1 *x"],
        b: Float[Tensor, "1 *x"],
        share: Float[Tensor, " l"],
        start: float,
        noise: PositionNoise,
        shared: bool,
        spherical: bool,
    ) -> Float[Tensor, "l *x"]:
        """The states at `start` on the way from a to b."""
        there = expand(share, a)
        x0 = (1 - there) * a + there * b
        e_a = noise(x0)
        e_b = e_a if shared else noise(x0)
        angle = math.pi / 2 * share
        weights = (1 - share, share) if shared or not spherical else (angle.cos(), angle.sin())
        e = expand(weights[0], a) * e_a + expand(weights[1], a) * e_b
        t = torch.full((len(share),), start, dtype=time_dtype(a.device), device=a.device)
        return self.model.process.sample(x0, t, None, e)
