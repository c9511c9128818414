"""Training: exact resume, equal results on two processes, averaging, taking weights over, and what a run leaves."""

import csv
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fromnoise import hub
from fromnoise.backbones import TCUNetConfig
from fromnoise.data.synthetic import Synthetic
from fromnoise.objectives import FixedTime
from fromnoise.processes import Flow
from fromnoise.recipes import RECIPES, Init, Recipe, from_tree, to_tree
from fromnoise.samplers import Euler, Uniform
from fromnoise.tasks.enhancement_model import EnhancementModel, TheGenerator
from fromnoise.tasks.losses import SpectralLoss
from fromnoise.training import folder as folders
from fromnoise.training.callbacks import HalvingRule, picture
from fromnoise.training.init import initialise, read_source
from fromnoise.training.loaders import EpochSampler
from fromnoise.training.module import TrainingModule, generator
from fromnoise.training.run import Interrupted, Voice, _averaging, task_of, train
from fromnoise.training.settings import Optimisation, TrainerSettings
from fromnoise.training.tasks import EnhanceTask
from fromnoise.types import Condition, InputError

ROOT = Path(__file__).parents[2]
TINY = RECIPES["debug/tiny"]
SILENT = Voice(lambda text: None)


def run(recipe: Recipe, folder: Path, resume: bool = False):
    """Train in a folder."""
    if resume:
        return train(folders.read_run(folder)[0], (), folder, SILENT)
    return train(replace(recipe, folder=str(folder)), (), None, SILENT)


def with_trainer(recipe: Recipe, **settings) -> Recipe:
    return replace(recipe, trainer=replace(recipe.trainer, **settings))


def checkpoint(folder: Path, name: str = "last") -> dict:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


def curve(folder: Path, part: int = 0, column: str = "train/loss") -> list[float]:
    """A logged column, in order."""
    with (folder / f"logs/csv-{part}/metrics.csv").open() as table:
        return [float(row[column]) for row in csv.DictReader(table) if row.get(column)]


def equal(a: dict, b: dict) -> bool:
    """Whether two state dictionaries agree to the last bit."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished debug run."""
    folder = tmp_path_factory.mktemp("whole")
    run(TINY, folder)
    return folder


def stop_in_step(number: int, how):
    """A loss that calls `how` in training step `number`."""
    original, count = EnhanceTask.loss, [0]

    def loss(self, batch, generator):
        if torch.is_grad_enabled():
            count[0] += 1
            if count[0] == number:
                how()
        return original(self, batch, generator)

    return loss


def press_ctrl_c():
    raise KeyboardInterrupt


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("how", "code"), [(press_ctrl_c, 130), (terminate, 143)])
def test_interrupted_and_resumed_run_equals_the_uninterrupted_one_bit_for_bit(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how, code: int
):
    before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background
    with monkeypatch.context() as patch:
        patch.setattr(EnhanceTask, "loss", stop_in_step(7, how))  # the middle of the second epoch of four steps
        with pytest.raises(Interrupted, match="fromnoise train") as stop:
            run(TINY, tmp_path)
    assert stop.value.code == code
    assert checkpoint(tmp_path)["global_step"] == 4
    assert not (tmp_path / "model.safetensors").exists()
    report = run(TINY, tmp_path, resume=True)
    assert report.steps == 12
    for name in ("best", "last"):
        ours, theirs = checkpoint(tmp_path, name), checkpoint(whole, name)
        assert equal(ours["state_dict"], theirs["state_dict"])
        assert equal(ours["current_model_state"], theirs["current_model_state"])
    assert equal(load_file(tmp_path / "model.safetensors"), load_file(whole / "model.safetensors"))
    assert curve(tmp_path, part=1) == curve(whole)[4:]
    assert signal.getsignal(signal.SIGINT) is before


def test_run_stopped_in_its_first_epoch_starts_anew_and_a_finished_one_stays(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr(EnhanceTask, "loss", stop_in_step(2, press_ctrl_c))
        with pytest.raises(Interrupted):
            run(TINY, tmp_path)
    assert folders.last_checkpoint(tmp_path) is None
    run(TINY, tmp_path, resume=True)
    before = load_file(tmp_path / "model.safetensors")
    assert equal(before, load_file(whole / "model.safetensors"))
    assert run(TINY, tmp_path, resume=True).steps == 12
    assert equal(before, load_file(tmp_path / "model.safetensors"))


# In float64 the order of sums is lost in the last digits, and Adam's epsilon (1e-8) hides it where the gradient is 0.
EXACT = with_trainer(
    replace(
        TINY,
        backbone=TCUNetConfig("base", norm="instance"),  # statistics per item: no batch to depend on
        process=Flow("observation", 0.0),
        sampler=Euler(),
        grid=Uniform(),
        num_steps=1,
        times=FixedTime(1.0),
        data=Synthetic(seconds=0.05),
        logger="csv",
    ),
    precision="64-true",
    max_epochs=1,
    steps_per_epoch=2,
    batch_size=4,
)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps with four items each on one process."""
    folder = tmp_path_factory.mktemp("single")
    run(EXACT, folder)
    return folder


def assert_same_training(folder: Path, reference: Path) -> None:
    ours, theirs = load_file(folder / "model.safetensors"), load_file(reference / "model.safetensors")
    assert all(torch.allclose(ours[k], theirs[k], rtol=0, atol=1e-7) for k in theirs)  # float32 storage of O(1) weights
    assert curve(folder, column="valid/loss") == pytest.approx(curve(reference, column="valid/loss"), rel=1e-6)


def test_two_accumulated_halves_make_the_same_step_as_one_batch(single: Path, tmp_path: Path):
    run(with_trainer(EXACT, batch_size=2, accumulate_grad_batches=2), tmp_path)
    assert_same_training(tmp_path, single)


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_same_global_batch(single: Path, tmp_path: Path):
    script = tmp_path / "script.py"  # distributed processes are started as the script that began the first
    script.write_text("import sys\nfrom fromnoise.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n")
    folder = tmp_path / "run"
    arguments = "backbone=tcunet backbone.norm=instance process=flow process.start=observation process.sigma=0 "
    arguments += "sampler=euler grid=uniform num_steps=1 times=fixed data.seconds=0.05 logger=csv "
    arguments += "trainer.precision=64-true trainer.max_epochs=1 trainer.steps_per_epoch=2 trainer.batch_size=2 "
    arguments += f"trainer.accelerator=cpu trainer.devices=2 trainer.strategy=ddp folder={folder}"
    outcome = subprocess.run(
        [sys.executable, str(script), "train", "recipe=debug/tiny", *arguments.split()],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.count("done:") == 1
    assert_same_training(folder, single)
    assert curve(folder) == pytest.approx(curve(single), rel=1e-6)


@pytest.mark.parametrize("rank", [0, 1])
def test_sampler_deals_the_items_of_an_epoch_to_devices_in_slices(rank: int):
    settings = TrainerSettings(devices=2, batch_size=3, steps_per_epoch=2, accumulate_grad_batches=2)
    sampler = EpochSampler(settings, rank)
    sampler.set_epoch(5)
    own = [k for step in range(4) for k in range(120 + 6 * step + 3 * rank, 120 + 6 * step + 3 * rank + 3)]
    assert list(sampler) == own
    assert len(sampler) == 12


def test_averaged_weights_are_the_moving_average_and_are_what_is_exported(tmp_path: Path):
    steady = replace(TINY, optimisation=Optimisation(schedule="constant", warmup_steps=0, ema=0.0), logger="csv")
    averaged = replace(steady, optimisation=replace(steady.optimisation, ema=0.75))
    run(with_trainer(steady, max_epochs=1, steps_per_epoch=1), tmp_path / "one")
    run(with_trainer(averaged, max_epochs=1, steps_per_epoch=2), tmp_path / "two")
    first, second = checkpoint(tmp_path / "one")["state_dict"], checkpoint(tmp_path / "two")
    for name, value in second["state_dict"].items():
        if value.is_floating_point():
            expected = 0.75 * first[name] + 0.25 * second["current_model_state"][name]
            torch.testing.assert_close(value, expected, rtol=0, atol=1e-6)  # one rounding of O(1) float32
    exported = load_file(tmp_path / "two" / "model.safetensors")
    assert equal({f"model.{k}": v for k, v in exported.items()}, checkpoint(tmp_path / "two", "best")["state_dict"])


@pytest.mark.parametrize("rule", [{}, {"ema_warmup": True}, {"ema_power": 0.7}], ids=str)
def test_averages_of_what_stands_still_are_it_to_the_last_bit(rule: dict[str, float]):
    """An autoencoder, a table of frequencies. As decay a + (1 - decay) w they had moved by 2e-5 in 9,000 steps."""
    mean = _averaging(Optimisation(ema=0.999, **rule))._kwargs["avg_fn"]
    still = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    average = still
    for n in range(1, 1000):
        average = mean(average, still, torch.tensor(n))
    assert torch.equal(average, still)


def test_debug_run_learns_and_is_a_model_folder(whole: Path):
    losses = curve(whole, column="valid/loss")
    assert losses[2] < losses[1] < losses[0]
    enhancer = hub.load(whole)
    noisy = np.random.default_rng(0).standard_normal(4000).astype(np.float32) * 0.1
    clean = enhancer(noisy, sample_rate=16000, seed=0)
    assert clean.shape == noisy.shape
    assert not np.allclose(clean, noisy)
    card = hub.read_card(whole)
    assert (card["name"], card["licence"], card["sample_rate"]) == ("debug", "MIT", 16000)
    assert card["recipe"]["name"] == "debug/tiny"


def test_run_folder_can_be_loaded_before_its_end(whole: Path, tmp_path: Path):
    (tmp_path / "checkpoints").mkdir()
    for part in ("card.json", "checkpoints/best.ckpt"):
        (tmp_path / part).write_bytes((whole / part).read_bytes())
    assert equal(hub.load(tmp_path).model.state_dict(), hub.load(whole).model.state_dict())


def test_tensorboard_holds_losses_sounds_and_pictures(whole: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(whole / "logs/tensorboard"))
    board.Reload()
    tags = board.Tags()
    assert {"train/loss", "valid/loss", "valid/si_sdr"} <= set(tags["scalars"])
    assert tags["audio"] == ["item0/noisy", "item0/estimate", "item0/clean"]
    assert [event.step for event in board.Images("item0/noisy, estimate, clean")] == [4, 8, 12]


def test_picture_stacks_spectrograms_with_low_frequencies_at_the_bottom():
    low = np.sin(2 * np.pi * 500 / 16000 * np.arange(8000))
    image = picture([low, np.zeros(8000)], 16000)
    height = image.shape[1] // 2
    assert image[0, :height].mean(1).argmax() > 0.9 * height  # 500 of 8000 Hz
    assert image.max() == 1
    assert not image[0, height:].any()


def test_mixed_precision_trains(tmp_path: Path):
    report = run(with_trainer(TINY, precision="bf16-mixed", max_epochs=1, gradient_clip_val=0.0), tmp_path)
    assert report.best is not None
    assert np.isfinite(report.best)
    assert checkpoint(tmp_path)["state_dict"]["model.denoiser.backbone.head.weight"].dtype == torch.float32


def test_learning_rate_of_the_cosine_warms_up_and_ends_at_its_final_share():
    curve = Optimisation(warmup_steps=10, final=0.1)
    assert curve.factor(0, 100) == pytest.approx(0.1)
    assert curve.factor(50, 100) == pytest.approx(0.55)
    assert curve.factor(100, 100) == pytest.approx(0.1)
    assert Optimisation(schedule="constant", warmup_steps=4).factor(1, 100) == 0.5


def test_halving_rule_halves_at_exactly_three_failures_in_a_row_and_stops_at_five():
    rule = HalvingRule("valid/loss", "min")
    # better, worse 1, 2, 3, better than the previous (not than the best), worse 1 ... 5
    values = (5.0, 4.0, 4.5, 4.5, 4.6, 4.2, 4.3, 4.3, 4.3, 4.4, 4.5)
    answers = [rule.update(value) for value in values]
    assert [halve for halve, _ in answers] == [False] * 4 + [True] + [False] * 3 + [True] + [False] * 2
    assert [stop for _, stop in answers] == [False] * 10 + [True]
    other = HalvingRule("valid/loss", "min")
    other.load_state_dict(rule.state_dict())
    assert (other.previous, other.failures) == (4.5, 5)
    rising = HalvingRule("valid/si_sdr", "max")
    assert [rising.update(value)[0] for value in (1.0, 2.0, 1.5, 1.4, 1.3)] == [False] * 4 + [True]


def test_halved_learning_rate_outlives_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = replace(TINY, optimisation=Optimisation("adam", 1e-3, schedule="halving"), logger="csv")
    monkeypatch.setattr(HalvingRule, "update", lambda self, value: (True, False))
    with monkeypatch.context() as patch:
        patch.setattr(EnhanceTask, "loss", stop_in_step(6, press_ctrl_c))
        with pytest.raises(Interrupted):
            run(recipe, tmp_path)
    run(recipe, tmp_path, resume=True)
    assert curve(tmp_path, 1, "train/lr") == pytest.approx([5e-4] * 4 + [2.5e-4] * 4)


def test_stop_of_the_halving_rule_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(HalvingRule, "update", lambda self, value: (False, True))
    recipe = replace(TINY, optimisation=Optimisation(schedule="halving"), logger="csv")
    assert run(recipe, tmp_path).steps == 4


def test_plain_progress_says_one_line_per_logged_step_however_many_batches_it_has(tmp_path: Path):
    said: list[str] = []
    recipe = with_trainer(TINY, max_epochs=1, accumulate_grad_batches=2, log_every_n_steps=2, batch_size=1)
    train(replace(recipe, folder=str(tmp_path)), (), None, Voice(said.append))
    starts = [" ".join(line.split(" ")[:4]) for line in said]
    assert said[0] == f"training debug/tiny in {tmp_path}"
    assert starts[1:3] == ["epoch 1 step 2/4", "epoch 1 step 4/4"]
    assert said[3].startswith("epoch 1 valid/loss ")
    assert len(said) == 4


# Taking weights over.


def model_with(backbone: TCUNetConfig, **parts) -> EnhancementModel:
    recipe = replace(TINY, backbone=backbone, **parts)
    torch.manual_seed(1)
    model = EnhancementModel(recipe.model_config())
    with torch.no_grad():  # no two networks alike, and running statistics that are not 0 and 1
        for name, value in model.state_dict().items():
            if "running" in name:
                value.uniform_(0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[EnhancementModel, Path]:
    """A regression model and its checkpoint."""
    model = model_with(TCUNetConfig("base"))
    path = tmp_path_factory.mktemp("base") / "base.ckpt"
    torch.save({"state_dict": {f"model.{k}": v for k, v in model.state_dict().items()}}, path)
    return model, path


@pytest.mark.parametrize("wiring", ["concat", "dual"])
def test_conditional_network_started_from_a_base_computes_the_base_of_its_condition(base, wiring):
    regression, path = base
    model = model_with(TCUNetConfig(wiring))
    (taken,) = initialise(model, {"backbone": str(path)})
    assert taken.count >= 726
    assert all(".tp" in name or name.startswith(("time_embedding", "preprocess")) for name in taken.fresh)
    y, x = torch.randn(1, 2, 161, 8), torch.randn(1, 2, 161, 8)
    t = torch.tensor([17.0])
    with torch.no_grad():
        expected = regression.denoiser.backbone(y, t, Condition())
        got = model.denoiser.backbone(x, t, Condition(signal=y))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)  # float32, one more 1x1 convolution


def test_generator_and_refiner_take_the_backbone_of_a_base_and_the_part_of_a_diffusion_model(base, tmp_path: Path):
    regression, path = base
    network = TCUNetConfig("base")
    model = model_with(network, generator=network, refiner=network)
    parts = [taken.part for taken in initialise(model, {"generator": str(path)})]
    assert parts == ["generator", "refiner"]
    assert equal(model.generator.state_dict(), regression.denoiser.backbone.state_dict())
    assert equal(model.refiner.state_dict(), model.generator.state_dict())
    with torch.no_grad():
        model.generator.en.conv1.conv1.weight.add_(1)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other = model_with(network, generator=network)
    initialise(other, {"generator": str(tmp_path / "model.safetensors")})
    assert equal(other.generator.state_dict(), model.generator.state_dict())


def test_missing_or_foreign_weights_are_errors(base, tmp_path: Path):
    _, path = base
    network = TCUNetConfig("base")
    with pytest.raises(InputError, match=r"nowhere"):
        initialise(model_with(network), {"backbone": str(tmp_path / "nowhere")})
    with pytest.raises(InputError, match=r"needs a trained generator; set init.generator="):
        initialise(model_with(network, generator=network), {})
    with pytest.raises(InputError, match=r"this recipe has no refiner"):
        initialise(model_with(network), {"refiner": str(path)})
    save_file({"denoiser.backbone.foreign": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"none of its 1 tensors fits"):
        initialise(model_with(network), {"backbone": str(tmp_path / "x.safetensors")})
    (tmp_path / "broken.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="cannot be read"):
        read_source(str(tmp_path / "broken.ckpt"))
    assert equal(read_source(str(path)), base[0].state_dict())


def test_run_takes_over_what_init_names_and_says_so(whole: Path, tmp_path: Path):
    said: list[str] = []
    recipe = with_trainer(replace(TINY, init=Init(backbone=str(whole)), folder=str(tmp_path)), max_epochs=1)
    train(recipe, [f"init.backbone={whole}", "seed=0"], None, Voice(said.append))
    assert said[0] == f"took over backbone: 108 of 108 tensors from {whole}"
    assert curve(tmp_path)[0] < curve(whole)[0]
    assert hub.read_card(tmp_path)["recipe"]["overrides"] == ["seed=0"]  # no paths of this machine


# The refiner.


def test_refiner_stage_moves_the_refiner_alone_and_its_validation_changes_nothing():
    recipe = replace(TINY, task="refine", generator=TINY.backbone, refiner=TINY.backbone, guidance=0.5)
    torch.manual_seed(0)
    model = EnhancementModel(recipe.model_config())
    task = task_of(recipe, model)
    module = TrainingModule(task, recipe.optimisation, 0, 10, (), 16000)
    optimiser = module.configure_optimizers()["optimizer"]
    items = [recipe.data.train(0)[k] for k in range(2)]
    batch = {name: torch.stack([item[name] for item in items]) for name in items[0]}
    before = {k: v.clone() for k, v in model.state_dict().items()}
    task.loss(batch, generator(0)).mean().backward()
    optimiser.step()
    after = {k: v.clone() for k, v in model.state_dict().items()}
    assert {k.split(".")[0] for k in before if not torch.equal(before[k], after[k])} == {"refiner"}
    model.eval()
    with torch.no_grad():
        losses = [task.valid_loss(batch, generator(0), [3, 4]) for _ in range(2)]
    assert torch.equal(*losses)
    assert equal(after, model.state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "refine"}, "needs a refiner"),
        ({"task": "refine", "refiner": TINY.backbone}, "set init.backbone="),
        ({"task": "refine", "refiner": TINY.backbone, "loss": SpectralLoss(wave=0.5)}, "set loss.wave=0"),
        ({"task": "refine", "refiner": TINY.backbone, "loss": SpectralLoss(si_sdr=0.01)}, "loss.si_sdr=0"),
        ({"generator": TINY.backbone}, "set init.generator="),
        ({"data": Synthetic(sample_rate=8000)}, "expected one rate"),
        ({"scores": ("si_sdr", "sdri")}, "unknown metric 'sdri'"),
        ({"trainer": TrainerSettings(monitor="valid/pesq")}, "must be one of valid/loss, valid/si_sdr"),
    ],
)
def test_impossible_recipe_is_refused_before_a_folder_is_made(tmp_path: Path, changes, message: str):
    with pytest.raises(ValueError, match=message):
        run(replace(TINY, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Recipes.


ENHANCERS = {name: recipe for name, recipe in RECIPES.items() if recipe.verb == "enhance"}


@pytest.mark.parametrize("recipe", ENHANCERS.values(), ids=ENHANCERS)
def test_every_recipe_survives_its_tree_and_builds_its_model_and_default_run(recipe: Recipe):
    assert from_tree(to_tree(recipe)) == recipe
    with torch.device("meta"):
        model = EnhancementModel(recipe.model_config())
    chosen = model.default_run()
    times = chosen.grid.times(model.process, chosen.num_steps)
    assert len(times) == recipe.num_steps + 1
    refined = "generator" if recipe.refiner == TheGenerator() else "refiner"
    moved = refined if recipe.task == "refine" else "denoiser"
    assert task_of(recipe, model).trained == ("" if recipe.joint or recipe.through else moved)
    assert recipe.objective().times == recipe.times


def test_published_numbers_stand_in_the_drdiffuse_recipes():
    vctk, diffuse = RECIPES["drdiffuse/vctk_demand_base"], RECIPES["drdiffuse/diffuse_small"]
    o = vctk.optimisation
    assert (o.optimiser, o.learning_rate, o.weight_decay, o.schedule, o.ema) == ("adam", 1e-3, 1e-7, "halving", 0.0)
    assert (vctk.trainer.batch_size, vctk.data.seconds, vctk.trainer.gradient_clip_val) == (8, 3.0, 0.0)
    assert (diffuse.process.beta_min, diffuse.process.beta_max, diffuse.process.num_steps) == (1e-4, 0.05, 200)
    assert (diffuse.num_steps, diffuse.guidance, diffuse.start, diffuse.refine_with_noisy) == (6, 0.5, "condition", 0.5)


def test_folder_of_another_run_is_not_overwritten(whole: Path):
    with pytest.raises(InputError, match="holds a run already; continue it by: fromnoise train"):
        run(TINY, whole)


def test_folder_without_a_run_cannot_be_continued(tmp_path: Path):
    with pytest.raises(InputError, match="is no run folder"):
        folders.read_run(tmp_path)
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be read"):
        folders.read_run(tmp_path)
