"""DR-DiffuSE's checkpoints: networks over compressed complex spectra, each in a file of its own.

Tai et al., "Revisiting Denoising Diffusion Probabilistic Models for Speech Enhancement: Condition Collapse, Efficiency
and Refinement", AAAI 2023. The entries have our names already; they tell which network a file holds:

    Base       regression: the condition generator (c_gen.pth) or the refiner (refiner.pth)
    DiffuSEC   diffusion, x_t and the condition stacked (ddpm.pth): `preprocess`
    DiffuSE    diffusion, a second path for the condition (ddpm.pth): `c_deliver` as well

A Base alone becomes an enhancer of one step. A diffusion network becomes one of the six published noise levels, from
the diffused condition; with a generator's file it is told that network's estimate and guided towards it, with a
refiner's file its result is refined. That is the sampler released in December 2023; the paper's starts from noise
(--set run.start=prior).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.backbones.tcunet import Base, Conditional, TCUNetConfig
from fromnoise.importers.base import PREFIX, Clues, Layout, Plan, Schedule, State, collect, schedule_of
from fromnoise.types import InputError, build

FILES = {"generator": "c_gen.pth", "refiner": "refiner.pth"}
MAIN = "ddpm.pth"
LEVELS = (1e-4, 1e-3, 0.01, 0.05, 0.2, 0.35)
FRONTEND = {
    "name": "stft",
    "sample_rate": 16000,
    "n_fft": 320,
    "hop": 160,
    "window": "hann",
    "padding": "reflect",
    "transform": "exponent",
    "exponent": 0.5,
}
REGRESSION = {
    "process": {"name": "flow", "start": "observation", "sigma": 0.0},
    "prediction": {"name": "clean"},
    "sampler": {"name": "euler"},
    "grid": {"name": "uniform"},
    "num_steps": 1,
}


def recognises(state: State) -> bool:
    return "en.conv1.l_conv.weight" in state and "TCMs.0.residual1.conv1.weight" in state


def draft(state: State, clues: Clues) -> Plan:
    """See `Layout`."""
    wiring, notes = wiring_of(state), {}
    notes["frontend"] = "spectra to the power 0.5, the published default (--set frontend.exponent=0.3 for cubic)"
    steps = {"num_steps": clues.told.num_steps} if clues.told and wiring != "base" else {}
    spec = {"name": "tcunet", "wiring": wiring, **steps, **clues.settings}
    weights = {PREFIX + key: value for key, value in entries_of(state, spec).items()}
    plan: dict[str, Any] = {"frontend": dict(FRONTEND), "backbone": spec, "unit": "rms"}
    if wiring == "base":
        if clues.parts:
            raise InputError(
                f"its network is a regression, which takes no {' and no '.join(clues.parts)}; give those with a "
                "diffusion network's checkpoint"
            )
        return Plan("enhance", plan | REGRESSION, weights, notes)
    plan |= diffusion(clues, notes)
    base = {"name": "tcunet", "wiring": "base"}
    for part, inner in clues.parts.items():
        if wiring_of(inner) != "base":
            raise InputError(f"its {part} is a diffusion network; expected a regression network (Base)")
        plan[part] = base
        weights |= {f"{part}.{key}": value for key, value in entries_of(inner, base).items()}
    return Plan("enhance", plan, weights, notes)


def diffusion(clues: Clues, notes: dict[str, str]) -> dict[str, Any]:
    """Process and run of a diffusion network."""
    if "generator" in clues.parts:
        notes["run.guidance"] = "guided half-way towards the diffused condition, as with --c_guidance (run.guidance=0)"
    else:
        notes["generator"] = (
            "told the noisy speech and not guided; a network trained with --c_gen needs --generator c_gen.pth"
        )
    notes["grid"] = "six steps at the published levels (--betas LIST, --steps 200 for all)"
    return {
        "process": schedule_of(clues, Schedule(200, 0.05), notes).process(),
        "prediction": {"name": "noise"},
        "sampler": {"name": "ddpm"},
        "grid": {"name": "levels", "betas": list(LEVELS)},
        "num_steps": len(LEVELS),
        "start": "condition",
        "guidance": 0.5 if "generator" in clues.parts else 0.0,
        "refine_with_noisy": 0.5,
    }


def wiring_of(state: State) -> str:
    """Which of the three networks it is."""
    if any(key.startswith("c_deliver.") for key in state):
        return "dual"
    return "concat" if any(key.startswith("preprocess.") for key in state) else "base"


def entries_of(state: State, spec: Mapping[str, Any]) -> dict[str, Tensor]:
    """The entries of a network of this spec; raises InputError unless they are all."""
    with torch.device("meta"):
        network = build("backbone", {"tcunet": TCUNetConfig}, spec).build()
    return collect(state, {key: key for key in network.state_dict()})


def export_state(network: nn.Module) -> dict[str, Tensor]:
    """See `Layout`."""
    if not is_published(network):
        raise InputError(
            "the layout 'drdiffuse' is for a tcunet with batch norms, averaged features and a squeezed input; keep "
            "fromnoise's own format for others"
        )
    return network.state_dict()


def is_published(network: nn.Module) -> bool:
    """Whether it is one of the three released networks."""
    released = TCUNetConfig()
    if isinstance(network, Conditional):
        own = network.config
        return (own.norm, own.inject, own.fusion) == (released.norm, released.inject, released.fusion)
    return isinstance(network, Base) and not any(isinstance(layer, nn.InstanceNorm2d) for layer in network.modules())


def others(model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """The entries of generator and refiner, where the model has them."""
    networks = {part: getattr(model, part, None) for part in FILES}
    return {part: export_state(network) for part, network in networks.items() if isinstance(network, nn.Module)}


LAYOUT = Layout(
    "DR-DiffuSE of judiebig: Base, DiffuSEC, DiffuSE", recognises, draft, export_state, parts=FILES, others=others
)
