"""Settings: frozen, typed, unknown keys refused with one line an error."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autodistill_grounded_sam.errors import ConfigError

Config = TypeVar("Config", bound="_Config")
# Which mask a SAM gives to a box: its single answer, of its three guesses the one that it rates best (SAM-HQ adds its own mask to
# either), or SAM-HQ's own mask alone.
MaskGuess = Literal["single", "best-of-three", "hq-only"]

NEVER = 2.0  # a limit that no overlap reaches, for labels that are not to be merged: those of people


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SeeConfig(_Config):
    """What the costly half depends on: models, images, candidates. A store belongs to one of these."""

    detector: str = "IDEA-Research/grounding-dino-tiny"
    segmenter: str = "facebook/sam-vit-huge"
    masks: Literal["all", "kept", "none"] = "all"
    mask_guess: MaskGuess = "single"
    span_score: Literal["mean", "max", "gate"] = "gate"  # one score of a prompt's tokens; docs/scores.md says why this one
    floor: float = Field(0.10, ge=0, le=1)  # candidates below it are not stored
    max_candidates: int = Field(100, ge=1)  # an image; as SegInW's protocol keeps
    shorter_side_px: int | None = Field(None, ge=16)  # of the detector's input; None: as the model was trained
    longer_side_px: int | None = Field(None, ge=16)
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"  # of matrix products; lower is faster where supported
    tiles: Literal["none", "auto", "all"] = "none"  # which large images are looked at tile by tile as well (docs/tiles.md)
    tile_px: int | None = Field(None, ge=32)  # side of a tile; None: what the detector's input holds, enlarged by a quarter
    views: tuple[Literal["flip", "scale"], ...] = ()  # the detector also sees the image mirrored, smaller (docs/detectors.md)
    max_megapixels: int = Field(200, ge=1)  # larger images are set aside; Pillow's own bomb limit is 179


class RunConfig(_Config):
    """How the costly half is run; none of it changes a result by more than rounding."""

    device: str = "auto"
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    offline: bool = False
    engine: Literal["local", "ray"] = "local"
    workers: Annotated[int, Field(ge=1)] | None = None  # of the ray engine; None: one a GPU, or one a core where there is none
    gpus_per_worker: Annotated[float, Field(ge=0)] | None = None  # None: 1 where the cluster has GPUs; 0.5 puts two on one
    part_images: int = Field(512, ge=1)  # a part of the store is closed after so many images ...
    part_seconds: float = Field(30.0, gt=0)  # ... or so many seconds, whichever comes first: a killed run loses no more
    report: bool = True  # write report.html beside the dataset


class DecideConfig(_Config):
    """The cheap half: from candidates to labels. Class settings of the ontology come first, these are the defaults."""

    box_threshold: float = Field(0.35, ge=0, le=1)
    text_threshold: float = Field(0.25, ge=0, le=1)
    min_margin: float = Field(0.0, ge=0, le=1)
    duplicate_iou: float = Field(0.7, ge=0, le=NEVER)  # of masks (boxes where a run has no masks)
    duplicate_containment: float = Field(0.85, ge=0, le=NEVER)  # intersection over the smaller
    herd_members: int = Field(3, ge=2)  # a box around so many kept ones of its class is a herd
    island_fraction: float = Field(0.02, ge=0, le=1)  # mask parts smaller than this share of the largest go
    hole_fraction: float = Field(0.005, ge=0, le=1)  # holes smaller than this share of the mask are filled
    box_from: Literal["detector", "mask"] = "mask"
    trust: float = Field(0.0, ge=0, le=1)  # an image with a label less likely right than this waits for review; needs `quality`


class ExportConfig(_Config):
    """Formats and the split."""

    formats: tuple[str, ...] = ("yolo-seg",)
    valid: float = Field(0.2, ge=0, lt=1)
    seed: int = 0
    confidence_files: bool = False  # autodistill's `record_confidence`: a file of scores beside each label file of YOLO formats
    group_by: Literal["auto", "none"] = "auto"  # auto: near-duplicates and frames of one sequence stay on one side


class DiscoverConfig(_Config):
    """Which images are looked at to find out what is in a folder, by which tagger, and how much becomes a class."""

    tagger: str = "ram-plus"
    words: tuple[str, ...] | None = None  # that a detector as tagger is asked for
    sample: int = Field(200, ge=1)  # images looked at, evenly over the folder, near-duplicates aside
    min_images: int = Field(3, ge=1)  # of the sample, that a class must be in
    max_classes: int = Field(30, ge=1)  # with their other words they still fit few captions of 256 tokens


class LabelConfig(_Config):
    """Everything `label` needs beside images, ontology and output folder."""

    see: SeeConfig = SeeConfig()
    run: RunConfig = RunConfig()
    decide: DecideConfig = DecideConfig()
    export: ExportConfig = ExportConfig()


def checked(model: type[Config], settings: dict[str, Any]) -> Config:
    """Build a config; every wrong or unknown key is one line of one ConfigError."""
    try:
        return model(**settings)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(str(part) for part in item['loc'])}: {item['msg']}, got {item['input']!r}" for item in error.errors()
        ]
        known = ", ".join(model.model_fields)
        wrong = "1 wrong setting" if len(lines) == 1 else f"{len(lines)} wrong settings"
        raise ConfigError(f"{wrong} for {model.__name__} (known: {known}):\n" + "\n".join(lines)) from error
