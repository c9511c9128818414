"""The published names of NCSN++: `all_modules.N` in the order of construction, and `output_layer`.

    N    content, one number each, in this order
    0    W, the frequencies; then two linear layers, which networks without time lack
         the first convolution
         every level down: (block, [attention]) ..., block to the next level, what joins it with the input
         block, attention, block
         every level up: blocks, [attention], [norm, convolution to the output], block to the next level
         without outputs of every level: norm, convolution

Blocks hold GroupNorm_0, Conv_0, Dense_0, GroupNorm_1, Conv_1, Conv_2; attention GroupNorm_0 and NIN_0 .. NIN_3 (query,
key, value, out) whose W is stored `in out`. Networks without time keep W and every Dense_0, which nothing reads: they
are dropped here and written as zeros. DiffSep stacks all real parts of its waves, then all imaginary parts (`stacked`);
ours alternate, so the weights that meet the input or make the output change places.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from fromnoise.backbones.ncsnpp import NCSNppConfig
from fromnoise.importers.base import State, entry
from fromnoise.types import InputError

KINDS = {  # of a published module: an entry that only this kind has
    "W": "frequencies",
    "NIN_3.W": "attention",
    "Conv_1.weight": "block",
    "Conv2d_0.weight": "conv_join",
    "Conv_0.weight": "join",
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One published tensor. own: our name, or None for what nothing reads. third: of our tensor, whose first axis holds
    query, key and value. transposed: stored the other way round. meets: the axis along which it meets the spectrogram.
    """

    name: str
    shape: tuple[int, ...]
    own: str | None
    third: int | None = None
    transposed: bool = False
    meets: int | None = None


def entries(config: NCSNppConfig) -> list[Entry]:
    """Every tensor of the published network, in its own order."""
    own = {name: tuple(p.shape) for name, p in _outline(config).items()}
    found = list(_layer(own, "leave", "output_layer", meets=0))
    for number, (kind, name) in enumerate(_modules(config)):
        module = f"all_modules.{number}"
        if kind == "frequencies":
            found.append(Entry(f"{module}.W", (config.width,), name if config.timed else None))
        elif kind == "block":
            found += _block(own, name, module, config)
        elif kind == "attention":
            found += _attention(own, name, module)
        else:
            inner = {"join": ".Conv_0", "conv_join": ".Conv2d_0"}.get(kind, "")
            first = name == "down.0.join" or (kind == "join" and config.progressive_input == "input_skip")
            found += _layer(own, name, module + inner, meets=1 if first or name == "enter" else None)
    return found


def _outline(config: NCSNppConfig) -> dict[str, Tensor]:
    with torch.device("meta"):
        return config.build().state_dict()


def _modules(config: NCSNppConfig) -> Iterator[tuple[str, str]]:
    """(kind, our name) of every published module, in order."""
    last = len(config.multipliers) - 1
    yield "frequencies", "embed.frequencies"
    if config.timed:
        yield from (("layer", "embed.first"), ("layer", "embed.second"))
    yield "layer", "enter"
    for level, height in enumerate(config.heights):
        for i in range(config.res_blocks):
            yield "block", f"down.{level}.blocks.{i}"
            if height in config.attention:
                yield "attention", f"down.{level}.attentions.{i}"
        if level < last:
            yield "block", f"down.{level}.resample"
            if config.progressive_input != "none":
                yield "join" if config.progressive_input == "input_skip" else "conv_join", f"down.{level}.join"
    yield from (("block", "bottom.0"), ("attention", "bottom.1"), ("block", "bottom.2"))
    for step, level in enumerate(range(last, -1, -1)):
        yield from (("block", f"up.{step}.blocks.{i}") for i in range(config.res_blocks + 1))
        if config.heights[level] in config.attention:
            yield "attention", f"up.{step}.attention"
        if config.progressive == "output_skip" or level == 0:
            yield from (("layer", f"up.{step}.norm"), ("layer", f"up.{step}.output"))
        if level:
            yield "block", f"up.{step}.resample"


def _layer(own: Mapping[str, tuple[int, ...]], name: str, published: str, meets: int | None = None) -> Iterator[Entry]:
    weight, bias = own[f"{name}.weight"], own[f"{name}.bias"]
    yield Entry(f"{published}.weight", weight, f"{name}.weight", meets=meets)
    yield Entry(f"{published}.bias", bias, f"{name}.bias", meets=0 if meets == 0 else None)


def _block(own: Mapping[str, tuple[int, ...]], name: str, published: str, config: NCSNppConfig) -> Iterator[Entry]:
    yield from _layer(own, f"{name}.norm1", f"{published}.GroupNorm_0")
    yield from _layer(own, f"{name}.conv1", f"{published}.Conv_0")
    if config.timed:
        yield from _layer(own, f"{name}.time", f"{published}.Dense_0")
    else:
        (width,) = own[f"{name}.conv1.bias"]
        yield Entry(f"{published}.Dense_0.weight", (width, 4 * config.width), None)
        yield Entry(f"{published}.Dense_0.bias", (width,), None)
    yield from _layer(own, f"{name}.norm2", f"{published}.GroupNorm_1")
    yield from _layer(own, f"{name}.conv2", f"{published}.Conv_1")
    if f"{name}.shortcut.weight" in own:
        yield from _layer(own, f"{name}.shortcut", f"{published}.Conv_2")


def _attention(own: Mapping[str, tuple[int, ...]], name: str, published: str) -> Iterator[Entry]:
    yield from _layer(own, f"{name}.norm", f"{published}.GroupNorm_0")
    (c,) = own[f"{name}.out.bias"]
    for i in range(4):
        layer, third = (f"{name}.qkv", i) if i < 3 else (f"{name}.out", None)
        yield Entry(f"{published}.NIN_{i}.W", (c, c), f"{layer}.weight", third, transposed=True)
        yield Entry(f"{published}.NIN_{i}.b", (c,), f"{layer}.bias", third)


def to_ours(state: State, config: NCSNppConfig, stacked: bool = False) -> dict[str, Tensor]:
    """The published entries under our names. Raises InputError unless names and shapes are those of `config`."""
    wanted = entries(config)
    lost = [item.name for item in wanted if item.name not in state]
    foreign = sorted(state.keys() - {item.name for item in wanted})
    if lost or foreign:
        words = "lacks" if lost else "has"
        raise InputError(
            f"the checkpoint's NCSN++ {words} {len(lost or foreign)} entries, e.g. {(lost or foreign)[0]!r}, that a "
            f"network of these settings {'has' if lost else 'lacks'}; the file is incomplete or of a modified network"
        )
    weights: dict[str, list[Tensor]] = {}
    for item in wanted:
        value = state[item.name]
        if tuple(value.shape) != item.shape:
            raise InputError(
                f"the entry {item.name!r} has the shape {list(value.shape)}, expected {list(item.shape)}; the file "
                "is of a modified network"
            )
        if item.own is not None:
            value = value.T if item.transposed else value
            order = alternating(value.shape[item.meets]) if stacked and item.meets is not None else None
            value = value if order is None else value.index_select(item.meets or 0, order)
            weights.setdefault(item.own, []).append(value)
    return {own: torch.cat(parts) if len(parts) > 1 else parts[0].contiguous() for own, parts in weights.items()}


def to_published(state: State, config: NCSNppConfig, stacked: bool = False) -> dict[str, Tensor]:
    """Our entries under the published names and in their order: the inverse of `to_ours`."""
    example = next(iter(state.values()))
    found: dict[str, Tensor] = {}
    for item in entries(config):
        if item.own is None:
            found[item.name] = example.new_zeros(item.shape)
            continue
        value = state[item.own]
        value = value if item.third is None else value.chunk(3)[item.third]
        value = value.T if item.transposed else value
        if stacked and item.meets is not None:
            value = value.index_select(item.meets, alternating(value.shape[item.meets]).argsort())
        found[item.name] = value.contiguous()
    return found


def alternating(channels: int) -> Tensor:
    """Where re_0, im_0, re_1, im_1, ... stand among re_0, re_1, ..., im_0, im_1, ...."""
    return torch.arange(channels).reshape(2, -1).T.flatten()


def sizes_of(state: State, bins: int = 256) -> dict[str, Any]:
    """Fields of NCSNppConfig, as names and shapes tell them; `bins` says which height a level has.

    What they do not tell (centered, divide, rescale, the taps) is the publication's. Raises InputError for another
    network's entries; `to_ours` then checks them all.
    """
    modules = list(_published_modules(state))
    kinds = [kind for kind, _ in modules]
    start = kinds.index("conv") if "conv" in kinds else 0
    blocks = [(i, *_axes(module, "Conv_0.weight")) for i, (kind, module) in enumerate(modules) if kind == "block"]
    steps = [i for i, num_out, num_in in blocks if num_out == num_in and "Conv_2.weight" in modules[i][1]]
    plain = [block for block in blocks if block[0] not in steps]
    num_levels = len(steps) // 2 + 1
    res_blocks = sum(i < steps[0] for i, *_ in plain) if steps else (len(plain) - 3) // 2
    if kinds[:1] != ["frequencies"] or start not in (1, 3) or res_blocks < 1 or len(plain) < num_levels * res_blocks:
        raise InputError(
            "the checkpoint's entries are not those of an NCSN++ (all_modules.0.W, a convolution, blocks); expected "
            "the network of DiffSep, SGMSE+ or StoRM"
        )
    width, channels_in = _axes(modules[start][1], "weight")
    firsts = plain[: num_levels * res_blocks : res_blocks]
    lasts = plain[res_blocks - 1 : num_levels * res_blocks : res_blocks]
    joined = _axes(modules[kinds.index("join")][1], "Conv_0.weight")[0] if "join" in kinds else 0
    return {
        "bins": bins,
        "channels_in": channels_in,
        "channels_out": _axes(state, "output_layer.weight")[0],
        "width": width,
        "multipliers": [num_out // width for _, num_out, _ in lasts],
        "res_blocks": res_blocks,
        "attention": [bins >> level for level, (i, *_) in enumerate(firsts) if kinds[i + 1 : i + 2] == ["attention"]],
        "progressive": "output_skip" if kinds.count("norm") == num_levels else "none",
        "progressive_input": "input_skip" if "join" in kinds else "residual" if "conv_join" in kinds else "none",
        "combine": "cat" if joined and num_levels > 1 and firsts[1][2] == 2 * joined else "sum",
        "timed": start == 3,
    }


def _axes(module: State, key: str) -> tuple[int, int]:
    """Outputs and inputs of a convolution."""
    num_out, num_in, *_ = entry(module, key, 4)
    return num_out, num_in


def _published_modules(state: State) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """(kind, entries) of every published module, in order."""
    modules: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        match = re.fullmatch(r"all_modules\.(\d{1,4})\.(.+)", key)
        if match:
            modules.setdefault(int(match[1]), {})[match[2]] = value
    for _, inner in sorted(modules.items()):
        kind = next((kind for key, kind in KINDS.items() if key in inner), None)
        axes = inner["weight"].ndim if "weight" in inner else 0
        yield kind or {1: "norm", 2: "linear", 4: "conv"}.get(axes, "unknown"), inner
