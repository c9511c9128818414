"""`python -m fromnoise.runner FOLDER [IN] -o OUT`: one file through an exported model."""

import argparse
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from fromnoise.runner import Enhancer, Generator, Runner, Separator, Vocoder, load


def main(args: Sequence[str] | None = None) -> int:
    """Exit code 0 when everything was written, 2 for a wrong request or input."""
    parser = argparse.ArgumentParser(prog="python -m fromnoise.runner", description=__doc__)
    parser.add_argument("folder", help="what `fromnoise export` wrote")
    parser.add_argument("input", nargs="?", help="a recording; for a vocoder also a mel (.npy, bands x frames)")
    parser.add_argument("-o", "--output", required=True, type=Path, help="several results are numbered or named")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--label", help="of a generator")
    parser.add_argument("--count", type=int, default=1, help="of a generator")
    parser.add_argument("--seconds", type=float, help="of a generator")
    parser.add_argument("--engine", default="onnxruntime", help="onnxruntime or openvino")
    parser.add_argument("--threads", type=int, default=0)
    asked = parser.parse_args(args)
    try:
        for path, wave, rate in results(load(asked.folder, asked.engine, asked.threads), asked):
            write(path, wave, rate)
            print(path)
    except (ValueError, OSError, ModuleNotFoundError, soundfile.LibsndfileError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


def results(runner: Runner, asked: argparse.Namespace) -> list[tuple[Path, np.ndarray, int]]:
    """What is to be written: path, wave `c n` and rate."""
    out: Path = asked.output
    if isinstance(runner, Generator):
        waves = runner(asked.count, asked.label, asked.seed, asked.seconds)
        return [
            (named(out, str(i)) if len(waves) > 1 else out, wave, runner.sample_rate) for i, wave in enumerate(waves)
        ]
    if asked.input is None:
        raise ValueError(f"a model for the task {runner.task!r} needs a recording; name it after the folder")
    if isinstance(runner, Vocoder) and asked.input.endswith(".npy"):
        return [(out, runner(np.load(asked.input), asked.seed)[None], runner.sample_rate)]
    samples, rate = soundfile.read(asked.input, dtype="float32", always_2d=True)
    wave = samples.T
    if isinstance(runner, Vocoder):
        return [(out, runner(runner.mel(wave, rate), asked.seed)[None], runner.sample_rate)]
    if isinstance(runner, Separator):
        sources = runner(wave, rate, asked.seed)
        return [(named(out, name), source[None], rate) for name, source in zip(runner.names, sources, strict=True)]
    assert isinstance(runner, Enhancer)
    return [(out, runner(wave, rate, asked.seed), rate)]


def named(path: Path, name: str) -> Path:
    """out.wav -> out_name.wav."""
    return path.with_stem(f"{path.stem}_{name}")


def write(path: Path, wave: np.ndarray, rate: int) -> None:
    """Written under a temporary name and renamed; a wave beyond full scale is made quieter."""
    wave = wave / max(float(np.abs(wave).max()), 1.0)
    temporary = path.with_name(f".{secrets.token_hex(4)}-{path.name}")
    try:
        soundfile.write(temporary, wave.T, rate)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
