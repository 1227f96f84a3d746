"""From labels and a COCO json to an Evaluation and to JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodistill_grounded_sam.coco_datasets import coco_class_names, read_coco
from autodistill_grounded_sam.errors import DatasetError
from autodistill_grounded_sam.evaluate.report import evaluate_labels, evaluation_to_json
from autodistill_grounded_sam.masks import boxes_xyxy, encode_mask
from autodistill_grounded_sam.types import DatasetImage, Evaluation

A, B = (10, 10, 30, 30), (50, 10, 80, 30)
RING = {"segmentation": [[10, 10, 30, 10, 30, 30, 10, 30]]}
KEYS = ["box", "mask", "operating_point", "per_class", "confusion", "notes", "command"]
WriteTruth = Callable[..., Path]


def image(name: str, *labels: tuple[Any, ...], masks: bool = False) -> DatasetImage:
    """One labelled image of 100 x 80; each label is (class id, box, score); masks are the filled boxes."""
    xyxy = np.array([label[1] for label in labels], np.float32).reshape(-1, 4)
    rle = []
    for x1, y1, x2, y2 in xyxy.astype(int):
        mask = np.zeros((80, 100), np.bool_)
        mask[y1:y2, x1:x2] = True
        rle.append(encode_mask(mask))
    return DatasetImage(
        None,
        name,
        "train",
        100,
        80,
        np.array([label[0] for label in labels], np.int32),
        xyxy,
        tuple(rle) if masks or not labels else None,
        np.array([label[2] for label in labels], np.float32) if labels else None,
    )


def test_an_evaluation_of_boxes(write_truth: WriteTruth) -> None:
    truth = write_truth({"a.jpg": [(0, A), (1, B)], "b.jpg": []}, ["cup", "plate"])
    labels = [image("a.jpg", (0, A, 0.9)), image("b.jpg", (0, A, 0.3))]
    found = evaluate_labels(labels, ["cup", "plate"], truth, notes=["of Tuesday"], command="grounded-sam evaluate")
    assert found.box["AP"] == pytest.approx(0.5)
    assert found.mask is None
    assert found.operating_point["precision"] == found.operating_point["recall"] == 0.5
    assert list(found.per_class) == ["cup", "plate"]
    assert [found.per_class["cup"][key] for key in ("AP", "AP50")] == pytest.approx([1, 1])
    assert (found.per_class["cup"]["precision"], found.per_class["cup"]["labels"], found.per_class["cup"]["truth"]) == (0.5, 2, 1)
    assert found.confusion == {"cup": {"cup": 1}, "plate": {"": 1}, "": {"cup": 1}}
    assert found.notes == ("of Tuesday", "mask AP is left out: the reference holds boxes only")
    assert found.command == "grounded-sam evaluate"


def test_an_evaluation_of_masks(write_truth: WriteTruth) -> None:
    truth = write_truth({"a.jpg": [(0, A, RING)]}, ["cup"])
    found = evaluate_labels([image("a.jpg", (0, A, 0.9), masks=True)], ["cup"], truth)
    assert found.mask == pytest.approx({"AP": 1, "AP50": 1, "AP75": 1})
    assert found.operating_point["mask_iou"] == pytest.approx(1)
    assert found.notes == ()


@pytest.mark.parametrize(
    ("labels", "truth", "told"),
    [
        ([False, False], [RING, RING], "the labels hold boxes only"),
        ([True, False], [RING, RING], "the labels hold objects without a mask in 1 image(s)"),
        ([True, True], [RING, {}], "the reference holds objects without a mask in 1 image(s)"),
        ([True, True], [{}, {}], "the reference holds boxes only"),
    ],
)
def test_without_all_masks_there_is_no_mask_ap(
    write_truth: WriteTruth, labels: list[bool], truth: list[dict[str, Any]], told: str
) -> None:
    path = write_truth({f"{k}.jpg": [(0, A, more)] for k, more in enumerate(truth)}, ["cup"])
    rows = [image(f"{k}.jpg", (0, A, 0.9), masks=masks) for k, masks in enumerate(labels)]
    found = evaluate_labels(rows, ["cup"], path)
    assert found.mask is None
    assert found.notes == (f"mask AP is left out: {told}",)


def test_the_operating_point_has_its_own_score(write_truth: WriteTruth) -> None:
    truth = write_truth({"a.jpg": [(0, A), (0, B)]}, ["cup"])
    labels = [image("a.jpg", (0, A, 0.9), (0, B, 0.1))]
    found = evaluate_labels(labels, ["cup"], truth, operating_score=0.25)
    assert found.box["AP"] == pytest.approx(1)
    assert found.operating_point["recall"] == 0.5
    assert found.per_class["cup"]["labels"] == 1


def test_no_labels_at_all(write_truth: WriteTruth) -> None:
    found = evaluate_labels([], ["cup"], write_truth({"a.jpg": [(0, A, RING)]}, ["cup"]))
    assert found.box == found.mask == {"AP": 0, "AP50": 0, "AP75": 0}
    assert found.operating_point["recall"] == 0
    assert math.isnan(found.operating_point["precision"])
    assert any("not labelled" in note for note in found.notes)


def test_images_that_failed_are_left_out(write_truth: WriteTruth) -> None:
    truth = write_truth({"a.jpg": [(0, A)], "b.jpg": [(0, A)]}, ["cup"])
    labels = [image("a.jpg", (0, A, 0.9))]
    assert evaluate_labels(labels, ["cup"], truth).operating_point["recall"] == 0.5
    assert evaluate_labels(labels, ["cup"], truth, failed=["b.jpg"]).operating_point["recall"] == 1


@pytest.mark.parametrize("objects", [[], [(0, A, {"iscrowd": 1})]])
def test_a_reference_without_objects(write_truth: WriteTruth, objects: list[Any]) -> None:
    truth = write_truth({"a.jpg": objects}, ["cup"])
    with pytest.raises(DatasetError, match=r"truth.json holds no object in any image that was looked at; there is nothing"):
        evaluate_labels([image("a.jpg", (0, A, 0.9))], ["cup"], truth)


def test_every_image_of_the_reference_failed(write_truth: WriteTruth) -> None:
    with pytest.raises(DatasetError, match=r"holds no object in any image that was looked at"):
        evaluate_labels([], ["cup"], write_truth({"a.jpg": [(0, A)]}, ["cup"]), failed=["a.jpg"])


def test_json_holds_no_nan(write_truth: WriteTruth) -> None:
    truth = write_truth({"a.jpg": [(0, A)]}, ["cup", "plate"])
    facts = evaluation_to_json(evaluate_labels([image("a.jpg")], ["cup", "spoon"], truth, command="again"))
    assert list(facts) == KEYS
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert list(facts["box"]) == ["AP", "AP50", "AP75"]
    assert facts["mask"] is None
    assert facts["operating_point"] == {"precision": None, "recall": 0.0, "f1": 0.0, "mask_iou": None}
    nothing = {"AP": None, "AP50": None, "precision": None, "recall": None, "f1": None, "mask_iou": None}
    assert facts["per_class"]["plate"] == {**nothing, "truth": 0, "labels": 0}
    assert facts["confusion"] == {"cup": {"": 1}}
    assert facts["command"] == "again"


def test_json_of_masks(write_truth: WriteTruth) -> None:
    truth = write_truth({"a.jpg": [(0, A, RING)]}, ["cup"])
    facts = evaluation_to_json(evaluate_labels([image("a.jpg", (0, A, 0.9), masks=True)], ["cup"], truth))
    assert facts["mask"] == pytest.approx({"AP": 1, "AP50": 1, "AP75": 1})
    assert json.dumps(facts, allow_nan=False)


CORNERS = st.tuples(st.integers(0, 60), st.integers(0, 50), st.integers(1, 39), st.integers(1, 29))
ROWS = st.lists(
    st.tuples(
        st.integers(0, 2),
        CORNERS.map(lambda c: (c[0], c[1], c[0] + c[2], c[1] + c[3])),
        st.sampled_from([0.25, 0.5, 0.5, 0.75]),  # with ties
    ),
    max_size=5,
)


@settings(max_examples=25, deadline=None)
@given(truth=st.lists(ROWS, min_size=1, max_size=3).filter(any), labels=st.lists(ROWS, min_size=3, max_size=3), data=st.data())
def test_the_order_of_images_labels_and_classes_changes_nothing(
    write_truth: WriteTruth, truth: list[Any], labels: list[Any], data: st.DataObject
) -> None:
    classes = ["cup", "plate", "fork"]
    path = write_truth({f"{k}.jpg": [row[:2] for row in rows] for k, rows in enumerate(truth)}, classes)
    labels = labels[: len(truth)]
    first = evaluate_labels([image(f"{k}.jpg", *rows, masks=True) for k, rows in enumerate(labels)], classes, path)
    order = data.draw(st.permutations(range(3)))
    renumbered = [[(order.index(c), box, score) for c, box, score in data.draw(st.permutations(rows))] for rows in labels]
    images = [image(f"{k}.jpg", *rows, masks=True) for k, rows in enumerate(renumbered)]
    again = evaluate_labels(data.draw(st.permutations(images)), [classes[k] for k in order], path)
    assert evaluation_to_json(again) == evaluation_to_json(first)


def itself(path: Path) -> Evaluation:
    return evaluate_labels(read_coco(path), coco_class_names(path), path)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["coco_ccby", "fruits_nuts"])
def test_masks_of_people_against_themselves(shared: Path, name: str) -> None:
    found = itself(shared / "data" / name / "annotations.json")
    assert found.box == pytest.approx({"AP": 1, "AP50": 1, "AP75": 1})
    assert found.mask == pytest.approx({"AP": 1, "AP50": 1, "AP75": 1})
    assert found.operating_point == pytest.approx({"precision": 1, "recall": 1, "f1": 1, "mask_iou": 1})
    assert all(list(row) == [name] for name, row in found.confusion.items())


@pytest.mark.shared
def test_boxes_of_people_against_themselves(shared: Path) -> None:
    # seven pairs of its boxes mark one cell twice (IoU above 0.9); each has a label of its own
    found = itself(shared / "data" / "bccd" / "annotations.json")
    assert found.box == pytest.approx({"AP": 1, "AP50": 1, "AP75": 1})
    assert found.mask is None
    assert [found.operating_point[key] for key in ("precision", "recall", "f1")] == [1, 1, 1]
    assert found.confusion == {name: {name: count} for name, count in (("RBC", 4153), ("WBC", 372), ("Platelets", 361))}


@pytest.mark.shared
def test_more_objects_than_coco_counts_are_noted(shared: Path) -> None:
    found = itself(shared / "data" / "nuclei" / "annotations.json")
    assert found.box["AP"] < 1
    assert found.operating_point["f1"] == 1
    assert any("hold more than 100 objects of a class: AP counts the best 100 labels" in note for note in found.notes)


@pytest.mark.shared
def test_boxes_that_are_drawn_around_masks_are_near_those_of_people(shared: Path) -> None:
    path = shared / "data" / "coco_ccby" / "annotations.json"
    tight = [replace(row, xyxy=boxes_xyxy(row.rle)) if row.rle else row for row in read_coco(path)]
    found = evaluate_labels(tight, coco_class_names(path), path)
    assert found.box["AP50"] > 0.99
    assert found.mask == pytest.approx({"AP": 1, "AP50": 1, "AP75": 1})


@pytest.mark.shared
@pytest.mark.parametrize(("name", "kind"), [("bccd", "bbox"), ("coco_ccby", "bbox"), ("coco_ccby", "segm")])
def test_ap_is_what_pycocotools_gives_for_the_same_files(shared: Path, name: str, kind: str) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    path = shared / "data" / name / "annotations.json"
    rng = np.random.default_rng(0)
    labels, results = [], []
    for number, row in enumerate(read_coco(path), 1):  # image ids count from 1 in these files
        noise = rng.normal(0, 0.06, row.xyxy.shape) * np.tile(row.xyxy[:, 2:] - row.xyxy[:, :2], 2)
        moved = (row.xyxy + noise).astype(np.float32)
        score = rng.uniform(0, 1, len(moved)).astype(np.float32)
        rle = None if row.rle is None else (*row.rle[1:], *row.rle[:1])  # masks of one another
        labels.append(replace(row, xyxy=moved, score=score, rle=rle, crowd=None))
        for place, (x1, y1, x2, y2) in enumerate(moved.astype(float).tolist()):
            result = {"image_id": number, "category_id": int(row.class_id[place]) + 1, "score": float(score[place])}
            mask = {"segmentation": dict(rle[place])} if kind == "segm" and rle else {"bbox": [x1, y1, x2 - x1, y2 - y1]}
            results.append({**result, **mask})
    found = evaluate_labels(labels, coco_class_names(path), path)
    truth = COCO(str(path))
    official = COCOeval(truth, truth.loadRes(results), kind)
    official.evaluate()
    official.accumulate()
    official.summarize()
    ours = found.box if kind == "bbox" else found.mask
    assert ours is not None
    assert [ours[key] for key in ("AP", "AP50", "AP75")] == pytest.approx(official.stats[:3].tolist(), abs=1e-6)
    assert 0.05 < ours["AP"] < 0.95
