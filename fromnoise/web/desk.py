"""The work behind the tabs, in plain Python: a sound in, files, a picture and words out.

One piece of work runs at a time. `tell(done, total)` hears of every sampling step; what it raises ends the work. All
that is wrong with an input is an InputError in one sentence, in which files are called by their own names.
"""

import re
import shutil
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fromnoise.data.audio import AudioReader, keep_subtype, read
from fromnoise.data.mels import is_mel, mel_stem, open_frames
from fromnoise.tasks.chunked import Chunking
from fromnoise.types import InputError
from fromnoise.web import words
from fromnoise.web.goods import (
    SEGMENT,
    Limits,
    Meter,
    Number,
    Result,
    Tell,
    draw,
    pieces,
    resampled,
    subtype_of,
    whole,
    write_alike,
)
from fromnoise.web.shelf import Shelf, steps_of

MOST_SOUNDS = 4  # generated at a time: so many players a tab has
MOST_CHANNELS = 8
KEPT = 8  # results that stay on disk
Settings = tuple[str, str, Number | None, str, Number | None]
"""Model, quality, steps, sampler and seed, as a tab gives them."""


class Desk:
    """shelf: the models. limits: of what is taken. folder: where results are written, the last KEPT of them."""

    def __init__(self, shelf: Shelf, limits: Limits, folder: Path) -> None:
        self.shelf, self.limits, self.folder = shelf, limits, folder
        self._busy = threading.Lock()

    def enhance(
        self,
        sound: str | Path | None,
        model: str,
        quality: str = "standard",
        steps: Number | None = None,
        sampler: str = "",
        seed: Number | None = 0,
        dry: Number = 0.0,
        tell: Tell | None = None,
    ) -> Result:
        """A recording with less noise. dry: share of the input to keep."""
        path = self.limits.given_file(sound)
        with self._work("enhance", (model, quality, steps, sampler, seed), path) as (enhancer, options, notes):
            noisy, rate = self._read(path)
            if not 0 <= dry <= 1:
                raise InputError(f"the share of the input to keep must lie between 0 and 1, got {dry}")
            asked = options | ({"dry": dry} if dry else {})
            runs = pieces(noisy, rate, enhancer, 0.05, options) * enhancer.model.config.shifts * len(noisy)
            clean = enhancer(noisy, rate, **asked, callback=Meter(tell, runs))
            target = self._place() / f"{path.stem}_enhanced.wav"
            subtype = keep_subtype(target, subtype_of(path))
            write_alike([target], [clean], rate, subtype)
            said = words.command("enhance", path.name, "-o", target.name, model=model, **asked)
            python = words.enhance(path.name, target.name, model, subtype, asked)
            picture = draw(target, {"before": noisy, "after": clean}, rate)
        return Result((target,), ("after",), picture, said, python, tuple(notes))

    def separate(
        self,
        sound: str | Path | None,
        model: str,
        quality: str = "standard",
        steps: Number | None = None,
        sampler: str = "",
        seed: Number | None = 0,
        tell: Tell | None = None,
    ) -> Result:
        """The sources of a mixture, scaled alike."""
        path = self.limits.given_file(sound)
        with self._work("separate", (model, quality, steps, sampler, seed), path) as (separator, options, notes):
            mixture, rate = self._read(path)
            meter = Meter(tell, pieces(mixture, rate, separator, 2.0, options))
            sources = separator(mixture, rate, **options, callback=meter)
            numbers = range(1, separator.sources + 1)
            folder = self._place()
            targets = [folder / f"{path.stem}_s{k}.wav" for k in numbers]
            subtype = keep_subtype(targets[0], subtype_of(path))
            write_alike(targets, [source[None] for source in sources], rate, subtype)
            plain = separator.names == tuple(f"s{k}" for k in numbers)
            template = {} if plain else {"template": "{name}_s{index}"}
            said = words.command("separate", path.name, format="wav", model=model, **template, **options)
            python = words.separate(path.name, [target.name for target in targets], model, subtype, options)
            waves = {"mixture": mixture, **dict(zip(separator.names, sources, strict=True))}
            picture = draw(targets[0], waves, rate)
        return Result(tuple(targets), separator.names, picture, said, python, tuple(notes))

    def vocode(
        self,
        sound: str | Path | None,
        model: str,
        quality: str = "standard",
        steps: Number | None = None,
        sampler: str = "",
        seed: Number | None = 0,
        mel: str | Path | None = None,
        tell: Tell | None = None,
    ) -> Result:
        """Sound from the mel of a recording, or from a mel file, given as either."""
        path = self.limits.given_file(mel or sound)
        with self._work("vocode", (model, quality, steps, sampler, seed), path) as (vocoder, options, notes):
            self.limits.check_size(path)
            rate, hop = vocoder.sample_rate, vocoder.definition.hop
            before = {} if is_mel(path) else {"before": resampled(*self._read(path), rate)}
            with open_frames(path, vocoder.definition) as frames:
                length = min(frames.samples, frames.frames * hop)
                self.limits.check_seconds(length / rate, str(path))
                heard = frames.read(frames.frames)
            chunking = vocoder.chunking(SEGMENT, vocoder.network_calls(options["steps"], options["sampler"]))
            meter = Meter(tell, Chunking(**chunking).count(heard.shape[1]))
            wave = vocoder(heard, length=length, **options, callback=meter)[None]
            target = self._place() / f"{mel_stem(path.name)}_vocoded.wav"
            write_alike([target], [wave], rate, "FLOAT")
            said = words.command("vocode", path.name, "-o", target.name, model=model, **options)
            python = words.vocode(path.name, target.name, model, is_mel(path), length, options)
            picture = draw(target, {**before, "after": wave}, rate)
        return Result((target,), ("after",), picture, said, python, tuple(notes))

    def generate(
        self,
        model: str,
        label: str | None = None,
        count: Number | None = 1,
        quality: str = "standard",
        guidance: Number | None = None,
        steps: Number | None = None,
        sampler: str = "",
        seed: Number | None = 0,
        tell: Tell | None = None,
    ) -> Result:
        """Sounds freely, or of a class."""
        asked = {"label": label or None, "guidance": guidance}
        settings = (model, quality, steps, sampler, seed)
        return self._sounds("generate", settings, str(label or "free"), count, asked, tell)

    def text(
        self,
        model: str,
        text: str,
        negative: str = "",
        seconds: Number | None = None,
        count: Number | None = 1,
        quality: str = "standard",
        guidance: Number | None = None,
        steps: Number | None = None,
        sampler: str = "",
        seed: Number | None = 0,
        tell: Tell | None = None,
    ) -> Result:
        """Sounds from a text."""
        if not text.strip():
            raise InputError("the text is empty; say what is to be heard, e.g. rain on leaves")
        asked = {"text": text, "negative": negative or None, "seconds": seconds, "guidance": guidance}
        return self._sounds("text", (model, quality, steps, sampler, seed), text, count, asked, tell)

    def _sounds(
        self,
        tab: str,
        settings: Settings,
        name: str,
        count: Number | None,
        asked: Mapping[str, Any],
        tell: Tell | None,
    ) -> Result:
        """Generated sounds, each scaled down where it goes beyond full scale."""
        number = whole(count, "the number of sounds", 1, MOST_SOUNDS)
        with self._work(tab, settings) as (generator, options, notes):
            rate, asked = generator.sample_rate, {**asked, **options}
            self.limits.check_seconds(generator.num_samples(asked.get("seconds")) / rate, "the sound asked for")
            waves = np.concatenate(list(generator.batches(count=number, **asked, progress=tell)))
            stem = re.sub(r"[^\w.-]+", "-", name).strip(".-")[:60] or "sound"
            folder = self._place()
            targets = [folder / f"{stem}_{i}.wav" for i in range(number)]
            for target, wave in zip(targets, waves, strict=True):
                write_alike([target], [wave], rate, None)
            titles = tuple(f"sound {i}" for i in range(1, number + 1))
            picture = draw(targets[0], dict(zip(titles, waves, strict=True)), rate)
            model, *_ = settings
            said = words.command("generate", None, "-n", str(number), "-o", "generated", model=model, **asked)
            python = words.generate([target.name for target in targets], model, asked)
        return Result(tuple(targets), titles, picture, said, python, tuple(notes))

    def _read(self, path: Path) -> tuple[np.ndarray, int]:
        """A whole recording within the limits."""
        self.limits.check_size(path)
        with AudioReader(path) as reader:
            self.limits.check_seconds(reader.info.seconds, str(path))
            if reader.channels > MOST_CHANNELS:
                raise InputError(f"{path}: has {reader.channels} channels; this page takes up to {MOST_CHANNELS}")
        return read(path)

    def _place(self) -> Path:
        """A new folder for one result; older ones make room."""
        old = sorted((path for path in self.folder.iterdir()), key=lambda path: path.stat().st_mtime)
        for path in old[: max(0, len(old) - KEPT + 1)]:
            shutil.rmtree(path, ignore_errors=True)
        return Path(tempfile.mkdtemp(dir=self.folder))

    @contextmanager
    def _work(
        self, tab: str, settings: Settings, path: Path | None = None
    ) -> Iterator[tuple[Any, dict[str, Any], list[str]]]:
        """One piece of work: alone, its errors without the server's folders.

        Gives the ready model; steps, sampler and seed as it takes them, None where its own are meant; and a list which
        has the warnings in the end.
        """
        (model, quality, steps, sampler, seed), notes = settings, []
        with self._busy, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            try:
                ready, name = self.shelf.load(tab, model), sampler.strip() or None
                chosen = None if steps is None else whole(steps, "the number of steps", 1, 10_000)
                taken = steps_of(ready, quality, chosen, name)
                yield ready, {"steps": taken, "sampler": name, "seed": whole(seed, "the seed", 0, 2**31 - 1)}, notes
            except (ValueError, MemoryError) as error:
                raise InputError(self._sentence(error, path)) from error
            except RuntimeError as error:
                if "memory" not in str(error).lower():
                    raise
                raise InputError(self._sentence(MemoryError(), path)) from error
            found = dict.fromkeys(str(warning.message) for warning in caught)
            notes += [self._without_folders(text, path) for text in found]

    def _sentence(self, error: Exception, path: Path | None) -> str:
        if isinstance(error, MemoryError):
            return "not enough memory for this; try a shorter sound or fewer sounds"
        return self._without_folders(" ".join(str(error).split()), path)

    def _without_folders(self, text: str, path: Path | None) -> str:
        for folder in (self.folder, *(() if path is None else (path.parent,))):
            text = text.replace(f"{folder}/", "")
        return text
