"""Training data: layouts, pairs, mixtures, sounds from a formula, and the look at all of them before the first step."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fromnoise.data import audio
from fromnoise.data.check import check
from fromnoise.data.layouts import find_pairs, has_split, speaker_of
from fromnoise.data.mixtures import Mixtures, active_level, files, rms
from fromnoise.data.paired import Paired
from fromnoise.data.synthetic import Synthetic
from fromnoise.types import InputError

RATE = 16000


def sound(path: Path, seconds: float = 0.5, rate: int = RATE, level: float = 0.1, seed: int = 0) -> Path:
    """Write noise of a given level; the same seed gives the same samples."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = level * np.random.default_rng(seed).standard_normal(round(seconds * rate)).astype(np.float32)
    audio.write(path, wave[None], rate, subtype="FLOAT")
    return path


def pairs_in(root: Path, noisy: str, clean: str, names: list[str], seconds: float = 0.5) -> Path:
    """Pairs where noisy = 2 clean."""
    for i, name in enumerate(names):
        sound(root / clean / f"{name}.wav", seconds, seed=i)
        sound(root / noisy / f"{name}.wav", seconds, level=0.2, seed=i)
    return root


@pytest.mark.parametrize(
    ("noisy", "clean", "split"),
    [
        ("noisy", "clean", "train"),
        ("train/noisy", "train/clean", "train"),
        ("valid/noisy", "valid/clean", "valid"),
        ("noisy_trainset_28spk_wav", "clean_trainset_28spk_wav", "train"),
        ("noisy_trainset_wav", "clean_trainset_wav", "train"),
        ("noisy_testset_wav", "clean_testset_wav", "test"),
        ("test/noisy", "test/clean", "test"),
    ],
)
def test_each_layout_gives_the_pairs_of_its_split(tmp_path: Path, noisy: str, clean: str, split):
    pairs = find_pairs(pairs_in(tmp_path, noisy, clean, ["a", "deep/b"]), split)
    assert [pair.name for pair in pairs] == ["a", "deep/b"]
    assert pairs[0].noisy == tmp_path / noisy / "a.wav"
    assert pairs[0].clean == tmp_path / clean / "a.wav"


def test_files_without_a_partner_are_named_and_foreign_layouts_refused(tmp_path: Path):
    root = pairs_in(tmp_path / "x", "noisy", "clean", ["a"])
    sound(root / "noisy" / "b.wav")
    assert find_pairs(root).skipped == ("noisy/b has no partner in clean/",)
    with pytest.raises(InputError, match=r"train/noisy/ and train/clean/.*noisy_trainset_28spk_wav/"):
        find_pairs(tmp_path, "train")


def test_manifest_lists_pairs_relative_to_itself_and_names_its_bad_line(tmp_path: Path):
    pairs_in(tmp_path, "n", "c", ["a"])
    manifest = tmp_path / "pairs.jsonl"
    manifest.write_text(json.dumps({"noisy": "n/a.wav", "clean": "c/a.wav"}) + "\n\n")
    (pair,) = find_pairs(manifest)
    assert (pair.name, pair.noisy.is_file(), pair.clean) == ("a", True, tmp_path / "c/a.wav")
    manifest.write_text('{"noisy": "n/a.wav"}\n')
    with pytest.raises(InputError, match=r"line 1: expected .*\"clean\": path"):
        find_pairs(manifest)


@pytest.mark.parametrize(
    ("name", "speaker"),
    [("p226_001.wav", "p226"), ("ls-1034_1211-0.flac", "ls-1034"), ("84-121123-0001.flac", "84"), ("solo.wav", "solo")],
)
def test_speaker_is_read_off_the_file_name(name: str, speaker: str):
    assert speaker_of(Path("folder") / name) == speaker


def test_a_pass_of_paired_data_shows_every_pair_once_and_crops_both_sides_alike(tmp_path: Path):
    names = [f"p{i}_0" for i in range(7)]
    pairs_in(tmp_path, "train/noisy", "train/clean", names)
    pairs_in(tmp_path, "valid/noisy", "valid/clean", ["v_0"])
    data = Paired(str(tmp_path), seconds=0.1)
    items, again = data.train(seed=3), data.train(seed=3)
    whole = [audio.read(tmp_path / f"train/clean/{name}.wav")[0][0] for name in names]
    seen = []
    for k in range(14):
        item = items[k]
        assert item["clean"].shape == (1, 1600)
        torch.testing.assert_close(item["noisy"], 2 * item["clean"], rtol=0, atol=1e-6)  # float32 storage
        assert torch.equal(item["clean"], again[k]["clean"])
        first = item["clean"][0, :8].numpy()
        seen.append(next(i for i, wave in enumerate(whole) if _contains(wave, first)))
    assert sorted(seen[:7]) == sorted(seen[7:]) == list(range(7))
    assert seen[:7] != seen[7:]
    assert not torch.equal(items[0]["clean"], data.train(seed=4)[0]["clean"])


def _contains(wave: np.ndarray, start: np.ndarray) -> bool:
    windows = np.lib.stride_tricks.sliding_window_view(wave, len(start))
    return bool((np.abs(windows - start).max(axis=1) < 1e-7).any())


def test_short_recordings_are_filled_with_silence_and_validation_starts_at_the_beginning(tmp_path: Path):
    pairs_in(tmp_path, "noisy", "clean", ["p226_1", "p1_1"], seconds=0.05)
    data = Paired(str(tmp_path), seconds=0.1, valid_seconds=0.1)
    (item,) = (data.valid()[k] for k in range(len(data.valid())))
    wave, _ = audio.read(tmp_path / "clean/p226_1.wav")
    np.testing.assert_array_equal(item["clean"][0, :800].numpy(), wave[0])
    assert not item["clean"][0, 800:].any()


def test_validation_speakers_are_held_out_unless_there_is_a_valid_folder(tmp_path: Path):
    root = pairs_in(tmp_path, "noisy_trainset_28spk_wav", "clean_trainset_28spk_wav", ["p226_1", "p287_1", "p9_1"])
    train, valid = Paired(str(root)).pairs()
    assert [pair.name for pair in train] == ["p9_1"]
    assert [pair.name for pair in valid] == ["p226_1", "p287_1"]
    with pytest.raises(InputError, match=r"valid_speakers=\['nobody'\] leaves 3 pairs.*p226, p287, p9"):
        Paired(str(root), valid_speakers=("nobody",)).pairs()
    pairs_in(tmp_path, "valid/noisy", "valid/clean", ["x_1"])
    assert has_split(root, "valid")
    assert [len(part) for part in Paired(str(root)).pairs()] == [3, 1]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Speech and noise, for training and validation."""
    for i in range(3):
        sound(tmp_path / f"speech/s{i}_1.wav", seed=i)
    sound(tmp_path / "noise/n.wav", 0.2, seed=9)
    sound(tmp_path / "held/v_1.wav", seed=10)
    sound(tmp_path / "held_noise/w.wav", seed=11)
    return tmp_path


def mixtures(root: Path, **settings) -> Mixtures:
    return Mixtures(
        str(root), ("speech",), ("noise",), ("held",), ("held_noise",), seconds=0.3, valid_seconds=0.3, **settings
    )


def test_mixture_item_is_a_function_of_seed_and_index_and_has_the_drawn_ratio(corpus: Path):
    data = mixtures(corpus, snr_min=5.0, snr_max=5.0, babble=0.0, shaping=0.0, gain_db=0.0)
    items = data.train(seed=1)
    one, same, other = items[7], data.train(seed=1)[7], items[8]
    assert torch.equal(one["noisy"], same["noisy"])
    assert not torch.equal(one["noisy"], other["noisy"])
    clean, noise = one["clean"][0].numpy(), (one["noisy"] - one["clean"])[0].numpy()
    assert 20 * np.log10(active_level(clean) / rms(noise)) == pytest.approx(5.0, abs=1e-3)  # float32 waves


def test_mixtures_never_clip_and_babble_and_shaping_change_the_noise(corpus: Path):
    plain = mixtures(corpus, babble=0.0, shaping=0.0, snr_min=-20.0, snr_max=-20.0).train(1)
    babble = mixtures(corpus, babble=1.0, shaping=0.0, snr_min=-20.0, snr_max=-20.0).train(1)
    shaped = mixtures(corpus, babble=0.0, shaping=1.0, snr_min=-20.0, snr_max=-20.0).train(1)
    waves = [items[0]["noisy"] for items in (plain, babble, shaped)]
    assert all(float(wave.abs().max()) <= 1 for wave in waves)
    assert not torch.allclose(waves[0], waves[1])
    assert not torch.allclose(waves[0], waves[2])


def test_places_may_be_folders_files_and_three_kinds_of_list(corpus: Path):
    (corpus / "list.txt").write_text("speech/s0_1.wav\n\n")
    (corpus / "list.jsonl").write_text('{"speech": "speech/s1_1.wav"}\n')
    (corpus / "meta.csv").write_text('file,text,split\nspeech/s2_1.wav,"a, b",train\nspeech/s0_1.wav,c,test\n')
    names = {place: [p.name for p in files([str(corpus / place)])] for place in ("speech", "speech/s0_1.wav")}
    assert names == {"speech": ["s0_1.wav", "s1_1.wav", "s2_1.wav"], "speech/s0_1.wav": ["s0_1.wav"]}
    lists = {place: [p.name for p in files([str(corpus / place)])] for place in ("list.txt", "list.jsonl", "meta.csv")}
    assert lists == {"list.txt": ["s0_1.wav"], "list.jsonl": ["s1_1.wav"], "meta.csv": ["s2_1.wav"]}
    assert [p.name for p in files([str(corpus / "speech")], exclude=["s1*"])] == ["s0_1.wav", "s2_1.wav"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Mixtures(), r"no speech to mix; set data\.speech"),
        (Mixtures("nowhere", ("a",), ("b",)), r"nowhere/a: no such folder, sound file or list; correct data\.root"),
        (Paired(), r"set data\.root=PATH"),
        (Paired("nowhere"), r"nowhere: no such folder or manifest"),
    ],
)
def test_missing_data_is_said_before_anything_else(data, message: str):
    with pytest.raises(InputError, match=message):
        check(data)


def test_list_without_rows_of_the_split_is_refused(corpus: Path):
    (corpus / "meta.csv").write_text("file,split\nspeech/s2_1.wav,test\n")
    with pytest.raises(InputError, match=r"holds no sound files of split 'train'"):
        files([str(corpus / "meta.csv")])


def test_check_counts_files_and_finds_nothing_wrong_where_nothing_is(corpus: Path):
    report = check(mixtures(corpus))
    found = {line.name: (line.files, line.speakers, line.rates) for line in report.sets}
    assert found["train speech"] == (3, 3, (RATE,))
    assert found["train noise"] == (1, 0, (RATE,))
    assert report.sets[0].seconds == pytest.approx(1.5)
    assert report.warnings == ()


def test_check_warns_of_rates_short_files_silence_and_shared_speakers(corpus: Path):
    sound(corpus / "speech/low_1.wav", rate=8000)
    sound(corpus / "speech/short_1.wav", seconds=0.02)
    sound(corpus / "speech/silent_1.wav", level=0.0)
    sound(corpus / "held/s0_2.wav", seed=12)
    warnings = "\n".join(check(mixtures(corpus)).warnings)
    assert "train speech: 1 files are resampled to 16000 Hz, 1 of them lack the upper band (low_1.wav)" in warnings
    assert "train speech: 1 files are shorter than a quarter of data.seconds (short_1.wav)" in warnings
    assert "train speech: 1 files begin with silence (silent_1.wav)" in warnings
    assert "speech: 1 speakers are in training and in validation (s0)" in warnings


def test_check_refuses_pairs_of_different_length_and_an_empty_validation(tmp_path: Path, corpus: Path):
    root = pairs_in(tmp_path / "pairs", "noisy", "clean", ["p226_1", "a_1"])
    sound(root / "noisy" / "extra.wav")
    data = Paired(str(root), seconds=0.5)
    assert check(data).warnings == ("noisy/extra has no partner in clean/",)
    sound(root / "noisy" / "a_1.wav", 0.4)
    with pytest.raises(InputError, match=r"a_1.wav: expected the length and rate .*8000 samples.*got 6400"):
        check(Paired(str(root)))
    with pytest.raises(InputError, match="no batches to validate on"):
        check(mixtures(corpus, valid_items=0))


def test_synthetic_item_is_a_function_of_seed_and_index_at_the_drawn_ratio():
    data = Synthetic(snr_min=3.0, snr_max=3.0)
    item = data.train(0)[5]
    assert torch.equal(item["noisy"], data.train(0)[5]["noisy"])
    assert not torch.equal(item["noisy"], data.train(1)[5]["noisy"])
    noise = (item["noisy"] - item["clean"])[0].numpy()
    assert 20 * np.log10(rms(item["clean"][0].numpy()) / rms(noise)) == pytest.approx(3.0, abs=1e-3)
    assert check(data).sets == ()
