"""Training of vocoders, generators and classifiers: recipes and their published numbers, exact resume, the optimiser's
group of state-space parameters, schedules, and what a recipe of one task refuses of another."""

import csv
import dataclasses
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fromnoise import hub
from fromnoise.backbones import ConvNeXtConfig, SashimiConfig, TCUNetConfig, WaveNetConfig
from fromnoise.backbones.resnext import ResNeXtConfig
from fromnoise.backbones.s4 import state_space_parameters
from fromnoise.data import audio
from fromnoise.data.clips import Clips
from fromnoise.data.synthetic import Synthetic
from fromnoise.frontends import Mel, Wave
from fromnoise.objectives import DiscreteTime
from fromnoise.predictions import Noise
from fromnoise.processes import VP
from fromnoise.recipes import DATA, RECIPES, Recipe, from_tree, to_tree
from fromnoise.recipes.base import TRAINED_WITH, fields_of
from fromnoise.recipes.compose import compose
from fromnoise.samplers import DDPM, Levels, Trained
from fromnoise.tasks import TASKS
from fromnoise.tasks.generation import GenerationModel
from fromnoise.training import folder as folders
from fromnoise.training.module import TrainingModule, generator
from fromnoise.training.run import Interrupted, Voice, has_idle_weights, task_of, train
from fromnoise.training.settings import Optimisation, TrainerSettings
from fromnoise.training.tasks import TRAINABLES, GenerateTask
from fromnoise.types import Condition, InputError

ROOT = Path(__file__).parents[2]
RATE = 8000
SETTINGS = TrainerSettings(
    accelerator="cpu", max_epochs=3, steps_per_epoch=4, batch_size=2, num_workers=0, log_every_n_steps=1, samples=1
)
GENERATE = Recipe(
    name="test/generate",
    task="generate",
    frontend=Wave(RATE),
    backbone=WaveNetConfig(4, 4, 2, 2, vector_dim=3, embed_in=4, embed_mid=8, embed_out=8),
    process=VP(1e-4, 0.05, 20),
    prediction=Noise(),
    sampler=DDPM(),
    grid=Trained(),
    num_steps=2,
    labels=("low", "high"),
    label_dim=3,
    seconds=0.02,
    drop_label=0.3,
    times=DiscreteTime(),
    data=Clips(sample_rate=RATE, seconds=0.02, labels=("low", "high"), level="rms"),
    scores=(),
    optimisation=Optimisation(learning_rate=3e-3, warmup_steps=2, ema=0.9),
    trainer=SETTINGS,
    logger="csv",
)
VOCODE = Recipe(
    name="test/vocode",
    task="vocode",
    mel=Mel(RATE, 64, 16, 64, 8, fmax=4000.0),
    frontend=Wave(RATE),
    backbone=WaveNetConfig(4, 4, 2, 2, mel_bands=8, mel_upsample=(4, 4), embed_in=4, embed_mid=8, embed_out=8),
    process=VP(1e-4, 0.05, 50),
    prediction=Noise(),
    sampler=DDPM(),
    grid=Levels((1e-4, 0.01, 0.5)),
    num_steps=3,
    prior="energy",
    times=DiscreteTime(),
    data=Clips(sample_rate=RATE, seconds=0.02, fixed=False),
    scores=(),
    optimisation=GENERATE.optimisation,
    trainer=SETTINGS,
    logger="csv",
)
CLASSIFY = Recipe(
    name="test/classify",
    task="classify",
    mel=Mel(RATE, 128, 32, 128, 16, fmax=4000.0, floor=1e-8),
    network=ResNeXtConfig(11, 1, 2, 1),
    labels=("low", "high"),
    seconds=0.064,
    data=Clips(sample_rate=RATE, seconds=0.064, labels=("low", "high"), balanced=True),
    scores=("accuracy",),
    optimisation=Optimisation(learning_rate=3e-3, warmup_steps=2, ema=0.0),
    trainer=SETTINGS,
    logger="csv",
)
SHORT = {"max_epochs": 1, "steps_per_epoch": 2}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Low and high tones, 64 ms each, in folders of their names."""
    root, draw = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    for split, count in (("train", 6), ("valid", 2)):
        for i in range(count):
            for label, hz in (("low", 300), ("high", 2500)):
                path = root / split / label / f"{i}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                wave = np.sin(2 * np.pi * draw.uniform(0.9, 1.1) * hz * np.arange(512) / RATE + draw.uniform(0, 6))
                audio.write(path, 0.3 * wave[None].astype(np.float32), RATE)
    return str(root)


def run(recipe: Recipe, folder: Path, clips: str, **trainer):
    data = replace(recipe.data, root=clips)
    settings = replace(recipe.trainer, **trainer)
    recipe = replace(recipe, data=data, trainer=settings, folder=str(folder))
    return train(recipe, (), None, Voice(lambda text: None))


def column(log: Path, name: str) -> list[float]:
    """A logged column, in order."""
    with (log / "metrics.csv").open() as table:
        return [float(row[name]) for row in csv.DictReader(table) if row.get(name)]


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# Runs.


def test_interrupted_run_of_a_generator_equals_the_uninterrupted_one_bit_for_bit(
    clips: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run(GENERATE, tmp_path / "whole", clips)
    original, count = GenerateTask.loss, [0]

    def loss(self, batch, generator):
        count[0] += 1
        if count[0] == 7:  # the middle of the second epoch of four steps
            raise KeyboardInterrupt
        return original(self, batch, generator)

    with monkeypatch.context() as patch:
        patch.setattr(GenerateTask, "loss", loss)
        with pytest.raises(Interrupted):
            run(GENERATE, tmp_path / "part", clips)
    recipe, _ = folders.read_run(tmp_path / "part")
    assert recipe == replace(
        GENERATE, data=replace(GENERATE.data, root=clips), folder=str(tmp_path / "part"), trainer=SETTINGS
    )
    train(recipe, (), tmp_path / "part", Voice(lambda text: None))
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("part", "whole"))
    assert equal(ours, theirs)
    torch.manual_seed(GENERATE.seed)
    fresh = GenerationModel(GENERATE.model_config()).state_dict()
    assert not torch.equal(fresh["embedding.table.weight"], ours["embedding.table.weight"])  # the table is trained too

    model = hub.load(tmp_path / "part")
    sounds = model(count=2, label="high", seed=1)
    assert sounds.shape == (2, 1, 160)
    assert np.isfinite(sounds).all()
    assert hub.read_card(tmp_path / "part")["task"] == "generate"


def test_vocoder_trains_scores_its_own_waves_and_is_a_model_folder(clips: str, tmp_path: Path):
    scored = replace(VOCODE, scores=("si_sdr",))
    report = run(scored, tmp_path, clips, **SHORT, monitor="valid/si_sdr", mode="max")
    assert report.best is not None
    assert np.isfinite(report.best)
    vocoder = hub.load(tmp_path)
    mel = vocoder.mel(np.sin(np.arange(400, dtype=np.float32)), RATE)
    assert vocoder(mel, seed=0).shape == (16 * mel.shape[1],)


def test_classifier_learns_to_tell_low_from_high(clips: str, tmp_path: Path):
    plain = replace(CLASSIFY, chance=0.0)
    report = run(plain, tmp_path, clips, max_epochs=2, steps_per_epoch=15, monitor="valid/accuracy", mode="max")
    assert report.best == 1.0
    assert hub.read_card(tmp_path)["task"] == "classify"


@pytest.mark.slow
def test_two_processes_train_a_wavenet_whose_last_residual_layer_leads_nowhere(clips: str, tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text("import sys\nfrom fromnoise.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n")
    arguments = "backbone.residual_channels=4 backbone.skip_channels=4 backbone.num_layers=2 backbone.dilation_cycle=2 "
    arguments += "data.labels=[low,high] labels=[low,high] data.seconds=0.02 seconds=0.02 logger=csv num_steps=2 "
    arguments += f"trainer.max_epochs=1 trainer.steps_per_epoch=2 trainer.batch_size=2 data.root={clips} "
    arguments += f"trainer.accelerator=cpu trainer.devices=2 trainer.strategy=ddp folder={tmp_path / 'run'}"
    outcome = subprocess.run(
        [sys.executable, str(script), "train", "recipe=digits/wavenet_small", *arguments.split()],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert (tmp_path / "run" / "model.safetensors").is_file()


SMALL = {"embed_in": 4, "embed_mid": 4, "embed_out": 4}
NETWORKS = {
    "wavenet": WaveNetConfig(4, 4, 2, 2, **SMALL),
    "sashimi": SashimiConfig(4, 1, (2, 2), kernel_length=64, **SMALL),
    "sashimi without unet": SashimiConfig(4, 1, (2,), kernel_length=64, unet=False, **SMALL),
    "convnext": ConvNeXtConfig(1, 4, 1),
}


@pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS)
def test_every_weight_that_moves_gets_a_gradient_so_that_distributed_training_need_not_search(config):
    network = config.build()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1)  # last layers that start at zero would hide what lies before them
    network(torch.randn(2, 1, 64), torch.tensor([3.0, 4.0]), Condition()).square().sum().backward()
    assert not [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert not has_idle_weights(config)
    assert has_idle_weights(TCUNetConfig("dual"))


@pytest.mark.parametrize(("schedule", "rates"), [("constant", [1e-3] * 4), ("halving", [1e-3] * 4)])
def test_learning_rate_changed_on_resuming_counts_from_there(clips: str, tmp_path: Path, schedule: str, rates):
    optimisation = Optimisation("adam", 4e-3, schedule=schedule, warmup_steps=0, ema=0.0)
    run(replace(GENERATE, optimisation=optimisation), tmp_path, clips, max_epochs=1)
    recipe, _ = folders.read_run(tmp_path)
    changed = compose(recipe, ["optimisation.learning_rate=1e-3", "trainer.max_epochs=2"])
    train(changed, (), tmp_path, Voice(lambda text: None))
    assert column(tmp_path / "logs/csv-1", "train/lr") == pytest.approx(rates)


def test_damaged_checkpoint_stops_a_run_and_does_not_start_it_from_scratch(clips: str, tmp_path: Path):
    run(GENERATE, tmp_path, clips, **SHORT)
    last = tmp_path / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"last\.ckpt cannot be read"):
        train(folders.read_run(tmp_path)[0], (), tmp_path, Voice(lambda text: None))


def test_variable_that_restricts_nothing_is_warned_of(clips: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_DEVICES_AVAILABLE", "0")
    wrong = replace(CLASSIFY, trainer=replace(SETTINGS, accelerator="gpu", devices=99))
    with pytest.warns(UserWarning, match="set CUDA_VISIBLE_DEVICES"), pytest.raises(InputError, match="99 gpu devices"):
        run(wrong, tmp_path / "run", clips)


# The optimiser.


def module_of(recipe: Recipe) -> TrainingModule:
    model = TASKS[recipe.verb][1](recipe.model_config())
    return TrainingModule(task_of(recipe, model), recipe.optimisation, 0, 10, (), RATE)


@pytest.mark.parametrize(
    ("optimisation", "rates"),
    [
        (Optimisation(learning_rate=4e-3, weight_decay=0.1), (4e-3, 1e-3)),
        (Optimisation(learning_rate=2e-4, weight_decay=0.1), (2e-4, 2e-4)),
        (Optimisation("adam", 2e-4, weight_decay=0.1, ssm_lr=5e-5), (2e-4, 5e-5)),
        (Optimisation("sgd", 1e-2, weight_decay=0.1), (1e-2, 1e-3)),
    ],
)
def test_state_space_parameters_have_their_own_rate_and_no_decay(optimisation: Optimisation, rates):
    backbone = SashimiConfig(4, 1, (2,), kernel_length=64, vector_dim=3, embed_in=4, embed_mid=4, embed_out=4)
    module = module_of(replace(GENERATE, backbone=backbone, optimisation=optimisation))
    first, second = module.configure_optimizers()["optimizer"].param_groups
    assert (first["initial_lr"], second["initial_lr"]) == pytest.approx(rates)
    assert (first["weight_decay"], second["weight_decay"]) == (0.1, 0.0)
    systems = {id(parameter) for parameter in state_space_parameters(module)}
    assert {id(parameter) for parameter in second["params"]} == systems
    assert len(systems) == 3 * 3  # A's two parts and the step size, in one block each of down, centre and up
    moving = [parameter for parameter in module.parameters() if parameter.requires_grad]
    assert len(first["params"]) + len(systems) == len(moving)


def test_network_without_state_space_has_one_group_of_all_but_the_last_residual_layer():
    module = module_of(GENERATE)
    (group,) = module.configure_optimizers()["optimizer"].param_groups
    ids = {id(parameter) for parameter in group["params"]}
    still = {name.split(".residual.")[0] for name, p in module.named_parameters() if id(p) not in ids}
    assert still == {"model.denoiser.backbone.blocks.1"}


def test_plateau_divides_the_rate_by_ten_after_more_than_five_epochs_without_progress(
    clips: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        TRAINABLES["classify"], "valid_loss", lambda self, batch, generator, seeds: torch.ones(len(seeds))
    )
    recipe = replace(CLASSIFY, scores=(), optimisation=Optimisation("sgd", 1e-2, schedule="plateau", ema=0.0))
    run(recipe, tmp_path, clips, max_epochs=8, steps_per_epoch=1)
    assert column(tmp_path / "logs/csv-0", "train/lr") == pytest.approx(
        [1e-2] * 7 + [1e-3]
    )  # the first sets the best, six are no better


# Labels.


def test_hidden_labels_are_drawn_by_the_step_and_never_in_validation(monkeypatch: pytest.MonkeyPatch):
    model = GenerationModel(GENERATE.model_config())
    told = []
    original = GenerationModel.condition
    heard = lambda self, labels, seconds=None: (told.append(labels), original(self, labels))[1]  # noqa: E731
    monkeypatch.setattr(GenerationModel, "condition", heard)
    task = task_of(GENERATE, model)
    batch = {"clean": torch.zeros(200, 1, 160), "label": torch.arange(200) % 2}
    for step in (0, 0, 1):
        task.loss(batch, generator(0, step))
    hidden = [labels == -1 for labels in told]
    assert torch.equal(hidden[0], hidden[1])
    assert not torch.equal(hidden[0], hidden[2])
    assert 0.2 < float(hidden[0].float().mean()) < 0.4  # 0.3 of 200, three standard deviations
    assert torch.equal(told[0][~hidden[0]], batch["label"][~hidden[0]])
    task.valid_loss(batch, generator(0, 0), range(200))
    assert torch.equal(told[-1], batch["label"])


# Recipes.

NEW = {name: recipe for name, recipe in RECIPES.items() if recipe.task in ("vocode", "generate", "classify")}
PUBLISHED = {  # parameters without those of the label: its table and one layer of each block
    "diffwave/ljspeech_base": 2_637_305,
    "diffwave/ljspeech_large": 6_914_297,
    "diffwave/sc09_uncond": 24_071_681,
    "diffwave/sc09_small": 6_827_393,
    "diffwave/sc09_class": 24_071_681,
    "diffwave/sc09_deep_thin": 9_838_337,
    "sc09/classifier": 34_425_546,
}
GENERATION_OF_2022 = {"sashimi/sc09_d64": 7_734_267, "sashimi/ljspeech": 3_153_459}


def count(recipe: Recipe, device: str = "meta") -> tuple[int, int]:
    """Parameters without and with what the label needs."""
    with torch.device(device):
        model = TASKS[recipe.verb][1](recipe.model_config())
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    plain = {name: size for name, size in sizes.items() if not name.startswith("embedding.") and "vector" not in name}
    return sum(plain.values()), sum(sizes.values())


@pytest.mark.parametrize("recipe", NEW.values(), ids=NEW)
def test_every_recipe_survives_its_tree_and_builds_its_published_model(recipe: Recipe):
    assert from_tree(to_tree(recipe)) == recipe
    plain, whole = count(recipe)
    assert plain == PUBLISHED.get(recipe.name, plain)
    sizes = [getattr(recipe.backbone, name, 0) for name in ("vector", "vector_dim")]
    told = recipe.labels or (recipe.text is not None and any(sizes))
    assert (whole > plain) == bool(told and recipe.task == "generate")
    TRAINABLES[recipe.task].require(recipe)
    assert recipe.data.sample_rate == recipe.sample_rate


@pytest.mark.parametrize(
    "name",
    [
        *("diffwave/ljspeech_base", "priorgrad/ljspeech", "sashimi/ljspeech", "sashimi/ljspeech_hop2048"),
        *("digits/wavenet_small", "digits/sashimi_small", "vocode/wavenet_small"),
        *("digits/classifier", "sounds/classifier"),
    ],
)
def test_first_step_of_a_recipe_has_a_finite_loss_and_moves_its_network(name: str):
    recipe = RECIPES[name]
    model = TASKS[recipe.verb][1](recipe.model_config()).train()
    batch = {"clean": 0.1 * torch.randn(1, 1, 4096), "label": torch.tensor([3])}
    loss = task_of(recipe, model).loss(batch, generator(0)).mean()
    loss.backward()
    assert 0 < float(loss) < 20
    assert max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None) > 0


@pytest.mark.parametrize(("name", "parameters"), GENERATION_OF_2022.items(), ids=GENERATION_OF_2022)
def test_sashimi_recipes_have_the_published_size_with_the_published_layer(name: str, parameters: int):
    recipe = compose(RECIPES[name], ["backbone.kind=s4_v3"])
    assert count(recipe, "cpu")[0] == parameters  # its start comes from an eigendecomposition, which meta lacks


def test_label_path_of_the_wide_model_has_the_computed_size():
    plain, whole = count(RECIPES["diffwave/sc09_class"])
    table, layers = 11 * 128, 36 * (128 * 512 + 512)  # ten digits and "no label"; a layer of 128 -> 2 C in every block
    assert whole - plain == table + layers
    assert whole == pytest.approx(26.5e6, rel=0.005)


def test_published_numbers_stand_in_the_diffwave_recipes():
    base, large, sc09 = (RECIPES[f"diffwave/{name}"] for name in ("ljspeech_base", "ljspeech_large", "sc09_uncond"))
    assert (base.process, large.process, sc09.process) == (VP(1e-4, 0.05, 50), VP(1e-4, 0.02, 200), VP(1e-4, 0.02, 200))
    assert base.grid.betas == (1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5)
    assert large.grid.betas == (1e-4, 1e-3, 0.01, 0.05, 0.2, 0.7)
    for recipe in (base, large, sc09):
        o, t = recipe.optimisation, recipe.trainer
        assert (o.optimiser, o.learning_rate, o.schedule, o.warmup_steps, o.ema) == ("adam", 2e-4, "constant", 0, 0.0)
        assert (t.batch_size, t.max_steps, t.gradient_clip_val, t.precision) == (16, 1_000_000, 0.0, "32-true")
        assert (recipe.norm, recipe.times) == ("l2", DiscreteTime())
        assert round(recipe.data.seconds * recipe.data.sample_rate) == 16000
        assert recipe.data.level == "none"
    assert (base.data.fixed, sc09.data.fixed) == (False, True)
    steps = [RECIPES[f"sashimi/sc09_{size}"].trainer.max_steps for size in ("d128", "d64")]
    assert steps == [800_000, 500_000]
    classifier = RECIPES["sc09/classifier"]
    o, t = classifier.optimisation, classifier.trainer
    assert (o.optimiser, o.learning_rate, o.weight_decay, o.schedule) == ("sgd", 1e-2, 1e-2, "plateau")
    assert (t.batch_size, t.max_epochs, classifier.data.balanced) == (96, 70, True)


@pytest.mark.parametrize("steps", [20, 40, 50])
def test_short_schedules_of_the_paper_are_settings(steps: int):
    changes = [f"process.num_steps={steps}", "grid=trained", f"num_steps={steps}"]
    recipe = compose(RECIPES["diffwave/ljspeech_base"], changes)
    times = recipe.grid.times(recipe.process, recipe.num_steps)
    assert len(times) == steps + 1
    assert recipe.process.abar[-1] == pytest.approx({20: 0.60062, 40: 0.36083, 50: 0.27967}[steps], abs=5e-6)


def test_every_field_of_a_task_is_a_field_of_the_recipe_and_means_the_same_where_it_is_left_out():
    recipe_fields = {field.name: field for field in dataclasses.fields(Recipe)}
    for task in TRAINED_WITH:
        config = TASKS["enhance" if task == "refine" else task][0]
        for field in dataclasses.fields(config):
            ours = recipe_fields[field.name]
            assert field.name in fields_of(task)
            if ours.default not in (dataclasses.MISSING, None) and field.name not in ("labels", "num_steps"):
                assert ours.default == field.default, f"{task}.{field.name}"


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        (VOCODE, {"labels": ("a",)}, "task=vocode has no labels"),
        (GENERATE, {"prior": "energy"}, "task=generate has no prior"),
        (CLASSIFY, {"process": VP()}, "task=classify has no process"),
        (GENERATE, {"mel": Mel()}, "task=generate has no mel"),
        (VOCODE, {"mel": None}, "needs mel; set it by mel=VALUE"),
        (GENERATE, {"backbone": None, "num_steps": None}, "needs backbone, num_steps"),
        (GENERATE, {"data": Synthetic(sample_rate=RATE)}, "needs data with label in it; choose data=clips"),
        (VOCODE, {"task": "enhance", "prior": "unit", "mel": None, "scores": ("si_sdr",)}, "needs data with noisy"),
        (GENERATE, {"labels": ("high", "low")}, "expected the same classes twice"),
        (CLASSIFY, {"labels": ("low", "high", "middle")}, "expected the same classes twice"),
        (GENERATE, {"scores": ("si_sdr",)}, "correct scores="),
        (CLASSIFY, {"scores": ("pesq_wb",)}, r"knows the scores \['accuracy'\]"),
        (VOCODE, {"scores": ("accuracy",)}, "unknown metric 'accuracy'"),
        (GENERATE, {"drop_label": 1.5}, "drop_label must lie between 0 and 1"),
        (VOCODE, {"frontend": Wave(16000)}, "rate"),
        (CLASSIFY, {"data": Clips(sample_rate=16000, labels=("low", "high"))}, "expected one rate"),
    ],
)
def test_what_belongs_to_another_task_is_refused_before_a_folder_is_made(
    clips: str, tmp_path: Path, recipe: Recipe, changes, message: str
):
    recipe = replace(recipe, **changes)
    if isinstance(recipe.data, Clips):
        recipe = replace(recipe, data=replace(recipe.data, root=clips))
    with pytest.raises(ValueError, match=message):
        train(replace(recipe, folder=str(tmp_path / "run")), (), None, Voice(lambda text: None))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("labels=[a]", "a recipe has no setting 'labels'"),
        ("network.depth=11", "a recipe has no setting 'network'"),
        ("mel.hop=0", "expected positive sizes"),
        ("optimisation.ssm_lr=0", "expected ssm_lr > 0"),
        ("data.speed=[2,1]", r"data.speed must be \[lowest,highest\]"),
        ("data.layout=sc10", "data.layout must be one of auto, flat, sc09, ljspeech, csv"),
    ],
)
def test_a_mistake_in_a_setting_is_one_sentence(argument: str, message: str):
    with pytest.raises(InputError, match=message):
        compose(RECIPES["vocode/wavenet_small"], [argument])


def test_labels_may_be_given_once_and_referred_to():
    recipe = compose(GENERATE, ["labels=[a,b,c]", "data.labels=${labels}"])
    assert recipe.labels == recipe.data.labels == ("a", "b", "c")


def test_recordings_of_every_kind_can_train_a_vocoder():
    recordings = [kind for kind in DATA.values() if {"sources", "latent"}.isdisjoint(kind.gives)]
    assert all({*TRAINABLES["vocode"].needs} <= {*kind.gives} for kind in recordings)
