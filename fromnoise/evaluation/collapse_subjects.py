"""What a model of each task is told, for `collapse`: its condition C, that of silence, its label and its samples.

    enhance    C = the noisy recording, or what the generator makes of it; the recordings' clean halves are the labels
    separate   C = the mixture
    vocode     C = the mel spectrogram; likeness is that of mels, so that C is all that the label says: A <= 1
    generate   C = a label, or a text, with no label or text as silence. The label to compare with is the mean of other
               recordings of that class, and the recording itself stands for what C could say; of texts it is the
               recording alone, and A is not defined

The process's observation y stays the item's own throughout: only what the network is told is exchanged. Items are the
middles of recordings, all of one length.
"""

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fromnoise.conditioning.labels import NONE, label_number
from fromnoise.data.audio import read, resample
from fromnoise.data.layouts import find_pairs
from fromnoise.data.places import Clip, find_clips
from fromnoise.data.sources import find_mixtures
from fromnoise.denoiser import Denoiser
from fromnoise.evaluation.collapse import BATCH, Features, Rows, Subject, distance
from fromnoise.frontends import STFT, pad_frames
from fromnoise.samplers import Denoise, PositionNoise
from fromnoise.tasks.base import Run, fit
from fromnoise.tasks.separation_model import in_order_of
from fromnoise.tasks.sources import from_basis, permutations_of, to_basis
from fromnoise.types import Condition, InputError

LEAST_SECONDS = 0.25
PROTOTYPES = 20
"""Recordings of a class that its mean is taken over."""
ALIKE = 0.9
"""Two recordings that correlate so much hold the same sound: no swap."""
Waves = Float[Tensor, "b K n"]
Named = Sequence[tuple[str, np.ndarray]]  # name and wave `k n`, each of its own length


def subject_of(
    public: Any, data: str, split: str, limit: int, seconds: float, steps: int | None, sampler: str | None
) -> tuple[Subject, Run]:
    """The model and an even choice of `limit` items of its data, and its run. Raises InputError where there is no
    condition."""
    makers: Mapping[str, Callable[..., Subject]] = {
        "enhance": _enhancer,
        "separate": _separator,
        "vocode": _vocoder,
        "generate": _generator,
    }
    if public.task not in makers:
        raise InputError(
            f"the model {public.name!r} is for the task {public.task!r}; expected one of: {', '.join(makers)}"
        )
    if limit < 2 or not seconds > 0:
        raise InputError(f"expected two items or more and seconds > 0, got {limit} and {seconds}")
    run = public.model.default_run(steps, sampler)
    return makers[public.task](public, data, split, limit, seconds, run), run


def _enhancer(public: Any, data: str, split: Any, limit: int, seconds: float, run: Run) -> Subject:
    model, rate = public.model, public.sample_rate
    pairs = _even(find_pairs(data, split), limit)
    loaded = [(pair.name, _pair_at(rate, pair.clean, pair.noisy, pair.name)) for pair in pairs]
    names, waves = _cropped(loaded, rate, seconds, public.device)
    clean, noisy = waves[:, :1], waves[:, 1:]
    multiple, padding = model.config.frame_multiple, model.config.frame_padding
    x0, y = (pad_frames(x, multiple, padding) for x in model.encode_pair(clean, noisy))
    true, silent = _chunked(model.given, y), _chunked(model.given, torch.zeros_like(y))
    gain, n = model.gain_of(noisy), waves.shape[-1]

    def heard(x: Tensor, rows: Rows) -> Waves:
        return model.frontend.decode(x, n) / gain[rows]

    def sample(rows: Rows, seeds: Sequence[int]) -> tuple[Tensor, Waves]:
        x = model.restore(model.frontend.encode((noisy * gain)[rows]), PositionNoise(seeds), run)
        return x, heard(x, rows)

    estimate, observation = (torch.cat([getattr(g, name) for g in true]) for name in ("estimate", "observation"))
    condition = heard(estimate, torch.arange(len(names), device=y.device)) if model.generator is not None else noisy
    return Subject(
        name=public.name,
        names=names,
        what="the noisy recording" if model.generator is None else "the generator's estimate",
        process=model.process,
        clean=x0,
        observation=observation,
        told=_joined([g.condition for g in true]),
        silent=_joined([g.condition for g in silent]),
        partner=_partners(clean),
        denoise=lambda rows, told: model.denoiser.bind(observation[rows], told),
        sample=sample,
        features=_magnitudes(rate),
        label=_magnitudes(rate)(clean),
        reference=_magnitudes(rate)(condition),
        sample_rate=rate,
        waves={"noisy": noisy, "condition": condition, "label": clean},
        shown={"condition": estimate},
    )


def _separator(public: Any, data: str, split: str, limit: int, seconds: float, run: Run) -> Subject:
    model, rate, count = public.model, public.sample_rate, public.sources
    found = _even(find_mixtures(data, split, "min", rate, count), limit)
    loaded = []
    for mixture in found:
        sources = mixture.load()
        if len(sources) != count:
            raise InputError(f"{mixture.name} has {len(sources)} sources, the model {public.name!r} {count}")
        loaded.append((mixture.name, np.concatenate([sources, mixture.mixture(sources)[None]])))
    names, waves = _cropped(loaded, rate, seconds, public.device)
    mix, sources = model.normal_pair(waves[:, :count], waves[:, count:])
    y, level = model.observed(mix)
    level = level.expand(len(mix), -1, -1)
    between = model.denoiser.between

    def denoise(rows: Rows, told: Condition) -> Denoise:
        """Told another mixture, but with the states' own level, and consistent with the item's own mixture."""
        own = Condition(signal=mix[rows])
        inner = model.denoiser
        network = Denoiser(inner.backbone, inner.process, inner.prediction, lambda net, _: between(net, own))
        found = network.bind(y[rows], told)
        return lambda x, t: model.consistent(found(x, t), y[rows])

    def error(estimate: Tensor, clean: Tensor) -> Tensor:
        """In the best order of the sources: late in the path the state does not say which is which."""
        a, b = from_basis(estimate), from_basis(clean)
        return torch.stack([distance(a, b[:, list(order)]) for order in permutations_of(count)]).amin(0)

    def sample(rows: Rows, seeds: Sequence[int]) -> tuple[Tensor, Waves]:
        found = in_order_of(sources[rows], model.separate(mix[rows], PositionNoise(seeds), run))
        return found, found

    features = _magnitudes(rate)
    return Subject(
        name=public.name,
        names=names,
        what="the mixture",
        process=model.process,
        clean=to_basis(sources) / level,
        observation=y,
        told=Condition(signal=mix),
        silent=Condition(signal=torch.zeros_like(mix)),
        partner=_partners(mix),
        denoise=denoise,
        sample=sample,
        features=features,
        label=features(sources),
        reference=features(mix).expand(-1, count, -1),
        sample_rate=rate,
        error=error,
        waves={"condition": mix, "label": sources},
        shown={"condition": mix, "label": sources},
    )


def _vocoder(public: Any, data: str, split: Any, limit: int, seconds: float, run: Run) -> Subject:
    model, rate = public.model, public.sample_rate
    clips = _even(find_clips(data, split), limit)
    names, clean = _cropped([_sound(clip, rate) for clip in clips], rate, seconds, public.device)
    clean = clean[..., : clean.shape[-1] // model.mel.hop * model.mel.hop]
    n, x0 = clean.shape[-1], model.frontend.encode(clean)
    mel, silence = model.mel.encode(clean), model.mel.encode(torch.zeros_like(clean))
    y, told, scale = model.given(mel, n)
    x0 = x0 if scale is None else x0 / scale

    def sample(rows: Rows, seeds: Sequence[int]) -> tuple[Tensor, Waves]:
        wave = model.sample(mel[rows], PositionNoise(seeds), run)[..., :n]
        return model.frontend.encode(wave), wave

    def features(waves: Waves) -> Features:
        return model.mel.encode(waves).flatten(1)[:, None]

    return Subject(
        name=public.name,
        names=names,
        what="the mel spectrogram",
        process=model.process,
        clean=x0,
        observation=y,
        told=told,
        silent=Condition(frames=silence, signal=told.signal),
        partner=_partners(clean),
        denoise=lambda rows, told: model.denoiser.bind(None if y is None else y[rows], told),
        sample=sample,
        features=features,
        label=features(clean),
        reference=features(clean),
        sample_rate=rate,
        kept=frozenset() if scale is None else frozenset({"signal"}),
        waves={"label": clean},
        shown={"condition": mel[:, None]},
    )


def _generator(public: Any, data: str, split: Any, limit: int, seconds: float, run: Run) -> Subject:
    model, rate = public.model, public.sample_rate
    if not (model.labels or model.text):
        raise InputError(f"the model {public.name!r} generates freely: it has no condition that could collapse")
    clips = find_clips(data, split)
    chosen = _even(clips, limit)
    n = public.num_samples(None)
    loaded = [_sound(clip, rate) for clip in chosen]
    names = tuple(name for name, _ in loaded)
    clean = torch.from_numpy(np.stack([fit(wave, n) for _, wave in loaded])).to(public.device)
    words = [clip.label if model.labels else _text(clip) for clip in chosen]
    told = _told(model, words)
    partner = _next([word != words[0] for word in words], lambda i, j: words[i] != words[j])

    def sample(rows: Rows, seeds: Sequence[int]) -> tuple[Tensor, Waves]:
        noise = PositionNoise(seeds)
        wanted = told[rows] if isinstance(told, Tensor) else [told[i] for i in rows.tolist()]
        x = model.sample(model.prior(noise, len(rows), n), wanted, noise, run)
        return x, model.frontend.decode(x, n)

    features = _magnitudes(rate)
    label = features(clean)
    if model.labels:
        others = [clip for clip in clips if clip not in chosen]
        means = {word: _prototype(others, word, rate, n, features, public) for word in dict.fromkeys(words)}
        label = torch.stack([means[word] for word in words])
    return Subject(
        name=public.name,
        names=names,
        what="the label" if model.labels else "the text",
        process=model.process,
        clean=model.frontend.encode(clean),
        observation=None,
        told=model.condition(told),
        silent=model.condition(model.told(None, len(words))),
        partner=torch.tensor(partner, device=public.device),
        denoise=lambda rows, told: model.denoiser.bind(None, told),
        sample=sample,
        features=features,
        label=label,
        reference=features(clean) if model.labels else None,
        sample_rate=rate,
        waves={"label": clean},
        words=tuple(words),
    )


def _told(model: Any, words: Sequence[str]) -> Tensor | list[str]:
    """What the model is told of each item."""
    if not model.labels:
        return list(words)
    device = next(model.parameters()).device
    numbers = [label_number(word or None, model.labels) for word in words]
    if NONE in numbers:
        raise InputError("expected recordings with labels (a folder or a column each); some have none")
    return torch.tensor(numbers, device=device)


def _text(clip: Clip) -> str:
    """The first caption of a recording, or its label."""
    captions = getattr(clip, "captions", ())
    text = captions[0] if captions else str(clip.facts.get("caption") or clip.label)
    if not text:
        raise InputError(f"{clip.path}: has neither caption nor label; a model of texts needs one of them")
    return text


def _prototype(
    clips: Sequence[Clip], word: str, rate: int, n: int, features: Callable[[Waves], Features], public: Any
) -> Float[Tensor, "1 d"]:
    """The mean of features over other recordings of a class."""
    same = _even([clip for clip in clips if clip.label == word], PROTOTYPES)
    if not same:
        raise InputError(f"no recording of {word!r} is left to compare with; lower --limit")
    waves = np.stack([fit(_sound(clip, rate)[1], n) for clip in same])
    return features(torch.from_numpy(waves).to(public.device)).mean(0)


def _sound(clip: Clip, rate: int) -> tuple[str, Float[np.ndarray, "1 n"]]:
    wave, own = read(clip.path)
    return clip.path.stem, np.asarray(resample(wave[:1], own, rate))


def _pair_at(rate: int, clean: Path, noisy: Path, name: str) -> Float[np.ndarray, "2 n"]:
    """Both of a pair, first channels, at a rate."""
    (x, own), (y, other) = read(clean), read(noisy)
    if own != other:
        raise InputError(f"{name}: the noisy file has {other} Hz, the clean one {own} Hz; expected the same")
    n = min(x.shape[1], y.shape[1])
    return np.asarray(resample(np.concatenate([x[:1, :n], y[:1, :n]]), own, rate))


def _cropped(loaded: Named, rate: int, seconds: float, device: torch.device) -> tuple[tuple[str, ...], Waves]:
    """The middles of recordings, all as long as the shortest, at most `seconds`; what is very short or silent goes."""
    least = LEAST_SECONDS * rate
    kept = [(name, wave) for name, wave in loaded if wave.shape[1] >= least and wave.any(axis=1).all()]
    lost = [name for name, _ in loaded if name not in dict(kept)]
    if lost:
        warnings.warn(f"left out, silent or shorter than {LEAST_SECONDS} s: {', '.join(lost)}", stacklevel=2)
    if len(kept) < 2:
        raise InputError(
            f"expected two recordings or more of at least {LEAST_SECONDS} s that are not silent, got {len(kept)}"
        )
    n = min(round(seconds * rate), *(wave.shape[1] for _, wave in kept))
    starts = [(wave.shape[1] - n) // 2 for _, wave in kept]
    waves = np.stack([wave[:, start : start + n] for start, (_, wave) in zip(starts, kept, strict=True)])
    return tuple(name for name, _ in kept), torch.from_numpy(waves.astype(np.float32)).to(device)


def _partners(waves: Waves) -> Rows:
    """For each item the next one that holds another sound."""
    units = waves[:, 0] / waves[:, 0].norm(dim=1, keepdim=True).clamp(min=1e-12)
    alike = (units @ units.T).abs().cpu().numpy() > ALIKE
    found = _next(list(~alike[0]), lambda i, j: not alike[i, j])
    return torch.tensor(found, device=waves.device)


def _next(other: Sequence[Any], differ: Callable[[int, int], Any]) -> list[int]:
    """For each item the next, round the end, that differs; raises InputError where all are the same."""
    count = len(other)
    if not any(other):
        raise InputError("all items have the same condition; there is nothing to exchange: give data of several")
    turns = [[(i + k) % count for k in range(1, count)] for i in range(count)]
    return [next((j for j in turn if differ(i, j)), turn[0]) for i, turn in enumerate(turns)]


def _magnitudes(rate: int) -> Callable[[Waves], Features]:
    """The root of the magnitudes of windows of about 32 ms, a quarter apart."""
    size = max(16, 2 ** round(float(np.log2(0.032 * rate))))
    front = STFT(rate, size, size // 4)

    def features(waves: Waves) -> Features:
        spectra = front.encode(waves)  # b 2K f t
        return spectra.unflatten(1, (-1, 2)).norm(dim=2).flatten(2)

    return features


def _chunked(function: Callable[[Tensor], Any], x: Tensor) -> list[Any]:
    """The answers to an item after the other in small batches."""
    return [function(part) for part in x.split(BATCH)]


def _joined(parts: Sequence[Condition]) -> Condition:
    """One condition of many."""
    names = [field.name for field in dataclasses.fields(Condition)]
    fields = {name: [getattr(part, name) for part in parts] for name in names}
    return Condition(**{name: None if values[0] is None else torch.cat(values) for name, values in fields.items()})


def _even(items: Sequence[Any], limit: int) -> list[Any]:
    """An even choice of at most so many."""
    count = min(limit, len(items))
    return [items[int(i)] for i in np.linspace(0, len(items) - 1, count).round()]
