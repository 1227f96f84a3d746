"""The main path with instant models: killed at any moment it ends as an undisturbed run does, and deciding needs no model."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodistill_grounded_sam.config import DecideConfig, ExportConfig, LabelConfig, RunConfig, SeeConfig
from autodistill_grounded_sam.errors import ConfigError, NoImagesError, StoreError
from autodistill_grounded_sam.painting import PainterSettings
from autodistill_grounded_sam.pipeline import RunSummary, default_out, export_run, label, redecide, see
from autodistill_grounded_sam.store.store import Store
from autodistill_grounded_sam.testing import paint_folder
from tests.run_kit import FAKE, ONTOLOGY, files

PART_IMAGES = 8
SMALL = PainterSettings(width=96, height=72)

LABEL = """
import sys
from autodistill_grounded_sam.config import LabelConfig, RunConfig, SeeConfig
from autodistill_grounded_sam.painting import PainterSettings
from autodistill_grounded_sam.pipeline import label
images, out, part_images = sys.argv[1], sys.argv[2], int(sys.argv[3])
config = LabelConfig(see=SeeConfig(**{fake!r}), run=RunConfig(batch_size=3, part_images=part_images))
label(images, {ontology!r}, out, config)
assert "torch" not in sys.modules
"""


def config(*, decide: Mapping[str, Any] | None = None, **see: Any) -> LabelConfig:
    return LabelConfig(
        see=SeeConfig(**{**FAKE, **see}),
        run=RunConfig(batch_size=3, part_images=PART_IMAGES),
        decide=DecideConfig(**(decide or {})),
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    paint_folder(folder, 20, settings=SMALL)
    return folder


def test_label_gives_a_dataset_and_a_store(images: Path, tmp_path: Path) -> None:
    summary = label(images, ONTOLOGY, tmp_path / "out", config())
    assert summary.images["labelled"] + summary.images["empty"] == 20
    assert (summary.images["failed"], summary.looked_at) == (0, 20)
    assert list(summary.per_class) == ["circle", "square", "star"]
    assert summary.labels == summary.datasets[0].labels > 0
    assert (tmp_path / "out" / "data.yaml").is_file()
    assert len(list((tmp_path / "out").glob("*/labels/*.txt"))) == 20
    assert {"scan", "load", "see", "decode", "detect", "segment", "decide", "export"} <= set(summary.stages)
    assert summary.images_per_second > 0
    info = json.loads((tmp_path / "out" / "run" / "run.json").read_text())
    assert info["identity"]["prompts"] == list(ONTOLOGY)
    assert info["sessions"][0]["images"] == 20
    assert info["sessions"][0]["versions"]["numpy"] == np.__version__


def test_labelling_again_looks_at_nothing_and_writes_the_same(images: Path, tmp_path: Path) -> None:
    first = label(images, ONTOLOGY, tmp_path, config())
    before = files(tmp_path)
    second = label(images, ONTOLOGY, tmp_path, config())
    assert (first.looked_at, second.looked_at) == (20, 0)
    assert files(tmp_path) == before


def test_other_thresholds_re_run_nothing(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    low = label(images, ONTOLOGY, tmp_path / "out", config(decide={"box_threshold": 0.2}))
    monkeypatch.setenv("AGS_FAKE_LOG", str(tmp_path / "log"))
    high = label(images, ONTOLOGY, tmp_path / "out", config(decide={"box_threshold": 0.8}))
    assert high.labels < low.labels
    again = redecide(tmp_path / "out", DecideConfig(box_threshold=0.2))
    assert again.per_class == low.per_class
    assert not (tmp_path / "log").exists()
    fresh = label(images, ONTOLOGY, tmp_path / "fresh", config(decide={"box_threshold": 0.8}))
    assert fresh.per_class == high.per_class


def test_masks_of_kept_ones_give_the_same_dataset(images: Path, tmp_path: Path) -> None:
    label(images, ONTOLOGY, tmp_path / "all", config())
    label(images, ONTOLOGY, tmp_path / "kept", config(masks="kept"))
    assert files(tmp_path / "all") == files(tmp_path / "kept")
    with pytest.raises(StoreError, match=r"masks of.decide.box_threshold: 0.35 -> 0.1"):
        label(images, ONTOLOGY, tmp_path / "kept", config(masks="kept", decide={"box_threshold": 0.1}))


def test_a_run_without_masks(images: Path, tmp_path: Path) -> None:
    settings = config(masks="none").model_copy(update={"export": ExportConfig(formats=("yolo",))})
    summary = label(images, ONTOLOGY, tmp_path, settings)
    assert summary.labels > 0
    assert "segment" not in summary.stages


def test_several_formats_and_a_later_export(images: Path, tmp_path: Path) -> None:
    settings = config().model_copy(update={"export": ExportConfig(formats=("yolo-seg", "coco"))})
    summary = label(images, ONTOLOGY, tmp_path / "out", settings)
    assert [dataset.path for dataset in summary.datasets] == [tmp_path / "out", tmp_path / "out" / "coco"]
    assert summary.datasets[0].labels == summary.datasets[1].labels == summary.labels
    exported = export_run(tmp_path / "out", "coco", tmp_path / "coco")
    assert exported.labels == summary.labels
    assert files(tmp_path / "coco") == files(tmp_path / "out" / "coco")


def test_another_ontology_of_the_same_prompts(images: Path, tmp_path: Path) -> None:
    label(images, ONTOLOGY, tmp_path, config())
    renamed = redecide(tmp_path, ontology={"green star": "shape", "red circle": "shape"})
    assert list(renamed.per_class) == ["shape"]
    assert redecide(tmp_path).per_class == renamed.per_class  # the last one used is remembered
    with pytest.raises(StoreError, match=r"was never asked for 'black cat'; it was asked for 'red circle', .*another --out"):
        redecide(tmp_path, ontology={"black cat": "cat", "red circle": "circle"})


def test_other_prompts_are_refused(images: Path, tmp_path: Path) -> None:
    label(images, ONTOLOGY, tmp_path, config())
    with pytest.raises(StoreError, match=r"(?s)prompts: new 'cat'.*Give another --out .*use `decide`"):
        label(images, {**ONTOLOGY, "cat": "cat"}, tmp_path, config())
    with pytest.raises(StoreError, match=r"see.floor: 0.1 -> 0.2"):
        label(images, ONTOLOGY, tmp_path, config(floor=0.2))


def test_added_images_alone_are_looked_at(tmp_path: Path) -> None:
    paint_folder(tmp_path / "images", 10, settings=SMALL)
    label(tmp_path / "images", ONTOLOGY, tmp_path / "out", config())
    paint_folder(tmp_path / "images" / "more", 5, seed=100, settings=SMALL)
    (tmp_path / "images" / "scene_0003.png").unlink()
    summary = label(tmp_path / "images", ONTOLOGY, tmp_path / "out", config())
    assert summary.looked_at == 5
    assert sum(summary.images.values()) == 14
    ids = [sighting.image.id for sighting in Store(tmp_path / "out").sightings()]
    assert ids == sorted(ids)
    assert len(list((tmp_path / "out").glob("*/images/*"))) == 14


def test_broken_images_are_set_aside_and_counted(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    paint_folder(folder, 4, settings=SMALL)
    (folder / "scene_0001.png").write_bytes((folder / "scene_0001.png").read_bytes()[:800])
    (folder / "text.jpg").write_text("not an image")
    summary = label(folder, ONTOLOGY, tmp_path / "out", config())
    assert summary.images["failed"] == 2
    lines = [json.loads(line) for line in (tmp_path / "out" / "run" / "failed.jsonl").read_text().splitlines()]
    assert [(line["id"], line["reason"]) for line in lines] == [("scene_0001.png", "truncated"), ("text.jpg", "not_an_image")]
    assert [line.id for line in summary.failed] == ["scene_0001.png", "text.jpg"]
    assert len(list((tmp_path / "out").glob("*/labels/*.txt"))) == 3


def test_a_folder_of_broken_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(3):
        (tmp_path / "images" / f"{number}.jpg").write_text("not an image")
    with pytest.raises(NoImagesError, match=r"none of the 3 images in .* could be used: 3 not_an_image; see .*failed.jsonl"):
        label(tmp_path / "images", ONTOLOGY, tmp_path / "out", config())
    assert len((tmp_path / "out" / "run" / "failed.jsonl").read_text().splitlines()) == 3


def test_the_output_folder_must_not_lie_in_the_images(images: Path) -> None:
    with pytest.raises(ConfigError, match="must not lie in the images folder"):
        label(images, ONTOLOGY, images / "out", config())
    assert default_out("some/images") == Path.cwd() / "some" / "images_labeled"


def test_a_moved_images_folder(tmp_path: Path) -> None:
    paint_folder(tmp_path / "images", 3, settings=SMALL)
    label(tmp_path / "images", ONTOLOGY, tmp_path / "out", config())
    (tmp_path / "images").rename(tmp_path / "moved")
    assert redecide(tmp_path / "out").labels > 0
    with pytest.raises(StoreError, match=r"the images folder .*images is not there any more; say where it is now"):
        export_run(tmp_path / "out", "coco", tmp_path / "coco")
    assert export_run(tmp_path / "out", "coco", tmp_path / "coco", images=tmp_path / "moved").labels > 0
    redecide(tmp_path / "out", images=tmp_path / "moved")
    assert export_run(tmp_path / "out", "coco", tmp_path / "again").labels > 0, "it is remembered where they are now"
    assert label(tmp_path / "moved", ONTOLOGY, tmp_path / "out", config()).looked_at == 0


def test_the_summary_counts_images_with_more_candidates_than_are_kept(images: Path, tmp_path: Path) -> None:
    (note,) = label(images, ONTOLOGY, tmp_path / "out", config(max_candidates=1)).notes
    assert "images hold max_candidates=1 candidates: weaker ones may be left out" in note


class Recorder:
    def __init__(self) -> None:
        self.expected, self.done, self.counts = 0, 0, Counter[str]()

    def total(self, images: int) -> None:
        self.expected = images

    def advance(self, images: int, counts: Mapping[str, int]) -> None:
        self.done += images
        self.counts.update(counts)

    def message(self, text: str) -> None: ...


def test_progress_counts_images_and_labels(images: Path, tmp_path: Path) -> None:
    progress = Recorder()
    summary = label(images, ONTOLOGY, tmp_path, config(), progress=progress)
    assert progress.expected == progress.done == 20
    assert progress.counts == +Counter(summary.per_class)


def start(images: Path, out: Path, **environment: str) -> subprocess.Popen[str]:
    code = LABEL.format(fake=FAKE, ontology=ONTOLOGY)
    command = [sys.executable, "-c", code, str(images), str(out), str(PART_IMAGES)]
    return subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def test_a_second_process_is_refused(images: Path, tmp_path: Path) -> None:
    first = start(images, tmp_path / "out", AGS_FAKE_SECONDS="0.5", AGS_FAKE_LOG=str(tmp_path / "log"))
    try:
        wait_for_lines(tmp_path / "log", 1, first)
        with pytest.raises(StoreError, match=rf"is in use by process {first.pid} on .*; wait for it to end"):
            label(images, ONTOLOGY, tmp_path / "out", config())
    finally:
        first.kill()
        first.communicate()


def wait_for_lines(log: Path, lines: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if log.exists() and log.read_text().count("\n") >= lines:
            return
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_moment_the_dataset_is_that_of_an_undisturbed_run(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    folder, log = tmp_path / "images", tmp_path / "log"
    paint_folder(folder, 60, seed=seed, settings=SMALL)
    paint_folder(folder / "b", 3, seed=500, settings=SMALL)
    (folder / "b" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    finish(start(folder, tmp_path / "undisturbed"))
    out, kills, looked, on_disk = tmp_path / "out", 0, Counter[str](), 0
    for _ in range(40):
        log.unlink(missing_ok=True)
        process = start(folder, out, AGS_FAKE_LOG=str(log), AGS_FAKE_SECONDS="0.01")
        wait_for_lines(log, rng.randint(1, 2 * PART_IMAGES), process)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        ended = process.wait() == 0
        assert process.stderr is not None
        process.stderr.close()
        seen_now = log.read_text().split() if log.exists() else []
        assert len(seen_now) == len(set(seen_now))
        before, on_disk = on_disk, len(list(Store(out).seen())) if (out / "run" / "run.json").exists() else 0
        lost = len(seen_now) - (on_disk - before)
        assert 0 <= lost < 2 * PART_IMAGES  # what was in the last unfinished part, and the batch that was being looked at
        looked.update(seen_now)
        kills += not ended
        if ended or on_disk == 63:
            break
    assert kills >= 3
    finish(start(folder, out))
    assert files(out) == files(tmp_path / "undisturbed")
    assert (out / "run" / "failed.jsonl").read_bytes() == (tmp_path / "undisturbed" / "run" / "failed.jsonl").read_bytes()
    assert len(looked) == 63


def test_a_full_disk_names_itself_and_the_run_resumes(images: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", str(disk)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        with pytest.raises(StoreError, match=rf"is full \({disk}: [\d,]+ bytes free\).*run the same command again"):
            see(images, ONTOLOGY, disk / "out", config())
        before = len(list(Store(disk / "out").seen()))
        assert before < 20
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        assert see(images, ONTOLOGY, disk / "out", config()).looked_at == 20 - before
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


REDECIDE = """
import sys, time
from autodistill_grounded_sam.config import DecideConfig
from autodistill_grounded_sam.painting import PainterSettings
from autodistill_grounded_sam.pipeline import redecide
summary = redecide(sys.argv[1], DecideConfig(box_threshold=0.3), {ontology!r})
print(sum(summary.images.values()), summary.labels, time.process_time())
assert not {{"torch", "transformers", "ultralytics", "supervision", "autodistill"}} & set(sys.modules)
"""


def decided_elsewhere(run: Path) -> tuple[int, int, float]:
    command = [sys.executable, "-c", REDECIDE.format(ontology=ONTOLOGY), str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count, labels, seconds = done.stdout.split()
    return int(count), int(labels), float(seconds)


def test_deciding_imports_no_torch(images: Path, tmp_path: Path) -> None:
    see(images, ONTOLOGY, tmp_path, config())
    count, labels, _ = decided_elsewhere(tmp_path)
    assert count == 20
    assert labels == redecide(tmp_path, DecideConfig(box_threshold=0.3), ONTOLOGY).labels


def test_summary_without_a_run_has_no_speed(tmp_path: Path) -> None:
    assert RunSummary(tmp_path, tmp_path, {}, {}).images_per_second == 0
