"""A web server on loopback that answers as a hub does, as far as models are fetched and published; no network is used.

    GET  /api/models/USER/NAME/revision/R       which commit
    GET  /api/models/USER/NAME/tree/COMMIT      which files
    GET  /USER/NAME/resolve/COMMIT/FILE         a file, also from some byte on
    POST /api/repos/create, /api/models/USER/NAME/preupload/R, /api/models/USER/NAME/commit/R

Plain files lie below /plain/. What was asked is kept in `asked`, what was committed in `files`.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse

COMMIT = "c" * 40


class StubHub(ThreadingHTTPServer):
    """files: path -> content of its one repository. breaks: how many transfers of the weights end half-way."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.breaks = dict(files), 0
        self.asked: list[tuple[str, str, str | None]] = []
        self.repos: list[dict] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def ranges(self, name: str) -> list[str | None]:
        """The ranges that were asked for of a file, in order."""
        return [wanted for method, path, wanted in self.asked if method == "GET" and path.endswith("/" + name)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StubHub

    def log_message(self, *args: object) -> None:
        """Silence."""

    def _answer(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, content: object) -> None:
        self._answer(json.dumps(content).encode(), Content_Type="application/json")

    def do_HEAD(self) -> None:
        self._get()

    def do_GET(self) -> None:
        self._get()

    def _get(self) -> None:
        path = urlparse(self.path).path
        wanted = self.headers.get("Range")
        self.server.asked.append((self.command, path, wanted))
        if path.startswith("/api/models/"):
            self._about(path)
        elif (name := path.rpartition("/")[2]) in self.server.files:
            self._file(name, wanted)
        else:
            self._answer(b"not found", 404, X_Error_Code="EntryNotFound")

    def _about(self, path: str) -> None:
        files = self.server.files
        if "/no/" in path:
            self._answer(b"{}", 401, X_Error_Code="RepoNotFound")
        elif "/tree/" in path:
            self._json([{"type": "file", "path": n, "size": len(c), "oid": _tag(c)} for n, c in files.items()])
        else:
            self._json({"id": "user/name", "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]})

    def _file(self, name: str, wanted: str | None) -> None:
        content = self.server.files[name]
        start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        tags = {"ETag": f'"{_tag(content)}"', "X_Repo_Commit": COMMIT, "Accept_Ranges": "bytes"}
        if wanted and start >= len(content):
            self._answer(b"", 416)
            return
        if wanted:
            tags["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if self.command == "GET" and name.endswith(".safetensors") and self.server.breaks:
            self.server.breaks -= 1
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start : start + (len(content) - start) // 2])
            self.close_connection = True
            return
        self._answer(content[start:], 206 if wanted else 200, **tags)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlparse(self.path).path
        self.server.asked.append(("POST", path, self.headers.get("Authorization")))
        if path == "/api/repos/create":
            self.server.repos.append(json.loads(body))
            self._json({"url": f"{self.server.address}/user/name"})
        elif "/preupload/" in path:
            names = [file["path"] for file in json.loads(body)["files"]]
            self._json({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        elif "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._json({"commitOid": COMMIT, "commitUrl": f"{self.server.address}/user/name/commit/{COMMIT}"})
        else:
            self._json({})


def _tag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[StubHub]:
    """A running stub."""
    server = StubHub(files)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
