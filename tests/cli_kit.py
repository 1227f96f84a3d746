"""The command line within this process.

For stories in which the process is not what is tested: a new one imports torch for five seconds. The console script itself is run
by `journeys/test_words_to_student.py`, by the demo, and by the tests of kills and Ctrl-C. What trains a student of ultralytics
needs a process, too: where a test has imported ultralytics before us, it talks on stdout beside the JSON.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest

from autodistill_grounded_sam import cli


def said(*words: object, codes: Sequence[int] = (0,)) -> str:
    """What `grounded-sam WORDS` prints; it must end with one of the exit codes."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["grounded-sam", *map(str, words)])
        patch.setattr(sys, "path", [*sys.path])  # to which it adds the folder one stands in
        with pytest.raises(SystemExit) as stop:
            cli.main()
    assert int(stop.value.code or 0) in codes, f"grounded-sam {' '.join(map(str, words))}\n{err.getvalue()[-3000:]}"
    return out.getvalue()


def tool(*words: object, codes: Sequence[int] = (0,)) -> Any:
    """The JSON of `grounded-sam WORDS --json`."""
    return json.loads(said(*words, "--json", codes=codes))
