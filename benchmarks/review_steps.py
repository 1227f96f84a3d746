"""Steps of the review page at 100,000 images: how long the server takes for the next stop and for a decision.

    python -m benchmarks.review_steps --out review_steps.json
    python -m benchmarks.review_steps --images 2000 --store /tmp/some_store   # the store kept

The store is made up but written by the real StoreWriter: small JPEGs, each of its own bytes, and ten candidates with masks each,
drawn from 200 different sets. One page is open in this process; 300 steps jump through the queue as the page does, over HTTP:
a decision (on the disk when it is answered), then the stop after it, which no earlier request fetched. A picture of 12 megapixels
is measured apart, since the page fetches pictures ahead.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from autodistill_grounded_sam.images import read_image
from autodistill_grounded_sam.review.session import JPEG_QUALITY, SIDES_PX
from autodistill_grounded_sam.reviewing import open_review
from autodistill_grounded_sam.types import ImageRecord, Sighting, Status
from benchmarks.decide_export_100k import ONTOLOGY, see
from benchmarks.made_up_store import build_once, write_store

SETS, STEPS, SIZE_WH = 200, 300, (160, 120)
PHOTO_WH = (4000, 3000)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--images", type=int, default=100_000)
    flags.add_argument("--store", type=Path, help="keep the images and the store in this folder, and use them if they are there")
    flags.add_argument("--out", type=Path, help="the JSON file to write")
    wanted = flags.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = wanted.store or Path(temporary)
        build_once(folder, wanted.images, lambda: build(folder, wanted.images))
        facts = {"images": wanted.images, **measure(folder / "out"), "picture of 12 megapixels": picture(folder)}
    print(json.dumps(facts, indent=2))
    if wanted.out is not None:
        wanted.out.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def build(folder: Path, count: int) -> dict[str, Any]:
    rng, root = np.random.default_rng(0), folder / "images"
    root.mkdir(parents=True)
    file = io.BytesIO()
    noise = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    noise.resize(SIZE_WH, Image.Resampling.BILINEAR).save(file, "JPEG", quality=90)
    images = []
    for number in range(count):
        data = file.getvalue() + f"{number}".encode()  # behind the end of the picture: other bytes, the same pixels
        (root / f"{number:06d}.jpg").write_bytes(data)
        images.append(ImageRecord(f"{number:06d}.jpg", hashlib.sha256(data).hexdigest(), root, *SIZE_WH))
    sets = [see(rng, images[0]) for _ in range(SETS)]

    def seen(place: int) -> Sighting:
        return Sighting(images[place], Status.SEEN, sets[place % SETS], dhash=place)

    return {"candidates": write_store(folder / "out" / "run", ONTOLOGY, images, seen)}


def measure(out: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    (out / "run" / "review_index.npz").unlink(missing_ok=True)
    for name in ("opened first", "opened again"):
        started, used = time.perf_counter(), time.process_time()
        server = open_review(out)
        facts[f"{name}, s"] = round(time.perf_counter() - started, 2)
        facts[f"{name}, s of processor"] = round(time.process_time() - used, 2)
        if name == "opened first":
            server.server_close()
    facts["entries of the queue"] = server.session.about()["total"]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    facts |= steps(server.url, facts["entries of the queue"])
    server.shutdown()
    server.server_close()
    (out / "run" / "reviews.jsonl").unlink()
    return facts


def steps(url: str, entries: int) -> dict[str, Any]:
    """Milliseconds of decisions and of stops; far apart in the queue, so that no part of the store is in memory by chance. Beside
    the time of the clock that of the processor, client and server together, which other programs do not lengthen."""
    times: dict[str, list[float]] = {
        name + unit: [] for name in ("decision", "next stop") for unit in (", ms", ", ms of processor")
    }

    def ask(kind: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        started, used = time.perf_counter(), time.process_time()
        with urllib.request.urlopen(urllib.request.Request(url + path, data, {"Content-Type": "application/json"})) as answer:
            content = json.loads(answer.read())
        times[f"{kind}, ms"].append((time.perf_counter() - started) * 1000)
        times[f"{kind}, ms of processor"].append((time.process_time() - used) * 1000)
        return content

    last = int(ask("next stop", "stops?after=-1&count=1&every=1")["stops"][0]["stop"])
    rng = np.random.default_rng(1)
    for _ in range(STEPS):
        (stop,) = ask("next stop", f"stops?after={last}&count=1")["stops"]
        label = stop["image"]["labels"][stop["labels"][0]]
        verdict = {"verdict": rng.choice(["accepted", "rejected"]), "xyxy": label["key"], "class": label["key_class"]}
        ask("decision", "decide", {"stop": stop["stop"], "image": stop["image"]["number"], "decision": verdict})
        last = (last + int(rng.integers(entries // 20))) % (entries // 2)
    return {kind: _spread(values) for kind, values in times.items()}


def picture(folder: Path) -> dict[str, float]:
    """Milliseconds of processor from the file of a large photograph to what the screen gets."""
    path = folder / "photo.jpg"
    rng = np.random.default_rng(2)
    noise = Image.fromarray(rng.integers(0, 256, (300, 400, 3), dtype=np.uint8))
    noise.resize(PHOTO_WH, Image.Resampling.BICUBIC).save(path, "JPEG", quality=92)
    values = []
    for _ in range(7):
        started = time.process_time()
        small = Image.fromarray(read_image(path))
        small.thumbnail((SIDES_PX[0], SIDES_PX[0]), Image.Resampling.LANCZOS, reducing_gap=2.0)
        small.save(io.BytesIO(), "JPEG", quality=JPEG_QUALITY)
        values.append((time.process_time() - started) * 1000)
    return _spread(values)


def _spread(values: list[float]) -> dict[str, float]:
    low, middle, high, most = np.percentile(values, [5, 50, 95, 100])
    return {name: round(float(value), 1) for name, value in (("5 %", low), ("median", middle), ("95 %", high), ("most", most))}


if __name__ == "__main__":
    main()
