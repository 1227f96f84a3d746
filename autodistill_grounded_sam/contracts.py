"""What each seam promises, checked. A plugin's test is one line, and its author reads what was expected, what came, what to do.

Every check raises AssertionError at the first promise that is not kept. `testing` hands them on.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from autodistill_grounded_sam.images import dataset_stems, scan
from autodistill_grounded_sam.masks import areas, encode_mask
from autodistill_grounded_sam.painting import PainterSettings, Scene, paint_scene
from autodistill_grounded_sam.protocols import DatasetWriter, Detector, Segmenter, Tag, Tagger, Target
from autodistill_grounded_sam.types import Candidates, DatasetSummary, Float32, ImageRecord, Labels, RgbImage, State, TrainResult

TOLERANCE = 1e-4  # how far a score may move with the batch an image is in; the rounding of float32 models is below it

Answer = TypeVar("Answer")
_ARRAYS = ". Images are uint8 RGB (height, width, 3) of any size, boxes float32 xyxy in pixels, scores float32 in 0..1"


def check_detector(detector: Detector, prompts: Sequence[str] = ("red circle", "blue square", "green star")) -> None:
    """One Candidates an image, in order, with a column a prompt; finite boxes; images untouched; an answer that does not depend
    on the rest of the batch, nor on what was asked before; an empty batch gives an empty list."""
    _require_methods(detector, Detector)
    images = _sample_images()
    before = [image.copy() for image in images]
    answers = _candidates_of("detect", partial(detector.detect, images, prompts), images)
    for answer in answers:
        _check(
            answer.scores.shape[1] == len(prompts),
            f"detect must give a score for each of the {len(prompts)} prompts, got {answer.scores.shape[1]} columns: Candidates."
            "scores is (boxes, prompts), in the order of the prompts, 0 where a box is not of a prompt",
        )
    _check_untouched("detect", images, before)
    for i, image in enumerate(images):
        (alone,) = _candidates_of("detect", partial(detector.detect, [image], prompts), [image])
        _check(
            _close(alone.xyxy, answers[i].xyxy, TOLERANCE * max(image.shape)) and _close(alone.scores, answers[i].scores),
            f"detect must not depend on the batch: image {i} got another answer alone than with {len(images) - 1} others; a "
            "model that pads its batch, keeps state or draws at random does so (give each image its own size, or a fixed seed)",
        )
    _check_empty("detect", partial(detector.detect, [], prompts))


def check_segmenter(segmenter: Segmenter) -> None:
    """One Candidates an image, in order, boxes and scores as they came, with a mask of the image's size and a mask_score for
    each; images untouched; an answer that does not depend on the batch; no box, no mask."""
    _require_methods(segmenter, Segmenter)
    images = _sample_images()
    before = [image.copy() for image in images]
    found = [_sample_candidates(image, count) for image, count in zip(images, (2, 0, 3), strict=True)]
    answers = _candidates_of("segment", partial(segmenter.segment, images, found), images)
    for i, (image, given, answer) in enumerate(zip(images, found, answers, strict=True)):
        _check(
            np.array_equal(given.xyxy, answer.xyxy) and np.array_equal(given.scores, answer.scores),
            f"segment must leave boxes and scores as they came; it changed those of image {i}: build the answer with "
            "dataclasses.replace(candidates, rle=..., mask_score=...)",
        )
        _check_masks(i, image, answer)
        (alone,) = _candidates_of("segment", partial(segmenter.segment, [image], [given]), [image])
        _check(
            alone.rle == answer.rle,
            f"segment must not depend on the batch: image {i} got other masks alone; does it keep an image between calls?",
        )
    _check_untouched("segment", images, before)
    _check_empty("segment", partial(segmenter.segment, [], []))


def check_tagger(tagger: Tagger) -> None:
    """One list of tags an image, in order; names that are words, each once, with a probability; images untouched; an answer that
    does not depend on the batch; an empty batch gives an empty list."""
    _require_methods(tagger, Tagger)
    images = _sample_images()
    before = [image.copy() for image in images]
    answers = _list_of("tag", partial(tagger.tag, images), "list of Tag", images)
    for i, tags in enumerate(answers):
        _check(isinstance(tags, list), f"tag must give each image a list of Tag, got {_kind(tags)} for image {i}")
        for tag in tags:
            said = f"tag must give Tag(name, score) of protocols, got {tag!r} for image {i}"
            _check(isinstance(tag, Tag), f"{said}: build each as Tag('milk bottle', 0.8)")
            _check(isinstance(tag.name, str) and tag.name == tag.name.strip() != "", f"{said}: the name must be words, stripped")
            _check(0 <= tag.score <= 1, f"{said}: the score must be a probability in 0..1; a logit needs a sigmoid first")
        twice = sorted({tag.name for tag in tags if sum(tag.name == other.name for other in tags) > 1})
        _check(not twice, f"tag must name a thing once an image, got {', '.join(twice)} twice for image {i}: keep the best score")
    _check_untouched("tag", images, before)
    for i, image in enumerate(images):
        (alone,) = _list_of("tag", partial(tagger.tag, [image]), "list of Tag", [image])
        first, second = ({tag.name: tag.score for tag in tags} for tags in (answers[i], alone))
        same = first.keys() == second.keys() and all(abs(first[name] - second[name]) <= TOLERANCE for name in first)
        _check(same, f"tag must not depend on the batch: image {i} got other tags alone than with {len(images) - 1} others")
    _check_empty("tag", partial(tagger.tag, []))


def check_format(writer_type: Callable[..., DatasetWriter], folder: Path) -> None:
    """Built from (out, class_names, stems, notes=...); what it says it wrote is what it was given, without images that wait for
    review; other things in `out` stay; the same dataset can be written again in its place; an error leaves no dataset and is not
    swallowed. `writer_type` is the class, `folder` an empty one to work in."""
    images, labels, class_names = _labelled_images(folder / "images")
    out = folder / "out"
    (out / "run").mkdir(parents=True)
    (out / "run" / "run.json").write_text("{}", encoding="utf-8")
    before, run = _contents(folder / "images"), _contents(out / "run")
    for _ in range(2):
        summary = _written(writer_type, out, images, labels, class_names)
        _check_summary(summary, labels, class_names)
        new = sorted(path.name for path in out.iterdir() if path.name != "run")
        _check(bool(new), f"a clean exit must leave the dataset in {out}, but nothing new is there: rename what was finished")
        _check(
            _contents(out / "run") == run,
            f"what else is in the output folder must stay: {out / 'run'} is gone or changed; the run lies beside the dataset, so "
            "replace your own files in `out`, not `out` itself",
        )
    _check(_contents(folder / "images") == before, f"a format must not change the images in {folder / 'images'}: copy them")
    broken = folder / "broken"
    try:
        with _writer(writer_type, broken, images, class_names) as writer:
            writer.write(images[0], labels[0], "train")
            raise KeyboardInterrupt  # as a person would
    except KeyboardInterrupt:
        left = sorted(path.name for path in broken.iterdir()) if broken.exists() else []
        _check(
            not left,
            f"an error in the with-block must leave nothing behind, got {', '.join(left)} in {broken}: write elsewhere, rename "
            "at the clean exit, and take away what is part-made",
        )
    else:
        raise AssertionError("__exit__ must let an error through: it returned something true, which swallows it; return None")


def check_target(target: Target, folder: Path) -> None:
    """Learns from a tiny YOLO dataset for one epoch on the CPU, called as `grounded-sam distill` calls it; gives a TrainResult
    whose weights are there; the dataset stays as it was. `folder` is an empty one to work in."""
    from autodistill_grounded_sam.export.yolo import YoloSegWriter

    _require_methods(target, Target)
    images, labels, class_names = _labelled_images(folder / "images")
    dataset, out = folder / "dataset", folder / "student"
    _written(YoloSegWriter, dataset, images, labels, class_names)
    before = _contents(dataset)
    settings: dict[str, Any] = {"out": out, "epochs": 1, "imgsz": 64, "batch": 2, "device": "cpu", "seed": 0, "on_epoch": None}
    called = f"train(dataset, {', '.join(f'{name}=...' for name in settings)})"
    result = _ask(called, partial(target.train, dataset, **settings))
    _check(isinstance(result, TrainResult), f"train must return a TrainResult, got {_kind(result)}")
    _check(
        isinstance(result.weights, Path) and result.weights.is_file(),
        f"train must name the file of the trained weights, got {result.weights!r}, and it is not there: save them below out=",
    )
    inside = result.weights.resolve().is_relative_to(out.resolve())
    _check(inside, f"train must save its weights below out={out}, got {result.weights}: other runs would overwrite them")
    for name, value in ("started_from", result.started_from), ("command", result.command):
        _check(bool(value) and isinstance(value, str), f"TrainResult.{name} must say so in words, got {value!r}")
    wrong = {name: value for name, value in result.figures.items() if not isinstance(value, (int, float)) or math.isinf(value)}
    _check(not wrong, f"TrainResult.figures must be finite numbers (nan where one cannot be), got {wrong}")
    changed = sorted(name for name, content in before.items() if _contents(dataset).get(name) != content)
    _check(not changed, f"train must not change the dataset, but {', '.join(changed[:3])} changed: work on a copy below out=")


def _require_methods(thing: object, seam: type) -> None:
    """All methods that are missing, with their signatures, before one is called."""
    if isinstance(thing, type):
        raise AssertionError(
            f"expected an instance, got the class {thing.__name__}: give {thing.__name__}(); it is built like that"
        )
    lacking = [name for name in vars(seam) if not name.startswith("_") and not callable(getattr(thing, name, None))]
    wanted = " and ".join(_form(name, getattr(seam, name)) for name in lacking)
    has = ", ".join(name for name in dir(thing) if not name.startswith("_") and callable(getattr(thing, name))) or "none"
    _check(
        not lacking,
        f"a {seam.__name__} must have {wanted}; {type(thing).__name__} has not (its methods: {has})",
    )


def _form(name: str, method: Callable[..., Any]) -> str:
    signature = inspect.signature(method)
    called = signature.replace(parameters=list(signature.parameters.values())[1:])  # without self
    return f"{name}{called}".replace("'", "")


def _candidates_of(method: str, call: Callable[[], object], images: Sequence[RgbImage]) -> list[Candidates]:
    answers = _list_of(method, call, "Candidates", images)
    for answer in answers:
        _check(isinstance(answer, Candidates), f"{method} must return Candidates, got {_kind(answer)}: see types.Candidates")
    return answers


def _list_of(method: str, call: Callable[[], object], of: str, images: Sequence[RgbImage]) -> list[Any]:
    answers = _ask(f"{method} of {len(images)} images", call, _ARRAYS)
    if not isinstance(answers, list):
        raise AssertionError(f"{method} must return a list, got {_kind(answers)}")
    _check(
        len(answers) == len(images),
        f"{method} must return one {of} an image, in order: expected {len(images)}, got {len(answers)}; an image in which "
        "nothing is found has an empty answer, and is not left out",
    )
    return answers


def _ask(what: str, call: Callable[[], Answer], hint: str = "") -> Answer:
    """What the plugin answers. Whatever it raises is a complaint of ours that says what it was asked."""
    try:
        return call()
    except Exception as error:
        raised = f"{type(error).__name__}: {error}"
        raise AssertionError(f"{what} must work, but raised {raised}; the traceback above says where{hint}") from error


def _check_empty(method: str, call: Callable[[], object]) -> None:
    answer = _ask(f"{method} of no images", call)
    _check(answer == [], f"{method} must give an empty list for an empty batch, got {answer!r}")


def _check_masks(i: int, image: RgbImage, answer: Candidates) -> None:
    if answer.rle is None or answer.mask_score is None:
        raise AssertionError(
            f"segment must fill rle and mask_score, also where there are no boxes; image {i} has none: give () and an empty "
            "float32 array there, and 1 where a mask is not rated"
        )
    size = [image.shape[0], image.shape[1]]
    for code in answer.rle:
        _check(
            list(code["size"]) == size,
            f"a mask must be of the image's size {size} (height, width), got {code['size']}: resize them to it",
        )
        _check(
            isinstance(code["counts"], str),
            f"the counts of a mask must be str, got {_kind(code['counts'])}: masks.encode_mask gives them, or decode('ascii')",
        )
    _ask(f"run-length codes of image {i}", partial(areas, answer.rle))
    low, high = answer.mask_score.min(initial=0), answer.mask_score.max(initial=0)
    _check(
        low >= 0 and high <= 1, f"mask_score is an estimate of the mask's IoU and must be in 0..1, got {low} to {high}: clip it"
    )


def _writer(
    writer_type: Callable[..., DatasetWriter], out: Path, images: Sequence[ImageRecord], class_names: Sequence[str]
) -> DatasetWriter:
    stems = dataset_stems([image.id for image in images])
    writer = _ask("Writer(out, class_names, stems, notes=[])", partial(writer_type, out, class_names, stems, notes=[]))
    _require_methods(writer, DatasetWriter)
    with_block = hasattr(type(writer), "__enter__") and hasattr(type(writer), "__exit__")
    _check(with_block, f"a format is used in a with-block; {type(writer).__name__} must have __enter__ and __exit__")
    return writer


def _written(
    writer_type: Callable[..., DatasetWriter],
    out: Path,
    images: Sequence[ImageRecord],
    labels: Sequence[Labels],
    class_names: Sequence[str],
) -> DatasetSummary:
    """The summary of a whole dataset, written as a run is: the second image is the validation split."""
    with _writer(writer_type, out, images, class_names) as writer:
        for i, (image, found) in enumerate(zip(images, labels, strict=True)):
            _ask(
                f"write of image {i}, {found.state.value} with {len(found)} labels,",
                partial(writer.write, image, found, "valid" if i == 1 else "train"),
            )
        summary = _ask("finish()", writer.finish)
    _check(isinstance(summary, DatasetSummary), f"finish must return a DatasetSummary, got {_kind(summary)}")
    return summary


def _check_summary(summary: DatasetSummary, labels: Sequence[Labels], class_names: Sequence[str]) -> None:
    written = [found for found in labels if found.state in (State.LABELLED, State.EMPTY)]
    ids = [class_id for found in written for class_id in found.class_id.tolist()]
    expected: Mapping[str, Any] = {
        "images": {"train": len(written) - 1, "valid": 1},
        "empty": sum(found.state is State.EMPTY for found in written),
        "labels": len(ids),
        "per_class": {name: ids.count(place) for place, name in enumerate(class_names)},
    }
    for name, value in expected.items():
        got = getattr(summary, name)
        _check(
            got == value,
            f"DatasetSummary.{name} must be {value}, got {got}; images that failed or wait for review (labels.state) are not "
            "written, images without labels are",
        )


def _labelled_images(folder: Path) -> tuple[list[ImageRecord], list[Labels], tuple[str, ...]]:
    """Four painted images on disk: two with labels, one without any, and one whose labels wait for review."""
    from PIL import Image

    folder.mkdir(parents=True)
    scenes = [paint_scene(PainterSettings(width=96, height=64, objects=(2, 3)), seed) for seed in range(4)]
    for number, scene in enumerate(scenes):
        Image.fromarray(scene.image_rgb).save(folder / f"scene_{number}.png")
    names = tuple(sorted({item.name for scene in scenes for item in scene.objects}))
    labels = [_true_labels(scene, names, State.REVIEW if place == 3 else State.LABELLED) for place, scene in enumerate(scenes)]
    labels[2] = Labels.nothing()
    return list(scan(folder).images), labels, names


def _true_labels(scene: Scene, names: Sequence[str], state: State) -> Labels:
    n = len(scene.objects)
    return Labels(
        state,
        np.array([names.index(item.name) for item in scene.objects], np.int32),
        np.linspace(0.9, 0.5, n, dtype=np.float32),
        np.full(n, 0.25, np.float32),
        np.array([item.xyxy for item in scene.objects], np.float32),
        np.arange(n, dtype=np.int32),
        tuple(encode_mask(item.mask) for item in scene.objects),
    )


def _contents(folder: Path) -> dict[str, str]:
    """Every file below a folder with the digest of its bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _sample_images() -> list[RgbImage]:
    sizes = ((96, 64), (64, 80), (96, 64))
    return [
        paint_scene(PainterSettings(width=width, height=height, objects=(2, 4)), seed).image_rgb
        for seed, (width, height) in enumerate(sizes)
    ]


def _sample_candidates(image_rgb: RgbImage, count: int) -> Candidates:
    height, width = image_rgb.shape[:2]
    rng = np.random.default_rng(count)
    corner, size = rng.uniform(0, 0.5, (count, 2)), rng.uniform(0.2, 0.5, (count, 2))
    xyxy = np.concatenate([corner, corner + size], axis=1) * [width, height, width, height]
    return Candidates(xyxy.astype(np.float32), rng.uniform(0, 1, (count, 3)).astype(np.float32))


def _check_untouched(method: str, images: Sequence[RgbImage], before: Sequence[RgbImage]) -> None:
    same = all(np.array_equal(image, copy) for image, copy in zip(images, before, strict=True))
    _check(
        same, f"{method} must not write into the images it is given, and it did: others read them too, so work on image.copy()"
    )


def _check(holds: bool, complaint: str) -> None:
    if not holds:
        raise AssertionError(complaint)


def _kind(thing: object) -> str:
    return type(thing).__name__


def _close(first: Float32, second: Float32, tolerance: float = TOLERANCE) -> bool:
    return first.shape == second.shape and bool(np.allclose(first, second, rtol=0, atol=tolerance))
