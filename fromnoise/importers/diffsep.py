"""DiffSep checkpoints: `score_model.` is an NCSN++ over the spectra of the states and of the mixture, or a CDiffuSE.

Scheibler et al., "Diffusion-based Generative Speech Source Separation", ICASSP 2023, https://arxiv.org/abs/2210.17327.
The settings are the trainer's tree `config.model`: rate, number of sources, spectrum, SDE (MixSDE for speakers,
PriorMixSDE for speech and noise) and sampler. Shapes tell the number of sources and the network; the rest is as
published for the two experiments. `ncsnpp` re-orders the channels: DiffSep stacks all real parts, then all imaginary.

The published sampler is a predictor of reverse diffusion with `ald2`, 30 steps of 1/30 each on times from 1 to 0.03.
Its script fits each result to the mixture ("match"). The stored windows are Hann windows, as ours are.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.backbones import BACKBONES
from fromnoise.backbones.cdiffuse import CDiffuSE, CDiffuSEConfig
from fromnoise.backbones.ncsnpp import NCSNpp
from fromnoise.backbones.spectral import Spectral
from fromnoise.importers import ncsnpp, sgmse
from fromnoise.importers.base import PREFIX, Clues, Layout, Plan, State, collect, count, entry, number, plain, whole
from fromnoise.tasks.separation_model import SeparationModel
from fromnoise.types import InputError, build

SCORE, NETWORK = "score_model.", "score_model.backbone."
WINDOWS = ("score_model.stft.window", "score_model.stft_inv.window")
LEARNT = {"score_model.spec_abs_exponent": "exponent", "score_model.spec_factor": "factor"}
ENHANCING = ("speech", "noise")


def recognises(state: State) -> bool:
    return f"{NETWORK}all_modules.0.W" in state or f"{SCORE}residual_layers.0.dilated_cond_conv.weight" in state


def draft(state: State, clues: Clues) -> Plan:
    """See `Layout`."""
    said, notes = _inner(_inner(clues.trained_with, "config"), "model"), {}
    if not said:
        notes["hyper_parameters"] = "the published settings of the two-speaker model; the file has none"
    if f"{NETWORK}all_modules.0.W" in state:
        backbone, weights, sources = _spectral(state, clues, said, notes)
    else:
        backbone, weights, sources = _cdiffuse(state, clues, notes)
    rate = said.get("fs")
    if rate is None:
        notes["sample_rate"] = "8000 Hz, as the published model of two speakers (--sample-rate HZ)"
    sde, sampler = _inner(said, "sde"), _inner(said, "sampler")
    local = str(sde.get("_target_", "")).endswith("PriorMixSDE")
    plan = {
        "frontend": {"name": "wave", "sample_rate": whole(rate or 8000, "fs")},
        "backbone": backbone,
        "process": {
            "name": "mixing",
            "sources": sources,
            "gamma": number(sde.get("d_lambda", 2.0), "d_lambda"),
            "sigma_min": number(sde.get("sigma_min", 0.05), "sigma_min"),
            "sigma_max": number(sde.get("sigma_max", 0.5), "sigma_max"),
            "t_min": number(said.get("t_eps", 0.03), "t_eps"),
        },
        "prediction": {"name": "score"},
        "sampler": {
            "name": "pc",
            "corrector": "ald2",
            "corrector_steps": whole(sampler.get("corrector_steps", 1), "corrector_steps"),
            "snr": number(sampler.get("snr", 0.5), "snr"),
            "step_rule": "even",
        },
        "grid": {"name": "uniform"},
        "num_steps": whole(sampler.get("N", 30), "N"),
        "sources": sources,
        "names": ENHANCING if local and sources == 2 else (),
        "level": "local" if local else "none",
        "level_window": whole(sde.get("avg_len", 510), "avg_len"),
        "levels": "none" if local else "match",
    }
    return Plan("separate", plan, {PREFIX + key: value for key, value in weights.items()}, notes)


def _inner(said: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    inner = said.get(key)
    return inner if isinstance(inner, Mapping) else {}


def _spectral(
    state: State, clues: Clues, said: Mapping[str, Any], notes: dict[str, str]
) -> tuple[dict[str, Any], dict[str, Tensor], int]:
    """The NCSN++ between spectra: spec, weights, number of sources."""
    model = _inner(said, "score_model")
    front = _front(state, model, notes)
    backbone = _inner(model, "backbone_args")
    fields = {
        "centered": backbone.get("centered", False),
        "divide": "before" if backbone.get("scale_by_sigma", True) else "none",
        "rescale": backbone.get("skip_rescale", True),
        "taps": [1, 1] if backbone.get("fir") is False else backbone.get("fir_kernel", [1, 3, 3, 1]),
    }
    inner = sgmse.part_of(state, NETWORK)
    config = sgmse.network_of(inner, front, clues.settings, fields)
    sources, odd = divmod(config.channels_out, 2)
    if odd or config.channels_in != 2 * sources + 2:
        raise InputError(
            f"its network takes {config.channels_in} channels and gives {config.channels_out}; expected 2 K + 2 and "
            "2 K for K sources"
        )
    spec = {"name": "spectral", "network": sgmse.spec_of(config), "stft": front, "multiple": 64, "tail": True}
    weights = ncsnpp.to_ours(inner, config, stacked=True)
    return spec, {f"network.{key}": value for key, value in weights.items()}, sources


def _front(state: State, model: Mapping[str, Any], notes: dict[str, str]) -> dict[str, Any]:
    """The spectrum: by the stored window, the learnt numbers, the settings, or as published."""
    stft = _inner(model, "stft_args")
    window = state.get(WINDOWS[0])
    n_fft = whole(stft.get("n_fft", 510 if window is None else len(window)), "n_fft")
    hann = torch.hann_window(n_fft, periodic=True)
    if window is not None and (window.shape != hann.shape or not torch.allclose(window.float(), hann, atol=1e-5)):
        raise InputError(f"its window is no Hann window of {n_fft} samples; fromnoise has no other for this layout")
    if stft.get("center") is False:
        raise InputError("its frames are not centred; fromnoise's are")
    learnt = {ours: abs(state[key].item()) for key, ours in LEARNT.items() if key in state}
    if "spec_factor" not in model and "factor" not in learnt:
        notes["stft.factor"] = "spectra to the power 0.5, times 0.15, as in both published experiments"
    front = {
        "name": "stft",
        "n_fft": n_fft,
        "hop": whole(stft.get("hop_length", round(n_fft / 4)), "hop_length"),
        "padding": stft.get("pad_mode", "constant"),
        "transform": model.get("transform", "exponent"),
        "exponent": number(model.get("spec_abs_exponent", 0.5), "spec_abs_exponent"),
        "factor": number(model.get("spec_factor", 0.15), "spec_factor"),
    } | learnt
    return front | ({"factor": 1.0} if front["transform"] == "none" else {})


def _cdiffuse(state: State, clues: Clues, notes: dict[str, str]) -> tuple[dict[str, Any], dict[str, Tensor], int]:
    """The network over waves: spec, weights, number of sources."""
    inner = sgmse.part_of(state, SCORE)
    channels, sources, _ = entry(inner, "input_projection.weight", 3)
    embed_mid, embed_in = entry(inner, "diffusion_embedding.projection1.weight", 2)
    if "dilation_cycle" not in clues.settings:
        notes["dilation_cycle"] = "dilation_cycle=10; shapes do not tell it (--set dilation_cycle=N)"
    fields = {
        "sources": sources,
        "channels": channels,
        "num_layers": count(inner, r"residual_layers\.(\d+)\."),
        "extrapolates": True,
        "embed_in": embed_in,
        "embed_mid": embed_mid,
        "embed_out": entry(inner, "diffusion_embedding.projection2.bias", 1)[0],
    }
    spec = {"name": "cdiffuse", **fields, **clues.settings}
    config: CDiffuSEConfig = build("backbone", BACKBONES, spec)
    return spec, collect(inner, cdiffuse_names(config.num_layers)), sources


def cdiffuse_names(num_layers: int) -> dict[str, str]:
    """Our name of a CDiffuSE's entry -> the published one."""
    found = plain("input", "input_projection") | plain("condition", "condition_projection")
    found |= plain("skip", "skip_projection") | plain("output", "output_projection")
    found |= plain("embed.first", "diffusion_embedding.projection1")
    found |= plain("embed.second", "diffusion_embedding.projection2")
    parts = {"step": "diffusion_projection", "dilated": "dilated_conv", "condition": "dilated_cond_conv"}
    parts |= {"residual": "output_residual", "skip": "output_projection"}
    for i in range(num_layers):
        for own, published in parts.items():
            found |= plain(f"layers.{i}.{own}", f"residual_layers.{i}.{published}")
    return found


def export_state(model: nn.Module) -> dict[str, Tensor]:
    """See `Layout`."""
    network = model.denoiser.backbone if isinstance(model, SeparationModel) else None
    if isinstance(network, CDiffuSE):
        own = network.state_dict()
        return {SCORE + there: own[here] for here, there in cdiffuse_names(network.config.num_layers).items()}
    inner = network.network if isinstance(network, Spectral) else None
    if not isinstance(network, Spectral) or not isinstance(inner, NCSNpp):
        raise InputError(
            "the layout 'diffsep' is for a separator with the backbone cdiffuse, or ncsnpp inside spectral; keep "
            "fromnoise's own format for others"
        )
    state = ncsnpp.to_published(inner.state_dict(), inner.config, stacked=True)
    window = torch.hann_window(network.config.front.n_fft, periodic=True)
    return {NETWORK + key: value for key, value in state.items()} | {key: window.clone() for key in WINDOWS}


def _is_averaged(key: str) -> bool:
    return key.startswith(SCORE) and key not in WINDOWS


LAYOUT = Layout(
    "DiffSep of fakufaku, separation or enhancement", recognises, draft, export_state, averaged=_is_averaged
)
