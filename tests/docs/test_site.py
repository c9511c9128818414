"""The site builds without a warning, has every page and every command, and says of the models what their cards say."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from docs.site import __main__ as stage
from docs.site import api, commands, doctests, results
from fromnoise import hub
from fromnoise.cli.app import COMMANDS
from tests.docs.blocks import ROOT

SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def pages_of(nav: object) -> set[str]:
    """The pages that a part of the navigation names."""
    if isinstance(nav, str):
        return {nav}
    return set().union(*(pages_of(part) for part in (nav.values() if isinstance(nav, dict) else nav)))


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("site")
    stage.main(root / "build/docs")
    return root


def test_the_navigation_has_every_page_and_no_other(laid_out: Path):
    """Models are reached from the results, notebooks' files and the pages' pictures are no pages."""
    made = {path.relative_to(laid_out / "build/docs").as_posix() for path in laid_out.rglob("*.md")}
    assert pages_of(SITE["nav"]) == {page for page in made if not page.startswith("models/")}


def test_the_site_builds_without_a_warning(laid_out: Path):
    """A page or an anchor that is linked and missing would be one. Pictures are looked for here."""
    if importlib.util.find_spec("zensical") is None:
        pytest.skip("zensical is not installed: pip install 'fromnoise[docs]'")
    shutil.copy(ROOT / "mkdocs.yml", laid_out)
    for name in ("fromnoise", "docs"):
        (laid_out / name).symlink_to(ROOT / name)
    build = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    run = subprocess.run(build, cwd=laid_out, capture_output=True, text=True, timeout=1200)
    assert run.returncode == 0, re.sub(r"\x1b\[[0-9;]*m", "", run.stdout + run.stderr)
    site = laid_out / "build/site"
    for page in ("", "results/", "reference/commands/", "reference/python/processes/", "models/enhance-small/"):
        assert (site / page / "index.html").is_file(), page
    processes = (site / "reference/python/processes/index.html").read_text(encoding="utf-8")
    assert "fromnoise.processes.flow.Flow" in processes
    for html in site.rglob("*.html"):
        pictures = re.findall(r'<img[^>]* src="([^":]+)"', html.read_text(encoding="utf-8"))
        lost = [name for name in pictures if not (html.parent / name).exists()]
        assert not lost, f"{html}: {lost}"


def test_the_python_reference_has_every_room_but_the_faces():
    rooms = {path.stem for path in (ROOT / "fromnoise").iterdir() if not path.name.startswith(("_", "py.typed"))}
    assert set(api.ROOMS) == rooms - {"cli", "web", "models", "remote", "files"}


def test_the_page_of_commands_has_every_command_and_every_option():
    shown = commands.page()
    assert re.findall(r"^## fromnoise (\w+)$", shown, re.MULTILINE) == list(COMMANDS)
    enhance = shown.partition("## fromnoise enhance\n")[2].partition("\n## ")[0]
    for needed in ("`--nfe`, `--N`, `-N` N |", "| `enhance-small` |", "`--seed` K |", "enhance interview.wav"):
        assert needed in enhance
    table = [line for line in enhance.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {3, 4}, "a cell broke a table"


def test_the_page_of_results_holds_every_number_of_every_card():
    shown = results.page(results.read_cards(ROOT / "fromnoise/models"))
    for card in hub.list_models():
        section = shown.partition(f"## {card['name']}\n")[2].partition("\n## ")[0]
        for name, value in card["scores"].items():
            assert f"| {value:g} |" in section, (card["name"], name)


@pytest.mark.parametrize("card", hub.list_models(), ids=lambda card: card["name"])
def test_the_readme_of_a_model_says_the_scores_of_its_card(card: dict):
    """To the digits that it gives, two at least: 1.698 is 1.70 there, and an accuracy may be a percentage."""
    readme = (ROOT / "fromnoise/models" / card["name"] / "README.md").read_text(encoding="utf-8")
    numbers = [float(number) for number in re.findall(r"\d+\.\d+", readme)]
    for name, value in card["scores"].items():
        said = any(abs(n - value) < 0.0051 or abs(n - 100 * value) < 0.051 for n in numbers)
        assert said, f"{name} = {value} stands nowhere in the README"


def test_links_are_turned_to_the_pages_of_the_site(tmp_path: Path):
    page = tmp_path / "docs/one.md"
    page.parent.mkdir()
    page.write_text("[a](two.md#x) [b](../README.md) [c](../code.py) ![d](p.png) [e](https://x.org/y.md)")
    places = {(tmp_path / name).resolve(): at for name, at in (("docs/two.md", "two.md"), ("README.md", "index.md"))}
    places[tmp_path / "docs/p.png"] = "p.png"
    turned = stage.relinked(page, "deep/one.md", places)
    assert turned == "[a](../two.md#x) [b](../index.md) c ![d](../p.png) [e](https://x.org/y.md)"


def test_examples_in_docstrings_become_code():
    text = "One line.\n\n    >>> f(1)\n    [2]\n\nMore."
    assert doctests.fenced(text).split() == ["One", "line.", "```python", ">>>", "f(1)", "[2]", "```", "More."]
