"""A local stand-in of the hub of Hugging Face: makes repositories, takes commits, serves files."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_of_the_test"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OWNER = "me"


class Hub:
    """What the stand-in holds, and what it was asked.

    Attributes:
        endpoint: Its address.
        repositories: Name → path of a file → content.
        private: Names of private repositories.
        asked: Method and path of every request.
        token: The only token that it takes.
    """

    def __init__(self) -> None:
        self.endpoint = ""
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.asked: list[str] = []
        self.token = TOKEN
        self.objects: dict[str, bytes] = {}

    def create(self, content: dict[str, Any]) -> tuple[int, Any]:
        name = f"{content.get('organization') or OWNER}/{content['name']}"
        if content.get("private") or content.get("visibility") == "private":
            self.private.add(name)
        body = {"url": f"{self.endpoint}/{name}", "id": name, "name": name}
        if name in self.repositories:
            return 409, body | {"error": "You already created this model repo"}
        self.repositories[name] = {}
        return 200, body

    def commit(self, repository: str, lines: bytes) -> tuple[int, Any]:
        files = self.repositories[repository]
        for line in map(json.loads, lines.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
        return 200, {"commitUrl": f"{self.endpoint}/{repository}/commit/{COMMIT}"} | {
            "commitOid": COMMIT,
            "success": True,
            "hookOutput": "",
        }

    def batch(self, content: dict[str, Any]) -> tuple[int, Any]:
        objects = [
            {**each, "actions": {"upload": {"href": f"{self.endpoint}/objects/{each['oid']}"}}}
            for each in content["objects"]
        ]
        return 200, {"transfer": "basic", "objects": objects}


def _modes(content: dict[str, Any]) -> tuple[int, Any]:
    files = [
        {
            "path": each["path"],
            "uploadMode": "regular" if each["path"].endswith((".md", ".json")) else "lfs",
            "shouldIgnore": False,
            "oid": None,
        }
        for each in content["files"]
    ]
    return 200, {"files": files}


def _checked_header(content: dict[str, Any]) -> tuple[int, Any]:
    header = yaml.safe_load(content["content"].split("---\n")[1])
    wrong = [] if isinstance(header, dict) else [{"message": "the header is no mapping"}]
    return (400 if wrong else 200), {"errors": wrong, "warnings": []}


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None: ...

    def do_POST(self) -> None:
        self._respond(self._posted)

    def do_PUT(self) -> None:
        self._respond(self._put)

    def do_GET(self) -> None:
        self._respond(self._asked)

    do_HEAD = do_GET

    def _respond(self, act: Any) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        path = unquote(urlsplit(self.path).path).strip("/")
        if path.startswith("objects/"):
            allowed = True  # a signed address
        else:
            allowed = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        status, content = act(path, body) if allowed else (401, {"error": "Invalid token"})
        self._send(status, content)

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _posted(self, path: str, body: bytes) -> tuple[int, Any]:
        if path == "api/repos/create":
            return self.hub.create(json.loads(body))
        if path == "api/validate-yaml":
            return _checked_header(json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.hub.batch(json.loads(body))
        _, _, owner, name, what, _ = path.split("/")
        if what == "preupload":
            return _modes(json.loads(body))
        return self.hub.commit(f"{owner}/{name}", body)

    def _put(self, path: str, body: bytes) -> tuple[int, Any]:
        oid = path.rpartition("/")[2]
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.objects[oid] = body
        return 200, {}

    def _asked(self, path: str, body: bytes) -> tuple[int, Any]:
        if path == "api/whoami-v2":
            return 200, {"name": OWNER, "type": "user", "orgs": []}
        owner, name, resolve, _, *rest = path.split("/")
        content = self.hub.repositories.get(f"{owner}/{name}", {}).get("/".join(rest))
        if resolve != "resolve" or content is None:
            return 404, {"error": "Entry not found"}
        return 200, content

    def _send(self, status: int, content: Any) -> None:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.send_header("X-Repo-Commit", COMMIT)
        if status == 404:
            self.send_header("X-Error-Code", "EntryNotFound")
        if status == 401:
            self.send_header("X-Error-Message", "Invalid user token.")
        self.send_header("ETag", f'"{hashlib.sha256(raw).hexdigest()}"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)


@contextmanager
def served() -> Iterator[Hub]:
    """Run a stand-in on this machine meanwhile."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
