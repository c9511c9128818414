"""A corpus of short files by one worker and by two, and by a run that is killed twice and resumed; and in batches.

    python -m benchmarks.corpus --files 500 --rounds 3 [-o results/NAME]
    python -m benchmarks.corpus --files 32 --rounds 5 --batch-sizes 1,4,8

The files are made here: voices of harmonics in syllables, 1 to 3 s at 16 kHz, in noise; every run of the same arguments
makes the same ones. Each candidate is the command line in a fresh process, start-up and model loading included:

    jobs 1, threads 1     --jobs 1 with OMP_NUM_THREADS=1: one worker of one thread
    jobs 2, threads 1     --jobs 2 with OMP_NUM_THREADS=1: two workers of one thread each
    jobs 1                --jobs 1 as it runs by default: one worker, a thread a core
    one by one            without --jobs: in the command's own process, no manifest, a thread a core

Candidates take turns, in an order that changes every round; a speed-up is the median ratio within the rounds. The last
run is killed by SIGKILL with a third and with two thirds of its files done; at its end all outputs must be there, each
once in the manifest, and equal to the last bit to those of `jobs 2, threads 1`.

With --batch-sizes the files are of about 1 s, as long as one another in the model, and the candidates are what a worker
does, here in one process of one thread, with each --batch-size. Their time is the processor's; loading the model does
not count. Told with it: by how much a sample differs at most from its value in batches of the first size, and how many
files a batch holds in corpora whose files are of 1 to 3 s, every length as likely.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

import fromnoise
from fromnoise.batch import Item, buckets
from fromnoise.batch.items import cores
from fromnoise.cli.corpus import do_items
from fromnoise.cli.enhance import Settings, enhancing, length_of

RATE = 16000
NEAR = 70  # samples: a second more or less so many is 101 frames of 160
CORPORA = (500, 5000, 50_000)
RUN = [sys.executable, "-c", "import sys\nfrom fromnoise.cli import main\nif __name__ == '__main__': sys.exit(main())"]
CANDIDATES: Mapping[str, tuple[tuple[str, ...], bool]] = {
    "jobs 1, threads 1": (("--jobs", "1"), True),
    "jobs 2, threads 1": (("--jobs", "2"), True),
    "jobs 1": (("--jobs", "1"), False),
    "one by one": ((), False),
}
"""Name -> options, and whether each process has one thread."""


def make_corpus(folder: Path, count: int, least: int = RATE, most: int = 3 * RATE) -> float:
    """Write the files, of `least` samples up to `most`; returns the seconds of sound in all."""
    folder.mkdir(parents=True)
    total = 0.0
    for i in range(count):
        rng = np.random.default_rng(i)
        n = int(rng.integers(least, most))
        t = np.arange(n) / RATE
        pitch = rng.uniform(90, 250) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(0.3, 1) * t))
        phase = 2 * np.pi * np.cumsum(pitch) / RATE
        tilt = rng.uniform(0.8, 1.5)
        voice = sum(np.sin(k * phase) / k**tilt for k in range(1, 20))
        syllables = np.sin(np.pi * rng.uniform(2, 5) * t) ** 2
        wave = 0.1 * voice * syllables + 0.03 * rng.standard_normal(n)
        soundfile.write(folder / f"{i:05}.wav", wave.astype(np.float32), RATE)
        total += n / RATE
    return total


def command(name: str, model: str, source: Path, out: Path) -> tuple[list[str], dict[str, str]]:
    """The command line of a candidate and its environment."""
    options, single = CANDIDATES[name]
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    environment |= {"OMP_NUM_THREADS": "1"} if single else {}
    return [*RUN, "enhance", str(source), "-o", str(out), "-m", model, "-d", "cpu", "--quiet", *options], environment


def timed(name: str, model: str, source: Path, out: Path) -> float:
    """Seconds of a candidate's whole run into an empty folder."""
    shutil.rmtree(out, ignore_errors=True)
    line, environment = command(name, model, source, out)
    started = time.perf_counter()
    subprocess.run(line, env=environment, check=True)
    return time.perf_counter() - started


def finished(out: Path) -> list[str]:
    """The files that the manifest names."""
    path = out / "manifest.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [found["key"] for found in (json.loads(line) for line in lines if line.endswith(b"\n")) if "key" in found]


def killed_and_resumed(model: str, source: Path, out: Path, count: int) -> list[int]:
    """Run, kill twice, run to the end; returns how many files were done at each end."""
    shutil.rmtree(out, ignore_errors=True)
    line, environment = command("jobs 2, threads 1", model, source, out)
    done = []
    for share in (count // 3, 2 * count // 3):
        run = subprocess.Popen(line, env=environment)
        while len(finished(out)) < share:
            if run.poll() is not None:
                raise SystemExit(f"the run ended with exit code {run.returncode} before it could be killed")
            time.sleep(0.05)
        run.kill()
        run.wait()
        done.append(len(finished(out)))
    subprocess.run(line, env=environment, check=True)
    return [*done, len(finished(out))]


def identical(one: Path, other: Path) -> tuple[int, int]:
    """How many of the sounds in either folder are the same in both, and how many there are in all."""
    names = {path.name for folder in (one, other) for path in folder.glob("*.wav")}
    same = [n for n in names if (one / n).exists() and (other / n).exists() and _bytes(one, n) == _bytes(other, n)]
    return len(same), len(names)


def _bytes(folder: Path, name: str) -> bytes:
    return (folder / name).read_bytes()


def measure(model: str, count: int, rounds: int) -> dict[str, Any]:
    """All numbers."""
    names = list(CANDIDATES)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as scratch:
        source, outs = Path(scratch) / "in", {name: Path(scratch) / name.replace(", ", "-") for name in names}
        sound = make_corpus(source, count)
        for i in range(rounds):
            for name in names[i % len(names) :] + names[: i % len(names)]:
                seconds[name].append(timed(name, model, source, outs[name]))
                print(f"round {i + 1}, {name}: {seconds[name][-1]:.1f} s", flush=True)
        done = killed_and_resumed(model, source, Path(scratch) / "killed", count)
        once = len(set(finished(Path(scratch) / "killed"))) == done[-1] == count
        same, total = identical(outs["jobs 2, threads 1"], Path(scratch) / "killed")
    return {
        "model": model,
        "files": count,
        "sound_s": sound,
        "cores": cores(),
        "seconds": seconds,
        "speed_up": {name: ratio(seconds, name, "jobs 1, threads 1") for name in names},
        "two_over_default": ratio(seconds, "jobs 2, threads 1", "jobs 1"),
        "killed": {"done_at_each_end": done, "each_once": once, "identical": same, "outputs": total},
    }


def measure_batches(model: str, sizes: Sequence[int], count: int, rounds: int) -> dict[str, Any]:
    """All numbers of batches."""
    torch.set_num_threads(1)
    enhancer: Any = fromnoise.load(model, device="cpu")
    settings = Settings(None, None, 0, 30.0, 0.05, 0.0, "none", "FLOAT", False, False)
    begin = partial(enhancing, settings=settings)
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    with tempfile.TemporaryDirectory() as scratch:
        source, outs = Path(scratch) / "in", {size: Path(scratch) / str(size) for size in sizes}
        sound = make_corpus(source, count, RATE - NEAR, RATE + NEAR)
        items = {size: [Item.of(path, [outs[size] / path.name]) for path in sorted(source.iterdir())] for size in sizes}
        long = {str(path): length_of(enhancer, settings, path) for path in source.iterdir()}
        assert len({length and length[0] for length in long.values()}) == 1
        for i in range(rounds):
            turn = i % len(sizes)
            for size in [*sizes[turn:], *sizes[:turn]]:
                started = time.process_time()
                for batch in buckets(items[size], lambda item: long[item.source], size):
                    do_items(begin, size, enhancer, batch)
                seconds[size].append(time.process_time() - started)
                print(f"round {i + 1}, batches of {size}: {seconds[size][-1]:.2f} s", flush=True)
        differences = {size: _difference(outs[sizes[0]], outs[size]) for size in sizes}
    return {
        "model": model,
        "files": count,
        "sound_s": sound,
        "seconds": seconds,
        "speed_up": {size: ratio(seconds, size, sizes[0]) for size in sizes},
        "difference": differences,
        "filled": {size: [filled(enhancer, files, size) for files in CORPORA] for size in sizes},
    }


def _difference(one: Path, other: Path) -> float:
    """The largest between samples of the same name and place."""
    pairs = ([soundfile.read(folder / path.name)[0] for folder in (one, other)] for path in one.glob("*.wav"))
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def filled(enhancer: Any, files: int, size: int) -> float:
    """Files in a batch, on average, of a corpus of so many files of 1 to 3 s."""
    lengths = np.random.default_rng(0).integers(RATE, 3 * RATE, files).tolist()
    items = [Item(str(n), (str(n),), (0, 0)) for n in lengths]
    return files / len(buckets(items, lambda item: (enhancer.positions(int(item.source)), int(item.source)), size))


def table_of_batches(found: Mapping[str, Any]) -> str:
    """Markdown."""
    plain, *_ = found["seconds"]
    lines = [
        f"{found['files']} files, {found['sound_s']:.0f} s of sound, {found['model']}, one thread, "
        f"{len(found['seconds'][plain])} rounds.",
        "",
        f"| files at once | seconds (median) | fastest | slowest | times as fast as {plain} | largest difference "
        f"| files in a batch, of {', of '.join(f'{n:,}' for n in CORPORA)} |",
        "|---|---|---|---|---|---|---|",
    ]
    for size, values in found["seconds"].items():
        cells = [f"{size}", f"{statistics.median(values):.2f}", f"{min(values):.2f}", f"{max(values):.2f}"]
        cells += [f"{found['speed_up'][size]:.2f}", f"{found['difference'][size]:.1e}"]
        lines.append("| " + " | ".join([*cells, ", ".join(f"{full:.1f}" for full in found["filled"][size])]) + " |")
    return "\n".join(lines) + "\n"


def ratio(seconds: Mapping[Any, Sequence[float]], name: Any, plain: Any) -> float:
    """How many times as fast as another: the median over the rounds."""
    return statistics.median(a / b for a, b in zip(seconds[plain], seconds[name], strict=True))


def table(found: Mapping[str, Any]) -> str:
    """Markdown."""
    lines = [
        f"{found['files']} files, {found['sound_s']:.0f} s of sound, {found['model']}, {found['cores']} cores, "
        f"{len(next(iter(found['seconds'].values())))} rounds.",
        "",
        "| run | seconds (median) | fastest | slowest | times as fast as jobs 1, threads 1 |",
        "|---|---|---|---|---|",
    ]
    for name, values in found["seconds"].items():
        middle = statistics.median(values)
        cells = (name, f"{middle:.1f}", f"{min(values):.1f}", f"{max(values):.1f}", f"{found['speed_up'][name]:.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    killed = found["killed"]
    lines += [
        "",
        f"Two workers of one thread are {found['two_over_default']:.2f} times as fast as one as it runs by default.",
        "",
        f"Killed with {killed['done_at_each_end'][0]} and {killed['done_at_each_end'][1]} files done, then resumed: "
        f"{killed['identical']} of {killed['outputs']} outputs are those of the undisturbed run to the last bit; "
        f"each file {'once' if killed['each_once'] else 'NOT once'} in the manifest.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="enhance-small")
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-sizes", metavar="1,4,8", help="time batches instead")
    parser.add_argument("-o", "--output", type=Path, help="write OUTPUT.json and OUTPUT.md")
    asked = parser.parse_args()
    if asked.batch_sizes:
        found = measure_batches(
            asked.model, [int(size) for size in asked.batch_sizes.split(",")], asked.files, asked.rounds
        )
        text = table_of_batches(found)
    else:
        found = measure(asked.model, asked.files, asked.rounds)
        text = table(found)
    print(text)
    if asked.output is not None:
        asked.output.parent.mkdir(parents=True, exist_ok=True)
        asked.output.with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        asked.output.with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
