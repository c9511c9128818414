"""Every example of the documentation runs on small inputs, or is named in `listed.py` with the reason and parsed."""

import ast
import importlib.util
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

import fromnoise
from fromnoise.cli import main
from fromnoise.cli.app import build_app, normalise
from fromnoise.recipes import RECIPES
from fromnoise.recipes.compose import compose
from tests.docs import bench
from tests.docs.blocks import PAGES, ROOT, Block, blocks, commands, started, words
from tests.docs.listed import NOT_RUN, NOT_RUN_PYTHON, OTHERS, SHORTER, TRAINED

RECIPE = re.compile(r"recipe=([\w/]+)")
NAME = re.compile(r"`([a-z]\w*/\w+)`")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def examples() -> dict[Path, list[tuple[int, Block | str]]]:
    """Page -> its examples with their lines: blocks of Python, and commands on the first page that has them."""
    seen: set[str] = set()
    found: dict[Path, list[tuple[int, Block | str]]] = {}
    for page in PAGES:
        for block in blocks(page):
            new = [command for command in block.commands() if command not in seen] if block.is_shell else []
            seen.update(new)
            for example in [block] if block.is_python else new:
                found.setdefault(page, []).append((block.line, example))
    return found


EXAMPLES = examples()


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bench.lay_out(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def here(everything: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of links to everything, so that what an example writes is its own page's."""
    for path in everything.rglob("*"):
        target = tmp_path / path.relative_to(everything)
        target.mkdir() if path.is_dir() else target.symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


def given() -> dict[str, Any]:
    """The names that the pages' Python takes for granted: recordings as arrays."""
    noisy, clean = bench.wave("noisy"), bench.wave("clean")
    return {"noisy": noisy, "mixture": noisy, "wave": clean, "narrow": clean[:4000], "a": clean, "b": noisy}


@pytest.mark.parametrize("page", EXAMPLES, ids=name_of)
def test_the_examples_of_a_page_run(page: Path, here: Path, capsys: pytest.CaptureFixture[str]):
    names = given()
    for line, example in EXAMPLES[page]:
        if isinstance(example, str):
            code = run(example)
            assert code in (None, 0), f"{name_of(page)}:{line}: {example}: {capsys.readouterr().err}"
        elif not why_python_is_not_run(page, example):
            exec(compile("\n" * (line - 1) + example.text, page.name, "exec"), names)


def run(command: str) -> int | None:
    """Run one command line as `listed.py` says, and return its exit code; None where it is not run."""
    if command.startswith("python -m fromnoise."):
        return subprocess.run([sys.executable, *words(command)[1:]], timeout=280, env=environment()).returncode
    if any(part in command for part in NOT_RUN) or not command.startswith("fromnoise "):
        return None
    long = next((part for part in SHORTER if part in command), "")
    command = command.replace(long, SHORTER[long]) if long else command
    if command.startswith("fromnoise train") and not any(recipe in command for recipe in TRAINED):
        return None
    return main(words(command)[1:])


def environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT)}


def why_python_is_not_run(page: Path, block: Block) -> str | None:
    return next(
        (why for (name, start), why in NOT_RUN_PYTHON.items() if page.name == name and block.text.startswith(start)),
        None,
    )


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name_of)
def test_commands_have_options_and_recipes_that_exist(page: Path):
    """Also those that stand in a sentence or a table, and those that are not run. Recipes are put together with all
    their settings, so that a field that does not exist is noticed."""
    group: Any = typer.main.get_command(build_app())
    for command in [*commands(page), *started(page)]:
        arguments = normalise(words(command)[1:])
        if arguments[0].startswith("-"):
            continue
        assert arguments[0] in group.commands, command
        group.commands[arguments[0]].make_context(arguments[0], arguments[1:], resilient_parsing=True)
        names = RECIPE.findall(command)
        if names and "..." not in command and page.name != "extending.md":
            edits = [word for word in arguments if "=" in word or word.startswith("~")]
            compose(RECIPES[names[0]], [edit for edit in edits if not edit.startswith("recipe=")])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_recipes_that_a_page_names_exist(page: Path):
    text, families = page.read_text(encoding="utf-8"), {recipe.partition("/")[0] for recipe in RECIPES}
    named = set(RECIPE.findall(text)) | {name for name in NAME.findall(text) if name.partition("/")[0] in families}
    assert not named - set(RECIPES) - {"NAME", "example/karras"}


def test_other_programs_are_known_and_called_rightly():
    """`pip` with extras that there are, `make` with targets that there are, benchmarks that can be found."""
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for page in PAGES:
        for command in [c for block in blocks(page) if block.is_shell for c in block.commands()]:
            if command.startswith(("fromnoise ", "python -m fromnoise.")):
                continue
            assert command.startswith(OTHERS), f"{name_of(page)}: {command}: run it, or name it in listed.py"
            for extra in re.findall(r"\[([\w,]+)\]", command) if command.startswith("pip") else ():
                assert all(re.search(rf"^{name} = \[", project, re.MULTILINE) for name in extra.split(",")), command
            if command.startswith("make "):
                assert command.split()[1] in targets, command
            if command.startswith("python -m benchmarks."):
                assert importlib.util.find_spec(command.split()[2]) is not None, command


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_scripts_are_shell_and_start_what_there_is():
    scripts = [(page, block) for page in PAGES for block in blocks(page) if block.is_script]
    for page, block in scripts:
        run = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, timeout=60)
        assert run.returncode == 0, f"{name_of(page)}:{block.line}: {run.stderr}"
        assert re.search("fromnoise (train|enhance) ", block.text)


def test_python_that_is_not_run_calls_what_there_is():
    for page in PAGES:
        for block in [b for b in blocks(page) if b.is_python and why_python_is_not_run(page, b)]:
            tree = ast.parse(block.text)
            for call in [node for node in ast.walk(tree) if isinstance(node, ast.Call)]:
                if isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "fromnoise":
                    signature = inspect.signature(getattr(fromnoise, call.func.attr))
                    signature.bind(*call.args, **{word.arg or "": word.value for word in call.keywords})
            for line in [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]:
                module = importlib.import_module(line.module or "")
                assert all(hasattr(module, name.name) for name in line.names), ast.unparse(line)


def test_what_is_listed_as_not_run_still_stands_somewhere():
    shown = [command for page in PAGES for block in blocks(page) if block.is_shell for command in block.commands()]
    for part in (*NOT_RUN, *SHORTER):
        assert any(part in command for command in shown), f"{part!r} stands in no example; take it from listed.py"
    starts = {(page.name, start) for page in PAGES for block in blocks(page) for start in [block.text]}
    for name, start in NOT_RUN_PYTHON:
        assert any(page == name and text.startswith(start) for page, text in starts), (name, start)


def test_a_wrong_example_would_be_noticed():
    block = Block("bash", 1, "fromnoise enhance noisy.wav \\\n    --stepz 3   # a slip\nfromnoise train recipe=no/such")
    assert block.commands() == ["fromnoise enhance noisy.wav --stepz 3", "fromnoise train recipe=no/such"]
    assert [main(words(command)[1:]) for command in block.commands()] == [2, 2]
    assert np.isfinite(bench.wave("noisy")).all()
