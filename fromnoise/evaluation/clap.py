"""CLAP: sounds and texts as directions in one space, through the package transformers.

    e = mean over pieces of the audio network (48 kHz, pieces of at most 10 s),   score = cos(e, text network)

A piece goes through alone and is never longer than the network takes, so that nothing is cut at a drawn place, as the
package does with longer ones. The last piece of a sound counts from one second on; a shorter sound is one piece, which
the package repeats to 10 s.

Wu et al., "Large-scale Contrastive Language-Audio Pretraining with Feature Fusion and Keyword-to-Caption Augmentation",
ICASSP 2023, https://arxiv.org/abs/2211.06687.
"""

import importlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from fromnoise.types import InputError

SECONDS, LEAST = 10, 1


class CLAP:
    """The embedder `clap`; model: a folder (config, weights, feature extractor, tokenizer) or a hub name."""

    name = "clap"
    sample_rate = 48000

    def __init__(self, model: str, device: str | torch.device = "cpu") -> None:
        self.place = os.path.expanduser(model)
        network = _load("ClapModel", self.place)
        self.network = network.to(device).eval().requires_grad_(False)
        self.features = _load("ClapFeatureExtractor", self.place)
        self._tokenizer: Any = None
        if self.features.sampling_rate != self.sample_rate:
            raise InputError(
                f"{model}: expected a CLAP at 48000 Hz, this one works at {self.features.sampling_rate} Hz"
            )

    def __call__(self, wave: Float[np.ndarray, " n"]) -> Float[np.ndarray, "e d"]:
        """One row for each piece."""
        return np.concatenate([self._row(piece) for piece in pieces(wave, self.sample_rate)])

    def _row(self, piece: Float[np.ndarray, " n"]) -> Float[np.ndarray, "1 d"]:
        given = self.features(piece.astype(np.float32), sampling_rate=self.sample_rate, return_tensors="pt")
        with torch.inference_mode():
            return _projected(self.network.get_audio_features(**given.to(self.network.device)))

    def texts(self, texts: Sequence[str]) -> Float[np.ndarray, "b d"]:
        """A row for each text, each alone, so that none depends on the others' lengths."""
        self._tokenizer = self._tokenizer or _load("AutoTokenizer", self.place)
        rows = []
        for text in texts:
            given = self._tokenizer(text, truncation=True, max_length=77, return_tensors="pt")
            with torch.inference_mode():
                rows.append(_projected(self.network.get_text_features(**given.to(self.network.device))))
        return np.concatenate(rows)


def pieces(wave: Float[np.ndarray, " n"], sample_rate: int) -> list[Float[np.ndarray, " m"]]:
    """At most SECONDS each, side by side."""
    size = SECONDS * sample_rate
    found = [wave[i : i + size] for i in range(0, len(wave), size)]
    return found[:-1] if len(found) > 1 and len(found[-1]) < LEAST * sample_rate else found


def _projected(found: Any) -> Float[np.ndarray, "1 d"]:
    """The embedding: the answer itself, or, since version 5 of the package, a part of it."""
    return np.asarray(getattr(found, "pooler_output", found).float().cpu())


def _load(kind: str, place: str) -> Any:
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise InputError(
            "the embedder 'clap' needs the package transformers, which is not installed; add it by "
            "pip install 'fromnoise[text]', or use the embedders logmel and classifier, which need nothing"
        ) from error
    try:
        return getattr(transformers, kind).from_pretrained(place)
    except (OSError, ValueError, ImportError, TypeError) as error:
        raise InputError(
            f"CLAP cannot be loaded from {place!r} ({' '.join(str(error).split())[:200]}); name a folder that holds it "
            "by clap:FOLDER, or connect to the hub once"
        ) from error
