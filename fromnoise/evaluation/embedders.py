"""Embedders: sound in, rows of numbers out; by them sets of sounds are compared (`distances`).

    logmel        means and deviations of 32 log-mel bands over each second: no network, no weights, always there. It
                  hears spectra and their movement, not what the sound is
    classifier    what the last layer of one of our classifiers reads of a clip; hears what its labels tell apart
    vggish        see `vggish`; the embedding of most published Frechet audio distances
    clap          see `clap`; also embeds texts

A distance depends on the embedder more than on anything else: its name stands in the score's name, and scores of
different embedders are never compared. An embedder takes one channel at its own rate and raises ValueError, with the
reason, for a sound that it has no row for.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float

from fromnoise.evaluation.clap import CLAP
from fromnoise.evaluation.vggish import VGGish
from fromnoise.frontends import Mel
from fromnoise.tasks.classification import Classifier
from fromnoise.types import InputError

Device = str | torch.device


@runtime_checkable
class Embedder(Protocol):
    """name: as in the scores' names. sample_rate: Hz, of what it takes."""

    name: str

    @property
    def sample_rate(self) -> int: ...
    def __call__(self, wave: Float[np.ndarray, " n"]) -> Float[np.ndarray, "e d"]: ...


class LogMel:
    """See the module's text. A last piece of less than half a second counts only where it is the whole sound."""

    name = "logmel"
    sample_rate = 16000

    def __init__(self) -> None:
        self.mel = Mel(self.sample_rate, 1024, 256, 1024, 32, fmax=None, log="e", floor=1e-5)

    def __call__(self, wave: Float[np.ndarray, " n"]) -> Float[np.ndarray, "e 64"]:
        rate = self.sample_rate
        count = max(1, (len(wave) + rate // 2) // rate)
        pieces = np.pad(wave[: count * rate], (0, max(0, count * rate - len(wave)))).reshape(count, 1, rate)
        with torch.inference_mode():
            level = self.mel.encode(torch.from_numpy(pieces.astype(np.float32)))
            return torch.cat([level.mean(-1), level.std(-1)], dim=1).numpy()


class ClassifierFeatures:
    """One row a clip, cut or filled with silence to the classifier's length."""

    name = "classifier"

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    @property
    def sample_rate(self) -> int:
        return self.classifier.sample_rate

    def __call__(self, wave: Float[np.ndarray, " n"]) -> Float[np.ndarray, "1 d"]:
        return self.judge(wave)[1]

    def judge(self, wave: Float[np.ndarray, " n"]) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, "1 d"]]:
        """Also the probabilities of the labels."""
        rate = self.sample_rate
        probabilities, features = self.classifier(self.classifier.fixed(wave, rate)[None], rate)
        return probabilities[0], features


@dataclass(frozen=True)
class Known:
    """An embedder as the list shows it. takes: what stands behind its name and a colon, "" for nothing; default: what
    is taken where nothing stands there, "" where something must."""

    what: str
    takes: str
    needs: str
    default: str
    make: Callable[[str, Device], Any]


def _classifier(name: str, device: Device) -> ClassifierFeatures:
    from fromnoise import hub

    found = hub.load(name, torch.device(device))
    if found.task != "classify":
        raise InputError(f"the model {name!r} is for the task {found.task!r}; expected a classifier")
    return ClassifierFeatures(found)


def _vggish(place: str, device: Device) -> VGGish:
    path = Path(os.path.expanduser(place))
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected torchvggish's weights, vggish-10086976.pth (288 MB)")
    return VGGish(path, device)


EMBEDDERS: dict[str, Known] = {
    "logmel": Known("statistics of 32 mel bands over each second", "", "nothing", "", lambda place, device: LogMel()),
    "classifier": Known(
        "features of a classifier of ours", "MODEL", "a classifier; one is bundled", "sounds-classifier", _classifier
    ),
    "vggish": Known("128 numbers for 0.96 s", "FILE", "vggish-10086976.pth (288 MB) of torchvggish", "", _vggish),
    "clap": Known(
        "sound and text in one space, for 10 s", "FOLDER_OR_HUB_NAME",
        "the extra 'text' and a CLAP of transformers (0.6 GB)", "laion/clap-htsat-unfused", CLAP,
    ),
}  # fmt: skip


def embedder_of(text: str, device: Device = "cpu") -> Any:
    """Of 'logmel', 'vggish:vggish-10086976.pth', 'classifier:MODEL', ... Raises InputError for anything else."""
    name, _, place = text.partition(":")
    known = EMBEDDERS.get(name)
    if known is None:
        raise InputError(f"unknown embedder {name!r}; choose from: {', '.join(map(form, EMBEDDERS))}")
    if place and not known.takes:
        raise InputError(f"the embedder {name!r} takes nothing behind its name, got {place!r}")
    if known.takes and not (place or known.default):
        raise InputError(f"the embedder {name!r} needs {known.needs}; name it as {form(name)}")
    return known.make(place or known.default, device)


def form(name: str) -> str:
    """How an embedder is asked for: 'vggish:FILE', 'clap[:FOLDER_OR_HUB_NAME]'."""
    known = EMBEDDERS[name]
    if not known.takes:
        return name
    return f"{name}[:{known.takes}]" if known.default else f"{name}:{known.takes}"
