"""The typer application, assembled so that `--help` imports none of torch, lightning or numpy, and the door to it.

Exit codes: 0 all was done; 1 something failed; 2 the request or its input was wrong; 130 interrupted.
"""

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

import fromnoise
from fromnoise.cli.extras import extra_of, install_command

# Each is a module of this folder with a function `command`; the order is that of the help page.
COMMANDS = (
    "enhance",
    "separate",
    "vocode",
    "upsample",
    "mel",
    "generate",
    "denoise",
    "interpolate",
    "evaluate",
    "diagnose",
    "train",
    "encode",
    "pack",
    "models",
    "convert",
    "export",
    "web",
    "doctor",
)


def _show_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"fromnoise {fromnoise.__version__}")
        raise typer.Exit()
    return wanted


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_show_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")] = False,
) -> None:
    """Diffusion models for audio: enhance, separate, train, evaluate."""


def build_app() -> typer.Typer:
    """A new application with every command whose module is there."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",  # not "rich", which would take `fromnoise[train]` for a style
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for name in COMMANDS:
        if importlib.util.find_spec(f"fromnoise.cli.{name}") is not None:
            app.command(name)(importlib.import_module(f"fromnoise.cli.{name}").command)
    return app


def normalise(args: Sequence[str]) -> list[str]:
    """Option names with underscores spelt with hyphens; values and everything after `--` stay as they are."""
    out: list[str] = []
    for i, arg in enumerate(args):
        if arg == "--":
            return out + list(args[i:])
        name, equals, value = arg.partition("=")
        out.append((name.replace("_", "-") if name.startswith("--") else name) + equals + value)
    return out


def _is_ours(error: BaseException) -> bool:
    """Whether the innermost frame of the error's traceback is code of this package."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and str(frames[-1].f_globals.get("__name__", "")).split(".")[0] == "fromnoise"


def explain(error: Exception) -> tuple[str, int]:
    """An error as one line for the user, and the exit code."""
    types = sys.modules.get("fromnoise.types")  # loaded already if anything raised its InputError
    text = " ".join(str(error).split())
    if isinstance(error, ValueError) and (_is_ours(error) or (types and isinstance(error, types.InputError))):
        return text, 2
    if isinstance(error, ModuleNotFoundError) and (extra := extra_of(error.name or "")):
        return f"this needs the package {error.name!r}, which is not installed: {install_command(extra)}", 2
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}", 1
    return f"unexpected {type(error).__name__}: {text}; run again with --debug to see where it came from", 1


def _silence_stdout() -> None:
    """Send what is still buffered to nowhere, or the interpreter's last flush complains of a closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(args: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's own) and return its exit code."""
    given = normalise(sys.argv[1:] if args is None else args)
    options = given[: given.index("--")] if "--" in given else given
    debug = "--debug" in options
    given = [arg for i, arg in enumerate(given) if arg != "--debug" or i >= len(options)]
    try:
        code = build_app()(given, prog_name="fromnoise", standalone_mode=True)
        sys.stdout.flush()
    except SystemExit as stop:
        code = stop.code
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        _silence_stdout()
        return 1
    except Exception as error:  # noqa: BLE001 (the last line of defence: every error becomes a sentence and a code)
        if debug:
            traceback.print_exc()
        message, code = explain(error)
        print(f"Error: {message}", file=sys.stderr)
    return code if isinstance(code, int) else 0
