"""Checkpoints of neillu's CDiffuSE and DiffuSE: `weights-<step>.pt` with lmnt's network, told noisy speech's spectrum.

Lu et al., "Conditional Diffusion Probabilistic Model for Speech Enhancement" (CDiffuSE), ICASSP 2022,
https://arxiv.org/abs/2202.05256, and "A Study on Speech Enhancement Based on Diffusion Probabilistic Model" (DiffuSE),
APSIPA 2021, https://arxiv.org/abs/2107.11876. Three forms of a block's last convolution, the same map to us:

    split    output_residual C -> C and output_projection C -> C      CDiffuSE, and DiffuSE for VoiceBank
    joined   output_projection C -> 2C, the residual first            DiffuSE; lmnt's own form
    fixed    output_residual C -> C and output_projection C -> 2C     DiffuSE with --fix_in: its first half is not read

Split weights of the two papers have the same names; what tells them apart is the schedule of training in `params`:
betas to 0.035 (or 0.0095, the large one) are CDiffuSE's, to 0.05 DiffuSE's.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.frontends.mel import MELS
from fromnoise.importers import lmnt
from fromnoise.importers.base import PREFIX, Clues, Draft, Layout, Plan, Schedule, State, whole
from fromnoise.types import require_type

MEL_BANDS = MELS["diffuse-16k"].n_mels
DIFFUSE_BETA_MAX = 0.05
FAST = (1e-4, 1e-3, 0.01, 0.05, 0.2)  # and a last one, which is each paper's own
LAST, RESIDUAL = ".output_projection.", ".output_residual."
CDIFFUSE_RUN = {"prediction": {"name": "combined"}, "sampler": {"name": "ddpm"}, "keep_noisy": 0.2}
DIFFUSE_RUN = {"prediction": {"name": "noise"}, "sampler": {"name": "supportive"}}


def is_split(state: State) -> bool:
    return lmnt.is_of_this_network(state) and f"residual_layers.0{RESIDUAL}weight" in state


def is_diffuse(state: State) -> bool:
    told = state.get("residual_layers.0.conditioner_projection.weight")
    joined = told is not None and told.shape[1:2] == (lmnt.SPECTRUM_BINS,)
    return is_split(state) or (lmnt.is_of_this_network(state) and joined)


def claims_diffuse(content: Mapping[str, Any]) -> bool:
    """Whether the training's schedule is DiffuSE's."""
    params = content.get("params")
    betas = params.get("noise_schedule") if isinstance(params, Mapping) else None
    return isinstance(betas, list) and bool(betas) and betas[-1] == DIFFUSE_BETA_MAX


def draft_cdiffuse(state: State, clues: Clues) -> Draft | Plan:
    """See `Layout`."""
    large = len(state.get("input_projection.bias", ())) >= 128
    default = Schedule(200, 0.0095) if large else Schedule(50, 0.035)
    return _draft(state, clues, default, "interpolating", 0.35, CDIFFUSE_RUN)


def draft_diffuse(state: State, clues: Clues) -> Draft | Plan:
    """See `Layout`."""
    return _draft(state, clues, Schedule(50, DIFFUSE_BETA_MAX), "vp", 0.5, DIFFUSE_RUN)


def _draft(
    state: State, clues: Clues, default: Schedule, process: str, last_beta: float, run: Mapping[str, Any]
) -> Draft | Plan:
    """The enhancer, or, of a network that was pre-trained on mels, the vocoder."""
    params, notes = lmnt.params_of(clues), {}
    # n_mels: what the options of the training made of it is not in the file
    sizes = {key: value for key, value in params.items() if key != "n_mels"}
    backbone, weights = lmnt.network_of(joined(state), sizes, notes)
    backbone |= clues.settings
    schedule = lmnt.schedule_of(clues, default, notes)
    rate = whole(params.get("sample_rate", 16000), "sample_rate")
    if backbone["mel_bands"] == MEL_BANDS:
        notes["mel"] = "a vocoder of mels as diffuse-16k that predicts the noise, as pre-training makes it"
        return Draft(backbone, weights, schedule, MELS["diffuse-16k"], rate, clamp=True, notes=notes)
    notes["spectrum.padding"] = (
        "spectra mirrored at both ends, as librosa did before version 0.10 (--set spectrum.padding=constant)"
    )
    betas = short_schedule(params, last_beta, notes)
    n_fft = 2 * (backbone["mel_bands"] - 1)
    plan = {
        "frontend": {"name": "wave", "sample_rate": rate},
        "spectrum": {"name": "spectrum", "sample_rate": rate, "n_fft": n_fft, "hop": 256, "padding": "reflect"},
        "backbone": backbone,
        "process": schedule.process(process),
        "grid": {"name": "levels", "betas": betas},
        "num_steps": len(betas),
        "unit": "none",
        "start": "noisy",
        "clamp": True,
        **run,
    }
    return Plan("enhance", plan, {PREFIX + key: value for key, value in weights.items()}, notes)


def short_schedule(params: Mapping[str, Any], last_beta: float, notes: dict[str, str]) -> list[float]:
    """The noise levels of the default run: those of the file, or the published six."""
    given = params.get("inference_noise_schedule")
    if given is None:
        notes["grid"] = f"six steps at the published levels, the last beta {last_beta:g} (--betas LIST, --steps N)"
        return [*FAST, last_beta]
    require_type(given, tuple[float], "inference_noise_schedule")
    return list(given)


def joined(state: State) -> dict[str, Tensor]:
    """The entries as lmnt's: one output convolution a block, the residual first."""
    found = {key: value for key, value in state.items() if RESIDUAL not in key}
    for key in state.keys() - found.keys():
        residual, there = state[key], key.replace(RESIDUAL, LAST)
        if there in found:
            found[there] = torch.cat([residual, found[there][-len(residual) :]])
    return found


def export_cdiffuse(network: nn.Module) -> dict[str, Tensor]:
    """See `Layout`. The split form."""
    state = lmnt.entries_of(network, "cdiffuse", "no signal beside x")
    for key in [key for key in state if key.startswith("residual_layers.") and LAST in key]:
        state[key.replace(LAST, RESIDUAL)], state[key] = state[key].chunk(2)
    return state


def export_diffuse(network: nn.Module) -> dict[str, Tensor]:
    """See `Layout`. The joined form."""
    return lmnt.entries_of(network, "diffuse", "no signal beside x")


CDIFFUSE = Layout("CDiffuSE of neillu", is_split, draft_cdiffuse, export_cdiffuse, wrapper="model")
DIFFUSE = Layout(
    "DiffuSE of neillu, 2021", is_diffuse, draft_diffuse, export_diffuse, claims=claims_diffuse, wrapper="model"
)
