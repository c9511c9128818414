"""Checkpoints of audio-diffusion-pytorch: `net.` is a U-Net, `encoder.`, where there is one, that of an autoencoder.

Schneider et al., "Mousai: Text-to-Music Generation with Long-Context Latent Diffusion", 2023,
https://arxiv.org/abs/2301.11757. The file holds every tensor three times (`net.`, `diffusion.net.`, `sampler.net.`) and
the layer of the time's features twice again; trainers put `model.` and `ema.ema_model.` before. Here each is taken
once, the averaged ones first. What runs is as published: velocities alpha e - beta x of the angular path, DDIM on even
times.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.backbones import BACKBONES, ENCODERS
from fromnoise.backbones.encoder1d import Encoder1d, Encoder1dConfig, Magnitudes
from fromnoise.backbones.unet1d import UNet1d, UNet1dConfig
from fromnoise.importers import unet1d
from fromnoise.importers.base import PREFIX, Clues, Layout, Plan, State, collect
from fromnoise.tasks.autoencoding import AutoencodingModel
from fromnoise.tasks.generation_model import GenerationModel
from fromnoise.types import InputError, spec

COPIES = ("net.", "diffusion.net.", "sampler.net.")
AVERAGED = "ema_model."
INSIDE = re.compile(r"(.*?)(?:diffusion\.|sampler\.)?net\.(?:blocks\.|net\.block\.)")
LEVELS = re.compile(r"(?:blocks\.\d+\.)*net\.block\.blocks\.0\.block\.weight")
TIME = re.compile(r"((?:blocks\.\d+\.)*)blocks\.0\.weights")
TIED = re.compile(rf"net\.(?:blocks\.\d+\.)*{re.escape(unet1d.TWICE[0])}\.(?:weight|bias)")
RATE = 48000
RUN = {
    "process": {"name": "vp_angular"},
    "prediction": {"name": "velocity"},
    "sampler": {"name": "ddim"},
    "grid": {"name": "uniform"},
    "num_steps": 100,
}


def recognises(state: State) -> bool:
    """Whether there is a U-Net of a-unet, bare or inside a model of audio-diffusion-pytorch."""
    return any(LEVELS.search(key) for key in state)


def model_of(state: State, raw: bool, notes: dict[str, str]) -> dict[str, Tensor]:
    """The entries of one model, `net.` and what else it has, each tensor once.

    raw: the last step's weights, also where there are averaged ones. Raises InputError where copies differ.
    """
    roots = {match[1] for match in map(INSIDE.match, state) if match}
    if not roots:  # a bare U-Net
        return {f"net.{key}": value for key, value in once(state).items()}
    root = min(roots, key=lambda name: (name.endswith(AVERAGED) == raw, name))
    if root.endswith(AVERAGED):
        notes["weights"] = f"the averaged weights {root}* of the file (--raw for those of the last step)"
    inner = {key.removeprefix(root): value for key, value in state.items() if key.startswith(root)}
    first, *others = [prefix for prefix in COPIES if any(key.startswith(prefix) for key in inner)]
    net = {key.removeprefix(first): value for key, value in inner.items() if key.startswith(first)}
    for prefix in others:
        for key, value in net.items():
            copy = inner.get(prefix + key, value)
            if value.shape != copy.shape or not torch.equal(value, copy):
                raise InputError(f"{prefix + key!r} differs from its copy under {first!r}; the file joins two models")
    rest = {key: value for key, value in inner.items() if not key.startswith((*COPIES, *roots - {""}))}
    return {f"net.{key}": value for key, value in once(net).items()} | rest


def once(net: State) -> dict[str, Tensor]:
    """The entries of a U-Net without the second name of the layer that the time's features pass twice."""
    found = dict(net)
    for prefix in [match[1] for match in map(TIME.fullmatch, net) if match]:
        pairs = [[f"{prefix}{layer}.{kind}" for layer in unet1d.TWICE] for kind in ("weight", "bias")]
        if all(a in net and b in net and torch.equal(net[a], net[b]) for a, b in pairs):
            for _, second in pairs:
                del found[second]
    return found


def part_of(model: State, prefix: str) -> dict[str, Tensor]:
    """The entries under a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in model.items() if key.startswith(prefix)}


def network_of(
    model: State, settings: Mapping[str, Any], notes: dict[str, str]
) -> tuple[UNet1dConfig, dict[str, Tensor]]:
    """The U-Net and its weights under our names."""
    inner = part_of(model, "net.")
    config = unet1d.config_of(inner, settings, notes)
    with torch.device("meta"):
        return config, collect(inner, unet1d.names(UNet1d(config)))


def encoder_of(
    model: State, settings: Mapping[str, Any], notes: dict[str, str]
) -> tuple[Encoder1dConfig, dict[str, Tensor]]:
    """The encoder and its weights under our names. Its stored window must be the Hann window, which is ours."""
    inner = part_of(model, "encoder.")
    config = unet1d.encoder_of(inner, settings, notes)
    window = inner.pop("stft.window", None)
    if window is not None and not torch.allclose(window, torch.hann_window(len(window), dtype=window.dtype), atol=1e-5):
        raise InputError(f"the encoder's window is no Hann window of {len(window)} samples; fromnoise has no other")
    with torch.device("meta"):
        return config, collect(inner, unet1d.encoder_names(Encoder1d(config)))


def draft(state: State, clues: Clues) -> Plan:
    """See `Layout`."""
    notes: dict[str, str] = {}
    model = model_of(state, clues.raw, notes)
    foreign = sorted({key.partition(".")[0] for key in model} - {"net", "encoder"})
    if foreign:
        raise InputError(
            f"beside the network it holds {', '.join(foreign)}; expected a DiffusionModel or a DiffusionAE of "
            "audio-diffusion-pytorch, its upsamplers and vocoders are not read"
        )
    if any(key.startswith("encoder.") for key in model):
        if clues.parts:
            raise InputError("it is an autoencoder itself; give the generator's checkpoint first")
        return Plan("autoencode", *_autoencoder(model, clues.settings, notes), notes)
    return _generator(model, clues, notes)


def _autoencoder(
    model: State, settings: Mapping[str, Any], notes: dict[str, str]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration of a diffusion autoencoder, and its weights."""
    config, weights = network_of(model, settings, notes)
    encoder, inner = encoder_of(model, {}, notes)
    notes["sample_rate"] = f"{RATE} Hz, as Mousai (--sample-rate HZ)"
    plan = {
        **RUN,
        "frontend": {"name": "wave", "sample_rate": RATE},
        "encoder": spec(ENCODERS, encoder),
        "backbone": spec(BACKBONES, config),
        "seconds": 2**18 / RATE,
    }
    return plan, prefixed(PREFIX, weights) | prefixed("encoder.", inner)


def _generator(model: State, clues: Clues, notes: dict[str, str]) -> Plan:
    """A generator of mono waves, or, with an autoencoder's file, of its latents; by text where it reads any."""
    config, weights = network_of(model, clues.settings, notes)
    plan: dict[str, Any] = {**RUN, "frontend": {"name": "wave", "sample_rate": RATE}, "seconds": 2**18 / RATE}
    plan["backbone"] = spec(BACKBONES, config)
    named = prefixed(PREFIX, weights)
    notes["sample_rate"] = f"{RATE} Hz, as Mousai (--sample-rate HZ)"
    notes["seconds"] = "sounds as long as Mousai's clips in training (--set run.seconds=S)"
    if config.context:
        plan |= {"text": {"name": "t5", **_text(config)}, "guidance_scale": 5.0}
        notes["text"] = "the text encoder t5-base, whose padding is attended to, as published (--set text.model=NAME)"
        notes["guidance_scale"] = "guidance of 5, as published (--set run.guidance_scale=G)"
    if clues.parts:
        assumed: dict[str, str] = {}
        inner = model_of(clues.parts["autoencoder"], clues.raw, assumed)
        plan["latent"], others = _autoencoder(inner, {}, assumed)
        del assumed["sample_rate"]  # one for both
        notes |= {f"autoencoder.{key}": f"of the autoencoder: {note}" for key, note in assumed.items()}
        plan["seconds"] = 2**21 / RATE
        named |= prefixed("autoencoder.", others)
    made = plan["latent"]["encoder"]["out_channels"] if clues.parts else 1
    if {config.in_channels, config.out_channels or config.in_channels} != {made} or config.signal_channels:
        raise InputError(
            f"it makes {config.out_channels or config.in_channels} channels of {config.in_channels}, expected {made}; "
            "a generator of latents needs the file of its autoencoder as well (--autoencoder FILE), and waves have one"
        )
    return Plan("generate", plan, named, notes)


def _text(config: UNet1dConfig) -> dict[str, Any]:
    """The published text encoder's settings that the network's table tells."""
    length = {"max_length": config.embedding_max_length} if config.embedding_max_length else {}
    return {"dim": config.context, "masked": False, **length}


def prefixed(prefix: str, state: State) -> dict[str, Tensor]:
    """The entries with a prefix before each name."""
    return {prefix + key: value for key, value in state.items()}


def export_state(model: nn.Module) -> dict[str, Tensor]:
    """See `Layout`. One copy under `net.`, with both names of a tied layer: load it with strict=False."""
    network = model.denoiser.backbone if isinstance(model, GenerationModel | AutoencodingModel) else None
    if not isinstance(network, UNet1d):
        raise InputError(
            "the layout 'adp' is for a generator or an autoencoder with the backbone unet1d; keep fromnoise's own "
            "format for others"
        )
    own = network.state_dict()
    found = {f"net.{there}": own[mine] for mine, there in unet1d.names(network).items()}
    if network.time is not None and network.time.second is None:
        for key in [key for key in found if TIED.fullmatch(key)]:
            found[key.replace(*unet1d.TWICE)] = found[key]
    if not isinstance(model, AutoencodingModel):
        return found
    encoder, front = model.encoder.state_dict(), model.encoder.config.made_front
    found |= {f"encoder.{there}": encoder[mine] for mine, there in unet1d.encoder_names(model.encoder).items()}
    if isinstance(front, Magnitudes):
        found["encoder.stft.window"] = torch.hann_window(front.n_fft, periodic=True)
    return found


def others(model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """See `Layout`: the autoencoder of a generator of latents."""
    inner = getattr(model, "autoencoder", None)
    return {} if inner is None else {"autoencoder": export_state(inner)}


LAYOUT = Layout(
    "audio-diffusion-pytorch, Mousai",
    recognises,
    draft,
    export_state,
    parts={"": "generator.pt", "autoencoder": "autoencoder.pt"},
    whole=True,
    others=others,
)
