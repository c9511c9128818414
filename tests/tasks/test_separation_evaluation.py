"""Separators judged: the best order, scores per mixture, reasons where there is none, and what is left behind."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import resample_poly

from fromnoise import hub
from fromnoise.data.sources import Mixture, Part
from fromnoise.evaluation import plots, separation
from fromnoise.evaluation.fingerprints import mixtures_fingerprint
from fromnoise.evaluation.kept import DIFFSEP, Kept, Trace, run_folder
from fromnoise.evaluation.masks import ratio_masked
from fromnoise.evaluation.scoring import Scoring
from fromnoise.evaluation.separated import SourceResults
from fromnoise.evaluation.separation_run import MASK, MIXTURE, evaluate_separation
from fromnoise.evaluation.sources import SOURCE_METRICS, fitting_order, measure_sources
from fromnoise.evaluation.speech import Scores, measure
from fromnoise.samplers import DDIM, Karras, PredictorCorrector, Uniform
from fromnoise.tasks.base import Run
from fromnoise.types import InputError
from tests.tiny_separators import make_separator, si_sdr, voices

__all__ = ["make_separator"]  # a fixture

RATE = 8000
VECTORS = Path(__file__).parents[1] / "vectors"
RATIOS = ("si_sdr", "si_sdri", "sdr", "sdri", "si_sir", "si_sar")


@pytest.fixture
def mixtures(tmp_path: Path) -> list[Mixture]:
    """Three mixtures of two voices, of 1.0, 1.25 and 1.5 s."""
    found = []
    for i in range(3):
        parts = []
        for k, voice in enumerate(voices(1.0 + i / 4, RATE, seed=i, pauses=False)):
            path = tmp_path / "clips" / f"m{i}_{k}.wav"
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, voice, RATE, subtype="FLOAT")
            parts.append(Part(path))
        found.append(Mixture(f"m{i}", tuple(parts), RATE))
    return found


class Halves:
    """A separator whose result is known: the truth in the wrong order, with a seeded disturbance."""

    sources, sample_rate = 2, RATE

    def __init__(self, name: str = "halves") -> None:
        self.name, self.asked = name, []

    def network_calls(self, steps, sampler):
        if sampler == "magic":
            raise InputError("unknown sampler 'magic'")
        return (steps or 1) * (2 if sampler == "heun" else 1)

    def __call__(self, wave, *, sample_rate, steps, sampler, seed):
        self.asked.append((wave.shape, sample_rate, steps, sampler, seed))
        low = np.convolve(wave, np.ones(16) / 16, mode="same")
        noise = np.random.default_rng(seed).normal(size=(2, len(wave)))
        return np.stack([wave - low, low]) + 1e-3 / (steps or 1) * noise


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("item", [0, 1])
def test_scores_are_those_of_the_published_program_in_its_order(count, item):
    vector = {name: array[item] for name, array in np.load(VECTORS / f"sepenh_metrics_perm_K{count}.npz").items()}
    references, estimates = vector["in_ref"], vector["in_est"]
    scores = measure_sources(references, estimates, references.sum(0), RATE, RATIOS)
    assert scores.order == tuple(vector["perm"].tolist())
    assert scores.parts["si_sdr"] == pytest.approx(vector["si_sdr_no_zero_mean"], rel=1e-9)
    assert scores.parts["si_sir"] == pytest.approx(vector["si_sir"], rel=1e-9)
    assert scores.parts["si_sar"] == pytest.approx(vector["si_sar"], rel=1e-9)
    assert scores.parts["sdr"] == pytest.approx(vector["sdr_512tap"], rel=1e-9)
    assert scores["si_sdr"] == pytest.approx(float(vector["si_sdr_no_zero_mean"].mean()), rel=1e-9)


def test_improvement_is_the_difference_to_the_mixture_source_by_source():
    sources, rng = voices(1.0, RATE, 3, pauses=False), np.random.default_rng(0)
    estimates = sources + 0.01 * rng.standard_normal(sources.shape)
    mixture = sources.sum(0)
    scores = measure_sources(sources, estimates[[2, 0, 1]], mixture, RATE, RATIOS)
    assert scores.order == (1, 2, 0)
    for gain, whole, ratio in (("si_sdri", "si_sdr", separation.si_sdr), ("sdri", "sdr", separation.sdr)):
        expected = [ratio(s, e) - ratio(s, mixture) for s, e in zip(sources, estimates, strict=True)]
        assert scores.parts[gain] == pytest.approx(expected, abs=1e-9)
        assert scores[whole] - scores[gain] == pytest.approx(np.mean([ratio(s, mixture) for s in sources]), abs=1e-9)
    assert scores["si_sdr"] == pytest.approx(np.mean([si_sdr(*p) for p in zip(sources, estimates, strict=True)]))


def test_ordered_ratios_are_those_of_the_diagonal():
    sources, rng = voices(1.0, RATE, pauses=False), np.random.default_rng(0)
    estimates = sources + 0.1 * sources[::-1] + 0.01 * rng.standard_normal(sources.shape)
    free, given = (separation.si_bss_eval(sources, estimates, ordered=ordered) for ordered in (False, True))
    assert free.order.tolist() == given.order.tolist() == [0, 1]
    np.testing.assert_array_equal(free.si_sir, given.si_sir)
    swapped = separation.si_bss_eval(sources, estimates[::-1], ordered=True)
    assert swapped.si_sdr.max() < -10
    assert separation.si_bss_eval(sources, estimates[::-1]).order.tolist() == [1, 0]


def test_the_mixture_as_its_own_estimate_improves_nothing():
    sources = voices(1.0, RATE, pauses=False)
    mixture = sources.sum(0)
    scores = measure_sources(sources, np.stack([mixture, mixture]), mixture, RATE, RATIOS)
    assert (scores["si_sdri"], scores["sdri"], scores.order) == (0.0, 0.0, (0, 1))
    assert scores["si_sir"] == pytest.approx(scores["si_sdr"])  # all of the error is the other source
    assert scores["si_sar"] == 100.0


def test_roles_keep_the_order_and_one_source_may_stand_alone():
    sources = voices(1.0, RATE, pauses=False)
    mixture, estimates = sources.sum(0), sources[::-1] + 0.01 * sources
    free, fixed = (measure_sources(sources, estimates, mixture, RATE, ["si_sdr"], roles=r) for r in (False, True))
    assert (free.order, fixed.order) == ((1, 0), (0, 1))
    assert free["si_sdr"] > 30 > -10 > fixed["si_sdr"]
    first = measure_sources(sources, estimates, mixture, RATE, ["si_sdr", "si_sir"], roles=True, only=0)
    assert first.parts["si_sdr"] == fixed.parts["si_sdr"][:1]
    assert len(first.parts["si_sir"]) == 1


def test_scores_of_one_recording_are_means_over_the_sources():
    pytest.importorskip("pystoi")
    sources, rng = voices(1.5, RATE, pauses=False), np.random.default_rng(0)
    estimates = sources + 0.02 * rng.standard_normal(sources.shape)
    scores = measure_sources(sources, estimates[::-1], sources.sum(0), RATE, ["estoi", "ssnr"])
    single = [measure(s, e, RATE, ["estoi", "ssnr"]) for s, e in zip(sources, estimates, strict=True)]
    for name in ("estoi", "ssnr"):
        assert scores.parts[name] == pytest.approx([one[name] for one in single], abs=1e-9)  # sums in another order
        assert scores[name] == pytest.approx(np.mean([one[name] for one in single]))


SOURCES = voices(0.5, RATE, pauses=False)
BAD = {
    "silent reference": (SOURCES * [[1], [0]], SOURCES, "source 2: the reference is silent"),
    "silent estimate": (SOURCES, SOURCES * [[0], [1]], "source 1: the estimate is silent"),
    "number": (SOURCES, SOURCES[:1], "wrong number of sources: expected 2, got 1"),
    "length": (SOURCES, SOURCES[:, :-99], "wrong length: expected 4000 samples as in the mixture, got 3901"),
    "not finite": (SOURCES, SOURCES * np.inf, "the estimates hold NaN or infinite samples"),
    "empty": (SOURCES[:, :0], SOURCES[:, :0], "the mixture is empty"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_judged_is_nan_with_a_reason_in_every_score(case):
    references, estimates, reason = BAD[case]
    with np.errstate(invalid="ignore"):
        scores = measure_sources(references, estimates, references.sum(0), RATE, (*RATIOS, "ssnr"))
    assert all(math.isnan(value) for value in scores.values.values())
    assert set(scores.reasons.values()) == {reason}


def test_sources_that_are_the_same_have_no_interference_but_their_other_scores():
    twins = np.stack([SOURCES[0], SOURCES[0]])
    scores = measure_sources(twins, SOURCES, 2 * SOURCES[0], RATE, RATIOS)
    assert set(scores.reasons) == {"si_sir", "si_sar"}
    assert "not independent of one another" in scores.reasons["si_sir"]
    assert math.isfinite(scores["si_sdr"])


def test_a_silent_estimate_fits_nothing_so_the_others_keep_their_places():
    three = voices(0.5, RATE, 3, pauses=False)
    assert fitting_order(three, np.stack([three[2], 0 * three[0], three[0]])) == (2, 1, 0)


def test_an_unknown_score_is_an_error_that_lists_the_choices():
    with pytest.raises(ValueError, match="unknown metric 'loudness'; choose from: si_sdr, si_sdri, sdr"):
        measure_sources(SOURCES, SOURCES, SOURCES[0], RATE, ["loudness"])


def test_every_score_of_sources_says_what_it_is_and_stands_in_the_docs():
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    for name, metric in SOURCE_METRICS.items():
        assert f"`{name}`" in page
        assert metric.name == name
        assert metric.definition.endswith(".")


def test_the_mask_knows_the_sources_and_keeps_their_sum():
    sources = voices(1.0, RATE, pauses=False)
    masked = ratio_masked(sources, sources.sum(0), RATE)
    np.testing.assert_allclose(masked.sum(0), sources.sum(0), atol=1e-6)
    assert min(si_sdr(s, e) for s, e in zip(sources, masked, strict=True)) > 25  # bands hardly overlap
    np.testing.assert_allclose(ratio_masked(0 * sources, sources[0], RATE), np.stack([sources[0] / 2] * 2), atol=1e-7)
    assert ratio_masked(sources[:, :3], sources[0, :3], RATE).shape == (2, 3)


def test_rows_are_mixture_mask_and_every_setting_with_calls_and_seeds_of_their_own(mixtures):
    model = Halves()
    found = evaluate_separation(
        [model], mixtures, metrics=["si_sdr", "si_sdri"], steps=[1, 4], samplers=["ddim", "heun"], seed=3, examples=2
    )
    labels = [row.label for row in found.rows]
    settings = [f"halves, {s}, {n}" for s in ("ddim", "heun") for n in ("1 step", "4 steps")]
    assert labels == [MIXTURE, MASK, *settings]
    assert [row.network_calls for row in found.rows] == [0, 0, 1, 4, 2, 8]
    assert [row.real_time_factor for row in found.rows[:2]] == [0.0, 0.0]
    assert found.rows[2].real_time_factor > 0
    assert found.rows[0].column("si_sdri") == [0.0, 0.0, 0.0]
    assert min(found.rows[1].column("si_sdri")) > 25
    seeds = {shape: {seed for s, *_, seed in model.asked if s == shape} for shape, *_ in model.asked}
    assert all(len(own) == 1 for own in seeds.values())  # of every row the same
    assert len({seed for own in seeds.values() for seed in own}) == 3
    assert found.rows[2].scores[0].order == (1, 0)
    assert found.meta.sample_rates == (RATE,)
    assert found.meta.settings["order"] == "largest mean SI-SDR"
    assert [example.name for example in found.examples] == ["m0", "m2"]
    assert list(found.examples[0].waves)[:3] == [MIXTURE, f"{MASK}: 1", f"{MASK}: 2"]
    assert list(found.examples[0].waves)[-2:] == ["truth: 1", "truth: 2"]


def test_processes_do_not_change_a_number(mixtures):
    alone, shared = (
        evaluate_separation([Halves()], mixtures, metrics=["si_sdr", "si_sir"], jobs=jobs, examples=0)
        for jobs in (1, 2)
    )
    assert [row.scores for row in alone.rows] == [row.scores for row in shared.rows]


def test_a_process_that_ends_costs_its_own_scores_and_no_others():
    with Scoring[Scores](2, lambda reason: Scores({"a": math.nan}, {"a": reason})) as scoring:
        for i in range(6):
            if i == 2:
                scoring.add((0, i), os._exit, 1)  # type: ignore[arg-type]
            else:
                scoring.add((0, i), Scores, {"a": float(i)}, {})
        found = scoring.results()
    assert [found[0, i].values["a"] for i in (0, 1, 3, 4, 5)] == [0, 1, 3, 4, 5]
    assert found[0, 2].reasons["a"].startswith("the process that computed the scores ended")


def test_copies_on_several_devices_do_not_change_a_number(mixtures, make_separator):
    separator = hub.load(make_separator())
    told: list[tuple[int, int]] = []
    one, many = (
        evaluate_separation(
            [separator],
            mixtures,
            metrics=["si_sdr"],
            examples=0,
            devices=[torch.device("cpu")] * count,
            progress=lambda done, total, _: told.append((done, total)),
        )
        for count in (1, 5)
    )
    assert [row.scores for row in one.rows] == [row.scores for row in many.rows]
    assert told == [(k, 9) for k in range(1, 10)] * 2


def test_a_mixture_that_cannot_be_read_or_separated_is_a_reason_and_not_the_end(mixtures):
    class Fussy(Halves):
        def __call__(self, wave, **given):
            if len(wave) == round(1.25 * RATE):
                raise ValueError("too loud")
            return super().__call__(wave, **given)

    mixtures[0].parts[1].path.write_bytes(b"no sound")
    found = evaluate_separation([Fussy()], mixtures, metrics=["si_sdr"], examples=3)
    mask, model = found.rows[1], found.rows[2]
    assert [math.isfinite(value) for value in mask.column("si_sdr")] == [False, True, True]
    assert [math.isfinite(value) for value in model.column("si_sdr")] == [False, False, True]
    assert "m0_1.wav" in next(iter(model.scores[0].reasons.values()))
    assert model.scores[1].reasons["si_sdr"] == "the model failed: ValueError: too loud"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"models": [Halves(), Halves()]}, "got 'halves' twice; rename one of the models"),
        ({"samplers": ["magic"]}, "unknown sampler 'magic'"),
        ({"mixtures": []}, "expected at least one mixture, got none"),
        ({"jobs": 0}, "expected jobs >= 1"),
    ],
)
def test_a_wrong_request_ends_before_any_work(mixtures, change, fault):
    given = {"models": [Halves()], "mixtures": mixtures, "metrics": ["si_sdr"]} | change
    with pytest.raises(ValueError, match=fault):
        evaluate_separation(**given)


def test_a_model_of_another_number_of_sources_is_refused_before_any_work(mixtures):
    model = Halves()
    model.sources = 3
    with pytest.raises(InputError, match="'halves' separates 3 sources, but m0 has 2"):
        evaluate_separation([model], mixtures)
    assert not model.asked


SCHEMES = {
    "ours": ["{n}_s1.wav", "{n}_s2.wav"],
    "by role": ["{n}_speech.wav", "{n}_noise.wav"],
    "folders": ["s1/{n}.flac", "s2/{n}.flac"],
    "folders from 0": ["s0/{n}.wav", "s1/{n}.wav"],
    "a folder each": ["{n}/s1.wav", "{n}/s2.wav"],
    "published": ["wav/test/{i:03d}_enh0.wav", "wav/test/{i:03d}_enh1.wav"],
    "published, several processes": ["{i:04d}.enh0.wav", "{i:04d}.enh1.wav"],
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_results_are_found_under_every_name_that_programs_give_them(mixtures, tmp_path, scheme):
    for i, mixture in enumerate(mixtures):
        for pattern, wave in zip(SCHEMES[scheme], mixture.load()[::-1], strict=True):
            path = tmp_path / "theirs" / pattern.format(n=mixture.name, i=i)
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, resample_poly(wave, 2, 1), 2 * RATE)
    theirs = SourceResults("theirs", tmp_path / "theirs", ("speech", "noise"))
    row = evaluate_separation([theirs], mixtures, metrics=["si_sdr"], examples=0).rows[2]
    assert min(row.column("si_sdr")) > 25  # what two resamplings leave
    assert all(scores.order == (1, 0) for scores in row.scores)
    assert (row.network_calls, math.isnan(row.real_time_factor)) == (0, True)


def test_results_that_are_missing_or_of_too_low_a_rate_are_named(mixtures, tmp_path):
    (tmp_path / "theirs").mkdir()
    for k in (1, 2):
        soundfile.write(tmp_path / f"theirs/m0_s{k}.wav", np.zeros(400), RATE // 2)
    row = evaluate_separation([SourceResults("theirs", tmp_path / "theirs")], mixtures, metrics=["si_sdr"]).rows[2]
    assert f"expected {RATE} Hz or more, got 4000 Hz" in row.scores[0].reasons["si_sdr"]
    assert "expected 2 sources of m1" in row.scores[1].reasons["si_sdr"]
    assert "m1_s1 and m1_s2; found none" in row.scores[1].reasons["si_sdr"]


def test_the_fingerprint_tells_files_and_how_they_are_put_together(mixtures):
    first = mixtures_fingerprint(mixtures)
    assert mixtures_fingerprint(mixtures[::-1]) == first
    louder = Mixture("m0", (Part(mixtures[0].parts[0].path, 2.0), mixtures[0].parts[1]), RATE)
    assert mixtures_fingerprint([louder, *mixtures[1:]]) != first
    path = mixtures[0].parts[0].path
    path.write_bytes(path.read_bytes() + b"0")
    assert mixtures_fingerprint(mixtures) != first


def test_sounds_figures_and_lists_are_left_behind_and_can_be_scored_again(mixtures, make_separator, tmp_path):
    pytest.importorskip("matplotlib")
    separator = hub.load(make_separator(num_steps=8, consistent=True))
    kept = Kept(tmp_path / "out", "valid", 1)
    found = evaluate_separation([separator], mixtures, metrics=["si_sdr", "si_sir"], kept=kept, examples=0, seed=5)
    folder = tmp_path / "out" / "tiny_ddim_N-8_schedule-None"
    assert {p.name for p in (tmp_path / "out").iterdir()} == {MIXTURE, "oracle-ratio-mask", folder.name}
    names = [f"000_{what}.wav" for what in ("enh0", "enh1", "mix", "tgt0", "tgt1")]
    assert sorted(p.name for p in (folder / "wav/valid").iterdir()) == names
    peaks = [np.abs(soundfile.read(folder / "wav/valid" / name)[0]).max() for name in names]
    assert max(peaks) == pytest.approx(0.95, abs=1e-4)
    figures = sorted((folder / "fig/valid").iterdir())
    assert [p.name for p in figures] == ["evo_000.png"]
    assert figures[0].read_bytes()[:4] == b"\x89PNG"
    assert not (tmp_path / "out" / MIXTURE / "fig").exists()  # nothing is on the way there

    listed = json.loads((folder / "valid.json").read_text())
    assert [one["batch_idx"] for one in listed] == [0, 1, 2]
    assert listed[0]["si_sdr"] == list(found.rows[2].scores[0].parts["si_sdr"])
    assert (listed[0]["nfe"], listed[0]["len_s"], listed[0]["errors"]) == (8, 1.0, {})
    assert listed[0]["rtf"] == pytest.approx(listed[0]["runtime"] / listed[0]["len_s"])
    summary = json.loads((folder / "valid_summary.json").read_text())
    assert (summary["number"], summary["seed"], summary["steps"]) == (3, 5, 8)
    assert (summary["sampler"], summary["grid"]) == ({"name": "ddim"}, {"name": "uniform"})
    assert summary["si_sdr"] == pytest.approx(np.mean(found.rows[2].column("si_sdr")))

    again = evaluate_separation(
        [SourceResults("again", folder, split="valid")], mixtures[:1], metrics=["si_sdr"], examples=0
    )
    ours = found.rows[2].column("si_sdr")[:1]
    assert again.rows[2].column("si_sdr") == pytest.approx(ours, abs=0.1)  # written with 16 bits
    assert all(scores.order == (0, 1) for scores in again.rows[2].scores)


def test_the_figure_of_states_has_a_row_a_source_and_one_scale():
    pytest.importorskip("matplotlib")
    row = {"step 1 of 2": SOURCES[0], "clean": 0.1 * SOURCES[1]}
    figure = plots.states_figure([row, row, row], RATE)
    axes = figure.axes[:-1]  # the last is the scale's
    assert [axis.get_title() for axis in axes] == ["step 1 of 2", "clean", "", "", "", ""]
    assert {axis.images[0].get_clim() for axis in axes} == {(-75.0, 0.0)}
    assert float(axes[0].images[0].get_array().max()) == 0.0
    with pytest.raises(ValueError, match="expected at least one wave to draw"):
        plots.states_figure([], RATE)


def test_a_traced_run_gives_what_the_model_gives_and_some_states(mixtures, make_separator):
    separator = hub.load(make_separator(num_steps=9, sampler={"name": "pc"}))
    sources = mixtures[0].load()
    given = {"sample_rate": RATE, "steps": None, "sampler": None, "seed": 7}
    trace = Trace()
    np.testing.assert_array_equal(
        trace.separate(separator, sources.sum(0), **given), separator(sources.sum(0), **given)
    )
    assert (trace.steps, list(trace.states)) == (9, [1, 3, 4, 6, 7, 9])
    assert all(state.shape == sources.shape for state in trace.states.values())
    assert trace.separate(separator, sources.sum(0), **(given | {"sample_rate": 2 * RATE})) is None
    assert Trace().separate(Halves(), sources.sum(0), **given) is None


def test_a_mixture_that_failed_has_no_sound_and_a_reason_in_the_list(mixtures, tmp_path):
    theirs = SourceResults("theirs", tmp_path)
    evaluate_separation([theirs], mixtures[:1], metrics=["si_sdr"], kept=Kept(tmp_path / "out", count=None))
    (listed,) = json.loads((tmp_path / "out/theirs/test.json").read_text())
    assert listed["si_sdr"] is None
    assert "found none" in listed["errors"]["si_sdr"]
    assert not (tmp_path / "out/theirs/wav").exists()
    assert json.loads((tmp_path / "out/theirs/test_summary.json").read_text())["si_sdr"] is None


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (Run(DIFFSEP, Uniform(), 30), "m_N-30_snr-0.5_corrstep-1_denoise-True_schedule-None"),
        (
            Run(PredictorCorrector(corrector="none", snr=0.33, denoise=False), Karras(), 5),
            "m_N-5_snr-0.33_corrstep-0_denoise-False_schedule-karras_corrector-none_step_rule-exact",
        ),
        (Run(DDIM(), Uniform(), 4), "m_ddim_N-4_schedule-None"),
        (Run(DDIM(), Karras(rho=5.0), 4), "m_ddim_N-4_schedule-karras_rho-5.0"),
    ],
)
def test_the_folder_says_how_its_sources_were_made(run, name):
    assert run_folder("m", run) == name


def test_rows_that_differ_in_a_detail_have_folders_of_their_own(make_separator, tmp_path):
    separator = hub.load(make_separator())
    kept = Kept(tmp_path, tag="my tag")
    kept.begin([("tiny", separator, "ddim", 2), ("tiny", separator, "ddim@uniform", 2), (MIXTURE, None, None, None)])
    assert kept.rows == ["my-tag_ddim_N-2_schedule-None", "my-tag_ddim_N-2_schedule-None_1", MIXTURE]
