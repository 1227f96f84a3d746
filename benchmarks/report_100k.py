"""Write the report of 100,000 stored images of ten candidates each: seconds, memory and bytes, and the same of a tenth of them.

    python -m benchmarks.report_100k --out report_100k.json
    python -m benchmarks.report_100k --images 2000 --store /tmp/some_store   # a small form, the store kept

Images and candidates are made as in `decide_export_100k`, but for the candidates of the first `POOL` images, which all others are
dealt again. Every report is written by a process of its own, imports included; `processor_seconds` do not depend on what else
the machine is doing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from autodistill_grounded_sam.types import Sighting, Status
from benchmarks.decide_export_100k import ONTOLOGY, SIZES_WH, see, write_image
from benchmarks.made_up_store import build_once, write_store

POOL = 400 * len(SIZES_WH)  # so that an image gets candidates of its own size

MEASURED = """
import json, resource, sys, time
started = time.perf_counter()
from autodistill_grounded_sam.reporting import write_report
report = write_report(sys.argv[1])
used, unit = resource.getrusage(resource.RUSAGE_SELF), 1 if sys.platform == "darwin" else 1024
print(json.dumps({
    "images": report.images, "labels": report.labels, "bytes": report.bytes, "seconds": time.perf_counter() - started,
    "processor_seconds": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss * unit / 1e6,
}))
"""


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--images", type=int, default=100_000)
    flags.add_argument("--store", type=Path, help="keep the stores in this folder, and use them if they are there")
    flags.add_argument("--out", type=Path, help="the JSON file to write")
    wanted = flags.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        facts = [measure((wanted.store or Path(temporary)) / str(count), count) for count in (wanted.images // 10, wanted.images)]
    if wanted.out is not None:
        wanted.out.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def build(folder: Path, count: int) -> dict[str, Any]:
    rng, root = np.random.default_rng(0), folder / "images"
    root.mkdir(parents=True)
    images = [write_image(rng, root, number) for number in range(count)]
    pool, hashes = [see(rng, image) for image in images[:POOL]], rng.integers(0, 2**63, count)

    def seen(place: int) -> Sighting:
        return Sighting(images[place], Status.SEEN, pool[place % POOL], dhash=int(hashes[place]))

    return {"candidates": write_store(folder / "out" / "run", ONTOLOGY, images, seen)}


def measure(folder: Path, count: int) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    build_once(folder, count, lambda: build(folder, count))
    done = subprocess.run([sys.executable, "-c", MEASURED, str(folder / "out")], check=True, stdout=subprocess.PIPE, text=True)
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{facts['images']} images, {facts['labels']} labels: {facts['processor_seconds']:.0f} s of a core "
        f"({facts['seconds']:.0f} s by the clock), {facts['peak_mb']:.0f} MB, a page of {facts['bytes'] / 1e6:.2f} MB",
        flush=True,
    )
    return facts


if __name__ == "__main__":
    main()
