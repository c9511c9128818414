"""The help pages, the exit codes, and that asking for help loads none of the heavy libraries."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from fromnoise.cli import app as app_module
from fromnoise.cli import main
from fromnoise.types import InputError

ROOT = Path(__file__).parents[2]
COMMANDS = [c for c in app_module.COMMANDS if importlib.util.find_spec(f"fromnoise.cli.{c}")]
HEAVY = ["torch", "lightning", "numpy", "scipy", "hydra", "omegaconf", "soundfile", "matplotlib", "huggingface_hub"]


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter with the working copy on its path."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([c, "--help"] for c in COMMANDS)], ids=" ".join)
def test_help_imports_no_heavy_library(arguments: list[str]):
    run = run_python(
        "import sys\nfrom fromnoise.cli import main\n"
        f"code = main({arguments!r})\n"
        f"print('loaded:', *[m for m in {HEAVY!r} if m in sys.modules])\nsys.exit(code)"
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "loaded:"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example_in_its_help(command: str, capsys: pytest.CaptureFixture[str]):
    assert main([command, "--help"]) == 0
    assert f"fromnoise {command}" in " ".join(capsys.readouterr().out.split("Usage:")[1].split("\n", 1)[1].split())


def test_help_names_every_command_with_its_first_sentence(capsys: pytest.CaptureFixture[str]):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in COMMANDS:
        sentence = importlib.import_module(f"fromnoise.cli.{command}").command.__doc__.split()
        assert f"{command} " in shown
        assert sentence[0] in shown


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "fromnoise 0.1.0\n"


def test_unknown_command_and_option_exit_with_2(capsys: pytest.CaptureFixture[str]):
    assert main(["enhence"]) == 2
    assert main(["doctor", "--jsn"]) == 2
    assert "--jsn" in capsys.readouterr().err


def test_underscores_in_option_names_become_hyphens_and_values_stay():
    given = ["enhance", "a_b.wav", "--sampler_type=my_sampler", "--out_dir", "x_y", "model.num_steps=3", "--", "--a_b"]
    assert app_module.normalise(given) == [
        "enhance",
        "a_b.wav",
        "--sampler-type=my_sampler",
        "--out-dir",
        "x_y",
        "model.num_steps=3",
        "--",
        "--a_b",
    ]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch):
    """Make the command line raise a given error in its only command, `fail`."""

    def install(raise_it):
        def build() -> typer.Typer:
            app = typer.Typer(pretty_exceptions_enable=False)
            app.callback()(app_module._options)
            app.command("fail")(lambda: raise_it())
            return app

        monkeypatch.setattr(app_module, "build_app", build)

    return install


def raiser(error: BaseException):
    """A function of this test module that raises."""

    def raise_it():
        raise error

    return raise_it


def user_error():
    """A ValueError that the package itself raises."""
    from fromnoise.types import spec

    spec({}, 3)


@pytest.mark.parametrize(
    ("raise_it", "code", "sentence"),
    [
        (raiser(InputError("expected a wav,\n got soup")), 2, "Error: expected a wav, got soup\n"),
        (user_error, 2, "Error: int is not one of: \n"),
        (
            raiser(FileNotFoundError(2, "No such file or directory", "a.wav")),
            1,
            "Error: a.wav: No such file or directory\n",
        ),
    ],
    ids=["input", "value", "file"],
)
def test_errors_become_one_sentence(failing, capsys: pytest.CaptureFixture[str], raise_it, code: int, sentence: str):
    failing(raise_it)
    assert main(["fail"]) == code
    assert capsys.readouterr().err.rstrip() == sentence.rstrip()


def test_a_value_error_of_another_library_is_reported_as_unexpected(failing, capsys: pytest.CaptureFixture[str]):
    failing(raiser(ValueError("inner detail")))
    assert main(["fail"]) == 1
    shown = capsys.readouterr().err
    assert "unexpected ValueError: inner detail" in shown
    assert "--debug" in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("arguments", [["--debug", "fail"], ["fail", "--debug"]], ids=" ".join)
def test_debug_shows_the_traceback_wherever_it_stands(failing, capsys: pytest.CaptureFixture[str], arguments):
    failing(raiser(InputError("bad card")))
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.endswith("Error: bad card\n")


def test_a_missing_extra_is_named_with_the_command_that_adds_it(failing, capsys: pytest.CaptureFixture[str]):
    failing(raiser(ModuleNotFoundError("No module named 'hydra.core'", name="hydra.core")))
    assert main(["fail"]) == 2
    assert "pip install 'fromnoise[train]'" in capsys.readouterr().err


def test_interrupt_exits_with_130(failing, capsys: pytest.CaptureFixture[str]):
    failing(raiser(KeyboardInterrupt()))
    assert main(["fail"]) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="pipes close differently there")
def test_a_closed_pipe_ends_quietly():
    code = "import sys; from fromnoise.cli import main; sys.exit(main(['--help']))"
    reader, writer = os.pipe()
    os.close(reader)
    try:
        run = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=300
        )
    finally:
        os.close(writer)
    assert run.stderr == ""
    assert run.returncode in (0, 1)
