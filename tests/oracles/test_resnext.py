"""The classifier of spoken digits agrees with the published network, weight names included."""

import json

import numpy as np
import pytest
import torch

from fromnoise.backbones.resnext import ResNeXtConfig, count_parameters
from fromnoise.tasks.classification import ClassificationConfig, ClassificationModel
from tests.rules import VECTORS

ABOUT = json.loads((VECTORS / "sc09_resnext.json").read_text())
SIZES = {key: ABOUT["config"][key] for key in ("cardinality", "depth", "base_width", "widen_factor")}


def filled(dtype):
    """The vector's network: 0.3 sin(0.37 k + i + 0.1), i the rank of the parameter's name, k the flat index."""
    network = ResNeXtConfig(**SIZES).build(ABOUT["config"]["nlabels"]).to(dtype).eval()
    with torch.no_grad():
        for i, (_, parameter) in enumerate(sorted(network.named_parameters())):
            k = np.arange(parameter.numel())
            value = 0.3 * np.sin(0.37 * k + 1.0 * i + 0.1)
            parameter.copy_(torch.from_numpy(value.reshape(parameter.shape)))
    return network


def test_names_and_shapes_are_the_published_ones():
    ours = {name: list(parameter.shape) for name, parameter in filled(torch.float64).named_parameters()}
    assert ours == dict(ABOUT["parameters"])


@pytest.mark.parametrize(("dtype", "rtol", "atol"), [("float64", 1e-9, 1e-10), ("float32", 1e-4, 1e-5)])
def test_logits_and_features_equal_the_published_network(dtype, rtol, atol):
    vector = np.load(VECTORS / "sc09_resnext.npz")
    b, m, w = np.ogrid[:2, :32, :32]
    image = 10 * (-2 + 1.5 * np.sin(0.4 * m + 0.9 * w + 0.7 * b)) - 20
    kind = getattr(torch, dtype)
    with torch.no_grad():
        logits, features = filled(kind)(torch.from_numpy(image[:, None]).to(kind))
    np.testing.assert_allclose(logits.numpy(), vector[f"logits_{dtype[0]}{dtype[-2:]}"], rtol=rtol, atol=atol)
    scale = 1 if dtype == "float64" else np.abs(vector["feat_f64"]).max()
    np.testing.assert_allclose(features.numpy(), vector["feat_f64"], rtol=rtol, atol=atol * scale)


def test_full_size_has_the_published_number_of_parameters():
    assert count_parameters(ResNeXtConfig(), 10) == 34_425_546
    assert ResNeXtConfig().num_features == 1024


def test_image_of_a_clip_is_the_published_mel():
    """Level in dB below the clip's own maximum, as their program computes it (reflect padding)."""
    vector = np.load(VECTORS / "mel_frontends.npz")
    small = {"name": "resnext", "depth": 11, "cardinality": 1, "base_width": 4, "widen_factor": 1}
    model = ClassificationModel(ClassificationConfig(network=small))
    wave = torch.from_numpy(vector["audio"][:16000]).double()[None, None]
    image = model.image(wave)
    assert image.shape == (1, 1, 32, 32)
    np.testing.assert_allclose(image[0, 0].numpy(), vector["sc09_classifier_mel_reflect"], atol=1e-3)
