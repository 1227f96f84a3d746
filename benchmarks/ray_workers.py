"""Workers of a Ray cluster against one machine: what Ray costs an image, and what a second worker brings.

Every run is a process of its own that labels the same JPEGs with instant boxes and masks (those of `line_overhead`), which take
`--cost` seconds an image of a model that waits (`sleep`, as a GPU keeps its host waiting) or multiplies (`multiply`, on a core).
Beside the engines named it runs `local`. Told are:

    start        seconds from the call to the first answer: actors begin, models load
    ms/image     between the first answer and the last, on the wall: another program on the machine spoils it
    driver       processor time of the process that plans, takes answers and writes the store, in ms an image
    cluster      processor time of Ray's own processes and of the workers, in ms an image, their start left out
    parts        files that the store is of

At last it hands over a long list (`--records`) to one worker that looks at nothing: what planning costs the driver, in time and
memory. Run it from the checkout, in an environment with the extra [ray]:

    python -m benchmarks.ray_workers --images 2048 --cost 0 0.02 --out ray_workers.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autodistill_grounded_sam.protocols import Batch, WorkerSpec
from autodistill_grounded_sam.types import Candidates, RgbImage, Sighting, Status
from benchmarks.line_overhead import InstantDetector, InstantSegmenter, write_images
from benchmarks.scale import records, resident_bytes

CASES = (("local", 1), ("ray", 1), ("ray", 2))
WORDS = {"red circle": "circle", "blue square": "square"}
TICK = os.sysconf("SC_CLK_TCK")


class CostlyDetector(InstantDetector):
    """Takes RAY_WORKERS_COST seconds an image, in the way that RAY_WORKERS_WORK names."""

    def detect(self, images: Sequence[RgbImage], prompts: Sequence[str]) -> list[Candidates]:
        seconds = float(os.environ["RAY_WORKERS_COST"]) * len(images)
        if os.environ["RAY_WORKERS_WORK"] == "sleep":
            time.sleep(seconds)
        else:
            _multiply(seconds)
        return super().detect(images, prompts)


class CheapSegmenter(InstantSegmenter):
    """Under this module's name, which is where plugins look."""


def _multiply(seconds: float) -> None:
    import numpy as np

    matrix = np.ones((192, 192), np.float32)
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        matrix @ matrix


class Watch:
    """A progress that notes when answers came, and samples the processor time of this process's descendants."""

    def __init__(self) -> None:
        self.begun = time.perf_counter()
        self.answers: list[tuple[float, int]] = []
        self.driver: list[float] = []
        self.cluster: list[float] = []
        self._seen: dict[int, float] = {}
        self._ended = threading.Event()
        threading.Thread(target=self._sample, daemon=True).start()

    def total(self, images: int) -> None:
        pass

    def message(self, text: str) -> None:
        pass

    def advance(self, images: int, counts: Mapping[str, int]) -> None:
        self.answers.append((time.perf_counter() - self.begun, images))
        if len(self.answers) == 1:
            self._note()

    def close(self) -> None:
        self._note()
        self._ended.set()

    def _note(self) -> None:
        self._look()
        self.driver.append(time.process_time())
        self.cluster.append(sum(self._seen.values()))

    def _sample(self) -> None:
        while not self._ended.wait(0.5):
            self._look()

    def _look(self) -> None:
        """Actors end with their dataset, before anything could ask them; so the last that was seen of each counts."""
        found = _processor_times()
        family, grown = {os.getpid()}, True
        while grown:
            more = {pid for pid, (parent, _) in found.items() if parent in family} - family
            family, grown = family | more, bool(more)
        self._seen.update({pid: found[pid][1] for pid in family if pid != os.getpid() and pid in found})


def _processor_times() -> dict[int, tuple[int, float]]:
    """Parent and processor seconds of every process, by its id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            found[int(entry.name)] = int(fields[1]), (int(fields[11]) + int(fields[12])) / TICK
    return found


def run_one(images: Path, engine: str, workers: int, batch_size: int) -> dict[str, Any]:
    """One run in this process; what it took."""
    from autodistill_grounded_sam.config import LabelConfig, RunConfig, SeeConfig
    from autodistill_grounded_sam.pipeline import see
    from autodistill_grounded_sam.run_setup import peak_memory_mb
    from autodistill_grounded_sam.store.store import list_parts

    here = "benchmarks.ray_workers:"
    run = RunConfig(batch_size=batch_size, engine=engine, workers=workers if engine == "ray" else None)
    config = LabelConfig(see=SeeConfig(detector=f"{here}CostlyDetector", segmenter=f"{here}CheapSegmenter"), run=run)
    if engine == "ray":
        import ray

        ray.init(num_cpus=workers, log_to_driver=False, include_dashboard=False)
    with tempfile.TemporaryDirectory() as out:
        watch = Watch()
        summary = see(images, WORDS, out, config, progress=watch)
        watch.close()
        parts = len(list_parts(Path(out) / "run"))
    (first, at_once), (last, _) = watch.answers[0], watch.answers[-1]
    count = summary.looked_at - at_once
    return {
        "engine": engine,
        "workers": workers,
        "images": summary.looked_at,
        "start": first,
        "ms_image": 1000 * (last - first) / count,
        "driver_ms_image": 1000 * (watch.driver[1] - watch.driver[0]) / count,
        "cluster_ms_image": 1000 * (watch.cluster[1] - watch.cluster[0]) / count,
        "parts": parts,
        "driver_peak_mb": peak_memory_mb(),
    }


class Idle:
    """A worker that looks at nothing."""

    def __init__(self, spec: WorkerSpec) -> None:
        pass

    def __call__(self, batch: Batch) -> list[Sighting]:
        return [Sighting(image, Status.FAILED, None, "not looked at") for image in batch]


def hand_over(count: int, batch_size: int) -> dict[str, Any]:
    """A list of `count` images through the engine alone: processor time and memory of the driver."""
    import ray

    from autodistill_grounded_sam.engine.ray import RayEngine

    ray.init(num_cpus=1, log_to_driver=False, include_dashboard=False)
    images = records(count)
    batches = [tuple(images[at : at + batch_size]) for at in range(0, count, batch_size)]
    began, held = time.process_time(), resident_bytes()
    answers = RayEngine(1, 0).run(Idle, {}, batches)
    next(answers)
    handed = time.process_time()
    for _ in answers:
        pass
    ended = time.process_time()
    return {
        "records": count,
        "hand_over_seconds": handed - began,
        "take_seconds": ended - handed,
        "bytes": resident_bytes("VmHWM") - held,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--cost", type=float, nargs="+", default=[0.0, 0.02], help="seconds of a model, an image")
    parser.add_argument("--work", choices=["sleep", "multiply"], default="sleep")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--records", type=int, default=200_000, help="of the list that is only handed over")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--hand-over", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=3, metavar=("FOLDER", "ENGINE", "WORKERS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(run_one(Path(args.one[0]), args.one[1], int(args.one[2]), args.batch_size)))
        return
    if args.hand_over:
        print(json.dumps(hand_over(args.records, args.batch_size)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder) / "images", args.images, 320, 240)
        for cost in args.cost:
            for engine, workers in CASES:
                how = {"RAY_WORKERS_COST": str(cost), "RAY_WORKERS_WORK": args.work}
                run = own_process(["--one", f"{folder}/images", engine, str(workers)], args.batch_size, how)
                rows.append({"cost": cost, "work": args.work, **run})
                show(rows[-1])
    lists = [args.records // 4, args.records]
    handed = [own_process(["--hand-over", "--records", str(count)], args.batch_size, {}) for count in lists]
    show_hand_over(*handed)
    for cost in args.cost:
        compare([row for row in rows if row["cost"] == cost])
    if args.out:
        args.out.write_text(json.dumps({"runs": rows, "hand_over": handed}, indent=2) + "\n", encoding="utf-8")


def own_process(words: Sequence[str], batch_size: int, environment: Mapping[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.ray_workers", "--batch-size", str(batch_size), *words]
    done = subprocess.run(command, env={**os.environ, **environment}, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def show(row: Mapping[str, Any]) -> None:
    print(
        f"{row['engine']:5s} x {row['workers']}  model {1000 * row['cost']:.0f} ms ({row['work']}): start {row['start']:.1f} s, "
        f"{row['ms_image']:.2f} ms/image, driver {row['driver_ms_image']:.2f}, cluster {row['cluster_ms_image']:.2f}, "
        f"{row['parts']} parts, {row['driver_peak_mb']:.0f} MB",
        flush=True,
    )


def show_hand_over(few: Mapping[str, Any], many: Mapping[str, Any]) -> None:
    """What an image costs, told by two lists: what Ray takes to begin is left out."""
    slope = {name: (many[name] - few[name]) / (many["records"] - few["records"]) for name in many}
    print(
        f"lists of {few['records']:,} and {many['records']:,} images, the driver's processor time: "
        f"{1e6 * slope['hand_over_seconds']:.0f} us an image to hand over, {1e6 * slope['take_seconds']:.0f} us to take empty "
        f"answers; its memory: {slope['bytes']:.0f} bytes an image"
    )


def compare(rows: Sequence[Mapping[str, Any]]) -> None:
    """What the page on scale wants to know."""
    local, one, two = rows
    spent = [row["driver_ms_image"] + row["cluster_ms_image"] for row in rows]
    print(
        f"at {1000 * local['cost']:.0f} ms an image: two workers look {one['ms_image'] / two['ms_image']:.2f} x as fast as one; "
        f"Ray costs {spent[1] - spent[0]:.2f} ms of processor time an image; "
        f"a driver of one core takes the answers of {1000 / two['driver_ms_image']:.0f} images a second"
    )


if __name__ == "__main__":
    main()
