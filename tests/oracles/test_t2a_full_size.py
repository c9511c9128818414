"""The two models of Mousai's kind at full size, 185,107,872 and 562,606,400 parameters, float32 against outputs of
audio-diffusion-pytorch 0.1.3. They need up to 6 GB of memory and minutes, so they run when asked for:

    FROMNOISE_FULL_SIZE=1 pytest tests/oracles/test_t2a_full_size.py

The vectors allow 2e-3 of the largest value; sums of up to 3072 products in another order stay below a hundredth of it.
"""

import os

import pytest
import torch

from fromnoise.backbones import ENCODERS
from fromnoise.importers import unet1d
from fromnoise.types import Condition
from tests.t2a_vectors import AUTOENCODER, GENERATOR, Vector, filled, noise

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("FROMNOISE_FULL_SIZE" not in os.environ, reason="full size: set FROMNOISE_FULL_SIZE=1"),
]


def loaded(vector, config, names, prefix):
    """The network with the published weights, each tensor in memory once."""
    with torch.device("meta"):
        network = config.build()
    rank = {name: i for i, name in enumerate(sorted(vector.shapes))}
    own = {}
    for mine, there in names(network).items():
        full = prefix + there
        own[mine] = filled({full: vector.shapes[full]}, vector.facts["rule"]["constants"], torch.float32, rank[full])[
            full
        ]
    network.load_state_dict(own, assign=True)
    return network.eval()


def close(actual, expected):
    assert float((actual - expected).abs().max()) < 2e-5 * float(expected.abs().max())


def test_autoencoder():
    vector = Vector("t2a_seed_diffae_full")
    encoder = loaded(vector, ENCODERS["encoder1d"](), unet1d.encoder_names, "encoder.")
    network = loaded(vector, AUTOENCODER, unet1d.names, "net.")
    assert sum(p.numel() for part in (encoder, network) for p in part.parameters()) == 185_107_872
    with torch.no_grad():
        close(encoder(vector["in.x"]), vector["out.latent"])
        close(network(vector["in.x"], vector["in.time"], Condition(frames=vector["out.latent"])), vector["out.v"])


def test_generator():
    vector = Vector("t2a_seed_diffgen_full")
    network = loaded(vector, GENERATOR, unet1d.names, "net.")
    assert sum(p.numel() for p in network.parameters()) == 562_606_400
    embedding = (0.2 * noise((1, 128, 768), 1, vector.facts["rule"]["constants"])).float()
    told = torch.ones(1, 128, dtype=torch.bool)
    both = Condition(context=embedding.expand(2, -1, -1), mask=torch.cat([told, ~told]))
    with torch.no_grad():
        v, free = network(vector["in.x"].expand(2, -1, -1), vector["in.time"].expand(2), both).split(1)
    close(v, vector["out.v"])
    close(free + 5 * (v - free), vector["out.v_cfg5"])
