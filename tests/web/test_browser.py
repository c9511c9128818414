"""The page in a real browser: each task once, bad input in words, several visitors, nothing asked of another machine.

Needs the package playwright and a Chromium or Chrome: one of the machine, or playwright's own. With
FROMNOISE_SCREENSHOTS=FOLDER the tabs are photographed for the docs.
"""

import os
import shutil
import tempfile
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile

pytest.importorskip("gradio")
pytest.importorskip("matplotlib")
pytest.importorskip("playwright.sync_api", reason="the browser tests need the package playwright")

import httpx
from PIL import Image
from playwright.sync_api import Error, sync_playwright

from fromnoise.web.page import MOST_WAITING
from fromnoise.web.serve import served
from fromnoise.web.shelf import bundled

NAMES = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"),
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
)
NO_BROWSER = "no Chromium or Chrome; install one (Debian: apt install chromium), or run: make browser"
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),  # a microphone that beeps
)
SMALL = ("enhance-small", "separate-small", "vocode-small", "digits-small")
WAIT = 60_000  # ms


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Where the page keeps its files."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("page")
        patch.setattr(tempfile, "tempdir", str(folder))
        yield folder


@pytest.fixture(scope="module")
def address(root, text_model):
    models = [*SMALL, *(bundled("text") or [str(text_model)])]
    with served(port=0, models=models, seconds=60, megabytes=4) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    with sync_playwright() as play:
        try:
            chromium = play.chromium.launch(executable_path=found, args=list(FLAGS))
        except Error as error:
            if found or "install" not in str(error):
                raise
            pytest.skip(NO_BROWSER)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, address):
    """The function that opens the page for one more visitor; at the end no request may have left the machine."""
    contexts, hosts = [], set()

    def open_page():
        context = browser.new_context(
            viewport={"width": 900, "height": 800}, accept_downloads=True, permissions=["microphone"]
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname or ""))
        page.goto(address)
        page.get_by_role("tab", name="Enhance").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert hosts - {""} == {"127.0.0.1"}


@pytest.fixture
def page(visit):
    """The page, opened."""
    return visit()


def open_tab(page, name: str):
    """The visible panel of a tab."""
    page.get_by_role("tab", name=name, exact=True).click()
    return page.get_by_role("tabpanel").locator("visible=true").first


def try_example(panel) -> None:
    """Take the sound to try."""
    panel.locator(".gallery-item").locator("visible=true").first.click()
    panel.locator("a[download]").first.wait_for()


def drop(panel, path: Path) -> None:
    panel.locator("input[type=file]").first.set_input_files(path)


def photograph(page, name: str) -> None:
    """A picture for the docs, where one is asked for."""
    if folder := os.environ.get("FROMNOISE_SCREENSHOTS"):
        page.wait_for_timeout(1500)  # the waveforms are drawn
        picture = Image.open(BytesIO(page.screenshot(full_page=True, scale="css")))
        picture.convert("RGB").quantize(48).save(Path(folder) / f"{name}.png", optimize=True)


def wait_for_result(panel, page, players: int = 1) -> None:
    """Picture, files and players are there."""
    panel.locator("img[src*='gradio_api/file=']").first.wait_for()
    assert panel.locator("a[download]").count() >= 1
    page.wait_for_function("n => document.querySelectorAll('audio, .waveform-container').length >= n", arg=players)


def downloaded(panel, page, ending: str) -> np.ndarray:
    """The samples of the file that the page hands out."""
    with page.expect_download() as waiting:
        panel.locator(f"a[download$='{ending}']").last.click()
    return soundfile.read(waiting.value.path())[0]


def test_enhance(page):
    panel = open_tab(page, "Enhance")
    try_example(panel)
    panel.locator("#enhance-run").click()
    wait_for_result(panel, page, 2)
    assert len(downloaded(panel, page, "_enhanced.wav")) == 40000
    panel.get_by_text("The same by command line").click()
    panel.get_by_text("fromnoise enhance voice_in_noise.wav -o").wait_for()
    panel.get_by_text("The same by command line").click()
    photograph(page, "enhance")


def test_a_recording_from_the_microphone_is_enhanced(page):
    panel = open_tab(page, "Enhance")
    panel.get_by_label("Record audio").click()
    panel.get_by_role("button", name="Record", exact=True).click()
    panel.get_by_role("button", name="pause").wait_for()
    page.wait_for_timeout(500)
    panel.get_by_role("button", name="Stop", exact=True).first.click()
    panel.locator("a[download]").first.wait_for()
    panel.locator("#enhance-run").click()
    wait_for_result(panel, page, 2)
    assert len(downloaded(panel, page, "_enhanced.wav")) > 8000


def test_separate(page):
    panel = open_tab(page, "Separate")
    try_example(panel)
    panel.locator("#separate-run").click()
    wait_for_result(panel, page, 3)
    assert len(downloaded(panel, page, "_s2.wav")) == 20000
    photograph(page, "separate")


def test_vocode(page):
    panel = open_tab(page, "Vocode")
    try_example(panel)
    panel.locator("#vocode-run").click()
    wait_for_result(panel, page, 2)
    assert len(downloaded(panel, page, "_vocoded.wav")) == 55125
    photograph(page, "vocode")


def test_generate(page):
    panel = open_tab(page, "Generate")
    panel.get_by_label("Class").fill("seven")
    panel.get_by_label("Class").press("Enter")
    panel.get_by_label("draft").check()
    panel.locator("#generate-run").click()
    wait_for_result(panel, page)
    assert len(downloaded(panel, page, "seven_0.wav")) == 8000
    photograph(page, "generate")


def test_text(page):
    panel = open_tab(page, "Text")
    panel.get_by_label("What is to be heard").fill("rain on leaves")
    panel.locator("#text-run").click()
    wait_for_result(panel, page)
    assert np.abs(downloaded(panel, page, "rain-on-leaves_0.wav")).max() > 0
    photograph(page, "text")


def toast(page, sentence: str) -> None:
    """The message says it; it is put away."""
    page.locator(".toast-body, [data-testid='toast-body']").get_by_text(sentence).first.wait_for()
    for button in page.locator(".toast-close, [data-testid='toast-close']").all():
        button.click()


def bad_file(kind: str, folder: Path) -> Path:
    path, wave = folder / f"{kind}.wav", np.full(8000, 0.1, np.float32)
    if kind == "prose":
        path.write_text("this is no sound at all " * 20)
    elif kind == "nan":
        wave[5] = np.nan
        soundfile.write(path, wave, 8000, subtype="FLOAT")
    elif kind == "cut":
        soundfile.write(path, wave, 8000)
        path.write_bytes(path.read_bytes()[:4000])
    elif kind == "long":
        soundfile.write(path, np.tile(wave, 61), 8000, subtype="PCM_U8")
    elif kind == "wide":
        soundfile.write(path, np.tile(wave[:100, None], 9), 8000)
    elif kind == "large":
        soundfile.write(path, np.tile(wave, 300), 8000)
    return path


def test_bad_files_are_refused_in_words(page, tmp_path):
    panel = open_tab(page, "Enhance")
    for kind, sentence in [
        ("prose", "prose.wav"),
        ("nan", "holds NaN or infinite samples"),
        ("cut", "truncated"),
        ("long", "61.0 s is too long; this page takes up to 60 s"),
        ("wide", "has 9 channels"),
    ]:
        drop(panel, bad_file(kind, tmp_path))
        panel.locator("a[download]").first.wait_for()
        panel.locator("#enhance-run").click()
        toast(page, sentence)
        panel.get_by_label("Clear").first.click()
        panel.locator("input[type=file]").first.wait_for(state="attached")
    drop(panel, bad_file("large", tmp_path))
    toast(page, "exceed the maximum allowed size")


def test_bad_wishes_are_refused_in_words(page):
    panel = open_tab(page, "Enhance")
    panel.locator("#enhance-run").click()
    toast(page, "there is no sound yet")
    panel = open_tab(page, "Text")
    panel.locator("#text-run").click()
    toast(page, "the text is empty")
    panel = open_tab(page, "Generate")
    panel.get_by_text("More", exact=True).click()
    for label, bad, good, sentence in [
        ("Steps", "0", "", "the number of steps must lie between"),
        ("Sampler", "magic", "", "unknown sampler 'magic'"),
        ("Seed", "-1", "0", "the seed must lie between"),
        ("Guidance", "-2", "", "guidance must be a number from 0"),
        ("Class", "eleven", "", "unknown label 'eleven'"),
    ]:
        field = panel.get_by_label(label).first
        field.fill(bad)
        field.press("Enter")
        panel.locator("#generate-run").click()
        toast(page, sentence)
        field.fill(good)


def begin(page, steps: int):
    """Generating is asked for, in so many steps."""
    panel = open_tab(page, "Generate")
    if not panel.get_by_label("Steps", exact=True).is_visible():
        panel.get_by_text("More", exact=True).click()
    panel.get_by_label("Steps", exact=True).fill(str(steps))
    panel.locator("#generate-run").click()
    return panel


LONG = 900  # steps


def begin_long(page):
    """Work of half a minute, under way."""
    panel = begin(page, LONG)
    page.get_by_text(f"/{LONG} steps").first.wait_for()
    return panel


def test_work_in_progress_counts_its_steps_and_stops(page):
    panel = begin_long(page)
    panel.locator("#generate-stop").click()
    panel.get_by_text("Stopped.").wait_for()
    page.get_by_text(f"/{LONG} steps").first.wait_for(state="detached")
    wait_for_result(begin(page, 2), page)
    panel.get_by_text("Stopped.").wait_for(state="detached")


@pytest.mark.parametrize("how", ["closed", "reloaded"])
def test_a_page_that_is_gone_stops_its_work_and_the_next_visitor_is_served(visit, root, how):
    gone, other = visit(), visit()
    begin_long(gone)
    before = set(root.glob("*/made/*"))
    panel = begin(other, 2)
    other.get_by_text("queue: 1/1").first.wait_for()
    if how == "closed":
        gone.context.close()
    else:
        gone.reload()
        gone.get_by_role("tab", name="Enhance").wait_for()
    wait_for_result(panel, other)
    assert len(set(root.glob("*/made/*")) - before) == 1  # what was under way is not made


def test_a_full_queue_is_a_sentence_and_empties(visit, address):
    busy, other = visit(), visit()
    panel = begin_long(busy)
    with httpx.Client(base_url=address, trust_env=False) as client:
        for _ in range(MOST_WAITING):
            assert client.post("/gradio_api/call/v2/generate", json={"model": "nowhere"}).is_success
        refused = client.post("/gradio_api/call/v2/generate", json={"model": "nowhere"})
    assert (refused.status_code, "Queue is full" in refused.text) == (503, True)
    begin(other, 2)
    toast(other, "This application is currently busy. Please try again.")
    panel.locator("#generate-stop").click()
    panel.get_by_text("Stopped.").wait_for()
    busy.wait_for_timeout(500)
    wait_for_result(begin(other, 2), other)
