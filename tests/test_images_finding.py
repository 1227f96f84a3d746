"""Finding images in folders, scanning them, and the ids they get: on files made here."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodistill_grounded_sam import images
from autodistill_grounded_sam.errors import NoImagesError
from autodistill_grounded_sam.images import FailedImage, find_images, printable, read_image, scan
from tests.image_kit import exif_with, save

# --- find ---------------------------------------------------------------------------------------------------------------------


def test_find_images__every_usual_suffix_in_any_case_sorted_with_the_rest_counted(tmp_path: Path) -> None:
    wanted = ["B.PNG", "a.jpg", "deep/er/c.TiFf", "deep/d.jfif", "z.heic", "folder.jpg/inside.webp"]
    other = ["doc.pdf", "art.svg", "Thumbs.db", "none", ".hidden.jpg", ".git/x.jpg", "__MACOSX/y.jpg", "__MACOSX/._a.jpg"]
    for name in wanted + other:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    findings = find_images(tmp_path)
    assert [image.id for image in findings.images] == sorted(wanted)
    assert all(image.path == tmp_path / image.id for image in findings.images)
    assert findings.left_out == {".pdf": 1, ".svg": 1, ".db": 1, "(no suffix)": 1, "(hidden)": 1}


@pytest.mark.parametrize("extension", [".jpg", "jpg", "*.jpg", ".JPG", " *.JpG "])
def test_find_images__extension_filters_in_any_case(tmp_path: Path, extension: str) -> None:
    for name in ("a.jpg", "b.JPG", "c.png", "d.jpeg"):
        (tmp_path / name).write_bytes(b"x")
    assert [image.id for image in find_images(tmp_path, extension=extension).images] == ["a.jpg", "b.JPG"]


@pytest.mark.parametrize("extension", [None, "", "*", ".*", "*.*"])
def test_find_images__no_extension_or_a_star_takes_all(tmp_path: Path, extension: str | None) -> None:
    for name in ("a.jpg", "c.png"):
        (tmp_path / name).write_bytes(b"x")
    assert len(find_images(tmp_path, extension=extension).images) == 2


def test_find_images__linked_folders_are_not_followed_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in", target_is_directory=True)
    findings = find_images(tmp_path / "in")
    assert [image.id for image in findings.images] == ["a.png"]
    assert findings.left_out == {"(linked folder)": 1}
    assert "1 linked folder(s) in" in caplog.text


def test_find_images__the_folder_itself_may_be_a_link_or_hidden(tmp_path: Path) -> None:
    save(tmp_path / ".real" / "a.png")
    (tmp_path / "link").symlink_to(tmp_path / ".real", target_is_directory=True)
    assert [image.id for image in find_images(tmp_path / "link").images] == ["a.png"]
    assert [image.id for image in find_images(tmp_path / ".real").images] == ["a.png"]


def test_find_images__nothing_found_says_what_was_looked_for_and_what_was_seen(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    with pytest.raises(NoImagesError, match=r"no images in .*: looked in all its folders for \.jpg \.jpeg .*, found nothing"):
        find_images(tmp_path)
    for name in ("a.txt", "sub/b.txt", "c.svg"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(NoImagesError, match=r"found 2 \.txt, 1 \.svg$"):
        find_images(tmp_path)
    (tmp_path / "d.PNG").write_bytes(b"x")
    with pytest.raises(
        NoImagesError, match=r"for \.jpg, found .*1 \.png.*; leave out the extension \.jpg to take images of every"
    ):
        find_images(tmp_path, extension="jpg")


def test_find_images__wrong_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(NoImagesError, match=r"the image folder .*nowhere does not exist \(looked from "):
        find_images(tmp_path / "nowhere")
    path = save(tmp_path / "a.png")
    with pytest.raises(NoImagesError, match=r"a\.png is a file, not a folder; give the folder of the images: "):
        find_images(path)
    with pytest.raises(FileNotFoundError):
        find_images(str(tmp_path / "nowhere"))


# --- scan ---------------------------------------------------------------------------------------------------------------------


def test_scan__records_in_order_with_digest_and_upright_size(tmp_path: Path) -> None:
    save(tmp_path / "b.png")
    save(tmp_path / "a" / "t.jpg", exif=exif_with(6))
    (tmp_path / "c.jpg").write_bytes(b"")
    (tmp_path / "0.jpg").write_bytes(b"hello")
    calls: list[tuple[int, int]] = []
    result = scan(tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert [image.id for image in result.images] == ["a/t.jpg", "b.png"]
    assert [(image.width, image.height) for image in result.images] == [(24, 32), (32, 24)]
    for image in result.images:
        assert image.digest == hashlib.sha256(image.path.read_bytes()).hexdigest()
    assert [(image.id, image.reason) for image in result.failed] == [("0.jpg", "not_an_image"), ("c.jpg", "empty_file")]
    assert result.failed[0].detail == "no image format begins with b'hello'"
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert scan(tmp_path) == result


def test_scan__more_images_than_fly_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_IMAGES_IN_FLIGHT", 3)
    for n in range(10):
        save(tmp_path / f"{n}.png")
    assert [image.id for image in scan(tmp_path).images] == [f"{n}.png" for n in range(10)]


def test_scan__links_pipes_and_missing_targets_are_set_aside_without_opening(tmp_path: Path) -> None:
    save(tmp_path / "good.png")
    (tmp_path / "link.png").symlink_to("good.png")
    (tmp_path / "broken.png").symlink_to("nowhere.png")
    (tmp_path / "x.png").symlink_to("y.png")
    (tmp_path / "y.png").symlink_to("x.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "to_pipe.png").symlink_to("pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    result = scan(tmp_path)
    assert [image.id for image in result.images] == ["good.png", "link.png"]
    assert result.images[0].digest == result.images[1].digest
    assert {image.id: image.reason for image in result.failed} == {
        "broken.png": "broken_link",
        "x.png": "link_loop",
        "y.png": "link_loop",
        "pipe.png": "not_a_file",
        "to_pipe.png": "not_a_file",
        "device.png": "not_a_file",
    }


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder that everyone may enter, and this process without the rights of root, so that permissions count."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    was = os.geteuid()

    def drop() -> None:
        if was == 0:
            os.seteuid(65534)

    folder.joinpath("open").mkdir(mode=0o755)
    save(folder / "open" / "a.png").chmod(0o644)
    save(folder / "open" / "locked.png").chmod(0)
    save(folder / "open" / "closed" / "b.png")
    (folder / "open" / "closed").chmod(0o0)
    drop()
    try:
        yield folder / "open"
    finally:
        if was == 0:
            os.seteuid(was)
        (folder / "open" / "closed").chmod(0o755)
        shutil.rmtree(folder)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs Unix permissions")
def test_scan__what_may_not_be_read_is_set_aside(as_nobody: Path) -> None:
    result = scan(as_nobody)
    assert [image.id for image in result.images] == ["a.png"]
    assert result.failed == (
        FailedImage("closed", "permission_denied", "this folder may not be read by this user"),
        FailedImage("locked.png", "permission_denied", "the file may not be read by this user"),
    )
    with pytest.raises(NoImagesError, match=r"cannot be listed: Permission denied"):
        scan(as_nobody / "closed")
    with pytest.raises(NoImagesError, match=r"1 folder\(s\) could not be listed, the first is closed \(permission_denied\)"):
        scan(as_nobody, extension="gif")


# --- ids ----------------------------------------------------------------------------------------------------------------------


def test_ids__printable_unique_and_their_path_opens(tmp_path: Path) -> None:
    names = [
        b"line\nbreak.png",
        b"tab\there.png",
        b"latin1_\xe9.png",
        "plain \u00e9\u65e5\U0001f347\u202f.png".encode(),
        b"back\\slash.png",
    ]
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).write_bytes(save(tmp_path / "a.png").read_bytes())  # noqa: PTH118
    result = scan(tmp_path)
    assert {image.id for image in result.images} == {
        "a.png",
        "line\ufffd000abreak.png",
        "tab\ufffd0009here.png",
        "latin1_\ufffddce9.png",
        "plain \u00e9\u65e5\U0001f347\u202f.png",
        "back\\slash.png",
    }
    for image in result.images:
        assert read_image(image).shape == (24, 32, 3)
        image.id.encode("utf-8")


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.text(st.characters()), unique=True, max_size=20))
def test_printable__injective_and_safe(texts: list[str]) -> None:
    made = [printable(text) for text in texts]
    assert len(set(made)) == len(texts)
    for text in made:
        text.encode("utf-8")
        assert len(text.splitlines()) <= 1
        assert not any(unicodedata.category(char) in ("Cc", "Cs") for char in text)
