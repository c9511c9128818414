"""An exported folder, and the networks in it, run by onnxruntime or by OpenVINO."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1
ENGINES = ("onnxruntime", "openvino")
Network = Callable[[Mapping[str, np.ndarray]], np.ndarray]


class Folder:
    """What `fromnoise export` wrote: `runner.json`, `tables.npz` and the networks."""

    def __init__(self, folder: Path, engine: str = "onnxruntime", threads: int = 0) -> None:
        self.folder, self.engine, self.threads = folder, engine, threads
        if engine not in ENGINES:
            raise ValueError(f"engine must be {' or '.join(ENGINES)}, got {engine!r}")
        path = folder / "runner.json"
        try:
            self.facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"{folder} holds no runner.json; make it by: fromnoise export MODEL -o {folder}") from None
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not valid JSON ({error}); export the model again") from error
        if self.facts.get("format") != FORMAT:
            raise ValueError(f"{path} has format {self.facts.get('format')!r}, this runner reads {FORMAT}")
        tables = folder / "tables.npz"
        self.tables: dict[str, np.ndarray] = dict(np.load(tables)) if tables.is_file() else {}

    def network(self, role: str) -> Network | None:
        """The network of a role ("network", "generator", "refiner"), None where the model has none."""
        entry = self.facts["networks"].get(role)
        if entry is None:
            return None
        path = self.folder / entry["file"]
        if path.suffix != ".onnx":
            raise ValueError(f"{path} is for torch; this runner needs: fromnoise export MODEL --format onnx")
        if not path.is_file():
            raise ValueError(f"{path} is missing; export the model again")
        run = _openvino(path, self.threads) if self.engine == "openvino" else _onnxruntime(path, self.threads)
        names = entry["inputs"]
        return lambda given: run({name: np.ascontiguousarray(given[name]) for name in names})


def _onnxruntime(path: Path, threads: int) -> Network:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda given: np.asarray(session.run(None, dict(given))[0])


def _openvino(path: Path, threads: int) -> Network:
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32"} | ({"INFERENCE_NUM_THREADS": threads} if threads else {})
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    return lambda given: np.asarray(compiled(dict(given))[0])
