# %% [markdown]
# # A cluster with Ray
#
# A million images want more than one machine. `engine="ray"` has the workers of a Ray cluster look at them; planning, the record
# and the dataset stay with the one who asks. The result is the same, byte for byte, as that of one machine. Needs `pip install
# '.[ray]'`.
#
# Here the cluster is two worker processes on this machine. `ray.init(address="auto")` joins a real one; each worker then has a
# GPU.

# %%
import hashlib
import logging
from pathlib import Path

import ray
from PIL import Image

from autodistill_grounded_sam import LabelConfig, label
from autodistill_grounded_sam.config import RunConfig, SeeConfig
from autodistill_grounded_sam.drawing import dataset_sheet
from autodistill_grounded_sam.painting import PainterSettings
from autodistill_grounded_sam.testing import paint_folder

SCENES = 16
here = Path("ray_cluster")

pairs = (("red", "circle"), ("orange", "circle"), ("green", "star"), ("blue", "square"))
paint_folder(here / "images", SCENES, seed=9_000, settings=PainterSettings(objects=(2, 4), pairs=pairs))
ontology = {"red circle": "ball", "orange circle": "ball", "green star": "star", "blue square": "box"}
models = SeeConfig(detector="mini", segmenter="mini")

ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
on_ray = RunConfig(engine="ray", workers=2, gpus_per_worker=0, batch_size=4)
summary = label(here / "images", ontology, here / "by_ray", LabelConfig(see=models, run=on_ray))
ray.shutdown()
print(f"{summary.looked_at} images looked at by two workers, {summary.labels} labels: {dict(summary.per_class)}")

# %% [markdown]
# ## The same on one machine

# %%
alone = RunConfig(batch_size=4)
label(here / "images", ontology, here / "alone", LabelConfig(see=models, run=alone))


def digests(dataset: Path) -> dict[str, str]:
    """The sha256 of every image and label file."""
    files = [path for split in ("train", "valid") for path in (dataset / split).rglob("*") if path.is_file()]
    return {path.relative_to(dataset).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


by_ray, by_one = digests(here / "by_ray"), digests(here / "alone")
print(f"{len(by_ray)} files by Ray, {len(by_one)} by one machine; all the same: {by_ray == by_one}")

# %%
Image.fromarray(dataset_sheet(here / "by_ray", 6, columns=3, cell_width_px=320)).save(here / "labels.jpg")
Image.open(here / "labels.jpg")

# %% [markdown]
# ## In earnest
#
# - `grounded-sam label s3://bucket/images --ontology words.yaml --engine ray --out dataset`: the workers read the images
#   themselves, from wherever every machine of the cluster can reach them.
# - A worker that dies is replaced and its batches are looked at again. If the driver dies, the same command goes on where the
#   record ends.
# - `gpus_per_worker=0.5` puts two workers on a GPU. `docs/scale.md` has what was measured.
