"""Peak memory of `label` against the number of images, with instant models: what the tool itself holds.

python benchmarks/memory_flat.py --out memory_flat.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from autodistill_grounded_sam.painting import PainterSettings
from autodistill_grounded_sam.testing import paint_folder

LABEL = """
import json, resource, sys, time
from autodistill_grounded_sam.config import LabelConfig, SeeConfig
from autodistill_grounded_sam.pipeline import label
fake = "autodistill_grounded_sam.testing:Fake"
started = time.perf_counter()
config = LabelConfig(see=SeeConfig(detector=fake + "Detector", segmenter=fake + "Segmenter"))
label(sys.argv[1], "painted_shapes_small", sys.argv[2], config)
print(json.dumps({"MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "s": time.perf_counter() - started}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[100, 400, 1600])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in args.images:
            images = Path(folder) / f"images_{count}"
            paint_folder(images, 40, settings=PainterSettings(640, 480))
            pictures = sorted(images.iterdir())
            for number in range(len(pictures), count):  # copies with another tail: another digest, the same pixels
                source = pictures[number % len(pictures)].read_bytes()
                (images / f"copy_{number:06d}.png").write_bytes(source + number.to_bytes(4, "big"))
            done = subprocess.run(
                [sys.executable, "-c", LABEL, str(images), str(Path(folder) / f"out_{count}")],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            rows.append({"images": count, **json.loads(done.stdout)})
            print(f"{count:6d} images  {rows[-1]['MB']:7.0f} MB  {1000 * rows[-1]['s'] / count:6.1f} ms an image", flush=True)
    if args.out:
        args.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
