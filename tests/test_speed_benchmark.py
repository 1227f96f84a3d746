"""The arithmetic of benchmarks/speed.py, and that its rivals do the same work; nothing here is timed."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))  # its files import one another by name

import speed
import speed_machine
import speed_models
import speed_table
from speed_rivals import Answer, Ours, Pipeline, Sample, Transformers, same_answers

TINY = replace(
    speed_models.SMALL, swin_width=16, swin_depths=(1, 1, 1, 1), swin_heads=(1, 2, 2, 4), text_width=64, text_layers=1, layers=2,
    sam_width=32, sam_depth=1, sam_heads=1, sam_global=(), image_wh=(160, 120), shorter_px=240, longer_px=400,
)  # fmt: skip


def line(rival: str, classes: int, seconds: float, detect: float, objects: int = 5) -> list[Sample]:
    parts = {"line": seconds, "detect": detect}
    return [Sample(rival, part, classes, objects, value, 2 * value) for part, value in parts.items()]


def test_ratios_are_of_medians_and_tell_the_range_of_rounds() -> None:
    rounds = [line("ours", 5, ours, 1) + line("transformers", 5, theirs, 2) for ours, theirs in ((2, 4), (1, 6), (4, 8))]
    rows = speed_table.summarize(rounds, "wall", [(5, 5)], targets=True)
    assert [row.title for row in rows] == ["detector, 5 classes", "SAM's image encoder", "whole line, 5 classes, 5 objects"]
    assert rows[2].seconds["ours"].value == 2
    assert rows[2].ratios["transformers"] == (3, 2, 6, None)
    assert rows[0].ratios["transformers"] == (2, 2, 2, 2)  # the target of the detector
    assert rows[1].seconds == {}
    by_processor = speed_table.summarize(rounds, "processor", [(5, 5)], targets=False)
    assert by_processor[2].seconds["ours"].value == 4
    assert by_processor[0].ratios["transformers"].target is None


def test_passes_that_were_not_run_are_computed_for_those_that_run_once_a_class() -> None:
    rounds = [line("ours", classes, 2, 1) for classes in (1, 5, 20)]
    rounds = [[sample for samples in rounds for sample in samples]]
    rounds[0] += line("published", 1, 30, 20) + line("published", 5, 110, 100) + line("transformers", 5, 30, 20)
    rows = {row.title: row for row in speed_table.summarize(rounds, "wall", [(1, 5), (5, 5), (20, 5)], targets=True)}
    assert rows["whole line, 5 classes, 5 objects"].seconds["published"] == (110, False)
    assert rows["whole line, 20 classes, 5 objects"].seconds["published"] == (10 + 20 * 20, True)
    assert rows["whole line, 20 classes, 5 objects"].ratios["published"].target == 17
    assert rows["detector, 20 classes"].seconds["published"] == (400, True)
    assert rows["detector, 20 classes"].ratios["published"].target == 40
    assert "transformers" not in rows["whole line, 20 classes, 5 objects"].seconds
    assert "published" not in speed_table.summarize(rounds, "wall", [(5, 50)], targets=True)[2].seconds
    head, body = speed_table.time_cells(list(rows.values()))
    assert "published plugin" in head and "transformers' pipeline" not in head
    assert body[-1][:4] == ["whole line, 20 classes, 5 objects", "2", "-", "410 computed"]
    assert body[-1][-1] == "205.00 (205.00-205.00), target 17: met"


@pytest.mark.parametrize(("seconds", "code"), [(2.5, 0), (2.3, 1)])
def test_the_gate_asks_both_the_detector_and_the_line(seconds: float, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    rows = speed_table.summarize([line("ours", 5, 2, 1) + line("transformers", 5, seconds, 2)], "wall", [(5, 5)], targets=False)
    assert speed.gate(rows, 1.2) == code
    assert ("FAILED" in capsys.readouterr().out) == bool(code)
    assert speed.gate(rows, None) == 0


def test_the_ceiling_is_operations_over_the_rate() -> None:
    (row,) = speed_table.ceiling_rows({"detector": 200_000_000_000}, {"detector": 4.0}, rate=100e9, target=0.7)
    assert (row["seconds at the ceiling"], row["share"]) == (2, 0.5)
    assert speed_table.ceiling_cells([row])[1] == [["detector", "200", "4.00", "2.00", "50%, target 70%: short"]]


def test_operations_of_products_and_attention_are_counted_and_gathers_are_not() -> None:
    left, right, vector = torch.rand(6, 4), torch.rand(4, 8), torch.rand(8)
    query, key = torch.rand(1, 2, 5, 16), torch.rand(1, 2, 7, 16)
    count = speed_machine.count_flops
    with torch.inference_mode():
        assert count(lambda: left @ right) == 2 * 6 * 4 * 8
        assert count(lambda: functional.linear(left, right.T, vector)) == 2 * 6 * 4 * 8
        assert count(lambda: torch.bmm(query[0], key[0].transpose(1, 2))) == 2 * 2 * 5 * 7 * 16
        assert count(lambda: torch.einsum("nqd,nkd->nqk", query[0], key[0])) == 2 * 2 * 5 * 7 * 16
        assert count(lambda: functional.scaled_dot_product_attention(query, key, key)) == 2 * 2 * 2 * 5 * 7 * 16
        assert count(lambda: functional.conv2d(torch.rand(1, 3, 9, 9), torch.rand(4, 3, 3, 3))) == 2 * 4 * 7 * 7 * 27
        rows = torch.randint(6, (10, 3))
        assert count(lambda: functional.embedding_bag(rows, left, per_sample_weights=torch.rand(10, 3), mode="sum")) == 0


def test_all_classes_fit_in_one_caption_of_known_words(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(speed_models.write_tokenizer(tmp_path, TINY))
    assert len(set(speed_models.CLASSES)) == 80
    ids = tokenizer(". ".join(speed_models.CLASSES) + ".")["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert ids.count(1012) == 80
    assert 170 < len(ids) < 256


def test_given_boxes_are_the_same_at_each_call_and_inside_the_image() -> None:
    boxes = np.array(speed_models.given_boxes(50, (640, 480)))
    assert boxes.tolist() == speed_models.given_boxes(50, (640, 480))
    assert (boxes[:, 2:] > boxes[:, :2]).all() and boxes.min() >= 0 and (boxes.max(axis=0) <= [640, 480, 640, 480]).all()
    assert speed_models.given_boxes(0, (640, 480)) == []


def test_agreement_sees_other_boxes_and_masks() -> None:
    boxes, masks = np.array([[0, 0, 10, 10], [5, 5, 20, 20.0]]), np.ones((1, 40, 20), np.bool_)
    half = masks.copy()
    half[:, 20:] = False
    assert same_answers(Answer(boxes, masks), Answer(boxes[::-1] + 1, masks)) == {"boxes": 1, "masks": 1}
    assert same_answers(Answer(boxes, masks), Answer(boxes[:1], half)) == {"boxes": 0.5, "masks": 0.5}


def test_rivals_on_one_set_of_weights_give_the_same_answers(tmp_path: Path) -> None:
    tokenizer = speed_models.write_tokenizer(tmp_path / "tokenizer", TINY)
    speed_models.save_random(tmp_path / "weights", tokenizer, TINY)
    (image,) = speed_models.write_images(tmp_path / "images", 1, TINY)
    boxes, prompts = speed_models.given_boxes(2, TINY.image_wh), speed_models.CLASSES[:3]
    ours, book = Ours(tmp_path / "weights"), Transformers(tmp_path / "weights")
    fitting = speed_models.write_fitting_image(tmp_path / "fitting.png", TINY)
    answer = ours.answer(fitting, prompts[0], boxes)
    shares = same_answers(answer, book.answer(fitting, prompts[0], boxes))
    assert min(shares.values()) > 0.99
    changed = Transformers(tmp_path / "weights")
    for model in (changed.detector, changed.segmenter):
        speed_models.stir(model, 0.02)
    others = same_answers(answer, changed.answer(fitting, prompts[0], boxes))
    assert max(others.values()) < speed.LEAST_AGREEMENT, others
    for rival in (ours, book, Pipeline(book)):
        samples = rival.line(image, prompts, boxes)
        assert {sample.part for sample in samples} == {"line", "detect", "segment"}
        assert {(sample.rival, sample.classes, sample.objects) for sample in samples} == {(rival.name, 3, 2)}
        assert {sample.part for sample in rival.line(image, prompts, [])} == {"line", "detect"}
        assert [sample.part for sample in rival.encode(image)] == ["encode"]
