"""Vocoders of a few hundred weights at 2 kHz, as drawn: nothing about quality can be said of them."""

from pathlib import Path

import torch

from fromnoise import hub
from fromnoise.frontends import Mel
from fromnoise.tasks import Vocoder, VocodingConfig, VocodingModel

RATE = 2000
MEL = Mel(sample_rate=RATE, n_fft=64, hop=32, win=64, n_mels=8, fmax=None)
SPEC = {"name": "mel", "sample_rate": RATE, "n_fft": 64, "hop": 32, "win": 64, "n_mels": 8, "fmax": None}


def configs() -> dict[str, VocodingConfig]:
    """Kind -> configuration."""
    return {
        "wavenet": VocodingConfig(
            mel=SPEC,
            frontend={"name": "wave", "sample_rate": RATE},
            backbone={
                "name": "wavenet", "residual_channels": 4, "skip_channels": 4, "num_layers": 3, "dilation_cycle": 3,
                "mel_bands": 8, "mel_upsample": [4, 8], "embed_in": 8, "embed_mid": 8, "embed_out": 8,
            },
            process={"name": "vp", "beta_min": 1e-4, "beta_max": 0.3, "num_steps": 3},
            num_steps=3,
            prior="energy",
            loudest=0.02,
        ),
        "magnitude": VocodingConfig(
            mel=SPEC,
            frontend={"name": "magnitude", "sample_rate": RATE, "n_fft": 64, "hop": 32, "iterations": 4},
            backbone={"name": "convnext", "features": 33, "width": 8, "layers": 2, "kernel": 3, "frames": 8},
            process={"name": "flow", "start": "observation", "sigma": 0.0},
            prediction={"name": "velocity"},
            sampler={"name": "euler"},
            grid={"name": "uniform"},
            num_steps=1,
            observation="mel",
        ),
    }  # fmt: skip


def model(kind: str) -> VocodingModel:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        made = VocodingModel(configs()[kind])
        for name, parameter in made.named_parameters():
            if name.endswith(("output.weight", "last.weight")):  # zero at first: the network would say nothing
                parameter.normal_(std=0.3)
    return made


def vocoder(kind: str) -> Vocoder:
    return Vocoder(model(kind), kind)


def save(kind: str, folder: Path) -> Path:
    """A model folder."""
    card = {"task": "vocode", "name": f"tiny-{kind}", "config": hub.config_dict(configs()[kind]), "licence": "MIT"}
    hub.save(model(kind), card | {"sample_rate": RATE}, folder)
    return folder
