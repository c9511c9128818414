"""One training run, from a recipe to a model: check the data, build, take weights over, fit, export.

Exact resume: all randomness is a function of (seed, step) or (seed, item), epochs are made of fixed items, and
last.ckpt, written at the end of each epoch, holds weights, averages, optimiser, schedule and counters. An interrupted
run falls back to the last epoch's end, and what follows equals the uninterrupted run bit for bit on the same machine.
"""

import importlib
import logging
import os
import signal
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch import nn

from fromnoise import hub
from fromnoise.data.check import DataReport, check
from fromnoise.data.latents import Latents
from fromnoise.recipes.base import DATA, Recipe
from fromnoise.tasks import TASKS
from fromnoise.training import folder as folders
from fromnoise.training.callbacks import (
    Bar,
    GradientNorms,
    HalvingRule,
    MovingAveraging,
    PlainProgress,
    PowerAveraging,
    Samples,
    TopCheckpoints,
    WarmAveraging,
)
from fromnoise.training.init import Taken, initialise
from fromnoise.training.loaders import RecipeData
from fromnoise.training.module import TrainingModule
from fromnoise.training.processes import cluster_plugins, is_first_process, require_processes
from fromnoise.training.settings import Optimisation
from fromnoise.training.sharded import SlicedAveraging, SlicedModule, make_strategy
from fromnoise.training.tasks import TRAINABLES, Trainable
from fromnoise.types import InputError

FOLDER_VARIABLE = "FROMNOISE_RUN_FOLDER"  # tells the other processes of a run where its first one writes
SLICED = ("32-true", "bf16-mixed")  # the precisions of trainer.strategy=fsdp


class Interrupted(Exception):
    """The run was stopped from outside; `code` is the exit code by custom."""

    def __init__(self, folder: Path, code: int) -> None:
        super().__init__(f"interrupted; continue after the last whole epoch by: fromnoise train {folder}")
        self.code = code


@dataclass(frozen=True)
class Report:
    """How a run ended. best: the monitored value of the best checkpoint, None when there was no validation."""

    folder: Path
    steps: int
    monitor: str
    best: float | None


@dataclass(frozen=True)
class Voice:
    """Where a run speaks: sentences, the table of the data check, and whether a progress bar makes sense."""

    say: Callable[[str], None] = print
    show_data: Callable[[DataReport], None] = lambda report: None
    bar: bool = False


def train(recipe: Recipe, overrides: Sequence[str] = (), resume: Path | None = None, voice: Voice = Voice()) -> Report:
    """Run a recipe to its end, or go on with the run in the folder `resume`.

    overrides: as given by the user, for the record. Raises InputError for what cannot be trained, and Interrupted.
    """
    first = is_first_process()
    _require_possible(recipe)
    require_processes(recipe.trainer)
    if first:
        voice.show_data(check(recipe.data))
    model, taken = build_model(recipe, resume is not None)
    folder = resume or _folder(recipe, first)
    if first:
        os.environ[FOLDER_VARIABLE] = str(folder)
        folders.describe(folder, recipe, overrides)
        for part in taken:
            voice.say(f"took over {part}")
        voice.say(f"training {recipe.name} in {folder}")
    try:
        return _fit(recipe, model, folder, overrides, voice if first else Voice(lambda text: None))
    finally:
        os.environ.pop(FOLDER_VARIABLE, None)


def build_model(recipe: Recipe, resuming: bool = False) -> tuple[nn.Module, list[Taken]]:
    """The model at step 0 and what it took over; on resuming its weights come from the checkpoint."""
    torch.manual_seed(recipe.seed)
    model = TASKS[recipe.verb][1](recipe.model_config())
    sources = {part: getattr(recipe.init, part) for part in ("backbone", "generator", "refiner", "autoencoder")}
    if recipe.task == "refine" and not sources["backbone"] and not resuming:
        raise InputError("task=refine needs the trained rest of the model; set init.backbone=FOLDER_OR_CHECKPOINT")
    taken = [] if resuming else initialise(model, sources)
    if isinstance(recipe.data, Latents) and not resuming and recipe.latent is not None:
        recipe.data.require_of(model.get_submodule("autoencoder").state_dict())
    return model, taken


def task_of(recipe: Recipe, model: nn.Module) -> Trainable:
    """What the loop trains."""
    return TRAINABLES[recipe.task](recipe, model)


def _fit(recipe: Recipe, model: nn.Module, folder: Path, overrides: Sequence[str], voice: Voice) -> Report:
    settings = recipe.trainer
    sliced = settings.strategy == "fsdp"
    data = RecipeData(recipe.data.train(recipe.seed), recipe.data.valid(), settings)
    kind = SlicedModule if sliced else TrainingModule
    module = kind(
        task_of(recipe, model),
        recipe.optimisation,
        recipe.seed,
        settings.max_steps,
        recipe.scores,
        recipe.sample_rate,
        settings.monitor,
        settings.mode,
        settings.samples,
        settings.score_batches,
        -(-len(data.valid_items) // settings.valid_batch_size),
    )
    saver = ModelCheckpoint(
        folder / "checkpoints",
        "best",
        monitor=settings.monitor,
        mode=settings.mode,
        save_last=True,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    _quieten()
    trainer = make_trainer(recipe, folder, [*_callbacks(recipe, folder, voice), saver])
    before = signal.getsignal(signal.SIGINT)
    last = folders.last_checkpoint(folder)
    if last is not None:
        hub.read_checkpoint(last)  # a damaged one is an error that names it, and no start from scratch
    try:
        trainer.fit(module, datamodule=data, ckpt_path=last, weights_only=True)
    except SystemExit as stop:  # Lightning's way of ending after Ctrl-C and SIGTERM
        signal.signal(signal.SIGINT, before)
        raise Interrupted(folder, 130 if stop.code == 1 else 143) from stop
    if trainer.is_global_zero:
        folders.export(folder, recipe, overrides)
    score = saver.best_model_score
    return Report(folder, trainer.global_step, settings.monitor, None if score is None else float(score))


def make_trainer(recipe: Recipe, folder: Path, callbacks: list[Callback]) -> L.Trainer:
    """Lightning's trainer with the recipe's settings."""
    s = recipe.trainer
    strategy: Any = s.strategy
    if s.world_size > 1 and s.strategy in ("auto", "ddp") and has_idle_weights(recipe.backbone):
        strategy = "ddp_find_unused_parameters_true"
    if s.strategy == "fsdp":
        strategy = make_strategy(s.world_size)
    return L.Trainer(
        accelerator=s.accelerator,
        devices=s.devices,
        num_nodes=s.num_nodes,
        strategy=strategy,
        plugins=cluster_plugins(),
        precision=s.precision,
        deterministic=s.deterministic,
        max_epochs=s.max_epochs,
        accumulate_grad_batches=s.accumulate_grad_batches,
        gradient_clip_val=s.gradient_clip_val or None,
        check_val_every_n_epoch=s.check_val_every_n_epoch,
        log_every_n_steps=s.log_every_n_steps,
        num_sanity_val_steps=0,
        logger=_loggers(recipe, folder),
        callbacks=callbacks,
        default_root_dir=folder,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(callback, Bar) for callback in callbacks),
        use_distributed_sampler=False,
    )


def has_idle_weights(backbone: Any) -> bool:
    """Whether some weights never get a gradient, which distributed training must know: the last layers of tcunet's
    condition path lead nowhere. (So does the last residual layer of a wavenet, which it freezes itself.)"""
    return getattr(backbone, "wiring", "") == "dual"


def _callbacks(recipe: Recipe, folder: Path, voice: Voice) -> list[Callback]:
    s, o = recipe.trainer, recipe.optimisation
    found: list[Callback] = [Bar() if voice.bar else PlainProgress(voice.say, s.max_steps)]
    found.append(Samples(s.samples, recipe.sample_rate))
    found.append(GradientNorms(s.gradient_clip_val, s.gradient_clip_percentile))
    if o.ema > 0:
        rule = _averaging(o)
        found.append(SlicedAveraging(rule, int(o.ema_warmup)) if s.strategy == "fsdp" else rule)
    if s.keep_top:
        found.append(TopCheckpoints(folder / "checkpoints", s.monitor, s.mode, s.keep_top))
    if s.patience:
        found.append(EarlyStopping(s.monitor, patience=s.patience, mode=s.mode, check_on_train_epoch_end=False))
    if o.schedule == "halving":
        found.append(HalvingRule(s.monitor, s.mode))
    return found


def _averaging(o: Optimisation) -> WeightAveraging:
    if o.ema_power:
        return PowerAveraging(o.ema, o.ema_power)
    return WarmAveraging(o.ema) if o.ema_warmup else MovingAveraging(o.ema)


def _loggers(recipe: Recipe, folder: Path) -> list[Logger]:
    found: list[Logger] = [CSVLogger(folder, "logs", f"csv-{folders.count_starts(folder)}")]
    if recipe.logger == "tensorboard":
        found.append(TensorBoardLogger(folder, "logs", "tensorboard"))
    if recipe.logger == "wandb":
        from lightning.pytorch.loggers import WandbLogger

        name = folder.resolve().name
        found.append(WandbLogger(name=name, id=name, save_dir=folder, project="fromnoise", resume="allow"))
    return found


def _folder(recipe: Recipe, first: bool) -> Path:
    """The folder of a new run, the same in all its processes."""
    if recipe.trainer.num_nodes > 1 and not recipe.folder:
        raise InputError("a run on several nodes needs one folder that all of them see; set folder=PATH")
    if first:
        return folders.new_folder(recipe)
    return Path(os.environ.get(FOLDER_VARIABLE) or recipe.folder or "runs")  # the first tells the others, see Lightning


def _require_possible(recipe: Recipe) -> None:
    """Raises InputError for settings that contradict one another or the machine."""
    s, rate = recipe.trainer, recipe.sample_rate
    recipe.model_config()
    trainable = TRAINABLES[recipe.task]
    given = recipe.data.gives
    lacking = [name for name in trainable.needs if name not in given]
    if lacking:
        fitting = [name for name, kind in DATA.items() if {*trainable.needs} <= {*kind.gives}]
        raise InputError(f"task={recipe.task} needs data with {lacking[0]} in it; choose data={' or '.join(fitting)}")
    trainable.require(recipe)
    if rate != recipe.data.sample_rate:
        raise InputError(
            f"expected one rate, got {rate} Hz of the model and data.sample_rate={recipe.data.sample_rate}; "
            "set both to the same (files of other rates are resampled)"
        )
    monitored = ("valid/loss", *(f"valid/{score}" for score in recipe.scores))
    if s.monitor not in monitored:
        raise InputError(f"trainer.monitor must be one of {', '.join(monitored)}, got {s.monitor!r}")
    if s.strategy == "fsdp" and s.precision not in SLICED:
        raise InputError(f"trainer.strategy=fsdp works with trainer.precision={' or '.join(SLICED)}, got {s.precision}")
    if "CUDA_DEVICES_AVAILABLE" in os.environ:
        warnings.warn("CUDA_DEVICES_AVAILABLE does nothing; set CUDA_VISIBLE_DEVICES", stacklevel=2)
    if recipe.logger == "wandb":
        importlib.import_module("wandb")  # a missing package is reported by its name, before anything is written
    if s.accelerator in ("gpu", "cuda") and torch.cuda.device_count() < s.devices:
        raise InputError(
            f"expected {s.devices} {s.accelerator} devices, {torch.cuda.device_count()} are there; see fromnoise doctor"
        )


def _quieten() -> None:
    """Lightning's hints, advertisements and remarks on settings that are meant."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    warnings.filterwarnings("ignore", message="(?s).*does not have many workers.*")
    warnings.filterwarnings("ignore", message="(?s).*Grad strides do not match bucket view strides.*")
