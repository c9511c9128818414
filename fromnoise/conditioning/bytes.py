"""A small text encoder that learns with its model: bytes, attention, no vocabulary and nothing to download.

    h = E[start, byte_1, ..., byte_L] + P      UTF-8 of the text in lower case; P: sines and cosines of the position
    h = h + Attention(Norm h),   h = h + W2 GELU(W1 Norm h)      each layer; padding is not attended to
    context = Norm(h),   vector = context[start] + Norm(mean of T over the parts of the words)

Attention over letters needs many steps before it tells a few dozen captions apart; the second term does so from the
first: the words, and their pieces of 3 to 5 letters with < and > at the ends, are rows of a table T of `parts` rows,
found by a hash (Bojanowski et al., "Enriching Word Vectors with Subword Information", 2017,
https://arxiv.org/abs/1607.04606). parts = 0: without it.

The layers are those of the Transformer (Vaswani et al., 2017, https://arxiv.org/abs/1706.03762) with the norms in front
(Xiong et al., 2020, https://arxiv.org/abs/2002.04745); bytes in place of words as in ByT5 (Xue et al., 2022,
https://arxiv.org/abs/2105.13626): any script and any misspelling can be read. No text at all is `start` alone.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from fromnoise.conditioning.base import TextConfig, TextEncoder, tidy
from fromnoise.types import Condition

START, PAD = 256, 257
PIECES = (3, 4, 5)  # letters


@dataclass(frozen=True)
class Bytes(TextConfig):
    """dim: width throughout, layers and heads of it. max_bytes: what is read of a text; English has one a letter.
    parts: rows of the table of parts of words, 0 for none."""

    dim: int = 192
    layers: int = 2
    heads: int = 3
    max_bytes: int = 160
    parts: int = 0

    def __post_init__(self) -> None:
        sized = min(self.dim, self.heads, self.max_bytes) > 0 and min(self.layers, self.parts) >= 0
        if not sized or self.dim % (2 * self.heads):
            raise ValueError(f"expected positive sizes and a dim that divides into 2 x heads, got {self}")

    @property
    def max_words(self) -> tuple[int, str]:
        return self.max_bytes, "bytes"

    def build(self, nothing: bool = True) -> "BytesEncoder":
        return BytesEncoder(self)


class BytesEncoder(TextEncoder):
    """See the module's text."""

    def __init__(self, config: Bytes) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Embedding(258, config.dim)
        self.layers = nn.ModuleList(Layer(config.dim, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)
        self.parts = nn.EmbeddingBag(config.parts, config.dim, mode="mean") if config.parts else None
        self.parts_norm = nn.LayerNorm(config.dim) if config.parts else None

    def is_cut(self, text: str) -> bool:
        return len(raw(text)) > self.config.max_bytes

    def forward(self, texts: Sequence[str]) -> Condition:
        numbers = numbered(texts, self.config.max_bytes).to(self.table.weight.device)
        mask = numbers != PAD
        h = self.table(numbers)
        h = h + positions(h)
        for layer in self.layers:
            h = layer(h, mask)
        context = self.norm(h)
        vector = context[:, 0]
        if self.parts is not None and self.parts_norm is not None:
            vector = vector + self.parts_norm(self._bag(texts, self.parts))
        return Condition(context=context, mask=mask, vector=vector)

    def _bag(self, texts: Sequence[str], table: nn.EmbeddingBag) -> Float[Tensor, "b d"]:
        """The mean of the rows of each text's parts, zeros of a text without any."""
        rows = [parts_of(text, self.config.max_bytes, self.config.parts) for text in texts]
        firsts = [sum(map(len, rows[:i])) for i in range(len(rows))]
        device = table.weight.device
        return table(
            torch.tensor([row for found in rows for row in found], dtype=torch.int64, device=device),
            torch.tensor(firsts, dtype=torch.int64, device=device),
        )


def raw(text: str) -> bytes:
    """One line in lower case; half a character, which has no UTF-8, is a question mark."""
    return tidy(text).lower().encode(errors="replace")


def numbered(texts: Sequence[str], size: int) -> Int64[Tensor, "b l"]:
    """START and the first `size` bytes of each text, filled to the longest with PAD."""
    rows = [[START, *raw(text)[:size]] for text in texts]
    longest = max(map(len, rows), default=1)
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows], dtype=torch.int64)


def parts_of(text: str, size: int, rows: int) -> list[int]:
    """The rows of the words in the first `size` bytes, and of their pieces."""
    found = []
    for word in raw(text)[:size].decode(errors="ignore").split():
        whole = f"<{word}>"
        pieces = [whole[i : i + n] for n in PIECES for i in range(len(whole) - n + 1) if n < len(whole)]
        found += [zlib.crc32(part.encode()) % rows for part in (whole, *pieces)]
    return found


def positions(like: Float[Tensor, "b l d"]) -> Float[Tensor, "l d"]:
    """Sines and cosines of the position at rates from 1 to 1/1000 rad, of the size that the table's rows have."""
    half = like.shape[-1] // 2
    rate = torch.exp(torch.arange(half, device=like.device, dtype=torch.float32) * (-math.log(1e3) / max(half - 1, 1)))
    angle = torch.arange(like.shape[1], device=like.device, dtype=torch.float32)[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], -1).to(like.dtype)


class Layer(nn.Module):
    """Attention over the text, then each position by itself; both residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.second_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, h: Float[Tensor, "b l d"], mask: Bool[Tensor, "b l"]) -> Float[Tensor, "b l d"]:
        b, length, d = h.shape
        q, k, v = self.mix(self.norm(h)).reshape(b, length, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
        h = h + self.out(y.transpose(1, 2).reshape(b, length, d))
        return h + self.narrow(F.gelu(self.wide(self.second_norm(h))))
