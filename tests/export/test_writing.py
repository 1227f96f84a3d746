"""What all writers share: a dataset appears whole or not at all, images are upright 8-bit pixels, nothing foreign is touched."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autodistill_grounded_sam.errors import ExportError
from autodistill_grounded_sam.export import writing
from autodistill_grounded_sam.export.formats import FORMATS
from autodistill_grounded_sam.export.replacing import MARKER
from autodistill_grounded_sam.images import dataset_stems, read_image, scan
from autodistill_grounded_sam.types import Labels, State

# The folder, its images and its lock are one code for all formats; what a format adds is in its own test file.
every_format = pytest.mark.parametrize("name", ["yolo-seg", "yolo", "coco"])


def image_folder(out: Path, name: str, split: str = "train") -> Path:
    return out / FORMATS[name].image_folder.format(split=split)


# --- what goes in


@every_format
def test_summary__counts_what_was_read_back(kit: Any, two: Any, tmp_path: Path, name: str) -> None:
    summary = kit.export(two, name, tmp_path / "out", valid=["b.png"], notes=["the split was cut"])
    assert (summary.format, summary.path) == (name, tmp_path / "out")
    assert dict(summary.images) == {"train": 1, "valid": 1}
    assert (summary.labels, summary.empty) == (2, 1)
    assert list(summary.per_class.items()) == [("cup", 1), ("plate", 0), ("spoon", 1)]  # the user's order, unused ones too
    assert summary.notes == ("the split was cut",)
    assert summary.round_trip_iou == summary.lowest_iou == (None if name == "yolo" else 1.0)


@every_format
def test_failed_and_review__are_noted_not_written(kit: Any, tmp_path: Path, name: str) -> None:
    for place, stem in enumerate("abcd"):
        kit.paint(tmp_path / "in" / f"{stem}.png", seed=place)
    states = {"b.png": Labels.nothing(State.FAILED), "c.png": Labels.nothing(State.REVIEW), "d.png": Labels.nothing(State.REVIEW)}
    summary = kit.export(kit.rows(tmp_path / "in", states), name, tmp_path / "out", valid=["d.png"])
    assert dict(summary.images) == {"train": 1, "valid": 0}
    assert {"1 image(s) that failed were left out", "2 image(s) that wait for review were left out"} <= set(summary.notes)
    written = {Path(path).stem for path in kit.tree(tmp_path / "out") if path.endswith((".png", ".txt"))}
    assert written == {"a"}


@every_format
def test_nothing_to_write__says_why(kit: Any, tmp_path: Path, name: str) -> None:
    kit.paint(tmp_path / "in" / "a.png")
    rows = kit.rows(tmp_path / "in", {"a.png": Labels.nothing(State.FAILED)})
    with pytest.raises(ExportError, match=r"no image to write into the dataset .*out: 1 image\(s\) that failed were left out"):
        kit.export(rows, name, tmp_path / "out")
    with pytest.raises(ExportError, match=r"no image to write into the dataset .*: none was given"):
        kit.export([], name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@every_format
def test_names__never_overwrite_one_another(kit: Any, tmp_path: Path, name: str) -> None:
    ids = ["a/x.png", "b/x.bmp", "a_x.png", "a__x.png", "A__X.png", "x.png", "x.bmp", "x.y.z.png", "x.y.png", "größe 1 (2).png",
           "日本/猫.png", "confidence-x.png", "-x.png"]  # fmt: skip
    for place, image_id in enumerate(ids):
        kit.paint(tmp_path / "in" / image_id, seed=place)
    # each image's label tells it from the others
    labels = {image_id: kit.labels([kit.box(place, place, place + 9, place + 7)]) for place, image_id in enumerate(ids)}
    rows = kit.rows(tmp_path / "in", labels)
    summary = kit.export(rows, name, tmp_path / "out", confidence_files=True)
    assert (summary.images["train"], summary.labels) == (len(ids), len(ids))
    files = [path for path in image_folder(tmp_path / "out", name).iterdir() if path.suffix != ".json"]
    assert len({path.stem.casefold() for path in files}) == len(ids)
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert digests == {image.digest for image, _ in rows}


def test_stems__two_of_one_name__are_refused(kit: Any, two: Any, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"two images of the dataset .*out have one file stem 'x'"):
        FORMATS["yolo"](tmp_path / "out", kit.names, {"a.png": "x", "b.png": "x"})


@every_format
def test_labels__of_another_image_or_class__are_refused(kit: Any, two: Any, tmp_path: Path, name: str) -> None:
    (image, labels), _ = two
    with pytest.raises(ExportError, match=r"a\.png has a label of class 2, but there are 1 classes: cup"):
        kit.export(two, name, tmp_path / "out", names=["cup"])
    with pytest.raises(ExportError, match=r"a\.png is 48x64, but a mask of it is 64x48: the labels belong to another image"):
        kit.export([(replace(image, width=48, height=64), labels)], name, tmp_path / "out")


def test_image__gone_or_changed_since__is_left_out_and_noted(kit: Any, two: Any, tmp_path: Path) -> None:
    kit.paint(tmp_path / "in" / "c.png", seed=3)
    rows = kit.rows(tmp_path / "in", {})
    (tmp_path / "in" / "b.png").unlink()
    kit.paint(tmp_path / "in" / "c.png", width=50)
    summary = kit.export(rows, "yolo", tmp_path / "out")
    assert dict(summary.images) == {"train": 1, "valid": 0}
    assert "2 image(s) could not be read any more and were left out" in summary.notes


# --- images


def odd_images(folder: Path) -> None:
    """One upright picture, green with a red corner at the top left, in many disguises."""
    folder.mkdir()
    upright = np.full((48, 64, 3), (20, 160, 40), np.uint8)
    upright[:16, :20] = (230, 30, 30)
    picture = Image.fromarray(upright)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored a quarter turn to the left: turn it right to see it
    picture.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", exif=exif, quality=95)
    picture.save(folder / "plain.JPG", quality=95)
    picture.save(folder / "dots.in.name.jpeg", quality=95)
    picture.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "palette.png")
    picture.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    picture.convert("RGBA").save(folder / "rgba.png")
    picture.convert("LA").save(folder / "gray_alpha.png")
    picture.convert("L").save(folder / "gray.png")
    picture.convert("1").save(folder / "bits.png")
    Image.fromarray(upright[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    picture.save(folder / "anim.gif")
    picture.save(folder / "strip.tiff")
    picture.save(folder / "lossless.webp", lossless=True)
    picture.save(folder / "old.bmp")
    picture.save(folder / "liar.png", "JPEG", quality=95)


@every_format
def test_images__all_readers_see_the_upright_pixels_that_were_labelled(kit: Any, tmp_path: Path, name: str) -> None:
    cv2 = pytest.importorskip("cv2")
    odd_images(tmp_path / "in")
    corner = kit.labels([kit.box(0, 0, 20, 16)])
    rows = kit.rows(tmp_path / "in", {image.id: corner for image in scan(tmp_path / "in").images})
    summary = kit.export(rows, name, tmp_path / "out")
    assert summary.images["train"] == len(rows) == 15
    folder = image_folder(tmp_path / "out", name)
    for image, _ in rows:
        (path,) = [path for path in folder.iterdir() if path.stem == dataset_stems([image.id])[image.id]]
        seen = read_image(image)
        with Image.open(path) as written:
            assert written.mode in ("RGB", "L") and written.size == (64, 48), path
            assert written.getexif().get(0x0112, 1) == 1
            assert path.suffix == {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "WEBP": ".webp"}[written.format or ""]
            assert np.abs(np.asarray(written.convert("RGB")).astype(int) - seen).max() <= 2
        unturned = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)[..., ::-1]
        assert np.abs(unturned.astype(int) - seen).max() <= 4, path  # another JPEG decoder rounds otherwise
        if image.path.stem not in ("gray", "gray_alpha", "bits", "deep"):
            assert (unturned[:14, :18, 0] > 150).all() and (unturned[20:, 24:, 0] < 100).all(), path  # the labelled corner is red


def test_images__plain_ones_are_copies_byte_for_byte(kit: Any, two: Any, tmp_path: Path) -> None:
    kit.export(two, "yolo", tmp_path / "out")
    source, copy = tmp_path / "in" / "a.png", tmp_path / "out" / "train" / "images" / "a.png"
    assert copy.read_bytes() == source.read_bytes()
    assert not source.samefile(copy)


def test_images__link__links_only_what_needs_no_change(kit: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    kit.paint(tmp_path / "store" / "real.png", seed=1)
    (tmp_path / "in" / "linked.png").symlink_to("../store/real.png")
    kit.paint(tmp_path / "in" / "plain.png", seed=2)
    Image.fromarray(np.zeros((48, 64, 4), np.uint8)).save(tmp_path / "in" / "rgba.png")
    stems = {f"{stem}.png": stem for stem in ("linked", "plain", "rgba")}
    with FORMATS["yolo"](tmp_path / "out", kit.names, stems, link=True) as writer:
        for image, labels in kit.rows(tmp_path / "in", {}):
            writer.write(image, labels, "train")
    images = tmp_path / "out" / "train" / "images"
    assert (images / "plain.png").samefile(tmp_path / "in" / "plain.png")
    assert (images / "linked.png").samefile(tmp_path / "store" / "real.png")
    assert not (images / "linked.png").is_symlink()
    assert Image.open(images / "rgba.png").mode == "RGB"


# --- whole or not at all


class Interrupted(Exception):
    pass


@every_format
@pytest.mark.parametrize("there", [False, True])
def test_error_inside__leaves_the_folder_as_it_was(kit: Any, two: Any, tmp_path: Path, name: str, there: bool) -> None:
    out = tmp_path / "out"
    if there:
        kit.export(two, name, out)
        (out / "run").mkdir()
        (out / "run" / "run.json").write_text("{}")
    before = kit.tree(out)
    with (
        pytest.raises(Interrupted),
        FORMATS[name](out, kit.names, {"a.png": "a", "b.png": "b"}) as writer,
    ):
        writer.write(*two[0], "train")
        writer.finish()
        raise Interrupted
    assert out.exists() is there
    assert kit.tree(out) == before


@every_format
def test_second_export__replaces_what_was_ours_and_nothing_else(kit: Any, two: Any, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    (out / "run").mkdir(parents=True)
    (out / "run" / "run.json").write_text("{}")
    (out / "notes.txt").write_text("mine")
    kit.export(two, name, out, valid=["b.png"])
    kit.export(two[:1], name, out)
    kept = kit.tree(out)
    assert not [path for path in kept if Path(path).stem == "b"]
    assert (out / "notes.txt").read_text() == "mine" and (out / "run" / "run.json").exists()
    fresh = tmp_path / "fresh"
    kit.export(two[:1], name, fresh)
    assert {path: digest for path, digest in kept.items() if path not in ("notes.txt", "run/run.json")} == kit.tree(fresh)


def test_out__is_a_file(kit: Any, two: Any, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(ExportError, match=r"out is a file; a dataset needs a folder: give another --out"):
        kit.export(two, "coco", tmp_path / "out")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@every_format
def test_disk_full__names_the_disk_and_leaves_the_folder(
    kit: Any, two: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    kit.export(two, name, tmp_path / "out")
    before = kit.tree(tmp_path / "out")

    def full(*_: Any) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ExportError, match=r"the disk of .*out is full \(\d+ MB free\): make room, or export to another place"):
        kit.export(two, name, tmp_path / "out")
    assert kit.tree(tmp_path / "out") == before


def test_disk_refuses__from_the_first_file(kit: Any, two: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "open", read_only)
    with pytest.raises(ExportError, match=r"cannot write the dataset .*out: \[Errno 30\] Read-only file system"):
        kit.export(two, "yolo", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- read back


@every_format
def test_image_that_vanishes_before_the_end__is_an_error(
    kit: Any, two: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    complete = FORMATS[name]._complete

    def lose_one(self: Any) -> None:
        complete(self)
        (image_folder(self.partial, name) / "b.png").unlink()

    monkeypatch.setattr(FORMATS[name], "_complete", lose_one)
    with pytest.raises(ExportError, match=rf"{name} dataset .*out: wrote 2 train images, 1 are there"):
        kit.export(two, name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_many_labels__masks_are_sampled_and_it_says_so(
    kit: Any, two: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "COMPARED_LABELS", 1)
    summary = kit.export(two, "yolo-seg", tmp_path / "out")
    assert summary.labels == 2
    assert "masks of every 3th image were compared with their source; labels were counted in all" in summary.notes


@every_format
def test_same_input__same_bytes(kit: Any, scenes: Any, tmp_path: Path, name: str) -> None:
    few = scenes[:4]
    for place in "ab":
        kit.export(few, name, tmp_path / place, valid=[few[0][0].id], confidence_files=True)
    assert kit.tree(tmp_path / "a") == kit.tree(tmp_path / "b")
    marker = json.loads((tmp_path / "a" / MARKER).read_text())
    files = [path for path in kit.tree(tmp_path / "a") if path.startswith("train/")]
    assert marker["format"] == name and marker["entries"]["train"] == len(files)
