"""What a network is told beside the state and the time, made from what people say."""

from fromnoise.conditioning.base import NOTHING, TextConfig, TextEncoder
from fromnoise.conditioning.bytes import Bytes
from fromnoise.conditioning.durations import DurationEmbedding
from fromnoise.conditioning.labels import LabelEmbedding
from fromnoise.conditioning.pretrained import T5, MiniLM

TEXTS: dict[str, type] = {"bytes": Bytes, "minilm": MiniLM, "t5": T5}
"""Text encoders by name."""

__all__ = [
    "NOTHING",
    "T5",
    "TEXTS",
    "Bytes",
    "DurationEmbedding",
    "LabelEmbedding",
    "MiniLM",
    "TextConfig",
    "TextEncoder",
]
