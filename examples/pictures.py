"""Draw the pictures of docs/vocoding.md, docs/generation.md and docs/separation.md from what the bundled models make.

The sentences are synthetic speech (see make_sounds.py); the digits are the model's own. Run from the root:
python examples/pictures.py
"""

from pathlib import Path

import matplotlib
import numpy as np

import fromnoise
from fromnoise.data.audio import read
from fromnoise.evaluation.contact import contact_sheet
from fromnoise.evaluation.plots import spectrogram_figure
from fromnoise.frontends.resample import resample

DOCS = Path(__file__).parent.parent / "docs"
SOUNDS = Path(__file__).parent / "sounds"


def vocoding() -> None:
    """The sentence, its mel, and the vocoder's sound."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    vocoder = fromnoise.load("vocode-small")
    wave, rate = read(SOUNDS / "clean.flac")
    sound = np.asarray(resample(wave[0], rate, vocoder.sample_rate))
    mel = vocoder.mel(sound, vocoder.sample_rate)
    made = vocoder(mel, length=len(sound))
    draw = np.random.default_rng(0)  # a logarithm needs something in the silence
    figure, axes = plt.subplots(3, 1, figsize=(10, 7), sharex=True, layout="constrained")
    for axis, title, signal in ((axes[0], "recording", sound), (axes[2], "vocode-small, from the mel alone", made)):
        axis.specgram(
            signal + 1e-6 * draw.normal(size=len(signal)),
            NFFT=1024,
            noverlap=768,
            Fs=vocoder.sample_rate,
            vmin=-140,
            vmax=-30,
        )
        axis.set(title=title, ylabel="Hz", ylim=(0, 8000))
    seconds = len(sound) / vocoder.sample_rate
    axes[1].imshow(mel, origin="lower", aspect="auto", extent=(0, seconds, 0, len(mel)))
    axes[1].set(title="its mel spectrogram", ylabel="band")
    axes[2].set_xlabel("s")
    figure.savefig(DOCS / "vocoding.png", dpi=60)


def separation() -> None:
    """Two voices at once, and each alone."""
    separator = fromnoise.load("separate-small")
    wave, rate = read(SOUNDS / "two_voices.flac")
    mixture = np.asarray(resample(wave[0], rate, separator.sample_rate))
    sources = separator(mixture, separator.sample_rate)
    names = ["two voices at once", *(f"separate-small: {name}" for name in separator.names)]
    waves = dict(zip(names, [mixture, *sources], strict=True))
    spectrogram_figure(waves, separator.sample_rate).savefig(DOCS / "separation.png", dpi=60)


def generation() -> None:
    """Two sounds of each digit."""
    generator = fromnoise.load("digits-small")
    sounds = {label: generator(count=2, label=label, seed=0)[:, 0] for label in generator.labels}
    contact_sheet(sounds, generator.sample_rate, width=6.0).savefig(DOCS / "generation.png", dpi=60)


if __name__ == "__main__":
    vocoding()
    generation()
    separation()
