"""The story of the report and the review page: label, see what is wrong, fix three labels in the browser, export, and a better
student. Everything but the browser goes through the command line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from autodistill_grounded_sam.painting import PainterSettings, paint_dataset
from autodistill_grounded_sam.reviews import read_reviews
from tests.browser_kit import opened, shot
from tests.review.person import drag, kept, reviewing

pytestmark = pytest.mark.browser

TOOL = [sys.executable, "-m", "autodistill_grounded_sam.cli"]
MINI = ("--detector", "mini", "--segmenter", "mini", "--device", "cpu", "--offline")
NAMES = ["red circle", "green star"]
# The fault of this ontology: a threshold that no star reaches, so that all of them are missed.
ONTOLOGY = {
    "version": 1,
    "classes": {NAMES[0]: {"prompts": [NAMES[0]]}, NAMES[1]: {"prompts": [NAMES[1]], "box_threshold": 0.99}},
}
STUDENT = ("--target", "d-fine-mini", "--epochs", "60", "--imgsz", "96", "--batch-size", "4", "--device", "cpu", "--seed", "0")
Boxes = dict[str, list[tuple[str, list[float]]]]


def tool(*words: object) -> Any:
    done = subprocess.run([*TOOL, *map(str, words), "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def scenes(*names: str, objects: tuple[int, int]) -> PainterSettings:
    pairs = tuple((name.split()[0], name.split()[1]) for name in names)
    return PainterSettings(96, 96, objects=objects, size=(0.3, 0.5), pairs=pairs, clutter=(0, 0), backgrounds=("plain",))


def paint(folder: Path) -> Path:
    """10 scenes of circles and 3 of a star each, in folder/images; their truth."""
    circles = json.loads(paint_dataset(folder, 10, scenes(NAMES[0], objects=(1, 3)), 91_000, NAMES).read_text())
    stars = json.loads(paint_dataset(folder / "stars", 3, scenes(NAMES[1], objects=(1, 1)), 93_000, NAMES).read_text())
    for image in stars["images"]:
        shutil.copy(folder / "stars" / "images" / image["file_name"], folder / "images" / f"star_{image['file_name']}")
    circles["images"] += [{**row, "id": row["id"] + 1000, "file_name": f"star_{row['file_name']}"} for row in stars["images"]]
    circles["annotations"] += [
        {**row, "id": row["id"] + 1000, "image_id": row["image_id"] + 1000} for row in stars["annotations"]
    ]
    (folder / "truth.json").write_text(json.dumps(circles))
    return folder / "truth.json"


def boxes_of(truth: Path) -> Boxes:
    content = json.loads(truth.read_text())
    file_of = {row["id"]: row["file_name"] for row in content["images"]}
    found: Boxes = {name: [] for name in file_of.values()}
    for row in content["annotations"]:
        x, y, w, h = row["bbox"]
        found[file_of[row["image_id"]]].append((NAMES[row["category_id"] - 1], [x, y, x + w, y + h]))
    return found


@contextmanager
def review_of(out: Path) -> Iterator[str]:
    """The url of `grounded-sam review`, while it runs."""
    command = [*TOOL, "review", str(out), "--no-browser", "--json", "--offline", "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")["url"]
    finally:
        process.terminate()
        process.wait()


def add_the_missed_stars(page: Any, truth: Boxes) -> None:
    """Walk through the pictures and draw a box around each star that has no label, as one who knows them."""
    left = {image: boxes for image, boxes in truth.items() if any(name == NAMES[1] for name, _ in boxes)}
    for _ in range(3 * len(truth)):
        image = page.locator("#where").inner_text()
        for name, xyxy in left.pop(image, []):
            page.keyboard.press("n")
            page.keyboard.press("2")
            drag(page, (xyxy[0], xyxy[1], xyxy[2], xyxy[3]))
            page.locator("#labels li", has_text=name).first.wait_for()
            kept(page)
            shot(page, f"journey_star_{3 - len(left)}")
        if not left:
            return
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(30)
    raise AssertionError(f"never shown: {sorted(left)}")


def test_label_see_fix_three_labels_export_and_a_better_student(browser: Any, tmp_path: Path) -> None:
    truth, out = paint(tmp_path), tmp_path / "out"
    words = ("--ontology", json.dumps(ONTOLOGY), *MINI, "--format", "coco", "--out", out)
    labelled = tool("label", tmp_path / "images", *words)
    assert labelled["per_class"][NAMES[1]] == 0
    poor = tool("evaluate", out, "--truth", truth)["operating_point"]
    tool("export", out, "--format", "coco", "--out", tmp_path / "before")

    with opened(browser, (out / "report.html").as_uri()) as page:
        page.get_by_role("link", name=f"{NAMES[1]} was never found").wait_for()
        shot(page, "journey_report")
    with review_of(out) as url, reviewing(browser, url) as page:
        add_the_missed_stars(page, boxes_of(truth))
    said = read_reviews(out / "run" / "reviews.jsonl")
    assert [one.verdict for one in said] == ["added"] * 3 and all(one.mask for one in said)  # masked by mini's segmenter

    decided = tool("decide", out, "--format", "coco")
    assert decided["labels"] == labelled["labels"] + 3
    assert any("report.html is of an earlier decision" in note for note in decided["notes"])
    good = tool("evaluate", out, "--truth", truth)["operating_point"]
    assert good["recall"] > poor["recall"] and good["precision"] >= poor["precision"]
    tool("export", out, "--format", "coco", "--out", tmp_path / "after")
    learnt = (tmp_path / "after" / "train" / "_annotations.coco.json").read_text()
    assert learnt.count('"file_name": "star_') == 3  # by the split of these very scenes; a star in valid would teach nothing

    fresh = paint_dataset(tmp_path / "fresh", 60, scenes(*NAMES, objects=(1, 3)), 95_000, NAMES)
    found = {}
    for dataset in ("before", "after"):
        trained = tool("distill", tmp_path / dataset, *STUDENT, "--out", tmp_path / f"student_{dataset}")
        found[dataset] = tool("evaluate", trained["weights"], "--truth", fresh, "--images", tmp_path / "fresh" / "images")
    # A student that was shown no star finds none, whatever the seed, so its mean is at most about a half. With 3 stars among 13
    # scenes the fixed one has both classes (star 0.61, mean 0.59); with 3 among 27 it was noise (star 0.02 and 0.25).
    stars = {name: one["per_class"][NAMES[1]]["AP50"] for name, one in found.items()}
    before, after = found["before"]["box"]["AP50"], found["after"]["box"]["AP50"]
    print(f"AP50 on 60 fresh scenes: {before:.3f} before, {after:.3f} after three labels were added; of stars: {stars}")
    assert stars["before"] < 0.1 and stars["after"] > 0.2
    assert after >= before
