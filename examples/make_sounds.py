"""Make the example recordings: synthetic speech (espeak-ng) in synthetic noise, and two voices at once. Needs the
program espeak-ng.

The files are ours: no recording of a person or a place is in them. Run from the root: python examples/make_sounds.py
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from fromnoise.data.audio import read, write
from fromnoise.frontends.resample import resample

RATE = 16000
TEXT = "Good morning. The train to the coast leaves from platform nine, and the weather there is fine."
OTHER = "Before the concert begins, the musicians walk through the garden and look for their old teacher."


def speech(text: str, voice: str = "en-us+f3") -> np.ndarray:
    """A voice of espeak-ng at 16 kHz, `n`, peak 0.5, with half a second of silence around it."""
    with tempfile.TemporaryDirectory() as folder:
        spoken = Path(folder) / "speech.wav"
        subprocess.run(["espeak-ng", "-v", voice, "-s", "150", "-w", str(spoken), text], check=True)
        wave, rate = read(spoken)
    wave = np.asarray(resample(wave[0], rate, RATE))
    return np.pad(0.5 * wave / np.abs(wave).max(), RATE // 2)


def noise(n: int, seed: int = 0) -> np.ndarray:
    """A rushing, rumbling noise like a train: 1/f noise with a slow swell, a hum and clicks of the rails."""
    draw = np.random.default_rng(seed)
    spectrum = np.fft.rfft(draw.standard_normal(n))
    frequency = np.fft.rfftfreq(n, 1 / RATE)
    rush = np.fft.irfft(spectrum / np.sqrt(frequency + 40), n)
    t = np.arange(n) / RATE
    clicks = np.convolve((np.abs((t % 0.8) - 0.2) < 0.5 / RATE).astype(float), np.exp(-np.arange(800) / 120), "same")
    hiss = draw.standard_normal(n)
    sound = rush / rush.std() * (1 + 0.4 * np.sin(2 * np.pi * 0.3 * t)) + 0.3 * np.sin(2 * np.pi * 100 * t)
    return sound + 0.6 * clicks * hiss + 0.15 * hiss


def main() -> None:
    folder = Path(__file__).parent / "sounds"
    folder.mkdir(exist_ok=True)
    clean = speech(TEXT)
    added = noise(len(clean))
    added *= clean.std() / added.std() * 10 ** (-3 / 20)  # 3 dB over the whole file
    scale = 0.8 / np.abs(clean + added).max()
    write(folder / "clean.flac", (scale * clean)[None].astype(np.float32), RATE)
    write(folder / "noisy.flac", (scale * (clean + added))[None].astype(np.float32), RATE)
    other = speech(OTHER, "en-us+m3")
    n = min(len(clean), len(other))
    both = clean[:n] + other[:n] * clean.std() / other.std()
    write(folder / "two_voices.flac", (0.8 * both / np.abs(both).max())[None].astype(np.float32), RATE)


if __name__ == "__main__":
    sys.exit(main())
