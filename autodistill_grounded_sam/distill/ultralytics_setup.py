"""ultralytics, imported and run so that it keeps to itself: it sends, installs and prints nothing, and writes no settings.

It is AGPL-3.0 and so an optional extra. Checkpoints are read with `weights_only=True`: none of them runs code.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from autodistill_grounded_sam.errors import ConfigError, MissingExtraError, WeightsError

logger = logging.getLogger(__name__)

# Where ultralytics would look round, phone or write; set only while its code runs. None unsets a variable.
_QUIET: dict[str, str | None] = {
    "YOLO_OFFLINE": "true",  # its telemetry, update check and DNS probes; a download that we ask for works all the same
    "YOLO_AUTOINSTALL": "false",
    "YOLO_VERBOSE": "false",
    "ULTRALYTICS_SAFE_LOAD": "true",  # checkpoints are read with weights_only=True
    "ULTRALYTICS_API_KEY": None,  # with a key its platform callback would upload the run
}
_INTEGRATIONS = ("clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb", "sync")
_config_folder: tempfile.TemporaryDirectory[str] | None = None  # lives as long as the process


@contextlib.contextmanager
def quiet_ultralytics(what: str) -> Iterator[None]:
    """Inside, ultralytics can be imported and run, and keeps to itself; the environment is as before afterwards."""
    global _config_folder
    import torch

    threads = torch.get_num_threads()
    if _config_folder is None:
        _config_folder = tempfile.TemporaryDirectory(prefix="ultralytics-")
    quiet = {**_QUIET, "YOLO_CONFIG_DIR": os.environ.get("YOLO_CONFIG_DIR", _config_folder.name)}
    before = {name: os.environ.get(name) for name in (*quiet, "OMP_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG")}
    _set_environment(quiet)
    try:
        if sys.modules.get("ultralytics") is None:
            _first_import(what)
        yield
    finally:
        _set_environment(before)
        torch.set_num_threads(threads)


def _first_import(what: str) -> None:
    try:
        from ultralytics.utils import LOGGER, SETTINGS, USER_CONFIG_DIR
    except ImportError as error:
        raise MissingExtraError(what, extra="yolo") from error
    import matplotlib

    LOGGER.handlers.clear()  # it writes to stdout; let the application's logging decide
    LOGGER.propagate = True
    dict.update(SETTINGS, {name: False for name in _INTEGRATIONS})  # in memory only: its own update() writes a file
    font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    for name in ("Arial.ttf", "Arial.Unicode.ttf"):  # looked for at every training, and downloaded if missing
        if font.is_file() and not (USER_CONFIG_DIR / name).exists():
            shutil.copyfile(font, USER_CONFIG_DIR / name)


def _set_environment(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def build_model(name: str, offline: bool) -> tuple[Any, str]:
    """The ultralytics model for a name, and in words what it starts from."""
    from ultralytics import YOLO

    if Path(name).suffix in (".yaml", ".yml"):
        return _from_architecture(name, name), f"random weights, architecture {Path(name).name}"
    weights, why_not = _pretrained_file(name, offline)
    if weights is None:
        stem = name.removesuffix(".pt")
        model = _from_architecture(f"{stem}.yaml", name)
        logger.warning(
            "no pretrained weights for %s (%s): it starts from random weights and needs longer training", name, why_not
        )
        return model, f"random weights, architecture {stem}.yaml ({why_not})"
    try:
        return YOLO(str(weights)), f"pretrained weights {weights}"
    except Exception as error:  # whatever a damaged file provokes in torch or ultralytics, the file is at fault
        raise WeightsError(f"{weights} does not load as an ultralytics checkpoint: {first_line(error)}") from error


def _from_architecture(yaml_name: str, asked: str) -> Any:
    from ultralytics import YOLO
    from ultralytics.utils.downloads import GITHUB_ASSETS_STEMS

    try:
        return YOLO(yaml_name)
    except (FileNotFoundError, SyntaxError) as error:
        near = difflib.get_close_matches(Path(asked).stem, sorted(GITHUB_ASSETS_STEMS), n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else "; examples: yolov8n-seg.pt, yolo11n.yaml, rtdetr-l.pt"
        raise ConfigError(f"target {asked!r} is no model that ultralytics knows{hint}") from error


def _pretrained_file(name: str, offline: bool) -> tuple[Path | None, str]:
    """The weights for a name, brought if need be, or None and the reason. A path that does not exist is an error."""
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, safe_download

    file = Path(name if name.endswith(".pt") else f"{name}.pt")
    if file.is_file():
        return file, ""
    if file.name != str(file):
        raise WeightsError(f"weights {file} do not exist; give a .pt file, or a name such as yolov8n-seg.pt")
    import torch

    cached = Path(torch.hub.get_dir()) / "checkpoints" / file.name
    if cached.is_file():
        return cached, ""
    if file.name not in GITHUB_ASSETS_NAMES:
        return None, "ultralytics releases none"
    if offline:
        return None, "offline"
    if not _reachable("github.com"):
        return None, "github.com cannot be reached"
    try:
        logger.info("downloading %s to %s", file.name, cached)
        safe_download(f"https://github.com/ultralytics/assets/releases/download/v8.4.0/{file.name}", file=cached, min_bytes=1e5)
    except Exception as error:  # ConnectionError, MemoryError of a full disk, ...: training goes on without
        return None, f"download failed: {first_line(error)}"
    return cached, ""


def stays_offline(offline: bool | None) -> bool:
    """Whether the network is forbidden: as asked, else by the environment (YOLO_OFFLINE or HF_HUB_OFFLINE)."""
    if offline is not None:
        return offline
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in ("YOLO_OFFLINE", "HF_HUB_OFFLINE"))


def _reachable(host: str, seconds: float = 3.0) -> bool:
    """Whether a host answers within `seconds`. In a thread, because the name look-up has no time limit of its own."""
    answered = threading.Event()

    def knock() -> None:
        with contextlib.suppress(OSError), socket.create_connection((host, 443), timeout=seconds):
            answered.set()

    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(seconds)
    return answered.is_set()


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
