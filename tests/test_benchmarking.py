"""SegInW on a painted miniature: the figures of its protocol computed plainly by other code; what is kept, what done anew."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from transformers import AutoTokenizer, GroundingDinoForObjectDetection, GroundingDinoImageProcessor, SamModel, SamProcessor

import autodistill_grounded_sam
from autodistill_grounded_sam.benchmarking import SegInWModels, read_words, run_seginw
from autodistill_grounded_sam.errors import ConfigError, DatasetError, WeightsError
from autodistill_grounded_sam.evaluate.seginw import DATASETS, FILE, PUBLISHED, SegInWRow
from autodistill_grounded_sam.testing import FakeSegmenter
from tests.seginw_kit import NAMES, Spots, paint_tree

MINI = Path(autodistill_grounded_sam.__file__).parent / "mini"


FAKE = ("tests.seginw_kit:Spots", "autodistill_grounded_sam.testing:FakeSegmenter")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_tree(tmp_path_factory.mktemp("tree") / "seginw")


def plain_ap(folder: Path, look: Callable[[Image.Image, list[str]], tuple[Any, Any, Any, Any]]) -> dict[str, float]:
    """The protocol once more, by nothing of this package: `look` gives k boxes xyxy, scores, class ids, masks (h, w)."""
    truth = COCO(str(folder / FILE))
    names = [category["name"] for category in truth.dataset["categories"]]
    boxes, masks = [], []
    for image in truth.dataset["images"]:
        found = look(Image.open(folder / image["file_name"]).convert("RGB"), names)
        for (x1, y1, x2, y2), score, class_id, mask in zip(*found, strict=True):
            row = {"image_id": image["id"], "category_id": int(class_id), "score": float(score)}
            boxes.append({**row, "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)]})
            masks.append({**row, "segmentation": coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))})
    figures = {}
    for kind, rows in (("bbox", boxes), ("segm", masks)):
        evaluation = COCOeval(truth, truth.loadRes(rows), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        figures[kind], figures[f"{kind} 50"] = evaluation.stats[0], evaluation.stats[1]
    return figures


@pytest.fixture(scope="module")
def plainly() -> Callable[[Image.Image, list[str]], tuple[Any, Any, Any, Any]]:
    """Grounding DINO and SAM as transformers runs them, and the post-processing of the official scripts, in a few lines."""
    detector = GroundingDinoForObjectDetection.from_pretrained(MINI / "detector", dtype=torch.float32).eval()
    tokenizer, pixels_of = (
        AutoTokenizer.from_pretrained(MINI / "detector"),
        GroundingDinoImageProcessor.from_pretrained(MINI / "detector"),
    )
    sam, processor = (
        SamModel.from_pretrained(MINI / "segmenter", dtype=torch.float32).eval(),
        SamProcessor.from_pretrained(MINI / "segmenter"),
    )

    @torch.no_grad()
    def look(image: Image.Image, names: list[str]) -> tuple[Any, Any, Any, Any]:
        caption = tokenizer(" . ".join(names) + " .", return_tensors="pt")
        positive, start = torch.zeros(len(names), caption["input_ids"].shape[1]), 0
        for row, name in enumerate(names):
            for word in name.split(" "):
                first, last = caption.char_to_token(start), caption.char_to_token(start + len(word) - 1)
                positive[row, first : last + 1] = 1
                start += len(word) + 1
            start += 2
        positive /= positive.sum(-1, keepdim=True) + 1e-6
        answer = detector(**pixels_of(image, return_tensors="pt"), **caption)
        scores = answer.logits[0, :, : positive.shape[1]].sigmoid() @ positive.T
        best, index = scores.flatten().topk(min(100, scores.numel()))  # mini has 40 queries
        centre, size = answer.pred_boxes[0, index // len(names)].split(2, dim=-1)
        xyxy = torch.cat([centre - size / 2, centre + size / 2], dim=-1) * torch.tensor([*image.size, *image.size])
        asked = processor(image, input_boxes=[xyxy.tolist()], return_tensors="pt")
        low = sam(**{key: asked[key] for key in ("pixel_values", "input_boxes")}, multimask_output=False).pred_masks
        (masks,) = processor.image_processor.post_process_masks(low, asked["original_sizes"], asked["reshaped_input_sizes"])
        return xyxy, best, index % len(names), masks[:, 0].numpy()

    return look


@pytest.fixture(scope="module")
def by_mini(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> SegInWRow:
    (row,) = run_seginw(tree, tmp_path_factory.mktemp("out"), SegInWModels("mini", "mini", device="cpu"), datasets=tuple(NAMES))
    return row


@pytest.mark.parametrize("name", NAMES)
def test_figures_are_those_of_the_protocol_computed_plainly(by_mini: SegInWRow, tree: Path, plainly: Any, name: str) -> None:
    figures, expected = by_mini.figures[name], plain_ap(tree / name / "valid", plainly)
    assert 0.1 < expected["segm"] < 0.99, "a figure at an end of its range would prove little"
    assert figures.mask["AP"] == pytest.approx(expected["segm"], abs=1e-6)
    assert figures.mask["AP50"] == pytest.approx(expected["segm 50"], abs=1e-6)
    assert figures.box["AP"] == pytest.approx(expected["bbox"], abs=1e-6)
    assert figures.box["AP50"] == pytest.approx(expected["bbox 50"], abs=1e-6)


def test_any_detector_and_segmenter_is_ranked_the_same_way(tree: Path, tmp_path: Path) -> None:
    """One that is no Grounding DINO is asked by its `detect`."""

    def look(image: Image.Image, names: list[str]) -> tuple[Any, Any, Any, Any]:
        pixels = np.asarray(image)
        (found,) = FakeSegmenter().segment([pixels], Spots().detect([pixels], names))
        order = sorted(((-score, row, column) for (row, column), score in np.ndenumerate(found.scores)))[:100]
        masks = [coco_mask.decode(dict(found.rle[row])) for _, row, _ in order]  # type: ignore[index]
        return [found.xyxy[row] for _, row, _ in order], [-score for score, _, _ in order], [c for _, _, c in order], masks

    (row,) = run_seginw(tree, tmp_path, SegInWModels(*FAKE), datasets=tuple(NAMES))
    for name in NAMES:
        expected = plain_ap(tree / name / "valid", look)
        assert expected["segm"] > 0.05
        assert row.figures[name].mask["AP"] == pytest.approx(expected["segm"], abs=1e-6)
        assert row.figures[name].box["AP"] == pytest.approx(expected["bbox"], abs=1e-6)


def test_an_ensemble_is_a_detector_too(tree: Path, tmp_path: Path) -> None:
    """Two that see the same are fused to that: to one box for each that both see, with the scores of both."""
    alone, twice = SegInWModels(*FAKE), SegInWModels(f"{FAKE[0]}@0.35+{FAKE[0]}@0.35", FAKE[1])
    name = next(iter(NAMES))
    (one,) = run_seginw(tree, tmp_path, alone, datasets=(name,))
    (two,) = run_seginw(tree, tmp_path, twice, datasets=(name,))
    assert twice.identity != alone.identity
    assert two.figures[name].mask["AP"] == pytest.approx(one.figures[name].mask["AP"], abs=0.02)


class Killed(Exception):
    pass


class Watch:
    """A progress that counts, and breaks off after so many images."""

    def __init__(self, most: float = float("inf")) -> None:
        self.most, self.seen, self.planned, self.said = most, 0, 0, ""

    def total(self, images: int) -> None:
        self.planned = images

    def advance(self, images: int, counts: Mapping[str, int]) -> None:
        self.seen += images
        if self.seen >= self.most:
            raise Killed

    def message(self, text: str) -> None:
        self.said += text


def run(tree: Path, out: Path, watch: Watch, **more: Any) -> list[SegInWRow]:
    return run_seginw(tree, out, SegInWModels(*FAKE), datasets=tuple(NAMES), progress=watch, **more)


def test_a_run_that_was_killed_goes_on_with_the_next_image(tree: Path, tmp_path: Path) -> None:
    undisturbed = run(tree, tmp_path / "whole", Watch())
    with pytest.raises(Killed):
        run(tree, tmp_path / "out", Watch(most=6))
    (torn,) = (path for path in (tmp_path / "out").glob("Hand-*.jsonl"))
    with torn.open("a") as file:
        file.write('{"image_id": 2, "class_id": [0, 0')  # as a kill in the middle of a line leaves it
    again = Watch()
    assert run(tree, tmp_path / "out", again) == undisturbed
    assert (again.planned, again.seen) == (12 - 6, 12 - 6)
    whole, out = (
        {path.name: path.read_bytes() for path in folder.glob("*.json*")} for folder in (tmp_path / "whole", tmp_path / "out")
    )
    assert whole == out
    finished = Watch()
    assert run(tree, tmp_path / "out", finished) == undisturbed
    assert (finished.planned, finished.seen, finished.said) == (0, 0, ""), "no model is loaded for what is finished"


def test_what_figures_depend_on_is_what_makes_them_be_done_anew(tmp_path: Path) -> None:
    tree, out = paint_tree(tmp_path / "tree"), tmp_path / "out"
    run(tree, out, Watch())
    watch = Watch()
    image = tree / "Hand" / "valid" / "scene_1.png"
    Image.open(image).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(image)
    run(tree, out, watch)
    assert watch.seen == 4, "the dataset with another picture, and no other"
    words = tmp_path / "words.yaml"
    words.write_text("version: 1\ndatasets: {Poles: {purple moon: yellow crescent, nothing: nothing}}")
    watch = Watch()
    names, own = run(tree, out, watch, prompts=("names", str(words)))
    assert watch.seen == watch.planned == 4, "the dataset that is asked in other words, and no other"
    assert own.figures["Fruits"] == names.figures["Fruits"] and own.figures["Poles"] != names.figures["Poles"]
    ids = "COCOeval never finds an annotation with id 0, in the published figures neither: Fruits, Hand, Poles"
    assert own.notes == (ids, "Poles has no class 'nothing': words for it were not used")
    assert names.notes == (ids,)


def test_a_class_of_several_words_scores_as_the_best_of_them(tree: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.yaml"
    words.write_text("version: 1\ndatasets: {Hand: {blue square: [blue heart, blue square]}}")
    models = SegInWModels("mini", "mini", device="cpu")
    (row,) = run_seginw(tree, tmp_path / "out", models, prompts=(str(words),), datasets=("Hand",))
    (line, *_) = next((tmp_path / "out").glob("Hand-*.jsonl")).read_text().splitlines()
    assert json.loads(line)["class_id"] == [0] * 40, "a pair for each of mini's 40 boxes and the one class"
    assert row.figures["Hand"].mask["AP"] > 0.1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda content: content["categories"][0].update(id=1),
            r"must number its categories 0, 1, ... in their order, .* got \[1\]",
        ),
        (
            lambda content: content["images"].append({"id": 9, "file_name": "gone.jpg", "width": 9, "height": 9}),
            "1 image.s. are not there, gone.jpg for one",
        ),
        (lambda content: content["annotations"][0].pop("iscrowd"), "is not the COCO .*: ValueError: annotations without iscrowd"),
        (lambda content: content.pop("annotations"), "is not the COCO file of a SegInW dataset: KeyError: 'annotations'"),
        (
            lambda content: content["images"][0].update(width=319),
            "scene_0.png is 320x160, but _annotations_min1cat.coco.json says 319x160",
        ),
    ],
)
def test_a_tree_that_is_not_the_benchmark(change: Any, said: str, tmp_path: Path) -> None:
    file = paint_tree(tmp_path / "tree", ("Hand",), images=1) / "Hand" / "valid" / FILE
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=said):
        run_seginw(tmp_path / "tree", tmp_path / "out", SegInWModels(*FAKE), datasets=("Hand",))


def test_missing_datasets_weights_and_wrong_names_are_told_at_once(tree: Path, tmp_path: Path) -> None:
    models = SegInWModels(*FAKE)
    with pytest.raises(
        DatasetError, match=r"lacks 22 of 25 datasets \(Airplane-Parts, Bottles, Brain-Tumor, ...\).* with --dataset"
    ):
        run_seginw(tree, tmp_path, models)
    with pytest.raises(DatasetError, match=r"lacks 3 of 3 datasets .*: give .*seginw$"):
        run_seginw(tree.parent, tmp_path, models, datasets=tuple(NAMES))
    with pytest.raises(ConfigError, match="SegInW has no dataset 'Hands'; it has Airplane-Parts"):
        run_seginw(tree, tmp_path, models, datasets=("Hands",))
    with pytest.raises(WeightsError, match="no weights at"):
        SegInWModels(str(tmp_path / "gone.pth"), "mini")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("datasets: {}", "must hold version: 1"),
        ("version: 1\ndatasets: {Hands: {hand: a hand}}", "'Hands' is no dataset of SegInW"),
        ("version: 1\ndatasets: {Hand: {hand: []}}", "every class of Hand needs words that no other has"),
        ("version: 1\ndatasets: {Hand: {hand: a, metal: [b, a]}}", "every class of Hand needs words that no other has"),
        ("version: 1\ndatasets: {Hand: {hand: 3}}", "every class of Hand needs words that no other has"),
    ],
)
def test_words_that_cannot_be_used(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "words.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_words(str(tmp_path / "words.yaml"))


def test_our_wording_reads_and_is_of_datasets_that_there_are() -> None:
    words = read_words("better")
    assert set(words) <= set(DATASETS)
    assert words["Electric-Shaver"] == {"caorau": ["electric shaver"]}
    with pytest.raises(ConfigError, match="--prompts takes names, better or a YAML file, got 'best'"):
        read_words("best")


def test_the_published_columns_have_their_published_means() -> None:
    assert len(DATASETS) == 25
    means = np.mean(list(PUBLISHED.values()), axis=0)
    np.testing.assert_allclose(means, [48.7, 46.0, 49.6, 49.5, 50.0], atol=0.051)
