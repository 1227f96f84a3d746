"""Every hard and broken file of the shared collection: what becomes of it, one row a file, checked against its manifest."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autodistill_grounded_sam.errors import ImageReadError, NoImagesError
from autodistill_grounded_sam.images import dataset_stems, find_images, printable, read_image, scan, upright_bytes
from autodistill_grounded_sam.types import ImageRecord, RgbImage

pytestmark = pytest.mark.shared

# What is read, by what is written of it into a dataset: the `same` bytes, those less their tail (`cut`), or a new `png`.
LABELLED: dict[str, dict[str, str]] = {
    "same": {
        "exif": "orientation_1.jpg",
        "modes": "gray.jpg icc_srgb.jpg icc_wrong_space.jpg",
        "formats": "progressive.jpg jpeg_411_q20.jpg ext.jfif ext.jpe lossy.webp lossless.webp plain.bmp",
        "broken": "png_named.jpg jpeg_named.png",
        "sizes": "1x1.png 1x5000.png 12000x40.png 16x12.jpg 6000x4500.jpg",
        "content": "black.jpg white.png noise.jpg",
        "collide": "a.jpg a.png cam1/img_0001.jpg cam2/img_0001.jpg dup_1.jpg dup_2.jpg cam1__img_0001.jpg folder.jpg/inside.jpg",
        "sidecar": "good.jpg",
        "special": "target.jpg link.jpg no_permission.jpg",
    },
    "cut": {"broken": "trailing_garbage.jpg"},
    "png": {
        "exif": (
            "orientation_2.jpg orientation_3.jpg orientation_4.jpg orientation_5.jpg orientation_6.jpg orientation_7.jpg "
            "orientation_8.jpg orientation_6.png orientation_6.webp orientation_6.tif orientation_invalid_9.jpg exif_broken.jpg"
        ),
        "modes": (
            "cmyk.jpg gray16.png gray12in16.png rgb16.png palette.png palette_transparent.png rgba_half_transparent.png "
            "rgba_opaque.png gray_alpha.png bilevel.png"
        ),
        "formats": (
            "plain.avif plain.jp2 plain.ppm plain.tga tiff_lzw.tif tiff_jpeg.tiff multipage.tif animated.gif animated.webp "
            "animated.png phone_mpo.jpg"
        ),
        "sizes": "big_legal_11000x9000.png",
    },
}
NAMES = (  # all plain JPEGs; these hold spaces and line breaks themselves
    *("my photo (1).jpg", "фото_日本語_صورة.jpg", "🍇grapes🍎.jpg", "caf\u00e9.jpg", "cafe\u0301.jpg", "UPPER.JPG", "Mixed.JpEg"),
    *("x" * 246 + ".jpg", "a.b.c.v1.2.jpg", "clip.mp4#t=12.jpg", "-rf.jpg", "percent%20name.jpg", "comma,name;semi.jpg"),
    *(
        'quote\'s "double".jpg',
        "back\\slash.jpg",
        "trail .jpg",
        " lead.jpg",
        "<b>tag&amp.jpg",
        "line\nbreak.jpg",
        "tab\there.jpg",
    ),
    *("Case.jpg", "case.jpg", "CON.jpg", "001.jpg", "true.jpg", "null.png.jpg", "latin1_\udce9.jpg"),
)
SET_ASIDE = {
    "modes/float32.tif": "no_decoder",  # three float channels; Pillow reads one
    "broken/truncated_60pct.jpg": "truncated",
    "broken/truncated_last_2_bytes.jpg": "truncated",  # nobody can tell that no pixel is missing
    "broken/truncated_header.jpg": "truncated",
    "broken/truncated.png": "truncated",
    "broken/bad_crc.png": "damaged",
    "broken/zero_bytes.jpg": "empty_file",
    "broken/text_named.jpg": "not_an_image",
    "broken/html_error_page.jpg": "not_an_image",
    "broken/lfs_pointer.jpg": "not_an_image",
    "broken/random_bytes.png": "not_an_image",
    "broken/png_zero_width.png": "invalid_size",
    "sizes/bomb_30000x30000.png": "too_many_pixels",
    "sizes/bomb_header_65000x65000.png": "too_many_pixels",
    "special/dangling.jpg": "broken_link",
    "special/loop_a.jpg": "link_loop",
    "special/loop_b.jpg": "link_loop",
    "special/pipe.jpg": "not_a_file",
}
AT_DECODING = {"truncated_60pct.jpg", "truncated_last_2_bytes.jpg", "truncated.png", "bad_crc.png"}  # the header is whole
LEFT_OUT = (
    *("formats/drawing.svg", "formats/document.pdf", "broken/no_extension", "names/.hidden.jpg", "sidecar/Thumbs.db"),
    *("sidecar/.DS_Store", "sidecar/__MACOSX/._good.jpg", "sidecar/good.txt", "sidecar/good.json", "sidecar/notes.md"),
    *("special/parent_loop", "special/empty_folder"),
)
WRITTEN = {
    f"{place}/{name}": kind for kind, places in LABELLED.items() for place, names in places.items() for name in names.split()
}
WRITTEN.update({f"names/{name}": "same" for name in NAMES})
BIG = {"sizes/big_legal_11000x9000.png"}  # 99 megapixels
ALL_WRITTEN = [pytest.param(path, marks=[pytest.mark.slow] * (path in BIG)) for path in sorted(WRITTEN)]
HIDDEN_LEFT_HALF = "modes/rgba_half_transparent.png"


@dataclass(frozen=True)
class Odd:
    """The unpacked collection, its manifest, and one scan of the whole of it."""

    root: Path
    manifest: dict[str, dict[str, Any]]
    records: dict[str, ImageRecord]
    failed: dict[str, str]
    details: dict[str, str]

    def record(self, path: str) -> ImageRecord:
        return self.records[printable(path)]

    def read(self, path: str) -> RgbImage:
        return read_image(self.record(path))


@pytest.fixture(scope="session")
def odd(shared: Path, unpack_odd: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Odd:
    root = unpack_odd(tmp_path_factory.mktemp("odd") / "in") / "odd"
    os.mkfifo(root / "special" / "pipe.jpg")
    entries = json.loads((shared / "odd" / "MANIFEST.json").read_text("utf-8"))["files"]
    manifest = {os.fsdecode(bytes.fromhex(e["path_bytes_hex"])) if "path_bytes_hex" in e else e["path"]: e for e in entries}
    manifest = {path.removeprefix("(made by make_special.sh) "): entry for path, entry in manifest.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no bomb, EXIF or other warning may come out
        result = scan(root)
    return Odd(
        root,
        manifest,
        {record.id: record for record in result.images},
        {image.id: image.reason for image in result.failed},
        {image.id: image.detail for image in result.failed},
    )


def test_odd__the_table_holds_every_file_and_agrees_with_the_manifest(odd: Odd) -> None:
    table = {**dict.fromkeys(WRITTEN, "label"), **dict.fromkeys(SET_ASIDE, "skip"), **dict.fromkeys(LEFT_OUT, "skip")}
    assert set(table) == set(odd.manifest)
    assert len(table) == 125
    differing = {path for path, entry in odd.manifest.items() if entry["expect"] not in ("either", table[path])}
    assert differing == {"special/no_permission.jpg"}  # label for root; the test of that file tells both apart


def test_odd__the_counts_add_up(odd: Odd) -> None:
    found = {image.id for image in find_images(odd.root).images}
    assert found == set(odd.records) | set(odd.failed)
    assert not set(odd.records) & set(odd.failed)
    assert found == {printable(path) for path in (*WRITTEN, *SET_ASIDE)}
    json.dumps([*odd.records, *odd.details.values()]).encode("ascii")
    for text in (*odd.records, *odd.details.values()):
        assert len(text.encode("utf-8").splitlines()) == 1
    with pytest.raises(NoImagesError, match=r"empty_folder: looked .* found nothing"):
        find_images(odd.root / "special" / "empty_folder")


@pytest.mark.parametrize("path", ALL_WRITTEN, ids=ascii)
def test_odd__labelled(odd: Odd, path: str) -> None:
    if path == "special/no_permission.jpg" and os.geteuid() != 0:
        assert odd.failed[path] == "permission_denied"
        return
    entry = odd.manifest[path]
    record = odd.record(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image_rgb = odd.read(path)
    assert [record.width, record.height] == entry["display_size"]
    assert image_rgb.shape == (record.height, record.width, 3)
    assert image_rgb.dtype == np.uint8
    assert os.fsencode(record.path) == os.fsencode(odd.root / path)
    if entry.get("truth") and (record.width, record.height) in ((640, 480), (320, 240)):
        assert_same_scene(odd, image_rgb, entry)


def assert_same_scene(odd: Odd, image_rgb: RgbImage, entry: dict[str, Any]) -> None:
    """The pixels are one of the two photographs: upright, not mirrored, in its colours (or its gray), where they are visible."""
    height, width = image_rgb.shape[:2]
    scenes = [odd.read("special/target.jpg"), odd.read("names/case.jpg")]
    resized = [np.asarray(Image.fromarray(scene).resize((width, height), Image.Resampling.BOX), int) for scene in scenes]
    if (image_rgb[..., 0] == image_rgb[..., 2]).all():
        resized = [np.asarray(Image.fromarray(scene.astype(np.uint8)).convert("L"), int)[..., None] for scene in resized]
    shown = slice(320, None) if entry["path"] == HIDDEN_LEFT_HALF else slice(None)
    tolerance = {"modes/bilevel.png": 65, "modes/palette_transparent.png": 14}.get(entry["path"], 12)
    assert min(np.abs(image_rgb.astype(int) - scene)[:, shown].mean() for scene in resized) < tolerance


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # of this test's own Image.open
@pytest.mark.parametrize("path", ALL_WRITTEN, ids=ascii)
def test_odd__what_is_written_shows_the_labelled_pixels(odd: Odd, path: str) -> None:
    if path == "special/no_permission.jpg" and os.geteuid() != 0:
        pytest.skip("root alone reads it")
    record = odd.record(path)
    data, suffix = upright_bytes(record)
    original = record.path.read_bytes()
    kind = "same" if data == original else "cut" if original.startswith(data) else "png"
    assert kind == WRITTEN[path]
    assert data.startswith({".jpg": b"\xff\xd8\xff", ".png": b"\x89PNG", ".webp": b"RIFF", ".bmp": b"BM"}[suffix])
    if suffix == ".jpg":
        assert data.endswith(b"\xff\xd9")  # else ultralytics rewrites the file
    copy = odd.root.parent / f"copy{suffix}"
    copy.write_bytes(data)
    with Image.open(copy) as image:
        assert image.getexif().get(0x0112, 1) == 1
        assert image.size == (record.width, record.height)
    assert np.array_equal(read_image(copy), odd.read(path))


@pytest.mark.parametrize("path", sorted(SET_ASIDE))
def test_odd__set_aside_with_its_reason(odd: Odd, path: str) -> None:
    if Path(path).name in AT_DECODING:
        with pytest.raises(ImageReadError) as caught:
            odd.read(path)
        assert caught.value.reason == SET_ASIDE[path]
    else:
        assert odd.failed[path] == SET_ASIDE[path]
        with pytest.raises(ImageReadError) as caught:
            read_image(odd.root / path)
        assert caught.value.reason == SET_ASIDE[path]


@pytest.mark.parametrize("path", LEFT_OUT)
def test_odd__left_out_quietly(odd: Odd, path: str) -> None:
    assert not any(known == path or known.startswith(f"{path}/") for known in (*odd.records, *odd.failed))


def test_odd__all_eight_orientations_show_one_picture(odd: Odd) -> None:
    upright = odd.read("exif/orientation_1.jpg").astype(int)
    for name in [f"orientation_{n}.jpg" for n in range(2, 9)] + ["orientation_6.png", "orientation_6.webp", "orientation_6.tif"]:
        assert np.abs(odd.read(f"exif/{name}") - upright).mean() < 4, name


def test_odd__hidden_pixels_are_white(odd: Odd) -> None:
    assert (odd.read(HIDDEN_LEFT_HALF)[:, :320] == 255).all()
    assert odd.read(HIDDEN_LEFT_HALF)[:, 321:].mean() < 200


def test_odd__16_bit_and_bilevel_use_the_whole_range(odd: Odd) -> None:
    gray = np.asarray(Image.fromarray(odd.read("special/target.jpg")).convert("L"), int)
    for name in ("gray16.png", "gray12in16.png"):
        assert np.abs(odd.read(f"modes/{name}")[..., 0] - gray).mean() < 3, name
    assert set(np.unique(odd.read("modes/bilevel.png"))) == {0, 255}


def test_odd__what_is_not_used_is_said(odd: Odd, caplog: pytest.LogCaptureFixture) -> None:
    for name, left in {"multipage.tif": 2, "animated.gif": 3, "animated.webp": 3, "animated.png": 3}.items():
        odd.read(f"formats/{name}")
        assert f"formats/{name}: took the first of {left + 1} frames or pages, the other {left} are left out" in caplog.text
    odd.read("modes/gray12in16.png")
    assert "modes/gray12in16.png: 16-bit gray that uses only 12 bits" in caplog.text


def test_odd__details_help(odd: Odd) -> None:
    assert "git lfs pull" in odd.details["broken/lfs_pointer.jpg"]
    assert "<!DOCTYPE html" in odd.details["broken/html_error_page.jpg"]
    assert "30000 x 30000" in odd.details["sizes/bomb_30000x30000.png"]
    assert "convert it to an 8-bit PNG or JPEG" in odd.details["modes/float32.tif"]


def test_odd__names_in_a_dataset_never_clash(odd: Odd) -> None:
    stems = dataset_stems(list(odd.records))
    assert len({stem.casefold() for stem in stems.values()}) == len(odd.records)
    assert stems["names/a.b.c.v1.2.jpg"] == "names__a.b.c.v1.2"
    assert stems["collide/cam2/img_0001.jpg"] == "collide__cam2__img_0001"
    folder = odd.root.parent / "dataset"
    folder.mkdir()
    for stem in stems.values():
        (folder / f"{stem}.labels.json").write_text("{}")
    assert len(list(folder.iterdir())) == len(odd.records)
    digests = [odd.records[f"collide/dup_{n}.jpg"].digest for n in (1, 2)]
    assert digests[0] == digests[1]  # so that a split by digest keeps them together
