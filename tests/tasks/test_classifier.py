"""The classifier learns, its changes of a clip are what they say, and its cards load."""

import numpy as np
import pytest
import torch

import fromnoise
from fromnoise import hub
from fromnoise.tasks.classification import ClassificationConfig, ClassificationModel, Classifier, at_speed, shifted
from fromnoise.types import InputError

RATE = 8000
MEL = {"name": "mel", "sample_rate": RATE, "n_fft": 512, "hop": 256, "win": 512, "n_mels": 16, "fmax": 4000.0,
       "power": 2.0, "log": "10", "multiplier": 10.0, "floor": 1e-10}  # fmt: skip
TINY = {"name": "resnext", "depth": 11, "cardinality": 2, "base_width": 4, "widen_factor": 1}
OFF = {"gain": (1.0, 1.0), "speed": 0.0, "stretch": 0.0, "shift": 0, "noise": 0.0}


def make(**changes):
    torch.manual_seed(0)
    settings = {"mel": MEL, "network": TINY, "labels": ("low", "high"), "seconds": 0.5, **changes}
    return ClassificationModel(ClassificationConfig(**settings))


def tones(count=8, seed=0):
    """Waves `b 1 n` whose pitch is the label, and the labels."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    t = np.arange(3000) / RATE
    frequency = np.where(labels, 1500.0, 400.0) * draw.uniform(0.9, 1.1, count)
    level = draw.uniform(0.001, 0.5, count)
    waves = level[:, None] * np.sin(2 * np.pi * frequency[:, None] * t)
    return torch.from_numpy(waves.astype(np.float32))[:, None], torch.from_numpy(labels)


def test_training_by_the_loss_tells_tones_apart():
    model = make().train()
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(12):
        clean, labels = tones(16, step)
        loss = model.loss(clean, labels, torch.Generator().manual_seed(step)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    clean, labels = tones(20, 99)
    classifier = Classifier(model)
    probabilities, features = classifier(clean[:, 0].numpy(), RATE)
    assert (probabilities.argmax(1) == labels.numpy()).all()
    assert probabilities.sum(1) == pytest.approx(np.ones(20), abs=1e-6)
    assert features.shape == (20, 256)
    assert model.eval().accuracy(clean, labels).mean() == 1


def test_level_and_silence_at_the_end_change_no_answer():
    classifier = Classifier(make())
    wave = tones(1)[0][0, 0].numpy()
    plain, _ = classifier(wave, RATE)
    assert plain.shape == (2,)
    np.testing.assert_allclose(classifier(0.3 * wave, RATE)[0], plain, atol=1e-5)
    np.testing.assert_allclose(classifier(np.pad(wave, (0, 5000)), RATE)[0], plain, atol=1e-6)
    given, _ = classifier(torch.from_numpy(wave), RATE)
    assert isinstance(given, torch.Tensor)
    np.testing.assert_allclose(given.numpy(), plain, atol=1e-7)


def test_a_batch_answers_as_its_items_do():
    classifier = Classifier(make())
    waves = tones(5)[0][:, 0].numpy()
    together = classifier(waves, RATE)
    for i, wave in enumerate(waves):
        for whole, alone in zip(together, classifier(wave, RATE), strict=True):
            np.testing.assert_allclose(whole[i], alone, rtol=1e-4, atol=1e-5)


def test_without_changes_training_reads_what_evaluation_reads():
    model = make(**OFF)
    clean, _ = tones(3)
    image = model.changed(clean, torch.Generator().manual_seed(0))
    assert torch.equal(image, model.image(clean))


def test_every_change_moves_some_items_and_leaves_some():
    clean, _ = tones(24)
    changes = {"gain": (0.7, 1.1), "speed": 0.2, "stretch": 0.2, "shift": 8, "noise": 0.45}
    for name, value in changes.items():
        model = make(**{**OFF, name: value})
        image = model.changed(clean, torch.Generator().manual_seed(1))
        moved = (image - model.image(clean)).abs().amax(dim=(1, 2, 3)) > 0.01
        if name == "gain":  # the level falls out of the picture
            assert not moved[clean.abs().amax(dim=(1, 2)) > 0.1].any()  # softer ones reach the floor of the mel
        else:
            assert 4 < int(moved.sum()) < 20, name
    assert torch.equal(image, model.changed(clean, torch.Generator().manual_seed(1)))
    assert not torch.equal(image, model.changed(clean, torch.Generator().manual_seed(2)))


def test_speed_reads_between_samples_and_silence_beyond_the_end():
    x = torch.tensor([[[0.0, 1, 2, 3]], [[0.0, 1, 2, 3]], [[4.0, 4, 4, 4]]])
    found = at_speed(x, torch.tensor([1.0, 0.5, 2.0]), fill=-1.0)
    assert found.tolist() == [[[0, 1, 2, 3]], [[0, 0.5, 1, 1.5]], [[4, 4, -1, -1]]]


def test_shift_fills_with_silence_on_either_side():
    x = torch.arange(1.0, 5.0).expand(3, 1, 4)
    assert shifted(x, torch.tensor([1, -2, 9])).tolist() == [[[0, 1, 2, 3]], [[3, 4, 0, 0]], [[0, 0, 0, 0]]]


def test_noise_is_at_the_level_of_the_clip():
    from fromnoise.tasks.classification import _Draws

    clean, _ = tones(6)
    noise = _Draws(torch.Generator().manual_seed(0), clean).noise(clean)
    assert torch.allclose(noise.square().mean(-1), clean.square().mean(-1), rtol=1e-4)


def test_a_saved_classifier_loads_by_its_folder(tmp_path):
    model = make()
    card = {"task": "classify", "name": "tones", "config": hub.config_dict(model.config), "licence": "MIT"}
    hub.save(model, card, tmp_path / "tones", half=True)
    loaded = fromnoise.load(tmp_path / "tones")
    assert (loaded.name, loaded.sample_rate, loaded.labels) == ("tones", RATE, ("low", "high"))
    wave = tones(1)[0][0, 0].numpy()
    np.testing.assert_allclose(loaded(wave, RATE)[0], Classifier(model)(wave, RATE)[0], atol=1e-2)


def test_labels_are_found_by_name_or_number():
    classifier = Classifier(make())
    assert [classifier.index(x) for x in ("high", "1", 0)] == [1, 1, 0]
    with pytest.raises(InputError, match="unknown label 'seven'; choose one of: low, high"):
        classifier.index("seven")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"labels": ("a",)}, "at least two labels"),
        ({"labels": ("a", "a")}, "all different"),
        ({"mel": {**MEL, "log": "none"}}, "reads a logarithmic mel"),
        ({"network": {**TINY, "depth": 12}}, "depth must be 9 blocks"),
        ({"network": {"name": "vgg"}}, "unknown network 'vgg'; choose one of: resnext"),
        ({"chance": 2.0}, "chance and noise from 0 to 1"),
        ({"gain": (1.0,)}, "gain as two positive numbers"),
        ({"seconds": 0.0}, "clips of 1 to"),
    ],
)
def test_a_wrong_configuration_is_a_sentence(changes, fault):
    with pytest.raises(ValueError, match=fault):
        make(**changes)


def test_waves_that_cannot_be_classified_are_refused():
    classifier = Classifier(make())
    for wave, fault in [
        (np.zeros((1, 1, 9), np.float32), r"expected waves of shape \(n\) or \(b, n\)"),
        (np.zeros(9, np.int16), "as floats"),
        (np.zeros(0, np.float32), "expected waves"),
        (np.full(9, np.nan, np.float32), "NaN or infinite"),
    ]:
        with pytest.raises(InputError, match=fault):
            classifier(wave, RATE)
    clean, _ = tones(2)
    with pytest.raises(InputError, match=r"labels 0 to 1, got \[0, -1\]"):
        classifier.model.loss(clean, torch.tensor([0, -1]))
