"""All the tests that a plugin needs to keep the contracts of its seams."""

from __future__ import annotations

from pathlib import Path

from sample_plugin import ColourDetector, ColourSegmenter, CsvWriter

from autodistill_grounded_sam.testing import check_detector, check_format, check_segmenter


def test_detector() -> None:
    check_detector(ColourDetector())


def test_segmenter() -> None:
    check_segmenter(ColourSegmenter())


def test_format(tmp_path: Path) -> None:
    check_format(CsvWriter, tmp_path)
