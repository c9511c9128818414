"""Enhance a noisy recording offline with the bundled model; print scores, save the sound and a picture.

`make demo` runs it. The recording is synthetic speech in synthetic noise (see make_sounds.py); or give one of yours:
python examples/demo.py my_noisy.wav [my_clean.wav]
"""

import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import fromnoise
from fromnoise.data.audio import read, write
from fromnoise.evaluation.plots import save_before_after
from fromnoise.evaluation.speech import measure

SOUNDS = Path(__file__).parent / "sounds"
OUT = Path("demo-output")
METRICS = ("pesq_wb", "estoi", "si_sdr", "csig", "cbak", "covl")


def main(noisy_path: str = str(SOUNDS / "noisy.flac"), clean_path: str | None = None) -> None:
    if noisy_path == str(SOUNDS / "noisy.flac"):
        clean_path = str(SOUNDS / "clean.flac")
    console = Console()
    noisy, rate = read(noisy_path)
    enhancer = fromnoise.load("enhance-small")
    enhancer(noisy[:, :rate], sample_rate=rate)  # the first call allocates
    started = time.perf_counter()
    enhanced = enhancer(noisy, sample_rate=rate, seed=0)
    seconds = time.perf_counter() - started
    OUT.mkdir(exist_ok=True)
    write(OUT / "enhanced.wav", enhanced, rate)
    save_before_after(OUT / "before_after.png", noisy[0], enhanced[0], rate)
    length = noisy.shape[1] / rate
    console.print(
        f"{length:.1f} s of sound in {seconds:.2f} s ({seconds / length:.2f} times real time), "
        f"{enhancer.network_calls()} network call(s)"
    )
    if clean_path is not None:
        clean = read(clean_path)[0]
        table = Table("", *METRICS, title=Path(noisy_path).name)
        for name, wave in (("noisy", noisy), ("enhanced", enhanced)):
            scores = measure(clean[0], wave[0], rate, METRICS)
            table.add_row(name, *(f"{scores.values[metric]:.2f}" for metric in METRICS))
        console.print(table)
    console.print(f"listen: {OUT / 'enhanced.wav'}   look: {OUT / 'before_after.png'}", soft_wrap=True)
    if not np.isfinite(enhanced).all():
        raise SystemExit("the result holds non-finite samples")


if __name__ == "__main__":
    main(*sys.argv[1:3])
