"""How well a generator does what texts ask of it: right classes, and Frechet distances beside those of real sounds.

    python -m benchmarks.captions sounds-small DATA --without-licence NC -e classifier -e logmel

Right classes: of each label with at least LEAST clips in the split, `--count` sounds, made from that label's captions
in turn, and judged by the bundled classifier. The same is said of the split's real clips.

Distances: to the clips of the split, of a sound made for each of them from its caption; of the training clips as they
are; and of the training clips without what lies above 2 kHz, which a generator has to be nearer than.

Reconstruction: the clips of the split, cut to the generator's length, into what its network works on and back, by its
front end or its autoencoder: multi-resolution STFT distance and the mean difference of ln mel (`fromnoise evaluate`).
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

import fromnoise
from benchmarks.harness import arguments, markdown, publish
from benchmarks.solvers import rows_of, table
from fromnoise.data.audio import read, resample
from fromnoise.data.captions import captions_of
from fromnoise.data.places import Clip
from fromnoise.evaluation.embedders import embedder_of
from fromnoise.evaluation.judged import label_place
from fromnoise.evaluation.run import Results
from fromnoise.evaluation.sound_sets import Tools
from fromnoise.evaluation.sounds import evaluate_sounds, real_clips
from fromnoise.evaluation.speech import Scores, measure

LEAST = 3  # clips of a label in the split for it to be asked for
CUTOFF = 2000.0  # Hz
RECONSTRUCTION = ("mr_stft", "log_mel_l1")


def right_classes(generator: Any, judge: Any, clips: Sequence[Clip], asked: argparse.Namespace) -> list[dict[str, Any]]:
    """For each label: how many sounds the judge calls by it, of those made and of the real ones."""
    labels = [clip.label for clip in clips]
    rows = []
    for label in sorted({name for name in labels if labels.count(name) >= LEAST}):
        real = [clip for clip in clips if clip.label == label]
        texts = sorted({captions_of(clip, ("caption",))[0] for clip in real})
        place = label_place(label, judge.classifier.labels)
        heard = [judge.judge(_at(judge, *read(clip.path)))[0].argmax() for clip in real]
        made = []
        for i, text in enumerate(texts):
            count = len(range(i, asked.count, len(texts)))
            batches = generator.batches(
                count, label=None, text=text, seed=asked.seed, guidance=asked.guidance, steps=asked.steps
            )
            waves = [wave for batch in batches for wave in batch]
            made += [judge.judge(_at(judge, wave, generator.sample_rate))[0].argmax() for wave in waves]
        told = [judge.classifier.labels[k] for k in made if k != place]
        rows.append({
            "label": label, "captions": texts, "made": len(made), "right": int(sum(k == place for k in made)),
            "real": len(real), "real_right": int(sum(k == place for k in heard)),
            "taken_for": {name: told.count(name) for name in sorted(set(told), key=lambda n: (-told.count(n), n))},
        })  # fmt: skip
        print(f"{label}: {rows[-1]['right']} of {rows[-1]['made']}", flush=True)
    return rows


def _at(judge: Any, wave: np.ndarray, rate: int) -> np.ndarray:
    return np.asarray(resample(wave.mean(axis=0), rate, judge.sample_rate))


def without_high(wave: np.ndarray, rate: int) -> np.ndarray:
    """Nothing above the cut-off, by the Fourier transform of the whole."""
    spectrum = np.fft.rfft(wave, axis=-1)
    spectrum[..., np.fft.rfftfreq(wave.shape[-1], 1 / rate) > CUTOFF] = 0
    return np.fft.irfft(spectrum, wave.shape[-1], axis=-1).astype(np.float32)


def distances(generator: Any, clips: Sequence[Clip], asked: argparse.Namespace) -> tuple[list[dict[str, Any]], int]:
    """The rows of distances, and the number of training clips."""
    train = real_clips(asked.data, "train", asked.without_licence, None)
    tools = Tools(tuple(embedder_of(name) for name in asked.embedder or ["classifier", "logmel"]), None)
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: Path(scratch) / name for name in ("train", "train below 2 kHz")}
        for name, folder in folders.items():
            folder.mkdir()
            for clip in train:
                wave, rate = read(clip.path)
                wave = wave if name == "train" else without_high(wave, rate)
                soundfile.write(folder / f"{clip.path.stem}.wav", wave.T, rate, subtype="FLOAT")
        sets = [Results(name, folder) for name, folder in folders.items()]
        found = evaluate_sounds(
            [*sets, generator], clips, tools, guidance=[asked.guidance], steps=[asked.steps], seed=asked.seed,
            examples=0,
        )  # fmt: skip
    return rows_of(found), len(train)


def reconstruction(generator: Any, clips: Sequence[Clip]) -> dict[str, float]:
    """Means over the clips, channels averaged."""
    frontend, rate = generator.model.frontend, generator.sample_rate
    found: list[Scores] = []
    for clip in clips:
        wave, own = read(clip.path)
        heard = np.asarray(resample(wave.mean(axis=0), own, rate))[None, : generator.num_samples()]
        with torch.inference_mode():
            made = frontend.decode(frontend.encode(torch.from_numpy(heard)[None]), heard.shape[1])[0]
        found.append(measure(heard, made.numpy(), rate, RECONSTRUCTION))
    return {name: float(np.nanmean([scores.values[name] for scores in found])) for name in RECONSTRUCTION}


def classes_table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown, with a last row for all."""
    lines = []
    for row in rows:
        else_for = ", ".join(f"{name} {n}" for name, n in list(row["taken_for"].items())[:2])
        told = f"{row['right']} of {row['made']}", f"{row['real_right']} of {row['real']}"
        lines.append((row["label"], *told, else_for))
    right, made, real_right, real = (sum(row[key] for row in rows) for key in ("right", "made", "real_right", "real"))
    lines.append(("all", f"{100 * right / made:.1f} % of {made}", f"{100 * real_right / real:.1f} % of {real}", ""))
    return markdown(("label", "right, of those made", "right, of real clips", "else mostly taken for"), lines)


def main() -> None:
    """Print both tables, and write them."""
    parser = arguments(__doc__)
    parser.add_argument("model", help="a generator that reads texts")
    parser.add_argument("data", help="a folder of sounds with captions and labels")
    parser.add_argument("--count", "-n", type=int, default=20, help="sounds of each label")
    parser.add_argument("--split", default="test", choices=("valid", "test"))
    parser.add_argument("--without-licence", metavar="WORD")
    parser.add_argument("--embedder", "-e", action="append", help="as of fromnoise evaluate; may be repeated")
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    generator = fromnoise.load(asked.model)
    clips = real_clips(asked.data, asked.split, asked.without_licence, None)
    classes = right_classes(generator, embedder_of("classifier:sounds-classifier"), clips, asked)
    rows, count = distances(generator, clips, asked)
    head = (
        f"{asked.model} on {len(clips)} clips of {asked.split} ({count} of train), guidance "
        f"{'its own' if asked.guidance is None else asked.guidance}, seed {asked.seed}"
    )
    again = reconstruction(generator, clips)
    said = ", ".join(f"{name} {value:.3f}" for name, value in again.items())
    text = f"{classes_table(classes)}\n\n{table(rows)}\n\nReconstruction: {said}."
    publish(head, text, [*classes, *rows, {"reconstruction": again}], asked.output)


if __name__ == "__main__":
    main()
