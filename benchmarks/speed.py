"""How fast this package labels, side by side with its rivals: same images, same random weights, same machine, one run.

    python benchmarks/speed.py --out speed.json --markdown speed.md      # Swin-T and SAM ViT-B at their full size
    python benchmarks/speed.py --small --at-least 1.2                    # under a minute; ours and transformers alone

Rivals take turns round by round; a ratio is one of medians of all rounds. Those that run their detector once a class are run with
at most `--passes` classes; what they take for more is computed from these passes and says so. Nothing is downloaded but the
published plugin's packages, into an environment of their own. A caption is read once a run here, as in a run of the tool.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

import speed_machine
import speed_models
import speed_table
from speed_models import CLASSES, Models, given_boxes
from speed_rivals import Ours, Pipeline, Rival, Sample, Transformers, read_rgb, same_answers

LEAST_AGREEMENT = 0.9  # of boxes and masks: a rival below it does not run the same model, and its times mean nothing


@dataclass
class Field:
    """All that a run needs: the rivals that take part, what they are asked, and on which images."""

    rivals: list[Rival]
    lines: list[tuple[int, int]]
    images: list[Path]
    models: Models
    versions: dict[str, dict[str, str]]


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    torch.set_num_threads(args.threads)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        field = set_up(args, Path(folder))
        agreement = agree(field)
        flops = count(field)
        rounds: list[list[Sample]] = []
        rates: list[speed_machine.Rate] = []
        while len(rounds) < args.rounds and (not rounds or enough_time(started, rounds, args)):
            rates.append(speed_machine.matrix_rate())
            rounds.append(run_round(field, len(rounds), args.passes))
            report = tell(args, field, rounds, rates, flops, agreement)
    show(args, report)
    return gate(report["rows"], args.at_least)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="models of few layers, one thread, processor time")
    parser.add_argument("--segmenter", choices=("b", "h"), default="b", help="SAM's size at full size")
    parser.add_argument(
        "--rivals", nargs="+", choices=speed_table.RIVALS[1:], help="default: all; of the small form transformers"
    )
    parser.add_argument("--classes", type=int, nargs="+", help="default: 1 5 20 80; of the small form 5")
    parser.add_argument("--objects", type=int, nargs="+", help="given boxes an image; default: 0 5 50; of the small form 5")
    parser.add_argument("--passes", type=int, default=5, help="most detector passes an image that are run, not computed")
    parser.add_argument("--rounds", type=int, help="default: 3; of the small form 4")
    parser.add_argument("--minutes", type=float, default=75, help="no round begins that would end later, but the first")
    parser.add_argument("--threads", type=int, help="default: all cores; of the small form 1")
    parser.add_argument("--clock", choices=("wall", "processor"), help="default: wall; of the small form processor")
    parser.add_argument("--work", type=Path, default=Path(".cache/speed"), help="weights are kept here from run to run")
    parser.add_argument("--env", type=Path, default=Path(".cache/speed_env"), help="the published plugin's environment")
    parser.add_argument("--out", type=Path, help="write all samples, medians and ratios here as JSON")
    parser.add_argument("--markdown", type=Path, help="write the tables here")
    parser.add_argument("--at-least", type=float, help="exit with 1 if transformers' time over ours is less, detector or line")
    args = parser.parse_args(arguments)
    small = args.small
    if args.at_least is not None and args.rivals and "transformers" not in args.rivals:
        parser.error("--at-least compares with transformers, which is not among --rivals")
    args.rivals = args.rivals or (["transformers"] if small else list(speed_table.RIVALS[1:]))
    args.classes = sorted(args.classes or ([5] if small else [1, 5, 20, 80]))
    args.objects = sorted(args.objects or ([5] if small else [0, 5, 50]))
    args.rounds = args.rounds or (4 if small else 3)
    args.threads = args.threads or (1 if small else os.cpu_count() or 1)
    args.clock = args.clock or ("processor" if small else "wall")
    return args


def set_up(args: argparse.Namespace, folder: Path) -> Field:
    """Builds the weights if they are not there from an earlier run, and all rivals on them."""
    models = speed_models.SMALL if args.small else speed_models.FULL_H if args.segmenter == "h" else speed_models.FULL
    name = "small" if args.small else f"full-{args.segmenter}"
    name += "-official" if "published" in args.rivals else ""
    work = args.work.resolve() / f"{name}-{models.mark}"
    tokenizer = speed_models.write_tokenizer(work / "tokenizer", models)
    weights, versions, published = work / "weights", {}, None
    if "published" in args.rivals:
        from speed_published import Published

        published = Published(args.env.resolve(), work / "published", tokenizer, models, args.threads)
        versions["published"] = published.versions
        if not weights.is_dir():
            speed_models.save_official(weights, tokenizer, models, published.detector_file, published.segmenter_file)
    elif not weights.is_dir():
        speed_models.save_random(weights, tokenizer, models)
    book = Transformers(weights)
    known: dict[str, Rival | None] = {"transformers": book, "pipeline": None, "published": published}
    if "pipeline" in args.rivals:
        known["pipeline"] = Pipeline(book)
    others = [rival for name in args.rivals if (rival := known[name]) is not None]
    typical = speed_table.OBJECTS_OF_TARGETS if speed_table.OBJECTS_OF_TARGETS in args.objects else args.objects[0]
    lines = [(args.classes[0], objects) for objects in args.objects]
    lines += [(classes, typical) for classes in args.classes[1:]]
    images = speed_models.write_images(folder / "images", args.rounds, models)
    return Field([Ours(weights), *others], lines, images, models, versions)


def agree(field: Field) -> dict[str, dict[str, float]]:
    """Whether every rival computes what ours does, which also warms all of them up.

    The image is one that the detector need not resize: rivals differ by a grey level there, and with random weights that moves
    some of the 900 cells that are taken out of 17,000 near-equal ones.
    """
    image = speed_models.write_fitting_image(field.images[0].parent.parent / "fitting.png", field.models)
    boxes = given_boxes(5, field.models.fitting_wh)
    ours, *others = field.rivals
    answer = ours.answer(image, CLASSES[0], boxes)
    # The pipeline holds the very models of `transformers`.
    told = {
        rival.name: same_answers(answer, rival.answer(image, CLASSES[0], boxes)) for rival in others if rival.name != "pipeline"
    }
    for name, shares in told.items():
        if min(shares.values()) < LEAST_AGREEMENT:
            raise SystemExit(f"{name} does not compute what ours does on the same weights: {shares}")
    return told


def count(field: Field) -> dict[str, int]:
    """Operations of our passes; the detector's with its caption read before, as in all rounds but the first."""
    ours = field.rivals[0]
    if not isinstance(ours, Ours):
        raise TypeError("the first rival is ours")
    pixels, prompts = read_rgb(field.images[0]), list(CLASSES[:5])
    boxes = given_boxes(5, field.models.image_wh)
    ours.detector.detect([pixels], prompts)
    return {
        "detector, 5 classes": speed_machine.count_flops(lambda: ours.detector.detect([pixels], prompts)),
        "SAM's image encoder": speed_machine.count_flops(lambda: ours.encode(field.images[0])),
        "segmenter, 5 objects": speed_machine.count_flops(lambda: ours.segment(pixels, boxes)),
    }


def run_round(field: Field, number: int, most_passes: int) -> list[Sample]:
    """One image, every line and the encoder by every rival; who begins changes from round to round."""
    image, samples = field.images[number], []
    turn = number % len(field.rivals)
    rivals = field.rivals[turn:] + field.rivals[:turn]
    for classes, objects in field.lines:
        for rival in rivals:
            if rival.name in speed_table.BY_CLASS and classes > most_passes:
                continue
            if rival.name == "pipeline" and classes == 1 and len(field.lines) > 1:
                continue  # with one class it is transformers in one caption
            gc.collect()
            samples += rival.line(image, CLASSES[:classes], given_boxes(objects, field.models.image_wh))
            whole = next(sample for sample in reversed(samples) if sample.part == "line")
            print(f"round {number + 1}, {classes} classes, {objects} objects, {rival.name}: {whole.wall:.2f} s", file=sys.stderr)
    for rival in rivals:
        if rival.name != "pipeline":
            gc.collect()
            samples += rival.encode(image)
    return samples


def enough_time(started: float, rounds: Sequence[object], args: argparse.Namespace) -> bool:
    """Whether a further round, as long as those before on average, ends in time."""
    spent = time.perf_counter() - started
    return spent + spent / len(rounds) <= 60 * float(args.minutes)


def tell(
    args: argparse.Namespace,
    field: Field,
    rounds: Sequence[Sequence[Sample]],
    rates: Sequence[speed_machine.Rate],
    flops: Mapping[str, int],
    agreement: Mapping[str, Any],
) -> dict[str, Any]:
    """The report so far; written after every round, so that a run that is ended early leaves what it measured."""
    rows = speed_table.summarize(rounds, args.clock, field.lines, targets=not args.small)
    rate = median(getattr(one, args.clock) for one in rates)
    every = [sample for samples in rounds for sample in samples]
    seconds = {}
    for model, (part, classes) in zip(flops, (("detect", 5), ("encode", None), ("segment", None)), strict=True):
        objects = 5 if part == "segment" else None
        if found := speed_table.seconds_of(every, args.clock, "ours", part, classes, objects):
            seconds[model] = found.value
    target = None if args.small else speed_table.CEILING_TARGET
    ceiling = speed_table.ceiling_rows({model: flops[model] for model in seconds}, seconds, rate, target)
    report = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "machine": speed_machine.facts(args.threads),
        "other versions": field.versions,
        "models": field.models.plain(),
        "clock": args.clock,
        "agreement with ours": agreement,
        "rows": rows,
        "ceiling": ceiling,
        "matrix products, GFLOP/s": {"median": rate / 1e9, "rounds": [getattr(one, args.clock) / 1e9 for one in rates]},
        "rounds": [[sample._asdict() for sample in samples] for samples in rounds],
    }
    if args.out:
        plain = report | {"rows": [_plain(row) for row in rows]}
        args.out.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
    return report


def show(args: argparse.Namespace, report: Mapping[str, Any]) -> None:
    tables = [speed_table.time_cells(report["rows"]), speed_table.ceiling_cells(report["ceiling"])]
    notes = notes_on(args, report)
    speed_table.show(tables, notes)
    if args.markdown:
        args.markdown.write_text(speed_table.markdown(tables, notes), encoding="utf-8")


def notes_on(args: argparse.Namespace, report: Mapping[str, Any]) -> list[str]:
    machine, models = report["machine"], report["models"]
    size = "models of few layers" if args.small else f"Grounding DINO Swin-T and SAM ViT-{args.segmenter.upper()}, full size"
    told = "; ".join(
        f"{name}: {shares['boxes']:.1%} of boxes within 2 pixels, mean IoU of masks {shares['masks']:.3f}"
        for name, shares in report["agreement with ours"].items()
    )
    others = "".join(f"; published plugin on {_listed(versions)}" for versions in report["other versions"].values())
    width, height = models["image_wh"]
    return [
        f"{size}, random weights; images of {width}x{height}, the detector's shorter side {models['shorter_px']} px. Medians of "
        f"{len(report['rounds'])} rounds, {report['clock']} time; in brackets the ratios of single rounds. "
        f"{report['date'][:10]}, {machine['cpu']}, {machine['threads']} threads of {machine['cores']} cores, "
        f"{report['matrix products, GFLOP/s']['median']:.0f} GFLOP/s in float32 matrix products; "
        f"{_listed(machine['versions'])}{others}.",
        f"Same weights, same answers. {told}.",
    ]


def gate(rows: Sequence[speed_table.Row], at_least: float | None) -> int:
    """1 where transformers takes less than `at_least` times our time, for the detector or for the whole line."""
    if at_least is None:
        return 0
    judged = [(row.title, row.ratios["transformers"].value) for row in rows if row.part in ("detect", "line")]
    for title, ratio in judged:
        print(f"{title}: {ratio:.2f} times as fast as transformers, at least {at_least:g} asked: {_verdict(ratio, at_least)}")
    return int(any(ratio < at_least for _, ratio in judged))


def _verdict(ratio: float, at_least: float) -> str:
    return "passed" if ratio >= at_least else "FAILED"


def _plain(row: speed_table.Row) -> dict[str, Any]:
    seconds = {rival: value._asdict() for rival, value in row.seconds.items()}
    ratios = {rival: value._asdict() for rival, value in row.ratios.items()}
    return {"title": row.title, **row._asdict(), "seconds": seconds, "ratios": ratios}


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


if __name__ == "__main__":
    sys.exit(main())
