"""What happens beside the loop: progress on a terminal and in a log, averages of the weights, norms of the gradient,
the halving rule, checkpoints, sounds and pictures."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar, WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.distributed.tensor import DTensor

from fromnoise.evaluation.plots import spectrogram


class Bar(RichProgressBar):
    """The bar on a terminal, without the logger's version."""

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}


class PlainProgress(Callback):
    """One line every `log_every_n_steps` steps and one per validation, for logs and pipes."""

    def __init__(self, say: Callable[[str], None], max_steps: int) -> None:
        self.say, self.max_steps = say, max_steps
        self.started, self.first, self.told = 0.0, 0, 0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.started, self.first = time.perf_counter(), trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step, every = trainer.global_step, trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        fresh = step != self.told and step % every == 0  # not again for the other batches of an accumulated step
        if trainer.is_global_zero and fresh:
            self.told = step
            pace = (step - self.first) / (time.perf_counter() - self.started)
            loss = float(trainer.callback_metrics["train/loss"])
            self.say(
                f"epoch {trainer.current_epoch + 1} step {step}/{self.max_steps} loss {loss:.5f} {pace:.2f} steps/s"
            )

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("valid/")}
            self.say(f"epoch {trainer.current_epoch + 1} " + " ".join(f"{k} {v:.5f}" for k, v in values.items()))


class HalvingRule(Callback):
    """Halves the learning rate when the monitored value failed to fall below the previous one for exactly `patience`
    validations in a row, and stops at `stop` in a row (DR-DiffuSE's release: 3 and 5)."""

    def __init__(self, monitor: str, mode: str, patience: int = 3, stop: int = 5) -> None:
        self.monitor, self.sign, self.patience, self.stop = monitor, 1 if mode == "min" else -1, patience, stop
        self.previous, self.failures = float("inf"), 0

    def state_dict(self) -> dict[str, Any]:
        return {"previous": self.previous, "failures": self.failures}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.previous, self.failures = state_dict["previous"], state_dict["failures"]

    def update(self, value: float) -> tuple[bool, bool]:
        """(halve, stop) after one more validation."""
        self.failures = 0 if self.sign * value < self.previous else self.failures + 1
        self.previous = self.sign * value
        return self.failures == self.patience, self.failures >= self.stop

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        halve, stop = self.update(float(trainer.callback_metrics[self.monitor]))
        for group in trainer.optimizers[0].param_groups if halve else ():
            group["lr"] /= 2
        trainer.should_stop = trainer.should_stop or stop


class MovingAveraging(WeightAveraging):
    """a_n = a_(n-1) + (1 - decay) (w_n - a_(n-1)),  a_0 = w_1: what does not move, such as a part that is not trained,
    stays to the last bit. Of decay a + (1 - decay) w, rounded in every step, it would not."""

    def __init__(self, decay: float) -> None:
        super().__init__(avg_fn=lambda average, now, n: average + (1 - decay) * (now - average))


class WarmAveraging(WeightAveraging):
    """a_n = d a_(n-1) + (1 - d) w_n,  d = min(decay, (1 + n)/(10 + n)),  a_0 = w_0: the averages of torch-ema, which
    DiffSep, SGMSE and StoRM keep. They forget their beginning, whatever the decay."""

    def __init__(self, decay: float) -> None:
        super().__init__(avg_fn=lambda average, now, n: average + (1 - warm_decay(decay, int(n))) * (now - average))

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:
            self._average_model.n_averaged.fill_(1)  # the copy of w_0 counts: at 0 torch would take w_1 as it is


def warm_decay(decay: float, n: int) -> float:
    """The decay in the n-th step, n from 1."""
    return min(decay, (1 + n) / (10 + n))


class PowerAveraging(WeightAveraging):
    """The averages of ema-pytorch (0.6.4 and later), which audio-diffusion-pytorch's trainer keeps: every `every` steps
    a <- d a + (1 - d) w, up to step `after` a copy of w, and in step s the decay

        d = min(decay, max(least, 1 - (1 + s - after)^-power)),    s from 0
    """

    def __init__(self, decay: float, power: float, every: int = 10, after: int = 100, least: float = 0.0) -> None:
        super().__init__(avg_fn=self.average)
        self.decay, self.power, self.every, self.after, self.least = decay, power, every, after, least

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx is not None and step_idx % self.every == 0

    def average(self, average: Tensor, now: Tensor, n: Tensor | int) -> Tensor:
        """The next average, after n of them."""
        since = int(n) * self.every - self.after
        if since <= 0:
            return now
        decay = min(self.decay, max(self.least, 1 - (1 + since) ** -self.power))
        return average + (1 - decay) * (now - average)


class GradientNorms(Callback):
    """Logs the gradient's norm and what is left of it, and clips it to a percentile of all norms so far.

    clip: the trainer's own largest norm, 0 for none, for the log alone. percentile: AutoClip (Seetharaman et al., 2020,
    https://arxiv.org/abs/2007.14469), 0 for none.
    """

    def __init__(self, clip: float, percentile: float) -> None:
        self.clip, self.percentile = clip, percentile
        self.norms: list[float] = []

    def state_dict(self) -> dict[str, Any]:
        return {"norms": self.norms}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.norms = list(state_dict["norms"])

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        every: int = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        told = (trainer.global_step + 1) % every == 0
        if told or self.percentile:
            norm, kept = self.limit([p for group in optimizer.param_groups for p in group["params"]])
            if told:
                pl_module.log_dict({"train/grad_norm": norm, "train/clipped_norm": kept})

    def limit(self, parameters: Sequence[Tensor]) -> tuple[float, float]:
        """(the gradient's norm, what it is clipped to); with a percentile, it is clipped here."""
        moved = [p for p in parameters if p.grad is not None]
        total = torch.nn.utils.get_total_norm([p.grad for p in moved if p.grad is not None])
        norm, most = float(whole(total)), self.clip or float("inf")
        if self.percentile:
            self.norms += [norm] if np.isfinite(norm) else []
            most = min(most, float(np.percentile(self.norms, self.percentile)) if self.norms else most)
            torch.nn.utils.clip_grads_with_norm_(moved, most, total)
        return norm, min(norm, most)


def whole(total: Tensor) -> Tensor:
    """A number that the devices hold in parts, as one."""
    return total.full_tensor() if isinstance(total, DTensor) else total


class TopCheckpoints(ModelCheckpoint):
    """The `count` best checkpoints, as epoch-EEE_NAME-V.VVV.ckpt."""

    def __init__(self, folder: Path, monitor: str, mode: str, count: int) -> None:
        name = f"epoch-{{epoch:03d}}_{monitor.removeprefix('valid/')}-{{{monitor}:.3f}}"
        super().__init__(
            folder,
            name,
            monitor=monitor,
            mode=mode,
            save_top_k=count,
            save_on_train_epoch_end=True,
            auto_insert_metric_name=False,
        )


class Samples(Callback):
    """The first validation items as sound and spectrogram in TensorBoard: what the validation step gives, by name."""

    def __init__(self, count: int, rate: int) -> None:
        self.count, self.rate = count, rate

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        board = next((log.experiment for log in trainer.loggers if isinstance(log, TensorBoardLogger)), None)
        if not trainer.is_global_zero or board is None or batch_idx > 0 or not outputs:
            return
        step = trainer.global_step
        for i in range(min(self.count, min(map(len, outputs.values())))):
            planes = {name: waves[i, 0].float().cpu().numpy() for name, waves in outputs.items()}
            for name, wave in planes.items():
                if name.startswith("estimate") or trainer.current_epoch == 0:  # what is given never changes
                    board.add_audio(f"item{i}/{name}", np.clip(wave, -1, 1)[None], step, self.rate)
            board.add_image(f"item{i}/{', '.join(planes)}", picture(list(planes.values()), self.rate), step)


def picture(waves: list[np.ndarray], rate: int, depth_db: float = 80.0) -> np.ndarray:
    """Spectrograms above one another as a grey image `1 h w` in [0, 1]; low frequencies at the bottom of each."""
    levels = [spectrogram(wave, rate)[::-1] for wave in waves]
    top = max(float(level.max()) for level in levels)
    return np.clip(1 + (np.concatenate(levels) - top) / depth_db, 0, 1)[None].astype(np.float32)
