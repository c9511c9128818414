"""`fromnoise evaluate` and `fromnoise models`: rows for every model and setting, folders of results, and what fails."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fromnoise import hub
from fromnoise.cli import main

RATE = 16000
METRICS = ["--metrics", "si_sdr,ssnr"]


def speech_like(index: int, n: int = 8000) -> np.ndarray:
    t = np.arange(n) / RATE
    return (0.3 * np.sin(2 * np.pi * (200 + 50 * index) * t) * np.sin(2 * np.pi * 2 * t) ** 2).astype(np.float32)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for i, name in enumerate(["a", "room/b", "room/c"]):
        clean = speech_like(i)
        noise = 0.05 * np.random.default_rng(i).standard_normal(clean.shape)
        for side, wave in {"clean": clean, "noisy": clean + noise}.items():
            path = tmp_path / "data" / side / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, wave, RATE)
    return tmp_path / "data"


def evaluate(*arguments: object) -> int:
    return main(["evaluate", *map(str, arguments), "-d", "cpu"])


def report(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out)


def test_a_report_of_every_model_sampler_and_number_of_steps(tiny_models, data, tmp_path, capsys):
    models = f"{tiny_models['regression']},{tiny_models['bridge']}"
    options = ["--steps", "1,2", "--sampler", "ddim,dpmpp_2m", "--limit", 2, "--seed", 3, "--examples", 1]
    assert evaluate(models, data, "-o", tmp_path / "report", *METRICS, *options) == 0
    shown = capsys.readouterr().out
    assert "tiny-bridge, ddim, 2 steps" in shown
    assert f"report: {tmp_path / 'report/report.html'}" in shown
    summary = json.loads((tmp_path / "report/summary.json").read_text())
    assert (summary["files"], summary["seed"], len(summary["rows"])) == (2, 3, 1 + 2 * 2 * 2)
    calls = {row["label"]: row["network_calls"] for row in summary["rows"]}
    assert (calls["noisy"], calls["tiny-bridge, ddim, 2 steps"]) == (0, 2)
    with (tmp_path / "report/results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {line["file"] for line in lines} == {"a", "room/b"}
    assert all(np.isfinite(float(line["si_sdr"])) for line in lines)
    assert "<audio" in (tmp_path / "report/report.html").read_text()


def test_several_data_sets_make_a_table_and_a_report_each(data, tmp_path, capsys):
    (tmp_path / "other").symlink_to(data)
    both = f"{data},{tmp_path / 'other'}"
    assert evaluate("noisy", both, "-o", tmp_path / "report", *METRICS, "--limit", 1) == 0
    shown = capsys.readouterr().out
    assert f"{tmp_path / 'other'}: 1 files" in shown.replace("\n", "")
    assert {p.parent.name for p in (tmp_path / "report").glob("*/report.html")} == {"data", "other"}
    assert evaluate("noisy", both, *METRICS, "--limit", 1, "--json") == 0
    assert set(report(capsys)) == {str(data), str(tmp_path / "other")}


def test_a_folder_of_results_scores_as_the_model_that_made_them(tiny_models, data, tmp_path, capsys):
    model = tiny_models["regression"]
    made = ["enhance", data / "noisy", "-m", model, "-d", "cpu", "-q", "--subtype", "FLOAT"]
    assert main([str(a) for a in [*made, "-o", tmp_path / "theirs"]]) == 0
    assert main([str(a) for a in [*made, "-o", tmp_path / "suffixed", "--suffix", "_enhanced"]]) == 0
    capsys.readouterr()
    assert evaluate(model, data, "-m", tmp_path / "theirs", "-m", tmp_path / "suffixed", *METRICS, "--json") == 0
    rows = {row["label"]: row for row in report(capsys)["rows"]}
    assert list(rows) == ["noisy", "tiny-regression", "theirs", "suffixed"]
    ours, theirs = (rows[name]["scores"]["si_sdr"]["mean"] for name in ("tiny-regression", "theirs"))
    assert ours == pytest.approx(theirs, abs=1e-3)
    assert theirs == rows["suffixed"]["scores"]["si_sdr"]["mean"]
    assert rows["theirs"]["network_calls"] == 0
    assert rows["theirs"]["real_time_factor"] is None


def test_the_input_itself_is_scored_alone_by_its_name(data, capsys):
    assert evaluate("noisy", data, *METRICS, "--json") == 0
    found = report(capsys)
    assert [row["label"] for row in found["rows"]] == ["noisy"]
    expected = [
        10
        * np.log10(np.sum(speech_like(i) ** 2) / np.sum((0.05 * np.random.default_rng(i).standard_normal(8000)) ** 2))
        for i in range(3)
    ]
    assert found["rows"][0]["scores"]["si_sdr"]["mean"] == pytest.approx(np.mean(expected), abs=0.3)


def test_two_models_of_one_name_are_told_apart(make_model, data, tmp_path, capsys):
    one, two = (make_model("regression", tmp_path / name, seed) for seed, name in enumerate(["one", "two"]))
    assert evaluate(f"{one},{two}", data, *METRICS, "--json") == 0
    rows = report(capsys)["rows"]
    assert [row["label"] for row in rows] == ["noisy", "tiny-regression", str(two)]
    assert rows[1]["scores"]["si_sdr"]["mean"] != rows[2]["scores"]["si_sdr"]["mean"]


def test_a_file_without_any_score_is_named_and_makes_the_exit_code_1(data, tmp_path, capsys):
    (tmp_path / "theirs/room").mkdir(parents=True)
    for name in ("a", "room/b"):
        soundfile.write(tmp_path / f"theirs/{name}.flac", speech_like(5), RATE)
    soundfile.write(tmp_path / "theirs/room/b_enhanced.wav", speech_like(5), RATE)
    (data / "noisy/alone.wav").write_bytes(b"")
    assert evaluate(tmp_path / "theirs", data, *METRICS) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "Warning: left out: noisy/alone has no partner in clean/"
    assert said[1].startswith("Error: theirs: room/b has no score: ")
    assert "found b.flac, b_enhanced.wav" in said[1]
    assert "expected one result for room/c" in said[2] and "found none" in said[2]


def test_jobs_do_not_change_a_number(tiny_models, data, capsys):
    found = []
    for jobs in (1, 2):
        assert evaluate(tiny_models["bridge"], data, *METRICS, "--json", "--limit", 2, "--jobs", jobs) == 0
        found.append([row["scores"] for row in report(capsys)["rows"]])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["DATA"], "expected MODEL_OR_FOLDER and DATA"),
        (["a", "b", "DATA"], "join several models by commas"),
        (["noisy", "NOWHERE"], "expected a folder with pairs, one of: test/noisy/ and test/clean/"),
        (["noisy", "DATA", "--metrics", "loudness"], "unknown metric 'loudness'; choose from: pesq_wb"),
        (["noisy", "DATA", "--steps", "1,two"], "--steps takes whole numbers with commas between, got '1,two'"),
        (["MODEL", "DATA", "--steps", "0"], "steps must lie between 1 and 10000"),
        (["MODEL", "DATA", "--sampler", "magic"], "unknown sampler 'magic'"),
        (["nobody", "DATA"], "no model 'nobody'"),
        (["noisy", "DATA", "--split", "all"], "--split must be one of train, valid, test"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_request_exits_with_2_and_one_sentence(tiny_models, data, tmp_path, capsys, arguments, fault):
    places = {"DATA": data, "NOWHERE": tmp_path, "MODEL": tiny_models["regression"]}
    assert evaluate(*(places.get(argument, argument) for argument in arguments)) == 2
    said = capsys.readouterr().err.strip()
    assert fault in said
    assert said.count("\n") == 0


@pytest.fixture
def bundled(make_model, tmp_path, monkeypatch):
    """Two models as if they were bundled."""
    for name, licence in {"small": "MIT", "large": "CC BY 4.0"}.items():
        folder = make_model("regression", tmp_path / "models" / name)
        card = json.loads((folder / "card.json").read_text())
        card |= {"name": name, "licence": licence, "scores": {"pesq_wb": 2.345, "files": "824 of VoiceBank"}}
        (folder / "card.json").write_text(json.dumps(card))
    (tmp_path / "models/small/README.md").write_text("# Small\n\nA model.\n")
    monkeypatch.setattr(hub, "BUNDLED", tmp_path / "models")
    return tmp_path / "models"


def test_models_are_listed_with_licence_size_and_scores(bundled, capsys):
    assert main(["models"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "large" in line)
    size = (bundled / "large/model.safetensors").stat().st_size
    for part in ("CC BY 4.0", "enhance", f"{size / 1e6:.1f} MB", "16000 Hz", "pesq_wb 2.35"):
        assert part in line
    assert main(["models", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [model["name"] for model in found] == ["large", "small"]
    assert (found[1]["bytes"], found[1]["licence"]) == (size, "MIT")
    assert found[1]["parameters"] == sum(
        v.numel() for k, v in hub.read_weights(bundled / "small").items() if trained(k)
    )


def trained(name: str) -> bool:
    """Whether a weight is a parameter, not a statistic of a norm."""
    return not name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def test_one_model_shows_its_card_and_readme(bundled, capsys):
    assert main(["models", "small"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("# Small\n")
    assert '"licence": "MIT"' in shown
    assert main(["models", "small", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["backbone"]["name"] == "crn"
    assert main(["models", "tiny"]) == 2
    assert "the bundled models are: large, small" in capsys.readouterr().err


def test_a_bundled_model_is_loaded_by_its_name(bundled, data, tmp_path):
    assert main(["enhance", str(data / "noisy/a.wav"), "-o", str(tmp_path / "o"), "-m", "small", "-d", "cpu"]) == 0
    assert soundfile.info(tmp_path / "o/a.wav").frames == 8000
