"""The page of all commands, from the application itself: what `--help` says, with every spelling of an option."""

from typing import Any

import typer

from fromnoise.cli.app import COMMANDS, build_app

HEAD = """# Commands

Made from the program when the site is built. `fromnoise COMMAND --help` says the same. Where an option has several
names they mean one thing; underscores may stand for hyphens. Exit codes: 0 all was done, 1 something failed, 2 the
request or its input was wrong, 130 interrupted. `--debug` shows the full traceback of an error.
"""


def page() -> str:
    """Markdown of every command in the order of the help page."""
    group: Any = typer.main.get_command(build_app())
    return "\n".join([HEAD, *(section(name, group.commands[name]) for name in COMMANDS if name in group.commands)])


def section(name: str, command: Any) -> str:
    """One command: its sentences, its examples, its arguments and options."""
    shown = [p for p in command.params if not getattr(p, "hidden", False) and p.name != "help"]
    arguments = [p for p in shown if not is_option(p)]
    options = [p for p in shown if is_option(p)]
    usage = " ".join(["fromnoise", name, *(argument_label(p) for p in arguments), *(["[OPTIONS]"] if options else [])])
    parts = [f"## fromnoise {name}", f"```text\n{usage}\n```", help_text(command.help or "")]
    if arguments:
        rows = [f"| `{argument_label(p)}` | {cell(p.help or '')} |" for p in arguments]
        parts.append("\n".join(["| Argument | |", "|---|---|", *rows]))
    if options:
        rows = [f"| {option_label(p)} | {cell(p.help or '')} | {default_label(p)} |" for p in options]
        parts.append("\n".join(["| Option | | Default |", "|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def is_option(parameter: Any) -> bool:
    return parameter.opts[0].startswith("-")


def argument_label(parameter: Any) -> str:
    label = parameter.metavar or parameter.name.upper()
    return label if parameter.required else f"[{label.strip('[]')}]"


def option_label(parameter: Any) -> str:
    """`--steps`, `-N` N: every spelling, and what it takes unless it is a switch."""
    names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    return names if parameter.is_flag else f"{names} {cell(parameter.metavar or parameter.name.upper())}"


def default_label(parameter: Any) -> str:
    """Nothing for switches that are off, and for options whose help states what happens without them."""
    default = parameter.default
    if default is None or default is False or default in ("", [], ()):
        return ""
    return f"`{cell(str(parameter.default))}`"


def help_text(text: str) -> str:
    """The docstring, with the lines that are commands as code."""
    paragraphs = [part.strip() for part in text.replace("\b", "").split("\n\n") if part.strip()]
    shown = [f"```bash\n{p}\n```" if p.startswith("fromnoise ") else " ".join(p.split()) for p in paragraphs]
    return "\n\n".join(shown).replace("\n```\n\n```bash\n", "\n")


def cell(text: str) -> str:
    """Text that cannot break a table, nor be taken for a link or for HTML."""
    joined = " ".join(text.split())
    for sign in ("|", "[", "]", "<", ">", "*"):
        joined = joined.replace(sign, f"&#{ord(sign)};")
    return joined
