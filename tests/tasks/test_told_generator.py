"""A generator that is told a label: guidance, names of labels, and what the loss does with them."""

import dataclasses

import numpy as np
import pytest
import torch

from fromnoise.conditioning import LabelEmbedding
from fromnoise.conditioning.labels import drop_labels, label_number
from fromnoise.objectives import Objective
from fromnoise.tasks import GenerationModel, Generator
from fromnoise.types import Condition, InputError
from tests.tiny_generators import CLIP, DIGITS, make, sound, watch


@pytest.fixture(scope="module")
def free() -> Generator:
    return make()


@pytest.fixture(scope="module")
def digits() -> Generator:
    return make(DIGITS)


def test_guidance_is_a_line_through_both_estimates_in_one_batch(digits):
    model = digits.model
    x, t = torch.from_numpy(sound(2, 1, CLIP)), torch.tensor([0.3, 0.9], dtype=torch.float64)
    labels = torch.tensor([2, 0])
    with torch.no_grad():
        told, free = (
            model.denoiser(x, t, None, Condition(vector=model.embedding(number))) for number in (labels, 0 * labels - 1)
        )
        assert (told - free).abs().max() > 1e-3
        for g in (0.0, 0.5, 1.0, 3.0):
            torch.testing.assert_close(model.guided(labels, g)(x, t), free + g * (told - free), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("label", "guidance", "size"),
    [("one", None, 3), ("one", 1.0, 3), ("one", 0.0, 3), ("one", 2.5, 6), (None, None, 3)],
)
def test_the_second_half_is_there_only_where_it_counts(label, guidance, size):
    generator = make(DIGITS)
    watched = watch(generator)
    generator(count=3, label=label, guidance=guidance, steps=2)
    assert watched.sizes == [size, size]


def test_no_guidance_towards_nothing_is_free_generation(digits):
    np.testing.assert_array_equal(digits(label="one", guidance=0.0), digits())
    with pytest.warns(UserWarning, match="no effect without a label"):
        np.testing.assert_array_equal(digits(guidance=3.0), digits())


def test_the_model_s_own_guidance_is_the_default(digits):
    config = dataclasses.replace(digits.model.config, guidance_scale=2.0)
    model = GenerationModel(config)
    model.load_state_dict(digits.model.state_dict())
    strong = Generator(model)
    np.testing.assert_array_equal(strong(label="one"), digits(label="one", guidance=2.0))
    np.testing.assert_array_equal(strong(), digits())


def test_a_label_is_its_name_or_its_number(digits):
    np.testing.assert_array_equal(digits(label="two"), digits(label=2))
    np.testing.assert_array_equal(digits(label="two"), digits(label="2"))
    assert np.abs(digits(label="two") - digits(label="one")).max() > 1e-3
    assert label_number("1", ("1", "0")) == 0  # a name comes first
    assert label_number(None, ()) == -1
    for label in ("seven", "3", 3, -1, "-1", "", "²"):
        with pytest.raises(InputError, match=r"unknown label .*; choose one of: zero, one, two"):
            digits(label=label)


def test_a_model_without_labels_says_so(free):
    with pytest.raises(InputError, match="trained without labels and generates freely"):
        free(label="one")


def test_the_embedding_has_a_row_for_no_label():
    embedding = LabelEmbedding(3, 5)
    assert embedding.table.weight.shape == (4, 5)
    found = embedding(torch.tensor([2, -1, 0]))
    torch.testing.assert_close(found, embedding.table.weight[[2, 3, 0]], rtol=0, atol=0)
    for wrong in (-2, 3):
        with pytest.raises(InputError, match="expected labels from -1 \\(none\\) to 2"):
            embedding(torch.tensor([0, wrong]))


def test_labels_are_dropped_with_the_share_asked_for():
    labels = torch.arange(3).repeat(4000)
    dropped = drop_labels(labels, 0.1, torch.Generator().manual_seed(0)) != labels
    assert float(dropped.float().mean()) == pytest.approx(0.1, abs=0.011)  # four standard deviations
    assert drop_labels(labels, 0.0) is labels
    assert bool((drop_labels(labels, 1.0) == -1).all())


def test_loss_is_the_objective_s_on_what_the_label_says(digits):
    model = digits.model
    clean, labels = torch.from_numpy(sound(4, 1, CLIP)), torch.tensor([0, 1, 2, -1])
    objective = Objective()
    seeded = lambda: torch.Generator().manual_seed(3)  # noqa: E731
    loss = model.loss(clean, labels, objective, seeded())
    draw = objective.draw(model.process, model.denoiser.prediction, clean, None, seeded())
    told = Condition(vector=model.embedding.table.weight[[0, 1, 2, 3]])
    torch.testing.assert_close(loss, (model.denoiser.raw(draw.x_t, draw.t, None, told) - draw.z).square().mean((1, 2)))
    none = model.loss(clean, 0 * labels - 1, objective, seeded())
    torch.testing.assert_close(model.loss(clean, labels, objective, seeded(), 1.0), none)
    assert bool((none[:3] != loss[:3]).all())
    assert loss[3] == none[3]


def test_the_loss_reaches_the_rows_of_the_labels_that_were_shown(digits):
    model = digits.model
    embedding = model.embedding
    clean = torch.from_numpy(sound(2, 1, CLIP))
    for drop, rows in ((0.0, [0, 1]), (1.0, [3])):
        embedding.zero_grad()
        model.loss(clean, torch.tensor([0, 1]), Objective(), None, drop).sum().backward()
        assert embedding.table.weight.grad.abs().sum(1).nonzero().ravel().tolist() == rows
    model.zero_grad()


def test_a_model_without_labels_learns_from_labelled_clips(free):
    clean = torch.from_numpy(sound(2, 1, CLIP))
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    first = free.model.loss(clean, torch.tensor([5, 6]), Objective(), generators[0])
    torch.testing.assert_close(first, free.model.loss(clean, torch.tensor([-1, -1]), Objective(), generators[1]))
