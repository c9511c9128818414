"""What the tabs of the page are made of: fields, buttons, places for a result, and the wire between them.

Nothing leaves the machine: an address in place of a file is refused, and no button shares a sound elsewhere.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from fromnoise.types import InputError
from fromnoise.web.desk import Desk
from fromnoise.web.goods import Result, Tell
from fromnoise.web.shelf import QUALITIES, meaning

Component = TypeVar("Component", gr.Audio, gr.File)


class Stopped(Exception):
    """The user pressed the button, or has gone."""


def local(component: Component) -> Component:
    """A component that takes files, made to refuse an address in place of one: Gradio would fetch it."""
    keep = component.async_move_resource_to_block_cache

    async def keep_files(url_or_file_path: str | Path | None) -> str | None:
        if str(url_or_file_path or "").lower().startswith(("http:", "https:")):
            raise gr.Error("addresses are not fetched; upload the file itself", print_exception=False)
        return await keep(url_or_file_path)

    component.async_move_resource_to_block_cache = keep_files
    return component


@dataclass
class Stops:
    """Which work is to end: of a session, that of a tab whose button was pressed, or all when its page is closed."""

    asked: dict[tuple[str, str], threading.Event] = field(default_factory=dict)

    def begin(self, session: str | None, tab: str, progress: Callable[..., Any]) -> Tell:
        """The function that hears of steps in this session's work and ends it when that is asked for."""
        event = self.asked[session or "", tab] = threading.Event()

        def tell(done: int, total: int) -> None:
            if event.is_set():
                raise Stopped
            progress((done, total), desc="sampling", unit="steps")

        return tell

    def end(self, session: str | None, tab: str) -> None:
        """End the work of this session's tab at its next step."""
        if event := self.asked.get((session or "", tab)):
            event.set()

    def leave(self, session: str | None) -> None:
        """End all work of a session that is over, and forget it."""
        for key in [key for key in tuple(self.asked) if key[0] == (session or "")]:
            self.asked.pop(key).set()


def in_words(work: Callable[[], Result]) -> Result:
    """The result; what is wrong with an input becomes a message on the page."""
    try:
        return work()
    except InputError as error:
        raise gr.Error(str(error), duration=None, title="This cannot be done", print_exception=False) from None
    except Stopped:
        raise gr.Error("stopped", visible=False, print_exception=False) from None  # the button has said it


@dataclass(frozen=True)
class Common:
    """The fields that every tab has."""

    model: gr.Dropdown
    quality: gr.Radio
    steps: gr.Number
    sampler: gr.Textbox
    seed: gr.Number

    @property
    def last(self) -> list[Any]:
        """Those that are folded away, in the order of the desk's arguments."""
        return [self.steps, self.sampler, self.seed]


@dataclass(frozen=True)
class Shown:
    """Where a result goes."""

    files: gr.File
    picture: gr.Image
    command: gr.Code
    python: gr.Code
    notes: gr.Markdown
    players: list[gr.Audio]

    @property
    def all(self) -> list[Any]:
        return [self.files, self.picture, self.command, self.python, self.notes, *self.players]

    def of(self, result: Result) -> list[Any]:
        """What the components show of it."""
        files = [str(path) for path in result.files]
        notes = gr.update(value="\n".join(f"- {note}" for note in result.notes), visible=bool(result.notes))
        players = [
            gr.update(value=files[k], label=result.titles[k], visible=True)
            if k < len(files)
            else gr.update(value=None, visible=False)
            for k in range(len(self.players))
        ]
        return [files, str(result.picture), result.command, result.python, notes, *players]


def sound_field(example: Path) -> gr.Audio:
    """Where a sound is dropped or recorded; it is also the player of what was before."""
    sound = local(
        gr.Audio(
            label="before: drop a sound, or record one",
            sources=["upload", "microphone"],
            type="filepath",
            buttons=["download"],  # and none that shares it elsewhere
        )
    )
    gr.Examples([[str(example)]], [sound], label="A sound to try, made from a formula", cache_examples=False)
    return sound


def common_fields(desk: Desk, tab: str) -> Common:
    """Model and quality; the rest is made here and drawn by `folded`."""
    names = desk.shelf.names(tab)
    with gr.Row():
        model = gr.Dropdown(names, value=names[0] if names else None, label="Model", allow_custom_value=True)
        quality = gr.Radio(list(QUALITIES), value="standard", label="Quality", info=_meaning(desk, tab, *names[:1]))
    model.change(
        lambda name: gr.update(info=_meaning(desk, tab, name)), model, quality, queue=False, api_visibility="private"
    )
    steps = gr.Number(None, label="Steps", info="empty: by quality", render=False)
    sampler = gr.Textbox(
        "", label="Sampler", info="e.g. heun or pc:snr=0.3@karras; empty: the model's own", max_length=200, render=False
    )
    seed = gr.Number(0, label="Seed", precision=None, render=False)
    return Common(model, quality, steps, sampler, seed)


def _meaning(desk: Desk, tab: str, name: str | None = None) -> str:
    try:
        return meaning(desk.shelf.load(tab, name))
    except InputError as error:
        return str(error)


def folded(fields: Common) -> None:
    with gr.Row():
        fields.steps.render()
        fields.sampler.render()
        fields.seed.render()


def _below(tab: str, players: int) -> tuple[gr.Button, gr.Button, Shown]:
    """The buttons and the places of the result."""
    with gr.Row():
        run = gr.Button(tab.capitalize() if tab != "text" else "Generate", variant="primary", elem_id=f"{tab}-run")
        stop = gr.Button("Stop", elem_id=f"{tab}-stop")
    notes = gr.Markdown(visible=False, elem_id=f"{tab}-notes")
    shown = [
        gr.Audio(label="after", interactive=False, visible=k == 0, type="filepath", buttons=["download"])
        for k in range(players)
    ]
    picture = gr.Image(label="Spectrograms, on one scale", interactive=False, type="filepath", buttons=["download"])
    files = gr.File(label="Download", file_count="multiple", interactive=False)
    with gr.Accordion("The same by command line and in Python", open=False):
        command = gr.Code(label="Command line", language="shell", interactive=False)
        python = gr.Code(label="Python", language="python", interactive=False)
    return run, stop, Shown(files, picture, command, python, notes, shown)


def wire(tab: str, work: Callable[..., Result], stops: Stops, inputs: list[Any], players: int) -> None:
    """Buttons that start and end the desk's work on the inputs, and what comes of it. One queue serves all tabs: work
    waits until the one before is done."""
    run, stop, shown = _below(tab, players)
    event = run.click(
        _handler(tab, work, stops, shown),
        inputs,
        shown.all,
        api_name=tab,
        concurrency_id="desk",
        concurrency_limit=1,
        show_progress_on=[shown.picture],
    )

    def end(request: gr.Request) -> Any:
        stops.end(request.session_hash, tab)
        return gr.update(value="Stopped. What was waiting or under way is not made.", visible=True)

    stop.click(end, None, shown.notes, queue=False, cancels=[event], api_visibility="private")


def _handler(tab: str, work: Callable[..., Result], stops: Stops, shown: Shown) -> Callable[..., list[Any]]:
    """What Gradio calls, by position: a request, the arguments of the desk's work but for its last, and a progress.

    The signature tells Gradio which of these to give, and what they are called in its HTTP interface.
    """
    *wanted, _ = signature(work).parameters.values()

    def handle(request: gr.Request, *given: Any) -> list[Any]:
        *fields, progress = given
        asked = [value or "" if to.annotation is str else value for to, value in zip(wanted, fields, strict=True)]
        tell = stops.begin(request.session_hash, tab, progress)
        return shown.of(in_words(lambda: work(*asked, tell)))

    first = Parameter("request", Parameter.POSITIONAL_OR_KEYWORD)
    last = Parameter("progress", Parameter.POSITIONAL_OR_KEYWORD, default=gr.Progress())
    handle.__signature__ = Signature([first, *wanted, last])  # pyright: ignore[reportFunctionMemberAccess]
    return handle
