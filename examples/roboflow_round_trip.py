# %% [markdown]
# # A Roboflow round trip
#
# Your team looks at labels on Roboflow. So bring images from a project, label them here, send the labels back as predictions that
# wait for review, and take home what the team made of them.
#
# The key is read from `ROBOFLOW_API_KEY` (or `roboflow login`). This page was executed against a small server on the same machine
# which plays the endpoints of Roboflow that the `roboflow` package calls; it is the one of this project's tests, and `API_URL`
# points the package at it. What you see is so what is sent and read back, not Roboflow's own service.

# %%
import os
from pathlib import Path

from PIL import Image

from autodistill_grounded_sam import LabelConfig, label
from autodistill_grounded_sam.config import SeeConfig
from autodistill_grounded_sam.drawing import dataset_sheet
from autodistill_grounded_sam.painting import PainterSettings
from autodistill_grounded_sam.testing import paint_folder

SCENES = 8
PROJECT = "cups"
here = Path("roboflow_round_trip")

pairs = (("red", "circle"), ("blue", "square"), ("green", "star"))
paint_folder(here / "images", SCENES, seed=8_000, settings=PainterSettings(objects=(2, 4), pairs=pairs))
ontology = {"red circle": "ball", "blue square": "box", "green star": "star"}
config = LabelConfig(see=SeeConfig(detector="mini", segmenter="mini"))

summary = label(here / "images", ontology, here / "labelled", config)
print(f"{summary.labels} labels on {SCENES} images")

# %%
Image.fromarray(dataset_sheet(here / "labelled", 3, columns=3, cell_width_px=320)).save(here / "labels.jpg")
Image.open(here / "labels.jpg")

# %% [markdown]
# ## What would go up?
#
# A dry run counts and touches no network.

# %%
from autodistill_grounded_sam.uploading import upload_run

dry = upload_run(here / "labelled", "roboflow", PROJECT, dry_run=True)
print(f"{dry.sent} images with {dry.labels} labels would go to {dry.project}")

# %% [markdown]
# ## Up
#
# A project that is not there is made. What went up is written into a ledger in the run, so an interrupted upload goes on, and a
# second one sends nothing twice. In the end the project is asked for its images.

# %%
has_key = bool(os.environ.get("ROBOFLOW_API_KEY"))
if has_key:
    for attempt in ("first", "second"):
        report = upload_run(here / "labelled", "roboflow", PROJECT, tags=["painted"], batch_name="round trip")
        print(f"{attempt} call: {report.sent} sent, {report.skipped} were there before, {report.verified} found there")
else:
    print("no ROBOFLOW_API_KEY: nothing is sent")

# %% [markdown]
# ## And down again
#
# `roboflow:PROJECT` stands wherever a folder of images stands on the command line (`grounded-sam label roboflow:cups ...`). The
# files are those that were uploaded, byte for byte.

# %%
if has_key:
    from autodistill_grounded_sam.upload.roboflow_download import download_project

    count = download_project(f"roboflow:{PROJECT}", here / "from_roboflow")
    ours = {path.read_bytes() for path in (here / "images").iterdir()}
    same = sum(path.read_bytes() in ours for path in (here / "from_roboflow").iterdir())
    print(f"{count} images came down, {same} of them the very files that went up")

# %% [markdown]
# ## What next
#
# - On a command line: `grounded-sam upload labelled --to roboflow --project cups --tag painted`, with `--dry-run` first.
# - Accept and correct the predictions on Roboflow, export a version there as YOLO or COCO, and `grounded-sam import EXPORT --out
#   opened` opens it as a run here: to measure it, complete it with missing classes, and train on it.
# - `--as-annotations` sends labels that need no review; `upload --to hf` sends a dataset to the Hugging Face Hub instead.
