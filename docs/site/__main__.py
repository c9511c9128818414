"""`python -m docs.site`: lay out build/docs, from which mkdocs.yml builds the site.

The pages of `docs` are copied as they are, and so are the READMEs of models and benchmarks. A link into the rest of the
repository is turned to the page that the site has of that file or folder; where it has none, the text stays alone.
"""

import re
import shutil
import sys
from pathlib import Path

from docs.site import api, benchmarks, commands, notebooks, results

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]\n]*)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
# What a page of the repository links to -> the page that the site has instead.
STANDS_FOR = {
    "README.md": "index.md",
    "benchmarks/README.md": "benchmarks.md",
    "fromnoise": "reference/python/index.md",
    "fromnoise/cli": "reference/commands.md",
    "fromnoise/models": "results.md",
} | {f"fromnoise/{room}": f"reference/python/{room}.md" for room in api.ROOMS}


def main(target: Path = ROOT / "build" / "docs") -> None:
    """Write every page of the site below `target`; what was there is replaced."""
    shutil.rmtree(target, ignore_errors=True)
    for page, text in generated().items():
        write(target / page, text)
    files = copied()
    places = {(ROOT / name).resolve(): page for name, page in STANDS_FOR.items()}
    places |= {path.resolve(): page for path, page in files.items()}
    places |= {path.resolve(): f"notebooks/{path.stem}.md" for path in (ROOT / "notebooks").glob("*.py")}
    for source, page in files.items():
        if source.suffix == ".md":
            write(target / page, relinked(source, page, places))
        else:
            (target / page).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target / page)


def generated() -> dict[str, str]:
    """Page -> text of what the program, the cards and the notebooks give."""
    pages = {"reference/commands.md": commands.page()}
    pages |= {f"reference/python/{name}": text for name, text in api.pages(ROOT / "fromnoise").items()}
    pages["benchmarks.md"] = benchmarks.page(ROOT / "benchmarks")
    pages["results.md"] = results.page(results.read_cards(ROOT / "fromnoise" / "models"))
    for path in sorted((ROOT / "notebooks").glob("*.py")):
        pages[f"notebooks/{path.stem}.md"] = notebooks.as_page(path)
        pages[f"notebooks/{path.stem}.ipynb"] = notebooks.as_ipynb(path)
    return pages


def copied() -> dict[Path, str]:
    """File -> page of what is taken as it is."""
    docs = [path for path in (ROOT / "docs").rglob("*") if path.suffix in {".md", ".png"}]
    found = {path: path.relative_to(ROOT / "docs").as_posix() for path in docs}
    found |= {path: f"models/{path.parent.name}.md" for path in (ROOT / "fromnoise/models").glob("*/README.md")}
    return found | {ROOT / name: name.lower() for name in ("CHANGELOG.md", "CONTRIBUTING.md")}


def relinked(source: Path, page: str, places: dict[Path, str]) -> str:
    """A file's text with its links as they are between the site's pages."""

    def turn(link: re.Match[str]) -> str:
        if "://" in link["target"] or link["target"].startswith("mailto:"):
            return link[0]
        there = places.get((source.parent / link["target"]).resolve())
        if there is None:
            return link["text"]
        return f"{link['image']}[{link['text']}]({'../' * page.count('/')}{there}{link['anchor'] or ''})"

    return LINK.sub(turn, source.read_text(encoding="utf-8"))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
