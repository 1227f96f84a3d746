"""What is not read and what is said of it: cut files, other files, sizes out of bounds, names that do not print."""

from __future__ import annotations

import logging
import os
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from autodistill_grounded_sam.errors import ImageReadError
from autodistill_grounded_sam.images import read_image, scan
from tests.image_kit import png_claiming, save, scene


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
