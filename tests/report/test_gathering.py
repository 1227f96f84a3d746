"""One pass over labels: the counts are those of a loop without cleverness, and the examples those that a sort would choose."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autodistill_grounded_sam.config import DecideConfig
from autodistill_grounded_sam.decide.chain import decide
from autodistill_grounded_sam.decide.scores import score_classes
from autodistill_grounded_sam.masks import encode_mask
from autodistill_grounded_sam.ontology import ClassSpec, Ontology
from autodistill_grounded_sam.report.gathering import MAP_CELLS, SCORE_BINS, TAKEN_AT_ONCE, Gathered, Gatherer
from autodistill_grounded_sam.report.samples import Kind
from autodistill_grounded_sam.types import REASONS, Candidates, ImageRecord, Labels, Reason, State

WIDTH, HEIGHT = 64, 48
ONTOLOGY = Ontology((ClassSpec("a", ("thing",), 0.5), ClassSpec("b", ("other", "else"))), negatives=("wall",))
CONFIG = DecideConfig()
THRESHOLDS = ONTOLOGY.thresholds(CONFIG.box_threshold)
SHOWN = 3
Seen = list[tuple[ImageRecord, Candidates, Labels]]


def see(number: int) -> tuple[ImageRecord, Candidates, Labels]:
    rng = np.random.default_rng(number)
    count = int(rng.integers(0, 6))
    corner, size = rng.uniform(0, 0.6, (count, 2)), rng.uniform(0.05, 0.4, (count, 2))
    xyxy = np.concatenate([corner, corner + size], axis=1) * [WIDTH, HEIGHT, WIDTH, HEIGHT]
    masks = []
    for x1, y1, x2, y2 in xyxy.astype(int).tolist():
        mask = np.zeros((HEIGHT, WIDTH), np.bool_)
        mask[y1 : y2 + 1, x1 : x2 + 1] = True
        masks.append(encode_mask(mask))
    scores = rng.beta(0.7, 1.2, (count, 4)).astype(np.float32)
    candidates = Candidates(xyxy.astype(np.float32), scores, tuple(masks), np.ones(count, np.float32))
    image = ImageRecord(f"{number:04d}.png", f"{rng.integers(0, 2**63):016x}" + "0" * 48, Path("/nowhere"), WIDTH, HEIGHT)
    return image, candidates, decide(candidates, ONTOLOGY, CONFIG, WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def seen() -> Seen:
    return [see(number) for number in range(3 * TAKEN_AT_ONCE + 7)]


@pytest.fixture(scope="module")
def gathered(seen: Seen) -> Gathered:
    gatherer = Gatherer(ONTOLOGY, THRESHOLDS, SHOWN)
    for number, (image, candidates, labels) in enumerate(seen):
        gatherer.add(image, candidates, labels, "valid" if number % 5 == 0 else "train")
    return gatherer.result()


def test_counts_are_those_of_a_plain_loop(seen: Seen, gathered: Gathered) -> None:
    labels, images_with, sides = Counter[int](), Counter[int](), Counter[tuple[int, int]]()
    fates, states, best = Counter[tuple[int, int]](), Counter[State](), [0.0, 0.0]
    for number, (_, candidates, own) in enumerate(seen):
        states[own.state] += 1
        labels.update(own.class_id.tolist())
        images_with.update(set(own.class_id.tolist()))
        sides.update((class_id, int(number % 5 == 0)) for class_id in own.class_id.tolist())
        scored = score_classes(candidates.scores, ONTOLOGY)
        fates.update(zip(scored.class_id.tolist(), own.reasons.tolist(), strict=True))
        for class_id, score in zip(scored.class_id.tolist(), scored.score.tolist(), strict=True):
            best[class_id] = max(best[class_id], score)
    assert gathered.labels.tolist() == [labels[0], labels[1]] and gathered.images == len(seen)
    assert gathered.images_with.tolist() == [images_with[0], images_with[1]]
    assert gathered.sides.tolist() == [[sides[c, s] for s in (0, 1)] for c in (0, 1)]
    assert gathered.states == states and states[State.EMPTY] > 0
    assert gathered.scores.sum(axis=2).tolist() == [[fates[c, r] for r in range(len(REASONS))] for c in (0, 1)]
    assert gathered.best.tolist() == best
    assert gathered.objects == Counter(len(own) for _, _, own in seen)
    assert gathered.areas.sum() == gathered.margins.sum() == gathered.sizes.sum() == gathered.labels.sum()


def test_scores_lie_in_their_bins_on_their_side_of_the_threshold(gathered: Gathered) -> None:
    low, kept = REASONS.index(Reason.THRESHOLD), REASONS.index(Reason.KEPT)
    at = int(0.5 * SCORE_BINS)
    assert gathered.scores[0, low, at:].sum() == 0 and gathered.scores[0, kept, :at].sum() == 0
    assert gathered.scores[0, low].sum() and gathered.scores[0, kept].sum()


def test_where_counts_the_boxes_over_each_cell(seen: Seen, gathered: Gathered) -> None:
    expected = np.zeros((2, MAP_CELLS, MAP_CELLS), np.int64)
    for _, _, own in seen:
        for class_id, (x1, y1, x2, y2) in zip(own.class_id.tolist(), own.xyxy.tolist(), strict=True):
            left, top = int(x1 / WIDTH * MAP_CELLS), int(y1 / HEIGHT * MAP_CELLS)
            right, bottom = int(np.ceil(x2 / WIDTH * MAP_CELLS)), int(np.ceil(y2 / HEIGHT * MAP_CELLS))
            expected[class_id, top : max(bottom, top + 1), left : max(right, left + 1)] += 1
    assert (gathered.where == expected).all()


def test_examples_are_the_first_ones_of_their_order_and_no_image_comes_twice(seen: Seen, gathered: Gathered) -> None:
    kept = [(score, image.id) for image, _, own in seen for c, score in zip(own.class_id, own.score, strict=True) if c == 1]
    best: dict[str, float] = {}
    for score, image_id in kept:
        best[image_id] = max(best.get(image_id, 0.0), float(score))
    expected = sorted(best.values(), reverse=True)[: 2 * SHOWN]
    shown = gathered.examples[Kind.BEST][1]
    assert [example.score for example in shown] == pytest.approx(expected)
    assert len({example.image.id for example in shown}) == len(shown) == 2 * SHOWN
    for example in gathered.examples[Kind.JUST_MISSED][0]:
        assert example.reason is Reason.THRESHOLD and example.score < 0.5
    assert [e.score for e in gathered.examples[Kind.JUST_KEPT][0]] == sorted(
        e.score for e in gathered.examples[Kind.JUST_KEPT][0]
    )
    assert all(example.reason is reason for reason, some in gathered.dropped.items() for example in some)


def test_examples_depend_on_the_images_and_not_on_the_order_in_which_they_come(seen: Seen, gathered: Gathered) -> None:
    gatherer = Gatherer(ONTOLOGY, THRESHOLDS, SHOWN)
    for image, candidates, labels in reversed(seen):
        gatherer.add(image, candidates, labels, "train")
    other = gatherer.result()
    assert other.examples == gathered.examples and other.dropped == gathered.dropped and other.whole == gathered.whole


def test_what_is_drawn_at_random_is_of_all_scores(seen: Seen) -> None:
    gatherer = Gatherer(ONTOLOGY, THRESHOLDS, 40)
    for image, candidates, labels in seen:
        gatherer.add(image, candidates, labels, "train")
    drawn = [example.score for example in gatherer.result().examples[Kind.RANDOM][1]]
    all_scores = np.concatenate([labels.score[labels.class_id == 1] for _, _, labels in seen])
    assert np.mean(drawn) == pytest.approx(float(all_scores.mean()), abs=0.05)


def test_no_image_and_images_without_a_candidate() -> None:
    assert Gatherer(ONTOLOGY, THRESHOLDS, SHOWN).result().images == 0
    gatherer = Gatherer(ONTOLOGY, THRESHOLDS, SHOWN)
    gatherer.add(seen_nothing := see(0)[0], Candidates.none(4), Labels.nothing(), "train")
    gathered = gatherer.result()
    assert gathered.states[State.EMPTY] == 1 and gathered.whole[State.EMPTY][0].image == seen_nothing


def test_labels_that_wait_for_review_are_on_no_side_of_the_split(seen: Seen) -> None:
    gatherer = Gatherer(ONTOLOGY, THRESHOLDS, SHOWN)
    first, second = [row for row in seen if len(row[2])][:2]
    gatherer.add(*first, "train")
    image, candidates, labels = second
    gatherer.add(image, candidates, replace(labels, state=State.REVIEW), "valid")
    gathered = gatherer.result()
    assert gathered.sides.sum(axis=0).tolist() == [len(first[2]), 0]
    assert gathered.labels.sum() == len(first[2]) + len(labels)


def test_of_images_of_the_same_bytes_one_is_shown(seen: Seen) -> None:
    gatherer = Gatherer(ONTOLOGY, THRESHOLDS, SHOWN)
    for number, (image, candidates, labels) in enumerate([row for row in seen[:12] for _ in range(3)]):
        gatherer.add(replace(image, id=f"copy{number}.png"), candidates, labels, "train")
    gathered = gatherer.result()
    lists = [some for of_class in gathered.examples.values() for some in of_class]
    lists += [*gathered.dropped.values(), *gathered.whole.values()]
    assert max(map(len, lists)) > 1
    for some in lists:
        assert len({one.image.digest for one in some}) == len(some)


def test_the_best_candidate_of_an_image_is_that_of_a_class_and_no_negative() -> None:
    image, box = see(0)[0], np.array([[1, 1, 9, 9]], np.float32)
    candidates = Candidates(box, np.array([[0.2, 0.3, 0.1, 0.9]], np.float32))  # the last prompt is the negative
    gatherer = Gatherer(ONTOLOGY, THRESHOLDS, SHOWN)
    gatherer.add(image, candidates, decide(candidates, ONTOLOGY, CONFIG, WIDTH, HEIGHT), "train")
    assert gatherer.result().whole[State.EMPTY][0].score == pytest.approx(0.3)
