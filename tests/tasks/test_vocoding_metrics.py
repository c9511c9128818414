"""The scores of vocoders: each by its definition, and pYIN against a known pitch and against librosa."""

import math

import numpy as np
import pytest
import torch

from fromnoise.evaluation import measure, pitch, vocoding
from fromnoise.frontends import MELS
from tests.rules import VECTORS

RATE = 22050


def voice(n=12000, rate=RATE, seed=0):
    """Harmonics of a gliding pitch with a pause in the middle, over faint noise; the wave and its f0."""
    t = np.arange(n) / rate
    f0 = 160 + 40 * np.sin(2 * np.pi * 2.5 * t)
    phase = 2 * np.pi * np.cumsum(f0) / rate
    wave = sum(np.sin(k * phase) / k for k in range(1, 7)) * 0.1
    loud = (np.abs(t - t[-1] / 2) > 0.1 * t[-1]).astype(float)
    return wave * loud + 1e-3 * np.random.default_rng(seed).normal(size=n), np.where(loud, f0, np.nan)


@pytest.fixture(scope="module")
def pair():
    clean, _ = voice()
    return clean, clean + 0.02 * np.random.default_rng(3).normal(size=len(clean))


def test_mr_stft_is_the_mean_of_three_resolutions_computed_by_torch(pair):
    clean, other = (torch.from_numpy(wave)[None] for wave in pair)
    total = 0.0
    for n_fft, hop, win in ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)):
        window = torch.hann_window(win, dtype=torch.float64)
        x, y = (
            torch.stft(w, n_fft, hop, win, window, return_complex=True).abs().square().clamp(min=1e-7).sqrt()
            for w in (clean, other)
        )
        total += float((x - y).norm() / x.norm() + (x.log() - y.log()).abs().mean())
    assert vocoding.mr_stft(*pair) == pytest.approx(total / 3, rel=1e-9)


def test_log_mel_is_the_one_that_vocoders_read(pair):
    mels = [MELS["tacotron2-22k"].encode(torch.from_numpy(wave)[None, None]) for wave in pair]
    assert vocoding.log_mel_l1(*pair, RATE) == pytest.approx(float((mels[0] - mels[1]).abs().mean()), rel=1e-6)
    faint, loud = 1e-4 * pair[0], 1000 * pair[0]
    assert vocoding.log_mel_l1(faint, 0.5 * faint, RATE) < 0.9 * math.log(2)  # the floor holds what is faint
    assert vocoding.log_mel_l1(loud, 0.5 * loud, RATE) == pytest.approx(math.log(2), rel=1e-6)


def test_mcd_forgets_the_level_and_measures_the_envelope_in_db(pair):
    loud = 1000 * pair[0]
    assert vocoding.mcd(loud, 0.5 * loud, RATE) == pytest.approx(0, abs=1e-9)
    # a tilt of 2 A cos(pi (m + 1/2) / 80) dB over the bands has the root mean square sqrt(2) A
    tilt = np.cos(np.pi * (np.arange(80) + 0.5) / 80) * 2 * math.log(10) / 20
    difference = tilt @ vocoding._cosines()
    assert difference == pytest.approx(np.eye(13)[0] * 2 * math.log(10) / 20, abs=1e-12)
    assert 10 / math.log(10) * math.sqrt(2 * np.square(difference).sum()) == pytest.approx(math.sqrt(2), rel=1e-9)
    assert vocoding.mcd(*pair, RATE) > 1


def test_pitch_is_found_where_there_is_a_voice():
    wave, f0 = voice(16000, pitch.RATE)
    found = pitch.track(wave)
    truth = f0[:: pitch.HOP]
    found = found[: len(truth)]
    voiced = np.isfinite(truth)
    assert (np.isfinite(found) == voiced).mean() > 0.93  # a window of 48 ms blurs where a voice begins
    both = voiced & np.isfinite(found)
    assert np.median(np.abs(found[both] / truth[both] - 1)) < 0.01
    assert np.isnan(pitch.track(np.random.default_rng(0).normal(size=8000))).mean() > 0.9
    assert np.isnan(pitch.track(np.zeros(4000))).all()


def test_pitch_agrees_with_librosa():
    """librosa 0.11's pyin of the same wave, stored; the JSON beside it says how it was made."""
    wave, _ = voice(12000, pitch.RATE)
    theirs = np.load(VECTORS / "librosa_pyin.npz")["f0"]
    ours = pitch.track(wave)[: len(theirs)]
    both = np.isfinite(ours) & np.isfinite(theirs)
    assert both.sum() > 40
    assert (np.isfinite(ours) == np.isfinite(theirs)).mean() > 0.9
    assert (np.abs(ours[both] / theirs[both] - 1) < 0.03).mean() > 0.95


def test_difference_function_is_its_definition():
    wave = np.random.default_rng(5).normal(size=3000)
    found = pitch.difference(wave)
    size = pitch.WINDOW + pitch.LONGEST + 2
    frame = np.pad(wave, ((pitch.WINDOW + 106) // 2, size))[8 * pitch.HOP :][: 2 * size]
    d = np.array([np.square(frame[: pitch.WINDOW] - frame[k:][: pitch.WINDOW]).sum() for k in range(60)])
    expected = np.arange(1, 60) * d[1:] / np.cumsum(d[1:])
    np.testing.assert_allclose(found[8, 1:60], expected, rtol=1e-9)


def test_likeliest_path_is_the_best_of_all_paths(monkeypatch):
    """Every path of a small trellis, with the transition probabilities written out."""
    monkeypatch.setattr(pitch, "BINS", 4)
    monkeypatch.setattr(pitch, "REACH", 1)
    pitch._moves.cache_clear()
    seen = np.random.default_rng(7).dirichlet(np.ones(5), size=4)[:, :4] * 0.95
    weight = np.array([[2.0 if i == j else float(abs(i - j) == 1) for j in range(4)] for i in range(4)])
    move = weight / np.array([3, 4, 4, 3])[:, None]  # from the ends a step outside is impossible
    best, score = None, -np.inf
    states = np.stack(np.meshgrid(*[np.arange(8)] * 4, indexing="ij"), -1).reshape(-1, 4)
    for path in states:
        total = 0.0
        for t, state in enumerate(path):
            total += math.log(seen[t, state] if state < 4 else (1 - seen[t].sum()) / 4)
            if t:
                before = path[t - 1]
                step = move[before % 4, state % 4] * (0.01 if (before < 4) != (state < 4) else 0.99)
                total += math.log(step) if step else -np.inf
        if total > score:
            best, score = path, total
    found = pitch.viterbi(seen)
    pitch._moves.cache_clear()
    assert found.tolist() == best.tolist()


def test_f0_and_voicing_scores_follow_the_tracks(monkeypatch):
    tracks = {0.0: [100.0, 110.0, np.nan, np.nan], 1.0: [103.0, 106.0, 120.0, np.nan]}
    monkeypatch.setattr(pitch, "track", lambda wave, rate: np.array(tracks[float(wave[0])]))
    a, b = np.zeros(9), np.ones(9)
    assert vocoding.f0_rmse(a, b, 16000) == pytest.approx(math.sqrt((9 + 16) / 2))
    assert vocoding.vuv_f1(a, b, 16000) == pytest.approx(2 * 2 / (2 + 3))


def test_what_cannot_be_judged_is_a_reason(pair):
    names = ["mr_stft", "log_mel_l1", "mcd", "f0_rmse", "vuv_f1"]
    low = measure(*(wave[::3] for wave in pair), 7350, names)
    assert math.isfinite(low["mr_stft"])
    assert low.reasons["log_mel_l1"] == "needs at least 16000 Hz, got 7350 Hz"
    noise = np.random.default_rng(0).normal(size=(2, 8000)) * 0.1
    silent = measure(noise[0], noise[1], 16000, names)
    assert silent.reasons["f0_rmse"].startswith("F0: no frame is voiced in both")
    short = measure(pair[0][:300], pair[1][:300], RATE, names)
    assert short.reasons["mr_stft"] == "too short: expected more than 512 samples, got 300"
