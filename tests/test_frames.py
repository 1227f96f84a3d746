"""Videos to images: what is taken, what is left out, and whose frames stay together."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from autodistill_grounded_sam.errors import ConfigError, NoImagesError, WrongPlaceError
from autodistill_grounded_sam.export.split import plan_splits
from autodistill_grounded_sam.frames import take_frames
from autodistill_grounded_sam.images import find_images, scan
from autodistill_grounded_sam.painting import PainterSettings, paint_scene
from autodistill_grounded_sam.types import RgbImage


def film(path: Path, pictures: list[RgbImage]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = pictures[0].shape[:2]
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30, (width, height))
    for picture in pictures:
        video.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    video.release()
    return path


def scenes(count: int, seed: int = 0) -> list[RgbImage]:
    return [paint_scene(PainterSettings(128, 96), seed + number).image_rgb for number in range(count)]


def test_every_nth_frame_is_taken_under_its_number_and_looks_as_in_the_video(tmp_path: Path) -> None:
    pictures = scenes(10)
    (result,) = take_frames(film(tmp_path / "walk.avi", pictures), tmp_path / "out", every=4)
    assert (result.video, result.frames, result.sampled, result.alike, result.taken) == ("walk.avi", 10, 3, 0, 3)
    assert [path.name for path in sorted(result.folder.glob("*.jpg"))] == [f"frame_{n:06d}.jpg" for n in (0, 4, 8)]
    taken = np.asarray(Image.open(result.folder / "frame_000004.jpg"), np.float32)
    apart = [np.abs(taken - picture).mean() for picture in pictures]
    assert np.argmin(apart) == 4 and apart[4] < 12


def test_frames_that_look_alike_are_left_out_also_when_a_view_comes_back(tmp_path: Path) -> None:
    first, second = scenes(2)
    video = film(tmp_path / "still.avi", [first, first, second, second, first])
    (result,) = take_frames(video, tmp_path / "out", every=1)
    assert (result.alike, result.taken) == (3, 2)
    (kept,) = take_frames(video, tmp_path / "all", every=1, keep_alike=True)
    assert (kept.alike, kept.taken) == (0, 5)


def test_a_video_stays_on_one_side_of_the_split(tmp_path: Path) -> None:
    for number in range(8):
        film(tmp_path / f"videos/day{number % 2}/walk{number}.avi", scenes(4, seed=10 * number))
    results = take_frames(tmp_path / "videos", tmp_path / "frames", every=1)
    assert [result.video for result in results][:2] == ["day0/walk0.avi", "day0/walk2.avi"]
    images = scan(tmp_path / "frames").images
    plan = plan_splits(images, 0.3)
    sides = {result.video: {plan(image) for image in images if image.id.startswith(result.video)} for result in results}
    assert all(len(side) == 1 for side in sides.values())
    assert plan.groups == 8 and len(set.union(*sides.values())) == 2


def test_a_video_that_is_done_is_not_read_again(tmp_path: Path) -> None:
    video = film(tmp_path / "walk.avi", scenes(6))
    first = take_frames(video, tmp_path / "out", every=2)
    (tmp_path / "out/walk.avi/frame_000002.jpg").unlink()  # a person threw it out
    (tmp_path / "out/.next.avi.partial").mkdir()  # of a call that was killed
    assert take_frames(video, tmp_path / "out", every=2) == first
    assert len(find_images(tmp_path / "out").images) == 2
    with pytest.raises(ConfigError, match=r"holds frames that were taken otherwise \(every 2, now 3\): delete it, or give"):
        take_frames(video, tmp_path / "out", every=3)
    (tmp_path / "out/walk.avi/frames.json").unlink()
    with pytest.raises(WrongPlaceError, match=r"walk\.avi is there already and was not made from a video: give another --out"):
        take_frames(video, tmp_path / "out", every=2)


def test_a_broken_video_is_set_aside_and_leaves_nothing(tmp_path: Path) -> None:
    film(tmp_path / "videos/good.avi", scenes(2))
    (tmp_path / "videos/bad.mp4").write_bytes(b"no video at all")
    (tmp_path / "videos/._good.avi").write_bytes(b"what macOS leaves beside a file")
    bad, good = take_frames(tmp_path / "videos", tmp_path / "out", every=1)
    assert good.taken == 2 and bad.fault.startswith("OpenCV finds no picture in it")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.avi"]
    with pytest.raises(NoImagesError, match=r"none of the 1 videos could be read; the first, bad\.mp4: OpenCV finds"):
        take_frames(tmp_path / "videos/bad.mp4", tmp_path / "out")


def test_wrong_use(tmp_path: Path) -> None:
    one, other = film(tmp_path / "a/walk.avi", scenes(1)), film(tmp_path / "b/walk.avi", scenes(1))
    with pytest.raises(ConfigError, match=r"two videos are named walk\.avi: give the folder that holds both, or rename one"):
        take_frames([one, other], tmp_path / "out")
    with pytest.raises(ConfigError, match=r"every must be 1 \(each frame\) or more, got 0"):
        take_frames(one, tmp_path / "out", every=0)
    with pytest.raises(NoImagesError, match=r"there is no video at .*nowhere\.mp4"):
        take_frames(tmp_path / "nowhere.mp4", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoImagesError, match=r"no video in .*empty: looked in all its folders for \.mp4"):
        take_frames(tmp_path / "empty", tmp_path / "out")


def test_label_says_how_to_take_images_from_videos(tmp_path: Path) -> None:
    video = film(tmp_path / "walk.avi", scenes(1))
    with pytest.raises(NoImagesError, match=r"is a file, not a folder; `grounded-sam frames` takes images from videos"):
        find_images(video)
    with pytest.raises(NoImagesError, match=r"found 1 \.avi; `grounded-sam frames` takes images from videos"):
        find_images(tmp_path)


def test_cut_short_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    video = film(tmp_path / "walk.avi", scenes(40))
    content = video.read_bytes()
    video.write_bytes(content[: len(content) // 2])
    (result,) = take_frames(video, tmp_path / "out", every=1)
    assert 0 < result.frames < 40
    assert "its header announces 40: it may be cut short" in caplog.text


def test_the_facts_beside_the_frames(tmp_path: Path) -> None:
    video = film(tmp_path / "walk.avi", scenes(3))
    take_frames(video, tmp_path / "out", every=2)
    facts = json.loads((tmp_path / "out/walk.avi/frames.json").read_text())
    assert facts == {
        "bytes": video.stat().st_size,
        "every": 2,
        "keep_alike": False,
        "frames": 3,
        "sampled": 2,
        "alike": 0,
        "taken": 2,
    }
