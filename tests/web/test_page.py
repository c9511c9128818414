"""The page as a server, without a browser: what it answers, what it refuses, what it keeps to itself."""

import json
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fromnoise import hub
from fromnoise.types import InputError

pytest.importorskip("gradio")
pytest.importorskip("matplotlib")

import httpx

from fromnoise.web.desk import Desk
from fromnoise.web.page import absent
from fromnoise.web.parts import Stopped, Stops
from fromnoise.web.serve import served

DOCS = Path(__file__).parents[2] / "docs" / "web.md"
SECRET = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture(scope="module")
def address(tiny_models, text_model):
    """Of a page with small limits."""
    names = ["enhance-small", str(tiny_models["bridge"]), str(text_model)]
    with served(port=0, models=names, seconds=2, megabytes=0.5) as address:
        yield address.rstrip("/")


@pytest.fixture(scope="module")
def web(address):
    with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture
def talk(tmp_path):
    path = tmp_path / "talk.wav"
    soundfile.write(path, 0.2 * np.random.default_rng(0).standard_normal(8000), 16000)
    return path


def upload(web, path: Path) -> dict:
    answer = web.post("/gradio_api/upload", files={"files": (path.name, path.read_bytes())})
    assert answer.status_code == 200, answer.text
    return file(answer.json()[0])


def file(path: str) -> dict:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def call(web, name: str, **given) -> tuple[str, object]:
    """The last event of a call and its data."""
    event = web.post(f"/gradio_api/call/v2/{name}", json=given).json()["event_id"]
    lines = web.get(f"/gradio_api/call/{name}/{event}").text.splitlines()
    kind = next(line for line in lines if line in ("event: complete", "event: error"))
    return kind.removeprefix("event: "), json.loads(lines[lines.index(kind) + 1].removeprefix("data: "))


def test_a_call_gives_files_picture_command_and_python(web, talk):
    kind, data = call(web, "enhance", sound=upload(web, talk), model="enhance-small")
    assert kind == "complete"
    files, picture, command, python, *_ = data
    assert files[0]["orig_name"] == "talk_enhanced.wav"
    assert web.get(files[0]["url"]).content.startswith(b"RIFF")
    assert web.get(picture["url"]).content.startswith(b"\x89PNG")
    assert command == "fromnoise enhance talk.wav -o talk_enhanced.wav --model enhance-small --seed 0"
    assert "fromnoise.load('enhance-small')" in python


def test_texts_become_sounds(web, text_model):
    kind, data = call(web, "text", model=str(text_model), text="rain", count=2)
    assert kind == "complete"
    assert [entry["orig_name"] for entry in data[0]] == ["rain_0.wav", "rain_1.wav"]


def test_what_is_wrong_comes_back_as_a_sentence(web, talk):
    sound = upload(web, talk)
    for given, sentence in [
        ({"sound": None, "model": "enhance-small"}, "there is no sound yet"),
        ({"sound": sound, "model": "nowhere"}, "no model 'nowhere' here"),
        ({"sound": sound, "model": "enhance-small", "steps": 0}, "the number of steps must lie between"),
        ({"sound": sound, "model": "enhance-small", "quality": "superb"}, "superb"),
        ({"sound": sound, "model": "enhance-small", "sampler": "magic"}, "unknown sampler 'magic'"),
        ({"sound": file("http://example.org/a.wav"), "model": "enhance-small"}, "addresses are not fetched"),
    ]:
        kind, data = call(web, "enhance", **given)
        assert kind == "error"
        assert sentence in data["error"]


def test_no_file_of_the_server_can_be_read(web):
    for path in ("/etc/passwd", str(SECRET), "pyproject.toml", "../pyproject.toml", "fromnoise/hub.py"):
        for route in ("file=", "file/", "stream/"):
            answer = web.get(f"/gradio_api/{route}{path}")
            assert answer.status_code in (400, 403, 404, 405), (route, path)
        kind, data = call(web, "enhance", sound=file(path), model="enhance-small")
        assert kind == "error"
        assert "path" not in str(data)


def test_no_address_is_fetched(web, address):
    for target in (address, "http://169.254.169.254/", "http://example.org/"):
        assert web.get(f"/gradio_api/file={target}").status_code in (400, 403, 404)
        assert web.get(f"/gradio_api/proxy={target}").status_code in (400, 403, 404)


def test_a_file_beyond_the_limit_is_refused_while_it_comes(web):
    answer = web.post("/gradio_api/upload", files={"files": ("big.wav", bytes(600_000))})
    assert answer.status_code == 413


def test_the_page_is_without_analytics_and_describes_its_interface(web):
    config = web.get("/config").json()
    assert config["analytics_enabled"] is False
    described = web.get("/gradio_api/info").json()["named_endpoints"]
    assert sorted(described) == ["/enhance", "/text"]
    assert "/gradio_api/call/v2/enhance" in web.get("/gradio_api/openapi.json").json()["paths"]


def test_the_example_of_the_docs_works(address, talk):
    if shutil.which("curl") is None or sys.platform == "win32":
        pytest.skip("no curl")
    script = next(
        b for b in re.findall(r"```bash\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL) if "curl" in b
    )
    assert "http://127.0.0.1:7860" in script
    script = script.replace("http://127.0.0.1:7860", address)
    run = subprocess.run(["bash", "-euc", script], cwd=talk.parent, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    made = soundfile.info(talk.parent / "talk_enhanced.wav")
    assert (made.frames, made.samplerate) == (8000, 16000)


def test_work_stops_at_the_next_step_of_its_own_tab_or_when_its_visitor_leaves():
    stops, heard = Stops(), []

    def ended(tell) -> bool:
        try:
            tell(1, 4)
        except Stopped:
            return True
        return False

    work = {
        key: stops.begin(*key, lambda at, **_: heard.append(at))
        for key in (("me", "text"), ("me", "vocode"), ("you", "text"))
    }
    assert not any(map(ended, work.values()))
    assert heard == [(1, 4)] * 3
    stops.end("another", "text")
    stops.end("me", "text")
    assert [ended(tell) for tell in work.values()] == [True, False, False]
    stops.leave("me")
    assert [ended(tell) for tell in work.values()] == [True, True, False]
    assert list(stops.asked) == [("you", "text")]
    assert not ended(stops.begin("me", "text", lambda at, **_: None))


def test_work_ends_when_the_program_that_waits_for_it_leaves(web, text_model, monkeypatch):
    begun, made, first = [], [], threading.Event()
    begin, place = Stops.begin, Desk._place

    def began(*given):
        begun.append(given)
        first.set()
        return begin(*given)

    monkeypatch.setattr(Stops, "begin", began)
    monkeypatch.setattr(Desk, "_place", lambda desk: made.append(place(desk)) or made[-1])
    asked = {"model": str(text_model), "text": "rain"}

    def wait_for_long_work():
        event = web.post("/gradio_api/call/v2/text", json={**asked, "steps": 10_000}).json()["event_id"]
        return web.stream("GET", f"/gradio_api/call/text/{event}")

    with wait_for_long_work():
        assert first.wait(10)
        with wait_for_long_work():
            pass
    assert call(web, "text", **asked)[0] == "complete"
    assert len(begun) == 2, "what waited in the queue is not begun"
    assert len(made) == 1, "what was under way is not made"


def test_a_tab_without_a_model_says_how_to_get_one(web, monkeypatch):
    assert "fromnoise web --models separate-small" in web.get("/config").text
    assert "`separate-small` does; start the page with it" in absent("separate")
    monkeypatch.setattr(hub, "list_models", list)
    assert "none is bundled. Train one" in absent("text")


def test_a_taken_port_and_a_bad_limit_are_sentences(address):
    port = int(address.rpartition(":")[2])
    with pytest.raises(InputError, match="choose another --port"), served(port=port, models=["enhance-small"]):
        pass
    with pytest.raises(InputError, match="limits must be above 0"), served(port=0, megabytes=0):
        pass


def test_one_queue_serves_several_callers(web, talk):
    sound, kinds = upload(web, talk), []
    threads = [
        threading.Thread(target=lambda: kinds.append(call(web, "enhance", sound=sound, model="enhance-small")[0]))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert kinds == ["complete"] * 3
