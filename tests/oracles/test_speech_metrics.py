"""The metrics give the published programs' numbers, prefer the clean file, and answer NaN with a reason, never 0."""

import itertools
import math
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fromnoise.evaluation import (
    METRICS,
    dnsmos,
    measure,
    paired_difference,
    perceptual,
    separation,
    speech,
    statistics,
    summarise,
)
from fromnoise.evaluation import composite as parts

VECTORS = Path(__file__).parents[1] / "vectors"
RATE = 16000


@pytest.fixture(scope="module")
def published():
    return np.load(VECTORS / "se_metrics.npz")


@pytest.fixture(scope="module")
def single():
    return np.load(VECTORS / "sepenh_metrics_single.npz")


@pytest.fixture(scope="module")
def clean(published):
    return published["clean"].astype(np.float64)


@pytest.fixture(scope="module")
def noisy(clean):
    return clean + hashed_noise(len(clean))


def hashed_noise(n, seed=900):
    """0.01 sqrt(3) r(k, seed), the vectors' noise rule, exact in integers."""
    k = np.arange(n, dtype=np.int64)
    return 0.01 * math.sqrt(3) * (2 * ((7919 * (k * k + 1) + 31 * k + 104729 * (seed + 1)) % 10007) / 10007 - 1)


def exact_clean(n=32000):
    """The vectors' clean wave in float64 (the stored copy is rounded to float32)."""
    tau = np.arange(n) / RATE
    theta = 2 * np.pi * 120 * tau + 4 * np.sin(2 * np.pi * 2.3 * tau)
    envelope = 0.05 + np.maximum(0, np.sin(2 * np.pi * 1.7 * tau)) ** 2
    wave = np.zeros(n)
    for h in range(1, 21):
        formants = np.exp(-(((h * 120 - 600) / 350) ** 2)) + 0.6 * np.exp(-(((h * 120 - 1700) / 500) ** 2)) + 0.1
        wave += h**-0.8 * formants * np.cos(h * theta + 0.5 * h * h)
    return 0.25 * envelope * wave + 0.2 * hashed_noise(n, 907)


def published_pair(case):
    clean, noise = exact_clean(), hashed_noise(32000)
    estimate = {
        "noisy": clean + noise,
        "attenuated": 0.9 * clean + 0.4 * noise,
        "lowpassed": np.convolve(clean + 0.5 * noise, np.ones(3) / 3, "same"),
        "strong": clean + 4 * noise,
        "identity": clean,
        "noisy_8k": clean + noise,
    }[case]
    step = 2 if case == "noisy_8k" else 1
    return clean[::step].astype(np.float32), estimate[::step].astype(np.float32), RATE // step


def test_the_rule_makes_the_stored_clean_wave(published):
    assert np.abs(exact_clean() - published["clean"]).max() < 2e-8  # half a float32 step at 0.25


@pytest.mark.parametrize("case", ["noisy", "attenuated", "lowpassed", "strong", "identity", "noisy_8k"])
def test_all_nine_numbers_of_the_drdiffuse_program(published, case):
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    reference, estimate, rate = published_pair(case)
    wss, llr, ssnr, fwssnr, pesq, csig, cbak, covl, stoi = published[case]
    got = speech.composite(reference, estimate, rate)
    assert [got.wss, got.llr, got.ssnr] == pytest.approx([wss, llr, ssnr], abs=1e-5)  # its filters are float32
    assert parts.fwssnr(reference, estimate, rate) == pytest.approx(fwssnr, abs=1e-9)
    assert got.pesq == pytest.approx(pesq, abs=1e-3)  # the stated tolerance of PESQ
    assert [got.csig, got.cbak, got.covl] == pytest.approx([csig, cbak, covl], abs=1e-3)
    assert speech.stoi(reference, estimate, rate) == pytest.approx(stoi, abs=1e-6)


@pytest.fixture(scope="module")
def harmonic(single):
    """The closed-form pair of sepenh_metrics_single.json: reference, degraded, and the noise in it."""
    k = np.arange(48000)
    t = k / RATE
    envelope = 0.05 + 0.95 * np.maximum(0, np.sin(2 * np.pi * 1.6 * t + 0.4)) ** 0.7
    reference = 0.003 * np.sin(0.9 * k + 0.4 * np.sin(0.0131 * k**2 / 50))
    for h in range(1, 46):
        tone = np.sin(2 * np.pi * 130 * h * (t + 0.002 * np.sin(2 * np.pi * 3 * t)) + 0.3 * h**2) / h**0.8
        reference += 0.1 * envelope * tone * (1 + 0.5 * np.sin(0.7 * h + 2 * np.pi * 1.1 * t))
    noise = 0.02 * single["in_pn"].astype(np.float64)
    return reference, 0.85 * reference + noise, noise


def test_parts_of_the_diffsep_composites(single, harmonic):
    reference, degraded, _ = harmonic
    wss = parts.wss_frames(reference, degraded, RATE, "diffsep")
    llr = parts.llr_frames(reference, degraded, RATE, "diffsep")
    assert wss[:10] == pytest.approx(single["wss_first10"], rel=1e-6)
    assert parts.lowest_95(wss) == pytest.approx(float(single["wss_mean95"]), rel=1e-9)
    assert llr[:10] == pytest.approx(single["llr_first10"], abs=1e-5)  # float32 products upstream
    assert parts.lowest_95(llr) == pytest.approx(float(single["llr_mean95"]), abs=1e-3)  # the spec's bound for them
    assert parts.ssnr(reference, degraded, RATE, "diffsep") == pytest.approx(
        single["ssnr_overall_and_mean"][1], abs=1e-9
    )


def test_overall_snr_of_the_levelled_signals(single, harmonic):
    reference, degraded = parts.levelled(*harmonic[:2])
    overall = 10 * np.log10((reference**2).sum() / ((reference - degraded) ** 2).sum())
    assert overall == pytest.approx(single["ssnr_overall_and_mean"][0], abs=1e-9)


def test_diffsep_composites_hear_the_levelled_signals(single, harmonic):
    pytest.importorskip("pesq")
    got = speech.composite(*harmonic[:2], RATE, variant="diffsep")
    csig, cbak, covl = single["csig_cbak_covl"]
    assert got.cbak == pytest.approx(
        cbak, abs=1e-6
    )  # without LLR: exact; PESQ of the unchanged signals differs by 2e-4
    assert [got.csig, got.covl] == pytest.approx([csig, covl], abs=1e-3)
    ours = speech.composite(*harmonic[:2], RATE)
    assert abs(ours.ssnr - got.ssnr) > 0.4  # the two programs disagree, which is why the variant is an argument


def test_pesq_and_stoi_of_the_packages(single, harmonic):
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    pair = harmonic[:2]
    both = [speech.pesq_wb(*pair, RATE), speech.pesq_nb(*pair, RATE)]
    assert both == pytest.approx(single["pesq_wb_nb"], abs=1e-4)
    assert [speech.stoi(*pair, RATE), speech.estoi(*pair, RATE)] == pytest.approx(single["stoi_estoi"], abs=1e-4)


def test_energy_ratios_with_the_noise_known(single, harmonic):
    reference, degraded, noise = harmonic
    assert speech.si_sdr(reference, degraded, RATE) == pytest.approx(float(single["si_sdr_scalar"]), rel=1e-9)
    assert speech.si_sdr(reference, degraded, RATE) == pytest.approx(float(single["sgmse_si_sdr"]), rel=1e-9)
    got = separation.noise_ratios(reference, degraded, noise)
    assert got == pytest.approx(single["sgmse_energy_ratios"], rel=1e-6)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("item", [0, 1])
def test_separation_ratios_and_their_order(count, item):
    pytest.importorskip("scipy")
    vector = {name: array[item] for name, array in np.load(VECTORS / f"sepenh_metrics_perm_K{count}.npz").items()}
    references, estimates = vector["in_ref"], vector["in_est"]
    got = separation.si_bss_eval(references, estimates)
    for name in ("si_sdr", "si_sir", "si_sar"):
        assert getattr(got, name) == pytest.approx(vector[name], rel=1e-9)
    assert got.order.tolist() == vector["perm"].tolist()
    kept, order = separation.ordered_si_sdr(references, estimates)
    assert kept == pytest.approx(vector["si_sdr_no_zero_mean"], rel=1e-9)
    assert order.tolist() == vector["perm"].tolist()
    centred, _ = separation.ordered_si_sdr(references, estimates, zero_mean=True)
    assert centred == pytest.approx(vector["si_sdr_zero_mean"], rel=1e-9)
    validation, _ = separation.ordered_si_sdr(references, estimates, zero_mean=True, clamp_db=30.0)
    assert validation == pytest.approx(vector["val_si_sdr_clamped"], rel=1e-9)
    filtered, _ = separation.ordered_sdr(references, estimates)
    assert filtered == pytest.approx(vector["sdr_512tap"], rel=1e-9)


def test_order_of_five_sources_is_that_of_all_permutations():
    pytest.importorskip("scipy")
    pairwise = np.random.default_rng(3).normal(size=(5, 5))
    best = max(itertools.permutations(range(5)), key=lambda order: pairwise[np.arange(5), list(order)].sum())
    assert separation.best_order(pairwise).tolist() == list(best)


def test_si_sdr_ignores_scale_and_clamps_perfection(clean, noisy):
    value = separation.si_sdr(clean, noisy)
    assert separation.si_sdr(clean, -3 * noisy) == pytest.approx(value, abs=1e-9)
    assert separation.si_sdr(clean, clean) == 100.0
    orthogonal = np.array([1.0, 0, 0, 0]), np.array([0, 1.0, 0, 0])
    assert separation.si_sdr(*orthogonal) == -100.0


def test_levinson_solves_the_normal_equations():
    linalg = pytest.importorskip("scipy.linalg")
    windowed = np.random.default_rng(0).normal(size=(7, 200)).cumsum(1)
    lags = parts.lag_products(windowed, 16)
    filters = parts.levinson(lags)
    for row, a in zip(lags, filters, strict=True):
        expected = linalg.solve_toeplitz(row[:-1], row[1:])
        assert -a[1:] == pytest.approx(expected, rel=1e-6, abs=1e-8)  # condition number about 1e4


def test_slope_weights_follow_klatts_walk_to_the_peak():
    levels = np.random.default_rng(1).normal(scale=20, size=(50, 25))
    got = parts.slope_weights(levels)
    for frame, weights in zip(levels, got, strict=True):
        slopes = np.diff(frame)
        for i in range(24):
            n = i
            if slopes[i] > 0:
                while n < 24 and slopes[n] > 0:
                    n += 1
                peak = frame[n - 1]
            else:
                while n >= 0 and slopes[n] <= 0:
                    n -= 1
                peak = frame[n + 1]
            expected = 20 / (20 + frame.max() - frame[i]) / (1 + peak - frame[i])
            assert weights[i] == pytest.approx(expected, rel=1e-12)


def test_distances_of_a_five_second_file_take_under_a_tenth_of_a_second(clean, noisy):
    reference, estimate = np.tile(clean, 3)[:80000], np.tile(noisy, 3)[:80000]
    spent = []
    for _ in range(5):
        started = time.process_time()
        (
            parts.ssnr(reference, estimate, RATE),
            parts.llr(reference, estimate, RATE),
            parts.wss(reference, estimate, RATE),
        )
        spent.append(time.process_time() - started)
    assert min(spent) < 0.1


def test_frames_of_digital_silence_in_the_reference_predict_nothing(clean, noisy):
    gap = np.zeros(8000)
    reference = np.concatenate([clean, gap, clean])
    estimate = np.concatenate([noisy, gap, noisy])
    assert parts.llr(reference, estimate, RATE) == pytest.approx(parts.llr(clean, noisy, RATE), rel=0.05)
    with pytest.raises(ValueError, match="no frame of the reference sounds"):
        parts.llr(np.zeros(8000), noisy[:8000], RATE)


def test_raw_pesq_inverts_the_narrow_band_mapping(clean, noisy):
    pytest.importorskip("pesq")
    raw = perceptual.pesq_raw(clean, noisy, RATE)
    assert 0.999 + 4 / (1 + math.exp(-1.4945 * raw + 4.6607)) == pytest.approx(speech.pesq_nb(clean, noisy, RATE))


REFERENCED = [name for name, metric in METRICS.items() if metric.needs_reference]


@pytest.mark.parametrize("name", REFERENCED)
def test_metric_prefers_the_clean_file_in_its_direction(clean, noisy, name):
    if METRICS[name].package:
        pytest.importorskip(METRICS[name].package)
    perfect, worse = (measure(clean, wave, RATE, [name]) for wave in (clean, clean + 4 * (noisy - clean)))
    assert not perfect.reasons and not worse.reasons
    sign = 1 if METRICS[name].higher_is_better else -1
    assert sign * perfect[name] > sign * worse[name]


def test_every_metric_says_what_it_is_and_stands_in_the_docs():
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    for name, metric in METRICS.items():
        assert f"`{name}`" in page
        assert metric.name == name
        assert metric.definition.endswith(".")
        assert metric.unit in ("", "dB", "Hz")


BAD = {
    "silent reference": (lambda c, n: (0 * c, n), "the reference is silent"),
    "silent estimate": (lambda c, n: (c, 0 * n), "the estimate is silent"),
    "not finite": (lambda c, n: (c, np.where(np.arange(len(n)) == 5, np.nan, n)), "the estimate holds NaN or infinite"),
    "wrong length": (lambda c, n: (c, n[:-100]), "wrong length: expected 32000 samples as in the reference, got 31900"),
    "empty": (lambda c, n: (c[:0], n[:0]), "the reference is empty"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file_is_nan_with_a_reason_for_every_metric(clean, noisy, case):
    spoil, reason = BAD[case]
    scores = measure(*spoil(clean, noisy), RATE, REFERENCED)
    assert all(math.isnan(scores[name]) for name in REFERENCED)
    assert set(scores.reasons) == set(REFERENCED)
    assert all(text.startswith(reason) for text in scores.reasons.values())


def test_short_file_is_nan_where_a_metric_needs_more_and_a_number_where_not(clean, noisy):
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    names = ["pesq_wb", "stoi", "ssnr", "si_sdr"]
    start = 8000  # 12 ms of sound
    scores = measure(clean[start : start + 200], noisy[start : start + 200], RATE, names)
    assert "1/4 of a second" in scores.reasons["pesq_wb"]
    assert "fewer than 30 frames" in scores.reasons["stoi"]
    assert "too short" in scores.reasons["ssnr"]
    assert "si_sdr" not in scores.reasons and math.isfinite(scores["si_sdr"])


def test_stoi_without_enough_speech_is_no_tiny_score(clean, noisy):
    """The package returns 1e-5 and warns; a mean over files would take that for a score."""
    pytest.importorskip("pystoi")
    scores = measure(clean[:3200], noisy[:3200], RATE, ["stoi", "estoi"])
    assert math.isnan(scores["stoi"]) and math.isnan(scores["estoi"])


@pytest.mark.parametrize(
    ("package", "name"),
    [("pesq", "pesq_wb"), ("pesq", "csig"), ("pystoi", "stoi"), ("onnxruntime", "dnsmos_ovrl")],
)
def test_missing_package_is_a_reason_that_says_how_to_install(monkeypatch, clean, noisy, package, name):
    for cache in (perceptual._pesq, speech._composite, dnsmos._rate, dnsmos.networks):
        cache.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    scores = measure(clean, noisy, RATE, [name, "si_sdr"])
    assert math.isnan(scores[name]) and math.isfinite(scores["si_sdr"])
    assert scores.reasons[name] == f"package '{package}' is missing; pip install 'fromnoise[metrics]'"


def test_missing_speechmos_is_a_reason(monkeypatch, clean):
    pytest.importorskip("onnxruntime")
    for cache in (dnsmos._rate, dnsmos.networks):
        cache.cache_clear()
    monkeypatch.setattr(dnsmos, "find_spec", lambda name: None)
    scores = measure(clean, clean, RATE, ["dnsmos_sig"])
    assert scores.reasons["dnsmos_sig"].startswith("package 'speechmos' is missing")


def test_error_of_a_package_is_a_reason_and_not_an_end(monkeypatch, clean, noisy):
    def broken(*args, **kwargs):
        raise RuntimeError("out of cheese")

    monkeypatch.setitem(METRICS, "ssnr", speech.Metric("ssnr", "dB", True, "Broken.", broken))
    scores = measure(clean, noisy, RATE, ["ssnr", "si_sdr"])
    assert scores.reasons == {"ssnr": "RuntimeError: out of cheese"}


def test_recording_without_the_band_is_refused_not_upsampled(clean, noisy):
    pytest.importorskip("pesq")
    scores = measure(clean[::2], noisy[::2], 8000, ["pesq_wb", "pesq_nb"])
    assert scores.reasons == {"pesq_wb": "needs at least 16000 Hz, got 8000 Hz"}
    assert scores["pesq_nb"] == pytest.approx(speech.pesq_nb(clean[::2], noisy[::2], 8000))


def test_other_rates_are_resampled_to_the_definitions_rate(clean, noisy):
    pytest.importorskip("pesq")
    soxr = pytest.importorskip("soxr")
    names = ["pesq_wb", "csig", "ssnr"]
    high = [soxr.resample(wave, RATE, 48000) for wave in (clean, noisy)]
    low = [soxr.resample(wave, 48000, RATE, quality="HQ") for wave in high]
    got, expected = measure(*high, 48000, names), measure(*low, RATE, names)
    assert got.values == pytest.approx(expected.values)
    there = measure(clean, noisy, RATE, ["ssnr"])["ssnr"]
    assert got["ssnr"] == pytest.approx(there, abs=0.4)  # the filters take the white noise near 8 kHz away


def test_channels_are_judged_one_by_one_and_averaged(clean, noisy):
    stereo = np.stack([clean, clean]), np.stack([noisy, clean + 0.1 * (noisy - clean)])
    got = measure(*stereo, RATE, ["si_sdr"])["si_sdr"]
    alone = [measure(r, e, RATE, ["si_sdr"])["si_sdr"] for r, e in zip(*stereo, strict=True)]
    assert got == pytest.approx(np.mean(alone))
    one_silent = measure(stereo[0], stereo[1] * [[1], [0]], RATE, ["si_sdr"])
    assert one_silent.reasons == {"si_sdr": "the estimate is silent"}
    assert "wrong channels" in measure(stereo[0], noisy, RATE, ["si_sdr"]).reasons["si_sdr"]


def test_misuse_is_an_error_that_lists_the_choices(clean):
    with pytest.raises(ValueError, match="unknown metric 'pesq'; choose from: pesq_wb, pesq_nb"):
        measure(clean, clean, RATE, ["pesq"])
    with pytest.raises(ValueError, match="expected reference as floats"):
        measure((clean * 32767).astype(np.int16), clean, RATE, ["si_sdr"])


def test_long_file_is_scored_in_its_own_process_with_the_same_number(monkeypatch, clean, noisy):
    pytest.importorskip("pesq")
    expected = perceptual.pesq(clean, noisy, RATE)
    perceptual._pesq.cache_clear()
    monkeypatch.setattr(perceptual, "SECONDS_IN_PROCESS", 1.0)
    assert perceptual.pesq(clean, noisy, RATE) == expected
    with pytest.raises(ValueError, match="No utterances detected"):
        perceptual.pesq(0 * clean, noisy, RATE)


def test_crash_of_pesq_is_a_sentence(monkeypatch, clean, noisy):
    pytest.importorskip("pesq")
    perceptual._pesq.cache_clear()
    monkeypatch.setattr(perceptual, "SECONDS_IN_PROCESS", 1.0)
    monkeypatch.setattr(perceptual, "ISOLATED", "import os; os.abort()")
    with pytest.raises(ValueError, match="PESQ crashed: it holds 50 utterances"):
        perceptual.pesq(clean, noisy, RATE)


def test_dnsmos_equals_the_packages_own_program(clean, noisy):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("librosa", reason="speechmos' own program needs librosa")
    theirs = pytest.importorskip("speechmos.dnsmos")
    estimate = np.tile(noisy, 6)[: int(9.5 * RATE)].astype(np.float32)  # one window
    expected = theirs.run(estimate, RATE)
    got = dnsmos.dnsmos(estimate, RATE)
    for name in ("sig", "bak", "ovrl", "p808"):
        assert getattr(got, name) == pytest.approx(float(expected[f"{name}_mos"]), abs=1e-4)  # float32 networks


def test_dnsmos_repeats_a_short_file_and_asks_for_no_reference(monkeypatch, noisy):
    """The networks are replaced by ones that answer with what they were given: this is about the windows."""

    class Echo:
        def __init__(self, pick):
            self.pick = pick

        def run(self, outputs, inputs):
            return [[self.pick(inputs["input_1"][0])]]

    heard = []
    p835 = Echo(lambda wave: heard.append(wave) or [0.0, 1.0, 2.0])
    monkeypatch.setattr(dnsmos, "networks", lambda: (p835, Echo(lambda features: [features.shape[0]])))
    dnsmos._rate.cache_clear()
    short = noisy[:12000].astype(np.float32)
    scores = measure(np.zeros(7), short, RATE, ["dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl", "dnsmos_p808"])
    dnsmos._rate.cache_clear()
    assert len(heard) == 3  # doubled to 12 s: windows at 0, 1 and 2 s
    assert np.array_equal(heard[0], np.tile(short, 13)[:144160])
    assert scores["dnsmos_sig"] == pytest.approx(0.0052439)  # the polynomials at 0, 1 and 2
    assert scores["dnsmos_bak"] == pytest.approx(-0.13166888 + 1.60915514 - 0.39604546)
    assert scores["dnsmos_ovrl"] == pytest.approx(4 * -0.06766283 + 2 * 1.11546468 + 0.04602535)
    assert scores["dnsmos_p808"] == 900  # frames every 10 ms of the 9 s that are left


def test_dnsmos_mel_equals_librosa(noisy):
    librosa = pytest.importorskip("librosa")
    assert np.abs(dnsmos.slaney_mel() - librosa.filters.mel(sr=RATE, n_fft=321, n_mels=120)).max() < 1e-8
    power = librosa.feature.melspectrogram(y=noisy, sr=RATE, n_fft=321, hop_length=160, n_mels=120)
    expected = (librosa.power_to_db(power, ref=np.max) + 40) / 40
    assert np.abs(dnsmos.mel_features(noisy) - expected.T).max() < 1e-6


def test_dnsmos_windows_are_those_of_the_published_loop():
    for n in (144160, 159999, 160000, 16 * RATE, 40 * RATE + 17, 130 * RATE):
        wave, expected = np.empty(n, np.int8), []
        for i in range(int(np.floor(n / RATE) - 9.01) + 1):
            if len(wave[int(i * RATE) : int((i + 9.01) * RATE)]) >= int(9.01 * RATE):
                expected.append(i * RATE)
        assert dnsmos.window_starts(n) == expected
    assert [start // RATE for start in dnsmos.window_starts(40 * RATE)] == [0, 1, 2, 3, 4, 5, 6, *range(24, 31)]


def test_bootstrap_interval_is_seeded_and_close_to_the_normal_one():
    values = np.random.default_rng(0).normal(3, 2, 400)
    got = summarise(values, seed=1)
    assert got == summarise(values, seed=1)
    assert got != summarise(values, seed=2)
    half = 1.96 * values.std(ddof=1) / 20
    assert [got.low, got.high] == pytest.approx([values.mean() - half, values.mean() + half], abs=0.03)


def test_missing_values_are_counted_and_not_averaged():
    got = summarise([1.0, math.nan, 3.0, math.nan, math.inf])
    assert (got.mean, got.count, got.missing) == (2.0, 2, 3)
    alone = summarise([4.0, math.nan])
    assert (alone.mean, alone.count, alone.missing) == (4.0, 1, 1)
    assert math.isnan(alone.low) and math.isnan(alone.high)
    assert math.isnan(summarise([math.nan]).mean) and summarise([]).count == 0


def test_blocks_of_the_bootstrap_do_not_change_its_size(monkeypatch):
    monkeypatch.setattr(statistics, "BLOCK", 1000)
    means = statistics.bootstrap_means(np.arange(300.0), seed=0, resamples=2000)
    assert means.shape == (2000,)
    assert means.mean() == pytest.approx(
        149.5, abs=0.5
    )  # deviation of a mean: 86.6 / sqrt(300) = 5, of 2000 of them 0.11
    assert means.std() == pytest.approx(5.0, rel=0.06)


def test_paired_difference_cancels_what_both_find_hard():
    generator = np.random.default_rng(0)
    hard = generator.normal(0, 5, 100)
    ours, theirs = hard + 0.5 + generator.normal(0, 0.1, 100), hard.copy()
    theirs[3] = math.nan
    got = paired_difference(ours, theirs)
    assert got.low > 0.4 and got.high < 0.6 and (got.count, got.missing) == (99, 1)
    with pytest.raises(ValueError, match="expected two lists over the same files"):
        paired_difference([1.0], [1.0, 2.0])
