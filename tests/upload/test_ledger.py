"""The ledger survives a kill at any byte, and never forgets what a server confirmed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodistill_grounded_sam.errors import UploadError
from autodistill_grounded_sam.upload.ledger import Ledger


def test_ledger__last_state_of_an_image_holds(tmp_path: Path) -> None:
    book = Ledger(tmp_path / "deep" / "upload.jsonl", "shop/cups")
    assert book.find("d1") is None
    book.add("d1", "a.png", "image", remote_id="r1")
    book.add("d1", "a.png", "failed", error="500")
    for ledger in (book, Ledger(book.path, "shop/cups")):
        row = ledger.find("d1")
        assert row is not None
        assert (row.status, row.remote_id) == ("image", "r1")
    book.add("d1", "a.png", "done", remote_id="r1", labels="l1")
    again = Ledger(book.path, "shop/cups").find("d1")
    assert again is not None
    assert (again.status, again.labels) == ("done", "l1")
    assert len(book.path.read_text().splitlines()) == 3  # append-only: nothing was rewritten


def test_ledger__projects_do_not_mix(tmp_path: Path) -> None:
    Ledger(tmp_path / "l", "shop/cups").add("d1", "a.png", "done")
    assert Ledger(tmp_path / "l", "shop/plates").find("d1") is None


@given(cut=st.integers(min_value=0, max_value=400))
def test_ledger__cut_off_at_any_byte(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "l"
    book = Ledger(path, "p")
    for number in range(3):
        book.add(f"d{number}", f"bild ü {number}.png", "done", remote_id=str(number))
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    complete = whole[:cut].count(b"\n")
    resumed = Ledger(path, "p")
    assert [resumed.find(f"d{number}") is not None for number in range(3)] == [number < complete for number in range(3)]
    resumed.add("new", "n.png", "done")
    assert Ledger(path, "p").find("new") is not None
    assert path.read_bytes().count(b"\n") == complete + 1


def test_ledger__damaged_in_the_middle(tmp_path: Path) -> None:
    (tmp_path / "l").write_text('{"project": "p", "digest": "d"\n')
    with pytest.raises(UploadError, match=r"l:1 is no row of an upload ledger; mend or remove the line"):
        Ledger(tmp_path / "l", "p")
