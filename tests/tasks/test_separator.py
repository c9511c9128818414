"""The separator in Python: the truth is found and keeps its place, whatever the length, level, rate and kind."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from fromnoise import hub
from fromnoise.samplers import Heun, Karras, PredictorCorrector
from fromnoise.tasks import SeparationConfig, SeparationModel, Separator
from fromnoise.tasks.base import default_run, spec_of
from fromnoise.tasks.chunked import run_chunked
from fromnoise.tasks.following import Follower
from fromnoise.tasks.separation import in_doubt
from fromnoise.types import InputError
from tests.tiny_separators import make_separator, si_sdr, voices

__all__ = ["make_separator"]  # a fixture

RATE = 8000


@pytest.fixture
def separator(make_separator) -> Separator:
    return hub.load(make_separator())


def matched(truth: np.ndarray, found: np.ndarray) -> list[float]:
    """SI-SDR of each voice in the order that stands at the beginning."""
    start = slice(0, min(RATE, truth.shape[1]))
    order = [int(np.argmax([si_sdr(voice[start], row[start]) for row in found])) for voice in truth]
    assert sorted(order) == list(range(len(truth)))
    return [si_sdr(voice, found[k]) for voice, k in zip(truth, order, strict=True)]


@pytest.mark.parametrize("sources", [2, 3])
def test_voices_are_found_in_one_piece_and_in_many(make_separator, sources):
    separator = hub.load(make_separator(sources=sources))
    truth = voices(12.0, RATE, sources)
    for segment, overlap in ((30.0, 2.0), (1.0, 0.5), (0.7, 0.1)):
        found = separator(truth.sum(0), RATE, segment=segment, overlap=overlap)
        assert min(matched(truth, found)) > 40  # what the network's filters leave of the other bands
        np.testing.assert_allclose(found.sum(0), truth.sum(0), atol=1e-6)


def test_without_following_the_pieces_change_places(separator):
    truth = voices(12.0, RATE)
    mixture = truth.sum(0, keepdims=True)
    chunking = separator.chunking(1.0, 0.5)
    rows = []
    run_chunked(separator.piece(), Reel(mixture).read, rows.append, mixture.shape[1], **chunking)
    assert min(matched(truth, np.concatenate(rows, axis=1))) < 10


class Reel:
    """A recording in memory."""

    def __init__(self, wave: np.ndarray) -> None:
        self.wave, self.position = wave, 0

    def read(self, count: int) -> np.ndarray:
        self.position += count
        return self.wave[:, self.position - count : self.position]


def test_half_an_hour_keeps_every_voice_in_its_place_in_memory_that_does_not_grow(make_separator):
    rate, minutes = 1000, 30
    separator = hub.load(make_separator(sample_rate=rate))
    truth = voices(60.0 * minutes, rate)
    mixture, chunking, follow = truth.sum(0, keepdims=True), separator.chunking(30.0, 2.0), Follower(2)
    reel, position, order, scores, held = Reel(mixture), 0, [], [], []

    def hear(block: np.ndarray) -> None:
        nonlocal position, order
        there = truth[:, position : position + block.shape[1]]
        position += block.shape[1]
        order = order or [int(np.argmax([si_sdr(voice, row) for row in block])) for voice in there]
        scores.extend(si_sdr(voice, block[k]) for voice, k in zip(there, order, strict=True))
        held.append(reel.position - position)

    process = follow.listen(separator.piece())
    run_chunked(process, reel.read, hear, mixture.shape[1], match=follow, **chunking)
    assert sorted(order) == [0, 1]
    assert (len(follow.joins), follow.doubts) == (len(scores) // 2 - 1, [])
    assert len(follow.joins) >= 55
    assert min(scores) > 25  # of half a minute each; a swap would be below 0
    assert max(held) <= chunking["segment"]


@pytest.mark.parametrize("shape", [(1,), (1, 1), (7,), (500,), (1, 5000), (5001,)])
@pytest.mark.parametrize("rate", [4000, 8000, 44100])
def test_the_length_stays_at_every_rate_and_the_sources_add_up(separator, shape, rate):
    mixture = (0.1 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    found = separator(mixture, rate)
    assert found.shape == (2, shape[-1])
    assert np.isfinite(found).all()
    if rate == RATE:
        np.testing.assert_allclose(found.sum(0), mixture.reshape(-1), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numpy_in_numpy_out_of_the_same_kind(separator, dtype):
    found = separator(voices(1.0, RATE).sum(0).astype(dtype), RATE)
    assert isinstance(found, np.ndarray)
    assert found.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_torch_in_torch_out_of_the_same_kind(separator, dtype):
    found = separator(torch.from_numpy(voices(1.0, RATE).sum(0)).to(dtype), RATE)
    assert isinstance(found, torch.Tensor)
    assert found.dtype == dtype


def test_the_level_and_a_constant_go_through(separator):
    mixture = voices(2.0, RATE).sum(0)
    quiet = separator(mixture, RATE)
    np.testing.assert_allclose(separator(1e-3 * mixture, RATE), 1e-3 * quiet, rtol=0, atol=1e-8)
    moved = separator(mixture + 0.25, RATE)
    np.testing.assert_allclose(moved, quiet + 0.125, atol=1e-5)


def test_channels_are_averaged_with_a_warning(separator):
    mixture = voices(1.0, RATE)
    with pytest.warns(UserWarning, match="2 channels were averaged to one"):
        found = separator(mixture, RATE)
    np.testing.assert_array_equal(found, separator(mixture.mean(0), RATE))


def test_silence_gives_silence_without_asking_the_network(separator):
    found = separator(np.zeros(20000), RATE)
    np.testing.assert_array_equal(found, np.zeros((2, 20000)))
    np.testing.assert_allclose(separator(np.full(9000, 0.5), RATE), np.full((2, 9000), 0.25))
    assert separator.model.denoiser.backbone.calls == 0


def test_a_silent_channel_halves_the_level_of_all(separator):
    mixture = voices(1.0, RATE).sum(0)
    with pytest.warns(UserWarning, match="averaged"):
        found = separator(np.stack([mixture, 0 * mixture]), RATE)
    np.testing.assert_allclose(found.sum(0), mixture / 2, atol=1e-6)


def test_joins_in_silence_are_named_once_with_their_places(separator):
    truth = voices(9.0, RATE, pauses=False)
    truth[:, 3 * RATE - 4000 : 3 * RATE + 4000] = 0
    with pytest.warns(UserWarning, match=r"where two pieces meet at 0:02 \(min:s\), so they may change") as said:
        separator(truth.sum(0), RATE, segment=2.9, overlap=0.25)
    assert len(said) == 1


def test_sources_that_are_the_same_are_dealt_out_with_a_warning(make_separator):
    separator = hub.load(make_separator(bands={"taps": 1}))  # the one tap passes all to the first band
    low = voices(6.0, RATE)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = separator(2 * low, RATE, segment=1.0)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(0), 2 * low, atol=1e-6)


def test_many_doubtful_places_are_counted():
    said = in_doubt([30.0, 60.0, 95.5, 3600.0, 3661.0, 4000.0, 5000.0])
    assert "at 0:30, 1:00, 1:35, 60:00, 61:01 and 2 more places" in said


def test_seed_steps_and_sampler_decide_where_the_network_listens_to_its_state(make_separator, monkeypatch):
    separator = hub.load(make_separator())
    network = separator.model.denoiser.backbone
    plain = network.forward
    monkeypatch.setattr(network, "forward", lambda x, t, c: 0.5 * plain(x, t, c) + 0.5 * torch.tanh(x))
    mixture = voices(1.0, RATE).sum(0)
    found = [separator(mixture, RATE, seed=seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 1e-3
    before = network.calls
    separator(mixture, RATE, steps=5, sampler="pc:corrector=ald2:corrector_steps=2")
    assert network.calls - before == separator.network_calls(5, "pc:corrector=ald2:corrector_steps=2") == 15


def test_names_rate_and_number_of_sources(make_separator):
    plain = hub.load(make_separator("a", sources=3, sample_rate=4000))
    assert (plain.sources, plain.names, plain.sample_rate) == (3, ("s1", "s2", "s3"), 4000)
    named = hub.load(make_separator("b", names=("speech", "noise")))
    assert named.names == ("speech", "noise")
    named.require_sources(2)
    with pytest.raises(InputError, match="the model 'b' separates 2 sources, but 3 are asked for"):
        named.require_sources(3)


@pytest.mark.parametrize(
    ("mixture", "fault"),
    [
        (np.zeros(0), "n >= 1"),
        (np.zeros((2, 2, 2)), "expected a wave of shape"),
        (np.array([0.0, np.nan]), "NaN or infinite samples"),
        (np.array([0.0, np.inf]), "NaN or infinite samples"),
        (np.zeros(9, np.int16), "divide by 32767"),
        (np.zeros((65, 10)), "at most 64 channels"),
    ],
)
def test_a_recording_that_cannot_be_used_is_refused_with_the_reason(separator, mixture, fault):
    with pytest.raises(InputError, match=fault):
        separator(mixture, RATE)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"sample_rate": 10}, "sample rate from 100"),
        ({"steps": 0}, "steps must lie between 1"),
        ({"sampler": "magic"}, "unknown sampler 'magic'"),
        ({"sampler": "pc:colour=3"}, "sampler 'pc' has no setting 'colour'"),
        ({"sampler": "pc:snr=high"}, "snr must be a number, got 'high'"),
        ({"sampler": "pc:snr"}, "expected pc:setting=value, got 'snr'"),
        ({"sampler": ":snr=1"}, "expected a name before the settings"),
        ({"sampler": "@round"}, "unknown grid 'round'"),
        ({"segment": 0.0}, "expected segment > 0"),
        ({"overlap": -1.0}, "overlap >= 0"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_with_the_reason(separator, options, fault):
    with pytest.raises(InputError, match=fault):
        separator(np.zeros(100), **({"sample_rate": RATE} | options))


def test_a_sampler_may_be_named_with_settings_and_a_grid():
    config = SeparationConfig(sampler={"name": "pc", "corrector": "ald2", "snr": 0.4}, num_steps=7)
    assert default_run(config).sampler == PredictorCorrector(corrector="ald2", snr=0.4)
    run = default_run(config, sampler="pc:snr=0.3:denoise=false@karras:rho=2.5")
    assert run.sampler == PredictorCorrector(corrector="ald2", snr=0.3, denoise=False)
    assert (run.grid, run.num_steps) == (Karras(rho=2.5), 7)
    assert default_run(config, 2, "heun").sampler == Heun()
    assert default_run(config, sampler="@karras").sampler == default_run(config).sampler
    assert spec_of("a:b=c=d:e=2:f=1e-3", {}) == {"name": "a", "b": "c=d", "e": 2, "f": 1e-3}


def test_context_grows_with_the_calls_to_a_limit(separator):
    reach = 64
    assert separator.context(1) == reach
    assert separator.context(3) == 3 * reach
    assert separator.context(10**6) == 8 * RATE
    plan = separator.chunking(2.0, 0.5, 3)
    assert plan == {"segment": 16000 + 6 * reach + 4000, "context": 3 * reach, "overlap": 4000, "align": 1}


def test_a_spectral_network_works_on_mixtures_shorter_than_its_frame(tmp_path: Path):
    config = SeparationConfig(
        backbone={
            "name": "spectral",
            "network": {
                "name": "maskconv",
                "width": 4,
                "layers": 1,
                "attention": 0,
            },
        },
        num_steps=2,
    )
    separator = Separator(SeparationModel(config))
    for n in (1, 2, 100, 255, 1000):
        mixture = (0.1 * np.random.default_rng(n).standard_normal(n)).astype(np.float32)
        found = separator(mixture, RATE)
        assert found.shape == (2, n)
        np.testing.assert_allclose(found.sum(0), mixture, atol=1e-6)
