"""From files, arrays and Pillow images to upright RGB: every format, orientation, mode and depth made here."""

from __future__ import annotations

import ast
import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image, ImageOps

from autodistill_grounded_sam import image_modes, images
from autodistill_grounded_sam.errors import ConfigError, ImageReadError
from autodistill_grounded_sam.image_modes import from_bgr
from autodistill_grounded_sam.images import read_image, read_pil, upright_bytes
from tests.image_kit import exif_with, record_of, save, scene

# --- files --------------------------------------------------------------------------------------------------------------------


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
    if mode == "YCbCr" and int(PIL.__version__.partition(".")[0]) < 13:
        pytest.skip("Pillow below 13 cannot read a TIFF in YCbCr that it wrote itself")
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


# --- the house ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [images, image_modes])
def test_imports__no_room_no_torch_no_opencv(module: object) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text("utf-8"))  # type: ignore[attr-defined]
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    ours = {name for name in names if name.startswith("autodistill")}
    assert ours <= {f"autodistill_grounded_sam{room}" for room in ("", ".errors", ".types", ".image_modes", ".places")}
    assert not {"torch", "cv2"} & {name.split(".")[0] for name in names}
