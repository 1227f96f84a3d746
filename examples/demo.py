"""The main job, offline, in minutes: paint scenes, label them from words, measure the labels, train a student, measure it.

Run by `make demo`. Everything goes through the command line, as a user would type it; the figures come from its --json.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

from autodistill_grounded_sam.drawing import dataset_sheet
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.painting import FRESH_SETTINGS, PainterSettings, paint_dataset

ONTOLOGY = "painted_shapes_small"
MARKER = ".demo"  # says that a folder is ours to empty


def run(*words: str | Path) -> dict:
    """Call `grounded-sam` and read its answer."""
    command = ["grounded-sam", *map(str, words), "--json"]
    print("$", shlex.join(command), flush=True)
    tool = str(Path(sys.executable).with_name("grounded-sam"))
    return json.loads(subprocess.run([tool, *command[1:]], check=True, stdout=subprocess.PIPE, text=True).stdout)


def make_folder(out: Path) -> None:
    """An empty folder. One of an earlier demo is emptied; raises FileExistsError for any other that holds something."""
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file: give another --out")
    if out.is_dir() and any(out.iterdir()):
        if not (out / MARKER).is_file():
            raise FileExistsError(f"{out} holds files that no demo made: give another --out, or delete it yourself; it is kept")
        for path in out.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != MARKER:
                path.unlink()
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).write_text("made by examples/demo.py, which empties this folder when it runs again\n", encoding="utf-8")


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"  # there is no precision without a label


def line(name: str, facts: dict) -> str:
    figures = [f"{kind} AP50 {facts[kind]['AP50']:.3f}" for kind in ("box", "mask") if facts[kind]]
    point = facts["operating_point"]
    return f"{name:<34} {', '.join(figures)}, precision {number(point['precision'])}, recall {number(point['recall'])}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo_out"))
    parser.add_argument("--scenes", type=int, default=80)
    parser.add_argument("--epochs", type=int, default=60)
    args = parser.parse_args()
    start, out = time.perf_counter(), args.out
    try:
        make_folder(out)
    except FileExistsError as error:
        parser.error(str(error))
    names = Ontology.load(ONTOLOGY).class_names
    pairs = tuple(tuple(name.split(" ")) for name in names)
    settings = PainterSettings(FRESH_SETTINGS.width, FRESH_SETTINGS.height, objects=(3, 6), pairs=pairs)

    print(f"Painting {args.scenes} scenes to label and 40 that stay unseen, with their truth ...", flush=True)
    truth = paint_dataset(out / "scenes", args.scenes, settings, 50_000, names)
    unseen = paint_dataset(out / "unseen", 40, settings, 60_000, names)

    models = ("--detector", "mini", "--segmenter", "mini", "--ontology", ONTOLOGY, "--offline")
    labelled = run("label", out / "scenes/images", *models, "--out", out / "dataset")
    print(f"{labelled['labels']} labels on {args.scenes} images, {labelled['images_per_second']:.1f} images/s\n")
    labels = run("evaluate", out / "dataset/run", "--truth", truth)

    trained = run(
        "distill", out / "dataset", "--target", "yolov8n-seg.yaml", "--epochs", str(args.epochs), "--imgsz", "288",
        "--batch-size", "8", "--offline", "--out", out / "student",
    )  # fmt: skip
    student = run("evaluate", trained["weights"], "--truth", unseen, "--images", out / "unseen/images")
    run("label", out / "unseen/images", *models, "--out", out / "teacher_on_unseen")
    teacher = run("evaluate", out / "teacher_on_unseen/run", "--truth", unseen)

    sheet = out / "contact_sheet.png"
    Image.fromarray(dataset_sheet(out / "dataset")).save(sheet)

    print("\nMeasured against the painted truth:")
    print(line(f"labels of the {args.scenes} scenes", labels))
    print(line("teacher (mini) on 40 unseen scenes", teacher))
    print(line("student (YOLOv8n) on the same 40", student))
    print(f"\ndataset: {out / 'dataset'}\nstudent: {trained['weights']} (started from {trained['started_from']})")
    print(f"contact sheet: {sheet}\n{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
