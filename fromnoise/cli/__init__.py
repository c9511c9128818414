"""The command line. `main` is the console script; one module per command, each with a plain function `command`."""

from fromnoise.cli.app import main

__all__ = ["main"]
