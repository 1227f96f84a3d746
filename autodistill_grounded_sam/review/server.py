"""The page over HTTP, for one person on this machine: 127.0.0.1 only, a secret in the URL, no other origin.

Images are asked for by number, never by a path, so there is no path outside of the run's images to ask for.
"""

from __future__ import annotations

import hmac
import json
import logging
import secrets
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any
from urllib.parse import parse_qs, urlsplit

from autodistill_grounded_sam.errors import GroundedSamError
from autodistill_grounded_sam.review.session import Session

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
MOST_BYTES = 1 << 16  # of a decision
_PAGE = {"": ("review.html", "text/html; charset=utf-8"), "review.css": ("review.css", "text/css; charset=utf-8"),
         "review.js": ("review.js", "text/javascript; charset=utf-8")}  # fmt: skip
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_KEPT = "private, max-age=3600"  # of pictures; all else is asked for anew


class ReviewServer(ThreadingHTTPServer):
    """Serves one session at `url` until it is shut down. `port` 0 takes a free one."""

    daemon_threads = True

    def __init__(self, session: Session, port: int = 0) -> None:
        super().__init__((HOST, port), _Handler)
        self.session, self.token = session, secrets.token_urlsafe(32)
        page = resources.files("autodistill_grounded_sam.review") / "page"
        self.page = {path: ((page / name).read_bytes(), mime) for path, (name, mime) in _PAGE.items()}

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("a browser left before it had its answer", exc_info=True)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}/{self.token}/"


class _Refused(Exception):
    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    server_version, sys_version = "grounded-sam", ""
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave together, or each answer would wait for the other side's delayed acknowledgement
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is http.server's
        logger.debug("%s", self.command)  # never the path, which holds the token

    def _answer(self, verb: Callable[[str, Mapping[str, str]], tuple[bytes, str, str]]) -> None:
        """Whoever is not the page of this server learns nothing; a fault of a request is told to the page in words."""
        status, mime, caching = HTTPStatus.OK, "application/json", "no-store"
        try:
            content, mime, caching = verb(*self._admitted())
        except _Refused as refused:
            self.close_connection = True  # what was sent was not read
            status, content = refused.status, _json({"error": str(refused)})
        except OSError as error:  # before ours, some of which are OSErrors: an image that cannot be read, a full disk
            status, content = HTTPStatus.INTERNAL_SERVER_ERROR, _json({"error": str(error)})
        except (GroundedSamError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            status, content = HTTPStatus.BAD_REQUEST, _json({"error": str(error)})
        except Exception as error:  # a segmenter may raise anything, and the page must not be left without an answer
            logger.exception("a fault of the program behind the review page")
            status, content = HTTPStatus.INTERNAL_SERVER_ERROR, _json({"error": f"{type(error).__name__}: {error}"})
        self._send(status, content, mime, caching)

    def _admitted(self) -> tuple[str, dict[str, str]]:
        """The path behind the token, and the query; raises _Refused for any other host, origin or token."""
        port = self.server.server_port
        own = {f"{name}:{port}" for name in (HOST, "localhost")}
        if self.headers.get("Host") not in own:
            raise _Refused(HTTPStatus.MISDIRECTED_REQUEST, "this server answers only as 127.0.0.1 or localhost")
        origin = self.headers.get("Origin")
        if origin is not None and origin not in {f"http://{name}" for name in own}:
            raise _Refused(HTTPStatus.FORBIDDEN, "another origin")
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise _Refused(HTTPStatus.FORBIDDEN, "another site")
        parts = urlsplit(self.path)
        token, _, path = parts.path.lstrip("/").partition("/")
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise _Refused(HTTPStatus.NOT_FOUND, "not found")
        return path, {name: values[0] for name, values in parse_qs(parts.query).items()}

    def _get(self, path: str, query: Mapping[str, str]) -> tuple[bytes, str, str]:
        session = self.server.session
        if path in self.server.page:
            return *self.server.page[path], "no-store"
        if path == "picture":
            return *session.picture(int(query["image"]), int(query["side"])), _KEPT
        if path == "about":
            answer = session.about()
        elif path == "stops":
            flags = {name: query.get(name) == "1" for name in ("every", "back")}
            answer = session.stops(int(query["after"]), min(max(int(query["count"]), 0), 8), **flags)
        else:
            raise _Refused(HTTPStatus.NOT_FOUND, "not found")
        return _json(answer), "application/json", "no-store"

    def _post(self, path: str, _: Mapping[str, str]) -> tuple[bytes, str, str]:
        session, asked = self.server.session, self._body()
        if path == "decide":
            answer = session.decide(int(asked["stop"]), int(asked["image"]), dict(asked["decision"]))
        elif path == "undo":
            answer = session.undo()
        elif path == "mask":
            answer = session.mask(int(asked["image"]), asked["xyxy"], str(asked["class"]))
        else:
            raise _Refused(HTTPStatus.NOT_FOUND, "not found")
        return _json(answer), "application/json", "no-store"

    def _body(self) -> dict[str, Any]:
        """The JSON object that was sent. Another site's page could send a form, but not this type without being asked first."""
        if self.headers.get_content_type() != "application/json":
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected application/json")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length[:20]) > MOST_BYTES:
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {MOST_BYTES} bytes, and their number")
        return dict(json.loads(self.rfile.read(int(length))))

    def _send(self, status: HTTPStatus, content: bytes, mime: str, caching: str) -> None:
        self.send_response(status)
        for name, value in {
            **_HEADERS,
            "Content-Type": mime,
            "Content-Length": str(len(content)),
            "Cache-Control": caching,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()


def _json(answer: Mapping[str, Any]) -> bytes:
    return json.dumps(answer, ensure_ascii=False).encode()
