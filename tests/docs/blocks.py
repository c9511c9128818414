"""The examples of the documentation: which blocks of code a page has, and which command lines stand in them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
    *sorted((ROOT / "fromnoise/models").rglob("*.md")),
    *sorted(ROOT.glob("*.md")),
]
# A command that another program starts: torchrun, Slurm's srun.
STARTED = re.compile(r"^.*(?:\$\(which fromnoise\)|srun.* fromnoise) ((?:train|enhance) .+)$", re.MULTILINE)
SPAN = re.compile(r"`(fromnoise [^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced or an indented block. line: of its first line in the page, counted from 1."""

    language: str
    line: int
    text: str

    @property
    def is_python(self) -> bool:
        return self.language == "python" or (not self.language and self.text.startswith(("import ", "from ")))

    def commands(self) -> list[str]:
        """Command lines: continued ones joined, comments and the alignment before them left out."""
        joined = re.sub(r"\\\n\s*", "", self.text)
        lines = [re.sub(r"\s+#\s.*$", "", line).strip() for line in joined.splitlines()]
        return [line for line in lines if line and not line.startswith("#")]

    @property
    def is_script(self) -> bool:
        return self.text.startswith("#!")

    @property
    def is_shell(self) -> bool:
        if self.is_script:
            return False
        starts = ("fromnoise ", "python -m ", "pip ", "make ", "curl ", "torchrun ", "srun ", "sbatch ")
        return self.language in ("bash", "sh") or (not self.language and self.text.startswith(starts))


def blocks(page: Path) -> list[Block]:
    """All blocks of a page in order."""
    lines = page.read_text(encoding="utf-8").split("\n")
    found, i = [], 0
    while i < len(lines):
        fence = re.match(r"\s*```(\w*)", lines[i])
        if fence:
            end = next(j for j in range(i + 1, len(lines)) if lines[j].strip() == "```")
            found.append(Block(fence[1], i + 2, "\n".join(lines[i + 1 : end])))
            i = end
        elif lines[i].startswith("    ") and i and not lines[i - 1].strip():
            end = next((j for j in range(i, len(lines)) if lines[j].strip() and not lines[j].startswith("    ")), None)
            text = "\n".join(line[4:] for line in lines[i:end]).rstrip()
            found.append(Block("", i + 1, text))
            i += text.count("\n")
        i += 1
    return found


def commands(page: Path) -> list[str]:
    """Every `fromnoise` command line of a page: in blocks, and in running text and tables."""
    shown = [command for block in blocks(page) if block.is_shell for command in block.commands()]
    inline = SPAN.findall(re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL))
    return [command for command in [*shown, *inline] if command.startswith("fromnoise ")]


def started(page: Path) -> list[str]:
    """The `fromnoise` command lines that torchrun and batch scripts of a page start, without what a shell fills in."""
    text = "\n".join(command for block in blocks(page) for command in block.commands())
    return ["fromnoise " + re.sub(r"\s\S*\$\S+", "", found) for found in STARTED.findall(text)]


def words(command: str) -> list[str]:
    """What a shell would pass on, with braces like {a,b} written out."""
    out: list[str] = []
    for word in shlex.split(command):
        braces = re.fullmatch(r"([^{}]*)\{([^{}]*,[^{}]*)\}([^{}]*)", word)
        out += [braces[1] + part + braces[3] for part in braces[2].split(",")] if braces else [word]
    return out
