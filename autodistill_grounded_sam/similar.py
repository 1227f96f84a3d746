"""A short fingerprint by which near-duplicate images are known."""

from __future__ import annotations

import numpy as np

from autodistill_grounded_sam.types import RgbImage


def dhash(image_rgb: RgbImage) -> int:
    """The 64-bit difference hash of an image: near-duplicates differ in few bits.

    Shrunk to 9 x 8 gray pixels, each bit says whether a pixel is brighter than its left neighbour, row by row, the first
    the highest. After Neal Krawetz, "Kind of Like That" (2013).
    """
    from PIL import Image

    gray = np.asarray(Image.fromarray(image_rgb).convert("L").resize((9, 8), Image.Resampling.BOX))
    return int.from_bytes(np.packbits(gray[:, 1:] > gray[:, :-1]).tobytes(), "big")
