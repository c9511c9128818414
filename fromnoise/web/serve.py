"""The page as a server: its own temporary folder, limits, and no word to anyone else."""

import contextlib
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fromnoise.types import InputError

if TYPE_CHECKING:
    import torch

QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_SHARE": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_SSR_MODE": "False",
}


@contextlib.contextmanager
def served(
    host: str = "127.0.0.1",
    port: int = 7860,
    models: Sequence[str] = (),
    seconds: int | float = 120.0,
    megabytes: int | float = 50.0,
    device: "str | torch.device" = "cpu",
) -> Iterator[str]:
    """The page, up while the context lasts; gives its address. port 0 takes a free one.

    Raises InputError for a model that cannot be offered, a limit that makes no sense, or a port that is taken.
    """
    from fromnoise.web.desk import Desk
    from fromnoise.web.goods import Limits
    from fromnoise.web.shelf import Shelf

    limits, shelf = Limits(seconds, megabytes), Shelf(models, device)
    with tempfile.TemporaryDirectory(prefix="fromnoise-web-") as name:
        root = Path(name)
        for part in ("cache", "made", "examples"):
            (root / part).mkdir()
        with _environment({**QUIET, "GRADIO_TEMP_DIR": str(root / "cache")}):
            from gradio import themes

            from fromnoise.web.page import build
            from fromnoise.web.parts import Stops

            stops = Stops()
            page = build(Desk(shelf, limits, root / "made"), stops, root / "examples")
            theme = themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
            address = _launched(page, theme, host, port, megabytes, stops.leave)
            try:
                yield address
            finally:
                page.close(verbose=False)


class Farewell:
    """ASGI middleware: when a program no longer waits for a call's result, `leave` hears of the call, by its id."""

    def __init__(self, app: Callable[..., Awaitable[None]], leave: Callable[[str], None]) -> None:
        self.app, self.leave = app, leave

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self.app(scope, receive, send)
        finally:
            if scope["type"] == "http" and scope["method"] == "GET" and "/gradio_api/call/" in scope["path"]:
                self.leave(scope["path"].rstrip("/").rpartition("/")[2])


def _launched(page: Any, theme: Any, host: str, port: int, megabytes: int | float, leave: Callable[[str], None]) -> str:
    from starlette.middleware import Middleware

    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port or _free_port(host),
            theme=theme,
            share=False,
            inbrowser=False,
            prevent_thread_lock=True,
            quiet=True,
            show_error=False,
            max_file_size=int(megabytes * 1e6),
            app_kwargs={"middleware": [Middleware(Farewell, leave)]},
            allowed_paths=[],
            footer_links=["api"],
            ssr_mode=False,
            enable_monitoring=False,
            mcp_server=False,
            pwa=False,
        )
    except OSError as error:
        raise InputError(
            f"the page cannot be served at {host}:{port} ({error}); another program may have the port: choose another "
            "--port, or 0 for any that is free"
        ) from error
    return address


def _free_port(host: str) -> int:
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as found:
        found.bind((host, 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Environment variables set for a while."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
