"""The doctor tells the truth about what is installed, and says how to add the rest."""

import importlib.metadata
import json

import pytest

from fromnoise.cli import doctor, main


def test_json_report_holds_the_installed_versions(capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sound"] is True
    assert found["core"]["torch"] == {"version": importlib.metadata.version("torch"), "problem": None}
    assert found["devices"]["cpu"]["threads"] >= 1


def test_a_missing_extra_is_shown_with_its_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(doctor.EXTRAS, "formats", {"no-such-package": "no_such_module"})
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "without no-such-package" in shown
    assert "to add formats: pip install 'fromnoise[formats]'" in shown


def test_a_broken_core_package_makes_the_exit_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(doctor.CORE, "soxr", "no_such_module")
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "no_such_module" in shown
    assert "the core is broken" in shown


def test_an_unwanted_package_is_a_warning(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "UNWANTED", {"pytest"})
    assert main(["doctor"]) == 0
    assert "warning: pytest is installed" in capsys.readouterr().out
