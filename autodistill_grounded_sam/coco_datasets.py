"""Reader of COCO json: one file, or a folder of splits with one each beside their images."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from autodistill_grounded_sam.errors import DatasetError
from autodistill_grounded_sam.masks import from_coco
from autodistill_grounded_sam.tool_images import masks_of, side_of
from autodistill_grounded_sam.types import DatasetImage, OnBad, Split

COCO_FILE = "_annotations.coco.json"  # beside the images of a split: where rfdetr and Roboflow look for it
INSTANCES = "instances_"  # and the split, in `annotations`: COCO's own names
_DIGITS = "0123456789"


def is_coco(dataset: Path) -> bool:
    """Whether this is a json, or a folder of splits with one each."""
    return dataset.suffix.lower() == ".json" or bool(_split_files(dataset))


def coco_class_names(file: Path) -> list[str]:
    """The category names of a COCO json, sorted by category id: place k is class id k of `read_coco`.

    Of a folder those of all its files: each may have ids of its own, or lack a class, so a class is known by its name.
    """
    names: list[str] = []
    for annotation_file, *_ in _coco_files(file):
        content = _load_coco(annotation_file)
        try:
            more = Counter(name for _, name in _coco_categories(content)) - Counter(names)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"{annotation_file} is not after COCO: {_why(error)}") from error
        names += [name for name, count in more.items() for _ in range(count)]
    return names


def read_coco(file: Path, on_bad: OnBad | None = None, *, test: bool = False) -> Iterator[DatasetImage]:
    """Every image of a COCO json, or of a folder with `train`, `valid` and, if asked for, `test` holding one each; sorted by id.

    Masks may be polygons, run lengths, or missing (then `rle` is None). The json is held in memory while it is read: it is a
    format without an order. An annotation that is not after COCO raises DatasetError, one of an image that is not listed is not
    read; with `on_bad` both are left out and told.
    """
    names = coco_class_names(file)
    files = [found for found in _coco_files(file) if test or not found[2] or found[0] == file]
    for annotation_file, split, is_test in files:
        content = _load_coco(annotation_file)
        per_image: dict[Any, list[dict[str, Any]]] = {}
        try:
            index = _coco_index(content, names)
            for annotation in content.get("annotations", []):
                image_id = annotation["image_id"] if on_bad is None else annotation.get("image_id")
                per_image.setdefault(image_id, []).append(annotation)
            images = sorted(content["images"], key=lambda image: (len(str(image["id"])), str(image["id"])))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"{annotation_file} is not after COCO: {_why(error)}") from error
        for image in images:
            annotations = per_image.get(image["id"], [])
            read = partial(_coco_image, _image_folders(annotation_file), (split, is_test), index, image)
            try:
                row = read(annotations)
            except Exception as error:  # pycocotools raises Exception itself for a polygon that is none
                if on_bad is None:
                    problem = f"{annotation_file}: image {image.get('file_name')!r} is not after COCO: {_why(error)}"
                    raise DatasetError(problem) from error
                kept = _without_bad(read, image, annotations, on_bad)
                if kept is not None:
                    yield kept
            else:
                yield row
        if on_bad is not None:
            for image_id in sorted(per_image.keys() - {image["id"] for image in images}, key=str):
                for stray in per_image[image_id]:
                    detail = f"annotation {stray.get('id')} is of an image that {annotation_file} does not list"
                    on_bad(f"image id {image_id}", "unknown image", detail)


def _why(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"


def _place(index: Mapping[Any, int], category_id: Any) -> int:
    if category_id not in index:
        raise ValueError(f"category_id {category_id} is none of the file's categories ({', '.join(map(str, index)) or 'none'})")
    return index[category_id]


def _without_bad(
    read: Callable[[list[dict[str, Any]]], DatasetImage], image: dict[str, Any], annotations: list[dict[str, Any]], on_bad: OnBad
) -> DatasetImage | None:
    """The image with those of its annotations that can be read, or None where it cannot be read itself."""
    name = str(image.get("file_name"))
    try:
        read([])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        on_bad(name, "cannot be read", f"the image's own entry is not after COCO: {_why(error)}")
        return None
    good = []
    for annotation in annotations:
        try:
            read([annotation])
        except Exception as error:  # as in read_coco
            on_bad(name, "cannot be read", f"annotation {annotation.get('id')} is not after COCO: {_why(error)}")
        else:
            good.append(annotation)
    return read(good)


def _coco_files(file: Path) -> list[tuple[Path, Split, bool]]:
    """Each json, its side, and whether it is of a test split."""
    if not file.is_dir():
        return [(file, *side_of([file.parent.name, _subset(file).rstrip(_DIGITS)]))]
    found = _split_files(file)
    if not any(not is_test for _, _, is_test in found):
        raise DatasetError(
            f"no dataset in {file}: expected a data.yaml (YOLO), train/{COCO_FILE}, valid/{COCO_FILE} or "
            f"annotations/{INSTANCES}train*.json (COCO) or the path of a json, XML files of PASCAL VOC or CVAT, or JSON files of "
            "LabelMe"
        )
    return found


def _split_files(folder: Path) -> list[tuple[Path, Split, bool]]:
    """As `_coco_files`, of a folder: as Roboflow lays it out, or as COCO itself."""
    files = [folder / split / COCO_FILE for split in ("train", "valid", "test")]
    found = [(file, *side_of([file.parent.name])) for file in files if file.is_file()]
    own = sorted((folder / "annotations").glob(f"{INSTANCES}*.json"))
    return found or [(file, *side_of([_subset(file).rstrip(_DIGITS)])) for file in own]


def _subset(file: Path) -> str:
    """`train2017` of `instances_train2017.json`; "" for a file of another name."""
    return file.stem.removeprefix(INSTANCES) if file.name.startswith(INSTANCES) else ""


def _image_folders(file: Path) -> tuple[Path, ...]:
    """Where the images of a json may lie: beside it, or where COCO and Datumaro have those of `annotations/instances_*.json`."""
    subset, root = _subset(file), file.parent.parent
    more = (root / subset, root / "images" / subset, root / "images") if subset else ()
    return (file.parent, *more)


def _load_coco(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DatasetError(f"the COCO file {file} cannot be read: {error}") from error
    except ValueError as error:
        raise DatasetError(f"{file} is not json: {error}") from error
    missing = [key for key in ("images", "categories") if not isinstance(content, dict) or key not in content]
    if missing:
        raise DatasetError(f"{file} is not a COCO dataset: {' and '.join(missing)} missing")
    return dict(content)


def _coco_categories(content: dict[str, Any]) -> list[tuple[Any, str]]:
    """(id, name) of every category, sorted by id, but the one that Roboflow puts first and that labels nothing: it only names the
    group of the others, often as the class in it is named."""
    rows = sorted(content["categories"], key=lambda category: int(category["id"]))
    groups = {row.get("supercategory") for row in rows[1:]} - {"none"}
    if rows and rows[0]["id"] == 0 and rows[0].get("supercategory") == "none" and rows[0]["name"] in groups:
        rows = rows[not any(annotation.get("category_id") == 0 for annotation in content.get("annotations", [])) :]
    return [(row["id"], str(row["name"]).strip()) for row in rows]


def _coco_index(content: dict[str, Any], names: Sequence[str]) -> dict[Any, int]:
    """The place of each category id of a file in the names of all files; twins keep their order."""
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place in reversed(range(len(names))):
        places[names[place]].append(place)
    return {category_id: places[name].pop() for category_id, name in _coco_categories(content)}


def _coco_image(
    folders: Sequence[Path],
    side: tuple[Split, bool],
    index: Mapping[Any, int],
    image: dict[str, Any],
    annotations: list[dict[str, Any]],
) -> DatasetImage:
    width, height = int(image["width"]), int(image["height"])
    xywh = np.array([annotation["bbox"] for annotation in annotations] or np.zeros((0, 4)), np.float64)
    if xywh.shape != (len(annotations), 4):
        raise ValueError("a bbox must be 4 numbers: x, y, width, height")
    masks = [
        from_coco(annotation["segmentation"], width, height) if annotation.get("segmentation") else None
        for annotation in annotations
    ]
    rle, some_rle = masks_of(masks)
    scored = any(annotation.get("score") is not None for annotation in annotations)
    scores = [1.0 if annotation.get("score") is None else float(annotation["score"]) for annotation in annotations]
    paths = [folder / str(image["file_name"]) for folder in folders]
    return DatasetImage(
        path=next((path for path in paths if path.is_file()), None),
        name=str(image["file_name"]),
        split=side[0],
        width=width,
        height=height,
        class_id=np.array([_place(index, annotation["category_id"]) for annotation in annotations], np.int32),
        xyxy=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1).astype(np.float32),
        rle=rle,
        score=np.array(scores, np.float32) if scored else None,
        crowd=np.array([bool(annotation.get("iscrowd", 0)) for annotation in annotations], np.bool_),
        some_rle=some_rle,
        test=side[1],
    )
