"""Models of a few hundred weights for the page: an enhancer of three steps, and a generator that reads texts."""

from pathlib import Path

import pytest
import torch

from fromnoise import hub
from fromnoise.tasks import GenerationConfig, GenerationModel


def make_text_model(folder: Path) -> Path:
    """Noise of 0.2 s at 8 kHz in four steps, its colour a matter of the text."""
    config = GenerationConfig(
        frontend={"name": "wave", "sample_rate": 8000},
        backbone={"name": "convnext", "features": 1, "width": 8, "layers": 1, "kernel": 3, "vector": 8},
        process={"name": "vp_angular"},
        prediction={"name": "velocity"},
        sampler={"name": "ddim"},
        grid={"name": "uniform"},
        num_steps=4,
        text={"name": "bytes", "dim": 8, "layers": 1, "heads": 2, "max_bytes": 32},
        seconds=0.2,
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = GenerationModel(config)
        for weight in model.parameters():
            weight.normal_(std=0.2)
    card = {"task": "generate", "name": "tiny-text", "config": hub.config_dict(config), "licence": "MIT"}
    hub.save(model, card | {"sample_rate": 8000}, folder)
    return folder


@pytest.fixture(scope="session")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the generator that reads texts."""
    return make_text_model(tmp_path_factory.mktemp("text") / "tiny-text")
