"""The notebooks run from their first cell to their last, and show what their text says."""

import json
import runpy
from pathlib import Path

import pytest

from docs.site.notebooks import as_ipynb, cells
from tests.docs.blocks import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the recordings in it, as in the repository."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_any_process_and_any_sampler(here: Path, capsys: pytest.CaptureFixture[str]):
    made = runpy.run_path(str(ROOT / "notebooks/any_process_any_sampler.py"))
    for (process, sampler), (mean, deviation) in made["table"].items():
        assert abs(mean - made["MEAN"]) < 0.02, (process, sampler)
        ends_in_its_mean = process == "bridge" and sampler != "ddpm"
        assert abs(deviation - (0.0 if ends_in_its_mean else made["DEVIATION"])) < 0.03, (process, sampler)
    assert ("bridge", "heun") not in made["table"]
    for denoiser, losses in made["trained"].values():
        assert not denoiser.training
        assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    assert "level of two new tones" in capsys.readouterr().out


def test_enhancing_step_by_step(here: Path, capsys: pytest.CaptureFixture[str]):
    made = runpy.run_path(str(ROOT / "notebooks/enhancing_step_by_step.py"))
    at_first, in_one_call, by_hand = (made["si_sdr"](made[name]) for name in ("noisy", "enhanced", "by_hand"))
    assert in_one_call > at_first + 5
    assert abs(by_hand - in_one_call) < 0.5
    states = [line for line in capsys.readouterr().out.splitlines() if line.startswith("after step")]
    assert len(states) == 1 + 4


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_keeps_every_line_of_its_file(path: Path):
    made = json.loads(as_ipynb(path))
    assert made["cells"][0]["cell_type"] == "markdown"
    assert made["cells"][0]["source"][0].startswith("# ")
    assert sum(cell["cell_type"] == "code" for cell in made["cells"]) >= 5
    code = [body for kind, body in cells(path.read_text(encoding="utf-8")) if kind == "code"]
    text = path.read_text(encoding="utf-8")
    kept = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert [line for body in code for line in body.splitlines() if line and not line.startswith("#")] == kept
