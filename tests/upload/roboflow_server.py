"""A local HTTP server that speaks the endpoints which the installed `roboflow` package calls, and fails on demand."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

WORKSPACE = "shop"
KEY = "sEcReTkEy0123456789"


class LocalServer:
    """Answers on a free port of this machine until `stop`."""

    def serve(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class FakeRoboflow(LocalServer):
    """`failures[kind]` is worked off call by call: a status, "drop" (cut the connection), "half" (cut within the answer), "slow",
    or None (works)."""

    def __init__(self, key: str, projects: tuple[str, ...] = ("cups",)) -> None:
        self.key = key
        self.projects = {name: name for name in projects}  # id to name
        self.images: dict[str, dict[str, Any]] = {}  # by server id
        self.annotations: dict[str, list[dict[str, Any]]] = {}
        self.failures: dict[str, list[Any]] = {}
        self.calls: Counter[str] = Counter()
        self.delay = 0.0
        self.lock = threading.Lock()
        self.serve(type("Handler", (_Handler,), {"fake": self}))

    def project_info(self, slug: str) -> dict[str, Any]:
        blank: dict[str, Any] = {"classes": {}, "colors": {}, "created": 1.0, "updated": 1.0, "images": len(self.images)}
        more = {"public": False, "splits": {}, "type": "object-detection", "unannotated": 0, "annotation": slug}
        return {"id": f"{WORKSPACE}/{slug}", "name": self.projects[slug], **blank, **more}

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: bytes, content_type: str) -> tuple[int, Any]:
        if method == "GET" and path.startswith("/original/"):  # where images lie: a place of its own, without a key
            return 200, self.images[path.split("/")[2].partition(".")[0]]["content"]
        if query.get("api_key") != [self.key]:
            return 401, {"error": f"key {query.get('api_key')} is not known"}
        parts = [part for part in path.split("/") if part]
        if method == "POST" and not parts:
            return 200, {"workspace": WORKSPACE}
        if method == "GET" and parts == [WORKSPACE]:
            listed = [self.project_info(slug) for slug in self.projects]
            return 200, {"workspace": {"name": "Shop", "url": WORKSPACE, "projects": listed}}
        if method == "GET" and len(parts) == 2:
            known = parts[1] in self.projects
            return (200, {"project": self.project_info(parts[1])}) if known else (404, {"error": "no such project"})
        if method == "POST" and len(parts) == 3 and parts[2] == "search":
            wanted = json.loads(body)
            page = list(self.images)[wanted["offset"] : wanted["offset"] + wanted["limit"]]
            named = [{"id": image_id, "name": self.images[image_id]["name"]} for image_id in page]
            return 200, {"results": named, "total": len(self.images)}
        if method == "GET" and len(parts) == 4 and parts[2] == "images":
            name = self.images[parts[3]]["name"]
            urls = {"original": f"{self.url}/original/{parts[3]}{Path(name).suffix}"}
            return 200, {"image": {"id": parts[3], "name": name, "urls": urls}}
        if method == "POST" and parts == [WORKSPACE, "projects"]:
            wanted = json.loads(body)
            slug = re.sub(r"\W+", "-", wanted["name"].lower()) + "-x1"
            self.projects[slug] = wanted["name"]
            return 200, {**self.project_info(slug), "type": wanted["type"], "license": wanted["license"]}
        if method == "POST" and parts[0] == "dataset" and parts[2:] == ["upload"]:
            return self._upload(query, body, content_type)
        if method == "POST" and parts[0] == "dataset" and parts[2] == "annotate":
            return self._annotate(parts[3], query, json.loads(body))
        return 404, {"error": f"no endpoint {method} {path}"}

    def _upload(self, query: dict[str, list[str]], body: bytes, content_type: str) -> tuple[int, Any]:
        form = message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
        fields = {
            part.get_param("name", header="content-disposition"): part.get_payload(decode=True) for part in form.get_payload()
        }
        digest = hashlib.sha256(fields["file"]).hexdigest()
        for known_id, known in self.images.items():
            if known["digest"] == digest:
                return 200, {"duplicate": True, "id": known_id}
        new_id = f"img{len(self.images)}"
        text = {name: fields[name].decode() for name in ("name", "split")}
        self.images[new_id] = {
            "digest": digest,
            "content": fields["file"],
            "batch": query["batch"][0],
            "tags": query.get("tag", []),
            **text,
        }
        return 200, {"success": True, "id": new_id}

    def _annotate(self, image_id: str, query: dict[str, list[str]], body: dict[str, Any]) -> tuple[int, Any]:
        if image_id not in self.images:
            return 404, {"error": {"message": "no such image"}}
        if self.annotations.get(image_id) and "overwrite" not in query:
            return 409, {"error": {"message": "image is already annotated"}}
        seen = {name: query.get(name, [""])[0] for name in ("name", "jobName", "prediction", "overwrite")}
        self.annotations.setdefault(image_id, []).append({**seen, **body})
        return 200, {"success": True}


class _Handler(BaseHTTPRequestHandler):
    fake: FakeRoboflow
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        address = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kinds = ("annotate", "upload", "projects", "search", "original")
        kind = next((word for word in kinds if word in address.path), f"{self.command} other")
        if kind.endswith("other") and address.path.count("/") == 1 and len(address.path) > 1:
            kind = "workspace"
        with self.fake.lock:
            self.fake.calls[kind] += 1
            planned = self.fake.failures.get(kind) or [None]
            failure = planned.pop(0)
        time.sleep(self.fake.delay)
        if failure == "drop":
            self.close_connection = True
            self.connection.close()
            return
        if failure == "slow":
            time.sleep(0.5)
        if isinstance(failure, int):
            status, answer = failure, {"error": {"message": f"planned {failure} for {self.path}"}}
        else:
            with self.fake.lock:
                status, answer = self.fake.answer(
                    self.command, address.path, parse_qs(address.query), body, self.headers.get("Content-Type", "")
                )
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if failure == "half" else content)
        self.close_connection = self.close_connection or failure == "half"

    do_GET = do_POST = _serve

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
