"""Finding, scanning, reading, naming: on files made here."""

from __future__ import annotations

import ast
import hashlib
import io
import logging
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import unicodedata
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps, PngImagePlugin

from autodistill_grounded_sam import image_modes, images
from autodistill_grounded_sam.errors import ConfigError, ImageReadError, NoImagesError
from autodistill_grounded_sam.images import (
    FailedImage,
    dataset_stems,
    find_images,
    from_bgr,
    printable,
    read_image,
    read_pil,
    scan,
    upright_bytes,
)
from autodistill_grounded_sam.types import ImageRecord


def scene(width: int = 32, height: int = 24) -> np.ndarray:
    """Smooth colours, another in each corner: red grows to the right, green downward, blue is constant."""
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[..., 0] = np.linspace(20, 230, width, dtype=np.uint8)[None]
    rgb[..., 1] = np.linspace(10, 200, height, dtype=np.uint8)[:, None]
    rgb[..., 2] = 90
    return rgb


def save(path: Path, array: np.ndarray | None = None, **settings: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene() if array is None else array).save(path, **settings)
    return path


def record_of(path: Path) -> ImageRecord:
    (record,) = [image for image in scan(path.parent).images if image.path == path]
    return record


def exif_with(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


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


# --- read: files -> RGB -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "tga", "webp", "gif"])
def test_read_image__formats(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    tolerance = 40 if suffix == "gif" else 0
    assert np.abs(read_image(path).astype(int) - scene()).max() <= tolerance


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_read_image__all_eight_orientations_come_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    stored = ImageOps.exif_transpose(_tagged(Image.fromarray(scene()), _INVERSE[orientation]))
    path = tmp_path / f"a.{suffix}"
    stored.save(path, exif=exif_with(orientation), **({"quality": 95} if suffix != "png" else {}))
    record = record_of(path)
    assert (record.width, record.height) == (32, 24)
    assert np.abs(read_image(record).astype(int) - scene()).mean() < 4
    with Image.open(path) as image:
        assert np.array_equal(read_pil(image), read_image(path))


_INVERSE = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}


def _tagged(image: Image.Image, orientation: int) -> Image.Image:
    image.getexif()[0x0112] = orientation
    return image


def test_read_image__png_orientation_after_the_pixels_counts_too(tmp_path: Path) -> None:
    """As exiftool writes it; Pillow sees it only after decoding."""
    data = save(tmp_path / "a.png").read_bytes()
    end = data.rindex(b"IEND") - 4
    exif = exif_with(6).tobytes()[6:]
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    (tmp_path / "a.png").write_bytes(data[:end] + chunk + data[end:])
    record = record_of(tmp_path / "a.png")
    assert (record.width, record.height) == (24, 32)
    assert np.array_equal(read_image(record), np.rot90(scene(), 3))
    assert upright_bytes(record)[0] != record.path.read_bytes()


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_read_image__undefined_orientation_counts_as_upright(tmp_path: Path, orientation: int) -> None:
    path = save(tmp_path / "a.png", exif=exif_with(orientation))
    assert np.array_equal(read_image(path), scene())


def test_read_image__broken_exif_is_ignored_without_a_warning(tmp_path: Path) -> None:
    exif = exif_with(6).tobytes()
    path = save(tmp_path / "a.jpg", exif=exif[:14] + b"\xff" * 8, quality=95)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record = record_of(path)
        assert read_image(record).shape == (24, 32, 3)
        assert upright_bytes(record)[1] == ".png"  # other readers may make something of such EXIF


def test_read_image__content_decides_over_the_suffix(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert np.array_equal(read_image(path), scene())
    assert upright_bytes(record_of(path)) == (path.read_bytes(), ".png")


def test_read_image__alpha_is_blended_on_white(tmp_path: Path) -> None:
    alpha = np.full((24, 32, 1), 255, np.uint8)
    alpha[:, :16] = 0
    expected = scene()
    expected[:, :16] = 255
    path = save(tmp_path / "a.png", np.concatenate([scene(), alpha], axis=2))
    assert np.array_equal(read_image(path), expected)
    gray = scene()[..., :1]
    path = save(tmp_path / "la.png", np.concatenate([gray, alpha], axis=2))
    assert np.array_equal(read_image(path), np.where(alpha == 0, 255, gray).repeat(3, axis=2))


def test_read_image__transparent_colour_of_palette_rgb_gray_and_bilevel_is_white(tmp_path: Path) -> None:
    palette = Image.fromarray(scene()).quantize(16)
    palette.save(tmp_path / "p.png", transparency=int(palette.getpixel((0, 0))))
    assert read_image(tmp_path / "p.png")[0, 0].tolist() == [255, 255, 255]
    Image.fromarray(scene()).save(tmp_path / "rgb.png", transparency=tuple(scene()[0, 0].tolist()))
    assert read_image(tmp_path / "rgb.png")[0, 0].tolist() == [255, 255, 255]
    assert np.array_equal(read_image(tmp_path / "rgb.png")[1:], scene()[1:])
    Image.fromarray(scene()[..., 0]).save(tmp_path / "l.png", transparency=int(scene()[0, 0, 0]))
    assert read_image(tmp_path / "l.png")[0, 0].tolist() == [255, 255, 255]
    Image.fromarray(scene()[..., 0] > 100).save(tmp_path / "one.png", transparency=0)
    assert (read_image(tmp_path / "one.png") == 255).all()
    for name in ("p.png", "rgb.png", "l.png", "one.png"):
        assert np.array_equal(
            np.array(Image.open(io.BytesIO(upright_bytes(record_of(tmp_path / name))[0])).convert("RGB")),
            read_image(tmp_path / name),
        )


def test_read_image__bilevel_is_0_and_255_and_gray_is_repeated(tmp_path: Path) -> None:
    bits = scene()[..., 0] > 100
    assert np.array_equal(read_image(save(tmp_path / "a.png", bits)), (bits * 255).astype(np.uint8)[..., None].repeat(3, 2))
    assert np.array_equal(read_image(save(tmp_path / "b.png", scene()[..., 0])), scene()[..., :1].repeat(3, 2))


def test_read_image__cmyk_keeps_its_colours(tmp_path: Path) -> None:
    Image.fromarray(scene()).convert("CMYK").save(tmp_path / "a.jpg", quality=98)  # Pillow writes Adobe's inverted form
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - scene()).mean() < 4
    Image.fromarray(scene()).convert("CMYK").save(tmp_path / "a.tif")
    assert np.abs(read_image(tmp_path / "a.tif").astype(int) - scene()).mean() < 4


@pytest.mark.parametrize("mode", ["YCbCr", "LAB"])
def test_read_image__other_colour_spaces(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGB", (8, 8), (200, 30, 30))
    if mode == "LAB":
        from PIL import ImageCms

        turn = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
        image = ImageCms.applyTransform(image, turn)
    else:
        image = image.convert(mode)
    image.save(tmp_path / "a.tif")
    assert np.abs(read_image(tmp_path / "a.tif").astype(int) - (200, 30, 30)).max() <= 4


@pytest.mark.parametrize(
    ("largest", "depth"),
    [(65535, 16), (20000, 16), (16383, 14), (4095, 12), (1000, 10), (255, 8), (100, 8), (0, 8)],
)
@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_read_image__16_bit_gray_by_its_bit_depth(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str, largest: int, depth: int
) -> None:
    values = np.linspace(0, largest, 32 * 24).astype(np.uint16).reshape(24, 32)
    path = save(tmp_path / f"a.{suffix}", values)
    assert np.array_equal(read_image(path)[..., 1], (values >> (depth - 8)).astype(np.uint8))
    assert (f"uses only {depth} bits" in caplog.text) == (depth < 16)


@pytest.mark.parametrize(
    ("values", "expected", "note"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255], "0..1"),
        ([0.0, 100.4, 255.0], [0, 100, 255], "0..255: rounded"),
        ([0.0, 0.001, 0.002], [0, 128, 255], "stretched"),
        ([-1.0, 0.0, 1.0], [0, 128, 255], "-1..1: stretched"),
        ([0.0, 1.25, 2.5], [0, 128, 255], "0..2.5: stretched"),
        ([float("nan"), float("inf"), 1.0], [0, 0, 255], "0..1"),
        ([0.0, 0.0, 0.0], [0, 0, 0], "stretched"),
    ],
)
def test_read_image__float_gray_is_never_black_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, values: list[float], expected: list[int], note: str
) -> None:
    path = save(tmp_path / "a.tif", np.array([values], np.float32))
    assert read_image(path)[0, :, 0].tolist() == expected
    assert note in caplog.text


def test_read_image__32_bit_integers_are_stretched(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", np.array([[-10, 0, 10, 1000000]], np.int32))
    assert read_image(path)[0, :, 0].tolist() == [0, 0, 0, 255]


@pytest.mark.parametrize("suffix", ["gif", "tif", "webp", "png"])
def test_read_image__first_frame_and_the_log_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str) -> None:
    first, other = Image.fromarray(scene()), Image.new("RGB", (32, 24), (255, 0, 255))
    path = tmp_path / f"a.{suffix}"
    first.save(path, save_all=True, append_images=[other, ImageOps.invert(other)])
    assert np.abs(read_image(path).astype(int) - scene()).mean() < 12
    assert f"{path}: took the first of 3 frames or pages, the other 2 are left out" in caplog.text
    data, new = upright_bytes(record_of(path))
    with Image.open(io.BytesIO(data)) as written:
        assert new == ".png"
        assert getattr(written, "n_frames", 1) == 1
        assert np.array_equal(np.array(written), read_image(path))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif", "gif", "ppm", "tga", "avif", "jp2"])
@pytest.mark.parametrize("kept", [0.1, 0.6, 0.97])
def test_read_image__cut_files_never_give_pixels(tmp_path: Path, suffix: str, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    path = save(tmp_path / f"a.{suffix}", noise)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ImageReadError, match=r"^(truncated|damaged): .*\(.*a\.") as caught:
        read_image(path)
    if suffix in ("jpg", "png", "bmp", "tif", "gif", "ppm", "tga"):
        assert caught.value.reason == "truncated"
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_read_image__what_is_no_image_says_what_it_is(tmp_path: Path) -> None:
    cases = {
        "lfs.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "not_an_image", "git lfs pull"),
        "page.jpg": (b"<html>404</html>", "not_an_image", "begins with b'<html>404"),
        "photo.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "no_decoder", "HEIC .* convert it to JPEG"),
        "photo.jpg": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "no_decoder", "HEIC"),
        "empty.png": (b"", "empty_file", "holds no bytes"),
        "post.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_an_image", "no image format"),  # never run
        "text.tga": (b"This is not a picture, only words.", "not_an_image", "no image format"),
    }
    for name, (data, reason, detail) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageReadError, match=detail) as caught:
            read_image(tmp_path / name)
        assert caught.value.reason == reason, name
    with pytest.raises(ImageReadError, match=r"missing: the file does not exist \(.*nothing\.jpg\)"):
        read_image(tmp_path / "nothing.jpg")
    with pytest.raises(ImageReadError, match="not_a_file: a folder, not a regular file"):
        read_image(tmp_path)


def test_read_image__unknown_tiff_variant_says_what_to_do(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif")
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack("<HHI", 262, 3, 1)) + 8  # photometric interpretation
    data[at : at + 2] = struct.pack("<H", 32803)  # colour filter array
    path.write_bytes(data)
    with pytest.raises(ImageReadError, match="no_decoder: TIFF: unknown pixel mode; convert it to an 8-bit PNG or JPEG"):
        read_image(path)


def png_claiming(width: int, height: int, pixels: bytes = b"", *, bits: int = 8, colour: int = 2) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    bodies = (header, b"IDAT" + (pixels or zlib.compress(bytes(1000))), b"IEND")
    chunks = [struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) for body in bodies]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_read_image__size_limits_come_from_the_header(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_claiming(60000, 50000))
    with pytest.raises(ImageReadError, match=r"too_many_pixels: its header claims 60000 x 50000 .* limit of 200 megapixels"):
        read_image(path)
    assert scan(tmp_path).failed[0].reason == "too_many_pixels"
    path.write_bytes(png_claiming(0, 10))
    with pytest.raises(ImageReadError, match="invalid_size: its header claims 0 x 10 pixels"):
        read_image(path)
    small = save(tmp_path / "small.png", scene(100, 100))
    assert read_image(small, max_megapixels=0.01).shape == (100, 100, 3)
    with pytest.raises(ImageReadError, match=r"limit of 0\.0099 megapixels"):
        read_image(small, max_megapixels=0.0099)


def test_read_image__large_images_raise_no_bomb_warning_and_change_no_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # so that a small one is a bomb to Pillow
    path = save(tmp_path / "a.png")
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert np.array_equal(read_image(path), scene())
        assert scan(tmp_path).images
    assert not seen
    assert Image.MAX_IMAGE_PIXELS == 100
    assert warnings.filters == before


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_scan__a_bomb_never_allocates_its_size(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png_claiming(30000, 30000, zlib.compress(bytes(30000 * 3751), 1), bits=1, colour=0))
    script = (
        "import sys; from autodistill_grounded_sam.images import *; from autodistill_grounded_sam.errors import *\n"
        "import resource; peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "import PIL.Image; PIL.Image.init(); before = peak()\n"
        "assert scan(sys.argv[1]).failed[0].reason == 'too_many_pixels'\n"
        "try: read_image(sys.argv[1] + '/bomb.png')\n"
        "except ImageReadError: pass\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20_000, "kB"
    assert done.stderr == ""


# --- arrays and Pillow images -------------------------------------------------------------------------------------------------


def test_from_bgr__colours_gray_and_alpha() -> None:
    rgb = scene()
    assert np.array_equal(from_bgr(rgb[:, :, ::-1]), rgb)
    assert np.array_equal(from_bgr(rgb[:, :, 0]), rgb[:, :, :1].repeat(3, 2))
    assert np.array_equal(from_bgr(rgb[:, :, :1]), rgb[:, :, :1].repeat(3, 2))
    alpha = np.full((24, 32, 1), 255, np.uint8)
    assert np.array_equal(from_bgr(np.concatenate([rgb[:, :, ::-1], alpha], 2)), rgb)
    assert (from_bgr(np.concatenate([rgb[:, :, ::-1], 0 * alpha], 2)) == 255).all()
    assert from_bgr(rgb[:, :, ::-1]).flags.c_contiguous


@pytest.mark.parametrize(
    ("array", "got"),
    [
        (np.zeros((4, 4, 3), np.float32), r"float32 of shape \(4, 4, 3\)"),
        (np.zeros((3, 4, 5), np.uint8), r"uint8 of shape \(3, 4, 5\)"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8 of shape \(0, 4, 3\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"uint8 of shape \(2, 4, 4, 3\)"),
        ([[1, 2]], "got list"),
    ],
)
def test_from_bgr__refuses_what_it_would_misread(array: object, got: str) -> None:
    with pytest.raises(ConfigError, match=rf"must be uint8 in 0\.\.255, BGR .*{got}"):
        from_bgr(array)  # type: ignore[arg-type]


def test_read_pil__equals_the_file_and_names_faults(tmp_path: Path) -> None:
    for name, image in {"a.png": Image.fromarray(scene()).quantize(8), "b.tif": Image.fromarray(scene()).convert("CMYK")}.items():
        image.save(tmp_path / name)
        with Image.open(tmp_path / name) as opened:
            assert np.array_equal(read_pil(opened), read_image(tmp_path / name))
    with pytest.raises(ImageReadError, match="invalid_size: a Pillow image of 0 x 5 pixels"):
        read_pil(Image.new("RGB", (0, 5)))
    data = save(tmp_path / "c.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).read_bytes()
    with pytest.raises(ImageReadError, match="truncated: PNG"):
        read_pil(Image.open(io.BytesIO(data[:5000])))


# --- what goes into a dataset -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "suffix"),
    [
        ("a.jpg", {}, ".jpg"),
        ("a.jfif", {"progressive": True}, ".jpg"),
        ("a.png", {}, ".png"),
        ("a.webp", {}, ".webp"),
        ("a.bmp", {}, ".bmp"),
        ("b.jpg", {"exif": exif_with(1)}, ".jpg"),
    ],
)
def test_upright_bytes__plain_files_stay_as_they_are(tmp_path: Path, name: str, settings: dict, suffix: str) -> None:
    path = save(tmp_path / name, **settings)
    assert upright_bytes(record_of(path)) == (path.read_bytes(), suffix)


def test_upright_bytes__jpeg_with_a_tail_is_cut_after_its_end(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg")
    whole = path.read_bytes()
    path.write_bytes(whole + b"a phone's trailer")
    assert upright_bytes(record_of(path)) == (whole, ".jpg")


def test_upright_bytes__16_bit_png_and_odd_bmp_are_written_anew(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + np.full((32, 3), 0x7FFF, ">u2").tobytes() for _ in range(24))
    (tmp_path / "a.png").write_bytes(png_claiming(32, 24, zlib.compress(rows), bits=16))
    data, suffix = upright_bytes(record_of(tmp_path / "a.png"))
    assert suffix == ".png"
    assert data[24] == 8
    assert (read_image(tmp_path / "a.png") == 0x7F).all()
    Image.fromarray(scene()[..., 0] > 90).save(tmp_path / "b.bmp")
    assert upright_bytes(record_of(tmp_path / "b.bmp"))[1] == ".png"


def test_upright_bytes__a_file_that_changed_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png")
    record = record_of(path)
    save(path, scene()[::-1])  # of the same size
    with pytest.raises(ImageReadError, match="changed: the file is not the one that was labelled; label it again"):
        upright_bytes(record)


def test_upright_bytes__trainers_load_what_was_labelled(tmp_path: Path) -> None:
    """OpenCV (ultralytics) and Pillow without any turning (others) see the pixels of `read_image`."""
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(1)
    smooth = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize((64, 48), Image.Resampling.BICUBIC)
    for name, image, extra in [
        ("plain.jpg", smooth, {"quality": 95}),
        ("turned.jpg", smooth, {"exif": exif_with(6)}),
        ("turned.webp", smooth, {"exif": exif_with(5)}),
        ("plain.webp", smooth, {}),
        ("cmyk.jpg", smooth.convert("CMYK"), {}),
        ("palette.png", smooth.quantize(32), {}),
        ("gray.jpg", smooth.convert("L"), {}),
        ("plain.bmp", smooth, {}),
        ("gray.bmp", smooth.convert("L"), {}),
        ("plain.tif", smooth, {}),
    ]:
        image.save(tmp_path / name, **extra)
        data, suffix = upright_bytes(record_of(tmp_path / name))
        labelled = read_image(tmp_path / name).astype(int)
        by_pillow = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
        by_opencv = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
        assert np.array_equal(by_pillow, labelled), name
        assert by_opencv.shape == labelled.shape, name
        assert np.abs(by_opencv.astype(int) - labelled).max() <= (0 if suffix in (".png", ".bmp") else 6), name


# --- names in a dataset -------------------------------------------------------------------------------------------------------


def test_dataset_stems__what_needs_no_change_stays() -> None:
    stems = dataset_stems(
        ["a.jpg", "a.b.c.v1.2.jpg", "001.jpg", "null.png.jpg", "cam1/img_1.jpg", "фото_日本語.jpg", "-rf.jpg", "x#t=1.jpg"]
    )
    assert list(stems.values()) == ["a", "a.b.c.v1.2", "001", "null.png", "cam1__img_1", "фото_日本語", "-rf", "x#t=1"]


def test_dataset_stems__clashes_of_suffix_case_unicode_and_flattening() -> None:
    ids = ["a.jpg", "a.PNG", "Case.jpg", "case.jpg", "caf\u00e9.jpg", "cafe\u0301.jpg", "c/i.jpg", "c__i.jpg", "free.jpg"]
    stems = dataset_stems(ids)
    keys = {unicodedata.normalize("NFC", stem).casefold() for stem in stems.values()}
    assert len(keys) == len(ids)
    assert stems["free.jpg"] == "free"
    assert stems["a.jpg"] == "a-" + hashlib.sha256(b"a.jpg").hexdigest()[:8]
    assert stems["c/i.jpg"].startswith("c__i-")


@pytest.mark.parametrize(
    "image_id",
    [
        *("CON.jpg", "nul.tar.jpg", "com1.png", "<b>.jpg", 'q"q.jpg', "b\\s.jpg", "trail .jpg", " lead.jpg", "dot..jpg", "?.jpg"),
        *("x\ufffd000ay.jpg", "n\nl.jpg", ". .jpg", "x" * 250 + ".jpg", "日" * 90 + ".jpg", "\udce9.jpg"),
    ],
)
def test_dataset_stems__unsafe_names_are_mended_and_marked(image_id: str) -> None:
    stem = dataset_stems([image_id])[image_id]
    assert stem.endswith("-" + hashlib.sha256(image_id.encode("utf-8", "surrogatepass")).hexdigest()[:8])
    check_safe(stem)


def check_safe(stem: str) -> None:
    assert 0 < len(stem.encode("utf-8")) <= images.MAX_STEM_BYTES
    assert not set(stem) & set('<>:"/\\|?*\ufffd')
    assert not any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in stem)
    assert stem == stem.strip(" ").rstrip(".").lstrip(".")
    assert stem.split(".")[0].upper() not in images._WINDOWS_DEVICES


def test_dataset_stems__a_file_named_like_a_digest_cannot_take_the_place() -> None:
    ids = ["a.jpg", "a.png"]
    for digits in (8, 16, 32, 64):  # an adversary who knows the scheme
        ids += [f"a-{hashlib.sha256(b'a.jpg').hexdigest()[:digits]}.jpg"]
    stems = dataset_stems(ids)
    assert len({stem.casefold() for stem in stems.values()}) == len(ids)
    for stem in stems.values():
        check_safe(stem)


_parts = st.one_of(
    st.sampled_from(
        ["a", "A", "con", "cam1", "__", ".", "..", " ", "é", "e\u0301", "ß", "ss", "\ufffd000a", "x" * 120, "-", "1"]
    ),
    st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=6),
)
_names = st.lists(_parts, min_size=1, max_size=3).map("".join)
_paths = st.lists(_names, min_size=1, max_size=3).map("/".join)
_ids = st.lists(st.tuples(_paths, st.sampled_from([".jpg", ".PNG"])).map("".join), unique=True, max_size=12)


def file_key(stem: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", stem).casefold())


@settings(deadline=None)  # the machine may be busy
@given(_ids, st.randoms())
def test_dataset_stems__unique_safe_and_independent_of_order(ids: list[str], random: object) -> None:
    stems = dataset_stems(ids)
    assert set(stems) == set(ids)
    assert len({file_key(stem) for stem in stems.values()}) == len(ids)
    for stem in stems.values():
        check_safe(stem)
    shuffled = list(ids)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert dataset_stems(shuffled) == stems
    alone = {image_id: dataset_stems([image_id])[image_id] for image_id in ids}
    keys = [file_key(stem) for stem in alone.values()]
    for image_id, key in zip(alone, keys, strict=True):
        if keys.count(key) == 1:  # the other images change a stem only in a clash
            assert stems[image_id] == alone[image_id]


# --- the house ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [images, image_modes])
def test_imports__no_room_no_torch_no_opencv(module: object) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text("utf-8"))  # type: ignore[attr-defined]
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    ours = {name for name in names if name.startswith("autodistill")}
    assert ours <= {f"autodistill_grounded_sam{room}" for room in ("", ".errors", ".types", ".image_modes")}
    assert not {"torch", "cv2"} & {name.split(".")[0] for name in names}


def test_logging__names_are_printable(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9.png"))
    info = PngImagePlugin.PngInfo()
    path.write_bytes(save(tmp_path / "a.png", np.full((4, 4), 1000, np.uint16), pnginfo=info).read_bytes())
    read_image(path)
    caplog.text.encode("utf-8")
    path.write_bytes(b"")
    with pytest.raises(ImageReadError) as caught:
        read_image(path)
    str(caught.value).encode("utf-8")
