"""Ray on a local cluster of two workers: the same dataset as one machine writes, also when a worker or the driver dies."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autodistill_grounded_sam.config import LabelConfig, RunConfig, SeeConfig
from autodistill_grounded_sam.engine import ray as ray_engine
from autodistill_grounded_sam.errors import ConfigError, MissingExtraError
from autodistill_grounded_sam.painting import PainterSettings
from autodistill_grounded_sam.pipeline import label
from autodistill_grounded_sam.protocols import Batch, WorkerSpec
from autodistill_grounded_sam.testing import paint_folder
from autodistill_grounded_sam.types import ImageRecord, Sighting, Status
from tests.peers import peer
from tests.run_kit import FAKE, ONTOLOGY, files

DRIVER = """
import sys
from autodistill_grounded_sam.config import LabelConfig, RunConfig, SeeConfig
from autodistill_grounded_sam.engine import ray
from autodistill_grounded_sam.pipeline import label
ray.TASK_BATCHES = 2  # tasks are done one after the other, so that there is a middle of the run
run = RunConfig(batch_size=2, part_images=4, engine="ray", workers=2, gpus_per_worker=0)
label(sys.argv[1], {ontology!r}, sys.argv[2], LabelConfig(see=SeeConfig(**{fake!r}), run=run))
"""


def config(**run: Any) -> LabelConfig:
    return LabelConfig(see=SeeConfig(**FAKE), run=RunConfig(batch_size=2, part_images=4, **run))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray") / "images"
    paint_folder(folder, 24, settings=PainterSettings(width=96, height=72))
    (folder / "broken.png").write_bytes(b"\x89PNG no more")
    return folder


@pytest.fixture(scope="module")
def expected(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("local")
    assert label(images, ONTOLOGY, out, config()).labels > 10
    return files(out)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    ray = peer("ray")
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield ray
    ray.shutdown()


def test_without_ray_it_says_what_to_install(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"autodistill-grounded-sam\[ray\]"):
        label(images, ONTOLOGY, tmp_path, config(engine="ray"))


class Told:
    """Answers with 20 KB an image, and adds a letter to the file `log` when it looks at one."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._log, self._decoded, self._looked = Path(spec["log"]), 0, 0

    def decode(self, batch: Batch) -> Batch:
        self._decoded += 1
        return batch

    def look(self, batch: Batch) -> list[Sighting]:
        self._looked += 1
        deadline = time.monotonic() + 30
        while self._decoded == self._looked < int(batch[0].root.name) and time.monotonic() < deadline:
            time.sleep(0.01)
        with self._log.open("a") as log:
            log.write("d" if self._decoded > self._looked else "l")
        return [Sighting(image, Status.FAILED, None, "test", os.urandom(10_000).hex()) for image in batch]

    def __call__(self, batch: Batch) -> list[Sighting]:
        return self.look(self.decode(batch))


def one_by_one(count: int, together: int = 0) -> list[list[ImageRecord]]:
    """Batches of one image; a worker waits until it has decoded `together` of them before it ends with the first ones."""
    return [[ImageRecord(f"{number}", "", Path(f"/{together}"), 1, 1)] for number in range(count)]


def test_an_actor_decodes_a_batch_while_it_looks_at_the_one_before(tmp_path: Path) -> None:
    actor = ray_engine._Actor(Told, {"log": str(tmp_path / "log")})
    rows = {"batch": [pickle.dumps(batch) for batch in one_by_one(4, together=4)]}
    answers = [pickle.loads(answer["sightings"][0]) for answer in actor(rows)]
    assert [[sighting.image.id for sighting in answer] for answer in answers] == [["0"], ["1"], ["2"], ["3"]]
    assert (tmp_path / "log").read_text() == "dddl"


@pytest.mark.ray
def test_workers_do_not_run_away_from_a_slow_caller(tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "ANSWERS_BYTES", 1 << 20)  # of which half are answers: 25 of 20 KB, and what is under way
    log = tmp_path / "log"
    answers = ray_engine.RayEngine(1, 0).run(Told, {"log": str(log)}, one_by_one(400))
    for _ in range(8):
        next(answers)
    size = 0
    while size != (size := log.stat().st_size):
        time.sleep(2)
    assert 8 <= size <= 200
    assert len(list(answers)) == 392 and log.stat().st_size == 400


@pytest.mark.ray
def test_two_workers_give_the_dataset_of_one_machine(
    images: Path, expected: dict[str, str], tmp_path: Path, cluster: Any
) -> None:
    summary = label(images, ONTOLOGY, tmp_path, config(engine="ray", workers=2))
    assert summary.looked_at == 24 and len(summary.failed) == 1
    assert files(tmp_path) == expected


@pytest.mark.ray
def test_more_workers_than_the_cluster_has_are_refused(images: Path, tmp_path: Path, cluster: Any) -> None:
    with pytest.raises(ConfigError, match="3 workers asked for, but the cluster has 2 cores"):
        label(images, ONTOLOGY, tmp_path, config(engine="ray", workers=3))


@pytest.mark.ray
def test_a_worker_killed_in_mid_run_is_replaced(
    images: Path, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = peer("ray")
    ray.shutdown()
    monkeypatch.setenv("AGS_FAKE_SECONDS", "0.3")
    monkeypatch.setenv("AGS_FAKE_LOG", str(tmp_path / "log"))
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    killed: list[int] = []

    def kill_one() -> None:
        while not (tmp_path / "log").exists() or len((tmp_path / "log").read_text().splitlines()) < 4:
            time.sleep(0.05)
        for pid in _actors():
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
            return

    killer = threading.Thread(target=kill_one)
    killer.start()
    label(images, ONTOLOGY, tmp_path / "out", config(engine="ray", workers=2))
    killer.join()
    ray.shutdown()
    assert killed
    assert files(tmp_path / "out") == expected


@pytest.mark.ray
def test_a_killed_driver_is_resumed(images: Path, expected: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    log, code = tmp_path / "log", DRIVER.format(ontology=ONTOLOGY, fake=FAKE)
    command = [sys.executable, "-c", code, str(images), str(tmp_path / "out")]
    slow = {**os.environ, "AGS_FAKE_LOG": str(log), "AGS_FAKE_SECONDS": "0.3"}
    driver = subprocess.Popen(command, env=slow)
    deadline = time.monotonic() + 600
    while not list((tmp_path / "out" / "run" / "candidates").glob("*.parquet")):
        assert driver.poll() is None, "it was done before it could be killed"
        assert time.monotonic() < deadline, "no part of the store was written"
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert not (tmp_path / "out" / "data.yaml").exists()
    time.sleep(5)  # the orphaned workers notice that their driver has gone
    before = len(log.read_text().splitlines())
    subprocess.run(command, env={**slow, "AGS_FAKE_SECONDS": "0"}, check=True)
    assert len(log.read_text().splitlines()) - before < 24, "what was in the store is not looked at again"
    assert files(tmp_path / "out") == expected


def _actors() -> list[int]:
    """Processes of our actors: Ray names them after the class."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if command.startswith(b"ray::") and b"_Actor" in command:
                found.append(int(entry.name))
    return found
