"""What is behind the tabs: the same sounds as command line and Python give, progress, and bad input in words."""

import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fromnoise.cli import main
from fromnoise.types import InputError

pytest.importorskip("matplotlib")

from fromnoise.web.desk import KEPT, Desk
from fromnoise.web.goods import Limits, Meter
from fromnoise.web.shelf import Shelf, meaning, steps_of

SMALL = ("enhance-small", "separate-small", "vocode-small", "digits-small")


@pytest.fixture(scope="module")
def desk(tmp_path_factory, tiny_models, text_model) -> Desk:
    names = (*SMALL, str(tiny_models["bridge"]), str(text_model))
    return Desk(Shelf(names), Limits(seconds=2, megabytes=0.5), tmp_path_factory.mktemp("made"))


@pytest.fixture
def sound(tmp_path):
    """The function (rate, channels, seconds, name, subtype) -> a file of noise with a slow swell."""

    def make(rate=16000, channels=1, seconds=0.5, name="a talk.wav", subtype="PCM_16", level=0.2) -> Path:
        n = int(rate * seconds)
        wave = level * np.random.default_rng(0).standard_normal((n, channels)) * np.linspace(0.2, 1, n)[:, None]
        soundfile.write(tmp_path / name, wave.clip(-1, 1), rate, subtype=subtype)
        return tmp_path / name

    return make


def samples(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32", always_2d=True)[0]


def require_same(made, folder: Path, tolerance: float = 0.0) -> None:
    """Command line and Python, run in `folder`, give the files of the page, in names, rates, formats and samples."""
    for way in ("command", "python"):
        for path in made.files:
            (folder / path.name).unlink(missing_ok=True)
        if way == "command":
            words = shlex.split(made.command)
            assert words[0] == "fromnoise"
            assert main(words[1:]) == 0
        else:
            exec(compile(made.python, "python", "exec"), {})
        for path in made.files:
            found = folder / path.name
            if not found.exists():
                found = folder / "generated" / path.name
            assert soundfile.info(found).subtype == soundfile.info(path).subtype
            assert soundfile.info(found).samplerate == soundfile.info(path).samplerate
            assert samples(found).shape == samples(path).shape
            assert np.abs(samples(found) - samples(path)).max() <= tolerance, way


# Off the model's rate, the command line resamples block by block: a float32 rounding, which 24 bits may show as a step.
STEP = 1.01 / 2**15


@pytest.mark.parametrize(
    ("how", "options", "tolerance"),
    [
        ({}, {}, 0),
        ({"rate": 44100, "channels": 2, "subtype": "PCM_24"}, {"dry": 0.25, "seed": 3, "steps": 2}, STEP),
    ],
)
def test_enhancing_is_that_of_command_line_and_python(desk, sound, monkeypatch, how, options, tolerance):
    path = sound(**how)
    monkeypatch.chdir(path.parent)
    made = desk.enhance(path, "enhance-small", **options)
    assert np.abs(samples(made.files[0]) - samples(path)).max() > 0.01
    require_same(made, path.parent, tolerance)


@pytest.mark.parametrize("how", [{"rate": 8000}, {"rate": 8000, "level": 2.0}], ids=["quiet", "loud"])
def test_separating_is_that_of_command_line_and_python(desk, sound, monkeypatch, how):
    path = sound(**how)
    monkeypatch.chdir(path.parent)
    made = desk.separate(path, "separate-small", seed=1)
    assert [file.name for file in made.files] == ["a talk_s1.wav", "a talk_s2.wav"]
    require_same(made, path.parent)


def test_vocoding_is_that_of_command_line_and_python(desk, sound, monkeypatch):
    path = sound(rate=22050, name="-speech.wav")  # a name that looks like an option
    monkeypatch.chdir(path.parent)
    made = desk.vocode(path, "vocode-small")
    require_same(made, path.parent)
    assert main(["mel", "./-speech.wav", "-o", "speech.safetensors"]) == 0
    again = desk.vocode(path.parent / "speech.safetensors", "vocode-small")
    assert len(samples(again.files[0])) >= len(samples(made.files[0]))
    require_same(again, path.parent)


def test_generating_is_that_of_command_line_and_python(desk, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = desk.generate("digits-small", "seven", 2, "draft", guidance=2.0, seed=4)
    assert "--steps 6" in made.command
    require_same(made, tmp_path)


def test_sounds_from_text_are_those_of_command_line_and_python(desk, text_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = desk.text(str(text_model), "rain, on 'leaves'", "wind", 0.1, 2, "best", guidance=3.0)
    assert "--steps 8" in made.command
    assert len(samples(made.files[0])) == 800
    require_same(made, tmp_path)


def test_qualities_are_half_the_steps_the_models_own_and_twice(desk, tiny_models):
    bridge = desk.shelf.load("enhance", str(tiny_models["bridge"]))
    assert [steps_of(bridge, quality) for quality in ("draft", "standard", "best")] == [2, None, 6]
    assert meaning(bridge) == "Sampling steps: draft 2, standard 3, best 6."
    assert steps_of(bridge, "best", 5) == 5
    single = desk.shelf.load("enhance", "enhance-small")
    assert [steps_of(single, quality) for quality in ("draft", "standard", "best")] == [None, None, None]
    assert "all qualities are the same" in meaning(single)


def test_every_step_of_every_piece_is_told(desk, sound, tiny_models):
    told: list[tuple[int, int]] = []
    desk.enhance(sound(channels=2), str(tiny_models["bridge"]), tell=lambda *at: told.append(at))
    assert told == [(k, 6) for k in range(1, 7)]
    told.clear()
    desk.enhance(sound(), "enhance-small", tell=lambda *at: told.append(at))
    assert told == [(k, 4) for k in range(1, 5)], "four shifts of one step"
    told.clear()
    desk.separate(sound(rate=8000), "separate-small", tell=lambda *at: told.append(at))
    assert told[-1] == (4, 4)
    told.clear()
    desk.generate("digits-small", "one", 2, "draft", tell=lambda *at: told.append(at))
    assert told[-1][0] == told[-1][1]


def test_a_meter_counts_the_steps_of_all_runs():
    told = []
    meter = Meter(lambda *at: told.append(at), 2)
    for i in (0, 1, 2, 0, 1, 2):
        meter(i, 3, None)
    assert told == [(k, 6) for k in range(1, 7)]


def test_what_the_listener_raises_ends_the_work_and_frees_the_desk(desk, sound, tiny_models):
    class Enough(Exception):
        pass

    def tell(done: int, total: int) -> None:
        raise Enough

    before = set(desk.folder.iterdir())
    with pytest.raises(Enough):
        desk.enhance(sound(), str(tiny_models["bridge"]), tell=tell)
    assert set(desk.folder.iterdir()) == before
    assert desk.enhance(sound(), str(tiny_models["bridge"])).files[0].exists()


def test_warnings_are_notes_and_old_results_make_room(desk, sound):
    made = desk.separate(sound(rate=8000, channels=2), "separate-small")
    assert made.notes == ("2 channels were averaged to one; a separator hears one channel",)
    for seed in range(KEPT + 2):
        made = desk.generate("digits-small", "two", steps=1, seed=seed)
    assert len(list(desk.folder.iterdir())) == KEPT
    assert made.picture.read_bytes().startswith(b"\x89PNG")


def spoilt(kind: str, folder: Path) -> Path | None:
    """A file that cannot be used."""
    path = folder / f"{kind}.wav"
    wave = np.full(16000, 0.1, np.float32)
    match kind:
        case "none":
            return None
        case "empty":
            path.write_bytes(b"")
        case "prose":
            path.write_text("this is no sound at all " * 20)
        case "missing":
            pass
        case "no samples":
            soundfile.write(path, wave[:0], 16000)
        case "not a number":
            wave[100] = np.nan
            soundfile.write(path, wave, 16000, subtype="FLOAT")
        case "cut":
            soundfile.write(path, wave, 16000)
            path.write_bytes(path.read_bytes()[:5000])
        case "long":
            soundfile.write(path, np.tile(wave, 3), 16000)
        case "large":
            soundfile.write(path, np.tile(wave, 20), 16000, subtype="FLOAT")
        case "many channels":
            soundfile.write(path, np.tile(wave[:100, None], 9), 16000)
        case "slow":
            soundfile.write(path, wave, 1)
        case _:
            soundfile.write(path, wave, 16000)
    return path


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("none", "there is no sound yet"),
        ("empty", "empty.wav: is empty"),
        ("prose", "prose.wav: "),
        ("missing", "missing.wav: no such file"),
        ("no samples", "holds no samples"),
        ("not a number", "holds NaN or infinite samples"),
        ("cut", "truncated"),
        ("long", "long.wav: 3.0 s is too long; this page takes up to 2 s"),
        ("large", "large.wav: has 1.3 MB; this page takes up to 0.5 MB"),
        ("many channels", "has 9 channels; this page takes up to 8"),
        ("slow", "Hz"),
    ],
)
@pytest.mark.parametrize("tab", ["enhance", "separate", "vocode"])
def test_a_bad_file_is_a_sentence_without_the_servers_folders(desk, tmp_path, tab, kind, sentence):
    with pytest.raises(InputError) as caught:
        getattr(desk, tab)(spoilt(kind, tmp_path), f"{tab}-small")
    assert sentence in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"steps": 0}, "the number of steps must lie between 1 and 10000, got 0"),
        ({"steps": 2.5}, "the number of steps must be a whole number"),
        ({"seed": -1}, "the seed must lie between 0"),
        ({"seed": None}, "the seed must be a whole number"),
        ({"sampler": "magic"}, "unknown sampler 'magic'; choose one of"),
        ({"sampler": "ddim:eta=lots"}, "eta must be a number"),
        ({"quality": "superb"}, "unknown quality 'superb'; choose one of: draft, standard, best"),
        ({"dry": 1.5}, "the share of the input to keep must lie between 0 and 1"),
        ({"model": "separate-small"}, "no model 'separate-small' here"),
        ({"model": "/etc"}, "no model '/etc' here"),
    ],
)
def test_a_bad_setting_is_a_sentence(desk, sound, options, sentence):
    with pytest.raises(InputError) as caught:
        desk.enhance(sound(), **{"model": "enhance-small", **options})
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"label": "eleven"}, "unknown label 'eleven'"),
        ({"count": 0}, "the number of sounds must lie between 1 and 4"),
        ({"guidance": -1.0}, "guidance must be a number from 0"),
    ],
)
def test_a_bad_wish_is_a_sentence(desk, options, sentence):
    with pytest.raises(InputError) as caught:
        desk.generate("digits-small", **options)
    assert sentence in str(caught.value)


def test_a_generated_sound_keeps_the_limit_of_length(desk):
    with pytest.raises(InputError, match=r"1\.0 s is too long; this page takes up to 0\.5 s"):
        Desk(desk.shelf, Limits(seconds=0.5), desk.folder).generate("digits-small")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"text": "  "}, "the text is empty"),
        ({"seconds": 3.0}, "3.0 s is too long; this page takes up to 2 s"),
        ({"seconds": 0.0}, "expected a sound of 1 to"),
    ],
)
def test_a_bad_text_is_a_sentence(desk, text_model, options, sentence):
    with pytest.raises(InputError) as caught:
        desk.text(str(text_model), **{"text": "rain", **options})
    assert sentence in str(caught.value)


def test_a_mel_of_another_definition_is_a_sentence(desk, tmp_path):
    np.save(tmp_path / "other.npy", np.zeros((40, 20), np.float32))
    with pytest.raises(InputError) as caught:
        desk.vocode(tmp_path / "other.npy", "vocode-small")
    assert "80" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_the_shelf_offers_what_has_a_tab(text_model):
    shelf = Shelf()
    assert [shelf.names(tab)[0] for tab in ("enhance", "separate", "vocode", "generate")] == list(SMALL)
    assert Shelf([str(text_model)]).names("text") == [str(text_model)]
    with pytest.raises(InputError, match="is for the task 'classify'; the page has: enhance"):
        Shelf(["digits-classifier"])
    with pytest.raises(InputError, match="no model 'nowhere'"):
        Shelf(["nowhere"])
    with pytest.raises(InputError, match="limits must be above 0"):
        Limits(seconds=0)
