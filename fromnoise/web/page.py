"""The page, drawn by Gradio: one tab a task. What happens behind the tabs is `fromnoise.web.desk`."""

from collections.abc import Callable
from pathlib import Path

import gradio as gr
import numpy as np
import soundfile

from fromnoise.data.mels import MEL_SUFFIXES
from fromnoise.data.synthetic import coloured_noise, voice
from fromnoise.web.desk import MOST_SOUNDS, Desk
from fromnoise.web.parts import Stops, common_fields, folded, local, sound_field, wire
from fromnoise.web.shelf import bundled

TITLE = "Fromnoise"
MOST_WAITING = 16  # pieces of work in the queue
INTRODUCTIONS = {
    "enhance": "Speech without the noise around it. Rate, channels, length and level stay.",
    "separate": "The speakers of one recording, a file each. Several channels are averaged to one.",
    "vocode": "Sound from a mel spectrogram, or from that of a recording.",
    "generate": "Sounds from noise, freely or of a class.",
    "text": "Sounds from a description.",
}


def build(desk: Desk, stops: Stops, examples: Path) -> gr.Blocks:
    """The page. stops: by which work ends. examples: the folder into which the sounds to try are written."""
    tabs: dict[str, Callable[[], None]] = {
        "enhance": lambda: _enhance(desk, stops, _example(examples / "voice_in_noise.wav", 16000, 1, noise=0.05)),
        "separate": lambda: _separate(desk, stops, _example(examples / "two_voices.wav", 8000, 2)),
        "vocode": lambda: _vocode(desk, stops, _example(examples / "voice.wav", 22050, 1)),
        "generate": lambda: _generate(desk, stops),
        "text": lambda: _text(desk, stops),
    }
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(f"# {TITLE}\nDiffusion models for audio. Everything runs on the machine that serves this page.")
        for tab, fill in tabs.items():
            with gr.Tab(tab.capitalize(), id=tab):
                if desk.shelf.names(tab):
                    gr.Markdown(INTRODUCTIONS[tab])
                    fill()
                else:
                    gr.Markdown(absent(tab))

        def left(request: gr.Request) -> None:
            stops.leave(request.session_hash)

        page.unload(left)
    page.queue(max_size=MOST_WAITING, default_concurrency_limit=1)
    return page


def absent(tab: str) -> str:
    """What a tab says that has no model."""
    start = "start the page with it: `fromnoise web --models"
    if names := bundled(tab):
        return f"**No model on this page does this.** `{names[0]}` does; {start} {names[0]}`."
    return (
        "**No model on this page does this**, and none is bundled. Train one (`fromnoise train --help`), or take a "
        f"model folder or a hub id of one, and {start} MODEL`."
    )


def _enhance(desk: Desk, stops: Stops, example: Path) -> None:
    sound = sound_field(example)
    fields = common_fields(desk, "enhance")
    with gr.Accordion("More", open=False):
        folded(fields)
        dry = gr.Slider(0, 1, 0, step=0.05, label="Share of the input to keep")
    wire("enhance", desk.enhance, stops, [sound, fields.model, fields.quality, *fields.last, dry], players=1)


def _separate(desk: Desk, stops: Stops, example: Path) -> None:
    sound = sound_field(example)
    fields = common_fields(desk, "separate")
    with gr.Accordion("More", open=False):
        folded(fields)
    most = max((o.card["config"].get("sources", 2) for o in desk.shelf.offers if o.tab == "separate"), default=2)
    wire("separate", desk.separate, stops, [sound, fields.model, fields.quality, *fields.last], players=most)


def _vocode(desk: Desk, stops: Stops, example: Path) -> None:
    sound = sound_field(example)
    fields = common_fields(desk, "vocode")
    with gr.Accordion("More", open=False):
        folded(fields)
        mel = local(gr.File(label="A mel file instead of a recording", file_types=list(MEL_SUFFIXES), type="filepath"))
    wire("vocode", desk.vocode, stops, [sound, fields.model, fields.quality, *fields.last, mel], players=1)


def _generate(desk: Desk, stops: Stops) -> None:
    fields = common_fields(desk, "generate")
    labels = {offer.name: list(offer.card["config"].get("labels", ())) for offer in desk.shelf.offers}
    with gr.Row():
        label = gr.Dropdown(
            labels.get(fields.model.value, []),
            label="Class",
            value=None,
            info="none: freely",
            allow_custom_value=True,
        )
        count = gr.Slider(1, MOST_SOUNDS, 1, step=1, label="Sounds")
    fields.model.change(
        lambda name: gr.update(choices=labels.get(name, []), value=None),
        fields.model,
        label,
        queue=False,
        api_visibility="private",
    )
    with gr.Accordion("More", open=False):
        guidance = gr.Number(None, label="Guidance", info="1: none; empty: the model's own")
        folded(fields)
    inputs = [fields.model, label, count, fields.quality, guidance, *fields.last]
    wire("generate", desk.generate, stops, inputs, players=MOST_SOUNDS)


def _text(desk: Desk, stops: Stops) -> None:
    fields = common_fields(desk, "text")
    text = gr.Textbox(label="What is to be heard", placeholder="rain on leaves", max_length=1000)
    count = gr.Slider(1, MOST_SOUNDS, 1, step=1, label="Sounds")
    with gr.Accordion("More", open=False):
        negative = gr.Textbox("", label="What is not to be heard", max_length=1000)
        with gr.Row():
            seconds = gr.Number(None, label="Seconds", info="empty: as in training")
            guidance = gr.Number(None, label="Guidance", info="1: none; empty: the model's own")
        folded(fields)
    inputs = [fields.model, text, negative, seconds, count, fields.quality, guidance, *fields.last]
    wire("text", desk.text, stops, inputs, players=MOST_SOUNDS)


def _example(path: Path, rate: int, voices: int, noise: float = 0.0) -> Path:
    """Two and a half seconds of voices from a formula."""
    draw, n = np.random.default_rng(7), int(2.5 * rate)
    wave = sum((voice(n, rate, draw) for _ in range(voices)), np.zeros(n))
    if noise:
        hiss = coloured_noise(n, draw)
        wave = wave + noise * hiss / np.sqrt(np.mean(hiss**2))
    soundfile.write(path, np.clip(wave, -1, 1), rate, subtype="PCM_16")
    return path
