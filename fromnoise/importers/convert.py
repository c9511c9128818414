"""Read checkpoints, find their layout, average them, write the model folder."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fromnoise import hub
from fromnoise.files import whole, write_whole
from fromnoise.importers import (
    adp,
    cdiffuse,
    diffsep,
    dose,
    drdiffuse,
    foreign,
    lmnt,
    philsyn,
    sashimi_fork,
    sgmse,
    storm,
)
from fromnoise.importers.assemble import assemble
from fromnoise.importers.base import Asked, Clues, Imported, Layout, State, network_settings
from fromnoise.types import InputError

LAYOUTS: dict[str, Layout] = {
    "philsyn": philsyn.LAYOUT,
    "lmnt": lmnt.LAYOUT,
    "sashimi": sashimi_fork.LAYOUT,
    "diffsep": diffsep.LAYOUT,
    "sgmse": sgmse.LAYOUT,
    "storm": storm.LAYOUT,
    "drdiffuse": drdiffuse.LAYOUT,
    "cdiffuse": cdiffuse.CDIFFUSE,
    "diffuse": cdiffuse.DIFFUSE,
    "dose": dose.LAYOUT,
    "adp": adp.LAYOUT,
}
"""Name -> importer."""

WRAPPERS = ("model_state_dict", "model", "state_dict")  # where a checkpoint keeps its weights, if not at the top


def import_checkpoints(
    paths: Sequence[str | os.PathLike[str]],
    layout: str = "auto",
    asked: Asked | None = None,
    config: str | os.PathLike[str] | None = None,
    average: bool = False,
    parts: Mapping[str, str | os.PathLike[str]] | None = None,
) -> Imported:
    """The model in a published checkpoint, or the mean of several, or in a folder with DR-DiffuSE's files.

    layout: a name of LAYOUTS, or "auto". config: a JSON file of philsyn's kind. parts: "generator" and "refiner" -> the
    files of these networks, where the layout has a file for each. Raises InputError, with the file's
    name, for what is no checkpoint, of no known or another layout, incomplete, or does not fit what was asked.
    """
    files, beside = found_in([Path(path) for path in paths])
    beside |= {part: Path(path) for part, path in (parts or {}).items()}
    if layout not in ("auto", *LAYOUTS):
        raise InputError(f"unknown layout {layout!r}; choose one of: auto, {', '.join(LAYOUTS)}")
    if len(files) != 1 and not (average and files):
        raise InputError(f"expected one checkpoint, got {len(files)}; add --average for the mean of their weights")
    content, asked = read(files[0]), asked or Asked()
    state = state_of(content, files[0])
    name = find_layout(state, layout, files[0], content)
    state, taken = weights_of(content, state, LAYOUTS[name], asked.raw, files[0])
    if len(files) > 1:
        others = ((path, read(path)) for path in files[1:])
        states = ((path, weights_of(c, state_of(c, path), LAYOUTS[name], asked.raw, path)[0]) for path, c in others)
        state = mean(state, states, files[0])
    try:
        inner = {part: part_of(part, path, name) for part, path in beside.items()}
        said, own = read_config(files[0], config), network_settings(asked.settings)
        clues = Clues(files[0], content, said, own, inner, asked.schedule, asked.raw)
        imported = assemble(name, LAYOUTS[name].draft(state, clues), asked)
        hub.require_fit(imported.outline(), imported.weights, files[0])
    except (ValueError, RuntimeError, OverflowError) as error:
        known = any(str(path) in str(error) for path in (*files, *beside.values()))
        raise InputError(str(error) if known else f"{files[0]}: {error}") from error
    return dataclasses.replace(imported, files=tuple(files), parts=beside, taken=taken)


def found_in(paths: list[Path]) -> tuple[list[Path], dict[str, Path]]:
    """The checkpoints, and the files of other networks. A lone folder stands for the files of DR-DiffuSE in it, at most
    two folders further down: ddpm.pth, c_gen.pth and refiner.pth, or a lone one of these."""
    if len(paths) != 1 or not paths[0].is_dir():
        return paths, {}
    names = {"": drdiffuse.MAIN, **drdiffuse.FILES}
    held = {
        part: [*paths[0].glob(name), *paths[0].glob(f"*/{name}"), *paths[0].glob(f"*/*/{name}")]
        for part, name in names.items()
    }
    for name, found in zip(names.values(), held.values(), strict=True):
        if len(found) > 1:
            raise InputError(f"{paths[0]} holds several {name}: {found[0]}, {found[1]}; name the file to take")
    parts = {part: found[0] for part, found in held.items() if found}
    if "" not in parts and len(parts) > 1:
        raise InputError(f"{paths[0]} holds no {names['']}, the diffusion network; fetch it, or name one file")
    main = parts.pop("") if "" in parts else next(iter(parts.values()), paths[0])
    return [main], {part: path for part, path in parts.items() if path != main}


def part_of(part: str, path: Path, layout: str) -> State:
    """The weights of a network that has a file of its own."""
    if part not in LAYOUTS[layout].parts:
        raise InputError(f"a checkpoint of the layout {layout!r} holds the whole model; leave --{part} away")
    state = state_of(read(path), path)
    if not LAYOUTS[layout].recognises(state):
        raise InputError(f"{path} is not of the layout {layout!r}, whose {part} it should be; name another file")
    return state


def read(path: Path) -> dict[str, Any]:
    """The content of a PyTorch or safetensors file."""
    if path.suffix != ".safetensors":
        return foreign.read(path)
    hub.require_not_a_pointer(path)
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a readable safetensors file ({error}); fetch it again") from error


def state_of(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The named tensors of a checkpoint, without the "module." that distributed training puts before each."""
    inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), content)
    state = {str(key): value for key, value in inner.items() if isinstance(value, Tensor)}
    if not state:
        raise InputError(f"{path} holds no named tensors, only: {', '.join(map(str, content)) or 'nothing'}")
    if all(key.startswith("module.") for key in state):
        return {key.removeprefix("module."): value for key, value in state.items()}
    return state


def weights_of(
    content: Mapping[str, Any], state: dict[str, Tensor], layout: Layout, raw: bool, path: Path
) -> tuple[dict[str, Tensor], str]:
    """The weights to take, and which these are: averaged ones where the file holds them, unless `raw`.

    torch_ema keeps them as a list in the order of the parameters, which is that of the entries without the buffers.
    """
    if layout.averaged is None:
        return state, "those of the file"
    ema = content.get("ema")
    ema = ema if isinstance(ema, Mapping) else {}
    shadow = ema.get("shadow_params")
    if raw or not isinstance(shadow, list | tuple) or not shadow:
        return state, "those of the last step" + ("" if raw else "; the file holds no averaged ones (ema)")
    names = [key for key in state if layout.averaged(key)]
    fit = len(shadow) >= len(names) and all(
        isinstance(value, Tensor) and value.shape == state[key].shape for key, value in zip(names, shadow, strict=False)
    )
    if not fit:
        raise InputError(
            f"{path}: its {len(shadow)} averaged weights (ema) are not of its {len(names)} entries; take those of the "
            "last step instead (--raw)"
        )
    decay, updates = ema.get("decay"), ema.get("num_updates")
    said = ", ".join(f"{what} {value}" for what, value in (("decay", decay), ("updates", updates)) if value is not None)
    return state | dict(zip(names, shadow, strict=False)), f"averaged over training ({said or 'ema'})"


def find_layout(state: State, asked: str, path: Path, content: Mapping[str, Any]) -> str:
    """The layout of the names; the one that the other entries say it is, where several have these names. Raises
    InputError when it is none, or not the one asked for."""
    found = [name for name, layout in LAYOUTS.items() if layout.recognises(state)]
    found.sort(key=lambda name: not _claims(LAYOUTS[name], content))
    if asked in found or (asked == "auto" and found):
        return asked if asked in found else found[0]
    known = "; ".join(f"{name} ({layout.what})" for name, layout in LAYOUTS.items())
    if found:
        raise InputError(f"{path} is not of the layout {asked!r} but of {found[0]!r}; ask for that, or for auto")
    some = ", ".join(repr(key) for key in sorted(state)[:3])
    raise InputError(f"{path} is of no known layout: its entries begin {some}; known are {known}")


def _claims(layout: Layout, content: Mapping[str, Any]) -> bool:
    return layout.claims is not None and layout.claims(content)


def mean(first: State, others: Iterator[tuple[Path, State]], path: Path) -> dict[str, Tensor]:
    """The mean of every entry, in float64; whole numbers (lengths) must agree. One checkpoint in memory at a time."""
    total = {key: value.double() if value.is_floating_point() else value for key, value in first.items()}
    count = 1
    for other_path, other in others:
        count += 1
        if {key: value.shape for key, value in other.items()} != {key: value.shape for key, value in first.items()}:
            raise InputError(f"{other_path} has other entries than {path}; only checkpoints of one model have a mean")
        for key, value in other.items():
            if value.is_floating_point():
                total[key] += value
            elif not torch.equal(total[key], value):
                raise InputError(f"{other_path}: {key!r} differs from that of {path}; average later checkpoints only")
    return {
        key: (total[key] / count).to(value.dtype) if value.is_floating_point() else value
        for key, value in first.items()
    }


def read_config(path: Path, given: str | os.PathLike[str] | None) -> dict[str, Any]:
    """A JSON configuration of philsyn's kind: the file given, or config.json beside the checkpoint if it is one."""
    file = path.parent / "config.json" if given is None else Path(given)
    if given is None and not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror or error})") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{file} is not valid JSON ({error})") from error
    parts = [content[key] for key in CONFIG_KEYS if key in content] if isinstance(content, dict) else []
    if parts and all(isinstance(part, dict) for part in parts):
        return content
    if given is None:  # another project's file
        return {}
    raise InputError(f"{file} is no configuration: expected an object with one of {', '.join(CONFIG_KEYS)}")


CONFIG_KEYS = ("diffusion_config", "wavenet_config", "trainset_config")


def export(model: nn.Module, layout: str, file: str | os.PathLike[str]) -> int:
    """Write the weights of a task's model under the published names of `layout`; returns how many entries there are.

    Where that code reads averaged weights, the file holds the same ones as such; where it has a file for each network
    and the model has several, `file` becomes a folder of them. Settings are not written: they name classes of that
    code. Raises InputError for a model that the layout cannot hold, or a file that is in the way.
    """
    if layout not in LAYOUTS:
        raise InputError(f"unknown layout {layout!r}; choose one of: {', '.join(LAYOUTS)}")
    target, made = Path(file), LAYOUTS[layout]
    if target.exists():
        raise InputError(f"{target} exists already; name a new file")
    network = getattr(getattr(model, "denoiser", None), "backbone", None)
    if not isinstance(network, nn.Module):
        raise InputError(f"a {type(model).__name__} has no network that a published layout could hold")
    entries = made.export(model if made.whole or made.averaged is not None else network)
    others = made.others(model)
    if not others:
        return _write_checkpoint(target, entries, made)
    files = {made.parts.get("", drdiffuse.MAIN): entries} | {made.parts[part]: state for part, state in others.items()}
    return sum(_write_checkpoint(target / name, state, made) for name, state in files.items())


def _write_checkpoint(target: Path, entries: State, made: Layout) -> int:
    """One file, under a temporary name first; returns how many entries it has."""
    state = {key: value.detach().cpu().clone() for key, value in entries.items()}
    if made.averaged is None:
        content: dict[str, Any] = {made.wrapper: state}
    else:
        shadow = [value for key, value in state.items() if made.averaged(key)]
        ema = {"decay": 0.999, "num_updates": None, "shadow_params": shadow, "collected_params": None}
        content = {"state_dict": state, "ema": ema}
    with whole(target) as temporary:
        torch.save(content, temporary)
    return len(state)


def require_free(folder: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Raises InputError when something that is no empty folder, or a model not to be replaced, is in the way."""
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file; name a folder for the model")
    held = sorted(path.name for path in target.iterdir()) if target.is_dir() else []
    if "card.json" in held and not overwrite:
        raise InputError(f"{target} holds a model already; name another folder, or add --overwrite")
    if held and "card.json" not in held:
        raise InputError(f"{target} holds other files, e.g. {held[0]}; name a new folder")


def save(imported: Imported, folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Write the model folder and return its facts: task, layout, parameters, sources and assumptions."""
    target = Path(folder)
    model = imported.outline()
    weights = {key: value.float() if value.is_floating_point() else value for key, value in imported.weights.items()}
    model.load_state_dict(weights, assign=True)
    sources = [{"file": path.name, "sha256": _digest(path)} for path in imported.files]
    sources += [{"file": path.name, "sha256": _digest(path), "part": part} for part, path in imported.parts.items()]
    notes = list(imported.notes)
    origin = {"layout": imported.layout, "files": sources, "weights": imported.taken, "assumed": notes}
    card = {
        "task": imported.task,
        "name": target.resolve().name,
        "licence": "that of the checkpoint; the file does not state it",
        "sample_rate": imported.sample_rate,
        "config": hub.config_dict(imported.config),
        "origin": origin,
    }
    new = not target.exists()
    try:
        hub.save(model, card, target)
        write_whole(target / "README.md", _page(card).encode())
    except BaseException:
        if new and target.is_dir():
            for path in target.iterdir():
                path.unlink()
            target.rmdir()
        raise
    parameters = sum(p.numel() for p in model.parameters())
    return {"task": imported.task, "parameters": parameters, "sample_rate": imported.sample_rate, **origin}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _page(card: Mapping[str, Any]) -> str:
    """README.md of a converted model."""
    origin = card["origin"]
    files = "\n".join(
        f"- `{file['file']}`{', its ' + file['part'] if 'part' in file else ''}, SHA-256 `{file['sha256']}`"
        for file in origin["files"]
    )
    parts = sum("part" in file for file in origin["files"])
    several = len(origin["files"]) - parts > 1
    mean_of = "the mean of these checkpoints" if several else "these checkpoints" if parts else "this checkpoint"
    assumed = "\n".join(f"- {note}" for note in origin["assumed"]) or "- nothing"
    return (
        f"# {card['name']}\n\nConverted by `fromnoise convert` from {mean_of} ({LAYOUTS[origin['layout']].what}):\n\n"
        f"{files}\n\nThe weights are {origin['weights']}.\n\n"
        "Its licence is that of the checkpoint, which the file does not state.\n\n"
        f"Assumed, as neither the shapes nor a configuration say it:\n\n{assumed}\n"
    )
