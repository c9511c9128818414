"""Mixtures with known sources: layouts, lists and what is wrong with them, crops for training, and dynamic mixing."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from fromnoise.data import audio
from fromnoise.data.check import check
from fromnoise.data.mixtures import rms
from fromnoise.data.separated import Separated
from fromnoise.data.sources import Mixture, Part, find_mixtures, has_mixtures
from fromnoise.data.synthetic import SyntheticVoices
from fromnoise.data.voices import LEVEL, Voices
from fromnoise.frontends.resample import resample
from fromnoise.types import InputError

RATE = 8000
PACK = Path(__file__).parents[3] / "shared" / "data" / "separate"


def sound(path: Path, seconds: float = 0.5, rate: int = RATE, seed: int = 0, level: float = 0.1) -> np.ndarray:
    """Write noise; the same seed gives the same samples."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = level * np.random.default_rng(seed).standard_normal(round(seconds * rate)).astype(np.float32)
    audio.write(path, wave[None], rate, subtype="FLOAT")
    return wave


def set_of(folder: Path, names: list[str], sources: int = 2, seconds: float = 0.5, rate: int = RATE) -> Path:
    """s1, s2, ... and mix, which is twice their sum, so that it can be told from it."""
    for i, name in enumerate(names):
        waves = [sound(folder / f"s{k + 1}/{name}.wav", seconds, rate, seed=10 * i + k) for k in range(sources)]
        (folder / "mix").mkdir(exist_ok=True)
        audio.write(folder / f"mix/{name}.wav", 2 * np.sum(waves, axis=0)[None], rate, subtype="FLOAT")
    return folder


def table(path: Path, *rows: dict[str, object]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


# Folders.


@pytest.mark.parametrize(
    ("inside", "split", "mode"),
    [
        ("2speakers/wav8k/max/tr", "train", "max"),
        ("2speakers/wav8k/min/cv", "valid", "min"),
        ("2speakers/wav8k/min/tt", "test", "min"),
        ("wav8k/max/tt", "tt", "max"),
        ("Libri2Mix/wav8k/max/train-360", "train", "max"),
        ("Libri2Mix/wav8k/min/train-100", "train-100", "min"),
        ("wav8k/max/dev", "valid", "max"),
        ("2speakers/wav8k/max/test", "test", "max"),
        ("tt", "test", "min"),
        ("", "test", "min"),
    ],
)
def test_a_set_is_found_in_every_layout_and_from_every_folder_on_the_way(tmp_path: Path, inside, split, mode):
    set_of(tmp_path / inside, ["b", "a"])
    parts = inside.split("/") if inside else []
    for depth in range(len(parts) + 1):
        found = find_mixtures(tmp_path.joinpath(*parts[:depth]), split, mode, RATE)
        assert [mixture.name for mixture in found] == ["a", "b"]
        assert found[1].parts[1].path == tmp_path / inside / "s2/b.wav"


def test_the_wanted_rate_mode_and_number_of_speakers_choose_the_set(tmp_path: Path):
    for speakers in (2, 3):
        for rate in (8, 16):
            for mode in ("min", "max"):
                set_of(tmp_path / f"{speakers}speakers/wav{rate}k/{mode}/tt", ["a"], speakers, rate=1000 * rate)
    for speakers in (2, 3):
        (one,) = find_mixtures(tmp_path, "test", "min", 16000, speakers)
        assert one.parts[0].path == tmp_path / f"{speakers}speakers/wav16k/min/tt/s1/a.wav"
        assert one.load().shape == (speakers, 8000)
    with pytest.raises(InputError, match="holds mixtures of 2 or 3 sources; name one of its folders"):
        find_mixtures(tmp_path, "test", "min", 8000)
    with pytest.raises(InputError, match="expected mixtures of 4 sources, got 2 or 3"):
        find_mixtures(tmp_path, "test", "min", 8000, 4)
    assert has_mixtures(tmp_path, "test") and not has_mixtures(tmp_path, "valid")


def test_a_higher_rate_is_resampled_a_lower_one_and_another_mode_are_refused(tmp_path: Path):
    set_of(tmp_path / "2speakers/wav16k/max/tt", ["a"], rate=16000)
    (one,) = find_mixtures(tmp_path, "test", "max", 8000)
    wave, _ = audio.read(one.parts[0].path)
    np.testing.assert_allclose(one.load()[0], resample(wave[0], 16000, 8000), atol=1e-7)  # float32
    with pytest.raises(InputError, match="has no folder 'min', but max; choose that mode"):
        find_mixtures(tmp_path, "test", "min", 8000)
    with pytest.raises(InputError, match="expected sounds of 32000 Hz or more, got 16000 Hz"):
        find_mixtures(tmp_path, "test", "max", 32000)


def test_missing_partners_are_all_named_and_foreign_folders_refused(tmp_path: Path):
    set_of(tmp_path / "x", ["a", "b", "c"])
    (tmp_path / "x/s1/a.wav").unlink()
    (tmp_path / "x/s2/b.wav").unlink()
    with pytest.raises(InputError, match=r"2 problems, nothing was run:\n  s1/ has no a;\n  s2/ has no b"):
        find_mixtures(tmp_path / "x")
    table(tmp_path / "some.csv", {"file": "a"})
    with pytest.raises(InputError, match=r"expected folders s1/ and s2/.* it holds lists, name one of them: some\.csv"):
        find_mixtures(tmp_path)
    with pytest.raises(InputError, match="no such folder or list of mixtures"):
        find_mixtures(tmp_path / "nowhere")


def test_recorded_mixtures_are_used_when_asked_for(tmp_path: Path):
    set_of(tmp_path, ["a"])
    (plain,), (noisy,) = find_mixtures(tmp_path), find_mixtures(tmp_path, mix="mix")
    sources = plain.load()
    np.testing.assert_allclose(plain.mixture(sources), sources.sum(0), atol=1e-7)
    np.testing.assert_allclose(noisy.mixture(sources), 2 * sources.sum(0), atol=1e-7)
    with pytest.raises(InputError, match="has no folder 'mix_both' with recorded mixtures"):
        find_mixtures(tmp_path, mix="mix_both")


def test_pairs_are_speech_and_what_was_added_to_it(tmp_path: Path):
    clean = sound(tmp_path / "test/clean/p1_1.wav", seed=1)
    noise = np.random.default_rng(2).standard_normal(len(clean)).astype(np.float32) * 0.1
    (tmp_path / "test/noisy").mkdir()
    audio.write(tmp_path / "test/noisy/p1_1.wav", (clean + noise)[None], RATE, subtype="FLOAT")
    (one,) = find_mixtures(tmp_path, "test")
    np.testing.assert_allclose(one.load(), [clean, noise], atol=1e-7)  # float32 sums


# Timelines and lists.


def test_sources_lie_where_the_list_says_at_any_rate(tmp_path: Path):
    a, b = sound(tmp_path / "a.wav", 0.5, 16000, 1), sound(tmp_path / "b.wav", 0.375, 16000, 2)
    row = {"id": "m", "file_a": "a.wav", "offset_a_s": 0, "gain_a": 2, "file_b": "b.wav", "offset_b_s": 0.25}
    row |= {"gain_b": -0.5, "min_start_s": 0.25, "min_end_s": 0.5, "max_len_s": 0.625}
    path = table(tmp_path / "list.csv", row)
    for rate in (16000, 8000):
        (whole,), (part,) = (find_mixtures(path, mode=mode, sample_rate=rate) for mode in ("max", "min"))
        line = np.zeros((2, round(0.625 * rate)), np.float32)
        first, second = resample(a, 16000, rate), resample(b, 16000, rate)
        line[0, : len(first)] = 2 * first
        line[1, rate // 4 :] = -0.5 * second
        np.testing.assert_allclose(whole.load(), line, atol=1e-6)  # float32
        assert np.array_equal(part.load(), whole.load()[:, rate // 4 : rate // 2])
    assert (whole.name, whole.files()) == ("m", [tmp_path / "a.wav", tmp_path / "b.wav"])


def test_without_times_the_modes_follow_the_lengths(tmp_path: Path):
    sound(tmp_path / "a.wav", 0.5, seed=1)
    sound(tmp_path / "b.wav", 0.25, seed=2)
    path = table(tmp_path / "l.csv", {"file_a": "a.wav", "file_b": "b.wav", "offset_b_s": 0.125})
    assert find_mixtures(path, mode="max")[0].load().shape == (2, 4000)
    assert find_mixtures(path, mode="min")[0].load().shape == (2, 2000)
    apart = Mixture("m", (Part(tmp_path / "a.wav"), Part(tmp_path / "b.wav", offset_s=1.0)), RATE, "min")
    with pytest.raises(InputError, match="no moment at which all its sources are on; use mode max"):
        apart.load()


def test_librimix_tables_are_lists_too(tmp_path: Path):
    sound(tmp_path / "a.wav", seed=1)
    sound(tmp_path / "b.wav", seed=2)
    audio.write(tmp_path / "noisy.wav", np.full((1, 4000), 0.5, np.float32), RATE, subtype="FLOAT")
    row = {"mixture_ID": "x_y", "mixture_path": "noisy.wav", "source_1_path": "a.wav", "source_2_path": "b.wav"}
    path = table(tmp_path / "l.csv", row)
    (plain,), (noisy,) = find_mixtures(path), find_mixtures(path, mix="mix_both")
    assert (plain.name, plain.recorded) == ("x_y", None)
    np.testing.assert_allclose(noisy.mixture(noisy.load()), 0.5)


def test_all_that_is_wrong_with_a_list_is_said_at_once(tmp_path: Path):
    sound(tmp_path / "a.wav", 0.5)
    sound(tmp_path / "low.wav", 0.5, 4000)
    (tmp_path / "text.wav").write_text("no sound")
    good = {"id": "ok", "file_a": "a.wav", "offset_a_s": 0, "gain_a": 1, "file_b": "a.wav", "offset_b_s": 0}
    good |= {"gain_b": 1, "min_start_s": 0, "min_end_s": 0.5, "max_len_s": 0.5}
    rows = [
        good,
        good | {"file_a": "gone.wav", "gain_a": "loud"},
        good | {"id": "b", "file_b": "low.wav", "offset_b_s": -1},
        good | {"id": "c", "offset_b_s": 0.75},
        good | {"id": "d", "offset_b_s": 0.25},
        good | {"id": "e", "file_a": "", "gain_b": 0, "max_len_s": "nan"},
        good | {"id": "f", "min_start_s": 0.5, "min_end_s": 0.25},
        good | {"id": "g", "file_a": "text.wav", "min_end_s": 0.75},
    ]
    with pytest.raises(InputError) as error:
        find_mixtures(table(tmp_path / "l.csv", *rows), mode="min", sample_rate=RATE)
    lines = str(error.value).splitlines()
    expected = [
        "line 3 (ok): gain_a must be a finite number, got 'loud'",
        "line 3 (ok): has the name of line 2",
        f"line 3 (ok): {tmp_path}/gone.wav: no such file",
        "line 4 (b): offset_b_s=-1.0 must not be negative",
        f"line 4 (b): {tmp_path}/low.wav: expected 8000 Hz or more, got 4000 Hz",
        "line 5 (c): offset_b_s=0.75 lies past the end, max_len_s=0.5",
        f"line 6 (d): {tmp_path}/a.wav: from 0.25 s on, it ends at 0.750 s, past the end max_len_s=0.5",
        "line 7 (e): max_len_s must be a finite number, got 'nan'",
        "line 7 (e): file_a is empty",
        "line 7 (e): gain_b=0 makes a source silent",
        "line 8 (f): min_start_s=0.5 does not lie before min_end_s=0.25",
        "line 9 (g): min_end_s=0.75 lies after max_len_s=0.5",
        f"line 9 (g): {tmp_path}/text.wav",
    ]
    for start in expected:
        assert any(line.strip().startswith(start) for line in lines), start
    assert lines[0] == f"{tmp_path}/l.csv: {len(lines) - 1} problems, nothing was run:"
    assert not any("line 2 " in line for line in lines[1:] if "has the name" not in line)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,speaker\na.wav,x\n", "expected columns file_a, file_b, .*got file, speaker"),
        ("", "got an empty file"),
        ("id,file_a,file_b\n", "holds no mixtures, only the names of its columns"),
    ],
)
def test_tables_of_other_things_are_refused(tmp_path: Path, content: str, message: str):
    (tmp_path / "l.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        find_mixtures(tmp_path / "l.csv")
    (tmp_path / "l.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is no table of text"):
        find_mixtures(tmp_path / "l.csv")


@pytest.mark.skipif(not PACK.is_dir(), reason="needs the data pack ../shared/data/separate")
@pytest.mark.parametrize(("mode", "rate", "suffix"), [("min", 8000, "8k_min"), ("max", 16000, "16k_max")])
def test_lists_of_the_data_pack_give_its_rendered_mixtures(mode, rate: int, suffix: str):
    found = find_mixtures(PACK / "test_mixtures.csv", mode=mode, sample_rate=rate)
    assert len(found) == 60
    rendered = [one for one in found if (PACK / f"rendered/{one.name}_{suffix}_mix.flac").exists()]
    assert len(rendered) == 10
    for one in rendered:
        sources = one.load()
        for name, wave in zip(("s1", "s2", "mix"), (*sources, one.mixture(sources)), strict=True):
            stored, _ = audio.read(PACK / f"rendered/{one.name}_{suffix}_{name}.flac")
            # 16-bit files: half a step, and a float32 rounding of it
            np.testing.assert_allclose(wave, stored[0], rtol=0, atol=0.505 / 32768)
    three = find_mixtures(PACK / "test_mixtures_3spk.csv", mode=mode, sample_rate=rate, speakers=3)
    assert len(three) == 20 and three[0].load().shape[0] == 3


# Training on known sources.


def wsj(root: Path) -> Path:
    set_of(root / "2speakers/wav8k/max/tr", [f"m{i}" for i in range(5)])
    set_of(root / "2speakers/wav8k/max/cv", ["v0", "v1"], seconds=0.75)
    return root


def test_a_pass_shows_every_mixture_once_and_crops_all_sources_alike(tmp_path: Path):
    data = Separated(str(wsj(tmp_path)), seconds=0.125, valid_seconds=0.5, mix="mix")
    items, again = data.train(3), data.train(3)
    whole = [one.load() for one in data.mixtures()[0]]
    seen = []
    for k in range(10):
        item = items[k]
        assert item["sources"].shape == (2, 1000) and item["mixture"].shape == (1, 1000)
        torch.testing.assert_close(item["mixture"], 2 * item["sources"].sum(0, keepdim=True), rtol=0, atol=1e-6)
        assert torch.equal(item["sources"], again[k]["sources"])
        start = item["sources"][:, :4].numpy()
        seen.append(next(i for i, wave in enumerate(whole) if _place(wave, start) is not None))
    assert sorted(seen[:5]) == sorted(seen[5:]) == list(range(5))
    valid = data.valid()
    assert len(valid) == 2
    middle = data.mixtures()[1][0].load()[:, 1000:5000]  # 6000 samples, 4000 kept
    np.testing.assert_array_equal(valid[0]["sources"].numpy(), middle)


def _place(waves: np.ndarray, start: np.ndarray) -> int | None:
    """Where both sources begin so."""
    windows = np.lib.stride_tricks.sliding_window_view(waves, start.shape[1], axis=1)
    (places,) = np.nonzero((windows == start[:, None]).all(axis=(0, 2)))
    return int(places[0]) if len(places) else None


def test_short_recordings_get_silence_on_both_sides_or_come_again(tmp_path: Path):
    root = str(wsj(tmp_path))
    silent = Separated(root, valid_seconds=1.0).valid()[0]["sources"]
    assert silent.shape == (2, 8000)
    assert not silent[:, :1000].any() and not silent[:, 7000:].any() and silent[:, 1000:7000].all()
    again = Separated(root, valid_seconds=1.75, short="repeat").valid()[0]["sources"]
    assert torch.equal(again[:, :6000], again[:, 6000:12000]) and torch.equal(again[:, 12000:], again[:, :2000])


def test_pairs_hold_speakers_out_and_an_empty_side_is_refused(tmp_path: Path):
    for i, name in enumerate(("p1_1", "p2_1", "p226_1")):
        sound(tmp_path / f"clean_trainset_28spk_wav/{name}.wav", seed=i)
        sound(tmp_path / f"noisy_trainset_28spk_wav/{name}.wav", seed=i, level=0.3)
    train, valid = Separated(str(tmp_path)).mixtures()
    assert ([one.name for one in train], [one.name for one in valid]) == (["p1_1", "p2_1"], ["p226_1"])
    item = Separated(str(tmp_path), valid_seconds=0.5).valid()[0]["sources"]
    torch.testing.assert_close(item[1], 2 * item[0], rtol=0, atol=1e-6)  # noisy is three times the clean file
    with pytest.raises(InputError, match=r"nothing to validate on.* leaves 3 mixtures for training and 0"):
        Separated(str(tmp_path), valid_speakers=("p9",)).mixtures()
    with pytest.raises(InputError, match=r"set data\.root=PATH"):
        Separated().mixtures()


def test_only_the_parts_that_are_used_must_be_there_and_check_reports_them(tmp_path: Path):
    root = wsj(tmp_path)  # no test part
    sound(root / "2speakers/wav8k/max/tr/s2/m0.wav", 0.3, seed=1)
    report = check(Separated(str(root), seconds=0.5))
    assert [(one.name, one.files) for one in report.sets] == [
        ("train source 1", 5),
        ("train source 2", 5),
        ("valid source 1", 2),
        ("valid source 2", 2),
    ]
    assert "1 mixtures have sources of unequal length, filled with silence (m0)" in report.warnings


# Dynamic mixing.


@pytest.fixture
def speakers(tmp_path: Path) -> Path:
    """Six speakers by file name, two of them with more sound; a folder per speaker for validation."""
    for i in range(6):
        for j in range(3 if i < 2 else 1):
            sound(tmp_path / f"train/p{i}_{j}.wav", 0.5, 16000, seed=10 * i + j, level=0.02 * (i + 1))
    for i in range(3):
        sound(tmp_path / f"valid/who{i}/take.wav", 0.5, 16000, seed=100 + i)
    return tmp_path


def voices(root: Path, **settings) -> Voices:
    return Voices(str(root), ("train",), ("valid",), **({"seconds": 0.25, "valid_seconds": 0.25} | settings))


def test_items_are_functions_of_seed_and_number_with_levels_within_their_bounds(speakers: Path):
    data = voices(speakers)
    items, again = data.train(1), data.train(1)
    levels = []
    for k in range(20):
        item = items[k]["sources"]
        assert item.shape == (2, 2000) and item.dtype == torch.float32
        assert torch.equal(item, again[k]["sources"])
        levels += [20 * np.log10(rms(wave) / LEVEL) for wave in item.numpy()]
    assert -2.51 < min(levels) < -1 and 1 < max(levels) < 2.51  # +-2.5 dB, and rounding
    assert not torch.equal(items[0]["sources"], data.train(2)[0]["sources"])


def test_a_mixture_has_different_speakers_drawn_by_how_much_there_is_of_each(speakers: Path):
    data = voices(speakers, speaker_seconds=1.0).train(0)
    np.testing.assert_allclose(data.chance, np.array([1, 1, 0.5, 0.5, 0.5, 0.5]) / 4)  # 1.5 s capped at 1 s
    equal = voices(speakers, speaker_seconds=0.0).train(0)
    np.testing.assert_allclose(equal.chance, np.full(6, 1 / 6))
    three = voices(speakers, voices=3)
    assert three.train(0)[0]["sources"].shape == (3, 2000)
    with pytest.raises(InputError, match=r"expected at least 7 speakers, got 6 \(p0, p1"):
        voices(speakers, voices=7).sources()


def test_speed_changes_tempo_and_pitch_and_late_sources_begin_with_silence(tmp_path: Path):
    rate, hz = 16000, 500.0
    for side, name in (("train", "a"), ("train", "b"), ("valid", "c"), ("valid", "d")):
        path = tmp_path / side / f"{name}_1.wav"
        path.parent.mkdir(exist_ok=True)
        audio.write(path, 0.1 * np.sin(2 * np.pi * hz * np.arange(2 * rate) / rate)[None], rate, subtype="FLOAT")
    fast = voices(tmp_path, seconds=1.0, speed=(1.25, 1.25)).train(0)[0]["sources"].numpy()
    spectrum = np.abs(np.fft.rfft(fast[0] * np.hanning(8000)))
    assert spectrum.argmax() == 625  # one bin is 1 Hz
    slow = voices(tmp_path, valid_seconds=1.0, speed=(1.25, 1.25)).valid()[0]["sources"].numpy()
    assert np.abs(np.fft.rfft(slow[0] * np.hanning(8000))).argmax() == 500
    late = voices(tmp_path, late=1.0, late_s=0.2).train(0)
    starts = [np.flatnonzero(wave)[0] / RATE for k in range(10) for wave in late[k]["sources"].numpy()]
    assert min(starts) >= 0 and 0.1 < max(starts) <= 0.2


def test_speakers_are_named_by_table_folder_or_file(speakers: Path):
    rows = [{"file": f"train/p{i}_0.wav", "speaker": f"s{i % 2}", "split": "train"} for i in range(4)]
    table(speakers / "who.csv", *rows)
    data = Voices(str(speakers), ("who.csv",), ("valid",))
    assert [len(paths) for paths in data.train(0).speakers] == [2, 2]
    assert set(data.speakers().values()) == {"s0", "s1", "who0", "who1", "who2"}
    report = check(voices(speakers))
    assert [(one.name, one.files, one.speakers) for one in report.sets] == [
        ("train speech", 10, 6),
        ("valid speech", 3, 3),
    ]


def test_the_same_speaker_on_both_sides_is_a_warning(speakers: Path):
    sound(speakers / "valid/p0/other.wav", 0.5, 16000, seed=7)
    assert "speech: 1 speakers are in training and in validation (p0)" in check(voices(speakers)).warnings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"speed": (1.2, 0.8)}, r"data\.speed must be \[lowest,highest\]"),
        ({"voices": 1}, "data.voices of at least 2"),
        ({"late": 2.0}, "data.late from 0 to 1"),
        ({"late": 0.5, "late_s": 9.0}, "late_s below seconds"),
    ],
)
def test_impossible_settings_are_refused(settings, message: str):
    with pytest.raises(ValueError, match=message):
        Voices(**settings)
    with pytest.raises(ValueError, match="seconds and valid_seconds above 0"):
        Separated(seconds=0.0)


def test_sounds_from_a_formula_have_as_many_voices_as_asked():
    data = SyntheticVoices(voices=3, seconds=0.1)
    item = data.train(0)[5]["sources"]
    assert item.shape == (3, 800) and torch.equal(item, data.train(0)[5]["sources"])
    assert len(data.valid()) == 2 and data.sources() == {}
