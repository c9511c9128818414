"""The work behind the tabs, in plain Python: a sound in, files, a picture and words out.

One piece of work runs at a time. `tell(done, total)` hears of every sampling step; what it raises ends the work. All
that is wrong with an input is an InputError in one sentence, in which files are called by their own names.
"""

import re
import shutil
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
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
_SEGMENT = 30.0  # seconds that are worked on at a time, as on the command line


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
        with self._work(path) as notes:
            noisy, rate = self._read(path)
            enhancer = self.shelf.load("enhance", model)
            options = self._options(enhancer, quality, steps, sampler, seed)
            if not 0 <= dry <= 1:
                raise InputError(f"the share of the input to keep must lie between 0 and 1, got {dry}")
            asked = options | ({"dry": dry} if dry else {})
            chunking = enhancer.chunking(_SEGMENT, 0.05, enhancer.network_calls(options["steps"], options["sampler"]))
            runs = pieces(noisy, rate, enhancer, chunking) * enhancer.model.config.shifts * len(noisy)
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
        with self._work(path) as notes:
            mixture, rate = self._read(path)
            separator = self.shelf.load("separate", model)
            options = self._options(separator, quality, steps, sampler, seed)
            chunking = separator.chunking(_SEGMENT, 2.0, separator.network_calls(options["steps"], options["sampler"]))
            meter = Meter(tell, pieces(mixture, rate, separator, chunking))
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
        tell: Tell | None = None,
    ) -> Result:
        """Sound from a mel file, or from the mel of a recording."""
        path = self.limits.given_file(sound)
        with self._work(path) as notes:
            self.limits.check_size(path)
            vocoder = self.shelf.load("vocode", model)
            options = self._options(vocoder, quality, steps, sampler, seed)
            rate, hop = vocoder.sample_rate, vocoder.definition.hop
            before = {} if is_mel(path) else {"before": resampled(*self._read(path), rate)}
            with open_frames(path, vocoder.definition) as frames:
                length = min(frames.samples, frames.frames * hop)
                self.limits.check_seconds(length / rate, str(path))
                mel = frames.read(frames.frames)
            chunking = vocoder.chunking(_SEGMENT, vocoder.network_calls(options["steps"], options["sampler"]))
            meter = Meter(tell, Chunking(**chunking).count(mel.shape[1]))
            wave = vocoder(mel, length=length, **options, callback=meter)[None]
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
        with self._work() as notes:
            generator = self.shelf.load("generate", model)
            name = str(label) if label else "free"
            asked = {"label": label or None, "guidance": guidance}
            options = self._options(generator, quality, steps, sampler, seed)
            made = self._sounds(generator, model, name, count, {**asked, **options}, tell)
        return self._noted(made, notes)

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
        with self._work() as notes:
            generator = self.shelf.load("text", model)
            if not text.strip():
                raise InputError("the text is empty; say what is to be heard, e.g. rain on leaves")
            self.limits.check_seconds(generator.num_samples(seconds) / generator.sample_rate, "the sound asked for")
            asked = {"text": text, "negative": negative or None, "seconds": seconds, "guidance": guidance}
            options = self._options(generator, quality, steps, sampler, seed)
            made = self._sounds(generator, model, text, count, {**asked, **options}, tell)
        return self._noted(made, notes)

    def _sounds(
        self, generator: Any, model: str, name: str, count: Number | None, asked: Mapping[str, Any], tell: Tell | None
    ) -> Result:
        """Generated sounds, each scaled down where it goes beyond full scale."""
        number = whole(count, "the number of sounds", 1, MOST_SOUNDS)
        waves = np.concatenate(list(generator.batches(count=number, **asked, progress=tell)))
        stem = re.sub(r"[^\w.-]+", "-", name).strip(".-")[:60] or "sound"
        folder = self._place()
        targets = [folder / f"{stem}_{i}.wav" for i in range(number)]
        for target, wave in zip(targets, waves, strict=True):
            write_alike([target], [wave], generator.sample_rate, None)
        titles = tuple(f"sound {i}" for i in range(1, number + 1))
        picture = draw(targets[0], dict(zip(titles, waves, strict=True)), generator.sample_rate)
        said = words.command("generate", None, "-n", str(number), "-o", "generated", model=model, **asked)
        python = words.generate([target.name for target in targets], model, asked)
        return Result(tuple(targets), titles, picture, said, python)

    def _options(
        self, ready: Any, quality: str, steps: Number | None, sampler: str, seed: Number | None
    ) -> dict[str, Any]:
        """Steps, sampler and seed as the task takes them, None where the model's own are meant."""
        chosen = None if steps is None else whole(steps, "the number of steps", 1, 10_000)
        name = sampler.strip() or None
        return {
            "steps": steps_of(ready, quality, chosen, name),
            "sampler": name,
            "seed": whole(seed, "the seed", 0, 2**31 - 1),
        }

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

    @staticmethod
    def _noted(made: Result, notes: Sequence[str]) -> Result:
        return Result(made.files, made.titles, made.picture, made.command, made.python, tuple(notes))

    @contextmanager
    def _work(self, path: Path | None = None) -> Iterator[list[str]]:
        """One piece of work: alone, its warnings in the list, its errors without the server's folders."""
        notes: list[str] = []
        with self._busy, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            try:
                yield notes
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
