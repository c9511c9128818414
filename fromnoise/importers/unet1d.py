"""The networks of audio-diffusion-pytorch: their entries under our names, and sizes from shapes.

Every plugin nests one level of `blocks` around the network inside: appended channels `blocks.0`; the learned transform
`blocks.0`, `blocks.1` around `blocks.2`; the time's features `blocks.0`, `blocks.1` around `blocks.2`; the table for no
text `blocks.0.blocks.0` around `blocks.1`. The levels are under `net`: `block.blocks.k` counts downsampling, items,
the level below, items, upsampling. The two layers of the time's features are one layer, stored under two names.
"""

import math
from collections.abc import Mapping
from typing import Any

from fromnoise.backbones import BACKBONES, ENCODERS
from fromnoise.backbones.encoder1d import Block, Encoder1d, Encoder1dConfig
from fromnoise.backbones.unet1d import Level, UNet1d, UNet1dConfig
from fromnoise.backbones.unet_items import Attention, Inject, Modulation, ResNet
from fromnoise.importers.base import State, count, entry, plain
from fromnoise.types import InputError, build

Names = dict[str, str]  # ours -> the published one
TWICE = ("blocks.1.blocks.0.0", "blocks.1.blocks.1.0")  # one layer, behind the prefix of the time's plugin
KINDS = {
    "resnet": "block.blocks.0.blocks.0.0.weight",
    "modulation": "blocks.0.block.blocks.0.1.weight",
    "inject": "block.blocks.0.weight",
    "attention": "blocks.0.block.to_q.weight",
    "level": "block.blocks.0.block.weight",
    "up": "block.1.weight",
}
HEAD = 64  # features of an attention head, of which shapes only tell the sum


def names(network: UNet1d, appended: bool = True) -> Names:
    """Our names -> the published ones. appended: whether the signal's channels come by the plugin, or are declared as
    channels of x. Raises InputError for what the published network has not."""
    config, found = network.config, {}
    prefix = "blocks.0." if config.signal_channels and appended else ""
    if network.vector is not None or any(config.feed_forwards):
        raise InputError("audio-diffusion-pytorch has no feed-forward items and no map of a vector; keep our format")
    if config.num_filters:
        found |= {"encoder.weight": f"{prefix}blocks.0.weight", "decoder.weight": f"{prefix}blocks.1.weight"}
        prefix += "blocks.2."
    if network.time is not None:
        found |= {"time.frequencies": f"{prefix}blocks.0.weights"} | plain("time.embed", f"{prefix}blocks.0.to_out")
        for own, there in zip(("first", "second") if network.time.second else ("first",), TWICE, strict=False):
            found |= plain(f"time.{own}", prefix + there)
        prefix += "blocks.2."
    if network.nothing is not None:
        found["nothing"] = f"{prefix}blocks.0.blocks.0.weight"
        prefix += "blocks.1."
    return found | _level_names(network.top, "top", f"{prefix}net")


def _level_names(level: Level, own: str, there: str) -> Names:
    found = plain(f"{own}.down", f"{there}.block.blocks.0.block")
    k = 1
    for i, item in enumerate(level.items_down):
        found |= _item_names(item, f"{own}.items_down.{i}", f"{there}.block.blocks.{k + i}")
    k += len(level.items_down)
    if level.inner is not None:
        found |= _level_names(level.inner, f"{own}.inner", f"{there}.block.blocks.{k}")
        k += 1
    for i, item in enumerate(level.items_up):
        found |= _item_names(item, f"{own}.items_up.{i}", f"{there}.block.blocks.{k + i}")
    found |= plain(f"{own}.up", f"{there}.block.blocks.{k + len(level.items_up)}.block.1")
    if level.skip is not None:
        found |= plain(f"{own}.skip", f"{there}.skip_adapter.block")
    merge = {"linear": f"{there}.skip.blocks.0.1", "mix": f"{there}.skip.blocks.0"}
    for kind, _ in level.merge.named_children():
        found |= plain(f"{own}.merge.{kind}", merge[kind])
    return found


def _item_names(item: object, own: str, there: str) -> Names:
    match item:
        case ResNet():
            pairs = {f"{own}.{kind}{i + 1}": f"{i}.{k}" for i in (0, 1) for kind, k in (("norm", 0), ("conv", 2))}
            return {
                o: t for mine, k in pairs.items() for o, t in plain(mine, f"{there}.block.blocks.0.blocks.{k}").items()
            }
        case Modulation():
            return plain(f"{own}.linear", f"{there}.blocks.0.block.blocks.0.1")
        case Inject():
            return plain(f"{own}.mix", f"{there}.block.blocks.0")
        case Attention():
            inner = f"{there}.blocks.0.block"
            found = plain(f"{own}.norm", f"{inner}.norm") | plain(f"{own}.norm_context", f"{inner}.norm_context")
            parts = {"queries": "to_q", "pairs": "to_kv", "out": "attention.blocks.0"}
            return found | {f"{own}.{mine}.weight": f"{inner}.{part}.weight" for mine, part in parts.items()}
    raise InputError(f"audio-diffusion-pytorch has no item {type(item).__name__}; keep fromnoise's own format")


def config_of(state: State, settings: Mapping[str, Any], notes: dict[str, str]) -> UNet1dConfig:
    """The sizes of a network by its entries, with what the user says of it; notes gets what is assumed."""
    prefix, appended = "", False
    fields: dict[str, Any] = {"use_time_conditioning": False, "use_modulation": False}
    while f"{prefix}net.block.blocks.0.block.weight" not in state:
        prefix, found = _plugin(state, prefix, notes)
        appended |= not found
        fields |= found
    levels, there = [], f"{prefix}net"
    while there:
        level, there = _level_sizes(state, there)
        levels.append(level)
    dim = state[f"{prefix}net.block.blocks.0.block.weight"].ndim - 2
    shown = entry(state, f"{prefix}net.block.blocks.0.block.weight", dim + 2)[1]
    last = f"{prefix}net.block.blocks.{count(state, re_number(prefix + 'net')) - 1}.block.1.bias"
    filters = fields.get("num_filters", 1)
    out = entry(state, last, 1)[0] // filters
    signal = shown // filters - out if appended else 0
    fields |= {"dim": dim, "in_channels": shown // filters - signal, "out_channels": out, "signal_channels": signal}
    fields |= {"use_modulation": any(level["modulated"] for level in levels)}
    fields |= {name: [level[name] for level in levels] for name in ("channels", "factors", "items", "context_channels")}
    fields |= _attention_sizes(levels, fields.get("embedding_features", 0), settings, notes)
    if "resnet_groups" not in settings:
        notes["resnet_groups"] = "resnet_groups=8; shapes do not tell it (--set resnet_groups=N)"
    return build("backbone", BACKBONES, {"name": "unet1d", **fields, **settings})


def re_number(there: str) -> str:
    """A pattern for the numbers of a level's parts."""
    return there.replace(".", r"\.") + r"\.block\.blocks\.(\d+)\."


def _plugin(state: State, prefix: str, notes: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """The prefix of what a plugin is around, and the fields that it stands for (none: appended channels)."""
    if f"{prefix}blocks.0.weights" in state:
        features = entry(state, f"{prefix}blocks.0.to_out.weight", 2)[0]
        tied = f"{prefix}{TWICE[1]}.weight" not in state
        fields = {"use_time_conditioning": True, "modulation_features": features, "tied_time": tied}
        return f"{prefix}blocks.2.", fields
    if f"{prefix}blocks.0.weight" in state and f"{prefix}blocks.1.weight" in state:
        out, own, window = entry(state, f"{prefix}blocks.0.weight", 3)
        notes["stride"] = (
            f"stride={window} of the learned transform, its window; shapes do not tell it (--set stride=N)"
        )
        return f"{prefix}blocks.2.", {"num_filters": out // own, "window_length": window, "stride": window}
    if f"{prefix}blocks.0.blocks.0.weight" in state and any(key.startswith(f"{prefix}blocks.1.") for key in state):
        rows, width = entry(state, f"{prefix}blocks.0.blocks.0.weight", 2)
        return f"{prefix}blocks.1.", {"embedding_max_length": rows, "embedding_features": width}
    if any(key.startswith(f"{prefix}blocks.0.") for key in state):
        return f"{prefix}blocks.0.", {}
    raise InputError(
        f"no network of audio-diffusion-pytorch lies under {prefix!r}: expected the entry "
        "'net.block.blocks.0.block.weight' or those of a plugin; one with a text encoder inside is not supported"
    )


def _level_sizes(state: State, there: str) -> tuple[dict[str, Any], str]:
    """A level's sizes, and where the one below it lies ("" for none)."""
    down = state[f"{there}.block.blocks.0.block.weight"]
    c = down.shape[0]
    kinds = []
    for k in range(1, count(state, re_number(there))):
        part = f"{there}.block.blocks.{k}"
        kind = next((name for name, key in KINDS.items() if f"{part}.{key}" in state), None)
        if kind is None:
            raise InputError(f"{part!r} is no part of the published network: expected one of {', '.join(KINDS)}")
        kinds.append(kind)
    below = kinds.index("level") if "level" in kinds else len(kinds) // 2
    side = kinds[:below]
    size = next((i for i, kind in enumerate(side[1:], 1) if kind == "resnet"), len(side))
    group = [(kind, f"{there}.block.blocks.{k}") for k, kind in enumerate(side[:size], 1)]
    attentions = [f"{part}.blocks.0.block" for kind, part in group if kind == "attention"]
    inject = next((part for kind, part in group if kind == "inject"), None)
    sizes = {
        "channels": c,
        "factors": down.shape[2],
        "items": side.count("resnet"),
        "modulated": "modulation" in side,
        "context_channels": 0 if inject is None else state[f"{inject}.block.blocks.0.weight"].shape[1] - c,
        "widths": [entry(state, f"{part}.norm_context.weight", 1)[0] for part in attentions],
        "inner": [entry(state, f"{part}.to_q.weight", 2)[0] for part in attentions],
    }
    return sizes, f"{there}.block.blocks.{below + 1}" if "level" in kinds else ""


def _attention_sizes(
    levels: list[dict[str, Any]], context: int, settings: Mapping[str, Any], notes: dict[str, str]
) -> dict[str, Any]:
    """Which attentions are to a context, and how wide. A self-attention reads as many numbers as its level has."""
    inner = {width for level in levels for width in level["inner"]}
    if not inner:
        return {}
    others = {width for level in levels for width in level["widths"] if width != level["channels"]}
    if len(inner) != 1 or len(others | ({context} if context else set())) > 1:
        raise InputError(f"its attentions are {sorted(inner)} wide and read {sorted(others)}; expected one width each")
    context, (width,) = context or next(iter(others), 0), inner
    crosses = [sum(w == context for w in level["widths"]) for level in levels]
    for number, level in enumerate(levels):
        if level["channels"] == context:  # the group ends with its cross-attentions; most networks have one
            crosses[number] = min(1, crosses[number])
    features = settings.get("attention_features", HEAD)
    if "attention_features" not in settings:
        notes["attention_features"] = f"attention heads of {HEAD}; shapes do not tell it (--set attention_features=N)"
    if not isinstance(features, int) or features < 1 or width % features:
        raise InputError(f"its attentions are {width} wide; say how wide a head is (--set attention_features=N)")
    selves = [len(level["widths"]) - crossing for level, crossing in zip(levels, crosses, strict=True)]
    fields = {"attention_features": features, "attention_heads": width // features, "embedding_features": context}
    return fields | {"attentions": selves, "cross_attentions": crosses}


def encoder_names(encoder: Encoder1d) -> Names:
    """Our names of an Encoder1d, ME1d or MelE1d -> the published ones."""
    found = _block_names(encoder.enter, "enter", "to_in.block")
    for i, level in enumerate(encoder.levels):
        found |= plain(f"levels.{i}.0", f"downsamples.{i}.downsample")
        for j, block in enumerate(list(level.children())[1:]):
            found |= _block_names(block, f"levels.{i}.{j + 1}", f"downsamples.{i}.blocks.{j}")
    return found | (plain("out", "to_out") if encoder.out is not None else {})


def _block_names(block: object, own: str, there: str) -> Names:
    assert isinstance(block, Block)
    found: Names = {}
    for i in (1, 2):
        found |= plain(f"{own}.norm{i}", f"{there}.block{i}.groupnorm")
        found |= plain(f"{own}.conv{i}", f"{there}.block{i}.project")
    return found | (plain(f"{own}.skip", f"{there}.to_out") if block.skip is not None else {})


def encoder_of(state: State, settings: Mapping[str, Any], notes: dict[str, str]) -> Encoder1dConfig:
    """The sizes of an Encoder1d (no window stored) or a ME1d by its entries, with what the user says of it."""
    first, shown, _ = entry(state, "to_in.block.block1.project.weight", 3)
    patch = settings.get("patch_size", 1)
    downs = [
        entry(state, f"downsamples.{i}.downsample.weight", 3) for i in range(count(state, r"downsamples\.(\d+)\."))
    ]
    widths = [first * patch, *(down[0] for down in downs)]
    channels = math.gcd(*widths)
    fields: dict[str, Any] = {"in_channels": shown, "channels": channels, "front": None}
    if "stft.window" in state:
        n_fft = entry(state, "stft.window", 1)[0]
        hop = -(-n_fft // 4)
        fields |= {"in_channels": shown // (n_fft // 2 + 1), "front": {"name": "magnitude", "n_fft": n_fft, "hop": hop}}
        notes["front"] = f"a hop of {hop}, a quarter of the encoder's window, and linear magnitudes, as published"
    fields["multipliers"] = [width // channels for width in widths]
    fields["factors"] = [(down[2] - 1) // 2 for down in downs]
    fields["num_blocks"] = [count(state, rf"downsamples\.{i}\.blocks\.(\d+)\.") for i in range(len(downs))]
    fields["out_channels"] = entry(state, "to_out.weight", 3)[0] if "to_out.weight" in state else 0
    notes["bottleneck"] = "a latent bounded by tanh, which no entry tells"
    return build("encoder", ENCODERS, {"name": "encoder1d", **fields, **settings})
