"""Vocoders and mel files: what a result may depend on, and what is refused.

Two tiny vocoders: "wavenet" samples a wave in three stochastic steps under PriorGrad's noise, "magnitude" estimates
log-magnitudes in one step and finds phases by Griffin-Lim. Their weights are as drawn.
"""

import dataclasses
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from fromnoise.data.mels import (
    UNDEFINED,
    MelReader,
    MelWriter,
    SoundMel,
    differences,
    load_mel,
    mel_stem,
    open_frames,
    save_mel,
)
from fromnoise.frontends import MELS, Mel
from fromnoise.frontends.mel import DEFINITIONS
from fromnoise.frontends.resample import resample
from fromnoise.objectives import DiscreteTime, Objective
from fromnoise.tasks import Vocoder, VocodingModel
from fromnoise.types import InputError
from tests.tiny_vocoders import MEL, RATE, SPEC, configs, vocoder

KINDS = tuple(configs())


def wave(n: int, seed: int = 0) -> np.ndarray:
    swell = 0.5 + 0.4 * np.sin(np.arange(n) / 700)
    return (0.2 * swell * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def mel_of(n: int, seed: int = 0) -> np.ndarray:
    return vocoder("wavenet").mel(wave(n, seed), RATE)


# -- the vocoder --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_equal_the_whole(kind):
    """To 1e-4 of the spread away from the ends; float32 sums in another order are all that differs."""
    made, mel = vocoder(kind), mel_of(12000)
    whole = made(mel, seed=3, segment=100.0)
    pieces = made(mel, seed=3, segment=0.2)
    chunking = made.chunking(0.2, made.network_calls())
    assert mel.shape[1] > 2 * chunking["segment"] - 2 * chunking["context"]  # there is more than one piece
    inner = slice(MEL.hop * 4, -MEL.hop * 4)
    assert whole.std() > 1e-3
    np.testing.assert_allclose(pieces[inner], whole[inner], rtol=0, atol=1e-4 * whole.std())


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_depends_on_seed_and_mel_alone(kind):
    made = vocoder(kind)
    mels = np.stack([mel_of(3000, 1), mel_of(3000, 2)])
    both = made(mels, seed=5)
    assert both.shape == (2, mels.shape[2] * MEL.hop)
    np.testing.assert_array_equal(both, made(mels, seed=5))
    for i in range(2):
        np.testing.assert_allclose(made(mels[i], seed=5 + i), both[i], rtol=0, atol=1e-6)
    other = made(mels[0], seed=6)
    assert (np.abs(other - both[0]).max() > 1e-3) == (kind == "wavenet")  # the other draws nothing


def test_numpy_gives_numpy_and_torch_torch_and_the_length_can_be_chosen():
    made = vocoder("wavenet")
    mel = torch.from_numpy(mel_of(2000))
    sound = made(mel)
    assert isinstance(sound, torch.Tensor)
    np.testing.assert_array_equal(sound.numpy(), made(mel.numpy()))
    np.testing.assert_array_equal(made(mel.numpy(), length=2000), sound.numpy()[:2000])
    assert not made(mel.numpy(), length=len(sound) + 7)[len(sound) :].any()
    with pytest.raises(InputError, match="at least one sample, got -1"):
        made(mel, length=-1)


def test_a_mel_of_a_recording_at_another_rate():
    made = vocoder("wavenet")
    assert made.mel(wave(4000), 2 * RATE).shape == (MEL.n_mels, MEL.frames(2000))
    batch = made.mel(torch.from_numpy(np.stack([wave(3000), wave(3000, 1)])), RATE)
    torch.testing.assert_close(batch[1], torch.from_numpy(mel_of(3000, 1)), rtol=0, atol=1e-5)
    for given, words in [(np.zeros(0, np.float32), "n >= 1"), (np.full(9, np.nan, np.float32), "NaN")]:
        with pytest.raises(InputError, match=words):
            made.mel(given, RATE)


def test_the_prior_follows_the_energy_of_the_mel():
    """s is at its floor in silence, at 1 where it is loud, and a silent network passes on noise of that deviation."""
    loud = np.concatenate([np.zeros(4000, np.float32), 8 * wave(8000)])
    made = vocoder("wavenet")
    mel = torch.from_numpy(made.mel(loud, RATE))[None]
    scale = made.model.energy(mel)[0]
    assert scale[:100].max() == pytest.approx(0.1)
    assert scale[200:-2].mean() > 0.9
    config = dataclasses.replace(configs()["wavenet"], num_steps=1)
    torch.manual_seed(0)
    silent = Vocoder(VocodingModel(config))  # its last layer is zero: x0' = x_1 / clean(1)
    sound = silent(mel[0].numpy(), seed=0)
    clean = float(silent.model.process.weights(torch.ones(1)).clean)
    assert sound[:3000].std() * clean == pytest.approx(0.1, rel=0.05)
    assert sound[6500:].std() * clean > 0.85


def test_the_loss_under_the_shaped_prior_is_priorgrads():
    """E (z - out)^2 / s^2 with z ~ N(0, s^2): for a network that is zero, the mean of squared unit noise."""
    torch.manual_seed(0)
    model = VocodingModel(configs()["wavenet"])
    clips = torch.from_numpy(np.stack([wave(4000), 20 * wave(4000, 1)]))[:, None]
    losses = model.loss(clips, Objective(DiscreteTime()), torch.Generator().manual_seed(0))
    assert losses.tolist() == pytest.approx([1, 1], rel=0.1)


@pytest.mark.parametrize(
    "changes",
    [
        {"floor": 1e-10},
        {"floor": 1e-10, "log": "10", "multiplier": 20.0},
        {"floor": 1e-10, "log": "10", "multiplier": 20.0, "low": -200.0, "high": 60.0},
        {"floor": 1e-20, "log": "10", "multiplier": 10.0, "power": 2.0},
    ],
)
def test_the_energy_of_a_frame_is_that_of_its_magnitudes(changes):
    """sqrt(sum M^2) for magnitudes M, sqrt(sum M) for powers, in whatever unit the logarithm is."""
    definition = dataclasses.replace(MEL, **changes)
    sound = torch.from_numpy(wave(3000))[None, None]
    plain = dataclasses.replace(definition, log="none", low=None, high=None).encode(sound)[0]
    energy = (plain ** (2 / definition.power)).sum(0).sqrt()
    loudest = float(energy.median())  # a half is cut off at 1
    config = dataclasses.replace(configs()["wavenet"], mel=SPEC | changes, loudest=loudest)
    found = VocodingModel(config).energy(definition.encode(sound))[0]
    assert 0.1 < float(found.min()) < 0.9
    torch.testing.assert_close(found, (energy / loudest).clamp(0.1, 1), rtol=1e-4, atol=0)


def test_a_clamp_keeps_every_state_within_full_scale():
    """Under the shaped prior too, where the state is u and the wave s u."""
    shaped = dataclasses.replace(configs()["wavenet"], clamp=True, loudest=0.06)
    torch.manual_seed(0)
    made = Vocoder(VocodingModel(shaped))
    scale = made.model.energy(torch.from_numpy(mel_of(2000))[None]).repeat_interleave(MEL.hop, -1)
    states = []
    made.piece(callback=lambda i, n, x: states.append(x[:, 0]))(mel_of(2000), 0)
    for u in states:
        assert float((scale * u).abs().max()) == pytest.approx(1, abs=1e-6)
    assert float(states[-1].abs().max()) > 1

    config = dataclasses.replace(shaped, prior="unit")
    torch.manual_seed(0)
    made = Vocoder(VocodingModel(config))
    peaks = []
    piece = made.piece(callback=lambda i, n, x: peaks.append(float(x.abs().max())))
    piece(mel_of(2000), 0)
    assert peaks == [1.0, 1.0, 1.0]
    assert np.abs(Vocoder(VocodingModel(dataclasses.replace(config, clamp=False)))(mel_of(2000))).max() > 1


@pytest.mark.parametrize(
    ("mel", "words"),
    [
        (np.full((MEL.n_mels, 5), np.nan, np.float32), "NaN"),
        (np.zeros((5, MEL.n_mels), np.float32), "transposed"),
        (np.zeros((MEL.n_mels, 0), np.float32), "at least one frame"),
        (np.zeros((3, 5), np.float32), f"expected {MEL.n_mels} mel bands, got 3"),
        (np.zeros(5, np.float32), r"shape \(bands, frames\)"),
        (np.zeros((MEL.n_mels, 5), np.int64), "as floats"),
        (np.ones((MEL.n_mels, 5), np.float32), "another mel definition"),
    ],
)
def test_what_is_no_mel_of_the_model_is_refused(mel, words):
    with pytest.raises(InputError, match=words):
        vocoder("wavenet")(mel)


def test_odd_values_are_warned_of():
    mel = mel_of(2000)
    mel[0, 0] = MEL.range[1] + 2
    with pytest.warns(UserWarning, match="usual"):
        MEL.check(torch.from_numpy(mel)[None])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"frontend": {"name": "wave", "sample_rate": 8000}}, "at the mel's rate"),
        ({"observation": "mel"}, "needs the front end 'magnitude'"),
        ({"prediction": {"name": "velocity"}}, "prior 'energy' needs"),
        ({"loudest": 0.0}, "loudest > 0"),
        ({"mel": SPEC | {"log": "none"}}, "needs a logarithmic mel"),
        (
            {"prior": "unit", "clamp": True, "frontend": configs()["magnitude"].frontend},
            "clamp keeps waves within full scale",
        ),
        ({"process": {"name": "bridge"}, "prior": "unit", "grid": {"name": "uniform"}}, "needs observation='mel'"),
        ({"num_steps": 9}, "as many as were trained"),
    ],
)
def test_configurations_that_cannot_be_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        VocodingModel(dataclasses.replace(configs()["wavenet"], **changes))


# -- mel files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m.safetensors", "x.wav.spec.npy", "x.wav.pt", "old.pt", "batch.npy"])
def test_a_mel_is_read_in_pieces_as_it_was_written(tmp_path, name):
    mel, path = mel_of(3000), tmp_path / name
    if path.suffix == ".safetensors":
        save_mel(path, mel, MEL)
    elif path.suffix == ".npy":
        np.save(path, mel[None].astype(np.float64) if name == "batch.npy" else np.asfortranarray(mel))
    else:
        torch.save(torch.from_numpy(mel), path, _use_new_zipfile_serialization=name != "old.pt")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with open_frames(path, MEL) as reader:
            pieces = [reader.read(count) for count in (1, 7, 1000)]
            assert (reader.frames, reader.samples) == (mel.shape[1], mel.shape[1] * MEL.hop)
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), mel)
    assert [str(warning.message) for warning in said] == ([] if path.suffix == ".safetensors" else [UNDEFINED])
    read, definition = load_mel(path)
    np.testing.assert_array_equal(read, mel)
    assert definition == (MEL if path.suffix == ".safetensors" else None)


@pytest.mark.parametrize(("hop", "times"), [(32, 8), (100, 3), (256, 8)])
@pytest.mark.parametrize("n", [20000, 22050, 44000])
def test_a_longer_hop_leaves_frames_out_and_changes_none(hop, times, n):
    """256, 300 and 2048 from shorter ones, for which the values are published's (256) or librosa's."""
    sound = torch.from_numpy(wave(n))[None, None]
    long = Mel(hop=hop * times)
    found = long.encode(sound)
    assert found.shape[-1] == long.frames(n) == 1 + n // long.hop
    assert n - long.hop < (found.shape[-1] - 1) * long.hop <= n < found.shape[-1] * long.hop
    torch.testing.assert_close(found, Mel(hop=hop).encode(sound)[..., ::times], rtol=0, atol=1e-4)


def test_names_of_mel_files():
    names = ["x.wav.spec.npy", "x.wav.pt", "x.safetensors", "x.wav", "x.mel.npy", "a.b.npy", ".npy"]
    assert [mel_stem(name) for name in names] == ["x", "x", "x", "x", "x", "a.b", ".npy"]


def test_another_definition_is_named_field_by_field(tmp_path):
    other = dataclasses.replace(MEL, hop=48, fmax=900.0)
    assert differences(MEL, dataclasses.replace(MEL, fmax=RATE / 2)) == []  # the same said in other words
    save_mel(tmp_path / "m.safetensors", np.full((MEL.n_mels, 3), -5, np.float32), other)
    with pytest.raises(InputError, match=r"hop is 48, expected 32; fmax is 900\.0, expected 1000\.0"):
        open_frames(tmp_path / "m.safetensors", MEL)


class Payload:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("ran"),))


def damaged(folder: Path) -> dict[str, str]:
    """Writes files that are no mels; name -> words of the complaint."""
    mel = torch.full((MEL.n_mels, 40), -5.0)
    save_mel(folder / "cut.safetensors", mel, MEL)
    np.save(folder / "cut.npy", mel.numpy())
    torch.save(mel, folder / "cut.pt")
    for suffix in (".safetensors", ".npy", ".pt"):
        path = folder / f"cut{suffix}"
        path.write_bytes(path.read_bytes()[:-700])
        (folder / f"empty{suffix}").touch()
        (folder / f"text{suffix}").write_text("version https://git-lfs.github.com/spec/v1\n")
    np.save(folder / "pickled.npy", np.array([Payload()], dtype=object), allow_pickle=True)
    torch.save(Payload(), folder / "code.pt")
    torch.save({"mel": mel}, folder / "dict.pt")
    save_file({"weight": mel}, folder / "weights.safetensors")
    save_file({"mel": mel}, folder / "said.safetensors", {"mel_definition": '{"hop": "many"}'})
    np.save(folder / "whole.npy", np.zeros((MEL.n_mels, 4), np.int16))
    np.save(folder / "line.npy", np.zeros(40, np.float32))
    np.save(folder / "turned.npy", mel.numpy().T)
    np.save(folder / "none.npy", mel.numpy()[:, :0])
    np.save(folder / "nan.npy", np.full((MEL.n_mels, 4), np.nan, np.float32))
    np.save(folder / "other.npy", np.full((MEL.n_mels, 4), 0.5, np.float32))
    said = {
        f"{kind}{suffix}": "cannot be read as a mel"
        for kind in ("cut", "empty", "text")
        for suffix in (".safetensors", ".npy", ".pt")
    }
    return said | {
        "pickled.npy": "cannot be read as a mel",
        "code.pt": "which is never run",
        "dict.pt": "holds a dict",
        "weights.safetensors": "no tensor 'mel', but weight",
        "said.safetensors": "hop must be a whole number",
        "whole.npy": "whole or complex",
        "line.npy": r"shape \(bands, frames\)",
        "turned.npy": "transposed",
        "none.npy": "no frames",
        "nan.npy": "NaN",
        "other.npy": "another mel definition",
        "missing.npy": "no such file",
    }


def test_what_is_no_mel_file_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, words in damaged(tmp_path).items():
        with pytest.raises(InputError, match=words) as caught:
            open_frames(tmp_path / name, MEL)
        assert str(caught.value).startswith(str(tmp_path / name))
    assert not Path("ran").exists()


def test_a_mel_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "m.safetensors"
    with pytest.raises(ZeroDivisionError), MelWriter(path, MEL, 10) as writer:
        writer.write(np.zeros((MEL.n_mels, 4), np.float32))
        _ = 1 / 0
    with pytest.raises(ValueError, match="expected 10 frames, got 4"), MelWriter(path, MEL, 10) as writer:
        writer.write(np.zeros((MEL.n_mels, 4), np.float32))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"written as \.safetensors"):
        MelWriter(tmp_path / "m.npy", MEL, 1)
    with pytest.raises(InputError, match="cannot be written: No such file"):
        MelWriter(tmp_path / "no" / "m.safetensors", MEL, 1)


@pytest.mark.parametrize(
    "definition",
    [
        MEL,
        dataclasses.replace(MEL, centered=False, hop=24),
        MELS["tacotron2-22k"],
        Mel(hop=2048),
        DEFINITIONS["sc09-16k"],
    ],
)
@pytest.mark.parametrize(("n", "rate", "channels"), [(5000, RATE, 1), (9001, 44100, 2), (10, RATE, 1)])
def test_the_mel_of_a_recording_in_pieces_is_that_of_the_whole(tmp_path, definition, n, rate, channels):
    """Pieces of one to nine frames, so that every frame is once the first and once the last of one."""
    samples = np.stack([wave(n, seed) for seed in range(channels)], axis=1)
    soundfile.write(tmp_path / "a.wav", samples, rate, "FLOAT")
    with SoundMel(tmp_path / "a.wav", definition) as mel:
        pieces, sizes, held = [], [1, 2, 9, 3], 0
        while sum(piece.shape[1] for piece in pieces) < mel.frames:
            pieces.append(mel.read(sizes[len(pieces) % 4]))
            held = max(held, len(mel._wave))
    mono = resample(samples.mean(1), rate, definition.sample_rate)
    whole = definition.encode(torch.from_numpy(mono)[None, None])[0].numpy()
    assert mel.samples == len(mono)
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, rtol=0, atol=2e-3)
    assert held < 80_000  # a block of the reader at the new rate, and the frames' own


def test_a_stored_definition_is_all_there_is(tmp_path):
    """Read back by hand, from the file's header alone."""
    save_mel(tmp_path / "m.safetensors", np.zeros((80, 3), np.float32), MELS["diffwave-lmnt-22k"])
    data = (tmp_path / "m.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert Mel(**json.loads(header["__metadata__"]["mel_definition"])) == MELS["diffwave-lmnt-22k"]
    assert header["mel"]["shape"] == [80, 3]
    with MelReader(tmp_path / "m.safetensors") as reader:
        assert (reader.bands, reader.frames) == (80, 3)
