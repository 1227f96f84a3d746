"""The published plugin as a rival of speed.py: makes its environment once, and asks its worker there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from speed_models import Models
from speed_rivals import Answer, Boxes, Sample

# autodistill imports scikit-learn and roboflow without declaring them; rf-groundingdino calls methods of BertModel that
# transformers 5 no longer has. Without these three `import autodistill_grounded_sam` or its first image fails.
PINS = (
    "autodistill-grounded-sam==0.1.2",
    "autodistill==0.1.29",
    "rf-groundingdino==0.3.0",
    "rf-segment-anything==1.0",
    "transformers==4.57.6",
    "supervision==0.31.2",
    "timm==1.0.31",
    "scikit-learn==1.9.1",
    "roboflow==1.7.3",
)
WORKER = Path(__file__).with_name("speed_published_worker.py")


def make_environment(folder: Path) -> Path:
    """The Python of a virtual environment with the plugin and this process's torch; made anew when the pins changed."""
    import torch
    import torchvision

    pins = [f"{package.__name__}=={package.__version__.partition('+')[0]}" for package in (torch, torchvision)] + list(PINS)
    python, stamp = folder / "bin" / "python", folder / ".installed"
    wanted = "\n".join(pins) + "\n"
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
        print(f"making the published plugin's environment in {folder} (some minutes)", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *pins], check=True, stdout=sys.stderr)
        stamp.write_text(wanted, encoding="utf-8")
    return python


class Published:
    """The plugin's own `predict`, in a process that ends with this one; `detector_file` and `segmenter_file` are its weights."""

    name = "published"

    def __init__(self, environment: Path, work: Path, tokenizer: Path, models: Models, threads: int) -> None:
        python = make_environment(environment)
        self._work, self._log = work, work / "published.log"
        work.mkdir(parents=True, exist_ok=True)
        # Neither this checkout nor the user's own site-packages may be imported there; nothing is looked for on the hub.
        settings = {"PYTHONPATH": "", "PYTHONNOUSERSITE": "1", "HF_HUB_OFFLINE": "1"}
        settings |= {"OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}  # all rivals run on the CPU
        with self._log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [str(python), str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                env=os.environ | settings, cwd=work,
            )  # fmt: skip
        start = {"models": models.plain(), "home": str(work / "home"), "tokenizer": str(tokenizer), "threads": threads}
        told = self._ask(start)
        self.detector_file, self.segmenter_file = told["detector"], told["segmenter"]
        self.versions: dict[str, str] = told["versions"]
        self._encoded: list[Sample] = []

    def line(self, image: Path, prompts: Sequence[str], boxes: Boxes) -> list[Sample]:
        told = self._ask({"do": "line", "image": str(image), "prompts": list(prompts), "boxes": [list(box) for box in boxes]})
        if len(told["passes"]) != len(prompts) or told["masks"] != len(boxes):
            raise RuntimeError(f"the published loop made {len(told['passes'])} passes and {told['masks']} masks; see {self._log}")
        case = (len(prompts), len(boxes))
        detect = [sum(seconds) for seconds in zip(*told["passes"], strict=True)]
        self._encoded = [Sample(self.name, "encode", 0, 0, *told["encode"])]
        return [Sample(self.name, "line", *case, *told["line"]), Sample(self.name, "detect", *case, *detect)]

    def encode(self, image: Path) -> list[Sample]:
        """Of the last line: the plugin encodes an image whether it has boxes or not."""
        return self._encoded

    def answer(self, image: Path, prompt: str, boxes: Boxes) -> Answer:
        out = self._work / "answer.npz"
        asked = {"do": "agree", "image": str(image), "prompts": [prompt], "boxes": [list(box) for box in boxes]}
        self._ask(asked | {"out": str(out)})
        with np.load(out) as arrays:
            return Answer(arrays["boxes"], arrays["masks"])

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None  # both are pipes
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            tail = "".join(self._log.read_text(encoding="utf-8").splitlines(keepends=True)[-15:])
            raise RuntimeError(f"the published plugin's process ended; the end of {self._log}:\n{tail}")
        answer: dict[str, Any] = json.loads(line)
        return answer
