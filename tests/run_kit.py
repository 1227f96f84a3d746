"""What tests of whole runs share: instant models, and the files of a dataset."""

from __future__ import annotations

import hashlib
from pathlib import Path

ONTOLOGY = {"red circle": "circle", "red ring": "circle", "blue square": "square", "green star": "star"}
FAKE = {
    "detector": "autodistill_grounded_sam.testing:FakeDetector",
    "segmenter": "autodistill_grounded_sam.testing:FakeSegmenter",
}


def files(folder: Path) -> dict[str, str]:
    """Every file of a dataset with its digest; the run folder and the report, which hold times, are left out."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] not in ("run", "report.html")
    }
