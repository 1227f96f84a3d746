"""Which labelled image is which of the reference, which class is which, and that nothing is dropped without a word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodistill_grounded_sam.errors import DatasetError
from autodistill_grounded_sam.evaluate.matching import class_key, join, match_names
from autodistill_grounded_sam.images import dataset_stems
from autodistill_grounded_sam.masks import encode_mask
from autodistill_grounded_sam.types import DatasetImage

BOX = (10, 10, 30, 30)
WriteTruth = Callable[..., Path]


def image(name: str, *labels: tuple[Any, ...], size: tuple[int, int] = (100, 80), **more: Any) -> DatasetImage:
    """One labelled image; each label is (class id, box) or (class id, box, score)."""
    score = np.array([label[2] for label in labels], np.float32) if labels and len(labels[0]) > 2 else None
    xyxy = np.array([label[1] for label in labels], np.float32).reshape(-1, 4)
    class_id = np.array([label[0] for label in labels], np.int32)
    return DatasetImage(None, name, "train", *size, class_id, xyxy, None if labels else (), score, **more)


def matched(truth: Sequence[str], labelled: Sequence[str]) -> dict[str, str]:
    return {truth[index]: labelled[place] for index, place in match_names(truth, labelled).items()}


@pytest.mark.parametrize(
    ("truth", "labelled"),
    [
        ("cam1/a.jpg", "cam1/a.jpg"),
        ("a.jpg", "cam1/a.jpg"),  # people write the file name alone
        ("images/a.jpg", "a.jpg"),
        ("images/a.jpg", "train/a.jpg"),  # unique on both sides
        ("cam1/a.jpg", "cam1__a.jpg"),  # an export of ours
        ("cam1__a.jpg", "cam1/a.jpg"),  # the reference was made on the export
        ("cam1/a.tif", "cam1__a.png"),  # and it changes what browsers cannot show
        ("a.tif", "a.png"),
        ("images/a.tif", "a.png"),
        ("cam1\\a.jpg", "cam1/a.jpg"),  # COCO files made on Windows
        ("./a.jpg", "a.jpg"),
        ("cafe\u0301.jpg", "caf\u00e9.jpg"),  # macOS writes accents apart
        ("con.jpg", "_con-" + dataset_stems(["con.jpg"])["con.jpg"].rpartition("-")[2] + ".jpg"),  # renamed for Windows
    ],
)
def test_names_of_one_image(truth: str, labelled: str) -> None:
    assert matched([truth, "other.jpg"], ["another.jpg", labelled]) == {truth: labelled}


@pytest.mark.parametrize(
    ("truth", "labelled"),
    [
        (["a.jpg"], ["b.jpg"]),
        (["a.jpg"], []),
        ([], ["a.jpg"]),
        (["cam1/a.jpg", "cam2/a.jpg"], ["cam3/a.jpg"]),  # folders are said on both sides, and they differ
        (["cam1/a.jpg"], ["cam2/a.jpg", "cam3/a.jpg"]),
    ],
)
def test_names_of_different_images(truth: list[str], labelled: list[str]) -> None:
    assert matched(truth, labelled) == {}


def test_the_whole_path_goes_before_the_file_name() -> None:
    assert matched(["a.jpg"], ["cam1/a.jpg", "a.jpg"]) == {"a.jpg": "a.jpg"}
    assert matched(["cam1/a.jpg", "cam2/a.jpg"], ["cam2/a.jpg", "cam3/a.jpg"]) == {"cam2/a.jpg": "cam2/a.jpg"}
    assert matched(["a.jpg", "a.png"], ["a.png", "a.jpg"]) == {"a.jpg": "a.jpg", "a.png": "a.png"}


@pytest.mark.parametrize(
    ("truth", "labelled", "told"),
    [
        (["a.jpg"], ["cam1/a.jpg", "cam2/a.jpg"], r"names 'a.jpg', the labels are of 'cam1/a.jpg', 'cam2/a.jpg'; write the path"),
        (["cam1/a.jpg", "cam2/a.jpg"], ["a.jpg"], r"names 'cam1/a.jpg', 'cam2/a.jpg', the labels are of 'a.jpg'"),
        (["a.jpg", "a.jpg"], ["a.jpg"], r"names 'a.jpg', 'a.jpg', .* each image once"),
        (["a.jpg"], ["a.jpg", "a.jpg"], r"labels are of 'a.jpg', 'a.jpg'"),
        (["a.jpg"], ["a.png", "a.tif"], r"labels are of 'a.png', 'a.tif'"),
        (["x/a.tif"], ["x/a.jpg", "x/a.png"], r"labels are of 'x/a.jpg', 'x/a.png'"),
        (["a.jpg"], [f"{n}/a.jpg" for n in range(9)], r"'0/a.jpg', '1/a.jpg', '2/a.jpg', \.\.\.;"),
    ],
)
def test_names_that_could_be_two_images(truth: list[str], labelled: list[str], told: str) -> None:
    with pytest.raises(DatasetError, match=told):
        match_names(truth, labelled)


PATHS = st.lists(
    st.lists(st.text("abXY._ é", min_size=1, max_size=4).filter(lambda part: part.strip(". ")), min_size=1, max_size=3)
    .map("/".join)
    .map(lambda path: f"{path}.jpg"),
    max_size=8,
    unique_by=lambda path: path.replace("//", "/"),
)


@given(PATHS, st.randoms())
def test_equal_names_match_in_any_order(names: list[str], rng: Any) -> None:
    shuffled = list(names)
    rng.shuffle(shuffled)
    assert matched(names, shuffled) == {name: name for name in names}


@given(PATHS)
def test_an_export_is_joined_with_its_source(names: list[str]) -> None:
    plain = [name for name, stem in dataset_stems(names).items() if dataset_stems([name])[name] == stem]
    exported = [f"{dataset_stems([name])[name]}.jpg" for name in plain]
    assert [match_names(plain, exported)[index] for index in range(len(plain))] == list(range(len(plain)))


@pytest.mark.parametrize(
    ("one", "other"), [("Hard Hat", "hard_hat"), ("hard  hat ", "HARD HAT"), ("caf\u00e9", "cafe\u0301"), ("Straße", "STRASSE")]
)
def test_names_of_one_class(one: str, other: str) -> None:
    assert class_key(one) == class_key(other)
    assert class_key(one) != class_key("hard-hat") != class_key("hat")


def test_classes_are_joined_by_name(write_truth: WriteTruth) -> None:
    truth = write_truth({"a.jpg": [(0, BOX), (1, BOX), (1, BOX)]}, ["dog", "Hard_Hat"])
    joined = join([image("a.jpg", (0, BOX), (2, BOX))], ["hard hat", "cat", "wolf"], truth)
    assert (joined.class_names, joined.known) == (("dog", "Hard_Hat", "cat", "wolf"), 2)
    assert joined.pairs[0].truth.class_id.tolist() == [0, 1, 1]
    assert joined.pairs[0].labels.class_id.tolist() == [1, 3]
    assert any("labels do not know, so all their objects count as missed: dog (1)" in note for note in joined.notes)
    assert any(
        "reference does not know, left out of AP, precision and recall: cat (0), wolf (1)" in note for note in joined.notes
    )


def test_classes_of_one_name_on_one_side_count_as_one(write_truth: WriteTruth) -> None:
    truth = write_truth({"a.jpg": [(0, BOX), (1, BOX)]}, ["dog", "Dog"])
    joined = join([image("a.jpg", (0, BOX))], ["dog"], truth)
    assert joined.class_names == ("dog",)
    assert joined.pairs[0].truth.class_id.tolist() == [0, 0]
    assert "classes of the reference that count as one: dog/Dog" in joined.notes


def test_images_on_one_side_only_are_noted(write_truth: WriteTruth) -> None:
    truth = write_truth({"a.jpg": [(0, BOX)], "b.jpg": [(0, BOX)], "c/c.jpg": [(0, BOX)]}, ["dog"])
    labels = [image("x.jpg", (0, BOX, 0.5)), image("a.jpg", (0, BOX, 0.5))]
    joined = join(labels, ["dog"], truth, failed=["c.jpg", "z.jpg"])
    assert [(pair.name, len(pair.truth), len(pair.labels)) for pair in joined.pairs] == [("a.jpg", 1, 1), ("b.jpg", 1, 0)]
    assert joined.notes == (
        "1 image(s) of the reference were not labelled, their objects count as missed: 'b.jpg'",
        "1 image(s) of the reference could not be read by the run and are left out: 'c/c.jpg'",
        "1 labelled image(s) are not in the reference and are left out: 'x.jpg'",
    )


def test_perfectly_joined_images_leave_no_note(write_truth: WriteTruth) -> None:
    truth = write_truth({"a.jpg": [(0, BOX)]}, ["dog"])
    assert join([image("a.jpg", (0, BOX, 0.5))], ["dog"], truth).notes == ()


def test_labels_without_scores_are_sure_and_noted(write_truth: WriteTruth) -> None:
    joined = join([image("a.jpg", (0, BOX))], ["dog"], write_truth({"a.jpg": [(0, BOX)]}, ["dog"]))
    assert joined.pairs[0].labels.score.tolist() == [1.0]
    assert joined.notes == ("labels without scores: AP takes them all as equally sure (score 1), so it ranks nothing",)


def test_labels_stand_best_first_and_ties_in_one_order(write_truth: WriteTruth) -> None:
    truth = write_truth({"a.jpg": [(0, BOX)]}, ["dog", "cat"])
    labels = [(0, BOX, 0.5), (1, BOX, 0.5), (0, (0, 0, 5, 5), 0.5), (1, BOX, 0.9)]
    orders = [join([image("a.jpg", *order)], ["dog", "cat"], truth).pairs[0].labels for order in (labels, labels[::-1])]
    for found in orders:
        assert found.score.tolist() == pytest.approx([0.9, 0.5, 0.5, 0.5])
        assert found.class_id.tolist() == [1, 0, 0, 1]
        assert found.xyxy[1].tolist() == [0, 0, 5, 5]


def test_labels_that_differ_in_their_masks_alone_stand_in_one_order(write_truth: WriteTruth) -> None:
    truth = write_truth({"a.jpg": [(0, BOX)]}, ["dog"])
    codes = [encode_mask(np.eye(80, 100, k)) for k in (0, 3)]
    rows = [replace(image("a.jpg", (0, BOX, 0.5), (0, BOX, 0.5)), rle=tuple(order)) for order in (codes, codes[::-1])]
    first, second = (join([row], ["dog"], truth).pairs[0].labels.rle for row in rows)
    assert first == second


def test_crowds_stay_in_the_reference_and_leave_the_labels(write_truth: WriteTruth) -> None:
    truth = write_truth({"a.jpg": [(0, BOX, {"iscrowd": 1}), (0, BOX)]}, ["dog"])
    labels = image("a.jpg", (0, BOX, 0.5), (0, BOX, 0.4), crowd=np.array([True, False]))
    joined = join([labels], ["dog"], truth)
    assert joined.pairs[0].truth.crowd.tolist() == [False, True]
    assert joined.pairs[0].labels.score.tolist() == pytest.approx([0.4])
    assert joined.notes == ("1 crowd region(s) among the labels are left out: a crowd is no object",)


def test_labels_are_streamed(write_truth: WriteTruth) -> None:
    truth = write_truth({"a.jpg": [(0, BOX)]}, ["dog"])
    joined = join((image(f"{name}.jpg", (0, BOX, 0.5)) for name in "xya"), ["dog"], truth)
    assert len(joined.pairs[0].labels) == 1
    assert "2 labelled image(s) are not in the reference and are left out: 'x.jpg', 'y.jpg'" in joined.notes


def test_no_labelled_image_at_all_is_no_error(write_truth: WriteTruth) -> None:
    joined = join([], [], write_truth({"a.jpg": [(0, BOX)]}, ["dog"]))
    assert [len(pair.labels) for pair in joined.pairs] == [0]


def test_labels_of_other_images(write_truth: WriteTruth) -> None:
    truth = write_truth({"a.jpg": [(0, BOX)], "b.jpg": []}, ["dog"])
    with pytest.raises(DatasetError, match=r"none of the 2 images of .* it names 'a.jpg', 'b.jpg', the labels are of 'x.jpg'"):
        join([image("x.jpg")], ["dog"], truth)


def test_an_image_of_another_size(write_truth: WriteTruth) -> None:
    truth = write_truth({"a.jpg": [(0, BOX)]}, ["dog"])
    with pytest.raises(DatasetError, match=r"a.jpg is 100x80 in .*, but cam/a.jpg was labelled at 80x100: .* upright"):
        join([image("cam/a.jpg", size=(80, 100))], ["dog"], truth)


def test_a_reference_without_images(write_truth: WriteTruth) -> None:
    with pytest.raises(DatasetError, match=r"holds no image; give the COCO json"):
        join([image("a.jpg")], ["dog"], write_truth({}, ["dog"]))


def test_a_reference_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere.json cannot be read"):
        join([], ["dog"], tmp_path / "nowhere.json")
