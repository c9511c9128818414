"""`fromnoise evaluate` of separators and of folders of sources: rows, reports, saved sounds, and what is refused."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fromnoise.cli import main
from tests.tiny_separators import make_separator, voices

__all__ = ["make_separator"]  # a fixture

RATE = 8000
METRICS = ["--metrics", "si_sdr,si_sdri,si_sir"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A list of three mixtures of clips beside it."""
    (tmp_path / "data/clips").mkdir(parents=True)
    with (tmp_path / "data/list.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["id", "file_a", "offset_a_s", "gain_a", "file_b", "offset_b_s", "gain_b"])
        for i in range(3):
            for side, voice in zip("ab", voices(1.0 + i / 4, RATE, seed=i, pauses=False), strict=True):
                soundfile.write(tmp_path / f"data/clips/{i}{side}.wav", voice, RATE, subtype="FLOAT")
            lines.writerow([f"mix{i}", f"clips/{i}a.wav", 0.0, 1.0, f"clips/{i}b.wav", 0.0, 0.5])
    return tmp_path / "data/list.csv"


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """The same kind of data laid out as wsj0_mix, with two splits."""
    for split, count in (("cv", 1), ("tt", 2)):
        for i in range(count):
            for k, voice in enumerate(voices(1.0, RATE, seed=i, pauses=False), 1):
                path = tmp_path / f"wsj/2speakers/wav8k/max/{split}/s{k}/m{i}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, voice, RATE)
    return tmp_path / "wsj"


def evaluate(*arguments: object) -> int:
    return main(["evaluate", *map(str, arguments), "-d", "cpu"])


def report(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out)


def test_a_report_with_mixture_mask_and_every_setting(make_separator, table, tmp_path, capsys):
    options = ["--sampler", "ddim,pc:snr=0.3", "-N", "1,2", "--limit", 2, "--examples", 0, "-o", tmp_path / "out"]
    assert evaluate(make_separator(), table, *METRICS, *options) == 0
    shown = capsys.readouterr().out
    assert "oracle ratio mask" in shown
    assert "tiny, pc:snr=0.3, 2 steps" in shown
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    rows = {row["label"]: row for row in summary["rows"]}
    assert (summary["files"], summary["sample_rates_hz"], len(rows)) == (2, [RATE], 2 + 2 * 2)
    assert rows["tiny, pc:snr=0.3, 2 steps"]["network_calls"] == 4
    assert rows["mixture"]["scores"]["si_sdri"]["mean"] == 0
    assert rows["tiny, ddim, 1 step"]["scores"]["si_sdri"]["mean"] > 30
    assert rows["tiny, ddim, 1 step"]["scores"]["si_sdri"]["change_from_input"]["mean"] > 30
    assert summary["settings"]["mode"] == "min"
    assert summary["metrics"]["si_sir"]["unit"] == "dB"
    with (tmp_path / "out/results.csv").open() as file:
        assert {line["file"] for line in csv.DictReader(file)} == {"mix0", "mix1"}
    assert "oracle ratio mask" in (tmp_path / "out/report.html").read_text()
    names = {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()}
    corrected = "tiny_N-2_snr-0.3_corrstep-1_denoise-True_schedule-None_corrector-ald_step_rule-exact"
    assert {"mixture", "oracle-ratio-mask", "tiny_ddim_N-1_schedule-None", corrected} <= names
    listed = json.loads((tmp_path / "out/tiny_ddim_N-2_schedule-None/test.json").read_text())
    assert [one["name"] for one in listed] == ["mix0", "mix1"]
    assert not list((tmp_path / "out").rglob("*.wav"))  # only by --save-n


def test_saved_sounds_of_a_tag_are_scored_again_as_a_folder(make_separator, table, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    options = ["-o", tmp_path / "out", "--save-n", -1, "--tag", "best", "--limit", 1, "--examples", 1, "--json"]
    assert evaluate(make_separator(num_steps=2), table, *METRICS, *options) == 0
    ours = report(capsys)["rows"][2]
    folder = tmp_path / "out/best_ddim_N-2_schedule-None"
    page = (tmp_path / "out/report.html").read_text()
    assert "tiny: 2" in page  # the second source, to hear
    assert page.count("<audio") == 1 + 2 + 2 + 2  # mixture, mask, model, truth
    assert len(list(folder.glob("wav/test/*.wav"))) == 5
    assert len(list(folder.glob("fig/test/evo_*.png"))) == 1
    assert evaluate(folder, table, *METRICS, "--task", "separate", "--limit", 1, "--json") == 0
    theirs = report(capsys)["rows"][2]
    assert theirs["label"] == folder.name
    assert theirs["scores"]["si_sdr"]["mean"] == pytest.approx(ours["scores"]["si_sdr"]["mean"], abs=0.5)  # 16 bits


def test_what_separate_writes_scores_as_the_model_that_made_it(make_separator, table, tmp_path, capsys):
    model = make_separator()
    for i in range(3):
        clips = [soundfile.read(table.parent / f"clips/{i}{side}.wav")[0] for side in "ab"]
        soundfile.write(tmp_path / f"mix{i}.wav", clips[0] + 0.5 * clips[1], RATE, subtype="FLOAT")
    made = ["separate", *(tmp_path / f"mix{i}.wav" for i in range(3)), "-m", model, "-o", tmp_path / "theirs"]
    assert main([*map(str, made), "-d", "cpu", "-q"]) == 0
    assert evaluate(model, table, "-m", tmp_path / "theirs", *METRICS, "--json") == 0
    rows = report(capsys)["rows"]
    assert [row["label"] for row in rows] == ["mixture", "oracle ratio mask", "tiny", "theirs"]
    ours, theirs = (row["scores"]["si_sdr"]["mean"] for row in rows[2:])
    assert ours == pytest.approx(theirs, abs=1e-3)


def test_the_mixture_is_scored_alone_by_either_of_its_names(folders, capsys):
    for name in ("mixture", "__no_proc__"):
        assert evaluate(name, folders, *METRICS, "--mode", "max", "--json") == 0
        found = report(capsys)
        assert [row["label"] for row in found["rows"]] == ["mixture", "oracle ratio mask"]
        assert found["files"] == 2


def test_splits_make_a_table_and_a_report_each(make_separator, folders, tmp_path, capsys):
    options = ["--mode", "max", "--splits", "valid,test", "--examples", 0, "-o", tmp_path / "out", "--json"]
    assert evaluate(make_separator(), folders, *METRICS, *options) == 0
    found = report(capsys)
    assert {name: answer["files"] for name, answer in found.items()} == {
        f"{folders}, valid": 1,
        f"{folders}, test": 2,
    }
    assert sorted(path.parent.name for path in (tmp_path / "out").glob("*/report.html")) == ["test", "valid"]
    folder = tmp_path / "out/tiny_ddim_N-1_schedule-None"
    expected = ["test.json", "test_summary.json", "valid.json", "valid_summary.json"]
    assert sorted(path.name for path in folder.iterdir()) == expected


def test_a_model_of_speech_and_noise_is_judged_by_its_speech(make_separator, tmp_path, capsys):
    for side in ("noisy", "clean"):
        (tmp_path / "pairs" / side).mkdir(parents=True)
    speech, noise = voices(1.0, RATE, pauses=False)
    soundfile.write(tmp_path / "pairs/clean/a.wav", speech, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "pairs/noisy/a.wav", speech + noise, RATE, subtype="FLOAT")
    named = make_separator("named", names=("speech", "noise"), bands={"toss": False})
    plain = make_separator("plain", bands={"toss": False})
    for model, more in ((named, []), (plain, ["--enhance"])):
        assert evaluate(model, tmp_path / "pairs", *METRICS, *more, "--json") == 0
        found = report(capsys)
        assert (found["settings"]["order"], found["settings"]["judged"]) == ("as given", 1)
        assert found["rows"][2]["scores"]["si_sdr"]["mean"] > 30
    swapped = np.stack([noise, speech])
    for k, wave in enumerate(swapped, 1):
        (tmp_path / f"swapped/s{k}").mkdir(parents=True)
        soundfile.write(tmp_path / f"swapped/s{k}/a.wav", wave, RATE, subtype="FLOAT")
    assert evaluate(named, tmp_path / "pairs", "-m", tmp_path / "swapped", *METRICS, "--json") == 0
    assert report(capsys)["rows"][3]["scores"]["si_sdr"]["mean"] < -10  # roles are not exchanged


def test_all_problems_of_a_list_are_named_before_anything_runs(make_separator, table, capsys):
    text = (
        table.read_text().replace("clips/0a.wav", "clips/none.wav").replace("clips/2b.wav,0.0,0.5", "clips/2b.wav,-1,x")
    )
    table.write_text(text)
    assert evaluate(make_separator(), table, *METRICS) == 2
    said = capsys.readouterr().err
    for problem in ("none.wav", "offset_b_s=-1.0 must not be negative", "gain_b must be a finite number, got 'x'"):
        assert problem in said


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["MODEL", "LIST", "--steps", "0"], "steps must lie between 1 and 10000"),
        (["MODEL", "LIST", "--sampler", "ddim,magic"], "unknown sampler 'magic'"),
        (["MODEL", "LIST", "--metrics", "loudness"], "unknown metric 'loudness'; choose from: si_sdr, si_sdri"),
        (["MODEL", "LIST", "--save-n", "3"], "--save-n and --tag are about the files of -o REPORT"),
        (["MODEL", "LIST", "--mode", "mid"], "--mode must be min or max, got 'mid'"),
        (["MODEL", "LIST", "--guidance", "2"], "--guidance, --count and --classifier are for generators"),
        (["MODEL", "LIST", "--task", "enhance"], "expected one for 'enhance'"),
        (["MODEL3", "LIST"], "expected mixtures of 3 sources, got 2"),
        (["MODEL", "NOWHERE"], "no such folder or list of mixtures"),
        (["noisy", "LIST", "--tag", "a", "--enhance"], "--tag, --enhance: for separators only, and enhance models"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_request_exits_with_2_and_one_sentence(make_separator, table, tmp_path, capsys, arguments, fault):
    places = {"LIST": table, "NOWHERE": tmp_path / "nowhere"}
    if "MODEL" in arguments:
        places["MODEL"] = make_separator()
    if "MODEL3" in arguments:
        places["MODEL3"] = make_separator("three", sources=3)
    assert evaluate(*(places.get(argument, argument) for argument in arguments)) == 2
    said = capsys.readouterr().err.strip()
    assert fault in said
    assert said.count("\n") == 0


def test_a_mixture_without_any_score_is_named_and_makes_the_exit_code_1(table, tmp_path, capsys):
    (tmp_path / "theirs").mkdir()
    for k in (1, 2):
        for i in (0, 1):
            soundfile.write(tmp_path / f"theirs/mix{i}_s{k}.wav", np.zeros(round((1 + i / 4) * RATE)), RATE)
    assert evaluate(tmp_path / "theirs", table, *METRICS, "--task", "separate") == 1
    said = capsys.readouterr().err
    assert "Error: theirs: mix0 has no score: source 1: the estimate is silent" in said
    assert "mix2 has no score: the model failed: InputError: expected 2 sources of mix2" in said
