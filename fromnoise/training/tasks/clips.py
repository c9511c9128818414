"""What learns from clips alone: vocoders, upsamplers, autoencoders, and with a label each, classifiers."""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from fromnoise.evaluation.speech import check_names
from fromnoise.recipes.base import Recipe
from fromnoise.samplers import PositionNoise
from fromnoise.tasks.autoencoding import AutoencodingModel, channels_of
from fromnoise.tasks.classification import ClassificationModel
from fromnoise.tasks.upsampling import UpsamplingModel
from fromnoise.tasks.vocoding import VocodingModel
from fromnoise.training.tasks.base import (
    Batch,
    Judged,
    OnFixedDraws,
    require_channels,
    require_equal_labels,
    require_scores,
    speech_scores,
)


class VocodeTask(OnFixedDraws[VocodingModel]):
    """Trains a vocoder's backbone; the mel is made from the clip itself."""

    @property
    def trained(self) -> str:
        return "denoiser"

    @staticmethod
    def require(recipe: Recipe) -> None:
        check_names(recipe.scores)
        require_channels(recipe, 1)

    def loss(self, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        """Loss of each item, drawn with `generator`; what lies above a clip's own band does not count."""
        return self.model.loss(batch["clean"], self.recipe.objective(), generator, batch.get("band_hz"))

    def judge(self, batch: Batch, seeds: Sequence[int], scores: Sequence[str], rate: int) -> Judged:
        """Waves from the clips' mels by the model's own run, one seed an item."""
        clean = batch["clean"]
        wave = self.model.sample(self.model.mel.encode(clean), PositionNoise(seeds), self.model.default_run())
        sounds = {"estimate": wave[..., : clean.shape[-1]].float(), "clean": clean}
        return speech_scores(clean, sounds["estimate"], scores, rate), sounds


class UpsampleTask(OnFixedDraws[UpsamplingModel]):
    """Trains an upsampler's backbone; the low version is made from the clip itself."""

    @property
    def trained(self) -> str:
        return "denoiser"

    @staticmethod
    def require(recipe: Recipe) -> None:
        check_names(recipe.scores)
        require_channels(recipe, getattr(recipe.backbone, "in_channels", 1))

    def loss(self, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        return self.model.loss(batch["clean"], self.recipe.objective(), generator)

    def judge(self, batch: Batch, seeds: Sequence[int], scores: Sequence[str], rate: int) -> Judged:
        """The clips brought to the low rate and back by the model's own run, one seed an item, their first channel."""
        clean = batch["clean"]
        low = self.model.lower(clean.expand(-1, self.model.channels, -1))
        gain = self.model.gain_of(low)
        wave = self.model.restore(low * gain, PositionNoise(seeds), self.model.default_run()).float() / gain
        lifted = self.model.up(low)[:, :1, : clean.shape[-1]]
        sounds = {"lifted": lifted, "estimate": wave[:, :1, : clean.shape[-1]], "clean": clean[:, :1]}
        return speech_scores(sounds["clean"], sounds["estimate"], scores, rate), sounds


class AutoencodeTask(OnFixedDraws[AutoencodingModel]):
    """Trains an autoencoder, encoder and decoder at once."""

    @staticmethod
    def require(recipe: Recipe) -> None:
        require_scores(recipe, ())
        require_channels(recipe, channels_of(recipe.frontend, recipe.encoder))

    def loss(self, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        return self.model.loss(batch["clean"], self.recipe.objective(), generator)

    def judge(self, batch: Batch, seeds: Sequence[int], scores: Sequence[str], rate: int) -> Judged:
        """The clips there and back by the model's own run, one seed an item, their first channel."""
        clean = batch["clean"]
        latent = self.model.encode(clean.expand(-1, self.model.channels, -1))
        noise = partial(PositionNoise, seeds)
        wave = self.model.decode(latent, clean.shape[-1], noise, self.model.default_run())
        return {}, {"estimate": wave[:, :1].float(), "clean": clean[:, :1]}


class ClassifyTask(OnFixedDraws[ClassificationModel]):
    """Trains a classifier; its score is the accuracy."""

    needs = ("clean", "label")

    @property
    def trained(self) -> str:
        return "network"

    @staticmethod
    def require(recipe: Recipe) -> None:
        require_scores(recipe, ("accuracy",))
        require_equal_labels(recipe)
        require_channels(recipe, 1)

    def loss(self, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        """Cross entropy of each item, of a copy changed by draws with `generator`."""
        return self.model.loss(batch["clean"], batch["label"], generator)

    def judge(self, batch: Batch, seeds: Sequence[int], scores: Sequence[str], rate: int) -> Judged:
        """The share of right answers; nothing to hear."""
        right = float(self.model.accuracy(batch["clean"], batch["label"]).mean())
        return dict.fromkeys(scores, right), {}
