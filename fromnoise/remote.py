"""Model folders from elsewhere and to elsewhere: a repository of a hub, or the address of a folder on a web server.

A hub is asked through huggingface_hub, which keeps what it fetched (`HF_HOME`) and can be told to stay offline
(`HF_HUB_OFFLINE=1`); since it begins a broken transfer anew, the weights are fetched into its cache from here. From a
plain address the same files are fetched into `HF_HOME/fromnoise`. Either way one process at a time fetches, a transfer
that broke or was killed goes on at the next run, and the weights' SHA-256 must be the one that the card states; what
differs is deleted, so that the next try fetches it anew.
"""

import hashlib
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from contextlib import AbstractContextManager
from http.client import HTTPException
from pathlib import Path
from typing import Any

from fromnoise.types import InputError

CARD, WEIGHTS, README = "card.json", "model.safetensors", "README.md"
FILES = (CARD, WEIGHTS, README)
BLOCK = 1 << 20
TIMEOUT = 30.0  # seconds
TRIES = 3  # of a transfer that breaks, in one run


def is_address(name: str) -> bool:
    """Whether a name is the address of a folder on a web server."""
    return name.startswith(("http://", "https://"))


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(
    repo: str,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder of a hub's repository "user/name". Raises InputError where there is none, or it is damaged."""
    from huggingface_hub import hf_hub_url, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    from huggingface_hub.utils import build_hf_headers

    offline = local_files_only or is_offline()
    unknown = "offline mode is on, and it was not fetched before; leave out HF_HUB_OFFLINE and local_files_only once"
    try:
        found = snapshot_download(
            repo,
            revision=revision,
            cache_dir=None if cache_dir is None else Path(cache_dir),
            token=token,
            local_files_only=local_files_only,
            allow_patterns=[CARD, README],
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        mend = unknown if offline else "check the name and the connection"
        raise InputError(f"the hub gave no model {repo!r} ({type(error).__name__}): {mend}") from error
    folder = Path(found)  # named by the commit
    if (folder / CARD).is_file() and not (folder / WEIGHTS).is_file():  # without a card it is no model of ours
        if offline:
            raise InputError(f"the weights of {repo!r} are not here: {unknown}")
        bearer = build_hf_headers(token=token).get("authorization")
        _fetch_weights(hf_hub_url(repo, WEIGHTS, revision=folder.name), folder, bearer)
    return verified(folder, repo)


def fetch_address(
    address: str, cache_dir: str | os.PathLike[str] | None = None, local_files_only: bool = False
) -> Path:
    """The folder behind an address, kept under it. Raises InputError where there is none, or it is damaged."""
    base = address.rstrip("/")
    name = hashlib.sha256(base.encode()).hexdigest()[:16]
    folder = Path(cache_dir or _cache()).expanduser() / name
    if local_files_only or is_offline():
        if not all((folder / file).is_file() for file in (CARD, WEIGHTS)):
            raise InputError(f"{address} was not fetched before, and offline mode is on; leave it out once")
        return verified(folder, address)
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder / CARD):
        download(f"{base}/{CARD}", folder / CARD)
    _fetch_weights(f"{base}/{WEIGHTS}", folder)
    return verified(folder, address)


def _lock(path: Path) -> AbstractContextManager[Any]:
    """One process at a time fetches a file."""
    from huggingface_hub.utils import WeakFileLock

    return WeakFileLock(path.with_name(f".{path.name}.lock"))


def _fetch_weights(address: str, folder: Path, bearer: str | None = None) -> None:
    """The weights beside a card, unless those that it states are there; one process at a time."""
    weights = folder / WEIGHTS
    with _lock(weights):
        stated = _stated(folder / CARD)
        if not (stated and weights.is_file() and sha256_of(weights) == stated):
            download(address, weights, TRIES if stated else 0, bearer)


def download(address: str, path: Path, tries: int = 0, bearer: str | None = None) -> None:
    """One file. Raises InputError when it cannot be had.

    tries: how often a transfer is begun within this run, each time where the one before broke; what then is there as
    `path.part` is gone on from in the next. 0: once, and anew. bearer: tells this host, and none that it refers to, who
    asks.
    """
    part = path.with_name(f"{path.name}.part")
    if not tries:
        part.unlink(missing_ok=True)
    for left in reversed(range(max(tries, 1))):
        try:
            _transfer(address, part, bearer)
            break
        except Broken:
            if not left:
                raise
    os.replace(part, path)


class Broken(InputError):
    """A transfer that ended early; what came is kept."""


def _transfer(address: str, part: Path, bearer: str | None) -> None:
    """What is still missing of a part, with a bar on a terminal."""
    from huggingface_hub.utils import tqdm

    have = part.stat().st_size if part.is_file() else 0
    again = "run it again to go on"
    with _opened(address, part, have, bearer) as answer:
        start = have if answer.status == 206 else 0
        left = int(answer.headers.get("Content-Length") or -1)
        got, total = 0, None if left < 0 else start + left
        with (
            part.open("ab" if start else "wb") as file,
            tqdm(total=total, initial=start, desc=part.stem, unit="B", unit_scale=True, disable=None) as bar,
        ):
            try:
                while block := answer.read(BLOCK):
                    got += file.write(block)
                    bar.update(len(block))
            except (OSError, HTTPException) as error:
                raise Broken(f"{address}: broke off after {got} bytes ({error}); {again}") from error
    if got < left:
        raise Broken(f"{address}: the connection broke after {got} of {left} bytes; {again}")


def request_for(address: str, have: int, bearer: str | None) -> urllib.request.Request:
    """A request for what follows the first `have` bytes; `bearer` is for this host alone."""
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    if bearer:
        request.add_unredirected_header("Authorization", bearer)
    return request


def _opened(address: str, part: Path, have: int, bearer: str | None) -> Any:
    """The answer to it."""
    try:
        return urllib.request.urlopen(request_for(address, have, bearer), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing follows: the part is whole, or longer than what there is now
            part.unlink(missing_ok=True)
            raise Broken(f"{address}: what an earlier try left does not fit; run it again") from error
        raise InputError(f"{address}: the server answered {error.code} {error.reason}; check the address") from error
    except (OSError, ValueError, HTTPException) as error:
        raise InputError(f"{address} cannot be fetched ({error}); check the address and the connection") from error


def verified(folder: Path, name: str) -> Path:
    """The folder itself; raises InputError, and deletes the weights, where they are not those that the card states."""
    stated, weights = _stated(folder / CARD), folder / WEIGHTS
    if stated is None or not weights.is_file() or sha256_of(weights) == stated:
        return folder
    weights.resolve().unlink(missing_ok=True)  # of a hub's cache: the blob behind the link
    weights.unlink(missing_ok=True)
    raise InputError(
        f"{name}: the weights that came are not those of the card (their SHA-256 differs); they were deleted, so try "
        "again, and if that fails too ask who published them"
    )


def _stated(card: Path) -> str | None:
    """The SHA-256 that a card states, None where it is silent or no card; what is wrong with it is said later."""
    try:
        content: Any = json.loads(card.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        return None
    stated = content.get("sha256") if isinstance(content, dict) else None
    return stated if isinstance(stated, str) else None


def upload(
    folder: Path,
    repo: str,
    token: str | bool | None = None,
    private: bool = False,
    revision: str | None = None,
    message: str = "Upload a Fromnoise model",
) -> str:
    """Commit a model folder to a hub's repository, which is made if there is none; returns its address."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(token=token)
    try:
        address = str(api.create_repo(repo, private=private, exist_ok=True))
        api.upload_folder(
            repo_id=repo, folder_path=folder, allow_patterns=list(FILES), revision=revision, commit_message=message
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise InputError(
            f"the hub did not take {repo!r} ({type(error).__name__}: {' '.join(str(error).split())[:200]}); check the "
            "name, the token (`hf auth login`) and the connection"
        ) from error
    return address


def is_offline() -> bool:
    """Whether the environment asks for no connections."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _cache() -> Path:
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    return Path(home) / "fromnoise"
