"""The verbs a user calls. A task joins frontend, denoiser and sampler; it knows no files, devices or loggers."""

from fromnoise.tasks.autoencoding import Autoencoder, AutoencodingConfig, AutoencodingModel
from fromnoise.tasks.classification import ClassificationConfig, ClassificationModel, Classifier
from fromnoise.tasks.enhancement import EnhancementConfig, EnhancementModel, Enhancer
from fromnoise.tasks.generation import GenerationConfig, GenerationModel, Generator
from fromnoise.tasks.separation import Separator
from fromnoise.tasks.separation_model import SeparationConfig, SeparationModel
from fromnoise.tasks.upsampling import Upsampler, UpsamplingConfig, UpsamplingModel
from fromnoise.tasks.vocoding import Vocoder, VocodingConfig, VocodingModel

TASKS: dict[str, tuple[type, type, type]] = {
    "autoencode": (AutoencodingConfig, AutoencodingModel, Autoencoder),
    "classify": (ClassificationConfig, ClassificationModel, Classifier),
    "enhance": (EnhancementConfig, EnhancementModel, Enhancer),
    "generate": (GenerationConfig, GenerationModel, Generator),
    "separate": (SeparationConfig, SeparationModel, Separator),
    "upsample": (UpsamplingConfig, UpsamplingModel, Upsampler),
    "vocode": (VocodingConfig, VocodingModel, Vocoder),
}
"""Verb -> its configuration, its model and what `fromnoise.load` returns."""
