"""Exported models without torch: numpy, soundfile, soxr and onnxruntime are all it needs.

    >>> enhancer = fromnoise.runner.load("exported")                            # doctest: +SKIP
    >>> clean = enhancer(noisy, sample_rate=44100)                              # doctest: +SKIP

or `python -m fromnoise.runner FOLDER in.wav -o out.wav`. A folder is made by `fromnoise export MODEL -o FOLDER`.
"""

import os
from pathlib import Path

from fromnoise.runner.engine import Folder
from fromnoise.runner.tasks import TASKS, Enhancer, Generator, Runner, Separator, Vocoder

__all__ = ["Enhancer", "Generator", "Runner", "Separator", "Vocoder", "load"]


def load(folder: str | os.PathLike[str], engine: str = "onnxruntime", threads: int = 0) -> Runner:
    """A ready runner: an `Enhancer`, `Separator`, `Vocoder` or `Generator`.

    engine: "onnxruntime" or "openvino". threads: of one network call, 0 for the engine's own choice. Raises ValueError
    for a folder that is no export.
    """
    opened = Folder(Path(folder), engine, threads)
    task = opened.facts["task"]
    if task not in TASKS:
        raise ValueError(f"{folder} is for the task {task!r}; this runner does: {', '.join(TASKS)}")
    return TASKS[task](opened)
