"""Model folders: written and read back, found by name, and never trusted."""

import hashlib
import json
import shutil
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import fromnoise
from fromnoise import hub, remote
from fromnoise.tasks.enhancement import EnhancementConfig, EnhancementModel
from fromnoise.types import InputError
from tests.stub_hub import StubHub, serving


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


def test_every_bundled_card_states_the_hash_of_its_weights_and_these_are_small():
    for card in fromnoise.list_models():
        weights = hub.BUNDLED / card["name"] / remote.WEIGHTS
        assert card["sha256"] == remote.sha256_of(weights), card["name"]
        assert weights.stat().st_size <= 12e6, card["name"]


@pytest.fixture
def stub(folder: Path, tmp_path: Path, monkeypatch) -> Iterator[StubHub]:
    """A hub on loopback that holds `folder`, in the place of the real one, with caches of its own."""
    import huggingface_hub
    from huggingface_hub import constants

    with serving({path.name: path.read_bytes() for path in folder.iterdir()}) as server:
        for name in ("ENDPOINT", "HUGGINGFACE_CO_URL_HOME"):
            monkeypatch.setattr(constants, name, server.address)
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        huggingface_hub.close_session()
        yield server
    huggingface_hub.close_session()


def is_whole(ready, folder: Path) -> bool:
    """Whether a fetched model holds the folder's weights."""
    wanted = load_file(folder / "model.safetensors")
    return all(torch.equal(value, wanted[name]) for name, value in ready.model.state_dict().items())


def test_a_hub_id_is_fetched_once_and_then_works_offline(folder, stub):
    stub.files["pytorch_model.bin"] = b"never fetched"
    assert is_whole(fromnoise.load("user/name"), folder)
    asked = len(stub.ranges("model.safetensors"))
    assert asked == 1
    assert not stub.ranges("pytorch_model.bin")
    assert is_whole(fromnoise.from_pretrained("user/name", local_files_only=True), folder)
    assert len(stub.ranges("model.safetensors")) == asked
    with pytest.raises(InputError, match=r"'user/other' is neither a folder nor bundled .*offline mode is on"):
        fromnoise.from_pretrained("user/other", local_files_only=True)


def test_a_hub_download_that_breaks_goes_on_in_the_same_run_and_in_a_later_one(folder, stub):
    starts, size = [0], (folder / "model.safetensors").stat().st_size
    for _ in range(4):
        starts.append(starts[-1] + (size - starts[-1]) // 2)  # a transfer that breaks does so half-way
    stub.breaks = 4
    with pytest.raises(InputError, match=r"the connection broke after \d+ of \d+ bytes; run it again to go on"):
        fromnoise.load("user/name")
    assert len(stub.ranges("model.safetensors")) == remote.TRIES
    with pytest.raises(InputError, match="the weights of 'user/name' are not here: offline mode is on"):
        fromnoise.from_pretrained("user/name", local_files_only=True)
    assert is_whole(fromnoise.load("user/name"), folder)
    assert stub.ranges("model.safetensors") == [None, *(f"bytes={start}-" for start in starts[1:])]


def test_a_part_that_is_whole_or_of_something_else_is_mended(folder, stub, tmp_path):
    whole = (folder / "model.safetensors").read_bytes()
    for left in (whole, whole + b"more", b"other" * 40):
        shutil.rmtree(tmp_path / "home", ignore_errors=True)
        stub.breaks = remote.TRIES
        with pytest.raises(InputError, match="run it again to go on"):
            fromnoise.load(f"{stub.address}/plain")
        next((tmp_path / "home").rglob("*.part")).write_bytes(left)
        if left[:5] == b"other":
            with pytest.raises(InputError, match="their SHA-256 differs"):
                fromnoise.load(f"{stub.address}/plain")
        assert is_whole(fromnoise.load(f"{stub.address}/plain"), folder)


def test_processes_that_want_the_same_model_fetch_it_once(folder, stub):
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(remote.fetch_address, [f"{stub.address}/plain"] * 8))  # raises what any of them raised
    assert len(found) == 1
    assert len(stub.ranges("model.safetensors")) == 1
    assert is_whole(fromnoise.load(f"{stub.address}/plain"), folder)


def test_a_token_goes_to_the_hub_and_not_to_where_it_refers(stub, monkeypatch):
    sent = []
    monkeypatch.setattr(remote, "_transfer", lambda *given: sent.append(given) or given[1].write_bytes(b""))
    with pytest.raises(InputError, match="SHA-256"):
        fromnoise.from_pretrained("user/name", token="hf_test")
    assert [given[2] for given in sent] == ["Bearer hf_test"]
    request = remote.request_for("http://127.0.0.1:9/a", 5, "Bearer hf_test")
    moved = urllib.request.HTTPRedirectHandler().redirect_request(request, None, 302, "", {}, "http://127.0.0.2:9/b")
    assert request.get_header("Authorization") == "Bearer hf_test"
    assert not moved.has_header("Authorization")
    assert moved.get_header("Range") == "bytes=5-"


def test_damaged_weights_are_refused_and_fetched_anew(folder, stub):
    good = stub.files["model.safetensors"]
    stub.files["model.safetensors"] = good[:-1] + bytes([good[-1] ^ 1])
    with pytest.raises(InputError, match=r"not those of the card \(their SHA-256 differs\); they were deleted"):
        fromnoise.load("user/name")
    stub.files["model.safetensors"] = good
    assert is_whole(fromnoise.load("user/name"), folder)


def test_a_hub_that_has_no_such_model_is_explained(stub):
    with pytest.raises(InputError, match=r"'no/one' is neither a folder nor bundled .*check the name"):
        fromnoise.load("no/one")
    asked = len(stub.asked)
    for name in ("../one", "a/b/c", "~x/one", "a/"):
        with pytest.raises(InputError, match="no model"):
            fromnoise.load(name)
    assert len(stub.asked) == asked


def test_of_a_repository_without_a_card_no_weights_are_fetched(stub):
    del stub.files["card.json"]
    stub.files["README.md"] = b"of something else"
    with pytest.raises(InputError, match=r"holds no card\.json"):
        fromnoise.load("user/name")
    assert not stub.ranges("model.safetensors")


def test_an_address_is_fetched_goes_on_in_a_later_run_and_then_works_offline(folder, stub, monkeypatch):
    address = f"{stub.address}/plain"
    stub.breaks = remote.TRIES
    with pytest.raises(InputError, match=r"the connection broke after \d+ of \d+ bytes; run it again"):
        fromnoise.load(address)
    assert is_whole(fromnoise.load(address), folder)
    assert stub.ranges("model.safetensors")[0] is None
    assert None not in stub.ranges("model.safetensors")[1:]
    assert is_whole(fromnoise.load(address), folder)
    assert len(stub.ranges("model.safetensors")) == remote.TRIES + 1  # what is there and right is not fetched again
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = len(stub.asked)
    assert is_whole(fromnoise.load(address), folder)
    with pytest.raises(InputError, match="was not fetched before, and offline mode is on"):
        fromnoise.load(f"{stub.address}/other")
    assert len(stub.asked) == asked


def test_an_address_with_damaged_weights_or_nothing_is_refused(stub):
    with pytest.raises(InputError, match=r"the server answered 404 .*; check the address"):
        del stub.files["card.json"]
        fromnoise.load(f"{stub.address}/plain")
    with pytest.raises(InputError, match=r"cannot be fetched .*check the address and the connection"):
        fromnoise.load("http://127.0.0.1:9/plain")


def test_a_published_model_is_what_comes_back(folder, stub, tmp_path):
    ready = fromnoise.load(folder)
    stub.files.clear()
    address = fromnoise.push_to_hub(ready, "user/name", token="hf_test", private=True)
    assert address == f"{stub.address}/user/name"
    assert "private" in (stub.repos[0].get("visibility"), *(k for k, v in stub.repos[0].items() if v is True))
    assert {header for method, path, header in stub.asked if method == "POST"} == {"Bearer hf_test"}
    assert sorted(stub.files) == ["README.md", "card.json", "model.safetensors"]
    assert stub.files["README.md"].decode().startswith("---\nlicense: mit\nlibrary_name: fromnoise\n")
    again = fromnoise.from_pretrained("user/name", cache_dir=tmp_path / "elsewhere")
    assert is_whole(again, folder)
    assert again.card["sha256"] == hashlib.sha256(stub.files["model.safetensors"]).hexdigest()
    assert again.model.config == ready.model.config


def test_a_model_without_a_licence_is_not_published(folder, stub):
    ready = fromnoise.load(folder)
    ready.card["licence"] = " "
    with pytest.raises(InputError, match="states no licence"):
        fromnoise.push_to_hub(ready, "user/name", token="hf_test")
    assert not stub.repos


def test_a_saved_folder_keeps_the_page_that_was_there(folder, tmp_path):
    ready = fromnoise.load(folder)
    (tmp_path / "own").mkdir()
    (tmp_path / "own/README.md").write_text("mine")
    fromnoise.save_pretrained(ready, tmp_path / "own", half=True)
    assert (tmp_path / "own/README.md").read_text() == "mine"
    assert fromnoise.from_pretrained(tmp_path / "own").card["licence"] == "MIT"


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("Apache-2.0", True),
        ("CC BY 4.0", True),
        ("CC BY-SA 4.0", True),
        ("CC0", True),
        ("public domain", True),
        ("CC BY-NC 4.0", False),
        ("cc-by-nc-sa-4.0", False),
        ("Creative Commons Attribution-NonCommercial", False),
        ("MIT, for research only", False),
        ("not stated", None),
        ("", None),
    ],
)
def test_commercial_use_follows_from_the_name_or_is_not_known(licence, allowed):
    assert hub.commercial_use(licence) is allowed


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
            "is for the task 'transmute'; known tasks: autoencode, classify, enhance",
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
