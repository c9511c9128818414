"""Long recordings in pieces: every sample once, the same samples as in one go, memory that no length touches."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fromnoise.data import audio
from fromnoise.data.audio import AudioReader, AudioWriter, InputError, resample
from fromnoise.frontends import STFT
from fromnoise.samplers.noise import PositionNoise
from fromnoise.tasks.chunked import Averaged, Chunking, measure, run_chunked, stream
from fromnoise.tasks.following import Follower, match_sources


def sound(n: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(n + channels).uniform(-0.5, 0.5, (channels, n)).astype(np.float32)


class Tape:
    """A recording in memory that counts what passes: samples read and written, calls, and the most ever held."""

    def __init__(self, wave: np.ndarray) -> None:
        self.wave, self.read_to, self.written, self.most_held = wave, 0, [], 0
        self.calls: list[tuple[int, int]] = []

    def read(self, count: int) -> np.ndarray:
        assert count > 0
        block = self.wave[:, self.read_to : self.read_to + count]
        self.read_to += count
        self.most_held = max(self.most_held, self.read_to - self.written_to)
        return block

    @property
    def written_to(self) -> int:
        return sum(block.shape[1] for block in self.written)

    def write(self, block: np.ndarray) -> None:
        assert block.shape[1] > 0
        self.written.append(block.copy())

    def run(self, process, **chunking) -> np.ndarray:
        def counted(wave, start):
            self.calls.append((start, wave.shape[1]))
            return process(wave, start)

        run_chunked(counted, self.read, self.write, self.wave.shape[1], **chunking)
        return np.concatenate(self.written, axis=1)


def same(wave: np.ndarray, start: int) -> np.ndarray:
    return wave


@st.composite
def chunkings(draw):
    align, context, overlap = (draw(st.integers(low, 40)) for low in (1, 0, 0))
    segment = 2 * context + overlap + max(overlap, 1) + align - 1 + draw(st.integers(0, 200))
    fade = draw(st.sampled_from(["cosine", "linear"]))
    return {"segment": segment, "context": context, "overlap": overlap, "align": align, "fade": fade}


@settings(max_examples=300, deadline=None)
@given(total=st.integers(1, 1500), chunking=chunkings(), channels=st.integers(1, 2))
def test_doing_nothing_changes_no_bit(total, chunking, channels):
    tape = Tape(sound(total, channels))
    np.testing.assert_array_equal(tape.run(same, **chunking), tape.wave)
    plan = Chunking(**chunking)
    assert len(tape.calls) == plan.count(total)
    assert tape.read_to == total
    for k, (start, length) in enumerate(tape.calls):
        assert start == k * plan.step
        assert start % chunking["align"] == 0
        assert length == min(chunking["segment"], total - start)
    assert tape.most_held <= chunking["segment"]


@settings(max_examples=100, deadline=None)
@given(total=st.integers(1, 1500), chunking=chunkings(), width=st.integers(0, 40))
def test_a_filter_that_sees_no_further_than_the_context_gives_the_result_of_one_go(total, chunking, width):
    assume(width <= chunking["context"])
    kernel = np.random.default_rng(width).standard_normal(2 * width + 1).astype(np.float32) / (width + 1)

    def smooth(wave, start):
        return np.stack([np.convolve(np.pad(row, width), kernel, "valid") for row in wave])

    tape = Tape(sound(total))
    np.testing.assert_allclose(tape.run(smooth, **chunking), smooth(tape.wave, 0), rtol=0, atol=1e-6)


def test_without_context_a_cross_fade_alone_is_wrong_at_the_seams():
    def smooth(wave, start):
        return np.stack([np.convolve(np.pad(row, 20), np.ones(41, np.float32) / 41, "valid") for row in wave])

    tape = Tape(np.ones((1, 1000), np.float32))
    error = np.abs(tape.run(smooth, segment=200, overlap=20) - smooth(tape.wave, 0))
    assert error.max() > 0.1


NOISY = STFT(n_fft=128, hop=48)


def add_noise(wave: np.ndarray, start: int) -> np.ndarray:
    """Two draws by position in the front end's domain, one of them scaled by what is there."""
    x = NOISY.encode(torch.from_numpy(wave)[None])
    noise = PositionNoise([7], offset=start // NOISY.hop)
    x = x + 0.3 * noise(x) * x.abs() + 0.1 * noise(x)
    return NOISY.decode(x, wave.shape[1])[0].numpy()


@pytest.mark.parametrize("total", [100, 999, 4000, 4001, 12345])
@pytest.mark.parametrize("overlap", [0, 100, 480])
def test_noise_by_position_is_the_noise_of_one_go(total, overlap):
    tape = Tape(sound(total, 2))
    chunked = tape.run(add_noise, segment=2000, context=256, overlap=overlap, align=NOISY.hop)
    np.testing.assert_allclose(chunked, add_noise(tape.wave, 0), rtol=0, atol=1e-6)
    assert total <= 2000 or len(tape.calls) > 1


def test_noise_by_position_needs_aligned_starts():
    tape = Tape(sound(6000))
    chunked = tape.run(add_noise, segment=2000, context=263)
    assert np.abs(chunked - add_noise(tape.wave, 0))[:, 2000:].mean() > 0.01


def test_a_process_may_work_in_place():
    def double(wave, start):
        wave *= 2
        return wave

    tape = Tape(sound(1000))
    np.testing.assert_array_equal(tape.run(double, segment=200, context=30, overlap=20), 2 * tape.wave)


@pytest.mark.parametrize("total", [1, 2, 999, 1000])
def test_what_fits_into_a_segment_is_one_call(total):
    tape = Tape(sound(total))
    tape.run(same, segment=1000, context=100, overlap=50, align=7)
    assert tape.calls == [(0, total)]


def test_what_is_held_does_not_grow_with_the_recording():
    held = []
    for total in (10_000, 100_000, 1_000_000):
        tape = Tape(np.zeros((1, total), np.float32))
        tape.run(same, segment=4000, context=500, overlap=300, align=160)
        held.append(tape.most_held)
    assert held[0] == held[1] == held[2] <= 4000


@pytest.mark.parametrize("fade", ["cosine", "linear"])
def test_the_cross_fade_is_equal_gain_and_goes_over_steadily(fade):
    plan = Chunking(100, overlap=40, fade=fade)
    rising = plan.weights()
    assert (np.diff(rising) > 0).all()
    np.testing.assert_allclose(rising + rising[::-1], 1, atol=1e-6)
    tape = Tape(np.zeros((1, 160), np.float32))
    levels = tape.run(lambda wave, start: np.full_like(wave, 1.0 if start else 0.0), segment=100, overlap=40, fade=fade)
    np.testing.assert_allclose(levels[0], np.concatenate([np.zeros(60), rising, np.ones(60)]), atol=1e-7)


def test_progress_counts_the_pieces():
    seen = []
    tape = Tape(sound(950))
    run_chunked(same, tape.read, tape.write, 950, 300, 50, 0, progress=lambda done, count: seen.append((done, count)))
    assert seen == [(k, 5) for k in range(1, 6)]


@pytest.mark.parametrize(
    ("chunking", "words"),
    [
        ({"segment": 10, "context": 5}, "aligned: 11 samples, got 10"),
        ({"segment": 100, "overlap": 49, "align": 16}, "aligned: 113 samples, got 100"),
        ({"segment": 100, "context": -1}, ">= 0"),
        ({"segment": 100, "align": 0}, "align >= 1"),
        ({"segment": 100, "fade": "square"}, "cosine or linear, got 'square'"),
    ],
)
def test_a_plan_that_cannot_work_says_what_would(chunking, words):
    with pytest.raises(ValueError, match=words):
        run_chunked(same, lambda n: np.zeros((1, n), np.float32), lambda block: None, 1000, **chunking)


def test_wrong_results_and_short_recordings_are_errors():
    tape = Tape(sound(500))
    with pytest.raises(ValueError, match=r"expected a result of 200 samples like the chunk, got shape \(1, 199\)"):
        tape.run(lambda wave, start: wave[:, 1:], segment=200)
    with pytest.raises(InputError, match="ended early: expected 200 more samples, got 100"):
        run_chunked(same, Tape(sound(500)).read, lambda block: None, 600, 200)
    with pytest.raises(InputError, match="at least one sample"):
        run_chunked(same, tape.read, tape.write, 0, 200)


# -- sources that change places -----------------------------------------------------------------------------------


def test_sources_that_a_model_returns_in_any_order_keep_their_place():
    n, sources = 8000, np.random.default_rng(0).standard_normal((3, 8000)).astype(np.float32)
    stereo = np.stack([sources, 0.5 * sources], axis=1).reshape(6, n)  # rows: source by source, two channels each
    shuffle = np.random.default_rng(1)

    def separate(wave, start):
        piece = stereo[:, start : start + wave.shape[1]].reshape(3, 2, -1)
        return piece[shuffle.permutation(3)].reshape(6, -1)

    tape, follow = Tape(np.zeros((2, n), np.float32)), Follower(num_sources=3)
    result = tape.run(separate, segment=1000, context=50, overlap=50, match=follow)
    order = [int(np.abs(result[2 * s, :100] - stereo[::2, :100]).sum(axis=1).argmin()) for s in range(3)]
    np.testing.assert_array_equal(result, stereo.reshape(3, 2, n)[order].reshape(6, n))
    assert sorted(order) == [0, 1, 2]
    assert (len(follow.joins), follow.doubts) == (len(tape.calls) - 1, [])


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_order_of_faint_sources_is_found_beside_a_loud_one_with_a_common_part(order):
    rng = np.random.default_rng(0)
    loudness = np.array([[1.0], [0.01], [0.001]])
    earlier = (loudness * rng.standard_normal((3, 400)) + rng.standard_normal(400)).astype(np.float32)
    later = (earlier + 2e-4 * rng.standard_normal((3, 400))).astype(np.float32)
    found, sure = match_sources(earlier, later[list(order)], 3)
    assert [order[k] for k in found] == [0, 1, 2]
    assert sure > 0.9


def test_sources_that_have_swapped_half_way_are_matched_without_being_sure():
    earlier = sound(1000, 2)
    later = earlier.copy()
    later[:, 560:] = earlier[::-1, 560:]
    order, sure = match_sources(earlier, later, 2)
    assert order == [0, 1]
    assert 0 <= sure < Follower.SURE


def test_one_source_alone_is_sure():
    assert match_sources(sound(10), sound(10), 1) == ([0], 1)


@pytest.mark.parametrize("kind", ["silent", "alike", "faint", "unrelated"])
def test_joins_where_sources_cannot_be_told_apart_are_noted(kind):
    there, rng = sound(4000, 2), np.random.default_rng(3)
    joint = np.zeros(4000, bool)
    joint[1400:2400] = True  # around the second join, at 1800

    def separate(wave, start):
        piece, inside = there[:, start : start + wave.shape[1]].copy(), joint[start : start + wave.shape[1]]
        if kind == "unrelated":
            piece[:, inside] = rng.standard_normal((2, inside.sum()))
        else:
            piece[:, inside] = {"silent": 0.0, "alike": piece[:1, inside], "faint": 1e-4 * piece[:, inside]}[kind]
        return piece

    tape, follow = Tape(np.zeros((1, 4000), np.float32)), Follower(2)
    tape.run(follow.listen(separate), segment=1200, context=150, match=follow)
    assert follow.doubts == [2]
    assert Chunking(1200, 150).join(2) == 1950
    assert len(follow.joins) == len(tape.calls) - 1


def test_sources_that_cannot_be_told_apart_stay():
    assert match_sources(np.zeros((2, 100), np.float32), np.zeros((2, 100), np.float32), 2) == ([0, 1], 0.0)


def test_a_match_must_name_each_row_once():
    with pytest.raises(ValueError, match=r"each of 2 rows once, got \[0, 0\]"):
        Tape(sound(500, 2)).run(same, segment=200, match=lambda earlier, later: [0, 0])


# -- files --------------------------------------------------------------------------------------------------------

PLAN = {"segment": 6000, "context": 400, "overlap": 200, "align": 160}


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("n", [1, 2, 5999, 50_001])
def test_a_file_keeps_its_length_rate_channels_and_level(tmp_path, rate, n):
    wave = resample(sound(n, 2), 8000, 7000)[:, :n] if n > 10 else sound(n, 2)  # below the model's band
    n = wave.shape[1]
    audio.write(tmp_path / "in.wav", wave, rate, subtype="FLOAT")
    with AudioReader(tmp_path / "in.wav") as reader, AudioWriter(tmp_path / "out.wav", rate, 2, "FLOAT") as writer:
        stream(reader, writer, same, 16000, **PLAN)
    result, result_rate = audio.read(tmp_path / "out.wav")
    assert (result.shape, result_rate) == ((2, n), rate)
    if rate == 16000:
        np.testing.assert_array_equal(result, wave)
    else:
        there_and_back = resample(resample(wave, rate, 16000), 16000, rate)
        length = min(n, there_and_back.shape[1])
        np.testing.assert_allclose(result[:, :length], there_and_back[:, :length], atol=1e-6)


def test_another_rate_of_the_writer_keeps_the_duration(tmp_path):
    audio.write(tmp_path / "in.wav", sound(44100), 44100)
    with AudioReader(tmp_path / "in.wav") as reader, AudioWriter(tmp_path / "out.wav", 16000, 1) as writer:
        stream(reader, writer, same, 16000, **PLAN)
    assert audio.info(tmp_path / "out.wav").frames == 16000


def test_each_source_goes_to_its_own_file(tmp_path):
    audio.write(tmp_path / "in.wav", sound(20_000, 2), 22050, subtype="FLOAT")
    names = [tmp_path / f"s{s}.wav" for s in range(3)]
    writers = [AudioWriter(name, 22050, 2, "FLOAT") for name in names]
    with AudioReader(tmp_path / "in.wav") as reader, writers[0], writers[1], writers[2]:
        stream(reader, writers, lambda wave, start: np.concatenate([wave, 2 * wave, -wave]), 16000, **PLAN)
    first, second, third = (audio.read(name)[0] for name in names)
    assert first.shape == (2, 20_000)
    np.testing.assert_allclose(second, 2 * first, atol=1e-6)
    np.testing.assert_allclose(third, -first, atol=1e-6)


def test_channels_can_be_averaged_to_one_on_the_way(tmp_path):
    audio.write(tmp_path / "in.wav", sound(20_000, 3), 16000, subtype="FLOAT")
    with AudioReader(tmp_path / "in.wav") as reader, AudioWriter(tmp_path / "out.wav", 16000, 1, "FLOAT") as writer:
        stream(Averaged(reader), writer, same, 16000, **PLAN)
    np.testing.assert_allclose(audio.read(tmp_path / "out.wav")[0], sound(20_000, 3).mean(0, keepdims=True), atol=1e-7)


def test_rows_that_cannot_be_dealt_out_are_an_error(tmp_path):
    audio.write(tmp_path / "in.wav", sound(100), 16000)
    with AudioReader(tmp_path / "in.wav") as reader, pytest.raises(ValueError, match=r"1 rows .* evenly to 2 writers"):
        stream(reader, [AudioWriter(tmp_path / f"{s}.wav", 16000, 1) for s in range(2)], same, 16000, **PLAN)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_run_that_stops_half_way_leaves_no_output(tmp_path, error):
    audio.write(tmp_path / "in.wav", sound(30_000), 16000)

    def stops(wave, start):
        if start > 10_000:
            raise error
        return wave

    with (
        pytest.raises(error),
        AudioReader(tmp_path / "in.wav") as reader,
        AudioWriter(tmp_path / "out.wav", 16000, 1) as writer,
    ):
        stream(reader, writer, stops, 16000, **PLAN)
    assert [p.name for p in tmp_path.iterdir()] == ["in.wav"]


def test_a_recording_that_is_cut_off_leaves_no_output(tmp_path):
    audio.write(tmp_path / "in.flac", sound(30_000), 16000)
    data = (tmp_path / "in.flac").read_bytes()
    (tmp_path / "in.flac").write_bytes(data[: len(data) // 2])
    with (
        pytest.raises(InputError, match="truncated"),
        AudioReader(tmp_path / "in.flac") as reader,
        AudioWriter(tmp_path / "out.wav", 16000, 1) as writer,
    ):
        stream(reader, writer, same, 16000, **PLAN)
    assert [p.name for p in tmp_path.iterdir()] == ["in.flac"]


def test_levels_are_those_of_the_whole_recording(tmp_path):
    wave = sound(50_000, 2) * np.array([[1.0], [0.3]], np.float32)
    audio.write(tmp_path / "in.wav", wave, 22050, subtype="FLOAT")
    with AudioReader(tmp_path / "in.wav") as reader:
        level = measure(reader, 16000)
    whole = resample(wave, 22050, 16000)
    np.testing.assert_allclose(level.peak, np.abs(whole).max(axis=1), rtol=1e-5)
    np.testing.assert_allclose(level.rms, np.sqrt((whole.astype(np.float64) ** 2).mean(axis=1)), rtol=1e-5)
