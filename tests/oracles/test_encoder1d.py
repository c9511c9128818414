"""encoder1d against outputs of audio-encoders-pytorch 0.0.22; float64, atol 1e-9, rtol 1e-7."""

import dataclasses

import pytest
import torch

from fromnoise.backbones import ENCODERS
from fromnoise.backbones.bottlenecks import Noiser, Variational
from fromnoise.importers import unet1d as names
from tests.t2a_vectors import Vector, outputs

Config = ENCODERS["encoder1d"]
FIELDS = {field.name for field in dataclasses.fields(Config)}
MEL = {"name": "mel", "scale": "htk", "norm": "none", "centered": False, "fmax": None}


def loaded(vector, front, prefix="", given=None):
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in (given or vector.config).items() if k in FIELDS}
    network = Config(**fields | {"front": front, "bottleneck": {"name": "tanh"}}).build().double()
    state = vector.load(network, names.encoder_names(network), prefix) if not prefix else None
    if prefix:
        inside = {k.removeprefix(prefix): v for k, v in vector.state().items() if k.startswith(prefix)}
        network.load_state_dict({own: inside[there] for own, there in names.encoder_names(network).items()})
    return network if state is None else state


def magnitudes(config, **changes):
    return {"name": "magnitude", "n_fft": config["stft_num_fft"], "hop": config["stft_hop_length"], **changes}


def test_magnitudes_and_every_stage():
    vector = Vector("t2a_me1d_tanh")
    network = loaded(vector, magnitudes(vector.config))
    assert network.config.downsample_factor == int(vector["out.downsample_factor"])
    assert network.config.latent_channels == int(vector["out.out_channels"])
    parts = {"xs1": network.enter, "xs2": network.levels[0], "xs3": network.levels[1], "xs4": network.out}
    with torch.no_grad():
        shown = network.shown(vector["in.x"])
        vector.check(shown.unflatten(1, (2, 16)), "magnitude")
        vector.check(shown, "xs0")
        found = outputs(network, parts, lambda: vector.check(network(vector["in.x"]), "latent"))
        for name, value in found.items():
            vector.check(value, name)
        # the published logarithm has no floor; this input's magnitudes stay above ours
        vector.check(loaded(vector, magnitudes(vector.config, log=True, floor=1e-12))(vector["in.x"]), "latent_log")


def test_mel_encoder():
    vector = Vector("t2a_mele1d")
    fields = {"sample_rate": 8000, "n_fft": 32, "hop": 8, "win": 32, "n_mels": 8}
    network = loaded(vector, MEL | fields)
    assert network.config.downsample_factor == int(vector["out.downsample_factor"])
    with torch.no_grad():
        vector.check(network.shown(vector["in.x"])[:, None], "mel")
        vector.check(network(vector["in.x"]), "latent")


def test_encoder_of_the_diffusion_autoencoder():
    vector = Vector("t2a_diffae")
    given = vector.config["encoder"]
    network = loaded(vector, magnitudes(given), "encoder.", given)
    with torch.no_grad():
        vector.check(network(vector["in.x"]), "latent")


SMALL = Config(1, 8, (1, 2), (2,), (1,), 2, 4, 3, {"name": "tanh"}, None)


def test_any_length_is_filled_and_silence_is_finite():
    torch.manual_seed(0)
    network = SMALL.build()
    wave = torch.randn(2, 1, 9)
    with torch.no_grad():
        torch.testing.assert_close(network(wave), network(torch.nn.functional.pad(wave, (0, 3))), rtol=0, atol=0)
    assert network(wave).shape == (2, 3, 3)
    silent = dataclasses.replace(SMALL, patch_size=1, front={"name": "magnitude", "n_fft": 15, "hop": 4, "log": True})
    assert bool(silent.build()(torch.zeros(1, 1, 8)).isfinite().all())


def test_variational_bottleneck_learns_from_its_divergence():
    torch.manual_seed(0)
    layer = Variational(0.5).build(3).double()
    h = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    z, loss = layer.eval()(h)
    mean, std = torch.tanh(layer.both(h)[:, :3]), 1 + torch.tanh(layer.both(h)[:, 3:])
    published = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, std), torch.distributions.Normal(torch.zeros(()), torch.ones(()))
    )
    torch.testing.assert_close(loss, 0.5 * published.mean(dim=(1, 2)))
    torch.testing.assert_close(z, mean)
    loss.sum().backward()
    assert float(h.grad.abs().min()) > 0
    drawn, _ = layer.train()(h, torch.Generator().manual_seed(1))
    assert torch.equal(drawn, layer(h, torch.Generator().manual_seed(1))[0])
    assert not torch.allclose(drawn, z)


def test_noiser_adds_noise_in_training_only():
    layer, h = Noiser(2.0).build(1), torch.zeros(1, 1, 40000)
    assert abs(float(layer(h, torch.Generator().manual_seed(0))[0].std()) - 2) < 0.05
    assert torch.equal(layer.eval()(h)[0], h)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"multipliers": (1,)}, "one more multiplier"),
        ({"front": {"name": "magnitude", "n_fft": 16, "hop": 4}}, "odd n_fft"),
        ({"front": {"name": "mel"}}, "centered=False"),
        ({"resnet_groups": 3}, "multiples of resnet_groups=3"),
        ({"bottleneck": {"name": "bits"}}, "noiser, tanh, variational"),
    ],
)
def test_impossible_settings_say_why(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **changes)
