"""Ontologies with example images, tuned, measured and checked: an example is a prompt like any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodistill_grounded_sam import pipeline
from autodistill_grounded_sam.checking import check_dataset
from autodistill_grounded_sam.config import DecideConfig, ExportConfig, LabelConfig, RunConfig, SeeConfig
from autodistill_grounded_sam.cross_fitting import CrossFit
from autodistill_grounded_sam.errors import ConfigError, WrongRunError
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.painting import PainterSettings
from autodistill_grounded_sam.testing import paint_folder
from autodistill_grounded_sam.trusting import assess
from autodistill_grounded_sam.tuning import tune
from tests.detect.tiny_models import save_owl

IMAGES = 24
LOW = DecideConfig(box_threshold=0.05, text_threshold=0.05)


def config_of(detector: str) -> LabelConfig:
    return LabelConfig(
        see=SeeConfig(detector=detector, masks="none", floor=0.05),
        run=RunConfig(device="cpu", offline=True, report=False),
        decide=LOW,
        export=ExportConfig(formats=("yolo",)),
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a tiny OWL-ViT (random weights), and a truth that holds what scores in the upper half of each class."""
    home = tmp_path_factory.mktemp("home")
    paint_folder(home / "images", IMAGES, settings=PainterSettings(width=96, height=72))
    first = sorted((home / "images").rglob("*.png"))[0].relative_to(home)
    save_owl(home / "owl", "owlvit")
    (home / "words.yaml").write_text(
        "version: 1\nclasses:\n"
        f"  cat: {{prompts: [red cat], examples: [{{image: {first}, box: [5, 10, 40, 70]}}]}}\n"
        f"  logo: {{examples: [{{image: {first}, box: [0, 0, 30, 30]}}]}}\n"
    )
    pipeline.label(home / "images", home / "words.yaml", home / "out", config_of(str(home / "owl")))
    write_truth(home)
    return home


def write_truth(home: Path) -> None:
    _, labelled = pipeline.decided_labels(home / "out")
    rows = list(labelled)
    bars = [np.median(np.concatenate([labels.score[labels.class_id == k] for _, labels in rows])) for k in (0, 1)]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image, labels in rows:
        images.append({"id": len(images), "file_name": image.id, "width": image.width, "height": image.height})
        for class_id, (x1, y1, x2, y2), score in zip(labels.class_id.tolist(), labels.xyxy.tolist(), labels.score, strict=True):
            if score >= bars[class_id]:
                box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0, "area": (x2 - x1) * (y2 - y1)}
                annotations.append({"id": len(annotations) + 1, "image_id": images[-1]["id"], "category_id": class_id + 1, **box})
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "logo"}]
    (home / "truth.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def test_tune__thresholds_of_examples_come_from_the_stored_candidates(home: Path) -> None:
    tuned = tune(home / "out", home / "truth.json")
    assert not (home / "out/run/tune").exists(), "no model was asked"
    given = Ontology.load(home / "words.yaml")
    assert tuned.ontology.examples == given.examples and Ontology.load(tuned.out) == tuned.ontology
    cat, logo = tuned.choices
    assert (cat.words, logo.words) == (("red cat",), ())
    assert logo.objects > 0 and logo.verdict == "changed" and logo.threshold is not None and logo.threshold > 0.05
    again = pipeline.redecide(home / "out", tuned.decide, tuned.ontology)
    assert again.per_class["logo"] < pipeline.redecide(home / "out", LOW, home / "words.yaml").per_class["logo"]


def test_tune__other_words_are_tried_beside_the_examples(home: Path) -> None:
    tuned = tune(home / "out", home / "truth.json", words={"logo": ["dog"]}, config=config_of(str(home / "owl")))
    (look,) = (home / "out/run/tune").iterdir()
    asked = set(json.loads((look / "run/run.json").read_text())["identity"]["prompts"])
    assert asked == {"dog", *Ontology.load(home / "words.yaml").prompts}
    assert tuned.ontology.examples == Ontology.load(home / "words.yaml").examples


def test_tune__a_folder_with_a_detector_of_words_alone(home: Path) -> None:
    with pytest.raises(ConfigError, match="the ontology holds example images, but mini knows words alone; OWLv2"):
        tune(home / "images", home / "truth.json", ontology=home / "words.yaml", config=config_of("mini"))


def test_decide__other_examples_than_the_run_was_asked_for(home: Path) -> None:
    other = (home / "words.yaml").read_text().replace("[0, 0, 30, 30]", "[0, 0, 31, 30]")
    (home / "other.yaml").write_text(other)
    with pytest.raises(WrongRunError, match=r"was never asked for the example .*\.png \(box \[0.0, 0.0, 31.0, 30.0\]\); it was"):
        pipeline.redecide(home / "out", LOW, home / "other.yaml")


def test_quality_and_check__read_a_run_of_examples(home: Path) -> None:
    measured = assess(home / "out", home / "truth.json")
    assert set(measured.per_class) == {"cat", "logo"}
    found = check_dataset(home / "truth.json", images=home / "images", predictions=home / "out", out=home / "checked")
    assert found.images == IMAGES and found.labels > 0


def test_check__folds_that_would_adapt_refuse_examples_at_once(home: Path) -> None:
    with pytest.raises(ConfigError, match="adapting teaches words, and 'cat', 'logo' of the ontology holds example images"):
        check_dataset(
            home / "truth.json", images=home / "images", ontology=home / "words.yaml", out=home / "c", settings=CrossFit(length=1)
        )
