"""`fromnoise train`: Hydra's grammar, one sentence per mistake, runs, sweeps and resuming."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from fromnoise import hub
from fromnoise.cli import main
from fromnoise.data import audio
from fromnoise.processes import OUVE, Bridge
from fromnoise.recipes import RECIPES
from fromnoise.recipes.compose import compose, sweep
from fromnoise.tasks.losses import SpectralLoss
from fromnoise.training.tasks import EnhanceTask
from fromnoise.types import InputError

TINY = RECIPES["debug/tiny"]
SHORT = ["trainer.max_epochs=1", "trainer.steps_per_epoch=2", "logger=csv"]


def test_values_parts_lists_additions_and_deletions_are_understood():
    arguments = ["process=ouve", "process.sigma_min=0.1", "seed=3", "optimisation.learning_rate=1", "~loss"]
    arguments += ["trainer.steps_per_epoch=1e3", "+refiner=tcunet", "refiner.norm=instance", "scores=[si_sdr,stoi]"]
    recipe = compose(TINY, [*arguments, "folder='runs/a (b)'"])
    assert recipe.process == OUVE(sigma_min=0.1)
    assert (recipe.seed, recipe.optimisation.learning_rate, recipe.trainer.steps_per_epoch) == (3, 1.0, 1000)
    assert (recipe.refiner.norm, recipe.loss, recipe.scores) == ("instance", None, ("si_sdr", "stoi"))
    assert recipe.folder == "runs/a (b)"


def test_a_part_named_again_keeps_the_recipes_settings_and_another_one_has_its_own():
    base = RECIPES["drdiffuse/base_small"]
    assert compose(base, ["process=flow"]).process == base.process
    assert compose(base, ["process=bridge"]).process == Bridge()
    assert compose(base, ["loss.magnitude=0.2"]).loss == SpectralLoss(0.2)


def test_environment_and_cross_references_are_filled_in(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CORPUS", "/corpus")
    recipe = compose(
        RECIPES["drdiffuse/vctk_demand_base"], ["data.root=${oc.env:CORPUS}", "data.seconds=${data.valid_seconds}"]
    )
    assert (recipe.data.root, recipe.data.seconds) == ("/corpus", 3.0)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("proces=ouve", r"no setting 'proces'; choose one of: .*\bprocess\b"),
        ("process=ouv", r"unknown process 'ouv'; choose one of: vp, vp_angular, interpolating, ve, ouve, bridge, flow"),
        ("process.sigmamin=1", r"process has no setting 'sigmamin'; choose one of: k, c, eps, t_min"),
        ("+process.sigma=1", r"process has no setting 'sigma'; choose one of: .*eps"),
        ("trainer.max_epochs=many", r"trainer.max_epochs must be a whole number, got 'many'"),
        ("trainer.max_epochs=1.5", r"trainer.max_epochs must be a whole number, got 1.5"),
        ("optimisation.learning_rate=nan", r"learning_rate must be a finite number, got nan"),
        ("trainer.deterministic=1", r"trainer.deterministic must be true or false, got 1"),
        ("trainer.precision=fast", r"trainer.precision must be one of 32-true, .*, got 'fast'"),
        ("scores=si_sdr", r"scores must be a list like \[a,b\], got 'si_sdr'"),
        ("refiner.norm=instance", r"this recipe has no refiner; choose it by refiner=NAME"),
        ("process.k=0", r"expected k > 1"),
        ("trainer.devices=0", r"trainer.devices must be at least 1"),
        ("~process", r"a recipe needs process"),
        ("seed=1,2", r"seed=1,2 is a sweep; add --multirun"),
        ("a b", r"cannot read 'a b'; expected key=value"),
        ("seed.deep=1", r"seed is one value"),
        ("trainer=3", r"trainer must hold settings"),
        ("process={name: ouve}", r"process is chosen by its name"),
        ("seed=${nothing}", r"Interpolation key .nothing. not found"),
    ],
)
def test_a_mistake_is_one_sentence_that_says_what_may_stand_there(argument: str, message: str):
    with pytest.raises(InputError, match=message) as error:
        compose(TINY, [argument])
    assert "\n" not in str(error.value)


def test_sweep_is_every_combination_and_leaves_lists_alone():
    jobs = list(sweep(["seed=1,2", "process=ouve,bridge", "scores=[a,b]", "guidance=range(0,2)"]))
    assert len(jobs) == 8
    assert jobs[0] == ["seed=1", "process=ouve", "scores=[a,b]", "guidance=0"]
    assert jobs[-1] == ["seed=2", "process=bridge", "scores=[a,b]", "guidance=1"]


def test_cfg_prints_the_edited_settings_and_trains_nothing(capsys, monkeypatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "recipe=debug/tiny", "process=ouve", "process.sigma_min=0.1", "--cfg", "job"]) == 0
    shown = capsys.readouterr().out
    assert "process:\n  name: ouve\n" in shown
    assert "  sigma_min: 0.1\n" in shown
    assert not list(tmp_path.iterdir())


def test_list_names_every_recipe(capsys):
    assert main(["train", "--list"]) == 0
    assert capsys.readouterr().out.split() == list(RECIPES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected one recipe=NAME, got none; choose one of: "),
        (["recipe=debug/tyni"], "got 'debug/tyni'; choose one of: "),
        (["runs/nowhere"], "runs/nowhere: no such run folder"),
        (["recipe=drdiffuse/base_small"], "no such folder, sound file or list; correct data.root"),
        (["recipe=debug/tiny", "proces=x"], "no setting 'proces'"),
        (["recipe=debug/tiny", "--cfg", "all"], "--cfg shows 'job'"),
        (["recipe=debug/tiny", "trainer.accelerator=gpu", "trainer.devices=99"], "expected 99 gpu devices"),
        (["recipe=debug/tiny", "init.backbone=runs/no/where"], "no model 'runs/no/where'"),
    ],
)
def test_a_wrong_request_exits_with_2_and_one_sentence(capsys, monkeypatch, tmp_path: Path, arguments, message: str):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
def test_missing_logger_is_named_with_its_installation_before_a_folder_is_made(capsys, tmp_path: Path):
    assert main(["train", "recipe=debug/tiny", "logger=wandb", f"folder={tmp_path / 'run'}"]) == 2
    assert "pip install 'fromnoise[wandb]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_sweep_makes_a_run_folder_each_and_reports_in_json(capsys, monkeypatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    arguments = ["recipe=debug/tiny", *SHORT, "seed=1,2", "--multirun", "--json"]
    assert main(["train", *arguments]) == 0
    outcomes = json.loads(capsys.readouterr().out)
    folders = [Path(outcome["folder"]) for outcome in outcomes]
    assert len(set(folders)) == 2
    assert all(folder.parent == Path("runs/debug/tiny") for folder in folders)
    assert [hub.read_card(folder)["recipe"]["overrides"][-1] for folder in folders] == ["seed=1", "seed=2"]
    assert outcomes[0]["steps"] == 2
    assert outcomes[0]["best"] != outcomes[1]["best"]


def test_interrupted_command_exits_with_130_and_goes_on_by_its_folder(capsys, monkeypatch, tmp_path: Path):
    original, calls = EnhanceTask.loss, [0]

    def loss(self, batch, generator):
        calls[0] += 1
        if calls[0] == 4:  # two steps, one validation, and into the second epoch
            raise KeyboardInterrupt
        return original(self, batch, generator)

    folder = tmp_path / "run"
    arguments = ["recipe=debug/tiny", "trainer.max_epochs=2", "trainer.steps_per_epoch=2", "logger=csv"]
    with monkeypatch.context() as patch:
        patch.setattr(EnhanceTask, "loss", loss)
        assert main(["train", *arguments, f"folder={folder}"]) == 130
    assert f"continue after the last whole epoch by: fromnoise train {folder}" in capsys.readouterr().err
    assert main(["train", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 4
    # longer than planned, by the other spelling
    assert main(["train", f"resume={folder}", "trainer.max_epochs=3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 6
    assert hub.read_card(folder)["recipe"]["overrides"][-1] == "trainer.max_epochs=3"
    assert main(["train", str(folder), "recipe=debug/tiny"]) == 2


def test_paired_folder_trains_with_any_recipe_and_its_table_is_shown(capsys, tmp_path: Path):
    draw = np.random.default_rng(0)
    for name in ("p226_001", "p1_001", "p1_002"):
        clean = 0.1 * draw.standard_normal((1, 4000)).astype(np.float32)
        for side, wave in (("clean", clean), ("noisy", clean + 0.05 * draw.standard_normal(clean.shape))):
            (tmp_path / side).mkdir(exist_ok=True)
            audio.write(tmp_path / side / f"{name}.wav", wave.astype(np.float32), 16000)
    arguments = ["recipe=debug/tiny", *SHORT, "data=paired", f"data.root={tmp_path}", "data.seconds=0.2"]
    assert main(["train", *arguments, "data.valid_seconds=0.2", f"folder={tmp_path / 'run'}"]) == 0
    shown = capsys.readouterr().out
    assert [word in shown for word in ("train clean", "valid noisy", "16000", "done:")] == [True] * 4
    card = hub.read_card(tmp_path / "run")
    assert card["data"]["name"] == "paired"
    assert str(tmp_path) not in json.dumps(card)
