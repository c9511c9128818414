"""Model folders: written and read back, found by name, and never trusted."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import fromnoise
from fromnoise import hub
from fromnoise.tasks.enhancement import EnhancementConfig, EnhancementModel
from fromnoise.types import InputError


@pytest.fixture
def folder(make_model, tmp_path: Path) -> Path:
    return make_model("bridge", tmp_path / "model")


def edit_card(folder: Path, **changes: object) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | changes))


def test_a_saved_model_comes_back_to_the_bit(folder, tmp_path):
    first = fromnoise.load(folder)
    hub.save(first.model, first.card, tmp_path / "again")
    second = fromnoise.load(str(tmp_path / "again"))
    for name, weight in first.model.state_dict().items():
        assert torch.equal(weight, second.model.state_dict()[name])
    assert second.model.config == first.model.config
    assert first.name == second.name == "tiny-bridge"
    assert first.card["parameters"] == sum(p.numel() for p in first.model.parameters())
    assert not first.model.training


def test_half_keeps_vectors_whole_and_loads_as_float32(folder, tmp_path):
    enhancer = fromnoise.load(folder)
    hub.save(enhancer.model, enhancer.card, tmp_path / "half", half=True)
    stored = load_file(tmp_path / "half/model.safetensors")
    floats = {name: value for name, value in stored.items() if value.is_floating_point()}
    assert {value.ndim > 1 for value in floats.values() if value.dtype == torch.float16} == {True}
    assert {value.ndim > 1 for value in floats.values() if value.dtype == torch.float32} == {False}
    again = fromnoise.load(tmp_path / "half")
    assert {p.dtype for p in again.model.parameters()} == {torch.float32}
    wave = (0.1 * np.random.default_rng(0).standard_normal(4000)).astype(np.float32)
    whole, half = enhancer(wave, 16000), again(wave, 16000)
    assert 0 < np.abs(whole - half).max() < 0.02 * np.abs(whole).max()


def test_saving_leaves_no_other_file(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "model.safetensors"]


def test_bundled_models_are_found_by_name_and_listed(make_model, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "BUNDLED", tmp_path)
    make_model("regression", tmp_path / "enhance-x")
    assert [card["name"] for card in fromnoise.list_models()] == ["tiny-regression"]
    assert hub.locate("enhance-x") == tmp_path / "enhance-x"
    with pytest.raises(InputError, match="no model 'enhance-y': not a folder, and the bundled models are: tiny-reg"):
        hub.locate("enhance-y")


def test_a_hub_id_is_fetched_as_three_files_and_a_failure_is_explained(folder, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked = []

    def fetch(name, allow_patterns):
        asked.append((name, allow_patterns))
        if name == "no/one":
            raise LocalEntryNotFoundError("offline")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert fromnoise.load("some/one").name == "tiny-bridge"
    assert asked == [("some/one", ["card.json", "model.safetensors", "README.md"])]
    with pytest.raises(InputError, match=r"'no/one' is neither a folder nor bundled .*check the name"):
        fromnoise.load("no/one")
    for name in ("../one", "a/b/c", "~x/one", "a/"):
        with pytest.raises(InputError, match="no model"):
            fromnoise.load(name)
    assert len(asked) == 2


def test_a_run_folder_gives_best_or_last(folder):
    weights = hub.read_weights(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"neither model\.safetensors nor checkpoints/best\.ckpt"):
        fromnoise.load(folder)
    (folder / "checkpoints").mkdir()
    for name, factor in {"last": 2.0, "best": 3.0}.items():
        state = {
            f"model.{key}": value * factor if value.is_floating_point() else value for key, value in weights.items()
        }
        torch.save({"state_dict": state | {"loss.scale": torch.ones(1)}}, folder / f"checkpoints/{name}.ckpt")
        key = next(iter(weights))
        assert torch.equal(fromnoise.load(folder).model.state_dict()[key], weights[key] * factor)
    assert torch.equal(fromnoise.load(folder, checkpoint="last").model.state_dict()[key], weights[key] * 2)
    (folder / "checkpoints/last.ckpt").unlink()
    with pytest.raises(InputError, match=r"checkpoints/last\.ckpt"):  # asked for, so nothing else is taken
        fromnoise.load(folder, checkpoint="last")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "is not valid JSON"),
        ("{", "is not valid JSON"),
        ("[1]", "is no card"),
        ("null", "is no card"),
        ('{"format": 1, "task": "enhance"}', "is no card"),
        ('{"format": 2, "task": "enhance", "config": {}}', "has format 2; this version reads 1: update"),
        (
            '{"format": 1, "task": "transmute", "config": {}}',
            "is for the task 'transmute'; known tasks: classify, enhance",
        ),
        ("[" * 100_000, "is not valid JSON"),
        (" " * (1 << 20) + "{}", "is larger than 1048576 bytes"),
        (b"\xff\xfe{}", "is not valid JSON"),
    ],
)
def test_a_damaged_card_is_refused(folder, content, fault):
    (folder / "card.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=fault):
        fromnoise.load(folder)


def test_a_model_is_outlined_before_anything_is_allocated(folder):
    """The card asks for 10^12 weights (4 TB): refused by comparison with the file, in little memory."""
    edit_card(folder, config={"backbone": {"name": "crn", "channels": [10**6], "hidden": 10**6}})
    with pytest.raises(InputError, match="the weights do not fit the card"):
        fromnoise.load(folder)


def test_weights_with_other_names_or_shapes_are_counted(folder):
    config = hub.config_of(hub.read_card(folder))
    model = EnhancementModel(config)
    weights = dict(model.state_dict())
    weights["stranger"] = weights.pop(next(iter(weights)))
    other = next(iter(weights))
    weights[other] = weights[other].flatten()[:1].repeat(7)
    with pytest.raises(InputError, match="1 missing, 1 unknown, 1 of another shape"):
        hub.weights_into(model, weights, folder)


def test_a_configuration_survives_its_card():
    config = EnhancementConfig(process={"name": "vp", "betas": (0.1, 0.2)}, guidance=0.25)
    card = {"task": "enhance", "name": "x", "config": hub.config_dict(config)}
    assert hub.config_dict(hub.config_of(card)) == hub.config_dict(config)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (2_783_850, "2.78 M"), (12_000, "12 k"), (7 * 10**9, "7 G"), (4 * 10**12, "4e+03 G")],
)
def test_human_size(count, text):
    assert hub.human_size(count) == text
