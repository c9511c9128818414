"""StoRM checkpoints: `denoiser_net.` predicts clean speech, `score_net.` makes it anew from that; or one of the two.

Lemercier et al., "StoRM: A Diffusion-based Stochastic Regeneration Model for Speech Enhancement and Dereverberation",
TASLP 2023, https://arxiv.org/abs/2212.11851. Both are NCSN++ without attention but at the bottom; both take 2 x - 1.
The denoiser hears no time and does not divide; its file holds the layers of the time, which nothing reads. The score
network hears the diffused speech and, as the settings say, the noisy speech, the prediction, or both. See `sgmse` for
the scale of scores and noise. Files of one stage hold it as `dnn.`: a denoiser's becomes a model of one step.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from fromnoise.importers import ncsnpp, sgmse
from fromnoise.importers.base import PREFIX, Clues, Layout, Plan, State
from fromnoise.types import InputError

DENOISER, SCORE = "denoiser_net.", "score_net."
CONDITIONS = {"noisy": "noisy", "post_denoiser": "generator", "both": "both"}
CHANNELS = {"noisy": 4, "post_denoiser": 4, "both": 6}


def recognises(state: State) -> bool:
    return any(f"{prefix}all_modules.0.W" in state for prefix in (DENOISER, SCORE, sgmse.NETWORK))


def draft(state: State, clues: Clues) -> Plan:
    """See `Layout`."""
    said, notes = {"spatial_channels": 1, **clues.trained_with}, {}
    if not clues.trained_with:
        notes["hyper_parameters"] = "the published settings; the file has none (--set PART.KEY=VALUE)"
    frontend = sgmse.frontend_of(said, "ncsnpp", notes)
    common = {"frontend": frontend, "unit": "peak", "frame_multiple": 64}
    denoiser, score = (sgmse.part_of(state, prefix) for prefix in (DENOISER, SCORE))
    single = sgmse.part_of(state, sgmse.NETWORK)
    if single:
        is_denoiser = not ncsnpp.sizes_of(single)["timed"]
        denoiser, score = ({}, single) if not is_denoiser else (single, {})
    if not score:
        return _denoiser_alone(denoiser, common, said, clues, notes)
    fields = sgmse.variant_fields("ncsnpp", said)
    config = sgmse.network_of(score, frontend, clues.settings, fields)
    weights = {PREFIX + key: value for key, value in ncsnpp.to_ours(score, config).items()}
    plan = common | {"backbone": sgmse.spec_of(config), "prediction": sgmse.score_of(-1)}
    plan |= sgmse.process_and_run(said, notes)
    if denoiser:
        network = sgmse.network_of(denoiser, frontend, {}, fields | {"divide": "none"})
        weights |= {f"generator.{key}": value for key, value in ncsnpp.to_ours(denoiser, network).items()}
        condition = condition_of(config.channels_in, said, notes)
        plan |= {"generator": sgmse.spec_of(network), "leads_to": "generator", "condition": condition}
    return Plan("enhance", plan, weights, notes)


def condition_of(channels: int, said: Mapping[str, Any], notes: dict[str, str]) -> str:
    """What the score network is told, checked against what it takes."""
    named = said.get("condition")
    if named is None:
        named = "both" if channels == 6 else "post_denoiser"
        if channels == 4:
            notes["condition"] = "the score network told the prediction; shapes do not tell it from the noisy speech"
    if named not in CONDITIONS or CHANNELS[named] != channels:
        raise InputError(f"its condition is {named!r}, but the score network takes {channels // 2} spectra")
    return CONDITIONS[named]


def _denoiser_alone(
    denoiser: State, common: dict[str, Any], said: Mapping[str, Any], clues: Clues, notes: dict[str, str]
) -> Plan:
    """A model of one step: its state starts as the noisy speech, and its output is the clean one."""
    fields = sgmse.variant_fields("ncsnpp", said) | {"divide": "none"}
    config = sgmse.network_of(denoiser, common["frontend"], clues.settings, fields)
    plan = common | {
        "backbone": sgmse.spec_of(config),
        "process": {"name": "flow", "start": "observation", "sigma": 0.0},
        "prediction": {"name": "clean"},
        "sampler": {"name": "euler"},
        "grid": {"name": "uniform"},
        "num_steps": 1,
    }
    weights = {PREFIX + key: value for key, value in ncsnpp.to_ours(denoiser, config).items()}
    return Plan("enhance", plan, weights, notes)


def export_state(model: nn.Module) -> dict[str, Tensor]:
    """See `Layout`."""
    raise InputError("models are not written as StoRM's; choose the layout 'sgmse' or 'diffsep'")


LAYOUT = Layout(
    "StoRM of sp-uhh: denoiser and score network, or one of them",
    recognises,
    draft,
    export_state,
    averaged=lambda key: key.startswith((DENOISER, SCORE, sgmse.NETWORK)),
)
