from __future__ import annotations

from pathlib import Path

import pytest

from autodistill_grounded_sam import plugins
from autodistill_grounded_sam.errors import ConfigError
from autodistill_grounded_sam.painting import PainterSettings, paint_scene
from autodistill_grounded_sam.tag.choosing import load_tagger
from autodistill_grounded_sam.tag.vocabulary import OF_MINI, Vocabulary
from autodistill_grounded_sam.testing import check_tagger
from tests.detect.tiny_models import save_owl


def test_mini_names_what_is_painted() -> None:
    """Of 64 names, on 8 scenes: most that are there, few that are not (`discover` drops what others name better)."""
    scenes = [paint_scene(PainterSettings(objects=(1, 3)), 71_000 + seed) for seed in range(8)]
    tagger = plugins.load("taggers", "mini")
    found = [{tag.name for tag in tags} for tags in tagger.tag([scene.image_rgb for scene in scenes])]
    there = [{item.name for item in scene.objects} for scene in scenes]
    right = sum(len(seen & true) for seen, true in zip(found, there, strict=True))
    assert right >= 0.85 * sum(map(len, there)) and right >= 0.7 * sum(map(len, found))
    assert len(OF_MINI) == 64


def test_it_keeps_the_contract_and_asks_each_word_once() -> None:
    tagger = Vocabulary("mini", words=("Red Circle", "red_circle", "blue square"), threshold=0.0)
    check_tagger(tagger)
    (tags,) = tagger.tag([paint_scene(PainterSettings(), 1).image_rgb])
    assert [tag.name for tag in tags] == ["red circle", "blue square"]


def test_any_detector_is_a_tagger_with_words__and_none_without(tmp_path: Path) -> None:
    folder = str(save_owl(tmp_path / "owl", "owlv2"))
    for name in (folder, "autodistill_grounded_sam.testing:FakeDetector"):
        tagger = load_tagger(name, ("red cat", "dog"))
        assert isinstance(tagger, Vocabulary)
        check_tagger(tagger)
    with pytest.raises(ConfigError, match="has a list of tags of its own"):
        load_tagger("ram-plus", ("dog",))
    for name in (folder, "google/owlv2-base-patch16-ensemble"):
        with pytest.raises(ConfigError, match=r"is a detector: as a tagger it needs words to ask for, give them \(--words\)"):
            plugins.load("taggers", name)
    with pytest.raises(ConfigError, match="at least one word"):
        Vocabulary("mini", words=())
