"""`fromnoise doctor`: what is installed, on which machine, and what would have to be added for the rest."""

import importlib
import importlib.metadata
import json
import os
import platform
import sys
from typing import Annotated, Any

import typer

import fromnoise
from fromnoise.cli.extras import CORE, EXTRAS, UNWANTED, install_command, missing


def version_of(package: str) -> str | None:
    """The installed version of a distribution, None when it is absent."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_core() -> dict[str, dict[str, str | None]]:
    """Import every core package: its version, and the problem in words or None."""
    found: dict[str, dict[str, str | None]] = {}
    for package, module in CORE.items():
        problem = None
        try:
            importlib.import_module(module)
        except Exception as error:  # noqa: BLE001 (a broken installation fails in any way it likes; that is the finding)
            problem = f"{type(error).__name__}: {' '.join(str(error).split())}"
        found[package] = {"version": version_of(package), "problem": problem}
    return found


def check_devices() -> dict[str, Any]:
    """What torch can compute on. Call it only where torch can be imported."""
    import torch

    cuda = [
        {
            "name": torch.cuda.get_device_name(i),
            "gib": round(torch.cuda.get_device_properties(i).total_memory / 2**30, 1),
        }
        for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    ]
    cpu = {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }
    return {"cpu": cpu, "cuda": cuda, "mps": torch.backends.mps.is_available()}


def report() -> dict[str, Any]:
    """Everything that the command prints, as plain values."""
    core = check_core()
    extras = {
        extra: {
            "versions": {package: version_of(package) for package in packages},
            "missing": missing(extra),
            "install": install_command(extra),
        }
        for extra, packages in EXTRAS.items()
    }
    unwanted = sorted(package for package in UNWANTED if version_of(package))
    return {
        "fromnoise": fromnoise.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "core": core,
        "devices": check_devices() if core["torch"]["problem"] is None else None,
        "extras": extras,
        "warnings": [f"{package} is installed; its wheels break packages beside a CPU torch" for package in unwanted],
        "sound": all(entry["problem"] is None for entry in core.values()),
    }


def _device_lines(devices: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    if devices is None:
        return [("devices", "unknown", "torch cannot be imported")]
    cpu = devices["cpu"]
    lines = [("cpu", f"{cpu['threads']} threads", f"{cpu['cores']} cores, {cpu['instructions']}")]
    lines += [(f"cuda:{i}", card["name"], f"{card['gib']} GiB") for i, card in enumerate(devices["cuda"])]
    if not devices["cuda"]:
        lines.append(("cuda", "none", ""))
    return [*lines, ("mps", "yes" if devices["mps"] else "none", "")]


def print_table(found: dict[str, Any]) -> None:
    """The report for people."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"fromnoise {found['fromnoise']}", title_justify="left")
    for heading in ("what", "version", "remark"):
        table.add_column(heading, overflow="fold")
    rows = [("python", found["python"], found["platform"])]
    rows += [(name, entry["version"] or "absent", entry["problem"] or "") for name, entry in found["core"].items()]
    table_sections = [rows, _device_lines(found["devices"])]
    for extra, entry in found["extras"].items():
        absent = entry["missing"]
        remark = f"without {', '.join(absent)}" if absent else ""
        present = ", ".join(f"{package} {version}" for package, version in entry["versions"].items() if version)
        table_sections.append([(f"extra {extra}", present or "absent", remark)])
    for section in table_sections:
        for row in section:
            table.add_row(*(Text(cell) for cell in row))  # Text: the brackets of 'fromnoise[train]' are no markup
        table.add_section()
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    for extra, entry in found["extras"].items():
        if entry["missing"]:
            console.print(Text(f"to add {extra}: {entry['install']}"), soft_wrap=True)
    for warning in found["warnings"]:
        console.print(Text(f"warning: {warning}"))
    console.print("the core is sound" if found["sound"] else "the core is broken: reinstall the packages with a remark")


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Show versions, devices and missing extras, with the command that adds each.

    The exit code is 0 when every core package works. Example: `fromnoise doctor --json`
    """
    found = report()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        print_table(found)
    if not found["sound"]:
        raise typer.Exit(1)
