"""What all calls to Roboflow share: the key and its secrecy, opening a project, and trying again what may go better."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import random
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus

from autodistill_grounded_sam.errors import ConfigError, UploadError

logger = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")
_REFUSED = (401, 402, 403)  # key, plan or rights: no other image will fare better
LONGEST_WAIT = 60.0  # seconds between two tries


@dataclass
class Retrier:
    """Calls again what may go better the next time, and turns what does not into a text without the key."""

    key: str = field(repr=False)
    retries: int
    backoff: float
    stopped: threading.Event = field(default_factory=threading.Event)

    def call(self, action: Callable[[], _Answer]) -> tuple[_Answer | None, str]:
        """The answer and "", or None and the last error; not an exception, which would carry the address with its key."""
        for attempt in range(self.retries + 1):
            try:
                return action(), ""
            except Exception as error:  # the package raises its own, RuntimeError, and whatever requests and json raise
                text, status, transient = scrubbed(_text(error), self.key), _status(error), _is_transient(error)
            if status in _REFUSED:
                self.stopped.set()
            if not transient or attempt == self.retries or self.stopped.is_set():
                break
            wait = self.pause(attempt)
            logger.info("try %d of %d failed (%s); again in %.1f s", attempt + 1, self.retries + 1, text, wait)
            self.stopped.wait(wait)
        return None, text

    def pause(self, attempt: int) -> float:
        """The seconds to wait after try number `attempt`, from 0: longer each time, with jitter."""
        longest: float = min(LONGEST_WAIT, self.backoff * 2**attempt)
        return longest * random.uniform(0.5, 1)


def open_project(retrier: Retrier, workspace: str | None, name: str, new: tuple[str, str] | None = None) -> Any:
    """The project of that id or name; created, of the type and licence `new`, if that is given and the workspace has none. Only a
    404 means that there is none."""
    project, error = retrier.call(lambda: _find_or_create(retrier.key, workspace, name, new))
    if error:
        raise UploadError(f"project {name!r} cannot be opened on Roboflow: {error}")
    return project


def _find_or_create(key: str, workspace: str | None, name: str, new: tuple[str, str] | None) -> Any:
    import roboflow
    from roboflow.adapters.rfapi import RoboflowError

    with contextlib.redirect_stdout(io.StringIO()):  # the package talks there
        client = roboflow.Roboflow(api_key=key)
        try:
            home = client.workspace(workspace)
        except RoboflowError as error:
            error.status_code = error.status_code or 503  # the package hides which it was; a passing fault is the likeliest
            raise
        names = {entry["name"]: entry["id"].rpartition("/")[2] for entry in home.project_list}
        try:
            return home.project(names.get(name, name))
        except RoboflowError as error:
            if error.status_code != 404 or new is None:
                raise
        kind, project_license = new
        logger.info("creating project %s (%s, licence %s)", name, kind, project_license)
        return home.create_project(name, project_type=kind, project_license=project_license, annotation=name)


def find_key(api_key: str | None, workspace: str | None) -> str:
    """The key given, else ROBOFLOW_API_KEY, else that of a `roboflow login`; raises ConfigError if there is none."""
    key = api_key or os.environ.get("ROBOFLOW_API_KEY")
    if not key:
        from roboflow.config import load_roboflow_api_key

        with contextlib.suppress(AttributeError):  # what it raises for a login file without workspaces
            key = load_roboflow_api_key(workspace)
    if not key:
        raise ConfigError("no Roboflow API key: give api_key, set ROBOFLOW_API_KEY, or run `roboflow login`")
    return str(key)


def scrubbed(text: str, key: str) -> str:
    """The text without the key, in whatever form addresses carry it."""
    for form in (key, quote(key, safe=""), quote_plus(key)):
        text = text.replace(form, "***")
    return re.sub(r"api_key=[^&\s'\")]+", "api_key=***", text)


@contextlib.contextmanager
def key_kept_out_of_logs(key: str) -> Iterator[None]:
    """urllib3 logs every address, and the package puts the key into each of them."""

    def scrub(record: logging.LogRecord) -> bool:
        record.msg, record.args = scrubbed(record.getMessage(), key), ()
        return True

    talkers = [logging.getLogger(name) for name in ("urllib3.connectionpool", "urllib3.util.retry")]
    for talker in talkers:
        talker.addFilter(scrub)
    try:
        yield
    finally:
        for talker in talkers:
            talker.removeFilter(scrub)


def _status(error: Exception) -> int | None:
    response = getattr(error, "response", None)
    return getattr(error, "status_code", None) or getattr(response, "status_code", None)


def _text(error: Exception) -> str:
    answer = str(getattr(getattr(error, "response", None), "text", ""))  # says more than the status line
    return " ".join(f"{error} {answer[:300]}".split()) or type(error).__name__


def _is_transient(error: Exception) -> bool:
    from requests.exceptions import ChunkedEncodingError, RequestException, Timeout
    from requests.exceptions import ConnectionError as BrokenConnection

    status = _status(error)
    if status is not None:
        return status in (408, 429) or status >= 500
    cause = error if isinstance(error, RequestException) else error.__cause__
    return isinstance(cause, BrokenConnection | ChunkedEncodingError | Timeout)  # chunked: broken off within an answer
