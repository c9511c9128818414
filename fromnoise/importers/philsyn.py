"""WaveNet checkpoints of philsyn's DiffWave (vocoder and unconditional) and of diffwave-sashimi: one set of names.

Kong et al., "DiffWave", 2021, https://arxiv.org/abs/2009.09761. All published ones were trained by code that adds the
step embedding to the block's input in place, so that it also enters the residual path: `residual_includes_step`. The
file holds old-style weight norm, g as `weight_g` and v as `weight_v`; both stay. A checkpoint without the last block's
`res_conv`, which no output depends on and no training reached, gets a zero there.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.backbones.wavenet import WaveNet
from fromnoise.importers.base import (
    Clues,
    Draft,
    Layout,
    Schedule,
    State,
    collect,
    count,
    entry,
    normed,
    plain,
    schedule_of,
    sound_of,
    whole,
)
from fromnoise.types import InputError

BLOCKS = "residual_layer.residual_blocks"
CYCLES = {30: 10, 36: 12}  # published number of layers -> dilation cycle


def recognises(state: State) -> bool:
    return "residual_layer.fc_t1.weight" in state and any(key.startswith(f"{BLOCKS}.0.") for key in state)


def draft(state: State, clues: Clues) -> Draft:
    """See `Layout`."""
    sizes, notes = sizes_of(state), {}
    said = clues.config.get("wavenet_config", {})
    require_equal(sizes, said)
    cycle = cycle_of(sizes["num_layers"], said, notes)
    backbone = {"name": "wavenet", **sizes, "dilation_cycle": cycle, "residual_includes_step": True}
    notes["residual_includes_step"] = (
        "residual_includes_step=true, as in all published weights of these names (for those that corrected code "
        "trained, --set residual_includes_step=false)"
    )
    large = not sizes["mel_bands"] or sizes["residual_channels"] >= 128
    schedule = schedule_of(clues, Schedule(200, 0.02) if large else Schedule(50, 0.05), notes)
    whole_state = with_last_residual(state, sizes)
    drafted = Draft(backbone, collect(whole_state, names(sizes)), schedule, notes=notes)
    sound_of(drafted, clues)
    return drafted


def cycle_of(layers: int, said: Mapping[str, Any], notes: dict[str, str]) -> int:
    """The dilation cycle of the configuration, of the published model with so many layers, or a guess; with a note."""
    if "dilation_cycle" in said:
        return whole(said["dilation_cycle"], "dilation_cycle")
    cycle = CYCLES.get(layers, 12 if layers % 12 == 0 else 10)
    source = f"as the published models of {layers} layers" if layers in CYCLES else "a guess"
    notes["dilation_cycle"] = f"dilation_cycle={cycle}, {source}; shapes do not tell it (--set dilation_cycle=N)"
    return cycle


def sizes_of(state: State) -> dict[str, Any]:
    """Fields of WaveNetConfig, as the shapes tell them."""
    channels, num_in, _ = entry(state, "init_conv.0.conv.weight_v", 3)
    num_out = entry(state, "final_conv.2.conv.weight", 3)[0]
    if num_in != 1 or num_out != 1:
        raise InputError(f"the network takes {num_in} and gives {num_out} channels; fromnoise's takes and gives one")
    mid, embed_in = entry(state, "residual_layer.fc_t1.weight", 2)
    mel = f"{BLOCKS}.0.mel_conv.conv.weight_v"
    stages = count(state, rf"{BLOCKS}\.0\.upsample_conv2d\.(\d+)\.")
    kernels = [entry(state, f"{BLOCKS}.0.upsample_conv2d.{i}.weight_v", 4)[3] for i in range(stages)]
    return {
        "residual_channels": channels,
        "skip_channels": entry(state, "final_conv.0.conv.weight_v", 3)[0],
        "num_layers": count(state, rf"{BLOCKS}\.(\d+)\."),
        "mel_bands": entry(state, mel, 3)[1] if mel in state else 0,
        "mel_upsample": [kernel // 2 for kernel in kernels] or [16, 16],
        "embed_in": embed_in,
        "embed_mid": mid,
        "embed_out": entry(state, "residual_layer.fc_t2.weight", 2)[0],
    }


def require_equal(sizes: Mapping[str, Any], said: Mapping[str, Any]) -> None:
    """Raises InputError where a configuration contradicts the shapes."""
    published = {
        "res_channels": "residual_channels",
        "skip_channels": "skip_channels",
        "num_res_layers": "num_layers",
        "diffusion_step_embed_dim_in": "embed_in",
        "diffusion_step_embed_dim_mid": "embed_mid",
        "diffusion_step_embed_dim_out": "embed_out",
    }
    for theirs, ours in published.items():
        if said.get(theirs, sizes[ours]) != sizes[ours]:
            raise InputError(
                f"the configuration says {theirs}={said[theirs]!r}, the checkpoint has {sizes[ours]}; they belong to "
                "different models"
            )


def with_last_residual(state: State, sizes: Mapping[str, Any]) -> State:
    """The state with the last block's res_conv, which may be missing: w = g v/|v| with g = 0."""
    channels, name = sizes["residual_channels"], f"{BLOCKS}.{sizes['num_layers'] - 1}.res_conv"
    zero = {
        f"{name}.bias": torch.zeros(channels),
        f"{name}.weight_g": torch.zeros(channels, 1, 1),
        f"{name}.weight_v": torch.ones(channels, channels, 1),
    }
    return state if any(key in state for key in zero) else {**state, **zero}


def names(sizes: Mapping[str, Any]) -> dict[str, str]:
    """Our name -> the published one."""
    found = normed("input", "init_conv.0.conv") | normed("skip", "final_conv.0.conv")
    found |= plain("output", "final_conv.2.conv")
    found |= plain("embed.first", "residual_layer.fc_t1") | plain("embed.second", "residual_layer.fc_t2")
    for i in range(sizes["num_layers"]):
        own, block = f"blocks.{i}", f"{BLOCKS}.{i}"
        found |= plain(f"{own}.step", f"{block}.fc_t") | normed(f"{own}.dilated", f"{block}.dilated_conv_layer.conv")
        found |= normed(f"{own}.residual", f"{block}.res_conv") | normed(f"{own}.skip", f"{block}.skip_conv")
        if sizes["mel_bands"]:
            found |= normed(f"{own}.mel", f"{block}.mel_conv.conv")
            for k in range(len(sizes["mel_upsample"])):
                found |= normed(f"{own}.upsampler.layers.{k}", f"{block}.upsample_conv2d.{k}")
    return found


def export_state(network: nn.Module) -> dict[str, Tensor]:
    """See `Layout`."""
    fixed = {"weight_norm": True, "rising_steps": False, "vector_dim": 0, "signal_channels": 0}
    config = network.config if isinstance(network, WaveNet) else None
    if config is None or fixed.items() - vars(config).items() or (config.mel_bands and config.shared_upsampler):
        raise InputError(
            "the layout 'philsyn' is for a wavenet with weight norm, falling step frequencies, an upsampler in every "
            "block and no labels; keep fromnoise's own format for others"
        )
    own = network.state_dict()
    return {there: own[here] for here, there in names(vars(config)).items()}


LAYOUT = Layout(
    "DiffWave of philsyn, vocoder or unconditional; the WaveNet of diffwave-sashimi", recognises, draft, export_state
)
