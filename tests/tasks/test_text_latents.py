"""Durations that are told, clips of two channels, latents encoded before a training, and the decoding's own steps.

The networks are tiny and random; what is asserted holds for any weights.
"""

import dataclasses
import json

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

import fromnoise
from fromnoise import hub
from fromnoise.cli import main
from fromnoise.conditioning import DurationEmbedding, TextEncoder
from fromnoise.data.clips import Clips
from fromnoise.data.latents import FACTS, Latents
from fromnoise.objectives import Objective
from fromnoise.recipes import RECIPES, from_tree, to_tree
from fromnoise.tasks import GenerationModel, Generator
from fromnoise.training.init import initialise
from fromnoise.training.run import Voice, train
from fromnoise.training.tasks import AutoencodeTask, GenerateTask
from fromnoise.types import Condition, InputError
from tests.tasks.test_autoencoder import AUTOENCODE, GENERATE, make, sound
from tests.tasks.test_text import CLIP, RATE
from tests.tasks.test_text import make as make_generator

QUIET = Voice(lambda text: None)


def place(root, name, wave):
    """The same sound to train on and to validate on."""
    for split in ("train", "valid"):
        path = root / split / "dog" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wave.T, RATE, subtype="FLOAT")


# Durations


def test_durations_differ_up_to_the_clips_length():
    embedding = DurationEmbedding(3.0, 8)
    assert not embedding(torch.tensor([1.0])).any()  # at first nothing is said
    torch.nn.init.normal_(embedding.out.weight)
    rows = embedding(torch.tensor([0.5, 1.0, 2.0, 3.0, 30.0]))
    assert (rows[:-1].diff(dim=0).abs().amax(1) > 0.1).all()
    torch.testing.assert_close(rows[3], rows[4])


def test_a_generator_is_told_the_seconds_that_are_asked_for():
    """A short sound is the beginning of the clip that was told so; guidance tells it in both halves."""
    generator = make_generator(duration=True)
    model = generator.model
    short = generator("rain", seconds=0.02, seed=1)
    assert short.shape == (1, 1, 20)
    whole = generator("rain", seed=1)
    assert np.abs(short - whole[..., :20]).max() > 1e-3
    model.duration.out.weight.data.zero_()
    np.testing.assert_allclose(generator("rain", seconds=0.02, seed=1), generator("rain", seed=1)[..., :20], atol=1e-6)
    torch.nn.init.normal_(model.duration.out.weight)
    x, t, half = torch.randn(2, 1, CLIP), torch.full((2,), 0.6), torch.tensor([0.01, 0.03])
    with torch.no_grad():
        told = model.denoiser.bind(None, model.condition(["rain", "dog"], half))(x, t)
        free = model.denoiser.bind(None, model.condition(["", ""], half))(x, t)
        guided = model.guided(["rain", "dog"], 3, seconds=half)(x, t)
    torch.testing.assert_close(guided, free + 3 * (told - free), rtol=1e-5, atol=1e-5)


def test_the_loss_hears_of_durations_and_clips_tell_them(tmp_path):
    generator = make_generator(duration=True)
    for i, n in enumerate((20, 64, 200, 100)):
        place(tmp_path, f"{i}.wav", sound(n, seed=i))
    clips = Clips(str(tmp_path), sample_rate=RATE, seconds=CLIP / RATE, captions=("label",))
    items = clips.valid()
    assert sorted(round(1000 * float(items[k]["duration"])) for k in range(len(items))) == [20, 64, 64, 64]
    told = [float(dataclasses.replace(clips, fill="repeat").valid()[k]["duration"]) for k in range(4)]
    assert told == pytest.approx([CLIP / RATE] * 4)
    clean = torch.randn(2, 1, CLIP)
    losses = [
        generator.model.loss(clean, ["", ""], Objective(), torch.Generator().manual_seed(0), seconds=seconds)
        for seconds in (None, torch.full((2,), CLIP / RATE), torch.full((2,), 0.01))
    ]
    torch.testing.assert_close(losses[0], losses[1])
    assert not torch.allclose(losses[0], losses[2])


def test_durations_need_a_vector_and_data_that_tell_them():
    plain = {"name": "convnext", "features": 1, "width": 8, "layers": 1}
    with pytest.raises(ValueError, match="vector of 0, the model has 0 labels and a duration of 128 numbers each; set"):
        make_generator(text=None, backbone=plain, duration=True)
    assert make_generator(text=None, backbone=plain | {"vector": 6}, label_dim=6, duration=True)(2).shape == (
        2,
        1,
        CLIP,
    )
    unet = {"name": "unet1d", "in_channels": 1, "channels": [8], "factors": [2], "items": [1], "resnet_groups": 4}
    unet |= {"cross_attentions": [1], "embedding_features": 8, "attention_heads": 1}
    with pytest.raises(ValueError, match=r"a duration is told by the vector, .*'unet1d' reads none; set vector_dim=8"):
        make_generator(backbone=unet, duration=True)
    recipe = dataclasses.replace(RECIPES["text_to_audio/sounds_small"], duration=True)
    assert from_tree(to_tree(recipe)).duration
    GenerateTask.require(recipe)
    with pytest.raises(InputError, match="duration=true needs data that tells durations"):
        GenerateTask.require(dataclasses.replace(recipe, data=RECIPES["debug/tiny"].data))


# Two channels


def test_clips_of_two_channels(tmp_path):
    """The channels of a file, at one gain; the one of a mono file twice; all ways of cutting keep them together."""
    both = sound(300, 2)
    place(tmp_path, "a.wav", both)
    place(tmp_path, "b.wav", both[:1])
    clips = Clips(str(tmp_path), sample_rate=RATE, seconds=0.1, channels=2)
    np.testing.assert_allclose([clips.valid()[k]["clean"][0, 0] for k in range(2)], [both[0, 0]] * 2, atol=1e-6)
    stereo, mono = (clips.valid()[k]["clean"].numpy() for k in range(2))
    np.testing.assert_allclose(stereo, both[:, :100], atol=1e-6)
    np.testing.assert_allclose(mono, both[[0, 0], :100], atol=1e-6)
    moving = dataclasses.replace(clips, fixed=False, speed=(0.9, 1.1), level="rms", fill="repeat", seconds=0.5)
    for item in (moving.valid()[0]["clean"], moving.train(0)[1]["clean"]):
        assert item.shape == (2, 500)
    loud = dataclasses.replace(moving, seconds=0.3).valid()[0]["clean"].numpy()
    np.testing.assert_allclose(loud[1] * both[0], loud[0] * both[1], rtol=0, atol=1e-6)
    assert not np.allclose(loud, both, rtol=0, atol=1e-3)
    single = dataclasses.replace(clips, channels=1)
    np.testing.assert_array_equal(single.valid()[0]["clean"], stereo[:1])
    with pytest.raises(InputError, match="expected clips of 1 or at least 3 channels, got 2"):
        dataclasses.replace(clips, channels=3).valid()[0]


def test_two_channels_are_for_models_of_two():
    given = dataclasses.replace(AUTOENCODE.data, channels=2)
    for task, recipe in ((AutoencodeTask, AUTOENCODE), (GenerateTask, GENERATE)):
        with pytest.raises(InputError, match=r"expected clips of 1 channel, got data\.channels=2; set it"):
            task.require(dataclasses.replace(recipe, data=given))
    for name in ("seed_diffae", "seed_diffgen", "upsampler"):
        recipe = RECIPES[f"text_to_audio/{name}"]
        assert recipe.data.channels == 2


# Latents


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    """Clips, an autoencoder with random weights, and what `fromnoise encode` made of them: two passes."""
    root = tmp_path_factory.mktemp("encoded")
    for i in range(6):
        path = root / "clips" / ("train" if i < 4 else "valid") / ("dog", "rain")[i % 2] / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, sound(100 - 12 * i, seed=i)[0], RATE)
    autoencoder = make()
    card = {"task": "autoencode", "name": "ae", "config": hub.config_dict(autoencoder.model.config)}
    hub.save(autoencoder.model, card, root / "ae")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, GENERATE.name, GENERATE)
        words = [f"recipe={GENERATE.name}", f"data.root={root / 'clips'}", f"init.autoencoder={root / 'ae'}"]
        words += ["-o", str(root / "out"), "--passes", "2", "--batch-size", "3", "-d", "cpu", "--quiet"]
        assert main(["encode", *words]) == 0
        assert main(["encode", *words]) == 2  # what is there stays
    return root


def recipe_of(root, **data):
    init = dataclasses.replace(GENERATE.init, autoencoder=str(root / "ae"))
    clips = dataclasses.replace(GENERATE.data, root=str(root / "clips"), **data)
    return dataclasses.replace(GENERATE, data=clips, init=init)


def test_rows_are_the_items_of_the_training_encoded(encoded):
    """float32; another batch size changes sums in their last bits."""
    recipe, latents = recipe_of(encoded), Latents(str(encoded / "out"))
    items, rows = recipe.data.train(recipe.seed), latents.train(recipe.seed)
    model = hub.load(encoded / "ae").model
    for k in range(8):
        with torch.no_grad():
            wanted = model.encode(items[k]["clean"][None])[0]
        torch.testing.assert_close(rows[k]["latent"], wanted, rtol=0, atol=1e-5)
        for name in ("label", "duration", "text"):
            torch.testing.assert_close(rows[k][name], items[k][name])
    turn = [rows[k]["latent"] for k in range(8, 16)]
    same = [any(torch.equal(one, rows[k]["latent"]) for k in range(8)) for one in turn]
    assert all(same)
    assert not all(torch.equal(turn[k], rows[k]["latent"]) for k in range(8))
    assert len(latents.valid()) == 2
    assert (latents.sample_rate, latents.seconds, latents.captions) == (RATE, 0.064, ("label",))


def test_training_on_latents_is_training_on_the_clips(encoded, tmp_path):
    """The same weights after two steps, to what float32 sums of other batches differ by."""
    recipe = recipe_of(encoded)
    other = dataclasses.replace(recipe, data=Latents(str(encoded / "out")))
    found = []
    for name, one in (("clips", recipe), ("latents", other)):
        train(dataclasses.replace(one, folder=str(tmp_path / name)), voice=QUIET)
        found.append(hub.load(tmp_path / name))
    for name, value in found[0].model.state_dict().items():
        torch.testing.assert_close(found[1].model.state_dict()[name], value, rtol=0, atol=2e-5, msg=name)
    assert found[1]("a dog").shape == (1, 1, 64)
    assert json.loads((tmp_path / "latents" / "card.json").read_text())["data"] == {"name": "latents", "valid_items": 0}


def test_latents_of_another_autoencoder_or_none_are_refused(encoded, tmp_path):
    recipe = dataclasses.replace(recipe_of(encoded), data=Latents(str(encoded / "out")))
    other = make()
    with torch.no_grad():
        next(other.model.parameters()).add_(1)
    card = {"task": "autoencode", "name": "ae", "config": hub.config_dict(other.model.config)}
    hub.save(other.model, card, tmp_path / "ae")
    init = dataclasses.replace(recipe.init, autoencoder=str(tmp_path / "ae"))
    with pytest.raises(InputError, match="was encoded by another autoencoder than init"):
        train(dataclasses.replace(recipe, init=init), voice=QUIET)
    with pytest.raises(InputError, match="data=latents is for a model that generates latents"):
        GenerateTask.require(dataclasses.replace(recipe, latent=None))
    with pytest.raises(InputError, match=f"holds no {FACTS}; write latents there by fromnoise encode"):
        _ = Latents(str(tmp_path)).sample_rate
    with pytest.raises(InputError, match="task=autoencode needs data with clean in it"):
        train(dataclasses.replace(AUTOENCODE, data=recipe.data), voice=QUIET)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["recipe=text_to_audio/sounds_spectral"], "generates no latents"),
        (["recipe=text_to_audio/birds"], "set init.autoencoder=FOLDER"),
        (["recipe=text_to_audio/sounds_small", "data=latents"], "latents are made of clips; choose data=clips"),
        (["recipe=text_to_audio/sounds_small", "init.autoencoder=x", "--passes", "0"], "--passes and --batch-size"),
    ],
    ids=str,
)
def test_what_cannot_be_encoded_is_one_sentence(words, fault, tmp_path, capsys):
    assert main(["encode", *words, "-o", str(tmp_path)]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("Error: ")
    assert fault in said
    assert said.count("\n") == 0


def test_a_bundled_generator_leaves_its_autoencoder_to_a_bundled_one(encoded, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "BUNDLED", tmp_path)
    fromnoise.save_pretrained(fromnoise.load(encoded / "ae"), tmp_path / "tiny-ae", half=True)
    torch.manual_seed(1)
    whole = Generator(GenerationModel(recipe_of(encoded).model_config()), "tiny")
    card = {"task": "generate", "name": "tiny", "config": hub.config_dict(whole.model.config)}
    with pytest.raises(InputError, match="the autoencoder of this model is not 'tiny-ae'; save it whole"):
        hub.save(whole.model, card, tmp_path / "tiny", half=True, shared="tiny-ae")
    whole.model.autoencoder.load_state_dict(fromnoise.load("tiny-ae").model.state_dict())
    hub.save(whole.model, card, tmp_path / "tiny", half=True, shared="tiny-ae")
    assert not [key for key in load_file(tmp_path / "tiny/model.safetensors") if key.startswith("autoencoder.")]
    found = fromnoise.load("tiny")
    hub.save(whole.model, card, tmp_path / "one", half=True)
    fromnoise.save_pretrained(found, tmp_path / "again")  # stands alone
    for other in (fromnoise.load("one"), fromnoise.load("again")):
        for name, value in other.model.state_dict().items():
            assert torch.equal(found.model.state_dict()[name], value), name
    assert str(initialise(whole.model, {"autoencoder": "tiny"})[0]).endswith("tensors from tiny")

    stated = json.loads((tmp_path / "tiny/card.json").read_text())
    for changed, fault in [
        ({"name": "tiny-ae", "sha256": "0" * 64}, "use the version that the model came with"),
        ({"name": "../tiny-ae", "sha256": stated["autoencoder"]["sha256"]}, "expected the name of a bundled autoenc"),
        ({"name": 3}, "expected the name of a bundled autoencoder"),
        ("tiny-ae", "expected the name of a bundled autoencoder"),
    ]:
        (tmp_path / "tiny/card.json").write_text(json.dumps(stated | {"autoencoder": changed}))
        with pytest.raises(InputError, match=fault):
            fromnoise.load("tiny")


@pytest.mark.parametrize("name", ["sounds_autoencoder", "sounds_small"])
def test_the_bundled_pair_is_what_its_recipes_make(name):
    recipe = RECIPES[f"text_to_audio/{name}"]
    assert hub.read_card(hub.locate(recipe.model_name))["config"] == hub.config_dict(recipe.model_config())
    if recipe.init.autoencoder:
        taken = initialise(GenerationModel(recipe.model_config()), {"autoencoder": recipe.init.autoencoder})
        assert [(part.count, part.fresh) for part in taken] == [(taken[0].total, ())]


# Decoding


def test_decoding_has_steps_of_its_own(encoded, capsys, tmp_path):
    recipe = recipe_of(encoded)
    torch.manual_seed(0)
    generator = Generator(GenerationModel(recipe.model_config()))
    more = generator.decoding(steps=7, sampler="heun")
    assert more.model.denoiser is generator.model.denoiser
    assert np.abs(more("rain") - generator("rain")).max() > 1e-4
    np.testing.assert_array_equal(generator.decoding()("rain"), generator("rain"))
    card = {"task": "generate", "name": "g", "config": hub.config_dict(generator.model.config)}
    hub.save(generator.model, card, tmp_path / "g")
    words = ["generate", "--text", "rain", "-m", str(tmp_path / "g"), "-d", "cpu", "--subtype", "FLOAT"]
    assert main([*words, "--decode-steps", "7", "--decode-sampler", "heun", "-o", str(tmp_path / "a.wav")]) == 0
    made = soundfile.read(tmp_path / "a.wav", dtype="float32")[0]
    np.testing.assert_allclose(made, more("rain")[0, 0], atol=1e-6)
    with pytest.raises(InputError, match="makes sounds without an autoencoder"):
        make_generator().decoding(steps=3)


# Texts


def test_several_texts_are_one_sound_each():
    generator = make_generator()
    both = generator(["rain", "a dog"], seed=2, guidance=2.0)
    for made, text in zip(both, ("rain", "a dog"), strict=True):
        np.testing.assert_array_equal(made, generator(text, seed=2, guidance=2.0)[0])
    free, untold = generator(2, text="rain", guidance=0), generator(2)
    np.testing.assert_allclose(free, untold, atol=1e-6)  # guidance 0 ignores the text
    with pytest.raises(InputError, match="the text is empty"):
        generator(["rain", ""])


class Letters(TextEncoder):
    """The share of each of eight letters, as context and vector."""

    def forward(self, texts):
        counts = [[text.count(letter) for letter in "abcdefgh"] for text in texts]
        vector = torch.tensor(counts, dtype=torch.float32)
        return Condition(context=vector[:, None], mask=torch.ones(len(texts), 1, dtype=torch.bool), vector=vector)

    def is_cut(self, text):
        return False


def test_any_encoder_may_take_the_place_of_the_models_own():
    generator = make_generator()
    generator.model.text = Letters()
    np.testing.assert_allclose(generator("abba"), generator("baab"), atol=1e-6)
    assert np.abs(generator("abba") - generator("hedge")).max() > 1e-3
