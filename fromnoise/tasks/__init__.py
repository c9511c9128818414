"""The verbs a user calls. A task joins frontend, denoiser and sampler; it knows no files, devices or loggers."""

from fromnoise.tasks.enhancement import EnhancementConfig, EnhancementModel, Enhancer

TASKS: dict[str, tuple[type, type, type]] = {"enhance": (EnhancementConfig, EnhancementModel, Enhancer)}
"""Verb -> its configuration, its model and what `fromnoise.load` returns."""
