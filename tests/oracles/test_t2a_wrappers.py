"""Upsampler, vocoder and autoregression of audio-diffusion-pytorch 0.1.3 through the tasks.

float64; atol 1e-9, rtol 1e-7, chains ten times that.
"""

from functools import partialmethod

import torch

from fromnoise.backbones.unet1d import UNet1d
from fromnoise.backbones.unet1d_mel import MelUNet1d
from fromnoise.frontends import Mel
from fromnoise.frontends.mel import filterbank
from fromnoise.frontends.sinc import Sinc
from fromnoise.importers import unet1d as names
from fromnoise.objectives import Objective
from fromnoise.samplers.ladder import folded, ladder
from fromnoise.tasks import (
    GenerationConfig,
    GenerationModel,
    UpsamplingConfig,
    UpsamplingModel,
    VocodingConfig,
    VocodingModel,
)
from fromnoise.tasks.splitting import Leveled
from fromnoise.types import Condition, spec
from tests.oracles.test_text_to_audio import Stored, spec_of
from tests.t2a_vectors import Vector


def upsampler() -> tuple[Vector, UpsamplingModel]:
    vector = Vector("t2a_upsampler")
    config = UpsamplingConfig(
        factor=vector.config["upsample_factor"],
        frontend={"name": "wave", "sample_rate": 48000},
        backbone=spec_of(vector.config) | {"signal_channels": 1},
        num_steps=3,
        unit="none",
    )
    model = UpsamplingModel(config).double()
    network = model.denoiser.backbone
    assert isinstance(network, UNet1d)
    vector.load(network, names.names(network), "net.")
    return vector, model


def test_the_windowed_sinc_down_up_and_by_a_fraction():
    vector, model = upsampler()
    low = model.lower(vector["in.x"])
    vector.check(low, "downsampled")
    vector.check(model.up(low), "reupsampled")
    vector.check(model.up(vector["in.low"]), "upsampled_low")
    vector.check(Sinc(3, 2)(vector["in.x"]), "resample_3_to_2")


def test_loss_of_an_upsampler(monkeypatch):
    vector, model = upsampler()
    objective = Objective()
    monkeypatch.setattr(Objective, "draw", partialmethod(Objective.draw, u=vector["in.sigmas"], z=vector["in.noise"]))
    with torch.no_grad():
        vector.check(model.loss(vector["in.x"], objective).mean(), "loss")
        y = model.up(model.lower(vector["in.x"]))
        draw = objective.draw(model.process, model.denoiser.prediction, vector["in.x"], y)
        vector.check(model.denoiser.raw(draw.x_t, draw.t, y, Condition(signal=y)), "v_pred")


def test_samples_of_an_upsampler():
    vector, model = upsampler()
    with torch.no_grad():
        wave = model.restore(vector["in.low"], Stored([vector["in.start_noise"]]), model.default_run())
    vector.check(wave, "sample3", 10)


def vocoder() -> tuple[Vector, VocodingModel]:
    vector = Vector("t2a_vocoder")
    bands, size, rate = (vector.config[key] for key in ("mel_channels", "mel_n_fft", "mel_sample_rate"))
    mel = Mel(rate, size, size // 4, size, bands, 0.0, None, "htk", "none", centered=False)
    told = {"mel_bands": bands, "mel_window": size, "mel_hop": size // 4, "in_channels": 1, "signal_channels": 1}
    config = VocodingConfig(
        mel=spec({"mel": Mel}, mel),
        frontend={"name": "wave", "sample_rate": rate},
        backbone=spec_of(vector.config) | told | {"name": "unet1d_mel"},
        process={"name": "vp_angular"},
        prediction={"name": "velocity"},
        sampler={"name": "ddim"},
        grid={"name": "uniform"},
        num_steps=3,
    )
    model = VocodingModel(config).double()
    network = model.denoiser.backbone
    assert isinstance(network, MelUNet1d)
    vector.load(network.network, names.names(network.network), "net.")
    network.flat.load_state_dict({"weight": vector.state()["to_flat.weight"]})
    return vector, model.eval()


def test_mel_and_flat_mel_of_a_vocoder():
    """Channels are items."""
    vector, model = vocoder()
    mel = model.mel.encode(vector["in.x"].transpose(0, 1))
    vector.check(mel[None], "mel")
    vector.check(torch.from_numpy(filterbank(model.mel).T.copy()), "fb")
    network = model.denoiser.backbone
    assert isinstance(network, MelUNet1d)
    with torch.no_grad():
        vector.check(network.flat(mel), "flat")


def test_loss_of_a_vocoder(monkeypatch):
    vector, model = vocoder()
    objective, wave = Objective(), vector["in.x"].transpose(0, 1)
    monkeypatch.setattr(Objective, "draw", partialmethod(Objective.draw, u=vector["in.sigmas"], z=vector["in.noise"]))
    with torch.no_grad():
        vector.check(model.loss(wave, objective).mean(), "loss")
        draw = objective.draw(model.process, model.denoiser.prediction, wave)
        vector.check(model.denoiser.raw(draw.x_t, draw.t, None, Condition(frames=model.mel.encode(wave))), "v_pred")


def test_samples_of_a_vocoder():
    vector, model = vocoder()
    with torch.no_grad():
        wave = model.sample(vector["in.mel_in"][0], Stored([vector["in.start_noise"]]), model.default_run())
    vector.check(wave.transpose(0, 1), "sample3", 10)


def autoregressive() -> tuple[Vector, GenerationModel]:
    vector = Vector("t2a_autoregressive")
    plain = {"signal_channels": 1, "use_modulation": False, "use_time_conditioning": False}
    config = GenerationConfig(
        frontend={"name": "wave", "sample_rate": 1000},
        backbone=spec_of(vector.config) | plain,
        process={"name": "vp_angular"},
        prediction={"name": "velocity"},
        sampler={"name": "ddim"},
        grid={"name": "uniform"},
        num_steps=vector.config["num_steps"],
        seconds=vector.config["length"] / 1000,
        splits=vector.config["num_splits"],
    )
    model = GenerationModel(config).double()
    network = model.denoiser.backbone
    assert isinstance(network, Leveled)
    assert isinstance(network.network, UNet1d)
    published = {own: there.removeprefix("blocks.0.") for own, there in names.names(network.network).items()}
    vector.load(network.network, published, "net.")
    return vector, model.eval()


def test_the_ladder_of_levels():
    vector, model = autoregressive()
    levels = ladder(model.config.splits, model.config.num_steps).repeat_interleave(model.clip // 4, 1)
    vector.check(levels[:, None, None], "ladder")


def test_loss_with_a_level_for_each_split(monkeypatch):
    vector, model = autoregressive()
    drawn = {"u": vector["in.sigmas"].flatten(), "z": folded(vector["in.noise"], 4)}
    monkeypatch.setattr(Objective, "draw", partialmethod(Objective.draw, **drawn))
    with torch.no_grad():
        vector.check(model.loss(vector["in.x"], torch.zeros(2, dtype=torch.long), Objective()).mean(), "loss")


def test_generation_by_the_ladder_stops_when_all_is_done():
    """As published with two shifts less, which change nothing that is returned."""
    vector, model = autoregressive()
    told, run = torch.zeros(1, dtype=torch.long), model.default_run()
    with torch.no_grad():
        start = model.sample(vector["in.draw00"], told, Stored([]), run)
        x = torch.cat([vector[f"in.draw0{i}"] for i in (0, 2, 3)], -1)
        whole = model.sample(x, told, Stored([vector["in.draw01"], vector["in.draw04"]]), run)
    vector.check(start, "start", 10)
    vector.check(whole, "generated", 10)
