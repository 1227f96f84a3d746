"""A dataset folder to the Hugging Face Hub, and proof that it arrived: every file's hash there is that of the file here.

One commit by `huggingface_hub`. It resumes by content: files whose bytes the hub has already are not sent again, so an upload
that was cut off goes on where it was. The token is that of HF_TOKEN or `hf auth login`; it appears in no file or message of ours.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autodistill_grounded_sam.errors import UploadError

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class HubSummary:
    """`sent` files went up in this call, `same` were there before; `url` is the dataset's page."""

    sent: int
    same: int
    url: str


def upload_folder(folder: Path, repo: str, entries: Sequence[str], *, private: bool = True, message: str) -> HubSummary:
    """Make the dataset repository `repo` (owner/name) hold these entries of a folder, and compare all hashes afterwards.

    Files of these entries that are there and not here, shards of an earlier export, are removed in the same commit. Others stay.
    Raises UploadError where the hub refuses, or a file did not arrive as it is.
    """
    from huggingface_hub import HfApi

    files = files_of(folder, entries)
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        url = str(api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True))
        before = _remote(api, repo)
        wanted = {name: _hashes(path) for name, path in files.items()}
        changed = [name for name, hashes in wanted.items() if before.get(name) not in hashes]
        ours = [name for name in before if name.partition("/")[0] in entries]
        if changed or set(ours) - set(files):
            api.upload_folder(
                repo_id=repo,
                repo_type="dataset",
                folder_path=folder,
                allow_patterns=list(files),
                delete_patterns=[name for name in ours if name not in files] or None,
                commit_message=message,
            )
        after = _remote(api, repo)
    except Exception as error:  # errors of the hub, of the network and of files, each of its own kind
        raise UploadError(f"the upload of {folder} to {repo} failed: {error}. Run again to send what is missing") from error
    lost = [name for name, hashes in wanted.items() if after.get(name) not in hashes]
    if lost:
        raise UploadError(f"{len(lost)} of {len(files)} files are in {repo} not as they are here, first {lost[0]}; run again")
    logger.info("%d files went to %s, %d were there before", len(changed), repo, len(files) - len(changed))
    return HubSummary(len(changed), len(files) - len(changed), url)


def files_of(folder: Path, entries: Sequence[str]) -> dict[str, Path]:
    """Every file of some entries of a folder, by its POSIX path in it."""
    found = [path for entry in entries for path in sorted([folder / entry, *(folder / entry).rglob("*")]) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path for path in found}


def _remote(api: Any, repo: str) -> dict[str, str]:
    """The hash of every file there: sha256 of a large one, git's own of a small one."""
    tree = api.list_repo_tree(repo, recursive=True, repo_type="dataset")
    files = [entry for entry in tree if hasattr(entry, "blob_id")]
    return {file.path: file.lfs.sha256 if file.lfs is not None else file.blob_id for file in files}


def _hashes(path: Path) -> tuple[str, str]:
    """What the hub may call this file: its sha256, or the sha1 of git's blob."""
    whole, blob = hashlib.sha256(), hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            whole.update(chunk)
            blob.update(chunk)
    return whole.hexdigest(), blob.hexdigest()
