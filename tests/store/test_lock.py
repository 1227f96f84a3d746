"""One process a run folder, and a killed one leaves no lock."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
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


TRY = """
import sys
from pathlib import Path
from autodistill_grounded_sam.errors import StoreError
from autodistill_grounded_sam.store.lock import RunLock
try:
    with RunLock(Path(sys.argv[1])):
        print("taken")
except StoreError as error:
    print(error)
"""


def tried_elsewhere(run: Path) -> str:
    """What another process meets that takes the lock now."""
    return subprocess.run([sys.executable, "-c", TRY, str(run)], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def test_the_same_process_may_enter_again_and_the_outermost_block_ends_the_lock(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (tmp_path / "linked").symlink_to(tmp_path)
    lock, refused = RunLock(run), f"is in use by process {os.getpid()} on "
    with lock:
        with RunLock(tmp_path / "linked" / "run"), lock:  # the same folder by another name, and the same object
            assert refused in tried_elsewhere(run)
        assert refused in tried_elsewhere(run)
        with pytest.raises(KeyError), RunLock(run):
            raise KeyError
        assert refused in tried_elsewhere(run)
    assert (run / "lock").read_text() == ""
    assert tried_elsewhere(run) == "taken"


def test_another_thread_is_the_same_owner(tmp_path: Path) -> None:
    entered = []

    def enter() -> None:
        with RunLock(tmp_path):
            entered.append(tried_elsewhere(tmp_path))

    with RunLock(tmp_path):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        assert "is in use by process" in tried_elsewhere(tmp_path)
    assert len(entered) == 1
    assert "is in use by process" in entered[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_is_another_process(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        child = os.fork()
        if child == 0:
            try:
                RunLock(tmp_path).__enter__()
            except StoreError:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_missing_folder_is_made_and_two_folders_are_two_locks(tmp_path: Path) -> None:
    with RunLock(tmp_path / "new" / "run"), RunLock(tmp_path / "other"):
        assert (tmp_path / "new" / "run" / "lock").is_file()
        assert tried_elsewhere(tmp_path / "third") == "taken"


def test_a_place_that_cannot_hold_a_lock_is_named(tmp_path: Path) -> None:
    (tmp_path / "afile").write_text("")
    (tmp_path / "run" / "lock").mkdir(parents=True)
    for run, said in [
        (tmp_path / "afile", r"afile cannot be used \(File exists\); a file lies where a folder has to be"),
        (tmp_path / "afile" / "run", r"afile/run cannot be used \(Not a directory\); a file lies where a folder has to be"),
        (tmp_path / "run", r"run/lock cannot be used \(Is a directory\); a folder lies where a file has to be"),
    ]:
        with pytest.raises(StoreError, match=said), RunLock(run):
            pass


def test_a_lock_can_be_taken_again_after_writing_into_it_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreError, match=r"the disk that holds .*lock is full"), RunLock(tmp_path):
        pass
    monkeypatch.undo()
    assert tried_elsewhere(tmp_path) == "taken"
    with RunLock(tmp_path):
        pass
