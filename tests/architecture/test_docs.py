"""The documentation's Python examples run, and the parts it names exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXTENDING = ROOT / "docs" / "extending.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Registration lines: `"name": Part` in `REGISTRY`, `file`.
REGISTRATION = re.compile(r'`"\w+": \w+` in `(\w+)`,\s+`([\w/.]+)`')


def test_every_example_of_extending_runs():
    text = EXTENDING.read_text(encoding="utf-8")
    blocks = BLOCK.findall(text)
    lines = [text[: match.start(1)].count("\n") for match in BLOCK.finditer(text)]
    assert len(blocks) >= 6
    # One process for all, a fresh namespace each; the blank lines make a traceback show the page's own line numbers.
    code = "import torch\ntorch.manual_seed(0)\n" + "\n".join(
        f"exec(compile({chr(10) * line + block!r}, 'docs/extending.md', 'exec'), {{'__name__': 'example'}})"
        for line, block in zip(lines, blocks, strict=True)
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(("registry", "file"), REGISTRATION.findall(EXTENDING.read_text(encoding="utf-8")))
def test_every_registry_that_the_page_names_stands_where_it_says(registry: str, file: str):
    assert re.search(rf"^{registry}\b.*=", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]), ids=lambda p: p.name)
def test_every_local_link_of_a_page_leads_somewhere(page: Path):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    lost = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not lost, f"{page.name}: {lost}"
