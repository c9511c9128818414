"""SGMSE+ checkpoints: `dnn.` is an NCSN++, one of three, over the spectrograms of the noisy and the diffused speech.

Richter et al., "Speech Enhancement and Dereverberation with Diffusion-based Generative Models", TASLP 2023,
https://arxiv.org/abs/2208.05830, and what its code trains besides: at 48 kHz, and as a Schroedinger bridge.

    ncsnpp      16 kHz; takes the input as it is, divides by t before the last layer; frames filled with zeros
    ncsnpp_48k  48 kHz; likewise without outputs of every level, divides after the last layer; frames mirrored
    ncsnpp_v2   does not divide; its output is scaled by settings of the training; frames mirrored

SGMSE draws complex noise of unit variance, half of it in each component; ours has unit variance in each, so that sigmas
are divided by sqrt(2) (a bridge's c by 2), and the prediction "sgmse" is told so. The score is minus what the first two
networks say. A model of ours that predicts the score itself is exported with its last layer times -1/2 (1/2 for
ncsnpp_v2), exact in binary. StoRM's networks of one stage have the same names; they take 2 x - 1 and have another
sampler, and are told by their settings.
"""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from fromnoise.backbones import BACKBONES
from fromnoise.backbones.ncsnpp import NCSNpp, NCSNppConfig
from fromnoise.importers import ncsnpp
from fromnoise.importers.base import PREFIX, Clues, Layout, Plan, State, number, whole
from fromnoise.predictions import Score
from fromnoise.tasks.enhancement import EnhancementModel
from fromnoise.types import InputError, build

NETWORK = "dnn."
WINDOWS = {"hann": "hann", "sqrthann": "sqrt_hann"}
LAST = "leave."  # the last layer of NCSNpp
STORM_ONLY = ("spatial_channels", "mode", "backbone_score", "backbone_denoiser")  # settings that SGMSE has not
READS = {"score_matching": "score", "denoiser": "mean", "data_prediction": "clean"}
PUBLISHED_48K = {"theta": 2.0, "sigma_min": 0.1, "sigma_max": 1.0}


def recognises(state: State) -> bool:
    return f"{NETWORK}all_modules.0.W" in state and getattr(state.get(f"{NETWORK}all_modules.1.weight"), "ndim", 0) == 2


def draft(state: State, clues: Clues) -> Plan:
    """See `Layout`."""
    said, notes = clues.trained_with, {}
    if not said:
        notes["hyper_parameters"] = (
            "the published settings of 16 kHz or 48 kHz; the file has none (--set PART.KEY=VALUE)"
        )
    inner = part_of(state, NETWORK)
    variant = variant_of(inner, said, clues.settings, notes)
    frontend = frontend_of(said, variant, notes)
    config = network_of(inner, frontend, clues.settings, variant_fields(variant, said))
    prediction = prediction_of(variant, said, notes)
    plan = {"frontend": frontend, "backbone": spec_of(config), "prediction": prediction, "unit": "peak"}
    plan |= process_and_run(PUBLISHED_48K | said if variant == "ncsnpp_48k" else said, notes)
    plan |= {"frame_multiple": 64, "frame_padding": "zero" if variant == "ncsnpp" else "reflection"}
    weights = {PREFIX + key: value for key, value in ncsnpp.to_ours(inner, config).items()}
    return Plan("enhance", plan, weights, notes)


def part_of(state: State, prefix: str) -> dict[str, Tensor]:
    """The entries with this prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def spec_of(config: NCSNppConfig) -> dict[str, Any]:
    """The spec of a network, as a card holds it."""
    fields = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(config).items()}
    return {"name": "ncsnpp", **fields}


def variant_of(inner: State, said: Mapping[str, Any], settings: Mapping[str, Any], notes: dict[str, str]) -> str:
    """Which of the three networks it is: as the user or the file says, or as its shapes and the process suggest."""
    if settings.get("divide") == "none" or (said.get("sde") == "sbve" and "backbone" not in said):
        return "ncsnpp_v2"
    named = said.get("backbone")
    if isinstance(named, str):
        if named in ("ncsnpp", "ncsnpp_48k", "ncsnpp_v2") or (is_storm(said) and named.startswith("ncsnpp")):
            return named if named in ("ncsnpp_48k", "ncsnpp_v2") else "ncsnpp"
        raise InputError(f"its backbone is {named!r}; fromnoise reads ncsnpp, ncsnpp_48k and ncsnpp_v2")
    if ncsnpp.sizes_of(inner)["progressive"] == "none":
        return "ncsnpp_48k"
    notes["backbone"] = (
        "an ncsnpp of the first SGMSE+; shapes do not tell it from ncsnpp_v2 (--set divide=none for that)"
    )
    return "ncsnpp"


def is_storm(said: Mapping[str, Any]) -> bool:
    """Whether the settings are of StoRM's code."""
    return any(key in said for key in STORM_ONLY)


def variant_fields(variant: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """What no shape tells of the network."""
    divides = {"ncsnpp": "before", "ncsnpp_48k": "after", "ncsnpp_v2": "none"}[variant]
    fields: dict[str, Any] = {
        "centered": said.get("centered", not is_storm(said)),
        "divide": divides if said.get("scale_by_sigma", True) else "none",
        "rescale": said.get("skip_rescale", True),
    }
    if said.get("fir") is False:
        fields["taps"] = [1, 1]
    elif isinstance(said.get("fir_kernel"), list):
        fields["taps"] = said["fir_kernel"]
    return fields


def network_of(
    inner: State, frontend: Mapping[str, Any], settings: Mapping[str, Any], fields: Mapping[str, Any]
) -> NCSNppConfig:
    """The network: sizes by the shapes, the rest as given; what the user says goes first."""
    sizes = ncsnpp.sizes_of(inner, frontend["n_fft"] // 2 + 1)
    return build("backbone", BACKBONES, {"name": "ncsnpp", **sizes, **fields, **settings})


def frontend_of(said: Mapping[str, Any], variant: str, notes: dict[str, str]) -> dict[str, Any]:
    """The spectrogram."""
    large = variant == "ncsnpp_48k"
    window, transform = said.get("window", "hann"), said.get("transform_type", "exponent")
    if window not in WINDOWS or transform not in ("exponent", "log", "none"):
        raise InputError(
            f"its spectrogram has the window {window!r} and the transform {transform!r}, which are unknown"
        )
    if said.get("spec_factor") is None:
        notes["frontend.factor"] = f"spectrograms times {0.065 if large else 0.15} (--set frontend.factor=X)"
    if said.get("sr") is None:
        notes["sample_rate"] = f"{48000 if large else 16000} Hz, as published for this network (--sample-rate HZ)"
    return {
        "name": "stft",
        "sample_rate": whole(said.get("sr") or (48000 if large else 16000), "sr"),
        "n_fft": whole(said.get("n_fft", 1534 if large else 510), "n_fft"),
        "hop": whole(said.get("hop_length", 384 if large else 128), "hop_length"),
        "window": WINDOWS[window],
        "padding": "reflect",
        "transform": transform,
        "exponent": number(said.get("spec_abs_exponent", 0.667 if large else 0.5), "spec_abs_exponent"),
        "factor": number(said.get("spec_factor", 0.065 if large else 0.15), "spec_factor"),
    }


def process_and_run(said: Mapping[str, Any], notes: dict[str, str]) -> dict[str, Any]:
    """The process, with SGMSE's unit noise as ours, and the default run of the published script."""
    named = said.get("sde", "ouve")
    if named in ("ouve", "ouvesde"):
        sampler: dict[str, Any] = {"name": "pc", "corrector": "ald", "snr": 0.5}
        if is_storm(said):
            sampler["step_rule"] = "even"
        steps = 50 if is_storm(said) else 30
        notes["num_steps"] = (
            f"{steps} steps of 'pc' with ald and snr 0.5, as the published script (--steps N, --set sampler.snr=X)"
        )
        return {"process": ouve(said), "sampler": sampler, "grid": {"name": "uniform"}, "num_steps": steps}
    if named != "sbve":
        raise InputError(f"its process is {named!r}; fromnoise reads ouve and sbve")
    bridge = {"k": number(said.get("k", 2.6), "k"), "c": number(said.get("c", 0.4), "c") / 2}
    stochastic = said.get("sampler_type") == "sde"
    notes["sampler"] = "the bridge's ODE in 50 steps, as published; the network hears each step's own time"
    return {
        "process": {"name": "bridge", **bridge, "eps": 1e-8, "t_min": 1e-4},
        "sampler": {"name": "ancestral"} if stochastic else {"name": "ddim"},
        "grid": {"name": "uniform", "end": "t_min"},
        "num_steps": 50,
    }


def ouve(said: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of OU-VE."""
    low, high = number(said.get("sigma_min", 0.05), "sigma_min"), number(said.get("sigma_max", 0.5), "sigma_max")
    return {
        "name": "ouve",
        "theta": number(said.get("theta", 1.5), "theta"),
        "sigma_min": low / math.sqrt(2),
        "sigma_max": high / math.sqrt(2),
        "t_min": number(said.get("t_eps", 0.03), "t_eps"),
    }


def prediction_of(variant: str, said: Mapping[str, Any], notes: dict[str, str]) -> dict[str, Any]:
    """How the network's output is read."""
    if variant != "ncsnpp_v2":
        return score_of(-1)
    loss = said.get("loss_type")
    if loss is None:
        loss = "data_prediction" if said.get("sde") == "sbve" else "score_matching"
        notes["prediction"] = f"trained by {loss} (--set prediction.reads=clean|score|mean)"
    if loss not in READS:
        raise InputError(f"its loss_type is {loss!r}; fromnoise reads {', '.join(READS)}")
    scales = {key: str(said.get(key, default)) for key, default in (("c_in", 1), ("c_out", 1), ("c_skip", 0))}
    return {
        "name": "sgmse",
        "reads": READS[loss],
        **scales,
        "network_scaling": said.get("network_scaling") or "none",
        "sigma_data": number(said.get("sigma_data", 0.1), "sigma_data"),
        "noise_unit": math.sqrt(2),
    }


def score_of(sign: int) -> dict[str, Any]:
    """The prediction of networks that say the score of complex spectra, with this sign."""
    return {"name": "sgmse", "reads": "score", "c_out": str(sign), "noise_unit": math.sqrt(2)}


def export_state(model: nn.Module) -> dict[str, Tensor]:
    """See `Layout`."""
    network = model.denoiser.backbone if isinstance(model, EnhancementModel) else None
    if not isinstance(model, EnhancementModel) or not isinstance(network, NCSNpp) or model.generator is not None:
        raise InputError(
            "the layout 'sgmse' is for an enhancer with the backbone ncsnpp and no generator; keep fromnoise's own "
            "format for others"
        )
    state = network.state_dict()
    if isinstance(model.denoiser.prediction, Score):
        factor = 0.5 if network.config.divide == "none" else -0.5
        state |= {key: value * factor for key, value in state.items() if key.startswith(LAST)}
    inner = ncsnpp.to_published(state, network.config)
    return {NETWORK + key: value for key, value in inner.items()}


LAYOUT = Layout(
    "SGMSE+ of sp-uhh: ncsnpp, ncsnpp_48k, ncsnpp_v2",
    recognises,
    draft,
    export_state,
    averaged=lambda key: key.startswith(NETWORK),
)
