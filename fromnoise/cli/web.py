"""`fromnoise web`: the tasks as a web page, on this machine."""

from typing import Annotated

import typer

from fromnoise.cli import common

HOST = "127.0.0.1"


def command(
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Where to listen; 0.0.0.0 lets other machines in.")
    ] = HOST,
    port: Annotated[
        int, typer.Option("--port", metavar="P", min=0, max=65535, help="0 takes one that is free.")
    ] = 7860,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--models",
            "--model",
            "-m",
            metavar="MODEL",
            help="A bundled name, a model or run folder, or a hub id; may be repeated.  [default: all bundled models]",
        ),
    ] = None,
    max_seconds: Annotated[
        float, typer.Option("--max-seconds", metavar="S", help="The longest sound that is taken or made.")
    ] = 120.0,
    max_megabytes: Annotated[
        float, typer.Option("--max-megabytes", metavar="MB", help="The largest file that is taken.")
    ] = 50.0,
    device: common.Device = "auto",
    quiet: common.Quiet = False,
) -> None:
    """Serve a web page with a tab for each task, until interrupted. Nothing is asked of the network.

    The page listens on this machine alone. Another --host lets others in, and there is no password.

    Examples:

    fromnoise web

    fromnoise web --port 8000 --models enhance-small --models runs/mine --max-seconds 600
    """  # fmt: skip
    import signal
    import threading

    import gradio  # noqa: F401 (absent: an error with the command that adds it)
    import matplotlib  # noqa: F401

    from fromnoise.web.serve import served

    voice, stop = common.Voice(quiet), threading.Event()
    names = [name for given in models or [] for name in common.comma_separated(given)]
    with served(host, port, names, max_seconds, max_megabytes, common.choose_device(device)) as address:
        if host != HOST and not host.startswith("127.") and host not in ("localhost", "::1"):
            voice.complain(f"Warning: whoever reaches {host} may use this page; it has no password")
        voice.say(f"{address} (stop with Ctrl+C)")
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        stop.wait()
