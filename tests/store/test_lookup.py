"""Any image by its number is the image that comes at that place when all are read."""

from __future__ import annotations

from pathlib import Path

from autodistill_grounded_sam import pipeline
from autodistill_grounded_sam.store.lookup import Lookup
from autodistill_grounded_sam.store.store import Store
from autodistill_grounded_sam.testing import paint_folder
from tests.review.review_kit import CONFIG, ONTOLOGY


def test_it_is_the_image_at_that_place_after_the_folder_changed(tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    paint_folder(images, 9)
    (images / "broken.png").write_bytes(b"no picture")
    config = CONFIG.model_copy(update={"run": CONFIG.run.model_copy(update={"part_images": 4})})
    pipeline.label(images, ONTOLOGY, out, config)
    (images / "scene_0003.png").unlink()
    paint_folder(tmp_path / "more", 2, seed=50)
    for path in (tmp_path / "more").iterdir():
        path.rename(images / f"a_{path.name}")
    pipeline.label(images, ONTOLOGY, out, config)
    store = Store(out)
    seen = [sighting for sighting in store.sightings() if sighting.candidates is not None]
    lookup = Lookup(store, tmp_path / "moved")
    assert len(lookup) == len(seen) == 10
    for number in (7, 0, 9, 4, 1):
        found, wanted = lookup[number], seen[number]
        assert (found.image.id, found.image.digest) == (wanted.image.id, wanted.image.digest)
        assert lookup.digests[number] == wanted.image.digest
        assert found.image.path == tmp_path / "moved" / found.image.id
        assert found.candidates is not None and wanted.candidates is not None
        assert found.candidates.rle == wanted.candidates.rle
        assert (found.candidates.scores == wanted.candidates.scores).all()
