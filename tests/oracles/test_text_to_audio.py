"""Diffusion over latents and waves against audio-diffusion-pytorch 0.1.3: schedule, loss, guidance, inpainting.

float64, atol 1e-9 and rtol 1e-7; chains of sampling steps ten times that, as the vectors say.
"""

import dataclasses
import math

import pytest
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from fromnoise.backbones import UNet1dConfig
from fromnoise.conditioning import T5
from fromnoise.denoiser import Denoiser
from fromnoise.importers import unet1d as names
from fromnoise.objectives import Objective
from fromnoise.predictions import Velocity
from fromnoise.processes import PROCESSES
from fromnoise.samplers import DDIM, PositionNoise, Uniform
from fromnoise.samplers.inpainting import Inpainting
from fromnoise.tasks import GenerationConfig, GenerationModel
from fromnoise.tasks.autoencoding import AutoencodingConfig, AutoencodingModel
from fromnoise.tasks.base import Run
from fromnoise.training.callbacks import PowerAveraging
from fromnoise.types import Condition, InputError
from tests.t2a_vectors import Vector, filled

ANGULAR = PROCESSES["vp_angular"]()
FIELDS = {field.name for field in dataclasses.fields(UNet1dConfig)}


def spec_of(config) -> dict:
    return {"name": "unet1d"} | {key: value for key, value in config.items() if key in FIELDS}


def loaded(vector: Vector) -> torch.nn.Module:
    fields = {key: tuple(v) if isinstance(v, list) else v for key, v in spec_of(vector.config).items() if key != "name"}
    network = UNet1dConfig(**fields).build().double()
    return vector.load(network, names.names(network))


class Stored:
    """The published draws, one after the other."""

    def __init__(self, draws) -> None:
        self.draws = iter(draws)

    def __call__(self, like: Tensor) -> Tensor:
        return next(self.draws)


def test_times_and_weights_are_those_published():
    vector = Vector("t2a_schedules")
    # uniform grid and linspace agree to the last bit or two of float64
    torch.testing.assert_close(Uniform().times(ANGULAR, 5), vector["out.schedule"], rtol=0, atol=1e-15)
    weights = ANGULAR.weights(vector["out.times"])
    torch.testing.assert_close(weights.clean, vector["out.alpha"], rtol=0, atol=1e-15)
    torch.testing.assert_close(weights.noise, vector["out.beta"], rtol=0, atol=1e-15)


@pytest.fixture(scope="module")
def generator() -> tuple[Vector, GenerationModel]:
    """The published text-conditioned generator as a model of the toolkit; its texts are rows of the vectors."""
    vector = Vector("t2a_diffgen_cfg")
    config = GenerationConfig(
        frontend={"name": "wave", "sample_rate": 48000},
        backbone=spec_of(vector.config),
        process={"name": "vp_angular"},
        prediction={"name": "velocity"},
        sampler={"name": "ddim"},
        grid={"name": "uniform"},
        num_steps=5,
        text={"name": "bytes", "dim": 10, "layers": 0, "heads": 1},
        guidance_scale=5.0,
    )
    model = GenerationModel(config).double()
    network = model.denoiser.backbone
    vector.load(network, names.names(network), "net.")

    class Rows(torch.nn.Module):
        """Text "0" is the first published embedding, "1" the second."""

        def forward(self, texts):
            rows = torch.stack([vector["in.embedding"][int(text or 0)] for text in texts])
            return Condition(context=rows, mask=torch.ones(rows.shape[:2], dtype=torch.bool))

    model.text = Rows()
    return vector, model.eval()


@pytest.mark.parametrize("hidden", [True, False])
def test_loss_with_texts_hidden_and_told(generator, hidden):
    """The mask of the vectors hides the second item; the gradient of every parameter has its published norm."""
    vector, model = generator
    objective = Objective()
    x0 = vector["in.latent"]
    draw = objective.draw(ANGULAR, Velocity(), x0, None, None, vector["in.sigmas"], vector["in.noise"])
    assert vector["in.batch_mask"].flatten().tolist() == [0, 1]
    losses = objective.losses(model.denoiser, x0, None, model.condition(["0", "" if hidden else "1"]), draw)
    loss = losses.mean()
    vector.check(loss.detach(), "loss_masked" if hidden else "loss_plain")
    if hidden:
        network = model.denoiser.backbone
        own = dict(network.named_parameters())
        model.zero_grad()
        loss.backward()
        there = {published: own[key].grad for key, published in names.names(network).items()}
        norms = torch.stack([there[key].norm() for key in sorted(there)])
        vector.check(norms, "grad_norms")


@pytest.mark.parametrize("scale", [5, 1, 0])
def test_guided_samples_in_one_batch(generator, scale):
    vector, model = generator
    states, velocities = [], []
    guided = model.guided(["0", "1"], scale)

    def watched(x: Tensor, t: Tensor) -> Tensor:
        x0 = guided(x, t)
        w = ANGULAR.weights(t)
        a, b = w.clean[:, None, None], w.noise[:, None, None]
        states.append(x)
        velocities.append((a * x - x0) / b)  # x0 = a x - b v
        return x0

    with torch.no_grad():
        x = DDIM().sample(watched, ANGULAR, vector["in.start_noise"], Uniform().times(ANGULAR, 5))
        run = Run(DDIM(), Uniform(), 5)
        same = model.sample(vector["in.start_noise"], ["0", "1"], PositionNoise([0, 1]), run, scale)
    vector.check(x, f"sample_cfg{scale}", 10)
    assert torch.equal(x, same)
    if scale == 5:
        vector.check(torch.stack(states), "cfg5_states", 10)
        vector.check(torch.stack(velocities), "cfg5_v", 10)


@pytest.mark.parametrize("resamples", [2, 1])
def test_inpainting_as_published(resamples):
    vector = Vector("t2a_inpainter")
    denoiser = Denoiser(loaded(vector), ANGULAR, Velocity())
    sampler = Inpainting(DDIM(), vector["in.source"], vector["in.mask"], resamples, "adp")
    draws = Stored([vector[f"in.draw{i:02}"] for i in range(3 * resamples)])
    times = Uniform().times(ANGULAR, 3)
    with torch.no_grad():
        x = sampler.sample(denoiser.bind(), ANGULAR, vector["in.x_noisy"], times, None, draws)
    vector.check(x, "y" if resamples == 2 else "y_no_resample", 10)
    assert torch.equal(x[vector["in.mask"]], vector["in.source"][vector["in.mask"]])


def test_repainting_goes_back_to_the_time_before():
    """q(x_t | x_s) joined to q(x_s | x0) is q(x_t | x0): means and deviations of 200,000 draws, to 1 %."""
    from fromnoise.samplers.inpainting import back

    rng = torch.Generator().manual_seed(0)
    noise = lambda like: torch.randn(like.shape, generator=rng, dtype=like.dtype)  # noqa: E731
    x0 = torch.full((1, 200_000), 0.7, dtype=torch.float64)
    for name in ("vp_angular", "flow", "ve"):
        process = PROCESSES[name]()
        s, t = torch.tensor([0.3]).double(), torch.tensor([0.6]).double()
        x = back(process.sample(x0, s, None, noise(x0)), s, t, process, None, noise)
        w = process.weights(t)
        assert float(x.std()) == pytest.approx(float(w.noise), rel=0.01)
        assert float(x.mean()) == pytest.approx(float(w.clean * 0.7), abs=0.01 * float(w.noise))


@pytest.fixture(scope="module")
def tiny_t5(tmp_path_factory):
    """A folder as a hub has it: the vectors' encoder, and a tokenizer that knows its numbers as words."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vector = Vector("t2a_t5_encoder_tiny")
    config = {key: value for key, value in vector.config.items() if key != "factory"}
    encoder = transformers.T5EncoderModel(transformers.T5Config(**config, is_encoder_decoder=False))
    state = {key: value.float() for key, value in vector.state().items()}
    encoder.load_state_dict(state | {"encoder.embed_tokens.weight": state["shared.weight"]}, strict=False)
    words = {"<pad>": 0, "</s>": 1} | {f"w{i}": i for i in range(2, 40)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    folder = tmp_path_factory.mktemp("encoders") / "tiny"
    encoder.save_pretrained(folder)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")
    fast.save_pretrained(folder)
    return vector, folder


@pytest.mark.parametrize("masked", [True, False])
def test_t5_reads_as_published(tiny_t5, masked, monkeypatch):
    """float32 weights: 1e-4, as the vectors say. The mask goes into T5; whether the network gets it is the option."""
    vector, folder = tiny_t5
    monkeypatch.setenv("FROMNOISE_TEXT_ENCODERS", str(folder.parent))
    encoder = T5("somewhere/tiny", 16, 7, masked).build()
    rows = vector["in.input_ids"]
    texts = [" ".join(f"w{i}" for i in row.tolist() if i > 1) for row in rows]
    told = encoder([*texts, ""])
    torch.testing.assert_close(told.context[:2], vector["out.masked"].float(), rtol=0, atol=1e-4)
    real = vector["in.attention_mask"].bool() if masked else torch.ones(2, 7, dtype=torch.bool)
    assert torch.equal(told.mask, torch.cat([real, torch.ones(1, 7, dtype=torch.bool)]))
    torch.testing.assert_close(told.context[2], encoder.nothing)
    assert encoder.is_cut("w3 " * 7)
    assert not encoder.is_cut(texts[0])
    assert sum(p.numel() for p in encoder.parameters()) == 7 * 16


def test_an_encoder_of_another_size_is_refused(tiny_t5, monkeypatch):
    monkeypatch.setenv("FROMNOISE_TEXT_ENCODERS", str(tiny_t5[1].parent))
    with pytest.raises(InputError, match="gives 16 numbers a position, the model expects 12"):
        T5("tiny", 12, 7).build()(["w3"])


# The autoencoder, and both models in a row


def shaped(config) -> AutoencodingConfig:
    """The published settings under our names."""
    transform = config["lt_plugin"]
    depth = config["inject_depth"]
    encoder = {key: value for key, value in config["encoder"].items() if not key.startswith(("factory", "stft"))}
    front = {
        "name": "magnitude",
        "n_fft": config["encoder"]["stft_num_fft"],
        "hop": config["encoder"]["stft_hop_length"],
    }
    levels = len(config["net"]["channels"])
    context = [encoder["out_channels"] if d == depth else 0 for d in range(levels)]
    return AutoencodingConfig(
        encoder={"name": "encoder1d", **encoder, "bottleneck": {"name": "tanh"}, "front": front},
        backbone=spec_of(config["net"] | transform) | {"context_channels": context},
        num_steps=5,
    )


def weighed(model, parts, rule, own) -> None:
    """Fill a network with its published parameters; own: our names -> the published ones."""
    state = filled({part["name"]: tuple(part["shape"]) for part in parts}, rule)
    assert set(own.values()) == set(state)
    model.load_state_dict({ours: state[there] for ours, there in own.items()}, strict=False)


def names_of(model: AutoencodingModel) -> dict[str, str]:
    network, encoder = model.denoiser.backbone, model.encoder
    own = {f"denoiser.backbone.{k}": f"net.{v}" for k, v in names.names(network).items()}
    return own | {f"encoder.{k}": f"encoder.{v}" for k, v in names.encoder_names(encoder).items()}


@pytest.fixture(scope="module")
def autoencoder() -> tuple[Vector, AutoencodingModel]:
    vector = Vector("t2a_diffae")
    model = AutoencodingModel(shaped(vector.config)).double().eval()
    weighed(model, vector.facts["params"], vector.facts["rule"]["constants"], names_of(model))
    return vector, model


def test_the_autoencoder_encodes_and_learns_as_published(autoencoder):
    vector, model = autoencoder
    with torch.no_grad():
        vector.check(model.encode(vector["in.x"]), "latent")
    x0, objective = vector["in.x"], Objective()
    draw = objective.draw(ANGULAR, Velocity(), x0, None, None, vector["in.sigmas"], vector["in.noise"])
    vector.check(draw.x_t, "x_noisy")
    latent, _ = model.encoder.encode(x0)
    losses = objective.losses(model.denoiser, x0, None, Condition(frames=latent), draw)
    vector.check(losses.mean().detach(), "loss")
    model.zero_grad()
    losses.mean().backward()
    there = {published: dict(model.named_parameters())[own].grad for own, published in names_of(model).items()}
    vector.check(torch.stack([there[key].norm() for key in sorted(there)]), "grad_norms")


@pytest.mark.parametrize("steps", [5, 1])
def test_the_autoencoder_decodes_as_published(autoencoder, steps):
    vector, model = autoencoder
    noise = lambda place: Stored([vector["in.start_noise"]])  # noqa: E731
    with torch.no_grad():
        wave = model.decode(vector["in.latent_in"], 256, noise, model.default_run(steps))
    vector.check(wave, f"decode{steps}", 10)


def test_generator_and_autoencoder_in_a_row_as_published():
    vector = Vector("t2a_combined")
    first, rule = vector.config["diffgen"], vector.facts["rule"]["constants"]
    inner = shaped(Vector("t2a_diffae").config)
    config = GenerationConfig(
        frontend={"name": "wave", "sample_rate": 48000},
        backbone=spec_of(first),
        process={"name": "vp_angular"},
        prediction={"name": "velocity"},
        sampler={"name": "ddim"},
        grid={"name": "uniform"},
        num_steps=4,
        text={"name": "bytes", "dim": 10, "layers": 0, "heads": 1},
        latent=dataclasses.asdict(dataclasses.replace(inner, num_steps=3)),
    )
    model = GenerationModel(config).double().eval()
    network, autoencoder = model.denoiser.backbone, model.autoencoder
    weighed(network, vector.facts["params_diffgen"], rule, {k: f"net.{v}" for k, v in names.names(network).items()})
    weighed(autoencoder, vector.facts["params_diffae"], rule, names_of(autoencoder))
    assert model.blank(1, 256).shape == vector["in.start_noise"].shape
    rows = vector["in.embedding"]
    told = lambda texts, seconds=None: Condition(  # noqa: E731
        context=rows.expand(len(texts), -1, -1), mask=torch.tensor([[bool(text)] * 6 for text in texts])
    )
    with torch.no_grad():
        model.condition = told
        latent = model.sample(vector["in.start_noise"], ["rain"], PositionNoise([0]), model.default_run(), 3.0)
        noise = lambda place: Stored([vector["in.decode_noise"]])  # noqa: E731
        wave = autoencoder.decode(latent, 256, noise, autoencoder.default_run())
    vector.check(latent, "latent", 10)
    vector.check(wave, "audio", 10)


@pytest.mark.parametrize("k", range(4))
def test_averages_of_weights_as_published(k):
    """ema-pytorch 0.8.3: a parameter and a buffer after each of 130 calls, through torch's averages as in training."""
    vector = Vector("t2a_ema")
    given = vector.config[k]
    names_here = {"update_every": "every", "update_after_step": "after", "min_value": "least"}
    settings = {"decay": given["beta"], "power": given.get("power", 2 / 3)}
    rule = PowerAveraging(**settings, **{ours: given[there] for there, ours in names_here.items() if there in given})
    network = torch.nn.BatchNorm1d(1, affine=True).double()
    online = vector["in.online"]
    averaged = AveragedModel(network, avg_fn=rule.average, use_buffers=True)
    found = []
    for s in range(130):
        with torch.no_grad():
            network.weight.fill_(online[s])
            network.running_mean.fill_(math.cos(0.1 * s))
        if rule.should_update(s):
            averaged.update_parameters(network)
        found.append([averaged.module.weight.item(), averaged.module.running_mean.item()])
    values = torch.tensor(found, dtype=torch.float64)
    vector.check(values[:, 0], f"ema{k}")
    vector.check(values[:, 1], f"buf{k}")
