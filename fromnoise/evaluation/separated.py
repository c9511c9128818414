"""A mixture in memory, and a folder of sources that were separated elsewhere, by any program's names."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fromnoise.data.audio import read, resample
from fromnoise.data.layouts import SUFFIXES
from fromnoise.types import InputError


@dataclass(frozen=True)
class Item:
    """A mixture `n` and its sources `k n`, in memory; `index`: its number in the run."""

    index: int
    name: str
    sources: np.ndarray
    wave: np.ndarray
    sample_rate: int


@dataclass(frozen=True)
class SourceResults:
    """A folder of sources made before. For source 1 of the mixture `a`, the first of these that is there for all:

    names: `a_s1` (what `fromnoise separate` writes), `a_<its name>`, `s1/a`, `a/s1`, `s0/a` (DiffSep's script counts
    from 0), and by the mixture's number in the run, in the folder or in `wav/<split>/`: `000_enh0` (DiffSep's
    evaluation, and `--save-n`), `0000.enh0`.
    """

    name: str
    folder: Path
    names: tuple[str, ...] = ()
    split: str = "test"

    def load(self, item: Item) -> np.ndarray:
        """The estimates `k n` at the mixture's rate. Raises InputError where they are not all there."""
        waves = [self._read(path, item.sample_rate) for path in self.files(item.name, len(item.sources), item.index)]
        length = min(len(wave) for wave in waves)
        return np.stack([wave[:length] for wave in waves])

    def files(self, n: str, count: int, i: int) -> list[Path]:
        """The files of so many sources of the mixture n, the ith of the run. Raises InputError as `load`."""
        schemes = [[f"{n}_s{k + 1}" for k in range(count)]]
        schemes += [[f"{n}_{name}" for name in self.names]] if len(self.names) == count else []
        schemes += [[f"s{k + 1}/{n}" for k in range(count)], [f"{n}/s{k + 1}" for k in range(count)]]
        schemes += [[f"s{k}/{n}" for k in range(count)]]
        for place in ("", f"wav/{self.split}/"):
            schemes += [[f"{place}{i:03d}_enh{k}" for k in range(count)]]
            schemes += [[f"{place}{i:04d}.enh{k}" for k in range(count)]]
        for scheme in schemes:
            found = [self._file(stem) for stem in scheme]
            if all(found):
                return [path for path in found if path is not None]
        raise InputError(
            f"expected {count} sources of {n} in {self.folder}, such as {' and '.join(schemes[0])}; found none"
        )

    def _file(self, stem: str) -> Path | None:
        places = [self.folder / f"{stem}{suffix}" for suffix in SUFFIXES]
        return next((place for place in places if place.is_file()), None)

    @staticmethod
    def _read(path: Path, sample_rate: int) -> np.ndarray:
        wave, rate = read(path)
        if rate < sample_rate:
            raise InputError(f"{path}: expected {sample_rate} Hz or more, got {rate} Hz")
        return np.asarray(resample(wave[:1], rate, sample_rate))[0]
