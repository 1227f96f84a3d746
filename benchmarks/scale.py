"""The store at a thousandth of a billion images: its bytes, its files, what a resume reads, what the driver holds.

Made-up sightings (about five candidates an image, with the wavy masks of `decide_10k` in 640x480) are written by the real
StoreWriter in parts of several sizes, so that what depends on the number of parts is told from what depends on the number of
images; that is also what compaction could save. Seconds are of the processor. It prints the lines of docs/scale.md.

    python -m benchmarks.scale --out scale.json                           # 1,000,000 images: 2 GB of disk, 10 minutes of a core
    python -m benchmarks.scale --images 50000 --files 2000 20000          # a small form
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from autodistill_grounded_sam.engine.planning import plan_batches
from autodistill_grounded_sam.engine.ray import TASK_BATCHES
from autodistill_grounded_sam.store import store as store_file
from autodistill_grounded_sam.store.parts import PartName
from autodistill_grounded_sam.store.store import Folder, Store, StoreWriter, list_parts
from autodistill_grounded_sam.types import Candidates, ImageRecord, Sighting, Status
from benchmarks.decide_10k import ONTOLOGY, see

ROOT, WIDTH, HEIGHT = Path("/pictures"), 640, 480
PART_IMAGES = (51, 512, 8192)  # 512 is RunConfig's; ten times more parts, and sixteen times fewer
POOL = max(PART_IMAGES)  # no candidates come twice in a part, where compression would find them
MOST_CANDIDATES = 12  # five on average; COCO has 7 objects an image
BATCH = 8  # a GPU's
IMAGES_PER_SECOND = 5.8  # of an A100 with Grounding DINO Swin-T and SAM ViT-H in bfloat16; docs/scale.md has the sources
COLUMNS = {
    "what image": ("image_id", "file", "digest", "width", "height", "status", "reason", "detail", "dhash"),
    "boxes and scores": ("xyxy", "score_at", "score", "mask_score"),
    "masks": ("rle",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, nargs="+", default=[2_000, 20_000, 200_000], help="listed as empty files")
    parser.add_argument(
        "--records", type=int, nargs=2, default=[100_000, 1_000_000], help="lists to plan, for the driver's memory"
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64, 128], help="of the simulated cluster")
    parser.add_argument("--folder", type=Path, help="where to write (a temporary folder)")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plan", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.plan is not None:
        print(json.dumps(plan_memory(args.plan)))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        facts = {
            "stores": [told(store_facts(Path(folder) / str(size), args.images, size), say_store) for size in PART_IMAGES],
            "listing": [told(listing(Path(folder) / "listing", count), say_listing) for count in args.files],
            "cluster": [told(cluster_parts(Path(folder) / "cluster", workers), say_cluster) for workers in args.workers],
            "driver": told(driver_memory(args.records), say_driver),
        }
    if args.out:
        args.out.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def told(facts: dict[str, Any], say: Callable[[Mapping[str, Any]], str]) -> dict[str, Any]:
    print(say(facts), flush=True)
    return facts


def store_facts(run: Path, count: int, part_images: int) -> dict[str, Any]:
    """Write a store of `count` images, measure its files, and open it again as a resumed run and as `decide` do."""
    images, candidates = records(count), pool()
    folder, written = Folder(ROOT, images), time.process_time()
    with StoreWriter(run, identity(), folder, batch_size=BATCH, part_images=part_images, part_seconds=1e9) as store:
        shuffled = np.random.default_rng(1).permuted(np.tile(np.arange(POOL), (-(-count // POOL), 1)), axis=1).reshape(-1)
        for window, start in enumerate(range(0, count, part_images)):
            rows = [sighting(images[at], candidates[shuffled[at]]) for at in range(start, min(start + part_images, count))]
            store.add(window, 0, rows)
        seen = sum(len(candidates[at]) for at in shuffled[:count])
    written = time.process_time() - written
    parts = list((run / "candidates").iterdir())
    facts: dict[str, Any] = {
        "images": count,
        "candidates": seen,
        "part_images": part_images,
        "parts": len(parts),
        "bytes": sum(part.stat().st_size for part in parts),
        "list_bytes": (run / "images.parquet").stat().st_size,
        "columns": column_bytes(parts),
        "write_seconds": written,
        **opening_seconds(run, folder, part_images),
    }
    shutil.rmtree(run)
    return facts


def opening_seconds(run: Path, folder: Folder, part_images: int) -> dict[str, float]:
    writer = StoreWriter(run, identity(), folder, batch_size=BATCH, part_images=part_images, part_seconds=1e9)
    began = time.process_time()
    with writer as store:
        opened = time.process_time()
        assert store.finished
    closed = time.process_time()
    list(Store(run).seen())
    seen = time.process_time()
    for _ in Store(run).sightings():
        pass
    return {
        "open_seconds": opened - began,
        "close_seconds": closed - opened,
        "split_seconds": seen - closed,
        "read_seconds": time.process_time() - seen,
    }


def say_store(facts: Mapping[str, Any]) -> str:
    images, parts, columns = facts["images"], facts["parts"], facts["columns"]
    each = ", ".join(f"{name} {columns[name] / images:.0f}" for name in COLUMNS)
    microseconds = {name: 1e6 * facts[f"{name}_seconds"] / images for name in ("write", "open", "close", "split", "read")}
    return (
        f"parts of {facts['part_images']}: {parts:,} for {images:,} images with {facts['candidates'] / images:.1f} candidates; "
        f"{facts['bytes'] / images:.0f} bytes an image ({each}, file and footer {columns['footers'] / images:.0f}), "
        f"{(columns['boxes and scores'] + columns['masks']) / facts['candidates']:.0f} a candidate; "
        f"{facts['bytes'] / parts / 1024:.0f} KB a part; images.parquet {facts['list_bytes'] / images:.0f} bytes an image; "
        f"processor time an image: {', '.join(f'{name} {spent:.1f}' for name, spent in microseconds.items())} us"
    )


def column_bytes(parts: Sequence[Path]) -> dict[str, int]:
    import pyarrow.parquet as pq

    counted: Counter[str] = Counter()
    for part in parts:
        metadata = pq.read_metadata(part)
        counted["footers"] += part.stat().st_size
        for group in range(metadata.num_row_groups):
            for at in range(metadata.num_columns):
                column = metadata.row_group(group).column(at)
                name = column.path_in_schema.partition(".")[0]
                counted[next(kind for kind, names in COLUMNS.items() if name in names)] += column.total_compressed_size
                counted["footers"] -= column.total_compressed_size
    return dict(counted)


def listing(folder: Path, count: int) -> dict[str, Any]:
    """How long the names of so many parts take: all that a run reads of finished batches is there."""
    (folder / "candidates").mkdir(parents=True)
    for window in range(count):
        (folder / "candidates" / str(PartName(0, window, 0, 63))).touch()
    began, wall = time.process_time(), time.perf_counter()
    assert len(list_parts(folder)) == count
    facts = {"files": count, "seconds": time.process_time() - began, "wall_seconds": time.perf_counter() - wall}
    shutil.rmtree(folder)
    return facts


def say_listing(facts: Mapping[str, Any]) -> str:
    each = 1e6 * facts["seconds"] / facts["files"]
    return f"listing {facts['files']:,} parts: {facts['seconds']:.2f} s of processor ({each:.1f} us a part)"


class Clock:
    """Stands in for the module `time` where the store asks how long a window has waited."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def cluster_parts(run: Path, workers: int) -> dict[str, Any]:
    """Parts of a run whose answers come from `workers` GPUs, a task at a time, each task a little quicker or slower."""
    images = records(512 * max(32, workers))
    clock, rng = Clock(), np.random.default_rng(0)
    patched, store_file.time = store_file.time, clock  # type: ignore[assignment]
    try:
        folder = Folder(ROOT, images)
        with StoreWriter(run, identity(), folder, batch_size=BATCH, part_images=512, part_seconds=30.0) as store:
            plan = list(plan_batches(store.todo, BATCH, 512, lambda width, height: (width, height)))
            tasks = iter([plan[at : at + TASK_BATCHES] for at in range(0, len(plan), TASK_BATCHES)])
            for clock.now, task in answers(
                tasks, workers, lambda: rng.uniform(0.8, 1.2) * BATCH * TASK_BATCHES / IMAGES_PER_SECOND
            ):
                for batch in task:
                    failed = [Sighting(image, Status.FAILED, None, "test") for image in batch.images]
                    store.add(batch.window, batch.number, failed)
    finally:
        store_file.time = patched
    facts = {"workers": workers, "images": len(images), "parts": len(list_parts(run))}
    shutil.rmtree(run)
    return facts


def answers(tasks: Iterator[Any], workers: int, seconds: Callable[[], float]) -> Iterator[tuple[float, Any]]:
    """Each task with the time at which it is done, in that order, when `workers` take the next one whenever they are free."""
    busy: list[tuple[float, int, Any]] = []
    now = 0.0
    for number, task in enumerate(tasks):
        if len(busy) == workers:
            now, _, done = heapq.heappop(busy)
            yield now, done
        heapq.heappush(busy, (now + seconds(), number, task))
    while busy:
        now, _, done = heapq.heappop(busy)
        yield now, done


def say_cluster(facts: Mapping[str, Any]) -> str:
    each = facts["images"] / facts["parts"]
    return (
        f"{facts['workers']} workers of {IMAGES_PER_SECOND} images a second: "
        f"{each:.0f} images a part, so {1e9 / each:,.0f} parts for a billion"
    )


def driver_memory(counts: Sequence[int]) -> dict[str, Any]:
    """Bytes an image of the list, the writer and the plan: the slope between two lists, each in a process of its own."""
    rows = []
    for count in counts:
        command = [sys.executable, "-m", "benchmarks.scale", "--plan", str(count)]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    few, many = rows
    grown = many["images"] - few["images"]
    slopes = {name: (many[name] - few[name]) / grown for name in few if name != "images"}
    return {"rows": rows, "bytes_an_image": slopes}


def plan_memory(count: int) -> dict[str, Any]:
    """What a process holds after each step of planning `count` images, in bytes; images of one size, batches of 8."""
    images = records(count)
    listed = resident_bytes()
    with tempfile.TemporaryDirectory() as run:
        writer = StoreWriter(Path(run), identity(), Folder(ROOT, images), batch_size=BATCH, part_images=512, part_seconds=30.0)
        with writer as store:
            opened = resident_bytes()
            left = list(plan_batches(store.todo, BATCH, 512, lambda width, height: (width, height)))
            by_first = {batch.images[0].id: batch for batch in left}
            planned = resident_bytes()
        assert len(by_first) == len(left)
    return {"images": count, "list": listed, "and writer": opened, "and plan": planned, "peak": resident_bytes("VmHWM")}


def resident_bytes(line: str = "VmRSS") -> int:
    """What Linux says of this process; not getrusage, whose peak begins with that of the process that started this one."""
    text = Path("/proc/self/status").read_text()
    return 1024 * next(int(row.split()[1]) for row in text.splitlines() if row.startswith(line))


def say_driver(facts: Mapping[str, Any]) -> str:
    each = ", ".join(f"{name} {slope:.0f}" for name, slope in facts["bytes_an_image"].items())
    return f"memory of the driver, bytes an image: {each}"


def records(count: int) -> list[ImageRecord]:
    """A list as of a shard in a bucket: an id of 25 characters, a digest that nothing compresses."""
    return [
        ImageRecord(f"shard-00017/{n:09d}.jpg", hashlib.sha256(b"%d" % n).hexdigest(), ROOT, WIDTH, HEIGHT) for n in range(count)
    ]


def sighting(image: ImageRecord, candidates: Candidates) -> Sighting:
    return Sighting(image, Status.SEEN, candidates, dhash=int(image.digest[:16], 16))


def identity() -> dict[str, Any]:
    return {"prompts": list(ONTOLOGY.prompts)}


@cache
def pool() -> list[Candidates]:
    """What models might see in `POOL` images: 0 to 12 candidates each, dealt from images that hold more."""
    rng = np.random.default_rng(0)
    dealt: list[Candidates] = []
    while len(dealt) < POOL:
        found = see(rng)
        ends = np.cumsum(rng.integers(0, MOST_CANDIDATES + 1, len(found)))
        dealt += [found.select(which) for which in np.split(np.arange(len(found)), ends[ends < len(found)])[:-1]]
    return dealt[:POOL]


if __name__ == "__main__":
    main()
