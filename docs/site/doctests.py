"""A griffe extension: examples that begin with >>> in docstrings become blocks of code; Markdown would quote them."""

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^ *>>> .*(?:\n(?! *\n).+)*", re.MULTILINE)


class Doctests(griffe.Extension):
    """Changes the docstring of every object as it is read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """The text with a fence around every example and its output."""

    def fence(found: re.Match[str]) -> str:
        lines = found[0].split("\n")
        margin = len(lines[0]) - len(lines[0].lstrip())
        return "\n".join(["", "```python", *(line[margin:] for line in lines), "```", ""])

    return EXAMPLE.sub(fence, text)
