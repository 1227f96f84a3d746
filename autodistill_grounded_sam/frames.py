"""Videos to a folder of images that `label` takes: every n-th frame, less those that look like one that was taken before."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from autodistill_grounded_sam.errors import ConfigError, NoImagesError, WrongPlaceError
from autodistill_grounded_sam.image_modes import from_bgr
from autodistill_grounded_sam.images import VIDEO_SUFFIXES
from autodistill_grounded_sam.similar import NEAR_BITS, dhash, differing_bits
from autodistill_grounded_sam.store.files import disk_errors, write_json

logger = logging.getLogger(__name__)

TAKEN = "frames.json"  # in the folder of a video, once all its frames are there
_JPEG_QUALITY = 95
_CUT_SHORT = 0.98  # of the frames that the header announces: it may be off by a few


@dataclass(frozen=True)
class VideoFrames:
    """What became of one video: of its `frames`, `sampled` were looked at, `alike` of them left out, `taken` are in `folder`.

    `fault` says why it could not be read; then there is no folder.
    """

    video: str
    folder: Path
    frames: int = 0
    sampled: int = 0
    alike: int = 0
    taken: int = 0
    fault: str = ""


def take_frames(
    videos: Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    every: int = 10,
    keep_alike: bool = False,
    on_video: Callable[[VideoFrames], None] | None = None,
) -> list[VideoFrames]:
    """Write every n-th frame of each video as `out/<video>/frame_000000.jpg`, numbered as in the video, from 0.

    `videos` are files, or folders with all the videos below them. Frames that look like one that was taken of the same video (by
    their difference hash) are left out unless `keep_alike`. The folder of a video is named like its file, suffix and all, so the
    split of a dataset keeps its frames on one side. A video that is done is not read again; one that cannot be read is set aside
    with its `fault`. `on_video` is told each result. Raises NoImagesError where there is no video or none could be read,
    ConfigError for two of one name or other settings than an earlier call's, WrongPlaceError for a folder that is not ours.
    """
    if every < 1:
        raise ConfigError(f"every must be 1 (each frame) or more, got {every}")
    found = _find([videos] if isinstance(videos, str | Path) else videos)
    results: list[VideoFrames] = []
    for name, path in found.items():
        results.append(result := _take(name, path, Path(out) / name, every, keep_alike))
        if on_video is not None:
            on_video(result)
    if results and all(result.fault for result in results):
        raise NoImagesError(f"none of the {len(results)} videos could be read; the first, {results[0].video}: {results[0].fault}")
    return results


def _find(videos: Sequence[Path | str]) -> dict[str, Path]:
    """The videos by their names: relative POSIX paths within a folder, bare names of files; in the order of names."""
    found: dict[str, Path] = {}
    for given in map(Path, videos):
        if not given.exists():
            raise NoImagesError(f"there is no video at {given}")
        inside = {path.relative_to(given).as_posix(): path for path in given.rglob("*") if _is_video(path)}
        if given.is_dir() and not inside:
            raise NoImagesError(f"no video in {given}: looked in all its folders for {' '.join(VIDEO_SUFFIXES)}")
        named = inside if given.is_dir() else {given.name: given}
        for name in [name for name in named.keys() & found.keys() if not named[name].samefile(found[name])]:
            raise ConfigError(f"two videos are named {name}: give the folder that holds both, or rename one")
        found |= named
    return dict(sorted(found.items()))


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _take(name: str, path: Path, folder: Path, every: int, keep_alike: bool) -> VideoFrames:
    settings = {"bytes": path.stat().st_size, "every": every, "keep_alike": keep_alike}
    if folder.exists():
        return _earlier(name, folder, settings)
    partial = folder.with_name(f".{folder.name}.partial")
    with disk_errors(folder):
        shutil.rmtree(partial, ignore_errors=True)  # of a call that was killed
        partial.mkdir(parents=True)
        try:
            result = replace(_write_frames(path, partial, every, keep_alike), video=name, folder=folder)
            if not result.fault:
                counts = {"frames": result.frames, "sampled": result.sampled, "alike": result.alike, "taken": result.taken}
                write_json(partial / TAKEN, settings | counts)
                partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return result


def _earlier(name: str, folder: Path, settings: dict[str, Any]) -> VideoFrames:
    """What an earlier call told, of the same settings for the same video."""
    if not (folder / TAKEN).is_file():
        raise WrongPlaceError(f"{folder} is there already and was not made from a video: give another --out")
    try:
        content = json.loads((folder / TAKEN).read_text(encoding="utf-8"))
        counts = [int(content[name]) for name in ("frames", "sampled", "alike", "taken")]
    except (ValueError, KeyError, TypeError) as error:
        raise WrongPlaceError(f"{folder / TAKEN} cannot be read ({error!r}): delete {folder}, or give another --out") from error
    other = [f"{key} {content.get(key)}, now {value}" for key, value in settings.items() if content.get(key) != value]
    if other:
        raise ConfigError(
            f"{folder} holds frames that were taken otherwise ({'; '.join(other)}): delete it, or give another --out"
        )
    frames, sampled, alike, taken = counts
    return VideoFrames(name, folder, frames, sampled, alike, taken)


def _write_frames(path: Path, folder: Path, every: int, keep_alike: bool) -> VideoFrames:
    import cv2
    from PIL import Image

    video = cv2.VideoCapture(str(path))
    announced = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    hashes = np.zeros(0, np.uint64)
    frames = sampled = 0
    while video.grab():
        frames += 1
        if (frames - 1) % every:
            continue
        is_whole, bgr = video.retrieve()
        if not is_whole:
            continue
        sampled += 1
        frame = from_bgr(bgr)
        code = np.array([dhash(frame)], np.uint64)
        if keep_alike or not len(hashes) or differing_bits(hashes, code).min() > NEAR_BITS:
            hashes = np.concatenate([hashes, code])
            Image.fromarray(frame).save(folder / f"frame_{frames - 1:06d}.jpg", quality=_JPEG_QUALITY)
    video.release()
    fault = "" if len(hashes) else "OpenCV finds no picture in it that it can decode: it is damaged, or of an unknown codec"
    if not fault and frames < _CUT_SHORT * announced:
        logger.warning("%s ends after %d frames, but its header announces %d: it may be cut short", path, frames, announced)
    return VideoFrames("", folder, frames, sampled, sampled - len(hashes), len(hashes), fault)
