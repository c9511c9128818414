"""Checkpoints of DR-DiffuSE, CDiffuSE, DiffuSE 2021 and DOSE, in and out: key lists of the published sizes, cards that
hold the published runs, and weights that come back bit by bit."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fromnoise
from fromnoise.backbones import TCUNetConfig
from fromnoise.importers import LAYOUTS, Asked, Imported, Schedule, export, import_checkpoints, save
from fromnoise.importers.assemble import assemble
from fromnoise.importers.base import PREFIX, Clues, Plan
from fromnoise.recipes import RECIPES
from fromnoise.tasks import TASKS
from fromnoise.types import InputError
from tests import published
from tests.rules import VECTORS, filled

SIX = [1e-4, 1e-3, 0.01, 0.05, 0.2]
BASES = {"c_gen.pth": "generator", "refiner.pth": "refiner"}
JOINED = published.lmnt(4, 2, 513)
SPLIT = published.cdiffuse(4, 2, 513)
FIXED = SPLIT | {key: shape for key, shape in JOINED.items() if ".output_projection." in key}
DOSE = published.dose(4, 2)


def single(shapes: published.Shapes) -> dict[str, Tensor]:
    return {key: value.float() for key, value in filled(shapes).items()}


def params(beta_max: float = 0.035, num_steps: int = 50, **more: Any) -> dict[str, Any]:
    """What the published trainer writes beside the weights."""
    betas = np.linspace(1e-4, beta_max, num_steps).tolist()
    return {"sample_rate": 16000, "n_mels": 80, "dilation_cycle_length": 10, "noise_schedule": betas, **more}


def written(folder: Path, state: dict[str, Tensor], said: dict[str, Any] | None = None) -> Path:
    """weights-<step>.pt as these projects write it."""
    path = folder / "weights-1000.pt"
    torch.save(
        {"step": 1000, "model": state, "optimizer": {}, "scaler": None} | ({"params": said} if said else {}), path
    )
    return path


def listed(name: str) -> dict[str, list[int]]:
    return json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))["keys_in_checkpoint_order"]


def hollow(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    return {key: torch.empty(tuple(shape), device="meta") for key, shape in shapes.items()}


def drafted(layout: str, state: dict[str, Tensor], asked: Asked | None = None, **around: Any) -> Imported:
    """The model without memory, checked to have all of the state's entries."""
    imported = assemble(layout, LAYOUTS[layout].draft(state, Clues(Path(), {}, **around)), asked or Asked())
    outline = imported.outline().state_dict()
    assert {key: value.shape for key, value in outline.items()} == {k: v.shape for k, v in imported.weights.items()}
    return imported


def numbers(imported: Imported) -> int:
    return sum(p.numel() for p in imported.outline().parameters())


def model_of(imported: Imported) -> torch.nn.Module:
    model = TASKS[imported.task][1](imported.config)
    model.load_state_dict(imported.weights)
    return model


@pytest.mark.parametrize(
    ("layout", "name", "parameters", "unread"),
    [
        ("cdiffuse", "keys_cdiffuse_base", 4282691, 0),
        ("diffuse", "keys_diffuse2021_split", 4282691, 0),
        ("diffuse", "keys_diffuse2021_joined", 4282691, 0),
        ("dose", "keys_dose", 2308932, 131),
    ],
)
def test_wave_networks_of_the_published_sizes(layout: str, name: str, parameters: int, unread: int) -> None:
    state = hollow(listed(name))
    assert LAYOUTS[layout].recognises(state)
    assert not LAYOUTS["lmnt"].recognises(state)
    imported = drafted(layout, state)
    assert numbers(imported) == parameters - unread
    back = LAYOUTS[layout].export(imported.outline().denoiser.backbone)
    if name != "keys_diffuse2021_split":  # DiffuSE's goes back in its joined form
        assert {key: list(value.shape) for key, value in back.items()} == listed(name)


def test_the_large_cdiffuse() -> None:
    imported = drafted("cdiffuse", published.hollow(published.cdiffuse(128, 30, 513)))
    assert numbers(imported) == 10210755
    assert imported.config.process == {"name": "interpolating", "num_steps": 200, "beta_min": 1e-4, "beta_max": 0.0095}


@pytest.mark.parametrize(("wiring", "parameters"), [("base", 1662565), ("concat", 1894001), ("dual", 3556566)])
def test_spectrum_networks_of_the_published_sizes(wiring: str, parameters: int) -> None:
    lists = json.loads((VECTORS / "keys_drdiffuse.json").read_text(encoding="utf-8"))
    state = hollow(lists[wiring])
    assert [name for name, layout in LAYOUTS.items() if layout.recognises(state)] == ["drdiffuse"]
    if wiring != "dual":
        lone = drafted("drdiffuse", state)
        assert (numbers(lone), lone.config.guidance) == (parameters, 0)
        return
    base = hollow(lists["base"])
    whole = drafted("drdiffuse", state, parts={"generator": base, "refiner": base})
    assert numbers(whole) == parameters + 2 * 1662565
    assert (whole.config.guidance, whole.config.start, whole.config.num_steps) == (0.5, "condition", 6)


def test_cards_hold_the_published_runs() -> None:
    chain = {"num_steps": 50, "beta_min": 1e-4}
    found = drafted("cdiffuse", hollow(listed("keys_cdiffuse_base"))).config
    assert found.process == {"name": "interpolating", "beta_max": 0.035, **chain}
    assert (found.prediction, found.sampler) == ({"name": "combined"}, {"name": "ddpm"})
    assert found.grid == {"name": "levels", "betas": [*SIX, 0.35]}
    assert (found.start, found.unit, found.clamp, found.keep_noisy) == ("noisy", "none", True, 0.2)
    assert (found.spectrum["name"], found.spectrum["n_fft"], found.spectrum["hop"]) == ("spectrum", 1024, 256)
    found = drafted("diffuse", hollow(listed("keys_diffuse2021_joined"))).config
    assert found.process == {"name": "vp", "beta_max": 0.05, **chain}
    assert (found.prediction, found.sampler) == ({"name": "noise"}, {"name": "supportive"})
    assert (found.grid["betas"], found.start, found.keep_noisy) == ([*SIX, 0.5], "noisy", 0.0)
    found = drafted("dose", hollow(listed("keys_dose"))).config
    assert found.process == {"name": "vp", "beta_max": 0.035, **chain}
    assert (found.prediction, found.sampler) == ({"name": "clean"}, {"name": "dose", "clamp": 1.0})
    assert (found.grid, found.num_steps) == ({"name": "steps", "steps": [35, 15]}, 2)
    # the sampler bounds each estimate; the states between, which are noisy, are not
    assert (found.start, found.unit, found.clamp, found.spectrum) == ("condition", "none", False, None)


PLAIN = ("num_steps", "start", "unit", "clamp", "keep_noisy", "guidance", "refine_with_noisy", "condition")


@pytest.mark.parametrize(
    ("recipe", "layout", "keys"),
    [
        ("cdiffuse/base", "cdiffuse", "keys_cdiffuse_base"),
        ("diffuse/base", "diffuse", "keys_diffuse2021_joined"),
        ("dose/vctk_demand", "dose", "keys_dose"),
        ("drdiffuse/vctk_demand_refiner", "drdiffuse", "dual"),
    ],
)
def test_a_converted_checkpoint_runs_as_the_recipe_s_model(recipe: str, layout: str, keys: str) -> None:
    lists = json.loads((VECTORS / "keys_drdiffuse.json").read_text(encoding="utf-8"))
    base = {part: hollow(lists["base"]) for part in ("generator", "refiner")} if layout == "drdiffuse" else {}
    state = hollow(lists[keys] if base else listed(keys))
    outlines = []
    for config in (drafted(layout, state, parts=base).config, RECIPES[recipe].model_config()):
        with torch.device("meta"):
            model = TASKS["enhance"][1](config)
        run = model.default_run()
        parts = {"process": model.process, "prediction": model.denoiser.prediction, "spectrum": model.spectrum}
        parts |= {"sampler": run.sampler, "grid": run.grid, "frontend": model.frontend}
        shapes = {key: value.shape for key, value in model.state_dict().items()}
        outlines.append((parts, [getattr(config, name) for name in PLAIN], shapes))
    assert outlines[0] == outlines[1]


@pytest.mark.parametrize(
    ("layout", "shapes"),
    [("cdiffuse", SPLIT), ("diffuse", JOINED), ("dose", DOSE)],
    ids=["cdiffuse", "diffuse", "dose"],
)
def test_weights_come_back_bit_by_bit(layout: str, shapes: published.Shapes, tmp_path: Path) -> None:
    state = single(shapes)
    imported = import_checkpoints([written(tmp_path, state, params(0.05 if layout == "diffuse" else 0.035))])
    assert imported.layout == layout
    assert export(model_of(imported), layout, tmp_path / "back.pt") == len(state)
    back = torch.load(tmp_path / "back.pt", weights_only=True)["model"]
    unread = [key for key in state if layout == "dose" and key.startswith(("input_projection", "compress_concat"))]
    assert all(torch.equal(back[key], value) for key, value in state.items() if key not in unread)
    assert not any(back[key].any() for key in unread)
    again = import_checkpoints([tmp_path / "back.pt"])
    assert again.weights.keys() == imported.weights.keys()
    assert all(torch.equal(again.weights[key], value) for key, value in imported.weights.items())


def test_the_three_forms_are_one_map(tmp_path: Path) -> None:
    joined = single(JOINED)
    split, fixed = dict(joined), dict(joined)
    for key in [key for key in joined if key.startswith("residual_layers.") and ".output_projection." in key]:
        residual, skip = joined[key].chunk(2)
        there = key.replace("output_projection", "output_residual")
        split |= {there: residual, key: skip}
        fixed |= {there: residual, key: torch.cat([torch.full_like(residual, 7.0), skip])}
    assert [{k: tuple(v.shape) for k, v in state.items()} for state in (split, fixed)] == [SPLIT, FIXED]
    models = [
        import_checkpoints([written(tmp_path, state, params(0.05))], layout).weights
        for state, layout in ((joined, "auto"), (split, "auto"), (fixed, "diffuse"))
    ]
    for key, value in models[0].items():
        assert all(torch.equal(other[key], value) for other in models[1:]), key


@pytest.mark.parametrize(
    ("said", "asked", "expected"),
    [
        (params(), "auto", ("cdiffuse", "interpolating")),
        (params(0.05), "auto", ("diffuse", "vp")),
        (params(0.05), "cdiffuse", ("cdiffuse", "interpolating")),
        (None, "auto", ("cdiffuse", "interpolating")),
        (None, "diffuse", ("diffuse", "vp")),
    ],
)
def test_the_schedule_tells_diffuse_from_cdiffuse(said, asked, expected, tmp_path: Path) -> None:
    imported = import_checkpoints([written(tmp_path, single(SPLIT), said)], asked)
    assert (imported.layout, imported.config.process["name"]) == expected


def test_what_the_file_says_goes_before_the_publication(tmp_path: Path) -> None:
    said = params(0.04, 40, inference_noise_schedule=[1e-4, 0.01, 0.3], sample_rate=8000)
    found = import_checkpoints([written(tmp_path, single(SPLIT), said)]).config
    assert found.process == {"name": "interpolating", "num_steps": 40, "beta_min": 1e-4, "beta_max": 0.04}
    assert (found.grid["betas"], found.num_steps) == ([1e-4, 0.01, 0.3], 3)
    assert (found.frontend["sample_rate"], found.spectrum["sample_rate"]) == (8000, 8000)


@pytest.mark.parametrize(
    ("asked", "field", "expected"),
    [
        (Asked(betas=(1e-4, 0.3)), "grid", {"name": "levels", "betas": [1e-4, 0.3]}),
        (Asked(betas=(1e-4, 0.3)), "num_steps", 2),
        (Asked(steps=50), "grid", {"name": "trained"}),
        (Asked(steps=50), "num_steps", 50),
        (Asked(schedule=Schedule(60, 0.03)), "process", Schedule(60, 0.03).process("interpolating")),
        (Asked(sample_rate=8000), "frontend", {"name": "wave", "sample_rate": 8000}),
        (Asked({"run.keep_noisy": 0.0}), "keep_noisy", 0.0),
    ],
)
def test_requests_reach_the_card(asked: Asked, field: str, expected: object, tmp_path: Path) -> None:
    imported = import_checkpoints([written(tmp_path, single(SPLIT))], asked=asked)
    assert getattr(imported.config, field) == expected
    assert not any("six steps" in note for note in imported.notes) or not (asked.betas or asked.steps)


def test_chosen_steps_of_dose(tmp_path: Path) -> None:
    imported = import_checkpoints([written(tmp_path, single(DOSE))], asked=Asked({"grid.steps": [40, 20, 10]}))
    assert (imported.config.grid["steps"], imported.config.num_steps) == ([40, 20, 10], 3)
    assert not any("steps 35" in note for note in imported.notes)


def test_pre_training_makes_a_vocoder(tmp_path: Path) -> None:
    imported = import_checkpoints([written(tmp_path, single(published.cdiffuse(4, 2, 80)), params())])
    assert (imported.task, imported.sample_rate, imported.config.mel["n_mels"]) == ("vocode", 16000, 80)
    assert imported.outline().state_dict().keys() == imported.weights.keys()


@pytest.mark.parametrize(("shapes", "calls"), [(SPLIT, 6), (JOINED, 6), (DOSE, 2)], ids=["cdiffuse", "diffuse", "dose"])
def test_a_converted_folder_enhances(shapes: published.Shapes, calls: int, tmp_path: Path) -> None:
    save(import_checkpoints([written(tmp_path, single(shapes))]), tmp_path / "m")
    enhancer = fromnoise.load(tmp_path / "m")
    assert enhancer.network_calls() == calls
    noisy = 0.1 * np.random.default_rng(0).standard_normal(3001).astype(np.float32)
    clean = enhancer(noisy, 16000, seed=1)
    assert clean.shape == noisy.shape
    assert np.isfinite(clean).all()
    assert 0 < np.abs(clean).max() <= 1
    assert np.array_equal(clean, enhancer(noisy, 16000, seed=1))


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    """asset/ as the published code expects it: a diffusion network and two regression networks."""
    root = tmp_path_factory.mktemp("DR-DiffuSE") / "asset"
    torch.manual_seed(0)
    for name, wiring in (("model/ddpm", "dual"), ("selected_model/c_gen", "base"), ("selected_model/refiner", "base")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        state = TCUNetConfig(wiring).build().state_dict()
        optimizer = {"optimizer_state_dict": state}  # as the published trainer of the diffusion network has it
        torch.save({"step": 3, "model_state_dict": state, **optimizer}, root / f"{name}.pth")
    return root


def test_three_files_become_one_model_and_three_files_again(release: Path, tmp_path: Path) -> None:
    found = import_checkpoints([release])
    assert found.files == (release / "model" / "ddpm.pth",)
    assert found.parts == {part: release / "selected_model" / name for name, part in BASES.items()}
    facts = save(found, tmp_path / "m")
    assert [file.get("part") for file in facts["files"]] == [None, "generator", "refiner"]
    assert "`c_gen.pth`, its generator, SHA-256" in (tmp_path / "m" / "README.md").read_text(encoding="utf-8")
    model = fromnoise.load(tmp_path / "m").model
    back = tmp_path / "back"
    assert export(model, "drdiffuse", back) == 1488 + 2 * 726
    for path in release.glob("*/*.pth"):
        state, kept = (torch.load(p, weights_only=True)["model_state_dict"] for p in (path, back / path.name))
        assert state.keys() == kept.keys()
        assert all(torch.equal(kept[key], value) for key, value in state.items())
        part = BASES.get(path.name)
        prefix = f"{part}." if part else PREFIX
        assert all(torch.equal(found.weights[prefix + key], value) for key, value in state.items())


def test_a_regression_network_is_an_enhancer_of_one_call(release: Path, tmp_path: Path) -> None:
    save(import_checkpoints([release / "selected_model" / "c_gen.pth"]), tmp_path / "m")
    enhancer = fromnoise.load(tmp_path / "m")
    assert enhancer.network_calls() == 1
    assert enhancer(np.ones(500, np.float32), 16000).shape == (500,)
    assert export(enhancer.model, "drdiffuse", tmp_path / "back.pth") == 726


def test_a_schedule_of_another_length_lengthens_the_table_of_steps(release: Path) -> None:
    content = torch.load(release / "model" / "ddpm.pth", weights_only=True)
    clues = Clues(Path(), content, told=Schedule(300, 0.04))
    plan = LAYOUTS["drdiffuse"].draft(content["model_state_dict"], clues)
    assert isinstance(plan, Plan)
    assert plan.config["backbone"] == {"name": "tcunet", "wiring": "dual", "num_steps": 300}


def refused(words: str, *arguments: Any, **options: Any) -> None:
    with pytest.raises(InputError, match=words):
        import_checkpoints(*arguments, **options)


def test_files_that_do_not_belong_together(release: Path, tmp_path: Path) -> None:
    ddpm, base = release / "model" / "ddpm.pth", release / "selected_model" / "c_gen.pth"
    wave = written(tmp_path, single(SPLIT))
    refused("its network is a regression, which takes no refiner", [base], parts={"refiner": base})
    refused("its generator is a diffusion network", [ddpm], parts={"generator": ddpm})
    refused("leave --generator away", [wave], parts={"generator": base})
    refused("is not of the layout 'drdiffuse', whose generator it should be", [ddpm], parts={"generator": wave})
    refused(r"nowhere\.pth cannot be read \(No such file", [ddpm], parts={"generator": tmp_path / "nowhere.pth"})


def test_folders_that_do_not_say_which_files(release: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused("is a folder; expected a checkpoint file", [tmp_path / "empty"])
    for name in BASES:
        (tmp_path / name).symlink_to(release / "selected_model" / name)
    refused("holds no ddpm.pth, the diffusion network", [tmp_path])
    (tmp_path / "refiner.pth").unlink()
    assert import_checkpoints([tmp_path]).config.backbone["wiring"] == "base"
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "c_gen.pth").symlink_to(tmp_path / "c_gen.pth")
    refused("holds several c_gen.pth", [tmp_path])


@pytest.mark.parametrize(
    ("shapes", "asked", "words"),
    [
        (SPLIT, Asked(betas=(1e-4, 0.9)), r"levels within the trained range 0\.41\d* to 0\.9999, got"),
        (DOSE, Asked({"grid.steps": [60, 15]}), r"expected steps from 0 to 49, as trained, got \[60\]"),
        (SPLIT, Asked(steps=51), "expected 1 to 50 steps"),
        (SPLIT, Asked(betas=(1e-4, 0.3), steps=3), "--betas names 2 steps and --steps 3"),
        (SPLIT, Asked({"run.keep": 0.2}), "unknown setting 'keep'; known:.*keep_noisy"),
        (SPLIT, Asked({"run.start": "late"}), "start must be"),
        (SPLIT, Asked({"generator.wiring": "base"}), "this model has no part 'generator'; its parts are: frontend"),
        (SPLIT, Asked({"channels": 3}), "backbone 'wavenet' has no setting 'channels'"),
        (SPLIT, Asked(mel="tacotron2-22k"), "has no mel; leave --mel away"),
    ],
)
def test_requests_that_no_run_could_follow(shapes, asked: Asked, words: str, tmp_path: Path) -> None:
    refused(words, [written(tmp_path, single(shapes))], asked=asked)


@pytest.mark.parametrize("shapes", [SPLIT, JOINED, DOSE, FIXED], ids=["split", "joined", "dose", "fixed"])
def test_an_incomplete_or_foreign_file(shapes: published.Shapes, tmp_path: Path) -> None:
    state = single(shapes)
    for key in itertools.islice((key for key in state if key.startswith("residual_layers.1.")), 3):
        less = {other: value for other, value in state.items() if other != key}
        refused("lacks", [written(tmp_path, less)], layout="dose" if shapes == DOSE else "diffuse")
    refused("holds 1 entries that the published", [written(tmp_path, state | {"extra.weight": torch.ones(1)})])
    state["skip_projection.bias"] = torch.full((4,), torch.nan)
    refused("holds NaN or infinity", [written(tmp_path, state)])


def test_models_that_a_layout_cannot_hold(tmp_path: Path) -> None:
    cdiffuse = model_of(import_checkpoints([written(tmp_path, single(SPLIT))]))
    dose = model_of(import_checkpoints([written(tmp_path, single(DOSE))]))
    for model, layout, words in (
        (cdiffuse, "dose", "the layout 'dose' is for .* with one signal beside x"),
        (dose, "cdiffuse", "the layout 'cdiffuse' is for .* with no signal beside x"),
        (dose, "lmnt", "the layout 'lmnt' is for"),
        (dose, "philsyn", "the layout 'philsyn' is for"),
        (cdiffuse, "drdiffuse", "the layout 'drdiffuse' is for a tcunet with batch norms"),
    ):
        with pytest.raises(InputError, match=words):
            export(model, layout, tmp_path / "x.pt")
    assert not (tmp_path / "x.pt").exists()
