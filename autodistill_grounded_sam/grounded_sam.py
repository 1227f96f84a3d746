"""THE DOOR: `GroundedSAM`, a base model of autodistill; and `YOLOv8`, a target model of autodistill.

The only file that imports autodistill's bases. Behind it is `pipeline`; here are only autodistill's names and habits.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import supervision as sv
from autodistill.detection import CaptionOntology, DetectionBaseModel, DetectionTargetModel
from autodistill.detection.detection_base_model import NmsSetting

from autodistill_grounded_sam import cli_output, pipeline
from autodistill_grounded_sam.config import Config, DecideConfig, LabelConfig, checked
from autodistill_grounded_sam.datasets import read_yolo_image, yolo_class_names, yolo_image_paths
from autodistill_grounded_sam.engine.worker import SeeWorker
from autodistill_grounded_sam.errors import ConfigError
from autodistill_grounded_sam.image_modes import from_bgr
from autodistill_grounded_sam.images import read_image, read_pil
from autodistill_grounded_sam.masks import decode_mask
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.types import DatasetImage, RgbImage

logger = logging.getLogger(__name__)

_THRESHOLDS = (0.35, 0.25)  # of the published plugin's signature


class GroundedSAM(DetectionBaseModel):  # type: ignore[misc]
    """Grounding DINO and SAM as an autodistill base model: `GroundedSAM(CaptionOntology({...})).label("./images")`.

    `ontology` is autodistill's CaptionOntology or anything `Ontology.load` takes. `box_threshold` is the score that a label
    must reach, and so must it `text_threshold` (in the published plugin a box whose words stayed below it got no name).
    `detector` and `segmenter` are a built-in name (`mini` runs anywhere), a hub id, a path, or `pkg.module:Class`; the
    defaults are the weights of the published plugin. `config` sets everything else; what is given beside it comes first, and its
    thresholds count where the two are left at 0.35 and 0.25. Models are loaded when they are first used.
    """

    def __init__(
        self,
        ontology: Any,
        box_threshold: float = 0.35,
        text_threshold: float = 0.25,
        *,
        detector: str | None = None,
        segmenter: str | None = None,
        device: str | None = None,
        batch_size: int | str | None = None,
        offline: bool | None = None,
        config: LabelConfig | None = None,
    ) -> None:
        self.ontology = _readable(ontology)  # a wrong one is refused here, not after the weights are loaded
        base = config or LabelConfig()
        see = {"detector": detector, "segmenter": segmenter}
        run = {"device": device, "batch_size": batch_size, "offline": offline}
        self.config = base.model_copy(update={"see": _overlaid(base.see, see), "run": _overlaid(base.run, run)})
        untouched = config is not None and (box_threshold, text_threshold) == _THRESHOLDS
        self.box_threshold = base.decide.box_threshold if untouched else box_threshold
        self.text_threshold = base.decide.text_threshold if untouched else text_threshold
        self._decide_config()  # a wrong threshold is refused here
        self._worker: SeeWorker | None = None
        self._asked: tuple[str, ...] = ()

    __hash__ = object.__hash__  # autodistill's dataclass base takes it away
    __eq__ = object.__eq__

    def predict(self, input: Any) -> sv.Detections:  # noqa: A002 - autodistill's name
        """Detections with masks in one image: a path, a PIL image, or an array (h, w, 3) in **BGR**, as autodistill hands it.

        `class_id` indexes the unique classes of the ontology in the user's order; `data["class_name"]` names them.
        """
        image, ontology = _pixels(input), _words(self.ontology)
        labels = pipeline.look_at_one(image, self._loaded(ontology), ontology, self._decide_config())
        return _detections(labels.xyxy, labels.rle, labels.class_id, labels.score, ontology.class_names, image.shape[:2])

    def label(
        self,
        input_folder: str,
        extension: str | None = None,
        output_folder: str | None = None,
        human_in_the_loop: bool = False,
        roboflow_project: str | None = None,
        roboflow_tags: list[str] = ["autodistill"],  # noqa: B006 - autodistill's signature; never changed here
        sahi: bool = False,
        record_confidence: bool = False,
        nms_settings: NmsSetting = NmsSetting.NONE,
    ) -> sv.DetectionDataset:
        """Label a folder into `output_folder` (`<input_folder>_labeled`), in autodistill's layout, and return the dataset.

        `extension` keeps only files of that suffix, in any case of letters; left out, every image is taken, from sub-folders
        as well. `sahi` looks at overlapping tiles beside the whole picture. Duplicates of a class are always removed;
        `NmsSetting.CLASS_AGNOSTIC` lets all classes exclude one another. `record_confidence` writes `confidence-<name>.txt`
        beside the labels, a score a row. `human_in_the_loop` uploads the labels to Roboflow as predictions for review.
        Run again after an interruption, it goes on where it was.
        """
        ontology = _words(self.ontology)
        if NmsSetting(nms_settings) is NmsSetting.CLASS_AGNOSTIC:
            ontology = replace(ontology, exclusive=(ontology.class_names,))
        config = self.config.model_copy(
            update={
                "see": self.config.see.model_copy(update={"tiles": "all"} if sahi else {}),
                "decide": self._decide_config(),
                "export": self.config.export.model_copy(update={"confidence_files": record_confidence}),
            }
        )
        self._worker = None  # its models need not stay in memory beside those of the run
        with cli_output.progress(quiet=False) as bar:
            summary = pipeline.label(input_folder, ontology, output_folder, config, extension=extension, progress=bar)
        if summary.failed:
            logger.warning("set aside %d of the images: %s says why", len(summary.failed), summary.run / "failed.jsonl")
        if human_in_the_loop:
            from autodistill_grounded_sam.upload.roboflow_upload import upload_dataset

            project = roboflow_project or Path(input_folder).resolve().name
            upload_dataset(summary.out, project, tags=roboflow_tags, ledger=summary.run / "roboflow.jsonl")
        logger.info("labelled %s: %s", summary.out, dict(summary.images))
        return LazyDetectionDataset(summary.out)

    def _decide_config(self) -> DecideConfig:
        """The thresholds as they stand now: people set `model.box_threshold` between calls."""
        return _thresholds(self.config.decide, self.box_threshold, self.text_threshold)

    def _loaded(self, ontology: Ontology) -> SeeWorker:
        """The worker for these prompts; models are loaded anew only when the prompts change."""
        if self._worker is None or self._asked != ontology.prompts:
            self._worker, self._asked = pipeline.build_worker(self.config, ontology), ontology.prompts
        return self._worker


class _Captions(CaptionOntology):  # type: ignore[misc]
    """An ontology as code written for autodistill reads it, with every class once, so that `classes()[class_id]` is its name."""

    def __init__(self, words: Ontology) -> None:
        self.words = words
        owners = zip(words.prompts, words.prompt_class.tolist(), strict=True)
        self.promptMap = [(prompt, words.class_names[class_id]) for prompt, class_id in owners if class_id >= 0]

    def classes(self) -> list[str]:
        return list(self.words.class_names)


def _readable(ontology: Any) -> Any:
    """The user's own CaptionOntology where its classes are in order, else the same words as `_Captions`."""
    words = Ontology.load(ontology)
    if isinstance(ontology, CaptionOntology) and list(words.class_names) == ontology.classes():
        return ontology
    return _Captions(words)


def _words(ontology: Any) -> Ontology:
    return ontology.words if isinstance(ontology, _Captions) else Ontology.load(ontology)


class LazyDetectionDataset(sv.DetectionDataset):  # type: ignore[misc]
    """The labelled dataset as supervision knows it, read from disk image by image: masks are decoded when they are asked for.

    supervision's own constructor copies every annotation into memory.
    """

    def __init__(self, dataset: Path) -> None:
        self.classes = yolo_class_names(dataset)
        self.image_paths = [str(path) for path, _ in yolo_image_paths(dataset)]
        self.annotations = _LazyAnnotations(self.image_paths, self.classes)
        self._images_in_memory: dict[str, Any] = {}


class _LazyAnnotations(Mapping[str, sv.Detections]):
    def __init__(self, image_paths: list[str], classes: list[str]) -> None:
        self._paths = dict.fromkeys(image_paths)
        self._classes = classes

    def __getitem__(self, image_path: str) -> sv.Detections:
        if image_path not in self._paths:
            raise KeyError(image_path)
        row: DatasetImage = read_yolo_image(Path(image_path), "train", len(self._classes))
        return _detections(row.xyxy, row.rle, row.class_id, row.score, self._classes, (row.height, row.width))

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


class YOLOv8(DetectionTargetModel):  # type: ignore[misc]
    """A student of ultralytics (any name: yolov8n-seg.pt, yolo11n.pt, yolo26n-seg.yaml, ...) as an autodistill target model.

    A `.pt` name starts from pretrained weights where they can be had, else from random ones with a warning.
    """

    def __init__(self, model: str = "yolov8n-seg.pt", *, offline: bool | None = None) -> None:
        from autodistill_grounded_sam.distill.ultralytics_target import UltralyticsTarget

        self._target = UltralyticsTarget(model, offline=offline)
        self._student: Any = None
        self._weights: Path | str = model
        self._offline = offline

    def train(self, dataset_yaml: str | Path, epochs: int = 200, device: str = "auto", **settings: Any) -> Any:
        """Train on `dataset_yaml`; weights go to `<its folder>/runs/<model>/best.pt` or to `out=`. Returns a TrainResult."""
        stem = Path(self._target.model).stem
        out = Path(settings.pop("out", Path(dataset_yaml).resolve().parent / "runs" / stem))
        result = self._target.train(Path(dataset_yaml), out=out, epochs=epochs, device=device, **settings)
        self._weights, self._student = result.weights, None
        return result

    def predict(self, input: Any, confidence: float = 0.5) -> sv.Detections:  # noqa: A002 - autodistill's name
        """Detections in one image: a path, a PIL image, or an array in BGR. After `train`, by what was trained."""
        from autodistill_grounded_sam.distill.ultralytics_target import UltralyticsStudent

        if self._student is None:
            self._student = UltralyticsStudent(self._weights, offline=self._offline)
        seen = self._student.predict(_pixels(input), confidence=confidence)
        class_id = np.array([self._student.classes.index(name) for name in seen.class_names], np.int32)
        rle = None if seen.rles is None else tuple(seen.rles)
        return _detections(seen.xyxy, rle, class_id, seen.scores, self._student.classes, (seen.height, seen.width))


def _pixels(image: Any) -> RgbImage:
    if isinstance(image, str | Path):
        return read_image(Path(image))
    if isinstance(image, np.ndarray):
        return from_bgr(image)
    from PIL import Image

    if isinstance(image, Image.Image):
        return read_pil(image)
    raise ConfigError(f"an image must be a path, a BGR array or a PIL image, got {type(image).__name__}")


def _detections(xyxy: Any, rle: Any, class_id: Any, score: Any, names: Any, size: tuple[int, int]) -> sv.Detections:
    masks = None
    if rle is not None:
        masks = np.zeros((len(rle), *size), np.bool_)  # row-major, as supervision's OpenCV calls want it
        for place, code in enumerate(rle):
            masks[place] = decode_mask(code)
    class_name = np.array(names, dtype=np.str_)[class_id]
    ids = np.asarray(class_id, np.int64)
    return sv.Detections(xyxy=xyxy, mask=masks, confidence=score, class_id=ids, data={"class_name": class_name})


def _overlaid(base: Config, given: Mapping[str, Any]) -> Config:
    """The settings with those that were given (not None) in their place."""
    return checked(type(base), {**dict(base), **{name: value for name, value in given.items() if value is not None}})


def _thresholds(base: DecideConfig, box_threshold: float, text_threshold: float) -> DecideConfig:
    return checked(DecideConfig, {**dict(base), "box_threshold": float(box_threshold), "text_threshold": float(text_threshold)})
