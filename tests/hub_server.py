"""A server that speaks what ``huggingface_hub`` asks of a Hub; repositories are folders."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_API = re.compile(
    r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?"
)
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


def commit_of(folder: Path) -> str:
    """A name for a folder as it is, in the form of a commit."""
    return hashlib.sha1(str(folder).encode()).hexdigest()


@dataclass
class Repository:
    """What a name stands for.

    Attributes:
        revisions: folders by branch or tag; each is known by its commit too.
        refusal: status and, as the Hub has it, a code, that every request for a file is given.
    """

    revisions: dict[str, Path]
    refusal: tuple[int, str] | None = None

    def find(self, revision: str) -> Path | None:
        by_commit = {commit_of(folder): folder for folder in self.revisions.values()}
        return (self.revisions | by_commit).get(revision)


@dataclass
class Hub:
    """A running server.

    Attributes:
        cut_at: bytes of weights after which a connection breaks; each answer uses up one entry.
        asked: method and path of every request, and the range of a file that was asked for.
    """

    models: dict[str, Repository] = field(default_factory=dict)
    datasets: dict[str, Repository] = field(default_factory=dict)
    cut_at: list[int] = field(default_factory=list)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    url: str = ""
    stop: Callable[[], None] = lambda: None

    def __enter__(self) -> Hub:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("_", (_Handler,), {"hub": self}))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}"

        def stop() -> None:
            server.shutdown()
            server.server_close()
            self.stop = lambda: None

        self.stop = stop
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def fetched(self) -> list[str]:
        """Names of the files whose content was asked for."""
        found = [_FILE.fullmatch(path) for method, path, _ in self.asked if method == "GET"]
        return [match[4] for match in found if match]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    do_GET = do_POST = do_HEAD

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        path = unquote(urlsplit(self.path).path)
        path = re.sub(r"refs/(convert|pr)/", r"refs-\1-", path)
        self.hub.asked.append((self.command, path, self.headers.get("Range") or ""))
        if path == "/stop":  # for a client in another process
            self._json({})
            threading.Thread(target=self.hub.stop).start()
        elif match := _API.fullmatch(path):
            self._tell(match, body)
        elif match := _FILE.fullmatch(path):
            self._send(match)
        else:
            self._refuse(404, "")

    def _folder(self, kind: str, name: str, revision: str, content: bool) -> Path | None:
        """The folder that is asked about, or None when a refusal has been sent."""
        repository = getattr(self.hub, kind).get(name)
        if repository is None:
            self._refuse(401, "RepoNotFound")
            return None
        status, code = repository.refusal or (0, "")
        if status >= 500 or (status and content):
            self._refuse(status, code)
            return None
        folder = repository.find(revision)
        if folder is None:
            self._refuse(404, "RevisionNotFound")
        return folder

    def _tell(self, match: re.Match[str], body: str) -> None:
        kind, name, verb, revision, below = match.groups()
        folder = self._folder(kind, name, revision or "main", content=False)
        if folder is None:
            return
        files = [_entry(folder, path) for path in sorted(folder.rglob("*"))]
        if verb == "tree":
            inside = [x for x in files if not below or x["path"].startswith(f"{below}/")]
            if "recursive=true" not in self.path.lower():
                inside = [x for x in inside if "/" not in x["path"].removeprefix(f"{below}/")]
            self._json(inside)
        elif verb == "paths-info":
            asked = (
                json.loads(body)["paths"]
                if body.startswith("{")
                else re.findall("paths=([^&]*)", body)
            )
            self._json([x for x in files if x["path"] in map(unquote, asked)])
        else:
            siblings = [{"rfilename": x["path"]} for x in files if x["type"] == "file"]
            self._json({"id": name, "sha": commit_of(folder), "siblings": siblings})

    def _send(self, match: re.Match[str]) -> None:
        data, name, revision, file = match.groups()
        folder = self._folder("datasets" if data else "models", name, revision, content=True)
        if folder is None:
            return
        if not (folder / file).is_file():
            self._refuse(404, "EntryNotFound")
            return
        content = (folder / file).read_bytes()
        first = int((re.match(r"bytes=(\d+)", self.headers.get("Range") or "") or [0, 0])[1])
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - first))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{_entry(folder, folder / file)["oid"]}"')
        self.send_header("X-Repo-Commit", commit_of(folder))
        self.end_headers()
        if self.command == "HEAD":
            return
        weights = file.endswith(".safetensors")
        if weights and self.hub.cut_at and len(content) - first > self.hub.cut_at[0]:
            self.wfile.write(content[first:][: self.hub.cut_at.pop(0)])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
            return
        self.wfile.write(content[first:])

    def _json(self, values: Any) -> None:
        self._plain(200, json.dumps(values).encode(), "application/json")

    def _refuse(self, status: int, code: str) -> None:
        self._plain(status, b"{}", "application/json", code)

    def _plain(self, status: int, content: bytes, kind: str, code: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    """As the Hub lists a file or a folder."""
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": hashlib.sha1(name.encode()).hexdigest()}
    oid = hashlib.sha1(path.read_bytes()).hexdigest()
    return {"type": "file", "path": name, "oid": oid, "size": path.stat().st_size}
