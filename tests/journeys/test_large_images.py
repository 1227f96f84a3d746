"""A picture of 100 megapixels through the whole line: its labels are right, and it takes a small multiple of its pixels."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodistill_grounded_sam.masks import encode_mask, mask_iou
from autodistill_grounded_sam.painting import PainterSettings, paint_scene

TIMES = 40
SETTINGS = PainterSettings(300, 210, objects=(3, 3), size=(0.25, 0.4), clutter=(0, 0), backgrounds=("plain",))
SEED = 12  # a purple square, a green star and a blue ring, apart from each other and clear of the picture's edges
PIXELS_MB = TIMES**2 * SETTINGS.width * SETTINGS.height * 3 / 2**20

# Both run in processes of their own: the memory of one is not to be counted for the other.
ENLARGE = """
import sys
import numpy as np
from PIL import Image
small = Image.fromarray(np.load(sys.argv[1]))
small.resize((int(sys.argv[3]), int(sys.argv[4])), Image.Resampling.BICUBIC).save(sys.argv[2], quality=90)
"""
LABEL = """
import json, resource, sys
from autodistill_grounded_sam.config import ExportConfig, LabelConfig, RunConfig, SeeConfig
from autodistill_grounded_sam.pipeline import label
config = LabelConfig(
    see=SeeConfig(detector="mini", segmenter="mini"),
    run=RunConfig(device="cpu", offline=True),
    export=ExportConfig(formats=("yolo-seg", "coco"), valid=0.0),
)
summary = label(sys.argv[1], json.loads(sys.argv[3]), sys.argv[2], config)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
ious = [dataset.lowest_iou for dataset in summary.datasets]
print(json.dumps({"peak_mb": peak, "per_class": summary.per_class, "failed": len(summary.failed), "lowest_iou": ious}))
"""


def label(images: Path, out: Path, names: list[str]) -> Any:
    words = json.dumps({name: name for name in names})
    done = subprocess.run(
        [sys.executable, "-c", LABEL, str(images), str(out), words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def coco_masks(dataset: Path) -> dict[str, Any]:
    """The run-length code of each class's one label."""
    content = json.loads((dataset / "coco" / "train" / "_annotations.coco.json").read_text("utf-8"))
    names = {category["id"]: category["name"] for category in content["categories"]}
    return {names[annotation["category_id"]]: annotation["segmentation"] for annotation in content["annotations"]}


@pytest.mark.slow
def test_a_picture_of_100_megapixels(tmp_path: Path) -> None:
    scene = paint_scene(SETTINGS, SEED)
    names = [shape.name for shape in scene.objects]
    np.save(tmp_path / "scene.npy", scene.image_rgb)
    peaks_mb = {}
    for times in (1, TIMES):
        images, out = tmp_path / f"times_{times}", tmp_path / f"times_{times}_labeled"
        images.mkdir()
        size = [str(times * SETTINGS.width), str(times * SETTINGS.height)]
        subprocess.run([sys.executable, "-c", ENLARGE, str(tmp_path / "scene.npy"), str(images / "scene.jpg"), *size], check=True)
        facts = label(images, out, names)
        assert facts["failed"] == 0
        assert facts["per_class"] == dict.fromkeys(names, 1)
        assert min(facts["lowest_iou"]) > 0.98, "what was written is what was decided, in both formats"
        assert len((out / "train" / "labels" / "scene.txt").read_text().splitlines()) == 3
        found = coco_masks(out)
        for shape in scene.objects:
            truth = encode_mask(shape.mask.repeat(times, axis=0).repeat(times, axis=1))
            assert mask_iou(truth, found[shape.name]) > 0.9
        peaks_mb[times] = facts["peak_mb"]
    more = peaks_mb[TIMES] - peaks_mb[1]
    print(f"peak {peaks_mb[TIMES]:.0f} MB, of which {more:.0f} MB are this picture's: {more / PIXELS_MB:.1f} times its pixels")
    assert more < 4.5 * PIXELS_MB
