"""Files in and out: what is read is what was written, and what cannot be used is said in one sentence."""

import importlib.util
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fromnoise.data import audio
from fromnoise.data.audio import AudioReader, AudioWriter, InputError, Resampler, keep_subtype, resample

HAS_AV = importlib.util.find_spec("av") is not None


def sound(n: int, channels: int = 1, rate: int = 16000) -> np.ndarray:
    t = np.arange(n) / rate
    phases = np.arange(channels)[:, None]
    return (0.4 * np.sin(2 * np.pi * 440 * t + phases) + 0.2 * np.sin(2 * np.pi * 97 * t)).astype(np.float32)


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# -- lengths and values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".w64", ".caf"])
@pytest.mark.parametrize("n", [1, 575, 1153, 20011])
def test_a_file_comes_back_with_exactly_the_samples_written(tmp_path, suffix, n):
    path = tmp_path / f"ä sound{suffix}"
    audio.write(path, sound(n, 2, 48000), 48000)
    wave, rate = audio.read(path)
    assert (wave.shape, wave.dtype, rate) == ((2, n), np.float32, 48000)
    assert audio.info(path).frames == n
    if n > 10000:  # codecs are near; 16 bits are off by half a step of 2^-15 at most
        tolerance = 0.1 if suffix in (".ogg", ".opus", ".mp3") else 2.0**-16 + 1e-7
        assert np.abs(wave - sound(n, 2, 48000))[:, 2000:-500].max() < tolerance


def test_blocks_and_jumps_give_the_samples_of_one_read(tmp_path):
    rng = np.random.default_rng(0)
    for suffix in (".wav", ".flac", ".ogg", ".opus", ".mp3"):
        path = tmp_path / f"x{suffix}"
        audio.write(path, (0.1 * rng.standard_normal((1, 70000))).astype(np.float32), 48000)
        whole, _ = audio.read(path)
        with AudioReader(path) as reader:
            np.testing.assert_allclose(np.concatenate(list(reader.blocks(777)), axis=1), whole, atol=1e-6)
            for position in (10007, 50, 60001, 5000, 0, 69800, 69999):
                reader.seek(position)
                np.testing.assert_allclose(reader.read(150), whole[:, position : position + 150], atol=1e-6)
                np.testing.assert_allclose(reader.read(3000), whole[:, position + 150 : position + 3150], atol=1e-6)
            reader.seek(70000)
            assert reader.read(10).shape == (1, 0)
            with pytest.raises(ValueError, match=r"outside 0\.\.70000"):
                reader.seek(70001)


def test_info_tells_what_the_file_is(tmp_path):
    audio.write(tmp_path / "x.flac", sound(8000, 2), 16000, subtype="PCM_24")
    info = audio.info(tmp_path / "x.flac")
    assert (info.sample_rate, info.channels, info.frames, info.seconds) == (16000, 2, 8000, 0.5)
    assert (info.format, info.subtype) == ("FLAC", "PCM_24")


@pytest.mark.parametrize(
    ("suffix", "given", "kept"),
    [
        (".wav", "PCM_24", "PCM_24"),
        (".wav", "FLOAT", "FLOAT"),
        (".flac", "FLOAT", "PCM_24"),
        (".flac", "PCM_U8", "PCM_16"),
        (".wav", "VORBIS", "PCM_16"),
        (".wav", "IMA_ADPCM", "PCM_16"),
        (".ogg", "PCM_24", "VORBIS"),
        (".mp3", "FLOAT", "MPEG_LAYER_III"),
    ],
)
def test_the_subtype_is_kept_where_the_format_has_it(tmp_path, suffix, given, kept):
    path = tmp_path / f"x{suffix}"
    assert keep_subtype(path, given) == kept
    audio.write(path, sound(100), 16000, subtype=kept)
    assert soundfile.info(path).subtype == kept


# -- too loud -----------------------------------------------------------------------------------------------------

LOUD = np.array([[0.5, 2.0, -1.0, -2.5]], np.float32)


@pytest.mark.parametrize(
    ("clip", "subtype", "expected"),
    [
        ("rescale", "PCM_16", LOUD / 2.5),
        ("clamp", "PCM_16", LOUD.clip(-1, 1)),
        ("rescale", "FLOAT", LOUD),
        ("clamp", "FLOAT", LOUD),
        ("none", "FLOAT", LOUD),
    ],
)
def test_too_loud_is_turned_down_or_cut_only_where_the_format_has_a_full_scale(tmp_path, clip, subtype, expected):
    audio.write(tmp_path / "x.wav", LOUD, 8000, subtype=subtype, clip=clip)
    np.testing.assert_allclose(audio.read(tmp_path / "x.wav")[0], expected, atol=4e-5)  # 1 is stored as 1 - 2^-15
    assert leftovers(tmp_path) == ["x.wav"]


def test_a_quiet_result_is_never_turned_up(tmp_path):
    audio.write(tmp_path / "x.wav", LOUD / 10, 8000, clip="rescale")
    np.testing.assert_allclose(audio.read(tmp_path / "x.wav")[0], LOUD / 10, atol=1.6e-5)


def test_rescale_of_a_stream_uses_one_gain_for_the_whole_file(tmp_path):
    wave = sound(150_000, 2)
    wave[0, -1] = 4.0
    with AudioWriter(tmp_path / "x.wav", 16000, 2, "PCM_24", clip="rescale") as writer:
        for start in range(0, 150_000, 1000):
            writer.write(wave[:, start : start + 1000])
    np.testing.assert_allclose(audio.read(tmp_path / "x.wav")[0], wave / 4, atol=2e-7)
    assert writer.peak == 4.0


def test_torch_waves_are_written_as_numpy_ones(tmp_path):
    audio.write(tmp_path / "x.wav", torch.from_numpy(sound(500)), 8000, subtype="FLOAT")
    np.testing.assert_array_equal(audio.read(tmp_path / "x.wav")[0], sound(500))


# -- nothing or everything ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("clip", ["clamp", "rescale"])
def test_a_failed_run_leaves_the_old_file_and_nothing_else(tmp_path, error, clip):
    path = tmp_path / "x.wav"
    path.write_bytes(b"old")
    with pytest.raises(error), AudioWriter(path, 8000, 1, clip=clip) as writer:
        writer.write(sound(5000))
        raise error
    assert leftovers(tmp_path) == ["x.wav"]
    assert path.read_bytes() == b"old"


def test_an_abandoned_writer_leaves_nothing(tmp_path):
    writer = AudioWriter(tmp_path / "x.wav", 8000, 1)
    writer.write(sound(100))
    del writer
    assert leftovers(tmp_path) == []


def test_a_name_that_cannot_be_taken_leaves_nothing(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(InputError, match=r"x\.wav: cannot be written: no"):
        audio.write(tmp_path / "x.wav", sound(100), 8000)
    assert leftovers(tmp_path) == []


def test_the_input_may_be_overwritten_while_it_is_read(tmp_path):
    path = tmp_path / "x.wav"
    audio.write(path, sound(9000), 8000, subtype="FLOAT")
    with AudioReader(path) as reader, AudioWriter(path, 8000, 1, "FLOAT") as writer:
        for block in reader.blocks(1000):
            writer.write(-block)
    np.testing.assert_array_equal(audio.read(path)[0], -sound(9000))


def test_the_result_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    audio.write(tmp_path / "x.wav", sound(10), 8000)
    assert (tmp_path / "x.wav").stat().st_mode == (tmp_path / "plain").stat().st_mode


# -- unusable input -----------------------------------------------------------------------------------------------


def _with_rate(path: Path, rate: int) -> None:
    soundfile.write(path, sound(100)[0], 16000)
    data = bytearray(path.read_bytes())
    data[24:28] = struct.pack("<I", rate)
    path.write_bytes(data)


def _cut(path: Path, keep: float, **options) -> None:
    rng = np.random.default_rng(1)
    soundfile.write(path, 0.1 * rng.standard_normal(48000), 48000, **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


BAD = {
    "missing.wav": (lambda p: None, "no such file"),
    "folder.wav": (lambda p: p.mkdir(), "is a folder"),
    "empty.wav": (lambda p: p.write_bytes(b""), "empty"),
    "text.wav": (lambda p: p.write_text("hello " * 99), "not audio"),
    "text.mp3": (lambda p: p.write_text("hello " * 99), "not audio"),
    "header.wav": (lambda p: _cut(p, 0.0003), "not audio"),
    "cut.wav": (lambda p: _cut(p, 0.5), "truncated"),
    "cut.flac": (lambda p: _cut(p, 0.5), "truncated"),
    "cut.ogg": (lambda p: _cut(p, 0.6), "truncated"),
    "cut.opus": (lambda p: _cut(p, 0.7, format="OGG", subtype="OPUS"), "truncated"),
    "stub.opus": (lambda p: _cut(p, 0.1, format="OGG", subtype="OPUS"), "not audio"),
    "cut.mp3": (lambda p: _cut(p, 0.5), "truncated"),
    "none.wav": (lambda p: soundfile.write(p, np.zeros(0), 16000), "no samples"),
    "nan.wav": (lambda p: soundfile.write(p, np.array([0, np.nan]), 16000, subtype="FLOAT"), "NaN or infinite"),
    "inf.wav": (lambda p: soundfile.write(p, np.array([0, np.inf]), 16000, subtype="FLOAT"), "NaN or infinite"),
    "slow.wav": (lambda p: _with_rate(p, 1), "from 100 to 768000 Hz, got 1 Hz"),
    "fast.wav": (lambda p: _with_rate(p, 1_000_000), "from 100 to 768000 Hz, got 1000000 Hz"),
}


@pytest.mark.parametrize("name", BAD)
def test_unusable_input_is_named_in_one_sentence(tmp_path, name):
    make, words = BAD[name]
    make(tmp_path / name)
    with pytest.raises(InputError, match=words) as caught:
        audio.read(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path):
    audio.write(tmp_path / "x.wav", sound(10), 8000)
    (tmp_path / "x.wav").chmod(0)
    with pytest.raises(InputError, match="cannot be opened"):
        audio.read(tmp_path / "x.wav")


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes")
def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "x.wav")
    with pytest.raises(InputError, match="not a regular file"):
        audio.read(tmp_path / "x.wav")


def test_a_wav_saved_from_a_pipe_has_no_length_in_its_header_and_is_read_all_the_same(tmp_path):
    soundfile.write(tmp_path / "x.wav", sound(3000)[0], 16000)
    data = bytearray((tmp_path / "x.wav").read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    (tmp_path / "x.wav").write_bytes(data)
    assert audio.read(tmp_path / "x.wav")[0].shape == (1, 3000)


def test_a_flac_saved_from_a_pipe_is_refused_with_the_remedy(tmp_path):
    soundfile.write(tmp_path / "x.flac", sound(3000)[0], 16000)
    data = bytearray((tmp_path / "x.flac").read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    (tmp_path / "x.flac").write_bytes(data)
    with pytest.raises(InputError, match=r"does not say how long it is.*convert it to wav"):
        audio.read(tmp_path / "x.flac")


def test_a_container_of_others_names_the_extra_that_reads_it(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (tmp_path / "x.m4a").write_bytes(b"\0\0\0\x1cftypM4A " + bytes(100))
    (tmp_path / "x.webm").write_bytes(b"\x1aE\xdf\xa3" + bytes(100))
    for name in ("x.m4a", "x.webm"):
        with pytest.raises(InputError, match=r"pip install 'fromnoise\[formats\]'"):
            audio.read(tmp_path / name)


@pytest.mark.skipif(not HAS_AV, reason="needs the extra formats")
@pytest.mark.parametrize(("name", "codec", "extra"), [("x.m4a", "aac", 96), ("x.webm", "libopus", 0)])
def test_containers_are_read_through_pyav(tmp_path, name, codec, extra):
    import av

    n = 48123
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=48000, layout="stereo")
        stream.bit_rate = 192000
        frame = av.AudioFrame.from_ndarray(sound(n, 2, 48000), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = 48000, 0
        for part in (frame, None):
            for packet in stream.encode(part):
                container.mux(packet)
    wave, rate = audio.read(tmp_path / name)
    assert rate == 48000
    assert n <= wave.shape[1] <= n + extra  # AAC states its length in milliseconds
    assert np.abs(wave[:, 2000:40000] - sound(n, 2, 48000)[:, 2000:40000]).max() < 0.1
    (tmp_path / "text.m4a").write_bytes(b"\0\0\0\x1cftypM4A " + bytes(100))
    with pytest.raises(InputError, match="not audio"):
        audio.read(tmp_path / "text.m4a")


# -- unusable output ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rate", "channels", "options", "words"),
    [
        ("x.opus", 44100, 1, {}, "8000, 12000, 16000, 24000, 48000 Hz only, got 44100 Hz; write .flac or .wav"),
        ("x.mp3", 96000, 1, {}, "44100, 48000 Hz only, got 96000 Hz"),
        ("x.ogg", 384000, 1, {}, "at most 192000 Hz"),
        ("x.flac", 768000, 1, {}, "at most 655350 Hz"),
        ("x.mp3", 44100, 3, {}, "1 to 2 channels, got 3"),
        ("x.flac", 44100, 9, {}, "1 to 8 channels, got 9"),
        ("x.wav", 20, 1, {}, "from 100 to 768000 Hz, got 20 Hz"),
        ("x.xyz", 16000, 1, {}, r"cannot write \.xyz; expected one of \.wav, \.flac"),
        ("x", 16000, 1, {}, "a name without suffix"),
        ("x.flac", 16000, 1, {"subtype": "FLOAT"}, "FLAC cannot store FLOAT; choose one of .*PCM_24"),
        ("none/x.wav", 16000, 1, {}, "no such folder"),
        ("x.wav", 16000, 1, {"clip": "louder"}, "rescale, clamp or none, got 'louder'"),
    ],
)
def test_what_a_format_cannot_hold_is_said_before_anything_is_written(tmp_path, name, rate, channels, options, words):
    with pytest.raises(InputError, match=words):
        AudioWriter(tmp_path / name, rate, channels, **options)
    assert leftovers(tmp_path) == []


def test_a_folder_is_no_output_file(tmp_path):
    (tmp_path / "x.wav").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        AudioWriter(tmp_path / "x.wav", 16000, 1)


def test_results_that_are_not_numbers_are_refused(tmp_path):
    with pytest.raises(InputError, match="NaN or infinite"):
        audio.write(tmp_path / "x.wav", np.array([[0, np.nan]], np.float32), 16000)
    assert leftovers(tmp_path) == []


def test_a_wav_beyond_4_gib_is_refused_with_the_formats_that_hold_it(tmp_path):
    with pytest.raises(InputError, match=r"4 GiB.*\.flac or \.w64"), AudioWriter(tmp_path / "x.wav", 8000, 2) as writer:
        writer.written = 1 << 30
        writer.write(sound(1000, 2))
    assert leftovers(tmp_path) == []


def test_a_writer_takes_its_own_channels_and_nothing_after_the_end(tmp_path):
    with AudioWriter(tmp_path / "x.wav", 8000, 2) as writer:
        writer.write(sound(10, 2))
        with pytest.raises(ValueError, match="expected 2 channels, got 1"):
            writer.write(sound(10))
    writer.close()
    with pytest.raises(ValueError, match="already closed"):
        writer.write(sound(10, 2))
    assert audio.info(tmp_path / "x.wav").frames == 10


# -- sample rates -------------------------------------------------------------------------------------------------

RATES = st.sampled_from([8000, 11025, 16000, 22050, 24000, 44100, 48000])


@settings(max_examples=40, deadline=None)
@given(RATES, RATES, st.integers(1, 5000), st.lists(st.integers(1, 900), min_size=1, max_size=6), st.integers(1, 3))
def test_resampling_in_pieces_equals_one_go_and_the_length_is_exact(a, b, n, sizes, channels):
    wave = sound(n, channels, a)
    whole = resample(wave, a, b)
    assert whole.shape == (channels, max(1, int(n * b / a + 0.5)))
    resampler, pieces, start = Resampler(a, b, channels), [], 0
    while start < n:
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(resampler.push(wave[:, start : start + size]))
        start += size
    pieces.append(resampler.finish())
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, atol=1e-6)


@pytest.mark.parametrize("length", [0, 1, 2000, 2177, 2179, 2600])
def test_a_wanted_length_is_met_exactly(length):
    resampler = Resampler(16000, 44100, 1, length)
    given = [resampler.push(sound(790)), resampler.finish()]
    joined = np.concatenate(given, axis=1)
    whole = resample(sound(790), 16000, 44100)
    assert joined.shape == (1, length)
    np.testing.assert_allclose(joined[:, :2000], whole[:, : min(length, 2000)], atol=1e-6)


def test_a_tone_keeps_its_place_and_level():
    n = 16000
    there = resample(sound(n), 16000, 44100)
    t = np.arange(there.shape[1]) / 44100
    expected = 0.4 * np.sin(2 * np.pi * 440 * t) + 0.2 * np.sin(2 * np.pi * 97 * t)
    inside = slice(2000, -2000)  # the ends ring: the wave stops abruptly there
    np.testing.assert_allclose(there[0, inside], expected[inside], atol=2e-4)
    back = resample(there, 44100, 16000)
    np.testing.assert_allclose(back[0, 800:-800], sound(n)[0, 800:-800], atol=2e-4)


def test_torch_and_other_shapes_and_types_come_back_as_they_are():
    wave = np.stack([sound(400, 3), sound(400, 3)])
    whole = resample(wave, 16000, 8000)
    assert whole.shape == (2, 3, 200)
    tensor = resample(torch.from_numpy(wave), 16000, 8000)
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_array_equal(tensor.numpy(), whole)
    double = resample(wave.astype(np.float64), 16000, 8000)
    assert double.dtype == np.float64
    np.testing.assert_allclose(double, whole, atol=1e-6)
    half = resample(torch.from_numpy(wave).to(torch.bfloat16), 16000, 8000)
    assert half.dtype == torch.bfloat16
    assert resample(wave, 16000, 16000) is wave


def test_rates_that_no_sound_has_are_refused():
    with pytest.raises(InputError, match="got 1 Hz"):
        resample(sound(10), 1, 16000)
    with pytest.raises(InputError, match="got 1000000 Hz"):
        Resampler(16000, 1_000_000, 1)


def test_the_interpreter_ends_cleanly_with_a_writer_open(tmp_path):
    code = (
        "import sys, numpy as np; from fromnoise.data.audio import AudioWriter; "
        "w = AudioWriter(sys.argv[1], 8000, 1); w.write(np.zeros((1, 99), np.float32))"
    )
    root = Path(audio.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.wav")], cwd=root, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert leftovers(tmp_path) == []
