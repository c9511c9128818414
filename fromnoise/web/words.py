"""The command line and the Python call that do what the page has done, ready to paste.

Both speak of files by their own names, in the folder where they are run.
"""

import shlex
from collections.abc import Mapping
from typing import Any

AUDIO = "from fromnoise.data.audio import read, write"


def command(verb: str, source: str | None, *parts: str, **options: Any) -> str:
    """`fromnoise VERB SOURCE parts... --option value ...`; options that are None or empty are left out."""
    name = [] if source is None else [f"./{source}" if source.startswith("-") else source]
    words = ["fromnoise", verb, *name, *parts]
    for name, value in options.items():
        if value not in (None, ""):
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def given(**options: Any) -> str:
    """`name=value, ...` of the options that are neither None nor empty."""
    return ", ".join(f"{name}={value!r}" for name, value in options.items() if value not in (None, ""))


def enhance(source: str, target: str, model: str, subtype: str, options: Mapping[str, Any]) -> str:
    """Python: one recording enhanced."""
    return _lines(
        f"import fromnoise\n{AUDIO}\n",
        f"noisy, sample_rate = read({source!r})",
        f"enhancer = fromnoise.load({model!r})",
        f"clean = enhancer(noisy, sample_rate, {given(**options)})",
        f"write({target!r}, clean, sample_rate, subtype={subtype!r})",
    )


def separate(source: str, targets: list[str], model: str, subtype: str, options: Mapping[str, Any]) -> str:
    """Python: one recording separated; all scaled alike where one is beyond the full scale of the format."""
    scaling = [] if subtype in ("FLOAT", "DOUBLE") else ["sources = sources / max(1, abs(sources).max())"]
    return _lines(
        f"import fromnoise\n{AUDIO}\n",
        f"mixture, sample_rate = read({source!r})",
        f"separator = fromnoise.load({model!r})",
        f"sources = separator(mixture, sample_rate, {given(**options)})",
        *scaling,
        f"for name, source in zip({targets!r}, sources):",
        f"    write(name, source[None], sample_rate, subtype={subtype!r})",
    )


def vocode(source: str, target: str, model: str, is_mel: bool, length: int, options: Mapping[str, Any]) -> str:
    """Python: one mel, or a recording by way of its mel, to sound."""
    reading = [f"wave, sample_rate = read({source!r})", "mel = vocoder.mel(wave.mean(axis=0), sample_rate)"]
    if is_mel:
        reading = [f"mel, _ = load_mel({source!r})"]
    return _lines(
        f"import fromnoise\n{AUDIO}" + ("\nfrom fromnoise.data.mels import load_mel\n" if is_mel else "\n"),
        f"vocoder = fromnoise.load({model!r})",
        *reading,
        f"sound = vocoder(mel, length={length}, {given(**options)})",
        f"write({target!r}, sound[None], vocoder.sample_rate, subtype='FLOAT')",
    )


def generate(targets: list[str], model: str, options: Mapping[str, Any]) -> str:
    """Python: sounds from noise."""
    return _lines(
        "import fromnoise\nfrom fromnoise.data.audio import write\n",
        f"generator = fromnoise.load({model!r})",
        f"sounds = generator({given(count=len(targets), **options)})",
        f"for name, sound in zip({targets!r}, sounds):",
        "    write(name, sound, generator.sample_rate)",
    )


def _lines(*lines: str) -> str:
    return "\n".join(lines)
