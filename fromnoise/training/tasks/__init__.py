"""What the loop trains: a loss on a batch, what to hear and to score in validation, and which weights move."""

from fromnoise.training.tasks.base import Trainable
from fromnoise.training.tasks.clips import AutoencodeTask, ClassifyTask, UpsampleTask, VocodeTask
from fromnoise.training.tasks.enhancement import EnhanceTask, RefineTask
from fromnoise.training.tasks.generation import GenerateTask
from fromnoise.training.tasks.separation import SeparateTask

TRAINABLES: dict[str, type[Trainable]] = {
    "autoencode": AutoencodeTask,
    "enhance": EnhanceTask,
    "refine": RefineTask,
    "vocode": VocodeTask,
    "generate": GenerateTask,
    "classify": ClassifyTask,
    "separate": SeparateTask,
    "upsample": UpsampleTask,
}
"""What a recipe's `task` may be."""
