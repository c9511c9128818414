"""DiffSep's networks of waves (fakufaku/diffusion-separation at d1855e9), against arrays that its code computed."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from fromnoise.backbones.cdiffuse import PRESETS, CDiffuSEConfig
from fromnoise.backbones.layers import step_sinusoids
from fromnoise.backbones.spectral import SpectralConfig
from fromnoise.importers import diffsep, ncsnpp
from fromnoise.importers.base import PREFIX, Clues
from fromnoise.types import Condition
from tests.score_files import arrays_of, facts_of, weights_of

KINDS = pytest.mark.parametrize("kind", ["f64", "f32"])


def close(actual, expected, tolerance):
    torch.testing.assert_close(actual, expected.to(actual.dtype), **tolerance)


@pytest.mark.parametrize("name", ["diffsep_spectral_n30_log", "diffsep_spectral_n30_none", "diffsep_spectral_n510"])
def test_waves_become_spectra_and_back(name):
    facts, arrays = facts_of(name), arrays_of(name)
    config = facts["config"]
    stft = {"name": "stft", "n_fft": config["n_fft"], "hop": config["hop_length"], "padding": "constant"}
    stft |= {"transform": config["transform"], "exponent": config["spec_abs_exponent"]}
    stft |= {"factor": 1.0 if config["transform"] == "none" else config["spec_factor"]}
    bins = config["n_fft"] // 2 + 1
    network = SpectralConfig({"name": "ncsnpp", "bins": bins, "width": 4, "multipliers": [1], "attention": []}, stft)
    spectral, x = network.build(), arrays["in_x"]
    spectra = spectral.encode(x)
    frames, spare = arrays["n_frames"].tolist()
    assert spectra.shape[-1] == frames + spare
    assert not bool(spectra[..., frames:].any())
    # float32's error is one of the spectrum, not of its root, in which it is magnified where there is next to nothing
    pairs = arrays["features"].double().unflatten(1, (2, 3)).transpose(1, 2)  # from all real parts first
    published = network.front.expand(torch.complex(pairs[:, :, 0], pairs[:, :, 1]))
    pairs = spectra[..., :frames].unflatten(1, (3, 2))
    ours = network.front.expand(torch.complex(pairs[:, :, 0], pairs[:, :, 1]))
    assert float((ours - published).abs().max()) <= 1e-6 * float(published.abs().max())
    close(spectral.decode(spectra[:, :4], x.shape[-1]), arrays["inverse"], facts["tolerance"]["float64"])
    close(spectral.decode(1.3 * spectra[:, :4], x.shape[-1]), arrays["inverse_scaled"], facts["tolerance"]["float64"])


@KINDS
@pytest.mark.parametrize("gradients", [True, False])
def test_score_network(kind, gradients, tmp_path):
    facts, arrays = facts_of("diffsep_score_model_tiny"), arrays_of("diffsep_score_model_tiny")
    dtype = torch.float64 if kind == "f64" else torch.float32
    state = weights_of(facts["weights"], "score_model.")
    settings = {"config": {"model": {"score_model": facts["config"]}}}
    plan = diffsep.draft(state, Clues(tmp_path, {"hyper_parameters": settings}))
    fields = {key: value for key, value in plan.config["backbone"].items() if key != "name"}
    network = SpectralConfig(**fields).build().to(dtype)
    network.load_state_dict({key.removeprefix(PREFIX): value.to(dtype) for key, value in plan.weights.items()})
    x, mix, t = (arrays[key].to(dtype) for key in ("in_xt", "in_mix", "in_time_cond"))
    with torch.set_grad_enabled(gradients):
        out = network(x, t, Condition(signal=mix)).detach()
    # float32: as the vector says but in parts of the largest value, since the compression magnifies the smallest ones
    largest = float(arrays["out_f64"].abs().max())
    tolerance = facts["tolerance"]["float64"] if kind == "f64" else {"rtol": 0, "atol": 2e-3 * largest}
    close(out, arrays[f"out_{kind}"], tolerance)


def test_a_state_must_be_as_long_as_the_signal():
    network = SpectralConfig().build()
    with pytest.raises(ValueError, match="as long as the condition's signal, 90 samples, got 100"):
        network(torch.zeros(1, 2, 100), torch.ones(1), Condition(signal=torch.zeros(1, 1, 90)))


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({"network": {"name": "spectral"}}, "'spectral' itself"),
        ({"network": {"name": "crnn"}}, "unknown network 'crnn'"),
        ({"stft": {"name": "mel"}}, "unknown front end of spectral 'mel'"),
        ({"multiple": 0}, "multiple of at least 1, got 0"),
    ],
)
def test_wrong_settings_are_an_error_at_once(config, fault):
    with pytest.raises(ValueError, match=fault):
        SpectralConfig(**config)


@pytest.fixture
def cdiffuse():
    facts, arrays = facts_of("diffsep_cdiffuse_K2"), arrays_of("diffsep_cdiffuse_K2")
    state = weights_of(facts["weights"], "score_model.")
    plan = diffsep.draft(state, Clues(Path("cdiffuse.ckpt"), {}, settings={"dilation_cycle": 3}))
    fields = {key: value for key, value in plan.config["backbone"].items() if key != "name"}
    assert plan.config["sources"] == 2
    network = CDiffuSEConfig(**fields).build().double()
    network.load_state_dict({key.removeprefix(PREFIX): value for key, value in plan.weights.items()})
    return network, arrays


@pytest.mark.parametrize("gradients", [True, False])
def test_cdiffuse(cdiffuse, gradients):
    network, arrays = cdiffuse
    with torch.set_grad_enabled(gradients):
        out = network(arrays["in_x"], arrays["in_t"], Condition(signal=arrays["in_y"])).detach()
    # The table of sines is float32, as published. Another machine's last bit of it, which the extrapolation magnifies
    # by t - floor(50 t) = -43, changes the embedding by 1e-6 and the output by 1e-9.
    close(out, arrays["out_f64"], {"rtol": 0, "atol": 5e-9})
    close(network.embedding(arrays["in_t"]).detach(), arrays["embedding_f32"], {"rtol": 0, "atol": 3e-6})


def test_cdiffuse_at_whole_steps(cdiffuse):
    """Where the place in the table is whole, interpolation and extrapolation are the row itself."""
    network, arrays = cdiffuse
    steps = torch.tensor([3.0, 7.0], dtype=torch.float64)
    row = network.embed(steps)
    network.embedding = lambda t: row
    out = network(arrays["in_x"], steps, Condition(signal=arrays["in_y"])).detach()
    close(out, arrays["out_intstep_f32"], {"rtol": 2e-4, "atol": 2e-6})


def test_cdiffuse_interpolates_by_default():
    network = CDiffuSEConfig(channels=4, num_layers=2).build().double()
    embed, rows = network.embed, step_sinusoids(torch.tensor([5.0, 6.0], dtype=torch.float64), 128, rising=True)
    with torch.no_grad():
        between = F.silu(embed.second(F.silu(embed.first(rows.mean(0)))))
        close(network.embedding(torch.tensor([0.11], dtype=torch.float64))[0], between, {"rtol": 0, "atol": 1e-12})


@pytest.mark.parametrize(("preset", "count"), [("base", 3_050_114), ("large", 15_136_514)])
def test_cdiffuse_presets_have_the_published_sizes(preset, count):
    with torch.device("meta"):
        network = PRESETS[preset].build()
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_diffsep_s_channels_alternate():
    assert ncsnpp.alternating(6).tolist() == [0, 3, 1, 4, 2, 5]
