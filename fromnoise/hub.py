"""Models by name: bundled, a folder, a training run, a repository on a hub, or a folder on a web server.

A model folder holds `card.json` (which parts, licence, scores), `model.safetensors` (weights) and `README.md`. A run
folder holds `card.json` and `checkpoints/`. Nothing that is loaded is ever executed: cards are plain data checked
against the parts' dictionaries, weights are safetensors, checkpoints are read with weights-only loading.

A bundled generator of latents may leave its autoencoder to the bundled model of that name, which its card then states
with the SHA-256 of the weights. What is loaded is whole, and is saved whole.
"""

import dataclasses
import json
import math
import os
import pickle
import re
import tempfile
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fromnoise import remote
from fromnoise.files import whole, write_whole
from fromnoise.tasks import TASKS
from fromnoise.types import InputError, require_type

BUNDLED = Path(__file__).parent / "models"
CARD_FORMAT = 1
POINTER = "version https://git-lfs"
_CARD_LIMIT = 1 << 20  # bytes; a card is a page of text
_SHARED = (
    "autoencoder"  # the part that may lie in another bundled model: an entry of the card, and what keys begin with
)
_LARGEST, _LONGEST = 1_000_000, 10_000  # number in a card's configuration, list in it


def list_models() -> list[dict[str, Any]]:
    """The cards of the bundled models."""
    return [read_card(path.parent) for path in sorted(BUNDLED.glob("*/card.json"))]


def load(name: str | os.PathLike[str], device: str | torch.device = "cpu", checkpoint: str = "best") -> Any:
    """A ready model, e.g. an `Enhancer`.

    name: a bundled name ("enhance-small"), a model or run folder, a hub id "user/repo", or the address of a folder.
    checkpoint: "best" or "last", for a run folder. Raises InputError when it cannot be found, read or trusted.
    """
    return from_pretrained(name, device=device, checkpoint=checkpoint)


def from_pretrained(
    name: str | os.PathLike[str],
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    device: str | torch.device = "cpu",
    checkpoint: str = "best",
) -> Any:
    """`load`, with a say in how a hub is asked: which revision, where it is kept, with which token, or not at all."""
    folder = locate(str(name), revision, cache_dir, token, local_files_only)
    card = read_card(folder)
    _, model_class, public_class = TASKS[card["task"]]
    try:
        config = config_of(card)
        with torch.device("meta"):  # shapes without memory: only what has weights is allocated, whatever a card asks
            outline = model_class(config)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise InputError(f"{folder / 'card.json'}: {error}") from error
    weights = read_weights(folder, checkpoint)
    require_fit(outline, weights, folder)
    model = model_class(config)
    weights_into(model, weights, folder)
    return public_class(model, card["name"], {k: v for k, v in card.items() if k != _SHARED}).to(device)


def locate(
    name: str,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder that a name stands for; what is elsewhere is fetched, verified and kept, see `fromnoise.remote`."""
    if (BUNDLED / name / "card.json").is_file() and "/" not in name:
        return BUNDLED / name
    if remote.is_address(name):
        return remote.fetch_address(name, cache_dir, local_files_only)
    folder = Path(os.path.expanduser(name))
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise InputError(f"{name} is a file; expected a model folder with card.json and model.safetensors")
    known = ", ".join(card["name"] for card in list_models()) or "none"
    parts = name.split("/")
    if len(parts) != 2 or not all(parts) or name.startswith((".", "~")) or Path(parts[0]).is_dir():
        raise InputError(f"no model {name!r}: not a folder, and the bundled models are: {known}")
    try:
        return remote.fetch(name, revision, cache_dir, token, local_files_only)
    except InputError as error:
        raise InputError(f"model {name!r} is neither a folder nor bundled ({known}); {error}") from error


def read_card(folder: Path) -> dict[str, Any]:
    """The checked content of card.json."""
    path = folder / "card.json"
    try:
        if path.stat().st_size > _CARD_LIMIT:
            raise InputError(f"{path} is larger than {_CARD_LIMIT} bytes; that is no card")
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folder} holds no card.json; expected a model folder or a training run") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); restore it from where the model came") from error
    if not isinstance(card, dict) or not isinstance(card.get("config"), dict):
        raise InputError(f"{path} is no card: expected an object with 'task', 'name' and 'config'")
    if card.get("format") != CARD_FORMAT:
        raise InputError(
            f"{path} has format {card.get('format')!r}; this version reads {CARD_FORMAT}: update fromnoise"
        )
    if card.get("task") not in TASKS:
        raise InputError(f"{path} is for the task {card.get('task')!r}; known tasks: {', '.join(sorted(TASKS))}")
    return card | {"name": str(card.get("name") or folder.name)}


def config_of(card: Mapping[str, Any]) -> Any:
    """The typed configuration of a card."""
    config_class = TASKS[card["task"]][0]
    hints = typing.get_type_hints(config_class)
    for key, value in card["config"].items():
        if key not in hints:
            raise InputError(f"unknown setting {key!r}; known: {', '.join(sorted(hints))}")
        require_type(value, hints[key], key)
        _require_moderate(value, key)
    return config_class(**{k: tuple(v) if isinstance(v, list) else v for k, v in card["config"].items()})


def _require_moderate(value: Any, where: str) -> None:
    """Raises InputError for sizes that no model has, before anything is made of them."""
    if isinstance(value, int | float) and abs(value) > _LARGEST:
        raise InputError(f"{where} is {value!r:.40}; a card's numbers go up to {_LARGEST}")
    if isinstance(value, list | dict):
        if len(value) > _LONGEST:
            raise InputError(f"{where} has {len(value)} entries; a card's lists have up to {_LONGEST}")
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            _require_moderate(inner, f"{where}.{key}")


def read_weights(folder: Path, checkpoint: str = "best") -> dict[str, Tensor]:
    """The weights of a model folder, or those (averaged, where the run averages) of a run's checkpoint."""
    if checkpoint not in ("best", "last"):
        raise InputError(f"checkpoint must be best or last, got {checkpoint!r}")
    path = folder / "model.safetensors"  # of a run: its best weights
    wants_last = checkpoint == "last" and (folder / "checkpoints" / "last.ckpt").is_file()
    if path.is_file() and not wants_last:
        require_not_a_pointer(path)
        try:
            weights = load_file(path)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} is not a readable safetensors file ({error}); fetch it again") from error
        return (
            weights | _shared(read_card(folder).get(_SHARED), folder) if (folder / "card.json").is_file() else weights
        )
    for name in dict.fromkeys([checkpoint, "last"]):  # a young run has no best one
        path = folder / "checkpoints" / f"{name}.ckpt"
        if path.is_file():
            state = read_checkpoint(path).get("state_dict", {})
            return {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
    raise InputError(f"{folder} holds neither model.safetensors nor checkpoints/{checkpoint}.ckpt")


def _shared(stated: Any, folder: Path) -> dict[str, Tensor]:
    """The weights of the bundled autoencoder that a card states, by the names that they have in its generator."""
    if stated is None:
        return {}
    name, sha256 = (stated.get(key) for key in ("name", "sha256")) if isinstance(stated, dict) else (None, None)
    base = BUNDLED / str(name)
    if not isinstance(name, str) or Path(name).name != name or not (base / remote.WEIGHTS).is_file():
        raise InputError(f"{folder / 'card.json'}: expected the name of a bundled autoencoder, got {stated!r:.80}")
    if remote.sha256_of(base / remote.WEIGHTS) != sha256:
        raise InputError(
            f"{folder} needs the weights of {name!r} whose SHA-256 is {sha256!r:.80}; this version has others: use the "
            "version that the model came with"
        )
    return {f"{_SHARED}.{key}": value for key, value in read_weights(base).items()}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A PyTorch checkpoint, tensors and plain values only: code inside it is refused, not run."""
    require_not_a_pointer(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} cannot be read as a checkpoint of tensors ({reason[:160]}); it is damaged, or holds code, "
            "which is never run"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}; expected a dictionary of tensors")
    return content


def require_not_a_pointer(path: Path) -> None:
    """Raises InputError for what Git leaves of a large file that was not fetched: a page of text beginning POINTER."""
    try:
        with path.open("rb") as file:
            text = file.read(1024).decode("ascii", errors="replace")
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; expected a checkpoint file") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    if text.startswith(POINTER):
        size = next((f" of {line[5:]} bytes" for line in text.splitlines() if line.startswith("size ")), "")
        raise InputError(
            f"{path} is not the checkpoint but the Git LFS pointer to a file{size}; fetch that with 'git lfs pull', or "
            "download it from the repository's page"
        )


def require_fit(model: nn.Module, weights: Mapping[str, Tensor], where: Path) -> None:
    """Raises InputError unless every name and shape of the weights is the model's, and every number finite."""
    own = model.state_dict()
    missing, foreign = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    wrong = [k for k in own.keys() & weights.keys() if own[k].shape != weights[k].shape]
    if missing or foreign or wrong:
        first = (missing + foreign + wrong)[0]
        raise InputError(
            f"{where}: the weights do not fit the card: {len(missing)} missing, {len(foreign)} unknown, {len(wrong)} "
            f"of another shape, e.g. {first!r}; the card and the weights belong to different models"
        )
    bad = [k for k, v in weights.items() if v.is_floating_point() and not bool(torch.isfinite(v).all())]
    if bad:
        raise InputError(
            f"{where}: weight {bad[0]!r} holds NaN or infinity; the training diverged or the file is damaged"
        )


def weights_into(model: nn.Module, weights: Mapping[str, Tensor], where: Path) -> None:
    """Load `weights` into the model, cast to its dtypes. Raises InputError where `require_fit` does."""
    require_fit(model, weights, where)
    own = model.state_dict()
    model.load_state_dict({k: v.to(own[k].dtype) for k, v in weights.items()})


def save(
    model: nn.Module, card: Mapping[str, Any], folder: str | os.PathLike[str], half: bool = False, shared: str = ""
) -> None:
    """Write a model folder.

    half: float16 for matrices; vectors (biases, norms and their statistics) stay float32. shared: the bundled model
    that holds this generator's autoencoder, which then is not written again; only for what is bundled with it. Raises
    InputError where the two are not the same.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    if half:
        weights = {k: v.half() if v.is_floating_point() and v.ndim > 1 else v for k, v in weights.items()}
    full = {"format": CARD_FORMAT, **card, "parameters": sum(p.numel() for p in model.parameters())}
    if shared:
        full[_SHARED] = {"name": shared, "sha256": remote.sha256_of(locate(shared) / remote.WEIGHTS)}
        theirs = _shared(full[_SHARED], target)
        ours = {key: weights.pop(key) for key in list(weights) if key.startswith(f"{_SHARED}.")}
        if ours.keys() != theirs.keys() or not all(torch.equal(ours[key], theirs[key]) for key in ours):
            raise InputError(f"the autoencoder of this model is not {shared!r}; save it whole")
    with whole(target / "model.safetensors") as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
        temporary.chmod(0o644)  # safetensors writes for the owner alone
        full["sha256"] = remote.sha256_of(temporary)
    write_whole(target / "card.json", (json.dumps(full, indent=2, allow_nan=False, default=_plain) + "\n").encode())


def save_pretrained(ready: Any, folder: str | os.PathLike[str], half: bool = False) -> None:
    """Write a ready model as a folder that `from_pretrained` reads: card, weights, and a README unless one is there."""
    save(ready.model, {**ready.card, "task": ready.task, "name": ready.name, **_own(ready)}, folder, half)
    readme = Path(folder) / "README.md"
    if not readme.exists():
        readme.write_text(_readme(ready), encoding="utf-8")


def _own(ready: Any) -> dict[str, Any]:
    return {"sample_rate": ready.sample_rate, "config": config_dict(ready.model.config)}


def push_to_hub(
    ready: Any,
    repo: str,
    token: str | bool | None = None,
    private: bool = False,
    revision: str | None = None,
    message: str = "Upload a Fromnoise model",
    half: bool = False,
) -> str:
    """Publish a ready model as the hub's repository "user/name"; returns its address.

    Raises InputError for a model whose card states no licence: nobody may use what has none.
    """
    if not str(ready.card.get("licence") or "").strip():
        raise InputError(f"{ready.name!r} states no licence; set card['licence'], such as 'CC BY 4.0', and push again")
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(ready, folder, half)
        return remote.upload(Path(folder), repo, token, private, revision, message)


def _readme(ready: Any) -> str:
    """The page that a hub shows, with the header that it reads."""
    licence = str(ready.card.get("licence", "not stated"))
    header = {
        "license": licence.lower().replace(" ", "-"),
        "library_name": "fromnoise",
        "tags": f"[audio, {ready.task}]",
    }
    lines = ["---", *(f"{key}: {value}" for key, value in header.items()), "---", f"# {ready.name}", ""]
    lines += [f"A model for the task `{ready.task}`, {ready.sample_rate} Hz. Licence: {licence}.", ""]
    lines += ["    import fromnoise", '    model = fromnoise.load("user/name")', ""]
    scores = ready.card.get("scores")
    lines += ["Scores:", "", f"    {json.dumps(scores)}", ""] if scores else []
    return "\n".join(lines)


def commercial_use(licence: Any) -> bool | None:
    """Whether a licence allows commercial use, by its name; None where that does not follow from it."""
    words = re.findall(
        r"[a-z0-9]+", str(licence).lower().replace("non-commercial", "nc").replace("noncommercial", "nc")
    )
    if {"nc", "research"} & set(words):
        return False
    known = {"mit", "apache", "bsd", "isc", "cc0", "unlicense", "gpl", "lgpl", "agpl", "mpl"}
    creative_commons = {"cc", "by"} <= set(words)
    return True if creative_commons or known & set(words) or {"public", "domain"} <= set(words) else None


def _plain(value: Any) -> Any:
    """What json does not know."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Tensor):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot stand in a card")


def config_dict(config: Any) -> dict[str, Any]:
    """A task's configuration as the plain data of a card."""
    return json.loads(json.dumps(dataclasses.asdict(config), allow_nan=False))


def human_size(num_parameters: int) -> str:
    """2783850 -> '2.78 M'."""
    exponent = max(0, min(3, int(math.log10(max(num_parameters, 1)) // 3)))
    return f"{num_parameters / 1000**exponent:.3g} {['', 'k', 'M', 'G'][exponent]}".strip()
