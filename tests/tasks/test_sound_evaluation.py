"""Sets of sounds beside real ones: embedders, what was asked for, the rows of the report, and the command."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from fromnoise import hub
from fromnoise.cli import main
from fromnoise.data.places import Clip, find_clips
from fromnoise.evaluation import sounds
from fromnoise.evaluation.birdnet import SAMPLE_RATE, BirdNET, Detection
from fromnoise.evaluation.clap import CLAP, pieces
from fromnoise.evaluation.distances import EMBEDDED, SOUND_METRICS
from fromnoise.evaluation.embedders import EMBEDDERS, ClassifierFeatures, LogMel, embedder_of, form
from fromnoise.evaluation.judged import label_place
from fromnoise.evaluation.run import Results
from fromnoise.evaluation.sound_sets import SoundSet, Tools, Wish
from fromnoise.tasks import ClassificationConfig, ClassificationModel, Classifier
from fromnoise.types import InputError

RATE = 4000
LABELS = ("low_hum", "high")
MEL = {"name": "mel", "sample_rate": RATE, "n_fft": 128, "hop": 64, "win": 128, "n_mels": 8, "fmax": None,
       "log": "10", "floor": 1e-10}  # fmt: skip


class ByPitch(torch.nn.Module):
    """Stands for a trained network: the logits are the levels of the lower and the upper half of the bands."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = image.mean(dim=(1, 3))
        return torch.stack([features[:, :4].amax(1), features[:, 4:].amax(1)], 1), features


@pytest.fixture(scope="module")
def judge() -> Classifier:
    network = {"name": "resnext", "depth": 11, "cardinality": 1, "base_width": 4, "widen_factor": 1}
    model = ClassificationModel(ClassificationConfig(mel=MEL, network=network, labels=LABELS, seconds=0.5))
    model.network = ByPitch()
    model.register_parameter("place", torch.nn.Parameter(torch.zeros(())))
    return Classifier(model, "judge")


def tone(label: str, seed: int, seconds: float = 0.5, rate: int = RATE) -> np.ndarray:
    draw = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    hertz = (1500.0 if label == "high" else 200.0) * draw.uniform(0.8, 1.2)
    return (0.2 * np.sin(2 * np.pi * hertz * t) + 1e-3 * draw.standard_normal(len(t))).astype(np.float32)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """data: a table with labels and captions; made: named by what was asked for; twins: named like the data."""
    root = tmp_path_factory.mktemp("sounds")
    lines = ["file,label,caption,split"]
    for folder in ("data", "made", "twins"):
        (root / folder).mkdir()
    for i in range(16):
        label = LABELS[i % 2]
        soundfile.write(root / f"data/s{i}.wav", tone(label, i), RATE)
        soundfile.write(root / f"twins/s{15 - i}.wav", tone(label, 50 + i), RATE)
        soundfile.write(root / f"made/{('low-hum', 'high')[i % 2]}_{i}.wav", tone(label, 100 + i), RATE)
        lines.append(f"s{i}.wav,{label},{'a deep tone' if i % 2 == 0 else 'a whistle'},test")
    (root / "data/metadata.csv").write_text("\n".join(lines))
    return root


class Reader(CLAP):
    """Stands for CLAP: the direction tells the pitch of a sound and the word of a text."""

    sample_rate = 8000

    def __init__(self) -> None: ...

    def __call__(self, wave: np.ndarray) -> np.ndarray:
        high = np.square(np.diff(wave)).sum() / np.square(wave).sum()
        return np.array([[1.0, 0.0]]) if high < 0.3 else np.array([[0.0, 1.0]])

    def texts(self, texts: list[str]) -> np.ndarray:
        return np.array([[0.0, 1.0] if "whistle" in text or "high" in text else [1.0, 0.0] for text in texts])


@pytest.fixture(scope="module")
def tools(judge) -> Tools:
    return Tools((LogMel(), ClassifierFeatures(judge), Reader()))


def test_folders_are_scored_by_what_they_were_asked_for(place, tools):
    contestants = [Results("made", place / "made"), Results("twins", place / "twins")]
    told: list[tuple[int, int]] = []
    result = sounds.evaluate_sounds(
        contestants,
        find_clips(place / "data", "test"),
        tools,
        progress=lambda done, total, _: told.append((done, total)),
    )
    assert [row.label for row in result.rows] == ["data, half by half", "made", "twins"]
    assert told[-1] == (48, 48)
    half, made, twins = result.rows
    for row in result.rows:
        assert len(row.files) == 16 and set(row.whole) | set(row.reasons_whole) == {
            f"{kind}_{name}" for kind in ("fad", "fad_inf", "kad") for name in ("logmel", "classifier", "clap")
        }
    assert np.mean(made.column("accuracy")) == 1.0 and np.mean(made.column("clap_score")) == pytest.approx(1.0)
    # A twin was made for the clip whose name it has: of the other pitch, in a folder whose order would hide it.
    assert np.mean(twins.column("accuracy")) == 0.0 and np.mean(twins.column("clap_score")) == pytest.approx(0.0)
    assert np.mean(half.column("accuracy")) == 1.0
    assert made.whole["kad_logmel"].mean < 5 and made.whole["fad_classifier"].count == 16
    assert "at least 132 examples" in made.reasons_whole["fad_inf_logmel"]
    assert [example.name for example in result.examples] == ["a deep tone", "a whistle"]
    assert set(result.examples[0].waves) == {"data", "twins"}


def test_distances_grow_with_the_difference(place, tools):
    clips = find_clips(place / "data", "test")
    low = [clip for clip in clips if clip.label == "low_hum"]
    same, other = (SoundSet(tools, name) for name in ("same", "other"))
    data = SoundSet(tools, "data")
    for i, clip in enumerate(low):
        data.add(clip.path.name, soundfile.read(clip.path, dtype="float32")[0][None], RATE, Wish())
        same.add(f"{i}", tone("low_hum", 300 + i)[None], RATE, Wish())
        other.add(f"{i}", tone("high", 300 + i)[None], RATE, Wish())
    for metric in ("fad_logmel", "kad_logmel", "fad_classifier", "kad_classifier"):
        near, far = (one.row(data, [metric], 0).whole[metric].mean for one in (same, other))
        assert far > 5 * abs(near)
    assert same.notes["accuracy: no class was asked for"] == 8


def test_bad_files_are_told_and_left_out(place, tools, tmp_path):
    for i in range(4):
        soundfile.write(tmp_path / f"high_{i}.wav", tone("high", i), RATE)
    soundfile.write(tmp_path / "high_4.wav", np.full(2000, np.nan, np.float32), RATE, subtype="FLOAT")
    (tmp_path / "high_5.wav").write_bytes(b"no sound")
    soundfile.write(tmp_path / "dog_6.wav", tone("high", 6), RATE)
    result = sounds.evaluate_sounds([Results("made", tmp_path)], find_clips(place / "data", "test"), tools)
    row = result.rows[1]
    assert row.whole["fad_logmel"].missing == 2 and row.whole["fad_logmel"].count == 5
    bad = {
        Path(name).name: scores.reasons for name, scores in zip(row.files, row.scores, strict=True) if scores.reasons
    }
    assert set(bad) == {"high_4.wav", "high_5.wav"}
    assert "NaN" in bad["high_4.wav"]["fad_logmel"]
    assert "made: 1 of 7 sounds: accuracy: the classifier has no label 'dog'" in result.meta.skipped


@pytest.mark.parametrize(
    ("clip", "wish"),
    [
        (Clip(Path("rain-on-leaves_3.wav")), Wish("rain on leaves", "rain on leaves")),
        (Clip(Path("dog/1.wav"), "dog"), Wish("dog", "dog")),
        (Clip(Path("x.wav"), "sea_waves", facts={"caption": "waves"}), Wish("sea_waves", "waves")),
        (Clip(Path("known_1.wav")), Wish("cat", "a cat")),
        (Clip(Path("free_1.wav")), Wish()),
        (Clip(Path("untold.wav")), Wish()),
    ],
)
def test_what_a_sound_should_be(clip, wish):
    assert sounds.wish_of(clip, {"known_1": Wish("cat", "a cat")}) == wish


class Whistler:
    """A generator of texts, or of labels: a high tone where it is asked for."""

    sample_rate = RATE

    def __init__(self, labels: tuple[str, ...], reads_text: bool) -> None:
        self.name, self.labels, self.reads_text = "whistler", labels, reads_text
        self.asked: list[tuple[str | None, str | None, int]] = []

    def network_calls(self, steps: int | None, sampler: str | None) -> int:
        return steps or 3

    def batches(self, count: int, **told) -> Iterator[np.ndarray]:
        self.asked.append((told["label"], told["text"], count))
        high = "high" in (told["label"] or "") or "whistle" in (told["text"] or "")
        for i in range(count):
            yield tone("high" if high else "low_hum", told["seed"] + i)[None, None]


@pytest.mark.parametrize(
    ("labels", "reads_text", "asked", "right"),
    [
        ((), True, [(None, "a deep tone", 8), (None, "a whistle", 8)], 1.0),
        (LABELS, False, [("low_hum", None, 8), ("high", None, 8)], 1.0),
        ((), False, [(None, None, 16)], None),
    ],
)
def test_a_generator_makes_a_sound_for_each_of_the_data(place, tools, labels, reads_text, asked, right):
    model = Whistler(labels, reads_text)
    clips = find_clips(place / "data", "test")
    result = sounds.evaluate_sounds([model], clips, tools, guidance=(1.0, 2.0), steps=(5,))
    rows = result.rows[1:]
    assert [row.label for row in rows] == (
        ["whistler, 5 steps"] if right is None else [f"whistler, guidance {g}, 5 steps" for g in (1, 2)]
    )
    assert model.asked == asked * len(rows) and rows[0].network_calls == 5
    assert all(row.real_time_factor > 0 for row in rows)
    found = rows[0].column("accuracy")
    assert np.isnan(found).all() if right is None else np.mean(found) == right


def test_a_generator_that_lacks_a_label_is_refused_before_anything_is_made(place, tools):
    model = Whistler(("high",), False)
    with pytest.raises(InputError, match="labels low_hum, which 'whistler' cannot make"):
        sounds.evaluate_sounds([model], find_clips(place / "data", "test"), tools)
    assert model.asked == []


@pytest.mark.parametrize(("label", "place"), [("low-hum", 0), ("HIGH", 1), ("1", 1), ("2", None), ("dog", None)])
def test_a_label_is_known_by_its_words_or_its_number(label, place):
    assert label_place(label, LABELS) == place


def test_data_is_chosen_by_licence_and_number(tmp_path):
    lines = [f"s{i}.wav,{'CC BY-NC' if i % 2 else 'CC BY'}" for i in range(8)]
    (tmp_path / "metadata.csv").write_text("\n".join(["file,licence", *lines]))
    found = sounds.real_clips(str(tmp_path), "test", "NC", 3)
    assert [clip.path.name for clip in found] == ["s0.wav", "s4.wav", "s6.wav"]
    with pytest.raises(InputError, match="without the licence 'CC'"):
        sounds.real_clips(str(tmp_path), "test", "CC", None)


def test_scores_are_called_by_their_embedders(tools):
    assert tuple(EMBEDDERS) == EMBEDDED
    assert sounds.chosen_metrics((), tools) == tools.metrics
    assert set(tools.metrics) <= {*SOUND_METRICS, "accuracy"}
    with pytest.raises(InputError, match="'fad_vggish' is not among the embedders"):
        sounds.chosen_metrics(["fad_vggish"], tools)
    with pytest.raises(InputError, match="does not exist"):
        sounds.chosen_metrics(["fid"], tools)
    with pytest.raises(InputError, match="'logmel' twice"):
        Tools((LogMel(), LogMel()))


@pytest.mark.parametrize(
    ("text", "reason"),
    [("yamnet", "unknown embedder 'yamnet'"), ("logmel:x", "takes nothing"), ("vggish", "vggish:FILE"),
     ("vggish:no.pth", "no such file"), ("classifier:vocode-small", "expected a classifier")],
)  # fmt: skip
def test_wrong_embedders_are_explained(text, reason):
    with pytest.raises(InputError, match=reason):
        embedder_of(text)


def test_log_mels_of_short_and_long_sounds():
    embed = LogMel()
    assert [embed(np.ones(n, np.float32)).shape for n in (1, 8000, 23999, 24000)] == [(1, 64)] * 3 + [(2, 64)]
    assert np.isfinite(embed(np.zeros(5, np.float32))).all()


def test_clap_without_its_package_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install 'fromnoise\[text\]'"):
        embedder_of("clap")


def test_clap_runs_on_a_network_of_its_kind(tmp_path):
    transformers = pytest.importorskip("transformers")
    audio = {"hidden_size": 16, "patch_embeds_hidden_size": 8, "depths": [1, 1], "num_attention_heads": [2, 2],
             "num_hidden_layers": 2, "projection_dim": 12, "enable_fusion": False}  # fmt: skip
    text = {"vocab_size": 100, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 32, "max_position_embeddings": 90, "projection_dim": 12}  # fmt: skip
    config = transformers.ClapConfig(text_config=text, audio_config=audio, projection_dim=12)
    torch.manual_seed(0)
    transformers.ClapModel(config).save_pretrained(tmp_path)
    transformers.ClapFeatureExtractor(truncation="rand_trunc").save_pretrained(tmp_path)
    embed = CLAP(str(tmp_path))
    embed._tokenizer = lambda text, **_: transformers.BatchEncoding(
        {"input_ids": torch.tensor([[0, len(text), 2]]), "attention_mask": torch.ones(1, 3, dtype=torch.int64)}
    )
    wave = tone("high", 0, 11.5, 48000)
    rows = embed(wave)
    assert rows.shape == (2, 12) and embed.texts(["a dog", "two dogs"]).shape == (2, 12)
    assert np.array_equal(rows, embed(wave)), "no drawn crops"
    assert np.allclose(rows[:1], embed(wave[:480000]), atol=1e-5)


def test_clap_hears_at_most_ten_seconds_at_once():
    assert [len(piece) for piece in pieces(np.ones(2500), 100)] == [1000, 1000, 500]
    assert [len(piece) for piece in pieces(np.ones(1050), 100)] == [1000]
    assert [len(piece) for piece in pieces(np.ones(20), 100)] == [20]


@pytest.fixture
def birds(tmp_path) -> Path:
    """Three species of which the mean, its negative and 0 are the logits; as ONNX."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    weights = np.stack([np.full(144000, 10 / 144000), np.full(144000, -10 / 144000), np.zeros(144000)], 1)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["wave", "w"], ["logits"])], "birds",
        [helper.make_tensor_value_info("wave", TensorProto.FLOAT, [None, 144000])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, 3])],
        [numpy_helper.from_array(weights.astype(np.float32), "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "birds.onnx")
    (tmp_path / "labels.txt").write_text(
        "Turdus migratorius_American Robin\nPica pica_Eurasian Magpie\nGrus grus_Crane\n"
    )
    return tmp_path / "birds.onnx"


def test_birdnet_says_which_species_are_heard(birds):
    network = BirdNET(birds)
    wave = np.concatenate([np.ones(6 * SAMPLE_RATE), -np.ones(3 * SAMPLE_RATE), np.ones(SAMPLE_RATE // 2)])
    sure = 1 / (1 + np.exp(-10.0))
    found = network.detect(wave, merge=None)
    assert [(one.start, one.end, one.species.split("_")[1]) for one in found if one.confidence > 0.9] == [
        (0, 6, "American Robin"), (6, 9, "Eurasian Magpie"),
    ]  # fmt: skip
    assert found[0].confidence == pytest.approx(sure, abs=1e-6)
    (only,) = network.detect(wave, species=["pica pica"], threshold=0.9)
    assert only == Detection(6.0, 9.0, "Pica pica_Eurasian Magpie", only.confidence)
    assert [network.index(name) for name in ("american_robin", "Turdus migratorius", "GRUS-GRUS")] == [0, 0, 2]
    assert network(np.ones(100, np.float32)).shape == (1, 3)


def test_sounds_of_birds_are_scored_by_the_species_asked_for(birds):
    made = SoundSet(Tools((), BirdNET(birds)), "made")
    for name, level, label in (("a", 1.0, "american_robin"), ("b", 1.0, "Crane"), ("c", 1.0, "dog"), ("d", 1.0, "")):
        made.add(name, np.full((1, 3 * SAMPLE_RATE), level, np.float32), SAMPLE_RATE, Wish(label))
    assert [one.values["bird_top1"] for one in made.scores[:2]] == [1, 0]
    assert [one.values["bird_found"] for one in made.scores[:2]] == [1, 1]
    assert made.scores[1].values["bird_confidence"] == pytest.approx(0.5)
    assert set(made.notes) == {"bird_top1: BirdNET has no species 'dog'", "bird_top1: no species was asked for"}


def test_a_labels_file_of_another_network_is_refused(birds):
    (birds.parent / "labels.txt").write_text("a_b\n")
    with pytest.raises(InputError, match="3 classes and the labels file 1 lines"):
        BirdNET(birds)(np.ones(10, np.float32))
    (birds.parent / "labels.txt").unlink()
    with pytest.raises(InputError, match="expected one labels file"):
        BirdNET(birds)


def test_birdnet_runs_through_a_tflite_runtime(tmp_path, monkeypatch):
    class Interpreter:
        def __init__(self, model_path: str) -> None:
            self.tensors: dict[int, np.ndarray] = {}

        def allocate_tensors(self) -> None: ...
        def get_input_details(self) -> list[dict]:
            return [{"index": 4}]

        def get_output_details(self) -> list[dict]:
            return [{"index": 9}]

        def set_tensor(self, index: int, value: np.ndarray) -> None:
            assert index == 4 and value.shape == (1, 144000) and value.dtype == np.float32
            self.tensors[9] = np.array([[value.mean(), -20.0]])

        def invoke(self) -> None: ...
        def get_tensor(self, index: int) -> np.ndarray:
            return self.tensors[index]

    monkeypatch.setitem(sys.modules, "ai_edge_litert", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", SimpleNamespace(Interpreter=Interpreter))
    (tmp_path / "model.tflite").write_bytes(b"")
    (tmp_path / "model_Labels.txt").write_text("A a_First\nB b_Second\n")
    found = BirdNET(tmp_path / "model.tflite")(np.zeros(SAMPLE_RATE, np.float32))
    assert found == pytest.approx(np.array([[0.5, 1 / (1 + np.exp(20.0))]]))


def test_the_command_compares_folders(place, tmp_path, capsys, monkeypatch, judge):
    monkeypatch.setattr(hub, "load", lambda name, *_: judge)
    options = ["--embedder", "logmel,classifier:mine", "-o", str(tmp_path / "report"), "--quiet"]
    assert main(["evaluate", str(place / "made"), str(place / "data"), *options]) == 0
    assert capsys.readouterr().err == ""
    summary = json.loads((tmp_path / "report/summary.json").read_text())
    assert [row["label"] for row in summary["rows"]] == ["data, half by half", "made"]
    assert summary["rows"][1]["scores"]["accuracy"]["mean"] == 1.0
    assert summary["settings"]["embedders"] == ["logmel", "classifier:mine"]
    assert summary["metrics"]["fad_classifier"]["definition"].endswith("embedder classifier.")


def test_the_command_shows_single_scores_and_refuses_what_does_not_fit(place, capsys, monkeypatch, judge):
    monkeypatch.setattr(hub, "load", lambda name, *_: judge)
    where = [str(place / "made"), str(place / "data")]
    assert main(["evaluate", *where, "--embedder", "classifier", "--metrics", "accuracy"]) == 0
    assert "1.00" in capsys.readouterr().out
    assert main(["evaluate", *where, "--embedder", "logmel", "-n", "3"]) != 0
    assert "leave out --count" in capsys.readouterr().err


def test_the_list_of_embedders_says_what_each_needs(capsys):
    assert main(["evaluate", "--list-embedders"]) == 0
    shown = capsys.readouterr().out
    assert all(form(name) in shown for name in EMBEDDERS) and "288 MB" in shown
