"""The page over HTTP: who may ask, and what is never given."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from autodistill_grounded_sam.review.server import ReviewServer
from tests.review.review_kit import answer_of, ask, every_stop, label_folder, page_of


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    (home / "images").mkdir()
    (home / "images" / "secret.txt").write_text("not an image of the run")
    label_folder(home)
    return home


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[ReviewServer]:
    with page_of(home / "out") as server:
        yield server


def base(server: ReviewServer) -> str:
    return server.url.removesuffix(f"{server.token}/")


def test_it_listens_on_this_machine_alone(server: ReviewServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert len(server.token) >= 40


def test_the_page_needs_no_other_place_and_runs_no_inline_script(server: ReviewServer) -> None:
    for path, mime in (("", "text/html"), ("review.css", "text/css"), ("review.js", "text/javascript")):
        status, content, headers = answer_of(server.url + path)
        assert (status, headers["Content-Type"].split(";")[0]) == (200, mime)
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
        text = content.decode()
        assert "http:" not in text.replace("http://www.w3.org/2000/svg", "") and "https:" not in text
        assert "innerHTML" not in text and "onclick" not in text


@pytest.mark.parametrize("path", ["", "about", "stops?after=-1&count=1", "picture?image=0&side=1600", "review.js"])
@pytest.mark.parametrize("token", ["", "wrong", "WRONG" * 9])
def test_without_the_token_nothing_is_seen(server: ReviewServer, path: str, token: str) -> None:
    status, content, _ = answer_of(f"{base(server)}{token}/{path}" if token else base(server) + path)
    assert (status, json.loads(content)) == (404, {"error": "not found"})


def test_a_token_that_is_cut_or_longer_is_wrong(server: ReviewServer) -> None:
    for token in (server.token[:-1], server.token + "a"):
        assert answer_of(f"{base(server)}{token}/about")[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1.evil.example:{port}", ""])
def test_another_host_is_refused_whatever_name_was_rebound_to_this_machine(server: ReviewServer, host: str) -> None:
    status, content, _ = answer_of(server.url + "about", Host=host.format(port=server.server_port))
    assert status == 421 and b"classes" not in content


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://127.0.0.1"])
def test_another_origin_is_refused(server: ReviewServer, origin: str) -> None:
    assert answer_of(server.url + "about", Origin=origin)[0] == 403
    body = {"stop": 0, "image": 0, "decision": {"verdict": "empty"}}
    assert answer_of(server.url + "decide", body, Origin=origin)[0] == 403
    assert answer_of(server.url + "about", Sec_Fetch_Site="cross-site")[0] == 403
    assert answer_of(server.url + "about", Origin=base(server).rstrip("/"))[0] == 200
    assert ask(server, "about")["undo"] == 0


def test_a_form_of_another_page_is_no_decision(server: ReviewServer) -> None:
    body = b'{"stop": 0, "image": 0, "decision": {"verdict": "empty"}}'
    assert answer_of(server.url + "decide", body, Content_Type="text/plain")[0] == 415
    assert answer_of(server.url + "decide", b"x" * 100_000)[0] == 413
    assert ask(server, "about")["undo"] == 0


@pytest.mark.parametrize(
    "path",
    ["../run/run.json", "%2e%2e/%2e%2e/etc/passwd", "images/secret.txt", "picture/../../secret.txt", "/etc/passwd",
     "picture?image=../secret.txt&side=1600", "picture?image=-1&side=1600", "picture?image=12&side=1600",
     "picture?image=0&side=99999", "picture?image=0"],
)  # fmt: skip
def test_nothing_but_images_of_the_run_is_served(server: ReviewServer, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)  # which sends the path as it is
    connection.request("GET", f"/{server.token}/{path}")
    answer = connection.getresponse()
    content = answer.read()
    assert answer.status in (400, 404)
    assert b"not an image" not in content and b"root:" not in content and b"identity" not in content


def test_pictures_are_the_files_of_the_run(server: ReviewServer, home: Path) -> None:
    image = every_stop(server)[0]["image"]
    status, content, headers = answer_of(f"{server.url}picture?image={image['number']}&side=1600")
    assert (status, headers["Content-Type"]) == (200, "image/png")
    assert content == (home / "images" / image["id"]).read_bytes()


@pytest.mark.parametrize(
    ("decision", "message"),
    [
        ({"verdict": "fine", "xyxy": [1, 1, 2, 2], "class": "circle"}, "verdict must be one of"),
        ({"verdict": "accepted", "xyxy": [1, 1, 2, 2], "class": "tree"}, "there is no class 'tree'; there are circle, square"),
        ({"verdict": "accepted", "xyxy": None}, "are of an image"),
        ({"verdict": "added", "xyxy": [5, 1, 2, 2], "class": "circle"}, "a box is x1, y1, x2, y2"),
        ({"verdict": "added", "xyxy": [5, 1, 2000, 2], "class": "circle"}, "96 x 72"),
        ({}, "no review"),
    ],
)
def test_what_is_no_decision_is_told_and_not_kept(server: ReviewServer, decision: dict[str, object], message: str) -> None:
    status, content, _ = answer_of(server.url + "decide", {"stop": 0, "image": 0, "decision": decision})
    assert status == 400 and message in json.loads(content)["error"]
    assert ask(server, "about")["undo"] == 0


@pytest.mark.parametrize("length", ["x", "-1", "1_0", "9" * 5000, None])
def test_a_body_of_unknown_length_is_refused_and_what_follows_is_no_request(server: ReviewServer, length: str | None) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    connection.putrequest("POST", f"/{server.token}/decide")
    connection.putheader("Content-Type", "application/json")
    if length is not None:
        connection.putheader("Content-Length", length)
    connection.endheaders(b'{"stop": 0}')
    answer = connection.getresponse()
    assert answer.status == 413 and answer.read()
    assert connection.sock is None or connection.sock.recv(1) == b""  # closed


def test_other_verbs_and_paths(server: ReviewServer) -> None:
    assert answer_of(server.url + "about", {})[0] == 404
    assert answer_of(server.url + "nowhere")[0] == 404
    for body in (
        b"[1, 2",
        b"[1, 2]",
        b"[" * 60_000,
        b'{"stop": 1e999, "image": 0, "decision": {}}',
        b'{"stop": 0, "image": 0, "decision": 7}',
    ):
        assert answer_of(server.url + "decide", body)[0] == 400
    assert ask(server, "stops?after=-1&count=-1")["stops"] == []
