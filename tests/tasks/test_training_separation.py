"""Training of separators and of regenerating enhancers; what published recipes need: averages, clipping, scores."""

import csv
from dataclasses import replace
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fromnoise import hub
from fromnoise.backbones import NCSNppConfig
from fromnoise.data import audio
from fromnoise.data.separated import Separated
from fromnoise.data.synthetic import Synthetic, SyntheticVoices
from fromnoise.frontends import STFT
from fromnoise.objectives import FixedTime
from fromnoise.recipes import RECIPES, Recipe, from_tree, to_tree
from fromnoise.recipes.compose import compose
from fromnoise.tasks import TASKS
from fromnoise.tasks.source_losses import Permuted, PermutedEnd, Rollout, SNRLoss, Switched
from fromnoise.training import folder as folders
from fromnoise.training.callbacks import GradientNorms, WarmAveraging, warm_decay
from fromnoise.training.init import initialise
from fromnoise.training.module import TrainingModule, generator
from fromnoise.training.run import Interrupted, Voice, task_of, train
from fromnoise.training.settings import TrainerSettings
from fromnoise.training.tasks import TRAINABLES, SeparateTask
from fromnoise.training.tasks.base import freeze
from fromnoise.training.tasks.separation import separation_scores
from fromnoise.types import InputError

TINY = RECIPES["debug/separate"]
SILENT = Voice(lambda text: None)


def run(recipe: Recipe, folder: Path, resume: bool = False):
    """Train in a folder."""
    if resume:
        return train(folders.read_run(folder)[0], (), folder, SILENT)
    return train(replace(recipe, folder=str(folder)), (), None, SILENT)


def with_trainer(recipe: Recipe, **settings) -> Recipe:
    return replace(recipe, trainer=replace(recipe.trainer, **settings))


def rows(folder: Path, part: int = 0) -> list[dict[str, str]]:
    with (folder / f"logs/csv-{part}/metrics.csv").open() as table:
        return list(csv.DictReader(table))


def column(folder: Path, name: str, part: int = 0) -> list[float]:
    return [float(row[name]) for row in rows(folder, part) if row.get(name)]


# The loop.

BUSY = with_trainer(
    replace(TINY, logger="csv"), gradient_clip_percentile=50.0, keep_top=2, monitor="valid/si_sdr", mode="max"
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with everything on."""
    folder = tmp_path_factory.mktemp("whole")
    run(BUSY, folder)
    return folder


def test_interrupted_and_resumed_run_equals_the_uninterrupted_one(whole: Path, tmp_path: Path, monkeypatch):
    original, count = SeparateTask.loss, [0]

    def loss(self, batch, generator):
        count[0] += torch.is_grad_enabled()
        if count[0] == 7:  # in the second epoch of four steps
            raise KeyboardInterrupt
        return original(self, batch, generator)

    with monkeypatch.context() as patch:
        patch.setattr(SeparateTask, "loss", loss)
        with pytest.raises(Interrupted):
            run(BUSY, tmp_path)
    assert run(BUSY, tmp_path, resume=True).steps == 12
    ours, theirs = load_file(tmp_path / "model.safetensors"), load_file(whole / "model.safetensors")
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    for name in ("train/loss", "train/clipped_norm"):
        assert column(tmp_path, name, 1) == column(whole, name)[4:]


def test_run_is_a_separator_with_its_best_checkpoints_named_by_epoch_and_score(whole: Path):
    scores = column(whole, "valid/si_sdr")
    best = sorted(range(3), key=lambda epoch: -scores[epoch])[:2]
    named = {path.name for path in (whole / "checkpoints").iterdir()}
    assert named == {"best.ckpt", "last.ckpt"} | {f"epoch-{e:03d}_si_sdr-{scores[e]:.3f}.ckpt" for e in best}
    improved = np.subtract(column(whole, "valid/si_sdr"), column(whole, "valid/si_sdri"))
    np.testing.assert_allclose(improved, improved[0], atol=1e-5)  # the same mixtures each time
    separator = hub.load(whole)
    mixture = np.random.default_rng(0).standard_normal(2000).astype(np.float32)
    sources = separator(mixture, sample_rate=8000)
    assert sources.shape == (2, 2000)
    np.testing.assert_allclose(sources.sum(0), mixture, atol=1e-5)  # float32
    assert hub.read_card(whole)["task"] == "separate"


def test_sounds_and_pictures_of_every_source_are_logged(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(with_trainer(TINY, max_epochs=2, steps_per_epoch=1), tmp_path)
    board = EventAccumulator(str(tmp_path / "logs/tensorboard"))
    board.Reload()
    names = ["mixture", "estimate of s1", "s1", "estimate of s2", "s2"]
    assert board.Tags()["audio"] == [f"item0/{name}" for name in names]
    assert [len(board.Audio(f"item0/{name}")) for name in names] == [1, 2, 1, 2, 1]


def test_training_stops_when_nothing_got_better_for_as_long_as_asked(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(SeparateTask, "valid_loss", lambda self, batch, generator, seeds: torch.ones(2))
    still = replace(TINY, scores=(), logger="csv")
    assert run(with_trainer(still, max_epochs=9, steps_per_epoch=1, patience=2), tmp_path).steps == 3


def test_only_so_many_validation_batches_are_scored(monkeypatch):
    judged = []

    def judge(self, batch, *rest):
        judged.append(len(batch["sources"]))
        return {}, {}

    monkeypatch.setattr(SeparateTask, "judge", judge)
    monkeypatch.setattr(TrainingModule, "log", lambda self, *args, **kwargs: None)
    monkeypatch.setattr(TrainingModule, "number", lambda self, index: index)  # of one device
    task = task_of(TINY, TASKS["separate"][1](TINY.model_config()))
    batch = {"sources": 0.1 * torch.randn(2, 2, 800)}
    for limit, expected in ((0, 3), (2, 2)):
        judged.clear()
        module = TrainingModule(task, TINY.optimisation, 0, 9, TINY.scores, 8000, score_batches=limit)
        for i in range(3):
            module.validation_step(batch, i)
        assert len(judged) == expected


# Averages and clipping.


def test_warm_averages_are_those_of_torch_ema_over_all_parameters():
    module = L.LightningModule()
    module.still, module.moving = (nn.Parameter(torch.randn(3, dtype=torch.float64), k > 0) for k in range(2))
    average = WarmAveraging(0.5)
    shadow = {name: value.detach().clone() for name, value in module.named_parameters()}
    average.setup(L.Trainer(accelerator="cpu", barebones=True), module, "fit")
    for n in range(1, 13):
        with torch.no_grad():
            for value in module.parameters():
                value.copy_(torch.randn_like(value))
        average._average_model.update_parameters(module)
        decay = min(0.5, (1 + n) / (10 + n))
        for name, value in module.named_parameters():
            shadow[name] = shadow[name] - (1 - decay) * (shadow[name] - value)  # torch-ema's own form
            found = dict(average._average_model.module.named_parameters())[name]
            torch.testing.assert_close(found, shadow[name], rtol=0, atol=1e-12)
    assert [warm_decay(0.999, n) for n in (1, 2, 10**6)] == [2 / 11, 3 / 12, 0.999]


def test_gradients_are_clipped_to_a_percentile_of_their_past_norms():
    parameter, idle = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    clip = GradientNorms(0.0, 50.0)
    for norm, kept in ((4.0, 4.0), (2.0, 2.0), (10.0, 4.0), (1.0, 1.0)):  # medians 4, 3, 4, 3
        parameter.grad = torch.tensor([norm, 0.0])
        assert clip.limit([parameter, idle]) == (norm, kept)
        assert float(parameter.grad[0]) == pytest.approx(kept, rel=1e-5)  # torch adds 1e-6 to the norm
    again = GradientNorms(0.0, 50.0)
    again.load_state_dict(clip.state_dict())
    assert again.norms == [4.0, 2.0, 10.0, 1.0]
    parameter.grad = torch.tensor([4.0, 0.0])
    assert GradientNorms(3.0, 0.0).limit([parameter]) == (4, 3)
    assert float(parameter.grad[0]) == 4  # the trainer clips by itself


@pytest.mark.parametrize(
    "settings", [{"keep_top": -1}, {"patience": -1}, {"score_batches": -1}, {"gradient_clip_percentile": 101.0}]
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match=f"trainer.{next(iter(settings))} must"):
        TrainerSettings(**settings)


# The task.


def test_scores_are_those_of_the_best_order_and_leave_out_silent_items():
    draw = torch.Generator().manual_seed(0)
    sources = torch.randn(3, 2, 4000, generator=draw)
    estimates = sources + 0.1 * torch.randn(3, 2, 4000, generator=draw)
    estimates[1] = estimates[1].flip(0)
    sources[2, 0] = 0
    mixture = sources.sum(1, keepdim=True)
    values, ordered = separation_scores(sources, estimates, mixture, ("si_sdr", "si_sdri", "ssnr"), 8000, [0, 1])
    assert values["si_sdr"] == pytest.approx(20, abs=0.3)  # noise of -20 dB, over 4000 samples
    assert values["si_sdri"] == pytest.approx(20, abs=0.7)  # two independent sources: the mixture has about 0 dB
    assert np.isfinite(values["ssnr"])
    assert torch.equal(ordered, torch.stack([estimates[0], estimates[1].flip(0), estimates[2]]))
    silent, _ = separation_scores(sources[2:], estimates[2:], mixture[2:], ("si_sdr",), 8000, [0, 1])
    assert np.isnan(silent["si_sdr"])


def test_a_recorded_mixture_is_what_is_separated():
    model = TASKS["separate"][1](TINY.model_config())
    task, sources = task_of(TINY, model), 0.1 * torch.randn(2, 2, 800)
    noisy = sources.sum(1, keepdim=True) + 0.1 * torch.randn(2, 1, 800)
    plain = task.loss({"sources": sources}, generator(0))
    assert torch.equal(plain, task.loss({"sources": sources, "mixture": sources.sum(1, keepdim=True)}, generator(0)))
    assert not torch.allclose(plain, task.loss({"sources": sources, "mixture": noisy}, generator(0)))
    with torch.no_grad():
        _, sounds = task.judge({"sources": sources, "mixture": noisy}, [0, 1], (), 8000)
    assert torch.equal(sounds["mixture"], noisy)
    total = sounds["estimate of s1"] + sounds["estimate of s2"]
    torch.testing.assert_close(total, noisy, rtol=0, atol=1e-5)  # float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": Synthetic(sample_rate=8000)}, "needs data with sources in it; choose data=separated or voices or"),
        ({"data": SyntheticVoices(voices=3)}, "got data.voices=3 and sources=2; set both"),
        ({"data": SyntheticVoices(sample_rate=16000)}, "expected one rate"),
        ({"scores": ("sdri",)}, "unknown metric 'sdri'"),
        ({"loss": RECIPES["debug/tiny"].loss}, "task=separate has no loss"),
        ({"sources": 3, "data": SyntheticVoices(voices=3)}, "expected a process of 3 sources"),
    ],
)
def test_impossible_recipe_is_refused_before_a_folder_is_made(tmp_path: Path, changes, message: str):
    with pytest.raises(ValueError, match=message):
        run(replace(TINY, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_all_problems_of_a_list_are_named_before_a_folder_is_made(tmp_path: Path):
    audio.write(tmp_path / "a.wav", np.ones((1, 800), np.float32), 4000)
    (tmp_path / "l.csv").write_text("file_a,file_b\na.wav,gone.wav\na.wav,lost.wav\n")
    data = Separated(str(tmp_path / "l.csv"), valid_root=str(tmp_path / "l.csv"))
    with pytest.raises(InputError, match=r"4 problems(.|\n)*expected 8000 Hz(.|\n)*gone\.wav(.|\n)*lost\.wav"):
        run(replace(TINY, data=data), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Recipes.

NAMES = [name for name in RECIPES if name.split("/")[0] in ("diffsep", "sgmse", "schrodinger", "storm", "separate")]
PUBLISHED = {
    "diffsep/wsj0_2mix": 65_623_366,
    "diffsep/wsj0_3mix": 65_655_918,
    "diffsep/libri2mix": 65_623_366,
    "diffsep/vctk_demand": 65_623_366,
    "sgmse/vctk_demand_16k": 65_590_822,
    "sgmse/vctk_demand_48k": 64_739_854,
    "schrodinger/vctk_demand": 65_590_822,
}


def build(recipe: Recipe, device: str = "meta") -> nn.Module:
    with torch.device(device):
        return TASKS[recipe.verb][1](recipe.model_config())


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_survives_its_tree_and_has_its_published_size(name: str):
    recipe = RECIPES[name]
    assert from_tree(to_tree(recipe)) == recipe
    model = build(recipe)
    count = sum(p.numel() for p in model.parameters())
    assert count == PUBLISHED.get(name, count)
    if name == "storm/vctk_demand":  # the score network whole; D without the tensors of the time, which it never uses
        assert sum(p.numel() for p in model.denoiser.parameters()) == 27_776_038
        assert sum(p.numel() for p in model.generator.parameters()) < 27_342_350
    if name.startswith("separate/"):
        assert count <= 6e6
    TRAINABLES[recipe.task].require(recipe)
    assert recipe.data.sample_rate == recipe.sample_rate
    assert recipe.trainer.monitor in ("valid/loss", *(f"valid/{score}" for score in recipe.scores))


def test_published_numbers_stand_in_the_recipes():
    two, three, libri, noise = (RECIPES[f"diffsep/{n}"] for n in ("wsj0_2mix", "wsj0_3mix", "libri2mix", "vctk_demand"))
    for recipe in (two, three, libri, noise):
        o, t, p, s = recipe.optimisation, recipe.trainer, recipe.process, recipe.sampler
        assert (p.gamma, p.sigma_min, p.sigma_max, p.t_min, p.sources) == (2.0, 0.05, 0.5, 0.03, recipe.sources)
        assert (o.optimiser, o.schedule, o.warmup_steps, o.ema, o.ema_warmup) == ("adam", "constant", 0, 0.999, True)
        assert (t.gradient_clip_val, t.max_epochs, t.keep_top, t.monitor, t.deterministic) == (
            *(5.0, 1000, 20, "valid/si_sdr", True),
        )
        assert (recipe.seed, recipe.num_steps, s.snr, s.corrector_steps, s.corrector) == (64736289, 30, 0.5, 1, "ald2")
        front = recipe.backbone.stft
        assert (front["n_fft"], front["hop"], front["exponent"], front["factor"]) == (510, 128, 0.5, 0.15)
        assert recipe.backbone.network["width"] == 128
    for recipe in (two, three, libri):
        assert (recipe.strategy, recipe.optimisation.learning_rate) == (PermutedEnd(0.1), 2e-4)
        assert (recipe.trainer.batch_size, recipe.trainer.accumulate_grad_batches) == (6, 2)
        assert (recipe.data.seconds, recipe.data.mode, recipe.sample_rate) == (5.0, "max", 8000)
    assert (three.sources, three.data.voices) == (3, 3)
    assert (noise.strategy, noise.level, noise.level_window) == (Switched(1 / 30), "local", 510)
    assert (noise.trainer.batch_size, noise.trainer.accumulate_grad_batches) == (4, 4)
    assert (noise.data.seconds, noise.sample_rate, noise.optimisation.learning_rate) == (3.0, 16000, 1e-4)
    plain, wide, bridge, storm = (
        RECIPES[n]
        for n in ("sgmse/vctk_demand_16k", "sgmse/vctk_demand_48k", "schrodinger/vctk_demand", "storm/vctk_demand")
    )
    for recipe in (plain, wide, bridge, storm):
        o, t = recipe.optimisation, recipe.trainer
        assert (o.optimiser, o.learning_rate, o.ema, o.ema_warmup) == ("adam", 1e-4, 0.999, True)
        assert t.gradient_clip_val == 0
        n = round(recipe.data.seconds * recipe.sample_rate)
        assert recipe.frontend.frames(n) == 256
        assert recipe.unit == "peak"
        assert t.batch_size * t.accumulate_grad_batches == (8 if recipe is storm else 32)
    assert [2 * recipe.process.sigma_max**2 for recipe in (plain, wide, storm)] == pytest.approx([0.25, 1.0, 0.25])
    assert (plain.process.theta, wide.process.theta, bridge.process.k, bridge.process.c) == (1.5, 2.0, 2.6, 0.4 / 2)
    assert (wide.frontend.n_fft, wide.frontend.hop, wide.frontend.exponent, wide.frontend.factor) == (
        *(1534, 384, 0.667, 0.065),
    )
    assert (bridge.num_steps, bridge.loss.magnitude, bridge.loss.wave, bridge.times.t_min) == (50, 0.0, 5e-4, 0.03)
    assert (storm.num_steps, storm.trainer.patience, storm.leads_to, storm.condition) == (50, 50, "generator", "both")


def shrunk(recipe: Recipe) -> Recipe:
    """The same recipe with a network of 8 channels on short spectra."""
    small = {"bins": 16, "width": 8, "multipliers": (1, 1), "res_blocks": 1, "attention": ()}
    if recipe.task == "separate":
        inner = {**recipe.backbone.network, **({k: list(v) if isinstance(v, tuple) else v for k, v in small.items()})}
        front = {**recipe.backbone.stft, "n_fft": 30, "hop": 8}
        return replace(recipe, num_steps=1, backbone=replace(recipe.backbone, network=inner, stft=front, multiple=2))
    front = replace(recipe.frontend, n_fft=30, hop=8)
    parts = {"generator": replace(recipe.generator, **small)} if recipe.generator else {}
    return replace(recipe, frontend=front, backbone=replace(recipe.backbone, **small), frame_multiple=2, **parts)


@pytest.mark.parametrize("name", [n for n in NAMES if not n.startswith("separate/") and n != "diffsep/libri2mix"])
def test_first_step_of_a_published_recipe_has_a_finite_loss_and_moves_its_networks(name: str):
    recipe = shrunk(RECIPES[name])
    torch.manual_seed(0)
    model = build(recipe, "cpu").train()
    task = task_of(recipe, model)
    freeze(model, task.trained)
    noise = 0.1 * torch.randn(2, recipe.sources, 640)
    batch = {"sources": noise, "clean": noise[:, :1], "noisy": noise.sum(1, keepdim=True)}
    losses = task.loss(batch, generator(0))
    assert losses.shape == (2,) and bool(torch.isfinite(losses).all()) and bool((losses > 0).all())
    losses.mean().backward()
    for part in ("denoiser", "generator") if name.startswith("storm/") else ("denoiser",):
        gradients = [p.grad for p in model.get_submodule(part).parameters() if p.grad is not None]
        assert max(float(g.abs().max()) for g in gradients) > 0
    if recipe.task == "separate":
        with torch.no_grad():
            _, sounds = task.judge(batch, [0, 1], (), recipe.sample_rate)
        assert all(bool(torch.isfinite(wave).all()) for wave in sounds.values())


def test_a_generator_that_learns_jointly_needs_no_source_and_a_frozen_one_does():
    joint = shrunk(RECIPES["storm/vctk_demand"])
    assert initialise(build(joint, "cpu"), {}) == []
    frozen = replace(joint, joint=0.0)
    with pytest.raises(InputError, match=r"needs a trained generator; set init\.generator="):
        initialise(build(frozen, "cpu"), {})
    assert (task_of(joint, build(joint)).trained, task_of(frozen, build(frozen)).trained) == ("", "denoiser")
    with pytest.raises(InputError, match="a refiner is not trained jointly"):
        TRAINABLES["enhance"].require(replace(joint, refiner=NCSNppConfig()))


def test_small_recipes_learn_the_same_network_by_diffusion_and_by_regression():
    small, regression = RECIPES["separate/small"], RECIPES["separate/small_regression"]
    assert small.backbone == regression.backbone
    assert (small.strategy, small.source_loss, small.consistent) == (Rollout(0.95), SNRLoss(), True)
    assert (regression.strategy, regression.times, regression.num_steps) == (Permuted(), FixedTime(1.0), 1)
    assert small.trainer.max_steps == regression.trainer.max_steps


def test_strategies_losses_and_nested_networks_are_settings():
    base = RECIPES["separate/small"]
    changes = ["strategy.share=0.2", "source_loss.threshold_db=20", "backbone.network.width=32", "names=[a,b]"]
    recipe = compose(base, changes)
    assert (recipe.strategy, recipe.source_loss) == (Rollout(0.2), SNRLoss(20.0))
    assert (recipe.backbone.network["width"], recipe.names) == (32, ("a", "b"))
    other = compose(base, ["strategy=gated", "source_loss=null", "weighting=snr", "data=separated", "data.root=X"])
    assert (other.source_loss, other.strategy.mmnr_db) == (None, -10.0)
    assert isinstance(other.data, Separated)
    with pytest.raises(InputError, match="unknown strategy 'best'; choose one of: ordered, shifted"):
        compose(base, ["strategy=best"])
    with pytest.raises(InputError, match="has no setting 'threshold'; choose one of: threshold_db"):
        compose(base, ["source_loss.threshold=3"])
    assert STFT(**{k: v for k, v in base.backbone.stft.items() if k != "name"}).window == "sqrt_hann"
