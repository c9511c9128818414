"""What a network is told beside the state and the time, made from what people say."""

from fromnoise.conditioning.labels import LabelEmbedding

__all__ = ["LabelEmbedding"]
