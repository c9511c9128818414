"""Checkpoints of lmnt's DiffWave: `weights-<step>.pt`.

Kong et al., "DiffWave", 2021, https://arxiv.org/abs/2009.09761, with other choices: no weight norm, one mel upsampler
for all blocks, steps as rows of a float32 table of rising frequencies, interpolated between rows, states clamped to
[-1, 1] after every sampling step. Its gate takes the sigmoid from the first half of the channels and tanh from the
second, ours the other way round, so the halves of what enters it change places; its one output convolution a block is
our residual and skip convolutions, in that order. Weights before September 2020 hold the step projections as 1x1
convolutions. `params`, which old files lack, says the schedule and the mel. `cdiffuse` and `dose` are of this network.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.backbones.wavenet import WaveNet
from fromnoise.frontends.mel import MELS, Mel
from fromnoise.importers import base
from fromnoise.importers.base import Clues, Draft, Layout, Schedule, State, collect, count, entry, number, plain, whole
from fromnoise.types import InputError, require_type

STRIDES = (16, 16)
GATED = re.compile(r"\.(dilated|mel)\.")  # what enters the gate
TABLE = "diffusion_embedding.embedding"  # the sinusoids, which very old files hold too
FIXED = {"weight_norm": False, "rising_steps": True, "residual_includes_step": False}
SPECTRUM_BINS = 513  # of DiffuSE's condition; the mels of this network have fewer


def recognises(state: State) -> bool:
    mel = state.get("residual_layers.0.conditioner_projection.weight")
    return (
        is_of_this_network(state)
        and "input_projection.weight" in state
        and "residual_layers.0.output_residual.weight" not in state
        and "version46_input_projection.weight" not in state
        and (mel is None or mel.shape[1:2] != (SPECTRUM_BINS,))
    )


def is_of_this_network(state: State) -> bool:
    """Whether the names are of this network, or of one that was made from it."""
    return "residual_layers.0.dilated_conv.weight" in state and "diffusion_embedding.projection1.weight" in state


def draft(state: State, clues: Clues) -> Draft:
    """See `Layout`."""
    params, notes = params_of(clues), {}
    backbone, weights = network_of(state, params, notes)
    schedule = schedule_of(clues, Schedule(50, 0.05), notes)
    drafted = Draft(backbone, weights, schedule, clamp=True, notes=notes)
    drafted.mel = mel_of(backbone["mel_bands"], params, notes)
    drafted.sample_rate = whole(params.get("sample_rate", 22050), "sample_rate")
    drafted.seconds = number(params.get("audio_len", 5 * drafted.sample_rate), "audio_len") / drafted.sample_rate
    return drafted


def params_of(clues: Clues) -> Mapping[str, Any]:
    """The settings that the file holds."""
    params = clues.content.get("params")
    return params if isinstance(params, Mapping) else {}


def network_of(
    state: State, params: Mapping[str, Any], notes: dict[str, str]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Spec and weights of the backbone."""
    state = {key: value for key, value in state.items() if key != TABLE}
    sizes = sizes_of(state)
    require_equal(sizes, params)
    if "dilation_cycle_length" in params:
        cycle = whole(params["dilation_cycle_length"], "dilation_cycle_length")
    else:
        cycle = 10
        notes["dilation_cycle"] = "dilation_cycle=10, as published; the file has no params that tell it"
    backbone = {"name": "wavenet", **sizes, "dilation_cycle": cycle, **FIXED, "shared_upsampler": True}
    return backbone, weights_of(state, sizes)


def sizes_of(state: State) -> dict[str, Any]:
    """Fields of WaveNetConfig, as the shapes tell them."""
    channels, num_in, _ = entry(state, "input_projection.weight", 3)
    mel = "residual_layers.0.conditioner_projection.weight"
    embed = state.get("diffusion_embedding.projection1.weight", torch.empty(0)).shape
    if len(embed) < 2 or not embed[1]:
        raise InputError(
            f"the entry 'diffusion_embedding.projection1.weight' has the shape {list(embed)}; expected a matrix"
        )
    signal = {"signal_channels": num_in - 1} if num_in > 1 else {}
    return signal | {
        "residual_channels": channels,
        "skip_channels": channels,
        "num_layers": count(state, r"residual_layers\.(\d+)\."),
        "mel_bands": entry(state, mel, 3)[1] if mel in state else 0,
        "mel_upsample": list(STRIDES),
        "embed_in": embed[1],
        "embed_mid": embed[0],
        "embed_out": entry(state, "diffusion_embedding.projection2.bias", 1)[0],
    }


def require_equal(sizes: Mapping[str, Any], params: Mapping[str, Any]) -> None:
    """Raises InputError where `params` contradicts the shapes or the fixed upsampler."""
    hop = math.prod(STRIDES)
    shapes = {"residual_channels": sizes["residual_channels"], "residual_layers": sizes["num_layers"]}
    if sizes["mel_bands"]:
        shapes |= {"n_mels": sizes["mel_bands"], "hop_samples": hop}
    for key, value in shapes.items():
        if params.get(key, value) != value:
            raise InputError(
                f"its params say {key}={params[key]!r}, its weights are for {value}; the file is not consistent"
            )


def schedule_of(clues: Clues, default: Schedule, notes: dict[str, str]) -> Schedule:
    """That of `params`, else as `base.schedule_of`."""
    given = params_of(clues).get("noise_schedule")
    if given is None:
        return base.schedule_of(clues, default, notes)
    require_type(given, tuple[float], "noise_schedule")
    if not given:
        raise InputError("its params hold an empty noise_schedule; expected the betas of training")
    return base.schedule_from(given)


def mel_of(bands: int, params: Mapping[str, Any], notes: dict[str, str]) -> Mel | None:
    """The mel definition: the preset with what `params` says."""
    if not bands:
        return None
    fields = {"sample_rate": "sample_rate", "n_fft": "n_fft"}
    said = {ours: whole(params[theirs], theirs) for theirs, ours in fields.items() if theirs in params}
    if "n_fft" not in said:
        notes["mel"] = "mels as diffwave-lmnt-22k; the file has no params that tell"
    return dataclasses.replace(MELS["diffwave-lmnt-22k"], n_mels=bands, **said)


def names(sizes: Mapping[str, Any]) -> dict[str, str]:
    """Our name -> the published one, except for `residual` and `skip` of the blocks, which share one entry."""
    found = plain("input", "input_projection") | plain("skip", "skip_projection") | plain("output", "output_projection")
    found |= plain("embed.first", "diffusion_embedding.projection1")
    found |= plain("embed.second", "diffusion_embedding.projection2")
    if sizes["mel_bands"]:
        for k in range(2):
            found |= plain(f"upsampler.layers.{k}", f"spectrogram_upsampler.conv{k + 1}")
    for i in range(sizes["num_layers"]):
        own, block = f"blocks.{i}", f"residual_layers.{i}"
        found |= plain(f"{own}.step", f"{block}.diffusion_projection")
        found |= plain(f"{own}.dilated", f"{block}.dilated_conv") | plain(f"{own}.both", f"{block}.output_projection")
        if sizes["mel_bands"]:
            found |= plain(f"{own}.mel", f"{block}.conditioner_projection")
    return found


def weights_of(state: State, sizes: Mapping[str, Any]) -> dict[str, Tensor]:
    """The entries under our names: gates swapped, output convolutions split, early 1x1 convolutions as matrices."""
    weights: dict[str, Tensor] = {}
    for own, value in collect(state, names(sizes)).items():
        if (own.startswith("embed.") or ".step." in own) and value.ndim == 3:
            value = value.squeeze(-1)
        if ".both." in own:
            for layer, half in zip(("residual", "skip"), value.chunk(2), strict=True):
                weights[own.replace("both", layer)] = half
        else:
            weights[own] = swap(value) if GATED.search(own) else value
    return weights


def export_state(network: nn.Module) -> dict[str, Tensor]:
    """See `Layout`."""
    return entries_of(network, "lmnt", "no signal beside x")


def entries_of(network: nn.Module, layout: str, signal: str, signal_channels: int = 0) -> dict[str, Tensor]:
    """The entries that the published code would have. layout, signal: for the message of what it cannot hold."""
    fixed = FIXED | {"vector_dim": 0, "signal_channels": signal_channels}
    config = network.config if isinstance(network, WaveNet) else None
    if (
        config is None
        or fixed.items() - vars(config).items()
        or config.skip_channels != config.residual_channels
        or (config.mel_bands and not (config.shared_upsampler and config.mel_upsample == STRIDES))
    ):
        raise InputError(
            f"the layout {layout!r} is for a wavenet without weight norm and labels, with {signal}, rising step "
            "frequencies, one upsampler of 16 x 16 and as many skip as residual channels; keep fromnoise's own format "
            "for others"
        )
    own = network.state_dict()
    state: dict[str, Tensor] = {}
    for here, there in names(vars(config)).items():
        if ".both." in here:
            state[there] = torch.cat([own[here.replace("both", layer)] for layer in ("residual", "skip")])
        else:
            state[there] = swap(own[here]) if GATED.search(here) else own[here]
    return state


def swap(value: Tensor) -> Tensor:
    """The halves of the first axis change places."""
    first, second = value.chunk(2)
    return torch.cat([second, first])


LAYOUT = Layout("DiffWave of lmnt", recognises, draft, export_state, wrapper="model")
