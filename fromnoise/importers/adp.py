"""Checkpoints of audio-diffusion-pytorch: `net.` is a U-Net, the rest tells what it is for.

    encoder.                        an autoencoder
    to_flat. (and to_spectrogram.)  a vocoder
    a plugin of appended channels   an upsampler
    one channel more in than out    a generator split by split, which reads its level there
    else                            a generator, of latents where an autoencoder's file comes with it

Schneider et al., "Mousai: Text-to-Music Generation with Long-Context Latent Diffusion", 2023,
https://arxiv.org/abs/2301.11757. The file holds every tensor three times (`net.`, `diffusion.net.`, `sampler.net.`) and
the layer of the time's features twice again; trainers put `model.` and `ema.ema_model.` before. Here each is taken
once, the averaged ones first. What runs is as published: velocities alpha e - beta x of the angular path, DDIM on even
times.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.backbones import BACKBONES, ENCODERS
from fromnoise.backbones.encoder1d import Encoder1d, Encoder1dConfig, Magnitudes
from fromnoise.backbones.unet1d import UNet1d, UNet1dConfig
from fromnoise.backbones.unet1d_mel import MelUNet1d, MelUNet1dConfig
from fromnoise.frontends.mel import Mel, filterbank
from fromnoise.importers import unet1d
from fromnoise.importers.base import PREFIX, Clues, Layout, Plan, State, collect, entry
from fromnoise.tasks.autoencoding import AutoencodingModel
from fromnoise.tasks.generation_model import GenerationModel
from fromnoise.tasks.splitting import Leveled
from fromnoise.tasks.upsampling import UpsamplingModel
from fromnoise.tasks.vocoding import VocodingModel
from fromnoise.types import InputError, spec

COPIES = ("net.", "diffusion.net.", "sampler.net.")
AVERAGED = "ema_model."
INSIDE = re.compile(r"(.*?)(?:diffusion\.|sampler\.)?net\.(?:blocks\.|net\.block\.)")
LEVELS = re.compile(r"(?:blocks\.\d+\.)*net\.block\.blocks\.0\.block\.weight")
TIME = re.compile(r"((?:blocks\.\d+\.)*)blocks\.0\.weights")
TIED = re.compile(rf"net\.(?:blocks\.\d+\.)*{re.escape(unet1d.TWICE[0])}\.(?:weight|bias)")
RATE = 48000
RATES = (48000, 44100, 32000, 24000, 22050, 16000, 8000)  # a vocoder's bank of mel bands tells which
WINDOW, BANK = "to_spectrogram.to_spectrogram.window", "to_spectrogram.to_mel_scale.fb"
FACTOR, SPLITS = 16, 4  # of upsamplers and of split clips, where nobody says
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
    """The U-Net and its weights under our names. A channel more in than out is a level that stands beside the state."""
    inner = part_of(model, "net.")
    config = unet1d.config_of(inner, settings, notes)
    leveled = not config.use_time_conditioning and config.in_channels == config.out_channels + 1
    if leveled:
        config = dataclasses.replace(config, in_channels=config.out_channels, signal_channels=1)
    with torch.device("meta"):
        return config, collect(inner, unet1d.names(UNet1d(config), not leveled))


def encoder_of(
    model: State, settings: Mapping[str, Any], notes: dict[str, str]
) -> tuple[Encoder1dConfig, dict[str, Tensor]]:
    """The encoder and its weights under our names. Its stored window must be the Hann window, which is ours."""
    inner = part_of(model, "encoder.")
    config = unet1d.encoder_of(inner, settings, notes)
    window = inner.pop("stft.window", None)
    _require_hann(window, 0 if window is None else len(window))
    with torch.device("meta"):
        return config, collect(inner, unet1d.encoder_names(Encoder1d(config)))


def draft(state: State, clues: Clues) -> Plan:
    """See `Layout`."""
    notes: dict[str, str] = {}
    model = model_of(state, clues.raw, notes)
    kinds = {key.partition(".")[0] for key in model}
    foreign = sorted(kinds - {"net", "encoder", "to_flat", "to_spectrogram"})
    if foreign:
        raise InputError(
            f"beside the network it holds {', '.join(foreign)}; expected a DiffusionModel, DiffusionAE, DiffusionAR, "
            "DiffusionUpsampler or DiffusionVocoder of audio-diffusion-pytorch"
        )
    if "encoder" in kinds and clues.parts:
        raise InputError("it is an autoencoder itself; give the generator's checkpoint first")
    if "encoder" in kinds:
        return Plan("autoencode", *_autoencoder(model, clues.settings, notes), notes)
    notes["sample_rate"] = f"{RATE} Hz, as Mousai (--sample-rate HZ)"
    if "to_flat" in kinds:
        return Plan("vocode", *_vocoder(model, clues.settings, notes), notes)
    config, weights = network_of(model, clues.settings, notes)
    if config.signal_channels and config.use_time_conditioning:
        return Plan("upsample", _upsampler(config, notes), prefixed(PREFIX, weights), notes)
    return _generator(config, weights, clues, notes)


def _upsampler(config: UNet1dConfig, notes: dict[str, str]) -> dict[str, Any]:
    notes["run.factor"] = f"a factor of {FACTOR}; no entry tells it (--set run.factor=N)"
    return {
        **RUN,
        "factor": FACTOR,
        "frontend": {"name": "wave", "sample_rate": RATE},
        "backbone": spec(BACKBONES, config),
        "unit": "none",
    }


def _vocoder(
    model: State, settings: Mapping[str, Any], notes: dict[str, str]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration of a vocoder, and its weights. Its spectrogram is told by its bank and window."""
    bands, one, window = entry(model, "to_flat.weight", 3)
    hop = settings.get("mel_hop", window // 4)
    if one != 1 or not isinstance(hop, int) or not 1 <= hop <= window:
        raise InputError(f"expected a map to one channel and a hop within {window} samples, got {one} and {hop}")
    if "mel_hop" not in settings:
        notes["mel_hop"] = f"a hop of {hop}, a quarter of the window, as published (--set mel_hop=N)"
    notes["mel.log"] = "natural logarithms of magnitudes (mel_normalize_log) (--set mel.log=none for none)"
    config, weights = network_of(model, {k: v for k, v in settings.items() if k != "mel_hop"}, notes)
    bank = model.get(BANK)
    mel = Mel(
        *(RATE, window if bank is None else 2 * (len(bank) - 1), hop, window, bands),
        *(0.0, None, "htk", "none"),
        centered=False,
    )
    _require_hann(model.get(WINDOW), window)
    if bank is not None:
        mel = _mel_of(bank, mel)
        del notes["sample_rate"]
    sizes = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    network = MelUNet1dConfig(**sizes, mel_bands=bands, mel_window=window, mel_hop=hop)
    plan = {
        **RUN,
        "mel": spec({"mel": Mel}, mel),
        "frontend": {"name": "wave", "sample_rate": mel.sample_rate},
        "backbone": spec(BACKBONES, network),
    }
    return plan, prefixed(f"{PREFIX}network.", weights) | {f"{PREFIX}flat.weight": model["to_flat.weight"]}


def _mel_of(bank: Tensor, mel: Mel) -> Mel:
    """The definition at the rate that its stored bank of bands is of."""
    for rate in RATES:
        there = dataclasses.replace(mel, sample_rate=rate)
        if torch.allclose(torch.from_numpy(filterbank(there).T.copy()).to(bank), bank, atol=1e-5):
            return there
    rates = ", ".join(map(str, RATES))
    raise InputError(f"its bank of {bank.shape[1]} mel bands is none on the HTK scale of {rates} Hz; no other is read")


def _require_hann(window: Tensor | None, size: int) -> None:
    if window is not None and not torch.allclose(window, torch.hann_window(size).to(window), atol=1e-5):
        raise InputError(f"its window is no Hann window of {size} samples; fromnoise has no other")


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


def _generator(config: UNet1dConfig, weights: dict[str, Tensor], clues: Clues, notes: dict[str, str]) -> Plan:
    """A generator of mono waves, split by split where it is told levels, or, with an autoencoder's file, of its
    latents; by text where it reads any."""
    plan: dict[str, Any] = {**RUN, "frontend": {"name": "wave", "sample_rate": RATE}, "seconds": 2**18 / RATE}
    plan["backbone"] = spec(BACKBONES, config)
    named = prefixed(PREFIX, weights)
    notes["run.seconds"] = "sounds as long as Mousai's clips in training (--set run.seconds=S)"
    if config.signal_channels:
        plan["splits"], named = SPLITS, prefixed(f"{PREFIX}network.", weights)
        notes["run.splits"] = f"{SPLITS} splits of a clip; no entry tells their number (--set run.splits=N)"
    if config.context:
        plan |= {"text": {"name": "t5", **_text(config)}, "guidance_scale": 5.0}
        notes["text.model"] = (
            "the text encoder t5-base, whose padding is attended to, as published (--set text.model=NAME)"
        )
        notes["run.guidance_scale"] = "guidance of 5, as published (--set run.guidance_scale=G)"
    if clues.parts:
        assumed: dict[str, str] = {}
        inner = model_of(clues.parts["autoencoder"], clues.raw, assumed)
        plan["latent"], others = _autoencoder(inner, {}, assumed)
        del assumed["sample_rate"]  # one for both
        notes |= {f"autoencoder.{key}": f"of the autoencoder: {note}" for key, note in assumed.items()}
        plan["seconds"] = 2**21 / RATE
        named |= prefixed("autoencoder.", others)
    made = plan["latent"]["encoder"]["out_channels"] if clues.parts else 1
    if {config.in_channels, config.out_channels or config.in_channels} != {made}:
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
    kinds = GenerationModel | AutoencodingModel | UpsamplingModel | VocodingModel
    outer = model.get_submodule("denoiser.backbone") if isinstance(model, kinds) else None
    network = outer.network if isinstance(outer, Leveled | MelUNet1d) else outer
    if not isinstance(network, UNet1d):
        raise InputError(
            "the layout 'adp' is for a generator, autoencoder, upsampler or vocoder with the backbone unet1d; keep "
            "fromnoise's own format for others"
        )
    own = network.state_dict()
    names = unet1d.names(network, not isinstance(outer, Leveled))
    found = {f"net.{there}": own[mine] for mine, there in names.items()}
    if network.time is not None and network.time.second is None:
        for key in [key for key in found if TIED.fullmatch(key)]:
            found[key.replace(*unet1d.TWICE)] = found[key]
    if isinstance(outer, MelUNet1d):
        assert isinstance(model, VocodingModel)
        bank = torch.from_numpy(filterbank(model.mel).T.copy()).float()
        found |= {"to_flat.weight": outer.flat.weight.detach(), BANK: bank, WINDOW: torch.hann_window(model.mel.win)}
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
