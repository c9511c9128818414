"""A folder that holds every file and model that the documentation's examples name, as small as they can be.

Sounds are a second of the recordings in examples/sounds, or tones; models are tiny and untrained, saved under the names
that the pages give to runs, folders and checkpoints. Bundled models are taken as they are.
"""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import soundfile
import torch

from fromnoise import hub
from fromnoise.backbones import ConvNeXtConfig, NCSNppConfig, SpectralConfig, TCUNetConfig, UNet1dConfig
from fromnoise.backbones.encoder1d import Encoder1dConfig
from fromnoise.conditioning import Bytes
from fromnoise.data.clips import Clips
from fromnoise.data.places import DIGITS
from fromnoise.frontends import STFT, Wave
from fromnoise.predictions import Velocity
from fromnoise.processes import VPAngular
from fromnoise.recipes import RECIPES, Recipe
from fromnoise.recipes.base import nested
from fromnoise.recipes.text_to_audio import latent_of
from fromnoise.samplers import DDIM, Uniform
from fromnoise.tasks import TASKS
from fromnoise.training.settings import Optimisation, TrainerSettings
from tests import published
from tests.docs.blocks import ROOT

RATE = 16000
CLIP = 1024  # samples of a tiny generator's clip, at 1 kHz
RUN = "2026-01-31_12-00-00"

GENERATE = Recipe(
    name="docs/generate",
    task="generate",
    frontend=Wave(1000, scale=4.0),
    backbone=ConvNeXtConfig(1, 8, 1, kernel=3, vector=8),
    process=VPAngular(),
    prediction=Velocity(),
    sampler=DDIM(),
    grid=Uniform(),
    num_steps=2,
    text=Bytes(8, 1, 2),
    drop_label=0.2,
    seconds=CLIP / 1000,
    data=Clips(sample_rate=1000, seconds=CLIP / 1000, fixed=False, captions=("label",)),
    optimisation=Optimisation(),
    trainer=TrainerSettings(),
)
UNET = UNet1dConfig(
    in_channels=1, channels=(8, 8), factors=(2, 4), items=(1, 1), resnet_groups=4, modulation_features=16,
    context_channels=(0, 4),
)  # fmt: skip
AUTOENCODE = dataclasses.replace(
    GENERATE,
    name="docs/autoencode",
    task="autoencode",
    frontend=Wave(1000),
    text=None,
    drop_label=0.0,
    encoder=Encoder1dConfig(
        1, 8, (1, 1), (2,), (1,), resnet_groups=4, out_channels=4, front={"name": "magnitude", "n_fft": 15, "hop": 4}
    ),
    backbone=UNET,
    data=dataclasses.replace(GENERATE.data, captions=()),
)
UPSAMPLE = dataclasses.replace(
    AUTOENCODE,
    name="docs/upsample",
    seconds=1.0,
    task="upsample",
    factor=4,
    frontend=Wave(RATE),
    encoder=None,
    backbone=dataclasses.replace(UNET, signal_channels=1, context_channels=(0, 0)),
    data=dataclasses.replace(AUTOENCODE.data, sample_rate=RATE),
)
SPLITS = dataclasses.replace(
    GENERATE,
    splits=4,
    num_steps=4,
    backbone=UNet1dConfig(
        in_channels=1, signal_channels=1, channels=(8,), factors=(2,), items=(1,), resnet_groups=4,
        modulation_features=8, vector_dim=8, use_time_conditioning=False,
    ),
)  # fmt: skip
SEPARATE = dataclasses.replace(
    RECIPES["diffsep/wsj0_2mix"],
    backbone=SpectralConfig(
        nested("backbone", NCSNppConfig(16, 6, 4, 4, (1, 2), 1, ())),
        nested("frontend", STFT(8000, 30, 8, padding="constant", exponent=0.5, factor=0.15)),
        multiple=2,
        tail=True,
    ),
)
LATENTS = dataclasses.replace(
    GENERATE, frontend=Wave(1000), backbone=ConvNeXtConfig(4, 8, 1, kernel=3, vector=8), latent=latent_of(AUTOENCODE)
)
MODELS = {
    "runs/sounds": GENERATE,
    "runs/mine": GENERATE,
    "runs/timed": dataclasses.replace(GENERATE, duration=True),
    "runs/splits": SPLITS,
    "runs/latent": LATENTS,
    "runs/ae": AUTOENCODE,
    "runs/upsampler": UPSAMPLE,
    f"runs/enhance/bridge/{RUN}": RECIPES["debug/tiny"],
    f"runs/enhance/small/{RUN}": RECIPES["debug/tiny"],
    "runs/concat": RECIPES["debug/tiny"],
    "runs/dual": RECIPES["debug/tiny"],
    "runs/guided": RECIPES["debug/tiny"],
    "runs/my-separator": SEPARATE,
}


def lay_out(folder: Path) -> Path:
    """Everything below `folder`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, recipe in MODELS.items():
            save(recipe, folder / name)
        checkpoints(folder)
    sounds(folder)
    sets(folder)
    return folder


def save(recipe: Recipe, folder: Path) -> None:
    """A recipe's model as it is before training."""
    config = recipe.model_config()
    card = {"task": recipe.task, "name": folder.name, "config": hub.config_dict(config), "licence": "MIT"}
    model = TASKS[recipe.task][1](config)
    hub.save(model, card | {"sample_rate": recipe.sample_rate}, folder)


def checkpoints(folder: Path) -> None:
    """Files as the other repositories write them."""
    small = published.filled(published.philsyn(8, 8, 3, 80))
    for name in ("weights.pt", "ch64_T50_betaT0.05/logs/checkpoint/1000000.pkl", *averaged()):
        put(folder / name, {"model_state_dict": small})
    for name, wiring in (("ddpm", "dual"), ("c_gen", "base"), ("refiner", "base")):
        put(folder / f"{name}.pth", {"model_state_dict": TCUNetConfig(wiring).build().state_dict()})


def averaged() -> list[str]:
    return [f"checkpoint/{step}.pkl" for step in (460000, 480000, 500000)]


def put(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)


def sounds(folder: Path) -> None:
    """Recordings, alone and in folders; mp3 where the pages say so."""
    noisy, clean = wave("noisy"), wave("clean")
    for name in ("noisy", "talk", "call", "speech", "a", "b", "one", "two", "street", "telephone", "x"):
        write(folder / f"{name}.wav", noisy)
    for place in ("talks", "recordings", "mixtures", "old", "wavs", "RECORDINGS", "corpus"):
        write(folder / place / "a.wav", clean)
        write(folder / place / "b.wav", noisy)
    for name in ("meeting", "talk"):
        soundfile.write(folder / f"{name}.mp3", noisy, RATE)
    for name in ("PAIRS", "DATA", "enhance/test", "enhance/vbd"):
        for i, item in enumerate(("p1_1", "p2_2")):
            write(folder / name / "clean" / f"{item}.wav", np.roll(clean, 9000 * i))
            write(folder / name / "noisy" / f"{item}.wav", np.roll(noisy, 9000 * i))


def sets(folder: Path) -> None:
    """What is evaluated: mixtures with their sources, digits with their labels, speech for vocoders."""
    clean = wave("clean")
    for i, name in enumerate(("s1", "s2")):
        for place in (f"separate/{name}.wav", f"MIXTURES/{name}/m.wav"):
            write(folder / place, np.roll(clean, 4000 * i))
    table(folder / "separate/test_mixtures.csv", [{"id": "m", "file_a": "s1.wav", "file_b": "s2.wav"}])
    table(folder / "MIXTURES.csv", [{"id": "m", "file_a": "separate/s1.wav", "file_b": "separate/s2.wav"}])
    table(folder / "VOCODER/metadata.csv", [{"file": "a.wav", "speaker": "anna", "split": "test"}])
    write(folder / "VOCODER/a.wav", clean)
    draw, rows = np.random.default_rng(0), []
    for i in range(60):
        t = np.arange(4000) / 8000
        name = f"{i}.wav"
        write(folder / "DIGITS" / name, 0.2 * np.sin(2 * np.pi * draw.uniform(100, 2000) * t), 8000)
        rows.append({"file": name, "label": DIGITS[i % 10], "split": "train" if i < 40 else "test"})
    table(folder / "DIGITS/metadata.csv", rows)


def wave(name: str) -> np.ndarray:
    """A second and a half of one of the recordings in examples/sounds."""
    return soundfile.read(ROOT / f"examples/sounds/{name}.flac", dtype="float32")[0][4000:28000]


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)


def table(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
