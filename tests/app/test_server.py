"""The page over HTTP: who may ask, what is never given, and that nothing is asked of the network."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="needs the extra [app]: pip install 'autodistill-grounded-sam[app]'")

from tests.app.app_kit import label_folder, page_of


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    label_folder(home)
    (home / "secret.txt").write_text("nobody's business")
    (home / "out" / "secret.txt").write_text("nobody's business")
    return home


@pytest.fixture(scope="module")
def went_out() -> Iterator[list[Any]]:
    """Every address outside of this machine that anything in this process tries to reach."""
    tried: list[Any] = []
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def connect_here(own: socket.socket, address: Any) -> None:
        if own.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            tried.append(address)
            raise OSError("no network here")
        connect(own, address)

    def look_up_here(host: Any, *rest: Any, **more: Any) -> Any:
        if host not in (None, "127.0.0.1", "::1", "localhost", b"127.0.0.1"):
            tried.append(host)
            raise socket.gaierror("no network here")
        return look_up(host, *rest, **more)

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", connect_here)
    patch.setattr(socket, "getaddrinfo", look_up_here)
    yield tried
    patch.undo()


@pytest.fixture(scope="module")
def server(home: Path, went_out: list[Any]) -> Iterator[Any]:
    with page_of(home / "out") as server:
        yield server


def answer_of(url: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)


def test_it_listens_on_this_machine_alone(server: Any) -> None:
    host, port = server._socket.getsockname()
    assert host == "127.0.0.1" and server.url == f"http://127.0.0.1:{port}/{server.token}/"
    assert len(server.token) >= 40
    config = json.loads(answer_of(server.url + "config")[1])
    assert config["enable_queue"] and not config.get("is_space") and not config.get("analytics_enabled", False)


def test_the_page_asks_for_nothing_from_elsewhere(server: Any) -> None:
    status, content, headers = answer_of(server.url)
    assert status == 200
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy and "connect-src 'self'" in policy and "http" not in policy.replace("https:", "")
    text = content.decode()
    assert "fonts.googleapis.com" not in text and "fonts.gstatic.com" not in text


@pytest.mark.parametrize(
    "path", ["", "config", "picture/x", "report", "gradio_api/info", "gradio_api/upload", "gradio_api/queue/join"]
)
def test_without_the_token_nothing_is_there(server: Any, path: str) -> None:
    base = server.url.removesuffix(f"{server.token}/")
    for token in ("", "wrong/", server.token[:-1] + "/", server.token + "a/"):
        status, content, _ = answer_of(base + token + path)
        assert (status, json.loads(content)) == (404, {"detail": "Not Found"})


@pytest.mark.parametrize(
    "how",
    [
        "gradio_api/file={}",
        "file={}",
        "gradio_api/file/{}",
        "gradio_api/proxy={}",
        "static/{}",
        "assets/{}",
        "picture/{}",
        "report/{}",
    ],
)
def test_no_path_of_this_machine_is_ever_served(server: Any, home: Path, how: str) -> None:
    # not even those of the run: its images come decoded, by keys
    of_the_run = [home / "out/secret.txt", home / "out/run/run.json", next((home / "images").iterdir())]
    wanted = [*of_the_run, home / "secret.txt", Path("/etc/passwd"), Path(__file__), Path.cwd() / "pyproject.toml"]
    for path in wanted:
        for spelt in (
            str(path),
            urllib.parse.quote(str(path), safe=""),
            f"../../../../../../../../..{path}",
            f"..%2f..%2f..%2f..%2f..%2f..{path}",
        ):
            status, content, _ = answer_of(server.url + how.format(spelt))
            assert status >= 400, spelt
            assert b"business" not in content and b"root:" not in content and b"identity" not in content


def test_a_path_that_was_not_uploaded_cannot_be_slipped_in_as_an_image(server: Any, home: Path) -> None:
    config = json.loads(answer_of(server.url + "config")[1])
    images = {one["id"] for one in config["components"] if one["type"] == "image"}
    (chosen,) = [
        one for one in config["dependencies"] if images & set(one["inputs"]) and [t[1] for t in one["targets"]] == ["input"]
    ]
    upload = Path(upload_of(server, b"hello"))
    for path, fine in ((home / "secret.txt", False), (home / "images/scene_0000.png", False), (upload, True)):
        image = {"path": str(path), "orig_name": "x.png", "meta": {"_type": "gradio.FileData"}}
        body = json.dumps({"data": [image], "fn_index": chosen["id"], "session_hash": path.name}).encode()
        answer_of(server.url + "gradio_api/queue/join", body, **{"Content-Type": "application/json"})
        _, told, _ = answer_of(f"{server.url}gradio_api/queue/data?session_hash={path.name}")
        assert (b'"success":true' in told, b"was not uploaded" in told) == (fine, not fine)


def upload_of(server: Any, content: bytes) -> str:
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="x.png"\r\n\r\n' + content + b"\r\n--b--\r\n"
    status, answer, _ = answer_of(server.url + "gradio_api/upload", part, **{"Content-Type": "multipart/form-data; boundary=b"})
    assert status == 200
    (path,) = json.loads(answer)
    return str(path)


def test_uploads_are_gone_with_the_server(home: Path) -> None:
    with page_of(home / "out") as server:
        path = Path(upload_of(server, b"hello"))
        assert path.read_bytes() == b"hello"
    assert not path.exists()


def test_nothing_went_out(server: Any, went_out: list[Any]) -> None:
    answer_of(server.url)
    assert went_out == []


def test_a_port_that_is_taken_is_told(server: Any, home: Path) -> None:
    from autodistill_grounded_sam.errors import ConfigError

    port = server._socket.getsockname()[1]
    with (
        pytest.raises(ConfigError, match=rf"port {port} cannot be used: .*; give another --port"),
        page_of(home / "out", port=port),
    ):
        pass
