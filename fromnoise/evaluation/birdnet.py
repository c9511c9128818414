"""BirdNET: which birds are heard in a recording, by the network that the user supplies.

    chunks of 3 s at 48 kHz, each `overlap` before the end of the last; the last is filled with zeros
    confidence = 1 / (1 + exp(-clip(logit + 10 (sensitivity - 1), -20, 20)))        for each species and chunk

Detections are what reaches the threshold; up to `merge` of one species in a row become one, with the mean of their (up
to) three highest confidences. A rest of less than a second is left out, but a recording always has a chunk, however
short: the published program gives none there, and merges one chunk fewer than it is asked to from three on. Times are
counted in chunks, not summed up.

Kahl et al., "BirdNET: A deep learning solution for avian diversity monitoring", Ecological Informatics 61, 2021. The
weights (V2.4: 6,522 classes) are CC BY-NC-SA 4.0 and no part of this package. A .tflite file runs through
ai-edge-litert, tflite-runtime or TensorFlow, an .onnx file through onnxruntime; the names come from the labels file
beside it, a line "Scientific name_Common name" for each class.
"""

import importlib
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from fromnoise.types import InputError

SAMPLE_RATE = 48000
SECONDS, LEAST = 3.0, 1.0
THRESHOLD = 0.25
BEST = 3  # confidences of a merged detection that count
RUNTIMES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow.lite")
Wave = Float[np.ndarray, " n"]
Network = Callable[[Float[np.ndarray, "1 n"]], Float[np.ndarray, "1 k"]]


@dataclass(frozen=True)
class Detection:
    """A species from `start` to `end` seconds."""

    start: float
    end: float
    species: str
    confidence: float


def starts(n: int, sample_rate: int, overlap: float = 0.0) -> list[int]:
    """The first samples of the chunks of a recording of n samples. Raises ValueError for an overlap out of range."""
    if not 0 <= overlap < SECONDS:
        raise ValueError(f"expected an overlap from 0 to less than {SECONDS:g} s, got {overlap}")
    size, step = round(SECONDS * sample_rate), round((SECONDS - overlap) * sample_rate)
    unheard = range(0, max(1, n - size + step), step)  # until a chunk reaches the end
    return [i for i in unheard if i == 0 or n - i >= LEAST * sample_rate]


def chunks(wave: Wave, sample_rate: int, overlap: float = 0.0) -> Float[np.ndarray, "c m"]:
    """The chunks, filled with zeros."""
    size = round(SECONDS * sample_rate)
    found = [wave[i : i + size] for i in starts(len(wave), sample_rate, overlap)]
    return np.stack([np.pad(piece, (0, size - len(piece))) for piece in found])


def confidence(logits: Float[np.ndarray, "*k"], sensitivity: float = 1.0) -> Float[np.ndarray, "*k"]:
    """The flat sigmoid. sensitivity: 0.75 to 1.25, more finds more."""
    return 1 / (1 + np.exp(-np.clip(logits + 10 * (sensitivity - 1), -20, 20)))


def merged(found: Sequence[Detection], most: int | None = None) -> list[Detection]:
    """Up to `most` detections of a species in a row as one, None for all; in the order of time, then confidence."""
    runs: dict[str, list[list[Detection]]] = {}
    for one in sorted(found, key=lambda one: one.start):
        mine = runs.setdefault(one.species, [])
        follows = mine and one.start <= mine[-1][-1].end + 1e-6 and (most is None or len(mine[-1]) < most)
        if follows:
            mine[-1].append(one)
        else:
            mine.append([one])
    whole = [
        Detection(run[0].start, run[-1].end, name, float(np.mean(sorted(one.confidence for one in run)[-BEST:])))
        for name, mine in runs.items()
        for run in mine
    ]
    return sorted(whole, key=lambda one: (one.start, -one.confidence))


class BirdNET:
    """A ready network and its names.

    >>> birds = BirdNET(Path("BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite"))            # doctest: +SKIP
    >>> birds.detect(wave)                                                          # doctest: +SKIP
    """

    name = "birdnet"
    sample_rate = SAMPLE_RATE

    def __init__(self, model: Path, labels: Path | None = None, sensitivity: float = 1.0) -> None:
        if not 0.75 <= sensitivity <= 1.25:
            raise ValueError(f"expected a sensitivity from 0.75 to 1.25, got {sensitivity}")
        self.network, self.sensitivity = _open(model), sensitivity
        self.species = read_labels(labels or _labels_beside(model))
        self._numbers: dict[str, int] = {}
        for i, species in enumerate(self.species):
            for part in (species, *species.split("_", 1)):
                self._numbers.setdefault(_plain(part), i)

    def __call__(self, wave: Wave, overlap: float = 0.0) -> Float[np.ndarray, "c k"]:
        """The confidences of every chunk of a sound at 48 kHz."""
        if len(wave) == 0:
            raise ValueError("the sound is empty")
        rows = [self.network(chunk[None].astype(np.float32))[0] for chunk in chunks(wave, SAMPLE_RATE, overlap)]
        logits = np.asarray(rows, np.float64)
        if logits.shape[1] != len(self.species):
            raise InputError(
                f"BirdNET: the network has {logits.shape[1]} classes and the labels file {len(self.species)} lines; "
                "name the labels file of this network"
            )
        return confidence(logits, self.sensitivity)

    def detect(
        self, wave: Wave, overlap: float = 0.0, threshold: float = THRESHOLD, merge: int | None = 1,
        species: Collection[str] = (),
    ) -> list[Detection]:  # fmt: skip
        """What is heard in a sound at 48 kHz; species: only these, by scientific or common name."""
        allowed = {self.index(name) for name in species} or range(len(self.species))
        found = []
        step = SECONDS - overlap
        for i, row in enumerate(self(wave, overlap)):
            for k in np.flatnonzero(row >= threshold).tolist():
                if k in allowed:
                    found.append(Detection(i * step, i * step + SECONDS, self.species[k], float(row[k])))
        return merged(found, merge)

    def index(self, name: str) -> int:
        """The number of a species, by its scientific or common name, in any case, "_" or "-" for a space."""
        found = self._numbers.get(_plain(name))
        if found is None:
            raise ValueError(f"BirdNET has no species {name!r}")
        return found


def _plain(name: str) -> str:
    return " ".join(re.findall(r"\w+", name.casefold().replace("_", " ").replace("'", "")))


def read_labels(path: Path) -> tuple[str, ...]:
    """The names of a labels file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as BirdNET's labels ({error})") from error
    return tuple(line.strip() for line in lines if line.strip())


def _labels_beside(model: Path) -> Path:
    found = sorted(path for path in model.parent.glob("*.txt") if "label" in path.name.lower())
    if len(found) != 1:
        raise InputError(
            f"{model.parent}: expected one labels file (*label*.txt) beside the network, found {len(found)}; copy "
            "the one of your language there"
        )
    return found[0]


def _open(model: Path) -> Network:
    """The network of an .onnx or .tflite file."""
    if not model.is_file():
        raise InputError(f"{model}: no such file; expected BirdNET's network, see docs/metrics.md")
    if model.suffix == ".onnx":
        return _onnx(model)
    if model.suffix == ".tflite":
        return _tflite(model)
    raise InputError(f"{model}: expected BirdNET's network as .onnx or .tflite")


def _onnx(model: Path) -> Network:
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError("BirdNET as .onnx needs onnxruntime: pip install 'fromnoise[scores]'") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InputError(f"{model} is not a readable ONNX file ({str(error)[:160]})") from error
    given, asked = session.get_inputs()[0].name, session.get_outputs()[0].name
    return lambda wave: np.asarray(session.run([asked], {given: wave})[0])


def _tflite(model: Path) -> Network:
    runtime: Any = None
    for name in RUNTIMES:
        try:
            runtime = importlib.import_module(name)
            break
        except ImportError:
            continue
    if runtime is None:
        raise InputError("BirdNET as .tflite needs one of: pip install ai-edge-litert, tflite-runtime or tensorflow")
    try:
        interpreter = runtime.Interpreter(model_path=str(model))
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{model} is not a readable TFLite file ({str(error)[:160]})") from error
    given, asked = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(wave: Float[np.ndarray, "1 n"]) -> Float[np.ndarray, "1 k"]:
        interpreter.set_tensor(given, wave)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(asked))

    return run
