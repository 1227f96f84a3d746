"""From the bytes of an image file to upright 8-bit RGB: the header first, then the pixels. Pillow alone decodes.

Content decides, never the suffix (TGA excepted: it has no magic number, so it needs the suffix `.tga`). Only the formats named
here are tried: Pillow also knows some that run programs (EPS) or only name a format.
What becomes of pixels that are not 8-bit RGB:

- palette, CMYK (also Adobe's inverted), YCbCr, LAB, HSV: converted; colour profiles (ICC) are ignored;
- gray, bilevel: repeated to three channels, bilevel as 0 and 255;
- alpha, or a transparent colour: blended on white, so that what a person cannot see is not labelled;
- 16-bit colour: the high byte; 16-bit gray: the high byte of the bits in use, see `_gray_to_8_bit`;
- 32-bit integer and float: see `_gray_to_8_bit`; never black without a word;
- several frames or pages: the first.
"""

from __future__ import annotations

import struct
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from autodistill_grounded_sam.errors import ConfigError, ImageReadError
from autodistill_grounded_sam.types import RgbImage

BACKGROUND = (255, 255, 255)  # what transparent pixels are blended on
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF")  # JPEG covers MPO; PPM all netpbm
_GRAY_DEPTHS = (8, 10, 12, 14, 16)  # bit depths that sensors deliver in 16-bit files
ORIENTATION = 0x0112  # EXIF tag
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")
# Words in Pillow's and its libraries' messages, and what they mean for a person; the first match counts.
_MEANINGS = (
    ("truncated", "truncated"),
    ("not enough", "truncated"),
    ("unexpected end", "truncated"),
    ("not available", "no_decoder"),
    ("not supported", "no_decoder"),
    ("unsupported", "no_decoder"),
    ("unknown", "no_decoder"),
)
# Pillow has no way to open a file without warning (bombs, odd EXIF); Python's warning filters belong to the whole process, so
# only one thread at a time changes and restores them. Headers are parsed by Python code anyway: no speed is lost.
_QUIET = threading.Lock()

_UPRIGHT: dict[int, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]] = {  # EXIF 2.3, tag 0x0112, for arrays (height, width, ...)
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 3),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@dataclass(frozen=True)
class Header:
    """An image file whose header was read and whose pixels were not.

    `orientation` is the EXIF tag: None where there is none, 0 where it is broken or undefined (taken as upright).
    """

    image: ImageFile.ImageFile
    orientation: int | None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright image in pixels."""
        width, height = self.image.size
        return (height, width) if (self.orientation or 1) >= 5 else (width, height)


def read_header(file: BinaryIO, name: str, max_megapixels: float) -> Header:
    """Identify an image by content and check its claimed size; no pixel is decoded, nothing of that size allocated.

    Raises ImageReadError: empty_file, not_an_image, invalid_size, too_many_pixels, no_decoder, truncated, damaged, io_error.
    """
    prefix = file.read(512)
    with _QUIET, warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        image = _identify(file, prefix, name)
        width, height = image.size
        if width * height > max_megapixels * 1e6:
            limit = f"more than the limit of {max_megapixels:g} megapixels (max_megapixels)"
            raise ImageReadError("too_many_pixels", f"its header claims {width} x {height} pixels, {limit}")
        orientation = _orientation(image, file)
        return Header(image, 0 if complaints and orientation is None else orientation)  # a complaint: perhaps lost in broken EXIF


def decode(header: Header) -> tuple[RgbImage, list[str]]:
    """The upright pixels of an opened image, and notes on what was lost or stretched on the way.

    Raises ImageReadError: truncated, damaged, no_decoder, too_many_pixels (no memory), io_error.
    """
    image = header.image
    try:
        image.load()
        rgb, note = to_rgb(image)
    except Exception as error:  # decoders raise nearly anything on hostile bytes
        raise fault(error, image.format or "image") from error
    notes = [note] if note else []
    frames = frame_count(image)
    if frames > 1 and image.format != "MPO":  # the further pictures of a phone's MPO are previews and gain maps, not scenes
        notes.append(f"took the first of {frames} frames or pages, the other {frames - 1} are left out")
    return turn(rgb, header.orientation), notes


def turn(array: npt.NDArray[np.uint8], orientation: int | None) -> npt.NDArray[np.uint8]:
    """Bring stored pixels (height, width, ...) upright by their EXIF orientation; undefined values count as upright."""
    return np.ascontiguousarray(_UPRIGHT.get(orientation or 1, _UPRIGHT[1])(array))


def frame_count(image: ImageFile.ImageFile) -> int:
    """How many frames or pages a file holds; those that a damaged later part hides are not counted."""
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return int(getattr(image, "n_frames", 1))
        except Exception:  # the first frame is whole, and it is the one that counts
            return 1


def to_rgb(image: Image.Image) -> tuple[RgbImage, str]:
    """The pixels of a Pillow image as 8-bit RGB (height, width, 3), unturned, and a note where values were stretched."""
    if image.mode.startswith(("I", "F")):
        gray, note = _gray_to_8_bit(np.asarray(image))
        return _three(gray), note
    if image.has_transparency_data:
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        return np.array(Image.alpha_composite(Image.new("RGBA", rgba.size, (*BACKGROUND, 255)), rgba).convert("RGB")), ""
    if image.mode in ("1", "L"):
        return _three(np.asarray(image.convert("L"))), ""
    return np.array(image if image.mode == "RGB" else image.convert("RGB")), ""


def _three(gray: npt.NDArray[np.uint8]) -> RgbImage:
    return np.repeat(gray[:, :, None], 3, axis=2)


def _gray_to_8_bit(values: npt.NDArray[Any]) -> tuple[npt.NDArray[np.uint8], str]:
    """Gray of more than 8 bits, integer or float, to 8 bits, and a note unless it was plainly the high byte of 16 bits.

    Integers in 0..65535: the bit depth is taken as the least of 8, 10, 12, 14, 16 that holds the largest value, and the 8 high
    bits of it are kept; so full-range data is `>> 8`, and a 12-bit camera's is not nearly black. Floats in 0..1 times 255,
    floats in 0..255 rounded. All else, and floats whose largest value would be nearly black, is stretched from its least to its
    largest value. NaN and infinity count as 0.
    """
    if values.dtype.kind == "f":
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind != "f" and low >= 0 and high < 2**16:
        depth = next(bits for bits in _GRAY_DEPTHS if high < 2**bits)
        note = "" if depth == 16 else f"16-bit gray that uses only {depth} bits: scaled by that depth"
        return (values.astype(np.uint16) >> (depth - 8)).astype(np.uint8), note
    if values.dtype.kind == "f" and low >= 0 and 1 / 16 <= high <= 1:
        return np.rint(values * 255).astype(np.uint8), "float gray in 0..1: scaled to 0..255"
    if values.dtype.kind == "f" and low >= 0 and 16 <= high <= 255:
        return np.rint(values).astype(np.uint8), "float gray in 0..255: rounded"
    span = (high - low) or 1.0
    stretched = np.rint((values.astype(np.float64) - low) * (255 / span)).astype(np.uint8)
    return stretched, f"gray in {low:g}..{high:g}: stretched to 0..255"


def _identify(file: BinaryIO, prefix: bytes, name: str) -> ImageFile.ImageFile:
    """What `Image.open` does, less its fixed pixel limit and its warning (both process-wide settings), and less most formats."""
    _refuse_known_troubles(prefix)
    Image.init()
    is_tga = name.lower().endswith(".tga")
    for format_name in (*FORMATS, "TGA") if is_tga else FORMATS:
        if format_name not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[format_name]
        accepted = accept(prefix[:16]) if accept else True
        if isinstance(accepted, str):
            raise ImageReadError("no_decoder", accepted)
        if not accepted:
            continue
        file.seek(0)
        try:
            return factory(file, "")
        except Exception as error:  # hostile headers raise nearly anything
            if format_name == "TGA":
                break
            raise fault(error, format_name) from error
    raise ImageReadError("not_an_image", f"no image format begins with {prefix[:24]!r}")


def _refuse_known_troubles(prefix: bytes) -> None:
    if not prefix:
        raise ImageReadError("empty_file", "the file holds no bytes")
    if prefix.startswith(b"version https://git-lfs"):
        raise ImageReadError("not_an_image", "a Git LFS pointer, not the image itself; bring the images with: git lfs pull")
    if prefix[4:8] == b"ftyp" and (prefix[8:12] in _HEIC_BRANDS or any(brand in prefix[16:64] for brand in _HEIC_BRANDS)):
        raise ImageReadError("no_decoder", "HEIC (as phones write it) needs a decoder that is not here; convert it to JPEG")
    if prefix[:8] == b"\x89PNG\r\n\x1a\n" and len(prefix) >= 24:
        width, height = struct.unpack(">II", prefix[16:24])
        if not width or not height:
            raise ImageReadError("invalid_size", f"its header claims {width} x {height} pixels")


def _orientation(image: ImageFile.ImageFile, file: BinaryIO) -> int | None:
    if image.format == "TIFF":
        return None  # Pillow turns TIFF by itself while decoding, and gives the upright size before
    try:
        exif = Image.Image.getexif(image)  # not PngImageFile.getexif, which decodes all pixels
        if image.format == "PNG" and ORIENTATION not in exif and (late := _png_exif(file)):
            exif = Image.Exif()
            exif.load(b"Exif\0\0" + late)
        value = exif.get(ORIENTATION)
    except Exception:  # broken EXIF says nothing about the pixels
        return 0
    return value if value is None or (isinstance(value, int) and 1 <= value <= 8) else 0


def _png_exif(file: BinaryIO) -> bytes:
    """The eXIf chunk wherever it is: tools that add it to a finished PNG put it after the pixels. Only chunk heads are read."""
    here = file.tell()
    found = b""
    file.seek(8)
    while not found and len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"eXIf":
            found = file.read(length)
        file.seek(length + 4, 1)
    file.seek(here)
    return found


def from_bgr(array: npt.NDArray[Any]) -> RgbImage:
    """An array as OpenCV reads it to RGB (height, width, 3): uint8 BGR, gray (height, width), or BGRA (blended on white)."""
    if (
        not isinstance(array, np.ndarray)
        or array.dtype != np.uint8
        or array.size == 0
        or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4)))
    ):
        got = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ConfigError(
            "an image array must be uint8 in 0..255, BGR (height, width, 3), gray (height, width) or BGRA (height, width, 4), "
            f"got {got}; hand over a path or a PIL image to have it converted"
        )
    if array.ndim == 3 and array.shape[2] == 4:
        return to_rgb(Image.fromarray(np.ascontiguousarray(array[:, :, [2, 1, 0, 3]])))[0]
    if array.ndim == 3 and array.shape[2] == 3:
        return np.ascontiguousarray(array[:, :, ::-1])
    return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)


def fault(error: Exception, format_name: str) -> ImageReadError:
    """What an exception of a decoder means for a person: one of the reasons of `read_header` and `decode`."""
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.errno is not None:
        return ImageReadError("io_error", f"reading failed: {error.strerror}")
    if isinstance(error, MemoryError):  # of this machine, now: another day it may fit
        return ImageReadError("out_of_memory", f"{format_name} does not fit in the memory: {text}")
    if isinstance(error, Image.DecompressionBombError):
        return ImageReadError("too_many_pixels", f"{format_name} too large to decode: {text}")
    if isinstance(error, EOFError):
        return ImageReadError("truncated", f"{format_name} ends too early: {text}")
    reason = next((meaning for word, meaning in _MEANINGS if word in text.lower()), "damaged")
    advice = "; convert it to an 8-bit PNG or JPEG" if reason == "no_decoder" else ""
    return ImageReadError(reason, f"{format_name}: {text}{advice}")
