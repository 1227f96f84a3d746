# %% [markdown]
# # From videos to a dataset
#
# Two things go wrong when a video becomes a dataset. Neighbouring frames are nearly the same picture, so most of them teach
# nothing. And when they are dealt out to training and validation at random, the student is examined on pictures that it learnt
# from: the figures are splendid, and wrong.
#
# ## Some videos
#
# Each is a walk of a camera along a painted wall, which stands still for a while in the middle. Give your own folder as `videos`
# instead.

# %%
from pathlib import Path

import cv2
from PIL import Image

from autodistill_grounded_sam.painting import PainterSettings, paint_scene

VIDEOS = 6
FRAMES = 90
here = Path("video_to_dataset")
videos = here / "videos"

names = ["blue square", "red circle", "green star"]
pairs = tuple((name.split()[0], name.split()[1]) for name in names)
wall = PainterSettings(1024, 192, objects=(12, 15), size=(0.3, 0.5), pairs=pairs, backgrounds=("cloud", "gradient"))
view = 256  # pixels of the wall that the camera sees

videos.mkdir(parents=True, exist_ok=True)
for number in range(VIDEOS):
    painted = paint_scene(wall, seed=5_000 + number).image_rgb
    film = cv2.VideoWriter(str(videos / f"walk_{number}.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 30, (view, wall.height))
    for frame in range(FRAMES):
        walked = min(frame, FRAMES // 3) + max(0, frame - 2 * FRAMES // 3)  # the middle third stands still
        left = (wall.width - view) * walked * 3 // (2 * FRAMES)
        film.write(cv2.cvtColor(painted[:, left : left + view], cv2.COLOR_RGB2BGR))
    film.release()
print(*sorted(path.name for path in videos.iterdir()))

# %% [markdown]
# ## Sample
#
# Every fifth frame is taken, unless it looks like one that was taken of the same video before.

# %%
from autodistill_grounded_sam.frames import take_frames

for video in take_frames(videos, here / "frames", every=5):
    print(f"{video.video}: {video.frames} frames, {video.sampled} looked at, {video.alike} alike, {video.taken} taken")
print(*sorted(path.relative_to(here).as_posix() for path in (here / "frames/walk_0.avi").glob("*.jpg"))[:3], "...")

# %% [markdown]
# The same on a command line: `grounded-sam frames videos --out frames --every 5`. If little moves in a picture that stays the
# same (cars far off, seen by a fixed camera), frames look alike to this measure though they are not: then say `--keep-alike`
# (`keep_alike=True`).
#
# ## Label
#
# The frames of one video are a folder named after it, and all of them fall to one side of the split. Nothing has to be said for
# that.

# %%
from collections import Counter

from autodistill_grounded_sam import LabelConfig, label
from autodistill_grounded_sam.config import SeeConfig
from autodistill_grounded_sam.drawing import dataset_sheet

config = LabelConfig(see=SeeConfig(detector="mini", segmenter="mini"))
summary = label(here / "frames", {name: name for name in names}, here / "dataset", config)
print(f"{summary.labels} labels: {dict(summary.per_class)}")
for split in ("train", "valid"):
    of = Counter(path.name.split("__")[0] for path in (here / "dataset" / split / "images").iterdir())
    print(f"{split}: {dict(sorted(of.items()))}")
for note in summary.datasets[0].notes:
    print(note)

# %%
Image.fromarray(dataset_sheet(here / "dataset", 6, columns=3, cell_width_px=320)).save(here / "labels.jpg")
Image.open(here / "labels.jpg")

# %% [markdown]
# ## What next
#
# - Whole videos are drawn, so of few videos the share that falls to validation is seldom the one asked for (a fifth); where it is
#   far off, a note says so. `--seed` draws anew. Better: record more videos rather than longer ones.
# - Of a single video no honest split can be made. It is cut into runs of neighbours, and a note says that the edges may be alike.
# - Frames from elsewhere are held together too, by names such as `walk.mp4_0001.jpg` or `clip3/frame_0001.jpg`, and by their
#   pictures.
