"""What the tests of reading images share: a scene, and how a file of it is made and found again."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from autodistill_grounded_sam.images import scan
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


def png_claiming(width: int, height: int, pixels: bytes = b"", *, bits: int = 8, colour: int = 2) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    bodies = (header, b"IDAT" + (pixels or zlib.compress(bytes(1000))), b"IEND")
    chunks = [struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) for body in bodies]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
