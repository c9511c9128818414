"""The pages of the Python interface: one for each room of the package, filled from its docstrings by mkdocstrings."""

import ast
from pathlib import Path

from docs.site.commands import cell

HEAD = """# Python

What most programs need:

```python
import fromnoise

print([card["name"] for card in fromnoise.list_models()])
enhancer = fromnoise.load("enhance-small")
print(enhancer.sample_rate, enhancer.network_calls())
```

`load`, `list_models`, `from_pretrained`, `save_pretrained` and `push_to_hub` are functions of
[`fromnoise.hub`](hub.md); `load` gives one of the [tasks](tasks.md). Networks, processes and samplers can be used
without the rest: see [how to add a part](../../extending.md).

"""
# In the order of the architecture, after what users need first.
ROOMS = (
    "hub",
    "tasks",
    "processes",
    "predictions",
    "denoiser",
    "objectives",
    "samplers",
    "backbones",
    "frontends",
    "conditioning",
    "types",
    "data",
    "recipes",
    "training",
    "evaluation",
    "importers",
    "export",
    "runner",
    "batch",
)


def pages(package: Path) -> dict[str, str]:
    """File name -> markdown; index.md lists the others with the first line of each room's docstring."""
    made = {f"{room}.md": room_page(package, room) for room in ROOMS}
    rows = [f"| [`fromnoise.{room}`]({room}.md) | {cell(first_line(door(package, room)))} |" for room in ROOMS]
    return {"index.md": HEAD + "\n".join(["| Room | |", "|---|---|", *rows]) + "\n", **made}


def room_page(package: Path, room: str) -> str:
    """All modules of a room, its own docstring first."""
    modules = [f"fromnoise.{room}"]
    if (package / room).is_dir():
        files = sorted(path.relative_to(package).with_suffix("") for path in (package / room).rglob("*.py"))
        names = (".".join(("fromnoise", *file.parts)).removesuffix(".__init__") for file in files)
        modules = [name for name in names if "._" not in name]
    return f"# fromnoise.{room}\n\n" + "\n".join(f"::: {module}\n" for module in modules)


def door(package: Path, room: str) -> Path:
    """The file whose docstring speaks for the room."""
    return package / room / "__init__.py" if (package / room).is_dir() else package / f"{room}.py"


def first_line(module: Path) -> str:
    text = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    return text.partition("\n\n")[0].partition("\n")[0]
