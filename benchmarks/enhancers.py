"""Every kind of enhancer trained on the same small data for the same compute, and scored on the same recordings.

    python -m benchmarks.enhancers DATA OUT --minutes 12

DATA: the folder of the data packs. One minute is a minute of processor time of one thread on this machine, measured
per training step before each stage; data loading counts, validation does not. A finished stage is not run again, so the
stages of two calls with `--only`, and then the rows of two with `--rows`, may run side by side. OUT/tables.md has the
scores, and how far each lies from those of the generator trained for longer, with 95 % bootstrap intervals over pairs.

Two sets of 60 pairs with the voices of the pack's test set: `unseen`, the pack's own, whose noise types are absent from
training, and `seen`, made here, the same clean speech with held-out recordings of types that are in training (rain,
storm, fire), at the same ratios of speech to noise. Nothing is chosen by either set.
"""

import argparse
import csv
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from safetensors.numpy import load_file, save_file

from fromnoise.data.mixtures import active_level, rms
from fromnoise.evaluation.statistics import paired_difference

FROMNOISE = [sys.executable, "-c", "import sys; from fromnoise.cli import main; sys.exit(main())"]
COMMON = (
    "trainer.max_epochs=2",
    "trainer.batch_size=8",
    "trainer.num_workers=0",
    "trainer.samples=0",
    "trainer.precision=bf16-mixed",
    "data.seconds=1.0",
    "data.valid_items=8",
    "optimisation.ema=0.99",
    "optimisation.warmup_steps=20",
    "scores=[]",
    "logger=csv",
)
DIFFUSE = ("recipe=drdiffuse/diffuse_small", "guidance=0", "refiner=null")


@dataclass(frozen=True)
class Stage:
    """One training. share: of the minutes; settings: `{out}` stands for the folder of the stages."""

    name: str
    share: float
    settings: tuple[str, ...]


STAGES = (
    Stage("base", 1, ("recipe=drdiffuse/base_small",)),
    Stage("crn", 1, ("recipe=enhance/small", "shifts=1")),
    Stage("generator", 1 / 3, ("recipe=drdiffuse/base_small",)),
    Stage("concat", 1, (*DIFFUSE, "backbone.wiring=concat", "generator=null")),
    Stage(
        "concat_generator",
        2 / 3,
        (*DIFFUSE, "backbone.wiring=concat", "init.generator={out}/generator", "init.backbone={out}/generator"),
    ),
    Stage("dual", 2 / 3, (*DIFFUSE, "init.generator={out}/generator", "init.backbone={out}/generator")),
    Stage(
        "refined",
        1 / 6,
        (
            "recipe=drdiffuse/refiner_small",
            "init.backbone={out}/dual",
            "init.generator={out}/generator",
            "init.refiner={out}/generator",
        ),
    ),
    Stage(
        "augmented",
        2 / 3,
        (
            "recipe=drdiffuse/refiner_small",
            "init.backbone={out}/dual",
            "init.generator={out}/generator",
            "init.refiner={out}/generator",
            "refine_on=[generated,noisy,mixed]",
        ),
    ),
    Stage("bridge", 1, ("recipe=enhance/bridge",)),
    Stage("ncsnpp_bridge", 1, ("recipe=schrodinger/small",)),
    Stage("ncsnpp_ouve", 1, ("recipe=sgmse/small",)),
    Stage("cdiffuse", 1, ("recipe=cdiffuse/small", "trainer.batch_size=4")),
    Stage("dose", 1, ("recipe=dose/small", "trainer.batch_size=4")),
    Stage("longer", 2 / 3, ("recipe=drdiffuse/base_small", "init.backbone={out}/generator")),
)
METRICS = "pesq_wb,pesq_nb,stoi,estoi,si_sdr,csig,cbak,covl,ssnr"


@dataclass(frozen=True)
class Row:
    """One line of the table: a stage's weights, under settings of their own. alone: its refiner by itself, a regression
    as that other stage's."""

    name: str
    stage: str
    changed: dict[str, Any] = field(default_factory=dict)
    alone: str = ""


ROWS = (
    *(Row(name, name) for name in ("base", "crn", "generator", "longer", "concat", "concat_generator", "dual")),
    Row("guided", "dual", {"guidance": 0.5}),
    *(Row(name, name) for name in ("refined", "augmented")),
    Row("augmented_alone", "augmented", alone="generator"),
    *(Row(name, name) for name in ("bridge", "ncsnpp_bridge", "cdiffuse", "dose")),
    Row("ncsnpp_ouve", "ncsnpp_ouve", {"sampler": {"name": "ddim"}, "num_steps": 8}),
)


def main() -> None:
    """Train what is missing, make the sets, score everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--limit", type=int, default=60, help="pairs of each set")
    parser.add_argument("--only", default="", help="stages to train, with commas, and no scores")
    parser.add_argument("--rows", default=",".join(row.name for row in ROWS), help="rows to score, with commas")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    stages = {stage.name: stage for stage in STAGES}
    for name in asked.only.split(",") if asked.only else stages:
        if not (asked.out / name / "stage.json").exists():
            train(stages[name], asked.data, asked.out, asked.minutes)
    if not asked.only:
        score(asked.data, asked.out, asked.limit, asked.rows.split(","))
        (asked.out / "tables.md").write_text(tables(asked.out))


def train(stage: Stage, data: Path, out: Path, minutes: float) -> None:
    """Measure a step, then train for as many as the minutes hold."""
    given = (s.format(out=out).partition("=") for s in (*stage.settings[:1], *COMMON, *stage.settings[1:]))
    settings = [f"{k}={v}" for k, v in {k: v for k, _, v in given}.items()] + [f"data.root={data}"]
    measured = out / f"measured_{stage.name}"
    few, more = (run(settings, measured, steps) for steps in (2, 12))
    shutil.rmtree(measured)
    cost = (more - few) / 20
    steps = max(1, round(60 * minutes * stage.share / cost / 2))
    spent = run(settings, out / stage.name, steps)
    facts = {"seconds_per_step": cost, "steps": 2 * steps, "minutes": minutes * stage.share, "spent_s": spent}
    (out / stage.name / "stage.json").write_text(json.dumps(facts | {"settings": settings}, indent=2))
    print(stage.name, facts, flush=True)


def run(settings: list[str], folder: Path, steps_per_epoch: int) -> float:
    """Two epochs of so many steps; the processor time in seconds."""
    shutil.rmtree(folder, ignore_errors=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [*FROMNOISE, "train", *settings, f"folder={folder}", f"trainer.steps_per_epoch={steps_per_epoch}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def score(data: Path, out: Path, limit: int, rows: Sequence[str]) -> None:
    """Evaluate the named rows on both sets, each into OUT/scores/SET/ROW; what is there is not done again."""
    sets = {"seen": make_seen(data, out / "seen"), "unseen": data / "enhance" / "test"}
    for row in ROWS:
        if row.name in rows and (out / row.stage / "stage.json").exists():
            for name, folder in sets.items():
                into = out / "scores" / name / row.name
                if not (into / "summary.csv").exists():
                    command = [*FROMNOISE, "evaluate", str(model_of(row, out)), str(folder), "-o", str(into)]
                    subprocess.run([*command, "--limit", str(limit), "--metrics", METRICS], check=True)


def tables(out: Path) -> str:
    """Means of both sets, and by how much each row's differ from those of `longer`, pair by pair."""
    lines = []
    for name in ("seen", "unseen"):
        found = {row.name: out / "scores" / name / row.name for row in ROWS}
        found = {row: read(folder) for row, folder in found.items() if (folder / "summary.csv").exists()}
        metrics = METRICS.split(",")
        lines += [f"## {name}", "", f"| | calls | RTF | {' | '.join(metrics)} |", "|---" * (len(metrics) + 3) + "|"]
        lines += ["| noisy | 0 | | " + means(next(iter(found.values()))[0], metrics) + " |"]
        for row, (_, own, calls, rtf) in found.items():
            lines.append(f"| {row} | {calls} | {float(rtf):.2f} | {means(own, metrics)} |")
        lines += ["", "| against `longer` | pesq_wb | estoi | si_sdr |", "|---|---|---|---|"]
        rule = found.get("longer", (None, {}))[1]
        for row, (_, own, *_) in found.items():
            if rule and row != "longer":
                pairs = (
                    (paired_difference(own[m], rule[m]), d) for m, d in (("pesq_wb", 2), ("estoi", 3), ("si_sdr", 1))
                )
                cells = (f"{x.mean:+.{d}f} ({x.low:+.{d}f} to {x.high:+.{d}f})" for x, d in pairs)
                lines.append(f"| {row} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


Scores = dict[str, list[float]]


def read(folder: Path) -> tuple[Scores, Scores, str, str]:
    """Scores of the noisy files and of the model's, in the order of files, its network calls and real-time factor."""
    with (folder / "results.csv").open(newline="") as table:
        lines = list(csv.DictReader(table))
    with (folder / "summary.csv").open(newline="") as table:
        last = list(csv.DictReader(table))[-1]
    by_kind = [
        {
            m: [float(line[m] or "nan") for line in lines if (line["model"] == "noisy") is kind]
            for m in METRICS.split(",")
        }
        for kind in (True, False)
    ]
    return by_kind[0], by_kind[1], last["network_calls"], last["real_time_factor"]


def means(scores: Scores, metrics: Sequence[str]) -> str:
    """The means as cells of a table."""
    digits = {"stoi": 3, "estoi": 3, "si_sdr": 1, "ssnr": 1}
    return " | ".join(f"{np.nanmean(scores[m]):.{digits.get(m, 2)}f}" for m in metrics)


def model_of(row: Row, out: Path) -> Path:
    """A model folder with the weights of the row's stage under the row's name and settings."""
    folder = out / "models" / row.name
    folder.mkdir(parents=True, exist_ok=True)
    card = json.loads((out / (row.alone or row.stage) / "card.json").read_text())
    card |= {"name": row.name, "config": card["config"] | row.changed}
    (folder / "card.json").write_text(json.dumps(card, indent=2))
    weights = load_file(out / row.stage / "model.safetensors")
    if row.alone:
        weights = {f"denoiser.backbone.{k[8:]}": w for k, w in weights.items() if k.startswith("refiner.")}
    save_file(weights, folder / "model.safetensors")
    return folder


def make_seen(data: Path, folder: Path) -> Path:
    """The pack's test speech with rain, storm and fire from the held-out recordings, at the pack's ratios."""
    with (data / "enhance" / "test_pairs.csv").open(newline="") as table:
        pairs = [row for row in csv.DictReader(table) if row["subset"] == "test"]
    noises = [p for p in sorted((data / "enhance" / "noise" / "valid").glob("*.flac")) if "underwater" not in p.name]
    for kind in ("noisy", "clean"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for k, row in enumerate(pairs):
        clean, rate = soundfile.read(data / "enhance" / row["clean"])
        noise, _ = soundfile.read(noises[k % len(noises)])
        start = int(np.random.default_rng([7, k]).integers(max(1, len(noise) - len(clean))))
        noise = np.resize(noise[start:], len(clean))
        noisy = clean + noise * active_level(clean) / rms(noise) * 10 ** (-float(row["snr_db"]) / 20)
        gain = min(1.0, 0.95 / np.abs(noisy).max())
        for kind, wave in {"noisy": noisy, "clean": clean}.items():
            soundfile.write(folder / kind / f"{k:03d}.flac", gain * wave, rate)
    return folder


if __name__ == "__main__":
    main()
