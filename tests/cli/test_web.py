"""`fromnoise web`: up, down, and what it refuses. The page itself is tested in tests/web."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from fromnoise.cli import main

ROOT = Path(__file__).parents[2]


def test_without_the_extra_its_command_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["web"]) == 2
    assert "pip install 'fromnoise[web]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--max-seconds", "0"], "limits must be above 0"),
        (["--models", "nowhere"], "no model 'nowhere'"),
        (["--models", "enhance-small,digits-classifier"], "is for the task 'classify'"),
        (["--device", "abacus"], "unknown device 'abacus'"),
        (["--port", "70000"], "65535"),
    ],
)
def test_bad_requests_are_sentences(capsys, arguments, sentence):
    pytest.importorskip("gradio")
    assert main(["web", *arguments]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="signals differ there")
def test_it_serves_until_it_is_told_to_stop_and_leaves_nothing(tmp_path):
    pytest.importorskip("gradio")
    pytest.importorskip("matplotlib")
    code = "import sys; from fromnoise.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["web", "--port", "0", "--models", "enhance-small", "--device", "cpu"]
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+/", line)
            assert found, line
            assert list(tmp_path.glob("fromnoise-web-*"))
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            assert b"Fromnoise" in opener.open(found[0], timeout=30).read()
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0
        finally:
            server.kill()
    assert not list(tmp_path.glob("fromnoise-web-*"))
