"""Notebooks are Python files in cells: `# %%` begins one of code, `# %% [markdown]` one of text in comments.

Editors open them as they are; the site shows them as pages and offers them as .ipynb files.
"""

import json
import re
from pathlib import Path

_CELL = re.compile(r"^# %%(?P<text> \[markdown\])?[^\n]*\n", re.MULTILINE)


def cells(source: str) -> list[tuple[str, str]]:
    """("markdown" or "code", content) of every cell, in order."""
    marks = list(_CELL.finditer(source))
    ends = [mark.start() for mark in marks[1:]] + [len(source)]
    found = []
    for mark, end in zip(marks, ends, strict=True):
        body = source[mark.end() : end].strip("\n")
        if mark["text"]:
            body = "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.split("\n"))
        found.append(("markdown" if mark["text"] else "code", body))
    return found


def as_page(path: Path) -> str:
    """Markdown, with where to find the notebook itself after its heading."""
    parts = [body if kind == "markdown" else f"```python\n{body}\n```" for kind, body in cells(path.read_text("utf-8"))]
    heading, _, rest = parts[0].partition("\n")
    told = f"[Download as a notebook]({path.stem}.ipynb), or run `python notebooks/{path.name}` in the repository."
    return "\n\n".join([heading, told, rest.strip(), *parts[1:]]) + "\n"


def as_ipynb(path: Path) -> str:
    """The JSON of a notebook (nbformat 4.5), without outputs."""
    made = []
    for i, (kind, body) in enumerate(cells(path.read_text("utf-8"))):
        cell = {"cell_type": kind, "id": f"cell-{i}", "metadata": {}, "source": body.splitlines(keepends=True)}
        made.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return json.dumps({"cells": made, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"
