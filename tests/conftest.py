"""Every annotated tensor border of the package is checked while the tests run (shapes by jaxtyping, types by beartype).

`tiny_models` are two enhancers of a few hundred weights: "regression" (one step, no noise) and "bridge" (three
stochastic steps). Their weights are as drawn, so they change what they hear; nothing about quality can be said of them.
"""

from pathlib import Path

import pytest
from jaxtyping import install_import_hook

install_import_hook("fromnoise", "beartype.beartype")

TINY = {"name": "crn", "channels": [4, 4], "hidden": 8, "squeeze": 4, "groups": 1, "dilations": [1, 2]}
KINDS = {
    "regression": {},
    "bridge": {
        "process": {"name": "bridge"},
        "sampler": {"name": "ancestral", "eta": 1.0},
        "grid": {"name": "uniform", "end": "t_min"},
        "num_steps": 3,
    },
}


def make_tiny(kind: str, folder: Path, seed: int = 0) -> Path:
    """A model folder of one of KINDS."""
    import torch

    from fromnoise import hub
    from fromnoise.tasks import EnhancementConfig, EnhancementModel

    config = EnhancementConfig(backbone=TINY, **KINDS[kind])
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = EnhancementModel(config)
        model.denoiser.backbone.head.weight.normal_(std=0.02)  # zero at first: the network would pass on what it hears
    card = {"task": "enhance", "name": f"tiny-{kind}", "config": hub.config_dict(config), "licence": "MIT"}
    hub.save(model, card | {"sample_rate": 16000}, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Kind -> model folder; do not change what is inside."""
    root = tmp_path_factory.mktemp("models")
    return {kind: make_tiny(kind, root / kind) for kind in KINDS}


@pytest.fixture(scope="session")
def make_model():
    """The function (kind, folder, seed) -> model folder."""
    return make_tiny
