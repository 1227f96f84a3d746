"""`review`: a local page over a run, and the merging of decisions that were made elsewhere."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np

from autodistill_grounded_sam import plugins
from autodistill_grounded_sam.config import ExportConfig, SeeConfig
from autodistill_grounded_sam.decisions import Decision, Tally
from autodistill_grounded_sam.engine.ensemble import segmenter_of
from autodistill_grounded_sam.errors import WrongRunError
from autodistill_grounded_sam.loading import usable_device
from autodistill_grounded_sam.masks import areas
from autodistill_grounded_sam.pipeline import Progress
from autodistill_grounded_sam.protocols import Segmenter
from autodistill_grounded_sam.review.merging import Merged, merge
from autodistill_grounded_sam.review.queue import Doubts, Queue
from autodistill_grounded_sam.review.server import ReviewServer
from autodistill_grounded_sam.review.session import Material, Session
from autodistill_grounded_sam.reviews import FILE
from autodistill_grounded_sam.run_setup import see_of
from autodistill_grounded_sam.store.files import disk_errors
from autodistill_grounded_sam.store.lookup import Lookup
from autodistill_grounded_sam.store.store import Store
from autodistill_grounded_sam.trusting import QUEUE_FILE
from autodistill_grounded_sam.types import Candidates, RgbImage, Rle

INDEX_FILE = "review_index.npz"


def open_review(
    run: Path | str,
    *,
    images: Path | str | None = None,
    port: int = 0,
    device: str = "auto",
    offline: bool = False,
    progress: Progress | None = None,
) -> ReviewServer:
    """A server of the review page of a run, as it was decided last; `serve_forever` it, and hand its `url` to the person.

    All labels are looked through for the queue, which is kept in `run/review_index.npz` for the next time.
    """
    decision = Decision.of(run, None, None, images)
    decision.require_images()
    queue = _queue(decision, progress)
    lookup = Lookup(decision.store, decision.images_root)
    masks = decision.store.info["identity"].get("segmenter") is not None
    see = see_of(decision.store)
    draws = [name for name, _ in plugins.members("segmenters", see.segmenter) if name != plugins.OWN_MASKS] if masks else []
    material = Material(
        name=str(decision.store.run.parent.absolute().name),
        lookup=lookup,
        queue=queue,
        ontology=decision.ontology,
        decide=decision.label_one,
        segment=LazySegmenter(tuple(draws), see, device, offline) if draws else None,
        file=decision.store.run / FILE,
        said=decision.reviews,
        trust=decision.config.trust,
    )
    return ReviewServer(Session(material), port)


@dataclass
class LazySegmenter:
    """The segmenters of a run, loaded when the first box is drawn."""

    names: tuple[str, ...]
    see: SeeConfig
    device: str
    offline: bool
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, image_rgb: RgbImage, xyxy: tuple[float, float, float, float]) -> Rle | None:
        box = Candidates(np.array([xyxy], np.float32), np.ones((1, 1), np.float32))
        with self._one_at_a_time:
            (found,) = self._segmenter.segment([image_rgb], [box])
        return found.rle[0] if found.rle and areas(found.rle)[0] else None

    @cached_property
    def _segmenter(self) -> Segmenter:
        built_in = any(plugins.find("segmenters", name).built_in for name in self.names)
        settings = {
            "device": usable_device(self.device) if built_in else self.device,
            "offline": self.offline,
            "precision": self.see.precision,
            "mask_guess": self.see.mask_guess,
        }
        return segmenter_of(
            [(name, None) for name in self.names], lambda name: cast(Segmenter, plugins.load("segmenters", name, **settings))
        )


def merge_reviews(run: Path | str, file: Path | str) -> Merged:
    """Take the decisions in `file`, lines as of reviews.jsonl, into the reviews of a run, for `decide` and `export` to apply."""
    store = Store(Path(run))
    return merge(store.run / FILE, Path(file), {image.digest: (image.width, image.height) for image, _ in store.seen()})


def _queue(decision: Decision, progress: Progress | None) -> Queue:
    """The queue of this decision, as it was kept or made now."""
    run = decision.store.run
    doubts = run / QUEUE_FILE
    of = [decision.key(ExportConfig(), reviews=False), decision.store.info["generations"], decision.store.not_looked_at()]
    of.append(hashlib.sha256(doubts.read_bytes()).hexdigest() if doubts.exists() else None)
    key = json.dumps(of)
    queue = Queue.load(run / INDEX_FILE, key)
    if queue is None:
        if progress is not None:
            progress.message(f"looking through the labels of {len(decision.store.digests())} images, once")
        queue = _make_queue(decision)
        with disk_errors(run / INDEX_FILE):
            queue.save(run / INDEX_FILE, key)
    return queue


def _make_queue(decision: Decision) -> Queue:
    """All labels of a run by how likely they are wrong."""
    images, labels_of, class_ids, boxes, doubts = [], [], [], [], []
    doubts_of = Doubts.of(decision.ontology, decision.config, decision.store.run / QUEUE_FILE)
    for number, (image, candidates, labels) in enumerate(decision.decided(Tally())):
        count = max(1, len(labels))
        images.append(np.full(count, number, np.int32))
        labels_of.append(np.arange(count, dtype=np.int32) if len(labels) else np.full(1, -1, np.int32))
        class_ids.append(labels.class_id if len(labels) else np.full(1, -1, np.int32))
        boxes.append(labels.xyxy if len(labels) else np.zeros((1, 4), np.float32))
        doubts.append(doubts_of(image.digest, candidates, labels))
    if not images:
        raise WrongRunError(f"no image of {decision.store.run} was seen yet: run `label` first")
    joined = np.concatenate
    return Queue.of(joined(images), joined(labels_of), joined(class_ids), joined(boxes), joined(doubts))
