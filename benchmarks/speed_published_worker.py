"""The published plugin (autodistill-grounded-sam 0.1.2) and its own loop, asked over stdin and stdout, one JSON line each way.

Runs inside the environment that speed_published.py makes, and imports nothing of our package: both bear one name.
What is not the published code's own, and why:

- The weights are random, made here by the authors' own classes and put where the plugin looks for its downloads.
- The text encoder is built from its config; its weights are in the same file, so nothing is read from the hub.
- The plugin knows one size of SAM; the size asked for stands in for it.
- Random weights find random boxes, so each prompt is answered with its share of the boxes that were given.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from speed_models import soften, stir

Spent = list[float]  # seconds by the wall clock and of all processor cores


def clock() -> Spent:
    return [time.perf_counter(), time.process_time()]


def since(start: Spent) -> Spent:
    return [now - then for now, then in zip(clock(), start, strict=True)]


class Published:
    """`models` are the sizes of speed_models.py as plain data, `home` the folder in which the plugin finds its weights."""

    def __init__(self, models: dict[str, Any], home: Path, tokenizer: Path, threads: int) -> None:
        os.environ["HOME"] = str(home)
        import torch

        torch.set_num_threads(threads)
        self._models, self._tokenizer = models, tokenizer
        cache = home / ".cache" / "autodistill"
        self.detector_file = cache / "groundingdino" / "groundingdino_swint_ogc.pth"
        self.segmenter_file = cache / "segment_anything" / "sam_vit_h_4b8939.pth"
        self._passes: list[Spent] = []
        self._encoder: list[Spent] = []
        self._boxes: Any = None
        config = self._detector_of_size()
        self._segmenter_of_size()
        self._make_weights(config)
        from autodistill.detection import CaptionOntology

        import autodistill_grounded_sam.grounded_sam as published

        self._ontology: Any = CaptionOntology
        self._plugin = published.GroundedSAM(CaptionOntology({"thing": "thing"}), box_threshold=1.0)
        self._ask = self._plugin.grounding_dino_model.predict_with_classes
        self._plugin.grounding_dino_model.predict_with_classes = self._timed_pass
        encoder = self._plugin.sam_predictor.model.image_encoder
        encoder.register_forward_pre_hook(lambda *_: self._encoder.append(clock()))
        encoder.register_forward_hook(lambda *_: self._encoder.append(since(self._encoder.pop())))

    def line(self, image: str, prompts: list[str], boxes: list[list[float]]) -> dict[str, Any]:
        """The plugin's `predict` of one image; seconds of all of it, of each pass of the detector and of the image encoder."""
        self._set(prompts, boxes)
        start = clock()
        found = self._plugin.predict(image)
        return {"line": since(start), "passes": self._passes, "encode": self._encoder[0], "masks": len(found.mask)}

    def agree(self, image: str, prompts: list[str], boxes: list[list[float]], out: str) -> dict[str, Any]:
        """All boxes of the first prompt, and the masks of the given boxes; the picture is RGB here, as SAM expects it."""
        import cv2
        import numpy as np

        bgr = cv2.imread(image)
        found = self._ask(image=bgr, classes=prompts[:1], box_threshold=-1.0, text_threshold=2.0)
        predictor = self._plugin.sam_predictor
        predictor.set_image(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
        masks = [predictor.predict(box=np.array(box), multimask_output=False)[0][0] for box in boxes]
        np.savez(out, boxes=found.xyxy, masks=np.array(masks))
        return {}

    def _set(self, prompts: list[str], boxes: list[list[float]]) -> None:
        import numpy as np

        self._plugin.ontology = self._ontology({prompt: prompt for prompt in prompts})
        every = np.array(boxes, np.float32).reshape(-1, 4)
        self._boxes = iter([every[number :: len(prompts)] for number in range(len(prompts))])
        self._passes, self._encoder[:] = [], []

    def _timed_pass(self, **asked: Any) -> Any:
        import numpy as np
        import supervision as sv

        start = clock()
        self._ask(**asked)
        self._passes.append(since(start))
        boxes = next(self._boxes)
        return sv.Detections(boxes, confidence=np.full(len(boxes), 0.9), class_id=np.zeros(len(boxes), int))

    def _detector_of_size(self) -> Path:
        """Writes the plugin's config file for the sizes asked for; nothing but the text encoder changes at full size."""
        from groundingdino.config import GroundingDINO_SwinT_OGC as released
        from groundingdino.models.GroundingDINO.backbone import backbone, swin_transformer
        from groundingdino.util import get_tokenlizer, inference
        from transformers import BertConfig, BertModel

        sizes = self._models
        get_tokenlizer.get_pretrained_language_model = lambda folder: BertModel(BertConfig.from_pretrained(folder))
        if not sizes["released"]:
            swin = {"embed_dim": sizes["swin_width"], "depths": sizes["swin_depths"], "num_heads": sizes["swin_heads"]}
            backbone.build_swin_transformer = lambda name, **kept: swin_transformer.SwinTransformer(**swin, window_size=7, **kept)
            resize = inference.T.RandomResize
            inference.T.RandomResize = lambda _, max_size: resize([sizes["shorter_px"]], max_size=sizes["longer_px"])
        path = self.detector_file.with_name("GroundingDINO_SwinT_OGC.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        ours = {"text_encoder_type": str(self._tokenizer), "enc_layers": sizes["layers"], "dec_layers": sizes["layers"]}
        lines = [f"{name} = {value!r}" for name, value in ours.items()]
        path.write_text(Path(released.__file__).read_text() + "\n" + "\n".join(lines) + "\n")
        return path

    def _segmenter_of_size(self) -> None:
        from segment_anything import sam_model_registry
        from segment_anything.build_sam import _build_sam

        sizes = self._models
        sam_model_registry["vit_h"] = functools.partial(
            _build_sam, sizes["sam_width"], sizes["sam_depth"], sizes["sam_heads"], sizes["sam_global"]
        )

    def _make_weights(self, config: Path) -> None:
        import torch
        from groundingdino.models import build_model
        from groundingdino.util.slconfig import SLConfig
        from segment_anything import sam_model_registry

        torch.manual_seed(0)
        if not self.detector_file.exists():
            settings = SLConfig.fromfile(str(config))
            settings.device = "cpu"
            model = build_model(settings)
            stir(model, self._models["noise"])
            soften(model.transformer.encoder.text_layers[-1].norm2, self._models["soft"])
            save({"model": model.state_dict()}, self.detector_file)
        if not self.segmenter_file.exists():
            segmenter = sam_model_registry["vit_h"]()
            stir(segmenter, self._models["noise"])
            save(segmenter.state_dict(), self.segmenter_file)


def save(state: Any, path: Path) -> None:
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.rename(path)


def versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("autodistill-grounded-sam", "rf-groundingdino", "rf-segment-anything", "supervision", "transformers", "torch")
    return {name: version(name) for name in names}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the packages print goes to the log
    start = json.loads(sys.stdin.readline())
    published = Published(start["models"], Path(start["home"]), Path(start["tokenizer"]), start["threads"])
    files = {"detector": str(published.detector_file), "segmenter": str(published.segmenter_file)}
    print(json.dumps(files | {"versions": versions()}), file=answers, flush=True)
    for request in map(json.loads, sys.stdin):
        answer = getattr(published, request.pop("do"))(**request)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
