"""Local HTTP servers in the place of Roboflow and of the Hugging Face Hub."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.upload.roboflow_server import KEY, FakeRoboflow, LocalServer


@pytest.fixture
def roboflow_server(tmp_path: Path) -> Iterator[FakeRoboflow]:
    """The installed `roboflow` package talks to this server, knows no login, and has no key."""
    from roboflow.config import refresh_region_urls

    server = FakeRoboflow(KEY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("API_URL", server.url)
        patch.setenv("ROBOFLOW_CONFIG_DIR", str(tmp_path / "no-login.json"))
        patch.delenv("ROBOFLOW_API_KEY", raising=False)
        refresh_region_urls()  # it reads API_URL when it is imported
        yield server
    refresh_region_urls()
    server.stop()


class FakeHub(LocalServer):
    """The Hugging Face Hub's endpoints for one dataset repository: create, preupload, LFS batch and PUT, commit, tree."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}  # of LFS, by sha256
        self.private: bool | None = None
        self.commits: list[str] = []
        self.sent: list[str] = []  # sha256 of every PUT
        self.failures: list[int] = []  # statuses for the next PUTs
        self.lose = ""  # a path that a commit forgets
        self.serve(type("Handler", (_HubHandler,), {"hub": self}))

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if method == "PUT" and path.startswith("/blob/"):
            status = self.failures.pop(0) if self.failures else 200
            if status == 200:
                self.blobs[hashlib.sha256(body).hexdigest()] = body
                self.sent.append(path.removeprefix("/blob/"))
            return status, {}
        if path == "/api/repos/create":
            wanted = json.loads(body)
            self.private = wanted.get("visibility") == "private" or wanted.get("private", False)
            return 200, {"url": f"{self.url}/datasets/{wanted['organization']}/{wanted['name']}"}
        if path == "/api/validate-yaml":  # of the dataset card
            return 200, {"errors": [], "warnings": []}
        if path.endswith("/preupload/main"):
            mode = {True: "lfs", False: "regular"}
            names = [one["path"] for one in json.loads(body)["files"]]
            rows = [{"path": name, "uploadMode": mode[name.endswith(".parquet")], "shouldIgnore": False} for name in names]
            return 200, {"files": rows}
        if path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            for one in objects:
                if one["oid"] not in self.blobs:
                    one["actions"] = {"upload": {"href": f"{self.url}/blob/{one['oid']}", "header": {}}}
            return 200, {"transfer": "basic", "objects": objects}
        if path.endswith("/commit/main"):
            return self._commit([json.loads(line) for line in body.splitlines()])
        if method == "GET" and "/tree/main" in path:
            return 200, [self._entry(name, data) for name, data in sorted(self.files.items())]
        return 404, {"error": f"no endpoint {method} {path}"}

    def _commit(self, rows: list[dict[str, Any]]) -> tuple[int, Any]:
        for row in rows:
            value = row["value"]
            if row["key"] == "header":
                self.commits.append(value["summary"])
            elif row["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif row["key"] == "lfsFile":
                self.files[value["path"]] = self.blobs[value["oid"]]
            elif row["key"] == "deletedFile":
                del self.files[value["path"]]
        self.files.pop(self.lose, None)
        return 200, {"commitUrl": f"{self.url}/datasets/team/cups/commit/abc", "commitOid": "abc", "hookOutput": ""}

    def _entry(self, path: str, data: bytes) -> dict[str, Any]:
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        large = {"lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}}
        return {"type": "file", "path": path, "size": len(data), "oid": blob, **(large if path.endswith(".parquet") else {})}


class _HubHandler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, answer = self.hub.answer(self.command, urlsplit(self.path).path, body)
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = _serve

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """The installed `huggingface_hub` talks to this server, by the protocol of LFS (Xet has servers of its own)."""
    import huggingface_hub.constants as constants

    server = FakeHub()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", server.url)
        patch.setenv("HF_TOKEN", "hf_SeCrEt")
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield server
    server.stop()
