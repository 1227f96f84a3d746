"""What the page can ask: the sliders show what `label` and `decide` would do, and no slider asks a model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autodistill_grounded_sam import pipeline, plugins
from autodistill_grounded_sam.app import views
from autodistill_grounded_sam.app.playground import Playground, Settings
from autodistill_grounded_sam.config import DecideConfig
from autodistill_grounded_sam.errors import ConfigError, ImageReadError, OntologyError
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.reviews import Review, append_reviews
from autodistill_grounded_sam.testing import paint_folder
from tests.app.app_kit import CONFIG, SIZE, WORDS, facts, label_folder, playground

ONTOLOGY = Ontology.load(WORDS)
SETTINGS = (
    Settings(0.35),
    Settings(0.15),
    Settings(0.8),
    Settings(0.3, {"ball": 0.6}),
    Settings(0.3, {"ball": 0.6, "box": 0.1}, 0.4, 0.5),
)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that gets a line for every image that a model is shown."""
    log = tmp_path / "asked.log"
    log.touch()
    monkeypatch.setenv("AGS_FAKE_LOG", str(log))
    return log


def count(log: Path) -> int:
    return len(log.read_text().splitlines())


@pytest.mark.parametrize("settings", SETTINGS)
def test_an_image_shows_the_labels_that_label_gives_it_with_these_settings(tmp_path: Path, settings: Settings) -> None:
    paint_folder(tmp_path / "images", 5, settings=SIZE)
    place, config = playground(), settings.config(DecideConfig())
    pipeline.label(
        tmp_path / "images", settings.applied(ONTOLOGY), tmp_path / "out", CONFIG.model_copy(update={"decide": config})
    )
    labelled = list(pipeline.decided_labels(tmp_path / "out")[1])
    assert sum(len(labels) for _, labels in labelled) > 2
    for image, labels in labelled:
        look = place.look_at_file(image.path, image.id, CONFIG.see, ONTOLOGY)
        assert facts(place.labels(look, settings)) == facts(labels)


def test_where_a_run_made_masks_of_what_it_kept_a_lower_score_shows_what_label_would_keep_by_it(tmp_path: Path) -> None:
    paint_folder(tmp_path / "images", 6, settings=SIZE)
    see, settings = CONFIG.see.model_copy(update={"masks": "kept"}), Settings(0.1)
    low = CONFIG.model_copy(update={"see": see, "decide": settings.config(DecideConfig())})
    pipeline.label(tmp_path / "images", settings.applied(ONTOLOGY), tmp_path / "out", low)
    place = playground()
    for image, labels in pipeline.decided_labels(tmp_path / "out")[1]:
        look = place.look_at_file(image.path, image.id, see, ONTOLOGY)
        assert facts(place.labels(look, settings)) == facts(labels)


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_saved_ontology_keeps_the_same_labels_without_a_flag(settings: Settings) -> None:
    usual = replace(
        settings, duplicate_iou=DecideConfig().duplicate_iou, duplicate_containment=DecideConfig().duplicate_containment
    )
    place = playground()
    look = place.look_at_scene(3, CONFIG.see, ONTOLOGY)
    read_back = Ontology.from_yaml_text(usual.written(ONTOLOGY, DecideConfig()).to_yaml_text())
    plain = Settings.of(DecideConfig(), read_back)
    assert facts(place.labels(replace(look, ontology=read_back), plain)) == facts(place.labels(look, usual))


def test_the_saved_ontology_decides_a_run_the_same_whatever_it_was_decided_by_before(tmp_path: Path) -> None:
    out = label_folder(tmp_path)
    before = DecideConfig(box_threshold=0.8)
    pipeline.redecide(out, before)
    place = playground(out)
    look_at, see, words = place.look_at_run, place.material.see, place.material.ontology
    for settings in (Settings(0.35), Settings(0.8), Settings(0.35, {"ball": 0.6})):
        shown = [facts(place.labels(look_at(number, see, words), settings)) for number in range(6)]
        pipeline.redecide(out, before, settings.written(words, place.material.decide))
        assert [facts(labels) for _, labels in pipeline.decided_labels(out)[1]] == shown


def test_what_the_models_warn_of_is_shown_beside_their_answer() -> None:
    place = playground(detector="mini", segmenter="mini")
    see = place.material.see
    look = place.look_at_scene(3, see, Ontology.load({"中": "<b>"}))
    shown = views.show_picture(look, place.labels(look, place.start), "picture", dropped=False)
    assert "prompt &#39;中&#39; is unknown to this model&#39;s vocabulary" in shown
    assert not place.look_at_scene(3, see, ONTOLOGY).warnings


@pytest.mark.slow
def test_the_real_mini_models_see_in_the_page_what_they_see_in_a_folder(tmp_path: Path) -> None:
    paint_folder(tmp_path / "images", 2, seed=4)
    place = playground(detector="mini", segmenter="mini")
    config = CONFIG.model_copy(update={"see": place.material.see})
    pipeline.label(tmp_path / "images", ONTOLOGY, tmp_path / "out", config)
    for image, labels in pipeline.decided_labels(tmp_path / "out")[1]:
        look = place.look_at_file(image.path, image.id, place.material.see, ONTOLOGY)
        assert facts(place.labels(look, place.start)) == facts(labels)


def test_models_stay_in_memory_whatever_the_words_and_answer_as_if_loaded_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also words of other captions: exclusive classes must share one."""
    loaded: list[str] = []
    load = plugins.load
    monkeypatch.setattr(plugins, "load", lambda role, name, **given: (loaded.append(role), load(role, name, **given))[1])
    words = [
        ONTOLOGY,
        Ontology.load({"green star": "star", "a red ring": "ring"}),
        Ontology.load({"version": 1, "classes": {"one": ["red circle"], "two": ["green star"]}, "exclusive": [["one", "two"]]}),
    ]
    place = playground(detector="mini+mini", segmenter="mini")
    see = place.material.see
    looks = [place.look_at_scene(3, see, each) for each in words]
    assert sorted(loaded) == ["detectors", "detectors", "segmenters"]
    for look, each in zip(looks, words, strict=True):
        fresh = playground(detector="mini+mini", segmenter="mini").look_at_scene(3, see, each)
        np.testing.assert_array_equal(look.candidates.scores, fresh.candidates.scores)
        assert look.candidates.rle == fresh.candidates.rle and len(fresh.candidates) > 0


def test_sliders_and_words_that_were_asked_before_need_no_model(asked: Path) -> None:
    place = playground()
    look = place.look_at_scene(1, CONFIG.see, ONTOLOGY)
    assert count(asked) == 1
    found = {len(place.labels(look, settings)) for settings in SETTINGS}
    assert len(found) > 1 and count(asked) == 1
    place.look_at_scene(1, CONFIG.see, ONTOLOGY)
    assert count(asked) == 1
    place.look_at_scene(1, CONFIG.see, replace(ONTOLOGY, negatives=("red moon",)))
    assert count(asked) == 2


def test_a_class_that_is_renamed_is_no_new_question(asked: Path) -> None:
    place = playground()
    place.look_at_scene(1, CONFIG.see, ONTOLOGY)
    renamed = Ontology.load({prompt: name.upper() for prompt, name in WORDS.items()})
    assert place.look_at_scene(1, CONFIG.see, renamed).ontology.class_names == ("BALL", "BOX")
    assert count(asked) == 1


def test_a_run_is_shown_as_it_was_decided_without_a_model(tmp_path: Path, asked: Path) -> None:
    out = label_folder(tmp_path)
    seen = count(asked)
    place = playground(out)
    run = place.material.run
    assert run is not None and run.images == 6 and run.name == "out"
    for number, (image, labels) in enumerate(pipeline.decided_labels(out)[1]):
        look = place.look_at_run(number, place.material.see, place.material.ontology)
        assert (look.name, look.seconds) == (image.id, None)
        assert facts(place.labels(look, place.start)) == facts(labels)
    fewer = Ontology.load({"blue square": "box", "orange circle": "fruit"})  # of what was asked, in another order
    assert place.look_at_run(0, place.material.see, fewer).seconds is None
    assert count(asked) == seen
    other = Ontology.load({**WORDS, "green star": "star"})
    assert place.look_at_run(0, place.material.see, other).seconds is not None
    assert count(asked) == seen + 1


def test_an_image_of_the_run_that_is_gone_is_told_by_its_name(tmp_path: Path) -> None:
    place = playground(label_folder(tmp_path, 2))
    (tmp_path / "images" / "scene_0001.png").unlink()
    with pytest.raises(ImageReadError, match=r"scene_0001.png: the file does not exist; were the images moved\? .* --images"):
        place.look_at_run(1, place.material.see, place.material.ontology)


def test_settings_are_saved_back_into_the_run(tmp_path: Path) -> None:
    out = label_folder(tmp_path)
    place = playground(out)
    run, settings = place.material.run, SETTINGS[-1]
    assert run is not None
    summary = run.decide(settings.config(place.material.decide), settings.applied(place.material.ontology))
    again = playground(out)
    assert again.start == settings
    shown = 0
    for number, (_, labels) in enumerate(pipeline.decided_labels(out)[1]):
        look = again.look_at_run(number, again.material.see, again.material.ontology)
        assert facts(again.labels(look, again.start)) == facts(labels)
        shown += len(labels)
    assert summary.labels == shown > 0


def test_trust_of_other_settings_is_left_out_and_that_is_told(tmp_path: Path) -> None:
    out = label_folder(tmp_path)
    path = out / "run" / "decide.json"
    content = json.loads(path.read_text())
    content["decide"]["trust"] = 0.8  # measured of nothing
    path.write_text(json.dumps(content))
    place = playground(out)
    run = place.material.run
    assert run is not None
    summary = run.decide(Settings(0.2).config(place.material.decide), place.material.ontology)
    assert summary.notes[-1].startswith("images no longer wait for review: trust 0.8 was measured with other settings")
    assert pipeline.last_settings(out)[0].trust == 0.0


def test_what_a_person_said_of_an_image_is_shown(tmp_path: Path) -> None:
    out = label_folder(tmp_path)
    _, labelled = pipeline.decided_labels(out)
    number, (image, labels) = next((n, one) for n, one in enumerate(labelled) if len(one[1]) > 0)
    name = ONTOLOGY.class_names[int(labels.class_id[0])]
    box = tuple(float(edge) for edge in labels.xyxy[0])
    said = Review(image.id, image.digest, box, name, "rejected", "2026-11-26T12:00:00+00:00")  # type: ignore[arg-type]
    place = playground(out)
    look = place.look_at_run(number, place.material.see, place.material.ontology)
    assert len(place.labels(look, place.start)) == len(labels)
    append_reviews(out / "run" / "reviews.jsonl", [said])
    for when in (place, playground(out)):  # said while the page is open, and before
        assert len(when.labels(look, when.start)) == len(labels) - 1


def test_pictures_are_upright_and_named_by_a_key_alone(tmp_path: Path) -> None:
    from PIL import Image

    image = Image.fromarray(np.full((40, 2000, 3), 200, np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    image.save(tmp_path / "wide.jpg", exif=exif)
    place = playground()
    look = place.look_at_file(tmp_path / "wide.jpg", "wide.jpg", CONFIG.see, ONTOLOGY)
    assert look.size_wh == (40, 2000)
    content = place.picture(look.key)
    assert content is not None
    (tmp_path / "shown.jpg").write_bytes(content)
    assert Image.open(tmp_path / "shown.jpg").size == (32, 1600)
    assert place.picture("wide.jpg") is None and place.picture("../wide.jpg") is None


def test_faults_say_what_is_wrong(tmp_path: Path) -> None:
    place = playground()
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(ImageReadError, match=r"damaged: PNG: broken PNG file .*\(broken.png\)"):
        place.look_at_file(tmp_path / "broken.png", "broken.png", CONFIG.see, ONTOLOGY)
    with pytest.raises(ConfigError, match=r"there is no image 3 in the run; it holds 0"):
        place.look_at_run(2, CONFIG.see, ONTOLOGY)


def test_an_ontology_is_saved_and_no_file_of_others_is_replaced(tmp_path: Path) -> None:
    place = playground()
    path = place.save(ONTOLOGY, str(tmp_path / "mine.yaml"))
    assert Ontology.from_yaml(path) == ONTOLOGY
    place.save(replace(ONTOLOGY, negatives=("moon",)), str(path))  # its own, again
    with pytest.raises(OntologyError, match=r"mine.yaml is there already and was not saved by this page; choose another name"):
        playground().save(ONTOLOGY, str(path))
    with pytest.raises(OntologyError, match=r"the file of an ontology ends in .yaml, got 'mine.txt'"):
        place.save(ONTOLOGY, "mine.txt")
    with pytest.raises(OntologyError, match=r"there is no folder .*gone to save the ontology in"):
        place.save(ONTOLOGY, str(tmp_path / "gone" / "mine.yaml"))


@pytest.mark.parametrize("path", ["~nobody-here/mine.yaml", "a\0b.yaml", "x" * 300 + ".yaml"])
def test_a_path_that_nothing_can_have_is_told(path: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot be used as a path: \S"):
        playground().save(ONTOLOGY, path)


def test_looks_are_let_go_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autodistill_grounded_sam.app.playground.LOOKS_IN_MEMORY", 2)
    place: Playground = playground()
    keys = [place.look_at_scene(seed, CONFIG.see, ONTOLOGY).key for seed in range(3)]
    assert [place.picture(key) is not None for key in keys] == [False, True, True]
