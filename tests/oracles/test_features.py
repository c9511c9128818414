"""Front ends against arrays that the published code computed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fromnoise.frontends import MELS, STFT, Mel, pad_frames
from fromnoise.frontends.mel import filterbank

VECTORS = Path(__file__).parents[1] / "vectors"


def close(got: torch.Tensor, expected: np.ndarray, rtol: float, atol: float) -> None:
    np.testing.assert_allclose(got.numpy(), expected, rtol=rtol, atol=atol)


# -- SGMSE+ -------------------------------------------------------------------------------------------------------

SGMSE = {
    "sgmse_spectral_hann": STFT(16000, 62, 16, factor=0.15, exponent=0.5),
    "sgmse_spectral_48k": STFT(48000, 94, 24, factor=0.065, exponent=0.667),
    "sgmse_spectral_sqrthann_log": STFT(16000, 62, 16, window="sqrt_hann", transform="log", factor=0.33),
}


def as_channels(spectrum: np.ndarray) -> torch.Tensor:
    """Complex `b f t` as the front end's `b 2 f t`."""
    return torch.from_numpy(np.stack([spectrum.real, spectrum.imag], axis=1))


@pytest.mark.parametrize("name", SGMSE)
def test_sgmse_features_and_their_inverse(name):
    vector, frontend = np.load(VECTORS / f"{name}.npz"), SGMSE[name]
    wave = torch.from_numpy(vector["in_wave"])[:, None]
    # The vector's tolerances: 1e-9 and 1e-11 in float64, 2e-4 and 2e-6 in float32. But a bin that should vanish is left
    # at 1e-7 by a float32 FFT, and its compression makes factor sqrt(1e-7) = 5e-5 of it.
    close(frontend.encode(wave), as_channels(vector["features"]).numpy(), 1e-9, 1e-11)
    close(frontend.encode(wave.float()), as_channels(vector["features"]).numpy(), 2e-4, 5e-5)
    features = as_channels(vector["features"])
    close(frontend.decode(features, 500)[:, 0], vector["inverse"], 1e-9, 1e-11)
    close(frontend.decode(features.float(), 500)[:, 0], vector["inverse"], 2e-4, 2e-6)
    close(frontend.decode(1.3 * features, 500)[:, 0], vector["inverse_scaled"], 1e-9, 1e-11)


@pytest.mark.parametrize("name", SGMSE)
@pytest.mark.parametrize(
    ("array", "padding"),
    [("pad_zero_pad", "zero"), ("pad_reflection", "reflection"), ("pad_replication", "replication")],
)
def test_sgmse_frames_are_padded_to_a_multiple(name, array, padding):
    vector = np.load(VECTORS / f"{name}.npz")
    twice = np.concatenate([vector["features"]] * 2, axis=-1)[..., :40].real
    padded = pad_frames(torch.from_numpy(twice)[:, None], 64, padding)
    assert padded.shape[-1] == 64
    close(padded[..., :40], twice[:, None], 0, 0)
    close(padded[..., 40:43], vector[array], 1e-9, 1e-11)


# -- DR-DiffuSE ---------------------------------------------------------------------------------------------------

DR = {
    "sqrt": STFT(exponent=0.5),
    "cubic": STFT(exponent=0.3),
    "log_1x": STFT(transform="log"),
    "normal": STFT(transform="none"),
}


@pytest.fixture(scope="module")
def dr():
    return dict(np.load(VECTORS / "drdiffuse_features.npz"))


def near(got: np.ndarray, expected: np.ndarray) -> None:
    """The vector's tolerance: 1e-5 of the largest value."""
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def batch(dr: dict, kind: str, frontend: STFT) -> np.ndarray:
    """The two utterances at unit RMS of the noisy one, zero-padded to the longer, encoded, as `b 2 t f`."""
    waves = [torch.from_numpy(dr[f"{kind}{j}"] * dr["scale"][j]) for j in range(2)]
    assert [frontend.frames(len(wave)) for wave in waves] == dr["frame_num"].tolist()
    padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)[:, None]
    return frontend.encode(padded).transpose(2, 3).numpy()


def test_dr_scale_makes_the_noisy_utterance_unit_rms(dr):
    for j in range(2):
        noisy = dr[f"noisy{j}"].astype(np.float64)
        assert dr["scale"][j] == pytest.approx(np.sqrt(len(noisy) / (noisy**2).sum()), rel=1e-6)


@pytest.mark.parametrize(("array", "kind"), [("feats", "noisy"), ("labels", "clean")])
def test_dr_plain_spectra(dr, array, kind):
    near(batch(dr, kind, DR["normal"]), dr[array])


@pytest.mark.parametrize(("array", "kind"), [("feat_sqrt", "noisy"), ("label_sqrt", "clean")])
def test_dr_square_root_spectra(dr, array, kind):
    near(batch(dr, kind, DR["sqrt"]), dr[array])


@pytest.mark.parametrize("feat_type", DR)
def test_dr_each_compression(dr, feat_type):
    near(batch(dr, "noisy", DR[feat_type])[1, :, :4], dr[f"feat_{feat_type}_row1"])


def test_dr_inverse_compression(dr):
    compressed = torch.from_numpy(dr["feat_sqrt"][0])
    expanded = DR["sqrt"].expand(torch.complex(compressed[0], compressed[1]))
    near(torch.view_as_real(expanded).movedim(-1, 0).numpy(), dr["reconstructed"])


@pytest.mark.parametrize("feat_type", ["sqrt", "cubic", "log_1x"])
@pytest.mark.parametrize("kind", ["clean", "noisy"])
@pytest.mark.parametrize("j", [0, 1])
def test_dr_waves_that_its_metrics_receive(dr, feat_type, kind, j):
    frontend, frames = DR[feat_type], int(dr["frame_num"][j])
    x = torch.from_numpy(batch(dr, kind, frontend)[j : j + 1, :, :frames]).transpose(2, 3)
    near(frontend.decode(x, (frames - 1) * 160)[0, 0].numpy(), dr[f"wav_{feat_type}_{kind}{j}"])


# -- mel ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mels():
    return dict(np.load(VECTORS / "mel_frontends.npz"))


@pytest.mark.parametrize(("array", "hop"), [("tacotron_mel", 256), ("tacotron_mel_hop2", 200)])
def test_tacotron_mel(mels, array, hop):
    got = Mel(hop=hop).encode(torch.from_numpy(mels["audio"])[None, None].double())[0].numpy()
    loud = mels[array] > -9.5  # the original multiplies with a float32 Fourier basis, felt where it is quiet
    np.testing.assert_allclose(got[loud], mels[array][loud], rtol=0, atol=1e-3)
    np.testing.assert_allclose(got[~loud], mels[array][~loud], rtol=0, atol=5e-3)
    np.testing.assert_allclose(filterbank(MELS["tacotron2-22k"]).sum(axis=1), mels["tacotron_fb_rowsum"], rtol=1e-4)


def test_lmnt_mel(mels):
    mel = MELS["diffwave-lmnt-22k"]
    got = mel.encode(torch.from_numpy(mels["audio"])[None, None])[0].numpy()
    np.testing.assert_allclose(got, mels["lmnt_mel"], rtol=0, atol=2e-4)
    np.testing.assert_allclose(filterbank(mel).sum(axis=1), mels["lmnt_fb_colsum"], rtol=1e-3)


@pytest.mark.parametrize("padding", ["reflect", "constant"])
def test_sc09_classifier_mel(mels, padding):
    mel = Mel(16000, 2048, 512, 2048, 32, power=2.0, log="10", multiplier=10.0, floor=1e-10, padding=padding)
    decibel = mel.encode(torch.from_numpy(mels["audio"][:16000])[None, None].double())[0].numpy()
    relative = np.maximum(decibel - decibel.max(), -80)
    expected = mels["sc09_classifier_mel_" + {"reflect": "reflect", "constant": "zero"}[padding]]
    np.testing.assert_allclose(relative, expected, rtol=0, atol=1e-3)
