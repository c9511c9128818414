"""An evaluation runs every model on every pair, survives bad files, and leaves tables and a page that stands alone."""

import base64
import csv
import io
import json
import math
import re
import time
import warnings
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fromnoise import files
from fromnoise.evaluation import plots, report
from fromnoise.evaluation.fingerprints import fingerprint
from fromnoise.evaluation.found import Cost, Found, restored
from fromnoise.evaluation.report import write_report
from fromnoise.evaluation.rows import Example, Meta, Row
from fromnoise.evaluation.run import evaluate, find_pairs, item_seed, pair_trial
from fromnoise.evaluation.sources import SourceScores
from fromnoise.evaluation.speech import Scores, measure
from fromnoise.types import InputError

RATE = 8000
METRICS = ("si_sdr", "ssnr", "wss")


def read(path):
    wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return np.ascontiguousarray(wave.T), rate


class Mixer:
    """A model whose result is known: the noisy input with a seeded disturbance that shrinks with the steps."""

    def __init__(self, name="mixer"):
        self.name = name
        self.asked = []

    def __call__(self, wave, *, sample_rate, steps, sampler, seed):
        self.asked.append((wave.shape, sample_rate, steps, sampler, seed))
        noise = np.random.default_rng(seed).normal(size=wave.shape)
        return (wave + 0.1 / (steps or 1) * noise).astype(np.float32)

    def network_calls(self, steps, sampler):
        return (steps or 1) * (2 if sampler == "heun" else 1)


def tone(index, n=4000):
    t = np.arange(n) / RATE
    return (0.3 * np.sin(2 * np.pi * (200 + 40 * index) * t) * np.sin(2 * np.pi * 2 * t) ** 2).astype(np.float32)


def make_pairs(root, count=4, noisy="noisy", clean="clean"):
    for side in (noisy, clean):
        (root / side / "room").mkdir(parents=True)
    for i in range(count):
        wave = tone(i)
        noise = np.random.default_rng(i).normal(scale=0.02, size=wave.shape).astype(np.float32)
        name = f"room/p{i}.wav" if i else "p0.wav"
        soundfile.write(root / clean / name, wave, RATE)
        soundfile.write(root / noisy / name, wave + noise, RATE)
    return root


@pytest.fixture
def folder(tmp_path):
    return make_pairs(tmp_path / "data")


@pytest.mark.parametrize(
    ("noisy", "clean"),
    [("noisy", "clean"), ("noisy_testset_wav", "clean_testset_wav"), ("test/noisy", "test/clean")],
)
def test_pairs_are_found_in_each_layout(tmp_path, noisy, clean):
    pairs = find_pairs(make_pairs(tmp_path, 3, noisy, clean))
    assert [pair.name for pair in pairs] == ["p0", "room/p1", "room/p2"]
    assert pairs[1].noisy == tmp_path / noisy / "room" / "p1.wav"
    assert pairs[1].clean == tmp_path / clean / "room" / "p1.wav"
    assert pairs.skipped == () and len(pairs[:2]) == 2


def test_file_without_a_partner_is_named_and_other_suffixes_match(folder):
    (folder / "clean" / "p0.wav").rename(folder / "clean" / "p0.flac")  # the header decides, and only names matter here
    soundfile.write(folder / "noisy" / "alone.wav", tone(0), RATE)
    soundfile.write(folder / "clean" / "room" / "other.wav", tone(0), RATE)
    (folder / "noisy" / ".hidden.wav").write_bytes(b"")
    (folder / "noisy" / "notes.txt").write_text("not sound")
    pairs = find_pairs(folder)
    assert len(pairs) == 4
    assert pairs.skipped == ("noisy/alone has no partner in clean/", "clean/room/other has no partner in noisy/")


def test_folder_that_is_no_set_of_pairs_is_a_sentence(tmp_path, folder):
    with pytest.raises(InputError, match=r"expected a folder with pairs, one of: .*noisy/ and clean/"):
        find_pairs(tmp_path)
    soundfile.write(folder / "noisy" / "p0.flac", tone(0), RATE)
    with pytest.raises(InputError, match=r"p0.wav: has the same name as p0.flac"):
        find_pairs(folder)
    for side in ("noisy", "clean"):
        (tmp_path / "empty" / side).mkdir(parents=True)
    with pytest.raises(InputError, match="no pair of audio files with equal names"):
        find_pairs(tmp_path / "empty")


def test_fingerprint_follows_names_and_contents_but_not_order(folder):
    pairs = find_pairs(folder)
    first = fingerprint(pairs)
    assert fingerprint(reversed(pairs)) == first
    assert fingerprint(pairs[:3]) != first
    soundfile.write(folder / "noisy" / "p0.wav", tone(1), RATE)
    assert fingerprint(pairs) != first


def test_every_model_sampler_and_step_count_is_a_row_after_the_input(folder):
    model, told = Mixer(), []
    done = evaluate(
        [model], find_pairs(folder), metrics=METRICS, steps=(1, 4), samplers=("euler", "heun"), seed=7, reader=read,
        progress=lambda *state: told.append(state), settings={"device": "cpu"},
    )  # fmt: skip
    assert [row.label for row in done.rows] == [
        "noisy", "mixer, euler, 1 step", "mixer, euler, 4 steps", "mixer, heun, 1 step", "mixer, heun, 4 steps"
    ]  # fmt: skip
    assert [row.network_calls for row in done.rows] == [0, 1, 4, 2, 8]
    assert done.rows[0].real_time_factor == 0 and all(row.real_time_factor > 0 for row in done.rows[1:])
    assert {asked[:2] for asked in model.asked} == {((1, 4000), RATE)}
    means = [np.mean(row.column("si_sdr")) for row in done.rows]
    assert means[0] > means[2] > means[1]  # the disturbance shrinks with the steps
    assert told[-1] == (20, 20, "mixer, heun, 4 steps: room/p3") and [n for n, *_ in told] == list(range(1, 21))
    assert len(done.examples) == 4 and set(done.examples[0].estimates) == {row.label for row in done.rows[1:]}
    assert done.meta.sample_rates == (RATE,) and done.meta.settings["device"] == "cpu"


def test_seed_belongs_to_the_file_whatever_else_is_evaluated(folder):
    pairs = find_pairs(folder)
    whole = evaluate([Mixer()], pairs, metrics=("si_sdr",), seed=3, reader=read)
    part = evaluate([Mixer("other"), Mixer()], pairs[2:], metrics=("si_sdr",), seed=3, reader=read)
    assert part.rows[2].column("si_sdr") == whole.rows[1].column("si_sdr")[2:]
    assert part.rows[1].column("si_sdr") == part.rows[2].column(
        "si_sdr"
    )  # rows share the seeds: differences are paired
    other = evaluate([Mixer()], pairs, metrics=("si_sdr",), seed=4, reader=read)
    assert other.rows[1].column("si_sdr") != whole.rows[1].column("si_sdr")
    assert len({item_seed(3, pair.name) for pair in pairs}) == len(pairs)


def test_other_processes_give_the_same_scores(folder):
    alone, several = (
        evaluate([Mixer()], find_pairs(folder), metrics=METRICS, reader=read, jobs=jobs, examples=0) for jobs in (1, 2)
    )
    assert [row.scores for row in several.rows] == [row.scores for row in alone.rows]


def test_bad_files_are_reasons_and_the_others_are_scored(folder):
    pairs = find_pairs(folder)
    pairs[0].noisy.write_bytes(b"not sound")
    soundfile.write(pairs[1].clean, tone(1)[:3000], RATE)  # far from the noisy file's length
    soundfile.write(pairs[2].clean, tone(2)[:-3], RATE)  # a codec's rounding
    soundfile.write(pairs[3].clean, tone(3), 16000)
    row = evaluate([], pairs, metrics=("si_sdr",), reader=read).rows[0]
    why = [scores.reasons.get("si_sdr", "") for scores in row.scores]
    assert "Format not recognised" in why[0]
    assert why[1] == "wrong length: expected 3000 samples as in the reference, got 4000"
    assert why[2] == "" and math.isfinite(row.column("si_sdr")[2])
    assert why[3] == "wrong rate: the noisy file has 8000 Hz, the clean one 16000 Hz"
    assert row.reasons("si_sdr") == {reason: 1 for reason in why if reason}


def test_model_that_fails_on_one_file_leaves_the_rest(folder):
    class Fragile(Mixer):
        def __call__(self, wave, **options):
            if len(self.asked) == 1:
                self.asked.append(None)
                raise RuntimeError("out of memory")
            return super().__call__(wave, **options)

    row = evaluate([Fragile()], find_pairs(folder), metrics=("si_sdr",), reader=read).rows[1]
    assert [math.isfinite(score) for score in row.column("si_sdr")] == [True, False, True, True]
    assert row.reasons("si_sdr") == {"the model failed: RuntimeError: out of memory": 1}


def test_mistake_in_the_call_ends_the_run_before_the_first_file(folder):
    class Picky(Mixer):
        def network_calls(self, steps, sampler):
            raise ValueError(f"unknown sampler {sampler!r}")

    model = Picky()
    with pytest.raises(ValueError, match="unknown sampler 'eulr'"):
        evaluate([model], find_pairs(folder), samplers=("eulr",), reader=read)
    assert model.asked == []
    with pytest.raises(ValueError, match="unknown metric"):
        evaluate([], find_pairs(folder), metrics=("pesk",), reader=read)
    with pytest.raises(ValueError, match="expected rows with different names, got 'mixer' twice"):
        evaluate([Mixer(), Mixer()], find_pairs(folder), reader=read)
    with pytest.raises(ValueError, match="at least one pair"):
        evaluate([Mixer()], [], reader=read)


def test_the_first_file_of_a_model_does_not_count_where_there_are_others(folder):
    class Slow(Mixer):
        def __call__(self, wave, **options):
            time.sleep(0.0 if self.asked else 0.3)
            return super().__call__(wave, **options)

    many, one = (evaluate([Slow()], find_pairs(folder)[:n], metrics=("si_sdr",), reader=read).rows[1] for n in (4, 1))
    assert many.real_time_factor < 0.2 < 0.6 <= one.real_time_factor  # each sounds for half a second


def test_what_was_found_of_a_file_is_the_same_after_json(folder):
    pairs = find_pairs(folder)
    pairs[1].noisy.write_bytes(b"not sound")
    trial = pair_trial([Mixer()], pairs, metrics=METRICS, reader=read)
    for index in (0, 1):
        found = trial.find(index)
        again = trial.restored(json.loads(json.dumps(found.plain(trial.labels), allow_nan=False)))
        assert repr(again) == repr(found)  # NaN is not equal to itself
    assert math.isnan(again.scores[0]["wss"]) and again.seconds is None
    sources = SourceScores({"si_sdr": 0.1 + 0.2}, {}, {"si_sdr": (1 / 3, 2 / 3)}, (1, 0))
    found = Found("m", 1.5, RATE, (Cost(0.1, True), None), (sources, sources))
    assert restored(json.loads(json.dumps(found.plain(["a", "b"]))), SourceScores) == found


def test_estoi_is_the_same_each_time_whatever_numpy_drew_before():
    pytest.importorskip("pystoi")
    noisy = tone(0, 16000) + np.random.default_rng(0).normal(scale=0.1, size=16000)
    first = measure(tone(0, 16000), noisy, RATE, ["estoi"])["estoi"]
    assert measure(tone(0, 16000), noisy, RATE, ["estoi"])["estoi"] == first


EVIL = '<img src=x onerror=alert(1)> & "quoted"'


@pytest.fixture(scope="module")
def rows():
    """Two rows over three files with known scores; the second lacks one."""
    nan = {"si_sdr": math.nan, "wss": 20.0}
    first = [Scores({"si_sdr": v, "wss": 30.0}) for v in (1.0, 2.0, 3.0)]
    second = [Scores({"si_sdr": 5.0, "wss": 20.0}), Scores({"si_sdr": 7.0, "wss": 20.0})]
    second.append(Scores(nan, {"si_sdr": "the estimate is <silent>"}))
    names = ("a", EVIL, "c,d")
    return [
        Row("noisy", None, None, 0, 0.0, names, tuple(first)),
        Row(EVIL, "heun", 3, 6, 0.25, names, tuple(second)),
    ]


@pytest.fixture(scope="module")
def written(tmp_path_factory, rows):
    pytest.importorskip("matplotlib")
    wave = tone(0)[None]
    example = Example(EVIL, RATE, wave, 0.5 * wave, {rows[1].label: 4.0 * wave})
    meta = Meta(
        ("si_sdr", "wss"), (RATE,), "f" * 64, 5, {"device": "cpu", "guidance": math.nan}, (f"noisy/{EVIL} alone",)
    )
    folder = tmp_path_factory.mktemp("report") / "out"
    return folder, write_report(folder, rows, [example], meta)


def test_report_folder_holds_four_whole_files(written):
    folder, page = written
    assert sorted(path.name for path in folder.iterdir()) == sorted(report.FILES)
    assert page == folder / "report.html"


def test_results_csv_has_a_line_for_each_row_and_file(written):
    with (written[0] / "results.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 6
    assert [line["si_sdr"] for line in lines] == ["1.0", "2.0", "3.0", "5.0", "7.0", ""]
    assert lines[5]["reasons"] == "si_sdr: the estimate is <silent>"
    assert lines[4]["file"] == EVIL and lines[5]["file"] == "c,d"
    assert (lines[3]["model"], lines[3]["sampler"], lines[3]["steps"]) == (EVIL, "heun", "3")


def test_summaries_agree_and_say_what_the_numbers_are(written):
    summary = json.loads((written[0] / "summary.json").read_text(encoding="utf-8"))
    with (written[0] / "summary.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    score = summary["rows"][1]["scores"]["si_sdr"]
    assert (score["mean"], score["count"], score["missing"]) == (6.0, 2, 1)
    assert score["change_from_input"]["mean"] == 4.5  # paired over the two files that both have
    assert score["reasons"] == {"the estimate is <silent>": 1}
    assert summary["rows"][0]["scores"]["si_sdr"]["change_from_input"] is None
    assert float(table[1]["si_sdr_mean"]) == 6.0 and table[1]["si_sdr_missing"] == "1"
    assert (table[1]["network_calls"], table[1]["real_time_factor"]) == ("6", "0.25")
    assert summary["metrics"]["wss"]["higher_is_better"] is False and summary["metrics"]["si_sdr"]["unit"] == "dB"
    assert summary["packages"]["numpy"] == np.__version__ and summary["packages"]["fromnoise"]
    assert (summary["seed"], summary["sample_rates_hz"], summary["file_list_sha256"]) == (5, [RATE], "f" * 64)
    assert summary["settings"] == {"device": "cpu", "guidance": None}


class Page(HTMLParser):
    """What a browser would build: elements with attributes, text, and tags that do not close in order."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.open, self.faults = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def test_page_is_well_formed_and_takes_nothing_from_outside(written):
    text = written[1].read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == [] and page.faults == []
    sources = [attrs[key] for _, attrs in page.elements for key in ("src", "href", "data") if key in attrs]
    assert sources and all(source.startswith("data:") for source in sources)
    assert not re.search(r"https?://|@import|url\(", text)


def test_names_from_outside_are_text_and_never_markup(written):
    text = written[1].read_text(encoding="utf-8")
    page = Page(text)
    assert "<img src=x" not in text and all("onerror" not in attrs for _, attrs in page.elements)
    assert EVIL in "".join(page.text)
    assert "the estimate is <silent>" in "".join(page.text)


def test_table_sorts_by_the_numbers_it_shows(written):
    page = Page(written[1].read_text(encoding="utf-8"))
    values = [attrs["data-value"] for attrs in page.all("td")]
    assert values[:5] == ["noisy", "0", "0.0", "2.0", "30.0"]
    assert values[5:10] == [f"{EVIL}, heun, 3 steps", "6", "0.25", "6.0", "20.0"]
    assert values[10:] == [f"{EVIL}, heun, 3 steps", "4.5", "-10.0"]
    best = ["best" in attrs.get("class", "") for attrs in page.all("td")[:10]]
    assert best == [False] * 8 + [True, True]  # SI-SDR is better high, WSS low
    assert "".join(page.text).count("1 without a score") == 1


def test_sounds_of_an_example_share_one_gain_and_pictures_are_pngs(written):
    page = Page(written[1].read_text(encoding="utf-8"))
    sounds = [base64.b64decode(attrs["src"].split(",")[1]) for attrs in page.all("audio")]
    waves = [soundfile.read(io.BytesIO(sound))[0] for sound in sounds]
    peak = 4 * np.abs(tone(0)).max()
    for wave, gain in zip(waves, (1, 4, 0.5), strict=True):  # noisy, estimate, clean
        assert np.abs(wave - gain * tone(0) / peak).max() < 2 / 32768  # 16 bits
    pictures = [base64.b64decode(attrs["src"].split(",")[1]) for attrs in page.all("img")]
    assert len(pictures) == 3 and all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert "dB lower: a result exceeds full scale" in "".join(page.text)


def test_quality_is_drawn_against_calls(written):
    page = Page(written[1].read_text(encoding="utf-8"))
    assert [attrs["aria-label"] for attrs in page.all("svg")] == [
        "si_sdr against network calls",
        "wss against network calls",
    ]
    assert len(page.all("circle")) == 2 and len(page.all("polyline")) == 2


def test_points_of_a_curve_rise_with_the_score_and_go_right_with_the_calls():
    points = [plots.Point(1, 1.0, 0.9, 1.1), plots.Point(4, 3.0, 2.5, 3.5), plots.Point(16, 2.0, math.nan, math.nan)]
    drawing = plots.calls_svg("m", {"a": points}, level=0.5)
    places = [(float(c["cx"]), float(c["cy"])) for c in Page(drawing).all("circle")]
    (x1, y1), (x4, y4), (x16, y16) = places
    assert x4 - x1 == pytest.approx(x16 - x4, abs=0.4)  # logarithmic, each rounded to a tenth
    assert y4 < y16 < y1  # upwards is less
    assert y1 - y16 == pytest.approx(y16 - y4, abs=0.4)
    assert (
        plots.calls_svg("m", {}, None) == "" and plots.calls_svg("m", {"a": [plots.Point(1, math.nan, 0.0, 0.0)]}) == ""
    )


def test_report_without_matplotlib_says_so_and_still_plays(monkeypatch, tmp_path, rows):
    monkeypatch.setattr("fromnoise.evaluation.page.find_spec", lambda name: None)
    example = Example("a", RATE, tone(0)[None], tone(0)[None], {})
    page = Page(write_report(tmp_path, rows, [example], Meta(("si_sdr",), (RATE,), "", 0)).read_text(encoding="utf-8"))
    assert page.all("img") == [] and len(page.all("audio")) == 2
    assert "the package matplotlib is not installed" in "".join(page.text)


def test_report_of_rows_over_different_files_is_refused(tmp_path, rows):
    shorter = Row("x", None, None, 1, 0.1, ("a",), rows[0].scores[:1])
    with pytest.raises(ValueError, match="expected every row to score the files of 'noisy', 'x' scores others"):
        write_report(tmp_path, [rows[0], shorter], [], Meta(("si_sdr",), (RATE,), "", 0))
    assert list(tmp_path.iterdir()) == []


def test_interrupted_write_leaves_the_old_file_and_no_other(monkeypatch, tmp_path):
    target = tmp_path / "report.html"
    files.write_whole(target, b"old")

    def stopped(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        files.write_whole(target, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"] and target.read_bytes() == b"old"


def test_spectrogram_of_a_full_scale_sine_peaks_at_zero_db_at_its_frequency():
    wave = np.sin(2 * np.pi * 1000 * np.arange(8000) / RATE)
    level = plots.spectrogram(wave, RATE)
    middle = level[:, level.shape[1] // 2]
    assert middle.max() == pytest.approx(0, abs=0.01)
    assert middle.argmax() * RATE / (2 * (level.shape[0] - 1)) == 1000
    assert plots.spectrogram(np.zeros(3), RATE).max() == -120
    assert np.isfinite(plots.spectrogram(np.full((2, 900), np.nan), RATE)).all()


def test_spectrograms_of_a_figure_share_one_scale():
    pytest.importorskip("matplotlib")
    figure = plots.spectrogram_figure({"loud": tone(0), "soft $x_": 0.01 * tone(0)}, RATE)
    scales = [image.get_clim() for axis in figure.axes for image in axis.images]
    assert scales[0] == scales[1]
    assert scales[0][1] == pytest.approx(plots.spectrogram(tone(0), RATE).max())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plots.png(figure).startswith(b"\x89PNG")  # a title from outside is no formula
    with pytest.raises(ValueError, match="at least one wave"):
        plots.spectrogram_figure({}, RATE)


def test_before_and_after_picture_is_written_whole(tmp_path):
    pytest.importorskip("matplotlib")
    target = Path(tmp_path) / "deep" / "picture.png"
    plots.save_before_after(target, np.stack([tone(0), tone(1)]), tone(0)[None], RATE)
    assert target.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in target.parent.iterdir()] == ["picture.png"]
