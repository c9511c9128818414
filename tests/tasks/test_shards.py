"""Tar shards: packed, read in their place by several processes, every sample once a pass, and trained on."""

import itertools
import json
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from fromnoise.cli import main
from fromnoise.data.audio import AudioReader, info, read, write
from fromnoise.data.check import check
from fromnoise.data.clips import Clips
from fromnoise.data.packing import pack
from fromnoise.data.paired import Paired
from fromnoise.data.separated import Separated
from fromnoise.data.shards import TarWriter, braced, counts, find_shards, is_shards, members, samples
from fromnoise.data.streaming import Stream, clip_of
from fromnoise.training.loaders import EpochSampler
from fromnoise.training.settings import TrainerSettings
from fromnoise.types import InputError

RATE = 8000


def tone(k: int, n: int = 800) -> np.ndarray:
    """A wave that says which it is: all samples are k/1000."""
    return np.full((1, n), k / 1000, np.float32)


def number_of(item: dict) -> int:
    return round(1000 * float(item["clean"][0, 0]))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 44 clips with labels and captions, four of them for validation."""
    root = tmp_path_factory.mktemp("corpus")
    rows = ["file,label,caption,split,licence"]
    for k in range(44):
        write(root / f"c.{k}.{'wav' if k % 2 else 'flac'}", tone(k + 1), RATE, "PCM_16", clip="none")
        name = f"c.{k}.{'wav' if k % 2 else 'flac'}"
        rows.append(f"{name},{'ab'[k % 2]},sound {k},{'valid' if k >= 40 else 'train'},MIT")
    (root / "metadata.csv").write_text("\n".join(rows) + "\n")
    return root


def settings(root: Path | str, **more) -> Clips:
    return Clips(str(root), sample_rate=RATE, seconds=0.1, labels=("a", "b"), captions=("caption",), **more)


@pytest.fixture(scope="module")
def packed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    assert pack(settings(corpus), folder, most=7) == {"train": (40, 6), "valid": (4, 1)}
    return folder


def test_packed_clips_are_the_same_items_with_their_labels_and_captions(corpus: Path, packed: Path):
    direct, shards = settings(corpus), settings(packed)
    byte = lambda one: (number_of(one), int(one["label"]), bytes(one["text"].tolist()).rstrip(b"\0"))  # noqa: E731
    for ours, theirs in ((shards.valid(), direct.valid()), (shards.train(0), direct.train(0))):
        count = 4 if ours.seed is None else 40
        assert sorted(byte(ours[k]) for k in range(count)) == sorted(byte(theirs[k]) for k in range(count))
    inside = shards.clips()[0][0].path
    assert inside.parent.parent == packed / "train"
    assert Path(inside).stem.startswith("c_")
    original = next(path for path in corpus.iterdir() if path.stem.replace(".", "_") == inside.stem.split("-")[0])
    with tarfile.open(inside.parent) as tar:
        assert tar.extractfile(inside.name).read() == original.read_bytes()


def test_every_sample_comes_once_a_pass_whatever_the_processes_and_passes_differ(packed: Path):
    items = settings(packed, window=2).train(3)
    trainer = TrainerSettings(devices=2, batch_size=2, steps_per_epoch=10)  # an epoch of one pass
    orders = []
    for epoch in range(2):
        ranks = [list(EpochSampler(trainer, rank, epoch)) for rank in range(2)]
        seen = [number_of(items[k]) for own in ranks for k in own]
        assert sorted(seen) == list(range(1, 41))
        orders.append([number_of(items[k]) for k in range(40 * epoch, 40 * epoch + 40)])
    assert orders[0] != orders[1]
    again = settings(packed, window=2).train(3)
    assert [number_of(again[k]) for k in range(40, 80)] == orders[1]  # nothing is remembered between items
    assert [number_of(settings(packed, window=2).train(4)[k]) for k in range(40)] != orders[0]


def test_only_a_window_of_shards_is_in_use_at_a_time_and_its_samples_are_mixed(packed: Path):
    stream = Stream(find_shards(packed / "train"), clip_of, 2)
    shards = [stream[stream.chosen(0, k)].path.parent.name for k in range(40)]
    sizes = dict(zip((path.name for path in stream.shards), stream.counts, strict=True))
    begin = 0
    while begin < 40:
        names = list(dict.fromkeys(shards[begin:]))[:2]
        end = begin + sum(sizes[name] for name in names)
        assert Counter(shards[begin:end]) == {name: sizes[name] for name in names}
        begin = end
    assert sum(a != b for a, b in itertools.pairwise(shards)) > 10  # not one shard after the other


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_processes_do_not_change_the_batches(packed: Path, workers: int):
    loader = torch.utils.data.DataLoader(
        settings(packed).train(0), batch_sampler=[[4 * i + j for j in range(4)] for i in range(5)], num_workers=workers
    )
    got = [round(1000 * float(value)) for batch in loader for value in batch["clean"][:, 0, 0]]
    items = settings(packed).train(0)
    assert got == [number_of(items[k]) for k in range(20)]


def test_pairs_and_sources_are_packed_with_their_parts(tmp_path: Path):
    for split, count in (("train", 3), ("valid", 1)):
        for k in range(count):
            for side, level in (("noisy", 2 * k + 2), ("clean", k + 1)):
                (tmp_path / "in" / split / side).mkdir(parents=True, exist_ok=True)
                write(tmp_path / "in" / split / side / f"p{k}_1.wav", tone(level), RATE, "FLOAT")
    whole = Paired(str(tmp_path / "in"), sample_rate=RATE, seconds=0.1)
    assert pack(whole, tmp_path / "out")["train"] == (3, 1)
    items = Paired(str(tmp_path / "out"), sample_rate=RATE, seconds=0.1).train(0)
    found = {(number_of(items[k]), round(1000 * float(items[k]["noisy"][0, 0]))) for k in range(3)}
    assert found == {(1, 2), (2, 4), (3, 6)}
    sources = Separated(str(tmp_path / "out"), sample_rate=RATE, seconds=0.1, valid_seconds=0.1).train(0)
    assert {tuple(round(1000 * float(s[0])) for s in sources[k]["sources"]) for k in range(3)} == {
        (1, 1),
        (2, 2),
        (3, 3),
    }
    for k in range(2):
        for side in ("s1", "s2", "mix_both"):
            (tmp_path / "two/tr" / side).mkdir(parents=True, exist_ok=True)
            (tmp_path / "two/cv" / side).mkdir(parents=True, exist_ok=True)
            for split in ("tr", "cv"):
                level = {"s1": 1, "s2": 5, "mix_both": 9}[side] + k
                write(tmp_path / "two" / split / side / f"m{k}.wav", tone(level), RATE, "FLOAT")
    two = Separated(str(tmp_path / "two"), mix="mix_both", sample_rate=RATE, seconds=0.1, valid_seconds=0.1)
    pack(two, tmp_path / "two-out")
    again = replace(two, root=str(tmp_path / "two-out"))
    item = again.valid()[0]
    assert [round(1000 * float(w[0])) for w in (*item["sources"], *item["mixture"])] in ([1, 5, 9], [2, 6, 10])


def test_check_looks_at_a_few_samples_and_tells_of_all(packed: Path):
    report = check(settings(packed))
    assert [(line.name, line.files) for line in report.sets] == [("train clips", 40), ("valid clips", 4)]
    assert report.warnings == ()


def test_shards_written_by_webdataset_are_read_and_ours_are_read_by_it(packed: Path, tmp_path: Path):
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    with webdataset.ShardWriter(str(tmp_path / "%06d.tar"), maxcount=3, verbose=0) as writer:
        for k in range(7):
            write(tmp_path / "one.flac", tone(k + 1), RATE, "PCM_16", clip="none")
            sound = (tmp_path / "one.flac").read_bytes()
            writer.write({"__key__": f"dir/key{k}", "flac": sound, "cls": k % 2, "txt": f"sound {k}"})
    pattern = str(tmp_path / "{000000..000002}.tar")
    items = settings(pattern, valid_root=pattern).train(0)
    assert sorted(number_of(items[k]) for k in range(7)) == list(range(1, 8))
    assert [clip.facts["caption"] for clip in items.found] == [f"sound {k}" for k in range(7)]
    assert [clip.label for clip in items.found[:2]] == ["0", "1"]
    urls = [str(path) for path in find_shards(packed / "train")]
    theirs = [*webdataset.WebDataset(urls, shardshuffle=False)]
    assert len(theirs) == 40
    assert json.loads(theirs[0]["json"])["label"] in ("a", "b")


def test_sound_inside_a_shard_is_read_like_a_file(tmp_path: Path):
    wave = np.sin(np.arange(20000) / 20)[None].astype(np.float32) / 2
    shard = tmp_path / "x.tar"
    with TarWriter(shard) as writer:
        for suffix in ("wav", "flac", "ogg", "opus", "mp3"):
            write(tmp_path / f"a.{suffix}", wave, 16000)
            writer.write(f"a.{suffix}", (tmp_path / f"a.{suffix}").read_bytes())
        writer.write("cut.ogg", (tmp_path / "a.ogg").read_bytes()[:-400])
    for suffix in ("wav", "flac", "ogg", "opus", "mp3"):
        whole, rate = read(tmp_path / f"a.{suffix}")
        inside, inside_rate = read(shard / f"a.{suffix}")
        assert rate == inside_rate and np.array_equal(whole, inside)
        assert info(shard / f"a.{suffix}").frames == 20000
    with AudioReader(shard / "a.flac") as reader:
        reader.seek(5000)
        assert np.array_equal(reader.read(10), read(tmp_path / "a.flac")[0][:, 5000:5010])
    with pytest.raises(InputError, match="truncated"):
        read(shard / "cut.ogg")
    with pytest.raises(InputError, match="has no such member"):
        read(shard / "b.wav")


def test_patterns_name_shards_as_a_shell_would(tmp_path: Path):
    assert list(braced("x-{08..10}.{a,b}")) == [f"x-{n}.{c}" for n in ("08", "09", "10") for c in "ab"]
    for name in ("000.tar", "001.tar", "other.tar"):
        with TarWriter(tmp_path / name) as writer:
            writer.write("a.txt", b"x")
    assert [path.name for path in find_shards(tmp_path / "0*.tar")] == ["000.tar", "001.tar"]
    assert len(find_shards(tmp_path)) == 3
    with pytest.raises(InputError, match=r"002.tar: no such shard \(1 of 3 are missing\)"):
        find_shards(tmp_path / "{000..002}.tar")
    assert is_shards(tmp_path)
    (tmp_path / "a.wav").write_bytes(b"")
    assert not is_shards(tmp_path)  # recordings, and the archive that they came in


def test_what_is_wrong_with_shards_is_said(packed: Path, tmp_path: Path):
    first = packed / "train/000000.tar"
    (tmp_path / "cut.tar").write_bytes(first.read_bytes()[:-11000])
    with pytest.raises(InputError, match="truncated"):
        members(tmp_path / "cut.tar")
    (tmp_path / "none.tar").write_bytes(b"x" * 2000)
    with pytest.raises(InputError, match="is not a tar file"):
        members(tmp_path / "none.tar")
    with TarWriter(tmp_path / "odd.tar") as writer:
        writer.write("a.txt", b"x")
    for change, message in (
        ({"root": str(first)}, "one shard alone"),
        ({"root": str(packed / "train"), "balanced": True}, "data.balanced needs a look at every sample"),
        ({"root": str(tmp_path / "odd.tar"), "valid_root": str(first)}, "expected one sound, such as flac, it has txt"),
    ):
        with pytest.raises(InputError, match=message):
            check(replace(settings(packed), **change))
    with pytest.raises(InputError, match="holds shards already"):
        pack(settings(packed), packed)
    with pytest.raises(InputError, match="twice"), TarWriter(tmp_path / "twice.tar") as writer:
        writer.write("a.txt", b"x")
        writer.write("a.txt", b"y")
    assert not list(tmp_path.glob("*twice*"))


def test_counts_come_from_the_index_where_it_fits(packed: Path, tmp_path: Path):
    shards = find_shards(packed / "train")
    assert counts(shards) == [7, 7, 7, 7, 7, 5] == [len(samples(shard)) for shard in shards]
    for path in shards:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    index = json.loads((packed / "train/index.json").read_text())
    index["shardlist"][0] |= {"nsamples": 3}
    index["shardlist"][1] |= {"nsamples": 3, "filesize": 1}
    (tmp_path / "index.json").write_text(json.dumps(index))
    held = find_shards(tmp_path)
    assert counts(held)[:2] == [3, 7]  # the second shard is not the one that was counted
    with pytest.raises(InputError, match=r"expected 3 samples, it has 7; remove index.json"):
        Stream(held, clip_of, 2)[0]


def test_command_packs_what_a_recipe_trains_on(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["recipe=digits/classifier", f"data.root={corpus}", "labels=[a,b]", "data.labels=[a,b]"]
    assert main(["pack", *arguments, "-o", str(tmp_path / "out"), "--json", "--samples", "20"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"train": {"samples": 40, "shards": 2}, "valid": {"samples": 4, "shards": 1}}
    assert main(["pack", *arguments]) == 2
    assert "-o FOLDER" in capsys.readouterr().err
    assert main(["pack", "recipe=enhance/small", f"data.root={corpus}", "-o", str(tmp_path / "no")]) == 2
    assert soundfile.info(next(corpus.glob("*.flac"))).samplerate == RATE
