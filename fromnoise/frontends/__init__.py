"""Front ends: the way from a wave to what a network sees, and back. To add one: a file, and a line here."""

from fromnoise.frontends.base import Frontend, pad_frames
from fromnoise.frontends.magnitude import Magnitude
from fromnoise.frontends.mel import MELS, Mel
from fromnoise.frontends.mel_magnitude import MelMagnitude
from fromnoise.frontends.spectrum import Spectrum
from fromnoise.frontends.stft import STFT
from fromnoise.frontends.wave import Wave

FRONTENDS: dict[str, type[Frontend]] = {
    "wave": Wave,
    "stft": STFT,
    "magnitude": Magnitude,
    "mel_magnitude": MelMagnitude,
    "mel": Mel,
    "spectrum": Spectrum,
}

__all__ = [
    "FRONTENDS",
    "MELS",
    "STFT",
    "Frontend",
    "Magnitude",
    "Mel",
    "MelMagnitude",
    "Spectrum",
    "Wave",
    "pad_frames",
]
