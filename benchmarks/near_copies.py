"""Groups of images that look alike, by their difference hashes: seconds of a core and memory, for folders of every kind.

python -m benchmarks.near_copies --out near_copies.json
python -m benchmarks.near_copies --images 1000000
"""

from __future__ import annotations

import argparse
import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from autodistill_grounded_sam.similar import Hashes, near_groups

Rng = np.random.Generator


def flips(rng: Rng, count: int, most: int, least: int = 0) -> Hashes:
    """`least` to `most` random bits each; a bit that is drawn twice falls out."""
    bits, wanted = np.zeros(count, np.uint64), rng.integers(least, most + 1, count)
    for turn in range(most):
        bits ^= (turn < wanted) * (np.uint64(1) << rng.integers(0, 64, count, np.uint64))
    return bits


def around(rng: Rng, count: int) -> Hashes:
    """`count` different hashes within six bits of one."""
    found = flips(rng, count, 6)
    while len(found := np.unique(found)) < count:
        found = np.append(found, flips(rng, count, 6))
    return rng.permutation(found)[:count] ^ rng.integers(0, 2**64, dtype=np.uint64)


def apart(rng: Rng, count: int) -> Hashes:
    return rng.integers(0, 2**64, count, np.uint64)


FOLDERS: dict[str, Callable[[Rng, int], Hashes]] = {
    "all equal": lambda rng, count: np.full(count, 12345, np.uint64),
    "consecutive": lambda rng, count: np.arange(count, dtype=np.uint64),
    "fixed camera, 0 to 3 bits off": lambda rng, count: flips(rng, count, 3),
    "film, 0 to 3 bits a frame": lambda rng, count: np.bitwise_xor.accumulate(flips(rng, count, 3)),
    "all different within 6 bits of one": around,
    "6 bits off": lambda rng, count: flips(rng, count, 6, 6),
    "8 bits off": lambda rng, count: flips(rng, count, 8, 8),
    "32 bits stand still": lambda rng, count: rng.integers(0, 2**32, count, np.uint64) << np.uint64(5),
    "two cameras": lambda rng, count: np.append(around(rng, count // 2), around(rng, count - count // 2)),
    "half around one, half random": lambda rng, count: np.append(around(rng, count // 2), apart(rng, count - count // 2)),
    "random": apart,
}


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000])
    flags.add_argument("--out", type=Path, help="the JSON file to write")
    wanted = flags.parse_args()
    rows = []
    for folder, make in FOLDERS.items():
        for count in wanted.images:
            values = make(np.random.default_rng(0), count)
            tracemalloc.start()
            started = time.process_time()
            groups = len(np.unique(near_groups(values)))
            seconds, peak_mb = time.process_time() - started, tracemalloc.get_traced_memory()[1] / 1e6
            tracemalloc.stop()
            rows.append({"folder": folder, "images": count, "groups": groups, "processor_seconds": seconds, "peak_mb": peak_mb})
            print(f"{folder:<36}{count:>9,} images {groups:>9,} groups {seconds:7.2f} s {peak_mb:5.0f} MB", flush=True)
    if wanted.out is not None:
        wanted.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
