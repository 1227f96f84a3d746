"""The images of a Roboflow project to a folder, to be labelled here: the files as they were uploaded there.

Calls of the installed `roboflow` package: POST /{workspace}/{project}/search, GET /{workspace}/{project}/images/{image}; then the
address that it names for the original file.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from autodistill_grounded_sam.errors import UploadError
from autodistill_grounded_sam.images import dataset_stems
from autodistill_grounded_sam.upload.roboflow_calls import Retrier, find_key, key_kept_out_of_logs, open_project

logger = logging.getLogger(__name__)

PREFIX = "roboflow:"
_SECONDS = 60  # until a server that says nothing counts as gone


def is_project(images: object) -> bool:
    """Whether `images` names a project (`roboflow:cups`, `roboflow:shop/cups`) and no folder."""
    return str(images).startswith(PREFIX)


def download_project(
    project: str,
    folder: Path,
    *,
    api_key: str | None = None,
    retries: int = 5,
    backoff: float = 1.0,
    workers: int = 4,
) -> int:
    """Bring every image of `roboflow:[workspace/]project` into a folder; how many are in it then.

    Files are named after the image there and its id, so that a call after an interruption brings only what is missing. Raises
    UploadError if the project cannot be opened or an image cannot be had; what was brought stays.
    """
    workspace, _, name = project.removeprefix(PREFIX).rpartition("/")
    key = find_key(api_key, workspace or None)
    with key_kept_out_of_logs(key):
        retrier = Retrier(key, retries, backoff)
        remote = open_project(retrier, workspace or None, name)
        pages, error = retrier.call(lambda: [image for page in remote.search_all(fields=["id", "name"]) for image in page])
        if pages is None:
            raise UploadError(f"the images of project {name!r} cannot be listed: {error}")
        folder.mkdir(parents=True, exist_ok=True)
        stems = dataset_stems([f"{Path(str(image['name'])).stem}-{image['id']}" for image in pages])
        there = {path.stem for path in folder.iterdir() if not path.name.endswith(".partial")}
        wanted = [(image, stem) for image, stem in zip(pages, stems.values(), strict=True) if stem not in there]
        with ThreadPoolExecutor(workers) as pool:
            errors = list(pool.map(lambda one: _bring(retrier, remote, one[0], folder / one[1]), wanted))
    failed = [error for error in errors if error]
    if failed:
        raise UploadError(f"{len(failed)} of {len(pages)} images of {name!r} could not be had, the first: {failed[0]}. Run again")
    logger.info("%d images of %s are in %s, %d of them new", len(pages), name, folder, len(wanted))
    return len(pages)


def _bring(retrier: Retrier, remote: Any, image: Mapping[str, Any], place: Path) -> str:
    """Write one image beside `place`, with its suffix; why it could not be had, or ""."""
    import requests

    def fetch() -> bool:
        address = str(remote.image(image["id"])["urls"]["original"])
        answer = requests.get(address, timeout=_SECONDS)
        answer.raise_for_status()
        suffix = Path(urlsplit(address).path).suffix or Path(str(image["name"])).suffix or ".jpg"
        partial = place.with_name(f"{place.name}.partial")
        partial.write_bytes(answer.content)
        partial.replace(place.with_name(place.name + suffix))
        return True

    done, error = retrier.call(fetch)
    return "" if done else f"{image['name']}: {error}"
