"""The importer of audio-diffusion-pytorch's names: sizes from shapes, copies, tied layers, wrappers, and back.

The published lists of entries at full size are those of the two models of Mousai's kind that a public recipe trains;
`shapes` in t2a_seed_state_dict_keys.json, with the one copy of three and both names of the tied layer.
"""

import dataclasses
import json

import pytest
import torch

from fromnoise import hub
from fromnoise.backbones import UNet1dConfig
from fromnoise.frontends.mel import Mel, filterbank
from fromnoise.importers import Asked, adp, export, import_checkpoints, unet1d
from fromnoise.importers.convert import save
from fromnoise.tasks import GenerationModel
from fromnoise.tasks.autoencoding import AutoencodingModel
from fromnoise.types import Condition, InputError
from tests.t2a_vectors import AUTOENCODER, GENERATOR, VECTORS, Vector, filled

ZEROS = ("attentions", "cross_attentions", "context_channels")  # may be empty lists


def whole(config):
    """The configuration with nothing left to say of empty lists and of the output."""
    none = (0,) * len(config.channels)
    lists = {name: getattr(config, name) or none for name in ZEROS}
    return dataclasses.replace(config, out_channels=config.out_channels or config.in_channels, **lists)


def full_size(kind):
    """The published entries without memory, as `model_of` leaves them."""
    facts = json.loads((VECTORS / "t2a_seed_state_dict_keys.json").read_text())[kind]
    state = {name: torch.empty(shape, device="meta") for name, shape in facts["shapes"].items()}
    return {name: value for name, value in state.items() if name not in facts["tied_duplicates"]}, facts["parameters"]


@pytest.mark.parametrize(("kind", "expected"), [("diffae", AUTOENCODER), ("diffgen", GENERATOR)])
def test_networks_at_full_size(kind, expected):
    state, published = full_size(kind)
    notes = {}
    config, weights = adp.network_of(state, {}, notes)
    assert whole(config) == whole(expected)
    with torch.device("meta"):
        network = config.build()
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    assert {name: value.shape for name, value in weights.items()} == shapes
    encoder = {key: value for key, value in state.items() if key.startswith("encoder.")}
    total = sum(value.numel() for value in network.parameters())
    if encoder:
        window = {"encoder.stft.window": torch.hann_window(1023)}
        settings, inner = adp.encoder_of(encoder | window, {}, notes)
        assert (settings.multipliers, settings.factors, settings.num_blocks) == ((1, 1, 1), (2, 2), (4, 8))
        assert (settings.downsample_factor, settings.latent_channels) == (1024, 32)
        assert config.frame_hop == 1024
        total += sum(value.numel() for value in inner.values())
    assert total == published == {"diffae": 185_107_872, "diffgen": 562_606_400}[kind]


SIZES = {"attention_features": 4, "resnet_groups": 4}


@pytest.mark.parametrize(
    ("name", "prefix", "settings"),
    [
        ("t2a_unet_tiny", "", SIZES),
        ("t2a_unet_2d", "", SIZES),
        ("t2a_unet_skipcat", "", SIZES | {"resnet_groups": 8}),
        ("t2a_lt_plugin", "", {"stride": 4, "resnet_groups": 4}),
        ("t2a_diffgen_cfg", "net.", SIZES),
    ],
)
def test_sizes_are_read_from_shapes(name, prefix, settings):
    vector = Vector(name)
    inner = adp.part_of(vector.state(), prefix) if prefix else vector.state()
    given = vector.config | vector.config.get("plugin", {})
    found = unet1d.config_of(inner, settings, {})
    for field in ("in_channels", "channels", "factors", "items", "attentions", "cross_attentions", "context_channels"):
        expected = given.get(field, [0] * len(given["channels"]))
        assert getattr(found, field) in (expected, tuple(expected) if isinstance(expected, list) else expected, ())
    for field in ("attention_heads", "embedding_features", "embedding_max_length", "num_filters", "window_length"):
        if field in given and (field != "attention_heads" or any(given["attentions"])):
            assert getattr(found, field) == given[field]
    assert found.out_channels == given.get("out_channels", given["in_channels"])


CONFIG = UNet1dConfig(1, 1, 1, (8, 8), (1, 2), (1, 1), (0, 1), attention_features=4, attention_heads=2)
RULE = {"A": 40503, "B": 12289, "C": 31337, "D": 17, "E": 271, "M": 65521, "g_w": 1, "g_n": 0.2, "g_b": 0.1, "g_f": 1}


def published(copies=adp.COPIES, prefix="", shift=0.0):
    """A DiffusionModel's state dict: three copies, and the tied layer twice in each."""
    network = CONFIG.build()
    own = network.state_dict()
    names = unet1d.names(network)
    state = filled({there: tuple(own[mine].shape) for mine, there in names.items()}, RULE, torch.float32)
    for kind in ("weight", "bias"):
        first, second = (f"{layer}.{kind}" for layer in unet1d.TWICE)
        state[second] = state[first]
    return {f"{prefix}{copy}{key}": value + shift for copy in copies for key, value in state.items()}


def imported(state, tmp_path, **asked):
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    return import_checkpoints([tmp_path / "last.ckpt"], asked=Asked(settings={"attention_features": 4}, **asked))


def test_three_copies_become_one_model_that_generates(tmp_path):
    made = imported(published(), tmp_path)
    assert (made.layout, made.task) == ("adp", "generate")
    assert len(made.weights) == len(unet1d.names(CONFIG.build()))
    assert made.config.process == {"name": "vp_angular"}
    save(made, tmp_path / "model")
    model = GenerationModel(made.config)
    model.load_state_dict(made.weights)
    export(model, "adp", tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=True)["model_state_dict"]
    assert back.keys() == published(("net.",)).keys()
    assert all(torch.equal(value, back[key]) for key, value in published(("net.",)).items())


@pytest.mark.parametrize("copies", [("diffusion.net.",), ("sampler.net.",), ("net.", "sampler.net.")])
def test_any_copy_will_do(copies, tmp_path):
    expected = imported(published(), tmp_path).weights
    found = imported(published(copies), tmp_path).weights
    assert all(torch.equal(value, found[key]) for key, value in expected.items())


def test_averaged_weights_come_first(tmp_path):
    state = published(prefix="model.") | published(prefix="ema.ema_model.", shift=0.5)
    state |= published(prefix="ema.online_model.") | {"ema.initted": torch.ones(1), "ema.step": torch.ones(1)}
    plain = imported(published(), tmp_path).weights
    averaged, last = imported(state, tmp_path), imported(state, tmp_path, raw=True)
    assert any("ema.ema_model" in note for note in averaged.notes)
    assert not any("averaged" in note for note in last.notes)
    for key, value in plain.items():
        assert torch.equal(last.weights[key], value)
        assert torch.equal(averaged.weights[key], value + 0.5)


def test_layers_that_are_not_tied_stay_two(tmp_path):
    state = published(("net.",))
    state[f"net.{unet1d.TWICE[1]}.weight"] = state[f"net.{unet1d.TWICE[1]}.weight"] + 1
    made = imported(state, tmp_path)
    assert not made.config.backbone["tied_time"]
    second = made.weights["denoiser.backbone.time.second.weight"]
    assert torch.equal(second, state[f"net.{unet1d.TWICE[1]}.weight"])


def complete(vector):
    """A state dict of the vector's weights with the second name of the tied layer and the encoder's window."""
    state = vector.state(torch.float32)
    aliases = {alias: state[name] for alias, name in vector.facts["aliases"].items()}
    window = {"encoder.stft.window": torch.hann_window(31)} if "encoder" in vector.config else {}
    return state | aliases | window


def test_an_autoencoder_and_the_generator_of_its_latents(tmp_path):
    inside, outside = Vector("t2a_diffae"), Vector("t2a_diffgen_cfg")
    torch.save(complete(inside), tmp_path / "diffae.pt")
    torch.save(complete(outside), tmp_path / "diffgen.pt")
    asked = Asked(settings={"resnet_groups": 4, "encoder.resnet_groups": 4}, sample_rate=8000)
    alone = import_checkpoints([tmp_path / "diffae.pt"], asked=asked)
    assert alone.task == "autoencode"
    model = AutoencodingModel(alone.config)
    model.load_state_dict(alone.weights)
    model.double().eval()
    with torch.no_grad():
        latent = model.encode(inside["in.x"])
        # weights, window included, went through float32
        torch.testing.assert_close(latent, inside["out.latent"], rtol=0, atol=2e-5)
        v = model.denoiser.raw(inside["out.x_noisy"], inside["in.sigmas"], None, Condition(frames=latent))
        torch.testing.assert_close(v, inside["out.v_pred"], rtol=0, atol=2e-5)

    with pytest.raises(InputError, match="--autoencoder"):
        import_checkpoints([tmp_path / "diffgen.pt"], asked=Asked(settings=SIZES))
    parts = {"autoencoder": tmp_path / "diffae.pt"}
    joined = import_checkpoints([tmp_path / "diffgen.pt"], asked=Asked(settings=SIZES, sample_rate=8000), parts=parts)
    assert joined.task == "generate"
    assert joined.config.text == {"name": "t5", "dim": 10, "masked": False, "max_length": 6}
    assert joined.config.latent["frontend"]["sample_rate"] == joined.sample_rate == 8000
    save(joined, tmp_path / "model")
    whole = GenerationModel(joined.config)
    whole.load_state_dict(joined.weights)
    export(whole, "adp", tmp_path / "back")
    for name, vector in (("generator", outside), ("autoencoder", inside)):
        back = torch.load(tmp_path / "back" / f"{name}.pt", weights_only=True)["model_state_dict"]
        assert back.keys() == complete(vector).keys()
        assert all(torch.equal(value, back[key]) for key, value in complete(vector).items())


WRAPPERS = {
    "upsample": ("t2a_upsampler", {"run.factor": 4, "resnet_groups": 4}),
    "vocode": ("t2a_vocoder", {"resnet_groups": 4}),
    "generate": ("t2a_autoregressive", {"run.splits": 4, "run.seconds": 32 / 48000, "resnet_groups": 4}),
}


def wrapped(task):
    """(vector, settings, state dict) of a wrapper around the U-Net, as it is saved."""
    name, settings = WRAPPERS[task]
    vector = Vector(name)
    state = vector.state(torch.float32)
    state |= {alias: state[there] for alias, there in vector.facts["aliases"].items()}
    if task == "vocode":
        bank = Mel(8000, 32, 8, 32, 8, 0.0, None, "htk", "none", centered=False)
        state["to_spectrogram.to_spectrogram.window"] = torch.hann_window(32)
        state["to_spectrogram.to_mel_scale.fb"] = torch.from_numpy(filterbank(bank).T.copy()).float()
    copies = {key: value for key, value in state.items() if key.startswith("net.")}
    triple = {f"{copy}.{key}": value for key, value in copies.items() for copy in ("diffusion", "sampler")}
    return vector, settings, state, state | triple


@pytest.mark.parametrize("task", WRAPPERS)
def test_upsamplers_vocoders_and_split_generators_come_and_go(task, tmp_path):
    """The task, the sizes and the weights are those of the wrapper; exported again, all entries are the same."""
    _, settings, state, triple = wrapped(task)
    torch.save({"state_dict": triple}, tmp_path / "last.ckpt")
    made = import_checkpoints([tmp_path / "last.ckpt"], asked=Asked(settings=settings))
    assert (made.layout, made.task) == ("adp", task)
    save(made, tmp_path / "model")
    model = hub.load(str(tmp_path / "model")).model
    if task == "upsample":
        assert (model.low_rate, model.config.unit) == (12000, "none")
    if task == "vocode":  # the rate is that of the stored bank, where nobody says another
        assert (model.mel.sample_rate, model.mel.hop, model.mel.log, model.mel.n_mels) == (8000, 8, "e", 8)
        assert not any("Hz, as Mousai" in note for note in made.notes)
    if task == "generate":
        assert (model.config.splits, model.clip) == (4, 32)
    export(model, "adp", tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=True)["model_state_dict"]
    assert back.keys() == state.keys()
    assert all(torch.equal(value, back[key]) for key, value in state.items())


def test_what_no_entry_tells_is_assumed_and_said(tmp_path):
    for task, word in {"upsample": "factor of 16", "vocode": "hop of 8", "generate": "4 splits"}.items():
        torch.save(wrapped(task)[2], tmp_path / "net.pt")
        made = import_checkpoints([tmp_path / "net.pt"], asked=Asked(settings={"resnet_groups": 4}))
        assert any(word in note for note in made.notes)
    _, _, state, _ = wrapped("vocode")
    state["to_spectrogram.to_mel_scale.fb"] = state["to_spectrogram.to_mel_scale.fb"] + 0.1
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(InputError, match="bank of 8 mel bands"):
        import_checkpoints([tmp_path / "net.pt"], asked=Asked(settings={"resnet_groups": 4}))


def test_what_cannot_be_read_is_named(tmp_path):
    state = published()
    wrong = state | {"sampler.net.blocks.0.weights": state["net.blocks.0.weights"] + 1}
    with pytest.raises(InputError, match="joins two models"):
        imported(wrong, tmp_path)
    lost = {
        key: value for key, value in published(("net.",)).items() if "blocks.1.block.blocks.0.blocks.0.2" not in key
    }
    with pytest.raises(InputError, match="lacks"):
        imported(lost, tmp_path)
    with pytest.raises(InputError, match="foreign_part"):
        imported(state | {"foreign_part.weight": torch.zeros(2)}, tmp_path)
    strange = {key.replace("to_out", "to_elsewhere"): value for key, value in published(("net.",)).items()}
    with pytest.raises(InputError, match="lacks the entry"):
        imported(strange, tmp_path)
