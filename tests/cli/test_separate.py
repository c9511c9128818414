"""`fromnoise separate`: one file per source that add up to the mixture; names; what is refused, and what is said."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fromnoise.cli import main
from tests.tiny_separators import Split, make_separator, si_sdr, voices

__all__ = ["make_separator"]  # a fixture

RATE = 8000


@pytest.fixture
def separate(make_separator):
    """Run the command on arguments and return its exit code."""
    two = make_separator("two")

    def run(*arguments: object, model: Path | None = two) -> int:
        named = [] if model is None else ["-m", str(model)]
        return main(["separate", *map(str, arguments), *named, "-d", "cpu"])

    return run


@pytest.fixture
def call(tmp_path: Path) -> Path:
    """A mixture of four seconds."""
    path = tmp_path / "in" / "call.wav"
    path.parent.mkdir()
    soundfile.write(path, voices(4.0, RATE).sum(0), RATE)
    return path


def samples(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32", always_2d=True)[0]


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_each_voice_gets_a_file_beside_the_mixture_and_they_add_up(separate, tmp_path):
    truth = voices(6.0, RATE)
    soundfile.write(tmp_path / "a.b.wav", truth.sum(0), RATE, "FLOAT")
    assert separate(tmp_path / "a.b.wav", "--segment", 1, "--overlap", 0.5) == 0
    assert files(tmp_path / ".")[:3] == ["a.b.wav", "a.b_s1.wav", "a.b_s2.wav"]
    found = np.stack([samples(tmp_path / f"a.b_s{k}.wav")[:, 0] for k in (1, 2)])
    np.testing.assert_allclose(found.sum(0), truth.sum(0), atol=1e-6)
    first = int(si_sdr(truth[0], found[1]) > si_sdr(truth[0], found[0]))
    assert min(si_sdr(truth[0], found[first]), si_sdr(truth[1], found[1 - first])) > 40


@pytest.mark.parametrize(
    ("name", "rate", "channels", "subtype"),
    [
        ("a.wav", 44100, 2, "PCM_16"),
        ("a.wav", 8000, 1, "PCM_24"),
        ("a.FLAC", 22050, 1, "PCM_24"),
        ("a.ogg", 32000, 1, "VORBIS"),
        ("a.opus", 48000, 2, "OPUS"),
        ("a.mp3", 16000, 1, "MPEG_LAYER_III"),
    ],
)
def test_rate_length_and_kind_stay_and_channels_become_one(separate, tmp_path, capsys, name, rate, channels, subtype):
    kind = {".opus": "OGG", ".wav": "WAV"}.get(Path(name).suffix, Path(name).suffix[1:].upper())
    wave = np.repeat(voices(0.5, rate).sum(0)[:, None], channels, axis=1)
    soundfile.write(tmp_path / name, wave, rate, subtype, format=kind)
    assert separate(tmp_path / name, "-o", tmp_path / "out") == 0
    assert ("2 channels were averaged" in capsys.readouterr().err) == (channels == 2)
    for source in ("s1", "s2"):
        made = soundfile.info(tmp_path / "out" / f"a_{source}{Path(name).suffix}")
        assert (made.samplerate, made.channels, made.frames, made.subtype) == (rate, 1, len(wave), subtype)


def test_what_is_made_at_another_rate_adds_up_below_the_models_band(separate, tmp_path):
    slow = voices(3.0, RATE).sum(0)
    soundfile.write(tmp_path / "slow.wav", slow, RATE, "FLOAT")
    from fromnoise.data import audio

    fast = audio.resample(slow[None], RATE, 48000)[0]
    soundfile.write(tmp_path / "fast.wav", fast, 48000, "FLOAT")
    assert separate(tmp_path / "fast.wav") == 0
    total = samples(tmp_path / "fast_s1.wav")[:, 0] + samples(tmp_path / "fast_s2.wav")[:, 0]
    assert si_sdr(fast, total) > 60


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for i, name in enumerate(["a.wav", "b/a.wav", "b/c/d.flac", ".hidden/x.wav", "notes.txt"]):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".txt":
            path.write_text("not sound")
        else:
            soundfile.write(path, voices(0.3, RATE, seed=i).sum(0), RATE)
    return tmp_path / "tree"


def test_a_folder_keeps_its_tree(separate, tree, tmp_path):
    assert separate(tree, "-o", tmp_path / "out") == 0
    stems = {"a": "wav", "b/a": "wav", "b/c/d": "flac"}
    assert files(tmp_path / "out") == sorted(f"{stem}_s{k}.{end}" for stem, end in stems.items() for k in (1, 2))


def test_a_template_makes_a_folder_for_each_speaker(separate, tree, tmp_path):
    assert separate(tree, "-o", tmp_path / "out", "--template", "{source}/{name}") == 0
    names = [f"s{k}/{name}" for k in (1, 2) for name in ("a.wav", "b/a.wav", "b/c/d.flac")]
    assert files(tmp_path / "out") == sorted(names)
    assert separate(tree / "a.wav", "-o", tmp_path / "x", "--template", "v{index:02d}-{name}") == 0
    assert files(tmp_path / "x") == ["v01-a.wav", "v02-a.wav"]


def test_names_of_a_model_go_into_the_files(separate, make_separator, call, tmp_path):
    assert separate(call, "-o", tmp_path / "out", model=make_separator("noise", names=("speech", "noise"))) == 0
    assert files(tmp_path / "out") == ["call_noise.wav", "call_speech.wav"]


def test_names_that_are_no_part_of_a_file_name_cannot_leave_the_folder(separate, make_separator, call, tmp_path):
    assert separate(call, "-o", tmp_path / "out", model=make_separator("odd", names=("../../x y", "//"))) == 0
    assert files(tmp_path / "out") == ["call_s2.wav", "call_x-y.wav"]


@pytest.mark.parametrize("place", ["beside", "inside", "itself"])
@pytest.mark.parametrize("template", ["{name}_{source}", "{source}/{name}"])
def test_results_of_an_earlier_run_are_no_input(separate, tree, capsys, place, template):
    output = {"beside": [], "inside": ["-o", tree / "out"], "itself": ["-o", tree]}[place]
    assert separate(tree, *output, "--template", template) == 0
    before = files(tree)
    assert separate(tree, *output, "--template", template) == 0
    assert files(tree) == before
    assert len(before) == 5 + 3 * 2
    assert ("left out 6 files" in capsys.readouterr().out) == (place != "inside")


def test_patterns_leave_out_earlier_results_too(separate, tree):
    for _ in range(2):
        assert separate(tree / "b" / "*.wav") == 0
    assert [name for name in files(tree) if name.startswith("b/a")] == ["b/a.wav", "b/a_s1.wav", "b/a_s2.wav"]


def test_one_file_may_name_its_results(separate, call, tmp_path):
    assert separate(call, "-o", tmp_path / "out/talk.flac") == 0
    assert files(tmp_path / "out") == ["talk_s1.flac", "talk_s2.flac"]


@pytest.mark.parametrize("there", [False, True])
def test_two_folders_are_input_and_output(separate, call, tmp_path, there):
    if there:
        (tmp_path / "out").mkdir()
    assert separate(call.parent, tmp_path / "out") == 0
    assert files(tmp_path / "out") == ["call_s1.wav", "call_s2.wav"]
    assert files(call.parent) == ["call.wav"]


def test_two_folders_of_sound_are_two_inputs(separate, call, tree):
    assert separate(call.parent, tree) == 0
    assert "call_s1.wav" in files(call.parent)
    assert "a_s1.wav" in files(tree)


def test_the_same_seed_gives_the_same_bytes(separate, call, tmp_path):
    for name in "ab":
        assert separate(call, "-o", tmp_path / name, "--seed", 3) == 0
    for source in ("s1", "s2"):
        assert (tmp_path / f"a/call_{source}.wav").read_bytes() == (tmp_path / f"b/call_{source}.wav").read_bytes()


@pytest.mark.parametrize("mode", ["rescale", "clamp"])
def test_beyond_full_scale_all_sources_are_scaled_alike(separate, tmp_path, capsys, mode):
    loud = 5 * voices(2.0, RATE).sum(0)
    soundfile.write(tmp_path / "in.wav", loud, RATE, "FLOAT")
    for name, options in {"free": ["--subtype", "FLOAT"], "kept": ["--subtype", "PCM_16", "--clip-mode", mode]}.items():
        assert separate(tmp_path / "in.wav", "-o", tmp_path / name, *options) == 0
    free, kept = (np.stack([samples(tmp_path / f"{d}/in_s{k}.wav")[:, 0] for k in (1, 2)]) for d in ("free", "kept"))
    assert np.abs(free).max() > 1
    expected = free / np.abs(free).max() if mode == "rescale" else np.clip(free, -1, 1)
    np.testing.assert_allclose(kept, expected, rtol=0, atol=2 / 32768)
    said = capsys.readouterr().err
    assert said.count("was beyond full scale") == 1
    assert ("so all were scaled down" in said) == (mode == "rescale")


def test_json_says_what_was_done(separate, call, tmp_path, capsys):
    assert separate(call, "-o", tmp_path / "out", "--json", "-N", 4, "--sampler", "heun", "--segment", 1) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert shown.err == ""
    assert (found["model"], found["sources"], found["written"], found["failed"]) == ("two", ["s1", "s2"], 1, 0)
    assert (found["settings"]["steps"], found["settings"]["sampler"]) == (4, "heun")
    (file,) = found["files"]
    assert file["outputs"] == [str(tmp_path / f"out/call_s{k}.wav") for k in (1, 2)]
    assert (file["input"], file["error"], file["doubtful_seconds"], file["seconds"]) == (str(call), None, [], 4.0)
    assert file["network_calls"] == 3 * (2 * 4 - 1)  # three pieces; heun's last step is one of Euler


def test_plain_lines_name_the_files_and_quiet_says_nothing(separate, call, tmp_path, capsys):
    assert separate(call, "-o", tmp_path / "out", "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    assert separate(call, "-o", tmp_path / "out") == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{call} -> {tmp_path}/out/call_s1.wav and {tmp_path}/out/call_s2.wav: 4.0 s in ")


def test_existing_outputs_are_skipped_when_all_are_there(separate, call, tmp_path, capsys):
    assert separate(call, "-o", tmp_path / "out") == 0
    (tmp_path / "out/call_s1.wav").write_text("mine")
    assert separate(call, "-o", tmp_path / "out", "--skip-existing") == 0
    assert (tmp_path / "out/call_s1.wav").read_text() == "mine"
    assert "call_s2.wav are there already, skipped" in capsys.readouterr().out
    (tmp_path / "out/call_s2.wav").unlink()
    assert separate(call, "-o", tmp_path / "out", "--skip-existing") == 0
    assert len(samples(tmp_path / "out/call_s1.wav")) == 4 * RATE


def test_plot_draws_mixture_and_sources(separate, call, tmp_path):
    assert separate(call, "-o", tmp_path / "out", "--plot") == 0
    assert (tmp_path / "out/call_s1.wav.png").read_bytes().startswith(b"\x89PNG")


def test_a_join_where_the_voices_cannot_be_told_apart_is_said_with_its_place(separate, tmp_path, capsys):
    truth = voices(9.0, RATE, pauses=False)
    truth[:, 3 * RATE : 5 * RATE] = 0
    soundfile.write(tmp_path / "in.wav", truth.sum(0), RATE)
    assert separate(tmp_path / "in.wav", "--segment", 4, "--overlap", 0.5, "--json") == 0
    shown = capsys.readouterr()
    assert f"Warning: {tmp_path}/in.wav: the sources cannot be told apart where two pieces meet at 0:04" in shown.err
    assert json.loads(shown.out)["files"][0]["doubtful_seconds"] == pytest.approx([4.0], abs=0.1)


def test_three_speakers_asked_of_a_model_for_two(separate, make_separator, call, tmp_path, capsys):
    assert separate(call, "-o", tmp_path / "out", "--speakers", 3) == 2
    said = capsys.readouterr().err
    assert "the model 'two' separates 2 sources, but 3 are asked for" in said
    assert not (tmp_path / "out").exists()
    assert separate(call, "-o", tmp_path / "out", "--speakers", 7, model=None) == 2
    said = capsys.readouterr().err
    assert "no bundled model separates 7 speakers" in said
    assert "--model" in said
    three = make_separator("three", sources=3)
    assert separate(call, "-o", tmp_path / "out", "--speakers", 3, model=three) == 0
    assert files(tmp_path / "out") == ["call_s1.wav", "call_s2.wav", "call_s3.wav"]


def test_a_model_for_another_task_is_refused(separate, tiny_models, call, capsys):
    assert separate(call, model=tiny_models["regression"]) == 2
    assert "is for the task 'enhance'; expected one for 'separate'" in capsys.readouterr().err


@pytest.mark.parametrize("n", [1, 2, 100, 9000])
@pytest.mark.parametrize("channels", [1, 2])
def test_silence_stays_silence_at_any_length(separate, tmp_path, n, channels):
    soundfile.write(tmp_path / "x.wav", np.zeros((n, channels), np.float32), 44100)
    assert separate(tmp_path / "x.wav", "-o", tmp_path / "out") == 0
    for k in (1, 2):
        made = samples(tmp_path / f"out/x_s{k}.wav")
        assert made.shape == (n, 1)
        assert not made.any()


def test_one_silent_channel(separate, tmp_path, capsys):
    wave = np.stack([voices(1.0, RATE).sum(0), np.zeros(RATE, np.float32)], axis=1)
    soundfile.write(tmp_path / "x.wav", wave, RATE, "FLOAT")
    assert separate(tmp_path / "x.wav") == 0
    total = samples(tmp_path / "x_s1.wav") + samples(tmp_path / "x_s2.wav")
    np.testing.assert_allclose(total[:, 0], wave[:, 0] / 2, atol=1e-6)
    assert "x.wav: 2 channels were averaged to one" in capsys.readouterr().err


def test_mixtures_shorter_than_anything(separate, tmp_path):
    for n in (1, 2, 50):
        soundfile.write(tmp_path / f"{n}.wav", np.linspace(0.1, 0.2, n, dtype=np.float32), 44100, "FLOAT")
        assert separate(tmp_path / f"{n}.wav") == 0
        assert len(samples(tmp_path / f"{n}_s1.wav")) == n


def write_nan(path: Path) -> None:
    wave = voices(1.0, RATE).sum(0)
    wave[5000] = np.nan
    soundfile.write(path, wave, RATE, "FLOAT")


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (write_nan, "holds NaN or infinite samples"),
        (lambda path: path.write_bytes(b"these are words"), "is not audio that can be read"),
        (lambda path: path.write_bytes(b""), "is empty (0 bytes)"),
        (lambda path: soundfile.write(path, np.zeros(0), RATE), "holds no samples"),
        (lambda path: None, "no such file"),
    ],
    ids=["nan", "words", "empty", "no samples", "missing"],
)
def test_a_bad_file_is_named_and_the_others_are_done(separate, call, tmp_path, capsys, make, fault):
    make(tmp_path / "bad.wav")
    assert separate(tmp_path / "bad.wav", call, "-o", tmp_path / "out", "--json") == 1
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert (found["written"], found["failed"]) == (1, 1)
    assert fault in found["files"][0]["error"]
    assert "Traceback" not in shown.err
    assert files(tmp_path / "out") == ["call_s1.wav", "call_s2.wav"]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--template", "x"], "gives all sources one name; put {source} or {index} into it"),
        (["--template", "{name}"], "gives all sources one name"),
        (["--template", "{nam}_{source}"], "its fields are {name}, {source}, {index}"),
        (["--template", "{name.__class__}_{source}"], "has an unknown field"),
        (["--template", "{source"], "cannot be filled in"),
        (["--template", "{}_{source}"], "cannot be filled in"),
        (["--template", "../{name}_{source}"], "must name a file below the output"),
        (["--template", "/{name}_{source}"], "must name a file below the output"),
        (["--template", "{name}/{source}/"], "must name a file below the output"),
        (["--steps", "0"], "steps must lie between 1 and 10000, got 0"),
        (["--sampler", "magic"], "unknown sampler 'magic'"),
        (["--sampler", "pc:snr=loud"], "snr must be a number, got 'loud'"),
        (["--segment", "0"], "expected segment > 0"),
        (["--overlap", "-1"], "overlap >= 0"),
        (["--format", "doc"], "unknown --format 'doc'"),
        (["--clip-mode", "wrap"], "--clip-mode must be rescale, clamp or none"),
        (["--speakers", "0"], "but 0 are asked for"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_request_exits_with_2_before_any_work(separate, call, tmp_path, capsys, options, fault):
    assert separate(call, "-o", tmp_path / "out", *options) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("Error: ")
    assert fault in said
    assert said.count("\n") == 0
    assert not (tmp_path / "out").exists()


def test_no_input_is_overwritten_and_no_file_written_twice(separate, call, tmp_path, capsys):
    beside = call.with_name("call_s1.wav")
    beside.write_bytes(call.read_bytes())
    assert separate(call, beside) == 2
    assert f"{beside} would overwrite the input {beside}" in capsys.readouterr().err
    assert separate(call, beside, "-o", tmp_path / "out", "--template", "{source}") == 2
    assert "would both be written to" in capsys.readouterr().err
    assert beside.read_bytes() == call.read_bytes()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory that this process holds from /proc")
def test_memory_does_not_grow_with_the_file(separate, tmp_path, monkeypatch):
    held, plain = [], Split.forward

    def noted(*arguments):
        held.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE"))
        return plain(*arguments)

    monkeypatch.setattr(Split, "forward", noted)
    minute = (32767 * voices(60.0, RATE).sum(0)).astype(np.int16)
    with soundfile.SoundFile(tmp_path / "long.wav", "w", RATE, 1, "PCM_16") as file:
        for _ in range(5):
            file.write(minute)
    assert separate(tmp_path / "long.wav", "--segment", 5, "--overlap", 0.5) == 0
    assert len(held) == 60
    # Bytes. The mixture and the sources, all at once, would be 29 MB.
    assert max(held[30:]) - max(held[:15]) < 8e6
    assert len(samples(tmp_path / "long_s2.wav")) == 300 * RATE
