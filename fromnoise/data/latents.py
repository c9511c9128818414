"""Latents that an autoencoder made of clips before a generator is trained on them: `fromnoise encode` writes them here.

    encoded.json               what they were made of and how, {"format": 1, "autoencoder": fingerprint, ...}
    train.npy, valid.npy       float32 `k d t`, mapped into memory, not read
    train.npz, valid.npz       of each: label, duration, text

Row k is item k of the clips that the same recipe trains on, cut, changed and captioned as it is there. So the first
training steps see what they would see with the clips, and so does every later one where as many passes were encoded;
beyond that the rows come again, each once a turn, in an order drawn from (seed, turn).
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from fromnoise.files import beside
from fromnoise.types import InputError

FORMAT = 1
FACTS = "encoded.json"
BESIDE = ("label", "duration", "text")  # what a row may have besides its latent


@dataclass(frozen=True)
class Latents:
    """A folder that `fromnoise encode` wrote; all else is as it was when the clips were encoded.

    root: the folder. valid_items: 0 for all.
    """

    gives: ClassVar[tuple[str, ...]] = ("latent", *BESIDE)

    root: str = ""
    valid_items: int = 0

    @property
    def facts(self) -> dict[str, Any]:
        """What stands in encoded.json. Raises InputError for a folder without it."""
        if not self.root:
            raise InputError("expected a folder of latents, got none; write one by fromnoise encode and set data.root")
        path = Path(self.root) / FACTS
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            if facts["format"] != FORMAT:
                raise InputError(f"{path} is of format {facts['format']}, expected {FORMAT}; encode the clips again")
        except FileNotFoundError:
            raise InputError(f"{self.root} holds no {FACTS}; write latents there by fromnoise encode") from None
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise InputError(f"{path} cannot be read ({error}); encode the clips again") from error
        return facts

    @property
    def sample_rate(self) -> int:
        """The rate in Hz of the clips."""
        return int(self.facts["sample_rate"])

    @property
    def seconds(self) -> float:
        """The length of a clip."""
        return float(self.facts["seconds"])

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes."""
        return tuple(self.facts["labels"])

    @property
    def captions(self) -> tuple[str, ...]:
        """The columns that the texts came from."""
        return tuple(self.facts["captions"])

    def sources(self) -> dict[str, list[Path]]:
        """No recordings are read."""
        return {}

    def train(self, seed: int) -> "LatentSet":
        """Endless items for training."""
        return LatentSet(Path(self.root), "train", seed)

    def valid(self) -> "LatentSet":
        """The held-out rows, always the same."""
        return LatentSet(Path(self.root), "valid", None, self.valid_items)

    def require_of(self, autoencoder: Mapping[str, Tensor]) -> None:
        """Raises InputError unless these weights made the latents."""
        if self.facts["autoencoder"] != fingerprint(autoencoder):
            raise InputError(
                f"{self.root} was encoded by another autoencoder than init.autoencoder names; name that one, or encode "
                "the clips again"
            )


class LatentSet(Dataset[dict[str, Tensor]]):
    """Item k: {"latent": `d t`, "label", "duration", "text"}, the last two where there are any. seed None: row k."""

    def __init__(self, root: Path, split: str, seed: int | None, items: int = 0) -> None:
        try:
            self.rows = np.load(root / f"{split}.npy", mmap_mode="r")
            with np.load(root / f"{split}.npz") as beside:
                self.beside = {name: beside[name] for name in beside.files}
        except (OSError, ValueError) as error:
            raise InputError(f"{root}/{split}.npy and .npz cannot be read ({error}); encode the clips again") from error
        self.seed, self.count = seed, min(items or len(self.rows), len(self.rows))

    def __len__(self) -> int:
        return self.count if self.seed is None else 2**62

    def __getitem__(self, k: int) -> dict[str, Tensor]:
        row = self._row(k)
        given = {"latent": torch.from_numpy(np.array(self.rows[row]))}
        return given | {name: torch.from_numpy(np.array(column[row])) for name, column in self.beside.items()}

    def _row(self, k: int) -> int:
        if self.seed is None:
            return int(np.linspace(0, len(self.rows) - 1, self.count).round()[k])
        turn, place = divmod(k, len(self.rows))
        return place if turn == 0 else int(_permutation(self.seed, turn, len(self.rows))[place])


@lru_cache(maxsize=8)
def _permutation(seed: int, turn: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, 2, turn]).permutation(count)


def write_latents(
    folder: Path, split: str, count: int, batches: Iterable[tuple[Float[np.ndarray, "b d t"], Mapping[str, Tensor]]]
) -> tuple[int, ...]:
    """Write the `count` rows of a split, batch by batch, and return their shape. Files there stay until all is made."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {ending: beside(folder / split, f".part.{ending}") for ending in ("npy", "npz")}
    rows: np.ndarray | None = None
    done, told = 0, {name: [] for name in BESIDE}
    try:
        for latent, batch in batches:
            if rows is None:
                rows = np.lib.format.open_memmap(names["npy"], "w+", np.float32, (count, *latent.shape[1:]))
            rows[done : done + len(latent)] = latent
            done += len(latent)
            for name in BESIDE:
                told[name] += [batch[name].numpy()] if name in batch else []
        if rows is None or done != count:
            raise ValueError(f"expected {count} latents of {split}, got {done}")
        rows.flush()
        np.savez_compressed(names["npz"], **{k: np.concatenate(v) for k, v in told.items() if v})  # pyright: ignore[reportArgumentType]
        for ending, path in names.items():
            os.replace(path, folder / f"{split}.{ending}")
        return rows.shape
    finally:
        for path in names.values():
            with suppress(FileNotFoundError):
                path.unlink()


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Of weights by name, whatever file they came from."""
    found = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().float().contiguous()
        found.update(f"{name} {tuple(value.shape)}\n".encode())
        found.update(value.numpy().tobytes())
    return found.hexdigest()
