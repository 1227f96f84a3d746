"""The measurement of `check`: the damage is what it is said to be, and a line is counted for the damage that it names, once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from benchmarks.check_damage import Damage, _iou, damaged, figures, found_at


def content() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    annotations = [
        {
            "id": n,
            "image_id": n // 5,
            "category_id": int(rng.integers(1, 4)),
            "bbox": [*rng.uniform(0, 200, 2), *rng.uniform(20, 90, 2)],
        }
        for n in range(300)
    ]
    images = [{"id": n, "file_name": f"{n}.png", "width": 300, "height": 300} for n in range(60)]
    return {"images": images, "annotations": annotations, "categories": [{"id": k, "name": f"c{k}"} for k in (1, 2, 3)]}


def test_a_third_each_is_dropped_shifted_and_swapped() -> None:
    before = content()
    after, done = damaged(before, seed=0)
    assert Counter(one.kind for one in done) == {"dropped": 10, "shifted": 10, "swapped": 10}
    assert len(after["annotations"]) == 290
    old = {row["id"]: row for row in before["annotations"]}
    changed = [(old[row["id"]], row) for row in after["annotations"] if row != old[row["id"]]]
    assert Counter(a["bbox"] == b["bbox"] for a, b in changed) == {True: 10, False: 10}
    for one in done:
        if one.kind == "shifted":
            assert one.after is not None
            assert 0.3 <= _iou(one.before, one.after) <= 0.6
            assert min(one.after) >= 0
            assert max(one.after) <= 300
    assert damaged(before, seed=0)[1] == done != damaged(before, seed=1)[1]


def line(kind: str, name: str | None, box: list[float]) -> dict[str, Any]:
    own = {"class": name, "xyxy": None if kind == "overlooked" else box, "proposed_xyxy": box}
    return {"image": "a", "kind": kind, "suspicion": 0.6, **own}


def test_a_line_names_the_damage_that_it_lies_on_once() -> None:
    dropped = Damage("a", "dropped", [0, 0, 10, 10], None, None)
    swapped = Damage("a", "swapped", [0, 0, 10, 10], [0, 0, 10, 10], "can")
    lines = [
        line("overlooked", None, [5, 0, 15, 10]),
        line("located", "cup", [0, 0, 10, 10]),
        line("overlooked", None, [0, 0, 10, 11]),
        line("located", "can", [0, 0, 10, 10]),
    ]
    assert found_at(lines, [dropped, dropped, swapped]) == [2, None, 3]
    told = figures(lines, [dropped, swapped, Damage("b", "shifted", [0, 0, 9, 9], [0, 0, 5, 9], "can")], labels=15)
    assert told["k"] == 3
    assert told["in first k"] == {"all": pytest.approx(1 / 3), "dropped": 1.0, "shifted": 0.0, "swapped": 0.0}
