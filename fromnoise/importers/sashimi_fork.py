"""SaShiMi checkpoints of diffwave-sashimi, both generations of its state-space layer.

Goel et al., "It's Raw! Audio Generation with State-Space Models", 2022, https://arxiv.org/abs/2202.09729. The paper's
weights (branch `checkpoints`) hold two one-sided kernels a layer, each with the frequencies of one kernel length, which
say that length and are not needed otherwise. The later ones (`master`) hold one two-sided kernel, and in `L` the length
for which C was corrected, 0 for a network that never ran.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.backbones.s4 import PaperKernel
from fromnoise.backbones.sashimi import Sashimi
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
)
from fromnoise.types import InputError

KERNELS = {  # kind -> kernels' own names -> published ones, and what each holds
    "s4_paper": (
        {"kernel": "kernel.krylov", "kernel2": "kernel2.krylov"},
        ("C", "w", "B", "log_dt"),
    ),
    "s4_v3": ({"kernel": "kernel.kernel"}, ("C", "log_dt", "B", "P", "inv_w_real", "w_imag", "L")),
}
FREQUENCIES = (".krylov.nodes", ".krylov.z")


def recognises(state: State) -> bool:
    return "c_layers.0.fc_t.weight" in state and "init_conv.0.conv.weight_v" in state


def draft(state: State, clues: Clues) -> Draft:
    """See `Layout`."""
    sizes, notes = sizes_of(state), {}
    length = kernel_length(state, sizes)
    if length is None:
        named = clues.length_and_hop()
        length = named[0] if named else 16000
        notes["kernel_length"] = f"kernel_length={length}; the network never ran, so its weights do not tell"
    backbone = {"name": "sashimi", **sizes, "kernel_length": length, "mel_align": "crop", "guarded_norm": False}
    if sizes["mel_bands"]:
        notes["mel_align"] = "mel_align=crop, as published: inner scales get the beginning of the mel"
    schedule = schedule_of(clues, Schedule(50, 0.05) if sizes["mel_bands"] else Schedule(200, 0.02), notes)
    kept = {key: value for key, value in state.items() if not key.endswith(FREQUENCIES)}
    weights = {key: ours(key, value) for key, value in collect(kept, names(sizes)).items()}
    drafted = Draft(backbone, weights, schedule, notes=notes)
    sound_of(drafted, clues)
    return drafted


def sizes_of(state: State) -> dict[str, Any]:
    """Fields of SashimiConfig, as the shapes tell them."""
    width = d_model = entry(state, "init_conv.0.conv.weight_v", 3)[0]
    pool, expand, layer, layers = [], 2, 0, count(state, r"d_layers\.(\d+)\.")
    for layer in range(layers):
        if f"d_layers.{layer}.linear.conv.weight_v" in state:
            num_out, num_in, _ = entry(state, f"d_layers.{layer}.linear.conv.weight_v", 3)
            if num_out % width or num_in % width:
                raise InputError(
                    f"d_layers.{layer} joins {num_in} to {num_out} channels; expected multiples of {width}"
                )
            pool.append(num_in // width)
            expand, width = num_out // width, num_out
    kind = "s4_v3" if "c_layers.0.layer.kernel.kernel.C" in state else "s4_paper"
    require_two_sided(state, kind)
    c = entry(state, f"c_layers.0.layer.{KERNELS[kind][0]['kernel']}.C", 4)
    mid, embed_in = entry(state, "fc_t1.weight", 2)
    bands = (
        entry(state, "c_layers.0.mel_conv.conv.weight_v", 3)[1] if "c_layers.0.mel_conv.conv.weight_v" in state else 0
    )
    stages = count(state, r"c_layers\.0\.upsample_conv2d\.(\d+)\.")
    kernels = [entry(state, f"c_layers.0.upsample_conv2d.{i}.weight_v", 4) for i in range(stages)]
    return {
        "d_model": d_model,
        "n_layers": count(state, r"c_layers\.(\d+)\."),
        "pool": pool,
        "expand": expand,
        "ff": entry(state, "c_layers.0.ff.ff.0.conv.weight_v", 3)[0] // width,
        "unet": "d_layers.0.fc_t.weight" in state,
        "kind": kind,
        "d_state": 2 * c[2],
        "mel_bands": bands,
        "mel_upsample": [kernel[3] // 2 for kernel in kernels] or [16, 16],
        "embed_in": embed_in,
        "embed_mid": mid,
        "embed_out": entry(state, "fc_t2.weight", 2)[0],
    }


def require_two_sided(state: State, kind: str) -> None:
    """Raises InputError for the small model with kernels in one direction, of one evaluation row of the paper."""
    layer = "c_layers.0.layer.kernel"
    one = f"{layer}2.krylov.C" not in state if kind == "s4_paper" else entry(state, f"{layer}.kernel.C", 4)[0] != 2
    if one:
        raise InputError("its state-space layers look in one direction only; fromnoise has the two-sided ones")


def kernel_length(state: State, sizes: Mapping[str, Any]) -> int | None:
    """Samples of the outermost kernels: from their frequencies 0..L/2, or the number `L`; None where that is 0."""
    num_layers = count(state, r"u_layers\.(\d+)\.")
    last = f"u_layers.{num_layers - 1}.layer.kernel"
    if sizes["kind"] == "s4_paper":
        nodes = f"{last}.krylov.nodes"
        return 2 * (entry(state, nodes, 2)[0] - 1) if nodes in state else None
    entry(state, f"{last}.kernel.L", 0)
    return int(state[f"{last}.kernel.L"]) or None


def names(sizes: Mapping[str, Any]) -> dict[str, str]:
    """Our name -> the published one."""
    found = normed("init_conv.0", "init_conv.0.conv") | plain("embed.first", "fc_t1") | plain("embed.second", "fc_t2")
    found |= normed("final_conv.0", "final_conv.0.conv") | plain("final_conv.2", "final_conv.2.conv")
    found |= {f"norm.{key}": f"norm.{key}" for key in "ms"}
    num_blocks, num_pools = sizes["n_layers"], len(sizes["pool"])
    down = ([*[False] * num_blocks, True] if sizes["unet"] else [True]) * num_pools  # True: a pool
    up = [True, *[False] * num_blocks] * num_pools
    for group, layers in (("d_layers", down), ("c_layers", [False] * num_blocks), ("u_layers", up)):
        for i, is_pool in enumerate(layers):
            name = f"{group}.{i}"
            found |= normed(f"{name}.linear", f"{name}.linear.conv") if is_pool else _block(name, sizes)
    return found


def _block(name: str, sizes: Mapping[str, Any]) -> dict[str, str]:
    found = plain(f"{name}.fc_t", f"{name}.fc_t")
    found |= {f"{name}.norm{i}.{key}": f"{name}.norm{i}.{key}" for i in (1, 2) for key in "ms"}
    for i in (0, 2):
        found |= normed(f"{name}.ff.{i}", f"{name}.ff.ff.{i}.conv")
    if sizes["mel_bands"]:
        found |= normed(f"{name}.mel_conv", f"{name}.mel_conv.conv")
        for i in range(len(sizes["mel_upsample"])):
            found |= normed(f"{name}.upsample.layers.{i}", f"{name}.upsample_conv2d.{i}")
    layer = f"{name}.layer"
    output = "output_linear.0" if sizes["kind"] == "s4_v3" else "output_linear"
    found |= {f"{layer}.D": f"{layer}.D"} | plain(f"{layer}.output_linear", f"{layer}.{output}")
    kernels, held = KERNELS[sizes["kind"]]
    for own, published in kernels.items():
        found |= {f"{layer}.{own}.{key}": f"{layer}.{published}.{key}" for key in held}
    return found


def ours(key: str, value: Tensor) -> Tensor:
    """A published entry in our shape: D and bias as vectors, a matrix as a 1x1 convolution."""
    if key.endswith((".layer.D", ".layer.output_linear.bias")):
        return value.flatten()
    if key.endswith(".layer.output_linear.weight"):
        return value.unsqueeze(-1) if value.ndim == 2 else value
    return value


def theirs(kind: str, published: str, value: Tensor) -> Tensor:
    """The inverse of `ours`. published: the published name."""
    if published.endswith(".layer.D") and kind == "s4_v3":
        return value[None]
    if published.endswith(".layer.output_linear.weight"):
        return value.squeeze(-1)
    return value[:, None] if published.endswith(".layer.output_linear.bias") else value


def export_state(network: nn.Module) -> dict[str, Tensor]:
    """See `Layout`. Of the paper's generation with the frequencies of every kernel."""
    config = network.config if isinstance(network, Sashimi) else None
    if config is None or config.kind not in KERNELS or config.vector_dim:
        raise InputError(
            "the layout 'sashimi' is for a sashimi of the kinds s4_paper and s4_v3 without labels; keep fromnoise's "
            "own format for others"
        )
    own = network.state_dict()
    state = {there: theirs(config.kind, there, own[here]) for here, there in names(vars(config)).items()}
    for name, module in network.named_modules():
        if isinstance(module, PaperKernel):
            k = torch.arange(module.length // 2 + 1, dtype=torch.float64)
            # At k = L/2 it is -1 but for rounding, which keeps the published formula for z finite.
            omega = torch.exp(-2j * torch.pi * k / module.length).to(torch.complex64)
            for key, value in (("nodes", omega), ("z", 2 * (1 - omega) / (1 + omega))):
                state[f"{name}.krylov.{key}"] = torch.view_as_real(value)
    return state


LAYOUT = Layout("SaShiMi of diffwave-sashimi, both branches", recognises, draft, export_state)
