"""One process a run folder, and a killed one leaves no lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from autodistill_grounded_sam.errors import StoreError
from autodistill_grounded_sam.store.lock import RunLock

HOLD = """
import sys, time
from pathlib import Path
from autodistill_grounded_sam.store.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_told_who_holds_it_and_a_kill_frees_it(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(StoreError, match=rf"is in use by process {holder.pid} on \S+ since 20\S+; wait for it to end"),
            RunLock(tmp_path),
        ):
            pass
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()
    with RunLock(tmp_path):
        assert str(os.getpid()) in (tmp_path / "lock").read_text()
    assert (tmp_path / "lock").read_text() == ""


def test_a_lock_can_be_taken_again_after_it_was_refused(tmp_path: Path) -> None:
    with RunLock(tmp_path), pytest.raises(StoreError, match="is in use by process"), RunLock(tmp_path):
        pass
    with RunLock(tmp_path):
        pass
