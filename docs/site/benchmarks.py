"""The page of benchmarks: how they are run, then every table of benchmarks/results."""

from pathlib import Path


def page(folder: Path) -> str:
    """The README of the folder, its links as from among the docs, and below it each result under its own heading."""
    readme = (folder / "README.md").read_text(encoding="utf-8").rstrip().replace("](../docs/", "](")
    tables = [table(path) for path in sorted((folder / "results").glob("*.md"))]
    return "\n\n".join([readme, "## Results", *tables]) + "\n"


def table(path: Path) -> str:
    """A result's text; its own heading, if it has one, is that of the file."""
    lines = path.read_text(encoding="utf-8").strip().split("\n")
    body = "\n".join(lines[1:] if lines[0].startswith("# ") else lines).strip()
    return f"### {path.stem}\n\n{body}"
