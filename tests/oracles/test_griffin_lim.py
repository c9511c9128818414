"""The inverse of the log-magnitude front end, against librosa's and against the definition."""

import librosa
import numpy as np
import pytest
import torch

from fromnoise.frontends import MELS, Magnitude, MelMagnitude
from fromnoise.frontends.magnitude import PERIOD, PIECE, griffin_lim

RATE = 22050


def voice(n: int = 16000) -> np.ndarray:
    """A gliding harmonic sound with a noisy second half, a little like speech."""
    time = np.arange(n) / RATE
    phase = 2 * np.pi * np.cumsum(140 + 40 * np.sin(2 * np.pi * 1.5 * time)) / RATE
    tones = sum(np.sin(k * phase) / k for k in range(1, 40))
    breath = np.random.default_rng(0).normal(size=n) * 0.1 * (time > time[-1] / 2)
    return (0.1 * (tones * (1 + np.sin(2 * np.pi * 3 * time)) + breath)).astype(np.float32)


def inconsistency(magnitude: np.ndarray, wave: np.ndarray) -> float:
    """| |STFT(wave)| - A | / |A| in dB, over frames that see no padding."""
    found = np.abs(librosa.stft(wave.astype(np.float64), n_fft=1024, hop_length=256, center=False))
    return 20 * np.log10(np.linalg.norm(found - magnitude) / np.linalg.norm(magnitude))


@pytest.mark.parametrize("iterations", [8, 32])
def test_it_converges_at_least_as_far_as_librosa(iterations):
    magnitude = np.abs(librosa.stft(voice(), n_fft=1024, hop_length=256, center=False))
    ours = griffin_lim(torch.from_numpy(magnitude)[None].double(), 1024, 256, iterations)[0].numpy()
    theirs = librosa.griffinlim(
        magnitude, n_iter=iterations, hop_length=256, n_fft=1024, center=False, momentum=0.99, random_state=0
    )
    # both start from random phases, so they differ by some tenths of a dB
    assert inconsistency(magnitude, ours) < inconsistency(magnitude, theirs) + 1.0
    assert inconsistency(magnitude, ours) < -10


def test_more_iterations_are_more_consistent():
    magnitude = torch.from_numpy(np.abs(librosa.stft(voice(), n_fft=1024, hop_length=256, center=False)))[None].double()
    errors = [inconsistency(magnitude[0].numpy(), griffin_lim(magnitude, 1024, 256, n)[0].numpy()) for n in (0, 8, 64)]
    assert errors[0] > errors[1] > errors[2]


def test_encode_is_the_logarithm_of_the_stft():
    frontend, wave = Magnitude(), voice()
    x = frontend.encode(torch.from_numpy(wave)[None, None].double())[0, 0].numpy()
    spectrum = np.abs(librosa.stft(wave.astype(np.float64), n_fft=1024, hop_length=256, pad_mode="reflect"))
    np.testing.assert_allclose(3 * x - 4, np.log(np.maximum(spectrum, 1e-4)), atol=1e-9)


def test_pieces_at_multiples_of_align_give_the_whole():
    frontend = Magnitude(sample_rate=8000, n_fft=128, hop=32, iterations=4)
    x = frontend.encode(torch.from_numpy(voice(9600))[None, None].double())
    whole = frontend.decode(x, 9600)
    first, edge = 2 * PERIOD, frontend.reach
    piece = frontend.decode(x[..., first:], 9600 - first * 32)
    torch.testing.assert_close(piece[..., edge:], whole[..., first * 32 + edge :], rtol=0, atol=1e-6)


def test_bands_are_means_over_librosas_triangles():
    frontend, wave = MelMagnitude(RATE, bands=100), voice()
    x = frontend.encode(torch.from_numpy(wave)[None, None].double())[0, 0].numpy()
    spectrum = np.abs(librosa.stft(wave.astype(np.float64), n_fft=1024, hop_length=256, pad_mode="reflect"))
    bank = librosa.filters.mel(sr=RATE, n_fft=1024, n_mels=100, norm=None).astype(np.float64)
    expected = np.log(np.maximum(bank @ spectrum / bank.sum(1, keepdims=True), 1e-4))
    np.testing.assert_allclose(3 * x - 4, expected, atol=1e-5)  # librosa's bank is float32


def test_bands_come_back_flat_where_magnitudes_are_flat():
    """A click has one magnitude in every bin, and between the outer bands' centres each bin gets it back."""
    frontend = MelMagnitude(8000, 256, 64, bands=40, floor=1e-9, iterations=200)
    click = torch.zeros(1, 1, 2048, dtype=torch.float64)
    click[..., 1024] = 1.0
    flat = frontend.linear.magnitudes(click)[0, 0]
    back = frontend._weights().T @ frontend.linear.unscaled(frontend.encode(click))[0, 0]
    torch.testing.assert_close(back[4:-8], flat[4:-8], rtol=0, atol=1e-8)  # the floor, taken off again
    assert frontend.decode(frontend.encode(click), 2048).shape == click.shape


def test_more_bands_than_bins_are_refused():
    with pytest.raises(ValueError, match="bands that hold a bin each, got 400 for n_fft=256"):
        MelMagnitude(8000, 256, 64, bands=400)


@pytest.mark.parametrize("name", ["tacotron2-22k", "diffwave-lmnt-22k"])
def test_the_estimate_from_a_mel_has_that_mel(name):
    """Bands hold sums over triangles, the estimate is a line between them: close where the spectrum is smooth."""
    frontend, definition = Magnitude(), MELS[name]
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 1, 60000)) * 0.1)
    mel = definition.encode(noise)
    estimate, truth = frontend.from_mel(definition, mel), frontend.encode(noise)
    top = int(8000 / RATE * 1024)
    assert float((estimate - truth)[:, :, 8:top].mean().abs()) < 0.15  # of 3 nepers: a level that fits
    assert estimate.shape == truth.shape


def test_the_estimate_refuses_another_geometry():
    with pytest.raises(ValueError, match="hop"):
        Magnitude(hop=200).from_mel(MELS["tacotron2-22k"], torch.zeros(1, 80, 4))


def test_what_is_long_is_made_in_pieces_that_give_the_wave_of_the_whole():
    """A piece sees as far as its iterations reach; float64 leaves what sums in another order differ by."""
    frontend = Magnitude(sample_rate=8000, n_fft=64, hop=16, iterations=6)
    frames = 2 * PIECE + 100
    magnitude = torch.from_numpy(np.random.default_rng(0).random((1, 1, frontend.bins, frames)))
    n = (frames - 1) * frontend.hop
    whole = griffin_lim(magnitude[0], 64, 16, 6, frontend.momentum)[:, 32 : 32 + n]
    torch.testing.assert_close(frontend.wave(magnitude, n, lambda piece: piece)[0], whole, rtol=0, atol=1e-9)
