"""Example images instead of words: the numbers of transformers' own image-guided detection, and the line from the YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForZeroShotObjectDetection,
    CLIPTokenizer,
    Sam3ImageProcessor,
    Sam3Model,
    Sam3Processor,
)

from autodistill_grounded_sam.detect.owl import Owl
from autodistill_grounded_sam.detect.sam3 import Sam3
from autodistill_grounded_sam.errors import ConfigError, OntologyError
from autodistill_grounded_sam.example_images import Example
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.types import RgbImage
from tests.detect.tiny_models import IMAGES, PROMPTS, assert_same, picture, save_owl, save_sam3

ASKED = IMAGES[0]


def example_of(folder: Path, image: RgbImage, box: tuple[float, float, float, float]) -> Example:
    Image.fromarray(image).save(folder / "example.png")
    return Example.of(folder / "example.png", box)


def guided(folder: Path, query: RgbImage) -> Any:
    """transformers' answer: the objects in ASKED that are like what it picks in `query` by itself."""
    processor = AutoImageProcessor.from_pretrained(folder)
    model = AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    both = [
        processor(images=[one], input_data_format="channels_last", return_tensors="pt")["pixel_values"] for one in (ASKED, query)
    ]
    with torch.inference_mode():
        return model, model.image_guided_detection(pixel_values=both[0], query_pixel_values=both[1])


def seen_by(folder: Path, example: Example) -> Any:
    detector = Owl(str(folder), floor=0.0, nms_iou=1.0, examples={example.prompt: example.document()})
    with torch.inference_mode():
        words = detector._read((example.prompt,))
        return detector, words, detector._look([ASKED], words)[0]


def test_owlvit__an_example_of_the_whole_picture_is_what_transformers_asks(tmp_path: Path) -> None:
    """Its only query is the whole picture, [0, 0, 1, 1]; with that box ours picks the same patch, and the scores are the same."""
    folder, query = save_owl(tmp_path / "model", "owlvit"), picture(90, 70, 5)
    _, theirs = guided(folder, query)
    scores = theirs.logits[0, :, 0].sigmoid()
    _, _, (boxes, ours, _) = seen_by(folder, example_of(tmp_path, query, (0, 0, 90, 70)))
    centre, half = theirs.target_pred_boxes[0, :, :2], theirs.target_pred_boxes[0, :, 2:] / 2
    height, width = ASKED.shape[:2]
    every = torch.cat([centre - half, centre + half], dim=1) * torch.tensor([width, height] * 2)
    every = every.clamp(min=0).minimum(torch.tensor([width, height] * 2))
    whole = (every[:, 2:] > every[:, :2]).all(dim=1)
    order = np.argsort(-scores[whole].numpy(), kind="stable")
    mine = np.argsort(-ours[:, 0], kind="stable")
    assert scores.std() > 1e-3
    np.testing.assert_allclose(ours[mine, 0], scores[whole].numpy()[order], atol=1e-5)
    np.testing.assert_allclose(np.sort(boxes, axis=0), np.sort(every[whole].numpy(), axis=0), atol=0.01)


def test_owlv2__transformers_takes_the_likeliest_object_ours_the_box_that_was_given(tmp_path: Path) -> None:
    """Given the box of the patch that it picks by itself (most objectness), the scores are its own; given another, not."""
    folder, query = save_owl(tmp_path / "model", "owlv2"), picture(96, 96, 6)
    model, theirs = guided(folder, query)
    with torch.inference_mode():
        patches = theirs.query_image_embeds.flatten(1, 2)
        likeliest = int(model.objectness_predictor(patches)[0].argmax())
        embedded = model.class_predictor(patches)[1][0]
    scores = theirs.logits[0, :, 0].sigmoid().numpy()
    agree = []
    for patch in range(len(embedded)):
        x, y, w, h = (theirs.query_pred_boxes[0, patch] * 96).tolist()
        box = (max(x - w / 2, 0), max(y - h / 2, 0), min(x + w / 2, 96), min(y + h / 2, 96))
        if box[2] - box[0] < 2 or box[3] - box[1] < 2:
            continue
        _, words, (_, ours, _) = seen_by(folder, example_of(tmp_path, query, box))
        same = torch.allclose(words[0], embedded[likeliest] / embedded[likeliest].norm(), atol=1e-5)
        if same:
            assert max(np.abs(scores - score).min() for score in ours[:, 0]) < 1e-5  # less those in the filling of the square
            assert len(ours) > len(scores) / 3 and scores.std() > 1e-3
        agree.append(same)
    assert any(agree) and not all(agree)


@pytest.mark.parametrize("kind", ["owlvit", "owlv2"])
def test_owl__words_and_examples_each_score_as_alone(tmp_path: Path, kind: str) -> None:
    folder = save_owl(tmp_path / "model", kind)
    example = example_of(tmp_path, picture(60, 80, 3), (5, 10, 40, 70))
    detector = Owl(str(folder), floor=0.0, nms_iou=1.0, examples={example.prompt: example.document()})
    (mixed,) = detector.detect([ASKED], [PROMPTS[0], example.prompt, PROMPTS[1]])
    (words,) = Owl(str(folder), floor=0.0, nms_iou=1.0).detect([ASKED], PROMPTS[:2])
    (alone,) = detector.detect([ASKED], [example.prompt])
    np.testing.assert_allclose(np.sort(mixed.scores[:, [0, 2]], axis=0), np.sort(words.scores, axis=0), atol=1e-6)
    np.testing.assert_allclose(np.sort(mixed.scores[:, 1]), np.sort(alone.scores[:, 0]), atol=1e-6)


def test_sam3__an_example_in_the_image_itself_is_what_transformers_asks(tmp_path: Path) -> None:
    folder, height, width = save_sam3(tmp_path / "model"), *ASKED.shape[:2]
    box = (0.2 * width, 0.3 * height, 0.7 * width, 0.8 * height)
    example = example_of(tmp_path, ASKED, box)
    processor = Sam3Processor(Sam3ImageProcessor.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder))
    inputs = processor(
        images=[ASKED],
        input_boxes=[[list(box)]],
        input_boxes_labels=[[1]],
        return_tensors="pt",
        input_data_format="channels_last",
    )
    with torch.inference_mode():
        output = Sam3Model.from_pretrained(folder).eval()(
            **{key: value for key, value in inputs.items() if key != "original_sizes"}
        )
    (theirs,) = processor.post_process_object_detection(output, threshold=0.05, target_sizes=[ASKED.shape[:2]])
    (ours,) = Sam3(str(folder), examples={example.prompt: example.document()}).detect([ASKED], [example.prompt])
    order = np.argsort(-theirs["scores"].numpy(), kind="stable")
    boxes = theirs["boxes"].numpy()[order].clip(0, [width, height] * 2)
    whole = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    assert whole.any()
    assert_same(ours, boxes[whole], theirs["scores"].numpy()[order][whole, None])
    (word,) = Sam3(str(folder)).detect([ASKED], ["visual"])
    assert len(word) != len(ours) or np.abs(word.scores - ours.scores).max() > 1e-4, "the example changed nothing"


def test_sam3__words_and_examples_in_any_order(tmp_path: Path) -> None:
    folder = save_sam3(tmp_path / "model")
    example = example_of(tmp_path, picture(60, 80, 3), (5, 10, 40, 70))
    detector = Sam3(str(folder), examples={example.prompt: example.document()}, floor=0.0)
    (first,) = detector.detect([ASKED], [PROMPTS[0], example.prompt, PROMPTS[1]])
    (second,) = detector.detect([ASKED], [example.prompt, PROMPTS[1], PROMPTS[0]])
    np.testing.assert_allclose(np.sort(first.scores, axis=0), np.sort(second.scores[:, [2, 0, 1]], axis=0), atol=1e-5)


def test_yaml__paths_begin_at_the_file_and_the_store_belongs_to_the_pixels(tmp_path: Path) -> None:
    Image.fromarray(picture(60, 80, 3)).save(tmp_path / "cat.png")
    file = tmp_path / "words.yaml"
    file.write_text(
        "version: 1\nclasses:\n"
        "  cat: {prompts: [a cat], examples: [{image: cat.png, box: [5, 10, 40, 70]}], box_threshold: 0.2}\n"
        "  logo: {examples: [{image: cat.png, box: [0, 0, 9, 9]}]}\n"
    )
    words = Ontology.load(file)
    (prompt, logo) = words.examples
    assert words.prompts == ("a cat", prompt, logo) and words.prompt_class.tolist() == [0, 0, 1]
    assert Ontology.from_document(words.document()) == words == Ontology.from_yaml_text(words.to_yaml_text())
    Image.fromarray(picture(60, 80, 4)).save(tmp_path / "cat.png")
    assert list(Ontology.load(file).examples) != [prompt, logo]
    with pytest.raises(OntologyError, match=r"cat.png, box \[5.0, 10.0, 40.0, 70.0\], is not what it was when the run began"):
        words.examples[prompt].pixels()


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ("{image: cat.png, box: [5, 10, 90, 70]}", r"must be \[x1, y1, x2, y2\] in pixels of .*cat.png, which is 60x80"),
        ("{image: none.png, box: [5, 10, 40, 70]}", r"class 'cat': the example .*none.png cannot be read"),
        ("{image: cat.png}", r"class 'cat': an example must be {image: path, box: \[x1, y1, x2, y2\]}, got {'image': 'cat.png'}"),
        (
            "{image: cat.png, box: [1, 2, three, 4]}",
            r"the box of an example must be \[x1, y1, x2, y2\] in pixels, got \[1, 2, 'three', 4\]",
        ),
    ],
)
def test_yaml__what_is_no_example(tmp_path: Path, example: str, message: str) -> None:
    Image.fromarray(picture(60, 80, 3)).save(tmp_path / "cat.png")
    (tmp_path / "words.yaml").write_text(f"version: 1\nclasses: {{cat: {{examples: [{example}]}}}}\n")
    with pytest.raises(OntologyError, match=message):
        Ontology.load(tmp_path / "words.yaml")


def test_a_detector_of_words_alone_refuses(tmp_path: Path) -> None:
    from autodistill_grounded_sam.detect.omdet_turbo import OmDetTurbo
    from tests.detect.tiny_models import save_omdet

    example = example_of(tmp_path, picture(60, 80, 3), (5, 10, 40, 70))
    with pytest.raises(ConfigError, match="knows words alone, so it cannot be given example images"):
        OmDetTurbo(str(save_omdet(tmp_path / "model")), examples={example.prompt: example.document()})
