"""The page over HTTP, for one person on this machine: 127.0.0.1 only, a secret in the URL, nothing from elsewhere.

gradio keeps what is dropped in a temporary folder, which goes when the server does. Pictures of looks come from memory by a key,
and of the disk one file is served beside: the report of the folder that was labelled last.
"""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
from pathlib import Path
from typing import Any

import gradio
import uvicorn
from fastapi import FastAPI
from fastapi.responses import FileResponse, Response

from autodistill_grounded_sam.app.page import Page
from autodistill_grounded_sam.app.parts import page_file, theme
from autodistill_grounded_sam.app.playground import Playground
from autodistill_grounded_sam.errors import ConfigError

HOST = "127.0.0.1"
MOST_UPLOADED = "512mb"
# gradio's page has scripts and styles within, and builds its templates with eval; what comes from elsewhere is forbidden.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class AppServer:
    """Serves one playground at `url` until it is stopped. `port` 0 takes a free one. Used in a with-block."""

    def __init__(self, playground: Playground, port: int = 0) -> None:
        self._socket = _listening(port)
        self.token = secrets.token_urlsafe(32)
        self.url = f"http://{HOST}:{self._socket.getsockname()[1]}/{self.token}/"
        self._uploads = tempfile.TemporaryDirectory(prefix="grounded-sam-app-")
        os.environ["GRADIO_TEMP_DIR"] = self._uploads.name  # the only way to say it
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # of gradio's own parts as well
        self.page = Page(playground, f"/{self.token}")
        own, mounted = _app(self.page, playground, self.token)
        self._server = _Server(uvicorn.Config(own, log_level="error", lifespan="on"), mounted)

    def __enter__(self) -> AppServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.page.job.stop()
        self.page.job.wait()
        self._socket.close()
        self._uploads.cleanup()

    def serve_forever(self) -> None:
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """End `serve_forever`, from another thread."""
        self.page.blocks.is_running = False
        self._server.should_exit = True


class _Server(uvicorn.Server):  # type: ignore[misc]
    """Ends the stream that every open tab holds as well, which gradio ends only for servers that it started itself."""

    def __init__(self, config: uvicorn.Config, mounted: Any) -> None:
        super().__init__(config)
        self._mounted = mounted

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._mounted.stop_event.set()
        await super().shutdown(sockets)


def _listening(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise ConfigError(f"port {port} cannot be used: {error}; give another --port, or none for a free one") from error
    listening.listen()
    return listening


def _app(page: Page, playground: Playground, token: str) -> tuple[Any, Any]:
    """The ASGI app, and gradio's own within it."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    def picture(key: str) -> Response:
        content = playground.picture(key)
        if content is None:
            return Response(status_code=404)
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    def report() -> Response:
        path: Path | None = getattr(page.job.standing.summary, "report", None)
        return FileResponse(path, media_type="text/html") if path is not None else Response(status_code=404)

    app.add_api_route(f"/{token}/picture/{{key}}", picture)
    app.add_api_route(f"/{token}/report", report)
    gradio.mount_gradio_app(
        app, page.blocks, path=f"/{token}", server_name=HOST, allowed_paths=[], footer_links=[], run_history=False,
        max_file_size=MOST_UPLOADED, ssr_mode=False, pwa=False, mcp_server=False, enable_monitoring=False, theme=theme(),
        css=page_file("app.css"), head=f"<script>{page_file('app.js')}</script>", show_error=True,
    )  # fmt: skip
    # gradio checks that files it is told of were uploaded only once it was launched, which mounting does not say.
    page.blocks.has_launched = page.blocks.is_running = True
    (mounted,) = (route.app for route in app.routes if hasattr(getattr(route, "app", None), "stop_event"))
    return _with_headers(app), mounted


def _with_headers(app: Any) -> Any:
    """The ASGI app with our headers on every answer; what it streams is passed on as it comes."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        async def send_on(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        await app(scope, receive, send_on)

    return answer
