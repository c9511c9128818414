"""Single recordings: the layouts, who is held out, and items that depend on (seed, k) alone."""

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from fromnoise.data import audio
from fromnoise.data.check import check
from fromnoise.data.clips import Clips, find_clips
from fromnoise.data.places import DIGITS, hashed_split
from fromnoise.training.loaders import EpochSampler, RecipeData
from fromnoise.training.settings import TrainerSettings
from fromnoise.types import InputError

RATE = 8000


def write(path: Path, n: int = 400, level: float = 0.1, rate: int = RATE, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = level * np.random.default_rng([seed, n]).standard_normal((1, n)).astype(np.float32)
    audio.write(path, wave, rate, subtype="FLOAT")
    return path


def table(folder: Path, rows: list[dict[str, str]]) -> Path:
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A table with three training clips, one for validation, a speaker of the test set only, and vocoded references."""
    rows = []
    parts = [("a0", "0", "ann", "train"), ("b1", "1", "bob", "train"), ("a1", "1", "ann", "train")]
    parts += [("b0", "0", "bob", "valid"), ("t0", "0", "tom", "test"), ("r0", "0", "tom", "reference")]
    for i, (name, label, speaker, split) in enumerate(parts):
        write(tmp_path / f"audio/{name}.wav", 300 + 100 * i, 0.01 * (i + 1), seed=i)
        rows.append({"file": f"audio/{name}.wav", "label": label, "speaker": speaker, "split": split})
    return table(tmp_path, rows)


def names(found) -> list[str]:
    return [clip.path.stem for clip in found]


def test_splits_of_a_table_are_honoured_and_references_belong_to_none(pack: Path):
    assert names(find_clips(pack, "train")) == ["a0", "a1", "b1"]
    assert names(find_clips(pack, "valid")) == ["b0"]
    assert names(find_clips(pack / "metadata.csv", "test")) == ["t0"]
    assert [(clip.label, clip.speaker) for clip in find_clips(pack, "train")] == [
        ("0", "ann"),
        ("1", "ann"),
        ("1", "bob"),
    ]
    used = {path.stem for paths in Clips(root=str(pack), sample_rate=RATE).sources().values() for path in paths}
    assert used == {"a0", "a1", "b1", "b0"}


def test_ljspeech_holds_out_what_lmnt_holds_out(tmp_path: Path):
    (tmp_path / "metadata.csv").write_text("LJ001-0001|Printing|Printing\n")
    for name in ("LJ001-0001", "LJ002-0001", "LJ003-0001", "LJ050-0278"):
        write(tmp_path / "wavs" / f"{name}.wav")
    assert names(find_clips(tmp_path, "train")) == ["LJ003-0001", "LJ050-0278"]
    assert names(find_clips(tmp_path, "valid")) == ["LJ002-0001"]
    assert names(find_clips(tmp_path, "test")) == ["LJ001-0001"]


def speech_commands(folder: Path, speakers: list[str]) -> Path:
    for digit in DIGITS:
        for speaker in speakers:
            write(folder / digit / f"{speaker}_nohash_0.wav", 50)
        write(folder / digit / "someone_else.wav", 50)
    write(folder / "_background_noise_" / "hum_nohash_0.wav", 50)
    write(folder / "bed" / "x_nohash_0.wav", 50)
    return folder


def test_speech_commands_are_split_by_the_lists_where_they_are(tmp_path: Path):
    root = speech_commands(tmp_path, ["aa", "bb"])
    (root / "validation_list.txt").write_text("seven/aa_nohash_0.wav\n")
    (root / "testing_list.txt").write_text("one/bb_nohash_0.wav\n")
    train = find_clips(root, "train")
    assert len(train) == 18
    assert {clip.label for clip in train} == set(DIGITS)
    assert {clip.speaker for clip in train} == {"aa", "bb"}
    assert [(c.label, c.speaker) for c in find_clips(root, "valid")] == [("seven", "aa")]
    assert [(c.label, c.speaker) for c in find_clips(root, "test")] == [("one", "bb")]
    (root / "testing_list.txt").unlink()
    with pytest.raises(InputError, match=r"testing_list\.txt"):
        find_clips(root, "test")


def test_speech_commands_without_lists_are_split_by_the_hash_of_the_speaker():
    percent = int(hashlib.sha1(b"3f45hg12").hexdigest(), 16) % 2**27 / (2**27 - 1) * 100
    expected = "valid" if percent < 10 else "test" if percent < 20 else "train"
    assert hashed_split("seven/3f45hg12_nohash_3.wav") == expected
    splits = [hashed_split(f"one/{i:08x}_nohash_0.wav") for i in range(4000)]
    assert 0.085 < splits.count("valid") / 4000 < 0.115  # binomial, 0.1 +- 3 standard deviations
    assert 0.085 < splits.count("test") / 4000 < 0.115


def test_speakers_of_speech_commands_fall_on_one_side(tmp_path: Path):
    root = speech_commands(tmp_path, [f"{i:03d}" for i in range(12)])
    sides = {split: {clip.speaker for clip in find_clips(root, split)} for split in ("train",)}
    assert all(hashed_split(f"x/{speaker}_nohash_0.wav") == "train" for speaker in sides["train"])
    assert len(find_clips(root, "train")) == 10 * len(sides["train"])


def test_flat_folder_holds_out_a_share_by_name_and_folders_of_splits_are_taken_as_they_are(tmp_path: Path):
    for i in range(20):
        write(tmp_path / ("flat/drum" if i % 2 else "flat") / f"clip{i:02d}.wav", 50)
    train, valid = (
        find_clips(tmp_path / "flat", "train", valid_share=0.2),
        find_clips(tmp_path / "flat", "valid", valid_share=0.2),
    )
    assert (len(train), len(valid)) == (16, 4)
    assert not {c.path for c in train} & {c.path for c in valid}
    assert {clip.label for clip in train} == {"", "drum"}
    assert len(find_clips(tmp_path / "flat", "test")) == 20
    for split, count in (("train", 4), ("valid", 1), ("test", 2)):
        for i in range(count):
            write(tmp_path / "split" / split / f"{i}.wav", 50)
    assert [len(find_clips(tmp_path / "split", split)) for split in ("train", "valid", "test")] == [4, 1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"root": ""}, "set data.root=PATH"),
        ({"root": "/no/where"}, "no such folder or table"),
        ({"labels": ("zero",)}, "its label is '1'; expected one of data.labels: zero"),
    ],
)
def test_wrong_places_and_labels_are_named(pack: Path, change, message: str):
    with pytest.raises(InputError, match=message):
        Clips(**{"root": str(pack), "sample_rate": RATE} | change).clips()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"speed": (1.2, 0.8)}, r"data.speed must be \[lowest,highest\]"),
        ({"speed": (0.1, 1.0)}, "between 0.25 and 4"),
        ({"gain_db": (1.0,)}, "data.gain_db must be"),
        ({"balanced": True}, "needs data.labels"),
        ({"valid_share": 0.0}, "data.valid_share between 0 and 1"),
    ],
)
def test_impossible_settings_are_refused(change, message: str):
    with pytest.raises(ValueError, match=message):
        Clips(**change)


def test_fixed_item_is_the_beginning_of_the_clip_followed_by_silence(pack: Path):
    config = Clips(root=str(pack), sample_rate=RATE, seconds=0.05, labels=("zero", "one"))
    item = config.valid()[0]  # b0, 600 samples
    wave, _ = audio.read(pack / "audio/b0.wav")
    assert torch.equal(item["clean"], torch.from_numpy(wave[:, :400]))
    short = next(item for item in map(config.train(0).__getitem__, range(3)) if not item["clean"][0, 300:].any())
    assert int(short["label"]) == 0
    assert short["clean"].shape == (1, 400)
    assert torch.equal(short["clean"][0, :300], torch.from_numpy(audio.read(pack / "audio/a0.wav")[0][0]))


def test_random_crops_lie_inside_the_clip_and_short_clips_are_kept(pack: Path):
    items = Clips(root=str(pack), sample_rate=RATE, seconds=0.05, fixed=False).train(0)
    waves = {name: audio.read(pack / f"audio/{name}.wav")[0][0] for name in ("a0", "b1", "a1")}
    starts = []
    for k in range(30):
        crop = items[k]["clean"][0].numpy()
        name = next(name for name, wave in waves.items() if crop[0] in wave)
        start = int(np.flatnonzero(waves[name] == crop[0])[0])
        piece = waves[name][start : start + 400]
        assert np.array_equal(crop[: len(piece)], piece)
        assert not crop[len(piece) :].any()
        starts.append((name, start))
    assert len({start for name, start in starts if name == "a1"}) > 5  # 500 samples: a place of its own each time
    assert {start for name, start in starts if name == "a0"} == {0}
    assert sum(name == "a0" for name, _ in starts) == 10  # every clip once in three


def test_level_of_every_clip_becomes_the_same(pack: Path):
    for level, measured in (("rms", lambda x: np.sqrt(np.mean(x**2))), ("peak", lambda x: np.abs(x).max())):
        data = Clips(root=str(pack), sample_rate=RATE, seconds=0.0375, level=level, level_db=-20.0)
        item = next(data.train(0)[k] for k in range(3) if data.train(0).chosen(k) == 0)  # a0, 300 samples: all of it
        assert measured(item["clean"].numpy()) == pytest.approx(0.1, rel=1e-5)
    loud = Clips(root=str(pack), sample_rate=RATE, level="rms", level_db=0.0).train(0)
    assert max(float(loud[k]["clean"].abs().max()) for k in range(3)) == pytest.approx(0.99, rel=1e-5)


def test_silence_keeps_its_level(tmp_path: Path):
    for i in range(2):
        audio.write(tmp_path / f"{i}.wav", np.zeros((1, 100), np.float32), RATE)
    items = Clips(root=str(tmp_path), sample_rate=RATE, level="rms", valid_share=0.5).train(0)
    assert not items[0]["clean"].any()


@pytest.mark.parametrize("fixed", [True, False])
def test_speed_moves_the_pitch_by_its_factor(tmp_path: Path, fixed: bool):
    n, speed = 4000, 1.25
    tone = 0.5 * np.sin(2 * np.pi * 500 / RATE * np.arange(n)).astype(np.float32)[None]
    for i in range(2):
        audio.write(tmp_path / f"{i}.wav", tone, RATE, subtype="FLOAT")
    data = Clips(root=str(tmp_path), sample_rate=RATE, seconds=0.25, fixed=fixed, speed=(speed, speed), valid_share=0.5)
    heard = data.train(0)[0]["clean"][0].numpy()
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    assert spectrum.argmax() * RATE / len(heard) == pytest.approx(500 * speed, abs=RATE / len(heard))
    assert np.abs(heard[100:-100]).max() == pytest.approx(0.5, rel=0.01)


def test_clip_of_a_lower_rate_says_up_to_where_it_holds_sound(tmp_path: Path):
    write(tmp_path / "train/low.wav", 800, rate=4000)
    write(tmp_path / "valid/full.wav", 800, rate=RATE)
    data = Clips(root=str(tmp_path), sample_rate=RATE)
    assert float(data.train(0)[0]["band_hz"]) == 2000
    assert float(data.valid()[0]["band_hz"]) == np.inf
    slow = Clips(root=str(tmp_path), sample_rate=RATE, speed=(0.5, 0.5))
    assert float(slow.train(0)[0]["band_hz"]) == 1000


def test_item_depends_on_its_number_alone_not_on_workers_or_what_was_asked_before(pack: Path):
    data = Clips(root=str(pack), sample_rate=RATE, seconds=0.03, fixed=False, speed=(0.8, 1.2), gain_db=(-6.0, 6.0))
    settings = TrainerSettings(accelerator="cpu", steps_per_epoch=3, batch_size=2, num_workers=0)
    alone = [data.train(5)[k] for k in range(6)]
    cached = data.train(5)
    assert all(torch.equal(cached[k]["clean"], alone[k]["clean"]) for k in (5, 2, 5, 0))
    for workers in (0, 1):
        loader = RecipeData(
            data.train(5), data.valid(), settings.__class__(**vars(settings) | {"num_workers": workers})
        )
        batches = torch.cat([batch["clean"] for batch in loader.train_dataloader()])
        assert torch.equal(batches, torch.stack([item["clean"] for item in alone]))
    assert not torch.equal(data.train(6)[0]["clean"], alone[0]["clean"])


def test_epochs_are_shuffled_each_in_its_own_order(tmp_path: Path):
    for i in range(30):
        write(tmp_path / "train" / f"{i:02d}.wav", 10 + i)
    write(tmp_path / "valid/0.wav")
    items = Clips(root=str(tmp_path), sample_rate=RATE).train(0)
    sampler = EpochSampler(TrainerSettings(steps_per_epoch=10, batch_size=3), 0)
    orders = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        orders.append([items.chosen(k) for k in sampler])
    assert all(sorted(order) == list(range(30)) for order in orders)
    assert orders[0] != orders[1]
    assert orders[0] != sorted(orders[0])


def test_balanced_classes_take_turns(pack: Path):
    data = Clips(root=str(pack), sample_rate=RATE, labels=("0", "1"), balanced=True)  # one clip of 0, two of 1
    items = data.train(0)
    assert [int(items[k]["label"]) for k in range(6)] == [0, 1] * 3
    assert {items.chosen(k) for k in (1, 3)} == {1, 2}


def test_cache_holds_no_more_than_it_may(pack: Path):
    items = Clips(root=str(pack), sample_rate=RATE, cache_mb=0).train(0)
    before = items[0]["clean"]
    (pack / "audio" / f"{items.found[items.chosen(0)].path.stem}.wav").unlink()
    with pytest.raises(InputError, match="no such file"):
        items[0]
    kept = Clips(root=str(pack), sample_rate=RATE).train(0)
    other = next(k for k in range(3) if kept.found[kept.chosen(k)].path.exists())
    first = kept[other]["clean"]
    kept.found[kept.chosen(other)].path.unlink()
    assert torch.equal(kept[other]["clean"], first)
    assert before.shape == (1, RATE)


def test_validation_is_always_the_same_and_an_even_choice(tmp_path: Path):
    for i in range(10):
        write(tmp_path / "valid" / f"{i}.wav", 100 + 10 * i)
    write(tmp_path / "train/0.wav")
    data = Clips(root=str(tmp_path), sample_rate=RATE, valid_items=4, speed=(0.8, 1.2), gain_db=(-6.0, 6.0))
    assert names(data.valid().found) == ["0", "3", "6", "9"]
    assert torch.equal(data.valid()[1]["clean"], data.valid()[1]["clean"])
    assert int((data.valid()[1]["clean"] != 0).sum()) == 130


def test_check_counts_speakers_and_names_clips_that_are_cut(pack: Path):
    report = check(Clips(root=str(pack), sample_rate=RATE, seconds=0.04))
    assert [(line.name, line.files, line.speakers) for line in report.sets] == [
        ("train clips", 3, 2),
        ("valid clips", 1, 1),
    ]
    assert report.warnings == (
        "train clips: 2 files are longer than data.seconds and are cut at the end (a1.wav, b1.wav)",
        "valid clips: 1 files are longer than data.seconds and are cut at the end (b0.wav)",
    )
