"""A short fingerprint by which near-duplicate images are known, and the pairs among many that are."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.types import RgbImage

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

# Of 64 bits of a difference hash. Re-encoded and resized copies differ by 0-3 bits.
NEAR_BITS = 4


def dhash(image_rgb: RgbImage) -> int:
    """The 64-bit difference hash of an image: near-duplicates differ in few bits.

    Shrunk to 9 x 8 gray pixels, each bit says whether a pixel is brighter than its left neighbour, row by row, the first
    the highest. After Neal Krawetz, "Kind of Like That" (2013).
    """
    from PIL import Image

    gray = np.asarray(Image.fromarray(image_rgb).convert("L").resize((9, 8), Image.Resampling.BOX))
    return int.from_bytes(np.packbits(gray[:, 1:] > gray[:, :-1]).tobytes(), "big")


def near_pairs(values: Hashes) -> Iterator[tuple[Places, Places]]:
    """Pairs of places whose hashes differ in NEAR_BITS bits or fewer, in batches; a pair may come more than once.

    Cut into NEAR_BITS + 1 bands, two such hashes agree in at least one whole band: only those that agree are compared.
    """
    edges = np.linspace(0, 64, NEAR_BITS + 2).astype(int).tolist()
    for low, high in pairwise(edges):
        band = (values >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.lexsort((values, band))
        band = band[order]
        here = np.arange(len(order) - 1)
        step = 1
        while len(here := here[: np.searchsorted(here, len(order) - step)]):
            here = here[band[here] == band[here + step]]
            first, second = order[here], order[here + step]
            near = differing_bits(values[first], values[second]) <= NEAR_BITS
            yield first[near], second[near]
            step += 1


def differing_bits(first: Hashes, second: Hashes) -> Places:
    """How many bits differ in each pair of hashes, (n,)."""
    octets = np.ascontiguousarray(first ^ second).reshape(-1, 1).view(np.uint8)
    return np.asarray(_BITS_OF_BYTE[octets].sum(axis=1))


_BITS_OF_BYTE = np.array([byte.bit_count() for byte in range(256)], np.int64)
