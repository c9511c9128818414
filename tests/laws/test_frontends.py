"""What every front end promises: an exact inverse at any length, its stated shape, finite gradients, no memory."""

import math

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fromnoise.frontends import FRONTENDS, MELS, STFT, Frontend, Mel, Spectrum, Wave, pad_frames
from fromnoise.frontends.base import reflected
from fromnoise.frontends.mel import filterbank
from fromnoise.types import InputError, build, spec

INVERTIBLE: list[Frontend] = [
    Wave(),
    Wave(8000, scale=0.1),
    STFT(),
    STFT(n_fft=510, hop=128, factor=0.15),
    STFT(n_fft=1534, hop=384, exponent=0.667, factor=0.065),
    STFT(window="sqrt_hann", transform="log", factor=0.33),
    STFT(transform="none", padding="constant"),
    STFT(n_fft=96, hop=40, exponent=0.3),
    STFT(n_fft=127, hop=32),
    STFT(n_fft=64, hop=1),
]
SPECTRA = [Spectrum(), Spectrum(n_fft=96, hop=40, padding="constant")]
ONE_WAY = (Mel, Spectrum)
ALL = [*INVERTIBLE, *MELS.values(), *SPECTRA]
RNG = np.random.default_rng(0)


def noise(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.from_numpy(RNG.uniform(-1, 1, shape)).to(dtype)


@pytest.mark.parametrize("frontend", INVERTIBLE, ids=str)
@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 4000), channels=st.integers(1, 3))
def test_decode_gives_back_every_sample_at_any_length(frontend, n, channels):
    wave = noise(2, channels, n)
    back = frontend.decode(frontend.encode(wave), n)
    assert back.shape == wave.shape
    assert (back - wave).abs().max() < 1e-12
    wave = wave.float()
    assert (frontend.decode(frontend.encode(wave), n) - wave).abs().max() < 1e-6  # a few steps of 1.2e-7


@pytest.mark.parametrize("frontend", INVERTIBLE, ids=str)
@pytest.mark.parametrize("scale", [1e-9, 1e-4, 30.0])
def test_the_inverse_is_exact_relative_to_the_level(frontend, scale):
    wave = scale * noise(1, 1, 1603)
    assert (frontend.decode(frontend.encode(wave), 1603) - wave).abs().max() < 1e-12 * scale


@pytest.mark.parametrize("frontend", ALL, ids=str)
@pytest.mark.parametrize("n", [1, 2, 100, 159, 160, 161, 1000, 2049])
def test_the_stated_shape_is_the_shape(frontend, n):
    x = frontend.encode(noise(2, 3, n, dtype=torch.float32))
    assert x.shape == (2, *frontend.shape(3, n))
    assert x.isfinite().all()


@pytest.mark.parametrize("frontend", ALL, ids=str)
def test_a_piece_that_begins_at_a_multiple_of_hop_has_the_positions_of_the_whole(frontend):
    first, n = 5 * frontend.hop, 12000
    wave = noise(1, 1, n)
    known = {"peak": wave.abs().amax(dim=-1)} if isinstance(frontend, Spectrum) else {}  # of the whole recording
    whole, piece = frontend.encode(wave, **known), frontend.encode(wave[..., first : first + 9000], **known)
    edge = math.ceil(frontend.reach / frontend.hop)  # positions that see beyond the piece
    usable = piece.shape[-1] - 2 * edge
    assert usable > 3
    expected = whole[..., 5 + edge : 5 + edge + usable]
    torch.testing.assert_close(piece[..., edge : edge + usable], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("frontend", ALL, ids=str)
def test_batch_and_channels_do_not_see_each_other(frontend):
    wave = noise(2, 2, 3000)
    together = frontend.encode(wave).unflatten(1, (2, -1))
    for i in range(2):
        for c in range(2):
            alone = frontend.encode(wave[i : i + 1, c : c + 1])
            torch.testing.assert_close(together[i, c], alone[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("frontend", ALL, ids=str)
def test_gradients_are_finite_at_silence_and_dust(frontend):
    for level in (0.0, 1e-30, 1e-12, 1e-6):
        wave = torch.full((1, 1, 2000), level, requires_grad=True)
        frontend.encode(wave).sum().backward()
        assert wave.grad is not None
        assert wave.grad.isfinite().all()
    if not isinstance(frontend, ONE_WAY):
        x = torch.zeros((1, *frontend.shape(1, 2000)), requires_grad=True)
        frontend.decode(x, 2000).square().sum().backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()


def test_silence_is_silence():
    for frontend in INVERTIBLE:
        assert not frontend.encode(torch.zeros(1, 1, 900)).any()


def test_stft_gradient_is_the_slope():
    frontend = STFT(n_fft=16, hop=8, exponent=0.5)
    wave = noise(1, 1, 37).requires_grad_()
    assert torch.autograd.gradcheck(frontend.encode, (wave,))
    x = frontend.encode(wave.detach()).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: frontend.decode(x, 37), (x,))


def test_stft_channels_are_re_and_im_of_each_channel_in_turn():
    wave = noise(1, 2, 800)
    x = STFT(transform="none").encode(wave)
    for c in range(2):
        expected = torch.stft(
            wave[:, c], 320, 160, window=torch.hann_window(320, dtype=torch.float64), return_complex=True
        )
        torch.testing.assert_close(x[:, 2 * c], expected.real)
        torch.testing.assert_close(x[:, 2 * c + 1], expected.imag)


def test_compression_keeps_phase_and_maps_magnitude_as_stated():
    magnitude = torch.logspace(-6, 3, 50, dtype=torch.float64)
    spectrum = torch.polar(magnitude, torch.linspace(-3, 3, 50, dtype=torch.float64))
    cases = {
        STFT(exponent=0.3, factor=2.0): 2 * magnitude**0.3,
        STFT(transform="log", factor=0.33): 0.33 * torch.log(1 + magnitude),
        STFT(transform="none", factor=0.5): 0.5 * magnitude,
    }
    for frontend, expected in cases.items():
        y = frontend.compress(spectrum)
        torch.testing.assert_close(y.abs(), expected, rtol=1e-9, atol=1e-15)
        torch.testing.assert_close(y.angle(), spectrum.angle())
        torch.testing.assert_close(frontend.expand(y), spectrum)


def test_frames_are_the_published_count_unless_the_tail_would_fade():
    wide = STFT(n_fft=510, hop=128)
    assert [wide.frames(n) for n in (1, 127, 128, 500, 16000)] == [1 + n // 128 for n in (1, 127, 128, 500, 16000)]
    half = STFT()
    assert [half.frames(n) for n in (160, 240, 241, 242, 319, 320, 48000)] == [2, 2, 2, 3, 3, 3, 301]


def test_a_decoder_may_drop_frames_and_a_network_may_pad_them():
    frontend, wave = STFT(n_fft=510, hop=128), noise(1, 1, 5000)
    x = frontend.encode(wave)
    for padding in ("zero", "reflection", "replication"):
        padded = pad_frames(x, 64, padding)
        assert padded.shape[-1] == 64
        torch.testing.assert_close(frontend.decode(padded[..., : x.shape[-1]], 5000), wave)
    assert pad_frames(padded, 64).shape == padded.shape
    with pytest.raises(ValueError, match="zero, reflection or replication"):
        pad_frames(x, 64, "circular")


@given(st.integers(1, 9), st.integers(0, 30), st.integers(0, 30))
def test_mirroring_repeats_as_often_as_needed(n, left, right):
    expected = np.pad(np.arange(n), (left, right), mode="reflect" if n > 1 else "edge")
    np.testing.assert_array_equal(reflected(n, left, right).numpy(), expected)


@pytest.mark.parametrize("name", FRONTENDS)
def test_the_default_survives_a_card(name):
    part = FRONTENDS[name]()
    card = spec(FRONTENDS, part)
    assert card["name"] == name
    assert build("front end", FRONTENDS, card) == part


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        (STFT, {"hop": 200}, "hop <= n_fft / 2"),
        (STFT, {"hop": 0}, "hop=0"),
        (STFT, {"exponent": 0.0}, "must be positive"),
        (STFT, {"window": "boxcar"}, "hann, sqrt_hann, got 'boxcar'"),
        (STFT, {"transform": "cube"}, "exponent, log, none"),
        (Wave, {"scale": 0.0}, "must be positive"),
        (Spectrum, {"padding": "edge"}, "reflect, constant, got 'edge'"),
        (Spectrum, {"n_fft": 511}, "and an even n_fft"),
        (Mel, {"sample_rate": 8000}, "half the sample rate"),
        (Mel, {"low": 1.0}, "both be given"),
        (Mel, {"low": 1.0, "high": 0.5}, "low < high"),
        (Mel, {"win": 2048}, "win <= n_fft"),
        (Mel, {"floor": 0.0}, "floor must be positive"),
        (Mel, {"scale": "bark"}, "slaney, htk, got 'bark'"),
    ],
)
def test_settings_that_cannot_work_say_why(kind, settings, words):
    with pytest.raises(ValueError, match=words):
        kind(**settings)


def test_a_state_of_another_size_is_refused():
    with pytest.raises(ValueError, match="161 bins, got 2 channels and 160 bins"):
        STFT().decode(torch.zeros(1, 2, 160, 4), 100)
    with pytest.raises(ValueError, match="pairs of channels"):
        STFT().decode(torch.zeros(1, 3, 161, 4), 100)
    with pytest.raises(ValueError, match="at least 10 samples"):
        Wave().decode(torch.zeros(1, 1, 9), 10)


# -- mel ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["slaney", "htk"])
@pytest.mark.parametrize("norm", ["slaney", "none"])
@pytest.mark.parametrize(
    ("rate", "n_fft", "bands", "fmin", "fmax"), [(22050, 1024, 80, 0.0, 8000.0), (16000, 512, 40, 50.0, None)]
)
def test_filterbank_equals_librosa(scale, norm, rate, n_fft, bands, fmin, fmax):
    mel = Mel(rate, n_fft, 256, n_fft, bands, fmin, fmax, scale, norm)
    expected = librosa.filters.mel(
        sr=rate,
        n_fft=n_fft,
        n_mels=bands,
        fmin=fmin,
        fmax=fmax,
        htk=scale == "htk",
        norm="slaney" if norm == "slaney" else None,
        dtype=np.float64,
    )
    np.testing.assert_allclose(filterbank(mel), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("win", [1024, 800])
@pytest.mark.parametrize("padding", ["reflect", "constant"])
def test_mel_equals_librosa(win, padding):
    wave = noise(1, 1, 9000)
    mel = Mel(win=win, padding=padding)
    expected = librosa.feature.melspectrogram(
        y=wave[0, 0].numpy(),
        sr=22050,
        n_fft=1024,
        hop_length=256,
        win_length=win,
        power=1.0,
        n_mels=80,
        fmax=8000,
        pad_mode=padding,
    )
    np.testing.assert_allclose(mel.encode(wave)[0], np.log(np.maximum(expected, 1e-5)), rtol=0, atol=1e-6)


def test_uncentred_frames_count_the_hops():
    mel = Mel(centered=False)
    assert mel.frames(8192) == 32
    wave = noise(1, 1, 8192)
    padded = torch.nn.functional.pad(wave, (384, 384), mode="reflect")
    expected = librosa.feature.melspectrogram(
        y=padded[0, 0].numpy(), sr=22050, n_fft=1024, hop_length=256, power=1.0, n_mels=80, fmax=8000, center=False
    )
    np.testing.assert_allclose(mel.encode(wave)[0], np.log(np.maximum(expected, 1e-5)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MELS)
def test_a_range_holds_for_silence_and_the_loudest_waves(name):
    mel = MELS[name]
    low, high = mel.range
    n = 4096
    waves = [torch.zeros(n), torch.ones(n)]
    waves += [torch.cos(2 * math.pi * torch.arange(n) * f / 22050).sign() for f in (60, 700, 3000, 7000)]
    values = mel.encode(torch.stack(waves)[:, None])
    assert values.min() == pytest.approx(low, abs=1e-4)
    assert values.max() <= high + 1e-4
    assert mel.check(values) is values


def test_a_mapped_range_is_undone():
    mapped, wave = MELS["diffwave-lmnt-22k"], 0.05 * noise(1, 1, 5000, dtype=torch.float32)
    plain = Mel(
        fmin=20.0, fmax=None, scale="htk", norm="none", normalized=True, log="10", multiplier=20.0
    )  # the same without low and high
    torch.testing.assert_close(mapped.invert_range(mapped.encode(wave)), plain.encode(wave), rtol=0, atol=1e-4)
    assert plain.invert_range(plain.encode(wave)).min() < 0


def test_the_mel_of_diffuse_by_its_published_formula():
    wave = 0.3 * noise(4001)
    power = librosa.feature.melspectrogram(
        y=wave.numpy(),
        sr=16000,
        n_fft=1024,
        hop_length=256,
        power=1.0,
        pad_mode="reflect",
        n_mels=80,
        fmin=20,
        fmax=8000,
        htk=True,
        norm=None,
    ) / math.sqrt(384)  # the root of the sum of a Hann window's squares: "normalised"
    decibels = 20 * np.log10(np.maximum(power, 1e-5)) - 20
    expected = np.clip((decibels + 100) / 100, 0, 1)
    np.testing.assert_allclose(MELS["diffuse-16k"].encode(wave[None, None])[0], expected, rtol=0, atol=1e-6)


def test_mels_of_another_definition_are_recognised():
    tacotron, lmnt = MELS["tacotron2-22k"], MELS["diffwave-lmnt-22k"]
    wave = 0.3 * noise(1, 1, 20000, dtype=torch.float32)
    with pytest.raises(InputError, match=r"expected values from 0\.00 to 1\.00, got -.*another mel definition"):
        lmnt.check(tacotron.encode(wave))
    with pytest.raises(InputError, match="mostly negative logarithms"):
        tacotron.check(lmnt.encode(wave))
    with pytest.raises(InputError, match="expected 80 mel bands, got 79"):
        tacotron.check(tacotron.encode(wave).transpose(1, 2))
    with pytest.raises(InputError, match="looks transposed"):
        tacotron.check(tacotron.encode(wave).transpose(1, 2))
    with pytest.raises(InputError, match="NaN"):
        tacotron.check(torch.full((1, 80, 3), math.nan))


def test_a_spectrum_is_of_the_wave_at_full_scale():
    wave = noise(2, 2, 3000)
    levels = torch.tensor([[[0.1], [3.0]], [[1e-3], [1.0]]], dtype=torch.float64)
    for frontend in SPECTRA:
        torch.testing.assert_close(frontend.encode(levels * wave), frontend.encode(wave), rtol=0, atol=1e-12)
        louder = frontend.encode(wave, peak=wave.abs().amax(dim=-1) / 2)
        torch.testing.assert_close(louder.expm1(), 2 * frontend.encode(wave).expm1(), rtol=1e-12, atol=1e-12)
        assert not frontend.encode(torch.zeros(1, 1, 900)).any()
    with pytest.raises(ValueError, match="neither phase nor level"):
        Spectrum().decode(torch.zeros(1, 513, 4), 1000)


def test_a_mel_has_no_inverse():
    with pytest.raises(ValueError, match="use a vocoder"):
        Mel().decode(torch.zeros(1, 80, 4), 1000)
