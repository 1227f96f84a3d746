"""From labels to a finished dataset folder: the formats by name, and the loop that writes one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autodistill_grounded_sam.errors import ConfigError
from autodistill_grounded_sam.export.coco import CocoWriter
from autodistill_grounded_sam.export.cvat import CvatWriter
from autodistill_grounded_sam.export.label_studio import LabelStudioWriter
from autodistill_grounded_sam.export.labelme import LabelmeWriter
from autodistill_grounded_sam.export.painted_masks import PanopticWriter, PngMasksWriter
from autodistill_grounded_sam.export.replacing import disk_errors, require_folder, require_ours, take_away
from autodistill_grounded_sam.export.shards import HuggingFaceWriter, WebDatasetWriter
from autodistill_grounded_sam.export.voc import VocWriter
from autodistill_grounded_sam.export.writing import FolderWriter
from autodistill_grounded_sam.export.yolo import YoloBoxWriter, YoloSegWriter, YoloWriter
from autodistill_grounded_sam.export.yolo_obb import YoloObbWriter
from autodistill_grounded_sam.protocols import DatasetWriter
from autodistill_grounded_sam.types import DatasetSummary, ImageRecord, Labels, Split

_WRITERS = (
    YoloSegWriter, YoloBoxWriter, YoloObbWriter, CocoWriter, PanopticWriter, PngMasksWriter, VocWriter, LabelmeWriter, CvatWriter,
    LabelStudioWriter, HuggingFaceWriter, WebDatasetWriter,
)  # fmt: skip
FORMATS: Mapping[str, type[FolderWriter]] = {writer.name: writer for writer in _WRITERS}


def check_place(writer_type: str | Callable[..., DatasetWriter], out: Path, *, has_masks: bool) -> None:
    """Raise now what a writer would refuse at its start, so that nobody labels for hours in vain. Makes nothing.

    ConfigError for a format that needs masks where the run has none, or an unknown one; ExportError for a place that cannot be
    written or holds what would be lost: foreign entries, labels changed by hand, a dataset of another format. Writers of plugins
    that are no FolderWriter have rules of their own, and are not looked at.
    """
    writer_type = _writer_type(writer_type)
    if not (isinstance(writer_type, type) and issubclass(writer_type, FolderWriter)):
        return
    if writer_type.needs_masks and not has_masks:
        raise ConfigError(f"format {writer_type.name} needs masks, but this run is made without: use --format yolo")
    with disk_errors(out):
        require_folder(out)
        require_ours(out, writer_type.name, writer_type.entries)


def export_dataset(
    rows: Iterable[tuple[ImageRecord, Labels]],
    class_names: Sequence[str],
    writer_type: str | Callable[..., DatasetWriter],
    out: Path,
    *,
    split: Callable[[ImageRecord], Split],
    stems: Mapping[str, str],
    notes: Sequence[str] = (),
    confidence_files: bool = False,
) -> DatasetSummary:
    """Write the labelled images into the folder `out` and say what was read back from it.

    `writer_type` is a name of FORMATS or anything that builds a DatasetWriter from (out, class_names, stems, notes=...). `stems`
    gives the file stem of every image id, `split` its side. `confidence_files` writes the scores beside the labels of the YOLO
    formats, which have no place for them (see `YoloWriter`), and changes nothing in others. Rows are taken one at a time. Raises
    ExportError and leaves `out` as it was.
    """
    writer_type = _writer_type(writer_type)
    takes_scores = isinstance(writer_type, type) and issubclass(writer_type, YoloWriter)
    more: dict[str, Any] = {"confidence_files": True} if confidence_files and takes_scores else {}
    with writer_type(out, class_names, stems, notes=notes, **more) as writer:
        for image, labels in rows:
            writer.write(image, labels, split(image))
        return writer.finish()


def take_dataset_away(writer_type: Callable[..., DatasetWriter], out: Path) -> None:
    """Remove what this writer wrote into `out` before; raises ExportError where that was changed by hand. Writers of plugins that
    are no FolderWriter leave nothing that is known to be theirs."""
    if isinstance(writer_type, type) and issubclass(writer_type, FolderWriter):
        with disk_errors(out):
            take_away(out, writer_type.name, writer_type.entries)


def _writer_type(writer_type: str | Callable[..., DatasetWriter]) -> Callable[..., DatasetWriter]:
    if not isinstance(writer_type, str):
        return writer_type
    if writer_type not in FORMATS:
        raise ConfigError(f"unknown format {writer_type!r}; known are {', '.join(FORMATS)}")
    return FORMATS[writer_type]
