"""Checkpoints of DOSE: `weights-<step>.pt` with lmnt's network, which reads the noisy wave beside the diffused one.

Tai et al., "DOSE: Diffusion Dropout with Adaptive Prior for Speech Enhancement", NeurIPS 2023,
https://openreview.net/forum?id=8qG1SmeVLE. The network says the clean wave; two of its steps are run. Two layers of the
file are read by nothing and are left out: `input_projection` and `compress_concat`, 131 numbers with 64 channels. A
file that is written holds zeros for them, since the published code refuses a file without.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fromnoise.importers import lmnt
from fromnoise.importers.base import PREFIX, Clues, Layout, Plan, Schedule, State, entry, whole

READ = "version46_input_projection."
UNREAD = ("input_projection.", "compress_concat.conv.")
STEPS = (35, 15)


def recognises(state: State) -> bool:
    return f"{READ}weight" in state and lmnt.is_of_this_network(state)


def draft(state: State, clues: Clues) -> Plan:
    """See `Layout`."""
    params, notes = lmnt.params_of(clues), {}
    entry(state, f"{READ}weight", 3)
    read = {key: value for key, value in state.items() if not key.startswith(UNREAD)}
    renamed = {key.replace(READ, UNREAD[0]): value for key, value in read.items()}
    sizes = {key: value for key, value in params.items() if key != "n_mels"}
    backbone, weights = lmnt.network_of(renamed, sizes, notes)
    schedule = lmnt.schedule_of(clues, Schedule(50, 0.035), notes)
    notes["grid"] = f"steps {STEPS[0]} and {STEPS[1]}, the published code's default (--set grid.steps=[40,10])"
    plan = {
        "frontend": {"name": "wave", "sample_rate": whole(params.get("sample_rate", 16000), "sample_rate")},
        "backbone": {**backbone, **clues.settings},
        "process": schedule.process(),
        "prediction": {"name": "clean"},
        "sampler": {"name": "dose", "clamp": 1.0},
        "grid": {"name": "steps", "steps": list(STEPS)},
        "num_steps": len(STEPS),
        "unit": "none",
        "start": "condition",
    }
    return Plan("enhance", plan, {PREFIX + key: value for key, value in weights.items()}, notes)


def export_state(network: nn.Module) -> dict[str, Tensor]:
    """See `Layout`."""
    state = lmnt.entries_of(network, "dose", "one signal beside x", signal_channels=1)
    first = {key: value for key, value in state.items() if key.startswith(UNREAD[0])}
    rest = {key: value for key, value in state.items() if key not in first}
    return unread(first) | {key.replace(UNREAD[0], READ): value for key, value in first.items()} | rest


def unread(first: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Zeros for what nothing reads."""
    bias = first[f"{UNREAD[0]}bias"]
    shapes = {f"{UNREAD[0]}weight": (len(bias), 1, 1), f"{UNREAD[0]}bias": (len(bias),)}
    shapes |= {f"{UNREAD[1]}weight": (1, 2, 1), f"{UNREAD[1]}bias": (1,)}
    return {key: torch.zeros(shape, dtype=bias.dtype) for key, shape in shapes.items()}


LAYOUT = Layout("DOSE of ICDM-UESTC", recognises, draft, export_state, wrapper="model")
