"""`fromnoise evaluate` of generators, judged by a classifier, and of vocoders and autoencoders, beside no network."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import fromnoise
from fromnoise import hub
from fromnoise.cli import main
from fromnoise.data.audio import resample
from fromnoise.data.places import Clip
from fromnoise.evaluation import judged, resynthesis, sets
from fromnoise.evaluation.run import Results, item_seed
from fromnoise.evaluation.speech import measure
from fromnoise.frontends import Mel
from fromnoise.tasks import (
    ClassificationConfig,
    ClassificationModel,
    Classifier,
    GenerationConfig,
    GenerationModel,
    VocodingConfig,
    VocodingModel,
)
from fromnoise.types import InputError
from tests.tasks.test_autoencoder import SPECTRAL
from tests.tasks.test_autoencoder import make as make_autoencoder

RATE = 2000
LABELS = ("low", "high")
MEL = {"name": "mel", "sample_rate": RATE, "n_fft": 128, "hop": 64, "win": 128, "n_mels": 8, "fmax": None,
       "power": 2.0, "log": "10", "multiplier": 10.0, "floor": 1e-10}  # fmt: skip


def save(kind: str, model: torch.nn.Module, folder: Path, name: str) -> Path:
    card = {"task": kind, "name": name, "config": hub.config_dict(model.config), "licence": "MIT"}
    hub.save(model, card | {"sample_rate": RATE}, folder)
    return folder


def make_classifier() -> ClassificationModel:
    """Two classes of which the pitch decides: the mean level of the upper bands less that of the lower."""
    torch.manual_seed(0)
    network = {"name": "resnext", "depth": 11, "cardinality": 1, "base_width": 4, "widen_factor": 1}
    model = ClassificationModel(ClassificationConfig(mel=MEL, network=network, labels=LABELS, seconds=0.25)).train()
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(25):
        clean, labels = tones(16, step)
        optimiser.zero_grad()
        model.loss(clean, labels, torch.Generator().manual_seed(step)).mean().backward()
        optimiser.step()
    return model.eval()


def tones(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    t = np.arange(500) / RATE
    frequency = np.where(labels, 700.0, 150.0) * draw.uniform(0.8, 1.2, count)
    waves = 0.3 * np.sin(2 * np.pi * frequency[:, None] * t + draw.uniform(0, 6, (count, 1)))
    waves += 1e-3 * draw.standard_normal(waves.shape)
    return torch.from_numpy(waves.astype(np.float32))[:, None], torch.from_numpy(labels)


def make_generator(labels: tuple[str, ...]) -> GenerationModel:
    torch.manual_seed(0)
    backbone = {"name": "convnext", "features": 1, "width": 8, "layers": 1, "kernel": 3, "vector": 4 * bool(labels)}
    process = {"name": "vp", "num_steps": 4, "beta_max": 0.3}
    frontend = {"name": "wave", "sample_rate": RATE}
    return GenerationModel(
        GenerationConfig(frontend, backbone, process, num_steps=2, labels=labels, label_dim=4, seconds=0.25)
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A table of tones, a classifier that tells them apart, a generator with labels and one without."""
    root = tmp_path_factory.mktemp("generation")
    with torch.random.fork_rng(devices=[]):
        save("classify", make_classifier(), root / "judge", "judge")
        save("generate", make_generator(LABELS), root / "tiny", "tiny")
        save("generate", make_generator(()), root / "free", "free")
    (root / "data").mkdir()
    lines = ["file,label,split"]
    for split, count in {"train": 60, "test": 24}.items():
        waves, labels = tones(count, len(split))
        for i in range(count):
            soundfile.write(root / f"data/{split}{i}.wav", waves[i, 0].numpy(), RATE)
            lines.append(f"{split}{i}.wav,{labels[i]},{split}")
    (root / "data/metadata.csv").write_text("\n".join(lines))
    made = root / "made"
    made.mkdir()
    waves, labels = tones(20, 77)
    for i, label in enumerate(labels.tolist()):
        soundfile.write(made / f"{LABELS[label]}_{i}.wav", waves[i, 0].numpy(), RATE)
    return root


@pytest.fixture(scope="module")
def classifier(place) -> Classifier:
    return hub.load(place / "judge")


def evaluate(*arguments: object) -> int:
    return main(["evaluate", *map(str, arguments), "-d", "cpu"])


def test_a_generator_is_judged_beside_real_and_noisy_sounds(place, tmp_path, capsys):
    models = f"{place / 'tiny'},{place / 'made'}"
    options = ["-n", 12, "--classifier", place / "judge", "--guidance", "1,3", "--examples", 2, "--seed", 5]
    assert evaluate(models, place / "data", "-o", tmp_path / "report", *options) == 0
    assert "tiny, by label, guidance 3" in capsys.readouterr().out
    summary = json.loads((tmp_path / "report/summary.json").read_text())
    rows = {row["label"]: row for row in summary["rows"]}
    assert list(rows) == [
        "train", "test", "train, 20 dB noise", "tiny, by label, guidance 1", "tiny, by label, guidance 3", "tiny, free",
        "made",
    ]  # fmt: skip
    assert [row["files"] for row in rows.values()] == [60, 24, 60, 24, 24, 12, 20]

    def score(row: str, metric: str) -> float:
        return rows[row]["scores"][metric]["mean"]

    assert score("train", "fid") == pytest.approx(0, abs=1e-9) and score("train", "ndb") == 0
    assert score("train", "accuracy") > 0.95 and score("made", "accuracy") > 0.9
    assert score("made", "fid") < score("tiny, free", "fid")
    assert 1 <= score("tiny, free", "is") <= 2.0 and score("test", "is") > 1.5
    assert rows["tiny, free"]["scores"]["fid_class"]["mean"] is None
    assert rows["tiny, free"]["scores"]["fid_class"]["reasons"] == {"no class was asked for": 12}
    assert rows["test"]["scores"]["fid_class"]["deviation"] >= 0
    assert (rows["tiny, free"]["network_calls"], rows["train"]["network_calls"]) == (2, 0)
    assert summary["settings"]["classifier"] == "judge" and summary["settings"]["noise_db"] == 20
    with (tmp_path / "report/results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == sum(row["files"] for row in rows.values())
    assert "fid" not in lines[0] and lines[0]["accuracy"] in ("0.0", "1.0")
    page = (tmp_path / "report/report.html").read_text()
    assert 16 <= page.count("<audio") <= 20  # two of each class and row; those of the free row as they are heard
    assert "<h3>low</h3>" in page and "<h3>high</h3>" in page and 'class="grid small"' in page


def test_a_run_repeats_and_another_seed_differs(place, capsys):
    found = []
    for seed in (1, 1, 2):
        options = ["-n", 4, "--classifier", place / "judge", "--metrics", "fid", "--seed", seed, "--json"]
        assert evaluate(place / "free", place / "data", *options) == 0
        found.append(json.loads(capsys.readouterr().out)["rows"][3]["scores"]["fid"]["mean"])
    assert found[0] == found[1] != found[2]


def test_a_folder_alone_is_judged_where_a_classifier_is_named(place, capsys):
    options = ["--classifier", place / "judge", "--metrics", "accuracy,mis", "--limit", 10, "--json"]
    assert evaluate(place / "made", place / "data", *options) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["label"], row["files"]) for row in rows] == [
        ("train", 10), ("test", 10), ("train, 20 dB noise", 10), ("made", 20)
    ]  # fmt: skip


def test_a_sound_that_cannot_be_judged_is_named_and_left_out(place, classifier, tmp_path, capsys):
    bad = tmp_path / "some"
    bad.mkdir()
    for i in range(4):
        soundfile.write(bad / f"low_{i}.wav", tones(1, i)[0][0, 0].numpy(), RATE)
    (bad / "low_9.wav").write_bytes(b"not sound")
    options = ["--classifier", place / "judge", "--metrics", "fid,accuracy"]
    assert evaluate(bad, place / "data", *options) == 1
    assert "low_9.wav has no score" in capsys.readouterr().err
    made = judged.Judged(classifier, "x")
    made.add("a", np.full(9, np.nan, np.float32), RATE)
    made.add("b", np.zeros(0, np.float32), RATE)
    row = made.row(made, ("fid", "accuracy"))
    assert row.reasons("fid") == {"the sound holds NaN or infinite samples": 2}
    assert row.reasons("accuracy") == {"the sound holds NaN or infinite samples": 1, "the sound is empty": 1}


def test_noise_lies_20_db_below_the_recording():
    wave = tones(1, 0)[0][0, 0].numpy()
    noise = sets._noisy(wave, 3) - wave
    assert 10 * np.log10(np.square(wave).mean() / np.square(noise).mean()) == pytest.approx(20, abs=0.5)


def test_classes_of_files_come_from_folders_or_names(classifier):
    clips = [Clip(Path("low/x.wav"), "low"), Clip(Path("high_003.wav")), Clip(Path("1-2.wav"))]
    assert sets.labels_of(clips, classifier) == [0, 1, 1]
    assert sets.labels_of([*clips, Clip(Path("free_0.wav"))], classifier) == [-1] * 4


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["tiny", "--task", "vocode"], "is for the task 'generate', expected one for 'vocode'"),
        (["judge"], "is for the task 'classify', which is not evaluated; name it by --classifier"),
        (["tiny", "--classifier", "tiny"], "expected a classifier"),
        (["free", "--classifier", "judge", "--guidance", "2"], "no model here has labels"),
        (["tiny", "--classifier", "judge", "--guidance", "a"], "--guidance takes numbers"),
        (["tiny", "--classifier", "judge", "--metrics", "pesq_wb"], "unknown metric 'pesq_wb' of a set"),
        (["tiny", "--classifier", "judge", "--sampler", "magic"], "unknown sampler 'magic'"),
        (["noisy", "-n", "3"], "are for generators"),
        (["noisy", "--task", "classify"], "--task must be one of enhance, separate, vocode, generate"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_request_exits_with_2_and_one_sentence(place, capsys, arguments, fault):
    given = [place / a if (place / a).is_dir() else a for a in arguments]
    assert evaluate(given[0], place / "data", *given[1:]) == 2
    said = capsys.readouterr().err.strip()
    assert fault in said and said.count("\n") == 0


VOICE = 16000
SPEECH_MEL = {"name": "mel", "sample_rate": VOICE, "n_fft": 1024, "hop": 256, "win": 1024}


def make_vocoder(folder: Path) -> Path:
    torch.manual_seed(0)
    model = VocodingModel(
        VocodingConfig(
            mel=SPEECH_MEL,
            frontend={"name": "wave", "sample_rate": VOICE},
            backbone={"name": "wavenet", "residual_channels": 4, "skip_channels": 4, "num_layers": 2, "mel_bands": 80,
                      "mel_upsample": [16, 16]},
            process={"name": "vp", "num_steps": 8},
            num_steps=8,
        )
    )  # fmt: skip
    return save("vocode", model, folder, "tiny-vocoder")


@pytest.fixture(scope="module")
def speech(tmp_path_factory) -> Path:
    """Harmonic sounds of two speakers, and a vocoder."""
    root = tmp_path_factory.mktemp("vocoding")
    with torch.random.fork_rng(devices=[]):
        make_vocoder(root / "tiny")
    (root / "data/audio").mkdir(parents=True)
    lines = ["file,speaker,split"]
    for i in range(3):
        t = np.arange(8000) / VOICE
        f0 = 140 + 40 * i + 10 * np.sin(2 * np.pi * 3 * t)
        wave = sum(np.sin(2 * np.pi * k * np.cumsum(f0) / VOICE) / k for k in range(1, 9)) * 0.1
        soundfile.write(root / f"data/audio/s{i}.wav", wave * np.sin(2 * np.pi * t) ** 2, VOICE)
        lines.append(f"audio/s{i}.wav,{'anna' if i else 'ben'},test")
    (root / "data/metadata.csv").write_text("\n".join(lines))
    return root


def test_a_vocoder_is_scored_beside_griffin_lim_and_for_each_speaker(speech, tmp_path, capsys):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for i in range(3):
        wave, rate = soundfile.read(speech / f"data/audio/s{i}.wav")
        soundfile.write(theirs / f"s{i}_vocoded.wav", np.pad(wave, (0, 100)), rate, subtype="FLOAT")
    metrics = ["--metrics", "mr_stft,log_mel_l1,mcd,f0_rmse,vuv_f1"]
    models = f"{speech / 'tiny'},{theirs}"
    assert evaluate(models, speech / "data", "-o", tmp_path / "report", *metrics, "--steps", "2,3") == 0
    assert "anna: 2 files" in capsys.readouterr().out
    summary = json.loads((tmp_path / "report/summary.json").read_text())
    rows = {row["label"]: row for row in summary["rows"]}
    assert list(rows) == ["griffin-lim", "tiny-vocoder, 2 steps", "tiny-vocoder, 3 steps", "theirs"]
    mean = {label: {name: score["mean"] for name, score in row["scores"].items()} for label, row in rows.items()}
    assert mean["theirs"] == pytest.approx({"mr_stft": 0, "log_mel_l1": 0, "mcd": 0, "f0_rmse": 0, "vuv_f1": 1})
    assert 0 < mean["griffin-lim"]["mr_stft"] < mean["tiny-vocoder, 3 steps"]["mr_stft"]
    assert mean["griffin-lim"]["vuv_f1"] > 0.8
    assert [row["network_calls"] for row in rows.values()] == [0, 2, 3, 0]
    assert rows["griffin-lim"]["real_time_factor"] > 0
    assert {name: group["files"] for name, group in summary["groups"].items()} == {"anna": 2, "ben": 1}
    one = summary["groups"]["ben"]["rows"][0]["scores"]["mr_stft"]
    assert (one["count"], one["mean"]) == (1, pytest.approx(_of_file(tmp_path, "audio/s0", "griffin-lim")))
    with (tmp_path / "report/summary.csv").open() as file:
        assert [line["group"] for line in csv.DictReader(file)] == [""] * 4 + ["ben"] * 4 + ["anna"] * 4
    page = (tmp_path / "report/report.html").read_text()
    assert "<h2>anna: 2 files</h2>" in page and "<figcaption>noisy" not in page and "<figcaption>griffin-lim" in page


def _of_file(folder: Path, name: str, model: str) -> float:
    with (folder / "report/results.csv").open() as file:
        return next(float(x["mr_stft"]) for x in csv.DictReader(file) if (x["file"], x["model"]) == (name, model))


def test_folders_of_vocoded_files_alone_need_the_task(speech, capsys):
    audio = speech / "data/audio"
    assert evaluate(audio, speech / "data", "--task", "vocode", "--metrics", "mr_stft", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["label"] for row in found["rows"]] == ["griffin-lim", "audio"]
    assert found["rows"][1]["scores"]["mr_stft"]["mean"] == 0


def test_an_autoencoder_is_scored_beside_its_front_end(speech, tmp_path, capsys):
    stereo = hub.config_dict(make_autoencoder().model.config)
    pair = {name: stereo[name] | {"in_channels": 2} for name in ("encoder", "backbone")}
    one, two = make_autoencoder(**SPECTRAL), make_autoencoder(**pair)
    for name, autoencoder in {"one": one, "two": two}.items():
        autoencoder.name = name
        fromnoise.save_pretrained(autoencoder, tmp_path / name)
    models, metrics = f"{tmp_path / 'one'},{tmp_path / 'two'}", ["--metrics", "si_sdr"]
    assert evaluate(models, speech / "data", *metrics, "--steps", "2", "--seed", "3", "--limit", "1", "--json") == 0
    rows = {row["label"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert list(rows) == ["front end", "one, 2 steps", "two, 2 steps"]
    assert [row["network_calls"] for row in rows.values()] == [0, 2, 2]
    wave, rate = soundfile.read(speech / "data/audio/s0.wav", dtype="float32")
    inside = np.asarray(resample(wave[None], rate, one.sample_rate))
    frontend = one.model.frontend
    alone = frontend.decode(frontend.encode(torch.from_numpy(inside)[None]), inside.shape[1])[0].numpy()
    wanted = measure(inside, alone, one.sample_rate, ("si_sdr",)).values["si_sdr"]
    assert rows["front end"]["scores"]["si_sdr"]["mean"] == pytest.approx(wanted, rel=1e-4)
    for label, autoencoder in {"one, 2 steps": one, "two, 2 steps": two}.items():
        made = autoencoder(inside, autoencoder.sample_rate, steps=2, seed=item_seed(3, "audio/s0"))
        wanted = measure(inside, made.mean(axis=0, keepdims=True), one.sample_rate, ("si_sdr",)).values["si_sdr"]
        assert rows[label]["scores"]["si_sdr"]["mean"] == pytest.approx(wanted, rel=1e-4)
    assert evaluate(speech / "data/audio", speech / "data", "--task", "autoencode") == 2
    assert "expected an autoencoder among the models" in capsys.readouterr().err


def test_magnitudes_from_a_mel_are_not_negative_and_have_that_mel():
    mel = Mel(sample_rate=VOICE, n_fft=512, hop=128, win=512, n_mels=20)
    wave = torch.from_numpy(np.random.default_rng(0).standard_normal(4000)).float()[None, None] * 0.1
    given = mel.encode(wave)
    found = resynthesis.magnitudes(given, mel)
    assert (found >= 0).all()
    from fromnoise.frontends.mel import filterbank

    again = torch.tensor(filterbank(mel), dtype=found.dtype) @ found
    assert (again.log() - given).abs().mean() < 0.05


def test_recordings_are_found_once_and_grouped_by_speaker(speech, tmp_path):
    pairs, groups = resynthesis.find_recordings(speech / "data")
    assert [pair.name for pair in pairs] == ["audio/s0", "audio/s1", "audio/s2"]
    assert groups == {"ben": ("audio/s0",), "anna": ("audio/s1", "audio/s2")}
    for suffix in ("wav", "flac"):
        soundfile.write(tmp_path / f"a.{suffix}", np.zeros(10), VOICE)
    with pytest.raises(InputError, match="two recordings are called 'a'"):
        resynthesis.find_recordings(tmp_path)


def test_a_result_beside_the_others_is_found_only_where_that_is_asked_for(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(10), VOICE)
    pair = resynthesis.Pair("room/a", tmp_path, tmp_path)
    assert Results("x", tmp_path, flat=True).path_of(pair) == tmp_path / "a.wav"
    with pytest.raises(InputError, match="found none"):
        Results("x", tmp_path).path_of(pair)
